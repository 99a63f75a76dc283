//! RFC 4975 §8.6: whether a Content-Type is among the `accept-types`.

/// "type/subtype" without parameters and blanks around it.
pub fn bare(content_type: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    content_type[..end].trim_ascii()
}

/// Whether `content_type` is allowed by the value of `accept-types`; an empty one allows all.
pub fn is_accepted(content_type: &[u8], accept_types: &str) -> bool {
    let content_type = bare(content_type);
    let mut entries = accept_types.split_ascii_whitespace().peekable();
    entries.peek().is_none() || entries.any(|entry| matches(bare(entry.as_bytes()), content_type))
}

fn matches(entry: &[u8], content_type: &[u8]) -> bool {
    if entry == b"*" || entry == b"*/*" {
        return true;
    }
    match entry.strip_suffix(b"/*") {
        Some(kind) => content_type.get(kind.len()) == Some(&b'/') && content_type[..kind.len()].eq_ignore_ascii_case(kind),
        None => entry.eq_ignore_ascii_case(content_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_count_and_stars_are_open() {
        assert!(is_accepted(b"Text/Plain; charset=utf-8", "message/cpim text/plain"));
        assert!(is_accepted(b"image/png", "image/*"));
        assert!(is_accepted(b"image/png", "*"));
        assert!(is_accepted(b"image/png", ""));
        assert!(!is_accepted(b"imagex/png", "image/*"));
        assert!(!is_accepted(b"text/html", "text/plain;charset=x"));
    }
}
