//! A scenario: what is sent through which proxy, how fast, for how long, and when the run counts as passed.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// SIP calls alone: INVITE, 200, ACK, hold, BYE, 200.
    Calls,
    /// As fast as back-pressure lets: `window` octets in flight a session.
    Bulk,
    /// One message outstanding a session; the next goes when the last has arrived.
    Closed,
    /// `rate` messages a second over all sessions on a fixed schedule.
    Open,
    /// Sessions begin at `rate` a second, carry `messages` messages each and end.
    Churn,
    /// `messages` large messages for a user who is not registered, who then registers.
    Deferred,
    /// The scenarios under `[[parts]]` at once.
    Mix,
    /// No relay and no MSRP: one thread sends, one receives; the CPU time of both is the bound of any relay that copies.
    Bound,
}

/// How MSRP sessions get through the thing under test.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// No relay: caller to called party.
    Direct,
    /// A blind TCP relay at `relay`, which connects to `called_msrp`.
    Tcp,
    /// A SIP proxy at `proxy` that stays in the media path; it sends on to `called_sip`.
    Sip,
    /// An RFC 4976 relay at `relay` with AUTH (user, password).
    Msrp,
}

/// How much longer than `seconds` a run may last where the machine is too busy for a single unit of work.
pub const LONGER: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    pub name: String,
    pub load: Load,
    pub via: Via,
    /// SIP address of the proxy under test.
    pub proxy: String,
    /// Our SIP addresses on both sides.
    pub caller_sip: String,
    pub called_sip: String,
    /// Our MSRP address on the called side.
    pub called_msrp: String,
    /// Address of a blind or RFC 4976 relay.
    pub relay: String,
    /// MSRP over TLS on both sides, with `cert.pem` and `key.pem` of a folder (`cpm-bench certificate` makes them).
    pub tls: bool,
    pub certificates: PathBuf,
    pub user: String,
    pub password: String,
    /// "udp" or "tcp".
    pub transport: String,
    pub sessions: usize,
    /// Loopback addresses that sessions are spread over on both sides, from 127.0.0.1 upwards (more than 28,000 sockets).
    pub addresses: u8,
    /// Octets of a chunk, and of a message where nothing else is said.
    pub chunk: usize,
    /// Octets of a message that is sent in several chunks; 0: a message is one chunk.
    pub message: usize,
    /// Sizes of messages of one chunk with the weight of each, instead of `chunk`: `[[200, 90], [4000, 10]]`.
    pub sizes: Vec<(usize, u32)>,
    /// Messages of a session (churn), or in all (deferred).
    pub messages: usize,
    /// What a mix is made of: keys of a part that are not given are those of the mix.
    pub parts: Vec<Scenario>,
    /// Called parties that each get every message (`via = "sip"`: contacts that the proxy forks to).
    pub targets: usize,
    /// "orig": the caller is served; "term": the called user is.
    pub served: String,
    /// Name the proxy and our called side in a Route, as an S-CSCF does; else the proxy is to know where calls go.
    pub route: bool,
    /// "session", or "largemsg" for Large Message Mode.
    pub service: String,
    /// Failure-Report of each SEND: "yes", "partial" or "no".
    pub failure_report: String,
    /// Octets in flight a session (bulk).
    pub window: usize,
    /// Messages or calls a second (open loop).
    pub rate: u64,
    /// Seconds of load, after `warmup` seconds that do not count.
    pub seconds: f64,
    pub warmup: f64,
    /// Seconds that MSRP sessions stand silent after the load.
    pub rest: f64,
    /// Sessions whose called party reads only `slow_octets` a second.
    pub slow_readers: usize,
    pub slow_octets: usize,
    /// Compare every octet received with what was sent.
    pub verify: bool,
    /// Calls: milliseconds between ACK and BYE; dialogs that stand before the load begins.
    pub hold_ms: u64,
    pub standing: usize,
    /// Calls: INFO requests a second within the standing dialogs, in turns.
    pub talk: u64,
    /// TCP congestion control of our sockets.
    pub congestion: String,
    /// Pass criteria: nothing lost always; these where given.
    pub pass_p99_us: Option<u64>,
    pub pass_rate: Option<f64>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "unnamed".into(),
            load: Load::Bulk,
            via: Via::Direct,
            proxy: "127.0.0.1:5060".into(),
            caller_sip: "127.0.0.1:5090".into(),
            called_sip: "127.0.0.1:5070".into(),
            called_msrp: "127.0.0.1:28550".into(),
            relay: "127.0.0.1:2860".into(),
            tls: false,
            certificates: PathBuf::from("."),
            user: "alice".into(),
            password: "1234".into(),
            transport: "udp".into(),
            sessions: 1,
            addresses: 1,
            chunk: 65_536,
            message: 0,
            sizes: Vec::new(),
            messages: 1,
            parts: Vec::new(),
            targets: 1,
            served: "orig".into(),
            route: false,
            service: "session".into(),
            failure_report: "no".into(),
            window: 4 << 20,
            rate: 1000,
            seconds: 5.0,
            warmup: 0.5,
            rest: 0.0,
            slow_readers: 0,
            slow_octets: 65_536,
            verify: false,
            hold_ms: 100,
            standing: 0,
            talk: 0,
            congestion: "cubic".into(),
            pass_p99_us: None,
            pass_rate: None,
        }
    }
}

impl Scenario {
    /// Reads a scenario file, if there is one, and sets single keys over it.
    ///
    /// # Errors
    /// The file cannot be read, or a key or its value is none of ours.
    pub fn load(path: Option<&Path>, set: &[String]) -> Result<Self, String> {
        let name = path.map_or("--set".into(), |path| path.display().to_string());
        let text = path.map_or(Ok(String::new()), std::fs::read_to_string).map_err(|error| format!("{name}: {error}"))?;
        let mut table: toml::Table = text.parse().map_err(|error| format!("{name}: {error}"))?;
        for assignment in set {
            let (key, value) = assignment.split_once('=').ok_or(format!("--set {assignment}: KEY=VALUE is wanted"))?;
            let value = value.parse::<toml::Value>().unwrap_or_else(|_| toml::Value::String(value.to_owned()));
            table.insert(key.to_owned(), value);
        }
        inherit(&mut table);
        let scenario: Scenario = table.try_into().map_err(|error| format!("{name}: {error}"))?;
        scenario.check().map_err(|error| format!("{name}: {error}"))?;
        Ok(scenario)
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), String> {
        if (self.load == Load::Mix) == self.parts.is_empty() || self.parts.iter().any(|part| part.load == Load::Mix) {
            return Err("a mix has parts, which are no mixes, and nothing else has".into());
        }
        if self.targets == 0 || self.targets > 64 || self.targets > 1 && self.via != Via::Sip {
            return Err("targets from 1 to 64, and several only by SIP".into());
        }
        if self.chunk == 0 || self.sessions == 0 || self.sessions > 100_000 || !(0.0..=3600.0).contains(&self.seconds) {
            return Err("sessions from 1 to 100000, chunk from 1, seconds up to 3600".into());
        }
        if !self.sizes.is_empty() && self.sizes.iter().all(|(_, weight)| *weight == 0) {
            return Err("sizes without any weight".into());
        }
        if ["udp", "tcp"].iter().all(|known| *known != self.transport) {
            return Err(format!("transport {}: udp or tcp", self.transport));
        }
        if ["yes", "partial", "no"].iter().all(|known| *known != self.failure_report) {
            return Err(format!("failure_report {}: yes, partial or no", self.failure_report));
        }
        self.parts.iter().try_for_each(|part| part.check().map_err(|error| format!("part {}: {error}", part.name)))
    }

    /// Whether the load is over: its time, and something was done in it; or nothing will be.
    pub fn over(&self, now: Instant, end: Instant, done: u64) -> bool {
        now >= end && (done > 0 || now >= end + LONGER)
    }

    /// Octets of a chunk of a message of that size.
    pub fn chunk_of(&self, message: usize) -> usize {
        if self.message > 0 { self.chunk } else { message }.max(1)
    }

    /// Octets of the longest chunk.
    pub fn longest(&self) -> usize {
        self.sizes.iter().map(|(octets, _)| *octets).chain([self.chunk]).max().unwrap_or(0)
    }
}

/// Gives each part of a mix what it does not say itself.
fn inherit(table: &mut toml::Table) {
    let Some(toml::Value::Array(mut parts)) = table.remove("parts") else { return };
    for part in parts.iter_mut().filter_map(toml::Value::as_table_mut) {
        for (key, value) in table.iter() {
            part.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    table.insert("parts".into(), parts.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        std::fs::read_dir(folder).expect("bench/scenarios").map(|entry| entry.expect("an entry").path()).collect()
    }

    #[test]
    fn every_scenario_file_is_sound_and_the_handbook_names_it() {
        let handbook = include_str!("../README.md");
        for path in files() {
            let scenario = Scenario::load(Some(&path), &[]).unwrap_or_else(|error| panic!("{error}"));
            let file = path.file_name().expect("a file").to_string_lossy();
            assert_eq!(format!("{}.toml", scenario.name), file);
            assert!(handbook.contains(&format!("`{file}`")), "bench/README.md does not name {file}");
        }
    }

    #[test]
    fn every_kind_of_load_has_a_file() {
        let loads: Vec<Load> = files().iter().map(|path| Scenario::load(Some(path), &[]).expect("sound").load).collect();
        for load in [Load::Calls, Load::Bulk, Load::Closed, Load::Open, Load::Churn, Load::Deferred, Load::Mix, Load::Bound] {
            assert!(loads.contains(&load), "{load:?}");
        }
    }

    #[test]
    fn a_key_nobody_knows_and_a_value_that_means_nothing_are_told() {
        let set = |text: &str| Scenario::load(None, &[text.to_owned()]).expect_err("refused");
        assert!(set("sesions=3").contains("sesions"));
        assert!(set("load=mix").contains("a mix has parts"));
        assert!(set("transport=sctp").contains("udp or tcp"));
        assert!(set("failure_report=maybe").contains("yes, partial or no"));
        assert!(set("sizes=[[10, 0]]").contains("weight"));
        assert!(set("targets=3").contains("by SIP"));
    }

    #[test]
    fn a_part_has_the_keys_of_its_mix() {
        let mix = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/mix.toml");
        let mix = Scenario::load(Some(&mix), &["seconds=3".to_owned(), "proxy=127.0.0.1:7".to_owned()]).expect("sound");
        assert!(mix.parts.iter().all(|part| part.seconds == 3.0 && part.proxy == "127.0.0.1:7"));
        assert!(mix.parts.iter().all(|part| part.route && part.name != mix.name));
    }
}
