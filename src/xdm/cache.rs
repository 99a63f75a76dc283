//! CR 8.4.1, RFC 4825 §7.11: one core's cache of documents, with ETags.
//!
//! A document is fresh for the configured time, then asked for again with its ETag. While XDM is away the old one
//! stands in. One fetch is in flight for a document; others who want it wait for its answer.
//!
//! ```text
//! look ── fresh ──────────────> Known
//!      ── stale, none asked ──> Fetch(etag)  ── fetched ──> value for all who waited
//!      ── stale, asked ───────> Waiting
//! ```

use crate::base::clock::{Duration, Instant};
use crate::limits::{XDM_CACHE_ENTRIES_MAX, XDM_CACHE_OCTETS_MAX, XDM_FAILURE_HOLD, XDM_STALE_MAX, XDM_WAITING_MAX};
use std::collections::BTreeMap;

/// Documents by key `K`, read into `V` (cheap to clone); `W` names who waits.
#[derive(Debug)]
pub struct Cache<K, V, W> {
    fresh_for: Duration,
    entries: BTreeMap<K, Entry<V, W>>,
    /// Order of last use, oldest first.
    used: BTreeMap<u64, K>,
    tick: u64,
    octets: usize,
}

#[derive(Debug)]
struct Entry<V, W> {
    held: Option<Held<V>>,
    /// Until then it is answered from what is held.
    fresh_until: Instant,
    fetching: bool,
    waiting: Vec<W>,
    used: u64,
}

#[derive(Debug)]
struct Held<V> {
    /// None: the user has no such document.
    value: Option<V>,
    etag: Option<Box<str>>,
    octets: usize,
    confirmed: Instant,
}

/// What the cache says to a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Look<V> {
    /// The document, or that there is none.
    Known(Option<V>),
    /// Fetch it, with this ETag; who asked is among those who wait.
    Fetch { etag: Option<Box<str>> },
    /// It is being fetched; who asked is among those who wait.
    Waiting,
}

/// What a fetch brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer<V> {
    /// A document, its ETag and its length.
    Found {
        value: V,
        etag: Option<Box<str>>,
        octets: usize,
    },
    NotModified,
    /// There is no such document.
    Absent,
    /// XDM is away, or what it gave is no document.
    Failed,
}

impl<K: Ord + Clone, V: Clone, W> Cache<K, V, W> {
    /// An empty cache whose documents stay fresh for that time.
    pub fn new(fresh_for: Duration) -> Self {
        Self { fresh_for, entries: BTreeMap::new(), used: BTreeMap::new(), tick: 0, octets: 0 }
    }

    /// Asks for a document. `who` is kept, and given back by [`Self::fetched`], unless the answer is known.
    pub fn look(&mut self, now: Instant, key: &K, who: W) -> Look<V> {
        self.touch(key);
        let entry = self.entries.get_mut(key).expect("touched entries exist");
        if now < entry.fresh_until {
            return Look::Known(entry.held.as_ref().and_then(|held| held.value.clone()));
        }
        if entry.waiting.len() >= XDM_WAITING_MAX {
            return Look::Known(entry.stand_in(now));
        }
        entry.waiting.push(who);
        if std::mem::replace(&mut entry.fetching, true) {
            return Look::Waiting;
        }
        Look::Fetch { etag: entry.held.as_ref().and_then(|held| held.etag.clone()) }
    }

    /// Takes the answer of a fetch: gives the document, or that there is none, and all who waited for it, in order.
    pub fn fetched(&mut self, now: Instant, key: &K, answer: Answer<V>) -> (Option<V>, Vec<W>) {
        let Some(entry) = self.entries.get_mut(key) else { return (None, Vec::new()) };
        entry.fetching = false;
        let before = entry.octets();
        entry.fresh_until = now + self.fresh_for;
        match answer {
            Answer::Found { value, etag, octets } => {
                entry.held = Some(Held { value: Some(value), etag, octets, confirmed: now });
            }
            Answer::Absent => entry.held = Some(Held { value: None, etag: None, octets: 0, confirmed: now }),
            Answer::NotModified => match &mut entry.held {
                Some(held) => held.confirmed = now,
                // "Not modified" without a copy at hand is a mistake of the server.
                None => entry.fresh_until = now + self.fresh_for.min(XDM_FAILURE_HOLD),
            },
            Answer::Failed => entry.fresh_until = now + self.fresh_for.min(XDM_FAILURE_HOLD),
        }
        if entry.stand_in(now).is_none() && entry.held.as_ref().is_some_and(|held| held.value.is_some()) {
            entry.held = None;
        }
        let value = entry.held.as_ref().and_then(|held| held.value.clone());
        let waiting = std::mem::take(&mut entry.waiting);
        self.octets = self.octets + entry.octets() - before;
        self.evict();
        (value, waiting)
    }

    /// Forgets everything that nobody waits for (the configuration was read again).
    pub fn clear(&mut self, fresh_for: Duration) {
        self.fresh_for = fresh_for;
        for entry in self.entries.values_mut() {
            entry.fresh_until = Instant::default();
        }
    }

    /// Documents held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn touch(&mut self, key: &K) {
        self.tick += 1;
        let tick = self.tick;
        match self.entries.get_mut(key) {
            Some(entry) => {
                self.used.remove(&entry.used);
                entry.used = tick;
            }
            None => {
                let fresh_until = Instant::default();
                self.entries
                    .insert(key.clone(), Entry { held: None, fresh_until, fetching: false, waiting: Vec::new(), used: tick });
            }
        }
        self.used.insert(tick, key.clone());
    }

    /// Drops what was not used for longest until the bounds hold; what is being fetched stays.
    fn evict(&mut self) {
        let mut after = 0;
        while self.entries.len() > XDM_CACHE_ENTRIES_MAX || self.octets > XDM_CACHE_OCTETS_MAX {
            let Some((tick, key)) = self.used.range(after..).next().map(|(tick, key)| (*tick, key.clone())) else { break };
            after = tick + 1;
            if self.entries.get(&key).is_some_and(|entry| !entry.fetching) {
                self.used.remove(&tick);
                self.octets -= self.entries.remove(&key).map_or(0, |entry| entry.octets());
            }
        }
    }
}

impl<V: Clone, W> Entry<V, W> {
    fn octets(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.octets)
    }

    /// What stands in for an answer: what is held, where it is not too old.
    fn stand_in(&self, now: Instant) -> Option<V> {
        let held = self.held.as_ref().filter(|held| now.since(held.confirmed) <= XDM_STALE_MAX)?;
        held.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_unix_s(1_000_000 + seconds)
    }

    fn cache() -> Cache<&'static str, &'static str, u32> {
        Cache::new(Duration::from_secs(60))
    }

    fn found(value: &'static str) -> Answer<&'static str> {
        Answer::Found { value, etag: Some("e1".into()), octets: 10 }
    }

    #[test]
    fn one_fetch_answers_all_who_wait() {
        let mut cache = cache();
        assert_eq!(cache.look(at(0), &"k", 1), Look::Fetch { etag: None });
        assert_eq!(cache.look(at(0), &"k", 2), Look::Waiting);
        assert_eq!(cache.fetched(at(1), &"k", found("v")), (Some("v"), vec![1, 2]));
        assert_eq!(cache.look(at(60), &"k", 3), Look::Known(Some("v")));
    }

    #[test]
    fn an_old_document_is_asked_for_with_its_etag() {
        let mut cache = cache();
        cache.look(at(0), &"k", 1);
        cache.fetched(at(0), &"k", found("v"));
        assert_eq!(cache.look(at(60), &"k", 2), Look::Fetch { etag: Some("e1".into()) });
        assert_eq!(cache.fetched(at(61), &"k", Answer::NotModified), (Some("v"), vec![2]));
        assert_eq!(cache.look(at(120), &"k", 3), Look::Known(Some("v")));
    }

    #[test]
    fn the_old_document_stands_in_while_xdm_is_away_but_not_for_ever() {
        let mut cache = cache();
        cache.look(at(0), &"k", 1);
        cache.fetched(at(0), &"k", found("v"));
        cache.look(at(60), &"k", 2);
        assert_eq!(cache.fetched(at(60), &"k", Answer::Failed), (Some("v"), vec![2]));
        // It is not asked for with every request.
        assert_eq!(cache.look(at(60), &"k", 3), Look::Known(Some("v")));
        let late = 2 * XDM_STALE_MAX.as_secs();
        assert_eq!(cache.look(at(late), &"k", 4), Look::Fetch { etag: Some("e1".into()) });
        assert_eq!(cache.fetched(at(late), &"k", Answer::Failed), (None, vec![4]));
    }

    #[test]
    fn that_there_is_no_document_is_known_too() {
        let mut cache = cache();
        cache.look(at(0), &"k", 1);
        assert_eq!(cache.fetched(at(0), &"k", Answer::Absent), (None, vec![1]));
        assert_eq!(cache.look(at(1), &"k", 2), Look::Known(None));
        assert_eq!(cache.fetched(at(1), &"other", found("v")), (None, vec![]));
    }

    #[test]
    fn the_least_used_goes_first_and_the_bounds_hold() {
        let mut cache: Cache<usize, (), ()> = Cache::new(Duration::from_secs(60));
        for key in 0..XDM_CACHE_ENTRIES_MAX + 10 {
            cache.look(at(0), &key, ());
            if key != 5 {
                cache.fetched(at(0), &key, Answer::Found { value: (), etag: None, octets: 1 });
            }
        }
        assert_eq!(cache.len(), XDM_CACHE_ENTRIES_MAX);
        // Number 5 is still being fetched.
        assert_eq!(cache.look(at(0), &5, ()), Look::Waiting);
        let octets = XDM_CACHE_OCTETS_MAX - 1000;
        cache.fetched(at(0), &5, Answer::Found { value: (), etag: None, octets });
        assert!(cache.len() <= 1001);
        assert_eq!(cache.look(at(0), &5, ()), Look::Known(Some(())));
    }

    #[test]
    fn who_comes_when_too_many_wait_goes_on_without() {
        let mut cache: Cache<u8, (), ()> = Cache::new(Duration::from_secs(60));
        cache.look(at(0), &0, ());
        for _ in 1..XDM_WAITING_MAX {
            assert_eq!(cache.look(at(0), &0, ()), Look::Waiting);
        }
        assert_eq!(cache.look(at(0), &0, ()), Look::Known(None));
    }
}
