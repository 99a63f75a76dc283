//! RFC 3261 §15, RFC 3326: the end of a session: media drained and closed, BYE on every leg, and one line in the call records.
//!
//! ```text
//! alice --BYE--> [ 200 | Close ──> media core delivers what it accepted ──> Closed | BYE ] --BYE--> bob
//! ```
//! Nobody hangs up on a peer that has not got what its correspondent was told is on its way.

use super::streams::push;
use super::{LegState, State};
use crate::base::clock::{Duration, Instant};
use crate::base::slab::Key;
use crate::clause;
use crate::limits::{MSRP_CLOSE_MAX, MSRP_STORE_WAIT};
use crate::shard::exchange::{Command, LegIndex, Report};
use crate::shard::outbound::Within;
use crate::shard::outbox::{Effect, Outbox};
use crate::shard::signalling::{Due, Signalling};
use crate::shard::watching::SessionView;
use crate::shard::writing::{Draft, MAX_FORWARDS};
use crate::sip::header::name::Name;
use crate::sip::message::Request;
use crate::sip::method::Method;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A media core that never says Closed is not waited for longer than it may take.
const CLOSE_MAX: Duration = MSRP_CLOSE_MAX.saturating_add(MSRP_STORE_WAIT).saturating_add(Duration::from_secs(5));

impl Signalling {
    /// Ends a session: every leg but `left`, whose peer ended it, hears BYE or CANCEL, with `reason` as Reason; media is
    /// closed. What follows is waiting for the last octets and answers.
    pub(in crate::shard) fn end(
        &mut self,
        now: Instant,
        key: Key,
        cause: &'static str,
        reason: Option<&str>,
        left: Option<LegIndex>,
        out: &mut Outbox,
    ) {
        clause!("OLM-6", "OSI-4.e", "TLM-4");
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        if session.state == State::Ending {
            return self.finish(now, key, out);
        }
        if session.delivering.is_some() {
            // The session ends before its client had the message; `not_delivered` calls again.
            return self.not_delivered(now, key, out);
        }
        let standing = session.state == State::Standing;
        session.state = State::Ending;
        session.reason = reason.map(Box::from);
        let took = now.since(session.started);
        session.record.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if session.record.cause.is_empty() {
            session.record.cause = cause;
        }
        // Where no peer ever connected nothing is under way.
        session.draining = standing && session.streams.iter().any(|stream| stream.bound && !stream.closed);
        for stream in session.streams.iter().filter(|stream| stream.is_open()) {
            push(out, stream, Command::Close { session: stream.key, left, awaited: session.draining });
        }
        if session.guard.is_none() {
            session.guard = Some(self.timers.arm(now + CLOSE_MAX, Due::Guard(key)));
        }
        if !session.draining {
            self.end_legs(now, key, out);
        }
        self.finish(now, key, out);
    }

    /// Nothing is under way any more: every leg that is still there hears the end.
    fn end_legs(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        session.draining = false;
        let cause = session.record.cause;
        for leg in 0..session.legs.len() as LegIndex {
            self.end_leg(now, key, leg, cause, out);
        }
    }

    fn end_leg(&mut self, now: Instant, key: Key, leg: LegIndex, cause: &'static str, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get(key) else { return };
        match session.legs[usize::from(leg)].state {
            LegState::Waiting(server) => {
                self.leg_over(key, leg, out);
                self.shed(now, server, cause, out);
            }
            // RFC 3261 §15: the BYE waits for the ACK of our 2xx, or for its time limit.
            LegState::Answered(_) | LegState::Ended => {}
            LegState::Calling(outbound) => {
                let reason = session.reason.clone();
                self.cancel_outbound(now, outbound, reason.as_deref(), out);
            }
            LegState::Unacknowledged(client) => {
                self.acknowledge(now, key, leg, client, out);
                self.bye(now, key, leg, out);
            }
            LegState::Confirmed => self.bye(now, key, leg, out),
            LegState::Media => self.leg_over(key, leg, out),
        }
    }

    /// Sends BYE on a leg whose dialog stands; the leg is over with that.
    pub(super) fn bye(&mut self, now: Instant, key: Key, leg: LegIndex, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let reason = session.reason.clone();
        let at = &mut session.legs[usize::from(leg)];
        if at.state != LegState::Confirmed {
            return;
        }
        let seq = at.dialog.next_seq();
        let draft = Draft::of_dialog(&at.dialog, Method::Bye, seq, MAX_FORWARDS, |mut writer| {
            if let Some(reason) = &reason {
                writer.field(Name::Reason, reason);
            }
            writer.body(b"");
        });
        let tag = at.dialog.id().local_tag.clone();
        self.sessions.parting.insert(tag.clone(), digest(&at.dialog.id().call_id, &at.dialog.id().remote_tag));
        self.leg_over(key, leg, out);
        self.send_within(now, key, leg, Method::Bye, draft, Within::Bye { tag }, out);
    }

    /// A leg has left the session: its dialog is forgotten, its media released, its timer gone.
    pub(super) fn leg_over(&mut self, key: Key, leg: LegIndex, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let at = &mut session.legs[usize::from(leg)];
        if at.state.is_over() {
            return;
        }
        at.state = LegState::Ended;
        at.timer.stop(&mut self.timers);
        if leg == 0
            && let Some(timer) = session.early.as_mut().and_then(|early| early.timer.take())
        {
            self.timers.cancel(timer);
        }
        if let Some(timer) = session.passing.take_if(|passing| passing.is_of(leg)).and_then(|mut passing| passing.timer()) {
            self.timers.cancel(timer);
        }
        if self.sessions.tags.remove(&at.dialog.id().local_tag).is_some() {
            self.counts.dialogs = self.counts.dialogs.saturating_sub(1);
        }
        if leg > 0 && session.state != State::Ending {
            for stream in session.streams.iter().filter(|stream| stream.is_open()) {
                push(out, stream, Command::Release { session: stream.key, leg });
            }
        }
    }

    /// The peer of a leg said BYE. The others hear it, unless further clients of the recipient are still in the session.
    pub(super) fn leg_left(&mut self, now: Instant, key: Key, leg: LegIndex, reason: Option<&str>, out: &mut Outbox) {
        self.leg_over(key, leg, out);
        let Some(session) = self.sessions.table.get(key) else { return };
        if session.state == State::Ending {
            return self.finish(now, key, out);
        }
        if leg == 0 {
            self.end(now, key, "bye-origin", reason, Some(0), out);
        } else if !session.legs[usize::from(leg)].is_beside() && session.living_targets() == 0 {
            self.end(now, key, "bye-target", reason, Some(leg), out);
        }
    }

    /// A stream of an ending session closed: with the last one its legs may hear BYE.
    fn drained(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get(key) else { return };
        if session.draining && session.streams.iter().all(|stream| stream.closed) {
            self.end_legs(now, key, out);
        }
        self.finish(now, key, out);
    }

    /// Whether an ending session has heard all there is to hear; then it goes, and its record is written.
    pub(super) fn finish(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get(key) else { return };
        let over = session.legs.iter().all(|leg| leg.state.is_over()) && session.streams.iter().all(|stream| stream.closed);
        if session.state != State::Ending || !over {
            return;
        }
        if let Some(record) = self.forget_session(now, key) {
            out.effects.push(Effect::Record(record));
        }
    }

    /// A media core reports.
    pub(in crate::shard) fn media_report(&mut self, now: Instant, report: Report, out: &mut Outbox) {
        match report {
            Report::Closed { session, totals } => {
                let Some((key, index)) = self.sessions.media.get(&session).copied() else { return };
                let Some(at) = self.sessions.table.get_mut(key) else { return };
                let stream = &mut at.streams[index];
                stream.closed = true;
                let record = &mut at.record;
                record.chunks_forward += totals.chunks[0];
                record.chunks_backward += totals.chunks[1];
                record.octets_forward += totals.octets[0];
                record.octets_backward += totals.octets[1];
                if at.state == State::Ending {
                    self.drained(now, key, out);
                } else if !at.streams[index].removed && at.streams.iter().all(|stream| stream.closed) {
                    self.end(now, key, "media", None, None, out);
                }
            }
            Report::LegFailed { session, leg, .. } => self.media_failed(now, session, leg, out),
            Report::Idle { session } => {
                if let Some((key, _)) = self.sessions.of_media(session) {
                    self.end(now, key, "idle", None, None, out);
                }
            }
            Report::Stored(stored) => self.stored(*stored, out),
            Report::Delivered { session, leg, .. } if leg > 0 => {
                if let Some((key, _)) = self.sessions.media.get(&session).copied() {
                    self.delivered(now, key, out);
                }
            }
            Report::Undelivered { session, status, .. } => {
                let Some((key, _)) = self.sessions.media.get(&session).copied() else { return };
                if let Some(delivering) = self.sessions.table.get_mut(key).and_then(|session| session.delivering.as_mut()) {
                    delivering.status = Some(status);
                    self.not_delivered(now, key, out);
                }
            }
            Report::Bound { session, .. } => {
                if let Some((key, index)) = self.sessions.media.get(&session).copied()
                    && let Some(at) = self.sessions.table.get_mut(key)
                {
                    at.streams[index].bound = true;
                }
            }
            Report::Delivered { .. } => {}
        }
    }

    /// A leg's connection cannot go on: its dialog ends.
    fn media_failed(&mut self, now: Instant, media: crate::shard::exchange::MediaKey, leg: LegIndex, out: &mut Outbox) {
        let Some((key, _)) = self.sessions.of_media(media) else { return };
        let Some(session) = self.sessions.table.get(key) else { return };
        if leg == 0 {
            return self.end(now, key, "media", None, None, out);
        }
        if session.legs.get(usize::from(leg)).is_none_or(|leg| leg.state.is_over()) {
            return;
        }
        if let Some(session) = self.sessions.table.get_mut(key) {
            session.legs[usize::from(leg)].lost = true;
        }
        self.end_leg(now, key, leg, "media", out);
        let Some(session) = self.sessions.table.get(key) else { return };
        if session.state == State::Standing && session.living_targets() == 0 {
            self.end(now, key, "media", None, None, out);
        }
    }

    /// The media core was silent for too long, or a leg was.
    pub(in crate::shard) fn guard(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        session.guard = None;
        for stream in &mut session.streams {
            stream.closed = true;
        }
        self.drained(now, key, out);
        // A leg whose transaction is still open ends with it: Timers B, C and H, or 64*T1 without ACK.
    }

    /// An ending session is waited for no longer, neither for its media nor for answers: its legs hear BYE, its call record is
    /// written.
    pub(in crate::shard) fn cut_short(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        self.guard(now, key, out);
        if let Some(record) = self.forget_session(now, key) {
            out.effects.push(Effect::Record(record));
        }
    }
}

/// Who the peer of a dialog is and what the dialog is called, in one number.
fn digest(call_id: &str, remote_tag: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (call_id, remote_tag).hash(&mut hasher);
    hasher.finish()
}

impl super::Sessions {
    /// RFC 5407 §3.1.3, §3.2.3: whether a BYE crosses ours: its dialog is over for us, and not unknown.
    pub(in crate::shard) fn crosses_bye(&self, tag: &str, request: &Request) -> bool {
        let remote = request.from_tag().unwrap_or("");
        request.method() == Method::Bye
            && self.parting.get(tag).is_some_and(|known| *known == digest(request.call_id().unwrap_or(""), remote))
    }

    /// Our BYE was answered, or never will be.
    pub(super) fn parted(&mut self, tag: &str) {
        self.parting.remove(tag);
    }
}

impl super::Session {
    /// As `GET /sessions` shows it.
    pub fn view(&self) -> SessionView {
        let state = match self.state {
            State::Inviting => "inviting",
            State::Standing => "standing",
            State::Ending => "ending",
        };
        SessionView {
            case: self.record.case,
            service: self.record.service,
            state,
            originator: self.record.originator.clone(),
            recipient: self.record.recipient.clone(),
            call_id: self.record.call_id.clone(),
            conversation_id: self.record.conversation_id.clone(),
            contribution_id: self.record.contribution_id.clone(),
            targets: self
                .legs
                .iter()
                .skip(1)
                .map(|leg| leg.dialog.remote_target())
                .filter(|uri| !uri.is_empty())
                .map(str::to_string)
                .collect(),
            started_s: self.record.started_s,
        }
    }
}
