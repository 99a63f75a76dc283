//! Effects of a media shard. Body octets are never copied: what a connection received into a buffer is lent from that
//! buffer to the connections it goes out on, and the engine gives the buffer back to the kernel when the last loan ends.

use super::exchange::Report;
use crate::base::slab::Key;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

/// A TCP or TLS connection of this media core. The shard owns the one table of keys: `Media::accepted` gives a key to the
/// engine, `MediaEffect::Connect` brings one. A key stays taken until the engine's `Media::gone`, the last word about each
/// connection, so that the engine may index a table of its own by `Key::slot`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Connection(pub Key);

/// A file of a sink or source, numbered by the shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct File(pub u64);

/// A receive buffer that the engine lends for the time of the call, and for longer to every `Piece::Lent` of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Buffer(pub u32);

/// Octets to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Of a receive buffer: offsets into that buffer as a whole.
    Lent { buffer: Buffer, octets: Range<u32> },
    /// Of [`MediaOutbox::octets`]: heads, end-lines, responses, reports.
    Own(Range<u32>),
}

impl Piece {
    /// Octets in it.
    pub const fn len(&self) -> u32 {
        match self {
            Piece::Lent { octets, .. } | Piece::Own(octets) => octets.end - octets.start,
        }
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Grows by `next` where that lies right behind it.
    pub fn join(&mut self, next: &Piece) -> bool {
        match (self, next) {
            (Piece::Lent { buffer, octets }, Piece::Lent { buffer: other, octets: more })
                if *buffer == *other && octets.end == more.start =>
            {
                octets.end = more.end;
                true
            }
            (Piece::Own(octets), Piece::Own(more)) if octets.end == more.start => {
                octets.end = more.end;
                true
            }
            _ => false,
        }
    }
}

/// What a media shard wants done. Pieces for one connection go out in the order they were queued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MediaEffect {
    Send {
        connection: Connection,
        piece: Piece,
    },
    /// Open a connection under this key; answered by `connected` (TLS handshake done) or `gone`.
    Connect {
        connection: Connection,
        to: SocketAddr,
        tls: Option<TlsPeer>,
    },
    /// Stop receiving: some reader is slow. What the kernel already delivered still comes in.
    Pause(Connection),
    Resume(Connection),
    /// Send what is queued, then shut down our sending side, and close when the peer has closed too or two seconds on.
    Finish(Connection),
    /// Close now; what is queued is dropped.
    Abort(Connection),
    /// The connection belongs to another core's session: hand it over with the octets (of [`MediaOutbox::octets`]) it has
    /// sent so far. There it is `accepted`, then `receive`s those octets and what came after them; here it is `gone`.
    HandOver {
        connection: Connection,
        core: u8,
        octets: Range<u32>,
    },
    /// Write into a sink's file at this offset (a position beyond the end leaves a hole, RFC 4975 §7.3.1: chunks may come
    /// out of order); answered by `wrote`.
    Write {
        file: File,
        at: u64,
        piece: Piece,
    },
    /// Make a sink's file (and its directory, where missing). A failure is told by `file_failed`.
    Create {
        file: File,
        path: PathBuf,
    },
    /// When all writes queued before are done, make them durable (fdatasync of the file, fsync of its directory entry);
    /// answered by `synced`.
    Sync(File),
    /// Close; with `delete` unlink too. Answers that are still under way may come or not.
    Discard {
        file: File,
        delete: bool,
    },
    Open {
        file: File,
        path: PathBuf,
    },
    /// Read at most so many octets from where the last read ended; they come back as `read`.
    Read {
        file: File,
        octets: u32,
    },
    Tell(Report),
}

/// What is expected of a TLS peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsPeer {
    /// `a=fingerprint` value; none: the certificate authority of the configuration decides.
    pub fingerprint: Option<Box<str>>,
}

/// Why a connection is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Refused, unreachable, or no answer in time.
    NotConnected,
    /// TLS handshake or certificate.
    Tls,
    /// Reset or broken.
    Broken,
    /// Closed as asked: after `Finish`, `Abort` or `HandOver`.
    Closed,
}

/// Effects in order, and the octets of `Piece::Own`.
#[derive(Debug, Default)]
pub struct MediaOutbox {
    pub effects: Vec<MediaEffect>,
    pub octets: Vec<u8>,
}

impl MediaOutbox {
    /// Empties the box; its buffers stay for the next turn.
    pub fn clear(&mut self) {
        self.effects.clear();
        self.octets.clear();
    }

    /// Octets that `write` appends, as a piece.
    pub fn own(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Piece {
        let start = self.octets.len() as u32;
        write(&mut self.octets);
        Piece::Own(start..self.octets.len() as u32)
    }

    /// The octets of a [`Piece::Own`] and of `HandOver`.
    pub fn octets(&self, range: &Range<u32>) -> &[u8] {
        &self.octets[range.start as usize..range.end as usize]
    }
}
