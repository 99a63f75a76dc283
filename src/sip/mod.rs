//! Floor 2: SIP (RFC 3261). No CPM, no socket.

pub mod dialog;
pub mod frame;
pub mod fuzz;
pub mod glare;
pub mod header;
pub mod ids;
pub mod lenient;
pub mod message;
pub mod method;
pub mod owner;
pub mod reliable;
pub mod reply;
pub mod session_timer;
pub mod status;
#[cfg(test)]
mod torture;
pub mod transaction;
pub mod uri;
pub mod validate;
pub mod write;
