//! The signalling engine: SIP's sockets on a raw ring, one pinned thread a core, around one `shard::signalling::Signalling`.

pub mod connection;
pub mod dropped;
pub mod engine;
pub mod filter;
pub mod gather;
pub mod hep;
pub mod lanes;
pub mod last_resort;
pub mod op;
pub mod owner;
pub mod rate;
pub mod refuse;
pub mod sockets;
pub mod tcp;
pub mod tls;
pub mod udp;
pub mod unreachable;
mod watch;
