//! RFC 3261 §8.1.1.7, §12.1, §16.6: the core a message belongs to, read off its octets before anything is parsed.
//!
//! ```text
//! response   top Via branch                                           ours: its core; else nobody's (RFC 6026 §7.2)
//! request    user of the top Route, of the Request-URI, tag of To     ours: its core
//!            none of them ours                                        an initial request: the caller chooses
//! ```

use super::header::name::Name;
use super::header::name_addr::NameAddr;
use super::header::via::Via;
use super::header::{list, unquoted};
use super::ids;
use super::message::past_empty_lines;
use super::method::Method;
use super::uri::Uri;

/// Whose a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The core that made the branch, tag or user part it carries. Whoever forges one may name a core that is not there.
    Core(u8),
    /// A request that names none of our ids: it begins something, or is the CANCEL of one that did.
    Initial(Method),
    /// A response to nothing we sent, or octets that are not SIP.
    Nobody,
}

/// Reads the owner of one framed message.
pub fn of(octets: &[u8]) -> Owner {
    let Some(line) = start_line(octets) else { return Owner::Nobody };
    if line.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("SIP/")) {
        let via = header(octets, Name::Via).and_then(|value| list(value).next());
        let branch = via.and_then(|via| Via::parse(via).ok()).and_then(|via| via.branch());
        return branch.and_then(ids::shard_of_branch).map_or(Owner::Nobody, Owner::Core);
    }
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(uri)) = (words.next(), words.next()) else { return Owner::Nobody };
    request(octets, uri).map_or(Owner::Initial(Method::of(method)), Owner::Core)
}

fn request(octets: &[u8], uri: &str) -> Option<u8> {
    let user = |uri: &str| Uri::parse(uri).ok().and_then(|uri| ids::shard_of_user(uri.user));
    if let Some(core) = user(uri) {
        return Some(core);
    }
    let mut route = None;
    let mut tag = None;
    for (name, value) in headers(octets) {
        match name {
            Name::Route if route.is_none() => route = Some(list(value).next().and_then(|first| NameAddr::parse(first).ok())),
            Name::To if tag.is_none() => tag = Some(NameAddr::parse(value).ok().and_then(|to| to.tag())),
            _ => continue,
        }
        if let (Some(_), Some(_)) = (&route, &tag) {
            break;
        }
    }
    let route = route.flatten().and_then(|route| user(route.uri));
    route.or_else(|| tag.flatten().and_then(ids::shard_of_tag))
}

/// The start line of a message that is not parsed.
pub fn start_line(octets: &[u8]) -> Option<&str> {
    let octets = past_empty_lines(octets);
    let end = memchr::memchr(b'\n', octets)?;
    std::str::from_utf8(octets[..end].trim_ascii_end()).ok()
}

/// The value of the first field of that name in a message that is not parsed (for what an initial request is spread by:
/// P-Served-User, Call-ID …). A folded value keeps its line ends.
pub fn header(octets: &[u8], name: Name) -> Option<&str> {
    headers(octets).find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// The fields of a message that is not parsed, in order; lines that are no field are left out.
pub fn headers(octets: &[u8]) -> impl Iterator<Item = (Name, &str)> {
    headers_of(octets, |_| true)
}

/// The same of fields whose names begin with a letter that is `wanted` (which is asked in lower case): others cost no look.
pub fn headers_of(octets: &[u8], wanted: impl Fn(u8) -> bool) -> impl Iterator<Item = (Name, &str)> {
    let octets = past_empty_lines(octets);
    let mut rest = memchr::memchr(b'\n', octets).map_or(&[][..], |end| &octets[end + 1..]);
    std::iter::from_fn(move || {
        loop {
            let mut end = memchr::memchr(b'\n', rest)?;
            if matches!(rest[..end], [] | [b'\r']) {
                return None;
            }
            while matches!(rest.get(end + 1), Some(b' ' | b'\t')) {
                end += 1 + memchr::memchr(b'\n', &rest[end + 1..])?;
            }
            let field = &rest[..end];
            rest = &rest[end + 1..];
            if !field.first().is_some_and(|letter| wanted(letter.to_ascii_lowercase())) {
                continue;
            }
            let Some(colon) = memchr::memchr(b':', field) else { continue };
            let Ok(value) = std::str::from_utf8(&field[colon + 1..]) else { continue };
            return Some((Name::of(field[..colon].trim_ascii_end()), value.trim_ascii()));
        }
    })
}

/// The user part of a SIP URI inside a name-addr or addr-spec value, without reading more of it.
pub fn user_in(value: &str) -> Option<&str> {
    let inner = match unquoted(value, b'<') {
        Some(open) => value[open + 1..].split('>').next()?,
        None => value.split(';').next()?,
    };
    Uri::parse(inner.trim_ascii()).ok().map(|uri| uri.user).filter(|user| !user.is_empty())
}

/// The signalling core that serves a user, named by the user part of the address.
pub fn core_of(user: &str, cores: u8) -> u8 {
    (hash(user) % u64::from(cores.max(1))) as u8
}

/// FNV-1a over what makes two spellings of a user one: no case, no visual separators of a telephone number.
pub fn hash(text: &str) -> u64 {
    text.bytes()
        .filter(|octet| !matches!(octet, b'-' | b'.' | b'(' | b')'))
        .fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::base::slab::Key;

    #[test]
    fn every_message_finds_its_core() {
        let mut prng = Prng::seeded(5);
        let branch = ids::Branch::new(7, Key::from_u64(9), &mut prng);
        let (user, tag) = (ids::user(4, &mut prng), ids::tag(6, &mut prng));
        let of = |text: String| of(text.as_bytes());
        assert_eq!(
            of(format!("SIP/2.0 200 OK\r\nTo: x\r\nv: SIP/2.0/UDP a;branch={}, SIP/2.0/UDP b\r\n\r\n", branch.as_str())),
            Owner::Core(7)
        );
        assert_eq!(of("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\n\r\n".into()), Owner::Nobody);
        assert_eq!(of(format!("BYE sip:{user}@h SIP/2.0\r\n\r\n")), Owner::Core(4));
        assert_eq!(
            of(format!("BYE sip:bob@h SIP/2.0\r\nTo: <sip:x@y>;tag=z\r\nRoute:\r\n <sip:{user}@h;lr>, <sip:o@h>\r\n\r\n")),
            Owner::Core(4)
        );
        assert_eq!(
            of(format!("ACK sip:bob@h SIP/2.0\r\nRoute: <sip:orig@h;lr>\r\nt: <sip:x@y>;tag={tag}\r\n\r\n")),
            Owner::Core(6)
        );
        assert_eq!(
            of("INVITE sip:bob@h SIP/2.0\r\nRoute: <sip:orig@h;lr>\r\nt: <sip:x@y>\r\n\r\n".into()),
            Owner::Initial(Method::Invite)
        );
        assert_eq!(of(format!("\r\n\r\nBYE sip:{user}@h SIP/2.0\r\n\r\n")), Owner::Core(4));
        for text in ["", "\n", "x\n", "SIP/2.0\n\n"] {
            assert_eq!(of(text.into()), Owner::Nobody, "{text:?}");
        }
    }

    #[test]
    fn a_header_is_found_without_parsing() {
        let octets = b"INVITE sip:bob@h SIP/2.0\r\nP-Served-User: \"A <x>\" <sip:alice@h>;sescase=orig\r\ni: c\r\n\r\nTo: body";
        assert_eq!(header(octets, Name::CallId), Some("c"));
        assert_eq!(header(octets, Name::To), None);
        assert_eq!(header(octets, Name::PServedUser).and_then(user_in), Some("alice"));
    }
}
