//! RFC 4975 over TCP and TLS: one pinned thread a media core, with its own ring, buffers, connections and MSRP state.

mod acks;
pub mod buffers;
mod capture;
mod connection;
pub mod engine;
mod file;
mod gather;
mod hold;
pub mod lanes;
pub mod listener;
mod looked;
mod op;
mod opening;
mod passing;
mod pipe;
mod queue;
mod receiving;
mod sending;
mod tls;
mod trial;
mod zero_copy;
