//! Long bodies that are looked at where they lie, in the socket, and passed on without coming out of the kernel.
//!
//! ```text
//!             recv(MSG_PEEK)                    the shard: heads, bodies, end-lines
//!   socket  ------------------> one hot buffer ---------------------------------------+
//!      |                                                                              |
//!      +-- splice, all of it --> pipe -- splice, what goes on as it came --> pipe -- splice, in flush --> socket
//!                                 |                                           ^
//!                                 +-- read: what does not go on               +-- write: new heads, between the bodies
//! ```
//! Where one body is most of what was looked at, it goes at once into the second pipe. To take body for body out of the socket would
//! have it send an acknowledgement for each.
//!
//! A relay that receives and sends has the kernel copy each octet twice, and the second copy goes to memory that is in no cache. Here
//! it is copied once, into a buffer that never leaves the cache. The shard sees the same octets as ever, in the same order, and
//! searches all of them; only where a piece that it sends lies in the hot buffer, the octets still in the socket go instead of it.
//!
//! Peeking is worth its calls only where much comes at a time: a connection that is in the group of bulk and brings long bodies, one
//! taker, both connections in the clear, and nobody who captures. Where no pipe has room for what it is offered, the rest is copied
//! out of the hot buffer, as are pieces that are short.

use super::buffers::{BULK, CHAT};
use super::connection::{Receiving, Stage};
use super::engine::Engine;
use super::looked::Looked;
use super::op;
use super::pipe;
use crate::base::slab::Key;
use crate::shard::media_outbox::{Buffer, Gone};
use std::io::ErrorKind;
use std::ops::Range;

/// Octets of the average message from which they are passed on.
const LONG: u32 = 32 * 1024;
/// Octets over which averages are taken; then half of what is known is forgotten.
const OF_LATE: u32 = 512 * 1024;
/// Octets looked at in one go: they stay in the second-level cache.
const PEEKED_MAX: usize = 256 * 1024;
/// Where less comes at a time, as a rule, it is received as ever.
const WORTH_WHILE: u32 = 16 * 1024;
/// Octets below which a copy costs less than the calls.
const PASSED_MIN: usize = 4 * 1024;
/// Where in the hot buffer octets are put moves on by so much, within a page: the kernel copies badly to a place just behind its
/// source, counted within their pages (`io/ring.rs`), and with looks of whole pages what is bad once would be bad for long.
const ASIDE: u32 = 17 * 64;
const PAGE: u32 = 4096;

/// What a core needs for it.
#[derive(Default)]
pub struct Passing {
    /// The hot buffer; none before it is first needed.
    hot: Option<Buffer>,
    /// Where in it the last octets were put.
    aside: u32,
    /// What is in it now.
    looked: Option<Looked>,
}

impl Passing {
    /// Whether something is being looked at.
    pub const fn is_looking(&self) -> bool {
        self.looked.is_some()
    }

    /// Whether a piece of this buffer is still in a socket.
    pub fn is_peeked(&self, buffer: Buffer) -> bool {
        self.is_looking() && self.hot == Some(buffer)
    }
}

/// What a connection brought of late: octets, heads among them, and in how many pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths {
    octets: u32,
    heads: u16,
    pieces: u16,
}

impl Lengths {
    /// One piece came.
    pub fn add(&mut self, octets: u32, heads: u32) {
        self.octets = self.octets.saturating_add(octets);
        self.heads = self.heads.saturating_add(u16::try_from(heads).unwrap_or(u16::MAX));
        self.pieces = self.pieces.saturating_add(1);
        if self.octets > OF_LATE {
            (self.octets, self.heads, self.pieces) = (self.octets / 2, self.heads / 2, self.pieces / 2);
        }
    }

    /// Whether the average message is long, and much comes at a time.
    pub fn are_long(self) -> bool {
        self.octets >= LONG.saturating_mul(u32::from(self.heads).max(1))
            && self.octets >= WORTH_WHILE.saturating_mul(u32::from(self.pieces))
    }
}

impl Engine {
    /// Whether what this connection brings next is to be passed on that way.
    pub(super) fn passes(&self, key: Key) -> bool {
        let Some(link) = self.links.get(key).filter(|link| link.group == BULK && link.lengths.are_long() && link.tls.is_none())
        else {
            return false;
        };
        let takes = |to: Key| self.links.get(to).is_some_and(|to| to.tls.is_none() && to.stage == Stage::Open);
        self.captured.is_empty()
            && !self.zero_copies.wanted()
            && !self.config.cores.sqpoll
            && self.buffers.pipes.are_free()
            && link
                .connection
                .and_then(|connection| self.shard.passes_to(connection))
                .and_then(|to| self.links.of(to))
                .is_some_and(takes)
    }

    /// Waits until there is something to look at.
    pub(super) fn watch(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        link.receiving = Receiving::Watched;
        (link.armed_at, link.received) = (self.now, 0);
        link.under_way += 1;
        let operation = op::readable::arm(link.fd(), key);
        self.submit(&operation);
    }

    /// There is something to look at, or the wait was cancelled.
    pub(super) fn readable(&mut self, key: Key) {
        let link = self.links.get_mut(key).expect("completions find a link that is there");
        link.receiving = Receiving::Idle;
        if link.may_receive() && self.passes(key) {
            self.pass_on(key);
        }
        let link = self.links.get_mut(key).expect("it stays while something of it is under way");
        link.receiving = Receiving::Idle;
        link.under_way -= 1;
        self.after_receive(key);
    }

    /// Looks at what a connection has brought, and passes on what goes on.
    fn pass_on(&mut self, key: Key) {
        let hot = match self.passing.hot {
            Some(hot) => hot,
            None => *self.passing.hot.insert(self.buffers.heap(vec![0; PAGE as usize + PEEKED_MAX])),
        };
        let Some(link) = self.links.get_mut(key) else { return };
        let Some(connection) = link.connection else { return };
        // Whoever is handed over or closes meanwhile goes when this is over.
        link.receiving = Receiving::Looking;
        self.passing.aside = (self.passing.aside + ASIDE) % PAGE;
        let start = self.passing.aside;
        let octets = self.buffers.octets(hot, start, PEEKED_MAX as u32);
        let peeked = match pipe::peek(link.fd(), octets) {
            Ok(0) => return self.peer_ended(key),
            Ok(octets) => octets,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.close(key, Gone::Broken),
        };
        let heads = self.shard.counts().heads;
        let end = start + peeked as u32;
        self.passing.looked = Some(Looked::new(key, link.fd(), start..end));
        self.shard.look(self.now, connection, hot, &mut octets[..peeked], start, &mut self.out);
        let heads = self.shard.counts().heads - heads;
        self.carry_out();
        self.forget_upto(end);
        if let Some(looked) = self.passing.looked.take() {
            looked.over(&mut self.buffers.pipes);
        }
        self.counts.receives += 1;
        self.counts.octets_in += peeked as u64;
        if let Some(link) = self.links.get_mut(key) {
            self.gather.heard(peeked as u32, &mut link.window);
            link.lengths.add(peeked as u32, heads as u32);
            if !link.lengths.are_long() {
                link.group = CHAT;
            }
        }
    }

    /// Drops what was looked at and does not go on, up to there; false: the connection closes, or is broken.
    fn forget_upto(&mut self, upto: u32) -> bool {
        let Some(looked) = &mut self.passing.looked else { return false };
        let from = looked.from();
        if self.links.get(from).is_none_or(|link| link.closing.is_some()) {
            return false;
        }
        let gone = looked.forget_upto(upto).is_ok();
        if !gone {
            self.close(from, Gone::Broken);
        }
        gone
    }

    /// A piece that lies in the hot buffer, and still where it came from, goes to a connection's queue.
    pub(super) fn pass(&mut self, to: Key, hot: Buffer, octets: &Range<u32>) {
        let mut at = octets.start;
        if octets.len() >= PASSED_MIN && self.passing.looked.as_ref().is_some_and(|looked| looked.has(at)) && self.forget_upto(at)
        {
            at += self.give(to, octets.len()) as u32;
        }
        if at == octets.end {
            return;
        }
        let rest = self.buffers.lent_octets(hot, at..octets.end);
        let short = octets.len() < PASSED_MIN;
        let copied = if short { &mut self.counts.octets_joined } else { &mut self.counts.octets_copied_out };
        *copied += rest.len() as u64;
        let link = self.links.get_mut(to).expect("the caller looked it up");
        if link.tls.is_some() || !link.queue.put(rest) {
            let mut copy = self.buffers.spare();
            copy.extend_from_slice(self.buffers.lent_octets(hot, at..octets.end));
            let copy = self.buffers.heap(copy);
            link.queue.push_lent(copy, 0..octets.end - at, &mut self.buffers);
            self.buffers.release(copy);
        }
    }

    /// Moves so many octets to a connection's queue, or as many as pipes have room for.
    fn give(&mut self, to: Key, octets: usize) -> usize {
        let Some(link) = self.links.get_mut(to).filter(|link| link.tls.is_none()) else { return 0 };
        let Some(looked) = &mut self.passing.looked else { return 0 };
        let given = looked.give(octets, &mut link.queue, &self.out.octets, &mut self.buffers);
        self.counts.octets_passed += given as u64;
        self.counts.passes += 1;
        given
    }

    /// Octets of our own, said while something is looked at: behind a body in its pipe, where they go to the same connection.
    pub(super) fn join(&mut self, to: Key, octets: Range<u32>) {
        let link = self.links.get_mut(to).expect("the caller looked it up");
        let own = self.out.octets(&octets);
        match link.tls.is_none() && link.queue.put(own) {
            true => self.counts.octets_joined += own.len() as u64,
            false => link.queue.push_turn(octets, &mut self.buffers),
        }
    }
}
