//! RFC 3261 §18: a message on its way out, by a datagram, on a connection, or by a lane to the core that has the connection; those
//! who watch get a copy.

use super::Engine;
use crate::base::clock::Instant;
use crate::base::transport::{Destination, Flow, Transport};
use crate::io::capture::Message;
use crate::io::signalling::lanes::{Mark, Passed, Peer};
use crate::io::signalling::tcp::Queued;
use std::net::SocketAddr;

impl Engine {
    pub(super) fn send(&mut self, now: Instant, to: &Destination, octets: &[u8], mark: Mark) {
        let call = self.watch.hep.as_ref().and_then(|_| self.shard.beginning(octets, true)).map(Box::<str>::from);
        match to {
            Destination::Flow { flow, fallback } if flow.core == self.core => {
                let fallback = fallback.as_deref().map(Peer::of);
                self.send_on(now, *flow, fallback.as_ref(), octets, mark, call.as_deref());
            }
            Destination::Flow { flow, fallback } => {
                let fallback = fallback.as_deref().map(Peer::of);
                let (flow, octets) = (*flow, octets.into());
                self.send_elsewhere(now, None, Passed::Send { flow, fallback, octets, mark, call });
            }
            Destination::Target(target) => self.send_to(now, &Peer::of(target), octets, mark, call.as_deref()),
        }
        if self.watch.captures() {
            self.capture_sent(now, to, octets);
        }
    }

    /// A message of ours for the captures that run.
    fn capture_sent(&mut self, now: Instant, to: &Destination, octets: &[u8]) {
        let (transport, peer, local) = match to {
            Destination::Flow { flow, .. } if flow.transport == Transport::Udp => {
                let socket = self.udp.of_listener(flow.listener).or_else(|| self.udp.towards(flow.peer));
                (flow.transport, flow.peer, socket.map(|socket| self.udp.local(socket)))
            }
            Destination::Flow { flow, .. } => (flow.transport, flow.peer, self.tcp.local(flow.connection)),
            Destination::Target(target) if target.transport == Transport::Udp => {
                (target.transport, target.address, self.udp.towards(target.address).map(|socket| self.udp.local(socket)))
            }
            Destination::Target(target) => (target.transport, target.address, self.tcp.local_towards(&Peer::of(target))),
        };
        let listening = || self.listening.iter().find(|(kind, _)| *kind == transport).map(|(_, address)| *address);
        let Some(local) = local.or_else(listening) else { return };
        let datagram = transport == Transport::Udp;
        self.watch.capture(&self.shard, &Message { at: now, sent: true, datagram, local, peer, octets });
    }

    pub(super) fn send_on(
        &mut self,
        now: Instant,
        flow: Flow,
        fallback: Option<&Peer>,
        octets: &[u8],
        mark: Mark,
        call: Option<&str>,
    ) {
        if flow.transport == Transport::Udp {
            match self.udp.of_listener(flow.listener).or_else(|| self.udp.towards(flow.peer)) {
                Some(socket) => {
                    self.udp.send(socket, flow.peer, octets, mark);
                    self.copy_sent(now, Transport::Udp, Some(self.udp.local(socket)), flow.peer, call, octets);
                }
                None => self.failed.push(mark),
            }
            return;
        }
        // A final answer is sent once: whoever has closed just now is seen to have, whichever of its octets and its end, and what
        // is answered, the ring tells of first.
        let ended = fallback.is_some() && is_final(octets) && self.tcp.peer_has_ended(flow.connection);
        let queued = match self.tcp.send_on(now, flow.connection, octets, mark) {
            Queued::Open if ended => Queued::HalfClosed,
            queued => queued,
        };
        if queued != Queued::Gone {
            let local = self.watch.hep.as_ref().and_then(|_| self.tcp.local(flow.connection));
            self.copy_sent(now, flow.transport, local, flow.peer, call, octets);
        }
        match (queued, fallback) {
            (Queued::Open, _) | (Queued::HalfClosed, None) => {}
            // Whoever only shut its sending side has its answer; whoever closed gets it once more, where it listens.
            (Queued::HalfClosed, Some(peer)) => self.send_to(now, peer, octets, Mark::NONE, call),
            // RFC 3261 §18.2.2: the connection is gone; the sent-by address of the Via is tried.
            (Queued::Gone, Some(peer)) => self.send_to(now, peer, octets, mark, call),
            (Queued::Gone, None) => self.failed.push(mark),
        }
    }

    pub(super) fn send_to(&mut self, now: Instant, to: &Peer, octets: &[u8], mark: Mark, call: Option<&str>) {
        match to.transport {
            Transport::Udp => match self.udp.towards(to.address) {
                Some(socket) => {
                    self.udp.send(socket, to.address, octets, mark);
                    self.copy_sent(now, Transport::Udp, Some(self.udp.local(socket)), to.address, call, octets);
                }
                None => self.failed.push(mark),
            },
            Transport::Tcp | Transport::Tls => {
                self.tcp.send_to(now, to, octets, mark);
                let local = self.watch.hep.as_ref().and_then(|_| self.tcp.local_towards(to));
                self.copy_sent(now, to.transport, local, to.address, call, octets);
            }
        }
    }

    /// A copy of a message of ours for the capture server, where there is one.
    fn copy_sent(
        &mut self,
        now: Instant,
        transport: Transport,
        local: Option<SocketAddr>,
        peer: SocketAddr,
        call: Option<&str>,
        octets: &[u8],
    ) {
        if let (Some(hep), Some(local)) = (&mut self.watch.hep, local) {
            hep.copy(now, transport, local, peer, call, octets);
        }
    }
}

/// Whether these are the octets of a final response.
fn is_final(octets: &[u8]) -> bool {
    octets.strip_prefix(b"SIP/2.0 ").is_some_and(|status| status.first() != Some(&b'1'))
}
