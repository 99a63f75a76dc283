//! RFC 3261 §21.5.4, RFC 5390: which new calls are turned away so that those in progress, and those taken, go well.
//!
//! | limit                             | answer                                                                   |
//! |-----------------------------------|--------------------------------------------------------------------------|
//! | `limits.overload_queue_delay`     | 503 with Retry-After: what waits in our own queue says it soonest         |
//! | `limits.new_calls_per_second`     | 503 with Retry-After                                                      |
//! | `limits.dialogs`                  | 503 with Retry-After                                                      |
//! | `limits.sessions_per_originator`  | 486: only this user has to wait, and no other server would take the call  |
//! | draining                          | 503 with Retry-After                                                      |

use super::signalling::Signalling;
use crate::base::clock::{Duration, Instant};
use crate::config::Limits;

/// The load of one core as it sees it.
#[derive(Default)]
pub struct Overload {
    /// How long what was handed in last had waited.
    delay: Duration,
    /// Calls that may still begin, in thousandths, and when that was so.
    budget: u64,
    counted: Instant,
}

impl Overload {
    /// How long what is handed in now has waited.
    pub fn waited(&mut self, delay: Duration) {
        self.delay = delay;
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
        if self.overload.delay > overload_queue_delay {
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

    #[test]
    fn no_more_calls_begin_than_a_second_allows() {
        let mut overload = Overload::default();
        let at = |ms: u64| Instant::from_unix_s(1000) + Duration::from_millis(ms);
        let taken = (0..25).filter(|_| overload.within_rate(at(0), 10)).count();
        assert_eq!(taken, 10, "one second's worth at once");
        assert!(!overload.within_rate(at(99), 10) && overload.within_rate(at(100), 10) && !overload.within_rate(at(101), 10));
        assert!((0..1000).all(|_| overload.within_rate(at(0), 0)));
    }
}
