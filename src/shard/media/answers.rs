//! RFC 4975 §7.2: 200s to a sender that does not wait for them go out several at once.
//!
//! A small message costs hardly more to relay than the 200 to its sender: both are a send of their own. A sender whose next SEND
//! comes before it has the answer to the last one loses nothing when that answer comes a little later with the next ones. So its
//! answers wait until [`Answers::most`] of them are there, for [`HOLD`] at most, or until something else is said on its connection.
//!
//! ```text
//! SENDs come quickly   most = 1 ─ holds one ─> the next SEND comes first?  yes: most doubles up to `limits::MSRP_ANSWERS_HELD_MAX`
//!                                                                          no: it waits for us; most = what it sent, and it is left alone
//! ```
//! Who waits for each answer is found out by two answers that are late (one may be chance: whoever sends for it was not scheduled); then it
//! is left alone for 32 SENDs, 64, and so on. Who has a window of several SENDs is answered when that many are there. Answers to SENDs that
//! come apart, as people write them, never wait.
//!
//! The section wants a 200 "immediately", which is: whatever becomes of the message further on. A tenth of the time that TCP itself may
//! hold back an acknowledgement is taken for that; what is refused is refused at once.

use super::Media;
use super::connection::Conn;
use super::net::Net;
use super::receive::Sender;
use crate::base::clock::{Duration, Instant};
use crate::limits::MSRP_ANSWERS_HELD_MAX;
use crate::msrp::chunk::FailureReport;
use crate::msrp::ident::Ident;
use crate::msrp::{status, write};
use crate::shard::media_outbox::{Connection, MediaOutbox};
use std::collections::VecDeque;

/// How long an answer may wait.
pub(super) const HOLD: Duration = Duration::from_millis(4);
/// The fewest SENDs that a sender is left alone.
const ALONE: u32 = 32;
/// The most.
const ALONE_MAX: u32 = 1 << 20;

/// The answers to one connection's SENDs.
pub(super) struct Answers {
    /// Those that wait, as they will be sent.
    octets: Vec<u8>,
    count: u16,
    /// So many go out together.
    most: u16,
    /// When the first of those that wait was due, and the last.
    since: Instant,
    last: Instant,
    /// SENDs until more are held than before.
    alone: u32,
    next_alone: u32,
    /// The last that waited did so for nothing.
    in_vain: bool,
}

impl Answers {
    fn new(now: Instant) -> Self {
        Self { octets: Vec::new(), count: 0, most: 1, since: now, last: now, alone: ALONE, next_alone: ALONE, in_vain: false }
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// An answer is due now; whether it waits with those that do.
    fn wait(&mut self, now: Instant) -> bool {
        let quick = now.since(self.last) <= HOLD;
        (self.last, self.alone) = (now, self.alone.saturating_sub(1));
        if self.count + 1 < self.most && quick {
            if self.count == 0 {
                self.since = now;
            }
            self.count += 1;
            return true;
        }
        // All that were wanted came before any of them was answered.
        if quick {
            self.in_vain &= self.count == 0;
            if self.alone == 0 {
                self.most = (2 * self.most).min(MSRP_ANSWERS_HELD_MAX);
            }
        }
        false
    }

    /// The time of those that wait is over. Where nothing has come for half of it, the sender has stopped, perhaps for them.
    fn expire(&mut self, now: Instant) {
        let stopped = now.since(self.last) * 2 >= HOLD;
        if std::mem::replace(&mut self.in_vain, stopped) && stopped {
            self.in_vain = false;
            self.most = self.count.max(1);
            self.alone = self.next_alone;
            self.next_alone = self.next_alone.saturating_mul(2).min(ALONE_MAX);
        }
    }
}

/// Connections on which answers wait, in the order in which their time is over; those that have gone out since are still among
/// them, but never at the front. There are no more of them than SENDs came within [`HOLD`].
#[derive(Default)]
pub(super) struct Waiting(VecDeque<(Instant, Connection)>);

impl Waiting {
    /// When the first is over.
    pub fn next(&self) -> Option<Instant> {
        self.0.front().map(|(since, _)| *since + HOLD)
    }
}

impl Media {
    /// Answers a chunk that was taken as its Failure-Report wants it.
    pub(super) fn answer_taken(
        &mut self,
        now: Instant,
        sender: Sender,
        tid: &Ident,
        failure_report: FailureReport,
        out: &mut MediaOutbox,
    ) {
        let (connection, id) = sender;
        let Some(session) = self.sessions.get(id.session).filter(|_| failure_report == FailureReport::Yes) else { return };
        let leg = &session.legs[usize::from(id.place)];
        let (to, from) = (leg.previous_hop(), leg.uri.as_bytes());
        self.net.answer(now, connection, out, |own| write::response(own, tid, status::OK, to, from));
    }

    /// Sends the answers whose time is over.
    pub(super) fn answers_due(&mut self, now: Instant, out: &mut MediaOutbox) {
        while self.net.waiting.next().is_some_and(|at| at <= now) {
            let Some((since, connection)) = self.net.waiting.0.pop_front() else { return };
            let conn = self.net.get_mut(connection).filter(|conn| waits_since(conn, since));
            if let Some(answers) = conn.and_then(|conn| conn.answers.as_mut()) {
                answers.expire(now);
                self.net.interrupt(now, connection, out);
            }
        }
        self.net.drop_sent();
    }
}

/// Whether the oldest answer that waits on a connection is of this time.
fn waits_since(conn: &Conn, since: Instant) -> bool {
    conn.answers.as_ref().is_some_and(|answers| answers.count > 0 && answers.since == since)
}

impl Net {
    /// Answers a SEND, now or with the next ones.
    fn answer(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(conn) = self.connections.get_mut(connection.0).filter(|conn| conn.takes()) else { return };
        let quick = now.since(std::mem::replace(&mut conn.answered_at, now)) <= HOLD;
        if quick || conn.answers.is_some() {
            let answers = conn.answers.get_or_insert_with(|| Box::new(Answers::new(now)));
            if answers.wait(now) {
                write(&mut answers.octets);
                if answers.count == 1 {
                    self.waiting.0.push_back((now, connection));
                }
                return;
            }
        }
        self.control(now, connection, out, write);
    }

    /// Queues the answers that wait on a connection. No chunk may be under way on it.
    pub(super) fn send_answers(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let Some(conn) = self.connections.get_mut(connection.0) else { return };
        let Some(answers) = conn.answers.as_mut().filter(|answers| answers.count > 0) else { return };
        answers.count = 0;
        let piece = out.own(|own| own.append(&mut answers.octets));
        self.send(now, connection, piece, out);
        self.drop_sent();
    }

    /// Sees to it that the connection at the front has answers that wait.
    fn drop_sent(&mut self) {
        while let Some((since, connection)) = self.waiting.0.front().copied()
            && !self.get(connection).is_some_and(|conn| waits_since(conn, since))
        {
            self.waiting.0.pop_front();
        }
    }
}
