//! RFC 3261 §25.1: generic-param lists, ";name=value;flag".

/// The parameters after a header's main value, unread text that begins at the first `;` (or is empty).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Params<'a>(pub &'a str);

impl<'a> Params<'a> {
    /// Every parameter in order: name and value as written (quotes kept); a flag has no value.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                rest = rest.trim_ascii_start();
                rest = rest.strip_prefix(';')?;
                let (end, equals) = ends(rest.as_bytes());
                let (name, value) = match equals {
                    Some(at) => (rest[..at].trim_ascii(), Some(rest[at + 1..end].trim_ascii())),
                    None => (rest[..end].trim_ascii(), None),
                };
                rest = &rest[end..];
                if !name.is_empty() || value.is_some() {
                    return Some((name, value));
                }
            }
        })
    }

    /// The first parameter of that name, without regard to case; `Some(None)` for a flag.
    pub fn find(self, name: &str) -> Option<Option<&'a str>> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of a parameter, quotes kept.
    pub fn value(self, name: &str) -> Option<&'a str> {
        self.find(name).flatten()
    }

    /// Whether a parameter of that name is there, with or without a value.
    pub fn has(self, name: &str) -> bool {
        self.find(name).is_some()
    }
}

/// Where the first parameter of a list ends, and the first `=` in it.
fn ends(octets: &[u8]) -> (usize, Option<usize>) {
    let Some(name) = octets.iter().position(|octet| matches!(octet, b';' | b'=' | b'"' | b'<')) else {
        return (octets.len(), None);
    };
    let end = |from: usize| super::unquoted_from(octets, from, b';').unwrap_or(octets.len());
    match octets[name] {
        b';' => (name, None),
        b'=' => (end(name + 1), Some(name)),
        _ => {
            let end = end(name);
            (end, octets[..end].iter().position(|octet| *octet == b'='))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_told_apart_whatever_they_hide() {
        let all = |text| Params(text).iter().collect::<Vec<_>>();
        assert_eq!(
            all("; a = b ;;c; d=\"x;y=z\"; e=<;>;"),
            [("a", Some("b")), ("c", None), ("d", Some("\"x;y=z\"")), ("e", Some("<;>"))]
        );
        assert_eq!(all(";\"a=b;c\""), [("\"a", Some("b;c\""))]);
        assert_eq!(all(";a==b;=c"), [("a", Some("=b")), ("", Some("c"))]);
        assert_eq!(all("a;b"), []);
    }
}
