//! RFC 3261 §20.35, §20.41: User-Agent and Server are lists of products and comments.

/// The product tokens in order, "CPM-client/OMA2.2"; comments are left out, nested ones too.
pub fn products(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_ascii_start();
            if rest.is_empty() {
                return None;
            }
            if rest.starts_with('(') {
                rest = &rest[comment(rest)..];
                continue;
            }
            let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '(').unwrap_or(rest.len());
            let product = &rest[..end];
            rest = &rest[end..];
            return Some(product);
        }
    })
}

/// Length of the comment that a text begins with; one that is not closed runs to the end.
fn comment(text: &str) -> usize {
    let (mut depth, mut escaped) = (0, false);
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::products;

    #[test]
    fn products_stand_between_comments() {
        let text = "CPM-client/OMA2.2 (x (nested) \\) y) RCS-client/UP_2.3(z) vendor";
        assert_eq!(products(text).collect::<Vec<_>>(), ["CPM-client/OMA2.2", "RCS-client/UP_2.3", "vendor"]);
        assert_eq!(products(" (open é").count(), 0);
    }
}
