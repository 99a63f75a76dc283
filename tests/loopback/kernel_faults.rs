//! The program with faults of the kernel made up (`src/io/faults.rs`): operations end with -ENOBUFS, -ENOMEM and -EAGAIN, sockets take
//! little, completion queues overflow, connections break. `FAULT_SEED=7` plays one seed again; `FAULT_SEEDS=100` plays more.

use crate::deferral::{BOB, CLIENT, accepted, taken};
use crate::ladder::Originating;
use crate::msrp::{Msrp, Waiting};
use crate::proxy::{Proxy, registered};
use crate::soak::{descriptors, hang_up, session};
use crate::ue::{Invite, SESSION, Ue, answer_sdp};
use std::io::{Read, Write};
use std::time::Duration;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    match (number("FAULT_SEED"), number("FAULT_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(2)).collect(),
    }
}

fn faulty(more: &str, faults: &str) -> Proxy {
    Proxy::start_with(tempfile::tempdir().expect("a temporary folder"), more, &[("CPM_PF_FAULTS".into(), faults.into())])
}

#[test]
fn no_octet_is_lost_by_faults_that_take_nothing() {
    for seed in seeds() {
        println!("FAULT_SEED={seed}");
        let mut ladder = Originating::by("", |config| faulty(config, &seed.to_string()));
        let waiting = Waiting::new();
        for round in 0..6 {
            let (mut a, mut b, ok) = session(&mut ladder, &waiting, SESSION);
            for (number, octets) in [10, 3_000, 70_000, 400_000].into_iter().enumerate() {
                let body: Vec<u8> = (0..octets).map(|at| (at * (number + round + 7) % 251) as u8).collect();
                a.send(&format!("there{number:03}"), &body);
                assert!(b.message() == body, "seed {seed}, round {round}: {octets} octets are not what was sent");
                a.expect("200");
                b.send(&format!("back{number:04}"), &body);
                assert!(a.message() == body, "seed {seed}, round {round}: {octets} octets are not what was sent back");
                b.expect("200");
            }
            hang_up(&mut ladder, &ok);
        }
        assert!(ladder.pf.log().contains("faults are made up"), "the program was built without faults");
        ladder.pf.until("all is over", |pf| pf.metric("cpm_pf_msrp_connections", &[]) == 0.0);
    }
}

#[test]
fn what_is_stored_is_delivered_through_short_reads_and_writes() {
    for seed in seeds() {
        println!("FAULT_SEED={seed}");
        let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
        let pf = faulty("", &seed.to_string());
        let body: Vec<u8> = (0..300_000u32).map(|at| (at % 249) as u8).collect();
        accepted(&mut alice, &pf, "kept0001", &body, |invite| invite);
        pf.configure(&registered(BOB, &[(bob.address, CLIENT)]));
        pf.signal("HUP");
        let (_, _, octets) = taken(&mut bob);
        assert!(octets == body, "seed {seed}: what was stored is not what came");
    }
}

/// Only with `FAULT_SEED` or `FAULT_SEEDS`: what a broken connection leaves is waited for, and that takes half a minute.
#[test]
fn connections_that_break_leave_nothing_behind() {
    if std::env::var_os("FAULT_SEED").is_none() && std::env::var_os("FAULT_SEEDS").is_none() {
        println!("skipped: waits for time limits of the protocols; FAULT_SEEDS=2 plays it");
        return;
    }
    for seed in seeds() {
        println!("FAULT_SEED={seed}");
        let mut ladder = Originating::by("[sip]\nt1 = \"100ms\"\n", |config| faulty(config, &format!("{seed}:reset")));
        let waiting = Waiting::new();
        let before = descriptors(ladder.pf.pid());
        for _ in 0..8 {
            // Whatever breaks may break before it was used, so nothing is expected of the connections.
            let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
            let contact = format!("<sip:bob@{}>", ladder.core.address);
            let sdp = answer_sdp(waiting.address(), "bob", "passive", "sendrecv");
            let (arrived, ok) = ladder.established(&invite, &contact, &sdp);
            let mut b = waiting.accept(&format!("msrp://{}/bob;tcp", waiting.address()), arrived.attribute("path"));
            let mut a = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
            let _ = (0..3).all(|_| reaches(&mut a, &mut b));
            hang_up(&mut ladder, &ok);
        }
        for name in ["cpm_pf_msrp_sessions", "cpm_pf_msrp_connections", "cpm_pf_dialogs"] {
            ladder.pf.until(name, |pf| pf.metric(name, &[]) == 0.0);
        }
        ladder.pf.until("descriptors are given back", |pf| descriptors(pf.pid()) <= before + 4);
    }
}

/// Whether octets sent on one side come out on the other within a moment; those of a connection that broke do not.
fn reaches(a: &mut Msrp, b: &mut Msrp) -> bool {
    let frame = format!(
        "MSRP tid00001 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: m\r\nByte-Range: 1-4/4\r\nContent-Type: text/plain\r\n\r\n\
         body\r\n-------tid00001$\r\n",
        a.peer, a.own
    );
    let moment = Some(Duration::from_millis(300));
    b.stream.set_read_timeout(moment).expect("a socket has a time limit");
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    if a.stream.write_all(frame.as_bytes()).is_err() {
        return false;
    }
    while let Ok(read @ 1..) = b.stream.read(&mut buffer) {
        heard.extend_from_slice(&buffer[..read]);
        if memchr::memmem::find(&heard, b"\r\nbody\r\n-------tid").is_some() {
            let said = String::from_utf8_lossy(&heard).into_owned();
            let asked = said.lines().filter_map(|line| line.strip_prefix("MSRP ")?.strip_suffix(" SEND"));
            return asked.into_iter().all(|tid| {
                let answer = format!("MSRP {tid} 200 OK\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------{tid}$\r\n", b.peer, b.own);
                b.stream.write_all(answer.as_bytes()).is_ok()
            });
        }
    }
    false
}

#[test]
fn a_kernel_that_lacks_something_ends_the_start_with_3_and_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("cpm-pf.toml");
    std::fs::write(&file, crate::proxy::config("")).expect("the folder can be written");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cpm-pf"));
    command.args(["run", "--config"]).arg(&file).current_dir(folder.path()).env("CPM_PF_FAULTS", "1:old").env("RUST_LOG", "info");
    let output = command.output().expect("the program starts");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(3), true), "{told}");
    assert!(told.contains("multishot receive") && told.contains("Linux 6.0"), "{told}");
}
