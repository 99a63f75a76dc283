//! What a signalling shard asks of the media core: sessions, legs, and where their peers are.

use super::Media;
use super::connection::{Conn, LegId};
use super::counts::Cause;
use super::session::{Closing, Far, Leg, Messages, Session};
use super::sink::{Sink, Stage};
use super::source::Outgoing;
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::limits::MSRP_LEGS_MAX;
use crate::msrp::chunk::ByteRange;
use crate::msrp::ident::Ident;
use crate::msrp::leg::Peer;
use crate::msrp::report::Reported;
use crate::msrp::status;
use crate::msrp::uri::Uri;
use crate::shard::exchange::{self, Command, LegFailure, LegIndex, LegKind, MediaKey, Open, Report, Totals};
use crate::shard::media_outbox::{Connection, File, MediaEffect, MediaOutbox, TlsPeer};
use std::net::SocketAddr;

impl Media {
    pub(super) fn carry_out(&mut self, now: Instant, command: Command, out: &mut MediaOutbox) {
        match command {
            Command::Open(open) => self.open(now, *open, out),
            Command::Leg { session, leg } => match self.by_key.get(&session).copied() {
                Some(key) => self.add_leg(key, *leg, out),
                None => self.net.count(Cause::BadCommand),
            },
            Command::Bind { session, leg, peer } => match self.leg_named(session, leg) {
                Some(id) => self.bind_peer(now, id, *peer, out),
                None => self.net.count(Cause::BadCommand),
            },
            Command::Release { session, leg } => self.release(now, session, leg, out),
            Command::Acknowledge { session, leg, message_id, status } => {
                if let Some(id) = self.leg_named(session, leg) {
                    self.acknowledge(now, id, &message_id, status, out);
                }
            }
            Command::Close { session, left, .. } => self.close(now, session, left, out),
        }
    }

    fn leg_named(&self, session: MediaKey, index: LegIndex) -> Option<LegId> {
        let key = self.by_key.get(&session).copied()?;
        let place = self.sessions.get(key)?.place(index)?;
        Some(LegId { session: key, place })
    }

    fn open(&mut self, now: Instant, open: Open, out: &mut MediaOutbox) {
        let session = Session {
            key: open.session,
            kind: open.kind,
            max_message: open.max_message,
            legs: Vec::with_capacity(2),
            messages: Messages::default(),
            totals: Totals::default(),
            active_at: now,
            idle_told: false,
            look_at: now + crate::limits::MSRP_REPORT_WAIT,
            closing: None,
            timer: None,
        };
        let known = self.by_key.contains_key(&open.session);
        let Some(key) = (!known).then(|| self.sessions.insert(session).ok()).flatten() else {
            self.net.count(Cause::BadCommand);
            if !known {
                out.effects.push(MediaEffect::Tell(Report::Closed { session: open.session, totals: Totals::default() }));
            }
            return;
        };
        self.by_key.insert(open.session, key);
        self.net.counts.sessions += 1;
        self.add_leg(key, open.origin, out);
        self.arm_session(key);
    }

    fn add_leg(&mut self, key: Key, leg: exchange::Leg, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.legs.len() >= MSRP_LEGS_MAX || session.place(leg.leg).is_some() {
            self.net.count(Cause::BadCommand);
            let report = Report::LegFailed { session: session.key, leg: leg.leg, cause: LegFailure::Unknown };
            out.effects.push(MediaEffect::Tell(report));
            return;
        }
        let id = LegId { session: key, place: session.legs.len() as u8 };
        let (far, uri, tls) = match leg.kind {
            LegKind::Msrp { uri, tls } => (Far::Peer, uri, tls),
            LegKind::Sink { directory, hold, accept_types } => {
                (Far::Sink(Box::new(Sink { directory, hold, accept_types, files: Vec::new() })), "".into(), false)
            }
            LegKind::Source(source) => {
                let file = File(self.next_file);
                self.next_file += 1;
                let outgoing = Outgoing::new(id, *source, file, Ident::random(&mut self.net.prng));
                (Far::Source(Box::new(outgoing)), "".into(), false)
            }
        };
        if let Some(session_id) = Uri::parse(uri.as_bytes()).and_then(|uri| uri.session_id) {
            self.by_id.insert(session_id.into(), id);
        }
        session.legs.push(Leg {
            index: leg.leg,
            far,
            direction: leg.direction,
            matching: leg.matching,
            tls,
            uri,
            to_path: "".into(),
            from_path: Box::default(),
            max_size: None,
            fingerprint: None,
            connection: None,
            bound: false,
            out: false,
            wait_until: None,
            silent: false,
        });
        self.woken.push(key);
    }

    fn bind_peer(&mut self, now: Instant, id: LegId, peer: Peer, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let leg = &mut session.legs[usize::from(id.place)];
        (leg.max_size, leg.matching) = (peer.max_size, peer.matching);
        if !leg.is_peer() {
            return;
        }
        let to_path = peer.path.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(" ");
        // RFC 4975 §8.4: another path is another place to be; the old connection has served its time.
        let moved = !leg.to_path.is_empty() && *leg.to_path != *to_path;
        leg.to_path = to_path.into();
        leg.tls |= peer.tls;
        let old = leg.connection.filter(|_| moved);
        if let Some(old) = old {
            (leg.connection, leg.bound) = (None, false);
            leg.from_path = Box::default();
            self.unbind(old, id, out);
        }
        let Some(leg) = self.leg_mut(id) else { return };
        leg.fingerprint.clone_from(&peer.fingerprint);
        // RFC 8122 §6.2: a connection may come before the answer that says whose it must be.
        if let Some(early) = leg.connection.filter(|_| leg.bound)
            && !self.shows_certificate_of(early, id)
        {
            self.net.count(Cause::Certificate);
            return self.drop_connection(now, early, LegFailure::Tls, out);
        }
        let unbound_timeout = self.net.unbound_timeout;
        let Some(leg) = self.leg_mut(id) else { return };
        if leg.connection.is_none() {
            match peer.connect {
                Some(to) => self.connect(now, id, to, peer.tls, peer.fingerprint, out),
                // The origin connects when its user agent has our answer, which may ring for long first.
                None => leg.wait_until = (id.place != 0).then(|| now + unbound_timeout),
            }
        }
        self.arm_session(id.session);
        self.woken.push(id.session);
    }

    fn connect(
        &mut self,
        now: Instant,
        id: LegId,
        to: SocketAddr,
        tls: bool,
        fingerprint: Option<Box<str>>,
        out: &mut MediaOutbox,
    ) {
        let Some(connection) = self.new_connection(now, to, tls, false) else {
            self.net.count(Cause::TooManyConnections);
            return self.fail_leg(now, id, LegFailure::Connect, out);
        };
        if let Some(conn) = self.net.get_mut(connection) {
            conn.add_leg(id);
        }
        if let Some(leg) = self.leg_mut(id) {
            leg.connection = Some(connection);
        }
        self.net.arm(connection);
        let tls = tls.then_some(TlsPeer { fingerprint });
        out.effects.push(MediaEffect::Connect { connection, to, tls });
    }

    pub(super) fn new_connection(&mut self, now: Instant, peer: SocketAddr, tls: bool, accepted: bool) -> Option<Connection> {
        let nobody = Connection(Key::from_u64(u64::MAX));
        let key = self.net.connections.insert(Box::new(Conn::new(nobody, peer, tls, accepted, now))).ok()?;
        let connection = Connection(key);
        self.net.get_mut(connection).expect("inserted above").me = connection;
        self.net.counts.connections += 1;
        Some(connection)
    }

    fn release(&mut self, now: Instant, session: MediaKey, index: LegIndex, out: &mut MediaOutbox) {
        let Some(key) = self.by_key.get(&session).copied() else { return self.net.count(Cause::BadCommand) };
        if let Some(id) = self.leg_named(session, index) {
            self.part(now, id, out);
        }
        // A leg that failed before may still have its connection for late reports.
        let Some(found) = self.sessions.get_mut(key) else { return };
        let left: Vec<(u8, Connection)> = found
            .legs
            .iter_mut()
            .enumerate()
            .filter(|(_, leg)| leg.index == index && leg.out)
            .filter_map(|(place, leg)| Some((place as u8, leg.connection.take()?)))
            .collect();
        for (place, connection) in left {
            self.unbind(connection, LegId { session: key, place }, out);
        }
        self.woken.push(key);
    }

    /// A sink's message is in the store, or could not be put there.
    fn acknowledge(&mut self, now: Instant, id: LegId, message_id: &str, code: u16, out: &mut MediaOutbox) {
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let Far::Sink(sink) = &mut session.legs[usize::from(id.place)].far else { return };
        let told = |kept: &super::sink::Kept| kept.stage == Stage::Told && kept.message_id.as_bytes() == message_id.as_bytes();
        let Some(at) = sink.files.iter().position(told) else { return };
        let kept = sink.files.remove(at);
        self.files.remove(&kept.file);
        out.effects.push(MediaEffect::Discard { file: kept.file, delete: code != status::OK });
        let sender = LegId { session: id.session, place: kept.from };
        if code != status::OK {
            self.net.count(Cause::NotKept);
        }
        if let Some((connection, tid)) = kept.last {
            self.answer(now, (connection, sender), &tid, kept.failure_report, code, out);
        }
        if code == status::OK && kept.success_report {
            self.sink_success(now, id, sender, &kept.message_id, kept.octets.unwrap_or(0), out);
        }
        self.woken.push(id.session);
    }

    /// RFC 4975 §7.1.3: an endpoint that has the whole message says so where it was asked to. A sink beside other targets
    /// is no recipient.
    pub(super) fn sink_success(
        &mut self,
        now: Instant,
        id: LegId,
        sender: LegId,
        message_id: &Ident,
        octets: u64,
        out: &mut MediaOutbox,
    ) {
        let Some(session) = self.sessions.get_mut(id.session) else { return };
        let Some(at) = session.messages.find(message_id, |message| message.from == sender.place) else { return };
        let message = session.messages.at_mut(at);
        let decides = message.deciders & id.bit() != 0;
        if !decides || !message.success_report || *message.success_from.get_or_insert(id.place) != id.place {
            return;
        }
        let range = ByteRange { start: 1, end: Some(octets), total: Some(octets) };
        let reported = Reported { message_id: *message_id, range: Some(range), code: status::OK };
        self.report_to(now, sender, &reported, out);
    }

    fn close(&mut self, now: Instant, session: MediaKey, left: Option<LegIndex>, out: &mut MediaOutbox) {
        let Some(key) = self.by_key.get(&session).copied() else {
            // Closed on its own account before, or never opened: the last word stays the same.
            out.effects.push(MediaEffect::Tell(Report::Closed { session, totals: Totals::default() }));
            return;
        };
        let Some(found) = self.sessions.get_mut(key) else { return };
        let left = left.and_then(|leg| found.place(leg));
        self.closing += usize::from(found.closing.is_none());
        found.closing.get_or_insert_with(|| Box::new(Closing::new(now, left)));
        self.arm_session(key);
        self.woken.push(key);
    }
}
