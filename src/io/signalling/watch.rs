//! Copies of messages for those who watch: a capture server that gets every message, and captures of single calls. Where there is
//! neither it costs a look at two empty fields.

use super::hep::Hep;
use crate::base::transport::Transport;
use crate::io::capture::{Capture, Captures, Message};
use crate::io::control::{Mailbox, MediaOrder};
use crate::shard::exchange::MediaKey;
use crate::shard::signalling::Signalling;
use std::sync::Arc;

/// The onlookers of one core.
pub struct Watch {
    pub hep: Option<Hep>,
    captures: Captures,
    /// By media core.
    media: Vec<Arc<Mailbox<MediaOrder>>>,
}

impl Watch {
    /// Nobody but the capture server.
    pub fn new(hep: Option<Hep>, media: Vec<Arc<Mailbox<MediaOrder>>>) -> Self {
        Self { hep, captures: Captures::default(), media }
    }

    /// Whether anybody looks on.
    pub fn is_on(&self) -> bool {
        self.hep.is_some() || !self.captures.is_empty()
    }

    /// Whether a call is captured.
    pub fn captures(&self) -> bool {
        !self.captures.is_empty()
    }

    /// A call is to be captured from here on.
    pub fn begin(&mut self, shard: &Signalling, capture: Arc<Capture>) {
        let Self { captures, media, .. } = self;
        captures.begin(capture, |call_id| shard.media_of_call(call_id), |core, key, capture| tell(media, core, key, capture));
    }

    /// A message that came in, after the shard took it: the call that it began is known by then.
    pub fn received(&mut self, shard: &Signalling, transport: Transport, message: &Message<'_>) {
        if let Some(hep) = &mut self.hep {
            let call = shard.beginning(message.octets, false);
            hep.copy(message.at, transport, message.peer, message.local, call, message.octets);
        }
        self.capture(shard, message);
    }

    /// A message that came in or is about to go out, for captures alone.
    pub fn capture(&mut self, shard: &Signalling, message: &Message<'_>) {
        let Self { captures, media, .. } = self;
        if captures.is_empty() {
            return;
        }
        captures.message(
            message,
            |call_id| shard.is_of_call(message.octets, message.sent, call_id),
            || shard.media_of_message(message.octets, message.sent),
            |core, key, capture| tell(media, core, key, capture),
        );
    }
}

fn tell(media: &[Arc<Mailbox<MediaOrder>>], core: u8, key: MediaKey, capture: Arc<Capture>) {
    if let Some(mailbox) = media.get(usize::from(core)) {
        mailbox.post(MediaOrder::Capture(key, capture));
    }
}
