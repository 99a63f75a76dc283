//! CR 8.2.1.1  Originating side: Pager Mode CPM Standalone Message.
//!
//! The Change Request does not print this section. It is carried out as 8.2.1.2 reads for a MESSAGE: the same gates, the
//! same service rule, one MESSAGE to the core or the ISF. There is no session: no SDP, no Contact, no Session-Expires
//! (RFC 3428 §4).

use crate::config::{Config, OtherService};
use crate::cpm::decision::{Decision, Messages, OutMessage, TargetKind};
use crate::cpm::facts::{Facts, Needs, Role};
use crate::cpm::headers::field;
use crate::cpm::refusal::Refusal;
use crate::cpm::service::{self, Named, PAGER};
use crate::cpm::{failure, gates, headers, identity, interworking, release};
use crate::sip::header::name::Name;
use crate::sip::message::Request;

/// Name of the section in logs, metrics and call records.
const SECTION: &str = "8.2.1.1";
/// The ICSI of a message within a group.
const PAGER_GROUP: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg.group";

/// What must be known before the procedure can run.
pub fn needs(config: &Config, trusted: bool, request: &Request) -> Needs {
    let user = || identity::served_user(Role::Originating, trusted, request);
    Needs { preferences: config.policy.record_history.then(user), ..Needs::default() }
}

/// The whole section.
///
/// # Errors
/// The response of the first step that refuses.
pub fn on_message(facts: &Facts<'_>, request: &Request) -> Result<Decision, Refusal> {
    gates::originator_allowed(facts, request, SECTION)?;
    gates::version(facts, request, SECTION)?;
    gates::anonymity(facts, request, SECTION)?;
    gates::not_expired(facts, request, SECTION)?;

    let mut headers = headers::copied(facts, request);
    headers.extend(service::accept_contact(request).into_iter().map(|value| field("Accept-Contact", value)));
    headers.push(field("P-Asserted-Service", asserted_service(facts, request)?));
    headers.push(field("User-Agent", release::product(facts.config)));

    let (kind, next_hop) = match interworking::is_for_core(request.uri()) {
        true => (TargetKind::Recipient, interworking::core()),
        false => (TargetKind::Isf, interworking::isf(facts.config, SECTION)?),
    };
    let target = OutMessage {
        kind,
        request_uri: request.uri().to_string(),
        next_hop,
        from: identity::without_tag(request, Name::From),
        to: identity::without_tag(request, Name::To),
        headers,
        content_type: request.header(Name::ContentType).unwrap_or("message/cpim").to_string(),
        body: request.body().to_vec(),
    };
    Ok(Decision::Message(Box::new(Messages { targets: vec![target] })))
}

fn asserted_service(facts: &Facts<'_>, request: &Request) -> Result<String, Refusal> {
    let other =
        matches!(service::named_among(request, &[PAGER, PAGER_GROUP]), Named::OtherAsserted(_) | Named::OtherPreferred(_));
    if other && facts.config.policy.other_service == OtherService::Reject {
        return Err(Refusal::new(403, SECTION));
    }
    Ok(service::asserted_or(request, PAGER))
}

/// Nobody answered 2xx.
pub fn on_exhausted(failures: &[(usize, u16)]) -> Refusal {
    Refusal::new(failure::best(failures), SECTION)
}
