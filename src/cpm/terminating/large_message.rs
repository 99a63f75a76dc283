//! CR 8.3.1.2 (TLM)  Terminating side: Large Message Mode CPM Standalone Message.
//!
//! ```text
//! gates 1-5 -> 6 the recipient's rules:  a 403 | b 202, defer | c ISF | d store | e forward | f defer
//!           -> 7 each suitable client (and the ISF where 6c says so besides), the first 200 answers (8.3.1.5)
//!           -> 8.3.1.3 where nobody takes it
//! ```
//!
//! The CR lets 6.b to 6.f "continue" one into the other and begins 7 with "no rule matched, or deliver-and-interwork". Read
//! together: the first action that is true is taken, and only deliver-and-interwork goes on to step 7.

use super::receive_session as ems;
use crate::clause;
use crate::config::{Config, Interop, IsfService, OtherService};
use crate::cpm::clients;
use crate::cpm::contact;
use crate::cpm::decision::{
    AckTime, Answer, AnswerTime, Bridge, Contact, Decision, FollowUp, Invite, LaterSuccess, NextHop, Purpose, Receive, Service,
    SessionExpires, TargetKind,
};
use crate::cpm::delivery::{self, Policy};
use crate::cpm::facts::{Facts, Needs, Role};
use crate::cpm::headers::field;
use crate::cpm::preferences;
use crate::cpm::refusal::Refusal;
use crate::cpm::{failure, gates, headers, identity, media_plan, recipients, release, service, session_expires};
use crate::sip::header::name::Name;
use crate::sip::message::{Request, Response};
use crate::xdm::access_rules::Actions;

/// What must be known before the procedure can run.
pub fn needs(config: &Config, trusted: bool, request: &Request) -> Needs {
    let user = identity::served_user(Role::Terminating, trusted, request);
    // TLM-5.d: the list is fetched with its references resolved.
    clause!("TLM-5.d");
    let blacklist = config.policy.blacklist.then(|| (user.clone(), config.xdm.blacklist_standalone.clone()));
    Needs { preferences: Some(user.clone()), blacklist, clients_of: Some(user), replaces: None }
}

/// Steps 1 to 7.
///
/// # Errors
/// The response of the first step that refuses.
pub fn on_invite(facts: &Facts<'_>, request: &Request) -> Result<Decision, Refusal> {
    clause!("TLM-1.a");
    gates::version(facts, request, "TLM-1.b").inspect_err(|_| {
        clause!("TLM-1.b");
    })?;
    clause!("TLM-1.c");

    gates::anonymity(facts, request, "TLM-2.a").inspect_err(|_| {
        clause!("TLM-2.a");
    })?;
    clause!("TLM-2.b");

    if request.has(Name::SessionExpires) {
        clause!("TLM-3.a");
        gates::session_expires(facts, request, "TLM-3.a")?;
    } else {
        clause!("TLM-3.b");
    }

    clause!("TLM-4");
    clause!("TLM-5.a");
    gates::not_listed(facts, request, "TLM-5.b").inspect_err(|_| {
        clause!("TLM-5.b");
    })?;
    clause!("TLM-5.c");

    clause!("TLM-6.0");
    let interworked = match by_rule(facts, request, &preferences::of_standalone(facts, request))? {
        Ruled::Done(decision) => return Ok(decision),
        Ruled::DeliverToo(isf) => Some(*isf),
        Ruled::NoRule => None,
    };

    clause!("TLM-7.0");
    to_clients(facts, request, interworked)
}

/// What step 6 came to.
enum Ruled {
    Done(Decision),
    /// Step 7 follows, beside this INVITE for the ISF.
    DeliverToo(Box<Invite>),
    NoRule,
}

/// Step 6: the first action that is true, in the order a to f.
fn by_rule(facts: &Facts<'_>, request: &Request, actions: &Actions) -> Result<Ruled, Refusal> {
    if actions.reject_invite {
        clause!("TLM-6.a.1");
        return Err(Refusal::new(403, "TLM-6.a.1").warn("122 Function not allowed"));
    }
    clause!("TLM-6.a.2");

    if actions.do_not_disturb {
        // 202 to an INVITE is a 2xx like 200: it carries the answer, the content comes over MSRP, and then it is deferred.
        clause!("TLM-6.b.1", "TLM-6.b.2");
        return Ok(Ruled::Done(receive(facts, request, Purpose::Defer, 202)?));
    }
    clause!("TLM-6.b.3");

    // Without an ISF there is nobody to interwork with, and the next step is looked at.
    if (actions.interwork || actions.deliver_and_interwork) && facts.config.sip.isf.is_some() {
        clause!("TLM-6.c.0");
        let isf = to_isf(facts, request)?;
        if actions.deliver_and_interwork {
            return Ok(Ruled::DeliverToo(Box::new(isf)));
        }
        clause!("TLM-6.c.z1");
        return Ok(Ruled::Done(bridge(vec![isf], false)));
    }

    if actions.store {
        clause!("TLM-6.d.0", "TLM-6.d.i");
        return Ok(Ruled::Done(receive(facts, request, Purpose::Store, 200)?));
    }
    clause!("TLM-6.d.iii");

    if let Some(address) = &actions.forward {
        clause!("TLM-6.e.1");
        let mut invite = like_client(facts, request, TargetKind::Forward)?;
        invite.request_uri = address.clone();
        clause!("TLM-6.e.2");
        invite.next_hop = NextHop::Core { fallback: None };
        return Ok(Ruled::Done(bridge(vec![invite], false)));
    }
    clause!("TLM-6.e.3");

    if actions.defer {
        clause!("TLM-6.f.0", "TLM-6.f.i");
        return Ok(Ruled::Done(receive(facts, request, Purpose::Defer, 200)?));
    }
    clause!("TLM-6.f.iii");

    // No rule matched; or one did in which no action is true, of which the CR says nothing: read as none, else the message
    // would be lost.
    clause!("TLM-6.0.3");
    Ok(Ruled::NoRule)
}

/// Step 7: each suitable client; none: 8.3.1.3.
fn to_clients(facts: &Facts<'_>, request: &Request, interworked: Option<Invite>) -> Result<Decision, Refusal> {
    clause!("TLM-7.a");
    let selection = clients::suitable(facts, request, service::LARGE_MESSAGE);
    let mut targets = Vec::with_capacity(selection.clients.len() + 1);
    for index in &selection.clients {
        clause!("TLM-7.b.1");
        targets.push(to_client(facts, request, *index)?);
    }
    match interworked {
        // With the ISF of 6.c the message has somewhere to go; 8.3.1.3 is for one that has not.
        Some(isf) => targets.push(isf),
        None if targets.is_empty() => {
            clause!("TLM-7.b.2");
            return by_policy(facts, request, Refusal::new(480, "TLM-7.b.2"));
        }
        None if facts.config.policy.isf_without_primary_device && !selection.primary && facts.config.sip.isf.is_some() => {
            clause!("TLM-7.c.1", "TLM-7.c.2", "TLM-7.l.2");
            let mut isf = like_client(facts, request, TargetKind::Isf)?;
            isf.next_hop = NextHop::Isf;
            targets.push(isf);
        }
        None => {}
    }
    Ok(bridge(targets, false))
}

/// 8.3.1.3, once for a request; `otherwise` is the answer where the policies have nothing to offer.
fn by_policy(facts: &Facts<'_>, request: &Request, otherwise: Refusal) -> Result<Decision, Refusal> {
    match delivery::of_standalone(facts) {
        Policy::Defer => receive(facts, request, Purpose::Defer, 200),
        Policy::Interwork => Ok(bridge(vec![to_isf(facts, request)?], true)),
        Policy::Reject => Err(otherwise),
    }
}

fn bridge(targets: Vec<Invite>, policies_done: bool) -> Decision {
    Decision::Bridge(Box::new(Bridge {
        service: Service::LargeMessage,
        targets,
        answer: AnswerTime::OnFirst,
        later: LaterSuccess::Join,
        ack: AckTime::AtOnce,
        policies_done,
    }))
}

/// 8.3.1.5 without a target: we are the endpoint.
fn receive(facts: &Facts<'_>, request: &Request, purpose: Purpose, status: u16) -> Result<Decision, Refusal> {
    let answer = ems::own_answer(facts, request, status)?;
    Ok(Decision::Receive(Box::new(Receive { purpose, answer })))
}

/// 6.c.i to 6.c.xi.
fn to_isf(facts: &Facts<'_>, request: &Request) -> Result<Invite, Refusal> {
    clause!("TLM-6.c.i");
    // Conversation-ID, Contribution-ID, InReplyTo-Contribution-ID and Subject are among what is copied.
    clause!("TLM-6.c.ii.1", "TLM-6.c.ii.2", "TLM-6.c.ii.3", "TLM-6.c.ii.6");
    let mut headers = headers::copied_to_client(facts, request);

    clause!("TLM-6.c.ii.5");
    headers.extend(service::accept_contact(request).into_iter().map(|value| field("Accept-Contact", value)));

    clause!("TLM-6.c.ii.7");
    let parts = recipients::history_of(request).into_iter().collect();

    clause!("TLM-6.c.iii.1");
    let mut supported = "timer".to_string();
    if request.lists(Name::Supported, "recipient-list-invite") {
        clause!("TLM-6.c.iii.2");
        supported.push_str(", recipient-list-invite");
    }
    headers.push(field("Supported", supported));

    clause!("TLM-6.c.iv", "TLM-6.c.v", "TLM-6.c.vi");
    let session_expires = SessionExpires::uac(session_expires::large_message(facts.config));

    headers.push(field("P-Asserted-Service", isf_service(facts, request)?));

    clause!("TLM-6.c.ii.4");
    let contact = contact::of(request);
    match contact {
        Contact::Copied(_) => {
            clause!("TLM-6.c.viii.1");
        }
        Contact::Own { .. } => {
            clause!("TLM-6.c.viii.2");
        }
    }

    clause!("TLM-6.c.ix");
    headers.push(field("User-Agent", release::product(facts.config)));

    clause!("TLM-6.c.x.0", "TLM-6.c.x.1", "TLM-6.c.x.2", "TLM-6.c.x.3", "TLM-6.c.x.4", "TLM-6.c.x.5");
    let media = media_plan::large_message_offer(facts.config, request).map_err(|why| why.refusal("TLM-6.c.x.0"))?;

    clause!("TLM-6.c.xi");
    Ok(Invite {
        kind: TargetKind::Isf,
        request_uri: request.uri().to_string(),
        next_hop: NextHop::Isf,
        from: identity::without_tag(request, Name::From),
        to: identity::without_tag(request, Name::To),
        contact,
        session_expires: Some(session_expires),
        headers,
        media,
        parts,
    })
}

/// 7.b to 7.l, for one client.
fn to_client(facts: &Facts<'_>, request: &Request, index: usize) -> Result<Invite, Refusal> {
    let client = &facts.clients[index];
    let kind = TargetKind::Client { instance: client.instance.clone(), contact: client.contact.clone() };
    let mut invite = like_client(facts, request, kind)?;

    let address = clients::address(client);
    match address.instance {
        None => {
            clause!("TLM-7.i.1");
        }
        // 7.i has the bare address; with several devices only an instance tells them apart, as TSI-8.d.ii does.
        Some(instance) => {
            clause!("TLM-7.i.2");
            invite.headers.push(field("Accept-Contact", instance));
        }
    }
    invite.request_uri = address.request_uri;

    clause!("TLM-7.l.1");
    invite.next_hop = address.next_hop;
    Ok(invite)
}

/// What step 7 says of every INVITE it makes, but for where it goes.
fn like_client(facts: &Facts<'_>, request: &Request, kind: TargetKind) -> Result<Invite, Refusal> {
    let mut headers = headers::copied_to_client(facts, request);

    clause!("TLM-7.d", "TLM-7.e", "TLM-7.f");
    let session_expires = SessionExpires::uas(session_expires::large_message(facts.config));
    headers.push(field("Supported", "timer"));

    clause!("TLM-7.g.2");
    headers.extend(service::accept_contact(request).into_iter().map(|value| field("Accept-Contact", value)));

    // Step 7 says nothing of the service: what 6.c checks has been let through, and no preferred service leaves us.
    headers.push(field("P-Asserted-Service", service::asserted_or(request, service::LARGE_MESSAGE)));

    clause!("TLM-7.g.1");
    let contact = contact::of(request);
    match contact {
        Contact::Copied(_) => {
            clause!("TLM-7.h.1");
        }
        Contact::Own { .. } => {
            clause!("TLM-7.h.2");
        }
    }

    clause!("TLM-7.j");
    headers.push(field("User-Agent", release::product(facts.config)));

    clause!("TLM-7.k.0", "TLM-7.k.i", "TLM-7.k.ii", "TLM-7.k.iii", "TLM-7.k.iv", "TLM-7.k.v");
    let media = media_plan::large_message_offer(facts.config, request).map_err(|why| why.refusal("TLM-7.k.0"))?;
    if facts.config.msrp.interop != Interop::Always {
        clause!("TLM-7.k.vi.1");
    } else {
        clause!("TLM-7.k.vi.2");
    }

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
        parts: recipients::shown_of(request).into_iter().collect(),
    })
}

/// 6.c.vii: the service towards the ISF, as the CR prints it or as it is registered (`policy.isf_service`).
fn isf_service(facts: &Facts<'_>, request: &Request) -> Result<String, Refusal> {
    let large = service::whole("largemsg");
    let group = service::whole("largemsg.group");
    if let Some(asserted) = request.header(Name::PAssertedService) {
        if asserted.eq_ignore_ascii_case(&large) {
            clause!("TLM-6.c.vii.3");
            return Ok(asserted.to_string());
        }
        if asserted.eq_ignore_ascii_case(&group) {
            clause!("TLM-6.c.vii.4");
            return Ok(asserted.to_string());
        }
        return other_service(facts, asserted.to_string());
    }
    // The CR prints oma.cpm.msg.largemsg here and oma.cpm.largemsg everywhere else. What it prints here is the default,
    // the registered tag a choice.
    let written = |short: &str| match facts.config.policy.isf_service {
        IsfService::AsWritten => service::whole(&format!("msg.{short}")),
        IsfService::LargeMessage => service::whole(short),
    };
    match request.header(Name::PPreferredService) {
        Some(preferred) if preferred.eq_ignore_ascii_case(&large) => {
            clause!("TLM-6.c.vii.1");
            Ok(written("largemsg"))
        }
        Some(preferred) if preferred.eq_ignore_ascii_case(&group) => {
            clause!("TLM-6.c.vii.2");
            Ok(written("largemsg.group"))
        }
        Some(_) => other_service(facts, service::asserted_or(request, service::LARGE_MESSAGE)),
        None => Ok(service::asserted_or(request, service::LARGE_MESSAGE)),
    }
}

fn other_service(facts: &Facts<'_>, passed: String) -> Result<String, Refusal> {
    clause!("TLM-6.c.vii.5");
    match facts.config.policy.other_service {
        OtherService::Reject => Err(Refusal::new(403, "TLM-6.c.vii.5")),
        OtherService::Pass => Ok(passed),
    }
}

/// A target answered 2xx.
///
/// # Errors
/// It carries no usable SDP answer: that target counts as failed.
pub fn on_success(
    facts: &Facts<'_>,
    request: &Request,
    bridge: &Bridge,
    target: usize,
    ok: &Response,
) -> Result<Answer, Refusal> {
    clause!("TLM-8");
    if bridge.targets.get(target).is_some_and(|target| target.kind == TargetKind::Isf) {
        clause!("TLM-6.c.z2");
    }
    ems::answer(facts, request, ok)
}

/// Every target failed.
///
/// # Errors
/// What the origin is told: the explicit refusal of all targets, or what is left when the policies have nothing to offer.
pub fn on_exhausted(
    facts: &Facts<'_>,
    request: &Request,
    bridge: &Bridge,
    failures: &[(usize, u16)],
) -> Result<Decision, Refusal> {
    clause!("TLM-10");
    let last = Refusal::new(failure::best(failures), "TLM-10");
    if delivery::refused(failures).is_some() || bridge.policies_done {
        return Err(last);
    }
    // The ISF has had its chance where it was among the targets.
    let interworked = bridge.targets.iter().any(|target| target.kind == TargetKind::Isf);
    match delivery::of_standalone(facts) {
        Policy::Interwork if interworked => Err(last),
        _ => by_policy(facts, request, Refusal::new(480, "TLM-10")),
    }
}

/// The origin was answered: 8.5.1.
pub fn after_answer(facts: &Facts<'_>, request: &Request) -> Vec<FollowUp> {
    if !preferences::offline_storage(facts, request, false) {
        return Vec::new();
    }
    clause!("TLM-9.1");
    let user = identity::served_user(Role::Terminating, facts.trusted, request);
    vec![FollowUp::RecordHistory { user, sent: false }]
}
