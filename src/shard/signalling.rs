//! One signalling core: receive, match, prefetch, decide, act, follow. Octets and time come in, effects go out.

use super::counts::Counts;
use super::exchange::{Fetched, Report, Ticket};
use super::outbox::{Outbox, SendTag};
use crate::base::clock::{Duration, Instant};
use crate::base::prng::Prng;
use crate::base::transport::Flow;
use crate::config::{Config, Listen};
use serde::Serialize;
use std::sync::Arc;

/// What we are bound to, once the kernel has chosen the ports that were 0.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// Signalling addresses in the order of `sip.listen`.
    pub sip: Vec<Listen>,
    /// MSRP addresses in the order of `msrp.listen`.
    pub msrp: Vec<Listen>,
    /// `a=fingerprint` value of our MSRP certificate ("sha-256 AB:CD:…"); none without TLS.
    pub fingerprint: Option<Box<str>>,
    /// Media cores there are.
    pub media_cores: u8,
}

/// One line of `GET /sessions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SessionView {
    pub case: &'static str,
    pub service: &'static str,
    pub state: &'static str,
    pub originator: String,
    pub recipient: String,
    pub call_id: String,
    pub conversation_id: Option<String>,
    pub contribution_id: Option<String>,
    pub targets: Vec<String>,
    pub started_s: u64,
}

/// One signalling core's whole state.
pub struct Signalling {
    shard: u8,
    config: Arc<Config>,
    bound: Bound,
    prng: Prng,
    counts: Counts,
}

impl Signalling {
    /// `shard` is this core's number among the signalling cores; it begins every branch, tag and Contact we make.
    pub fn new(shard: u8, config: Arc<Config>, bound: Bound, prng: Prng) -> Self {
        Self { shard, config, bound, prng, counts: Counts::default() }
    }

    /// One framed message from a flow.
    pub fn receive(&mut self, now: Instant, flow: Flow, message: &[u8], out: &mut Outbox) {
        let _ = (now, flow, message, out, self.shard, &self.config, &self.bound, &mut self.prng);
    }

    /// A message could not be sent: no connection, ICMP error, flow gone.
    pub fn failed(&mut self, now: Instant, tag: SendTag, out: &mut Outbox) {
        let _ = (now, tag, out);
    }

    /// The services answered a question.
    pub fn fetched(&mut self, now: Instant, ticket: Ticket, answer: Fetched, out: &mut Outbox) {
        let _ = (now, ticket, answer, out);
    }

    /// A media core reports about a session.
    pub fn reported(&mut self, now: Instant, report: Report, out: &mut Outbox) {
        let _ = (now, report, out);
    }

    /// Fires every timer up to `now`.
    pub fn due(&mut self, now: Instant, out: &mut Outbox) {
        let _ = (now, out);
    }

    /// When [`Signalling::due`] wants to be called next.
    pub fn next_due(&self) -> Option<Instant> {
        None
    }

    /// A new configuration: policy, trust, routes and limits count from the next request on; static registrations at once.
    pub fn reload(&mut self, now: Instant, config: Arc<Config>, out: &mut Outbox) {
        let _ = (now, out);
        self.config = config;
    }

    /// No new dialogs from here on (503 with Retry-After); running ones go on.
    pub fn drain(&mut self, now: Instant, out: &mut Outbox) {
        let _ = (now, out);
    }

    /// Ends every session with BYE.
    pub fn stop(&mut self, now: Instant, out: &mut Outbox) {
        let _ = (now, out);
    }

    /// Nothing is left: no transaction, no dialog, no session.
    pub fn is_idle(&self) -> bool {
        true
    }

    /// Counters for the metrics.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How long what is handed in now has waited in the engine's queue: the overload control's input.
    pub fn queue_delay(&mut self, delay: Duration) {
        let _ = delay;
    }

    /// Sessions alive, at most `limit` of them.
    pub fn sessions(&self, limit: usize) -> Vec<SessionView> {
        let _ = limit;
        Vec::new()
    }
}
