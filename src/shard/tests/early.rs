//! RFC 3261 §12.1, §14.2, §15, RFC 3311 §5.2: requests in an early dialog, of the origin's and of a target's.

use super::world::*;
use crate::sip::header::name::Name;

const OF_BOB: &str = "Contact: <sip:bob@127.0.0.1:5081>\r\n";
const BOTH: &str = "SIP;cause=480;text=\"a, b\", Q.850;cause=16";

/// Alice calls and it rings: the INVITE that Bob got, and the 180 that Alice got.
fn ringing() -> (World, Sent, Sent) {
    let mut world = World::new(config());
    let text = invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\na=msrp-cema\r\n"));
    let text = text.replace("Supported: timer\r\n", &format!("Record-Route: <sip:scscf@{ALICE};lr>\r\nSupported: timer\r\n"));
    let invite = world.relays(&text);
    world.answers(&invite, "180 Ringing", OF_BOB, "");
    let ringing = world.expect(ALICE, "SIP/2.0 180");
    (world, invite, ringing)
}

fn refused(mut world: World, invite: &Sent) {
    world.answers(invite, "486 Busy Here", "", "");
    world.rests();
}

#[test]
fn what_rings_has_a_contact_and_the_route_of_the_dialog() {
    let (mut world, invite, ringing) = ringing();
    assert!(ringing.header(Name::Contact).starts_with("<sip:00."), "{}", ringing.text);
    assert_eq!(ringing.headers(Name::RecordRoute), [format!("<sip:scscf@{ALICE};lr>")]);
    // It is the same in each response of the dialog.
    world.answers(&invite, "183 Session Progress", OF_BOB, "");
    let progress = world.expect(ALICE, "SIP/2.0 183");
    assert_eq!(progress.header(Name::Contact), ringing.header(Name::Contact));
    refused(world, &invite);
}

#[test]
fn who_hangs_up_while_it_rings_gets_487() {
    let (mut world, invite, ringing) = ringing();
    world.receives(ALICE, &in_dialog("BYE", 2, &ringing, &format!("Reason: {BOTH}\r\n"), ""));
    assert!(world.expect(ALICE, "SIP/2.0 200").header(Name::CSeq).ends_with("BYE"));
    assert!(world.expect(ALICE, "SIP/2.0 487").header(Name::CSeq).ends_with("INVITE"));
    assert_eq!(world.expect(CORE, "CANCEL").header(Name::Reason), BOTH);
    world.answers(&invite, "487 Request Terminated", "", "");
    world.expect(CORE, "ACK");
    world.rests();
    assert_eq!((world.records[0].status, world.records[0].cause), (487, "bye-origin"));
}

#[test]
fn all_reasons_of_a_cancel_and_of_a_bye_are_passed_on() {
    let (mut world, invite, ringing) = ringing();
    let fields = "Reason: SIP;cause=480;text=\"a, b\"\r\nReason: Q.850;cause=16\r\n";
    let cancel = in_dialog("CANCEL", 1, &ringing, fields, "").replace("z9hG4bKCANCEL1", "z9hG4bKinvite");
    let cancel = cancel.replace(&ringing.header(Name::To), "<sip:bob@other.net>");
    world.receives(ALICE, &cancel);
    world.expect(ALICE, "SIP/2.0 200");
    world.expect(ALICE, "SIP/2.0 487");
    assert_eq!(world.expect(CORE, "CANCEL").header(Name::Reason), BOTH);
    world.answers(&invite, "487 Request Terminated", "", "");
    world.rests();

    let mut world = World::new(config());
    let text = invite_of_alice();
    let (_, ok) = world.stands(&text, &format!("{OF_BOB}Content-Type: application/sdp\r\n"), &bobs());
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, fields, ""));
    world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(world.expect(BOB, "BYE").header(Name::Reason), BOTH);
    world.rests();
}

fn invite_of_alice() -> String {
    invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\na=msrp-cema\r\n"))
}

fn bobs() -> String {
    offer("bobs", "a=setup:passive\r\na=msrp-cema\r\n")
}

#[test]
fn the_origin_is_told_that_it_is_too_early() {
    let (mut world, invite, ringing) = ringing();
    let sdp = "Contact: <sip:alice@127.0.0.1:5080>\r\nContent-Type: application/sdp\r\n";
    for (cseq, method) in [(2, "INVITE"), (3, "UPDATE")] {
        world.receives(ALICE, &in_dialog(method, cseq, &ringing, sdp, &bobs()));
        world.sent.retain(|sent| !sent.text.starts_with("SIP/2.0 100"));
        let later: u32 = world.expect(ALICE, "SIP/2.0 500").header(Name::RetryAfter).parse().unwrap();
        assert!(later <= 10);
    }
    for (cseq, method) in [(4, "INFO"), (5, "MESSAGE"), (6, "REFER"), (7, "NOTIFY")] {
        world.receives(ALICE, &in_dialog(method, cseq, &ringing, "", ""));
        world.expect(ALICE, "SIP/2.0 480");
    }
    world.receives(ALICE, &in_dialog("OPTIONS", 8, &ringing, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("FOO", 9, &ringing, "", ""));
    assert!(world.expect(ALICE, "SIP/2.0 405").header(Name::Allow).contains("UPDATE"));
    // Not a number of another dialog's, and none that was there before.
    world.receives(ALICE, &in_dialog("INFO", 10, &ringing, "", "").replace("tag=alice", "tag=other"));
    world.expect(ALICE, "SIP/2.0 481");
    world.receives(ALICE, &in_dialog("INFO", 3, &ringing, "", ""));
    world.expect(ALICE, "SIP/2.0 500");
    world.expect_nothing();
    refused(world, &invite);
}

#[test]
fn an_update_without_offer_moves_the_origin() {
    let (mut world, invite, ringing) = ringing();
    world.receives(ALICE, &in_dialog("UPDATE", 2, &ringing, "Contact: <sip:alice@127.0.0.1:5099>\r\n", ""));
    let moved = world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(moved.header(Name::Contact), ringing.header(Name::Contact));
    world.answers(&invite, "200 OK", &format!("{OF_BOB}Content-Type: application/sdp\r\n"), &bobs());
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK");
    world.core.stop(world.now, &mut world.out);
    world.collect();
    world.expect(ALICE, "BYE sip:alice@127.0.0.1:5099 SIP/2.0");
    world.rests();
}

#[test]
fn a_target_that_rings_has_a_dialog_too() {
    let (mut world, invite, _) = ringing();
    let contact = "Contact: <sip:bob@127.0.0.1:5081>\r\n";
    for (cseq, method, fields, body, status) in [
        (1, "UPDATE", contact.to_string() + "Content-Type: application/sdp\r\n", bobs(), "491"),
        (2, "UPDATE", contact.to_string(), String::new(), "200"),
        (3, "INFO", String::new(), String::new(), "480"),
        (4, "OPTIONS", String::new(), String::new(), "200"),
        // Who was called hangs up with a final response (§15).
        (5, "BYE", String::new(), String::new(), "481"),
    ] {
        world.receives(BOB, &from_target(method, cseq, &invite, &fields, &body));
        let answer = world.expect(BOB, &format!("SIP/2.0 {status}"));
        assert_eq!(answer.headers(Name::Contact).is_empty(), cseq != 2, "{}", answer.text);
    }
    // Another call's.
    let foreign = from_target("INFO", 6, &invite, "", "").replace(&invite.header(Name::CallId), "other");
    world.receives(BOB, &foreign);
    world.expect(BOB, "SIP/2.0 481");
    world.expect_nothing();
    refused(world, &invite);
}
