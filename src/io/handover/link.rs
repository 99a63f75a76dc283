//! The link between two processes once one has taken over from the other: a thread that writes, and one that reads and takes what
//! comes to whom it is for.

use super::Side;
use super::questions::{StoreAnswer, StoreQuery};
use super::wire::{self, Frame};
use crate::base::span::Span;
use crate::base::transport::Flow;
use crate::config::Listen;
use crate::io::bridge::wake::Wake;
use crate::io::clock::Clock;
use crate::io::control::{Event, Process};
use crate::io::media::lanes::Handed;
use crate::io::services::inbox::Inbox;
use crate::io::signalling::lanes::Passed;
use crate::limits::HANDOVER_QUEUE_MAX;
use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::queue::ArrayQueue;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the last frames of a process may take to be written, in milliseconds.
const SETTLE_MS: u32 = 2_000;

/// What a core gets from another process.
pub struct Door<T> {
    items: ArrayQueue<T>,
    wake: Arc<Wake>,
}

impl<T> Door<T> {
    /// A door to the core that this bell wakes.
    pub fn new(wake: Arc<Wake>) -> Arc<Self> {
        Arc::new(Self { items: ArrayQueue::new(HANDOVER_QUEUE_MAX), wake })
    }

    fn put(&self, item: T) -> bool {
        let put = self.items.push(item).is_ok();
        self.wake.ring();
        put
    }

    /// The next thing.
    pub fn take(&self) -> Option<T> {
        self.items.pop()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// What a signalling core gets.
#[derive(Debug)]
pub enum Letter {
    /// From that side, for a core: none for what has still to be routed.
    Passed { from: Side, core: Option<u8>, passed: Passed },
    /// A connection of a process that ends, and the beginning of a message that came on it.
    Adopt { flow: Flow, socket: OwnedFd, octets: Vec<u8> },
}

/// Whom a link takes things to.
#[derive(Clone)]
pub struct Doors {
    pub own: (Span, Span),
    pub signalling: Vec<Arc<Door<Letter>>>,
    pub media: Vec<Arc<Door<Handed>>>,
    pub services: Arc<Inbox>,
    pub process: Process,
    pub clock: Clock,
    /// Where we listen for SIP.
    pub sip: Vec<Listen>,
}

struct Parcel {
    frame: Frame,
    octets: Box<[u8]>,
    descriptor: Option<OwnedFd>,
}

/// The way to another process.
#[derive(Debug)]
pub struct Link {
    outgoing: Sender<Parcel>,
    stream: UnixStream,
    dropped: AtomicU64,
    gone: AtomicBool,
    /// Frames that are not with the kernel yet.
    waiting: Arc<AtomicUsize>,
    /// Our listener for each of theirs.
    listeners: OnceLock<Vec<u8>>,
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.frame.fmt(f)
    }
}

impl Link {
    /// Starts both threads on a stream whose greetings are over. `theirs`: where the other process listens, if that is known.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(stream: UnixStream, side: Side, theirs: Option<&[Listen]>, doors: Doors) -> io::Result<Arc<Self>> {
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        let (outgoing, parcels) = bounded(HANDOVER_QUEUE_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let link = Arc::new(Self {
            outgoing,
            stream: stream.try_clone()?,
            dropped: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            waiting: waiting.clone(),
            listeners: OnceLock::new(),
        });
        if let Some(theirs) = theirs {
            link.learn(theirs, &doors.sip);
        }
        let writing = stream.try_clone()?;
        std::thread::Builder::new().name("handover-out".into()).spawn(move || send_all(&writing, &parcels, &waiting))?;
        let reading = link.clone();
        std::thread::Builder::new().name("handover-in".into()).spawn(move || {
            if let Err(error) = reading.read_all(side, &doors) {
                tracing::warn!(?side, %error, "the link to the other process broke");
            }
            reading.close();
            doors.services.parted(side);
            doors.process.tell(Event::Parted(side));
        })?;
        Ok(link)
    }

    /// Sends a frame. False: the other process is far behind or gone, and does not get it.
    pub fn send(&self, frame: Frame, octets: Box<[u8]>, descriptor: Option<OwnedFd>) -> bool {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let sent = self.outgoing.try_send(Parcel { frame, octets, descriptor }).is_ok();
        if !sent {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Sends something from one signalling core to another.
    pub fn pass(&self, core: Option<u8>, passed: Passed) -> bool {
        match passed {
            Passed::Received { flow, octets, .. } => self.send(Frame::Received { core, flow }, octets, None),
            Passed::Send { flow, fallback, octets, mark, call } => {
                self.send(Frame::Send { flow, fallback: fallback.map(Into::into), mark, call }, octets, None)
            }
            Passed::Failed(tag) => match core {
                Some(core) => self.send(Frame::Failed { core, tag }, Box::default(), None),
                None => false,
            },
            Passed::Registered { .. } => false,
        }
    }

    /// Waits until everything sent is with the kernel, but not for ever. For the main thread, before the process ends.
    pub fn settle(&self) {
        for _ in 0..SETTLE_MS {
            if self.is_gone() || self.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether the link has ended.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Ends the link; the other process sees that.
    pub fn close(&self) {
        self.gone.store(true, Ordering::Release);
        // Whoever still writes gets an error, which is what is wanted.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Frames that could not be sent.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn learn(&self, theirs: &[Listen], ours: &[Listen]) {
        let place = |their: &Listen| {
            let same = ours.iter().position(|our| our == their);
            same.or_else(|| ours.iter().position(|our| our.transport == their.transport)).unwrap_or(0) as u8
        };
        let _ = self.listeners.set(theirs.iter().map(place).collect());
    }

    fn ours(&self, flow: Flow) -> Flow {
        let listener = self.listeners.get().and_then(|listeners| listeners.get(usize::from(flow.listener)));
        Flow { listener: listener.copied().unwrap_or(0), ..flow }
    }

    fn read_all(self: &Arc<Self>, side: Side, doors: &Doors) -> io::Result<()> {
        while let Some((frame, octets, descriptor)) = wire::read(&self.stream)? {
            let octets_boxed = |octets: Vec<u8>| octets.into_boxed_slice();
            match frame {
                Frame::Listening { sip } => self.learn(&sip, &doors.sip),
                Frame::Ready => doors.process.tell(Event::TakenOver),
                Frame::Ending => doors.process.tell(Event::NeighbourEnds(side)),
                Frame::Received { core, flow } => {
                    let (flow, arrived) = (self.ours(flow), doors.clock.now());
                    let passed = Passed::Received { flow, local: None, octets: octets_boxed(octets), arrived };
                    doors.letter(core, Letter::Passed { from: side, core, passed });
                }
                Frame::Send { flow, fallback, mark, call } => {
                    let core = Some(flow.core);
                    let passed =
                        Passed::Send { flow, fallback: fallback.map(Into::into), octets: octets_boxed(octets), mark, call };
                    doors.letter(core, Letter::Passed { from: side, core, passed });
                }
                Frame::Failed { core, tag } => {
                    let core = Some(core);
                    doors.letter(core, Letter::Passed { from: side, core, passed: Passed::Failed(tag) });
                }
                Frame::Handed { core, peer, ended } => {
                    if let Some(socket) = descriptor {
                        doors.connection(core, Handed::from_beyond(socket, peer, octets, ended));
                    }
                }
                Frame::Adopt { flow } => {
                    if let Some(socket) = descriptor {
                        doors.letter(Some(flow.core), Letter::Adopt { flow: self.ours(flow), socket, octets });
                    }
                }
                Frame::Asked { number, query } => self.asked(number, query, doors),
                Frame::Answered { number, answer } => doors.services.answered(number, answer),
                Frame::Hello(_) | Frame::Refused { .. } | Frame::Socket { .. } | Frame::Spool | Frame::Given(_) => {
                    return Err(io::Error::other("a greeting in the middle"));
                }
            }
        }
        Ok(())
    }

    fn asked(self: &Arc<Self>, number: u64, query: StoreQuery, doors: &Doors) {
        if let Err(query) = doors.services.ask_for(self.clone(), number, query) {
            self.answer(number, query.unanswered());
        }
    }

    /// Answers a question of the other process's.
    pub fn answer(&self, number: u64, answer: StoreAnswer) {
        self.send(Frame::Answered { number, answer }, Box::default(), None);
    }
}

impl Doors {
    /// To the core it is for, else to the first one that stands for it: that one routes it further.
    fn letter(&self, core: Option<u8>, letter: Letter) {
        let index = core.map_or(0, |core| self.own.0.index(core).unwrap_or(usize::from(core)) % self.signalling.len().max(1));
        if let Some(door) = self.signalling.get(index) {
            door.put(letter);
        }
    }

    fn connection(&self, core: u8, handed: Handed) {
        if let Some(door) = self.media.get(self.own.1.index(core).unwrap_or(0)) {
            door.put(handed);
        }
    }
}

fn send_all(stream: &UnixStream, parcels: &Receiver<Parcel>, waiting: &AtomicUsize) {
    for Parcel { frame, octets, descriptor } in parcels {
        let sent = wire::write(stream, &frame, &octets, descriptor.as_ref().map(AsRawFd::as_raw_fd));
        waiting.fetch_sub(1, Ordering::AcqRel);
        if sent.is_err() {
            // The reader sees the end and tells.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}
