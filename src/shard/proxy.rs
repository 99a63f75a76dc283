//! RFC 3261 §16, OSI-5: a stateful, record-routing proxy, for what is not CPM's and for sessions whose media we leave alone.
//!
//! ```text
//! request --> one branch for each Request-URI --> 1xx, every 2xx: upstream at once
//!                                             --> failures: the best one upstream when the last branch is done
//! ```
//! Nothing is touched but Via, Max-Forwards, Record-Route and Route, and what a clause demands.

use super::addresses::Reach;
use super::arrival;
use super::counts::Direction;
use super::outbound::{Hop, Lost, Purpose};
use super::outbox::Outbox;
use super::sessions::Arrived;
use super::signalling::{Cookie, Due, Signalling};
use super::writing::{Draft, MAX_FORWARDS, next_hop};
use crate::base::clock::{Duration, Instant};
use crate::base::slab::Key;
use crate::base::timers::Handle;
use crate::base::transport::{Flow, Transport};
use crate::clause;
use crate::cpm::decision::{NextHop, Proxy};
use crate::cpm::headers::Field;
use crate::cpm::refusal::Refusal;
use crate::limits::PROXY_BRANCHES_MAX;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::header::{list, reason, via};
use crate::sip::ids;
use crate::sip::message::{Message, Request, Response};
use crate::sip::method::Method;
use crate::sip::transaction::seam::{Role, ServerKey};
use crate::sip::uri::Uri;
use crate::sip::validate::max_forwards;
use crate::sip::write::Writer;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

/// RFC 6026 §7.1: as long as an INVITE's 2xx may be resent, it is passed on.
fn linger(t1: Duration) -> Duration {
    t1 * 64
}

/// One proxied request.
pub struct Proxied {
    server: ServerKey,
    method: Method,
    branches: Vec<Branch>,
    best: Option<Response>,
    /// A final response went upstream.
    answered: bool,
    digest: u64,
    /// It is in a dialog.
    pub within: bool,
    /// It came from outside the trust domain.
    outside: bool,
    forget: Option<Handle>,
}

struct Branch {
    outbound: Option<Key>,
    /// The final status; none: it is open.
    status: Option<u16>,
}

impl Signalling {
    /// Forwards a request as a proxy decision says.
    pub(super) fn proxy(&mut self, now: Instant, arrived: Arrived, proxy: &Proxy, out: &mut Outbox) {
        clause!("OSI-5.a");
        let routes = self.routes_of(&proxy.next_hop, &arrived.routes);
        let straight: Option<&str> = match &proxy.next_hop {
            NextHop::Core { fallback } if routes.is_empty() => fallback.as_deref(),
            _ => None,
        };
        let uris: Vec<&str> = match proxy.request_uris.as_slice() {
            [] => vec![arrived.request.uri()],
            uris => uris.iter().map(String::as_str).take(PROXY_BRANCHES_MAX).collect(),
        };
        let edits = Edits { record_route: proxy.record_route, remove: &proxy.remove, add: &proxy.add };
        self.forward(now, arrived.server, &arrived.flow, &arrived.request, &uris, &routes, straight, &edits, out);
    }

    /// Forwards a request that named a Contact of ours to the Contact it stands for.
    pub(super) fn proxy_to_contact(&mut self, now: Instant, arrived: Arrived, proxy: &Proxy, out: &mut Outbox) {
        let Arrived { server, flow, request, routes, .. } = arrived;
        let uris: Vec<&str> = proxy.request_uris.iter().map(String::as_str).collect();
        let edits = Edits { record_route: proxy.record_route, remove: &proxy.remove, add: &proxy.add };
        self.forward(now, server, &flow, &request, &uris, &routes, None, &edits, out);
    }

    /// A request in a dialog that goes through us because we recorded its route.
    pub(super) fn proxy_within(
        &mut self,
        now: Instant,
        flow: &Flow,
        server: ServerKey,
        request: &Rc<Request>,
        routes: &[Box<str>],
        out: &mut Outbox,
    ) {
        let edits = Edits { record_route: false, remove: &[], add: &[] };
        self.forward(now, server, flow, request, &[request.uri()], routes, None, &edits, out);
    }

    fn forward(
        &mut self,
        now: Instant,
        server: ServerKey,
        flow: &Flow,
        request: &Rc<Request>,
        uris: &[&str],
        routes: &[Box<str>],
        straight: Option<&str>,
        edits: &Edits<'_>,
        out: &mut Outbox,
    ) {
        // §16.3 step 5
        if let Err(refusal) = crate::cpm::gates::passable(request) {
            return self.refuse(now, server, &refusal, out);
        }
        let digest = digest(request);
        let looped = self.loops.contains(&digest) && came_through_us(request);
        if looped {
            return self.refuse(now, server, &Refusal::new(482, "RFC 3261 §16.3"), out);
        }
        let within = request.to_tag().is_some();
        let method = request.method();
        let outside = !arrival::is_trusted(&self.config, flow);
        let (branches, best, answered, forget) = (Vec::new(), None, false, None);
        let proxied = Proxied { server, method, branches, best, answered, digest, within, outside, forget };
        let Ok(key) = self.proxies.insert(proxied) else { return self.shed(now, server, "overload > proxied requests", out) };
        self.loops.insert(digest);
        self.transactions.set_cookie(server, Cookie::Proxy.of(key));
        let mut ways = Vec::with_capacity(uris.len());
        for uri in uris {
            let hop = straight.unwrap_or_else(|| next_hop(uri, routes)).to_string();
            let own = Uri::parse(&hop).is_ok_and(|uri| self.addresses.is_own(&uri));
            let transport = self.transport_of(&hop);
            let mut record_routes = Vec::new();
            if edits.record_route {
                clause!("OSI-5.b");
                let reach = Reach::towards(transport, uri, routes.first().map(|route| &**route));
                record_routes.push(self.record_route(reach));
                // RFC 5658 §5.1: each side comes back by the transport that it uses.
                if !reach.secure && flow.transport != transport && self.addresses.has(flow.transport) {
                    record_routes.push(self.record_route(flow.transport.into()));
                }
            }
            let hidden = if self.is_trusted_hop(&hop) { &[][..] } else { hidden(request) };
            let draft = forwarded(request, flow, uri, routes, &record_routes, hidden, edits);
            ways.push((!own).then_some((draft, hop)));
            let proxied = self.proxies.get_mut(key).expect("it was just made");
            proxied.branches.push(Branch { outbound: None, status: None });
        }
        for (branch, way) in ways.into_iter().enumerate() {
            let purpose = Purpose::Branch { proxy: key, branch };
            let Some((draft, hop)) = way else {
                // What would come back to us has no other place to go (RFC 3261 §16.4).
                self.lost.push_back(Lost { purpose, status: 404, said: None });
                continue;
            };
            let sent = self.dispatch(now, purpose, request.method(), Role::Proxy, draft, Hop::Uri(&hop), out);
            if let Some(proxied) = self.proxies.get_mut(key) {
                proxied.branches[branch].outbound = sent;
            }
        }
    }

    /// A branch answered.
    pub(super) fn branch_heard(&mut self, now: Instant, key: Key, branch: usize, response: &Response, out: &mut Outbox) {
        let Some(proxied) = self.proxies.get_mut(key) else { return };
        match response.status() {
            100 => {}
            // RFC 3261 §16.7 step 5: provisional responses and every 2xx go upstream at once.
            101..200 if !proxied.answered => self.upstream(now, key, response, out),
            101..200 => {}
            200..300 => {
                proxied.branches[branch].status = Some(response.status());
                proxied.answered = true;
                self.upstream(now, key, response, out);
                self.cancel_branches(now, key, out);
                self.proxied_over(now, key);
            }
            status => self.branch_failed(now, key, branch, status, Some(response), out),
        }
    }

    /// A branch failed; without a response it counts as 408 or 503 (§16.8, §16.9).
    pub(super) fn branch_failed(
        &mut self,
        now: Instant,
        key: Key,
        branch: usize,
        status: u16,
        response: Option<&Response>,
        out: &mut Outbox,
    ) {
        let Some(proxied) = self.proxies.get_mut(key) else { return };
        proxied.branches[branch].status = Some(status);
        let best = proxied.best.as_ref().map(Response::status);
        if let Some(response) = response.filter(|_| best.is_none_or(|best| is_better(status, best))) {
            proxied.best = Some(response.clone());
        }
        if status >= 600 {
            self.cancel_branches(now, key, out);
        }
        let proxied = self.proxies.get_mut(key).expect("it was just read");
        if proxied.answered || proxied.branches.iter().any(|branch| branch.status.is_none()) {
            return self.proxied_over(now, key);
        }
        proxied.answered = true;
        let server = proxied.server;
        let lowest = proxied.branches.iter().filter_map(|branch| branch.status).min_by_key(|status| rank(*status)).unwrap_or(408);
        match proxied.best.take().filter(|best| rank(best.status()) <= rank(lowest)) {
            // §16.7 step 6: that one element is overloaded says nothing of us.
            Some(best) if best.status() != 503 => self.upstream(now, key, &best, out),
            Some(_) => self.refuse(now, server, &Refusal::new(500, "RFC 3261 §16.7"), out),
            None => {
                let status = if lowest == 503 { 500 } else { lowest };
                self.refuse(now, server, &Refusal::new(status, "RFC 3261 §16.7"), out);
            }
        }
        self.proxied_over(now, key);
    }

    /// Passes a response upstream, without our Via (§16.7 step 9).
    fn upstream(&mut self, now: Instant, key: Key, response: &Response, out: &mut Outbox) {
        let Some(proxied) = self.proxies.get(key) else { return };
        let (server, method, status) = (proxied.server, proxied.method, response.status());
        let hidden = proxied.outside && arrival::withholds_identity(response);
        let hidden: &[Name] = if hidden { &[Name::PAssertedIdentity] } else { &[] };
        if self.transactions.forward(now, server, status, |buffer| without_top_via(response, hidden, buffer), out) {
            self.counts.response(method, status, Direction::Out);
        }
    }

    fn cancel_branches(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(proxied) = self.proxies.get(key) else { return };
        if proxied.method != Method::Invite {
            return;
        }
        let open: Vec<Key> = proxied.branches.iter().filter(|b| b.status.is_none()).filter_map(|b| b.outbound).collect();
        for outbound in open {
            self.cancel_outbound(now, outbound, None, out);
        }
    }

    /// §16.10: the CANCEL goes down every branch; their 487s come up.
    pub(super) fn cancel_proxied(&mut self, now: Instant, key: Key, cancel: &Request, out: &mut Outbox) {
        let Some(proxied) = self.proxies.get(key) else { return };
        let open: Vec<Key> = proxied.branches.iter().filter(|b| b.status.is_none()).filter_map(|b| b.outbound).collect();
        let reason = reason::all(cancel);
        for outbound in open {
            self.cancel_outbound(now, outbound, reason.as_deref(), out);
        }
    }

    /// Forgets a request that was answered and has no open branch; an INVITE's after its 2xx can no longer be resent.
    fn proxied_over(&mut self, now: Instant, key: Key) {
        let Some(proxied) = self.proxies.get_mut(key) else { return };
        if !proxied.answered || proxied.branches.iter().any(|branch| branch.status.is_none()) {
            return;
        }
        let succeeded = proxied.branches.iter().any(|branch| matches!(branch.status, Some(200..300)));
        if proxied.method == Method::Invite && succeeded {
            if proxied.forget.is_none() {
                let wait = linger(self.config.sip.t1);
                proxied.forget = Some(self.timers.arm(now + wait, Due::Proxied(key)));
            }
            return;
        }
        self.forget_proxied(key);
    }

    pub(super) fn forget_proxied(&mut self, key: Key) {
        let Some(proxied) = self.proxies.remove(key) else { return };
        self.loops.remove(&proxied.digest);
        for outbound in proxied.branches.iter().filter_map(|branch| branch.outbound) {
            self.outbound.remove(outbound);
        }
    }

    /// §16.11 for the ACK of a 2xx: it goes where its route set says, without state.
    pub(super) fn pass_ack(&mut self, now: Instant, flow: &Flow, request: &Rc<Request>, out: &mut Outbox) {
        let (own, routes) = arrival::popped(&self.addresses, request);
        if own.is_none() || max_forwards(request).ok().flatten() == Some(0) {
            return;
        }
        let hop = next_hop(request.uri(), &routes).to_string();
        if Uri::parse(&hop).is_ok_and(|uri| self.addresses.is_own(&uri)) {
            return;
        }
        let edits = Edits { record_route: false, remove: &[], add: &[] };
        let draft = forwarded(request, flow, request.uri(), &routes, &[], &[], &edits);
        self.dispatch(now, Purpose::Nobody, Method::Ack, Role::Proxy, draft, Hop::Uri(&hop), out);
    }

    /// The transport by which a next hop will most likely be reached: what our own URI towards it should offer.
    pub(super) fn transport_of(&self, uri: &str) -> Transport {
        let Ok(uri) = Uri::parse(uri) else { return Transport::Udp };
        match uri.params.value("transport") {
            Some(tcp) if tcp.eq_ignore_ascii_case("tcp") && !uri.is_sips() => Transport::Tcp,
            Some(tls) if tls.eq_ignore_ascii_case("tls") => Transport::Tls,
            _ if uri.is_sips() => Transport::Tls,
            _ => Transport::Udp,
        }
    }
}

/// What a decision changes beside Via, Max-Forwards and Route.
struct Edits<'a> {
    record_route: bool,
    remove: &'a [&'static str],
    add: &'a [Field],
}

/// The request as it goes on (§16.6 steps 1 to 6), all but our Via.
fn forwarded(
    request: &Request,
    flow: &Flow,
    uri: &str,
    routes: &[Box<str>],
    record_routes: &[Box<str>],
    hidden: &[Name],
    edits: &Edits<'_>,
) -> Draft {
    let mut octets = Vec::with_capacity(request.size() + 256);
    let strict = routes.first().and_then(|first| NameAddr::parse(first).ok()).map(|route| route.uri);
    let strict = strict.filter(|uri| Uri::parse(uri).is_ok_and(|uri| !uri.params.has("lr")));
    let mut writer = Writer::request(&mut octets, request.method_str(), strict.unwrap_or(uri));
    for record_route in record_routes {
        writer.field(Name::RecordRoute, record_route);
    }
    for route in routes.iter().skip(usize::from(strict.is_some())) {
        writer.field(Name::Route, route);
    }
    if strict.is_some() {
        writer.format(Name::Route, format_args!("<{uri}>"));
    }
    let hops = max_forwards(request).ok().flatten().map_or(MAX_FORWARDS, |hops| hops.saturating_sub(1));
    writer.format(Name::MaxForwards, format_args!("{hops}"));
    crate::sip::reply::vias(request, flow.peer, &mut writer);
    for (name, field) in request.written() {
        let written = matches!(name, Name::Via | Name::Route | Name::MaxForwards) || hidden.contains(&name);
        if !written && !edits.remove.iter().any(|gone| gone.eq_ignore_ascii_case(name.as_str())) {
            writer.line(field);
        }
    }
    for (name, value) in edits.add {
        writer.named(name, value);
    }
    end(request, writer);
    Draft::without_via(octets)
}

/// A response without its first Via value, which is ours, and without what is hidden.
fn without_top_via(response: &Response, hidden: &[Name], buffer: &mut Vec<u8>) {
    let mut writer = Writer::response(buffer, response.status(), response.reason());
    let mut first = true;
    for (name, field) in response.written().filter(|(name, _)| !hidden.contains(name)) {
        if name != Name::Via || !std::mem::take(&mut first) {
            writer.line(field);
            continue;
        }
        for rest in response.header(Name::Via).into_iter().flat_map(list).skip(1) {
            writer.field(Name::Via, rest);
        }
    }
    end(response, writer);
}

/// What does not leave the trust domain: whom we serve (RFC 5502 §6), and the asserted identity where that is asked (RFC 3325 §7).
fn hidden(request: &Request) -> &'static [Name] {
    if arrival::withholds_identity(request) { &[Name::PServedUser, Name::PAssertedIdentity] } else { &[Name::PServedUser] }
}

/// Content-Length stands where it stood, as it was written; a datagram may have none, a stream needs one.
fn end(message: &Message, writer: Writer<'_>) {
    if message.has(Name::ContentLength) { writer.end(message.body()) } else { writer.body(message.body()) }
}

/// §16.7 step 6: a 6xx before all, else the lowest class; in 4xx those first that help the caller to try again, 401 and
/// 407 among them, and what only says that a branch was cancelled last.
fn rank(status: u16) -> u32 {
    let class = if status >= 600 { 0 } else { u32::from(status / 100) };
    let within = match status {
        401 | 407 | 415 | 420 | 484 => 0,
        408 | 487 | 503 => 2,
        _ => 1,
    };
    class * 10 + within
}

fn is_better(status: u16, than: u16) -> bool {
    rank(status) < rank(than)
}

/// §16.6 step 8: what a request that loops has in common with itself.
fn digest(request: &Request) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.uri().hash(&mut hasher);
    request.method_str().hash(&mut hasher);
    for name in [Name::CallId, Name::CSeq, Name::From, Name::Route] {
        request.lines(name).for_each(|line| line.hash(&mut hasher));
    }
    hasher.finish()
}

/// A Via of ours below the top: the request has been here.
fn came_through_us(request: &Message) -> bool {
    let ours = |value: &str| {
        via::Via::parse(value).ok().and_then(|via| via.branch()).is_some_and(|branch| ids::shard_of_branch(branch).is_some())
    };
    request.values(Name::Via).any(ours)
}
