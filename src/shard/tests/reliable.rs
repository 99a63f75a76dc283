//! RFC 3262 through the B2BUA: each leg numbers its own responses; who does not ask for them gets none.

use super::world::*;
use crate::base::clock::Duration;
use crate::sip::header::name::Name;

const OF_BOB: &str = "Contact: <sip:bob@127.0.0.1:5081>\r\n";

fn bobs() -> String {
    offer("bobs", "a=setup:passive\r\na=msrp-cema\r\n")
}

/// Alice calls; what Bob got.
fn calling(supports: &str) -> (World, Sent) {
    let mut world = World::new(config());
    let text = invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\na=msrp-cema\r\n"));
    let text =
        text.replace("Supported: timer\r\n", &format!("Record-Route: <sip:scscf@{ALICE};lr>\r\nSupported: timer\r\n{supports}"));
    let invite = world.relays(&text);
    (world, invite)
}

fn rings(world: &mut World, invite: &Sent, status: &str, sequence: u32, more: &str, body: &str) {
    let fields = format!("{OF_BOB}Require: 100rel\r\nRSeq: {sequence}\r\n{more}");
    world.answers(invite, status, &fields, body);
}

fn prack(cseq: u32, heard: &Sent, rack: &str) -> String {
    in_dialog("PRACK", cseq, heard, &format!("RAck: {rack}\r\n"), "")
}

#[test]
fn reliable_responses_are_relayed_when_both_sides_ask() {
    let (mut world, invite) = calling("Supported: 100rel\r\n");
    assert_eq!(invite.headers(Name::Supported), ["timer", "100rel"]);
    assert!(invite.header(Name::Allow).contains("PRACK"));
    rings(&mut world, &invite, "183 Session Progress", 9000, "", "");
    let heard = world.expect(ALICE, "SIP/2.0 183 Session Progress");
    let sequence: u32 = heard.header(Name::RSeq).parse().unwrap();
    assert_eq!((heard.header(Name::Require).as_str(), heard.header(Name::Contact).is_empty()), ("100rel", false));
    assert_eq!(heard.headers(Name::RecordRoute).len(), 1);
    // A resend of the target's is nothing new; a further one waits for Alice's PRACK.
    rings(&mut world, &invite, "183 Session Progress", 9000, "", "");
    rings(&mut world, &invite, "180 Ringing", 9001, "", "");
    world.expect_nothing();
    // Ours is sent again until she acknowledges it.
    world.passes(Duration::from_millis(1500));
    assert_eq!(world.expect(ALICE, "SIP/2.0 183").text, heard.text);
    assert_eq!(world.expect(ALICE, "SIP/2.0 183").text, heard.text);
    world.expect_nothing();
    world.receives(ALICE, &prack(2, &heard, &format!("{sequence} 1 INVITE")));
    let passed = world.expect(BOB, "PRACK sip:bob@127.0.0.1:5081");
    assert_eq!((passed.header(Name::RAck).as_str(), passed.header(Name::CSeq).as_str()), ("9000 1 INVITE", "2 PRACK"));
    assert!(passed.header(Name::To).ends_with(";tag=peer"));
    let ringing = world.expect(ALICE, "SIP/2.0 180");
    assert_eq!(ringing.header(Name::RSeq), (sequence + 1).to_string());
    world.answers(&passed, "200 OK", "", "");
    assert!(world.expect(ALICE, "SIP/2.0 200").header(Name::CSeq).ends_with("PRACK"));
    world.receives(ALICE, &prack(3, &ringing, &format!("{} 1 INVITE", sequence + 1)));
    let passed = world.expect(BOB, "PRACK");
    assert_eq!((passed.header(Name::RAck).as_str(), passed.header(Name::CSeq).as_str()), ("9001 1 INVITE", "3 PRACK"));
    world.answers(&passed, "200 OK", "", "");
    world.expect(ALICE, "SIP/2.0 200");
    // The numbers of PRACKs count in the dialog that stands.
    world.answers(&invite, "200 OK", &format!("{OF_BOB}Content-Type: application/sdp\r\n"), &bobs());
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    assert_eq!(world.expect(BOB, "ACK").header(Name::CSeq), "1 ACK");
    world.receives(ALICE, &in_dialog("BYE", 4, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(world.expect(BOB, "BYE").header(Name::CSeq), "4 BYE");
    world.rests();
}

#[test]
fn a_caller_who_does_not_ask_hears_it_unreliably() {
    let (mut world, invite) = calling("");
    assert_eq!(invite.headers(Name::Supported), ["timer"]);
    rings(&mut world, &invite, "183 Session Progress", 7, "", "");
    let heard = world.expect(ALICE, "SIP/2.0 183");
    assert!(heard.header(Name::RSeq).is_empty() && heard.header(Name::Require).is_empty(), "{}", heard.text);
    let prack = world.expect(BOB, "PRACK");
    assert_eq!(prack.header(Name::RAck), "7 1 INVITE");
    world.answers(&prack, "200 OK", "", "");
    // Out of order: not acknowledged and not relayed.
    rings(&mut world, &invite, "180 Ringing", 9, "", "");
    world.expect_nothing();
    world.answers(&invite, "486 Busy Here", "", "");
    world.expect(CORE, "ACK");
    world.expect(ALICE, "SIP/2.0 486");
    world.rests();
}

#[test]
fn a_target_that_does_not_ask_rings_unreliably_unless_the_caller_requires_more() {
    let (mut world, invite) = calling("Supported: 100rel\r\n");
    world.answers(&invite, "180 Ringing", OF_BOB, "");
    assert!(world.expect(ALICE, "SIP/2.0 180").header(Name::RSeq).is_empty());
    world.answers(&invite, "486 Busy Here", "", "");
    world.rests();

    let (mut world, invite) = calling("Require: 100rel\r\n");
    world.answers(&invite, "180 Ringing", OF_BOB, "");
    let heard = world.expect(ALICE, "SIP/2.0 180");
    let sequence: u32 = heard.header(Name::RSeq).parse().unwrap();
    for (cseq, wrong) in [(2, format!("{} 1 INVITE", sequence + 1)), (3, format!("{sequence} 2 INVITE")), (4, "x".to_string())] {
        world.receives(ALICE, &prack(cseq, &heard, &wrong));
        world.expect(ALICE, "SIP/2.0 481");
    }
    world.receives(ALICE, &prack(5, &heard, &format!("{sequence} 1 INVITE")));
    world.expect(ALICE, "SIP/2.0 200");
    world.expect_nothing();
    world.receives(ALICE, &prack(6, &heard, &format!("{sequence} 1 INVITE")));
    world.expect(ALICE, "SIP/2.0 481");
    world.answers(&invite, "486 Busy Here", "", "");
    world.rests();
}

#[test]
fn an_answer_that_came_reliably_need_not_come_again() {
    let (mut world, invite) = calling("Supported: 100rel\r\n");
    rings(&mut world, &invite, "183 Session Progress", 1, "Content-Type: application/sdp\r\n", &bobs());
    let heard = world.expect(ALICE, "SIP/2.0 183");
    assert!(heard.sdp("m=message 2855").is_some() && !heard.body().contains("bobs"), "{}", heard.text);
    world.passes(Duration::from_millis(500));
    assert_eq!(world.expect(ALICE, "SIP/2.0 183").text, heard.text);
    // The 2xx overtakes the PRACK, which is still answered; nothing is sent again.
    world.answers(&invite, "200 OK", OF_BOB, "");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(ok.body(), heard.body());
    let rack = format!("{} 1 INVITE", heard.header(Name::RSeq));
    world.receives(ALICE, &prack(2, &heard, &rack));
    assert!(world.expect(ALICE, "SIP/2.0 200").header(Name::CSeq).ends_with("PRACK"));
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK");
    world.passes(Duration::from_secs(60));
    world.expect_nothing();
    world.receives(ALICE, &in_dialog("BYE", 3, &ok, "", ""));
    world.rests();
}

#[test]
fn an_early_answer_stays_the_answer_whoever_takes_the_call() {
    let (mut world, invite) = calling("Supported: 100rel\r\n");
    let other = bobs().replace("a=accept-types:message/cpim", "a=accept-types:message/cpim text/plain");
    rings(&mut world, &invite, "183 Session Progress", 1, "Content-Type: application/sdp\r\n", &bobs());
    let heard = world.expect(ALICE, "SIP/2.0 183");
    // Another fork takes it, with another answer.
    let fields = format!("{OF_BOB}Content-Type: application/sdp\r\n");
    world.receives(CORE, &answer(&invite.request(), "200 OK", &fields, &other).replace(";tag=peer", ";tag=fork"));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(ok.body(), heard.body());
    world.receives(ALICE, &in_dialog("BYE", 3, &ok, "", ""));
    world.rests();
}

#[test]
fn a_prack_may_bring_another_offer() {
    let (mut world, invite) = calling("Supported: 100rel\r\n");
    let sdp = "Content-Type: application/sdp\r\n";
    rings(&mut world, &invite, "183 Session Progress", 1, sdp, &bobs());
    let heard = world.expect(ALICE, "SIP/2.0 183");
    let rack = format!("RAck: {} 1 INVITE\r\n{sdp}", heard.header(Name::RSeq));
    let moved = offer("alices2", "a=setup:active\r\na=msrp-cema\r\n");
    world.receives(ALICE, &in_dialog("PRACK", 2, &heard, &rack, &moved));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    assert!(ok.header(Name::CSeq).ends_with("PRACK") && ok.sdp("a=setup:passive").is_some(), "{}", ok.text);
    assert_eq!((ok.sdp("a=path:"), version_of(&ok)), (heard.sdp("a=path:"), version_of(&heard) + 1));
    assert!(world.expect(BOB, "PRACK").body().is_empty());
    world.answers(&invite, "200 OK", OF_BOB, "");
    assert_eq!(world.expect(ALICE, "SIP/2.0 200").body(), ok.body());

    // What is not shown has no answer yet, so nothing can be offered.
    let (mut world, invite) = calling("Supported: 100rel\r\n");
    rings(&mut world, &invite, "183 Session Progress", 1, "", "");
    let heard = world.expect(ALICE, "SIP/2.0 183");
    let rack = format!("RAck: {} 1 INVITE\r\n{sdp}", heard.header(Name::RSeq));
    world.receives(ALICE, &in_dialog("PRACK", 2, &heard, &rack, &moved));
    world.expect(ALICE, "SIP/2.0 488");
}

fn version_of(sent: &Sent) -> u64 {
    let origin = sent.sdp("o=").expect("it has an SDP");
    origin.split(' ').nth(2).and_then(|version| version.parse().ok()).expect("a version")
}

#[test]
fn where_several_ring_none_of_them_answers_early() {
    let mut config = with_two_clients(config());
    config.policy.session_answer = crate::config::SessionAnswer::Late;
    let mut world = World::new(config);
    let text = invite("sip:bob@example.net", "term", SESSION, "", &offer("alices", "a=setup:active\r\na=msrp-cema\r\n"));
    world.receives(ALICE, &text.replace("Supported: timer\r\n", "Supported: timer, 100rel\r\n"));
    world.expect(ALICE, "SIP/2.0 100");
    let first = world.expect(CORE, "INVITE");
    world.expect(CORE, "INVITE");
    rings(&mut world, &first, "183 Session Progress", 1, "Content-Type: application/sdp\r\n", &bobs());
    let heard = world.expect(ALICE, "SIP/2.0 183");
    assert!(!heard.header(Name::RSeq).is_empty() && heard.body().is_empty(), "{}", heard.text);
}

#[test]
fn a_caller_who_never_acknowledges_is_refused() {
    let (mut world, invite) = calling("Supported: 100rel\r\n");
    rings(&mut world, &invite, "183 Session Progress", 1, "", "");
    world.passes(Duration::from_secs(33));
    // T1, doubled until 64*T1.
    for _ in 0..7 {
        world.expect(ALICE, "SIP/2.0 183");
    }
    world.expect(ALICE, "SIP/2.0 504");
    world.expect(CORE, "CANCEL");
    world.answers(&invite, "487 Request Terminated", "", "");
    world.rests();
}
