//! OLM-r, OSI-r, TLM-8, TSI-8.e: what the targets of a session answer.

use super::refresh::as_header;
use super::{LegState, State};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::clause;
use crate::cpm::conversation;
use crate::cpm::decision::{AckTime, Decision, LaterSuccess};
use crate::cpm::failure;
use crate::cpm::procedures::Procedure;
use crate::cpm::refusal::Refusal;
use crate::cpm::session_expires;
use crate::shard::arrival;
use crate::shard::counts::Outcome;
use crate::shard::exchange::LegIndex;
use crate::shard::outbound::{Hop, Purpose};
use crate::shard::outbox::Outbox;
use crate::shard::signalling::Signalling;
use crate::shard::writing::{Draft, MAX_FORWARDS};
use crate::sip::dialog::{Dialog, without_tag};
use crate::sip::header::min_se;
use crate::sip::header::name::Name;
use crate::sip::message::Response;
use crate::sip::method::Method;
use crate::sip::status;
use crate::sip::transaction::seam::{self, ClientKey};

/// INVITEs of a call to one target that is told again and again of a longer session interval.
const INVITES_MAX: u32 = 4;

impl Signalling {
    /// A response to a request of ours, for whoever it was made.
    pub(in crate::shard) fn heard(
        &mut self,
        now: Instant,
        purpose: &Purpose,
        client: ClientKey,
        method: Method,
        response: &Response,
        out: &mut Outbox,
    ) {
        match purpose {
            Purpose::Target { session, leg } => self.target_heard(now, *session, *leg, client, response, out),
            Purpose::Within { session, leg, what } => {
                self.within_heard(now, *session, *leg, what, client, method, response, out);
            }
            Purpose::Branch { proxy, branch } => self.branch_heard(now, *proxy, *branch, response, out),
            Purpose::Page { batch, target } => self.page_heard(now, *batch, *target, response.status(), Some(response), out),
            Purpose::Deferred { user } => self.deferred_page_heard(now, user, response.status(), out),
            Purpose::Notice { about } => self.notice_heard(about, response.status(), out),
            Purpose::Subscribe { subscription } => {
                self.subscribe_heard(now, *subscription, response.status(), Some(response), out)
            }
            Purpose::Ack { .. } | Purpose::Nobody => {}
        }
    }

    /// A request of ours got no response: it counts as 408 or 503 (RFC 3261 §8.1.3.1), or as what its server said of others.
    pub(in crate::shard) fn unheard(
        &mut self,
        now: Instant,
        purpose: &Purpose,
        status: u16,
        said: Option<&Response>,
        out: &mut Outbox,
    ) {
        match purpose {
            Purpose::Target { session, leg } => self.target_failed(now, *session, *leg, status, said, out),
            Purpose::Within { session, leg, what } => self.within_lost(now, *session, *leg, what, status, out),
            Purpose::Branch { proxy, branch } => self.branch_failed(now, *proxy, *branch, status, said, out),
            Purpose::Page { batch, target } => self.page_heard(now, *batch, *target, status, said, out),
            Purpose::Deferred { user } => self.deferred_page_heard(now, user, status, out),
            Purpose::Notice { about } => self.notice_heard(about, status, out),
            Purpose::Subscribe { subscription } => self.subscribe_heard(now, *subscription, status, None, out),
            Purpose::Ack { .. } | Purpose::Nobody => {}
        }
    }

    fn target_heard(&mut self, now: Instant, key: Key, leg: LegIndex, client: ClientKey, response: &Response, out: &mut Outbox) {
        match response.status() {
            100 => {}
            101..200 => self.provisional_heard(now, key, leg, response, out),
            200..300 => self.target_accepted(now, key, leg, client, response, out),
            status => self.target_failed(now, key, leg, status, Some(response), out),
        }
    }

    /// A target took the INVITE.
    fn target_accepted(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        client: ClientKey,
        response: &Response,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.table.get_mut(key) else { return self.end_fork(now, client, response, out) };
        let ending = session.state == State::Ending;
        let at = &mut session.legs[usize::from(leg)];
        if !matches!(at.state, LegState::Calling(_)) {
            return self.end_fork(now, client, response, out);
        }
        if at.dialog.answer(response).is_err() {
            // RFC 3261 §12.1.1: without Contact there is no dialog, and nowhere to send the ACK.
            return self.target_failed(now, key, leg, 502, None, out);
        }
        at.dialog.drop_own_route(|uri| self.addresses.is_own(uri));
        at.pending.ours = false;
        at.updates = response.lists(Name::Allow, "UPDATE");
        at.state = LegState::Unacknowledged(client);
        if ending {
            // §9.1: the 2xx crossed our CANCEL.
            self.acknowledge(now, key, leg, client, out);
            self.bye(now, key, leg, out);
            return self.finish(now, key, out);
        }
        if at.lost {
            // The connection failed and the INVITE was cancelled: the 2xx crossed that, as above.
            self.acknowledge(now, key, leg, client, out);
            self.bye(now, key, leg, out);
            return self.count_failure(now, key, leg, 480, None, out);
        }
        let complete = self.early_answer(key, leg, response);
        let response = complete.as_ref().unwrap_or(response);
        match self.judge(now, key, leg, response, out) {
            Ok(()) => self.target_joined(now, key, leg, client, response, out),
            Err(refusal) => {
                self.acknowledge(now, key, leg, client, out);
                self.bye(now, key, leg, out);
                // The body that we cannot read is the target's, not the origin's.
                let status = if refusal.status == 415 { 488 } else { refusal.status };
                self.count_failure(now, key, leg, status, None, out);
            }
        }
    }

    /// What the procedure says of the 2xx; the first one answers the origin.
    fn judge(&mut self, now: Instant, key: Key, leg: LegIndex, response: &Response, out: &mut Outbox) -> Result<(), Refusal> {
        const NO_CALL: Refusal = Refusal::new(500, "RFC 3261 §13.2.2.4");
        let session = self.sessions.table.get(key).ok_or(NO_CALL)?;
        if session.legs[usize::from(leg)].is_beside() {
            clause!("OSI-r8.d.1");
            return Ok(());
        }
        if session.delivering.is_some() {
            // 8.3.1.6: there is no origin to be answered; the message begins to flow.
            self.bind_target(key, leg, response, out);
            return Ok(());
        }
        let call = session.call.as_ref().ok_or(NO_CALL)?;
        let target = usize::from(leg) - call.first_leg;
        let facts = call.gathered.facts(&self.config, now);
        let mut answer = session.procedure.on_success(&facts, &call.arrived.request, &call.bridge, target, response)?;
        if call.arrived.trusted {
            answer.headers.extend(arrival::identity_of(response));
        }
        let first = matches!(session.legs[0].state, LegState::Waiting(_));
        let others = session.legs.iter().enumerate().skip(1);
        let others =
            others.filter(|(at, _)| *at != usize::from(leg)).any(|(_, other)| other.state.is_answered() && other.is_recipients());
        clause!("TLM-8");
        if first {
            self.bind_target(key, leg, response, out);
            self.answer_origin(now, key, &answer, out);
            self.follow_up(now, key, Some((target, response)), out);
        } else if others && session.later == LaterSuccess::Bye {
            clause!("TLM-8.b");
            return Err(Refusal::new(487, "RFC 3261 §13.2.2.4"));
        } else {
            clause!("TLM-8.b");
            self.bind_target(key, leg, response, out);
        }
        Ok(())
    }

    fn target_joined(&mut self, now: Instant, key: Key, leg: LegIndex, client: ClientKey, response: &Response, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let asked = session.call.as_ref().and_then(|call| {
            let target = usize::from(leg).checked_sub(call.first_leg)?;
            call.bridge.targets.get(target)?.session_expires.map(as_header)
        });
        let at = &mut session.legs[usize::from(leg)];
        // RFC 4028 §7.4: what proxies asked for before the dialog says nothing of those that are in its path.
        at.min_se = 0;
        let recipients = at.is_recipients();
        if !recipients {
            clause!("OSI-r8.d.2");
            self.bind_target(key, leg, response, out);
        }
        let session = self.sessions.table.get_mut(key).expect("the session was just read");
        // OSI-r6: the ACK waits for the origin's; where that has come already, and in every other service, it does not.
        let waits = session.ack == AckTime::WithOrigin && matches!(session.legs[0].state, LegState::Answered(_));
        if !waits {
            self.acknowledge(now, key, leg, client, out);
        } else {
            clause!("OSI-r6.b");
        }
        self.agreed(now, key, leg, asked, response, out);
        let session = self.sessions.table.get_mut(key).expect("the session was just read");
        let Some(call) = session.call.as_mut() else { return };
        call.pending = call.pending.saturating_sub(1);
        if session.later == LaterSuccess::Bye && recipients {
            self.cancel_targets(now, key, None, out);
        }
        let session = self.sessions.table.get(key).expect("the session was just read");
        if session.procedure == Procedure::OriginatingLargeMessage && session.streams.iter().all(|stream| stream.rejected) {
            clause!("OLM-r5.a");
            return self.end(now, key, "media refused", None, None, out);
        }
        self.drop_call(key);
    }

    /// Tells the media core who is at the far end of a target leg.
    pub(super) fn bind_target(&mut self, key: Key, leg: LegIndex, response: &Response, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        session.bind(leg, response, out);
    }

    /// Sends the ACK of a target's 2xx (RFC 3261 §13.2.2.4).
    pub(super) fn acknowledge(&mut self, now: Instant, key: Key, leg: LegIndex, client: ClientKey, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let at = &mut session.legs[usize::from(leg)];
        at.state = LegState::Confirmed;
        let seq = at.invite_seq;
        self.send_ack(now, key, leg, client, seq, out);
    }

    /// Sends the ACK of a 2xx in a leg's dialog; `seq` is the CSeq of the INVITE that it answers.
    pub(super) fn send_ack(&mut self, now: Instant, key: Key, leg: LegIndex, client: ClientKey, seq: u32, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get(key) else { return };
        let at = &session.legs[usize::from(leg)];
        let draft = Draft::of_dialog(&at.dialog, Method::Ack, seq, MAX_FORWARDS, |writer| writer.body(b""));
        let purpose = Purpose::Ack { client, tag: at.dialog.id().remote_tag.clone() };
        let hop = at.dialog.next_hop().to_string();
        let way = Hop::of_leg(at, &hop);
        self.dispatch(now, purpose, Method::Ack, seam::Role::UserAgent, draft, way, out);
    }

    /// RFC 3261 §13.2.2.4: a 2xx of another fork is acknowledged, and its dialog ended.
    pub(in crate::shard) fn end_fork(&mut self, now: Instant, client: ClientKey, response: &Response, out: &mut Outbox) {
        let Some((dialog, seq)) = self.acknowledge_foreign(now, client, response, out) else { return };
        // PRACKs in the fork's early dialog had numbers of the leg's.
        let leg = self.sessions.of_tag(&dialog.id().local_tag);
        let leg = leg.and_then(|(key, leg)| self.sessions.table.get(key)?.legs.get(usize::from(leg)));
        let seq = leg.map_or(seq, |leg| leg.dialog.local_seq().max(seq));
        let bye = Draft::of_dialog(&dialog, Method::Bye, seq + 1, MAX_FORWARDS, |writer| writer.body(b""));
        let hop = dialog.next_hop().to_string();
        self.dispatch(now, Purpose::Nobody, Method::Bye, seam::Role::UserAgent, bye, Hop::Uri(&hop), out);
    }

    /// Acknowledges a 2xx in a dialog that no leg has, or has any more: that dialog, and the CSeq of its INVITE.
    pub(super) fn acknowledge_foreign(
        &mut self,
        now: Instant,
        client: ClientKey,
        response: &Response,
        out: &mut Outbox,
    ) -> Option<(Dialog, u32)> {
        let (Ok(from), Ok(to), Ok(call_id), Ok(cseq)) = (response.from(), response.to(), response.call_id(), response.cseq())
        else {
            return None;
        };
        let base = Dialog::calling(call_id, &without_tag(&from), response.from_tag().unwrap_or(""), &without_tag(&to), "", &[]);
        let mut dialog = base.answered(response).ok()?;
        dialog.drop_own_route(|uri| self.addresses.is_own(uri));
        let ack = Draft::of_dialog(&dialog, Method::Ack, cseq.number, MAX_FORWARDS, |writer| writer.body(b""));
        let hop = dialog.next_hop().to_string();
        let purpose = Purpose::Ack { client, tag: dialog.id().remote_tag.clone() };
        self.dispatch(now, purpose, Method::Ack, seam::Role::UserAgent, ack, Hop::Uri(&hop), out);
        Some((dialog, cseq.number))
    }

    /// A target said no, or nothing.
    fn target_failed(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        status: u16,
        response: Option<&Response>,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        if let Some(early) = session.early.as_mut() {
            early.forget(leg);
        }
        let at = &mut session.legs[usize::from(leg)];
        at.pending.ours = false;
        if status == 422 && session.state != State::Ending && self.invite_longer(now, key, leg, response, out) {
            return;
        }
        self.leg_over(key, leg, out);
        self.count_failure(now, key, leg, status, response, out);
    }

    /// RFC 4028 §7.4: the INVITE once more with the interval that the 422 asks for. False where it asks for more than the
    /// Change Request allows, or the call is over: then the target has failed.
    fn invite_longer(&mut self, now: Instant, key: Key, leg: LegIndex, response: Option<&Response>, out: &mut Outbox) -> bool {
        let floor_s = session_expires::floor_s(&self.config);
        let asked = |response: &Response| min_se::parse(response.header(Name::MinSe)?, floor_s).ok();
        let Some(min_se) = response.and_then(asked) else { return false };
        let Some(session) = self.sessions.table.get_mut(key) else { return false };
        let at = &mut session.legs[usize::from(leg)];
        // Proxies on the way ask one after the other, each for more; who asks for the same again will not have it.
        let again = at.dialog.local_seq() > INVITES_MAX || min_se <= at.min_se;
        at.min_se = min_se;
        let limit = session_expires::limit_s(session.service, session.role);
        let Some(call) = session.call.as_ref() else { return false };
        let Some(invite) = usize::from(leg).checked_sub(call.first_leg).and_then(|target| call.bridge.targets.get(target)) else {
            return false;
        };
        if again || min_se > limit || invite.session_expires.is_none() {
            return false;
        }
        let invite = invite.clone();
        self.send_invite(now, key, leg, &invite, Some(min_se), out);
        true
    }

    /// Notes a target's failure; when it was the last one, the procedure says what follows.
    fn count_failure(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        status: u16,
        response: Option<&Response>,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let ending = session.state == State::Ending;
        let recipients = session.legs[usize::from(leg)].is_recipients();
        if let Some(delivering) = session.delivering.as_mut() {
            delivering.status = Some(status);
        }
        if let Some(call) = session.call.as_mut() {
            call.pending = call.pending.saturating_sub(1);
            if recipients {
                let target = usize::from(leg).saturating_sub(call.first_leg);
                call.failures.push((target, status));
                let better = call.best.as_ref().is_none_or(|best| is_better(status, best.status()));
                if let Some(response) = response.filter(|_| better) {
                    call.best = Some(response.clone());
                }
            }
        }
        if ending {
            return self.finish(now, key, out);
        }
        // RFC 3261 §16.7 step 5: a 6xx speaks for the recipient; the other branches are cancelled.
        if status >= 600 && recipients {
            self.cancel_targets(now, key, None, out);
        }
        let session = self.sessions.table.get_mut(key).expect("the session was just read");
        let open = session.living_targets() > 0;
        if recipients && !open && session.state == State::Inviting {
            return self.exhausted(now, key, out);
        }
        if recipients && !open && session.state == State::Standing {
            clause!("TSI-9");
            return self.exhausted(now, key, out);
        }
        self.drop_call(key);
    }

    /// Every target failed: delivery policies (8.3.1.3, 8.3.6), else the failure goes to the origin.
    fn exhausted(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        if session.delivering.is_some() {
            return self.not_delivered(now, key, out);
        }
        let Some(call) = session.call.as_mut() else { return self.end(now, key, "target", None, None, out) };
        let facts = call.gathered.facts(&self.config, now);
        let decision = session.procedure.on_exhausted(&facts, &call.arrived.request, &call.bridge, &call.failures);
        match decision {
            Ok(Decision::Bridge(bridge)) => {
                session.later = bridge.later;
                session.ack = bridge.ack;
                call.bridge = *bridge;
                call.failures.clear();
                call.exhausted = true;
                self.invite_targets(now, key, out);
            }
            Ok(Decision::Receive(receive)) => self.receive_after_all(now, key, &receive, out),
            Ok(_) => self.fail_origin(now, key, &Refusal::new(480, "OLM-r0"), out),
            Err(refusal) => self.fail_origin(now, key, &refusal, out),
        }
    }

    /// OLM-r0: the failure goes to the origin: its final response, or where it was answered early, a BYE that says why.
    pub(super) fn fail_origin(&mut self, now: Instant, key: Key, refusal: &Refusal, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        clause!("OLM-r0");
        let LegState::Waiting(server) = session.legs[0].state else {
            clause!("TSI-9");
            let text = refusal.reason.as_deref().unwrap_or(status::reason(refusal.status)).to_string();
            let reason = format!("SIP;cause={};text=\"{text}\"", refusal.status);
            return self.end(now, key, "target", Some(&reason), None, out);
        };
        let mut refusal = refusal.clone();
        let best = session.call.as_mut().and_then(|call| call.best.take()).filter(|best| best.status() == refusal.status);
        if let Some(best) = &best {
            if !best.reason().is_empty() && refusal.reason.is_none() {
                refusal.reason = Some(best.reason().to_string().into());
            }
            // What a target says of the conversation or of why and when concerns the origin; the rest is of that hop.
            for name in failure::told_with(refusal.status).chain(conversation::IDS) {
                let named = refusal.headers.iter().any(|(known, _)| *known == name.as_str());
                let present = named || (name == Name::Warning && refusal.warning.is_some());
                if !present {
                    refusal.headers.extend(best.lines(name).map(|value| (name.as_str(), value.to_string())));
                }
            }
        }
        session.record.status = refusal.status;
        session.record.cause = refusal.clause;
        let (role, service) = (session.role, session.service);
        self.leg_over(key, 0, out);
        self.counts.invite(role, Some(service), Outcome::Failed);
        self.refuse(now, server, &refusal, out);
        self.end(now, key, refusal.clause, None, None, out);
    }
}

/// RFC 3261 §16.7 step 6: a 6xx before all, else the lowest class.
const fn is_better(status: u16, than: u16) -> bool {
    if status >= 600 {
        return than < 600;
    }
    than < 600 && status / 100 < than / 100
}
