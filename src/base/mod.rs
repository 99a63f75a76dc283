//! Floor 1: what knows no protocol.

pub mod chunks;
pub mod clause;
pub mod clock;
pub mod date;
pub mod hash;
pub mod prng;
pub mod rooms;
pub mod slab;
pub mod span;
pub mod timers;
pub mod transport;
pub mod xml;
