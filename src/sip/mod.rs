//! Floor 2: SIP (RFC 3261). No CPM, no socket.

pub mod frame;
pub mod header;
pub mod ids;
pub mod message;
pub mod method;
pub mod owner;
pub mod reply;
pub mod status;
pub mod transaction;
pub mod uri;
pub mod write;
