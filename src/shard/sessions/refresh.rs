//! RFC 4028: session timers, one for each leg, and the refreshes we send (§7.4, §10).

use super::{Refresh, State};
use crate::base::clock::{Duration, Instant};
use crate::base::slab::Key;
use crate::base::timers::Timers;
use crate::cpm::{decision, session_expires};
use crate::shard::exchange::LegIndex;
use crate::shard::outbound::Within;
use crate::shard::outbox::Outbox;
use crate::shard::signalling::{Due, Signalling};
use crate::shard::writing::{ALLOW, Draft, MAX_FORWARDS};
use crate::sip::glare;
use crate::sip::header::min_se;
use crate::sip::header::name::Name;
use crate::sip::header::session_expires::{Refresher, SessionExpires};
use crate::sip::message::Response;
use crate::sip::method::Method;
use crate::sip::session_timer::{self, Action, Event, Timer};

impl Refresh {
    /// The leg is over: no timer is left.
    pub(in crate::shard) fn stop(&mut self, timers: &mut Timers<Due>) {
        for place in &mut self.armed {
            if let Some((_, handle)) = place.take() {
                timers.cancel(handle);
            }
        }
        self.state = session_timer::State::Off;
    }
}

/// A decision's Session-Expires as the header's.
pub fn as_header(expires: decision::SessionExpires) -> SessionExpires {
    SessionExpires { delta_s: expires.delta_s, refresher: Some(expires.refresher) }
}

impl Signalling {
    /// What a 2xx to our INVITE or UPDATE says of the session timer.
    pub(super) fn agreed(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        asked: Option<SessionExpires>,
        response: &Response,
        out: &mut Outbox,
    ) {
        let event = match session_timer::agreed(asked, response, session_expires::floor_s(&self.config)) {
            Ok(Some((interval_s, ours))) => Event::Agreed { interval_s, ours },
            Ok(None) | Err(_) => Event::Unbound,
        };
        self.session_event(now, key, leg, event, out);
    }

    /// Plays an event into a leg's session timer and carries out what follows.
    pub(super) fn session_event(&mut self, now: Instant, key: Key, leg: LegIndex, event: Event, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        if session.state == State::Ending || session.legs[usize::from(leg)].state.is_over() {
            return;
        }
        let timer = &mut session.legs[usize::from(leg)].timer;
        let mut actions = Vec::new();
        timer.state = session_timer::step(timer.state, event, &mut actions);
        let arms = |wanted: Timer| actions.iter().any(|action| matches!(action, Action::Arm(timer, _) if *timer == wanted));
        for place in &mut timer.armed {
            if let Some((_, handle)) = place.take_if(|(armed, _)| !timer.state.keeps(*armed) || arms(*armed)) {
                self.timers.cancel(handle);
            }
        }
        let mut actions = actions.into_iter();
        for action in actions.by_ref() {
            match action {
                Action::Arm(which, after) => {
                    let handle = self.timers.arm(now + after, Due::Session(key, leg, which));
                    let free = timer.armed.iter_mut().find(|place| place.is_none());
                    *free.expect("a session timer has two timers") = Some((which, handle));
                }
                Action::Refresh => return self.send_refresh(now, key, leg, out),
                Action::Bye => return self.end(now, key, "timer", None, None, out),
            }
        }
    }

    /// A timer of a leg's session fired.
    pub(in crate::shard) fn session_timer(&mut self, now: Instant, key: Key, leg: LegIndex, which: Timer, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let Some(at) = session.legs.get_mut(usize::from(leg)) else { return };
        for place in &mut at.timer.armed {
            place.take_if(|(armed, _)| *armed == which);
        }
        self.session_event(now, key, leg, Event::Timer(which), out);
    }

    /// §7.4: UPDATE where the peer takes it, else a re-INVITE with the SDP it knows.
    fn send_refresh(&mut self, now: Instant, key: Key, leg: LegIndex, out: &mut Outbox) {
        let session = self.sessions.table.get_mut(key).expect("its timer fired");
        let at = &mut session.legs[usize::from(leg)];
        if !at.pending.may_send() {
            let wait = glare::wait(at.dialog.is_caller(), &mut self.prng);
            return self.session_event(now, key, leg, Event::Failed { retry_after: wait }, out);
        }
        let session_timer::State::Asking { interval_s } = at.timer.state else { return };
        let (interval_s, min_se) = (interval_s.max(at.min_se), at.min_se);
        let method = if at.updates { Method::Update } else { Method::Invite };
        let seq = at.dialog.next_seq();
        let product = crate::cpm::release::product(&self.config);
        let draft = Draft::of_dialog(&at.dialog, method, seq, MAX_FORWARDS, |mut writer| {
            writer.field(Name::Contact, &at.contact);
            writer.format(Name::SessionExpires, format_args!("{interval_s};refresher=uac"));
            min_se::write(min_se, &mut writer);
            writer.field(Name::Supported, "timer").field(Name::UserAgent, &product).field(Name::Allow, ALLOW);
            if method == Method::Update {
                return writer.body(b"");
            }
            writer.field(Name::ContentType, "application/sdp");
            writer.body(at.local_sdp.as_bytes());
        });
        at.pending.ours = true;
        if method == Method::Invite {
            at.invite_seq = seq;
        }
        self.send_within(now, key, leg, method, draft, Within::Refresh, out);
    }

    /// The answer to a refresh of ours; silence counts as 408, a dead hop as 503.
    pub(super) fn refreshed(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        status: u16,
        response: Option<&Response>,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let at = &mut session.legs[usize::from(leg)];
        at.pending.ours = false;
        let session_timer::State::Asking { interval_s } = at.timer.state else { return };
        match (status, response) {
            (200..300, Some(response)) => {
                let _ = at.dialog.refreshed(response);
                let asked = SessionExpires { delta_s: interval_s, refresher: Some(Refresher::Uac) };
                self.agreed(now, key, leg, Some(asked), response, out);
            }
            // §10: the peer or its dialog is gone.
            (408 | 481, _) | (_, None) => self.session_event(now, key, leg, Event::Lost, out),
            (422, Some(response)) => {
                let wanted = session_timer::retry(interval_s, None, response, session_expires::floor_s(&self.config));
                at.min_se = at.min_se.max(min_se::heard(response));
                if let (Some(wanted), session_timer::State::Asking { interval_s }) = (wanted, &mut at.timer.state) {
                    *interval_s = wanted.delta_s;
                }
                self.session_event(now, key, leg, Event::Failed { retry_after: Duration::ZERO }, out);
            }
            (491, _) => {
                let wait = glare::wait(at.dialog.is_caller(), &mut self.prng);
                self.session_event(now, key, leg, Event::Failed { retry_after: wait }, out);
            }
            // Who takes no UPDATE takes a re-INVITE.
            (405 | 501, _) if at.updates => {
                at.updates = false;
                self.session_event(now, key, leg, Event::Failed { retry_after: Duration::ZERO }, out);
            }
            _ => {
                let wait = Duration::from_secs(u64::from(interval_s) / 8);
                self.session_event(now, key, leg, Event::Failed { retry_after: wait }, out);
            }
        }
    }
}
