//! Files of sinks and sources. The kernel borrows a path, the pieces of a write, or a buffer to read into: each lies in a
//! [`Lent`] that the operation's slot owns until its completion came.

use io_uring::squeue::Entry;
use io_uring::{opcode, types::Fd};
use std::ffi::CString;
use std::os::fd::RawFd;

/// What the kernel borrows while an operation is under way. Its parts do not move when this is moved.
pub enum Lent {
    Nothing,
    Path {
        _path: CString,
    },
    /// Where the pieces of a write lie.
    Pieces {
        _pieces: Box<[libc::iovec]>,
    },
    /// Room that is read into.
    Room(Vec<u8>),
}

/// What a path is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum For {
    Reading,
    /// Made where it is missing, emptied where it is there.
    Writing,
    /// A directory, to be made durable.
    Syncing,
}

/// Opens. The entry points to `path`.
pub fn open(path: &CString, what: For, user_data: u64) -> Entry {
    let flags = match what {
        For::Reading => libc::O_RDONLY,
        For::Writing => libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY,
        For::Syncing => libc::O_RDONLY | libc::O_DIRECTORY,
    };
    let open = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).flags(flags | libc::O_CLOEXEC).mode(0o600);
    open.build().user_data(user_data)
}

/// Writes pieces at an offset; may write less. The entry points to `pieces`.
pub fn write(file: RawFd, pieces: &[libc::iovec], at: u64, user_data: u64) -> Entry {
    let write = opcode::Writev::new(Fd(file), pieces.as_ptr(), pieces.len() as u32).offset(at);
    write.build().user_data(user_data)
}

/// Reads at an offset; 0 octets: the end. The entry points to `room`, of which the first `octets` are filled at most.
pub fn read(file: RawFd, room: &mut Vec<u8>, octets: u32, at: u64, user_data: u64) -> Entry {
    room.reserve_exact(octets as usize);
    opcode::Read::new(Fd(file), room.as_mut_ptr(), octets).offset(at).build().user_data(user_data)
}

/// Unlinks. The entry points to `path`.
pub fn unlink(path: &CString, user_data: u64) -> Entry {
    opcode::UnlinkAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).build().user_data(user_data)
}
