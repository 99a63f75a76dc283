//! HEP v3 (draft of the Homer project, "HEP/EEP Encapsulation Protocol"): a copy of every SIP message for a capture server, one
//! datagram each.
//!
//! ```text
//! "HEP3" length:16 | vendor:16 type:16 length:16 value …     lengths count themselves and what stands before them
//! ```
//! The socket never blocks: what it has no room for is dropped and counted. Costs one system call a message, and nothing where
//! no collector is configured.

use crate::base::clock::Instant;
use crate::base::transport::Transport;
use crate::config;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Types of the generic chunks (vendor 0).
mod chunk {
    pub const FAMILY: u16 = 0x0001;
    pub const PROTOCOL: u16 = 0x0002;
    pub const SOURCE_V4: u16 = 0x0003;
    pub const DESTINATION_V4: u16 = 0x0004;
    pub const SOURCE_V6: u16 = 0x0005;
    pub const DESTINATION_V6: u16 = 0x0006;
    pub const SOURCE_PORT: u16 = 0x0007;
    pub const DESTINATION_PORT: u16 = 0x0008;
    pub const SECONDS: u16 = 0x0009;
    pub const MICROSECONDS: u16 = 0x000a;
    pub const KIND: u16 = 0x000b;
    pub const CAPTURE_ID: u16 = 0x000c;
    pub const PAYLOAD: u16 = 0x000f;
    pub const CORRELATION_ID: u16 = 0x0011;
}

/// The kind of payload that is SIP.
const SIP: u8 = 1;

/// Sends copies to a collector.
#[derive(Debug)]
pub struct Hep {
    socket: UdpSocket,
    capture_id: u32,
    buffer: Vec<u8>,
    /// Copies that could not be sent.
    pub dropped: u64,
}

impl Hep {
    /// Towards the collector of a configuration; none where there is none, or no socket towards it.
    pub fn open(wanted: Option<&config::Hep>) -> Option<Self> {
        let wanted = wanted?;
        let any: IpAddr = if wanted.collector.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect(wanted.collector)?;
            Ok(socket)
        });
        match socket {
            Ok(socket) => Some(Self { socket, capture_id: wanted.capture_id, buffer: Vec::new(), dropped: 0 }),
            Err(error) => {
                tracing::error!(%error, collector = %wanted.collector, "no copies go to the HEP collector");
                None
            }
        }
    }

    /// Sends a copy of a message that went from one address to another. `call`: the Call-ID with which its call began, the same
    /// for all legs, by which the server joins them.
    pub fn copy(
        &mut self,
        now: Instant,
        transport: Transport,
        from: SocketAddr,
        to: SocketAddr,
        call: Option<&str>,
        message: &[u8],
    ) {
        self.buffer.clear();
        write(&mut self.buffer, self.capture_id, now, transport, (from, to), call, message);
        // A message larger than any datagram has no copy.
        if self.buffer.len() > usize::from(u16::MAX) || self.socket.send(&self.buffer).is_err() {
            self.dropped += 1;
        }
    }
}

fn write(
    buffer: &mut Vec<u8>,
    capture_id: u32,
    now: Instant,
    transport: Transport,
    (from, to): (SocketAddr, SocketAddr),
    call: Option<&str>,
    message: &[u8],
) {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    buffer.extend_from_slice(b"HEP3\0\0");
    match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            put(buffer, chunk::FAMILY, &[AF_INET]);
            put(buffer, chunk::SOURCE_V4, &from.octets());
            put(buffer, chunk::DESTINATION_V4, &to.octets());
        }
        (from, to) => {
            let v6 = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            put(buffer, chunk::FAMILY, &[AF_INET6]);
            put(buffer, chunk::SOURCE_V6, &v6(from));
            put(buffer, chunk::DESTINATION_V6, &v6(to));
        }
    }
    // IANA protocol numbers; what came over TLS is told as the TCP that carried it.
    put(buffer, chunk::PROTOCOL, &[if transport == Transport::Udp { 17 } else { 6 }]);
    put(buffer, chunk::SOURCE_PORT, &from.port().to_be_bytes());
    put(buffer, chunk::DESTINATION_PORT, &to.port().to_be_bytes());
    let micros = (now.as_nanos() / 1_000 % 1_000_000) as u32;
    put(buffer, chunk::SECONDS, &(now.unix_s() as u32).to_be_bytes());
    put(buffer, chunk::MICROSECONDS, &micros.to_be_bytes());
    put(buffer, chunk::KIND, &[SIP]);
    put(buffer, chunk::CAPTURE_ID, &capture_id.to_be_bytes());
    if let Some(call) = call {
        put(buffer, chunk::CORRELATION_ID, call.as_bytes());
    }
    put(buffer, chunk::PAYLOAD, message);
    let length = u16::try_from(buffer.len()).unwrap_or(u16::MAX);
    buffer[4..6].copy_from_slice(&length.to_be_bytes());
}

/// A generic chunk.
fn put(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 6).unwrap_or(u16::MAX);
    buffer.extend_from_slice(&[0, 0]);
    buffer.extend_from_slice(&kind.to_be_bytes());
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(from: &str, to: &str) -> Vec<u8> {
        let mut buffer = Vec::new();
        let (from, to) = (from.parse().expect("an address"), to.parse().expect("an address"));
        write(&mut buffer, 7, Instant::from_nanos(1_000_002_000), Transport::Udp, (from, to), Some("call"), b"SIP");
        buffer
    }

    #[test]
    fn a_copy_is_written_as_the_draft_draws_it() {
        let expected = b"HEP3\0\x79\
            \0\0\0\x01\0\x07\x02\
            \0\0\0\x03\0\x0a\x7f\0\0\x01\
            \0\0\0\x04\0\x0a\x0a\0\0\x02\
            \0\0\0\x02\0\x07\x11\
            \0\0\0\x07\0\x08\x13\xc4\
            \0\0\0\x08\0\x08\x13\xc5\
            \0\0\0\x09\0\x0a\0\0\0\x01\
            \0\0\0\x0a\0\x0a\0\0\0\x02\
            \0\0\0\x0b\0\x07\x01\
            \0\0\0\x0c\0\x0a\0\0\0\x07\
            \0\0\0\x11\0\x0acall\
            \0\0\0\x0f\0\x09SIP";
        let octets = written("127.0.0.1:5060", "10.0.0.2:5061");
        assert_eq!(octets.len(), usize::from(u16::from_be_bytes([octets[4], octets[5]])));
        assert_eq!(octets[6..], expected[6..]);
    }

    #[test]
    fn mapped_addresses_are_told_as_what_they_stand_for() {
        assert_eq!(written("[::ffff:127.0.0.1]:5060", "10.0.0.2:5061"), written("127.0.0.1:5060", "10.0.0.2:5061"));
        assert!(written("[::1]:5060", "[2001:db8::1]:5060").windows(6).any(|six| six == [0, 0, 0, 5, 0, 22]));
    }
}
