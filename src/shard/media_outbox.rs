//! Effects of a media shard. Body octets are never copied: what a connection received into a buffer is lent from that
//! buffer to the connections it goes out on, and the engine gives the buffer back to the kernel when the last loan ends.

use super::exchange::Report;
use crate::base::slab::Key;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;

/// A TCP or TLS connection of this media core; the key is chosen by the engine (accepted) or the shard (to connect).
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

/// What a media shard wants done. Pieces for one connection go out in the order they were queued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MediaEffect {
    Send {
        connection: Connection,
        piece: Piece,
    },
    /// Open a connection under a key the shard got from the engine's table.
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
    /// The connection belongs to another core's session: hand it over with the octets it has sent so far.
    HandOver {
        connection: Connection,
        core: u8,
        octets: Range<u32>,
    },
    /// Append to a sink's file (created at the first write).
    Write {
        file: File,
        piece: Piece,
    },
    Create {
        file: File,
        path: PathBuf,
    },
    /// Make all that was written durable (fdatasync of file, fsync of a new directory entry), then tell.
    Sync(File),
    /// Close; with `delete` unlink too.
    Discard {
        file: File,
        delete: bool,
    },
    Open {
        file: File,
        path: PathBuf,
    },
    /// Read at most so many octets from a source; they come back as `read`.
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
}

/// Effects in order, and the octets of `Piece::Own`.
#[derive(Debug, Default)]
pub struct MediaOutbox {
    pub effects: Vec<MediaEffect>,
    pub octets: Vec<u8>,
}

impl MediaOutbox {
    pub fn clear(&mut self) {
        self.effects.clear();
        self.octets.clear();
    }
}
