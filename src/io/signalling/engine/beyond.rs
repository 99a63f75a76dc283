//! One process takes over from another: a signalling core lets go of its listening sockets, exchanges messages with the other
//! process, and in the end gives it its connections.

use super::Engine;
use crate::base::clock::{Duration, Instant};
use crate::base::slab::Key;
use crate::base::transport::{Flow, Transport};
use crate::io::handover::link::{Letter, Link};
use crate::io::handover::wire::Frame;
use crate::io::handover::{BACKLOG_LOOKS, Side};
use crate::io::ring::Plain;
use crate::io::signalling::lanes::{LetGone, Passed};
use crate::io::signalling::op::{self, Op};
use crate::io::signalling::owner::Whose;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// How long this process stays after its last connection went to the other one, which may have sent answers for it here.
const GIVEN_LINGER: Duration = Duration::from_secs(1);

/// Whether the listening sockets are read.
#[derive(Debug)]
pub(super) enum Hold {
    Reading,
    /// So many multishot operations have not ended yet; then this is told.
    Ending(usize, Sender<LetGone>),
    LetGo,
}

impl Hold {
    /// An operation on a listening socket has ended. True: it is not to be armed again.
    pub fn ended(&mut self) -> bool {
        if let Hold::Ending(left, _) = self {
            *left = left.saturating_sub(1);
        }
        !matches!(self, Hold::Reading)
    }
}

impl Engine {
    /// Ends reading. What the kernel has given us until then is ours; what comes later waits in the sockets.
    pub(super) fn let_go(&mut self, reply: Sender<LetGone>) {
        self.last_resort.end(self.clock.now(), &self.udp);
        let mut armed = 0;
        for socket in 0..self.udp.count() {
            armed += 1;
            self.tcp.wanted.push(Plain::cancel(op::name(Op::Datagram, socket as u32, 0), op::name(Op::Cancel, 0, 0)));
        }
        for listener in (0..self.tcp.listeners()).filter(|listener| !self.deaf.contains(listener)) {
            armed += 1;
            self.tcp.wanted.push(Plain::cancel(op::name(Op::Accept, listener as u32, 0), op::name(Op::Cancel, 0, 0)));
        }
        self.deaf.clear();
        self.hold = Hold::Ending(armed, reply);
    }

    /// Tells what is told with the sockets, once nothing of them is under way.
    pub(super) fn report_let_go(&mut self) {
        if matches!(self.hold, Hold::Ending(0, _))
            && let Hold::Ending(_, reply) = std::mem::replace(&mut self.hold, Hold::LetGo)
        {
            // Who asked may have given up.
            let _ = reply.send(LetGone { served: self.shard.served(), registrations: self.shard.learnt() });
        }
    }

    /// Another process reads the sockets from here on.
    pub(super) fn taken_over(&mut self, now: Instant, link: Arc<Link>) {
        self.links.around.after = Some(link);
        self.draining.get_or_insert(now);
        self.shard.hand_on();
    }

    /// The other process is gone, or never came.
    pub(super) fn take_back(&mut self, now: Instant, draining: bool) {
        self.links.around.after = None;
        self.shard.take_back(draining);
        self.draining = draining.then_some(now);
        self.drained &= draining;
        self.reading_since = now;
        if !matches!(std::mem::replace(&mut self.hold, Hold::Reading), Hold::Reading) {
            if let Err(error) = self.listen() {
                tracing::error!(%error, "the listening sockets cannot be read again");
            }
            self.looks = BACKLOG_LOOKS.iter().rev().map(|wait| now + *wait).collect();
        }
    }

    /// Accepts anew, which takes what waits. The kernel tells of a connection one of those who accept, and a process that died stays
    /// one of them for a moment.
    pub(super) fn look_into_backlogs(&mut self) {
        if matches!(self.hold, Hold::Reading) {
            for listener in (0..self.tcp.listeners()).filter(|listener| !self.deaf.contains(listener)) {
                // Its end arms it again.
                self.tcp.wanted.push(Plain::cancel(op::name(Op::Accept, listener as u32, 0), op::name(Op::Cancel, 0, 0)));
            }
        }
    }

    /// Something came from another process.
    pub(super) fn letter(&mut self, letter: Letter) {
        let now = self.clock.now();
        match letter {
            Letter::Passed { from, passed: Passed::Received { mut flow, local, octets, arrived }, .. } => {
                if flow.transport == Transport::Udp {
                    // It goes out of our own socket at the same address.
                    flow.core = self.core;
                }
                let Self { owners, links, shard, .. } = self;
                match owners.of(&octets, self.core, &links.around, Some(from), |octets| shard.knows(octets)) {
                    Whose::Core(core) if core == self.core => self.passed(Passed::Received { flow, local, octets, arrived }),
                    whose => self.links.give(whose, Passed::Received { flow, local, octets, arrived }),
                }
            }
            Letter::Passed { from, passed: passed @ Passed::Send { .. }, .. } => self.send_elsewhere(now, Some(from), passed),
            Letter::Passed { core, passed, .. } => match core {
                Some(core) if core != self.core => self.links.pass(core, passed),
                _ => self.passed(passed),
            },
            Letter::Adopt { flow, socket, octets } => self.adopt(now, flow, socket, &octets),
        }
    }

    /// A message for a flow that may be another core's, another process's, or was one's that is gone. `from`: the process that
    /// gave it to us does not get it back.
    pub(super) fn send_elsewhere(&mut self, now: Instant, from: Option<Side>, passed: Passed) {
        let Passed::Send { flow, .. } = &passed else { return };
        let (core, own) = (flow.core, self.links.around.own);
        if core == self.core {
            return self.passed(passed);
        }
        if own.contains(core) {
            return self.links.pass(core, passed);
        }
        // A connection of a process that ended was adopted by the core that stands for the one that had it.
        let heir = own.at((usize::from(core) % usize::from(own.count.max(1))) as u8);
        let adopted = self.adopted.get(&(core, flow.connection)).copied();
        if adopted.is_none() && self.links.around.side_of(core).is_some_and(|side| from != Some(side)) {
            return self.links.pass(core, passed);
        }
        if heir != self.core {
            return self.links.pass(heir, passed);
        }
        let Passed::Send { flow, fallback, octets, mark, call } = passed else { return };
        match (adopted, fallback) {
            (Some(connection), fallback) => {
                let flow = Flow { core: self.core, connection, ..flow };
                self.send_on(now, flow, fallback.as_ref(), &octets, mark, call.as_deref());
            }
            // RFC 3261 §18.2.2: whoever had the connection is gone; the sent-by address of the Via is tried.
            (None, Some(peer)) => self.send_to(now, &peer, &octets, mark, call.as_deref()),
            (None, None) => self.failed.push(mark),
        }
    }

    /// A connection of a process that ends is ours from here on.
    fn adopt(&mut self, now: Instant, flow: Flow, socket: OwnedFd, octets: &[u8]) {
        if let Some(key) = self.tcp.adopt(now, flow, socket, octets) {
            self.adopted.insert((flow.core, flow.connection), key.as_u64());
        }
    }

    /// Whether everything has gone to the process that took over, if one did, that can go there. Begins with it when first asked.
    pub(super) fn has_given(&mut self) -> bool {
        if self.links.around.after.is_some() && !std::mem::replace(&mut self.giving, true) {
            self.tcp.begin_giving();
        }
        // What the other process sent for a connection before it got it is given back to it.
        let settled = self.gave.is_none_or(|at| self.clock.now().since(at) >= GIVEN_LINGER);
        self.tcp.giving() == 0 && settled
    }

    /// The receiving of a connection has ended that is to be given away.
    pub(super) fn give_connection(&mut self, key: Key) {
        let Some((flow, socket, octets)) = self.tcp.give(key) else { return };
        if let Some(link) = &self.links.around.after {
            self.given.insert(flow.connection);
            self.gave = Some(self.clock.now());
            link.send(Frame::Adopt { flow }, octets.into(), Some(socket.into()));
        }
    }
}
