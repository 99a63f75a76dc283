//! RFC 3261 §17: the transactions of one core. Messages and time in, messages to a sink out.
//!
//! ```text
//! request from a peer --receive_request--> Arrival      the user answers with respond / refuse / forward
//! request of the user --request----------> ClientKey    the peer's answer: receive_response --> Heard
//! due(now), failed(tag) -----------------> Event        what the user hears besides messages
//! ```
//!
//! Cost: a request that comes in is one table entry, one key text and one tag; one that goes out is one entry and one copy
//! of its octets. Both shrink to a few hundred octets as soon as the final response is there, for it is the silent 32
//! seconds after it that most entries spend here.

use super::action::{Action, Timer, Times};
use super::seam::{Event, ServerKey, Sink};
use super::{key, table_client, table_server};
use crate::base::clock::Instant;
use crate::base::hash::Numbered;
use crate::base::prng::Prng;
use crate::base::slab::{Key, Slab};
use crate::base::timers::{Handle, Timers};
use crate::limits::FORGET_GRAIN;
use crate::sip::message::Incoming;
use std::collections::HashMap;
use std::hash::RandomState;
use std::rc::Rc;
use std::time::Duration;

/// The transactions of one core. Requests that come in are handled in `table_arrival` and `table_server`, of those that go out in
/// `table_client`.
pub struct Transactions {
    pub(super) shard: u8,
    pub(super) times: Times,
    pub(super) prng: Prng,
    pub(super) entries: Slab<Entry>,
    /// Server transactions by [`super::key::server`].
    pub(super) servers: HashMap<Rc<str>, Key>,
    /// Server transactions by [`super::key::merge`].
    pub(super) merges: Numbered<u64, Key>,
    pub(super) hashes: RandomState,
    pub(super) timers: Timers<(Key, Timer)>,
    /// Scratch, empty between calls: actions of a step, the key of a request, octets of a message.
    pub(super) actions: Vec<Action>,
    pub(super) text: String,
    pub(super) octets: Vec<u8>,
}

pub(super) enum Entry {
    Server(table_server::Server),
    Client(table_client::Client),
}

/// The timers of one transaction: it never has more than three.
#[derive(Default)]
pub(super) struct Armed([Option<(Timer, Handle)>; 3]);

impl Armed {
    /// Arms a timer, in place of the one of the same letter.
    pub(super) fn arm(&mut self, timer: Timer, at: Instant, key: Key, timers: &mut Timers<(Key, Timer)>) {
        self.keep_only(|armed| armed != timer, timers);
        let at = if timer.only_forgets() { at.rounded_up(FORGET_GRAIN) } else { at };
        let free = self.0.iter_mut().find(|place| place.is_none()).expect("no state keeps more than three timers");
        *free = Some((timer, timers.arm(at, (key, timer))));
    }

    /// Takes back every timer that the new state does not keep.
    pub(super) fn keep_only(&mut self, keeps: impl Fn(Timer) -> bool, timers: &mut Timers<(Key, Timer)>) {
        for place in &mut self.0 {
            if let Some((_, handle)) = place.take_if(|(timer, _)| !keeps(*timer)) {
                timers.cancel(handle);
            }
        }
    }

    /// The timer has fired.
    fn fired(&mut self, timer: Timer) {
        for place in &mut self.0 {
            place.take_if(|(armed, _)| *armed == timer);
        }
    }
}

impl Transactions {
    /// An empty table of core `shard` for at most `capacity` transactions. Branches and tags are drawn from `prng`.
    pub fn new(shard: u8, t1: Duration, capacity: usize, prng: Prng) -> Self {
        Self {
            shard,
            times: Times::of(t1),
            prng,
            entries: Slab::with_capacity(capacity),
            servers: HashMap::new(),
            merges: Numbered::default(),
            hashes: RandomState::new(),
            timers: Timers::new(),
            actions: Vec::new(),
            text: String::new(),
            octets: Vec::new(),
        }
    }

    /// Transactions in the table, those that only absorb resends among them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys of all server transactions, as [`key::number_of`] numbers them.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().filter_map(|(_, entry)| match entry {
            Entry::Server(server) => Some(key::number_of(&server.id)),
            Entry::Client(_) => None,
        })
    }

    /// Whether an unparsed request is of a server transaction here: a resend, or the CANCEL or ACK of an INVITE.
    pub fn knows(&self, octets: &[u8]) -> bool {
        let Ok(Incoming::Request(request)) = Incoming::parse(octets) else { return false };
        let mut text = String::new();
        key::server(&request, &mut text).is_ok() && self.servers.contains_key(text.as_str())
    }

    /// A new T1 (configuration reload); running timers keep what they have.
    pub fn set_t1(&mut self, t1: Duration) {
        self.times = Times::of(t1);
    }

    /// When [`Transactions::due`] is to be called.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Plays every timer whose moment has come.
    pub fn due(&mut self, now: Instant, out: &mut impl Sink, events: &mut Vec<Event>) {
        while let Some((key, timer)) = self.timers.due(now) {
            match self.entries.get_mut(key) {
                Some(Entry::Server(server)) => {
                    server.armed.fired(timer);
                    self.server_timer(now, ServerKey(key), timer, out, events);
                }
                Some(Entry::Client(client)) => {
                    client.armed.fired(timer);
                    self.client_timer(now, key, timer, out, events);
                }
                None => {}
            }
        }
    }

    /// The sender could not send what it was given under this tag.
    pub fn failed(&mut self, now: Instant, tag: u64, out: &mut impl Sink, events: &mut Vec<Event>) {
        let key = Key::from_u64(tag);
        match self.entries.get(key) {
            Some(Entry::Server(_)) => self.server_unreachable(now, ServerKey(key), out, events),
            Some(Entry::Client(_)) => self.client_unreachable(now, key, out, events),
            None => {}
        }
    }
}
