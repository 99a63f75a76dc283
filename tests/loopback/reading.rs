//! Reads from sockets with a time limit. Linux ends such a read with EINTR, and does not begin it again by itself, when the process
//! was stopped, frozen or traced meanwhile (signal(7)): that says nothing of the peer.

use std::io::{ErrorKind, Read, Result};

/// Does it until no signal comes in between.
///
/// # Errors
/// What it ends with otherwise.
pub fn undisturbed<T>(mut what: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match what() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Octets of a stream, as [`Read::read`].
pub fn read(stream: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    undisturbed(|| stream.read(buffer))
}
