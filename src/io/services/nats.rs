//! CR 8.3.1.6: deferred messages in JetStream, shared by all nodes: any may keep one, any may deliver it, one at a time.
//!
//! ```text
//! key-value bucket cpm-deferred
//!   x.DAY.MINUTE.ID               when the message is over, and its name
//!   u.USER.ARRIVED.EXPIRES.ID     empty: listing a user reads names alone
//!   m.ID                          the message and who holds it; changed by compare-and-set on its revision
//! object bucket cpm-deferred-bodies
//!   ID                            the body
//! ```
//!
//! Names come first, the body next, the message last: what a crash leaves in between is cleared when its time is over.
//! A claim is a compare-and-set of the holder with a lease; of two nodes the server lets one through. The lease is short and is
//! renewed while the delivery goes on: whoever cannot renew it any more has to break off before others may begin.

mod body;
mod buckets;
mod claims;
mod names;
mod sweep;
#[cfg(test)]
mod tests;

use self::body::Chunks;
use self::buckets::{BODIES, Buckets, PAUSE, TIME_MAX, TRY_TIME, asked, no_answer, unavailable};
use self::claims::Claim;
use self::names::{Name, Over, token};
use crate::limits::{DEFERRED_USER_MESSAGES_MAX, WAITING_MAX};
use crate::shard::exchange::StoreFailure;
use crate::store::deferred::{Deferred, DeferredId, DeferredService};
use async_nats::jetstream::kv::{self, CreateErrorKind, UpdateErrorKind};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_uring::fs::File;

/// How long keeping a message may take in all: its sender waits for 30 s (RFC 4975 §7.1.1), and must hear of a failure before
/// that.
const DEFER_TIME: Duration = Duration::from_secs(22);
/// How long what was kept in part is cleared away for.
const CLEAR_TIME: Duration = Duration::from_secs(3);
/// A name without its message is left alone for so long: the message may be on its way.
const ORPHAN_S: u64 = 600;
/// Refused messages that are remembered until they are cleared away; what is beyond is cleared when its time is over.
const REFUSED_MAX: usize = 4096;
/// Octets of a MESSAGE body that is given back inline.
const INLINE_OCTETS_MAX: usize = 1024 * 1024;

/// The store all nodes share.
pub struct Shared {
    servers: Vec<String>,
    /// Who we are among the nodes, from one start to the next.
    node: String,
    /// Messages that this process has claimed. What else has our name on it was claimed before a crash, and is free.
    claimed: RefCell<BTreeMap<String, Claim>>,
    /// What was refused while it could not be cleared away: cleared with the sweeps, and not delivered here before.
    refused: RefCell<VecDeque<Name>>,
    /// Times that are over and not yet looked through.
    over: RefCell<Over>,
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

/// Value of `m.ID`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    message: Deferred,
    /// Not to be touched before then, seconds since the Unix epoch.
    held_until_s: u64,
    /// The node that delivers it; empty while it rests.
    holder: String,
}

/// What went wrong, for the log.
type Wrong = Box<dyn std::error::Error + Send + Sync>;

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
        let (claimed, refused, over) = Default::default();
        Ok(Self { servers, node, claimed, refused, over, spool, buckets: OnceCell::new(), messages: Cell::new(0) })
    }

    /// Messages kept by all nodes, as the last sweep counted them; what this node did since then counts too.
    pub fn messages(&self) -> u64 {
        self.messages.get()
    }

    /// Keeps a message: its body moves from the spool to the servers. When this returns they have it on disk.
    ///
    /// # Errors
    /// [`StoreFailure`]; the spooled file is gone then, too: the session that received it may be over.
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
        let kept = put.await.unwrap_or_else(|_| Err(unavailable(no_answer())));
        if inline.is_none() {
            forget(&file).await;
        }
        match kept {
            Ok(()) => self.messages.set(self.messages.get() + 1),
            // Its sender is told no: what of it the servers have, or carry out later, is not to be found. Where they are away it is
            // cleared afterwards, or when its time is over; without the entry of the message nobody delivers it.
            Err(StoreFailure::Unavailable) => {
                let name = Name::of(&message);
                let cleared = tokio::time::timeout(CLEAR_TIME, self.clear(&name)).await;
                if !matches!(cleared, Ok(Ok(()))) && self.refused.borrow().len() < REFUSED_MAX {
                    self.refused.borrow_mut().push_back(name);
                }
            }
            Err(_) => {}
        }
        kept
    }

    /// Clears away what was refused and could not be cleared then.
    async fn clear_refused(&self) -> Result<(), StoreFailure> {
        loop {
            let Some(name) = self.refused.borrow().front().cloned() else { return Ok(()) };
            self.clear(&name).await?;
            self.refused.borrow_mut().pop_front();
        }
    }

    fn is_refused(&self, id: &str) -> bool {
        self.refused.borrow().iter().any(|name| name.id == id)
    }

    async fn put(&self, message: &Deferred, file: &Path, inline: Option<&[u8]>) -> Result<(), StoreFailure> {
        let name = Name::of(message);
        let id = &message.id.0;
        let buckets = self.buckets().await?;
        let waiting = self.names(&format!("u.{}.>", name.user)).await?;
        if waiting.len() as u64 >= DEFERRED_USER_MESSAGES_MAX {
            return Err(StoreFailure::Quota);
        }
        asked(|| buckets.messages.put(name.expiry(), name.key().into())).await?;
        asked(|| buckets.messages.put(name.key(), Vec::new().into())).await?;
        match inline {
            Some(mut octets) => match tokio::time::timeout(TIME_MAX, buckets.bodies.put(id.as_str(), &mut octets)).await {
                Ok(put) => put.map_err(|error| unavailable(error.into()))?,
                Err(_) => return Err(unavailable(no_answer())),
            },
            None => {
                let mut body = tokio::fs::File::open(file).await.map_err(|error| unavailable(error.into()))?;
                // Each piece is acknowledged by the server within its own time.
                buckets.bodies.put(id.as_str(), &mut body).await.map_err(|error| unavailable(error.into()))?
            }
        };
        let record = Record { message: message.clone(), held_until_s: 0, holder: String::new() };
        let octets = record.octets()?;
        asked(|| async {
            match buckets.messages.create(format!("m.{id}"), octets.clone().into()).await {
                // It was asked twice: it is kept already.
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(()),
                created => created.map(|_| ()),
            }
        })
        .await
    }

    /// Messages that wait for a user, oldest first, without those that rest or that this node delivers. Those of other nodes are
    /// told: a claim of theirs may run out, so whoever is told has to ask again.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`] where the servers are away.
    pub async fn waiting(&self, user: &str, now_s: u64) -> Result<Vec<Deferred>, StoreFailure> {
        let mut names = self.names(&format!("u.{}.>", token(user))).await?;
        names.retain(|name| !self.is_refused(&name.id));
        names.sort_by(|a, b| (a.arrived_s, &a.id).cmp(&(b.arrived_s, &b.id)));
        let mut messages = Vec::new();
        for name in names {
            match self.record(&name.id).await? {
                Some((record, _)) if record.message.is_expired(now_s) => {}
                Some((record, _)) if !self.is_held(&record, now_s) || self.is_another_s(&record) => messages.push(record.message),
                Some(_) => {}
                // Cut off between name and message, or carried out after the servers were split.
                None if name.arrived_s + ORPHAN_S < now_s => self.clear(&name).await?,
                None => {}
            }
            if messages.len() == WAITING_MAX {
                break;
            }
        }
        Ok(messages)
    }

    async fn buckets(&self) -> Result<&Buckets, StoreFailure> {
        let connected = self.buckets.get_or_try_init(|| async {
            match tokio::time::timeout(TIME_MAX, Buckets::open(&self.servers)).await {
                Ok(connected) => connected,
                Err(_) => Err(no_answer()),
            }
        });
        connected.await.map_err(unavailable)
    }

    async fn names(&self, pattern: &str) -> Result<Vec<Name>, StoreFailure> {
        Ok(self.keys(pattern).await?.iter().filter_map(|key| Name::parse(key)).collect())
    }

    async fn keys(&self, pattern: &str) -> Result<Vec<String>, StoreFailure> {
        let messages = &self.buckets().await?.messages;
        let prefix = &messages.prefix;
        asked(|| async {
            let subjects = messages.stream.info_with_subjects(format!("{prefix}{pattern}")).await?;
            let subjects: Vec<_> = subjects.try_collect().await?;
            let keys = subjects.iter().filter_map(|(subject, _)| subject.strip_prefix(prefix.as_str()).map(str::to_owned));
            Ok::<_, Wrong>(keys.collect())
        })
        .await
    }

    async fn record(&self, id: &str) -> Result<Option<(Record, u64)>, StoreFailure> {
        if !DeferredId(id.to_owned()).is_plain() {
            return Ok(None);
        }
        let messages = &self.buckets().await?.messages;
        let entry = asked(|| messages.entry(format!("m.{id}"))).await?;
        let Some(entry) = entry.filter(|entry| entry.operation == kv::Operation::Put) else { return Ok(None) };
        match serde_json::from_slice(&entry.value) {
            Ok(record) => Ok(Some((record, entry.revision))),
            Err(error) => {
                tracing::error!(id, %error, "a deferred message cannot be read");
                Ok(None)
            }
        }
    }

    /// Compare-and-set. False: another node was faster. Where an answer was lost it is looked whether the change stands.
    async fn replace(&self, id: &str, record: &Record, revision: u64) -> Result<bool, StoreFailure> {
        let messages = &self.buckets().await?.messages;
        let octets = record.octets()?;
        let until = Instant::now() + TIME_MAX;
        loop {
            let update = messages.update(format!("m.{id}"), octets.clone().into(), revision);
            let wrong = match tokio::time::timeout(TRY_TIME, update).await {
                Ok(Ok(_)) => return Ok(true),
                Ok(Err(error)) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                    return Ok(self.record(id).await?.is_some_and(|(now, _)| now == *record));
                }
                Ok(Err(error)) => error.into(),
                Err(_) => no_answer(),
            };
            if Instant::now() + PAUSE >= until {
                return Err(unavailable(wrong));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Deletes message, body and names, in that order, so that the names lead to what is left if we stop in between.
    async fn clear(&self, name: &Name) -> Result<(), StoreFailure> {
        let Buckets { messages, bodies, bodies_stream } = self.buckets().await?;
        let prefix = &messages.prefix;
        let forget =
            |key: String| async move { asked(|| messages.stream.purge().filter(format!("{prefix}{key}")).into_future()).await };
        forget(format!("m.{}", name.id)).await?;
        // A body that is not there is as good as deleted.
        let _ = tokio::time::timeout(TIME_MAX, bodies.delete(name.id.as_str())).await;
        // What the bucket leaves to say that it was there.
        let marker = format!("$O.{BODIES}.M.{}", URL_SAFE.encode(&name.id));
        asked(|| bodies_stream.purge().filter(marker.as_str()).into_future()).await?;
        forget(name.key()).await?;
        forget(name.expiry()).await?;
        Ok(())
    }

    async fn fetch(&self, message: &mut Deferred) -> Result<(), Wrong> {
        let Buckets { bodies, bodies_stream, .. } = self.buckets().await.map_err(|failure| format!("{failure:?}"))?;
        let info = asked(|| bodies.info(message.id.0.as_str())).await.map_err(|failure| format!("{failure:?}"))?;
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

async fn forget(path: &Path) {
    match tokio_uring::fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a spooled body cannot be removed");
        }
        _ => {}
    }
}
