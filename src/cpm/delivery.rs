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
use super::failure;
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
    (all || for_all).then(|| failure::best(failures))
}

/// A final response by which a client or its user says no, other than "not now".
pub const fn explicit(status: u16) -> bool {
    matches!(status, 403 | 404 | 488 | 600..=699)
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
}
