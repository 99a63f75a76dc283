//! RFC 3261 §20.42, RFC 3581: Via.

use super::params::Params;
use crate::base::transport::{Destination, Flow, Target, Transport};
use crate::sip::message::Malformed;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

/// One Via value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Via<'a> {
    /// "UDP", "TCP", "TLS" … as written.
    pub transport: &'a str,
    /// Host of sent-by; an IPv6 reference keeps its brackets.
    pub host: &'a str,
    /// Port of sent-by, where one is given.
    pub port: Option<u16>,
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// # Errors: [`Malformed`] where protocol or sent-by cannot be read.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        const SENT_PROTOCOL: Malformed = Malformed::new(0, "header > via > sent-protocol");
        const SENT_BY: Malformed = Malformed::new(0, "header > via > sent-by");
        let rest = match text.strip_prefix("SIP/2.0/") {
            Some(rest) => rest,
            None => past_protocol(text).ok_or(SENT_PROTOCOL)?,
        };
        let rest = rest.trim_ascii_start();
        let end = rest.bytes().position(|octet| octet.is_ascii_whitespace()).ok_or(SENT_PROTOCOL)?;
        let (transport, rest) = (&rest[..end], rest[end..].trim_ascii_start());
        let end = memchr::memchr(b';', rest.as_bytes()).unwrap_or(rest.len());
        let (host, port) = host_port(rest[..end].trim_ascii_end()).ok_or(SENT_BY)?;
        Ok(Self { transport, host, port, params: Params(&rest[end..]) })
    }

    pub fn branch(&self) -> Option<&'a str> {
        self.params.value("branch")
    }

    /// The port of sent-by, or the default one of its transport (§18.2.2, §19.1.2).
    pub fn port_or_default(&self) -> u16 {
        self.port.unwrap_or(if self.transport.eq_ignore_ascii_case("TLS") { 5061 } else { 5060 })
    }

    /// Where the response to a request with this top Via goes, when the request came on `flow` (§18.2.2, RFC 3581 §4).
    pub fn response_destination(&self, flow: &Flow) -> Destination {
        let ip = flow.peer.ip();
        let port = self.port_or_default();
        if flow.transport != Transport::Udp {
            // A connection that is gone is opened anew to the source address and the port of sent-by.
            let fallback = Target { transport: flow.transport, address: SocketAddr::new(ip, port), server_name: None };
            return Destination::Flow { flow: *flow, fallback: Some(Box::new(fallback)) };
        }
        if let Some(maddr) = self.params.value("maddr").and_then(address) {
            let address = SocketAddr::new(maddr, port);
            return Destination::Target(Target { transport: Transport::Udp, address, server_name: None });
        }
        let peer = if self.params.has("rport") { flow.peer } else { SocketAddr::new(ip, port) };
        Destination::Flow { flow: Flow { peer, ..*flow }, fallback: None }
    }

    /// As [`write_received`]; `value` is what this was read from.
    pub fn write_received(&self, value: &str, peer: SocketAddr, buffer: &mut Vec<u8>) {
        let head = &value[..value.len() - self.params.0.len()];
        buffer.extend_from_slice(head.trim_ascii_end().as_bytes());
        let mut asked = false;
        for (name, content) in self.params.iter() {
            if name.eq_ignore_ascii_case("received") {
                continue;
            }
            if name.eq_ignore_ascii_case("rport") {
                if !asked {
                    buffer.extend_from_slice(b";rport=");
                    buffer.extend_from_slice(itoa::Buffer::new().format(peer.port()).as_bytes());
                }
                asked = true;
                continue;
            }
            buffer.push(b';');
            buffer.extend_from_slice(name.as_bytes());
            if let Some(content) = content {
                buffer.push(b'=');
                buffer.extend_from_slice(content.as_bytes());
            }
        }
        let ip = peer.ip().to_canonical();
        if asked || address(self.host).map(|host| host.to_canonical()) != Some(ip) {
            let _ = write!(buffer, ";received={ip}");
        }
    }
}

/// What follows "SIP / 2.0 /", in whatever case and with whatever space between.
fn past_protocol(text: &str) -> Option<&str> {
    let (name, rest) = text.split_once('/')?;
    let (version, rest) = rest.split_once('/')?;
    (name.trim_ascii().eq_ignore_ascii_case("SIP") && version.trim_ascii() == "2.0").then_some(rest)
}

/// Reads an IP address; an IPv6 one with or without brackets (RFC 5118 §4.5).
pub fn address(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    text.parse().ok()
}

/// Writes the top Via value of a request that came from `peer` as the server transport passes it on (§18.2.1, RFC 3581
/// §4): `received` where sent-by is not that address or `rport` was asked for, `rport` filled in. What the sender itself
/// claimed in either is dropped.
pub fn write_received(value: &str, peer: SocketAddr, buffer: &mut Vec<u8>) {
    match Via::parse(value) {
        Ok(via) => via.write_received(value, peer, buffer),
        Err(_) => buffer.extend_from_slice(value.as_bytes()),
    }
}

/// Splits "host:port", "[v6]:port", "host", with white space allowed around the colon.
pub(crate) fn host_port(text: &str) -> Option<(&str, Option<u16>)> {
    // As nearly all write it: a name or an IPv4 address, and digits behind the colon.
    let octets = text.as_bytes();
    let host = octets.iter().position(|octet| PARTS_HOST[usize::from(*octet)]).unwrap_or(octets.len());
    match octets[host..] {
        [] if host > 0 => Some((text, None)),
        [b':', ref digits @ ..] if host > 0 => match port(digits) {
            Some(port) => Some((&text[..host], Some(port))),
            None => bracketed_host_port(text),
        },
        _ => bracketed_host_port(text),
    }
}

/// One to five digits that are a port.
pub(crate) fn port(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 {
        return None;
    }
    let number = digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')));
    u16::try_from(number?).ok()
}

/// The same where brackets or white space stand, or nothing that is right.
fn bracketed_host_port(text: &str) -> Option<(&str, Option<u16>)> {
    let colon = match text.strip_prefix('[') {
        Some(inner) => {
            let close = inner.find(']')? + 1;
            text.bytes().skip(close + 1).position(|octet| octet == b':').map(|at| close + 1 + at)
        }
        None => text.bytes().position(|octet| octet == b':'),
    };
    let (host, port) = match colon {
        Some(at) => (text[..at].trim_ascii_end(), Some(text[at + 1..].trim_ascii().parse::<u16>().ok()?)),
        None => (text, None),
    };
    let plain = !host.is_empty() && !host.bytes().any(|octet| NOT_OF_HOST[usize::from(octet)]);
    plain.then_some((host, port))
}

/// What ends a host that is a name or an IPv4 address, and the bracket that begins another.
const PARTS_HOST: [bool; 256] = {
    let mut table = NOT_OF_HOST;
    table[b':' as usize] = true;
    table[b'[' as usize] = true;
    table
};

/// White space, and what parts a header.
const NOT_OF_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        table[octet] = (octet as u8).is_ascii_whitespace() || matches!(octet as u8, b'<' | b'>' | b'"');
        octet += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn received(value: &str, peer: &str) -> String {
        let mut buffer = Vec::new();
        write_received(value, peer.parse().unwrap(), &mut buffer);
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn received_and_rport_tell_where_a_request_came_from() {
        assert_eq!(received("SIP/2.0/UDP 192.0.2.1;branch=a", "192.0.2.1:5060"), "SIP/2.0/UDP 192.0.2.1;branch=a");
        assert_eq!(
            received("SIP/2.0/UDP h.example ;branch=a", "192.0.2.1:9"),
            "SIP/2.0/UDP h.example;branch=a;received=192.0.2.1"
        );
        assert_eq!(
            received("SIP / 2.0 / UDP 192.0.2.1:7;rport;received=6.6.6.6;branch=a", "192.0.2.1:9"),
            "SIP / 2.0 / UDP 192.0.2.1:7;rport=9;branch=a;received=192.0.2.1"
        );
        assert_eq!(received("SIP/2.0/TCP [2001:db8::1];branch=a", "[2001:db8::1]:9"), "SIP/2.0/TCP [2001:db8::1];branch=a");
        assert_eq!(received("rubbish", "192.0.2.1:9"), "rubbish");
    }

    #[test]
    fn a_response_goes_where_its_via_says() {
        let flow = |transport| Flow { transport, core: 0, listener: 0, connection: 3, peer: "192.0.2.1:4321".parse().unwrap() };
        let to = |text: &str, transport| Via::parse(text).unwrap().response_destination(&flow(transport));
        let address = |to: Destination| match to {
            Destination::Flow { flow, .. } => flow.peer.to_string(),
            Destination::Target(target) => target.address.to_string(),
        };
        assert_eq!(address(to("SIP/2.0/UDP a;branch=b", Transport::Udp)), "192.0.2.1:5060");
        assert_eq!(address(to("SIP/2.0/UDP a:5070;branch=b", Transport::Udp)), "192.0.2.1:5070");
        assert_eq!(address(to("SIP/2.0/UDP a:5070;rport;branch=b", Transport::Udp)), "192.0.2.1:4321");
        assert_eq!(address(to("SIP/2.0/UDP a:5070;maddr=192.0.2.9;branch=b", Transport::Udp)), "192.0.2.9:5070");
        let Destination::Flow { fallback: Some(fallback), flow } = to("SIP/2.0/TLS a;branch=b", Transport::Tls) else {
            panic!("a response goes back on its connection")
        };
        assert_eq!((flow.peer.port(), fallback.address.port()), (4321, 5061));
    }
}
