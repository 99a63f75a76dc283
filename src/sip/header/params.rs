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
                let end = super::unquoted(rest, b';').unwrap_or(rest.len());
                let param = rest[..end].trim_ascii();
                rest = &rest[end..];
                if param.is_empty() {
                    continue;
                }
                return Some(match param.bytes().position(|octet| octet == b'=') {
                    Some(at) => (param[..at].trim_ascii_end(), Some(param[at + 1..].trim_ascii_start())),
                    None => (param, None),
                });
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
