//! RFC 3261 §8.2, §16.3: what every message must fulfil before it is served, and the answer to one that does not.
//!
//! RFC 4475 and RFC 5118 show what that means; each of their messages is a vector with its verdict (`tests/vectors/torture`).
//! Only rules that hold for every SIP element are judged here. What depends on who serves the request (Require, bodies,
//! methods) is judged there.

use super::header::list;
use super::header::name::{Name, NameSet};
use super::header::name_addr::NameAddr;
use super::header::via::{self, Via};
use super::message::{Incoming, Malformed, Message, Request, Response, VERSION, decimal, past_empty_lines};
use super::method::Method;
use super::status;
use super::uri::Uri;

/// A message that is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reject {
    /// A request, to be answered so. The phrase is for the status line (§8.2: it should identify the problem).
    Answer { status: u16, context: &'static str },
    /// A response, or an ACK: nothing is sent.
    Drop { context: &'static str },
}

impl Reject {
    const fn bad(context: &'static str) -> Self {
        Reject::Answer { status: 400, context }
    }

    /// The status to answer with; none: nothing is sent.
    pub const fn status(self) -> Option<u16> {
        match self {
            Reject::Answer { status, .. } => Some(status),
            Reject::Drop { .. } => None,
        }
    }

    /// What was wrong, as a path into the message: for log and metric.
    pub const fn context(self) -> &'static str {
        match self {
            Reject::Answer { context, .. } | Reject::Drop { context } => context,
        }
    }

    /// The reason phrase of the answer, "Bad Request (header > cseq)"; empty where there is none.
    pub fn reason(self) -> String {
        self.status().map_or(String::new(), |code| format!("{} ({})", status::reason(code), self.context()))
    }
}

impl From<Malformed> for Reject {
    fn from(malformed: Malformed) -> Self {
        match malformed.context {
            VERSION => Reject::Answer { status: 505, context: VERSION },
            context => Reject::bad(context),
        }
    }
}

/// Reads and judges one framed message.
///
/// # Errors
/// [`Reject`]: [`super::lenient::refuse`] writes the answer from the same octets.
pub fn read(octets: &[u8]) -> Result<Incoming, Reject> {
    let incoming = match Incoming::parse(octets) {
        Ok(incoming) => incoming,
        Err(malformed) if is_answerable(octets) => return Err(malformed.into()),
        Err(malformed) => return Err(Reject::Drop { context: malformed.context }),
    };
    validate(&incoming)?;
    Ok(incoming)
}

/// Whether octets begin like a request that can be answered: any but ACK (§17.1.1.3), and no response.
fn is_answerable(octets: &[u8]) -> bool {
    let octets = past_empty_lines(octets);
    let word = |word: &[u8]| octets.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    !word(b"SIP/") && !word(b"ACK ")
}

/// Judges a message that could be read.
///
/// # Errors
/// [`Reject`], with the first thing that is wrong.
pub fn validate(incoming: &Incoming) -> Result<(), Reject> {
    match incoming {
        Incoming::Request(request) => request_is_valid(request).map_err(|reject| match (request.method(), reject) {
            (Method::Ack, Reject::Answer { context, .. }) => Reject::Drop { context },
            (_, reject) => reject,
        }),
        Incoming::Response(response) => response_is_valid(response).map_err(|reject| Reject::Drop { context: reject.context() }),
    }
}

fn request_is_valid(request: &Request) -> Result<(), Reject> {
    let uri = request_uri(request)?;
    common(request)?;
    let cseq = request.cseq()?;
    if cseq.method_str != request.method_str() {
        // RFC 4475 §3.1.2.18: a method nobody knows is answered as such.
        let status = if request.method() == Method::Other { 501 } else { 400 };
        return Err(Reject::Answer { status, context: "header > cseq > method" });
    }
    // §8.2.2.1: a scheme that is not supported. The TEL scheme is RFC 3966's.
    if !uri.is_sip() && !uri.is_tel() {
        return Err(Reject::Answer { status: 416, context: "request-line > uri > scheme" });
    }
    let hops = max_forwards(request)?;
    let initial = request.to_tag().is_none() && !matches!(request.method(), Method::Ack | Method::Cancel);
    if hops == Some(0) && initial {
        return Err(Reject::Answer { status: 483, context: "header > max-forwards" });
    }
    Ok(())
}

/// §19.1.1: a Request-URI is no name-addr and has no headers.
fn request_uri(request: &Request) -> Result<Uri<'_>, Reject> {
    let uri = Uri::parse(request.uri())?;
    if uri.is_sip() && uri.headers.is_some() {
        return Err(Reject::bad("request-line > uri > headers"));
    }
    Ok(uri)
}

/// §16.3 step 3: the hops left. None: no Max-Forwards, or one above 255, which counts as none (RFC 4475 §3.1.2.4).
///
/// # Errors: [`Malformed`] where it is no number.
pub fn max_forwards(request: &Message) -> Result<Option<u8>, Malformed> {
    const CONTEXT: Malformed = Malformed::new(0, "header > max-forwards");
    let Some(text) = request.header(Name::MaxForwards) else { return Ok(None) };
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(CONTEXT);
    }
    Ok(decimal(text.as_bytes()).and_then(|hops| u8::try_from(hops).ok()))
}

fn response_is_valid(response: &Response) -> Result<(), Reject> {
    common(response)?;
    response.cseq()?;
    // RFC 4475 §3.3.10: a response that would be broadcast.
    if response.values(Name::Via).skip(1).any(|via| Via::parse(via).is_ok_and(|via| via.host == "255.255.255.255")) {
        return Err(Reject::bad("header > via > broadcast"));
    }
    Ok(())
}

/// What requests and responses both must have (§8.1.1) and may have once only (§7.3.1).
fn common(message: &Message) -> Result<(), Reject> {
    single(message)?;
    for line in message.lines(Name::Via) {
        no_empty(line, "header > via > empty value")?;
    }
    // The first is ours to answer by; those behind it are checked by who made them.
    check_params(message.top_via()?.params.0, "header > via > params")?;
    is_address(&message.from()?)?;
    is_address(&message.to()?)?;
    message.call_id()?;
    for line in message.lines(Name::Contact).filter(|line| *line != "*") {
        no_empty(line, "header > contact > empty value")?;
        for value in list(line) {
            let address = NameAddr::parse(value)?;
            is_address(&address)?;
            check_params(address.params.0, "header > contact > params")?;
        }
    }
    for value in message.values(Name::Route) {
        NameAddr::parse(value)?;
    }
    Ok(())
}

/// Headers that stand once at most.
fn single(message: &Message) -> Result<(), Reject> {
    const SINGLE: [(Name, &str); 8] = [
        (Name::From, "header > from > twice"),
        (Name::To, "header > to > twice"),
        (Name::CallId, "header > call-id > twice"),
        (Name::CSeq, "header > cseq > twice"),
        (Name::MaxForwards, "header > max-forwards > twice"),
        (Name::ContentType, "header > content-type > twice"),
        (Name::SessionExpires, "header > session-expires > twice"),
        (Name::MinSe, "header > min-se > twice"),
    ];
    if !SINGLE.iter().any(|(name, _)| message.repeated().has(*name)) {
        return Ok(());
    }
    // Of several, the one that comes first for the second time.
    let mut seen = NameSet::default();
    for (name, _, _) in message.fields() {
        if let Some((_, context)) = SINGLE.iter().find(|(single, _)| *single == name && seen.has(name)) {
            return Err(Reject::bad(context));
        }
        seen.add(name);
    }
    Ok(())
}

/// An address is one that all elements agree on; [`NameAddr::parse`] alone is more liberal.
fn is_address(address: &NameAddr<'_>) -> Result<(), Reject> {
    let (text, uri) = (address.text, address.uri);
    let at = uri.as_ptr().addr() - text.as_ptr().addr();
    let bracketed = at > 0;
    // §20.10: a URI with a question mark needs its brackets (RFC 4475 §3.1.2.13).
    if !bracketed && uri.contains('?') {
        return Err(Reject::bad("header > addr-spec > '?' without <>"));
    }
    // §25.1: no white space inside the brackets (RFC 4475 §3.1.2.14).
    if bracketed && (text.as_bytes()[at - 1] != b'<' || text.as_bytes().get(at + uri.len()) != Some(&b'>')) {
        return Err(Reject::bad("header > name-addr > white space"));
    }
    let display = address.display;
    let quoted = display.starts_with('"');
    if quoted && !super::header::quoted::is_closed(display) {
        return Err(Reject::bad("header > name-addr > quoted-string"));
    }
    // RFC 4475 §3.1.2.15. Other characters that are no token's do no harm and are seen (parentheses, '@', UTF-8).
    if !quoted && display.contains([',', ';', '"', '\\']) {
        return Err(Reject::bad("header > name-addr > display-name"));
    }
    Uri::parse(uri)?;
    Ok(())
}

/// No comma without a value on either side (RFC 4475 §3.1.2.1).
fn no_empty(line: &str, context: &'static str) -> Result<(), Reject> {
    let mut rest = line;
    loop {
        let end = super::header::unquoted(rest, b',').unwrap_or(rest.len());
        if rest[..end].trim_ascii().is_empty() {
            return Err(Reject::bad(context));
        }
        match rest.get(end + 1..) {
            Some(next) => rest = next,
            None => return Ok(()),
        }
    }
}

/// No semicolon without a parameter (RFC 4475 §3.1.2.1).
fn check_params(params: &str, context: &'static str) -> Result<(), Reject> {
    let mut rest = params.trim_ascii();
    while let Some(param) = rest.strip_prefix(';') {
        let end = super::header::unquoted(param, b';').unwrap_or(param.len());
        if param[..end].trim_ascii().is_empty() {
            return Err(Reject::bad(context));
        }
        rest = &param[end..];
    }
    Ok(())
}

/// Whether the sender's own claim of where it is, `received`, reads as an address (RFC 5118 §4.5: with or without brackets).
pub fn received(via: &Via<'_>) -> Option<std::net::IpAddr> {
    via.params.value("received").and_then(via::address)
}
