//! OMA Message Storage 6.3.1: a few connections to the Message Storage Server, kept while it keeps them.
//!
//! ```text
//! objects ─> pending ─> a free connection takes the first, and those after it that go into the same mailbox: one APPEND
//! ```
//! While connections are free an object goes at once; what comes together, or gathers while all are busy, shares an APPEND (RFC 3502),
//! where the server offers that. An APPEND is atomic: where it is refused each of its objects is offered by itself, so that one that
//! is wrong costs no other its place.
//!
//! An object that was sent and of which nothing was heard may be there: it is looked for before it is offered again.
//!
//! Nobody waits long for a server that does not answer: what finds too many before it, and what is pending when one got no answer,
//! is told that the server is away, and waits on disk.

use super::imap::{Connection, Failure};
use super::imap_server::Server;
use crate::limits::{IMAP_BATCH_MAX, IMAP_BATCH_OCTETS_MAX, IMAP_CONNECTIONS_MAX, IMAP_PENDING_MAX};
use crate::store::history::Object;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// How long one APPEND may take, once connected, and how much longer for each MiB of its bodies.
const STORE_TIME: Duration = Duration::from_secs(20);
const STORE_TIME_A_MIB: Duration = Duration::from_secs(1);

/// The server and the connections to it.
pub struct Pool {
    server: Server,
    idle: RefCell<Vec<Connection>>,
    places: Semaphore,
    pending: RefCell<VecDeque<Pending>>,
    /// Objects in one APPEND: more than one where the last connection said that it takes them.
    batch: Cell<usize>,
    /// No more than that, whatever a server offers.
    batch_max: usize,
    /// How long an APPEND of nothing may take.
    store_time: Duration,
}

/// The UIDs of objects that were stored.
type Stored = Result<Vec<Option<u32>>, Failure>;

/// An object on its way, and whom to tell.
struct Pending {
    object: Object,
    /// It was offered before, and may be there.
    unsure: bool,
    done: oneshot::Sender<Result<Option<u32>, Failure>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.server.fmt(f)
    }
}

impl Pool {
    /// Without a connection: the first object makes one.
    pub fn new(server: Server) -> Self {
        Self::with(server, IMAP_CONNECTIONS_MAX, IMAP_BATCH_MAX)
    }

    /// With so many connections, and objects in one APPEND, at most.
    pub fn with(server: Server, connections: usize, batch_max: usize) -> Self {
        let (idle, pending) = Default::default();
        let (places, batch) = (Semaphore::new(connections), Cell::new(1));
        Self { server, idle, places, pending, batch, batch_max, store_time: STORE_TIME }
    }

    /// Stores an object and gives its UID, where the server tells it. `unsure`: it was offered before, and may be there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, object: &Object, unsure: bool) -> Result<Option<u32>, Failure> {
        if self.pending.borrow().len() >= IMAP_PENDING_MAX {
            return Err(Failure::Away("too many objects wait for it already".to_owned()));
        }
        let (done, mut answer) = oneshot::channel();
        self.pending.borrow_mut().push_back(Pending { object: object.clone(), unsure, done });
        // Who comes at the same moment is here before a connection is taken.
        tokio::task::yield_now().await;
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => return answered.unwrap_or_else(|_| Err(given_up())),
                place = self.places.acquire() => {
                    let batch = self.next_batch();
                    if batch.is_empty() {
                        // It goes with somebody else's, over another connection.
                        drop(place);
                        return answer.await.unwrap_or_else(|_| Err(given_up()));
                    }
                    self.send_batch(batch).await;
                }
            }
        }
    }

    /// The first object that waits, and others that go with it, in their order.
    fn next_batch(&self) -> Vec<Pending> {
        let mut pending = self.pending.borrow_mut();
        let Some(first) = pending.pop_front() else { return Vec::new() };
        let mut octets = first.object.body.octets();
        let mut batch = vec![first];
        let mut others = VecDeque::new();
        while batch.len() < self.batch.get() {
            let Some(next) = pending.pop_front() else { break };
            let same = next.object.user == batch[0].object.user && next.object.folder == batch[0].object.folder;
            octets += if same { next.object.body.octets() } else { 0 };
            if same && octets > IMAP_BATCH_OCTETS_MAX {
                // Nothing overtakes it.
                pending.push_front(next);
                break;
            }
            if same { batch.push(next) } else { others.push_back(next) }
        }
        others.append(&mut pending);
        *pending = others;
        batch
    }

    async fn send_batch(&self, batch: Vec<Pending>) {
        let objects: Vec<&Object> = batch.iter().map(|pending| &pending.object).collect();
        let unsure = batch.iter().any(|pending| pending.unsure);
        let sent = self.send_all(&objects, unsure).await;
        let results: Vec<_> = match sent {
            Ok(uids) => uids.into_iter().map(Ok).collect(),
            Err(Failure::Away(error)) => {
                self.turn_away(&error);
                objects.iter().map(|_| Err(Failure::Away(error.clone()))).collect()
            }
            Err(Failure::Unsure(error)) => {
                self.turn_away(&error);
                objects.iter().map(|_| Err(Failure::Unsure(error.clone()))).collect()
            }
            Err(failure) if objects.len() == 1 => vec![Err(failure)],
            Err(_) => {
                let mut results = Vec::with_capacity(objects.len());
                for object in &objects {
                    let sent = self.send_all(&[object], unsure).await;
                    results.push(sent.map(|uids| uids.first().copied().flatten()));
                }
                results
            }
        };
        for (pending, result) in batch.into_iter().zip(results) {
            // Who asked is gone when the process ends.
            let _ = pending.done.send(result);
        }
    }

    /// What is pending would wait as long for the same answer.
    fn turn_away(&self, error: &str) {
        for pending in self.pending.take() {
            let _ = pending.done.send(Err(Failure::Away(error.to_owned())));
        }
    }

    async fn send_all(&self, objects: &[&Object], unsure: bool) -> Stored {
        let idle = self.idle.borrow_mut().pop();
        let unsure = match idle {
            None => unsure,
            Some(connection) => match self.send_over(connection, objects, unsure).await {
                // The server may have closed it meanwhile: then a new one says what is so.
                Sent::Broken(_, unsure) => unsure,
                Sent::Answered(stored) => return stored,
                Sent::Silent(unsure) => return Err(away("no answer in time".to_owned(), unsure)),
            },
        };
        let connection = match self.server.connect().await {
            Ok(connection) => connection,
            Err(Failure::Away(error)) => return Err(away(error, unsure)),
            Err(failure) => return Err(failure),
        };
        self.batch.set(if connection.takes_several() { self.batch_max } else { 1 });
        match self.send_over(connection, objects, unsure).await {
            Sent::Answered(stored) => stored,
            Sent::Broken(error, unsure) => Err(away(error, unsure)),
            Sent::Silent(unsure) => Err(away("no answer in time".to_owned(), unsure)),
        }
    }

    async fn send_over(&self, mut connection: Connection, objects: &[&Object], unsure: bool) -> Sent {
        let octets: u64 = objects.iter().map(|object| object.body.octets()).sum();
        let time = self.store_time + STORE_TIME_A_MIB * u32::try_from(octets >> 20).unwrap_or(u32::MAX);
        let stored = async { if unsure { connection.store_missing(objects).await } else { connection.store(objects).await } };
        match tokio::time::timeout(time, stored).await {
            Err(_) => Sent::Silent(unsure || connection.is_unanswered()),
            Ok(Err(Failure::Away(error))) => Sent::Broken(error, unsure || connection.is_unanswered()),
            // It stands in the middle of a literal.
            Ok(Err(failure @ Failure::Body(_))) => Sent::Answered(Err(failure)),
            Ok(stored) => {
                self.idle.borrow_mut().push(connection);
                Sent::Answered(stored)
            }
        }
    }
}

/// What became of objects sent over one connection; with the last two, whether they may have been stored.
enum Sent {
    Answered(Stored),
    Broken(String, bool),
    /// It would say no more over another connection.
    Silent(bool),
}

const fn away(error: String, unsure: bool) -> Failure {
    if unsure { Failure::Unsure(error) } else { Failure::Away(error) }
}

fn given_up() -> Failure {
    Failure::Away("the connection was given up".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::services::imap_double::{Double, FIRST_UID, Manners, nobody};
    use crate::store::history::Body;

    fn object(conversation: &str, text: &str) -> Object {
        Object {
            user: "sip:bob@example.net".to_owned(),
            folder: vec![conversation.to_owned()],
            headers: Vec::new(),
            body: Body::Inline(text.as_bytes().to_vec()),
            seen: false,
            date_s: 1,
        }
    }

    async fn send(pool: &Pool, objects: &[Object]) -> Vec<Result<Option<u32>, Failure>> {
        futures_util::future::join_all(objects.iter().map(|object| pool.send(object, false))).await
    }

    /// What the first says about the server, and that its mailbox is there.
    async fn begun(pool: &Pool) {
        assert!(matches!(pool.send(&object("conversation", "first"), false).await, Ok(Some(FIRST_UID))));
    }

    /// The bodies of each APPEND that was carried out.
    fn appends(server: &Double) -> Vec<Vec<String>> {
        let bodies = |append: &Vec<String>| append.iter().map(|message| message.trim_start().to_owned()).collect();
        server.heard().appends.iter().map(bodies).collect()
    }

    #[test]
    fn what_comes_together_for_one_mailbox_goes_in_one_append() {
        for capabilities in ["UIDPLUS MULTIAPPEND LITERAL+", "UIDPLUS MULTIAPPEND LITERAL-", "UIDPLUS MULTIAPPEND", "UIDPLUS"] {
            let server = Double::start(Manners::with(capabilities));
            let pool = Pool::new(server.server());
            tokio_uring::start(async {
                begun(&pool).await;
                let objects = ["one", "two", "three"].map(|text| object("conversation", text));
                let sent = send(&pool, &objects).await;
                assert!(sent.iter().all(|sent| matches!(sent, Ok(Some(18..=20)))), "{sent:?}");
            });
            let appends = appends(&server);
            match capabilities {
                "UIDPLUS" => assert_eq!(appends.len(), 4),
                _ => assert_eq!(appends, [&["first"][..], &["one", "two", "three"]], "{capabilities}"),
            }
        }
    }

    #[test]
    fn what_gathers_while_all_connections_are_busy_keeps_its_order() {
        let server = Double::start(Manners::with("UIDPLUS MULTIAPPEND LITERAL+"));
        let pool = Pool::with(server.server(), 1, IMAP_BATCH_MAX);
        tokio_uring::start(async {
            begun(&pool).await;
            let objects = [("other", "1"), ("conversation", "2"), ("other", "3"), ("conversation", "4")];
            let sent = send(&pool, &objects.map(|(folder, text)| object(folder, text))).await;
            assert!(sent.iter().all(Result::is_ok), "{sent:?}");
        });
        assert_eq!(appends(&server), [&["first"][..], &["1", "3"], &["2", "4"]]);
    }

    #[test]
    fn a_small_literal_is_not_waited_for_where_the_server_says_so() {
        for (capabilities, octets, plus) in
            [("LITERAL+", 5_000, true), ("LITERAL-", 4_000, true), ("LITERAL-", 5_000, false), ("", 1, false)]
        {
            let server = Double::start(Manners::with(capabilities));
            let pool = Pool::new(server.server());
            tokio_uring::start(async {
                assert!(pool.send(&object("conversation", &"x".repeat(octets)), false).await.is_ok());
            });
            let heard = server.heard();
            let appends: Vec<_> = heard.commands.iter().filter(|command| command.starts_with("APPEND")).collect();
            assert!(appends.iter().all(|append| append.ends_with("+}") == plus), "{capabilities}: {appends:?}");
        }
    }

    #[test]
    fn one_that_is_refused_costs_no_other_its_place() {
        let server = Double::start(Manners::with("UIDPLUS MULTIAPPEND LITERAL+"));
        let pool = Pool::new(server.server());
        tokio_uring::start(async {
            begun(&pool).await;
            let sent = send(&pool, &["one", "bad", "three"].map(|text| object("conversation", text))).await;
            let refused: Vec<_> = sent.iter().map(|sent| matches!(sent, Err(Failure::Refused(_)))).collect();
            assert_eq!(refused, [false, true, false], "{sent:?}");
        });
        assert_eq!(appends(&server).concat(), ["first", "one", "three"]);
    }

    #[test]
    fn nobody_waits_for_a_server_that_says_nothing_longer_than_the_first() {
        let server = Double::start(Manners { hangs: true, ..Manners::with("UIDPLUS LITERAL+") });
        let pool = Pool { store_time: Duration::from_millis(50), ..Pool::new(server.server()) };
        let objects: Vec<_> = (0..IMAP_PENDING_MAX + 10).map(|number| object(&number.to_string(), "x")).collect();
        tokio_uring::start(async {
            let sent = send(&pool, &objects).await;
            let away = |sent: &Result<_, Failure>| matches!(sent, Err(Failure::Away(_) | Failure::Unsure(_)));
            assert!(sent.iter().all(away), "{sent:?}");
            let full = |sent: &Result<_, Failure>| matches!(sent, Err(Failure::Away(why)) if why.starts_with("too many"));
            assert_eq!(sent.iter().filter(|sent| full(sent)).count(), 10);
        });
        // Only what had a connection was offered.
        assert!(server.heard().count("APPEND") <= IMAP_CONNECTIONS_MAX);
    }

    #[test]
    fn what_may_have_been_stored_is_looked_for_before_it_is_offered_again() {
        for capabilities in ["UIDPLUS", "UIDPLUS MULTIAPPEND LITERAL+"] {
            let server = Double::start(Manners::with(capabilities));
            let pool = Pool::new(server.server());
            let named = |id: &str, direction: &str| Object {
                headers: [("IMDN-Message-ID", id), ("Message-Direction", direction), ("Content-Type", "text/plain")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .to_vec(),
                ..object("conversation", "x")
            };
            // One of a longer id, and one of the other direction, are others.
            let (first, long, other) = (named("id-1", "sent"), named("id-11", "sent"), named("id-1", "received"));
            tokio_uring::start(async {
                assert!(matches!(pool.send(&long, false).await, Ok(Some(FIRST_UID))));
                assert!(matches!(pool.send(&other, false).await, Ok(Some(18))));
                // The server stores it, and the connection breaks before it says so; a new one says that it is there.
                server.break_off();
                assert!(matches!(pool.send(&first, false).await, Ok(Some(19))), "{capabilities}");
                // It was offered before a restart.
                assert!(matches!(pool.send(&first, true).await, Ok(Some(19))));
                assert!(matches!(pool.send(&named("id-2", "sent"), true).await, Ok(Some(20))));
            });
            assert_eq!(server.heard().messages().len(), 4);
        }
    }

    #[test]
    fn what_is_pending_when_nobody_listens_is_told_at_once() {
        let (_port, server) = nobody();
        let pool = Pool::new(server);
        tokio_uring::start(async {
            let objects: Vec<_> = (0..20).map(|number| object(&number.to_string(), "x")).collect();
            assert!(send(&pool, &objects).await.iter().all(|sent| matches!(sent, Err(Failure::Away(_)))));
        });
    }
}
