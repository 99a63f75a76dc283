//! How threads talk: bounded lanes, and a wake-up that cannot be lost.

pub mod lane;
pub mod outgoing;
mod sync;
pub mod wake;
