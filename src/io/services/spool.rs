//! `store.spool`: where messages lie until a store has them. It belongs to one process, which clears at start what a crash
//! left: no sender was told that any of that is kept.
//!
//! ```text
//! SPOOL/lock                held while the process lives
//! SPOOL/node                who we are among the nodes of a shared store, from one start to the next
//! SPOOL/aB3…                a message that a media core receives; its name has sixteen characters of an MSRP ident
//! SPOOL/deferred/ID         a body fetched from the shared store for its delivery
//! SPOOL/history/….json      objects that wait for the history: these stay
//! SPOOL/registrations.redb  who is registered, for reg-event subscriptions after the next start: it stays
//! ```

use crate::base::prng::Prng;
use crate::store::deferred::DeferredId;
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Characters of a name that a media core gives.
const NAME_OCTETS: usize = 16;

/// The spool directory, ours as long as this lives.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    lock: File,
}

impl Spool {
    /// Takes possession of the directory, creates it where it is missing, and removes what an earlier process left.
    ///
    /// # Errors
    /// Where it cannot be created or written, or another process has it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let lock = File::options().create(true).truncate(false).write(true).open(directory.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("another process uses this spool")),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut removed = clear(directory, |name| name.len() == NAME_OCTETS && name.bytes().all(is_ident))?;
        if directory.join("deferred").is_dir() {
            removed += clear(&directory.join("deferred"), |name| DeferredId(name.to_owned()).is_plain())?;
        }
        if removed > 0 {
            tracing::warn!(directory = %directory.display(), removed, "messages were left half received; their senders had no answer");
        }
        Ok(Self { directory: directory.to_owned(), lock })
    }

    /// Takes possession together with the process that gave us its lock, whose messages lie here too.
    pub fn shared(directory: &Path, lock: OwnedFd) -> Self {
        Self { directory: directory.to_owned(), lock: lock.into() }
    }

    /// The lock, for another process.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        Ok(self.lock.try_clone()?.into())
    }

    /// A name that no other node has, the same after each start.
    ///
    /// # Errors
    /// Where it can be neither read nor written.
    pub fn node(&self, prng: &mut Prng) -> io::Result<String> {
        let path = self.directory.join("node");
        match std::fs::read_to_string(&path) {
            Ok(node) if DeferredId(node.trim().to_owned()).is_plain() => return Ok(node.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let node = format!("{:016x}{:016x}", prng.u64(), prng.u64());
        std::fs::write(&path, &node)?;
        Ok(node)
    }
}

/// Removes the files of one directory whose names are of ours; others are somebody's, and stay.
fn clear(directory: &Path, ours: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        if file.file_type()?.is_file() && file.file_name().to_str().is_some_and(&ours) {
            std::fs::remove_file(file.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// RFC 4975 §9: what an ident is made of.
fn is_ident(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b".-+%=".contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_is_removed_and_what_waits_for_a_store_stays() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(place("history")).unwrap();
        std::fs::create_dir_all(place("deferred")).unwrap();
        let name = crate::msrp::ident::Ident::random(&mut Prng::seeded(1)).to_text();
        let (left, stays) = ([&*name, "deferred/abc"], ["history/0-1.json", "notes.txt", "README"]);
        for name in left.iter().chain(&stays) {
            std::fs::write(place(name), "x").unwrap();
        }
        let _spool = Spool::open(directory.path()).unwrap();
        assert!(left.iter().all(|name| !place(name).exists()));
        assert!(stays.iter().all(|name| place(name).exists()));
    }

    #[test]
    fn a_spool_belongs_to_one_process_and_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path()).unwrap();
        let node = spool.node(&mut Prng::seeded(1)).unwrap();
        assert!(Spool::open(directory.path()).is_err());
        drop(spool);
        assert_eq!(Spool::open(directory.path()).unwrap().node(&mut Prng::seeded(2)).unwrap(), node);
    }

    #[test]
    fn a_spool_that_is_no_directory_is_an_error() {
        assert!(Spool::open(Path::new("/dev/null/spool")).is_err());
    }
}
