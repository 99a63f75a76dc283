//! Floor 4: one core's whole state. Octets and time go in as arguments, effects come out into an outbox.

pub mod counts;
pub mod exchange;
pub mod media;
pub mod media_outbox;
pub mod outbox;
pub mod record;
pub mod signalling;
