//! Floor 5: the kernel. Threads, sockets, rings, files, the clock, and every `unsafe`.

pub mod admin;
pub mod bridge;
pub mod capture;
pub mod cdr;
pub mod clock;
pub mod control;
pub mod demo;
mod faults;
pub mod handover;
pub mod logging;
pub mod media;
pub mod probe;
pub mod reload;
pub mod ring;
pub mod services;
pub mod signalling;
pub mod signals;
pub mod supervise;
pub mod telemetry;
pub mod threads;
pub mod tls;
pub mod tune;
pub mod watchdog;
pub mod wiring;
