//! The services thread: documents, names, stores. It runs a tokio-uring runtime and answers every question once.

pub mod body_file;
pub mod deferred;
pub mod deferred_index;
pub mod engine;
pub mod history;
pub mod history_queue;
pub mod imap;
#[cfg(test)]
mod imap_double;
pub mod imap_pool;
pub mod imap_server;
pub mod inbox;
mod keeper;
pub mod message_store;
pub mod nats;
pub mod registrants;
pub mod resolve;
pub mod spool;
pub mod stores;
pub mod xcap;
