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
    let mut quoted = false;
    let mut bracketed = false;
    let mut escaped = false;
    for (at, octet) in text.bytes().enumerate() {
        if quoted {
            match octet {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match octet {
            _ if octet == wanted && !bracketed => return Some(at),
            b'"' => quoted = true,
            b'<' => bracketed = true,
            b'>' => bracketed = false,
            _ => {}
        }
    }
    None
}

/// Offset of the `<` that opens a name-addr: the first one outside a quoted display name.
pub(crate) fn unquoted_bracket(text: &str) -> Option<usize> {
    unquoted(text, b'<')
}
