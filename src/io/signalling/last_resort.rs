//! RFC 3261 §21.5.4, `limits.overload_refusal_percent`: the share of new calls that the kernel drops at a core's UDP sockets: measured
//! and decided window by window (`shard::dropping`), set (`filter`), and told in the log.

use super::udp::Udp;
use crate::base::clock::{Duration, Instant};
use crate::base::prng::Prng;
use crate::io::clock::thread_cpu;
use crate::shard::dropping::{Dropping, WHOLE, WINDOW, Window};
use crate::shard::overload::NewCalls;

/// Between two floods that have their lines in the log.
const LINES_EVERY: Duration = Duration::from_secs(10);

/// The beginning of a window: when it was, and what had been counted by then: calls, and time that the core ran and slept.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    at: Instant,
    calls: NewCalls,
    ran: Duration,
    slept: Duration,
}

/// The last resort of one core.
#[derive(Debug, Default)]
pub struct LastResort {
    dropping: Dropping,
    /// New calls when last looked at.
    seen: NewCalls,
    /// The window that runs. None: no call was refused lately.
    began: Option<Beginning>,
    /// What the filters have been told, and which calls that means.
    set: u8,
    salt: u32,
    /// A line said that it began: when, and what the kernel had dropped until then.
    told: Option<(Instant, u64)>,
    last_told: Option<Instant>,
    /// The kernel takes no filter.
    unable: bool,
}

impl LastResort {
    /// When it has to be looked at, whatever comes: a share that is set must not outlive its flood.
    pub fn due(&self) -> Option<Instant> {
        self.began.filter(|_| self.set > 0).map(|began| began.at + WINDOW)
    }

    /// The share of new calls that is dropped now, 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from(self.set) / WHOLE
    }

    /// Closes the window, if it is over, and sets what follows from it. `percent` of the core's time may go into refusals.
    /// `slept`: for how long the core has had nothing to do since its start.
    pub fn look(&mut self, now: Instant, calls: NewCalls, slept: Duration, percent: u32, udp: &Udp) {
        if self.unable {
            return;
        }
        let seen = std::mem::replace(&mut self.seen, calls);
        let Some(began) = self.began else {
            let first = || Beginning { at: now, calls: seen, ran: thread_cpu(), slept };
            self.began = (calls.refused != seen.refused).then(first);
            return;
        };
        if now.since(began.at) < WINDOW {
            return;
        }
        let next = Beginning { at: now, calls, ran: thread_cpu(), slept };
        let window = Window {
            came: calls.came - began.calls.came,
            refused: calls.refused - began.calls.refused,
            ran: next.ran.saturating_sub(began.ran),
            slept: next.slept.saturating_sub(began.slept),
        };
        let share = self.dropping.close(window, percent);
        tracing::debug!(?window, share, "too many calls");
        self.set(now, share, udp);
        self.began = (!self.dropping.is_at_rest()).then_some(next);
    }

    /// Nothing is dropped from here on, as another process reads the sockets.
    pub fn end(&mut self, now: Instant, udp: &Udp) {
        self.dropping = Dropping::default();
        self.began = None;
        self.set(now, 0, udp);
    }

    fn set(&mut self, now: Instant, share: u8, udp: &Udp) {
        if share == self.set {
            return;
        }
        if self.set == 0 {
            // Nobody who calls knows which octets are dropped.
            self.salt = hash(now);
        }
        if let Err(error) = udp.filter(share, self.salt) {
            tracing::warn!(%error, "the kernel takes no filter: all calls that are too many are refused");
            (self.unable, self.set) = (true, 0);
            return;
        }
        match (self.set, share) {
            (0, _) => self.tell_beginning(now, udp),
            (_, 0) => self.tell_end(now, udp),
            _ => {}
        }
        self.set = share;
    }

    fn tell_beginning(&mut self, now: Instant, udp: &Udp) {
        if self.last_told.is_none_or(|last| now.since(last) >= LINES_EVERY) {
            (self.told, self.last_told) = (Some((now, udp.not_taken())), Some(now));
            tracing::warn!("a part of new calls is dropped: to refuse all takes more than limits.overload_refusal_percent");
        }
    }

    fn tell_end(&mut self, now: Instant, udp: &Udp) {
        if let Some((since, before)) = self.told.take() {
            let (seconds, datagrams) = (now.since(since).as_secs_f32(), udp.not_taken().saturating_sub(before));
            tracing::warn!(seconds, datagrams, "no new calls are dropped any more");
        }
    }
}

/// A number that nobody knows who does not see our clock.
fn hash(now: Instant) -> u32 {
    Prng::seeded(now.as_nanos()).u64() as u32
}
