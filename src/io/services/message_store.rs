//! CR 8.5, OMA Message Storage 6.3.1: objects go to the Message Storage Server over a few connections; while it is away
//! they wait on disk.
//!
//! ```text
//! SPOOL/history/00000000659ab3c0-1f2e….json     what the object says
//! SPOOL/history/00000000659ab3c0-1f2e….body     its body
//! ```
//!
//! Names begin with the time, so the oldest goes first. What is queued was answered as stored.

use super::body_file;
use super::imap::{Connection, Failure, Server};
use crate::base::prng::Prng;
use crate::limits::{HISTORY_QUEUE_MAX, IMAP_CONNECTIONS_MAX};
use crate::shard::exchange::StoreFailure;
use crate::store::history::{Body, Object};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long one object may take, once connected: a body of 100 MiB at less than 1 MiB a second.
const STORE_TIME: Duration = Duration::from_secs(120);
/// How long the queue rests after the server was found away; it doubles up to the last.
const RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Octets of what a queued object says, without its body.
const RECORD_OCTETS_MAX: usize = 1024 * 1024;

/// The server, and the queue before it.
pub struct MessageStore {
    server: Server,
    queue: PathBuf,
    idle: RefCell<Vec<Connection>>,
    places: Semaphore,
    queued: Cell<usize>,
    prng: RefCell<Prng>,
}

impl std::fmt::Debug for MessageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MessageStore({:?})", self.server)
    }
}

/// An [`Object`] as it waits on disk.
#[derive(Serialize, Deserialize)]
struct Queued {
    user: String,
    folder: Vec<String>,
    headers: Vec<(String, String)>,
    seen: bool,
    date_s: u64,
    octets: u64,
}

impl MessageStore {
    /// Opens the queue; the server is asked when there is something for it.
    ///
    /// # Errors
    /// Where the queue's directory cannot be created or read.
    pub fn open(server: Server, spool: &Path, prng: Prng) -> io::Result<Self> {
        let queue = spool.join("history");
        std::fs::create_dir_all(&queue)?;
        let queued = records(&queue)?.len();
        let places = Semaphore::new(IMAP_CONNECTIONS_MAX);
        Ok(Self { server, queue, idle: RefCell::default(), places, queued: Cell::new(queued), prng: RefCell::new(prng) })
    }

    /// Stores an object and gives its UID; none where it waits on disk for a server that is away. Its spooled body is
    /// removed then; where it fails the body stays where it was.
    ///
    /// # Errors
    /// [`StoreFailure::Quota`] or `Unavailable` where the server refuses it, or neither server nor disk takes it.
    pub async fn store(&self, object: &Object, now_s: u64) -> Result<Option<u32>, StoreFailure> {
        // While others wait the server is away, or this one would overtake them.
        let tried = if self.queued.get() == 0 { self.send(object).await } else { Err(Failure::Away("queue".to_owned())) };
        match tried {
            Ok(uid) => {
                discard(&object.body).await;
                Ok(uid)
            }
            Err(Failure::Quota) => Err(StoreFailure::Quota),
            Err(Failure::Away(error)) => {
                tracing::warn!(server = ?self.server, error, "the Message Storage Server is away; the object waits on disk");
                self.enqueue(object, now_s).await.map(|()| None).map_err(|error| {
                    tracing::error!(%error, "an object cannot wait on disk");
                    StoreFailure::Unavailable
                })
            }
            Err(Failure::Refused(text)) => {
                tracing::error!(server = ?self.server, user = object.user, text, "the Message Storage Server refused an object");
                Err(StoreFailure::Unavailable)
            }
            Err(Failure::Body(error)) => {
                tracing::error!(user = object.user, %error, "the body of an object cannot be read");
                Err(StoreFailure::Unavailable)
            }
        }
    }

    /// Sends what waits, oldest first, for ever; rests while the server is away.
    pub async fn run_queue(&self) {
        let mut rest = RESTS[0];
        loop {
            tokio::time::sleep(rest).await;
            rest = if self.drain().await { RESTS[0] } else { (rest * 2).min(RESTS[1]) };
        }
    }

    /// Sends what waits. False: the server is away.
    pub async fn drain(&self) -> bool {
        if self.queued.get() == 0 {
            return true;
        }
        let records = match records(&self.queue) {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "the queue of objects cannot be read");
                return false;
            }
        };
        for record in records {
            let Some(object) = self.read(&record).await else {
                self.forget(&record).await;
                continue;
            };
            match self.send(&object).await {
                Ok(_) => {}
                Err(Failure::Away(_)) => return false,
                Err(failure) => tracing::error!(?failure, user = object.user, "a queued object is refused; it is dropped"),
            }
            discard(&object.body).await;
            self.forget(&record).await;
        }
        true
    }

    async fn send(&self, object: &Object) -> Result<Option<u32>, Failure> {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let idle = self.idle.borrow_mut().pop();
        if let Some(connection) = idle {
            // The server may have closed it meanwhile: then a new one says what is so.
            match self.send_over(connection, object).await {
                Err(Failure::Away(_)) => {}
                other => return other,
            }
        }
        let connection = self.server.connect().await?;
        self.send_over(connection, object).await
    }

    async fn send_over(&self, mut connection: Connection, object: &Object) -> Result<Option<u32>, Failure> {
        let stored = tokio::time::timeout(STORE_TIME, connection.store(object)).await;
        let stored = stored.unwrap_or_else(|_| Err(Failure::Away("no answer in time".to_owned())));
        if !matches!(stored, Err(Failure::Away(_) | Failure::Body(_))) {
            self.idle.borrow_mut().push(connection);
        }
        stored
    }

    async fn enqueue(&self, object: &Object, now_s: u64) -> io::Result<()> {
        if self.queued.get() >= HISTORY_QUEUE_MAX {
            return Err(io::Error::other("too many objects wait already"));
        }
        let name = format!("{now_s:016x}-{:016x}", self.prng.borrow_mut().u64());
        let record = self.queue.join(format!("{name}.json"));
        let body = record.with_extension("body");
        match &object.body {
            Body::Inline(octets) => body_file::write(&body, &[octets]).await?,
            Body::File { path, .. } => body_file::keep(path, &body).await?,
        }
        let queued = Queued {
            user: object.user.clone(),
            folder: object.folder.clone(),
            headers: object.headers.clone(),
            seen: object.seen,
            date_s: object.date_s,
            octets: object.body.octets(),
        };
        let text = serde_json::to_vec(&queued).map_err(io::Error::other)?;
        body_file::write(&record, &[&text]).await?;
        self.queued.set(self.queued.get() + 1);
        Ok(())
    }

    async fn read(&self, record: &Path) -> Option<Object> {
        let text = body_file::read(record, RECORD_OCTETS_MAX).await;
        let queued = text.and_then(|text| serde_json::from_slice::<Queued>(&text).map_err(io::Error::other));
        let queued = queued
            .inspect_err(
                |error| tracing::error!(path = %record.display(), %error, "a queued object cannot be read; it is dropped"),
            )
            .ok()?;
        Some(Object {
            user: queued.user,
            folder: queued.folder,
            headers: queued.headers,
            body: Body::File { path: record.with_extension("body"), octets: queued.octets },
            seen: queued.seen,
            date_s: queued.date_s,
        })
    }

    async fn forget(&self, record: &Path) {
        if let Err(error) = tokio_uring::fs::remove_file(record).await {
            tracing::error!(path = %record.display(), %error, "a queued object cannot be removed");
        }
        self.queued.set(self.queued.get().saturating_sub(1));
    }
}

async fn discard(body: &Body) {
    if let Body::File { path, .. } = body
        && let Err(error) = tokio_uring::fs::remove_file(path).await
    {
        tracing::warn!(path = %path.display(), %error, "a spooled body cannot be removed");
    }
}

/// What waits, oldest first.
fn records(queue: &Path) -> io::Result<Vec<PathBuf>> {
    let mut records = Vec::new();
    for file in std::fs::read_dir(queue)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            records.push(path);
        }
    }
    records.sort();
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command};
    use std::sync::{Arc, Mutex};

    fn object(body: Body) -> Object {
        Object {
            user: "sip:bob@example.net".to_owned(),
            folder: vec!["Default".to_owned(), "conv/1".to_owned()],
            headers: vec![
                ("IMDN-Message-ID".to_owned(), "id-1".to_owned()),
                ("Content-Type".to_owned(), "text/plain".to_owned()),
            ],
            body,
            seen: true,
            date_s: 1_706_781_600,
        }
    }

    fn inline(text: &str) -> Object {
        object(Body::Inline(text.as_bytes().to_vec()))
    }

    fn store(port: u16, spool: &Path) -> MessageStore {
        let server = Server::parse(&format!("imap://cpm:secret@127.0.0.1:{port}")).unwrap();
        MessageStore::open(server, spool, Prng::seeded(1)).unwrap()
    }

    /// An IMAP server of a few mailboxes, with or without UIDPLUS; it writes down what it is told.
    #[derive(Default)]
    struct Heard {
        commands: Vec<String>,
        mailboxes: Vec<String>,
        literals: Vec<Vec<u8>>,
    }

    fn server(uid_plus: bool, refuse: &'static str) -> (u16, Arc<Mutex<Heard>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let shared = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = shared.clone();
                std::thread::spawn(move || session(stream, uid_plus, refuse, &heard));
            }
        });
        (port, heard)
    }

    fn session(stream: TcpStream, uid_plus: bool, refuse: &str, heard: &Mutex<Heard>) -> Option<()> {
        let mut out = stream.try_clone().unwrap();
        let mut lines = BufReader::new(stream);
        out.write_all(b"* OK ready\r\n").ok()?;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let (tag, command) = line.trim_end().split_once(' ')?;
            let mut heard = heard.lock().unwrap();
            heard.commands.push(command.to_owned());
            let word = command.split(' ').next()?.to_ascii_uppercase();
            let name = command.split('"').nth(1).unwrap_or_default().to_owned();
            let answer = match word.as_str() {
                "CAPABILITY" => {
                    let more = if uid_plus { " UIDPLUS" } else { "" };
                    format!("* CAPABILITY IMAP4rev1{more}\r\n{tag} OK done\r\n")
                }
                "LIST" => format!("* LIST (\\Noselect) \".\" \"\"\r\n{tag} OK done\r\n"),
                "CREATE" => {
                    heard.mailboxes.push(name);
                    format!("{tag} OK created\r\n")
                }
                "SELECT" => format!("* 1 EXISTS\r\n{tag} OK selected\r\n"),
                "UID" => format!("* SEARCH 4 9\r\n{tag} OK done\r\n"),
                "APPEND" if !refuse.is_empty() => format!("{tag} NO {refuse}\r\n"),
                "APPEND" if !heard.mailboxes.contains(&name) => format!("{tag} NO [TRYCREATE] no such mailbox\r\n"),
                "APPEND" => {
                    let size: usize = command.rsplit_once('{')?.1.trim_end_matches('}').parse().ok()?;
                    out.write_all(b"+ ready\r\n").ok()?;
                    let mut literal = vec![0; size + 2];
                    lines.read_exact(&mut literal).ok()?;
                    literal.truncate(size);
                    heard.literals.push(literal);
                    let code = if uid_plus { "[APPENDUID 1699 17] " } else { "" };
                    format!("* 1 EXISTS\r\n{tag} OK {code}done\r\n")
                }
                _ => format!("{tag} OK done\r\n"),
            };
            drop(heard);
            out.write_all(answer.as_bytes()).ok()?;
        }
    }

    #[test]
    fn a_missing_mailbox_is_created_and_the_uid_comes_back() {
        let spool = tempfile::tempdir().unwrap();
        let (port, heard) = server(true, "");
        tokio_uring::start(async {
            let store = store(port, spool.path());
            let body = spool.path().join("body");
            std::fs::write(&body, "spooled").unwrap();
            assert_eq!(store.store(&object(Body::File { path: body.clone(), octets: 7 }), 1).await, Ok(Some(17)));
            assert!(!body.exists());
            assert_eq!(store.store(&inline("two"), 1).await, Ok(Some(17)));
        });
        let heard = heard.lock().unwrap();
        let mailbox = "sip:bob@example%2Enet.Default.conv%2F1";
        assert_eq!(heard.mailboxes, ["sip:bob@example%2Enet", "sip:bob@example%2Enet.Default", mailbox]);
        let head = "IMDN-Message-ID: id-1\r\nContent-Type: text/plain\r\n\r\n";
        assert_eq!(heard.literals, [format!("{head}spooled").into_bytes(), format!("{head}two").into_bytes()]);
        let append = format!("APPEND \"{mailbox}\" (\\Seen) \"01-Feb-2024 10:00:00 +0000\" {{{}}}", head.len() + 7);
        assert!(heard.commands.contains(&append), "{:?}", heard.commands);
        assert_eq!(heard.commands.iter().filter(|command| command.starts_with("LOGIN")).count(), 1);
    }

    #[test]
    fn without_uidplus_the_uid_is_searched() {
        let spool = tempfile::tempdir().unwrap();
        let (port, heard) = server(false, "");
        tokio_uring::start(async {
            assert_eq!(store(port, spool.path()).store(&inline("x"), 1).await, Ok(Some(9)));
        });
        let wanted = "UID SEARCH HEADER IMDN-Message-ID \"id-1\"".to_owned();
        assert!(heard.lock().unwrap().commands.contains(&wanted));
    }

    #[test]
    fn a_server_that_refuses_is_believed_and_the_body_stays() {
        let spool = tempfile::tempdir().unwrap();
        let body = spool.path().join("body");
        std::fs::write(&body, "x").unwrap();
        let file = || object(Body::File { path: body.clone(), octets: 1 });
        tokio_uring::start(async {
            let (port, _heard) = server(true, "[OVERQUOTA] full");
            assert_eq!(store(port, spool.path()).store(&file(), 1).await, Err(StoreFailure::Quota));
            let (port, _heard) = server(true, "not here");
            assert_eq!(store(port, spool.path()).store(&file(), 1).await, Err(StoreFailure::Unavailable));
        });
        assert!(body.exists());
    }

    #[test]
    fn while_the_server_is_away_objects_wait_on_disk_in_order() {
        let spool = tempfile::tempdir().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        tokio_uring::start(async {
            let away = store(closed, spool.path());
            assert_eq!(away.store(&inline("one"), 1).await, Ok(None));
            assert_eq!(away.store(&inline("two"), 2).await, Ok(None));
            assert!(!away.drain().await);
            // After a restart, with the server back.
            let (port, heard) = server(true, "");
            let back = store(port, spool.path());
            assert_eq!(back.store(&inline("three"), 3).await, Ok(None));
            assert!(back.drain().await);
            let literals = heard.lock().unwrap().literals.clone();
            let bodies: Vec<_> =
                literals.iter().map(|literal| String::from_utf8_lossy(literal).rsplit('\n').next().unwrap().to_owned()).collect();
            assert_eq!(bodies, ["one", "two", "three"]);
            assert_eq!(back.store(&inline("four"), 4).await, Ok(Some(17)));
        });
        assert_eq!(std::fs::read_dir(spool.path().join("history")).unwrap().count(), 0);
    }

    /// A real server on loopback, where one is installed and we may start it.
    struct Dovecot {
        process: Child,
        port: u16,
        _directory: tempfile::TempDir,
    }

    impl Dovecot {
        fn start() -> Option<Self> {
            let directory = tempfile::tempdir().unwrap();
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let root = directory.path().display().to_string();
            // The mail processes run as nobody, whose directories these have to be.
            std::fs::create_dir(directory.path().join("mail")).unwrap();
            let configuration = format!(
                "base_dir = {root}/run\nstate_dir = {root}/state\nprotocols = imap\nlisten = 127.0.0.1\nssl = no\n\
                 disable_plaintext_auth = no\nlog_path = {root}/log\nauth_mechanisms = plain login\n\
                 mail_location = maildir:{root}/mail/%u:LAYOUT=fs\nmail_uid = nobody\nmail_gid = nogroup\nfirst_valid_uid = 1\n\
                 passdb {{\n driver = static\n args = password=secret\n}}\nuserdb {{\n driver = static\n args = uid=nobody gid=nogroup home={root}/mail/%u\n}}\n\
                 service imap-login {{\n inet_listener imap {{\n address = 127.0.0.1\n port = {port}\n }}\n inet_listener imaps {{\n port = 0\n }}\n}}\n\
                 namespace inbox {{\n inbox = yes\n separator = /\n}}\n"
            );
            let path = directory.path().join("dovecot.conf");
            std::fs::write(&path, configuration).unwrap();
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            std::fs::set_permissions(directory.path().join("mail"), open).unwrap();
            let process = Command::new("dovecot").arg("-F").arg("-c").arg(&path).spawn().ok()?;
            let mut dovecot = Self { process, port, _directory: directory };
            for _ in 0..100 {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(dovecot);
                }
                if dovecot.process.try_wait().ok()?.is_some() {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            None
        }
    }

    impl Drop for Dovecot {
        fn drop(&mut self) {
            let _ = Command::new("kill").arg(self.process.id().to_string()).status();
            let _ = self.process.wait();
        }
    }

    #[test]
    fn a_real_server_stores_what_it_is_given() {
        let Some(dovecot) = Dovecot::start() else {
            eprintln!("no dovecot that may be started here: not tried");
            return;
        };
        let spool = tempfile::tempdir().unwrap();
        tokio_uring::start(async {
            let store = store(dovecot.port, spool.path());
            assert_eq!(store.store(&inline("one"), 1).await, Ok(Some(1)));
            assert_eq!(store.store(&object(Body::Inline(b"bin\0ary".to_vec())), 2).await, Ok(Some(2)));
            let other = Object { folder: vec!["Default".to_owned(), "\u{e9} \"q\"&".to_owned()], ..inline("three") };
            assert_eq!(store.store(&other, 3).await, Ok(Some(1)));
        });
    }
}
