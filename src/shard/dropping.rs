//! RFC 3261 §21.5.4: the last resort in a flood: a share of new calls that is dropped without a word ("A server MAY refuse the
//! connection or drop the request instead of responding with a 503"), so that to refuse the rest does not take the time of those that
//! are served. How large the share has to be is found here, window by window; `io::signalling::filter` has the kernel drop it.
//!
//! ```text
//! refused so far without harm  ──  more refusals than the core's time allows, for a while  ──>  share > 0
//!
//! refusals take   refusals × REFUSAL / time that the core ran                     all of them means over about a second
//! it can take     calls taken × (1 - what refusals may take) / (1 - what they take)
//! offered         what passed / (1 - share)
//!
//! share wanted    1 - (can take + 3/4 of the refusals allowed) / offered
//! it stays        while between a quarter and all of the refusals allowed are to be expected
//! it moves        up by half of what is missing, down at once; halved where all could be taken, or few are dropped and none refused
//! ```
//! Whether a call is dropped depends on the call, not on chance (its hash against the share), so its resends are no new load: what passes
//! is what is offered, less the share, however often the rest is sent again. A share that stays where it is matters for the same reason:
//! whenever it falls, calls that were dropped pass with their next resend, and are served seconds after they were made.

use crate::base::clock::Duration;

/// Over what the controller looks.
pub const WINDOW: Duration = Duration::from_millis(200);
/// What shares are counted in: so many of this many calls are dropped.
pub const WHOLE: f64 = 256.0;
/// CPU time of a call refused in passing, with what the kernel does for its INVITE and its 503 (`perf/overload`: what a window with many
/// refusals ran, less what one with few did for as many calls taken). Its ACK takes 2 µs more before a filter is set, which drops it.
const REFUSAL: Duration = Duration::from_micros(12);
/// Refusals beyond what is allowed before anything is dropped: a burst of calls is answered to the last.
const PATIENCE: f64 = 1_000.0;
/// No more is ever dropped: who passes shows that the flood goes on.
const SHARE_MAX: f64 = 0.95;
/// A smaller share is none.
const SHARE_MIN: f64 = 1.0 / 64.0;
/// The share stays while so much of the refusals that are allowed are to be expected with it, and aims at so much.
const STAYS: std::ops::RangeInclusive<f64> = 0.25..=1.0;
const AIM: f64 = 0.75;
/// What the newest window counts in a mean.
const NEWEST: f64 = 0.2;

/// What a core did in a window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// New calls that came through, and how many of them were refused because the queue was slow.
    pub came: u64,
    pub refused: u64,
    /// Time that the core ran, and that it slept because nothing was to be done.
    pub ran: Duration,
    pub slept: Duration,
}

/// Means of a window since a flood began; the latest count most.
#[derive(Clone, Copy, Debug, Default)]
struct Means {
    windows: f64,
    offered: f64,
    taken: f64,
    refused: f64,
    ran_s: f64,
    had_s: f64,
}

impl Means {
    fn add(&mut self, window: Window, share: f64) {
        self.windows += 1.0;
        let weight = NEWEST.max(1.0 / self.windows);
        let (came, refused, ran_s) = (window.came as f64, window.refused as f64, window.ran.as_secs_f64());
        for (mean, now) in [
            (&mut self.offered, came / (1.0 - share)),
            (&mut self.taken, came - refused),
            (&mut self.refused, refused),
            (&mut self.ran_s, ran_s),
            (&mut self.had_s, ran_s + window.slept.as_secs_f64()),
        ] {
            *mean += (now - *mean) * weight;
        }
    }

    /// Calls that can be taken in a window where refusals have this part of the time.
    fn can_take(&self, refusing: f64) -> f64 {
        let refusals_s = self.refused * REFUSAL.as_secs_f64();
        // Where they take less than is supposed, they must not explain all of the time.
        let part = if refusals_s > 0.0 { (refusals_s / self.ran_s).min(0.75) } else { 0.0 };
        self.taken * (1.0 - refusing) / (1.0 - part)
    }
}

/// The share of one core.
#[derive(Debug, Default)]
pub struct Dropping {
    share: f64,
    means: Means,
    /// Refusals beyond those that were allowed.
    excess: f64,
}

impl Dropping {
    /// Ends a window; `percent` of the core's time may go into refusals. The share of new calls that is to be dropped in the next one,
    /// in [`WHOLE`].
    pub fn close(&mut self, window: Window, percent: u32) -> u8 {
        if percent >= 100 {
            *self = Self::default();
            return 0;
        }
        let refusing = f64::from(percent) / 100.0;
        self.means.add(window, self.share);
        let Means { offered, had_s, .. } = self.means;
        let (can_take, allowed) = (self.means.can_take(refusing), refusing * had_s / REFUSAL.as_secs_f64());
        let wanted = if offered > 0.0 { 1.0 - (can_take + AIM * allowed) / offered } else { 0.0 }.clamp(0.0, SHARE_MAX);
        let few = window.refused == 0 && window.came as f64 * self.share <= allowed * (1.0 - self.share);
        if self.share == 0.0 {
            self.excess = (self.excess + window.refused as f64 - allowed).max(0.0);
            self.share = if self.excess > PATIENCE { wanted / 2.0 } else { 0.0 };
        } else if wanted == 0.0 || few {
            self.share /= 2.0;
        } else if !STAYS.contains(&((offered * (1.0 - self.share) - can_take) / allowed)) {
            self.share = if wanted > self.share { f64::midpoint(self.share, wanted) } else { wanted };
        }
        if self.share < SHARE_MIN {
            self.share = 0.0;
        } else {
            // Where the share came to nothing it comes again soon, if it was too early.
            self.excess = PATIENCE / 2.0;
        }
        // What is set is what is reckoned with.
        let set = (self.share * WHOLE) as u8;
        self.share = f64::from(set) / WHOLE;
        if self.is_at_rest() {
            self.means = Means::default();
        }
        set
    }

    /// Whether calls that come now are none that this goes on with.
    pub fn is_at_rest(&self) -> bool {
        self.share == 0.0 && self.excess == 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    /// What a call that is served takes, and one that is refused.
    const SERVED_US: u64 = 84;
    const REFUSED_US: u64 = 15;
    /// When what is not answered is sent again, in windows after the time before (RFC 3261 §17.1.1.2).
    const RESENT_AFTER: [u64; 6] = [3, 5, 10, 20, 40, 80];

    /// What a window brought.
    #[derive(Clone, Copy, Debug)]
    struct Told {
        share: f64,
        taken: u64,
        refused: u64,
        /// Of those taken: how many had been dropped before.
        late: f64,
    }

    /// A core with so much time of each window, where so many new calls come in each. Who is dropped sends again. Calls are counted by
    /// their hash.
    fn play(percent: u32, window_us: u64, offered: impl Fn(u64) -> u64, windows: u64) -> Vec<Told> {
        const HASHES: usize = WHOLE as usize;
        let (mut dropping, mut prng, mut share) = (Dropping::default(), Prng::seeded(11), 0);
        // By window and by how often they were sent before.
        let mut calls = vec![[[0u64; HASHES]; RESENT_AFTER.len() + 1]; windows as usize];
        let mut told = Vec::new();
        for now in 0..windows {
            for _ in 0..offered(now) {
                calls[now as usize][0][prng.below(HASHES as u64) as usize] += 1;
            }
            let dropped = usize::from(share);
            let (mut came, mut again) = (0, 0);
            for (times, sent) in calls[now as usize].into_iter().enumerate() {
                let passed: u64 = sent[dropped..].iter().sum();
                (came, again) = (came + passed, again + if times > 0 { passed } else { 0 });
                let next = RESENT_AFTER.get(times).map_or(windows, |after| now + after);
                if let Some(next) = calls.get_mut(next as usize) {
                    next[times + 1].iter_mut().zip(&sent[..dropped]).for_each(|(next, sent)| *next += sent);
                }
            }
            // Some windows have more time than others.
            let time = window_us * (90 + prng.below(21)) / 100;
            let taken = (time.saturating_sub(came * REFUSED_US) / (SERVED_US - REFUSED_US)).min(came);
            let refused = came - taken;
            let late = taken as f64 * again as f64 / came.max(1) as f64;
            told.push(Told { share: f64::from(share) / WHOLE, taken, refused, late });
            let ran = (taken * SERVED_US + refused * REFUSED_US).min(time);
            let (ran, slept) = (Duration::from_micros(ran), Duration::from_micros(time - ran));
            share = dropping.close(Window { came, refused, ran, slept }, percent);
        }
        told
    }

    fn mean(told: &[Told], of: impl Fn(&Told) -> f64) -> f64 {
        told.iter().map(of).sum::<f64>() / told.len() as f64
    }

    /// A window in which the core had no moment of rest.
    fn full(came: u64, refused: u64) -> Window {
        Window { came, refused, ran: WINDOW, slept: Duration::ZERO }
    }

    /// One in which it had nothing to do.
    const NOTHING: Window = Window { came: 0, refused: 0, ran: Duration::ZERO, slept: WINDOW };

    /// A whole core, which can serve 2,380 calls in a window.
    const CORE_US: u64 = 200_000;

    #[test]
    fn at_several_times_the_load_nearly_all_of_the_time_is_left_for_calls() {
        for window_us in [CORE_US, CORE_US / 4] {
            let fit = window_us / SERVED_US;
            for times in [2, 3, 5] {
                let told = play(5, window_us, |_| times * fit, 600);
                let settled = &told[10..];
                let taken = mean(settled, |told| told.taken as f64);
                assert!(taken > 0.93 * fit as f64, "{taken} of {fit} calls at {times} times the load");
                let refused = mean(settled, |told| told.refused as f64 * REFUSED_US as f64) / window_us as f64;
                assert!((0.01..0.07).contains(&refused), "{refused} of the time is refusals at {times} times the load");
            }
            let without = play(100, window_us, |_| 3 * fit, 100);
            assert!(mean(&without, |told| told.taken as f64) < 0.75 * fit as f64, "this is what it is for");
        }
    }

    #[test]
    fn the_share_stays_where_it_is_so_that_nobody_is_served_late() {
        for window_us in [CORE_US, CORE_US / 4] {
            for times in [2, 3, 5] {
                let told = play(5, window_us, |_| times * window_us / SERVED_US, 600);
                let settled = &told[25..];
                let changes = settled.windows(2).filter(|pair| pair[0].share != pair[1].share).count();
                assert!(changes < settled.len() / 50, "{changes} changes in {} windows", settled.len());
                let (late, taken) = (mean(settled, |told| told.late), mean(settled, |told| told.taken as f64));
                assert!(late < 0.01 * taken, "{late} of {taken} calls were served late at {times} times the load");
            }
        }
    }

    #[test]
    fn a_flood_that_grows_and_falls_is_followed() {
        let fit = CORE_US / SERVED_US;
        let times = [2, 4, 3, 6, 2];
        let told = play(5, CORE_US, |now| times[now as usize / 100] * fit, 500);
        for (phase, told) in told.chunks(100).enumerate() {
            let taken = mean(&told[15..], |told| told.taken as f64);
            assert!(taken > 0.9 * fit as f64, "{taken} of {fit} calls in phase {phase}");
        }
    }

    #[test]
    fn nothing_is_dropped_where_refusals_take_little_or_for_a_moment() {
        let fit = CORE_US / SERVED_US;
        assert!(play(5, CORE_US, |_| fit * 11 / 10, 300).iter().all(|told| told.share == 0.0), "a tenth too many");
        // A burst of some hundred calls to a core that takes none.
        let mut dropping = Dropping::default();
        for _ in 0..2 {
            assert_eq!(dropping.close(full(500, 500), 5), 0);
        }
        // Two thousand a second are refused for ever.
        for _ in 0..1_000 {
            assert_eq!(dropping.close(full(400, 400), 5), 0);
        }
        for _ in 0..10 {
            dropping.close(NOTHING, 5);
        }
        assert!(dropping.is_at_rest());
    }

    #[test]
    fn when_the_flood_is_over_nobody_is_dropped_for_long() {
        let fit = CORE_US / SERVED_US;
        let after = |flood: u64| {
            let told = play(5, CORE_US, |now| if now < flood { 4 * fit } else { fit / 4 }, flood + 400);
            assert!(told[flood as usize - 1].share > 0.5);
            told[flood as usize..].iter().map(|told| told.share).collect::<Vec<f64>>()
        };
        // What came in two seconds and was dropped comes again, later and later, and then for a moment in numbers.
        let moment = after(10);
        let mean = moment[25..].iter().sum::<f64>() / 135.0;
        assert!(mean < 0.1, "{mean} from five seconds on");
        for shares in [moment, after(100)] {
            let last = shares.iter().rposition(|share| *share > 0.0).unwrap_or(0);
            assert!(last < 170, "{last} windows: nobody sends again after Timer B, 32 s");
        }
    }

    #[test]
    fn a_core_that_refuses_nothing_drops_nothing_soon() {
        let mut dropping = Dropping::default();
        for _ in 0..15 {
            dropping.close(full(10_000, 9_000), 5);
        }
        let share = dropping.close(full(10_000, 9_000), 5);
        assert!(f64::from(share) > 0.5 * WHOLE && f64::from(share) <= SHARE_MAX * WHOLE, "{share}");
        let windows = (0..).take_while(|_| dropping.close(NOTHING, 5) > 0).count();
        assert!(windows <= 20, "{windows} windows");
        // A new configuration counts at once.
        for _ in 0..5 {
            dropping.close(full(10_000, 9_000), 5);
        }
        assert_eq!(dropping.close(full(10_000, 9_000), 100), 0);
        assert!(dropping.is_at_rest());
    }
}
