//! OSI-r1, OSI-r8 on the wire: sessions beside the first one; and the ISF.

use super::world::*;
use crate::config::{RegisteredClient, RegisteredUser};
use crate::proves;
use crate::shard::exchange::Command;
use crate::sip::header::name::Name;

const ANSWER: &str = "Contact: <sip:x@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";

fn with_own_clients() -> World {
    let mut config = config();
    config.policy.deliver_to_own_clients = true;
    let client = |port: u16, name: &str| RegisteredClient {
        contact: format!("sip:127.0.0.1:{port}"),
        instance: Some(format!("<urn:uuid:{name}>")),
        gruu: Some(format!("sip:alice@example.net;gr={name}")),
        features: vec!["session".into()],
        user_agent: Some("CPM-client/OMA2.2".into()),
        primary: true,
    };
    let clients = vec![client(5080, "a"), client(5083, "tablet")];
    config.registrations.users.push(RegisteredUser { address: "sip:alice@example.net".into(), clients });
    World::new(config)
}

#[test]
fn the_originators_other_clients_join_and_their_leaving_ends_nothing() {
    let mut world = with_own_clients();
    world.receives(ALICE, &invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\n")));
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect(CORE, "INVITE sip:bob@other.net");
    world.answers(&invite, "200 OK", ANSWER, &offer("bobs", "a=setup:passive\r\n"));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    let copy = world.expect(CORE, "INVITE sip:alice@example.net;gr=tablet");
    world.expect_nothing();
    assert_eq!(copy.header(Name::ConversationId), "conv-1");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK");
    proves!("OSI-r8.d.1", "OSI-r8.d.2", {
        world.answers(&copy, "200 OK", &ANSWER.replace("5081", "5083"), &offer("tablets", "a=setup:passive\r\n"));
        world.expect("127.0.0.1:5083", "ACK");
        assert!(world.commands.iter().any(|command| matches!(command, Command::Bind { leg: 2, .. })));
    });
    world.receives("127.0.0.1:5083", &from_target("BYE", 1, &copy, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    world.expect_nothing();
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    world.expect(BOB, "BYE");
    world.rests();
}

#[test]
fn a_copy_that_is_refused_leaves_the_session_alone() {
    let mut world = with_own_clients();
    world.receives(ALICE, &invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\n")));
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect(CORE, "INVITE sip:bob@other.net");
    world.answers(&invite, "200 OK", ANSWER, &offer("bobs", "a=setup:passive\r\n"));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    let copy = world.expect(CORE, "INVITE sip:alice@example.net;gr=tablet");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK");
    world.answers(&copy, "603 Decline", "", "");
    world.expect(CORE, "ACK");
    world.expect_nothing();
    assert_eq!(world.core.sessions(9)[0].state, "standing");
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.rests();
}

#[test]
fn streams_that_the_isf_rejects_are_offered_to_it_again() {
    let mut world = World::new(config());
    let second = "m=message 9 TCP/MSRP *\r\na=accept-types:text/plain\r\na=path:msrp://127.0.0.1:9/two;tcp\r\na=setup:active\r\n";
    let sdp = format!("{}{second}", offer("one", "a=setup:active\r\n"));
    world.receives(ALICE, &invite("mailto:bob@other.net", "orig", SESSION, "", &sdp));
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect(ISF, "INVITE mailto:bob@other.net");
    assert_eq!(invite.headers(Name::Route), [format!("<sip:{ISF};lr>")]);
    let rejects = format!("{}m=message 0 TCP/MSRP *\r\n", offer("isf", "a=setup:passive\r\n"));
    world.answers(&invite, "200 OK", &ANSWER.replace("5081", "5090"), &rejects);
    let ok = world.expect(ALICE, "SIP/2.0 200");
    assert!(ok.body().contains("m=message 0 "), "{}", ok.text);
    let retry = world.expect(ISF, "INVITE mailto:bob@other.net");
    assert_ne!(retry.header(Name::CallId), invite.header(Name::CallId));
    assert!(retry.headers(Name::UserAgent).is_empty());
    assert_eq!(retry.body().matches("m=message").count(), 1);
    assert!(
        retry.sdp("a=accept-types:text/plain").is_some() && retry.sdp("a=path:msrp://127.0.0.1:2855/").is_some(),
        "{}",
        retry.text
    );
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(ISF, "ACK");
    world.answers(&retry, "200 OK", &ANSWER.replace("5081", "5090"), &offer("isf2", "a=setup:passive\r\n"));
    world.expect(ISF, "ACK");
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    world.expect(ISF, "BYE");
    world.expect(ISF, "BYE");
    world.rests();
}

#[test]
fn without_an_isf_an_unknown_scheme_is_refused() {
    let mut config = config();
    config.sip.isf = None;
    let mut world = World::new(config);
    world.receives(ALICE, &invite("mailto:bob@other.net", "orig", SESSION, "", &offer("one", "a=setup:active\r\n")));
    world.expect(ALICE, "SIP/2.0 416");
    world.rests();
}
