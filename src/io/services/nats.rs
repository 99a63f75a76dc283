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

use super::nats_body::Chunks;
use super::nats_buckets::{BODIES, Buckets, PAUSE, TIME_MAX, TRY_TIME, asked, no_answer, unavailable};
use super::nats_names::{Name, Over, Stretch, token};
use crate::limits::{
    DEFERRED_LEASE, DEFERRED_SWEEP_MAX, DEFERRED_USER_MESSAGES_MAX, NOTICE_LEASE, SHARED_LEASE, SHARED_LEASE_MARGIN, WAITING_MAX,
};
use crate::shard::exchange::StoreFailure;
use crate::store::deferred::{Deferred, DeferredId, DeferredService};
use async_nats::jetstream::kv::{self, CreateErrorKind, UpdateErrorKind};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::{StreamExt, TryStreamExt};
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
/// A sweep holds what it takes out for so long: long enough to delete it.
const SWEEP_LEASE_S: u64 = 60;
/// A message whose body could not be fetched rests for so long.
const FETCH_REST_S: u64 = 5;
/// A name without its message is left alone for so long: the message may be on its way.
const ORPHAN_S: u64 = 600;
/// Refused messages that are remembered until they are cleared away; what is beyond is cleared when its time is over.
const REFUSED_MAX: usize = 4096;
/// Claims renewed at the same time.
const RENEWALS_MAX: usize = 64;
/// Minutes looked through in one sweep.
const STRETCHES_MAX: usize = 256;
/// Keys that one message has.
const KEYS: u64 = 3;
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

/// A message that this process has.
#[derive(Clone, Copy)]
struct Claim {
    /// Nobody else touches it before then, seconds since the Unix epoch.
    held_until_s: u64,
    /// Renewed until then; none: not at all (a notice has all its time at once).
    renewed_until_s: Option<u64>,
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
        record.held_until_s = now_s + SHARED_LEASE.as_secs();
        record.holder.clone_from(&self.node);
        if !self.replace(&id.0, &record, revision).await? {
            return Ok(None);
        }
        self.took(&id.0, &record, Some(now_s + DEFERRED_LEASE.as_secs()));
        let mut message = record.message;
        if let Err(error) = self.fetch(&mut message).await {
            tracing::error!(id = id.0, %error, "the body of a deferred message cannot be fetched");
            self.give_back(id, now_s + FETCH_REST_S).await?;
            return Ok(None);
        }
        // A body may take longer to come than the claim could be renewed for.
        if !self.claimed.borrow().contains_key(&id.0) {
            forget(&self.local(&id.0)).await;
            return Ok(None);
        }
        Ok(Some(Box::new(message)))
    }

    /// A message that another process of this node is delivering: the record says that the node has it.
    pub fn adopt(&self, id: DeferredId, now_s: u64) {
        // That process renewed it when a third of the lease was gone; half of what was left then is left at least.
        let held_until_s = now_s + SHARED_LEASE.as_secs() / 3;
        let claim = Claim { held_until_s, renewed_until_s: Some(now_s + DEFERRED_LEASE.as_secs()) };
        self.claimed.borrow_mut().insert(id.0, claim);
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

    /// Renews what this node delivers, where that is due, and gives the claims that cannot be renewed before they are over: their
    /// deliveries have to be broken off, since another node may begin with them.
    pub async fn renew(&self, now_s: u64) -> Vec<DeferredId> {
        let due = |claim: &Claim| claim.renewed_until_s.is_some() && claim.held_until_s < now_s + SHARED_LEASE.as_secs() * 2 / 3;
        let claims: Vec<_> =
            self.claimed.borrow().iter().filter(|(_, claim)| due(claim)).map(|(id, claim)| (id.clone(), *claim)).collect();
        let renewals = futures_util::stream::iter(claims).map(|(id, claim)| async move {
            let standing = claim.renewed_until_s.is_some_and(|until| now_s < until);
            let renewed = if standing { self.renew_one(&id, now_s).await } else { Ok(false) };
            // This try took as long as the margin, and the next may.
            let over = claim.held_until_s <= now_s + 2 * SHARED_LEASE_MARGIN.as_secs();
            let lapsed = match renewed {
                Ok(renewed) => !renewed,
                Err(_) => over,
            };
            // What was removed or given back meanwhile is nobody's any more.
            (lapsed && self.claimed.borrow_mut().remove(&id).is_some()).then_some(DeferredId(id))
        });
        renewals.buffer_unordered(RENEWALS_MAX).filter_map(std::future::ready).collect().await
    }

    /// False: it is not ours any more.
    async fn renew_one(&self, id: &str, now_s: u64) -> Result<bool, StoreFailure> {
        let renewal = async {
            let Some((mut record, revision)) = self.record(id).await? else { return Ok(false) };
            let claim = self.claimed.borrow().get(id).copied();
            let Some(claim) = claim.filter(|_| record.holder == self.node) else { return Ok(false) };
            record.held_until_s = now_s + SHARED_LEASE.as_secs();
            if !self.replace(id, &record, revision).await? {
                return Ok(false);
            }
            if self.claimed.borrow().contains_key(id) {
                self.took(id, &record, claim.renewed_until_s);
            }
            Ok(true)
        };
        tokio::time::timeout(SHARED_LEASE_MARGIN, renewal).await.unwrap_or(Err(StoreFailure::Unavailable))
    }

    fn took(&self, id: &str, record: &Record, renewed_until_s: Option<u64>) {
        let claim = Claim { held_until_s: record.held_until_s, renewed_until_s };
        self.claimed.borrow_mut().insert(id.to_owned(), claim);
    }

    /// Takes out what is expired and not being delivered, and gives what this node took. Where the sender wants to hear of it
    /// the message stays, held by this node, until it is removed or given back.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`] where the servers are away.
    pub async fn sweep(&self, now_s: u64) -> Result<Vec<Deferred>, StoreFailure> {
        self.clear_refused().await?;
        let stretches = self.over.borrow_mut().due(now_s, STRETCHES_MAX);
        let mut expired = Vec::new();
        let mut failed = Ok(());
        for stretch in stretches {
            let taken = match failed {
                Ok(()) if expired.len() < DEFERRED_SWEEP_MAX => self.sweep_stretch(stretch, now_s, &mut expired).await,
                _ => Ok(true),
            };
            self.over.borrow_mut().looked(stretch, taken.unwrap_or(true), now_s);
            failed = failed.and(taken.map(|_| ()));
        }
        // What was taken out is told also where the servers went away in between.
        if failed.is_ok() {
            self.messages.set(asked(|| self.messages_info()).await? / KEYS);
        } else if expired.is_empty() {
            failed?;
        }
        Ok(expired)
    }

    /// Takes out what was over in that time; whether something is left.
    async fn sweep_stretch(&self, stretch: Stretch, now_s: u64, expired: &mut Vec<Deferred>) -> Result<bool, StoreFailure> {
        let messages = &self.buckets().await?.messages;
        let mut left = false;
        for key in self.keys(&stretch.pattern()).await? {
            let id = key.rsplit('.').next().unwrap_or_default();
            if expired.len() >= DEFERRED_SWEEP_MAX || self.claimed.borrow().contains_key(id) {
                left = true;
                continue;
            }
            let entry = asked(|| messages.entry(key.as_str())).await?;
            let value = entry.filter(|entry| entry.operation == kv::Operation::Put).map(|entry| entry.value);
            let name = value.as_deref().and_then(|value| Name::parse(std::str::from_utf8(value).ok()?));
            // Another node was faster.
            let Some(name) = name else { continue };
            match self.record(&name.id).await? {
                _ if name.expires_s > now_s => left = true,
                // A crash between name and message; or the message is on its way, with little time.
                None if name.expires_s.max(name.arrived_s) + SWEEP_LEASE_S > now_s => left = true,
                None => self.clear(&name).await?,
                Some((record, _)) if self.is_held(&record, now_s) => left = true,
                Some((record, revision)) => {
                    left |= record.message.is_to_be_told(now_s);
                    expired.extend(self.take_out(&name, record, revision, now_s).await?);
                }
            }
        }
        Ok(left)
    }

    /// Keys of the bucket of messages.
    async fn messages_info(&self) -> Result<u64, Wrong> {
        let buckets = self.buckets().await.map_err(|failure| format!("{failure:?}"))?;
        Ok(buckets.messages.stream.get_info().await?.state.messages)
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
            self.took(&name.id, &record, None);
        } else {
            self.clear(name).await?;
        }
        Ok(Some(record.message))
    }

    /// Whether some delivery has the message, or it rests.
    fn is_held(&self, record: &Record, now_s: u64) -> bool {
        let before_a_crash = record.holder == self.node && !self.claimed.borrow().contains_key(&record.message.id.0);
        record.held_until_s > now_s && !before_a_crash
    }

    /// Whether another node has it.
    fn is_another_s(&self, record: &Record) -> bool {
        !record.holder.is_empty() && record.holder != self.node
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
}
