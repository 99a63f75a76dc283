//! From a TOML file to a [`Config`]: the whole file is read, and every mistake is told with its line and column.

mod listening;
mod policy;
mod registrations;
mod text;

use self::listening::{Addresses, msrp, sip};
use self::policy::policy;
use self::registrations::registrations;
use self::text::{HOST, host, server};
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
    fn what_no_server_can_be_is_a_mistake() {
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
