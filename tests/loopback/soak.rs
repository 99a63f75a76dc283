//! Calls, messages, deferrals, reloads, deaths of peers and garbage together, and what the program weighs meanwhile.
//! `CPM_PF_SOAK=600 cargo test --test loopback soak -- --nocapture` goes on for ten minutes, holds memory to its line too, and writes
//! the figures and a plot of them to `perf/results/soak.csv` and `soak.svg`.

use crate::deferral::accepted;
use crate::ladder::Originating;
use crate::msrp::{Msrp, Waiting};
use crate::ue::{Invite, Message, SESSION, answer_sdp};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Rounds of the short form.
const ROUNDS: usize = 8;
/// Deferred messages stay in the store: a user may have a thousand.
const DEFERRALS_MAX: usize = 300;
/// Transactions live for half a minute after their end: until then memory grows.
const WARM: Duration = Duration::from_secs(60);

/// A call through the program, both MSRP ends connected.
pub fn session(ladder: &mut Originating, waiting: &Waiting, service: &str) -> (Msrp, Msrp, Message) {
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", service);
    begin(ladder, waiting, &invite)
}

/// The call that this INVITE begins.
pub fn begin(ladder: &mut Originating, waiting: &Waiting, invite: &Invite) -> (Msrp, Msrp, Message) {
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let (arrived, ok) = ladder.established(invite, &contact, &answer_sdp(waiting.address(), "bob", "passive", "sendrecv"));
    let mut b = waiting.accept(&format!("msrp://{}/bob;tcp", waiting.address()), arrived.attribute("path"));
    let opening = b.expect("SEND-EMPTY");
    b.answer(&opening, "200 OK");
    (Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path")), b, ok)
}

/// Alice hangs up; the core answers.
pub fn hang_up(ladder: &mut Originating, ok: &Message) {
    let bye = ladder.alice.in_dialog("BYE", ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    // Its INVITE's 200 may have been sent twice.
    let is_answer = |message: &Message| {
        message.status() >= 200
            && message.header("Call-ID") == ok.header("Call-ID")
            && message.header("CSeq").is_some_and(|cseq| cseq.ends_with("BYE"))
    };
    ladder.alice.next("an answer to BYE", is_answer);
}

/// Descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn resident_kib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
}

/// What the program weighs when a round is over.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    resident_kib: usize,
    descriptors: usize,
    dialogs: f64,
    sessions: f64,
    connections: f64,
    /// Transactions and requests that are not forgotten yet, and timers that are armed.
    slots: f64,
    timers: f64,
}

fn sample(ladder: &Originating, begun: Instant) -> Sample {
    let pf = &ladder.pf;
    for name in ["cpm_pf_msrp_sessions", "cpm_pf_msrp_connections", "cpm_pf_dialogs"] {
        pf.until(name, |pf| pf.metric(name, &[]) == 0.0);
    }
    let metric = |name| pf.metric(name, &[]);
    Sample {
        at: begun.elapsed(),
        resident_kib: resident_kib(pf.pid()),
        descriptors: descriptors(pf.pid()),
        dialogs: metric("cpm_pf_dialogs"),
        sessions: metric("cpm_pf_msrp_sessions"),
        connections: metric("cpm_pf_msrp_connections"),
        slots: pf.metric("cpm_pf_held", &["kind=\"transactions\""]) + pf.metric("cpm_pf_held", &["kind=\"requests\""]),
        timers: pf.metric("cpm_pf_held", &["kind=\"timers\""]),
    }
}

fn round(ladder: &mut Originating, waiting: &Waiting, number: usize) {
    // Calls with messages of every size.
    let (mut a, mut b, ok) = session(ladder, waiting, SESSION);
    for octets in [1, 2_000, 100_000] {
        a.send(&format!("message{octets:06}"), &vec![b'x'; octets]);
        assert_eq!(b.message().len(), octets);
        a.expect("200");
    }
    hang_up(ladder, &ok);
    // Peers that die in the middle of a message.
    let (mut a, b, ok) = session(ladder, waiting, SESSION);
    a.write(b"MSRP halfway1 SEND\r\nTo-Path: ");
    drop((a, b));
    hang_up(ladder, &ok);
    // A message for later.
    if number < DEFERRALS_MAX {
        accepted(&mut ladder.alice, &ladder.pf, &format!("kept{number:05}"), &[b'k'; 3_000], |invite| invite);
    }
    // Garbage on every port.
    let noise: Vec<u8> = (0..1_500).map(|at| (at * 31 + number * 7) as u8).collect();
    ladder.alice.send_octets(ladder.pf.udp, &noise);
    for to in [ladder.pf.tcp, Some(ladder.pf.msrp), Some(ladder.pf.admin)].into_iter().flatten() {
        let mut stream = TcpStream::connect(to).expect("the port listens");
        let _ = stream.write_all(&noise);
    }
    // Every fourth round, a reload.
    if number.is_multiple_of(4) {
        ladder.pf.signal("HUP");
    }
}

#[test]
fn calls_messages_deferrals_reloads_deaths_and_garbage_leave_nothing_behind() {
    let wanted = std::env::var("CPM_PF_SOAK").ok().and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let mut ladder = Originating::new("[sip]\nt1 = \"50ms\"\n[limits]\nsessions_per_originator = 100\n");
    let waiting = Waiting::new();
    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut number = 0;
    while wanted.map_or(number < ROUNDS, |wanted| begun.elapsed() < wanted) {
        round(&mut ladder, &waiting, number);
        samples.push(sample(&ladder, begun));
        number += 1;
    }
    let (first, last) = (samples[1], samples[samples.len() - 1]);
    println!("{number} rounds: {first:?} became {last:?}");
    // Transactions end 64 T1 after their last word.
    for kind in ["transactions", "requests"] {
        ladder.pf.until(kind, |pf| pf.metric("cpm_pf_held", &[&format!("kind=\"{kind}\"")]) == 0.0);
    }
    assert!(last.descriptors <= first.descriptors + 8, "{first:?} became {last:?}");
    assert!(last.resident_kib < first.resident_kib + 256 * 1024, "{first:?} became {last:?}");
    if let Some(wanted) = wanted {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("perf/results");
        std::fs::write(folder.join("soak.csv"), table(&samples)).expect("the folder can be written");
        std::fs::write(folder.join("soak.svg"), plot(&samples)).expect("the folder can be written");
        let warm = samples.iter().find(|sample| sample.at >= WARM).filter(|_| wanted >= 2 * WARM);
        if let Some(warm) = warm {
            let grown = last.resident_kib as f64 / warm.resident_kib as f64;
            assert!(grown < 1.15, "memory grew by {grown:.3} after the first minute: {warm:?} became {last:?}");
        }
    }
}

fn table(samples: &[Sample]) -> String {
    let mut text = String::from("seconds,resident_kib,descriptors,dialogs,msrp_sessions,msrp_connections,transactions,timers\n");
    for Sample { at, resident_kib, descriptors, dialogs, sessions, connections, slots, timers } in samples {
        let at = at.as_secs_f64();
        let _ = writeln!(text, "{at:.1},{resident_kib},{descriptors},{dialogs},{sessions},{connections},{slots},{timers}");
    }
    text
}

/// Memory, descriptors, what is open and what is armed over time, a panel each.
fn plot(samples: &[Sample]) -> String {
    const WIDE: f64 = 720.0;
    const HIGH: f64 = 120.0;
    let end = samples.last().map_or(1.0, |sample| sample.at.as_secs_f64()).max(1.0);
    let open = |sample: &Sample| sample.dialogs + sample.sessions + sample.connections;
    let panels: [(&str, Vec<f64>); 5] = [
        ("resident memory, MiB", samples.iter().map(|sample| sample.resident_kib as f64 / 1024.0).collect()),
        ("descriptors", samples.iter().map(|sample| sample.descriptors as f64).collect()),
        ("dialogs, MSRP sessions and connections at rest", samples.iter().map(open).collect()),
        ("transactions and requests that are not forgotten yet (64 T1)", samples.iter().map(|sample| sample.slots).collect()),
        ("timers", samples.iter().map(|sample| sample.timers).collect()),
    ];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        panels.len() as f64 * (HIGH + 50.0) + 20.0
    );
    for (row, (title, values)) in panels.iter().enumerate() {
        let top = 30.0 + row as f64 * (HIGH + 50.0);
        let highest = values.iter().copied().fold(1.0, f64::max) * 1.1;
        let points = samples.iter().zip(values).map(|(sample, value)| {
            format!("{:.1},{:.1}", 60.0 + WIDE * sample.at.as_secs_f64() / end, top + HIGH - HIGH * value / highest)
        });
        let _ = write!(
            svg,
            "<text x=\"60\" y=\"{:.0}\">{title}</text>\n\
             <text x=\"55\" y=\"{:.0}\" text-anchor=\"end\">{highest:.0}</text><text x=\"55\" y=\"{:.0}\" text-anchor=\"end\">0</text>\n\
             <rect x=\"60\" y=\"{top}\" width=\"{WIDE}\" height=\"{HIGH}\" fill=\"none\" stroke=\"#bbb\"/>\n\
             <polyline fill=\"none\" stroke=\"#0b6\" stroke-width=\"1.5\" points=\"{}\"/>\n",
            top - 6.0,
            top + 10.0,
            top + HIGH,
            points.collect::<Vec<_>>().join(" ")
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{end:.0} s</text>\n</svg>\n",
        60.0 + WIDE,
        30.0 + panels.len() as f64 * (HIGH + 50.0) - 34.0
    );
    svg
}
