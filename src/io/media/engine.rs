//! The media core's loop: one turn takes what completed, lets the MSRP state do its work on it, and sends what came of it.
//!
//! ```text
//!   wait in the ring            until something completes, a bell rings, or a timer is due
//!   lanes                       commands first: a session is opened before its peer can have named it
//!   completions                 accept, connect, receive -> Media -> effects into queues
//!   timers
//!   flush                       one sendmsg for each connection that got something (sending.rs)
//!   relieve                     buffers that slow readers hold too long; receives that found none (receiving.rs)
//!   reports, buffers            bells of other cores once a turn; what came back goes to the kernel
//! ```
//! Cost of a chat message, one way: one completion, one `send`, no allocation, no copy but of the new head, or of all of it
//! where it has less than 1 KiB and lies in pieces. Nothing here
//! locks or waits for another thread, but for one case: when a signalling core leaves so many reports lying that holding more
//! of them is no longer decent, this core rests until it has taken some.

use super::buffers::{Buffers, Pools};
use super::capture::Captured;
use super::connection::{Link, Links};
use super::file::Files;
use super::gather::Gather;
use super::hold::Hold;
use super::lanes::{Core, EngineCounts, Lanes};
use super::listener::Listener;
use super::op::{self, Kind};
use super::passing::Passing;
use super::zero_copy::ZeroCopies;
use crate::base::clock::Instant;
use crate::base::prng::Prng;
use crate::base::slab::Key;
use crate::base::timers::Timers;
use crate::config::Config;
use crate::io::clock::{Clock, thread_cpu};
use crate::io::control::MediaOrder;
use crate::io::probe::Features;
use crate::io::ring::{Completion, Plain, Ring, Wait};
use crate::io::signalling::dropped::Dropped;
use crate::io::telemetry::{MediaSnapshot, Usage};
use crate::io::tls::Tls;
use crate::limits::{LANE_ENTRIES, MEDIA_CONNECTIONS_MAX, MEDIA_REPORTS_HELD_MAX};
use crate::shard::exchange::Report;
use crate::shard::media::Media;
use crate::shard::media_outbox::{Connection, Gone, MediaEffect, MediaOutbox, Piece};
use io_uring::squeue::Entry;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

/// Entries of the submission queue.
const SUBMISSIONS: u32 = 4096;
/// Completions that fit: more than connections, sends and slack, or multishot operations end.
const COMPLETIONS: u32 = 32 * 1024;
/// How long the core rests when a signalling core does not take its reports.
const REST: Duration = Duration::from_millis(1);

/// What the engine holds of memory for an idle connection.
pub const CONNECTION_OCTETS: usize = super::connection::IDLE_OCTETS;

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// A connect or a TLS handshake takes too long.
    Opening(Key),
    /// The peer did not close after we did.
    Finish(Key),
    /// Descriptors were scarce: accept again.
    Accept(u32),
    /// A process died that accepted too: look into the backlogs.
    Look,
}

/// One media core.
pub struct Engine {
    // The ring is first: it is dropped before the memory that was lent to it.
    pub(super) ring: Ring,
    pub(super) buffers: Buffers,
    pub(super) files: Files,
    pub(super) zero_copies: ZeroCopies,
    pub(super) passing: Passing,
    pub(super) links: Links,

    pub(super) shard: Media,
    pub(super) out: MediaOutbox,
    effects: Vec<MediaEffect>,

    pub(super) timers: Timers<Due>,
    pub(super) dirty: VecDeque<Key>,
    pub(super) starved: [VecDeque<Key>; 2],
    /// Connections whose queue holds buffers and whose socket takes no more, longest first.
    pub(super) stuck: VecDeque<Key>,
    /// Connections to be buried, and names of connections that never were.
    pub(super) graves: Vec<Key>,
    pub(super) stillborn: Vec<(Connection, Gone)>,
    pub(super) handshakes: usize,
    /// Writes about connections that were refused.
    pub(super) refusals: Dropped,
    pub(super) gather: Gather,
    pub(super) captured: Captured,
    pub(super) counts: EngineCounts,

    pub(super) number: u8,
    first_signalling: u8,
    pub(super) hold: Hold,
    /// Listeners that are not accepted on for a moment.
    pub(super) resting: usize,
    cpu: usize,
    started: Instant,
    pub(super) config: Arc<Config>,
    pub(super) features: Features,
    pub(super) clock: Clock,
    pub(super) tls: Option<Tls>,
    pub(super) listeners: Vec<Listener>,
    pub(super) lanes: Lanes,

    batch: Vec<Completion>,
    pub(super) now: Instant,
    /// A look around is due by then, whatever completes.
    pub(super) look_again: Option<Instant>,
    /// The ring refused an operation: the core cannot go on.
    failure: Option<io::Error>,
    stopping: bool,
}

impl Engine {
    /// A core's ring, buffers and state, for the calling thread, which must be the one that runs it.
    ///
    /// # Errors
    /// The kernel gives no ring or no buffers.
    pub fn new(core: Core) -> io::Result<Self> {
        let pools = Pools::fitting(core.features, core.config.msrp.zero_copy_send);
        Self::with_pools(core, pools)
    }

    /// As [`Engine::new`], with buffers of these sizes.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_pools(core: Core, pools: Pools) -> io::Result<Self> {
        let ring = Ring::new(SUBMISSIONS, COMPLETIONS, core.config.cores.sqpoll)?;
        let buffers = Buffers::new(&ring, pools, core.features)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        let now = core.clock.now();
        let mut engine = Self {
            ring,
            buffers,
            files: Files::default(),
            zero_copies: ZeroCopies::new(core.config.msrp.zero_copy_send, core.features, core.number),
            passing: Passing::default(),
            links: Links::with_capacity(MEDIA_CONNECTIONS_MAX),
            shard: Media::new(core.number, &core.config, Prng::from_entropy(seed)),
            out: MediaOutbox::default(),
            effects: Vec::new(),
            timers: Timers::new(),
            dirty: VecDeque::new(),
            starved: [VecDeque::new(), VecDeque::new()],
            stuck: VecDeque::new(),
            graves: Vec::new(),
            stillborn: Vec::new(),
            handshakes: 0,
            refusals: Dropped::default(),
            gather: Gather::new(core.config.msrp.batch_wait, core.features.min_wait, now),
            captured: Captured::default(),
            counts: EngineCounts::default(),
            number: core.number,
            first_signalling: core.first_signalling,
            hold: Hold::Accepting,
            resting: 0,
            cpu: core.cpu,
            started: now,
            config: core.config,
            features: core.features,
            clock: core.clock,
            tls: core.tls,
            listeners: core.listeners,
            lanes: core.lanes,
            batch: Vec::with_capacity(1024),
            now,
            look_again: None,
            failure: None,
            stopping: false,
        };
        engine.stand_among();
        engine.submit(&op::wake::arm(engine.lanes.wake.as_raw_fd()));
        for number in 0..engine.listeners.len() {
            engine.accept_on(number as u32);
        }
        Ok(engine)
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// The ring failed an operation that cannot fail.
    pub fn run(mut self) -> io::Result<()> {
        while !self.stopping {
            self.turn()?;
        }
        self.close_all();
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.sleep()?;
        self.now = self.clock.now();
        self.gather.turn(self.now, self.shard.counts().heads, thread_cpu);
        let mut batch = std::mem::take(&mut self.batch);
        self.ring.reap(&mut batch);
        self.counts.turns += 1;
        self.counts.completions += batch.len() as u64;

        self.take_lanes();
        for completion in batch.drain(..) {
            self.completed(&completion);
        }
        self.batch = batch;
        self.due();
        self.settle();
        self.relieve();
        self.report();
        self.buffers.publish();
        self.out.octets.clear();
        self.failure.take().map_or(Ok(()), Err)
    }

    fn sleep(&mut self) -> io::Result<()> {
        let next = [self.timers.next(), self.shard.next_due(), self.look_again.take()].into_iter().flatten().min();
        let timeout = next.map(|at| at.since(self.clock.now()));
        let lanes = &mut self.lanes;
        if timeout == Some(Duration::ZERO) || !lanes.wake.clone().sleeping.may_wait(|| lanes.waiting()) {
            return self.ring.poll();
        }
        let (gather, completions) = self.gather.wait();
        self.counts.waits += 1;
        self.ring.wait(Wait { timeout, gather, completions })?;
        self.lanes.wake.sleeping.awake();
        Ok(())
    }

    fn completed(&mut self, completion: &Completion) {
        match Kind::of(completion) {
            Some(Kind::Accept) => self.accepted(completion),
            Some(Kind::File) => self.file_done(completion),
            Some(Kind::ZeroCopy) => self.zero_copy_done(completion),
            Some(Kind::Wake) if !completion.more() => self.submit(&op::wake::arm(self.lanes.wake.as_raw_fd())),
            Some(Kind::Wake | Kind::Cancel) => {}
            Some(kind) => {
                let Some(key) = self.links.named(completion.slot(), completion.generation()) else {
                    debug_assert!(false, "a slot is kept until nothing of it is under way: {completion:?}");
                    return;
                };
                match kind {
                    Kind::Connect => self.connect_done(key, completion),
                    Kind::Receive => self.received(key, completion),
                    Kind::Readable => self.readable(key),
                    _ => self.writable(key),
                }
            }
            None => debug_assert!(false, "nobody submits such a kind: {completion:?}"),
        }
    }

    /// Queues an operation that points to no memory.
    pub(super) fn submit(&mut self, operation: &Plain) {
        if let Err(error) = self.ring.push_plain(operation) {
            self.failure.get_or_insert(error);
        }
    }

    /// Queues an operation that points to memory.
    ///
    /// # Safety
    /// As [`Ring::push`].
    pub(super) unsafe fn submit_lending(&mut self, operation: &Entry) {
        // SAFETY: the caller's promise.
        if let Err(error) = unsafe { self.ring.push(operation) } {
            self.failure.get_or_insert(error);
        }
    }

    /// Everything the other threads sent.
    fn take_lanes(&mut self) {
        for lane in 0..self.lanes.commands.len() {
            for _ in 0..LANE_ENTRIES {
                let Some(command) = self.lanes.commands[lane].pop() else { break };
                self.shard.command(self.now, command, &mut self.out);
                self.carry_out();
            }
        }
        for lane in 0..self.lanes.handed_in.len() {
            while let Some(handed) = self.lanes.handed_in[lane].pop() {
                self.take_handed(handed);
            }
        }
        while let Some(handed) = self.lanes.door.take() {
            self.take_handed(handed);
        }
        self.take_orders();
    }

    fn take_orders(&mut self) {
        // Cheaper than to take nothing.
        if self.lanes.orders.is_empty() {
            return;
        }
        while let Some(order) = self.lanes.orders.take() {
            match order {
                MediaOrder::LetGo(reply) => self.let_go(reply),
                MediaOrder::TakenOver(link) => {
                    self.lanes.around.after = Some(link);
                    self.stand_among();
                }
                MediaOrder::TakeBack => self.take_back(),
                MediaOrder::Parted(side) => {
                    self.lanes.around.part(side);
                    self.stand_among();
                }
                MediaOrder::Snapshot(asked) => {
                    // Who asked may have gone meanwhile.
                    let _ = asked.send(self.snapshot());
                }
                MediaOrder::Ping(asked) => drop(asked.send(())),
                MediaOrder::Reload(config, tls) => {
                    self.shard.reload(&config);
                    self.gather.reload(config.msrp.batch_wait);
                    (self.config, self.tls) = (config, tls);
                }
                MediaOrder::Stop => self.stopping = true,
                MediaOrder::Capture(session, capture) => self.capture(session, capture),
            }
        }
    }

    fn snapshot(&self) -> MediaSnapshot {
        let usage = Usage { cpu: self.cpu, busy: thread_cpu(), alive: self.clock.now().since(self.started) };
        let engine = self.counts.named().to_vec();
        let held = vec![("timers", (self.shard.timers() + self.timers.len()) as u64)];
        MediaSnapshot { usage, counts: self.shard.counts().clone(), held, engine, queue_depth: self.lanes.depth() as u64 }
    }

    fn due(&mut self) {
        while let Some(due) = self.timers.due(self.now) {
            match due {
                Due::Opening(key) => self.opening_timed_out(key),
                Due::Finish(key) => self.close(key, Gone::Closed),
                Due::Accept(number) if self.resting > 0 => {
                    self.resting -= 1;
                    self.accept_on(number);
                }
                Due::Accept(_) => {}
                Due::Look => self.look_into_backlogs(),
            }
        }
        if self.shard.next_due().is_some_and(|at| at <= self.now) {
            self.shard.due(self.now, &mut self.out);
            self.carry_out();
        }
    }

    /// Sends and buries until there is nothing more to send or bury; each may bring about the other.
    fn settle(&mut self) {
        loop {
            if let Some(key) = self.dirty.pop_front() {
                self.flush(key);
            } else if let Some(key) = self.graves.pop() {
                self.bury(key);
            } else if let Some((connection, why)) = self.stillborn.pop() {
                self.shard.gone(self.now, connection, why, &mut self.out);
                self.carry_out();
            } else {
                break;
            }
        }
    }

    /// Carries out what the shard decided; it is called after every call of the shard.
    pub(super) fn carry_out(&mut self) {
        // An effect may call the shard again: what comes of that stands in a new list and follows.
        while !self.out.effects.is_empty() {
            let mut effects = std::mem::replace(&mut self.out.effects, std::mem::take(&mut self.effects));
            for effect in effects.drain(..) {
                self.carry_out_one(effect);
            }
            self.effects = effects;
        }
    }

    fn carry_out_one(&mut self, effect: MediaEffect) {
        match effect {
            MediaEffect::Send { connection, piece } => self.queue(connection, piece),
            MediaEffect::Connect { connection, to, tls } => self.connect(connection, to, tls.as_ref()),
            MediaEffect::Pause(connection) => self.pause(connection),
            MediaEffect::Resume(connection) => self.resume(connection),
            MediaEffect::Finish(connection) => self.finish(connection),
            MediaEffect::Abort(connection) => {
                if let Some(key) = self.links.of(connection) {
                    self.close(key, Gone::Closed);
                }
            }
            MediaEffect::HandOver { connection, core, octets } => self.hand_over(connection, core, octets),
            MediaEffect::Write { file, at, piece } => self.write(file, at, piece),
            MediaEffect::Create { file, path } => self.open_file(file, path, true),
            MediaEffect::Open { file, path } => self.open_file(file, path, false),
            MediaEffect::Sync(file) => self.sync_file(file),
            MediaEffect::Discard { file, delete } => self.discard_file(file, delete),
            MediaEffect::Read { file, octets } => self.read_file(file, octets),
            MediaEffect::Tell(report) => self.tell(report),
        }
    }

    fn queue(&mut self, connection: Connection, piece: Piece) {
        let Some(key) = self.links.of(connection) else { return };
        let link = self.links.get_mut(key).expect("named links are in the table");
        if link.closing.is_some() {
            return;
        }
        self.tap_sent(key, &piece);
        let link = self.links.get_mut(key).expect("a tap takes no link away");
        match piece {
            Piece::Lent { buffer, octets } if self.passing.is_peeked(buffer) => self.pass(key, buffer, &octets),
            Piece::Lent { buffer, octets } => link.queue.push_lent(buffer, octets, &mut self.buffers),
            Piece::Own(octets) if self.passing.is_looking() => self.join(key, octets),
            Piece::Own(octets) => link.queue.push_turn(octets, &mut self.buffers),
        }
        self.touch(key);
    }

    /// The connection has something to be flushed this turn.
    pub(super) fn touch(&mut self, key: Key) {
        let link: &mut Link = self.links.get_mut(key).expect("touched by somebody who looked it up");
        if !std::mem::replace(&mut link.dirty, true) {
            self.dirty.push_back(key);
        }
    }

    fn tell(&mut self, report: Report) {
        let shard = report.session().shard().wrapping_sub(self.first_signalling);
        match self.lanes.reports.get_mut(usize::from(shard)) {
            Some(lane) => lane.push(report),
            None => debug_assert!(false, "session keys name shards that there are"),
        }
    }

    /// Hands reports over and rings. Where a signalling core leaves too many lying, this one rests: reports are never lost,
    /// and memory for them is bounded; peers feel it as backpressure of TCP.
    fn report(&mut self) {
        loop {
            self.lanes.flush();
            let held = self.lanes.held();
            if held > 0 {
                // Nobody rings when a lane has room again.
                self.look_again = Some(self.now + REST);
            }
            if held <= MEDIA_REPORTS_HELD_MAX || self.stopping {
                return;
            }
            std::thread::sleep(REST);
            self.take_orders();
        }
    }

    /// The end of the thread: peers get a FIN, files that were written stay.
    fn close_all(&mut self) {
        for key in self.links.keys() {
            let link = self.links.get_mut(key).expect("the keys are of now");
            link.queue.clear(&mut self.buffers);
            // SAFETY: a plain call on a descriptor that we own.
            unsafe { libc::shutdown(link.fd(), libc::SHUT_RDWR) };
        }
        self.lanes.flush();
    }
}
