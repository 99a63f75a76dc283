//! The command line of cpm-bench.

use clap::{Parser, Subcommand};
use cpm_bench::scenario::Scenario;
use cpm_bench::{cpu, faults, mix, report, secure};
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
        /// Write each plot into this folder too, as SVG.
        #[arg(long)]
        plots: Option<PathBuf>,
    },
    /// Write a certificate and a key for loopback into a folder, for scenarios over TLS and the relays they are for.
    Certificate { folder: PathBuf },
    /// The faults known of MSRP relays, each as a script: exits 1 when the relay shows one.
    Faults {
        /// TOML scenario that says how the relay is reached (`via`, `relay`, `proxy`, …).
        #[arg(long)]
        scenario: Option<PathBuf>,
        /// Set a key of it: `--set via=msrp --set relay=127.0.0.1:2855`.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
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
            Scenario::load(Some(&scenario), &set).and_then(|scenario| {
                let meter = pid.map(|pid| cpu::Meter::new(pid, thread.clone()));
                let result = mix::run(&scenario, meter, quiet)?;
                let text = serde_json::to_string_pretty(&result).map_err(|error| error.to_string())?;
                println!("{text}");
                if let Some(path) = json {
                    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
                }
                Ok(result.passed)
            })
        }
        Command::Report { results, out, plots } => report::write(&results, &out)
            .and_then(|()| plots.map_or(Ok(()), |folder| report::write_plots(&results, &folder)))
            .map(|()| true),
        Command::Certificate { folder } => secure::write(&folder).map(|()| true),
        Command::Faults { scenario, set, json, which } => Scenario::load(scenario.as_deref(), &set)
            .and_then(|scenario| faults::run(&scenario, &which, &faults::Effort::default()))
            .map(|verdicts| {
                match json {
                    true => println!("{}", serde_json::to_string_pretty(&verdicts).expect("a verdict is JSON")),
                    false => verdicts.iter().for_each(|verdict| {
                        println!("{:12} {} {}", verdict.fault, if verdict.sound { "sound" } else { "FAULT" }, verdict.found);
                    }),
                }
                verdicts.iter().all(|verdict| verdict.sound)
            }),
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
