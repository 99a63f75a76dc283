//! From a TOML file to a [`Config`]: the whole file is read, and every mistake is told with its line and column.

use super::section::{Findings, Section, number};
use super::*;
use crate::base::transport::Transport;
use std::ops::Range;
use std::path::Path;
use toml::de::DeValue;

/// Something wrong in the configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub what: String,
    pub accepted: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}; accepted: {}", self.file, self.line, self.column, self.what, self.accepted)
    }
}

/// Reads a configuration file.
///
/// # Errors
/// Every mistake in it, in the order of the file; one mistake at 1:1 when it cannot be read.
pub fn load(path: &Path) -> Result<Config, Vec<Mistake>> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let what = format!("cannot be read: {error}");
        vec![Mistake { file: file.clone(), line: 1, column: 1, what, accepted: "a readable UTF-8 text file".into() }]
    })?;
    parse(&file, &text)
}

/// Reads configuration text; `file` is its name in mistakes.
///
/// # Errors
/// Every mistake in it, in the order of the file.
pub fn parse(file: &str, text: &str) -> Result<Config, Vec<Mistake>> {
    let (document, syntax) = toml::de::DeTable::parse_recoverable(text);
    let findings = Findings::default();
    for error in &syntax {
        findings.borrow_mut().push((error.span().unwrap_or(0..0), error.message().replace('\n', ", "), "TOML 1.0".into()));
    }
    let config = whole(&Section::whole(document.get_ref(), &findings), text.len());
    let mut findings = findings.into_inner();
    if findings.is_empty() {
        return Ok(config);
    }
    findings.sort_by_key(|(at, ..)| at.start);
    Err(findings.into_iter().map(|(at, what, accepted)| mistake(file, text, at, what, accepted)).collect())
}

fn mistake(file: &str, text: &str, at: Range<usize>, what: String, accepted: String) -> Mistake {
    let before = &text[..at.start.min(text.len())];
    let line_at = before.rfind('\n').map_or(0, |at| at + 1);
    Mistake {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_at..].chars().count() + 1,
        what,
        accepted,
    }
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn whole(root: &Section<'_, '_>, end: usize) -> Config {
    let mut config = Config::default();
    let mut addresses = Addresses::default();
    sip(root.section("sip"), &mut config.sip, &mut addresses, end);
    msrp(root.section("msrp"), &mut config.msrp, config.sip.tls.is_some(), &mut addresses, end);
    node(root.section("node"), &mut config);
    cores(root.section("cores"), &mut config.cores);
    policy(root.section("policy"), &mut config.policy);
    registrations(root.section("registrations"), &mut config.registrations);
    xdm(root.section("xdm"), &mut config.xdm);
    store(root.section("store"), &mut config.store);
    limits(root.section("limits"), &mut config.limits);
    admin(root.section("admin"), &mut config.admin, &mut addresses);
    root.leftovers();
    config
}

/// Addresses that something listens on already, with the key that says so.
#[derive(Default)]
struct Addresses(Vec<(&'static str, Listen)>);

impl Addresses {
    /// Notes an address; one that the kernel will not give twice is a mistake, and so it would not be found where several cores share it.
    fn add(&mut self, section: &Section<'_, '_>, key: &'static str, listen: Listen, at: Range<usize>) {
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

fn node(section: Section<'_, '_>, config: &mut Config) {
    // Without a name of its own the node goes by the address it listens on.
    if let Some(first) = config.sip.listen.first() {
        config.node.host = match first.address.ip() {
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            std::net::IpAddr::V4(ip) => ip.to_string(),
        };
    }
    if let Some(text) = section.checked("host", HOST, host) {
        config.node.host = text;
    }
    let release = |text: &str| {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|o| o.is_ascii_digit());
        text.strip_prefix("OMA")
            .and_then(|version| version.split_once('.'))
            .is_some_and(|(major, minor)| digits(major) && digits(minor))
    };
    if let Some(text) = section.checked("release", "a CPM release as in \"OMA2.2\"", release) {
        config.node.release = text;
    }
    section.duration("drain_timeout", &mut config.node.drain_timeout, Duration::ZERO, DAY);
    // Of a socket's address the kernel takes 107 octets.
    if let Some(path) = section.checked("handover", "the path of a UNIX socket", |text| (1..=100).contains(&text.len())) {
        config.node.handover = Some(path.into());
    }
    section.duration("handover_timeout", &mut config.node.handover_timeout, Duration::ZERO, DAY);
    section.finish();
}

const HOST: &str = "a host name or an IP address, without port";

/// RFC 3261 §25.1 `host`; an IPv6 address may do without its brackets.
fn host(text: &str) -> bool {
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
    let name = |text: &str| text.bytes().all(|o| o.is_ascii_alphanumeric() || b"-._".contains(&o));
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(v6),
        None => (!text.is_empty() && name(text)) || v6(text),
    }
}

fn cores(section: Section<'_, '_>, cores: &mut Cores) {
    for (key, field) in [("signaling", &mut cores.signaling), ("media", &mut cores.media)] {
        let accepted = "CPU numbers from 0 to 1023, each once";
        let Some(list) = section.list(key, accepted, |value| number(value).filter(|cpu| *cpu < 1024)) else { continue };
        let mut cpus: Vec<usize> = Vec::new();
        for (cpu, at) in &list {
            match cpus.contains(&(*cpu as usize)) {
                true => section.wrong(at.clone(), format!("{key} names CPU {cpu} twice"), accepted),
                false => cpus.push(*cpu as usize),
            }
        }
        if cpus.is_empty() || cpus.len() > 128 {
            let at = section.get(key).map_or(0..0, |value| value.span());
            section.wrong(at, format!("{key} names {} CPUs", cpus.len()), "1 to 128 CPUs");
        }
        *field = cpus;
    }
    section.boolean("sqpoll", &mut cores.sqpoll);
    section.finish();
}

fn sip(section: Section<'_, '_>, sip: &mut Sip, addresses: &mut Addresses, end: usize) {
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

fn msrp(section: Section<'_, '_>, msrp: &mut Msrp, sip_tls: bool, addresses: &mut Addresses, end: usize) {
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

fn policy(section: Section<'_, '_>, policy: &mut Policy) {
    section.strings("authorised_originators", &mut policy.authorised_originators);
    section.strings("user_agents", &mut policy.user_agents);
    section.word("anonymity", &mut policy.anonymity, &[("allow", Anonymity::Allow), ("reject", Anonymity::Reject)]);
    section.word("other_service", &mut policy.other_service, &[("reject", OtherService::Reject), ("pass", OtherService::Pass)]);
    let preferred = [("accept-contact", PreferredService::AcceptContact), ("configured", PreferredService::Configured)];
    section.word("preferred_service", &mut policy.preferred_service, &preferred);
    if let Some(urn) =
        section.checked("default_service", "an ICSI, \"urn:urn-7:3gpp-service.ims.icsi.…\"", |text| text.starts_with("urn:"))
    {
        policy.default_service = urn;
    }
    section.boolean("stay_in_media_path", &mut policy.stay_in_media_path);
    // OLM-7.f: lower than 1800; OSI-4.k: 1800 or lower; RFC 4028 §5: at least 90, but in a laboratory.
    section.duration("session_floor", &mut policy.session_floor, 2 * SECOND, 90 * SECOND);
    let floor = policy.session_floor;
    section.duration("large_message_session_expires", &mut policy.large_message_session_expires, floor, 1799 * SECOND);
    section.duration("session_session_expires", &mut policy.session_session_expires, floor, 1800 * SECOND);
    section.duration("min_se", &mut policy.min_se, floor, 1799 * SECOND);
    section.strings("media", &mut policy.media);
    section.strings("media_formats", &mut policy.media_formats);
    section.boolean("retry_rejected_media", &mut policy.retry_rejected_media);
    section.boolean("deliver_to_own_clients", &mut policy.deliver_to_own_clients);
    section.boolean("isf_without_primary_device", &mut policy.isf_without_primary_device);
    let delivery = [("defer", Delivery::Defer), ("interwork", Delivery::Interwork), ("reject", Delivery::Reject)];
    section.word("delivery", &mut policy.delivery, &delivery);
    section.duration("deferred_expiry", &mut policy.deferred_expiry, SECOND, 365 * DAY);
    section.word(
        "expired_message",
        &mut policy.expired_message,
        &[("reject", ExpiredMessage::Reject), ("deliver", ExpiredMessage::Deliver)],
    );
    section.word("session_answer", &mut policy.session_answer, &[("early", SessionAnswer::Early), ("late", SessionAnswer::Late)]);
    section.word(
        "session_clients",
        &mut policy.session_clients,
        &[("all", SessionClients::All), ("first", SessionClients::First)],
    );
    let isf = [("as-written", IsfService::AsWritten), ("largemsg", IsfService::LargeMessage)];
    section.word("isf_service", &mut policy.isf_service, &isf);
    section.boolean("blacklist", &mut policy.blacklist);
    section.boolean("record_history", &mut policy.record_history);
    section.boolean("record_sessions", &mut policy.record_sessions);
    section.finish();
}

const SIP_URI: &str = "a SIP URI, \"sip:HOST:PORT;lr\"";

/// RFC 3261 §19.1.1, as far as a typing error goes: what stands here is read whole where it is used.
fn sip_uri(text: &str) -> bool {
    let rest = text.strip_prefix("sip:").or_else(|| text.strip_prefix("sips:"));
    rest.is_some_and(|rest| {
        let authority = rest.split([';', '?']).next().unwrap_or_default();
        server(authority.rsplit_once('@').map_or(authority, |(_, at)| at)) && !rest.contains([' ', '<', '>', '"'])
    })
}

/// A host, with or without a port.
fn server(text: &str) -> bool {
    let (name, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let right = |port: &str| port.bytes().all(|o| o.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    host(name) && (port.is_empty() || port.strip_prefix(':').is_some_and(right))
}

fn registrations(section: Section<'_, '_>, registrations: &mut Registrations) {
    let sources = [("static", RegistrationSource::Static), ("reg-event", RegistrationSource::RegEvent)];
    section.word("source", &mut registrations.source, &sources);
    registrations.registrar = section.checked("registrar", SIP_URI, sip_uri);
    registrations.users = section.sections("user").into_iter().filter_map(registered_user).collect();
    section.finish();
}

fn registered_user(section: Section<'_, '_>) -> Option<RegisteredUser> {
    let accepted = "a SIP or TEL address, \"sip:bob@example.net\"";
    let tel =
        |text: &str| text.strip_prefix("tel:").is_some_and(|number| !number.is_empty() && !number.contains([' ', '<', '>', '"']));
    let address = section.checked("address", accepted, |text| sip_uri(text) || tel(text));
    if section.get("address").is_none() {
        section.missing("address", accepted);
    }
    let clients = section.sections("client").into_iter().filter_map(registered_client).collect();
    section.finish();
    Some(RegisteredUser { address: address?, clients })
}

fn registered_client(section: Section<'_, '_>) -> Option<RegisteredClient> {
    let contact = section.checked("contact", SIP_URI, sip_uri);
    if section.get("contact").is_none() {
        section.missing("contact", SIP_URI);
    }
    let instance = section.checked("instance", "\"<urn:…>\"", |text| text.starts_with("<urn:") && text.ends_with('>'));
    let gruu = section.checked("gruu", SIP_URI, sip_uri);
    let known = |text: &str| {
        ["largemsg", "session", "msg", "filetransfer"].contains(&text) || text.starts_with("urn:") || text.contains('.')
    };
    let accepted = "\"largemsg\", \"session\", \"msg\", or a whole ICSI \"urn:urn-7:3gpp-service.ims.icsi.…\"";
    let features = section.list("features", accepted, |value| value.as_str().filter(|text| known(text)).map(str::to_owned));
    let user_agent = section.checked("user_agent", "a string", |_| true);
    let mut primary = false;
    section.boolean("primary", &mut primary);
    section.finish();
    let features = features.unwrap_or_default().into_iter().map(|(feature, _)| feature).collect();
    Some(RegisteredClient { contact: contact?, instance, gruu, features, user_agent, primary })
}

fn xdm(section: Section<'_, '_>, xdm: &mut Xdm) {
    let schemes = |text: &str| {
        let web = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let authority = web.map(|rest| rest.split('/').next().unwrap_or_default());
        let named = authority.is_some_and(|text| server(text.rsplit_once('@').map_or(text, |(_, at)| at)));
        (named && !text.contains(char::is_whitespace)) || text.strip_prefix("file:").is_some_and(|folder| !folder.is_empty())
    };
    if let Some(root) = section.checked("root", "\"file:DIRECTORY\", \"http://HOST/ROOT\" or \"https://HOST/ROOT\"", schemes) {
        xdm.root = root;
    }
    section.duration("cache", &mut xdm.cache, Duration::ZERO, DAY);
    section.string("blacklist_standalone", &mut xdm.blacklist_standalone);
    section.string("blacklist_chat", &mut xdm.blacklist_chat);
    section.finish();
}

fn store(section: Section<'_, '_>, store: &mut Store) {
    let one_of = |schemes: &'static [&'static str]| {
        move |text: &str| schemes.iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme))
    };
    let mail = |text: &str| {
        let rest = text.strip_prefix("imap://").or_else(|| text.strip_prefix("imaps://"));
        rest.and_then(|rest| rest.rsplit_once('@')).is_some_and(|(user, at)| !user.is_empty() && server(at))
    };
    let history = "\"file:DIRECTORY\", \"imap://USER@HOST:PORT\" or \"imaps://USER@HOST:PORT\"";
    if let Some(text) = section.secret("history", history, |text| mail(text) || one_of(&["file:"])(text)) {
        store.history = text;
    }
    let deferred = "\"file:DIRECTORY\" or \"nats://HOST:PORT,HOST:PORT\"";
    if let Some(text) = section.secret("deferred", deferred, one_of(&["file:", "nats://", "tls://"])) {
        store.deferred = text;
    }
    if let Some(path) = section.checked("spool", "a directory", |text| !text.is_empty()) {
        store.spool = path.into();
    }
    section.finish();
}

fn limits(section: Section<'_, '_>, limits: &mut Limits) {
    section.number("dialogs", &mut limits.dialogs, 2, 10_000_000);
    section.number("sessions_per_originator", &mut limits.sessions_per_originator, 1, 1_000_000);
    section.number("new_calls_per_second", &mut limits.new_calls_per_second, 0, 10_000_000);
    section.duration("overload_queue_delay", &mut limits.overload_queue_delay, Duration::from_micros(100), 60 * SECOND);
    section.number("overload_refusal_percent", &mut limits.overload_refusal_percent, 1, 100);
    section.number("connections_per_peer", &mut limits.connections_per_peer, 1, 1_000_000);
    section.number("requests_per_second_per_peer", &mut limits.requests_per_second_per_peer, 0, 10_000_000);
    section.number("unbound_msrp_per_peer", &mut limits.unbound_msrp_per_peer, 1, 1_000_000);
    section.duration("unbound_timeout", &mut limits.unbound_timeout, Duration::from_millis(100), 600 * SECOND);
    section.number("handshakes", &mut limits.handshakes, 1, 1_000_000);
    section.duration("opening_timeout", &mut limits.opening_timeout, Duration::from_millis(100), 600 * SECOND);
    section.finish();
}

fn admin(section: Section<'_, '_>, admin: &mut Admin, addresses: &mut Addresses) {
    let address = |value: &DeValue<'_>| value.as_str().and_then(|text| text.parse().ok());
    if let Some(address) = section.read("listen", "\"ADDRESS:PORT\" with an IP address", address) {
        admin.listen = Some(address);
        let at = section.get("listen").map_or(0..0, |value| value.span());
        addresses.add(&section, "admin.listen", Listen { transport: Transport::Tcp, address }, at);
    }
    if let Some(path) = section.checked("cdr", "the path of a file", |text| !text.is_empty()) {
        admin.cdr = Some(path.into());
    }
    if let Some(path) = section.checked("token_file", "the path of a file", |text| !text.is_empty()) {
        admin.token_file = Some(path.into());
    }
    section.finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = "[sip]\nlisten = [\"udp://127.0.0.1:0\"]\n[msrp]\nlisten = [\"tcp://127.0.0.1:0\"]\n";

    #[test]
    fn the_smallest_file_has_every_default() {
        let config = parse("f", SMALLEST).unwrap();
        assert_eq!(config.node.host, "127.0.0.1");
        assert_eq!((config.msrp.high_water, config.policy.deferred_expiry), (262_144, Duration::from_secs(259_200)));
    }

    #[test]
    fn five_mistakes_give_five_messages_with_positions() {
        let text = "[node]\nhots = \"x\"\n[cores]\nmedia = [1, 1]\n[sip]\nlisten = [\"sctp://1.2.3.4:1\", \"udp://127.0.0.1:5060\"]\nt1 = \"5\"\n\
                    [msrp]\nlisten = [\"tcp://127.0.0.1:0\"]\ninterop = \"maybe\"\n";
        let mistakes = parse("pf.toml", text).unwrap_err();
        let shown: Vec<String> = mistakes.iter().map(|mistake| mistake.to_string()).collect();
        assert_eq!(mistakes.len(), 5, "{shown:#?}");
        let places: Vec<(usize, usize)> = mistakes.iter().map(|mistake| (mistake.line, mistake.column)).collect();
        assert_eq!(places, [(2, 1), (4, 13), (6, 11), (7, 6), (10, 11)]);
        assert!(shown[0].starts_with("pf.toml:2:1: unknown key \"hots\" in [node]; accepted: host, release"), "{}", shown[0]);
    }

    /// What is wrong with a file that has these lines beside the smallest ones.
    fn wrong(more: &str) -> Vec<String> {
        let mistakes = parse("f", &format!("{SMALLEST}{more}")).map_or_else(|mistakes| mistakes, |_| Vec::new());
        mistakes.iter().map(|mistake| format!("{}:{}: {}", mistake.line, mistake.column, mistake.what)).collect()
    }

    #[test]
    fn a_mistake_names_the_whole_key_and_what_stands_there() {
        let more =
            "[limits]\ndialogs = -1\n[node]\nhost = 5\ndrain_timeout = 1.5\n[policy]\nmedia = \"message\"\nblacklist = \"yes\"\n";
        let shown = [
            "6:11: limits.dialogs is -1",
            "8:8: node.host is 5",
            "9:17: node.drain_timeout is 1.5",
            "11:9: policy.media is \"message\", no array",
            "12:13: policy.blacklist is \"yes\"",
        ];
        assert_eq!(wrong(more), shown);
    }

    #[test]
    fn what_must_be_given_is_missed_where_its_table_stands() {
        let more = "[registrations]\nuser = [1]\n";
        assert_eq!(wrong(more), ["6:9: registrations.user has 1"]);
        let more = "[[registrations.user]]\n[[registrations.user]]\naddress = \"sip:bob@example.net\"\n[[registrations.user.client]]\nprimary = true\n";
        let shown = ["5:1: registrations.user.address is missing", "8:1: registrations.user.client.contact is missing"];
        assert_eq!(wrong(more), shown);
        let mistakes = parse("f", "[sip]\nlisten = []\n").unwrap_err();
        let shown: Vec<&str> = mistakes.iter().map(|mistake| mistake.what.as_str()).collect();
        assert_eq!(shown, ["sip.listen is empty: nothing is listened to", "msrp.listen is missing: nothing is listened to"]);
    }

    #[test]
    fn an_address_that_stands_twice_is_a_mistake() {
        let text = "[sip]\nlisten = [\"udp://127.0.0.1:5060\", \"tcp://127.0.0.1:5060\", \"tls://0.0.0.0:5060\"]\n[sip.tls]\n\
                    [msrp]\nhost = \"h\"\nlisten = [\"tcp://0.0.0.0:2855\", \"tcp://[::]:2855\", \"tcp://127.0.0.1:0\", \"tcp://127.0.0.1:0\"]\n\
                    [admin]\nlisten = \"127.0.0.1:2855\"\n";
        let mistakes = parse("f", text).unwrap_err();
        let shown: Vec<(usize, &str)> = mistakes.iter().map(|mistake| (mistake.line, mistake.what.as_str())).collect();
        let sip = "sip.listen has tls://0.0.0.0:5060, and sip.listen has tcp://127.0.0.1:5060";
        let admin = "admin.listen has tcp://127.0.0.1:2855, and msrp.listen has tcp://0.0.0.0:2855";
        assert_eq!(shown, [(2, sip), (8, admin)]);
    }

    #[test]
    fn what_no_host_and_no_uri_can_be_is_a_mistake() {
        for right in ["sip:127.0.0.1:5070;lr", "sip:core.example.net", "sips:bob@[::1]:5061;transport=tls", "sip:a:b@h:1?x=y"] {
            assert!(sip_uri(right), "{right}");
        }
        for wrong in
            ["127.0.0.1", "sip:", "sip:;lr", "sip:h:99999", "sip:h:0", "sip:h:", "sip:h:x;lr", "sip:[::1", "sip:a b", "sip:bob@"]
        {
            assert!(!sip_uri(wrong), "{wrong}");
        }
        for (key, wrong_ones) in [
            ("store.history", ["imap://h", "imap://@h", "imap://u@", "imaps://u:p@h:x", "file:", "http://h"]),
            ("xdm.root", ["http://", "http://:::/x y", "http://h:x/root", "https:///root", "file:", "imap://u@h"]),
        ] {
            let (table, name) = key.split_once('.').unwrap();
            for one in wrong_ones {
                let told = wrong(&format!("[{table}]\n{name} = \"{one}\"\n"));
                assert!(told.len() == 1 && told[0].contains(key), "{one}: {told:?}");
            }
        }
        let right = "[store]\nhistory = \"imaps://a%40b:p:w@h:993\"\n[xdm]\nroot = \"https://u:p@h:8443/xcap-root\"\n";
        assert_eq!(wrong(right), [""; 0]);
        assert!(host("pf1.example.net") && host("127.0.0.1") && host("[::1]") && host("::1"));
        assert!(!host("") && !host("a b") && !host("h:5060") && !host("sip:h") && !host("[h]"));
    }

    #[test]
    fn a_file_that_is_not_toml_is_told_with_its_place() {
        let mistakes = parse("f", "[sip\nlisten = 3 3\n").unwrap_err();
        assert!(mistakes.len() >= 2 && mistakes[0].line == 1, "{mistakes:?}");
    }

    #[test]
    fn tls_without_a_certificate_is_a_mistake() {
        let text = SMALLEST.replace("udp://127.0.0.1:0", "tls://127.0.0.1:0");
        assert!(parse("f", &text).unwrap_err()[0].what.contains("without [sip.tls]"));
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let config = parse("f", SMALLEST).unwrap();
        assert_eq!(parse("f", &config.render()).unwrap(), config);
        let sample = include_str!("../../configs/cpm-pf.toml");
        let config = parse("f", sample).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
        assert_eq!(parse("f", &config.render()).unwrap(), config);
    }
}
