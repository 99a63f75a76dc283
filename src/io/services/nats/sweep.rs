//! What is over: looked for by the minute in which its time ended (`x.DAY.MINUTE.ID`), so that a sweep lists no other names.

use super::buckets::asked;
use super::names::{Name, Stretch};
use super::{Record, Shared, Wrong};
use crate::limits::{DEFERRED_SWEEP_MAX, NOTICE_LEASE};
use crate::shard::exchange::StoreFailure;
use crate::store::deferred::Deferred;
use async_nats::jetstream::kv;

/// A sweep holds what it takes out for so long: long enough to delete it.
const SWEEP_LEASE_S: u64 = 60;
/// Minutes looked through in one sweep.
const STRETCHES_MAX: usize = 256;
/// Keys that one message has.
const KEYS: u64 = 3;

impl Shared {
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
}
