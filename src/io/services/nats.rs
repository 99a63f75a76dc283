//! CR 8.3.1.6: deferred messages in JetStream, shared by all nodes: any may keep one, any may deliver it, one at a time.
//!
//! ```text
//! key-value bucket cpm-deferred
//!   u.USER.ARRIVED.EXPIRES.ID     empty: listing a user, and what expired, reads names alone
//!   m.ID                          the message and who holds it; changed by compare-and-set on its revision
//! object bucket cpm-deferred-bodies
//!   ID                            the body
//! ```
//!
//! The name comes first, the body next, the message last: what a crash leaves in between is cleared when the name's time
//! is over. A claim is a compare-and-set of the holder with a lease; of two nodes the server lets one through.

use super::nats_body::Chunks;
use crate::limits::{DEFERRED_LEASE, DEFERRED_SWEEP_MAX, DEFERRED_USER_MESSAGES_MAX, NOTICE_LEASE, WAITING_MAX};
use crate::shard::exchange::StoreFailure;
use crate::store::deferred::{Deferred, DeferredId, DeferredService};
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::kv::{CreateErrorKind, Store, UpdateErrorKind};
use async_nats::jetstream::object_store::ObjectStore;
use async_nats::jetstream::stream::{self, Stream};
use async_nats::jetstream::{self, ErrorCode, kv, object_store};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio_uring::fs::File;

const BUCKET: &str = "cpm-deferred";
const BODIES: &str = "cpm-deferred-bodies";
/// How long one operation may take; a body takes what it takes, but each piece of it no longer.
const TIME_MAX: Duration = Duration::from_secs(10);
/// How long keeping a message may take in all: its sender waits for 30 s (RFC 4975 §7.1.1), and must hear of a failure before
/// that.
const DEFER_TIME: Duration = Duration::from_secs(22);
/// How long what was kept in part is cleared away for.
const CLEAR_TIME: Duration = Duration::from_secs(3);
/// How often a server is asked whether it is still there: a split is noticed after three times that.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A sweep holds what it takes out for so long: long enough to delete it.
const SWEEP_LEASE_S: u64 = 60;
/// Octets of a MESSAGE body that is given back inline.
const INLINE_OCTETS_MAX: usize = 1024 * 1024;

/// The store all nodes share.
pub struct Shared {
    servers: Vec<String>,
    /// Who we are among the nodes, from one start to the next.
    node: String,
    /// Messages that this process has claimed. What else has our name on it was claimed before a crash, and is free.
    claimed: RefCell<HashSet<String>>,
    /// Bodies of claimed messages lie here.
    spool: PathBuf,
    buckets: OnceCell<Buckets>,
    messages: Cell<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({})", self.node)
    }
}

struct Buckets {
    messages: Store,
    bodies: ObjectStore,
    bodies_stream: Stream,
}

/// Value of `m.ID`.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    message: Deferred,
    /// Not to be touched before then, seconds since the Unix epoch.
    held_until_s: u64,
    /// The node that delivers it; empty while it rests.
    holder: String,
}

/// A name `u.USER.ARRIVED.EXPIRES.ID`.
struct Name {
    user: String,
    arrived_s: u64,
    expires_s: u64,
    id: String,
}

impl Name {
    fn of(message: &Deferred) -> Self {
        let (arrived_s, expires_s) = (message.arrived_s, message.expires_s);
        Self { user: token(&message.user), arrived_s, expires_s, id: message.id.0.clone() }
    }

    /// Twenty digits hold any u64, so names sort as their numbers do.
    fn key(&self) -> String {
        format!("u.{}.{:020}.{:020}.{}", self.user, self.arrived_s, self.expires_s, self.id)
    }

    fn parse(key: &str) -> Option<Self> {
        let mut pieces = key.strip_prefix("u.")?.split('.');
        let user = pieces.next()?.to_owned();
        let (arrived_s, expires_s) = (pieces.next()?.parse().ok()?, pieces.next()?.parse().ok()?);
        Some(Self { user, arrived_s, expires_s, id: pieces.next()?.to_owned() })
    }
}

/// A user's address as one token of a subject: base64 for URLs, which has no dot.
fn token(user: &str) -> String {
    URL_SAFE.encode(user)
}

/// What went wrong, for the log.
pub(super) type Wrong = Box<dyn std::error::Error + Send + Sync>;

impl Shared {
    /// Reads the value of `store.deferred`: `nats://HOST:PORT,HOST:PORT`. The servers are asked when there is something
    /// for them. `node` is any text that no other node has,
    /// the same after each start.
    ///
    /// # Errors
    /// Where the spool directory cannot be created.
    pub fn open(servers: &str, spool: &Path, node: String) -> io::Result<Self> {
        let scheme = servers.split_once("://").map_or("nats", |(scheme, _)| scheme);
        let with_scheme = |server: &str| {
            let server = server.trim();
            if server.contains("://") { server.to_owned() } else { format!("{scheme}://{server}") }
        };
        let spool = spool.join("deferred");
        std::fs::create_dir_all(&spool)?;
        let servers = servers.split(',').map(with_scheme).collect();
        Ok(Self { servers, node, claimed: RefCell::default(), spool, buckets: OnceCell::new(), messages: Cell::new(0) })
    }

    /// Messages kept by all nodes, as the last sweep counted them; what this node did since then counts too.
    pub fn messages(&self) -> u64 {
        self.messages.get()
    }

    /// Keeps a message: its body moves from the spool to the servers. When this returns they have it on disk.
    ///
    /// # Errors
    /// [`StoreFailure`]; the spooled file is then still where it was.
    pub async fn defer(&self, mut message: Deferred) -> Result<(), StoreFailure> {
        if !message.id.is_plain() {
            return Err(StoreFailure::Unavailable);
        }
        let file = std::mem::take(&mut message.file);
        let inline = message.inline.take();
        if let Some(octets) = &inline {
            message.octets = octets.len() as u64;
        }
        let put = tokio::time::timeout(DEFER_TIME, self.put(&message, &file, inline.as_deref()));
        let kept = put.await.unwrap_or_else(|_| Err(unavailable("no answer in time".into())));
        match kept {
            Ok(()) => {
                self.messages.set(self.messages.get() + 1);
                if inline.is_none() {
                    forget(&file).await;
                }
            }
            // Its sender is told no: what of it the servers have is not to be found later. Where they are away it is cleared when its
            // time is over; without the entry of the message nobody delivers it.
            Err(StoreFailure::Unavailable) => {
                let _ = tokio::time::timeout(CLEAR_TIME, self.clear(&Name::of(&message))).await;
            }
            Err(_) => {}
        }
        kept
    }

    async fn put(&self, message: &Deferred, file: &Path, inline: Option<&[u8]>) -> Result<(), StoreFailure> {
        let name = Name::of(message);
        let id = &message.id.0;
        let buckets = self.buckets().await?;
        let waiting = self.names(&format!("u.{}.>", name.user)).await?;
        if waiting.len() as u64 >= DEFERRED_USER_MESSAGES_MAX {
            return Err(StoreFailure::Quota);
        }
        in_time(buckets.messages.put(name.key(), Vec::new().into())).await?;
        match inline {
            Some(mut octets) => in_time(buckets.bodies.put(id.as_str(), &mut octets)).await?,
            None => {
                let mut body = tokio::fs::File::open(file).await.map_err(|error| unavailable(error.into()))?;
                // Each piece is acknowledged by the server within its own time.
                buckets.bodies.put(id.as_str(), &mut body).await.map_err(|error| unavailable(error.into()))?
            }
        };
        let record = Record { message: message.clone(), held_until_s: 0, holder: String::new() };
        let key = format!("m.{id}");
        match tokio::time::timeout(TIME_MAX, buckets.messages.create(key, record.octets()?.into())).await {
            Ok(Ok(_)) => Ok(()),
            // The question was asked twice: it is kept already.
            Ok(Err(error)) if error.kind() == CreateErrorKind::AlreadyExists => Ok(()),
            Ok(Err(error)) => Err(unavailable(error.into())),
            Err(_) => Err(unavailable("no answer in time".into())),
        }
    }

    /// Messages that wait for a user, oldest first, without those that some node delivers or that rest.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`] where the servers are away.
    pub async fn waiting(&self, user: &str, now_s: u64) -> Result<Vec<Deferred>, StoreFailure> {
        let mut names = self.names(&format!("u.{}.>", token(user))).await?;
        names.sort_by(|a, b| (a.arrived_s, &a.id).cmp(&(b.arrived_s, &b.id)));
        let mut messages = Vec::new();
        for name in names {
            if let Some((record, _)) = self.record(&name.id).await?
                && !self.is_held(&record, now_s)
                && !record.message.is_expired(now_s)
            {
                messages.push(record.message);
            }
            if messages.len() == WAITING_MAX {
                break;
            }
        }
        Ok(messages)
    }

    /// Takes a message for delivery, and fetches its body. None: another has it, it rests, or it is gone.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`] where the servers are away.
    pub async fn claim(&self, id: &DeferredId, now_s: u64) -> Result<Option<Box<Deferred>>, StoreFailure> {
        let Some((mut record, revision)) = self.record(&id.0).await? else { return Ok(None) };
        if self.is_held(&record, now_s) || record.message.is_expired(now_s) {
            return Ok(None);
        }
        record.message.attempts = record.message.attempts.saturating_add(1);
        record.held_until_s = now_s + DEFERRED_LEASE.as_secs();
        record.holder.clone_from(&self.node);
        if !self.replace(&id.0, &record, revision).await? {
            return Ok(None);
        }
        self.claimed.borrow_mut().insert(id.0.clone());
        let mut message = record.message;
        if let Err(error) = self.fetch(&mut message).await {
            tracing::error!(id = id.0, %error, "the body of a deferred message cannot be fetched");
            self.give_back(id, now_s + SWEEP_LEASE_S).await?;
            return Ok(None);
        }
        Ok(Some(Box::new(message)))
    }

    /// A message that another process of this node is delivering: the record says that the node has it.
    pub fn adopt(&self, id: DeferredId) {
        self.claimed.borrow_mut().insert(id.0);
    }

    /// Deletes a message.
    ///
    /// # Errors
    /// [`StoreFailure::Unknown`] where it is gone already.
    pub async fn remove(&self, id: &DeferredId) -> Result<(), StoreFailure> {
        let removed = self.remove_held(id).await;
        if !matches!(removed, Err(StoreFailure::Unavailable)) {
            self.claimed.borrow_mut().remove(&id.0);
        }
        removed
    }

    async fn remove_held(&self, id: &DeferredId) -> Result<(), StoreFailure> {
        forget(&self.local(&id.0)).await;
        let Some((record, _)) = self.record(&id.0).await? else { return Err(StoreFailure::Unknown) };
        self.clear(&Name::of(&record.message)).await?;
        self.messages.set(self.messages.get().saturating_sub(1));
        Ok(())
    }

    /// Gives a claim back.
    ///
    /// # Errors
    /// [`StoreFailure::Unknown`] where the message is gone, or another node holds it because our lease ran out.
    pub async fn give_back(&self, id: &DeferredId, until_s: u64) -> Result<(), StoreFailure> {
        self.claimed.borrow_mut().remove(&id.0);
        forget(&self.local(&id.0)).await;
        let Some((mut record, revision)) = self.record(&id.0).await? else { return Err(StoreFailure::Unknown) };
        if record.holder != self.node {
            return Err(StoreFailure::Unknown);
        }
        record.holder.clear();
        record.held_until_s = until_s;
        if self.replace(&id.0, &record, revision).await? { Ok(()) } else { Err(StoreFailure::Unknown) }
    }

    /// Takes out what is expired and not being delivered, and gives what this node took. Where the sender wants to hear of it
    /// the message stays, held by this node, until it is removed or given back.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`] where the servers are away.
    pub async fn sweep(&self, now_s: u64) -> Result<Vec<Deferred>, StoreFailure> {
        let names = self.names("u.>").await?;
        self.messages.set(names.len() as u64);
        let over = |name: &Name| name.expires_s <= now_s && !self.claimed.borrow().contains(&name.id);
        let over: Vec<_> = names.into_iter().filter(over).take(DEFERRED_SWEEP_MAX).collect();
        let mut expired = Vec::new();
        for name in over {
            match self.record(&name.id).await? {
                // A crash between name and message.
                None => self.clear(&name).await?,
                Some((record, _)) if self.is_held(&record, now_s) => {}
                Some((record, revision)) => expired.extend(self.take_out(&name, record, revision, now_s).await?),
            }
        }
        Ok(expired)
    }

    async fn take_out(
        &self,
        name: &Name,
        mut record: Record,
        revision: u64,
        now_s: u64,
    ) -> Result<Option<Deferred>, StoreFailure> {
        let told = record.message.is_to_be_told(now_s);
        record.holder.clone_from(&self.node);
        record.held_until_s = now_s + if told { NOTICE_LEASE.as_secs() } else { SWEEP_LEASE_S };
        if !self.replace(&name.id, &record, revision).await? {
            return Ok(None);
        }
        if told {
            self.claimed.borrow_mut().insert(name.id.clone());
        } else {
            self.clear(name).await?;
        }
        Ok(Some(record.message))
    }

    /// Whether some delivery has the message, or it rests.
    fn is_held(&self, record: &Record, now_s: u64) -> bool {
        let before_a_crash = record.holder == self.node && !self.claimed.borrow().contains(&record.message.id.0);
        record.held_until_s > now_s && !before_a_crash
    }

    async fn buckets(&self) -> Result<&Buckets, StoreFailure> {
        let connected = self.buckets.get_or_try_init(|| async {
            match tokio::time::timeout(TIME_MAX, self.connect()).await {
                Ok(connected) => connected,
                Err(_) => Err("no answer in time".into()),
            }
        });
        connected.await.map_err(unavailable)
    }

    async fn connect(&self) -> Result<Buckets, Wrong> {
        let options = async_nats::ConnectOptions::new().name("cpm-pf").ping_interval(PING_INTERVAL);
        let client = options.connect(self.servers.as_slice()).await?;
        let context = jetstream::new(client);
        // Three copies where there are three servers; a server that stands alone can have but one. A cluster that is not whole
        // yet is asked again later: with one copy everything would be lost with its server.
        let wanted = if self.servers.len() >= 3 { 3 } else { 1 };
        let messages = match bucket(&context, wanted).await {
            Err(error) if stands_alone(error.as_ref()) => bucket(&context, 1).await?,
            other => other?,
        };
        let bodies = match object_bucket(&context, wanted).await {
            Err(error) if stands_alone(error.as_ref()) => object_bucket(&context, 1).await?,
            other => other?,
        };
        let bodies_stream = context.get_stream(format!("OBJ_{BODIES}")).await?;
        Ok(Buckets { messages, bodies, bodies_stream })
    }

    async fn names(&self, pattern: &str) -> Result<Vec<Name>, StoreFailure> {
        let messages = &self.buckets().await?.messages;
        let listing = async {
            let subjects = messages.stream.info_with_subjects(format!("{}{pattern}", messages.prefix)).await?;
            let subjects: Vec<_> = subjects.try_collect().await?;
            Ok::<_, Wrong>(subjects)
        };
        let subjects = match tokio::time::timeout(TIME_MAX, listing).await {
            Ok(subjects) => subjects.map_err(unavailable)?,
            Err(_) => return Err(unavailable("no answer in time".into())),
        };
        let names = subjects.iter().filter_map(|(subject, _)| Name::parse(subject.strip_prefix(&messages.prefix)?));
        Ok(names.collect())
    }

    async fn record(&self, id: &str) -> Result<Option<(Record, u64)>, StoreFailure> {
        if !DeferredId(id.to_owned()).is_plain() {
            return Ok(None);
        }
        let entry = in_time(self.buckets().await?.messages.entry(format!("m.{id}"))).await?;
        let Some(entry) = entry.filter(|entry| entry.operation == kv::Operation::Put) else { return Ok(None) };
        match serde_json::from_slice(&entry.value) {
            Ok(record) => Ok(Some((record, entry.revision))),
            Err(error) => {
                tracing::error!(id, %error, "a deferred message cannot be read");
                Ok(None)
            }
        }
    }

    /// Compare-and-set. False: another node was faster.
    async fn replace(&self, id: &str, record: &Record, revision: u64) -> Result<bool, StoreFailure> {
        let messages = &self.buckets().await?.messages;
        let update = messages.update(format!("m.{id}"), record.octets()?.into(), revision);
        match tokio::time::timeout(TIME_MAX, update).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Ok(Err(error)) => Err(unavailable(error.into())),
            Err(_) => Err(unavailable("no answer in time".into())),
        }
    }

    /// Deletes message, body and name, in that order, so that the name leads to what is left if we stop in between.
    async fn clear(&self, name: &Name) -> Result<(), StoreFailure> {
        let Buckets { messages, bodies, bodies_stream } = self.buckets().await?;
        let prefix = &messages.prefix;
        in_time(messages.stream.purge().filter(format!("{prefix}m.{}", name.id)).into_future()).await?;
        // A body that is not there is as good as deleted.
        let _ = tokio::time::timeout(TIME_MAX, bodies.delete(name.id.as_str())).await;
        // What the bucket leaves to say that it was there.
        let marker = format!("$O.{BODIES}.M.{}", URL_SAFE.encode(&name.id));
        in_time(bodies_stream.purge().filter(marker).into_future()).await?;
        in_time(messages.stream.purge().filter(format!("{prefix}{}", name.key())).into_future()).await?;
        Ok(())
    }

    async fn fetch(&self, message: &mut Deferred) -> Result<(), Wrong> {
        let Buckets { bodies, bodies_stream, .. } = self.buckets().await.map_err(|failure| format!("{failure:?}"))?;
        let info = tokio::time::timeout(TIME_MAX, bodies.info(message.id.0.as_str())).await??;
        if info.size as u64 != message.octets {
            return Err("the body is not as long as it was".into());
        }
        let mut chunks = Chunks::of(bodies_stream, BODIES, &info);
        if message.service == DeferredService::Pager {
            if info.size > INLINE_OCTETS_MAX {
                return Err("the body is longer than a MESSAGE can be".into());
            }
            let mut octets = Vec::with_capacity(info.size);
            while let Some(chunk) = chunks.next().await? {
                octets.extend_from_slice(&chunk.payload);
            }
            message.inline = Some(octets.into());
            return Ok(());
        }
        let path = self.local(&message.id.0);
        let file = File::create(&path).await?;
        let written = copy(&mut chunks, &file).await;
        file.close().await?;
        if written? != message.octets {
            return Err("the body is shorter than it was".into());
        }
        message.file = path;
        Ok(())
    }

    fn local(&self, id: &str) -> PathBuf {
        self.spool.join(if DeferredId(id.to_owned()).is_plain() { id } else { "none" })
    }
}

impl Record {
    fn octets(&self) -> Result<Vec<u8>, StoreFailure> {
        serde_json::to_vec(self).map_err(|error| unavailable(error.into()))
    }
}

/// Octets written.
async fn copy(chunks: &mut Chunks<'_>, file: &File) -> Result<u64, Wrong> {
    let mut at = 0;
    while let Some(chunk) = chunks.next().await? {
        let length = chunk.payload.len() as u64;
        file.write_all_at(chunk.payload, at).await.0?;
        at += length;
    }
    Ok(at)
}

async fn bucket(context: &jetstream::Context, num_replicas: usize) -> Result<Store, Wrong> {
    if let Ok(store) = context.get_key_value(BUCKET).await {
        return Ok(store);
    }
    // The stream of a key-value bucket, made as such: making the bucket asks for the account's limits first, in a form
    // that servers before 2.10 do not answer in.
    let config = stream::Config {
        name: format!("KV_{BUCKET}"),
        subjects: vec![format!("$KV.{BUCKET}.>")],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        // Every look goes to the leader: what another copy has not heard of yet would count as gone.
        allow_direct: false,
        num_replicas,
        ..stream::Config::default()
    };
    context.create_stream(config).await?;
    Ok(context.get_key_value(BUCKET).await?)
}

async fn object_bucket(context: &jetstream::Context, num_replicas: usize) -> Result<ObjectStore, Wrong> {
    if let Ok(store) = context.get_object_store(BODIES).await {
        return Ok(store);
    }
    let config = object_store::Config { bucket: BODIES.to_owned(), num_replicas, ..object_store::Config::default() };
    Ok(context.create_object_store(config).await?)
}

/// Whether a server says that it is in no cluster, so that it can keep one copy only.
fn stands_alone(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        let said = cause.downcast_ref::<CreateStreamError>().map(CreateStreamError::kind);
        if let Some(CreateStreamErrorKind::JetStream(said)) = said {
            return said.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED;
        }
        error = cause.source();
    }
    false
}

async fn in_time<T, E: Into<Wrong>>(operation: impl Future<Output = Result<T, E>>) -> Result<T, StoreFailure> {
    match tokio::time::timeout(TIME_MAX, operation).await {
        Ok(result) => result.map_err(|error| unavailable(error.into())),
        Err(_) => Err(unavailable("no answer in time".into())),
    }
}

fn unavailable(error: Wrong) -> StoreFailure {
    tracing::error!(%error, "the shared store of deferred messages failed");
    StoreFailure::Unavailable
}

async fn forget(path: &Path) {
    match tokio_uring::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a spooled body cannot be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn names_say_who_when_and_which() {
        let name = Name { user: token(BOB), arrived_s: 5, expires_s: u64::MAX, id: "a-B_1".to_owned() };
        let read = Name::parse(&name.key()).unwrap();
        assert_eq!((read.user, read.arrived_s, read.expires_s, read.id), (name.user, 5, u64::MAX, name.id));
        assert!(Name::parse("m.x").is_none() && Name::parse("u.a.b").is_none());
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
            assert_eq!(ids(&loser.waiting(BOB, NOW).await.unwrap()), ["bb"]);
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
            let later = NOW + DEFERRED_LEASE.as_secs();
            assert!(two.claim(&id("aa"), later - 1).await.unwrap().is_none());
            assert!(two.claim(&id("aa"), later).await.unwrap().is_some());
            let (first, second) = tokio::join!(one.sweep(NOW + 100), two.sweep(NOW + 100));
            assert_eq!(ids(&[first.unwrap(), second.unwrap()].concat()), ["bb"]);
            assert!(one.sweep(NOW + 100).await.unwrap().is_empty());
            assert_eq!(one.messages(), 1);
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
}
