//! `[sip]` and `[msrp]`: what is listened to, and how.

use super::super::section::Section;
use super::super::*;
use super::text::{HOST, SIP_URI, host, sip_uri};
use super::{DAY, SECOND};
use crate::base::transport::Transport;
use std::ops::Range;

/// Addresses that something listens on already, with the key that says so.
#[derive(Default)]
pub(super) struct Addresses(Vec<(&'static str, Listen)>);

impl Addresses {
    /// Notes an address; one that the kernel will not give twice is a mistake, and so it would not be found where several cores share it.
    pub(super) fn add(&mut self, section: &Section<'_, '_>, key: &'static str, listen: Listen, at: Range<usize>) {
        let stream = |listen: &Listen| listen.transport != Transport::Udp;
        let (ip, port) = (listen.address.ip(), listen.address.port());
        let clash = |other: &Listen| {
            let there = other.address.ip();
            let overlap = ip == there || (ip.is_ipv4() == there.is_ipv4() && (ip.is_unspecified() || there.is_unspecified()));
            port != 0 && port == other.address.port() && overlap && stream(&listen) == stream(other)
        };
        if let Some((by, other)) = self.0.iter().find(|(_, other)| clash(other)) {
            let what = format!("{key} has {}, and {by} has {}", value::print_listen(&listen), value::print_listen(other));
            section.wrong(at, what, "each address and port once");
        }
        self.0.push((key, listen));
    }
}

/// `listen`: at least one address, none of them twice.
fn listens(
    section: &Section<'_, '_>,
    name: &'static str,
    accepted: &str,
    read: impl Fn(&str) -> Option<Listen>,
    addresses: &mut Addresses,
    end: usize,
) -> Vec<(Listen, Range<usize>)> {
    let Some(value) = section.get("listen") else {
        section.wrong(
            end..end,
            format!("{name} is missing: nothing is listened to"),
            format!("listen = [ADDRESS, …] with {accepted}"),
        );
        return Vec::new();
    };
    if value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
        section.wrong(value.span(), format!("{name} is empty: nothing is listened to"), format!("[ADDRESS, …] with {accepted}"));
    }
    let list = section.list("listen", accepted, |value| value.as_str().and_then(&read)).unwrap_or_default();
    for (listen, at) in &list {
        addresses.add(section, name, *listen, at.clone());
    }
    list
}

pub(super) fn sip(section: Section<'_, '_>, sip: &mut Sip, addresses: &mut Addresses, end: usize) {
    let list = listens(&section, "sip.listen", value::SIP_LISTEN, value::listen, addresses, end);
    tls_needs_certificate(&section, &list, section.section("tls").exists(), "[sip.tls]");
    sip.listen = list.into_iter().map(|(listen, _)| listen).collect();
    for (key, field) in [("core", &mut sip.core), ("isf", &mut sip.isf)] {
        *field = section.checked(key, SIP_URI, sip_uri).or(field.take());
    }
    if let Some(list) = section.list("trusted", value::NETWORK, |value| value.as_str().and_then(value::network)) {
        sip.trusted = list.into_iter().map(|(network, _)| network).collect();
    }
    if let Some(list) = section.list("home_domains", HOST, |value| value.as_str().filter(|text| host(text)).map(str::to_owned)) {
        sip.home_domains = list.into_iter().map(|(domain, _)| domain).collect();
    }
    section.duration("t1", &mut sip.t1, Duration::from_millis(10), 10 * SECOND);
    if let Some(size) = section.size("max_message", 1300, 16 << 20) {
        sip.max_message = size as usize;
    }
    batch_wait(&section, &mut sip.batch_wait, Duration::from_millis(5), "\"auto\", or \"0us\" to \"5ms\"");
    sip.tls = tls(section.section("tls"));
    sip.hep = hep(section.section("hep"));
    section.finish();
}

fn hep(section: Section<'_, '_>) -> Option<Hep> {
    let accepted = "\"udp://ADDRESS:PORT\" with an IP address";
    let collector = section.read("collector", accepted, |value| value.as_str()?.strip_prefix("udp://")?.parse().ok());
    let mut capture_id = 1;
    section.number("capture_id", &mut capture_id, 0, u32::MAX.into());
    if section.exists() && section.get("collector").is_none() {
        section.missing("collector", format!("collector = {accepted}"));
    }
    section.finish();
    collector.map(|collector| Hep { collector, capture_id })
}

fn tls_needs_certificate(section: &Section<'_, '_>, list: &[(Listen, Range<usize>)], have: bool, table: &str) {
    for (listen, at) in list {
        if listen.transport == Transport::Tls && !have {
            section.wrong(at.clone(), format!("a tls:// address without {table}"), format!("{table} with certificate and key"));
        }
    }
}

fn tls(section: Section<'_, '_>) -> Option<Tls> {
    let exists = section.exists();
    let path = |key| section.checked(key, "the path of a PEM file", |text| !text.is_empty()).map(PathBuf::from);
    let (certificate, key, ca) = (path("certificate"), path("key"), path("ca"));
    let mut verify_client = false;
    section.boolean("verify_client", &mut verify_client);
    section.finish();
    exists.then(|| Tls {
        certificate: certificate.unwrap_or_else(|| "cert.pem".into()),
        key: key.unwrap_or_else(|| "key.pem".into()),
        ca,
        verify_client,
    })
}

pub(super) fn msrp(section: Section<'_, '_>, msrp: &mut Msrp, sip_tls: bool, addresses: &mut Addresses, end: usize) {
    let tcp = |text: &str| value::listen(text).filter(|listen| listen.transport != Transport::Udp);
    let list = listens(&section, "msrp.listen", value::MSRP_LISTEN, tcp, addresses, end);
    tls_needs_certificate(&section, &list, sip_tls || section.section("tls").exists(), "[msrp.tls] or [sip.tls]");
    msrp.listen = list.into_iter().map(|(listen, _)| listen).collect();
    msrp.host = section.checked("host", HOST, host);
    if msrp.host.is_none() && msrp.listen.iter().any(|listen| listen.address.ip().is_unspecified()) {
        let at = section.get("listen").map_or(0..0, |value| value.span());
        section.wrong(
            at,
            "msrp.listen has a wildcard address and msrp.host is not given",
            "host = the address that peers connect to",
        );
    }
    section.word(
        "interop",
        &mut msrp.interop,
        &[("never", Interop::Never), ("auto", Interop::Auto), ("always", Interop::Always)],
    );
    section.duration("connect_timeout", &mut msrp.connect_timeout, Duration::from_millis(10), 300 * SECOND);
    section.duration("transaction_timeout", &mut msrp.transaction_timeout, Duration::from_millis(10), 600 * SECOND);
    section.duration("idle_timeout", &mut msrp.idle_timeout, Duration::from_millis(10), DAY);
    if let Some(size) = section.size("max_message", 1, 1 << 40) {
        msrp.max_message = size;
    }
    if let Some(size) = section.size("high_water", 4096, 1 << 30) {
        msrp.high_water = size as usize;
    }
    batch_wait(&section, &mut msrp.batch_wait, Duration::from_micros(200), "\"auto\", or \"0us\" to \"200us\"");
    section.string("congestion", &mut msrp.congestion);
    section.boolean("zero_copy_send", &mut msrp.zero_copy_send);
    msrp.tls = tls(section.section("tls"));
    section.finish();
}

fn batch_wait(section: &Section<'_, '_>, field: &mut BatchWait, longest: Duration, accepted: &str) {
    let wait = |text: &str| match text {
        "auto" => Some(BatchWait::Auto),
        _ => value::duration(text).filter(|wait| *wait <= longest).map(BatchWait::At),
    };
    if let Some(wait) = section.read("batch_wait", accepted, |value| value.as_str().and_then(wait)) {
        *field = wait;
    }
}
