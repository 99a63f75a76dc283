//! CR 8.2.1.2 (OLM): each clause, with what happens otherwise.

use crate::alice::Alice;
use crate::bob::{LARGE_ANSWER, LARGE_SDP, Letter, accepts, count, header, icsi, is_own, ok, values, written};
use cpm_pf::config::{Anonymity, ExpiredMessage, Interop, OtherService};
use cpm_pf::cpm::decision::{AckTime, Contact, Decision, LaterSuccess, NextHop, Service, TargetKind};
use cpm_pf::cpm::facts::Role;
use cpm_pf::cpm::procedures::Procedure;
use cpm_pf::proves;
use cpm_pf::sip::header::session_expires::Refresher;

const FOCUS: &str = "<sip:conf-7@focus.example.net;gr=x>;isfocus;+g.oma.sip-im";

fn of(letter: &Letter) -> Procedure {
    Procedure::of(Role::Originating, &letter.request())
}

fn large() -> Letter {
    Letter::large()
}

/// The SDP that an originating Large Message INVITE carries on.
fn offer(alice: &Alice, letter: &Letter) -> String {
    written(&alice.invite(letter).media)
}

fn answered() -> cpm_pf::sip::message::Response {
    ok("<sip:bob@192.0.2.2:5060>", LARGE_ANSWER, &[])
}

/// The SDP of the origin's 200.
fn answer(alice: &Alice, letter: &Letter) -> String {
    written(&alice.answer(letter, &answered()).media.expect("a 200 to an INVITE has SDP"))
}

#[test]
fn the_tag_in_accept_contact_starts_the_section() {
    proves!("OLM-0", {
        for value in [
            accepts("largemsg"),
            accepts("largemsg.group"),
            format!("*;+g.3gpp.icsi-ref=\"{}\"", icsi("largemsg")),
            "*;+g.3gpp.icsi-ref=\"urn%3aurn-7%3a3gpp-service.ims.icsi.oma.cpm.LargeMsg\"".to_string(),
        ] {
            assert_eq!(of(&large().set("Accept-Contact", &value)), Procedure::OriginatingLargeMessage, "{value}");
        }
        // Both are asked for: the explicit trigger wins.
        let both = large().set("Accept-Contact", &accepts("session")).with("Accept-Contact", &accepts("largemsg"));
        assert_eq!(of(&both), Procedure::OriginatingLargeMessage);
    });
    assert_eq!(of(&large().set("Accept-Contact", &accepts("session"))), Procedure::OriginatingSession);
    assert_eq!(of(&large().set("Accept-Contact", &accepts("largemsgs"))), Procedure::Proxy);
    assert_eq!(of(&large().without("Accept-Contact")), Procedure::Proxy);
}

#[test]
fn an_originator_must_be_allowed_to_send() {
    let alice = Alice::new();
    proves!("OLM-1.a", "OLM-1.c", {
        alice.bridge(&large());
        alice.bridge(&large().set("P-Asserted-Identity", "<tel:+1-555-123-0001>"));
        // Either of the two asserted addresses will do.
        alice.bridge(&large().set("P-Asserted-Identity", "<sip:alice@elsewhere.org>, <tel:+1555>"));
        alice.bridge(&large().set("P-Asserted-Identity", "<sip:+1555@example.net;user=phone>"));
    });
    proves!("OLM-1.b", {
        for letter in [
            large().set("P-Asserted-Identity", "<sip:mallory@example.org>"),
            large().without("P-Asserted-Identity"),
            large().set("P-Asserted-Identity", "<sip:alice@example.net.example.org>"),
        ] {
            let refusal = alice.refusal(&letter);
            assert_eq!((refusal.status, refusal.warning), (403, Some((399, "127 Service not authorised"))));
            assert_eq!(refusal.clause, "OLM-1.b");
        }
        // An identity asserted by somebody we do not trust is none.
        let untrusted = Alice { trusted: false, ..Alice::new() };
        assert_eq!(untrusted.refusal(&large()).clause, "OLM-1.b");
    });
}

#[test]
fn the_first_step_that_fails_gives_the_answer() {
    let strict = Alice::new().configured(|config| {
        config.policy.anonymity = Anonymity::Reject;
        config.policy.user_agents = vec!["CPM-client/OMA9.*".to_string()];
    });
    let anonymous = large().with("Privacy", "id").with("Message-Expires", "0").with("Session-Expires", "1");
    let refused = |letter: &Letter| strict.refusal(letter).warning.map(|(_, text)| text);
    assert_eq!(refused(&anonymous.clone().without("P-Asserted-Identity")), Some("127 Service not authorised"));
    assert_eq!(refused(&anonymous), Some("132 Version not supported"));
    assert_eq!(refused(&anonymous.clone().set("User-Agent", "CPM-client/OMA9.1")), Some("119 Anonymity not allowed"));
    let named = anonymous.without("Privacy").set("User-Agent", "cpm-CLIENT/oma9.1 x");
    assert_eq!(strict.status(&named), 480);
    assert_eq!(strict.status(&named.clone().without("Message-Expires")), 422);
    assert_eq!(strict.status(&named.without("Message-Expires").without("Session-Expires").bare()), 488);
}

#[test]
fn a_release_may_be_required() {
    let picky = Alice::new().configured(|config| config.policy.user_agents = vec!["CPM-*/OMA2.*".to_string()]);
    proves!("OLM-2.a", "OLM-2.c", {
        picky.bridge(&large());
        picky.bridge(&large().set("User-Agent", "RCS-client/UP_2.4 (x) cpm-serv/oma2.1"));
        // Nothing is asked where nothing is configured.
        Alice::new().bridge(&large().without("User-Agent"));
    });
    proves!("OLM-2.b", {
        for letter in
            [large().set("User-Agent", "CPM-client/OMA1.0"), large().without("User-Agent"), large().set("User-Agent", "x")]
        {
            let refusal = picky.refusal(&letter);
            assert_eq!((refusal.status, refusal.warning), (403, Some((399, "132 Version not supported"))));
        }
    });
}

#[test]
fn anonymity_may_be_refused() {
    let open = Alice::new().configured(|config| config.policy.anonymity = Anonymity::Reject);
    proves!("OLM-3.a", {
        for letter in [
            large().with("Privacy", "id"),
            large().with("Privacy", "header;critical"),
            large().with("Privacy", "User"),
            large().set("From", "\"Anonymous\" <sip:anonymous@Anonymous.invalid>;tag=1"),
        ] {
            let refusal = open.refusal(&letter);
            assert_eq!((refusal.status, refusal.warning), (403, Some((399, "119 Anonymity not allowed"))));
        }
    });
    proves!("OLM-3.b", {
        open.bridge(&large().with("Privacy", "none"));
        let invite = Alice::new().invite(&large().with("Privacy", "id"));
        assert_eq!(header(&invite, "Privacy"), ["id"]);
        assert_eq!(header(&invite, "P-Asserted-Identity"), ["<sip:alice@example.net>, <tel:+15551230001>"]);
    });
}

#[test]
fn a_message_whose_time_is_over_is_refused() {
    let (alice, date) = (Alice::new(), "Thu, 01 Feb 2024 09:59:00 GMT");
    proves!("OLM-4.a", "OLM-4.c", "OLM-7.x2", {
        // A minute old: valid for 61 seconds.
        let invite = alice.invite(&large().with("Message-Expires", "61").with("Date", date));
        assert_eq!(header(&invite, "Message-Expires"), ["61"]);
        assert_eq!(header(&invite, "Date"), [date]);
        // Without Date it counts from now, and the next hop must not begin to count anew.
        let invite = alice.invite(&large().with("Message-Expires", "1"));
        assert_eq!(header(&invite, "Date"), ["Thu, 01 Feb 2024 10:00:00 GMT"]);
        let invite = alice.invite(&large());
        assert!(header(&invite, "Date").is_empty() && header(&invite, "Message-Expires").is_empty());
        alice.bridge(&large().with("Message-Expires", "soon").with("Date", date));
    });
    proves!("OLM-4.b", {
        for (expires, date) in [("60", Some(date)), ("0", None), ("0", Some("Thu, 01 Feb 2024 10:00:00 GMT"))] {
            let letter = large().with("Message-Expires", expires);
            let letter = date.map_or(letter.clone(), |date| letter.with("Date", date));
            assert_eq!(alice.status(&letter), 480, "{expires}");
            let late = Alice::new().configured(|config| config.policy.expired_message = ExpiredMessage::Deliver);
            late.bridge(&letter);
        }
    });
}

#[test]
fn a_session_interval_that_is_too_short_is_refused() {
    let alice = Alice::new().configured(|config| config.policy.min_se = std::time::Duration::from_secs(300));
    proves!("OLM-5.a", {
        let refusal = alice.refusal(&large().with("Session-Expires", "299"));
        assert_eq!((refusal.status, refusal.headers), (422, vec![("Min-SE", "300".to_string())]));
        alice.bridge(&large().with("Session-Expires", "300;refresher=uac"));
        assert_eq!(alice.status(&large().with("Session-Expires", "soon")), 400);
    });
    proves!("OLM-5.b", {
        alice.bridge(&large().set("Supported", "100rel").with("Session-Expires", "10"));
    });
    proves!("OLM-5.c", {
        alice.bridge(&large());
    });
}

#[test]
fn one_invite_goes_out_as_from_a_user_agent() {
    let alice = Alice::new();
    proves!("OLM-6", "OLM-7", "OLM-7.a", "OLM-7.x", {
        let letter = large()
            .uri("sip:bob@example.net;x=y?Subject=a")
            .with("InReplyTo-Contribution-ID", "r 1")
            .with("s", "lunch")
            .with("X-Unknown", "a,  b");
        let bridge = alice.bridge(&letter);
        assert_eq!((bridge.service, bridge.later, bridge.ack), (Service::LargeMessage, LaterSuccess::Bye, AckTime::AtOnce));
        let invite = alice.invite(&letter);
        assert_eq!(invite.request_uri, "sip:bob@example.net;x=y?Subject=a");
        assert_eq!((invite.from.as_str(), invite.to.as_str()), ("\"Alice\" <sip:alice@example.net>", "<sip:bob@example.net>"));
        assert_eq!(header(&invite, "Conversation-ID"), ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]);
        assert_eq!(header(&invite, "Contribution-ID"), ["abcdef-1234-5678-90ab-cdef01234567"]);
        assert_eq!(header(&invite, "InReplyTo-Contribution-ID"), ["r 1"]);
        assert_eq!((header(&invite, "Subject"), header(&invite, "X-Unknown")), (vec!["lunch"], vec!["a,  b"]));
        assert_eq!(header(&invite, "User-Agent"), [cpm_pf::cpm::release::product(&alice.config)]);
        for gone in ["Via", "Route", "Record-Route", "Max-Forwards", "From", "To", "Call-ID", "CSeq", "Contact", "Content-Type"] {
            assert!(header(&invite, gone).is_empty(), "{gone} belongs to the other leg");
        }
    });
    assert!(header(&alice.invite(&large()), "InReplyTo-Contribution-ID").is_empty());
    assert!(alice.sends(&large().without("P-Asserted-Identity")).is_err(), "no INVITE where a gate failed");
}

#[test]
fn accept_contact_is_copied_and_coded_once() {
    let alice = Alice::new();
    proves!("OLM-7.b", {
        let raw = format!("*;+g.3gpp.icsi-ref=\"{}\"", icsi("largemsg"));
        let invite = alice.invite(&large().set("Accept-Contact", &raw).with("Accept-Contact", "*;video;require"));
        let coded = "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"";
        assert_eq!(header(&invite, "Accept-Contact"), [coded, "*;video;require"]);
        let invite = alice.invite(&large().set("Accept-Contact", coded));
        assert_eq!(header(&invite, "Accept-Contact"), [coded]);
    });
}

#[test]
fn the_preferred_service_becomes_the_asserted_one() {
    let alice = Alice::new();
    let plain = || large().without("P-Asserted-Service");
    let asserted = |alice: &Alice, letter: &Letter| {
        let invite = alice.invite(letter);
        assert!(header(&invite, "P-Preferred-Service").is_empty(), "a preferred service never leaves us");
        header(&invite, "P-Asserted-Service").iter().map(|value| value.to_string()).collect::<Vec<_>>()
    };
    proves!("OLM-7.c.i", {
        assert_eq!(asserted(&alice, &plain().with("P-Preferred-Service", &icsi("largemsg"))), [icsi("largemsg")]);
    });
    proves!("OLM-7.c.ii", {
        assert_eq!(asserted(&alice, &plain().with("P-Preferred-Service", &icsi("largemsg.group"))), [icsi("largemsg.group")]);
    });
    proves!("OLM-7.c.iii.a", {
        for short in ["largemsg", "largemsg.group"] {
            let letter = large().set("P-Asserted-Service", &icsi(short)).with("P-Preferred-Service", &icsi("session"));
            assert_eq!(asserted(&alice, &letter), [icsi(short)]);
        }
    });
    proves!("OLM-7.c.iii.b", {
        let lenient = Alice::new().configured(|config| config.policy.other_service = OtherService::Pass);
        let other = large().set("P-Asserted-Service", &icsi("largemsg.x"));
        let refusal = alice.refusal(&other);
        assert_eq!((refusal.status, refusal.warning), (403, None));
        assert_eq!(asserted(&lenient, &other), [icsi("largemsg.x")]);
        let preferred = plain().with("P-Preferred-Service", &icsi("session"));
        assert_eq!(alice.status(&preferred), 403);
        assert_eq!(asserted(&lenient, &preferred), [icsi("largemsg")]);
    });
    proves!("OLM-7.c.iv", {
        assert_eq!(asserted(&alice, &plain()), [icsi("largemsg")]);
        assert_eq!(asserted(&alice, &plain().set("Accept-Contact", &accepts("largemsg.group"))), [icsi("largemsg.group")]);
    });
}

#[test]
fn a_focus_keeps_its_contact_and_anybody_else_gets_ours() {
    let alice = Alice::new();
    proves!("OLM-7.d", "C17-2", "C17-3", {
        assert_eq!(alice.invite(&large().set("Contact", FOCUS)).contact, Contact::Copied(FOCUS.to_string()));
    });
    proves!("OLM-7.h", "C17-4", {
        let contact =
            alice.invite(&large().set("Contact", "<sip:alice@192.0.2.1;gr=1>;+sip.instance=\"<x>\";audio;expires=9")).contact;
        assert_eq!(contact, Contact::Own { params: ";audio".to_string(), stands_for: None });
    });
}

#[test]
fn the_session_timer_is_ours_and_below_half_an_hour() {
    proves!("OLM-7.e", "OLM-7.f", "OLM-7.g", {
        for (configured, expected) in [(1740, 1740), (1800, 1799), (7200, 1799), (10, 90)] {
            let alice = Alice::new().configured(|config| {
                config.policy.large_message_session_expires = std::time::Duration::from_secs(configured);
            });
            let invite = alice.invite(&large().with("Session-Expires", "900;refresher=uas").with("Min-SE", "100"));
            let expires = invite.session_expires.expect("it stands in every INVITE");
            assert_eq!((expires.delta_s, expires.refresher), (expected, Refresher::Uac));
            assert_eq!(header(&invite, "Supported"), ["timer"]);
            assert!(header(&invite, "Min-SE").is_empty() && header(&invite, "Session-Expires").is_empty());
        }
    });
}

#[test]
fn the_offer_is_ours_where_it_must_be() {
    let alice = Alice::new();
    proves!("OLM-7.i", "OLM-7.i.i", "OLM-7.i.ii", "OLM-7.i.iii", "OLM-7.i.iv", "OLM-7.i.v", "OLM-7.i.vi.a", {
        let sdp = offer(&alice, &large());
        assert_eq!(count(&sdp, "m=message 2855 TCP/MSRP *"), 1);
        assert_eq!(sdp.matches("a=path:").count(), 1);
        assert_eq!(count(&sdp, "a=path:msrp://127.0.0.1:2855/01own;tcp"), 1);
        assert_eq!(count(&sdp, "a=sendonly"), 1);
        assert_eq!(count(&sdp, "a=file-selector:size:4092"), 1);
        assert_eq!((sdp.matches("a=setup").count(), count(&sdp, "a=setup:actpass")), (1, 1));
        assert_eq!(count(&sdp, "a=msrp-cema"), 1);
        assert!(!sdp.contains("192.0.2.1"), "Alice's address is not told: {sdp}");
        // Any legal way of offering to send becomes sendonly.
        for direction in ["a=sendrecv\r\n", ""] {
            let sdp = offer(&alice, &large().sdp(&LARGE_SDP.replace("a=sendonly\r\n", direction)));
            assert_eq!((count(&sdp, "a=sendonly"), sdp.matches("a=sendrecv").count()), (1, 0));
        }
    });
    let without_size = offer(&alice, &large().sdp(&LARGE_SDP.replace("a=file-selector:size:4092\r\n", "")));
    assert!(!without_size.contains("file-selector"), "an unknown size is not invented");
    assert_eq!(alice.status(&large().bare()), 488);
    assert_eq!(alice.status(&large().sdp(&LARGE_SDP.replace("TCP/MSRP", "RTP/AVP"))), 488);
    assert_eq!(alice.status(&large().sdp("nonsense")), 400);
}

#[test]
fn an_offer_that_does_not_send_is_refused() {
    proves!("OLM-7.i.iii.x", {
        for direction in ["recvonly", "inactive"] {
            let refusal = Alice::new().refusal(&large().sdp(&LARGE_SDP.replace("sendonly", direction)));
            assert_eq!((refusal.status, refusal.clause), (488, "OLM-7.i.iii.x"));
        }
    });
}

#[test]
fn interoperability_goes_without_cema() {
    proves!("OLM-7.i.vi.b", {
        let legacy = Alice::new().configured(|config| config.msrp.interop = Interop::Always);
        let sdp = offer(&legacy, &large());
        assert_eq!(sdp.matches("msrp-cema").count(), 0);
        assert!(sdp.contains("c=IN IP4 127.0.0.1\r\n") && sdp.contains("m=message 2855 "), "c= and m= are the path's: {sdp}");
    });
    let auto = Alice::new().configured(|config| config.msrp.interop = Interop::Auto);
    assert_eq!(count(&offer(&auto, &large()), "a=msrp-cema"), 1, "nothing says yet that the far end needs it");
}

#[test]
fn other_addresses_than_sip_and_tel_go_to_the_isf() {
    let alice = Alice::new();
    proves!("OLM-8.a", {
        for address in ["mailto:bob@ex.org", "im:bob@example.net", "mms:123"] {
            let invite = alice.invite(&large().uri(address));
            assert_eq!((invite.kind, invite.next_hop, invite.request_uri.as_str()), (TargetKind::Isf, NextHop::Isf, address));
        }
        let lonely = Alice::new().configured(|config| config.sip.isf = None);
        assert_eq!(lonely.status(&large().uri("mailto:bob@ex.org")), 416);
    });
    proves!("OLM-8.b", {
        for address in ["sip:bob@example.net", "sips:bob@example.net", "tel:+1555", "SIP:bob@example.net"] {
            let invite = alice.invite(&large().uri(address));
            assert_eq!((invite.kind, invite.next_hop), (TargetKind::Recipient, NextHop::Core { fallback: None }));
        }
    });
}

#[test]
fn a_failure_is_told_unless_it_is_between_us_and_the_target() {
    let alice = Alice::new();
    proves!("OLM-r0", {
        for (status, told) in [(486, 486), (603, 603), (503, 503), (422, 480), (401, 480), (407, 480), (482, 500), (483, 500)] {
            assert_eq!(alice.exhausted(&large(), &[status]).status, told);
        }
        assert_eq!(alice.exhausted(&large(), &[408, 404, 600]).status, 600);
    });
}

#[test]
fn the_origin_gets_a_200_of_our_own() {
    let alice = Alice::new();
    proves!("OLM-r1", "OLM-r3", "OLM-r6.a", {
        let answer = alice.answer(&large(), &answered());
        assert_eq!(answer.status, 200);
        assert_eq!(values(&answer.headers, "Server"), [cpm_pf::cpm::release::product(&alice.config)]);
        assert_eq!(values(&answer.headers, "Supported"), ["timer"]);
    });
    proves!("OLM-r2.a", {
        let answer = alice.answer(&large(), &ok(FOCUS, LARGE_ANSWER, &[]));
        assert_eq!(answer.contact, Some(Contact::Copied(FOCUS.to_string())));
    });
    proves!("OLM-r2.b", {
        let contact = alice.answer(&large(), &answered()).contact.expect("a 200 to an INVITE has a Contact");
        assert!(is_own(&contact) && !format!("{contact:?}").contains("192.0.2.2"));
        let contact = alice.answer(&large(), &ok("<sip:c@192.0.2.2;isfocus>", LARGE_ANSWER, &[])).contact;
        assert!(is_own(&contact.expect("a Contact")), "a URI parameter makes no focus");
    });
}

#[test]
fn the_answers_interval_is_the_shortest_and_never_longer_than_asked() {
    let alice = Alice::new();
    let expires = |letter: &Letter, said: &[(&str, &str)]| {
        let answer = alice.answer(letter, &ok("<sip:b@x>", LARGE_ANSWER, said));
        let expires = answer.session_expires.expect("it stands in the 200");
        (expires.delta_s, expires.refresher, answer.require_timer)
    };
    proves!("OLM-r4", {
        let asked = large().with("Session-Expires", "1200;refresher=uac");
        assert_eq!(expires(&asked, &[("Session-Expires", "600;refresher=uas")]), (600, Refresher::Uac, true));
        assert_eq!(expires(&asked, &[("Session-Expires", "1700")]), (1200, Refresher::Uac, true));
        assert_eq!(expires(&asked.clone().with("Min-SE", "900"), &[("Session-Expires", "600")]), (900, Refresher::Uac, true));
        assert_eq!(expires(&large().with("Session-Expires", "1200;refresher=uas"), &[]), (1200, Refresher::Uas, true));
        let deaf = large().set("Supported", "100rel").with("Session-Expires", "1200;refresher=uac");
        assert_eq!(expires(&deaf, &[]), (1200, Refresher::Uas, false));
        assert_eq!(expires(&large(), &[("Session-Expires", "600")]).0, 600);
    });
}

#[test]
fn the_answer_is_the_targets_with_our_address() {
    let alice = Alice::new();
    proves!("OLM-r5", "OLM-r5.a", "OLM-r5.b", "OLM-r5.c", "OLM-r5.d", "OLM-r5.e.1", {
        let sdp = answer(&alice, &large());
        assert_eq!(count(&sdp, "m=message 2855 TCP/MSRP *"), 1);
        assert_eq!((sdp.matches("a=path").count(), count(&sdp, "a=path:msrp://127.0.0.1:2855/01own;tcp")), (1, 1));
        assert_eq!((count(&sdp, "a=recvonly"), sdp.matches("a=send").count()), (1, 0));
        assert_eq!((sdp.matches("a=setup").count(), count(&sdp, "a=setup:passive")), (1, 1));
        assert_eq!(count(&sdp, "a=msrp-cema"), 1);
        assert!(!sdp.contains("192.0.2.2") && !sdp.contains("bobs-own-path"), "Bob's address is not told: {sdp}");
    });
    // RFC 3264: as many lines as were offered, in their order; the second file is not taken.
    let two = format!("{LARGE_SDP}m=audio 4000 RTP/AVP 0\r\nm=message 7655 TCP/MSRP *\r\na=path:msrp://192.0.2.1:7655/x;tcp\r\n");
    let sdp = answer(&alice, &large().sdp(&two));
    let lines: Vec<&str> = sdp.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=message 2855 TCP/MSRP *", "m=audio 0 RTP/AVP 0", "m=message 0 TCP/MSRP *"]);

    let refused = LARGE_ANSWER.replace("m=message 9999", "m=message 0");
    let answer = alice.success(&large(), &ok("<sip:b@x>", &refused, &[])).expect("a 200 that takes nothing");
    let sdp = written(&answer.media.expect("an SDP"));
    assert_eq!(sdp.lines().filter(|line| line.starts_with("m=")).collect::<Vec<_>>(), ["m=message 0 TCP/MSRP *"]);
    assert!(!sdp.contains("a=path") && !sdp.contains("192.0.2"), "{sdp}");
    let useless = "v=0\r\no=- 1 1 IN IP4 x\r\ns=-\r\nt=0 0\r\n";
    assert_eq!(alice.success(&large(), &ok("<sip:b@x>", useless, &[])).expect_err("no answer to the offer").status, 488);
}

#[test]
fn an_answer_without_cema_follows_an_offer_without_it() {
    let plain = LARGE_SDP.replace("a=msrp-cema\r\n", "");
    let moved = plain.replace("c=IN IP4 192.0.2.1", "c=IN IP4 198.51.100.9");
    let (alice, legacy) = (Alice::new(), Alice::new().configured(|config| config.msrp.interop = Interop::Auto));
    proves!("OLM-r5.e.2", {
        assert_eq!(answer(&alice, &large().sdp(&plain)).matches("msrp-cema").count(), 0);
        // c= is not what the path says, and nobody speaks of cema: RFC 6714 §4.3.
        let refusal = alice.refusal(&large().sdp(&moved));
        assert_eq!((refusal.status, refusal.clause), (488, "OLM-r5.e.2"));
        assert_eq!(answer(&legacy, &large().sdp(&moved)).matches("msrp-cema").count(), 0);
    });
    proves!("OLM-r5.d", {
        for setup in ["passive", "holdconn"] {
            let refusal = alice.refusal(&large().sdp(&LARGE_SDP.replace("actpass", setup)));
            assert_eq!((refusal.status, refusal.clause), (488, "OLM-r5.d"));
        }
        for setup in ["a=setup:active\r\n", ""] {
            let sdp = answer(&alice, &large().sdp(&LARGE_SDP.replace("a=setup:actpass\r\n", setup)));
            assert_eq!(count(&sdp, "a=setup:passive"), 1);
        }
    });
}

#[test]
fn a_history_is_kept_where_the_originators_rules_say_so() {
    proves!("OLM-r7.a", "OLM-r7.b", {
        let alice = Alice::new().recorded("CPM", "true");
        assert!(alice.is_recorded(&large(), &answered()));
        let needs = of(&large()).needs(&alice.config, true, &large().request());
        assert_eq!(needs.preferences.as_deref(), Some("sip:alice@example.net"));
    });
    proves!("OLM-r7.c", {
        assert!(!Alice::new().recorded("CPM", "false").is_recorded(&large(), &answered()));
        assert!(!Alice::new().recorded("PoC", "true").is_recorded(&large(), &answered()));
        // XDM is away: no rules, and the message went all the same.
        assert!(!Alice::new().is_recorded(&large(), &answered()));
        let off = Alice::new().recorded("CPM", "true").configured(|config| config.policy.record_history = false);
        assert!(!off.is_recorded(&large(), &answered()));
    });
}

#[test]
fn an_option_we_do_not_know_cannot_be_required_of_us() {
    let refusal = Alice::new().refusal(&large().with("Require", "timer, nothingSupportsThis"));
    assert_eq!((refusal.status, refusal.headers), (420, vec![("Unsupported", "nothingSupportsThis".to_string())]));
}

#[test]
fn a_pager_mode_message_passes_the_same_gates() {
    let alice = Alice::new();
    let Ok(Decision::Message(messages)) = alice.sends(&Letter::pager().without("P-Asserted-Service")) else {
        panic!("a MESSAGE goes on as MESSAGE")
    };
    let message = &messages.targets[0];
    assert_eq!((message.kind.clone(), message.next_hop.clone()), (TargetKind::Recipient, NextHop::Core { fallback: None }));
    assert_eq!(values(&message.headers, "P-Asserted-Service"), [icsi("msg")]);
    assert_eq!((message.content_type.as_str(), message.body.as_slice()), ("message/cpim", Letter::pager().request().body()));
    assert_eq!(alice.refusal(&Letter::pager().without("P-Asserted-Identity")).warning, Some((399, "127 Service not authorised")));
    assert_eq!(alice.status(&Letter::pager().set("P-Asserted-Service", &icsi("session"))), 403);
    assert_eq!(alice.status(&Letter::pager().with("Message-Expires", "0")), 480);
}
