//! RFC 4975, CR 8.2.1.2, 8.3.1.5: one media core's whole MSRP state, a back-to-back user agent of one origin and many targets.
//!
//! ```text
//! receive ─> Reader ─> addressed ──> SEND ─────> verdict ─> begin, more, end ─> targets   (octets lent, never copied)
//!                        │                             └──> sinks (files)      <─ sources (files)
//!                        ├─> REPORT ───> the message's sender, one truth
//!                        ├─> response ─> its transaction ─> REPORT to the sender where it failed
//!                        └─> others ───> 501, or passed on
//! ```
//! A request that nobody can take yet is held with all that follows it, and its connection paused, until a target is there.
//! A connection whose reader is slow pauses those who send to it at `msrp.high_water` and lets them go on below half.
//!
//! Memory of an idle session of two legs: 1,940 octets in all its tables (a test with a counting allocator holds it below
//! 2 KiB), and 530 in those of the engine. A steady relay allocates nothing (another test).

mod answers;
mod commands;
mod connection;
mod counts;
mod forward;
#[cfg(test)]
pub mod harness;
mod leave;
mod net;
mod passing;
mod receive;
mod reports;
mod respond;
mod send;
mod session;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use crate::base::clock::{Duration, Instant};
use crate::base::hash::{Drawn, Numbered};
use crate::base::prng::Prng;
use crate::base::rooms::Rooms;
use crate::base::slab::{Key, Slab};
use crate::base::span::Span;
use crate::base::timers::Timers;
use crate::config::Config;
use crate::limits::{MSRP_CONNECTIONS_MAX, MSRP_SESSIONS_MAX};
use crate::msrp::chunk::{ByteRange, Continuation, FailureReport};
use crate::msrp::ident::Ident;
use crate::msrp::uri::Uri;
use crate::msrp::{status, write};
use crate::shard::exchange::{Command, LegFailure, MediaKey, Report, Stored};
use crate::shard::media_outbox::{Buffer, Connection, File, Gone, MediaEffect, MediaOutbox};
use connection::{About, Conn, LegId, Phase, Spare, Transaction};
pub use counts::{Cause, MediaCounts};
use forward::Ground;
use net::{Net, Timer};
use respond::Missed;
use session::{Far, Session};
use sink::Stage;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// The MSRP sessions, legs and connections of one media core.
pub struct Media {
    core: u8,
    /// The media cores of this process, and whether there is another process beside it.
    span: Span,
    beside: bool,
    idle_timeout: Duration,
    net: Net,
    sessions: Slab<Session>,
    by_key: Numbered<MediaKey, Key>,
    by_id: Drawn<LegId>,
    /// Which sink or source a file belongs to.
    files: sink::Index,
    next_file: u64,
    /// Unbound connections by address.
    strangers: HashMap<IpAddr, u32>,
    strangers_max: u32,
    /// Sessions in which something changed that others wait for.
    woken: Vec<Key>,
    /// Sessions whose SIP session has ended.
    closing: usize,
}

impl Media {
    /// An empty core; session ids that begin with its number in two hex digits are its own.
    pub fn new(core: u8, config: &Config, prng: Prng) -> Self {
        let mut net = Net {
            connections: Slab::with_capacity(MSRP_CONNECTIONS_MAX),
            timers: Timers::new(),
            counts: MediaCounts::default(),
            prng,
            scratch: Vec::new(),
            spare_chunks: Spare::new(),
            spare_lines: Spare::new(),
            rooms: Rooms::new(),
            waiting: Default::default(),
            high_water: 0,
            transaction_timeout: Duration::ZERO,
            connect_timeout: Duration::ZERO,
            unbound_timeout: Duration::ZERO,
            grain: Duration::ZERO,
        };
        net.set_limits(config);
        Self {
            core,
            span: Span::new(0, config.cores.media.len()),
            beside: false,
            idle_timeout: config.msrp.idle_timeout,
            net,
            sessions: Slab::with_capacity(MSRP_SESSIONS_MAX),
            by_key: Numbered::default(),
            by_id: Drawn::default(),
            files: HashMap::new(),
            next_file: 1,
            strangers: HashMap::new(),
            strangers_max: config.limits.unbound_msrp_per_peer,
            woken: Vec::new(),
            closing: 0,
        }
    }

    /// The numbers of this process's media cores, and whether another process has sessions that peers may name here.
    pub const fn stand_among(&mut self, span: Span, beside: bool) {
        (self.span, self.beside) = (span, beside);
    }

    /// A new configuration: its limits and times count from now on, for what is open as well.
    pub fn reload(&mut self, config: &Config) {
        self.idle_timeout = config.msrp.idle_timeout;
        self.strangers_max = config.limits.unbound_msrp_per_peer;
        self.net.set_limits(config);
    }

    /// A peer connected (the TLS handshake is done). None: this core or this peer has too many; close it.
    pub fn accepted(&mut self, now: Instant, peer: SocketAddr, tls: bool, out: &mut MediaOutbox) -> Option<Connection> {
        let _ = out;
        let count = self.strangers.entry(peer.ip()).or_insert(0);
        let room = *count < self.strangers_max;
        *count += u32::from(room);
        let connection = if room { self.new_connection(now, peer, tls, true) } else { None };
        match connection {
            Some(connection) => self.net.arm(connection),
            None => {
                if room && let Some(count) = self.strangers.get_mut(&peer.ip()) {
                    *count -= 1;
                }
                self.net.count(Cause::TooManyConnections);
            }
        }
        connection
    }

    /// The session of the leg whose URI begins a path; none where no leg of ours has it.
    pub fn session_of_path(&self, path: &[u8]) -> Option<MediaKey> {
        let first = path.split(|octet| *octet == b' ').next()?;
        let id = self.by_id.get(Uri::parse(first)?.session_id?)?;
        self.sessions.get(id.session).map(|session| session.key)
    }

    /// A TLS peer showed this certificate (DER); said right after `accepted`, right before `connected`.
    pub fn certified(&mut self, connection: Connection, certificate: &[u8]) {
        if let Some(conn) = self.net.get_mut(connection) {
            conn.certificate = Some(certificate.into());
        }
    }

    /// A connection asked for by `Connect` is up (the TLS handshake is done).
    pub fn connected(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection).filter(|conn| conn.phase == Phase::Connecting) else { return };
        conn.phase = Phase::Open;
        let legs = conn.legs.clone();
        for id in legs {
            self.leg_connected(now, connection, id, out);
        }
        self.wake(now, out);
    }

    /// RFC 4975 §5.4, RFC 6135 §4.2.2: who connects must send a SEND at once, so that the passive side knows the session.
    fn leg_connected(&mut self, now: Instant, connection: Connection, id: LegId, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let leg = &mut session.legs[usize::from(id.place)];
        (leg.bound, leg.wait_until) = (true, None);
        out.effects.push(MediaEffect::Tell(Report::Bound { session: session.key, leg: leg.index }));
        let (tid, message_id) = (Ident::random(&mut self.net.prng), Ident::random(&mut self.net.prng));
        let (to_path, uri) = (leg.to_path.as_bytes(), leg.uri.as_bytes());
        self.net.own(now, connection, out, |own| {
            write::request_start(own, &tid, b"SEND", to_path, uri);
            write::message_id(own, message_id.as_bytes());
            write::byte_range(own, ByteRange { start: 1, end: Some(0), total: Some(0) });
            write::bare_end_line(own, &tid, Continuation::Complete);
        });
        let transaction = Transaction {
            tid,
            about: About::Opening,
            from: id,
            to: id,
            message_id,
            start: 1,
            octets: 0,
            total: Some(0),
            failure_report: FailureReport::Yes,
            until: 0,
            at: now,
        };
        self.net.transact(connection, transaction);
        self.woken.push(id.session);
    }

    /// Octets came in: all that is new, and only that. They lie in `buffer` from `offset` on, may be rewritten in place,
    /// and are lent to every `Piece::Lent` of this buffer that `out` holds afterwards.
    pub fn receive(
        &mut self,
        now: Instant,
        connection: Connection,
        buffer: Buffer,
        octets: &mut [u8],
        offset: u32,
        out: &mut MediaOutbox,
    ) {
        self.came_in(now, connection, Ground::Lent { buffer, offset, fixed: false }, octets, out);
    }

    fn came_in(&mut self, now: Instant, connection: Connection, ground: Ground, octets: &mut [u8], out: &mut MediaOutbox) {
        let Some(conn) = self.net.get(connection).filter(|conn| conn.hears()) else { return };
        if conn.holding {
            self.hold_more(now, connection, octets, out);
        } else {
            self.feed(now, connection, ground, octets, out);
        }
        self.touch(connection);
        self.wake(now, out);
    }

    /// What a connection has sent so far ends where a message ends.
    pub fn is_between_messages(&self, connection: Connection) -> bool {
        self.net.get(connection).is_some_and(|conn| conn.reader.is_between())
    }

    /// So many octets of what was queued for a connection went to the kernel. Call it after each send that moved octets,
    /// with a fresh `now` (the relay latency is measured here).
    pub fn written(&mut self, now: Instant, connection: Connection, octets: usize, out: &mut MediaOutbox) {
        let Some(conn) = self.net.get_mut(connection) else { return };
        conn.written = (conn.written + octets as u64).min(conn.queued);
        conn.progress_at = now;
        while let Some((transaction, received_at)) = self.net.get_mut(connection).and_then(|conn| conn.sent(now)) {
            if transaction.about == About::Content {
                let nanos = now.since(received_at).as_nanos() as u64;
                self.net.counts.relay.saturating_record(nanos.max(1));
            }
            if transaction.failure_report != FailureReport::Yes {
                self.acknowledged(connection, &transaction, out);
            }
        }
        self.net.clear_out(connection);
        self.net.arm_from(now, connection);
        self.has_room_again(connection, out);
        self.touch(connection);
        self.wake(now, out);
    }

    /// Those who waited for room on a connection go on, if there is room.
    fn has_room_again(&mut self, connection: Connection, out: &mut MediaOutbox) {
        let pressing = self.net.get(connection).is_some_and(|conn| conn.pressing);
        if !pressing || !self.net.has_room(connection) {
            return;
        }
        let Some(conn) = self.net.get_mut(connection) else { return };
        conn.pressing = false;
        self.resume(connection, out);
        let leg = |media: &Self, at: usize| Some(*media.net.get(connection)?.legs.get(at)?);
        let mut at = 0;
        while let Some(id) = leg(self, at) {
            self.resume_session(id.session, out);
            at += 1;
        }
    }

    fn resume_session(&mut self, key: Key, out: &mut MediaOutbox) {
        let leg = |media: &Self, place: usize| Some(media.sessions.get(key)?.legs.get(place)?.connection);
        let mut place = 0;
        while let Some(connection) = leg(self, place) {
            if let Some(connection) = connection {
                self.resume(connection, out);
            }
            place += 1;
        }
        self.run_sources(key, out);
    }

    /// The peer closed its sending side (FIN or close_notify).
    pub fn ended(&mut self, now: Instant, connection: Connection, out: &mut MediaOutbox) {
        self.peer_ended(now, connection, out);
        self.wake(now, out);
    }

    /// The connection is no more: the last word about it, said once for each, whoever closed it.
    pub fn gone(&mut self, now: Instant, connection: Connection, why: Gone, out: &mut MediaOutbox) {
        let cause = match why {
            Gone::NotConnected => LegFailure::Connect,
            Gone::Tls => LegFailure::Tls,
            Gone::Broken | Gone::Closed => LegFailure::Closed,
        };
        self.connection_gone(now, connection, cause, out);
        self.wake(now, out);
    }

    /// From a signalling shard.
    pub fn command(&mut self, now: Instant, command: Command, out: &mut MediaOutbox) {
        self.carry_out(now, command, out);
        self.wake(now, out);
    }

    /// So many octets of a sink's writes are done; their loans have ended.
    pub fn wrote(&mut self, now: Instant, file: File, octets: u64, out: &mut MediaOutbox) {
        let Some(id) = self.files.get(&file).copied() else { return };
        if let Some(Far::Sink(sink)) = self.leg_mut(id).map(|leg| &mut leg.far)
            && let Some(kept) = sink.files.iter_mut().find(|kept| kept.file == file)
        {
            kept.pending = kept.pending.saturating_sub(octets);
        }
        self.resume_session(id.session, out);
        self.wake(now, out);
    }

    /// A sink's file is durable.
    pub fn synced(&mut self, now: Instant, file: File, out: &mut MediaOutbox) {
        let Some(id) = self.files.get(&file).copied() else { return };
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let leg = session.legs[usize::from(id.place)].index;
        let Far::Sink(sink) = &mut session.legs[usize::from(id.place)].far else { return };
        let Some(at) = sink.files.iter().position(|kept| kept.file == file && kept.stage == Stage::Syncing) else { return };
        let hold = sink.hold;
        let kept = &mut sink.files[at];
        kept.stage = Stage::Told;
        let (from, message_id, octets) = (kept.from, kept.message_id, kept.octets.unwrap_or(0));
        let head = std::mem::take(&mut kept.head).into_boxed_slice();
        let (path, content_type, success_report) = (kept.path.clone(), kept.content_type.clone(), kept.success_report);
        if !hold {
            sink.files.remove(at);
            self.files.remove(&file);
            out.effects.push(MediaEffect::Discard { file, delete: false });
        }
        let stored = Stored {
            session: session.key,
            leg,
            file: path,
            octets,
            message_id: message_id.to_text(),
            content_type,
            head,
            success_report,
            from: session.legs[usize::from(from)].index,
        };
        out.effects.push(MediaEffect::Tell(Report::Stored(Box::new(stored))));
        if !hold && success_report {
            let sender = LegId { session: id.session, place: from };
            self.sink_success(now, id, sender, &message_id, octets, out);
        }
        self.woken.push(id.session);
        self.wake(now, out);
    }

    /// Octets of a source, lying in `buffer` from `offset` on; empty at the end of the file.
    pub fn read(&mut self, now: Instant, file: File, buffer: Buffer, octets: &[u8], offset: u32, out: &mut MediaOutbox) {
        if let Some(id) = self.files.get(&file).copied() {
            self.source_read(now, id, buffer, octets, offset, out);
            self.wake(now, out);
        }
    }

    /// Making, opening, writing, syncing or reading a file failed.
    pub fn file_failed(&mut self, now: Instant, file: File, out: &mut MediaOutbox) {
        let Some(id) = self.files.remove(&file) else { return };
        if let Some(Far::Sink(sink)) = self.leg_mut(id).map(|leg| &mut leg.far) {
            let kept = std::mem::take(&mut sink.files);
            for kept in kept {
                out.effects.push(MediaEffect::Discard { file: kept.file, delete: kept.stage != Stage::Told });
                self.files.remove(&kept.file);
                self.not_kept(now, id, &kept, out);
            }
        }
        self.source_failed(now, id, out);
        self.wake(now, out);
    }

    /// The sender of a message that a sink could not keep hears of it: in the answer that waits, or by REPORT.
    fn not_kept(&mut self, now: Instant, id: LegId, kept: &sink::Kept, out: &mut MediaOutbox) {
        self.net.count(Cause::NotKept);
        let from = LegId { session: id.session, place: kept.from };
        if let Some((connection, tid)) = kept.last {
            return self.answer(now, (connection, from), &tid, kept.failure_report, status::STOP, out);
        }
        let range = ByteRange { start: 1, end: kept.octets, total: kept.octets };
        let missed = Missed { from, to: id, message_id: kept.message_id, range, failure_report: kept.failure_report };
        if kept.stage == Stage::Writing {
            self.stop_taker(now, &missed, status::STOP, out);
        } else {
            self.undelivered(now, &missed, status::STOP, out);
        }
    }

    /// Carries out the timers up to `now`.
    pub fn due(&mut self, now: Instant, out: &mut MediaOutbox) {
        while let Some(timer) = self.net.timers.due(now) {
            match timer {
                Timer::Connection(connection) => self.connection_due(now, connection, out),
                Timer::Session(key) => self.session_due(now, key, out),
            }
        }
        self.answers_due(now, out);
        self.wake(now, out);
    }

    /// When [`Media::due`] has something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        [self.net.timers.next(), self.net.waiting.next()].into_iter().flatten().min()
    }

    /// What this core counted so far.
    pub fn counts(&self) -> &MediaCounts {
        &self.net.counts
    }

    /// Timers that are armed.
    pub fn timers(&self) -> usize {
        self.net.timers.len()
    }

    /// No session and no connection is left.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.net.connections.is_empty()
    }

    /// A connection's closing sessions may be ready to close.
    fn touch(&mut self, connection: Connection) {
        // The usual case, without a look at sessions that no other step needs.
        if self.closing == 0 {
            return;
        }
        let Some(conn) = self.net.get(connection) else { return };
        for id in &conn.legs {
            if self.sessions.get(id.session).is_some_and(|session| session.closing.is_some()) {
                self.woken.push(id.session);
            }
        }
    }

    /// Nothing of a closing session is under way; what its peer sent before it said BYE may still come.
    fn close_when_quiet(&mut self, now: Instant, key: Key, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        match session.quiet_at().filter(|at| now < *at) {
            None => self.remove_session(now, key, out),
            Some(at) => {
                if let Some(closing) = session.closing.as_mut() {
                    closing.look_at = Some(at);
                }
                self.arm_session(key);
            }
        }
    }

    /// Goes on with what waited for a change in its session: held requests, sources, the end.
    fn wake(&mut self, now: Instant, out: &mut MediaOutbox) {
        while let Some(key) = self.woken.pop() {
            let Some(session) = self.sessions.get(key) else { continue };
            let holding = |connection: &Connection| self.net.get(*connection).is_some_and(|conn: &Conn| conn.holding);
            let held: Vec<Connection> = session.legs.iter().filter_map(|leg| leg.connection).filter(holding).collect();
            for connection in held {
                self.release_held(now, connection, out);
            }
            self.resume_session(key, out);
            let Some(session) = self.sessions.get(key) else { continue };
            if session.closing.is_some() && !session.is_busy(key, &self.net) {
                self.close_when_quiet(now, key, out);
            } else {
                self.arm_session(key);
            }
        }
    }
}
