//! The timers of one core: armed for a moment, cancelled, or taken out when they are due.
//!
//! An indexed four-way heap: arming and cancelling cost O(log4 n), the next moment O(1). A SIP proxy cancels nearly
//! every timer it arms; a cancelled one leaves the heap at once, so none pile up and the memory follows what is armed.
//!
//! ```text
//! handle (slot, generation) --> slots[slot] { place in heap, key }
//!                                      ^
//! heap[place] = (at, turn, slot) ------+        equal moments leave in the order in which they were armed
//! ```

use super::chunks::Chunks;
use super::clock::Instant;

/// Names an armed timer. Once it has fired or was cancelled its handle finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle {
    slot: u32,
    generation: u32,
}

#[derive(Clone, Copy)]
struct Node {
    at: Instant,
    /// Which of those armed it is; counted round.
    turn: u32,
    slot: u32,
}

struct Slot<K> {
    generation: u32,
    place: u32,
    key: Option<K>,
}

/// Armed timers, each with the key of what waits for it. How many there can be is the business of those who arm:
/// a transaction holds at most three, a session two.
pub struct Timers<K> {
    heap: Vec<Node>,
    slots: Chunks<Slot<K>>,
    free: Vec<u32>,
    turn: u32,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Timers<K> {
    pub const fn new() -> Self {
        Self { heap: Vec::new(), slots: Chunks::new(), free: Vec::new(), turn: 0 }
    }

    /// Timers armed.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Arms a timer; [`Timers::due`] gives `key` back once `at` has come.
    pub fn arm(&mut self, at: Instant, key: K) -> Handle {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.slots.push(Slot { generation: 0, place: 0, key: None });
            u32::try_from(slot).expect("far fewer than 2^32 timers fit in memory")
        });
        self.slots[slot as usize].key = Some(key);
        self.turn = self.turn.wrapping_add(1);
        let place = self.heap.len();
        self.heap.push(Node { at, turn: self.turn, slot });
        self.rise(place);
        Handle { slot, generation: self.slots[slot as usize].generation }
    }

    /// Takes a timer back; its key, unless it has fired or was cancelled before.
    pub fn cancel(&mut self, handle: Handle) -> Option<K> {
        let slot = self.slots.get(handle.slot as usize).filter(|slot| slot.generation == handle.generation)?;
        slot.key.as_ref()?;
        Some(self.take(slot.place as usize))
    }

    /// When the first timer fires.
    pub fn next(&self) -> Option<Instant> {
        self.heap.first().map(|node| node.at)
    }

    /// The key of the first timer whose moment has come; called again until it gives none.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        (self.next()? <= now).then(|| self.take(0))
    }

    fn take(&mut self, place: usize) -> K {
        let node = self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.settle(place);
            self.rise(place);
            self.sink(place);
        }
        let slot = &mut self.slots[node.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(node.slot);
        slot.key.take().expect("a node in the heap has its key in its slot")
    }

    fn before(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.heap[one], &self.heap[other]);
        // Of two that are armed for one moment, neither was armed 2^31 arms after the other.
        one.at < other.at || one.at == other.at && one.turn.wrapping_sub(other.turn) > u32::MAX / 2
    }

    fn settle(&mut self, place: usize) {
        self.slots[self.heap[place].slot as usize].place = place as u32;
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.settle(one);
    }

    /// Moves a node towards the root until its parent is not later.
    fn rise(&mut self, mut place: usize) {
        while place > 0 && self.before(place, (place - 1) / 4) {
            self.swap(place, (place - 1) / 4);
            place = (place - 1) / 4;
        }
        self.settle(place);
    }

    /// Moves a node towards the leaves until no child is earlier.
    fn sink(&mut self, mut place: usize) {
        loop {
            let first = place * 4 + 1;
            let last = (first + 4).min(self.heap.len());
            let Some(least) = (first..last).reduce(|one, other| if self.before(other, one) { other } else { one }) else { break };
            if !self.before(least, place) {
                break;
            }
            self.swap(place, least);
            place = least;
        }
        self.settle(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use std::collections::BTreeMap;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn timers_fire_in_order_of_time_and_then_of_arming() {
        let mut timers = Timers::new();
        for (ms, key) in [(30, 'd'), (10, 'a'), (20, 'c'), (10, 'b')] {
            timers.arm(at(ms), key);
        }
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.due(at(9)), None);
        let fired: String = std::iter::from_fn(|| timers.due(at(20))).collect();
        assert_eq!(fired, "abc");
        assert_eq!(timers.next(), Some(at(30)));
    }

    #[test]
    fn a_cancelled_timer_is_gone_and_its_handle_finds_nothing() {
        let mut timers = Timers::new();
        let handle = timers.arm(at(5), 'x');
        assert_eq!(timers.cancel(handle), Some('x'));
        assert_eq!(timers.cancel(handle), None);
        let other = timers.arm(at(6), 'y');
        assert_eq!(timers.cancel(handle), None);
        assert_eq!(timers.due(at(6)), Some('y'));
        assert_eq!(timers.cancel(other), None);
        assert!(timers.is_empty());
    }

    #[test]
    fn arming_and_cancelling_without_end_takes_no_further_memory() {
        let mut timers = Timers::new();
        for round in 0..100_000u64 {
            let handle = timers.arm(at(round + 32_000), round);
            timers.cancel(handle);
        }
        assert_eq!((timers.len(), timers.slots.len(), timers.heap.capacity() <= 4), (0, 1, true));
    }

    #[test]
    fn chance_agrees_with_an_ordered_map() {
        let mut prng = Prng::seeded(7);
        let mut timers = Timers::new();
        let mut model: BTreeMap<(Instant, u64), Handle> = BTreeMap::new();
        let mut now = 0;
        for turn in 0..50_000u64 {
            match prng.below(4) {
                0 | 1 => {
                    let when = at(now + prng.below(500));
                    let handle = timers.arm(when, (when, turn));
                    model.insert((when, turn), handle);
                }
                2 if !model.is_empty() => {
                    let nth = prng.below(model.len() as u64) as usize;
                    let (&key, &handle) = model.iter().nth(nth.min(50)).or(model.iter().next()).expect("not empty");
                    model.remove(&key);
                    assert_eq!(timers.cancel(handle), Some(key));
                }
                _ => {
                    now += prng.below(5);
                    while let Some(key) = timers.due(at(now)) {
                        assert_eq!(model.pop_first().expect("the model has it too").0, key);
                    }
                    assert!(model.first_key_value().is_none_or(|((when, _), _)| *when > at(now)));
                }
            }
            assert_eq!(timers.len(), model.len());
            assert_eq!(timers.next(), model.first_key_value().map(|((when, _), _)| *when));
        }
    }
}
