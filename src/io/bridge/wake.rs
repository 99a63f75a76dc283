//! Waking a sleeping core: a flag, and an eventfd that is written only when the flag says that somebody sleeps.
//!
//! ```text
//! producer                          consumer
//!   push into the lane                sleeping = true
//!   fence(SeqCst)                     fence(SeqCst)
//!   if sleeping: write the eventfd    if a lane has something: sleeping = false, go on; else wait in the ring
//! ```
//! With both fences either the producer sees the flag or the consumer sees the item; `tests/loom` plays all interleavings and
//! finds a lost wake-up as soon as one fence is taken out:
//! `RUSTFLAGS="--cfg loom" cargo test --release --manifest-path tests/loom/Cargo.toml`

use super::sync::{AtomicBool, Ordering, fence};

/// Whether the consumer sleeps, or is about to.
pub struct Sleeping(AtomicBool);

impl Default for Sleeping {
    fn default() -> Self {
        Self::new()
    }
}

impl Sleeping {
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The producer's question after it pushed: must the consumer be woken, and by us? One of several producers is told so.
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }

    /// The consumer's last look before it waits: true when it may wait. It calls [`Sleeping::awake`] afterwards.
    pub fn may_wait(&self, anything: impl FnOnce() -> bool) -> bool {
        self.0.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        let may = !anything();
        if !may {
            self.0.store(false, Ordering::Relaxed);
        }
        may
    }

    /// The consumer woke up, for whatever reason.
    pub fn awake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A core's bell: its [`Sleeping`] flag and an eventfd that its ring polls.
#[cfg(not(loom))]
pub struct Wake {
    pub sleeping: Sleeping,
    event: std::os::fd::OwnedFd,
}

#[cfg(not(loom))]
impl Wake {
    /// A bell to be shared with every thread that pushes into a lane of this core.
    ///
    /// # Errors
    /// When no eventfd is to be had.
    pub fn new() -> std::io::Result<std::sync::Arc<Self>> {
        use std::os::fd::FromRawFd;
        // SAFETY: a plain system call; what it returns is ours alone.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nobody else knows it.
        let event = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) };
        Ok(std::sync::Arc::new(Self { sleeping: Sleeping::new(), event }))
    }

    /// To be called after one or several pushes: wakes the core if it sleeps.
    pub fn ring(&self) {
        if self.sleeping.must_wake() {
            self.ring_always();
        }
    }

    /// Wakes the core whether it says that it sleeps or not (for consumers that cannot keep the flag).
    pub fn ring_always(&self) {
        use std::os::fd::AsRawFd;
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight octets of a local are read within the call. It can only fail when the counter is full, and then the
        // consumer has something to read already.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Empties the eventfd's counter, for consumers whose poll is level-triggered. A multishot poll of a ring reports
    /// every write by itself and needs no reading.
    pub fn take(&self) {
        use std::os::fd::AsRawFd;
        let mut count = [0u8; 8];
        // SAFETY: eight octets are written into a local within the call; an empty counter gives EAGAIN.
        unsafe { libc::read(self.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

#[cfg(not(loom))]
impl std::os::fd::AsRawFd for Wake {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_producer_is_told_to_wake_a_sleeper_and_a_waking_core_is_left_alone() {
        let sleeping = Sleeping::new();
        assert!(!sleeping.must_wake());
        assert!(sleeping.may_wait(|| false));
        assert_eq!((sleeping.must_wake(), sleeping.must_wake()), (true, false));
        assert!(!sleeping.may_wait(|| true));
        assert!(!sleeping.must_wake());
    }
}
