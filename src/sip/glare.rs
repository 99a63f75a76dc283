//! RFC 3261 §14: two sides that change a session at once.
//!
//! ```text
//! their INVITE while ours is under way        491 (§14.2); we are answered 491 and wait (§14.1)
//! their INVITE while theirs is under way      500 with Retry-After (§14.2)
//! our INVITE while either is under way        not yet (§14.1)
//! ```
//! UPDATE follows the same rules (RFC 3311 §5.1, §5.2).

use crate::base::prng::Prng;
use std::time::Duration;

/// The INVITE and UPDATE transactions under way in one dialog.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pending {
    /// We sent one and have no final response.
    pub ours: bool,
    /// They sent one and have no final response of ours.
    pub theirs: bool,
}

/// What becomes of their re-INVITE or UPDATE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Serve,
    /// 491 Request Pending.
    Pending,
    /// 500 with this Retry-After in seconds.
    TryLater {
        retry_after_s: u32,
    },
}

impl Pending {
    /// §14.1: whether we may send one now.
    pub const fn may_send(self) -> bool {
        !self.ours && !self.theirs
    }

    /// §14.2: their re-INVITE or UPDATE came.
    pub fn receive(self, prng: &mut Prng) -> Verdict {
        match self {
            // "chosen randomly between 0 and 10 seconds".
            Pending { theirs: true, .. } => Verdict::TryLater { retry_after_s: prng.below(11) as u32 },
            Pending { ours: true, .. } => Verdict::Pending,
            _ => Verdict::Serve,
        }
    }
}

/// §14.1: how long to wait after a 491, in steps of 10 ms: 2.1 s to 4 s for who made the Call-ID, else 0 s to 2 s.
pub fn wait(caller: bool, prng: &mut Prng) -> Duration {
    let steps = if caller { 210 + prng.below(191) } else { prng.below(201) };
    Duration::from_millis(steps * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_never_change_a_session_at_once() {
        let mut prng = Prng::seeded(1);
        let mut verdict = |ours, theirs| Pending { ours, theirs }.receive(&mut prng);
        assert_eq!(verdict(false, false), Verdict::Serve);
        assert_eq!(verdict(true, false), Verdict::Pending);
        assert!(matches!(verdict(false, true), Verdict::TryLater { retry_after_s: 0..=10 }));
        assert!(Pending::default().may_send() && !Pending { ours: false, theirs: true }.may_send());
    }

    #[test]
    fn waits_of_caller_and_callee_do_not_meet() {
        let mut prng = Prng::seeded(2);
        for _ in 0..2000 {
            let (caller, callee) = (wait(true, &mut prng).as_millis(), wait(false, &mut prng).as_millis());
            assert!((2100..=4000).contains(&caller) && callee <= 2000 && caller % 10 == 0 && callee % 10 == 0);
        }
    }
}
