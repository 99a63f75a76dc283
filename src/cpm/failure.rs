//! RFC 3261 §16.7 and §8.1.3: what the origin is told when no target answered 2xx.

use crate::sip::header::name::Name;

/// The status for the origin, of the final statuses of all targets: any 6xx, else the lowest class, and in it the one that
/// says most. 480 where nobody was asked.
pub fn best(failures: &[(usize, u16)]) -> u16 {
    let best = failures.iter().map(|(_, status)| *status).min_by_key(|status| rank(*status));
    for_origin(best.unwrap_or(480))
}

/// Header fields of a target's failure that concern the origin: why, and when or where else (RFC 3261 §21.3, §21.4.23).
pub fn told_with(status: u16) -> impl Iterator<Item = Name> {
    let elsewhere = matches!(status, 300..=399 | 485);
    [Name::Warning, Name::RetryAfter, Name::Reason].into_iter().chain(elsewhere.then_some(Name::Contact))
}

/// §16.7 step 6: 6xx first; then by class; within 4xx busy before unavailable before not found before the rest, and silence
/// last.
const fn rank(status: u16) -> (u16, u16) {
    match status {
        600..=699 => (0, 0),
        486 => (4, 0),
        480 => (4, 1),
        404 => (4, 2),
        408 => (4, 9),
        _ => (status / 100, 5),
    }
}

/// What of a target's failure concerns the origin. The rest is between us and that target: challenges to us and the timer of
/// our own INVITE (RFC 4028 §7.4), loops and hops of a path that is not the origin's.
const fn for_origin(status: u16) -> u16 {
    match status {
        401 | 407 | 422 => 480,
        482 | 483 => 500,
        300..=699 => status,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_our_own_request_alone_is_not_passed() {
        for (status, told) in
            [(401, 480), (407, 480), (422, 480), (482, 500), (483, 500), (404, 404), (503, 503), (603, 603), (302, 302)]
        {
            assert_eq!(best(&[(0, status)]), told, "{status}");
        }
    }

    #[test]
    fn one_of_several_failures_stands_for_all() {
        assert_eq!(best(&[(0, 480), (1, 603)]), 603);
        assert_eq!(best(&[(0, 503), (1, 404)]), 404);
        assert_eq!(best(&[(0, 404), (1, 486), (2, 480)]), 486);
        assert_eq!(best(&[(0, 408), (1, 415)]), 415);
        assert_eq!(best(&[]), 480);
    }
}
