//! CR 8.3.1.6: the index of the embedded store for deferred messages (redb). What is committed survives a crash.
//!
//! ```text
//! waiting   (user, arrived_s, id) -> the message as JSON    listing a user touches only that user's
//! places    id -> (user, arrived_s)
//! expiry    (expires_s, id)
//! users     user -> (messages, octets)                       quotas
//! totals    -> (messages, octets)                            so that opening it reads no table to its end
//! ```
//!
//! Claims and times of rest are kept in memory: they are about deliveries of this process, and end with it.

use crate::limits::{
    DEFERRED_LEASE, DEFERRED_OCTETS_MAX, DEFERRED_SWEEP_MAX, DEFERRED_USER_MESSAGES_MAX, DEFERRED_USER_OCTETS_MAX, NOTICE_LEASE,
    WAITING_MAX,
};
use crate::shard::exchange::StoreFailure;
use crate::store::deferred::{Deferred, DeferredId};
use redb::{Database, Durability, ReadableTable, Table, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

const WAITING: TableDefinition<'_, (&str, u64, &str), &[u8]> = TableDefinition::new("waiting");
const PLACES: TableDefinition<'_, &str, (&str, u64)> = TableDefinition::new("places");
const EXPIRY: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("expiry");
const USERS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("users");

const TOTALS: TableDefinition<'_, (), (u64, u64)> = TableDefinition::new("totals");

/// Sorts after every id.
const AFTER_IDS: &str = "~";

/// One thing to do.
#[derive(Debug)]
pub enum Op {
    Put(Box<Deferred>),
    Waiting {
        user: Box<str>,
        now_s: u64,
    },
    Claim {
        id: DeferredId,
        now_s: u64,
    },
    Remove {
        id: DeferredId,
    },
    Return {
        id: DeferredId,
        until_s: u64,
    },
    /// Which of these names of files are no message's.
    Unknown {
        names: Vec<String>,
    },
    /// Takes out what is expired and not being delivered; where the sender wants to hear of it the message stays, held, until it
    /// is removed or returned.
    Sweep {
        now_s: u64,
    },
}

/// What became of an [`Op`].
#[derive(Debug)]
pub enum Done {
    Kept(Result<(), StoreFailure>),
    Messages(Vec<Deferred>),
    Unknown(Vec<String>),
}

/// The open index.
pub struct Index {
    path: PathBuf,
    /// None: it failed, and could not be opened again yet.
    database: Option<Database>,
    /// Messages that are not to be touched until then, seconds since the Unix epoch.
    held: HashMap<String, u64>,
    messages: u64,
    octets: u64,
    /// Messages refused because their commit failed. The disk may have them all the same: what was written before a sync that
    /// failed is there when the file is opened again, and their senders were told no.
    refused: BTreeSet<String>,
}

/// What a transaction changes beside the tables; it counts when the commit has succeeded.
#[derive(Default)]
struct Changes {
    /// None: no longer held.
    held: BTreeMap<String, Option<u64>>,
    messages: i64,
    octets: i64,
    /// Something changed that must be on disk before it is answered.
    durable: bool,
    /// Something changed at all.
    any: bool,
}

impl Index {
    /// Opens the file, or creates it; redb repairs what a crash left.
    ///
    /// # Errors
    /// Where it cannot be opened, is no index, or another process has it open.
    pub fn open(path: &Path) -> Result<Self, redb::Error> {
        let (held, refused) = Default::default();
        let mut index = Self { path: path.to_owned(), database: None, held, messages: 0, octets: 0, refused };
        index.load()?;
        Ok(index)
    }

    fn load(&mut self) -> Result<(), redb::Error> {
        let database = Database::create(&self.path)?;
        let transaction = database.begin_write()?;
        let (messages, octets) = {
            transaction.open_table(WAITING)?;
            transaction.open_table(PLACES)?;
            transaction.open_table(EXPIRY)?;
            let users = transaction.open_table(USERS)?;
            let totals = transaction.open_table(TOTALS)?.get(())?.map(|totals| totals.value());
            match totals {
                Some(totals) => totals,
                // Written before there were totals: counted once.
                None => {
                    let mut sum = (0, 0);
                    for user in users.iter()? {
                        let (count, size) = user?.1.value();
                        sum = (sum.0 + count, sum.1 + size);
                    }
                    sum
                }
            }
        };
        transaction.commit()?;
        (self.database, self.messages, self.octets) = (Some(database), messages, octets);
        Ok(())
    }

    /// Messages kept.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Does all of these in one transaction. Where it cannot be committed none is done, and all are told so.
    pub fn apply(&mut self, ops: &[Op]) -> Vec<Done> {
        match self.transact(ops) {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the index of deferred messages failed");
                if self.database.is_some() {
                    let put = |op: &Op| if let Op::Put(message) = op { Some(message.id.0.clone()) } else { None };
                    self.refused.extend(ops.iter().filter_map(put));
                }
                // After an error of the disk it answers nothing any more (redb::Error::PreviousIo): the next question opens it
                // anew, which goes on from the last commit.
                self.database = None;
                ops.iter().map(Op::failed).collect()
            }
        }
    }

    fn transact(&mut self, ops: &[Op]) -> Result<Vec<Done>, redb::Error> {
        if self.database.is_none() {
            self.load()?;
            tracing::info!(path = %self.path.display(), messages = self.messages, "the index of deferred messages is open again");
        }
        let Some(database) = &self.database else { return Err(redb::Error::PreviousIo) };
        let mut transaction = database.begin_write()?;
        let mut changes = Changes::default();
        let done: Result<Vec<_>, _> = {
            let mut tables = Tables::open(&transaction, self)?;
            for id in &self.refused {
                tables.remove(id, &mut changes)?;
            }
            ops.iter().map(|op| tables.carry_out(op, &mut changes)).collect()
        };
        if changes.durable {
            let totals =
                (self.messages.saturating_add_signed(changes.messages), self.octets.saturating_add_signed(changes.octets));
            transaction.open_table(TOTALS)?.insert((), totals)?;
        }
        let done = done?;
        if !changes.any {
            transaction.abort()?;
        } else {
            if !changes.durable {
                transaction.set_durability(Durability::None).map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
            }
            transaction.commit()?;
        }
        self.refused.clear();
        self.take(changes);
        Ok(done)
    }

    fn take(&mut self, changes: Changes) {
        self.messages = self.messages.saturating_add_signed(changes.messages);
        self.octets = self.octets.saturating_add_signed(changes.octets);
        for (id, until) in changes.held {
            match until {
                Some(until) => self.held.insert(id, until),
                None => self.held.remove(&id),
            };
        }
    }
}

impl Op {
    fn failed(&self) -> Done {
        match self {
            Self::Put(_) | Self::Remove { .. } | Self::Return { .. } | Self::Waiting { .. } => {
                Done::Kept(Err(StoreFailure::Unavailable))
            }
            Self::Claim { .. } | Self::Sweep { .. } => Done::Messages(Vec::new()),
            Self::Unknown { .. } => Done::Unknown(Vec::new()),
        }
    }
}

/// The tables of one transaction.
struct Tables<'t> {
    index: &'t Index,
    waiting: Table<'t, (&'static str, u64, &'static str), &'static [u8]>,
    places: Table<'t, &'static str, (&'static str, u64)>,
    expiry: Table<'t, (u64, &'static str), ()>,
    users: Table<'t, &'static str, (u64, u64)>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction, index: &'t Index) -> Result<Self, redb::Error> {
        Ok(Self {
            index,
            waiting: transaction.open_table(WAITING)?,
            places: transaction.open_table(PLACES)?,
            expiry: transaction.open_table(EXPIRY)?,
            users: transaction.open_table(USERS)?,
        })
    }

    fn carry_out(&mut self, op: &Op, changes: &mut Changes) -> Result<Done, redb::Error> {
        Ok(match op {
            Op::Put(message) => Done::Kept(self.put(message, changes)?),
            Op::Waiting { user, now_s } => Done::Messages(self.waiting(user, *now_s, changes)?),
            Op::Claim { id, now_s } => Done::Messages(self.claim(id, *now_s, changes)?.into_iter().collect()),
            Op::Remove { id } => {
                let removed = self.remove(&id.0, changes)?;
                Done::Kept(removed.map(|_| ()).ok_or(StoreFailure::Unknown))
            }
            Op::Return { id, until_s } => {
                let known = self.places.get(id.0.as_str())?.is_some();
                changes.held.insert(id.0.clone(), known.then_some(*until_s));
                Done::Kept(if known { Ok(()) } else { Err(StoreFailure::Unknown) })
            }
            Op::Unknown { names } => {
                let mut unknown = Vec::new();
                for name in names {
                    if self.places.get(name.as_str())?.is_none() {
                        unknown.push(name.clone());
                    }
                }
                Done::Unknown(unknown)
            }
            Op::Sweep { now_s } => Done::Messages(self.sweep(*now_s, changes)?),
        })
    }

    fn put(&mut self, message: &Deferred, changes: &mut Changes) -> Result<Result<(), StoreFailure>, redb::Error> {
        let (user, id) = (message.user.as_str(), message.id.0.as_str());
        if self.places.get(id)?.is_some() {
            // The question was asked twice: it is kept already.
            return Ok(Ok(()));
        }
        let (count, size) = self.users.get(user)?.map_or((0, 0), |quota| quota.value());
        let all = self.index.octets.saturating_add_signed(changes.octets).saturating_add(message.octets);
        let own = size.saturating_add(message.octets);
        if count >= DEFERRED_USER_MESSAGES_MAX || own > DEFERRED_USER_OCTETS_MAX || all > DEFERRED_OCTETS_MAX {
            return Ok(Err(StoreFailure::Quota));
        }
        self.users.insert(user, (count + 1, own))?;
        self.write(message)?;
        self.places.insert(id, (user, message.arrived_s))?;
        self.expiry.insert((message.expires_s, id), ())?;
        changes.count(1, message.octets);
        Ok(Ok(()))
    }

    fn write(&mut self, message: &Deferred) -> Result<(), redb::Error> {
        let record = serde_json::to_vec(message).map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
        self.waiting.insert((message.user.as_str(), message.arrived_s, message.id.0.as_str()), record.as_slice())?;
        Ok(())
    }

    fn waiting(&mut self, user: &str, now_s: u64, changes: &Changes) -> Result<Vec<Deferred>, redb::Error> {
        let mut messages = Vec::new();
        for entry in self.waiting.range((user, 0, "")..(user, u64::MAX, AFTER_IDS))? {
            let (key, value) = entry?;
            if changes.is_held(self.index, key.value().2, now_s) {
                continue;
            }
            messages.extend(read(value.value()).filter(|message| !message.is_expired(now_s)));
            if messages.len() == WAITING_MAX {
                break;
            }
        }
        Ok(messages)
    }

    fn claim(&mut self, id: &DeferredId, now_s: u64, changes: &mut Changes) -> Result<Option<Deferred>, redb::Error> {
        if changes.is_held(self.index, &id.0, now_s) {
            return Ok(None);
        }
        let Some(mut message) = self.message(&id.0)? else { return Ok(None) };
        if message.is_expired(now_s) {
            return Ok(None);
        }
        message.attempts = message.attempts.saturating_add(1);
        self.write(&message)?;
        changes.any = true;
        changes.held.insert(id.0.clone(), Some(now_s + DEFERRED_LEASE.as_secs()));
        Ok(Some(message))
    }

    fn message(&self, id: &str) -> Result<Option<Deferred>, redb::Error> {
        let Some(place) = self.places.get(id)? else { return Ok(None) };
        let (user, arrived_s) = place.value();
        Ok(self.waiting.get((user, arrived_s, id))?.and_then(|record| read(record.value())))
    }

    fn remove(&mut self, id: &str, changes: &mut Changes) -> Result<Option<Deferred>, redb::Error> {
        let Some((user, arrived_s)) = self.places.remove(id)?.map(|place| (place.value().0.to_owned(), place.value().1)) else {
            return Ok(None);
        };
        changes.any = true;
        changes.durable = true;
        changes.held.insert(id.to_owned(), None);
        let record = self.waiting.remove((user.as_str(), arrived_s, id))?;
        let Some(message) = record.and_then(|record| read(record.value())) else { return Ok(None) };
        self.expiry.remove((message.expires_s, id))?;
        let (count, size) = self.users.get(user.as_str())?.map_or((0, 0), |quota| quota.value());
        if count <= 1 {
            self.users.remove(user.as_str())?;
        } else {
            self.users.insert(user.as_str(), (count - 1, size.saturating_sub(message.octets)))?;
        }
        changes.count(-1, message.octets);
        Ok(Some(message))
    }

    fn sweep(&mut self, now_s: u64, changes: &mut Changes) -> Result<Vec<Deferred>, redb::Error> {
        let mut over = Vec::new();
        for entry in self.expiry.range((0, "")..(now_s, AFTER_IDS))? {
            let id = entry?.0.value().1.to_owned();
            // What is being delivered has its chance; its time is over when it is given back.
            if !changes.is_held(self.index, &id, now_s) {
                over.push(id);
            }
            if over.len() == DEFERRED_SWEEP_MAX {
                break;
            }
        }
        let mut taken = Vec::with_capacity(over.len());
        for id in over {
            match self.message(&id)? {
                Some(message) if message.is_to_be_told(now_s) => {
                    changes.held.insert(id, Some(now_s + NOTICE_LEASE.as_secs()));
                    taken.push(message);
                }
                _ => taken.extend(self.remove(&id, changes)?),
            }
        }
        Ok(taken)
    }
}

impl Changes {
    fn count(&mut self, messages: i64, octets: u64) {
        self.any = true;
        self.durable = true;
        self.messages += messages;
        self.octets += messages * i64::try_from(octets).unwrap_or(i64::MAX);
    }

    fn is_held(&self, index: &Index, id: &str, now_s: u64) -> bool {
        let until = self.held.get(id).copied().unwrap_or_else(|| index.held.get(id).copied());
        until.is_some_and(|until| until > now_s)
    }
}

fn read(record: &[u8]) -> Option<Deferred> {
    serde_json::from_slice(record).inspect_err(|error| tracing::error!(%error, "a deferred message cannot be read")).ok()
}
