//! A disk that fails when it is told to sync: what the index of deferred messages cannot commit was not accepted.

use crate::deferral::{accepted, over, register, session, taken, waiting};
use crate::proxy::Proxy;
use crate::ue::Ue;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Stands before fsync(2) and fdatasync(2) of the program: EIO while a file is there.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static int broken(void) { const char *flag = getenv("BROKEN_DISK"); return flag && access(flag, F_OK) == 0; }
int fdatasync(int fd) { if (broken()) { errno = EIO; return -1; } return syscall(SYS_fdatasync, fd); }
int fsync(int fd) { if (broken()) { errno = EIO; return -1; } return syscall(SYS_fsync, fd); }
"#;

/// None, with a printed line, where there is no C compiler.
fn shim(folder: &Path) -> Option<PathBuf> {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SHIM).expect("the folder can be written");
    let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: there is no C compiler");
        return None;
    }
    Some(library)
}

#[test]
fn what_a_disk_does_not_sync_is_told_to_the_sender_and_the_rest_is_kept() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let Some(library) = shim(place.path()) else { return };
    let flag = place.path().join("broken");
    let environment =
        [("LD_PRELOAD".to_owned(), library.display().to_string()), ("BROKEN_DISK".to_owned(), flag.display().to_string())];
    let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let pf = Proxy::start_with(tempfile::tempdir().expect("a temporary folder"), "", &environment);
    accepted(&mut alice, &pf, "msg1", b"before", |invite| invite);
    waiting(&pf, 1);

    std::fs::write(&flag, "").expect("the folder can be written");
    for id in ["msg2", "msg3"] {
        let (mut sender, _, ok) = session(&mut alice, &pf, |invite| invite);
        sender.send(id, b"not on disk");
        let answer = sender.next().expect("the sender is told");
        assert_eq!(answer.kind(), "500", "{answer:?}");
        over(&mut alice, &pf, &ok);
    }
    pf.until("the log tells of it", |pf| pf.log().contains("the index of deferred messages failed"));
    std::fs::remove_file(&flag).expect("it is there");
    accepted(&mut alice, &pf, "msg4", b"after", |invite| invite);
    waiting(&pf, 2);

    // What was refused is neither in the index nor on the disk, also after a crash.
    let pf = Proxy::start_in(pf.kill(), "");
    waiting(&pf, 2);
    register(&pf, &bob, "");
    for (id, body) in [("msg1", &b"before"[..]), ("msg4", b"after")] {
        let (_, came, octets) = taken(&mut bob);
        assert!(came == id && octets == body, "{came}");
    }
    waiting(&pf, 0);
}
