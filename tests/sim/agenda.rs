//! What happens when: moments in order, and in order of their making within a moment.

use cpm_pf::base::clock::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

struct Entry<T>(Reverse<(Instant, u64)>, T);

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Entry<T> {}
impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// Happenings still to come.
pub struct Agenda<T> {
    heap: BinaryHeap<Entry<T>>,
    sequence: u64,
}

impl<T> Agenda<T> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0 }
    }

    pub fn add(&mut self, at: Instant, happening: T) {
        self.sequence += 1;
        self.heap.push(Entry(Reverse((at, self.sequence)), happening));
    }

    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Entry(Reverse((at, _)), _)| *at)
    }

    pub fn pop(&mut self) -> Option<(Instant, T)> {
        self.heap.pop().map(|Entry(Reverse((at, _)), happening)| (at, happening))
    }
}
