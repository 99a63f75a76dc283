//! Pipes: octets on their way from one socket to another that never enter user space. A core has a bounded number of them and lends
//! one to a connection's queue as long as that holds such octets.

use crate::io::faults;
use crate::limits::MEDIA_PIPES_MAX;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// What a pipe is made for. It has a place for each page of that; the kernel's stretches of octets are between a frame and 32 KiB
/// long and take a place each.
const OCTETS: libc::c_int = 256 * 1024;

/// A pipe; its owner keeps count of what is in it.
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the kernel writes two descriptors into the array, which outlives the call.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fresh descriptors that nobody else owns; a refused size leaves the usual one.
        unsafe {
            libc::fcntl(ends[1], libc::F_SETPIPE_SZ, OCTETS);
            Ok(Self { out: OwnedFd::from_raw_fd(ends[0]), into: OwnedFd::from_raw_fd(ends[1]) })
        }
    }

    /// Takes up to so many octets out of a socket or another pipe, as many as there is room for; an error only where there are none.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock`: nothing is there, or the pipe is full.
    pub fn take(&self, from: RawFd, octets: usize) -> io::Result<usize> {
        let mut taken = 0;
        while taken < octets {
            match splice(from, self.into.as_raw_fd(), octets - taken, 0) {
                Ok(0) => break,
                Ok(more) => taken += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if taken == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(taken)
    }

    /// Where octets are taken out of it.
    pub fn end(&self) -> RawFd {
        self.out.as_raw_fd()
    }

    /// Takes so many of the octets that are in it out and drops them.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock`: it has not as many.
    pub fn forget(&self, octets: usize) -> io::Result<()> {
        let mut dropped = [0u8; 1024];
        until_gone(octets, |left| {
            let most = left.min(dropped.len());
            // SAFETY: the kernel writes at most so many octets into the array, which outlives the call.
            unsafe { libc::read(self.out.as_raw_fd(), dropped.as_mut_ptr().cast(), most) }
        })
    }

    /// Copies a few octets behind those that are in it; false, and nothing is in it more than before: there is no room, or they are
    /// too many to go in as one.
    pub fn put(&self, octets: &[u8]) -> bool {
        // SAFETY: the kernel reads the octets, which are borrowed until the call returns.
        octets.len() <= libc::PIPE_BUF
            && unsafe { libc::write(self.into.as_raw_fd(), octets.as_ptr().cast(), octets.len()) } == octets.len() as isize
    }

    /// Gives up to so many octets to a socket. `more`: others follow at once, so that a last short segment may wait for them.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock`: the socket takes none.
    pub fn give(&self, socket: RawFd, octets: usize, more: bool) -> io::Result<usize> {
        let more = if more { libc::SPLICE_F_MORE } else { 0 };
        waits(socket, false)?;
        let given = loop {
            match splice(self.out.as_raw_fd(), socket, octets, more) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                given => break given,
            }
        };
        waits(socket, true)?;
        given
    }
}

/// Whether calls that have no flag for it wait for a socket: `splice` has one for pipes alone. The ring is to find a socket that
/// waits, or a receive that finds nothing ends instead of staying armed.
fn waits(socket: RawFd, waits: bool) -> io::Result<()> {
    // SAFETY: a plain call on a descriptor that the caller owns.
    match unsafe { libc::fcntl(socket, libc::F_SETFL, if waits { 0 } else { libc::O_NONBLOCK }) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn splice(from: RawFd, to: RawFd, octets: usize, flags: libc::c_uint) -> io::Result<usize> {
    let flags = flags | libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    // SAFETY: no memory is passed, only descriptors that the caller owns.
    let moved = unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), octets, flags) };
    if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(moved as usize) }
}

/// Copies what lies in a socket, and leaves it there.
///
/// # Errors
/// The kernel's.
pub fn peek(socket: RawFd, octets: &mut [u8]) -> io::Result<usize> {
    let most = faults::offered(octets.len());
    // SAFETY: the kernel writes at most so many octets, which are borrowed until the call returns.
    let peeked = unsafe { libc::recv(socket, octets.as_mut_ptr().cast(), most, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    if peeked < 0 { Err(io::Error::last_os_error()) } else { Ok(peeked as usize) }
}

/// Takes octets that were peeked out of a socket and drops them, without a copy.
///
/// # Errors
/// The kernel's.
pub fn forget(socket: RawFd, octets: usize) -> io::Result<()> {
    until_gone(octets, |left| {
        // SAFETY: with MSG_TRUNC a TCP socket's octets are dropped (tcp(7)): nothing is written.
        unsafe { libc::recv(socket, std::ptr::null_mut(), left, libc::MSG_TRUNC | libc::MSG_DONTWAIT) }
    })
}

/// Calls what takes some of so many octets until all are taken.
fn until_gone(mut octets: usize, mut take: impl FnMut(usize) -> isize) -> io::Result<()> {
    while octets > 0 {
        match take(octets) {
            gone @ 1.. => octets -= gone as usize,
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// The pipes of a core.
#[derive(Default)]
pub struct Pipes {
    idle: Vec<Pipe>,
    /// Those that are lent.
    lent: usize,
    /// The kernel gave none: no more are asked for until one comes back.
    refused: bool,
}

impl Pipes {
    /// Whether there is one.
    pub const fn are_free(&self) -> bool {
        !self.idle.is_empty() || !self.refused && self.lent < MEDIA_PIPES_MAX
    }

    /// An empty pipe.
    pub fn lend(&mut self) -> Option<Pipe> {
        if !self.are_free() {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => match Pipe::new() {
                Ok(pipe) => pipe,
                Err(error) => {
                    tracing::warn!(%error, pipes = self.lent, "no more pipes: large bodies are copied where all are in use");
                    self.refused = true;
                    return None;
                }
            },
        };
        self.lent += 1;
        Some(pipe)
    }

    /// It comes back empty.
    pub fn back(&mut self, pipe: Pipe) {
        self.lent -= 1;
        self.refused = false;
        self.idle.push(pipe);
    }

    /// It holds octets that nobody will ever send.
    pub fn drop_full(&mut self, pipe: Pipe) {
        self.lent -= 1;
        drop(pipe);
    }

    /// As if the kernel gave none, nor one came back.
    #[cfg(test)]
    pub fn refuse(&mut self, refused: bool) {
        self.idle.clear();
        self.refused = refused;
    }

    /// No pipe is lent.
    pub const fn are_home(&self) -> bool {
        self.lent == 0
    }
}
