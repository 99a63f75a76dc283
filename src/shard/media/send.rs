//! RFC 4975 §7.3.1: SEND requests: what is refused, whom a chunk goes to, and its way through.

use super::Media;
use super::connection::{Chunk, LegId};
use super::counts::Cause;
use super::forward::{Arrival, Ground, Last, write_fields};
use super::receive::{Flow, Part};
use super::session::{Far, Message, Route, Session};
use super::sink::{Index, Sink};
use crate::base::clock::Instant;
use crate::msrp::chunk::{Continuation, FailureReport};
use crate::msrp::head::Head;
use crate::msrp::leg::{Direction, SessionKind};
use crate::msrp::media_type;
use crate::msrp::status;
use crate::shard::media_outbox::{Connection, File, MediaOutbox, Piece};

/// Octets of a body in which a delivery report shows itself: behind the CPIM headers.
const REPORT_SIGN_WITHIN: usize = 2048;

/// What a chunk's message allows.
enum Verdict {
    /// To these legs. The message's place in the table; none: nobody will ever ask for it.
    Go {
        takers: u32,
        message: Option<usize>,
    },
    Wait,
    Refuse(Cause, u16),
}

impl From<Cause> for Verdict {
    fn from(cause: Cause) -> Self {
        Verdict::Refuse(cause, cause.code())
    }
}

impl Media {
    pub(super) fn send_request(
        &mut self,
        now: Instant,
        connection: Connection,
        id: LegId,
        mut arrival: Arrival<'_>,
        out: &mut MediaOutbox,
    ) -> Flow {
        let head = arrival.head;
        // RFC 4975 §7.1: a SEND without body binds or keeps alive; it is answered and goes nowhere. Some senders put the
        // blank line of a body that they do not have.
        let empty = head.content_type.is_empty() && arrival.body.is_empty() && arrival.end.is_some();
        if head.is_bodiless() || empty {
            self.answer(now, (connection, id), &head.tid, head.failure_report, status::OK, out);
            return Flow::Next;
        }
        // RFC 4975 §7.1: a body has a Content-Type; §7.1.1: a chunk has a Message-ID.
        if head.content_type.is_empty() || head.message_id.is_empty() {
            self.refuse(now, (connection, id), &arrival, Cause::Malformed, out);
            return Flow::Next;
        }
        let mut chunk = Chunk {
            from: id,
            tid: head.tid,
            message_id: head.message_id,
            start: head.byte_range.map_or(1, |range| range.start),
            octets: 0,
            total: head.byte_range.and_then(|range| range.total),
            failure_report: head.failure_report,
            takers: 0,
            refused: None,
            answered: false,
        };
        let message = match self.verdict(now, &chunk, &arrival) {
            Verdict::Go { takers, message } => {
                chunk.takers = takers;
                message
            }
            Verdict::Wait => return Flow::Hold,
            Verdict::Refuse(cause, code) => {
                self.refuse_as(now, (connection, id), &arrival, cause, code, out);
                return Flow::Next;
            }
        };
        self.begin_sinks(&mut chunk, &arrival, out);
        let octets = arrival.body.len() as u64;
        let Some(session) = self.sessions.get(id.session) else { return Flow::Next };
        let in_place = session.targets(id.session, chunk.takers).count() == 1;
        for target in session.targets(id.session, chunk.takers) {
            self.net.begin(now, target, &chunk, &mut arrival, in_place, out);
        }
        chunk.octets = octets;
        self.count_octets(id, octets, message);
        match arrival.end {
            Some(end) => self.chunk_ended(now, connection, chunk, end.flag, out),
            None => {
                let octets = &arrival.octets[arrival.at..];
                let Some(conn) = self.net.connections.get_mut(connection.0) else { return Flow::Stop };
                conn.fields.clear();
                write_fields(&mut conn.fields, octets, head);
                conn.chunk = Some(self.net.spare_chunks.filled(chunk));
            }
        }
        Flow::Next
    }

    /// Who gets a chunk, or why nobody does.
    fn verdict(&mut self, now: Instant, chunk: &Chunk, arrival: &Arrival<'_>) -> Verdict {
        let head = arrival.head;
        let id = chunk.from;
        let Some(session) = self.sessions.get_mut(id.session) else { return Cause::UnknownSession.into() };
        if session.is_over_for(now, id.place) {
            return Cause::Closing.into();
        }
        let leg = &mut session.legs[usize::from(id.place)];
        leg.silent = chunk.failure_report == FailureReport::No;
        // RFC 4975 §8.9: directions speak of regular payload; a delivery report goes either way.
        let exempt = leg.direction == Direction::ToPeer;
        if exempt && !is_delivery_report(head, arrival) {
            return Cause::Direction.into();
        }
        let most = chunk.total.unwrap_or(0).max(chunk.start.saturating_add(arrival.body.len() as u64).saturating_sub(1));
        if most > session.max_message {
            return Cause::TooLarge.into();
        }
        let found = session.messages.find(&chunk.message_id, |message| message.from == id.place);
        // A message id that begins anew after its message was complete is a new message, or the same sent again.
        if let Some(at) = found.filter(|at| !(session.messages.at(*at).done && chunk.start == 1)) {
            return session.goes_on(at);
        }
        let mut route = session.route(id.place, exempt);
        if route == Route::Forbidden && !exempt && is_delivery_report(head, arrival) {
            route = session.route(id.place, true);
        }
        let (takers, deciders) = match route {
            Route::To { takers, deciders } => (takers, deciders),
            Route::Wait => return Verdict::Wait,
            Route::Nobody => return Cause::NoTarget.into(),
            Route::Forbidden => return Cause::Direction.into(),
        };
        let (takers, cause) = session.accepting(takers, head.content_type.of(&arrival.octets[arrival.at..]), most);
        let deciders = deciders & takers;
        if deciders == 0 {
            return cause.into();
        }
        let whole = arrival.end.is_some_and(|end| end.flag == Continuation::Complete) && chunk.start == 1;
        let silent = chunk.failure_report == FailureReport::No && !head.success_report;
        if whole && silent && session.kind == SessionKind::Session {
            return Verdict::Go { takers, message: None };
        }
        let message = Message::begun(chunk, head.success_report, takers, deciders);
        let at = match found {
            Some(at) => {
                *session.messages.at_mut(at) = message;
                at
            }
            None => session.messages.insert(message),
        };
        Verdict::Go { takers, message: Some(at) }
    }

    /// Gives a chunk's head and first octets to the sinks among its takers.
    fn begin_sinks(&mut self, chunk: &mut Chunk, arrival: &Arrival<'_>, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(chunk.from.session) else { return };
        let content_type = arrival.head.content_type.of(&arrival.octets[arrival.at..]);
        let mut failed = 0u32;
        for (place, leg) in session.legs.iter_mut().enumerate().filter(|(place, _)| chunk.takers & (1 << place) != 0) {
            let Far::Sink(sink) = &mut leg.far else { continue };
            let file = File(self.next_file);
            let name = crate::msrp::ident::Ident::random(&mut self.net.prng).to_text();
            if !sink.begin(chunk, arrival.head.success_report, content_type, file, &name, out) {
                failed |= 1 << place;
                continue;
            }
            if sink.files.last().is_some_and(|kept| kept.file == file) {
                self.next_file += 1;
                self.files.insert(file, LegId { session: chunk.from.session, place: place as u8 });
            }
            if !arrival.body.is_empty() {
                let piece = arrival.ground.piece(arrival.octets, arrival.body.clone(), out);
                let content = &arrival.octets[arrival.body.clone()];
                if !sink.write(chunk, chunk.start, content, piece, out) {
                    failed |= 1 << place;
                }
            }
        }
        self.sinks_failed(chunk, failed, out);
    }

    /// More of a chunk whose head came earlier.
    pub(super) fn chunk_goes_on(&mut self, now: Instant, connection: Connection, part: &Part<'_>, out: &mut MediaOutbox) {
        let (ground, octets, body, end) = (part.ground, part.octets, part.body.clone(), part.end);
        let Some(conn) = self.net.get_mut(connection) else { return };
        let Some(mut chunk) = conn.chunk.as_deref().copied() else { return };
        let fields = std::mem::take(&mut conn.fields);
        self.check_size(now, &mut chunk, &fields, body.len() as u64, out);
        let last = end.filter(|_| chunk.takers != 0);
        if chunk.takers != 0 {
            let piece = ground.piece(octets, body.clone(), out);
            self.more_to_sinks(&mut chunk, &octets[body.clone()], &piece, out);
            // A lent end-line costs nothing; a copied one is as quickly written by hand.
            let with_end = match (last, ground) {
                (Some(end), Ground::Lent { .. }) => Some(ground.piece(octets, body.start..end.after, out)),
                _ => None,
            };
            if let Some(session) = self.sessions.get(chunk.from.session) {
                for target in session.targets(chunk.from.session, chunk.takers) {
                    match last {
                        Some(end) => {
                            let last = Last { body: piece.clone(), with_end: with_end.clone(), flag: end.flag };
                            self.net.end(now, target, &chunk, &fields, last, out);
                        }
                        None => self.net.more(now, target, &chunk, &fields, piece.clone(), out),
                    }
                }
            }
        }
        chunk.octets += body.len() as u64;
        let message = self.message_of(&chunk);
        if chunk.takers != 0 {
            self.count_octets(chunk.from, body.len() as u64, message);
        }
        let mut over = None;
        if let Some(conn) = self.net.get_mut(connection) {
            conn.fields = fields;
            match conn.chunk.as_mut().filter(|_| end.is_none()) {
                Some(going_on) => **going_on = chunk,
                None => over = conn.chunk.take(),
            }
            if end.is_some() && conn.fields.capacity() > 1024 {
                conn.fields = Vec::new();
            }
        }
        if let Some(over) = over {
            self.net.spare_chunks.keep(over);
        }
        if let Some(end) = end {
            self.chunk_ended(now, connection, chunk, end.flag, out);
        }
    }

    pub(super) fn message_of(&self, chunk: &Chunk) -> Option<usize> {
        let session = self.sessions.get(chunk.from.session)?;
        session.messages.find(&chunk.message_id, |message| message.from == chunk.from.place)
    }

    /// RFC 4975 §10.5: a message that grows beyond the limit is stopped: its sender hears 413 at once, its targets `#`.
    fn check_size(&mut self, now: Instant, chunk: &mut Chunk, fields: &[u8], more: u64, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get(chunk.from.session) else { return };
        if chunk.takers == 0 || chunk.next().saturating_add(more).saturating_sub(1) <= session.max_message {
            return;
        }
        self.net.count(Cause::TooLarge);
        let at = self.message_of(chunk);
        self.abort_chunk(now, chunk, fields, out);
        if let (Some(at), Some(session)) = (at, self.sessions.get_mut(chunk.from.session)) {
            session.messages.at_mut(at).refused = Some(status::STOP);
        }
        (chunk.takers, chunk.refused) = (0, Some(status::STOP));
        if let Some(connection) = self.leg_connection(chunk.from) {
            self.answer(now, (connection, chunk.from), &chunk.tid, chunk.failure_report, status::STOP, out);
            chunk.answered = true;
        }
    }

    fn more_to_sinks(&mut self, chunk: &mut Chunk, content: &[u8], piece: &Piece, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(chunk.from.session) else { return };
        let mut failed = 0u32;
        for (place, leg) in session.legs.iter_mut().enumerate().filter(|(place, _)| chunk.takers & (1 << place) != 0) {
            if let Far::Sink(sink) = &mut leg.far
                && !sink.write(chunk, chunk.next(), content, piece.clone(), out)
            {
                failed |= 1 << place;
            }
        }
        self.sinks_failed(chunk, failed, out);
    }

    /// Sinks that cannot keep this message leave it; where they decided, the sender is stopped.
    fn sinks_failed(&mut self, chunk: &mut Chunk, failed: u32, out: &mut MediaOutbox) {
        if failed == 0 {
            return;
        }
        self.net.count(Cause::NotKept);
        chunk.takers &= !failed;
        let at = self.message_of(chunk);
        let Some(session) = self.sessions.get_mut(chunk.from.session) else { return };
        for (_, leg) in session.legs.iter_mut().enumerate().filter(|(place, _)| failed & (1 << place) != 0) {
            if let Far::Sink(sink) = &mut leg.far {
                sink.give_up(chunk.from.place, &chunk.message_id, &mut self.files, out);
            }
        }
        let decided = match at {
            Some(at) => {
                let message = session.messages.at_mut(at);
                message.failed |= failed;
                message.takers &= !failed;
                message.takers & message.deciders == 0
            }
            None => chunk.takers == 0,
        };
        if decided {
            chunk.refused = Some(status::STOP);
            if let Some(at) = at {
                session.messages.at_mut(at).refused = Some(status::STOP);
            }
        }
    }

    fn count_octets(&mut self, id: LegId, octets: u64, message: Option<usize>) {
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let way = session.way(id.place);
        session.totals.octets[way] += octets;
        self.net.counts.octets[way] += octets;
        if let Some(at) = message {
            session.messages.at_mut(at).octets += octets;
        }
    }

    /// The end-line of a chunk came: RFC 4975 §7.2 wants the answer now.
    fn chunk_ended(&mut self, now: Instant, connection: Connection, chunk: Chunk, flag: Continuation, out: &mut MediaOutbox) {
        let id = chunk.from;
        let at = self.message_of(&chunk);
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let way = session.way(id.place);
        session.active_at = now;
        if let Some(at) = at
            && flag != Continuation::More
        {
            let message = session.messages.at_mut(at);
            message.done = true;
            if flag == Continuation::Abort {
                message.failed |= message.takers;
            }
        }
        let mut waits = false;
        for (_, leg) in session.legs.iter_mut().enumerate().filter(|(place, _)| chunk.takers & (1 << place) != 0) {
            if let Far::Sink(sink) = &mut leg.far {
                waits |= end_in_sink(sink, (connection, &chunk), flag, &mut self.files, out);
            }
        }
        if chunk.refused.is_none() || chunk.takers != 0 {
            session.totals.chunks[way] += 1;
            self.net.counts.chunks[way] += 1;
            if flag == Continuation::Complete {
                session.totals.messages[way] += 1;
                self.net.counts.messages[way] += 1;
            }
        }
        if !chunk.answered && !waits {
            match chunk.refused {
                Some(code) => self.answer(now, (connection, id), &chunk.tid, chunk.failure_report, code, out),
                None => self.answer_taken(now, (connection, id), &chunk.tid, chunk.failure_report, out),
            }
        }
    }

    /// The sender is gone in the middle of its chunk, or the message is stopped: every target is told `#`.
    pub(super) fn abort_chunk(&mut self, now: Instant, chunk: &Chunk, fields: &[u8], out: &mut MediaOutbox) {
        let at = self.message_of(chunk);
        let Some(session) = self.sessions.get_mut(chunk.from.session) else { return };
        if let Some(at) = at {
            let message = session.messages.at_mut(at);
            message.done = true;
            message.failed |= message.takers;
        }
        for leg in session.legs.iter_mut() {
            if let Far::Sink(sink) = &mut leg.far {
                sink.give_up(chunk.from.place, &chunk.message_id, &mut self.files, out);
            }
        }
        for target in session.targets(chunk.from.session, chunk.takers) {
            self.net.end(now, target, chunk, fields, Last::ABORT, out);
        }
    }
}

impl Session {
    /// Who gets a further chunk of a message that is known.
    fn goes_on(&self, at: usize) -> Verdict {
        let message = self.messages.at(at);
        if let Some(code) = message.refused {
            return Verdict::Refuse(Cause::Stopped, code);
        }
        let alive = self.legs.iter().enumerate().fold(0u32, |mask, (place, leg)| mask | u32::from(!leg.out) << place);
        if message.takers & message.deciders & alive == 0 {
            return Cause::NoTarget.into();
        }
        Verdict::Go { takers: message.takers & alive, message: Some(at) }
    }

    /// Those of the takers that accept a message of this type and of so many octets, and why others do not.
    fn accepting(&self, takers: u32, content_type: &[u8], octets: u64) -> (u32, Cause) {
        let (mut left, mut cause) = (takers, Cause::NoTarget);
        for (place, leg) in self.legs.iter().enumerate().filter(|(place, _)| takers & (1 << place) != 0) {
            // RFC 4975 §8.6: an endpoint refuses what it did not list. A peer judges for itself.
            if matches!(&leg.far, Far::Sink(sink) if !media_type::is_accepted(content_type, &sink.accept_types)) {
                left &= !(1 << place);
                cause = Cause::MediaType;
            } else if leg.max_size.is_some_and(|max_size| octets > max_size) {
                left &= !(1 << place);
                cause = Cause::TooLarge;
            }
        }
        (left, cause)
    }
}

/// Ends a chunk in a sink. True: its answer waits until the message is kept.
fn end_in_sink(
    sink: &mut Sink,
    (connection, chunk): (Connection, &Chunk),
    flag: Continuation,
    index: &mut Index,
    out: &mut MediaOutbox,
) -> bool {
    if !sink.end(chunk, flag, index, out) || !sink.hold {
        return false;
    }
    let whole = |kept: &&mut super::sink::Kept| {
        kept.stage == super::sink::Stage::Syncing
            && kept.last.is_none()
            && kept.from == chunk.from.place
            && kept.message_id == chunk.message_id
    };
    match sink.files.iter_mut().find(whole) {
        Some(kept) => {
            kept.last = Some((connection, chunk.tid));
            true
        }
        None => false,
    }
}

/// Whether a SEND carries an IMDN, bare or in CPIM (RFC 5438 §6.2).
fn is_delivery_report(head: &Head, arrival: &Arrival<'_>) -> bool {
    const IMDN: &[u8] = b"message/imdn+xml";
    let content_type = media_type::bare(head.content_type.of(&arrival.octets[arrival.at..]));
    if content_type.eq_ignore_ascii_case(IMDN) {
        return true;
    }
    let body = &arrival.octets[arrival.body.start..arrival.body.end.min(arrival.body.start + REPORT_SIGN_WITHIN)];
    content_type.eq_ignore_ascii_case(b"message/cpim") && body.windows(IMDN.len()).any(|window| window.eq_ignore_ascii_case(IMDN))
}
