//! Deferred messages in JetStream: what one node accepted another delivers, and servers may go away.

use crate::deferral::{BOB, CLIENT, accepted, over, register, session, taken, waiting};
use crate::peers::{Server, free};
use crate::proxy::{Proxy, registered};
use crate::ue::{Invite, Ue};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long servers may take to find a leader, and the store to give up on one: a test waits so long only when it fails.
pub const ELECTION: Duration = Duration::from_secs(120);

pub fn nats(folder: &Path, port: u16, more: &[&str]) -> Option<Server> {
    let store = folder.join(format!("nats-{port}"));
    let (port_text, store) = (port.to_string(), store.display().to_string());
    let args: Vec<&str> =
        ["-js", "-a", "127.0.0.1", "-p", &port_text, "-sd", &store].into_iter().chain(more.iter().copied()).collect();
    Server::start("nats-server", &args, &folder.join(format!("nats-{port}.log")), port)
}

/// One message for Bob; its INVITE, where its last chunk was answered with success, else what came instead.
pub fn offer(alice: &mut Ue, pf: &Proxy, id: &str, body: &[u8]) -> Result<Invite, String> {
    let (mut sender, invite, ok) = session(alice, pf, |invite| invite);
    sender.wait_up_to(ELECTION);
    sender.send(id, body);
    let answer = sender.next();
    over(alice, pf, &ok);
    match answer {
        Some(answer) if answer.kind() == "200" => Ok(invite),
        answer => Err(format!("{answer:?}")),
    }
}

/// A message that was accepted.
pub struct Accepted {
    pub invite: Invite,
    /// How often it was refused before. Each time a name without a message may stay in the store until its time is over, and count.
    pub refused: usize,
}

/// Offers a message until it is accepted: then the servers have their leader, and the store is open. What is refused never comes,
/// so it has one id all the time.
pub fn until_accepted(alice: &mut Ue, pf: &Proxy, id: &str, body: &[u8]) -> Accepted {
    let until = Instant::now() + ELECTION;
    let mut refused = 0;
    loop {
        match offer(alice, pf, id, body) {
            Ok(invite) => return Accepted { invite, refused },
            Err(answer) => assert!(Instant::now() < until, "no leader in {ELECTION:?}, but {answer}; the log:\n{}", pf.log()),
        }
        refused += 1;
    }
}

fn store(ports: &[u16]) -> String {
    let servers: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("[store]\ndeferred = \"nats://{}\"\n", servers.join(","))
}

/// A JetStream server of a test's own.
struct Shared {
    folder: tempfile::TempDir,
    port: u16,
    server: Server,
    /// The configuration of a node that shares it.
    more: String,
}

/// None: this machine has no NATS server.
fn shared() -> Option<Shared> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    let server = nats(folder.path(), port, &[])?;
    Some(Shared { folder, port, server, more: store(&[port]) })
}

fn octets(count: u32) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(131) % 251) as u8).collect()
}

#[test]
fn what_one_node_accepted_another_delivers_when_the_first_is_dead() {
    let Some(shared) = shared() else { return };
    let more = shared.more.as_str();
    let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let (a, b) = (Proxy::start(more), Proxy::start(more));
    let body = octets(400_000);
    let invite = until_accepted(&mut alice, &a, "msg1", &body).invite;
    accepted(&mut alice, &a, "msg2", b"the second", |invite| invite);
    drop(a.kill());

    register(&b, &bob, more);
    let (arrived, id, came) = taken(&mut bob);
    assert!(id == "msg1" && came == body, "octets out are octets in");
    assert_eq!(arrived.header("Conversation-ID"), invite.get("Conversation-ID"));
    assert_eq!(taken(&mut bob).2, b"the second");
    waiting(&b, 0);
    bob.nothing(b.udp, "what it has already", |message| message.method() == "INVITE");
}

#[test]
fn two_nodes_that_know_the_client_deliver_each_message_once() {
    let Some(shared) = shared() else { return };
    let more = shared.more.as_str();
    let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let (a, b) = (Proxy::start(more), Proxy::start(more));
    for n in 0..4 {
        until_accepted(&mut alice, &a, &format!("msg{n}"), b"once");
    }
    for node in [&a, &b] {
        register(node, &bob, more);
    }
    let mut ids: Vec<String> = (0..4).map(|_| taken(&mut bob).1).collect();
    ids.sort();
    assert_eq!(ids, ["msg0", "msg1", "msg2", "msg3"]);
    waiting(&a, 0);
    for node in [&a, &b] {
        bob.nothing(node.udp, "what it has already", |message| message.method() == "INVITE");
    }
}

#[test]
fn a_node_that_died_amid_a_delivery_goes_on_with_it_when_it_is_back() {
    let Some(shared) = shared() else { return };
    let more = shared.more.as_str();
    let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let a = Proxy::start(more);
    until_accepted(&mut alice, &a, "msg1", b"twice begun");
    register(&a, &bob, more);
    bob.expect("INVITE");
    let a = Proxy::start_in(a.kill(), &format!("{more}\n---\n{}", registered(BOB, &[(bob.address, CLIENT)])));
    assert_eq!(taken(&mut bob).2, b"twice begun");
    waiting(&a, 0);
}

#[test]
fn while_the_servers_are_away_senders_are_told_and_afterwards_all_is_as_before() {
    let Some(Shared { folder, port, server, more }) = shared() else { return };
    let more = more.as_str();
    let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let pf = Proxy::start(more);
    until_accepted(&mut alice, &pf, "msg1", b"before");
    server.kill();
    let answer = offer(&mut alice, &pf, "msg2", b"meanwhile").expect_err("nobody keeps it");
    assert!([" 500", " 413", " 408"].iter().any(|status| answer.contains(status)), "the sender is told: {answer}");

    let _server = nats(folder.path(), port, &[]).expect("it was there");
    // The client library connects again after a while of its own: until then senders are told.
    until_accepted(&mut alice, &pf, "msg3", b"after");
    register(&pf, &bob, more);
    assert_eq!(taken(&mut bob).2, b"before");
    assert_eq!(taken(&mut bob).2, b"after");
    waiting(&pf, 0);
}
