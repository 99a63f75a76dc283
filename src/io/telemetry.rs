//! Metrics: what each core counted, added up and written as Prometheus reads it (text format 0.0.4).
//!
//! Counters are plain numbers on the core that counts; a scrape asks every core for a copy over its lane, so no core ever
//! writes to a line of memory that another one reads.

use crate::base::clock::{Duration, Instant};
use crate::cpm::decision::Service;
use crate::cpm::facts::Role;
use crate::io::services::message_store::Counts as HistoryCounts;
use crate::shard::counts::{Counts, Direction, Outcome, case_label, service_label};
use crate::shard::media::{Cause, MediaCounts};
use crate::sip::method::Method;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What a thread used of its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// The CPU the thread is pinned to.
    pub cpu: usize,
    /// CPU time of the thread since its start, and how long it has run.
    pub busy: Duration,
    pub alive: Duration,
}

/// What a signalling core says of itself.
#[derive(Debug)]
pub struct SignallingSnapshot {
    pub usage: Usage,
    pub counts: Counts,
    /// What it holds beside dialogs and connections, by kind.
    pub held: Vec<(&'static str, u64)>,
    /// Messages and reports that waited at the start of the fullest turn since the last scrape.
    pub queue_depth: u64,
    pub connections: u64,
    /// Share of new calls that the kernel drops at its datagram sockets, 0 to 1.
    pub dropped_share: f64,
    /// Connections ended, datagrams and messages dropped by the engine, by cause.
    pub engine: BTreeMap<&'static str, u64>,
}

/// What a media core says of itself.
#[derive(Debug)]
pub struct MediaSnapshot {
    pub usage: Usage,
    pub counts: MediaCounts,
    pub held: Vec<(&'static str, u64)>,
    /// What its engine counts, by name.
    pub engine: Vec<(&'static str, u64)>,
    pub queue_depth: u64,
}

/// One scrape: every core that answered.
#[derive(Debug, Default)]
pub struct Scrape {
    pub signalling: Vec<SignallingSnapshot>,
    pub media: Vec<MediaSnapshot>,
    pub services: Option<Usage>,
    pub cdr_dropped: u64,
    /// Messages in the deferred store.
    pub deferred: u64,
    /// Objects that wait for the history.
    pub history: HistoryCounts,
}

/// Upper bounds of histogram buckets, in seconds: from a microsecond to half a minute.
const BUCKETS: [f64; 20] = [
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 5.0, 10.0, 30.0,
];

/// Writes metrics, and remembers from scrape to scrape what busy ratios are made of.
#[derive(Debug, Default)]
pub struct Exposition {
    before: BTreeMap<(usize, &'static str), Usage>,
}

impl Exposition {
    /// The page of one scrape.
    pub fn write(&mut self, scrape: &Scrape) -> String {
        let mut page = Page::default();
        page.family("cpm_pf_build_info", "gauge", "The version that runs.");
        page.line("cpm_pf_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        sip(&mut page, &scrape.signalling);
        msrp(&mut page, &scrape.media);
        rejections(&mut page, scrape);
        engine(&mut page, scrape);
        self.cores(&mut page, scrape);
        page.text
    }

    fn cores(&mut self, page: &mut Page, scrape: &Scrape) {
        page.family(
            "cpm_pf_queue_depth",
            "gauge",
            "What waited for a core at the start of its fullest turn since the last scrape.",
        );
        let mut depths: BTreeMap<usize, u64> = BTreeMap::new();
        let signalling = scrape.signalling.iter().map(|core| (core.usage.cpu, core.queue_depth));
        for (cpu, depth) in signalling.chain(scrape.media.iter().map(|core| (core.usage.cpu, core.queue_depth))) {
            *depths.entry(cpu).or_default() += depth;
        }
        for (cpu, depth) in depths {
            page.line("cpm_pf_queue_depth", &[("core", &cpu.to_string())], depth as f64);
        }

        page.family(
            "cpm_pf_overload_drop_ratio",
            "gauge",
            "Share of new calls that is dropped without an answer, where to refuse them all would take too much.",
        );
        for core in &scrape.signalling {
            page.line("cpm_pf_overload_drop_ratio", &[("core", &core.usage.cpu.to_string())], core.dropped_share);
        }

        page.family("cpm_pf_core_busy_ratio", "gauge", "CPU time over elapsed time of a thread since the last scrape.");
        let signalling = scrape.signalling.iter().map(|core| (core.usage, "signaling"));
        let media = scrape.media.iter().map(|core| (core.usage, "media"));
        for (usage, role) in signalling.chain(media).chain(scrape.services.map(|usage| (usage, "services"))) {
            let ratio = self.ratio(usage, role);
            page.line("cpm_pf_core_busy_ratio", &[("core", &usage.cpu.to_string()), ("role", role)], ratio);
        }
    }

    fn ratio(&mut self, usage: Usage, role: &'static str) -> f64 {
        let before = self.before.insert((usage.cpu, role), usage).unwrap_or_default();
        let elapsed = usage.alive.saturating_sub(before.alive).as_secs_f64();
        let busy = usage.busy.saturating_sub(before.busy).as_secs_f64();
        if elapsed > 0.0 { (busy / elapsed).min(1.0) } else { 0.0 }
    }
}

fn sip(page: &mut Page, cores: &[SignallingSnapshot]) {
    let counts = || cores.iter().map(|core| &core.counts);

    let mut requests: BTreeMap<(Method, Direction), u64> = BTreeMap::new();
    let mut responses: BTreeMap<(Method, u16, Direction), u64> = BTreeMap::new();
    let mut invites: BTreeMap<(Role, Option<Service>, Outcome), u64> = BTreeMap::new();
    for core in counts() {
        add(&mut requests, &core.requests);
        add(&mut responses, &core.responses);
        add(&mut invites, &core.invites);
    }
    page.family("cpm_pf_sip_requests_total", "counter", "SIP requests received and sent.");
    for ((method, direction), count) in requests {
        page.line("cpm_pf_sip_requests_total", &[("method", method.as_str()), ("direction", direction.as_str())], count as f64);
    }
    page.family("cpm_pf_sip_responses_total", "counter", "SIP responses received and sent.");
    for ((method, code, direction), count) in responses {
        let labels = [("method", method.as_str()), ("code", &code.to_string()), ("direction", direction.as_str())];
        page.line("cpm_pf_sip_responses_total", &labels, count as f64);
    }
    page.single("cpm_pf_dialogs", "gauge", "SIP dialogs that live.", counts().map(|core| core.dialogs).sum());
    page.family("cpm_pf_invites_total", "counter", "Initial INVITE requests by what became of them.");
    for ((role, service, outcome), count) in invites {
        let labels = [("case", case_label(role)), ("service", service_label(service)), ("outcome", outcome.as_str())];
        page.line("cpm_pf_invites_total", &labels, count as f64);
    }
    page.histogram(
        "cpm_pf_signaling_seconds",
        "From an INVITE to the first answer beyond 100.",
        counts().map(|core| &core.latency_us),
        1e-6,
    );
}

fn msrp(page: &mut Page, cores: &[MediaSnapshot]) {
    let counts = || cores.iter().map(|core| &core.counts);
    page.single("cpm_pf_msrp_sessions", "gauge", "MSRP sessions that live.", counts().map(|core| core.sessions).sum());
    page.single(
        "cpm_pf_msrp_connections",
        "gauge",
        "MSRP connections that are open.",
        counts().map(|core| core.connections).sum(),
    );
    for (name, help, of) in [
        ("cpm_pf_msrp_chunks_total", "MSRP chunks relayed.", (|core| core.chunks) as fn(&MediaCounts) -> [u64; 2]),
        ("cpm_pf_msrp_bytes_total", "Octets of MSRP bodies relayed.", |core| core.octets),
        ("cpm_pf_msrp_messages_total", "MSRP messages relayed whole.", |core| core.messages),
    ] {
        page.family(name, "counter", help);
        for (at, direction) in ["forward", "backward"].into_iter().enumerate() {
            page.line(name, &[("direction", direction)], counts().map(|core| of(core)[at]).sum::<u64>() as f64);
        }
    }
    let help = "From the last octet of a chunk in to its last octet handed to the kernel.";
    page.histogram("cpm_pf_msrp_relay_seconds", help, counts().map(|core| &core.relay), 1e-9);
    let mut engines: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (count, value) in cores.iter().flat_map(|core| &core.engine) {
        *engines.entry(count).or_default() += value;
    }
    let help =
        "What the media engines did: waits, receives, sends, octets of each, octets copied on the way, and what was scarce.";
    page.family("cpm_pf_msrp_engine_total", "counter", help);
    for (count, value) in engines {
        page.line("cpm_pf_msrp_engine_total", &[("count", count)], value as f64);
    }
}

fn rejections(page: &mut Page, scrape: &Scrape) {
    let mut rejections: BTreeMap<(&'static str, u16), u64> = BTreeMap::new();
    for core in &scrape.signalling {
        add(&mut rejections, &core.counts.rejections);
    }
    page.family("cpm_pf_rejections_total", "counter", "Requests refused, by the clause that refused them and the code they got.");
    for ((clause, code), count) in rejections {
        page.line("cpm_pf_rejections_total", &[("clause", clause), ("code", &code.to_string())], count as f64);
    }
    page.family("cpm_pf_msrp_refusals_total", "counter", "MSRP requests refused and connections closed, by cause.");
    for cause in Cause::ALL {
        let count = scrape.media.iter().map(|core| core.counts.of(cause)).sum::<u64>();
        page.line("cpm_pf_msrp_refusals_total", &[("cause", cause.name())], count as f64);
    }
}

fn engine(page: &mut Page, scrape: &Scrape) {
    page.single("cpm_pf_deferred_messages", "gauge", "Messages that wait for a client of their recipient.", scrape.deferred);
    page.family("cpm_pf_history_waiting", "gauge", "Objects on disk for a history that is away, or that refused them before.");
    page.line("cpm_pf_history_waiting", &[("cause", "away")], scrape.history.away as f64);
    page.line("cpm_pf_history_waiting", &[("cause", "refused")], scrape.history.refused as f64);
    let given_up = scrape.history.given_up;
    page.single("cpm_pf_history_given_up_total", "counter", "Objects that the history refused to the end.", given_up);
    let malformed = scrape.signalling.iter().map(|core| core.counts.malformed).sum();
    page.single("cpm_pf_sip_malformed_total", "counter", "What came in and was no SIP message.", malformed);
    let connections = scrape.signalling.iter().map(|core| core.connections).sum();
    page.single("cpm_pf_sip_connections", "gauge", "SIP connections that are open.", connections);
    let mut held: BTreeMap<(&'static str, &'static str), u64> = BTreeMap::new();
    let signalling = scrape.signalling.iter().flat_map(|core| core.held.iter().map(|held| ("signaling", held)));
    let media = scrape.media.iter().flat_map(|core| core.held.iter().map(|held| ("media", held)));
    for (role, (kind, count)) in signalling.chain(media) {
        *held.entry((role, kind)).or_default() += count;
    }
    page.family("cpm_pf_held", "gauge", "What the cores hold beside dialogs and connections; it comes to nothing at rest.");
    for ((role, kind), count) in held {
        page.line("cpm_pf_held", &[("role", role), ("kind", kind)], count as f64);
    }
    let mut causes: BTreeMap<&'static str, u64> = BTreeMap::new();
    for core in &scrape.signalling {
        add(&mut causes, &core.engine);
    }
    page.family(
        "cpm_pf_sip_transport_total",
        "counter",
        "Connections ended and messages dropped by the SIP transport, by cause.",
    );
    for (cause, count) in causes {
        page.line("cpm_pf_sip_transport_total", &[("cause", cause)], count as f64);
    }
    page.single("cpm_pf_cdr_dropped_total", "counter", "Call records dropped because the file was too slow.", scrape.cdr_dropped);
}

fn add<K: Ord + Copy>(sum: &mut BTreeMap<K, u64>, counts: &BTreeMap<K, u64>) {
    for (key, count) in counts {
        *sum.entry(*key).or_default() += count;
    }
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.family(name, kind, help);
        self.line(name, &[], value as f64);
    }

    /// Histograms of several cores as one; `unit` is a recorded 1 in seconds.
    fn histogram<'h>(&mut self, name: &str, help: &str, parts: impl Iterator<Item = &'h Histogram<u64>>, unit: f64) {
        self.family(name, "histogram", help);
        let mut below = [0u64; BUCKETS.len()];
        let (mut count, mut sum) = (0u64, 0.0);
        for recorded in parts.flat_map(|part| part.iter_recorded()) {
            let seconds = recorded.value_iterated_to() as f64 * unit;
            let times = recorded.count_at_value();
            count += times;
            sum += seconds * times as f64;
            for (bucket, bound) in below.iter_mut().zip(BUCKETS) {
                *bucket += if seconds <= bound { times } else { 0 };
            }
        }
        let bucket = format!("{name}_bucket");
        for (count, bound) in below.into_iter().zip(BUCKETS) {
            self.line(&bucket, &[("le", &bound.to_string())], count as f64);
        }
        self.line(&bucket, &[("le", "+Inf")], count as f64);
        self.line(&format!("{name}_sum"), &[], sum);
        self.line(&format!("{name}_count"), &[], count as f64);
    }
}

/// The usage of the calling thread, which began at `started` and is pinned to `cpu`.
pub fn usage(cpu: usize, started: Instant, now: Instant) -> Usage {
    Usage { cpu, busy: super::clock::thread_cpu(), alive: now.since(started) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape() -> Scrape {
        let mut counts = Counts::default();
        counts.request(Method::Invite, Direction::In);
        counts.response(Method::Invite, 403, Direction::Out);
        counts.invite(Role::Originating, Some(Service::LargeMessage), Outcome::Refused);
        counts.rejection("OLM-1", 403);
        counts.latency(Duration::from_micros(400));
        let usage = Usage { cpu: 0, busy: Duration::from_secs(1), alive: Duration::from_secs(4) };
        let signalling = SignallingSnapshot {
            usage,
            counts,
            held: vec![("timers", 6)],
            queue_depth: 3,
            connections: 1,
            dropped_share: 0.25,
            engine: BTreeMap::from([("idle", 2)]),
        };
        let engine = vec![("receives", 5)];
        let media = MediaSnapshot {
            usage: Usage { cpu: 1, ..usage },
            counts: MediaCounts::default(),
            held: Vec::new(),
            engine,
            queue_depth: 0,
        };
        Scrape { signalling: vec![signalling], media: vec![media], services: None, ..Scrape::default() }
    }

    #[test]
    fn every_metric_of_the_manual_is_on_the_page() {
        let page = Exposition::default().write(&scrape());
        for line in [
            "cpm_pf_build_info{version=\"",
            "cpm_pf_sip_requests_total{method=\"INVITE\",direction=\"in\"} 1",
            "cpm_pf_sip_responses_total{method=\"INVITE\",code=\"403\",direction=\"out\"} 1",
            "cpm_pf_dialogs 0",
            "cpm_pf_invites_total{case=\"originating\",service=\"large-message\",outcome=\"refused\"} 1",
            "cpm_pf_rejections_total{clause=\"OLM-1\",code=\"403\"} 1",
            "cpm_pf_msrp_sessions 0",
            "cpm_pf_msrp_connections 0",
            "cpm_pf_msrp_chunks_total{direction=\"forward\"} 0",
            "cpm_pf_msrp_bytes_total{direction=\"backward\"} 0",
            "cpm_pf_msrp_relay_seconds_bucket{le=\"0.001\"} 0",
            "cpm_pf_msrp_engine_total{count=\"receives\"} 5",
            "cpm_pf_signaling_seconds_bucket{le=\"0.0005\"} 1",
            "cpm_pf_signaling_seconds_count 1",
            "cpm_pf_queue_depth{core=\"0\"} 3",
            "cpm_pf_held{role=\"signaling\",kind=\"timers\"} 6",
            "cpm_pf_deferred_messages 0",
            "cpm_pf_core_busy_ratio{core=\"0\",role=\"signaling\"} 0.25",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn a_busy_ratio_is_of_the_time_since_the_last_scrape() {
        let mut exposition = Exposition::default();
        exposition.write(&scrape());
        let mut later = scrape();
        later.signalling[0].usage.busy += Duration::from_secs(1);
        later.signalling[0].usage.alive += Duration::from_secs(2);
        assert!(exposition.write(&later).contains("cpm_pf_core_busy_ratio{core=\"0\",role=\"signaling\"} 0.5"));
    }
}
