//! `msrp.zero_copy_send`: long bodies that leave from the buffers they came in on, for network cards that gather them there.
//!
//! ```text
//! queue -> IORING_OP_SENDMSG_ZC -> result: so many octets are on their way, the queue lets go of them
//!                               -> notification: the peer has them; only now the buffers go back to the kernel
//! ```
//! Between both, which is the time of a way and back, the buffers stay lent: [`Lending`] holds them beside the queue, so that
//! the queue may be copied out or dropped meanwhile. Where buffers are scarce, pieces are short or the kernel books no more
//! locked memory for it, octets are copied as ever. One send is in flight a socket; notifications of several may be due.
//!
//! On loopback the kernel copies all the same (the notification says so, and a counter keeps it) and holds the buffers longer:
//! measured in `docs/tuning.md`, off by default.

use super::buffers::{BULK, Buffers, CHAT};
use super::engine::Engine;
use super::op::Kind;
use super::sending::OFFERED_MAX;
use crate::base::slab::{Key, Slab};
use crate::io::faults;
use crate::io::probe::Features;
use crate::io::ring::{Completion, send_without_copy};
use crate::shard::media_outbox::{Buffer, Gone};
use std::ops::Range;

/// Octets below which a copy costs less than to keep count of who has the buffer.
const OCTETS_MIN: usize = 32 * 1024;
/// Octets of heads and end-lines that are copied into one send.
const OWN_MAX: usize = 4 * 1024;
/// Sends of a core whose notification is due.
const UNDER_WAY_MAX: usize = 1024;

/// A connection's part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZeroCopy {
    Idle,
    /// Its result has not come: nothing else may be sent.
    UnderWay,
    /// The kernel had no memory for it: the next send copies.
    NotNext,
}

/// A part of a send, in order.
enum Part {
    Lent(Buffer, Range<u32>),
    /// Of [`Lending::own`].
    Own(Range<usize>),
}

/// What the kernel borrows for one send. It does not move, and nothing of it changes, from the submission to the notification.
pub struct Lending {
    link: Key,
    parts: Vec<Part>,
    own: Vec<u8>,
    octets: usize,
    pieces: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Lending {
    fn new(link: Key) -> Self {
        // SAFETY: `msghdr` is plain data of which all zeroes says "no name, no pieces, no control data".
        let header = unsafe { std::mem::zeroed() };
        Self { link, parts: Vec::new(), own: Vec::new(), octets: 0, pieces: Vec::new(), header }
    }

    /// Octets of a buffer, held until the notification.
    pub fn lent(&mut self, buffer: Buffer, octets: Range<u32>, buffers: &mut Buffers) {
        if !octets.is_empty() {
            buffers.hold(buffer);
            self.octets += octets.len();
            self.parts.push(Part::Lent(buffer, octets));
        }
    }

    /// Octets that are copied; false: they are too many.
    pub fn own(&mut self, octets: &[u8]) -> bool {
        if self.own.len() + octets.len() > OWN_MAX {
            return false;
        }
        if !octets.is_empty() {
            let start = self.own.len();
            self.own.extend_from_slice(octets);
            self.octets += octets.len();
            self.parts.push(Part::Own(start..self.own.len()));
        }
        true
    }

    /// Points the header at all parts, which from here on stay as they are.
    fn seal(&mut self, buffers: &Buffers) -> *const libc::msghdr {
        let Self { parts, own, pieces, header, .. } = self;
        pieces.extend(parts.iter().map(|part| {
            let octets = match part {
                Part::Lent(buffer, octets) => buffers.lent_octets(*buffer, octets.clone()),
                Part::Own(octets) => &own[octets.clone()],
            };
            libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() }
        }));
        header.msg_iov = pieces.as_mut_ptr();
        header.msg_iovlen = pieces.len();
        header
    }

    fn let_go(self, buffers: &mut Buffers) {
        for part in self.parts {
            if let Part::Lent(buffer, _) = part {
                buffers.release(buffer);
            }
        }
    }
}

/// All sends without a copy that a core has under way.
pub struct ZeroCopies {
    on: bool,
    sends: Slab<Box<Lending>>,
}

impl ZeroCopies {
    /// `wanted`: by the configuration. Where the kernel cannot, the log says so and octets are copied.
    pub fn new(wanted: bool, features: Features, core: u8) -> Self {
        if wanted && !features.zero_copy {
            tracing::warn!(core, "msrp.zero_copy_send has no effect: this kernel has no zero-copy sendmsg (Linux 6.2 has it)");
        }
        Self { on: wanted && features.zero_copy, sends: Slab::with_capacity(UNDER_WAY_MAX) }
    }

    /// Whether there are such sends at all.
    pub const fn wanted(&self) -> bool {
        self.on
    }

    fn has_room(&self) -> bool {
        self.sends.len() < UNDER_WAY_MAX
    }

    /// The kernel is done with a send's memory.
    fn done(&mut self, key: Key, buffers: &mut Buffers) {
        if let Some(send) = self.sends.remove(key) {
            send.let_go(buffers);
        }
    }
}

impl Drop for ZeroCopies {
    fn drop(&mut self) {
        // What the kernel may still read at the end of a core stays where it is, to the end of the process.
        std::mem::forget(std::mem::replace(&mut self.sends, Slab::with_capacity(0)));
    }
}

impl Engine {
    /// Hands what is queued for a connection to the kernel without a copy, where that pays; false: it is to be sent as ever.
    pub(super) fn send_zero_copy(&mut self, key: Key) -> bool {
        let link = self.links.get_mut(key).expect("the caller looked it up");
        if std::mem::replace(&mut link.zero_copy, ZeroCopy::Idle) == ZeroCopy::NotNext {
            return false;
        }
        let plenty = |group| self.buffers.available(group) >= self.buffers.count(group) / 2;
        let pays = link.tls.is_none() && link.queue.octets() >= OCTETS_MIN && link.queue.holds_buffers();
        if !pays || !plenty(BULK) || !plenty(CHAT) || !self.zero_copies.has_room() {
            return false;
        }
        let mut send = Box::new(Lending::new(key));
        link.queue.lend(&mut self.buffers, &self.out.octets, faults::offered(OFFERED_MAX), &mut send);
        if send.octets < OCTETS_MIN {
            send.let_go(&mut self.buffers);
            return false;
        }
        (link.zero_copy, link.under_way) = (ZeroCopy::UnderWay, link.under_way + 1);
        self.counts.zero_copies += 1;
        let (socket, header) = (link.fd(), send.seal(&self.buffers));
        let Ok(send) = self.zero_copies.sends.insert(send) else { unreachable!("there was room") };
        let operation = send_without_copy(socket, header, Kind::ZeroCopy.on(send));
        // SAFETY: header, pieces and copied octets lie in the box, which `zero_copies` keeps, unmoved and unchanged, until the last
        // completion (`done`), or for ever (`Drop`). The lent octets are held, so that their buffers are neither given back nor
        // dropped; octets that were received are changed by nobody after they are queued.
        unsafe { self.submit_lending(&operation) };
        true
    }

    /// A send's result, or that its memory is free again.
    pub(super) fn zero_copy_done(&mut self, completion: &Completion) {
        let sends = &self.zero_copies.sends;
        let found = sends.key_at(completion.slot()).and_then(|key| Some((key, sends.get(key)?.link)));
        let Some((send, link)) = found else {
            debug_assert!(false, "a send is kept until its last completion: {completion:?}");
            return;
        };
        if !completion.more() {
            self.zero_copies.done(send, &mut self.buffers);
        }
        if completion.notification() {
            self.counts.zero_copies_copied += u64::from(completion.was_copied());
        } else {
            self.zero_copy_sent(link, completion.result);
        }
    }

    fn zero_copy_sent(&mut self, key: Key, result: i32) {
        let link = self.links.get_mut(key).expect("it is kept while a result is due");
        (link.zero_copy, link.under_way) = (ZeroCopy::Idle, link.under_way - 1);
        if link.closing.is_some() {
            return self.bury_when_quiet(key);
        }
        if link.handing.is_some() {
            return self.send_handed(key);
        }
        match -result {
            ..=0 => {
                self.counts.octets_out += result as u64;
                self.has_sent(key, result as usize);
            }
            libc::EAGAIN => {
                self.counts.sends_short += 1;
                return self.wait_for_room(key);
            }
            // The limit of locked memory, or of a socket's own for this (net.core.optmem_max).
            libc::ENOMEM | libc::ENOBUFS => link.zero_copy = ZeroCopy::NotNext,
            libc::EINTR | libc::ECANCELED => {}
            libc::EINVAL | libc::EOPNOTSUPP => {
                tracing::warn!(core = self.number, "msrp.zero_copy_send has no effect: the kernel refuses such a send");
                self.zero_copies.on = false;
            }
            _ => return self.close(key, Gone::Broken),
        }
        if self.links.get(key).is_some() {
            self.touch(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffers::{Pool, Pools};
    use super::super::queue::Queue;
    use super::*;
    use crate::io::probe;
    use crate::io::ring::{Ring, Wait};
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    /// The next completion; several may wait.
    fn next(ring: &mut Ring, seen: &mut Vec<Completion>) -> Completion {
        while seen.is_empty() {
            ring.wait(Wait { timeout: None, gather: Duration::ZERO, completions: 1 }).expect("the ring works");
            ring.reap(seen);
        }
        seen.remove(0)
    }

    #[test]
    fn a_buffer_comes_back_with_the_notification_and_not_before() {
        let features =
            std::thread::spawn(probe::find).join().expect("the probe ends").expect("the tests run where the product runs");
        if !features.zero_copy {
            return;
        }
        let mut ring = Ring::new(8, 32, false).expect("the tests run where the product runs");
        let pool = Pool { count: 2, octets_each: 65_536 };
        let mut buffers =
            Buffers::new(&ring, Pools { chat: pool, bulk: pool }, Features::default()).expect("a ring takes buffers");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let near = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (mut far, _) = listener.accept().expect("a connection waits");

        let (buffer, _) = buffers.filled(BULK, 0, 50_000, false);
        buffers.octets(buffer, 0, 50_000).iter_mut().enumerate().for_each(|(at, octet)| *octet = (at % 251) as u8);
        let mut queue = Queue::default();
        queue.push_turn(0..5, &mut buffers);
        queue.push_lent(buffer, 0..50_000, &mut buffers);
        buffers.release(buffer);
        let key = Slab::with_capacity(1).insert(()).expect("there is room");
        let mut send = Box::new(Lending::new(key));
        queue.lend(&mut buffers, b"head ", usize::MAX, &mut send);
        assert_eq!((send.octets, send.parts.len()), (50_005, 2));
        let header = send.seal(&buffers);
        let mut sends = ZeroCopies::new(true, features, 0);
        let Ok(slot) = sends.sends.insert(send) else { panic!("there is room for one") };
        // SAFETY: `sends` keeps what is pointed to until the notification, which is waited for below.
        unsafe { ring.push(&send_without_copy(near.as_raw_fd(), header, Kind::ZeroCopy.on(slot))).expect("the ring has room") };

        let mut seen = Vec::new();
        let result = next(&mut ring, &mut seen);
        assert!(result.more() && !result.notification());
        let sent = usize::try_from(result.result).expect("it was sent");
        queue.clear(&mut buffers);
        assert_eq!(buffers.available(BULK), 1, "the kernel reads from it");
        let mut octets = vec![0; sent];
        far.read_exact(&mut octets).expect("they arrive");
        assert!(octets[..5] == *b"head " && octets[5..].iter().enumerate().all(|(at, octet)| *octet == (at % 251) as u8));
        let notification = next(&mut ring, &mut seen);
        assert!(notification.notification() && !notification.more());
        sends.done(slot, &mut buffers);
        assert!(buffers.available(BULK) == 2 && buffers.at_rest());
    }
}
