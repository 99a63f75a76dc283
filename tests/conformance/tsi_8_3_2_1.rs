//! CR 8.3.2.1 (TSI): terminating side, 1-1 and group sessions.

use crate::bob::*;
use cpm_pf::config::{Anonymity, Delivery, Interop, OtherService, SessionAnswer, SessionClients};
use cpm_pf::cpm::decision::Service;
use cpm_pf::cpm::decision::{Answer, AnswerTime, Bridge, Contact, Decision, LaterSuccess, NextHop, TargetKind};
use cpm_pf::cpm::facts::Role;
use cpm_pf::cpm::procedures::Procedure;
use cpm_pf::cpm::refusal::Refusal;
use cpm_pf::proves;
use cpm_pf::sip::header::session_expires::Refresher;
use cpm_pf::xdm::uri_list::UriList;
use std::rc::Rc;

const FOCUS: &str = "<sip:focus-7@conf.example.net>;isfocus";

fn refused(refusal: &Refusal, status: u16, clause: &str, text: Option<&'static str>) {
    assert_eq!((refusal.status, refusal.clause), (status, clause));
    assert_eq!(refusal.warning.map(|(_, text)| text), text);
}

fn early(bridge: &Bridge) -> &Answer {
    match &bridge.answer {
        AnswerTime::Early(answer) => answer,
        AnswerTime::OnFirst => panic!("an early answer was expected"),
    }
}

#[test]
fn a_session_tag_starts_the_section() {
    for (short, service) in [("session", Service::Session), ("session.group", Service::GroupSession)] {
        let letter = Letter::session().set("Accept-Contact", &accepts(short)).set("P-Asserted-Service", &icsi(short));
        let procedure = proves!("TSI-0", { Procedure::of(Role::Terminating, &letter.request()) });
        assert_eq!(procedure, Procedure::TerminatingSession);
        assert_eq!(Bob::new().bridge(&letter).service, service);
    }
    let large = Letter::session().with("Accept-Contact", &accepts("largemsg"));
    assert_eq!(Procedure::of(Role::Terminating, &large.request()), Procedure::TerminatingLargeMessage);
}

#[test]
fn the_gates_refuse_in_their_order() {
    let strict = Bob { blacklist: Some(Rc::new(UriList { entries: vec!["tel:+15551230001".to_string()] })), ..Bob::new() }
        .configured(|config| {
            config.policy.user_agents = vec!["CPM-*/OMA2.2".to_string()];
            config.policy.anonymity = Anonymity::Reject;
        })
        .with_rules(&[rule("CPM", None, &["allow-do-not-disturb"])]);
    let letter = Letter::session().without("User-Agent").with("Privacy", "user").bare();
    let refusal = proves!("TSI-1.a", "TSI-1.b", { strict.refusal(&letter) });
    refused(&refusal, 403, "TSI-1.b", Some("132 Version not supported"));
    let letter = letter.set("User-Agent", "CPM-client/OMA2.2");
    let refusal = proves!("TSI-1.c", "TSI-2.a", { strict.refusal(&letter) });
    refused(&refusal, 403, "TSI-2.a", Some("119 Anonymity not allowed"));
    let letter = letter.without("Privacy");
    let refusal = proves!("TSI-2.b", "TSI-3.a", "TSI-3.b", { strict.refusal(&letter) });
    refused(&refusal, 403, "TSI-3.b", Some("122 Function not allowed"));
    let unlisted = Bob { blacklist: None, ..strict };
    let refusal = proves!("TSI-3.c", "TSI-4.a", "TSI-4.b", { unlisted.refusal(&letter) });
    refused(&refusal, 480, "TSI-4.b", None);
    let ruleless = Bob { rules: None, ..unlisted };
    let refusal = proves!("TSI-5.a", "TSI-5.b", { ruleless.refusal(&letter) });
    assert_eq!((refusal.status, refusal.clause), (488, "TSI-5.b"));
}

#[test]
fn only_the_chat_list_is_consulted() {
    let bob = Bob::new().configured(|config| config.xdm.blacklist_chat = "no_chat".to_string());
    let request = Letter::session().with("Session-Replaces", "old-1").request();
    let needs = Procedure::TerminatingSession.needs(&bob.config, true, &request);
    assert_eq!(needs.blacklist, Some((BOB.to_string(), "no_chat".to_string())));
    assert_eq!(needs.replaces.as_deref(), Some("old-1"));
    assert_eq!((needs.preferences.as_deref(), needs.clients_of.as_deref()), (Some(BOB), Some(BOB)));
}

#[test]
fn do_not_disturb_needs_a_true_cpm_rule() {
    for list in [rule("POC", None, &["allow-do-not-disturb"]), rule("CPM", None, &["allow-defer"])] {
        proves!("TSI-4.a", { Bob::new().with_rules(&[list]).bridge(&Letter::session()) });
    }
    // No media-list is asked for here; one that names the medium of the request is met.
    let refusal = Bob::new().with_rules(&[rule("CPM", None, &["allow-do-not-disturb"])]).refusal(&Letter::session());
    assert_eq!(refusal.status, 480);
}

#[test]
fn media_outside_the_policy_are_not_acceptable() {
    let video = format!("{CHAT_SDP}m=video 4000 RTP/AVP 96\r\n");
    let refusal = proves!("TSI-5.b", { Bob::new().refusal(&Letter::session().sdp(&video)) });
    refused(&refusal, 488, "TSI-5.b", refusal.warning.map(|(_, text)| text));
    let rejected = format!("{CHAT_SDP}m=video 0 RTP/AVP 96\r\n");
    proves!("TSI-5.c", { Bob::new().bridge(&Letter::session().sdp(&rejected)) });
    let formats = Bob::new().configured(|config| config.policy.media_formats = vec!["text/html".to_string()]);
    assert_eq!(formats.refusal(&Letter::session()).status, 488);
}

#[test]
fn without_a_suitable_client_8_3_6_decides() {
    let refusal = proves!("TSI-6.a", "TSI-6.b", { Bob::away().refusal(&Letter::session()) });
    refused(&refusal, 480, "TSI-6.b", None);
    let interwork = Bob::away().configured(|config| config.policy.delivery = Delivery::Interwork);
    let bridge = proves!("TSI-6.b", { interwork.bridge(&Letter::session()) });
    assert_eq!((bridge.targets.len(), &bridge.targets[0].kind, bridge.policies_done), (1, &TargetKind::Isf, true));
    assert!(matches!(bridge.answer, AnswerTime::OnFirst), "nobody has accepted yet");
    let pager = Bob { clients: vec![client(PHONE, None, &["msg"])], ..Bob::new() };
    assert_eq!(pager.refusal(&Letter::session()).status, 480);
    proves!("TSI-6.c", { Bob::new().bridge(&Letter::session()) });
}

#[test]
fn the_service_is_asserted() {
    let bob = Bob::new();
    let preferred = |short: &str| Letter::session().without("P-Asserted-Service").with("P-Preferred-Service", &icsi(short));
    let asserted = |letter: &Letter| {
        let bridge = bob.bridge(letter);
        assert_eq!(header(&bridge.targets[0], "P-Preferred-Service"), Vec::<&str>::new());
        header(&bridge.targets[0], "P-Asserted-Service").join("|")
    };
    assert_eq!(proves!("TSI-7.i", { asserted(&preferred("session")) }), icsi("session"));
    assert_eq!(proves!("TSI-7.ii", { asserted(&preferred("session.group")) }), icsi("session.group"));
    assert_eq!(proves!("TSI-7.iii.1", { asserted(&Letter::session()) }), icsi("session"));

    for letter in [Letter::session().set("P-Asserted-Service", &icsi("msg")), preferred("msg")] {
        let refusal = proves!("TSI-7.iii.2", "TSI-7.iii.3", { bob.refusal(&letter) });
        refused(&refusal, 403, "TSI-7.iii.2", Some("122 Function not allowed"));
    }
    let lax = Bob::new().configured(|config| config.policy.other_service = OtherService::Pass);
    let bridge = lax.bridge(&Letter::session().set("P-Asserted-Service", &icsi("msg")));
    assert_eq!(header(&bridge.targets[0], "P-Asserted-Service"), [icsi("msg")]);
}

#[test]
fn the_origin_is_answered_early() {
    let letter = Letter::session().with("InReplyTo-Contribution-ID", "reply-1");
    let bridge = proves!(
        "TSI-8",
        "TSI-8.a",
        "TSI-8.a.i.1",
        "TSI-8.a.i.2",
        "TSI-8.a.i.3",
        "TSI-8.a.ii.1",
        "TSI-8.a.ii.2",
        "TSI-8.a.ii.3.a",
        "TSI-8.a.x",
        "TSI-8.b",
        "TSI-8.b.ii.1",
        "TSI-8.b.ii.4",
        "TSI-8.c",
        { Bob::new().bridge(&letter) }
    );
    let answer = early(&bridge);
    assert_eq!(answer.status, 200);
    assert_eq!(values(&answer.headers, "Conversation-ID"), ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]);
    assert_eq!(values(&answer.headers, "Contribution-ID"), ["abcdef-1234-5678-90ab-cdef01234567"]);
    assert_eq!(values(&answer.headers, "InReplyTo-Contribution-ID"), ["reply-1"]);
    assert!(values(&answer.headers, "Server")[0].starts_with("CPM-serv/OMA2.2"));
    match &answer.contact {
        Some(Contact::Own { stands_for, .. }) => assert_eq!(stands_for.as_deref(), Some("sip:alice@192.0.2.1:5060")),
        other => panic!("our own Contact: {other:?}"),
    }
    let sdp = written(answer.media.as_ref().expect("SDP"));
    for line in ["m=message 2855 TCP/MSRP *", "a=path:msrp://127.0.0.1:2855/01own;tcp", "a=setup:passive", "a=msrp-cema"] {
        assert_eq!(count(&sdp, line), 1, "{line} in\n{sdp}");
    }
    assert!(!sdp.contains("192.0.2.1"), "{sdp}");
    // A focus's Contact in the INVITE is not what our own 200 may carry.
    assert!(early(&Bob::new().bridge(&Letter::session().set("Contact", FOCUS))).contact.as_ref().is_some_and(is_own));
}

#[test]
fn an_interval_that_is_too_short_is_refused_before_the_early_answer() {
    let refusal = Bob::new().refusal(&Letter::session().with("Session-Expires", "30"));
    assert_eq!((refusal.status, refusal.headers), (422, vec![("Min-SE", "90".to_string())]));
}

#[test]
fn media_that_are_not_ours_are_offered_only_as_the_early_answer_took_them() {
    let mut bob = Bob::new().configured(|config| config.policy.media = vec!["message".to_string(), "audio".to_string()]);
    bob.clients[0].features.push(("audio".to_string(), Vec::new()));
    let letter = Letter::session().sdp(&format!("{CHAT_SDP}m=audio 4000 RTP/AVP 0\r\n"));
    let bridge = bob.bridge(&letter);
    for sdp in [written(early(&bridge).media.as_ref().expect("SDP")), written(&bridge.targets[0].media)] {
        assert_eq!(count(&sdp, "m=audio 0 RTP/AVP 0"), 1, "{sdp}");
    }
    let late = bob.configured(|config| config.policy.session_answer = SessionAnswer::Late);
    assert_eq!(count(&written(&late.bridge(&letter).targets[0].media), "m=audio 4000 RTP/AVP 0"), 1);
}

#[test]
fn a_file_transfer_is_set_up_as_a_session() {
    let letter = Letter::session().set("Accept-Contact", &accepts("filetransfer")).without("P-Asserted-Service");
    let bob = Bob { clients: vec![client(PHONE, None, &["filetransfer"]), client(TABLET, None, &["session"])], ..Bob::new() };
    let bridge = bob.bridge(&letter);
    assert_eq!(to_clients(&bridge).len(), 1);
    assert_eq!(header(&bridge.targets[0], "P-Asserted-Service"), [icsi("filetransfer")]);
}

#[test]
fn by_choice_the_origin_is_answered_late() {
    let bob = Bob::new().configured(|config| config.policy.session_answer = SessionAnswer::Late);
    let letter = Letter::session();
    let bridge = bob.bridge(&letter);
    assert!(matches!(bridge.answer, AnswerTime::OnFirst));
    let answer = bob.answer(&letter, &bridge, &ok("<sip:bob@192.0.2.2>", CHAT_ANSWER, &[]));
    assert_eq!(values(&answer.headers, "Contribution-ID"), ["abcdef-1234-5678-90ab-cdef01234567"]);
    let sdp = written(answer.media.as_ref().expect("SDP"));
    assert_eq!((count(&sdp, "a=setup:passive"), sdp.contains("192.0.2.2")), (1, false), "{sdp}");
    assert!(answer.contact.as_ref().is_some_and(is_own));
    let focus = bob.answer(&letter, &bridge, &ok(FOCUS, CHAT_ANSWER, &[]));
    assert_eq!(focus.contact, Some(Contact::Copied(FOCUS.to_string())));
}

#[test]
fn a_session_that_is_replaced_is_replaced_on_its_own_clients() {
    let bob = Bob { replaced: vec![1], ..Bob::new() };
    let letter = Letter::session().with("Session-Replaces", "old-1");
    let bridge = proves!("TSI-8.b", "TSI-8.b.i.1", "TSI-8.b.i.2", { bob.bridge(&letter) });
    assert_eq!(bridge.targets.len(), 1);
    assert_eq!(header(&bridge.targets[0], "Session-Replaces"), ["old-1"]);
    assert!(matches!(&bridge.targets[0].kind, TargetKind::Client { instance, .. } if instance.as_deref() == Some(TABLET)));
    assert!(matches!(bridge.answer, AnswerTime::OnFirst), "their 200 is relayed");
}

#[test]
fn media_that_no_client_takes_lead_to_8_3_6() {
    let bob = Bob::new().configured(|config| config.policy.media = vec!["message".to_string(), "video".to_string()]);
    let letter = Letter::session().sdp(&format!("{CHAT_SDP}m=video 4000 RTP/AVP 96\r\n"));
    let refusal = proves!("TSI-8.b.ii.2", "TSI-8.b.ii.3", { bob.refusal(&letter) });
    refused(&refusal, 480, "TSI-8.b.ii.3", None);
    let interwork = bob.configured(|config| config.policy.delivery = Delivery::Interwork);
    let bridge = proves!("TSI-8.b.ii.2", { interwork.bridge(&letter) });
    assert_eq!(to_isf(&bridge).len(), 1);
    let mut seeing = interwork;
    seeing.clients[0].features.push(("video".to_string(), Vec::new()));
    let bridge = proves!("TSI-8.b.ii.4", { seeing.bridge(&letter) });
    assert_eq!(to_clients(&bridge).len(), 1);
}

#[test]
fn each_suitable_client_gets_an_invite() {
    let bridge = proves!("TSI-8.d", "TSI-8.d.i.1", "TSI-8.d.i.2", "TSI-8.d.ii", "TSI-8.d.iii", "TSI-8.e", {
        Bob::new().bridge(&Letter::session())
    });
    assert_eq!((bridge.targets.len(), bridge.later), (2, LaterSuccess::Join));
    let (phone, tablet) = (&bridge.targets[0], &bridge.targets[1]);
    assert_eq!((phone.request_uri.as_str(), tablet.request_uri.as_str()), (PHONE_GRUU, BOB));
    assert_eq!(header(phone, "Accept-Contact"), [accepts("session")]);
    let instance = format!("*;+sip.instance=\"{TABLET}\";require;explicit");
    assert_eq!(header(tablet, "Accept-Contact"), [accepts("session"), instance]);
    assert!(bridge.targets.iter().all(|target| matches!(target.next_hop, NextHop::Core { .. })));
    let first = Bob::new().configured(|config| config.policy.session_clients = SessionClients::First);
    assert_eq!(first.bridge(&Letter::session()).later, LaterSuccess::Bye);
}

#[test]
fn the_client_invite_carries_what_8d_lists() {
    let letter = Letter::session()
        .with("InReplyTo-Contribution-ID", "reply-1")
        .with("Subject", "lunch")
        .with("Referred-By", "<sip:carol@example.net>")
        .with("Privacy", "none")
        .with("Record-Route", "<sip:scscf.example.net;lr>")
        .with("X-Vendor", "kept")
        .with("Require", "recipient-list-invite")
        .with("Session-Expires", "600;refresher=uac");
    let bridge = proves!(
        "TSI-8.d.iv.1",
        "TSI-8.d.iv.2",
        "TSI-8.d.iv.3",
        "TSI-8.d.v.2",
        "TSI-8.d.vi.0",
        "TSI-8.d.vi.1",
        "TSI-8.d.vi.2",
        "TSI-8.d.vi.3",
        "TSI-8.d.vi.4",
        "TSI-8.d.vi.5",
        { Bob::new().bridge(&letter) }
    );
    for target in &bridge.targets {
        assert_eq!(header(target, "Conversation-ID"), ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]);
        assert_eq!(header(target, "Contribution-ID"), ["abcdef-1234-5678-90ab-cdef01234567"]);
        assert_eq!(header(target, "InReplyTo-Contribution-ID"), ["reply-1"]);
        assert_eq!(header(target, "Subject"), ["lunch"]);
        assert_eq!(header(target, "Referred-By"), ["<sip:carol@example.net>"]);
        assert_eq!(header(target, "Privacy"), ["none"]);
        assert_eq!(header(target, "X-Vendor"), ["kept"]);
        assert!(header(target, "P-Asserted-Identity")[0].contains("sip:alice@example.net"));
        for hop in [
            "Require",
            "Via",
            "Route",
            "Record-Route",
            "Max-Forwards",
            "Contact",
            "Call-ID",
            "CSeq",
            "From",
            "To",
            "Content-Length",
        ] {
            assert_eq!(header(target, hop), Vec::<&str>::new(), "{hop}");
        }
        assert_eq!(header(target, "Supported"), ["timer, recipient-list-invite"]);
        assert_eq!(header(target, "Min-SE"), Vec::<&str>::new());
        assert_eq!(header(target, "User-Agent").len(), 1);
        assert!(header(target, "User-Agent")[0].starts_with("CPM-serv/OMA2.2"));
        let expires = target.session_expires.expect("a Session-Expires");
        assert_eq!(expires.refresher, Refresher::Uas);
        assert!((90..1800).contains(&expires.delta_s));
        assert!(is_own(&target.contact));
    }
    let bridge = proves!("TSI-8.d.v.1", { Bob::new().bridge(&Letter::session().set("Contact", FOCUS)) });
    assert!(bridge.targets.iter().all(|target| target.contact == Contact::Copied(FOCUS.to_string())));
}

#[test]
fn a_recipient_list_becomes_its_history() {
    let list = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
        <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\" xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\"><list>\
        <entry uri=\"sip:bob@example.net\" cp:copyControl=\"to\"/><entry uri=\"sip:carol@example.net\"/>\
        <entry uri=\"sip:dave@example.net\" cp:copyControl=\"bcc\"/>\
        <entry uri=\"sip:erin@example.net\" cp:copyControl=\"cc\" cp:anonymize=\"true\"/></list></resource-lists>";
    let letter = Letter::session().with_list("recipient-list", list);
    let bridge = proves!("TSI-8.d.vii.1", "TSI-8.d.vii.2", "TSI-8.d.vii.3", { Bob::new().bridge(&letter) });
    for target in &bridge.targets {
        assert_eq!(target.parts.len(), 1);
        let disposition = values(&target.parts[0].headers, "Content-Disposition")[0].to_string();
        assert_eq!(disposition, "recipient-list-history; handling=optional");
        let text = String::from_utf8(target.parts[0].body.clone()).expect("XML");
        for kept in ["sip:bob@example.net", "sip:carol@example.net", "sip:anonymous@anonymous.invalid"] {
            assert!(text.contains(kept), "{kept} in {text}");
        }
        for gone in ["dave", "erin"] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
    }
}

#[test]
fn the_client_offer_is_ours() {
    let bridge = proves!("TSI-8.d.viii.1", "TSI-8.d.viii.2", "TSI-8.d.viii.3", { Bob::new().bridge(&Letter::session()) });
    for target in &bridge.targets {
        let sdp = written(&target.media);
        for line in [
            "m=message 2855 TCP/MSRP *",
            "a=path:msrp://127.0.0.1:2855/01own;tcp",
            "a=sendrecv",
            "a=setup:actpass",
            "a=msrp-cema",
            "a=accept-types:message/cpim application/im-iscomposing+xml",
        ] {
            assert_eq!(count(&sdp, line), 1, "{line} in\n{sdp}");
        }
        assert!(!sdp.contains("192.0.2.1"), "{sdp}");
    }
    let legacy = Bob::new().configured(|config| config.msrp.interop = Interop::Always);
    assert!(!written(&legacy.bridge(&Letter::session()).targets[0].media).contains("msrp-cema"));
}

#[test]
fn out_of_the_media_path_we_are_a_proxy() {
    let bob = Bob::new().configured(|config| config.policy.stay_in_media_path = false);
    let letter = Letter::session().without("P-Asserted-Service").with("P-Preferred-Service", &icsi("session"));
    let Ok(Decision::Proxy(proxy)) = bob.gets(&letter) else { panic!("a proxy was expected") };
    assert!(proxy.record_route);
    assert!(matches!(proxy.next_hop, NextHop::Core { .. }));
    assert!(proxy.remove.contains(&"P-Preferred-Service"));
    assert!(proxy.add.contains(&cpm_pf::cpm::headers::field("P-Asserted-Service", icsi("session"))));
    let away = Bob { clients: Vec::new(), ..bob };
    assert_eq!(away.refusal(&letter).status, 480);
}

#[test]
fn after_an_early_answer_the_policies_are_tried_before_the_bye() {
    let letter = Letter::session();
    let bob = Bob::new();
    let bridge = bob.bridge(&letter);
    let refusal = proves!("TSI-9", { bob.exhausted(&letter, &bridge, &[(0, 486), (1, 408)]) }).expect_err("nothing is left");
    assert_eq!((refusal.status, refusal.clause), (480, "TSI-9"));
    let interwork = Bob::new().configured(|config| config.policy.delivery = Delivery::Interwork);
    match proves!("TSI-9", { interwork.exhausted(&letter, &bridge, &[(0, 480), (1, 408)]) }) {
        Ok(Decision::Bridge(bridge)) => assert_eq!((to_isf(&bridge).len(), bridge.policies_done), (1, true)),
        other => panic!("the ISF is tried: {other:?}"),
    }
    let late = Bob::new().configured(|config| config.policy.session_answer = SessionAnswer::Late);
    let bridge = late.bridge(&letter);
    assert_eq!(late.exhausted(&letter, &bridge, &[(0, 486), (1, 408)]).expect_err("relayed").status, 486);
    assert_eq!(late.exhausted(&letter, &bridge, &[(0, 603), (1, 603)]).expect_err("relayed").status, 603);
}
