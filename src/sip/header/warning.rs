//! RFC 3261 §20.43: Warning.

use super::quoted::{is_closed, push_quoted, unquote};
use crate::sip::message::{Malformed, decimal};
use std::borrow::Cow;
use std::fmt;

/// One warning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning<'a> {
    /// 300 to 399.
    pub code: u16,
    /// Host of who warns.
    pub agent: &'a str,
    pub text: Cow<'a, str>,
}

impl<'a> Warning<'a> {
    pub const fn new(code: u16, agent: &'a str, text: &'a str) -> Self {
        Self { code, agent, text: Cow::Borrowed(text) }
    }

    /// Reads one value; a list is split before.
    ///
    /// # Errors: [`Malformed`] unless it is three digits, an agent and a quoted text.
    pub fn parse(value: &'a str) -> Result<Self, Malformed> {
        const WARNING: Malformed = Malformed::new(0, "header > warning");
        let (code, rest) = value.trim_ascii().split_once(' ').ok_or(WARNING)?;
        let code = decimal(code.as_bytes()).filter(|_| code.len() == 3).ok_or(WARNING)?;
        let (agent, text) = rest.trim_ascii_start().split_once(' ').ok_or(WARNING)?;
        let text = text.trim_ascii();
        if !is_closed(text) {
            return Err(WARNING);
        }
        Ok(Self { code: code as u16, agent, text: unquote(text) })
    }
}

impl fmt::Display for Warning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut quoted = String::with_capacity(self.text.len() + 2);
        push_quoted(&self.text, &mut quoted);
        write!(f, "{:03} {} {quoted}", self.code, self.agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_read_and_print() {
        let text = "399 pf1.example.net \"127 Service not authorised\"";
        let warning = Warning::parse(text).unwrap();
        assert_eq!(warning, Warning::new(399, "pf1.example.net", "127 Service not authorised"));
        assert_eq!(warning.to_string(), text);
        for text in ["", "399", "399 host", "399 host bare", "39 host \"x\"", "399 host \"x"] {
            assert!(Warning::parse(text).is_err(), "{text}");
        }
    }
}
