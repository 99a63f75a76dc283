//! What a media core is given when it starts, and the lanes that join it to the other threads.
//!
//! ```text
//! signalling 0..n --Command--> media core --Report--> signalling 0..n
//! media core <----Handed-----> media core            (a connection that named a session of the other)
//! program ---------orders----> media core            (a mailbox: several write, and seldom)
//! ```
//! Every lane into a core has one bell, the core's own: whoever pushed rings it.

use super::listener::Listener;
use crate::config::Config;
use crate::io::bridge::lane::Receiver;
use crate::io::bridge::outgoing::Outgoing;
use crate::io::bridge::wake::Wake;
use crate::io::clock::Clock;
use crate::io::control::{Mailbox, MediaOrder};
use crate::io::handover::Around;
use crate::io::handover::link::Door;
use crate::io::probe::Features;
use crate::io::tls::Tls;
use crate::shard::exchange::{Command, Report};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A media core before it runs.
pub struct Core {
    /// Its number: the first two hex digits of its session ids.
    pub number: u8,
    /// The number of the first signalling core: session keys name them by theirs.
    pub first_signalling: u8,
    /// The CPU its thread is pinned to, for its metrics.
    pub cpu: usize,
    pub config: Arc<Config>,
    pub features: Features,
    pub clock: Clock,
    /// For `tls` listeners and peers; none: such peers are refused.
    pub tls: Option<Tls>,
    pub listeners: Vec<Listener>,
    pub lanes: Lanes,
}

/// The lanes of one media core.
pub struct Lanes {
    /// This core's bell.
    pub wake: Arc<Wake>,
    /// From each signalling core.
    pub commands: Vec<Receiver<Command>>,
    /// To each signalling core, in the order of their numbers.
    pub reports: Vec<Outgoing<Report>>,
    /// From and to the other media cores; to them in the order of their numbers, none for oneself.
    pub handed_in: Vec<Receiver<Handed>>,
    pub handed_out: Vec<Option<Outgoing<Handed>>>,
    pub orders: Arc<Mailbox<MediaOrder>>,
    /// The processes beside this one, and the connections that come from them.
    pub around: Around,
    pub door: Arc<Door<Handed>>,
}

impl Lanes {
    /// Whether something waits in a lane into this core.
    pub(super) fn waiting(&mut self) -> bool {
        !self.orders.is_empty()
            || !self.door.is_empty()
            || self.commands.iter_mut().any(|lane| !lane.is_empty())
            || self.handed_in.iter_mut().any(|lane| !lane.is_empty())
    }

    /// Items waiting in the lanes into this core.
    pub(super) fn depth(&self) -> usize {
        self.commands.iter().map(Receiver::depth).sum::<usize>() + self.handed_in.iter().map(Receiver::depth).sum::<usize>()
    }

    /// Sends what is held, and rings the bells of those who got something.
    pub(super) fn flush(&mut self) {
        self.reports.iter_mut().for_each(Outgoing::flush);
        self.handed_out.iter_mut().flatten().for_each(Outgoing::flush);
    }

    /// Items that found their lane full.
    pub(super) fn held(&self) -> usize {
        self.reports.iter().map(Outgoing::held).sum::<usize>()
            + self.handed_out.iter().flatten().map(Outgoing::held).sum::<usize>()
    }
}

/// A connection on its way to the core whose session it named.
pub struct Handed {
    pub(super) socket: OwnedFd,
    pub(super) peer: SocketAddr,
    pub(super) tls: Option<Box<super::tls::Session>>,
    /// What it has sent so far, in the clear.
    pub(super) octets: Vec<u8>,
    /// It has said all it will.
    pub(super) ended: bool,
}

impl Handed {
    /// One that came from another process.
    pub const fn from_beyond(socket: OwnedFd, peer: SocketAddr, octets: Vec<u8>, ended: bool) -> Self {
        Self { socket, peer, tls: None, octets, ended }
    }
}

/// What the engine itself counts: how well it batches, and how often something was scarce.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EngineCounts {
    /// Turns of the loop, those that slept first, completions in them.
    pub turns: u64,
    pub waits: u64,
    pub completions: u64,
    /// Receives, their octets.
    pub receives: u64,
    pub octets_in: u64,
    /// System calls that sent, their octets, and how often a socket took less than was offered.
    pub sends: u64,
    pub octets_out: u64,
    pub sends_short: u64,
    /// Receives that found no buffer.
    pub buffers_missing: u64,
    /// Octets copied out of lent buffers because a slow reader held them too long, or because a socket left a few over.
    pub octets_copied_out: u64,
    /// Octets of small pieces put together to be sent as one.
    pub octets_joined: u64,
    /// Sends without a copy, and those of them that the kernel copied all the same.
    pub zero_copies: u64,
    pub zero_copies_copied: u64,
    /// Stretches of bodies that went from socket to socket without coming out of the kernel, and their octets.
    pub passes: u64,
    pub octets_passed: u64,
    /// Connections accepted, opened, refused for want of room, handed to another core.
    pub accepted: u64,
    pub connected: u64,
    pub refused: u64,
    pub handed_over: u64,
    /// TLS handshakes that failed.
    pub handshakes_failed: u64,
    /// Those that were not begun because too many were under way.
    pub handshakes_refused: u64,
}

impl EngineCounts {
    /// Each with its label `count` of `cpm_pf_msrp_engine_total`.
    pub const fn named(&self) -> [(&'static str, u64); 21] {
        [
            ("turns", self.turns),
            ("waits", self.waits),
            ("completions", self.completions),
            ("receives", self.receives),
            ("received-bytes", self.octets_in),
            ("sends", self.sends),
            ("sent-bytes", self.octets_out),
            ("short-sends", self.sends_short),
            ("missing-buffers", self.buffers_missing),
            ("copied-bytes", self.octets_copied_out),
            ("joined-bytes", self.octets_joined),
            ("zero-copy-sends", self.zero_copies),
            ("zero-copy-sends-copied", self.zero_copies_copied),
            ("passes", self.passes),
            ("passed-bytes", self.octets_passed),
            ("accepted", self.accepted),
            ("connected", self.connected),
            ("refused", self.refused),
            ("handed-over", self.handed_over),
            ("failed-handshakes", self.handshakes_failed),
            ("refused-handshakes", self.handshakes_refused),
        ]
    }
}
