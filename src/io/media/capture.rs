//! Heads of the requests and responses of captured sessions, read beside what the core does with them. Costs a look at an empty list
//! where nothing is captured.

use super::engine::Engine;
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::io::capture::tap::Tap;
use crate::io::capture::{Capture, Packet};
use crate::shard::exchange::MediaKey;
use crate::shard::media_outbox::{Buffer, Piece};
use socket2::SockRef;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// Sessions captured at one time: a call has few.
const SESSIONS_MAX: usize = 64;

/// What a core captures.
#[derive(Debug, Default)]
pub(super) struct Captured {
    sessions: Vec<(MediaKey, Arc<Capture>)>,
    /// Connections on which a captured session was heard of.
    taps: HashMap<Key, Box<Taps>>,
}

/// Both directions of a connection.
#[derive(Debug, Default)]
struct Taps {
    received: Tap<Arc<Capture>>,
    sent: Tap<Arc<Capture>>,
    local: Option<SocketAddr>,
}

impl Captured {
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn prune(&mut self, now: Instant) {
        self.sessions.retain(|(_, capture)| !capture.is_over(now));
        if self.sessions.is_empty() {
            self.taps.clear();
        }
    }

    /// A connection is no more.
    pub fn forget(&mut self, key: Key) {
        self.taps.remove(&key);
    }
}

impl Engine {
    /// A session is captured from here on.
    pub(super) fn capture(&mut self, session: MediaKey, capture: Arc<Capture>) {
        self.captured.prune(self.clock.now());
        if self.captured.sessions.len() < SESSIONS_MAX {
            self.captured.sessions.push((session, capture));
        }
    }

    /// Octets that came in, before anything is written into them.
    pub(super) fn tap_received(&mut self, key: Key, buffer: Buffer, offset: u32, octets: u32) {
        if !self.captured.is_empty() {
            let received = self.buffers.octets(buffer, offset, octets).to_vec();
            self.tap(key, false, &received);
        }
    }

    /// A piece that goes out.
    pub(super) fn tap_sent(&mut self, key: Key, piece: &Piece) {
        if !self.captured.is_empty() {
            let sent = match piece {
                Piece::Lent { buffer, octets } => self.buffers.octets(*buffer, octets.start, octets.end - octets.start).to_vec(),
                Piece::Own(octets) => self.out.octets(octets).to_vec(),
            };
            self.tap(key, true, &sent);
        }
    }

    fn tap(&mut self, key: Key, is_sent: bool, octets: &[u8]) {
        let now = self.clock.now();
        self.captured.prune(now);
        let Self { captured: Captured { sessions, taps }, shard, links, .. } = self;
        let Some(link) = links.get(key) else { return };
        let mut fresh = Taps::default();
        let (known, both) = match taps.get_mut(&key) {
            Some(both) => (true, &mut **both),
            None => (false, &mut fresh),
        };
        let local = *both.local.get_or_insert_with(|| address(&link.socket, link.peer));
        let tap = if is_sent { &mut both.sent } else { &mut both.received };
        let of = |head: &crate::msrp::head::Head, octets: &[u8]| {
            let path = if is_sent { head.from_path } else { head.to_path };
            let session = shard.session_of_path(path.of(octets))?;
            sessions.iter().find(|(captured, _)| *captured == session).map(|(_, capture)| capture.clone())
        };
        let (from, to) = if is_sent { (local, link.peer) } else { (link.peer, local) };
        tap.feed(octets, of, |capture, seen| {
            let octets = seen.octets.into();
            capture.add(Packet { at: now, datagram: false, from, to, octets, cut: 0, left_out: seen.left_out });
        });
        if !known && (fresh.received.follows() || fresh.sent.follows()) {
            taps.insert(key, Box::new(fresh));
        }
    }
}

fn address(socket: &std::os::fd::OwnedFd, peer: SocketAddr) -> SocketAddr {
    let local = SockRef::from(socket).local_addr().ok().and_then(|local| local.as_socket());
    // A socket that is gone has no address any more; the packet still tells of the peer.
    local.unwrap_or(SocketAddr::new(peer.ip(), 0))
}
