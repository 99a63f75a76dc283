//! RFC 3261 §21.5.4: the last resort in a flood: a share of new calls that is dropped without a word ("A server MAY refuse the
//! connection or drop the request instead of responding with a 503"), so that to refuse the rest does not take the time of those that
//! are served. How large the share has to be is found here, window by window; `io::signalling::filter` has the kernel drop it.
//!
//! ```text
//! refused so far without harm  ──  more refusals than the core's time allows, for a while  ──>  share > 0
//!        share = 1 - (taken + allowed) / offered         offered = what passed / (1 - share before)
//! raised by half of what is missing in a window, lowered by an eighth; halved where all could have passed
//! ```
//! Whether a call is dropped depends on the call, not on chance (its hash against the share), so its resends are no new load: what passes
//! is what is offered, less the share, however often the rest is sent again.

use crate::base::clock::Duration;

/// Over what the controller looks.
pub const WINDOW: Duration = Duration::from_millis(200);
/// CPU time of a call refused in passing, with what the kernel does for its INVITE, its 503 and its ACK: 12 µs on a core of its own,
/// 20 on one that is shared (`perf/overload`).
const REFUSAL: Duration = Duration::from_micros(20);
/// Refusals beyond what is allowed before anything is dropped: a burst of calls is answered to the last.
const PATIENCE: f64 = 1_000.0;
/// No more is ever dropped: who passes shows that the flood goes on.
const SHARE_MAX: f64 = 0.95;
/// A smaller share is none.
const SHARE_MIN: f64 = 1.0 / 64.0;

/// What a core did in a window.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// New calls that came through, and how many of them were refused because the queue was slow.
    pub came: u64,
    pub refused: u64,
    /// Time that the core had: that it ran, and that it slept because nothing was to be done.
    pub had: Duration,
}

/// The share of one core.
#[derive(Debug, Default)]
pub struct Dropping {
    share: f64,
    /// Refusals beyond those that were allowed.
    excess: f64,
}

impl Dropping {
    /// Ends a window; `percent` of the core's time may go into refusals. The share of new calls that is to be dropped in the next one.
    pub fn close(&mut self, window: Window, percent: u32) -> f64 {
        let allowed = f64::from(percent) / 100.0 * window.had.as_secs_f64() / REFUSAL.as_secs_f64();
        let (came, refused) = (window.came as f64, window.refused as f64);
        if percent >= 100 {
            *self = Self::default();
            return 0.0;
        }
        let offered = came / (1.0 - self.share);
        let wanted = if offered > 0.0 { 1.0 - (came - refused + allowed) / offered } else { 0.0 }.clamp(0.0, SHARE_MAX);
        if self.share == 0.0 {
            self.excess = (self.excess + refused - allowed).max(0.0);
            self.share = if self.excess > PATIENCE { wanted } else { 0.0 };
        } else if wanted == 0.0 {
            self.share /= 2.0;
        } else {
            self.share += (wanted - self.share) / if wanted > self.share { 2.0 } else { 8.0 };
        }
        if self.share < SHARE_MIN {
            self.share = 0.0;
        } else {
            // Where the share came to nothing it comes again soon, if it was too early.
            self.excess = PATIENCE / 2.0;
        }
        self.share
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
    const REFUSED_US: u64 = 20;
    /// When what is not answered is sent again, in windows after the time before (RFC 3261 §17.1.1.2).
    const RESENT_AFTER: [u64; 6] = [3, 5, 10, 20, 40, 80];

    /// What a window brought.
    #[derive(Clone, Copy, Debug)]
    struct Told {
        share: f64,
        taken: u64,
        refused: u64,
    }

    /// A core with so much time of each window, where so many new calls come in each. Who is dropped sends again. Calls are counted by
    /// their hash.
    fn play(percent: u32, window_us: u64, offered: impl Fn(u64) -> u64, windows: u64) -> Vec<Told> {
        const HASHES: usize = 256;
        let (mut dropping, mut prng, mut share) = (Dropping::default(), Prng::seeded(11), 0.0);
        // By window and by how often they were sent before.
        let mut calls = vec![[[0u64; HASHES]; RESENT_AFTER.len() + 1]; windows as usize];
        let mut told = Vec::new();
        for now in 0..windows {
            for _ in 0..offered(now) {
                calls[now as usize][0][prng.below(HASHES as u64) as usize] += 1;
            }
            let dropped = (share * HASHES as f64) as usize;
            let mut came = 0;
            for (times, sent) in calls[now as usize].into_iter().enumerate() {
                came += sent[dropped..].iter().sum::<u64>();
                let again = RESENT_AFTER.get(times).map_or(windows, |after| now + after);
                if let Some(again) = calls.get_mut(again as usize) {
                    again[times + 1].iter_mut().zip(&sent[..dropped]).for_each(|(again, sent)| *again += sent);
                }
            }
            // Some windows have more time than others.
            let time = window_us * (90 + prng.below(21)) / 100;
            let taken = (time.saturating_sub(came * REFUSED_US) / (SERVED_US - REFUSED_US)).min(came);
            let refused = came - taken;
            told.push(Told { share, taken, refused });
            share = dropping.close(Window { came, refused, had: Duration::from_micros(time) }, percent);
        }
        told
    }

    fn mean(told: &[Told], of: impl Fn(&Told) -> f64) -> f64 {
        told.iter().map(of).sum::<f64>() / told.len() as f64
    }

    /// A whole core, which can serve 2,380 calls in a window.
    const CORE_US: u64 = 200_000;

    #[test]
    fn at_three_times_the_load_nearly_all_of_the_time_is_left_for_calls() {
        for window_us in [CORE_US, CORE_US / 4] {
            let fit = window_us / SERVED_US;
            let told = play(5, window_us, |_| 3 * fit, 600);
            let settled = &told[50..];
            let taken = mean(settled, |told| told.taken as f64);
            assert!(taken > 0.92 * fit as f64, "{taken} of {fit} calls");
            // Refusals have about what they may have; nobody is dropped for nothing, and whoever is, stays so.
            let refused = mean(settled, |told| told.refused as f64 * REFUSED_US as f64) / window_us as f64;
            assert!((0.03..0.07).contains(&refused), "{refused} of the time");
            let (least, most) =
                settled.iter().fold((1.0, 0.0), |(least, most): (f64, f64), told| (least.min(told.share), most.max(told.share)));
            assert!(least > 0.25 && most < 0.7, "the share is between {least} and {most}");
            // At twice the load a smaller share does.
            let twice = mean(&play(5, window_us, |_| 2 * fit, 200)[100..], |told| told.share);
            assert!((0.25..0.6).contains(&twice), "the share is {twice}");
            let without = play(100, window_us, |_| 3 * fit, 100);
            assert!(mean(&without, |told| told.taken as f64) < 0.75 * fit as f64, "this is what it is for");
        }
    }

    #[test]
    fn nothing_is_dropped_where_refusals_take_little_or_for_a_moment() {
        let fit = CORE_US / SERVED_US;
        assert!(play(5, CORE_US, |_| fit * 11 / 10, 300).iter().all(|told| told.share == 0.0), "a tenth too many");
        // A burst of some hundred calls to a core that takes none.
        let mut dropping = Dropping::default();
        for _ in 0..2 {
            let burst = Window { came: 500, refused: 500, had: WINDOW };
            assert_eq!(dropping.close(burst, 5), 0.0);
        }
        // Two thousand a second are refused for ever.
        for _ in 0..1_000 {
            assert_eq!(dropping.close(Window { came: 400, refused: 400, had: WINDOW }, 5), 0.0);
        }
        for _ in 0..10 {
            dropping.close(Window { came: 0, refused: 0, had: WINDOW }, 5);
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
        let flood = Window { came: 10_000, refused: 9_000, had: WINDOW };
        for _ in 0..5 {
            dropping.close(flood, 5);
        }
        let first = dropping.close(flood, 5);
        assert!(first > 0.5 && first <= SHARE_MAX);
        let windows = (0..).take_while(|_| dropping.close(Window { came: 0, refused: 0, had: WINDOW }, 5) > 0.0).count();
        assert!(windows <= 6, "{windows} windows");
        // A new configuration counts at once.
        for _ in 0..5 {
            dropping.close(flood, 5);
        }
        assert_eq!(dropping.close(flood, 100), 0.0);
    }
}
