//! CR 8.5: objects that wait on disk, for a Message Storage Server that is away or for another try where one was refused.
//!
//! ```text
//! SPOOL/history/DUE-NAME-TRIES.json     what the object says; DUE: not to be tried before, seconds since the Unix epoch
//! SPOOL/history/NAME.body               its body
//! ```
//!
//! Numbers are hexadecimal and of one width, so names sort by what is due first, and in the order of arrival within that. The
//! body is there before its record is; putting an object off is one rename.

use super::body_file;
use crate::base::prng::Prng;
use crate::limits::{HISTORY_QUEUE_MAX, IMAP_BATCH_MAX};
use crate::store::history::{Body, Object};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// Octets of what a queued object says, without its body.
const RECORD_OCTETS_MAX: usize = 1024 * 1024;

/// The objects of one directory.
pub struct Queue {
    directory: PathBuf,
    /// How many wait because the store was away, and how many because it refused them.
    away: Cell<usize>,
    refused: Cell<usize>,
    /// The earliest time at which one is due, or earlier.
    due_s: Cell<u64>,
    /// Names of those that were offered, and may have been stored.
    unsure: RefCell<HashSet<String>>,
    number: Cell<u64>,
    prng: RefCell<Prng>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({})", self.directory.display())
    }
}

/// One that waits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    pub due_s: u64,
    name: String,
    /// How often the store refused it.
    pub tries: u32,
}

/// An [`Object`] as it waits.
#[derive(Serialize, Deserialize)]
struct Queued {
    user: String,
    folder: Vec<String>,
    headers: Vec<(String, String)>,
    seen: bool,
    date_s: u64,
    octets: u64,
    /// It was offered before it came here, and may have been stored.
    #[serde(default)]
    unsure: bool,
}

impl Queue {
    /// Opens the queue below a spool directory, and removes what a crash left half written.
    ///
    /// # Errors
    /// Where its directory cannot be created or read.
    pub fn open(spool: &Path, prng: Prng) -> io::Result<Self> {
        let directory = spool.join("history");
        std::fs::create_dir_all(&directory)?;
        let (away, refused, unsure) = Default::default();
        let (due_s, number, prng) = (Cell::new(0), Cell::new(0), RefCell::new(prng));
        let queue = Self { directory, away, refused, due_s, unsure, number, prng };
        let entries = queue.entries()?;
        queue.count(&entries);
        // Those that were under way when the last process ended were the first.
        entries.iter().take(IMAP_BATCH_MAX).for_each(|entry| queue.doubt(entry));
        queue.clear(&entries)?;
        Ok(queue)
    }

    /// Objects that wait because the store was away.
    pub fn away(&self) -> usize {
        self.away.get()
    }

    /// Objects that wait because the store refused them.
    pub fn refused(&self) -> usize {
        self.refused.get()
    }

    /// Whether something is due, as far as known without looking.
    pub fn is_due(&self, now_s: u64) -> bool {
        self.away.get() + self.refused.get() > 0 && self.due_s.get() <= now_s
    }

    /// Remembers that one may have been stored.
    pub fn doubt(&self, entry: &Entry) {
        self.unsure.borrow_mut().insert(entry.name.clone());
    }

    /// Puts an object in, durably; a body in a file moves here. `unsure`: it may have been stored.
    ///
    /// # Errors
    /// Where too many wait already, or the disk does not take it; the body is then where it was.
    pub async fn put(&self, object: &Object, now_s: u64, due_s: u64, tries: u32, unsure: bool) -> io::Result<()> {
        if self.away.get() + self.refused.get() >= HISTORY_QUEUE_MAX {
            return Err(io::Error::other("too many objects wait already"));
        }
        let number = self.number.replace(self.number.get() + 1);
        let entry = Entry { due_s, name: format!("{now_s:016x}{number:08x}{:016x}", self.prng.borrow_mut().u64()), tries };
        let queued = Queued {
            user: object.user.clone(),
            folder: object.folder.clone(),
            headers: object.headers.clone(),
            seen: object.seen,
            date_s: object.date_s,
            octets: object.body.octets(),
            unsure,
        };
        let text = serde_json::to_vec(&queued).map_err(io::Error::other)?;
        let body = self.body(&entry);
        match &object.body {
            Body::Inline(octets) => body_file::write(&body, &[octets]).await?,
            Body::File { path, .. } => body_file::keep(path, &body).await?,
        }
        if let Err(error) = body_file::write(&self.record(&entry), &[&text]).await {
            match &object.body {
                Body::Inline(_) => tokio_uring::fs::remove_file(&body).await?,
                Body::File { path, .. } => tokio_uring::fs::rename(&body, path).await?,
            }
            return Err(error);
        }
        self.counter(tries).set(self.counter(tries).get() + 1);
        self.due_s.set(self.due_s.get().min(due_s));
        Ok(())
    }

    /// All that waits, what is due first.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in std::fs::read_dir(&self.directory)? {
            entries.extend(file?.file_name().to_str().and_then(Entry::parse));
        }
        entries.sort();
        self.due_s.set(entries.first().map_or(u64::MAX, |entry| entry.due_s));
        Ok(entries)
    }

    /// The object, and whether it may have been stored; none where it cannot be read, with a line in the log.
    pub async fn read(&self, entry: &Entry) -> Option<(Object, bool)> {
        let path = self.record(entry);
        let text = body_file::read(&path, RECORD_OCTETS_MAX).await;
        let queued = text.and_then(|text| serde_json::from_slice::<Queued>(&text).map_err(io::Error::other));
        let queued =
            queued.inspect_err(|error| tracing::error!(path = %path.display(), %error, "a queued object cannot be read")).ok()?;
        let unsure = queued.unsure || self.unsure.borrow().contains(&entry.name);
        let object = Object {
            user: queued.user,
            folder: queued.folder,
            headers: queued.headers,
            body: Body::File { path: self.body(entry), octets: queued.octets },
            seen: queued.seen,
            date_s: queued.date_s,
        };
        Some((object, unsure))
    }

    /// Puts one off that was refused once more.
    ///
    /// # Errors
    /// Where it cannot be renamed; it is due as before then.
    pub async fn put_off(&self, entry: &Entry, due_s: u64) -> io::Result<()> {
        let later = Entry { due_s, name: entry.name.clone(), tries: entry.tries + 1 };
        tokio_uring::fs::rename(self.record(entry), self.record(&later)).await?;
        self.counter(entry.tries).set(self.counter(entry.tries).get().saturating_sub(1));
        self.counter(later.tries).set(self.counter(later.tries).get() + 1);
        Ok(())
    }

    /// Takes one out, with its body.
    pub async fn forget(&self, entry: &Entry) {
        for path in [self.record(entry), self.body(entry)] {
            match tokio_uring::fs::remove_file(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::error!(path = %path.display(), %error, "a queued object cannot be removed");
                }
                _ => {}
            }
        }
        self.unsure.borrow_mut().remove(&entry.name);
        self.counter(entry.tries).set(self.counter(entry.tries).get().saturating_sub(1));
    }

    fn counter(&self, tries: u32) -> &Cell<usize> {
        if tries == 0 { &self.away } else { &self.refused }
    }

    fn count(&self, entries: &[Entry]) {
        let refused = entries.iter().filter(|entry| entry.tries > 0).count();
        self.away.set(entries.len() - refused);
        self.refused.set(refused);
    }

    fn clear(&self, entries: &[Entry]) -> io::Result<()> {
        let bodies: HashSet<PathBuf> = entries.iter().map(|entry| self.body(entry)).collect();
        for file in std::fs::read_dir(&self.directory)? {
            let path = file?.path();
            let ours = path.extension().is_some_and(|extension| extension == "body" || extension == "partial");
            if ours && !bodies.contains(&path) {
                tracing::warn!(path = %path.display(), "a body that no queued object has is removed");
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn record(&self, entry: &Entry) -> PathBuf {
        self.directory.join(format!("{:016x}-{}-{:02x}.json", entry.due_s, entry.name, entry.tries))
    }

    fn body(&self, entry: &Entry) -> PathBuf {
        self.directory.join(format!("{}.body", entry.name))
    }
}

impl Entry {
    fn parse(file_name: &str) -> Option<Self> {
        let mut pieces = file_name.strip_suffix(".json")?.split('-');
        let due_s = u64::from_str_radix(pieces.next()?, 16).ok()?;
        let name = pieces.next().filter(|name| !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_hexdigit()))?;
        let tries = u32::from_str_radix(pieces.next()?, 16).ok()?;
        Some(Self { due_s, name: name.to_owned(), tries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object {
            user: "sip:bob@example.net".to_owned(),
            folder: vec!["Default".to_owned()],
            headers: vec![("Subject".to_owned(), text.to_owned())],
            body: Body::Inline(text.as_bytes().to_vec()),
            seen: false,
            date_s: 1,
        }
    }

    #[test]
    fn what_is_due_first_comes_first_and_a_restart_finds_all_of_it() {
        let spool = tempfile::tempdir().unwrap();
        tokio_uring::start(async {
            let queue = Queue::open(spool.path(), Prng::seeded(1)).unwrap();
            for (text, due, tries) in [("later", 50, 1), ("first", 7, 0), ("second", 7, 0)] {
                queue.put(&object(text), 7, due, tries, false).await.unwrap();
            }
            std::fs::write(spool.path().join("history/ab.body"), "half").unwrap();
            let queue = Queue::open(spool.path(), Prng::seeded(2)).unwrap();
            assert!(!spool.path().join("history/ab.body").exists());
            assert_eq!((queue.away(), queue.refused()), (2, 1));
            let entries = queue.entries().unwrap();
            let mut subjects = Vec::new();
            for entry in &entries {
                subjects.push(queue.read(entry).await.unwrap().0.headers[0].1.clone());
            }
            assert_eq!(subjects, ["first", "second", "later"]);
            assert!(queue.is_due(7) && !queue.is_due(6));

            queue.put_off(&entries[0], 60).await.unwrap();
            queue.forget(&entries[1]).await;
            assert_eq!((queue.away(), queue.refused()), (0, 2));
            let entries = queue.entries().unwrap();
            assert_eq!(entries.iter().map(|entry| (entry.due_s, entry.tries)).collect::<Vec<_>>(), [(50, 1), (60, 1)]);
            assert!(!queue.is_due(49));
        });
    }
}
