//! Waiting for a socket that took less than it was offered. The kernel borrows nothing: the octets stay in the connection's
//! queue, so that a lent buffer can be copied out, or the queue dropped, at any moment; and no two sends of one socket can
//! be in flight, which the kernel would reorder.

use super::Kind;
use crate::base::slab::Key;
use crate::io::ring::Plain;
use std::os::fd::RawFd;

/// Completes once when the socket takes octets again, or is broken.
pub fn arm(socket: RawFd, key: Key) -> Plain {
    Plain::poll(socket, libc::POLLOUT, Kind::Writable.on(key))
}
