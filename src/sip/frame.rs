//! RFC 3261 §18.3, §7.5, RFC 5626 §3.5.1: messages cut out of a stream, wherever its reads end.
//!
//! ```text
//! feed(octets) ... next() -> Message | Ping | nothing yet | Broken
//!
//!   CRLF CRLF         ping (answer PONG)            CRLF before a start line      ignored
//!   head              scanned once, line by line; Content-Length noted on the way
//!   body              waited for by its length, never scanned
//! ```
//! Cost: each octet is copied once into the buffer and each octet of a head looked at once, at any split.

use super::header::name::Name;
use super::message::decimal;
use crate::limits::SIP_HEAD_OCTETS_MAX;

/// The answer to a keep-alive ping (RFC 5626 §3.5.1).
pub const PONG: &[u8] = b"\r\n";
/// What an idle buffer keeps of its memory.
const KEPT_OCTETS: usize = 8 * 1024;

/// What lies next in the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// One whole message, head and body.
    Message(&'a [u8]),
    /// A double CRLF; the peer waits for [`PONG`].
    Ping,
}

/// Why a stream cannot be read on, or a message in it not be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The first line is not SIP's.
    NotSip,
    /// The head is above [`SIP_HEAD_OCTETS_MAX`] or the message limit.
    HeadTooLarge,
    /// Head and body are above the message limit.
    BodyTooLarge,
    /// No Content-Length: without it nobody knows where the message ends (§20.14).
    NoContentLength,
    /// A Content-Length that is no number, or two that differ.
    BadContentLength,
}

impl Fault {
    /// The status to answer with, where a response can be built.
    pub const fn status(self) -> u16 {
        match self {
            Fault::NotSip | Fault::NoContentLength | Fault::BadContentLength => 400,
            Fault::HeadTooLarge => 513,
            Fault::BodyTooLarge => 413,
        }
    }

    /// For log and metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::NotSip => "stream > start-line",
            Fault::HeadTooLarge => "stream > head too large",
            Fault::BodyTooLarge => "stream > body too large",
            Fault::NoContentLength => "stream > no content-length",
            Fault::BadContentLength => "stream > content-length",
        }
    }

    /// Whether the place where the next message begins is lost, so that the stream has to be closed.
    pub const fn fatal(self) -> bool {
        !matches!(self, Fault::BodyTooLarge)
    }
}

/// A message that cannot be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broken<'a> {
    pub fault: Fault,
    /// The head as far as it came, to build the answer from.
    pub head: &'a [u8],
}

/// Reads one stream. Holds at most one message limit of octets beyond what one read brings.
pub struct Framer {
    buffer: Vec<u8>,
    /// Where in the buffer the next message begins.
    start: usize,
    head: Head,
    /// Octets of a refused body that are still to come.
    skip: u64,
    message_octets_max: usize,
    dead: bool,
}

/// How far the head of the next message has been read; offsets from its first octet.
#[derive(Default)]
struct Head {
    /// Start of the line that is being looked at, and how far its end has been searched.
    line_at: usize,
    searched: usize,
    /// The field that the next line may continue (RFC 3261 §7.3.1).
    field: Option<(usize, usize)>,
    length: Option<u64>,
    bad_length: bool,
    /// Past the blank line.
    end: Option<usize>,
}

impl Framer {
    /// A stream at its beginning. Messages above `message_octets_max` are refused (`sip.max_message`).
    pub const fn new(message_octets_max: usize) -> Self {
        let head = Head { line_at: 0, searched: 0, field: None, length: None, bad_length: false, end: None };
        Self { buffer: Vec::new(), start: 0, head, skip: 0, message_octets_max, dead: false }
    }

    /// Octets as they came. [`Framer::next`] is then called until it gives nothing.
    pub fn feed(&mut self, octets: &[u8]) {
        let octets = self.skipped(octets);
        if self.dead || octets.is_empty() {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(octets);
    }

    /// Takes from the front what belongs to a refused body.
    fn skipped<'o>(&mut self, octets: &'o [u8]) -> &'o [u8] {
        let count = self.skip.min(octets.len() as u64);
        self.skip -= count;
        &octets[count as usize..]
    }

    /// The next message or ping; nothing: more octets are needed.
    ///
    /// # Errors
    /// [`Broken`] once for each message that cannot be taken. After a fatal one the stream gives nothing more.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Broken<'_>> {
        if self.dead {
            return Ok(None);
        }
        if self.head.searched == 0 {
            match self.keep_alive() {
                KeepAlive::Ping => return Ok(Some(Frame::Ping)),
                KeepAlive::Unclear => return Ok(None),
                KeepAlive::None => {}
            }
        }
        match self.read_head() {
            Ok(None) => Ok(None),
            Ok(Some((head_end, length))) => self.take(head_end, length),
            Err(fault) => {
                self.dead = true;
                let end = self.head.end.unwrap_or(self.buffer.len() - self.start).min(SIP_HEAD_OCTETS_MAX);
                Err(Broken { fault, head: &self.buffer[self.start..self.start + end] })
            }
        }
    }

    fn take(&mut self, head_end: usize, length: u64) -> Result<Option<Frame<'_>>, Broken<'_>> {
        let at = self.start;
        let there = self.buffer.len() - at - head_end;
        let room = self.message_octets_max.saturating_sub(head_end) as u64;
        if length > room {
            let body = length.min(there as u64);
            self.skip = length - body;
            self.advance(head_end + body as usize);
            return Err(Broken { fault: Fault::BodyTooLarge, head: &self.buffer[at..at + head_end] });
        }
        if (there as u64) < length {
            return Ok(None);
        }
        let whole = head_end + length as usize;
        self.advance(whole);
        Ok(Some(Frame::Message(&self.buffer[at..at + whole])))
    }

    /// The next message begins `count` octets further on.
    fn advance(&mut self, count: usize) {
        self.start += count;
        self.head = Head::default();
    }

    /// Everything read was dealt with: gives memory back. Called when a read is through.
    pub fn settle(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_OCTETS);
            self.start = 0;
        }
    }

    /// Octets held that belong to no message given out yet.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The beginning of the next message, for whoever reads the stream from here on. None: that would not be enough.
    pub fn beginning(&self) -> Option<&[u8]> {
        (!self.dead && self.skip == 0).then(|| &self.buffer[self.start..])
    }

    fn keep_alive(&mut self) -> KeepAlive {
        loop {
            match &self.buffer[self.start..] {
                [b'\r', b'\n', b'\r', b'\n', ..] => {
                    self.start += 4;
                    return KeepAlive::Ping;
                }
                [] | [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return KeepAlive::Unclear,
                // §7.5: CRLF before a start line is ignored.
                [b'\r', b'\n', ..] => self.start += 2,
                [b'\n', ..] => self.start += 1,
                _ => return KeepAlive::None,
            }
        }
    }

    /// Reads on in the head; where it is whole, its end and the length of the body.
    fn read_head(&mut self) -> Result<Option<(usize, u64)>, Fault> {
        let limit = SIP_HEAD_OCTETS_MAX.min(self.message_octets_max);
        let octets = &self.buffer[self.start..];
        let head = &mut self.head;
        while head.end.is_none() {
            let Some(found) = memchr::memchr(b'\n', &octets[head.searched..]) else {
                head.searched = octets.len();
                return if octets.len() > limit { Err(Fault::HeadTooLarge) } else { Ok(None) };
            };
            let end = head.searched + found;
            head.searched = end + 1;
            if head.searched > limit {
                return Err(Fault::HeadTooLarge);
            }
            head.line(octets, end)?;
        }
        let end = head.end.expect("the loop ends with it");
        if head.bad_length {
            return Err(Fault::BadContentLength);
        }
        head.length.map(|length| Some((end, length))).ok_or(Fault::NoContentLength)
    }
}

impl Head {
    /// A whole line, `octets[line_at..end]`, without its LF.
    fn line(&mut self, octets: &[u8], end: usize) -> Result<(), Fault> {
        let line = &octets[self.line_at..end];
        let at = std::mem::replace(&mut self.line_at, end + 1);
        if at == 0 {
            return if is_sip(line) { Ok(()) } else { Err(Fault::NotSip) };
        }
        if let ([b' ' | b'\t', ..], Some(field)) = (line, &mut self.field) {
            field.1 = end;
            return Ok(());
        }
        if let Some((at, end)) = self.field.take() {
            self.note(&octets[at..end]);
        }
        if matches!(line, [] | [b'\r']) {
            self.end = Some(end + 1);
        } else {
            self.field = Some((at, end));
        }
        Ok(())
    }

    /// A whole field: only Content-Length is of interest.
    fn note(&mut self, field: &[u8]) {
        if !matches!(field.first(), Some(b'C' | b'c' | b'L' | b'l')) {
            return;
        }
        let Some(colon) = memchr::memchr(b':', field) else { return };
        if Name::of(field[..colon].trim_ascii_end()) != Name::ContentLength {
            return;
        }
        let length = decimal(field[colon + 1..].trim_ascii());
        self.bad_length |= length.is_none() || self.length.is_some_and(|known| Some(known) != length);
        self.length = length;
    }
}

enum KeepAlive {
    Ping,
    /// What is there may yet become one, or nothing is there.
    Unclear,
    None,
}

/// Whether a line can be a start line: anything else is another protocol, told apart before its octets pile up.
fn is_sip(line: &[u8]) -> bool {
    line.windows(4).any(|word| word.eq_ignore_ascii_case(b"SIP/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 4096;

    /// What a stream reads as when it comes in pieces of these lengths (the last repeats).
    fn read(stream: &[u8], pieces: &[usize]) -> Vec<String> {
        let mut framer = Framer::new(MAX);
        let mut read = Vec::new();
        let (mut rest, mut turn) = (stream, 0);
        while !rest.is_empty() {
            let piece = pieces[turn.min(pieces.len() - 1)].clamp(1, rest.len());
            framer.feed(&rest[..piece]);
            (rest, turn) = (&rest[piece..], turn + 1);
            loop {
                match framer.next() {
                    Ok(None) => break,
                    Ok(Some(Frame::Ping)) => read.push("ping".to_string()),
                    Ok(Some(Frame::Message(octets))) => read.push(String::from_utf8_lossy(octets).into_owned()),
                    Err(broken) => read.push(format!("{:?} {}", broken.fault, String::from_utf8_lossy(broken.head))),
                }
            }
            framer.settle();
        }
        read
    }

    const ONE: &str = "OPTIONS sip:a@b SIP/2.0\r\nContent-Length : 4\r\nSubject: x\r\n y\r\n\r\n\r\n\r\n";
    const TWO: &str = "SIP/2.0 200 OK\nl:\n 0\n\n";

    #[test]
    fn any_split_reads_the_same() {
        let stream = format!("\r\n{ONE}\r\n\r\n\r\n{TWO}{ONE}");
        let whole = read(stream.as_bytes(), &[stream.len()]);
        assert_eq!(whole, [ONE, "ping", TWO, ONE]);
        assert_eq!(read(stream.as_bytes(), &[1]), whole);
        for cut in 1..stream.len() {
            assert_eq!(read(stream.as_bytes(), &[cut, stream.len()]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn what_cannot_be_framed_is_told_apart() {
        let fault = |stream: &str| read(stream.as_bytes(), &[7]).pop().unwrap_or_default();
        assert_eq!(
            fault("GET / HTTP/1.1\r\n\r\n"),
            "NotSip GET / HTTP/1.1\r\n\r\n"[..fault("GET / HTTP/1.1\r\n\r\n").len()].to_string()
        );
        assert!(fault("OPTIONS sip:a SIP/2.0\r\nTo: x\r\n\r\n").starts_with("NoContentLength OPTIONS"));
        assert!(fault("OPTIONS sip:a SIP/2.0\r\nl: -1\r\n\r\n").starts_with("BadContentLength"));
        assert!(fault("OPTIONS sip:a SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n").starts_with("BadContentLength"));
        assert!(fault(&format!("OPTIONS sip:a SIP/2.0\r\nX: {}", "x".repeat(MAX))).starts_with("HeadTooLarge OPTIONS"));
    }

    #[test]
    fn a_body_too_large_is_skipped_and_the_stream_goes_on() {
        let stream = format!("OPTIONS sip:a SIP/2.0\r\nl: 5000\r\n\r\n{}{TWO}", "b".repeat(5000));
        for piece in [1, 100, 3000, 10_000] {
            let got = read(stream.as_bytes(), &[piece]);
            assert_eq!(got, ["BodyTooLarge OPTIONS sip:a SIP/2.0\r\nl: 5000\r\n\r\n", TWO], "pieces of {piece}");
        }
    }
}
