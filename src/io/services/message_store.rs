//! CR 8.5, OMA Message Storage 6.3.1: objects go into the history, whichever it is; while the Message Storage Server is away
//! they wait on disk, and what a store refused is offered again for some days where nobody else would keep it.
//!
//! ```text
//! object -> store -> done
//!             |- away ---> queue, tried again every second to minute, the oldest first
//!             \- refused -> the asker keeps it; a copy: queue, after a minute, an hour, six hours, a day, two; then given up
//! ```

use super::history::Folders;
use super::history_queue::{Entry, Queue};
use super::imap::Failure;
use super::imap_pool::Pool;
use crate::limits::{HISTORY_REFUSED_MAX, IMAP_BATCH_MAX};
use crate::shard::exchange::StoreFailure;
use crate::store::history::{Body, Object};
use std::cell::Cell;
use std::time::Duration;

/// How long the queue rests after the server was found away; it doubles up to the last.
const RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Seconds until what was refused is offered again, each time it was.
const OFFERS_S: [u64; 5] = [60, 3_600, 6 * 3_600, 24 * 3_600, 48 * 3_600];

/// The history, and the queue before it.
#[derive(Debug)]
pub struct MessageStore {
    history: History,
    queue: Queue,
    given_up: Cell<u64>,
}

/// `store.history`.
#[derive(Debug)]
pub enum History {
    Embedded(Box<Folders>),
    Server(Box<Pool>),
}

/// What waits, and what was given up since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub away: u64,
    pub refused: u64,
    pub given_up: u64,
}

/// Who keeps an object that the store refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Who asked: the body stays where it is.
    Asker,
    /// Nobody but us.
    Queue,
}

impl MessageStore {
    /// A store with its queue.
    pub fn new(history: History, queue: Queue) -> Self {
        Self { history, queue, given_up: Cell::new(0) }
    }

    /// For the metrics.
    pub fn counts(&self) -> Counts {
        Counts { away: self.queue.away() as u64, refused: self.queue.refused() as u64, given_up: self.given_up.get() }
    }

    /// Stores an object and gives its UID; none where it waits on disk. Its spooled body is gone then; where it fails the body
    /// stays where it was, unless nobody else would keep it: then it was given up.
    ///
    /// # Errors
    /// [`StoreFailure::Quota`] or `Unavailable` where the store refuses it, or neither store nor disk takes it.
    pub async fn store(&self, object: &Object, now_s: u64, refused: Refused) -> Result<Option<u32>, StoreFailure> {
        // While others wait the server is away, or this one would overtake them.
        let tried = if self.queue.away() == 0 {
            self.send(object, false).await
        } else {
            Err(Failure::Away("others wait for it".to_owned()))
        };
        let failure = match tried {
            Ok(uid) => return Ok(uid),
            Err(failure) => failure,
        };
        let kept = match &failure {
            Failure::Away(error) | Failure::Unsure(error) => {
                tracing::warn!(store = ?self.history, error, "the Message Storage Server is away; the object waits on disk");
                self.queue.put(object, now_s, now_s, 0, matches!(failure, Failure::Unsure(_))).await
            }
            _ if refused == Refused::Asker => {
                tracing::error!(store = ?self.history, user = object.user, ?failure, "the history refused an object");
                return Err(answer(&failure));
            }
            _ if self.queue.refused() >= HISTORY_REFUSED_MAX => Err(std::io::Error::other("too many were refused already")),
            _ => {
                tracing::error!(store = ?self.history, user = object.user, ?failure, "the history refused a copy; it is offered again");
                self.queue.put(object, now_s, now_s + OFFERS_S[0], 1, false).await
            }
        };
        if let Err(error) = kept {
            tracing::error!(user = object.user, %error, "an object cannot wait on disk");
            if refused == Refused::Queue {
                self.give_up(object, &failure).await;
            }
            return Err(StoreFailure::Unavailable);
        }
        Ok(None)
    }

    /// Sends what waits, for ever; rests while the server is away.
    pub async fn run_queue(&self, now_s: impl Fn() -> u64) {
        let mut rest = RESTS[0];
        loop {
            tokio::time::sleep(rest).await;
            rest = if self.drain(now_s()).await { RESTS[0] } else { (rest * 2).min(RESTS[1]) };
        }
    }

    /// Sends what is due, the first first. False: the server is away.
    pub async fn drain(&self, now_s: u64) -> bool {
        if !self.queue.is_due(now_s) {
            return true;
        }
        let entries = match self.queue.entries() {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "the queue of objects cannot be read");
                return false;
            }
        };
        let due = entries.iter().take_while(|entry| entry.due_s <= now_s).count();
        // The first alone: it shows whether the server is there, and what it can do.
        let (first, rest) = entries[..due].split_at(due.min(1));
        for window in std::iter::once(first).chain(rest.chunks(IMAP_BATCH_MAX)) {
            if !self.drain_window(window, now_s).await {
                return false;
            }
        }
        // What is due next is seen from what is left.
        let _ = self.queue.entries();
        true
    }

    /// Sends these at once: those for one mailbox share an APPEND. False: the server is away.
    async fn drain_window(&self, entries: &[Entry], now_s: u64) -> bool {
        let mut objects = Vec::with_capacity(entries.len());
        for entry in entries {
            match self.queue.read(entry).await {
                Some((object, unsure)) => objects.push((entry, object, unsure)),
                None => {
                    self.given_up.set(self.given_up.get() + 1);
                    self.queue.forget(entry).await;
                }
            }
        }
        let sent = futures_util::future::join_all(objects.iter().map(|(_, object, unsure)| self.send(object, *unsure))).await;
        let mut there = true;
        for ((entry, object, _), sent) in objects.iter().zip(sent) {
            match sent {
                Ok(_) => self.queue.forget(entry).await,
                Err(Failure::Away(_)) => there = false,
                Err(Failure::Unsure(_)) => {
                    self.queue.doubt(entry);
                    there = false;
                }
                Err(failure) => there &= self.refused_again(entry, object, &failure, now_s).await,
            }
        }
        there
    }

    /// Puts a queued object off, or gives it up after the last offer. False: the disk does not let us.
    async fn refused_again(&self, entry: &Entry, object: &Object, failure: &Failure, now_s: u64) -> bool {
        let Some(wait) = OFFERS_S.get(entry.tries as usize) else {
            self.give_up(object, failure).await;
            self.queue.forget(entry).await;
            return true;
        };
        tracing::warn!(user = object.user, ?failure, tries = entry.tries + 1, "the history refused a queued object");
        let put_off = self.queue.put_off(entry, now_s + wait).await;
        if let Err(error) = &put_off {
            tracing::error!(%error, "a queued object cannot be put off");
        }
        put_off.is_ok()
    }

    async fn send(&self, object: &Object, unsure: bool) -> Result<Option<u32>, Failure> {
        let uid = match &self.history {
            History::Embedded(folders) => folders.store(object).await.map(Some).map_err(Failure::Disk)?,
            History::Server(pool) => pool.send(object, unsure).await?,
        };
        discard(&object.body).await;
        Ok(uid)
    }

    async fn give_up(&self, object: &Object, failure: &Failure) {
        let id = object.header("IMDN-Message-ID").unwrap_or_default();
        tracing::error!(user = object.user, id, ?failure, "an object is given up: it is in no history");
        self.given_up.set(self.given_up.get() + 1);
        discard(&object.body).await;
    }
}

const fn answer(failure: &Failure) -> StoreFailure {
    match failure {
        Failure::Quota => StoreFailure::Quota,
        _ => StoreFailure::Unavailable,
    }
}

/// Removes a spooled body.
async fn discard(body: &Body) {
    if let Body::File { path, .. } = body {
        match tokio_uring::fs::remove_file(path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a spooled body cannot be removed");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::io::services::imap_double::{Double, FIRST_UID, Manners, nobody, server_at};
    use crate::io::services::imap_server::Server;
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::process::{Child, Command};

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

    /// With an id of its own.
    fn named(text: &str) -> Object {
        let headers = inline(text).headers.into_iter();
        let id =
            |(name, value): (String, String)| if name == "IMDN-Message-ID" { (name, text.to_owned()) } else { (name, value) };
        Object { headers: headers.map(id).collect(), ..inline(text) }
    }

    fn store(server: Server, spool: &Path) -> MessageStore {
        MessageStore::new(History::Server(Box::new(Pool::new(server))), Queue::open(spool, Prng::seeded(1)).unwrap())
    }

    const ABLE: Manners = Manners::with("UIDPLUS");

    fn refusing(text: &'static str) -> Double {
        Double::start(Manners { refuses: text, ..ABLE })
    }

    #[test]
    fn a_missing_mailbox_is_created_and_the_uid_comes_back() {
        let spool = tempfile::tempdir().unwrap();
        let server = Double::start(ABLE);
        tokio_uring::start(async {
            let store = store(server.server(), spool.path());
            let body = spool.path().join("body");
            std::fs::write(&body, "spooled").unwrap();
            assert_eq!(
                store.store(&object(Body::File { path: body.clone(), octets: 7 }), 1, Refused::Asker).await,
                Ok(Some(FIRST_UID))
            );
            assert!(!body.exists());
            assert_eq!(store.store(&inline("two"), 1, Refused::Asker).await, Ok(Some(FIRST_UID + 1)));
        });
        let heard = server.heard();
        let mailbox = "sip:bob@example%2Enet.Default.conv%2F1";
        assert_eq!(heard.mailboxes, ["sip:bob@example%2Enet", "sip:bob@example%2Enet.Default", mailbox]);
        let head = "IMDN-Message-ID: id-1\r\nContent-Type: text/plain\r\n\r\n";
        assert_eq!(heard.messages(), [format!("{head}spooled"), format!("{head}two")]);
        let append = format!("APPEND \"{mailbox}\" (\\Seen) \"01-Feb-2024 10:00:00 +0000\" {{{}}}", head.len() + 7);
        assert!(heard.commands.contains(&append), "{:?}", heard.commands);
        assert_eq!(heard.count("LOGIN"), 1);
    }

    #[test]
    fn without_uidplus_the_uid_is_searched() {
        let spool = tempfile::tempdir().unwrap();
        let server = Double::start(Manners::with(""));
        tokio_uring::start(async {
            assert_eq!(store(server.server(), spool.path()).store(&inline("x"), 1, Refused::Asker).await, Ok(Some(FIRST_UID)));
        });
        let wanted = "UID SEARCH HEADER IMDN-Message-ID \"id-1\"".to_owned();
        assert!(server.heard().commands.contains(&wanted));
    }

    #[test]
    fn a_server_that_refuses_is_believed_and_the_body_stays() {
        let spool = tempfile::tempdir().unwrap();
        let body = spool.path().join("body");
        std::fs::write(&body, "x").unwrap();
        let file = || object(Body::File { path: body.clone(), octets: 1 });
        tokio_uring::start(async {
            for (text, failure) in [("[OVERQUOTA] full", StoreFailure::Quota), ("not here", StoreFailure::Unavailable)] {
                let store = store(refusing(text).server(), spool.path());
                assert_eq!(store.store(&file(), 1, Refused::Asker).await, Err(failure));
            }
        });
        assert!(body.exists());
    }

    #[test]
    fn while_the_server_is_away_objects_wait_on_disk_in_order() {
        let spool = tempfile::tempdir().unwrap();
        let (_port, nobody) = nobody();
        tokio_uring::start(async {
            let away = store(nobody, spool.path());
            assert_eq!(away.store(&named("one"), 1, Refused::Asker).await, Ok(None));
            assert_eq!(away.store(&named("two"), 2, Refused::Asker).await, Ok(None));
            assert!(!away.drain(9).await);
            // After a restart, with the server back. One APPEND keeps their order; several connections would not.
            let server = Double::start(Manners::with("UIDPLUS MULTIAPPEND"));
            let back = store(server.server(), spool.path());
            assert_eq!(back.store(&named("three"), 3, Refused::Asker).await, Ok(None));
            assert!(back.drain(9).await);
            let messages = server.heard().messages();
            let bodies: Vec<_> = messages.iter().map(|message| message.rsplit('\n').next().unwrap()).collect();
            assert_eq!(bodies, ["one", "two", "three"]);
            assert_eq!(back.store(&named("four"), 4, Refused::Asker).await, Ok(Some(FIRST_UID + 3)));
        });
        assert_eq!(std::fs::read_dir(spool.path().join("history")).unwrap().count(), 0);
    }

    #[test]
    fn what_was_stored_when_the_connection_broke_is_not_stored_twice_also_over_a_restart() {
        let spool = tempfile::tempdir().unwrap();
        let server = Double::start(ABLE);
        tokio_uring::start(async {
            let before = store(server.server(), spool.path());
            assert_eq!(before.store(&named("known"), 1, Refused::Queue).await, Ok(Some(FIRST_UID)));
            // It waits, is stored, and the process ends before it has heard so.
            before.queue.put(&named("one"), 1, 1, 0, false).await.unwrap();
            let (entry, object) = (before.queue.entries().unwrap().remove(0), named("one"));
            assert!(!before.queue.read(&entry).await.unwrap().1);
            assert!(before.send(&object, false).await.is_ok());
            let after = store(server.server(), spool.path());
            assert!(after.drain(9).await);
            assert_eq!(after.counts(), Counts::default());
        });
        let messages = server.heard().messages();
        assert_eq!(messages.iter().filter(|message| message.ends_with("one")).count(), 1, "{messages:?}");
        assert_eq!(std::fs::read_dir(spool.path().join("history")).unwrap().count(), 0);
    }

    #[test]
    fn a_copy_that_is_refused_is_offered_again_over_restarts_and_given_up_in_the_end() {
        let spool = tempfile::tempdir().unwrap();
        let body = spool.path().join("body");
        std::fs::write(&body, "x").unwrap();
        let copy = object(Body::File { path: body.clone(), octets: 1 });
        tokio_uring::start(async {
            let refusing = refusing("not here");
            assert_eq!(store(refusing.server(), spool.path()).store(&copy, 0, Refused::Queue).await, Ok(None));
            assert!(!body.exists());
            let offers = || refusing.heard().count("APPEND");
            let mut now = 0;
            for (tries, wait) in OFFERS_S.iter().enumerate() {
                let store = store(refusing.server(), spool.path());
                assert_eq!(store.counts(), Counts { away: 0, refused: 1, given_up: 0 });
                // Others do not wait for it.
                assert!(store.drain(now + wait - 1).await);
                assert_eq!(offers(), tries + 1);
                now += wait;
                assert!(store.drain(now).await);
                assert_eq!(offers(), tries + 2);
                if tries + 1 == OFFERS_S.len() {
                    assert_eq!(store.counts(), Counts { away: 0, refused: 0, given_up: 1 });
                }
            }
            // Elsewhere it would have been taken.
            std::fs::write(&body, "x").unwrap();
            assert_eq!(store(refusing.server(), spool.path()).store(&copy, now, Refused::Queue).await, Ok(None));
            let able = Double::start(ABLE);
            let taken = store(able.server(), spool.path());
            assert!(taken.drain(now + OFFERS_S[0]).await);
            assert_eq!((taken.counts(), able.heard().messages().len()), (Counts::default(), 1));
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
            let store = store(server_at(dovecot.port), spool.path());
            assert_eq!(store.store(&inline("one"), 1, Refused::Asker).await, Ok(Some(1)));
            assert_eq!(store.store(&object(Body::Inline(b"bin\0ary".to_vec())), 2, Refused::Asker).await, Ok(Some(2)));
            let other = Object { folder: vec!["Default".to_owned(), "\u{e9} \"q\"&".to_owned()], ..inline("three") };
            assert_eq!(store.store(&other, 3, Refused::Asker).await, Ok(Some(1)));
        });
    }
}
