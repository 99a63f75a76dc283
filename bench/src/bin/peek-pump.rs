//! A TCP pump that looks before it splices: octets are peeked into one buffer and searched, and what was searched goes from socket
//! to pipe to socket. So they are copied once, not twice: the limit for any relay that looks at all it relays and changes nothing of
//! it. `peek-pump LISTEN TO`

use cpm_bench::pipe::{CHUNK, Pipe, splice};
use cpm_bench::pump::{self, Pair};
use std::io;
use std::os::fd::AsRawFd;

/// One direction: from a socket to another. It has a pipe only while that holds something, so that sessions that stand idle
/// cost no descriptors but their sockets'.
#[derive(Default)]
struct Way {
    pipe: Option<Pipe>,
    held: usize,
    /// Octets of the socket that were searched already.
    searched: usize,
    ended: bool,
}

impl Way {
    /// Moves what can be moved; false when the pair is done for. Empty pipes lie in `idle`.
    fn pump(&mut self, from: i32, to: i32, buffer: &mut [u8], idle: &mut Vec<Pipe>) -> bool {
        let Some(pipe) = self.pipe.take().or_else(|| idle.pop()).or_else(|| Pipe::new().ok()) else { return false };
        let alive = self.through(&pipe, from, to, buffer);
        if self.held > 0 {
            self.pipe = Some(pipe);
        } else {
            idle.push(pipe);
        }
        alive
    }

    fn through(&mut self, pipe: &Pipe, from: i32, to: i32, buffer: &mut [u8]) -> bool {
        loop {
            if self.held == 0 && !self.ended {
                if self.searched == 0 {
                    match peek(from, buffer) {
                        Ok(0) => self.ended = true,
                        Ok(octets) => self.searched = octets,
                        Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                    }
                    std::hint::black_box(rows(&buffer[..self.searched]));
                }
                match splice(from, pipe.0[1], self.searched) {
                    Ok(_) if self.ended => {}
                    Ok(moved) => (self.held, self.searched) = (moved, self.searched - moved),
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
            if self.held == 0 {
                // SAFETY: plain descriptor; the far end learns that nothing more comes.
                unsafe { libc::shutdown(to, libc::SHUT_WR) };
                return true;
            }
            match splice(pipe.0[0], to, self.held) {
                Ok(moved) => self.held -= moved,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

/// What lies in the socket, which stays there.
fn peek(socket: i32, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most the buffer's length into it.
    let octets = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    if octets < 0 { Err(io::Error::last_os_error()) } else { Ok(octets as usize) }
}

/// Blocks of octets with four dashes side by side at a multiple of four, as each end-line has them.
fn rows(octets: &[u8]) -> usize {
    let (words, _) = octets.as_chunks::<4>();
    words.chunks(32).filter(|block| block.iter().fold(false, |found, word| found | (word == b"----"))).count()
}

impl pump::Way for Way {
    fn is_over(&self) -> bool {
        self.ended && self.held == 0
    }
}

fn main() -> io::Result<()> {
    let mut idle: Vec<Pipe> = Vec::new();
    let mut buffer = vec![0; CHUNK];
    pump::run("peek-pump", |pair: &mut Pair<Way>, _, _| {
        let [near, far] = pair.sockets.each_ref().map(AsRawFd::as_raw_fd);
        let [there, back] = &mut pair.ways;
        there.pump(near, far, &mut buffer, &mut idle) & back.pump(far, near, &mut buffer, &mut idle)
    })
}
