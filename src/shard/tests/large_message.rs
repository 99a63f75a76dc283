//! 8.2.1.2 (OLM), 8.3.1.2 (TLM), 8.3.1.5 (EMS) on the wire.

use super::world::*;
use crate::base::clock::Duration;
use crate::shard::exchange::{Command, Report, Totals};
use crate::sip::header::name::Name;

const BOBS: &str = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\nServer: CPM-client/OMA2.2\r\n";

fn bob_answers() -> String {
    offer("bobs", "a=recvonly\r\na=setup:passive\r\n")
}

fn alice_offers() -> String {
    offer("alices", "a=sendonly\r\na=file-selector:size:4092\r\na=setup:active\r\n")
}

fn terminating() -> String {
    invite("sip:bob@example.net", "term", LARGE, "", &alice_offers())
}

#[test]
fn a_large_message_for_a_registered_user_goes_through_and_ends() {
    let mut world = World::new(config());
    world.receives(ALICE, &terminating());
    world.expect(ALICE, "SIP/2.0 100 Trying");
    let invite = world.expect(CORE, "INVITE sip:bob@example.net;gr=");
    assert_eq!(invite.headers(Name::Route), [format!("<sip:{CORE};lr>")]);
    assert_eq!(invite.header(Name::MaxForwards), "69");
    assert_eq!(invite.headers(Name::Contact).len(), 1);
    assert!(invite.header(Name::Contact).contains("@127.0.0.1:5060"), "{}", invite.text);
    assert_ne!(invite.header(Name::CallId), "call-1");
    assert!(invite.header(Name::SessionExpires).ends_with(";refresher=uas"), "{}", invite.text);
    assert!(invite.sdp("a=path:msrp://127.0.0.1:2855/00").is_some(), "{}", invite.text);

    world.answers(&invite, "180 Ringing", "", "");
    world.expect(ALICE, "SIP/2.0 180 Ringing");
    world.answers(&invite, "200 OK", BOBS, &bob_answers());
    let ok = world.expect(ALICE, "SIP/2.0 200 OK");
    world.expect(BOB, "ACK sip:bob@127.0.0.1:5081");
    assert!(ok.sdp("a=path:msrp://127.0.0.1:2855/00").is_some(), "{}", ok.text);
    assert_ne!(ok.sdp("a=path"), invite.sdp("a=path"));
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect_nothing();

    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "Reason: SIP;cause=200;text=\"done\"\r\n", ""));
    world.expect(ALICE, "SIP/2.0 200 OK");
    let bye = world.expect(BOB, "BYE sip:bob@127.0.0.1:5081");
    assert_eq!(bye.header(Name::Reason), "SIP;cause=200;text=\"done\"");
    assert_eq!(bye.header(Name::CSeq), "2 BYE");
    world.answers(&bye, "200 OK", "", "");
    assert!(matches!(world.commands.last(), Some(Command::Close { .. })));
    assert_eq!((world.records.len(), world.records[0].cause, world.records[0].status), (1, "bye-origin", 200));

    world.receives(ALICE, &in_dialog("BYE", 3, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 481");
    world.rests();
}

#[test]
fn bob_hears_bye_when_he_has_what_alice_sent() {
    let mut world = World::new(config());
    world.media_closes = false;
    let (invite, ok) = world.agrees(&terminating(), BOBS, &bob_answers());
    world.expect(BOB, "ACK");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let session = world.media_key();
    world.reports(Report::Bound { session, leg: 0 });
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200 OK");
    world.expect_nothing();
    assert!(matches!(world.commands.last(), Some(Command::Close { left: Some(0), .. })), "{:?}", world.commands.last());
    // A session that ends takes nothing more from its other peer.
    world.receives(BOB, &from_target("INFO", 1, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 481");
    world.reports(Report::Closed { session, totals: Totals::default() });
    let bye = world.expect(BOB, "BYE sip:bob@127.0.0.1:5081");
    world.answers(&bye, "200 OK", "", "");
    world.rests();
}

#[test]
fn a_media_core_that_says_nothing_does_not_keep_the_bye_for_ever() {
    let mut world = World::new(config());
    world.media_closes = false;
    let (_, ok) = world.agrees(&terminating(), BOBS, &bob_answers());
    world.expect(BOB, "ACK");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.reports(Report::Bound { session: world.media_key(), leg: 1 });
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200 OK");
    world.passes(Duration::from_secs(64));
    let bye = world.expect(BOB, "BYE sip:bob@127.0.0.1:5081");
    world.answers(&bye, "200 OK", "", "");
    world.rests();
}

#[test]
fn a_2xx_is_resent_until_its_ack_and_an_origin_that_never_acknowledges_is_left() {
    let mut world = World::new(config());
    let (_, ok) = world.agrees(&terminating(), BOBS, &bob_answers());
    world.expect(BOB, "ACK");
    world.passes(Duration::from_millis(600));
    assert_eq!(world.expect(ALICE, "SIP/2.0 200 OK").text, ok.text);
    world.passes(Duration::from_secs(33));
    let byes: Vec<_> = world.sent.drain(..).filter(|sent| sent.text.starts_with("BYE")).map(|sent| sent.to.to_string()).collect();
    assert!(byes.contains(&BOB.to_string()) && byes.contains(&ALICE.to_string()), "{byes:?}");
    world.rests();
}

#[test]
fn a_cancel_ends_both_sides() {
    let mut world = World::new(config());
    let invite = world.relays(&terminating());
    world.answers(&invite, "100 Trying", "", "");
    let cancel = terminating().replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL");
    world.receives(ALICE, &cancel);
    world.expect(ALICE, "SIP/2.0 200");
    let terminated = world.expect(ALICE, "SIP/2.0 487");
    world.receives(ALICE, &in_dialog("ACK", 1, &terminated, "", "").replace("z9hG4bKACK1", "z9hG4bKinvite"));
    let cancelled = world.expect(CORE, "CANCEL sip:bob@example.net;gr=");
    world.answers(&cancelled, "200 OK", "", "");
    world.answers(&invite, "487 Request Terminated", "", "");
    world.expect(CORE, "ACK");
    world.expect_nothing();
    assert_eq!((world.records.len(), world.records[0].cause, world.records[0].status), (1, "cancel", 487));
    world.rests();
}

#[test]
fn a_2xx_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let mut world = World::new(config());
    let invite = world.relays(&terminating());
    world.answers(&invite, "180 Ringing", "", "");
    world.expect(ALICE, "SIP/2.0 180");
    world.receives(ALICE, &terminating().replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL"));
    world.expect(ALICE, "SIP/2.0 200");
    world.expect(ALICE, "SIP/2.0 487");
    world.expect(CORE, "CANCEL");
    world.answers(&invite, "200 OK", BOBS, &bob_answers());
    world.expect(BOB, "ACK");
    world.expect(BOB, "BYE");
    world.rests();
}
