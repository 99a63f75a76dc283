//! What the stores keep, and in which form; `io::services` writes and reads it.

pub mod deferred;
pub mod history;
pub mod object;
pub mod registrant;
