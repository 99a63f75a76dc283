//! Buffers lent to the kernel for receiving: a provided-buffer ring (Linux 5.19). A buffer is the kernel's until a completion
//! names it, then ours until it is given back, which happens in the same turn.

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// A group of equal buffers and the ring that hands them to the kernel.
pub struct Buffers {
    group: u16,
    octets_each: usize,
    count: u16,
    entries: *mut BufRingEntry,
    entries_octets: usize,
    memory: *mut u8,
    tail: u16,
}

impl Buffers {
    /// Maps `count` (a power of two) buffers of `octets_each` and registers them as `group`.
    ///
    /// # Errors
    /// No memory, or a kernel without provided-buffer rings.
    pub fn register(ring: &IoUring, group: u16, count: u16, octets_each: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel masks indices with count - 1");
        let entries_octets = usize::from(count) * std::mem::size_of::<BufRingEntry>();
        let entries = map(entries_octets)?.cast::<BufRingEntry>();
        let memory = map(usize::from(count) * octets_each)?;
        // SAFETY: the mapping is page-aligned, of `count` entries, and stays until the ring is gone (`Buffers` is dropped after
        // the ring: see the order of fields in the engine).
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, count, group, 0)? };
        let mut buffers = Self { group, octets_each, count, entries, entries_octets, memory, tail: 0 };
        for id in 0..count {
            buffers.give_back(id);
        }
        Ok(buffers)
    }

    /// The number operations name the group by.
    pub const fn group(&self) -> u16 {
        self.group
    }

    /// The octets of a buffer that a completion named.
    pub fn get(&self, id: u16, octets: usize) -> &[u8] {
        assert!(id < self.count && octets <= self.octets_each, "the kernel names only buffers it was given");
        // SAFETY: the buffer lies in the mapping, and is ours from the completion until `give_back`, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.add(usize::from(id) * self.octets_each), octets) }
    }

    /// Lends a buffer to the kernel again.
    pub fn give_back(&mut self, id: u16) {
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`; the kernel reads this entry only after the tail has been published. The tail lies over
        // the reserved field of entry 0, which set_addr, set_len and set_bid do not touch.
        unsafe {
            let entry = &mut *self.entries.add(at);
            entry.set_addr(self.memory.add(usize::from(id) * self.octets_each) as u64);
            entry.set_len(self.octets_each as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(self.entries).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: both are our own mappings of these lengths, and the ring that used them is closed.
        unsafe {
            libc::munmap(self.entries.cast(), self.entries_octets);
            libc::munmap(self.memory.cast(), usize::from(self.count) * self.octets_each);
        }
    }
}

fn map(octets: usize) -> io::Result<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping touches no memory of ours.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), octets, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address.cast()) }
}
