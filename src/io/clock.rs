//! The clock: the wall's time once at start, advanced by the monotonic clock, so that a moment dates a message and never
//! goes back. One clock for all threads of a process, so that moments of two cores can be compared.

use crate::base::clock::Instant;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads the time. Cheap to copy: every thread has one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall_at_start: Instant,
    started: std::time::Instant,
}

impl Clock {
    /// Reads both clocks once.
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let nanos = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        Self { wall_at_start: Instant::from_nanos(nanos), started: std::time::Instant::now() }
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.wall_at_start + self.started.elapsed()
    }

    /// The moment of this clock at which a kernel timestamp (`SO_TIMESTAMPNS`, wall clock) was taken. Where somebody
    /// set the wall clock meanwhile, no earlier than a second ago and no later than now.
    pub fn of_wall(&self, seconds: i64, nanos: i64) -> Instant {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let taken = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0).min(999_999_999));
        self.now() - wall.saturating_sub(taken).min(Duration::from_secs(1))
    }
}

/// CPU time the calling thread has used (`CLOCK_THREAD_CPUTIME_ID`), for the busy ratio of a core.
pub fn thread_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec into the one handed over, within the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_and_a_kernel_stamp_is_not_in_the_future() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(clock.of_wall(i64::MAX, 0) <= clock.now());
        assert!(clock.of_wall(0, 0) + Duration::from_secs(2) > first);
        assert!(clock.now() >= first);
    }
}
