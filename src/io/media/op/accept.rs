//! Multishot accept: the kernel borrows nothing; every completion is a connected descriptor.

use super::Kind;
use crate::io::ring::{Completion, Plain};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// What came of it.
#[derive(Debug)]
pub enum Accepted {
    Connection(OwnedFd),
    /// The peer was gone before it was accepted; go on.
    Nothing,
    /// No descriptor or no memory is left: try again a little later.
    Scarce,
}

/// Accepts on the listener of this number until an error.
pub fn arm(listener: RawFd, number: u32) -> Plain {
    Plain::accept(listener, Kind::Accept.number(number))
}

/// Reads a completion.
pub fn read(completion: &Completion) -> Accepted {
    match completion.result {
        // SAFETY: the kernel opened this descriptor for us with this very completion.
        fd @ 0.. => Accepted::Connection(unsafe { OwnedFd::from_raw_fd(fd) }),
        error => match -error {
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => Accepted::Scarce,
            _ => Accepted::Nothing,
        },
    }
}
