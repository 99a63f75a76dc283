//! A lane: a bounded queue from one thread to one other, without locks.
//!
//! ```text
//!   Sender --push--> [ slots, a power of two ] --pop--> Receiver
//!           tail: written by the sender alone    head: written by the receiver alone
//! ```
//! Each side keeps its last look at the other's index and looks again only when the lane seems full or empty, so that in the
//! usual case one item costs one store to a line of one's own. Indices run on and are masked at use.

use super::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};
use crossbeam::utils::CachePadded;
use std::mem::MaybeUninit;

struct Shared<T> {
    /// Items taken so far.
    head: CachePadded<AtomicUsize>,
    /// Items put so far.
    tail: CachePadded<AtomicUsize>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by the sender while its index is in [tail, head + capacity) and by the receiver while it is in
// [head, tail); the release stores of the indices hand it over, so no two threads touch one slot at a time.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the items move from thread to thread, which `T: Send` allows.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: both sides are gone, and slots in [head, tail) hold items nobody took.
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The end that puts in.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The end that takes out.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

/// A lane for at least `entries` items (rounded up to a power of two).
pub fn lane<T>(entries: usize) -> (Sender<T>, Receiver<T>) {
    let slots = (0..entries.max(1).next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared =
        Arc::new(Shared { head: CachePadded::new(AtomicUsize::new(0)), tail: CachePadded::new(AtomicUsize::new(0)), slots });
    (Sender { shared: shared.clone(), tail: 0, head_seen: 0 }, Receiver { shared, head: 0, tail_seen: 0 })
}

impl<T> Sender<T> {
    /// Puts an item in; gives it back when the lane is full. The receiver's [`Wake`](super::wake::Wake) is rung by the
    /// caller, once for all items of a turn.
    ///
    /// # Errors
    /// The item itself: the lane is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.room() == 0 {
            return Err(item);
        }
        // SAFETY: the slot at `tail` is free (room() > 0) and only this sender, borrowed mutably, writes there.
        self.shared.slot(self.tail).with_mut(|slot| unsafe { (*slot).write(item) });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// How many items can be put in for certain.
    pub fn room(&mut self) -> usize {
        let capacity = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == capacity {
            self.head_seen = self.shared.head.load(Ordering::Acquire);
        }
        capacity - self.tail.wrapping_sub(self.head_seen)
    }

    /// Items that wait, as of now.
    pub fn depth(&self) -> usize {
        self.tail.wrapping_sub(self.shared.head.load(Ordering::Relaxed))
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let item = self.take();
        self.shared.head.store(self.head, Ordering::Release);
        Some(item)
    }

    /// Takes at most `max` items, oldest first, and frees their places at once when all were handled. Returns how many.
    pub fn drain(&mut self, max: usize, mut each: impl FnMut(T)) -> usize {
        let mut taken = 0;
        while taken < max && !self.is_empty() {
            let item = self.take();
            taken += 1;
            each(item);
        }
        if taken > 0 {
            self.shared.head.store(self.head, Ordering::Release);
        }
        taken
    }

    /// Whether nothing waits.
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        }
        self.head == self.tail_seen
    }

    /// Items that wait, as of now.
    pub fn depth(&self) -> usize {
        self.shared.tail.load(Ordering::Relaxed).wrapping_sub(self.head)
    }

    fn take(&mut self) -> T {
        // SAFETY: the caller saw head != tail with an acquire load, so the slot holds an item; `head` moves past it, so that
        // it is read once. The sender gets the place back with the release store of `head` alone.
        let item = self.shared.slot(self.head).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        item
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // A closure of `drain` that panicked leaves items read but not released.
        self.shared.head.store(self.head, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_full_lane_gives_the_item_back_and_takes_more_once_one_is_out() {
        let (mut sender, mut receiver) = lane(3);
        for item in 0..4 {
            assert_eq!(sender.push(item), Ok(()));
        }
        assert_eq!((sender.push(4), sender.room(), sender.depth()), (Err(4), 0, 4));
        assert_eq!(receiver.pop(), Some(0));
        assert_eq!(sender.push(4), Ok(()));
        let mut rest = Vec::new();
        assert_eq!((receiver.drain(2, |item| rest.push(item)), receiver.depth()), (2, 2));
        assert_eq!((receiver.drain(9, |item| rest.push(item)), rest, receiver.pop()), (2, vec![1, 2, 3, 4], None));
    }

    #[test]
    fn items_nobody_took_are_dropped_with_the_lane() {
        let item = std::sync::Arc::new(());
        let (mut sender, mut receiver) = lane(8);
        for _ in 0..5 {
            sender.push(item.clone()).expect("the lane holds eight");
        }
        drop(receiver.pop());
        drop((sender, receiver));
        assert_eq!(std::sync::Arc::strong_count(&item), 1);
    }

    #[test]
    fn a_million_items_cross_threads_in_order() {
        let (mut sender, mut receiver) = lane(64);
        let producer = std::thread::spawn(move || {
            for mut item in 0..1_000_000u64 {
                while let Err(back) = sender.push(item) {
                    item = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < 1_000_000 {
            if receiver.drain(32, |item| next = if item == next { item + 1 } else { u64::MAX }) == 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(next, 1_000_000);
        producer.join().expect("the producer does not panic");
    }
}
