//! Requests within a session's dialogs (RFC 3261 §12.2, §14, §15; RFC 3311, 3428, 3515, 6086, 6665): answered here, or
//! made anew on the other leg.
//!
//! ```text
//! BYE                              200; the other legs hear BYE
//! PRACK                            the target whose response it acknowledges, its answer back (RFC 3262)
//! INVITE, UPDATE: SDP as before    200; a session refresh ends at this hop (RFC 4028 §7.4)
//! INVITE, UPDATE: another SDP      offer for the other leg, its answer back
//! OPTIONS                          200
//! INFO MESSAGE REFER SUBSCRIBE …   the other leg, its response back
//! ```
//! In an early dialog: BYE of the origin ends the call; INVITE, and UPDATE with an offer, come too early (500, 491).

use super::{LegState, State};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::cpm::decision::AckTime;
use crate::cpm::refusal::Refusal;
use crate::shard::arrival;
use crate::shard::counts::Direction;
use crate::shard::exchange::LegIndex;
use crate::shard::outbound::{Hop, Purpose, Within};
use crate::shard::outbox::Outbox;
use crate::shard::signalling::Signalling;
use crate::shard::writing::{ALLOW, Draft, MAX_FORWARDS};
use crate::sip::header::name::Name;
use crate::sip::header::reason;
use crate::sip::message::{Message, Request, Response};
use crate::sip::method::Method;
use crate::sip::status;
use crate::sip::transaction::seam::{self, ClientKey, ServerKey};
use crate::sip::write::Writer;
use std::rc::Rc;

/// Fields that belong to one dialog or one hop, and are written anew on the other leg.
const OF_THE_LEG: [Name; 21] = [
    Name::Via,
    Name::Route,
    Name::RecordRoute,
    Name::MaxForwards,
    Name::From,
    Name::To,
    Name::CallId,
    Name::CSeq,
    Name::Contact,
    Name::ContentLength,
    Name::UserAgent,
    Name::Server,
    Name::Authorization,
    Name::ProxyAuthorization,
    Name::WwwAuthenticate,
    Name::ProxyAuthenticate,
    Name::AuthenticationInfo,
    Name::PServedUser,
    Name::RSeq,
    Name::RAck,
    Name::Timestamp,
];

impl Signalling {
    /// A request in a leg's dialog.
    pub(in crate::shard) fn within(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        server: ServerKey,
        request: &Rc<Request>,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.table.get_mut(key) else { return self.refuse_status(now, server, 481, out) };
        let at = &mut session.legs[usize::from(leg)];
        if matches!(at.state, LegState::Calling(_)) && at.dialog.is_called_by(request) {
            return self.within_early(now, key, leg, server, request, out);
        }
        if let Err(out_of_dialog) = at.dialog.receive(request) {
            return self.refuse_status(now, server, out_of_dialog.status(), out);
        }
        if matches!(at.state, LegState::Waiting(_)) {
            return self.within_early(now, key, leg, server, request, out);
        }
        let standing = session.state == State::Standing && at.state.is_answered();
        match request.method() {
            Method::Bye => {
                self.answer_plain(now, server, 200, out);
                self.peer_left(now, key, leg, reason::all(request).as_deref(), out);
            }
            Method::Options => self.answer_plain(now, server, 200, out),
            Method::Prack => self.pracked(now, key, leg, server, request, out),
            _ if !standing => self.refuse_status(now, server, 481, out),
            Method::Invite | Method::Update => self.changed_or_refreshed(now, key, leg, server, request, out),
            Method::Other | Method::Register | Method::Publish => self.refuse_method(now, server, out),
            _ => self.relay(now, key, leg, server, request, out),
        }
    }

    /// A request in an early dialog, of the origin's or of a target's. An offer is still to be answered, so nothing can be changed
    /// (RFC 3261 §14.2, RFC 3311 §5.2); and nobody is there yet to whom anything could be passed on.
    fn within_early(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        server: ServerKey,
        request: &Rc<Request>,
        out: &mut Outbox,
    ) {
        match request.method() {
            Method::Bye if leg == 0 => {
                self.answer_plain(now, server, 200, out);
                self.hung_up_early(now, key, request, out);
            }
            // §15: who was called may refuse the INVITE, and nothing else.
            Method::Bye => self.refuse_status(now, server, 481, out),
            Method::Options => self.answer_plain(now, server, 200, out),
            Method::Prack => self.pracked(now, key, leg, server, request, out),
            Method::Update if request.body().is_empty() => self.refreshed_early(now, key, leg, server, request, out),
            Method::Invite | Method::Update if leg == 0 => {
                let later = Refusal::new(500, "RFC 3261 §14.2").header("Retry-After", self.prng.below(11).to_string());
                self.refuse(now, server, &later, out);
            }
            Method::Invite | Method::Update => self.refuse_status(now, server, 491, out),
            Method::Other | Method::Register | Method::Publish => self.refuse_method(now, server, out),
            _ => self.refuse_status(now, server, 480, out),
        }
    }

    fn refuse_method(&mut self, now: Instant, server: ServerKey, out: &mut Outbox) {
        let allow = Refusal::new(405, "RFC 3261 §8.2.1").header("Allow", ALLOW.to_string());
        self.refuse(now, server, &allow, out);
    }

    /// RFC 3311 §5.2: an UPDATE without offer tells where the peer is now.
    fn refreshed_early(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        server: ServerKey,
        request: &Rc<Request>,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let at = &mut session.legs[usize::from(leg)];
        let contact: Box<str> = match &session.early {
            Some(early) if leg == 0 => early.contact().into(),
            _ => at.contact.clone(),
        };
        if leg == 0 {
            at.dialog.accepted(request);
        }
        let product = crate::cpm::release::product(&self.config);
        let fill = |mut writer: Writer<'_>| {
            writer.field(Name::Contact, &contact);
            writer.field(Name::Server, &product).field(Name::Allow, ALLOW);
            writer.body(b"");
        };
        if self.transactions.respond(now, server, 200, status::reason(200), fill, out) {
            self.counts.response(Method::Update, 200, Direction::Out);
        }
    }

    fn peer_left(&mut self, now: Instant, key: Key, leg: LegIndex, reason: Option<&str>, out: &mut Outbox) {
        if let Some(server) = self.sessions.table.get_mut(key).and_then(|session| session.legs[usize::from(leg)].reinvited.take())
        {
            self.transactions.acknowledged(server);
        }
        if let Some(session) = self.sessions.table.get(key)
            && let LegState::Answered(server) = session.legs[usize::from(leg)].state
        {
            // The peer knows the dialog, so it has our 2xx; its ACK was lost or is late.
            self.transactions.acknowledged(server);
            if session.ack == AckTime::WithOrigin {
                self.acknowledge_waiting(now, key, out);
            }
        }
        self.leg_left(now, key, leg, reason, out);
    }

    /// A 2xx with nothing in it.
    pub(in crate::shard) fn answer_plain(&mut self, now: Instant, server: ServerKey, status: u16, out: &mut Outbox) {
        let product = crate::cpm::release::product(&self.config);
        let method = self.transactions.served(server).map_or(Method::Other, |request| request.method());
        let fill = |mut writer: Writer<'_>| {
            writer.field(Name::Server, &product);
            if method == Method::Options {
                writer.field(Name::Allow, ALLOW);
                writer.field(Name::Accept, "application/sdp, message/cpim");
                writer.field(Name::Supported, "timer, 100rel");
            }
            writer.body(b"");
        };
        if self.transactions.respond(now, server, status, status::reason(status), fill, out) {
            self.counts.response(method, status, Direction::Out);
        }
    }

    /// The leg to which a request on `leg` goes: the origin, or the first target that is in the session.
    pub(super) fn opposite(&self, key: Key, leg: LegIndex) -> Option<LegIndex> {
        let session = self.sessions.table.get(key)?;
        if leg > 0 {
            return session.legs[0].state.is_answered().then_some(0);
        }
        let is_target = |leg: &super::Leg| leg.state.is_answered() && leg.is_recipients();
        session.legs.iter().position(is_target).map(|at| at as LegIndex)
    }

    /// Makes a request anew on the other leg; the response will come back to `server`.
    fn relay(&mut self, now: Instant, key: Key, leg: LegIndex, server: ServerKey, request: &Rc<Request>, out: &mut Outbox) {
        let Some(other) = self.opposite(key, leg) else { return self.refuse_status(now, server, 480, out) };
        let hops = match crate::sip::validate::max_forwards(request).ok().flatten() {
            Some(0) => return self.refuse_status(now, server, 483, out),
            Some(hops) => hops - 1,
            None => MAX_FORWARDS,
        };
        let hidden = self.hidden_from(key, other, request);
        let session = self.sessions.table.get_mut(key).expect("its leg was just found");
        let at = &mut session.legs[usize::from(other)];
        let seq = at.dialog.next_seq();
        let product = crate::cpm::release::product(&self.config);
        let draft = Draft::of_dialog(&at.dialog, request.method(), seq, hops, |mut writer| {
            if request.has(Name::Contact) {
                writer.field(Name::Contact, &at.contact);
            }
            writer.field(Name::UserAgent, &product);
            copy_rest(request, hidden, &mut writer);
            writer.body(request.body());
        });
        let what = Within::Relayed { server, from: leg };
        self.send_within(now, key, other, request.method(), draft, what, out);
    }

    /// RFC 3325 §7: what of a message is not for a leg whose peer is outside the trust domain, where the sender asks for that.
    fn hidden_from(&self, key: Key, leg: LegIndex, message: &Message) -> &'static [Name] {
        let source = self.sessions.table.get(key).and_then(|session| session.legs[usize::from(leg)].source);
        let outside = source.is_some_and(|flow| !arrival::is_trusted(&self.config, &flow));
        if outside && arrival::withholds_identity(message) { &[Name::PAssertedIdentity] } else { &[] }
    }

    /// Sends a request in a leg's dialog: its key among the requests on their way.
    pub(super) fn send_within(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        method: Method,
        draft: Draft,
        what: Within,
        out: &mut Outbox,
    ) -> Option<Key> {
        let hop = self.sessions.table.get(key)?.legs[usize::from(leg)].dialog.next_hop().to_string();
        self.send_to_hop(now, key, leg, method, draft, &hop, what, out)
    }

    /// The same where the next hop is not that of the leg's dialog, but of an early one.
    pub(super) fn send_to_hop(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        method: Method,
        draft: Draft,
        hop: &str,
        what: Within,
        out: &mut Outbox,
    ) -> Option<Key> {
        let way = Hop::of_leg(&self.sessions.table.get(key)?.legs[usize::from(leg)], hop);
        let purpose = Purpose::Within { session: key, leg, what };
        self.dispatch(now, purpose, method, seam::Role::UserAgent, draft, way, out)
    }

    /// The answer to a request of ours in a dialog.
    pub(super) fn within_heard(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        what: &Within,
        client: ClientKey,
        method: Method,
        response: &Response,
        out: &mut Outbox,
    ) {
        let status = response.status();
        if status < 200 {
            return;
        }
        if method == Method::Invite && status < 300 && !self.acknowledge_within(now, key, leg, client, response, out) {
            if let Within::Relayed { server, .. } | Within::Changed { server, .. } = what {
                // RFC 3261 §15.1.2: who hung up is still to be answered what it asked before.
                self.refuse_status(now, *server, 487, out);
            }
            return;
        }
        match what {
            Within::Bye { tag } => self.sessions.parted(tag),
            Within::Prack { server } => self.prack_heard(now, *server, status, out),
            Within::Refresh => self.refreshed(now, key, leg, status, Some(response), out),
            Within::Relayed { server, from } => self.relay_back(now, key, *server, *from, response, out),
            Within::Changed { server, from, request, before } => {
                self.changed_heard(now, key, leg, *server, *from, request, before, status, Some(response), out);
            }
            Within::Passed(passing) => self.passed_heard(now, key, passing, status, Some(response), out),
        }
    }

    /// A request of ours in a dialog got no answer.
    pub(super) fn within_lost(&mut self, now: Instant, key: Key, leg: LegIndex, what: &Within, status: u16, out: &mut Outbox) {
        match what {
            Within::Bye { tag } => self.sessions.parted(tag),
            Within::Prack { server } => self.prack_heard(now, *server, status, out),
            Within::Refresh => self.refreshed(now, key, leg, status, None, out),
            Within::Relayed { server, .. } => self.refuse_status(now, *server, status, out),
            Within::Changed { server, from, request, before } => {
                self.changed_heard(now, key, leg, *server, *from, request, before, status, None, out);
            }
            Within::Passed(passing) => self.passed_heard(now, key, passing, status, None, out),
        }
        // RFC 3261 §12.2.1.2: silence within a dialog ends it.
        if status == 408 && matches!(what, Within::Relayed { .. }) {
            self.end(now, key, "no-response", None, None, out);
        }
    }

    /// The 2xx of a re-INVITE of ours is acknowledged. False: the leg is over by now.
    fn acknowledge_within(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        client: ClientKey,
        response: &Response,
        out: &mut Outbox,
    ) -> bool {
        let alive = self.sessions.table.get_mut(key).and_then(|session| session.legs.get_mut(usize::from(leg)));
        let Some(at) = alive.filter(|leg| leg.state.is_answered()) else {
            // Its BYE came or went already.
            self.acknowledge_foreign(now, client, response, out);
            return false;
        };
        // §12.2.1.2: the ACK goes to where the 2xx says.
        let _ = at.dialog.refreshed(response);
        let seq = response.cseq().map_or(at.invite_seq, |cseq| cseq.number);
        self.send_ack(now, key, leg, client, seq, out);
        true
    }

    /// The other leg's response, for the leg whose request was relayed.
    fn relay_back(&mut self, now: Instant, key: Key, server: ServerKey, from: LegIndex, response: &Response, out: &mut Outbox) {
        let status = relayed_status(response.status());
        let asker = self.sessions.table.get_mut(key).and_then(|session| session.legs.get_mut(usize::from(from)));
        let contact = asker.map(|leg| {
            if let Some(request) = self.transactions.served(server).filter(|_| status < 300) {
                leg.dialog.accepted(request);
            }
            leg.contact.clone()
        });
        let product = crate::cpm::release::product(&self.config);
        let reason =
            if status == response.status() && !response.reason().is_empty() { response.reason() } else { status::reason(status) };
        let method = self.transactions.served(server).map_or(Method::Other, |request| request.method());
        let hidden = self.hidden_from(key, from, response);
        let fill = |mut writer: Writer<'_>| {
            if let Some(contact) = contact.as_ref().filter(|_| response.has(Name::Contact)) {
                writer.field(Name::Contact, contact);
            }
            writer.field(Name::Server, &product);
            copy_rest(response, hidden, &mut writer);
            writer.body(response.body());
        };
        if self.transactions.respond(now, server, status, reason, fill, out) {
            self.counts.response(method, status, Direction::Out);
        }
        if matches!(response.status(), 408 | 481) {
            self.end(now, key, "no-dialog", None, None, out);
        }
    }
}

/// Everything that is not of one leg, as it came, but for what is to be hidden.
fn copy_rest(message: &Message, hidden: &[Name], writer: &mut Writer<'_>) {
    for (name, text, value) in message.fields() {
        if !OF_THE_LEG.contains(&name) && !hidden.contains(&name) {
            writer.named(text, value);
        }
    }
}

/// RFC 3261 §16.7 seen from a B2BUA: what was meant for our own dialog or hop is not for the other leg; nor is 422, since
/// the session timer is each leg's own (RFC 4028 §4).
pub(in crate::shard) const fn relayed_status(status: u16) -> u16 {
    match status {
        401 | 407 | 422 | 482 | 483 => 500,
        status => status,
    }
}
