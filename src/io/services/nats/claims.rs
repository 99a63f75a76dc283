//! Who delivers a message: a claim is a compare-and-set of its holder, with a lease that is renewed while the delivery goes on.
//!
//! ```text
//! claim ─> renewed when a third of the lease is gone ─> removed, or given back to rest
//!              \- cannot be renewed in time ─> lapsed: the delivery is broken off before another node may begin
//! ```

use super::names::Name;
use super::{Record, Shared, forget};
use crate::limits::{DEFERRED_LEASE, SHARED_LEASE, SHARED_LEASE_MARGIN};
use crate::shard::exchange::StoreFailure;
use crate::store::deferred::{Deferred, DeferredId};
use futures_util::StreamExt;

/// A message whose body could not be fetched rests for so long.
const FETCH_REST_S: u64 = 5;
/// Claims renewed at the same time.
const RENEWALS_MAX: usize = 64;

/// A message that this process has.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    /// Nobody else touches it before then, seconds since the Unix epoch.
    held_until_s: u64,
    /// Renewed until then; none: not at all (a notice has all its time at once).
    renewed_until_s: Option<u64>,
}

impl Shared {
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

    /// Notes what this process has.
    pub(super) fn took(&self, id: &str, record: &Record, renewed_until_s: Option<u64>) {
        let claim = Claim { held_until_s: record.held_until_s, renewed_until_s };
        self.claimed.borrow_mut().insert(id.to_owned(), claim);
    }

    /// Whether some delivery has the message, or it rests.
    pub(super) fn is_held(&self, record: &Record, now_s: u64) -> bool {
        let before_a_crash = record.holder == self.node && !self.claimed.borrow().contains_key(&record.message.id.0);
        record.held_until_s > now_s && !before_a_crash
    }

    /// Whether another node has it.
    pub(super) fn is_another_s(&self, record: &Record) -> bool {
        !record.holder.is_empty() && record.holder != self.node
    }
}
