//! CR 6.6 and 8.3.1.1 step 8: which registered clients are suitable.

use crate::bob::*;
use cpm_pf::config::{RegisteredClient, RegisteredUser};
use cpm_pf::cpm::clients::{address, of_static, suitable};
use cpm_pf::cpm::decision::NextHop;
use cpm_pf::cpm::facts::Client;

fn chosen(bob: &Bob, letter: &Letter) -> Vec<usize> {
    suitable(&bob.facts(), &letter.request(), &icsi("largemsg")).clients
}

fn with(clients: Vec<Client>) -> Bob {
    Bob { clients, ..Bob::new() }
}

#[test]
fn a_client_must_declare_the_icsi_or_a_parent_of_it() {
    let declaring = |features: &[&str]| with(vec![client(PHONE, None, features)]);
    let group = Letter::large().set("Accept-Contact", &accepts("largemsg.group"));
    assert_eq!(chosen(&declaring(&["largemsg"]), &Letter::large()), [0]);
    assert_eq!(chosen(&declaring(&["largemsg"]), &group), [0], "largemsg.group IS-A largemsg");
    assert_eq!(chosen(&declaring(&["largemsg.group"]), &Letter::large()), [0; 0], "but not the other way");
    assert_eq!(chosen(&declaring(&["msg", "session"]), &Letter::large()), [0; 0]);
    let mut silent = client(PHONE, None, &[]);
    silent.features.clear();
    assert_eq!(chosen(&with(vec![silent]), &Letter::large()), [0; 0]);
}

#[test]
fn icsis_compare_decoded_and_without_regard_to_case() {
    let mut shouting = client(PHONE, None, &["largemsg"]);
    shouting.features[0].1[0] = shouting.features[0].1[0].to_ascii_uppercase();
    assert_eq!(chosen(&with(vec![shouting]), &Letter::large()), [0]);
}

#[test]
fn an_accept_contact_mismatch_drops_with_require_and_lowers_without() {
    let mobile = |value: &str| {
        let mut mobile = client(TABLET, None, &["largemsg"]);
        mobile.features.push(("mobility".to_string(), vec![value.to_string()]));
        mobile
    };
    let bob = with(vec![mobile("fixed"), Client { instance: None, ..mobile("mobile") }]);
    let ask = |value: &str| Letter::large().with("Accept-Contact", value);
    assert_eq!(chosen(&bob, &ask("*;mobility=\"mobile\";require")), [1]);
    assert_eq!(chosen(&bob, &ask("*;mobility=\"MOBILE\"")), [0, 1], "without require nobody is dropped");
    // A tag that is not declared is no mismatch: the score is 0, which explicit and require together do not accept.
    assert_eq!(chosen(&bob, &ask("*;audio;require")), [0, 1]);
    assert_eq!(chosen(&bob, &ask("*;audio;require;explicit")), [0; 0]);
    assert_eq!(chosen(&bob, &ask("*;mobility=\"!fixed\";require")), [1]);
}

#[test]
fn reject_contact_drops_only_who_declares_it() {
    let mut automaton = client(TABLET, None, &["largemsg"]);
    automaton.features.push(("automata".to_string(), Vec::new()));
    let bob = with(vec![client(PHONE, None, &["largemsg"]), automaton]);
    assert_eq!(chosen(&bob, &Letter::large().with("Reject-Contact", "*;automata")), [0]);
    assert_eq!(chosen(&bob, &Letter::large().with("Reject-Contact", "*;automata;video")), [0, 1]);
}

#[test]
fn an_instance_in_accept_contact_reaches_that_device_alone() {
    let instance = format!("*;+sip.instance=\"{TABLET}\";require;explicit");
    assert_eq!(chosen(&Bob::new(), &Letter::large().with("Accept-Contact", &instance)), [1]);
    let other_case = instance.replace("f81d4fae", "F81D4FAE");
    assert_eq!(chosen(&Bob::new(), &Letter::large().with("Accept-Contact", &other_case)), [0; 0], "strings have case");
}

#[test]
fn a_gruu_in_the_request_uri_reaches_that_device_alone() {
    assert_eq!(chosen(&Bob::new(), &Letter::large().uri(PHONE_GRUU)), [0]);
    assert_eq!(chosen(&Bob::new(), &Letter::large().uri("sip:bob@example.net;gr=urn:uuid:another")), [0; 0]);
}

#[test]
fn the_sender_s_own_device_is_left_out() {
    let own = format!("<sip:bob@192.0.2.2>;+sip.instance=\"{TABLET}\"");
    assert_eq!(chosen(&Bob::new(), &Letter::large().set("Contact", &own)), [0]);
    assert_eq!(chosen(&Bob::new(), &Letter::large().set("Contact", &format!("<{PHONE_GRUU}>"))), [1]);
}

#[test]
fn a_version_that_is_not_supported_is_not_suitable() {
    let mut bob = Bob::new().configured(|config| config.policy.user_agents = vec!["CPM-*/OMA2.2".to_string()]);
    bob.clients[0].user_agent = Some("CPM-client/OMA1.0".to_string());
    assert_eq!(chosen(&bob, &Letter::large()), [1]);
    bob.clients[1].user_agent = None;
    assert_eq!(chosen(&bob, &Letter::large()), [1], "an unknown release is not held against a client");
}

#[test]
fn one_device_is_invited_once_under_the_address_that_was_used() {
    let tel = Client { aor: "tel:+15551230002".to_string(), ..client(PHONE, None, &["largemsg"]) };
    let bob = with(vec![tel, client(PHONE, None, &["largemsg"])]);
    assert_eq!(chosen(&bob, &Letter::large()), [1]);
    assert_eq!(chosen(&bob, &Letter::large().uri("tel:+1-555-123-0002")), [0]);
    assert_eq!(chosen(&bob, &Letter::large().uri("sip:other@example.net")), [0], "else the first");
}

#[test]
fn the_best_come_first_and_never_more_than_a_session_has_legs() {
    let low = Client { q: 200, ..client(PHONE, None, &["largemsg"]) };
    let bob = with(vec![low, client(TABLET, None, &["largemsg"])]);
    assert_eq!(chosen(&bob, &Letter::large()), [1, 0]);
    let many = (0..40).map(|n| client(&format!("<urn:uuid:{n}>"), None, &["largemsg"])).collect();
    assert!(chosen(&with(many), &Letter::large()).len() < cpm_pf::limits::TARGET_LEGS_MAX);
}

#[test]
fn the_primary_device_counts_only_when_it_is_suitable() {
    let selection = |bob: &Bob| suitable(&bob.facts(), &Letter::large().request(), &icsi("largemsg"));
    assert!(selection(&Bob::new()).primary);
    let mut bob = Bob::new();
    bob.clients[0].features.clear();
    assert!(!selection(&bob).primary);
}

#[test]
fn a_client_is_addressed_by_gruu_or_by_address_and_instance() {
    let with_gruu = address(&client(PHONE, Some(PHONE_GRUU), &[]));
    assert_eq!((with_gruu.request_uri.as_str(), with_gruu.instance), (PHONE_GRUU, None));
    let without = address(&client(TABLET, None, &[]));
    assert_eq!(without.request_uri, BOB);
    assert_eq!(without.instance, Some(format!("*;+sip.instance=\"{TABLET}\";require;explicit")));
    assert!(matches!(without.next_hop, NextHop::Core { fallback: Some(_) }));
}

#[test]
fn static_registrations_may_use_short_names() {
    let user = RegisteredUser {
        address: BOB.to_string(),
        clients: vec![RegisteredClient {
            contact: "sip:127.0.0.1:5081".to_string(),
            instance: Some(PHONE.to_string()),
            gruu: None,
            features: vec!["largemsg".to_string(), icsi("session")],
            user_agent: None,
            primary: true,
        }],
    };
    let clients = of_static(&user);
    assert_eq!(clients[0].features, [("+g.3gpp.icsi-ref".to_string(), vec![icsi("largemsg"), icsi("session")])]);
    assert_eq!(chosen(&with(clients), &Letter::large()), [0]);
}
