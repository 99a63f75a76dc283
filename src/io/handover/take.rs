//! The side that takes over: it asks, and gets listening sockets, the stores' lock and what it must know.

use super::give;
use super::wire::{self, Frame, Given, Hello, PROTOCOL, Role};
use crate::config::{Config, Listen};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the old process may take to let go.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What was taken over.
#[derive(Debug)]
pub struct Taken {
    pub stream: UnixStream,
    sockets: Vec<(Role, Listen, Listen, OwnedFd)>,
    pub spool: OwnedFd,
    pub given: Box<Given>,
}

/// Asks the process at `node.handover` for everything. None: there is none.
///
/// # Errors
/// Why it cannot be taken over from.
pub fn ask(config: &Config) -> Result<Option<Taken>, String> {
    let Some(path) = &config.node.handover else {
        return Err("node.handover is not set: there is nobody to take over from".into());
    };
    let stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(format!("node.handover = \"{}\": {error}", path.display())),
    };
    receive(stream, config).map(Some)
}

fn receive(stream: UnixStream, config: &Config) -> Result<Taken, String> {
    let hello = Hello {
        protocol: PROTOCOL,
        release: env!("CARGO_PKG_VERSION").into(),
        cores: (config.cores.signaling.len() as u16, config.cores.media.len() as u16),
        stores: give::stores(config),
    };
    let broken = |error: io::Error| format!("the old process does not hand over: {error}");
    stream.set_read_timeout(Some(ANSWER_MAX)).map_err(broken)?;
    wire::write(&stream, &Frame::Hello(hello), b"", None).map_err(broken)?;
    let (mut sockets, mut lock) = (Vec::new(), None);
    loop {
        match wire::read(&stream).map_err(broken)? {
            Some((Frame::Socket { role, asked, bound }, _, Some(socket))) => sockets.push((role, asked, bound, socket)),
            Some((Frame::Spool, _, Some(descriptor))) => lock = Some(descriptor),
            Some((Frame::Given(given), ..)) => {
                let spool = lock.ok_or("the old process keeps its spool")?;
                return Ok(Taken { stream, sockets, spool, given });
            }
            Some((Frame::Refused { why }, ..)) => return Err(format!("the old process refuses: {why}")),
            Some(_) => return Err("the old process says what is no hand-over".into()),
            None => return Err("the old process is gone".into()),
        }
    }
}

impl Taken {
    /// Sockets of that kind for an address of our configuration, as many as there are; where they are bound.
    pub fn sockets(&mut self, role: Role, listen: Listen) -> Vec<(Listen, OwnedFd)> {
        let (found, rest) =
            std::mem::take(&mut self.sockets).into_iter().partition(|(of, asked, ..)| *of == role && *asked == listen);
        self.sockets = rest;
        found.into_iter().map(|(_, _, bound, socket)| (bound, socket)).collect()
    }
}

/// Deals sockets out to cores so that each socket is read, and each core has one to send from: one that several cores have is read by
/// all of them.
///
/// # Errors
/// When no descriptor is left.
pub fn deal(sockets: Vec<OwnedFd>, cores: usize) -> io::Result<Vec<Vec<OwnedFd>>> {
    let mut dealt: Vec<Vec<OwnedFd>> = (0..cores).map(|_| Vec::new()).collect();
    let count = sockets.len();
    for core in count..cores {
        dealt[core].push(sockets[core % count.max(1)].try_clone()?);
    }
    for (at, socket) in sockets.into_iter().enumerate() {
        dealt[at % cores].push(socket);
    }
    Ok(dealt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_is_read_and_every_core_has_one() {
        for (sockets, cores) in [(1, 1), (1, 3), (4, 2), (3, 2), (2, 5)] {
            let some = (0..sockets).map(|_| OwnedFd::from(tempfile::tempfile().unwrap())).collect();
            let dealt = deal(some, cores).unwrap();
            assert_eq!(dealt.len(), cores);
            assert!(dealt.iter().all(|core| !core.is_empty()), "{sockets} {cores}");
            assert_eq!(dealt.iter().map(Vec::len).sum::<usize>(), sockets.max(cores));
        }
    }
}
