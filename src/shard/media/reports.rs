//! RFC 4975 §7.1.2, §7.3.2: REPORT and other requests that are passed on whole.
//!
//! A target's REPORT finds its way back by its Message-ID. The sender hears one truth: with several targets the success of
//! the first that reports it, and a failure only when all failed.

use super::Media;
use super::connection::{About, LegId, Transaction};
use super::counts::Cause;
use super::forward::Arrival;
use super::respond::Missed;
use super::session::{Far, Route};
use crate::base::clock::Instant;
use crate::msrp::chunk::{ByteRange, Continuation, FailureReport};
use crate::msrp::head::Head;
use crate::msrp::ident::Ident;
use crate::msrp::{status, write};
use crate::shard::exchange::Report;
use crate::shard::media_outbox::{Connection, MediaEffect, MediaOutbox};

impl Media {
    pub(super) fn report_request(&mut self, now: Instant, id: LegId, arrival: &Arrival<'_>, out: &mut MediaOutbox) {
        let head = arrival.head;
        let Some(to) = self.reported_to(id, head, out) else {
            // RFC 4975 §7.1.2: a report on a message that is not known is ignored, and never answered.
            self.net.count(Cause::StrayReport);
            return;
        };
        let Some(session) = self.sessions.get(id.session) else { return };
        let leg = &session.legs[usize::from(to)];
        if let Some(connection) = leg.connection.filter(|_| leg.is_peer()) {
            let tid = Ident::random(&mut self.net.prng);
            let (path, uri) = (leg.return_path(), leg.uri.as_bytes());
            self.net.control(now, connection, out, |own| pass_on(own, &tid, arrival, path, uri));
        }
        if head.status == Some(status::STOP) {
            let from = LegId { session: id.session, place: to };
            let range = head.byte_range.unwrap_or(ByteRange::open(1, None));
            let missed = Missed { from, to: id, message_id: head.message_id, range, failure_report: FailureReport::Yes };
            self.stop_taker(now, &missed, status::STOP, out);
        }
    }

    /// The place of the leg that is to hear a report; none: nobody is.
    fn reported_to(&mut self, id: LegId, head: &Head, out: &mut MediaOutbox) -> Option<u8> {
        let session = self.sessions.get_mut(id.session)?;
        let concerned =
            |message: &super::session::Message| message.from != id.place && (message.takers | message.failed) & id.bit() != 0;
        let at = session.messages.find(&head.message_id, concerned)?;
        let message = session.messages.at_mut(at);
        let from = message.from;
        let told = match head.status {
            Some(status::OK) => message.success_report && *message.success_from.get_or_insert(id.place) == id.place,
            Some(code) => {
                let first = message.failed & id.bit() == 0;
                message.failed |= id.bit();
                if let (true, Far::Source(outgoing)) = (first, &session.legs[usize::from(from)].far) {
                    let (leg, message_id) = (session.legs[usize::from(id.place)].index, outgoing.message_id());
                    let report = Report::Undelivered { session: session.key, leg, message_id, status: code };
                    out.effects.push(MediaEffect::Tell(report));
                }
                let message = session.messages.at_mut(at);
                message.failure_report != FailureReport::No
                    && message.failed & message.deciders == message.deciders
                    && *message.failure_from.get_or_insert(id.place) == id.place
            }
            // Another namespace than ours (RFC 4975 §7.1.3): not ours to judge.
            None => true,
        };
        told.then_some(from)
    }

    /// A request with a method we do not know, in a session: passed on to the other end (brief answer of RFC 4976 §6.4.2).
    pub(super) fn foreign_request(
        &mut self,
        now: Instant,
        connection: Connection,
        id: LegId,
        arrival: &Arrival<'_>,
        out: &mut MediaOutbox,
    ) {
        let head = arrival.head;
        let Some(session) = self.sessions.get(id.session) else { return };
        let takers = match session.route(id.place, true) {
            Route::To { deciders, .. } => deciders,
            _ => 0,
        };
        let target = session.targets(id.session, takers).next();
        let Some(target) = target.filter(|target| !self.net.is_full(target.connection)) else {
            self.net.count(Cause::NoTarget);
            self.answer_method(now, (connection, id), &head.tid, Cause::NoTarget.code(), out);
            return;
        };
        let free = self.net.get(target.connection).is_some_and(|conn| !conn.uses(&head.tid));
        let tid = if free { head.tid } else { Ident::random(&mut self.net.prng) };
        let (path, uri) = (target.to_path.as_bytes(), target.uri.as_bytes());
        self.net.control(now, target.connection, out, |own| pass_on(own, &tid, arrival, path, uri));
        let transaction = Transaction {
            tid,
            about: About::Foreign { tid: head.tid },
            from: id,
            to: target.to,
            message_id: head.message_id,
            start: 1,
            octets: 0,
            total: None,
            failure_report: FailureReport::Yes,
            until: 0,
            at: now,
        };
        self.net.transact(target.connection, transaction);
        self.net.arm(target.connection);
    }
}

/// Writes a whole request as it came, but for its transaction id and paths.
fn pass_on(own: &mut Vec<u8>, tid: &Ident, arrival: &Arrival<'_>, to_path: &[u8], from_path: &[u8]) {
    let head = arrival.head;
    let octets = &arrival.octets[arrival.at..];
    write::request_start(own, tid, head.method.of(octets), to_path, from_path);
    own.extend_from_slice(head.fields.of(octets));
    if head.has_body {
        own.extend_from_slice(b"\r\n");
        own.extend_from_slice(&arrival.octets[arrival.body.clone()]);
        own.extend_from_slice(b"\r\n");
    }
    write::bare_end_line(own, tid, Continuation::Complete);
}
