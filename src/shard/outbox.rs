//! Effects of a signalling shard, and the buffer their octets lie in. The engine carries them out in order, after the
//! call that wrote them has returned.

use super::exchange::{Command, Query, Ticket};
use super::record::Refusals;
pub use crate::base::transport::Destination;
use crate::base::transport::Flow;
use crate::cpm::facts::Client;
use crate::sip::transaction::seam::Sink;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Names a message sent, so that its failure finds the transaction. 0: nobody wants to hear of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct SendTag(pub u64);

/// What a signalling shard wants done.
#[derive(Debug)]
pub enum Effect {
    /// A SIP message; `octets` lie in [`Outbox::octets`].
    Send { to: Destination, octets: Range<usize>, tag: SendTag },
    /// To the media core.
    Media { core: u8, command: Command },
    /// To the services.
    Fetch { ticket: Ticket, query: Query },
    /// A line for the call record file: one finished session.
    Record(Box<super::record::Cdr>),
    /// To the core that serves the user: these are the clients now, as a subscription of this core tells.
    Registered { user: Box<str>, clients: Vec<Client> },
    /// A line of the log: so many octets that came on this flow are no message, and no answer to them could be made.
    Dropped { flow: Flow, octets: usize, cause: &'static str },
}

/// Effects in the order in which they were decided.
#[derive(Debug, Default)]
pub struct Outbox {
    pub effects: Vec<Effect>,
    /// What the spans of `Effect::Send` point into.
    pub octets: Vec<u8>,
    /// Lines for the call record file without lines of the log: refusals so many that a line of another counts them.
    pub refusals: Refusals,
    /// Effects that were seen by who keeps the ladders.
    pub(super) noted: usize,
}

impl Outbox {
    /// Writes a message with `write` and queues it.
    pub fn send(&mut self, to: Destination, tag: SendTag, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.octets.len();
        write(&mut self.octets);
        self.effects.push(Effect::Send { to, octets: start..self.octets.len(), tag });
    }

    /// The octets of a queued message.
    pub fn octets(&self, range: &Range<usize>) -> &[u8] {
        &self.octets[range.clone()]
    }

    /// Empties the box; its buffers stay for the next turn.
    pub fn clear(&mut self) {
        self.effects.clear();
        self.octets.clear();
        self.refusals = Refusals::default();
        self.noted = 0;
    }
}

impl Sink for Outbox {
    fn send(&mut self, to: &Destination, tag: u64, octets: &[u8]) {
        Outbox::send(self, to.clone(), SendTag(tag), |buffer| buffer.extend_from_slice(octets));
    }
}
