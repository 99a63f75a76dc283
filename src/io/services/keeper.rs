//! The stores, and whose they are: this process's, or the one's that took over from it, which is then asked for everything.
//!
//! ```text
//! Here ── a new process comes: LetGo ──> Between ── TakenOver ──> There
//!  ^                                      │ TakeBack                │ it is gone
//!  └────────── opened again ──────────────┴─────────────────────────┘
//! ```
//! Questions wait while nobody has the stores. One that was asked there and got no answer is asked again here.

use super::engine::prng;
use super::inbox::{Inbox, Item, LetGone};
use super::message_store::{MessageStore, Refused};
use super::registrants::Registrants;
use super::spool::Spool;
use super::stores::{self, DeferredMessages};
use crate::config::{Config, Store};
use crate::io::clock::Clock;
use crate::io::handover::Side;
use crate::io::handover::link::Link;
use crate::io::handover::questions::{StoreAnswer, StoreQuery, Unsaid};
use crate::io::handover::wire::Frame;
use crate::shard::exchange::{Fetched, StoreFailure};
use crate::store::deferred::{Deferred, DeferredId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// How long questions under way may take before the stores are not given up, and how often that is looked at.
const QUIET_MAX: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);
/// How often, and how many times, opening is tried again: a process that died may hold its locks for a moment.
const AGAIN: Duration = Duration::from_millis(50);
const TRIES: usize = 400;
/// How often claims are looked at that are to be renewed.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// Both stores, opened.
#[derive(Debug)]
pub struct Stores {
    deferred: DeferredMessages,
    history: MessageStore,
    registrants: Registrants,
}

/// The stores before the thread runs that asks them, with what came from the process that had them before.
#[derive(Debug)]
pub struct Opened {
    store: Store,
    cores: u8,
    clock: Clock,
    spool: Spool,
    stores: Stores,
    claimed: Vec<DeferredId>,
    unsaid: Vec<(DeferredId, Unsaid)>,
}

/// Who delivers a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimant {
    /// A core of ours.
    Core(u8),
    /// A process before us. Its claims are renewed until it is gone, and then given back. It is not told of one that cannot be
    /// renewed: that takes servers that are lost just while two processes run, and a record that says who has the message now.
    Former,
}

#[derive(Debug)]
enum Keeping {
    Here(Rc<Stores>),
    Between,
    There(Arc<Link>),
}

/// Asks the stores, wherever they are.
#[derive(Clone, Debug)]
pub struct Keeper(Rc<State>);

struct State {
    store: Store,
    /// Signalling cores of this process.
    cores: u8,
    clock: Clock,
    spool: Spool,
    keeping: RefCell<Keeping>,
    changed: Notify,
    /// Who delivers what. Kept also while another process has the stores: it may die, and they are ours again.
    delivering: RefCell<BTreeMap<DeferredId, Claimant>>,
    /// What the store was away for: it is told again. What was delivered nobody may have again meanwhile.
    unsaid: RefCell<BTreeMap<DeferredId, Unsaid>>,
    /// Asked there and not answered yet.
    asked: RefCell<BTreeMap<u64, oneshot::Sender<StoreAnswer>>>,
    numbers: Cell<u64>,
    /// What runs while the stores are here.
    tasks: RefCell<Vec<JoinHandle<()>>>,
    told: RefCell<Option<Told>>,
}

/// Tells a core what it did not ask for; and where to count.
type Told = (Rc<dyn Fn(u8, Fetched)>, Arc<Inbox>);

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.keeping.borrow().fmt(f)
    }
}

impl Stores {
    fn open(store: &Store, spool: &Spool) -> io::Result<Self> {
        let deferred = DeferredMessages::open(store, spool, &mut prng()?)?;
        let history = stores::history(store, [prng()?, prng()?])?;
        Ok(Self { deferred, history, registrants: Registrants::new(&store.spool) })
    }
}

impl Opened {
    /// Opens the stores. `claimed` and `unsaid` come from the process that had them.
    ///
    /// # Errors
    /// With key and value in the text.
    pub fn open(
        config: &Config,
        clock: Clock,
        spool: Spool,
        claimed: Vec<DeferredId>,
        unsaid: Vec<(DeferredId, Unsaid)>,
    ) -> io::Result<Self> {
        let store = config.store.clone();
        let cores = u8::try_from(config.cores.signaling.len()).unwrap_or(u8::MAX);
        let stores = Stores::open(&store, &spool)?;
        Ok(Self { store, cores, clock, spool, stores, claimed, unsaid })
    }

    /// Deferred messages kept.
    pub fn deferred_messages(&self) -> u64 {
        self.stores.deferred.messages()
    }
}

impl Keeper {
    /// For the thread that asks.
    pub fn new(opened: Opened) -> Self {
        let Opened { store, cores, clock, spool, stores, claimed, unsaid } = opened;
        let delivering = claimed.into_iter().map(|id| (id, Claimant::Former)).collect();
        Self(Rc::new(State {
            store,
            cores,
            clock,
            spool,
            keeping: RefCell::new(Keeping::Here(Rc::new(stores))),
            changed: Notify::new(),
            delivering: RefCell::new(delivering),
            unsaid: RefCell::new(unsaid.into_iter().collect()),
            asked: RefCell::default(),
            numbers: Cell::new(0),
            tasks: RefCell::default(),
            told: RefCell::default(),
        }))
    }

    /// For the metrics.
    pub fn count(&self, inbox: &Inbox) {
        if let Some(stores) = self.here() {
            inbox.count_deferred(stores.deferred.messages());
            inbox.count_history(stores.history.counts());
        }
    }

    /// Begins what goes on by itself: cores are told by `unasked` of expired messages and lapsed claims, and what waits for the
    /// history is sent.
    pub async fn begin(&self, unasked: impl Fn(u8, Fetched) + 'static, inbox: Arc<Inbox>) {
        *self.0.told.borrow_mut() = Some((Rc::new(unasked), inbox));
        if let Some(stores) = self.here() {
            self.live(&stores).await;
        }
    }

    /// Ends that.
    pub fn end(&self) {
        self.0.tasks.borrow_mut().drain(..).for_each(|task| task.abort());
    }

    /// The stores change hands, or the process that has them said something.
    pub fn order(&self, item: Item) {
        match item {
            Item::LetGo(reply) => {
                let keeper = self.clone();
                tokio_uring::spawn(async move { keeper.let_go(&reply).await });
            }
            Item::TakenOver(link) => self.keep(Keeping::There(link)),
            Item::TakeBack => {
                self.0.asked.borrow_mut().clear();
                self.take_back();
            }
            Item::Answered(number, answer) => {
                if let Some(asker) = self.0.asked.borrow_mut().remove(&number) {
                    // Who asked is gone when the process ends.
                    let _ = asker.send(answer);
                }
            }
            // The main thread says what becomes of the stores.
            Item::Parted(Side::After) => self.0.asked.borrow_mut().clear(),
            Item::Parted(Side::Before) => {
                let keeper = self.clone();
                tokio_uring::spawn(async move { keeper.release_former().await });
            }
            Item::Question(_) | Item::Reload(_) | Item::Asked(..) => {}
        }
    }

    /// Answers one question, once it can be.
    pub async fn answer(&self, claimant: Claimant, query: StoreQuery) -> StoreAnswer {
        loop {
            let changed = self.0.changed.notified();
            let stores = match &*self.0.keeping.borrow() {
                Keeping::Here(stores) => Ok(stores.clone()),
                Keeping::There(link) => Err(Some(link.clone())),
                Keeping::Between => Err(None),
            };
            match stores {
                Ok(stores) => return self.ask(&stores, claimant, query).await,
                Err(Some(link)) => match self.ask_there(&link, query.clone()).await {
                    Some(answer) => {
                        self.note(claimant, query, &answer);
                        return answer;
                    }
                    // It is gone; somebody opens the stores again.
                    None => changed.await,
                },
                Err(None) => changed.await,
            }
        }
    }

    async fn ask_there(&self, link: &Link, query: StoreQuery) -> Option<StoreAnswer> {
        let number = self.0.numbers.get() + 1;
        self.0.numbers.set(number);
        let (asker, answer) = oneshot::channel();
        self.0.asked.borrow_mut().insert(number, asker);
        let unanswered = query.unanswered();
        let sent = link.send(Frame::Asked { number, query }, Box::default(), None);
        if link.is_gone() {
            self.0.asked.borrow_mut().remove(&number);
            return None;
        }
        if !sent {
            self.0.asked.borrow_mut().remove(&number);
            return Some(unanswered);
        }
        answer.await.ok()
    }

    /// Remembers what the process that has the stores answered.
    fn note(&self, claimant: Claimant, query: StoreQuery, answer: &StoreAnswer) {
        match (query, answer) {
            (StoreQuery::Claim { id }, StoreAnswer::Claimed(Some(_))) => self.took(id, claimant),
            (StoreQuery::Remove { id }, StoreAnswer::Kept(said)) => self.told(id, Unsaid::Delivered, *said),
            (StoreQuery::Return { id, retry_after_s }, StoreAnswer::Kept(said)) => {
                self.told(id, self.given_back(retry_after_s), *said);
            }
            _ => {}
        }
    }

    async fn ask(&self, stores: &Stores, claimant: Claimant, query: StoreQuery) -> StoreAnswer {
        let now_s = self.now_s();
        match query {
            StoreQuery::Defer(message) => StoreAnswer::Kept(stores.deferred.defer(*Box::<Deferred>::from(message)).await),
            StoreQuery::Waiting { user } => match stores.deferred.waiting(user, now_s).await {
                Ok(mut waiting) => {
                    waiting.retain(|message| !self.is_delivered(&message.id));
                    StoreAnswer::Waiting(waiting.into_iter().map(|message| Box::new(message).into()).collect())
                }
                Err(failure) => StoreAnswer::Kept(Err(failure)),
            },
            StoreQuery::Claim { id } if self.is_delivered(&id) => StoreAnswer::Claimed(None),
            StoreQuery::Claim { id } => {
                let claimed = stores.deferred.claim(id.clone(), now_s).await;
                if claimed.is_some() {
                    self.took(id, claimant);
                }
                StoreAnswer::Claimed(claimed.map(Into::into))
            }
            StoreQuery::Remove { id } => StoreAnswer::Kept(self.say(stores, id, Unsaid::Delivered).await),
            StoreQuery::Return { id, retry_after_s } => {
                StoreAnswer::Kept(self.say(stores, id, self.given_back(retry_after_s)).await)
            }
            StoreQuery::Record(object) => StoreAnswer::Recorded(stores.history.store(&object, now_s, Refused::Asker).await),
            StoreQuery::Register(registrant) => StoreAnswer::Kept(stores.registrants.put(*registrant, now_s).await),
            StoreQuery::Deregister { user } => StoreAnswer::Kept(stores.registrants.remove(user).await),
            StoreQuery::Registrants { core, after } => {
                let page = stores.registrants.page(core, self.0.cores, after, now_s).await;
                page.map_or_else(|failure| StoreAnswer::Kept(Err(failure)), StoreAnswer::Registrants)
            }
            StoreQuery::Copy(object) => StoreAnswer::Recorded(stores.history.store(&object, now_s, Refused::Queue).await),
        }
    }

    /// Tells the store what became of a message; where it is away it is told again with the next sweep.
    async fn say(&self, stores: &Stores, id: DeferredId, what: Unsaid) -> Result<(), StoreFailure> {
        self.0.delivering.borrow_mut().remove(&id);
        let said = match what {
            Unsaid::Delivered => stores.deferred.remove(id.clone()).await,
            Unsaid::GivenBack { until_s } => stores.deferred.give_back(id.clone(), until_s).await,
        };
        self.told(id, what, said);
        said
    }

    fn told(&self, id: DeferredId, what: Unsaid, said: Result<(), StoreFailure>) {
        self.0.delivering.borrow_mut().remove(&id);
        if said == Err(StoreFailure::Unavailable) {
            tracing::warn!(id = id.0, ?what, "the store is not told what became of a deferred message; it will be told again");
            self.0.unsaid.borrow_mut().insert(id, what);
        } else {
            self.0.unsaid.borrow_mut().remove(&id);
        }
    }

    /// Somebody has it, maybe again: that it was to be given back is past.
    fn took(&self, id: DeferredId, claimant: Claimant) {
        self.0.unsaid.borrow_mut().remove(&id);
        self.0.delivering.borrow_mut().insert(id, claimant);
    }

    fn is_delivered(&self, id: &DeferredId) -> bool {
        self.0.unsaid.borrow().get(id) == Some(&Unsaid::Delivered)
    }

    fn given_back(&self, retry_after_s: u32) -> Unsaid {
        Unsaid::GivenBack { until_s: self.now_s() + u64::from(retry_after_s) }
    }

    /// What a process before us was delivering when it ended is free again.
    async fn release_former(&self) {
        let of_former = |(id, claimant): (&DeferredId, &Claimant)| (*claimant == Claimant::Former).then(|| id.clone());
        let left: Vec<_> = self.0.delivering.borrow().iter().filter_map(of_former).collect();
        for id in left {
            // Somebody may have it by now whose claim it is.
            if self.0.delivering.borrow().get(&id) == Some(&Claimant::Former) {
                self.answer(Claimant::Former, StoreQuery::Return { id, retry_after_s: 0 }).await;
            }
        }
    }

    fn here(&self) -> Option<Rc<Stores>> {
        match &*self.0.keeping.borrow() {
            Keeping::Here(stores) => Some(stores.clone()),
            Keeping::Between | Keeping::There(_) => None,
        }
    }

    fn keep(&self, keeping: Keeping) {
        *self.0.keeping.borrow_mut() = keeping;
        self.0.changed.notify_waiters();
    }

    fn now_s(&self) -> u64 {
        self.0.clock.now().unix_s()
    }

    /// What runs while the stores are here.
    async fn live(&self, stores: &Rc<Stores>) {
        let claimed: Vec<_> = self.0.delivering.borrow().keys().cloned().collect();
        for id in claimed {
            stores.deferred.adopt(id, self.now_s()).await;
        }
        let (keeper, sweeping) = (self.clone(), stores.clone());
        let sweeper = tokio_uring::spawn(async move { keeper.sweep(&sweeping).await });
        let (keeper, renewed) = (self.clone(), stores.clone());
        let renewer = tokio_uring::spawn(async move { keeper.renew(&renewed).await });
        let (keeper, attended) = (self.clone(), stores.clone());
        let attendant = tokio_uring::spawn(async move { attended.history.run_queue(|| keeper.now_s()).await });
        self.0.tasks.borrow_mut().extend([sweeper, renewer, attendant]);
    }

    /// Tells the store again what it has not heard; tells of expired messages whose sender wants to hear of it, the others are gone
    /// without a word.
    async fn sweep(&self, stores: &Stores) {
        let Some((unasked, inbox)) = self.0.told.borrow().clone() else { return };
        let mut ticks = tokio::time::interval(stores.deferred.sweep_every());
        let mut untidy = true;
        loop {
            ticks.tick().await;
            untidy = untidy && stores.deferred.tidy().await;
            self.say_again(stores).await;
            for message in stores.deferred.sweep(self.now_s()).await {
                tracing::info!(id = message.id.0, user = message.user, "the time of a deferred message is over");
                if message.negative_delivery.is_some() {
                    unasked(0, Fetched::Expired(Box::new(message)));
                }
            }
            self.count(&inbox);
        }
    }

    async fn say_again(&self, stores: &Stores) {
        let unsaid: Vec<_> = self.0.unsaid.borrow().iter().map(|(id, what)| (id.clone(), *what)).collect();
        for (id, what) in unsaid {
            // It was claimed again, or said, while others were.
            let stands = self.0.unsaid.borrow().get(&id) == Some(&what);
            if stands && self.say(stores, id, what).await == Err(StoreFailure::Unavailable) {
                break;
            }
        }
    }

    /// Renews the claims of what is being delivered, and tells the cores of those that are lost.
    async fn renew(&self, stores: &Stores) {
        let Some((unasked, _)) = self.0.told.borrow().clone() else { return };
        let mut ticks = tokio::time::interval(RENEW_EVERY);
        loop {
            ticks.tick().await;
            for id in stores.deferred.renew(self.now_s()).await {
                let claimant = self.0.delivering.borrow_mut().remove(&id);
                tracing::warn!(
                    id = id.0,
                    ?claimant,
                    "the claim of a deferred message cannot be renewed; its delivery is broken off"
                );
                if let Some(Claimant::Core(core)) = claimant {
                    unasked(core, Fetched::Lapsed(id));
                }
            }
        }
    }

    /// Closes the stores, and tells what the next process must know.
    async fn let_go(&self, reply: &Sender<Result<LetGone, String>>) {
        let Some(mut stores) = self.here() else {
            let _ = reply.send(Err("the stores are another process's".into()));
            return;
        };
        self.keep(Keeping::Between);
        self.end();
        let began = self.0.clock.now();
        // Questions under way hold the stores; those that come now wait.
        loop {
            match Rc::try_unwrap(stores) {
                Ok(stores) => {
                    drop(stores);
                    return self.tell(reply);
                }
                Err(held) if self.0.clock.now().since(began) > QUIET_MAX => {
                    let _ = reply.send(Err("a question to a store takes too long".into()));
                    self.live(&held).await;
                    return self.keep(Keeping::Here(held));
                }
                Err(held) => stores = held,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn tell(&self, reply: &Sender<Result<LetGone, String>>) {
        let told = self.0.spool.lock().map_err(|error| error.to_string()).map(|spool| LetGone {
            claimed: self.0.delivering.borrow().keys().cloned().collect(),
            unsaid: self.0.unsaid.borrow().iter().map(|(id, what)| (id.clone(), *what)).collect(),
            spool,
        });
        // Who asked may have given up; then the stores are taken back.
        let _ = reply.send(told);
    }

    /// Opens the stores again, as soon as nobody has them any more.
    fn take_back(&self) {
        if self.here().is_some() {
            return;
        }
        self.keep(Keeping::Between);
        let keeper = self.clone();
        tokio_uring::spawn(async move {
            for _ in 0..TRIES {
                match Stores::open(&keeper.0.store, &keeper.0.spool) {
                    Ok(stores) => {
                        let stores = Rc::new(stores);
                        keeper.live(&stores).await;
                        return keeper.keep(Keeping::Here(stores));
                    }
                    Err(error) => tracing::warn!(%error, "a store cannot be opened again yet"),
                }
                tokio::time::sleep(AGAIN).await;
            }
            tracing::error!("the stores cannot be opened again; what asks for them waits");
        });
    }
}
