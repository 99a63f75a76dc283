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
    /// Run one scenario file; results as JSON on standard output. Exits 1 when a run did not pass.
    Run(Run),
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

#[derive(clap::Args)]
struct Run {
    /// TOML scenario (see bench/scenarios).
    scenario: PathBuf,
    /// Set a key of the scenario: `--set sessions=100`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Run it once for each value, one after another: `--over rate=1000,5000,20000`; the result is a list.
    #[arg(long, value_name = "KEY=VALUE,...")]
    over: Option<String>,
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
    /// Write a page with table and plots there.
    #[arg(long)]
    html: Option<PathBuf>,
    /// No progress lines on standard error.
    #[arg(long)]
    quiet: bool,
}

impl Run {
    /// Whether every run passed.
    fn run(self) -> Result<bool, String> {
        if let Some(cpu) = self.cpu {
            cpu::pin(cpu);
        }
        let mut outcomes = Vec::new();
        for more in self.values()? {
            let set: Vec<String> = self.set.iter().cloned().chain(more).collect();
            let scenario = Scenario::load(Some(&self.scenario), &set)?;
            let meter = self.pid.map(|pid| cpu::Meter::new(pid, self.thread.clone()));
            if let (Some(pid), Some(meter)) = (self.pid, &meter)
                && meter.read() == 0
            {
                return Err(format!("--pid {pid}: there is no such process, or it has no such thread"));
            }
            outcomes.push(mix::run(&scenario, meter, self.quiet)?);
        }
        let text = match &outcomes[..] {
            [outcome] if self.over.is_none() => serde_json::to_string_pretty(outcome),
            list => serde_json::to_string_pretty(list),
        };
        let text = text.map_err(|error| error.to_string())?;
        println!("{text}");
        if let Some(path) = self.json {
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        if let Some(path) = self.html {
            report::page(&outcomes, &path)?;
        }
        Ok(outcomes.iter().all(|outcome| outcome.passed))
    }

    /// What `--over` sets in each run.
    fn values(&self) -> Result<Vec<Option<String>>, String> {
        let Some(over) = &self.over else { return Ok(vec![None]) };
        let (key, values) = over.split_once('=').ok_or(format!("--over {over}: KEY=VALUE,... is wanted"))?;
        Ok(values.split(',').map(|value| Some(format!("{key}={value}"))).collect())
    }
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(run) => run.run(),
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
