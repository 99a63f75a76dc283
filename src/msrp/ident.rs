//! RFC 4975 §9 `ident`: transaction ids and Message-IDs, held in place.

use crate::base::prng::Prng;

/// Characters of an `ident`: one ALPHANUM and 3 to 31 more.
pub const IDENT_OCTETS_MIN: usize = 4;
/// See [`IDENT_OCTETS_MIN`].
pub const IDENT_OCTETS_MAX: usize = 32;

/// `ident-char`.
const IDENT_CHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        let char = octet as u8;
        table[octet] = char.is_ascii_alphanumeric() || matches!(char, b'.' | b'-' | b'+' | b'%' | b'=');
        octet += 1;
    }
    table
};

/// A transaction id or Message-ID of at most 32 octets; empty where there was none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Ident {
    octets: [u8; IDENT_OCTETS_MAX],
    len: u8,
}

impl Ident {
    /// Takes the octets as they are; none where they are more than 32.
    pub fn new(octets: &[u8]) -> Option<Self> {
        let mut ident = Self { octets: [0; IDENT_OCTETS_MAX], len: octets.len() as u8 };
        ident.octets.get_mut(..octets.len())?.copy_from_slice(octets);
        Some(ident)
    }

    /// The first `len` of these octets; none where they are more than 32.
    pub fn leading(octets: &[u8], len: usize) -> Option<Self> {
        let Some(all) = octets.first_chunk::<IDENT_OCTETS_MAX>().filter(|_| len <= IDENT_OCTETS_MAX) else {
            return Self::new(octets.get(..len)?);
        };
        // Without a copy of so many octets, which is a call.
        let mut ident = Self { octets: *all, len: len as u8 };
        for (word, from) in ident.octets.as_chunks_mut::<8>().0.iter_mut().zip([0, 8, 16, 24]) {
            let kept = len.saturating_sub(from).min(8) as u32;
            let mask = u64::MAX.checked_shr(64 - 8 * kept).unwrap_or(0);
            *word = (u64::from_le_bytes(*word) & mask).to_le_bytes();
        }
        Some(ident)
    }

    /// A fresh one of 16 characters, 95 random bits: RFC 4975 §7.1 asks for 64 in a transaction id, so that its end-line
    /// is in nobody's body.
    pub fn random(prng: &mut Prng) -> Self {
        const FIRST: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-.";
        let mut ident = Self { octets: [0; IDENT_OCTETS_MAX], len: 16 };
        let (mut high, mut low) = (prng.u64(), prng.u64());
        ident.octets[0] = FIRST[(high & 31) as usize];
        high >>= 5;
        for octet in &mut ident.octets[1..8] {
            *octet = ALPHABET[(high & 63) as usize];
            high >>= 6;
        }
        for octet in &mut ident.octets[8..16] {
            *octet = ALPHABET[(low & 63) as usize];
            low >>= 6;
        }
        ident
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }

    /// As text; octets that are not UTF-8 are replaced.
    pub fn to_text(&self) -> Box<str> {
        String::from_utf8_lossy(self.as_bytes()).into()
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Thirty-two bits to tell idents apart quickly in a small table. The peer chooses the text, so equal marks prove
    /// nothing: the table compares the whole ident then.
    pub fn mark(&self) -> u32 {
        let mut words = self.octets.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight octets")));
        let mut mark = 0xcbf2_9ce4_8422_2325u64 ^ u64::from(self.len);
        for word in &mut words {
            mark = (mark ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        (mark >> 32) as u32
    }

    /// Whether the text obeys the grammar.
    pub fn is_lawful(&self) -> bool {
        let octets = self.as_bytes();
        octets.len() >= IDENT_OCTETS_MIN
            && octets[0].is_ascii_alphanumeric()
            && octets.iter().fold(true, |lawful, &octet| lawful & IDENT_CHAR[usize::from(octet)])
    }
}

impl std::fmt::Debug for Ident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_four_to_thirty_two_characters_that_begin_alphanumeric() {
        for (text, lawful) in [
            ("d93kswow", true),
            ("empty", true),
            ("abc", false),
            ("-abc", false),
            ("ab c", false),
            ("a.-+%=Z9", true),
            ("12345678901234567890123456789012", true),
        ] {
            assert_eq!(Ident::new(text.as_bytes()).unwrap().is_lawful(), lawful, "{text}");
        }
        assert!(Ident::new(&[b'a'; 33]).is_none());
        for (octets, len) in
            [(&[b'a'; 40][..], 0), (&[b'a'; 40], 13), (&[b'a'; 40], 32), (&[b'a'; 20], 13), (&[b'a'; 40], 33), (&[b'a'; 9], 10)]
        {
            assert_eq!(Ident::leading(octets, len), octets.get(..len).and_then(Ident::new), "{len} of {}", octets.len());
        }
    }

    #[test]
    fn fresh_idents_are_lawful_and_differ() {
        let mut prng = Prng::seeded(1);
        let one = Ident::random(&mut prng);
        assert!(one.is_lawful());
        assert_ne!(one, Ident::random(&mut prng));
    }
}
