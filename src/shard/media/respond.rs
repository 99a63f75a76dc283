//! RFC 4975 §7.2, §10: responses to what we sent, what a refusal or a silence means to the message's sender.
//!
//! ```text
//! target says   200          nothing: its hop is done          481, 506   the leg is dead
//!               413          stop the message on this leg      others     that chunk failed
//! sender hears  Failure-Report yes: 408 by REPORT where a target was silent for 30 s, and what a target refused
//!               partial: what a target refused                 no: nothing
//! with several targets: only when each of them failed the message
//! ```

use super::Media;
use super::connection::{About, LegId, Transaction, carried};
use super::counts::Cause;
use super::forward::Arrival;
use super::session::Far;
use crate::base::clock::Instant;
use crate::msrp::chunk::{ByteRange, Continuation, FailureReport};
use crate::msrp::head::Start;
use crate::msrp::ident::Ident;
use crate::msrp::leg::SessionKind;
use crate::msrp::report::{self, Reported};
use crate::msrp::{status, write};
use crate::shard::exchange::{LegFailure, Report};
use crate::shard::media_outbox::{Connection, MediaEffect, MediaOutbox};

/// Octets of a message that did not reach a leg.
#[derive(Clone, Copy)]
pub(super) struct Missed {
    pub from: LegId,
    pub to: LegId,
    pub message_id: Ident,
    pub range: ByteRange,
    pub failure_report: FailureReport,
}

impl From<&Transaction> for Missed {
    fn from(transaction: &Transaction) -> Self {
        Self {
            from: transaction.from,
            to: transaction.to,
            message_id: transaction.message_id,
            range: transaction.range(),
            failure_report: transaction.failure_report,
        }
    }
}

impl Media {
    pub(super) fn response(
        &mut self,
        now: Instant,
        connection: Connection,
        code: u16,
        arrival: &Arrival<'_>,
        out: &mut MediaOutbox,
    ) {
        let head = arrival.head;
        let Some(conn) = self.net.connections.get_mut(connection.0) else { return };
        if let Some(line) = conn.line.as_mut().filter(|line| line.tid == head.tid) {
            if code == status::OK {
                line.acknowledged = true;
                return;
            }
            let line = **line;
            let range = carried(line.start, line.octets, line.total);
            let missed =
                Missed { from: line.from, to: line.to, message_id: line.message_id, range, failure_report: line.failure_report };
            // RFC 4975 §7.3.2: a message refused while it is being delivered is aborted.
            self.refused_by_peer(now, &missed, code, true, out);
            return;
        }
        let Some(at) = conn.transactions.iter().position(|transaction| transaction.tid == head.tid) else {
            self.net.count(Cause::StrayResponse);
            return;
        };
        let transaction = conn.settle(at);
        self.net.rooms.clear_out(&mut conn.transactions);
        match transaction.about {
            About::Opening if matches!(code, status::NO_SESSION | status::WRONG_CONNECTION) => {
                self.net.count(Cause::RefusedByPeer);
                self.fail_leg(now, transaction.to, LegFailure::Unknown, out);
            }
            About::Opening => {}
            About::Foreign { tid } => self.foreign_response(now, &transaction, &tid, arrival, out),
            About::Content if code == status::OK => self.acknowledged(connection, &transaction, out),
            About::Content => self.refused_by_peer(now, &Missed::from(&transaction), code, code == status::STOP, out),
        }
    }

    /// A response to a method that was passed on goes back to its sender under the sender's own transaction id.
    fn foreign_response(
        &mut self,
        now: Instant,
        transaction: &Transaction,
        tid: &Ident,
        arrival: &Arrival<'_>,
        out: &mut MediaOutbox,
    ) {
        let Some(session) = self.sessions.get(transaction.from.session) else { return };
        let leg = &session.legs[usize::from(transaction.from.place)];
        let Some(connection) = leg.connection else { return };
        let octets = &arrival.octets[arrival.at..];
        let (to, from) = (leg.return_path(), leg.uri.as_bytes());
        // Status and comment as they came: "MSRP tid " and the rest of the start line.
        let Start::Response(code) = arrival.head.start else { return };
        if arrival.head.fault.is_some() {
            return self.answer_method(now, (connection, transaction.from), tid, code, out);
        }
        let line_end = usize::from(arrival.head.method.end);
        let said = &octets[b"MSRP ".len() + arrival.head.tid.as_bytes().len() + 1..line_end];
        self.net.control(now, connection, out, |own| {
            write::request_start(own, tid, said, to, from);
            write::bare_end_line(own, tid, Continuation::Complete);
        });
    }

    /// A chunk was taken by its target, or went out and wants no answer.
    pub(super) fn acknowledged(&mut self, connection: Connection, transaction: &Transaction, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(transaction.from.session) else { return };
        let source = match &session.legs[usize::from(transaction.from.place)].far {
            Far::Source(outgoing) => Some(outgoing.message_id()),
            _ => None,
        };
        if session.kind != SessionKind::LargeMessage && source.is_none() {
            return;
        }
        let (from, to) = (transaction.from, transaction.to);
        let Some(at) = session.messages.find(&transaction.message_id, |message| message.from == from.place) else { return };
        let message = session.messages.at_mut(at);
        let open = self.net.get(connection).is_some_and(|conn| {
            let same = |other: &Transaction| other.from == from && other.to == to && other.message_id == transaction.message_id;
            conn.transactions.iter().any(|other| same(other) && other.failure_report == FailureReport::Yes)
        });
        let open = open || self.net.line_of(connection, from, to, &transaction.message_id).is_some();
        if !message.done || open || (message.failed | message.delivered) & to.bit() != 0 {
            return;
        }
        message.delivered |= to.bit();
        let octets = message.octets;
        let leg = session.legs[usize::from(to.place)].index;
        let message_id = source.unwrap_or_else(|| transaction.message_id.to_text());
        out.effects.push(MediaEffect::Tell(Report::Delivered { session: session.key, leg, message_id, octets }));
    }

    /// A target refused a chunk.
    fn refused_by_peer(&mut self, now: Instant, missed: &Missed, code: u16, stop: bool, out: &mut MediaOutbox) {
        self.net.count(Cause::RefusedByPeer);
        self.undelivered(now, missed, code, out);
        if stop {
            self.stop_taker(now, missed, code, out);
        }
        if matches!(code, status::NO_SESSION | status::WRONG_CONNECTION) {
            self.fail_leg(now, missed.to, LegFailure::Unknown, out);
        }
    }

    /// Octets did not reach a leg: says so to their sender, once, and where several legs were to get them only when all of
    /// them failed.
    pub(super) fn undelivered(&mut self, now: Instant, missed: &Missed, code: u16, out: &mut MediaOutbox) {
        let (from, to) = (missed.from, missed.to);
        let Some(session) = self.sessions.get_mut(from.session) else { return };
        let at = session.messages.find(&missed.message_id, |message| message.from == from.place);
        let first = at.is_some_and(|at| session.messages.at(at).failed & to.bit() == 0);
        if let (true, Far::Source(outgoing)) = (first, &session.legs[usize::from(from.place)].far) {
            let (leg, message_id) = (session.legs[usize::from(to.place)].index, outgoing.message_id());
            let report = Report::Undelivered { session: session.key, leg, message_id, status: code };
            out.effects.push(MediaEffect::Tell(report));
        }
        let alone = session.legs.iter().filter(|leg| leg.is_peer()).count() <= 2;
        let tell = match at {
            Some(at) => {
                let message = session.messages.at_mut(at);
                message.failed |= to.bit();
                message.failed & message.deciders == message.deciders && *message.failure_from.get_or_insert(to.place) == to.place
            }
            None => alone,
        };
        if tell && missed.failure_report != FailureReport::No {
            let reported = Reported { message_id: missed.message_id, range: Some(missed.range), code };
            self.report_to(now, from, &reported, out);
        }
    }

    /// Writes a report of our own to a leg (RFC 4975 §7.1.3, §7.1.4).
    pub(super) fn report_to(&mut self, now: Instant, to: LegId, reported: &Reported, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get(to.session) else { return };
        let leg = &session.legs[usize::from(to.place)];
        let Some(connection) = leg.connection.filter(|_| leg.is_peer()) else { return };
        let tid = Ident::random(&mut self.net.prng);
        let (path, uri) = (leg.return_path(), leg.uri.as_bytes());
        self.net.control(now, connection, out, |own| report::report(own, &tid, path, uri, reported));
    }

    /// RFC 4975 §10.5: a leg wants no more of a message. The others go on; when none is left, its sender is stopped.
    pub(super) fn stop_taker(&mut self, now: Instant, missed: &Missed, code: u16, out: &mut MediaOutbox) {
        let (from, to) = (missed.from, missed.to);
        let Some(session) = self.sessions.get_mut(from.session) else { return };
        let mut decided = session.legs.iter().filter(|leg| leg.is_peer()).count() <= 2;
        if let Some(at) = session.messages.find(&missed.message_id, |message| message.from == from.place) {
            let message = session.messages.at_mut(at);
            message.takers &= !to.bit();
            decided = message.takers & message.deciders == 0;
            if decided {
                message.refused = Some(code);
            }
        }
        let target = session.legs[usize::from(to.place)].connection;
        if let Some(target) = target
            && let Some(tid) = self.net.line_of(target, from, to, &missed.message_id).map(|line| line.tid)
        {
            self.net.own(now, target, out, |own| write::end_line(own, &tid, Continuation::Abort));
            self.net.end_line_written(now, target);
        }
        self.drop_taker(from, to, Some(&missed.message_id), decided, code, out);
    }

    /// Takes a leg out of the chunk that is coming in from `from`. `message_id`: only if it is of this message.
    pub(super) fn drop_taker(
        &mut self,
        from: LegId,
        to: LegId,
        message_id: Option<&Ident>,
        decided: bool,
        code: u16,
        out: &mut MediaOutbox,
    ) {
        let Some(session) = self.sessions.get_mut(from.session) else { return };
        let leg = &mut session.legs[usize::from(from.place)];
        let of_message =
            |chunk: &super::connection::Chunk| chunk.from == from && message_id.is_none_or(|id| chunk.message_id == *id);
        match &mut leg.far {
            Far::Source(outgoing) => {
                outgoing.chunk.takers &= !to.bit();
                if outgoing.chunk.takers == 0 && outgoing.is_running() {
                    outgoing.stop(out);
                    let file = outgoing.file;
                    self.files.remove(&file);
                }
            }
            _ => {
                let Some(conn) = leg.connection.and_then(|connection| self.net.get_mut(connection)) else { return };
                if let Some(chunk) = conn.chunk.as_mut().filter(|chunk| of_message(chunk)) {
                    chunk.takers &= !to.bit();
                    if decided || chunk.takers == 0 {
                        chunk.refused.get_or_insert(code);
                    }
                }
            }
        }
    }
}
