//! Connect: the kernel borrows the address until the completion; the connection's slot owns it, boxed, until then.

use super::Kind;
use crate::base::slab::Key;
use io_uring::squeue::Entry;
use io_uring::{opcode, types::Fd};
use socket2::SockAddr;
use std::os::fd::RawFd;

/// Connects; completes with 0 or the error. The entry points to `address`.
pub fn arm(socket: RawFd, address: &SockAddr, key: Key) -> Entry {
    opcode::Connect::new(Fd(socket), address.as_ptr().cast(), address.len()).build().user_data(Kind::Connect.on(key))
}
