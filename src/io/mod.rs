//! Floor 5: the kernel. Threads, sockets, rings, files, the clock, and every `unsafe`.

pub mod bridge;
pub mod clock;
pub mod logging;
pub mod probe;
pub mod ring;
pub mod services;
pub mod signals;
pub mod tls;
