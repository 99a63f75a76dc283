//! RFC 4975 §6: MSRP URIs and their comparison.

use crate::msrp::leg::Matching;
use std::net::IpAddr;

/// The parts of "msrp://user@host:port/session-id;tcp;parameter".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uri<'a> {
    /// "msrps": TLS on this hop.
    pub tls: bool,
    /// Without the brackets of an IPv6 address.
    pub host: &'a str,
    pub port: Option<u16>,
    pub session_id: Option<&'a str>,
    pub transport: &'a str,
}

impl<'a> Uri<'a> {
    /// Reads a URI; none where it is not an MSRP URI.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (scheme, rest) = cut(text, b':')?;
        let tls = match scheme {
            scheme if scheme.eq_ignore_ascii_case("msrp") => false,
            scheme if scheme.eq_ignore_ascii_case("msrps") => true,
            _ => return None,
        };
        let (resource, parameters) = cut(rest.strip_prefix("//")?, b';')?;
        let transport = cut(parameters, b';').map_or(parameters, |(transport, _)| transport);
        if transport.is_empty() {
            return None;
        }
        let (authority, session_id) = match cut(resource, b'/') {
            Some((authority, id)) => (authority, (!id.is_empty()).then_some(id)),
            None => (resource, None),
        };
        let host_port = authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port);
        let (host, port) = split_host_port(host_port)?;
        (!host.is_empty()).then_some(Self { tls, host, port, session_id, transport })
    }

    /// RFC 4975 §6.1.
    pub fn is_equivalent(&self, other: &Uri<'_>) -> bool {
        self.tls == other.tls
            && hosts_equal(self.host, other.host)
            && self.port == other.port
            && self.session_id == other.session_id
            && self.transport.eq_ignore_ascii_case(other.transport)
    }

    /// Whether a To-Path means the session of which `self` is our URI (CR 5.2.1.4).
    pub fn is_matched_by(&self, to_path: &Uri<'_>, matching: Matching) -> bool {
        match matching {
            Matching::Strict => self.is_equivalent(to_path),
            // CR 5.2.1.4.1: boxes on the way rewrite host and port; the session id is random, so knowing it is enough.
            Matching::SessionId => self.session_id == to_path.session_id,
        }
    }
}

/// The URIs of a To-Path or From-Path.
pub fn path(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&octet| octet == b' ').filter(|uri| !uri.is_empty())
}

/// What stands before and behind the first `at`.
fn cut(text: &str, at: u8) -> Option<(&str, &str)> {
    let at = memchr::memchr(at, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

fn split_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    match cut(text, b':') {
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((text, None)),
    }
}

/// Addresses by value, names without regard to case, percent-encoded unreserved characters decoded first.
fn hosts_equal(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    if let (Ok(one), Ok(other)) = (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        return one == other;
    }
    decoded(one).eq(decoded(other))
}

fn decoded(host: &str) -> impl Iterator<Item = u8> + '_ {
    let mut rest = host.as_bytes();
    std::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        if let (b'%', [high, low, tail @ ..]) = (first, after)
            && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        {
            let octet = (high * 16 + low) as u8;
            if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~') {
                rest = tail;
                return Some(octet.to_ascii_lowercase());
            }
        }
        rest = after;
        Some(first.to_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        Uri::parse(one.as_bytes()).unwrap().is_equivalent(&Uri::parse(other.as_bytes()).unwrap())
    }

    #[test]
    fn comparison_follows_section_6_1() {
        let base = "msrp://host.example.com:8493/asfd34;tcp";
        for (other, equal) in [
            ("MSRP://Host.Example.COM:8493/asfd34;TCP", true),
            ("msrp://joe@host.example.com:8493/asfd34;tcp", true),
            ("msrp://h%6fst.example.com:8493/asfd34;tcp", true),
            ("msrp://host.example.com:8493/asfd34;tcp;extra=1", true),
            ("msrps://host.example.com:8493/asfd34;tcp", false),
            ("msrp://host.example.com:8493/ASFD34;tcp", false),
            ("msrp://host.example.com:8494/asfd34;tcp", false),
            ("msrp://host.example.com/asfd34;tcp", false),
            ("msrp://host.example.com:8493;tcp", false),
            ("msrp://host.example.com:8493/asfd34;sctp", false),
        ] {
            assert_eq!(same(base, other), equal, "{other}");
        }
        assert!(same("msrp://[2001:db8::1]:9/abcd;tcp", "msrp://[2001:DB8:0:0::1]:9/abcd;tcp"));
    }

    #[test]
    fn legacy_matching_looks_at_the_session_id_alone() {
        let own = Uri::parse(b"msrp://10.0.0.1:2855/00abcdef;tcp").unwrap();
        let seen = Uri::parse(b"msrp://192.0.2.7:9999/00abcdef;tcp").unwrap();
        assert!(own.is_matched_by(&seen, Matching::SessionId));
        assert!(!own.is_matched_by(&seen, Matching::Strict));
        let other = Uri::parse(b"msrp://10.0.0.1:2855/00abcdeF;tcp").unwrap();
        assert!(!own.is_matched_by(&other, Matching::SessionId));
    }

    #[test]
    fn what_is_no_msrp_uri_is_refused() {
        for text in [
            "",
            "sip:a@b",
            "msrp:/x;tcp",
            "msrp://h:9/x",
            "msrp://h:99999/x;tcp",
            "msrp://[::1:9/x;tcp",
            "msrp://:9/x;tcp",
            "msrp://h:9/x;",
        ] {
            assert_eq!(Uri::parse(text.as_bytes()), None, "{text}");
        }
    }
}
