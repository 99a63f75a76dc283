//! RFC 3261 §18.1.1, RFC 3263 on the wire: where requests go, and where they go when that fails.

use super::world::*;
use crate::base::clock::Duration;
use crate::base::transport::{Flow, Transport};
use crate::shard::exchange::{Command, Fetched, LegFailure, Query, Report, Resolved};
use crate::sip::header::name::Name;

fn session() -> String {
    invite(
        "sip:bob@other.net",
        "orig",
        SESSION,
        "",
        &offer(
            "alices",
            "a=setup:active\r\na=x:this is a long offer, and the INVITE that carries it does not fit into what a datagram may have on a path whose limit nobody knows\r\n",
        ),
    )
}

const WITH_TCP: [(Transport, &str); 2] = [(Transport::Udp, "127.0.0.1:5060"), (Transport::Tcp, "127.0.0.1:5060")];

#[test]
fn a_large_request_tries_tcp_and_remembers_where_there_is_none() {
    let mut world = World::listening(config(), &WITH_TCP);
    let first = world.relays(&session());
    assert!(first.transport == Transport::Tcp && first.header(Name::Via).starts_with("SIP/2.0/TCP 127.0.0.1:5060"));
    world.fails(&first);
    let second = world.expect(CORE, "INVITE");
    assert!(second.transport == Transport::Udp && second.header(Name::Via).starts_with("SIP/2.0/UDP"));
    assert_eq!(second.header(Name::CallId), first.header(Name::CallId));
    world.answers(&second, "486 Busy Here", "", "");
    world.sent.clear();
    world.receives(ALICE, &session().replace("call-1", "call-2").replace("z9hG4bKinvite", "z9hG4bKsecond"));
    world.expect(ALICE, "SIP/2.0 100");
    assert_eq!(world.expect(CORE, "INVITE").transport, Transport::Udp);
    world.rests();
}

#[test]
fn a_name_is_resolved_and_the_next_address_takes_over() {
    let mut config = config();
    config.sip.core = Some("sip:core.example.net;lr".into());
    let mut world = World::new(config);
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    world.expect_nothing();
    let (ticket, query) = world.questions.pop_front().expect("the name is asked");
    assert!(matches!(&query, Query::Resolve { host, .. } if &**host == "core.example.net"), "{query:?}");
    let resolved =
        ["127.0.0.1:5071", "127.0.0.1:5072"].map(|a| Resolved { transport: Transport::Udp, address: a.parse().unwrap() });
    world.fetched(ticket, Fetched::Resolved(resolved.to_vec()));
    let first = world.expect("127.0.0.1:5071", "INVITE");
    world.answers(&first, "503 Service Unavailable", "Retry-After: 10\r\n", "");
    world.expect("127.0.0.1:5071", "ACK");
    let second = world.expect("127.0.0.1:5072", "INVITE");
    world.answers(&second, "404 Not Found", "", "");
    world.expect("127.0.0.1:5072", "ACK");
    world.expect(ALICE, "SIP/2.0 404");
    world.rests();
}

#[test]
fn who_comes_while_a_server_is_left_alone_hears_for_how_long() {
    let mut world = World::new(config());
    let invite = world.relays(&session());
    world.answers(&invite, "503 Service Unavailable", "Retry-After: 10\r\n", "");
    world.expect(CORE, "ACK");
    assert_eq!(world.expect(ALICE, "SIP/2.0 503").header(Name::RetryAfter), "10");
    world.passes(Duration::from_millis(2500));
    world.sent.clear();
    world.receives(ALICE, &session().replace("call-1", "call-2").replace("z9hG4bKinvite", "z9hG4bKsecond"));
    world.expect(ALICE, "SIP/2.0 100");
    assert_eq!(world.expect(ALICE, "SIP/2.0 503").header(Name::RetryAfter), "8", "what is left, in whole seconds");
    world.expect_nothing();
    // Pager Mode as well.
    let page = invite_without_sdp("MESSAGE");
    world.receives(ALICE, &page);
    assert_eq!(world.expect(ALICE, "SIP/2.0 503").header(Name::RetryAfter), "8");
    world.passes(Duration::from_secs(8));
    world.sent.clear();
    let invite = world.relays(&session().replace("call-1", "call-3").replace("z9hG4bKinvite", "z9hG4bKthird"));
    world.answers(&invite, "486 Busy Here", "", "");
    world.rests();
}

/// A request outside a dialog that CPM carries in itself.
fn invite_without_sdp(method: &str) -> String {
    let accept = "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg\"";
    invite("sip:bob@other.net", "orig", accept, "", "").replace("INVITE", method).replace("call-1", "page-1")
}

#[test]
fn a_name_that_does_not_exist_fails_the_call() {
    let mut config = config();
    config.sip.core = Some("sip:nowhere.example.net;lr".into());
    let mut world = World::new(config);
    world.receives(ALICE, &session());
    let (ticket, _) = world.questions.pop_front().expect("the name is asked");
    world.fetched(ticket, Fetched::Resolved(Vec::new()));
    world.expect(ALICE, "SIP/2.0 100");
    assert!(world.sent.pop_front().expect("a final response").response().status() >= 480);
    world.rests();
}

#[test]
fn a_leg_whose_connection_fails_ends_the_session() {
    let mut world = World::new(config());
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    world.stands(&session(), fields, &offer("bobs", "a=setup:passive\r\n"));
    let bound = world.commands.iter().any(|c| matches!(c, Command::Bind { leg: 1, peer, .. } if peer.connect.is_some()));
    assert!(bound, "we connect to a passive peer");
    let session = world.media_key();
    world.reports(Report::LegFailed { session, leg: 1, cause: LegFailure::Connect });
    world.expect(BOB, "BYE");
    world.expect(ALICE, "BYE");
    assert_eq!(world.records[0].cause, "media");
    world.rests();
}

#[test]
fn a_peer_whose_contact_does_not_resolve_is_spoken_to_where_it_speaks_from() {
    let mut world = World::new(config());
    let contact = |text: String| text.replace(&format!("<sip:alice@{ALICE}>"), "<sip:alice@nowhere.example>");
    let invite = world.relays(&contact(session()));
    let fields = "Contact: <sip:bob@elsewhere.example>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", fields, &offer("bobs", "a=setup:passive\r\n"));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &contact(in_dialog("ACK", 1, &ok, "", "")));
    let nothing = |world: &mut World| {
        let (ticket, query) = world.questions.pop_front().expect("the name is asked");
        assert!(matches!(query, Query::Resolve { .. }));
        world.fetched(ticket, Fetched::Resolved(Vec::new()));
    };
    nothing(&mut world);
    // Bob's messages come through the core.
    world.expect(CORE, "ACK sip:bob@elsewhere.example");
    let session = world.media_key();
    world.reports(Report::LegFailed { session, leg: 0, cause: LegFailure::Closed });
    nothing(&mut world);
    nothing(&mut world);
    let bye = world.expect(ALICE, "BYE sip:alice@nowhere.example");
    world.answers(&bye, "200 OK", "", "");
    let bye = world.expect(CORE, "BYE sip:bob@elsewhere.example");
    world.answers(&bye, "200 OK", "", "");
    world.rests();
}

#[test]
fn a_target_whose_connection_failed_before_its_answer_does_not_join() {
    let mut world = World::new(config());
    let invite = world.relays(&session());
    world.answers(&invite, "180 Ringing", "", "");
    world.expect(ALICE, "SIP/2.0 180");
    let session = world.media_key();
    world.reports(Report::LegFailed { session, leg: 1, cause: LegFailure::Closed });
    let cancel = world.expect(CORE, "CANCEL");
    world.answers(&cancel, "200 OK", "", "");
    let fields = format!("Contact: <sip:bob@{BOB}>\r\nContent-Type: application/sdp\r\n");
    world.answers(&invite, "200 OK", &fields, &offer("bobs", "a=setup:passive\r\n"));
    world.expect(BOB, "ACK");
    let bye = world.expect(BOB, "BYE");
    world.expect(ALICE, "SIP/2.0 480");
    world.answers(&bye, "200 OK", "", "");
    world.rests();
}

#[test]
fn a_dialog_stays_with_the_listener_on_which_it_began() {
    let mut world = World::listening(config(), &[(Transport::Udp, "127.0.0.1:5060"), (Transport::Udp, "127.0.0.1:5062")]);
    let second = Flow { listener: 1, ..flow(ALICE) };
    let text = invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\na=msrp-cema\r\n"));
    world.receives_on(second, &text);
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect(CORE, "INVITE");
    assert!(invite.header(Name::Via).contains(":5060;"), "{}", invite.text);
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", fields, &offer("bobs", "a=setup:passive\r\na=msrp-cema\r\n"));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives_on(second, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK");
    world.receives(BOB, &from_target("BYE", 1, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    let bye = world.expect(ALICE, "BYE");
    assert!(bye.header(Name::Via).contains(":5062;"), "{}", bye.text);
    world.rests();
}
