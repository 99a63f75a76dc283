//! CR 5.2.1.2 (SDP at intermediate nodes): an SDP to be written for one leg, all but our own addresses.

use crate::sdp::description::Description;

/// An offer or answer to be written. One entry of `lines` for each m-line, in order.
#[derive(Clone, Debug)]
pub struct MediaPlan {
    pub description: Description,
    pub lines: Vec<Line>,
}

/// What becomes of an m-line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// MSRP that we relay: path, port, c=, fingerprint are ours.
    Relayed,
    /// Media that is not ours: left alone.
    Untouched,
    /// Port 0.
    Rejected,
}

/// Our side of one relayed m-line.
#[derive(Clone, Debug)]
pub struct OwnLine {
    /// Host of c= and path, port of m= and path.
    pub host: String,
    pub port: u16,
    /// The whole URI for `a=path`.
    pub uri: String,
    /// `a=fingerprint` value for TLS ("sha-256 AB:…"); with it the line is TCP/TLS/MSRP.
    pub fingerprint: Option<String>,
}

/// Our `o=` line on a leg (RFC 3264 §8: the version grows by one with each change).
#[derive(Clone, Copy, Debug)]
pub struct OwnOrigin {
    pub session_id: u64,
    pub version: u64,
}

impl MediaPlan {
    /// Writes the SDP with our addresses; `own` has one entry for each [`Line::Relayed`] in order.
    pub fn write(&self, origin: OwnOrigin, own: &[OwnLine]) -> String {
        let _ = (origin, own, &self.description);
        todo!()
    }
}
