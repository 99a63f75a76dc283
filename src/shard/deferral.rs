//! CR 8.3.1.6: deferred messages go out again when a client of their recipient registers, oldest first, one at a time.
//!
//! ```text
//! registration, reload, back-off ─> Waiting ─> Claim ─> INVITE, we are the source ─ Delivered ─> Remove, next one
//!                                                   \─> MESSAGE ─ 2xx ──────────────/
//!                                                    \- refused for good ─> Remove, the sender is told where it asked
//!                                                     \ not now ─> the next client; none: Return, later again
//! ```
//! Exactly one node has the claim of a message: what is accepted is delivered or still stored, never both.

use super::exchange::{Command, Fetched, Leg as MediaLeg, LegKind as MediaKind, Open, Query, Source};
use super::outbound::Purpose;
use super::outbox::Outbox;
use super::record::Cdr;
use super::sessions::streams::push;
use super::sessions::{Leg, LegKind, LegState, Session, State};
use super::signalling::{Due, Signalling, Waiting};
use super::writing::MAX_FORWARDS;
use crate::base::clock::{Duration, Instant};
use crate::base::slab::Key;
use crate::base::timers::Handle;
use crate::cpm::decision::Service;
use crate::cpm::facts::{Client, Role};
use crate::cpm::procedures::Procedure;
use crate::cpm::{deferral, delivery, disposition};
use crate::limits::NOTICE_AGAIN;
use crate::msrp::leg::{Direction, Matching, SessionKind};
use crate::sip::dialog::Dialog;
use crate::sip::owner;
use crate::store::deferred::{Deferred, DeferredId, DeferredService};
use std::collections::{BTreeMap, VecDeque};

/// Waits after the first, second and every further failure.
const BACK_OFF: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(1800)];

/// Waits after the store was away, or another node had a claim, once, twice and so on: that is over sooner than a client that is
/// busy, and asking costs nobody anything. The fifth look is just beyond [`crate::limits::SHARED_LEASE`]: what a lost node had
/// claimed is free then.
const STORE_BACK_OFF: [Duration; 7] = [
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(16),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Deferred messages of the users of one core that are on their way out.
#[derive(Default)]
pub struct Deferrals {
    queues: BTreeMap<Box<str>, Queue>,
}

#[derive(Default)]
struct Queue {
    /// Something is asked, claimed or being delivered.
    busy: bool,
    /// A client registered meanwhile: look again when done.
    again: bool,
    waiting: VecDeque<Deferred>,
    /// The message claimed, and the clients it was not tried with.
    claimed: Option<Box<Deferred>>,
    clients: VecDeque<Client>,
    failures: usize,
    /// Something was delivered since the store was last asked: it is asked once more, for there may be more than it told.
    progress: bool,
    /// The store was away, or somebody else had a claim: look again after a while.
    missed: bool,
    /// How often that was so, one time after the other.
    misses: usize,
    /// The back-off, and what it finds the user by.
    later: Option<(Handle, Key)>,
}

/// The deferred message that a session delivers.
pub struct Delivering {
    user: Box<str>,
    /// The final status of the client's INVITE, where it failed.
    pub status: Option<u16>,
}

/// When a message that is deferred now goes out again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    /// With the next registration: its recipient's preferences said so.
    OnRegistration,
    /// Nobody was registered; somebody may be by the time it is kept.
    IfRegistered,
    /// Clients were tried and could not be reached: they will be again, after a while.
    Later,
}

/// What became of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Delivered,
    /// The client does not want it, now or ever.
    Refused,
    NotNow,
}

/// Names a deferred message so that names sort as their messages arrived: those of one second too.
pub fn id(arrived: Instant, token: &str) -> DeferredId {
    DeferredId(format!("{:016x}{token}", arrived.as_nanos()))
}

impl Deferrals {
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

impl Signalling {
    /// A client of this user may be reached: what waits for the user goes out.
    pub(super) fn deliver(&mut self, user: &str, out: &mut Outbox) {
        if self.registrations.clients(user).is_empty() || self.draining || !self.serves(user) {
            return;
        }
        let queue = self.deferrals.queues.entry(user.into()).or_default();
        if queue.busy {
            queue.again = true;
            return;
        }
        queue.busy = true;
        queue.again = false;
        queue.progress = false;
        queue.missed = false;
        if let Some((later, key)) = queue.later.take() {
            self.timers.cancel(later);
            self.deferral_users.remove(key);
        }
        self.ask(Waiting::Queue { user: user.into() }, Query::Waiting { user: user.into() }, out);
    }

    /// Everybody whose registration is known.
    pub(super) fn deliver_all(&mut self, out: &mut Outbox) {
        for user in self.registrations.users() {
            self.deliver(&user, out);
        }
    }

    /// A message was deferred because its clients could not be reached: they are tried again after a while.
    fn deliver_later(&mut self, now: Instant, user: &str) {
        if self.registrations.clients(user).is_empty() {
            return;
        }
        let queue = self.deferrals.queues.entry(user.into()).or_default();
        if !queue.busy && queue.later.is_none() {
            self.rest(now, user, BACK_OFF[0]);
        }
    }

    /// A message is deferred.
    pub(super) fn deferred(&mut self, now: Instant, user: &str, again: Again, out: &mut Outbox) {
        let rests = self.deferrals.queues.get(user).is_some_and(|queue| queue.later.is_some());
        match again {
            Again::OnRegistration => {}
            Again::IfRegistered if rests => {}
            Again::IfRegistered => self.deliver(user, out),
            Again::Later => self.deliver_later(now, user),
        }
    }

    /// Whether this core delivers what waits for a user: one does, or two would at the same time.
    pub(super) fn serves(&self, user: &str) -> bool {
        self.place_of(user).is_none_or(|place| place == self.shard.wrapping_sub(self.bound.first_core))
    }

    /// The place of the core that serves a user among those of this process; none where the address has no user part: any core.
    pub fn place_of(&self, user: &str) -> Option<u8> {
        let cores = u8::try_from(self.config.cores.signaling.len()).unwrap_or(u8::MAX);
        owner::user_in(user).map(|user| owner::core_of(user, cores))
    }

    /// A back-off is over.
    pub(super) fn deliver_due(&mut self, key: Key, out: &mut Outbox) {
        let Some(user) = self.deferral_users.remove(key) else { return };
        if let Some(queue) = self.deferrals.queues.get_mut(&user) {
            queue.later = None;
        }
        if self.registrations.clients(&user).is_empty() {
            self.deferrals.queues.remove(&user);
            return;
        }
        self.deliver(&user, out);
    }

    /// What waits for a user, oldest first.
    pub(super) fn queue_heard(&mut self, now: Instant, user: &str, answer: Fetched, out: &mut Outbox) {
        let Some(queue) = self.deferrals.queues.get_mut(user) else { return };
        queue.waiting = match answer {
            Fetched::Waiting(waiting) => waiting.into(),
            _ => {
                queue.missed = true;
                VecDeque::new()
            }
        };
        self.deliver_next(now, user, out);
    }

    fn deliver_next(&mut self, now: Instant, user: &str, out: &mut Outbox) {
        let clients = self.registrations.clients(user);
        let Some(queue) = self.deferrals.queues.get_mut(user) else { return };
        while let Some(next) = queue.waiting.pop_front() {
            let suitable = next.expires_s > now.unix_s() && !deferral::suitable(&self.config, &clients, &next).is_empty();
            if suitable && !self.draining {
                let id = next.id.clone();
                self.ask(Waiting::Claim { user: user.into() }, Query::Claim { id }, out);
                return;
            }
        }
        // The store tells so many at a time; and after a split its servers may for a moment answer with what was before it.
        let again = queue.again || queue.progress;
        if !again && queue.missed {
            let wait = STORE_BACK_OFF[queue.misses.min(STORE_BACK_OFF.len() - 1)];
            queue.misses += 1;
            queue.busy = false;
            return self.rest(now, user, wait);
        }
        self.deferrals.queues.remove(user);
        if again {
            self.deliver(user, out);
        }
    }

    /// Looks again for this user's messages after a while, unless a registration comes before.
    fn rest(&mut self, now: Instant, user: &str, wait: Duration) {
        let Some(queue) = self.deferrals.queues.get_mut(user) else { return };
        if let Ok(key) = self.deferral_users.insert(user.into()) {
            queue.later = Some((self.timers.arm(now + wait, Due::Deliver(key)), key));
        }
    }

    /// The claim of a message is ours, or another node's.
    pub(super) fn claim_heard(&mut self, now: Instant, user: &str, answer: Fetched, out: &mut Outbox) {
        let clients = self.registrations.clients(user);
        let Some(queue) = self.deferrals.queues.get_mut(user) else { return };
        let Fetched::Claimed(Some(deferred)) = answer else {
            queue.missed = true;
            return self.deliver_next(now, user, out);
        };
        let suitable = deferral::suitable(&self.config, &clients, &deferred);
        queue.clients = suitable.into_iter().map(|index| clients[index].clone()).collect();
        queue.claimed = Some(deferred);
        self.try_client(now, user, out);
    }

    /// Offers the claimed message to the next client.
    fn try_client(&mut self, now: Instant, user: &str, out: &mut Outbox) {
        let Some(queue) = self.deferrals.queues.get_mut(user) else { return };
        let Some(deferred) = queue.claimed.clone() else { return };
        let Some(client) = queue.clients.pop_front() else { return self.delivery_over(now, user, Outcome::NotNow, out) };
        match deferred.service {
            DeferredService::LargeMessage => self.deliver_session(now, user, &client, &deferred, out),
            DeferredService::Pager => {
                let body = deferred.inline.clone().unwrap_or_default().into_vec();
                let message = deferral::message(&self.config, &client, &deferred, body);
                self.send_message(now, &message, &[], MAX_FORWARDS, Purpose::Deferred { user: user.into() }, out);
            }
        }
    }

    /// A session in which we are the source.
    fn deliver_session(&mut self, now: Instant, user: &str, client: &Client, deferred: &Deferred, out: &mut Outbox) {
        let invite = deferral::invite(&self.config, client, deferred);
        let record = Cdr {
            case: "terminating",
            service: "large-message",
            originator: deferred.from.clone(),
            recipient: user.to_string(),
            started_s: now.unix_s(),
            ..Cdr::default()
        };
        let source = Leg::new(LegKind::Source, LegState::Media, Dialog::calling("", "", "", "", "", &[]));
        let (procedure, service) = (Procedure::TerminatingLargeMessage, Service::LargeMessage);
        let mut session = Session::new(now, Role::Terminating, procedure, service, self.config.msrp.interop, record);
        session.state = State::Standing;
        session.delivering = Some(Box::new(Delivering { user: user.into(), status: None }));
        session.legs.push(source);
        let Ok(key) = self.sessions.table.insert(session) else { return self.delivery_over(now, user, Outcome::NotNow, out) };
        self.counts.sessions += 1;
        let line = invite.media.relayed().next().unwrap_or(0);
        let stream = self.sessions.open_stream(self.shard, key, 0, line);
        let file = Source {
            file: deferred.file.clone(),
            octets: deferred.octets,
            content_type: deferred.content_type.as_str().into(),
            message_id: deferred.message_id.as_str().into(),
        };
        let origin = MediaLeg {
            leg: 0,
            kind: MediaKind::Source(Box::new(file)),
            direction: Direction::FromPeer,
            matching: Matching::Strict,
        };
        let open =
            Open { session: stream.key, kind: SessionKind::LargeMessage, max_message: self.config.msrp.max_message, origin };
        push(out, &stream, Command::Open(Box::new(open)));
        self.sessions.table.get_mut(key).expect("the session was just made").streams.push(stream);
        self.invite_target(now, key, &invite, out);
    }

    /// The client has the whole message.
    pub(super) fn delivered(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let Some(delivering) = session.delivering.take() else { return };
        session.record.status = 200;
        self.end(now, key, "delivered", None, None, out);
        self.delivery_over(now, &delivering.user, Outcome::Delivered, out);
    }

    /// The client refused the INVITE or the message, or its session ended before it had the message.
    pub(super) fn not_delivered(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let Some(delivering) = session.delivering.take() else { return };
        session.record.status = delivering.status.unwrap_or(0);
        self.end(now, key, "not-delivered", None, None, out);
        self.client_failed(now, &delivering.user, delivering.status.unwrap_or(408), out);
    }

    /// The claim of a message cannot be held any longer: its session ends before the client has the whole message, and the message
    /// stays in the store. A MESSAGE is out already; what is answered to it is its outcome.
    pub(super) fn claim_lapsed(&mut self, now: Instant, id: &DeferredId, out: &mut Outbox) {
        let claims = |queue: &Queue| queue.claimed.as_ref().is_some_and(|claimed| claimed.id == *id);
        let Some((user, queue)) = self.deferrals.queues.iter_mut().find(|(_, queue)| claims(queue)) else { return };
        queue.clients.clear();
        let user = user.clone();
        let delivers = |session: &Session| session.delivering.as_ref().is_some_and(|delivering| delivering.user == user);
        let session = self.sessions.table.iter().find(|(_, session)| delivers(session)).map(|(key, _)| key);
        if let Some(key) = session {
            self.not_delivered(now, key, out);
        }
    }

    /// A client answered a deferred MESSAGE.
    pub(super) fn deferred_page_heard(&mut self, now: Instant, user: &str, status: u16, out: &mut Outbox) {
        match status {
            100..200 => {}
            200..300 => self.delivery_over(now, user, Outcome::Delivered, out),
            status => self.client_failed(now, user, status, out),
        }
    }

    fn client_failed(&mut self, now: Instant, user: &str, status: u16, out: &mut Outbox) {
        let more = self.deferrals.queues.get(user).is_some_and(|queue| !queue.clients.is_empty());
        if more {
            self.try_client(now, user, out);
        } else if delivery::explicit(status) {
            self.delivery_over(now, user, Outcome::Refused, out);
        } else {
            self.delivery_over(now, user, Outcome::NotNow, out);
        }
    }

    fn delivery_over(&mut self, now: Instant, user: &str, outcome: Outcome, out: &mut Outbox) {
        let Some(queue) = self.deferrals.queues.get_mut(user) else { return };
        let Some(deferred) = queue.claimed.take() else { return };
        queue.clients.clear();
        // A client registered while another was tried in vain.
        let again = queue.again;
        let id = deferred.id.clone();
        match outcome {
            Outcome::Delivered => {
                queue.failures = 0;
                queue.misses = 0;
                queue.progress = true;
                self.ask(Waiting::Nothing, Query::Remove { id }, out);
                self.deliver_next(now, user, out);
            }
            Outcome::Refused => {
                queue.progress = true;
                self.tell_failed(now, &deferred, out);
                self.deliver_next(now, user, out);
            }
            Outcome::NotNow => {
                let wait = BACK_OFF[queue.failures.min(BACK_OFF.len() - 1)];
                queue.failures += 1;
                queue.busy = false;
                queue.waiting.clear();
                self.rest(now, user, wait);
                // The rest is ours to keep, not the store's: a registration meanwhile ends it.
                self.ask(Waiting::Nothing, Query::Return { id, retry_after_s: 0 }, out);
                if again {
                    self.deliver(user, out);
                }
            }
        }
    }

    /// RFC 5438: the sender hears that its message was never delivered, where it asked for that. The message goes when the
    /// notice has its answer: a crash in between tells twice rather than never.
    pub(super) fn tell_failed(&mut self, now: Instant, deferred: &Deferred, out: &mut Outbox) {
        let id = self.own_id();
        let about = deferred.id.clone();
        match disposition::failed(&self.config, deferred, &id, now.unix_s()) {
            Some(message) => self.send_message(now, &message, &[], MAX_FORWARDS, Purpose::Notice { about }, out),
            None => {
                self.ask(Waiting::Nothing, Query::Remove { id: about }, out);
            }
        }
    }

    /// A notice was answered. Who has heard it decides what becomes of it; only what nobody heard is told again.
    pub(super) fn notice_heard(&mut self, about: &DeferredId, status: u16, out: &mut Outbox) {
        let id = about.clone();
        let retry_after_s = u32::try_from(NOTICE_AGAIN.as_secs()).unwrap_or(u32::MAX);
        let query = match status {
            100..200 => return,
            408 | 500..600 => Query::Return { id, retry_after_s },
            _ => Query::Remove { id },
        };
        self.ask(Waiting::Nothing, query, out);
    }
}
