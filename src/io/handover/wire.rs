//! What two processes say to each other over a UNIX stream socket: a frame is a head in JSON, octets, and maybe a descriptor.
//!
//! ```text
//! u32 octets of the head | u32 octets that follow it | head | octets        native order: both run on one machine
//! ```
//! The descriptor rides on the first octet of its frame (`SCM_RIGHTS`).

use crate::base::span::Span;
use crate::base::transport::{Flow, Transport};
use crate::config::Listen;
use crate::io::signalling::lanes::{Mark, Peer};
use crate::shard::outbox::SendTag;
use crate::shard::registrations::subscription::Learnt;
use crate::store::deferred::DeferredId;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// The version of this language. Another one is refused: then it is a stop and a start.
pub const PROTOCOL: u32 = 1;
/// Octets of a head, and of what follows it: the transactions of a busy core, or a SIP message.
const HEAD_OCTETS_MAX: u32 = 64 << 20;
const TAIL_OCTETS_MAX: u32 = 64 << 20;

/// What stands at the head of a frame.
#[derive(Debug, Serialize, Deserialize)]
pub enum Frame {
    /// The first word of the process that takes over.
    Hello(Hello),
    /// It may not.
    Refused {
        why: String,
    },
    /// A listening socket, as the configuration names it and as it is bound.
    Socket {
        role: Role,
        asked: Listen,
        bound: Listen,
    },
    /// The lock of the spool directory, which both hold from here on.
    Spool,
    /// All that there is besides.
    Given(Box<Given>),
    /// The addresses the new process listens on for SIP, in its order.
    Listening {
        sip: Vec<Listen>,
    },
    /// It reads the sockets now.
    Ready,
    /// The process was told to end.
    Ending,
    /// A SIP message that is the other process's.
    Received {
        core: Option<u8>,
        flow: Flow,
    },
    /// A SIP message for a flow of the other process.
    Send {
        flow: Flow,
        fallback: Option<Place>,
        mark: Mark,
        call: Option<Box<str>>,
    },
    /// What a core of the other process wanted sent could not be sent.
    Failed {
        core: u8,
        tag: SendTag,
    },
    /// An MSRP connection that named a session of this core, with what it has sent so far.
    Handed {
        core: u8,
        peer: SocketAddr,
        ended: bool,
    },
    /// A SIP connection that stays open when its process ends, with the beginning of a message.
    Adopt {
        flow: Flow,
    },
    /// A question to the stores, and its answer.
    Asked {
        number: u64,
        query: super::questions::StoreQuery,
    },
    Answered {
        number: u64,
        answer: super::questions::StoreAnswer,
    },
}

/// Who wants to take over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    pub release: String,
    /// Signalling and media cores.
    pub cores: (u16, u16),
    /// Where it works and what its stores are: the same as ours, or they would not be one.
    pub stores: Vec<String>,
}

/// What a listening socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    Sip,
    Msrp,
    Admin,
}

/// What the new process must know.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Given {
    /// Cores that are taken: those of the old process and of the ones before it.
    pub signalling: Span,
    pub media: Span,
    /// Where it listens for SIP.
    pub sip: Vec<Listen>,
    /// Requests that are being served.
    pub served: Vec<u64>,
    /// Deferred messages that are being delivered, and what the store has still to be told.
    pub claimed: Vec<DeferredId>,
    pub unsaid: Vec<(DeferredId, super::questions::Unsaid)>,
    pub registrations: Vec<Learnt>,
}

/// A [`Peer`] on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub struct Place {
    transport: Transport,
    address: SocketAddr,
    server_name: Option<Box<str>>,
}

impl From<Peer> for Place {
    fn from(peer: Peer) -> Self {
        Self { transport: peer.transport, address: peer.address, server_name: peer.server_name }
    }
}

impl From<Place> for Peer {
    fn from(place: Place) -> Self {
        Self { transport: place.transport, address: place.address, server_name: place.server_name }
    }
}

/// A frame, the octets that follow it, and its descriptor.
pub type Parcel = (Frame, Vec<u8>, Option<OwnedFd>);

/// Writes a frame.
///
/// # Errors
/// The stream's.
pub fn write(stream: &UnixStream, frame: &Frame, octets: &[u8], descriptor: Option<RawFd>) -> io::Result<()> {
    let head = serde_json::to_vec(frame)?;
    let mut all = Vec::with_capacity(8 + head.len() + octets.len());
    let length = |octets: &[u8]| u32::try_from(octets.len()).map(u32::to_ne_bytes).map_err(io::Error::other);
    all.extend(length(&head)?);
    all.extend(length(octets)?);
    all.extend(head);
    all.extend(octets);
    let sent = match descriptor {
        Some(descriptor) => send_with(stream, &all, descriptor)?,
        None => 0,
    };
    (&mut &*stream).write_all(&all[sent..])
}

/// Reads a frame; None: the other process is gone.
///
/// # Errors
/// The stream's; `InvalidData` where it is no frame.
pub fn read(stream: &UnixStream) -> io::Result<Option<Parcel>> {
    let mut lengths = [0; 8];
    let (got, descriptor) = receive_with(stream, &mut lengths)?;
    if got == 0 {
        return Ok(None);
    }
    (&mut &*stream).read_exact(&mut lengths[got..])?;
    let [head, tail] = [0, 4].map(|at| u32::from_ne_bytes(lengths[at..at + 4].try_into().expect("four octets")));
    if head > HEAD_OCTETS_MAX || tail > TAIL_OCTETS_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut octets = vec![0; head as usize];
    (&mut &*stream).read_exact(&mut octets)?;
    let frame = serde_json::from_slice(&octets)?;
    let mut octets = vec![0; tail as usize];
    (&mut &*stream).read_exact(&mut octets)?;
    Ok(Some((frame, octets, descriptor)))
}

/// Octets of a control message with one descriptor, as aligned as the kernel wants it.
const CONTROL_WORDS: usize = 4;

fn send_with(stream: &UnixStream, octets: &[u8], descriptor: RawFd) -> io::Result<usize> {
    let mut control = [0usize; CONTROL_WORDS];
    let mut piece = libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() };
    // SAFETY: the message points to locals that outlive the call. The control buffer is zeroed, aligned as a `cmsghdr` and has room
    // for one with a descriptor (CMSG_SPACE(4) is 24 of its 32 octets).
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&mut piece, 1);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let head = libc::CMSG_FIRSTHDR(&message);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(head).cast::<RawFd>().write_unaligned(descriptor);
        libc::sendmsg(stream.as_raw_fd(), &message, libc::MSG_NOSIGNAL)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

fn receive_with(stream: &UnixStream, octets: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    loop {
        let mut control = [MaybeUninit::<usize>::zeroed(); CONTROL_WORDS];
        let mut piece = libc::iovec { iov_base: octets.as_mut_ptr().cast(), iov_len: octets.len() };
        // SAFETY: the message points to locals that outlive the call; the kernel writes no more control data than the length says.
        let (got, descriptor) = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            (message.msg_iov, message.msg_iovlen) = (&mut piece, 1);
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = std::mem::size_of_val(&control) as _;
            let got = libc::recvmsg(stream.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
            let head = if got < 0 { std::ptr::null_mut() } else { libc::CMSG_FIRSTHDR(&message) };
            let ours = !head.is_null() && (*head).cmsg_level == libc::SOL_SOCKET && (*head).cmsg_type == libc::SCM_RIGHTS;
            // The kernel opened the descriptor for us with this very call.
            (got, ours.then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(head).cast::<RawFd>().read_unaligned())))
        };
        match usize::try_from(got) {
            Ok(got) => return Ok((got, descriptor)),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_arrives_with_its_octets_and_its_descriptor() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(b"inside").unwrap();
        let flow =
            Flow { transport: Transport::Udp, core: 3, listener: 1, connection: 0, peer: "127.0.0.1:5060".parse().unwrap() };
        write(&here, &Frame::Received { core: None, flow }, &[7; 70_000], None).unwrap();
        write(&here, &Frame::Spool, b"", Some(file.as_raw_fd())).unwrap();
        write(&here, &Frame::Ending, b"", None).unwrap();
        drop(here);
        let Some((Frame::Received { flow: got, .. }, octets, None)) = read(&there).unwrap() else { panic!() };
        assert_eq!((got, octets), (flow, vec![7; 70_000]));
        let Some((Frame::Spool, _, Some(descriptor))) = read(&there).unwrap() else { panic!() };
        let mut text = String::new();
        let mut file = std::fs::File::from(descriptor);
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        assert!(matches!(read(&there), Ok(Some((Frame::Ending, ..)))));
        assert!(matches!(read(&there), Ok(None)));
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        (&here).write_all(&[0xff; 64]).unwrap();
        assert_eq!(read(&there).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
