//! What keeping a message costs beside relaying it, in CPU time of the program for a gigabyte of bodies.
//! `CPM_PF_COST_MIB=512 cargo test --release --test loopback deferring_cost -- --nocapture` measures; without it the test only
//! shows that both ways carry the octets.

use crate::deferral::{accepted, register, taken};
use crate::ladder::Originating;
use crate::msrp::{Msrp, Waiting};
use crate::proxy::Proxy;
use crate::ue::{Invite, LARGE, Ue, answer_sdp};
use std::time::Duration;

/// Octets of one message.
const BODY: usize = 8 << 20;
const BOB: &str = "sip:bob@example.org";

/// CPU time of a process: its threads and the kernel's workers for it.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime, in hundredths of a second (proc(5)); the first field after the name is the third of all.
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// A message through the program to Bob's network.
fn relayed(ladder: &mut Originating, body: &[u8]) {
    let waiting = Waiting::new();
    let invite = Invite::new(&ladder.alice, BOB, LARGE);
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let (arrived, ok) = ladder.established(&invite, &contact, &answer_sdp(waiting.address(), "bob", "passive", "recvonly"));
    let mut b = waiting.accept(&format!("msrp://{}/bob;tcp", waiting.address()), arrived.attribute("path"));
    let reader = std::thread::spawn(move || {
        let came = b.message();
        (came, b)
    });
    let mut a = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    a.send("msg1", body);
    a.expect("200");
    let (came, _b) = reader.join().expect("it reads");
    assert!(came == body, "octets out are octets in");
    ladder.hang_up(&ok);
}

/// CPU seconds for a gigabyte.
fn for_a_gigabyte(time: Duration, messages: usize) -> f64 {
    time.as_secs_f64() / ((messages * BODY) as f64 / 1e9)
}

#[test]
fn deferring_costs_at_most_twice_what_relaying_costs() {
    let wanted: Option<usize> = std::env::var("CPM_PF_COST_MIB").ok().and_then(|text| text.parse().ok());
    let (rounds, messages) = wanted.map_or((1, 1), |mib| (5, (mib << 20).div_ceil(BODY)));
    let body: Vec<u8> = (0..BODY).map(|n| (n.wrapping_mul(31) % 251) as u8).collect();
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        // In turns, each in a program of its own.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        let quiet = [("RUST_LOG".to_owned(), "warn".to_owned())];
        let mut ladder = Originating::in_world(folder, "", &quiet);
        relayed(&mut ladder, &body[..1000]);
        let before = cpu(ladder.pf.pid());
        (0..messages).for_each(|_| relayed(&mut ladder, &body));
        let relay = for_a_gigabyte(cpu(ladder.pf.pid()) - before, messages);
        drop(ladder);

        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
        let pf = Proxy::start_with(folder, "", &quiet);
        accepted(&mut alice, &pf, "first", b"warm", |invite| invite);
        let before = cpu(pf.pid());
        for n in 0..messages {
            accepted(&mut alice, &pf, &format!("msg{n}"), &body, |invite| invite);
        }
        let defer = for_a_gigabyte(cpu(pf.pid()) - before, messages);
        register(&pf, &bob, "");
        taken(&mut bob);
        let before = cpu(pf.pid());
        for _ in 0..messages {
            assert!(taken(&mut bob).2 == body, "octets out are octets in");
        }
        let deliver = for_a_gigabyte(cpu(pf.pid()) - before, messages);
        println!("CPU s a GB: relayed {relay:.3}, deferred {defer:.3} ({:.2}), delivered later {deliver:.3}", defer / relay);
        ratios.push(defer / relay);
    }
    ratios.sort_by(f64::total_cmp);
    if wanted.is_some() {
        println!(
            "deferring / relaying: median {:.2} ({:.2} to {:.2})",
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1]
        );
        assert!(ratios[ratios.len() / 2] <= 2.0, "{ratios:?}");
    }
}
