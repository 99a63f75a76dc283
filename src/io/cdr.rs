//! The call record file: one JSON line a finished session, appended by the services thread.
//!
//! Cores put records into a bounded queue that nobody is woken for; the writer looks at it twenty times a second, and opens the
//! file anew for each batch, so that it can be rotated by renaming it.

use crate::shard::record::Cdr;
use crossbeam::queue::ArrayQueue;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Records that may wait: some seconds of a busy node while a disk hangs.
const RECORDS_MAX: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(50);

/// Where cores leave their records.
#[derive(Clone)]
pub struct Records(Arc<Shared>);

struct Shared {
    waiting: ArrayQueue<Box<Cdr>>,
    dropped: AtomicU64,
    stopping: AtomicBool,
}

impl Default for Records {
    fn default() -> Self {
        Self(Arc::new(Shared {
            waiting: ArrayQueue::new(RECORDS_MAX),
            dropped: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        }))
    }
}

impl Records {
    /// Leaves a record; when the disk has hung for long it is dropped and counted.
    pub fn leave(&self, record: Box<Cdr>) {
        if self.0.waiting.push(record).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// The writer ends when it has written what waits.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Writes records as they come, in the services thread; with no file they are let go. Ends after [`Records::stop`].
    pub async fn write(self, file: Option<PathBuf>) {
        let mut failing = false;
        loop {
            let stopping = self.0.stopping.load(Ordering::Acquire);
            let mut lines = Vec::new();
            while let Some(record) = self.0.waiting.pop() {
                if file.is_some() && serde_json::to_writer(&mut lines, &record).is_ok() {
                    lines.push(b'\n');
                }
            }
            if let Some(file) = file.clone().filter(|_| !lines.is_empty()) {
                let written = tokio::task::spawn_blocking(move || append(&file, &lines)).await;
                let failed = !matches!(&written, Ok(Ok(())));
                if failed && !failing {
                    tracing::error!(?written, "call records cannot be written");
                }
                failing = failed;
            } else if stopping {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn append(file: &Path, lines: &[u8]) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(lines)
}
