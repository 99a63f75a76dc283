//! What of a new configuration can count while the old one runs: all but what is bound, opened or started once.

use crate::config::Config;

/// The new configuration with the old one's values where they cannot change live, and the names of the keys that were to change.
pub fn merge(old: &Config, new: Config) -> (Config, Vec<&'static str>) {
    let mut merged = new;
    let mut kept = Vec::new();
    macro_rules! keep {
        ($($key:literal: $($field:ident).+),+ $(,)?) => {
            $(if merged.$($field).+ != old.$($field).+ {
                merged.$($field).+ = old.$($field).+.clone();
                kept.push($key);
            })+
        };
    }
    keep! {
        "node.host": node.host,
        "node.handover": node.handover,
        "cores.signaling": cores.signaling,
        "cores.media": cores.media,
        "cores.sqpoll": cores.sqpoll,
        "sip.listen": sip.listen,
        "msrp.listen": msrp.listen,
        "msrp.host": msrp.host,
        "msrp.congestion": msrp.congestion,
        "registrations.source": registrations.source,
        "store.history": store.history,
        "store.deferred": store.deferred,
        "store.spool": store.spool,
        "admin.listen": admin.listen,
        "admin.cdr": admin.cdr,
        "admin.token_file": admin.token_file,
    }
    (merged, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bound_stays_and_is_named_and_policy_changes() {
        let old = Config::default();
        let mut new = Config::default();
        new.cores.media = vec![3];
        new.policy.media = vec!["message".into(), "audio".into()];
        let (merged, kept) = merge(&old, new);
        assert_eq!((merged.cores.media, kept), (old.cores.media, vec!["cores.media"]));
        assert_eq!(merged.policy.media.len(), 2);
    }
}
