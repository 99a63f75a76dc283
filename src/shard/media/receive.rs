//! RFC 4975 §7.3: octets that came in, step by step; to which leg they speak; and what their sender is told at once.

use super::Media;
use super::connection::{Chunk, Conn, LegId, Phase};
use super::counts::Cause;
use super::forward::{Arrival, Ground};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::clause;
use crate::limits::MSRP_HELD_OCTETS_MAX;
use crate::msrp::chunk::FailureReport;
use crate::msrp::fingerprint;
use crate::msrp::head::{Head, Start};
use crate::msrp::leg::{Matching, SessionKind};
use crate::msrp::parse::{End, Place, Step};
use crate::msrp::uri::{self, Uri};
use crate::msrp::{status, write};
use crate::shard::exchange::{LegFailure, Report};
use crate::shard::media_outbox::{Connection, MediaEffect, MediaOutbox};
use std::ops::Range;

/// A leg nobody is at: of chunks that are read and dropped.
const NOWHERE: LegId = LegId { session: Key::from_u64(u64::MAX), place: 0 };

/// Who sent a request: the connection it came on, and the leg.
pub(super) type Sender = (Connection, LegId);

/// A stretch of a body, and the end-line where it stands behind it.
pub(super) struct Part<'a> {
    pub ground: Ground,
    pub octets: &'a [u8],
    pub body: Range<usize>,
    pub end: Option<End>,
}

/// What becomes of the octets behind a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    Next,
    /// Nobody can take the request yet: it waits with all that follows it.
    Hold,
    /// The connection is another core's.
    HandOver(u8),
    /// The connection is being left.
    Stop,
}

/// Whom a To-Path means.
enum Addressed {
    Leg(LegId),
    OtherCore(u8),
    Nobody(Cause),
}

impl Media {
    /// Takes in octets of a connection in order.
    pub(super) fn feed(
        &mut self,
        now: Instant,
        connection: Connection,
        ground: Ground,
        octets: &mut [u8],
        out: &mut MediaOutbox,
    ) {
        let mut at = 0;
        while at < octets.len() {
            if !self.feed_one(now, connection, ground, octets, &mut at, out) {
                return;
            }
        }
        self.throttle(connection, out);
    }

    /// Takes in the next thing that stands at `at`, and moves that on; false: what follows is not to be read now.
    pub(super) fn feed_one(
        &mut self,
        now: Instant,
        connection: Connection,
        ground: Ground,
        octets: &mut [u8],
        at: &mut usize,
        out: &mut MediaOutbox,
    ) -> bool {
        let Some(conn) = self.net.get_mut(connection).filter(|conn| conn.hears()) else { return false };
        let taken = conn.reader.next(&octets[*at..]);
        let from = *at;
        *at += taken.consumed;
        if taken.place == Place::Carry {
            let mut carry = conn.reader.take_carry();
            let flow = self.step(now, connection, Ground::Copied, &mut carry, taken.step, out);
            match flow {
                Flow::Hold | Flow::HandOver(_) => carry.extend_from_slice(&octets[*at..]),
                Flow::Next | Flow::Stop => {}
            }
            match flow {
                Flow::Hold => self.hold(connection, carry, out),
                Flow::HandOver(core) => self.hand_over(connection, core, &carry, out),
                Flow::Next | Flow::Stop => {
                    if let Some(conn) = self.net.get_mut(connection) {
                        conn.reader.put_carry(carry);
                    }
                }
            }
            return flow == Flow::Next;
        }
        let flow = self.step(now, connection, ground.behind(from), &mut octets[from..], taken.step, out);
        match flow {
            Flow::Hold => self.hold(connection, octets[from..].to_vec(), out),
            Flow::HandOver(core) => self.hand_over(connection, core, &octets[from..], out),
            Flow::Next | Flow::Stop => {}
        }
        flow == Flow::Next
    }

    fn step(
        &mut self,
        now: Instant,
        connection: Connection,
        ground: Ground,
        octets: &mut [u8],
        step: Step,
        out: &mut MediaOutbox,
    ) -> Flow {
        match step {
            Step::Incomplete => Flow::Next,
            Step::Head { at, head, body, end } => {
                self.net.counts.heads += 1;
                let arrival = Arrival { ground, octets, at, head: &head, body, end };
                match head.start {
                    Start::Response(code) => {
                        self.response(now, connection, code, &arrival, out);
                        self.has_room_again(connection, out);
                        Flow::Next
                    }
                    _ => self.request(now, connection, arrival, out),
                }
            }
            Step::Body { body, end } => {
                self.chunk_goes_on(now, connection, &Part { ground, octets, body, end }, out);
                Flow::Next
            }
            Step::Lost(_) => {
                self.net.count(Cause::FramingLost);
                self.drop_connection(now, connection, LegFailure::Malformed, out);
                Flow::Stop
            }
        }
    }

    /// The request at the front waits; with it everything behind it. The reader begins anew with it later.
    fn hold(&mut self, connection: Connection, octets: Vec<u8>, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection) else { return };
        conn.reader = Default::default();
        conn.chunk = None;
        conn.held = octets;
        conn.holding = true;
        if !std::mem::replace(&mut conn.paused, true) {
            out.effects.push(MediaEffect::Pause(connection));
        }
    }

    /// More came although the connection is paused: what the kernel had already delivered.
    pub(super) fn hold_more(&mut self, now: Instant, connection: Connection, octets: &[u8], out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection) else { return };
        if conn.held.len() + octets.len() <= MSRP_HELD_OCTETS_MAX {
            return conn.held.extend_from_slice(octets);
        }
        self.net.count(Cause::HeldTooMuch);
        self.drop_connection(now, connection, LegFailure::Malformed, out);
    }

    /// Tries again what was held.
    pub(super) fn release_held(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection).filter(|conn| conn.holding && conn.hears()) else { return };
        conn.holding = false;
        let mut held = std::mem::take(&mut conn.held);
        self.feed(now, connection, Ground::Copied, &mut held, out);
        self.resume(connection, out);
        // What the peer said last was waiting too: that it says no more.
        if let Some(conn) = self.net.get_mut(connection).filter(|conn| conn.fin && !conn.holding) {
            conn.fin = false;
            self.peer_ended(now, connection, out);
        }
    }

    fn hand_over(&mut self, connection: Connection, core: u8, octets: &[u8], out: &mut MediaOutbox) {
        let start = out.octets.len() as u32;
        out.octets.extend_from_slice(octets);
        let octets = start..out.octets.len() as u32;
        self.unbound_left(connection);
        self.net.leave(connection, MediaEffect::HandOver { connection, core, octets }, out);
    }

    /// Stops receiving where those whom this connection's content goes to, or itself, have too much queued.
    pub(super) fn throttle(&mut self, connection: Connection, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get(connection) else { return };
        if conn.paused || !conn.hears() {
            return;
        }
        let mut full = self.press(connection);
        for at in 0..conn_legs(&self.net, connection) {
            let Some(id) = self.net.get(connection).and_then(|conn| conn.legs.get(at).copied()) else { break };
            let Some(session) = self.sessions.get(id.session) else { continue };
            for outlet in session.outlets(id.place) {
                if self.net.is_full(outlet) {
                    full = true;
                    if let Some(conn) = self.net.connections.get_mut(outlet.0) {
                        conn.pressing = true;
                    }
                }
            }
            full |= session.sinks_full(self.net.high_water);
        }
        if full && let Some(conn) = self.net.get_mut(connection) {
            conn.paused = true;
            out.effects.push(MediaEffect::Pause(connection));
            // Those who waited for its answers wait in vain from here on.
            self.has_room_again(connection, out);
        }
    }

    /// A peer that is slow to read its answers is not read either. (One that is slow to answer must be.)
    fn press(&mut self, connection: Connection) -> bool {
        let full = self.net.is_slow(connection);
        if full && let Some(conn) = self.net.get_mut(connection) {
            conn.pressing = true;
        }
        full
    }

    /// Receives again, if everybody concerned has room; those who have not will say when they have.
    pub(super) fn resume(&mut self, connection: Connection, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get(connection).filter(|conn| conn.paused && !conn.holding && conn.hears()) else { return };
        let legs = conn.legs.len();
        let mut room = self.net.has_room_or_presses(connection);
        for at in 0..legs {
            let Some(id) = self.net.get(connection).and_then(|conn| conn.legs.get(at).copied()) else { break };
            let Some(session) = self.sessions.get(id.session) else { continue };
            for outlet in session.outlets(id.place) {
                room &= self.net.has_room_or_presses(outlet);
            }
            room &= !session.sinks_full(self.net.high_water / 2);
        }
        if room && let Some(conn) = self.net.get_mut(connection) {
            conn.paused = false;
            out.effects.push(MediaEffect::Resume(connection));
        }
    }

    pub(super) fn request(&mut self, now: Instant, connection: Connection, arrival: Arrival<'_>, out: &mut MediaOutbox) -> Flow {
        let head = arrival.head;
        let octets = &arrival.octets[arrival.at..];
        let id = match self.addressed(connection, head.to_path.of(octets), out) {
            Addressed::Leg(id) => id,
            Addressed::OtherCore(core) => return Flow::HandOver(core),
            Addressed::Nobody(cause) => return self.refuse_stranger(now, connection, &arrival, cause, out),
        };
        let Some(session) = self.sessions.get_mut(id.session) else { return Flow::Next };
        let kind = session.kind;
        let leg = &mut session.legs[usize::from(id.place)];
        let from_path = head.from_path.of(octets);
        if leg.return_path() != from_path {
            leg.from_path = from_path.into();
        }
        session.active_at = now;
        session.idle_told = false;
        if head.fault.is_some() {
            self.refuse(now, (connection, id), &arrival, Cause::Malformed, out);
            return Flow::Next;
        }
        match head.start {
            Start::Send => return self.send_request(now, connection, id, arrival, out),
            Start::Report => self.report_request(now, id, &arrival, out),
            Start::Auth => self.refuse_method(now, (connection, id), &arrival, Cause::Auth, out),
            Start::Other if kind == SessionKind::Session => self.foreign_request(now, connection, id, &arrival, out),
            Start::Other | Start::Response(_) => {
                self.refuse_method(now, (connection, id), &arrival, Cause::UnknownMethod, out);
            }
        }
        Flow::Next
    }

    /// RFC 4975 §5.4, §7.3: which leg a To-Path means; a connection's first request binds it.
    fn addressed(&mut self, connection: Connection, to_path: &[u8], out: &mut MediaOutbox) -> Addressed {
        let Some(conn) = self.net.get(connection) else { return Addressed::Nobody(Cause::UnknownSession) };
        // The usual case: the same words as last time.
        if let Some(id) = conn.last
            && let Some(session) = self.sessions.get(id.session)
            && let Some(leg) = session.legs.get(usize::from(id.place))
            && leg.uri.as_bytes() == to_path
            && leg.connection == Some(connection)
        {
            return Addressed::Leg(id);
        }
        let (tls, unbound) = (conn.tls, conn.legs.is_empty());
        // RFC 4975 §7.3: exactly one URI; we are no relay.
        let Some(uri) = Uri::parse(to_path) else { return Addressed::Nobody(Cause::UnknownSession) };
        let Some(session_id) = uri.session_id else { return Addressed::Nobody(Cause::UnknownSession) };
        let Some(&id) = self.by_id.get(session_id) else {
            return match self.other_core(session_id).filter(|_| unbound) {
                Some(core) => Addressed::OtherCore(core),
                None => Addressed::Nobody(Cause::UnknownSession),
            };
        };
        let Some(leg) = self.sessions.get(id.session).and_then(|session| session.legs.get(usize::from(id.place))) else {
            return Addressed::Nobody(Cause::UnknownSession);
        };
        match leg.matching {
            Matching::Strict => {
                clause!("EMS-1.e.v.2");
            }
            Matching::SessionId => {
                clause!("EMS-1.e.v.1");
            }
        }
        let matched = Uri::parse(leg.uri.as_bytes()).is_some_and(|own| own.is_matched_by(&uri, leg.matching));
        if leg.out || !matched || leg.tls && !tls {
            return Addressed::Nobody(Cause::UnknownSession);
        }
        match leg.connection {
            Some(bound) if bound == connection => {}
            // We were to connect and the peer did: its connection is as good as ours.
            Some(other) if self.net.get(other).is_some_and(|conn| conn.hears() && conn.phase != Phase::Connecting) => {
                return Addressed::Nobody(Cause::WrongConnection);
            }
            _ if !self.shows_certificate_of(connection, id) => return Addressed::Nobody(Cause::Certificate),
            other => {
                if let Some(other) = other {
                    self.net.abort(other, out);
                }
                self.bind(connection, id, out);
            }
        }
        if let Some(conn) = self.net.get_mut(connection) {
            conn.last = Some(id);
        }
        Addressed::Leg(id)
    }

    /// RFC 8122 §6.2: where its SDP announced a certificate, a TLS peer has to show that one; none at all, as another one, is
    /// somebody else.
    pub(super) fn shows_certificate_of(&self, connection: Connection, id: LegId) -> bool {
        let leg = self.sessions.get(id.session).and_then(|session| session.legs.get(usize::from(id.place)));
        let Some(expected) = leg.and_then(|leg| leg.fingerprint.as_deref()) else { return true };
        let Some(conn) = self.net.get(connection).filter(|conn| conn.tls) else { return true };
        conn.certificate.as_deref().is_some_and(|shown| fingerprint::is_of(expected, shown))
    }

    /// The core whose number a session id begins with, if it is another of ours, or of the process beside us.
    fn other_core(&self, session_id: &str) -> Option<u8> {
        let core = session_id.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok())?;
        (core != self.core && (self.beside || self.span.contains(core))).then_some(core)
    }

    /// The connection is the leg's from now on.
    fn bind(&mut self, connection: Connection, id: LegId, out: &mut MediaOutbox) {
        clause!("OLM-r6.b", "TSI-8.a.ii.3.b");
        self.unbound_left(connection);
        let Some(conn) = self.net.get_mut(connection) else { return };
        conn.add_leg(id);
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let leg = &mut session.legs[usize::from(id.place)];
        (leg.connection, leg.bound, leg.wait_until) = (Some(connection), true, None);
        out.effects.push(MediaEffect::Tell(Report::Bound { session: session.key, leg: leg.index }));
        self.woken.push(id.session);
    }

    /// A request that names no session of this connection (RFC 4975 §7.3).
    fn refuse_stranger(
        &mut self,
        now: Instant,
        connection: Connection,
        arrival: &Arrival<'_>,
        cause: Cause,
        out: &mut MediaOutbox,
    ) -> Flow {
        let head = arrival.head;
        self.net.count(cause);
        let octets = &arrival.octets[arrival.at..];
        let (to_path, from_path) = (head.to_path.of(octets), head.from_path.of(octets));
        let speaks = head.start != Start::Report && head.failure_report != FailureReport::No;
        // What cannot even be addressed is told so; a request without a From-Path cannot be answered at all.
        let cause = if head.to_path.is_empty() { Cause::Malformed } else { cause };
        if speaks && !from_path.is_empty() && !to_path.is_empty() {
            let to = if head.start == Start::Send { uri::path(from_path).next().unwrap_or_default() } else { from_path };
            let from = uri::path(to_path).next().unwrap_or_default();
            self.net.control(now, connection, out, |own| write::response(own, &head.tid, cause.code(), to, from));
        }
        let Some(conn) = self.net.get_mut(connection) else { return Flow::Stop };
        if arrival.end.is_none() {
            conn.chunk = Some(Box::new(dropped(head)));
        }
        if conn.legs.is_empty() && matches!(cause, Cause::UnknownSession | Cause::Certificate) {
            self.unbound_left(connection);
            self.net.finish(connection, out);
            return Flow::Stop;
        }
        Flow::Next
    }

    /// Answers a request of a leg with an error; where it is a SEND that still comes in, the rest of it is dropped.
    pub(super) fn refuse(&mut self, now: Instant, sender: Sender, arrival: &Arrival<'_>, cause: Cause, out: &mut MediaOutbox) {
        self.refuse_as(now, sender, arrival, cause, cause.code(), out);
    }

    /// As [`Media::refuse`], with a status that another hop chose.
    pub(super) fn refuse_as(
        &mut self,
        now: Instant,
        sender: Sender,
        arrival: &Arrival<'_>,
        cause: Cause,
        code: u16,
        out: &mut MediaOutbox,
    ) {
        let head = arrival.head;
        self.net.count(cause);
        if head.start == Start::Send {
            self.answer(now, sender, &head.tid, head.failure_report, code, out);
        } else if head.start != Start::Report {
            self.answer_method(now, sender, &head.tid, code, out);
        }
        if arrival.end.is_none()
            && let Some(conn) = self.net.get_mut(sender.0)
        {
            conn.chunk = Some(Box::new(Chunk { from: sender.1, ..dropped(head) }));
        }
    }

    fn refuse_method(&mut self, now: Instant, sender: Sender, arrival: &Arrival<'_>, cause: Cause, out: &mut MediaOutbox) {
        self.net.count(cause);
        self.answer_method(now, sender, &arrival.head.tid, cause.code(), out);
    }

    /// Responds to a SEND as its Failure-Report wants it (RFC 4975 §7.2): `yes` hears everything, `partial` errors, `no` nothing.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        sender: Sender,
        tid: &crate::msrp::ident::Ident,
        failure_report: FailureReport,
        code: u16,
        out: &mut MediaOutbox,
    ) {
        let wanted = match failure_report {
            FailureReport::Yes => true,
            FailureReport::Partial => code != status::OK,
            FailureReport::No => false,
        };
        let (connection, id) = sender;
        let Some(session) = self.sessions.get(id.session).filter(|_| wanted) else { return };
        let leg = &session.legs[usize::from(id.place)];
        let (to, from) = (leg.previous_hop(), leg.uri.as_bytes());
        self.net.control(now, connection, out, |own| write::response(own, tid, code, to, from));
    }

    /// Responds to another method: along the whole path back (RFC 4975 §7.2).
    pub(super) fn answer_method(
        &mut self,
        now: Instant,
        sender: Sender,
        tid: &crate::msrp::ident::Ident,
        code: u16,
        out: &mut MediaOutbox,
    ) {
        let (connection, id) = sender;
        let Some(session) = self.sessions.get(id.session) else { return };
        let leg = &session.legs[usize::from(id.place)];
        let (to, from) = (leg.return_path(), leg.uri.as_bytes());
        self.net.control(now, connection, out, |own| write::response(own, tid, code, to, from));
    }
}

fn conn_legs(net: &super::net::Net, connection: Connection) -> usize {
    net.get(connection).map_or(0, |conn: &Conn| conn.legs.len())
}

/// A chunk that is read to its end and dropped.
fn dropped(head: &Head) -> Chunk {
    Chunk {
        from: NOWHERE,
        tid: head.tid,
        message_id: head.message_id,
        start: 1,
        octets: 0,
        total: None,
        failure_report: head.failure_report,
        takers: 0,
        refused: Some(status::BAD_REQUEST),
        answered: true,
    }
}
