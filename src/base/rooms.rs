//! Room for queues that are empty most of the time: kept from one that has emptied for the next that fills.
//!
//! Room of its own would lie in no cache by the time its owner has something to queue again; and where there are thousands of
//! owners, their rooms would be most of the memory, touched in turn. (Measured with 9,000 sessions: a sixth of what a message cost
//! was pages cleared for them.)

use std::collections::VecDeque;

/// Rooms that are kept, and the entries of the largest of them.
const ROOMS_MAX: usize = 128;
const ENTRIES_MAX: usize = 256;

/// Rooms that nobody uses now.
#[derive(Debug)]
pub struct Rooms<T>(Vec<VecDeque<T>>);

impl<T> Default for Rooms<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Rooms<T> {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Gives a queue without room one, if there is one.
    pub fn furnish(&mut self, queue: &mut VecDeque<T>) {
        if queue.capacity() == 0
            && let Some(room) = self.0.pop()
        {
            *queue = room;
        }
    }

    /// Takes the room of a queue that is empty. It keeps it where enough are kept, or it is a very large one.
    pub fn clear_out(&mut self, queue: &mut VecDeque<T>) {
        if queue.is_empty() && (1..=ENTRIES_MAX).contains(&queue.capacity()) && self.0.len() < ROOMS_MAX {
            self.0.push(std::mem::take(queue));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_one_queue_is_the_next_ones() {
        let mut rooms = Rooms::new();
        let mut queues = [VecDeque::from([1]), VecDeque::new()];
        rooms.clear_out(&mut queues[0]);
        assert_eq!(queues[0], [1], "what is in use is not taken");
        queues[0].clear();
        let capacity = queues[0].capacity();
        rooms.clear_out(&mut queues[0]);
        rooms.furnish(&mut queues[1]);
        assert_eq!((queues[0].capacity(), queues[1].capacity()), (0, capacity));
        queues[0].reserve_exact(3);
        rooms.clear_out(&mut queues[1]);
        rooms.furnish(&mut queues[0]);
        assert!(queues[0].capacity() >= 3, "who has room is given none");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut rooms = Rooms::new();
        let mut large = VecDeque::<u8>::with_capacity(ENTRIES_MAX + 1);
        rooms.clear_out(&mut large);
        assert!(large.capacity() > ENTRIES_MAX);
        for _ in 0..2 * ROOMS_MAX {
            rooms.clear_out(&mut VecDeque::<u8>::with_capacity(4));
        }
        assert_eq!(rooms.0.len(), ROOMS_MAX);
    }
}
