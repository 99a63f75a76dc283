//! Questions on their way to the services thread, and what it calls with the answers.

use super::message_store::Counts;
use crate::config::Config;
use crate::io::handover::Side;
use crate::io::handover::link::Link;
use crate::io::handover::questions::{StoreAnswer, StoreQuery};
use crate::limits::SERVICES_QUESTIONS_MAX;
use crate::shard::exchange::{Fetched, Query, Ticket};
use crate::store::deferred::DeferredId;
use crossbeam::queue::{ArrayQueue, SegQueue};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
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
    /// Give the stores up, and tell what the next process must know of them.
    LetGo(mpsc::Sender<Result<LetGone, String>>),
    /// Another process has the stores: they are asked there.
    TakenOver(Arc<Link>),
    /// It did not come, or is gone: open them again.
    TakeBack,
    /// A question of another process, and the answer of one.
    Asked(Arc<Link>, u64, Box<StoreQuery>),
    Answered(u64, StoreAnswer),
    /// The process on that side is gone.
    Parted(Side),
}

/// What the next process must know of the stores.
#[derive(Debug)]
pub struct LetGone {
    pub claimed: Vec<DeferredId>,
    pub delivered: Vec<DeferredId>,
    /// The spool directory's lock, which both hold from here on.
    pub spool: OwnedFd,
}

/// The bounded queue before the services thread. Any thread may put something in, without a lock and without waiting.
#[derive(Debug)]
pub struct Inbox {
    items: ArrayQueue<Item>,
    orders: SegQueue<Item>,
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
            orders: SegQueue::new(),
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

    /// Another process is to have the stores.
    pub fn let_go(&self, reply: mpsc::Sender<Result<LetGone, String>>) {
        self.order(Item::LetGo(reply));
    }

    /// It has them.
    pub fn taken_over(&self, link: Arc<Link>) {
        self.order(Item::TakenOver(link));
    }

    /// It did not come, or is gone.
    pub fn take_back(&self) {
        self.order(Item::TakeBack);
    }

    pub(crate) fn parted(&self, side: Side) {
        self.order(Item::Parted(side));
    }

    pub(crate) fn answered(&self, number: u64, answer: StoreAnswer) {
        self.order(Item::Answered(number, answer));
    }

    /// A question of another process's.
    ///
    /// # Errors
    /// The question, where the queue is full.
    pub(crate) fn ask_for(&self, link: Arc<Link>, number: u64, query: StoreQuery) -> Result<(), Box<StoreQuery>> {
        match self.items.push(Item::Asked(link, number, Box::new(query))) {
            Err(Item::Asked(_, _, query)) => Err(query),
            _ => {
                self.wake.notify_one();
                Ok(())
            }
        }
    }

    /// What must not be lost goes past the questions: there is never much of it.
    fn order(&self, item: Item) {
        self.orders.push(item);
        self.wake.notify_one();
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
            if let Some(item) = self.orders.pop().or_else(|| self.items.pop()) {
                return Some(item);
            }
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            self.wake.notified().await;
        }
    }
}
