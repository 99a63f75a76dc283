//! Receiving: credit, the two groups of buffers, readers that pause, and what happens when buffers are scarce.
//!
//! A receive is armed with a *credit* (kernel 6.17): it ends by itself after so many octets, and is armed again when the
//! session still takes them. So one fat sender cannot eat the ring, and pausing costs nothing: the credit just is not renewed.
//! On older kernels a pause cancels, and what the kernel had already delivered still comes in.
//!
//! Where more connections have something than the buffers of bulk hold, they take turns: as many are armed as the free buffers
//! hold credits, the others stand in a queue, and so does whoever has used its credit up. To arm them all would tell most of them
//! only that no buffer is left.

use super::acks::{self, Brought};
use super::buffers::{BULK, Buffers, CHAT};
use super::connection::{Finish, Link, Receiving, Stage};
use super::engine::Engine;
use super::op::receive::Received;
use super::op::{self, Kind};
use crate::base::slab::Key;
use crate::io::ring::{Completion, Group};
use crate::shard::media_outbox::{Buffer, Connection, Gone};
use std::time::Duration;

/// Octets that one receive may bring before the session is asked again, by group.
const CREDIT: [u32; 2] = [64 * 1024, 256 * 1024];
/// A connection that uses its chat credit up within this time is bulk; one that needs longer for a bulk credit is not.
const BULK_WITHIN: Duration = Duration::from_millis(20);
/// How long a reader may hold buffers that others wait for, before its octets are copied out.
const STUCK_MAX: Duration = Duration::from_millis(1);
/// Receives of chat armed again for each buffer that is there: with incremental buffers several share one.
const ARMED_PER_BUFFER: usize = 4;

impl Engine {
    /// Arms the receive, if nothing speaks against it.
    pub(super) fn arm(&mut self, key: Key) {
        if !self.may_receive(key) {
            return;
        }
        if self.passes(key) {
            return self.watch(key);
        }
        let link = self.links.get_mut(key).expect("passes only looks");
        let credit = self.features.credit.then_some(CREDIT[usize::from(link.group)]);
        link.receiving = Receiving::Armed(link.group);
        (link.armed_at, link.received) = (self.now, 0);
        link.under_way += 1;
        let operation = op::receive::arm(link.fd(), link.group, credit, key);
        self.submit(&operation);
    }

    pub(super) fn may_receive(&self, key: Key) -> bool {
        self.links.get(key).is_some_and(Link::may_receive)
    }

    /// A completion of a connection's receive.
    pub(super) fn received(&mut self, key: Key, completion: &Completion) {
        let link = self.links.get_mut(key).expect("completions find a link that is there");
        let (Receiving::Armed(group) | Receiving::Ending(group)) = link.receiving else {
            debug_assert!(false, "a receive completes only while it is armed");
            return;
        };
        if !completion.more() {
            link.receiving = Receiving::Idle;
            link.under_way -= 1;
        }
        match op::receive::read(completion) {
            Received::Octets { buffer, octets } => {
                link.received = link.received.saturating_add(octets);
                self.gather.heard(octets, &mut link.window);
                self.counts.receives += 1;
                self.counts.octets_in += u64::from(octets);
                let (buffer, offset) = self.buffers.filled(group, buffer, octets, completion.buffer_more());
                let heads = self.shard.counts().heads;
                self.came_in(key, buffer, offset, octets);
                self.buffers.release(buffer);
                let heads = self.shard.counts().heads - heads;
                if let Some(link) = self.links.get_mut(key) {
                    link.lengths.add(octets, heads as u32);
                }
                self.acknowledge(key, octets, heads);
            }
            Received::End => self.peer_ended(key),
            Received::NoBuffer => {
                self.counts.buffers_missing += 1;
                link.starved = true;
                self.starved[usize::from(group)].push_back(key);
            }
            Received::Again => {}
            Received::Broken => self.close(key, Gone::Broken),
        }
        self.after_receive(key);
    }

    /// Decides how what was received is acknowledged.
    fn acknowledge(&mut self, key: Key, octets: u32, heads: u64) {
        let Some(link) = self.links.get_mut(key).filter(|link| link.closing.is_none()) else { return };
        let whole = link.connection.is_some_and(|connection| self.shard.is_between_messages(connection));
        if link.acks.received(self.now, Brought { octets, heads, whole }) {
            acks::ask(link.fd());
        }
    }

    /// Arms again, promotes, hands over or buries, as the receive's end allows.
    pub(super) fn after_receive(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let quick = self.now.since(link.armed_at) < BULK_WITHIN;
        match link.receiving {
            Receiving::Idle => {
                if link.received >= CREDIT[usize::from(link.group)] / 2 {
                    link.group = if quick { BULK } else { CHAT };
                }
                if link.closing.is_some() {
                    self.bury_when_quiet(key);
                } else if link.handing.is_some() {
                    self.send_handed(key);
                } else {
                    self.arm_in_turn(key);
                }
            }
            // Without credit nothing ends by itself: a receive in the wrong group is cancelled once and armed in the right one.
            Receiving::Armed(CHAT) if !self.features.credit && quick && link.received >= 4 * CREDIT[0] => {
                link.group = BULK;
                self.cancel_receive(key);
            }
            _ => {}
        }
    }

    /// Arms again, behind those that wait for buffers of bulk.
    fn arm_in_turn(&mut self, key: Key) {
        let taken = self.buffers.available(BULK) == 0 || !self.starved[usize::from(BULK)].is_empty();
        let passes = taken && self.passes(key);
        match self.links.get_mut(key) {
            Some(link) if taken && link.group == BULK && link.may_receive() && !passes => {
                link.starved = true;
                self.starved[usize::from(BULK)].push_back(key);
            }
            _ => self.arm(key),
        }
    }

    /// Octets came in on a connection; the caller holds the buffer.
    fn came_in(&mut self, key: Key, buffer: Buffer, offset: u32, octets: u32) {
        let link = self.links.get_mut(key).expect("completions find a link that is there");
        if link.closing.is_some() {
            return;
        }
        if link.tls.is_some() {
            return self.open_sealed(key, buffer, offset, octets);
        }
        self.deliver(key, buffer, offset, octets);
    }

    /// Plain octets of a connection go to the shard; the caller holds the buffer.
    pub(super) fn deliver(&mut self, key: Key, buffer: Buffer, offset: u32, octets: u32) {
        let Some(link) = self.links.get_mut(key).filter(|link| link.closing.is_none()) else { return };
        if let Some(handing) = &mut link.handing {
            handing.octets.extend_from_slice(self.buffers.octets(buffer, offset, octets));
            return;
        }
        let Some(connection) = link.connection else { return };
        self.tap_received(key, buffer, offset, octets);
        let received = self.buffers.octets(buffer, offset, octets);
        self.shard.receive(self.now, connection, buffer, received, offset, &mut self.out);
        self.carry_out();
    }

    /// The peer's FIN, or its close_notify.
    pub(super) fn peer_ended(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key).filter(|link| !link.ended && link.closing.is_none()) else { return };
        link.ended = true;
        if link.stage != Stage::Open {
            return self.opening_failed(key);
        }
        if link.handing.is_some() {
            return;
        }
        if let Some(connection) = link.connection {
            self.shard.ended(self.now, connection, &mut self.out);
            self.carry_out();
        }
        if self.links.get(key).is_some_and(|link| link.finish == Finish::Done) {
            self.close(key, Gone::Closed);
        }
    }

    /// Some reader of this connection's octets is slow.
    pub(super) fn pause(&mut self, connection: Connection) {
        let Some(key) = self.links.of(connection) else { return };
        let link = self.links.get_mut(key).expect("named links are in the table");
        // Who finishes must hear the peer's FIN.
        link.paused = link.finish == Finish::No;
        if link.paused && !self.features.credit {
            self.cancel_receive(key);
        }
    }

    /// Its readers take octets again.
    pub(super) fn resume(&mut self, connection: Connection) {
        let Some(key) = self.links.of(connection) else { return };
        self.links.get_mut(key).expect("named links are in the table").paused = false;
        self.arm(key);
    }

    pub(super) fn cancel_receive(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        match link.receiving {
            Receiving::Armed(group) => {
                link.receiving = Receiving::Ending(group);
                self.submit(&op::cancel(Kind::Receive, key));
            }
            Receiving::Watched => self.submit(&op::cancel(Kind::Readable, key)),
            Receiving::Idle | Receiving::Ending(_) | Receiving::Looking => {}
        }
    }

    /// Gives scarce buffers back and lets those receive that found none.
    pub(super) fn relieve(&mut self) {
        for group in [BULK, CHAT] {
            let scarce = self.buffers.available(group) < (self.buffers.count(group) / 4).max(1);
            if scarce || !self.starved[usize::from(group)].is_empty() {
                self.free_buffers(group);
            }
            self.arm_starved(group);
        }
    }

    /// Copies out what slow readers and files hold, longest first, until half of the group is free.
    fn free_buffers(&mut self, group: Group) {
        let enough = |buffers: &Buffers| buffers.available(group) >= (buffers.count(group) / 2).max(1);
        while !enough(&self.buffers) {
            let Some(key) = self.stuck.front().copied() else { break };
            let Some(link) = self.links.get_mut(key) else {
                self.stuck.pop_front();
                continue;
            };
            let until = link.blocked.filter(|_| link.queue.holds_buffers()).map(|since| since + STUCK_MAX);
            if let Some(until) = until.filter(|until| *until > self.now) {
                self.look_again = Some(self.look_again.map_or(until, |at| at.min(until)));
                return;
            }
            self.stuck.pop_front();
            link.stuck = false;
            if until.is_none() {
                continue;
            }
            self.counts.octets_copied_out += link.queue.copy_out(&self.out.octets, &mut self.buffers) as u64;
        }
        if !enough(&self.buffers) {
            self.counts.octets_copied_out += self.files.copy_out(&mut self.buffers) as u64;
        }
    }

    /// Only as many as there are buffers for: to arm without one would end in the same completion, for ever.
    fn arm_starved(&mut self, group: Group) {
        let available = usize::from(self.buffers.available(group));
        let most = match group {
            BULK => (available * self.buffers.octets_each(BULK) as usize / CREDIT[1] as usize).max(available.min(1)),
            _ => available * ARMED_PER_BUFFER,
        };
        for _ in 0..most {
            let Some(key) = self.starved[usize::from(group)].pop_front() else { return };
            if let Some(link) = self.links.get_mut(key) {
                link.starved = false;
                self.arm(key);
            }
        }
        // Those that were armed may have nothing, and then no completion would bring the next one's turn.
        if most > 0 && !self.starved[usize::from(group)].is_empty() {
            self.look_again = Some(self.now);
        }
    }
}
