//! RFC 4975, CR 8.2.1.2, 8.3.1.5: one media core's whole MSRP state, a back-to-back user agent of one origin and many targets.

mod counts;

use crate::base::clock::Instant;
use crate::base::prng::Prng;
use crate::base::slab::Slab;
use crate::config::Config;
use crate::shard::exchange::Command;
use crate::shard::media_outbox::{Buffer, Connection, File, Gone, MediaOutbox};
pub use counts::{Cause, MediaCounts};
use std::net::SocketAddr;

/// The MSRP sessions, legs and connections of one media core.
pub struct Media {
    core: u8,
    connections: Slab<SocketAddr>,
    counts: MediaCounts,
}

impl Media {
    /// An empty core; session ids that begin with its number in two hex digits are its own.
    pub fn new(core: u8, config: &Config, prng: Prng) -> Self {
        let _ = (config, prng);
        Self { core, connections: Slab::with_capacity(65_536), counts: MediaCounts::default() }
    }

    /// A peer connected (the TLS handshake is done). None: this core or this peer has too many; close it.
    pub fn accepted(&mut self, now: Instant, peer: SocketAddr, tls: bool, out: &mut MediaOutbox) -> Option<Connection> {
        let _ = (now, tls, out, self.core);
        self.connections.insert(peer).ok().map(Connection)
    }

    /// A connection asked for by `Connect` is up (the TLS handshake is done).
    pub fn connected(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let _ = (now, connection, out);
    }

    /// Octets came in: all that is new, and only that. They lie in `buffer` from `offset` on, may be rewritten in place,
    /// and are lent to every `Piece::Lent` of this buffer that `out` holds afterwards.
    pub fn receive(
        &mut self,
        now: Instant,
        connection: Connection,
        buffer: Buffer,
        octets: &mut [u8],
        offset: u32,
        out: &mut MediaOutbox,
    ) {
        let _ = (now, connection, buffer, octets, offset, out);
    }

    /// So many octets of what was queued for a connection went to the kernel. Call it after each send that moved octets,
    /// with a fresh `now` (the relay latency is measured here).
    pub fn written(&mut self, now: Instant, connection: Connection, octets: usize, out: &mut MediaOutbox) {
        let _ = (now, connection, octets, out);
    }

    /// The peer closed its sending side (FIN or close_notify).
    pub fn ended(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let _ = (now, connection, out);
    }

    /// The connection is no more: the last word about it, said once for each, whoever closed it.
    pub fn gone(&mut self, now: Instant, connection: Connection, why: Gone, out: &mut MediaOutbox) {
        let _ = (now, why, out);
        self.connections.remove(connection.0);
    }

    /// From a signalling shard.
    pub fn command(&mut self, now: Instant, command: Command, out: &mut MediaOutbox) {
        let _ = (now, command, out);
    }

    /// So many octets of a sink's writes are done; their loans have ended.
    pub fn wrote(&mut self, now: Instant, file: File, octets: u64, out: &mut MediaOutbox) {
        let _ = (now, file, octets, out);
    }

    /// A sink's file is durable.
    pub fn synced(&mut self, now: Instant, file: File, out: &mut MediaOutbox) {
        let _ = (now, file, out);
    }

    /// Octets of a source, lying in `buffer` from `offset` on; empty at the end of the file.
    pub fn read(&mut self, now: Instant, file: File, buffer: Buffer, octets: &[u8], offset: u32, out: &mut MediaOutbox) {
        let _ = (now, file, buffer, octets, offset, out);
    }

    /// Making, opening, writing, syncing or reading a file failed.
    pub fn file_failed(&mut self, now: Instant, file: File, out: &mut MediaOutbox) {
        let _ = (now, file, out);
    }

    /// Carries out the timers up to `now`.
    pub fn due(&mut self, now: Instant, out: &mut MediaOutbox) {
        let _ = (now, out);
    }

    /// When [`Media::due`] has something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        None
    }

    /// What this core counted so far.
    pub fn counts(&self) -> &MediaCounts {
        &self.counts
    }

    /// No session and no connection is left.
    pub fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }
}
