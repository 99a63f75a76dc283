//! RFC 6750 §2.1: the bearer token of the admin server.
//!
//! It stands in a file of its own, so that the configuration can be shown to anybody. The file is read for every request: what it
//! says counts at once, and requests of an operator are rare.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Shorter tokens could be guessed.
const OCTETS_MIN: usize = 16;
/// As much as a header field carries anywhere.
const OCTETS_MAX: usize = 4096;

/// The token in a file.
///
/// # Errors
/// What is wrong with the file, for the log.
pub fn read(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let token = text.trim();
    let printable = token.bytes().all(|octet| octet.is_ascii_graphic());
    match printable && (OCTETS_MIN..=OCTETS_MAX).contains(&token.len()) {
        true => Ok(token.to_owned()),
        false => Err(format!("{}: not a token of {OCTETS_MIN} or more visible ASCII characters", file.display())),
    }
}

/// Whether a request brings the token. Digests are compared, so that the time taken tells nothing of the token.
pub fn admits(token: &str, headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()) else { return false };
    let Some((scheme, brought)) = value.split_once(' ') else { return false };
    scheme.eq_ignore_ascii_case("Bearer") && Sha256::digest(brought.trim()) == Sha256::digest(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_admits() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().expect("a header value"));
            admits("0123456789abcdef", &headers)
        };
        assert!(with("Bearer 0123456789abcdef") && with("bearer  0123456789abcdef"));
        assert!(
            !with("Bearer 0123456789abcde") && !with("Basic 0123456789abcdef") && !with("0123456789abcdef") && !with("Bearer")
        );
        assert!(!admits("0123456789abcdef", &HeaderMap::new()));
    }

    #[test]
    fn a_file_without_a_usable_token_is_told() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        for (text, good) in [("0123456789abcdef\n", true), ("short", false), ("0123456789 abcdefghi", false), ("", false)] {
            std::fs::write(file.path(), text).expect("the file can be written");
            assert_eq!(read(file.path()).is_ok(), good, "{text:?}");
        }
        assert!(read(Path::new("/nonexistent")).is_err());
    }
}
