//! CR 8.3.1.2 (TLM): terminating side, Large Message Mode.

use crate::bob::*;
use cpm_pf::config::{Anonymity, Delivery, Interop, IsfService, OtherService};
use cpm_pf::cpm::decision::{AnswerTime, Contact, Decision, FollowUp, LaterSuccess, NextHop, Purpose, Service, TargetKind};
use cpm_pf::cpm::facts::Role;
use cpm_pf::cpm::procedures::Procedure;
use cpm_pf::cpm::refusal::Refusal;
use cpm_pf::proves;
use cpm_pf::sip::header::session_expires::Refresher;
use cpm_pf::xdm::uri_list::UriList;
use std::rc::Rc;

const FOCUS: &str = "<sip:focus-7@conf.example.net>;isfocus;audio";

fn warned(refusal: &Refusal, clause: &str, text: &str) {
    assert_eq!((refusal.status, refusal.clause), (403, clause));
    assert_eq!(refusal.warning, Some((399, text)).filter(|(_, text)| !text.is_empty()).map(|(code, text)| (code, leaked(text))));
}

fn leaked(text: &str) -> &'static str {
    ["122 Function not allowed", "132 Version not supported", "119 Anonymity not allowed"]
        .into_iter()
        .find(|known| *known == text)
        .expect("a text of the standard")
}

fn blacklist(entries: &[&str]) -> Option<Rc<UriList>> {
    let mut entries: Vec<String> = entries.iter().map(|entry| cpm_pf::cpm::identity::normalise(entry)).collect();
    entries.sort();
    Some(Rc::new(UriList { entries }))
}

#[test]
fn a_large_message_tag_starts_the_section_in_every_coding() {
    for value in [
        accepts("largemsg"),
        accepts("largemsg.group"),
        format!("*;+g.3gpp.icsi-ref=\"{}\"", icsi("largemsg")),
        accepts("largemsg").replace("%3A", "%3a"),
    ] {
        let request = Letter::large().set("Accept-Contact", &value).request();
        let procedure = proves!("TLM-0", { Procedure::of(Role::Terminating, &request) });
        assert_eq!(procedure, Procedure::TerminatingLargeMessage, "{value}");
    }
    for letter in [Letter::session(), Letter::large().without("Accept-Contact")] {
        assert_ne!(Procedure::of(Role::Terminating, &letter.request()), Procedure::TerminatingLargeMessage);
    }
}

#[test]
fn an_unsupported_version_is_refused_with_132() {
    let bob = Bob::new().configured(|config| config.policy.user_agents = vec!["CPM-*/OMA2.2".to_string()]);
    proves!("TLM-1.a", "TLM-1.c", {
        bob.bridge(&Letter::large());
        bob.bridge(&Letter::large().set("User-Agent", "CPM-serv/OMA2.2 RCS-serv/UP_2.3"));
    });
    for letter in [Letter::large().set("User-Agent", "CPM-client/OMA1.0"), Letter::large().without("User-Agent")] {
        let refusal = proves!("TLM-1.b", { bob.refusal(&letter) });
        warned(&refusal, "TLM-1.b", "132 Version not supported");
    }
    Bob::new().bridge(&Letter::large().without("User-Agent"));
}

#[test]
fn anonymity_is_refused_with_119_where_it_is_not_allowed() {
    let strict = Bob::new().configured(|config| config.policy.anonymity = Anonymity::Reject);
    for letter in [
        Letter::large().with("Privacy", "id"),
        Letter::large().with("Privacy", "critical;Header"),
        Letter::large().set("From", "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1"),
    ] {
        let refusal = proves!("TLM-2.a", { strict.refusal(&letter) });
        warned(&refusal, "TLM-2.a", "119 Anonymity not allowed");
        let bridge = proves!("TLM-2.b", { Bob::new().bridge(&letter) });
        assert_eq!(
            header(&bridge.targets[0], "Privacy").len(),
            usize::from(letter.request().has(cpm_pf::sip::header::name::Name::Privacy))
        );
    }
    proves!("TLM-2.b", { strict.bridge(&Letter::large().with("Privacy", "none")) });
}

#[test]
fn the_first_failing_step_gives_the_answer() {
    let strict = Bob::new().configured(|config| {
        config.policy.anonymity = Anonymity::Reject;
        config.policy.user_agents = vec!["CPM-*/OMA2.2".to_string()];
    });
    let both = Letter::large().without("User-Agent").with("Privacy", "id").with("Session-Expires", "10");
    assert_eq!(strict.refusal(&both).clause, "TLM-1.b");
    assert_eq!(strict.refusal(&both.set("User-Agent", "CPM-client/OMA2.2")).clause, "TLM-2.a");
}

#[test]
fn a_short_session_interval_gets_422() {
    let bob = Bob::new();
    let refusal = proves!("TLM-3.a", { bob.refusal(&Letter::large().with("Session-Expires", "60")) });
    assert_eq!(refusal.status, 422);
    assert!(refusal.headers.contains(&("Min-SE", "90".to_string())));
    proves!("TLM-3.a", { bob.bridge(&Letter::large().with("Session-Expires", "90;refresher=uac")) });
    bob.bridge(&Letter::large().with("Session-Expires", "60").set("Supported", "100rel"));
    proves!("TLM-3.b", { bob.bridge(&Letter::large()) });
}

#[test]
fn a_listed_originator_is_refused_with_122() {
    for entries in [["sip:alice@EXAMPLE.net", "sip:x@y"], ["tel:+1-555-123-0001", "sip:x@y"]] {
        let bob = Bob { blacklist: blacklist(&entries), ..Bob::new() };
        let refusal = proves!("TLM-5.a", "TLM-5.b", { bob.refusal(&Letter::large()) });
        warned(&refusal, "TLM-5.b", "122 Function not allowed");
    }
    let bob = Bob { blacklist: blacklist(&["sip:mallory@example.net"]), ..Bob::new() };
    proves!("TLM-5.c", { bob.bridge(&Letter::large()) });
}

#[test]
fn the_list_of_standalone_messages_is_asked_for_with_its_references() {
    let bob = Bob::new().configured(|config| config.xdm.blacklist_standalone = "no_large".to_string());
    let request = Letter::large().request();
    let needs = proves!("TLM-5.d", { Procedure::TerminatingLargeMessage.needs(&bob.config, true, &request) });
    assert_eq!(needs.blacklist, Some((BOB.to_string(), "no_large".to_string())));
    assert_eq!(needs.preferences.as_deref(), Some(BOB));
    assert_eq!(needs.clients_of.as_deref(), Some(BOB));
    let off = bob.configured(|config| config.policy.blacklist = false);
    assert_eq!(Procedure::TerminatingLargeMessage.needs(&off.config, true, &request).blacklist, None);
}

#[test]
fn only_a_cpm_rule_about_standalone_messages_counts() {
    let reject = ["allow-reject-invite"];
    let refusal = proves!("TLM-6.0", {
        Bob::new().with_rules(&[rule("CPM", Some("standalone-message"), &reject)]).refusal(&Letter::large())
    });
    assert_eq!(refusal.status, 403);
    proves!("TLM-6.0.1", "TLM-7.0", {
        Bob::new().with_rules(&[rule("POC", Some("standalone-message"), &reject)]).bridge(&Letter::large())
    });
    proves!("TLM-6.0.2", "TLM-7.0", { Bob::new().with_rules(&[rule("CPM", Some("video"), &reject)]).bridge(&Letter::large()) });
    proves!("TLM-7.0", { Bob::new().bridge(&Letter::large()) });
}

#[test]
fn a_rule_without_a_true_action_is_no_rule() {
    let bridge = proves!("TLM-6.0.3", "TLM-6.a.2", "TLM-6.b.3", "TLM-6.d.iii", "TLM-6.e.3", "TLM-6.f.iii", {
        Bob::new().with_actions(&["allow-offline-storage"]).bridge(&Letter::large())
    });
    assert_eq!(to_clients(&bridge).len(), 2);
}

#[test]
fn an_action_true_in_any_matching_rule_is_true_and_the_first_wins() {
    let standalone = |actions: &[&str]| rule("CPM", Some("standalone-message"), actions);
    let bob = Bob::new().with_rules(&[standalone(&["allow-defer"]), standalone(&["allow-reject-invite"])]);
    let refusal = proves!("TLM-6.0.4", "TLM-6.a.1", { bob.refusal(&Letter::large()) });
    warned(&refusal, "TLM-6.a.1", "122 Function not allowed");
}

/// What a decision amounts to, for the table of pairs.
fn outcome(bob: &Bob) -> &'static str {
    match bob.gets(&Letter::large()) {
        Err(refusal) if refusal.clause == "TLM-6.a.1" => "reject",
        Ok(Decision::Receive(receive)) if receive.answer.status == 202 => "dnd",
        Ok(Decision::Receive(receive)) if receive.purpose == Purpose::Store => "store",
        Ok(Decision::Receive(_)) => "defer",
        Ok(Decision::Bridge(bridge)) => match (to_isf(&bridge).len(), to_clients(&bridge).len()) {
            (1, 0) => "interwork",
            (1, 2) => "both",
            (0, 2) => "clients",
            (0, 0) if bridge.targets[0].kind == TargetKind::Forward => "forward",
            _ => "?",
        },
        _ => "?",
    }
}

#[test]
fn every_action_alone_and_every_pair_by_the_order_of_the_steps() {
    // In the order of 6.a to 6.f; deliver-and-interwork is 6.c too, and goes on with 7.
    const ACTIONS: [(&str, &str); 7] = [
        ("allow-reject-invite", "reject"),
        ("allow-do-not-disturb", "dnd"),
        ("allow-deliver-and-interwork", "both"),
        ("allow-interwork", "interwork"),
        ("allow-store", "store"),
        ("allow-forward uri=\"sip:desk@example.net\"", "forward"),
        ("allow-defer", "defer"),
    ];
    for (at, (first, wanted)) in ACTIONS.iter().enumerate() {
        assert_eq!(outcome(&Bob::new().with_actions(&[first])), *wanted, "{first}");
        for (second, _) in &ACTIONS[at + 1..] {
            assert_eq!(outcome(&Bob::new().with_actions(&[first, second])), *wanted, "{first} before {second}");
            assert_eq!(outcome(&Bob::new().with_actions(&[second, first])), *wanted, "{second} after {first}");
        }
    }
}

#[test]
fn do_not_disturb_defers_and_answers_202_with_sdp() {
    let bob = Bob::new().with_actions(&["allow-do-not-disturb"]);
    let receive = proves!("TLM-6.b.1", "TLM-6.b.2", { bob.receive(&Letter::large()) });
    assert_eq!((receive.purpose, receive.answer.status), (Purpose::Defer, 202));
    let sdp = written(receive.answer.media.as_ref().expect("an INVITE's 2xx carries SDP"));
    assert_eq!((count(&sdp, "a=recvonly"), count(&sdp, "a=setup:passive")), (1, 1), "{sdp}");
    assert!(receive.answer.contact.as_ref().is_some_and(is_own));
}

#[test]
fn store_and_defer_receive_the_message() {
    let store = proves!("TLM-6.d.0", "TLM-6.d.i", { Bob::new().with_actions(&["allow-store"]).receive(&Letter::large()) });
    assert_eq!((store.purpose, store.answer.status), (Purpose::Store, 200));
    let defer = proves!("TLM-6.f.0", "TLM-6.f.i", { Bob::new().with_actions(&["allow-defer"]).receive(&Letter::large()) });
    assert_eq!((defer.purpose, defer.answer.status), (Purpose::Defer, 200));
    assert!(written(defer.answer.media.as_ref().expect("SDP")).contains("a=path:msrp://127.0.0.1:2855/01own;tcp"));
}

#[test]
fn forward_changes_the_recipient_and_goes_through_the_core() {
    let forward = |attribute: &str| Bob::new().with_actions(&[&format!("allow-forward{attribute}")]);
    let bridge = proves!("TLM-6.e.1", "TLM-6.e.2", { forward(" uri=\"sip:desk@example.net\"").bridge(&Letter::large()) });
    assert_eq!(bridge.targets.len(), 1);
    assert_eq!(bridge.targets[0].request_uri, "sip:desk@example.net");
    assert_eq!(bridge.targets[0].next_hop, NextHop::Core { fallback: None });
    // Without an address there is nothing to forward to: the next step.
    let bridge = proves!("TLM-6.e.3", { forward("").bridge(&Letter::large()) });
    assert_eq!(to_clients(&bridge).len(), 2);
}

#[test]
fn the_isf_invite_carries_what_6c_lists() {
    let bob = Bob::new().with_actions(&["allow-interwork"]);
    let letter = Letter::large()
        .with("InReplyTo-Contribution-ID", "reply-1")
        .with("Subject", "lunch")
        .set("Supported", "timer, recipient-list-invite");
    let bridge = proves!(
        "TLM-6.c.0",
        "TLM-6.c.i",
        "TLM-6.c.ii.1",
        "TLM-6.c.ii.2",
        "TLM-6.c.ii.3",
        "TLM-6.c.ii.4",
        "TLM-6.c.ii.5",
        "TLM-6.c.ii.6",
        "TLM-6.c.iii.1",
        "TLM-6.c.iii.2",
        "TLM-6.c.iv",
        "TLM-6.c.v",
        "TLM-6.c.vi",
        "TLM-6.c.viii.2",
        "TLM-6.c.ix",
        "TLM-6.c.xi",
        "TLM-6.c.z1",
        { bob.bridge(&letter) }
    );
    assert_eq!((bridge.targets.len(), bridge.service), (1, Service::LargeMessage));
    let isf = &bridge.targets[0];
    assert_eq!((&isf.kind, &isf.next_hop), (&TargetKind::Isf, &NextHop::Isf));
    assert_eq!(isf.request_uri, BOB);
    assert_eq!(header(isf, "Conversation-ID"), ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]);
    assert_eq!(header(isf, "Contribution-ID"), ["abcdef-1234-5678-90ab-cdef01234567"]);
    assert_eq!(header(isf, "InReplyTo-Contribution-ID"), ["reply-1"]);
    assert_eq!(header(isf, "Subject"), ["lunch"]);
    assert_eq!(header(isf, "Accept-Contact"), [accepts("largemsg")]);
    assert_eq!(header(isf, "Supported"), ["timer, recipient-list-invite"]);
    assert_eq!(header(isf, "Min-SE"), Vec::<&str>::new());
    assert!(header(isf, "User-Agent")[0].starts_with("CPM-serv/OMA2.2"), "{:?}", isf.headers);
    let expires = isf.session_expires.expect("a Session-Expires");
    assert_eq!(expires.refresher, Refresher::Uac);
    assert!((90..1800).contains(&expires.delta_s));
    assert!(is_own(&isf.contact));
    assert!(bridge.answer_is_on_first());
}

#[test]
fn the_isf_invite_invents_nothing() {
    let bob = Bob::new().with_actions(&["allow-interwork"]);
    let letter = Letter::large().without("Conversation-ID").without("Contribution-ID");
    let bridge = bob.bridge(&letter);
    for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID", "Subject", "P-Preferred-Service"] {
        assert_eq!(header(&bridge.targets[0], name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(header(&bridge.targets[0], "Supported"), ["timer"]);
    assert!(bridge.targets[0].parts.is_empty());
}

#[test]
fn a_recipient_list_history_goes_along_to_the_isf() {
    let list = "<?xml version=\"1.0\"?><resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"/>";
    let letter = Letter::large().with_list("recipient-list-history; handling=optional", list);
    let bridge = proves!("TLM-6.c.ii.7", { Bob::new().with_actions(&["allow-interwork"]).bridge(&letter) });
    let parts = &bridge.targets[0].parts;
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].body, list.as_bytes());
    assert!(values(&parts[0].headers, "Content-Disposition")[0].starts_with("recipient-list-history"));
}

#[test]
fn the_isf_offer_is_ours() {
    let bob = Bob::new().with_actions(&["allow-interwork"]);
    let bridge = proves!("TLM-6.c.x.0", "TLM-6.c.x.1", "TLM-6.c.x.2", "TLM-6.c.x.3", "TLM-6.c.x.4", "TLM-6.c.x.5", {
        bob.bridge(&Letter::large())
    });
    offer_is_ours(&written(&bridge.targets[0].media));
    assert_eq!(bob.refusal(&Letter::large().bare()).status, 488);
}

/// What TLM-6.c.x and TLM-7.k ask of an offer.
fn offer_is_ours(sdp: &str) {
    for line in [
        "m=message 2855 TCP/MSRP *",
        "a=path:msrp://127.0.0.1:2855/01own;tcp",
        "a=sendonly",
        "a=file-selector:size:4092",
        "a=setup:actpass",
        "a=msrp-cema",
    ] {
        assert_eq!(count(sdp, line), 1, "{line} in\n{sdp}");
    }
    assert!(!sdp.contains("192.0.2.1"), "{sdp}");
}

#[test]
fn the_isf_service_is_asserted_as_written_or_as_registered() {
    let isf = Bob::new().with_actions(&["allow-interwork"]);
    let preferred = |tag: &str| Letter::large().without("P-Asserted-Service").with("P-Preferred-Service", &icsi(tag));
    let asserted = |bob: &Bob, letter: &Letter| {
        let bridge = bob.bridge(letter);
        assert_eq!(header(&bridge.targets[0], "P-Preferred-Service"), Vec::<&str>::new());
        header(&bridge.targets[0], "P-Asserted-Service").join("|")
    };
    assert_eq!(proves!("TLM-6.c.vii.1", { asserted(&isf, &preferred("largemsg")) }), icsi("msg.largemsg"));
    assert_eq!(proves!("TLM-6.c.vii.2", { asserted(&isf, &preferred("largemsg.group")) }), icsi("msg.largemsg.group"));
    assert_eq!(proves!("TLM-6.c.vii.3", { asserted(&isf, &Letter::large()) }), icsi("largemsg"));
    let group = Letter::large().set("P-Asserted-Service", &icsi("largemsg.group"));
    assert_eq!(proves!("TLM-6.c.vii.4", { asserted(&isf, &group) }), icsi("largemsg.group"));

    let corrected = isf.configured(|config| config.policy.isf_service = IsfService::LargeMessage);
    assert_eq!(asserted(&corrected, &preferred("largemsg")), icsi("largemsg"));
    assert_eq!(asserted(&corrected, &preferred("largemsg.group")), icsi("largemsg.group"));
}

#[test]
fn another_service_is_refused_or_passed_by_the_policy() {
    let isf = Bob::new().with_actions(&["allow-interwork"]);
    let other = Letter::large().set("P-Asserted-Service", &icsi("session"));
    let preferred = Letter::large().without("P-Asserted-Service").with("P-Preferred-Service", &icsi("session"));
    for letter in [&other, &preferred] {
        let refusal = proves!("TLM-6.c.vii.5", { isf.refusal(letter) });
        warned_without_text(&refusal);
    }
    let lax = isf.configured(|config| config.policy.other_service = OtherService::Pass);
    let bridge = lax.bridge(&other);
    assert_eq!(header(&bridge.targets[0], "P-Asserted-Service"), [icsi("session")]);
    assert_eq!(header(&lax.bridge(&preferred).targets[0], "P-Preferred-Service"), Vec::<&str>::new());
}

fn warned_without_text(refusal: &Refusal) {
    assert_eq!((refusal.status, refusal.clause, &refusal.warning), (403, "TLM-6.c.vii.5", &None));
}

#[test]
fn a_focus_contact_passes_untouched_to_isf_and_clients() {
    let focus = Letter::large().set("Contact", FOCUS);
    let bridge = proves!("TLM-6.c.viii.1", { Bob::new().with_actions(&["allow-interwork"]).bridge(&focus) });
    assert_eq!(bridge.targets[0].contact, Contact::Copied(FOCUS.to_string()));
    let bridge = proves!("TLM-7.g.1", "TLM-7.h.1", { Bob::new().bridge(&focus) });
    assert!(bridge.targets.iter().all(|target| target.contact == Contact::Copied(FOCUS.to_string())));
    let inside = Letter::large().set("Contact", "<sip:alice@192.0.2.1;isfocus>");
    let bridge = proves!("TLM-7.h.2", { Bob::new().bridge(&inside) });
    assert!(bridge.targets.iter().all(|target| is_own(&target.contact)));
}

#[test]
fn each_suitable_client_is_invited() {
    let bridge = proves!("TLM-4", "TLM-7.0", "TLM-7.a", "TLM-7.b.1", "TLM-7.i.1", "TLM-7.i.2", "TLM-7.l.1", {
        Bob::new().bridge(&Letter::large())
    });
    assert_eq!((bridge.targets.len(), bridge.later), (2, LaterSuccess::Join));
    let (phone, tablet) = (&bridge.targets[0], &bridge.targets[1]);
    assert_eq!(phone.request_uri, PHONE_GRUU);
    assert_eq!(header(phone, "Accept-Contact"), [accepts("largemsg")]);
    assert_eq!(tablet.request_uri, BOB);
    let instance = format!("*;+sip.instance=\"{TABLET}\";require;explicit");
    assert_eq!(header(tablet, "Accept-Contact"), [accepts("largemsg"), instance]);
    for target in &bridge.targets {
        assert!(
            matches!(&target.next_hop, NextHop::Core { fallback: Some(contact) } if contact.starts_with("sip:bob@192.0.2.2"))
        );
    }

    let mut bob = Bob::new();
    bob.clients = vec![client(PHONE, Some(PHONE_GRUU), &["msg"]), client(TABLET, None, &["largemsg"])];
    let bridge = bob.bridge(&Letter::large());
    assert_eq!(bridge.targets.len(), 1, "a client of Pager Mode alone gets none");
}

#[test]
fn the_client_invite_carries_what_7_lists() {
    let letter =
        Letter::large().with("Subject", "lunch").with("Message-Expires", "600").with("Date", "Thu, 01 Feb 2024 09:59:00 GMT");
    let bridge = proves!("TLM-7.d", "TLM-7.e", "TLM-7.f", "TLM-7.g.2", "TLM-7.j", { Bob::new().bridge(&letter) });
    for target in &bridge.targets {
        let expires = target.session_expires.expect("a Session-Expires");
        assert_eq!(expires.refresher, Refresher::Uas);
        assert!((90..1800).contains(&expires.delta_s));
        assert_eq!(header(target, "Min-SE"), Vec::<&str>::new());
        assert_eq!(header(target, "Accept-Contact")[0], accepts("largemsg"));
        assert_eq!(header(target, "User-Agent").len(), 1);
        assert!(header(target, "User-Agent")[0].starts_with("CPM-serv/OMA2.2"));
        assert_eq!(header(target, "P-Asserted-Service"), [icsi("largemsg")]);
        assert_eq!(header(target, "Subject"), ["lunch"]);
        assert_eq!(header(target, "Message-Expires"), ["600"]);
        assert!(header(target, "Supported")[0].contains("timer"));
        assert_eq!(header(target, "Contribution-ID"), ["abcdef-1234-5678-90ab-cdef01234567"]);
        assert_eq!((target.from.as_str(), target.to.as_str()), ("\"Alice\" <sip:alice@example.net>", "<sip:bob@example.net>"));
    }
}

#[test]
fn a_deadline_goes_along_with_a_date_to_count_from() {
    let bridge = Bob::new().bridge(&Letter::large().with("Message-Expires", "600"));
    assert_eq!(header(&bridge.targets[0], "Date"), ["Thu, 01 Feb 2024 10:00:00 GMT"]);
    assert_eq!(header(&Bob::new().bridge(&Letter::large()).targets[0], "Date"), Vec::<&str>::new());
}

#[test]
fn the_client_offer_is_ours() {
    let bridge = proves!("TLM-7.k.0", "TLM-7.k.i", "TLM-7.k.ii", "TLM-7.k.iii", "TLM-7.k.iv", "TLM-7.k.v", "TLM-7.k.vi.1", {
        Bob::new().bridge(&Letter::large())
    });
    for target in &bridge.targets {
        offer_is_ours(&written(&target.media));
    }
    assert_eq!(Bob::new().refusal(&Letter::large().bare()).status, 488);
    let passive = LARGE_SDP.replace("setup:actpass", "setup:passive");
    assert_eq!(Bob::new().refusal(&Letter::large().sdp(&passive)).status, 488);
    let unsized_offer = LARGE_SDP.replace("a=file-selector:size:4092\r\n", "");
    let bridge = Bob::new().bridge(&Letter::large().sdp(&unsized_offer));
    assert!(!written(&bridge.targets[0].media).contains("file-selector"));
}

#[test]
fn with_interop_the_client_offer_has_no_cema() {
    let bob = Bob::new().configured(|config| config.msrp.interop = Interop::Always);
    let bridge = proves!("TLM-7.k.vi.2", { bob.bridge(&Letter::large()) });
    assert!(bridge.targets.iter().all(|target| !written(&target.media).contains("msrp-cema")));
}

#[test]
fn without_a_suitable_client_the_delivery_policies_decide() {
    let defer = proves!("TLM-7.b.2", { Bob::away().receive(&Letter::large()) });
    assert_eq!((defer.purpose, defer.answer.status), (Purpose::Defer, 200));

    let interwork = Bob::away().configured(|config| config.policy.delivery = Delivery::Interwork);
    let bridge = interwork.bridge(&Letter::large());
    assert_eq!((to_isf(&bridge).len(), bridge.targets.len(), bridge.policies_done), (1, 1, true));
    assert_eq!(interwork.exhausted(&Letter::large(), &bridge, &[(0, 500)]).expect_err("final").status, 500);

    let reject = Bob::away().configured(|config| config.policy.delivery = Delivery::Reject);
    assert_eq!(reject.refusal(&Letter::large()).status, 480);
}

#[test]
fn without_a_primary_device_the_isf_may_be_invited_too() {
    let mut bob = Bob::new().configured(|config| config.policy.isf_without_primary_device = true);
    assert_eq!(to_isf(&bob.bridge(&Letter::large())).len(), 0, "a primary device is registered");
    bob.clients.remove(0);
    let bridge = proves!("TLM-7.c.1", "TLM-7.c.2", "TLM-7.l.2", { bob.bridge(&Letter::large()) });
    assert_eq!((to_isf(&bridge).len(), to_clients(&bridge).len()), (1, 1));
    let isf = to_isf(&bridge)[0];
    assert_eq!((isf.session_expires.map(|expires| expires.refresher), &isf.next_hop), (Some(Refresher::Uas), &NextHop::Isf));
    assert_eq!(isf.request_uri, BOB);
    offer_is_ours(&written(&isf.media));

    let matched = bob.with_actions(&["allow-deliver-and-interwork"]);
    assert_eq!(to_isf(&matched.bridge(&Letter::large())).len(), 1, "the ISF of 6.c alone");
    bob = Bob::new();
    bob.clients.remove(0);
    assert_eq!(to_isf(&bob.bridge(&Letter::large())).len(), 0, "the policy is off");
}

#[test]
fn the_first_200_of_isf_or_client_answers_the_origin() {
    let letter = Letter::large();
    for bob in [Bob::new(), Bob::new().with_actions(&["allow-interwork"])] {
        let bridge = bob.bridge(&letter);
        assert!(bridge.answer_is_on_first());
        let answer = proves!("TLM-8", { bob.answer(&letter, &bridge, &ok("<sip:bob@192.0.2.2>", LARGE_ANSWER, &[])) });
        assert_eq!(answer.status, 200);
    }
    let bob = Bob::new().with_actions(&["allow-interwork"]);
    let bridge = bob.bridge(&letter);
    proves!("TLM-6.c.z2", { bob.answer(&letter, &bridge, &ok("<sip:isf@192.0.2.9>", LARGE_ANSWER, &[])) });
}

#[test]
fn the_message_is_recorded_where_a_rule_says_so() {
    let record = Bob::new().with_rules(&[rule("CPM", None, &["allow-offline-storage"])]);
    let follow = |bob: &Bob| {
        let request = Letter::large().request();
        let bridge = bob.bridge(&Letter::large());
        Procedure::TerminatingLargeMessage.after_answer(&bob.facts(), &request, &bridge, None)
    };
    let follow_ups = proves!("TLM-9.1", { follow(&record) });
    assert!(matches!(&follow_ups[..], [FollowUp::RecordHistory { user, sent: false }] if user == BOB));
    assert!(follow(&Bob::new()).is_empty());
    assert!(follow(&Bob::new().with_rules(&[rule("POC", None, &["allow-offline-storage"])])).is_empty());
    assert!(follow(&record.configured(|config| config.policy.record_history = false)).is_empty());
}

#[test]
fn when_all_targets_fail_the_policies_run_but_a_refusal_goes_back() {
    let letter = Letter::large();
    let bob = Bob::new();
    let bridge = bob.bridge(&letter);
    let decision = proves!("TLM-10", { bob.exhausted(&letter, &bridge, &[(0, 480), (1, 408)]) });
    assert!(
        matches!(decision, Ok(Decision::Receive(receive)) if receive.purpose == Purpose::Defer && receive.answer.status == 200)
    );
    for status in [403, 488, 603] {
        assert_eq!(bob.exhausted(&letter, &bridge, &[(0, status), (1, status)]).expect_err("relayed").status, status);
    }
    let reject = Bob::new().configured(|config| config.policy.delivery = Delivery::Reject);
    assert_eq!(reject.exhausted(&letter, &bridge, &[(0, 486), (1, 408)]).expect_err("rejected").status, 480);
    // A client that does not take it says nothing of the other, which may come back; a user who declines does (6xx).
    assert!(bob.exhausted(&letter, &bridge, &[(0, 403), (1, 408)]).is_ok());
    assert_eq!(bob.exhausted(&letter, &bridge, &[(0, 408), (1, 603)]).expect_err("declined").status, 603);
}

trait OnFirst {
    fn answer_is_on_first(&self) -> bool;
}

impl OnFirst for cpm_pf::cpm::decision::Bridge {
    fn answer_is_on_first(&self) -> bool {
        matches!(self.answer, AnswerTime::OnFirst)
    }
}
