//! Multishot receive into provided buffers: the kernel fills buffers of the group it was armed with until the peer closes,
//! an error, the group is empty, or the credit is used up.

use super::Kind;
use crate::base::slab::Key;
use crate::io::ring::{Completion, Group, Plain};
use std::os::fd::RawFd;

/// What came of it. Whether the operation goes on is [`Completion::more`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// So many octets in this buffer.
    Octets { buffer: u16, octets: u32 },
    /// The peer will send no more.
    End,
    /// The group has no buffer left.
    NoBuffer,
    /// It was cancelled, or is to be armed again for no fault of the peer's.
    Again,
    /// The connection is broken.
    Broken,
}

/// Receives into `group`, and stops by itself after `credit` octets where the kernel counts them.
pub fn arm(socket: RawFd, group: Group, credit: Option<u32>, key: Key) -> Plain {
    Plain::receive(socket, group, credit, Kind::Receive.on(key))
}

/// Reads a completion.
pub fn read(completion: &Completion) -> Received {
    match (completion.result, completion.buffer()) {
        (octets @ 1.., Some(buffer)) => Received::Octets { buffer, octets: octets as u32 },
        (0, _) => Received::End,
        (error, _) => match -error {
            // The kernel's memory comes back as buffers do: nothing is wrong with the connection.
            libc::ENOBUFS | libc::ENOMEM => Received::NoBuffer,
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => Received::Again,
            _ => Received::Broken,
        },
    }
}
