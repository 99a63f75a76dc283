//! How threads talk: bounded lanes, and a wake-up that cannot be lost.

pub mod lane;
mod sync;
pub mod wake;
