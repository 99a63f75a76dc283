//! cpm-pf: the command line.

use clap::{Args, Parser, Subcommand};
use cpm_pf::base::transport::Transport;
use cpm_pf::config::{self, Config, Listen};
use cpm_pf::io::control::{Event, Process};
use cpm_pf::io::demo;
use cpm_pf::io::handover::give;
use cpm_pf::io::logging::{self, Format};
use cpm_pf::io::signals::{self, Signal};
use cpm_pf::io::supervise::{Ended, Supervisor};
use cpm_pf::io::threads::{self, Running};
use cpm_pf::io::tune::host::Host;
use cpm_pf::io::tune::{self, Weight};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Done; runtime failure; bad arguments or configuration. (3, a kernel that lacks something, is told by the start.)
const DONE: u8 = 0;
const FAILED: u8 = 1;
const WRONG: u8 = 2;

/// CPM Participating Function: relays RCS large messages and chat sessions (SIP and MSRP back-to-back).
#[derive(Parser)]
#[command(name = "cpm-pf", version, about)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    /// How the log is written to standard error; RUST_LOG says what of it.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: Format,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the proxy.
    Run(Run),
    /// Checks a configuration file and prints what it comes to.
    Check(Check),
    /// Reads this machine and prints what to change of it, and why.
    Tune(Tuned),
    /// Starts the proxy and two clients on loopback, sends a large message and a session through it, and checks what arrives.
    Demo(demo::Options),
}

#[derive(Args)]
struct File {
    /// The configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Args)]
struct Check {
    #[command(flatten)]
    file: File,
    /// Prints mistakes alone.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    file: File,
    /// Takes the listening sockets over from the process at `node.handover`, which ends when its sessions have; without such a
    /// process: starts as usual.
    #[arg(long)]
    take_over: bool,
}

#[derive(Args)]
struct Tuned {
    /// The configuration that the machine is to carry; without it: every default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { WRONG } else { DONE });
        }
    };
    ExitCode::from(match line.command {
        Command::Check(options) => check(&options),
        Command::Tune(tuned) => tune(tuned.config.as_deref()),
        Command::Run(options) => logged(line.log_format, || run(&options, line.log_format)),
        Command::Demo(options) => logged(line.log_format, || demo::run(&options)),
    })
}

/// Runs with signals blocked and the log started; what is logged is written before this returns.
fn logged(format: Format, body: impl FnOnce() -> u8) -> u8 {
    signals::block();
    let Ok(_log) = logging::start(format) else { return FAILED };
    body()
}

fn check(options: &Check) -> u8 {
    match config::read::load(&options.file.config) {
        Ok(_) if options.quiet => DONE,
        Ok(config) => {
            // A reader that has seen enough may close the pipe.
            let _ = write!(std::io::stdout(), "{}", config.render());
            warn(&config);
            DONE
        }
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("{mistake}");
            }
            WRONG
        }
    }
}

/// What of this machine must or should be changed for a configuration that is right in itself.
fn warn(config: &Config) {
    for advice in tune::advise(&Host::read(), config).iter().filter(|advice| advice.weight != Weight::Note) {
        eprintln!("warning: {advice}");
    }
    for missing in threads::unusable_files(config) {
        eprintln!("warning: {missing}; `run` in this folder ends with exit code {WRONG}");
    }
}

fn tune(file: Option<&Path>) -> u8 {
    match file.map_or_else(|| Ok(Config::default()), config::read::load) {
        Ok(config) => {
            let _ = write!(std::io::stdout(), "{}", tune::report(&Host::read(), &config));
            DONE
        }
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("{mistake}");
            }
            WRONG
        }
    }
}

fn run(options: &Run, format: Format) -> u8 {
    let file = &options.file.config;
    let config = match config::read::load(file) {
        Ok(config) => Arc::new(config),
        Err(mistakes) => {
            for mistake in mistakes {
                match format {
                    Format::Text => eprintln!("{mistake}"),
                    // Whoever reads JSON gets nothing else.
                    Format::Json => tracing::error!("{mistake}"),
                }
            }
            return WRONG;
        }
    };
    if options.take_over && config.node.handover.is_none() {
        tracing::error!(file = %file.display(), "cannot start: --take-over needs node.handover, which names whom to take over from");
        return WRONG;
    }
    let (process, events) = Process::new();
    let running = match threads::start(config.clone(), process.clone(), options.take_over) {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return error.exit_code();
        }
    };
    let tell = process.clone();
    let waiting = signals::wait(move |signal| {
        let event = match signal {
            Signal::Stop => Event::Terminate,
            Signal::Reload => Event::Reload(None),
            Signal::Renew => Event::Renew,
        };
        tell.events.send(event).is_ok()
    });
    if let Err(error) = waiting {
        tracing::error!(%error, "cannot wait for signals");
        return FAILED;
    }
    if let Some(path) = &config.node.handover
        && let Err(error) = give::listen(path, process.clone())
    {
        // It serves all the same: what is missing is the next upgrade's.
        tracing::error!(%error, "no other process can take over");
    }
    let ready = ready_line(&running);
    tracing::info!("{ready}");
    let _ = writeln!(std::io::stdout(), "{ready}").and_then(|()| std::io::stdout().flush());
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    match Supervisor::new(running, process, file.clone()).serve(&events) {
        Ended::Done => DONE,
        Ended::Failed => FAILED,
    }
}

/// The one line on standard output: `ready sip=udp:127.0.0.1:5060,tcp:127.0.0.1:5060 msrp=tcp:127.0.0.1:2855 admin=127.0.0.1:9060`.
fn ready_line(running: &Running) -> String {
    let list = |listens: &[Listen]| {
        let scheme = |transport| match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        };
        listens.iter().map(|listen| format!("{}:{}", scheme(listen.transport), listen.address)).collect::<Vec<_>>().join(",")
    };
    let mut line = format!("ready sip={} msrp={}", list(&running.bound.sip), list(&running.bound.msrp));
    if let Some(admin) = running.admin {
        line += &format!(" admin={admin}");
    }
    line
}
