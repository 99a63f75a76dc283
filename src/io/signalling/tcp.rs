//! RFC 3261 §18: SIP over TCP and TLS: connections accepted and made, used again for whoever is at the other end, each with
//! a bounded queue, and ended when they idle, stall or bring what is no SIP.

use super::connection::{Connection, End, Flushed, State};
use super::lanes::{Mark, Peer};
use super::op::{self, Op};
use super::sockets::{self, Bound};
use super::tls::Session;
use crate::base::clock::{Duration, Instant};
use crate::base::slab::{Key, Slab};
use crate::base::transport::{Flow, Transport};
use crate::config::Limits;
use crate::io::ring::{Group, Plain};
use crate::io::tls::Tls;
use crate::limits;
use crate::sip::frame::{self, Broken, Frame};
use socket2::{SockAddr, Socket};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What became of a message for a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queued {
    Open,
    /// The peer has shut its sending side, or closed altogether: which of the two, only a write would tell.
    HalfClosed,
    Gone,
}

/// The TCP and TLS side of a core.
pub struct Tcp {
    core: u8,
    listeners: Vec<Bound>,
    table: Slab<Connection>,
    /// Connections that requests to an address may use again (RFC 3261 §18.1.1).
    by_peer: HashMap<(Transport, SocketAddr), Key>,
    accepted_from: HashMap<IpAddr, usize>,
    dirty: Vec<Key>,
    /// Connections whose sockets held more than a turn took.
    crowded: Vec<Key>,
    receive_group: Group,
    tls: Option<Tls>,
    /// Operations for the ring; the engine takes them.
    pub wanted: Vec<Plain>,
    /// Messages that will never go out; the engine tells the shard.
    pub failed: Vec<Mark>,
    /// Connections ended, by cause.
    pub ended: BTreeMap<End, u64>,
    /// Connections that were not taken: too many of one address or in all; too many handshakes.
    pub refused: u64,
    /// Connections that are to go to another process.
    given: usize,
    pub handshakes_refused: u64,
    /// TLS handshakes under way.
    handshakes: usize,
    limits: Limits,
    plain: Vec<u8>,
    message_max: usize,
}

impl Tcp {
    /// Takes the listening sockets of a core; `receive_group` are the buffers connections receive into.
    pub fn new(
        core: u8,
        listeners: Vec<Bound>,
        receive_group: Group,
        tls: Option<Tls>,
        message_max: usize,
        limits: Limits,
    ) -> Self {
        Self {
            core,
            listeners,
            table: Slab::with_capacity(limits::SIP_CONNECTIONS_MAX),
            by_peer: HashMap::new(),
            accepted_from: HashMap::new(),
            dirty: Vec::new(),
            crowded: Vec::new(),
            receive_group,
            tls,
            wanted: Vec::new(),
            failed: Vec::new(),
            ended: BTreeMap::new(),
            refused: 0,
            given: 0,
            handshakes_refused: 0,
            handshakes: 0,
            limits,
            plain: Vec::new(),
            message_max,
        }
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.table.len()
    }

    /// Connections made from now on use these certificates; running ones keep theirs.
    pub fn reload(&mut self, tls: Option<Tls>, message_max: usize, limits: Limits) {
        self.limits = limits;
        self.tls = tls;
        self.message_max = message_max;
    }

    /// Arms the accepting of every listening socket.
    pub fn listen(&mut self) {
        for listener in 0..self.listeners.len() {
            self.accept(listener);
        }
    }

    /// Arms the accepting of one listening socket.
    pub fn accept(&mut self, listener: usize) {
        let fd = self.listeners[listener].socket.as_raw_fd();
        self.wanted.push(Plain::accept(fd, op::name(Op::Accept, listener as u32, 0)));
    }

    /// Listening sockets.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Stops receiving on every connection that another process can go on with: TLS keeps its keys in this one.
    pub fn begin_giving(&mut self) {
        let all: Vec<Key> = self.table.iter().map(|(key, _)| key).collect();
        for key in all {
            let Some(connection) = self.table.get_mut(key) else { continue };
            let open = matches!(connection.state, State::Open) && connection.tls.is_none() && connection.backlog() == 0;
            if open && connection.framer.beginning().is_some() {
                connection.given = true;
                self.given += 1;
                let receiving = op::name(Op::Receive, key.slot() as u32, key.generation());
                self.wanted.push(Plain::cancel(receiving, op::name(Op::Cancel, 0, 0)));
            }
        }
    }

    /// Connections that have not gone yet.
    pub fn giving(&self) -> usize {
        self.given
    }

    /// Whether a connection is to go.
    pub fn is_given(&self, key: Key) -> bool {
        self.table.get(key).is_some_and(|connection| connection.given)
    }

    /// Takes a connection out that is to go, with the beginning of a message. What is still queued for it does not go along: where
    /// something is, the connection ends instead.
    pub fn give(&mut self, key: Key) -> Option<(Flow, Socket, Vec<u8>)> {
        self.flush_one(key);
        let connection = self.table.get(key)?;
        let beginning = connection.framer.beginning().filter(|_| connection.backlog() == 0).map(<[u8]>::to_vec);
        let Some(beginning) = beginning else {
            self.close(key, End::Stopped);
            return None;
        };
        let flow = flow(self.core, key, connection);
        let connection = self.remove(key)?;
        Some((flow, connection.socket, beginning))
    }

    /// A connection of another process goes on here, with the beginning of a message that came on it there.
    pub fn adopt(&mut self, now: Instant, flow: Flow, socket: OwnedFd, beginning: &[u8]) -> Option<Key> {
        let mut connection =
            Connection::new(socket.into(), flow.transport, flow.listener, flow.peer, State::Open, self.message_max, now);
        connection.framer.feed(beginning);
        connection.half_since = (!beginning.is_empty()).then_some(now);
        let Ok(key) = self.table.insert(connection) else {
            self.refused += 1;
            return None;
        };
        self.by_peer.entry((flow.transport, flow.peer)).or_insert(key);
        self.receive(key);
        Some(key)
    }

    /// The key of the connection a completion is about, if it still is.
    pub fn find(&self, slot: u32, generation: u32) -> Option<Key> {
        self.table.key_at(slot).filter(|key| op::same(generation, key.generation()))
    }

    /// A connection was accepted. `believed`: its peer is one of `sip.trusted`, which has no limit of its own. Its peer, and why it
    /// was closed at once, where it was.
    pub fn accepted(
        &mut self,
        now: Instant,
        listener: usize,
        fd: RawFd,
        believed: impl Fn(IpAddr) -> bool,
    ) -> Option<(SocketAddr, &'static str)> {
        // SAFETY: the descriptor is new from the kernel's accept and nobody else has it.
        let socket = unsafe { Socket::from_raw_fd(fd) };
        let peer = socket.peer_addr().ok()?.as_socket()?;
        let (transport, index) = (self.listeners[listener].transport, self.listeners[listener].listener);
        let count = self.accepted_from.get(&peer.ip()).copied().unwrap_or(0);
        if count >= self.limits.connections_per_peer && !believed(peer.ip()) {
            self.refused += 1;
            return Some((peer, "limits.connections_per_peer"));
        }
        if transport == Transport::Tls && self.handshakes >= self.limits.handshakes {
            self.handshakes_refused += 1;
            return Some((peer, "limits.handshakes"));
        }
        sockets::tune(&socket);
        let mut connection = Connection::new(socket, transport, index, peer, State::Open, self.message_max, now);
        connection.accepted = true;
        if transport == Transport::Tls {
            let Some(session) = self.tls.as_ref().and_then(|tls| Session::server(&tls.server).ok()) else {
                self.refused += 1;
                return Some((peer, "no certificate"));
            };
            connection.tls = Some(Box::new(session));
            connection.handshaking = true;
        }
        match self.table.insert(connection) {
            Ok(key) => {
                *self.accepted_from.entry(peer.ip()).or_insert(0) += 1;
                self.handshakes += usize::from(transport == Transport::Tls);
                self.by_peer.insert((transport, peer), key);
                self.receive(key);
                None
            }
            Err(_) => {
                self.refused += 1;
                Some((peer, "connections of a core"))
            }
        }
    }

    /// Arms the receiving of a connection.
    pub fn receive(&mut self, key: Key) {
        let Some(connection) = self.table.get(key) else { return };
        let name = op::name(Op::Receive, key.slot() as u32, key.generation());
        self.wanted.push(Plain::receive(connection.socket.as_raw_fd(), self.receive_group, None, name));
    }

    /// Octets of a connection were taken from the kernel, which had them at `now`; `more`: and others. Since when they are known to
    /// have waited there.
    pub fn taken(&mut self, now: Instant, key: Key, octets: usize, more: bool) -> Instant {
        let Some(connection) = self.table.get_mut(key) else { return now };
        if more {
            self.crowded.push(key);
        }
        connection.taken(now, octets)
    }

    /// All completions of a turn are taken: what is still in the sockets waits.
    pub fn leave(&mut self, now: Instant) {
        for key in self.crowded.drain(..) {
            if let Some(connection) = self.table.get_mut(key) {
                connection.leaves(now);
            }
        }
    }

    /// Octets came in. Every whole message, and every head of a message that cannot be taken, is handed to `deliver`.
    pub fn received(&mut self, now: Instant, key: Key, octets: &[u8], mut deliver: impl FnMut(Flow, Result<&[u8], Broken<'_>>)) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if matches!(connection.state, State::Finishing { .. }) {
            return;
        }
        self.plain.clear();
        let octets = match connection.decipher(octets, &mut self.plain) {
            None => octets,
            Some(Ok(())) => &self.plain,
            // The alert that rustls wrote still goes out.
            Some(Err(_)) => return self.finish(now, key, End::Tls, false),
        };
        if connection.handshaking && connection.tls.as_ref().is_some_and(|session| !session.is_handshaking()) {
            connection.handshaking = false;
            self.handshakes -= 1;
        }
        connection.framer.feed(octets);
        let flow = flow(self.core, key, connection);
        let (mut pings, mut whole, mut fatal) = (0, false, false);
        loop {
            match connection.framer.next() {
                Ok(None) => break,
                Ok(Some(Frame::Ping)) => pings += 1,
                Ok(Some(Frame::Message(message))) => {
                    whole = true;
                    deliver(flow, Ok(message));
                }
                Err(broken) => {
                    fatal |= broken.fault.fatal();
                    deliver(flow, Err(broken));
                }
            }
        }
        connection.framer.settle();
        for _ in 0..pings {
            // RFC 5626 §3.5.1: a double CRLF asks for a single one.
            let _ = connection.push(frame::PONG, Mark::NONE);
        }
        if whole || pings > 0 {
            connection.last = now;
        }
        // The clock of an unfinished message starts with its first octet, however slowly the others follow.
        connection.half_since = match connection.half_since {
            _ if connection.framer.pending() == 0 => None,
            Some(since) if !whole => Some(since),
            _ => Some(now),
        };
        if connection.backlog() > 0 {
            mark_dirty(&mut self.dirty, key, connection);
        }
        if fatal {
            self.finish(now, key, End::Malformed, whole);
        }
    }

    /// Reads no more from a connection; what is queued, and what this turn still queues for it, goes out, then it ends. With
    /// `answering` a request came just before what is wrong: its answer has a moment to come.
    fn finish(&mut self, now: Instant, key: Key, end: End, answering: bool) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.state = State::Finishing { since: now, answering };
        mark_dirty(&mut self.dirty, key, connection);
        *self.ended.entry(end).or_insert(0) += 1;
        if self.by_peer.get(&(connection.transport, connection.peer)) == Some(&key) {
            self.by_peer.remove(&(connection.transport, connection.peer));
        }
    }

    /// The peer shut its sending side.
    pub fn ended_by_peer(&mut self, now: Instant, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if matches!(connection.state, State::Finishing { .. }) {
            return self.close(key, End::Peer);
        }
        let address = (connection.transport, connection.peer);
        // A peer that asked a moment ago and shut its side may still read the answer.
        if connection.tls.is_none() && now.since(connection.last) < limits::SIP_HALF_CLOSED_MAX {
            connection.state = State::HalfClosed { since: now };
            if self.by_peer.get(&address) == Some(&key) {
                self.by_peer.remove(&address);
            }
        } else {
            self.close(key, End::Peer);
        }
    }

    /// The connection has room, or is established, or failed.
    pub fn writable(&mut self, now: Instant, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        connection.polling = false;
        if matches!(connection.state, State::Connecting { .. }) {
            if !matches!(connection.socket.take_error(), Ok(None)) || connection.socket.peer_addr().is_err() {
                return self.close(key, End::Refused);
            }
            connection.state = State::Open;
            connection.last = now;
            connection.greet();
            self.receive(key);
        }
        self.flush_one(key);
    }

    /// Queues a message on a connection that is open, or that is being closed and has asked before.
    pub fn send_on(&mut self, now: Instant, connection: u64, octets: &[u8], mark: Mark) -> Queued {
        let key = Key::from_u64(connection);
        let Some(connection) = self.table.get_mut(key) else { return Queued::Gone };
        if connection.backlog() + octets.len() > limits::SIP_SEND_QUEUE_OCTETS_MAX || connection.push(octets, mark).is_err() {
            // RFC 3261 §18.4: a peer that does not read has no connection.
            self.failed.push(mark);
            self.close(key, End::Overflow);
            return Queued::Open;
        }
        connection.last = now;
        mark_dirty(&mut self.dirty, key, connection);
        if matches!(connection.state, State::HalfClosed { .. }) { Queued::HalfClosed } else { Queued::Open }
    }

    /// Whether who is at the other end has said all, or is gone.
    pub fn peer_has_ended(&self, connection: u64) -> bool {
        self.table.get(Key::from_u64(connection)).is_some_and(Connection::peer_has_ended)
    }

    /// Our address on a connection.
    pub fn local(&self, connection: u64) -> Option<SocketAddr> {
        self.table.get(Key::from_u64(connection))?.socket.local_addr().ok()?.as_socket()
    }

    /// Our address on the connection to a peer, where there is one.
    pub fn local_towards(&self, to: &Peer) -> Option<SocketAddr> {
        self.local(self.by_peer.get(&(to.transport, to.address))?.as_u64())
    }

    /// Queues a message for an address, over the connection that is there or a new one (RFC 3261 §18.1.1).
    pub fn send_to(&mut self, now: Instant, to: &Peer, octets: &[u8], mark: Mark) {
        let open = self.by_peer.get(&(to.transport, to.address)).copied();
        if let Some(key) = open
            && self.send_on(now, key.as_u64(), octets, mark) != Queued::Gone
        {
            return;
        }
        match self.connect(now, to) {
            Some(key) => {
                self.send_on(now, key.as_u64(), octets, mark);
            }
            None => self.failed.push(mark),
        }
    }

    fn connect(&mut self, now: Instant, to: &Peer) -> Option<Key> {
        let same_family = |bound: &&Bound| bound.address.is_ipv4() == to.address.is_ipv4();
        let ours = self.listeners.iter().filter(same_family).find(|bound| bound.transport == to.transport);
        let ours = ours.or_else(|| self.listeners.iter().find(same_family));
        let socket = sockets::outgoing(to.address, ours.map(|bound| bound.address)).ok()?;
        let listener = ours.map_or(0, |bound| bound.listener);
        let session = match to.transport {
            Transport::Tls => Some(Session::client(&self.tls.as_ref()?.client, to.server_name.as_deref(), to.address).ok()?),
            _ => None,
        };
        match socket.connect(&SockAddr::from(to.address)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(_) => return None,
        }
        let state = State::Connecting { since: now };
        let mut connection = Connection::new(socket, to.transport, listener, to.address, state, self.message_max, now);
        connection.tls = session.map(Box::new);
        let key = self.table.insert(connection).ok()?;
        self.by_peer.insert((to.transport, to.address), key);
        self.poll(key);
        Some(key)
    }

    fn poll(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key).filter(|connection| !connection.polling) else { return };
        connection.polling = true;
        let name = op::name(Op::Writable, key.slot() as u32, key.generation());
        self.wanted.push(Plain::poll(connection.socket.as_raw_fd(), libc::POLLOUT, name));
    }

    /// Writes out what the turn has queued.
    pub fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(connection) = self.table.get_mut(key) {
                connection.dirty = false;
                self.flush_one(key);
            }
        }
        self.dirty = dirty;
    }

    fn flush_one(&mut self, key: Key) {
        let Some(connection) = self.table.get_mut(key) else { return };
        if matches!(connection.state, State::Connecting { .. }) || connection.polling {
            return;
        }
        match connection.flush() {
            Flushed::All if matches!(connection.state, State::Finishing { answering: false, .. }) => {
                // Our side is shut; the peer reads what we said, and closes. The sweep waits for a moment at most.
                let _ = connection.socket.shutdown(std::net::Shutdown::Write);
            }
            Flushed::All => {}
            Flushed::Full => self.poll(key),
            Flushed::Broken(_) => self.close(key, End::Broken),
        }
    }

    /// Takes a connection out of all tables.
    fn remove(&mut self, key: Key) -> Option<Connection> {
        let connection = self.table.remove(key)?;
        self.given -= usize::from(connection.given);
        self.handshakes -= usize::from(connection.handshaking);
        let address = (connection.transport, connection.peer);
        if self.by_peer.get(&address) == Some(&key) {
            self.by_peer.remove(&address);
        }
        if connection.accepted
            && let Some(count) = self.accepted_from.get_mut(&connection.peer.ip())
        {
            *count -= 1;
            if *count == 0 {
                self.accepted_from.remove(&connection.peer.ip());
            }
        }
        Some(connection)
    }

    /// Ends a connection at once; what it had queued has failed.
    pub fn close(&mut self, key: Key, end: End) {
        let Some(mut connection) = self.remove(key) else { return };
        if !matches!(connection.state, State::Finishing { .. }) {
            *self.ended.entry(end).or_insert(0) += 1;
        }
        self.failed.extend(connection.unsent());
        if matches!(end, End::Overflow | End::HalfMessage | End::Broken) {
            // What is queued in the kernel for a peer that does not read would keep the socket for minutes: it is reset.
            let _ = connection.socket.set_linger(Some(Duration::ZERO));
        } else if matches!(connection.state, State::Open | State::HalfClosed { .. }) {
            connection.bid_farewell();
        }
        // Operations under way hold the socket until they end; this ends them.
        let _ = connection.socket.shutdown(std::net::Shutdown::Both);
        tracing::debug!(peer = %connection.peer, transport = connection.transport.as_via(), ?end, "connection ended");
    }

    /// Ends what has waited too long. To be called about twice a second while there are connections.
    pub fn sweep(&mut self, now: Instant) {
        let over = |since: Instant, limit: Duration| now.since(since) > limit;
        let due: Vec<(Key, End)> = self
            .table
            .iter()
            .filter_map(|(key, connection)| {
                let end = match connection.state {
                    State::Connecting { since } => over(since, limits::SIP_CONNECT_MAX).then_some(End::ConnectTimeout),
                    State::HalfClosed { since } => over(since, limits::SIP_HALF_CLOSED_MAX).then_some(End::Peer),
                    State::Finishing { since, .. } => over(since, limits::SIP_HALF_CLOSED_MAX).then_some(End::Malformed),
                    State::Open if connection.half_since.is_some_and(|since| over(since, self.limits.opening_timeout)) => {
                        Some(End::HalfMessage)
                    }
                    State::Open if connection.tls.as_ref().is_some_and(|session| session.is_handshaking()) => {
                        over(connection.last, self.limits.opening_timeout).then_some(End::Tls)
                    }
                    State::Open => over(connection.last, limits::SIP_IDLE_MAX).then_some(End::Idle),
                };
                end.map(|end| (key, end))
            })
            .collect();
        for (key, end) in due {
            self.close(key, end);
        }
    }

    /// Ends all connections.
    pub fn stop(&mut self) {
        let all: Vec<Key> = self.table.iter().map(|(key, _)| key).collect();
        for key in all {
            self.close(key, End::Stopped);
        }
    }
}

fn flow(core: u8, key: Key, connection: &Connection) -> Flow {
    Flow { transport: connection.transport, core, listener: connection.listener, connection: key.as_u64(), peer: connection.peer }
}

fn mark_dirty(dirty: &mut Vec<Key>, key: Key, connection: &mut Connection) {
    if !connection.dirty {
        connection.dirty = true;
        dirty.push(key);
    }
}
