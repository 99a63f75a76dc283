//! RFC 3261 §8.2.6: the head that every response has from its request.

use super::header::name::Name;
use super::header::via;
use super::message::{Message, Request};
use super::write::Writer;
use std::net::SocketAddr;

/// Begins a response: status line; Via values with `received` and `rport` for the sender at `peer`; From, To, Call-ID,
/// CSeq; Timestamp in a 100. To gets `tag` where it has none, unless the response is a 100.
/// The caller adds its fields and ends with [`Writer::body`].
pub fn response<'b>(
    request: &Request,
    peer: SocketAddr,
    status: u16,
    reason: &str,
    tag: &str,
    buffer: &'b mut Vec<u8>,
) -> Writer<'b> {
    let mut writer = Writer::response(buffer, status, reason);
    vias(request, peer, &mut writer);
    copy(request, Name::From, &mut writer);
    let to = request.header(Name::To).unwrap_or("");
    if status > 100 && !tag.is_empty() && request.to().is_ok() && request.to_tag().is_none() {
        writer.parts(Name::To, &[to, ";tag=", tag]);
    } else {
        writer.field(Name::To, to);
    }
    copy(request, Name::CallId, &mut writer);
    copy(request, Name::CSeq, &mut writer);
    if status == 100 {
        copy(request, Name::Timestamp, &mut writer);
    }
    writer
}

/// All Via values in order, the first with where it came from (§18.2.1).
pub fn vias(request: &Message, peer: SocketAddr, writer: &mut Writer<'_>) {
    for (at, line) in request.lines(Name::Via).enumerate() {
        if at > 0 {
            writer.field(Name::Via, line);
            continue;
        }
        // Of a list, what stands before the first comma.
        let end = super::header::unquoted(line, b',').unwrap_or(line.len());
        let (top, rest) = line.split_at(line[..end].trim_ascii_end().len());
        writer.with(Name::Via, |buffer| {
            via::write_received(top, peer, buffer);
            buffer.extend_from_slice(rest.as_bytes());
        });
    }
}

/// Copies every line of a header (Record-Route in a response that makes a dialog, §12.1.1).
pub fn copy(message: &Message, name: Name, writer: &mut Writer<'_>) {
    for line in message.lines(name) {
        writer.field(name, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_the_head_of_its_request() {
        let request = Request::parse(
            b"INVITE sip:b@x SIP/2.0\r\nv: SIP/2.0/UDP a.example:5070;rport;branch=z9hG4bK1 , SIP/2.0/UDP b;branch=z9hG4bK2\r\n\
            Via: SIP/2.0/TCP c;branch=z9hG4bK3\r\nf: <sip:a@x>;tag=1\r\nt: B <sip:b@x>\r\ni: c1\r\nCSeq: 1 INVITE\r\nTimestamp: 54\r\n\r\n",
        )
        .unwrap();
        let peer = "192.0.2.1:4321".parse().unwrap();
        let mut octets = Vec::new();
        response(&request, peer, 100, "Trying", "t", &mut octets).body(b"");
        response(&request, peer, 486, "Busy Here", "t", &mut octets).body(b"");
        let vias = "Via: SIP/2.0/UDP a.example:5070;rport=4321;branch=z9hG4bK1;received=192.0.2.1 , SIP/2.0/UDP b;branch=z9hG4bK2\r\n\
            Via: SIP/2.0/TCP c;branch=z9hG4bK3\r\nFrom: <sip:a@x>;tag=1\r\nTo: B <sip:b@x>";
        let expected = format!(
            "SIP/2.0 100 Trying\r\n{vias}\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\nTimestamp: 54\r\nContent-Length: 0\r\n\r\n\
            SIP/2.0 486 Busy Here\r\n{vias};tag=t\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(String::from_utf8(octets).unwrap(), expected);
    }
}
