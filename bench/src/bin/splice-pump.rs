//! A blind TCP pump by splice(2): octets go from socket to pipe to socket without entering user space. It parses nothing, so it is
//! the kernel's limit for any relay, and nothing more. `splice-pump LISTEN TO`

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
    ended: bool,
}

impl Way {
    /// Moves what can be moved; false when the pair is done for. Empty pipes lie in `idle`.
    fn pump(&mut self, from: i32, to: i32, idle: &mut Vec<Pipe>) -> bool {
        let Some(pipe) = self.pipe.take().or_else(|| idle.pop()).or_else(|| Pipe::new().ok()) else { return false };
        let alive = self.through(&pipe, from, to);
        if self.held > 0 {
            self.pipe = Some(pipe);
        } else {
            idle.push(pipe);
        }
        alive
    }

    fn through(&mut self, pipe: &Pipe, from: i32, to: i32) -> bool {
        loop {
            if self.held == 0 && !self.ended {
                match splice(from, pipe.0[1], CHUNK) {
                    Ok(0) => self.ended = true,
                    Ok(moved) => self.held = moved,
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

impl pump::Way for Way {
    fn is_over(&self) -> bool {
        self.ended && self.held == 0
    }
}

fn main() -> io::Result<()> {
    let mut idle: Vec<Pipe> = Vec::new();
    pump::run("splice-pump", |pair: &mut Pair<Way>, _, _| {
        let [near, far] = pair.sockets.each_ref().map(AsRawFd::as_raw_fd);
        let [there, back] = &mut pair.ways;
        there.pump(near, far, &mut idle) & back.pump(far, near, &mut idle)
    })
}
