//! Floor 2: SIP (RFC 3261). No CPM, no socket.
//!
//! ```text
//! message  mandatory  write  uri  method  status  header/   messages: parsed into spans, written, and their parts
//! frame  validate  lenient  owner                a message in a stream; whether it can be served; what is told where it cannot
//! transaction/  reliable                         section 17 and RFC 6026; reliable provisional responses (RFC 3262)
//! dialog  session_timer  glare  reply  ids       section 12, RFC 4028, crossing changes, responses, our own branches and tags
//! ```

pub mod dialog;
pub mod frame;
pub mod fuzz;
pub mod glare;
pub mod header;
pub mod ids;
pub mod lenient;
mod mandatory;
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
