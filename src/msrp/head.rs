//! RFC 4975 §9: the head of a request or response, read into spans.
//!
//! ```text
//! MSRP d93kswow SEND                      start line: tid, method or status
//! To-Path: msrp://…                       must be first
//! From-Path: msrp://…                     must be second
//! Message-ID: 12339sdqwer                 fields ┐ from here on a relay copies octet for octet,
//! Byte-Range: 1-*/148                            │ but for Byte-Range where the range-end changes
//! Content-Type: message/cpim                     ┘ last
//!                                         blank line: a body follows; or the end-line at once
//! ```
//! A head that breaks a rule but can still be framed is read to its end with its `fault` noted: 400, and the stream goes
//! on. Only where the framing itself is lost the stream ends.

use crate::limits::{MSRP_FIELDS_MAX, MSRP_HEAD_OCTETS_MAX};
use crate::msrp::chunk::{ByteRange, Continuation, FailureReport};
use crate::msrp::ident::Ident;
use crate::msrp::usual::{self, ONES, place_of};

/// A stretch of a head, counted from its first octet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub start: u16,
    pub end: u16,
}

impl Span {
    pub(super) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u16, end: end as u16 }
    }

    /// What it covers of the head that `octets` begin with.
    pub fn of(self, octets: &[u8]) -> &[u8] {
        &octets[usize::from(self.start)..usize::from(self.end)]
    }

    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    pub const fn is_empty(self) -> bool {
        self.end == self.start
    }
}

/// What a start line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    Send,
    Report,
    Auth,
    /// A method we do not know; its name is [`Head::method`].
    Other,
    Response(u16),
}

/// A rule broken, by the field or place that broke it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    TransactionId,
    Method,
    /// Absent, not first, twice, or without a URI.
    ToPath,
    /// Absent, not second, twice, or without a URI.
    FromPath,
    MessageId,
    ByteRange,
    SuccessReport,
    FailureReport,
    Status,
    /// A line that is no header field.
    Field,
    /// More than `limits::MSRP_FIELDS_MAX`.
    TooManyFields,
    /// A control character, or a line that does not end with CRLF.
    Control,
    /// A body without Content-Type.
    ContentType,
}

/// The framing is lost: nothing behind this can be trusted, so the connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// What should be a start line is none.
    StartLine,
    /// The head is longer than `limits::MSRP_HEAD_OCTETS_MAX`.
    HeadTooLong,
    /// A request other than SEND with a body above 10240 octets (RFC 4975 §7.1).
    BodyTooLong,
}

/// A head read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    pub start: Start,
    pub tid: Ident,
    /// Method name, or the rest of a response's start line after the status.
    pub method: Span,
    pub to_path: Span,
    pub from_path: Span,
    pub message_id: Ident,
    pub byte_range: Option<ByteRange>,
    /// The whole Byte-Range line with its CRLF.
    pub byte_range_line: Span,
    pub success_report: bool,
    pub failure_report: FailureReport,
    /// Status code of namespace 000.
    pub status: Option<u16>,
    pub content_type: Span,
    /// All lines after From-Path, up to the blank line or the end-line.
    pub fields: Span,
    /// A blank line stands after the fields.
    pub has_body: bool,
    /// The end-line's flag, where the end-line follows the fields at once.
    pub flag: Continuation,
    /// Octets of the head, with the blank line, or with the end-line where there is no body.
    pub len: usize,
    pub fault: Option<Fault>,
}

impl Head {
    /// A head of which the start line is known.
    pub(super) fn begun(start: Start, tid: Ident, method: Span) -> Self {
        Self {
            start,
            tid,
            method,
            to_path: Span::default(),
            from_path: Span::default(),
            message_id: Ident::default(),
            byte_range: None,
            byte_range_line: Span::default(),
            success_report: false,
            failure_report: FailureReport::Yes,
            status: None,
            content_type: Span::default(),
            fields: Span::default(),
            has_body: false,
            flag: Continuation::Complete,
            len: 0,
            fault: None,
        }
    }

    pub const fn is_response(&self) -> bool {
        matches!(self.start, Start::Response(_))
    }

    /// Whether the SEND asks for no rendering: the binding or keep-alive SEND of RFC 4975 §5.4 and §7.1.
    pub const fn is_bodiless(&self) -> bool {
        !self.has_body
    }
}

/// Reads the head that `octets` begin with; none: more octets are needed.
///
/// Cost: 1,600 instructions for the usual head of 290 octets (`perf/count`).
pub fn parse(octets: &[u8]) -> Result<Option<Head>, Lost> {
    match usual::read(octets) {
        Some(head) => Ok(Some(head)),
        None => parse_unusual(octets),
    }
}

/// Any head. It is read as if it were clean, all printable ASCII but for its CRLFs, which one look at the whole of it then confirms; only
/// one that is not is read again with a look at every part.
pub(super) fn parse_unusual(octets: &[u8]) -> Result<Option<Head>, Lost> {
    let mut clean = true;
    let head = read(octets, &mut clean);
    if clean { head } else { read(octets, &mut clean) }
}

/// The head; `clean`: it is taken to be clean, and afterwards whether it is.
fn read(octets: &[u8], clean: &mut bool) -> Result<Option<Head>, Lost> {
    let Some(mut reader) = Reader::start(octets, *clean)? else { return Ok(None) };
    for _ in 0..=MSRP_HEAD_OCTETS_MAX {
        let Some(feed) = place_of(b'\n', &octets[reader.at..]) else {
            return if octets.len() > MSRP_HEAD_OCTETS_MAX { Err(Lost::HeadTooLong) } else { Ok(None) };
        };
        let line_at = reader.at;
        reader.at += feed + 1;
        if reader.at > MSRP_HEAD_OCTETS_MAX {
            return Err(Lost::HeadTooLong);
        }
        let line = &octets[line_at..reader.at];
        if line == b"\r\n" {
            *clean = reader.finish(octets, line_at, None);
            return Ok(Some(reader.head));
        }
        if line.starts_with(b"-------")
            && let Some(flag) = end_line_flag(line, &reader.head.tid)
        {
            *clean = reader.finish(octets, line_at, Some(flag));
            return Ok(Some(reader.head));
        }
        reader.field(octets, line_at);
    }
    Err(Lost::HeadTooLong)
}

fn end_line_flag(line: &[u8], tid: &Ident) -> Option<Continuation> {
    match line[7..].strip_prefix(tid.as_bytes())? {
        [flag, b'\r', b'\n'] => Continuation::of(*flag),
        _ => None,
    }
}

/// The fields of RFC 4975.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    ToPath,
    FromPath,
    MessageId,
    ByteRange,
    ContentType,
    SuccessReport,
    FailureReport,
    Status,
    Other,
}

impl Name {
    /// The name that a line begins with, and where its colon stands; none where the line is no field. Nearly everybody writes
    /// names as the RFC does, and to see that takes a comparison or two of machine words.
    fn of(line: &[u8]) -> Option<(Self, usize)> {
        match line.first()? {
            b'T' if line.starts_with(b"To-Path:") => Some((Self::ToPath, 7)),
            b'F' if line.starts_with(b"From-Path:") => Some((Self::FromPath, 9)),
            b'F' if line.starts_with(b"Failure-Report:") => Some((Self::FailureReport, 14)),
            b'M' if line.starts_with(b"Message-ID:") => Some((Self::MessageId, 10)),
            b'B' if line.starts_with(b"Byte-Range:") => Some((Self::ByteRange, 10)),
            b'C' if line.starts_with(b"Content-Type:") => Some((Self::ContentType, 12)),
            b'S' if line.starts_with(b"Success-Report:") => Some((Self::SuccessReport, 14)),
            _ => Self::of_any_case(line),
        }
    }

    /// As [`Name::of`], in upper and lower case. The names differ in length and first letter, so the colon need not be searched
    /// for those we know.
    fn of_any_case(line: &[u8]) -> Option<(Self, usize)> {
        let is =
            |name: &[u8]| line.len() > name.len() && line[name.len()] == b':' && line[..name.len()].eq_ignore_ascii_case(name);
        let known = match line.first()? | 0x20 {
            b't' if is(b"To-Path") => (Self::ToPath, 7),
            b'f' if is(b"From-Path") => (Self::FromPath, 9),
            b'f' if is(b"Failure-Report") => (Self::FailureReport, 14),
            b'm' if is(b"Message-ID") => (Self::MessageId, 10),
            b'b' if is(b"Byte-Range") => (Self::ByteRange, 10),
            b'c' if is(b"Content-Type") => (Self::ContentType, 12),
            b's' if is(b"Success-Report") => (Self::SuccessReport, 14),
            b's' if is(b"Status") => (Self::Status, 6),
            _ => {
                let colon = memchr::memchr(b':', line)?;
                let lawful = colon > 0 && !line[..colon].iter().any(u8::is_ascii_whitespace);
                return lawful.then_some((Self::Other, colon));
            }
        };
        Some(known)
    }
}

struct Reader {
    head: Head,
    at: usize,
    fields: usize,
    /// Lines that end with CRLF.
    lines: usize,
    /// It is taken to be clean.
    clean: bool,
}

impl Reader {
    fn start(octets: &[u8], clean: bool) -> Result<Option<Self>, Lost> {
        const MAGIC: &[u8; 5] = b"MSRP ";
        let shown = octets.len().min(MAGIC.len());
        if octets[..shown] != MAGIC[..shown] {
            return Err(Lost::StartLine);
        }
        let Some(feed) = place_of(b'\n', octets) else {
            return if octets.len() > MSRP_HEAD_OCTETS_MAX { Err(Lost::HeadTooLong) } else { Ok(None) };
        };
        if feed >= MSRP_HEAD_OCTETS_MAX {
            return Err(Lost::HeadTooLong);
        }
        let line = octets[..feed].strip_suffix(b"\r").ok_or(Lost::StartLine)?;
        let space = memchr::memchr(b' ', &line[5..]).ok_or(Lost::StartLine)? + 5;
        let tid = Ident::new(&line[5..space]).filter(|tid| !tid.is_empty()).ok_or(Lost::StartLine)?;
        let rest = &line[space + 1..];
        let (start, method, fault) = match rest {
            b"SEND" => (Start::Send, Span::new(space + 1, line.len()), None),
            b"REPORT" => (Start::Report, Span::new(space + 1, line.len()), None),
            b"AUTH" => (Start::Auth, Span::new(space + 1, line.len()), None),
            _ => start_of(rest, space + 1)?,
        };
        let fault = if tid.is_lawful() { fault } else { Some(Fault::TransactionId) };
        let head = Head { fault, ..Head::begun(start, tid, method) };
        Ok(Some(Self { head, at: feed + 1, fields: 0, lines: 1, clean }))
    }

    fn fault(&mut self, fault: Fault) {
        self.head.fault.get_or_insert(fault);
    }

    fn field(&mut self, octets: &[u8], line_at: usize) {
        self.fields += 1;
        if self.fields > MSRP_FIELDS_MAX {
            return self.fault(Fault::TooManyFields);
        }
        let line = &octets[line_at..self.at];
        let Some(line) = line.strip_suffix(b"\r\n") else { return self.fault(Fault::Control) };
        self.lines += 1;
        let Some((name, colon)) = Name::of(line) else { return self.fault(Fault::Field) };
        let (from, to) = value_of(line, colon + 1);
        let value = Span::new(line_at + from, line_at + to);
        let text = &line[from..to];
        match name {
            Name::ToPath => self.path_to(value, text),
            Name::FromPath => self.path_from(value, text),
            Name::MessageId => self.message_id(Ident::new(text)),
            Name::ByteRange => self.byte_range(text, Span::new(line_at, self.at)),
            Name::ContentType => self.content_type(value),
            Name::SuccessReport => self.success_report(text),
            Name::FailureReport => self.failure_report(text),
            Name::Status => self.status(text),
            Name::Other => {}
        }
        // RFC 4975 §7.1: To-Path is the first field, From-Path the second.
        if self.fields == 1 && self.head.to_path.is_empty() {
            self.fault(Fault::ToPath);
        }
        if self.fields == 2 {
            if self.head.from_path.is_empty() {
                self.fault(Fault::FromPath);
            }
            self.head.fields = Span::new(self.at, self.at);
        }
    }

    /// URIs and the blanks between them: what we write back into answers must not break their lines.
    fn is_path(&self, text: &[u8]) -> bool {
        !text.is_empty() && (self.clean || text.iter().fold(true, |good, octet| good & (b' '..=b'~').contains(octet)))
    }

    fn path_to(&mut self, value: Span, text: &[u8]) {
        if !self.is_path(text) || !self.head.to_path.is_empty() {
            return self.fault(Fault::ToPath);
        }
        self.head.to_path = value;
    }

    fn path_from(&mut self, value: Span, text: &[u8]) {
        if !self.is_path(text) || !self.head.from_path.is_empty() {
            return self.fault(Fault::FromPath);
        }
        self.head.from_path = value;
    }

    fn message_id(&mut self, id: Option<Ident>) {
        match id.filter(Ident::is_lawful) {
            Some(id) if self.head.message_id.is_empty() => self.head.message_id = id,
            _ => self.fault(Fault::MessageId),
        }
    }

    fn byte_range(&mut self, text: &[u8], line: Span) {
        match ByteRange::parse(text) {
            Some(range) if self.head.byte_range.is_none() => {
                self.head.byte_range = Some(range);
                self.head.byte_range_line = line;
            }
            _ => self.fault(Fault::ByteRange),
        }
    }

    fn content_type(&mut self, value: Span) {
        if value.is_empty() || !self.head.content_type.is_empty() {
            return self.fault(Fault::ContentType);
        }
        self.head.content_type = value;
    }

    fn success_report(&mut self, text: &[u8]) {
        match text {
            _ if text.eq_ignore_ascii_case(b"yes") => self.head.success_report = true,
            _ if text.eq_ignore_ascii_case(b"no") => self.head.success_report = false,
            _ => self.fault(Fault::SuccessReport),
        }
    }

    fn failure_report(&mut self, text: &[u8]) {
        self.head.failure_report = match text {
            _ if text.eq_ignore_ascii_case(b"yes") => FailureReport::Yes,
            _ if text.eq_ignore_ascii_case(b"no") => FailureReport::No,
            _ if text.eq_ignore_ascii_case(b"partial") => FailureReport::Partial,
            _ => return self.fault(Fault::FailureReport),
        };
    }

    /// "000 200 OK"; another namespace is not ours to understand.
    fn status(&mut self, text: &[u8]) {
        let code = |text: &[u8]| {
            text.iter().all(u8::is_ascii_digit).then(|| text.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')))
        };
        match text {
            [ns @ .., b' ', a, b, c] if ns.len() == 3 => self.status_of(ns, code(&[*a, *b, *c])),
            _ if text.len() > 7 && text[3] == b' ' && text[7] == b' ' => self.status_of(&text[..3], code(&text[4..7])),
            _ => self.fault(Fault::Status),
        }
    }

    fn status_of(&mut self, namespace: &[u8], code: Option<u16>) {
        match code {
            Some(code) if namespace == b"000" => self.head.status = Some(code),
            Some(_) if namespace.iter().all(u8::is_ascii_digit) => {}
            _ => self.fault(Fault::Status),
        }
    }

    /// Completes the head; whether it is clean.
    fn finish(&mut self, octets: &[u8], line_at: usize, flag: Option<Continuation>) -> bool {
        self.head.len = self.at;
        self.head.has_body = flag.is_none();
        self.head.flag = flag.unwrap_or(Continuation::Complete);
        if self.fields < 2 {
            self.head.fields = Span::new(line_at, line_at);
        }
        self.head.fields.end = line_at as u16;
        if self.head.to_path.is_empty() {
            self.fault(Fault::ToPath);
        }
        if self.head.from_path.is_empty() {
            self.fault(Fault::FromPath);
        }
        // The start line, and as many fields as there were.
        let (controls, beyond) = survey(&octets[..line_at]);
        let clean = controls == 2 * self.lines && !beyond;
        if !clean && !is_text(&octets[..line_at], controls, self.lines) {
            self.fault(Fault::Control);
        }
        clean
    }
}

/// Where the value begins and ends that stands in a line from `at` on, without the blanks around it; usually one in front.
fn value_of(line: &[u8], at: usize) -> (usize, usize) {
    let is_blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    let (mut from, mut to) = (at + usize::from(line.get(at) == Some(&b' ')), line.len());
    if is_blank(line.get(from)) || is_blank(line.last()) {
        while from < to && is_blank(line.get(from)) {
            from += 1;
        }
        while to > from && is_blank(line.get(to - 1)) {
            to -= 1;
        }
    }
    (from, to)
}

/// A response's status, or a method that is not one of ours.
fn start_of(rest: &[u8], at: usize) -> Result<(Start, Span, Option<Fault>), Lost> {
    let whole = Span::new(at, at + rest.len());
    match rest {
        [a, b, c] | [a, b, c, b' ', ..] if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) => {
            let code = [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(*digit - b'0'));
            Ok((Start::Response(code), Span::new(at + 3, at + rest.len()), None))
        }
        [] => Err(Lost::StartLine),
        _ if rest.iter().all(u8::is_ascii_uppercase) => Ok((Start::Other, whole, None)),
        _ => Ok((Start::Other, whole, Some(Fault::Method))),
    }
}

/// How many control characters there are, and whether there is anything beyond printable ASCII: eight octets, or more, at a time.
fn survey(octets: &[u8]) -> (usize, bool) {
    /// A word counts to one in each octet: so many of them sum up to less than 256.
    const WORDS: usize = 31;
    let (words, rest) = octets.as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let (mut controls, mut beyond) = (0, 0);
    for words in words.chunks(WORDS).chain([&[last][..]]) {
        let mut counts = 0u64;
        for word in words {
            let word = u64::from_ne_bytes(*word);
            // The top bit of an octet below 0x20: none of its upper three.
            counts += !(word | word << 1 | word << 2) >> 7 & ONES;
            beyond |= word | word.wrapping_add(ONES);
        }
        controls += (counts.wrapping_mul(ONES) >> 56) as usize;
    }
    (controls, beyond & ONES << 7 != 0)
}

/// No control character but TAB and the CRLFs of so many lines: what is copied onward must not split there.
fn is_text(octets: &[u8], controls: usize, lines: usize) -> bool {
    controls == 2 * lines + octets.iter().filter(|octet| **octet == b'\t').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEND: &[u8] = b"MSRP d93kswow SEND\r\n\
        To-Path: msrp://pf:2855/aT1;tcp\r\n\
        From-Path: msrp://r:1/q;tcp msrp://a:9/xx;tcp\r\n\
        Message-ID: 12339sdqwer\r\n\
        Byte-Range: 1-*/4092\r\n\
        X-Other: kept\r\n\
        Success-Report: yes\r\n\
        Failure-Report: partial\r\n\
        Content-Type: message/cpim\r\n\r\nbody";

    fn read(octets: &[u8]) -> Head {
        parse(octets).unwrap().unwrap()
    }

    #[test]
    fn a_send_is_read_into_spans() {
        let head = read(SEND);
        assert_eq!((head.start, head.tid.as_bytes()), (Start::Send, &b"d93kswow"[..]));
        assert_eq!(head.to_path.of(SEND), b"msrp://pf:2855/aT1;tcp");
        assert_eq!(head.from_path.of(SEND), b"msrp://r:1/q;tcp msrp://a:9/xx;tcp");
        assert_eq!(head.message_id.as_bytes(), b"12339sdqwer");
        assert_eq!(head.byte_range, ByteRange::parse(b"1-*/4092"));
        assert_eq!(head.byte_range_line.of(SEND), b"Byte-Range: 1-*/4092\r\n");
        assert_eq!((head.success_report, head.failure_report), (true, FailureReport::Partial));
        assert_eq!(head.content_type.of(SEND), b"message/cpim");
        assert!(head.fields.of(SEND).starts_with(b"Message-ID: ") && head.fields.of(SEND).ends_with(b"message/cpim\r\n"));
        assert_eq!((head.has_body, head.len, head.fault), (true, SEND.len() - 4, None));
    }

    #[test]
    fn a_head_cut_anywhere_asks_for_more() {
        let len = read(SEND).len;
        for cut in 0..len {
            assert_eq!(parse(&SEND[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn a_bodiless_request_ends_with_its_end_line() {
        let octets = b"MSRP abcd SEND\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\nMessage-ID: empty\r\nByte-Range: 1-0/0\r\n-------abcd$\r\nMSRP";
        let head = read(octets);
        assert_eq!((head.has_body, head.len, head.fault), (false, octets.len() - 4, None));
        assert_eq!(head.flag, Continuation::Complete);
    }

    #[test]
    fn a_response_carries_its_status() {
        let octets =
            b"MSRP abcd 481 No such session\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\n-------abcd$\r\n";
        assert_eq!(read(octets).start, Start::Response(481));
        let octets = b"MSRP abcd 200\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\n-------abcd$\r\n";
        assert_eq!(read(octets).start, Start::Response(200));
    }

    #[test]
    fn a_report_carries_its_status() {
        for (value, status, fault) in [
            ("000 200 OK", Some(200), None),
            ("000 413", Some(413), None),
            ("001 200 OK", None, None),
            ("200 OK", None, Some(Fault::Status)),
            ("000 2x0 OK", None, Some(Fault::Status)),
        ] {
            let octets = format!(
                "MSRP abcd REPORT\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\nMessage-ID: 1234\r\nStatus: {value}\r\n-------abcd$\r\n"
            );
            let head = read(octets.as_bytes());
            assert_eq!((head.start, head.status, head.fault), (Start::Report, status, fault), "{value}");
        }
    }

    #[test]
    fn each_broken_rule_has_its_name() {
        let (to, from) = ("To-Path: msrp://a:1/x;tcp", "From-Path: msrp://b:2/y;tcp");
        for (lines, fault) in [
            (vec![from, to], Fault::ToPath),
            (vec![to, "Message-ID: 1234", from], Fault::FromPath),
            (vec![to], Fault::FromPath),
            (vec![to, to, from], Fault::ToPath),
            (vec![to, from, "Message-ID: 123"], Fault::MessageId),
            (vec![to, from, "Message-ID: 123456789012345678901234567890123"], Fault::MessageId),
            (vec![to, from, "Message-ID: 1234", "Message-ID: 1234"], Fault::MessageId),
            (vec![to, from, "Byte-Range: 0-1/1"], Fault::ByteRange),
            (vec![to, from, "Success-Report: maybe"], Fault::SuccessReport),
            (vec![to, from, "Failure-Report: maybe"], Fault::FailureReport),
            (vec![to, from, "no field"], Fault::Field),
            (vec![to, from, "X Y: z"], Fault::Field),
            (vec![to, from, "X: a\0b"], Fault::Control),
            (vec![to, from, "X: a\rb"], Fault::Control),
            (vec![to, from, "X: a\nY: b"], Fault::Control),
        ] {
            let octets = format!("MSRP abcd SEND\r\n{}\r\n-------abcd$\r\n", lines.join("\r\n"));
            assert_eq!(read(octets.as_bytes()).fault, Some(fault), "{lines:?}");
        }
        assert_eq!(
            read(format!("MSRP abc SEND\r\n{to}\r\n{from}\r\n-------abc$\r\n").as_bytes()).fault,
            Some(Fault::TransactionId)
        );
        assert_eq!(read(format!("MSRP abcd Send\r\n{to}\r\n{from}\r\n-------abcd$\r\n").as_bytes()).fault, Some(Fault::Method));
        let tab = format!("MSRP abcd SEND\r\n{to}\r\n{from}\r\nX:\ta\tb\r\n-------abcd$\r\n");
        assert_eq!(read(tab.as_bytes()).fault, None);
    }

    #[test]
    fn where_framing_is_lost_the_stream_ends() {
        assert_eq!(parse(b"HTTP/1.1"), Err(Lost::StartLine));
        assert_eq!(parse(b"MSRP \r\n"), Err(Lost::StartLine));
        assert_eq!(parse(b"MSRP abcd\r\n"), Err(Lost::StartLine));
        assert_eq!(parse(&[b"MSRP ", &[b'a'; 33][..], b" SEND\r\n"].concat()), Err(Lost::StartLine));
        let mut long = b"MSRP abcd SEND\r\nX: ".to_vec();
        long.resize(MSRP_HEAD_OCTETS_MAX + 1, b'a');
        assert_eq!(parse(&long), Err(Lost::HeadTooLong));
    }
}
