//! A new process takes over from a running one: listening sockets, stores and what is new go to it; what runs ends where it began.
//!
//! ```text
//! new                                          old
//!   Hello                           ------->     every core stops reading its listening sockets; the stores are closed
//!                                   <-------   Socket … (each with its descriptor), Given
//!   binds nothing, opens the stores,
//!   reads the sockets; Ready        ------->     drains without refusing anything; serves what its own connections bring
//!        <------- Received, Send, Failed, Handed, Asked, Answered ------->
//!                                                its last session is over: Adopt …, and it ends
//! ```
//! From `Hello` to `Ready` what comes in waits in the kernel; no datagram and no connection is lost. If the new process fails
//! before `Ready`, or crashes later, the old one goes on as if nothing had been.
//!
//! The numbers in a message tell which process owns it: each process numbers its cores behind those of the one before ([`Span`]),
//! and branches, tags, Contact and Record-Route users and MSRP session ids begin with a core's number. A request that has none of
//! these belongs to the new process, unless the old one has a transaction for it: the keys of those are told in `Given`. A message
//! of the other process is passed on with the flow that it came in on; an MSRP connection goes over as a descriptor.
//!
//! A process that is still ending its sessions can stand before one that is taken over from itself: they form a chain, and each
//! passes on towards the older or the newer end.

pub mod give;
pub mod link;
pub mod questions;
pub mod take;
pub mod wire;

use crate::base::span::Span;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// When backlogs are looked into after a process died that accepted connections: its rings end some time after itself.
pub const BACKLOG_LOOKS: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// On which side of us a process stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// We took over from it.
    Before,
    /// It took over from us.
    After,
}

/// The process we took over from, and those before it.
#[derive(Clone, Debug)]
pub struct Before {
    pub link: Arc<link::Link>,
    /// Their cores: of a signalling core's neighbours the signalling ones, else the media ones.
    pub span: Span,
    /// Requests they have transactions for.
    pub served: Arc<HashSet<u64>>,
}

/// A core's view of the processes beside its own.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// The cores of this process.
    pub own: Span,
    pub before: Option<Before>,
    pub after: Option<Arc<link::Link>>,
}

impl Around {
    /// Nobody is beside us.
    pub const fn is_alone(&self) -> bool {
        self.before.is_none() && self.after.is_none()
    }

    /// On which side the process stands that has this core; none: the core is our own, or nobody's.
    pub fn side_of(&self, core: u8) -> Option<Side> {
        match &self.before {
            _ if self.own.contains(core) => None,
            Some(before) if before.span.contains(core) => Some(Side::Before),
            _ => self.after.as_ref().map(|_| Side::After),
        }
    }

    /// The way to the process that has this core.
    pub fn towards(&self, core: u8) -> Option<&Arc<link::Link>> {
        self.side_of(core).and_then(|side| self.on(side))
    }

    /// The way to a process beside us.
    pub fn on(&self, side: Side) -> Option<&Arc<link::Link>> {
        match side {
            Side::Before => self.before.as_ref().map(|before| &before.link),
            Side::After => self.after.as_ref(),
        }
    }

    /// That process is gone.
    pub fn part(&mut self, side: Side) {
        match side {
            Side::Before => self.before = None,
            Side::After => self.after = None,
        }
    }
}
