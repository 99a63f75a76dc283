//! RFC 3261 §17.1: the half of the table that sends requests.

use super::action::{Action, Timer};
use super::seam::{ClientKey, Event, Heard, Outgoing, Role, Sink};
use super::table::{Armed, Entry, Transactions};
use super::{client, invite_client};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::base::transport::Destination;
use crate::limits::SIP_SUCCESS_FORKS_MAX;
use crate::sip::header::name::Name;
use crate::sip::ids::Branch;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::write::Writer;

/// A request that was sent.
pub(super) struct Client {
    machine: Machine,
    method: Method,
    role: Role,
    branch: Branch,
    to: Destination,
    /// The request, until the final response; then, for an INVITE, the ACK of the failure.
    octets: Box<[u8]>,
    /// ACKs of 2xx, one for each To tag heard.
    successes: Vec<Success>,
    /// Our CANCEL of this INVITE; it has the same branch (§9.1).
    cancel: Option<Key>,
    /// What the user wants as Reason of the CANCEL (RFC 3326).
    reason: Option<Box<str>>,
    cookie: u64,
    pub(super) armed: Armed,
}

struct Success {
    tag: Box<str>,
    ack: Option<(Destination, Box<[u8]>)>,
}

#[derive(Clone, Copy)]
enum Machine {
    Invite(invite_client::State),
    Other(client::State),
}

impl Machine {
    fn keeps(&self, timer: Timer) -> bool {
        match self {
            Machine::Invite(state) => state.keeps(timer),
            Machine::Other(state) => state.keeps(timer),
        }
    }

    fn terminated(&self) -> bool {
        matches!(self, Machine::Invite(invite_client::State::Terminated) | Machine::Other(client::State::Terminated))
    }
}

/// An input of either machine.
#[derive(Clone, Copy)]
enum Input {
    Status(u16),
    Timer(Timer),
    TransportError,
    Cancel,
}

impl Transactions {
    /// Sends a request in a transaction of its own. `write` writes it whole, with a top Via that carries the branch.
    /// An ACK for a 2xx has no transaction: [`Transactions::acknowledge`].
    ///
    /// None: the table is full; nothing was sent.
    pub fn request(
        &mut self,
        now: Instant,
        outgoing: Outgoing,
        write: impl FnOnce(&Branch, &mut Vec<u8>),
        out: &mut impl Sink,
    ) -> Option<ClientKey> {
        let Outgoing { to, method, role, cookie } = outgoing;
        let reliable = to.transport().reliable();
        let machine = match method {
            Method::Invite => Machine::Invite(invite_client::start(&self.times, reliable, &mut self.actions)),
            _ => Machine::Other(client::start(&self.times, reliable, &mut self.actions)),
        };
        let client = Client {
            machine,
            method,
            role,
            branch: Branch::none(),
            to,
            octets: Box::default(),
            successes: Vec::new(),
            cancel: None,
            reason: None,
            cookie,
            armed: Armed::default(),
        };
        let Ok(key) = self.entries.insert(Entry::Client(client)) else {
            self.actions.clear();
            return None;
        };
        let branch = Branch::new(self.shard, key, &mut self.prng);
        self.octets.clear();
        write(&branch, &mut self.octets);
        if let Some(Entry::Client(client)) = self.entries.get_mut(key) {
            client.branch = branch;
            client.octets = self.octets.as_slice().into();
        }
        self.act(now, key, out, &mut Vec::new());
        Some(ClientKey(key))
    }

    /// A response came in. None: it is dealt with, or belongs to no transaction of ours and is dropped (RFC 6026 §7.2).
    pub fn receive_response(&mut self, now: Instant, response: &Response, out: &mut impl Sink) -> Option<Heard> {
        let key = self.answered(response)?;
        let Some(Entry::Client(entry)) = self.entries.get_mut(key) else { return None };
        let heard = Heard { client: ClientKey(key), cookie: entry.cookie, method: entry.method };
        let status = response.status();
        let mut fresh = true;
        if entry.method == Method::Invite {
            match status {
                200..300 if entry.role == Role::UserAgent => fresh = entry.fresh_success(response, out),
                300..700 => entry.prepare_ack(response),
                _ => {}
            }
        }
        let passed = self.step_client(now, key, Input::Status(status), out, &mut Vec::new());
        (passed && fresh).then_some(heard)
    }

    /// §17.1.3: the transaction whose branch the top Via carries, if the method is its own.
    fn answered(&self, response: &Response) -> Option<Key> {
        let via = response.top_via().ok()?;
        let branch = via.branch()?;
        let key = Branch::key_in(branch)?;
        let Some(Entry::Client(entry)) = self.entries.get(key) else { return None };
        if entry.branch.as_str() != branch {
            return None;
        }
        let method = response.cseq().ok()?.method;
        if method == entry.method {
            return Some(key);
        }
        entry.cancel.filter(|_| method == Method::Cancel)
    }

    /// Sends the ACK of a 2xx (§13.2.2.4); `write` writes it whole, with a top Via that carries the branch given. Resends
    /// of that 2xx are answered with it from here on.
    pub fn acknowledge(
        &mut self,
        client: ClientKey,
        to_tag: &str,
        to: &Destination,
        write: impl FnOnce(&Branch, &mut Vec<u8>),
        out: &mut impl Sink,
    ) {
        let branch = Branch::new(self.shard, client.0, &mut self.prng);
        self.octets.clear();
        write(&branch, &mut self.octets);
        out.send(to, 0, &self.octets);
        let Some(Entry::Client(entry)) = self.entries.get_mut(client.0) else { return };
        if let Some(success) = entry.successes.iter_mut().find(|success| *success.tag == *to_tag) {
            success.ack = Some((to.clone(), self.octets.as_slice().into()));
        }
    }

    /// Cancels an INVITE (§9.1): at once where a provisional response came, else after the first one. `reason` is the
    /// value of a Reason header. Nothing happens where the final response is there.
    pub fn cancel(&mut self, now: Instant, client: ClientKey, reason: Option<&str>, out: &mut impl Sink) {
        if let Some(Entry::Client(entry)) = self.entries.get_mut(client.0) {
            entry.reason = reason.map(Into::into);
            self.step_client(now, client.0, Input::Cancel, out, &mut Vec::new());
        }
    }

    pub(super) fn client_timer(&mut self, now: Instant, key: Key, timer: Timer, out: &mut impl Sink, events: &mut Vec<Event>) {
        self.step_client(now, key, Input::Timer(timer), out, events);
    }

    pub(super) fn client_unreachable(&mut self, now: Instant, key: Key, out: &mut impl Sink, events: &mut Vec<Event>) {
        self.step_client(now, key, Input::TransportError, out, events);
    }

    /// Whether the message that made the step is the user's to see.
    fn step_client(&mut self, now: Instant, key: Key, input: Input, out: &mut impl Sink, events: &mut Vec<Event>) -> bool {
        let Some(Entry::Client(entry)) = self.entries.get_mut(key) else { return false };
        let reliable = entry.to.transport().reliable();
        match &mut entry.machine {
            Machine::Invite(state) => {
                *state = invite_client::step(*state, invite_event(input), &self.times, reliable, &mut self.actions);
            }
            Machine::Other(state) => {
                let Some(event) = other_event(input) else { return false };
                *state = client::step(*state, event, &self.times, reliable, &mut self.actions);
            }
        }
        entry.armed.keep_only(|timer| entry.machine.keeps(timer), &mut self.timers);
        let passed = self.act(now, key, out, events);
        self.shrink(key);
        passed
    }

    /// Carries out the actions of a step.
    fn act(&mut self, now: Instant, key: Key, out: &mut impl Sink, events: &mut Vec<Event>) -> bool {
        let Some(Entry::Client(entry)) = self.entries.get_mut(key) else { return false };
        let (client, cookie) = (ClientKey(key), entry.cookie);
        let (mut passed, mut cancel) = (false, false);
        for action in self.actions.drain(..) {
            match action {
                Action::Send | Action::Ack if !entry.octets.is_empty() => out.send(&entry.to, key.as_u64(), &entry.octets),
                Action::Cancel => cancel = true,
                Action::ToUser => passed = true,
                Action::Arm(timer, after) => entry.armed.arm(timer, now + after, key, &mut self.timers),
                // A CANCEL is the table's own request; its fate changes nothing.
                _ if entry.method == Method::Cancel => {}
                Action::TimedOut => events.push(Event::TimedOut { client, cookie }),
                Action::Unreachable => events.push(Event::Unreachable { client, cookie }),
                Action::Send | Action::Ack | Action::Unacknowledged => {}
            }
        }
        passed &= entry.method != Method::Cancel;
        if cancel {
            self.send_cancel(now, key, out);
        }
        passed
    }

    /// §9.1: same Request-URI, Call-ID, To, From, CSeq number and Route, one Via: the top one of the INVITE.
    fn send_cancel(&mut self, now: Instant, invite: Key, out: &mut impl Sink) {
        let Some(Entry::Client(entry)) = self.entries.get(invite) else { return };
        let Ok(request) = Request::parse(&entry.octets) else { return };
        let mut octets = Vec::with_capacity(512);
        let mut writer = of_invite(&request, "CANCEL", request.header(Name::To).unwrap_or(""), &mut octets);
        if let Some(reason) = &entry.reason {
            writer.field(Name::Reason, reason);
        }
        writer.body(b"");
        let (to, branch) = (entry.to.clone(), entry.branch);
        let machine = Machine::Other(client::start(&self.times, to.transport().reliable(), &mut self.actions));
        let cancel = Client {
            machine,
            method: Method::Cancel,
            role: Role::UserAgent,
            branch,
            to,
            octets: octets.into(),
            successes: Vec::new(),
            cancel: None,
            reason: None,
            cookie: 0,
            armed: Armed::default(),
        };
        // A full table sends no CANCEL: the INVITE is given up by its timer all the same.
        let Ok(key) = self.entries.insert(Entry::Client(cancel)) else { return self.actions.clear() };
        if let Some(Entry::Client(entry)) = self.entries.get_mut(invite) {
            entry.cancel = Some(key);
        }
        self.act(now, key, out, &mut Vec::new());
    }

    /// Lets go of what the new state has no use for, and of the whole entry at its end.
    fn shrink(&mut self, key: Key) {
        let Some(Entry::Client(entry)) = self.entries.get_mut(key) else { return };
        match entry.machine {
            Machine::Invite(invite_client::State::Accepted) | Machine::Other(client::State::Completed) => {
                entry.octets = Box::default()
            }
            _ => {}
        }
        if !entry.machine.terminated() {
            return;
        }
        let Some(Entry::Client(mut entry)) = self.entries.remove(key) else { return };
        entry.armed.keep_only(|_| false, &mut self.timers);
        if let Some(Entry::Client(mut cancel)) = entry.cancel.and_then(|cancel| self.entries.remove(cancel)) {
            cancel.armed.keep_only(|_| false, &mut self.timers);
        }
    }
}

impl Client {
    /// Whether no 2xx with this To tag was heard before; a resend is answered with its ACK, where the user gave one.
    fn fresh_success(&mut self, response: &Response, out: &mut impl Sink) -> bool {
        let tag = response.to_tag().unwrap_or("");
        if let Some(success) = self.successes.iter().find(|success| *success.tag == *tag) {
            if let Some((to, octets)) = &success.ack {
                out.send(to, 0, octets);
            }
            return false;
        }
        let room = self.successes.len() < SIP_SUCCESS_FORKS_MAX;
        if room {
            // Forks are rare.
            self.successes.reserve_exact(1);
            self.successes.push(Success { tag: tag.into(), ack: None });
        }
        room
    }

    /// §17.1.1.3: the ACK of a failure takes the place of the request.
    fn prepare_ack(&mut self, response: &Response) {
        let Machine::Invite(invite_client::State::Calling { .. } | invite_client::State::Proceeding { .. }) = self.machine else {
            return;
        };
        let Ok(request) = Request::parse(&self.octets) else { return self.octets = Box::default() };
        let mut octets = Vec::with_capacity(512);
        of_invite(&request, "ACK", response.header(Name::To).unwrap_or(""), &mut octets).body(b"");
        self.octets = octets.into();
    }
}

/// Begins the ACK of a failure or a CANCEL: what it has of its INVITE.
fn of_invite<'b>(invite: &Request, method: &str, to: &str, octets: &'b mut Vec<u8>) -> Writer<'b> {
    let mut writer = Writer::request(octets, method, invite.uri());
    writer.field(Name::Via, invite.values(Name::Via).next().unwrap_or(""));
    for route in invite.lines(Name::Route) {
        writer.field(Name::Route, route);
    }
    writer.field(Name::MaxForwards, "70");
    writer.field(Name::From, invite.header(Name::From).unwrap_or(""));
    writer.field(Name::To, to);
    writer.field(Name::CallId, invite.header(Name::CallId).unwrap_or(""));
    let number = invite.cseq().map_or(0, |cseq| cseq.number);
    writer.format(Name::CSeq, format_args!("{number} {method}"));
    writer
}

fn invite_event(input: Input) -> invite_client::Event {
    use invite_client::Event;
    match input {
        Input::Status(100) => Event::Trying,
        Input::Status(101..200) => Event::Provisional,
        Input::Status(200..300) => Event::Success,
        Input::Status(_) => Event::Failure,
        Input::Timer(timer) => Event::Timer(timer),
        Input::TransportError => Event::TransportError,
        Input::Cancel => Event::Cancel,
    }
}

fn other_event(input: Input) -> Option<client::Event> {
    use client::Event;
    Some(match input {
        Input::Status(100..200) => Event::Provisional,
        Input::Status(_) => Event::Final,
        Input::Timer(timer) => Event::Timer(timer),
        Input::TransportError => Event::TransportError,
        Input::Cancel => return None,
    })
}
