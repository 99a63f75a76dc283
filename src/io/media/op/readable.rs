//! Waiting for octets that are to be looked at where they lie, in the socket. The kernel borrows nothing.

use super::Kind;
use crate::base::slab::Key;
use crate::io::ring::Plain;
use std::os::fd::RawFd;

/// Completes once when the socket has octets, its peer has closed, or it is broken.
pub fn arm(socket: RawFd, key: Key) -> Plain {
    Plain::poll(socket, libc::POLLIN | libc::POLLRDHUP, Kind::Readable.on(key))
}
