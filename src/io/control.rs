//! Orders to the cores and events to the main thread: how the process as a whole is steered.

use super::telemetry::MediaSnapshot;
use crate::config::Config;
use crate::io::capture::Capture;
use crate::io::handover::Side;
use crate::io::handover::link::Link;
use crate::io::handover::wire::Hello;
use crate::io::tls::Tls;
use crate::shard::exchange::MediaKey;
use crossbeam::queue::ArrayQueue;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use tokio::sync::{oneshot, watch};

/// Orders that may wait for one core: one of each kind, and as many scrapes as a careless monitor may begin.
const ORDERS_MAX: usize = 64;

/// Orders for one core. Rarely used, so several may write; a core looks whether it is empty once a turn.
pub struct Mailbox<T> {
    orders: ArrayQueue<T>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl<T> Mailbox<T> {
    /// An empty mailbox; `wake` gets its core out of sleep.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { orders: ArrayQueue::new(ORDERS_MAX), wake: Box::new(wake) })
    }

    /// Leaves an order. False: the mailbox is full, the core has not looked for long.
    pub fn post(&self, order: T) -> bool {
        let posted = self.orders.push(order).is_ok();
        (self.wake)();
        posted
    }

    /// The next order.
    pub fn take(&self) -> Option<T> {
        self.orders.pop()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }
}

/// From the main thread and the admin server to a media core.
#[derive(Debug)]
pub enum MediaOrder {
    /// A new configuration, and the certificates it names.
    Reload(Arc<Config>, Option<Tls>),
    /// Close everything and end.
    Stop,
    /// Accept no more; answered when nothing of that is under way.
    LetGo(mpsc::Sender<()>),
    /// Another process accepts now: connections that name its sessions go there.
    TakenOver(Arc<Link>),
    /// Accept again: the process that took over is gone.
    TakeBack,
    /// The process on that side is gone.
    Parted(Side),
    /// For the metrics.
    Snapshot(oneshot::Sender<MediaSnapshot>),
    /// For the watchdog: answered by a core that still takes its turns.
    Ping(oneshot::Sender<()>),
    /// The heads of this session's requests and responses go there too.
    Capture(MediaKey, Arc<Capture>),
}

/// What became of a reload.
#[derive(Debug)]
pub enum Reloaded {
    /// The configuration is in effect, but for these keys, which cannot change while the proxy runs.
    Taken { kept: Vec<&'static str> },
    /// The old one stays, and why: a line for each mistake.
    Refused { why: String },
}

/// What the main thread waits for.
#[derive(Debug)]
pub enum Event {
    /// SIGTERM, SIGINT: drain and end; the second one: end at once.
    Terminate,
    /// `POST /drain`: take no new dialogs, and go on.
    Drain,
    /// SIGHUP; `POST /reload`, which wants to hear what became of it.
    Reload(Option<oneshot::Sender<Reloaded>>),
    /// SIGUSR2: start the program anew, to take over.
    Renew,
    /// Another process wants to take over.
    HandOver(UnixStream, Box<Hello>),
    /// It has taken over.
    TakenOver,
    /// The process on that side was told to end.
    NeighbourEnds(Side),
    /// The process on that side is gone.
    Parted(Side),
    /// A signalling core has nothing left after a drain.
    Drained(u8),
    /// A thread has ended, as it was told to or by a bug or a ring that broke (`failed`).
    Ended { thread: String, failed: bool },
}

/// What every thread may know of the process.
#[derive(Clone)]
pub struct Process {
    pub events: mpsc::Sender<Event>,
    draining: Arc<AtomicBool>,
    handed_on: Arc<AtomicBool>,
    /// Whether the admin server accepts connections.
    answers: Arc<watch::Sender<bool>>,
}

impl Process {
    /// A process that serves, and where its events come out.
    pub fn new() -> (Self, mpsc::Receiver<Event>) {
        let (events, come_out) = mpsc::channel();
        (
            Self { events, draining: Arc::default(), handed_on: Arc::default(), answers: Arc::new(watch::Sender::new(true)) },
            come_out,
        )
    }

    /// Tells the main thread. It is gone only when the process is.
    pub fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// From here on `/readyz` says 503, or no longer.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Whether the admin server accepts connections from here on: one process of two does.
    pub fn set_answering(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// For the admin server: whether it accepts connections.
    pub fn answering(&self) -> watch::Receiver<bool> {
        self.answers.subscribe()
    }

    /// Another process is the service from here on, or no longer.
    pub fn set_handed_on(&self, handed_on: bool) {
        self.handed_on.store(handed_on, Ordering::Relaxed);
    }

    /// Whether another process is the service.
    pub fn is_handed_on(&self) -> bool {
        self.handed_on.load(Ordering::Relaxed)
    }

    /// Whether the process takes no new dialogs.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
