//! Long bodies that are looked at where they lie, in the socket, and passed on without coming out of the kernel.
//!
//! ```text
//!             recv(MSG_PEEK)                    the shard: no end-line up to here
//!   socket  ------------------> one hot buffer ---------------------------------------+
//!      |                                                                              |
//!      +-- splice, exactly what the shard sends on --> pipe -- splice, in flush --> socket
//!      +-- recv(MSG_TRUNC): what it does not (an end-line, the next head: those are copied)
//! ```
//! A relay that receives and sends has the kernel copy each octet twice, and the second copy goes to memory that is in no cache. Here
//! it is copied once, into a buffer that never leaves the cache. The shard sees the same octets as ever, in the same order, and
//! searches all of them; only where a piece that it sends lies in the hot buffer, the octets still in the socket go instead of it.
//!
//! Peeking is worth its calls only where much comes at a time: a connection that is in the group of bulk, a body of which much is
//! still announced, one taker, both connections in the clear, and nobody who captures. Where a pipe takes less than it was offered,
//! the rest is copied out of the hot buffer, as are pieces that are short.

use super::buffers::{BULK, CHAT};
use super::connection::{Link, Receiving, Stage};
use super::engine::Engine;
use super::op;
use super::pipe;
use crate::base::slab::Key;
use crate::shard::media_outbox::{Buffer, Gone};
use std::io::ErrorKind;
use std::ops::Range;

/// Octets that must still be announced for a body to be passed on; then it is, to its end.
const LEFT_MIN: u64 = 128 * 1024;
/// Octets looked at in one go: they stay in the second-level cache.
const PEEKED_MAX: usize = 256 * 1024;
/// Where less comes at a time, it is received as ever.
const WORTH_WHILE: usize = 16 * 1024;
/// Octets below which a copy costs less than the calls.
const PASSED_MIN: usize = 4 * 1024;
/// Octets behind an end-line that are copied: a head lies in them, as a rule.
const HEAD_OCTETS: usize = 1024;
/// Where in the hot buffer octets are put: the kernel copies badly to a place just behind its source, counted within their pages
/// (`io/ring.rs`), and what it has received begins a page more often than not.
const ASIDE: usize = 2048;

/// What a core needs for it.
#[derive(Default)]
pub struct Passing {
    /// The hot buffer; none before it is first needed.
    hot: Option<Buffer>,
    /// Whose octets are in it now, and up to where they are out of the socket.
    source: Option<(Key, u32)>,
}

impl Passing {
    /// Whether a piece of this buffer is still in a socket.
    pub fn is_peeked(&self, buffer: Buffer) -> bool {
        self.source.is_some() && self.hot == Some(buffer)
    }
}

impl Engine {
    /// Whether what this connection brings next is to be passed on that way.
    pub(super) fn passes(&self, key: Key) -> bool {
        let Some(link) = self.links.get(key).filter(|link| link.group == BULK && link.tls.is_none()) else { return false };
        let Some((to, left)) = link.connection.and_then(|connection| self.shard.passing(connection)) else { return false };
        let takes = |to: Key| self.links.get(to).is_some_and(|to| to.tls.is_none() && to.stage == Stage::Open);
        (link.passing || left >= LEFT_MIN)
            && self.captured.is_empty()
            && !self.zero_copies.wanted()
            && !self.config.cores.sqpoll
            && self.buffers.pipes.are_free()
            && self.links.of(to).is_some_and(takes)
    }

    /// Waits until there is something to look at.
    pub(super) fn watch(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        (link.receiving, link.passing) = (Receiving::Watched, true);
        (link.armed_at, link.received) = (self.now, 0);
        link.under_way += 1;
        let operation = op::readable::arm(link.fd(), key);
        self.submit(&operation);
    }

    /// There is something to look at, or the wait was cancelled.
    pub(super) fn readable(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("completions find a link that is there");
        link.receiving = Receiving::Idle;
        link.under_way -= 1;
        if link.may_receive() && self.passes(key) {
            self.pass_on(key);
        }
        self.after_receive(key);
    }

    /// Looks at what a connection has brought and passes it on, up to where something else than a long body begins.
    fn pass_on(&mut self, key: Key) {
        let hot = match self.passing.hot {
            Some(hot) => hot,
            None => *self.passing.hot.insert(self.buffers.heap(vec![0; ASIDE + PEEKED_MAX])),
        };
        let Some(link) = self.links.get_mut(key) else { return };
        let peeked = match pipe::peek(link.fd(), self.buffers.octets(hot, ASIDE as u32, PEEKED_MAX as u32)) {
            Ok(0) => return self.peer_ended(key),
            Ok(octets) => octets,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.close(key, Gone::Broken),
        };
        if peeked < WORTH_WHILE {
            link.group = CHAT;
        }
        self.passing.source = Some((key, ASIDE as u32));
        self.look_at(key, hot, ASIDE..ASIDE + peeked);
        let (_, upto) = self.passing.source.take().expect("set above");
        let octets = upto - ASIDE as u32;
        self.counts.receives += 1;
        self.counts.octets_in += u64::from(octets);
        if let Some(link) = self.links.get_mut(key) {
            self.gather.heard(octets, &mut link.window);
        }
    }

    /// Gives the shard what was peeked, body by body.
    fn look_at(&mut self, key: Key, hot: Buffer, peeked: Range<usize>) {
        let mut at = peeked.start;
        while at < peeked.end {
            let Some(connection) = self.links.get(key).and_then(|link| link.connection) else { return };
            let octets = self.buffers.octets(hot, at as u32, (peeked.end - at) as u32);
            let taken = self.shard.receive_body(self.now, connection, hot, octets, at as u32, &mut self.out);
            self.carry_out();
            at += taken;
            if !self.forget_upto(key, at) || taken == 0 || at == peeked.end || !self.may_receive(key) {
                return;
            }
            let head = at..peeked.end.min(at + HEAD_OCTETS);
            let mut octets = self.buffers.spare();
            octets.extend_from_slice(self.buffers.octets(hot, head.start as u32, head.len() as u32));
            let copied = self.buffers.heap(octets);
            at = head.end;
            if !self.forget_upto(key, at) {
                return self.buffers.release(copied);
            }
            self.deliver(key, copied, 0, head.len() as u32);
            self.buffers.release(copied);
            // What came behind the body that was being passed on is for that to be judged by itself.
            if let Some(link) = self.links.get_mut(key) {
                link.passing = false;
            }
            if !self.may_receive(key) || !self.passes(key) {
                return;
            }
            self.links.get_mut(key).expect("it passes").passing = true;
        }
    }

    /// Takes what was looked at and not passed on out of the socket; false: it is broken.
    fn forget_upto(&mut self, key: Key, upto: usize) -> bool {
        let Some((_, at)) = &mut self.passing.source else { return false };
        let octets = upto - std::mem::replace(at, upto as u32) as usize;
        let Some(link) = self.links.get(key).filter(|link| link.closing.is_none()) else { return false };
        let gone = pipe::forget(link.fd(), octets).is_ok();
        if !gone {
            self.close(key, Gone::Broken);
        }
        gone
    }

    /// A piece that lies in the hot buffer, and still in the socket it came from, goes to a connection's queue.
    pub(super) fn pass(&mut self, to: Key, hot: Buffer, octets: &Range<u32>) {
        let Some((from, upto)) = self.passing.source else { return };
        let mut at = octets.start;
        let fd = self.links.get(from).filter(|link| link.closing.is_none()).map(Link::fd);
        let link = self.links.get_mut(to).expect("the caller looked it up");
        if let Some(fd) = fd
            && at == upto
            && octets.len() >= PASSED_MIN
            && link.tls.is_none()
        {
            let taken = link.queue.take_from(fd, octets.len(), &mut self.buffers);
            at += taken as u32;
            self.passing.source = Some((from, at));
            self.counts.octets_passed += taken as u64;
            self.counts.passes += 1;
        }
        if at < octets.end {
            let mut rest = self.buffers.spare();
            rest.extend_from_slice(self.buffers.octets(hot, at, octets.end - at));
            let short = octets.len() < PASSED_MIN;
            let copied = if short { &mut self.counts.octets_joined } else { &mut self.counts.octets_copied_out };
            *copied += rest.len() as u64;
            let rest = self.buffers.heap(rest);
            link.queue.push_lent(rest, 0..octets.end - at, &mut self.buffers);
            self.buffers.release(rest);
        }
    }
}
