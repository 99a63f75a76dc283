//! RFC 3261 §20: header fields, a file a header.

pub mod cseq;
pub mod date;
pub mod event;
pub mod feature;
pub mod min_se;
pub mod name;
pub mod name_addr;
pub mod option_tag;
pub mod params;
pub mod privacy;
pub mod product;
pub mod quoted;
pub mod rack;
pub mod reason;
pub mod retry_after;
pub mod session_expires;
pub mod subscription_state;
pub mod via;
pub mod warning;

/// Splits a comma-separated value; commas inside quotes and angle brackets do not separate. Empty elements are left out.
pub fn list(value: &str) -> impl Iterator<Item = &str> + '_ {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = unquoted(rest, b',').unwrap_or(rest.len());
            let item = rest[..end].trim_ascii();
            rest = rest.get(end + 1..).unwrap_or("");
            if !item.is_empty() {
                return Some(item);
            }
        }
    })
}

/// Offset of the first `wanted` octet outside quotes and angle brackets.
pub(crate) fn unquoted(text: &str, wanted: u8) -> Option<usize> {
    let octets = text.as_bytes();
    // It is mostly not there at all, or nothing before it hides anything.
    let first = first(wanted, octets)?;
    if !octets[..first].iter().any(|octet| matches!(octet, b'"' | b'<')) {
        return Some(first);
    }
    unquoted_from(octets, 0, wanted)
}

/// The same from `at` on, where no quotes and no brackets are open.
fn unquoted_from(octets: &[u8], mut at: usize, wanted: u8) -> Option<usize> {
    loop {
        at += memchr::memchr3(wanted, b'"', b'<', &octets[at..])?;
        match octets[at] {
            found if found == wanted => return Some(at),
            b'"' => at = past_quoted(octets, at)?,
            _ => at = past_brackets(octets, at)?,
        }
    }
}

/// Offset of the first `wanted` octet.
fn first(wanted: u8, octets: &[u8]) -> Option<usize> {
    // What a vector search costs to begin, a loop takes for so many.
    const SHORT: usize = 16;
    if octets.len() < SHORT { octets.iter().position(|octet| *octet == wanted) } else { memchr::memchr(wanted, octets) }
}

/// What follows the quoted string that begins at `open`; none where it has no end.
fn past_quoted(octets: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', &octets[at..])?;
        match octets[at] {
            b'"' => return Some(at + 1),
            // The next octet is itself, whatever it is.
            _ if at + 2 <= octets.len() => at += 2,
            _ => return None,
        }
    }
}

/// What follows the angle brackets that open at `open`, in which a quoted string may stand too.
fn past_brackets(octets: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += memchr::memchr2(b'"', b'>', &octets[at..])?;
        match octets[at] {
            b'>' => return Some(at + 1),
            _ => at = past_quoted(octets, at)?,
        }
    }
}

/// Offset of the `<` that opens a name-addr: the first one outside a quoted display name.
pub(crate) fn unquoted_bracket(text: &str) -> Option<usize> {
    unquoted(text, b'<')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, octet by octet.
    fn slowly(text: &str, wanted: u8) -> Option<usize> {
        let (mut quoted, mut bracketed, mut escaped) = (false, false, false);
        for (at, octet) in text.bytes().enumerate() {
            match octet {
                _ if quoted && escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' if quoted => quoted = false,
                _ if quoted => {}
                _ if octet == wanted && !bracketed => return Some(at),
                b'"' => quoted = true,
                b'<' => bracketed = true,
                b'>' => bracketed = false,
                _ => {}
            }
        }
        None
    }

    #[test]
    fn quotes_and_brackets_hide_what_stands_in_them() {
        assert_eq!(list("a, \"b,\\\"c\" <d,\">\",e>, f").collect::<Vec<_>>(), ["a", "\"b,\\\"c\" <d,\">\",e>", "f"]);
        let mut prng = crate::base::prng::Prng::seeded(1);
        for _ in 0..20_000 {
            let text: String = (0..prng.below(24)).map(|_| b"a,;<>\"\\"[prng.below(7) as usize] as char).collect();
            for wanted in [b',', b';', b'<'] {
                assert_eq!(unquoted(&text, wanted), slowly(&text, wanted), "{text}");
            }
        }
    }
}
