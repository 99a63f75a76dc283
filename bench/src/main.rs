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
mod calls;
mod cpu;
mod endpoint;
mod establish;
mod faults;
mod frame;
mod relay;
mod report;
mod scenario;
mod sip;

use clap::{Parser, Subcommand};
use scenario::Scenario;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(version, about = "Load for CPM and MSRP proxies: calls, large messages, chat, churn, slow readers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one scenario file; results as JSON on standard output or into a file.
    Run {
        /// TOML scenario (see bench/scenarios).
        scenario: PathBuf,
        /// Set a key of the scenario: `--set sessions=100`.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Process whose CPU time is read (with all its children).
        #[arg(long)]
        pid: Option<u32>,
        /// Count only threads of that name ("media-0").
        #[arg(long)]
        thread: Option<String>,
        /// CPU to run on.
        #[arg(long)]
        cpu: Option<usize>,
        /// Write the JSON result there too.
        #[arg(long)]
        json: Option<PathBuf>,
        /// No progress lines on standard error.
        #[arg(long)]
        quiet: bool,
    },
    /// Turn result files into one HTML page with plots.
    Report {
        /// JSON results of `run`.
        results: Vec<PathBuf>,
        #[arg(long, default_value = "report.html")]
        out: PathBuf,
    },
    /// The faults known of MSRP relays, each as a check: exits 1 when the relay shows one.
    Faults {
        /// How to reach the relay, as the `via` of a scenario.
        #[arg(long)]
        via: String,
        /// Which: slow-reader, stall, two-frames, big-chunk, or all.
        #[arg(default_value = "all")]
        which: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run { scenario, set, pid, thread, cpu, json, quiet } => {
            if let Some(cpu) = cpu {
                cpu::pin(cpu);
            }
            Scenario::load(&scenario, &set).and_then(|scenario| {
                let meter = pid.map(|pid| cpu::Meter::new(pid, thread.clone()));
                let result = match scenario.load {
                    scenario::Load::Calls => calls::run(&scenario, meter, quiet)?,
                    _ => relay::run(&scenario, meter, quiet)?,
                };
                let text = serde_json::to_string_pretty(&result).map_err(|error| error.to_string())?;
                println!("{text}");
                if let Some(path) = json {
                    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
                }
                Ok(result.passed)
            })
        }
        Command::Report { results, out } => report::write(&results, &out).map(|()| true),
        Command::Faults { via, which } => faults::run(&via, &which),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("cpm-bench: {error}");
            ExitCode::from(2)
        }
    }
}
