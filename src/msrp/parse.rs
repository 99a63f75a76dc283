//! RFC 4975 §7.1, §9: reading MSRP from octets as they arrive, cut anywhere.
//!
//! Octets stay where they are: a step names ranges of the input. Only what an input's end cuts is kept: the beginning of a
//! head, a request that must be whole (all but long SENDs), or the few octets that may begin an end-line (at most 44).
//!
//! ```text
//!            head cut                     body cut: octets go on, 44 at most are held
//!   ┌────────────────┐                  ┌───────────────┐
//!   │  Head (carry)  ├── long SEND ────>│ Body (held)   │
//!   └───┬────────────┘                  └──────┬────────┘
//!       │ short SEND, REPORT, response …       │ end-line
//!       v                                      v
//!   Whole (carry) ── end-line ──────────────> Head
//! ```

use crate::limits::{MSRP_HEAD_OCTETS_MAX, MSRP_OTHER_BODY_OCTETS_MAX, MSRP_WHOLE_BODY_OCTETS_MAX};
use crate::msrp::chunk::Continuation;
use crate::msrp::end_line::{END_LINE_OCTETS_MAX, EndLine, Found};
use crate::msrp::head::{self, Head, Lost, Start};
use std::ops::Range;

/// Octets copied at a time from the input to the carry.
const CARRY_STEP: usize = 1024;

/// Where the octets of a step lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the input of this call.
    Input,
    /// In what the reader kept: [`Reader::take_carry`] before the next call.
    Carry,
}

/// An end-line that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    pub flag: Continuation,
    /// Where the octets after the end-line begin.
    pub after: usize,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Everything is used up; more is needed.
    Incomplete,
    /// A head begins at `at`; behind it as much of the body as is there. Without `end` the body goes on in later steps
    /// (SEND only). Offsets are those of the place.
    Head { at: usize, head: Head, body: Range<usize>, end: Option<End> },
    /// More of the body of the last head.
    Body { body: Range<usize>, end: Option<End> },
    /// Nothing that follows can be understood.
    Lost(Lost),
}

/// A step, and how much of the input it used up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    pub consumed: usize,
    pub place: Place,
    pub step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Head,
    /// The head's octets, the most its body may have, and how far the carry was searched: all far below 64 KiB.
    Whole {
        head_len: u32,
        body_max: u32,
        scanned: u32,
    },
    Body,
    Lost(Lost),
}

/// Reads one connection's stream.
#[derive(Debug)]
pub struct Reader {
    state: State,
    carry: Vec<u8>,
    end_line: EndLine,
    /// So many octets that may begin the end-line are held, and with this flag where they reach so far: what they are follows
    /// from that. The first `skip` of them are the head's blank line, not the body's.
    held_len: u8,
    held_flag: u8,
    skip: u8,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            state: State::Head,
            carry: Vec::new(),
            end_line: EndLine::new(&Default::default()),
            held_len: 0,
            held_flag: 0,
            skip: 0,
        }
    }
}

impl Reader {
    /// Reads the next thing out of `input`, which follows what earlier calls consumed.
    pub fn next(&mut self, input: &[u8]) -> Taken {
        match self.state {
            State::Head if self.carry.is_empty() => self.head(input),
            State::Head => self.head_goes_on(input),
            State::Whole { .. } => self.whole(input),
            State::Body => self.body(input),
            State::Lost(lost) => Taken { consumed: input.len(), place: Place::Input, step: Step::Lost(lost) },
        }
    }

    /// The octets of a step in [`Place::Carry`]; give them back with [`Reader::put_carry`] to spare an allocation.
    pub fn take_carry(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.carry)
    }

    /// Keeps the allocation, if it is a small one.
    pub fn put_carry(&mut self, mut carry: Vec<u8>) {
        if self.carry.capacity() == 0 && carry.capacity() <= 4 * CARRY_STEP {
            carry.clear();
            self.carry = carry;
        }
    }

    /// Octets kept for the next call: heads, whole requests.
    pub fn carried(&self) -> &[u8] {
        &self.carry
    }

    /// Whether the stream stands between two requests.
    pub fn is_between(&self) -> bool {
        self.state == State::Head && self.carry.is_empty()
    }

    /// Whether the stream stands in a long body.
    pub fn is_in_body(&self) -> bool {
        self.state == State::Body
    }

    /// The stream ended. Where a short SEND was being kept whole, what is there of it; its end-line never came.
    pub fn cut(&mut self) -> Option<Step> {
        let State::Whole { head_len, .. } = std::mem::replace(&mut self.state, State::Head) else { return None };
        let head = head::parse(&self.carry).ok().flatten().filter(|head| head.start == Start::Send)?;
        let head_len = head_len as usize;
        let keep = match self.end_line.find(&self.carry[head_len - 2..]) {
            Found::Not { keep } => keep,
            Found::End { .. } => 0,
        };
        let body_end = (self.carry.len() - keep).max(head_len);
        Some(Step::Head { at: 0, head, body: head_len..body_end, end: None })
    }

    fn taken(consumed: usize, place: Place, step: Step) -> Taken {
        Taken { consumed, place, step }
    }

    fn lost(&mut self, lost: Lost, input: &[u8]) -> Taken {
        self.state = State::Lost(lost);
        Self::taken(input.len(), Place::Input, Step::Lost(lost))
    }

    fn head(&mut self, input: &[u8]) -> Taken {
        // Some senders put an empty line between requests.
        let at = input.iter().take_while(|&&octet| matches!(octet, b'\r' | b'\n')).count();
        let octets = &input[at..];
        if octets.is_empty() {
            return Self::taken(input.len(), Place::Input, Step::Incomplete);
        }
        let head = match head::parse(octets) {
            Ok(Some(head)) => head,
            Ok(None) => {
                self.carry.extend_from_slice(octets);
                return Self::taken(input.len(), Place::Input, Step::Incomplete);
            }
            Err(lost) => return self.lost(lost, input),
        };
        let body_at = at + head.len;
        if !head.has_body {
            let end = Some(End { flag: head.flag, after: body_at });
            return Self::taken(body_at, Place::Input, Step::Head { at, head, body: body_at..body_at, end });
        }
        self.end_line = EndLine::new(&head.tid);
        // The blank line's CRLF may serve as the end-line's: some senders write an empty body that way.
        match self.end_line.find(&octets[head.len - 2..]) {
            Found::End { at: end_at, flag, after } => {
                let (end_at, after) = (body_at - 2 + end_at, body_at - 2 + after);
                let step = Step::Head { at, head, body: body_at..end_at.max(body_at), end: Some(End { flag, after }) };
                Self::taken(after, Place::Input, step)
            }
            Found::Not { keep } => match whole_body_max(&head) {
                Some(body_max) if octets.len() - head.len <= body_max + END_LINE_OCTETS_MAX => {
                    self.carry.extend_from_slice(octets);
                    self.keep_whole(head.len, body_max);
                    Self::taken(input.len(), Place::Input, Step::Incomplete)
                }
                Some(_) if head.start != Start::Send => self.lost(Lost::BodyTooLong, input),
                _ => {
                    let body_end = self.hold(input, body_at, keep);
                    let step = Step::Head { at, head, body: body_at..body_end, end: None };
                    Self::taken(input.len(), Place::Input, step)
                }
            },
        }
    }

    /// The request in the carry is kept until it is whole; its body has not been searched.
    fn keep_whole(&mut self, head_len: usize, body_max: usize) {
        let (head_len, body_max) = (head_len as u32, body_max as u32);
        self.state = State::Whole { head_len, body_max, scanned: head_len - 2 };
    }

    /// Holds the last `keep` octets back and says where the body ends before them.
    fn hold(&mut self, octets: &[u8], body_at: usize, keep: usize) -> usize {
        let held_at = octets.len() - keep;
        self.held(&octets[held_at..]);
        self.skip = body_at.saturating_sub(held_at) as u8;
        self.state = State::Body;
        held_at.max(body_at)
    }

    /// Holds octets that may begin the end-line.
    fn held(&mut self, octets: &[u8]) {
        self.held_len = octets.len() as u8;
        self.held_flag = octets.get(self.end_line.needle().len()).copied().unwrap_or(0);
    }

    fn head_goes_on(&mut self, input: &[u8]) -> Taken {
        let mut appended = 0;
        while appended < input.len() {
            let piece = &input[appended..(appended + CARRY_STEP).min(input.len())];
            self.carry.extend_from_slice(piece);
            appended += piece.len();
            if memchr::memchr(b'\n', piece).is_none() && self.carry.len() <= MSRP_HEAD_OCTETS_MAX {
                continue;
            }
            match head::parse(&self.carry) {
                Ok(None) => {}
                Ok(Some(head)) => return self.carried_head(head, appended),
                Err(lost) => return self.lost(lost, input),
            }
        }
        Self::taken(input.len(), Place::Input, Step::Incomplete)
    }

    /// A head is whole in the carry; what was copied beyond it goes back to the input.
    fn carried_head(&mut self, head: Head, appended: usize) -> Taken {
        let consumed = appended - (self.carry.len() - head.len);
        self.carry.truncate(head.len);
        let len = head.len;
        if !head.has_body {
            let end = Some(End { flag: head.flag, after: len });
            return Self::taken(consumed, Place::Carry, Step::Head { at: 0, head, body: len..len, end });
        }
        self.end_line = EndLine::new(&head.tid);
        if let Some(body_max) = whole_body_max(&head) {
            self.keep_whole(len, body_max);
            return Self::taken(consumed, Place::Input, Step::Incomplete);
        }
        self.state = State::Body;
        (self.held_len, self.skip) = (2, 2);
        Self::taken(consumed, Place::Carry, Step::Head { at: 0, head, body: len..len, end: None })
    }

    fn whole(&mut self, input: &[u8]) -> Taken {
        let State::Whole { head_len, body_max, scanned } = self.state else { unreachable!("only called in this state") };
        let (head_len, body_max, mut scanned) = (head_len as usize, body_max as usize, scanned as usize);
        let mut appended = 0;
        while appended < input.len() {
            let piece = &input[appended..(appended + CARRY_STEP).min(input.len())];
            self.carry.extend_from_slice(piece);
            appended += piece.len();
            match self.end_line.find(&self.carry[scanned..]) {
                Found::End { at, flag, after } => {
                    let (at, after) = (scanned + at, scanned + after);
                    let consumed = appended - (self.carry.len() - after);
                    self.carry.truncate(after);
                    self.state = State::Head;
                    let head = self.head_again();
                    let step = Step::Head { at: 0, head, body: head_len..at.max(head_len), end: Some(End { flag, after }) };
                    return Self::taken(consumed, Place::Carry, step);
                }
                Found::Not { keep } => scanned = self.carry.len() - keep,
            }
            if self.carry.len() - head_len > body_max + END_LINE_OCTETS_MAX {
                return self.whole_is_too_long(head_len, scanned, appended, input);
            }
        }
        let (head_len, body_max, scanned) = (head_len as u32, body_max as u32, scanned as u32);
        self.state = State::Whole { head_len, body_max, scanned };
        Self::taken(input.len(), Place::Input, Step::Incomplete)
    }

    /// A SEND whose Byte-Range announced less than its body has goes on as a long one; another request must not.
    fn whole_is_too_long(&mut self, head_len: usize, scanned: usize, appended: usize, input: &[u8]) -> Taken {
        let head = self.head_again();
        if head.start != Start::Send {
            return self.lost(Lost::BodyTooLong, input);
        }
        let carry = self.take_carry();
        let body_end = self.hold(&carry, head_len, carry.len() - scanned);
        self.carry = carry;
        Self::taken(appended, Place::Carry, Step::Head { at: 0, head, body: head_len..body_end, end: None })
    }

    fn head_again(&self) -> Head {
        head::parse(&self.carry).ok().flatten().expect("the same octets were read as a head before")
    }

    fn body(&mut self, input: &[u8]) -> Taken {
        if input.is_empty() {
            return Self::taken(0, Place::Input, Step::Incomplete);
        }
        if self.held_len > 0
            && let Some(taken) = self.held_goes_on(input)
        {
            return taken;
        }
        match self.end_line.find(input) {
            Found::End { at, flag, after } => {
                self.state = State::Head;
                Self::taken(after, Place::Input, Step::Body { body: 0..at, end: Some(End { flag, after }) })
            }
            Found::Not { keep } => {
                let body_end = self.hold(input, 0, keep);
                let step = if body_end == 0 { Step::Incomplete } else { Step::Body { body: 0..body_end, end: None } };
                Self::taken(input.len(), Place::Input, step)
            }
        }
    }

    /// Decides about the held octets with the help of what follows them; none: they were all the head's, so go on.
    fn held_goes_on(&mut self, input: &[u8]) -> Option<Taken> {
        let (held, skip) = (usize::from(self.held_len), usize::from(self.skip));
        let peeked = input.len().min(END_LINE_OCTETS_MAX);
        self.carry.clear();
        self.end_line.beginning(held, self.held_flag, &mut self.carry);
        self.carry.extend_from_slice(&input[..peeked]);
        match self.end_line.find(&self.carry) {
            Found::End { at, flag, after } if at < held => {
                (self.held_len, self.skip) = (0, 0);
                self.state = State::Head;
                self.carry.truncate(after);
                let step = Step::Body { body: skip.min(after)..at.max(skip), end: Some(End { flag, after }) };
                return Some(Self::taken(after - held, Place::Carry, step));
            }
            // Still undecided: that takes all of the input.
            Found::Not { keep } if self.carry.len() - keep < held => {
                let carry = self.take_carry();
                let still = carry.len() - keep;
                self.held(&carry[still..]);
                self.skip = skip.saturating_sub(still) as u8;
                self.carry = carry;
                return Some(self.flush(skip, still, input.len()));
            }
            _ => {}
        }
        (self.held_len, self.skip) = (0, 0);
        if skip >= held {
            self.carry.clear();
            return None;
        }
        Some(self.flush(skip, held, 0))
    }

    /// The first `until` octets of the carry turned out to be body.
    fn flush(&mut self, skip: usize, until: usize, consumed: usize) -> Taken {
        if until <= skip {
            self.carry.clear();
            return Self::taken(consumed, Place::Input, Step::Incomplete);
        }
        self.carry.truncate(until);
        Self::taken(consumed, Place::Carry, Step::Body { body: skip..until, end: None })
    }
}

/// Octets of body up to which a request is kept until it is whole; none: it goes on as it comes.
///
/// Requests other than SEND are not interruptible and at most 10240 octets (RFC 4975 §7.1). A SEND that announces no more
/// than 2048 need not be interruptible either (§7.1.1), and passed on whole it need never be cut on its way.
fn whole_body_max(head: &Head) -> Option<usize> {
    if head.start != Start::Send {
        return Some(MSRP_OTHER_BODY_OCTETS_MAX);
    }
    let at_most = head.byte_range?.at_most()?;
    usize::try_from(at_most).ok().filter(|&at_most| at_most <= MSRP_WHOLE_BODY_OCTETS_MAX).map(|_| MSRP_WHOLE_BODY_OCTETS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What came out, with bodies put together again.
    #[derive(Debug, PartialEq, Clone)]
    enum Read {
        Message { head: Box<[u8]>, body: Vec<u8>, flag: Continuation },
        Cut { head: Box<[u8]>, body: Vec<u8> },
        Lost(Lost),
    }

    fn read(stream: &[u8], cuts: impl Iterator<Item = usize>) -> Vec<Read> {
        let mut reader = Reader::default();
        let (mut reads, mut open, mut at) = (Vec::new(), None::<(Box<[u8]>, Vec<u8>)>, 0);
        for cut in cuts.map(|cut| cut.min(stream.len())).chain([stream.len()]) {
            let mut input = &stream[at.min(cut)..cut];
            at = cut.max(at);
            while !input.is_empty() {
                let taken = reader.next(input);
                let carry = (taken.place == Place::Carry).then(|| reader.take_carry());
                let octets = carry.as_deref().unwrap_or(input);
                let end = match taken.step {
                    Step::Incomplete => None,
                    Step::Lost(lost) => {
                        reads.push(Read::Lost(lost));
                        return reads;
                    }
                    Step::Head { at, head, body, end } => {
                        assert!(open.is_none());
                        open = Some((octets[at..at + head.len].into(), octets[body].to_vec()));
                        end
                    }
                    Step::Body { body, end } => {
                        open.as_mut().expect("a head came first").1.extend(&octets[body]);
                        end
                    }
                };
                if let Some(end) = end {
                    let (head, body) = open.take().unwrap();
                    reads.push(Read::Message { head, body, flag: end.flag });
                }
                if let Some(carry) = carry {
                    reader.put_carry(carry);
                }
                input = &input[taken.consumed..];
            }
        }
        if let Some(Step::Head { at, head, body, .. }) = reader.cut() {
            let carry = reader.take_carry();
            open = Some((carry[at..at + head.len].into(), carry[body].to_vec()));
        }
        reads.extend(open.map(|(head, body)| Read::Cut { head, body }));
        reads
    }

    /// A line a person can compare with the vector.
    fn described(read: &Read) -> String {
        let (head, body, flag) = match read {
            Read::Lost(lost) => return format!("lost={lost:?}"),
            Read::Message { head, body, flag } => (head, body, *flag),
            Read::Cut { head, body } => (head, body, Continuation::More),
        };
        let read = head::parse(head).unwrap().unwrap();
        let tid = read.tid;
        if let Some(fault) = read.fault {
            return format!("{:?} {tid:?} fault={fault:?}", read.start);
        }
        let flag = char::from(flag.flag());
        let range = match read.byte_range {
            Some(_) => String::from_utf8_lossy(read.byte_range_line.of(head)).split(':').nth(1).unwrap().trim().to_owned(),
            None => "none".to_owned(),
        };
        let yes = if read.success_report { "yes" } else { "no" };
        let kind = String::from_utf8_lossy(read.content_type.of(head)).into_owned();
        match (read.start, read.has_body) {
            (Start::Response(_), _) => format!("{:?} {tid:?}", read.start),
            (Start::Report, _) => {
                format!("Report {tid:?} id={:?} range={range} status={}", read.message_id, read.status.unwrap_or(0))
            }
            (start, false) => format!("{start:?} {tid:?} id={:?} range={range} bodiless {flag}", read.message_id),
            (start, true) => format!(
                "{start:?} {tid:?} id={:?} range={range} success={yes} failure={:?} type={kind} body={} {flag}",
                read.message_id,
                read.failure_report,
                body.len()
            ),
        }
    }

    #[test]
    fn the_vectors_read_as_written_beside_them_at_any_cut() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/msrp");
        let mut seen = 0;
        for entry in
            std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().extension().is_some_and(|ext| ext == "msrp"))
        {
            seen += 1;
            let stream = std::fs::read(entry.path()).unwrap();
            let expected = std::fs::read_to_string(entry.path().with_extension("txt")).unwrap();
            let reading = |cuts: &mut dyn Iterator<Item = usize>| -> String {
                read(&stream, cuts).iter().map(|read| described(read) + "\n").collect()
            };
            assert_eq!(reading(&mut std::iter::empty()), expected, "{:?}", entry.file_name());
            assert_eq!(reading(&mut (0..stream.len())), expected, "{:?} octet by octet", entry.file_name());
            for cut in 0..stream.len() {
                assert_eq!(reading(&mut std::iter::once(cut)), expected, "{:?} cut at {cut}", entry.file_name());
            }
        }
        assert!(seen >= 10, "{seen}");
    }

    fn message(tid: &str, fields: &str, body: &[u8], flag: char) -> Vec<u8> {
        let mut octets = format!(
            "MSRP {tid} SEND\r\nTo-Path: msrp://p:1/x;tcp\r\nFrom-Path: msrp://a:2/y;tcp\r\nMessage-ID: m-{tid}\r\n{fields}\r\n"
        )
        .into_bytes();
        octets.extend(body);
        octets.extend(format!("\r\n-------{tid}{flag}\r\n").as_bytes());
        octets
    }

    fn conversation() -> Vec<u8> {
        let mut stream = Vec::new();
        stream.extend(b"MSRP bind1 SEND\r\nTo-Path: msrp://p:1/x;tcp\r\nFrom-Path: msrp://a:2/y;tcp\r\nMessage-ID: empty\r\nByte-Range: 1-0/0\r\n-------bind1$\r\n");
        stream.extend(message("tid01", "Byte-Range: 1-9/9\r\nContent-Type: text/plain\r\n", b"\r\n-------", '$'));
        stream.extend(message(
            "tid02",
            "Byte-Range: 1-*/9999\r\nContent-Type: text/plain\r\n",
            b"\0\r\n-------tid02!\r\n\r\n-------tid0\r",
            '+',
        ));
        stream.extend(b"MSRP rep01 REPORT\r\nTo-Path: msrp://p:1/x;tcp\r\nFrom-Path: msrp://a:2/y;tcp\r\nMessage-ID: 1234\r\nStatus: 000 200 OK\r\nContent-Type: text/plain\r\n\r\nwhy\r\n-------rep01$\r\n");
        stream.extend(b"MSRP tid99 200 OK\r\nTo-Path: msrp://p:1/x;tcp\r\nFrom-Path: msrp://a:2/y;tcp\r\n-------tid99$\r\n");
        stream.extend(message("tid03", "Content-Type: text/plain\r\n", b"", '$'));
        stream.extend(b"MSRP tid04 SEND\r\nTo-Path: msrp://p:1/x;tcp\r\nFrom-Path: msrp://a:2/y;tcp\r\nMessage-ID: 1234\r\nContent-Type: text/plain\r\n\r\n-------tid04$\r\n");
        stream.extend(message("tid05", "Byte-Range: 1-2/2\r\nContent-Type: text/plain\r\n", &[b'x'; 5000], '#'));
        stream
    }

    #[test]
    fn a_stream_reads_the_same_whole_in_octets_and_cut_at_every_place() {
        let stream = conversation();
        let whole = read(&stream, std::iter::empty());
        assert_eq!(whole.len(), 8);
        assert!(whole.iter().all(|read| matches!(read, Read::Message { .. })), "{whole:?}");
        assert_eq!(read(&stream, 1..stream.len()), whole);
        for cut in 0..stream.len() {
            assert_eq!(read(&stream, std::iter::once(cut)), whole, "cut at {cut}");
        }
    }

    #[test]
    fn two_cuts_near_an_end_line_read_the_same() {
        let stream =
            message("tid02", "Byte-Range: 1-*/9999\r\nContent-Type: text/plain\r\n", b"ab\r\n-------tid02\r\n-------tid0", '+');
        let whole = read(&stream, std::iter::empty());
        for one in stream.len() - 60..stream.len() {
            for two in one..stream.len() {
                assert_eq!(read(&stream, [one, two].into_iter()), whole, "cut at {one} and {two}");
            }
        }
    }

    #[test]
    fn a_short_send_that_is_cut_off_shows_what_came() {
        let mut stream = message("tid01", "Byte-Range: 1-9/9\r\nContent-Type: text/plain\r\n", b"12345", '$');
        stream.truncate(stream.len() - 10);
        let reads = read(&stream, std::iter::empty());
        assert!(matches!(&reads[..], [Read::Cut { body, .. }] if body == b"12345"), "{reads:?}");
    }

    #[test]
    fn bodies_beyond_the_limit_are_for_send_alone() {
        let mut stream =
            b"MSRP rep01 REPORT\r\nTo-Path: msrp://p:1/x;tcp\r\nFrom-Path: msrp://a:2/y;tcp\r\nContent-Type: a/b\r\n\r\n"
                .to_vec();
        stream.extend([b'x'; 12_000]);
        assert_eq!(read(&stream, std::iter::empty()), [Read::Lost(Lost::BodyTooLong)]);
        assert_eq!(read(&stream, (0..stream.len()).step_by(100)), [Read::Lost(Lost::BodyTooLong)]);
    }

    proptest! {
        #[test]
        fn any_body_comes_out_as_it_went_in(
            pieces in prop::collection::vec(prop_oneof![
                Just(b"\r\n-------tid02".to_vec()), Just(b"\r\n-------".to_vec()), Just(b"$\r\n".to_vec()), Just(b"\r".to_vec()),
                Just(b"\r\n-------tid02?\r\n".to_vec()), prop::collection::vec(any::<u8>(), 0..40)], 0..60),
            cuts in prop::collection::vec(0usize..4000, 0..30), star in any::<bool>(),
        ) {
            let body = pieces.concat();
            let mut with_end = body.clone();
            with_end.extend(b"\r\n-------tid02+\r\n");
            prop_assume!(EndLine::new(&crate::msrp::ident::Ident::new(b"tid02").unwrap()).find(&with_end) == Found::End { at: body.len(), flag: Continuation::More, after: with_end.len() });
            prop_assume!(!body.starts_with(b"-------tid02"));
            let fields = if star { "Content-Type: a/b\r\n".to_owned() } else { format!("Byte-Range: 1-{0}/{0}\r\nContent-Type: a/b\r\n", body.len()) };
            let mut stream = message("tid02", &fields, &body, '+');
            stream.extend(message("tid03", "Content-Type: a/b\r\n", b"next", '$'));
            let mut cuts = cuts;
            cuts.sort_unstable();
            let reads = read(&stream, cuts.into_iter());
            prop_assert_eq!(reads.len(), 2);
            prop_assert!(matches!(&reads[0], Read::Message { body: got, .. } if *got == body), "first");
            prop_assert!(matches!(&reads[1], Read::Message { body: got, .. } if got == b"next"), "second");
        }

        #[test]
        fn arbitrary_octets_read_the_same_at_any_split(stream in prop::collection::vec(any::<u8>(), 0..600), cuts in prop::collection::vec(0usize..600, 0..10)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut stream = stream;
            stream.splice(0..0, b"MSRP ".iter().copied());
            let _ = read(&stream, cuts.into_iter());
        }
    }
}
