//! RFC 4975 §9: the heads of SENDs and responses as nearly everybody writes them, read in one go.
//!
//! Fields in any order behind the paths, each once, its name as the RFC writes it, one blank before its value, nothing that is not
//! printable ASCII: what is so is read here, at a third of the cost. Whatever is not, is cut short or breaks a rule, is left to
//! [`head::parse`](super::head::parse), which comes to the same of every head that is read here (a test compares them).

use super::chunk::{ByteRange, Continuation, FailureReport};
use super::head::{Head, Span, Start};
use super::ident::{IDENT_OCTETS_MAX, Ident};
use crate::limits::{MSRP_FIELDS_MAX, MSRP_HEAD_OCTETS_MAX};

/// A place in a head, and what follows it.
struct Cursor<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.octets[self.at..]
    }

    /// Goes beyond these words, which must stand here.
    fn pass<const N: usize>(&mut self, words: &[u8; N]) -> Option<()> {
        let passed = self.rest().first_chunk::<N>()? == words;
        self.at += N;
        passed.then_some(())
    }

    /// An ident, which ends before this octet.
    fn ident(&mut self, end: u8) -> Option<Ident> {
        let rest = self.rest();
        let len = place_of(end, &rest[..rest.len().min(IDENT_OCTETS_MAX + 8)])?;
        let ident = Ident::leading(rest, len)?;
        self.at += len;
        ident.is_lawful().then_some(ident)
    }

    /// A value that is not empty, without blanks around it, and the end of its line.
    fn value(&mut self) -> Option<Span> {
        let rest = self.rest();
        let len = printable(rest)?;
        let value = Span::new(self.at, self.at + len);
        let (first, last) = (*rest.first()?, *rest[..len].last()?);
        self.at += len;
        self.pass(b"\r\n")?;
        (first != b' ' && last != b' ').then_some(value)
    }
}

/// Reads the head that `octets` begin with, if it is one of the usual ones and all there.
pub(super) fn read(octets: &[u8]) -> Option<Head> {
    let octets = &octets[..octets.len().min(MSRP_HEAD_OCTETS_MAX)];
    let mut cursor = Cursor { octets, at: 0 };
    cursor.pass(b"MSRP ")?;
    let tid = cursor.ident(b' ')?;
    let (start, method) = start(&mut cursor)?;
    cursor.pass(b"To-Path: ")?;
    let to_path = cursor.value()?;
    cursor.pass(b"From-Path: ")?;
    let from_path = cursor.value()?;
    let mut head = Head { to_path, from_path, ..Head::begun(start, tid, method) };
    let fields_at = cursor.at;
    for _ in 0..=MSRP_FIELDS_MAX - 2 {
        let line_at = cursor.at;
        let first = *cursor.rest().first()?;
        if matches!(first, b'\r' | b'-') {
            head.has_body = first == b'\r';
            head.flag = if head.has_body { Continuation::Complete } else { end_line(&mut cursor, &tid)? };
            cursor.pass(b"\r\n")?;
            (head.fields, head.len) = (Span::new(fields_at, line_at), cursor.at);
            return Some(head);
        }
        field(&mut cursor, first, &mut head)?;
    }
    None
}

/// Method or status, and the end of the start line.
fn start(cursor: &mut Cursor<'_>) -> Option<(Start, Span)> {
    cursor.pass(b" ")?;
    let at = cursor.at;
    if cursor.rest().starts_with(b"SEND\r\n") {
        cursor.at += 6;
        return Some((Start::Send, Span::new(at, at + 4)));
    }
    let said = cursor.value()?;
    match said.of(cursor.octets) {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] if rest.is_empty() || rest[0] == b' ' => {
            let code = [a, b, c].iter().fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
            Some((Start::Response(code), Span::new(at + 3, usize::from(said.end))))
        }
        _ => None,
    }
}

/// A field, whose line begins with this octet; each but once.
fn field(cursor: &mut Cursor<'_>, first: u8, head: &mut Head) -> Option<()> {
    let line_at = cursor.at;
    match first {
        b'M' => {
            cursor.pass(b"Message-ID: ")?;
            let id = cursor.ident(b'\r')?;
            cursor.pass(b"\r\n")?;
            std::mem::replace(&mut head.message_id, id).is_empty().then_some(())
        }
        b'B' => {
            cursor.pass(b"Byte-Range: ")?;
            let (range, rest) = ByteRange::leading(cursor.rest())?;
            cursor.at = cursor.octets.len() - rest.len();
            cursor.pass(b"\r\n")?;
            head.byte_range_line = Span::new(line_at, cursor.at);
            head.byte_range.replace(range).is_none().then_some(())
        }
        b'C' => {
            cursor.pass(b"Content-Type: ")?;
            let value = cursor.value()?;
            std::mem::replace(&mut head.content_type, value).is_empty().then_some(())
        }
        b'F' => {
            cursor.pass(b"Failure-Report: ")?;
            head.failure_report = match cursor.value()?.of(cursor.octets) {
                b"yes" => FailureReport::Yes,
                b"no" => FailureReport::No,
                b"partial" => FailureReport::Partial,
                _ => return None,
            };
            Some(())
        }
        b'S' => {
            cursor.pass(b"Success-Report: ")?;
            head.success_report = match cursor.value()?.of(cursor.octets) {
                b"yes" => true,
                b"no" => false,
                _ => return None,
            };
            Some(())
        }
        _ => None,
    }
}

/// The end-line of a head without body, up to its flag.
fn end_line(cursor: &mut Cursor<'_>, tid: &Ident) -> Option<Continuation> {
    cursor.pass(b"-------")?;
    let flag = *cursor.rest().strip_prefix(tid.as_bytes())?.first()?;
    cursor.at += tid.as_bytes().len() + 1;
    Continuation::of(flag)
}

/// How many printable ASCII characters there are before the first octet that is none.
fn printable(octets: &[u8]) -> Option<usize> {
    let (words, rest) = octets.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The top bit of the first octet below 0x20, and of those above 0x7e. Borrow and carry reach only those behind the first.
        let found = (word.wrapping_sub(ONES * 0x20) & !word | word | word.wrapping_add(ONES)) & ONES << 7;
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|octet| !(b' '..=b'~').contains(octet)).map(|at| words.len() * 8 + at)
}

/// A one in every octet of a word.
pub(super) const ONES: u64 = 0x0101_0101_0101_0101;

/// Where an octet stands first: eight at a time, which for words of a head is quicker than to call for more at a time.
pub(super) fn place_of(octet: u8, octets: &[u8]) -> Option<usize> {
    let (words, rest) = octets.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let other = u64::from_le_bytes(*word) ^ (ONES * u64::from(octet));
        let found = other.wrapping_sub(ONES) & !other & ONES << 7;
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|other| *other == octet).map(|at| words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::msrp::head::parse_unusual;

    const HEADS: [&str; 4] = [
        "MSRP d93kswow SEND\r\nTo-Path: msrp://pf:2855/aT1;tcp\r\nFrom-Path: msrp://r:1/q;tcp msrp://a:9/xx;tcp\r\n\
         Message-ID: 12339sdqwer\r\nByte-Range: 1-*/4092\r\nSuccess-Report: yes\r\nFailure-Report: partial\r\nContent-Type: message/cpim\r\n\r\nbody",
        "MSRP 0000010000000abc SEND\r\nTo-Path: msrp://pf:2855/aT1;tcp\r\nFrom-Path: msrp://a:9/xx;tcp\r\n\
         Message-ID: m0000abc\r\nByte-Range: 1-200/200\r\nFailure-Report: no\r\nContent-Type: text/plain\r\n\r\n-------",
        "MSRP abcd SEND\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\nMessage-ID: empty\r\nByte-Range: 1-0/0\r\n-------abcd$\r\nMSRP",
        "MSRP abcd 200 OK\r\nTo-Path: msrp://a:1/x;tcp\r\nFrom-Path: msrp://b:2/y;tcp\r\n-------abcd$\r\n",
    ];

    #[test]
    fn the_usual_heads_are_read_here_to_the_same_as_there() {
        for head in HEADS {
            let found = read(head.as_bytes());
            assert!(found.is_some(), "{head}");
            assert_eq!(Ok(found), parse_unusual(head.as_bytes()), "{head}");
            let len = found.map_or(0, |head| head.len);
            assert!((0..len).all(|cut| read(&head.as_bytes()[..cut]).is_none()), "a head that is cut is left alone: {head}");
        }
    }

    #[test]
    fn what_is_read_here_of_mutated_heads_is_what_is_read_of_them_there() {
        const PARTS: [&str; 12] = [
            "\r\n",
            "\r",
            "\n",
            " ",
            "\t",
            ":",
            "-",
            "\0",
            "\u{e9}",
            "X-Other: y\r\n",
            "Message-ID: abcd\r\n",
            "Content-Type: \r\n",
        ];
        let (mut prng, mut read_here) = (Prng::seeded(11), 0);
        for round in 0..40_000 {
            let mut octets = HEADS[round % HEADS.len()].as_bytes().to_vec();
            for _ in 0..prng.below(3) {
                let at = prng.below(octets.len() as u64) as usize;
                match prng.below(4) {
                    0 => octets[at] = prng.below(256) as u8,
                    1 => drop(octets.remove(at)),
                    2 => drop(octets.splice(at..at, PARTS[prng.below(12) as usize].bytes())),
                    _ => {
                        let lines: Vec<Vec<u8>> = octets.split_inclusive(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect();
                        let other = prng.below(lines.len() as u64) as usize;
                        octets.splice(at..at, lines[other].iter().copied());
                    }
                }
            }
            if let Some(head) = read(&octets) {
                read_here += 1;
                assert_eq!(parse_unusual(&octets), Ok(Some(head)), "{:?}", String::from_utf8_lossy(&octets));
            }
        }
        assert!(read_here > 10_000, "{read_here} of 40,000");
    }
}
