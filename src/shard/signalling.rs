//! One signalling core: receive, match, prefetch, decide, act, follow. Octets and time come in, effects go out.
//!
//! ```text
//! receive -> transactions -> in a dialog: sessions
//!                         -> initial: role, procedure -> prefetch -> decide -> act: bridge, proxy, receive, message
//! response -> transactions -> outbound -> its purpose: a target leg, a relayed request, a proxy's branch …
//! ```
//!
//! One struct holds the core's state; each file of this folder adds the methods of its subject to it.

use super::addresses::Addresses;
use super::arrival;
use super::counts::{Counts, Direction, Outcome};
use super::deferral::Deferrals;
use super::exchange::{Fetched, LegIndex, Query, Report, Ticket};
use super::initial::Token;
use super::ladder::Ladders;
use super::locate::Locator;
use super::messages::{Batch, KeptMessage};
use super::outbound::{Lost, Outbound, Purpose};
use super::outbox::{Destination, Effect, Outbox, SendTag};
use super::overload::{NewCalls, Overload};
use super::prefetch::{DocumentKey, Gathered, Prefetch};
use super::proxy::Proxied;
use super::registrations::{Registrations, Subscriptions};
use super::sessions::keep::Keep;
use super::sessions::{Arrived, Sessions};
use crate::base::clock::{Duration, Instant};
use crate::base::hash::{Drawn, Numbered};
use crate::base::prng::Prng;
use crate::base::slab::{Key, Slab};
use crate::base::timers::Timers;
use crate::base::transport::Flow;
use crate::config::{Config, Listen};
use crate::cpm::decision::Decision;
use crate::cpm::procedures::Procedure;
use crate::cpm::refusal::Refusal;
use crate::limits::{OUTBOUND_MAX, PROXIED_MAX, SESSIONS_MAX, SUBSCRIPTIONS_MAX, TOKENS_MAX, TRANSACTIONS_MAX};
use crate::sip::message::{Incoming, Request, Response};
use crate::sip::method::Method;
use crate::sip::session_timer;
use crate::sip::transaction::seam::{Arrival, Event, Heard, ServerKey};
use crate::sip::transaction::table::Transactions;
use crate::sip::validate;
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// What we are bound to, once the kernel has chosen the ports that were 0.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// Signalling addresses in the order of `sip.listen`.
    pub sip: Vec<Listen>,
    /// MSRP addresses in the order of `msrp.listen`.
    pub msrp: Vec<Listen>,
    /// `a=fingerprint` value of our MSRP certificate ("sha-256 AB:CD:…"); none without TLS.
    pub fingerprint: Option<Box<str>>,
    /// Media cores there are.
    pub media_cores: u8,
    /// The numbers of the first signalling core and the first media core: not 0 in a process that took over from another.
    pub first_core: u8,
    pub first_media: u8,
}

/// A question that the services have not answered yet: who goes on with the answer.
pub(super) enum Waiting {
    Document(DocumentKey),
    Place {
        outbound: Key,
        query: Box<Query>,
    },
    /// A message that a sink holds is being kept.
    Keep(Box<Keep>),
    /// The same, among the deferred messages of this user.
    Deferring {
        keep: Box<Keep>,
        user: Box<str>,
    },
    /// A MESSAGE is being kept.
    KeepMessage(Box<KeptMessage>),
    /// Deferred messages of this user.
    Queue {
        user: Box<str>,
    },
    Claim {
        user: Box<str>,
    },
    /// Whose REGISTER is answered when it is kept.
    Registered(Box<Arrived>),
    /// Who registered before the start.
    Registrants,
    /// Whatever the answer is, nothing follows from it.
    Nothing,
}

/// What a timer of ours is for; those of transactions are theirs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Facts are not waited for any longer.
    Gather(Key),
    /// A leg's session is to be refreshed, or was not.
    Session(Key, LegIndex, session_timer::Timer),
    /// The core begins: what waited for static users while we were away goes out.
    Start,
    /// The next of those who registered before the start are subscribed to.
    Resume,
    /// A reg-event subscription is to be refreshed.
    Subscription(Key),
    /// Deferred messages are tried again.
    Deliver(Key),
    /// The media core did not say that a session is closed.
    Guard(Key),
    /// A reliable provisional response was not acknowledged yet.
    Provisional(Key),
    /// A change that met another one is tried again.
    Passing(Key),
    /// A Contact of ours need not be resolved any longer.
    Token(Key),
    /// A proxied INVITE's 2xx is not resent any longer.
    Proxied(Key),
}

/// What a server transaction is about, as the table gives it back: kind and key in one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cookie {
    Pending,
    Origin,
    Within,
    Proxy,
    Other,
}

/// The kind lies above the slot and below the generation: no table has 2^28 slots.
const COOKIE_SHIFT: u32 = 28;
const COOKIE_MASK: u64 = 0xf << COOKIE_SHIFT;

impl Cookie {
    pub fn of(self, key: Key) -> u64 {
        debug_assert_eq!(key.as_u64() & COOKIE_MASK, 0, "no table has 2^28 slots");
        key.as_u64() | ((self as u64 + 1) << COOKIE_SHIFT)
    }

    fn read(cookie: u64) -> Option<(Self, Key)> {
        let kind = match (cookie & COOKIE_MASK) >> COOKIE_SHIFT {
            1 => Cookie::Pending,
            2 => Cookie::Origin,
            3 => Cookie::Within,
            4 => Cookie::Proxy,
            5 => Cookie::Other,
            _ => return None,
        };
        Some((kind, Key::from_u64(cookie & !COOKIE_MASK)))
    }
}

/// One signalling core's whole state.
pub struct Signalling {
    pub(super) shard: u8,
    pub(super) config: Arc<Config>,
    pub(super) bound: Bound,
    pub(super) addresses: Addresses,
    pub(super) prng: Prng,
    pub(super) counts: Counts,
    pub(super) transactions: Transactions,
    pub(super) events: Vec<Event>,
    pub(super) timers: Timers<Due>,
    pub(super) locator: Locator,
    pub(super) outbound: Slab<Outbound>,
    /// Requests that got no response: heard by their purpose when the work in hand is done.
    pub(super) lost: VecDeque<Lost>,
    pub(super) questions: Numbered<Ticket, Waiting>,
    tickets: u64,
    pub(super) prefetch: Prefetch,
    pub(super) registrations: Registrations,
    pub(super) sessions: Sessions,
    pub(super) proxies: Slab<Proxied>,
    /// Digests of requests being proxied (RFC 3261 §16.3 step 4).
    pub(super) loops: HashSet<u64>,
    /// Contact users of ours that stand for a peer's Contact.
    pub(super) tokens: Drawn<Key>,
    pub(super) token_slab: Slab<Token>,
    /// MESSAGEs whose targets have not all answered.
    pub(super) batches: Slab<Batch>,
    pub(super) deferrals: Deferrals,
    /// Users whose deferred messages wait for a back-off.
    pub(super) deferral_users: Slab<Box<str>>,
    pub(super) subscriptions: Subscriptions,
    pub(super) overload: Overload,
    pub(super) draining: bool,
    /// Another process has taken over: registrations are its business.
    pub(super) handed_on: bool,
    pub(super) ladders: Ladders,
}

impl Signalling {
    /// `shard` is this core's number among the signalling cores; it begins every branch, tag and Contact we make.
    pub fn new(shard: u8, config: Arc<Config>, bound: Bound, mut prng: Prng) -> Self {
        let mut timers = Timers::new();
        timers.arm(Instant::default(), Due::Start);
        let mut seed = [0; 32];
        for eight in seed.chunks_exact_mut(8) {
            eight.copy_from_slice(&prng.u64().to_le_bytes());
        }
        Self {
            shard,
            addresses: Addresses::new(&config, &bound),
            counts: Counts::default(),
            transactions: Transactions::new(shard, config.sip.t1, TRANSACTIONS_MAX, Prng::from_entropy(seed)),
            events: Vec::new(),
            timers,
            locator: Locator::default(),
            outbound: Slab::with_capacity(OUTBOUND_MAX),
            lost: VecDeque::new(),
            questions: Numbered::default(),
            tickets: 0,
            prefetch: Prefetch::new(config.xdm.cache),
            registrations: Registrations::new(&config),
            sessions: Sessions::new(SESSIONS_MAX, bound.media_cores),
            proxies: Slab::with_capacity(PROXIED_MAX),
            loops: HashSet::new(),
            tokens: Drawn::default(),
            token_slab: Slab::with_capacity(TOKENS_MAX),
            batches: Slab::with_capacity(PROXIED_MAX),
            deferrals: Deferrals::default(),
            deferral_users: Slab::with_capacity(SUBSCRIPTIONS_MAX),
            subscriptions: Subscriptions::default(),
            overload: Overload::default(),
            draining: false,
            handed_on: false,
            ladders: {
                let watched = config.admin.listen.is_some() || config.sip.hep.is_some();
                let mut ladders = Ladders::new(watched, config.limits.dialogs.div_ceil(2), &mut prng);
                ladders.names = config.sip.hep.is_some();
                ladders
            },
            config,
            bound,
            prng,
        }
    }

    /// One framed message from a flow.
    pub fn receive(&mut self, now: Instant, flow: Flow, message: &[u8], out: &mut Outbox) {
        if self.turned_away(now, &flow, message, out) {
            return;
        }
        self.ladders.message(now, false, flow.peer, message);
        match Incoming::parse(message) {
            Ok(incoming) => match validate::validate(&incoming).or_else(|reject| self.tolerated(&incoming, reject)) {
                Ok(()) => match incoming {
                    Incoming::Request(request) => self.request(now, flow, request, out),
                    Incoming::Response(response) => {
                        let trusted = arrival::is_trusted(&self.config, &flow);
                        let response = if trusted { response } else { arrival::believed_response(response) };
                        self.response(now, flow, &response, out);
                    }
                },
                Err(reject) => self.reject(now, &flow, message, reject, out),
            },
            Err(malformed) => self.reject(now, &flow, message, malformed.into(), out),
        }
        self.settle(now, out);
    }

    fn request(&mut self, now: Instant, flow: Flow, request: Request, out: &mut Outbox) {
        self.counts.request(request.method(), Direction::In);
        let trusted = arrival::is_trusted(&self.config, &flow);
        let request = if trusted { request } else { arrival::believed(request) };
        let request = Rc::new(arrival::loosened(&self.addresses, request));
        let (server, merged) = match self.transactions.receive_request(now, &flow, &request, out) {
            Arrival::Absorbed => return,
            Arrival::Ack => return self.acknowledged(now, &flow, &request, out),
            Arrival::Cancel { cookie, invite } => return self.cancelled(now, invite, cookie, &request, out),
            Arrival::New(server) => (server, false),
            Arrival::Merged(server) => (server, true),
        };
        match request.to_tag() {
            Some(tag) => match self.sessions.of_tag(tag) {
                Some((session, leg)) => self.within(now, session, leg, server, &request, out),
                None => self.foreign(now, flow, tag, server, &request, out),
            },
            None => self.initial(now, flow, trusted, merged, server, request, out),
        }
    }

    /// Runs the procedure and carries out what it decided. A bug in it costs this request a 500 and nobody else anything:
    /// it changes nothing, so there is nothing half done.
    pub(super) fn decide(&mut self, now: Instant, arrived: Arrived, procedure: Procedure, gathered: Gathered, out: &mut Outbox) {
        let facts = gathered.facts(&self.config, now);
        let decided = catch_unwind(AssertUnwindSafe(|| procedure.decide(&facts, &arrived.request)));
        match decided.unwrap_or_else(|_| Err(Refusal::new(500, "RFC 3261 §21.5.1"))) {
            Ok(decision) => self.act(now, arrived, procedure, gathered, decision, out),
            Err(refusal) => {
                self.counts.invite(arrived.role, service_of(procedure), Outcome::Refused);
                self.record_refusal(now, &arrived, procedure, refusal.status, refusal.clause, out);
                self.refuse(now, arrived.server, &refusal, out);
            }
        }
    }

    fn act(
        &mut self,
        now: Instant,
        arrived: Arrived,
        procedure: Procedure,
        gathered: Gathered,
        decision: Decision,
        out: &mut Outbox,
    ) {
        match decision {
            Decision::Bridge(bridge) => self.bridge(now, arrived, procedure, gathered, *bridge, out),
            Decision::Proxy(proxy) => self.proxy(now, arrived, &proxy, out),
            Decision::Receive(receive) => self.receive_message(now, arrived, procedure, gathered, &receive, out),
            Decision::Message(messages) => self.page(now, arrived, procedure, gathered, &messages, false, out),
            Decision::KeepMessage { purpose, answer } => self.keep_message(arrived, purpose, *answer, false, out),
        }
    }

    fn response(&mut self, now: Instant, flow: Flow, response: &Response, out: &mut Outbox) {
        let method = response.cseq().map_or(Method::Other, |cseq| cseq.method);
        self.counts.response(method, response.status(), Direction::In);
        let Some(Heard { client, cookie, method }) = self.transactions.receive_response(now, response, out) else { return };
        match self.answered(now, Key::from_u64(cookie), response, out) {
            Some(purpose) => {
                if let Purpose::Target { session, leg } = purpose {
                    self.sessions.speaks_from(session, leg, flow);
                }
                self.heard(now, &purpose, client, method, response, out);
            }
            None if method == Method::Invite && (200..300).contains(&response.status()) => {
                self.end_fork(now, client, response, out);
            }
            None => {}
        }
    }

    /// What was lost, and what transactions told, until nothing is left to hear.
    fn settle(&mut self, now: Instant, out: &mut Outbox) {
        loop {
            if let Some(Lost { purpose, status, said }) = self.lost.pop_front() {
                self.unheard(now, &purpose, status, said.as_ref(), out);
                continue;
            }
            let Some(event) = self.events.pop() else { return self.note(now, out) };
            match event {
                Event::TimedOut { cookie, .. } => self.unanswered(now, Key::from_u64(cookie), 408, out),
                Event::Unreachable { cookie, .. } => self.unanswered(now, Key::from_u64(cookie), 503, out),
                Event::Unacknowledged { cookie, success: true, .. } => {
                    if let Some((Cookie::Origin | Cookie::Within, session)) = Cookie::read(cookie) {
                        self.unacknowledged(now, session, out);
                    }
                }
                Event::Unacknowledged { .. } | Event::Undelivered { .. } => {}
            }
        }
    }

    /// What is about to go out stands in the ladders too.
    fn note(&mut self, now: Instant, out: &mut Outbox) {
        for effect in out.effects.iter().skip(out.noted) {
            match effect {
                Effect::Send { to: Destination::Flow { flow, .. }, octets, .. } => {
                    self.ladders.message(now, true, flow.peer, out.octets(octets));
                }
                Effect::Send { to: Destination::Target(target), octets, .. } => {
                    self.ladders.message(now, true, target.address, out.octets(octets));
                }
                Effect::Record(record) => self.ladders.recorded(record),
                Effect::Media { .. } | Effect::Fetch { .. } | Effect::Registered { .. } | Effect::Dropped { .. } => {}
            }
        }
        out.noted = out.effects.len();
    }

    /// A CANCEL found its INVITE, which is still open.
    fn cancelled(&mut self, now: Instant, invite: ServerKey, cookie: u64, cancel: &Request, out: &mut Outbox) {
        match Cookie::read(cookie) {
            Some((Cookie::Origin, session)) => self.cancel_session(now, session, cancel, out),
            Some((Cookie::Pending, pending)) => {
                if let Some(pending) = self.forget_pending(pending) {
                    self.counts.invite(pending.arrived.role, service_of(pending.procedure), Outcome::Cancelled);
                }
                self.refuse_status(now, invite, 487, out);
            }
            Some((Cookie::Within, session)) => self.cancel_change(now, session, invite, cancel, out),
            Some((Cookie::Proxy, proxied)) => self.cancel_proxied(now, proxied, cancel, out),
            _ => self.refuse_status(now, invite, 487, out),
        }
    }

    /// A message could not be sent: no connection, ICMP error, flow gone.
    pub fn failed(&mut self, now: Instant, tag: SendTag, out: &mut Outbox) {
        self.transactions.failed(now, tag.0, out, &mut self.events);
        self.settle(now, out);
    }

    /// The services answered a question.
    pub fn fetched(&mut self, now: Instant, ticket: Ticket, answer: Fetched, out: &mut Outbox) {
        let is_kept = matches!(answer, Fetched::Kept(Ok(())));
        match self.questions.remove(&ticket) {
            Some(Waiting::Document(key)) => self.document(now, key, answer, out),
            Some(Waiting::Place { outbound, query }) => self.placed(now, outbound, &query, &answer, out),
            Some(Waiting::Keep(keep)) => self.kept(*keep, &answer, out),
            Some(Waiting::Deferring { keep, user }) => {
                let again = keep.again;
                self.kept(*keep, &answer, out);
                if is_kept {
                    self.deferred(now, &user, again, out);
                }
            }
            Some(Waiting::KeepMessage(kept)) => self.message_kept(now, *kept, &answer, out),
            Some(Waiting::Queue { user }) => self.queue_heard(now, &user, answer, out),
            Some(Waiting::Claim { user }) => self.claim_heard(now, &user, answer, out),
            Some(Waiting::Registered(arrived)) => self.registrant_kept(now, &arrived, out),
            Some(Waiting::Registrants) => self.registrants_heard(now, answer, out),
            Some(Waiting::Nothing) => {}
            None => match answer {
                Fetched::Expired(deferred) => self.tell_failed(now, &deferred, out),
                Fetched::Lapsed(id) => self.claim_lapsed(now, &id, out),
                _ => {}
            },
        }
        self.settle(now, out);
    }

    /// A media core reports about a session.
    pub fn reported(&mut self, now: Instant, report: Report, out: &mut Outbox) {
        self.media_report(now, report, out);
        self.settle(now, out);
    }

    /// Fires every timer up to `now`.
    pub fn due(&mut self, now: Instant, out: &mut Outbox) {
        self.transactions.due(now, out, &mut self.events);
        self.settle(now, out);
        while let Some(due) = self.timers.due(now) {
            match due {
                Due::Gather(pending) => self.gather_limit(now, pending, out),
                Due::Session(session, leg, timer) => self.session_timer(now, session, leg, timer, out),
                Due::Guard(session) => self.guard(now, session, out),
                Due::Start => {
                    self.deliver_all(out);
                    self.resume(out);
                }
                Due::Resume => self.resume(out),
                Due::Subscription(subscription) => self.subscription_due(now, subscription, out),
                Due::Deliver(user) => self.deliver_due(user, out),
                Due::Provisional(session) => self.provisional_due(now, session, out),
                Due::Passing(session) => self.passing_due(now, session, out),
                Due::Token(token) => self.forget_token(token),
                Due::Proxied(proxied) => self.forget_proxied(proxied),
            }
            self.settle(now, out);
        }
    }

    /// When [`Signalling::due`] wants to be called next.
    pub fn next_due(&self) -> Option<Instant> {
        match (self.transactions.next_due(), self.timers.next()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// MSRP has another certificate: what is offered and answered from now on names it. Before [`Signalling::reload`].
    pub fn certified(&mut self, fingerprint: Option<&str>) {
        self.bound.fingerprint = fingerprint.map(Into::into);
    }

    /// A new configuration: policy, trust, routes and limits count from the next request on; static registrations at once.
    pub fn reload(&mut self, now: Instant, config: Arc<Config>, out: &mut Outbox) {
        self.addresses = Addresses::new(&config, &self.bound);
        self.transactions.set_t1(config.sip.t1);
        self.ladders.names = config.sip.hep.is_some();
        self.prefetch.reload(config.xdm.cache);
        let registered = self.registrations.reload(&config);
        self.config = config;
        // 8.3.1.6: who registered has what waits delivered.
        for user in registered {
            self.deliver(&user, out);
        }
        self.settle(now, out);
    }

    /// No new dialogs from here on (503 with Retry-After); running ones go on.
    pub const fn drain(&mut self) {
        self.draining = true;
    }

    /// Another process takes what is new from here on: what runs goes on, and nobody is asked about registrations any more.
    pub fn hand_on(&mut self) {
        self.draining = true;
        self.handed_on = true;
    }

    /// The other process is gone: this one serves again, or, where it was told to end, only goes on.
    pub fn take_back(&mut self, draining: bool) {
        self.draining = draining;
        self.handed_on = false;
    }

    /// Whether an unparsed request is of a transaction of this core.
    pub fn knows(&self, message: &[u8]) -> bool {
        self.transactions.knows(message)
    }

    /// The transactions of requests that came in, for whoever is to know that they are ours.
    pub fn served(&self) -> Vec<u64> {
        self.transactions.numbers().collect()
    }

    /// Ends every session with BYE.
    pub fn stop(&mut self, now: Instant, out: &mut Outbox) {
        self.draining = true;
        let all: Vec<Key> = self.sessions.table.iter().map(|(key, _)| key).collect();
        for session in all {
            self.end(now, session, "drain", None, None, out);
        }
        self.settle(now, out);
    }

    /// The time for what [`Signalling::stop`] began is over: what still waits ends without.
    pub fn give_up(&mut self, now: Instant, out: &mut Outbox) {
        let all: Vec<Key> = self.sessions.table.iter().map(|(key, _)| key).collect();
        for session in all {
            self.cut_short(now, session, out);
        }
        self.settle(now, out);
    }

    /// Nothing is left: no transaction, no dialog, no session.
    pub fn is_idle(&self) -> bool {
        self.transactions.is_empty()
            && self.outbound.is_empty()
            && self.sessions.table.is_empty()
            && self.sessions.parting.is_empty()
            && self.proxies.is_empty()
            && self.batches.is_empty()
            && self.prefetch.pending.is_empty()
            && self.timers.is_empty()
    }

    /// What is held beside sessions, by kind: it comes to nothing when there is nothing to do.
    pub fn held(&self) -> [(&'static str, u64); 4] {
        [
            ("transactions", self.transactions.len() as u64),
            ("requests", self.outbound.len() as u64),
            ("decisions", self.prefetch.pending.len() as u64),
            ("timers", self.timers.len() as u64),
        ]
    }

    /// What keeps [`Signalling::is_idle`] from being true, for tests and logs.
    pub fn left(&self) -> String {
        format!(
            "{} transactions, {} requests, {} sessions, {} decisions, {} timers",
            self.transactions.len(),
            self.outbound.len(),
            self.sessions.table.len(),
            self.prefetch.pending.len(),
            self.timers.len()
        )
    }

    /// Counters for the metrics.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// New calls so far, and how many of them were too many.
    pub fn new_calls(&self) -> NewCalls {
        self.overload.calls
    }

    /// How long what is handed in now has waited in the engine's queue: the overload control's input.
    pub fn queue_delay(&mut self, now: Instant, delay: Duration) {
        self.overload.waited(now, delay, self.config.limits.overload_queue_delay);
    }

    /// Asks the services; the answer finds `who`.
    pub(super) fn ask(&mut self, who: Waiting, query: Query, out: &mut Outbox) -> Ticket {
        self.tickets += 1;
        // The shard stands on top, so that the lane back needs no table.
        let ticket = Ticket((u64::from(self.shard) << 56) | self.tickets);
        self.questions.insert(ticket, who);
        out.effects.push(Effect::Fetch { ticket, query });
        ticket
    }
}

/// The service label of a procedure; none for what is proxied.
pub(super) const fn service_of(procedure: Procedure) -> Option<crate::cpm::decision::Service> {
    use crate::cpm::decision::Service;
    match procedure {
        Procedure::OriginatingLargeMessage | Procedure::TerminatingLargeMessage => Some(Service::LargeMessage),
        Procedure::OriginatingSession | Procedure::TerminatingSession => Some(Service::Session),
        Procedure::OriginatingPager | Procedure::TerminatingPager => Some(Service::Pager),
        Procedure::Proxy => None,
    }
}
