//! RFC 3264 §8.1, §8.2: the MSRP streams of a session: opened with it, brought by a re-INVITE or UPDATE, or taken out.
//!
//! ```text
//! offer with a further line   Open, both legs: our path goes on in the offer for the other leg
//! answer takes it             Bind on both legs; the media flows
//! answer rejects it, or none  Close: as if it had never been asked for
//! line with port 0            Close once both sides agreed; the other streams and the session go on
//! ```

use super::peers;
use super::{Leg, LegKind, LegState, Session, Sessions, Stream};
use crate::base::slab::Key;
use crate::cpm::decision::Service;
use crate::cpm::media_plan::{Line, MediaPlan, described};
use crate::cpm::session_matching::{self, Ours};
use crate::limits::STREAMS_MAX;
use crate::msrp::leg::{Direction, SessionKind};
use crate::sdp::description::Description;
use crate::shard::exchange::{Command, Leg as MediaLeg, LegIndex, LegKind as MediaKind, MediaKey, Open};
use crate::shard::outbox::{Effect, Outbox};
use crate::shard::signalling::Signalling;
use crate::sip::message::Request;
use crate::sip::transaction::seam::ServerKey;

impl Stream {
    /// Whether it is in the session.
    pub(super) const fn is_open(&self) -> bool {
        !self.closed && !self.removed
    }
}

impl Session {
    /// Our MSRP URI on a leg's m-line; none where no stream of the session is there.
    pub(super) fn uri_at<'a>(&self, leg: &'a Leg, line: usize) -> Option<&'a str> {
        let index = match &leg.lines {
            None => self.streams.iter().rposition(|stream| stream.line == line && stream.is_open())?,
            Some(lines) => lines.iter().position(|(_, own)| *own == line)?,
        };
        leg.uris.get(index).map(|uri| &**uri).filter(|uri| !uri.is_empty())
    }

    /// Whether a leg was asked for what the first target rejected there (OSI-r1), and is still in the session.
    fn is_retried(&self, index: usize) -> bool {
        let asked = |leg: &Leg| leg.lines.as_ref().is_some_and(|lines| lines.iter().any(|(own, _)| *own == index));
        self.legs.iter().any(|leg| !leg.state.is_over() && asked(leg))
    }

    /// Takes a stream out: its media session ends, the SIP session does not.
    fn close_stream_at(&mut self, index: usize, out: &mut Outbox) {
        let stream = &mut self.streams[index];
        if stream.is_open() {
            stream.removed = true;
            push(out, stream, Command::Close { session: stream.key, left: None, awaited: false });
        }
    }
}

impl Sessions {
    /// The media session is no more.
    pub fn close_stream(&mut self, stream: &Stream) {
        if self.media.remove(&stream.key).is_some() {
            let load = &mut self.media_load[usize::from(stream.core)];
            *load = load.saturating_sub(1);
        }
    }

    /// The session and stream of a media session that is part of it.
    pub(super) fn of_media(&self, media: MediaKey) -> Option<(Key, usize)> {
        let (key, index) = self.media.get(&media).copied()?;
        self.table.get(key).filter(|session| !session.streams[index].removed).map(|_| (key, index))
    }
}

impl Signalling {
    /// Opens one media session for each relayed line, with the origin's leg, and tells who is at its far end.
    /// False: there is no such address of ours, or the offer names no far end.
    pub(super) fn open_media(
        &mut self,
        key: Key,
        request: &Request,
        service: Service,
        lines: &[usize],
        out: &mut Outbox,
    ) -> bool {
        let Some(sdp) = peers::sdp_of(request) else { return false };
        let Ok(offer) = described(request) else { return false };
        let kind = media_kind(service);
        for (index, line) in lines.iter().enumerate() {
            let Some(media) = offer.media.get(*line) else { return false };
            let Some(peer) = session_matching::peer(self.config.msrp.interop, &offer, *line, Ours::Passive) else { return false };
            let Some(address) = self.addresses.msrp(media.is_msrp_over_tls()) else { return false };
            let stream = self.sessions.open_stream(self.shard, key, index, *line);
            let uri: Box<str> = address.uri(stream.core, &mut self.prng).into();
            let direction = if kind == SessionKind::LargeMessage {
                Direction::FromPeer
            } else {
                session_matching::direction_of_peer(&offer, media)
            };
            let origin = MediaLeg {
                leg: 0,
                kind: MediaKind::Msrp { uri: uri.clone(), tls: address.tls },
                direction,
                matching: peer.matching,
            };
            let max_message = self.config.msrp.max_message;
            let open = Open { session: stream.key, kind, max_message, origin };
            push(out, &stream, Command::Open(Box::new(open)));
            push(out, &stream, Command::Bind { session: stream.key, leg: 0, peer: Box::new(peer) });
            let session = self.sessions.table.get_mut(key).expect("the caller holds the session");
            session.streams.push(stream);
            session.legs[0].uris.reserve_exact(lines.len() - index);
            session.legs[0].uris.push(uri);
        }
        let sdp_session = u64::from(self.prng.u64() as u32);
        let session = self.sessions.table.get_mut(key).expect("the caller holds the session");
        session.legs[0].sdp_session = sdp_session;
        session.legs[0].remote_sdp = peers::digest(&sdp);
        true
    }

    /// Opens a media session for each line of a new offer that no stream of the session is on; `from` offered, `to` is asked.
    pub(super) fn open_further(
        &mut self,
        key: Key,
        (from, to): (LegIndex, LegIndex),
        server: ServerKey,
        request: &Request,
        plan: &MediaPlan,
        out: &mut Outbox,
    ) {
        let Ok(offer) = described(request) else { return };
        for line in plan.relayed() {
            let Some(session) = self.sessions.table.get_mut(key) else { return };
            // One message is one stream (RFC 5547 §8.2.1).
            let may = media_kind(session.service) == SessionKind::Session && session.streams.len() < STREAMS_MAX;
            match session.streams.iter().rposition(|stream| stream.line == line && stream.is_open()) {
                Some(index) if !session.streams[index].rejected => continue,
                // What was rejected once begins anew, with paths of its own.
                Some(index) => session.close_stream_at(index, out),
                None => {}
            }
            if may {
                self.open_one(key, (from, to), server, (&offer, plan), line, out);
            }
        }
    }

    fn open_one(
        &mut self,
        key: Key,
        (from, to): (LegIndex, LegIndex),
        server: ServerKey,
        (offer, plan): (&Description, &MediaPlan),
        line: usize,
        out: &mut Outbox,
    ) {
        let (Some(offered), Some(written)) = (offer.media.get(line), plan.description.media.get(line)) else { return };
        let tls = offered.is_msrp_over_tls();
        let Some(address) = self.addresses.msrp(tls).or_else(|| self.addresses.msrp(!tls)) else { return };
        let index = self.sessions.table.get(key).map_or(0, |session| session.streams.len());
        let mut stream = self.sessions.open_stream(self.shard, key, index, line);
        stream.asked = Some(server);
        let interop = self.config.msrp.interop;
        let mut leg_of = |leg: LegIndex| {
            let uri: Box<str> = address.uri(stream.core, &mut self.prng).into();
            let (direction, matching) = if leg == from {
                (session_matching::direction_of_peer(offer, offered), session_matching::of_leg(interop, offered))
            } else {
                (session_matching::direction_of_ours(written), session_matching::before_answer(interop))
            };
            MediaLeg { leg, kind: MediaKind::Msrp { uri, tls: address.tls }, direction, matching }
        };
        let (origin, target) = (leg_of(0), leg_of(from.max(to)));
        let session = self.sessions.table.get_mut(key).expect("its streams were just counted");
        for leg in &mut session.legs {
            if leg.lines.is_none() {
                leg.uris.resize(index + 1, Box::default());
            }
        }
        for made in [&origin, &target] {
            if let MediaKind::Msrp { uri, .. } = &made.kind {
                session.legs[usize::from(made.leg)].uris[index].clone_from(uri);
            }
        }
        let kind = media_kind(session.service);
        let open = Open { session: stream.key, kind, max_message: self.config.msrp.max_message, origin };
        push(out, &stream, Command::Open(Box::new(open)));
        push(out, &stream, Command::Leg { session: stream.key, leg: Box::new(target) });
        session.streams.push(stream);
        self.add_recorder(key, index, out);
    }

    /// 8.5: what is recorded of the session is recorded of its further streams.
    fn add_recorder(&mut self, key: Key, index: usize, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get(key) else { return };
        let recorder = |leg: &Leg| leg.kind == LegKind::Recorder && leg.state == LegState::Media;
        let Some(leg) = session.legs.iter().position(recorder) else { return };
        let sink = super::keep::sink_of(leg as LegIndex, &self.config.store.spool, false, "");
        let stream = &session.streams[index];
        push(out, stream, Command::Leg { session: stream.key, leg: Box::new(sink) });
    }

    /// Both sides agreed on a change: what it brought stays, where it was taken; what it took out goes.
    pub(super) fn settle_streams(&mut self, key: Key, server: Option<ServerKey>, plan: &MediaPlan, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        for index in 0..session.streams.len() {
            let stream = &mut session.streams[index];
            stream.asked.take_if(|asked| Some(*asked) == server);
            let relayed = plan.lines.get(stream.line) == Some(&Line::Relayed);
            if !relayed && !session.is_retried(index) {
                session.close_stream_at(index, out);
            }
        }
    }

    /// A change came to nothing: neither did the streams that it asked for.
    pub(super) fn change_failed(&mut self, key: Key, server: ServerKey, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        for index in 0..session.streams.len() {
            if session.streams[index].asked == Some(server) {
                session.close_stream_at(index, out);
            }
        }
    }
}

/// To the media core of a stream.
pub(in crate::shard) fn push(out: &mut Outbox, stream: &Stream, command: Command) {
    out.effects.push(Effect::Media { core: stream.core, command });
}

/// m-lines that we relay.
pub(super) fn relayed_lines(plan: Option<&MediaPlan>) -> Vec<usize> {
    plan.map_or(Vec::new(), |plan| plan.relayed().collect())
}

pub(super) const fn media_kind(service: Service) -> SessionKind {
    match service {
        Service::Session | Service::GroupSession => SessionKind::Session,
        Service::LargeMessage | Service::Pager => SessionKind::LargeMessage,
    }
}
