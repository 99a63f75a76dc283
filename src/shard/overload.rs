//! RFC 3261 §21.5.4, RFC 5390: which new calls are turned away so that those in progress, and those taken, go well.
//!
//! | limit                             | answer                                                                   |
//! |-----------------------------------|--------------------------------------------------------------------------|
//! | `limits.overload_queue_delay`     | 503 with Retry-After: what waits in our own queue says it soonest         |
//! | `limits.new_calls_per_second`     | 503 with Retry-After                                                      |
//! | `limits.dialogs`                  | 503 with Retry-After                                                      |
//! | `limits.sessions_per_originator`  | 486: only this user has to wait, and no other server would take the call  |
//! | draining                          | 503 with Retry-After                                                      |
//!
//! Of a slow queue the first calls of a second are turned away here; the rest in passing (`passing.rs`).

use super::passing::Looks;
use super::signalling::Signalling;
use crate::base::clock::{Duration, Instant};
use crate::config::Limits;
use crate::limits::SHED_LINES_MAX;

/// A second, over which lines are counted.
const SECOND: Duration = Duration::from_secs(1);
/// For how long after a slow queue the next delay above the limit counts at once.
const ALARM: Duration = Duration::from_secs(1);
/// So many messages that waited too long, handed in within the time that is allowed, are a queue. Fewer are what a thread
/// finds that did not run for a moment: to turn them away would relieve nobody.
const QUEUE: u32 = 16;
/// So many times longer than is allowed is too long for a single message as well.
const ALONE: u32 = 8;

/// New calls of a core since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NewCalls {
    /// Initial INVITEs that came, however they fared.
    pub came: u64,
    /// Those refused because the queue was slow.
    pub refused: u64,
}

/// The load of one core as it sees it.
#[derive(Default)]
pub struct Overload {
    /// How long what was handed in last had waited.
    delay: Duration,
    /// Since when all that was handed in had waited longer than is allowed.
    slow_since: Option<Instant>,
    /// How many of these were handed in since then, of the time that is allowed.
    late: u32,
    late_since: Instant,
    /// Until when there are so many that they are a queue.
    queued: Instant,
    /// Until when a queue that is slow once more is taken to be so at once.
    alarmed: Instant,
    /// Lines written of calls turned away since then, and how many were turned away without one.
    lines: u32,
    lines_since: Instant,
    pub(super) turned_away: u64,
    pub(super) calls: NewCalls,
    pub(super) looks: Looks,
    /// Calls that may still begin, in thousandths, and when that was so.
    budget: u64,
    counted: Instant,
}

impl Overload {
    /// How long what is handed in has waited; `limit` is what is allowed.
    pub fn waited(&mut self, now: Instant, delay: Duration, limit: Duration) {
        self.delay = delay;
        if delay <= limit {
            (self.slow_since, self.late) = (None, 0);
            return;
        }
        self.slow_since.get_or_insert(now);
        if now.since(self.late_since) >= limit {
            (self.late, self.late_since) = (0, now);
        }
        self.late += 1;
        if self.late >= QUEUE {
            self.queued = now + limit;
        }
    }

    /// Whether the queue is too slow for new calls. One look at it may just follow a moment in which this thread did not run:
    /// a few messages are no queue, and of a queue a delay little above the limit counts when it lasts for that long itself, or
    /// when the queue was slow shortly before: then it is kept at the limit, and does not swing between nothing and three times
    /// as much.
    fn is_slow(&mut self, now: Instant, limit: Duration) -> bool {
        let Some(since) = self.slow_since else { return false };
        let lasts = self.delay > 2 * limit || now.since(since) >= limit || now < self.alarmed;
        let slow = self.delay > ALONE * limit || (lasts && now < self.queued);
        if slow {
            self.alarmed = now + ALARM;
        }
        slow
    }

    /// Whether the queue is slow and this second has its lines of it: further calls are turned away in passing.
    pub(super) fn is_flooded(&mut self, now: Instant, limit: Duration) -> bool {
        self.lines >= SHED_LINES_MAX && now.since(self.lines_since) < SECOND && self.is_slow(now, limit)
    }

    /// A call is turned away with a line: for how many others that line speaks.
    fn line(&mut self, now: Instant) -> u64 {
        if now.since(self.lines_since) >= SECOND {
            (self.lines, self.lines_since) = (0, now);
        }
        self.lines += 1;
        std::mem::take(&mut self.turned_away)
    }

    /// Takes a call out of the budget: as many a second as configured, and no more than one second's at once.
    fn within_rate(&mut self, now: Instant, per_second: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let full = u64::from(per_second) * 1000;
        let passed = u64::try_from(now.since(self.counted).as_millis()).unwrap_or(u64::MAX);
        self.budget = self.budget.saturating_add(passed.saturating_mul(u64::from(per_second))).min(full);
        self.counted = now;
        let within = self.budget >= 1000;
        if within {
            self.budget -= 1000;
        }
        within
    }
}

impl Signalling {
    /// Why a new call is turned away; none: it is taken.
    pub(super) fn overloaded(&mut self, now: Instant) -> Option<&'static str> {
        let Limits { dialogs, new_calls_per_second, overload_queue_delay, .. } = self.config.limits;
        if self.draining {
            return Some("drain");
        }
        self.overload.calls.came += 1;
        if self.overload.is_slow(now, overload_queue_delay) {
            self.overload.calls.refused += 1;
            let others = self.overload.line(now);
            if others > 0 {
                tracing::info!(others, cause = "limits.overload_queue_delay", "refused without a line each");
            }
            return Some("limits.overload_queue_delay");
        }
        if self.counts.dialogs.saturating_add(2) > dialogs as u64 {
            return Some("limits.dialogs");
        }
        (!self.overload.within_rate(now, new_calls_per_second)).then_some("limits.new_calls_per_second")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many messages handed in at once that waited for `delay_ms`.
    fn hand_in(overload: &mut Overload, now: Instant, count: u32, delay_ms: u64) {
        (0..count).for_each(|_| overload.waited(now, Duration::from_millis(delay_ms), Duration::from_millis(50)));
    }

    fn at(ms: u64) -> Instant {
        Instant::from_unix_s(1000) + Duration::from_millis(ms)
    }

    #[test]
    fn a_queue_is_slow_when_it_stays_so_or_is_very_slow() {
        let (mut overload, limit) = (Overload::default(), Duration::from_millis(50));
        hand_in(&mut overload, at(0), QUEUE, 60);
        assert!(!overload.is_slow(at(0), limit) && !overload.is_slow(at(1), limit));
        hand_in(&mut overload, at(50), QUEUE, 60);
        assert!(overload.is_slow(at(50), limit));
        hand_in(&mut overload, at(51), 1, 50);
        assert!(!overload.is_slow(at(51), limit));
        hand_in(&mut overload, at(52), QUEUE, 51);
        assert!(overload.is_slow(at(52), limit), "it was slow shortly before");
        hand_in(&mut overload, at(53), 1, 50);
        hand_in(&mut overload, at(1053), QUEUE, 60);
        assert!(!overload.is_slow(at(1053), limit), "the time counts anew");
        hand_in(&mut overload, at(1054), 1, 101);
        assert!(overload.is_slow(at(1054), limit));
    }

    #[test]
    fn a_few_messages_that_waited_are_no_queue() {
        let (mut overload, limit) = (Overload::default(), Duration::from_millis(50));
        hand_in(&mut overload, at(0), QUEUE - 1, 400);
        assert!(!overload.is_slow(at(0), limit));
        // One call after the other on a machine that is busy with something else: each of its messages waits.
        for call in 1..100 {
            hand_in(&mut overload, at(200 * call), QUEUE / 2, 120);
            assert!(!overload.is_slow(at(200 * call), limit), "call {call}");
        }
        hand_in(&mut overload, at(20_000), 1, 401);
        assert!(overload.is_slow(at(20_000), limit), "so long that its caller has long tried again");
        hand_in(&mut overload, at(20_200), 1, 120);
        assert!(!overload.is_slow(at(20_200), limit));
    }

    #[test]
    fn no_more_calls_begin_than_a_second_allows() {
        let mut overload = Overload::default();
        let taken = (0..25).filter(|_| overload.within_rate(at(0), 10)).count();
        assert_eq!(taken, 10, "one second's worth at once");
        assert!(!overload.within_rate(at(99), 10) && overload.within_rate(at(100), 10) && !overload.within_rate(at(101), 10));
        assert!((0..1000).all(|_| overload.within_rate(at(0), 0)));
    }
}
