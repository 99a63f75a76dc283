//! What the blind pumps share: pairs of sockets, one that was accepted and one that was opened for it, and the loop around them.

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io;
use std::net::SocketAddr;

/// One direction of a pair.
pub trait Way: Default {
    /// Nothing more comes from its sender, and nothing is left to be sent.
    fn is_over(&self) -> bool;
}

/// Two sockets, and what is under way from each to the other.
pub struct Pair<W> {
    pub sockets: [TcpStream; 2],
    pub ways: [W; 2],
}

/// Runs a pump that is called `NAME LISTEN TO`: for each event `pump` moves what can be moved of a pair whose socket `side` it is
/// about, and says whether the pair is to live on.
///
/// # Errors
/// No such arguments, or the kernel gives no listener.
pub fn run<W: Way>(name: &str, mut pump: impl FnMut(&mut Pair<W>, usize, &Event) -> bool) -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|word| word.parse::<SocketAddr>().ok());
    let (Some(listen), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other(format!("{name} LISTEN TO")));
    };
    let mut listener = TcpListener::bind(listen)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
    let mut pairs: Vec<Option<Pair<W>>> = Vec::new();
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
                        Err(error) => eprintln!("{name}: a connection is dropped: {error}"),
                    }
                }
                continue;
            }
            let (at, side) = ((event.token().0 - 1) / 2, (event.token().0 - 1) % 2);
            let Some(pair) = &mut pairs[at] else { continue };
            if !pump(pair, side, event) || pair.ways.iter().all(W::is_over) {
                pairs[at] = None;
            }
        }
    }
}

/// The connection to the far end for one that was accepted; both are watched under the numbers of place `at`.
fn join<W: Way>(mut near: TcpStream, to: SocketAddr, poll: &Poll, at: usize) -> io::Result<Pair<W>> {
    let mut far = TcpStream::connect(to)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut near, Token(1 + at * 2), interest)?;
    poll.registry().register(&mut far, Token(2 + at * 2), interest)?;
    Ok(Pair { sockets: [near, far], ways: Default::default() })
}
