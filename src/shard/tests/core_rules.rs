//! 6.2 (62) and RFC 3261 on the wire: what the SIP core may rely on.

use super::world::*;
use crate::base::transport::{Flow, Transport};
use crate::proves;
use crate::sip::header::name::Name;

fn session() -> String {
    invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\n"))
}

#[test]
fn the_rest_of_the_route_set_goes_on_octet_for_octet() {
    let mut world = World::new(config());
    let odi = "<sip:odi_Zm9v%40x@127.0.0.1:5075;lr;service=call-out;x=%22>";
    let text = session().replace("Route: <sip:orig@127.0.0.1:5060;lr>", &format!("Route: <sip:orig@127.0.0.1:5060;lr>, {odi}"));
    let text = text.replace("User-Agent", "P-Charging-Vector: icid-value=\"x\"\r\nUser-Agent");
    let invite = proves!("62-2", "OLM-0.a", {
        world.receives(ALICE, &text);
        world.expect(ALICE, "SIP/2.0 100");
        world.expect("127.0.0.1:5075", "INVITE sip:bob@other.net")
    });
    assert_eq!(invite.headers(Name::Route), [odi]);
    assert_eq!(invite.header(Name::PChargingVector), "icid-value=\"x\"");
    world.answers(&invite, "404 Not Found", "", "");
    world.rests();
}

#[test]
fn what_is_no_good_request_gets_its_status() {
    let mut world = World::new(config());
    proves!("62-1", {
        world.receives(ALICE, &session().replace("CSeq: 1 INVITE", "CSeq: x INVITE"));
        world.expect(ALICE, "SIP/2.0 400");
        world.receives(ALICE, &session().replace("Max-Forwards: 70", "Max-Forwards: 0"));
        world.expect(ALICE, "SIP/2.0 483");
        world.receives(ALICE, "nothing like SIP\r\n\r\n");
        world.expect_nothing();
        assert_eq!(world.dropped.len(), 1, "{:?}", world.dropped);
    });
    let gone = session().replace("To: <sip:bob@other.net>", "To: <sip:bob@other.net>;tag=00.00000000000000");
    world.receives(ALICE, &gone.replace("INVITE", "BYE"));
    world.expect(ALICE, "SIP/2.0 481");
    world.receives(ALICE, &gone);
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 481");
    world.rests();
}

#[test]
fn identities_of_a_stranger_count_for_nothing() {
    let mut world = World::new(config());
    world.receives("192.0.2.9:5060", &session());
    world.expect("192.0.2.9:5080", "SIP/2.0 100");
    let refused = world.expect("192.0.2.9:5080", "SIP/2.0 403");
    assert!(refused.header(Name::Warning).contains("127 Service not authorised"));
    world.rests();
}

#[test]
fn an_identity_that_is_private_stays_within_the_trust_domain() {
    let privately = |trusted: bool| {
        let mut config = config();
        config.sip.core = None;
        let mut world = World::new(config);
        let hop = if trusted { "127.0.0.1:5081" } else { "192.0.2.1:5081" };
        let uri = format!("sip:bob@{hop}");
        let text = invite(&uri, "orig", SESSION, "Privacy: id\r\n", &offer("alices", "a=setup:active\r\n"));
        world.receives(ALICE, &text);
        world.expect(ALICE, "SIP/2.0 100");
        world.expect(hop, "INVITE").headers(Name::PAssertedIdentity)
    };
    assert_eq!(privately(true), ["<sip:alice@example.net>"]);
    assert!(privately(false).is_empty());
}

#[test]
fn the_same_request_by_another_way_is_merged_and_a_resend_absorbed() {
    let mut world = World::new(config());
    let invite = world.relays(&session());
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    world.expect_nothing();
    world.receives(ALICE, &session().replace("z9hG4bKinvite", "z9hG4bKother"));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 482");
    world.answers(&invite, "404 Not Found", "", "");
    world.rests();
}

#[test]
fn requests_to_a_client_behind_a_connection_go_back_on_it() {
    let mut world = World::listening(config(), &[(Transport::Udp, "127.0.0.1:5060"), (Transport::Tcp, "127.0.0.1:5060")]);
    let flow = Flow { transport: Transport::Tcp, core: 0, listener: 1, connection: 7, peer: "127.0.0.1:40000".parse().unwrap() };
    let text = session().replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    world.receives_on(flow, &text);
    world.expect("127.0.0.1:40000", "SIP/2.0 100");
    let invite = world.expect(CORE, "INVITE");
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", fields, &offer("bobs", "a=setup:passive\r\n"));
    let ok = world.expect("127.0.0.1:40000", "SIP/2.0 200");
    assert!(ok.header(Name::Contact).contains(";transport=tcp"), "{}", ok.text);
    world.receives_on(flow, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK");
    world.receives(BOB, &from_target("BYE", 1, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    let bye = world.expect("127.0.0.1:40000", "BYE");
    assert!(bye.transport == Transport::Tcp && bye.header(Name::Via).starts_with("SIP/2.0/TCP"), "{}", bye.text);
    world.rests();
}

#[test]
fn a_contact_of_ours_leads_to_the_one_it_stands_for() {
    let mut world = World::new(config());
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    let (_, ok) = world.stands(&session(), fields, &offer("bobs", "a=setup:passive\r\n"));
    let contact = ok.header(Name::Contact);
    let ours = contact.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(uri, _)| uri);
    let outside = |uri: &str, branch: &str| {
        format!(
            "MESSAGE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {ALICE};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@example.net>;tag=m\r\nTo: <{uri}>\r\nCall-ID: {branch}\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"
        )
    };
    world.receives(ALICE, &outside(ours, "m1"));
    let passed = world.expect(BOB, "MESSAGE sip:bob@127.0.0.1:5081 SIP/2.0");
    world.answers(&passed, "200 OK", "", "");
    world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &outside("sip:00.0000000000000000000000@127.0.0.1:5060", "m2"));
    world.expect(ALICE, "SIP/2.0 404");
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.rests();
}

#[test]
fn who_is_called_by_sips_is_offered_sips() {
    let mut config = config();
    config.sip.core = Some(format!("sip:{CORE};transport=tls;lr"));
    let listen = [(Transport::Udp, "127.0.0.1:5060"), (Transport::Tls, "127.0.0.1:5061")];
    let mut world = World::listening(config, &listen);
    let offer = offer("alices", "a=setup:active\r\na=msrp-cema\r\n");
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    // RFC 3261 §8.1.1.8, §12.1.1.
    let (invite, ok) = world.agrees(
        &invite("sips:bob@other.net", "orig", LARGE, "", &offer),
        fields,
        &self::offer("bobs", "a=recvonly\r\na=setup:passive\r\n"),
    );
    for contact in [invite.header(Name::Contact), ok.header(Name::Contact)] {
        assert!(contact.starts_with("<sips:00.") && contact.ends_with("@127.0.0.1:5061>"), "{contact}");
    }
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.rests();
}
