//! The log on standard error: written by a thread of its own, so that no core ever waits for a terminal or a pipe.
//!
//! A core formats its line and puts it into a bounded queue; a line that finds the queue full is dropped and counted, and the
//! next line that goes out is followed by one that says how many were lost.
//!
//! While lines come, the thread looks for them every [`PAUSE`] and nobody wakes it; when none has come for two of them it sleeps, and
//! the next line wakes it.

use crate::io::bridge::wake::Sleeping;
use crossbeam::queue::ArrayQueue;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for the log thread: a second of one line for each of some thousand calls.
const LINES_MAX: usize = 8192;
/// How long the log thread waits for more lines.
const PAUSE: Duration = Duration::from_millis(10);
/// Pauses without a line before it sleeps.
const PAUSES_MAX: u8 = 2;

/// `--log-format`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

struct Shared {
    lines: ArrayQueue<Vec<u8>>,
    dropped: AtomicU64,
    stopping: AtomicBool,
    sleeping: Sleeping,
    /// The log thread, once it runs.
    writer: OnceLock<std::thread::Thread>,
}

#[derive(Clone)]
struct Queue(Arc<Shared>);

/// One line in the making; `tracing` writes it in one piece.
struct Line {
    shared: Arc<Shared>,
    octets: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.octets.extend_from_slice(octets);
        Ok(octets.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shared.lines.push(std::mem::take(&mut self.octets)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if self.shared.sleeping.must_wake() {
            self.shared.writer.get().inspect(|writer| writer.unpark());
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line { shared: self.0.clone(), octets: Vec::with_capacity(256) }
    }
}

/// Keeps the log thread; what is queued is written before the last of these is gone.
pub struct Guard {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Starts the log. `RUST_LOG` sets what is said; without it: `info`.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(format: Format) -> std::io::Result<Guard> {
    let shared = Arc::new(Shared {
        lines: ArrayQueue::new(LINES_MAX),
        dropped: AtomicU64::new(0),
        stopping: AtomicBool::new(false),
        sleeping: Sleeping::new(),
        writer: OnceLock::new(),
    });
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|wanted| !wanted.is_empty());
    let filter = wanted.as_ref().map_or_else(|| Ok(EnvFilter::new("info")), EnvFilter::try_new);
    let mistake = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let queue = Queue(shared.clone());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue).with_ansi(false);
    match format {
        // A second log in one process (tests) keeps the first.
        Format::Text => builder.try_init().ok(),
        Format::Json => builder.json().flatten_event(true).try_init().ok(),
    };
    std::panic::set_hook(Box::new(|panic| {
        // A bug is a line of the log like any other, in its format; with a backtrace where RUST_BACKTRACE asks for one.
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(thread, %backtrace, "{panic}");
    }));
    if let Some(error) = mistake {
        tracing::warn!(error, "RUST_LOG is not understood; what is info or worse is logged");
    }
    let written = shared.clone();
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || write_lines(&written, format))?;
    Ok(Guard { shared, thread: Some(thread) })
}

/// The line that stands for lines that were dropped, in the form of all others.
fn dropped_line(format: Format, count: u64) -> String {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    let target = module_path!();
    match format {
        Format::Text => format!("{now}  WARN {target}: log lines dropped count={count}\n"),
        Format::Json => {
            let line = serde_json::json!({
                "timestamp": now, "level": "WARN", "message": "log lines dropped", "count": count, "target": target
            });
            format!("{line}\n")
        }
    }
}

fn write_lines(shared: &Shared, format: Format) {
    let _ = shared.writer.set(std::thread::current());
    let mut batch = Vec::with_capacity(64 * 1024);
    let mut pauses = 0;
    loop {
        // Read before the queue: what was pushed before the stop is in the queue now.
        let stopping = shared.stopping.load(Ordering::Acquire);
        while let Some(line) = shared.lines.pop() {
            batch.extend_from_slice(&line);
            if batch.len() > 48 * 1024 {
                break;
            }
        }
        let dropped = shared.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            batch.extend_from_slice(dropped_line(format, dropped).as_bytes());
        }
        if !batch.is_empty() {
            // A closed standard error is nobody's concern but the operator's.
            let _ = std::io::stderr().write_all(&batch);
            batch.clear();
            pauses = 0;
        } else if stopping {
            return;
        } else if pauses < PAUSES_MAX {
            pauses += 1;
            std::thread::park_timeout(PAUSE);
        } else if shared.sleeping.may_wait(|| !shared.lines.is_empty()) {
            // Whoever stops it unparks it too, and that is not lost where it comes first.
            std::thread::park();
            shared.sleeping.awake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_dropped_lines_looks_like_every_other_line() {
        let text = dropped_line(Format::Text, 7);
        assert!(text.ends_with(" WARN cpm_pf::io::logging: log lines dropped count=7\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&dropped_line(Format::Json, 7)).expect("a line of JSON");
        assert_eq!((&json["level"], &json["count"]), (&"WARN".into(), &7.into()));
    }
}
