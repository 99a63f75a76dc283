//! RFC 4975 §8, RFC 6135, CR 5.2.1.4: what the two sides of a leg agreed on in SDP.

use std::net::SocketAddr;

/// What kind of CPM service a session carries; it decides direction rules and unknown methods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionKind {
    LargeMessage,
    Session,
}

/// RFC 4975 §8.9, from the peer's point of view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The peer sends content to us; content towards it is not allowed.
    FromPeer,
    /// We send content to the peer.
    ToPeer,
    Both,
}

/// How a To-Path is compared with our URI (CR 5.2.1.4, 5.2.1.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Matching {
    /// RFC 4975 §6.1: scheme, host, port, session id, transport.
    Strict,
    /// Legacy MSRP session matching: the session id alone.
    SessionId,
}

/// The peer's side of a leg, as its SDP says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// All URIs of `a=path`, first hop first: what stands in our To-Path.
    pub path: Vec<Box<str>>,
    /// We are active (RFC 6135): connect here. None: we are passive, the peer connects to us.
    pub connect: Option<SocketAddr>,
    pub tls: bool,
    /// `a=fingerprint` of the peer (RFC 8122), "sha-256 AB:CD:…"; a certificate that differs ends the leg.
    pub fingerprint: Option<Box<str>>,
    /// `a=max-size` in octets.
    pub max_size: Option<u64>,
    /// How the peer's To-Path is compared with our URI, by what its SDP says.
    pub matching: Matching,
}
