//! CR 8.5, 8.5.1: recording a conversation into a user's message store, beside the session and never in its way.

use super::LegKind;
use super::keep::{KeepKind, Keeping};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::cpm::decision::Service;
use crate::cpm::history;
use crate::limits::TARGET_LEGS_MAX;
use crate::shard::deferral::Again;
use crate::shard::exchange::Query;
use crate::shard::outbox::Outbox;
use crate::shard::signalling::{Signalling, Waiting};
use crate::sip::message::Response;
use std::rc::Rc;

impl Signalling {
    /// Records from here on: a sink beside the targets takes a copy of each message; for a session the INVITE's data is
    /// recorded at once (OSI-r7).
    pub(super) fn record(
        &mut self,
        now: Instant,
        key: Key,
        user: String,
        sent: bool,
        answer: Option<&Response>,
        out: &mut Outbox,
    ) {
        let ids = [self.own_id(), self.own_id()];
        let stand_in = self.own_id();
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        if session.legs.len() > TARGET_LEGS_MAX || session.keeping.is_some() {
            return;
        }
        let Some(call) = session.call.as_ref() else { return };
        let request = Rc::clone(&call.arrived.request);
        let conversation = history::conversation(&request, &user, sent, call.arrived.at, &stand_in);
        let objects = match session.service {
            Service::Session | Service::GroupSession => {
                let group = session.service == Service::GroupSession;
                history::invitation(&conversation, &request, group, answer, [&ids[0], &ids[1]])
            }
            Service::LargeMessage | Service::Pager => Vec::new(),
        };
        let kind = KeepKind::History(Box::new(conversation));
        session.keeping = Some(Box::new(Keeping { request, arrived: now, user, kind, again: Again::OnRegistration }));
        for object in objects {
            self.ask(Waiting::Nothing, Query::Copy(Box::new(object)), out);
        }
        self.add_sink(key, LegKind::Recorder, None, out);
    }
}
