//! RFC 3261 §17.2.3, §8.2.2.2, §9.2: a request comes in: a resend, an ACK, a CANCEL, or a transaction of its own.

use super::seam::{Arrival, ServerKey, Sink};
use super::table::{Armed, Entry, Transactions};
use super::table_server::{Input, Machine, Server};
use super::{invite_server, key, server};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::base::transport::{Destination, Flow};
use crate::sip::header::name::Name;
use crate::sip::header::via::Via;
use crate::sip::ids;
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::status;
use std::rc::Rc;

impl Transactions {
    /// A request came in on `flow` and was found valid.
    pub fn receive_request(&mut self, now: Instant, flow: &Flow, request: &Rc<Request>, out: &mut impl Sink) -> Arrival {
        let mut text = std::mem::take(&mut self.text);
        // A request whose key cannot be read was not validated; it is not served.
        let arrival = match key::server(request, &mut text) {
            Ok(()) => self.matched(now, flow, request, &text, out),
            Err(_) => Arrival::Absorbed,
        };
        self.text = text;
        arrival
    }

    /// Whether an INVITE with this top Via is being served. None: its Via alone does not tell.
    pub fn serves_invite(&mut self, via: &Via<'_>) -> Option<bool> {
        key::by_branch(via, Method::Invite.as_str(), &mut self.text).then(|| self.servers.contains_key(self.text.as_str()))
    }

    fn matched(&mut self, now: Instant, flow: &Flow, request: &Rc<Request>, id: &str, out: &mut impl Sink) -> Arrival {
        let found = self.servers.get(id).copied();
        match (request.method(), found) {
            (Method::Ack, found) => self.acknowledges(now, request, found, out),
            (Method::Cancel, found) => self.cancels(now, flow, request, id, found, out),
            (_, Some(key)) => {
                self.step_server(now, key, Input::Request, out, &mut Vec::new());
                Arrival::Absorbed
            }
            (_, None) => self.serve(now, flow, request, id, out),
        }
    }

    fn serve(&mut self, now: Instant, flow: &Flow, request: &Rc<Request>, id: &str, out: &mut impl Sink) -> Arrival {
        let Some(key) = self.enter(flow, request, id) else {
            self.refuse_stateless(flow, request, 503, out);
            return Arrival::Absorbed;
        };
        if request.method() == Method::Invite {
            // §17.2.1: 100 within 200 ms; the user may need longer (it asks other machines), so at once.
            self.respond(now, ServerKey(key), 100, status::reason(100), |writer| writer.body(b""), out);
        }
        let Some(merge) = key::merge(request, &self.hashes) else { return Arrival::New(ServerKey(key)) };
        let merged = self.merges.contains_key(&merge) && !went_through_us(request);
        self.merges.entry(merge).or_insert(key);
        if let Some(Entry::Server(server)) = self.entries.get_mut(key) {
            server.merge = Some(merge);
        }
        if merged { Arrival::Merged(ServerKey(key)) } else { Arrival::New(ServerKey(key)) }
    }

    /// Makes the entry; none: the table is full.
    fn enter(&mut self, flow: &Flow, request: &Rc<Request>, id: &str) -> Option<Key> {
        let tag = match request.to_tag() {
            Some(tag) => tag.into(),
            None => ids::tag(self.shard, &mut self.prng).into_boxed_str(),
        };
        let to = request
            .top_via()
            .map_or_else(|_| Destination::Flow { flow: *flow, fallback: None }, |via| via.response_destination(flow));
        let machine = match request.method() {
            Method::Invite => Machine::Invite(invite_server::start(&self.times, flow.transport.reliable(), &mut self.actions)),
            _ => Machine::Other(server::start(&self.times, flow.transport.reliable(), &mut self.actions)),
        };
        let id: Rc<str> = id.into();
        let server = Server {
            machine,
            success: None,
            id: id.clone(),
            merge: None,
            request: Some(request.clone()),
            tag,
            response: Box::default(),
            to,
            peer: flow.peer,
            cookie: 0,
            armed: Armed::default(),
        };
        let key = self.entries.insert(Entry::Server(server)).ok()?;
        self.servers.insert(id, key);
        Some(key)
    }

    fn acknowledges(&mut self, now: Instant, request: &Request, found: Option<Key>, out: &mut impl Sink) -> Arrival {
        let Some(key) = found else { return Arrival::Ack };
        let Some(server) = self.server(key) else { return Arrival::Ack };
        // §17.2.3: by the rules of RFC 2543 the To tag must be that of our response.
        if server.id.starts_with('2') && request.to_tag() != Some(&server.tag) {
            return Arrival::Ack;
        }
        if matches!(server.machine, Machine::Invite(invite_server::State::Accepted)) {
            return Arrival::Ack;
        }
        self.step_server(now, key, Input::Ack, out, &mut Vec::new());
        Arrival::Absorbed
    }

    /// §9.2. The CANCEL is a transaction of its own under the key of the INVITE and its own method.
    fn cancels(
        &mut self,
        now: Instant,
        flow: &Flow,
        request: &Rc<Request>,
        id: &str,
        found: Option<Key>,
        out: &mut impl Sink,
    ) -> Arrival {
        let own = format!("{id}\nCANCEL");
        if let Some(key) = self.servers.get(own.as_str()).copied() {
            self.step_server(now, key, Input::Request, out, &mut Vec::new());
            return Arrival::Absorbed;
        }
        let invite = found
            .and_then(|key| self.server(key).map(|server| (key, server.tag.clone(), server.cookie, server.machine.answered())));
        let Some((invite, tag, cookie, answered)) = invite else {
            // No entry for a CANCEL of nothing: its resends get the same answer again.
            self.refuse_stateless(flow, request, 481, out);
            return Arrival::Absorbed;
        };
        let Some(key) = self.enter(flow, request, &own) else {
            self.refuse_stateless(flow, request, 503, out);
            return Arrival::Absorbed;
        };
        // §9.2: the To tag of both responses should be the same.
        if let Some(Entry::Server(cancel)) = self.entries.get_mut(key) {
            cancel.tag = tag;
        }
        self.refuse(now, ServerKey(key), 200, out);
        if answered { Arrival::Absorbed } else { Arrival::Cancel { invite: ServerKey(invite), cookie } }
    }
}

/// A Via below the top one that is ours: the request is on its way through the core and back to us (§16.3 step 4).
fn went_through_us(request: &Request) -> bool {
    request.values(Name::Via).skip(1).any(|via| {
        crate::sip::header::via::Via::parse(via)
            .ok()
            .and_then(|via| via.branch())
            .is_some_and(|branch| ids::shard_of_branch(branch).is_some())
    })
}
