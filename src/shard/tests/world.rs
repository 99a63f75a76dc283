//! A world for one core: what it sends is kept as text, in order; peers answer with text.

use crate::base::clock::{Duration, Instant};
use crate::base::prng::Prng;
use crate::base::transport::{Destination, Flow, Transport};
use crate::config::{Config, Listen, Network, RegisteredClient, RegisteredUser};
use crate::cpm::facts::Client;
use crate::shard::exchange::{Command, Document, Fetched, MediaKey, Query, Report, Ticket, Totals};
use crate::shard::outbox::{Effect, Outbox, SendTag};
use crate::shard::record::Cdr;
use crate::shard::signalling::{Bound, Signalling};
use crate::sip::header::name::Name;
use crate::sip::message::{Incoming, Request, Response};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

pub const CORE: &str = "127.0.0.1:5070";
pub const ALICE: &str = "127.0.0.1:5080";
pub const BOB: &str = "127.0.0.1:5081";
pub const ISF: &str = "127.0.0.1:5090";
pub const LARGE: &str = "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"";
pub const SESSION: &str = "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"";

/// A message the core sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub to: SocketAddr,
    pub transport: Transport,
    pub tag: SendTag,
    pub text: String,
}

impl Sent {
    pub fn request(&self) -> Request {
        Request::parse(self.text.as_bytes()).unwrap_or_else(|_| panic!("a request: {}", self.text))
    }
    pub fn response(&self) -> Response {
        Response::parse(self.text.as_bytes()).unwrap_or_else(|_| panic!("a response: {}", self.text))
    }
    pub fn line(&self) -> &str {
        self.text.lines().next().unwrap_or("")
    }
    /// The value of the first header field of that name.
    pub fn header(&self, name: Name) -> String {
        let message = Incoming::parse(self.text.as_bytes()).expect("what we send can be read");
        message.message().header(name).unwrap_or("").to_string()
    }
    pub fn headers(&self, name: Name) -> Vec<String> {
        let message = Incoming::parse(self.text.as_bytes()).expect("what we send can be read");
        message.message().lines(name).map(str::to_string).collect()
    }
    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
    /// The line of the SDP that begins so.
    pub fn sdp(&self, begins: &str) -> Option<&str> {
        self.body().lines().find(|line| line.starts_with(begins))
    }
}

/// One core, its clock, and what came out of it.
pub struct World {
    pub core: Signalling,
    pub now: Instant,
    pub out: Outbox,
    pub sent: VecDeque<Sent>,
    pub commands: Vec<Command>,
    pub questions: VecDeque<(Ticket, Query)>,
    pub records: Vec<Cdr>,
    pub dropped: Vec<&'static str>,
    /// What other cores were told of their users.
    pub registered: Vec<(Box<str>, Vec<Client>)>,
    /// Media sessions that were closed answer at once, as a media core with nothing in hand does.
    pub media_closes: bool,
    /// Documents that XDM does not have are answered at once.
    pub documents_absent: bool,
}

pub fn config() -> Config {
    let mut config = Config::default();
    config.node.host = "127.0.0.1".into();
    config.sip.core = Some(format!("sip:{CORE};lr"));
    config.sip.isf = Some(format!("sip:{ISF};lr"));
    config.sip.trusted = vec![Network { address: "127.0.0.0".parse().unwrap(), prefix: 8 }];
    config.sip.home_domains = vec!["example.net".into()];
    config.policy.authorised_originators = vec!["sip:*@example.net".into(), "tel:+*".into()];
    let client = |port: u16, number: u8| RegisteredClient {
        contact: format!("sip:127.0.0.1:{port}"),
        instance: Some(format!("<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6b{number:02x}>")),
        gruu: Some(format!("sip:bob@example.net;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6b{number:02x}")),
        features: vec!["largemsg".into(), "session".into(), "msg".into()],
        user_agent: Some("CPM-client/OMA2.2".into()),
        primary: true,
    };
    config.registrations.users = vec![RegisteredUser { address: "sip:bob@example.net".into(), clients: vec![client(5081, 1)] }];
    config
}

/// A second client of Bob's.
pub fn with_two_clients(mut config: Config) -> Config {
    let mut second = config.registrations.users[0].clients[0].clone();
    second.contact = "sip:127.0.0.1:5082".into();
    second.instance = second.instance.map(|instance| instance.replace("6b01", "6b02"));
    second.gruu = second.gruu.map(|gruu| gruu.replace("6b01", "6b02"));
    config.registrations.users[0].clients.push(second);
    config
}

pub fn flow(peer: &str) -> Flow {
    Flow { transport: Transport::Udp, core: 0, listener: 0, connection: 0, peer: peer.parse().unwrap() }
}

impl World {
    pub fn new(config: Config) -> Self {
        Self::listening(config, &[(Transport::Udp, "127.0.0.1:5060")])
    }

    /// A core with these SIP listeners.
    pub fn listening(config: Config, sip: &[(Transport, &str)]) -> Self {
        Self::begun(config, Self::bound(sip))
    }

    /// What it asks at its beginning waits in `questions`.
    pub fn beginning(config: Config) -> Self {
        Self::unanswered(config, Self::bound(&[(Transport::Udp, "127.0.0.1:5060")]))
    }

    fn bound(sip: &[(Transport, &str)]) -> Bound {
        let listen = |transport, address: &str| Listen { transport, address: address.parse().unwrap() };
        Bound {
            sip: sip.iter().map(|(transport, address)| listen(*transport, address)).collect(),
            msrp: vec![listen(Transport::Tcp, "127.0.0.1:2855")],
            fingerprint: None,
            media_cores: 1,
            ..Bound::default()
        }
    }

    /// The core asks what waits for the users it knows, and who registered before: nothing, and nobody.
    fn begun(config: Config, bound: Bound) -> Self {
        let mut world = Self::unanswered(config, bound);
        while let Some((ticket, _)) = world.questions.pop_front() {
            world.fetched(ticket, Fetched::Waiting(Vec::new()));
        }
        world
    }

    /// What a core asks at its beginning is not answered yet.
    fn unanswered(config: Config, bound: Bound) -> Self {
        let mut world = Self {
            core: Signalling::new(0, Arc::new(config), bound, Prng::seeded(7)),
            now: Instant::from_unix_s(1_700_000_000),
            out: Outbox::default(),
            sent: VecDeque::new(),
            commands: Vec::new(),
            questions: VecDeque::new(),
            records: Vec::new(),
            dropped: Vec::new(),
            registered: Vec::new(),
            media_closes: true,
            documents_absent: true,
        };
        world.core.due(world.now, &mut world.out);
        world.collect();
        world
    }

    pub fn receives(&mut self, from: &str, text: &str) {
        self.receives_on(flow(from), text);
    }

    pub fn receives_on(&mut self, flow: Flow, text: &str) {
        self.core.receive(self.now, flow, text.as_bytes(), &mut self.out);
        self.collect();
    }

    pub fn collect(&mut self) {
        loop {
            let effects = std::mem::take(&mut self.out.effects);
            if effects.is_empty() {
                return self.out.clear();
            }
            let octets = std::mem::take(&mut self.out.octets);
            self.records.extend(std::mem::take(&mut self.out.refusals).records());
            for effect in effects {
                self.take(effect, &octets);
            }
        }
    }

    fn take(&mut self, effect: Effect, octets: &[u8]) {
        match effect {
            Effect::Send { to, octets: range, tag } => {
                // A body that a datagram cuts short may end within a letter.
                let text = String::from_utf8_lossy(&octets[range]).into_owned();
                let (to, transport) = match to {
                    Destination::Flow { flow, .. } => (flow.peer, flow.transport),
                    Destination::Target(target) => (target.address, target.transport),
                };
                self.sent.push_back(Sent { to, transport, tag, text });
            }
            Effect::Media { command, .. } => {
                let closed = match &command {
                    Command::Close { session, .. } if self.media_closes => Some(*session),
                    _ => None,
                };
                self.commands.push(command);
                if let Some(session) = closed {
                    self.core.reported(self.now, Report::Closed { session, totals: Totals::default() }, &mut self.out);
                }
            }
            Effect::Fetch { ticket, query } => match query {
                Query::Document { .. } if self.documents_absent => {
                    self.core.fetched(self.now, ticket, Fetched::Document(Document::Absent), &mut self.out);
                }
                query => self.questions.push_back((ticket, query)),
            },
            Effect::Record(record) => self.records.push(*record),
            Effect::Registered { user, clients } => self.registered.push((user, clients)),
            Effect::Dropped { cause, .. } => self.dropped.push(cause),
        }
    }

    /// What was sent next; it must go to `to` and begin so.
    #[track_caller]
    pub fn expect(&mut self, to: &str, begins: &str) -> Sent {
        let Some(sent) = self.sent.pop_front() else { panic!("nothing was sent, expected {begins:?} to {to}") };
        assert!(sent.text.starts_with(begins), "expected {begins:?} to {to}, sent to {}:\n{}", sent.to, sent.text);
        assert_eq!(sent.to.to_string(), to, "{}", sent.text);
        sent
    }

    #[track_caller]
    pub fn expect_nothing(&self) {
        let lines: Vec<_> = self.sent.iter().map(|sent| format!("{} {}", sent.to, sent.line())).collect();
        assert!(lines.is_empty(), "unexpected: {lines:#?}");
    }

    /// Alice's INVITE is relayed to the core: 100 for her, and the INVITE that leaves.
    #[track_caller]
    pub fn relays(&mut self, invite: &str) -> Sent {
        self.receives(ALICE, invite);
        self.expect(ALICE, "SIP/2.0 100");
        self.expect(CORE, "INVITE")
    }

    /// An INVITE of Alice's is relayed and answered 200 with these fields and this SDP: the INVITE that left, and Alice's 200.
    #[track_caller]
    pub fn agrees(&mut self, invite: &str, fields: &str, sdp: &str) -> (Sent, Sent) {
        let invite = self.relays(invite);
        self.answers(&invite, "200 OK", fields, sdp);
        (invite, self.expect(ALICE, "SIP/2.0 200"))
    }

    /// The same, and both sides have their ACK: the session stands.
    #[track_caller]
    pub fn stands(&mut self, invite: &str, fields: &str, sdp: &str) -> (Sent, Sent) {
        let (invite, ok) = self.agrees(invite, fields, sdp);
        self.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
        self.expect(BOB, "ACK");
        (invite, ok)
    }

    /// Answers a request the core sent.
    pub fn answers(&mut self, request: &Sent, status: &str, fields: &str, body: &str) {
        let text = answer(&request.request(), status, fields, body);
        let from = request.to.to_string();
        self.receives(&from, &text);
    }

    pub fn fails(&mut self, sent: &Sent) {
        self.core.failed(self.now, sent.tag, &mut self.out);
        self.collect();
    }

    pub fn fetched(&mut self, ticket: Ticket, answer: Fetched) {
        self.core.fetched(self.now, ticket, answer, &mut self.out);
        self.collect();
    }

    pub fn reports(&mut self, report: Report) {
        self.core.reported(self.now, report, &mut self.out);
        self.collect();
    }

    /// Lets time pass, timer by timer.
    pub fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.core.next_due().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.core.due(self.now, &mut self.out);
            self.collect();
        }
        self.now = end;
    }

    /// Everything comes to rest within two minutes, and nothing is left.
    #[track_caller]
    pub fn rests(&mut self) {
        self.passes(Duration::from_secs(120));
        self.sent.clear();
        assert!(self.core.is_idle(), "something is left: {}", self.core.left());
        assert_eq!((self.core.counts().dialogs, self.core.counts().sessions), (0, 0));
    }

    pub fn media_key(&self) -> MediaKey {
        self.commands
            .iter()
            .rev()
            .find_map(|command| match command {
                Command::Open(open) => Some(open.session),
                _ => None,
            })
            .expect("a media session was opened")
    }
}

/// A response to a request, with a To tag of the peer's.
pub fn answer(request: &Request, status: &str, fields: &str, body: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for name in [Name::Via, Name::RecordRoute, Name::From, Name::To, Name::CallId, Name::CSeq] {
        for value in request.lines(name) {
            let tagged = name == Name::To && !value.contains(";tag=") && !status.starts_with("100");
            let tag = if tagged { ";tag=peer" } else { "" };
            text.push_str(&format!("{}: {value}{tag}\r\n", name.as_str()));
        }
    }
    text.push_str(fields);
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text
}

/// An offer of MSRP from port 9, session id `id`.
pub fn offer(id: &str, attributes: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=message 9 TCP/MSRP *\r\n\
         a=accept-types:message/cpim\r\na=path:msrp://127.0.0.1:9/{id};tcp\r\n{attributes}"
    )
}

/// Alice's INVITE as it comes from her S-CSCF (or Bob's), with the Route that named us.
pub fn invite(uri: &str, case: &str, accept_contact: &str, fields: &str, sdp: &str) -> String {
    format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {ALICE};branch=z9hG4bKinvite\r\nMax-Forwards: 70\r\n\
         Route: <sip:{case}@127.0.0.1:5060;lr>\r\nFrom: \"Alice\" <sip:alice@example.net>;tag=alice\r\nTo: <{uri}>\r\n\
         Call-ID: call-1\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@{ALICE}>;+sip.instance=\"<urn:uuid:a>\"\r\n\
         P-Asserted-Identity: <sip:alice@example.net>\r\nAccept-Contact: {accept_contact}\r\n\
         Conversation-ID: conv-1\r\nContribution-ID: contr-1\r\nUser-Agent: CPM-client/OMA2.2\r\nSupported: timer\r\n{fields}\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

/// A request of Alice's in the dialog that `ok` answered.
pub fn in_dialog(method: &str, cseq: u32, ok: &Sent, fields: &str, body: &str) -> String {
    let contact = ok.header(Name::Contact);
    let target = contact.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(uri, _)| uri);
    let mut routes: Vec<String> = ok.headers(Name::RecordRoute);
    routes.reverse();
    let routes: String = routes.iter().map(|route| format!("Route: {route}\r\n")).collect();
    format!(
        "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {ALICE};branch=z9hG4bK{method}{cseq}\r\nMax-Forwards: 70\r\n{routes}\
         From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        ok.header(Name::From),
        ok.header(Name::To),
        ok.header(Name::CallId),
        body.len()
    )
}

/// A request of the target's in the dialog of our INVITE.
pub fn from_target(method: &str, cseq: u32, invite: &Sent, fields: &str, body: &str) -> String {
    let contact = invite.header(Name::Contact);
    let target = contact.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(uri, _)| uri);
    let routes: String = invite.headers(Name::RecordRoute).iter().map(|route| format!("Route: {route}\r\n")).collect();
    format!(
        "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {BOB};branch=z9hG4bKt{method}{cseq}\r\nMax-Forwards: 70\r\n{routes}\
         From: {};tag=peer\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
        invite.header(Name::To),
        invite.header(Name::From),
        invite.header(Name::CallId),
        body.len()
    )
}
