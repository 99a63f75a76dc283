//! Our own branches, tags and user tokens. Each carries the signalling core that owns what it names, so that a message
//! finds its core without any table.
//!
//! ```text
//! branch  z9hG4bK SS kkkkkkkkkkkkkkkk rrrrrrr       core, transaction (slab key), 42 random bits (RFC 3261 §8.1.1.7)
//! tag     SS . rrrrrrrrrrrrrr                       core, 84 random bits (RFC 3261 §19.3 asks for 32)
//! user    SS . llllllllllllllllllllll               core, 22 random letters (85 bits): Contact, Record-Route
//! ```
//!
//! Lengths are fixed and the dot stands at a fixed place: what a peer made is all but never taken for ours. Whoever
//! forges one gains nothing: it is looked up on the core it names and not found.
//!
//! A tag of a refusal that has no transaction, and so wants no ACK (RFC 3261 §8.2.7), begins with [`UNACKNOWLEDGED`], for the same reason.
//!
//! The letters of a user are A to O, octets whose upper half is 4: a few of them side by side are found in a message without reading it
//! (`io::signalling::filter`), as no word, number or name is likely to have them.

use crate::base::prng::Prng;
use crate::base::slab::Key;
use std::hash::{DefaultHasher, Hash, Hasher};

/// RFC 3261 §8.1.1.7: every branch of an RFC 3261 element begins so.
pub const MAGIC_COOKIE: &str = "z9hG4bK";
/// Octets of a branch of ours.
pub const BRANCH_LEN: usize = 32;
const BRANCH_CHANCE: usize = 7;
const TAG_CHANCE: usize = 14;
/// Letters of a user, and what the upper half of each is.
pub const LETTERS: usize = 22;
pub const LETTERS_HIGH_BITS: u8 = 0x40;
pub const LETTERS_MASK: u8 = 0xf0;
/// With what the tag of a refusal begins whose ACK nobody waits for: [`LETTERS`] times the same sign.
pub const UNACKNOWLEDGED: &str = "______________________";
const CALL_ID_CHANCE: usize = 22;

/// A branch of ours, held in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Branch([u8; BRANCH_LEN]);

impl Branch {
    /// A fresh branch for the transaction under `key` of core `shard`.
    pub fn new(shard: u8, key: Key, prng: &mut Prng) -> Self {
        let mut octets = [0; BRANCH_LEN];
        octets[..7].copy_from_slice(MAGIC_COOKIE.as_bytes());
        fill_hex(u64::from(shard), &mut octets[7..9]);
        fill_hex(key.as_u64(), &mut octets[9..BRANCH_LEN - BRANCH_CHANCE]);
        prng.fill_token(&mut octets[BRANCH_LEN - BRANCH_CHANCE..]);
        Self(octets)
    }

    /// Of a transaction that has no key yet.
    pub const fn none() -> Self {
        Self([b'-'; BRANCH_LEN])
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a branch is written in ASCII")
    }

    /// The transaction a branch names, if it has the shape of ours. The caller compares the whole text with what it made.
    pub fn key_in(branch: &str) -> Option<Key> {
        shard_of_branch(branch)?;
        u64::from_str_radix(branch.get(9..25)?, 16).ok().map(Key::from_u64)
    }
}

/// Appends a fresh tag.
pub fn push_tag(shard: u8, prng: &mut Prng, text: &mut String) {
    push_hex(u64::from(shard), 2, text);
    text.push('.');
    prng.push_token(TAG_CHANCE, text);
}

/// A fresh tag.
pub fn tag(shard: u8, prng: &mut Prng) -> String {
    let mut text = String::with_capacity(3 + TAG_CHANCE);
    push_tag(shard, prng, &mut text);
    text
}

/// A tag for a response without transaction: the same for the same request (RFC 3261 §8.2.7). Nobody looks it up.
pub fn stateless_tag(shard: u8, request: &[&str]) -> String {
    let mut hash = DefaultHasher::new();
    request.hash(&mut hash);
    tag(shard, &mut Prng::seeded(hash.finish()))
}

/// A fresh user part for a Contact or Record-Route URI of ours.
pub fn user(shard: u8, prng: &mut Prng) -> String {
    let mut text = String::with_capacity(3 + LETTERS);
    push_hex(u64::from(shard), 2, &mut text);
    text.push('.');
    prng.push_letters(LETTERS, &mut text);
    text
}

/// A fresh Call-ID, without host part: 132 random bits (RFC 3261 §8.1.1.4). It names no core: responses come back by
/// branch, requests by tag.
pub fn call_id(prng: &mut Prng) -> String {
    let mut text = String::with_capacity(CALL_ID_CHANCE);
    prng.push_token(CALL_ID_CHANCE, &mut text);
    text
}

/// The core that made this branch; none: not ours.
pub fn shard_of_branch(branch: &str) -> Option<u8> {
    let rest = branch.as_bytes().strip_prefix(MAGIC_COOKIE.as_bytes())?;
    (branch.len() == BRANCH_LEN && rest[2..18].iter().all(u8::is_ascii_hexdigit)).then(|| hex_octet(rest))?
}

/// The core that made this tag; none: not ours.
pub fn shard_of_tag(tag: &str) -> Option<u8> {
    shaped(tag, 3 + TAG_CHANCE)
}

/// The core that made this user part; none: not ours.
pub fn shard_of_user(user: &str) -> Option<u8> {
    shaped(user, 3 + LETTERS)
}

fn shaped(text: &str, len: usize) -> Option<u8> {
    let octets = text.as_bytes();
    (octets.len() == len && octets[2] == b'.').then(|| hex_octet(octets))?
}

fn hex_octet(text: &[u8]) -> Option<u8> {
    let digit = |octet: u8| match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'a'..=b'f' => Some(octet - b'a' + 10),
        _ => None,
    };
    Some(digit(*text.first()?)? << 4 | digit(*text.get(1)?)?)
}

/// Appends the lowest `digits` hex digits.
pub fn push_hex(number: u64, digits: u32, text: &mut String) {
    for at in (0..digits).rev() {
        text.push(char::from(hex_digit(number >> (at * 4))));
    }
}

/// Fills `digits` with the last ones of the number.
fn fill_hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = hex_digit(number);
        number >>= 4;
    }
}

const fn hex_digit(number: u64) -> u8 {
    b"0123456789abcdef"[(number & 15) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_names_its_core() {
        let mut prng = Prng::seeded(1);
        let branch = Branch::new(0xa7, Key::from_u64(0x0000_0003_0000_002a), &mut prng);
        assert_eq!(branch.as_str().len(), BRANCH_LEN);
        assert_eq!(shard_of_branch(branch.as_str()), Some(0xa7));
        assert_eq!(Branch::key_in(branch.as_str()), Some(Key::from_u64(0x0000_0003_0000_002a)));
        assert_eq!(shard_of_tag(&tag(3, &mut prng)), Some(3));
        assert_eq!(shard_of_user(&user(255, &mut prng)), Some(255));
        assert_ne!(call_id(&mut prng), call_id(&mut prng));
    }

    #[test]
    fn what_others_made_is_not_ours() {
        for text in
            ["", "z9hG4bK", "z9hG4bKnashds8", "z9hG4bK0000000000000003zzzzzzzzzz", "orig", "term", "bob", "0a.short", "+1212555"]
        {
            assert_eq!((shard_of_branch(text), shard_of_tag(text), shard_of_user(text)), (None, None, None), "{text}");
        }
        assert_eq!(shard_of_tag("é.aaaaaaaaaaaaaa"), None);
        assert_eq!(shard_of_branch(&format!("z9hG4bK{}", "é".repeat(12))), None);
    }
}
