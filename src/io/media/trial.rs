//! Whether to gather pays is found out by trying: for a while windows with and without it take turns, and what a message costs in
//! the ones and the others is compared.
//!
//! ```text
//! load begins ─> 16 windows by turns ─ it pays ─> 16 more ─ it pays ─> 16 more ─ it pays ─> gather
//!                       └── it does not ────────────┴──────────────────────┴───────────────────> do not
//! seconds later, or at another rate: the same again
//! ```
//! Windows differ by what else the machine does, and a wait that is taken for nothing costs latency: so what seems to pay is looked at
//! three times.
//! What a sleep, a wake-up and a timer cost is a matter of the machine, and of what else it does: no figure of ours holds there.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Windows of a part of a trial.
const WINDOWS: u32 = 16;
/// Parts in which gathering must have paid.
const PARTS: u32 = 3;
/// Gathering must cost less than so many hundredths of going without before it begins, and to go on: it also costs latency.
const WORTH: [u128; 2] = [85, 95];
/// Windows until the next trial: the fewest, and where nothing changes the most. One in four hundred is then spent on trying.
const REST: RangeInclusive<u32> = 200..=6400;

/// A trial, or the rest between two.
#[derive(Debug)]
pub struct Trial {
    pays: bool,
    /// Windows of this part of the trial that are still to come, and parts behind it.
    left: u32,
    parts: u32,
    /// Without gathering, and with it: nanoseconds of CPU time, messages.
    cost: [(u128, u128); 2],
    /// Windows until the next trial, and how many there were to be.
    rest: u32,
    rests: u32,
    /// Messages a window when it was decided.
    rate: u64,
}

impl Default for Trial {
    fn default() -> Self {
        Self { pays: false, left: WINDOWS, parts: PARTS - 1, cost: [(0, 0); 2], rest: 0, rests: *REST.start() / 2, rate: 0 }
    }
}

impl Trial {
    /// Whether the next window gathers. In a trial: no, yes, yes, no, and so on, so that a load that grows favours neither.
    pub const fn gathers(&self) -> bool {
        if self.left > 0 { matches!(self.left % 4, 2 | 3) } else { self.pays }
    }

    /// A window is over that gathered or not as it was told: CPU time of the thread, messages, and messages in a window's time.
    pub fn window(&mut self, cpu: Duration, messages: u64, rate: u64) {
        if self.left > 0 {
            let (time, count) = &mut self.cost[usize::from(self.gathers())];
            (*time, *count) = (*time + cpu.as_nanos(), *count + u128::from(messages));
            self.left -= 1;
            if self.left == 0 {
                self.decide(rate);
            }
            return;
        }
        let changed = (rate > 2 * self.rate || 2 * rate < self.rate) && self.rests - self.rest >= *REST.start() / 2;
        if changed {
            self.rests = *REST.start() / 2;
        }
        self.rest = self.rest.saturating_sub(1);
        if changed || self.rest == 0 {
            (self.left, self.parts, self.cost) = (WINDOWS, PARTS - 1, [(0, 0); 2]);
        }
    }

    fn decide(&mut self, rate: u64) {
        let [(without, of), (with, in_all)] = self.cost;
        // with / in_all < worth / 100 * without / of
        let pays = with * of * 100 < without * in_all * WORTH[usize::from(self.pays)];
        if pays && self.parts > 0 {
            (self.left, self.parts) = (WINDOWS, self.parts - 1);
            return;
        }
        let same = pays == std::mem::replace(&mut self.pays, pays);
        self.rests = if same { self.rests.saturating_mul(2).clamp(*REST.start(), *REST.end()) } else { *REST.start() };
        (self.rest, self.rate) = (self.rests, rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of so many messages each that cost so many nanoseconds without and with gathering; how many of them gathered.
    fn run(trial: &mut Trial, windows: u32, messages: u64, cost: [u64; 2]) -> u32 {
        let mut gathered = 0;
        for _ in 0..windows {
            let with = trial.gathers();
            gathered += u32::from(with);
            trial.window(Duration::from_nanos(cost[usize::from(with)] * messages), messages, messages);
        }
        gathered
    }

    #[test]
    fn the_cheaper_way_is_taken_and_a_tie_goes_to_the_quicker() {
        for (cost, pays) in
            [([20_000, 14_000], true), ([20_000, 30_000], false), ([20_000, 20_000], false), ([20_000, 18_000], false)]
        {
            let mut trial = Trial::default();
            let parts = if pays { PARTS } else { 1 };
            assert_eq!(run(&mut trial, parts * WINDOWS, 200, cost), parts * WINDOWS / 2);
            assert_eq!(trial.gathers(), pays, "{cost:?}");
        }
    }

    #[test]
    fn it_is_tried_again_in_time_and_ever_more_seldom_while_nothing_changes() {
        let mut trial = Trial::default();
        run(&mut trial, WINDOWS, 200, [20, 30]);
        assert!(run(&mut trial, *REST.start() + PARTS * WINDOWS, 200, [20, 10]) > 0);
        assert!(trial.gathers(), "what pays now is noticed");
        let tried = |trial: &mut Trial| 60_000 - run(trial, 60_000, 200, [20, 10]);
        assert!(tried(&mut trial) < 60_000 / 100, "the other way is taken one window in a hundred at most");
    }

    #[test]
    fn another_rate_is_another_question() {
        let mut trial = Trial::default();
        run(&mut trial, WINDOWS, 200, [20, 30]);
        run(&mut trial, *REST.start() / 2, 200, [20, 30]);
        assert!(run(&mut trial, 1 + PARTS * WINDOWS, 1000, [20, 10]) > 0 && trial.gathers());
    }

    #[test]
    fn windows_that_differ_by_chance_are_no_reason_to_wait() {
        use crate::base::prng::Prng;
        // Each window is off by up to three tenths.
        let decided = |seed, cost: [u64; 2]| {
            let (mut trial, mut prng) = (Trial::default(), Prng::seeded(seed));
            for _ in 0..PARTS * WINDOWS {
                let nanos = cost[usize::from(trial.gathers())] * 250 * (70 + prng.below(61)) / 100;
                trial.window(Duration::from_nanos(nanos), 250, 250);
            }
            trial.gathers()
        };
        let wrong = (0..1000).filter(|seed| decided(*seed, [16_300, 17_600])).count();
        assert!(wrong <= 5, "{wrong} of 1,000 gather where it costs a twelfth more");
        let right = (0..1000).filter(|seed| decided(*seed, [20_000, 14_000])).count();
        assert!(right >= 900, "{right} of 1,000 gather where that saves three tenths");
    }
}
