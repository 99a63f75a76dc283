//! Floor 5: the kernel. Threads, sockets, rings, files, the clock, and every `unsafe`.
//!
//! ```text
//! threads  wiring  bridge/           the threads of the process, and the lanes between them
//! signalling/  media/  services/     the three kinds of threads
//! ring  probe  clock  tls            what they share
//! supervise  control  signals  reload  handover/  watchdog     the process as a whole
//! logging  telemetry  cdr  admin/  capture/    what operators see
//! demo/  tune/                       `cpm-pf demo` and `cpm-pf tune`
//! faults                             made-up faults of the kernel, in debug builds alone
//! ```

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
