//! RFC 4975 §7.3.1, CR 8.3.1.6, 8.5: where we are the endpoint: each message goes to a file of its own, its chunks to their
//! places in it, and counts as received when the file is durable.
//!
//! ```text
//! Writing ── all octets and `$` are there ──> Syncing ── synced ──> told ── hold: Acknowledge ──> answered
//!    └─ `#`, sender lost: deleted
//! ```

use super::connection::{Chunk, LegId};
use crate::limits::{SINK_FILES_MAX, SINK_GAPS_MAX, STORED_HEAD_OCTETS_MAX};
use crate::msrp::chunk::{Continuation, FailureReport};
use crate::msrp::ident::Ident;
use crate::shard::media_outbox::{Connection, File, MediaEffect, MediaOutbox, Piece};
use std::collections::HashMap;
use std::path::PathBuf;

/// Which leg a file belongs to; a file leaves it with its message.
pub(super) type Index = HashMap<File, LegId>;

/// How far a file has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Writing,
    Syncing,
    /// Durable and told; the last chunk waits for its answer.
    Told,
}

/// A message on its way to disk.
pub(super) struct Kept {
    pub file: File,
    pub path: PathBuf,
    pub message_id: Ident,
    pub from: u8,
    pub content_type: Box<str>,
    pub success_report: bool,
    pub failure_report: FailureReport,
    pub stage: Stage,
    /// Octets of the whole message, once its `$` has come.
    pub octets: Option<u64>,
    /// Stretches that are there: first octet and the one after the last, in order, not touching.
    covered: Vec<(u64, u64)>,
    /// The beginning of the message, as far as it came in order: it goes with the report.
    pub head: Vec<u8>,
    /// Octets whose writes are not done.
    pub pending: u64,
    /// The chunk that completed it, where its answer waits.
    pub last: Option<(Connection, Ident)>,
}

impl Kept {
    /// Takes note of a stretch; false: there are too many gaps to go on.
    fn cover(&mut self, start: u64, octets: u64) -> bool {
        if octets == 0 {
            return true;
        }
        let (mut from, mut to) = (start, start.saturating_add(octets));
        let first = self.covered.partition_point(|&(_, end)| end < from);
        let last = self.covered.partition_point(|&(begin, _)| begin <= to);
        if first < last {
            from = from.min(self.covered[first].0);
            to = to.max(self.covered[last - 1].1);
        }
        self.covered.splice(first..last, [(from, to)]);
        self.covered.len() <= SINK_GAPS_MAX
    }

    fn is_whole(&self) -> bool {
        match self.octets {
            Some(0) => true,
            Some(octets) => matches!(self.covered[..], [(1, end)] if end > octets),
            None => false,
        }
    }
}

/// A sink leg.
pub(super) struct Sink {
    pub directory: PathBuf,
    pub hold: bool,
    /// Content types that are kept, as in `a=accept-types`; empty: any.
    pub accept_types: Box<str>,
    pub files: Vec<Kept>,
}

impl Sink {
    /// Whether a file is being written or waits for its answer.
    pub fn is_busy(&self) -> bool {
        !self.files.is_empty()
    }

    /// Whether a whole message is on its way to disk or to its answer.
    pub fn is_storing(&self) -> bool {
        self.files.iter().any(|kept| kept.stage != Stage::Writing)
    }

    /// Octets whose writes are not done.
    pub fn pending(&self) -> u64 {
        self.files.iter().map(|kept| kept.pending).sum()
    }

    fn writing(&mut self, from: u8, message_id: &Ident) -> Option<usize> {
        self.files.iter().position(|kept| kept.stage == Stage::Writing && kept.from == from && kept.message_id == *message_id)
    }

    /// A chunk of a message begins: its file is made with the first. False: too many messages at once.
    pub fn begin(
        &mut self,
        chunk: &Chunk,
        success_report: bool,
        content_type: &[u8],
        file: File,
        name: &str,
        out: &mut MediaOutbox,
    ) -> bool {
        if self.writing(chunk.from.place, &chunk.message_id).is_some() {
            return true;
        }
        if self.files.len() >= SINK_FILES_MAX {
            return false;
        }
        let path = self.directory.join(name);
        out.effects.push(MediaEffect::Create { file, path: path.clone() });
        self.files.push(Kept {
            file,
            path,
            message_id: chunk.message_id,
            from: chunk.from.place,
            content_type: String::from_utf8_lossy(content_type).into(),
            success_report,
            failure_report: chunk.failure_report,
            stage: Stage::Writing,
            octets: None,
            covered: Vec::new(),
            head: Vec::new(),
            pending: 0,
            last: None,
        });
        true
    }

    /// Octets of a chunk: `piece` is where `content` lies; `at` is the place of the first in the message. False: the message
    /// cannot be kept.
    pub fn write(&mut self, chunk: &Chunk, at: u64, content: &[u8], piece: Piece, out: &mut MediaOutbox) -> bool {
        let Some(found) = self.writing(chunk.from.place, &chunk.message_id) else { return false };
        let octets = u64::from(piece.len());
        if octets == 0 {
            return true;
        }
        let kept = &mut self.files[found];
        kept.pending += octets;
        if at == kept.head.len() as u64 + 1 {
            let room = STORED_HEAD_OCTETS_MAX.saturating_sub(kept.head.len());
            kept.head.extend_from_slice(&content[..content.len().min(room)]);
        }
        out.effects.push(MediaEffect::Write { file: kept.file, at: at.saturating_sub(1), piece });
        kept.cover(at, octets)
    }

    /// The end of a chunk; `chunk` counts all its octets. True: the message is whole now and is being made durable.
    pub fn end(&mut self, chunk: &Chunk, flag: Continuation, index: &mut Index, out: &mut MediaOutbox) -> bool {
        let Some(found) = self.writing(chunk.from.place, &chunk.message_id) else { return false };
        let kept = &mut self.files[found];
        match flag {
            Continuation::Abort => {
                out.effects.push(MediaEffect::Discard { file: kept.file, delete: true });
                index.remove(&kept.file);
                self.files.swap_remove(found);
                return false;
            }
            // RFC 4975 §7.3.1: the chunk that ends with `$` defines the length.
            Continuation::Complete => kept.octets = Some(chunk.next().saturating_sub(1)),
            Continuation::More => {}
        }
        if !kept.is_whole() {
            return false;
        }
        kept.stage = Stage::Syncing;
        out.effects.push(MediaEffect::Sync(kept.file));
        true
    }

    /// A message that can be kept no more.
    pub fn give_up(&mut self, from: u8, message_id: &Ident, index: &mut Index, out: &mut MediaOutbox) {
        if let Some(found) = self.writing(from, message_id) {
            let kept = self.files.swap_remove(found);
            index.remove(&kept.file);
            out.effects.push(MediaEffect::Discard { file: kept.file, delete: true });
        }
    }

    /// Gives all files up.
    pub fn clear(&mut self, index: &mut Index, out: &mut MediaOutbox) {
        for kept in self.files.drain(..) {
            index.remove(&kept.file);
            out.effects.push(MediaEffect::Discard { file: kept.file, delete: kept.stage != Stage::Told });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slab::Key;

    fn chunk(start: u64, octets: u64) -> Chunk {
        Chunk {
            from: LegId { session: Key::from_u64(1), place: 0 },
            tid: Ident::new(b"tid1").unwrap(),
            message_id: Ident::new(b"mid1").unwrap(),
            start,
            octets,
            total: None,
            failure_report: FailureReport::Yes,
            takers: 1,
            refused: None,
            answered: false,
        }
    }

    #[test]
    fn chunks_in_any_order_with_overlaps_make_a_whole_message() {
        let (mut sink, mut out) = (
            Sink { directory: "/tmp".into(), hold: false, accept_types: Box::default(), files: Vec::new() },
            MediaOutbox::default(),
        );
        let mut feed = |start: u64, octets: u64, flag| {
            assert!(sink.begin(&chunk(start, 0), false, b"a/b", File(1), "x", &mut out));
            assert!(sink.write(
                &chunk(start, 0),
                start,
                &[b'x'; 64][..octets.min(64) as usize],
                Piece::Own(0..octets as u32),
                &mut out
            ));
            sink.end(&chunk(start, octets), flag, &mut Index::new(), &mut out)
        };
        assert!(!feed(11, 10, Continuation::More));
        assert!(!feed(31, 10, Continuation::Complete));
        assert!(!feed(1, 12, Continuation::More));
        assert!(feed(15, 20, Continuation::More));
    }
}
