//! Sending: one system call for each connection at the end of a turn, straight from the buffers the octets came in on.
//!
//! A send through the ring would run in the next turn's wait, right before the receives that follow: the buffers would come
//! back a turn later, and twice as many of them would pass through the cache (measured: 0.79 of the CPU time with direct
//! sends). So the ring only tells when a socket that was full takes octets again.

use super::buffers::Buffers;
use super::connection::{Finish, Stage};
use super::engine::{Due, Engine};
use super::op;
use super::queue::{PIECES_MAX, Queue};
use super::zero_copy::ZeroCopy;
use crate::base::slab::Key;
use crate::io::faults;
use crate::shard::media_outbox::{Connection, Gone};
use std::io::{self, IoSlice};
use std::os::fd::RawFd;

/// Octets left over that are copied at once instead of holding a buffer for them.
const COPY_AT_ONCE: usize = 4 * 1024;
/// Octets of plaintext sealed ahead of the socket.
const SEALED_AHEAD: usize = 64 * 1024;
/// Octets offered to a socket at once: more than any takes.
pub(super) const OFFERED_MAX: usize = 4 * 1024 * 1024;

/// Octets of several pieces that are put together before they are sent.
const COPY_TO_SEND: usize = 1024;

/// How a send went.
enum Sent {
    All(usize),
    /// The socket is full after so many.
    Short(usize),
    Broken,
}

impl Engine {
    /// Sends what is queued for a connection, as far as its socket takes it.
    pub(super) fn flush(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.dirty = false;
        while self.flush_some(key) {}
        let Some(link) = self.links.get_mut(key) else { return };
        if link.queue.is_empty() && link.finish == Finish::No {
            return;
        }
        if link.queue.octets() <= COPY_AT_ONCE || link.stage != Stage::Open {
            self.counts.octets_copied_out += link.queue.copy_out(&self.out.octets, &mut self.buffers) as u64;
        } else if link.queue.holds_buffers() && link.blocked.is_some() && !std::mem::replace(&mut link.stuck, true) {
            self.stuck.push_back(key);
        }
        link.queue.keep(&self.out.octets);
        if link.finish == Finish::Asked && link.closing.is_none() && link.stage == Stage::Open {
            self.finish_now(key);
        }
    }

    /// One send; whether there may be something for another.
    fn flush_some(&mut self, key: Key) -> bool {
        let Some(link) = self.links.get_mut(key) else { return false };
        if link.closing.is_some()
            || link.blocked.is_some()
            || link.stage == Stage::Connecting
            || link.zero_copy == ZeroCopy::UnderWay
        {
            return false;
        }
        if self.zero_copies.wanted() && self.send_zero_copy(key) {
            return false;
        }
        let link = self.links.get_mut(key).expect("a send takes no link away");
        if link.tls.is_some() {
            self.seal(key);
        }
        let link = self.links.get_mut(key).expect("sealing takes no link away");
        let queue = link.tls.as_ref().map_or(&link.queue, |tls| &tls.sealed);
        if queue.is_empty() {
            return false;
        }
        self.counts.sends += 1;
        let sent = send(link.fd(), queue, &self.buffers, &self.out.octets, &mut self.counts.octets_joined);
        let (octets, more) = match sent {
            Sent::All(octets) => (octets, true),
            Sent::Short(octets) => (octets, false),
            Sent::Broken => {
                self.close(key, Gone::Broken);
                return false;
            }
        };
        self.counts.octets_out += octets as u64;
        if !more {
            self.counts.sends_short += 1;
            self.wait_for_room(key);
        }
        self.has_sent(key, octets);
        more && self.links.get(key).is_some_and(|link| !link.drained())
    }

    /// The socket is full: nothing more is sent until the ring tells that it takes octets again.
    pub(super) fn wait_for_room(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        link.blocked = Some(self.now);
        link.under_way += 1;
        let operation = op::writable::arm(link.fd(), key);
        self.submit(&operation);
    }

    /// Octets have left: lets go of them, and tells the shard of those that were its own.
    pub(super) fn has_sent(&mut self, key: Key, octets: usize) {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        let plain = match &mut link.tls {
            None => {
                link.queue.sent(octets, &mut self.buffers);
                octets
            }
            Some(tls) => {
                tls.sealed.sent(octets, &mut self.buffers);
                let (mut left, mut plain) = (octets, 0);
                while let Some((sealed, debt)) = tls.debts.front_mut() {
                    if *sealed > left {
                        *sealed -= left;
                        break;
                    }
                    left -= *sealed;
                    plain += *debt;
                    tls.debts.pop_front();
                }
                plain
            }
        };
        let connection = link.connection;
        if let Some(connection) = connection.filter(|_| plain > 0) {
            self.shard.written(self.clock.now(), connection, plain, &mut self.out);
            self.carry_out();
        }
    }

    /// The socket takes octets again, or is broken.
    pub(super) fn writable(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("completions find a link that is there");
        link.blocked = None;
        link.under_way -= 1;
        if link.closing.is_some() {
            self.bury_when_quiet(key);
        } else if link.handing.is_some() {
            self.send_handed(key);
        } else {
            self.touch(key);
        }
    }

    /// Send what is queued, then close.
    pub(super) fn finish(&mut self, connection: Connection) {
        let Some(key) = self.links.of(connection) else { return };
        let link = self.links.get_mut(key).expect("named links are in the table");
        if link.finish != Finish::No || link.closing.is_some() {
            return;
        }
        if link.stage != Stage::Open {
            return self.close(key, Gone::Closed);
        }
        link.finish = Finish::Asked;
        link.paused = false;
        if let Some(timer) = link.timer.take() {
            self.timers.cancel(timer);
        }
        link.timer = Some(self.timers.arm(self.now + crate::limits::MSRP_CLOSE_WAIT, Due::Finish(key)));
        self.arm(key);
        self.touch(key);
    }

    /// The queue may be empty: shuts down our sending side, and closes where the peer has closed already.
    fn finish_now(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        if !link.queue.is_empty() {
            return;
        }
        link.finish = Finish::Done;
        if let Some(tls) = &mut link.tls {
            let mut sealed = Vec::new();
            tls.session.close(&mut sealed);
            tls.sealed.push_own(sealed.into());
            while self.flush_some(key) {}
        }
        let Some(link) = self.links.get_mut(key).filter(|link| link.closing.is_none()) else { return };
        if !link.drained() {
            // The close_notify did not fit: again when the socket takes it.
            link.finish = Finish::Asked;
            return;
        }
        // SAFETY: a plain call on a descriptor that we own.
        unsafe { libc::shutdown(link.fd(), libc::SHUT_WR) };
        if link.ended {
            self.close(key, Gone::Closed);
        }
    }

    /// Closes a connection: drops its queue, ends what is under way, and buries it when all of that is done.
    pub(super) fn close(&mut self, key: Key, why: Gone) {
        let Some(link) = self.links.get_mut(key).filter(|link| link.closing.is_none()) else { return };
        let fd = link.fd();
        link.closing = Some(why);
        link.handing = None;
        link.queue.clear(&mut self.buffers);
        if let Some(tls) = &mut link.tls {
            // A last alert or close_notify goes if it goes at once.
            if !tls.sealed.is_empty() && link.blocked.is_none() && link.stage != Stage::Connecting {
                send(fd, &tls.sealed, &self.buffers, &[], &mut self.counts.octets_joined);
            }
            tls.sealed.clear(&mut self.buffers);
        }
        if let Some(timer) = link.timer.take() {
            self.timers.cancel(timer);
        }
        if link.stage == Stage::Handshake {
            self.handshakes -= 1;
        }
        if link.stage == Stage::Connecting {
            self.submit(&op::cancel(op::Kind::Connect, key));
        }
        // SAFETY: a plain call on a descriptor that we own. It ends an armed receive and a poll, and sends the FIN that a bare
        // close would not send while they hold the file.
        unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
        self.bury_when_quiet(key);
    }

    /// Buries a closing connection at the end of the turn if nothing of it is under way any more.
    pub(super) fn bury_when_quiet(&mut self, key: Key) {
        if self.links.get(key).is_some_and(|link| link.closing.is_some() && link.under_way == 0) {
            self.graves.push(key);
        }
    }

    /// Closes the descriptor and says the last word.
    pub(super) fn bury(&mut self, key: Key) {
        let Some(link) = self.links.remove(key) else { return };
        let (connection, why) = (link.connection, link.closing.unwrap_or(Gone::Closed));
        self.captured.forget(key);
        drop(link);
        if let Some(connection) = connection {
            self.shard.gone(self.now, connection, why, &mut self.out);
            self.carry_out();
        }
    }

    /// Seals plaintext as long as what is sealed already is about to leave.
    fn seal(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        let Some(tls) = link.tls.as_mut().filter(|_| link.stage == Stage::Open) else { return };
        while !link.queue.is_empty() && tls.sealed.octets() < SEALED_AHEAD {
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            let (count, _) = link.queue.gather(&self.buffers, &self.out.octets, SEALED_AHEAD, &mut pieces);
            let mut sealed = Vec::new();
            let plain = tls.session.seal(&pieces[..count], &mut sealed);
            if plain == 0 {
                return;
            }
            link.queue.sent(plain, &mut self.buffers);
            tls.debts.push_back((sealed.len(), plain));
            tls.sealed.push_own(sealed.into());
        }
    }
}

/// One system call that does not wait. `joined` counts octets that were put together for it.
fn send(socket: RawFd, queue: &Queue, buffers: &Buffers, turn: &[u8], joined: &mut u64) -> Sent {
    if faults::errno() == Some(libc::EAGAIN) {
        return Sent::Short(0);
    }
    let offered = faults::offered(OFFERED_MAX);
    if let Some((pipe, octets, more)) = queue.pipe_in_front() {
        return match pipe.give(socket, octets.min(offered), more) {
            Ok(sent) if sent == octets => Sent::All(sent),
            Ok(sent) => Sent::Short(sent),
            Err(error) if is_full(&error) => Sent::Short(0),
            Err(_) => Sent::Broken,
        };
    }
    let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
    let (mut count, octets) = queue.gather(buffers, turn, offered, &mut pieces);
    let more = if queue.pipe_follows(count) { libc::MSG_MORE } else { 0 };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more;
    // A chat message is a new head, a body and an end-line: to copy them costs less than to have the kernel walk them.
    let mut small;
    if count > 1 && octets <= COPY_TO_SEND {
        small = [0; COPY_TO_SEND];
        let mut at = 0;
        for piece in &pieces[..count] {
            small[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        (pieces[0], count) = (IoSlice::new(&small[..at]), 1);
        *joined += at as u64;
    }
    loop {
        let sent = if count == 1 {
            // SAFETY: the piece is borrowed until the call returns.
            unsafe { libc::send(socket, pieces[0].as_ptr().cast(), octets, flags) }
        } else {
            // SAFETY: `msghdr` is plain data of which all zeroes says "no name, no control data".
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            // `IoSlice` has the layout of an iovec; sendmsg only reads them.
            message.msg_iov = pieces.as_ptr().cast_mut().cast();
            message.msg_iovlen = count;
            // SAFETY: the header, its iovecs and their pieces are borrowed until the call returns.
            unsafe { libc::sendmsg(socket, &message, flags) }
        };
        if sent >= 0 {
            let sent = sent as usize;
            return if sent == octets && offered == OFFERED_MAX { Sent::All(sent) } else { Sent::Short(sent) };
        }
        let error = io::Error::last_os_error();
        if is_full(&error) {
            return Sent::Short(0);
        }
        if error.kind() != io::ErrorKind::Interrupted {
            return Sent::Broken;
        }
    }
}

/// The socket, or the kernel's memory, takes no more for now.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM))
}
