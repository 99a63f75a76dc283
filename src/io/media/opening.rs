//! How connections begin: accepted, connected, handed over by another core; and the TLS handshake of the first two.

use super::connection::{Handing, Link, Receiving, Stage};
use super::engine::{Due, Engine};
use super::lanes::Handed;
use super::listener;
use super::op;
use super::op::accept::Accepted;
use super::tls::Session;
use crate::base::slab::Key;
use crate::io::ring::Completion;
use crate::shard::media_outbox::{Buffer, Connection, Gone, TlsPeer};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// How long accepting rests when descriptors are scarce.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Engine {
    /// Accepts on a listener until an error.
    pub(super) fn accept_on(&mut self, number: u32) {
        let operation = op::accept::arm(self.listeners[number as usize].socket.as_raw_fd(), number);
        self.submit(&operation);
    }

    pub(super) fn accepted(&mut self, completion: &Completion) {
        let number = completion.slot();
        match op::accept::read(completion) {
            Accepted::Connection(socket) => self.take_accepted(socket, self.listeners[number as usize].tls),
            Accepted::Nothing => {}
            Accepted::Scarce if completion.more() => {}
            Accepted::Scarce if self.accepting_ended() => return,
            Accepted::Scarce => {
                tracing::warn!(core = self.number, "no descriptor or memory left to accept an MSRP connection");
                self.resting += 1;
                self.timers.arm(self.now + ACCEPT_PAUSE, Due::Accept(number));
                return;
            }
        }
        if !completion.more() && !self.accepting_ended() {
            self.accept_on(number);
        }
    }

    fn take_accepted(&mut self, socket: OwnedFd, tls: bool) {
        let socket = Socket::from(socket);
        let Some(peer) = socket.peer_addr().ok().and_then(|address| address.as_socket()) else { return };
        self.counts.accepted += 1;
        if !tls {
            return self.introduce(Link::new(socket.into(), peer, Stage::Open, None));
        }
        // A handshake costs a core a millisecond: those that are under way are bounded, or chat would wait behind them.
        if self.handshakes >= self.config.limits.handshakes {
            self.counts.handshakes_refused += 1;
            self.refusals.refused(self.now, peer, "limits.handshakes");
            return;
        }
        let Some(session) = self.tls.as_ref().and_then(|tls| Session::accept(tls).ok()) else { return };
        let Ok(key) = self.links.insert(Link::new(socket.into(), peer, Stage::Handshake, Some(Box::new(session)))) else {
            self.counts.refused += 1;
            return;
        };
        self.handshakes += 1;
        self.time_opening(key, self.config.limits.opening_timeout);
        self.arm(key);
    }

    /// A connection that is ready for the shard: accepted over TCP, or handed over.
    fn introduce(&mut self, link: Link) {
        match self.links.insert(link) {
            Ok(key) => {
                self.name_accepted(key);
                self.arm(key);
            }
            Err(_) => self.counts.refused += 1,
        }
    }

    /// The shard gives an accepted connection its name, or refuses it.
    fn name_accepted(&mut self, key: Key) {
        let link = self.links.get(key).expect("just inserted, or just heard from");
        let (peer, tls) = (link.peer, link.tls.is_some());
        match self.shard.accepted(self.now, peer, tls, &mut self.out) {
            Some(connection) => {
                let link = self.links.get(key).expect("looked at above");
                if let Some(certificate) = link.tls.as_ref().and_then(|tls| tls.session.certificate()) {
                    self.shard.certified(connection, certificate);
                }
                self.links.name(key, connection);
            }
            None => {
                self.counts.refused += 1;
                self.refusals.refused(self.now, peer, "limits.unbound_msrp_per_peer");
                self.close(key, Gone::Closed);
            }
        }
        self.carry_out();
    }

    /// Opens a connection for the shard.
    pub(super) fn connect(&mut self, connection: Connection, to: SocketAddr, tls: Option<&TlsPeer>) {
        let session = match (tls, &self.tls) {
            (None, _) => None,
            (Some(peer), Some(tls)) => Session::connect(tls, peer, to).ok().map(Box::new),
            (Some(_), None) => None,
        };
        if tls.is_some() && session.is_none() {
            self.stillborn.push((connection, Gone::Tls));
            return;
        }
        let key = self.socket_to(to).ok().and_then(|socket| {
            let mut link = Link::new(socket.into(), to, Stage::Connecting, session);
            link.connect_to = Some(Box::new(SockAddr::from(to)));
            self.links.insert(link).ok()
        });
        let Some(key) = key else {
            self.counts.refused += 1;
            self.stillborn.push((connection, Gone::NotConnected));
            return;
        };
        self.links.name(key, connection);
        self.time_opening(key, self.config.msrp.connect_timeout);
        let link = self.links.get_mut(key).expect("just inserted");
        link.under_way += 1;
        let address = link.connect_to.as_deref().expect("just set");
        let operation = op::connect::arm(link.fd(), address, key);
        // SAFETY: the address is boxed in the link, which is neither changed there nor removed before the completion came
        // (`under_way`); where the link itself moves, the box stays.
        unsafe { self.submit_lending(&operation) };
    }

    fn socket_to(&self, to: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        listener::prepare(&socket, &self.config.msrp.congestion)?;
        Ok(socket)
    }

    pub(super) fn connect_done(&mut self, key: Key, completion: &Completion) {
        let link = self.links.get_mut(key).expect("completions find a link that is there");
        link.under_way -= 1;
        link.connect_to = None;
        if link.closing.is_some() {
            return self.bury_when_quiet(key);
        }
        if completion.result < 0 {
            return self.close(key, Gone::NotConnected);
        }
        self.counts.connected += 1;
        let Some(tls) = &mut link.tls else { return self.opened(key) };
        link.stage = Stage::Handshake;
        self.handshakes += 1;
        let mut hello = Vec::new();
        tls.session.take(&mut hello);
        tls.sealed.push_own(hello.into());
        self.touch(key);
        self.arm(key);
    }

    /// A connection that was connected is ready for the shard.
    fn opened(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        link.stage = Stage::Open;
        if let Some(timer) = link.timer.take() {
            self.timers.cancel(timer);
        }
        if let Some(connection) = link.connection {
            self.shard.connected(self.now, connection, &mut self.out);
            self.carry_out();
        }
        self.arm(key);
        if self.links.get(key).is_some() {
            self.touch(key);
        }
    }

    fn time_opening(&mut self, key: Key, most: Duration) {
        let timer = self.timers.arm(self.now + most, Due::Opening(key));
        self.links.get_mut(key).expect("just inserted").timer = Some(timer);
    }

    pub(super) fn opening_timed_out(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key) {
            link.timer = None;
            self.opening_failed(key);
        }
    }

    pub(super) fn opening_failed(&mut self, key: Key) {
        let Some(link) = self.links.get(key) else { return };
        let why = if link.stage == Stage::Handshake { Gone::Tls } else { Gone::NotConnected };
        self.counts.handshakes_failed += u64::from(why == Gone::Tls);
        self.close(key, why);
    }

    /// Ciphertext of a connection; the caller holds the buffer.
    pub(super) fn open_sealed(&mut self, key: Key, buffer: Buffer, offset: u32, octets: u32) {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        let tls = link.tls.as_mut().expect("sealed octets come on TLS connections");
        let (mut plain, mut sealed) = (self.buffers.spare(), Vec::new());
        let opened = tls.session.open(self.buffers.octets(buffer, offset, octets), &mut plain, &mut sealed);
        tls.sealed.push_own(sealed.into());
        self.touch(key);
        let opened = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                let link = self.links.get(key).expect("still there");
                tracing::info!(peer = %link.peer, %failure, "TLS of an MSRP connection failed");
                let handshake = link.stage == Stage::Handshake;
                return if handshake { self.opening_failed(key) } else { self.close(key, Gone::Broken) };
            }
        };
        if opened.established {
            self.handshakes -= 1;
            self.established(key);
        }
        let length = u32::try_from(plain.len()).expect("no longer than the ciphertext");
        if length > 0 {
            let plain = self.buffers.heap(plain);
            self.deliver(key, plain, 0, length);
            self.buffers.release(plain);
        }
        if opened.ended {
            self.peer_ended(key);
        }
    }

    fn established(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        if let Some(connection) = link.connection {
            if let Some(certificate) = link.tls.as_ref().and_then(|tls| tls.session.certificate()) {
                self.shard.certified(connection, certificate);
            }
            return self.opened(key);
        }
        link.stage = Stage::Open;
        if let Some(timer) = link.timer.take() {
            self.timers.cancel(timer);
        }
        self.name_accepted(key);
    }

    /// The shard found that a connection is another core's.
    pub(super) fn hand_over(&mut self, connection: Connection, core: u8, octets: Range<u32>) {
        let Some(key) = self.links.of(connection) else { return };
        let link = self.links.get_mut(key).expect("named links are in the table");
        let lane = self.lanes.around.own.index(core).and_then(|index| self.lanes.handed_out.get(index));
        let lane = lane.is_some_and(Option::is_some);
        // A TLS session has its keys here: it cannot go to another process.
        let beyond = self.lanes.around.towards(core).is_some() && link.tls.is_none();
        if link.closing.is_some() || !lane && !beyond {
            return self.close(key, Gone::Closed);
        }
        let octets = self.out.octets[octets.start as usize..octets.end as usize].to_vec();
        link.handing = Some(Handing { core, octets });
        if link.receiving == Receiving::Idle {
            self.send_handed(key);
        } else {
            // What is received until the cancellation took effect goes along.
            self.cancel_receive(key);
        }
    }

    /// Nothing is received any more: the connection goes.
    pub(super) fn send_handed(&mut self, key: Key) {
        // A poll for room may be under way; its completion comes first.
        if self.links.get(key).is_none_or(|link| link.under_way > 0) {
            return;
        }
        let Some(mut link) = self.links.remove(key) else { return };
        link.queue.clear(&mut self.buffers);
        let (handing, connection) = (link.handing.expect("the caller saw it"), link.connection);
        if let Some(timer) = link.timer {
            self.timers.cancel(timer);
        }
        let tls = link.tls.map(|mut tls| {
            tls.sealed.clear(&mut self.buffers);
            tls.session
        });
        let core = handing.core;
        let handed = Handed { socket: link.socket, peer: link.peer, tls, octets: handing.octets, ended: link.ended };
        match self.lanes.around.own.index(core) {
            Some(index) => {
                let lane = self.lanes.handed_out[index].as_mut().expect("looked at when it was asked for");
                lane.push(handed);
            }
            None => self.hand_beyond(core, handed),
        }
        self.counts.handed_over += 1;
        if let Some(connection) = connection {
            self.shard.gone(self.now, connection, Gone::Closed, &mut self.out);
            self.carry_out();
        }
    }

    /// A connection that another core handed over.
    pub(super) fn take_handed(&mut self, handed: Handed) {
        let mut link = Link::new(handed.socket, handed.peer, Stage::Open, handed.tls);
        link.ended = handed.ended;
        let Ok(key) = self.links.insert(link) else {
            self.counts.refused += 1;
            return;
        };
        self.name_accepted(key);
        let length = u32::try_from(handed.octets.len()).expect("a head and one receive");
        if length > 0 {
            let octets = self.buffers.heap(handed.octets);
            self.deliver(key, octets, 0, length);
            self.buffers.release(octets);
        }
        if handed.ended
            && let Some(connection) = self.links.get(key).and_then(|link| link.connection)
        {
            self.shard.ended(self.now, connection, &mut self.out);
            self.carry_out();
        }
        self.arm(key);
    }
}
