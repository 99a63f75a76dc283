//! RFC 3261 §21.4.11, §21.5.4, §21.5.7: answers to requests that are too large to be taken or framed, or of an address that sends
//! too many, built from their head alone.

use crate::sip::message::Request;
use crate::sip::method::Method;
use crate::sip::reply;
use std::net::SocketAddr;

/// The answer to a request of which only the head is good; none: it is a response, an ACK, or no head at all.
pub fn answer(head: &[u8], peer: SocketAddr, status: u16) -> Option<Vec<u8>> {
    let request = Request::parse(&without_length(head)).ok()?;
    if request.method() == Method::Ack {
        return None;
    }
    let reason = match status {
        413 => "Request Entity Too Large",
        503 => "Service Unavailable",
        513 => "Message Too Large",
        _ => "Bad Request",
    };
    let mut octets = Vec::with_capacity(512);
    // No transaction stands behind it: the tag need not be found again.
    reply::response(&request, peer, status, reason, "too-large", &mut octets).body(b"");
    Some(octets)
}

/// The answer to a datagram above the limit, whole or cut.
pub fn too_large(datagram: &[u8], peer: SocketAddr) -> Option<Vec<u8>> {
    let end = memchr::memmem::find(datagram, b"\r\n\r\n")?;
    answer(&datagram[..end + 4], peer, 513)
}

/// The answer to a request of an address that sends too many.
pub fn too_many(message: &[u8], peer: SocketAddr) -> Option<Vec<u8>> {
    let end = memchr::memmem::find(message, b"\r\n\r\n")?;
    answer(&message[..end + 4], peer, 503)
}

/// The head with its Content-Length taken out, which speaks of a body that is not there.
fn without_length(head: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(head.len());
    let mut dropping = false;
    for line in head.split_inclusive(|octet| *octet == b'\n') {
        let name = line.split(|octet| *octet == b':').next().unwrap_or_default().trim_ascii();
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        dropping =
            if folded { dropping } else { name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"l") };
        if !dropping {
            kept.extend_from_slice(line);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_answered_and_an_ack_is_not() {
        let head = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=1\r\nTo: <sip:a@b>\r\n\
            Call-ID: i\r\nCSeq: 1 OPTIONS\r\nContent-Length: 99999999\r\n\r\n";
        let peer = "127.0.0.1:5070".parse().unwrap();
        let text = String::from_utf8(answer(head.as_bytes(), peer, 413).unwrap()).unwrap();
        assert!(text.starts_with("SIP/2.0 413 Request Entity Too Large\r\nVia: SIP/2.0/TCP c;branch=z9hG4bK1"), "{text}");
        assert_eq!(answer(head.replace("OPTIONS", "ACK").as_bytes(), peer, 413), None);
        assert_eq!(answer(b"SIP/2.0 200 OK\r\n\r\n", peer, 413), None);
        assert_eq!(too_large(b"garbage", peer), None);
    }
}
