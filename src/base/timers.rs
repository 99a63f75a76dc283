//! The timers of one core: armed for a moment, cancelled, or taken out when they are due.
//!
//! Nearly all are armed for one of a few spans from now (T1, T4, 64*T1 …), and of one span each is due after the last. They
//! stand in queues: a timer goes behind the latest one that is not after it, and where every queue ends later, into a four-way
//! heap. To arm and to cancel costs O(1) in a queue, O(log4 n) in the heap. A SIP proxy cancels nearly every timer it arms; a
//! cancelled one leaves at once, so none pile up and the memory follows what is armed.
//!
//! ```text
//! handle (slot, generation) --> slots[slot] { at, key, where it stands }
//!                                      ^
//! queues: first <-> … <-> last  -------+        equal moments leave in the order in which they were armed
//! heap[place] = (at, turn, slot) ------+
//! ```

use super::chunks::Chunks;
use super::clock::Instant;

/// Names an armed timer. Once it has fired or was cancelled its handle finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle {
    slot: u32,
    generation: u32,
}

/// Queues: about as many as there are spans that are often armed.
const QUEUES: usize = 8;
/// No slot.
const NONE: u32 = u32::MAX;

/// When a timer is due. Of those of one moment, the one armed first goes first.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    /// Which of those armed it is; counted round.
    turn: u32,
}

impl Due {
    fn before(&self, other: &Due) -> bool {
        // Of two that are armed for one moment, neither was armed 2^31 arms after the other.
        self.at < other.at || self.at == other.at && self.turn.wrapping_sub(other.turn) > u32::MAX / 2
    }
}

#[derive(Clone, Copy)]
struct Node {
    due: Due,
    slot: u32,
}

#[derive(Clone, Copy)]
enum Place {
    /// In a queue, between two slots.
    Queue {
        number: u8,
        before: u32,
        after: u32,
    },
    Heap(u32),
}

struct Slot<K> {
    generation: u32,
    place: Place,
    due: Due,
    key: Option<K>,
}

/// The ends of a queue.
#[derive(Clone, Copy)]
struct Queue {
    first: u32,
    last: u32,
    /// When the last is due; the beginning of time where there is none, so that every timer may follow.
    until: Instant,
}

/// Armed timers, each with the key of what waits for it. How many there can be is the business of those who arm:
/// a transaction holds at most three, a session two.
pub struct Timers<K> {
    queues: [Queue; QUEUES],
    heap: Vec<Node>,
    slots: Chunks<Slot<K>>,
    free: Vec<u32>,
    turn: u32,
    /// The first timer and its slot: a core asks for it at every turn.
    first: Option<(Due, u32)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Timers<K> {
    pub const fn new() -> Self {
        let empty = Queue { first: NONE, last: NONE, until: Instant::from_nanos(0) };
        Self { queues: [empty; QUEUES], heap: Vec::new(), slots: Chunks::new(), free: Vec::new(), turn: 0, first: None }
    }

    /// Timers armed.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Arms a timer; [`Timers::due`] gives `key` back once `at` has come.
    pub fn arm(&mut self, at: Instant, key: K) -> Handle {
        self.turn = self.turn.wrapping_add(1);
        let due = Due { at, turn: self.turn };
        let (place, key) = (Place::Heap(NONE), Some(key));
        let slot = match self.free.pop() {
            Some(slot) => {
                let old = &mut self.slots[slot as usize];
                *old = Slot { generation: old.generation, place, due, key };
                slot
            }
            None => {
                let slot = self.slots.push(Slot { generation: 0, place, due, key });
                u32::try_from(slot).expect("far fewer than 2^32 timers fit in memory")
            }
        };
        match self.queue_for(at) {
            Some(number) => self.follow(number, slot, at),
            None => {
                let place = self.heap.len();
                self.heap.push(Node { due, slot });
                self.rise(place);
            }
        }
        if self.first.is_none_or(|(first, _)| due.before(&first)) {
            self.first = Some((due, slot));
        }
        Handle { slot, generation: self.slots[slot as usize].generation }
    }

    /// Takes a timer back; its key, unless it has fired or was cancelled before.
    pub fn cancel(&mut self, handle: Handle) -> Option<K> {
        let slot = self.slots.get(handle.slot as usize).filter(|slot| slot.generation == handle.generation)?;
        slot.key.as_ref()?;
        Some(self.take(handle.slot))
    }

    /// When the first timer fires.
    pub fn next(&self) -> Option<Instant> {
        self.first.map(|(due, _)| due.at)
    }

    /// The key of the first timer whose moment has come; called again until it gives none.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        let (due, slot) = self.first?;
        (due.at <= now).then(|| self.take(slot))
    }

    /// The first timer and its slot, of those that begin a queue and the heap.
    fn foremost(&self) -> Option<(Due, u32)> {
        let of_queues = self.queues.iter().filter(|queue| queue.first != NONE);
        let of_queues = of_queues.map(|queue| (self.slots[queue.first as usize].due, queue.first));
        let of_heap = self.heap.first().map(|node| (node.due, node.slot));
        of_queues.chain(of_heap).reduce(|one, other| if other.0.before(&one.0) { other } else { one })
    }

    fn take(&mut self, slot: u32) -> K {
        match self.slots[slot as usize].place {
            Place::Queue { number, before, after } => self.part(usize::from(number), before, after),
            Place::Heap(place) => self.pull(place as usize),
        }
        if self.first.is_some_and(|(_, first)| first == slot) {
            self.first = self.foremost();
        }
        let taken = &mut self.slots[slot as usize];
        taken.generation = taken.generation.wrapping_add(1);
        self.free.push(slot);
        taken.key.take().expect("a timer that stands somewhere has its key in its slot")
    }

    /// The queue that ends last of those a timer may follow in: one that is empty is the last choice.
    fn queue_for(&self, at: Instant) -> Option<usize> {
        let mut best: Option<(usize, Instant)> = None;
        for (number, queue) in self.queues.iter().enumerate() {
            if queue.until <= at && best.is_none_or(|(_, until)| until < queue.until) {
                best = Some((number, queue.until));
            }
        }
        best.map(|(number, _)| number)
    }

    /// Puts a slot at the end of a queue.
    fn follow(&mut self, number: usize, slot: u32, at: Instant) {
        let Queue { first, last, .. } = self.queues[number];
        self.slots[slot as usize].place = Place::Queue { number: number as u8, before: last, after: NONE };
        if let Some(Place::Queue { after, .. }) = self.place_of(last) {
            *after = slot;
        }
        self.queues[number] = Queue { first: if first == NONE { slot } else { first }, last: slot, until: at };
    }

    /// Joins what stood before a slot of a queue with what stood after it.
    fn part(&mut self, number: usize, before: u32, after: u32) {
        match self.place_of(before) {
            Some(Place::Queue { after: next, .. }) => *next = after,
            _ => self.queues[number].first = after,
        }
        match self.place_of(after) {
            Some(Place::Queue { before: previous, .. }) => *previous = before,
            _ => {
                let until = self.slots.get(before as usize).map_or(Instant::default(), |slot| slot.due.at);
                (self.queues[number].last, self.queues[number].until) = (before, until);
            }
        }
    }

    fn place_of(&mut self, slot: u32) -> Option<&mut Place> {
        self.slots.get_mut(slot as usize).map(|slot| &mut slot.place)
    }

    /// Takes a node out of the heap.
    fn pull(&mut self, place: usize) {
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.settle(place);
            self.rise(place);
            self.sink(place);
        }
    }

    fn before(&self, one: usize, other: usize) -> bool {
        self.heap[one].due.before(&self.heap[other].due)
    }

    fn settle(&mut self, place: usize) {
        self.slots[self.heap[place].slot as usize].place = Place::Heap(place as u32);
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
        assert_eq!((timers.len(), timers.slots.len(), timers.heap.capacity()), (0, 1, 0));
    }

    #[test]
    fn chance_agrees_with_an_ordered_map() {
        let mut prng = Prng::seeded(7);
        let mut timers = Timers::new();
        let mut model: BTreeMap<(Instant, u64), Handle> = BTreeMap::new();
        let (mut now, mut queued, mut heaped) = (0, false, false);
        for turn in 0..50_000u64 {
            match prng.below(4) {
                0 | 1 => {
                    // Of a few spans, and of any: into the queues, and into the heap.
                    let spans = [1, 5, 50, 500, prng.below(500)];
                    let when = at(now + spans[prng.below(5) as usize]);
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
            let in_heap = timers.heap.len();
            (queued, heaped) = (queued || timers.len() > in_heap, heaped || in_heap > 0);
            assert_eq!(timers.len(), model.len());
            assert_eq!(timers.next(), model.first_key_value().map(|((when, _), _)| *when));
        }
        assert!(queued && heaped, "both were tried");
    }
}
