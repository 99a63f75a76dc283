//! CR 8.2.1.2 (OLM)  Originating side: Large Message Mode CPM Standalone Message.
//!
//! ```text
//! 1-5 gates -> 6 B2BUA -> 7 one INVITE, our MSRP URI in it -> 8 the core, or the ISF
//!           <- r1-r6 the origin's 200, made from the recipient's -> r7 the originator's history
//! ```
//!
//! 7.d copies the Contact and 7.h puts our own there; C.1.7 has the key: a focus's is copied, any other is ours.

use crate::clause;
use crate::config::{Config, OtherService};
use crate::cpm::decision::{
    AckTime, Answer, AnswerTime, Bridge, Contact, Decision, FollowUp, Invite, LaterSuccess, NextHop, Service, SessionExpires,
    TargetKind,
};
use crate::cpm::facts::{Facts, Needs, Role};
use crate::cpm::gates::{self, Permit};
use crate::cpm::headers::{Field, field};
use crate::cpm::media_plan::{self, MediaPlan, Unacceptable};
use crate::cpm::refusal::Refusal;
use crate::cpm::service::{self, LARGE_MESSAGE, LARGE_MESSAGE_GROUP, Named};
use crate::cpm::{contact, failure, headers, identity, interworking, preferences, release, session_expires};
use crate::sip::header::date;
use crate::sip::header::name::Name;
use crate::sip::message::{Request, Response};

/// What must be known before the procedure can run: whether the originator wants a history (r7).
pub fn needs(config: &Config, trusted: bool, request: &Request) -> Needs {
    let user = || identity::served_user(Role::Originating, trusted, request);
    Needs { preferences: config.policy.record_history.then(user), ..Needs::default() }
}

/// Steps 1 to 8.
///
/// # Errors
/// The response of the first step that refuses.
pub fn on_invite(facts: &Facts<'_>, request: &Request) -> Result<Decision, Refusal> {
    clause!("OLM-1.a");
    let permit = gates::originator_allowed(facts, request, "OLM-1.b").inspect_err(|_| {
        clause!("OLM-1.b");
    })?;
    clause!("OLM-1.c");

    clause!("OLM-2.a");
    gates::version(facts, request, "OLM-2.b").inspect_err(|_| {
        clause!("OLM-2.b");
    })?;
    clause!("OLM-2.c");

    gates::anonymity(facts, request, "OLM-3.a").inspect_err(|_| {
        clause!("OLM-3.a");
    })?;
    clause!("OLM-3.b");

    clause!("OLM-4.a");
    gates::not_expired(facts, request, "OLM-4.b").inspect_err(|_| {
        clause!("OLM-4.b");
    })?;
    clause!("OLM-4.c");

    if request.has(Name::SessionExpires) {
        // A caller without `Supported: timer` gets no 422, whatever a proxy wrote.
        clause!("OLM-5.a", "OLM-5.b");
        gates::session_expires(facts, request, "OLM-5.a")?;
    } else {
        clause!("OLM-5.c");
    }

    clause!("OLM-6", "OLM-7");
    let invite = to_recipient(&permit, facts, request)?;
    Ok(Decision::Bridge(Box::new(Bridge {
        service: Service::LargeMessage,
        targets: vec![invite],
        answer: AnswerTime::OnFirst,
        // A fork behind the core is not for us to join: the first 2xx is the one.
        later: LaterSuccess::Bye,
        ack: AckTime::AtOnce,
        policies_done: true,
    })))
}

/// Step 7 and 8.
fn to_recipient(_permit: &Permit, facts: &Facts<'_>, request: &Request) -> Result<Invite, Refusal> {
    clause!("OLM-7.a");
    let request_uri = request.uri().to_string();

    // 7 does not list Conversation-ID, Contribution-ID and InReplyTo-Contribution-ID, which C.1.1 wants in every INVITE.
    clause!("OLM-7.x");
    let mut headers = headers::copied(facts, request);
    keep_deadline(facts, request, &mut headers);

    clause!("OLM-7.b");
    headers.extend(service::accept_contact(request).into_iter().map(|value| field("Accept-Contact", value)));

    headers.push(field("P-Asserted-Service", asserted_service(facts, request)?));

    let contact = contact_of(request);

    clause!("OLM-7.e", "OLM-7.f", "OLM-7.g");
    let session_expires = SessionExpires::uac(session_expires::large_message(facts.config));
    // RFC 4028 §7.1: Session-Expires goes with the option tag.
    headers.push(field("Supported", "timer"));
    headers.push(field("User-Agent", release::product(facts.config)));

    let media = offer(facts, request)?;

    let (kind, next_hop) = destination(facts, request)?;
    Ok(Invite {
        kind,
        request_uri,
        next_hop,
        from: identity::without_tag(request, Name::From),
        to: identity::without_tag(request, Name::To),
        contact,
        session_expires: Some(session_expires),
        headers,
        media,
        parts: media_plan::beside_sdp(request),
    })
}

/// Message-Expires counts from Date: without one every hop would begin to count anew.
fn keep_deadline(facts: &Facts<'_>, request: &Request, headers: &mut Vec<Field>) {
    if !request.has(Name::MessageExpires) {
        return;
    }
    clause!("OLM-7.x2");
    if !request.has(Name::Date) {
        headers.push(field("Date", date::of(facts.now)));
    }
}

/// 7.c.
fn asserted_service(facts: &Facts<'_>, request: &Request) -> Result<String, Refusal> {
    match service::named_among(request, &[LARGE_MESSAGE, LARGE_MESSAGE_GROUP]) {
        Named::Preferred(preferred) if preferred.eq_ignore_ascii_case(LARGE_MESSAGE_GROUP) => {
            clause!("OLM-7.c.ii");
            Ok(LARGE_MESSAGE_GROUP.to_string())
        }
        Named::Preferred(_) => {
            clause!("OLM-7.c.i");
            Ok(LARGE_MESSAGE.to_string())
        }
        Named::Asserted(asserted) => {
            clause!("OLM-7.c.iii.a");
            Ok(asserted.to_string())
        }
        // "Another value", in either header.
        Named::OtherAsserted(_) | Named::OtherPreferred(_) => {
            clause!("OLM-7.c.iii.b");
            match facts.config.policy.other_service {
                OtherService::Reject => Err(Refusal::new(403, "OLM-7.c.iii.b")),
                OtherService::Pass => Ok(service::asserted_or(request, LARGE_MESSAGE)),
            }
        }
        Named::Nothing => {
            clause!("OLM-7.c.iv");
            Ok(service::asserted_or(request, LARGE_MESSAGE))
        }
    }
}

/// 7.d and 7.h.
fn contact_of(request: &Request) -> Contact {
    let contact = contact::of(request);
    match contact {
        Contact::Copied(_) => {
            clause!("OLM-7.d");
        }
        Contact::Own { .. } => {
            clause!("OLM-7.h");
        }
    }
    contact
}

/// 7.i.
fn offer(facts: &Facts<'_>, request: &Request) -> Result<MediaPlan, Refusal> {
    clause!("OLM-7.i", "OLM-7.i.i", "OLM-7.i.ii", "OLM-7.i.iii", "OLM-7.i.iv", "OLM-7.i.v");
    let media = media_plan::large_message_offer(facts.config, request).map_err(|why| match why {
        Unacceptable::Missing | Unacceptable::Malformed => why.refusal("OLM-7.i"),
        Unacceptable::Direction => {
            clause!("OLM-7.i.iii.x");
            why.refusal("OLM-7.i.iii.x")
        }
        // What the origin's 200 would have to say could not be said.
        Unacceptable::Setup => {
            clause!("OLM-r5.d");
            why.refusal("OLM-r5.d")
        }
        Unacceptable::Mismatch => {
            clause!("OLM-r5.e.2");
            why.refusal("OLM-r5.e.2")
        }
        _ => why.refusal("OLM-7.i.i"),
    })?;
    if media.description.media.iter().any(|media| media.msrp_cema()) {
        clause!("OLM-7.i.vi.a");
    } else {
        clause!("OLM-7.i.vi.b");
    }
    Ok(media)
}

/// Step 8.
fn destination(facts: &Facts<'_>, request: &Request) -> Result<(TargetKind, NextHop), Refusal> {
    if interworking::is_for_core(request.uri()) {
        clause!("OLM-8.b");
        return Ok((TargetKind::Recipient, interworking::core()));
    }
    clause!("OLM-8.a");
    Ok((TargetKind::Isf, interworking::isf(facts.config, "OLM-8.a")?))
}

/// The recipient answered 2xx: steps r1 to r6.
///
/// # Errors
/// It carries no SDP that takes the message: the target counts as failed.
pub fn on_success(facts: &Facts<'_>, request: &Request, ok: &Response) -> Result<Answer, Refusal> {
    clause!("OLM-r1");
    let contact = contact::of(ok);
    match contact {
        Contact::Copied(_) => {
            clause!("OLM-r2.a");
        }
        Contact::Own { .. } => {
            clause!("OLM-r2.b");
        }
    }

    clause!("OLM-r3");
    let headers = vec![field("Supported", "timer"), field("Server", release::product(facts.config))];

    clause!("OLM-r4");
    let (session_expires, require_timer) =
        session_expires::agreed(facts.config, request, ok, session_expires::large_message(facts.config));

    clause!("OLM-r5", "OLM-r5.a", "OLM-r5.b", "OLM-r5.c", "OLM-r5.d");
    let media = match media_plan::large_message_answer(facts.config, request, ok) {
        // A 200 that takes no stream is a 200 still: the origin hears the same, and then the call is released.
        Err(Unacceptable::Rejected) => media_plan::large_message_refused_answer(request, ok).ok_or(Unacceptable::Rejected),
        media => media,
    };
    let media = media.map_err(|why| why.refusal("OLM-r5"))?;
    if media.description.media.iter().any(|media| media.msrp_cema()) {
        clause!("OLM-r5.e.1");
    } else {
        clause!("OLM-r5.e.2");
    }

    // The shard has the media core know our URI before the 200 with it leaves.
    clause!("OLM-r6.a");
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
    clause!("OLM-r0");
    Refusal::new(failure::best(failures), "OLM-r0")
}

/// The origin was answered: r7.
pub fn after_answer(facts: &Facts<'_>, request: &Request) -> Vec<FollowUp> {
    clause!("OLM-r7.a");
    if !preferences::offline_storage(facts, request, false) {
        clause!("OLM-r7.c");
        return Vec::new();
    }
    clause!("OLM-r7.b");
    let user = identity::served_user(Role::Originating, facts.trusted, request);
    vec![FollowUp::RecordHistory { user, sent: true }]
}
