//! Octets that were looked at in their socket ([`passing`](super::passing)): how they leave it, what goes on into a queue and what does
//! not into nothing.

use super::buffers::Buffers;
use super::pipe::{self, Pipe, Pipes};
use super::queue::Queue;
use crate::base::slab::Key;
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;

/// Octets that are in the hot buffer: where they came from, and how far they have left that.
pub struct Looked {
    from: Key,
    socket: RawFd,
    /// Up to here they have left.
    at: u32,
    end: u32,
    /// The first so many of the others are in this pipe.
    between: usize,
    pipe: Option<Pipe>,
}

impl Looked {
    /// What lies in a connection's socket was looked at: it is in this part of the hot buffer.
    pub const fn new(from: Key, socket: RawFd, octets: Range<u32>) -> Self {
        Self { from, socket, at: octets.start, end: octets.end, between: 0, pipe: None }
    }

    /// The connection that it came from.
    pub const fn from(&self) -> Key {
        self.from
    }

    /// Whether what begins there has not left yet.
    pub const fn has(&self, at: u32) -> bool {
        self.at <= at
    }

    /// Drops what comes before `upto`.
    ///
    /// # Errors
    /// The kernel's: the connection is broken.
    pub fn forget_upto(&mut self, upto: u32) -> io::Result<()> {
        let octets = (upto - self.at) as usize;
        let piped = octets.min(self.between);
        if let Some(pipe) = self.pipe.as_ref().filter(|_| piped > 0) {
            pipe.forget(piped)?;
            self.between -= piped;
        }
        pipe::forget(self.socket, octets - piped)?;
        self.at = upto;
        Ok(())
    }

    /// Moves the next octets into a queue, as many of so many as pipes have room for.
    pub fn give(&mut self, octets: usize, queue: &mut Queue, turn: &[u8], buffers: &mut Buffers) -> usize {
        let direct = self.between == 0 && 2 * octets > (self.end - self.at) as usize;
        if !direct && self.pipe.is_none() {
            self.pipe = buffers.pipes.lend();
        }
        let mut given = 0;
        while given < octets {
            let more = match &self.pipe {
                Some(pipe) if !direct => {
                    if self.between == 0 {
                        self.between = pipe.take(self.socket, (self.end - self.at) as usize).unwrap_or(0);
                    }
                    let more = queue.take_from(pipe.end(), self.between.min(octets - given), turn, buffers);
                    self.between -= more;
                    more
                }
                _ => queue.take_from(self.socket, octets - given, turn, buffers),
            };
            if more == 0 {
                break;
            }
            given += more;
            self.at += more as u32;
        }
        given
    }

    /// The look is over: gives the pipe back.
    pub fn over(self, pipes: &mut Pipes) {
        match self.pipe {
            Some(pipe) if self.between == 0 => pipes.back(pipe),
            Some(pipe) => pipes.drop_full(pipe),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::io::media::buffers::{Pool, Pools};
    use crate::io::probe::Features;
    use crate::io::ring::Ring;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    /// Fewer than the smallest window lets come in unread.
    const OCTETS: usize = 30_000;

    /// Two sockets that are connected to each other.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let near = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        (near, listener.accept().expect("a connection waits").0)
    }

    /// All that is in a queue of pipes, as a socket brings it.
    fn sent(queue: &mut Queue, buffers: &mut Buffers) -> Vec<u8> {
        let (near, mut far) = connected();
        near.set_nodelay(true).expect("a socket can");
        let (mut came, total) = (Vec::new(), queue.octets());
        while let Some((pipe, octets, _)) = queue.pipe_in_front() {
            let given = pipe.give(near.as_raw_fd(), octets.min(16 * 1024), false).expect("the socket is empty");
            queue.sent(given, buffers);
            let at = came.len();
            came.resize(at + given, 0);
            far.read_exact(&mut came[at..]).expect("what is sent arrives");
        }
        assert_eq!(came.len(), total, "nothing lies elsewhere");
        came
    }

    #[test]
    fn what_goes_on_goes_on_and_all_else_is_gone_whether_pipes_are_to_be_had_or_not() {
        let ring = Ring::new(8, 32, false).expect("the tests run where the product runs");
        let pool = Pool { count: 2, octets_each: 4096 };
        let mut buffers =
            Buffers::new(&ring, Pools { chat: pool, bulk: pool }, Features::default()).expect("a ring takes buffers");
        for seed in 0..20 {
            let mut prng = Prng::seeded(seed);
            let content: Vec<u8> = (0..OCTETS).map(|_| prng.below(256) as u8).collect();
            let (mut near, mut far) = connected();
            let mut hot = vec![0; OCTETS + 4];
            let mut looked = std::thread::scope(|scope| {
                scope.spawn(|| near.write_all(&[&content[..], b"next"].concat()).expect("it is connected"));
                let peeked = |hot: &mut [u8]| pipe::peek(far.as_raw_fd(), hot).unwrap_or(0);
                while peeked(&mut hot) < OCTETS + 4 {
                    std::thread::yield_now();
                }
                Looked::new(Key::from_u64(1), far.as_raw_fd(), 0..OCTETS as u32)
            });
            let (mut queue, mut expected, mut at) = (Queue::default(), Vec::new(), 0);
            while at < OCTETS {
                at = (at + prng.below(300) as usize).min(OCTETS);
                looked.forget_upto(at as u32).expect("it is there");
                let wanted = (1 + prng.below(20_000) as usize).min(OCTETS - at);
                buffers.pipes.refuse(prng.below(3) == 0);
                let given = looked.give(wanted, &mut queue, b"", &mut buffers);
                buffers.pipes.refuse(false);
                expected.extend_from_slice(&content[at..at + given]);
                // What there was no pipe for is copied by whoever asks, and gone with the next.
                at += wanted;
                if queue.put(b"a head") {
                    expected.extend_from_slice(b"a head");
                }
            }
            looked.forget_upto(OCTETS as u32).expect("it is there");
            looked.over(&mut buffers.pipes);
            assert!(sent(&mut queue, &mut buffers) == expected, "seed {seed}");
            assert!(buffers.pipes.are_home(), "seed {seed}");
            let mut next = [0; 4];
            far.read_exact(&mut next).expect("it is there");
            assert_eq!(&next, b"next");
        }
    }
}
