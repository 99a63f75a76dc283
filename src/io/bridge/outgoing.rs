//! A lane's sending end that loses nothing: with its receiver's bell, and what did not fit while the lane was full.

use super::lane::Sender;
use super::wake::Wake;
use std::collections::VecDeque;
use std::sync::Arc;

/// Sends in order. What is pushed goes out, and the bell is rung, with [`Outgoing::flush`], once a turn.
pub struct Outgoing<T> {
    lane: Sender<T>,
    wake: Arc<Wake>,
    held: VecDeque<T>,
    pushed: bool,
}

impl<T> Outgoing<T> {
    pub const fn new(lane: Sender<T>, wake: Arc<Wake>) -> Self {
        Self { lane, wake, held: VecDeque::new(), pushed: false }
    }

    /// Queues an item: into the lane, or behind those that are held while it is full. The caller bounds what is held: it
    /// looks at [`Outgoing::held`] and takes no new work above its limit.
    pub fn push(&mut self, item: T) {
        if self.held.is_empty() {
            match self.lane.push(item) {
                Ok(()) => self.pushed = true,
                Err(item) => self.held.push_back(item),
            }
        } else {
            self.held.push_back(item);
        }
    }

    /// Puts an item in only if it goes at once and nothing waits before it.
    ///
    /// # Errors
    /// The item: the lane is full.
    pub fn offer(&mut self, item: T) -> Result<(), T> {
        if !self.held.is_empty() {
            return Err(item);
        }
        self.lane.push(item).inspect(|()| self.pushed = true)
    }

    /// Moves what is held into the lane as far as it fits, and wakes the receiver when anything was pushed.
    pub fn flush(&mut self) {
        while let Some(item) = self.held.pop_front() {
            match self.lane.push(item) {
                Ok(()) => self.pushed = true,
                Err(item) => {
                    self.held.push_front(item);
                    break;
                }
            }
        }
        if std::mem::take(&mut self.pushed) || !self.held.is_empty() {
            self.wake.ring();
        }
    }

    /// Items that did not fit.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Items in the lane, as of now.
    pub fn depth(&self) -> usize {
        self.lane.depth()
    }
}

#[cfg(test)]
mod tests {
    use super::super::lane::lane;
    use super::*;

    #[test]
    fn what_does_not_fit_is_held_and_follows_in_order() {
        let (sender, mut receiver) = lane(2);
        let mut outgoing = Outgoing::new(sender, Wake::new().expect("an eventfd is to be had"));
        (0..5).for_each(|item| outgoing.push(item));
        assert_eq!((outgoing.held(), outgoing.offer(9)), (3, Err(9)));
        let mut all = Vec::new();
        while outgoing.held() > 0 || outgoing.depth() > 0 {
            receiver.drain(2, |item| all.push(item));
            outgoing.flush();
        }
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert_eq!((outgoing.offer(9), receiver.pop()), (Ok(()), Some(9)));
    }
}
