//! The side that is taken over from: a UNIX socket at which the next process asks, and what it is given.

use super::wire::{self, Frame, Given, Hello, PROTOCOL};
use crate::config::Config;
use crate::config::secret::without_password;
use crate::io::control::{Event, Process};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the first word may take, and how long a frame may not be taken.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// Where a process works and what it stores to: a hand-over is within these.
pub fn stores(config: &Config) -> Vec<String> {
    let here = std::env::current_dir().unwrap_or_default();
    let spool = config.store.spool.display().to_string();
    vec![here.display().to_string(), config.store.deferred.clone(), config.store.history.clone(), spool]
}

/// Listens for the next process in a thread of its own, which tells the main thread of each that may take over.
///
/// # Errors
/// With the path in the text, where the socket cannot be had.
pub fn listen(path: &Path, process: Process) -> io::Result<()> {
    let wrong = |error: io::Error| io::Error::new(error.kind(), format!("node.handover = \"{}\": {error}", path.display()));
    let listener = bind(path).map_err(wrong)?;
    std::thread::Builder::new().name("handover".into()).spawn(move || {
        for stream in listener.incoming() {
            match stream.and_then(|stream| greet(&stream).map(|hello| (stream, hello))) {
                Ok((stream, hello)) => process.tell(Event::HandOver(stream, Box::new(hello))),
                Err(error) => tracing::warn!(%error, "who asked for a hand-over is not heard"),
            }
        }
    })?;
    Ok(())
}

/// A socket of ours at this path, in the place of the one of the process before: it is made beside it and moved there.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let mut beside = PathBuf::from(path);
    beside.set_extension(format!("{}", std::process::id()));
    let _ = std::fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&beside, path)?;
    Ok(listener)
}

fn greet(stream: &UnixStream) -> io::Result<Hello> {
    let peer = credentials(stream)?;
    // SAFETY: a plain question.
    let own = unsafe { libc::geteuid() };
    if peer.uid != own && peer.uid != 0 {
        return Err(io::Error::other(format!("user {} is not ours", peer.uid)));
    }
    stream.set_read_timeout(Some(GREETING_MAX))?;
    stream.set_write_timeout(Some(GREETING_MAX))?;
    match wire::read(stream)? {
        Some((Frame::Hello(hello), ..)) => Ok(hello),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn credentials(stream: &UnixStream) -> io::Result<libc::ucred> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = std::mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets into a local of that size.
    let failed = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &mut length) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(peer) }
}

/// The process at the other end.
pub fn pid(stream: &UnixStream) -> Option<i32> {
    credentials(stream).ok().map(|peer| peer.pid)
}

/// Why this process may not have it; none: it may. `taken`: signalling and media cores of ours and of those before us.
pub fn objection(hello: &Hello, config: &Config, taken: (u16, u16)) -> Option<String> {
    if hello.protocol != PROTOCOL {
        return Some(format!(
            "it speaks version {} of the hand-over, we speak {PROTOCOL}: stop and start instead",
            hello.protocol
        ));
    }
    if hello.stores != stores(config) {
        let shown = |stores: Vec<String>| stores.iter().map(|store| without_password(store)).collect::<Vec<_>>().join(", ");
        let (theirs, ours) = (shown(hello.stores.clone()), shown(stores(config)));
        return Some(format!("it has other stores or works elsewhere ({theirs}; we: {ours})"));
    }
    if taken.0 + hello.cores.0 > 256 || taken.1 + hello.cores.1 > 256 {
        return Some("too many processes are still ending their sessions".into());
    }
    None
}

/// Tells why not.
pub fn refuse(stream: &UnixStream, why: &str) {
    tracing::warn!(why, "a process may not take over");
    // It sees the end in any case.
    let _ = wire::write(stream, &Frame::Refused { why: why.into() }, b"", None);
}

/// A listening socket that is given away.
pub struct Socket {
    pub role: wire::Role,
    pub asked: crate::config::Listen,
    pub bound: crate::config::Listen,
    pub descriptor: RawFd,
}

/// Gives everything.
///
/// # Errors
/// The stream's.
pub fn give(stream: &UnixStream, sockets: &[Socket], spool: RawFd, given: Given) -> io::Result<()> {
    for Socket { role, asked, bound, descriptor } in sockets {
        wire::write(stream, &Frame::Socket { role: *role, asked: *asked, bound: *bound }, b"", Some(*descriptor))?;
    }
    wire::write(stream, &Frame::Spool, b"", Some(spool))?;
    wire::write(stream, &Frame::Given(Box::new(given)), b"", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_objected_to_other_stores_tells_no_password() {
        let mut config = Config::default();
        config.store.deferred = "nats://user:secret@h:4222".into();
        let hello = |stores| Hello { protocol: PROTOCOL, release: String::new(), cores: (1, 1), stores };
        assert_eq!(objection(&hello(stores(&config)), &config, (1, 1)), None);
        let why = objection(&hello(vec!["nats://other:hidden@h:4222".into()]), &config, (1, 1)).expect("other stores");
        assert!(why.contains("nats://user:***@h:4222") && !why.contains("secret") && !why.contains("hidden"), "{why}");
    }

    #[test]
    fn the_socket_is_for_us_alone_and_takes_the_place_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("next.sock");
        let before = bind(&path).unwrap();
        let now = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        now.set_nonblocking(true).unwrap();
        before.set_nonblocking(true).unwrap();
        let _asks = UnixStream::connect(&path).unwrap();
        assert!(now.accept().is_ok() && before.accept().is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
