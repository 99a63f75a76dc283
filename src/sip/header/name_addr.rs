//! RFC 3261 §20.10: name-addr and addr-spec with header parameters: From, To, Contact, Route, P-Asserted-Identity …

use super::params::Params;
use crate::sip::message::Malformed;

/// One address with what surrounds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameAddr<'a> {
    /// The whole value as written.
    pub text: &'a str,
    /// Display name as written, quotes kept; empty where there is none.
    pub display: &'a str,
    /// The URI, without angle brackets.
    pub uri: &'a str,
    /// Header parameters: those after `>`, or after the first `;` of a bare addr-spec (RFC 3261 §20).
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one value; a list is split before ([`super::list`]).
    ///
    /// # Errors
    /// [`Malformed`] where no URI stands, or the angle bracket is not closed.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let text = text.trim_ascii();
        let open = if text.starts_with('<') { Some(0) } else { super::unquoted_bracket(text) };
        let Some(open) = open else {
            let end = memchr::memchr(b';', text.as_bytes()).unwrap_or(text.len());
            let uri = text[..end].trim_ascii_end();
            if uri.is_empty() || !uri.contains(':') || uri.contains(|c: char| c.is_ascii_whitespace() || c == '"' || c == ',') {
                return Err(Malformed::new(0, "header > addr-spec"));
            }
            return Ok(Self { text, display: "", uri, params: Params(&text[end..]) });
        };
        let inner = &text[open + 1..];
        let close = memchr::memchr(b'>', inner.as_bytes()).ok_or(Malformed::new(open, "header > name-addr > '>'"))?;
        let uri = inner[..close].trim_ascii();
        if uri.is_empty() {
            return Err(Malformed::new(open, "header > name-addr > uri"));
        }
        let params = inner[close + 1..].trim_ascii();
        if !params.is_empty() && !params.starts_with(';') {
            return Err(Malformed::new(open + close, "header > name-addr > params"));
        }
        Ok(Self { text, display: text[..open].trim_ascii_end(), uri, params: Params(params) })
    }

    /// The `tag` parameter (From and To).
    pub fn tag(&self) -> Option<&'a str> {
        self.params.value("tag")
    }
}
