//! OLM-6, OSI-4.e, TLM-4, TSI-8.c: acting as B2BUA. A decision becomes a session: media opened, targets invited.
//!
//! ```text
//! origin INVITE ──> Open, Bind (media core) ──> early 200 where TSI-8.a wants it ──> Leg, INVITE for each target
//! ```
//! The media core knows every MSRP URI before the SIP message that carries it leaves.

use super::local_sdp::content;
use super::streams::{media_kind, push, relayed_lines};
use super::{Arrived, Call, Leg, LegKind, LegState, Session, Sessions, Stream};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::clause;
use crate::cpm::decision::{AnswerTime, Bridge, Contact, Invite, NextHop, Service, TargetKind};
use crate::cpm::facts::Role;
use crate::cpm::identity;
use crate::cpm::media_plan::MediaPlan;
use crate::cpm::procedures::Procedure;
use crate::cpm::refusal::Refusal;
use crate::cpm::session_matching;
use crate::limits::TARGET_LEGS_MAX;
use crate::msrp::leg::{Direction, SessionKind};
use crate::shard::addresses::Reach;
use crate::shard::counts::{Outcome, case_label, service_label};
use crate::shard::exchange::{Command, Leg as MediaLeg, LegIndex, LegKind as MediaKind};
use crate::shard::outbound::{Hop, Purpose};
use crate::shard::outbox::Outbox;
use crate::shard::prefetch::Gathered;
use crate::shard::record::Cdr;
use crate::shard::signalling::{Cookie, Signalling};
use crate::shard::writing::{self, ALLOW, Draft, MAX_FORWARDS, asks_for_privacy, hops_left, is_identity};
use crate::sip::dialog::Dialog;
use crate::sip::header::min_se;
use crate::sip::header::name::Name;
use crate::sip::ids;
use crate::sip::method::Method;
use crate::sip::reliable;
use crate::sip::transaction::seam;
use crate::sip::write::Writer;

impl Signalling {
    /// Makes a session of a decision.
    pub(in crate::shard) fn bridge(
        &mut self,
        now: Instant,
        arrived: Arrived,
        procedure: Procedure,
        gathered: Gathered,
        bridge: Bridge,
        out: &mut Outbox,
    ) {
        clause!("OLM-6", "OSI-4.e", "TLM-4", "TSI-8.c");
        let server = arrived.server;
        let Some(key) = self.make_session(now, &arrived, procedure, bridge.service, out) else { return };
        let plan = bridge.targets.first().map(|target| &target.media);
        let answered = match &bridge.answer {
            AnswerTime::Early(answer) => answer.media.as_ref(),
            AnswerTime::OnFirst => None,
        };
        let lines = relayed_lines(plan.or(answered));
        if !self.open_media(key, &arrived.request, bridge.service, &lines, out) {
            self.forget_session(now, key);
            return self.refuse_status(now, server, 488, out);
        }
        let session = self.sessions.table.get_mut(key).expect("the session was just made");
        session.later = bridge.later;
        session.ack = bridge.ack;
        let early = match &bridge.answer {
            AnswerTime::Early(answer) => Some(answer.clone()),
            AnswerTime::OnFirst => None,
        };
        let call =
            Call { arrived, gathered, bridge, failures: Vec::new(), best: None, first_leg: 1, pending: 0, exhausted: false };
        session.call = Some(Box::new(call));
        if let Some(answer) = early {
            clause!("TSI-8.a.ii.3.a", "TSI-8.a.ii.3.b");
            self.answer_origin(now, key, &answer, out);
            self.follow_up(now, key, None, out);
        }
        self.invite_targets(now, key, out);
    }

    /// A session with its origin leg, or a refusal where there is no room for it.
    pub(super) fn make_session(
        &mut self,
        now: Instant,
        arrived: &Arrived,
        procedure: Procedure,
        service: Service,
        out: &mut Outbox,
    ) -> Option<Key> {
        let tag = self.transactions.local_tag(arrived.server).unwrap_or("");
        let Ok(dialog) = Dialog::called(&arrived.request, tag) else {
            // A request that makes a dialog has one Contact.
            self.refuse(now, arrived.server, &Refusal::new(400, "RFC 3261 §8.1.1.8"), out);
            return None;
        };
        let originator = self.originator_of(arrived);
        if let Some(originator) = &originator
            && !self.sessions.admits(originator, self.config.limits.sessions_per_originator)
        {
            self.counts.invite(arrived.role, Some(service), Outcome::Shed);
            let refusal = Refusal::new(486, "limits.sessions_per_originator");
            self.record_refusal(now, arrived, procedure, 486, refusal.clause, out);
            self.refuse(now, arrived.server, &refusal, out);
            return None;
        }
        let record = record_of(now, arrived, service_label(Some(service)));
        let mut session = Session::new(now, arrived.role, procedure, service, self.config.msrp.interop, record);
        session.originator = originator;
        session.replaceable = self.replaceable(arrived, service);
        session.legs.push(origin_leg(arrived, dialog));
        let Some(key) = self.sessions.insert(session) else {
            self.counts.invite(arrived.role, Some(service), Outcome::Shed);
            self.shed(now, arrived.server, "limits.dialogs", out);
            return None;
        };
        self.transactions.set_cookie(arrived.server, Cookie::Origin.of(key));
        if let Some(session) = self.sessions.table.get(key) {
            self.ladders.hold(session.origin().dialog.id());
        }
        self.counts.sessions += 1;
        self.counts.dialogs += 1;
        Some(key)
    }

    /// Whose sessions are counted: the served user, where the sessions are of their own making.
    fn originator_of(&self, arrived: &Arrived) -> Option<Box<str>> {
        if arrived.role != Role::Originating {
            return None;
        }
        identity::originator(arrived.trusted, &arrived.request).map(Into::into)
    }

    /// By what a session that replaces this one will name it: the user it is of and its Contribution-ID (TSI-8.b).
    fn replaceable(&self, arrived: &Arrived, service: Service) -> Option<(Box<str>, Box<str>)> {
        if !matches!(service, Service::Session | Service::GroupSession) {
            return None;
        }
        let contribution = arrived.request.header(Name::ContributionId)?;
        let user = identity::served_user(arrived.role, arrived.trusted, &arrived.request);
        Some((user.into(), contribution.into()))
    }

    /// Invites every target of the call's decision, all at once.
    pub(super) fn invite_targets(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let Some(call) = session.call.as_mut() else { return };
        let targets = std::mem::take(&mut call.bridge.targets);
        call.first_leg = session.legs.len();
        let room = TARGET_LEGS_MAX.saturating_sub(session.legs.len() - 1);
        call.pending = targets.len().min(room);
        for invite in targets.iter().take(room) {
            self.invite_target(now, key, invite, out);
        }
        if let Some(call) = self.sessions.table.get_mut(key).and_then(|session| session.call.as_mut()) {
            call.bridge.targets = targets;
        }
    }

    /// Writes and sends the INVITE of one target; the leg is the session's next.
    pub(in crate::shard) fn invite_target(&mut self, now: Instant, key: Key, invite: &Invite, out: &mut Outbox) {
        let session = self.sessions.table.get(key).expect("the caller holds the session");
        let left: &[Box<str>] = session.call.as_ref().map_or(&[], |call| &call.arrived.routes);
        let routes = self.routes_of(&invite.next_hop, left);
        let leg = self.add_target_leg(key, invite, &routes, out);
        self.send_invite(now, key, leg, invite, None, out);
    }

    /// Sends the INVITE of a target leg; after a 422 again, with the `min_se` it asked for (RFC 4028 §7.4).
    pub(super) fn send_invite(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        invite: &Invite,
        min_se: Option<u32>,
        out: &mut Outbox,
    ) {
        let session = self.sessions.table.get(key).expect("the caller holds the session");
        let max_forwards = session.call.as_ref().map_or(MAX_FORWARDS, |call| hops_left(&call.arrived.request));
        let dialog = &session.legs[usize::from(leg)].dialog;
        let hop = match &invite.next_hop {
            NextHop::Core { fallback: Some(contact) } if dialog.route_set().next().is_none() => contact.clone(),
            _ => dialog.next_hop().to_string(),
        };
        let reach = Reach::towards(self.transport_of(&hop), dialog.remote_target(), dialog.route_set().next());
        let (contact, token) = self.contact_value(&invite.contact, reach);
        let copied = matches!(invite.contact, Contact::Copied(_));
        let record_route = copied.then(|| {
            clause!("C17-3");
            self.record_route(reach)
        });
        let (sdp, own_origin) = self.local_sdp(key, leg, &invite.media);
        let (content_type, body) = content(&sdp, &invite.parts, &mut self.prng);
        let hides = !self.is_trusted_hop(&hop) && asks_for_privacy(&invite.headers);
        let reliably = self.origin_takes_reliable(key);
        let session = self.sessions.table.get_mut(key).expect("the caller holds the session");
        let made = &mut session.legs[usize::from(leg)];
        made.sdp_session = own_origin.session_id;
        made.local_sdp = sdp.into();
        made.contact = contact.into();
        made.record_route = record_route;
        let old = std::mem::replace(&mut made.token, token);
        let seq = made.dialog.next_seq();
        let draft = Draft::of_dialog(&made.dialog, Method::Invite, seq, max_forwards, |mut writer| {
            write_fields(&mut writer, invite, made, min_se, hides, reliably);
            writer.field(Name::ContentType, &content_type);
            writer.body(&body);
        });
        made.invite_seq = seq;
        made.pending.ours = true;
        if let Some(old) = old {
            self.drop_token(now, old);
        }
        let purpose = Purpose::Target { session: key, leg };
        if let Some(outbound) = self.dispatch(now, purpose, Method::Invite, seam::Role::UserAgent, draft, Hop::Uri(&hop), out)
            && let Some(session) = self.sessions.table.get_mut(key)
        {
            session.legs[usize::from(leg)].state = LegState::Calling(outbound);
        }
    }

    /// The leg of a target: its dialog begun, its side of every stream known to the media core.
    fn add_target_leg(&mut self, key: Key, invite: &Invite, routes: &[Box<str>], out: &mut Outbox) -> LegIndex {
        let tag: Box<str> = ids::tag(self.shard, &mut self.prng).into();
        let call_id: Box<str> = ids::call_id(&mut self.prng).into();
        let session = self.sessions.table.get_mut(key).expect("the caller holds the session");
        let leg = session.legs.len() as LegIndex;
        let routes: Vec<&str> = routes.iter().map(|route| &**route).collect();
        let dialog = Dialog::calling(&call_id, &invite.from, &tag, &invite.to, &invite.request_uri, &routes);
        // No request has key 0: until there is one, there is nothing to cancel.
        let calling = LegState::Calling(Key::from_u64(0));
        let mut made = Leg::new(LegKind::Target(invite.kind.clone()), calling, dialog);
        made.uris.reserve_exact(session.streams.len());
        self.ladders.join(session.legs[0].dialog.id(), &call_id, &tag, leg_name(&invite.kind));
        session.record.target_call_ids.reserve_exact(1);
        session.record.target_call_ids.push(call_id.into());
        if invite.kind == TargetKind::IsfRetry {
            made.lines = Some(retried_lines(&session.streams, &invite.media));
        }
        for (index, stream) in session.streams.iter().enumerate() {
            let Some(at) = made.line_of(index, stream) else { continue };
            let line = invite.media.description.media.get(at);
            let tls = line.is_some_and(|media| media.is_msrp_over_tls());
            let address = self.addresses.msrp(tls).or_else(|| self.addresses.msrp(!tls));
            let Some(address) = address else { continue };
            let uri: Box<str> = address.uri(stream.core, &mut self.prng).into();
            let direction = match (media_kind(session.service), line) {
                (SessionKind::LargeMessage, _) => Direction::ToPeer,
                (SessionKind::Session, Some(media)) => session_matching::direction_of_ours(media),
                (SessionKind::Session, None) => Direction::Both,
            };
            let matching = session_matching::before_answer(self.config.msrp.interop);
            let media_leg = MediaLeg { leg, kind: MediaKind::Msrp { uri: uri.clone(), tls: address.tls }, direction, matching };
            push(out, stream, Command::Leg { session: stream.key, leg: Box::new(media_leg) });
            made.uris.push(uri);
        }
        session.legs.push(made);
        self.sessions.tags.insert(tag, (key, leg));
        self.counts.dialogs += 1;
        leg
    }

    /// Route values towards a next hop: what is left of the received route set, else the core; or the ISF alone.
    pub(in crate::shard) fn routes_of(&self, next_hop: &NextHop, left: &[Box<str>]) -> Vec<Box<str>> {
        let configured = |uri: &Option<String>| uri.iter().map(|uri| ["<", uri, ">"].concat().into()).collect();
        match next_hop {
            NextHop::Isf => configured(&self.config.sip.isf),
            NextHop::Core { .. } if !left.is_empty() => left.to_vec(),
            NextHop::Core { .. } => configured(&self.config.sip.core),
        }
    }

    /// Whether the next hop is in our trust domain (RFC 3324): what the operator routes to, or an address in `sip.trusted`.
    pub(in crate::shard) fn is_trusted_hop(&self, hop: &str) -> bool {
        let sip = &self.config.sip;
        if [&sip.core, &sip.isf].into_iter().flatten().any(|uri| uri == hop) {
            return true;
        }
        let Ok(uri) = crate::sip::uri::Uri::parse(hop) else { return false };
        match crate::sip::header::via::address(uri.host) {
            Some(ip) => sip.trusted.iter().any(|network| network.contains(ip)),
            None => sip.home_domains.iter().any(|domain| domain.eq_ignore_ascii_case(uri.host)),
        }
    }

    /// Our Contact value; a URI of ours that stands for another is kept able to resolve back to it.
    pub(super) fn contact_value(&mut self, contact: &Contact, reach: Reach) -> (String, Option<Key>) {
        match contact {
            Contact::Copied(value) => (value.clone(), None),
            Contact::Own { params, stands_for } => {
                let user = ids::user(self.shard, &mut self.prng);
                let value = ["<", &self.addresses.uri(&user, reach), ">", params].concat();
                let token = stands_for.as_ref().and_then(|original| self.keep_token(user, original));
                (value, token)
            }
        }
    }

    /// Takes a session out of every table; its call record as it stands.
    pub(super) fn forget_session(&mut self, now: Instant, key: Key) -> Option<Box<Cdr>> {
        let session = self.sessions.table.remove(key)?;
        self.counts.sessions = self.counts.sessions.saturating_sub(1);
        for leg in &session.legs {
            if self.sessions.tags.remove(&leg.dialog.id().local_tag).is_some() {
                self.counts.dialogs = self.counts.dialogs.saturating_sub(1);
            }
            let mut timer = leg.timer;
            timer.stop(&mut self.timers);
            if let Some(token) = leg.token {
                self.drop_token(now, token);
            }
        }
        for timer in [session.guard, session.early.as_ref().and_then(|early| early.timer)].into_iter().flatten() {
            self.timers.cancel(timer);
        }
        for stream in &session.streams {
            self.sessions.close_stream(stream);
        }
        self.sessions.release(key, &session);
        self.ladders.release(session.origin().dialog.id());
        Some(session.record)
    }
}

impl Sessions {
    /// Whether an originator may have one more session; a limit of 0 is none.
    pub fn admits(&self, originator: &str, limit: usize) -> bool {
        limit == 0 || self.originators.get(originator).is_none_or(|count| *count < limit)
    }

    /// Takes a session in, with its origin leg: into the tables it is counted and found in. None: there is no room.
    fn insert(&mut self, session: Session) -> Option<Key> {
        let tag = session.origin().dialog.id().local_tag.clone();
        let (originator, replaceable) = (session.originator.clone(), session.replaceable.clone());
        let key = self.table.insert(session).ok()?;
        self.tags.insert(tag, (key, 0));
        if let Some(originator) = originator {
            *self.originators.entry(originator).or_default() += 1;
        }
        if let Some(replaceable) = replaceable {
            self.contributions.insert(replaceable, key);
        }
        Some(key)
    }

    /// Takes a session out of the tables it is counted and found in.
    pub fn release(&mut self, key: Key, session: &Session) {
        if let Some(originator) = &session.originator
            && let Some(count) = self.originators.get_mut(originator)
        {
            *count -= 1;
            if *count == 0 {
                self.originators.remove(originator);
            }
        }
        // A later session of the same name may stand there by now.
        if let Some(replaceable) = &session.replaceable
            && self.contributions.get(replaceable) == Some(&key)
        {
            self.contributions.remove(replaceable);
        }
    }
}

/// The leg that an INVITE came in on.
fn origin_leg(arrived: &Arrived, dialog: Dialog) -> Leg {
    let mut origin = Leg::new(LegKind::Origin, LegState::Waiting(arrived.server), dialog);
    origin.source = Some(arrived.flow);
    origin.back = arrived.flow.transport.reliable() && origin.dialog.route_set().next().is_none();
    origin.updates = arrived.request.lists(Name::Allow, "UPDATE");
    origin.min_se = min_se::heard(&arrived.request);
    origin
}

/// Writes the fields of a target's INVITE, those of its leg first. `hides`: nobody on the way may learn the identity;
/// `reliably`: the origin takes reliable provisional responses.
fn write_fields(writer: &mut Writer<'_>, invite: &Invite, leg: &Leg, min_se: Option<u32>, hides: bool, reliably: bool) {
    if let Some(record_route) = &leg.record_route {
        writer.field(Name::RecordRoute, record_route);
    }
    writer.field(Name::Contact, &leg.contact);
    if let Some(expires) = invite.session_expires {
        writing::session_expires(writer, expires.delta_s.max(min_se.unwrap_or(0)), expires.refresher);
    }
    if let Some(min_se) = min_se {
        writer.format(Name::MinSe, format_args!("{min_se}"));
    }
    for (name, value) in invite.headers.iter().filter(|(name, _)| !(hides && is_identity(name))) {
        writer.named(name, value);
    }
    if reliably {
        // Beside the tags that the procedure listed: the caller can be told reliably, so the target may.
        writer.field(Name::Supported, reliable::TAG);
    }
    if !invite.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Allow")) {
        writer.field(Name::Allow, ALLOW);
    }
}

/// OSI-r1: the relayed lines of a retry stand for the streams that were rejected, in order.
fn retried_lines(streams: &[Stream], plan: &MediaPlan) -> Box<[(usize, usize)]> {
    let rejected = streams.iter().enumerate().filter(|(_, stream)| stream.rejected).map(|(index, _)| index);
    rejected.zip(plan.relayed()).collect()
}

fn record_of(now: Instant, arrived: &Arrived, service: &'static str) -> Cdr {
    let request = &arrived.request;
    let text = |name: Name| request.header(name).map(str::to_string);
    let address =
        |value: &str| crate::sip::header::name_addr::NameAddr::parse(value).map_or(String::new(), |a| a.uri.to_string());
    let originator =
        request.values(Name::PAssertedIdentity).next().or_else(|| request.header(Name::From)).map_or(String::new(), address);
    Cdr {
        case: case_label(arrived.role),
        service,
        call_id: request.call_id().unwrap_or("").to_string(),
        originator,
        recipient: request.uri().to_string(),
        conversation_id: text(Name::ConversationId),
        contribution_id: text(Name::ContributionId),
        started_s: now.unix_s(),
        ..Cdr::default()
    }
}

/// What the far end of a leg is called in the call's ladder.
const fn leg_name(kind: &TargetKind) -> &'static str {
    match kind {
        TargetKind::Recipient => "recipient",
        TargetKind::Client { .. } => "client",
        TargetKind::OwnClient { .. } => "own client",
        TargetKind::Isf | TargetKind::IsfRetry => "ISF",
        TargetKind::Forward => "forward",
    }
}
