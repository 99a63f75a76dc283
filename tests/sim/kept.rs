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

/// What is on disk, and what this process knows beside.
#[derive(Default)]
struct Store {
    disk: BTreeMap<DeferredId, Deferred>,
    held: BTreeMap<DeferredId, u64>,
    /// Removals that the disk did not take: nobody may have these again.
    removed: BTreeSet<DeferredId>,
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
                Effect::Record(_) | Effect::Counted(_) | Effect::Dropped { .. } => {}
            }
        }
    }

    fn soon(&mut self) -> Instant {
        self.now + Duration::from_micros(10 + self.prng.below(30_000))
    }

    /// How often a datagram arrives.
    fn copies(&mut self) -> u32 {
        match self.prng.below(1000) {
            chance if chance < self.losing => 0,
            chance if chance < self.losing + self.doubling => 2,
            _ => 1,
        }
    }

    fn says(&mut self, from: SocketAddr, text: String) {
        for _ in 0..self.copies() {
            let when = self.soon();
            self.agenda.add(when, Happening::Datagram { from, text: text.clone() });
        }
    }

    /// RFC 3261 §17.1: over UDP a request is sent again, each time after twice as long, until something comes.
    fn asks(&mut self, branch: String, text: String) {
        self.unanswered.insert(branch.clone(), text);
        self.asks_again(branch, 0);
    }

    fn asks_again(&mut self, branch: String, tries: u32) {
        let Some(text) = self.unanswered.get(&branch).cloned() else { return };
        self.says(at(2), text);
        if tries < 6 {
            let when = self.now + Duration::from_millis(500 << tries);
            self.agenda.add(when, Happening::AsksAgain { branch, tries: tries + 1 });
        } else {
            self.unanswered.remove(&branch);
        }
    }

    /// Answers a request; `text` is empty for silence.
    fn answers(&mut self, from: SocketAddr, request: &Request, text: String) {
        if !text.is_empty() {
            self.says(from, text.clone());
        }
        self.answered.insert(name_of(request), text);
    }

    /// Alice sends her next message.
    fn call(&mut self, message: usize) {
        let call = format!("call-{message}-{}", self.seed);
        let wishes = self.prng.below(2) == 0;
        let expires = [None, Some(5), Some(600)][self.prng.below(3) as usize];
        let expires = expires.map_or(String::new(), |seconds: u64| format!("Message-Expires: {seconds}\r\n"));
        self.fates[message].call.clone_from(&call);
        self.fates[message].wishes = wishes;
        let body = sdp("10.0.0.2", "a=sendonly\r\na=file-selector:size:500\r\na=setup:active\r\n");
        let text = format!(
            "INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{call}\r\nMax-Forwards: 70\r\n\
             Route: <sip:term@10.0.0.1:5060;lr>\r\nFrom: <sip:alice@example.net>;tag=alice\r\nTo: <sip:bob@example.net>\r\nCall-ID: {call}\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:alice@10.0.0.2:5060>\r\nP-Asserted-Identity: <sip:alice@example.net>\r\n\
             Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"\r\nConversation-ID: c{message}\r\nContribution-ID: d{message}\r\n\
             {expires}User-Agent: CPM-client/OMA2.2\r\nSupported: timer\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.asks(format!("z9hG4bK{call}"), text);
    }

    fn peer_gets(&mut self, to: SocketAddr, text: &str) {
        let Ok(message) = Incoming::parse(text.as_bytes()) else { return self.fail(format!("it sends {text}")) };
        match message {
            Incoming::Request(request) => self.asked(to, &request),
            Incoming::Response(response) if to == at(2) => self.alice_hears(response.status(), text),
            Incoming::Response(_) => {}
        }
    }

    /// Alice acknowledges every final answer to her INVITE; her message goes out on a 2xx.
    fn alice_hears(&mut self, status: u16, text: &str) {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default().trim().to_owned()
        };
        let invited = field("CSeq").ends_with("INVITE");
        if invited || status >= 200 {
            let branch =
                field("Via").split("branch=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default().to_owned();
            self.unanswered.remove(&branch);
        }
        if !invited || status < 200 {
            return;
        }
        let call = field("Call-ID");
        let Some(message) = self.fates.iter().position(|fate| fate.call == call) else { return };
        let contact = field("Contact");
        let target = contact.split(['<', '>']).nth(1).unwrap_or("sip:bob@example.net").to_owned();
        let branch = if status < 300 { format!("{call}ack") } else { call.clone() };
        let ack = format!(
            "ACK {target} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {call}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
            field("From"),
            field("To")
        );
        self.says(at(2), ack);
        if status >= 300 {
            return;
        }
        let to = field("To");
        let tag = to.split(";tag=").nth(1).unwrap_or_default();
        let branch = format!("z9hG4bK{call}bye{tag}");
        let text = format!(
            "BYE {target} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.2:5060;branch={branch}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n",
            field("From"),
        );
        let fate = &mut self.fates[message];
        if fate.dialog.is_empty() {
            fate.dialog.clone_from(&to);
        }
        if fate.dialog != to {
            // Her INVITE came again to a process that knew nothing of the first: one call is enough.
            return self.asks(branch, text);
        }
        if !std::mem::replace(&mut fate.sent, true) {
            // Two sinks at once may change places: then so do two messages, whole.
            let Some((session, leg)) = self.sinks.pop_first() else { return };
            let wish = if self.fates[message].wishes { "imdn.Disposition-Notification: negative-delivery\r\n" } else { "" };
            let head = format!(
                "From: <sip:alice@example.net>\r\nTo: <sip:bob@example.net>\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: im-{message}\r\nDateTime: 2024-02-01T10:00:00Z\r\n{wish}\r\nContent-Type: text/plain\r\n\r\nx"
            );
            let stored = Stored {
                session,
                leg,
                file: PathBuf::from(format!("spool/{message}")),
                octets: 500,
                message_id: format!("m{message}").into(),
                content_type: "message/cpim".into(),
                head: head.into_bytes().into(),
                success_report: false,
                from: 0,
            };
            let when = self.soon() + Duration::from_millis(40);
            self.agenda.add(when, Happening::Report(Report::Stored(Box::new(stored))));
            self.agenda.add(self.now + Duration::from_secs(2), Happening::Asks { branch, text });
        }
    }

    /// A request of ours: to Bob, or to Alice by her network.
    fn asked(&mut self, to: SocketAddr, request: &Request) {
        if let Some(text) = self.answered.get(&name_of(request)).cloned() {
            if !text.is_empty() {
                self.says(to, text);
            }
            return;
        }
        match request.method().as_str() {
            "INVITE" => self.bob_is_invited(request),
            "ACK" => {}
            "MESSAGE" => {
                let body = String::from_utf8_lossy(request.body()).into_owned();
                let number = body.split("<message-id>im-").nth(1).and_then(|rest| rest.split('<').next()?.parse::<usize>().ok());
                let Some(number) = number.filter(|number| *number < self.fates.len()) else {
                    return self.fail(format!("a notice about nothing: {body}"));
                };
                match if self.calm { 0 } else { self.prng.below(4) } {
                    3 => self.answers(to, request, String::new()),
                    2 => self.answers(to, request, answer(request, "503 Service Unavailable", "", "")),
                    _ => {
                        self.fates[number].told += 1;
                        self.answers(to, request, answer(request, "200 OK", "", ""));
                    }
                }
            }
            _ => self.answers(to, request, answer(request, "200 OK", "", "")),
        }
    }

    fn bob_is_invited(&mut self, request: &Request) {
        let asked = request.header(Name::ConversationId).and_then(|id| id.strip_prefix('c')?.parse::<usize>().ok());
        let Some(number) = asked.filter(|number| *number < self.fates.len()) else {
            return self.fail("an INVITE about nothing".into());
        };
        // Alice's own INVITE, passed on: Bob is out of reach, so that the message is kept. Relaying is for the other world.
        let Some((session, id)) = self.source.clone().filter(|(_, id)| number_of(id) == Some(number)) else {
            return self.answers(at(3), request, answer(request, "480 Temporarily Unavailable", "", ""));
        };
        let mood = if self.calm { 9 } else { self.prng.below(10) };
        let refusal = match mood {
            0 => "486 Busy Here",
            1 => "480 Temporarily Unavailable",
            2 => "603 Decline",
            3 => return self.answers(at(3), request, String::new()),
            _ => "",
        };
        if !refusal.is_empty() {
            self.fates[number].declined |= mood == 2;
            return self.answers(at(3), request, answer(request, refusal, "", ""));
        }
        let contact = "Contact: <sip:bob@10.0.0.3:5060>\r\nContent-Type: application/sdp\r\n";
        let body = sdp("10.0.0.3", "a=recvonly\r\na=setup:passive\r\n");
        self.answers(at(3), request, answer(request, "200 OK", contact, &body));
        // His message begins when we have heard that.
        self.accepting.insert(session, (mood == 4, id));
    }

    /// We connect to Bob, and send.
    fn bob_is_sent(&mut self, session: MediaKey, leg: LegIndex) {
        let Some((refuses, id)) = self.accepting.remove(&session) else { return };
        let message_id = id.as_str().into();
        let when = self.now + Duration::from_millis(200 + self.prng.below(2_000));
        if refuses {
            return self.agenda.add(when, Happening::Report(Report::Undelivered { session, leg, message_id, status: 408 }));
        }
        // Bob has the whole of it from here on; that we hear of it is another matter.
        if let Some(fate) = number_of(&id).and_then(|number| self.fates.get_mut(number)) {
            fate.delivered += 1;
        }
        self.agenda.add(when, Happening::Report(Report::Delivered { session, leg, message_id, octets: 500 }));
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

    fn fails(&mut self) -> bool {
        self.prng.below(1000) < self.failing
    }

    fn answer(&mut self, query: Query) -> Fetched {
        let now_s = self.now.unix_s();
        let failed = Fetched::Kept(Err(StoreFailure::Unavailable));
        match query {
            Query::Resolve { .. } => Fetched::Resolved(vec![Resolved { transport: Transport::Udp, address: at(4) }]),
            Query::Document { .. } | Query::External { .. } => Fetched::Document(Document::Absent),
            Query::Record(_) | Query::Copy(_) => Fetched::Recorded(Ok(None)),
            Query::Defer(_) if self.fails() => failed,
            Query::Defer(message) => {
                if self.canary != Canary::Lying {
                    self.store.disk.insert(message.id.clone(), *message);
                }
                Fetched::Kept(Ok(()))
            }
            Query::Waiting { .. } if self.fails() => failed,
            Query::Waiting { user } => {
                let free = |message: &&Deferred| {
                    *message.user == *user && !message.is_expired(now_s) && !self.store.is_held(&message.id, now_s)
                };
                Fetched::Waiting(self.store.disk.values().filter(free).cloned().collect())
            }
            Query::Claim { .. } if self.fails() => Fetched::Claimed(None),
            Query::Claim { id } => {
                let free = !self.store.is_held(&id, now_s);
                let claimed = self.store.disk.get(&id).filter(|message| free && !message.is_expired(now_s)).cloned();
                if claimed.is_some() {
                    self.store.held.insert(id, now_s + LEASE_S);
                }
                Fetched::Claimed(claimed.map(Box::new))
            }
            Query::Register(_) | Query::Deregister { .. } => Fetched::Kept(Ok(())),
            Query::Registrants { .. } => Fetched::Registrants(Vec::new()),
            Query::Remove { id } => self.remove(id),
            Query::Return { .. } if self.fails() => failed,
            Query::Return { id, retry_after_s } => {
                self.store.held.insert(id, now_s + u64::from(retry_after_s));
                Fetched::Kept(Ok(()))
            }
        }
    }

    /// As the services do: what the disk does not take is remembered, and tried again.
    fn remove(&mut self, id: DeferredId) -> Fetched {
        if self.canary == Canary::Forgetful {
            self.store.held.remove(&id);
            return Fetched::Kept(Ok(()));
        }
        if self.fails() {
            self.store.removed.insert(id);
            return Fetched::Kept(Err(StoreFailure::Unavailable));
        }
        self.store.held.remove(&id);
        self.store.removed.remove(&id);
        self.store.disk.remove(&id);
        Fetched::Kept(Ok(()))
    }

    fn sweep(&mut self) {
        let now_s = self.now.unix_s();
        self.agenda.add(self.now + Duration::from_secs(10), Happening::Sweep);
        for id in self.store.removed.clone() {
            self.remove(id);
        }
        let over = |message: &&Deferred| message.is_expired(now_s) && !self.store.is_held(&message.id, now_s);
        let over: Vec<Deferred> = self.store.disk.values().filter(over).cloned().collect();
        for message in over {
            if message.is_to_be_told(now_s) {
                self.store.held.insert(message.id.clone(), now_s + NOTICE_S);
                let when = self.soon();
                self.agenda.add(when, Happening::Fetched(Ticket::UNASKED, Fetched::Expired(Box::new(message))));
            } else {
                self.store.disk.remove(&message.id);
            }
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

impl Store {
    fn is_held(&self, id: &DeferredId, now_s: u64) -> bool {
        self.held.get(id).is_some_and(|until| *until > now_s) || self.removed.contains(id)
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
