//! RFC 3261 §8.2.2.3, §19.2: option tags.

use super::name::Name;
use crate::sip::message::Message;

/// The option tags that the message requires by `header` (Require, or Proxy-Require for a proxy) and that are not among
/// `known`: what Unsupported of a 420 lists. Empty: all is understood.
pub fn unknown<'a>(message: &'a Message, header: Name, known: &[&str]) -> Vec<&'a str> {
    message.values(header).filter(|tag| !known.iter().any(|known| known.eq_ignore_ascii_case(tag))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Request;

    #[test]
    fn unknown_option_tags_are_listed() {
        let request =
            Request::parse(b"OPTIONS sip:a SIP/2.0\r\nRequire: timer, nothingSupportsThis\r\nRequire: 100rel\r\n\r\n").unwrap();
        assert_eq!(unknown(&request, Name::Require, &["timer", "path"]), ["nothingSupportsThis", "100rel"]);
        assert!(unknown(&request, Name::ProxyRequire, &[]).is_empty());
    }
}
