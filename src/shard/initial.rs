//! Requests outside of our dialogs: which are for us, which are for a procedure, which only pass.

use super::arrival;
use super::counts::Outcome;
use super::outbox::Outbox;
use super::sessions::Arrived;
use super::signalling::{Due, Signalling, service_of};
use super::writing;
use crate::base::clock::{Duration, Instant};
use crate::base::slab::Key;
use crate::base::transport::Flow;
use crate::clause;
use crate::cpm::decision::{NextHop, Proxy};
use crate::cpm::procedures::Procedure;
use crate::cpm::refusal::Refusal;
use crate::limits::FORGET_GRAIN;
use crate::sip::ids;
use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::transaction::seam::ServerKey;
use crate::sip::uri::Uri;
use std::rc::Rc;

/// A Contact of ours that stands for a peer's is good for this time after its dialog (RFC 3261 §17: Timer B).
const TOKEN_LINGER: Duration = Duration::from_secs(32);

/// A Contact user of ours and the URI it stands for.
pub struct Token {
    user: Box<str>,
    original: Box<str>,
}

impl Signalling {
    /// A request with a To tag that is of no session: of a subscription, or passing through us.
    pub(super) fn foreign(
        &mut self,
        now: Instant,
        flow: Flow,
        tag: &str,
        server: ServerKey,
        request: &Rc<Request>,
        out: &mut Outbox,
    ) {
        if self.sessions.crosses_bye(tag, request) {
            return self.answer_plain(now, server, 200, out);
        }
        if let Some(subscription) = self.subscriptions.by_tag.get(tag) {
            return self.notified(now, *subscription, server, request, out);
        }
        let (own, routes) = arrival::popped(&self.addresses, request);
        // A tag of ours names a dialog that is gone; without a Route of ours we are not in the path of this one.
        if own.is_none() || ids::shard_of_tag(tag).is_some() {
            return self.refuse_status(now, server, 481, out);
        }
        self.proxy_within(now, &flow, server, request, &routes, out);
    }

    /// A request outside of any dialog: which procedure answers it, and what that one needs to know.
    pub(super) fn initial(
        &mut self,
        now: Instant,
        flow: Flow,
        trusted: bool,
        merged: bool,
        server: ServerKey,
        request: Rc<Request>,
        out: &mut Outbox,
    ) {
        clause!("OLM-0.a");
        let (own, routes) = arrival::popped(&self.addresses, &request);
        let role = arrival::session_case(&self.config, trusted, &request, own);
        let named = own.is_some();
        let arrived = Arrived { at: now, server, flow, request, trusted, role, routes };
        if let Some(user) = self.own_user(&arrived.request) {
            return self.for_us(now, &user, arrived, out);
        }
        // CR 8.1.1: a third-party REGISTER is addressed to us, or routed to us alone.
        if arrived.request.method() == Method::Register && named && arrived.routes.is_empty() {
            return self.registered(now, arrived, out);
        }
        let procedure = Procedure::of(role, &arrived.request);
        if merged && procedure != Procedure::Proxy {
            // RFC 3261 §8.2.2.2
            return self.refuse(now, server, &Refusal::new(482, "RFC 3261 §8.2.2.2"), out);
        }
        if arrived.request.method() == Method::Invite
            && let Some(cause) = self.overloaded(now)
        {
            self.counts.invite(role, service_of(procedure), Outcome::Shed);
            self.record_refusal(now, &arrived, procedure, 503, cause, out);
            return self.shed(now, server, cause, out);
        }
        self.gather(now, arrived, procedure, out);
    }

    /// The user part, where the Request-URI is one of ours: empty, a session case, or a Contact we made.
    fn own_user(&self, request: &Request) -> Option<String> {
        let uri = Uri::parse(request.uri()).ok().filter(|uri| self.addresses.is_own(uri))?;
        let known = uri.user.is_empty() || uri.user.eq_ignore_ascii_case("orig") || uri.user.eq_ignore_ascii_case("term");
        (known || ids::shard_of_user(uri.user).is_some()).then(|| uri.user.to_string())
    }

    fn for_us(&mut self, now: Instant, user: &str, arrived: Arrived, out: &mut Outbox) {
        let server = arrived.server;
        if ids::shard_of_user(user).is_some() {
            clause!("OSI-r5.b", "TSI-8.a.ii.2");
            let original =
                self.tokens.get(user).and_then(|key| self.token_slab.get(*key)).map(|token| token.original.to_string());
            let Some(original) = original else { return self.refuse_status(now, server, 404, out) };
            let next_hop = NextHop::Core { fallback: None };
            let proxy = Proxy { record_route: true, next_hop, request_uris: vec![original], remove: Vec::new(), add: Vec::new() };
            return self.proxy_to_contact(now, arrived, &proxy, out);
        }
        match arrived.request.method() {
            Method::Options => self.answer_plain(now, server, 200, out),
            Method::Register => self.registered(now, arrived, out),
            Method::Invite | Method::Message | Method::Ack | Method::Cancel => self.refuse_status(now, server, 404, out),
            _ => {
                // RFC 3261 §8.2.1: a method that is not for us, and those that are.
                let refusal = Refusal::new(405, "RFC 3261 §8.2.1").header("Allow", writing::ALLOW.to_owned());
                self.refuse(now, server, &refusal, out);
            }
        }
    }

    /// Keeps a Contact user of ours able to resolve back to the URI it stands for, until [`Signalling::drop_token`].
    pub(super) fn keep_token(&mut self, user: String, original: &str) -> Option<Key> {
        let user: Box<str> = user.into();
        let key = self.token_slab.insert(Token { user: user.clone(), original: original.into() }).ok()?;
        self.tokens.insert(user, key);
        Some(key)
    }

    /// The dialog of a Contact user is over.
    pub(super) fn drop_token(&mut self, now: Instant, key: Key) {
        self.timers.arm((now + TOKEN_LINGER).rounded_up(FORGET_GRAIN), Due::Token(key));
    }

    pub(super) fn forget_token(&mut self, key: Key) {
        if let Some(token) = self.token_slab.remove(key) {
            self.tokens.remove(&token.user);
        }
    }
}
