//! RFC 3261 §18: SIP over UDP. One multishot recvmsg a socket brings every datagram without a system call of its own; what a
//! turn has to send goes out in one sendmmsg a socket.
//!
//! Cost of a datagram: one copy by the kernel into a lent buffer; of an answer: one copy into the batch, 1/n of a system call.

use super::filter;
use super::lanes::Mark;
use super::op::{self, Op};
use super::sockets::{self, Bound};
use super::unreachable::Sent;
use crate::base::transport::{Flow, Transport};
use crate::io::faults;
use crate::io::ring::{Group, receive_datagrams};
use io_uring::{squeue, types};
use socket2::{SockAddr, Socket};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};

/// Octets of a lent buffer: the largest datagram, and the head, name and control data that recvmsg puts before it.
pub const BUFFER_OCTETS: u32 = 65_536 + 512;
/// Buffers a core lends: the datagrams that may wait for one turn. Further ones wait in the socket's own buffer.
pub const BUFFERS: u16 = 256;
/// Datagrams that may wait for a socket with no room; more are dropped, as the network may drop them (RFC 3261 §17 resends).
const WAITING_MAX: usize = 4096;
/// How often a datagram is tried again that met an error, which may be another's.
const RETRIES: u32 = 2;
/// Datagrams in one sendmmsg.
const BATCH_MAX: usize = 64;
const NAME_OCTETS: usize = std::mem::size_of::<libc::sockaddr_storage>();
const CONTROL_OCTETS: usize = 64;

/// A datagram to be sent.
struct Waiting {
    socket: usize,
    to: SocketAddr,
    octets: Range<usize>,
    mark: Mark,
}

/// The UDP sockets of a core.
pub struct Udp {
    sockets: Vec<Bound>,
    /// What multishot recvmsg is told about the room for name and control data; the kernel reads it when the operation is armed.
    shape: Box<libc::msghdr>,
    waiting: Vec<Waiting>,
    octets: Vec<u8>,
    sent: Sent,
    /// Datagrams dropped because a socket had no room.
    pub dropped: u64,
}

/// A datagram as it came in.
pub struct Datagram<'b> {
    pub flow: Flow,
    pub octets: &'b [u8],
    /// When the kernel had it: seconds and nanoseconds of the wall clock.
    pub stamp: Option<(i64, i64)>,
    /// The kernel cut it: it was larger than any buffer.
    pub truncated: bool,
}

impl Udp {
    /// Takes the UDP sockets of a core.
    pub fn new(sockets: Vec<Bound>) -> Self {
        // SAFETY: an all-zero msghdr is a valid empty one.
        let mut shape: libc::msghdr = unsafe { std::mem::zeroed() };
        shape.msg_namelen = NAME_OCTETS as libc::socklen_t;
        shape.msg_controllen = CONTROL_OCTETS as _;
        // A process that we take over from may have left its own.
        sockets.iter().for_each(|bound| unfiltered(&bound.socket));
        Self { sockets, shape: Box::new(shape), waiting: Vec::new(), octets: Vec::new(), sent: Sent::default(), dropped: 0 }
    }

    /// Has the kernel drop `share` of 256 new calls at every socket; 0: none. `salt` decides which.
    ///
    /// # Errors
    /// The kernel takes no filter. Then none is left at any socket.
    pub fn filter(&self, share: u8, salt: u32) -> io::Result<()> {
        let filter = filter::dropping(share, salt);
        for bound in &self.sockets {
            if share == 0 {
                unfiltered(&bound.socket);
            } else if let Err(error) = bound.socket.attach_filter(&filter) {
                self.sockets.iter().for_each(|bound| unfiltered(&bound.socket));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Datagrams that came to our sockets since they were bound and did not reach us: no room was left, or the filter dropped them.
    pub fn not_taken(&self) -> u64 {
        self.sockets.iter().map(|bound| u64::from(sockets::dropped(&bound.socket))).sum()
    }

    /// Sockets of this core.
    pub fn count(&self) -> usize {
        self.sockets.len()
    }

    /// The operation that brings datagrams of a socket until it ends.
    pub fn receive(&self, socket: usize, group: Group) -> squeue::Entry {
        let fd = self.sockets[socket].socket.as_raw_fd();
        receive_datagrams(fd, &raw const *self.shape, group, op::name(Op::Datagram, socket as u32, 0))
    }

    /// Reads what a completion of [`Udp::receive`] brought; `buffer` is as much of it as the kernel wrote.
    pub fn read<'b>(&self, socket: usize, core: u8, buffer: &'b [u8]) -> Option<Datagram<'b>> {
        let out = types::RecvMsgOut::parse(buffer, &self.shape).ok()?;
        let peer = peer(out.name_data())?;
        let listener = self.sockets[socket].listener;
        // The datagram is what follows the room for name and control data; the crate lends it no longer than `out` lives.
        let octets = &buffer[buffer.len() - out.payload_data().len()..];
        Some(Datagram {
            flow: Flow { transport: Transport::Udp, core, listener, connection: 0, peer },
            octets,
            stamp: stamp(out.control_data()),
            truncated: out.is_payload_truncated(),
        })
    }

    /// The socket of a listener.
    pub fn of_listener(&self, listener: u8) -> Option<usize> {
        self.sockets.iter().position(|socket| socket.listener == listener)
    }

    /// Our address at a socket.
    pub fn local(&self, socket: usize) -> SocketAddr {
        self.sockets[socket].address
    }

    /// The socket from which an address can be reached: the first of its family.
    pub fn towards(&self, to: SocketAddr) -> Option<usize> {
        self.sockets.iter().position(|socket| socket.address.is_ipv4() == to.is_ipv4())
    }

    /// Queues a datagram for the end of the turn.
    pub fn send(&mut self, socket: usize, to: SocketAddr, octets: &[u8], mark: Mark) {
        if self.waiting.len() >= WAITING_MAX {
            self.dropped += 1;
            return;
        }
        self.sent.remember(octets, mark);
        let start = self.octets.len();
        self.octets.extend_from_slice(octets);
        self.waiting.push(Waiting { socket, to, octets: start..self.octets.len(), mark });
    }

    /// The network said something about datagrams of a socket: tells who sent them.
    pub fn undelivered(&mut self, socket: usize, failed: impl FnMut(Mark)) {
        self.sent.undelivered(self.sockets[socket].socket.as_raw_fd(), failed);
    }

    /// Whether something waits to be sent.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends what is queued, as far as the sockets have room. Tells through `failed` what can never be sent and through `full`
    /// which socket had no room.
    pub fn flush(&mut self, mut failed: impl FnMut(Mark), mut full: impl FnMut(usize, RawFd)) {
        let waiting = std::mem::take(&mut self.waiting);
        let mut rest = waiting.into_iter().peekable();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut blocked: Vec<usize> = Vec::new();
        let mut kept = Vec::new();
        while let Some(first) = rest.next() {
            if blocked.contains(&first.socket) {
                kept.push(first);
                continue;
            }
            let socket = first.socket;
            batch.push(first);
            while batch.len() < BATCH_MAX && rest.peek().is_some_and(|next| next.socket == socket) {
                batch.extend(rest.next());
            }
            if self.send_batch(&mut batch, &mut failed) {
                blocked.push(socket);
                full(socket, self.sockets[socket].socket.as_raw_fd());
                kept.append(&mut batch);
            }
        }
        self.keep(kept);
    }

    /// Sends a batch for one socket. Answers whether the socket is full; what it did not take is left in the batch.
    fn send_batch(&self, batch: &mut Vec<Waiting>, failed: &mut impl FnMut(Mark)) -> bool {
        let mut refused = 0;
        while let Some(socket) = batch.first().map(|first| first.socket) {
            match send_many(self.sockets[socket].socket.as_raw_fd(), &self.octets, batch) {
                Ok(sent) => {
                    refused = 0;
                    drop(batch.drain(..sent));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS)) => return true,
                // A socket tells with the next call what became of an earlier datagram: this one is tried again.
                Err(_) if refused < RETRIES => refused += 1,
                // RFC 3261 §18.4: a datagram that cannot be sent is told to whom wrote it. EMSGSIZE, EHOSTUNREACH …
                Err(_) => {
                    refused = 0;
                    failed(batch.remove(0).mark);
                }
            }
        }
        false
    }

    /// Moves what could not be sent to the front of an else empty batch.
    fn keep(&mut self, kept: Vec<Waiting>) {
        if kept.is_empty() {
            self.octets.clear();
            return;
        }
        let octets = std::mem::take(&mut self.octets);
        for datagram in kept {
            let start = self.octets.len();
            self.octets.extend_from_slice(&octets[datagram.octets.clone()]);
            self.waiting.push(Waiting { octets: start..self.octets.len(), ..datagram });
        }
    }
}

fn unfiltered(socket: &Socket) {
    // It fails where there is none.
    let _ = socket.detach_filter();
}

/// One sendmmsg. Answers how many datagrams went out, at least one.
fn send_many(fd: i32, octets: &[u8], batch: &[Waiting]) -> io::Result<usize> {
    if let Some(error) = faults::errno() {
        return Err(io::Error::from_raw_os_error(error));
    }
    let batch = &batch[..faults::offered(batch.len())];
    let names: Vec<SockAddr> = batch.iter().map(|datagram| datagram.to.into()).collect();
    let mut pieces: Vec<libc::iovec> = batch
        .iter()
        .map(|datagram| {
            let piece = &octets[datagram.octets.clone()];
            libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: piece.len() }
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = names
        .iter()
        .zip(&mut pieces)
        .map(|(name, piece)| {
            // SAFETY: an all-zero mmsghdr is a valid empty one.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = name.len();
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: names, pieces and octets live in `names`, `pieces` and `octets` until the call returns; the kernel only reads them.
    let sent =
        unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), messages.len() as u32, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn peer(name: &[u8]) -> Option<SocketAddr> {
    if name.len() > NAME_OCTETS {
        return None;
    }
    // SAFETY: `sockaddr_storage` is plain data of NAME_OCTETS octets; at most so many are copied into it.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            std::ptr::copy_nonoverlapping(name.as_ptr(), storage.cast::<u8>(), name.len());
            *length = name.len() as libc::socklen_t;
            Ok(())
        })
        .ok()?
    };
    address.as_socket()
}

/// The kernel's receive time among the control data, where it stands (`SO_TIMESTAMPNS`).
fn stamp(control: &[u8]) -> Option<(i64, i64)> {
    let head = std::mem::size_of::<libc::cmsghdr>();
    if control.len() < head + std::mem::size_of::<libc::timespec>() {
        return None;
    }
    // SAFETY: `control` holds a whole cmsghdr and a whole timespec behind it, both plain data, read unaligned. It is the only
    // control message asked for.
    unsafe {
        let message = control.as_ptr().cast::<libc::cmsghdr>().read_unaligned();
        if (message.cmsg_level, message.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) {
            return None;
        }
        let time = control.as_ptr().add(head).cast::<libc::timespec>().read_unaligned();
        Some((time.tv_sec, time.tv_nsec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    const CALLS: usize = 64;

    /// How many of so many new calls come through to a socket.
    fn taken(sender: &UdpSocket, receiver: &UdpSocket, udp: &Udp) -> usize {
        let before = udp.not_taken();
        for number in 0..CALLS {
            let invite = format!("INVITE sip:bob@b SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK{number}\r\n{}", "x".repeat(300));
            sender.send_to(invite.as_bytes(), receiver.local_addr().unwrap()).unwrap();
        }
        let (mut buffer, mut taken) = ([0; 1024], 0);
        // Under load the kernel may take them a moment later.
        while taken + (udp.not_taken() - before) as usize != CALLS {
            taken += std::iter::from_fn(|| receiver.recv(&mut buffer).ok()).count();
        }
        taken
    }

    #[test]
    fn a_filter_is_set_and_taken_off_and_what_another_process_left_goes() {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_nonblocking(true).unwrap();
        let bound = || {
            let (address, socket) = (receiver.local_addr().unwrap(), receiver.try_clone().unwrap().into());
            vec![Bound { listener: 0, transport: Transport::Udp, address, socket }]
        };
        let before = Udp::new(bound());
        assert_eq!(taken(&sender, &receiver, &before), CALLS);
        before.filter(192, 1).unwrap();
        let passed = taken(&sender, &receiver, &before);
        assert!((1..CALLS / 2).contains(&passed), "{passed}");
        // The process that takes over has the same socket by another descriptor.
        let after = Udp::new(bound());
        assert_eq!(taken(&sender, &receiver, &after), CALLS);
        after.filter(192, 1).unwrap();
        assert_eq!(taken(&sender, &receiver, &after), passed, "the same calls");
        after.filter(0, 1).unwrap();
        assert_eq!(taken(&sender, &receiver, &after), CALLS);
    }
}
