//! CR 8.4.1: what a user's rules (OMA-XDM-Policy over RFC 4745) say about a request.
//!
//! A rule counts when all its conditions hold and its service-list names the enabler "CPM". Where several rules count,
//! an action is true when it is true in any of them (RFC 4745 §10.2). A document that is absent, or an XDM server that is
//! away, means: no rule; a message is never refused because XDM is down.

use super::facts::{Facts, Role};
use super::identity;
use crate::clause;
use crate::sip::message::Request;
use crate::xdm::access_rules::Actions;
use crate::xdm::condition::{Medium, Question};

/// The medium of `media-list` that stands for Pager and Large Message Mode (TLM-6).
const STANDALONE: &str = "standalone-message";
/// The medium of `media-list` that stands for sessions.
const SESSION: &str = "message-session";

/// TLM-6: what the recipient's rules about standalone messages say is to be done; no action is true where no rule matches.
pub fn of_standalone(facts: &Facts<'_>, request: &Request) -> Actions {
    // The enabler and the medium are conditions like the others; a rule for another enabler or medium does not match.
    clause!("TLM-6.0.1", "TLM-6.0.2");
    // Several rules: RFC 4745 §10.2 combines booleans by "or".
    clause!("TLM-6.0.4");
    asked(facts, request, Medium::Listed(STANDALONE)).unwrap_or_default()
}

/// TSI-4: do-not-disturb needs no media-list; one that leaves sessions out does not count for them.
pub fn do_not_disturb(facts: &Facts<'_>, request: &Request) -> bool {
    asked(facts, request, Medium::NotExcluded(SESSION)).is_some_and(|actions| actions.do_not_disturb)
}

/// OLM-r7, OSI-r7, TLM-9: whether the served user wants the conversation recorded. `session` tells the medium.
pub fn offline_storage(facts: &Facts<'_>, request: &Request, session: bool) -> bool {
    let medium = Medium::NotExcluded(if session { SESSION } else { STANDALONE });
    facts.config.policy.record_history && asked(facts, request, medium).is_some_and(|actions| actions.offline_storage)
}

fn asked(facts: &Facts<'_>, request: &Request, medium: Medium<'_>) -> Option<Actions> {
    let rules = facts.rules.as_deref()?;
    let originator = identity::originators(facts.trusted, request);
    let question = Question {
        originator: &originator,
        anonymous: identity::is_anonymous(request),
        now_s: facts.now.unix_s(),
        medium,
        // Users' own messages: whom a rule is about is the other side, and there the user is on both.
        identity: facts.role == Role::Terminating,
        external_lists: facts.external_lists,
    };
    Some(rules.matching(&question))
}
