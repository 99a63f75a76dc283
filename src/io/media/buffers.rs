//! Receive buffers: lent to the kernel, then to whoever sends or writes their octets, then to the kernel again.
//!
//! ```text
//!            completion                     shard.receive                  last send done
//!   kernel ------------> filled, held once ---------------> held by pieces ---------------> kernel
//! ```
//! Two rings of buffers. Every connection starts with *chat*, which holds many small messages; *bulk* is for those that are
//! always readable. The ring is first in, first out, so all of it passes through the cache: bulk stays at 512 KiB in all.
//! Beside them heap buffers: plaintext of TLS, octets handed over by another core, what was read from files.
//!
//! An incremental buffer is filled piece by piece while earlier pieces of it are lent; it goes back when the kernel is done
//! with it *and* nobody holds it. Without incremental buffers (before 6.12) every receive takes a whole one, so they are smaller.

use super::pipe::Pipes;
use super::queue::Piece;
use crate::base::rooms::Rooms;
use crate::io::probe::Features;
use crate::io::ring::{BufferRing, Group, Ring};
use crate::shard::media_outbox::Buffer;
use std::io;

/// The group every connection starts in.
pub const CHAT: Group = 0;
/// The group of connections that are always readable.
pub const BULK: Group = 1;
const HEAP: u32 = 2;
const KIND_SHIFT: u32 = 24;
/// Heap buffers kept for the next use, and the largest of them.
const SPARE_MAX: usize = 64;
const SPARE_OCTETS_MAX: usize = 256 * 1024;

/// Count (a power of two) and size of the buffers of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pool {
    pub count: u16,
    pub octets_each: u32,
}

/// Both groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pools {
    pub chat: Pool,
    pub bulk: Pool,
}

impl Pools {
    /// What was measured to be best: bulk 512 KiB, which stays in the second-level cache. Chat 1 MiB: with a thousand sessions
    /// 0.96 of the CPU time of 4 MiB when saturated and 0.91 below, and with a hundred no difference.
    /// `zero_copy`: octets stay lent until the peer has acknowledged them, which takes a way's time and not a turn's.
    pub const fn fitting(features: Features, zero_copy: bool) -> Self {
        let chat = if features.incremental {
            Pool { count: 16, octets_each: 64 * 1024 }
        } else {
            Pool { count: 1024, octets_each: 4 * 1024 }
        };
        let count = if zero_copy && features.zero_copy { 256 } else { 8 };
        Self { chat, bulk: Pool { count, octets_each: 64 * 1024 } }
    }
}

#[derive(Clone, Copy, Default)]
struct Loan {
    /// Pieces that point into the buffer, and calls that look at it.
    holds: u32,
    /// The kernel may still write behind `filled`.
    kernel: bool,
    filled: u32,
}

struct Lent {
    ring: BufferRing,
    loans: Vec<Loan>,
    /// Buffers the kernel has.
    available: u16,
    /// Given back since somebody asked.
    returned: u32,
}

#[derive(Default)]
struct Heap {
    octets: Vec<u8>,
    holds: u32,
}

/// All buffers of one core. Declared after the ring they are registered with.
pub struct Buffers {
    lent: [Lent; 2],
    heap: Vec<Heap>,
    heap_free: Vec<u32>,
    spare: Vec<Vec<u8>>,
    pub pipes: Pipes,
    /// Room for the pieces of queues.
    pub rooms: Rooms<Piece>,
}

impl Buffers {
    /// Registers both groups.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(ring: &Ring, pools: Pools, features: Features) -> io::Result<Self> {
        let register = |group, pool: Pool| -> io::Result<Lent> {
            let ring = BufferRing::new(ring, group, pool.count, pool.octets_each, features.incremental)?;
            let loans = vec![Loan { kernel: true, ..Loan::default() }; usize::from(pool.count)];
            Ok(Lent { ring, loans, available: pool.count, returned: 0 })
        };
        let lent = [register(CHAT, pools.chat)?, register(BULK, pools.bulk)?];
        let (pipes, rooms) = (Pipes::default(), Rooms::default());
        Ok(Self { lent, heap: Vec::new(), heap_free: Vec::new(), spare: Vec::new(), pipes, rooms })
    }

    /// A completion filled `octets` of a buffer; `more`: the kernel goes on with it. The buffer is held once for the caller.
    pub fn filled(&mut self, group: Group, buffer: u16, octets: u32, more: bool) -> (Buffer, u32) {
        let lent = &mut self.lent[usize::from(group)];
        let loan = &mut lent.loans[usize::from(buffer)];
        assert!(loan.kernel, "the kernel fills only what it has");
        let offset = loan.filled;
        loan.filled += octets;
        assert!(loan.filled <= lent.ring.octets_each(), "the kernel stays inside the buffer");
        loan.holds += 1;
        if !more {
            loan.kernel = false;
            lent.available -= 1;
        }
        (Buffer((u32::from(group) << KIND_SHIFT) | u32::from(buffer)), offset)
    }

    /// Puts octets into a heap buffer, held once for the caller.
    pub fn heap(&mut self, octets: Vec<u8>) -> Buffer {
        let index = self.heap_free.pop().unwrap_or_else(|| {
            self.heap.push(Heap::default());
            u32::try_from(self.heap.len() - 1).expect("each heap buffer holds octets; memory ends long before 2^24 of them")
        });
        assert!(index < 1 << KIND_SHIFT, "fewer heap buffers than their numbers can name");
        self.heap[index as usize] = Heap { octets, holds: 1 };
        Buffer((HEAP << KIND_SHIFT) | index)
    }

    /// An empty vector for [`Buffers::heap`], with room where one was used before.
    pub fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// One more piece points into the buffer.
    pub fn hold(&mut self, buffer: Buffer) {
        match self.place(buffer) {
            Place::Lent(group, index) => self.lent[group].loans[index].holds += 1,
            Place::Heap(index) => self.heap[index].holds += 1,
        }
    }

    /// A piece is done with. The last one gives the buffer back.
    pub fn release(&mut self, buffer: Buffer) {
        match self.place(buffer) {
            Place::Lent(group, index) => self.lent[group].release(index),
            Place::Heap(index) => {
                let heap = &mut self.heap[index];
                heap.holds = heap.holds.checked_sub(1).expect("every release follows a hold");
                if heap.holds == 0 {
                    let mut octets = std::mem::take(&mut heap.octets);
                    self.heap_free.push(index as u32);
                    if self.spare.len() < SPARE_MAX && octets.capacity() <= SPARE_OCTETS_MAX {
                        octets.clear();
                        self.spare.push(octets);
                    }
                }
            }
        }
    }

    /// Octets that were received, to be read or rewritten in place before anything else happens.
    pub fn octets(&mut self, buffer: Buffer, offset: u32, length: u32) -> &mut [u8] {
        match self.place(buffer) {
            Place::Lent(group, index) => {
                let loan = &self.lent[group].loans[index];
                assert!(loan.holds > 0 && offset + length <= loan.filled, "held, and received already");
                // SAFETY: below `filled` the kernel writes no more until the buffer is given back, which the hold prevents; the
                // borrow of `self` keeps any other slice away.
                unsafe { self.lent[group].ring.octets(index as u16, offset, length) }
            }
            Place::Heap(index) => {
                let heap = &mut self.heap[index];
                assert!(heap.holds > 0, "held");
                &mut heap.octets[offset as usize..(offset + length) as usize]
            }
        }
    }

    /// Octets of a held buffer, to be sent or written.
    pub fn lent_octets(&self, buffer: Buffer, octets: std::ops::Range<u32>) -> &[u8] {
        assert!(self.holds(buffer, &octets), "held, and received already");
        match self.place(buffer) {
            // SAFETY: below `filled` the kernel writes no more until the buffer is given back, which the hold prevents; nobody
            // has a mutable slice, since that borrows `self` mutably.
            Place::Lent(group, index) => unsafe {
                self.lent[group].ring.octets(index as u16, octets.start, octets.end - octets.start)
            },
            Place::Heap(index) => &self.heap[index].octets[octets.start as usize..octets.end as usize],
        }
    }

    /// Whether the octets were received, and are held by somebody.
    pub fn holds(&self, buffer: Buffer, octets: &std::ops::Range<u32>) -> bool {
        octets.start <= octets.end
            && match self.place(buffer) {
                Place::Lent(group, index) => {
                    let loan = &self.lent[group].loans[index];
                    loan.holds > 0 && octets.end <= loan.filled
                }
                Place::Heap(index) => self.heap[index].holds > 0 && octets.end as usize <= self.heap[index].octets.len(),
            }
    }

    /// Buffers of a group that the kernel can still fill.
    pub const fn available(&self, group: Group) -> u16 {
        self.lent[group as usize].available
    }

    /// Buffers of a group in all.
    pub const fn count(&self, group: Group) -> u16 {
        self.lent[group as usize].ring.count()
    }

    /// Octets of each buffer of a group.
    pub const fn octets_each(&self, group: Group) -> u32 {
        self.lent[group as usize].ring.octets_each()
    }

    /// Buffers of a group given back since the last call.
    pub fn returned(&mut self, group: Group) -> u32 {
        std::mem::take(&mut self.lent[usize::from(group)].returned)
    }

    /// Whether the buffer is one of the kernel's, which must not be held for long.
    pub const fn is_lent(buffer: Buffer) -> bool {
        buffer.0 >> KIND_SHIFT != HEAP
    }

    /// Lets the kernel have what came back; once a turn.
    pub fn publish(&mut self) {
        self.lent.iter_mut().for_each(|lent| lent.ring.publish());
    }

    /// No piece points anywhere: what must hold when no connection and no file is left.
    pub fn at_rest(&self) -> bool {
        self.lent.iter().all(|lent| lent.loans.iter().all(|loan| loan.holds == 0)) && self.heap_free.len() == self.heap.len()
    }

    fn place(&self, buffer: Buffer) -> Place {
        let index = (buffer.0 & ((1 << KIND_SHIFT) - 1)) as usize;
        match buffer.0 >> KIND_SHIFT {
            HEAP => Place::Heap(index),
            group => Place::Lent(group as usize, index),
        }
    }
}

enum Place {
    Lent(usize, usize),
    Heap(usize),
}

impl Lent {
    fn release(&mut self, index: usize) {
        let loan = &mut self.loans[index];
        loan.holds = loan.holds.checked_sub(1).expect("every release follows a hold");
        if loan.holds == 0 && !loan.kernel {
            *loan = Loan { kernel: true, ..Loan::default() };
            self.ring.give(index as u16);
            self.available += 1;
            self.returned += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers() -> (Ring, Buffers) {
        let ring = Ring::new(8, 32, false).expect("the tests run where the product runs");
        let pool = Pool { count: 2, octets_each: 4096 };
        let features = Features::default();
        let buffers = Buffers::new(&ring, Pools { chat: pool, bulk: pool }, features).expect("a ring takes buffers");
        (ring, buffers)
    }

    #[test]
    fn a_buffer_goes_back_when_the_kernel_and_all_holders_are_done_with_it() {
        let (_ring, mut buffers) = buffers();
        let (buffer, offset) = buffers.filled(CHAT, 1, 100, true);
        let (same, further) = buffers.filled(CHAT, 1, 50, false);
        assert_eq!((buffer, offset, further, buffers.available(CHAT)), (same, 0, 100, 1));
        buffers.hold(buffer);
        buffers.release(buffer);
        buffers.release(buffer);
        assert_eq!((buffers.available(CHAT), buffers.returned(CHAT)), (1, 0));
        assert!(buffers.holds(buffer, &(0..150)) && !buffers.holds(buffer, &(0..151)));
        buffers.release(buffer);
        assert_eq!((buffers.available(CHAT), buffers.returned(CHAT), buffers.at_rest()), (2, 1, true));
    }

    #[test]
    fn a_buffer_the_kernel_still_fills_is_not_given_back() {
        let (_ring, mut buffers) = buffers();
        let (buffer, _) = buffers.filled(BULK, 0, 10, true);
        buffers.release(buffer);
        assert_eq!((buffers.available(BULK), buffers.returned(BULK)), (2, 0));
        let (_, offset) = buffers.filled(BULK, 0, 10, true);
        assert_eq!(offset, 10);
    }

    #[test]
    fn heap_buffers_are_used_again() {
        let (_ring, mut buffers) = buffers();
        let buffer = buffers.heap(b"octets".to_vec());
        assert_eq!(buffers.octets(buffer, 1, 3), b"cte");
        assert!(!Buffers::is_lent(buffer));
        buffers.release(buffer);
        assert!(buffers.at_rest() && buffers.spare().capacity() >= 6);
        assert_eq!(buffers.heap(Vec::new()), buffer);
    }
}
