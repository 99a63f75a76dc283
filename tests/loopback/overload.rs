//! RFC 3261 §21.5.4 on the wire: which new calls are turned away, what goes on meanwhile, and what we do with a peer's 503.

use crate::ladder::Originating;
use crate::proxy::Proxy;
use crate::ue::{Invite, LARGE, Message, SESSION, answer_sdp};
use std::net::UdpSocket;
use std::time::Duration;

const BOB: &str = "sip:bob@example.org";

/// A session up between alice and the core; the 200 that alice got.
#[track_caller]
fn call(ladder: &mut Originating) -> Message {
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let sdp = answer_sdp("127.0.0.1:9".parse().expect("an address"), "bob", "active", "sendrecv");
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    ladder.established(&invite, &contact, &sdp).1
}

#[track_caller]
fn hang_up(ladder: &mut Originating, ok: &Message) {
    let bye = ladder.alice.in_dialog("BYE", ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    ladder.alice.expect_status(200);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
}

#[track_caller]
fn turned_away(refusal: &Message) {
    assert!(refusal.want("Retry-After").parse::<u32>().is_ok_and(|seconds| (1..=60).contains(&seconds)), "{refusal:?}");
}

/// The program stands still while these calls and one message more come, for ten times as long as is allowed: each call is
/// turned away.
fn all_turned_away(ladder: &mut Originating, invites: &[Invite], more: &str) {
    ladder.pf.stand_still();
    for invite in invites {
        ladder.alice.send(ladder.pf.udp, &invite.text());
    }
    ladder.alice.send(ladder.pf.udp, more);
    std::thread::park_timeout(Duration::from_millis(600));
    ladder.pf.signal("CONT");
    for invite in invites {
        let refusal = ladder.alice.expect_answer(invite, 503);
        turned_away(&refusal);
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &refusal);
    }
    ladder.core.nothing(ladder.pf.udp, "a new call", |message| message.method() == "INVITE");
}

#[test]
fn a_slow_queue_turns_new_calls_away_and_nothing_else() {
    let mut ladder = Originating::new("[limits]\noverload_queue_delay = \"60ms\"\n");
    let ok = call(&mut ladder);
    let invites = [LARGE, SESSION].map(|service| Invite::new(&ladder.alice, BOB, service));
    let timer = "Supported: timer\r\nSession-Expires: 1800\r\nContent-Length";
    let update = ladder.alice.in_dialog("UPDATE", &ok, 1).replace("Content-Length", timer);
    all_turned_away(&mut ladder, &invites, &update);
    // In the dialog that stands, all goes on: a refresh, and its end.
    let refreshed = |message: &Message| message.status() >= 200 && message.want("CSeq").ends_with("UPDATE");
    assert_eq!(ladder.alice.next("200", refreshed).0.status(), 200);
    let bye = ladder.alice.in_dialog("BYE", &ok, 2);
    ladder.alice.send(ladder.pf.udp, &bye);
    ladder.alice.expect_status(200);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    // The queue is short again, and calls are taken.
    let ok = call(&mut ladder);
    hang_up(&mut ladder, &ok);
    assert!(ladder.pf.metric("cpm_pf_rejections_total", &["limits.overload_queue_delay"]) >= 2.0);
}

#[test]
fn a_single_call_is_taken_though_the_machine_was_busy_when_it_came() {
    let mut ladder = Originating::new("[limits]\noverload_queue_delay = \"500ms\"\n");
    let invite = Invite::new(&ladder.alice, BOB, LARGE);
    ladder.pf.stand_still();
    ladder.alice.send(ladder.pf.udp, &invite.text());
    // More than twice as long as is allowed, and no longer than a thread may have to wait for its turn.
    std::thread::park_timeout(Duration::from_millis(1100));
    ladder.pf.signal("CONT");
    let (arrived, from) = ladder.core.expect_from("INVITE");
    ladder.core.answer(&arrived, from, "486 Busy Here", "", "");
    let refusal = ladder.alice.expect_answer(&invite, 486);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &refusal);
}

#[test]
fn a_flood_is_turned_away_in_passing_and_what_is_served_is_not() {
    // A few more than have lines of their own; the socket's buffer holds them.
    const CALLS: u32 = 120;
    let mut ladder =
        Originating::new("[sip]\nt1 = \"5s\"\n[limits]\noverload_queue_delay = \"60ms\"\nsessions_per_originator = 1000\n");
    let served = Invite::new(&ladder.alice, BOB, SESSION);
    let (arrived, from) = ladder.passes(&served);
    let invites: Vec<Invite> = (0..CALLS).map(|_| Invite::new(&ladder.alice, BOB, LARGE)).collect();
    // A resend of what is being served waits in the same queue.
    all_turned_away(&mut ladder, &invites, &served.text());
    let sdp = answer_sdp("127.0.0.1:9".parse().expect("an address"), "bob", "active", "sendrecv");
    let fields = format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", ladder.core.address);
    ladder.core.answer(&arrived, from, "200 OK", &fields, &sdp);
    let ok = ladder.alice.expect_answer(&served, 200);
    ladder.alice.ack(ladder.pf.udp, &served.message(), &ok);
    ladder.core.expect("ACK");
    hang_up(&mut ladder, &ok);
    let refused = |pf: &Proxy| pf.metric("cpm_pf_rejections_total", &["limits.overload_queue_delay"]);
    assert!((refused(&ladder.pf) - f64::from(CALLS)).abs() < 0.5);
}

/// The program stands still while a flood comes, and what is `between`, for ten times as long as is allowed.
fn flood(ladder: &mut Originating, from: &UdpSocket, round: u32, between: &str) {
    ladder.pf.stand_still();
    for number in 0..FLOOD {
        if number == FLOOD / 2 {
            ladder.alice.send(ladder.pf.udp, between);
        }
        let invite = Invite::new(&ladder.alice, BOB, LARGE).with("User-Agent", &format!("flood-{round}"));
        from.send_to(invite.text().as_bytes(), ladder.pf.udp).expect("loopback takes it");
    }
    std::thread::park_timeout(Duration::from_millis(600));
    ladder.pf.signal("CONT");
}

/// Whether a socket of the program may hold a flood.
fn has_room() -> bool {
    let number = |text: &str, base| u64::from_str_radix(text.trim(), base).unwrap_or(0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capable = status.lines().find_map(|line| line.strip_prefix("CapEff:")).is_some_and(|set| number(set, 16) >> 12 & 1 == 1);
    capable || std::fs::read_to_string("/proc/sys/net/core/rmem_max").is_ok_and(|most| number(&most, 10) >= 8 << 20)
}

/// Calls of a flood: more than are refused at once before any is dropped.
const FLOOD: usize = 2_500;

#[test]
fn in_the_heaviest_flood_calls_are_dropped_and_what_is_in_a_dialog_is_not() {
    if !has_room() {
        return eprintln!("needs CAP_NET_ADMIN, or net.core.rmem_max of 8 MiB: a smaller buffer holds no flood");
    }
    const BEGINS: &str = "a part of new calls is dropped";
    const ENDS: &str = "no new calls are dropped any more";
    let limits = "[limits]\noverload_queue_delay = \"60ms\"\noverload_refusal_percent = 1\n";
    let mut ladder = Originating::new(limits);
    let ok = call(&mut ladder);
    let strangers = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let body = answer_sdp("127.0.0.1:9".parse().expect("an address"), "alice", "active", "sendrecv");
    let fields = format!(
        "Contact: <sip:alice@{}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        ladder.alice.address,
        body.len()
    );
    let not_taken = |pf: &Proxy| pf.metric("cpm_pf_sip_transport_total", &["datagram-not-taken"]);
    let mut rounds = 0;
    while !ladder.pf.log().contains(BEGINS) || not_taken(&ladder.pf) == 0.0 {
        rounds += 1;
        assert!(rounds < 20, "nothing is dropped; the log:\n{}", ladder.pf.log());
        let change = ladder.alice.in_dialog("INVITE", &ok, rounds).replace("Content-Length: 0\r\n\r\n", &fields);
        flood(&mut ladder, &strangers, rounds, &change);
        let (arrived, from) = ladder.core.expect_from("INVITE");
        ladder.core.answer(&arrived, from, "488 Not Acceptable Here", "", "");
        let refusal = ladder.alice.next("488", |message| message.status() == 488).0;
        ladder.alice.ack(ladder.pf.udp, &Message(change), &refusal);
    }
    // The flood is over: the filter goes, and calls are taken.
    ladder.pf.until("nothing is dropped", |pf| pf.log().contains(ENDS) && pf.metric("cpm_pf_overload_drop_ratio", &[]) == 0.0);
    let ok = call(&mut ladder);
    hang_up(&mut ladder, &ok);
}

#[test]
fn so_many_calls_begin_a_second() {
    let mut ladder = Originating::new("[limits]\nnew_calls_per_second = 5\n");
    let invites: Vec<Invite> = (0..40).map(|_| Invite::new(&ladder.alice, BOB, SESSION)).collect();
    for invite in &invites {
        ladder.alice.send(ladder.pf.udp, &invite.text());
    }
    let (mut away, mut taken) = (0, 0);
    while away + taken < invites.len() {
        let (first, _) = ladder.alice.next("an answer to each", |message| message.status() == 503 || message.status() == 100);
        let call = first.want("Call-ID").to_owned();
        let of_call = |message: &Message| message.status() == 503 && message.header("Call-ID") == Some(&call);
        if first.status() == 100 {
            // 100 comes first for those that are turned away as well.
            ladder.alice.nothing(ladder.pf.udp, "nothing", |_| false);
            if ladder.alice.kept().any(of_call) {
                turned_away(&ladder.alice.next("503", of_call).0);
                away += 1;
            } else {
                taken += 1;
            }
        } else {
            turned_away(&first);
            away += 1;
        }
    }
    assert!((5..=10).contains(&taken), "{taken} of 40 calls began");
}

#[test]
fn an_originator_has_so_many_sessions() {
    let mut ladder = Originating::new("[limits]\nsessions_per_originator = 2\n");
    let first = call(&mut ladder);
    let second = call(&mut ladder);
    let third = Invite::new(&ladder.alice, BOB, SESSION);
    ladder.alice.send(ladder.pf.udp, &third.text());
    let refusal = ladder.alice.next("a refusal", |message| message.status() >= 400).0;
    assert!(matches!(refusal.status(), 486 | 503), "{refusal:?}");
    ladder.alice.ack(ladder.pf.udp, &third.message(), &refusal);
    // Somebody else may call, and the same after a session has ended.
    let other = Invite::new(&ladder.alice, BOB, SESSION).with("P-Asserted-Identity", "<sip:carol@example.net>");
    let (arrived, from) = ladder.passes(&other);
    ladder.core.answer(&arrived, from, "486 Busy Here", "", "");
    let refusal = ladder.alice.expect_status(486);
    ladder.alice.ack(ladder.pf.udp, &other.message(), &refusal);
    hang_up(&mut ladder, &first);
    ladder.pf.until("the session is gone", |pf| pf.metric("cpm_pf_dialogs", &[]) == 2.0);
    let third = call(&mut ladder);
    hang_up(&mut ladder, &third);
    hang_up(&mut ladder, &second);
}

#[test]
fn there_is_room_for_so_many_dialogs() {
    let mut ladder = Originating::new("[limits]\ndialogs = 4\n");
    let first = call(&mut ladder);
    let second = call(&mut ladder);
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    turned_away(&ladder.refused_beside(&invite, 503));
    hang_up(&mut ladder, &first);
    ladder.pf.until("the session is gone", |pf| pf.metric("cpm_pf_dialogs", &[]) == 2.0);
    let third = call(&mut ladder);
    hang_up(&mut ladder, &second);
    hang_up(&mut ladder, &third);
}

#[test]
fn a_next_hop_that_asks_for_rest_gets_it() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let (arrived, from) = ladder.passes(&invite);
    ladder.core.answer(&arrived, from, "503 Service Unavailable", "Retry-After: 30\n", "");
    ladder.core.expect("ACK");
    let refusal = ladder.alice.next("a refusal", |message| message.status() >= 400).0;
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &refusal);
    // The next call is answered by us; the hop hears nothing of it.
    let invite = Invite::new(&ladder.alice, BOB, LARGE);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let refusal = ladder.alice.next("a refusal", |message| message.status() >= 400).0;
    assert!(refusal.status() >= 480, "{refusal:?}");
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &refusal);
    ladder.core.nothing(ladder.pf.udp, "a request during its rest", |message| message.method() == "INVITE");
}

#[test]
fn a_flood_towards_a_silent_hop_neither_ends_the_program_nor_fills_its_memory() {
    let mut ladder = Originating::new("[limits]\nsessions_per_originator = 100000\n");
    for round in 0..20 {
        for _ in 0..100 {
            let invite = Invite::new(&ladder.alice, BOB, if round % 2 == 0 { LARGE } else { SESSION });
            ladder.alice.send(ladder.pf.udp, &invite.text());
        }
        // In step with the program: it has taken what came before.
        ladder.alice.nothing(ladder.pf.udp, "nothing", |_| false);
    }
    assert_eq!(ladder.pf.get("/healthz").0, 200);
    let status = std::fs::read_to_string(format!("/proc/{}/status", ladder.pf.pid())).expect("it runs");
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    assert!(resident.is_some_and(|kib| kib < 300 << 10), "{resident:?} KiB resident for 2000 calls");
    assert!(!ladder.pf.log().contains("panicked"));
}
