//! A blind TCP pump with one buffer: octets are received into it and sent out of it, one receive plus one send and nothing else. So
//! it is the limit for any relay that looks at what it relays, under the same load. `copy-pump LISTEN TO`

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

/// Octets of the buffer: it stays in the second-level cache.
const BUFFER: usize = 256 * 1024;

/// One direction: what the far socket did not take, and how much of that it has taken since.
#[derive(Default)]
struct Way {
    left: Vec<u8>,
    sent: usize,
    ended: bool,
}

struct Pair {
    sockets: [TcpStream; 2],
    ways: [Way; 2],
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
        return Err(io::Error::other("copy-pump LISTEN TO"));
    };
    let mut listener = TcpListener::bind(listen)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let (mut events, mut buffer) = (Events::with_capacity(1024), vec![0; BUFFER]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == Token(0) {
                while let Ok((near, _)) = listener.accept() {
                    let at = pairs.iter().position(Option::is_none).unwrap_or(pairs.len());
                    match join(near, to, &poll, at) {
                        Ok(pair) if at == pairs.len() => pairs.push(Some(pair)),
                        Ok(pair) => pairs[at] = Some(pair),
                        Err(error) => eprintln!("copy-pump: a connection is dropped: {error}"),
                    }
                }
                continue;
            }
            let (at, side) = ((event.token().0 - 1) / 2, (event.token().0 - 1) % 2);
            let Some(pair) = &mut pairs[at] else { continue };
            let Pair { sockets: [near, far], ways: [there, back] } = pair;
            // What is readable here goes to the other side, what is writable here comes from it.
            let ways = [(&mut *there, &*near, &*far, side == 0), (back, far, near, side == 1)];
            let mut alive = true;
            for (way, from, to, reads) in ways {
                let concerned = if reads { event.is_readable() } else { event.is_writable() };
                let pumped = if concerned { way.pump(from, to, &mut buffer) } else { Ok(()) };
                alive &= pumped.is_ok();
            }
            if !alive || pair.ways.iter().all(|way| way.ended && way.left.is_empty()) {
                pairs[at] = None;
            }
        }
    }
}
