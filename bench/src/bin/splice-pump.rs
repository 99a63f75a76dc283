//! A blind TCP pump by splice(2): octets go from socket to pipe to socket without entering user space. It parses nothing, so it is
//! the kernel's limit for any relay, and nothing more. `splice-pump LISTEN TO`

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

const CHUNK: usize = 256 * 1024;

/// One direction: from a socket through a pipe to another.
struct Way {
    pipe: [i32; 2],
    held: usize,
    ended: bool,
}

struct Pair {
    sockets: [TcpStream; 2],
    ways: [Way; 2],
}

impl Way {
    fn new() -> io::Result<Self> {
        let mut pipe = [0; 2];
        // SAFETY: the kernel writes two descriptors into the array that outlives the call.
        if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain descriptor and number; a refusal leaves the default size.
        unsafe { libc::fcntl(pipe[0], libc::F_SETPIPE_SZ, CHUNK as i32) };
        Ok(Self { pipe, held: 0, ended: false })
    }

    /// Moves what can be moved; false when the pair is done for.
    fn pump(&mut self, from: i32, to: i32) -> bool {
        loop {
            if self.held == 0 && !self.ended {
                match splice(from, self.pipe[1]) {
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
            match splice(self.pipe[0], to) {
                Ok(moved) => self.held -= moved,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        // SAFETY: the descriptors are this value's own and closed once.
        unsafe {
            libc::close(self.pipe[0]);
            libc::close(self.pipe[1]);
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

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|word| word.parse::<SocketAddr>().ok());
    let (Some(listen), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("splice-pump LISTEN TO"));
    };
    let mut listener = TcpListener::bind(listen)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((mut near, _)) = listener.accept() {
                    let mut far = TcpStream::connect(to)?;
                    near.set_nodelay(true)?;
                    far.set_nodelay(true)?;
                    let at = pairs.iter().position(Option::is_none).unwrap_or(pairs.len());
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut near, Token(1 + at * 2), interest)?;
                    poll.registry().register(&mut far, Token(2 + at * 2), interest)?;
                    let pair = Some(Pair { sockets: [near, far], ways: [Way::new()?, Way::new()?] });
                    if at == pairs.len() { pairs.push(pair) } else { pairs[at] = pair }
                }
                continue;
            }
            let at = (event.token().0 - 1) / 2;
            let Some(pair) = &mut pairs[at] else { continue };
            let fds = [pair.sockets[0].as_raw_fd(), pair.sockets[1].as_raw_fd()];
            let alive = pair.ways[0].pump(fds[0], fds[1]) & pair.ways[1].pump(fds[1], fds[0]);
            if !alive || pair.ways.iter().all(|way| way.ended && way.held == 0) {
                pairs[at] = None;
            }
        }
    }
}
