//! The store of the world of kept messages: a disk that fails now and then, and what the living process knows beside it.

use super::*;

/// What is on disk, and what this process knows beside.
#[derive(Default)]
pub(super) struct Store {
    pub(super) disk: BTreeMap<DeferredId, Deferred>,
    pub(super) held: BTreeMap<DeferredId, u64>,
    /// Removals that the disk did not take: nobody may have these again.
    pub(super) removed: BTreeSet<DeferredId>,
}

impl Store {
    fn is_held(&self, id: &DeferredId, now_s: u64) -> bool {
        self.held.get(id).is_some_and(|until| *until > now_s) || self.removed.contains(id)
    }
}

impl World {
    pub(super) fn fails(&mut self) -> bool {
        self.prng.below(1000) < self.failing
    }

    pub(super) fn answer(&mut self, query: Query) -> Fetched {
        let now_s = self.now.unix_s();
        let failed = Fetched::Kept(Err(StoreFailure::Unavailable));
        match query {
            Query::Resolve { .. } => Fetched::Resolved(vec![Resolved { transport: Transport::Udp, address: at(4) }]),
            Query::Document { .. } | Query::External { .. } => Fetched::Document(Document::Absent),
            Query::Record(_) | Query::Copy(_) => Fetched::Recorded(Ok(None)),
            Query::Defer(_) if self.fails() => failed,
            Query::Defer(message) => {
                if self.canary != Canary::Lying {
                    self.store.disk.insert(message.id.clone(), *message);
                }
                Fetched::Kept(Ok(()))
            }
            Query::Waiting { .. } if self.fails() => failed,
            Query::Waiting { user } => {
                let free = |message: &&Deferred| {
                    *message.user == *user && !message.is_expired(now_s) && !self.store.is_held(&message.id, now_s)
                };
                Fetched::Waiting(self.store.disk.values().filter(free).cloned().collect())
            }
            Query::Claim { .. } if self.fails() => Fetched::Claimed(None),
            Query::Claim { id } => {
                let free = !self.store.is_held(&id, now_s);
                let claimed = self.store.disk.get(&id).filter(|message| free && !message.is_expired(now_s)).cloned();
                if claimed.is_some() {
                    self.store.held.insert(id, now_s + LEASE_S);
                }
                Fetched::Claimed(claimed.map(Box::new))
            }
            Query::Register(_) | Query::Deregister { .. } => Fetched::Kept(Ok(())),
            Query::Registrants { .. } => Fetched::Registrants(Vec::new()),
            Query::Remove { id } => self.remove(id),
            Query::Return { .. } if self.fails() => failed,
            Query::Return { id, retry_after_s } => {
                self.store.held.insert(id, now_s + u64::from(retry_after_s));
                Fetched::Kept(Ok(()))
            }
        }
    }

    /// As the services do: what the disk does not take is remembered, and tried again.
    pub(super) fn remove(&mut self, id: DeferredId) -> Fetched {
        if self.canary == Canary::Forgetful {
            self.store.held.remove(&id);
            return Fetched::Kept(Ok(()));
        }
        if self.fails() {
            self.store.removed.insert(id);
            return Fetched::Kept(Err(StoreFailure::Unavailable));
        }
        self.store.held.remove(&id);
        self.store.removed.remove(&id);
        self.store.disk.remove(&id);
        Fetched::Kept(Ok(()))
    }

    pub(super) fn sweep(&mut self) {
        let now_s = self.now.unix_s();
        self.agenda.add(self.now + Duration::from_secs(10), Happening::Sweep);
        for id in self.store.removed.clone() {
            self.remove(id);
        }
        let over = |message: &&Deferred| message.is_expired(now_s) && !self.store.is_held(&message.id, now_s);
        let over: Vec<Deferred> = self.store.disk.values().filter(over).cloned().collect();
        for message in over {
            if message.is_to_be_told(now_s) {
                self.store.held.insert(message.id.clone(), now_s + NOTICE_S);
                let when = self.soon();
                self.agenda.add(when, Happening::Fetched(Ticket::UNASKED, Fetched::Expired(Box::new(message))));
            } else {
                self.store.disk.remove(&message.id);
            }
        }
    }
}
