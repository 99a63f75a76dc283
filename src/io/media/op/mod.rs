//! The ring operations of a media core, a file each: what the kernel borrows, and what each result means.

pub mod accept;
pub mod connect;
pub mod file;
pub mod readable;
pub mod receive;
pub mod wake;
pub mod writable;

use crate::base::slab::Key;
use crate::io::ring::{Completion, token};

/// What a completion is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Wake = 1,
    Accept,
    Connect,
    Receive,
    Writable,
    /// A cancellation's own completion: says nothing that the cancelled operation's does not say.
    Cancel,
    File,
    /// A send without a copy: its result, and later its notification.
    ZeroCopy,
    /// There is something to look at.
    Readable,
}

impl Kind {
    /// The kind of a completion.
    pub const fn of(completion: &Completion) -> Option<Self> {
        Some(match completion.kind() {
            1 => Kind::Wake,
            2 => Kind::Accept,
            3 => Kind::Connect,
            4 => Kind::Receive,
            5 => Kind::Writable,
            6 => Kind::Cancel,
            7 => Kind::File,
            8 => Kind::ZeroCopy,
            9 => Kind::Readable,
            _ => return None,
        })
    }

    /// `user_data` of an operation on the thing under this key.
    pub const fn on(self, key: Key) -> u64 {
        token(self as u8, (key.as_u64() >> 32) as u32, key.slot() as u32)
    }

    /// `user_data` of an operation on the thing with this number.
    pub const fn number(self, number: u32) -> u64 {
        token(self as u8, 0, number)
    }
}

/// The cancellation of an operation on a key.
pub fn cancel(kind: Kind, key: Key) -> crate::io::ring::Plain {
    crate::io::ring::Plain::cancel(kind.on(key), Kind::Cancel.on(key))
}
