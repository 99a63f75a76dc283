//! The configuration as the program uses it: every key of `docs/manual.md` with its default.
//!
//! Sizes are octets, durations `Duration`. Reading a file into this, with a position in every mistake, is `read`'s;
//! writing it out again, with all defaults filled in, is `render`'s.

pub mod read;
pub mod render;
pub mod secret;
mod section;
pub mod value;

use crate::limits;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub node: Node,
    pub cores: Cores,
    pub sip: Sip,
    pub msrp: Msrp,
    pub policy: Policy,
    pub registrations: Registrations,
    pub xdm: Xdm,
    pub store: Store,
    pub limits: Limits,
    pub admin: Admin,
}

/// `[node]`: who we are.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Host of our own URIs: Contact, Record-Route, Via sent-by, Warning warn-agent.
    pub host: String,
    /// CPM release as printed in User-Agent and Server, "OMA2.2".
    pub release: String,
    pub drain_timeout: Duration,
    /// The UNIX socket at which this process hands its listening sockets over to the next; none: it does not.
    pub handover: Option<PathBuf>,
    /// How long the sessions of a process may go on that was taken over from.
    pub handover_timeout: Duration,
}

/// `[cores]`: CPU numbers, one pinned thread each.
#[derive(Clone, Debug, PartialEq)]
pub struct Cores {
    pub signaling: Vec<usize>,
    pub media: Vec<usize>,
    pub sqpoll: bool,
}

/// A listening address of `[sip]` or `[msrp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listen {
    pub transport: crate::base::transport::Transport,
    pub address: SocketAddr,
}

/// `[sip]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sip {
    pub listen: Vec<Listen>,
    /// Next hop into the SIP/IP core, a SIP URI; none: the client's contact when terminating, else RFC 3263.
    pub core: Option<String>,
    /// Interworking Selection Function, a SIP URI.
    pub isf: Option<String>,
    /// Peers whose asserted identities are believed.
    pub trusted: Vec<Network>,
    pub home_domains: Vec<String>,
    pub t1: Duration,
    pub max_message: usize,
    /// How long a core under load gathers messages before it takes its turn.
    pub batch_wait: BatchWait,
    pub tls: Option<Tls>,
    /// Where copies of all SIP messages go; none: nowhere.
    pub hep: Option<Hep>,
}

/// `[sip.hep]`: a capture server (Homer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hep {
    pub collector: SocketAddr,
    /// Which capture agent we are.
    pub capture_id: u32,
}

/// An address range, "127.0.0.0/8".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: std::net::IpAddr,
    pub prefix: u8,
}

impl Network {
    /// Whether the address lies in this range. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.address.to_canonical(), address.to_canonical()) {
            (V4(net), V4(host)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                shift == 32 || (u32::from(net) >> shift) == (u32::from(host) >> shift)
            }
            (V6(net), V6(host)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                shift == 128 || (u128::from(net) >> shift) == (u128::from(host) >> shift)
            }
            _ => false,
        }
    }
}

/// `[sip.tls]` or `[msrp.tls]`: PEM files.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: Option<PathBuf>,
    pub verify_client: bool,
}

/// `msrp.interop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interop {
    Never,
    Auto,
    Always,
}

/// `sip.batch_wait`, `msrp.batch_wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchWait {
    Auto,
    At(Duration),
}

/// `[msrp]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Msrp {
    pub listen: Vec<Listen>,
    /// Host in our own MSRP URIs and c= lines; none: the listening address.
    pub host: Option<String>,
    pub interop: Interop,
    pub connect_timeout: Duration,
    pub transaction_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_message: u64,
    pub high_water: usize,
    pub batch_wait: BatchWait,
    /// TCP congestion control of both legs; empty: the system's.
    pub congestion: String,
    /// Long bodies are sent from the buffers they came in on, without a copy, where the kernel can.
    pub zero_copy_send: bool,
    pub tls: Option<Tls>,
}

/// `policy.anonymity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymity {
    Allow,
    Reject,
}

/// `policy.other_service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherService {
    Reject,
    Pass,
}

/// `policy.preferred_service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreferredService {
    AcceptContact,
    Configured,
}

/// `policy.delivery`: what becomes of a message when no suitable client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Defer,
    Interwork,
    Reject,
}

/// `policy.expired_message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredMessage {
    Reject,
    Deliver,
}

/// `policy.session_answer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAnswer {
    Early,
    Late,
}

/// `policy.session_clients`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionClients {
    All,
    First,
}

/// `policy.isf_service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsfService {
    AsWritten,
    LargeMessage,
}

/// `[policy]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub authorised_originators: Vec<String>,
    pub user_agents: Vec<String>,
    pub anonymity: Anonymity,
    pub other_service: OtherService,
    pub preferred_service: PreferredService,
    pub default_service: String,
    pub stay_in_media_path: bool,
    pub large_message_session_expires: Duration,
    pub session_session_expires: Duration,
    pub min_se: Duration,
    /// What RFC 4028 §5 sets to 90 s: no session interval is below it. Less is for laboratories.
    pub session_floor: Duration,
    pub media: Vec<String>,
    pub media_formats: Vec<String>,
    pub retry_rejected_media: bool,
    pub deliver_to_own_clients: bool,
    pub isf_without_primary_device: bool,
    pub delivery: Delivery,
    pub deferred_expiry: Duration,
    pub expired_message: ExpiredMessage,
    pub session_answer: SessionAnswer,
    pub session_clients: SessionClients,
    pub isf_service: IsfService,
    pub blacklist: bool,
    pub record_history: bool,
    /// Record every session, whatever the users' rules say (8.2.2.1 answer step 7: "or if the recording is enabled").
    pub record_sessions: bool,
}

/// `registrations.source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationSource {
    Static,
    RegEvent,
}

/// `[registrations]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Registrations {
    pub source: RegistrationSource,
    pub users: Vec<RegisteredUser>,
    pub registrar: Option<String>,
}

/// `[[registrations.user]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RegisteredUser {
    pub address: String,
    pub clients: Vec<RegisteredClient>,
}

/// `[[registrations.user.client]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RegisteredClient {
    pub contact: String,
    pub instance: Option<String>,
    pub gruu: Option<String>,
    /// Short names ("largemsg", "session", "msg") or whole ICSIs.
    pub features: Vec<String>,
    pub user_agent: Option<String>,
    pub primary: bool,
}

/// `[xdm]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Xdm {
    /// "file:DIR", "http://…" or "https://…".
    pub root: String,
    pub cache: Duration,
    pub blacklist_standalone: String,
    pub blacklist_chat: String,
}

/// `[store]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Store {
    pub history: String,
    pub deferred: String,
    pub spool: PathBuf,
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub dialogs: usize,
    pub sessions_per_originator: usize,
    pub new_calls_per_second: u32,
    pub overload_queue_delay: Duration,
    /// How much of a signalling core's time may go into refusals; 100: as much as they take, and no call is dropped.
    pub overload_refusal_percent: u32,
    /// SIP connections of one address, and requests a second of one (0: any number), where it is not in `sip.trusted`; of each core.
    pub connections_per_peer: usize,
    pub requests_per_second_per_peer: u32,
    /// MSRP connections of one address that name no session yet, and how long they may; of each core.
    pub unbound_msrp_per_peer: u32,
    pub unbound_timeout: Duration,
    /// TLS handshakes of one core under way, and how long one may take; as long a SIP message may take to its last octet.
    pub handshakes: usize,
    pub opening_timeout: Duration,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub listen: Option<SocketAddr>,
    pub cdr: Option<PathBuf>,
    /// A file with the bearer token that requests must bring; none: whoever reaches the address may ask.
    pub token_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Config {
            node: Node {
                host: "localhost".into(),
                release: "OMA2.2".into(),
                drain_timeout: seconds(60),
                handover: None,
                handover_timeout: seconds(3600),
            },
            cores: Cores { signaling: vec![0], media: vec![0], sqpoll: false },
            sip: Sip {
                listen: Vec::new(),
                core: None,
                isf: None,
                trusted: Vec::new(),
                home_domains: Vec::new(),
                t1: Duration::from_millis(500),
                max_message: 64 * 1024,
                batch_wait: BatchWait::Auto,
                tls: None,
                hep: None,
            },
            msrp: Msrp {
                listen: Vec::new(),
                host: None,
                interop: Interop::Never,
                connect_timeout: seconds(5),
                transaction_timeout: seconds(30),
                idle_timeout: seconds(15 * 60),
                max_message: 100 * 1024 * 1024,
                high_water: 256 * 1024,
                batch_wait: BatchWait::Auto,
                congestion: String::new(),
                zero_copy_send: false,
                tls: None,
            },
            policy: Policy {
                authorised_originators: Vec::new(),
                user_agents: Vec::new(),
                anonymity: Anonymity::Allow,
                other_service: OtherService::Reject,
                preferred_service: PreferredService::AcceptContact,
                default_service: "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session".into(),
                stay_in_media_path: true,
                large_message_session_expires: seconds(29 * 60),
                session_session_expires: seconds(30 * 60),
                min_se: seconds(90),
                session_floor: seconds(90),
                media: vec!["message".into()],
                media_formats: Vec::new(),
                retry_rejected_media: true,
                deliver_to_own_clients: false,
                isf_without_primary_device: false,
                delivery: Delivery::Defer,
                deferred_expiry: seconds(72 * 3600),
                expired_message: ExpiredMessage::Reject,
                session_answer: SessionAnswer::Early,
                session_clients: SessionClients::All,
                isf_service: IsfService::AsWritten,
                blacklist: true,
                record_history: true,
                record_sessions: false,
            },
            registrations: Registrations { source: RegistrationSource::Static, users: Vec::new(), registrar: None },
            xdm: Xdm {
                root: "file:configs/xdm".into(),
                cache: seconds(60),
                blacklist_standalone: "oma_blockedcontacts".into(),
                blacklist_chat: "oma_blockedcontacts".into(),
            },
            store: Store {
                history: "file:var/history".into(),
                deferred: "file:var/deferred".into(),
                spool: PathBuf::from("var/spool"),
            },
            limits: Limits {
                dialogs: 200_000,
                sessions_per_originator: 20,
                new_calls_per_second: 0,
                overload_queue_delay: Duration::from_millis(50),
                overload_refusal_percent: 5,
                connections_per_peer: limits::SIP_CONNECTIONS_PER_PEER,
                requests_per_second_per_peer: limits::SIP_REQUESTS_PER_PEER,
                unbound_msrp_per_peer: limits::MSRP_UNBOUND_PER_PEER,
                unbound_timeout: limits::MSRP_UNBOUND_TIME,
                handshakes: limits::HANDSHAKES,
                opening_timeout: limits::OPENING_TIME,
            },
            admin: Admin { listen: None, cdr: None, token_file: None },
        }
    }
}
