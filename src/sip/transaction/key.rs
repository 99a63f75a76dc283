//! RFC 3261 §17.2.3: which server transaction a request belongs to. (Client transactions are found by their branch,
//! §17.1.3, which carries their slab key: `sip::ids`.)
//!
//! ```text
//! branch with the magic cookie     3 | branch | sent-by host : port | method       the method of ACK and CANCEL is INVITE
//! any other (RFC 2543)             2 | Call-ID | CSeq number | From tag | Request-URI | top Via | method
//! ```
//! The To tag, which §17.2.3 compares for an RFC 2543 ACK, is compared with what was sent once the transaction is found.

use crate::sip::header::name::Name;
use crate::sip::header::via::Via;
use crate::sip::ids::MAGIC_COOKIE;
use crate::sip::message::{Incoming, Malformed, Request};
use crate::sip::method::Method;
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher};

/// What cannot stand in any part, so that two keys with different parts never read the same.
const BETWEEN: char = '\n';

/// Writes the key of the transaction a request belongs to into `text`, which is emptied first. An ACK or CANCEL has the
/// key of its INVITE.
///
/// # Errors
/// [`Malformed`] where a header it is made of is missing or cannot be read.
pub fn server(request: &Request, text: &mut String) -> Result<(), Malformed> {
    text.clear();
    let via = request.top_via()?;
    let method = match request.method() {
        Method::Ack | Method::Cancel => Method::Invite.as_str(),
        _ => request.method_str(),
    };
    if by_branch(&via, method, text) {
        return Ok(());
    }
    let via = request.values(Name::Via).next().unwrap_or("");
    request.from()?;
    let from_tag = request.from_tag().unwrap_or("");
    let _ = write!(
        text,
        "2{BETWEEN}{}{BETWEEN}{}{BETWEEN}{from_tag}{BETWEEN}{}{BETWEEN}{via}{BETWEEN}{method}",
        request.call_id()?,
        request.cseq()?.number,
        request.uri(),
    );
    Ok(())
}

/// The key of the server transaction an unparsed request belongs to, as one number: the same in every process, so that one can be
/// told what another has. None: no request, or one without a key.
pub fn number(octets: &[u8]) -> Option<u64> {
    let Ok(Incoming::Request(request)) = Incoming::parse(octets) else { return None };
    let mut text = String::new();
    server(&request, &mut text).ok()?;
    Some(number_of(&text))
}

/// The number of a key that [`server`] wrote (FNV-1a).
pub fn number_of(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

/// The same from the top Via alone; false: it takes the rest of the request to tell.
pub fn by_branch(via: &Via<'_>, method: &str, text: &mut String) -> bool {
    let Some(branch) = via.branch().filter(|branch| branch.len() > MAGIC_COOKIE.len() && has_cookie(branch)) else {
        return false;
    };
    text.clear();
    text.extend(['3', BETWEEN]);
    text.push_str(branch);
    text.push(BETWEEN);
    let host = text.len();
    text.push_str(via.host);
    text[host..].make_ascii_lowercase();
    text.push(':');
    text.push_str(itoa::Buffer::new().format(via.port_or_default()));
    text.push(BETWEEN);
    text.push_str(method);
    true
}

/// Whether a branch was made by an RFC 3261 element; the cookie is compared without regard to case (§7.3.1).
pub fn has_cookie(branch: &str) -> bool {
    branch.get(..MAGIC_COOKIE.len()).is_some_and(|cookie| cookie.eq_ignore_ascii_case(MAGIC_COOKIE))
}

/// What two requests share that are one request come by two ways (§8.2.2.2): From tag, Call-ID and CSeq, and no To tag.
/// None: cannot be merged.
pub fn merge(request: &Request, hashes: &impl BuildHasher) -> Option<u64> {
    request.to().ok()?;
    if request.to_tag().is_some() {
        return None;
    }
    let mut hash = hashes.build_hasher();
    for part in [request.from_tag()?, request.call_id().ok()?, request.header(Name::CSeq)?] {
        hash.write(part.as_bytes());
        hash.write_u8(0xff);
    }
    Some(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(method: &str, uri: &str, via: &str) -> String {
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {via}\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 7 {method}\r\n\r\n"
        );
        let mut key = String::new();
        server(&Request::parse(text.as_bytes()).unwrap(), &mut key).unwrap();
        key
    }

    #[test]
    fn an_ack_and_a_cancel_have_the_key_of_their_invite() {
        let via = "Host.example;branch=z9hG4bKa";
        let invite = key("INVITE", "sip:b@x", via);
        assert_eq!(key("ACK", "sip:other@x", "host.example:5060;branch=z9hG4bKa"), invite);
        assert_eq!(key("CANCEL", "sip:b@x", via), invite);
        assert_ne!(key("BYE", "sip:b@x", via), invite);
        assert_ne!(key("INVITE", "sip:b@x", "host.example:5070;branch=z9hG4bKa"), invite);
        assert_ne!(key("INVITE", "sip:b@x", "host.example;branch=z9hG4bKb"), invite);
    }

    #[test]
    fn without_the_cookie_the_rules_of_rfc_2543_hold() {
        let invite = key("INVITE", "sip:b@x", "h;branch=1");
        assert_eq!(key("ACK", "sip:b@x", "h;branch=1"), invite);
        assert_ne!(key("INVITE", "sip:c@x", "h;branch=1"), invite);
        assert_ne!(key("INVITE", "sip:b@x", "h"), invite);
        // RFC 4475 §3.1.1.1 sends a branch of nothing but the cookie.
        assert_eq!(key("INVITE", "sip:b@x", "h;branch=z9hG4bK").as_bytes()[0], b'2');
    }
}
