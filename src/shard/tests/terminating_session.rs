//! 8.3.2.1 (TSI) on the wire.

use super::world::*;
use crate::sip::header::name::Name;

const BOB2: &str = "127.0.0.1:5082";

fn answer_of(port: u16) -> String {
    format!("Contact: <sip:bob@127.0.0.1:{port}>\r\nContent-Type: application/sdp\r\n")
}

fn session() -> String {
    invite("sip:bob@example.net", "term", SESSION, "", &offer("alices", "a=setup:active\r\n"))
}

#[test]
fn the_origin_is_answered_before_any_client_and_all_clients_join() {
    let mut world = World::new(with_two_clients(config()));
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    let first = world.expect(CORE, "INVITE sip:bob@example.net;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6b01");
    let second = world.expect(CORE, "INVITE sip:bob@example.net;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6b02");
    assert_ne!(first.sdp("a=path"), second.sdp("a=path"));
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.answers(&first, "200 OK", &answer_of(5081), &offer("b1", "a=setup:passive\r\n"));
    world.expect(BOB, "ACK");
    world.answers(&second, "200 OK", &answer_of(5082), &offer("b2", "a=setup:passive\r\n"));
    world.expect(BOB2, "ACK");
    // One client leaves, the session goes on; the last one ends it.
    world.receives(BOB, &from_target("BYE", 1, &first, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    world.expect_nothing();
    world.receives(BOB2, &from_target("BYE", 2, &second, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    world.expect(ALICE, "BYE");
    world.rests();
}

#[test]
fn an_early_answer_that_leads_nowhere_is_taken_back_with_a_reason() {
    let mut world = World::new(config());
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    let invite = world.expect(CORE, "INVITE");
    world.answers(&invite, "480 Temporarily Unavailable", "", "");
    world.expect(CORE, "ACK");
    world.expect_nothing();
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let bye = world.expect(ALICE, "BYE");
    assert!(bye.header(Name::Reason).starts_with("SIP;cause=480"), "{}", bye.text);
    world.rests();
}

#[test]
fn first_means_that_the_others_are_cancelled() {
    let mut config = with_two_clients(config());
    config.policy.session_clients = crate::config::SessionClients::First;
    let mut world = World::new(config);
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let first = world.expect(CORE, "INVITE");
    let second = world.expect(CORE, "INVITE");
    world.answers(&second, "180 Ringing", "", "");
    world.answers(&first, "200 OK", &answer_of(5081), &offer("b1", "a=setup:passive\r\n"));
    world.expect(BOB, "ACK");
    let cancel = world.expect(CORE, "CANCEL");
    world.answers(&cancel, "200 OK", "", "");
    // The second 200 crosses the CANCEL.
    world.answers(&second, "200 OK", &answer_of(5082), &offer("b2", "a=setup:passive\r\n"));
    world.expect(BOB2, "ACK");
    world.expect(BOB2, "BYE");
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    world.expect(BOB, "BYE");
    world.rests();
}

#[test]
fn a_session_is_replaced_on_the_clients_that_are_in_it() {
    let mut world = World::new(with_two_clients(config()));
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let first = world.expect(CORE, "INVITE");
    let second = world.expect(CORE, "INVITE");
    world.answers(&first, "480 Gone", "", "");
    world.expect(CORE, "ACK");
    world.answers(&second, "200 OK", &answer_of(5082), &offer("b2", "a=setup:passive\r\n"));
    world.expect(BOB2, "ACK");
    let replaces = session().replace("Supported: timer", "Session-Replaces: contr-1\r\nSupported: timer");
    let replaces = replaces.replace("Contribution-ID: contr-1", "Contribution-ID: contr-2");
    let replaces = replaces.replace("call-1", "call-2").replace("z9hG4bKinvite", "z9hG4bKother");
    world.receives(ALICE, &replaces);
    world.expect(ALICE, "SIP/2.0 100");
    let only = world.expect(CORE, "INVITE sip:bob@example.net;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6b02");
    world.expect_nothing();
    world.answers(&only, "200 OK", &answer_of(5082), &offer("b3", "a=setup:passive\r\n"));
    world.expect(ALICE, "SIP/2.0 200");
    world.core.stop(world.now, &mut world.out);
    world.rests();
}

#[test]
fn nobody_registered_is_unavailable() {
    let mut world = World::new(config());
    world.receives(ALICE, &session().replace("sip:bob@", "sip:carol@"));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 480");
    assert!(world.commands.is_empty());
    world.rests();
}
