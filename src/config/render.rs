//! A [`Config`] as TOML text with every key, as `cpm-pf check` prints it. What is printed reads back the same, but for passwords:
//! they are hidden.

use super::secret::without_password;
use super::value::{print_duration, print_listen, print_size};
use super::*;
use std::fmt::Write as _;

impl Config {
    /// The effective configuration as TOML.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.render_node(&mut out);
        self.render_sip(&mut out);
        self.render_msrp(&mut out);
        self.render_policy(&mut out);
        self.render_registrations(&mut out);
        self.render_rest(&mut out);
        out
    }

    fn render_node(&self, out: &mut String) {
        table(out, "node");
        string(out, "host", &self.node.host);
        string(out, "release", &self.node.release);
        duration(out, "drain_timeout", self.node.drain_timeout);
        optional(out, "handover", self.node.handover.as_ref().map(|path| path.display().to_string()).as_deref());
        duration(out, "handover_timeout", self.node.handover_timeout);
        table(out, "cores");
        plain(out, "signaling", format_args!("{:?}", self.cores.signaling));
        plain(out, "media", format_args!("{:?}", self.cores.media));
        plain(out, "sqpoll", self.cores.sqpoll);
    }

    fn render_sip(&self, out: &mut String) {
        let sip = &self.sip;
        table(out, "sip");
        strings(out, "listen", sip.listen.iter().map(print_listen));
        optional(out, "core", sip.core.as_deref());
        optional(out, "isf", sip.isf.as_deref());
        strings(out, "trusted", sip.trusted.iter().map(|network| format!("{}/{}", network.address, network.prefix)));
        strings(out, "home_domains", sip.home_domains.iter().cloned());
        duration(out, "t1", sip.t1);
        string(out, "max_message", &print_size(sip.max_message as u64));
        batch_wait(out, sip.batch_wait);
        tls(out, "sip.tls", sip.tls.as_ref());
        if let Some(hep) = &sip.hep {
            table(out, "sip.hep");
            string(out, "collector", &format!("udp://{}", hep.collector));
            plain(out, "capture_id", hep.capture_id);
        }
    }

    fn render_msrp(&self, out: &mut String) {
        let msrp = &self.msrp;
        table(out, "msrp");
        strings(out, "listen", msrp.listen.iter().map(print_listen));
        optional(out, "host", msrp.host.as_deref());
        let interop = match msrp.interop {
            Interop::Never => "never",
            Interop::Auto => "auto",
            Interop::Always => "always",
        };
        string(out, "interop", interop);
        duration(out, "connect_timeout", msrp.connect_timeout);
        duration(out, "transaction_timeout", msrp.transaction_timeout);
        duration(out, "idle_timeout", msrp.idle_timeout);
        string(out, "max_message", &print_size(msrp.max_message));
        string(out, "high_water", &print_size(msrp.high_water as u64));
        batch_wait(out, msrp.batch_wait);
        string(out, "congestion", &msrp.congestion);
        plain(out, "zero_copy_send", msrp.zero_copy_send);
        tls(out, "msrp.tls", msrp.tls.as_ref());
    }

    fn render_policy(&self, out: &mut String) {
        let policy = &self.policy;
        table(out, "policy");
        strings(out, "authorised_originators", policy.authorised_originators.iter().cloned());
        strings(out, "user_agents", policy.user_agents.iter().cloned());
        string(out, "anonymity", if policy.anonymity == Anonymity::Allow { "allow" } else { "reject" });
        string(out, "other_service", if policy.other_service == OtherService::Reject { "reject" } else { "pass" });
        let configured = policy.preferred_service == PreferredService::Configured;
        string(out, "preferred_service", if configured { "configured" } else { "accept-contact" });
        string(out, "default_service", &policy.default_service);
        plain(out, "stay_in_media_path", policy.stay_in_media_path);
        duration(out, "large_message_session_expires", policy.large_message_session_expires);
        duration(out, "session_session_expires", policy.session_session_expires);
        duration(out, "min_se", policy.min_se);
        duration(out, "session_floor", policy.session_floor);
        strings(out, "media", policy.media.iter().cloned());
        strings(out, "media_formats", policy.media_formats.iter().cloned());
        plain(out, "retry_rejected_media", policy.retry_rejected_media);
        plain(out, "deliver_to_own_clients", policy.deliver_to_own_clients);
        plain(out, "isf_without_primary_device", policy.isf_without_primary_device);
        let delivery = match policy.delivery {
            Delivery::Defer => "defer",
            Delivery::Interwork => "interwork",
            Delivery::Reject => "reject",
        };
        string(out, "delivery", delivery);
        duration(out, "deferred_expiry", policy.deferred_expiry);
        string(out, "expired_message", if policy.expired_message == ExpiredMessage::Reject { "reject" } else { "deliver" });
        string(out, "session_answer", if policy.session_answer == SessionAnswer::Early { "early" } else { "late" });
        string(out, "session_clients", if policy.session_clients == SessionClients::All { "all" } else { "first" });
        string(out, "isf_service", if policy.isf_service == IsfService::AsWritten { "as-written" } else { "largemsg" });
        plain(out, "blacklist", policy.blacklist);
        plain(out, "record_history", policy.record_history);
        plain(out, "record_sessions", policy.record_sessions);
    }

    fn render_registrations(&self, out: &mut String) {
        let registrations = &self.registrations;
        table(out, "registrations");
        string(out, "source", if registrations.source == RegistrationSource::Static { "static" } else { "reg-event" });
        optional(out, "registrar", registrations.registrar.as_deref());
        for user in &registrations.users {
            let _ = writeln!(out, "\n[[registrations.user]]");
            string(out, "address", &user.address);
            for client in &user.clients {
                let _ = writeln!(out, "\n[[registrations.user.client]]");
                string(out, "contact", &client.contact);
                optional(out, "instance", client.instance.as_deref());
                optional(out, "gruu", client.gruu.as_deref());
                strings(out, "features", client.features.iter().cloned());
                optional(out, "user_agent", client.user_agent.as_deref());
                plain(out, "primary", client.primary);
            }
        }
    }

    fn render_rest(&self, out: &mut String) {
        table(out, "xdm");
        string(out, "root", &without_password(&self.xdm.root));
        duration(out, "cache", self.xdm.cache);
        string(out, "blacklist_standalone", &self.xdm.blacklist_standalone);
        string(out, "blacklist_chat", &self.xdm.blacklist_chat);
        table(out, "store");
        string(out, "history", &without_password(&self.store.history));
        string(out, "deferred", &without_password(&self.store.deferred));
        string(out, "spool", &self.store.spool.display().to_string());
        table(out, "limits");
        plain(out, "dialogs", self.limits.dialogs);
        plain(out, "sessions_per_originator", self.limits.sessions_per_originator);
        plain(out, "new_calls_per_second", self.limits.new_calls_per_second);
        duration(out, "overload_queue_delay", self.limits.overload_queue_delay);
        plain(out, "overload_refusal_percent", self.limits.overload_refusal_percent);
        plain(out, "connections_per_peer", self.limits.connections_per_peer);
        plain(out, "requests_per_second_per_peer", self.limits.requests_per_second_per_peer);
        plain(out, "unbound_msrp_per_peer", self.limits.unbound_msrp_per_peer);
        duration(out, "unbound_timeout", self.limits.unbound_timeout);
        plain(out, "handshakes", self.limits.handshakes);
        duration(out, "opening_timeout", self.limits.opening_timeout);
        table(out, "admin");
        optional(out, "listen", self.admin.listen.map(|address| address.to_string()).as_deref());
        optional(out, "cdr", self.admin.cdr.as_ref().map(|path| path.display().to_string()).as_deref());
        optional(out, "token_file", self.admin.token_file.as_ref().map(|path| path.display().to_string()).as_deref());
    }
}

fn table(out: &mut String, name: &str) {
    let _ = writeln!(out, "{}[{name}]", if out.is_empty() { "" } else { "\n" });
}

fn plain(out: &mut String, key: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{key} = {value}");
}

fn string(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key} = {}", quoted(value));
}

fn quoted(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

fn optional(out: &mut String, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        string(out, key, value);
    }
}

fn batch_wait(out: &mut String, wait: BatchWait) {
    match wait {
        BatchWait::Auto => string(out, "batch_wait", "auto"),
        BatchWait::At(wait) => duration(out, "batch_wait", wait),
    }
}

fn duration(out: &mut String, key: &str, value: Duration) {
    string(out, key, &print_duration(value));
}

fn strings(out: &mut String, key: &str, values: impl Iterator<Item = String>) {
    let values: Vec<String> = values.map(|value| quoted(&value)).collect();
    let _ = writeln!(out, "{key} = [{}]", values.join(", "));
}

fn tls(out: &mut String, name: &str, tls: Option<&Tls>) {
    let Some(tls) = tls else { return };
    table(out, name);
    string(out, "certificate", &tls.certificate.display().to_string());
    string(out, "key", &tls.key.display().to_string());
    optional(out, "ca", tls.ca.as_ref().map(|path| path.display().to_string()).as_deref());
    plain(out, "verify_client", tls.verify_client);
}
