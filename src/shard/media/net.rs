//! RFC 4975 §5.4, §7.1.1: the connections of a core, what may be said on them now, and their time limits.
//!
//! Whoever wants to send while another's chunk is being written ends that chunk with `+`; its sender begins anew with its
//! next octets. So responses, reports and other sessions' chunks never wait for a long chunk to end (§7.1.1).

use super::answers::Waiting;
use super::connection::{Chunk, Conn, LegId, Line, Phase, Spare, Transaction};
use super::counts::{Cause, MediaCounts};
use crate::base::clock::{Duration, Instant};
use crate::base::prng::Prng;
use crate::base::rooms::Rooms;
use crate::base::slab::{Key, Slab};
use crate::base::timers::Timers;
use crate::config::Config;
use crate::msrp::chunk::{Continuation, FailureReport};
use crate::msrp::write;
use crate::shard::media_outbox::{Connection, MediaEffect, MediaOutbox, Piece};
use std::collections::VecDeque;

/// What a timer of this core is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Timer {
    Connection(Connection),
    Session(Key),
}

/// The connections with their timers, counters and limits.
pub(super) struct Net {
    pub connections: Slab<Box<Conn>>,
    pub timers: Timers<Timer>,
    pub counts: MediaCounts,
    pub prng: Prng,
    pub scratch: Vec<u8>,
    pub spare_chunks: Spare<Chunk>,
    pub spare_lines: Spare<Line>,
    /// Room for transactions.
    pub rooms: Rooms<Transaction>,
    pub waiting: Waiting,
    pub high_water: u64,
    pub transaction_timeout: Duration,
    pub connect_timeout: Duration,
    /// How long a connection may name no session.
    pub unbound_timeout: Duration,
    /// Timers fire at multiples of this, several at once: each alone would be a wake-up of its own.
    pub grain: Duration,
}

/// A part of the shortest time limit by which none may be late.
pub(super) const LATE_PART: u32 = 32;

impl Net {
    /// Takes the time limits of a configuration.
    pub fn set_limits(&mut self, config: &Config) {
        let msrp = &config.msrp;
        self.high_water = msrp.high_water as u64;
        self.transaction_timeout = msrp.transaction_timeout;
        self.connect_timeout = msrp.connect_timeout;
        self.unbound_timeout = config.limits.unbound_timeout;
        self.grain = msrp.transaction_timeout.min(msrp.connect_timeout).min(self.unbound_timeout) / LATE_PART;
    }

    pub fn get(&self, connection: Connection) -> Option<&Conn> {
        self.connections.get(connection.0).map(Box::as_ref)
    }

    pub fn get_mut(&mut self, connection: Connection) -> Option<&mut Conn> {
        self.connections.get_mut(connection.0).map(Box::as_mut)
    }

    /// Queues a piece.
    pub fn send(&mut self, now: Instant, connection: Connection, piece: Piece, out: &mut MediaOutbox) {
        let Some(conn) = self.connections.get_mut(connection.0) else { return };
        conn.send(now, piece, out);
        self.arm_from(now, connection);
    }

    /// Queues octets of our own.
    pub fn own(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox, write: impl FnOnce(&mut Vec<u8>)) {
        if self.get(connection).is_some_and(Conn::takes) {
            let piece = out.own(write);
            self.send(now, connection, piece, out);
        }
    }

    /// Queues a response or a report, which a long chunk must give way to (RFC 4975 §7.1.1).
    pub fn control(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox, write: impl FnOnce(&mut Vec<u8>)) {
        self.interrupt(now, connection, out);
        self.own(now, connection, out, write);
    }

    /// Ends the chunk that is being written, if there is one, so that something else can be said; answers that wait are said first.
    /// A message whose announced octets have all been sent is complete; otherwise more will follow.
    pub fn interrupt(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let Some(conn) = self.get(connection) else { return };
        if let Some(line) = conn.line.as_deref().copied() {
            self.end_chunk(now, connection, &line, out);
        }
        self.send_answers(now, connection, out);
    }

    fn end_chunk(&mut self, now: Instant, connection: Connection, line: &Line, out: &mut MediaOutbox) {
        let all = line.total == Some((line.start + line.octets).saturating_sub(1));
        let flag = if all { Continuation::Complete } else { Continuation::More };
        self.own(now, connection, out, |octets| write::end_line(octets, &line.tid, flag));
        self.end_line_written(now, connection);
    }

    /// Whether the chunk that is being written is this leg's, of this message.
    pub fn line_of(
        &self,
        connection: Connection,
        from: LegId,
        to: LegId,
        message_id: &crate::msrp::ident::Ident,
    ) -> Option<&Line> {
        let line = self.get(connection)?.line.as_deref()?;
        (line.from == from && line.to == to && line.message_id == *message_id).then_some(line)
    }

    /// The end-line of the chunk that was being written is queued: its transaction begins.
    pub fn end_line_written(&mut self, now: Instant, connection: Connection) {
        let Some(conn) = self.get_mut(connection) else { return };
        let Some(ended) = conn.line.take() else { return };
        let line = *ended;
        self.spare_lines.keep(ended);
        self.transact(connection, line.transaction(now));
    }

    /// Takes up a transaction whose octets have all been queued.
    pub fn transact(&mut self, connection: Connection, mut transaction: Transaction) {
        let Some(conn) = self.connections.get_mut(connection.0) else { return };
        transaction.until = conn.queued;
        // Senders who want no 200 are not slowed down by their number; the oldest of theirs is forgotten.
        if conn.transactions.len() >= crate::limits::MSRP_OUTSTANDING_MAX * 2
            && conn.unsent < conn.transactions.len()
            && conn.transactions[0].failure_report != FailureReport::Yes
        {
            conn.settle(0);
        }
        self.rooms.furnish(&mut conn.transactions);
        conn.transact(transaction);
    }

    /// A transaction of this connection has ended: where it was the last, another connection gets the room.
    pub fn clear_out(&mut self, connection: Connection) {
        if let Some(conn) = self.connections.get_mut(connection.0) {
            self.rooms.clear_out(&mut conn.transactions);
        }
    }

    /// Whether nothing more should be queued for this connection for now: its peer is slow to read, or to answer.
    pub fn is_full(&self, connection: Connection) -> bool {
        self.get(connection).is_some_and(|conn| conn.backlog() > self.high_water || conn.awaited > outstanding_max(conn))
    }

    /// Whether the peer is slow to read.
    pub fn is_slow(&self, connection: Connection) -> bool {
        self.get(connection).is_some_and(|conn| conn.backlog() > self.high_water)
    }

    /// Whether a connection that was full has room again.
    pub fn has_room(&self, connection: Connection) -> bool {
        self.get(connection).is_none_or(|conn| {
            !conn.takes() || conn.backlog() <= self.high_water / 2 && conn.awaited <= outstanding_max(conn) / 2
        })
    }

    /// As [`Net::has_room`]; where there is none, the connection will say when there is.
    pub fn has_room_or_presses(&mut self, connection: Connection) -> bool {
        let room = self.has_room(connection);
        if !room && let Some(conn) = self.get_mut(connection) {
            conn.pressing = true;
        }
        room
    }

    /// Sends what is queued, then closes.
    pub fn finish(&mut self, connection: Connection, out: &mut MediaOutbox) {
        if let Some(conn) = self.get(connection).filter(|conn| conn.line.is_none()) {
            self.send_answers(conn.answered_at, connection, out);
        }
        self.leave(connection, MediaEffect::Finish(connection), out);
    }

    /// Closes at once.
    pub fn abort(&mut self, connection: Connection, out: &mut MediaOutbox) {
        self.leave(connection, MediaEffect::Abort(connection), out);
    }

    /// Asks the engine for the connection's end and forgets what it was for; its key lives until `gone`.
    pub fn leave(&mut self, connection: Connection, effect: MediaEffect, out: &mut MediaOutbox) {
        let Some(conn) = self.connections.get_mut(connection.0) else { return };
        if conn.phase == Phase::Leaving {
            return;
        }
        conn.phase = Phase::Leaving;
        conn.reader = Default::default();
        (conn.held, conn.fields) = (Vec::new(), Vec::new());
        (conn.holding, conn.chunk, conn.line, conn.answers) = (false, None, None, None);
        if let Some((_, handle)) = conn.timer.take() {
            self.timers.cancel(handle);
        }
        out.effects.push(effect);
    }

    /// When this connection's next time limit is over.
    pub fn deadline(&self, conn: &Conn) -> Option<Instant> {
        let start = match conn.phase {
            Phase::Leaving => return None,
            Phase::Connecting => Some(conn.opened_at + self.connect_timeout),
            Phase::Open | Phase::Ended if conn.legs.is_empty() => Some(conn.opened_at + self.unbound_timeout),
            Phase::Open | Phase::Ended => None,
        };
        let answer = conn.oldest_sent().map(|at| at + self.transaction_timeout);
        let stall = (conn.backlog() > 0).then(|| conn.progress_at + self.transaction_timeout);
        [start, answer, stall].into_iter().flatten().min()
    }

    /// Sees to it that the next time limit is not missed. A timer that fires early finds nothing to do and is armed anew,
    /// so a busy connection touches the timers once in `msrp.transaction_timeout`.
    pub fn arm(&mut self, connection: Connection) {
        let Some(conn) = self.connections.get(connection.0) else { return };
        let armed = conn.timer;
        let Some(deadline) = self.deadline(conn) else {
            // Its last time limit has passed and there was nothing to do.
            if armed.is_none() {
                self.rest(connection);
            }
            return;
        };
        let deadline = deadline.rounded_up(self.grain);
        if armed.is_some_and(|(at, _)| at <= deadline) {
            return;
        }
        if let Some((_, handle)) = armed {
            self.timers.cancel(handle);
        }
        let handle = self.timers.arm(deadline, Timer::Connection(connection));
        let conn = self.connections.get_mut(connection.0).expect("found above");
        conn.timer = Some((deadline, handle));
    }

    /// As [`Net::arm`], where nothing but a time limit that begins now can be new.
    pub fn arm_from(&mut self, now: Instant, connection: Connection) {
        let Some(conn) = self.connections.get(connection.0) else { return };
        if conn.timer.is_none_or(|(at, _)| at > now + self.transaction_timeout + self.grain) {
            self.arm(connection);
        }
    }

    /// A connection at rest keeps no room for what may come.
    fn rest(&mut self, connection: Connection) {
        let Some(conn) = self.connections.get_mut(connection.0) else { return };
        if conn.transactions.is_empty() {
            conn.transactions = VecDeque::new();
        }
        if conn.chunk.is_none() {
            conn.fields = Vec::new();
        }
        if conn.answers.as_ref().is_some_and(|answers| answers.is_empty()) {
            conn.answers = None;
        }
    }

    pub fn count(&mut self, cause: Cause) {
        self.counts.count(cause);
    }
}

/// SENDs that may wait for their answers. A paused peer's answers are not read, so it is not to blame: two peers that each
/// wait for the other's answers would wait for ever.
const fn outstanding_max(conn: &Conn) -> usize {
    let max = crate::limits::MSRP_OUTSTANDING_MAX;
    if conn.paused { 16 * max } else { max }
}
