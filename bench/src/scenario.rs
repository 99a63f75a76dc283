//! A scenario: what is sent through which proxy, how fast, for how long, and when the run counts as passed.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
    /// Sessions whose called party reads only `slow_octets` a second.
    pub slow_readers: usize,
    pub slow_octets: usize,
    /// Compare every octet received with what was sent.
    pub verify: bool,
    /// Calls: milliseconds between ACK and BYE; dialogs that stand before the load begins.
    pub hold_ms: u64,
    pub standing: usize,
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
            slow_readers: 0,
            slow_octets: 65_536,
            verify: false,
            hold_ms: 100,
            standing: 0,
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
        if (scenario.load == Load::Mix) == scenario.parts.is_empty() || scenario.parts.iter().any(|part| part.load == Load::Mix) {
            return Err("a mix has parts, which are no mixes, and nothing else has".into());
        }
        if scenario.targets == 0 || scenario.targets > 64 || scenario.targets > 1 && scenario.via != Via::Sip {
            return Err("targets from 1 to 64, and several only by SIP".into());
        }
        if scenario.chunk == 0 || scenario.sessions == 0 || scenario.sessions > 100_000 || scenario.seconds > 3600.0 {
            return Err("sessions from 1 to 100000, chunk from 1, seconds up to 3600".into());
        }
        Ok(scenario)
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
