//! RFC 4975 §5.1, §7.1.1: a chunk's place in its message, how it ends, and which reports its sender wants.

/// `Byte-Range`: the first octet of a message is 1; what is `*` is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    pub start: u64,
    pub end: Option<u64>,
    pub total: Option<u64>,
}

impl ByteRange {
    /// A chunk that may be interrupted anywhere.
    pub const fn open(start: u64, total: Option<u64>) -> Self {
        Self { start, end: None, total }
    }

    /// Reads "1-*/8123"; none where it is not one or its numbers contradict each other.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::leading(text).filter(|(_, rest)| rest.is_empty()).map(|(range, _)| range)
    }

    /// The range that `text` begins with, and what follows it.
    pub fn leading(text: &[u8]) -> Option<(Self, &[u8])> {
        let (start, text) = number(text)?;
        let (end, text) = number_or_star(text.strip_prefix(b"-")?)?;
        let (total, rest) = number_or_star(text.strip_prefix(b"/")?)?;
        let range = Self { start, end, total };
        range.is_lawful().then_some((range, rest))
    }

    /// RFC 4975 §7.1.1: the first octet is 1, nothing lies beyond the total, and "1-0/0" speaks of no content.
    fn is_lawful(&self) -> bool {
        let empty = self.start == 1 && self.total == Some(0);
        self.start >= 1
            && self.end.is_none_or(|end| end.checked_add(1).is_some_and(|after| after >= self.start))
            && self.total.is_none_or(|total| self.start <= total || empty)
            && match (self.end, self.total) {
                (Some(end), Some(total)) => end <= total,
                _ => true,
            }
    }

    /// Octets the body has where the header says so.
    pub const fn announced(&self) -> Option<u64> {
        match self.end {
            Some(end) => Some(end.saturating_add(1).saturating_sub(self.start)),
            None => None,
        }
    }

    /// The most octets the body can have where the header says so.
    pub const fn at_most(&self) -> Option<u64> {
        match (self.announced(), self.total) {
            (Some(announced), _) => Some(announced),
            (None, Some(total)) => Some(total.saturating_add(1).saturating_sub(self.start)),
            (None, None) => None,
        }
    }
}

/// `*`, or a number; and what follows it.
fn number_or_star(text: &[u8]) -> Option<(Option<u64>, &[u8])> {
    match text.strip_prefix(b"*") {
        Some(rest) => Some((None, rest)),
        None => number(text).map(|(number, rest)| (Some(number), rest)),
    }
}

/// One digit or more that fit 64 bits, and what follows them.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut number, mut at) = (0u64, 0);
    while let Some(digit) = text.get(at).map(|octet| octet.wrapping_sub(b'0')).filter(|digit| *digit <= 9) {
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
        at += 1;
    }
    (at > 0).then(|| (number, &text[at..]))
}

/// The flag of an end-line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuation {
    /// `$`: the message ends here.
    Complete,
    /// `+`: more chunks follow.
    More,
    /// `#`: the sender gave the message up.
    Abort,
}

impl Continuation {
    pub const fn of(flag: u8) -> Option<Self> {
        match flag {
            b'$' => Some(Self::Complete),
            b'+' => Some(Self::More),
            b'#' => Some(Self::Abort),
            _ => None,
        }
    }

    pub const fn flag(self) -> u8 {
        match self {
            Self::Complete => b'$',
            Self::More => b'+',
            Self::Abort => b'#',
        }
    }
}

/// `Failure-Report`; absent is `Yes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FailureReport {
    /// Every chunk is answered; a missing answer is a failure.
    #[default]
    Yes,
    /// Errors are answered or reported, success is silent.
    Partial,
    /// Nothing is ever answered or reported.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_ranges_read_as_written_and_contradictions_are_refused() {
        let range = |start, end, total| Some(ByteRange { start, end, total });
        for (text, read) in [
            ("1-25/25", range(1, Some(25), Some(25))),
            ("1-*/8", range(1, None, Some(8))),
            ("5-8/*", range(5, Some(8), None)),
            ("1-*/*", range(1, None, None)),
            ("1-0/0", range(1, Some(0), Some(0))),
            ("1-0/*", range(1, Some(0), None)),
            ("0-4/4", None),
            ("9-*/8", None),
            ("1-9/8", None),
            ("5-3/8", None),
            ("1-2", None),
            ("-2/2", None),
            ("+1-2/2", None),
            ("1-2/99999999999999999999", None),
            ("1-18446744073709551615/*", None),
            ("1 - 2/2", None),
        ] {
            assert_eq!(ByteRange::parse(text.as_bytes()), read, "{text}");
        }
    }

    #[test]
    fn a_range_tells_how_long_its_body_can_be() {
        assert_eq!(ByteRange::parse(b"11-20/99").unwrap().at_most(), Some(10));
        assert_eq!(ByteRange::parse(b"11-*/20").unwrap().at_most(), Some(10));
        assert_eq!(ByteRange::parse(b"1-0/0").unwrap().at_most(), Some(0));
        assert_eq!(ByteRange::parse(b"1-*/*").unwrap().at_most(), None);
    }
}
