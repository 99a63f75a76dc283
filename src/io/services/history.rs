//! CR 8.5: the embedded conversation history: folders and messages as files, much as Maildir has them.
//!
//! ```text
//! ROOT / USER / Default / CONVERSATION-ID / cur / 1706781600.U17.S412.4f…:2,S
//! ```
//!
//! A file holds the object as RFC 5322 text; its body is the message octet for octet.

use super::body_file;
use crate::base::prng::Prng;
use crate::store::history::{Body, Object, file_name, segment, uid_of};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// Folders whose next UID is remembered; what is beyond them is counted again.
const FOLDERS_MAX: usize = 4096;
/// Levels of a folder path.
const DEPTH_MAX: usize = 8;
/// Octets of one folder's name as a path segment: what file systems take.
const SEGMENT_OCTETS_MAX: usize = 200;

/// The folders below one directory.
#[derive(Debug)]
pub struct Folders {
    root: PathBuf,
    /// The last UID given in a folder.
    last_uids: RefCell<HashMap<PathBuf, u32>>,
    prng: RefCell<Unique>,
}

/// Source of the unique part of file names.
struct Unique(Prng);

impl std::fmt::Debug for Unique {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unique")
    }
}

impl Folders {
    /// Opens the history below this directory; creates it where it is missing.
    ///
    /// # Errors
    /// Where the directory cannot be created.
    pub fn open(root: &Path, prng: Prng) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        Ok(Self { root: root.to_owned(), last_uids: RefCell::default(), prng: RefCell::new(Unique(prng)) })
    }

    /// Stores an object, durably, and gives its UID. A spooled body stays where it is.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub async fn store(&self, object: &Object) -> io::Result<u32> {
        let folder = self.folder(object)?;
        tokio_uring::fs::create_dir_all(&folder).await?;
        let uid = self.next_uid(&folder)?;
        let head = object.head();
        let size = head.len() as u64 + object.body.octets();
        let unique = self.prng.borrow_mut().0.u64();
        let path = folder.join(file_name(object, uid, size, unique));
        match &object.body {
            Body::Inline(octets) => body_file::write(&path, &[&head, octets]).await?,
            Body::File { path: body, .. } => body_file::write_with(&path, &head, body).await?,
        }
        Ok(uid)
    }

    fn folder(&self, object: &Object) -> io::Result<PathBuf> {
        let names = std::iter::once(&object.user).chain(&object.folder);
        let mut path = self.root.clone();
        for (level, name) in names.enumerate() {
            let segment = segment(name);
            if level > DEPTH_MAX || segment.len() > SEGMENT_OCTETS_MAX {
                return Err(io::Error::other("the folder's name is too long"));
            }
            path.push(segment);
        }
        path.push("cur");
        Ok(path)
    }

    fn next_uid(&self, folder: &Path) -> io::Result<u32> {
        let mut last_uids = self.last_uids.borrow_mut();
        let last = match last_uids.get(folder) {
            Some(last) => *last,
            None => highest_uid(folder)?,
        };
        if last_uids.len() >= FOLDERS_MAX {
            last_uids.clear();
        }
        let uid = last.checked_add(1).ok_or_else(|| io::Error::other("the folder has no UID left"))?;
        last_uids.insert(folder.to_owned(), uid);
        Ok(uid)
    }
}

fn highest_uid(folder: &Path) -> io::Result<u32> {
    let mut highest = 0;
    for file in std::fs::read_dir(folder)? {
        highest = highest.max(file?.file_name().to_str().and_then(uid_of).unwrap_or(0));
    }
    Ok(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(body: Body) -> Object {
        Object {
            user: "tel:+15551230001".to_owned(),
            folder: vec!["Default".to_owned(), "c/../1".to_owned()],
            headers: vec![("Message-Direction".to_owned(), "sent".to_owned())],
            body,
            seen: true,
            date_s: 5,
        }
    }

    #[test]
    fn objects_are_files_with_uids_that_go_on_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let spooled = directory.path().join("spooled");
        tokio_uring::start(async {
            let root = directory.path().join("history");
            let folders = Folders::open(&root, Prng::seeded(1)).unwrap();
            assert_eq!(folders.store(&object(Body::Inline(b"one\0".to_vec()))).await.ok(), Some(1));
            let folders = Folders::open(&root, Prng::seeded(2)).unwrap();
            std::fs::write(&spooled, "two").unwrap();
            assert_eq!(folders.store(&object(Body::File { path: spooled.clone(), octets: 3 })).await.ok(), Some(2));
            let folder = root.join("tel:+15551230001/Default/c%2F..%2F1/cur");
            let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            assert_eq!(files.len(), 2);
            assert_eq!(std::fs::read(&files[0]).unwrap(), b"Message-Direction: sent\r\n\r\none\0");
            assert_eq!(std::fs::read(&files[1]).unwrap(), b"Message-Direction: sent\r\n\r\ntwo");
            assert!(files[1].to_str().unwrap().ends_with(":2,S"));
        });
    }

    #[test]
    fn what_cannot_be_written_has_failed() {
        let directory = tempfile::tempdir().unwrap();
        tokio_uring::start(async {
            let folders = Folders::open(directory.path(), Prng::seeded(1)).unwrap();
            let long = Object { folder: vec!["x".repeat(300)], ..object(Body::Inline(Vec::new())) };
            assert!(folders.store(&long).await.is_err());
            let missing = Body::File { path: directory.path().join("nothing"), octets: 1 };
            assert!(folders.store(&object(missing)).await.is_err());
        });
    }
}
