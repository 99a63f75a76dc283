//! CR 8.2.1.1, 8.3.1.1 (Pager Mode), RFC 3428: a MESSAGE goes on to its targets, or is kept by us.
//!
//! ```text
//! MESSAGE ──> one MESSAGE for each target; the first 2xx is the answer, the others are of no account
//!         ──> Defer or Record (services) ── done ──> 202
//! ```

use super::arrival;
use super::counts::{Direction, Outcome};
use super::deferral::{Again, id as deferred_id};
use super::exchange::{Fetched, Query};
use super::outbound::{Hop, Purpose};
use super::outbox::Outbox;
use super::prefetch::Gathered;
use super::sessions::Arrived;
use super::sessions::within::relayed_status;
use super::signalling::{Signalling, Waiting, service_of};
use super::writing::{Draft, asks_for_privacy, hops_left, is_identity};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::cpm::decision::{
    AckTime, Answer, AnswerTime, Bridge, Decision, LaterSuccess, Messages, NextHop, OutMessage, Purpose as KeepPurpose, Service,
};
use crate::cpm::deferral::{self, Body as KeptBody, Content};
use crate::cpm::headers::{Field, field};
use crate::cpm::procedures::Procedure;
use crate::cpm::refusal::Refusal;
use crate::cpm::{conversation, failure, history, identity};
use crate::limits::TARGET_LEGS_MAX;
use crate::sip::dialog::Dialog;
use crate::sip::header::name::Name;
use crate::sip::ids;
use crate::sip::message::Response;
use crate::sip::method::Method;
use crate::sip::status;
use crate::sip::transaction::seam::{Role, ServerKey};
use crate::sip::write::Writer;
use crate::store::deferred::{Deferred, DeferredService};
use crate::store::history::Body;

/// A MESSAGE whose targets were sent theirs.
pub struct Batch {
    arrived: Arrived,
    procedure: Procedure,
    gathered: Gathered,
    /// Final status of each target.
    statuses: Vec<Option<u16>>,
    answered: bool,
    policies_done: bool,
}

/// A MESSAGE that waits until it is kept.
#[derive(Debug)]
pub struct KeptMessage {
    arrived: Arrived,
    answer: Answer,
    otherwise: Option<Box<Deferred>>,
    user: Box<str>,
    again: Again,
}

impl Signalling {
    /// Sends one MESSAGE to each target.
    pub(super) fn page(
        &mut self,
        now: Instant,
        arrived: Arrived,
        procedure: Procedure,
        gathered: Gathered,
        messages: &Messages,
        policies_done: bool,
        out: &mut Outbox,
    ) {
        let server = arrived.server;
        let targets = &messages.targets[..messages.targets.len().min(TARGET_LEGS_MAX)];
        let (routes, hops) = (arrived.routes.clone(), hops_left(&arrived.request));
        let statuses = vec![None; targets.len()];
        let batch = Batch { arrived, procedure, gathered, statuses, answered: false, policies_done };
        let Ok(key) = self.batches.insert(batch) else { return self.shed(now, server, "overload > messages", out) };
        for (target, message) in targets.iter().enumerate() {
            self.send_message(now, message, &routes, hops, Purpose::Page { batch: key, target }, out);
        }
    }

    /// Sends a MESSAGE outside of any dialog.
    pub(super) fn send_message(
        &mut self,
        now: Instant,
        message: &OutMessage,
        left: &[Box<str>],
        max_forwards: u8,
        purpose: Purpose,
        out: &mut Outbox,
    ) {
        let routes = self.routes_of(&message.next_hop, left);
        let (tag, call_id) = (ids::tag(self.shard, &mut self.prng), ids::call_id(&mut self.prng));
        let values: Vec<&str> = routes.iter().map(|route| &**route).collect();
        let dialog = Dialog::calling(&call_id, &message.from, &tag, &message.to, &message.request_uri, &values);
        let hop = match &message.next_hop {
            NextHop::Core { fallback: Some(contact) } if routes.is_empty() => contact.clone(),
            _ => dialog.next_hop().to_string(),
        };
        let hides = !self.is_trusted_hop(&hop) && asks_for_privacy(&message.headers);
        let draft = Draft::of_dialog(&dialog, Method::Message, 1, max_forwards, |mut writer| {
            for (name, value) in message.headers.iter().filter(|(name, _)| !(hides && is_identity(name))) {
                writer.named(name, value);
            }
            writer.field(Name::ContentType, &message.content_type);
            writer.body(&message.body);
        });
        self.dispatch(now, purpose, Method::Message, Role::UserAgent, draft, Hop::Uri(&hop), out);
    }

    /// A target answered its MESSAGE, or did not.
    pub(super) fn page_heard(
        &mut self,
        now: Instant,
        key: Key,
        target: usize,
        status: u16,
        response: Option<&Response>,
        out: &mut Outbox,
    ) {
        let Some(batch) = self.batches.get_mut(key) else { return };
        if status < 200 {
            return;
        }
        if let Some(place) = batch.statuses.get_mut(target) {
            *place = Some(status);
        }
        let first = !batch.answered && status < 300;
        batch.answered |= first;
        let done = batch.statuses.iter().all(Option::is_some);
        if first {
            self.answer_page(now, key, status, response, out);
        }
        if !done {
            return;
        }
        let Some(batch) = self.batches.remove(key) else { return };
        if !batch.answered {
            self.page_exhausted(now, batch, response, out);
        }
    }

    fn answer_page(&mut self, now: Instant, key: Key, status: u16, response: Option<&Response>, out: &mut Outbox) {
        let Some(batch) = self.batches.get(key) else { return };
        let server = batch.arrived.server;
        let mut headers = conversation::copied(&batch.arrived.request);
        headers.push(field("Server", crate::cpm::release::product(&self.config)));
        if batch.arrived.trusted {
            headers.extend(response.map(arrival::identity_of).unwrap_or_default());
        }
        self.counts.invite(batch.arrived.role, service_of(batch.procedure), Outcome::Answered);
        let reason = response.map(Response::reason).filter(|reason| !reason.is_empty()).unwrap_or(status::reason(status));
        self.respond_to_message(now, server, status, reason, &headers, out);
    }

    /// Answers a MESSAGE without a body; false: it has its answer already.
    fn respond_to_message(
        &mut self,
        now: Instant,
        server: ServerKey,
        status: u16,
        reason: &str,
        headers: &[Field],
        out: &mut Outbox,
    ) -> bool {
        let fill = |mut writer: Writer<'_>| {
            for (name, value) in headers {
                writer.named(name, value);
            }
            writer.body(b"");
        };
        let sent = self.transactions.respond(now, server, status, reason, fill, out);
        if sent {
            self.counts.response(Method::Message, status, Direction::Out);
        }
        sent
    }

    /// Every target refused: delivery policies (8.3.1.3), else the failure goes back.
    fn page_exhausted(&mut self, now: Instant, batch: Batch, response: Option<&Response>, out: &mut Outbox) {
        let failures: Vec<(usize, u16)> =
            batch.statuses.iter().enumerate().map(|(target, status)| (target, status.unwrap_or(408))).collect();
        // A MESSAGE has no bridge; what the procedure looks at is whether policies ran.
        let bridge = Bridge {
            service: Service::Pager,
            targets: Vec::new(),
            answer: AnswerTime::OnFirst,
            later: LaterSuccess::Join,
            ack: AckTime::AtOnce,
            policies_done: batch.policies_done,
        };
        let facts = batch.gathered.facts(&self.config, now);
        let decision = batch.procedure.on_exhausted(&facts, &batch.arrived.request, &bridge, &failures);
        match decision {
            Ok(Decision::Message(messages)) => {
                self.page(now, batch.arrived, batch.procedure, batch.gathered, &messages, true, out)
            }
            Ok(Decision::KeepMessage { purpose, answer }) => self.keep_message(batch.arrived, purpose, *answer, true, out),
            Ok(_) => self.refuse_status(now, batch.arrived.server, 480, out),
            Err(refusal) => {
                self.counts.invite(batch.arrived.role, service_of(batch.procedure), Outcome::Failed);
                let mut refusal = Refusal { status: relayed_status(refusal.status), ..refusal };
                if let Some(response) = response.filter(|response| response.status() == refusal.status) {
                    let copied = failure::told_with(refusal.status);
                    let values = copied.flat_map(|name| response.lines(name).map(move |v| (name.as_str(), v.to_string())));
                    refusal.headers.extend(values);
                }
                self.refuse(now, batch.arrived.server, &refusal, out);
            }
        }
    }

    /// Keeps a MESSAGE: in the Message Storage Server or among the deferred; answered when that is durable.
    pub(super) fn keep_message(&mut self, arrived: Arrived, purpose: KeepPurpose, answer: Answer, tried: bool, out: &mut Outbox) {
        let id = self.own_id();
        let request = &arrived.request;
        let user = identity::served_user(arrived.role, arrived.trusted, request);
        let content_type = request.header(Name::ContentType).unwrap_or("text/plain");
        let message_id = id.clone();
        let content = Content { content_type, message_id: &message_id, body: KeptBody::Inline(request.body()) };
        let service = DeferredService::Pager;
        let deferred = deferral::keep(&self.config, arrived.at, deferred_id(arrived.at, &id), &user, request, service, content);
        let query = match purpose {
            KeepPurpose::Defer => Query::Defer(Box::new(deferred.clone())),
            KeepPurpose::Store => {
                let of = history::conversation(request, &user, false, arrived.at, &id);
                let body = Body::Inline(request.body().to_vec());
                let message = history::Message { message_id: &message_id, content_type, head: request.body(), body };
                Query::Record(Box::new(history::standalone(&of, message)))
            }
        };
        let otherwise = matches!(purpose, KeepPurpose::Store).then(|| Box::new(deferred));
        let again = match tried {
            true => Again::Later,
            false if self.registrations.clients(&user).is_empty() => Again::IfRegistered,
            false => Again::OnRegistration,
        };
        let kept = KeptMessage { arrived, answer, otherwise, user: user.into(), again };
        self.ask(Waiting::KeepMessage(Box::new(kept)), query, out);
    }

    /// The services kept a MESSAGE, or did not.
    pub(super) fn message_kept(&mut self, now: Instant, mut kept: KeptMessage, stored: &Fetched, out: &mut Outbox) {
        let done = matches!(stored, Fetched::Kept(Ok(())) | Fetched::Recorded(Ok(_)));
        if !done {
            if let Some(deferred) = kept.otherwise.take() {
                self.ask(Waiting::KeepMessage(Box::new(kept)), Query::Defer(deferred), out);
                return;
            }
            return self.refuse(now, kept.arrived.server, &Refusal::new(480, "8.3.1.6"), out);
        }
        let (arrived, answer) = (&kept.arrived, &kept.answer);
        let reason = status::reason(answer.status);
        if self.respond_to_message(now, arrived.server, answer.status, reason, &answer.headers, out) {
            self.counts.invite(arrived.role, Some(Service::Pager), Outcome::Answered);
        }
        if matches!(stored, Fetched::Kept(_)) {
            self.deferred(now, &kept.user, kept.again, out);
        }
    }
}
