//! Questions on their way to the services thread, and what it calls with the answers.

use super::message_store::Counts;
use crate::config::Config;
use crate::io::handover::Side;
use crate::io::handover::link::Link;
use crate::io::handover::questions::{StoreAnswer, StoreQuery, Unsaid};
use crate::limits::SERVICES_QUESTIONS_MAX;
use crate::shard::exchange::{Fetched, Query, Ticket};
use crate::store::deferred::DeferredId;
use crossbeam::queue::{ArrayQueue, SegQueue};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long the queue may be full before it is looked at again.
const FULL: Duration = Duration::from_millis(1);

/// A question of a signalling core.
#[derive(Debug)]
pub struct Question {
    pub core: u8,
    pub ticket: Ticket,
    pub query: Query,
}

/// Takes the answers to the cores. Called on the services thread; must not block.
pub trait Answers {
    /// The answer to the question that was asked under this ticket; once for each. Under [`Ticket::UNASKED`] comes unasked
    /// [`Fetched::Expired`], for core 0, and [`Fetched::Lapsed`].
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
    /// What the store has still to be told.
    pub unsaid: Vec<(DeferredId, Unsaid)>,
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

    /// The process on that side is gone. Called by the thread that read from it, and may wait: what that process delivered is not to
    /// be given back before its last questions say so.
    pub(crate) fn parted(&self, side: Side) {
        if side == Side::After {
            return self.order(Item::Parted(side));
        }
        while self.items.push(Item::Parted(side)).is_err() {
            if self.closed.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(FULL);
        }
        self.wake.notify_one();
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

/// One core's end of the inbox. What must not be lost waits here while there is no room; the core's own memory is its bound.
#[derive(Debug)]
pub struct Asker {
    inbox: Arc<Inbox>,
    /// In order; they go before any later one of their kind.
    unasked: VecDeque<Question>,
}

impl Asker {
    /// The end of one core.
    pub const fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox, unasked: VecDeque::new() }
    }

    /// Asks. What nobody would ask again waits until there is room: [`Asker::ask_again`].
    ///
    /// # Errors
    /// The question, where the queue is full: its asker has to go on without an answer.
    pub fn ask(&mut self, question: Question) -> Result<(), Box<Question>> {
        if !must_be_asked(&question.query) {
            return self.inbox.ask(question);
        }
        if self.unasked.len() >= SERVICES_QUESTIONS_MAX {
            return Err(Box::new(question));
        }
        self.unasked.push_back(question);
        self.ask_again();
        Ok(())
    }

    /// Asks what found no room.
    pub fn ask_again(&mut self) {
        while let Some(question) = self.unasked.pop_front() {
            if let Err(question) = self.inbox.ask(question) {
                self.unasked.push_front(*question);
                return;
            }
        }
    }

    /// Whether nothing waits for room.
    pub fn is_clear(&self) -> bool {
        self.unasked.is_empty()
    }
}

/// Whether something would be lost with a question that is not asked: a delivered message would come again, a claim be held, a copy
/// be in no history. Of the others their asker makes the best, or asks again.
const fn must_be_asked(query: &Query) -> bool {
    matches!(query, Query::Remove { .. } | Query::Return { .. } | Query::Copy(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::deferred::DeferredId;

    #[test]
    fn a_full_queue_loses_nothing_that_nobody_would_ask_again() {
        let question = |number: u64, query: Query| Question { core: 0, ticket: Ticket(number), query };
        let waiting = || Query::Waiting { user: "sip:bob@example.net".into() };
        let remove = || Query::Remove { id: DeferredId("a".into()) };
        let inbox = Inbox::new();
        let mut asker = Asker::new(inbox.clone());
        for number in 0..SERVICES_QUESTIONS_MAX as u64 {
            asker.ask(question(number, waiting())).unwrap();
        }
        // Who looks for messages is told no, and looks again later; what was delivered is removed when there is room.
        assert!(asker.ask(question(100_001, waiting())).is_err());
        for number in 0..SERVICES_QUESTIONS_MAX as u64 {
            asker.ask(question(200_000 + number, remove())).unwrap();
        }
        assert!(!asker.is_clear());
        assert!(asker.ask(question(300_000, remove())).is_err());
        let mut taken = Vec::new();
        while !asker.is_clear() || !inbox.items.is_empty() {
            let Some(Item::Question(question)) = inbox.items.pop() else { panic!("an empty queue, and questions that wait") };
            taken.push(question.ticket.0);
            asker.ask_again();
        }
        let later: Vec<u64> = taken.split_off(SERVICES_QUESTIONS_MAX);
        assert!(later.iter().copied().eq((0..SERVICES_QUESTIONS_MAX as u64).map(|number| 200_000 + number)));
    }
}
