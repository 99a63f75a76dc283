//! cpm-bench: SIP and MSRP endpoints on both sides of a proxy, any proxy, from one thread.
//!
//! ```text
//!   caller ── SIP, MSRP ──►  the proxy under test  ── SIP, MSRP ──► called party
//!     └────────────────────── this one process, one thread ──────────────┘
//! ```
//! Arrivals are open loop: every call and message has a time on a schedule that is never put off, and latency counts from
//! that time, so that a stall of the proxy is seen by all that should have been sent during it.

#![forbid(unsafe_op_in_unsafe_fn)]

mod body;
pub mod bound;
pub mod calls;
pub mod churn;
pub mod cpu;
pub mod deferred;
mod endpoint;
mod establish;
pub mod faults;
mod frame;
mod line;
pub mod mix;
pub mod pipe;
mod plot;
pub mod pump;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod secure;
mod sip;
