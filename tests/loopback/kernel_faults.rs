//! The program with faults of the kernel made up (`src/io/faults.rs`): operations end with -ENOBUFS, -ENOMEM and -EAGAIN, sockets take
//! little, completion queues overflow, connections break. `FAULT_SEED=7` plays one seed again; `FAULT_SEEDS=100` plays more.

use crate::deferral::{self, BOB, CLIENT, accepted, over, taken};
use crate::ladder::Originating;
use crate::msrp::{Msrp, Waiting};
use crate::proxy::{PATIENCE, Proxy, registered};
use crate::reading;
use crate::soak::{descriptors, hang_up, session};
use crate::torture::options;
use crate::ue::{Invite, Message, SESSION, Ue, answer_sdp};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::UdpSocket;
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

/// What the program is to meet and to lose nothing by.
const KINDS: [&str; 5] = ["ENOBUFS", "ENOMEM", "EAGAIN", "short write", "send refused"];

#[test]
fn no_octet_is_lost_by_faults_that_take_nothing() {
    for seed in seeds() {
        println!("FAULT_SEED={seed}");
        let mut ladder = Originating::by("", |config| faulty(config, &seed.to_string()));
        let waiting = Waiting::new();
        let unmet = |pf: &Proxy| KINDS.into_iter().find(|kind| !pf.log().contains(&format!("kind=\"{kind}\"")));
        let mut round = 0;
        // As many as it takes until every kind of fault was met.
        while round < 6 || (round < 60 && unmet(&ladder.pf).is_some()) {
            round += 1;
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
        ladder.pf.until("every kind of fault was met", |pf| unmet(pf).is_none());
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

#[test]
fn what_a_failing_disk_did_not_take_is_told_to_the_sender_and_leaves_nothing() {
    for seed in seeds() {
        println!("FAULT_SEED={seed}");
        let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
        let pf = faulty("", &format!("{seed}:disk"));
        let body = |number: u32| (0..70_000).map(|at: u32| (at.wrapping_mul(number + 3) % 247) as u8).collect::<Vec<_>>();
        let (mut kept, mut refused) = (Vec::new(), 0);
        let mut before = None;
        for number in 0.. {
            assert!(number < 200, "seed {seed}: {} kept, {refused} refused", kept.len());
            let id = format!("disk{number:04}");
            let (mut sender, _, ok) = deferral::session(&mut alice, &pf, |invite| invite);
            sender.send(&id, &body(number));
            let answer = sender.next();
            over(&mut alice, &pf, &ok);
            match answer.as_ref().map(|answer| answer.kind()) {
                Some("200") => kept.push((id, number)),
                // The connection may end under what is still being sent, and the answer with it.
                Some("500" | "413" | "408") | None => refused += 1,
                Some(other) => panic!("seed {seed}: {other}"),
            }
            before.get_or_insert_with(|| descriptors(pf.pid()));
            if kept.len() >= 2 && refused >= 2 {
                break;
            }
        }
        // Nothing is left of what was refused, neither files nor descriptors.
        let bodies = pf.path("var/deferred/bodies");
        pf.until("refused bodies are gone", |_| walk(&bodies) == kept.len());
        // A message that is being received has a name of sixteen characters.
        let spool = pf.path("var/spool");
        let spooled =
            || std::fs::read_dir(&spool).into_iter().flatten().flatten().filter(|file| file.file_name().len() == 16).count();
        pf.until("the spool is empty", |_| spooled() == 0);
        pf.until("descriptors are given back", |pf| descriptors(pf.pid()) <= before.unwrap_or_default() + 4);
        pf.configure(&registered(BOB, &[(bob.address, CLIENT)]));
        pf.signal("HUP");
        for (id, number) in kept {
            let (_, came, octets) = taken(&mut bob);
            assert!(came == id && octets == body(number), "seed {seed}: {came} came, {id} was next");
        }
        pf.until("nothing waits", |pf| pf.metric("cpm_pf_deferred_messages", &[]) == 0.0);
    }
}

/// Files below a folder.
fn walk(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { 1 }).sum()
}

/// Whatever breaks may break before it was used, so nothing is expected of connections and calls but that they end.
#[test]
fn connections_that_break_leave_nothing_behind() {
    const RESETS: usize = 5;
    const ROUNDS: usize = 60;
    for seed in seeds().into_iter().take(if std::env::var_os("FAULT_SEEDS").is_some() { usize::MAX } else { 1 }) {
        println!("FAULT_SEED={seed}");
        // The protocols' time limits, made short: what a broken connection leaves is waited for.
        let limits = "[sip]\nt1 = \"50ms\"\n[msrp]\nconnect_timeout = \"1s\"\ntransaction_timeout = \"1s\"\n\
                      [limits]\nunbound_timeout = \"1s\"\nsessions_per_originator = 1000\n";
        let mut ladder = Originating::by(limits, |config| faulty(config, &format!("{seed}:reset")));
        let waiting = Waiting::new();
        let before = descriptors(ladder.pf.pid());
        let resets = |pf: &Proxy| pf.log().matches("a connection is made to break").count();
        let mut rounds = 0;
        while resets(&ladder.pf) < RESETS && rounds < ROUNDS {
            broken_call(&mut ladder, &waiting);
            rounds += 1;
        }
        assert!(resets(&ladder.pf) >= RESETS, "{rounds} calls and hardly a connection broke");
        let Originating { alice, core, pf, .. } = &mut ladder;
        for name in ["cpm_pf_msrp_sessions", "cpm_pf_msrp_connections", "cpm_pf_dialogs"] {
            pf.until(name, |pf| {
                hangs_up(alice);
                hangs_up(core);
                pf.metric(name, &[]) == 0.0
            });
        }
        pf.until("descriptors are given back", |pf| descriptors(pf.pid()) <= before + 4);
    }
}

/// A call of which any part may fail, to its end.
fn broken_call(ladder: &mut Originating, waiting: &Waiting) {
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    let (arrived, from) = ladder.passes(&invite);
    let headers = format!("Contact: <sip:bob@{}>\nSupported: timer\nContent-Type: application/sdp\n", ladder.core.address);
    let sdp = answer_sdp(waiting.address(), "bob", "passive", "sendrecv");
    ladder.core.answer(&arrived, from, "200 OK", &headers, &sdp);
    let call = invite.get("Call-ID").unwrap_or_default().to_owned();
    let of = |method: &'static str, call: String| {
        move |message: &Message| {
            message.status() >= 200
                && message.header("Call-ID") == Some(&call)
                && message.header("CSeq").is_some_and(|cseq| cseq.ends_with(method))
        }
    };
    let (answer, _) = ladder.alice.next("a final answer", of("INVITE", call.clone()));
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &answer);
    if answer.status() == 200 {
        let mut b = waiting.accept(&format!("msrp://{}/bob;tcp", waiting.address()), arrived.attribute("path"));
        let mut a = Msrp::connect(answer.msrp_address(), invite.message().attribute("path"), answer.attribute("path"));
        let _ = reaches(&mut a, &mut b);
        let bye = ladder.alice.in_dialog("BYE", &answer, 1);
        ladder.alice.send(ladder.pf.udp, &bye);
        ladder.alice.next("an answer to BYE", of("BYE", call));
    }
}

/// Answers what the program says goodbye with.
fn hangs_up(ue: &mut Ue) {
    while let Some((message, from)) = ue.poll() {
        if message.method() == "BYE" {
            ue.answer(&message, from, "200 OK", "", "");
        }
    }
}

#[test]
fn a_full_completion_queue_loses_no_message() {
    const SENT: usize = 200;
    for seed in seeds() {
        println!("FAULT_SEED={seed}");
        let pf = faulty("", &seed.to_string());
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
        // All of them are there when the program looks, and its queue has room for sixteen.
        pf.stand_still();
        for number in 0..SENT {
            socket.send_to(options(pf.udp, "UDP", &format!("{number}")).as_bytes(), pf.udp).expect("loopback takes a datagram");
        }
        pf.signal("CONT");
        let mut buffer = [0; 4_096];
        let calls: BTreeSet<String> = (0..SENT)
            .map(|_| {
                let read = reading::undisturbed(|| socket.recv(&mut buffer)).expect("an answer to each");
                let answer = Message(String::from_utf8_lossy(&buffer[..read]).into_owned());
                assert_eq!(answer.status(), 200);
                answer.want("Call-ID").to_owned()
            })
            .collect();
        assert_eq!(calls.len(), SENT, "one answer for each");
        pf.until("the queue was full", |pf| pf.log().contains("full completion queue"));
    }
}

/// Sends octets on one side and looks for them on the other for a moment; those of a connection that broke do not come.
fn reaches(a: &mut Msrp, b: &mut Msrp) -> bool {
    let frame = format!(
        "MSRP tid00001 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: m\r\nByte-Range: 1-4/4\r\nContent-Type: text/plain\r\n\r\n\
         body\r\n-------tid00001$\r\n",
        a.peer, a.own
    );
    let moment = Some(Duration::from_millis(100));
    b.stream.set_read_timeout(moment).expect("a socket has a time limit");
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    if a.stream.write_all(frame.as_bytes()).is_err() {
        return false;
    }
    while let Ok(read @ 1..) = reading::read(&mut b.stream, &mut buffer) {
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
