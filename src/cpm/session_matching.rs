//! CR 5.2.1.4 and 5.2.1.4.1 (MSRP session matching), RFC 6714 §4, RFC 6135: what an SDP says of the far end of a leg.
//!
//! | the peer's SDP                    | `interop = "never"`        | `"auto"`, `"always"`                         |
//! |-----------------------------------|----------------------------|----------------------------------------------|
//! | offers msrp-cema                  | it stands in the answer    | it stands in the answer                      |
//! | offers none, c=/m= is the path    | plain RFC 4975             | To-Path known by its session id              |
//! | offers none, c=/m= is not the path| refused (RFC 6714 §4.3)    | To-Path known by its session id              |
//! | answers, and we connect           | to c=/m= (RFC 6714 §4.2); to the first URI where it has a relay            ||
//! | answers none, and it connects     | by our path, RFC 4975      | To-Path known by its session id              |
//!
//! RFC 6714 §4.2 would send a new offer where an answer without msrp-cema has another c= or m= than path and the peer
//! connects. To us that address means nothing: who connects does so by our path, in which c=, m= and URI agree. Clients in the
//! field do answer so (port 9, or another than in their path), and a re-INVITE would cost them a session that works.

use crate::clause;
use crate::config::Interop;
use crate::msrp::leg::{Direction, Matching, Peer};
use crate::sdp::description::{Description, MediaDescription};
use crate::sdp::message_media::{Direction as SdpDirection, Setup};
use std::net::{IpAddr, SocketAddr};

/// The port of an MSRP URI that names none (RFC 4975 §15.4).
const MSRP_PORT: u16 = 2855;

/// Who connects on a leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ours {
    /// We answer passive where we may: the peer connects, unless it offered to be passive itself (RFC 4145 §4.1).
    Passive,
    /// We offered actpass: the answer decides.
    ActPass,
}

/// The far end of one m-line. None: the line was rejected, or says nothing that could be reached.
pub fn peer(interop: Interop, description: &Description, line: usize, ours: Ours) -> Option<Peer> {
    let media = description.media.get(line)?;
    let path = media.path();
    if media.port == 0 || !media.is_msrp() || path.is_empty() {
        return None;
    }
    let connect = if connects(description, media, ours) { Some(address(description, media)?) } else { None };
    Some(Peer {
        path: path.iter().map(|uri| Box::from(*uri)).collect(),
        connect,
        tls: media.is_msrp_over_tls(),
        fingerprint: description.fingerprint_of(media).map(Box::from),
        max_size: media.max_size(),
        matching: of_leg(interop, media),
    })
}

/// Whether we connect. RFC 6135 §4.2: an answer to actpass says it; one that says nothing is plain RFC 4975, where the
/// offerer connects (§5.4).
fn connects(description: &Description, media: &MediaDescription, ours: Ours) -> bool {
    let setup = description.setup_of(media);
    match ours {
        Ours::ActPass => setup != Some(Setup::Active),
        Ours::Passive => matches!(setup, Some(Setup::Passive | Setup::HoldConn)),
    }
}

/// RFC 6714 §4.2: c= and m=, unless the peer has a relay (RFC 4976), which is the first URI of its path. Where c= is a name
/// that only DNS could tell, the path may have the address.
fn address(description: &Description, media: &MediaDescription) -> Option<SocketAddr> {
    let of_line = of_line(description, media);
    let of_path = media.path().first().and_then(|uri| of_uri(uri));
    if media.path().len() > 1 { of_path.or(of_line) } else { of_line.or(of_path) }
}

fn of_line(description: &Description, media: &MediaDescription) -> Option<SocketAddr> {
    let ip = description.connection_of(media)?.ip()?;
    Some(SocketAddr::new(ip, media.port))
}

fn of_uri(uri: &str) -> Option<SocketAddr> {
    let (host, port) = authority(uri)?;
    Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, port))
}

/// Host without brackets, and port, of an MSRP URI.
fn authority(uri: &str) -> Option<(&str, u16)> {
    let uri = crate::msrp::uri::Uri::parse(uri.as_bytes())?;
    Some((uri.host, uri.port.unwrap_or(MSRP_PORT)))
}

/// RFC 6714 §4.4: whether c= and m= name the same address as a URI of the path. A name can be compared with a name; with an
/// address only DNS could compare it, and then it counts as the same.
pub fn is_consistent(description: &Description, media: &MediaDescription) -> bool {
    let Some(connection) = description.connection_of(media) else { return true };
    media.path().iter().any(|uri| {
        let Some((host, port)) = authority(uri) else { return false };
        let same_host = match (connection.ip(), host.parse::<IpAddr>().ok()) {
            (Some(one), Some(other)) => one.to_canonical() == other.to_canonical(),
            (None, None) => connection.address.eq_ignore_ascii_case(host),
            _ => true,
        };
        same_host && port == media.port
    })
}

/// How a To-Path on a leg is known before the peer's SDP has come: a client may connect before its answer was read. The
/// session id alone is the whole secret, so the wider of the two is no risk.
pub fn before_answer(interop: Interop) -> Matching {
    if interop == Interop::Never { Matching::Strict } else { Matching::SessionId }
}

/// How a To-Path on a leg is known (EMS-1.e.v), by the peer's m-line.
pub fn of_leg(interop: Interop, media: &MediaDescription) -> Matching {
    if interop != Interop::Never && !media.msrp_cema() {
        clause!("EMS-1.e.v.1");
        return Matching::SessionId;
    }
    clause!("EMS-1.e.v.2");
    Matching::Strict
}

/// RFC 4975 §8.9, by the SDP the peer wrote: whether content comes from it, goes to it, or both.
pub fn direction_of_peer(description: &Description, media: &MediaDescription) -> Direction {
    match description.direction_of(media) {
        SdpDirection::SendRecv => Direction::Both,
        SdpDirection::RecvOnly => Direction::ToPeer,
        // Nothing goes to a peer that receives nothing.
        SdpDirection::SendOnly | SdpDirection::Inactive => Direction::FromPeer,
    }
}

/// The same, by the SDP that we write to the peer.
pub fn direction_of_ours(media: &MediaDescription) -> Direction {
    match media.direction().unwrap_or_default() {
        SdpDirection::SendRecv => Direction::Both,
        SdpDirection::SendOnly => Direction::ToPeer,
        SdpDirection::RecvOnly | SdpDirection::Inactive => Direction::FromPeer,
    }
}
