//! The main thread while the proxy serves: signals, reloads, draining, and the hand-over to the next process.
//!
//! ```text
//! serving ── Terminate ─> draining ── no session left, or drain_timeout ─> stopped
//!    │ ^ the new process failed
//!    v │
//! handing ── it has begun ─> handed on ── no session left, or handover_timeout ─> stopped
//!                                │ the new process crashed: serving again · it was told to end: draining
//! ```

use super::clock::Clock;
use super::control::{Event, Process, Reloaded};
use super::handover::Side;
use super::handover::give;
use super::handover::wire::Hello;
use super::reload;
use super::threads::Running;
use crate::base::clock::Instant;
use crate::config::{self, Config};
use sd_notify::NotifyState;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long sessions are given to end with BYE when the time to drain is over.
const LINGER: Duration = Duration::from_secs(2);
/// What the end itself may take beyond that: stores, call records and the log are written.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// How long the next process may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(60);
/// How long to sleep where nothing is due.
const LONG: Duration = Duration::from_secs(3600);

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    Done,
    Failed,
}

/// Where the process is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Serving,
    /// The next process has everything and has not begun yet; at that time it is given up.
    Handing {
        until: Instant,
        pid: Option<i32>,
    },
    /// It has begun; at that time the last sessions end. `ending`: it was told to end itself.
    HandedOn {
        until: Instant,
        ending: bool,
    },
    /// Told to end.
    Draining {
        until: Instant,
    },
}

/// The main thread.
pub struct Supervisor {
    running: Running,
    process: Process,
    file: PathBuf,
    life: Life,
    /// Signalling cores that have nothing left.
    drained: usize,
    /// SIGTERM or SIGINT came.
    told: bool,
    /// The next process, where we started it.
    child: Option<Child>,
    clock: Clock,
}

impl Supervisor {
    /// Of a proxy that is ready; `file` is read again by a reload.
    pub fn new(running: Running, process: Process, file: PathBuf) -> Self {
        let (life, clock) = (Life::Serving, Clock::start());
        Self { running, process, file, life, drained: 0, told: false, child: None, clock }
    }

    /// Serves until the process is to end.
    pub fn serve(mut self, events: &Receiver<Event>) -> Ended {
        loop {
            let wait = self.until().map_or(LONG, |until| until.since(self.clock.now()));
            match events.recv_timeout(wait) {
                Ok(Event::Terminate) if self.told => {
                    tracing::info!("second signal: stopping at once");
                    self.running.stop(Duration::ZERO);
                    return Ended::Done;
                }
                Ok(Event::Terminate) => self.terminate(),
                Ok(Event::Drain) if self.life == Life::Serving => self.drain(),
                Ok(Event::Reload(asked)) => self.reload(asked),
                Ok(Event::Drain) => {}
                Ok(Event::Renew) => self.renew(),
                Ok(Event::HandOver(stream, hello)) => self.hand_over(stream, &hello),
                Ok(Event::TakenOver) => self.taken_over(),
                Ok(Event::NeighbourEnds(side)) => self.neighbour_ends(side),
                Ok(Event::Parted(side)) => self.parted(side),
                Ok(Event::Drained(_)) => self.drained += 1,
                Ok(Event::Ended { thread, failed }) => {
                    // A core that is gone takes its sessions with it; whoever supervises us starts all anew.
                    tracing::error!(thread, failed, "a thread ended; so does the process");
                    return Ended::Failed;
                }
                Err(RecvTimeoutError::Timeout) => self.late(),
                Err(RecvTimeoutError::Disconnected) => return Ended::Failed,
            }
            if self.is_over() {
                self.running.stop(LINGER);
                tracing::info!("stopped");
                return Ended::Done;
            }
        }
    }

    fn until(&self) -> Option<Instant> {
        match self.life {
            Life::Serving => None,
            Life::Handing { until, .. } | Life::HandedOn { until, .. } | Life::Draining { until } => Some(until),
        }
    }

    /// Nothing is left to be waited for: our sessions, and those of the process before, whose messages pass through us.
    fn is_over(&self) -> bool {
        let (ends, until) = match self.life {
            Life::Draining { until } | Life::HandedOn { until, .. } => (true, until),
            Life::Serving | Life::Handing { .. } => (false, Instant::default()),
        };
        let empty = self.drained >= self.running.signalling.len() && !self.running.has_former();
        ends && (empty || self.clock.now() >= until)
    }

    fn late(&mut self) {
        match self.life {
            Life::Handing { .. } => self.resume("the new process does not begin"),
            Life::Draining { .. } | Life::HandedOn { .. } => {
                tracing::warn!("time to drain is over: ending the sessions that are left");
            }
            Life::Serving => {}
        }
    }

    fn drain(&mut self) {
        if !self.process.is_draining() {
            tracing::info!("draining: no new dialogs");
            self.process.set_draining(true);
            self.running.drain();
        }
    }

    fn terminate(&mut self) {
        self.told = true;
        let drain_timeout = self.running.config().node.drain_timeout;
        // The unit's TimeoutStopSec= would cut a longer drain short.
        let patience = format!("EXTEND_TIMEOUT_USEC={}", (drain_timeout + LINGER + STOP_MARGIN).as_micros());
        let _ = sd_notify::notify(false, &[NotifyState::Stopping, NotifyState::Custom(&patience)]);
        if matches!(self.life, Life::Handing { .. }) {
            self.resume("told to end meanwhile");
        }
        let until = self.clock.now() + drain_timeout;
        match self.life {
            // The other process takes what is new: nothing is refused.
            Life::HandedOn { until: before, ending } => self.life = Life::HandedOn { until: before.min(until), ending },
            _ => {
                self.running.tell_former();
                self.drain();
                self.life = Life::Draining { until };
            }
        }
    }

    // The next process.

    /// Starts the program anew as it was started, so that it takes over.
    fn renew(&mut self) {
        if self.life != Life::Serving || self.running.config().node.handover.is_none() {
            return tracing::warn!("no hand-over now: it needs node.handover, and a process that serves");
        }
        if let Some(child) = &mut self.child {
            // One that failed is done with; one that has not asked yet is waited for.
            if matches!(child.try_wait(), Ok(None)) {
                return tracing::warn!("a new process is starting already");
            }
        }
        let mut line = std::env::args_os();
        let Some(program) = line.next() else { return };
        let mut command = Command::new(program);
        command.args(line.filter(|argument| argument != "--take-over")).arg("--take-over");
        // The watchdog's variables name this process; the next one is to believe that they are its own.
        command.env_remove("WATCHDOG_PID");
        match command.spawn() {
            Ok(child) => {
                tracing::info!(pid = child.id(), "a new process was started to take over");
                self.child = Some(child);
            }
            Err(error) => tracing::error!(%error, "a new process cannot be started"),
        }
    }

    fn hand_over(&mut self, stream: UnixStream, hello: &Hello) {
        let objection = match self.life {
            Life::Serving if self.process.is_draining() => Some("this process is draining".into()),
            Life::Serving => give::objection(hello, self.running.config(), self.running.numbers_taken()),
            Life::Handing { .. } | Life::HandedOn { .. } => Some("another process is taking over, or has".into()),
            Life::Draining { .. } => Some("this process is ending".into()),
        };
        if let Some(why) = objection {
            return give::refuse(&stream, &why);
        }
        let pid = give::pid(&stream);
        tracing::info!(pid, release = hello.release, "handing over");
        self.life = Life::Handing { until: self.clock.now() + BEGIN_MAX, pid };
        if let Err(error) = self.running.hand_over(stream) {
            self.resume(&error.to_string());
        }
    }

    fn taken_over(&mut self) {
        let Life::Handing { pid, .. } = self.life else { return };
        tracing::info!(pid, "handed over: ending when the sessions have");
        self.process.set_draining(true);
        self.process.set_handed_on(true);
        self.drained = 0;
        self.running.taken_over();
        let until = self.clock.now() + self.running.config().node.handover_timeout;
        self.life = Life::HandedOn { until, ending: false };
        if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
            let _ = sd_notify::notify(false, &[NotifyState::MainPid(pid)]);
        }
    }

    fn neighbour_ends(&mut self, side: Side) {
        if side == Side::After
            && let Life::HandedOn { until, .. } = self.life
        {
            let drained = self.clock.now() + self.running.config().node.drain_timeout;
            self.life = Life::HandedOn { until: until.min(drained), ending: true };
            self.running.tell_former();
        }
    }

    fn parted(&mut self, side: Side) {
        match (side, self.life) {
            (Side::Before, _) => {
                self.running.former_gone();
                tracing::info!("the process before is gone");
            }
            (Side::After, Life::HandedOn { until, ending }) if ending || self.told => {
                // Nobody else reads the sockets now, and our sessions still hear from their peers there.
                self.running.take_back(true);
                self.drained = 0;
                self.life = Life::Draining { until };
            }
            (Side::After, Life::Handing { .. } | Life::HandedOn { .. }) => self.resume("the new process is gone"),
            (Side::After, Life::Serving | Life::Draining { .. }) => {}
        }
    }

    /// Serves again as if nothing had been.
    fn resume(&mut self, why: &str) {
        tracing::error!(why, "the hand-over failed; this process serves on");
        // The socket at which the next process asks may be the one that is gone.
        if let Some(path) = self.running.config().node.handover.clone()
            && let Err(error) = give::listen(&path, self.process.clone())
        {
            tracing::error!(%error, "no other process can take over");
        }
        self.running.take_back(false);
        self.process.set_draining(false);
        self.process.set_handed_on(false);
        self.drained = 0;
        self.life = Life::Serving;
        let _ = sd_notify::notify(false, &[NotifyState::MainPid(std::process::id())]);
    }

    // The configuration.

    /// Reads the file again, and tells `asked` what became of that.
    fn reload(&mut self, asked: Option<oneshot::Sender<Reloaded>>) {
        let became = match self.life {
            Life::Serving | Life::Handing { .. } => self.read_again(),
            Life::HandedOn { .. } | Life::Draining { .. } => Reloaded::Refused { why: "the process ends\n".to_string() },
        };
        if let Some(asked) = asked {
            // Who asked may have gone.
            let _ = asked.send(became);
        }
    }

    fn read_again(&mut self) -> Reloaded {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            let _ = sd_notify::notify(false, &[NotifyState::Reloading, now]);
        }
        let became = match config::read::load(&self.file) {
            Ok(config) => self.take(config),
            Err(mistakes) => {
                let mut why = String::new();
                for mistake in mistakes {
                    tracing::error!(%mistake, "the configuration is not reloaded");
                    why.push_str(&format!("{mistake}\n"));
                }
                Reloaded::Refused { why }
            }
        };
        let _ = sd_notify::notify(false, &[NotifyState::Ready]);
        became
    }

    fn take(&mut self, config: Config) -> Reloaded {
        let (config, kept) = reload::merge(self.running.config(), config);
        for key in &kept {
            tracing::warn!(key, "this key cannot change while the proxy runs; it keeps its value until the next start");
        }
        match self.running.reload(config) {
            Ok(()) => {
                tracing::info!("configuration reloaded");
                Reloaded::Taken { kept }
            }
            Err(error) => {
                tracing::error!(%error, "the configuration is not reloaded");
                Reloaded::Refused { why: format!("{error}\n") }
            }
        }
    }
}
