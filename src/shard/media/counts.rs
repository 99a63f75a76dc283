//! What a media core counts, for the metrics `cpm_pf_msrp_*` and `cpm_pf_msrp_refusals_total{cause}`.

use hdrhistogram::Histogram;

/// Counters of one media core since its start. Pairs are by direction: from origins towards targets, and back.
#[derive(Clone, Debug)]
pub struct MediaCounts {
    /// Sessions and connections that are open now.
    pub sessions: u64,
    pub connections: u64,
    /// Heads read, of requests and responses.
    pub heads: u64,
    /// Chunks that came, octets of their bodies, messages completed.
    pub chunks: [u64; 2],
    pub octets: [u64; 2],
    pub messages: [u64; 2],
    /// Nanoseconds from a chunk's last octet in to its last octet handed to the kernel.
    pub relay: Histogram<u64>,
    /// How often something was refused or given up, by [`Cause`].
    pub causes: [u64; Cause::COUNT],
}

impl Default for MediaCounts {
    fn default() -> Self {
        let relay =
            Histogram::new_with_bounds(100, 60_000_000_000, 2).expect("100 ns to 60 s in two digits is a lawful histogram");
        let (chunks, octets, messages) = ([0; 2], [0; 2], [0; 2]);
        Self { sessions: 0, connections: 0, heads: 0, chunks, octets, messages, relay, causes: [0; Cause::COUNT] }
    }
}

impl MediaCounts {
    /// How often something was refused for this cause.
    pub fn of(&self, cause: Cause) -> u64 {
        self.causes[cause as usize]
    }

    pub(super) fn count(&mut self, cause: Cause) {
        self.causes[cause as usize] += 1;
    }
}

macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident $code:literal $name:literal,)+) => {
        /// Why a request was refused, a connection closed or something dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Cause { $($(#[$doc])* $cause,)+ }

        impl Cause {
            pub const COUNT: usize = [$(Cause::$cause,)+].len();
            pub const ALL: [Cause; Self::COUNT] = [$(Cause::$cause,)+];

            /// The label `cause` of `cpm_pf_msrp_refusals_total`.
            pub const fn name(self) -> &'static str {
                match self { $(Cause::$cause => $name,)+ }
            }

            /// The MSRP status that went with it; 0 where nothing was answered.
            pub const fn code(self) -> u16 {
                match self { $(Cause::$cause => $code,)+ }
            }
        }
    };
}

causes! {
    /// The head breaks a rule.
    Malformed 400 "msrp-malformed",
    /// Content from a peer that only receives.
    Direction 403 "msrp-direction",
    /// The certificate is not the one that the peer's `a=fingerprint` announced.
    Certificate 403 "msrp-certificate",
    /// Nobody is left to pass the content to.
    NoTarget 408 "msrp-no-target",
    /// A target did not answer within `msrp.transaction_timeout`.
    Unanswered 408 "msrp-unanswered",
    /// More octets than `msrp.max_message` or every target's `a=max-size`.
    TooLarge 413 "msrp-too-large",
    /// A chunk of a message that was stopped before.
    Stopped 413 "msrp-stopped",
    /// A sink could not keep the message.
    NotKept 413 "msrp-not-kept",
    /// A content type the sink's `a=accept-types` does not name.
    MediaType 415 "msrp-media-type",
    /// The To-Path names no session, or not the one of this connection.
    UnknownSession 481 "msrp-unknown-session",
    /// The session is being closed.
    Closing 481 "msrp-closing",
    /// AUTH: we are no relay of RFC 4976.
    Auth 501 "msrp-auth",
    /// An unknown method where none is passed on.
    UnknownMethod 501 "msrp-unknown-method",
    /// The session is bound to another connection.
    WrongConnection 506 "msrp-wrong-connection",
    /// The framing is lost.
    FramingLost 0 "msrp-framing-lost",
    /// A connection named no session for `limits.unbound_timeout`.
    Unbound 0 "msrp-unbound",
    /// More unbound connections than one address may have, or more connections than a core may have.
    TooManyConnections 0 "msrp-too-many-connections",
    /// A peer went on sending while it was to wait.
    HeldTooMuch 0 "msrp-held-too-much",
    /// A response that answers nothing of ours.
    StrayResponse 0 "msrp-stray-response",
    /// A report about a message that is not known, was not asked for, or was told before.
    StrayReport 0 "msrp-stray-report",
    /// A peer took no octets for `msrp.transaction_timeout`.
    Stalled 0 "msrp-stalled",
    /// A leg's connection did not come about in time.
    NotConnected 0 "msrp-not-connected",
    /// A sink's or source's file failed.
    Disk 0 "msrp-disk",
    /// A peer refused what we relayed to it.
    RefusedByPeer 0 "msrp-refused-by-peer",
    /// A command named a session or leg that is not there, or one too many.
    BadCommand 0 "msrp-bad-command",
}
