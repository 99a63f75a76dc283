//! CR 8.3.1.6 on the wire: what is accepted for later is delivered later, whatever happens to the program in between.

use crate::msrp::{Msrp, Waiting};
use crate::proxy::{PATIENCE, Proxy, registered};
use crate::ue::{Invite, LARGE, Message, Ue, answer_sdp};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const BOB: &str = "sip:bob@example.net";
pub const CLIENT: &str = "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000001>\"";

/// Alice sends a large message to an absent user, and it is accepted. The INVITE, for what to compare with.
#[track_caller]
pub fn accepted(alice: &mut Ue, pf: &Proxy, id: &str, body: &[u8], vary: impl Fn(Invite) -> Invite) -> Invite {
    let (mut sender, invite, ok) = session(alice, pf, vary);
    sender.send(id, body);
    sender.expect("200");
    bye(alice, pf, &ok);
    invite
}

/// A session with the program as its endpoint.
#[track_caller]
pub fn session(alice: &mut Ue, pf: &Proxy, vary: impl Fn(Invite) -> Invite) -> (Msrp, Invite, Message) {
    let invite = vary(Invite::new(alice, BOB, LARGE).terminating());
    alice.send(pf.udp, &invite.text());
    let ok = alice.expect_answer(&invite, 200);
    alice.ack(pf.udp, &invite.message(), &ok);
    let sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    (sender, invite, ok)
}

#[track_caller]
pub fn bye(alice: &mut Ue, pf: &Proxy, ok: &Message) {
    let answer = hung_up(alice, pf, ok);
    assert_eq!(answer.status(), 200, "{answer:?}");
}

/// The answer to BYE.
fn hung_up(alice: &mut Ue, pf: &Proxy, ok: &Message) -> Message {
    let bye = Message(alice.in_dialog("BYE", ok, 1));
    alice.send(pf.udp, &bye.0);
    alice.final_answer(&bye)
}

/// The end of a session whose message was refused: the program may have ended it already.
#[track_caller]
pub fn over(alice: &mut Ue, pf: &Proxy, ok: &Message) {
    hung_up(alice, pf, ok);
}

/// Bob's client takes one delivery: the INVITE, the MSRP Message-ID and the octets.
#[track_caller]
pub fn taken(bob: &mut Ue) -> (Message, String, Vec<u8>) {
    let (arrived, from) = bob.expect_call();
    let (id, body) = take(bob, &arrived, from);
    let (bye, from) = bob.expect_bye(&arrived);
    bob.answer(&bye, from, "200 OK", "", "");
    (arrived, id, body)
}

fn take(bob: &mut Ue, arrived: &Message, from: SocketAddr) -> (String, Vec<u8>) {
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "late", "passive", "recvonly");
    let contact = format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", bob.address);
    bob.answer(arrived, from, "200 OK", &contact, &sdp);
    let mut receiver = waiting.accept(&format!("msrp://{}/late;tcp", waiting.address()), arrived.attribute("path"));
    receiver.message_as()
}

pub fn register(pf: &Proxy, bob: &Ue, more: &str) {
    pf.configure(&format!("{more}\n---\n{}", registered(BOB, &[(bob.address, CLIENT)])));
    pf.signal("HUP");
}

pub fn waiting(pf: &Proxy, messages: usize) {
    pf.until(&format!("{messages} messages wait"), |pf| pf.metric("cpm_pf_deferred_messages", &[]) == messages as f64);
}

fn octets(count: u32, seed: u32) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(31).wrapping_add(seed) % 251) as u8).collect()
}

#[test]
fn messages_survive_a_restart_and_come_in_order_one_at_a_time() {
    let mut alice = Ue::udp("alice");
    let pf = Proxy::start("");
    let bodies: Vec<Vec<u8>> = (0..3).map(|n| octets(100_000 * (n + 1), n)).collect();
    let invites: Vec<Invite> =
        bodies.iter().enumerate().map(|(n, body)| accepted(&mut alice, &pf, &format!("msg{n}"), body, |invite| invite)).collect();
    waiting(&pf, 3);
    let pf = Proxy::start_in(pf.stop(), "");
    waiting(&pf, 3);

    let mut bob = Ue::udp("bob");
    register(&pf, &bob, "");
    for (n, body) in bodies.iter().enumerate() {
        let (arrived, from) = bob.expect_call();
        bob.nothing(pf.udp, "a second delivery beside the first", |message| {
            message.method() == "INVITE" && message.header("Call-ID") != arrived.header("Call-ID")
        });
        for name in ["Conversation-ID", "Contribution-ID"] {
            assert_eq!(arrived.header(name), invites[n].get(name), "{name}");
        }
        assert!(arrived.header("Date").is_some());
        let (id, came) = take(&mut bob, &arrived, from);
        assert!(id == format!("msg{n}") && came == *body, "octets out are octets in: {id}");
        let (bye, from) = bob.expect_bye(&arrived);
        bob.answer(&bye, from, "200 OK", "", "");
    }
    waiting(&pf, 0);
    let pf = Proxy::start_in(pf.stop(), &registered(BOB, &[(bob.address, CLIENT)]));
    waiting(&pf, 0);
    bob.nothing(pf.udp, "what it has already", |message| message.method() == "INVITE");
}

#[test]
fn a_client_registered_when_the_program_starts_gets_what_waits() {
    let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let pf = Proxy::start("");
    accepted(&mut alice, &pf, "msg1", b"before the restart", |invite| invite);
    let pf = Proxy::start_in(pf.stop(), &registered(BOB, &[(bob.address, CLIENT)]));
    let (arrived, _, body) = taken(&mut bob);
    assert_eq!(body, b"before the restart");
    // The sender named no service: it is the one of its Accept-Contact.
    assert_eq!(arrived.header("P-Asserted-Service"), Some("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg"));
    waiting(&pf, 0);
}

const CPIM: &[u8] = b"From: <sip:alice@example.net>\r\nTo: <sip:bob@example.net>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: im-1\r\nDateTime: 2024-02-01T10:00:00Z\r\nimdn.Disposition-Notification: negative-delivery\r\n\r\nContent-Type: text/plain\r\n\r\nhello";

#[test]
fn what_our_answer_does_not_accept_is_not_kept() {
    let mut alice = Ue::udp("alice");
    let pf = Proxy::start("");
    let (mut sender, _, ok) = session(&mut alice, &pf, |invite| invite);
    assert_eq!(ok.attribute("accept-types"), "message/cpim text/plain");
    sender.send_as("msg1", "image/png", b"nobody said that it is taken");
    sender.expect("415");
    sender.send_as("msg2", "message/cpim", CPIM);
    sender.expect("200");
    bye(&mut alice, &pf, &ok);
    waiting(&pf, 1);
}

/// Alice's side of the network: our next hop.
fn with_core(core: &Ue, more: &str) -> String {
    format!("{more}\n---\n[sip]\ncore = \"sip:{};lr\"\n", core.address)
}

#[track_caller]
fn told_failed(core: &mut Ue) {
    let (notice, from) = core.expect_from("MESSAGE");
    assert!(notice.uri().starts_with("sip:alice@example.net"), "{notice:?}");
    assert!(notice.body().contains("<message-id>im-1</message-id>") && notice.body().contains("<failed/>"), "{notice:?}");
    core.answer(&notice, from, "200 OK", "", "");
}

#[test]
fn a_message_that_expires_is_deleted_and_its_sender_told_where_it_asked() {
    let (mut alice, mut core) = (Ue::udp("alice"), Ue::udp("core"));
    let pf = Proxy::start(&with_core(&core, "[policy]\ndeferred_expiry = \"2s\""));
    // By its own time, and by the operator's.
    let (mut sender, _, ok) = session(&mut alice, &pf, |invite| invite.with("Message-Expires", "1"));
    sender.send_as("msg1", "message/cpim", CPIM);
    sender.expect("200");
    bye(&mut alice, &pf, &ok);
    accepted(&mut alice, &pf, "msg2", b"nobody will ask", |invite| invite);
    accepted(&mut alice, &pf, "msg3", b"this one stays", |invite| invite.with("Message-Expires", "3600"));
    told_failed(&mut core);
    waiting(&pf, 1);
    core.nothing(pf.udp, "a notice nobody asked for", |message| message.method() == "MESSAGE");
}

#[test]
fn a_sender_that_waits_for_a_notice_gets_it_whatever_ends_in_between() {
    let (mut alice, mut core) = (Ue::udp("alice"), Ue::udp("core"));
    let more = with_core(&core, "");
    let pf = Proxy::start(&more);
    let (mut sender, _, ok) = session(&mut alice, &pf, |invite| invite.with("Message-Expires", "1"));
    sender.send_as("msg1", "message/cpim", CPIM);
    sender.expect("200");
    bye(&mut alice, &pf, &ok);
    // The notice is on its way, and nobody has answered it.
    core.expect("MESSAGE");
    let pf = Proxy::start_in(pf.kill(), &more);
    told_failed(&mut core);
    waiting(&pf, 0);
    let pf = Proxy::start_in(pf.kill(), &more);
    waiting(&pf, 0);
    core.nothing(pf.udp, "what it has heard already", |message| message.method() == "MESSAGE" && message.uri().contains("alice"));
}

#[test]
fn a_client_that_is_busy_gets_it_when_it_registers_again_and_one_that_declines_never() {
    let (mut alice, mut core) = (Ue::udp("alice"), Ue::udp("core"));
    let more = with_core(&core, "");
    let pf = Proxy::start(&more);
    let (mut sender, _, ok) = session(&mut alice, &pf, |invite| invite);
    sender.send_as("msg1", "message/cpim", CPIM);
    sender.expect("200");
    bye(&mut alice, &pf, &ok);

    let clients: Vec<Ue> = (0..3).map(|n| Ue::udp(&format!("client {n}"))).collect();
    for (client, answer) in clients.iter().zip(["486 Busy Here", "503 Service Unavailable", "603 Decline"]) {
        register(&pf, client, &more);
        let (arrived, from) = core.expect_call();
        waiting(&pf, 1);
        core.answer(&arrived, from, answer, "", "");
        core.expect("ACK");
    }
    told_failed(&mut core);
    waiting(&pf, 0);
}

#[test]
fn a_page_is_accepted_for_later_and_survives_a_restart() {
    let mut alice = Ue::udp("alice");
    let pf = Proxy::start("");
    let mut page = Invite::new(&alice, BOB, "msg").terminating().with("CSeq", "1 MESSAGE").with("Content-Type", "message/cpim");
    page.body = String::from_utf8_lossy(CPIM).into_owned();
    let text = page.text().replacen("INVITE", "MESSAGE", 1);
    alice.send(pf.udp, &text);
    alice.expect_status(202);
    waiting(&pf, 1);
    let pf = Proxy::start_in(pf.kill(), "");
    waiting(&pf, 1);
    let mut bob = Ue::udp("bob");
    register(&pf, &bob, "");
    let (arrived, from) = bob.expect_from("MESSAGE");
    assert_eq!(arrived.body().as_bytes(), CPIM);
    assert_eq!(arrived.header("Conversation-ID"), page.get("Conversation-ID"));
    bob.answer(&arrived, from, "200 OK", "", "");
    waiting(&pf, 0);
}

#[test]
fn a_store_that_cannot_be_opened_is_named_and_nothing_is_served() {
    for (store, key) in [
        ("deferred = \"file:/dev/null/deferred\"", "store.deferred"),
        ("history = \"file:/dev/null/history\"", "store.history"),
        ("spool = \"/dev/null/spool\"", "store.spool"),
    ] {
        let (status, log) = Proxy::fails(tempfile::tempdir().expect("a temporary folder"), &format!("[store]\n{store}"));
        assert!(status == Some(1) && log.contains(key) && log.contains("/dev/null/"), "{status:?}: {log}");
    }
    // The spool belongs to one process.
    let pf = Proxy::start("[store]\nspool = \"/tmp/never\"\n---\n[store]\nspool = \"var/spool\"");
    let other = format!("[store]\nspool = \"{}\"", pf.path("var/spool").display());
    let (status, log) = Proxy::fails(tempfile::tempdir().expect("a temporary folder"), &other);
    assert!(status == Some(1) && log.contains("another process uses this spool"), "{status:?}: {log}");
}

#[test]
fn a_spool_that_is_lost_at_run_time_is_told_to_the_sender() {
    let mut alice = Ue::udp("alice");
    let pf = Proxy::start("");
    std::fs::remove_dir_all(pf.path("var/spool")).expect("the spool is there");
    std::fs::write(pf.path("var/spool"), "in the way").expect("the folder can be written");
    let (mut sender, _, ok) = session(&mut alice, &pf, |invite| invite);
    sender.send("msg1", b"nowhere to go");
    let answer = sender.next().expect("the sender is told");
    assert!(answer.kind().parse::<u16>().is_ok_and(|status| status >= 400), "{answer:?}");
    over(&mut alice, &pf, &ok);
    std::fs::remove_file(pf.path("var/spool")).expect("it is there");
    accepted(&mut alice, &pf, "msg2", b"now there is room", |invite| invite);
    waiting(&pf, 1);
}

#[test]
fn what_a_crash_tore_is_dropped_with_a_line_and_the_rest_is_delivered() {
    let mut alice = Ue::udp("alice");
    let pf = Proxy::start("");
    for n in 0..3u32 {
        accepted(&mut alice, &pf, &format!("msg{n}"), &octets(5_000, n), |invite| invite);
    }
    let folder = pf.kill();
    let mut bodies = Vec::new();
    for directory in std::fs::read_dir(folder.path().join("var/deferred/bodies")).expect("bodies lie there").flatten() {
        bodies.extend(std::fs::read_dir(directory.path()).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    // Names sort by arrival: the last one lost its end. A message half received lies in the spool.
    bodies.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
    assert_eq!(bodies.len(), 3);
    std::fs::File::options().write(true).open(&bodies[2]).and_then(|file| file.set_len(17)).expect("it can be cut");
    std::fs::write(folder.path().join("var/spool/aaaaaaaaaaaaaaaa"), "half").expect("the folder can be written");

    let pf = Proxy::start_in(folder, "");
    // The start reads no body: what is lost is noticed when it is to be delivered.
    waiting(&pf, 3);
    assert!(!pf.path("var/spool/aaaaaaaaaaaaaaaa").exists());
    let mut bob = Ue::udp("bob");
    register(&pf, &bob, "");
    for n in 0..2u32 {
        let (_, id, body) = taken(&mut bob);
        assert!(id == format!("msg{n}") && body == octets(5_000, n));
    }
    // The log is written by a thread of its own, which may be behind.
    pf.until("the log tells of the loss", |pf| pf.log().contains("is lost; it is dropped"));
    waiting(&pf, 0);

    // An index that is no index is an error that says which, not a store that begins anew.
    let folder = pf.kill();
    let index = folder.path().join("var/deferred/index.redb");
    std::fs::File::options().write(true).open(&index).and_then(|file| file.set_len(300)).expect("it can be cut");
    let (status, log) = Proxy::fails(folder, "");
    assert!(status == Some(1) && log.contains("store.deferred"), "{status:?}: {log}");
}

/// A small file system that ends with the test.
struct Small(std::path::PathBuf);

impl Small {
    fn mounted(at: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).ok()?;
        let mount =
            std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at).output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_to_the_sender_and_is_over_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(_small) = Small::mounted(folder.path().join("var"), "8m") else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    let mut alice = Ue::udp("alice");
    let pf = Proxy::start_in(folder, "");
    let mut kept = 0;
    let refused = loop {
        let (mut sender, _, ok) = session(&mut alice, &pf, |invite| invite);
        sender.send(&format!("msg{kept}"), &octets(500_000, kept));
        match sender.next() {
            Some(answer) if answer.kind() == "200" => {
                kept += 1;
                bye(&mut alice, &pf, &ok);
            }
            Some(answer) => {
                over(&mut alice, &pf, &ok);
                break answer.kind().to_owned();
            }
            // The connection ended under what was still being sent, and the answer with it: BYE says the same.
            None => {
                alice.expect("BYE");
                break "413".to_owned();
            }
        }
        assert!(kept < 20, "eight megabytes hold no ten");
    };
    assert!(matches!(refused.as_str(), "413" | "500" | "403" | "408"), "{refused}");
    waiting(&pf, kept as usize);
    let mut bob = Ue::udp("bob");
    register(&pf, &bob, "");
    for n in 0..kept {
        let (_, id, body) = taken(&mut bob);
        assert!(id == format!("msg{n}") && body == octets(500_000, n), "{id}");
    }
    waiting(&pf, 0);
    pf.configure("");
    pf.signal("HUP");
    pf.until("nobody is registered", |pf| pf.log().matches("reload").count() >= 2);
    accepted(&mut alice, &pf, "again", &octets(500_000, 77), |invite| invite);
    waiting(&pf, 1);
}

/// One message of the load; whether its last chunk was answered with success. None when the program is gone.
fn offered(alice: &mut Ue, pf: SocketAddr, invite: &Invite, id: &str, body: &[u8], stop: &AtomicBool) -> Option<bool> {
    alice.send(pf, &invite.text());
    let call = invite.get("Call-ID").map(str::to_owned);
    let (answer, _) = alice.until(stop, |message| message.header("Call-ID") == call.as_deref() && message.status() >= 200)?;
    alice.ack(pf, &invite.message(), &answer);
    if answer.status() != 200 {
        return Some(false);
    }
    let mut stream = TcpStream::connect(answer.msrp_address()).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(100))).ok()?;
    let (own, peer) = (invite.message().attribute("path").to_owned(), answer.attribute("path").to_owned());
    let length = body.len();
    let mut frame = format!("MSRP t{id} SEND\r\nTo-Path: {peer}\r\nFrom-Path: {own}\r\nMessage-ID: {id}\r\nByte-Range: 1-*/{length}\r\nContent-Type: message/cpim\r\n\r\n").into_bytes();
    frame.extend_from_slice(body);
    frame.extend_from_slice(format!("\r\n-------t{id}$\r\n").as_bytes());
    stream.write_all(&frame).ok()?;
    let (mut held, mut buffer) = (Vec::new(), [0; 4096]);
    let end = format!("-------t{id}$");
    while memchr::memmem::find(&held, end.as_bytes()).is_none() {
        match crate::reading::read(&mut stream, &mut buffer) {
            Ok(0) => return None,
            Ok(read) => held.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
            }
            Err(_) => return None,
        }
    }
    let bye = alice.in_dialog("BYE", &answer, 1);
    alice.send(pf, &bye);
    Some(held.starts_with(format!("MSRP t{id} 200").as_bytes()))
}

const USERS: usize = 3;

fn user(number: usize) -> String {
    format!("sip:user{number}@example.net")
}

/// Numbers that look like chance, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What the senders were told of their messages, by Message-ID.
#[derive(Default)]
struct Told {
    accepted: Vec<String>,
    refused: Vec<String>,
    /// The program was gone before it said anything.
    nothing: Vec<String>,
}

/// Load on the program until it was killed after so many answers: each sender notes what it was told. Every third message is
/// a fleeting one, where somebody listens for reports: its time is over after a second, and its sender wants to hear of that.
fn load_and_kill(
    pf: Proxy,
    round: usize,
    answers: u64,
    spin: u64,
    told: &Arc<Mutex<Told>>,
    reports: Option<SocketAddr>,
) -> tempfile::TempDir {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let senders: Vec<_> = (0..USERS)
        .map(|sender| {
            let (stop, count, told, to) = (stop.clone(), count.clone(), told.clone(), pf.udp);
            std::thread::spawn(move || {
                let mut alice = Ue::udp("alice");
                for number in 0.. {
                    let mut invite = Invite::new(&alice, &user(sender), LARGE).terminating();
                    let mut id = format!("r{round}s{sender}n{number}");
                    if let Some(reports) = reports.filter(|_| number % 3 == 2) {
                        id.insert_str(0, FLEETING);
                        let identity = format!("<sip:alice@{reports}>");
                        invite = invite.with("Message-Expires", "1").with("P-Asserted-Identity", &identity);
                    }
                    let done = offered(&mut alice, to, &invite, &id, &body_of(&id), &stop);
                    let mut told = told.lock().expect("no sender panics");
                    match done {
                        Some(true) => {
                            told.accepted.push(id);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(false) => told.refused.push(id),
                        None => return told.nothing.push(id),
                    }
                }
            })
        })
        .collect();
    let until = Instant::now() + PATIENCE;
    while (count.load(Ordering::Relaxed) as u64) < answers {
        assert!(Instant::now() < until, "no answers; the log:\n{}", pf.log());
        std::thread::yield_now();
    }
    // Not just after an answer: somewhere in the work on the next ones.
    let until = Instant::now() + Duration::from_micros(spin);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    let folder = pf.kill();
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().expect("a sender ends when the program is gone");
    }
    folder
}

/// How the id of a fleeting message begins.
const FLEETING: &str = "fleeting-";

fn body_of(id: &str) -> Vec<u8> {
    let length = 1 + id.bytes().fold(7u32, |sum, octet| sum.wrapping_mul(31).wrapping_add(u32::from(octet))) % 40_000;
    let wish = if id.starts_with(FLEETING) { "imdn.Disposition-Notification: negative-delivery\r\n" } else { "" };
    let mut body = format!("From: <sip:alice@example.net>\r\nTo: <sip:bob@example.net>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: {id}\r\nDateTime: 2024-02-01T10:00:00Z\r\n{wish}\r\nContent-Type: text/plain\r\n\r\n").into_bytes();
    body.extend((0..length).map(|n| (n % 97) as u8));
    body
}

/// Takes the reports about fleeting messages until `stop`: the ids, as often as they came.
fn take_reports(mut sender: Ue, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<String>> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let mut ids = Vec::new();
        while let Some((notice, from)) = sender.until(&stop, |message| message.method() == "MESSAGE") {
            sender.answer(&notice, from, "200 OK", "", "");
            assert!(notice.body().contains("<failed/>"), "{notice:?}");
            let id = notice.body().split("<message-id>").nth(1).and_then(|rest| rest.split('<').next());
            ids.push(id.expect("a report names its message").to_owned());
        }
        ids
    })
}

/// Clients of all users take what comes until `done`; what each got, by Message-ID.
fn take_all(clients: Vec<Ue>, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<Vec<(String, bool)>>> {
    let taker = |(number, mut client): (usize, Ue)| {
        let stop = stop.clone();
        std::thread::Builder::new().name(format!("client {number}")).spawn(move || {
            let mut got = Vec::new();
            while let Some((arrived, from)) = client.until(&stop, |message| message.method() == "INVITE") {
                let waiting = Waiting::new();
                let sdp = answer_sdp(waiting.address(), "late", "passive", "recvonly");
                let contact = format!("Contact: <sip:x@{}>\nContent-Type: application/sdp\n", client.address);
                client.answer(&arrived, from, "200 OK", &contact, &sdp);
                let Some(mut receiver) =
                    waiting.accept_until(&stop, &format!("msrp://{}/late;tcp", waiting.address()), arrived.attribute("path"))
                else {
                    break;
                };
                let Some((id, body)) = receiver.try_message() else { continue };
                let whole = body == body_of(&id);
                got.push((id, whole));
                if let Some((bye, from)) = client.until(&stop, |message| message.method() == "BYE") {
                    client.answer(&bye, from, "200 OK", "", "");
                }
            }
            got
        })
    };
    clients.into_iter().enumerate().map(|each| taker(each).expect("a thread starts")).collect()
}

fn everybody(clients: &[Ue]) -> String {
    clients.iter().enumerate().map(|(number, client)| registered(&user(number), &[(client.address, CLIENT)])).collect()
}

fn rounds(least: usize) -> usize {
    std::env::var("CPM_PF_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(least)
}

#[test]
fn what_was_answered_before_a_kill_is_delivered_once_after_it() {
    let (told, mut chance) = (Arc::<Mutex<Told>>::default(), Chance(0x9e37_79b9_7f4a_7c15));
    let reporter = Ue::udp("reporter");
    let (reports, stop) = (reporter.address, Arc::new(AtomicBool::new(false)));
    let reporter = take_reports(reporter, &stop);
    let everyone = "[policy]\nauthorised_originators = [\"sip:*\"]\n";
    let mut folder = tempfile::tempdir().expect("a temporary folder");
    let rounds = rounds(20);
    for round in 0..rounds {
        let pf = Proxy::start_in(folder, everyone);
        folder = load_and_kill(pf, round, 1 + chance.below(12), chance.below(20_000), &told, Some(reports));
    }
    let clients: Vec<Ue> = (0..USERS).map(|number| Ue::udp(&format!("client {number}"))).collect();
    let pf = Proxy::start_in(folder, &format!("{everyone}---\n{}", everybody(&clients)));
    let takers = take_all(clients, &stop);
    let until = Instant::now() + 6 * PATIENCE;
    while pf.metric("cpm_pf_deferred_messages", &[]) != 0.0 && Instant::now() < until {
        std::thread::yield_now();
    }
    let left = pf.metric("cpm_pf_deferred_messages", &[]);
    stop.store(true, Ordering::Relaxed);
    let mut delivered: BTreeMap<String, usize> = BTreeMap::new();
    for taker in takers {
        for (id, whole) in taker.join().expect("a client ends") {
            assert!(whole, "{id} is not what was sent");
            *delivered.entry(id).or_default() += 1;
        }
    }
    let reports = reporter.join().expect("the reporter ends");
    let reported: BTreeSet<&String> = reports.iter().collect();
    let told = told.lock().expect("no sender panicked");
    let (arrived, failed) = (
        told.accepted.iter().filter(|id| delivered.contains_key(*id)).count(),
        told.accepted.iter().filter(|id| reported.contains(id)).count(),
    );
    let beyond = told.nothing.iter().filter(|id| delivered.contains_key(*id) || reported.contains(id)).count();
    println!(
        "{rounds} kills: {} accepted = {arrived} delivered + {left} still stored + {failed} reported as failed; {} refused; {} cut off \
         without an answer, of which {beyond} were kept all the same; {} reports came twice",
        told.accepted.len(),
        told.refused.len(),
        told.nothing.len(),
        reports.len() - reported.len()
    );
    assert_eq!(left, 0.0);
    assert_eq!(told.accepted.len(), arrived + failed, "accepted, and neither delivered nor reported, or both");
    for id in &told.accepted {
        assert!(delivered.contains_key(id) != reported.contains(id), "{id} was answered with success");
    }
    assert!(delivered.values().all(|count| *count == 1), "twice to one client: {delivered:?}");
    let refused = told.refused.iter().find(|id| delivered.contains_key(*id) || reported.contains(id));
    assert_eq!(refused, None, "refused, and kept all the same");
}

#[test]
fn a_kill_amid_deliveries_loses_nothing_and_repeats_at_most_what_was_under_way() {
    let (told, mut chance) = (Arc::<Mutex<Told>>::default(), Chance(0x2545_f491_4f6c_dd1d));
    let kills = rounds(20) / 4;
    let mut folder = load_and_kill(Proxy::start(""), 0, 12 * kills as u64, 0, &told, None);
    let mut got: BTreeMap<String, usize> = BTreeMap::new();
    let mut left = f64::MAX;
    for kill in 0..=kills {
        // New ones each time: what the killed program said last is nobody's.
        let clients: Vec<Ue> = (0..USERS).map(|number| Ue::udp(&format!("client {number}"))).collect();
        let pf = Proxy::start_in(folder, &everybody(&clients));
        let stop = Arc::new(AtomicBool::new(false));
        let takers = take_all(clients, &stop);
        let wanted = left.min(pf.metric("cpm_pf_deferred_messages", &[])) - 1.0 - chance.below(9) as f64;
        let wanted = if kill == kills { 0.0 } else { wanted.max(0.0) };
        pf.until("deliveries go on", |pf| pf.metric("cpm_pf_deferred_messages", &[]) <= wanted);
        left = pf.metric("cpm_pf_deferred_messages", &[]);
        folder = pf.kill();
        stop.store(true, Ordering::Relaxed);
        for taker in takers {
            for (id, whole) in taker.join().expect("a client ends") {
                assert!(whole, "{id} is not what was sent");
                *got.entry(id).or_default() += 1;
            }
        }
    }
    let answered = &told.lock().expect("no sender panicked").accepted;
    let again: usize = got.values().map(|count| count - 1).sum();
    println!(
        "{kills} kills amid deliveries: {} answered with success, {} delivered, {again} repeated",
        answered.len(),
        got.len()
    );
    assert!(answered.iter().all(|id| got.contains_key(id)), "something is lost: {answered:?} {got:?}");
    // RFC 4975 has no third party that knows: the client had all of it and we had not yet noted it.
    assert!(again <= kills * USERS, "more was repeated than was under way: {got:?}");
}
