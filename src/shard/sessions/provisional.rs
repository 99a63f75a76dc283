//! RFC 3261 §13.2.2.1, RFC 3262: provisional responses of the targets, for the origin.
//!
//! ```text
//!  origin            here                target       both sides ask for 100rel: RSeq and RAck are each leg's own
//!    |<-- 183, RSeq x --|<-- 183, RSeq y --|
//!    |--- PRACK x ----->|--- PRACK y ----->|
//!    |<-- 200 ----------|<-- 200 ----------|
//!
//! the origin does not ask           the target's response is acknowledged here, and goes on without RSeq
//! the origin requires it            a target's response without RSeq gets one here, and its PRACK ends here
//! ```
//! A focus that rings is shown to the origin as one that answers is (C.1.7).
//!
//! The answer that a target sent in a reliable response is kept for a 2xx that does not repeat it (RFC 3262 §5). Where one target alone
//! is asked and the origin takes reliable responses, ours for the origin goes with it, and is what its 2xx says again (RFC 3261
//! §13.2.1); media begins to flow with the target's 2xx. Otherwise the origin gets no SDP before its 2xx: what answers its offer is
//! known when a target took the call.

use super::streams::media_kind;
use super::{LegState, State, peers};
use crate::base::clock::Instant;
use crate::base::prng::Prng;
use crate::base::slab::Key;
use crate::base::timers::Handle;
use crate::base::transport::Transport;
use crate::clause;
use crate::cpm::contact;
use crate::cpm::decision::Contact;
use crate::cpm::headers::Field;
use crate::cpm::media_plan::{self, Side};
use crate::cpm::refusal::Refusal;
use crate::limits::EARLY_DIALOGS_MAX;
use crate::shard::addresses::Reach;
use crate::shard::arrival;
use crate::shard::counts::Direction;
use crate::shard::exchange::LegIndex;
use crate::shard::outbound::Within;
use crate::shard::outbox::Outbox;
use crate::shard::signalling::{Due, Signalling};
use crate::shard::writing::{ALLOW, Draft, MAX_FORWARDS};
use crate::sip::dialog::Dialog;
use crate::sip::header::name::Name;
use crate::sip::header::rack::RAck;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::reliable::{self, Overdue, Reliable};
use crate::sip::reply;
use crate::sip::status;
use crate::sip::transaction::seam::ServerKey;
use crate::sip::write::Writer;

/// What a call keeps of reliable provisional responses.
pub struct Early {
    /// Ours to the origin.
    responses: Reliable<Provisional>,
    /// CSeq of the origin's INVITE, and our Contact in its early dialog.
    number: u32,
    contact: Box<str>,
    pub timer: Option<Handle>,
    /// A response to the origin had our answer: the SDP that its leg has.
    shown: bool,
    /// Those of the targets, a dialog each.
    dialogs: Vec<EarlyDialog>,
}

/// A response for the origin.
struct Provisional {
    status: u16,
    reason: Box<str>,
    focus: Option<Focus>,
    /// Who rings, where the origin is to know.
    identity: Vec<Field>,
    sdp: Option<Box<str>>,
    /// The target's response that it stands for; none where that wants no PRACK.
    of: Option<Heard>,
}

/// The Contact of a focus, copied, and the entry that keeps us on the way to it.
#[derive(Clone)]
struct Focus {
    contact: Box<str>,
    record_route: Box<str>,
}

impl Focus {
    /// As in the 2xx: our entry above those of the INVITE.
    fn write(&self, request: &Request, writer: &mut Writer<'_>) {
        writer.field(Name::RecordRoute, &self.record_route);
        reply::copy(request, Name::RecordRoute, writer);
        writer.field(Name::Contact, &self.contact);
    }
}

/// A target's reliable response.
struct Heard {
    leg: LegIndex,
    remote_tag: Box<str>,
    sequence: u32,
}

struct EarlyDialog {
    leg: LegIndex,
    dialog: Dialog,
    /// RSeq of the last response taken.
    last: u32,
    /// The answer to our offer: Content-Type and body.
    answer: Option<(Box<str>, Box<[u8]>)>,
}

impl Early {
    fn new(number: u32, prng: &mut Prng) -> Box<Self> {
        let responses = Reliable::new(prng);
        Box::new(Self { responses, number, contact: Box::default(), timer: None, shown: false, dialogs: Vec::new() })
    }

    /// Our Contact in the origin's early dialog.
    pub fn contact(&self) -> &str {
        &self.contact
    }

    /// Whether the origin has our answer.
    pub const fn is_shown(&self) -> bool {
        self.shown
    }

    /// A target's INVITE has its final response.
    pub fn forget(&mut self, leg: LegIndex) {
        self.dialogs.retain(|early| early.leg != leg);
    }

    /// Nothing is to be acknowledged any more.
    pub fn is_done(&self) -> bool {
        self.timer.is_none() && self.responses.outstanding().is_none()
    }
}

impl Signalling {
    /// Whether the origin's INVITE, still open, lists 100rel.
    pub(super) fn origin_takes_reliable(&self, key: Key) -> bool {
        self.origin_invite(key).is_some_and(|(_, request)| takes_reliable(request))
    }

    fn origin_invite(&self, key: Key) -> Option<(ServerKey, &std::rc::Rc<Request>)> {
        let session = self.sessions.table.get(key)?;
        let LegState::Waiting(server) = session.legs[0].state else { return None };
        self.transactions.served(server).map(|request| (server, request))
    }

    /// How the origin, whose INVITE is open, is to reach us.
    fn origin_reach(&self, key: Key) -> Option<Reach> {
        let (_, request) = self.origin_invite(key)?;
        let source = self.sessions.table.get(key)?.legs[0].source;
        Some(Reach::back(source.map_or(Transport::Udp, |flow| flow.transport), request))
    }

    /// A provisional response of a target's.
    pub(super) fn provisional_heard(&mut self, now: Instant, key: Key, leg: LegIndex, response: &Response, out: &mut Outbox) {
        let Some(sequence) = reliable::sequence_of(response) else {
            self.relay_provisional(now, key, response, None, out);
            return;
        };
        let Some(heard) = self.take_reliable(key, leg, sequence, response) else { return };
        if let Some(heard) = self.relay_provisional(now, key, response, Some(heard), out) {
            self.prack(now, key, &heard, None, out);
        }
    }

    /// §4: keeps a reliable response that is the next of its dialog. None: it is not, or there is no room.
    fn take_reliable(&mut self, key: Key, leg: LegIndex, sequence: u32, response: &Response) -> Option<Heard> {
        let number = self.origin_invite(key).and_then(|(_, request)| request.cseq().ok()).map_or(0, |cseq| cseq.number);
        let session = self.sessions.table.get_mut(key)?;
        let at = &session.legs[usize::from(leg)];
        if session.state == State::Ending || !matches!(at.state, LegState::Calling(_)) {
            return None;
        }
        let mut dialog = at.dialog.answered(response).ok().filter(|dialog| !dialog.id().remote_tag.is_empty())?;
        dialog.drop_own_route(|uri| self.addresses.is_own(uri));
        let early = session.early.get_or_insert_with(|| Early::new(number, &mut self.prng));
        let answer =
            peers::sdp_of(response).map(|_| (response.header(Name::ContentType).unwrap_or("").into(), response.body().into()));
        let heard = Heard { leg, remote_tag: dialog.id().remote_tag.clone(), sequence };
        match early.dialogs.iter().position(|known| known.leg == leg && known.dialog.id() == dialog.id()) {
            Some(at) => {
                let known = &mut early.dialogs[at];
                if !reliable::is_next(Some(known.last), sequence) {
                    return None;
                }
                known.last = sequence;
                known.answer = known.answer.take().or(answer);
            }
            None if early.dialogs.len() >= EARLY_DIALOGS_MAX => return None,
            None => early.dialogs.push(EarlyDialog { leg, dialog, last: sequence, answer }),
        }
        Some(heard)
    }

    /// The origin hears that something rings: reliably where it asks and the target did, or where it requires that; `heard`
    /// comes back where its PRACK is not to be waited for.
    fn relay_provisional(
        &mut self,
        now: Instant,
        key: Key,
        response: &Response,
        heard: Option<Heard>,
        out: &mut Outbox,
    ) -> Option<Heard> {
        let Some((server, request)) = self.origin_invite(key) else { return heard };
        let requires = request.lists(Name::Require, reliable::TAG);
        let reliably = requires || heard.is_some() && takes_reliable(request);
        let number = request.cseq().map_or(0, |cseq| cseq.number);
        let request = std::rc::Rc::clone(request);
        let session = self.sessions.table.get(key).expect("its INVITE was just found");
        if session.state != State::Inviting {
            return heard;
        }
        let focus = self.focus_of(key, response);
        let trusted =
            self.sessions.table.get(key).and_then(|session| session.call.as_ref()).is_some_and(|call| call.arrived.trusted);
        let identity = if trusted { arrival::identity_of(response) } else { Vec::new() };
        let status = response.status();
        let reason = if response.reason().is_empty() { status::reason(status) } else { response.reason() };
        let contact = self.early_contact(key, number);
        if !reliably {
            let fill = |writer: &mut Writer<'_>| {
                write_dialog(&request, focus.as_ref(), &contact, writer);
                write_fields(&identity, writer);
            };
            self.respond_provisionally(now, server, status, reason, fill, "", out);
            return heard;
        }
        let sdp = heard.as_ref().and_then(|heard| self.answer_early(now, key, heard.leg, response));
        let session = self.sessions.table.get_mut(key).expect("it was just there");
        let early = session.early.as_mut().expect("it has a Contact");
        let waits = early.responses.push(Provisional { status, reason: reason.into(), focus, identity, sdp, of: heard });
        self.send_reliable(now, key, out);
        waits.err().and_then(|refused| refused.of)
    }

    /// C.1.7: responses may carry it, provisional ones as well.
    fn focus_of(&mut self, key: Key, response: &Response) -> Option<Focus> {
        let contact = contact::focus(response)?.into();
        clause!("C17-2", "C17-3");
        let record_route = self.record_route(self.origin_reach(key)?);
        Some(Focus { contact, record_route })
    }

    /// RFC 3261 §12.1.1: a provisional response with a tag makes a dialog, so it has a Contact: always the same.
    fn early_contact(&mut self, key: Key, number: u32) -> Box<str> {
        let Some(session) = self.sessions.table.get(key) else { return Box::default() };
        if let Some(early) = session.early.as_ref().filter(|early| !early.contact.is_empty()) {
            return early.contact.clone();
        }
        let Some(reach) = self.origin_reach(key) else { return Box::default() };
        let own = Contact::Own { params: String::new(), stands_for: None };
        let contact: Box<str> = self.contact_value(&own, reach).0.into();
        if let Some(session) = self.sessions.table.get_mut(key) {
            session.early.get_or_insert_with(|| Early::new(number, &mut self.prng)).contact.clone_from(&contact);
        }
        contact
    }

    /// Sends the next reliable response, when the one before is acknowledged.
    fn send_reliable(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let t1 = self.config.sip.t1;
        let Some(early) = self.sessions.table.get_mut(key).and_then(|session| session.early.as_mut()) else { return };
        if early.responses.begin(t1) {
            early.timer = Some(self.timers.arm(now + t1, Due::Provisional(key)));
            self.write_reliable(now, key, out);
        }
    }

    fn write_reliable(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some((server, request)) = self.origin_invite(key) else { return };
        let request = std::rc::Rc::clone(request);
        let early = self.sessions.table.get(key).and_then(|session| session.early.as_ref());
        let Some((early, (sequence, response))) = early.and_then(|early| Some((early, early.responses.outstanding()?))) else {
            return;
        };
        let (status, reason, contact) = (response.status, response.reason.clone(), early.contact.clone());
        let (focus, identity, sdp) =
            (response.focus.clone(), response.identity.clone(), response.sdp.clone().unwrap_or_default());
        let fill = |writer: &mut Writer<'_>| {
            write_dialog(&request, focus.as_ref(), &contact, writer);
            write_fields(&identity, writer);
            writer.field(Name::Require, reliable::TAG);
            writer.format(Name::RSeq, format_args!("{sequence}")).field(Name::Allow, ALLOW);
        };
        self.respond_provisionally(now, server, status, &reason, fill, &sdp, out);
    }

    fn respond_provisionally(
        &mut self,
        now: Instant,
        server: ServerKey,
        status: u16,
        reason: &str,
        fields: impl FnOnce(&mut Writer<'_>),
        sdp: &str,
        out: &mut Outbox,
    ) {
        let product = crate::cpm::release::product(&self.config);
        let fill = |mut writer: Writer<'_>| {
            fields(&mut writer);
            writer.field(Name::Server, &product);
            if !sdp.is_empty() {
                writer.field(Name::ContentType, "application/sdp");
            }
            writer.body(sdp.as_bytes());
        };
        if self.transactions.respond(now, server, status, reason, fill, out) {
            self.counts.response(Method::Invite, status, Direction::Out);
        }
    }

    /// §3: the response on the wire was not acknowledged yet.
    pub(in crate::shard) fn provisional_due(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let t1 = self.config.sip.t1;
        let Some(early) = self.sessions.table.get_mut(key).and_then(|session| session.early.as_mut()) else { return };
        early.timer = None;
        match early.responses.overdue(t1) {
            Overdue::Resend(wait) => {
                early.timer = Some(self.timers.arm(now + wait, Due::Provisional(key)));
                self.write_reliable(now, key, out);
            }
            Overdue::GiveUp => self.fail_origin(now, key, &Refusal::new(504, "RFC 3262 §3"), out),
        }
    }

    /// The origin's INVITE has its 2xx: nothing is sent again, and targets that still ring are acknowledged here.
    pub(super) fn origin_answered(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(early) = self.sessions.table.get_mut(key).and_then(|session| session.early.as_mut()) else { return };
        if let Some(timer) = early.timer.take() {
            self.timers.cancel(timer);
        }
        for heard in early.responses.finish().into_iter().filter_map(|response| response.of) {
            self.prack(now, key, &heard, None, out);
        }
    }

    /// A PRACK: of the origin for a response of ours, and so for the target's that it stands for.
    pub(super) fn pracked(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        server: ServerKey,
        request: &Request,
        out: &mut Outbox,
    ) {
        let named = request.header(Name::RAck).and_then(|value| RAck::parse(value).ok());
        let early = self.sessions.table.get_mut(key).and_then(|session| session.early.as_mut()).filter(|_| leg == 0);
        let response = early.zip(named).and_then(|(early, named)| {
            let ours = named.method == Method::Invite && named.number == early.number;
            let response = if ours { early.responses.acknowledged(named.response) } else { None }?;
            Some((response, early.timer.take()))
        });
        let Some((response, timer)) = response else { return self.refuse_status(now, server, 481, out) };
        if let Some(timer) = timer {
            self.timers.cancel(timer);
        }
        // An offer is for us to answer, since each leg's media is our own.
        let offers = peers::sdp_of(request).is_some();
        if offers {
            self.answer_offer_early(now, key, server, request, out);
        }
        match response.of {
            Some(heard) => self.prack(now, key, &heard, Some(server).filter(|_| !offers), out),
            None if offers => {}
            None => self.answer_plain(now, server, 200, out),
        }
        self.send_reliable(now, key, out);
    }

    /// RFC 3262 §5: the PRACK for our answer may have another offer, which its 2xx answers.
    fn answer_offer_early(&mut self, now: Instant, key: Key, server: ServerKey, request: &Request, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return self.refuse_status(now, server, 481, out) };
        let shown = session.early.as_ref().is_some_and(|early| early.shown);
        let plan = media_plan::own_reanswer(&self.config, media_kind(session.service), Side::Origin, request);
        let Ok(plan) = plan.map_err(drop).and_then(|plan| if shown { Ok(plan) } else { Err(()) }) else {
            return self.refuse_status(now, server, 488, out);
        };
        session.bind(0, request, out);
        let sdp = self.next_sdp(key, 0, &plan);
        let product = crate::cpm::release::product(&self.config);
        let fill = |mut writer: Writer<'_>| {
            writer.field(Name::Server, &product).field(Name::ContentType, "application/sdp");
            writer.body(sdp.as_bytes());
        };
        if self.transactions.respond(now, server, 200, status::reason(200), fill, out) {
            self.counts.response(Method::Prack, 200, Direction::Out);
        }
    }

    /// §4: acknowledges a target's response; what it answers goes to the PRACK of the origin's at `server`.
    fn prack(&mut self, now: Instant, key: Key, heard: &Heard, server: Option<ServerKey>, out: &mut Outbox) {
        let product = crate::cpm::release::product(&self.config);
        let draft = self.sessions.table.get_mut(key).and_then(|session| {
            let early = session.early.as_ref()?.dialogs.iter();
            let at = &mut session.legs[usize::from(heard.leg)];
            // What has its final response needs no PRACK.
            let calling = matches!(at.state, LegState::Calling(_));
            let mut early = early.filter(|early| calling && early.leg == heard.leg);
            let early = early.find(|early| early.dialog.id().remote_tag == heard.remote_tag)?;
            let (seq, invite_seq) = (at.dialog.next_seq(), at.invite_seq);
            let draft = Draft::of_dialog(&early.dialog, Method::Prack, seq, MAX_FORWARDS, |mut writer| {
                writer.format(Name::RAck, format_args!("{} {invite_seq} INVITE", heard.sequence));
                writer.field(Name::UserAgent, &product);
                writer.body(b"");
            });
            Some((draft, early.dialog.next_hop().to_string()))
        });
        match (draft, server) {
            (Some((draft, hop)), server) => {
                self.send_to_hop(now, key, heard.leg, Method::Prack, draft, &hop, Within::Prack { server }, out);
            }
            (None, Some(server)) => self.answer_plain(now, server, 200, out),
            (None, None) => {}
        }
    }

    /// The answer to a PRACK of ours, for the origin's.
    pub(super) fn prack_heard(&mut self, now: Instant, server: Option<ServerKey>, status: u16, out: &mut Outbox) {
        match server {
            Some(server) if status < 300 => self.answer_plain(now, server, 200, out),
            Some(server) => self.refuse_status(now, server, super::within::relayed_status(status), out),
            None => {}
        }
    }

    /// RFC 3262 §5: our answer for the origin, by the one that a target's reliable response brought. None where several are asked: whose
    /// answer counts is known with its 2xx.
    fn answer_early(&mut self, now: Instant, key: Key, leg: LegIndex, response: &Response) -> Option<Box<str>> {
        peers::sdp_of(response)?;
        let session = self.sessions.table.get(key)?;
        let call = session.call.as_ref()?;
        let shown = session.early.as_ref().is_some_and(|early| early.shown);
        if shown || call.bridge.targets.len() != 1 || session.legs[usize::from(leg)].is_beside() {
            return None;
        }
        let target = usize::from(leg).checked_sub(call.first_leg)?;
        let facts = call.gathered.facts(&self.config, now);
        let answer = session.procedure.on_success(&facts, &call.arrived.request, &call.bridge, target, response).ok()?;
        let plan = answer.media.filter(|plan| plan.relayed().next().is_some())?;
        let (sdp, own) = self.local_sdp(key, 0, &plan);
        let session = self.sessions.table.get_mut(key)?;
        session.early.as_mut()?.shown = true;
        session.legs[0].sdp_session = own.session_id;
        session.legs[0].local_sdp = sdp.into();
        Some(session.legs[0].local_sdp.clone())
    }

    /// RFC 3262 §5: a 2xx need not repeat the answer that a reliable response brought: with it, where it does not.
    pub(super) fn early_answer(&mut self, key: Key, leg: LegIndex, response: &Response) -> Option<Response> {
        let session = self.sessions.table.get_mut(key)?;
        let tag = &session.legs[usize::from(leg)].dialog.id().remote_tag;
        let early = session.early.as_mut()?;
        let of_it = |early: &&mut EarlyDialog| early.leg == leg && early.dialog.id().remote_tag == *tag;
        let answer = early.dialogs.iter_mut().find(of_it).and_then(|early| early.answer.take());
        early.forget(leg);
        let (content_type, body) = answer.filter(|_| response.body().is_empty())?;
        let mut octets = Vec::with_capacity(response.size() + body.len() + 64);
        let mut writer = Writer::response(&mut octets, response.status(), response.reason());
        let kept = |name: &Name| !matches!(name, Name::ContentLength | Name::ContentType);
        for (_, text, value) in response.fields().filter(|(name, _, _)| kept(name)) {
            writer.named(text, value);
        }
        writer.field(Name::ContentType, &content_type);
        writer.body(&body);
        Response::parse(&octets).ok()
    }
}

/// What makes a dialog of a response: the route and the Contact, ours where the target is no focus.
fn write_dialog(request: &Request, focus: Option<&Focus>, contact: &str, writer: &mut Writer<'_>) {
    match focus {
        Some(focus) => focus.write(request, writer),
        None => {
            reply::copy(request, Name::RecordRoute, writer);
            writer.field(Name::Contact, contact);
        }
    }
}

fn write_fields(fields: &[Field], writer: &mut Writer<'_>) {
    for (name, value) in fields {
        writer.named(name, value);
    }
}

fn takes_reliable(request: &Request) -> bool {
    request.lists(Name::Supported, reliable::TAG) || request.lists(Name::Require, reliable::TAG)
}
