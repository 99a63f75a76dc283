//! OMA Message Storage 6.3.1: a few connections to the Message Storage Server, kept while it keeps them.
//!
//! ```text
//! objects ─> pending ─> a free connection takes the first, and those after it that go into the same mailbox: one APPEND
//! ```
//! While connections are free each object goes at once; what gathers while all are busy shares an APPEND (RFC 3502), where the
//! server offers that. An APPEND is atomic: where it is refused each of its objects is offered by itself, so that one that is
//! wrong costs no other its place.

use super::imap::{Connection, Failure, Server};
use crate::limits::{IMAP_BATCH_MAX, IMAP_BATCH_OCTETS_MAX, IMAP_CONNECTIONS_MAX};
use crate::store::history::Object;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// How long one APPEND may take, once connected: a body of 100 MiB at less than 1 MiB a second.
const STORE_TIME: Duration = Duration::from_secs(120);

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
}

/// An object on its way, and whom to tell.
struct Pending {
    object: Object,
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
        Self::with_batches(server, IMAP_BATCH_MAX)
    }

    /// With so many objects in one APPEND at most.
    pub fn with_batches(server: Server, batch_max: usize) -> Self {
        let (idle, pending) = Default::default();
        Self { server, idle, places: Semaphore::new(IMAP_CONNECTIONS_MAX), pending, batch: Cell::new(1), batch_max }
    }

    /// Stores an object and gives its UID, where the server tells it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, object: &Object) -> Result<Option<u32>, Failure> {
        let (done, mut answer) = oneshot::channel();
        self.pending.borrow_mut().push_back(Pending { object: object.clone(), done });
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
        let sent = self.send_all(&objects).await;
        let results: Vec<_> = match sent {
            Ok(uids) => uids.into_iter().map(Ok).collect(),
            Err(Failure::Away(error)) => objects.iter().map(|_| Err(Failure::Away(error.clone()))).collect(),
            Err(failure) if objects.len() == 1 => vec![Err(failure)],
            Err(_) => {
                let mut results = Vec::with_capacity(objects.len());
                for object in &objects {
                    let sent = self.send_all(&[object]).await;
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

    async fn send_all(&self, objects: &[&Object]) -> Result<Vec<Option<u32>>, Failure> {
        let idle = self.idle.borrow_mut().pop();
        if let Some(connection) = idle {
            // The server may have closed it meanwhile: then a new one says what is so.
            match self.send_over(connection, objects).await {
                Err(Failure::Away(_)) => {}
                other => return other,
            }
        }
        let connection = self.server.connect().await?;
        self.batch.set(if connection.takes_several() { self.batch_max } else { 1 });
        self.send_over(connection, objects).await
    }

    async fn send_over(&self, mut connection: Connection, objects: &[&Object]) -> Result<Vec<Option<u32>>, Failure> {
        let stored = tokio::time::timeout(STORE_TIME, connection.store(objects)).await;
        let stored = stored.unwrap_or_else(|_| Err(Failure::Away("no answer in time".to_owned())));
        if !matches!(stored, Err(Failure::Away(_) | Failure::Body(_))) {
            self.idle.borrow_mut().push(connection);
        }
        stored
    }
}

fn given_up() -> Failure {
    Failure::Away("the connection was given up".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::history::Body;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

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

    /// Appends that were carried out, each with the bodies of its messages.
    type Appends = Arc<Mutex<Vec<Vec<String>>>>;

    fn server(capabilities: &'static str) -> (Pool, Appends) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let appends = Appends::default();
        let shared = appends.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let appends = shared.clone();
                std::thread::spawn(move || session(stream, capabilities, &appends));
            }
        });
        (Pool::new(Server::parse(&format!("imap://cpm:x@127.0.0.1:{port}")).unwrap()), appends)
    }

    fn session(stream: TcpStream, capabilities: &str, appends: &Mutex<Vec<Vec<String>>>) -> Option<()> {
        let mut out = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream);
        out.write_all(b"* OK ready\r\n").ok()?;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let (tag, command) = line.trim_end().split_once(' ').map(|(tag, command)| (tag.to_owned(), command.to_owned()))?;
            let answer = match command.split(' ').next()? {
                "CAPABILITY" => format!("* CAPABILITY IMAP4rev1 UIDPLUS {capabilities}\r\n{tag} OK done\r\n"),
                "LIST" => format!("* LIST (\\Noselect) \"/\" \"\"\r\n{tag} OK done\r\n"),
                "APPEND" => {
                    let bodies = literals(&mut lines, &mut out, command)?;
                    // A server takes all messages of an APPEND or none (RFC 3502).
                    if bodies.iter().any(|body| body.contains("bad")) {
                        format!("{tag} NO there is something wrong with one of them\r\n")
                    } else {
                        let last = 16 + bodies.len();
                        appends.lock().unwrap().push(bodies);
                        format!("{tag} OK [APPENDUID 1 17:{last}] done\r\n")
                    }
                }
                _ => format!("{tag} OK done\r\n"),
            };
            out.write_all(answer.as_bytes()).ok()?;
        }
    }

    fn literals(lines: &mut BufReader<TcpStream>, out: &mut TcpStream, mut line: String) -> Option<Vec<String>> {
        let mut bodies = Vec::new();
        while let Some((_, size)) = line.trim_end().strip_suffix('}').and_then(|line| line.rsplit_once('{')) {
            if !size.ends_with('+') {
                out.write_all(b"+ go on\r\n").ok()?;
            }
            let mut literal = vec![0; size.trim_end_matches('+').parse().ok()?];
            lines.read_exact(&mut literal).ok()?;
            bodies.push(String::from_utf8(literal).ok()?.trim_start().to_owned());
            line.clear();
            lines.read_line(&mut line).ok()?;
        }
        Some(bodies)
    }

    async fn send(pool: &Pool, objects: &[Object]) -> Vec<Result<Option<u32>, Failure>> {
        futures_util::future::join_all(objects.iter().map(|object| pool.send(object))).await
    }

    /// One is under way on each connection, so that the others gather.
    fn many(texts: &[&str]) -> Vec<Object> {
        let busy = (0..IMAP_CONNECTIONS_MAX).map(|number| object(&format!("busy{number}"), "busy"));
        busy.chain(texts.iter().map(|text| object("conversation", text))).collect()
    }

    #[test]
    fn what_gathers_for_one_mailbox_goes_in_one_append() {
        for capabilities in ["MULTIAPPEND LITERAL+", "MULTIAPPEND", ""] {
            let (pool, appends) = server(capabilities);
            tokio_uring::start(async {
                // The first tells what the server can do.
                assert!(matches!(pool.send(&object("first", "first")).await, Ok(Some(17))));
                let sent = send(&pool, &many(&["one", "two", "three"])).await;
                assert!(sent.iter().all(|sent| matches!(sent, Ok(Some(17..=19)))), "{sent:?}");
            });
            let appends = appends.lock().unwrap();
            let several: Vec<_> = appends.iter().filter(|bodies| bodies.len() > 1).collect();
            match capabilities {
                "" => assert_eq!((several.len(), appends.len()), (0, 1 + IMAP_CONNECTIONS_MAX + 3)),
                _ => assert_eq!(several, [&["one", "two", "three"]], "{capabilities}"),
            }
        }
    }

    #[test]
    fn one_that_is_refused_costs_no_other_its_place() {
        let (pool, appends) = server("MULTIAPPEND LITERAL+");
        tokio_uring::start(async {
            pool.send(&object("first", "first")).await.unwrap();
            let sent = send(&pool, &many(&["one", "bad", "three"])).await;
            let refused: Vec<_> = sent.iter().map(|sent| matches!(sent, Err(Failure::Refused(_)))).collect();
            assert_eq!(refused[IMAP_CONNECTIONS_MAX..], [false, true, false], "{sent:?}");
        });
        let mut kept: Vec<_> =
            appends.lock().unwrap().concat().into_iter().filter(|body| body != "busy" && body != "first").collect();
        kept.sort();
        assert_eq!(kept, ["one", "three"]);
    }
}
