//! The call record file: one JSON line a finished session, appended by the services thread.
//!
//! Cores put records into a bounded queue. The writer looks at it twenty times a second as long as it finds some, then sleeps until
//! it is woken for the next. It opens the file anew for each batch, so that it can be rotated by renaming it.

use crate::io::bridge::wake::Sleeping;
use crate::shard::record::{Cdr, Refusals};
use crossbeam::queue::ArrayQueue;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Records that may wait: some seconds of a busy node while a disk hangs.
const RECORDS_MAX: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(50);
/// Where the last try failed.
const PAUSE_FAILING: Duration = Duration::from_secs(1);

/// Where cores leave their records.
#[derive(Clone)]
pub struct Records(Arc<Shared>);

/// What a core left.
enum Left {
    One(Box<Cdr>),
    Many(Box<Refusals>),
}

struct Shared {
    waiting: ArrayQueue<Left>,
    /// Records in the packs of [`Left::Many`] that wait, beside the first of each.
    packed: AtomicUsize,
    dropped: AtomicU64,
    stopping: AtomicBool,
    sleeping: Sleeping,
    wake: Notify,
}

impl Default for Records {
    fn default() -> Self {
        Self(Arc::new(Shared {
            waiting: ArrayQueue::new(RECORDS_MAX),
            packed: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            sleeping: Sleeping::new(),
            wake: Notify::new(),
        }))
    }
}

impl Records {
    /// Leaves a record; when the disk has hung for long it is dropped and counted.
    pub fn leave(&self, record: Box<Cdr>) {
        if self.0.waiting.push(Left::One(record)).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.wake();
    }

    /// Leaves the records of many refusals.
    pub fn leave_all(&self, refusals: Refusals) {
        let count = refusals.len();
        let beside = count.saturating_sub(1);
        let packed = self.0.packed.fetch_add(beside, Ordering::Relaxed);
        if packed + count > RECORDS_MAX || self.0.waiting.push(Left::Many(Box::new(refusals))).is_err() {
            self.0.packed.fetch_sub(beside, Ordering::Relaxed);
            self.0.dropped.fetch_add(count as u64, Ordering::Relaxed);
        }
        self.wake();
    }

    fn wake(&self) {
        if self.0.sleeping.must_wake() {
            self.0.wake.notify_one();
        }
    }

    /// Records that wait to be written.
    fn waiting(&self) -> usize {
        self.0.waiting.len() + self.0.packed.load(Ordering::Relaxed)
    }

    /// Records dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// The writer ends when it has written what waits.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }

    /// Writes records as they come, in the services thread; with no file they are let go. Ends after [`Records::stop`].
    ///
    /// What cannot be written, on a disk that is full, is tried again and again, and nothing new is taken meanwhile: then the queue
    /// fills, and what finds it full is dropped and counted.
    pub async fn write(self, file: Option<PathBuf>) {
        let mut lines = Vec::new();
        // Whether it can be had is told at once, not with the first call.
        let mut failing = file.as_ref().is_some_and(|file| {
            let error = append_now(file, b"", &mut 0).err();
            if let Some(error) = &error {
                tracing::error!(?file, %error, "call records cannot be written; they wait");
            }
            error.is_some()
        });
        loop {
            let stopping = self.0.stopping.load(Ordering::Acquire);
            if lines.is_empty() {
                lines = self.take(file.is_some());
            }
            if let Some(file) = file.as_ref().filter(|_| !lines.is_empty()) {
                let error = append(file, &mut lines).await.err();
                match (&error, failing) {
                    (Some(error), false) => tracing::error!(?file, %error, "call records cannot be written; they wait"),
                    (None, true) => tracing::info!(?file, dropped = self.dropped(), "call records are written again"),
                    _ => {}
                }
                failing = error.is_some();
                if failing && stopping {
                    let lost = lines.iter().filter(|octet| **octet == b'\n').count() + self.waiting();
                    return tracing::error!(?file, lost, "call records are lost");
                }
            } else if stopping {
                return;
            }
            tokio::time::sleep(if failing { PAUSE_FAILING } else { PAUSE }).await;
            if lines.is_empty() {
                self.sleep().await;
            }
        }
    }

    /// Until there is a record, or no more will come.
    async fn sleep(&self) {
        if self.0.sleeping.may_wait(|| self.waiting() > 0 || self.0.stopping.load(Ordering::Acquire)) {
            self.0.wake.notified().await;
            self.0.sleeping.awake();
        }
    }

    /// What waits, as lines.
    fn take(&self, wanted: bool) -> Vec<u8> {
        let mut lines = Vec::new();
        while let Some(left) = self.0.waiting.pop() {
            match left {
                _ if !wanted => {}
                Left::One(ref record) => line(record, &mut lines),
                Left::Many(ref refusals) => refusals.records().for_each(|record| line(&record, &mut lines)),
            }
            if let Left::Many(refusals) = left {
                self.0.packed.fetch_sub(refusals.len().saturating_sub(1), Ordering::Relaxed);
            }
        }
        lines
    }
}

fn line(record: &Cdr, lines: &mut Vec<u8>) {
    if serde_json::to_writer(&mut *lines, record).is_ok() {
        lines.push(b'\n');
    }
}

/// Appends lines to a file; those that were written are gone from `lines`, so that the others can be tried again.
async fn append(file: &Path, lines: &mut Vec<u8>) -> std::io::Result<()> {
    let (file, octets) = (file.to_owned(), std::mem::take(lines));
    let written = tokio::task::spawn_blocking(move || {
        let mut done = 0;
        let result = append_now(&file, &octets, &mut done);
        (octets, done, result)
    });
    // A panic of ours: what was to be written is gone with it.
    let (octets, done, result) = written.await.map_err(std::io::Error::other)?;
    lines.extend_from_slice(&octets[done..]);
    result
}

/// `done`: octets that are in the file; a disk that fills up takes a part of a line.
fn append_now(file: &Path, octets: &[u8], done: &mut usize) -> std::io::Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    while *done < octets.len() {
        match file.write(&octets[*done..]) {
            Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => *done += written,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Instant;

    fn refusals(count: usize) -> Refusals {
        let mut refusals = Refusals::default();
        for number in 0..count {
            let texts = [&*format!("call-{number}"), "sip:alice@a", "sip:bob@b"];
            refusals.add(Instant::from_unix_s(7), ("originating", "session"), texts, 503, "limits.overload_queue_delay");
        }
        refusals
    }

    #[test]
    fn a_pack_of_refusals_is_a_line_each() {
        let records = Records::default();
        records.leave(Box::new(Cdr { call_id: "first".into(), ..Cdr::default() }));
        records.leave_all(refusals(2));
        assert_eq!(records.waiting(), 3);
        let lines = String::from_utf8(records.take(true)).unwrap();
        let read: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |field: &str| read.iter().map(|record| record[field].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(of("call_id"), ["first", "call-0", "call-1"]);
        assert_eq!(of("originator"), ["", "sip:alice@a", "sip:alice@a"]);
        assert_eq!((records.waiting(), records.dropped()), (0, 0));
    }

    #[test]
    fn no_more_packed_records_wait_than_others() {
        let records = Records::default();
        records.leave_all(refusals(RECORDS_MAX));
        records.leave_all(refusals(3));
        assert_eq!(records.dropped(), 3);
        assert_eq!(records.take(false), b"");
        records.leave_all(refusals(1));
        assert_eq!(records.dropped(), 3);
    }
}
