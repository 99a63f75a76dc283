//! Random numbers from a seed: ChaCha12, so that they cannot be guessed where the seed cannot (RFC 4975 §14.1), and are the
//! same every time where the simulator names the seed.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The characters of a token.
const ALPHABET: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

/// A core's source of random numbers.
pub struct Prng(ChaCha12Rng);

impl Prng {
    /// The same numbers for the same seed: tests and the simulator.
    pub fn seeded(seed: u64) -> Self {
        Self(ChaCha12Rng::seed_from_u64(seed))
    }

    /// Numbers nobody can guess, from 32 octets of the kernel's entropy.
    pub fn from_entropy(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// Sixty-four random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; `bound` must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Appends `count` random letters from A to O, 3.9 bits each.
    pub fn push_letters(&mut self, count: usize, text: &mut String) {
        const LETTERS: u64 = 15;
        // So many are drawn with one number.
        const DRAWN: usize = 15;
        for at in (0..count).step_by(DRAWN) {
            let mut number = self.u64();
            for _ in at..count.min(at + DRAWN) {
                text.push(char::from(b'A' + (number % LETTERS) as u8));
                number /= LETTERS;
            }
        }
    }

    /// Appends `count` random characters of `[0-9A-Za-z_-]`, six bits each.
    pub fn push_token(&mut self, count: usize, text: &mut String) {
        let mut token = [0; 40];
        let mut left = count;
        while left > 0 {
            let token = &mut token[..left.min(40)];
            self.fill_token(token);
            text.push_str(std::str::from_utf8(token).expect("the alphabet is ASCII"));
            left -= token.len();
        }
    }

    /// Fills `token` with random characters of `[0-9A-Za-z_-]`, six bits each.
    pub fn fill_token(&mut self, token: &mut [u8]) {
        for letters in token.chunks_mut(10) {
            let mut bits = self.u64();
            for letter in letters {
                *letter = ALPHABET[(bits & 63) as usize];
                bits >>= 6;
            }
        }
    }
}
