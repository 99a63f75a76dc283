//! Faults of the kernel, made up: what a ring or a socket may answer and hardly ever does. In debug builds alone, and there only
//! where the environment asks: `CPM_PF_FAULTS=7` (a seed), `CPM_PF_FAULTS=7:reset` for connections that break, too,
//! `CPM_PF_FAULTS=7:old` for a kernel without multishot receive, `CPM_PF_FAULTS=7:disk` for a disk that fails.
//!
//! ```text
//! receive, accept     ends at once with -ENOBUFS, -ENOMEM or -EAGAIN and has taken nothing; with ":reset" -ECONNRESET
//! read                is asked for less than was wanted; a send takes one octet, or finds no room
//! write, sync         of a body, with ":disk": ends with -EIO or -ENOSPC, and nothing is written
//! completion queue    as small as the kernel makes it, so that it overflows and multishot operations end
//! ```
//! Nothing that happened is hidden: an operation is refused before the kernel sees it, or is asked for less. So every fault is one
//! that the kernel might have answered, and no octet is lost by it. A release build has none of this, not even a branch.

#[cfg(debug_assertions)]
pub use on::{disk, errno, instead, offered, overflowed, rings, shortened};

#[cfg(debug_assertions)]
mod on {
    use crate::base::prng::Prng;
    use io_uring::squeue::Entry;
    use std::cell::RefCell;
    use std::hash::{DefaultHasher, Hash, Hasher};

    /// Of so many operations one meets a fault.
    const RARITY: u64 = 16;
    /// Of so many receives one finds a connection that is broken.
    const RESET_RARITY: u64 = 8;
    /// A message is written and synced in a few operations: about every second one meets a fault.
    const DISK_RARITY: u64 = 8;
    /// What a socket that has little room takes.
    const OFFERED: usize = 3_000;
    /// Entries of the smallest queues.
    const QUEUE: u32 = 16;
    /// Places in the kernel's `io_uring_sqe` (include/uapi/linux/io_uring.h): opcode, and the length of what it points to.
    const OPCODE_AT: usize = 0;
    const LENGTH_AT: usize = 24;

    struct Faults {
        prng: Prng,
        reset: bool,
        old: bool,
        disk: bool,
        /// Kinds of faults that the log knows of.
        told: Vec<&'static str>,
    }

    thread_local! {
        static FAULTS: RefCell<Option<Faults>> = RefCell::new(Faults::wanted());
    }

    impl Faults {
        fn wanted() -> Option<Self> {
            let wanted = std::env::var("CPM_PF_FAULTS").ok()?;
            let (seed, how) = wanted.split_once(':').unwrap_or((&wanted, ""));
            let seed: u64 = seed.parse().ok()?;
            let thread = std::thread::current();
            // The probe at start, in the main thread, is to find what there is.
            let core = thread.name().is_some_and(|name| name.starts_with("signaling-") || name.starts_with("media-"));
            let keeps = how == "disk" && thread.name() == Some("services");
            if !core && !keeps && how != "old" {
                return None;
            }
            let mut hasher = DefaultHasher::new();
            (seed, thread.name()).hash(&mut hasher);
            tracing::warn!(seed, how, "faults are made up in this thread");
            let prng = Prng::seeded(hasher.finish());
            Some(Self { prng, reset: how == "reset", old: how == "old", disk: how == "disk", told: Vec::new() })
        }

        fn strikes(&mut self, rarity: u64) -> bool {
            self.prng.below(rarity) == 0
        }

        /// The log has a line for the first fault of each kind, so that a test can see that there was one.
        fn tell(&mut self, kind: &'static str) {
            if !self.told.contains(&kind) {
                self.told.push(kind);
                tracing::warn!(kind, "a fault is made up");
            }
        }

        fn disk_error(&mut self) -> Option<i32> {
            if !self.disk || !self.strikes(DISK_RARITY) {
                return None;
            }
            let kinds = [(libc::EIO, "EIO"), (libc::ENOSPC, "ENOSPC")];
            let (number, kind) = kinds[self.prng.below(kinds.len() as u64) as usize];
            self.tell(kind);
            Some(-number)
        }
    }

    fn with<T>(none: T, body: impl FnOnce(&mut Faults) -> T) -> T {
        FAULTS.with_borrow_mut(|faults| faults.as_mut().map_or_else(|| none, body))
    }

    fn opcode(entry: &Entry) -> u8 {
        // SAFETY: `Entry` is `repr(C)` around the kernel's 64-octet structure of plain data; its first octet is the opcode.
        unsafe { std::ptr::from_ref(entry).cast::<u8>().add(OPCODE_AT).read() }
    }

    /// Submission and completion entries of a ring, in place of those that are wanted.
    pub fn rings(submissions: u32, completions: u32) -> (u32, u32) {
        with((submissions, completions), |_| (QUEUE, QUEUE))
    }

    /// What an operation answers without being submitted; none: it is submitted.
    pub fn instead(entry: &Entry) -> Option<i32> {
        let code = opcode(entry);
        let receives = code == io_uring::opcode::RecvMulti::CODE || code == io_uring::opcode::RecvMsgMulti::CODE;
        let accepts = code == io_uring::opcode::AcceptMulti::CODE;
        let writes = code == io_uring::opcode::Writev::CODE || code == io_uring::opcode::Fsync::CODE;
        with(None, |faults| {
            if receives && faults.old {
                return Some(-libc::EINVAL);
            }
            if receives && faults.reset && faults.strikes(RESET_RARITY) {
                tracing::warn!("a connection is made to break");
                return Some(-libc::ECONNRESET);
            }
            if writes {
                return faults.disk_error();
            }
            if !(receives || accepts) || !faults.strikes(RARITY) {
                return None;
            }
            let kinds = [(libc::ENOBUFS, "ENOBUFS"), (libc::ENOMEM, "ENOMEM"), (libc::EAGAIN, "EAGAIN")];
            let (number, kind) = kinds[faults.prng.below(kinds.len() as u64) as usize];
            faults.tell(kind);
            Some(-number)
        })
    }

    /// The same operation; some reads ask for less.
    pub fn shortened(entry: &Entry) -> Entry {
        let mut entry = entry.clone();
        if opcode(&entry) == io_uring::opcode::Read::CODE && with(false, |faults| faults.strikes(4)) {
            with((), |faults| faults.tell("short read"));
            // SAFETY: the length of a read is the aligned u32 at this place; less than before stays within what is lent.
            unsafe {
                let length = std::ptr::from_mut(&mut entry).cast::<u8>().add(LENGTH_AT).cast::<u32>();
                length.write((length.read() / 3).max(1));
            }
        }
        entry
    }

    /// How much of so many octets is offered to a socket.
    pub fn offered(octets: usize) -> usize {
        with(octets, |faults| match octets > 0 && faults.strikes(RARITY) {
            true => {
                faults.tell("short write");
                1 + faults.prng.below(octets.min(OFFERED) as u64) as usize
            }
            false => octets,
        })
    }

    /// The error that a write or sync of the services thread meets without being made.
    pub fn disk() -> std::io::Result<()> {
        with(None, Faults::disk_error).map_or(Ok(()), |error| Err(std::io::Error::from_raw_os_error(-error)))
    }

    /// The error number a send meets without being made.
    pub fn errno() -> Option<i32> {
        with(None, |faults| match faults.strikes(RARITY) {
            true => {
                faults.tell("send refused");
                Some([libc::EAGAIN, libc::EINTR][faults.prng.below(2) as usize])
            }
            false => None,
        })
    }

    /// Whether completions wait in the kernel because the queue was full; it is only told.
    pub fn overflowed(full: bool) {
        if full {
            with((), |faults| faults.tell("full completion queue"));
        }
    }
}

#[cfg(not(debug_assertions))]
mod off {
    use io_uring::squeue::Entry;

    #[inline]
    pub const fn rings(submissions: u32, completions: u32) -> (u32, u32) {
        (submissions, completions)
    }
    #[inline]
    pub const fn instead(_: &Entry) -> Option<i32> {
        None
    }
    #[inline]
    pub const fn disk() -> std::io::Result<()> {
        Ok(())
    }
    #[inline]
    pub const fn offered(octets: usize) -> usize {
        octets
    }
    #[inline]
    pub const fn errno() -> Option<i32> {
        None
    }
}
#[cfg(not(debug_assertions))]
pub use off::{disk, errno, instead, offered, rings};
