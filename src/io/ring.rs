//! io_uring as every core here uses it: one ring, one thread, completions run only when that thread asks for them.
//!
//! `user_data` is `kind:8 | generation:24 | slot:32`, meaning and never a pointer: a completion for a slot that was used again
//! carries an old generation and is dropped. A full submission queue submits and goes on.

use super::faults;
use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{Builder, EnterFlags, IoUring, cqueue, opcode};
use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The group of a multishot receive's provided buffers.
pub type Group = u16;

/// The longest sleep: nothing here waits for longer without a look around.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Packs what a completion means.
pub const fn token(kind: u8, generation: u32, slot: u32) -> u64 {
    ((kind as u64) << 56) | (((generation & 0xff_ffff) as u64) << 32) | slot as u64
}

/// A completion, unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub user_data: u64,
    /// What the operation returned; below 0: minus the error number.
    pub result: i32,
    flags: u32,
}

impl Completion {
    pub const fn kind(&self) -> u8 {
        (self.user_data >> 56) as u8
    }
    pub const fn generation(&self) -> u32 {
        (self.user_data >> 32) as u32 & 0xff_ffff
    }
    pub const fn slot(&self) -> u32 {
        self.user_data as u32
    }
    /// A multishot operation goes on.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }
    /// The provided buffer that was filled.
    pub fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
    /// The kernel goes on filling the same (incremental) buffer.
    pub fn buffer_more(&self) -> bool {
        cqueue::buffer_more(self.flags)
    }
    /// The operation completed before; now the kernel is done with the memory it was lent.
    pub fn notification(&self) -> bool {
        cqueue::notif(self.flags)
    }
    /// Of a notification: the octets were copied all the same.
    pub const fn was_copied(&self) -> bool {
        const COPIED: u32 = 1 << 31; // IORING_NOTIF_USAGE_ZC_COPIED
        self.result as u32 & COPIED != 0
    }
    /// The socket held more when this was received.
    pub fn nonempty(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }
}

/// How long to wait, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Return when this passed, whatever came.
    pub timeout: Option<Duration>,
    /// Gather: until `completions` are there or `gather` has passed, then return with what there is; when there is none,
    /// with the first one. Needs [`Features::min_wait`](crate::io::probe::Features); zero: return with the first one.
    pub gather: Duration,
    pub completions: u32,
}

/// The ring of one thread.
pub struct Ring {
    ring: IoUring,
    /// Completions of operations that met a made-up fault instead of the kernel.
    faked: Vec<Completion>,
}

/// Why a ring finds no memory, and what to do.
pub const fn no_memory() -> &'static str {
    "the kernel has no memory for a ring; without CAP_IPC_LOCK it books rings as locked memory, and then the limit is used up: LimitMEMLOCK in the unit, `ulimit -l` in a shell; `cpm-pf tune` says how much"
}

/// How often, and how far apart, a ring is asked for while the kernel has no memory for it.
const TRIES: u32 = 10;
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Makes a ring. A kernel that is busy reclaiming pages refuses one with ENOMEM although there will be room in a moment: half
/// a second is spent on asking again.
fn build(builder: &Builder, submissions: u32) -> io::Result<IoUring> {
    let mut left = TRIES;
    loop {
        match builder.build(submissions) {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory && left == 0 => {
                return Err(io::Error::new(error.kind(), no_memory()));
            }
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => left -= 1,
            done => return done,
        }
        std::thread::sleep(TRY_AGAIN);
    }
}

impl Ring {
    /// A ring for the calling thread alone. `completions` must exceed sockets, sends and slack together: multishot
    /// operations end when it overflows. With `sqpoll` a kernel thread takes submissions; completions then come by
    /// themselves, since deferred task work and polling exclude each other.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(submissions: u32, completions: u32, sqpoll: bool) -> io::Result<Self> {
        let (submissions, completions) = faults::rings(submissions, completions);
        let mut builder = IoUring::builder();
        builder.setup_cqsize(completions).setup_clamp().setup_submit_all().setup_single_issuer();
        if sqpoll {
            builder.setup_sqpoll(1000)
        } else {
            builder.setup_defer_taskrun()
        };
        Ok(Self { ring: build(&builder, submissions)?, faked: Vec::new() })
    }

    /// Queues an operation.
    ///
    /// # Safety
    /// Whatever the entry points to must stay where it is, and be written by nobody else, until its completion came.
    ///
    /// # Errors
    /// The kernel's, when the queue was full and could not be submitted.
    pub unsafe fn push(&mut self, entry: &Entry) -> io::Result<()> {
        if let Some(result) = faults::instead(entry) {
            self.faked.push(Completion { user_data: entry.get_user_data(), result, flags: 0 });
            return Ok(());
        }
        #[cfg(debug_assertions)]
        let entry = &faults::shortened(entry);
        loop {
            // SAFETY: the caller keeps the memory alive until the completion; nothing was made longer.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.submit()?;
            if self.ring.params().is_setup_sqpoll() {
                self.ring.submitter().squeue_wait()?;
            }
        }
    }

    /// Queues an operation that points to no memory of ours: nothing can dangle.
    ///
    /// # Errors
    /// As [`Ring::push`].
    pub fn push_plain(&mut self, entry: &Plain) -> io::Result<()> {
        // SAFETY: a `Plain` entry holds numbers only.
        unsafe { self.push(&entry.0) }
    }

    /// Hands queued operations to the kernel; takes no completions.
    ///
    /// # Errors
    /// The kernel's, but for those that mean "look at the completions first".
    pub fn submit(&mut self) -> io::Result<()> {
        benign(self.ring.submit())
    }

    /// Submits, and lets the kernel finish what is finished, without waiting.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    pub fn poll(&mut self) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        // SAFETY: no argument is passed; the entries were vouched for when they were pushed.
        let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, EnterFlags::GETEVENTS.bits(), None) };
        benign(entered)
    }

    /// Submits and waits.
    ///
    /// # Errors
    /// As [`Ring::submit`]; a timeout is none.
    pub fn wait(&mut self, wait: Wait) -> io::Result<()> {
        if cfg!(debug_assertions) && !self.faked.is_empty() {
            return self.poll();
        }
        let timeout = Timespec::from(wait.timeout.unwrap_or(WAIT_MAX).min(WAIT_MAX));
        let mut arguments = SubmitArgs::new().timespec(&timeout);
        let mut want = 1;
        if !wait.gather.is_zero() {
            arguments = arguments.min_wait_usec(u32::try_from(wait.gather.as_micros()).unwrap_or(u32::MAX));
            want = wait.completions.max(1) as usize;
        }
        benign(self.ring.submitter().submit_with_args(want, &arguments))
    }

    /// Takes what has completed, in order, into `batch`.
    pub fn reap(&mut self, batch: &mut Vec<Completion>) {
        #[cfg(debug_assertions)]
        faults::overflowed(self.ring.submission().cq_overflow());
        batch.extend(self.ring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
        if cfg!(debug_assertions) {
            batch.append(&mut self.faked);
        }
    }

    /// Registers a file so that operations need not look it up; see the crate.
    pub const fn as_raw(&self) -> &IoUring {
        &self.ring
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing a ring cancels what is in flight some time later; memory lent to it may be gone by then.
        let _ = self.ring.submit();
        let second = Timespec::from(Duration::from_secs(1));
        let _ = self.ring.submitter().register_sync_cancel(Some(second), CancelBuilder::any());
    }
}

/// Signals, timeouts and "take the completions first" are no failures.
fn benign(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

/// A submission that points to no memory.
pub struct Plain(Entry);

impl Plain {
    /// Accepts connections until cancelled; each completion is a descriptor.
    pub fn accept(fd: RawFd, user_data: u64) -> Self {
        Self(opcode::AcceptMulti::new(Fd(fd)).flags(libc::SOCK_CLOEXEC).build().user_data(user_data))
    }

    /// Receives into buffers of `group` until the peer closes, an error, no buffer, or `credit` octets are in (kernel 6.17).
    pub fn receive(fd: RawFd, group: Group, credit: Option<u32>, user_data: u64) -> Self {
        let mut entry = opcode::RecvMulti::new(Fd(fd), group).build().user_data(user_data);
        if let Some(octets) = credit {
            set_optlen(&mut entry, octets);
        }
        Self(entry)
    }

    /// Completes whenever one of `events` (`POLLIN`, …) comes up; level changes that come while one is unread are told too.
    pub fn poll_always(fd: RawFd, events: i16, user_data: u64) -> Self {
        Self(opcode::PollAdd::new(Fd(fd), events as u16 as u32).multi(true).build().user_data(user_data))
    }

    /// Completes once when one of `events` is up.
    pub fn poll(fd: RawFd, events: i16, user_data: u64) -> Self {
        Self(opcode::PollAdd::new(Fd(fd), events as u16 as u32).build().user_data(user_data))
    }

    /// Cancels the operation with this `user_data`; its own completion, under `own`, tells nothing that matters.
    pub fn cancel(target: u64, own: u64) -> Self {
        Self(opcode::AsyncCancel::new(target).build().user_data(own))
    }

    /// Makes a file's octets durable, and of its metadata what is needed to read them.
    pub fn sync_data(fd: RawFd, user_data: u64) -> Self {
        let flags = io_uring::types::FsyncFlags::DATASYNC;
        Self(opcode::Fsync::new(Fd(fd)).flags(flags).build().user_data(user_data))
    }

    /// Makes a file or directory durable.
    pub fn sync(fd: RawFd, user_data: u64) -> Self {
        Self(opcode::Fsync::new(Fd(fd)).build().user_data(user_data))
    }

    /// Closes a descriptor in the kernel's own time.
    pub fn close(fd: RawFd, user_data: u64) -> Self {
        Self(opcode::Close::new(Fd(fd)).build().user_data(user_data))
    }
}

/// Multishot recvmsg (UDP): `header` says how much room a name and control data get in front of each datagram.
///
/// The entry points to `header`: see [`Ring::push`].
pub fn receive_datagrams(fd: RawFd, header: *const libc::msghdr, group: Group, user_data: u64) -> Entry {
    opcode::RecvMsgMulti::new(Fd(fd), header, group).build().user_data(user_data)
}

/// Sends what `header` names without a copy and without waiting, and tells by a notification when its memory is free again, and
/// whether it was copied all the same.
///
/// The entry points to `header`, and through it to what is sent: see [`Ring::push`], but "completion" is here the one that says
/// that no more follows ([`Completion::more`]).
pub fn send_without_copy(fd: RawFd, header: *const libc::msghdr, user_data: u64) -> Entry {
    const REPORT_USAGE: u16 = 1 << 3; // IORING_SEND_ZC_REPORT_USAGE
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    opcode::SendMsgZc::new(Fd(fd), header).ioprio(REPORT_USAGE).flags(flags as u32).build().user_data(user_data)
}

/// Sets `optlen`, for which the crate has no setter: the octets after which a multishot receive ends.
fn set_optlen(entry: &mut Entry, octets: u32) {
    const _: () = assert!(size_of::<Entry>() == 64);
    // SAFETY: `Entry` is `repr(C)` around the kernel's 64-octet `io_uring_sqe`, a plain structure for which every bit pattern
    // is lawful; `optlen` is the u32 at offset 44 (include/uapi/linux/io_uring.h), which is aligned.
    unsafe { std::ptr::from_mut(entry).cast::<u8>().add(44).cast::<u32>().write(octets) };
}

/// Anonymous memory of whole pages; a page is committed when it is first touched.
pub struct Pages {
    start: NonNull<u8>,
    octets: usize,
}

// SAFETY: the mapping belongs to this value alone, like a `Box`.
unsafe impl Send for Pages {}

impl Pages {
    /// Zeroed pages.
    ///
    /// # Errors
    /// No memory.
    pub fn new(octets: usize) -> io::Result<Self> {
        let octets = octets.max(1).next_multiple_of(4096);
        // SAFETY: a fresh anonymous mapping at an address the kernel picks touches nothing that exists.
        let start = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), octets, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: NonNull::new(start.cast()).expect("mmap gave an address"), octets })
    }

    pub const fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whole; its owner has made sure that no kernel operation uses it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.octets) };
    }
}

/// Where the first buffer begins: half a page behind the start of one.
///
/// The kernel copies with `rep movsb`, and what it sends lands at the start of a page more often than anywhere else. Where the
/// target lies 1 to 15 octets behind the source, counted within their pages, AMD's processors copy 2.4 GB a second instead of
/// 45 (measured on Zen 4); a buffer that begins a page, and a head that grew by a few octets, are just that.
const HALF_A_PAGE: usize = 2048;

/// A ring of provided buffers: the kernel takes the oldest when a socket has something to receive.
///
/// An *incremental* buffer (kernel 6.12) is filled by one receive after another until it is full; otherwise every
/// completion takes a whole buffer. It must outlive the [`Ring`] it was registered with: declare it after the ring.
pub struct BufferRing {
    entries: Pages,
    memory: Pages,
    count: u16,
    octets_each: u32,
    group: Group,
    tail: u16,
}

impl BufferRing {
    /// Registers `count` (a power of two) buffers of `octets_each` and gives them all to the kernel.
    ///
    /// # Errors
    /// No memory, or the kernel knows no such rings.
    pub fn new(ring: &Ring, group: Group, count: u16, octets_each: u32, incremental: bool) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel wants a power of two");
        let entries = Pages::new(usize::from(count) * size_of::<io_uring::types::BufRingEntry>())?;
        let memory = Pages::new(HALF_A_PAGE + usize::from(count) * octets_each as usize)?;
        let flags = if incremental { io_uring::types::IOU_PBUF_RING_INC as u16 } else { 0 };
        // SAFETY: `entries` holds `count` entries and is unmapped after the ring is gone (see the type).
        unsafe {
            ring.ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, group, flags)?;
        }
        let mut buffers = Self { entries, memory, count, octets_each, group, tail: 0 };
        (0..count).for_each(|buffer| buffers.give(buffer));
        buffers.publish();
        Ok(buffers)
    }

    pub const fn group(&self) -> Group {
        self.group
    }
    pub const fn count(&self) -> u16 {
        self.count
    }
    pub const fn octets_each(&self) -> u32 {
        self.octets_each
    }

    /// Queues a buffer for the kernel, whole. It gets it with [`BufferRing::publish`].
    pub fn give(&mut self, buffer: u16) {
        assert!(buffer < self.count, "the buffer is of this ring");
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` is below `count`; the kernel reads entries below the published tail only, and this one is above
        // it, since no more buffers are given than there are. The tail itself lies in a field that is not written here.
        let entry = unsafe { &mut *self.entries.as_ptr().cast::<io_uring::types::BufRingEntry>().add(index) };
        entry.set_addr(self.address(buffer, 0) as u64);
        entry.set_len(self.octets_each);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see the buffers given since the last call; once a turn, before the ring is entered.
    pub fn publish(&mut self) {
        let base = self.entries.as_ptr().cast::<io_uring::types::BufRingEntry>();
        // SAFETY: `base` is the start of the registered ring; the tail is an aligned u16 in it that the kernel reads.
        let tail = unsafe { AtomicU16::from_ptr(io_uring::types::BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Where octet `offset` of a buffer lies.
    pub fn address(&self, buffer: u16, offset: u32) -> *mut u8 {
        assert!(buffer < self.count && offset <= self.octets_each, "inside this ring's memory");
        // SAFETY: the result lies inside the mapping, by the assertion.
        unsafe { self.memory.as_ptr().add(HALF_A_PAGE + usize::from(buffer) * self.octets_each as usize + offset as usize) }
    }

    /// Octets that a completion said were received.
    ///
    /// # Safety
    /// The kernel must be done with the range (it lies below what completions told), and no other slice over it may live.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn octets(&self, buffer: u16, offset: u32, length: u32) -> &mut [u8] {
        assert!(offset + length <= self.octets_each, "inside the buffer");
        // SAFETY: inside the mapping; exclusive and filled, as the caller says.
        unsafe { std::slice::from_raw_parts_mut(self.address(buffer, offset), length as usize) }
    }
}
