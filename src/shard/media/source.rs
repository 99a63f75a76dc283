//! CR 8.3.1.6: a stored message on its way out: read piece by piece as the targets take it, sent as one message.

use super::Media;
use super::connection::{Chunk, LegId};
use super::forward::{Ground, Last};
use super::session::{Far, Message, Route};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::limits::SOURCE_READ_OCTETS;
use crate::msrp::chunk::{Continuation, FailureReport};
use crate::msrp::ident::Ident;
use crate::shard::exchange::{LegFailure, Source};
use crate::shard::media_outbox::{Buffer, File, MediaEffect, MediaOutbox};

/// How far a source has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Waiting,
    Running,
    Done,
}

/// A source leg.
pub(super) struct Outgoing {
    source: Source,
    pub file: File,
    stage: Stage,
    pub chunk: Chunk,
    fields: Vec<u8>,
    /// A piece has been asked for and has not come.
    reading: bool,
}

impl Outgoing {
    pub fn new(from: LegId, source: Source, file: File, fallback: Ident) -> Self {
        let message_id = Ident::new(source.message_id.as_bytes()).filter(Ident::is_lawful).unwrap_or(fallback);
        let fields = format!("Message-ID: {}\r\nContent-Type: {}\r\n", message_id.to_text(), source.content_type).into_bytes();
        let chunk = Chunk {
            from,
            tid: Ident::default(),
            message_id,
            start: 1,
            octets: 0,
            total: Some(source.octets),
            failure_report: FailureReport::Yes,
            takers: 0,
            refused: None,
            answered: true,
        };
        Self { source, file, stage: Stage::Waiting, chunk, fields, reading: false }
    }

    pub fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }

    /// The name under which the signalling shard knows the message.
    pub fn message_id(&self) -> Box<str> {
        self.source.message_id.clone()
    }

    /// Ends it, whatever is still to be read.
    pub fn stop(&mut self, out: &mut MediaOutbox) {
        if std::mem::replace(&mut self.stage, Stage::Done) == Stage::Running {
            out.effects.push(MediaEffect::Discard { file: self.file, delete: false });
        }
    }
}

impl Media {
    /// Starts the sources of a session whose targets are there, and goes on with those whose targets have room.
    pub(super) fn run_sources(&mut self, session: Key, out: &mut MediaOutbox) {
        let Some(found) = self.sessions.get_mut(session) else { return };
        for place in 0..found.legs.len() {
            if found.legs[place].out || !matches!(found.legs[place].far, Far::Source(_)) {
                continue;
            }
            let route = found.route(place as u8, false);
            let full = found.outlets(place as u8).any(|connection| {
                let full = self.net.is_full(connection);
                if full && let Some(conn) = self.net.connections.get_mut(connection.0) {
                    conn.pressing = true;
                }
                full
            });
            let Far::Source(outgoing) = &mut found.legs[place].far else { continue };
            match (outgoing.stage, route) {
                (Stage::Waiting, Route::To { takers, deciders }) if found.closing.is_none() => {
                    outgoing.stage = Stage::Running;
                    outgoing.chunk.takers = takers;
                    self.files.insert(outgoing.file, outgoing.chunk.from);
                    out.effects.push(MediaEffect::Open { file: outgoing.file, path: outgoing.source.file.clone() });
                    found.messages.insert(Message::begun(&outgoing.chunk, false, takers, deciders));
                }
                (Stage::Running, _) if !full && !outgoing.reading => {}
                _ => continue,
            }
            outgoing.reading = true;
            out.effects.push(MediaEffect::Read { file: outgoing.file, octets: SOURCE_READ_OCTETS });
        }
    }

    /// A piece of the file came.
    pub(super) fn source_read(
        &mut self,
        now: Instant,
        id: LegId,
        buffer: Buffer,
        octets: &[u8],
        offset: u32,
        out: &mut MediaOutbox,
    ) {
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let Far::Source(outgoing) = &mut session.legs[usize::from(id.place)].far else { return };
        if !outgoing.is_running() {
            return;
        }
        outgoing.reading = false;
        let chunk = outgoing.chunk;
        let left = outgoing.source.octets - chunk.octets;
        let taken = octets.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if taken == 0 && left > 0 {
            return self.source_failed(now, id, out);
        }
        outgoing.chunk.octets += taken as u64;
        let last = outgoing.chunk.octets == outgoing.source.octets;
        let fields = std::mem::take(&mut outgoing.fields);
        session.totals.octets[0] += taken as u64;
        session.active_at = now;
        self.net.counts.octets[0] += taken as u64;
        let piece = Ground::Lent { buffer, offset, fixed: true }.piece(octets, 0..taken, out);
        let flag = Continuation::Complete;
        for target in session.targets(id.session, chunk.takers) {
            if last {
                let last = Last { body: piece.clone(), with_end: None, flag };
                self.net.end(now, target, &chunk, &fields, last, out);
            } else {
                self.net.more(now, target, &chunk, &fields, piece.clone(), out);
            }
        }
        if let Far::Source(outgoing) = &mut session.legs[usize::from(id.place)].far {
            outgoing.fields = fields;
            if last {
                outgoing.stop(out);
                let file = outgoing.file;
                self.files.remove(&file);
            }
        }
        if last {
            session.totals.chunks[0] += 1;
            session.totals.messages[0] += 1;
            self.net.counts.chunks[0] += 1;
            self.net.counts.messages[0] += 1;
            if let Some(at) = session.messages.find(&chunk.message_id, |message| message.from == id.place) {
                let message = session.messages.at_mut(at);
                (message.done, message.octets) = (true, chunk.octets + taken as u64);
            }
        }
        self.run_sources(id.session, out);
    }

    /// The file of a source cannot be read: the message is given up where it stands.
    pub(super) fn source_failed(&mut self, now: Instant, id: LegId, out: &mut MediaOutbox) {
        self.net.count(super::counts::Cause::Disk);
        self.fail_leg(now, id, LegFailure::Disk, out);
    }

    /// Tells the targets of a source that the message ends here.
    pub(super) fn abort_source(&mut self, now: Instant, id: LegId, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let Far::Source(outgoing) = &mut session.legs[usize::from(id.place)].far else { return };
        if !outgoing.is_running() {
            return;
        }
        outgoing.stop(out);
        let (chunk, fields, file) = (outgoing.chunk, std::mem::take(&mut outgoing.fields), outgoing.file);
        self.files.remove(&file);
        for target in session.targets(id.session, chunk.takers) {
            if chunk.octets > 0 {
                self.net.end(now, target, &chunk, &fields, Last::ABORT, out);
            }
        }
    }
}
