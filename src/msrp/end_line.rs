//! RFC 4975 §7.1, §7.3.1: finding the end-line `CRLF ------- transact-id flag CRLF` behind a body of any octets.
//!
//! Cost: a search for one fixed needle (11 ns for 200 octets) in short bodies. In long ones every fourth place is looked at, since
//! seven dashes in a row fill one of any four octets side by side: a quarter of the instructions of a search for a needle. As
//! soon as a body is full of look-alikes, a search for this transaction's own end-line, which a hostile body cannot slow down.

use crate::msrp::chunk::Continuation;
use crate::msrp::ident::{IDENT_OCTETS_MAX, Ident};
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Octets of the longest end-line with the CRLF before it.
pub const END_LINE_OCTETS_MAX: usize = 9 + IDENT_OCTETS_MAX + 3;
const DASHES: &[u8; 9] = b"\r\n-------";
/// The first so many octets are searched with the fixed needle: in a buffer full of short messages the end is near, and
/// building a finder for one transaction costs 55 ns.
const LONG: usize = 512;
/// So many look-alikes, and the fixed needle is given up.
const LOOK_ALIKES_MAX: usize = 8;
static ANY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(DASHES));

/// The end-line of one transaction.
#[derive(Clone, Copy, Debug)]
pub struct EndLine {
    octets: [u8; 9 + IDENT_OCTETS_MAX],
    len: u8,
}

/// What a search came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The end-line stands at `at..after` (with the CRLF before the dashes, which is not of the body).
    End { at: usize, flag: Continuation, after: usize },
    /// It is not there, but the last `keep` octets may be its beginning.
    Not { keep: usize },
}

impl EndLine {
    pub fn new(tid: &Ident) -> Self {
        let tid = tid.as_bytes();
        let mut octets = [0; 9 + IDENT_OCTETS_MAX];
        octets[..9].copy_from_slice(DASHES);
        octets[9..9 + tid.len()].copy_from_slice(tid);
        Self { octets, len: (9 + tid.len()) as u8 }
    }

    /// CRLF, seven dashes, transaction id; flag and CRLF follow it.
    pub fn needle(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }

    /// Appends the first `octets` octets of the end-line with this flag.
    pub fn beginning(&self, octets: usize, flag: u8, out: &mut Vec<u8>) {
        let needle = self.needle();
        out.extend_from_slice(&needle[..octets.min(needle.len())]);
        out.extend_from_slice(&[flag, b'\r'][..octets.saturating_sub(needle.len())]);
    }

    /// Looks for the first end-line in `octets`.
    pub fn find(&self, octets: &[u8]) -> Found {
        let near = &octets[..octets.len().min(LONG)];
        let mut from = 0;
        for _ in 0..LOOK_ALIKES_MAX {
            let Some(at) = ANY.find(&near[from..]) else {
                // Dashes that the window cuts are looked at again.
                from = from.max(near.len().saturating_sub(DASHES.len()));
                break;
            };
            if let Some(found) = self.at(octets, from + at) {
                return found;
            }
            from += at + 2;
        }
        for _ in 0..LOOK_ALIKES_MAX {
            let Some(at) = four_dashes(&octets[from..]) else { return self.not_in(octets) };
            // They are the first such of their row, so it began there or up to three octets before, and CRLF before that.
            let at = from + at;
            if let Some(found) = (at.saturating_sub(5)..(at + 1).saturating_sub(2)).find_map(|at| self.at(octets, at)) {
                return found;
            }
            from = at + 4;
        }
        // A row that goes on here began before and is no end-line.
        let own = Finder::new(self.needle());
        while let Some(at) = own.find(&octets[from..]) {
            if let Some(found) = self.at(octets, from + at) {
                return found;
            }
            from += at + 2;
        }
        self.not_in(octets)
    }

    /// The end-line, where one stands at `at` as a whole.
    fn at(&self, octets: &[u8], at: usize) -> Option<Found> {
        let rest = octets[at..].strip_prefix(self.needle())?;
        let (&flag, rest) = rest.split_first()?;
        let flag = Continuation::of(flag)?;
        rest.starts_with(b"\r\n").then(|| Found::End { at, flag, after: at + self.needle().len() + 3 })
    }

    fn not_in(&self, octets: &[u8]) -> Found {
        let tail = octets.len().saturating_sub(self.needle().len() + 2);
        let mut from = tail;
        while let Some(at) = memchr::memchr(b'\r', &octets[from..]) {
            if self.may_begin(&octets[from + at..]) {
                return Found::Not { keep: octets.len() - from - at };
            }
            from += at + 1;
        }
        Found::Not { keep: 0 }
    }

    /// Whether `octets`, all that is there, is a beginning of the end-line.
    fn may_begin(&self, octets: &[u8]) -> bool {
        let needle = self.needle();
        if octets.len() <= needle.len() {
            return needle.starts_with(octets);
        }
        octets.starts_with(needle)
            && match octets[needle.len()..] {
                [flag] => Continuation::of(flag).is_some(),
                [flag, b'\r'] => Continuation::of(flag).is_some(),
                _ => false,
            }
    }
}

/// The first four dashes side by side at a multiple of four. Written so that it is done for many octets at a time.
fn four_dashes(octets: &[u8]) -> Option<usize> {
    const FOUR: u32 = u32::from_ne_bytes(*b"----");
    const BLOCK: usize = 32;
    let is_four = |word: &[u8; 4]| u32::from_ne_bytes(*word) == FOUR;
    let (words, _) = octets.as_chunks::<4>();
    let (blocks, _) = words.as_chunks::<BLOCK>();
    let without = blocks.iter().take_while(|block| !block.iter().fold(false, |found, word| found | is_four(word))).count();
    let from = without * BLOCK;
    words[from..].iter().position(is_four).map(|at| (from + at) * 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    fn line() -> EndLine {
        EndLine::new(&Ident::new(b"d93kswow").unwrap())
    }

    #[test]
    fn only_the_whole_end_line_ends_a_body() {
        let end = line();
        for look_alike in [
            "x-------d93kswow$\r\n",
            "\r\n-------d93kswow!\r\n",
            "\r\n-------d93kswow$\n",
            "\r\n-------d93kswo$\r\n",
            "\r\n------d93kswow$\r\n",
            "\r\n-------d93kswow$$\r\n",
            "\n-------d93kswow$\r\n",
            "\r\n-------D93kswow$\r\n",
        ] {
            let mut body = look_alike.repeat(20).into_bytes();
            body.extend(b"\0\r\n");
            let at = body.len();
            body.extend(b"\r\n-------d93kswow+\r\nMSRP");
            assert_eq!(end.find(&body), Found::End { at, flag: Continuation::More, after: at + 20 }, "{look_alike:?}");
        }
    }

    #[test]
    fn a_long_body_is_searched_the_same_way() {
        let mut body = vec![b'-'; 9000];
        body.extend(b"\r\n-------d93kswow$\r\n");
        assert_eq!(line().find(&body), Found::End { at: 9000, flag: Continuation::Complete, after: 9020 });
    }

    #[test]
    fn bodies_full_of_dashes_are_searched_as_by_looking_at_every_place() {
        let (end, mut prng) = (line(), Prng::seeded(7));
        for round in 0..400 {
            let mut body = vec![b'x'; 4000 + prng.below(1200) as usize];
            for _ in 0..prng.below(40) {
                let (at, length) = (prng.below(body.len() as u64) as usize, prng.below(12) as usize);
                let row = body.len().min(at + length);
                body[at..row].fill(b'-');
                if at >= 2 && prng.below(2) == 0 {
                    body[at - 2..at].copy_from_slice(b"\r\n");
                }
            }
            if round % 4 != 0 {
                let at = prng.below(body.len() as u64) as usize;
                body.splice(at..at, b"\r\n-------d93kswow$\r\n".iter().copied());
            }
            let first = (0..body.len()).find_map(|at| end.at(&body, at));
            assert_eq!(end.find(&body), first.unwrap_or_else(|| end.not_in(&body)), "round {round}");
        }
    }

    #[test]
    fn an_end_line_is_found_at_every_place_of_a_block_and_at_every_cut_of_a_long_body() {
        let (end, whole) = (line(), b"\r\n-------d93kswow$\r\n");
        for before in 1_000..1_000 + 2 * 128 {
            let mut body = vec![b'-'; before];
            // Every other body has rows of dashes that are too short to be looked at twice.
            body.chunks_mut(4 - before % 2).for_each(|row| row[0] = b'x');
            body.extend(whole);
            body.extend([b'x'; 300]);
            assert_eq!(end.find(&body), Found::End { at: before, flag: Continuation::Complete, after: before + 20 });
            for cut in 0..20 {
                assert_eq!(end.find(&body[..before + cut]), Found::Not { keep: cut }, "{before}, {cut}");
            }
        }
    }

    #[test]
    fn random_octets_are_searched_as_a_search_for_the_needle_does() {
        let (end, mut prng) = (line(), Prng::seeded(9));
        for round in 0..200 {
            // From hardly any dash to a third of dashes.
            let kinds = [256, 64, 8, 3][round % 4];
            let mut body: Vec<u8> = (0..9_000).map(|_| b"-\r\n$xd93"[prng.below(kinds).min(7) as usize]).collect();
            let at = prng.below(8_000) as usize;
            body.splice(at..at, b"\r\n-------d93kswow+\r\n".iter().copied());
            let found = memchr::memmem::find(&body, b"\r\n-------d93kswow+\r\n").expect("it was put there");
            assert_eq!(end.find(&body), Found::End { at: found, flag: Continuation::More, after: found + 20 }, "round {round}");
        }
    }

    #[test]
    fn what_may_begin_an_end_line_is_kept_and_no_more() {
        let whole = b"\r\n-------d93kswow$\r\n";
        for cut in 0..whole.len() {
            let mut body = b"some text".to_vec();
            body.extend(&whole[..cut]);
            assert_eq!(line().find(&body), Found::Not { keep: cut }, "{cut}");
        }
        assert_eq!(line().find(b"text\r"), Found::Not { keep: 1 });
        assert_eq!(line().find(b"text\r\r"), Found::Not { keep: 1 });
        assert_eq!(line().find(b"\r\n-------d93kswow$\rX"), Found::Not { keep: 0 });
    }
}
