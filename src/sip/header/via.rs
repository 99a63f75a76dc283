//! RFC 3261 §20.42, RFC 3581: Via.

use super::params::Params;
use crate::sip::message::Malformed;

/// One Via value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Via<'a> {
    /// "UDP", "TCP", "TLS" … as written.
    pub transport: &'a str,
    /// Host of sent-by; an IPv6 reference keeps its brackets.
    pub host: &'a str,
    /// Port of sent-by, where one is given.
    pub port: Option<u16>,
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// # Errors: [`Malformed`] where protocol or sent-by cannot be read.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        const SENT_PROTOCOL: Malformed = Malformed::new(0, "header > via > sent-protocol");
        const SENT_BY: Malformed = Malformed::new(0, "header > via > sent-by");
        let (name, rest) = text.split_once('/').ok_or(SENT_PROTOCOL)?;
        let (version, rest) = rest.split_once('/').ok_or(SENT_PROTOCOL)?;
        if !name.trim_ascii().eq_ignore_ascii_case("SIP") || version.trim_ascii() != "2.0" {
            return Err(SENT_PROTOCOL);
        }
        let rest = rest.trim_ascii_start();
        let (transport, rest) = rest.split_once(|c: char| c.is_ascii_whitespace()).ok_or(SENT_PROTOCOL)?;
        let rest = rest.trim_ascii_start();
        let end = rest.find(';').unwrap_or(rest.len());
        let (host, port) = host_port(rest[..end].trim_ascii_end()).ok_or(SENT_BY)?;
        Ok(Self { transport, host, port, params: Params(&rest[end..]) })
    }

    pub fn branch(&self) -> Option<&'a str> {
        self.params.value("branch")
    }
}

/// Splits "host:port", "[v6]:port", "host", with white space allowed around the colon.
pub(crate) fn host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let colon = match text.strip_prefix('[') {
        Some(inner) => {
            let close = inner.find(']')? + 1;
            text[close + 1..].find(':').map(|at| close + 1 + at)
        }
        None => text.find(':'),
    };
    let (host, port) = match colon {
        Some(at) => (text[..at].trim_ascii_end(), Some(text[at + 1..].trim_ascii().parse::<u16>().ok()?)),
        None => (text, None),
    };
    let plain = !host.is_empty() && !host.contains(|c: char| c.is_ascii_whitespace() || c == '<' || c == '>' || c == '"');
    plain.then_some((host, port))
}
