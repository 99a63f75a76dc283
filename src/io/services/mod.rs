//! The services thread: documents, names, stores. It runs a tokio-uring runtime and answers every question once.

pub mod engine;
pub mod inbox;
pub mod resolve;
pub mod xcap;
