//! Bob's side: what the terminating procedures are given in the tests, and how their decisions are looked into.

use cpm_pf::base::clock::Instant;
use cpm_pf::config::Config;
use cpm_pf::cpm::decision::{Answer, Bridge, Contact, Decision, Invite, Receive, TargetKind};
use cpm_pf::cpm::facts::{Client, Facts, Role};
use cpm_pf::cpm::media_plan::{Line, MediaPlan, OwnLine, OwnOrigin};
use cpm_pf::cpm::procedures::Procedure;
use cpm_pf::cpm::refusal::Refusal;
use cpm_pf::sip::message::{Request, Response};
use cpm_pf::xdm::access_rules::AccessRules;
use cpm_pf::xdm::uri_list::UriList;
use std::rc::Rc;

pub const ALICE: &str = "sip:alice@example.net";
pub const BOB: &str = "sip:bob@example.net";
pub const BASE: &str = "urn:urn-7:3gpp-service.ims.icsi.";
pub const PHONE: &str = "<urn:gsma:imei:90420156-025763-0>";
pub const TABLET: &str = "<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>";
pub const PHONE_GRUU: &str = "sip:bob@example.net;gr=urn:gsma:imei:90420156-025763-0";
/// 1 February 2024, 10:00:00 UTC.
pub const NOW_S: u64 = 1_706_781_600;

pub const LARGE_SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
m=message 7654 TCP/MSRP *\r\na=sendonly\r\na=accept-types:message/cpim\r\na=accept-wrapped-types:*\r\na=setup:actpass\r\n\
a=path:msrp://192.0.2.1:7654/alices-own-path;tcp\r\na=file-selector:size:4092\r\na=msrp-cema\r\n";

pub const LARGE_ANSWER: &str = "v=0\r\no=- 2 2 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\n\
m=message 9999 TCP/MSRP *\r\na=recvonly\r\na=accept-types:message/cpim\r\na=setup:passive\r\n\
a=path:msrp://192.0.2.2:9999/bobs-own-path;tcp\r\na=msrp-cema\r\n";

pub const CHAT_SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
m=message 7654 TCP/MSRP *\r\na=sendrecv\r\na=accept-types:message/cpim application/im-iscomposing+xml\r\n\
a=accept-wrapped-types:text/plain message/imdn+xml\r\na=setup:actpass\r\n\
a=path:msrp://192.0.2.1:7654/alices-own-path;tcp\r\na=msrp-cema\r\n";

pub const CHAT_ANSWER: &str = "v=0\r\no=- 2 2 IN IP4 192.0.2.2\r\ns=-\r\nc=IN IP4 192.0.2.2\r\nt=0 0\r\n\
m=message 9999 TCP/MSRP *\r\na=sendrecv\r\na=accept-types:message/cpim\r\na=setup:active\r\n\
a=path:msrp://192.0.2.2:9999/bobs-own-path;tcp\r\n";

/// The whole ICSI of a short name: "session.group".
pub fn icsi(short: &str) -> String {
    format!("{BASE}oma.cpm.{short}")
}

/// `*;+g.3gpp.icsi-ref="…"` as it stands in Accept-Contact.
pub fn accepts(short: &str) -> String {
    format!("*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.{short}\";require;explicit")
}

/// A request being written.
#[derive(Clone)]
pub struct Letter {
    method: &'static str,
    uri: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Letter {
    fn new(method: &'static str, service: &str) -> Self {
        let mut letter = Letter { method, uri: BOB.to_string(), headers: Vec::new(), body: Vec::new() };
        for (name, value) in [
            ("Via", "SIP/2.0/UDP scscf.example.net;branch=z9hG4bK776"),
            ("Route", "<sip:term@pf1.example.net;lr>, <sip:odi_1@scscf.example.net;lr>"),
            ("Max-Forwards", "68"),
            ("From", "\"Alice\" <sip:alice@example.net>;tag=1928"),
            ("To", "<sip:bob@example.net>"),
            ("Call-ID", "a84b4c76e66710"),
            ("CSeq", "1 INVITE"),
            ("P-Asserted-Identity", "<sip:alice@example.net>, <tel:+15551230001>"),
            ("Conversation-ID", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
            ("Contribution-ID", "abcdef-1234-5678-90ab-cdef01234567"),
            ("User-Agent", "CPM-client/OMA2.2 term-x"),
        ] {
            letter = letter.with(name, value);
        }
        letter.with("Accept-Contact", &accepts(service)).with("P-Asserted-Service", &icsi(service))
    }

    fn invite(service: &str) -> Self {
        Self::new("INVITE", service)
            .with("Contact", "<sip:alice@192.0.2.1:5060>;+sip.instance=\"<urn:uuid:a-1>\"")
            .with("Supported", "timer, 100rel")
            .with("Allow", "INVITE, ACK, BYE, CANCEL, UPDATE")
    }

    /// An INVITE for a Large Message Mode message from Alice to Bob.
    pub fn large() -> Self {
        Self::invite("largemsg").sdp(LARGE_SDP)
    }

    /// An INVITE for a 1-1 session.
    pub fn session() -> Self {
        Self::invite("session").sdp(CHAT_SDP)
    }

    /// A Pager Mode MESSAGE.
    pub fn pager() -> Self {
        let cpim = "From: <sip:alice@example.net>\r\nTo: <sip:bob@example.net>\r\n\r\nContent-Type: text/plain\r\n\r\nhello";
        let mut letter = Self::new("MESSAGE", "msg").with("Content-Type", "message/cpim");
        letter.body = cpim.into();
        letter.set("CSeq", "1 MESSAGE")
    }

    /// One more field of that name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// The only field of that name.
    pub fn set(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    pub fn uri(mut self, uri: &str) -> Self {
        self.uri = uri.to_string();
        self
    }

    pub fn sdp(self, sdp: &str) -> Self {
        let mut letter = self.set("Content-Type", "application/sdp");
        letter.body = sdp.into();
        letter
    }

    /// SDP and a recipient list (or its history) in one multipart body.
    pub fn with_list(self, disposition: &str, list: &str) -> Self {
        let sdp = String::from_utf8(self.body.clone()).expect("the tests write text");
        let mut letter = self.set("Content-Type", "multipart/mixed;boundary=b1");
        letter.body = format!(
            "--b1\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--b1\r\nContent-Type: application/resource-lists+xml\r\n\
             Content-Disposition: {disposition}\r\n\r\n{list}\r\n--b1--\r\n"
        )
        .into();
        letter
    }

    fn procedure(&self) -> Procedure {
        Procedure::of(Role::Terminating, &self.request())
    }

    pub fn bare(self) -> Self {
        let mut letter = self.without("Content-Type");
        letter.body.clear();
        letter
    }

    pub fn request(&self) -> Request {
        let mut text = format!("{} {} SIP/2.0\r\n", self.method, self.uri).into_bytes();
        for (name, value) in &self.headers {
            text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        text.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
        text.extend_from_slice(&self.body);
        Request::parse(&text).expect("the tests write well-formed requests")
    }
}

/// A 2xx of a target.
pub fn ok(contact: &str, sdp: &str, more: &[(&str, &str)]) -> Response {
    let mut text = format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP pf1.example.net;branch=z9hG4bK1\r\nFrom: <sip:alice@example.net>;tag=1\r\n\
         To: <sip:bob@example.net>;tag=2\r\nCall-ID: t1\r\nCSeq: 1 INVITE\r\nContact: {contact}\r\nServer: other/1.0\r\n"
    );
    for (name, value) in more {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len());
    Response::parse(text.as_bytes()).expect("the tests write well-formed responses")
}

/// What the procedures know of Bob.
pub struct Bob {
    pub config: Config,
    pub clients: Vec<Client>,
    pub rules: Option<Rc<AccessRules>>,
    pub blacklist: Option<Rc<UriList>>,
    pub replaced: Vec<usize>,
    pub trusted: bool,
}

pub fn client(instance: &str, gruu: Option<&str>, features: &[&str]) -> Client {
    Client {
        aor: BOB.to_string(),
        contact: format!("sip:bob@192.0.2.2:{}", 5000 + instance.len()),
        instance: Some(instance.to_string()),
        gruu: gruu.map(str::to_string),
        features: vec![("+g.3gpp.icsi-ref".to_string(), features.iter().map(|short| icsi(short)).collect())],
        user_agent: Some("CPM-client/OMA2.2".to_string()),
        primary: instance == PHONE,
        q: 1000,
    }
}

impl Bob {
    /// With a phone (public GRUU, primary) and a tablet (none), both for all services.
    pub fn new() -> Self {
        let all = ["msg", "largemsg", "session"];
        let mut config = Config::default();
        config.node.host = "pf1.example.net".to_string();
        config.sip.core = Some("sip:127.0.0.1:5070;lr".to_string());
        config.sip.isf = Some("sip:127.0.0.1:5090;lr".to_string());
        config.sip.home_domains = vec!["example.net".to_string()];
        config.policy.authorised_originators = vec!["sip:*@example.net".to_string(), "tel:+*".to_string()];
        Bob {
            config,
            clients: vec![client(PHONE, Some(PHONE_GRUU), &all), client(TABLET, None, &all)],
            rules: None,
            blacklist: None,
            replaced: Vec::new(),
            trusted: true,
        }
    }

    /// Without any registered client.
    pub fn away() -> Self {
        Bob { clients: Vec::new(), ..Bob::new() }
    }

    /// With one CPM rule about standalone messages that says so.
    pub fn with_actions(mut self, actions: &[&str]) -> Self {
        self.rules = Some(Rc::new(rules(&[rule("CPM", Some("standalone-message"), actions)])));
        self
    }

    pub fn with_rules(mut self, list: &[String]) -> Self {
        self.rules = Some(Rc::new(rules(list)));
        self
    }

    pub fn configured(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            config: &self.config,
            now: Instant::from_unix_s(NOW_S),
            trusted: self.trusted,
            role: Role::Terminating,
            rules: self.rules.clone(),
            blacklist: self.blacklist.clone(),
            external_lists: &[],
            clients: &self.clients,
            replaced: &self.replaced,
        }
    }

    pub fn gets(&self, letter: &Letter) -> Result<Decision, Refusal> {
        let request = letter.request();
        letter.procedure().decide(&self.facts(), &request)
    }

    pub fn bridge(&self, letter: &Letter) -> Bridge {
        match self.gets(letter) {
            Ok(Decision::Bridge(bridge)) => *bridge,
            other => panic!("a bridge was expected: {other:?}"),
        }
    }

    pub fn receive(&self, letter: &Letter) -> Receive {
        match self.gets(letter) {
            Ok(Decision::Receive(receive)) => *receive,
            other => panic!("we were to receive it ourselves: {other:?}"),
        }
    }

    pub fn refusal(&self, letter: &Letter) -> Refusal {
        self.gets(letter).expect_err("a refusal was expected")
    }

    /// The origin's answer when target 0 answers so.
    pub fn answer(&self, letter: &Letter, bridge: &Bridge, ok: &Response) -> Answer {
        self.success(letter, bridge, ok).expect("the 2xx is of use")
    }

    pub fn success(&self, letter: &Letter, bridge: &Bridge, ok: &Response) -> Result<Answer, Refusal> {
        letter.procedure().on_success(&self.facts(), &letter.request(), bridge, 0, ok)
    }

    pub fn exhausted(&self, letter: &Letter, bridge: &Bridge, failures: &[(usize, u16)]) -> Result<Decision, Refusal> {
        letter.procedure().on_exhausted(&self.facts(), &letter.request(), bridge, failures)
    }
}

/// A rule of an access-rules document.
pub fn rule(enabler: &str, medium: Option<&str>, actions: &[&str]) -> String {
    let media = medium.map(|medium| format!("<oxe:media-list><oxe:{medium}/></oxe:media-list>")).unwrap_or_default();
    let actions: String = actions
        .iter()
        .map(|action| match action.split_once(' ') {
            Some((name, attributes)) => format!("<oxe:{name} {attributes}>true</oxe:{name}>"),
            None => format!("<oxe:{action}>true</oxe:{action}>"),
        })
        .collect();
    format!(
        "<rule id=\"r\"><conditions><oxe:service-list><oxe:service enabler=\"{enabler}\"/></oxe:service-list>{media}</conditions>\
         <actions>{actions}</actions></rule>"
    )
}

pub fn rules(list: &[String]) -> AccessRules {
    let list: String = list.iter().enumerate().map(|(at, rule)| rule.replacen("id=\"r\"", &format!("id=\"r{at}\""), 1)).collect();
    let text = format!(
        "<?xml version=\"1.0\"?><ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\" \
         xmlns:oxe=\"urn:oma:xml:xdm:extensions\">{list}</ruleset>"
    );
    AccessRules::parse(text.as_bytes(), cpm_pf::cpm::identity::normalise).expect("the tests write well-formed rules")
}

/// Values of a field of an INVITE, one for each line.
pub fn header<'i>(invite: &'i Invite, name: &str) -> Vec<&'i str> {
    values(&invite.headers, name)
}

pub fn values<'h, T: AsRef<str>>(headers: &'h [(T, T)], name: &str) -> Vec<&'h str> {
    let named = headers.iter().filter(|(known, _)| known.as_ref().eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_ref()).collect()
}

/// A plan as it goes out, with our own path "msrp://pf:2855/own;tcp".
pub fn written(plan: &MediaPlan) -> String {
    let relayed = plan.lines.iter().filter(|line| **line == Line::Relayed).count();
    let own = OwnLine { host: "127.0.0.1".into(), port: 2855, uri: "msrp://127.0.0.1:2855/01own;tcp".into(), fingerprint: None };
    plan.write(OwnOrigin { session_id: 7, version: 1 }, &vec![own; relayed])
}

/// How often a line stands in an SDP.
pub fn count(sdp: &str, line: &str) -> usize {
    sdp.lines().filter(|known| *known == line).count()
}

pub fn to_isf(bridge: &Bridge) -> Vec<&Invite> {
    bridge.targets.iter().filter(|target| target.kind == TargetKind::Isf).collect()
}

pub fn to_clients(bridge: &Bridge) -> Vec<&Invite> {
    bridge.targets.iter().filter(|target| matches!(target.kind, TargetKind::Client { .. })).collect()
}

pub fn is_own(contact: &Contact) -> bool {
    matches!(contact, Contact::Own { .. })
}
