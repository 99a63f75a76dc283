//! CR 8.3.1.5 without a target, 8.3.1.6, TLM-6.b, 6.d, 6.f: we are the endpoint of a Large Message: it is received, made
//! durable, and only then is its last chunk answered.
//!
//! ```text
//! 2xx of ours ─ MSRP ─> sink ─ Stored ─> Defer or Record (services) ─ done ─> Acknowledge ─> 200 for the last chunk
//!                                         \- the store refuses ─> Defer, else 413 or 500 for the sender
//! ```

use super::streams::{push, relayed_lines};
use super::{Arrived, Call, Leg, LegKind, LegState};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::clause;
use crate::cpm::decision::{AckTime, AnswerTime, Bridge, LaterSuccess, Purpose, Receive, Service};
use crate::cpm::deferral::{self, Body as KeptBody, Content};
use crate::cpm::media_plan::MediaPlan;
use crate::cpm::procedures::Procedure;
use crate::cpm::{history, identity};
use crate::msrp::leg::{Direction, Matching};
use crate::shard::deferral::{Again, id as deferred_id};
use crate::shard::exchange::{
    Command, Fetched, Leg as MediaLeg, LegIndex, LegKind as MediaKind, MediaKey, Query, StoreFailure, Stored,
};
use crate::shard::outbox::{Effect, Outbox};
use crate::shard::prefetch::Gathered;
use crate::shard::signalling::{Signalling, Waiting};
use crate::sip::dialog::Dialog;
use crate::sip::message::Request;
use crate::store::deferred::{Deferred, DeferredService};
use crate::store::history::Body;
use crate::store::object::Conversation;
use std::rc::Rc;

/// What becomes of the messages that a session's sink receives.
pub struct Keeping {
    pub request: Rc<Request>,
    pub arrived: Instant,
    /// Whose message store or queue: a normalised address.
    pub user: String,
    pub kind: KeepKind,
    pub again: Again,
}

pub enum KeepKind {
    /// We are the endpoint.
    Endpoint(Purpose),
    /// A copy for the history.
    History(Box<Conversation>),
}

/// A message that is being kept: who waits for it at the media core, and what to do where the first way fails.
#[derive(Debug)]
pub struct Keep {
    pub core: u8,
    pub session: MediaKey,
    pub leg: LegIndex,
    pub message_id: Box<str>,
    /// Where the Message Storage Server refuses.
    pub otherwise: Option<Box<Deferred>>,
    pub again: Again,
}

impl Signalling {
    /// Receives a message as its endpoint.
    pub(in crate::shard) fn receive_message(
        &mut self,
        now: Instant,
        arrived: Arrived,
        procedure: Procedure,
        gathered: Gathered,
        receive: &Receive,
        out: &mut Outbox,
    ) {
        let server = arrived.server;
        let Some(key) = self.make_session(now, &arrived, procedure, Service::LargeMessage, out) else { return };
        let lines = relayed_lines(receive.answer.media.as_ref());
        if !self.open_media(key, &arrived.request, Service::LargeMessage, &lines, out) {
            self.forget_session(now, key);
            return self.refuse_status(now, server, 488, out);
        }
        let bridge = Bridge {
            service: Service::LargeMessage,
            targets: Vec::new(),
            answer: AnswerTime::OnFirst,
            later: LaterSuccess::Join,
            ack: AckTime::AtOnce,
            policies_done: true,
        };
        let call =
            Call { arrived, gathered, bridge, failures: Vec::new(), best: None, first_leg: 1, pending: 0, exhausted: true };
        let session = self.sessions.table.get_mut(key).expect("the session was just made");
        session.call = Some(Box::new(call));
        self.receive_after_all(now, key, receive, out);
    }

    /// The same in a session whose targets all failed (8.3.1.3).
    pub(super) fn receive_after_all(&mut self, now: Instant, key: Key, receive: &Receive, out: &mut Outbox) {
        clause!("TLM-6.d.i", "TLM-6.f.i");
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let Some(call) = session.call.as_ref() else { return };
        let request = Rc::clone(&call.arrived.request);
        let user = identity::served_user(call.arrived.role, call.arrived.trusted, &request);
        let (arrived, kind) = (call.arrived.at, KeepKind::Endpoint(receive.purpose));
        let absent = self.registrations.clients(&user).is_empty();
        let again = match call.failures.is_empty() {
            true if absent => Again::IfRegistered,
            true => Again::OnRegistration,
            false => Again::Later,
        };
        session.keeping = Some(Box::new(Keeping { request, arrived, user, kind, again }));
        self.add_sink(key, LegKind::Endpoint, receive.answer.media.as_ref(), out);
        self.answer_origin(now, key, &receive.answer, out);
    }

    /// A leg that writes what it is sent to files in the spool. With an `answer` of ours we are the endpoint: it takes what
    /// that says it does, and holds its answer until the message is kept.
    pub(super) fn add_sink(&mut self, key: Key, kind: LegKind, answer: Option<&MediaPlan>, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let leg = session.legs.len() as LegIndex;
        for stream in session.streams.iter().filter(|stream| stream.is_open()) {
            let media = answer.and_then(|plan| plan.description.media.get(stream.line));
            let accept_types = media.and_then(|media| media.value("accept-types")).unwrap_or_default();
            let sink = sink_of(leg, &self.config.store.spool, answer.is_some(), accept_types);
            push(out, stream, Command::Leg { session: stream.key, leg: Box::new(sink) });
        }
        session.legs.push(Leg::new(kind, LegState::Media, Dialog::calling("", "", "", "", "", &[])));
    }

    /// A sink holds a whole message.
    pub(super) fn stored(&mut self, stored: Stored, out: &mut Outbox) {
        let Some((key, index)) = self.sessions.media.get(&stored.session).copied() else { return };
        let id = self.own_id();
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let core = session.streams[index].core;
        let Some(keeping) = session.keeping.as_ref() else { return };
        let Stored { session: media, leg, file, octets, message_id, content_type, head, from, .. } = stored;
        let message = || history::Message {
            message_id: &message_id,
            content_type: &content_type,
            head: &head,
            body: Body::File { path: file.clone(), octets },
        };
        let (purpose, conversation) = match &keeping.kind {
            KeepKind::Endpoint(purpose) => (*purpose, None),
            KeepKind::History(conversation) => (Purpose::Store, Some(conversation)),
        };
        if let Some(conversation) = conversation {
            let standalone = session.service == Service::LargeMessage;
            let object = if standalone {
                history::standalone(conversation, message())
            } else {
                history::of_session(conversation, from == 0, message())
            };
            self.ask(Waiting::Nothing, Query::Copy(Box::new(object)), out);
            return;
        }
        let content = Content {
            content_type: &content_type,
            message_id: &message_id,
            body: KeptBody::File { path: file.clone(), octets, head: &head },
        };
        let (request, user, arrived) = (Rc::clone(&keeping.request), keeping.user.clone(), keeping.arrived);
        let again = keeping.again;
        let service = DeferredService::LargeMessage;
        let deferred = deferral::keep(&self.config, arrived, deferred_id(arrived, &id), &user, &request, service, content);
        let keep = Keep { core, session: media, leg, message_id: message_id.clone(), otherwise: None, again };
        match purpose {
            Purpose::Defer => self.defer(keep, deferred, out),
            Purpose::Store => {
                clause!("TLM-6.d.ii.1");
                let conversation = history::conversation(&request, &user, false, arrived, &id);
                let object = history::standalone(&conversation, message());
                let keep = Keep { otherwise: Some(Box::new(deferred)), ..keep };
                self.ask(Waiting::Keep(Box::new(keep)), Query::Record(Box::new(object)), out);
            }
        }
    }

    fn defer(&mut self, keep: Keep, deferred: Deferred, out: &mut Outbox) {
        clause!("TLM-6.f.ii");
        let user: Box<str> = deferred.user.as_str().into();
        self.ask(Waiting::Deferring { keep: Box::new(keep), user }, Query::Defer(Box::new(deferred)), out);
    }

    /// The services kept a message, or did not: its sender's last chunk is answered.
    pub(in crate::shard) fn kept(&mut self, keep: Keep, answer: &Fetched, out: &mut Outbox) {
        let done: Result<(), StoreFailure> = match answer {
            Fetched::Kept(done) => *done,
            Fetched::Recorded(done) => {
                clause!("TLM-6.d.ii.2");
                (*done).map(|_uid| ())
            }
            _ => Err(StoreFailure::Unavailable),
        };
        if let (Err(_), Some(deferred)) = (done, keep.otherwise) {
            let keep = Keep { otherwise: None, ..keep };
            return self.defer(keep, *deferred, out);
        }
        let status = match done {
            Ok(()) => 200,
            Err(StoreFailure::Quota) => 413,
            Err(StoreFailure::Unavailable | StoreFailure::Unknown) => 500,
        };
        let command = Command::Acknowledge { session: keep.session, leg: keep.leg, message_id: keep.message_id, status };
        out.effects.push(Effect::Media { core: keep.core, command });
    }

    /// A name of ours for something kept: 132 random bits.
    pub(in crate::shard) fn own_id(&mut self) -> String {
        let mut id = String::with_capacity(22);
        self.prng.push_token(22, &mut id);
        id
    }
}

/// A leg of a stream that writes what it is sent to files.
pub(super) fn sink_of(leg: LegIndex, directory: &std::path::Path, hold: bool, accept_types: &str) -> MediaLeg {
    let kind = MediaKind::Sink { directory: directory.to_path_buf(), hold, accept_types: accept_types.into() };
    MediaLeg { leg, kind, direction: Direction::ToPeer, matching: Matching::Strict }
}
