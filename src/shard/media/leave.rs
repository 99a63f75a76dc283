//! RFC 4975 §5.4: legs that fail or are released, connections that end, sessions that close.

use super::Media;
use super::connection::{About, LegId, Phase};
use super::counts::Cause;
use super::forward::{Arrival, Ground};
use super::respond::Missed;
use super::session::{Far, Leg};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::limits::{MSRP_CLOSE_MAX, MSRP_CLOSE_WAIT, MSRP_REPORT_WAIT, MSRP_STORE_WAIT};
use crate::msrp::chunk::{Continuation, FailureReport};
use crate::msrp::parse::Step;
use crate::msrp::{status, write};
use crate::shard::exchange::{LegFailure, Report};
use crate::shard::media_outbox::{Connection, MediaEffect, MediaOutbox};

use super::net::{LATE_PART, Timer};

impl Media {
    pub(super) fn leg_mut(&mut self, id: LegId) -> Option<&mut Leg> {
        self.sessions.get_mut(id.session)?.legs.get_mut(usize::from(id.place))
    }

    pub(super) fn leg_connection(&self, id: LegId) -> Option<Connection> {
        self.sessions.get(id.session)?.legs.get(usize::from(id.place))?.connection
    }

    /// A leg cannot go on: the signalling shard is told, the session goes on without it.
    pub(super) fn fail_leg(&mut self, now: Instant, id: LegId, cause: LegFailure, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get(id.session) else { return };
        let leg = &session.legs[usize::from(id.place)];
        if leg.out {
            return;
        }
        let report = Report::LegFailed { session: session.key, leg: leg.index, cause };
        out.effects.push(MediaEffect::Tell(report));
        self.part(now, id, out);
    }

    /// Takes a leg out of its session and lets go of its connection.
    pub(super) fn part(&mut self, now: Instant, id: LegId, out: &mut MediaOutbox) {
        self.silence(now, id, out);
        let Some(leg) = self.leg_mut(id) else { return };
        if let Some(connection) = leg.connection.take() {
            self.unbind(connection, id, out);
        }
    }

    /// A leg neither sends nor takes content any more: what it was sending is aborted, what it was to get is reported to
    /// its senders (RFC 4975 §5.4: a lost connection fails what was under way).
    fn silence(&mut self, now: Instant, id: LegId, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let leg = &mut session.legs[usize::from(id.place)];
        if leg.out {
            return;
        }
        (leg.out, leg.wait_until, leg.bound) = (true, None, false);
        let connection = leg.connection;
        match &mut leg.far {
            Far::Sink(sink) => sink.clear(&mut self.files, out),
            Far::Source(_) => self.abort_source(now, id, out),
            Far::Peer => {}
        }
        if let Some(connection) = connection {
            self.abort_sending(now, connection, id, out);
            self.fail_receiving(now, connection, id, out);
        }
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        for message in session.messages.iter_mut().filter(|message| message.success_from == Some(id.place)) {
            message.success_from = None;
        }
        let alone = session.legs.iter().filter(|leg| leg.is_peer() && !leg.out).count() <= 1;
        for place in 0..session.legs.len() as u8 {
            self.drop_taker(LegId { session: id.session, place }, id, None, alone, status::TIMEOUT, out);
        }
        self.woken.push(id.session);
    }

    /// What a leg was sending in the middle of a chunk ends with `#` at its targets (RFC 4975 §7.1).
    fn abort_sending(&mut self, now: Instant, connection: Connection, id: LegId, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection) else { return };
        if conn.chunk.as_ref().is_none_or(|chunk| chunk.from != id) {
            return;
        }
        let Some(chunk) = conn.chunk.take() else { return };
        let fields = std::mem::take(&mut conn.fields);
        self.abort_chunk(now, &chunk, &fields, out);
    }

    /// What was sent to a leg and not acknowledged has failed.
    fn fail_receiving(&mut self, now: Instant, connection: Connection, id: LegId, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection) else { return };
        let mut missed = Vec::new();
        let mut foreign = Vec::new();
        let mut at = 0;
        while at < conn.transactions.len() {
            if conn.transactions[at].to != id {
                at += 1;
                continue;
            }
            let transaction = conn.settle(at);
            match transaction.about {
                About::Content if transaction.failure_report == FailureReport::Yes => missed.push(Missed::from(&transaction)),
                About::Foreign { tid } => foreign.push((transaction.from, tid)),
                About::Content | About::Opening => {}
            }
        }
        if let Some(line) = conn.line.take_if(|line| line.to == id) {
            self.net.own(now, connection, out, |own| write::end_line(own, &line.tid, Continuation::Abort));
        }
        for missed in &missed {
            self.undelivered(now, missed, status::TIMEOUT, out);
        }
        for (from, tid) in foreign {
            if let Some(back) = self.leg_connection(from) {
                self.answer_method(now, (back, from), &tid, status::TIMEOUT, out);
            }
        }
    }

    /// The connection is no more this leg's; without any leg it ends.
    pub(super) fn unbind(&mut self, connection: Connection, id: LegId, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection) else { return };
        conn.legs.retain(|leg| *leg != id);
        conn.last = None;
        if conn.legs.is_empty() {
            match conn.phase {
                Phase::Connecting => self.net.abort(connection, out),
                _ => self.net.finish(connection, out),
            }
        }
    }

    /// A connection of which nothing good can come any more.
    pub(super) fn drop_connection(&mut self, now: Instant, connection: Connection, cause: LegFailure, out: &mut MediaOutbox) {
        self.unbound_left(connection);
        let Some(conn) = self.net.get(connection) else { return };
        let legs = conn.legs.clone();
        for id in legs {
            self.silence(now, id, out);
            let Some(session) = self.sessions.get_mut(id.session) else { continue };
            let leg = &mut session.legs[usize::from(id.place)];
            if leg.connection.take().is_some() {
                let report = Report::LegFailed { session: session.key, leg: leg.index, cause };
                out.effects.push(MediaEffect::Tell(report));
            }
        }
        if let Some(conn) = self.net.get_mut(connection) {
            conn.legs.clear();
        }
        self.net.abort(connection, out);
    }

    /// What was kept of a SEND that was to be passed on whole goes out as far as it came, before it is aborted.
    fn flush_cut(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection).filter(|conn| !conn.legs.is_empty()) else { return };
        if let Some(Step::Head { at, head, body, end }) = conn.reader.cut() {
            let mut carry = conn.reader.take_carry();
            let arrival = Arrival { ground: Ground::Copied, octets: &mut carry, at, head: &head, body, end };
            self.request(now, connection, arrival, out);
        }
    }

    /// The peer sends no more. What it sent before still reaches the others; reports may still reach it.
    pub(super) fn peer_ended(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection).filter(|conn| conn.hears()) else { return };
        if conn.holding {
            conn.fin = true;
            return;
        }
        self.flush_cut(now, connection, out);
        let Some(conn) = self.net.get_mut(connection) else { return };
        if conn.legs.is_empty() {
            self.unbound_left(connection);
            return self.net.finish(connection, out);
        }
        conn.phase = Phase::Ended;
        let legs = conn.legs.clone();
        for id in legs {
            let Some(session) = self.sessions.get(id.session) else { continue };
            let leg = &session.legs[usize::from(id.place)];
            if !leg.out {
                let report = Report::LegFailed { session: session.key, leg: leg.index, cause: LegFailure::Closed };
                out.effects.push(MediaEffect::Tell(report));
                self.silence(now, id, out);
            }
        }
    }

    /// The connection is no more.
    pub(super) fn connection_gone(&mut self, now: Instant, connection: Connection, cause: LegFailure, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get(connection) else { return };
        if conn.phase != Phase::Leaving {
            if cause == LegFailure::Connect {
                self.net.count(Cause::NotConnected);
            }
            // No use in sending on, or closing, what is closed.
            if let Some(conn) = self.net.get_mut(connection) {
                conn.phase = Phase::Leaving;
            }
            self.flush_cut(now, connection, out);
            self.drop_connection(now, connection, cause, out);
        }
        self.unbound_left(connection);
        if let Some(conn) = self.net.connections.remove(connection.0) {
            self.net.counts.connections -= 1;
            if let Some((_, handle)) = conn.timer {
                self.net.timers.cancel(handle);
            }
            for id in &conn.legs {
                if let Some(leg) = self.leg_mut(*id).filter(|leg| leg.connection == Some(connection)) {
                    (leg.connection, leg.bound) = (None, false);
                }
            }
            self.woken.extend(conn.legs.iter().map(|id| id.session));
        }
    }

    /// A connection is no longer unbound.
    pub(super) fn unbound_left(&mut self, connection: Connection) {
        let Some(conn) = self.net.get_mut(connection) else { return };
        if std::mem::take(&mut conn.stranger) {
            let address = conn.peer.ip();
            if let Some(count) = self.strangers.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    self.strangers.remove(&address);
                }
            }
        }
    }

    /// A time limit of a connection is over, or may be.
    pub(super) fn connection_due(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let (connect_timeout, stall_timeout) = (self.net.connect_timeout, self.net.transaction_timeout);
        let unbound_timeout = self.net.unbound_timeout;
        let Some(conn) = self.net.get_mut(connection) else { return };
        conn.timer = None;
        match conn.phase {
            Phase::Leaving => return,
            Phase::Connecting if conn.opened_at + connect_timeout <= now => {
                self.net.count(Cause::NotConnected);
                return self.drop_connection(now, connection, LegFailure::Connect, out);
            }
            Phase::Open | Phase::Ended if conn.legs.is_empty() && conn.opened_at + unbound_timeout <= now => {
                self.net.count(Cause::Unbound);
                self.unbound_left(connection);
                return self.net.finish(connection, out);
            }
            _ => {}
        }
        if conn.backlog() > 0 && conn.progress_at + stall_timeout <= now {
            self.net.count(Cause::Stalled);
            return self.drop_connection(now, connection, LegFailure::Stalled, out);
        }
        self.transactions_due(now, connection, out);
        self.net.arm(connection);
    }

    /// RFC 4975 §7.1.1: no response 30 seconds after the last octet was sent.
    fn transactions_due(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let timeout = self.net.transaction_timeout;
        while let Some(conn) = self.net.get_mut(connection)
            && conn.oldest_sent().is_some_and(|at| at + timeout <= now)
        {
            let transaction = conn.settle(0);
            match transaction.about {
                About::Content if transaction.failure_report == FailureReport::Yes => {
                    self.net.count(Cause::Unanswered);
                    self.undelivered(now, &Missed::from(&transaction), status::TIMEOUT, out);
                }
                About::Foreign { tid } => {
                    self.net.count(Cause::Unanswered);
                    if let Some(back) = self.leg_connection(transaction.from) {
                        self.answer_method(now, (back, transaction.from), &tid, status::TIMEOUT, out);
                    }
                }
                About::Content | About::Opening => {}
            }
        }
        self.has_room_again(connection, out);
    }

    /// When something of a session is due next.
    pub(super) fn arm_session(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let wait = session.legs.iter().filter(|leg| !leg.bound).filter_map(|leg| leg.wait_until);
        let closing = session.closing.iter().flat_map(|closing| closing.look_at.into_iter().chain([closing.until]));
        let grain = self.net.grain.min(self.idle_timeout / LATE_PART);
        let idle = (session.active_at + self.idle_timeout).min(session.look_at).rounded_up(grain);
        let deadline = wait.chain(closing).chain([idle]).min();
        let Some(deadline) = deadline.filter(|deadline| session.timer.is_none_or(|(at, _)| *deadline < at)) else { return };
        if let Some((_, handle)) = session.timer.take() {
            self.net.timers.cancel(handle);
        }
        session.timer = Some((deadline, self.net.timers.arm(deadline, Timer::Session(key))));
    }

    /// A time limit of a session is over, or may be.
    pub(super) fn session_due(&mut self, now: Instant, key: Key, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.timer = None;
        if session.look_at <= now {
            session.look_at = now + MSRP_REPORT_WAIT;
            if session.active_at + MSRP_REPORT_WAIT <= now {
                session.messages.forget_done();
            }
        }
        if session.active_at + self.idle_timeout <= now {
            session.active_at = now;
            if !std::mem::replace(&mut session.idle_told, true) {
                out.effects.push(MediaEffect::Tell(Report::Idle { session: session.key }));
            }
        }
        let late: Vec<u8> = (0..session.legs.len() as u8)
            .filter(|&place| {
                let leg = &session.legs[usize::from(place)];
                !leg.out && !leg.bound && leg.wait_until.is_some_and(|until| until <= now)
            })
            .collect();
        if self.is_closed(now, key) {
            return self.remove_session(now, key, out);
        }
        for place in late {
            self.net.count(Cause::NotConnected);
            self.fail_leg(now, LegId { session: key, place }, LegFailure::Connect, out);
        }
        self.arm_session(key);
    }

    /// Whether a closing session has had the time it may have. What moves may go on, and whole messages get to the disk.
    fn is_closed(&mut self, now: Instant, key: Key) -> bool {
        let Some(session) = self.sessions.get_mut(key) else { return false };
        let storing = session.is_storing();
        let going_on = session.progress_at(&self.net) + MSRP_CLOSE_WAIT;
        let Some(closing) = session.closing.as_mut() else { return false };
        if closing.look_at.is_some_and(|at| at <= now) {
            closing.look_at = None;
            self.woken.push(key);
        }
        if closing.until > now {
            return false;
        }
        if now < going_on && now < closing.began + MSRP_CLOSE_MAX {
            closing.until = going_on.min(closing.began + MSRP_CLOSE_MAX);
        } else if storing && !std::mem::replace(&mut closing.extended, true) {
            closing.until = now + MSRP_STORE_WAIT;
        } else {
            return true;
        }
        false
    }

    /// A session ends: what is still under way is aborted, connections are finished, and the last word is said.
    pub(super) fn remove_session(&mut self, now: Instant, key: Key, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get(key) else { return };
        let legs = session.legs.len() as u8;
        // All fall silent before any connection is let go of: who is told that a message failed must still be there.
        for place in (0..legs).rev() {
            self.silence(now, LegId { session: key, place }, out);
        }
        for place in 0..legs {
            self.part(now, LegId { session: key, place }, out);
        }
        let Some(session) = self.sessions.remove(key) else { return };
        for (place, leg) in session.legs.iter().enumerate() {
            let id = LegId { session: key, place: place as u8 };
            if let Some(connection) = leg.connection {
                self.unbind(connection, id, out);
            }
            let session_id = crate::msrp::uri::Uri::parse(leg.uri.as_bytes()).and_then(|uri| uri.session_id);
            if let Some(session_id) = session_id.filter(|session_id| self.by_id.get(*session_id) == Some(&id)) {
                self.by_id.remove(session_id);
            }
        }
        if let Some((_, handle)) = session.timer {
            self.net.timers.cancel(handle);
        }
        self.closing -= usize::from(session.closing.is_some());
        self.by_key.remove(&session.key);
        self.net.counts.sessions -= 1;
        out.effects.push(MediaEffect::Tell(Report::Closed { session: session.key, totals: session.totals }));
    }
}
