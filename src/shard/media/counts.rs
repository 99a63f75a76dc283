//! What a media core counts, for the metrics `cpm_pf_msrp_*`.

use hdrhistogram::Histogram;

/// Counters of one media core since its start. Pairs are by direction: from origins towards targets, and back.
#[derive(Clone, Debug)]
pub struct MediaCounts {
    /// Sessions and connections that are open now.
    pub sessions: u64,
    pub connections: u64,
    /// Chunks relayed, octets of their bodies, messages completed.
    pub chunks: [u64; 2],
    pub octets: [u64; 2],
    pub messages: [u64; 2],
    /// Nanoseconds from a chunk's last octet in to its last octet handed to the kernel.
    pub relay: Histogram<u64>,
    /// Requests refused, connections closed and octets dropped, each by its cause.
    pub causes: [u64; Cause::COUNT],
}

impl Default for MediaCounts {
    fn default() -> Self {
        let relay =
            Histogram::new_with_bounds(100, 60_000_000_000, 2).expect("100 ns to 60 s in two digits is a lawful histogram");
        Self { sessions: 0, connections: 0, chunks: [0; 2], octets: [0; 2], messages: [0; 2], relay, causes: [0; Cause::COUNT] }
    }
}

impl MediaCounts {
    /// How often something was refused for this cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.causes[cause as usize]
    }
}

/// Why a request was refused, a connection closed or something dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// 481: the To-Path names no session.
    UnknownSession,
}

impl Cause {
    pub const COUNT: usize = Self::ALL.len();
    pub const ALL: [Cause; 1] = [Cause::UnknownSession];

    /// The label's value in `cpm_pf_rejections_total`.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::UnknownSession => "msrp-unknown-session",
        }
    }
}
