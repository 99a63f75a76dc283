//! RFC 3261 §17.2: the half of the table that serves requests.

use super::action::{Action, Timer};
use super::seam::{Arrival, Event, ServerKey, Sink};
use super::table::{Armed, Entry, Transactions};
use super::{invite_server, key, server, success};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::base::transport::{Destination, Flow};
use crate::sip::header::name::Name;
use crate::sip::ids;
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::reply;
use crate::sip::status;
use crate::sip::write::Writer;
use std::net::SocketAddr;
use std::rc::Rc;

/// A request that is or was served.
pub(super) struct Server {
    machine: Machine,
    /// Resends of our own 2xx; none before it, and where a proxy forwards one.
    success: Option<success::State>,
    id: Rc<str>,
    merge: Option<u64>,
    /// Until the final response.
    request: Option<Rc<Request>>,
    /// The tag that stands or will stand in To of our responses.
    tag: Box<str>,
    /// The last response, for resends.
    response: Box<[u8]>,
    to: Destination,
    /// Where the request came from: `received` and `rport`.
    peer: SocketAddr,
    cookie: u64,
    pub(super) armed: Armed,
}

enum Machine {
    Invite(invite_server::State),
    Other(server::State),
}

/// An input of either machine.
#[derive(Clone, Copy)]
enum Input {
    Request,
    Ack,
    Status(u16),
    Timer(Timer),
    TransportError,
}

impl Machine {
    fn answered(&self) -> bool {
        match self {
            Machine::Invite(state) => state.answered(),
            Machine::Other(state) => state.answered(),
        }
    }

    fn terminated(&self) -> bool {
        matches!(self, Machine::Invite(invite_server::State::Terminated) | Machine::Other(server::State::Terminated))
    }

    fn keeps(&self, timer: Timer) -> bool {
        match self {
            Machine::Invite(state) => state.keeps(timer),
            Machine::Other(state) => state.keeps(timer),
        }
    }
}

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
        let tag = match request.to().ok().and_then(|to| to.tag()) {
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
        if server.id.starts_with('2') && request.to().ok().and_then(|to| to.tag()) != Some(&server.tag) {
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

    fn server(&self, key: Key) -> Option<&Server> {
        match self.entries.get(key)? {
            Entry::Server(server) => Some(server),
            Entry::Client(_) => None,
        }
    }

    /// The request of a transaction that has no final response yet.
    pub fn served(&self, server: ServerKey) -> Option<&Rc<Request>> {
        self.server(server.0)?.request.as_ref()
    }

    /// The tag that our responses carry in To: that of the request, or ours. It is the local tag of the dialog made.
    pub fn local_tag(&self, server: ServerKey) -> Option<&str> {
        self.server(server.0).map(|server| &*server.tag)
    }

    /// Where the request came from.
    pub fn source(&self, server: ServerKey) -> Option<SocketAddr> {
        self.server(server.0).map(|server| server.peer)
    }

    /// What comes back with everything heard of this transaction.
    pub fn set_cookie(&mut self, server: ServerKey, cookie: u64) {
        if let Some(Entry::Server(server)) = self.entries.get_mut(server.0) {
            server.cookie = cookie;
        }
    }

    /// Answers as a user agent. `fill` gets the response with Via, From, To, Call-ID and CSeq written, adds its fields and
    /// ends it with [`Writer::body`]. A 2xx to an INVITE is resent until [`Transactions::acknowledged`].
    ///
    /// False: the transaction is gone or has its final response; nothing was sent.
    pub fn respond(
        &mut self,
        now: Instant,
        server: ServerKey,
        status: u16,
        reason: &str,
        fill: impl FnOnce(Writer<'_>),
        out: &mut impl Sink,
    ) -> bool {
        let mut octets = std::mem::take(&mut self.octets);
        octets.clear();
        let open = match self.server(server.0) {
            Some(entry) if !entry.machine.answered() => entry.request.as_ref().map(|request| (request, entry)),
            _ => None,
        };
        let open = match open {
            Some((request, entry)) => {
                fill(reply::response(request, entry.peer, status, reason, &entry.tag, &mut octets));
                true
            }
            None => false,
        };
        if open {
            self.answer(now, server, status, &octets, out);
            if (200..300).contains(&status) {
                self.resend_success(now, server);
            }
        }
        self.octets = octets;
        open
    }

    /// Answers with a response without fields of its own and without body.
    pub fn refuse(&mut self, now: Instant, server: ServerKey, status: u16, out: &mut impl Sink) -> bool {
        self.respond(now, server, status, status::reason(status), |writer| writer.body(b""), out)
    }

    /// Answers as a proxy: `write` writes the whole response as it is to be sent. Any number of 2xx may follow the first
    /// (RFC 6026 §7.1).
    ///
    /// False: the transaction is gone or has its final response; nothing was sent.
    pub fn forward(
        &mut self,
        now: Instant,
        server: ServerKey,
        status: u16,
        write: impl FnOnce(&mut Vec<u8>),
        out: &mut impl Sink,
    ) -> bool {
        let success = (200..300).contains(&status);
        let open = self.server(server.0).is_some_and(|entry| {
            !entry.machine.answered() || success && matches!(entry.machine, Machine::Invite(invite_server::State::Accepted))
        });
        if open {
            let mut octets = std::mem::take(&mut self.octets);
            octets.clear();
            write(&mut octets);
            self.answer(now, server, status, &octets, out);
            self.octets = octets;
        }
        open
    }

    fn answer(&mut self, now: Instant, server: ServerKey, status: u16, octets: &[u8], out: &mut impl Sink) {
        if let Some(Entry::Server(entry)) = self.entries.get_mut(server.0) {
            entry.response = octets.into();
            if status >= 200 {
                entry.request = None;
            }
        }
        self.step_server(now, server.0, Input::Status(status), out, &mut Vec::new());
    }

    fn resend_success(&mut self, now: Instant, server: ServerKey) {
        let Some(Entry::Server(entry)) = self.entries.get_mut(server.0) else { return };
        if !matches!(entry.machine, Machine::Invite(invite_server::State::Accepted)) {
            return;
        }
        entry.success = Some(success::start(&self.times, false, &mut self.actions));
        for action in self.actions.drain(..) {
            if let Action::Arm(timer, after) = action {
                entry.armed.arm(timer, now + after, server.0, &mut self.timers);
            }
        }
    }

    /// The ACK for the 2xx of this transaction came (the user found its dialog).
    pub fn acknowledged(&mut self, server: ServerKey) {
        let Some(Entry::Server(entry)) = self.entries.get_mut(server.0) else { return };
        let Some(state) = entry.success else { return };
        entry.success = Some(success::step(state, success::Event::Ack, &self.times, false, &mut self.actions));
        self.actions.clear();
        entry.armed.keep_only(|timer| timer == Timer::L, &mut self.timers);
        entry.response = Box::default();
    }

    /// Answers a request for which no transaction is wanted or possible.
    pub fn refuse_stateless(&mut self, flow: &Flow, request: &Request, status: u16, out: &mut impl Sink) {
        let Ok(via) = request.top_via() else { return };
        if request.method() == Method::Ack {
            return;
        }
        let to = via.response_destination(flow);
        let value = |name| request.header(name).unwrap_or("");
        let tag = ids::stateless_tag(self.shard, &[value(Name::Via), value(Name::From), value(Name::CallId), value(Name::CSeq)]);
        let mut octets = std::mem::take(&mut self.octets);
        octets.clear();
        let mut writer = reply::response(request, flow.peer, status, status::reason(status), &tag, &mut octets);
        if status == 503 {
            writer.field(Name::RetryAfter, "5");
        }
        writer.body(b"");
        out.send(&to, 0, &octets);
        self.octets = octets;
    }

    pub(super) fn server_timer(
        &mut self,
        now: Instant,
        server: ServerKey,
        timer: Timer,
        out: &mut impl Sink,
        events: &mut Vec<Event>,
    ) {
        match timer {
            Timer::Success | Timer::GiveUp => self.step_success(now, server, timer, out, events),
            // Both are 64*T1 from the 2xx; the user hears that no ACK came before the transaction goes.
            Timer::L => {
                self.step_success(now, server, Timer::GiveUp, out, events);
                self.step_server(now, server.0, Input::Timer(timer), out, events);
            }
            _ => self.step_server(now, server.0, Input::Timer(timer), out, events),
        }
    }

    fn step_success(&mut self, now: Instant, server: ServerKey, timer: Timer, out: &mut impl Sink, events: &mut Vec<Event>) {
        let Some(Entry::Server(entry)) = self.entries.get_mut(server.0) else { return };
        let Some(state) = entry.success else { return };
        entry.success = Some(success::step(state, success::Event::Timer(timer), &self.times, false, &mut self.actions));
        for action in self.actions.drain(..) {
            match action {
                Action::Send => out.send(&entry.to, server.0.as_u64(), &entry.response),
                Action::Arm(timer, after) => entry.armed.arm(timer, now + after, server.0, &mut self.timers),
                Action::Unacknowledged => events.push(Event::Unacknowledged { server, cookie: entry.cookie, success: true }),
                _ => {}
            }
        }
    }

    pub(super) fn server_unreachable(&mut self, now: Instant, server: ServerKey, out: &mut impl Sink, events: &mut Vec<Event>) {
        self.step_server(now, server.0, Input::TransportError, out, events);
    }

    fn step_server(&mut self, now: Instant, key: Key, input: Input, out: &mut impl Sink, events: &mut Vec<Event>) {
        let Some(Entry::Server(entry)) = self.entries.get_mut(key) else { return };
        let reliable = entry.to.transport().reliable();
        match &mut entry.machine {
            Machine::Invite(state) => {
                *state = invite_server::step(*state, invite_event(input), &self.times, reliable, &mut self.actions);
            }
            Machine::Other(state) => {
                let Some(event) = other_event(input) else { return };
                *state = server::step(*state, event, &self.times, reliable, &mut self.actions);
            }
        }
        entry.armed.keep_only(|timer| entry.machine.keeps(timer), &mut self.timers);
        let (server, cookie) = (ServerKey(key), entry.cookie);
        for action in self.actions.drain(..) {
            match action {
                Action::Send if !entry.response.is_empty() => out.send(&entry.to, key.as_u64(), &entry.response),
                Action::Arm(timer, after) => entry.armed.arm(timer, now + after, key, &mut self.timers),
                Action::Unacknowledged => events.push(Event::Unacknowledged { server, cookie, success: false }),
                Action::Unreachable => events.push(Event::Undelivered { server, cookie }),
                _ => {}
            }
        }
        if matches!(entry.machine, Machine::Invite(invite_server::State::Confirmed)) {
            entry.response = Box::default();
        }
        if entry.machine.terminated() {
            self.forget_server(key);
        }
    }

    fn forget_server(&mut self, key: Key) {
        let Some(Entry::Server(mut entry)) = self.entries.remove(key) else { return };
        entry.armed.keep_only(|_| false, &mut self.timers);
        self.servers.remove(&entry.id);
        if let Some(merge) = entry.merge.filter(|merge| self.merges.get(merge) == Some(&key)) {
            self.merges.remove(&merge);
        }
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

fn invite_event(input: Input) -> invite_server::Event {
    use invite_server::Event;
    match input {
        Input::Request => Event::Request,
        Input::Ack => Event::Ack,
        Input::Status(100..200) => Event::Provisional,
        Input::Status(200..300) => Event::Success,
        Input::Status(_) => Event::Failure,
        Input::Timer(timer) => Event::Timer(timer),
        Input::TransportError => Event::TransportError,
    }
}

fn other_event(input: Input) -> Option<server::Event> {
    use server::Event;
    Some(match input {
        Input::Request => Event::Request,
        Input::Ack => return None,
        Input::Status(100..200) => Event::Provisional,
        Input::Status(_) => Event::Final,
        Input::Timer(timer) => Event::Timer(timer),
        Input::TransportError => Event::TransportError,
    })
}
