//! A blind TCP pump with one buffer: octets are received into it and sent out of it, one receive plus one send and nothing else. So
//! it is the limit for any relay that looks at what it relays, under the same load. `copy-pump LISTEN TO`

use cpm_bench::pump::{self, Pair};
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

/// Octets of the buffer: it stays in the second-level cache.
const BUFFER: usize = 256 * 1024;

/// One direction: what the far socket did not take, and how much of that it has taken since.
#[derive(Default)]
struct Way {
    left: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl Way {
    /// Moves what can be moved.
    fn pump(&mut self, mut from: &TcpStream, mut to: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            while self.sent < self.left.len() {
                match to.write(&self.left[self.sent..]) {
                    Ok(octets) => self.sent += octets,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            self.left.clear();
            self.sent = 0;
            if self.ended {
                return Ok(());
            }
            let octets = match from.read(buffer) {
                Ok(0) => {
                    self.ended = true;
                    return to.shutdown(Shutdown::Write);
                }
                Ok(octets) => octets,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let taken = match to.write(&buffer[..octets]) {
                Ok(taken) => taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.left.extend_from_slice(&buffer[taken..octets]);
            // A short read says that no more is there (epoll(7)).
            if taken == octets && octets < buffer.len() {
                return Ok(());
            }
        }
    }
}

impl pump::Way for Way {
    fn is_over(&self) -> bool {
        self.ended && self.left.is_empty()
    }
}

fn main() -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    pump::run("copy-pump", |pair: &mut Pair<Way>, side, event| {
        let Pair { sockets: [near, far], ways: [there, back] } = pair;
        // What is readable here goes to the other side, what is writable here comes from it.
        let ways = [(there, &*near, &*far, side == 0), (back, far, near, side == 1)];
        let mut alive = true;
        for (way, from, to, reads) in ways {
            let concerned = if reads { event.is_readable() } else { event.is_writable() };
            let pumped = if concerned { way.pump(from, to, &mut buffer) } else { Ok(()) };
            alive &= pumped.is_ok();
        }
        alive
    })
}
