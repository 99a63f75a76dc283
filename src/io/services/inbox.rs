//! Questions on their way to the services thread, and what it calls with the answers.

use super::message_store::Counts;
use crate::config::Config;
use crate::limits::SERVICES_QUESTIONS_MAX;
use crate::shard::exchange::{Fetched, Query, Ticket};
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// A question of a signalling core.
#[derive(Debug)]
pub struct Question {
    pub core: u8,
    pub ticket: Ticket,
    pub query: Query,
}

/// Takes the answers to the cores. Called on the services thread; must not block.
pub trait Answers {
    /// The answer to the question that was asked under this ticket; once for each. [`Fetched::Expired`] comes unasked,
    /// for core 0 under [`Ticket::UNASKED`].
    fn answer(&self, core: u8, ticket: Ticket, answer: Fetched);
}

/// What lies in the queue.
#[derive(Debug)]
pub(super) enum Item {
    Question(Box<Question>),
    Reload(Arc<Config>),
}

/// The bounded queue before the services thread. Any thread may put something in, without a lock and without waiting.
#[derive(Debug)]
pub struct Inbox {
    items: ArrayQueue<Item>,
    wake: Notify,
    closed: AtomicBool,
    deferred: AtomicU64,
    /// Objects that wait for the history: it is away, it refused them; given up.
    history: [AtomicU64; 3],
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            items: ArrayQueue::new(SERVICES_QUESTIONS_MAX),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            deferred: AtomicU64::new(0),
            history: Default::default(),
        })
    }

    /// Puts a question in and wakes the services thread.
    ///
    /// # Errors
    /// The question, where the queue is full: its asker has to go on without an answer.
    pub fn ask(&self, question: Question) -> Result<(), Box<Question>> {
        let item = Item::Question(Box::new(question));
        match self.items.push(item) {
            Err(Item::Question(question)) => Err(question),
            _ => {
                self.wake.notify_one();
                Ok(())
            }
        }
    }

    /// A new configuration: `[xdm]` counts from the next question on; the stores stay as they were opened.
    pub fn reload(&self, config: Arc<Config>) {
        if self.items.push(Item::Reload(config)).is_ok() {
            self.wake.notify_one();
        }
    }

    /// The services thread finishes what it has begun and returns.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Messages in the deferred store, as last counted (the metric `cpm_pf_deferred_messages`).
    pub fn deferred_messages(&self) -> u64 {
        self.deferred.load(Ordering::Relaxed)
    }

    pub(crate) fn count_deferred(&self, count: u64) {
        self.deferred.store(count, Ordering::Relaxed);
    }

    /// Objects that wait for the history or were given up, as last counted.
    pub fn history(&self) -> Counts {
        let [away, refused, given_up] = self.history.each_ref().map(|count| count.load(Ordering::Relaxed));
        Counts { away, refused, given_up }
    }

    pub(super) fn count_history(&self, counts: Counts) {
        for (place, count) in self.history.iter().zip([counts.away, counts.refused, counts.given_up]) {
            place.store(count, Ordering::Relaxed);
        }
    }

    /// The next item; None: closed, and nothing is left.
    pub(super) async fn next(&self) -> Option<Item> {
        loop {
            if let Some(item) = self.items.pop() {
                return Some(item);
            }
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            self.wake.notified().await;
        }
    }
}
