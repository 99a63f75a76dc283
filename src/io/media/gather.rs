//! `msrp.batch_wait`: how long a turn may wait so that one wake-up serves several messages.
//!
//! Below saturation most of a message's cost is the sleep and the wake-up around it. The kernel's minimum wait (6.12) gathers
//! completions for some microseconds, but only while something is under way, so that the first message after a silence is
//! not delayed. Measured at 25,000 messages a second: 50 us cost 0.70 of the CPU time, 200 us 0.48, at a median of 80 and
//! 225 us instead of 43.

use crate::base::clock::Instant;
use crate::config::BatchWait;
use std::time::Duration;

/// Length of a window over which load is measured.
const WINDOW: Duration = Duration::from_millis(10);
/// Receives in a window below which nothing is gathered (5,000 a second).
const RECEIVES_MIN: u32 = 50;
/// Receives in a window from which the longer wait pays (100,000 a second).
const RECEIVES_MANY: u32 = 1000;
/// Connections heard in a window below which gathering only delays the one that is waited for.
const CONNECTIONS_MIN: u32 = 8;
/// Octets of an average receive above which it is bulk, which gathers by itself.
const OCTETS_BULK: u64 = 16 * 1024;

/// Measures load and says how long to gather.
pub struct Gather {
    wait: BatchWait,
    available: bool,
    started: Instant,
    number: u32,
    receives: u32,
    octets: u64,
    connections: u32,
    chosen: (Duration, u32),
}

impl Gather {
    /// `available`: the kernel has a minimum wait.
    pub fn new(wait: BatchWait, available: bool, now: Instant) -> Self {
        let chosen = match wait {
            BatchWait::At(wait) if available => (wait, 64),
            _ => (Duration::ZERO, 1),
        };
        Self { wait, available, started: now, number: 1, receives: 0, octets: 0, connections: 0, chosen }
    }

    /// How long to gather, and how many completions at most.
    pub const fn wait(&self) -> (Duration, u32) {
        self.chosen
    }

    /// Something was received on a connection that was last heard in window `last`, which becomes this one.
    pub fn heard(&mut self, octets: u32, last: &mut u32) {
        self.receives += 1;
        self.octets += u64::from(octets);
        if *last != self.number {
            *last = self.number;
            self.connections += 1;
        }
    }

    /// A turn begins: closes the window when it is over.
    pub fn turn(&mut self, now: Instant) {
        if now.since(self.started) < WINDOW {
            return;
        }
        // A window during which the core slept is longer; what counts is the rate.
        let windows = (now.since(self.started).as_nanos() / WINDOW.as_nanos()).clamp(1, 1_000_000) as u32;
        if self.wait == BatchWait::Auto && self.available {
            self.chosen = self.choose(self.receives / windows);
        }
        self.started = now;
        self.number = self.number.wrapping_add(1);
        (self.receives, self.octets, self.connections) = (0, 0, 0);
    }

    fn choose(&self, receives: u32) -> (Duration, u32) {
        let bulk = self.octets / u64::from(self.receives.max(1)) > OCTETS_BULK;
        if bulk || receives < RECEIVES_MIN || self.connections < CONNECTIONS_MIN {
            (Duration::ZERO, 1)
        } else if receives < RECEIVES_MANY {
            (Duration::from_micros(50), 32)
        } else {
            (Duration::from_micros(100), 64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_a_window(connections: u32, receives: u32, octets: u32) -> Duration {
        let start = Instant::from_unix_s(1);
        let mut gather = Gather::new(BatchWait::Auto, true, start);
        let mut last = vec![0; connections as usize];
        for receive in 0..receives {
            gather.heard(octets, &mut last[(receive % connections) as usize]);
        }
        gather.turn(start + WINDOW);
        gather.wait().0
    }

    #[test]
    fn only_many_small_messages_of_many_connections_are_gathered() {
        assert_eq!(after_a_window(100, 400, 400), Duration::from_micros(50));
        assert_eq!(after_a_window(100, 4000, 400), Duration::from_micros(100));
        assert_eq!(after_a_window(2, 400, 400), Duration::ZERO);
        assert_eq!(after_a_window(40, 40, 400), Duration::ZERO);
        assert_eq!(after_a_window(100, 400, 60_000), Duration::ZERO);
    }

    #[test]
    fn a_wait_that_is_configured_stays_and_one_the_kernel_lacks_is_none() {
        let wait = BatchWait::At(Duration::from_micros(120));
        assert_eq!(Gather::new(wait, true, Instant::default()).wait(), (Duration::from_micros(120), 64));
        assert_eq!(Gather::new(wait, false, Instant::default()).wait().0, Duration::ZERO);
    }
}
