//! CR 8.3.1.1  Terminating side: Pager Mode CPM Standalone Message.
//!
//! The Change Request names this section for its step 8 (`cpm/clients.rs`) and does not print it. It is carried out as
//! 8.3.1.2 reads for a MESSAGE: the same gates, the same rules, one MESSAGE for each suitable client, the first 2xx is the
//! answer. Nothing has a session here: no SDP, no Contact, no Session-Expires (RFC 3428 §4, §7).

use crate::config::Config;
use crate::cpm::clients;
use crate::cpm::decision::{Answer, Decision, Messages, NextHop, OutMessage, Purpose, TargetKind};
use crate::cpm::delivery::{self, Policy};
use crate::cpm::facts::{Facts, Needs, Role};
use crate::cpm::headers::field;
use crate::cpm::refusal::Refusal;
use crate::cpm::{conversation, failure, gates, headers, identity, preferences, release, service};
use crate::sip::header::name::Name;
use crate::sip::message::Request;

/// Name of the section in logs, metrics and call records.
const SECTION: &str = "8.3.1.1";

/// What must be known before the procedure can run.
pub fn needs(config: &Config, trusted: bool, request: &Request) -> Needs {
    let user = identity::served_user(Role::Terminating, trusted, request);
    let blacklist = config.policy.blacklist.then(|| (user.clone(), config.xdm.blacklist_standalone.clone()));
    Needs { preferences: Some(user.clone()), blacklist, clients_of: Some(user), replaces: None }
}

/// The whole section.
///
/// # Errors
/// The response of the first step that refuses.
pub fn on_message(facts: &Facts<'_>, request: &Request) -> Result<Decision, Refusal> {
    gates::version(facts, request, SECTION)?;
    gates::anonymity(facts, request, SECTION)?;
    gates::not_listed(facts, request, SECTION)?;

    let mut targets = Vec::new();
    let actions = preferences::of_standalone(facts, request);
    if actions.reject_invite {
        return Err(Refusal::new(403, SECTION).warn("122 Function not allowed"));
    }
    if actions.do_not_disturb {
        return Ok(keep(facts, request, Purpose::Defer));
    }
    if (actions.interwork || actions.deliver_and_interwork) && facts.config.sip.isf.is_some() {
        targets.push(to_isf(facts, request));
        if !actions.deliver_and_interwork {
            return Ok(messages(targets));
        }
    } else if actions.store {
        return Ok(keep(facts, request, Purpose::Store));
    } else if let Some(address) = actions.forward {
        let next_hop = NextHop::Core { fallback: None };
        return Ok(messages(vec![message(facts, request, TargetKind::Forward, address, next_hop)]));
    } else if actions.defer {
        return Ok(keep(facts, request, Purpose::Defer));
    }

    let selection = clients::suitable(facts, request, service::PAGER);
    let interworked = !targets.is_empty();
    targets.extend(selection.clients.iter().map(|index| to_client(facts, request, *index)));
    if targets.is_empty() {
        return by_policy(facts, request, Refusal::new(480, SECTION));
    }
    let isf_too = facts.config.policy.isf_without_primary_device && facts.config.sip.isf.is_some();
    if isf_too && !interworked && !selection.primary {
        targets.push(to_isf(facts, request));
    }
    Ok(messages(targets))
}

/// Every target failed: 8.3.1.3.
///
/// # Errors
/// What the origin is told.
pub fn on_exhausted(
    facts: &Facts<'_>,
    request: &Request,
    policies_done: bool,
    failures: &[(usize, u16)],
) -> Result<Decision, Refusal> {
    if policies_done || delivery::refused(failures).is_some() {
        return Err(Refusal::new(failure::best(failures), SECTION));
    }
    by_policy(facts, request, Refusal::new(480, SECTION))
}

fn by_policy(facts: &Facts<'_>, request: &Request, otherwise: Refusal) -> Result<Decision, Refusal> {
    match delivery::of_standalone(facts) {
        Policy::Defer => Ok(keep(facts, request, Purpose::Defer)),
        Policy::Interwork => Ok(messages(vec![to_isf(facts, request)])),
        Policy::Reject => Err(otherwise),
    }
}

fn messages(targets: Vec<OutMessage>) -> Decision {
    Decision::Message(Box::new(Messages { targets }))
}

/// RFC 3428 §7: 202, as the message has not reached its recipient.
fn keep(facts: &Facts<'_>, request: &Request, purpose: Purpose) -> Decision {
    let mut headers = conversation::copied(request);
    headers.push(field("Server", release::product(facts.config)));
    let answer = Answer { status: 202, contact: None, session_expires: None, require_timer: false, headers, media: None };
    Decision::KeepMessage { purpose, answer: Box::new(answer) }
}

fn to_client(facts: &Facts<'_>, request: &Request, index: usize) -> OutMessage {
    let client = &facts.clients[index];
    let address = clients::address(client);
    let kind = TargetKind::Client { instance: client.instance.clone(), contact: client.contact.clone() };
    let mut message = message(facts, request, kind, address.request_uri, address.next_hop);
    message.headers.extend(address.instance.map(|value| field("Accept-Contact", value)));
    message
}

fn to_isf(facts: &Facts<'_>, request: &Request) -> OutMessage {
    message(facts, request, TargetKind::Isf, request.uri().to_string(), NextHop::Isf)
}

fn message(facts: &Facts<'_>, request: &Request, kind: TargetKind, request_uri: String, next_hop: NextHop) -> OutMessage {
    let mut headers = headers::copied_to_client(facts, request);
    headers.extend(service::accept_contact(request).into_iter().map(|value| field("Accept-Contact", value)));
    headers.push(field("P-Asserted-Service", service::asserted_or(request, service::PAGER)));
    headers.push(field("User-Agent", release::product(facts.config)));
    OutMessage {
        kind,
        request_uri,
        next_hop,
        from: identity::without_tag(request, Name::From),
        to: identity::without_tag(request, Name::To),
        headers,
        content_type: request.header(Name::ContentType).unwrap_or("message/cpim").to_string(),
        body: request.body().to_vec(),
    }
}
