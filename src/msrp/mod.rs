//! MSRP (RFC 4975) as a back-to-back user agent: no SIP, no socket.

pub mod chunk;
pub mod end_line;
pub mod fingerprint;
pub mod head;
pub mod ident;
pub mod leg;
pub mod media_type;
pub mod parse;
pub mod report;
pub mod status;
pub mod uri;
mod usual;
pub mod write;
