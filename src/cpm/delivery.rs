//! CR 8.3.1.3 and 8.3.6: what the operator wants done where no client takes a message or a session.
//!
//! The policies run once for a request: what comes back from the Interworking Selection Function is final.
//!
//! | `policy.delivery` | standalone message (8.3.1.3)       | session (8.3.6)                  |
//! |-------------------|------------------------------------|----------------------------------|
//! | `defer`           | received, kept, delivered later    | 480: a session cannot be kept    |
//! | `interwork`       | to the ISF; none configured: 480   | to the ISF; none configured: 480 |
//! | `reject`          | 480                                | 480                              |

use super::facts::Facts;
use super::refusal::Refusal;
use crate::config::Delivery;

/// What is left to do with a request that no client takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// 8.3.1.6.
    Defer,
    /// 6.5.
    Interwork,
    /// 480 Temporarily Unavailable.
    Reject,
}

/// 8.3.1.3, for standalone messages.
pub fn of_standalone(facts: &Facts<'_>) -> Policy {
    match facts.config.policy.delivery {
        Delivery::Defer => Policy::Defer,
        Delivery::Interwork if facts.config.sip.isf.is_some() => Policy::Interwork,
        Delivery::Interwork | Delivery::Reject => Policy::Reject,
    }
}

/// 8.3.6, for sessions. Deferral (8.3.1.6) is of standalone messages, so there is nothing to defer here.
pub fn of_session(facts: &Facts<'_>) -> Policy {
    match facts.config.policy.delivery {
        Delivery::Interwork if facts.config.sip.isf.is_some() => Policy::Interwork,
        Delivery::Interwork | Delivery::Defer | Delivery::Reject => Policy::Reject,
    }
}

/// 480, where the policies have nothing to offer; `clause` is the step that asked them.
pub fn unavailable(clause: &'static str) -> Refusal {
    Refusal::new(480, clause)
}

/// The status for the origin where the message is not wanted: then keeping it for later would deliver it against the
/// recipient's word. That is so where every target refused it, or one did for all of them (RFC 3261 §21.6: 6xx speaks for
/// the user, wherever the user is). `None` where somebody was merely out of reach.
pub fn refused(failures: &[(usize, u16)]) -> Option<u16> {
    // 487 is the answer of those we cancelled when another's 6xx came.
    let mut said = failures.iter().map(|(_, status)| *status).filter(|status| *status != 487).peekable();
    let all = said.peek().is_some() && said.all(explicit);
    let for_all = failures.iter().any(|(_, status)| *status >= 600);
    (all || for_all).then(|| best(failures))
}

/// A final response by which a client or its user says no, other than "not now".
const fn explicit(status: u16) -> bool {
    matches!(status, 403 | 404 | 488 | 600..=699)
}

/// RFC 3261 §16.7 step 6: the response that stands for all failures, fit to be passed to the origin.
pub fn best(failures: &[(usize, u16)]) -> u16 {
    // A 6xx ends the search; else the lowest class, and in it what tells the origin most: busy before unavailable before
    // not found before the rest.
    let rank = |status: u16| match status {
        600..=699 => (0, 0),
        486 => (4, 0),
        480 => (4, 1),
        404 => (4, 2),
        408 => (4, 9),
        _ => (status / 100, 5),
    };
    let best = failures.iter().map(|(_, status)| *status).min_by_key(|status| rank(*status));
    passed_on(best.unwrap_or(480))
}

/// What of another leg's failure the origin may see: what was meant for our own dialog or hop is not for it.
const fn passed_on(status: u16) -> u16 {
    match status {
        // Challenges and the session timer of our own INVITE (RFC 4028 §7.4); redirections we did not follow.
        401 | 407 | 422 | 300..=399 => 480,
        // RFC 3261 §16.7: loops and hop limits of a path the origin has no part in; 503 would take us out of its service.
        482 | 483 | 503 => 500,
        status => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_one_target_could_not_take_is_not_refused() {
        assert_eq!(refused(&[(0, 403), (1, 488)]), Some(403));
        assert_eq!(refused(&[(0, 403), (1, 408)]), None);
        assert_eq!(refused(&[(0, 480)]), None);
        assert_eq!(refused(&[(0, 487)]), None);
        assert_eq!(refused(&[]), None);
    }

    #[test]
    fn a_6xx_speaks_for_all_devices() {
        assert_eq!(refused(&[(0, 603)]), Some(603));
        assert_eq!(refused(&[(0, 408), (1, 603)]), Some(603));
        assert_eq!(refused(&[(0, 603), (1, 487)]), Some(603));
    }

    #[test]
    fn the_best_of_several_failures_is_that_of_rfc_3261() {
        assert_eq!(best(&[(0, 480), (1, 603)]), 603);
        assert_eq!(best(&[(0, 503), (1, 486)]), 486);
        assert_eq!(best(&[(0, 408), (1, 480)]), 480);
        assert_eq!(best(&[(0, 407)]), 480);
        assert_eq!(best(&[(0, 482)]), 500);
    }
}
