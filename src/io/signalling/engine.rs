//! The thread of a signalling core: one ring, one shard, one turn after the other.
//!
//! ```text
//! orders, lanes, completions  -->  Signalling  -->  Outbox  -->  datagrams, connections, lanes
//!                 ^                                                        |
//!                 +------ sleep in the ring until something comes or is due -----+
//! ```
//! A message is framed where it lands; if another core owns it, that core gets it by a lane, and its answer comes back by one.

mod beyond;
mod receiving;
mod sending;

use self::beyond::Hold;
use super::dropped::Dropped;
use super::gather::Gather;
use super::hep::Hep;
use super::lanes::{Links, Mark, Order, Passed};
use super::last_resort::LastResort;
use super::op::{self, Op};
use super::owner::Owners;
use super::rate::Rate;
use super::sockets::Bound;
use super::tcp::Tcp;
use super::udp::{self, Udp};
use super::watch::Watch;
use crate::base::clock::{Duration, Instant};
use crate::base::transport::Transport;
use crate::config::Config;
use crate::io::clock::Clock;
use crate::io::control::Event;
use crate::io::handover::Side;
use crate::io::ring::{BufferRing, Completion, Plain, Ring, Wait};
use crate::io::telemetry::{SignallingSnapshot, usage};
use crate::io::tls::Tls;
use crate::shard::exchange::{Command, Report};
use crate::shard::outbox::{Effect, Outbox};
use crate::shard::record::Cdr;
use crate::shard::registrations::subscription::Learnt;
use crate::shard::signalling::Signalling;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// Submissions between two enters: every connection of a turn may arm one operation.
const SUBMISSIONS: u32 = 1024;
/// Completions the kernel can hold: all lent buffers at once, and every connection ending in one turn.
const COMPLETIONS: u32 = 32 * 1024;
/// Items taken from one lane in one turn.
const LANE_A_TURN: usize = 256;
/// Buffers lent for streams, and their size: a message of the usual kind is whole in one.
const STREAM_BUFFERS: u16 = 512;
const STREAM_OCTETS: u32 = 16 * 1024;
/// How often connections are looked at for those that waited too long.
const SWEEP: Duration = Duration::from_millis(500);
/// A wait that took no longer found completions there already.
const NO_SLEEP: Duration = Duration::from_micros(20);
/// How often effects of failed sends are followed within one turn; the rest waits for the next.
const ROUNDS: usize = 8;

/// What a signalling core is started with.
pub struct Setup {
    /// Its number: the first two hex digits of its branches, tags and users.
    pub core: u8,
    /// The CPU it is pinned to.
    pub cpu: usize,
    pub sockets: Vec<Bound>,
    pub config: Arc<Config>,
    pub tls: Option<Tls>,
    pub clock: Clock,
    /// The kernel has a minimum wait.
    pub min_wait: bool,
    pub links: Links,
    /// What the process knew that this one takes over from.
    pub learnt: Arc<Vec<Learnt>>,
}

/// One signalling core.
pub struct Engine {
    // The ring is dropped before what it was lent.
    ring: Ring,
    datagrams: BufferRing,
    streams: BufferRing,
    core: u8,
    cpu: usize,
    clock: Clock,
    started: Instant,
    config: Arc<Config>,
    udp: Udp,
    tcp: Tcp,
    shard: Signalling,
    watch: Watch,
    /// Our listening addresses, for messages on connections that another core has.
    listening: Vec<(Transport, SocketAddr)>,
    links: Links,
    owners: Owners,
    out: Outbox,
    failed: Vec<Mark>,
    completions: Vec<Completion>,
    gather: Gather,
    /// Messages that came in with this turn.
    messages: u32,
    /// When the ring last gave something, which is when what lies in a stream is taken to have come.
    entered: Instant,
    /// When the ring was last looked at.
    looked: Instant,
    /// For how long this core has had nothing to do.
    slept: Duration,
    swept: Instant,
    /// Listening sockets whose accepting the kernel ended with an error; armed again by the sweep.
    deaf: Vec<usize>,
    /// Whether the listening sockets are read.
    hold: Hold,
    reading_since: Instant,
    /// When backlogs are to be looked into, the next last.
    looks: Vec<Instant>,
    /// Connections that went to the process that took over, where something may still come for them; and those that came from a
    /// process that ended, by core and number there.
    giving: bool,
    gave: Option<Instant>,
    given: HashSet<u64>,
    adopted: HashMap<(u8, u64), u64>,
    queue_depth: u64,
    unanswerable: u64,
    dropped: Dropped,
    rate: Rate,
    last_resort: LastResort,
    draining: Option<Instant>,
    drained: bool,
    stop: Option<Instant>,
}

impl Engine {
    /// Makes the ring, in the thread that will run it, and arms every socket.
    ///
    /// # Errors
    /// What the kernel says where it lacks something; `io::probe` has checked for it before.
    pub fn new(setup: Setup, shard: Signalling) -> io::Result<Self> {
        let Setup { core, cpu, sockets, config, tls, clock, min_wait, links, learnt } = setup;
        let ring = Ring::new(SUBMISSIONS, COMPLETIONS, false)?;
        let datagrams = BufferRing::new(&ring, 0, udp::BUFFERS, udp::BUFFER_OCTETS, false)?;
        let streams = BufferRing::new(&ring, 1, STREAM_BUFFERS, STREAM_OCTETS, false)?;
        let listening = sockets.iter().map(|bound| (bound.transport, bound.address)).collect();
        let (udp, tcp) = sockets.into_iter().partition(|bound| bound.transport == Transport::Udp);
        let now = clock.now();
        let gather = config.sip.batch_wait;
        let mut engine = Self {
            tcp: Tcp::new(core, tcp, streams.group(), tls, config.sip.max_message, config.limits.clone()),
            udp: Udp::new(udp),
            watch: Watch::new(Hep::open(config.sip.hep.as_ref()), links.media_orders.clone()),
            listening,
            ring,
            datagrams,
            streams,
            core,
            cpu,
            clock,
            started: now,
            config,
            shard,
            links,
            owners: Owners::default(),
            out: Outbox::default(),
            failed: Vec::new(),
            completions: Vec::new(),
            gather: Gather::new(gather, min_wait, now),
            messages: 0,
            entered: now,
            looked: now,
            slept: Duration::ZERO,
            swept: now,
            deaf: Vec::new(),
            hold: Hold::Reading,
            reading_since: now,
            looks: Vec::new(),
            giving: false,
            gave: None,
            given: HashSet::new(),
            adopted: HashMap::new(),
            queue_depth: 0,
            unanswerable: 0,
            dropped: Dropped::default(),
            rate: Rate::default(),
            last_resort: LastResort::default(),
            draining: None,
            drained: false,
            stop: None,
        };
        engine.listen()?;
        engine.arm_wake()?;
        engine.shard.learn_from(now, &learnt, &mut engine.out);
        Ok(engine)
    }

    fn listen(&mut self) -> io::Result<()> {
        for socket in 0..self.udp.count() {
            self.arm_datagrams(socket)?;
        }
        self.tcp.listen();
        Ok(())
    }

    fn arm_datagrams(&mut self, socket: usize) -> io::Result<()> {
        let receive = self.udp.receive(socket, self.datagrams.group());
        // SAFETY: the operation points to the shape of recvmsg in `udp`, which is boxed and outlives the ring.
        unsafe { self.ring.push(&receive) }
    }

    fn arm_wake(&mut self) -> io::Result<()> {
        self.ring.push_plain(&Plain::poll_always(self.links.wake.as_raw_fd(), libc::POLLIN, op::name(Op::Wake, 0, 0)))
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// When the ring itself fails.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            self.turn()?;
            if self.stop.is_some_and(|until| self.clock.now() >= until || self.is_quiet() && self.has_given()) {
                self.shard.give_up(self.clock.now(), &mut self.out);
                self.carry_out();
                self.flush()?;
                self.tcp.stop();
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let busy = self.take_orders() + self.drain_lanes() + self.take_completions()?;
        self.queue_depth = self.queue_depth.max(busy as u64);
        let now = self.clock.now();
        self.gather.turn(now, std::mem::take(&mut self.messages));
        if self.shard.next_due().is_some_and(|due| due <= now) {
            self.shard.due(now, &mut self.out);
        }
        if (self.tcp.open() > 0 || !self.deaf.is_empty()) && now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.tcp.sweep(now);
            for listener in self.deaf.drain(..) {
                self.tcp.accept(listener);
            }
        }
        if self.looks.pop_if(|at| *at <= now).is_some() {
            self.look_into_backlogs();
        }
        self.carry_out();
        self.flush()?;
        if matches!(self.hold, Hold::Reading) {
            let percent = self.config.limits.overload_refusal_percent;
            self.last_resort.look(now, self.shard.new_calls(), self.slept, percent, &self.udp);
        }
        self.report_let_go();
        self.report_drained(now);
        Ok(())
    }

    // What comes in.

    fn take_orders(&mut self) -> usize {
        let mut taken = 0;
        while let Some(order) = self.links.orders.take() {
            taken += 1;
            let now = self.clock.now();
            match order {
                Order::Reload { config, tls, fingerprint } => {
                    if self.config.sip.hep != config.sip.hep {
                        self.watch.hep = Hep::open(config.sip.hep.as_ref());
                    }
                    self.config = config.clone();
                    self.tcp.reload(tls, config.sip.max_message, config.limits.clone());
                    self.gather.reload(config.sip.batch_wait);
                    self.shard.certified(fingerprint.as_deref());
                    self.shard.reload(now, config, &mut self.out);
                }
                Order::Drain => {
                    self.draining.get_or_insert(now);
                    self.shard.drain();
                }
                Order::LetGo(reply) => self.let_go(reply),
                Order::TakenOver(link) => self.taken_over(now, link),
                Order::TakeBack { draining } => self.take_back(now, draining),
                Order::Parted(side) => self.links.around.part(side),
                Order::Stop { linger } => {
                    self.stop.get_or_insert(now + linger);
                    self.shard.stop(now, &mut self.out);
                }
                // Who asked may have gone meanwhile.
                Order::Snapshot(reply) => drop(reply.send(self.snapshot(now))),
                Order::Sessions(limit, reply) => drop(reply.send(self.shard.sessions(limit))),
                Order::Ping(reply) => drop(reply.send(())),
                Order::Recent(reply) => drop(reply.send(self.shard.recent())),
                Order::Ladder(call_id, reply) => drop(reply.send(self.shard.ladder(&call_id))),
                Order::Capture(capture) => self.watch.begin(&self.shard, capture),
            }
        }
        taken
    }

    fn drain_lanes(&mut self) -> usize {
        let Self { links, shard, out, clock, .. } = self;
        let mut taken = links.fetched.drain(LANE_A_TURN, |(ticket, answer)| shard.fetched(clock.now(), ticket, answer, out));
        for media in &mut links.media {
            taken += media.reports.drain(LANE_A_TURN, |report| shard.reported(clock.now(), report, out));
        }
        for _ in 0..LANE_A_TURN {
            let Some(letter) = self.links.door.take() else { break };
            taken += 1;
            self.letter(letter);
        }
        for from in 0..self.links.cores.len() {
            for _ in 0..LANE_A_TURN {
                let Some(passed) = self.links.cores[from].as_mut().and_then(|link| link.receive.pop()) else { break };
                taken += 1;
                self.passed(passed);
            }
        }
        taken
    }

    fn passed(&mut self, passed: Passed) {
        let now = self.clock.now();
        match passed {
            Passed::Received { flow, local, octets, arrived } => {
                self.reception(now).desk.serve(flow, &octets, arrived, local);
            }
            Passed::Send { flow, fallback, octets, mark, call } if flow.core == self.core => {
                if flow.transport != Transport::Udp && self.given.contains(&flow.connection) {
                    return self.links.pass_on(Side::After, Passed::Send { flow, fallback, octets, mark, call });
                }
                self.send_on(now, flow, fallback.as_ref(), &octets, mark, call.as_deref());
            }
            passed @ Passed::Send { .. } => self.send_elsewhere(now, None, passed),
            Passed::Failed(tag) => self.shard.failed(now, tag, &mut self.out),
            Passed::Registered { user, clients } => self.shard.registered_elsewhere(&user, clients, &mut self.out),
        }
    }

    fn take_completions(&mut self) -> io::Result<usize> {
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.reap(&mut completions);
        for completion in &completions {
            self.completed(completion)?;
        }
        self.tcp.leave(self.clock.now());
        let count = completions.len();
        completions.clear();
        self.completions = completions;
        Ok(count)
    }

    fn completed(&mut self, completion: &Completion) -> io::Result<()> {
        let Some((op, slot, generation)) = op::read(completion.user_data) else { return Ok(()) };
        match op {
            Op::Datagram => return self.datagram(slot as usize, completion),
            Op::Accept => self.accepted(slot as usize, completion),
            Op::Receive => self.received(slot, generation, completion),
            Op::Writable => {
                if let Some(key) = self.tcp.find(slot, generation) {
                    self.tcp.writable(self.clock.now(), key);
                }
            }
            Op::Wake if completion.more() => {}
            Op::Wake => return self.arm_wake(),
            // The flush of this turn tries again.
            Op::Room | Op::Cancel => {}
        }
        Ok(())
    }

    // What goes out.

    /// Carries out effects in order, and those of the failures they bring.
    fn carry_out(&mut self) {
        for _ in 0..ROUNDS {
            let mut out = std::mem::take(&mut self.out);
            let now = self.clock.now();
            let mut unasked = Vec::new();
            for effect in out.effects.drain(..) {
                match effect {
                    Effect::Send { to, octets, tag } => {
                        let mark = Mark { core: self.core, tag };
                        self.send(now, &to, &out.octets[octets], mark);
                    }
                    Effect::Media { core, command } => self.media(now, core, command),
                    Effect::Fetch { ticket, query } => {
                        if let Err(query) = self.links.query(ticket, query) {
                            unasked.push((ticket, query.unanswered()));
                        }
                    }
                    Effect::Record(record) => {
                        log(&record);
                        self.links.records.leave(record);
                    }
                    Effect::Registered { user, clients } => {
                        let core = self.links.around.own.at(self.shard.place_of(&user).unwrap_or(self.links.index));
                        self.links.pass(core, Passed::Registered { user, clients });
                    }
                    Effect::Dropped { flow, octets, cause } => self.dropped.note(now, &flow, octets, cause),
                }
            }
            if !out.refusals.is_empty() {
                self.links.records.leave_all(std::mem::take(&mut out.refusals));
            }
            out.clear();
            // What the failures below bring is written into the box that has its memory already.
            self.out = out;
            for (ticket, answer) in unasked {
                self.shard.fetched(now, ticket, answer, &mut self.out);
            }
            self.failed.append(&mut self.tcp.failed);
            if self.failed.is_empty() && self.out.effects.is_empty() {
                return;
            }
            self.tell_failed(now);
        }
    }

    fn tell_failed(&mut self, now: Instant) {
        for mark in std::mem::take(&mut self.failed) {
            if !mark.wanted() {
                continue;
            }
            if mark.core == self.core {
                self.shard.failed(now, mark.tag, &mut self.out);
            } else {
                self.links.pass(mark.core, Passed::Failed(mark.tag));
            }
        }
    }

    fn media(&mut self, now: Instant, core: u8, command: Command) {
        let Err(command) = self.links.command(now, core, command) else { return };
        // A full lane: the session that was to begin does not. What runs already has its place in the lane's overflow.
        if let Command::Open(open) = command {
            let cause = crate::shard::exchange::LegFailure::Connect;
            self.shard.reported(now, Report::LegFailed { session: open.session, leg: 0, cause }, &mut self.out);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { udp, failed, ring, .. } = self;
        let mut polls = Vec::new();
        udp.flush(|mark| failed.push(mark), |socket, fd| polls.push((socket, fd)));
        for (socket, fd) in polls {
            ring.push_plain(&Plain::poll(fd, libc::POLLOUT, op::name(Op::Room, socket as u32, 0)))?;
        }
        self.tcp.flush();
        for operation in self.tcp.wanted.drain(..) {
            ring.push_plain(&operation)?;
        }
        self.datagrams.publish();
        self.streams.publish();
        self.links.ring(self.clock.now());
        Ok(())
    }

    // Sleep.

    fn wait(&mut self) -> io::Result<()> {
        let now = self.clock.now();
        let pending = !self.failed.is_empty() || !self.tcp.failed.is_empty() || !self.out.effects.is_empty();
        let mut until = self.shard.next_due().unwrap_or(now + Duration::from_secs(60));
        until = until.min(self.links.next_ring(now).unwrap_or(until));
        if self.tcp.open() > 0 || !self.deaf.is_empty() {
            until = until.min(self.swept + SWEEP);
        }
        if self.draining.is_some() && !self.drained || self.stop.is_some() {
            until = until.min(now + Duration::from_millis(50));
        }
        until = until.min(self.last_resort.due().unwrap_or(until));
        until = until.min(self.looks.last().copied().unwrap_or(until));
        let links = &mut self.links;
        let sleep = !pending && links.wake.clone().sleeping.may_wait(|| links.is_waiting());
        let longest = if sleep { until.since(now) } else { Duration::ZERO };
        let (gather, completions) = self.gather.wait();
        let waited = self.ring.wait(Wait { timeout: Some(longest), gather: gather.min(longest), completions });
        self.links.wake.sleeping.awake();
        // What lies in a stream now came after the last look, unless there was a sleep between: then it came at its end.
        let after = self.clock.now();
        self.entered = if sleep && after.since(now) > NO_SLEEP { after } else { self.looked };
        if sleep {
            self.slept += after.since(now);
        }
        self.looked = after;
        waited
    }

    // The end, and what is said about it all.

    /// No session is left, and for T1 none was: the last answer went out, and would have been asked for again.
    fn report_drained(&mut self, now: Instant) {
        let Some(since) = &mut self.draining else { return };
        let counts = self.shard.counts();
        if counts.dialogs > 0 || counts.sessions > 0 {
            *since = now;
        }
        if !self.drained && (self.shard.is_idle() || now.since(*since) >= self.config.sip.t1) {
            self.drained = true;
            self.links.process.tell(Event::Drained(self.core));
        }
    }

    fn is_quiet(&self) -> bool {
        let counts = self.shard.counts();
        counts.dialogs == 0 && counts.sessions == 0 && !self.udp.is_waiting() && self.out.effects.is_empty()
    }

    fn snapshot(&mut self, now: Instant) -> SignallingSnapshot {
        let mut engine: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (end, count) in &self.tcp.ended {
            engine.insert(end.label(), *count);
        }
        engine.insert("refused-by-limit", self.tcp.refused);
        engine.insert("handshake-refused", self.tcp.handshakes_refused);
        engine.insert("too-many-requests", self.rate.refused);
        engine.insert("datagram-dropped", self.udp.dropped);
        engine.insert("datagram-not-taken", self.udp.not_taken());
        engine.insert("unanswerable", self.unanswerable);
        engine.insert("lane-full", self.links.dropped);
        if let Some(hep) = &self.watch.hep {
            engine.insert("hep-dropped", hep.dropped);
        }
        SignallingSnapshot {
            usage: usage(self.cpu, self.started, now),
            counts: self.shard.counts().clone(),
            held: self.shard.held().to_vec(),
            queue_depth: std::mem::take(&mut self.queue_depth),
            connections: self.tcp.open() as u64,
            dropped_share: self.last_resort.share(),
            engine,
        }
    }
}

/// A refusal is worth a line of the log with its cause; a session that ran is in the call records.
fn log(record: &Cdr) {
    let Cdr { case, service, call_id, originator, recipient, status, cause, .. } = record;
    if *status >= 300 {
        tracing::info!(case, service, call_id, originator, recipient, status, cause, "refused");
    } else {
        tracing::debug!(case, service, call_id, status, cause, "session ended");
    }
}
