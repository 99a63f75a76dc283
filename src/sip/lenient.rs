//! RFC 3261 §8.2.6, RFC 4475: the answer to a request that could not be parsed, made of those fields that can still be found.
//!
//! They are text here and nothing more: Via, From, To, Call-ID and CSeq go back as they came, with folded lines joined.

use super::header::name::Name;
use super::header::via::{self, Via};
use super::header::{list, unquoted};
use super::ids;
use super::message::past_empty_lines;
use super::write::Writer;
use crate::base::transport::{Destination, Flow, Target};
use crate::limits::{SIP_FIELDS_MAX, SIP_HEAD_OCTETS_MAX};
use std::net::SocketAddr;

/// Writes the answer of core `shard` to a request from its octets (whole, or as much of the head as came), and tells where it goes.
/// None: it is a response, an ACK, or nothing with a Via; nothing was written.
pub fn refuse(octets: &[u8], flow: &Flow, shard: u8, status: u16, reason: &str, buffer: &mut Vec<u8>) -> Option<Destination> {
    let octets = past_empty_lines(&octets[..octets.len().min(SIP_HEAD_OCTETS_MAX)]);
    let method = octets.split(|octet| octet.is_ascii_whitespace()).next()?;
    if method.eq_ignore_ascii_case(b"ACK") || method.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"SIP/")) {
        return None;
    }
    let fields = fields(octets);
    let (_, line) = fields.iter().find(|(name, _)| *name == Name::Via)?;
    let top = list(line).next()?;
    let to = destination(top, flow);
    let value = |name| fields.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
    let tag = ids::stateless_tag(shard, &[top, value(Name::From), value(Name::CallId), value(Name::CSeq)]);
    let mut writer = Writer::response(buffer, status, reason);
    let mut vias = 0;
    for (_, line) in fields.iter().filter(|(name, _)| *name == Name::Via) {
        for value in list(line) {
            writer.with(Name::Via, |buffer| match vias {
                0 => via::write_received(value, flow.peer, buffer),
                _ => buffer.extend_from_slice(value.as_bytes()),
            });
            vias += 1;
        }
    }
    for name in [Name::From, Name::To, Name::CallId, Name::CSeq] {
        let Some((_, value)) = fields.iter().find(|(known, _)| *known == name) else { continue };
        if name == Name::To && !has_tag(value) {
            writer.format(name, format_args!("{value};tag={tag}"));
        } else {
            writer.field(name, value);
        }
    }
    writer.body(b"");
    Some(to)
}

/// Where the answer goes: by the top Via, or back where the request came from.
fn destination(top: &str, flow: &Flow) -> Destination {
    match Via::parse(top) {
        Ok(via) => via.response_destination(flow),
        Err(_) if flow.transport.reliable() => {
            let address = SocketAddr::new(flow.peer.ip(), 5060);
            Destination::Flow {
                flow: *flow,
                fallback: Some(Box::new(Target { transport: flow.transport, address, server_name: None })),
            }
        }
        Err(_) => Destination::Flow { flow: *flow, fallback: None },
    }
}

fn has_tag(value: &str) -> bool {
    let params = unquoted(value, b';').map_or("", |at| &value[at..]);
    params.split(';').any(|param| param.trim_ascii_start().get(..3).is_some_and(|name| name.eq_ignore_ascii_case("tag")))
}

/// Fields that can be told apart, each on one line. What is not UTF-8 is replaced, so that the answer is.
fn fields(octets: &[u8]) -> Vec<(Name, String)> {
    let mut fields: Vec<(Name, String)> = Vec::new();
    for line in octets.split(|octet| *octet == b'\n').skip(1).take(SIP_FIELDS_MAX) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let folded = matches!(line[0], b' ' | b'\t');
        match (folded, fields.last_mut(), memchr::memchr(b':', line)) {
            (true, Some((_, value)), _) => {
                value.push(' ');
                value.push_str(&clean(line));
            }
            (false, _, Some(colon)) => fields.push((Name::of(line[..colon].trim_ascii_end()), clean(&line[colon + 1..]))),
            _ => {}
        }
    }
    fields
}

/// A value in which nothing can end a line.
fn clean(octets: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(octets.trim_ascii()).into_owned();
    text.retain(|letter| !matches!(letter, '\r' | '\n' | '\0'));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;

    fn refused(text: &str, status: u16) -> Option<(String, Destination)> {
        let flow =
            Flow { transport: Transport::Udp, core: 0, listener: 0, connection: 0, peer: "192.0.2.1:4000".parse().unwrap() };
        let mut octets = Vec::new();
        let to = refuse(text.as_bytes(), &flow, 1, status, "No", &mut octets)?;
        Some((String::from_utf8(octets).unwrap(), to))
    }

    #[test]
    fn a_400_is_built_from_what_can_be_read() {
        let text = "INVITE <sip:b@x> SIP/2.0\r\nrubbish\r\nv: SIP/2.0/UDP\r\n a.example;branch=z9hG4bK1,SIP/2.0/UDP b\r\nTo: \"open <sip:b@x>\r\n\
            f: <sip:a@x>;tag=1\r\nCSeq: 1 INVITE\r\nCall-ID: c";
        let (answer, to) = refused(text, 400).unwrap();
        assert_eq!(refused(text, 400).unwrap().0, answer);
        let at = answer.find("tag=01.").unwrap();
        let answer = answer.replace(&answer[at..at + 21], "tag=t");
        assert_eq!(
            answer,
            "SIP/2.0 400 No\r\nVia: SIP/2.0/UDP a.example;branch=z9hG4bK1;received=192.0.2.1\r\nVia: SIP/2.0/UDP b\r\nFrom: <sip:a@x>;tag=1\r\n\
            To: \"open <sip:b@x>;tag=t\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        assert!(matches!(to, Destination::Flow { flow, .. } if flow.peer.port() == 5060));
    }

    #[test]
    fn another_version_is_answered_where_it_came_from() {
        let (answer, to) =
            refused("OPTIONS sip:x SIP/7.0\r\nVia: SIP/7.0/UDP c;branch=z9\r\nTo: <sip:x>;tag=q\r\n\r\n", 505).unwrap();
        assert_eq!(answer, "SIP/2.0 505 No\r\nVia: SIP/7.0/UDP c;branch=z9\r\nTo: <sip:x>;tag=q\r\nContent-Length: 0\r\n\r\n");
        assert!(matches!(to, Destination::Flow { flow, .. } if flow.peer.port() == 4000));
    }

    #[test]
    fn responses_acks_and_noise_get_no_answer() {
        for text in [
            "",
            "SIP/2.0 999 x\r\nVia: SIP/2.0/UDP c\r\n\r\n",
            "ACK x SIP/2.0\r\nVia: SIP/2.0/UDP c\r\n\r\n",
            "BYE x\r\nTo: y\r\n\r\n",
        ] {
            assert!(refused(text, 400).is_none(), "{text}");
        }
    }
}
