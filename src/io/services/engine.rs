//! The services thread itself: takes questions, answers each with a task of its own, bounded in number.

use super::inbox::{Answers, Inbox, Item, LetGone, Question};
use super::keeper::{Claimant, Keeper, Opened};
use super::resolve::{Resolve, Target};
use super::spool::Spool;
use super::xcap::Xcap;
use crate::base::prng::Prng;
use crate::config::Config;
use crate::io::clock::Clock;
use crate::io::handover::link::Link;
use crate::io::handover::questions::{StoreQuery, Unsaid};
use crate::limits::SERVICES_TASKS_MAX;
use crate::shard::exchange::{Fetched, Query, Ticket};
use crate::store::deferred::DeferredId;
use futures_util::FutureExt;
use std::cell::RefCell;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The services before they run, their stores opened.
#[derive(Debug)]
pub struct Services {
    config: Arc<Config>,
    stores: Opened,
}

/// The services: documents, names and, through [`Keeper`], the stores.
struct Serving {
    config: RefCell<Arc<Config>>,
    xcap: Xcap,
    resolve: Resolve,
    keeper: Keeper,
}

impl Services {
    /// Opens the stores: creates their directories where they are missing.
    ///
    /// # Errors
    /// What the operator has to read where a store cannot be opened: with the path or address in the text.
    pub fn open(config: Arc<Config>, clock: Clock) -> io::Result<Self> {
        let spool = Spool::open(&config.store.spool).map_err(|error| {
            io::Error::new(error.kind(), format!("store.spool = \"{}\": {error}", config.store.spool.display()))
        })?;
        Self::with(config, clock, spool, Vec::new(), Vec::new())
    }

    /// Opens the stores that another process has given up, which goes on with deliveries of its own (`claimed`).
    ///
    /// # Errors
    /// As [`Services::open`].
    pub fn take_over(config: Arc<Config>, clock: Clock, stores: LetGone) -> io::Result<Self> {
        let spool = Spool::shared(&config.store.spool, stores.spool);
        Self::with(config, clock, spool, stores.claimed, stores.unsaid)
    }

    fn with(
        config: Arc<Config>,
        clock: Clock,
        spool: Spool,
        claimed: Vec<DeferredId>,
        unsaid: Vec<(DeferredId, Unsaid)>,
    ) -> io::Result<Self> {
        let stores = Opened::open(&config, clock, spool, claimed, unsaid)?;
        Ok(Self { config, stores })
    }

    /// Deferred messages kept, as far as known without asking a server.
    pub fn deferred_messages(&self) -> u64 {
        self.stores.deferred_messages()
    }

    /// Serves on the calling thread until the inbox is closed, every question is answered and `beside` is done: what else runs in
    /// this thread (the admin server, the call records).
    ///
    /// # Errors
    /// Where the kernel gives no ring.
    pub fn run(
        self,
        inbox: Arc<Inbox>,
        answers: impl Answers + 'static,
        beside: impl Future<Output = ()> + 'static,
    ) -> io::Result<()> {
        let mut ring = tokio_uring::uring_builder();
        // Never DEFER_TASKRUN: its completions come only out of a wait that this runtime does not do.
        ring.setup_cqsize(4096).setup_coop_taskrun().setup_taskrun_flag().setup_single_issuer();
        let mut builder = tokio_uring::builder();
        builder.entries(1024).uring_builder(&ring);
        let runtime = tokio_uring::Runtime::new(&builder)?;
        let serving = Serving {
            config: RefCell::new(self.config),
            xcap: Xcap::default(),
            resolve: Resolve::new(prng()?),
            keeper: Keeper::new(self.stores),
        };
        runtime.block_on(async {
            let beside = tokio_uring::spawn(beside);
            serve(Rc::new(serving), inbox, Rc::new(answers)).await;
            let _ = beside.await;
        });
        Ok(())
    }
}

async fn serve(services: Rc<Serving>, inbox: Arc<Inbox>, answers: Rc<impl Answers + 'static>) {
    let (told, unasked) = (inbox.clone(), answers.clone());
    services.keeper.begin(move |core, what| unasked.answer(core, Ticket::UNASKED, what), told).await;
    let places = Arc::new(Semaphore::new(SERVICES_TASKS_MAX));
    while let Some(item) = inbox.next().await {
        let work = match item {
            Item::Question(question) => Work::Own(*question),
            Item::Asked(link, number, query) => Work::Theirs(link, number, *query),
            Item::Reload(config) => {
                services.config.replace(config);
                continue;
            }
            order => {
                services.keeper.order(order);
                continue;
            }
        };
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (services, answers, inbox) = (services.clone(), answers.clone(), inbox.clone());
        tokio_uring::spawn(async move {
            work.done(&services, &*answers).await;
            services.keeper.count(&inbox);
            drop(place);
        });
    }
    // Whoever still has a place is waited for.
    let all = u32::try_from(SERVICES_TASKS_MAX).expect("a few thousand");
    let _ = places.acquire_many(all).await;
    services.keeper.end();
}

/// A question, and who asked.
enum Work {
    Own(Question),
    Theirs(Arc<Link>, u64, StoreQuery),
}

impl Work {
    /// A library that panics fails its question, not whoever waits for the answer.
    async fn done(self, services: &Rc<Serving>, answers: &impl Answers) {
        match self {
            Work::Own(Question { core, ticket, query }) => {
                let otherwise = query.unanswered();
                let answered = AssertUnwindSafe(answer(services, core, query)).catch_unwind().await;
                answers.answer(core, ticket, answered.unwrap_or(otherwise));
            }
            Work::Theirs(link, number, query) => {
                let otherwise = query.unanswered();
                let answered = AssertUnwindSafe(services.keeper.answer(Claimant::Former, query)).catch_unwind().await;
                link.answer(number, answered.unwrap_or(otherwise));
            }
        }
    }
}

/// Answers one question.
async fn answer(services: &Serving, core: u8, query: Query) -> Fetched {
    let config = services.config.borrow().clone();
    match query {
        Query::Document { auid, xui, document, etag } => {
            Fetched::Document(services.xcap.document(&config, auid, &xui, &document, etag.as_deref()).await)
        }
        Query::External { uri } => Fetched::Document(services.xcap.external(&config, &uri).await),
        Query::Resolve { host, port, transport, sips } => {
            Fetched::Resolved(services.resolve.resolve(Target { host: &host, port, transport, sips }).await)
        }
        query => match StoreQuery::try_from(query) {
            Ok(query) => services.keeper.answer(Claimant::Core(core), query).await.into(),
            Err(query) => query.unanswered(),
        },
    }
}

pub(super) fn prng() -> io::Result<Prng> {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(io::Error::other)?;
    Ok(Prng::from_entropy(entropy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::handover::Side;
    use crate::store::deferred::{Deferred, DeferredService, Notice};
    use std::cell::Cell;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant};

    const BOB: &str = "sip:bob@example.net";

    type Taken = Rc<RefCell<Vec<(u8, Ticket, Fetched)>>>;

    /// Takes answers, and closes the inbox when one came unasked.
    struct Taker(Taken, Arc<Inbox>);

    impl Answers for Taker {
        fn answer(&self, core: u8, ticket: Ticket, answer: Fetched) {
            self.0.borrow_mut().push((core, ticket, answer));
            if ticket == Ticket::UNASKED {
                self.1.close();
            }
        }
    }

    fn config(directory: &Path) -> Arc<Config> {
        let mut config = Config::default();
        config.store.deferred = format!("file:{}/deferred", directory.display());
        config.store.history = format!("file:{}/history", directory.display());
        config.store.spool = directory.join("spool");
        Arc::new(config)
    }

    fn services(directory: &Path) -> Services {
        Services::open(config(directory), Clock::start()).unwrap()
    }

    #[test]
    fn every_question_is_answered_before_the_thread_ends() {
        let directory = tempfile::tempdir().unwrap();
        let inbox = Inbox::new();
        for number in 0..10 {
            let query = Query::Waiting { user: "sip:bob@example.net".into() };
            inbox.ask(Question { core: 3, ticket: Ticket(number), query }).unwrap();
        }
        inbox.close();
        let taken = Taken::default();
        services(directory.path()).run(inbox.clone(), Taker(taken.clone(), inbox), async {}).unwrap();
        assert_eq!(taken.borrow().len(), 10);
        assert!(taken.borrow().iter().all(|(core, ..)| *core == 3));
    }

    fn message(id: &str, expires_s: u64) -> Deferred {
        Deferred {
            id: DeferredId(id.into()),
            user: BOB.into(),
            arrived_s: 1,
            expires_s,
            service: DeferredService::Pager,
            headers: Vec::new(),
            from: String::new(),
            to: String::new(),
            content_type: "message/cpim".into(),
            message_id: "m".into(),
            octets: 0,
            file: PathBuf::new(),
            inline: Some((*b"x").into()),
            parts: Vec::new(),
            negative_delivery: Some(Notice {
                about: "m".into(),
                sent: None,
                originator: "a".into(),
                recipient: "b".into(),
                original_recipient: "b".into(),
            }),
            attempts: 0,
        }
    }

    /// Asks what waits until it is this one, and closes the inbox then.
    struct Asking(Cell<u64>, Arc<Inbox>, &'static str);

    impl Asking {
        fn ask(&self) {
            self.0.set(self.0.get() + 1);
            let query = Query::Waiting { user: BOB.into() };
            self.1.ask(Question { core: 0, ticket: Ticket(self.0.get()), query }).unwrap();
        }
    }

    impl Answers for Asking {
        fn answer(&self, _: u8, _: Ticket, answer: Fetched) {
            let Fetched::Waiting(waiting) = answer else { panic!("{answer:?}") };
            match &*waiting {
                [] => self.ask(),
                [one] if one.id.0 == self.2 => self.1.close(),
                others => panic!("{others:?}"),
            }
        }
    }

    #[test]
    fn what_another_process_delivered_is_removed_and_what_it_delivers_is_free_when_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let inbox = Inbox::new();
        let expires_s = Clock::start().now().unix_s() + 1000;
        for (number, id) in ["aa", "bb"].into_iter().enumerate() {
            let query = Query::Defer(Box::new(message(id, expires_s)));
            inbox.ask(Question { core: 0, ticket: Ticket(number as u64), query }).unwrap();
        }
        inbox.close();
        services(directory.path()).run(inbox.clone(), Taker(Taken::default(), inbox.clone()), async {}).unwrap();
        assert_eq!(inbox.deferred_messages(), 2);
        let take_over = || {
            let spool = std::fs::File::open(directory.path()).unwrap().into();
            let (claimed, unsaid) = (vec![DeferredId("bb".into())], vec![(DeferredId("aa".into()), Unsaid::Delivered)]);
            Services::take_over(config(directory.path()), Clock::start(), LetGone { claimed, unsaid, spool }).unwrap()
        };
        // While it runs nobody else may have them.
        let inbox = Inbox::new();
        inbox.ask(Question { core: 0, ticket: Ticket(1), query: Query::Waiting { user: BOB.into() } }).unwrap();
        inbox.close();
        let taken = Taken::default();
        take_over().run(inbox.clone(), Taker(taken.clone(), inbox), async {}).unwrap();
        assert!(matches!(&taken.borrow()[0].2, Fetched::Waiting(waiting) if waiting.is_empty()), "{taken:?}");
        let inbox = Inbox::new();
        inbox.parted(Side::Before);
        let asking = Asking(Cell::new(0), inbox.clone(), "bb");
        asking.ask();
        take_over().run(inbox, asking, async {}).unwrap();
    }

    #[test]
    fn an_expired_message_is_told_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let inbox = Inbox::new();
        let message = message("aa", Clock::start().now().unix_s() - 10);
        let query = Query::Defer(Box::new(message));
        inbox.ask(Question { core: 0, ticket: Ticket(1), query }).unwrap();
        let taken = Taken::default();
        let begun = Instant::now();
        services(directory.path()).run(inbox.clone(), Taker(taken.clone(), inbox.clone()), async {}).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30));
        let taken = taken.borrow();
        assert!(matches!(taken[0], (0, Ticket(1), Fetched::Kept(Ok(())))));
        let (0, Ticket::UNASKED, Fetched::Expired(message)) = &taken[1] else { panic!("{:?}", taken[1]) };
        assert_eq!(message.id.0, "aa");
        // It is kept until its sender was told: a process that ends before that tells again.
        assert_eq!(inbox.deferred_messages(), 1);
        let again = Inbox::new();
        services(directory.path()).run(again.clone(), Taker(Taken::default(), again), async {}).unwrap();
        let last = Inbox::new();
        last.ask(Question { core: 0, ticket: Ticket(2), query: Query::Remove { id: DeferredId("aa".into()) } }).unwrap();
        last.close();
        services(directory.path()).run(last.clone(), Taker(Taken::default(), last.clone()), async {}).unwrap();
        assert_eq!(last.deferred_messages(), 0);
    }

    #[test]
    fn a_store_that_cannot_be_opened_names_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        let config = Config {
            store: crate::config::Store { deferred: "file:/dev/null/x".into(), spool, ..Config::default().store },
            ..Config::default()
        };
        let error = Services::open(Arc::new(config), Clock::start()).unwrap_err();
        assert!(error.to_string().starts_with("store.deferred = \"file:/dev/null/x\": "), "{error}");
    }
}
