//! OSI-5, RFC 3261 §16 on the wire: sessions whose media we leave alone, and what is not CPM's.

use super::world::*;
use crate::base::clock::Duration;
use crate::base::transport::Transport;
use crate::sip::header::name::Name;

fn proxied() -> World {
    let mut config = config();
    config.policy.stay_in_media_path = false;
    World::new(config)
}

fn session() -> String {
    invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\n"))
}

#[test]
fn a_proxied_session_is_untouched_but_for_the_route() {
    let mut world = proxied();
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect(CORE, "INVITE sip:bob@other.net SIP/2.0");
    assert_eq!(invite.headers(Name::Via).len(), 2);
    assert_eq!((invite.header(Name::CallId), invite.header(Name::MaxForwards)), ("call-1".into(), "69".into()));
    assert_eq!(invite.body(), offer("alices", "a=setup:active\r\n"));
    assert!(invite.headers(Name::RecordRoute)[0].starts_with("<sip:00."), "{}", invite.text);
    assert_eq!(invite.headers(Name::Route), [format!("<sip:{CORE};lr>")]);
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "180 Ringing", "", "");
    let ringing = world.expect(ALICE, "SIP/2.0 180");
    assert_eq!(ringing.headers(Name::Via).len(), 1);
    world.answers(&invite, "200 OK", fields, &offer("bobs", ""));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(ok.header(Name::Contact), "<sip:bob@127.0.0.1:5081>");
    assert_eq!(ok.body(), offer("bobs", ""));
    // A resent 2xx passes as well, and so does the ACK.
    world.answers(&invite, "200 OK", fields, &offer("bobs", ""));
    world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let ack = world.expect(BOB, "ACK sip:bob@127.0.0.1:5081");
    assert!(ack.headers(Name::Route).is_empty());
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    let bye = world.expect(BOB, "BYE sip:bob@127.0.0.1:5081");
    world.answers(&bye, "200 OK", "", "");
    world.expect(ALICE, "SIP/2.0 200");
    world.rests();
}

#[test]
fn a_proxied_invite_is_cancelled_down_the_branch() {
    let mut world = proxied();
    let invite = world.relays(&session());
    world.answers(&invite, "180 Ringing", "", "");
    world.expect(ALICE, "SIP/2.0 180");
    world.receives(ALICE, &session().replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL"));
    world.expect(ALICE, "SIP/2.0 200");
    let cancel = world.expect(CORE, "CANCEL");
    world.answers(&cancel, "200 OK", "", "");
    world.answers(&invite, "487 Request Terminated", "", "");
    world.expect(CORE, "ACK");
    world.expect(ALICE, "SIP/2.0 487");
    world.rests();
}

#[test]
fn what_is_not_cpms_passes_and_what_comes_back_is_a_loop() {
    let mut world = World::new(config());
    let message = invite("sip:bob@other.net", "orig", "*;audio", "", "").replace("INVITE", "MESSAGE");
    world.receives(ALICE, &message);
    let passed = world.expect(CORE, "MESSAGE sip:bob@other.net");
    assert!(passed.headers(Name::RecordRoute).len() <= 1);
    // The core sends it straight back, with its own Via on top and without a Route of its own.
    let looped = passed.text.replacen("Via:", "Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bKcore\r\nVia:", 1);
    let looped = looped.replace(&format!("Route: <sip:{CORE};lr>\r\n"), "Route: <sip:orig@127.0.0.1:5060;lr>\r\n");
    world.receives(CORE, &looped);
    world.expect(CORE, "SIP/2.0 482");
    world.answers(&passed, "404 Not Found", "", "");
    world.expect(ALICE, "SIP/2.0 404");
    world.rests();
}

#[test]
fn silence_is_a_timeout_and_no_hops_are_too_many() {
    let mut world = World::new(config());
    let message = invite("sip:bob@other.net", "orig", "*;audio", "", "").replace("INVITE", "MESSAGE");
    world.receives(ALICE, &message.replace("Max-Forwards: 70", "Max-Forwards: 0"));
    world.expect(ALICE, "SIP/2.0 483");
    world.receives(ALICE, &message.replace("call-1", "call-2").replace("z9hG4bKinvite", "z9hG4bKother"));
    world.expect(CORE, "MESSAGE");
    world.passes(Duration::from_secs(33));
    assert!(world.sent.iter().any(|sent| sent.text.starts_with("SIP/2.0 408")));
    world.rests();
}

/// A request that is none of CPM's, with these fields between its own.
fn message(fields: &str, body: &str) -> String {
    format!(
        "MESSAGE sip:bob@other.net SIP/2.0\r\nv: SIP/2.0/UDP {ALICE};branch=z9hG4bKmessage\r\nMax-Forwards: 70\r\n\
         f: <sip:alice@example.net>;tag=alice\r\nt: <sip:bob@other.net>\r\ni: call-1\r\nCSeq: 1 MESSAGE\r\n{fields}\r\n{body}"
    )
}

#[test]
fn what_is_proxied_keeps_order_and_spelling() {
    let mut world = World::new(config());
    let fields =
        "X-Odd:   a  b\r\nl: 3\r\nOrganization: \r\nallow:INVITE,\r\n BYE\r\ns: hi\r\nX-odd: c \t\r\nc: text/plain  \r\n";
    world.receives(ALICE, &message(fields, "abc"));
    let passed = world.expect(CORE, "MESSAGE sip:bob@other.net");
    let rest = format!(
        "f: <sip:alice@example.net>;tag=alice\r\nt: <sip:bob@other.net>\r\ni: call-1\r\nCSeq: 1 MESSAGE\r\n{fields}\r\nabc"
    );
    assert!(passed.text.ends_with(&rest), "{}", passed.text);
    world.answers(&passed, "200 Fine", "X-Odd:  q \r\nServer:\r\n", "");
    let text = world.expect(ALICE, "SIP/2.0 200 Fine").text;
    assert!(text.ends_with("X-Odd:  q \r\nServer:\r\nContent-Length: 0\r\n\r\n"), "{text}");
    world.rests();
}

#[test]
fn we_may_stand_in_a_route_twice() {
    let mut world = World::new(config());
    let own = "Route: <sip:127.0.0.1:5060;lr>\r\n";
    world.receives(ALICE, &message(&format!("{own}{own}Route: <sip:p@{BOB};lr>\r\nl: 0\r\n"), ""));
    let passed = world.expect(BOB, "MESSAGE sip:bob@other.net");
    assert_eq!(passed.headers(Name::Route), [format!("<sip:p@{BOB};lr>")]);
    world.answers(&passed, "200 OK", "", "");
    world.rests();
}

#[test]
fn each_side_comes_back_by_its_own_transport() {
    let mut world = World::listening(
        {
            let mut config = config();
            config.policy.stay_in_media_path = false;
            config.sip.core = Some(format!("sip:{CORE};transport=tcp;lr"));
            config
        },
        &[(Transport::Udp, "127.0.0.1:5060"), (Transport::Tcp, "127.0.0.1:5060")],
    );
    let invite = world.relays(&session());
    let routes = invite.headers(Name::RecordRoute);
    assert!(
        routes.len() == 2 && routes[0].ends_with(":5060;transport=tcp;lr>") && routes[1].ends_with(":5060;lr>"),
        "{routes:?}"
    );
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", fields, &offer("bobs", ""));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    let bye = world.expect(BOB, "BYE sip:bob@127.0.0.1:5081");
    assert!(bye.headers(Name::Route).is_empty(), "{}", bye.text);
    world.answers(&bye, "200 OK", "", "");
    world.rests();
}

#[test]
fn a_strict_router_before_us_is_understood() {
    let mut world = proxied();
    let invite = world.relays(&session());
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", fields, &offer("bobs", ""));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    let ours = ok.header(Name::RecordRoute);
    let ours = ours.trim_matches(['<', '>']);
    // What §16.6 step 6 makes of the request for who knows no lr.
    let strict = in_dialog("INFO", 2, &ok, "Route: <sip:next@127.0.0.1:5080;lr>\r\nRoute: <sip:bob@127.0.0.1:5081>\r\n", "");
    let strict = strict.replace(&format!("Route: {}\r\n", ok.header(Name::RecordRoute)), "");
    let strict = strict.replacen("INFO sip:bob@127.0.0.1:5081", &format!("INFO {ours}"), 1);
    world.receives(ALICE, &strict);
    let passed = world.expect(ALICE, "INFO sip:bob@127.0.0.1:5081 SIP/2.0");
    assert_eq!(passed.headers(Name::Route), ["<sip:next@127.0.0.1:5080;lr>"]);
    world.answers(&passed, "200 OK", "", "");
    world.rests();
}

#[test]
fn an_identity_that_is_to_be_hidden_stays_within_the_trust_domain() {
    let fields = "P-Asserted-Identity: <sip:alice@example.net>\r\nP-Served-User: <sip:alice@example.net>;sescase=orig\r\n";
    for (privacy, hop, shown) in [("id", "192.0.2.1:5060", false), ("none", "192.0.2.1:5060", true), ("user; id", BOB, true)] {
        let mut world = World::new(config());
        let own = "Route: <sip:127.0.0.1:5060;lr>\r\n";
        world.receives(ALICE, &message(&format!("{own}Route: <sip:{hop};lr>\r\nPrivacy: {privacy}\r\n{fields}l: 0\r\n"), ""));
        let passed = world.expect(hop, "MESSAGE");
        assert_eq!(passed.headers(Name::PAssertedIdentity).len(), usize::from(shown), "{privacy} {hop}");
        assert_eq!(passed.headers(Name::PServedUser).len(), usize::from(hop == BOB), "{privacy} {hop}");
        world.answers(&passed, "200 OK", "", "");
        world.rests();
    }
}
