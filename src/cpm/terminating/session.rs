//! CR 8.3.2.1 (TSI)  Terminating side: CPM Session Invitation, 1-1 and group.
//!
//! ```text
//! 1-3 gates -> 4 do-not-disturb 480 -> 5 media 488 -> 6 registered? -> 7 service -> 8.b replaced? suitable for the media?
//!           -> 8.a the origin's 200 -> 8.c-e an INVITE for each client
//! ```
//!
//! The CR writes 8.a, the 200, before the checks of 8.b, one of which ends in 480: after a 200 no 480 is possible. The
//! checks run first, then the 200 goes out, still before any client has answered (`policy.session_answer = "early"`);
//! "late" waits for the first client.

use crate::clause;
use crate::config::{Config, OtherService, SessionAnswer, SessionClients};
use crate::cpm::clients::{self, Selection};
use crate::cpm::decision::{
    AckTime, Answer, AnswerTime, Bridge, Contact, Decision, FollowUp, Invite, LaterSuccess, NextHop, Proxy, Service,
    SessionExpires, TargetKind,
};
use crate::cpm::delivery::{self, Policy};
use crate::cpm::facts::{Facts, Needs, Role};
use crate::cpm::headers::field;
use crate::cpm::media_plan::{self, Line, MediaPlan, SessionMedia};
use crate::cpm::refusal::Refusal;
use crate::cpm::service::Named;
use crate::cpm::{
    contact, conversation, failure, gates, headers, identity, preferences, recipients, release, service, session_expires,
};
use crate::sip::header::name::Name;
use crate::sip::message::{Request, Response};

/// What must be known before the procedure can run.
pub fn needs(config: &Config, trusted: bool, request: &Request) -> Needs {
    let user = identity::served_user(Role::Terminating, trusted, request);
    let blacklist = config.policy.blacklist.then(|| (user.clone(), config.xdm.blacklist_chat.clone()));
    let replaces = request.header(Name::SessionReplaces).map(str::to_string);
    Needs { preferences: Some(user.clone()), blacklist, clients_of: Some(user), replaces }
}

/// Steps 1 to 8.
///
/// # Errors
/// The response of the first step that refuses.
pub fn on_invite(facts: &Facts<'_>, request: &Request) -> Result<Decision, Refusal> {
    clause!("TSI-1.a");
    gates::version(facts, request, "TSI-1.b").inspect_err(|_| {
        clause!("TSI-1.b");
    })?;
    clause!("TSI-1.c");

    gates::anonymity(facts, request, "TSI-2.a").inspect_err(|_| {
        clause!("TSI-2.a");
    })?;
    clause!("TSI-2.b");

    clause!("TSI-3.a");
    gates::not_listed(facts, request, "TSI-3.b").inspect_err(|_| {
        clause!("TSI-3.b");
    })?;
    clause!("TSI-3.c");

    clause!("TSI-4.a");
    if preferences::do_not_disturb(facts, request) {
        clause!("TSI-4.b");
        return Err(Refusal::new(480, "TSI-4.b"));
    }

    clause!("TSI-5.a");
    let offered = media_plan::session_media(facts.config, request, "TSI-5.b").inspect_err(|_| {
        clause!("TSI-5.b");
    })?;
    clause!("TSI-5.c");

    clause!("TSI-6.a");
    let registered = clients::suitable(facts, request, service::of_session(request));
    if registered.is_empty() {
        clause!("TSI-6.b");
        return by_policy(facts, request, Refusal::new(480, "TSI-6.b"));
    }
    clause!("TSI-6.c");

    let asserted = asserted_service(facts, request)?;

    clause!("TSI-8");
    if !facts.config.policy.stay_in_media_path {
        return Ok(proxied(facts, &registered, asserted));
    }
    in_media_path(facts, request, &registered, &asserted, &offered)
}

/// Step 7.
fn asserted_service(facts: &Facts<'_>, request: &Request) -> Result<String, Refusal> {
    match service::named_for_session(request) {
        Named::Asserted(asserted) => {
            clause!("TSI-7.iii.1");
            Ok(asserted.to_string())
        }
        Named::OtherAsserted(asserted) => other_service(facts, asserted.to_string()),
        Named::Preferred(preferred) => {
            if preferred.to_ascii_lowercase().ends_with(".group") {
                clause!("TSI-7.ii");
            } else {
                clause!("TSI-7.i");
            }
            Ok(preferred.to_string())
        }
        Named::OtherPreferred(_) => other_service(facts, service::asserted_or(request, service::of_session(request))),
        // No service is named: the tag of Accept-Contact tells it, as in OSI-4.c.iv.1.
        Named::Nothing => Ok(service::asserted_or(request, service::of_session(request))),
    }
}

fn other_service(facts: &Facts<'_>, passed: String) -> Result<String, Refusal> {
    clause!("TSI-7.iii.2");
    match facts.config.policy.other_service {
        OtherService::Reject => {
            clause!("TSI-7.iii.3");
            Err(Refusal::new(403, "TSI-7.iii.2").warn("122 Function not allowed"))
        }
        // "Shall not continue" binds only where the request was rejected.
        OtherService::Pass => Ok(passed),
    }
}

/// Step 8.
fn in_media_path(
    facts: &Facts<'_>,
    request: &Request,
    registered: &Selection,
    asserted: &str,
    offered: &SessionMedia,
) -> Result<Decision, Refusal> {
    clause!("TSI-8.b");
    if request.has(Name::SessionReplaces) {
        return replacing(facts, request, asserted);
    }

    clause!("TSI-8.b.ii.1");
    let suited: Vec<usize> = registered.clients.iter().copied().filter(|index| takes(facts, *index, offered)).collect();
    if suited.is_empty() {
        clause!("TSI-8.b.ii.2");
        return by_policy(facts, request, Refusal::new(480, "TSI-8.b.ii.3")).inspect_err(|_| {
            clause!("TSI-8.b.ii.3");
        });
    }
    clause!("TSI-8.b.ii.4");

    // RFC 4028 §9: 8.d.vi sets the interval of our own legs; one that is too short on the origin's is refused before its 200.
    gates::session_expires(facts, request, "TSI-8.d.vi.2")?;
    let answer = match facts.config.policy.session_answer {
        SessionAnswer::Early => AnswerTime::Early(Box::new(early_answer(facts, request)?)),
        SessionAnswer::Late => AnswerTime::OnFirst,
    };
    clause!("TSI-8.c");
    let mut targets =
        suited.iter().map(|index| to_client(facts, request, *index, asserted)).collect::<Result<Vec<Invite>, _>>()?;
    if matches!(answer, AnswerTime::Early(_)) {
        // What our own answer has refused cannot be offered on.
        targets.iter_mut().flat_map(|target| &mut target.media.lines).filter(|line| **line == Line::Untouched).for_each(|line| {
            *line = Line::Rejected;
        });
    }
    clause!("TSI-8.e");
    Ok(bridge(facts, request, targets, answer, false))
}

/// 8.b.i: the clients that are connected in the session being replaced, nobody else, and their 200 is the answer.
fn replacing(facts: &Facts<'_>, request: &Request, asserted: &str) -> Result<Decision, Refusal> {
    clause!("TSI-8.b.i.1", "TSI-8.b.i.2");
    let targets: Vec<Invite> =
        facts.replaced.iter().map(|index| to_client(facts, request, *index, asserted)).collect::<Result<_, _>>()?;
    if targets.is_empty() {
        return by_policy(facts, request, Refusal::new(480, "TSI-8.b.i.1"));
    }
    Ok(bridge(facts, request, targets, AnswerTime::OnFirst, false))
}

/// Whether a client takes every stream offered: MSRP by its ICSI, others by their media feature tag (RFC 3840 §5).
fn takes(facts: &Facts<'_>, index: usize, offered: &SessionMedia) -> bool {
    let client = &facts.clients[index];
    offered.others().all(|medium| client.features.iter().any(|(tag, _)| tag.eq_ignore_ascii_case(medium)))
}

/// 8.a, made from the offer alone.
fn early_answer(facts: &Facts<'_>, request: &Request) -> Result<Answer, Refusal> {
    clause!("TSI-8.a");
    clause!("TSI-8.a.i.1", "TSI-8.a.i.2", "TSI-8.a.i.3");
    // A focus's Contact is not copied here: the 200 is ours, and what came is an INVITE.
    clause!("TSI-8.a.ii.2");
    let contact = contact::resolving(request);
    clause!("TSI-8.a.x");
    let media = media_plan::session_own_answer(facts.config, request)?;
    clause!("TSI-8.a.ii.3.a");
    Ok(made(facts, request, contact, media))
}

/// What every 200 of this section has.
fn made(facts: &Facts<'_>, request: &Request, contact: Contact, media: MediaPlan) -> Answer {
    let mut headers = conversation::copied(request);
    headers.push(field("Supported", "timer"));
    // "If included in the INVITE" cannot be meant of Server, which no request carries: always.
    clause!("TSI-8.a.ii.1");
    headers.push(field("Server", release::product(facts.config)));
    let (session_expires, require_timer) = session_expires::answered(facts.config, request);
    Answer {
        status: 200,
        contact: Some(contact),
        session_expires: Some(session_expires),
        require_timer,
        headers,
        media: Some(media),
    }
}

/// 8.d, for one client.
fn to_client(facts: &Facts<'_>, request: &Request, index: usize, asserted: &str) -> Result<Invite, Refusal> {
    let client = &facts.clients[index];
    clause!("TSI-8.d");
    let kind = TargetKind::Client { instance: client.instance.clone(), contact: client.contact.clone() };
    let mut invite = invitation(facts, request, kind, asserted)?;

    let address = clients::address(client);
    match address.instance {
        None => {
            clause!("TSI-8.d.i.1");
        }
        Some(instance) => {
            clause!("TSI-8.d.i.2", "TSI-8.d.ii");
            invite.headers.push(field("Accept-Contact", instance));
        }
    }
    invite.request_uri = address.request_uri;
    invite.next_hop = address.next_hop;
    Ok(invite)
}

/// What 8.d says of an INVITE, but for where it goes.
fn invitation(facts: &Facts<'_>, request: &Request, kind: TargetKind, asserted: &str) -> Result<Invite, Refusal> {
    // Conversation-ID, Contribution-ID, InReplyTo-Contribution-ID and all that does not belong to the hop.
    clause!("TSI-8.d.iv.1", "TSI-8.d.iv.2", "TSI-8.d.iv.3", "TSI-8.d.vi.0");
    let mut headers = headers::copied_to_client(facts, request);

    clause!("TSI-8.d.iii");
    headers.extend(service::accept_contact(request).into_iter().map(|value| field("Accept-Contact", value)));
    headers.push(field("P-Asserted-Service", asserted.to_string()));

    let contact = contact::of(request);
    match contact {
        Contact::Copied(_) => {
            clause!("TSI-8.d.v.1");
        }
        Contact::Own { .. } => {
            clause!("TSI-8.d.v.2");
        }
    }

    // Both tags whatever was received, as it is written.
    clause!("TSI-8.d.vi.1");
    headers.push(field("Supported", "timer, recipient-list-invite"));

    clause!("TSI-8.d.vi.2", "TSI-8.d.vi.3", "TSI-8.d.vi.4");
    let session_expires = SessionExpires::uas(session_expires::terminating_session(facts.config));

    clause!("TSI-8.d.vi.5");
    headers.push(field("User-Agent", release::product(facts.config)));

    let parts: Vec<_> = recipients::shown_of(request).into_iter().collect();
    if !parts.is_empty() {
        clause!("TSI-8.d.vii.1", "TSI-8.d.vii.2", "TSI-8.d.vii.3");
    }

    clause!("TSI-8.d.viii.1", "TSI-8.d.viii.2", "TSI-8.d.viii.3");
    let media = media_plan::session_offer(facts.config, request).map_err(|why| why.refusal("TSI-8.d.viii.1"))?;

    Ok(Invite {
        kind,
        request_uri: request.uri().to_string(),
        next_hop: NextHop::Core { fallback: None },
        from: identity::without_tag(request, Name::From),
        to: identity::without_tag(request, Name::To),
        contact,
        session_expires: Some(session_expires),
        headers,
        media,
        parts,
    })
}

/// 8.3.6, once for a request.
fn by_policy(facts: &Facts<'_>, request: &Request, otherwise: Refusal) -> Result<Decision, Refusal> {
    match delivery::of_session(facts) {
        Policy::Interwork => {
            let asserted = asserted_service(facts, request)?;
            let mut isf = invitation(facts, request, TargetKind::Isf, &asserted)?;
            isf.next_hop = NextHop::Isf;
            Ok(bridge(facts, request, vec![isf], AnswerTime::OnFirst, true))
        }
        Policy::Defer | Policy::Reject => Err(otherwise),
    }
}

fn bridge(facts: &Facts<'_>, request: &Request, targets: Vec<Invite>, answer: AnswerTime, policies_done: bool) -> Decision {
    let later = match facts.config.policy.session_clients {
        SessionClients::All => LaterSuccess::Join,
        SessionClients::First => LaterSuccess::Bye,
    };
    let service = if service::is_group(request) { Service::GroupSession } else { Service::Session };
    Decision::Bridge(Box::new(Bridge { service, targets, answer, later, ack: AckTime::AtOnce, policies_done }))
}

/// Out of the media path the CR has no text for this side: as OSI-5 does for the other.
fn proxied(facts: &Facts<'_>, registered: &Selection, asserted: String) -> Decision {
    let clients = registered.clients.iter().map(|index| &facts.clients[*index]);
    // The core forks the address of record; a GRUU or, where there is no core, a contact names one client.
    let request_uris = if facts.config.sip.core.is_none() {
        clients.map(|client| client.contact.clone()).collect()
    } else if clients.clone().all(|client| client.gruu.is_some()) {
        clients.filter_map(|client| client.gruu.clone()).collect()
    } else {
        Vec::new()
    };
    Decision::Proxy(Proxy {
        record_route: true,
        next_hop: NextHop::Core { fallback: None },
        request_uris,
        remove: vec!["P-Preferred-Service", "P-Asserted-Service"],
        add: vec![field("P-Asserted-Service", asserted)],
    })
}

/// A target answered 2xx: the origin's answer where it waits for one (late answer, Session-Replaces, ISF).
///
/// # Errors
/// It carries no usable SDP answer: that target counts as failed.
pub fn on_success(facts: &Facts<'_>, request: &Request, ok: &Response) -> Result<Answer, Refusal> {
    let contact = match contact::of(ok) {
        Contact::Copied(value) => Contact::Copied(value),
        Contact::Own { .. } => contact::resolving(ok),
    };
    let media = media_plan::session_answer(facts.config, request, ok)?;
    Ok(made(facts, request, contact, media))
}

/// Every target failed. Where the origin was answered early, what is returned as refusal becomes the Reason of its BYE.
///
/// # Errors
/// The explicit refusal of all targets, or 480 after an early answer; else the best of what they said.
pub fn on_exhausted(
    facts: &Facts<'_>,
    request: &Request,
    bridge: &Bridge,
    failures: &[(usize, u16)],
) -> Result<Decision, Refusal> {
    let early = matches!(bridge.answer, AnswerTime::Early(_));
    if early {
        clause!("TSI-9");
    }
    let best = Refusal::new(if early { 480 } else { failure::best(failures) }, "TSI-9");
    if delivery::refused(failures).is_some() || bridge.policies_done || request.has(Name::SessionReplaces) {
        return Err(best);
    }
    by_policy(facts, request, best)
}

/// The origin was answered: 8.5, where the user's rules say so.
pub fn after_answer(facts: &Facts<'_>, request: &Request) -> Vec<FollowUp> {
    if !preferences::offline_storage(facts, request, true) {
        return Vec::new();
    }
    let user = identity::served_user(Role::Terminating, facts.trusted, request);
    vec![FollowUp::RecordHistory { user, sent: false }]
}
