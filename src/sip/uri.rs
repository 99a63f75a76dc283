//! RFC 3261 §19.1, RFC 3966, RFC 3986: URIs. SIP, SIPS and TEL are taken apart; any other scheme is kept whole.

use super::header::params::Params;
use super::header::via::{host_port, port};
use super::message::Malformed;
use std::borrow::Cow;

/// A URI, split over the text it was read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uri<'a> {
    /// The whole URI as written.
    pub text: &'a str,
    /// As written; compare without regard to case.
    pub scheme: &'a str,
    /// Userinfo without password, percent-encoding kept; for TEL the number; empty where there is none.
    pub user: &'a str,
    /// Host; IPv6 keeps its brackets; empty for TEL and other schemes.
    pub host: &'a str,
    pub port: Option<u16>,
    /// URI parameters.
    pub params: Params<'a>,
    /// The text after `?`, where there is one.
    pub headers: Option<&'a str>,
}

/// Where the octets stand that part a URI, found in one pass over what follows its scheme.
struct Marks {
    /// The last `@`.
    at: Option<usize>,
    /// The last `?` behind it: one may stand in the user part (RFC 3261 §25.1 user-unreserved); headers come after the host.
    question: Option<usize>,
    /// The first `;` behind it.
    semicolon: Option<usize>,
    /// The first `:`, wherever it is.
    colon: Option<usize>,
    /// The first `:` behind the last `@`.
    port: Option<usize>,
}

/// Octets that part a URI, and those that may be in none.
const TELLING: [bool; 256] = {
    let mut table = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] =
            octet <= b' ' as usize || octet == 0x7f || matches!(octet as u8, b'<' | b'>' | b'"' | b'@' | b'?' | b';' | b':');
        octet += 1;
    }
    table
};

impl Marks {
    /// None: an octet stands there that may be in no URI.
    fn of(rest: &str) -> Option<Self> {
        let mut marks = Self { at: None, question: None, semicolon: None, colon: None, port: None };
        let octets = rest.as_bytes();
        let mut place = 0;
        while let Some(length) = octets[place..].iter().position(|octet| TELLING[usize::from(*octet)]) {
            place += length;
            match octets[place] {
                b'@' => marks = Self { at: Some(place), colon: marks.colon, question: None, semicolon: None, port: None },
                b'?' => marks.question = Some(place),
                b';' => marks.semicolon = marks.semicolon.or(Some(place)),
                b':' => (marks.colon, marks.port) = (marks.colon.or(Some(place)), marks.port.or(Some(place))),
                _ => return None,
            }
            place += 1;
        }
        Some(marks)
    }
}

impl<'a> Uri<'a> {
    /// Reads a URI of any scheme.
    ///
    /// # Errors
    /// [`Malformed`] where there is no scheme, or a SIP(S) URI has no host or a port that is none.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        const SCHEME: Malformed = Malformed::new(0, "uri > scheme");
        let of_scheme = |octet: u8| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet);
        let colon = if text.starts_with("sip:") { Some(3) } else { text.bytes().position(|octet| !of_scheme(octet)) };
        let colon = colon.ok_or(SCHEME)?;
        let begins = text.as_bytes()[0].is_ascii_alphabetic();
        if !begins || text.as_bytes()[colon] != b':' {
            return Err(SCHEME);
        }
        let (scheme, rest) = (&text[..colon], &text[colon + 1..]);
        let marks = Marks::of(rest).ok_or(Malformed::new(scheme.len() + 1, "uri > character"))?;
        let mut uri = Uri { text, scheme, user: "", host: "", port: None, params: Params(""), headers: None };
        if uri.is_sip() {
            return uri.sip(rest, &marks);
        }
        if uri.is_tel() {
            let end = rest.find(';').unwrap_or(rest.len());
            uri.user = &rest[..end];
            uri.params = Params(&rest[end..]);
            if uri.user.is_empty() {
                return Err(Malformed::new(4, "uri > tel > number"));
            }
        }
        Ok(uri)
    }

    fn sip(mut self, rest: &'a str, marks: &Marks) -> Result<Self, Malformed> {
        let end = marks.question.unwrap_or(rest.len());
        self.headers = marks.question.map(|question| &rest[question + 1..]);
        // A password is no part of the user.
        self.user = marks.at.map_or("", |at| &rest[..marks.colon.map_or(at, |colon| colon.min(at))]);
        let host_at = marks.at.map_or(0, |at| at + 1);
        let host_end = marks.semicolon.map_or(end, |semicolon| semicolon.min(end));
        let colon = marks.port.filter(|colon| *colon < host_end).map(|colon| colon - host_at);
        let (host, port) = host_and_port(&rest[host_at..host_end], colon).ok_or(Malformed::new(0, "uri > sip > hostport"))?;
        (self.host, self.port, self.params) = (host, port, Params(&rest[host_end..end]));
        Ok(self)
    }

    /// Whether the scheme is `sip` or `sips`.
    pub fn is_sip(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sip") || self.is_sips()
    }

    pub fn is_sips(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("sips")
    }

    pub fn is_tel(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("tel")
    }

    /// Whether two URIs are equivalent (RFC 3261 §19.1.4; RFC 3966 §4 for TEL; any other scheme octet for octet).
    pub fn same_as(&self, other: &Uri<'_>) -> bool {
        if !self.scheme.eq_ignore_ascii_case(other.scheme) {
            return false;
        }
        if self.is_tel() {
            return digits(self.user).eq(digits(other.user)) && same_params(self.params, other.params, &[]);
        }
        if !self.is_sip() {
            return self.text == other.text;
        }
        decode(self.user) == decode(other.user)
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port == other.port
            && same_params(self.params, other.params, &["user", "ttl", "method", "maddr", "transport"])
            && same_headers(self.headers, other.headers)
    }
}

/// Splits what no octet that parts a URI stands in but for its first `:`, which is at `colon`.
fn host_and_port(text: &str, colon: Option<usize>) -> Option<(&str, Option<u16>)> {
    match colon {
        _ if text.starts_with('[') || text.is_empty() => host_port(text),
        None => Some((text, None)),
        Some(colon) => match port(&text.as_bytes()[colon + 1..]) {
            Some(port) if colon > 0 => Some((&text[..colon], Some(port))),
            _ => host_port(text),
        },
    }
}

/// RFC 3966 §5: visual separators do not count.
fn digits(number: &str) -> impl Iterator<Item = char> + '_ {
    number.chars().filter(|letter| !"-.()".contains(*letter)).map(|letter| letter.to_ascii_lowercase())
}

/// A parameter that stands in both must have the same value; one of `telling` must stand in both or neither. Of TEL every
/// parameter tells.
fn same_params(one: Params<'_>, other: Params<'_>, telling: &[&str]) -> bool {
    let half = |one: Params<'_>, other: Params<'_>| {
        one.iter().all(|(name, value)| match other.find(name) {
            Some(found) => match (value, found) {
                (Some(value), Some(found)) => decode(value).eq_ignore_ascii_case(&decode(found)),
                (value, found) => value.unwrap_or("") == found.unwrap_or(""),
            },
            None => !telling.is_empty() && !telling.iter().any(|tells| tells.eq_ignore_ascii_case(name)),
        })
    };
    half(one, other) && half(other, one)
}

/// Headers count, in any order.
fn same_headers(one: Option<&str>, other: Option<&str>) -> bool {
    let sorted = |headers: Option<&str>| {
        let mut parts: Vec<String> = headers.unwrap_or("").split('&').map(|part| decode(part).to_ascii_lowercase()).collect();
        parts.sort();
        parts
    };
    one == other || sorted(one) == sorted(other)
}

/// RFC 3986 §2.1: undoes percent-encoding. An escape that is none, and octets that are not UTF-8, stay as they are.
pub fn decode(text: &str) -> Cow<'_, str> {
    let Some(first) = memchr::memchr(b'%', text.as_bytes()) else { return Cow::Borrowed(text) };
    let octets = text.as_bytes();
    let mut plain = Vec::with_capacity(octets.len());
    plain.extend_from_slice(&octets[..first]);
    let mut at = first;
    while at < octets.len() {
        // A percent sign stands at `at`.
        let escape = octets.get(at + 1..at + 3).and_then(hex_octet);
        plain.push(escape.unwrap_or(b'%'));
        at += if escape.is_some() { 3 } else { 1 };
        let next = memchr::memchr(b'%', &octets[at..]).map_or(octets.len(), |length| at + length);
        plain.extend_from_slice(&octets[at..next]);
        at = next;
    }
    String::from_utf8(plain).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn hex_octet(digits: &[u8]) -> Option<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    Some((digit(digits[0])? << 4 | digit(digits[1])?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_of_all_schemes_read() {
        let uri = Uri::parse("sip:bob;x@[::1]:5070;lr;transport=tcp?Subject=hi").unwrap();
        assert_eq!((uri.user, uri.host, uri.port), ("bob;x", "[::1]", Some(5070)));
        assert_eq!(uri.params.value("transport"), Some("tcp"));
        assert_eq!(uri.headers, Some("Subject=hi"));
        assert_eq!(Uri::parse("tel:+1-201;phone-context=x").unwrap().user, "+1-201");
        assert_eq!(Uri::parse("mailto:bob@ex.org").unwrap().scheme, "mailto");
        assert!(Uri::parse("sip:").is_err());
        assert!(Uri::parse("nothing").is_err());
    }

    #[test]
    fn percent_encoding_is_undone() {
        assert_eq!(decode("urn%3Aurn-7%3a3gpp"), "urn:urn-7:3gpp");
        for text in ["plain", "%", "%4", "%zz", "%ff", "100%"] {
            assert_eq!(decode(text), text);
        }
    }

    #[test]
    fn the_examples_of_section_19_1_4_compare_as_printed() {
        let same = |one, other| Uri::parse(one).unwrap().same_as(&Uri::parse(other).unwrap());
        for (one, other) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            ),
            ("tel:+1-201-555-0123", "TEL:+12015550123"),
        ] {
            assert!(same(one, other) && same(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("tel:7042;phone-context=a.example", "tel:7042"),
        ] {
            assert!(!same(one, other) && !same(other, one), "{one} {other}");
        }
    }
}
