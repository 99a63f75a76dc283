//! RFC 3261 §7: a message, parsed once into spans over its own octets; headers are typed when somebody asks.
//!
//! Cost: one allocation for the head, one for the body, one for the table of fields; a header that nobody asks for is never read.

use super::header::name::{Name, NameSet};
use super::mandatory::Mandatory;
use super::method::Method;
use crate::limits::{SIP_FIELDS_MAX, SIP_HEAD_OCTETS_MAX};
use std::any::Any;
use std::cell::OnceCell;
use std::ops::{Deref, Range};
use std::rc::Rc;

/// Octets that are not SIP: where, and in which production.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Octet offset in what was read.
    pub at: usize,
    /// The production that failed, "header > via > sent-by".
    pub context: &'static str,
}

impl Malformed {
    pub(crate) const fn new(at: usize, context: &'static str) -> Self {
        Self { at, context }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at octet {}", self.context, self.at)
    }
}

impl std::error::Error for Malformed {}

/// The context of a [`Malformed`] request of another version of SIP: 505 (RFC 3261 §21.5.6).
pub const VERSION: &str = "request-line > version";

/// One header field line (a folded one is one field); ranges are octet offsets into the message.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: Name,
    name_at: u32,
    name_end: u32,
    value_at: u32,
    value_end: u32,
}

/// What a request and a response share: fields and body over one buffer of UTF-8 text (the body may be anything).
#[derive(Clone, Debug)]
pub struct Message {
    /// Start line and fields: text, so that no value is looked at a second time for being UTF-8.
    head: Box<str>,
    fields: Vec<Field>,
    /// Names that stand in it, and those that stand more than once.
    names: NameSet,
    repeated: NameSet,
    body: Box<[u8]>,
    /// What was read of the fields that every message has.
    pub(super) mandatory: Mandatory,
    /// What somebody read out of the body, for whoever wants to know the same.
    reading: OnceCell<Rc<dyn Any>>,
}

/// A SIP request (RFC 3261 §7.1).
#[derive(Clone, Debug)]
pub struct Request {
    message: Message,
    method: Method,
    method_end: u32,
    uri: Range<u32>,
}

/// A SIP response (RFC 3261 §7.2).
#[derive(Clone, Debug)]
pub struct Response {
    message: Message,
    status: u16,
    reason: Range<u32>,
}

/// What a flow delivers.
#[derive(Clone, Debug)]
pub enum Incoming {
    Request(Request),
    Response(Response),
}

impl Incoming {
    /// Reads one whole framed message: start line, fields, blank line, and all that follows as body (cut to
    /// Content-Length where that is shorter, RFC 3261 §18.3).
    ///
    /// # Errors
    /// [`Malformed`] when the octets are not a SIP message; a Content-Length above what is there is one.
    pub fn parse(octets: &[u8]) -> Result<Incoming, Malformed> {
        parse(octets)
    }

    /// Fields and body of either.
    pub fn message(&self) -> &Message {
        match self {
            Incoming::Request(request) => &request.message,
            Incoming::Response(response) => &response.message,
        }
    }
}

impl Deref for Request {
    type Target = Message;
    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Deref for Response {
    type Target = Message;
    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Request {
    /// Reads a request. # Errors: as [`Incoming::parse`], and when it is a response.
    pub fn parse(octets: &[u8]) -> Result<Request, Malformed> {
        match parse(octets)? {
            Incoming::Request(request) => Ok(request),
            Incoming::Response(_) => Err(Malformed::new(0, "request-line")),
        }
    }

    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as it was written; what [`Method::Other`] stands for.
    pub fn method_str(&self) -> &str {
        self.message.text(0, self.method_end)
    }

    /// The Request-URI, octet for octet.
    pub fn uri(&self) -> &str {
        self.message.text(self.uri.start, self.uri.end)
    }
}

impl Response {
    /// Reads a response. # Errors: as [`Incoming::parse`], and when it is a request.
    pub fn parse(octets: &[u8]) -> Result<Response, Malformed> {
        match parse(octets)? {
            Incoming::Response(response) => Ok(response),
            Incoming::Request(_) => Err(Malformed::new(0, "status-line")),
        }
    }

    /// The status code, 100 to 699.
    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn reason(&self) -> &str {
        self.message.text(self.reason.start, self.reason.end)
    }
}

impl Message {
    /// Start line, fields and the blank line, as they came.
    pub fn head(&self) -> &str {
        &self.head
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// What `read` makes of this message; it is asked once, and the same is given to all who ask for that type later. A body means
    /// nothing to SIP: what is in it is read by those above.
    pub fn reading<T: 'static>(&self, read: impl Fn(&Self) -> T) -> Rc<T> {
        let known = self.reading.get_or_init(|| Rc::new(read(self)));
        Rc::clone(known).downcast().unwrap_or_else(|_| Rc::new(read(self)))
    }

    /// Octets of the whole message.
    pub fn size(&self) -> usize {
        self.head.len() + self.body.len()
    }

    fn text(&self, at: u32, end: u32) -> &str {
        // Spans end at ASCII delimiters.
        self.head.get(at as usize..end as usize).unwrap_or("")
    }

    /// All fields in order: name, name as written, value without surrounding white space.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = (Name, &str, &str)> + '_ {
        self.fields
            .iter()
            .map(|field| (field.name, self.text(field.name_at, field.name_end), self.text(field.value_at, field.value_end)))
    }

    /// All fields in order, each as it came, white space behind the value included, but without the line end; with its name.
    pub fn written(&self) -> impl Iterator<Item = (Name, &str)> + '_ {
        let blank =
            [("\n\r\n", 2), ("\n\n", 1)].iter().find(|(end, _)| self.head.ends_with(end)).map_or(0, |(_, octets)| *octets);
        let end = (self.head.len() - blank) as u32;
        let ends = self.fields.iter().skip(1).map(|next| next.name_at).chain([end]);
        self.fields.iter().zip(ends).map(|(field, end)| {
            let line = self.text(field.name_at, end);
            let line = line.strip_suffix('\n').unwrap_or(line);
            (field.name, line.strip_suffix('\r').unwrap_or(line))
        })
    }

    /// Values of every field of that name, in order, one for each line.
    pub fn lines(&self, name: Name) -> impl DoubleEndedIterator<Item = &str> + '_ {
        // Most of what is asked for is not there.
        let fields = if self.has(name) { &*self.fields } else { &[] };
        fields.iter().filter(move |field| field.name == name).map(|field| self.text(field.value_at, field.value_end))
    }

    /// The value of the first field of that name.
    pub fn header(&self, name: Name) -> Option<&str> {
        self.lines(name).next()
    }

    /// Whether a field of that name is there.
    pub fn has(&self, name: Name) -> bool {
        self.names.has(name)
    }

    /// Names of which there is more than one field.
    pub fn repeated(&self) -> NameSet {
        self.repeated
    }

    /// The value of the first field of a name we have no [`Name`] for, without regard to case.
    pub fn other(&self, name: &str) -> Option<&str> {
        self.fields().find(|(known, text, _)| *known == Name::Other && text.eq_ignore_ascii_case(name)).map(|(_, _, value)| value)
    }

    /// Values of a comma-separated header over all its lines (commas inside quotes and angle brackets do not count).
    pub fn values(&self, name: Name) -> impl Iterator<Item = &str> + '_ {
        self.lines(name).flat_map(super::header::list)
    }

    /// Whether a comma-separated list of tokens (Supported, Require, Allow …) names the token, without regard to case.
    pub fn lists(&self, name: Name, token: &str) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(token))
    }
}

/// What follows the empty lines a peer may send before a start line (RFC 3261 §7.5), or as a keep-alive.
pub fn past_empty_lines(octets: &[u8]) -> &[u8] {
    let lines = octets.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
    &octets[lines..]
}

fn parse(octets: &[u8]) -> Result<Incoming, Malformed> {
    let octets = past_empty_lines(octets);
    let line_end = memchr::memchr(b'\n', octets).ok_or(Malformed::new(0, "start-line"))?;
    let (fields, head_end) = fields(octets, line_end + 1)?;
    let head =
        std::str::from_utf8(&octets[..head_end]).map_err(|error| Malformed::new(error.valid_up_to(), "message > utf-8"))?;
    let start = &octets[..line_end];
    let start = start.strip_suffix(b"\r").unwrap_or(start);

    let body_end = body_end(octets, head_end, &fields)?;
    let (body, mandatory) = (octets[head_end..body_end].into(), Mandatory::default());
    let (mut names, mut repeated) = (NameSet::default(), NameSet::default());
    for field in &fields {
        if names.has(field.name) {
            repeated.add(field.name);
        }
        names.add(field.name);
    }
    start_line(start, Message { head: head.into(), fields, names, repeated, body, mandatory, reading: OnceCell::new() })
}

fn body_end(octets: &[u8], body_at: usize, fields: &[Field]) -> Result<usize, Malformed> {
    let mut lengths = fields.iter().filter(|field| field.name == Name::ContentLength);
    let Some(field) = lengths.next() else { return Ok(octets.len()) };
    let at = field.value_at as usize;
    let read = |field: &Field| decimal(&octets[field.value_at as usize..field.value_end as usize]);
    let length = read(field).ok_or(Malformed::new(at, "header > content-length"))?;
    if lengths.any(|other| read(other) != Some(length)) {
        return Err(Malformed::new(at, "header > content-length > twice"));
    }
    if length > (octets.len() - body_at) as u64 {
        return Err(Malformed::new(at, "header > content-length > beyond the message"));
    }
    Ok(body_at + length as usize)
}

/// Reads digits only; no sign, no space, no overflow.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The fields from `from` on, and where the body begins: after the first blank line. A datagram may end without one
/// (RFC 4475 §3.1.2.15 and RFC 5118 §4.10 are published so); on a stream the framer has seen it.
fn fields(octets: &[u8], from: usize) -> Result<(Vec<Field>, usize), Malformed> {
    let head = &octets[..octets.len().min(SIP_HEAD_OCTETS_MAX)];
    let mut fields = Vec::with_capacity(24);
    let mut at = from;
    while at < head.len() {
        let (mut end, mut bare) = line_end(head, at);
        if matches!(head[at..end], [] | [b'\r']) && end < head.len() {
            return Ok((fields, end + 1));
        }
        // RFC 3261 §7.3.1: a line that begins with white space continues the field.
        while matches!(head.get(end + 1), Some(b' ' | b'\t')) {
            let next = line_end(head, end + 1);
            (end, bare) = (next.0, bare | next.1);
        }
        if end == head.len() {
            break;
        }
        if fields.len() == SIP_FIELDS_MAX {
            return Err(Malformed::new(at, "message > too many header fields"));
        }
        fields.push(field(octets, at, end, bare)?);
        at = end + 1;
    }
    if at == octets.len() { Ok((fields, at)) } else { Err(Malformed::new(at, "message > blank line")) }
}

/// Where the line at `at` ends, with its LF or with the head, and whether a CR stands in it that ends no line.
fn line_end(head: &[u8], at: usize) -> (usize, bool) {
    let (mut from, mut bare) = (at, false);
    while let Some(length) = memchr::memchr2(b'\r', b'\n', &head[from..]) {
        let found = from + length;
        match head[found..] {
            [b'\n', ..] => return (found, bare),
            [b'\r', b'\n', ..] => return (found + 1, bare),
            _ => (from, bare) = (found + 1, true),
        }
    }
    (head.len(), bare)
}

/// The field in `at..end`; `bare`: [`line_end`] saw such a CR in it.
fn field(octets: &[u8], at: usize, end: usize, bare: bool) -> Result<Field, Malformed> {
    let line = &octets[at..end];
    let name = &line[..line.iter().position(|octet| !is_token(*octet)).unwrap_or(line.len())];
    let space = match line.get(name.len()) {
        Some(b':') => 0,
        _ => line.len() - name.len() - line[name.len()..].trim_ascii_start().len(),
    };
    let colon = at + name.len() + space;
    if octets.get(colon) != Some(&b':') || name.is_empty() {
        let context = if memchr::memchr(b':', line).is_some() { "header > field-name" } else { "header > colon" };
        return Err(Malformed::new(at, context));
    }
    // A CR that ends no line may end one for the next hop: it would add a field that nobody here saw.
    if bare {
        return Err(Malformed::new(at, "header > bare CR"));
    }
    let value = &octets[colon + 1..end];
    let value_at = colon + 1 + (value.len() - value.trim_ascii_start().len());
    let value_end = value_at + octets[value_at..end].trim_ascii_end().len();
    Ok(Field {
        name: Name::of(name),
        name_at: at as u32,
        name_end: (at + name.len()) as u32,
        value_at: value_at as u32,
        value_end: value_end as u32,
    })
}

/// RFC 3261 §25.1: token.
pub(crate) const fn is_token(octet: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut octet = 0;
        while octet < 256 {
            let letter = octet as u8;
            table[octet] = letter.is_ascii_alphanumeric()
                || matches!(letter, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
            octet += 1;
        }
        table
    };
    TOKEN[octet as usize]
}

fn start_line(line: &[u8], message: Message) -> Result<Incoming, Malformed> {
    if line.len() > 8 && line[..8].eq_ignore_ascii_case(b"SIP/2.0 ") {
        let code = line.get(8..11).and_then(decimal).ok_or(Malformed::new(8, "status-line > status-code"))?;
        if !(100..700).contains(&code) {
            return Err(Malformed::new(8, "status-line > status-code"));
        }
        if !matches!(line.get(11), None | Some(b' ')) {
            return Err(Malformed::new(11, "status-line > status-code"));
        }
        let reason = line.len().min(12) as u32..line.len() as u32;
        return Ok(Incoming::Response(Response { message, status: code as u16, reason }));
    }
    let method_end = memchr::memchr(b' ', line).ok_or(Malformed::new(0, "request-line"))?;
    let uri_end =
        memchr::memrchr(b' ', line).filter(|end| *end > method_end).ok_or(Malformed::new(method_end, "request-line > uri"))?;
    if method_end == 0 || !line[..method_end].iter().all(|octet| is_token(*octet)) {
        return Err(Malformed::new(0, "request-line > method"));
    }
    let uri = &line[method_end + 1..uri_end];
    if uri.is_empty() || uri.iter().any(u8::is_ascii_whitespace) || uri[0] == b'<' {
        return Err(Malformed::new(method_end + 1, "request-line > uri"));
    }
    let version = &line[uri_end + 1..];
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        let other = version.get(..4).is_some_and(|name| name.eq_ignore_ascii_case(b"SIP/"));
        return Err(Malformed::new(uri_end + 1, if other { VERSION } else { "request-line > sip-version" }));
    }
    let method = std::str::from_utf8(&line[..method_end]).map_or(Method::Other, Method::of);
    let uri = method_end as u32 + 1..uri_end as u32;
    Ok(Incoming::Request(Request { message, method, method_end: method_end as u32, uri }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &[u8] = b"INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP pc33.example.com;branch=z9hG4bK776\r\n\
        v: SIP/2.0/TCP a;branch=z9hG4bK1, SIP/2.0/TLS b;branch=z9hG4bK2\r\nMax-Forwards: 70\r\nTo: Bob <sip:bob@example.net>\r\n\
        From: \"A, B\" <sip:alice@example.com>;tag=1928\r\nCall-ID: a84b\r\nCSeq: 314159 INVITE\r\nSubject: one\r\n  two\r\n\
        Content-Length: 4\r\n\r\nv=0\n";

    #[test]
    fn a_request_reads_into_its_parts() {
        let request = Request::parse(INVITE).unwrap();
        assert_eq!((request.method(), request.uri()), (Method::Invite, "sip:bob@example.net"));
        assert_eq!(request.values(Name::Via).count(), 3);
        assert_eq!(request.from().unwrap().tag(), Some("1928"));
        assert_eq!(request.header(Name::Subject), Some("one\r\n  two"));
        assert_eq!(request.cseq().unwrap().number, 314159);
        assert_eq!(request.body(), b"v=0\n");
    }

    #[test]
    fn a_field_is_known_as_it_was_written() {
        for (end, blank) in [("\r\n", "\r\n"), ("\n", "\n"), ("\r\n", "")] {
            let lines = ["To : <sip:a> \t", "X:", "Subject: one\r\n  two\r\n ", "l:  0  "];
            let text = format!("OPTIONS sip:a SIP/2.0\r\n{}{end}{blank}", lines.join(end));
            let request = Request::parse(text.as_bytes()).unwrap();
            assert_eq!(request.written().map(|(_, line)| line).collect::<Vec<_>>(), lines, "{text:?}");
        }
    }

    #[test]
    fn a_content_length_beyond_the_message_is_malformed() {
        let text = String::from_utf8(INVITE.to_vec()).unwrap().replace("Content-Length: 4", "Content-Length: 40");
        assert_eq!(Request::parse(text.as_bytes()).unwrap_err().context, "header > content-length > beyond the message");
    }

    #[test]
    fn a_bare_cr_is_malformed() {
        let text = String::from_utf8(INVITE.to_vec()).unwrap().replace("Subject: one", "Subject: o\rVia: ne");
        assert_eq!(Request::parse(text.as_bytes()).unwrap_err().context, "header > bare CR");
    }

    #[test]
    fn a_datagram_may_end_without_a_blank_line() {
        let request = Request::parse(b"OPTIONS sip:a SIP/2.0\r\nTo: <sip:a>\r\n").unwrap();
        assert_eq!((request.header(Name::To), request.body()), (Some("<sip:a>"), &b""[..]));
        assert!(Request::parse(b"OPTIONS sip:a SIP/2.0\r\nTo: <sip:a>").is_err());
    }
}
