//! CR 8.2.1.2, 8.3.1.5, 8.3.2.1: a relayed MSRP session: one origin, its targets, and the messages under way.
//!
//! ```text
//! origin ──content──> every target and sink          source ──content──> every other leg
//! target ──content──> the origin and every sink      (targets do not hear each other)
//! ```
//! Octets of an idle session: 208 here, 144 a leg with some 250 more for its URIs on the heap, 416 a connection: below 2 KiB
//! for one origin and one target (`an_idle_session_stays_at_two_kibibytes`).

use super::connection::{About, Chunk, Conn, LegId, Transaction};
use super::forward::Target;
use super::net::Net;
use super::sink::Sink;
use super::source::Outgoing;
use crate::base::clock::{Duration, Instant};
use crate::base::slab::Key;
use crate::base::timers::Handle;
use crate::limits::{MSRP_CLOSE_WAIT, MSRP_MESSAGES_MAX, MSRP_MESSAGES_WANTED, MSRP_QUIET_WAIT, MSRP_SPEAKING_WAIT};
use crate::msrp::chunk::FailureReport;
use crate::msrp::ident::Ident;
use crate::msrp::leg::{Direction, Matching, SessionKind};
use crate::shard::exchange::{LegIndex, MediaKey, Totals};
use crate::shard::media_outbox::Connection;

/// What stands at a leg's far end.
pub(super) enum Far {
    Peer,
    Sink(Box<Sink>),
    Source(Box<Outgoing>),
}

/// A leg.
pub(super) struct Leg {
    pub index: LegIndex,
    pub far: Far,
    pub direction: Direction,
    pub matching: Matching,
    pub tls: bool,
    /// Our URI as it stands in our `a=path`.
    pub uri: Box<str>,
    /// The peer's `a=path`, once it is known.
    pub to_path: Box<str>,
    /// The From-Path of its last request.
    pub from_path: Box<[u8]>,
    pub max_size: Option<u64>,
    /// What the certificate of a TLS peer that connects must hash to (RFC 8122 §6.2).
    pub fingerprint: Option<Box<str>>,
    pub connection: Option<Connection>,
    /// The connection is up and is this leg's.
    pub bound: bool,
    /// It failed or was released.
    pub out: bool,
    /// Until then its connection may come about.
    pub wait_until: Option<Instant>,
    /// The last message it began has no answers (Failure-Report: no): its sender cannot tell what is still on its way.
    pub silent: bool,
}

impl Leg {
    pub fn is_peer(&self) -> bool {
        matches!(self.far, Far::Peer)
    }

    /// Content can be sent to it.
    pub fn is_ready(&self) -> bool {
        !self.out
            && match self.far {
                Far::Peer => self.bound && !self.to_path.is_empty(),
                Far::Sink(_) => true,
                Far::Source(_) => false,
            }
    }

    /// Its connection is about to come: content waits for it.
    pub fn is_joining(&self) -> bool {
        self.is_peer() && !self.out && !self.to_path.is_empty() && !self.bound
    }

    /// To-Path of a response: the previous hop alone (RFC 4975 §7.2).
    pub fn previous_hop(&self) -> &[u8] {
        crate::msrp::uri::path(self.return_path()).next().unwrap_or_default()
    }

    /// To-Path of a report to this leg: the From-Path of its request (RFC 4975 §7.1.3), or its SDP's path.
    pub fn return_path(&self) -> &[u8] {
        if self.from_path.is_empty() { self.to_path.as_bytes() } else { &self.from_path }
    }
}

/// A message that some leg has sent or is sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub id: Ident,
    /// Place of its sender.
    pub from: u8,
    pub success_report: bool,
    pub failure_report: FailureReport,
    /// Its last chunk (or its abort) has come.
    pub done: bool,
    /// Legs it goes to, by place; of them, those whose success or failure counts; those that failed it; those that have
    /// it as a whole.
    pub takers: u32,
    pub deciders: u32,
    pub failed: u32,
    pub delivered: u32,
    /// Which leg's success and which leg's failure the sender hears of.
    pub success_from: Option<u8>,
    pub failure_from: Option<u8>,
    /// Octets so far: the place of the last octet seen.
    pub octets: u64,
    /// Chunks of it are refused with this status from now on.
    pub refused: Option<u16>,
}

impl Message {
    /// A message that begins; its sender, and the reports it asks for, are the chunk's.
    pub const fn begun(chunk: &Chunk, success_report: bool, takers: u32, deciders: u32) -> Self {
        Self {
            id: chunk.message_id,
            from: chunk.from.place,
            success_report,
            failure_report: chunk.failure_report,
            done: false,
            takers,
            deciders,
            failed: 0,
            delivered: 0,
            success_from: None,
            failure_from: None,
            octets: 0,
            refused: None,
        }
    }
}

/// The messages of a session, those of the last time in place of the oldest.
#[derive(Default)]
pub(super) struct Messages {
    marks: Vec<u32>,
    entries: Vec<Message>,
    next: usize,
}

impl Messages {
    /// The message of this id from (`Some`) this sender, or to this leg from whomever.
    pub fn find(&self, id: &Ident, matches: impl Fn(&Message) -> bool) -> Option<usize> {
        let mark = id.mark();
        let found = |at: &usize| self.marks[*at] == mark && self.entries[*at].id == *id && matches(&self.entries[*at]);
        (0..self.entries.len()).rev().find(found)
    }

    pub fn at(&self, at: usize) -> &Message {
        &self.entries[at]
    }

    pub fn at_mut(&mut self, at: usize) -> &mut Message {
        &mut self.entries[at]
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Message> {
        self.entries.iter_mut()
    }

    /// Remembers a message. Those that nobody will report on make room first; the table ends at
    /// [`MSRP_MESSAGES_MAX`], where the oldest is forgotten: a report on it is then ignored (RFC 4975 §7.1.2).
    pub fn insert(&mut self, message: Message) -> usize {
        let len = self.entries.len();
        if len >= MSRP_MESSAGES_WANTED {
            let settled = |message: &Message| message.done && (!message.success_report || message.success_from.is_some());
            let old = (0..8).map(|step| (self.next + step) % len).find(|&at| settled(&self.entries[at]));
            if let Some(at) = old.or((len >= MSRP_MESSAGES_MAX).then_some(self.next % len)) {
                self.marks[at] = message.id.mark();
                self.entries[at] = message;
                self.next = (at + 1) % len;
                return at;
            }
        }
        self.marks.push(message.id.mark());
        self.entries.push(message);
        len
    }

    /// Forgets messages that are done. Called when nothing was heard for so long that no report is due any more.
    pub fn forget_done(&mut self) {
        self.entries.retain(|message| !message.done);
        self.entries.shrink_to_fit();
        self.marks = self.entries.iter().map(|message| message.id.mark()).collect();
        self.next = 0;
    }
}

/// Who gets content from a leg now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// These legs, and of them those that decide about success.
    To { takers: u32, deciders: u32 },
    /// Nobody yet: the sender waits.
    Wait,
    /// Nobody any more.
    Nobody,
    /// None of those there takes content.
    Forbidden,
}

/// A session.
pub(super) struct Session {
    pub key: MediaKey,
    pub kind: SessionKind,
    pub max_message: u64,
    pub legs: Vec<Leg>,
    pub messages: Messages,
    pub totals: Totals,
    pub active_at: Instant,
    pub idle_told: bool,
    /// When to look next for messages that can be forgotten.
    pub look_at: Instant,
    /// The SIP session ended: what is under way may finish.
    pub closing: Option<Box<Closing>>,
    pub timer: Option<(Instant, Handle)>,
}

/// A peer that sent something so short a time before its BYE may have more on the way.
const SPEAKING_MAX: Duration = Duration::from_secs(1);

/// How a session ends: when nothing of it is under way any more, or when that takes too long.
pub(super) struct Closing {
    pub began: Instant,
    /// What is still under way then is given up, unless there was progress.
    pub until: Instant,
    /// The leg whose peer said BYE: what it sent before may still be on its way here.
    pub left: Option<u8>,
    /// A moment to look whether that is all in.
    pub look_at: Option<Instant>,
    /// Messages that are whole were granted more time to reach the disk: that is done once.
    pub extended: bool,
}

impl Closing {
    pub fn new(now: Instant, left: Option<u8>) -> Self {
        Self { began: now, until: now + MSRP_CLOSE_WAIT, left, look_at: None, extended: false }
    }

    /// Whether what this leg begins to send is still taken.
    fn takes_from(&self, now: Instant, place: u8) -> bool {
        self.left == Some(place) && now < self.began + MSRP_CLOSE_WAIT
    }
}

impl Session {
    /// Whether a message that this leg begins now is too late.
    pub fn is_over_for(&self, now: Instant, place: u8) -> bool {
        self.closing.as_ref().is_some_and(|closing| !closing.takes_from(now, place))
    }

    /// When all that the peer which said BYE had sent will be here, if nothing more comes.
    pub fn quiet_at(&self) -> Option<Instant> {
        let closing = self.closing.as_ref()?;
        let leg = &self.legs[usize::from(closing.left?)];
        let speaking = leg.silent && closing.began <= self.active_at + SPEAKING_MAX;
        let wait = if speaking || !leg.bound { MSRP_SPEAKING_WAIT } else { MSRP_QUIET_WAIT };
        let quiet_at = closing.began.max(self.active_at) + wait;
        let connected = self.legs.iter().any(|leg| leg.connection.is_some());
        (connected && leg.is_peer() && !leg.out).then(|| quiet_at.min(closing.began + MSRP_CLOSE_WAIT))
    }

    /// When octets moved last on its connections, or came in.
    pub fn progress_at(&self, net: &Net) -> Instant {
        let connections = self.legs.iter().filter_map(|leg| leg.connection.and_then(|connection| net.get(connection)));
        connections.map(|conn| conn.progress_at).fold(self.active_at, Instant::max)
    }

    /// 0 from the origin towards targets, 1 the other way.
    pub fn way(&self, place: u8) -> usize {
        let from_source = matches!(self.legs[usize::from(place)].far, Far::Source(_));
        usize::from(place != 0 && !from_source)
    }

    /// The place of the leg of this index that is still in.
    pub fn place(&self, index: LegIndex) -> Option<u8> {
        self.legs.iter().rposition(|leg| leg.index == index && !leg.out).map(|place| place as u8)
    }

    fn is_route(&self, from: usize, to: usize) -> bool {
        let sends = &self.legs[from];
        let takes = &self.legs[to];
        from != to
            && !takes.out
            && match takes.far {
                Far::Source(_) => false,
                Far::Sink(_) => true,
                Far::Peer => from == 0 || to == 0 || matches!(sends.far, Far::Source(_)),
            }
    }

    /// Where content from a leg goes. `exempt`: a delivery report, which directions do not bind (RFC 4975 §8.9).
    pub fn route(&self, from: u8, exempt: bool) -> Route {
        let from = usize::from(from);
        let (mut peers, mut sinks, mut waiting, mut closed) = (0u32, 0u32, false, false);
        for (place, leg) in self.legs.iter().enumerate().filter(|&(place, _)| self.is_route(from, place)) {
            if !leg.is_peer() {
                sinks |= 1 << place;
            } else if leg.direction == Direction::FromPeer && !exempt {
                closed = true;
            } else if leg.is_ready() {
                peers |= 1 << place;
            } else if leg.is_joining() {
                return Route::Wait;
            } else {
                waiting = true;
            }
        }
        if peers != 0 {
            Route::To { takers: peers | sinks, deciders: peers }
        } else if waiting {
            Route::Wait
        } else if sinks != 0 {
            Route::To { takers: sinks, deciders: sinks }
        } else if closed {
            Route::Forbidden
        } else if self.legs.iter().enumerate().any(|(place, leg)| place != from && leg.out) {
            Route::Nobody
        } else {
            Route::Wait
        }
    }

    /// The peers among `takers`, as targets.
    pub fn targets(&self, me: Key, takers: u32) -> impl Iterator<Item = Target<'_>> + '_ {
        let taking = move |&(place, leg): &(usize, &Leg)| takers & (1 << place) != 0 && leg.is_peer() && !leg.out;
        self.legs.iter().enumerate().filter(taking).filter_map(move |(place, leg)| {
            let to = LegId { session: me, place: place as u8 };
            Some(Target { connection: leg.connection?, to, to_path: &leg.to_path, uri: &leg.uri })
        })
    }

    /// Connections on which content from this leg goes out, full or not.
    pub fn outlets(&self, from: u8) -> impl Iterator<Item = Connection> + '_ {
        let from = usize::from(from);
        let routed = move |place: usize| self.is_route(from, place);
        self.legs
            .iter()
            .enumerate()
            .filter(move |&(place, _)| routed(place))
            .filter_map(|(_, leg)| leg.connection.filter(|_| leg.bound))
    }

    /// The connection on which content from this leg goes out, where it goes nowhere else.
    pub fn only_outlet(&self, from: u8) -> Option<Connection> {
        let from = usize::from(from);
        let mut routes = (0..self.legs.len()).filter(|&to| self.is_route(from, to));
        let leg = &self.legs[routes.next()?];
        leg.connection.filter(|_| leg.is_peer() && leg.bound && routes.next().is_none())
    }

    /// Whether some chunk, transaction or file of it is still under way, or octets wait for a peer that has not left.
    pub fn is_busy(&self, me: Key, net: &Net) -> bool {
        let left = self.closing.as_ref().and_then(|closing| closing.left).map(usize::from);
        self.legs.iter().enumerate().filter(|(_, leg)| !leg.out).any(|(place, leg)| match &leg.far {
            Far::Peer => leg.connection.and_then(|connection| net.get(connection)).is_some_and(|conn| {
                let waits = if left == Some(place) { conn.holding } else { conn.backlog() > 0 };
                waits || conn_is_busy(conn, me)
            }),
            Far::Sink(sink) => sink.is_busy(),
            Far::Source(outgoing) => outgoing.is_running(),
        })
    }

    /// Whether a sink's disk is behind by more than this.
    pub fn sinks_full(&self, octets: u64) -> bool {
        self.legs.iter().any(|leg| matches!(&leg.far, Far::Sink(sink) if sink.pending() > octets))
    }

    /// Whether a sink has a whole message that is not told yet.
    pub fn is_storing(&self) -> bool {
        self.legs.iter().any(|leg| matches!(&leg.far, Far::Sink(sink) if !leg.out && sink.is_storing()))
    }
}

fn conn_is_busy(conn: &Conn, session: Key) -> bool {
    let here = |leg: &LegId| leg.session == session;
    // Nobody's message is lost with the answer to the empty SEND that opened a connection.
    let carries = |transaction: &Transaction| transaction.about != About::Opening;
    conn.chunk.as_ref().is_some_and(|chunk| here(&chunk.from) && chunk.takers != 0)
        || conn.takes() && conn.line.as_ref().is_some_and(|line| here(&line.from))
        || conn.hears()
            && conn.awaited > 0
            && conn.transactions.iter().any(|transaction| carries(transaction) && here(&transaction.to))
}
