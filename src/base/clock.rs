//! Time as all floors below `io` see it: a number that is handed in. No clock is read there.

use std::ops::{Add, AddAssign, Sub};
pub use std::time::Duration;

/// A moment in nanoseconds since the Unix epoch.
///
/// `io` reads the wall clock once at start and advances it by the monotonic clock, so a moment both orders timers
/// (it never goes back) and dates a message. The simulator makes its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// The moment `nanos` nanoseconds after the Unix epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `seconds` after the Unix epoch.
    pub const fn from_unix_s(seconds: u64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn unix_s(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The first moment from this one on that is a multiple of `grain` after the epoch.
    pub const fn rounded_up(self, grain: Duration) -> Self {
        let grain = grain.as_nanos() as u64;
        Self(self.0.div_ceil(grain).saturating_mul(grain))
    }

    /// The time from `earlier` to this moment; zero where `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, by: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, by: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }
}
