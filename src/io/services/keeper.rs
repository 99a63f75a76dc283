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
use crate::io::handover::questions::{StoreAnswer, StoreQuery};
use crate::io::handover::wire::Frame;
use crate::shard::exchange::StoreFailure;
use crate::store::deferred::{Deferred, DeferredId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
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
    claimed: BTreeSet<DeferredId>,
    delivered: BTreeSet<DeferredId>,
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
    /// Being delivered by us or a process before us.
    claimed: RefCell<BTreeSet<DeferredId>>,
    /// Delivered, but the store was away when they were to be removed: nobody may have them again.
    delivered: RefCell<BTreeSet<DeferredId>>,
    /// Asked there and not answered yet.
    asked: RefCell<BTreeMap<u64, oneshot::Sender<StoreAnswer>>>,
    numbers: Cell<u64>,
    /// What runs while the stores are here.
    tasks: RefCell<Vec<JoinHandle<()>>>,
    expired: RefCell<Option<Told>>,
}

type Told = (Rc<dyn Fn(Box<Deferred>)>, Arc<Inbox>);

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
    /// Opens the stores. `claimed` and `delivered` come from the process that had them.
    ///
    /// # Errors
    /// With key and value in the text.
    pub fn open(
        config: &Config,
        clock: Clock,
        spool: Spool,
        claimed: Vec<DeferredId>,
        delivered: Vec<DeferredId>,
    ) -> io::Result<Self> {
        let store = config.store.clone();
        let cores = u8::try_from(config.cores.signaling.len()).unwrap_or(u8::MAX);
        let stores = Stores::open(&store, &spool)?;
        let (claimed, delivered) = (claimed.into_iter().collect(), delivered.into_iter().collect());
        Ok(Self { store, cores, clock, spool, stores, claimed, delivered })
    }

    /// Deferred messages kept.
    pub fn deferred_messages(&self) -> u64 {
        self.stores.deferred.messages()
    }
}

impl Keeper {
    /// For the thread that asks.
    pub fn new(opened: Opened) -> Self {
        let Opened { store, cores, clock, spool, stores, claimed, delivered } = opened;
        Self(Rc::new(State {
            store,
            cores,
            clock,
            spool,
            keeping: RefCell::new(Keeping::Here(Rc::new(stores))),
            changed: Notify::new(),
            claimed: RefCell::new(claimed),
            delivered: RefCell::new(delivered),
            asked: RefCell::default(),
            numbers: Cell::new(0),
            tasks: RefCell::default(),
            expired: RefCell::default(),
        }))
    }

    /// For the metrics.
    pub fn count(&self, inbox: &Inbox) {
        if let Some(stores) = self.here() {
            inbox.count_deferred(stores.deferred.messages());
            inbox.count_history(stores.history.counts());
        }
    }

    /// Begins what goes on by itself: expired messages are given to `expired`, and what waits for the history is sent.
    pub async fn begin(&self, expired: impl Fn(Box<Deferred>) + 'static, inbox: Arc<Inbox>) {
        *self.0.expired.borrow_mut() = Some((Rc::new(expired), inbox));
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
            Item::Parted(Side::Before) | Item::Question(_) | Item::Reload(_) | Item::Asked(..) => {}
        }
    }

    /// Answers one question, once it can be.
    pub async fn answer(&self, query: StoreQuery) -> StoreAnswer {
        loop {
            let changed = self.0.changed.notified();
            let stores = match &*self.0.keeping.borrow() {
                Keeping::Here(stores) => Ok(stores.clone()),
                Keeping::There(link) => Err(Some(link.clone())),
                Keeping::Between => Err(None),
            };
            match stores {
                Ok(stores) => return self.ask(&stores, query).await,
                Err(Some(link)) => match self.ask_there(&link, query.clone()).await {
                    Some(answer) => return answer,
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

    async fn ask(&self, stores: &Stores, query: StoreQuery) -> StoreAnswer {
        let now_s = self.now_s();
        let delivered = |id: &DeferredId| self.0.delivered.borrow().contains(id);
        match query {
            StoreQuery::Defer(message) => StoreAnswer::Kept(stores.deferred.defer(*Box::<Deferred>::from(message)).await),
            StoreQuery::Waiting { user } => match stores.deferred.waiting(user, now_s).await {
                Ok(mut waiting) => {
                    waiting.retain(|message| !delivered(&message.id));
                    StoreAnswer::Waiting(waiting.into_iter().map(|message| Box::new(message).into()).collect())
                }
                Err(failure) => StoreAnswer::Kept(Err(failure)),
            },
            StoreQuery::Claim { id } if delivered(&id) => StoreAnswer::Claimed(None),
            StoreQuery::Claim { id } => {
                let claimed = stores.deferred.claim(id.clone(), now_s).await;
                if claimed.is_some() {
                    self.0.claimed.borrow_mut().insert(id);
                }
                StoreAnswer::Claimed(claimed.map(Into::into))
            }
            StoreQuery::Remove { id } => StoreAnswer::Kept(self.remove(stores, id).await),
            StoreQuery::Return { id, retry_after_s } => {
                self.0.claimed.borrow_mut().remove(&id);
                StoreAnswer::Kept(stores.deferred.give_back(id, now_s + u64::from(retry_after_s)).await)
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

    async fn remove(&self, stores: &Stores, id: DeferredId) -> Result<(), StoreFailure> {
        let removed = stores.deferred.remove(id.clone()).await;
        self.0.claimed.borrow_mut().remove(&id);
        if removed == Err(StoreFailure::Unavailable) {
            tracing::warn!(id = id.0, "a deferred message cannot be removed; it will be tried again");
            self.0.delivered.borrow_mut().insert(id);
        } else {
            self.0.delivered.borrow_mut().remove(&id);
        }
        removed
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
        let claimed: Vec<_> = self.0.claimed.borrow().iter().cloned().collect();
        for id in claimed {
            stores.deferred.adopt(id, self.now_s()).await;
        }
        let (keeper, sweeping) = (self.clone(), stores.clone());
        let sweeper = tokio_uring::spawn(async move { keeper.sweep(&sweeping).await });
        let (keeper, attended) = (self.clone(), stores.clone());
        let attendant = tokio_uring::spawn(async move { attended.history.run_queue(|| keeper.now_s()).await });
        self.0.tasks.borrow_mut().extend([sweeper, attendant]);
    }

    /// Tells of expired messages whose sender wants to hear of it; the others are gone without a word.
    async fn sweep(&self, stores: &Stores) {
        let Some((expired, inbox)) = self.0.expired.borrow().clone() else { return };
        let mut ticks = tokio::time::interval(stores.deferred.sweep_every());
        loop {
            ticks.tick().await;
            let delivered: Vec<_> = self.0.delivered.borrow().iter().cloned().collect();
            for id in delivered {
                if self.remove(stores, id).await == Err(StoreFailure::Unavailable) {
                    break;
                }
            }
            for message in stores.deferred.sweep(self.now_s()).await {
                tracing::info!(id = message.id.0, user = message.user, "the time of a deferred message is over");
                if message.negative_delivery.is_some() {
                    expired(Box::new(message));
                }
            }
            self.count(&inbox);
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
        let ids = |ids: &RefCell<BTreeSet<DeferredId>>| ids.borrow().iter().cloned().collect();
        let told = self.0.spool.lock().map_err(|error| error.to_string()).map(|spool| LetGone {
            claimed: ids(&self.0.claimed),
            delivered: ids(&self.0.delivered),
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
