//! Floor 5: the kernel. Threads, sockets, rings, files, the clock, and every `unsafe`.

pub mod clock;
pub mod logging;
pub mod services;
pub mod signals;
pub mod tls;
