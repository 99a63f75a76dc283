//! Which keys of a new configuration take effect while the process runs: all but those of what is bound, opened or started
//! once.

use crate::base::transport::Transport;
use crate::config::{Config, Listen};

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
        "msrp.zero_copy_send": msrp.zero_copy_send,
        "registrations.source": registrations.source,
        "store.history": store.history,
        "store.deferred": store.deferred,
        "store.spool": store.spool,
        "admin.listen": admin.listen,
        "admin.cdr": admin.cdr,
        "admin.token_file": admin.token_file,
    }
    // What listens goes on listening, and TLS cannot without a certificate.
    let listens_by_tls = |list: &[Listen]| list.iter().any(|listen| listen.transport == Transport::Tls);
    if merged.sip.tls.is_none() && listens_by_tls(&merged.sip.listen) {
        merged.sip.tls = old.sip.tls.clone();
        kept.push("sip.tls");
    }
    if merged.msrp.tls.is_none() && merged.sip.tls.is_none() && listens_by_tls(&merged.msrp.listen) {
        merged.msrp.tls = old.msrp.tls.clone().or_else(|| old.sip.tls.clone());
        kept.push("msrp.tls");
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

    #[test]
    fn a_listener_keeps_the_certificate_that_it_cannot_be_without() {
        let listen = |text| vec![crate::config::value::listen(text).expect("an address")];
        let tls = crate::config::Tls { certificate: "c".into(), key: "k".into(), ca: None, verify_client: false };
        let mut old = Config::default();
        (old.sip.listen, old.sip.tls) = (listen("tls://127.0.0.1:1"), Some(tls.clone()));
        old.msrp.listen = listen("tls://127.0.0.1:2");
        let (merged, kept) = merge(&old, Config::default());
        assert_eq!((merged.sip.tls, merged.msrp.tls), (Some(tls.clone()), None));
        assert_eq!(kept, ["sip.listen", "msrp.listen", "sip.tls"]);

        old.sip.listen = listen("tcp://127.0.0.1:1");
        let (merged, kept) = merge(&old, Config::default());
        assert_eq!((merged.sip.tls, merged.msrp.tls), (None, Some(tls)));
        assert_eq!(kept, ["sip.listen", "msrp.listen", "msrp.tls"]);
    }
}
