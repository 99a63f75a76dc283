//! The Change Request's table of contents as a match: which procedure answers a request, and its four entry points.
//!
//! The shard calls them in this order: [`Procedure::of`], [`Procedure::needs`] (then it fetches), [`Procedure::decide`],
//! for every 2xx of a target [`Procedure::on_success`], when every target failed [`Procedure::on_exhausted`], and after
//! the origin was answered [`Procedure::after_answer`].

use super::decision::{Answer, Bridge, Decision, FollowUp, Proxy};
use super::facts::{Facts, Needs, Role};
use super::refusal::Refusal;
use super::{gates, identity, interworking, originating, service, terminating};
use crate::clause;
use crate::config::Config;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;

/// A procedure of the Change Request, or the plain proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Procedure {
    OriginatingLargeMessage,
    OriginatingSession,
    TerminatingLargeMessage,
    TerminatingSession,
    OriginatingPager,
    TerminatingPager,
    /// Not CPM's: proxied untouched.
    Proxy,
}

impl Procedure {
    /// Which procedure answers an initial request (OLM-0, OSI-0, TLM-0, TSI-0). The CR names the bare tags; `.group` and
    /// other subclasses trigger with them. Where both a large message and a session are asked for, the former is meant, as its
    /// trigger is the explicit one. A file transfer is set up as a session is.
    pub fn of(role: Role, request: &Request) -> Procedure {
        let asks = |icsi| service::asks_for(request, icsi);
        let session = || asks(service::SESSION) || asks(service::FILE_TRANSFER);
        match (request.method(), role) {
            (Method::Invite, Role::Originating) if asks(service::LARGE_MESSAGE) => {
                clause!("OLM-0");
                Procedure::OriginatingLargeMessage
            }
            (Method::Invite, Role::Terminating) if asks(service::LARGE_MESSAGE) => {
                clause!("TLM-0");
                Procedure::TerminatingLargeMessage
            }
            (Method::Invite, Role::Originating) if session() => {
                clause!("OSI-0");
                Procedure::OriginatingSession
            }
            (Method::Invite, Role::Terminating) if session() => {
                clause!("TSI-0");
                Procedure::TerminatingSession
            }
            (Method::Message, Role::Originating) if asks(service::PAGER) => Procedure::OriginatingPager,
            (Method::Message, Role::Terminating) if asks(service::PAGER) => Procedure::TerminatingPager,
            _ => Procedure::Proxy,
        }
    }

    /// What must be fetched before [`Procedure::decide`].
    pub fn needs(self, config: &Config, trusted: bool, request: &Request) -> Needs {
        match self {
            Procedure::OriginatingLargeMessage => originating::large_message::needs(config, trusted, request),
            Procedure::OriginatingSession => originating::session::needs(config, trusted, request),
            Procedure::OriginatingPager => originating::pager::needs(config, trusted, request),
            Procedure::TerminatingLargeMessage => terminating::large_message::needs(config, trusted, request),
            Procedure::TerminatingSession => terminating::session::needs(config, trusted, request),
            Procedure::TerminatingPager => terminating::pager::needs(config, trusted, request),
            Procedure::Proxy => proxy_needs(config, request),
        }
    }

    /// Runs the procedure.
    ///
    /// # Errors
    /// The final response that the first failing step prescribes.
    pub fn decide(self, facts: &Facts<'_>, request: &Request) -> Result<Decision, Refusal> {
        let decision = match self {
            Procedure::OriginatingLargeMessage => originating::large_message::on_invite(facts, request),
            Procedure::OriginatingSession => originating::session::on_invite(facts, request),
            Procedure::OriginatingPager => originating::pager::on_message(facts, request),
            Procedure::TerminatingLargeMessage => terminating::large_message::on_invite(facts, request),
            Procedure::TerminatingSession => terminating::session::on_invite(facts, request),
            Procedure::TerminatingPager => terminating::pager::on_message(facts, request),
            Procedure::Proxy => Ok(Decision::Proxy(proxied(facts, request))),
        }?;
        // Whoever answers as user agent has to understand what is required of one; a proxy has not.
        if !matches!(decision, Decision::Proxy(_)) {
            gates::understood(request)?;
        }
        Ok(decision)
    }

    /// A target answered 2xx: the origin's answer (for the first), or what we keep of it.
    ///
    /// # Errors
    /// The 2xx cannot be used (no SDP, media refused …): the target is ended, and this is what it counts as.
    pub fn on_success(
        self,
        facts: &Facts<'_>,
        request: &Request,
        bridge: &Bridge,
        target: usize,
        ok: &Response,
    ) -> Result<Answer, Refusal> {
        match self {
            Procedure::OriginatingLargeMessage => originating::large_message::on_success(facts, request, ok),
            Procedure::OriginatingSession => originating::session::on_success(facts, request, ok),
            Procedure::TerminatingLargeMessage => terminating::large_message::on_success(facts, request, bridge, target, ok),
            Procedure::TerminatingSession => terminating::session::on_success(facts, request, ok),
            Procedure::OriginatingPager | Procedure::TerminatingPager | Procedure::Proxy => Err(no_bridge()),
        }
    }

    /// Every target failed; `failures` has the target's index and its final status (408 for silence, 503 for a dead hop).
    ///
    /// # Errors
    /// The final response for the origin. Where the origin was answered early, its BYE carries the status as Reason.
    pub fn on_exhausted(
        self,
        facts: &Facts<'_>,
        request: &Request,
        bridge: &Bridge,
        failures: &[(usize, u16)],
    ) -> Result<Decision, Refusal> {
        match self {
            Procedure::OriginatingLargeMessage => Err(originating::large_message::on_exhausted(failures)),
            Procedure::OriginatingSession => Err(originating::session::on_exhausted(failures)),
            Procedure::OriginatingPager => Err(originating::pager::on_exhausted(failures)),
            Procedure::TerminatingLargeMessage => terminating::large_message::on_exhausted(facts, request, bridge, failures),
            Procedure::TerminatingSession => terminating::session::on_exhausted(facts, request, bridge, failures),
            Procedure::TerminatingPager => terminating::pager::on_exhausted(facts, request, bridge.policies_done, failures),
            Procedure::Proxy => Err(no_bridge()),
        }
    }

    /// The origin was answered 2xx; `first` is the target whose 2xx it was, with that response.
    pub fn after_answer(
        self,
        facts: &Facts<'_>,
        request: &Request,
        bridge: &Bridge,
        first: Option<(usize, &Response)>,
    ) -> Vec<FollowUp> {
        match self {
            Procedure::OriginatingLargeMessage => originating::large_message::after_answer(facts, request),
            Procedure::OriginatingSession => originating::session::after_answer(facts, request, bridge, first),
            Procedure::TerminatingLargeMessage => terminating::large_message::after_answer(facts, request),
            Procedure::TerminatingSession => terminating::session::after_answer(facts, request),
            Procedure::OriginatingPager | Procedure::TerminatingPager | Procedure::Proxy => Vec::new(),
        }
    }
}

/// The answer where the shard asks a procedure that has no targets of its own about one.
fn no_bridge() -> Refusal {
    Refusal::new(500, "no bridge")
}

/// Without a core, a request for one of our users goes straight to the registered contacts.
fn proxy_needs(config: &Config, request: &Request) -> Needs {
    let user = || identity::normalise(request.uri());
    Needs { clients_of: config.sip.core.is_none().then(user), ..Needs::default() }
}

/// A request that is not CPM's: forwarded as it is (RFC 3261 §16.6), by the rest of its route set or to the core.
fn proxied(facts: &Facts<'_>, request: &Request) -> Proxy {
    let straight = facts.role == Role::Terminating && facts.config.sip.core.is_none();
    let contacts = facts.clients.iter().filter(|_| straight).map(|client| client.contact.clone());
    // Only a request that makes a dialog can be followed by others that have to come this way.
    let makes_dialog = matches!(request.method(), Method::Invite | Method::Subscribe | Method::Refer | Method::Notify);
    Proxy {
        record_route: makes_dialog && request.to_tag().is_none(),
        next_hop: interworking::core(),
        request_uris: contacts.collect(),
        remove: Vec::new(),
        add: Vec::new(),
    }
}
