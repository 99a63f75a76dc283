//! RFC 3261 §14, RFC 3311, RFC 4028 §7.4: a re-INVITE or UPDATE of a peer: a refresh that ends here, or a change that goes
//! to the other leg and comes back. One without offer: late_offer.rs.

use super::local_sdp::{in_role, with_version};
use super::peers;
use super::streams::media_kind;
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::cpm::gates;
use crate::cpm::media_plan::{self, MediaPlan, Side, Unacceptable, described};
use crate::cpm::refusal::Refusal;
use crate::cpm::session_expires;
use crate::cpm::session_matching::Ours;
use crate::shard::counts::Direction;
use crate::shard::exchange::LegIndex;
use crate::shard::outbound::{Purpose, Within};
use crate::shard::outbox::Outbox;
use crate::shard::signalling::{Cookie, Signalling};
use crate::shard::writing::{ALLOW, Draft, MAX_FORWARDS};
use crate::sip::glare::Verdict;
use crate::sip::header::min_se;
use crate::sip::header::name::Name;
use crate::sip::header::reason;
use crate::sip::header::session_expires::Refresher;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::session_timer::{Event, Offer};
use crate::sip::status;
use crate::sip::transaction::seam::ServerKey;
use crate::sip::write::Writer;
use std::rc::Rc;

pub(super) const fn side_of(leg: LegIndex) -> Side {
    if leg == 0 { Side::Origin } else { Side::Target }
}

impl Signalling {
    pub(super) fn changed_or_refreshed(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        server: ServerKey,
        request: &Rc<Request>,
        out: &mut Outbox,
    ) {
        let (min_s, floor_s) = (session_expires::min_s(&self.config), session_expires::floor_s(&self.config));
        let session = self.sessions.table.get_mut(key).expect("the caller found it");
        let at = &mut session.legs[usize::from(leg)];
        match at.pending.receive(&mut self.prng) {
            Verdict::Serve => {}
            Verdict::Pending => return self.refuse_status(now, server, 491, out),
            Verdict::TryLater { retry_after_s } => {
                let later = Refusal::new(500, "RFC 3261 §14.2").header("Retry-After", retry_after_s.to_string());
                return self.refuse(now, server, &later, out);
            }
        }
        // §12.2.2: as outside a dialog (§8.2.2.3, §8.2.3).
        if let Err(refusal) = gates::understood(request) {
            return self.refuse(now, server, &refusal, out);
        }
        if let Err(why @ (Unacceptable::Foreign | Unacceptable::Encoded)) = described(request) {
            return self.refuse(now, server, &why.refusal("RFC 3261 §8.2.3"), out);
        }
        let Ok(timer) = Offer::of(request, floor_s) else { return self.refuse_status(now, server, 400, out) };
        if timer.too_small(min_s) {
            let small = Refusal::new(422, "RFC 4028 §6").header("Min-SE", min_s.to_string());
            return self.refuse(now, server, &small, out);
        }
        at.updates |= request.lists(Name::Allow, "UPDATE");
        at.min_se = at.min_se.max(min_se::heard(request));
        let same = peers::sdp_of(request).is_none_or(|sdp| peers::digest(&sdp) == at.remote_sdp);
        if same {
            if let Some(answer) = described(request).ok().and_then(|offered| in_role(&at.local_sdp, &offered)) {
                at.sdp_version += 1;
                at.local_sdp = with_version(&answer, at.sdp_version).into();
            }
            let sdp = (request.method() == Method::Invite || !request.body().is_empty()).then(|| at.local_sdp.clone());
            let asks = request.method() == Method::Invite && peers::sdp_of(request).is_none();
            if asks && !self.hold_other(key, leg) {
                return self.refuse_status(now, server, 491, out);
            }
            return self.answer_change(now, key, leg, server, request, sdp.as_deref(), out);
        }
        self.relay_change(now, key, leg, server, request, out);
    }

    /// Another SDP: with one leg on the other side it is asked; with several, or none that speaks SIP, we answer ourselves,
    /// since each leg's media is our own.
    fn relay_change(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        server: ServerKey,
        request: &Rc<Request>,
        out: &mut Outbox,
    ) {
        let kind = media_kind(self.sessions.table.get(key).expect("the caller found it").service);
        let Some(other) = self.alone_opposite(key, leg) else { return self.change_here(now, key, leg, server, request, out) };
        let plan = match media_plan::reoffer(&self.config, kind, side_of(other), request) {
            Ok(plan) => plan,
            Err(why) => return self.refuse(now, server, &why.refusal("5.2.1.2"), out),
        };
        let session = self.sessions.table.get_mut(key).expect("the caller found it");
        if !session.legs[usize::from(other)].pending.may_send() {
            return self.refuse_status(now, server, 491, out);
        }
        self.transactions.set_cookie(server, Cookie::Within.of(key));
        self.open_further(key, (leg, other), server, request, &plan, out);
        let before =
            self.sessions.table.get(key).map_or(Box::default(), |session| session.legs[usize::from(other)].local_sdp.clone());
        let sdp = self.next_sdp(key, other, &plan);
        let session = self.sessions.table.get_mut(key).expect("the caller found it");
        session.legs[usize::from(leg)].pending.theirs = true;
        let updates = request.method() == Method::Update && session.legs[usize::from(other)].updates;
        let method = if updates { Method::Update } else { Method::Invite };
        let what = Within::Changed { server, from: leg, request: Rc::clone(request), before };
        self.offer_change(now, key, other, method, &sdp, what, out);
    }

    /// The leg opposite to one that changes the session, where it is the only one there.
    pub(super) fn alone_opposite(&self, key: Key, leg: LegIndex) -> Option<LegIndex> {
        let session = self.sessions.table.get(key)?;
        // The lines of a leg that was asked for what another rejected are not those of the origin's offer.
        let alone = session.legs[usize::from(leg)].lines.is_none() && (leg > 0 || session.living_targets() == 1);
        self.opposite(key, leg).filter(|_| alone)
    }

    /// Sends a re-INVITE or UPDATE of ours with an offer.
    pub(super) fn offer_change(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        method: Method,
        sdp: &str,
        what: Within,
        out: &mut Outbox,
    ) {
        let session = self.sessions.table.get_mut(key).expect("the caller found it");
        let at = &mut session.legs[usize::from(leg)];
        at.pending.ours = true;
        let seq = at.dialog.next_seq();
        if method == Method::Invite {
            at.invite_seq = seq;
        }
        let (kept, min_se) = (at.timer.state.kept(), at.min_se);
        let product = crate::cpm::release::product(&self.config);
        let draft = Draft::of_dialog(&at.dialog, method, seq, MAX_FORWARDS, |mut writer| {
            writer.field(Name::Contact, &at.contact);
            if let Some(kept) = kept {
                writer.format(Name::SessionExpires, format_args!("{}", kept.at_least(min_se)));
            }
            min_se::write(min_se, &mut writer);
            writer.field(Name::Supported, "timer").field(Name::UserAgent, &product).field(Name::Allow, ALLOW);
            writer.field(Name::ContentType, "application/sdp");
            writer.body(sdp.as_bytes());
        });
        let outbound = self.send_within(now, key, leg, method, draft, what, out);
        if let (Some(outbound), Some(session)) = (outbound, self.sessions.table.get_mut(key)) {
            session.legs[usize::from(leg)].changing = outbound;
        }
    }

    /// RFC 3261 §9: the peer cancels its re-INVITE. The other leg is cancelled too, and its final response stays the answer:
    /// 487, or the 2xx that crossed the CANCEL, since each side then knows the session as the other one does.
    pub(in crate::shard) fn cancel_change(
        &mut self,
        now: Instant,
        key: Key,
        invite: ServerKey,
        cancel: &Request,
        out: &mut Outbox,
    ) {
        let asks = |leg: &&super::Leg| {
            let what = self.outbound.get(leg.changing).map(|outbound| &outbound.purpose);
            matches!(what, Some(Purpose::Within { what: Within::Changed { server, .. }, .. }) if *server == invite)
        };
        let session = self.sessions.table.get(key);
        match session.and_then(|session| session.legs.iter().find(asks)).map(|leg| leg.changing) {
            Some(outbound) => self.cancel_outbound(now, outbound, reason::all(cancel).as_deref(), out),
            None => self.refuse_status(now, invite, 487, out),
        }
    }

    /// §14.1: what was refused is as if it had never been offered: what stood stands, in a version of its own (RFC 3264 §8).
    pub(super) fn refused_offer(&mut self, key: Key, leg: LegIndex, before: &str) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let at = &mut session.legs[usize::from(leg)];
        if !before.is_empty() && *before != *at.local_sdp {
            at.sdp_version += 1;
            at.local_sdp = with_version(before, at.sdp_version).into();
        }
    }

    /// The other leg's answer to a change.
    pub(super) fn changed_heard(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        server: ServerKey,
        from: LegIndex,
        request: &Rc<Request>,
        before: &str,
        status: u16,
        response: Option<&Response>,
        out: &mut Outbox,
    ) {
        if response.is_none_or(|response| response.status() >= 300) {
            self.refused_offer(key, leg, before);
        }
        let Some(session) = self.sessions.table.get_mut(key) else { return self.refuse_status(now, server, 481, out) };
        session.legs[usize::from(from)].pending.theirs = false;
        session.legs[usize::from(leg)].pending.ours = false;
        if session.legs[usize::from(from)].state.is_over() {
            // RFC 3261 §15.1.2: it asked, and hung up before the answer. A 2xx would wait for an ACK that cannot come.
            return self.refuse_status(now, server, 487, out);
        }
        let kind = media_kind(session.service);
        if let Some(small) = response.filter(|_| status == 422) {
            let at = &mut session.legs[usize::from(leg)];
            at.min_se = at.min_se.max(min_se::heard(small));
        }
        let Some(response) = response.filter(|_| status < 300) else {
            self.change_failed(key, server, out);
            let status = super::within::relayed_status(status);
            self.refuse_status(now, server, status, out);
            if matches!(status, 408 | 481) {
                self.end(now, key, "no-dialog", None, None, out);
            }
            return;
        };
        let asked = session.legs[usize::from(leg)].timer.state.kept();
        let _ = session.legs[usize::from(leg)].dialog.refreshed(response);
        session.bind_as(leg, Ours::ActPass, response, out);
        if asked.is_some() {
            self.agreed(now, key, leg, asked, response, out);
        }
        let plan = match media_plan::reanswer(&self.config, kind, side_of(from), request, response) {
            Ok(plan) => plan,
            Err(why) => {
                self.change_failed(key, server, out);
                return self.refuse(now, server, &why.refusal("5.2.1.2"), out);
            }
        };
        self.rebind(key, from, request, out);
        self.settle_streams(key, Some(server), &plan, out);
        let sdp = self.next_sdp(key, from, &plan);
        self.answer_change(now, key, from, server, request, Some(&sdp), out);
    }

    /// We take the change ourselves: where the peer's side moved, and nothing else.
    fn change_here(&mut self, now: Instant, key: Key, leg: LegIndex, server: ServerKey, request: &Rc<Request>, out: &mut Outbox) {
        let session = self.sessions.table.get(key).expect("the caller found it");
        let kind = media_kind(session.service);
        let plan = match media_plan::own_reanswer(&self.config, kind, side_of(leg), request) {
            Ok(plan) => plan,
            Err(why) => return self.refuse(now, server, &why.refusal("5.2.1.2"), out),
        };
        // Nobody is asked for a further stream here, so there is none; with nothing else in it the change is refused.
        if !plan.relayed().any(|line| session.uri_at(&session.legs[usize::from(leg)], line).is_some()) {
            return self.refuse(now, server, &Refusal::new(488, "RFC 3264 §6"), out);
        }
        self.rebind(key, leg, request, out);
        let sdp = self.next_sdp(key, leg, &plan);
        self.answer_change(now, key, leg, server, request, Some(&sdp), out);
    }

    fn rebind(&mut self, key: Key, leg: LegIndex, request: &Request, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        // A target that offers anew is answered active, the origin passive, as far as each leaves it open.
        session.bind(leg, request, out);
    }

    /// Our SDP for a leg; its version grows when the text does not stay the same (RFC 3264 §8).
    pub(super) fn next_sdp(&mut self, key: Key, leg: LegIndex, plan: &MediaPlan) -> String {
        let (mut sdp, _) = self.local_sdp(key, leg, plan);
        let session = self.sessions.table.get_mut(key).expect("the caller found it");
        let at = &mut session.legs[usize::from(leg)];
        if *sdp != *at.local_sdp {
            at.sdp_version += 1;
            sdp = self.local_sdp(key, leg, plan).0;
            let session = self.sessions.table.get_mut(key).expect("the caller found it");
            session.legs[usize::from(leg)].local_sdp = sdp.as_str().into();
        }
        sdp
    }

    /// 2xx to a re-INVITE or UPDATE, with the session timer as it is agreed anew (RFC 4028 §9).
    fn answer_change(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        server: ServerKey,
        request: &Request,
        sdp: Option<&str>,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let at = &mut session.legs[usize::from(leg)];
        let floor_s = session_expires::floor_s(&self.config);
        let agreed = Offer::of(request, floor_s).ok().and_then(|offer| offer.answer(None, Refresher::Uas));
        let product = crate::cpm::release::product(&self.config);
        let contact = at.contact.clone();
        let fill = |mut writer: Writer<'_>| {
            writer.field(Name::Contact, &contact);
            if let Some(agreed) = &agreed {
                writer.format(Name::SessionExpires, format_args!("{}", agreed.session_expires()));
                if agreed.require {
                    writer.field(Name::Require, "timer");
                }
            }
            writer.field(Name::Supported, "timer").field(Name::Server, &product).field(Name::Allow, ALLOW);
            match sdp {
                Some(sdp) => {
                    writer.field(Name::ContentType, "application/sdp");
                    writer.body(sdp.as_bytes());
                }
                None => writer.body(b""),
            }
        };
        at.dialog.accepted(request);
        if request.method() == Method::Invite {
            at.reinvited = Some(server);
            self.transactions.set_cookie(server, Cookie::Within.of(key));
        }
        if self.transactions.respond(now, server, 200, status::reason(200), fill, out) {
            self.counts.response(request.method(), 200, Direction::Out);
        }
        let event = match agreed {
            Some(agreed) => Event::Agreed { interval_s: agreed.delta_s, ours: agreed.refresher == Refresher::Uas },
            // RFC 4028 §9: a 2xx without Session-Expires ends the timer.
            None => Event::Unbound,
        };
        self.session_event(now, key, leg, event, out);
    }
}
