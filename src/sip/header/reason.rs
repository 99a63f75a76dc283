//! RFC 3326: Reason.

use super::name::Name;
use super::params::Params;
use super::quoted::{push_quoted, unquote};
use crate::sip::header::unquoted;
use crate::sip::message::{Malformed, Message};
use std::borrow::Cow;
use std::fmt;

/// Why a request was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason<'a> {
    /// "SIP", "Q.850" or another registered protocol.
    pub protocol: &'a str,
    pub cause: Option<u16>,
    pub text: Option<Cow<'a, str>>,
}

impl<'a> Reason<'a> {
    /// A reason in terms of a SIP status.
    pub const fn sip(cause: u16, text: &'a str) -> Self {
        Self { protocol: "SIP", cause: Some(cause), text: Some(Cow::Borrowed(text)) }
    }

    /// Reads one value; a list is split before.
    ///
    /// # Errors: [`Malformed`] where no protocol stands first.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let end = unquoted(text, b';').unwrap_or(text.len());
        let protocol = text[..end].trim_ascii();
        if protocol.is_empty() || !protocol.bytes().all(crate::sip::message::is_token) {
            return Err(Malformed::new(0, "header > reason > protocol"));
        }
        let params = Params(&text[end..]);
        Ok(Self {
            protocol,
            cause: params.value("cause").and_then(|cause| cause.parse().ok()),
            text: params.value("text").map(unquote),
        })
    }
}

/// All reasons of a message as one value (§2: one for each protocol); none where it gives none.
pub fn all(message: &Message) -> Option<String> {
    let lines: Vec<&str> = message.lines(Name::Reason).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol)?;
        if let Some(cause) = self.cause {
            write!(f, ";cause={cause}")?;
        }
        let Some(text) = &self.text else { return Ok(()) };
        let mut quoted = String::with_capacity(text.len() + 2);
        push_quoted(text, &mut quoted);
        write!(f, ";text={quoted}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_give_several() {
        let read = |fields: &str| {
            let octets = format!("BYE sip:b@x SIP/2.0\r\n{fields}\r\n");
            all(&crate::sip::message::Request::parse(octets.as_bytes()).unwrap())
        };
        let both = "SIP;cause=200;text=\"a, b\", Q.850;cause=16";
        assert_eq!(read("Reason: SIP;cause=200;text=\"a, b\"\r\nReason: Q.850;cause=16\r\n").as_deref(), Some(both));
        assert_eq!(read(&format!("Reason: {both}\r\n")).as_deref(), Some(both));
        assert_eq!(read(""), None);
    }

    #[test]
    fn reasons_read_and_print() {
        let reason = Reason::parse("Q.850 ;cause=16;text=\"Terminated; \\\"now\\\"\"").unwrap();
        assert_eq!((reason.protocol, reason.cause, reason.text.as_deref()), ("Q.850", Some(16), Some("Terminated; \"now\"")));
        assert_eq!(reason.to_string(), "Q.850;cause=16;text=\"Terminated; \\\"now\\\"\"");
        assert_eq!(Reason::sip(480, "Not here").to_string(), "SIP;cause=480;text=\"Not here\"");
        assert!(Reason::parse(";cause=1").is_err());
    }
}
