//! RFC 3261 §18.2.1: a message on its way in, from a datagram or a stream to the core that owns it; those who watch get a copy.

use super::Engine;
use crate::base::clock::Instant;
use crate::base::transport::{Flow, Transport};
use crate::config::Config;
use crate::io::capture::Message;
use crate::io::ring::{BufferRing, Completion};
use crate::io::signalling::connection::End;
use crate::io::signalling::dropped::Dropped;
use crate::io::signalling::lanes::{Links, Mark, Passed};
use crate::io::signalling::owner::{Owners, Whose};
use crate::io::signalling::rate::Rate;
use crate::io::signalling::refuse;
use crate::io::signalling::tcp::Tcp;
use crate::io::signalling::udp::Udp;
use crate::io::signalling::watch::Watch;
use crate::shard::outbox::Outbox;
use crate::shard::signalling::Signalling;
use crate::sip::frame::Broken;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// How the log names requests beyond the limit.
const TOO_MUCH: &str = "limits.requests_per_second_per_peer";

/// Where whole messages are taken, whatever they came on.
pub(super) struct Desk<'e> {
    core: u8,
    now: Instant,
    config: &'e Config,
    shard: &'e mut Signalling,
    out: &'e mut Outbox,
    links: &'e mut Links,
    owners: &'e mut Owners,
    rate: &'e mut Rate,
    watch: &'e mut Watch,
    dropped: &'e mut Dropped,
    messages: &'e mut u32,
    unanswerable: &'e mut u64,
}

impl Desk<'_> {
    /// A message goes to whose it is, unless its sender has had what it may have in a second: then it gets this answer. `local`:
    /// our address, where somebody looks on.
    fn take(&mut self, flow: Flow, octets: &[u8], arrived: Instant, local: Option<SocketAddr>) -> Option<Vec<u8>> {
        if self.is_too_much(flow.peer.ip(), octets) {
            self.dropped.refused(self.now, flow.peer, TOO_MUCH);
            return refuse::too_many(octets, flow.peer);
        }
        *self.messages += 1;
        let shard = &*self.shard;
        match self.owners.of(octets, self.core, &self.links.around, None, |octets| shard.knows(octets)) {
            Whose::Core(owner) if owner == self.core => self.serve(flow, octets, arrived, local),
            whose => self.links.give(whose, Passed::Received { flow, local, octets: octets.into(), arrived }),
        }
        None
    }

    /// A message is this core's.
    pub fn serve(&mut self, flow: Flow, octets: &[u8], arrived: Instant, local: Option<SocketAddr>) {
        self.shard.queue_delay(self.now, self.now.since(arrived));
        self.shard.receive(self.now, flow, octets, self.out);
        if let Some(local) = local {
            let datagram = flow.transport == Transport::Udp;
            let message = Message { at: self.now, sent: false, datagram, local, peer: flow.peer, octets };
            self.watch.received(self.shard, flow.transport, &message);
        }
    }

    /// What is no message we can take: the answer, if one can be made of it.
    fn refuse(&mut self, flow: &Flow, octets: &[u8], answer: Option<Vec<u8>>, cause: &'static str) -> Option<Vec<u8>> {
        if answer.is_none() {
            *self.unanswerable += 1;
            self.dropped.note(self.now, flow, octets.len(), cause);
        }
        answer
    }

    /// Whether this is a request beyond what its sender may have in a second.
    fn is_too_much(&mut self, peer: IpAddr, octets: &[u8]) -> bool {
        let most = self.config.limits.requests_per_second_per_peer;
        let counts = most > 0 && !octets.starts_with(b"SIP/2.0 ");
        counts && !self.config.sip.trusted.iter().any(|network| network.contains(peer)) && !self.rate.admits(self.now, peer, most)
    }
}

/// What messages come on, and where they are taken.
pub(super) struct Reception<'e> {
    udp: &'e mut Udp,
    tcp: &'e mut Tcp,
    datagrams: &'e BufferRing,
    streams: &'e BufferRing,
    pub desk: Desk<'e>,
}

impl Engine {
    pub(super) fn reception(&mut self, now: Instant) -> Reception<'_> {
        Reception {
            udp: &mut self.udp,
            tcp: &mut self.tcp,
            datagrams: &self.datagrams,
            streams: &self.streams,
            desk: Desk {
                core: self.core,
                now,
                config: &self.config,
                shard: &mut self.shard,
                out: &mut self.out,
                links: &mut self.links,
                owners: &mut self.owners,
                rate: &mut self.rate,
                watch: &mut self.watch,
                dropped: &mut self.dropped,
                messages: &mut self.messages,
                unanswerable: &mut self.unanswerable,
            },
        }
    }

    pub(super) fn datagram(&mut self, socket: usize, completion: &Completion) -> io::Result<()> {
        if let (Ok(octets), Some(buffer)) = (u32::try_from(completion.result), completion.buffer()) {
            let (core, now, reading_since) = (self.core, self.clock.now(), self.reading_since);
            let clock = self.clock;
            let Reception { udp, datagrams, mut desk, .. } = self.reception(now);
            // SAFETY: the completion gave us the buffer, and nobody else looks at it until it is given back below.
            let buffered = unsafe { datagrams.octets(buffer, 0, octets) };
            if let Some(datagram) = udp.read(socket, core, buffered) {
                // What waited for a hand-over to end waited for nothing that less load would have ended sooner.
                let arrived = datagram.stamp.map_or(now, |(seconds, nanos)| clock.of_wall(seconds, nanos)).max(reading_since);
                let (flow, octets) = (datagram.flow, datagram.octets);
                let answer = if datagram.truncated || octets.len() > desk.config.sip.max_message {
                    desk.refuse(&flow, octets, refuse::too_large(octets, flow.peer), "datagram > too large")
                } else if is_keep_alive(octets) {
                    // It has done its work on the way here.
                    None
                } else {
                    let local = desk.watch.is_on().then(|| udp.local(socket));
                    desk.take(flow, octets, arrived, local)
                };
                if let Some(answer) = answer {
                    udp.send(socket, flow.peer, &answer, Mark::NONE);
                }
            }
            self.datagrams.give(buffer);
        } else if completion.result < 0 {
            let Self { udp, failed, .. } = self;
            udp.undelivered(socket, |mark| failed.push(mark));
        }
        if completion.more() || self.hold.ended() { Ok(()) } else { self.arm_datagrams(socket) }
    }

    pub(super) fn accepted(&mut self, listener: usize, completion: &Completion) {
        let result = completion.result;
        if result >= 0 {
            let trusted = &self.config.sip.trusted;
            let (now, believed) = (self.clock.now(), |peer| trusted.iter().any(|network| network.contains(peer)));
            if let Some((peer, limit)) = self.tcp.accepted(now, listener, result, believed) {
                self.dropped.refused(now, peer, limit);
            }
        }
        if !completion.more() && !self.hold.ended() {
            if result >= 0 || result == -libc::ECANCELED {
                self.tcp.accept(listener);
            } else {
                // EMFILE and its like pass; to try at once would keep this core from all else.
                self.deaf.push(listener);
            }
        }
    }

    pub(super) fn received(&mut self, slot: u32, generation: u32, completion: &Completion) {
        let result = completion.result;
        let now = self.clock.now();
        let found = self.tcp.find(slot, generation);
        if let (Ok(octets), Some(buffer)) = (u32::try_from(result), completion.buffer()) {
            // A connection that is gone still has its buffer given back.
            if let Some(key) = found {
                let arrived = self.tcp.taken(self.entered, key, octets as usize, completion.nonempty());
                let Reception { tcp, streams, mut desk, .. } = self.reception(now);
                let local = if desk.watch.is_on() { tcp.local(key.as_u64()) } else { None };
                let mut answers = Vec::new();
                // SAFETY: the completion gave us the buffer, and nobody else looks at it until it is given back below.
                let octets = unsafe { streams.octets(buffer, 0, octets) };
                tcp.received(now, key, octets, |flow, framed| {
                    answers.extend(match framed {
                        Ok(message) => desk.take(flow, message, arrived, local),
                        Err(Broken { fault, head }) => {
                            tracing::debug!(peer = %flow.peer, fault = fault.as_str(), "a message cannot be taken");
                            desk.refuse(&flow, head, refuse::answer(head, flow.peer, fault.status()), fault.as_str())
                        }
                    });
                });
                for answer in answers {
                    tcp.send_on(now, key.as_u64(), &answer, Mark::NONE);
                }
            }
            self.streams.give(buffer);
        }
        let Some(key) = found else { return };
        match result {
            0 => self.tcp.ended_by_peer(now, key),
            _ if completion.more() => {}
            _ if self.tcp.is_given(key) => self.give_connection(key),
            // No buffer was free; there is one again by the end of this turn.
            _ if result > 0 || matches!(-result, libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => self.tcp.receive(key),
            _ => self.tcp.close(key, End::Broken),
        }
    }
}

/// RFC 5626 §4.4.1: over UDP, empty lines (and a zero octet, which older clients send) keep a NAT's binding.
fn is_keep_alive(octets: &[u8]) -> bool {
    octets.iter().all(|octet| matches!(octet, b'\r' | b'\n' | 0))
}
