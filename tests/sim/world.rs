//! The simulated world: our shards as they ship, joined by links that lose, double, delay and tear, on virtual time, from a seed.
//!
//! ```text
//!   UE 1 (callers) ~~SIP datagrams~~ signalling shard ~~SIP~~ UE 2 (called)
//!        ~~~~ MSRP streams ~~~~~~~~~~ media shard ~~~~~ MSRP ~~~~~
//!                         Command / Report over a lane that delays
//! ```
//! Phase 1, safety: the climate's faults are on. Phase 2, liveness: they are off, everybody hangs up, and all must come to rest.

mod checkers;
mod overload;
mod streams;

use crate::agenda::Agenda;
use crate::climate::Climate;
use crate::msrp::Endpoint;
use crate::ue::{Act, Stage, Ue};
use cpm_pf::base::clock::{Duration, Instant};
use cpm_pf::base::prng::Prng;
use cpm_pf::base::transport::{Flow, Transport};
use cpm_pf::config::{Config, Listen, SessionAnswer, SessionClients};
use cpm_pf::shard::exchange::{Command, Document, Fetched, Query, Report, Resolved, Ticket};
use cpm_pf::shard::media::Media;
use cpm_pf::shard::media_outbox::{Buffer, Connection, Gone, MediaEffect, MediaOutbox, Piece};
use cpm_pf::shard::outbox::{Destination, Effect, Outbox};
use cpm_pf::shard::signalling::{Bound, Signalling};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// A rule broken on purpose, so that the checkers are known to bite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canary {
    None,
    /// One octet of a relayed stream is changed.
    Octet,
    /// The proxy's BYEs never arrive.
    Bye,
    /// A message vanishes on its way.
    Message,
    /// Requests are answered twice.
    Answer,
    /// The core is not told how long messages wait for it.
    Blind,
}

enum Happening {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        text: String,
    },
    /// A UE's connect reached the proxy.
    Accept {
        stream: usize,
    },
    ToProxy {
        stream: usize,
        octets: Vec<u8>,
    },
    EndToProxy {
        stream: usize,
    },
    Connected {
        stream: usize,
    },
    FromProxy {
        stream: usize,
        octets: Vec<u8>,
    },
    /// The proxy reads again.
    Resumed {
        stream: usize,
    },
    Broken {
        stream: usize,
    },
    Closed {
        stream: usize,
    },
    Command(Command),
    Report(Report),
    Fetched(Ticket, Fetched),
    Begin {
        number: u64,
    },
    /// The core has time for the next message.
    Serve,
}

/// A TCP connection between the media core and a UE's call.
struct Stream {
    connection: Option<Connection>,
    ue: usize,
    call: Option<u64>,
    endpoint: Option<Endpoint>,
    paused: bool,
    held: VecDeque<Vec<u8>>,
    /// When the last octets of each direction arrive: the next ones cannot overtake them.
    last: [Instant; 2],
    open: bool,
    /// The UE takes its time over every piece.
    slow: bool,
}

const CALLER: usize = 0;

pub struct World {
    pub now: Instant,
    seed: u64,
    agenda: Agenda<Happening>,
    pub climate: Climate,
    canary: Canary,
    prng: Prng,
    signalling: Signalling,
    media: Media,
    proxy: SocketAddr,
    proxy_msrp: SocketAddr,
    pub ues: Vec<Ue>,
    streams: Vec<Stream>,
    by_connection: BTreeMap<Connection, usize>,
    /// What was sent in which call: id to call and body; and what arrived.
    sent: BTreeMap<String, (u64, Vec<u8>)>,
    arrived: BTreeMap<(String, usize), u32>,
    large: BTreeMap<u64, bool>,
    pub failures: Vec<String>,
    pub delivered: u64,
    pub established: u64,
    /// Datagrams lost and doubled, streams broken.
    pub faults: [u64; 3],
    healed: bool,
    /// Nothing was ever lost.
    lossless: bool,
    steps: u64,
    /// Where messages cost the core time.
    desk: Option<overload::Desk>,
    /// `SIM_TRACE=1`: every datagram is told, with how often it arrives.
    trace: bool,
}

fn config(climate: &Climate) -> Config {
    let mut config = Config::default();
    let address = |text: &str| text.parse().expect("an address");
    config.node.host = "10.0.0.1".into();
    config.sip.listen = vec![Listen { transport: Transport::Udp, address: address("10.0.0.1:5060") }];
    // With several clients there is no core that would fork: they are called where they are.
    config.sip.core = (climate.clients == 1).then(|| "sip:10.0.0.3:5060;lr".into());
    config.msrp.high_water = climate.high_water;
    config.policy.session_answer = if climate.early { SessionAnswer::Early } else { SessionAnswer::Late };
    config.policy.session_clients = if climate.all { SessionClients::All } else { SessionClients::First };
    config.sip.trusted = vec![cpm_pf::config::value::network("10.0.0.0/8").expect("a network")];
    config.sip.home_domains = vec!["example.net".into()];
    config.msrp.listen = vec![Listen { transport: Transport::Tcp, address: address("10.0.0.1:2855") }];
    config.policy.authorised_originators = vec!["sip:*@example.net".into()];
    config.policy.delivery = cpm_pf::config::Delivery::Reject;
    config.limits.sessions_per_originator = 1000;
    let client = |number: usize| cpm_pf::config::RegisteredClient {
        contact: format!("sip:bob@10.0.0.{}:5060", 3 + number),
        instance: Some(format!("<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6b{number:02x}>")),
        gruu: None,
        features: vec!["largemsg".into(), "session".into()],
        user_agent: None,
        primary: true,
    };
    config.registrations.users = vec![cpm_pf::config::RegisteredUser {
        address: "sip:bob@example.net".into(),
        clients: (0..climate.clients).map(client).collect(),
    }];
    config
}

impl World {
    pub fn new(seed: u64, canary: Canary) -> Self {
        let mut prng = Prng::seeded(seed);
        let climate = Climate::draw(&mut prng);
        Self::made(seed, canary, climate, prng)
    }

    fn made(seed: u64, canary: Canary, climate: Climate, mut prng: Prng) -> Self {
        let config = Arc::new(config(&climate));
        let bound =
            Bound { sip: config.sip.listen.clone(), msrp: config.msrp.listen.clone(), media_cores: 1, ..Bound::default() };
        let proxy = config.sip.listen[0].address;
        let ue = |last: u8, prng: &mut Prng| {
            Ue::new(SocketAddr::from(([10, 0, 0, last], 5060)), proxy, climate.clone(), Prng::seeded(prng.u64()))
        };
        let ues = (0..=climate.clients).map(|number| ue(2 + number as u8, &mut prng)).collect();
        let now = Instant::from_unix_s(1_700_000_000);
        let mut world = Self {
            now,
            seed,
            agenda: Agenda::new(),
            canary,
            signalling: Signalling::new(0, config.clone(), bound, Prng::seeded(seed ^ 1)),
            media: Media::new(0, &config, Prng::seeded(seed ^ 2)),
            proxy,
            proxy_msrp: config.msrp.listen[0].address,
            ues,
            streams: Vec::new(),
            by_connection: BTreeMap::new(),
            sent: BTreeMap::new(),
            arrived: BTreeMap::new(),
            large: BTreeMap::new(),
            failures: Vec::new(),
            delivered: 0,
            established: 0,
            faults: [0; 3],
            healed: false,
            lossless: climate.lost == 0,
            steps: 0,
            desk: None,
            trace: std::env::var_os("SIM_TRACE").is_some(),
            climate,
            prng,
        };
        if world.trace {
            eprintln!("{:?}", world.climate);
        }
        for number in 0..world.climate.sessions {
            let at = now + Duration::from_millis(world.prng.below(5_000));
            world.agenda.add(at, Happening::Begin { number });
        }
        world
    }

    fn fail(&mut self, what: String) {
        if self.failures.len() < 5 {
            self.failures.push(format!(
                "seed {} at {:?}: {what}",
                self.seed,
                self.now.since(Instant::from_unix_s(1_700_000_000))
            ));
        }
    }

    /// Plays the world to its end; what the checkers found is in `failures`.
    pub fn play(&mut self) {
        self.run(Duration::from_secs(if self.climate.long { 3 * 3600 } else { 120 }));
        if self.climate.patient && self.climate.is_calm() && !self.climate.long {
            self.check_promises();
        }
        self.check_flood();
        self.heal();
        // A transaction takes 32 s to give up, a called party that stays silent three minutes (Timer C); both twice over.
        self.run(Duration::from_secs(600));
        self.check_rest();
    }

    fn heal(&mut self) {
        self.healed = true;
        let climate = &mut self.climate;
        (climate.lost, climate.doubled, climate.broken) = (0, 0, 0);
        for ue in 0..self.ues.len() {
            let mut acts = Vec::new();
            let up: Vec<u64> =
                self.ues[ue].calls.values().filter(|call| call.stage == Stage::Up).map(|call| call.number).collect();
            for number in up.into_iter().filter(|_| ue == CALLER) {
                self.ues[ue].leave(self.now, number, &mut acts);
            }
            self.carry_out(ue, acts);
        }
    }

    fn run(&mut self, how_long: Duration) {
        let end = self.now + how_long;
        loop {
            let user = (0..self.ues.len()).filter_map(|ue| Some((self.ues[ue].next_due()?, ue))).min();
            let due = [self.agenda.next(), self.signalling.next_due(), self.media.next_due(), user.map(|(at, _)| at)];
            let due = due.into_iter().flatten().min();
            let Some(at) = due.filter(|at| *at <= end) else { break };
            self.steps += 1;
            if self.steps > 400_000 {
                return self.fail("the world does not come to rest: 400,000 happenings".into());
            }
            self.now = self.now.max(at);
            if self.signalling.next_due().is_some_and(|due| due <= self.now) {
                self.signalling_turn(|signalling, now, out| signalling.due(now, out));
                if self.signalling.next_due().is_some_and(|due| due <= self.now) {
                    return self.fail("a signalling timer is still due after it was served".into());
                }
            } else if self.media.next_due().is_some_and(|due| due <= self.now) {
                self.media_turn(None, |media, now, out| media.due(now, out));
                if self.media.next_due().is_some_and(|due| due <= self.now) {
                    return self.fail("a media timer is still due after it was served".into());
                }
            } else if let Some((_, ue)) = user.filter(|(at, _)| *at <= self.now) {
                let mut acts = Vec::new();
                self.ues[ue].due(self.now, &mut acts);
                self.carry_out(ue, acts);
            } else if let Some((_, happening)) = self.agenda.pop() {
                self.happen(happening);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Begin { number } => self.begin(number),
            Happening::Datagram { from, to, text } if to == self.proxy && self.desk.is_some() => self.queue_up(from, text),
            Happening::Datagram { from, to, text } if to == self.proxy => self.signalling_gets(from, &text),
            Happening::Serve => self.serve(),
            Happening::Datagram { from, to, text } => {
                let Some(ue) = self.ues.iter().position(|ue| ue.address == to) else { return };
                let mut acts = Vec::new();
                self.ues[ue].receive(self.now, from, &text, &mut acts);
                self.carry_out(ue, acts);
            }
            Happening::Accept { stream } => self.accept(stream),
            Happening::Connected { stream } => self.connected(stream),
            Happening::ToProxy { stream, octets } => self.proxy_gets(stream, octets),
            Happening::FromProxy { stream, octets } => self.user_gets(stream, octets),
            Happening::EndToProxy { stream } => {
                if let Some(connection) = self.streams[stream].connection.filter(|_| self.streams[stream].open) {
                    self.media_turn(None, |media, now, out| media.ended(now, connection, out));
                }
            }
            Happening::Resumed { stream } => self.resume(stream),
            Happening::Broken { stream } => self.gone(stream, Gone::Broken),
            Happening::Closed { stream } => self.gone(stream, Gone::Closed),
            Happening::Command(command) => self.media_turn(None, |media, now, out| media.command(now, command, out)),
            Happening::Report(report) => self.signalling_turn(|signalling, now, out| signalling.reported(now, report, out)),
            Happening::Fetched(ticket, answer) => {
                self.signalling_turn(|signalling, now, out| signalling.fetched(now, ticket, answer, out))
            }
        }
    }

    fn begin(&mut self, number: u64) {
        let terminating = self.prng.below(1000) < self.climate.terminating;
        let large = self.prng.below(3) == 0;
        self.large.insert(number, large);
        let (to, case) = if terminating { ("bob@example.net", "term") } else { ("carol@example.net", "orig") };
        let mut acts = Vec::new();
        self.ues[CALLER].call(self.now, number, to, case, large, &mut acts);
        self.carry_out(CALLER, acts);
    }

    /// What a UE wants done.
    fn carry_out(&mut self, ue: usize, acts: Vec<Act>) {
        for call in self.ues[ue].calls.values_mut() {
            if matches!(call.stage, Stage::Over | Stage::Leaving) && call.ended.is_none() {
                call.ended = Some(self.now);
            }
        }
        for fault in std::mem::take(&mut self.ues[ue].faults) {
            self.fail(format!("UE {ue}: {fault}"));
        }
        for act in acts {
            match act {
                Act::Send { to, text } => self.datagram(self.ues[ue].address, to, text),
                Act::Connect { call, to } => {
                    if to != self.proxy_msrp {
                        self.fail(format!("call {call} was told to connect to {to}, which is not the proxy"));
                    }
                    let stream = self.stream(ue, Some(call));
                    let at = self.now + self.delay();
                    self.streams[stream].last = [at; 2];
                    self.agenda.add(at, Happening::Accept { stream });
                }
                Act::Close { call } => {
                    for stream in 0..self.streams.len() {
                        if self.streams[stream].ue == ue && self.streams[stream].call == Some(call) && self.streams[stream].open {
                            let at = self.streams[stream].last[0].max(self.now) + Duration::from_micros(1);
                            self.agenda.add(at, Happening::EndToProxy { stream });
                        }
                    }
                }
            }
        }
    }

    fn delay(&mut self) -> Duration {
        self.climate.delay + Duration::from_micros(self.prng.below(self.climate.jitter.as_micros() as u64 + 1))
    }

    fn datagram(&mut self, from: SocketAddr, to: SocketAddr, text: String) {
        if self.canary == Canary::Bye && from == self.proxy && text.starts_with("BYE") {
            return;
        }
        let copies = match self.prng.below(1000) {
            dice if dice < self.climate.lost => 0,
            dice if dice < self.climate.lost + self.climate.doubled => 2,
            _ => 1,
        };
        self.faults[0] += u64::from(copies == 0);
        self.faults[1] += u64::from(copies == 2);
        if self.canary == Canary::Answer && from == self.proxy && text.starts_with("SIP/2.0 200") {
            let other = text.replacen("200 OK", "480 Temporarily Unavailable", 1);
            self.agenda.add(self.now + Duration::from_secs(1), Happening::Datagram { from, to, text: other });
        }
        if self.trace {
            let since = self.now.since(Instant::from_unix_s(1_700_000_000));
            let kind = if text.starts_with("SIP/2.0") { crate::ue::header(&text, "CSeq") } else { "" };
            eprintln!(
                "{since:?} {from} -> {to} x{copies} {} {kind} {}",
                text.lines().next().unwrap_or(""),
                crate::ue::header(&text, "Call-ID")
            );
        }
        for _ in 0..copies {
            let at = self.now + self.delay();
            self.agenda.add(at, Happening::Datagram { from, to, text: text.clone() });
        }
    }

    fn signalling_gets(&mut self, from: SocketAddr, text: &str) {
        let flow = Flow { transport: Transport::Udp, core: 0, listener: 0, connection: 0, peer: from };
        self.signalling_turn(|signalling, now, out| signalling.receive(now, flow, text.as_bytes(), out));
    }

    fn signalling_turn(&mut self, turn: impl FnOnce(&mut Signalling, Instant, &mut Outbox)) {
        let mut out = Outbox::default();
        turn(&mut self.signalling, self.now, &mut out);
        for effect in std::mem::take(&mut out.effects) {
            match effect {
                Effect::Send { to, octets, .. } => {
                    let to = match to {
                        Destination::Flow { flow, .. } => flow.peer,
                        Destination::Target(target) => target.address,
                    };
                    let text = String::from_utf8_lossy(out.octets(&octets)).into_owned();
                    self.count_refusal(&text);
                    self.datagram(self.proxy, to, text);
                }
                Effect::Media { command, .. } => {
                    let at = self.now + self.climate.lane;
                    self.agenda.add(at, Happening::Command(command));
                }
                Effect::Fetch { ticket, query } => {
                    let at = self.now + self.climate.lane;
                    self.agenda.add(at, Happening::Fetched(ticket, answer(&query)));
                }
                _ => {}
            }
        }
    }

    fn media_turn(&mut self, buffer: Option<Vec<u8>>, turn: impl FnOnce(&mut Media, Instant, &mut MediaOutbox)) {
        let mut out = MediaOutbox::default();
        turn(&mut self.media, self.now, &mut out);
        self.media_effects(buffer, out);
    }

    fn media_effects(&mut self, buffer: Option<Vec<u8>>, mut out: MediaOutbox) {
        for effect in std::mem::take(&mut out.effects) {
            match effect {
                MediaEffect::Send { connection, piece } => {
                    let octets = match piece {
                        Piece::Own(range) => out.octets[range.start as usize..range.end as usize].to_vec(),
                        Piece::Lent { octets, .. } => {
                            let buffer = buffer.as_ref().expect("octets are lent only while their buffer is");
                            buffer[octets.start as usize..octets.end as usize].to_vec()
                        }
                    };
                    if let Some(stream) = self.by_connection.get(&connection).copied() {
                        self.send_stream(stream, 1, octets);
                    }
                }
                MediaEffect::Connect { connection, to, .. } => self.connect(connection, to),
                MediaEffect::Pause(connection) => self.pause(connection, true),
                MediaEffect::Resume(connection) => self.pause(connection, false),
                MediaEffect::Finish(connection) | MediaEffect::Abort(connection) => {
                    if let Some(stream) = self.by_connection.get(&connection).copied() {
                        let at = self.streams[stream].last[1].max(self.now) + Duration::from_micros(10);
                        self.agenda.add(at, Happening::Closed { stream });
                    }
                }
                MediaEffect::Tell(report) => {
                    let at = self.now + self.climate.lane;
                    self.agenda.add(at, Happening::Report(report));
                }
                other => self.fail(format!("an effect that this world has no use for: {other:?}")),
            }
        }
    }

    fn connect(&mut self, connection: Connection, to: SocketAddr) {
        let Some(ue) = self.ues.iter().position(|ue| ue.address.ip() == to.ip()) else {
            return self.fail(format!("the proxy connects to {to}, where nobody is"));
        };
        let stream = self.stream(ue, None);
        self.streams[stream].connection = Some(connection);
        self.by_connection.insert(connection, stream);
        let at = self.now + self.delay();
        self.streams[stream].last = [at; 2];
        self.agenda.add(at, Happening::Connected { stream });
    }

    fn pause(&mut self, connection: Connection, paused: bool) {
        let Some(stream) = self.by_connection.get(&connection).copied() else { return };
        self.streams[stream].paused = paused;
        if paused {
            return;
        }
        self.agenda.add(self.now + Duration::from_nanos(1), Happening::Resumed { stream });
    }
}

/// The services of this world: no documents, no stores.
fn answer(query: &Query) -> Fetched {
    match query {
        Query::Document { .. } | Query::External { .. } => Fetched::Document(Document::Absent),
        Query::Resolve { host, .. } if &**host == "example.net" => {
            Fetched::Resolved(vec![Resolved { transport: Transport::Udp, address: SocketAddr::from(([10, 0, 0, 3], 5060)) }])
        }
        Query::Resolve { .. } => Fetched::Resolved(Vec::new()),
        Query::Waiting { .. } => Fetched::Waiting(Vec::new()),
        Query::Claim { .. } => Fetched::Claimed(None),
        Query::Record(_) => Fetched::Recorded(Ok(None)),
        Query::Registrants { .. } => Fetched::Registrants(Vec::new()),
        _ => Fetched::Kept(Ok(())),
    }
}
