//! RFC 3261 §18.4: the network says that a datagram could not be delivered. The kernel keeps such ICMP messages, with the beginning of
//! the datagram, in a queue beside the socket (`IP_RECVERR`); who sent it is found by that beginning.

use super::lanes::Mark;
use crate::base::hash::Spread;
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// Datagrams remembered: the requests of some seconds. What is older fails by its timer.
const REMEMBERED_MAX: usize = 8 * 1024;
/// Octets that tell datagrams apart: start line and top Via with its branch. An ICMP message quotes at least so many.
const BEGINNING_OCTETS: usize = 192;
/// Messages read from the queue in one go.
const ERRORS_MAX: usize = 64;

/// Who sent which datagram.
#[derive(Default)]
pub struct Sent {
    by_beginning: HashMap<u64, Mark>,
    order: VecDeque<u64>,
}

impl Sent {
    /// Remembers a datagram that somebody wants to hear of.
    pub fn remember(&mut self, octets: &[u8], mark: Mark) {
        if !mark.wanted() || octets.len() < BEGINNING_OCTETS {
            return;
        }
        let beginning = hash(octets);
        if self.by_beginning.insert(beginning, mark).is_none() {
            self.order.push_back(beginning);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_beginning.remove(&oldest);
        }
    }

    /// Who sent a datagram that begins so. Told once; what is sent again is remembered again.
    fn forget(&mut self, octets: &[u8]) -> Option<Mark> {
        if octets.len() < BEGINNING_OCTETS { None } else { self.by_beginning.remove(&hash(octets)) }
    }

    /// Takes what the network said about datagrams of a socket, and tells who sent them.
    pub fn undelivered(&mut self, fd: RawFd, mut failed: impl FnMut(Mark)) {
        let mut beginning = [0; 512];
        for _ in 0..ERRORS_MAX {
            let Some((octets, final_)) = next(fd, &mut beginning) else { return };
            if let Some(mark) = self.forget(&beginning[..octets]).filter(|_| final_) {
                failed(mark);
            }
        }
    }
}

/// The next entry of the error queue: how much of the datagram it quotes, and whether it says that delivery failed.
fn next(fd: RawFd, beginning: &mut [u8]) -> Option<(usize, bool)> {
    let mut control = [MaybeUninit::<u64>::uninit(); 64];
    let mut piece = libc::iovec { iov_base: beginning.as_mut_ptr().cast(), iov_len: beginning.len() };
    // SAFETY: an all-zero msghdr is a valid empty one; `piece`, `beginning` and `control` outlive the call, which writes no more than
    // the lengths given. The control messages are walked by the kernel's own macros over what it wrote.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = std::mem::size_of_val(&control) as _;
        let octets = libc::recvmsg(fd, &mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT);
        let octets = usize::try_from(octets).ok()?;
        let mut unreachable = false;
        let mut part = libc::CMSG_FIRSTHDR(&message);
        while !part.is_null() {
            let kind = ((*part).cmsg_level, (*part).cmsg_type);
            if matches!(kind, (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)) {
                let error = libc::CMSG_DATA(part).cast::<libc::sock_extended_err>().read_unaligned();
                // §18.4: host, network, port and protocol unreachable count; what says "later" does not.
                let number = error.ee_errno as i32;
                unreachable |= matches!(number, libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENOPROTOOPT);
            }
            part = libc::CMSG_NXTHDR(&message, part);
        }
        Some((octets, unreachable))
    }
}

fn hash(octets: &[u8]) -> u64 {
    let mut spread = Spread::default();
    spread.write(&octets[..BEGINNING_OCTETS]);
    spread.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::outbox::SendTag;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_closed_port_is_told_to_whom_sent_there() {
        let closed = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).unwrap();
        let socket = super::super::sockets::bind(
            &[crate::config::Listen {
                transport: crate::base::transport::Transport::Udp,
                address: "127.0.0.1:0".parse().unwrap(),
            }],
            1,
            &mut None,
        )
        .unwrap()
        .1
        .remove(0)
        .remove(0)
        .socket;
        let mark = Mark { core: 0, tag: SendTag(7) };
        let datagram = vec![b'x'; 1400];
        let mut sent = Sent::default();
        sent.remember(&datagram, mark);
        socket.send_to(&datagram, &closed.into()).unwrap();
        let mut told = Vec::new();
        // Over loopback the answer is there when the call returns.
        sent.undelivered(socket.as_raw_fd(), |mark| told.push(mark));
        assert_eq!(told, [mark]);
        sent.undelivered(socket.as_raw_fd(), |mark| told.push(mark));
        assert_eq!(told.len(), 1);
    }
}
