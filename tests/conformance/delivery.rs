//! CR 8.3.1.3, 8.3.6 and 8.3.1.6: delivery policies, and messages kept for later.

use crate::bob::*;
use cpm_pf::base::clock::Instant;
use cpm_pf::config::Delivery;
use cpm_pf::cpm::decision::TargetKind;
use cpm_pf::cpm::deferral::{self, Body, Content};
use cpm_pf::proves;
use cpm_pf::sip::header::session_expires::Refresher;
use cpm_pf::store::deferred::{Deferred, DeferredId, DeferredService};
use std::path::PathBuf;

const CPIM: &[u8] = b"From: <sip:alice@example.net>\r\nTo: <sip:bob@example.net>\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
    imdn.Message-ID: m-1\r\nimdn.Disposition-Notification: negative-delivery\r\n\r\nContent-Type: text/plain\r\n\r\nhello";

fn kept(letter: &Letter) -> Deferred {
    let body = Body::File { path: PathBuf::from("spool/1"), octets: 4711, head: CPIM };
    let content = Content { content_type: "message/cpim", message_id: "msrp-1", body };
    let now = Instant::from_unix_s(NOW_S);
    let (config, id) = (Bob::new().config, DeferredId("d-1".to_string()));
    proves!("TLM-6.f.ii", { deferral::keep(&config, now, id, BOB, &letter.request(), DeferredService::LargeMessage, content) })
}

#[test]
fn the_policies_run_once() {
    let letter = Letter::large();
    let bob = Bob::away().configured(|config| config.policy.delivery = Delivery::Interwork);
    let bridge = bob.bridge(&letter);
    assert!(bridge.policies_done);
    let deferring = bob.configured(|config| config.policy.delivery = Delivery::Defer);
    assert_eq!(deferring.exhausted(&letter, &bridge, &[(0, 480)]).expect_err("no second round").status, 480);
}

#[test]
fn without_an_isf_interworking_is_nothing_to_offer() {
    let bob = Bob::away().configured(|config| {
        config.policy.delivery = Delivery::Interwork;
        config.sip.isf = None;
    });
    assert_eq!(bob.refusal(&Letter::large()).status, 480);
    assert_eq!(bob.refusal(&Letter::session()).status, 480);
}

#[test]
fn what_is_kept_of_a_message_is_what_goes_out_again() {
    let letter = Letter::large().with("Subject", "lunch").with("Privacy", "none").with("InReplyTo-Contribution-ID", "reply-1");
    let deferred = kept(&letter);
    assert_eq!((deferred.user.as_str(), deferred.octets, deferred.attempts), (BOB, 4711, 0));
    assert_eq!(deferred.expires_s, NOW_S + 72 * 3600, "the operator's expiry");
    assert_eq!(deferred.negative_delivery.as_ref().map(|notice| notice.about.as_str()), Some("m-1"));

    let phone = client(PHONE, Some(PHONE_GRUU), &["largemsg"]);
    let invite = deferral::invite(&Bob::new().config, &phone, &deferred);
    assert_eq!(invite.request_uri, PHONE_GRUU);
    assert_eq!((invite.from.as_str(), invite.to.as_str()), ("\"Alice\" <sip:alice@example.net>", "<sip:bob@example.net>"));
    assert_eq!(header(&invite, "Conversation-ID"), ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]);
    assert_eq!(header(&invite, "Contribution-ID"), ["abcdef-1234-5678-90ab-cdef01234567"]);
    assert_eq!(header(&invite, "InReplyTo-Contribution-ID"), ["reply-1"]);
    assert_eq!(header(&invite, "Subject"), ["lunch"]);
    assert_eq!(header(&invite, "Date"), ["Thu, 01 Feb 2024 10:00:00 GMT"]);
    assert_eq!(header(&invite, "Accept-Contact"), [accepts("largemsg")]);
    assert_eq!(header(&invite, "P-Asserted-Service"), [icsi("largemsg")]);
    assert!(header(&invite, "P-Asserted-Identity")[0].contains("sip:alice@example.net"));
    assert!(header(&invite, "User-Agent")[0].starts_with("CPM-serv/OMA2.2"));
    assert_eq!(invite.session_expires.map(|expires| expires.refresher), Some(Refresher::Uas));
    assert!(matches!(&invite.kind, TargetKind::Client { instance, .. } if instance.as_deref() == Some(PHONE)));
    let sdp = written(&invite.media);
    for line in [
        "m=message 2855 TCP/MSRP *",
        "a=sendonly",
        "a=setup:actpass",
        "a=file-selector:size:4711",
        "a=accept-types:message/cpim",
        "a=path:msrp://127.0.0.1:2855/01own;tcp",
    ] {
        assert_eq!(count(&sdp, line), 1, "{line} in\n{sdp}");
    }
}

#[test]
fn the_message_s_own_expiry_wins() {
    let deferred = kept(&Letter::large().with("Message-Expires", "600").with("Date", "Thu, 01 Feb 2024 09:59:00 GMT"));
    assert_eq!(deferred.expires_s, NOW_S - 60 + 600);
    assert_eq!(deferred.headers.iter().filter(|(name, _)| name == "Date").count(), 1);
    assert_eq!(kept(&Letter::large().with("Message-Expires", "600")).expires_s, NOW_S + 600);
}

#[test]
fn a_kept_message_goes_to_suitable_clients_only() {
    let deferred = kept(&Letter::large());
    let bob = Bob::new();
    assert_eq!(deferral::suitable(&bob.config, &bob.clients, &deferred), [0, 1]);
    let pager = [client(PHONE, None, &["msg"])];
    assert_eq!(deferral::suitable(&bob.config, &pager, &deferred), [0; 0]);
}

#[test]
fn a_pager_message_goes_through_the_same_policies() {
    use cpm_pf::cpm::decision::{Decision, Purpose};
    let letter = Letter::pager();
    match Bob::away().gets(&letter) {
        Ok(Decision::KeepMessage { purpose: Purpose::Defer, answer }) => {
            assert_eq!(answer.status, 202);
            assert_eq!((answer.contact, answer.media.is_some()), (None, false));
        }
        other => panic!("it is kept: {other:?}"),
    }
    match Bob::new().gets(&letter) {
        Ok(Decision::Message(messages)) => {
            let uris: Vec<&str> = messages.targets.iter().map(|target| target.request_uri.as_str()).collect();
            assert_eq!(uris, [PHONE_GRUU, BOB]);
            assert_eq!(values(&messages.targets[0].headers, "P-Asserted-Service"), [icsi("msg")]);
        }
        other => panic!("it goes on: {other:?}"),
    }
    assert_eq!(Bob::new().with_actions(&["allow-reject-invite"]).refusal(&letter).status, 403);
    let reject = Bob::away().configured(|config| config.policy.delivery = Delivery::Reject);
    assert_eq!(reject.refusal(&letter).status, 480);
}

#[test]
fn every_action_of_a_rule_is_taken_for_a_pager_message_too() {
    use cpm_pf::cpm::decision::{Decision, Purpose};
    let outcome = |action: &str| match Bob::new().with_actions(&[action]).gets(&Letter::pager()) {
        Ok(Decision::KeepMessage { purpose: Purpose::Defer, .. }) => "defer".to_string(),
        Ok(Decision::KeepMessage { purpose: Purpose::Store, .. }) => "store".to_string(),
        Ok(Decision::Message(messages)) => {
            let kinds = messages.targets.iter().map(|target| match target.kind {
                TargetKind::Isf => "isf",
                TargetKind::Forward => target.request_uri.as_str(),
                _ => "client",
            });
            kinds.collect::<Vec<_>>().join(" ")
        }
        other => panic!("{action}: {other:?}"),
    };
    assert_eq!(outcome("allow-do-not-disturb"), "defer");
    assert_eq!(outcome("allow-interwork"), "isf");
    assert_eq!(outcome("allow-deliver-and-interwork"), "isf client client");
    assert_eq!(outcome("allow-store"), "store");
    assert_eq!(outcome("allow-forward uri=\"tel:+15551230009\""), "tel:+15551230009");
    assert_eq!(outcome("allow-defer"), "defer");
}

#[test]
fn a_kept_pager_message_goes_out_as_it_came() {
    let letter = Letter::pager();
    let request = letter.request();
    let content = Content { content_type: "message/cpim", message_id: "x", body: Body::Inline(request.body()) };
    let config = Bob::new().config;
    let now = Instant::from_unix_s(NOW_S);
    let id = DeferredId("d-1".to_string());
    let deferred = deferral::keep(&config, now, id, BOB, &request, DeferredService::Pager, content);
    assert_eq!((deferred.inline.as_deref(), deferred.negative_delivery.is_some()), (Some(request.body()), false));
    let tablet = client(TABLET, None, &["msg"]);
    let message = deferral::message(&config, &tablet, &deferred, request.body().to_vec());
    assert_eq!((message.request_uri.as_str(), message.content_type.as_str()), (BOB, "message/cpim"));
    assert_eq!(message.body, request.body());
    let accept = values(&message.headers, "Accept-Contact");
    assert_eq!(accept.len(), 2);
    assert!(accept[1].contains(TABLET));
    assert_eq!(deferral::suitable(&config, &[tablet], &deferred), [0]);
}
