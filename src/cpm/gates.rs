//! CR 8.2.1.2, 8.2.2.1, 8.3.1.2, 8.3.2.1: the steps that the four procedures begin with.
//!
//! Each procedure cites its own steps in its own order and passes the id under which a refusal is counted. A gate answers
//! "may it go on", nothing else; the first that says no is the response.

use super::facts::Facts;
use super::identity;
use super::refusal::Refusal;
use super::session_expires;
use super::{conversation, release};
use crate::config::{Anonymity, ExpiredMessage};
use crate::sip::header::name::Name;
use crate::sip::message::Request;
use crate::sip::session_timer::Offer;

/// Evidence that the operator's policy let the originator through. Only [`originator_allowed`] makes one, and no INVITE
/// towards a recipient is built without it.
#[derive(Debug)]
pub struct Permit(());

/// Whether the authenticated originator may send: one of the asserted CPM Addresses fits `policy.authorised_originators`.
///
/// # Errors
/// 403 with "127 Service not authorised"; also where nobody that is trusted asserts an originator (RFC 3325 §5).
pub fn originator_allowed(facts: &Facts<'_>, request: &Request, clause: &'static str) -> Result<Permit, Refusal> {
    let patterns = &facts.config.policy.authorised_originators;
    let fits = |address: &str| patterns.iter().any(|pattern| release::fits(pattern, address));
    let allowed = identity::asserted(facts.trusted, request).any(|address| {
        // A telephone number asserted as SIP URI is one user under two spellings; a pattern may mean either.
        fits(&identity::normalise(address.uri)) || identity::sip_spelling(address.uri).is_some_and(|sip| fits(&sip))
    });
    if allowed { Ok(Permit(())) } else { Err(Refusal::new(403, clause).warn("127 Service not authorised")) }
}

/// Whether the User-Agent shows a release that `policy.user_agents` asks for; nothing is asked where that is empty.
///
/// # Errors
/// 403 with "132 Version not supported"; also where the header is missing.
pub fn version(facts: &Facts<'_>, request: &Request, clause: &'static str) -> Result<(), Refusal> {
    let patterns = &facts.config.policy.user_agents;
    let shown = || request.lines(Name::UserAgent).any(|value| release::supported(patterns, value));
    if patterns.is_empty() || shown() { Ok(()) } else { Err(Refusal::new(403, clause).warn("132 Version not supported")) }
}

/// Whether the request may hide its originator (`policy.anonymity`), if it asks for that.
///
/// # Errors
/// 403 with "119 Anonymity not allowed".
pub fn anonymity(facts: &Facts<'_>, request: &Request, clause: &'static str) -> Result<(), Refusal> {
    let rejected = facts.config.policy.anonymity == Anonymity::Reject && identity::is_anonymous(request);
    if rejected { Err(Refusal::new(403, clause).warn("119 Anonymity not allowed")) } else { Ok(()) }
}

/// Whether the time of the message is not over (RFC 3428 §7 leaves to local policy what is done with one that is late:
/// `policy.expired_message`).
///
/// # Errors
/// 480 where its time is over and the policy is not to deliver it all the same.
pub fn not_expired(facts: &Facts<'_>, request: &Request, clause: &'static str) -> Result<(), Refusal> {
    let over = conversation::deadline(request, facts.now).is_some_and(|deadline| deadline <= facts.now);
    let rejected = over && facts.config.policy.expired_message == ExpiredMessage::Reject;
    if rejected { Err(Refusal::new(480, clause)) } else { Ok(()) }
}

/// RFC 4028 §9: whether the session interval that is asked for is long enough for us.
///
/// # Errors
/// 422 with Min-SE where it is too short and the caller supports timers; 400 where it cannot be read.
pub fn session_expires(facts: &Facts<'_>, request: &Request, clause: &'static str) -> Result<(), Refusal> {
    let Ok(offer) = Offer::of(request, session_expires::floor_s(facts.config)) else { return Err(Refusal::new(400, clause)) };
    let min_s = session_expires::min_s(facts.config);
    // RFC 4028 §8.1, §9: who does not support timers cannot make use of a 422; a proxy added that interval.
    if offer.too_small(min_s) {
        return Err(Refusal::new(422, clause).header("Min-SE", min_s.to_string()));
    }
    Ok(())
}

/// Whether the originator is not on the served user's blacklist (OMA-XDM-List); by any of the asserted addresses.
///
/// # Errors
/// 403 with "122 Function not allowed".
pub fn not_listed(facts: &Facts<'_>, request: &Request, clause: &'static str) -> Result<(), Refusal> {
    let Some(list) = &facts.blacklist else { return Ok(()) };
    let originators = identity::originators(facts.trusted, request);
    if list.contains_any(&originators) { Err(Refusal::new(403, clause).warn("122 Function not allowed")) } else { Ok(()) }
}

/// Option tags that the far end may require of us; any other is refused (RFC 3261 §8.2.2.3).
const UNDERSTOOD: [&str; 4] = ["timer", "recipient-list-invite", "pref", "100rel"];

/// Whether we understand what the request requires of a user agent.
///
/// # Errors
/// 420 with Unsupported.
pub fn understood(request: &Request) -> Result<(), Refusal> {
    known(request, Name::Require, &UNDERSTOOD, "RFC 3261 8.2.2.3")?;
    // What it requires of proxies does not pass us: nobody else would refuse it.
    passable(request)
}

/// Option tags that may be required of a proxy: `privacy` (RFC 3323 §5) asks for a service that whoever serves the anonymous
/// user gives, on either side of us.
const PASSABLE: [&str; 1] = ["privacy"];

/// Whether we understand what the request requires of a proxy.
///
/// # Errors
/// 420 with Unsupported.
pub fn passable(request: &Request) -> Result<(), Refusal> {
    known(request, Name::ProxyRequire, &PASSABLE, "RFC 3261 16.3")
}

fn known(request: &Request, name: Name, tags: &[&str], clause: &'static str) -> Result<(), Refusal> {
    let unknown = crate::sip::header::option_tag::unknown(request, name, tags);
    if unknown.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(420, clause).header("Unsupported", unknown.join(", ")))
}
