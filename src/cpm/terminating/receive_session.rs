//! CR 8.3.1.5 (EMS)  Establish an MSRP session for receiving a Large Message Mode CPM Standalone Message.
//!
//! The answer to the origin's INVITE: made from the first target's 2xx, or of our own where the message is for us (to be
//! stored or deferred) and there is no target whose SDP could be used.

use crate::clause;
use crate::cpm::decision::{Answer, Contact, SessionExpires};
use crate::cpm::facts::Facts;
use crate::cpm::headers::field;
use crate::cpm::media_plan::MediaPlan;
use crate::cpm::refusal::Refusal;
use crate::cpm::{contact, conversation, media_plan, release, session_expires};
use crate::sip::header::name::Name;
use crate::sip::message::{Request, Response};

/// From the 2xx of a target.
///
/// # Errors
/// 488 where its SDP takes no MSRP line.
pub fn answer(facts: &Facts<'_>, request: &Request, ok: &Response) -> Result<Answer, Refusal> {
    let media = media_plan::large_message_answer(facts.config, request, ok)?;
    let contact = contact::of(ok);
    match contact {
        Contact::Copied(_) => {
            clause!("EMS-1.g.1");
        }
        Contact::Own { .. } => {
            clause!("EMS-1.g.2");
        }
    }
    Ok(made(facts, request, 200, contact, media))
}

/// Without a target. `status` is 200, or 202 for a message that is deferred by do-not-disturb.
///
/// # Errors
/// 488 where the offer cannot be taken.
pub fn own_answer(facts: &Facts<'_>, request: &Request, status: u16) -> Result<Answer, Refusal> {
    let media = media_plan::large_message_own_answer(facts.config, request)?;
    clause!("EMS-1.g.2");
    let contact = Contact::Own { params: String::new(), stands_for: None };
    Ok(made(facts, request, status, contact, media))
}

fn made(facts: &Facts<'_>, request: &Request, status: u16, contact: Contact, media: MediaPlan) -> Answer {
    clause!("EMS-1", "EMS-1.a.1", "EMS-1.a.2", "EMS-1.a.3");
    let mut headers = conversation::copied(request);

    clause!("EMS-1.b");
    headers.push(field("Supported", "timer"));

    let (session_expires, require_timer) = if request.has(Name::SessionExpires) {
        clause!("EMS-1.c");
        session_expires::answered(facts.config, request)
    } else {
        clause!("EMS-1.d.1", "EMS-1.d.2");
        let delta_s = session_expires::large_message(facts.config);
        (SessionExpires::uas(delta_s), false)
    };

    clause!("EMS-1.e", "EMS-1.e.i", "EMS-1.e.ii", "EMS-1.e.iii", "EMS-1.e.iv");
    clause!("EMS-1.f");
    headers.push(field("Server", release::product(facts.config)));

    clause!("EMS-2");
    Answer { status, contact: Some(contact), session_expires: Some(session_expires), require_timer, headers, media: Some(media) }
}
