//! CR 8.2.2.1 (OSI): each clause, with what happens otherwise.

use crate::alice::{Alice, device};
use crate::bob::{
    CHAT_ANSWER, CHAT_SDP, Letter, PHONE, PHONE_GRUU, TABLET, accepts, count, header, icsi, is_own, ok, values, written,
};
use cpm_pf::config::{Anonymity, OtherService, PreferredService};
use cpm_pf::cpm::decision::{AckTime, Contact, FollowUp, Invite, LaterSuccess, NextHop, Service, TargetKind};
use cpm_pf::cpm::facts::Role;
use cpm_pf::cpm::history;
use cpm_pf::cpm::procedures::Procedure;
use cpm_pf::proves;
use cpm_pf::sip::header::session_expires::Refresher;
use cpm_pf::sip::message::Response;
use cpm_pf::store::history::{Body, Object};

const FOCUS: &str = "<sip:conf-7@focus.example.net>;isfocus";
const LIST: &str =
    "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list><entry uri=\"tel:+1\"/></list></resource-lists>";

fn session() -> Letter {
    Letter::session()
}

fn answered() -> Response {
    ok("<sip:bob@192.0.2.2:5060>;+sip.instance=\"<urn:uuid:b>\"", CHAT_ANSWER, &[])
}

/// Two streams, of which the second is named in the answer with port 0.
fn two_streams() -> (String, String) {
    let offer =
        format!("{CHAT_SDP}m=message 7656 TCP/MSRP *\r\na=accept-types:image/png\r\na=path:msrp://192.0.2.1:7656/second;tcp\r\n");
    let answer = format!("{CHAT_ANSWER}m=message 0 TCP/MSRP *\r\n");
    (offer, answer)
}

fn retry(follows: &[FollowUp]) -> Option<&Invite> {
    follows.iter().find_map(|follow| match follow {
        FollowUp::Retry(invite) => Some(&**invite),
        _ => None,
    })
}

fn copies(follows: &[FollowUp]) -> &[Invite] {
    let found = follows.iter().find_map(|follow| match follow {
        FollowUp::OwnClients(invites) => Some(invites.as_slice()),
        _ => None,
    });
    found.unwrap_or_default()
}

#[test]
fn the_session_tag_starts_the_section() {
    let of = |letter: &Letter| Procedure::of(Role::Originating, &letter.request());
    proves!("OSI-0", {
        for short in ["session", "session.group", "filetransfer"] {
            assert_eq!(of(&session().set("Accept-Contact", &accepts(short))), Procedure::OriginatingSession, "{short}");
        }
    });
    assert_eq!(of(&session().with("Accept-Contact", &accepts("largemsg"))), Procedure::OriginatingLargeMessage);
    assert_eq!(of(&session().without("Accept-Contact")), Procedure::Proxy);
}

#[test]
fn the_gates_stand_in_the_crs_order() {
    let alice = Alice::new();
    proves!("OSI-1.a", "OSI-1.c", "OSI-2.a", "OSI-2.c", "OSI-3.b", {
        alice.bridge(&session());
        alice.bridge(&session().without("User-Agent").with("Privacy", "none"));
    });
    let strict = Alice::new().configured(|config| {
        config.policy.anonymity = Anonymity::Reject;
        config.policy.user_agents = vec!["CPM-client/OMA9.*".to_string()];
        config.policy.stay_in_media_path = false;
    });
    let anonymous = session().with("Privacy", "id");
    proves!("OSI-1.b", {
        let refusal = strict.refusal(&anonymous.clone().without("P-Asserted-Identity"));
        assert_eq!((refusal.status, refusal.warning), (403, Some((399, "127 Service not authorised"))));
        let stranger = alice.refusal(&session().set("P-Asserted-Identity", "<sip:a@example.org>"));
        assert_eq!(stranger.clause, "OSI-1.b");
    });
    proves!("OSI-2.b", {
        let refusal = strict.refusal(&anonymous);
        assert_eq!((refusal.status, refusal.warning), (403, Some((399, "132 Version not supported"))));
        assert_eq!(strict.refusal(&session().without("User-Agent")).clause, "OSI-2.b");
    });
    proves!("OSI-3.a", {
        let refusal = strict.refusal(&anonymous.set("User-Agent", "CPM-client/OMA9.0"));
        assert_eq!((refusal.status, refusal.warning), (403, Some((399, "119 Anonymity not allowed"))));
    });
    strict.proxy(&session().set("User-Agent", "CPM-client/OMA9.0"));
}

#[test]
fn an_asserted_service_is_kept_or_refused() {
    let alice = Alice::new();
    proves!("OSI-4", "OSI-4.a.ii", {
        for short in ["session", "session.group"] {
            let invite =
                alice.invite(&session().set("P-Asserted-Service", &icsi(short)).with("P-Preferred-Service", &icsi("msg")));
            assert_eq!(header(&invite, "P-Asserted-Service"), [icsi(short)]);
            assert!(header(&invite, "P-Preferred-Service").is_empty());
        }
    });
    let other = session().set("P-Asserted-Service", &icsi("largemsg"));
    proves!("OSI-4.a.iii.1", "OSI-4.a.iii.2", {
        let refusal = alice.refusal(&other);
        assert_eq!((refusal.status, refusal.warning), (403, None));
    });
    // A file transfer is set up as a session is, and may be asserted as what it is.
    let transfer = session().set("Accept-Contact", &accepts("filetransfer")).set("P-Asserted-Service", &icsi("filetransfer"));
    assert_eq!(header(&alice.invite(&transfer), "P-Asserted-Service"), [icsi("filetransfer")]);
    assert_eq!(alice.status(&session().set("P-Asserted-Service", &icsi("filetransfer"))), 403);
    let lenient = Alice::new().configured(|config| config.policy.other_service = OtherService::Pass);
    assert_eq!(header(&lenient.invite(&other), "P-Asserted-Service"), [icsi("largemsg")]);
}

#[test]
fn a_preferred_service_never_leaves_us() {
    let alice = Alice::new();
    let configured = Alice::new().configured(|config| {
        config.policy.preferred_service = PreferredService::Configured;
        config.policy.default_service = icsi("session.x");
    });
    let asserted = |alice: &Alice, letter: &Letter| {
        let invite = alice.invite(letter);
        assert!(header(&invite, "P-Preferred-Service").is_empty());
        header(&invite, "P-Asserted-Service").join("|")
    };
    let preferring = |short: &str| session().without("P-Asserted-Service").with("P-Preferred-Service", &icsi(short));
    proves!("OSI-4.c.ii", {
        assert_eq!(asserted(&alice, &preferring("session")), icsi("session"));
    });
    proves!("OSI-4.c.iii", {
        assert_eq!(asserted(&alice, &preferring("session.group")), icsi("session.group"));
    });
    proves!("OSI-4.c.iv", "OSI-4.c.iv.1", {
        let group = preferring("largemsg").set("Accept-Contact", &accepts("session.group"));
        assert_eq!(asserted(&alice, &group), icsi("session.group"));
        assert_eq!(
            asserted(&alice, &preferring("filetransfer").set("Accept-Contact", &accepts("filetransfer"))),
            icsi("filetransfer")
        );
    });
    proves!("OSI-4.c.iv.2", {
        assert_eq!(asserted(&configured, &preferring("largemsg")), icsi("session.x"));
    });
    proves!("OSI-4.c.v", {
        assert_eq!(asserted(&alice, &session().without("P-Asserted-Service")), icsi("session"));
    });
}

#[test]
fn what_the_cr_copies_is_copied_octet_for_octet() {
    let alice = Alice::new();
    let letter = session()
        .uri("sip:conf@example.net;a=b")
        .set("Conversation-ID", "C/1 x")
        .set("Contribution-ID", "D==")
        .with("InReplyTo-Contribution-ID", "R")
        .with("Subject", "s")
        .set("Contact", "\"A\" <sip:alice@192.0.2.1;ob>;+sip.instance=\"<x>\"")
        .with("Accept-Contact", "*;+g.3gpp.icsi-ref=\"urn:urn-7:raw\"");
    proves!("OSI-4.b", "OSI-4.f", "OSI-4.e", "OSI-4.d.1", "OSI-4.d.2", "OSI-4.d.3", "OSI-4.d.4", "OSI-4.h.1", "OSI-4.h.2", {
        let bridge = alice.bridge(&letter);
        assert_eq!((bridge.later, bridge.ack, bridge.service), (LaterSuccess::Bye, AckTime::WithOrigin, Service::Session));
        let invite = alice.invite(&letter);
        assert_eq!(invite.request_uri, "sip:conf@example.net;a=b");
        assert_eq!(header(&invite, "Conversation-ID"), ["C/1 x"]);
        assert_eq!(header(&invite, "Contribution-ID"), ["D=="]);
        assert_eq!(header(&invite, "InReplyTo-Contribution-ID"), ["R"]);
        assert_eq!(invite.contact, Contact::Copied("\"A\" <sip:alice@192.0.2.1;ob>;+sip.instance=\"<x>\"".to_string()));
        assert_eq!(header(&invite, "Accept-Contact"), [accepts("session").as_str(), "*;+g.3gpp.icsi-ref=\"urn:urn-7:raw\""]);
        for gone in ["Call-ID", "CSeq", "Via", "Route", "From", "To"] {
            assert!(header(&invite, gone).is_empty(), "{gone} is each leg's own");
        }
    });
    let bare = alice.invite(&session().without("Conversation-ID").without("Contribution-ID"));
    for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID"] {
        assert!(header(&bare, name).is_empty(), "{name} is not invented");
    }
    assert_eq!(alice.bridge(&session().set("Accept-Contact", &accepts("session.group"))).service, Service::GroupSession);
}

#[test]
fn a_recipient_list_is_copied() {
    let alice = Alice::new();
    proves!("OSI-4.d.5", "OSI-4.i.1", "OSI-4.i.2", {
        let letter = session()
            .with_list("recipient-list", LIST)
            .set("Supported", "recipient-list-invite, timer")
            .with("Require", "recipient-list-invite");
        let invite = alice.invite(&letter);
        assert_eq!(invite.parts.len(), 1);
        assert_eq!(invite.parts[0].body, LIST.as_bytes());
        assert_eq!(invite.parts[0].disposition().as_deref(), Some("recipient-list"));
        assert!(invite.parts[0].is("application/resource-lists+xml"));
        assert_eq!(header(&invite, "Supported"), ["timer, recipient-list-invite"]);
        assert_eq!(header(&invite, "Require"), ["recipient-list-invite"]);
    });
    let invite = alice.invite(&session());
    assert!(invite.parts.is_empty() && header(&invite, "Require").is_empty());
    assert_eq!(header(&invite, "Supported"), ["timer"]);
}

#[test]
fn our_release_and_our_session_timer_stand_in_the_invite() {
    proves!("OSI-4.g", "OSI-4.j", "OSI-4.k", {
        for (configured, expected) in [(1800, 1800), (1801, 1800), (600, 600), (1, 90)] {
            let alice = Alice::new()
                .configured(|config| config.policy.session_session_expires = std::time::Duration::from_secs(configured));
            let invite = alice.invite(&session().with("Session-Expires", "900;refresher=uas"));
            let expires = invite.session_expires.expect("it stands in every INVITE");
            assert_eq!((expires.delta_s, expires.refresher), (expected, Refresher::Uac));
            assert_eq!(header(&invite, "User-Agent"), [cpm_pf::cpm::release::product(&alice.config)]);
            assert!(header(&invite, "Session-Expires").is_empty() && header(&invite, "Min-SE").is_empty());
        }
    });
    assert_eq!(Alice::new().status(&session().with("Session-Expires", "89")), 422);
}

#[test]
fn the_offer_is_the_received_one_with_our_addresses() {
    let alice = Alice::new();
    proves!("OSI-4.l", {
        let sdp = written(&alice.invite(&session()).media);
        assert_eq!(count(&sdp, "a=path:msrp://127.0.0.1:2855/01own;tcp"), 1);
        assert_eq!((count(&sdp, "a=setup:actpass"), count(&sdp, "a=sendrecv"), count(&sdp, "a=msrp-cema")), (1, 1, 1));
        assert_eq!(count(&sdp, "a=accept-types:message/cpim application/im-iscomposing+xml"), 1);
        assert!(!sdp.contains("192.0.2.1"), "Alice's address is not told: {sdp}");
    });
    assert_eq!(alice.status(&session().bare()), 488);
    let video = alice.refusal(&session().sdp(&format!("{CHAT_SDP}m=video 4000 RTP/AVP 96\r\n")));
    assert_eq!((video.status, video.warning), (488, Some((304, "Media type not available"))));
}

#[test]
fn a_session_goes_to_the_core_or_to_the_isf() {
    let alice = Alice::new();
    proves!("OSI-4.m.1", {
        let invite = alice.invite(&session().uri("mailto:bob@ex.org"));
        assert_eq!(
            (invite.kind, invite.next_hop, invite.request_uri.as_str()),
            (TargetKind::Isf, NextHop::Isf, "mailto:bob@ex.org")
        );
    });
    proves!("OSI-4.m.2", {
        let invite = alice.invite(&session().uri("tel:+1555"));
        assert_eq!((invite.kind, invite.next_hop), (TargetKind::Recipient, NextHop::Core { fallback: None }));
    });
}

#[test]
fn out_of_the_media_path_we_are_a_proxy() {
    let alice = Alice::new().configured(|config| config.policy.stay_in_media_path = false);
    proves!("OSI-5.a", "OSI-5.b", "OSI-5.c.2", {
        // Whatever step 4 would have asked: service, SDP and required options are the ends' own.
        let letter = session().set("P-Asserted-Service", &icsi("msg")).with("Require", "100rel").sdp("nonsense");
        let proxy = alice.proxy(&letter);
        assert!(proxy.record_route && proxy.request_uris.is_empty() && proxy.remove.is_empty() && proxy.add.is_empty());
        assert_eq!(proxy.next_hop, NextHop::Core { fallback: None });
    });
    proves!("OSI-5.c.1", {
        assert_eq!(alice.proxy(&session().uri("im:bob@ex.org")).next_hop, NextHop::Isf);
    });
}

#[test]
fn the_origin_gets_a_200_of_our_own() {
    let alice = Alice::new();
    proves!("OSI-r0", "OSI-r2", "OSI-r3", "OSI-r6.a", {
        let answer = alice.answer(&session(), &answered());
        assert_eq!(answer.status, 200);
        assert_eq!(values(&answer.headers, "Server"), [cpm_pf::cpm::release::product(&alice.config)]);
    });
    proves!("OSI-r4.a", "OSI-r4.b", {
        let (offer, answer) = two_streams();
        let plan = alice.answer(&session().sdp(&offer), &ok("<sip:b@x>", &answer, &[])).media.expect("SDP");
        let sdp = written(&plan);
        let lines: Vec<&str> = sdp.lines().filter(|line| line.starts_with("m=")).collect();
        assert_eq!(lines, ["m=message 2855 TCP/MSRP *", "m=message 0 TCP/MSRP *"]);
        assert_eq!((sdp.matches("a=path").count(), count(&sdp, "a=path:msrp://127.0.0.1:2855/01own;tcp")), (1, 1));
        assert_eq!((sdp.matches("a=setup").count(), count(&sdp, "a=setup:passive")), (1, 1));
        assert_eq!((count(&sdp, "a=sendrecv"), count(&sdp, "a=accept-types:message/cpim")), (1, 1));
        assert!(!sdp.contains("192.0.2.2"), "{sdp}");
    });
    proves!("OSI-r5.a", {
        assert_eq!(alice.answer(&session(), &ok(FOCUS, CHAT_ANSWER, &[])).contact, Some(Contact::Copied(FOCUS.to_string())));
    });
    proves!("OSI-r5.b", {
        let contact = alice.answer(&session(), &answered()).contact;
        let back = Some("sip:bob@192.0.2.2:5060".to_string());
        assert_eq!(contact, Some(Contact::Own { params: String::new(), stands_for: back }));
    });
    assert_eq!(alice.exhausted(&session(), &[486]).status, 486);
    assert_eq!(
        alice.success(&session(), &ok("<sip:b@x>", &CHAT_ANSWER.replace("9999 T", "0 T"), &[])).expect_err("refused").status,
        488
    );
}

#[test]
fn streams_that_the_isf_rejects_are_tried_once_more() {
    let alice = Alice::new();
    let (offer, answer) = two_streams();
    let letter =
        session().uri("mailto:bob@ex.org").sdp(&offer).with("Subject", "s").set("Supported", "timer, recipient-list-invite");
    let rejecting = ok("<sip:isf@x>", &answer, &[]);
    proves!("OSI-r1", "OSI-r1.0", "OSI-r1.a", "OSI-r1.b", "OSI-r1.b.i", "OSI-r1.b.ii.1", "OSI-r1.b.ii.2", "OSI-r1.b.iii", {
        let follows = alice.follows(&letter, &rejecting);
        let invite = retry(&follows).expect("a session for the rest");
        assert_eq!((invite.kind.clone(), invite.next_hop.clone()), (TargetKind::IsfRetry, NextHop::Isf));
        assert_eq!(invite.request_uri, "mailto:bob@ex.org");
        assert!(header(invite, "User-Agent").is_empty(), "4.g is excepted");
        assert_eq!(header(invite, "P-Asserted-Service"), [icsi("session")]);
        assert_eq!(header(invite, "Conversation-ID"), ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]);
        assert_eq!(header(invite, "Supported"), ["timer, recipient-list-invite"]);
        let sdp = written(&invite.media);
        assert_eq!(
            (sdp.matches("m=").count(), count(&sdp, "a=accept-types:image/png"), count(&sdp, "a=setup:actpass")),
            (1, 1, 1)
        );
        // The 200 for the origin is made all the same.
        assert_eq!(alice.answer(&letter, &rejecting).status, 200);
    });
    proves!("OSI-r1.c", {
        let accepting =
            answer.replace("m=message 0 TCP/MSRP *", "m=message 9998 TCP/MSRP *\r\na=path:msrp://192.0.2.2:9998/b;tcp");
        assert!(retry(&alice.follows(&letter, &ok("<sip:isf@x>", &accepting, &[]))).is_none());
        let unwilling = Alice::new().configured(|config| config.policy.retry_rejected_media = false);
        assert!(retry(&unwilling.follows(&letter, &rejecting)).is_none());
    });
    // From anybody but the ISF a rejected stream is rejected.
    assert!(retry(&alice.follows(&letter.uri("sip:bob@example.net"), &rejecting)).is_none());
}

#[test]
fn a_history_is_kept_where_the_originators_rules_say_so() {
    proves!("OSI-r7.a", {
        assert!(Alice::new().recorded("CPM", "true").is_recorded(&session(), &answered()));
    });
    proves!("OSI-r7.b", {
        let all = || Alice::new().configured(|config| config.policy.record_sessions = true);
        assert!(all().is_recorded(&session(), &answered()));
        assert!(all().recorded("CPM", "false").is_recorded(&session(), &answered()));
    });
    assert!(!Alice::new().recorded("CPM", "false").is_recorded(&session(), &answered()));
    assert!(!Alice::new().recorded("other", "true").is_recorded(&session(), &answered()));
    assert!(!Alice::new().is_recorded(&session(), &answered()));
}

#[test]
fn a_group_session_leaves_its_state_with_who_was_invited() {
    let letter = session().with_list("recipient-list", LIST).uri("sip:conf@example.net");
    let objects = |group: bool, contact: &str| {
        let request = letter.request();
        let began = cpm_pf::base::clock::Instant::from_unix_s(crate::bob::NOW_S);
        let conversation = history::conversation(&request, "sip:alice@example.net", true, began, "x");
        history::invitation(&conversation, &request, group, Some(&ok(contact, CHAT_ANSWER, &[])), ["a", "b"])
    };
    let text = |object: &Object| match &object.body {
        Body::Inline(octets) => String::from_utf8_lossy(octets).into_owned(),
        Body::File { .. } => panic!("a small object is inline"),
    };
    proves!("OSI-r7.c", {
        let objects = objects(true, FOCUS);
        assert_eq!(objects[0].header("Content-Type"), Some("Application/X-CPM-Session"));
        assert_eq!(objects[1].header("Content-Type"), Some("Application/group-state-object+xml"));
        assert!(text(&objects[1]).contains("lastfocussessionid=\"sip:conf-7@focus.example.net\""), "{}", text(&objects[1]));
        assert!(text(&objects[1]).contains("comm-addr=\"tel:+1\""));
    });
    assert_eq!(objects(false, "<sip:bob@x>").len(), 1, "a 1-1 session has no group state");
}

#[test]
fn the_originators_other_clients_may_get_the_session_too() {
    let wanted = |change: fn(&mut Alice)| {
        let mut alice = Alice::new().configured(|config| config.policy.deliver_to_own_clients = true);
        change(&mut alice);
        alice
    };
    let letter = session().with("Subject", "s").set("Contact", &format!("<sip:alice@192.0.2.1>;+sip.instance=\"{PHONE}\""));
    proves!("OSI-r8", "OSI-r8.a", "OSI-r8.b", "OSI-r8.b.i", "OSI-r8.b.ii", "OSI-r8.c", {
        let alice = wanted(|alice| {
            let third = device("<urn:uuid:third>", &["session"]);
            alice.clients.push(cpm_pf::cpm::facts::Client { gruu: Some(PHONE_GRUU.replace("bob", "alice")), ..third });
            alice.clients.push(device("<urn:uuid:pager-only>", &["msg"]));
        });
        let follows = alice.follows(&letter, &answered());
        let copies = copies(&follows);
        let uris: Vec<&str> = copies.iter().map(|copy| copy.request_uri.as_str()).collect();
        assert_eq!(uris, ["sip:alice@example.net", PHONE_GRUU.replace("bob", "alice").as_str()], "not the phone, which sent it");
        let instance = format!("*;+sip.instance=\"{TABLET}\";require;explicit");
        assert_eq!(header(&copies[0], "Accept-Contact"), [accepts("session"), instance]);
        assert_eq!(header(&copies[1], "Accept-Contact"), [accepts("session")]);
        for copy in copies {
            assert!(matches!(copy.kind, TargetKind::OwnClient { .. }) && matches!(copy.next_hop, NextHop::Core { .. }));
            assert_eq!((header(copy, "Subject"), copy.to.as_str()), (vec!["s"], "<sip:bob@example.net>"));
            assert_eq!(header(copy, "Contribution-ID"), ["abcdef-1234-5678-90ab-cdef01234567"]);
            assert!(is_own(&copy.contact));
            let expires = copy.session_expires.expect("it stands in every INVITE");
            assert_eq!((expires.delta_s, expires.refresher), (1799, Refresher::Uas));
            assert_eq!(count(&written(&copy.media), "a=setup:actpass"), 1);
        }
        let needs = Procedure::OriginatingSession.needs(&alice.config, true, &letter.request());
        assert_eq!(needs.clients_of.as_deref(), Some("sip:alice@example.net"));
    });
    // Bob's device is asked for; that says nothing about Alice's.
    let alice = wanted(|_| ());
    assert_eq!(copies(&alice.follows(&letter.clone().uri(PHONE_GRUU), &answered())).len(), 1);
    // A device that does not tell its instance is known by its address.
    let plain = session().set("Contact", "<sip:alice@192.0.2.7:5099>");
    let alice = wanted(|alice| alice.clients[0].contact = "sip:192.0.2.7:5099".to_string());
    let follows = alice.follows(&plain, &answered());
    assert_eq!(copies(&follows).len(), 1);
    assert!(header(&copies(&follows)[0], "Accept-Contact")[1].contains(TABLET));
    proves!("OSI-r8.a.i", {
        let old = wanted(|alice| {
            alice.config.policy.user_agents = vec!["CPM-client/OMA2.2".to_string()];
            alice.clients[1].user_agent = Some("CPM-client/OMA1.0".to_string());
        });
        assert!(copies(&old.follows(&letter, &answered())).is_empty());
        let silent = wanted(|alice| {
            alice.config.policy.user_agents = vec!["CPM-client/OMA2.2".to_string()];
            alice.clients[1].user_agent = None;
        });
        assert!(copies(&silent.follows(&letter, &answered())).is_empty());
        let alone = wanted(|alice| alice.clients.truncate(1));
        assert!(copies(&alone.follows(&letter, &answered())).is_empty());
    });
    assert!(copies(&Alice::new().follows(&letter, &answered())).is_empty(), "only where the operator wants it");
}
