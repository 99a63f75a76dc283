//! What one signalling core counts: plain numbers that the exposition of metrics reads and adds up over cores.

use crate::base::clock::Duration;
use crate::cpm::decision::Service;
use crate::cpm::facts::Role;
use crate::sip::method::Method;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Which way a message went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Direction {
    In,
    Out,
}

impl Direction {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }
}

/// What became of an INVITE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// The origin got a 2xx.
    Answered,
    /// A procedure said no.
    Refused,
    /// Every target said no.
    Failed,
    /// The origin cancelled it.
    Cancelled,
    /// Overload control or a limit said no.
    Shed,
}

impl Outcome {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::Shed => "shed",
        }
    }
}

/// Label of a service; `None` is a request that is not CPM's.
pub const fn service_label(service: Option<Service>) -> &'static str {
    match service {
        Some(Service::Pager) => "pager",
        Some(Service::LargeMessage) => "large-message",
        Some(Service::Session) => "session",
        Some(Service::GroupSession) => "group-session",
        None => "proxy",
    }
}

/// Label of a session case.
pub const fn case_label(role: Role) -> &'static str {
    match role {
        Role::Originating => "originating",
        Role::Terminating => "terminating",
    }
}

/// Counters of one signalling core since its start. Maps have few keys: methods, codes and clauses are closed sets.
#[derive(Clone, Debug)]
pub struct Counts {
    pub requests: BTreeMap<(Method, Direction), u64>,
    pub responses: BTreeMap<(Method, u16, Direction), u64>,
    pub invites: BTreeMap<(Role, Option<Service>, Outcome), u64>,
    /// By clause id (or RFC section) and status code.
    pub rejections: BTreeMap<(&'static str, u16), u64>,
    /// Dialogs alive now: two for a session of two legs.
    pub dialogs: u64,
    /// Sessions alive now.
    pub sessions: u64,
    /// Octets that were no SIP message and could not be answered.
    pub malformed: u64,
    /// Messages that wait for a registered user of this core (deferred).
    pub deferred: u64,
    /// INVITE to first answer of ours beyond 100, in microseconds.
    pub latency_us: Histogram<u64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            responses: BTreeMap::new(),
            invites: BTreeMap::new(),
            rejections: BTreeMap::new(),
            dialogs: 0,
            sessions: 0,
            malformed: 0,
            deferred: 0,
            latency_us: Histogram::new_with_bounds(1, 600_000_000, 2).expect("bounds and precision are constants within range"),
        }
    }
}

impl Counts {
    pub fn request(&mut self, method: Method, direction: Direction) {
        *self.requests.entry((method, direction)).or_default() += 1;
    }

    pub fn response(&mut self, method: Method, code: u16, direction: Direction) {
        *self.responses.entry((method, code, direction)).or_default() += 1;
    }

    pub fn invite(&mut self, role: Role, service: Option<Service>, outcome: Outcome) {
        *self.invites.entry((role, service, outcome)).or_default() += 1;
    }

    pub fn rejection(&mut self, clause: &'static str, code: u16) {
        *self.rejections.entry((clause, code)).or_default() += 1;
    }

    pub fn latency(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency_us.saturating_record(micros.max(1));
    }
}
