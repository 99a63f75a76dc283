//! RFC 3261 §8.1.2, §16.6 steps 7 to 10, §18.1.1, RFC 3263 §4.3: a request of ours on its way: found an address, sent,
//! tried at the next one, answered.
//!
//! ```text
//! dispatch -> Asking (a name is resolved) -> Sent (a client transaction) -> answered: its purpose hears
//!                     \                       |  no answer at all, refused, 503
//!                      \______________________|-> next address, another branch; none left: its purpose hears 408 or 503
//! ```

use super::exchange::{Fetched, LegIndex, Query, Ticket};
use super::locate::Place;
use super::outbox::{Outbox, SendTag};
use super::sessions::Leg;
use super::sessions::late_offer::Passing;
use super::signalling::Signalling;
use super::writing::Draft;
use crate::base::clock::{Duration, Instant};
use crate::base::slab::Key;
use crate::base::transport::{Destination, Flow, Target, Transport};
use crate::sip::header::name::Name;
use crate::sip::ids::Branch;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::status;
use crate::sip::transaction::seam::{ClientKey, Outgoing, Role, ServerKey};
use crate::sip::write::Writer;
use crate::store::deferred::DeferredId;
use std::rc::Rc;

/// RFC 3261 §18.1.1: a request above this size goes over a congestion-controlled transport.
const UDP_OCTETS_MAX: usize = 1300;

/// Who waits for the answer.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// The INVITE of a target leg.
    Target { session: Key, leg: LegIndex },
    /// A request within a leg's dialog.
    Within { session: Key, leg: LegIndex, what: Within },
    /// One MESSAGE of a batch.
    Page { batch: Key, target: usize },
    /// A branch of a proxied request.
    Branch { proxy: Key, branch: usize },
    /// A deferred MESSAGE for this user.
    Deferred { user: Box<str> },
    /// A notice to the sender of this deferred message, which is in the store until the sender was told.
    Notice { about: DeferredId },
    /// SUBSCRIBE of a reg-event subscription.
    Subscribe { subscription: Key },
    /// The ACK of a 2xx: which INVITE, and the To tag of its 2xx.
    Ack { client: ClientKey, tag: Box<str> },
    /// Nobody: a BYE of a fork, say.
    Nobody,
}

/// What a request within a dialog is for.
#[derive(Clone, Debug)]
pub enum Within {
    /// BYE, in the dialog with this local tag.
    Bye { tag: Box<str> },
    /// PRACK, for this one of the origin's where it has sent one.
    Prack { server: Option<ServerKey> },
    /// A session refresh of ours (RFC 4028 §10).
    Refresh,
    /// The other leg's request, relayed; its transaction, and which leg waits.
    Relayed { server: ServerKey, from: LegIndex },
    /// The other leg's re-INVITE or UPDATE with another SDP.
    /// `before`: our SDP there until then.
    Changed { server: ServerKey, from: LegIndex, request: Rc<Request>, before: Box<str> },
    /// The other leg's answer to an offer of ours, as an offer.
    Passed(Box<Passing>),
}

/// A request on its way.
pub struct Outbound {
    pub purpose: Purpose,
    pub method: Method,
    pub role: Role,
    pub client: Option<ClientKey>,
    draft: Option<Draft>,
    /// Addresses not tried yet, the next one last.
    further: Vec<Target>,
    current: Option<Target>,
    /// Where to send it when its next hop's URI leads nowhere.
    source: Option<Flow>,
    /// Cancelled while its address was being asked for.
    cancelled: bool,
}

/// A request that was not sent, or got no answer.
pub struct Lost {
    pub purpose: Purpose,
    pub status: u16,
    /// The answer that its server gave to another one, where that still holds.
    pub said: Option<Response>,
}

/// A way to the next hop.
pub enum Hop<'a> {
    /// By its URI.
    Uri(&'a str),
    /// Back on a connection; where it is gone, to the URI's address.
    Flow(Flow, &'a str),
    /// By its URI; where that leads nowhere, to where the peer's own messages come from.
    UriOrSource(&'a str, Flow),
}

impl<'a> Hop<'a> {
    /// The way to a leg's next hop.
    pub fn of_leg(leg: &Leg, uri: &'a str) -> Self {
        match leg.source {
            Some(flow) if leg.back => Hop::Flow(flow, uri),
            Some(source) => Hop::UriOrSource(uri, source),
            None => Hop::Uri(uri),
        }
    }
}

impl Signalling {
    /// Sends a request. Its purpose hears of it; a failure before anything was sent is heard once this call's work is done.
    pub(super) fn dispatch(
        &mut self,
        now: Instant,
        purpose: Purpose,
        method: Method,
        role: Role,
        draft: Draft,
        hop: Hop<'_>,
        out: &mut Outbox,
    ) -> Option<Key> {
        let uri = match hop {
            Hop::Uri(uri) | Hop::Flow(_, uri) | Hop::UriOrSource(uri, _) => uri,
        };
        let source = match hop {
            Hop::UriOrSource(_, source) => Some(source),
            Hop::Uri(_) | Hop::Flow(..) => None,
        };
        let place = self.locator.place(now, uri);
        let outbound = Outbound {
            purpose,
            method,
            role,
            client: None,
            draft: Some(draft),
            further: Vec::new(),
            current: None,
            source,
            cancelled: false,
        };
        let key = match self.outbound.insert(outbound) {
            Ok(key) => key,
            Err(outbound) => {
                self.lost.push_back(Lost { purpose: outbound.purpose, status: 503, said: None });
                return None;
            }
        };
        if let Hop::Flow(flow, _) = hop {
            let fallback = match &place {
                Place::At(targets) => targets.iter().find(|target| target.transport == flow.transport).cloned().map(Box::new),
                _ => None,
            };
            self.send_to(now, key, Destination::Flow { flow, fallback }, out);
            return Some(key);
        }
        match place {
            Place::At(targets) => self.try_targets(now, key, targets, uri, out),
            Place::Nowhere => self.send_to_source(now, key, out),
            Place::Ask(query) => self.ask_place(key, query, out),
        }
        Some(key)
    }

    fn ask_place(&mut self, key: Key, query: Query, out: &mut Outbox) {
        let ticket = self.ask(super::signalling::Waiting::Place { outbound: key, query: Box::new(query.clone()) }, query, out);
        let _: Ticket = ticket;
    }

    /// The services resolved a name.
    pub(super) fn placed(&mut self, now: Instant, key: Key, query: &Query, answer: &Fetched, out: &mut Outbox) {
        let resolved = match answer {
            Fetched::Resolved(resolved) => resolved.as_slice(),
            _ => &[],
        };
        let place = self.locator.learn(now, query, resolved);
        let Some(outbound) = self.outbound.get(key) else { return };
        if outbound.cancelled {
            return self.lose(key, 487);
        }
        match place {
            Place::At(targets) => self.try_targets(now, key, targets, "", out),
            _ => self.send_to_source(now, key, out),
        }
    }

    /// The URI of the next hop leads nowhere: a peer whose Contact cannot be resolved is spoken to where it speaks from, as
    /// responses are (RFC 3261 §18.2.2). 503 where that is not known.
    fn send_to_source(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        match self.outbound.get(key).and_then(|outbound| outbound.source) {
            Some(flow) => self.send_to(now, key, Destination::Flow { flow, fallback: None }, out),
            None => self.lose(key, 503),
        }
    }

    fn try_targets(&mut self, now: Instant, key: Key, targets: Vec<Target>, uri: &str, out: &mut Outbox) {
        let Some(outbound) = self.outbound.get_mut(key) else { return };
        let octets = outbound.draft.as_ref().map_or(0, Draft::octets);
        // §21.5.4: what is new does not go to a server that asked to be left alone; what has begun there does.
        let new = match outbound.purpose {
            Purpose::Target { .. } | Purpose::Page { .. } => true,
            Purpose::Branch { proxy, .. } => self.proxies.get(proxy).is_some_and(|proxied| !proxied.within),
            _ => false,
        };
        let mut ways = Vec::with_capacity(targets.len() + 1);
        let mut rest: Option<Duration> = None;
        for target in targets {
            if let Some(left) = self.locator.rests(now, &target).filter(|_| new) {
                rest = Some(rest.map_or(left, |rest| rest.min(left)));
                continue;
            }
            if target.transport != Transport::Udp {
                ways.push(target);
                continue;
            }
            let tcp = Target { transport: Transport::Tcp, ..target.clone() };
            if !self.addresses.has(Transport::Udp) {
                ways.push(tcp);
                continue;
            }
            // RFC 3261 §18.1.1: a large request goes over TCP; UDP is tried when the peer refuses that. What the operator
            // says with `transport=udp` stands.
            let told = || uri.to_ascii_lowercase().contains("transport=udp");
            if octets > UDP_OCTETS_MAX && !told() && self.addresses.has(Transport::Tcp) && !self.locator.is_dead(now, &tcp) {
                ways.push(tcp);
            }
            ways.push(target);
        }
        if let Some(left) = rest.filter(|_| ways.is_empty()) {
            return self.refused_at_rest(key, left);
        }
        ways.reverse();
        outbound.further = ways;
        self.try_next(now, key, 503, out);
    }

    /// §21.5.4: every server of the next hop asked to be left alone. Its 503 counts for this request too, with what is left of the time.
    fn refused_at_rest(&mut self, key: Key, left: Duration) {
        let Some(outbound) = self.outbound.remove(key) else { return };
        let mut octets = Vec::with_capacity(64);
        let mut writer = Writer::response(&mut octets, 503, status::reason(503));
        writer.format(Name::RetryAfter, format_args!("{}", left.as_secs() + u64::from(left.subsec_nanos() > 0)));
        writer.body(b"");
        self.lost.push_back(Lost { purpose: outbound.purpose, status: 503, said: Response::parse(&octets).ok() });
    }

    /// Tries the next address; where none is left the purpose hears `status`.
    fn try_next(&mut self, now: Instant, key: Key, status: u16, out: &mut Outbox) {
        let Some(outbound) = self.outbound.get_mut(key) else { return };
        if outbound.cancelled {
            return self.lose(key, 487);
        }
        match outbound.further.pop() {
            Some(target) => {
                outbound.current = Some(target.clone());
                let source = outbound.source;
                let to = self.by_listener(target, source);
                self.send_to(now, key, to, out);
            }
            None => self.lose(key, status),
        }
    }

    /// Where several UDP listeners could send: the one on which the peer speaks in this dialog, else the nearest.
    fn by_listener(&self, target: Target, source: Option<Flow>) -> Destination {
        let nearest = if target.transport == Transport::Udp { self.addresses.udp_towards(target.address.ip()) } else { None };
        let Some(nearest) = nearest else { return Destination::Target(target) };
        let same = |flow: &Flow| flow.transport == Transport::Udp && flow.peer.is_ipv4() == target.address.is_ipv4();
        let listener = source.filter(same).map_or(nearest, |flow| flow.listener);
        let flow = Flow { transport: Transport::Udp, core: self.shard, listener, connection: 0, peer: target.address };
        Destination::Flow { flow, fallback: None }
    }

    fn send_to(&mut self, now: Instant, key: Key, to: Destination, out: &mut Outbox) {
        let Some(outbound) = self.outbound.get_mut(key) else { return };
        let Some(draft) = outbound.draft.as_ref() else { return };
        let addresses = &self.addresses;
        if outbound.method == Method::Ack {
            // §13.2.2.4: the ACK of a 2xx is no transaction. Ours is sent again with every resend of the 2xx.
            if let Purpose::Ack { client, tag } = &outbound.purpose {
                let write = |branch: &Branch, buffer: &mut Vec<u8>| draft.write(&to, branch, addresses, buffer);
                self.transactions.acknowledge(*client, tag, &to, write, out);
            } else {
                let branch = Branch::new(self.shard, key, &mut self.prng);
                out.send(to.clone(), SendTag(0), |buffer| draft.write(&to, &branch, addresses, buffer));
            }
            self.counts.request(Method::Ack, super::counts::Direction::Out);
            self.outbound.remove(key);
            return;
        }
        let outgoing = Outgoing { to: to.clone(), method: outbound.method, role: outbound.role, cookie: key.as_u64() };
        let client = self.transactions.request(now, outgoing, |branch, buffer| draft.write(&to, branch, addresses, buffer), out);
        self.counts.request(outbound.method, super::counts::Direction::Out);
        outbound.client = client;
        // With no other address left the draft has done its work.
        if outbound.further.is_empty() {
            outbound.draft = None;
        }
        if client.is_none() {
            self.lose(key, 503);
        }
    }

    /// The request is lost; its purpose hears `status` when this call's work is done.
    fn lose(&mut self, key: Key, status: u16) {
        if let Some(outbound) = self.outbound.remove(key) {
            self.lost.push_back(Lost { purpose: outbound.purpose, status, said: None });
        }
    }

    /// The transaction of a request ended without a response: 408 (silence) or 503 (not sent).
    pub(super) fn unanswered(&mut self, now: Instant, key: Key, status: u16, out: &mut Outbox) {
        let Some(outbound) = self.outbound.get_mut(key) else { return };
        outbound.client = None;
        if let Some(target) = outbound.current.take() {
            self.locator.died(now, &target, None);
        }
        if self.outbound.get(key).is_some_and(|outbound| outbound.draft.is_some()) {
            return self.try_next(now, key, status, out);
        }
        self.lose(key, status);
    }

    /// A response came. Some: its purpose is to hear it; the request is over with a final one, but for an INVITE's 2xx,
    /// whose forks follow ([`Signalling::forget_outbound`]).
    pub(super) fn answered(&mut self, now: Instant, key: Key, response: &Response, out: &mut Outbox) -> Option<Purpose> {
        let outbound = self.outbound.get_mut(key)?;
        let status = response.status();
        if status == 503 {
            // §21.5.4: leave this server alone for as long as it asks; another address may do.
            let rest = response.header(Name::RetryAfter).and_then(retry_after);
            match (outbound.current.take(), rest) {
                (Some(target), Some(rest)) => {
                    outbound.further.retain(|other| other.address != target.address);
                    self.locator.rest(now, &target, rest);
                }
                (Some(target), None) if !outbound.further.is_empty() => self.locator.died(now, &target, None),
                _ => {}
            }
            if outbound.draft.is_some() && !outbound.further.is_empty() {
                outbound.client = None;
                self.try_next(now, key, 503, out);
                return None;
            }
        } else if let Some(target) = outbound.current.take() {
            self.locator.lives(&target);
        }
        let outbound = self.outbound.get_mut(key)?;
        outbound.draft = None;
        outbound.further = Vec::new();
        if status < 200 {
            return Some(outbound.purpose.clone());
        }
        let keeps = outbound.method == Method::Invite && status < 300 && outbound.role == Role::Proxy;
        if keeps {
            return Some(outbound.purpose.clone());
        }
        self.outbound.remove(key).map(|outbound| outbound.purpose)
    }

    /// Cancels an INVITE on its way (RFC 3261 §9.1).
    pub(super) fn cancel_outbound(&mut self, now: Instant, key: Key, reason: Option<&str>, out: &mut Outbox) {
        let Some(outbound) = self.outbound.get_mut(key) else { return };
        outbound.cancelled = true;
        if let Some(client) = outbound.client {
            self.transactions.cancel(now, client, reason, out);
        }
    }
}

/// RFC 3261 §20.33: seconds, before comment and parameters; one hour is as long as we obey.
fn retry_after(value: &str) -> Option<Duration> {
    let digits = value.split(|c: char| !c.is_ascii_digit()).next()?;
    let seconds: u64 = digits.parse().ok()?;
    Some(Duration::from_secs(seconds.clamp(1, 3600)))
}
