//! A new process takes over: nothing new is refused, nothing old is lost.

use crate::deferral;
use crate::ladder::Originating;
use crate::msrp::{Msrp, Waiting};
use crate::proxy::{PATIENCE, Proxy, registered};
use crate::secure;
use crate::soak::{begin, hang_up, session};
use crate::ue::{Invite, Message, SESSION, Ue, answer_sdp};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const HANDOVER: &str = "[node]\nhandover = \"next.sock\"\n";

/// One message each way over a session.
fn talk(a: &mut Msrp, b: &mut Msrp, message: &str) {
    a.send(message, b"from alice");
    assert_eq!(b.message(), b"from alice");
    a.expect("200");
    b.send(&format!("{message}b"), &[b'b'; 5_000]);
    assert_eq!(a.message(), [b'b'; 5_000]);
    b.expect("200");
}

#[test]
fn sessions_go_on_where_they_began_and_end_with_bye_on_both_legs() {
    let mut ladder = Originating::new(HANDOVER);
    let waiting = Waiting::new();
    let (mut a, mut b, ok) = session(&mut ladder, &waiting, SESSION);
    talk(&mut a, &mut b, "before01");
    for round in 0..3 {
        ladder.pf.succeed();
        // The standing session is the first process's, three times removed.
        talk(&mut a, &mut b, &format!("standing{round}"));
        let (mut c, mut d, new) = session(&mut ladder, &waiting, SESSION);
        talk(&mut c, &mut d, &format!("newone{round}"));
        hang_up(&mut ladder, &new);
    }
    hang_up(&mut ladder, &ok);
    for _ in 0..3 {
        assert_eq!(ladder.pf.former_ends().code(), Some(0));
    }
    let (mut c, mut d, new) = session(&mut ladder, &waiting, SESSION);
    talk(&mut c, &mut d, "atlast01");
    hang_up(&mut ladder, &new);
    ladder.pf.signal("TERM");
    assert_eq!(ladder.pf.wait().code(), Some(0));
}

#[test]
fn an_invite_that_is_open_is_not_served_twice_and_its_cancel_finds_it() {
    let mut ladder = Originating::new(HANDOVER);
    ladder.alice.hears_retransmissions = true;
    ladder.core.hears_retransmissions = true;
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    let (arrived, from) = ladder.passes(&invite);
    ladder.core.answer(&arrived, from, "180 Ringing", "", "");
    ladder.alice.expect_status(180);
    ladder.pf.succeed();
    // A resend, as if the 180 had been lost.
    ladder.alice.send(ladder.pf.udp, &invite.text());
    ladder.alice.expect_status(180);
    ladder.core.nothing(ladder.pf.udp, "a second INVITE", |message| message.method() == "INVITE");
    let cancel = format!(
        "CANCEL {} SIP/2.0\nVia: {}\nMax-Forwards: 70\nFrom: {}\nTo: {}\nCall-ID: {}\nCSeq: 1 CANCEL\nContent-Length: 0\n\n",
        invite.uri,
        invite.get("Via").expect("it has one"),
        invite.get("From").expect("it has one"),
        invite.get("To").expect("it has one"),
        invite.get("Call-ID").expect("it has one"),
    );
    ladder.alice.send(ladder.pf.udp, &cancel);
    let (cancelled, from) = ladder.core.expect_from("CANCEL");
    ladder.core.answer(&cancelled, from, "200 OK", "", "");
    ladder.core.answer(&arrived, from, "487 Request Terminated", "", "");
    ladder.core.expect("ACK");
    ladder.alice.next("487", |message| message.status() == 487);
    assert_eq!(ladder.pf.former_ends().code(), Some(0));
}

#[test]
fn a_peer_that_connects_late_finds_the_process_that_has_its_session() {
    let mut ladder = Originating::new(HANDOVER);
    let waiting = Waiting::new();
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let (arrived, ok) = ladder.established(&invite, &contact, &answer_sdp(waiting.address(), "bob", "passive", "sendrecv"));
    let mut b = waiting.accept(&format!("msrp://{}/bob;tcp", waiting.address()), arrived.attribute("path"));
    let opening = b.expect("SEND-EMPTY");
    b.answer(&opening, "200 OK");
    ladder.pf.succeed();
    let mut a = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    talk(&mut a, &mut b, "late0001");
    hang_up(&mut ladder, &ok);
    assert_eq!(ladder.pf.former_ends().code(), Some(0));
}

/// A call of alice's over TCP, answered by the core.
fn call(ladder: &mut Originating, alice: &mut Ue) -> Message {
    let tcp = ladder.pf.tcp.expect("bound");
    let invite = Invite::new(alice, "sip:bob@example.org", SESSION);
    alice.send(tcp, &invite.text());
    let (arrived, from) = ladder.core.expect_from("INVITE");
    accept(&mut ladder.core, &arrived, from);
    let ok = alice.expect_status(200);
    alice.ack(tcp, &invite.message(), &ok);
    ladder.core.expect("ACK");
    ok
}

/// The core answers; nobody ever connects, so that nothing is waited for at the end.
fn accept(core: &mut Ue, arrived: &Message, from: SocketAddr) {
    let contact = format!("Contact: <sip:bob@{}>\nSupported: timer\nContent-Type: application/sdp\n", core.address);
    core.answer(arrived, from, "200 OK", &contact, &answer_sdp(core.address, "bob", "active", "sendrecv"));
}

/// The end of a call over TCP.
fn end(ladder: &mut Originating, alice: &mut Ue, ok: &Message) {
    let bye = alice.in_dialog("BYE", ok, 1);
    alice.send(ladder.pf.tcp.expect("bound"), &bye);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    alice.next("200 to BYE", |message| message.status() == 200 && message.want("CSeq").ends_with("BYE"));
}

#[test]
fn a_connection_outlives_its_process() {
    let mut ladder = Originating::new(HANDOVER);
    let mut alice = Ue::tcp("alice");
    let standing = call(&mut ladder, &mut alice);
    ladder.pf.succeed();
    // The connection is the former process's; what it brings of new is the other's, as soon as the former has heard of it.
    let passed = loop {
        let ok = call(&mut ladder, &mut alice);
        if ladder.pf.metric("cpm_pf_dialogs", &[]) > 0.0 {
            break ok;
        }
        end(&mut ladder, &mut alice, &ok);
    };
    end(&mut ladder, &mut alice, &standing);
    assert_eq!(ladder.pf.former_ends().code(), Some(0));
    // The dialog that began over the other process goes on over the same connection.
    end(&mut ladder, &mut alice, &passed);
    let last = call(&mut ladder, &mut alice);
    end(&mut ladder, &mut alice, &last);
    assert_eq!(alice.connections(), 1);
}

/// Two signalling and two media cores on each side, and every transport.
const CORES: &str = "[node]\nhandover = \"next.sock\"\n[cores]\nsignaling = [0, 1]\nmedia = [0, 1]\n[sip]\nlisten = [\"udp://127.0.0.1:0\", \"tcp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\n[sip.tls]\nca = \"ca.pem\"\n";

/// A session that this user begins, with both MSRP ends connected: which core serves it depends on the user.
fn session_of(ladder: &mut Originating, waiting: &Waiting, user: usize) -> (Msrp, Msrp, Message) {
    let address = format!("sip:alice{user}@example.net");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION)
        .with("P-Asserted-Identity", &format!("<{address}>"))
        .with("P-Served-User", &format!("<{address}>;sescase=orig"));
    begin(ladder, waiting, &invite)
}

/// How many different cores have these legs: a Contact user and an MSRP session id begin with a core's number.
fn cores<'a>(of: impl Iterator<Item = &'a str>) -> usize {
    of.map(|id| id[..2].to_owned()).collect::<std::collections::BTreeSet<_>>().len()
}

/// A call of alice's over TLS, answered by the core.
fn call_over_tls(ladder: &mut Originating, alice: &mut Ue) -> Message {
    let tls = ladder.pf.tls.expect("bound");
    let invite = Invite::new(alice, "sip:bob@example.org", SESSION);
    alice.send(tls, &invite.text());
    let (arrived, from) = ladder.core.expect_call();
    accept(&mut ladder.core, &arrived, from);
    let ok = alice.expect_answer(&invite, 200);
    alice.ack(tls, &invite.message(), &ok);
    ladder.core.expect("ACK");
    ok
}

/// The end of it, by whom it began.
fn end_over_tls(ladder: &mut Originating, alice: &mut Ue, ok: &Message) {
    let bye = alice.in_dialog("BYE", ok, 1);
    alice.send(ladder.pf.tls.expect("bound"), &bye);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    alice.next("200 to BYE", |message| message.status() == 200 && message.want("CSeq").ends_with("BYE"));
}

#[test]
fn several_cores_hand_over_and_sessions_over_every_transport_go_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    secure::certificate(folder.path(), &secure::authority());
    let mut ladder = Originating::in_folder(folder, CORES);
    let waiting = Waiting::new();
    let mut standing: Vec<_> = (0..8).map(|user| session_of(&mut ladder, &waiting, user)).collect();
    let contacts = standing.iter().map(|(.., ok)| ok.uri_in("Contact").trim_start_matches("sip:"));
    let paths = standing.iter().map(|(.., ok)| ok.attribute("path").rsplit('/').next().unwrap_or_default());
    assert_eq!((cores(contacts), cores(paths)), (2, 2), "both cores of each kind have sessions");
    let mut tcp = Ue::tcp("alice");
    let over_tcp = call(&mut ladder, &mut tcp);
    for round in 0..2 {
        ladder.pf.succeed();
        for (at, (a, b, _)) in standing.iter_mut().enumerate() {
            talk(a, b, &format!("round{round}at{at}"));
        }
        for user in 0..4 {
            let (mut a, mut b, ok) = session_of(&mut ladder, &waiting, user);
            talk(&mut a, &mut b, &format!("newone{round}{user}"));
            hang_up(&mut ladder, &ok);
        }
    }
    // Each of the two processes before still serves what began with it, and ends with the last of that.
    end(&mut ladder, &mut tcp, &over_tcp);
    for (.., ok) in &standing {
        hang_up(&mut ladder, ok);
    }
    for _ in 0..2 {
        assert_eq!(ladder.pf.former_ends().code(), Some(0));
    }
    let (mut a, mut b, ok) = session_of(&mut ladder, &waiting, 1);
    talk(&mut a, &mut b, "atlast01");
    hang_up(&mut ladder, &ok);
    assert_eq!(ladder.pf.metric("cpm_pf_rejections_total", &[]), 0.0);
}

/// The keys of a TLS connection cannot move: it stays with the process that has it, for as long as that has sessions.
#[test]
fn a_tls_connection_stays_with_its_process_and_new_ones_go_to_the_new_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    secure::certificate(folder.path(), &secure::authority());
    let mut ladder = Originating::in_folder(folder, CORES);
    let config = secure::client(ladder.pf.folder.path(), false);
    let mut old = Ue::tls("alice", secure::connect(&ladder.pf, config.clone()));
    let (first, second) = (call_over_tls(&mut ladder, &mut old), call_over_tls(&mut ladder, &mut old));
    ladder.pf.succeed();
    ladder.pf.until("the old one knows", |pf| pf.log().contains("handed over: ending when the sessions have"));

    let mut new = Ue::tls("alice", secure::connect(&ladder.pf, config));
    let third = call_over_tls(&mut ladder, &mut new);
    ladder.pf.until("its two legs are the new process's", |pf| pf.metric("cpm_pf_dialogs", &[]) == 2.0);

    // In-dialog requests over the old connection, both ways.
    end_over_tls(&mut ladder, &mut old, &first);
    // What is new on the old connection is passed on.
    let fourth = call_over_tls(&mut ladder, &mut old);
    ladder.pf.until("it is the new process's, too", |pf| pf.metric("cpm_pf_dialogs", &[]) == 4.0);
    end_over_tls(&mut ladder, &mut old, &fourth);
    end_over_tls(&mut ladder, &mut old, &second);
    assert_eq!(ladder.pf.former_ends().code(), Some(0));
    assert!(old.is_closed(), "the connection ends with its process, and its peer is told");
    end_over_tls(&mut ladder, &mut new, &third);
    assert_eq!(ladder.pf.metric("cpm_pf_rejections_total", &[]), 0.0);
}

/// Answers INVITE and BYE until `stop`.
fn serve(mut core: Ue, stop: &AtomicBool) {
    while let Some((request, from)) = core.until(stop, |message| matches!(message.method(), "INVITE" | "BYE")) {
        match request.method() {
            "INVITE" => accept(&mut core, &request, from),
            _ => core.answer(&request, from, "200 OK", "", ""),
        }
    }
}

/// One call after the other, nothing sent twice: a message that is lost fails the test.
fn calls(mut alice: Ue, pf: SocketAddr, stop: &AtomicBool, count: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let invite = Invite::new(&alice, "sip:bob@example.org", SESSION);
        alice.send(pf, &invite.text());
        // While ACK waits for a hand-over to end, the 200 of the call before may be sent again.
        let of_invite = |message: &Message| {
            message.status() >= 200
                && message.header("Call-ID") == invite.get("Call-ID")
                && message.want("CSeq").ends_with("INVITE")
        };
        let (ok, _) = alice.next("an answer to INVITE", of_invite);
        assert_eq!(ok.status(), 200, "{ok:?}");
        alice.ack(pf, &invite.message(), &ok);
        let bye = alice.in_dialog("BYE", &ok, 1);
        alice.send(pf, &bye);
        let of_bye = |message: &Message| {
            message.status() >= 200 && message.header("Call-ID") == ok.header("Call-ID") && message.want("CSeq").ends_with("BYE")
        };
        let (answer, _) = alice.next("an answer to BYE", of_bye);
        assert_eq!(answer.status(), 200, "{answer:?}");
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// `CPM_PF_HANDOVERS=100` for the long form.
#[test]
fn no_call_fails_while_processes_come_and_go() {
    let rounds: usize = std::env::var("CPM_PF_HANDOVERS").ok().and_then(|count| count.parse().ok()).unwrap_or(3);
    let ladder = Originating::new(&format!("{HANDOVER}---\n[limits]\nsessions_per_originator = 100000\n"));
    let Originating { alice, core, isf: _isf, mut pf } = ladder;
    let (stop, served) = (AtomicBool::new(false), AtomicBool::new(false));
    let (udp, tcp, counts) = (pf.udp, pf.tcp.expect("bound"), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    std::thread::scope(|scope| {
        let (serving, stopping) = (Stopping(&served), Stopping(&stop));
        scope.spawn(|| serve(core, &served));
        let callers = [
            scope.spawn(|| calls(alice, udp, &stop, &counts[0])),
            scope.spawn(|| calls(Ue::tcp("alice"), tcp, &stop, &counts[1])),
        ];
        let more = |pf: &Proxy| {
            let before = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
            pf.until("calls go on over both transports", |_| {
                counts.iter().zip(before).all(|(count, before)| count.load(Ordering::Relaxed) > before + 3)
            });
        };
        more(&pf);
        for _ in 0..rounds {
            pf.succeed();
            more(&pf);
            assert_eq!(pf.former_ends().code(), Some(0));
            more(&pf);
        }
        drop(stopping);
        // The core answers until the last call is over.
        let ended = callers.map(|caller| caller.join());
        drop(serving);
        assert!(ended.iter().all(Result::is_ok), "a call failed");
    });
    let [by_udp, by_tcp] = counts.map(AtomicUsize::into_inner);
    println!("{by_udp} calls over UDP and {by_tcp} over TCP through {rounds} hand-overs, none failed");
    assert_eq!(pf.metric("cpm_pf_rejections_total", &[]), 0.0);
}

/// Stops the others also where the test fails.
struct Stopping<'s>(&'s AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_new_process_that_dies_leaves_the_old_one_serving() {
    let mut ladder = Originating::new(HANDOVER);
    let waiting = Waiting::new();
    let (mut a, mut b, ok) = session(&mut ladder, &waiting, SESSION);
    // A connection that nobody has read from yet would be the new process's, and die with it.
    talk(&mut a, &mut b, "before01");
    ladder.pf.succeed();
    ladder.pf.until("the new one is ready", |pf| pf.get("/readyz").0 == 200);
    ladder.pf.successor_dies();
    ladder.pf.until("the old one serves again", |pf| pf.log().contains("this process serves on"));
    talk(&mut a, &mut b, "goeson01");
    let (mut c, mut d, new) = session(&mut ladder, &waiting, SESSION);
    talk(&mut c, &mut d, "newone01");
    hang_up(&mut ladder, &new);
    hang_up(&mut ladder, &ok);
    assert_eq!(ladder.pf.get("/readyz").0, 200);
    // And it can be taken over from again.
    ladder.pf.succeed();
    assert_eq!(ladder.pf.former_ends().code(), Some(0));
}

#[test]
fn a_new_process_that_cannot_begin_changes_nothing() {
    let mut ladder = Originating::new(HANDOVER);
    let waiting = Waiting::new();
    let (.., ok) = session(&mut ladder, &waiting, SESSION);
    let good = std::fs::read_to_string(ladder.pf.path("cpm-pf.toml")).expect("it is there");
    // Other stores: refused before anything is let go.
    std::fs::write(ladder.pf.path("cpm-pf.toml"), good.replace("file:var/history", "file:var/other")).expect("writable");
    let (mut child, ready) = ladder.pf.try_to_succeed();
    assert_eq!((ready.as_str(), child.wait().expect("it is our child").code()), ("", Some(1)));
    // An address that is taken: found after everything was let go.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = taken.local_addr().expect("bound");
    let wrong = good.replacen("\"tcp://127.0.0.1:0\"", &format!("\"tcp://{address}\""), 1);
    std::fs::write(ladder.pf.path("cpm-pf.toml"), wrong).expect("writable");
    let (mut child, ready) = ladder.pf.try_to_succeed();
    assert_eq!((ready.as_str(), child.wait().expect("it is our child").code()), ("", Some(1)));
    ladder.pf.until("the old one serves again", |pf| pf.log().contains("this process serves on"));
    hang_up(&mut ladder, &ok);
    let (.., ok) = session(&mut ladder, &waiting, SESSION);
    hang_up(&mut ladder, &ok);
}

/// A message that is kept for bob goes to the store of the process that took over.
#[test]
fn what_is_deferred_by_the_old_process_is_delivered_by_the_new_one() {
    let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let mut pf = Proxy::start(HANDOVER);
    let body = vec![b'x'; 200_000];
    deferral::accepted(&mut alice, &pf, "before01", &body, |invite| invite);
    deferral::waiting(&pf, 1);
    let (mut sender, _, ok) = deferral::session(&mut alice, &pf, |invite| invite);
    pf.succeed();
    deferral::waiting(&pf, 1);
    sender.send("during01", &body);
    sender.expect("200");
    deferral::bye(&mut alice, &pf, &ok);
    deferral::waiting(&pf, 2);
    assert_eq!(pf.former_ends().code(), Some(0));
    deferral::register(&pf, &bob, HANDOVER);
    for id in ["before01", "during01"] {
        let (_, came, octets) = deferral::taken(&mut bob);
        assert!(came == id && octets == body, "{came} instead of {id}");
    }
    deferral::waiting(&pf, 0);
}

/// What the old process is delivering is its own until it has done so.
#[test]
fn a_delivery_that_is_under_way_is_not_begun_again() {
    let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let registered = registered(deferral::BOB, &[(bob.address, deferral::CLIENT)]);
    let mut pf = Proxy::start(HANDOVER);
    deferral::accepted(&mut alice, &pf, "message1", b"hello", |invite| invite);
    deferral::waiting(&pf, 1);
    pf.configure(&format!("{HANDOVER}---\n{registered}"));
    pf.signal("HUP");
    let (arrived, from) = bob.expect_from("INVITE");
    pf.succeed();
    bob.nothing(pf.udp, "a second delivery", |message| {
        message.method() == "INVITE" && message.header("Call-ID") != arrived.header("Call-ID")
    });
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "late", "passive", "recvonly");
    let contact = format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", bob.address);
    bob.answer(&arrived, from, "200 OK", &contact, &sdp);
    let mut receiver = waiting.accept(&format!("msrp://{}/late;tcp", waiting.address()), arrived.attribute("path"));
    assert_eq!(receiver.message(), b"hello");
    let (bye, from) = bob.expect_from("BYE");
    bob.answer(&bye, from, "200 OK", "", "");
    deferral::waiting(&pf, 0);
    assert_eq!(pf.former_ends().code(), Some(0));
}

#[test]
fn a_signal_starts_the_new_process_and_the_service_manager_hears_of_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let manager = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&manager).expect("a socket in a folder");
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    let environment = [("NOTIFY_SOCKET".into(), manager.display().to_string())];
    let mut pf = Proxy::start_with(folder, HANDOVER, &environment);
    let until = |line: &str| {
        let mut buffer = [0; 4096];
        loop {
            let read = crate::reading::undisturbed(|| socket.recv(&mut buffer))
                .unwrap_or_else(|error| panic!("{line} is not told: {error}"));
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            if let Some(found) = text.lines().find_map(|told| told.strip_prefix(line)) {
                return found.to_owned();
            }
        }
    };
    until("READY=1");
    pf.signal("USR2");
    let main: u32 = until("MAINPID=").parse().expect("a process id");
    assert_ne!(main, pf.pid());
    assert_eq!(pf.wait().code(), Some(0), "the old one had no sessions");
    pf.until("the new one answers", |pf| pf.get("/readyz").0 == 200);
    let kill = |name: &str| std::process::Command::new("kill").args([name, &main.to_string()]).status().expect("kill is there");
    assert!(kill("-TERM").success());
    pf.until("the new one ends", |_| !std::path::Path::new(&format!("/proc/{main}/stat")).exists() || is_zombie(main));
}

fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
