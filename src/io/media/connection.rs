//! One TCP or TLS connection: its socket, what is under way in the ring, and what waits to be sent.
//!
//! ```text
//!            accept                 connect
//!              |                       |
//!         [Handshake] <---- TLS --- [Connecting]
//!              |                       |
//!              +------> [Open] <-------+
//!                         |  Finish: queue empty -> shutdown(WR) -> peer closed, or two seconds on
//!                         |  Abort, broken: shutdown(RDWR)
//!                      closing  -- nothing under way any more --> close(2), Media::gone
//! ```
//! `shutdown` comes before `close` always: an armed receive holds the file, and a bare close would send no FIN. A slot is
//! free only when nothing of it is under way, so that no late completion finds somebody else.

use super::acks::Acks;
use super::passing::Lengths;
use super::queue::Queue;
use super::tls::Session;
use super::zero_copy::ZeroCopy;
use crate::base::clock::Instant;
use crate::base::slab::{Key, Slab};
use crate::base::timers::Handle;
use crate::io::ring::Group;
use crate::shard::media_outbox::{Connection, Gone};
use socket2::SockAddr;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Connecting,
    Handshake,
    Open,
}

/// The receive operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receiving {
    Idle,
    Armed(Group),
    /// Cancelled; its last completion has not come yet.
    Ending(Group),
    /// What comes will be looked at where it lies (passing.rs).
    Watched,
    /// It is being looked at.
    Looking,
}

/// Whether the end was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    No,
    /// When the queue is empty.
    Asked,
    /// Our sending side is shut down.
    Done,
}

/// A TLS connection's part.
pub struct Sealing {
    pub session: Box<Session>,
    pub sealed: Queue,
    /// Octets of `sealed` after which so many octets of plaintext have left.
    pub debts: VecDeque<(usize, usize)>,
}

/// On its way to another core.
pub struct Handing {
    pub core: u8,
    pub octets: Vec<u8>,
}

/// A connection.
pub struct Link {
    pub socket: OwnedFd,
    pub peer: SocketAddr,
    /// The shard's name for it; none while the handshake of an accepted one lasts.
    pub connection: Option<Connection>,
    pub stage: Stage,
    pub tls: Option<Box<Sealing>>,
    /// Lent to the kernel while a connect is under way.
    pub connect_to: Option<Box<SockAddr>>,

    pub receiving: Receiving,
    /// The group of the next receive, and when and how much this one received.
    pub group: Group,
    pub armed_at: Instant,
    pub received: u32,
    pub lengths: Lengths,
    pub acks: Acks,
    pub paused: bool,
    /// It waits for a buffer.
    pub starved: bool,
    /// The peer will send no more.
    pub ended: bool,

    pub queue: Queue,
    pub dirty: bool,
    /// The socket took less than it was offered, at this time; a poll is under way.
    pub blocked: Option<Instant>,
    /// A send without a copy is under way, or must not be the next.
    pub zero_copy: ZeroCopy,
    /// It stands in the list of those that hold buffers while blocked.
    pub stuck: bool,

    pub finish: Finish,
    pub closing: Option<Gone>,
    pub handing: Option<Handing>,
    pub timer: Option<Handle>,
    /// Operations whose last completion has not come.
    pub under_way: u8,
    /// The window of [`Gather`](super::gather::Gather) in which it was last heard of.
    pub window: u32,
}

impl Link {
    pub fn new(socket: OwnedFd, peer: SocketAddr, stage: Stage, tls: Option<Box<Session>>) -> Self {
        let sealing = |session| Box::new(Sealing { session, sealed: Queue::default(), debts: VecDeque::new() });
        Self {
            socket,
            peer,
            connection: None,
            stage,
            tls: tls.map(sealing),
            connect_to: None,
            receiving: Receiving::Idle,
            group: super::buffers::CHAT,
            armed_at: Instant::default(),
            received: 0,
            lengths: Lengths::default(),
            acks: Acks::default(),
            paused: false,
            starved: false,
            ended: false,
            queue: Queue::default(),
            dirty: false,
            blocked: None,
            zero_copy: ZeroCopy::Idle,
            stuck: false,
            finish: Finish::No,
            closing: None,
            handing: None,
            timer: None,
            under_way: 0,
            window: 0,
        }
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether a receive is to be armed.
    pub fn may_receive(&self) -> bool {
        self.receiving == Receiving::Idle
            && self.stage != Stage::Connecting
            && !(self.paused || self.starved || self.ended)
            && self.closing.is_none()
            && self.handing.is_none()
    }

    /// Whether everything that was to be sent has left.
    pub fn drained(&self) -> bool {
        self.queue.is_empty() && self.tls.as_ref().is_none_or(|tls| tls.sealed.is_empty())
    }
}

/// Octets of an idle connection in the tables of [`Links`].
pub const IDLE_OCTETS: usize = size_of::<Link>() + 8 + size_of::<Key>() + size_of::<Option<(Connection, Key)>>();

/// All connections of a core, by a key whose slot and generation travel in completions.
pub struct Links {
    links: Slab<Link>,
    keys: Vec<Key>,
    by_connection: Vec<Option<(Connection, Key)>>,
}

impl Links {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { links: Slab::with_capacity(capacity), keys: Vec::new(), by_connection: Vec::new() }
    }

    /// Takes a link in; gives it back when there are too many.
    pub fn insert(&mut self, link: Link) -> Result<Key, Box<Link>> {
        let key = self.links.insert(link).map_err(Box::new)?;
        if self.keys.len() <= key.slot() {
            self.keys.resize(key.slot() + 1, key);
        }
        self.keys[key.slot()] = key;
        Ok(key)
    }

    pub fn get(&self, key: Key) -> Option<&Link> {
        self.links.get(key)
    }
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Link> {
        self.links.get_mut(key)
    }
    /// Keys of all links, for the end of the thread.
    pub fn keys(&self) -> Vec<Key> {
        self.links.iter().map(|(key, _)| key).collect()
    }

    /// The key that a completion's slot and generation name, if it is still good.
    pub fn named(&self, slot: u32, generation: u32) -> Option<Key> {
        let key = *self.keys.get(slot as usize)?;
        ((key.as_u64() >> 32) as u32 & 0xff_ffff == generation && self.links.get(key).is_some()).then_some(key)
    }

    /// From now on the shard's name finds the link.
    pub fn name(&mut self, key: Key, connection: Connection) {
        let slot = connection.0.slot();
        if self.by_connection.len() <= slot {
            self.by_connection.resize(slot + 1, None);
        }
        self.by_connection[slot] = Some((connection, key));
        self.links.get_mut(key).expect("named when it was just looked at").connection = Some(connection);
    }

    /// The link that the shard means.
    pub fn of(&self, connection: Connection) -> Option<Key> {
        let (name, key) = (*self.by_connection.get(connection.0.slot())?)?;
        (name == connection).then_some(key)
    }

    /// Takes a link out; its names find nothing afterwards.
    pub fn remove(&mut self, key: Key) -> Option<Link> {
        let link = self.links.remove(key)?;
        if let Some(connection) = link.connection {
            self.by_connection[connection.0.slot()] = None;
        }
        Some(link)
    }
}
