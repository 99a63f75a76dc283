//! SIP as this tool needs it (RFC 3261): writing the requests and answers of a caller and a called party, reading the few
//! headers they copy. Not the proxy's code, so that each checks the other.

use crate::scenario::Scenario;
use std::fmt::Write as _;

/// A message as text, with the lines that are copied into answers.
pub struct Message<'a>(pub &'a str);

impl<'a> Message<'a> {
    pub fn first_line(&self) -> &'a str {
        self.0.lines().next().unwrap_or("")
    }

    /// Status of a response; 0 for a request.
    pub fn status(&self) -> u16 {
        self.first_line().strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// Values of a header, by its long or compact name.
    pub fn all(&self, name: &'a str, compact: &'a str) -> impl Iterator<Item = &'a str> {
        let head = self.0.split("\r\n\r\n").next().unwrap_or("");
        head.split("\r\n").skip(1).filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            let key = key.trim_end();
            (key.eq_ignore_ascii_case(name) || (!compact.is_empty() && key.eq_ignore_ascii_case(compact))).then(|| value.trim())
        })
    }

    pub fn header(&self, name: &'a str, compact: &'a str) -> &'a str {
        self.all(name, compact).next().unwrap_or("")
    }

    pub fn body(&self) -> &'a str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// The URI of the first Contact.
    pub fn contact(&self) -> &'a str {
        let value = self.header("Contact", "m");
        value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(value, |(uri, _)| uri)
    }

    /// An SDP attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        self.body().lines().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

/// Who calls whom, and where.
#[derive(Clone)]
pub struct Party {
    /// "127.0.0.1:5090"
    pub address: String,
    /// "UDP" or "TCP".
    pub transport: String,
}

/// SDP of one MSRP line; over TLS where there is a fingerprint (RFC 4975 §14.4).
pub fn sdp(host: &str, port: u16, path: &str, setup: &str, direction: &str, fingerprint: Option<&str>) -> String {
    let transport = if fingerprint.is_some() { "TCP/TLS/MSRP" } else { "TCP/MSRP" };
    let fingerprint = fingerprint.map_or(String::new(), |value| format!("a=fingerprint:{value}\r\n"));
    format!(
        "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=message {port} {transport} *\r\n\
         a=accept-types:message/cpim text/plain application/im-iscomposing+xml\r\na=accept-wrapped-types:*\r\na=path:{path}\r\na=setup:{setup}\r\na={direction}\r\na=msrp-cema\r\n{fingerprint}"
    )
}

/// What an INVITE asks for, and who is served.
#[derive(Clone)]
pub struct Invitation {
    /// Large Message Mode, not a session.
    pub large: bool,
    /// The called user is served, not the caller.
    pub terminating: bool,
    /// Route of the request: the proxy, then us, as an S-CSCF writes it; none: the proxy knows where to send it.
    pub route: Option<String>,
}

impl Invitation {
    /// As the scenario has it.
    pub fn of(scenario: &Scenario) -> Self {
        let route = scenario.route.then(|| format!("<sip:{};lr>, <sip:{};lr>", scenario.proxy, scenario.called_sip));
        Self { large: scenario.service == "largemsg", terminating: scenario.served == "term", route }
    }

    /// Direction attribute of the caller's SDP, and of the called party's.
    pub fn directions(&self) -> [&'static str; 2] {
        if self.large { ["sendonly", "recvonly"] } else { ["sendrecv", "sendrecv"] }
    }
}

/// The INVITE of call `call`.
pub fn invite(caller: &Party, proxy: &str, call: &str, invitation: &Invitation, body: &str) -> String {
    let icsi = if invitation.large { "oma.cpm.largemsg" } else { "oma.cpm.session" };
    let (to, served, service) = match invitation.terminating {
        false => (format!("sip:bob@{proxy}"), "<sip:alice@example.net>;sescase=orig", "P-Preferred-Service"),
        true => ("sip:bob@example.net".to_owned(), "<sip:bob@example.net>;sescase=term", "P-Asserted-Service"),
    };
    let route = invitation.route.as_ref().map_or(String::new(), |route| format!("Route: {route}\r\n"));
    let (address, transport) = (&caller.address, &caller.transport);
    format!(
        "INVITE {to} SIP/2.0\r\nVia: SIP/2.0/{transport} {address};branch=z9hG4bK-{call}-i\r\nMax-Forwards: 70\r\n{route}\
         From: <sip:alice@example.net>;tag=f{call}\r\nTo: <sip:bob@example.net>\r\nCall-ID: {call}@bench\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:alice@{address};transport={lower}>\r\n\
         Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.{icsi}\"\r\n\
         {service}: urn:urn-7:3gpp-service.ims.icsi.{icsi}\r\nP-Asserted-Identity: <sip:alice@example.net>\r\n\
         P-Served-User: {served}\r\n\
         Conversation-ID: c{call}\r\nContribution-ID: d{call}\r\nSession-Expires: 1800;refresher=uac\r\nSupported: timer\r\n\
         User-Agent: CPM-client/OMA2.2 cpm-bench\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}",
        lower = transport.to_ascii_lowercase(),
        length = body.len()
    )
}

/// ACK or BYE within the dialog that a 200 made.
pub fn in_dialog(caller: &Party, method: &str, cseq: u32, call: &str, ok: &Message<'_>) -> String {
    let mut text = format!(
        "{method} {} SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bK-{call}-{}{cseq}\r\n",
        ok.contact(),
        caller.transport,
        caller.address,
        &method[..1]
    );
    let routes: Vec<&str> = ok.all("Record-Route", "").collect();
    for route in routes.iter().rev() {
        let _ = write!(text, "Route: {route}\r\n");
    }
    let _ = write!(
        text,
        "Max-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
        ok.header("From", "f"),
        ok.header("To", "t"),
        ok.header("Call-ID", "i")
    );
    text
}

/// A 200 of the called party; `body` empty for a BYE.
pub fn ok(request: &Message<'_>, called: &Party, body: &str) -> String {
    let mut text = String::with_capacity(1024);
    text.push_str("SIP/2.0 200 OK\r\n");
    for via in request.all("Via", "v") {
        let _ = write!(text, "Via: {via}\r\n");
    }
    for route in request.all("Record-Route", "") {
        let _ = write!(text, "Record-Route: {route}\r\n");
    }
    let to = request.header("To", "t");
    let call_id = request.header("Call-ID", "i");
    let tag = if to.contains(";tag=") { String::new() } else { format!(";tag=t{}", call_id.split('@').next().unwrap_or("")) };
    let _ = write!(
        text,
        "From: {}\r\nTo: {to}{tag}\r\nCall-ID: {call_id}\r\nCSeq: {}\r\n",
        request.header("From", "f"),
        request.header("CSeq", "")
    );
    if body.is_empty() {
        text.push_str("Content-Length: 0\r\n\r\n");
    } else {
        let _ = write!(
            text,
            "Contact: <sip:bob@{};transport={}>\r\nSupported: timer\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            called.address,
            called.transport.to_ascii_lowercase(),
            body.len()
        );
    }
    text
}

/// A name for the calls of one run that no other run of this process has.
pub fn run_name() -> String {
    static RUNS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    format!("b{}r{}", std::process::id(), RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// Splits whole messages off a stream's octets (RFC 3261 §18.3).
pub fn split_stream(buffer: &mut Vec<u8>, mut tell: impl FnMut(&str)) {
    let mut at = 0;
    while let Some(end) = memchr::memmem::find(&buffer[at..], b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&buffer[at..at + end + 4]).into_owned();
        let length: usize = Message(&head).header("Content-Length", "l").parse().unwrap_or(0);
        if buffer.len() < at + end + 4 + length {
            break;
        }
        tell(&String::from_utf8_lossy(&buffer[at..at + end + 4 + length]));
        at += end + 4 + length;
    }
    buffer.drain(..at);
}
