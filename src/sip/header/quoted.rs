//! RFC 3261 §25.1: quoted-string.

use std::borrow::Cow;

/// The text of a quoted-string; what is not quoted stays as it is.
pub fn unquote(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"') else { return Cow::Borrowed(text) };
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        plain.push(if letter == '\\' { letters.next().unwrap_or('\\') } else { letter });
    }
    Cow::Owned(plain)
}

/// Appends text as a quoted-string. Line ends, which cannot be escaped, become spaces.
pub fn push_quoted(text: &str, into: &mut String) {
    into.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => into.extend(['\\', letter]),
            '\r' | '\n' => into.push(' '),
            _ => into.push(letter),
        }
    }
    into.push('"');
}

/// Whether a text that begins with a quote is one whole quoted-string.
pub fn is_closed(text: &str) -> bool {
    let mut escaped = false;
    let Some(inner) = text.strip_prefix('"') else { return false };
    for (at, octet) in inner.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1 == inner.len(),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_and_unquoting_are_inverse() {
        for text in ["", "plain", "a \"b\" \\c", "é, ;<>"] {
            let mut quoted = String::new();
            push_quoted(text, &mut quoted);
            assert!(is_closed(&quoted));
            assert_eq!(unquote(&quoted), text);
        }
        assert_eq!(unquote("token"), "token");
        assert!(!is_closed("\"open") && !is_closed("\"a\" b") && !is_closed("\"a\\\""));
    }
}
