//! Multishot poll of the core's bell: the kernel borrows nothing; every ring of the bell completes once, and its counter
//! need not be read.

use super::Kind;
use crate::io::ring::Plain;
use std::os::fd::RawFd;

/// Completes whenever the bell is rung.
pub fn arm(bell: RawFd) -> Plain {
    Plain::poll_always(bell, libc::POLLIN, Kind::Wake.number(0))
}
