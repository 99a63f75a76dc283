//! Whole calls through the program: SIP and MSRP of both sides, and what is left of them in metrics, call records and `/sessions`.

use crate::msrp::Msrp;
use crate::proxy::{Proxy, registered};
use crate::ue::{Invite, LARGE, Message, SESSION, Ue, answer_sdp};
use std::net::SocketAddr;

const NOWHERE: &str = "127.0.0.1:9";

/// Two clients in a call.
struct Call {
    proxy: Proxy,
    alice: Ue,
    bob: Ue,
    /// What each got: alice the 200, bob the INVITE.
    ok: Message,
    invite: Message,
    alice_msrp: Msrp,
    bob_msrp: Msrp,
}

/// Bob takes an INVITE and will connect to the proxy.
fn bob_answers(bob: &mut Ue, direction: &str) -> (Message, SocketAddr) {
    let (invite, from) = bob.expect_from("INVITE");
    let contact = format!(
        "Contact: <sip:bob@{};transport={}>\nUser-Agent: CPM-client/OMA2.2\nContent-Type: application/sdp\n",
        bob.address,
        bob.transport().to_lowercase()
    );
    bob.answer(&invite, from, "200 OK", &contact, &answer_sdp(NOWHERE.parse().unwrap(), "bob1", "active", direction));
    (invite, from)
}

fn own_path(message: &Message) -> String {
    message.attribute("path").to_owned()
}

fn terminating(alice: &Ue, service: &str) -> Invite {
    Invite::new(alice, "sip:bob@example.net", service).terminating().sdp("a=setup:actpass", "a=setup:active")
}

fn call(proxy: Proxy, mut alice: Ue, mut bob: Ue, invite: &Invite, direction: &str) -> Call {
    let to = if alice.transport() == "UDP" { proxy.udp } else { proxy.tcp.expect("TCP is bound") };
    alice.send(to, &invite.text());
    let (theirs, _) = bob_answers(&mut bob, direction);
    let ok = alice.expect_status(200);
    alice.ack(to, &invite.message(), &ok);
    bob.expect("ACK");
    let own = own_path(&invite.message());
    let mut alice_msrp = Msrp::connect(ok.msrp_address(), &own, ok.attribute("path"));
    let mut bob_msrp = Msrp::connect(theirs.msrp_address(), "msrp://127.0.0.1:9/bob1;tcp", theirs.attribute("path"));
    alice_msrp.open();
    alice_msrp.expect("200");
    bob_msrp.open();
    bob_msrp.expect("200");
    Call { proxy, alice, bob, ok, invite: theirs, alice_msrp, bob_msrp }
}

fn with_bob(bob: &Ue, more: &str) -> Proxy {
    let user = registered("sip:bob@example.net", &[(bob.address, "primary = true")]);
    let contact = format!("@{};transport={}", bob.address, bob.transport().to_lowercase());
    Proxy::start(&format!("{more}\n{}", user.replace(&format!("@{}", bob.address), &contact)))
}

impl Call {
    fn to(&self) -> SocketAddr {
        if self.alice.transport() == "UDP" { self.proxy.udp } else { self.proxy.tcp.expect("TCP is bound") }
    }

    /// Alice hangs up; bob hears of it.
    fn bye(&mut self) {
        let (to, bye) = (self.to(), self.alice.in_dialog("BYE", &self.ok, 1));
        self.alice.send(to, &bye);
        let (bye, from) = self.bob.expect_from("BYE");
        self.bob.answer(&bye, from, "200 OK", "", "");
        self.alice.next("200 to BYE", |message| message.status() == 200 && message.want("CSeq").ends_with("BYE"));
    }

    fn cdr(&self) -> serde_json::Value {
        let path = self.proxy.path("var/cdr.jsonl");
        self.proxy.until("the call record is written", |_| std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')));
        let text = std::fs::read_to_string(&path).expect("it was just there");
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(text.trim()).expect("a line is JSON")
    }
}

fn large_message(alice: Ue, bob: Ue) {
    let proxy = with_bob(&bob, "");
    let invite = terminating(&alice, LARGE);
    let mut call = call(proxy, alice, bob, &invite, "recvonly");
    let body: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let tid = call.alice_msrp.send("message-1", &body);
    assert_eq!(call.bob_msrp.message(), body);
    assert_eq!(call.alice_msrp.expect("200").tid(), tid);
    assert!(call.proxy.metric("cpm_pf_msrp_bytes_total", &[]) >= 400_000.0);
    call.bye();
    let cdr = call.cdr();
    assert_eq!((&cdr["case"], &cdr["service"]), (&"terminating".into(), &"large-message".into()));
    assert_eq!((&cdr["status"], &cdr["octets_forward"]), (&200.into(), &400_000.into()));
    call.proxy.until("nothing is left", |proxy| {
        ["cpm_pf_dialogs", "cpm_pf_msrp_sessions", "cpm_pf_msrp_connections"].iter().all(|name| proxy.metric(name, &[]) == 0.0)
    });
}

#[test]
fn a_large_message_reaches_a_registered_client_over_udp() {
    large_message(Ue::udp("alice"), Ue::udp("bob"));
}

#[test]
fn a_large_message_reaches_a_registered_client_over_tcp() {
    large_message(Ue::tcp("alice"), Ue::tcp("bob"));
}

#[test]
fn a_large_message_leaves_through_the_core() {
    let (alice, core) = (Ue::udp("alice"), Ue::udp("core"));
    let proxy = Proxy::start(&format!("[sip]\ncore = \"sip:{};lr\"\n", core.address));
    let invite = Invite::new(&alice, "sip:carol@elsewhere.example", LARGE).sdp("a=setup:actpass", "a=setup:active");
    let mut call = call(proxy, alice, core, &invite, "recvonly");
    assert!(call.invite.want("Route").contains(&call.bob.address.to_string()), "{:?}", call.invite);
    assert_eq!(call.invite.want("P-Asserted-Service"), "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg");
    call.alice_msrp.send("message-1", b"hello");
    assert_eq!(call.bob_msrp.message(), b"hello");
    call.bye();
}

#[test]
fn a_session_carries_messages_both_ways_until_bob_ends_it() {
    let (alice, bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let proxy = with_bob(&bob, "");
    let invite = terminating(&alice, SESSION);
    let mut call = call(proxy, alice, bob, &invite, "sendrecv");
    for number in 0..20 {
        let text = format!("number {number}");
        call.alice_msrp.send(&format!("alice-{number}"), text.as_bytes());
        assert_eq!(call.bob_msrp.message(), text.as_bytes());
        call.alice_msrp.expect("200");
        call.bob_msrp.send(&format!("bob-{number}"), text.as_bytes());
        assert_eq!(call.alice_msrp.message(), text.as_bytes());
        call.bob_msrp.expect("200");
    }
    let sessions: serde_json::Value = serde_json::from_str(&call.proxy.get("/sessions").1).expect("JSON");
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "{sessions}");
    assert_eq!(sessions[0]["service"], "session");

    let (to, bye) = (call.proxy.udp, call.bob.in_dialog_back("BYE", &call.invite, 1));
    call.bob.send(to, &bye);
    let (bye, from) = call.alice.expect_from("BYE");
    call.alice.answer(&bye, from, "200 OK", "", "");
    call.bob.expect_status(200);
    assert_eq!(call.cdr()["cause"], "bye-target");
}

#[test]
fn a_refusal_is_in_the_answer_the_metric_the_log_and_the_call_record() {
    let mut alice = Ue::udp("alice");
    let proxy = Proxy::start("[policy]\nauthorised_originators = [\"sip:carol@*\"]\n");
    let invite = Invite::new(&alice, "sip:bob@example.net", LARGE);
    alice.send(proxy.udp, &invite.text());
    let refused = alice.expect_status(403);
    assert!(refused.want("Warning").contains("127 Service not authorised"), "{refused:?}");
    alice.ack(proxy.udp, &invite.message(), &refused);
    assert_eq!(proxy.metric("cpm_pf_rejections_total", &["clause=\"OLM-1.b\"", "code=\"403\""]), 1.0);
    assert_eq!(proxy.metric("cpm_pf_invites_total", &["outcome=\"refused\""]), 1.0);
    proxy.until("the log tells the cause", |proxy| proxy.log().contains("OLM-1.b"));
    let path = proxy.path("var/cdr.jsonl");
    proxy.until("the call record is written", |_| std::fs::read_to_string(&path).is_ok_and(|text| text.contains("OLM-1")));
}

#[test]
fn a_drain_lets_the_session_go_on_and_takes_no_new_one() {
    let (alice, bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let proxy = with_bob(&bob, "");
    let invite = terminating(&alice, SESSION);
    let mut call = call(proxy, alice, bob, &invite, "sendrecv");
    call.proxy.signal("TERM");
    call.proxy.until("it is not ready while it drains", |proxy| proxy.get("/readyz").0 == 503);

    let mut carol = Ue::udp("carol");
    let second = terminating(&carol, SESSION);
    carol.send(call.proxy.udp, &second.text());
    let refused = carol.expect_status(503);
    assert!(refused.want("Retry-After").parse::<u32>().is_ok());
    carol.ack(call.proxy.udp, &second.message(), &refused);

    call.alice_msrp.send("late", b"still here");
    assert_eq!(call.bob_msrp.message(), b"still here");
    call.bye();
    assert_eq!(call.proxy.wait().code(), Some(0));
}

#[test]
fn the_time_to_drain_ends_with_bye_to_both_sides() {
    let (alice, bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let proxy = with_bob(&bob, "[node]\ndrain_timeout = \"1s\"\n");
    let invite = terminating(&alice, SESSION);
    let mut call = call(proxy, alice, bob, &invite, "sendrecv");
    call.proxy.signal("TERM");
    for ue in [&mut call.alice, &mut call.bob] {
        let (bye, from) = ue.expect_from("BYE");
        ue.answer(&bye, from, "200 OK", "", "");
    }
    assert_eq!(call.proxy.wait().code(), Some(0));
    assert_eq!(call.cdr()["cause"], "drain");
}

#[test]
fn a_second_signal_ends_it_at_once_with_bye_to_both_sides() {
    let (alice, bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let proxy = with_bob(&bob, "");
    let invite = terminating(&alice, SESSION);
    let mut call = call(proxy, alice, bob, &invite, "sendrecv");
    call.proxy.signal("TERM");
    call.proxy.until("it is not ready while it drains", |proxy| proxy.get("/readyz").0 == 503);
    call.proxy.signal("TERM");
    call.alice.expect("BYE");
    call.bob.expect("BYE");
    assert_eq!(call.proxy.wait().code(), Some(0));
    assert_eq!(call.cdr()["cause"], "drain");
}

#[test]
fn a_reload_changes_policy_and_loses_no_session() {
    let (alice, bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let user = registered("sip:bob@example.net", &[(bob.address, "primary = true")]);
    let proxy = with_bob(&bob, "");
    let invite = terminating(&alice, SESSION);
    let mut call = call(proxy, alice, bob, &invite, "sendrecv");
    call.proxy.configure(&format!("[policy]\nauthorised_originators = [\"sip:carol@*\"]\n{user}"));
    call.proxy.signal("HUP");
    call.proxy.until("the log tells of the reload", |proxy| proxy.log().contains("configuration reloaded"));

    let mut dave = Ue::udp("dave");
    let refused = Invite::new(&dave, "sip:bob@example.net", LARGE);
    dave.send(call.proxy.udp, &refused.text());
    dave.expect_status(403);
    call.bob_msrp.send("after", b"after the reload");
    assert_eq!(call.alice_msrp.message(), b"after the reload");
    call.bye();
}

#[test]
fn a_client_that_is_gone_is_noticed_before_any_timer() {
    let mut alice = Ue::udp("alice");
    let gone = Ue::udp("bob");
    let proxy = with_bob(&gone, "[policy]\ndelivery = \"reject\"\n");
    drop(gone);
    alice.send(proxy.udp, &terminating(&alice, LARGE).text());
    let (answer, _) = alice.next("a final answer", |message| message.status() >= 300);
    assert!(answer.status() >= 400, "{answer:?}");
}

#[test]
fn unknown_methods_and_versions_are_answered_as_the_standard_says() {
    let mut alice = Ue::udp("alice");
    let proxy = Proxy::start("");
    let ask = |method: &str, version: &str, call: &str| {
        format!(
            "{method} sip:{} SIP/{version}\nVia: SIP/2.0/UDP {};branch=z9hG4bK{call};rport\nMax-Forwards: 70\nFrom: <sip:alice@example.net>;tag=1\nTo: <sip:{0}>\nCall-ID: {call}\nCSeq: 1 {method}\nContent-Length: 0\n\n",
            proxy.udp, alice.address
        )
    };
    let (unknown, version) = (ask("FLY", "2.0", "fly"), ask("OPTIONS", "3.0", "version"));
    alice.send(proxy.udp, &unknown);
    let (answer, _) = alice.next("an answer", |message| message.status() >= 200);
    assert!(matches!(answer.status(), 405 | 501), "{answer:?}");
    alice.send(proxy.udp, &version);
    alice.expect_status(505);
}

#[test]
fn calls_cross_cores() {
    // Served users hash to either signalling core, datagrams and connections land on either, sessions live on either media core.
    let bobs: Vec<Ue> = (0..6).map(|at| if at % 2 == 0 { Ue::udp("bob") } else { Ue::tcp("bob") }).collect();
    let users: String = bobs
        .iter()
        .enumerate()
        .map(|(at, bob)| {
            let user = registered(&format!("sip:bob{at}@example.net"), &[(bob.address, "primary = true")]);
            let contact = format!("@{};transport={}", bob.address, bob.transport().to_lowercase());
            user.replace(&format!("@{}", bob.address), &contact)
        })
        .collect();
    let mut proxy = Proxy::start(&format!("[cores]\nsignaling = [0, 1]\nmedia = [0, 1]\n{users}"));
    for (at, bob) in bobs.into_iter().enumerate() {
        let alice = if at % 3 == 0 { Ue::tcp("alice") } else { Ue::udp("alice") };
        let invite = Invite::new(&alice, &format!("sip:bob{at}@example.net"), SESSION).terminating();
        let mut call = call(proxy, alice, bob, &invite.sdp("a=setup:actpass", "a=setup:active"), "sendrecv");
        call.alice_msrp.send("message-1", b"across");
        assert_eq!(call.bob_msrp.message(), b"across");
        call.bob_msrp.send("message-2", b"and back");
        assert_eq!(call.alice_msrp.expect("200").kind(), "200");
        assert_eq!(call.alice_msrp.message(), b"and back");
        call.bye();
        proxy = call.proxy;
    }
    proxy.until("nothing is left", |proxy| {
        ["cpm_pf_dialogs", "cpm_pf_msrp_sessions", "cpm_pf_msrp_connections"].iter().all(|name| proxy.metric(name, &[]) == 0.0)
    });
    assert_eq!(proxy.metric("cpm_pf_invites_total", &["outcome=\"answered\""]), 6.0);
}
