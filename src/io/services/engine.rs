//! The services thread itself: takes questions, answers each with a task of its own, bounded in number.

use super::inbox::{Answers, Inbox, Item, Question};
use super::resolve::{Resolve, Target};
use super::xcap::Xcap;
use crate::base::prng::Prng;
use crate::config::Config;
use crate::io::clock::Clock;
use crate::limits::SERVICES_TASKS_MAX;
use crate::shard::exchange::{Fetched, Query, StoreFailure};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The stores, opened, and the configuration of the rest.
#[derive(Debug)]
pub struct Services {
    config: RefCell<Arc<Config>>,
    clock: Clock,
    xcap: Xcap,
    resolve: Resolve,
}

impl Services {
    /// Opens the stores: creates their directories where they are missing, and repairs what a crash left.
    ///
    /// # Errors
    /// What the operator has to read where a store cannot be opened: with the path or address in the text.
    pub fn open(config: Arc<Config>, clock: Clock) -> io::Result<Self> {
        let mut entropy = [0; 32];
        getrandom::fill(&mut entropy).map_err(io::Error::other)?;
        let resolve = Resolve::new(Prng::from_entropy(entropy));
        Ok(Self { config: RefCell::new(config), clock, xcap: Xcap::default(), resolve })
    }

    /// Serves on the calling thread until the inbox is closed and every question is answered.
    ///
    /// # Errors
    /// Where the kernel gives no ring.
    pub fn run(self, inbox: Arc<Inbox>, answers: impl Answers + 'static) -> io::Result<()> {
        let mut ring = tokio_uring::uring_builder();
        // Never DEFER_TASKRUN: its completions come only out of a wait that this runtime does not do.
        ring.setup_cqsize(4096).setup_coop_taskrun().setup_taskrun_flag().setup_single_issuer();
        let mut builder = tokio_uring::builder();
        builder.entries(1024).uring_builder(&ring);
        let runtime = tokio_uring::Runtime::new(&builder)?;
        runtime.block_on(serve(Rc::new(self), inbox, Rc::new(answers)));
        Ok(())
    }
}

async fn serve(services: Rc<Services>, inbox: Arc<Inbox>, answers: Rc<impl Answers + 'static>) {
    inbox.count_deferred(0);
    let places = Arc::new(Semaphore::new(SERVICES_TASKS_MAX));
    while let Some(item) = inbox.next().await {
        let Question { core, ticket, query } = match item {
            Item::Question(question) => *question,
            Item::Reload(config) => {
                services.config.replace(config);
                continue;
            }
        };
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (services, answers) = (services.clone(), answers.clone());
        tokio_uring::spawn(async move {
            answers.answer(core, ticket, answer(&services, query).await);
            drop(place);
        });
    }
    // Whoever still has a place is waited for.
    let all = u32::try_from(SERVICES_TASKS_MAX).expect("a few thousand");
    let _ = places.acquire_many(all).await;
}

/// Answers one question.
pub async fn answer(services: &Services, query: Query) -> Fetched {
    let config = services.config.borrow().clone();
    let _ = &services.clock;
    match query {
        Query::Document { auid, xui, document, etag } => {
            Fetched::Document(services.xcap.document(&config, auid, &xui, &document, etag.as_deref()).await)
        }
        Query::External { uri } => Fetched::Document(services.xcap.external(&config, &uri).await),
        Query::Resolve { host, port, transport, sips } => {
            Fetched::Resolved(services.resolve.resolve(Target { host: &host, port, transport, sips }).await)
        }
        Query::Defer(_) | Query::Remove { .. } | Query::Return { .. } => Fetched::Kept(Err(StoreFailure::Unavailable)),
        Query::Waiting { .. } => Fetched::Waiting(Vec::new()),
        Query::Claim { .. } => Fetched::Claimed(None),
        Query::Record(_) => Fetched::Recorded(Err(StoreFailure::Unavailable)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::exchange::Ticket;

    struct Taken(Rc<RefCell<Vec<(u8, Ticket)>>>);

    impl Answers for Taken {
        fn answer(&self, core: u8, ticket: Ticket, _: Fetched) {
            self.0.borrow_mut().push((core, ticket));
        }
    }

    #[test]
    fn every_question_is_answered_before_the_thread_ends() {
        let inbox = Inbox::new();
        for number in 0..10 {
            let query = Query::Waiting { user: "sip:bob@example.net".into() };
            inbox.ask(Question { core: 3, ticket: Ticket(number), query }).unwrap();
        }
        inbox.close();
        let taken = Rc::new(RefCell::new(Vec::new()));
        let services = Services::open(Arc::new(Config::default()), Clock::start()).unwrap();
        services.run(inbox, Taken(taken.clone())).unwrap();
        assert_eq!(taken.borrow().len(), 10);
        assert!(taken.borrow().iter().all(|(core, _)| *core == 3));
    }
}
