//! CR 8.3.1.6: the embedded store for deferred messages: an index, and one file for each body.
//!
//! ```text
//! ROOT/index.redb
//! ROOT/bodies/3f/…3f       octet for octet as it came; the last two characters of the id, which are random, name the directory
//! ```
//!
//! A body is on disk before the index names it, and the index forgets it before it is deleted: after a crash there may be
//! files that no entry names (they are looked for while the program runs, and removed: their senders were told nothing), never
//! entries without their file unless somebody else deleted it (they are dropped when they are claimed, with a line in the log).
//! So the start does not take longer the more is kept.
//!
//! Cost of one message: one rename, two syncs of the body and its directory, and a share of one commit of the index,
//! since those that wait while one is written share the next.

use super::body_file;
use super::deferred_index::{Done, Index, Op};
use crate::limits::{DEFERRED_BATCH_MAX, SERVICES_TASKS_MAX};
use crate::shard::exchange::StoreFailure;
use crate::store::deferred::{Deferred, DeferredId, DeferredService};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Files looked at in one go for what a crash left: a few milliseconds of the services thread.
const TIDY_FILES: usize = 2_000;
/// Octets of a MESSAGE body that is given back inline: what a SIP message can be.
const INLINE_OCTETS_MAX: usize = 1024 * 1024;

/// The open store. Dropping it waits for the last commit.
#[derive(Debug)]
pub struct Embedded {
    root: PathBuf,
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    messages: Arc<AtomicU64>,
    /// Messages whose body is there and whose entry may not be yet.
    arriving: RefCell<BTreeSet<String>>,
    /// Directories that are still to be looked through for what a crash left; none: they have not been listed.
    untidied: RefCell<Option<Vec<PathBuf>>>,
}

struct Request {
    op: Op,
    done: oneshot::Sender<Done>,
}

impl Embedded {
    /// Opens the store below this directory, and creates it where it is missing.
    ///
    /// # Errors
    /// Where directory or index cannot be opened or written.
    pub fn open(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root.join("bodies"))?;
        let index = Index::open(&root.join("index.redb")).map_err(io::Error::other)?;
        let messages = Arc::new(AtomicU64::new(index.messages()));
        let (sender, receiver) = bounded(2 * SERVICES_TASKS_MAX);
        let count = messages.clone();
        let thread = std::thread::Builder::new().name("deferred".into()).spawn(move || serve(index, &receiver, &count))?;
        let (arriving, untidied) = Default::default();
        Ok(Self { root: root.to_owned(), requests: Some(sender), thread: Some(thread), messages, arriving, untidied })
    }

    /// Messages kept.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Keeps a message: its body moves here from the spool. When this returns it is durable.
    ///
    /// # Errors
    /// [`StoreFailure`]; the spooled file is then gone.
    pub async fn defer(&self, mut message: Deferred) -> Result<(), StoreFailure> {
        if !message.id.is_plain() {
            return Err(StoreFailure::Unavailable);
        }
        let id = message.id.0.clone();
        self.arriving.borrow_mut().insert(id.clone());
        let kept = self.take(&mut message).await;
        self.arriving.borrow_mut().remove(&id);
        kept
    }

    async fn take(&self, message: &mut Deferred) -> Result<(), StoreFailure> {
        let body = self.body(&message.id);
        let kept = match self.take_body(message, &body).await {
            Ok(()) => self.kept(Op::Put(Box::new(message.clone()))).await,
            Err(error) => {
                tracing::error!(path = %body.display(), %error, "the body of a deferred message cannot be kept");
                Err(StoreFailure::Unavailable)
            }
        };
        // Its sender is told no: nobody is to find it here later, and a full disk has the room again. The session that received it may
        // be over, so the file in the spool is ours too.
        if kept.is_err() {
            for path in [&body, &body_file::partial(&body), &message.file] {
                delete(path).await;
            }
        }
        kept
    }

    /// Messages that wait for a user, oldest first, without those that are being delivered or rest.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`] where the index cannot be read now.
    pub async fn waiting(&self, user: Box<str>, now_s: u64) -> Result<Vec<Deferred>, StoreFailure> {
        let Some(Done::Messages(mut messages)) = self.done(Op::Waiting { user, now_s }).await else {
            return Err(StoreFailure::Unavailable);
        };
        for message in &mut messages {
            message.file = self.body(&message.id);
        }
        Ok(messages)
    }

    /// Takes a message for delivery. None: another delivery has it, it rests, or it is gone.
    pub async fn claim(&self, id: DeferredId, now_s: u64) -> Option<Box<Deferred>> {
        let mut message = self.messages_of(Op::Claim { id, now_s }).await.pop()?;
        message.file = self.body(&message.id);
        if message.service == DeferredService::Pager {
            match body_file::read(&message.file, INLINE_OCTETS_MAX).await {
                Ok(octets) => message.inline = Some(octets.into()),
                Err(error) => return self.lost(&message, &error).await,
            }
        }
        let found = match &message.inline {
            Some(octets) => Ok(octets.len() as u64),
            None => std::fs::metadata(&message.file).map(|facts| facts.len()),
        };
        match found {
            Ok(octets) if octets == message.octets => Some(Box::new(message)),
            Ok(_) => self.lost(&message, &io::ErrorKind::UnexpectedEof.into()).await,
            Err(error) => self.lost(&message, &error).await,
        }
    }

    /// Looks through some directories for bodies that no entry names, and removes them. False: all are done.
    pub async fn tidy(&self) -> bool {
        let mut seen = 0;
        while seen < TIDY_FILES {
            let next = match self.next_untidied() {
                Ok(Some(directory)) => files_of(&directory).map(|files| (directory, files)),
                Ok(None) => return false,
                Err(error) => Err(error),
            };
            match next {
                Ok((directory, files)) => {
                    seen += 1 + files.len();
                    self.tidy_directory(&directory, files).await;
                }
                Err(error) => tracing::warn!(root = %self.root.display(), %error, "bodies of deferred messages cannot be listed"),
            }
        }
        true
    }

    fn next_untidied(&self) -> io::Result<Option<PathBuf>> {
        let mut untidied = self.untidied.borrow_mut();
        if untidied.is_none() {
            let mut directories = Vec::new();
            for entry in std::fs::read_dir(self.root.join("bodies"))? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    directories.push(entry.path());
                }
            }
            *untidied = Some(directories);
        }
        Ok(untidied.as_mut().and_then(Vec::pop))
    }

    async fn tidy_directory(&self, directory: &Path, files: Vec<String>) {
        let arriving = |file: &str| self.arriving.borrow().contains(file.strip_suffix(body_file::PARTIAL).unwrap_or(file));
        let files: Vec<_> = files.into_iter().filter(|file| !arriving(file)).collect();
        let Some(Done::Unknown(unknown)) = self.done(Op::Unknown { names: files }).await else { return };
        for file in unknown {
            let path = directory.join(file);
            tracing::warn!(path = %path.display(), "a body that no deferred message has is removed");
            delete(&path).await;
        }
    }

    /// A message that another process is delivering, whose claim came with the store.
    pub async fn adopt(&self, id: DeferredId, now_s: u64) {
        self.messages_of(Op::Claim { id, now_s }).await;
    }

    /// Deletes a message.
    ///
    /// # Errors
    /// [`StoreFailure::Unknown`] where it is gone already.
    pub async fn remove(&self, id: DeferredId) -> Result<(), StoreFailure> {
        let body = id.is_plain().then(|| self.body(&id));
        let removed = self.kept(Op::Remove { id }).await;
        if let (Ok(()), Some(body)) = (&removed, body) {
            delete(&body).await;
        }
        removed
    }

    /// Gives a claim back.
    ///
    /// # Errors
    /// [`StoreFailure::Unknown`] where the message is gone.
    pub async fn give_back(&self, id: DeferredId, until_s: u64) -> Result<(), StoreFailure> {
        self.kept(Op::Return { id, until_s }).await
    }

    /// Deletes what is expired, and gives it. What its sender wants to hear of is given and stays, until it is removed.
    pub async fn sweep(&self, now_s: u64) -> Vec<Deferred> {
        let expired = self.messages_of(Op::Sweep { now_s }).await;
        for message in expired.iter().filter(|message| !message.is_to_be_told(now_s)) {
            delete(&self.body(&message.id)).await;
        }
        expired
    }

    async fn take_body(&self, message: &mut Deferred, body: &Path) -> io::Result<()> {
        if let Some(directory) = body.parent() {
            match tokio_uring::fs::create_dir(directory).await {
                Ok(()) => body_file::sync_directory_of(directory).await?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        match message.inline.take() {
            Some(octets) => {
                message.octets = octets.len() as u64;
                body_file::write(body, &[&octets]).await?;
            }
            None => body_file::keep(&message.file, body).await?,
        }
        message.file = PathBuf::new();
        Ok(())
    }

    /// The file of a claimed message is gone, or not whole: nobody can deliver it.
    async fn lost(&self, message: &Deferred, error: &io::Error) -> Option<Box<Deferred>> {
        tracing::error!(id = message.id.0, user = message.user, %error, "the body of a deferred message is lost; it is dropped");
        let _ = self.kept(Op::Remove { id: message.id.clone() }).await;
        delete(&self.body(&message.id)).await;
        None
    }

    fn body(&self, id: &DeferredId) -> PathBuf {
        self.root.join("bodies").join(directory_of(&id.0)).join(&id.0)
    }

    async fn kept(&self, op: Op) -> Result<(), StoreFailure> {
        match self.done(op).await {
            Some(Done::Kept(kept)) => kept,
            _ => Err(StoreFailure::Unavailable),
        }
    }

    async fn messages_of(&self, op: Op) -> Vec<Deferred> {
        match self.done(op).await {
            Some(Done::Messages(messages)) => messages,
            _ => Vec::new(),
        }
    }

    async fn done(&self, op: Op) -> Option<Done> {
        let (sender, receiver) = oneshot::channel();
        match self.requests.as_ref()?.try_send(Request { op, done: sender }) {
            Ok(()) => receiver.await.ok(),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes what has come and commits it together. The commit waits for the disk, which the services thread must not.
fn serve(mut index: Index, requests: &Receiver<Request>, messages: &AtomicU64) {
    while let Ok(first) = requests.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(requests.try_iter().take(DEFERRED_BATCH_MAX - 1)).collect();
        let (ops, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|request| (request.op, request.done)).unzip();
        let done = index.apply(&ops);
        messages.store(index.messages(), Ordering::Relaxed);
        for (who, done) in waiting.into_iter().zip(done) {
            // Who asked is gone when the process ends.
            let _ = who.send(done);
        }
    }
}

/// Names of the files of a directory.
fn files_of(directory: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.extend(entry.file_name().into_string());
        }
    }
    Ok(files)
}

fn directory_of(id: &str) -> &str {
    id.get(id.len().saturating_sub(2)..).unwrap_or(id)
}

async fn delete(path: &Path) {
    if path.as_os_str().is_empty() {
        return;
    }
    match tokio_uring::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(path = %path.display(), %error, "the body of a deferred message cannot be deleted");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{DEFERRED_LEASE, DEFERRED_USER_MESSAGES_MAX, DEFERRED_USER_OCTETS_MAX, WAITING_MAX};

    const BOB: &str = "sip:bob@example.net";
    const NOW: u64 = 1_000_000;

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap() }
        }

        fn open(&self) -> Embedded {
            Embedded::open(&self.directory.path().join("store")).unwrap()
        }

        fn files(&self) -> Vec<String> {
            let mut files = Vec::new();
            for directory in std::fs::read_dir(self.directory.path().join("store/bodies")).unwrap() {
                for file in std::fs::read_dir(directory.unwrap().path()).unwrap() {
                    files.push(file.unwrap().file_name().into_string().unwrap());
                }
            }
            files.sort();
            files
        }

        /// A message whose spooled body is its id.
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
                from: "<sip:alice@example.net>".to_owned(),
                to: "<sip:bob@example.net>".to_owned(),
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

    fn ids(messages: &[Deferred]) -> Vec<&str> {
        messages.iter().map(|message| message.id.0.as_str()).collect()
    }

    fn id(text: &str) -> DeferredId {
        DeferredId(text.to_owned())
    }

    #[test]
    fn messages_wait_in_order_are_claimed_once_and_are_gone_when_delivered() {
        let place = Place::new();
        tokio_uring::start(async {
            let store = place.open();
            for (name, arrived) in [("bb", 20), ("aa", 30), ("cc", 10)] {
                store.defer(place.message(name, arrived)).await.unwrap();
            }
            assert_eq!(store.messages(), 3);
            let waiting = store.waiting(BOB.into(), NOW).await.unwrap();
            assert_eq!(ids(&waiting), ["cc", "bb", "aa"]);
            assert!(store.waiting("sip:bo".into(), NOW).await.unwrap().is_empty());
            let claimed = store.claim(id("cc"), NOW).await.unwrap();
            assert_eq!((claimed.attempts, std::fs::read_to_string(&claimed.file).unwrap().as_str()), (1, "cc"));
            assert!(store.claim(id("cc"), NOW).await.is_none());
            assert_eq!(ids(&store.waiting(BOB.into(), NOW).await.unwrap()), ["bb", "aa"]);
            store.remove(id("cc")).await.unwrap();
            assert_eq!(store.remove(id("cc")).await, Err(StoreFailure::Unknown));
            assert_eq!((store.messages(), place.files()), (2, vec!["aa".to_owned(), "bb".to_owned()]));
        });
    }

    #[test]
    fn a_claim_that_is_given_back_rests_and_one_that_is_forgotten_runs_out() {
        let place = Place::new();
        tokio_uring::start(async {
            let store = place.open();
            let message = Deferred { expires_s: NOW + 100_000, ..place.message("aa", 1) };
            store.defer(message).await.unwrap();
            store.claim(id("aa"), NOW).await.unwrap();
            store.give_back(id("aa"), NOW + 60).await.unwrap();
            assert!(store.claim(id("aa"), NOW + 59).await.is_none());
            assert!(store.waiting(BOB.into(), NOW + 59).await.unwrap().is_empty());
            assert_eq!(store.claim(id("aa"), NOW + 60).await.unwrap().attempts, 2);
            let later = NOW + 60 + DEFERRED_LEASE.as_secs();
            assert!(store.claim(id("aa"), later - 1).await.is_none());
            assert_eq!(store.claim(id("aa"), later).await.unwrap().attempts, 3);
            assert_eq!(store.give_back(id("zz"), 0).await, Err(StoreFailure::Unknown));
        });
    }

    #[test]
    fn what_was_kept_survives_and_claims_end_with_the_process() {
        let place = Place::new();
        tokio_uring::start(async {
            let store = place.open();
            store.defer(place.message("aa", 1)).await.unwrap();
            store.claim(id("aa"), NOW).await.unwrap();
            drop(store);
            let store = place.open();
            assert_eq!(store.messages(), 1);
            let again = store.claim(id("aa"), NOW).await.unwrap();
            assert_eq!((again.attempts, again.headers.len()), (2, 1));
        });
    }

    #[test]
    fn a_crash_leaves_neither_files_without_entry_nor_entries_without_file_for_long() {
        let place = Place::new();
        tokio_uring::start(async {
            let store = place.open();
            for name in ["aa", "bb", "cc"] {
                store.defer(place.message(name, 1)).await.unwrap();
            }
            drop(store);
            let bodies = place.directory.path().join("store/bodies");
            std::fs::write(bodies.join("aa/orphan"), "x").unwrap();
            std::fs::write(bodies.join("aa/aa.partial"), "x").unwrap();
            std::fs::remove_file(bodies.join("bb/bb")).unwrap();
            std::fs::write(bodies.join("cc/cc"), "c").unwrap();
            // The start looks at none of it, so that it takes as long with ten million.
            let store = place.open();
            assert_eq!((store.messages(), place.files().len()), (3, 4));
            while store.tidy().await {}
            assert_eq!(place.files(), ["aa", "cc"]);
            for (name, whole) in [("aa", true), ("bb", false), ("cc", false)] {
                assert_eq!(store.claim(id(name), NOW).await.is_some(), whole, "{name}");
            }
            assert_eq!(store.messages(), 1);
        });
        assert_eq!(place.files(), ["aa"]);
    }

    #[test]
    fn what_expired_is_swept_but_not_while_it_is_delivered() {
        let place = Place::new();
        tokio_uring::start(async {
            let store = place.open();
            for name in ["aa", "bb"] {
                store.defer(place.message(name, 1)).await.unwrap();
            }
            store.defer(Deferred { expires_s: NOW + 200, ..place.message("cc", 1) }).await.unwrap();
            store.claim(id("bb"), NOW).await.unwrap();
            assert!(store.sweep(NOW + 99).await.is_empty());
            // At its second it is over: nobody can claim it.
            assert!(store.claim(id("aa"), NOW + 100).await.is_none());
            assert_eq!(ids(&store.sweep(NOW + 101).await), ["aa"]);
            store.give_back(id("bb"), 0).await.unwrap();
            assert_eq!(ids(&store.sweep(NOW + 101).await), ["bb"]);
            assert_eq!((store.messages(), place.files()), (1, vec!["cc".to_owned()]));
        });
    }

    #[test]
    fn a_message_body_comes_back_as_it_went_in() {
        let place = Place::new();
        tokio_uring::start(async {
            let store = place.open();
            let octets: Box<[u8]> = (*b"From: <sip:a@b>\r\n\r\n\0\xff").into();
            let service = DeferredService::Pager;
            let message = Deferred { inline: Some(octets.clone()), service, file: PathBuf::new(), ..place.message("aa", 1) };
            store.defer(message).await.unwrap();
            let claimed = store.claim(id("aa"), NOW).await.unwrap();
            assert_eq!((claimed.inline.as_deref(), claimed.octets), (Some(&*octets), octets.len() as u64));
        });
    }

    #[test]
    fn quotas_hold_and_a_refused_body_is_removed() {
        let place = Place::new();
        tokio_uring::start(async {
            let store = place.open();
            store.defer(Deferred { octets: DEFERRED_USER_OCTETS_MAX, ..place.message("aa", 1) }).await.unwrap();
            assert_eq!(store.defer(place.message("bb", 1)).await, Err(StoreFailure::Quota));
            assert_eq!(place.files(), ["aa"]);
            let other = Deferred { user: "sip:carol@example.net".to_owned(), ..place.message("cc", 1) };
            store.defer(other).await.unwrap();
        });
        let mut index = Index::open(&place.directory.path().join("many.redb")).unwrap();
        let puts: Vec<_> =
            (0..=DEFERRED_USER_MESSAGES_MAX).map(|n| Op::Put(Box::new(place.message(&format!("n{n}"), n)))).collect();
        let done = index.apply(&puts);
        assert!(matches!(done.last(), Some(Done::Kept(Err(StoreFailure::Quota)))));
        let Some(Done::Messages(waiting)) = index.apply(&[Op::Waiting { user: BOB.into(), now_s: NOW }]).pop() else { panic!() };
        assert_eq!((waiting.len(), waiting[0].arrived_s), (WAITING_MAX, 0));
    }

    #[test]
    fn an_id_cannot_name_another_directory() {
        let place = Place::new();
        tokio_uring::start(async {
            let store = place.open();
            let message = Deferred { id: id("../../x"), ..place.message("aa", 1) };
            assert_eq!(store.defer(message).await, Err(StoreFailure::Unavailable));
            assert_eq!(store.remove(id("../../x")).await, Err(StoreFailure::Unknown));
        });
    }
}
