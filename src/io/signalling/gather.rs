//! `sip.batch_wait`: how long a turn may wait so that one wake-up serves the messages of several calls.
//!
//! A signalling core that sleeps between two datagrams pays for each the wake-up and cold caches, which is more than the message
//! itself. The kernel's minimum wait (6.12) gathers completions for a moment; RFC 3261 counts in T1 (500 ms), so a
//! millisecond or two more is seen by nobody. Below some hundred messages a second nothing is gathered.

use crate::base::clock::Instant;
use crate::config::BatchWait;
use std::time::Duration;

/// Length of a window over which load is measured.
const WINDOW: Duration = Duration::from_millis(20);
/// Messages in a window below which nothing is gathered: 500 a second, one in two milliseconds.
const MESSAGES_MIN: u32 = 10;
/// What is waited under load.
const WAIT: Duration = Duration::from_millis(2);
/// Completions with which a turn begins, however long it was to wait: a quarter of the buffers lent for datagrams.
const COMPLETIONS_MAX: u32 = 64;

/// Measures load and says how long to gather.
pub struct Gather {
    wait: BatchWait,
    available: bool,
    started: Instant,
    messages: u32,
    chosen: Duration,
}

impl Gather {
    /// `available`: the kernel has a minimum wait.
    pub fn new(wait: BatchWait, available: bool, now: Instant) -> Self {
        let mut gather = Self { wait, available, started: now, messages: 0, chosen: Duration::ZERO };
        gather.reload(wait);
        gather
    }

    /// A new `sip.batch_wait`.
    pub fn reload(&mut self, wait: BatchWait) {
        self.wait = wait;
        self.chosen = match wait {
            BatchWait::At(wait) if self.available => wait,
            _ => Duration::ZERO,
        };
    }

    /// How long to gather, and how many completions at most.
    pub const fn wait(&self) -> (Duration, u32) {
        (self.chosen, COMPLETIONS_MAX)
    }

    /// So many messages came in with this turn; a window that is over is closed.
    pub fn turn(&mut self, now: Instant, messages: u32) {
        self.messages += messages;
        let gone = now.since(self.started);
        if gone < WINDOW {
            return;
        }
        if self.wait == BatchWait::Auto && self.available {
            // A window during which the core slept is longer; what counts is the rate.
            let windows = gone.as_nanos() / WINDOW.as_nanos();
            self.chosen = if u128::from(self.messages) < u128::from(MESSAGES_MIN) * windows { Duration::ZERO } else { WAIT };
        }
        self.started = now;
        self.messages = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(wait: BatchWait, available: bool, messages: u32, gone: Duration) -> Duration {
        let start = Instant::from_unix_s(1);
        let mut gather = Gather::new(wait, available, start);
        (0..messages).for_each(|_| gather.turn(start, 1));
        gather.turn(start + gone, 0);
        gather.wait().0
    }

    #[test]
    fn only_load_is_gathered() {
        assert_eq!(after(BatchWait::Auto, true, 10, WINDOW), WAIT);
        assert_eq!(after(BatchWait::Auto, true, 9, WINDOW), Duration::ZERO);
        assert_eq!(after(BatchWait::Auto, true, 100, 11 * WINDOW), Duration::ZERO);
        assert_eq!(after(BatchWait::Auto, true, 100, WINDOW / 2), Duration::ZERO, "the window is not over");
    }

    #[test]
    fn a_wait_that_is_configured_stays_and_one_the_kernel_lacks_is_none() {
        let wait = BatchWait::At(Duration::from_millis(3));
        assert_eq!(after(wait, true, 0, WINDOW), Duration::from_millis(3));
        assert_eq!(after(wait, false, 100, WINDOW), Duration::ZERO);
        assert_eq!(after(BatchWait::Auto, false, 100, WINDOW), Duration::ZERO);
    }
}
