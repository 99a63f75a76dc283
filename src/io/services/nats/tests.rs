//! Two nodes of one store, against a real NATS server where one is installed.

use super::*;
use crate::limits::{DEFERRED_LEASE, SHARED_LEASE};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

const BOB: &str = "sip:bob@example.net";
const NOW: u64 = 1_000_000;

/// A real server on loopback, where one is installed.
struct Server {
    process: Child,
    url: String,
    directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("nats-server");
        command.args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(directory.path().join("js"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let server = Self { process, url: format!("nats://127.0.0.1:{port}"), directory };
        let ready = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        ready.then_some(server)
    }

    fn node(&self, name: &str) -> Shared {
        Shared::open(&self.url, &self.directory.path().join(name), name.to_owned()).unwrap()
    }

    fn message(&self, id: &str, arrived_s: u64) -> Deferred {
        let file = self.directory.path().join(format!("spooled-{id}"));
        std::fs::write(&file, id).unwrap();
        Deferred {
            id: DeferredId(id.to_owned()),
            user: BOB.to_owned(),
            arrived_s,
            expires_s: NOW + 100,
            service: DeferredService::LargeMessage,
            headers: vec![("Subject".to_owned(), "x".to_owned())],
            from: String::new(),
            to: String::new(),
            content_type: "message/cpim".to_owned(),
            message_id: "m".to_owned(),
            octets: id.len() as u64,
            file,
            inline: None,
            parts: Vec::new(),
            negative_delivery: None,
            attempts: 0,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ids(messages: &[Deferred]) -> Vec<&str> {
    messages.iter().map(|message| message.id.0.as_str()).collect()
}

fn id(text: &str) -> DeferredId {
    DeferredId(text.to_owned())
}

#[test]
fn two_nodes_share_the_messages_and_one_alone_delivers() {
    let Some(server) = Server::start() else {
        eprintln!("no nats-server here: not tried");
        return;
    };
    tokio_uring::start(async {
        let (one, two) = (server.node("one"), server.node("two"));
        for (name, arrived) in [("bb", 20), ("cc", 10)] {
            one.defer(server.message(name, arrived)).await.unwrap();
        }
        assert!(!server.directory.path().join("spooled-bb").exists());
        assert_eq!(ids(&two.waiting(BOB, NOW).await.unwrap()), ["cc", "bb"]);
        assert!(two.waiting("sip:bo", NOW).await.unwrap().is_empty());
        // Both try at once: the server lets one through.
        let cc = id("cc");
        let (first, second) = tokio::join!(one.claim(&cc, NOW), two.claim(&cc, NOW));
        let claimed: Vec<_> = [first.unwrap(), second.unwrap()].into_iter().flatten().collect();
        assert_eq!(claimed.len(), 1);
        assert_eq!(std::fs::read_to_string(&claimed[0].file).unwrap(), "cc");
        let (winner, loser) = if claimed[0].file.starts_with(&one.spool) { (&one, &two) } else { (&two, &one) };
        // The loser is told of it, and will look again: the claim may run out.
        assert_eq!(ids(&winner.waiting(BOB, NOW).await.unwrap()), ["bb"]);
        assert_eq!(ids(&loser.waiting(BOB, NOW).await.unwrap()), ["cc", "bb"]);
        assert_eq!(loser.give_back(&id("cc"), 0).await, Err(StoreFailure::Unknown));
        winner.give_back(&id("cc"), NOW + 10).await.unwrap();
        assert!(!claimed[0].file.exists());
        assert!(loser.claim(&id("cc"), NOW + 9).await.unwrap().is_none());
        assert_eq!(loser.claim(&id("cc"), NOW + 10).await.unwrap().unwrap().attempts, 2);
        loser.remove(&id("cc")).await.unwrap();
        assert_eq!(winner.remove(&id("cc")).await, Err(StoreFailure::Unknown));
        assert_eq!(ids(&two.waiting(BOB, NOW).await.unwrap()), ["bb"]);
    });
}

#[test]
fn a_lease_runs_out_and_what_expired_is_swept_once() {
    let Some(server) = Server::start() else { return };
    tokio_uring::start(async {
        let (one, two) = (server.node("one"), server.node("two"));
        let far = NOW + 100_000;
        one.defer(Deferred { expires_s: far, ..server.message("aa", 1) }).await.unwrap();
        one.defer(server.message("bb", 1)).await.unwrap();
        one.claim(&id("aa"), NOW).await.unwrap().unwrap();
        let later = NOW + SHARED_LEASE.as_secs();
        assert!(two.claim(&id("aa"), later - 1).await.unwrap().is_none());
        assert!(two.claim(&id("aa"), later).await.unwrap().is_some());
        let (first, second) = tokio::join!(one.sweep(NOW + 100), two.sweep(NOW + 100));
        assert_eq!(ids(&[first.unwrap(), second.unwrap()].concat()), ["bb"]);
        assert!(one.sweep(NOW + 100).await.unwrap().is_empty());
        assert_eq!(one.messages(), 1);
    });
}

#[test]
fn a_claim_is_renewed_while_the_delivery_goes_on_and_is_lost_where_it_cannot_be() {
    let Some(server) = Server::start() else { return };
    tokio_uring::start(async {
        let (one, two) = (server.node("one"), server.node("two"));
        for name in ["aa", "bb"] {
            one.defer(Deferred { expires_s: NOW + 100_000, ..server.message(name, 1) }).await.unwrap();
            one.claim(&id(name), NOW).await.unwrap().unwrap();
        }
        let lease = SHARED_LEASE.as_secs();
        assert!(one.renew(NOW + 5).await.is_empty());
        assert!(one.renew(NOW + lease - 20).await.is_empty());
        // Longer than one lease, and nobody else gets it.
        assert!(two.claim(&id("aa"), NOW + lease + 10).await.unwrap().is_none());
        // What is given back is not renewed.
        one.give_back(&id("bb"), 0).await.unwrap();
        assert!(one.renew(NOW + 2 * lease - 40).await.is_empty());
        assert!(two.claim(&id("bb"), NOW + lease).await.unwrap().is_some());
        // Nobody renewed in time, and another took it: the delivery here must end, and does not take the claim away.
        let late = NOW + 4 * lease;
        assert!(two.claim(&id("aa"), late).await.unwrap().is_some());
        assert_eq!(one.renew(late).await, [id("aa")]);
        assert!(one.renew(late).await.is_empty());
        assert_eq!(one.give_back(&id("aa"), 0).await, Err(StoreFailure::Unknown));
        // There is an end to renewing.
        let end = late + DEFERRED_LEASE.as_secs();
        assert_eq!(two.renew(end).await, [id("aa"), id("bb")]);
    });
}

#[test]
fn a_large_body_and_a_message_body_come_back_as_they_went() {
    let Some(server) = Server::start() else { return };
    tokio_uring::start(async {
        let (one, two) = (server.node("one"), server.node("two"));
        let large: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7) as u8).collect();
        let message = server.message("aa", 1);
        std::fs::write(&message.file, &large).unwrap();
        one.defer(Deferred { octets: large.len() as u64, ..message }).await.unwrap();
        let claimed = two.claim(&id("aa"), NOW).await.unwrap().unwrap();
        assert_eq!(std::fs::read(&claimed.file).unwrap(), large);
        let octets: Box<[u8]> = (*b"\0\xffx").into();
        let pager = Deferred { inline: Some(octets.clone()), service: DeferredService::Pager, ..server.message("bb", 1) };
        one.defer(pager).await.unwrap();
        assert_eq!(two.claim(&id("bb"), NOW).await.unwrap().unwrap().inline, Some(octets));
    });
}

#[test]
fn servers_that_are_away_are_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    tokio_uring::start(async {
        let shared = Shared::open(&format!("nats://127.0.0.1:{port}"), directory.path(), "x".to_owned()).unwrap();
        assert_eq!(shared.waiting(BOB, NOW).await, Err(StoreFailure::Unavailable));
    });
}
