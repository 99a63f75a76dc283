//! Tables whose keys no peer chooses: counters of ours, digests made under a secret seed, texts drawn by chance. They need no
//! hashing against an adversary.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by texts of ours: what a peer asks for may be any text, but what is in the table was drawn by chance.
pub type Drawn<V> = HashMap<Box<str>, V, BuildHasherDefault<Spread>>;

/// A table by such a number.
pub type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// Spreads a number over all bits, by Fibonacci's multiplier.
#[derive(Clone, Copy, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, octets: &[u8]) {
        let (words, rest) = octets.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        rest.iter().for_each(|octet| self.write_u64(u64::from(*octet)));
    }
    fn write_u8(&mut self, octet: u8) {
        self.write_u64(u64::from(octet));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The upper bits are the better ones; a table takes its place from the lower.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_fall_into_places_of_their_own() {
        let place = |number: u64| {
            let mut hasher = Spread::default();
            hasher.write_u64(number);
            hasher.finish() & 0xfff
        };
        for first in [0, 1 << 56, 3 << 56] {
            let places: std::collections::BTreeSet<u64> = (first..first + 4096).map(place).collect();
            // Thrown by chance, 4,096 numbers hit 63 % of as many places.
            assert!(places.len() > 2500, "{} places", places.len());
        }
    }
}
