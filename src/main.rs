//! cpm-pf: the command line, and the main thread: it starts the others, waits for signals and ends them.

use clap::{Args, Parser, Subcommand};
use cpm_pf::base::transport::Transport;
use cpm_pf::config::{self, Config, Listen};
use cpm_pf::io::clock::Clock;
use cpm_pf::io::control::{Event, Process};
use cpm_pf::io::logging::{self, Format};
use cpm_pf::io::signals::{self, Signal};
use cpm_pf::io::threads::{self, Running};
use cpm_pf::io::tune::host::Host;
use cpm_pf::io::tune::{self, Weight};
use cpm_pf::io::{demo, reload};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Done; runtime failure; bad arguments or configuration. (3, a kernel that lacks something, is told by the start.)
const DONE: u8 = 0;
const FAILED: u8 = 1;
const WRONG: u8 = 2;

/// How long sessions are given to end with BYE when the time to drain is over.
const LINGER: Duration = Duration::from_secs(2);

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
    Run(File),
    /// Checks a configuration file and prints what it comes to.
    Check(File),
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
        Command::Check(file) => check(&file.config),
        Command::Tune(tuned) => tune(tuned.config.as_deref()),
        Command::Run(file) => logged(line.log_format, || run(&file.config)),
        Command::Demo(options) => logged(line.log_format, || demo::run(&options)),
    })
}

/// Runs with signals blocked and the log started; what is logged is written before this returns.
fn logged(format: Format, body: impl FnOnce() -> u8) -> u8 {
    signals::block();
    let Ok(_log) = logging::start(format) else { return FAILED };
    body()
}

fn check(file: &Path) -> u8 {
    match config::read::load(file) {
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

fn run(file: &Path) -> u8 {
    let config = match config::read::load(file) {
        Ok(config) => Arc::new(config),
        Err(mistakes) => {
            for mistake in mistakes {
                eprintln!("{mistake}");
            }
            return WRONG;
        }
    };
    let (process, events) = Process::new();
    let running = match threads::start(config, process.clone()) {
        Ok(running) => running,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return error.exit_code();
        }
    };
    let tell = process.clone();
    let waiting = signals::wait(move |signal| {
        let event = if signal == Signal::Reload { Event::Reload } else { Event::Terminate };
        tell.events.send(event).is_ok()
    });
    if let Err(error) = waiting {
        tracing::error!(%error, "cannot wait for signals");
        return FAILED;
    }
    let ready = ready_line(&running);
    tracing::info!("{ready}");
    let _ = writeln!(std::io::stdout(), "{ready}").and_then(|()| std::io::stdout().flush());
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    Main { running, process, file: file.to_owned(), drained: 0, clock: Clock::start() }.serve(&events)
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

/// The main thread while the proxy serves.
struct Main {
    running: Running,
    process: Process,
    file: PathBuf,
    /// Signalling cores that have nothing left.
    drained: usize,
    clock: Clock,
}

impl Main {
    fn serve(mut self, events: &Receiver<Event>) -> u8 {
        loop {
            match events.recv() {
                Ok(Event::Reload) => self.reload(),
                Ok(Event::Drain) => self.drain(),
                Ok(Event::Drained(_)) => self.drained += 1,
                Ok(Event::Terminate) => return self.terminate(events),
                Ok(Event::Ended { thread, failed }) => {
                    // A core that is gone takes its sessions with it; whoever supervises us starts all anew.
                    tracing::error!(thread, failed, "a thread ended; so does the process");
                    return FAILED;
                }
                Err(_) => return FAILED,
            }
        }
    }

    fn drain(&mut self) {
        if !self.process.is_draining() {
            tracing::info!("draining: no new dialogs");
            self.process.set_draining();
            self.running.drain();
        }
    }

    /// Drains and ends. A second signal, or a thread that fails, ends at once.
    fn terminate(mut self, events: &Receiver<Event>) -> u8 {
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
        self.drain();
        let until = self.clock.now() + self.running.config().node.drain_timeout;
        let cores = self.running.signalling.len();
        while self.drained < cores {
            match events.recv_timeout(until.since(self.clock.now())) {
                Ok(Event::Drained(_)) => self.drained += 1,
                Ok(Event::Reload | Event::Drain) => {}
                Ok(Event::Terminate) => {
                    tracing::info!("second signal: stopping at once");
                    self.running.stop(Duration::ZERO);
                    return DONE;
                }
                Ok(Event::Ended { thread, failed }) => {
                    tracing::error!(thread, failed, "a thread ended while draining");
                    return FAILED;
                }
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!("time to drain is over: ending the sessions that are left");
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => return FAILED,
            }
        }
        self.running.stop(LINGER);
        tracing::info!("stopped");
        DONE
    }

    fn reload(&mut self) {
        if let Ok(now) = sd_notify::NotifyState::monotonic_usec_now() {
            let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Reloading, now]);
        }
        match config::read::load(&self.file) {
            Ok(config) => self.take(config),
            Err(mistakes) => {
                for mistake in mistakes {
                    tracing::error!(%mistake, "the configuration is not reloaded");
                }
            }
        }
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    }

    fn take(&mut self, config: Config) {
        let (config, kept) = reload::merge(self.running.config(), config);
        for key in kept {
            tracing::warn!(key, "this key cannot change while the proxy runs; it keeps its value until the next start");
        }
        match self.running.reload(config) {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(error) => tracing::error!(%error, "the configuration is not reloaded"),
        }
    }
}
