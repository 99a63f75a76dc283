//! CR 8.3.1.6 in a world of its own: the real signalling shard, a store whose disk fails, a network that loses and doubles, a
//! process that dies at any moment, a client that comes and goes, and a sender that wants to hear of failures. The media core plays
//! from a script.
//!
//! ```text
//!   alice ~~~ INVITE ~~~> shard ── Defer, Waiting, Claim, Remove, Return ──> store (fails, forgets answers when we die)
//!         <~~ notice ~~~        ~~~ INVITE ~~~> bob (takes it, is busy, declines, is silent, is not registered)
//! ```
//! Phase 1: faults and deaths. Phase 2: none; Bob is there and takes what comes. Then the sums must agree: what was accepted was
//! delivered, or Bob declined it or its time was over and its sender was told.

mod peers;
mod store;

use self::store::Store;
use crate::agenda::Agenda;
use cpm_pf::base::clock::{Duration, Instant};
use cpm_pf::base::prng::Prng;
use cpm_pf::base::transport::{Destination, Flow, Transport};
use cpm_pf::config::{Config, Listen, RegisteredClient, RegisteredUser};
use cpm_pf::shard::exchange::{
    Command, Document, Fetched, LegIndex, LegKind, MediaKey, Query, Report, Resolved, StoreFailure, Stored, Ticket, Totals,
};
use cpm_pf::shard::outbox::{Effect, Outbox};
use cpm_pf::shard::signalling::{Bound, Signalling};
use cpm_pf::sip::header::name::Name;
use cpm_pf::sip::message::{Incoming, Request};
use cpm_pf::store::deferred::{Deferred, DeferredId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// How long a claim holds, and a message whose notice is under way (limits.rs).
const LEASE_S: u64 = cpm_pf::limits::DEFERRED_LEASE.as_secs();
const NOTICE_S: u64 = cpm_pf::limits::NOTICE_LEASE.as_secs();
const BEGAN_S: u64 = 1_700_000_000;
/// The first phase; and the second, in which leases and back-offs run out.
const FAULTS_S: u64 = 1_800;
const CALM_S: u64 = 4 * 3_600;

/// A rule broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canary {
    None,
    /// The store says that it has what it has not.
    Lying,
    /// The store forgets what it was told to remove.
    Forgetful,
}

enum Happening {
    Datagram {
        from: SocketAddr,
        text: String,
    },
    Report(Report),
    Fetched(Ticket, Fetched),
    Call(usize),
    /// Alice asks; and again, while nobody has answered.
    Asks {
        branch: String,
        text: String,
    },
    AsksAgain {
        branch: String,
        tries: u32,
    },
    Register(bool),
    Sweep,
    Death,
}

/// What became of one of Alice's messages.
#[derive(Default)]
struct Fate {
    call: String,
    /// `To` of the first 2xx that Alice heard.
    dialog: String,
    wishes: bool,
    /// Alice's message went out.
    sent: bool,
    accepted: bool,
    refused: bool,
    delivered: u32,
    declined: bool,
    told: u32,
    /// Deaths between a delivery and its removal: nobody can know of it (RFC 4975 has no third party).
    excused: u32,
}

pub struct World {
    now: Instant,
    seed: u64,
    canary: Canary,
    prng: Prng,
    agenda: Agenda<Happening>,
    shard: Signalling,
    deaths: u64,
    registered: bool,
    store: Store,
    fates: Vec<Fate>,
    /// Media sessions of the living process: its sinks and its source.
    sinks: BTreeMap<MediaKey, LegIndex>,
    source: Option<(MediaKey, String)>,
    /// Sources' sessions whose INVITE Bob accepted, whether he then refuses the message, and which it is.
    accepting: BTreeMap<MediaKey, (bool, String)>,
    /// What Alice asked and nobody has answered, by branch.
    unanswered: BTreeMap<String, String>,
    /// What a peer said to a request, by Call-ID and CSeq; nothing where it keeps silent. A request that comes again hears the same.
    answered: BTreeMap<String, String>,
    /// Thousandths of datagrams that are lost, and that come twice.
    losing: u64,
    doubling: u64,
    /// Thousandths in which the disk fails.
    failing: u64,
    calm: bool,
    pub failures: Vec<String>,
    pub accepted: u64,
    pub delivered: u64,
    pub told: u64,
    pub kills: u64,
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 5060))
}

fn config(registered: bool) -> Arc<Config> {
    let mut config = Config::default();
    config.node.host = "10.0.0.1".into();
    config.sip.listen = vec![Listen { transport: Transport::Udp, address: at(1) }];
    config.sip.trusted = vec![cpm_pf::config::value::network("10.0.0.0/8").expect("a network")];
    config.sip.home_domains = vec!["example.net".into()];
    config.msrp.listen = vec![Listen { transport: Transport::Tcp, address: SocketAddr::from(([10, 0, 0, 1], 2855)) }];
    config.policy.authorised_originators = vec!["sip:*@example.net".into()];
    config.limits.sessions_per_originator = 1000;
    let client = RegisteredClient {
        contact: "sip:bob@10.0.0.3:5060".into(),
        instance: Some("<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6b01>".into()),
        gruu: None,
        features: vec!["largemsg".into()],
        user_agent: None,
        primary: true,
    };
    let clients = if registered { vec![client] } else { Vec::new() };
    config.registrations.users = vec![RegisteredUser { address: "sip:bob@example.net".into(), clients }];
    Arc::new(config)
}

fn shard(seed: u64, registered: bool) -> Signalling {
    let config = config(registered);
    let bound = Bound { sip: config.sip.listen.clone(), msrp: config.msrp.listen.clone(), media_cores: 1, ..Bound::default() };
    Signalling::new(0, config, bound, Prng::seeded(seed))
}

fn sdp(host: &str, attributes: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=message 9 TCP/MSRP *\r\na=accept-types:message/cpim text/plain\r\na=accept-wrapped-types:*\r\na=path:msrp://{host}:9/x;tcp\r\n{attributes}"
    )
}

/// A response of a peer's to a request of ours.
fn answer(request: &Request, status: &str, fields: &str, body: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for name in [Name::Via, Name::RecordRoute, Name::From, Name::To, Name::CallId, Name::CSeq] {
        for value in request.lines(name) {
            let tag = if name == Name::To && !value.contains(";tag=") { ";tag=peer" } else { "" };
            text.push_str(&format!("{}: {value}{tag}\r\n", name.as_str()));
        }
    }
    format!("{text}{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

impl World {
    pub fn new(seed: u64, canary: Canary) -> Self {
        let mut prng = Prng::seeded(seed);
        let now = Instant::from_unix_s(BEGAN_S);
        let mut agenda = Agenda::new();
        let within = |prng: &mut Prng| now + Duration::from_millis(prng.below(FAULTS_S * 1000));
        let messages = 1 + prng.below(8) as usize;
        for message in 0..messages {
            agenda.add(within(&mut prng), Happening::Call(message));
        }
        for _ in 0..prng.below(6) {
            let there = prng.below(2) == 0;
            agenda.add(within(&mut prng), Happening::Register(there));
        }
        for _ in 0..prng.below(5) {
            agenda.add(within(&mut prng), Happening::Death);
        }
        agenda.add(now, Happening::Sweep);
        Self {
            now,
            seed,
            canary,
            agenda,
            shard: shard(seed ^ 1, false),
            deaths: 0,
            registered: false,
            store: Store::default(),
            fates: (0..messages).map(|_| Fate::default()).collect(),
            sinks: BTreeMap::new(),
            source: None,
            accepting: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            answered: BTreeMap::new(),
            losing: [0, 0, 20, 150][prng.below(4) as usize],
            doubling: [0, 30, 200][prng.below(3) as usize],
            failing: [0, 0, 30, 200][prng.below(4) as usize],
            calm: false,
            failures: Vec::new(),
            accepted: 0,
            delivered: 0,
            told: 0,
            kills: 0,
            prng,
        }
    }

    fn fail(&mut self, what: String) {
        if self.failures.len() < 5 {
            let after = self.now.unix_s() - BEGAN_S;
            self.failures.push(format!("kept seed {} after {after} s: {what}", self.seed));
        }
    }

    pub fn play(&mut self) {
        self.run(FAULTS_S);
        self.calm = true;
        (self.failing, self.losing, self.doubling) = (0, 0, 0);
        // Twice, as clients do: a claim that could not be given back has run out by the second time.
        for _ in 0..2 {
            self.agenda.add(self.now, Happening::Register(false));
            self.agenda.add(self.now + Duration::from_secs(1), Happening::Register(true));
            self.run(CALM_S / 2);
        }
        self.check();
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        for _ in 0..200_000 {
            let due = [self.agenda.next(), self.shard.next_due()].into_iter().flatten().min();
            let Some(next) = due.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if self.shard.next_due().is_some_and(|due| due <= self.now) {
                self.turn(|shard, now, out| shard.due(now, out));
            } else if let Some((_, happening)) = self.agenda.pop() {
                self.happen(happening);
            }
        }
        self.fail("the world does not come to rest".into());
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { from, text } => {
                let flow = Flow { transport: Transport::Udp, core: 0, listener: 0, connection: 0, peer: from };
                self.turn(|shard, now, out| shard.receive(now, flow, text.as_bytes(), out));
            }
            Happening::Report(report) => self.turn(|shard, now, out| shard.reported(now, report, out)),
            Happening::Fetched(ticket, answer) => self.turn(|shard, now, out| shard.fetched(now, ticket, answer, out)),
            Happening::Call(message) => self.call(message),
            Happening::Asks { branch, text } => self.asks(branch, text),
            Happening::AsksAgain { branch, tries } => self.asks_again(branch, tries),
            Happening::Register(there) => {
                self.registered = there;
                self.turn(|shard, now, out| shard.reload(now, config(there), out));
            }
            Happening::Sweep => self.sweep(),
            Happening::Death => self.die(),
        }
    }

    /// The process ends between two happenings; what was on its way inside of it is gone, the disk stays.
    fn die(&mut self) {
        self.deaths += 1;
        self.kills += 1;
        let mut outside = Vec::new();
        while let Some((when, happening)) = self.agenda.pop() {
            if !matches!(happening, Happening::Report(_) | Happening::Fetched(..)) {
                outside.push((when, happening));
            }
        }
        outside.into_iter().for_each(|(when, happening)| self.agenda.add(when, happening));
        for message in self.store.disk.values() {
            if let Some(fate) = number_of(&message.message_id).and_then(|number| self.fates.get_mut(number)) {
                fate.excused += u32::from(fate.delivered > 0);
            }
        }
        self.store.held.clear();
        self.store.removed.clear();
        self.sinks.clear();
        self.source = None;
        self.accepting.clear();
        self.shard = shard(self.seed ^ (self.deaths << 8), self.registered);
    }

    fn turn(&mut self, what: impl FnOnce(&mut Signalling, Instant, &mut Outbox)) {
        let mut out = Outbox::default();
        what(&mut self.shard, self.now, &mut out);
        let effects = std::mem::take(&mut out.effects);
        for effect in effects {
            match effect {
                Effect::Send { to, octets, .. } => {
                    let to = match to {
                        Destination::Flow { flow, .. } => flow.peer,
                        Destination::Target(target) => target.address,
                    };
                    let text = String::from_utf8_lossy(&out.octets[octets]).into_owned();
                    for _ in 0..self.copies() {
                        self.peer_gets(to, &text);
                    }
                }
                Effect::Media { command, .. } => self.media_gets(command),
                Effect::Fetch { ticket, query } => {
                    let answer = self.answer(query);
                    let when = self.soon();
                    self.agenda.add(when, Happening::Fetched(ticket, answer));
                }
                Effect::Record(_) | Effect::Registered { .. } | Effect::Dropped { .. } => {}
            }
        }
    }

    fn media_gets(&mut self, command: Command) {
        match command {
            Command::Open(open) => {
                if let LegKind::Source(source) = &open.origin.kind {
                    self.source = Some((open.session, source.message_id.to_string()));
                }
            }
            Command::Leg { session, leg } if matches!(leg.kind, LegKind::Sink { .. }) => {
                self.sinks.insert(session, leg.leg);
            }
            Command::Bind { session, leg, .. } if leg > 0 => self.bob_is_sent(session, leg),
            Command::Acknowledge { message_id, status, .. } => {
                let Some(fate) = number_of(&message_id).and_then(|number| self.fates.get_mut(number)) else { return };
                fate.accepted |= status == 200;
                fate.refused |= status != 200;
            }
            Command::Close { session, .. } => {
                self.sinks.remove(&session);
                let when = self.soon();
                self.agenda.add(when, Happening::Report(Report::Closed { session, totals: Totals::default() }));
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        if !self.shard.is_idle() {
            self.fail(format!("something is left: {}", self.shard.left()));
        }
        let left: Vec<String> = self.store.disk.values().map(|message| message.message_id.clone()).collect();
        if !left.is_empty() {
            self.fail(format!("still stored: {left:?}"));
        }
        let mut wrong = Vec::new();
        for (number, fate) in self.fates.iter().enumerate() {
            self.accepted += u64::from(fate.accepted);
            self.delivered += u64::from(fate.delivered > 0);
            self.told += u64::from(fate.told > 0);
            // Its time may be over without a word where the sender wished for none.
            if fate.accepted && fate.wishes && fate.delivered + fate.told == 0 {
                wrong.push(format!("m{number} was accepted, and neither delivered nor reported"));
            }
            if fate.delivered > 1 + fate.excused {
                wrong.push(format!("m{number} came {} times, {} deaths excuse it", fate.delivered, fate.excused));
            }
            if fate.refused && !fate.accepted && fate.delivered + fate.told > 0 {
                wrong.push(format!("m{number} was refused, and kept all the same"));
            }
            if fate.told > 0 && !fate.wishes {
                wrong.push(format!("a notice about m{number} that nobody wished for"));
            }
            if fate.told > 0 && fate.delivered > 0 && fate.excused == 0 && !fate.declined {
                wrong.push(format!("m{number} was delivered and reported as failed"));
            }
        }
        wrong.into_iter().for_each(|what| self.fail(what));
    }
}

/// What tells a request from every other one of its sender.
fn name_of(request: &Request) -> String {
    [Name::CallId, Name::CSeq].map(|name| request.header(name).unwrap_or_default().to_owned()).join(" ")
}

/// The number in "m7".
fn number_of(message_id: &str) -> Option<usize> {
    message_id.strip_prefix('m')?.parse().ok()
}
