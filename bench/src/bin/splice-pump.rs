//! A blind TCP pump by splice(2): octets go from socket to pipe to socket without entering user space. It parses nothing, so it is
//! the kernel's limit for any relay, and nothing more. `splice-pump LISTEN TO`

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

const CHUNK: usize = 256 * 1024;

/// A pipe that octets pass through.
struct Pipe([i32; 2]);

impl Pipe {
    fn new() -> io::Result<Self> {
        let mut pipe = [0; 2];
        // SAFETY: the kernel writes two descriptors into the array that outlives the call.
        if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain descriptor and number; a refusal leaves the default size.
        unsafe { libc::fcntl(pipe[0], libc::F_SETPIPE_SZ, CHUNK as i32) };
        Ok(Self(pipe))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // SAFETY: the descriptors are this value's own and closed once.
        unsafe {
            libc::close(self.0[0]);
            libc::close(self.0[1]);
        }
    }
}

/// One direction: from a socket to another. It has a pipe only while that holds something, so that sessions that stand idle
/// cost no descriptors but their sockets'.
#[derive(Default)]
struct Way {
    pipe: Option<Pipe>,
    held: usize,
    ended: bool,
}

struct Pair {
    sockets: [TcpStream; 2],
    ways: [Way; 2],
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
                match splice(from, pipe.0[1]) {
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
            match splice(pipe.0[0], to) {
                Ok(moved) => self.held -= moved,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

fn splice(from: i32, to: i32) -> io::Result<usize> {
    // SAFETY: no memory is passed, only descriptors that the caller owns.
    let moved = unsafe {
        libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), CHUNK, libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE)
    };
    if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(moved as usize) }
}

/// The connection to the far end for one that was accepted; both are watched under the numbers of place `at`.
fn join(mut near: TcpStream, to: SocketAddr, poll: &Poll, at: usize) -> io::Result<Pair> {
    let mut far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut near, Token(1 + at * 2), interest)?;
    poll.registry().register(&mut far, Token(2 + at * 2), interest)?;
    Ok(Pair { sockets: [near, far], ways: Default::default() })
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|word| word.parse::<SocketAddr>().ok());
    let (Some(listen), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("splice-pump LISTEN TO"));
    };
    let mut listener = TcpListener::bind(listen)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    let (mut pairs, mut idle): (Vec<Option<Pair>>, Vec<Pipe>) = (Vec::new(), Vec::new());
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((near, _)) = listener.accept() {
                    let at = pairs.iter().position(Option::is_none).unwrap_or(pairs.len());
                    match join(near, to, &poll, at) {
                        Ok(pair) if at == pairs.len() => pairs.push(Some(pair)),
                        Ok(pair) => pairs[at] = Some(pair),
                        Err(error) => eprintln!("splice-pump: a connection is dropped: {error}"),
                    }
                }
                continue;
            }
            let at = (event.token().0 - 1) / 2;
            let Some(pair) = &mut pairs[at] else { continue };
            let fds = [pair.sockets[0].as_raw_fd(), pair.sockets[1].as_raw_fd()];
            let alive = pair.ways[0].pump(fds[0], fds[1], &mut idle) & pair.ways[1].pump(fds[1], fds[0], &mut idle);
            if !alive || pair.ways.iter().all(|way| way.ended && way.held == 0) {
                pairs[at] = None;
            }
        }
    }
}
