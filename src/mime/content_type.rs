//! RFC 2045 §5.1 and RFC 2183: Content-Type and Content-Disposition values.

/// A value with parameters: "multipart/mixed;boundary=x", "recipient-list; handling=optional".
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ContentType {
    /// "multipart/mixed" or "recipient-list", lower case.
    pub essence: String,
    /// Names in lower case; values without their quotes.
    pub parameters: Vec<(String, String)>,
}

impl ContentType {
    /// Reads the value; what cannot be read of the parameters is left out.
    pub fn parse(value: &str) -> Self {
        let mut pieces = outside_quotes(value, ';');
        let essence = pieces.next().unwrap_or_default().trim().to_ascii_lowercase();
        let parameters = pieces
            .filter_map(|piece| piece.split_once('='))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), unquoted(value.trim())))
            .collect();
        Self { essence, parameters }
    }

    /// Value of a parameter; `name` in lower case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(parameter, _)| parameter == name).map(|(_, value)| value.as_str())
    }

    pub fn is_multipart(&self) -> bool {
        self.essence.starts_with("multipart/")
    }
}

/// Splits at a character that stands outside quoted strings; a quote behind a backslash does not end one.
fn outside_quotes(value: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    value.split(move |c| {
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        !quoted && c == at
    })
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else { return value.to_owned() };
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let mut escaped = false;
    inner
        .chars()
        .filter(|&c| {
            let drop = c == '\\' && !escaped;
            escaped = drop;
            !drop
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_quoted_and_bare() {
        let read = ContentType::parse("Multipart/Mixed ; Boundary=\"a;b\\\"c\"; charset=utf-8; odd");
        assert_eq!(read.essence, "multipart/mixed");
        assert_eq!(read.parameter("boundary"), Some("a;b\"c"));
        assert_eq!(read.parameter("charset"), Some("utf-8"));
        assert_eq!(ContentType::parse("multipart/mixed;boundary=boundary1").parameter("boundary"), Some("boundary1"));
    }
}
