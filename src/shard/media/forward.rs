//! RFC 4975 §7.1.1: a chunk on its way out to one target.
//!
//! The body is lent from the buffer it came into. The head is rewritten there too where the new one is not longer than the
//! old: `MSRP tid SEND`, To-Path and From-Path are written anew, flush with the fields behind them, and head, body and
//! end-line leave as one piece; with equal lengths, messages that came together leave together:
//!
//! ```text
//! came   |MSRP tid SEND To-Path: us@A From-Path: A |Message-ID … body … end-line|MSRP …
//! leaves |MSRP tid SEND To-Path: B From-Path: us@B |Message-ID … body … end-line|MSRP …     one piece, no copy
//! leaves |MSRP … longer than before … | + |Message-ID … body … end-line|                    else: own start, lent rest
//! ```
//! The sender's transaction id is kept where it is free on the target's connection: the sender saw to it that its end-line
//! is not in the body. A fresh one has 95 random bits that nobody who writes the body has seen.
//!
//! Cost of a chunk of 200 octets: one head of some 150 octets written, no allocation.

use super::connection::{Chunk, LegId, Line};
use super::net::Net;
use crate::base::clock::Instant;
use crate::limits::MSRP_WHOLE_BODY_OCTETS_MAX;
use crate::msrp::chunk::{ByteRange, Continuation};
use crate::msrp::head::Head;
use crate::msrp::ident::Ident;
use crate::msrp::parse::End;
use crate::msrp::write;
use crate::shard::media_outbox::{Buffer, Connection, MediaOutbox, Piece};
use std::ops::Range;

/// Where the octets of a call lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ground {
    /// In a lent buffer, from `offset` on. `fixed`: they stay as they came, since they also lie where they came from.
    Lent { buffer: Buffer, offset: u32, fixed: bool },
    /// In memory of ours that is reused after the call.
    Copied,
}

impl Ground {
    /// The ground of what lies `octets` further on.
    pub fn behind(self, octets: usize) -> Self {
        match self {
            Ground::Lent { buffer, offset, fixed } => Ground::Lent { buffer, offset: offset + octets as u32, fixed },
            Ground::Copied => Ground::Copied,
        }
    }

    /// A stretch of the octets, lent or copied.
    pub fn piece(self, octets: &[u8], range: Range<usize>, out: &mut MediaOutbox) -> Piece {
        match self {
            Ground::Lent { buffer, offset, .. } => {
                Piece::Lent { buffer, octets: offset + range.start as u32..offset + range.end as u32 }
            }
            Ground::Copied => out.own(|own| own.extend_from_slice(&octets[range])),
        }
    }
}

/// A head that came in, with what is there of its body.
pub(super) struct Arrival<'a> {
    pub ground: Ground,
    pub octets: &'a mut [u8],
    pub at: usize,
    pub head: &'a Head,
    pub body: Range<usize>,
    pub end: Option<End>,
}

/// Who gets a chunk.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub connection: Connection,
    pub to: LegId,
    pub to_path: &'a str,
    pub uri: &'a str,
}

impl Net {
    /// Begins a chunk on a target's connection with all that is there of it. `in_place`: nobody else needs the old head.
    pub fn begin(
        &mut self,
        now: Instant,
        target: Target<'_>,
        chunk: &Chunk,
        arrival: &mut Arrival<'_>,
        in_place: bool,
        out: &mut MediaOutbox,
    ) {
        let connection = target.connection;
        self.interrupt(now, connection, out);
        let Some(conn) = self.get(connection) else { return };
        let (head, body, end) = (arrival.head, arrival.body.clone(), arrival.end);
        let kept = !conn.uses(&head.tid);
        let tid = if kept { head.tid } else { Ident::random(&mut self.prng) };
        let upto = end.filter(|_| kept).map_or(body.end, |end| end.after);

        let mut start = std::mem::take(&mut self.scratch);
        start.clear();
        write::request_start(&mut start, &tid, b"SEND", target.to_path.as_bytes(), target.uri.as_bytes());
        let fields_at = arrival.at + usize::from(head.fields.start);
        match outgoing_range(head, body.len(), end.is_some()) {
            None if in_place
                && matches!(arrival.ground, Ground::Lent { fixed: false, .. })
                && start.len() <= fields_at - arrival.at =>
            {
                arrival.octets[fields_at - start.len()..fields_at].copy_from_slice(&start);
                let piece = arrival.ground.piece(arrival.octets, fields_at - start.len()..upto, out);
                self.send(now, connection, piece, out);
            }
            None => {
                self.own(now, connection, out, |octets| octets.extend_from_slice(&start));
                let piece = arrival.ground.piece(arrival.octets, fields_at..upto, out);
                self.send(now, connection, piece, out);
            }
            Some(range) => {
                let octets = &arrival.octets[arrival.at..];
                self.own(now, connection, out, |own| {
                    own.extend_from_slice(&start);
                    write::byte_range(own, range);
                    write_fields(own, octets, head);
                    own.extend_from_slice(b"\r\n");
                });
                let piece = arrival.ground.piece(arrival.octets, body.start..upto, out);
                self.send(now, connection, piece, out);
            }
        }
        self.scratch = start;

        let line = Line { octets: body.len() as u64, ..Line::begun(chunk, target.to, tid) };
        let Some(end) = end else { return self.take_line(connection, line) };
        if !kept {
            self.own(now, connection, out, |own| write::end_line(own, &tid, end.flag));
        }
        self.transact(connection, line.transaction(now));
    }

    /// More octets of a chunk that was begun. `chunk` does not count them yet.
    pub fn more(&mut self, now: Instant, target: Target<'_>, chunk: &Chunk, fields: &[u8], piece: Piece, out: &mut MediaOutbox) {
        if piece.is_empty() {
            return;
        }
        self.ensure_line(now, target, chunk, fields, out);
        let octets = u64::from(piece.len());
        self.send(now, target.connection, piece, out);
        if let Some(line) = self.get_mut(target.connection).and_then(|conn| conn.line.as_mut()) {
            line.octets += octets;
        }
    }

    /// The end of a chunk that was begun, behind its last octets. `with_end` is the body with the sender's end-line, for
    /// where the target's is the same.
    pub fn end(&mut self, now: Instant, target: Target<'_>, chunk: &Chunk, fields: &[u8], last: Last, out: &mut MediaOutbox) {
        let connection = target.connection;
        let ours = self.line_of(connection, chunk.from, target.to, &chunk.message_id).is_some();
        if !ours && last.body.is_empty() {
            // An interruption ended it with `+`, or with `$` where all its octets had gone: nothing is left to say.
            let all = chunk.octets > 0 && chunk.total == Some(chunk.next().saturating_sub(1));
            if all || last.flag == Continuation::More {
                return;
            }
        }
        self.ensure_line(now, target, chunk, fields, out);
        let Some(tid) = self.get(connection).and_then(|conn| conn.line.as_ref()).map(|line| line.tid) else { return };
        let octets = u64::from(last.body.len());
        match last.with_end {
            Some(with_end) if tid == chunk.tid => self.send(now, connection, with_end, out),
            _ => {
                self.send(now, connection, last.body, out);
                self.own(now, connection, out, |own| write::end_line(own, &tid, last.flag));
            }
        }
        if let Some(line) = self.get_mut(connection).and_then(|conn| conn.line.as_mut()) {
            line.octets += octets;
        }
        self.end_line_written(now, connection);
    }

    /// Takes the line for this chunk, where it has not got it: a new SEND from the next octet on (RFC 4975 §7.1.1).
    fn ensure_line(&mut self, now: Instant, target: Target<'_>, chunk: &Chunk, fields: &[u8], out: &mut MediaOutbox) {
        let connection = target.connection;
        if self.line_of(connection, chunk.from, target.to, &chunk.message_id).is_some() {
            return;
        }
        self.interrupt(now, connection, out);
        let tid = Ident::random(&mut self.prng);
        let start = chunk.next();
        let total = chunk.total.filter(|&total| start <= total || total == 0);
        self.own(now, connection, out, |own| {
            write::request_start(own, &tid, b"SEND", target.to_path.as_bytes(), target.uri.as_bytes());
            write::byte_range(own, ByteRange::open(start, total));
            own.extend_from_slice(fields);
            own.extend_from_slice(b"\r\n");
        });
        self.take_line(connection, Line { start, total, ..Line::begun(chunk, target.to, tid) });
    }

    fn take_line(&mut self, connection: Connection, line: Line) {
        let Some(conn) = self.connections.get_mut(connection.0).filter(|conn| conn.takes()) else { return };
        conn.line = Some(self.spare_lines.filled(line));
    }
}

/// The last octets of a chunk.
#[derive(Clone)]
pub(super) struct Last {
    pub body: Piece,
    pub with_end: Option<Piece>,
    pub flag: Continuation,
}

impl Last {
    /// The chunk is given up here.
    pub const ABORT: Self = Self { body: Piece::Own(0..0), with_end: None, flag: Continuation::Abort };
}

/// The Byte-Range to be written; none: as it came.
///
/// RFC 4975 §7.1.1: above 2048 octets, and while its end is not in sight, a chunk must be interruptible, which is to say
/// its range-end is `*`.
fn outgoing_range(head: &Head, octets: usize, whole: bool) -> Option<ByteRange> {
    match head.byte_range {
        Some(range) if range.end.is_some() && (!whole || octets > MSRP_WHOLE_BODY_OCTETS_MAX) => {
            Some(ByteRange::open(range.start, range.total))
        }
        None if !whole => Some(ByteRange::open(1, None)),
        _ => None,
    }
}

/// The fields of a head as they came, without Byte-Range.
pub(super) fn write_fields(own: &mut Vec<u8>, octets: &[u8], head: &Head) {
    let (fields, range) = (head.fields, head.byte_range_line);
    if range.is_empty() || range.start < fields.start {
        own.extend_from_slice(fields.of(octets));
        return;
    }
    own.extend_from_slice(&octets[usize::from(fields.start)..usize::from(range.start)]);
    own.extend_from_slice(&octets[usize::from(range.end)..usize::from(fields.end)]);
}
