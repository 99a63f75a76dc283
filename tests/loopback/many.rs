//! A thousand sessions at once on one media core: nothing lost, and what a session weighs. `CPM_PF_SESSIONS=9000` makes them
//! 9,000, which are 18,000 sockets of the program and as many of the test: about what a descriptor limit of 20,000 holds.

use crate::ladder::Originating;
use crate::msrp::{Msrp, Waiting};
use crate::ue::{Invite, SESSION, answer_sdp};
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};

/// Loopback addresses that the callers are spread over.
const ADDRESSES: usize = 8;
const MESSAGES: usize = 5;

/// Lets this process hold the far ends of so many connections.
pub fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write a structure of this stack frame.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max.min(20_000);
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
        .expect("a line VmRSS")
}

/// A caller's connection from one of several addresses.
fn connect(number: usize, to: SocketAddr, own: &str, peer: &str) -> Msrp {
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1 + (number % ADDRESSES) as u8), 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is left");
    socket.bind(&SockAddr::from(from)).expect("all of 127.0.0.0/8 is ours");
    socket.connect(&SockAddr::from(to)).expect("the proxy listens");
    Msrp::over(socket.into(), own, peer)
}

#[test]
fn a_thousand_sessions_at_once_lose_nothing() {
    let sessions: usize = std::env::var("CPM_PF_SESSIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000);
    raise_descriptors();
    let mut ladder = Originating::new("[limits]\nsessions_per_originator = 100000\noverload_queue_delay = \"30s\"");
    let before = resident_kib(ladder.pf.pid());
    let waiting = Waiting::new();
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let mut ends: Vec<(Msrp, Msrp)> = Vec::with_capacity(sessions);
    for number in 0..sessions {
        let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
        let id = format!("bob{number}");
        let (arrived, ok) = ladder.established(&invite, &contact, &answer_sdp(waiting.address(), &id, "passive", "sendrecv"));
        let mut b = waiting.accept(&format!("msrp://{}/{id};tcp", waiting.address()), arrived.attribute("path"));
        let opening = b.expect("SEND-EMPTY");
        b.answer(&opening, "200 OK");
        // Whoever connects speaks at once, or it is nobody's connection after half a minute.
        let mut a = connect(number, ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
        a.open();
        a.expect("200");
        ends.push((a, b));
    }
    assert_eq!(ladder.pf.metric("cpm_pf_msrp_sessions", &[]), sessions as f64);

    // Every session has messages on the way at the same time.
    let body = |number: usize, count: usize| format!("{number:08} {count:04} {}", "x".repeat(186)).into_bytes();
    for count in 0..MESSAGES {
        for (number, (a, _)) in ends.iter_mut().enumerate() {
            a.send(&format!("msg{number:06}x{count}"), &body(number, count));
        }
    }
    for (number, (a, b)) in ends.iter_mut().enumerate() {
        for count in 0..MESSAGES {
            assert_eq!(b.message(), body(number, count), "session {number}");
            a.expect("200");
        }
    }
    let after = resident_kib(ladder.pf.pid());
    println!(
        "{sessions} sessions: {before} KiB before, {after} KiB after, {:.1} KiB a session with both dialogs",
        (after - before) as f64 / sessions as f64
    );
    assert!(after - before < 64 * sessions as u64, "{before} KiB became {after} KiB");
}
