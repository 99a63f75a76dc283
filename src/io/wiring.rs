//! The lanes between all threads, made before the first one starts; each takes its ends when it is started.

use super::bridge::lane::{Receiver, Sender, lane};
use super::bridge::outgoing::Outgoing;
use super::bridge::wake::Wake;
use super::control::{Mailbox, MediaOrder};
use super::handover::Around;
use super::handover::link::{Door, Letter};
use super::media::lanes::{Handed, Lanes};
use super::signalling::lanes::{CoreLink, MediaLink, Order};
use crate::limits;
use crate::shard::exchange::{Command, Fetched, Report, Ticket};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// The lanes between all cores, before each has got its ends.
pub struct Wiring {
    pub signalling_wakes: Vec<Arc<Wake>>,
    pub media_wakes: Vec<Arc<Wake>>,
    pub signalling_orders: Vec<Arc<Mailbox<Order>>>,
    pub media_orders: Vec<Arc<Mailbox<MediaOrder>>>,
    pub fetched: Vec<Ends<(Ticket, Fetched)>>,
    /// By signalling core, then media core.
    pub commands: Vec<Vec<Ends<Command>>>,
    pub reports: Vec<Vec<Ends<Report>>>,
    pub links: Vec<Vec<Option<CoreLink>>>,
    /// What comes from other processes, by core.
    pub doors: Vec<Arc<Door<Letter>>>,
    pub media_doors: Vec<Arc<Door<Handed>>>,
    /// Connections on their way from one media core to another.
    pub handed: Vec<Vec<Ends<Handed>>>,
}

impl Wiring {
    /// For so many signalling and media cores.
    ///
    /// # Errors
    /// When no eventfd is to be had.
    pub fn new(signalling: usize, media: usize) -> io::Result<Self> {
        let wakes = |count: usize| (0..count).map(|_| Wake::new()).collect::<io::Result<Vec<_>>>();
        let (signalling_wakes, media_wakes) = (wakes(signalling)?, wakes(media)?);
        fn mailboxes<T: Send + 'static>(wakes: &[Arc<Wake>]) -> Vec<Arc<Mailbox<T>>> {
            let mailbox = |wake: &Arc<Wake>| {
                let wake = wake.clone();
                Mailbox::new(move || wake.ring())
            };
            wakes.iter().map(mailbox).collect()
        }
        Ok(Self {
            signalling_orders: mailboxes(&signalling_wakes),
            media_orders: mailboxes(&media_wakes),
            // Room for every answer to a question that may be under way.
            fetched: (0..signalling).map(|_| Ends::new(2 * limits::SERVICES_QUESTIONS_MAX)).collect(),
            commands: pairs(signalling, media),
            reports: pairs(signalling, media),
            links: core_links(&signalling_wakes),
            handed: pairs(media, media),
            doors: signalling_wakes.iter().map(|wake| Door::new(wake.clone())).collect(),
            media_doors: media_wakes.iter().map(|wake| Door::new(wake.clone())).collect(),
            signalling_wakes,
            media_wakes,
        })
    }

    /// The services' ends: a lane of answers to each signalling core.
    pub fn answers(&mut self) -> Vec<AnswerLane> {
        let senders = self.fetched.iter_mut().map(Ends::sender);
        senders.zip(self.signalling_wakes.iter().cloned()).collect()
    }

    /// A signalling core's ends of its lanes to and from the media cores.
    pub fn media_links(&mut self, core: usize) -> Vec<MediaLink> {
        let commands = self.commands[core].iter_mut().map(Ends::sender);
        let reports = self.reports[core].iter_mut().map(Ends::receiver);
        let ends = commands.zip(reports).zip(&self.media_wakes);
        let link = |((commands, reports), wake): (_, &Arc<Wake>)| MediaLink {
            commands,
            reports,
            wake: wake.clone(),
            waiting: VecDeque::new(),
            ring: false,
            unhurried: None,
        };
        ends.map(link).collect()
    }

    /// A media core's ends of all its lanes.
    pub fn media_lanes(&mut self, core: usize, around: Around) -> Lanes {
        let reports = self.reports.iter_mut().map(|row| row[core].sender()).zip(&self.signalling_wakes);
        let others = self.media_wakes.iter().enumerate();
        let handed_out = |(other, wake): (usize, &Arc<Wake>)| {
            (other != core).then(|| Outgoing::new(self.handed[core][other].sender(), wake.clone()))
        };
        Lanes {
            wake: self.media_wakes[core].clone(),
            commands: self.commands.iter_mut().map(|row| row[core].receiver()).collect(),
            reports: reports.map(|(lane, wake)| Outgoing::new(lane, wake.clone())).collect(),
            handed_out: others.map(handed_out).collect(),
            handed_in: self.handed.iter_mut().map(|row| row[core].receiver()).collect(),
            orders: self.media_orders[core].clone(),
            around,
            door: self.media_doors[core].clone(),
        }
    }
}

/// Both ends of a lane, until they are taken.
pub struct Ends<T>(Option<Sender<T>>, Option<Receiver<T>>);

impl<T> Ends<T> {
    fn new(entries: usize) -> Self {
        let (sender, receiver) = lane(entries);
        Self(Some(sender), Some(receiver))
    }

    /// The end that puts in; taken once.
    pub fn sender(&mut self) -> Sender<T> {
        self.0.take().expect("each end belongs to one thread and is taken when that is started")
    }

    /// The end that takes out; taken once.
    pub fn receiver(&mut self) -> Receiver<T> {
        self.1.take().expect("each end belongs to one thread and is taken when that is started")
    }
}

/// A lane of answers, and the bell of the core at its end.
pub type AnswerLane = (Sender<(Ticket, Fetched)>, Arc<Wake>);

fn pairs<T>(signalling: usize, media: usize) -> Vec<Vec<Ends<T>>> {
    (0..signalling).map(|_| (0..media).map(|_| Ends::new(limits::LANE_ENTRIES)).collect()).collect()
}

/// A lane for each ordered pair of signalling cores.
fn core_links(wakes: &[Arc<Wake>]) -> Vec<Vec<Option<CoreLink>>> {
    let mut lanes: Vec<Vec<Ends<_>>> = pairs(wakes.len(), wakes.len());
    let mut links: Vec<Vec<Option<CoreLink>>> = Vec::with_capacity(wakes.len());
    for (here, _) in wakes.iter().enumerate() {
        let link = |(there, wake): (usize, &Arc<Wake>)| {
            let (send, receive) = (lanes[here][there].sender(), lanes[there][here].receiver());
            (here != there).then(|| CoreLink { send, receive, wake: wake.clone(), ring: false })
        };
        links.push(wakes.iter().enumerate().map(link).collect());
    }
    links
}
