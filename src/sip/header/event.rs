//! RFC 6665 §8.2.1: Event.

use super::params::Params;
use crate::sip::message::{Malformed, is_token};

/// An event package and which of several subscriptions to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// "reg", "presence.winfo": compared octet for octet (RFC 6665 §8.2.1).
    pub package: &'a str,
    pub id: Option<&'a str>,
    pub params: Params<'a>,
}

impl<'a> Event<'a> {
    /// # Errors: [`Malformed`] where no token stands first.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let end = text.find(';').unwrap_or(text.len());
        let package = text[..end].trim_ascii();
        if package.is_empty() || !package.bytes().all(is_token) {
            return Err(Malformed::new(0, "header > event > event-type"));
        }
        let params = Params(&text[end..]);
        Ok(Self { package, id: params.value("id"), params })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_package() {
        let event = Event::parse("reg ;id=7").unwrap();
        assert_eq!((event.package, event.id), ("reg", Some("7")));
        assert!(Event::parse(";id=1").is_err());
    }
}
