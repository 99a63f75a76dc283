//! CR 8.3.1.5 (EMS): the answer that establishes an MSRP session for receiving.

use crate::bob::*;
use cpm_pf::config::Interop;
use cpm_pf::cpm::decision::{Answer, Contact};
use cpm_pf::cpm::session_matching;
use cpm_pf::msrp::leg::Matching;
use cpm_pf::proves;
use cpm_pf::sdp::description::Description;
use cpm_pf::sip::header::session_expires::Refresher;
use cpm_pf::sip::message::Response;

const FOCUS: &str = "<sip:focus-7@conf.example.net>;isfocus";

fn accepted() -> Response {
    ok("<sip:bob@192.0.2.2>", LARGE_ANSWER, &[])
}

/// Bob's phone answers an INVITE like this.
fn answer(letter: &Letter, ok: &Response) -> Answer {
    let bob = Bob::new();
    let bridge = bob.bridge(letter);
    bob.answer(letter, &bridge, ok)
}

#[test]
fn the_200_copies_the_conversation_and_invents_nothing() {
    let letter = Letter::large().with("InReplyTo-Contribution-ID", "reply-1");
    let answered =
        proves!("EMS-1", "EMS-1.a.1", "EMS-1.a.2", "EMS-1.a.3", "EMS-1.b", "EMS-1.f", "EMS-2", { answer(&letter, &accepted()) });
    assert_eq!(answered.status, 200);
    assert_eq!(values(&answered.headers, "Conversation-ID"), ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]);
    assert_eq!(values(&answered.headers, "Contribution-ID"), ["abcdef-1234-5678-90ab-cdef01234567"]);
    assert_eq!(values(&answered.headers, "InReplyTo-Contribution-ID"), ["reply-1"]);
    assert_eq!(values(&answered.headers, "Supported"), ["timer"]);
    let server = values(&answered.headers, "Server");
    assert!(server.len() == 1 && server[0].starts_with("CPM-serv/OMA2.2"), "{server:?}");

    let bare = answer(&Letter::large().without("Conversation-ID").without("Contribution-ID"), &accepted());
    for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID"] {
        assert_eq!(values(&bare.headers, name), Vec::<&str>::new());
    }
}

#[test]
fn the_interval_of_the_invite_is_copied_with_the_refresher_of_table_2() {
    // RFC 4028 §9, table 2: refresher of the request, of the answer, and Require: timer.
    for (value, refresher, require) in [
        ("600;refresher=uac", Refresher::Uac, true),
        ("600;refresher=uas", Refresher::Uas, true),
        ("1800;refresher=uac", Refresher::Uac, true),
    ] {
        let answered = proves!("EMS-1.c", { answer(&Letter::large().with("Session-Expires", value), &accepted()) });
        let expires = answered.session_expires.expect("a Session-Expires");
        let asked: u32 = value.split(';').next().and_then(|text| text.parse().ok()).expect("a number");
        assert!(expires.delta_s <= asked && expires.delta_s >= 90, "{value}");
        assert_eq!(expires.refresher, refresher, "{value}");
        assert!(answered.require_timer || !require, "{value}");
    }
    let untimed = Letter::large().with("Session-Expires", "600").set("Supported", "100rel");
    let answered = answer(&untimed, &accepted());
    assert_eq!(answered.session_expires.map(|expires| expires.refresher), Some(Refresher::Uas));
    assert!(!answered.require_timer, "the sender does not know the option");
}

#[test]
fn without_an_interval_we_bring_one() {
    let answered = proves!("EMS-1.d.1", "EMS-1.d.2", { answer(&Letter::large(), &accepted()) });
    let expires = answered.session_expires.expect("a Session-Expires");
    assert_eq!(expires.refresher, Refresher::Uas);
    assert!((90..1800).contains(&expires.delta_s));
}

#[test]
fn the_answer_is_ours() {
    let answered =
        proves!("EMS-1.e", "EMS-1.e.i", "EMS-1.e.ii", "EMS-1.e.iii", "EMS-1.e.iv", { answer(&Letter::large(), &accepted()) });
    let sdp = written(answered.media.as_ref().expect("SDP"));
    for line in ["m=message 2855 TCP/MSRP *", "a=path:msrp://127.0.0.1:2855/01own;tcp", "a=recvonly", "a=setup:passive"] {
        assert_eq!(count(&sdp, line), 1, "{line} in\n{sdp}");
    }
    assert!(!sdp.contains("192.0.2"), "{sdp}");
    assert_eq!(count(&sdp, "a=msrp-cema"), 1, "the offer had it");
    let without = Letter::large().sdp(&LARGE_SDP.replace("a=msrp-cema\r\n", ""));
    let sdp = written(answer(&without, &accepted()).media.as_ref().expect("SDP"));
    assert_eq!(count(&sdp, "a=msrp-cema"), 0, "the offer had none");
}

#[test]
fn a_target_that_refuses_the_media_is_of_no_use() {
    let bob = Bob::new();
    let letter = Letter::large();
    let bridge = bob.bridge(&letter);
    let refused = LARGE_ANSWER.replace("m=message 9999", "m=message 0");
    for sdp in [refused.as_str(), ""] {
        let ok = ok("<sip:bob@192.0.2.2>", sdp, &[]);
        assert!(bob.success(&letter, &bridge, &ok).is_err());
    }
}

#[test]
fn without_a_target_the_answer_is_our_own() {
    let receive = proves!("EMS-1", "EMS-1.e", "EMS-1.g.2", { Bob::away().receive(&Letter::large()) });
    let sdp = written(receive.answer.media.as_ref().expect("SDP"));
    for line in ["a=recvonly", "a=setup:passive", "a=accept-types:message/cpim", "a=msrp-cema"] {
        assert_eq!(count(&sdp, line), 1, "{line} in\n{sdp}");
    }
    assert!(is_own(receive.answer.contact.as_ref().expect("a Contact")));
}

#[test]
fn a_focus_contact_passes_and_another_does_not() {
    let answered = proves!("EMS-1.g.1", { answer(&Letter::large(), &ok(FOCUS, LARGE_ANSWER, &[])) });
    assert_eq!(answered.contact, Some(Contact::Copied(FOCUS.to_string())));
    let answered = proves!("EMS-1.g.2", { answer(&Letter::large(), &accepted()) });
    assert!(is_own(answered.contact.as_ref().expect("a Contact")));
}

#[test]
fn legacy_matching_needs_interop_and_an_offer_without_cema() {
    let offer = |text: &str| Description::parse(text.as_bytes()).expect("an SDP");
    let plain = offer(&LARGE_SDP.replace("a=msrp-cema\r\n", ""));
    let cema = offer(LARGE_SDP);
    let matching = |interop: Interop, offer: &Description| session_matching::of_leg(interop, &offer.media[0]);
    for interop in [Interop::Auto, Interop::Always] {
        assert_eq!(proves!("EMS-1.e.v.1", { matching(interop, &plain) }), Matching::SessionId);
        assert_eq!(proves!("EMS-1.e.v.2", { matching(interop, &cema) }), Matching::Strict);
    }
    assert_eq!(proves!("EMS-1.e.v.2", { matching(Interop::Never, &plain) }), Matching::Strict);
}
