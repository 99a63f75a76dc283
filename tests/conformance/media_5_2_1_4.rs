//! CR 5.2.1.4 and 5.2.1.4.1: what an SDP says of the far end of a leg, and how its requests are matched.

use crate::alice::Alice;
use crate::bob::{CHAT_ANSWER, CHAT_SDP, Letter};
use cpm_pf::config::Interop;
use cpm_pf::cpm::session_matching::{Ours, before_answer, direction_of_ours, direction_of_peer, is_consistent, of_leg, peer};
use cpm_pf::msrp::leg::{Direction, Matching};
use cpm_pf::sdp::description::Description;

fn sdp(text: &str) -> Description {
    Description::parse(text.as_bytes()).expect("the tests write SDP")
}

fn connects_to(text: &str, ours: Ours) -> Option<String> {
    peer(Interop::Never, &sdp(text), 0, ours).expect("a far end").connect.map(|address| address.to_string())
}

const PLAIN: &str = "v=0\r\no=- 2 2 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\nm=message 9999 TCP/MSRP *\r\n\
a=path:msrp://192.0.2.2:9999/b;tcp\r\n";

#[test]
fn who_connects_is_what_the_answer_says() {
    let with = |setup: &str| format!("{PLAIN}a=setup:{setup}\r\n");
    assert_eq!(connects_to(&with("active"), Ours::ActPass), None);
    assert_eq!(connects_to(&with("passive"), Ours::ActPass).as_deref(), Some("192.0.2.2:9999"));
    assert_eq!(connects_to(PLAIN, Ours::ActPass).as_deref(), Some("192.0.2.2:9999"), "plain RFC 4975: the offerer connects");
    assert_eq!(connects_to(&PLAIN.replace("t=0 0\r\n", "t=0 0\r\na=setup:active\r\n"), Ours::ActPass), None);
    for setup in ["active", "actpass"] {
        assert_eq!(connects_to(&with(setup), Ours::Passive), None, "we answered passive");
    }
    // A first offer that says so is refused; in a change the peer may keep the role that it has.
    assert_eq!(connects_to(&with("passive"), Ours::Passive).as_deref(), Some("192.0.2.2:9999"), "we answered active");
}

#[test]
fn we_connect_to_the_line_and_to_a_relay_by_its_uri() {
    let moved = PLAIN.replace("c=IN IP4 192.0.2.2", "c=IN IP4 198.51.100.9");
    assert_eq!(connects_to(&moved, Ours::ActPass).as_deref(), Some("198.51.100.9:9999"));
    let relayed = moved.replace("a=path:", "a=path:msrp://203.0.113.5:1234/r;tcp ");
    assert_eq!(connects_to(&relayed, Ours::ActPass).as_deref(), Some("203.0.113.5:1234"));
    assert_eq!(peer(Interop::Never, &sdp(&relayed), 0, Ours::ActPass).expect("a far end").path.len(), 2);
    let named = PLAIN.replace("c=IN IP4 192.0.2.2", "c=IN IP4 host.example.net");
    assert_eq!(connects_to(&named, Ours::ActPass).as_deref(), Some("192.0.2.2:9999"));
    let unknown = named.replace("msrp://192.0.2.2", "msrp://host.example.net");
    assert!(peer(Interop::Never, &sdp(&unknown), 0, Ours::ActPass).is_none());
    let six = PLAIN.replace("IN IP4 192.0.2.2", "IN IP6 2001:db8::2").replace("//192.0.2.2", "//[2001:db8::2]");
    assert_eq!(connects_to(&six, Ours::ActPass).as_deref(), Some("[2001:db8::2]:9999"));
}

#[test]
fn the_far_end_is_told_with_what_it_takes() {
    let text = CHAT_ANSWER
        .replace("TCP/MSRP", "TCP/TLS/MSRP")
        .replace("a=sendrecv", "a=max-size:1000\r\na=fingerprint:sha-256 AA:BB\r\na=sendrecv");
    let far = peer(Interop::Auto, &sdp(&text), 0, Ours::ActPass).expect("a far end");
    assert_eq!(far.matching, of_leg(Interop::Auto, &sdp(&text).media[0]), "by the answer of that leg");
    assert_eq!((before_answer(Interop::Never), before_answer(Interop::Always)), (Matching::Strict, Matching::SessionId));
    assert!(far.tls && far.connect.is_none());
    assert_eq!((far.max_size, far.fingerprint.as_deref()), (Some(1000), Some("sha-256 AA:BB")));
    for nobody in
        [CHAT_ANSWER.replace("9999 T", "0 T"), CHAT_ANSWER.replace("a=path", "a=x"), CHAT_ANSWER.replace("TCP/MSRP", "TCP/X")]
    {
        assert!(peer(Interop::Never, &sdp(&nobody), 0, Ours::ActPass).is_none());
    }
    assert!(peer(Interop::Never, &sdp(CHAT_ANSWER), 1, Ours::ActPass).is_none());
}

#[test]
fn addresses_are_compared_as_rfc_6714_has_it() {
    let consistent = |text: &str| {
        let description = sdp(text);
        is_consistent(&description, &description.media[0])
    };
    assert!(consistent(PLAIN));
    assert!(!consistent(&PLAIN.replace("m=message 9999", "m=message 9998")));
    assert!(!consistent(&PLAIN.replace("c=IN IP4 192.0.2.2", "c=IN IP4 192.0.2.3")));
    assert!(consistent(&PLAIN.replace(":9999/b", "/b").replace("9999", "2855")), "2855 is the default port");
    assert!(consistent(&PLAIN.replace("IP4 192.0.2.2", "IP6 2001:db8:0::2").replace("//192.0.2.2", "//[2001:DB8::2]")));
    assert!(consistent(&PLAIN.replace("c=IN IP4 192.0.2.2", "c=IN IP4 Host.x").replace("//192.0.2.2", "//host.X")));
    assert!(consistent(&PLAIN.replace("//192.0.2.2", "//host.x")), "only DNS could tell");
    assert!(consistent(&PLAIN.replace("a=path:", "a=path:msrp://203.0.113.5:1234/r;tcp ")), "one of several URIs");
}

#[test]
fn an_offer_that_a_middlebox_moved_is_refused_unless_interoperability_is_on() {
    let moved = CHAT_SDP.replace("c=IN IP4 192.0.2.1", "c=IN IP4 198.51.100.9");
    let plain = moved.replace("a=msrp-cema\r\n", "");
    for (interop, text, taken) in [
        (Interop::Never, &moved, true),
        (Interop::Never, &plain, false),
        (Interop::Auto, &plain, true),
        (Interop::Always, &plain, true),
    ] {
        let alice = Alice::new().configured(|config| config.msrp.interop = interop);
        let status = alice.status(&Letter::session().sdp(text));
        assert_eq!(status, if taken { 200 } else { 488 }, "{interop:?} {text}");
    }
    // In a session only that stream is refused.
    let beside = format!("{plain}m=message 7654 TCP/MSRP *\r\nc=IN IP4 192.0.2.1\r\na=path:msrp://192.0.2.1:7654/z;tcp\r\n");
    let invite = Alice::new().invite(&Letter::session().sdp(&beside));
    assert_eq!(invite.media.relayed().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_to_path_is_known_by_session_id_where_legacy_endpoints_are_served() {
    let line = |text: &str| sdp(text).media[0].clone();
    let (with, without) = (line(CHAT_SDP), line(PLAIN));
    for (interop, cema, bare) in [
        (Interop::Never, Matching::Strict, Matching::Strict),
        (Interop::Auto, Matching::Strict, Matching::SessionId),
        (Interop::Always, Matching::Strict, Matching::SessionId),
    ] {
        assert_eq!(of_leg(interop, &with), cema, "{interop:?}");
        assert_eq!(of_leg(interop, &without), bare, "{interop:?}");
    }
}

#[test]
fn content_goes_the_way_the_descriptions_say() {
    for (word, theirs, ours) in [
        ("sendrecv", Direction::Both, Direction::Both),
        ("sendonly", Direction::FromPeer, Direction::ToPeer),
        ("recvonly", Direction::ToPeer, Direction::FromPeer),
    ] {
        let description = sdp(&CHAT_SDP.replace("sendrecv", word));
        assert_eq!(direction_of_peer(&description, &description.media[0]), theirs);
        assert_eq!(direction_of_ours(&description.media[0]), ours);
    }
    let common = sdp(&CHAT_SDP.replace("a=sendrecv\r\n", "").replace("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n"));
    assert_eq!(direction_of_peer(&common, &common.media[0]), Direction::ToPeer, "also where it holds for all lines");
}
