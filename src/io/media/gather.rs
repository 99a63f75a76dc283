//! `msrp.batch_wait`: how long a turn may wait so that one wake-up serves several messages.
//!
//! Below saturation a good part of a message's cost is the sleep and the wake-up around it. The kernel's minimum wait (6.12)
//! gathers completions for some microseconds, but only while something is under way, so that the first message after a silence
//! is not delayed. It needs a timer, though, and what timer and wake-up cost differs from machine to machine: at 25,000 messages
//! a second 50 us took 0.70 of the CPU time on one, at a median of 80 us instead of 43, and on another, at 15,000, 1.47 of it.
//! So `auto` tries it out ([`trial`](super::trial)) and waits only where that has turned out to pay.
//!
//! Where senders do not wait for one message to arrive before they send the next, several lie in a socket when it is read, and
//! the longer it is left alone, the more of them one receive and one send move. A longer wait then delays nobody: they queue
//! in any case. It ends early when about [`TURN`] octets are there, which still lie in the cache and in the buffers.
//! Measured with 100 sessions of 2 KiB and 10 KiB chunks against 50 us: 0.66 and 0.87 of the CPU time, at the same rate
//! and median. With 1 ms the rate fell to a third at 10 KiB.

use super::trial::Trial;
use crate::base::clock::Instant;
use crate::config::BatchWait;
use std::time::Duration;

/// Length of a window over which load is measured.
const WINDOW: Duration = Duration::from_millis(10);
/// Messages in a window below which nothing is gathered, nor tried (10,000 a second: one in two waits).
const MESSAGES_MIN: u64 = 100;
/// Messages in a window from which a longer wait is tried (100,000 a second).
const MESSAGES_MANY: u64 = 1000;
/// Messages in a window from which it is worth while to let them queue (20,000 a second).
const MESSAGES_QUEUED: u64 = 200;
/// Connections heard in a window below which gathering only delays the one that is waited for.
const CONNECTIONS_MIN: u32 = 8;
/// Octets of an average message above which it is bulk, which gathers by itself.
const OCTETS_BULK: u64 = 16 * 1024;
/// No wait at all: a turn begins with the first completion.
const NONE: (Duration, u32) = (Duration::ZERO, 1);
/// The waits that are tried, and how many completions end them.
const SHORT: (Duration, u32) = (Duration::from_micros(50), 32);
const LONG: (Duration, u32) = (Duration::from_micros(100), 64);
/// The wait where receives bring three messages for two and more.
const PIPELINED: Duration = Duration::from_micros(400);
/// Octets of a turn that has waited long enough then: what the kernel's buffers hold.
const TURN: u64 = 512 * 1024;

/// Measures load and says how long to gather.
pub struct Gather {
    wait: BatchWait,
    available: bool,
    started: Instant,
    /// CPU time of the thread when the window began.
    cpu: Duration,
    number: u32,
    receives: u32,
    octets: u64,
    connections: u32,
    /// Heads the shard had read when the window began.
    heads: u64,
    trial: Trial,
    chosen: (Duration, u32),
}

impl Gather {
    /// `available`: the kernel has a minimum wait.
    pub fn new(wait: BatchWait, available: bool, now: Instant) -> Self {
        let mut gather = Self {
            wait,
            available,
            started: now,
            cpu: Duration::ZERO,
            number: 1,
            receives: 0,
            octets: 0,
            connections: 0,
            heads: 0,
            trial: Trial::default(),
            chosen: NONE,
        };
        gather.reload(wait);
        gather
    }

    /// A new `msrp.batch_wait`.
    pub fn reload(&mut self, wait: BatchWait) {
        self.wait = wait;
        self.chosen = match wait {
            BatchWait::At(wait) if self.available && !wait.is_zero() => (wait, 64),
            _ => NONE,
        };
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

    /// A turn begins: closes the window when it is over. `heads`: of messages the shard has read so far; `cpu` reads what this
    /// thread has used.
    pub fn turn(&mut self, now: Instant, heads: u64, cpu: impl FnOnce() -> Duration) {
        if now.since(self.started) < WINDOW {
            return;
        }
        // A window during which the core slept is longer; what counts is the rate.
        let windows = (now.since(self.started).as_nanos() / WINDOW.as_nanos()).clamp(1, 1_000_000) as u64;
        if self.wait == BatchWait::Auto && self.available {
            let (cpu, messages) = (cpu(), heads - self.heads);
            self.chosen = self.choose(messages, windows, cpu.saturating_sub(self.cpu));
            self.cpu = cpu;
        }
        self.started = now;
        self.number = self.number.wrapping_add(1);
        (self.receives, self.octets, self.connections, self.heads) = (0, 0, 0, heads);
    }

    fn choose(&mut self, messages: u64, windows: u64, cpu: Duration) -> (Duration, u32) {
        let bulk = self.octets / messages.max(1) > OCTETS_BULK;
        let (rate, receives) = (messages / windows, u64::from(self.receives));
        if bulk || rate < MESSAGES_MIN || self.connections < CONNECTIONS_MIN {
            return NONE;
        }
        if rate >= MESSAGES_QUEUED && 2 * messages >= 3 * receives {
            let receives_a_turn = (TURN * receives / self.octets.max(1)).clamp(4, 64);
            return (PIPELINED, receives_a_turn as u32);
        }
        // A window that was not as the trial wanted it says nothing.
        if self.chosen.0 != PIPELINED && (self.chosen != NONE) == self.trial.gathers() {
            self.trial.window(cpu, messages, rate);
        }
        match self.trial.gathers() {
            false => NONE,
            true if rate < MESSAGES_MANY => SHORT,
            true => LONG,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits after windows of so many connections, receives, messages a receive and octets of each, where a message costs
    /// so many microseconds without and with gathering.
    fn after_windows(
        windows: u32,
        (connections, receives, messages, octets): (u32, u32, u32, u32),
        cost: [u32; 2],
    ) -> Vec<(Duration, u32)> {
        let (mut now, mut cpu, mut heads) = (Instant::from_unix_s(1), Duration::ZERO, 0);
        let mut gather = Gather::new(BatchWait::Auto, true, now);
        let mut last = vec![0; connections as usize];
        (0..windows)
            .map(|_| {
                for receive in 0..receives {
                    gather.heard(octets * messages, &mut last[(receive % connections) as usize]);
                }
                now += WINDOW;
                heads += u64::from(receives * messages);
                cpu += Duration::from_micros(1) * cost[usize::from(!gather.wait().0.is_zero())] * receives * messages;
                gather.turn(now, heads, || cpu);
                gather.wait()
            })
            .collect()
    }

    fn after_a_window(connections: u32, receives: u32, messages: u32, octets: u32) -> (Duration, u32) {
        after_windows(1, (connections, receives, messages, octets), [1, 1])[0]
    }

    #[test]
    fn only_many_small_messages_of_many_connections_are_gathered_where_that_pays() {
        let load = (100, 400, 1, 400);
        assert_eq!(after_windows(100, load, [10, 8]).last(), Some(&SHORT));
        assert_eq!(after_windows(100, load, [10, 14]).last(), Some(&NONE));
        assert_eq!(after_windows(100, load, [10, 10]).last(), Some(&NONE));
        assert_eq!(after_windows(100, (100, 4000, 1, 400), [10, 8]).last(), Some(&LONG));
        for other in [(2, 400, 1, 400), (40, 80, 1, 400), (100, 400, 1, 60_000)] {
            assert!(after_windows(100, other, [10, 1]).iter().all(|wait| *wait == NONE), "{other:?}");
        }
    }

    #[test]
    fn to_try_costs_next_to_nothing() {
        // A minute in which it does not pay.
        let waits = after_windows(6000, (100, 400, 1, 400), [10, 14]);
        let tried = waits.iter().filter(|wait| **wait != NONE).count();
        assert!((8..=100).contains(&tried), "{tried} of 6,000 windows");
    }

    #[test]
    fn messages_that_queue_are_gathered_longer_up_to_the_octets_of_a_turn() {
        assert_eq!(after_a_window(100, 200, 10, 2_400), (PIPELINED, 21));
        assert_eq!(after_a_window(100, 200, 2, 400), (PIPELINED, 64));
        assert_eq!(after_a_window(10, 50, 30, 10_300), (PIPELINED, 4));
        assert_ne!(after_a_window(100, 60, 3, 400).0, PIPELINED, "too few to be let queue");
        // As bulk, a message in several receives, and with few connections nothing is gathered.
        assert_eq!(after_a_window(100, 200, 2, 60_000), NONE);
        assert_eq!(after_a_window(4, 400, 4, 2_400), NONE);
    }

    #[test]
    fn how_many_messages_lie_in_a_receive_does_not_make_them_bulk() {
        assert_eq!(after_a_window(100, 100, 20, 2_400).0, PIPELINED);
    }

    #[test]
    fn a_reload_counts_from_the_next_turn_on() {
        let mut gather = Gather::new(BatchWait::Auto, true, Instant::from_unix_s(1));
        gather.reload(BatchWait::At(Duration::from_micros(150)));
        assert_eq!(gather.wait().0, Duration::from_micros(150));
        gather.reload(BatchWait::Auto);
        assert_eq!(gather.wait().0, Duration::ZERO);
    }

    #[test]
    fn a_wait_that_is_configured_stays_and_one_the_kernel_lacks_is_none() {
        let wait = |micros| BatchWait::At(Duration::from_micros(micros));
        assert_eq!(Gather::new(wait(120), true, Instant::default()).wait(), (Duration::from_micros(120), 64));
        assert_eq!(Gather::new(wait(0), true, Instant::default()).wait(), NONE);
        assert_eq!(Gather::new(wait(120), false, Instant::default()).wait(), NONE);
    }
}
