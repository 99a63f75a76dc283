//! RFC 3261 §9, §12.2.2, §14, §15 within a session that stands: who may move what, and what crosses on the wire.

use super::world::*;
use crate::sip::header::name::Name;

const OF_ALICE: &str = "Contact: <sip:alice@127.0.0.1:5099>\r\nContent-Type: application/sdp\r\n";
const OF_BOB: &str = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";

fn bobs() -> String {
    offer("bobs", "a=setup:passive\r\na=msrp-cema\r\n")
}

fn moved() -> String {
    offer("alices2", "a=setup:active\r\na=msrp-cema\r\n")
}

/// A session that stands: the INVITE that Bob got, the 200 that Alice got.
fn standing() -> (World, Sent, Sent) {
    let mut world = World::new(config());
    world.receives(
        ALICE,
        &invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\na=msrp-cema\r\n")),
    );
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect(CORE, "INVITE");
    world.answers(&invite, "200 OK", OF_BOB, &bobs());
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK");
    (world, invite, ok)
}

#[test]
fn a_change_that_is_refused_leaves_the_remote_target() {
    let (mut world, _, ok) = standing();
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, OF_ALICE, &moved()));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    world.answers(&change, "488 Not Acceptable Here", "", "");
    world.expect(BOB, "ACK");
    world.expect(ALICE, "SIP/2.0 488");
    world.receives(ALICE, &in_dialog("ACK", 2, &ok, "", "").replace("z9hG4bKACK2", "z9hG4bKINVITE2"));
    world.core.stop(world.now, &mut world.out);
    world.collect();
    assert!(world.expect(ALICE, "BYE sip:alice@127.0.0.1:5080 SIP/2.0").header(Name::To).contains("alice"));
    world.rests();
}

#[test]
fn a_change_that_is_accepted_moves_the_remote_target() {
    let (mut world, _, ok) = standing();
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, OF_ALICE, &moved()));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    world.answers(&change, "200 OK", &OF_BOB.replace("5081", "5098"), &bobs());
    // The ACK goes to where the 2xx says.
    world.expect("127.0.0.1:5098", "ACK sip:bob@127.0.0.1:5098 SIP/2.0");
    let changed = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 2, &changed, "", ""));
    world.core.stop(world.now, &mut world.out);
    world.collect();
    world.expect("127.0.0.1:5099", "BYE sip:alice@127.0.0.1:5099 SIP/2.0");
    world.expect("127.0.0.1:5098", "BYE sip:bob@127.0.0.1:5098 SIP/2.0");
    world.rests();
}

#[test]
fn byes_that_cross_are_both_answered_200() {
    let (mut world, invite, ok) = standing();
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    let bye = world.expect(BOB, "BYE");
    // Not another dialog's, and nothing but a BYE.
    let foreign = from_target("BYE", 1, &invite, "", "").replace("tag=peer", "tag=other").replace("z9hG4bK", "z9hG4bKx");
    world.receives(BOB, &foreign);
    world.expect(BOB, "SIP/2.0 481");
    world.receives(BOB, &from_target("INFO", 1, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 481");
    world.receives(BOB, &from_target("BYE", 2, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    world.answers(&bye, "200 OK", "", "");
    // Nothing is under way any more.
    world.receives(BOB, &from_target("BYE", 3, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 481");
    world.expect_nothing();
    world.rests();
}

/// Alice's re-INVITE is with Bob, and she cancels it: the re-INVITE that Bob got.
fn cancelled(world: &mut World, ok: &Sent) -> Sent {
    let change = in_dialog("INVITE", 2, ok, OF_ALICE, &moved());
    world.receives(ALICE, &change);
    world.expect(ALICE, "SIP/2.0 100");
    let theirs = world.expect(BOB, "INVITE");
    world.answers(&theirs, "100 Trying", "", "");
    let cancel = in_dialog("CANCEL", 2, ok, "Reason: SIP;cause=200\r\n", "").replace("z9hG4bKCANCEL2", "z9hG4bKINVITE2");
    world.receives(ALICE, &cancel);
    assert!(world.expect(ALICE, "SIP/2.0 200").header(Name::CSeq).ends_with("CANCEL"));
    let passed = world.expect(BOB, "CANCEL");
    assert_eq!(passed.header(Name::Reason), "SIP;cause=200");
    assert_eq!(passed.header(Name::Via), theirs.header(Name::Via));
    world.answers(&passed, "200 OK", "", "");
    world.expect_nothing();
    theirs
}

#[test]
fn a_change_that_is_cancelled_is_cancelled_on_the_other_leg() {
    let (mut world, _, ok) = standing();
    let theirs = cancelled(&mut world, &ok);
    world.answers(&theirs, "487 Request Terminated", "", "");
    world.expect(BOB, "ACK");
    world.expect(ALICE, "SIP/2.0 487");
    world.receives(ALICE, &in_dialog("ACK", 2, &ok, "", "").replace("z9hG4bKACK2", "z9hG4bKINVITE2"));
    // The session goes on, and another change is served.
    world.receives(ALICE, &in_dialog("INVITE", 3, &ok, OF_ALICE, &moved()));
    world.expect(ALICE, "SIP/2.0 100");
    let again = world.expect(BOB, "INVITE");
    world.answers(&again, "200 OK", OF_BOB, &bobs());
    world.expect(BOB, "ACK");
    let changed = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 3, &changed, "", ""));
    world.receives(ALICE, &in_dialog("BYE", 4, &ok, "", ""));
    world.rests();
}

#[test]
fn an_answer_that_crosses_the_cancel_counts_on_both_legs() {
    let (mut world, _, ok) = standing();
    let theirs = cancelled(&mut world, &ok);
    world.answers(&theirs, "200 OK", OF_BOB, &bobs());
    world.expect(BOB, "ACK");
    let changed = world.expect(ALICE, "SIP/2.0 200");
    assert!(changed.header(Name::CSeq).ends_with("2 INVITE"));
    world.receives(ALICE, &in_dialog("ACK", 2, &changed, "", ""));
    world.receives(ALICE, &in_dialog("BYE", 3, &ok, "", ""));
    world.rests();
}
