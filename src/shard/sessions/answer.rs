//! OLM-r1, OSI-r2, EMS-1, TSI-8.a: the 2xx for the origin, and the ACK it sends back.

use super::{LegState, State};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::base::transport::Flow;
use crate::clause;
use crate::cpm::decision::{AckTime, Answer, Contact};
use crate::shard::addresses::Reach;
use crate::shard::counts::{Direction, Outcome};
use crate::shard::exchange::LegIndex;
use crate::shard::outbox::Outbox;
use crate::shard::signalling::Signalling;
use crate::shard::writing::{self, ALLOW};
use crate::sip::header::name::Name;
use crate::sip::header::session_expires::Refresher;
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::reply;
use crate::sip::session_timer;
use crate::sip::status;
use crate::sip::write::Writer;

impl Signalling {
    /// Answers the origin's INVITE with a 2xx; the transaction resends it until the ACK (RFC 3261 §13.3.1.4).
    pub(super) fn answer_origin(&mut self, now: Instant, key: Key, answer: &Answer, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get(key) else { return };
        let LegState::Waiting(server) = session.legs[0].state else { return };
        let Some(call) = session.call.as_ref() else { return };
        let request = std::rc::Rc::clone(&call.arrived.request);
        // RFC 3261 §13.2.1: where it has our answer from a reliable provisional response, no other counts.
        let shown = session.early.as_ref().is_some_and(|early| early.is_shown());
        let shown = shown.then(|| (session.legs[0].local_sdp.to_string(), session.legs[0].sdp_session));
        let reach = Reach::back(call.arrived.flow.transport, &request);
        let (contact, token) = match &answer.contact {
            Some(contact) => {
                let (value, token) = self.contact_value(contact, reach);
                (Some(value), token)
            }
            None => (None, None),
        };
        let record_route = matches!(answer.contact, Some(Contact::Copied(_))).then(|| {
            // Above the entries of the INVITE: the caller turns the list round, so we are the last hop before the focus.
            clause!("C17-3");
            self.record_route(reach)
        });
        let plain = || answer.media.as_ref().map(|plan| self.local_sdp(key, 0, plan)).map(|(sdp, own)| (sdp, own.session_id));
        let sdp = shown.or_else(plain);
        clause!("OLM-r6.a", "OSI-r6.a", "EMS-2");
        let own = Own {
            record_route: record_route.as_deref(),
            contact: contact.as_deref(),
            sdp: sdp.as_ref().map(|(sdp, _)| sdp.as_str()),
        };
        let fill = |writer: Writer<'_>| write_answer(writer, &request, answer, &own);
        if !self.transactions.respond(now, server, answer.status, status::reason(answer.status), fill, out) {
            return;
        }
        clause!("OLM-r6.b");
        self.counts.response(Method::Invite, answer.status, Direction::Out);
        let session = self.sessions.table.get_mut(key).expect("the session was just read");
        self.counts.latency(now.since(session.started));
        self.counts.invite(session.role, Some(session.service), Outcome::Answered);
        session.state = State::Standing;
        session.record.status = answer.status;
        let origin = &mut session.legs[0];
        origin.state = LegState::Answered(server);
        origin.contact = contact.unwrap_or_default().into();
        origin.token = token;
        origin.record_route = record_route;
        if let Some((sdp, own)) = sdp {
            origin.local_sdp = sdp.into();
            origin.sdp_session = own;
        }
        self.origin_answered(now, key, out);
        if let Some(expires) = answer.session_expires {
            let event = session_timer::Event::Agreed { interval_s: expires.delta_s, ours: expires.refresher == Refresher::Uas };
            self.session_event(now, key, 0, event, out);
        }
    }

    /// An ACK that ends no failure: that of a 2xx of ours, or one to be passed on.
    pub(in crate::shard) fn acknowledged(&mut self, now: Instant, flow: &Flow, request: &std::rc::Rc<Request>, out: &mut Outbox) {
        let tag = request.to_tag();
        let Some((key, leg)) = tag.and_then(|tag| self.sessions.of_tag(tag)) else {
            return self.pass_ack(now, flow, request, out);
        };
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let ending = session.state == State::Ending;
        let at = &mut session.legs[usize::from(leg)];
        if let Some(server) = at.reinvited.take() {
            return self.change_acknowledged(now, key, leg, server, request, out);
        }
        let LegState::Answered(server) = at.state else { return };
        self.transactions.acknowledged(server);
        at.state = LegState::Confirmed;
        if session.ack == AckTime::WithOrigin {
            clause!("OSI-r6.c");
            self.acknowledge_waiting(now, key, out);
        }
        if ending {
            // RFC 3261 §15: our BYE had to wait for the ACK; media may have closed long before.
            self.bye(now, key, 0, out);
            return self.finish(now, key, out);
        }
        self.drop_call(key);
    }

    /// OSI-r6: the targets whose ACK waited for the origin's get it.
    pub(super) fn acknowledge_waiting(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get(key) else { return };
        for leg in 1..session.legs.len() as LegIndex {
            let state = self.sessions.table.get(key).map(|session| session.legs[usize::from(leg)].state);
            if let Some(LegState::Unacknowledged(client)) = state {
                self.acknowledge(now, key, leg, client, out);
            }
        }
    }

    /// No ACK came for our 2xx within 64*T1: the session ends (RFC 3261 §13.3.1.4).
    pub(in crate::shard) fn unacknowledged(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        if matches!(session.legs[0].state, LegState::Answered(_)) {
            session.legs[0].state = LegState::Confirmed;
        }
        if session.state == State::Ending {
            self.bye(now, key, 0, out);
            return self.finish(now, key, out);
        }
        self.end(now, key, "no-ack", None, None, out);
    }

    /// Drops what only the making of a session needs, once it stands and no target is open.
    pub(super) fn drop_call(&mut self, key: Key) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let open = session
            .legs
            .iter()
            .any(|leg| matches!(leg.state, LegState::Calling(_) | LegState::Waiting(_) | LegState::Answered(_)));
        if !open && session.state != State::Inviting {
            session.call = None;
            session.early.take_if(|early| early.is_done());
        }
    }
}

/// What of an answer is ours to say.
struct Own<'a> {
    record_route: Option<&'a str>,
    contact: Option<&'a str>,
    sdp: Option<&'a str>,
}

/// Writes the 2xx: what belongs to the dialog and the hop, then what the procedure decided.
fn write_answer(mut writer: Writer<'_>, request: &Request, answer: &Answer, own: &Own<'_>) {
    if let Some(record_route) = own.record_route {
        writer.field(Name::RecordRoute, record_route);
    }
    reply::copy(request, Name::RecordRoute, &mut writer);
    if let Some(contact) = own.contact {
        writer.field(Name::Contact, contact);
    }
    if let Some(expires) = answer.session_expires {
        writing::session_expires(&mut writer, expires.delta_s, expires.refresher);
    }
    if answer.require_timer {
        writer.field(Name::Require, "timer");
    }
    for (name, value) in &answer.headers {
        writer.named(name, value);
    }
    if !answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Allow")) {
        writer.field(Name::Allow, ALLOW);
    }
    match own.sdp {
        Some(sdp) => {
            writer.field(Name::ContentType, "application/sdp");
            writer.body(sdp.as_bytes());
        }
        None => writer.body(b""),
    }
}
