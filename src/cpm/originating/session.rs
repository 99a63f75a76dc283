//! CR 8.2.2.1 (OSI)  Originating side: CPM Session Invitation, 1-1 and group.
//!
//! ```text
//! 1-3 gates -> 4 in the media path: B2BUA, one INVITE -> core, or ISF
//!              5 not: proxy with Record-Route
//!           <- r2-r6 the origin's 200, made from the recipient's; our ACK follows the origin's
//!           -> r1 streams that the ISF rejected, r7 the originator's history, r8 the originator's other clients
//! ```
//!
//! 4.b and 4.f both "generate a SIP INVITE": it is one. 4.h copies the Contact whether it is a focus's or not. r1 stands
//! first in the CR and does not hold back the 200: its session is another one.

use crate::clause;
use crate::config::{Config, OtherService, PreferredService};
use crate::cpm::clients;
use crate::cpm::decision::{
    AckTime, Answer, AnswerTime, Bridge, Decision, FollowUp, Invite, LaterSuccess, NextHop, Proxy, Service, SessionExpires,
    TargetKind,
};
use crate::cpm::facts::{Facts, Needs, Role};
use crate::cpm::gates::{self, Permit};
use crate::cpm::headers::{LIST_TAG, field};
use crate::cpm::media_plan::{self, MediaPlan};
use crate::cpm::refusal::Refusal;
use crate::cpm::service::{self, FILE_TRANSFER, Named, SESSION, SESSION_GROUP};
use crate::cpm::{contact, failure, headers, identity, interworking, preferences, recipients, release, session_expires};
use crate::sip::header::name::Name;
use crate::sip::message::{Request, Response};

/// What must be known before the procedure can run: whether the originator wants a history (r7), and the originator's other
/// clients where they get a copy (r8).
pub fn needs(config: &Config, trusted: bool, request: &Request) -> Needs {
    let user = || identity::served_user(Role::Originating, trusted, request);
    Needs {
        preferences: config.policy.record_history.then(user),
        clients_of: config.policy.deliver_to_own_clients.then(user),
        ..Needs::default()
    }
}

/// Steps 1 to 5.
///
/// # Errors
/// The response of the first step that refuses.
pub fn on_invite(facts: &Facts<'_>, request: &Request) -> Result<Decision, Refusal> {
    clause!("OSI-1.a");
    let permit = gates::originator_allowed(facts, request, "OSI-1.b").inspect_err(|_| {
        clause!("OSI-1.b");
    })?;
    clause!("OSI-1.c");

    clause!("OSI-2.a");
    gates::version(facts, request, "OSI-2.b").inspect_err(|_| {
        clause!("OSI-2.b");
    })?;
    clause!("OSI-2.c");

    gates::anonymity(facts, request, "OSI-3.a").inspect_err(|_| {
        clause!("OSI-3.a");
    })?;
    clause!("OSI-3.b");

    if !facts.config.policy.stay_in_media_path {
        return proxied(&permit, facts, request);
    }
    clause!("OSI-4");
    let service = if service::is_group(request) { Service::GroupSession } else { Service::Session };
    let invite = to_recipient(&permit, facts, request)?;
    clause!("OSI-4.e");
    Ok(Decision::Bridge(Box::new(Bridge {
        service,
        targets: vec![invite],
        answer: AnswerTime::OnFirst,
        later: LaterSuccess::Bye,
        // r6: the recipient's ACK follows the origin's.
        ack: AckTime::WithOrigin,
        policies_done: true,
    })))
}

/// Step 5.
fn proxied(_permit: &Permit, facts: &Facts<'_>, request: &Request) -> Result<Decision, Refusal> {
    clause!("OSI-5.a", "OSI-5.b");
    let next_hop = if interworking::is_for_core(request.uri()) {
        clause!("OSI-5.c.2");
        interworking::core()
    } else {
        clause!("OSI-5.c.1");
        interworking::isf(facts.config, "OSI-5.c.1")?
    };
    Ok(Decision::Proxy(Proxy { record_route: true, next_hop, request_uris: Vec::new(), remove: Vec::new(), add: Vec::new() }))
}

/// Step 4.
fn to_recipient(_permit: &Permit, facts: &Facts<'_>, request: &Request) -> Result<Invite, Refusal> {
    let asserted = asserted_service(facts, request)?;
    clause!("OSI-4.b", "OSI-4.f");

    gates::session_expires(facts, request, "OSI-4.j")?;
    let mut invite = like_recipient(facts, request, asserted)?;
    clause!("OSI-4.l");
    invite.media = media_plan::session_offer(facts.config, request).map_err(|why| why.refusal("OSI-4.l"))?;

    clause!("OSI-4.g");
    invite.headers.push(field("User-Agent", release::product(facts.config)));

    if interworking::is_for_core(request.uri()) {
        clause!("OSI-4.m.2");
    } else {
        clause!("OSI-4.m.1");
        invite.kind = TargetKind::Isf;
        invite.next_hop = interworking::isf(facts.config, "OSI-4.m.1")?;
    }
    Ok(invite)
}

/// What 4.d, 4.h, 4.i, 4.j and 4.k say, for the recipient and for the ISF (r1.b.i); without an offer yet.
fn like_recipient(facts: &Facts<'_>, request: &Request, asserted: String) -> Result<Invite, Refusal> {
    clause!("OSI-4.d.1");
    let request_uri = request.uri().to_string();
    clause!("OSI-4.d.2", "OSI-4.d.3", "OSI-4.d.4");
    let mut headers = headers::copied(facts, request);
    clause!("OSI-4.d.5");
    let parts = media_plan::beside_sdp(request);

    headers.push(field("P-Asserted-Service", asserted));

    clause!("OSI-4.h.1");
    let contact = contact::copied(request);
    // As received, and not coded anew: 4.h says "copy" alone.
    clause!("OSI-4.h.2");
    headers.extend(request.lines(Name::AcceptContact).map(|value| field("Accept-Contact", value.to_string())));

    clause!("OSI-4.i.1");
    let mut supported = "timer".to_string();
    if request.lists(Name::Supported, LIST_TAG) {
        clause!("OSI-4.i.2");
        supported = format!("timer, {LIST_TAG}");
    }
    headers.push(field("Supported", supported));

    clause!("OSI-4.j", "OSI-4.k");
    let session_expires = SessionExpires::uac(session_expires::originating_session(facts.config));

    Ok(Invite {
        kind: TargetKind::Recipient,
        request_uri,
        next_hop: interworking::core(),
        from: identity::without_tag(request, Name::From),
        to: identity::without_tag(request, Name::To),
        contact,
        session_expires: Some(session_expires),
        headers,
        media: MediaPlan { description: Default::default(), lines: Vec::new() },
        parts,
    })
}

/// 4.a and 4.c.
fn asserted_service(facts: &Facts<'_>, request: &Request) -> Result<String, Refusal> {
    match service::named_for_session(request) {
        Named::Asserted(asserted) => {
            clause!("OSI-4.a.ii");
            Ok(asserted.to_string())
        }
        Named::OtherAsserted(asserted) => {
            clause!("OSI-4.a.iii.1");
            match facts.config.policy.other_service {
                OtherService::Reject => {
                    clause!("OSI-4.a.iii.2");
                    Err(Refusal::new(403, "OSI-4.a.iii.1"))
                }
                // "Shall not continue" binds only where the request was rejected.
                OtherService::Pass => Ok(asserted.to_string()),
            }
        }
        Named::Preferred(preferred) => {
            if preferred.eq_ignore_ascii_case(SESSION_GROUP) {
                clause!("OSI-4.c.iii");
            } else {
                clause!("OSI-4.c.ii");
            }
            Ok(preferred.to_string())
        }
        Named::OtherPreferred(_) => {
            clause!("OSI-4.c.iv");
            Ok(in_place_of_preferred(facts, request))
        }
        // Neither header: what 4.c.iv.1 does is the nearest rule.
        Named::Nothing => {
            clause!("OSI-4.c.v");
            Ok(from_tag(request).unwrap_or_else(|| facts.config.policy.default_service.clone()))
        }
    }
}

/// 4.c.iv: from Accept-Contact, or from configuration (`policy.preferred_service`).
fn in_place_of_preferred(facts: &Facts<'_>, request: &Request) -> String {
    let by_tag = facts.config.policy.preferred_service == PreferredService::AcceptContact;
    if let Some(tag) = from_tag(request).filter(|_| by_tag) {
        clause!("OSI-4.c.iv.1");
        return tag;
    }
    clause!("OSI-4.c.iv.2");
    facts.config.policy.default_service.clone()
}

/// The CPM feature tag that made this a session.
fn from_tag(request: &Request) -> Option<String> {
    service::from_accept_contact(request, SESSION).or_else(|| service::from_accept_contact(request, FILE_TRANSFER))
}

/// The recipient answered 2xx: steps r2 to r5.
///
/// # Errors
/// It carries no SDP that takes a stream: the target counts as failed.
pub fn on_success(facts: &Facts<'_>, request: &Request, ok: &Response) -> Result<Answer, Refusal> {
    clause!("OSI-r0", "OSI-r2");
    clause!("OSI-r3");
    let headers = vec![field("Supported", "timer"), field("Server", release::product(facts.config))];

    clause!("OSI-r4.a", "OSI-r4.b");
    let media = media_plan::session_answer(facts.config, request, ok).map_err(|why| why.refusal("OSI-r4.a"))?;

    let contact = match contact::focus(ok) {
        Some(_) => {
            clause!("OSI-r5.a");
            contact::copied(ok)
        }
        None => {
            clause!("OSI-r5.b");
            contact::resolving(ok)
        }
    };

    let (session_expires, require_timer) =
        session_expires::agreed(facts.config, request, ok, session_expires::originating_session(facts.config));
    clause!("OSI-r6.a");
    Ok(Answer {
        status: 200,
        contact: Some(contact),
        session_expires: Some(session_expires),
        require_timer,
        headers,
        media: Some(media),
    })
}

/// Nobody answered 2xx.
pub fn on_exhausted(failures: &[(usize, u16)]) -> Refusal {
    Refusal::new(failure::best(failures), "OSI-r2")
}

/// The origin was answered: r1, r7, r8.
pub fn after_answer(facts: &Facts<'_>, request: &Request, bridge: &Bridge, first: Option<(usize, &Response)>) -> Vec<FollowUp> {
    let mut follow = Vec::new();
    if let Some((target, ok)) = first
        && bridge.targets.get(target).is_some_and(|target| target.kind == TargetKind::Isf)
    {
        clause!("OSI-r1");
        match rejected_streams(facts, request, ok) {
            Some(invite) => follow.push(FollowUp::Retry(Box::new(invite))),
            None => {
                clause!("OSI-r1.c");
            }
        }
    }

    // Both rules of r7: the user's own, and the operator's that all sessions are recorded.
    let by_rule = preferences::offline_storage(facts, request, true);
    if by_rule || facts.config.policy.record_sessions {
        if by_rule {
            clause!("OSI-r7.a");
        } else {
            clause!("OSI-r7.b");
        }
        let user = identity::served_user(Role::Originating, facts.trusted, request);
        follow.push(FollowUp::RecordHistory { user, sent: true });
    }

    if facts.config.policy.deliver_to_own_clients {
        clause!("OSI-r8");
        let copies = own_clients(facts, request);
        if !copies.is_empty() {
            follow.push(FollowUp::OwnClients(copies));
        }
    }
    follow
}

/// r1: a session of its own for the streams that the ISF rejected.
fn rejected_streams(facts: &Facts<'_>, request: &Request, ok: &Response) -> Option<Invite> {
    let media = media_plan::rejected_offer(facts.config, request, ok).ok().flatten()?;
    clause!("OSI-r1.0");
    clause!("OSI-r1.a");
    if !facts.config.policy.retry_rejected_media {
        return None;
    }
    clause!("OSI-r1.b");
    // Step 4 without 4.f, a second INVITE for the same, and without 4.g, the User-Agent.
    clause!("OSI-r1.b.i");
    let asserted = asserted_service(facts, request).ok()?;
    let mut invite = like_recipient(facts, request, asserted).ok()?;
    clause!("OSI-r1.b.ii.1", "OSI-r1.b.ii.2");
    invite.media = media;
    clause!("OSI-r1.b.iii");
    invite.kind = TargetKind::IsfRetry;
    invite.next_hop = NextHop::Isf;
    Some(invite)
}

/// r8: an INVITE for each other suitable client of the originator.
fn own_clients(facts: &Facts<'_>, request: &Request) -> Vec<Invite> {
    let suitable = clients::suitable(facts, request, service::of_session(request)).clients;
    clause!("OSI-r8.a");
    let required = !facts.config.policy.user_agents.is_empty();
    let supports = |index: &usize| !required || clients::supports_version(facts.config, &facts.clients[*index]) == Some(true);
    let wanted: Vec<usize> = suitable.into_iter().filter(supports).collect();
    if wanted.is_empty() {
        clause!("OSI-r8.a.i");
        return Vec::new();
    }
    clause!("OSI-r8.b");
    wanted.into_iter().filter_map(|index| to_own_client(facts, request, index)).collect()
}

fn to_own_client(facts: &Facts<'_>, request: &Request, index: usize) -> Option<Invite> {
    let client = &facts.clients[index];
    let asserted = asserted_service(facts, request).ok()?;

    clause!("OSI-r8.b.ii");
    let mut invite = like_recipient(facts, request, asserted).ok()?;
    invite.headers.push(field("User-Agent", release::product(facts.config)));
    invite.media = media_plan::session_offer(facts.config, request).ok()?;
    // As a client's leg it follows 8.3.2.1 (r8.d): its timer, our Contact unless it is a focus's, the list as history.
    invite.contact = contact::of(request);
    invite.headers.retain(|(name, _)| name != Name::Require.as_str());
    invite.parts = recipients::shown_of(request).into_iter().collect();
    invite.session_expires = Some(SessionExpires::uas(session_expires::terminating_session(facts.config)));

    clause!("OSI-r8.b.i");
    let address = clients::address(client);
    invite.request_uri = address.request_uri;
    invite.headers.extend(address.instance.map(|value| field("Accept-Contact", value)));
    clause!("OSI-r8.c");
    invite.next_hop = address.next_hop;
    invite.kind = TargetKind::OwnClient { instance: client.instance.clone(), contact: client.contact.clone() };
    Some(invite)
}
