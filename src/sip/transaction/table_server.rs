//! RFC 3261 §17.2: the half of the table that answers requests; how they come in is in `table_arrival`.

use super::action::{Action, Timer};
use super::seam::{Event, ServerKey, Sink};
use super::table::{Armed, Entry, Transactions};
use super::{invite_server, server, success};
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
    pub(super) machine: Machine,
    /// Resends of our own 2xx; none before it, and where a proxy forwards one.
    pub(super) success: Option<success::State>,
    pub(super) id: Rc<str>,
    pub(super) merge: Option<u64>,
    /// Until the final response.
    pub(super) request: Option<Rc<Request>>,
    /// The tag that stands or will stand in To of our responses.
    pub(super) tag: Box<str>,
    /// The last response, for resends.
    pub(super) response: Box<[u8]>,
    pub(super) to: Destination,
    /// Where the request came from: `received` and `rport`.
    pub(super) peer: SocketAddr,
    pub(super) cookie: u64,
    pub(super) armed: Armed,
}

pub(super) enum Machine {
    Invite(invite_server::State),
    Other(server::State),
}

/// An input of either machine.
#[derive(Clone, Copy)]
pub(super) enum Input {
    Request,
    Ack,
    Status(u16),
    Timer(Timer),
    TransportError,
}

impl Machine {
    pub(super) fn answered(&self) -> bool {
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
    pub(super) fn server(&self, key: Key) -> Option<&Server> {
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

    pub(super) fn step_server(&mut self, now: Instant, key: Key, input: Input, out: &mut impl Sink, events: &mut Vec<Event>) {
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
