//! RFC 3261 §18: one TCP or TLS connection: what came in and is not whole yet, what is to go out and has not gone.

use super::lanes::Mark;
use super::tls::Session;
use crate::base::clock::Instant;
use crate::base::transport::Transport;
use crate::io::faults;
use crate::sip::frame::Framer;
use socket2::Socket;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Our SYN is under way.
    Connecting {
        since: Instant,
    },
    Open,
    /// The peer has shut its sending side; answers still go out for a moment.
    HalfClosed {
        since: Instant,
    },
    /// Closed by us as soon as what is queued has gone, or a moment later.
    Finishing {
        since: Instant,
        /// Answers to requests that came before may still follow for a moment.
        answering: bool,
    },
}

/// Why a connection ends; a label of its metric.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    Peer,
    Refused,
    ConnectTimeout,
    Idle,
    HalfMessage,
    Malformed,
    Overflow,
    Tls,
    Broken,
    Stopped,
}

impl End {
    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            End::Peer => "closed-by-peer",
            End::Refused => "connect-refused",
            End::ConnectTimeout => "connect-timeout",
            End::Idle => "idle",
            End::HalfMessage => "half-message",
            End::Malformed => "malformed",
            End::Overflow => "send-queue-overflow",
            End::Tls => "tls",
            End::Broken => "broken",
            End::Stopped => "stopped",
        }
    }
}

/// A connection of this core.
pub struct Connection {
    pub socket: Socket,
    pub transport: Transport,
    pub listener: u8,
    pub peer: SocketAddr,
    pub accepted: bool,
    pub state: State,
    /// Cuts messages out of what comes in; and since when the rest of one has been missing.
    pub framer: Framer,
    pub half_since: Option<Instant>,
    /// When something whole last came in or went out.
    pub last: Instant,
    queue: Vec<u8>,
    sent: usize,
    /// Octets queued in all, and who wants to hear when those up to a number could not be sent.
    queued_total: u64,
    sent_total: u64,
    marks: VecDeque<(u64, Mark)>,
    /// What lay in the socket when a turn could not take all of it.
    left: Option<Left>,
    /// A poll for room is under way.
    pub polling: bool,
    pub dirty: bool,
    /// It goes to the process that took over as soon as nothing is received on it any more.
    pub given: bool,
    pub tls: Option<Box<Session>>,
    /// It was accepted and its TLS handshake is not done: one of those that `limits.handshakes` bounds.
    pub handshaking: bool,
}

/// So many octets more of a stream had come at that time.
#[derive(Clone, Copy, Debug)]
struct Left {
    at: Instant,
    octets: usize,
}

/// What a flush came to.
#[derive(Debug)]
pub enum Flushed {
    All,
    /// The kernel's buffer is full; room is to be polled for.
    Full,
    Broken(io::Error),
}

impl Connection {
    /// A connection over a socket that is open or about to be.
    pub fn new(
        socket: Socket,
        transport: Transport,
        listener: u8,
        peer: SocketAddr,
        state: State,
        message_max: usize,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            transport,
            listener,
            peer,
            accepted: false,
            state,
            framer: Framer::new(message_max),
            half_since: None,
            last: now,
            queue: Vec::new(),
            sent: 0,
            queued_total: 0,
            sent_total: 0,
            marks: VecDeque::new(),
            left: None,
            polling: false,
            dirty: false,
            given: false,
            tls: None,
            handshaking: false,
        }
    }

    /// Octets came out of the socket, where they were at `now`: since when they are known to have been there.
    pub fn taken(&mut self, now: Instant, octets: usize) -> Instant {
        let Some(left) = &mut self.left else { return now };
        let since = left.at;
        left.octets = left.octets.saturating_sub(octets);
        if left.octets == 0 {
            self.left = None;
        }
        since
    }

    /// A turn took not all there was: what is left waits from now on, if it does not already.
    pub fn leaves(&mut self, now: Instant) {
        if self.left.is_none() {
            self.left = unread(self.socket.as_raw_fd()).filter(|octets| *octets > 0).map(|octets| Left { at: now, octets });
        }
    }

    /// Whether the peer has shut its sending side, or closed, as far as the kernel knows; a completion may not have told it yet.
    pub fn peer_has_ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: the kernel writes into this one structure, which lives until the call returns.
        let found = unsafe { libc::poll(&raw mut poll, 1, 0) };
        found > 0 && poll.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
    }

    /// Octets that wait to be sent.
    pub fn backlog(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Queues a message, ciphered where this is TLS.
    pub fn push(&mut self, octets: &[u8], mark: Mark) -> Result<(), rustls::Error> {
        match &mut self.tls {
            None => self.queue.extend_from_slice(octets),
            Some(session) => session.send(octets, &mut self.queue)?,
        }
        self.queued_total += octets.len() as u64;
        if mark.wanted() {
            self.marks.push_back((self.queued_total, mark));
        }
        Ok(())
    }

    /// Takes what came in through TLS; what is to go out for it (handshake, alerts) is queued. None: this is not TLS.
    pub fn decipher(&mut self, octets: &[u8], plain: &mut Vec<u8>) -> Option<Result<(), rustls::Error>> {
        let session = self.tls.as_mut()?;
        Some(session.receive(octets, plain, &mut self.queue))
    }

    /// Starts the handshake, where there is one to start.
    pub fn greet(&mut self) {
        if let Some(session) = &mut self.tls {
            session.output(&mut self.queue);
        }
    }

    /// Tells the peer of a TLS connection that this is the end, as far as the kernel takes it now.
    pub fn bid_farewell(&mut self) {
        if let Some(session) = &mut self.tls {
            session.close(&mut self.queue);
            // A peer that does not read sees the end of the stream alone.
            let _ = self.flush();
        }
    }

    /// Writes as much of the queue as the kernel takes.
    pub fn flush(&mut self) -> Flushed {
        while self.sent < self.queue.len() {
            let rest = &self.queue[self.sent..];
            match faults::errno() {
                Some(libc::EAGAIN) => return self.partly(),
                Some(_) => continue,
                None => {}
            }
            let rest = &rest[..faults::offered(rest.len())];
            // SAFETY: `rest` lives until the call returns; the kernel only reads it.
            let sent = unsafe {
                let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
                libc::send(self.socket.as_raw_fd(), rest.as_ptr().cast(), rest.len(), flags)
            };
            match usize::try_from(sent) {
                Ok(sent) => self.sent += sent,
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error if error.kind() == io::ErrorKind::WouldBlock => return self.partly(),
                    error => return Flushed::Broken(error),
                },
            }
        }
        self.queue.clear();
        self.queue.shrink_to(64 * 1024);
        self.sent = 0;
        if self.tls.as_ref().is_none_or(|session| !session.is_handshaking()) {
            self.sent_total = self.queued_total;
            self.marks.clear();
        }
        Flushed::All
    }

    fn partly(&mut self) -> Flushed {
        self.queue.drain(..self.sent);
        if self.tls.is_none() {
            self.sent_total += self.sent as u64;
            while self.marks.front().is_some_and(|(end, _)| *end <= self.sent_total) {
                self.marks.pop_front();
            }
        }
        self.sent = 0;
        Flushed::Full
    }

    /// Who is to hear that what they sent has not gone out.
    pub fn unsent(&mut self) -> impl Iterator<Item = Mark> + '_ {
        self.marks.drain(..).map(|(_, mark)| mark)
    }
}

/// Octets that a socket holds and nobody has read.
fn unread(fd: RawFd) -> Option<usize> {
    let mut octets: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which lives until the call returns.
    let done = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut octets) };
    usize::try_from(octets).ok().filter(|_| done == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Duration;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    /// A connection, and its peer's end.
    fn connected() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, from) = listener.accept().unwrap();
        let now = Instant::from_unix_s(1);
        (Connection::new(socket.into(), Transport::Tcp, 0, from, State::Open, 4096, now), peer)
    }

    #[test]
    fn what_a_turn_leaves_in_a_socket_has_waited_since_then() {
        let (mut connection, mut peer) = connected();
        let at = |ms| Instant::from_unix_s(2) + Duration::from_millis(ms);
        connection.leaves(at(0));
        assert_eq!(connection.taken(at(1), 10), at(1), "nothing was left");
        peer.write_all(&[b'x'; 100]).unwrap();
        while unread(connection.socket.as_raw_fd()) != Some(100) {
            std::thread::yield_now();
        }
        connection.leaves(at(2));
        connection.leaves(at(3));
        assert_eq!(connection.taken(at(4), 60), at(2), "it was there when a turn ended first");
        assert_eq!(connection.taken(at(5), 41), at(2));
        assert_eq!(connection.taken(at(6), 1), at(6), "what came after is new");
    }

    #[test]
    fn the_end_of_a_peer_is_seen_before_it_is_read() {
        let (connection, mut peer) = connected();
        assert!(!connection.peer_has_ended());
        peer.write_all(b"something unread").unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        while !connection.peer_has_ended() {
            std::thread::yield_now();
        }
    }
}
