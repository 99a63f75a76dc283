//! What a signalling core exchanges with the other threads of the process.

use super::owner::Whose;
use crate::base::clock::{Duration, Instant};
use crate::base::transport::{Flow, Target, Transport};
use crate::config::Config;
use crate::cpm::facts::Client;
use crate::io::bridge::lane::{Receiver, Sender};
use crate::io::bridge::wake::Wake;
use crate::io::capture::Capture;
use crate::io::cdr::Records;
use crate::io::control::{Mailbox, MediaOrder, Process};
use crate::io::handover::link::{Door, Letter, Link};
use crate::io::handover::{Around, Side};
use crate::io::services::inbox::{Asker, Question};
use crate::io::telemetry::SignallingSnapshot;
use crate::io::tls::Tls;
use crate::limits;
use crate::shard::exchange::{Command, Fetched, LegKind, Query, Report, Ticket};
use crate::shard::ladder::StepView;
use crate::shard::outbox::SendTag;
use crate::shard::record::Cdr;
use crate::shard::registrations::subscription::Learnt;
use crate::shard::watching::SessionView;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Who is to hear that a message could not be sent: the core that wrote it, and its name there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    pub core: u8,
    pub tag: SendTag,
}

impl Mark {
    /// Nobody wants to hear of it.
    pub const NONE: Mark = Mark { core: 0, tag: SendTag(0) };

    /// Whether somebody wants to hear of it.
    pub const fn wanted(self) -> bool {
        self.tag.0 != 0
    }
}

/// A [`Target`] that can go from core to core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub transport: Transport,
    pub address: SocketAddr,
    pub server_name: Option<Box<str>>,
}

impl Peer {
    /// The same place.
    pub fn of(target: &Target) -> Self {
        let server_name = target.server_name.as_deref().map(Into::into);
        Self { transport: target.transport, address: target.address, server_name }
    }

    /// The same place, as the shard names it.
    pub fn target(&self) -> Target {
        let server_name = self.server_name.as_deref().map(Rc::from);
        Target { transport: self.transport, address: self.address, server_name }
    }
}

/// From one signalling core to another.
#[derive(Debug)]
pub enum Passed {
    /// A message that landed here and is owned there; with our address, where somebody looks on.
    Received { flow: Flow, local: Option<SocketAddr>, octets: Box<[u8]>, arrived: Instant },
    /// A message to go out on a flow of that core; with the Call-ID that began its call, for the capture server.
    Send { flow: Flow, fallback: Option<Peer>, octets: Box<[u8]>, mark: Mark, call: Option<Box<str>> },
    /// What that core wanted sent could not be sent.
    Failed(SendTag),
    /// The clients of a user of that core, as a subscription of another core tells; each process learns for itself.
    Registered { user: Box<str>, clients: Vec<Client> },
}

/// From the main thread and the admin server to a signalling core.
#[derive(Debug)]
pub enum Order {
    /// A new configuration, the certificates it names, and `a=fingerprint` of MSRP's.
    Reload { config: Arc<Config>, tls: Option<Tls>, fingerprint: Option<Arc<str>> },
    /// No new dialogs.
    Drain,
    /// End every session with BYE, and stop when that is done, at the latest after `linger`.
    Stop { linger: Duration },
    /// Read the listening sockets no more; answered when nothing of them is under way.
    LetGo(mpsc::Sender<LetGone>),
    /// Another process reads them now: what is new is its.
    TakenOver(Arc<Link>),
    /// Read them again; with `draining` take no new dialogs.
    TakeBack { draining: bool },
    /// The process on that side is gone.
    Parted(Side),
    /// For the metrics.
    Snapshot(oneshot::Sender<SignallingSnapshot>),
    /// For the list of sessions: at most so many.
    Sessions(usize, oneshot::Sender<Vec<SessionView>>),
    /// For the watchdog: answered by a core that still takes its turns.
    Ping(oneshot::Sender<()>),
    /// For the list of calls that ended last.
    Recent(oneshot::Sender<Vec<Cdr>>),
    /// For the messages of the call that began with this Call-ID.
    Ladder(Box<str>, oneshot::Sender<Option<Vec<StepView>>>),
    /// The heads of a call's messages go there too.
    Capture(Arc<Capture>),
}

/// What a signalling core knows that has let go of its sockets.
#[derive(Debug)]
pub struct LetGone {
    /// Requests it has transactions for.
    pub served: Vec<u64>,
    pub registrations: Vec<Learnt>,
}

/// To and from a media core.
pub struct MediaLink {
    pub commands: Sender<Command>,
    pub reports: Receiver<Report>,
    pub wake: Arc<Wake>,
    /// Commands that found the lane full, in order; they go before any later one.
    pub waiting: VecDeque<Command>,
    /// Something was pushed that the media core must do now.
    pub ring: bool,
    /// Since when something lies in the lane that can wait for company.
    pub unhurried: Option<Instant>,
}

/// How long a command that nobody waits for may lie in the lane of a media core that sleeps. Waking it costs some 15 µs on
/// either side, more than the command itself; a core that is awake finds it at its next turn, and one that is woken by the
/// session's first octets takes its commands first.
const UNHURRIED_MAX: Duration = Duration::from_millis(10);

/// How long questions that found no room before the services wait for the next try: they take thousands in that time.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Whether somebody waits for what this command does: a peer for our connection or answer, a message for its way out.
fn is_urgent(command: &Command) -> bool {
    match command {
        Command::Open(_) | Command::Release { .. } => false,
        Command::Close { awaited, .. } => *awaited,
        Command::Leg { leg, .. } => !matches!(leg.kind, LegKind::Msrp { .. }),
        Command::Bind { peer, .. } => peer.connect.is_some(),
        Command::Acknowledge { .. } => true,
    }
}

/// To and from another signalling core.
pub struct CoreLink {
    pub send: Sender<Passed>,
    pub receive: Receiver<Passed>,
    pub wake: Arc<Wake>,
    pub ring: bool,
}

/// All that a signalling core is joined with.
pub struct Links {
    pub wake: Arc<Wake>,
    pub orders: Arc<Mailbox<Order>>,
    pub process: Process,
    pub records: Records,
    pub services: Asker,
    pub fetched: Receiver<(Ticket, Fetched)>,
    /// By media core.
    pub media: Vec<MediaLink>,
    pub media_orders: Vec<Arc<Mailbox<MediaOrder>>>,
    /// By signalling core; none for the core itself.
    pub cores: Vec<Option<CoreLink>>,
    /// The core's place among those of this process.
    pub index: u8,
    /// The processes beside this one, and what comes from them.
    pub around: Around,
    pub door: Arc<Door<Letter>>,
    /// Messages that another core could not be given, because it is far behind.
    pub dropped: u64,
}

impl Links {
    /// Gives a message to another core. One that is far behind does not get it: over UDP it will be sent again, and a peer on a
    /// connection sees what it would see of an overloaded node.
    pub fn pass(&mut self, core: u8, passed: Passed) {
        let Some(index) = self.around.own.index(core) else { return self.pass_beyond(core, passed) };
        match self.cores.get_mut(index).and_then(Option::as_mut) {
            Some(link) => match link.send.push(passed) {
                Ok(()) => link.ring = true,
                Err(_) => self.dropped += 1,
            },
            None => self.dropped += 1,
        }
    }

    /// Gives a message to the process that has that core.
    fn pass_beyond(&mut self, core: u8, passed: Passed) {
        if !self.around.towards(core).is_some_and(|link| link.pass(Some(core), passed)) {
            self.dropped += 1;
        }
    }

    /// Gives a message to whose it is.
    pub fn give(&mut self, whose: Whose, passed: Passed) {
        match whose {
            Whose::Core(core) => self.pass(core, passed),
            Whose::Process(side) => self.pass_on(side, passed),
        }
    }

    /// Gives what no core of ours is to have to the process on that side.
    pub fn pass_on(&mut self, side: Side, passed: Passed) {
        if !self.around.on(side).is_some_and(|link| link.pass(None, passed)) {
            self.dropped += 1;
        }
    }

    /// Asks the services.
    ///
    /// # Errors
    /// The question, when so many wait that this one would not be answered in time.
    pub fn query(&mut self, ticket: Ticket, query: Query) -> Result<(), Query> {
        let core = self.index;
        self.services.ask(Question { core, ticket, query }).map_err(|question| question.query)
    }

    /// Gives a command to a media core, after those that wait.
    ///
    /// # Errors
    /// The command, when there is no such core or so many wait that no session may begin.
    pub fn command(&mut self, now: Instant, core: u8, command: Command) -> Result<(), Command> {
        let Some(link) = self.media.get_mut(usize::from(core)) else { return Err(command) };
        if link.waiting.len() >= limits::LANE_ENTRIES && matches!(command, Command::Open(_)) {
            return Err(command);
        }
        link.ring |= is_urgent(&command);
        link.unhurried.get_or_insert(now);
        link.waiting.push_back(command);
        link.push_waiting();
        Ok(())
    }

    /// Wakes everybody who was given something that cannot wait, and tries again what found a lane full.
    pub fn ring(&mut self, now: Instant) {
        self.services.ask_again();
        for link in &mut self.media {
            link.push_waiting();
            let late = link.unhurried.is_some_and(|since| now.since(since) >= UNHURRIED_MAX);
            if std::mem::take(&mut link.ring) || late {
                link.unhurried = None;
                link.wake.ring();
            }
        }
        for link in self.cores.iter_mut().flatten() {
            if std::mem::take(&mut link.ring) {
                link.wake.ring();
            }
        }
    }

    /// When [`Links::ring`] must be called again for what was not urgent, and for what found no room.
    pub fn next_ring(&self, now: Instant) -> Option<Instant> {
        let unhurried = self.media.iter().filter_map(|link| link.unhurried).min().map(|since| since + UNHURRIED_MAX);
        let unasked = (!self.services.is_clear()).then(|| now + ASK_AGAIN);
        unhurried.into_iter().chain(unasked).min()
    }

    /// Whether something waits to be taken in, or to be put into a lane that was full.
    pub fn is_waiting(&mut self) -> bool {
        !self.orders.is_empty()
            || !self.door.is_empty()
            || !self.fetched.is_empty()
            || self.media.iter_mut().any(|link| !link.reports.is_empty() || !link.waiting.is_empty())
            || self.cores.iter_mut().flatten().any(|link| !link.receive.is_empty())
    }
}

impl MediaLink {
    fn push_waiting(&mut self) {
        while let Some(command) = self.waiting.pop_front() {
            if let Err(command) = self.commands.push(command) {
                self.waiting.push_front(command);
                // A lane that is full is not emptied by a core that sleeps.
                self.ring = true;
                return;
            }
        }
    }
}
