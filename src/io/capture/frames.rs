//! RFC 791, RFC 8200, RFC 768, RFC 9293: the headers around captured octets. We never saw those that were on the wire, so they are
//! made up: addresses and ports are true, sequence numbers count what the capture has of a connection.

use super::{Packet, pcapng};
use etherparse::PacketBuilder;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Octets of an IP packet, less the headers of IPv4 and TCP.
const PAYLOAD_MAX: usize = 65_535 - 60;
const TTL: u8 = 64;
const WINDOW: u16 = 65_535;

/// The file with these packets, which stand in the order of their time.
pub fn file<'a>(application: &str, packets: impl Iterator<Item = &'a Packet>) -> Vec<u8> {
    let mut file = pcapng::begin(application);
    // By direction of a connection: the next octet.
    let mut sequence: BTreeMap<(SocketAddr, SocketAddr), u32> = BTreeMap::new();
    for packet in packets {
        let (from, to) = (canonical(packet.from), canonical(packet.to));
        let whole = (packet.octets.len() + packet.cut).min(PAYLOAD_MAX).max(packet.octets.len());
        let acknowledged = *sequence.entry((to, from)).or_insert(1);
        let next = sequence.entry((from, to)).or_insert(1);
        let Some(mut octets) = framed(packet, from, to, whole, (*next, acknowledged)) else { continue };
        *next = next.wrapping_add(whole as u32);
        let original = octets.len();
        octets.truncate(original - (whole - packet.octets.len()));
        let comment = (packet.left_out > 0).then(|| format!("{} octets of body are left out", packet.left_out));
        pcapng::packet(&mut file, packet.at.as_nanos(), &octets, original, comment.as_deref());
    }
    file
}

/// The IP packet; what was cut off stands as zeros, to be cut off again. None: it fits no packet.
fn framed(packet: &Packet, from: SocketAddr, to: SocketAddr, whole: usize, numbers: (u32, u32)) -> Option<Vec<u8>> {
    let mut payload = packet.octets.to_vec();
    payload.resize(whole, 0);
    let mut octets = Vec::with_capacity(whole + 80);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        (from, to) => PacketBuilder::ipv6(v6(from).octets(), v6(to).octets(), TTL),
    };
    if packet.datagram {
        ip.udp(from.port(), to.port()).write(&mut octets, &payload).ok()?;
    } else {
        ip.tcp(from.port(), to.port(), numbers.0, WINDOW).ack(numbers.1).psh().write(&mut octets, &payload).ok()?;
    }
    Some(octets)
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Instant;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    fn packet(from: &str, to: &str, datagram: bool, octets: &[u8], cut: usize) -> Packet {
        let at = |text: &str| text.parse().expect("an address");
        let octets = octets.into();
        Packet { at: Instant::from_unix_s(1), datagram, from: at(from), to: at(to), octets, cut, left_out: 0 }
    }

    #[test]
    fn a_connection_counts_what_was_cut_off_too() {
        let there = packet("[::ffff:10.0.0.1]:5", "10.0.0.2:6", false, b"head", 6);
        let back = packet("10.0.0.2:6", "10.0.0.1:5", false, b"answer", 0);
        let file = file("x", [&there, &back, &there].into_iter());
        let mut at = pcapng::begin("x").len();
        let mut seen = Vec::new();
        while at < file.len() {
            let number =
                |from: usize| u32::from_le_bytes(file[at + from..at + from + 4].try_into().expect("four octets")) as usize;
            let (captured, original) = (number(20), number(24));
            let ip = &file[at + 28..at + 28 + captured];
            assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), original, "the IP header tells of the whole");
            let tcp = &ip[20..];
            let numbers = [&tcp[4..8], &tcp[8..12]].map(|four| u32::from_be_bytes(four.try_into().expect("four octets")));
            seen.push((numbers, tcp[20..].to_vec(), original - captured));
            at += number(4);
        }
        assert_eq!(seen, [([1, 1], b"head".to_vec(), 6), ([1, 11], b"answer".to_vec(), 0), ([11, 7], b"head".to_vec(), 6)]);
    }

    #[test]
    fn families_and_protocols_are_told_apart() {
        let check = |packet: &Packet, v6: bool| {
            let octets = framed(packet, packet.from, packet.to, packet.octets.len(), (1, 1)).expect("it fits");
            let sliced = SlicedPacket::from_ip(&octets).expect("a packet");
            assert_eq!(matches!(sliced.net, Some(NetSlice::Ipv6(_))), v6);
            match sliced.transport {
                Some(TransportSlice::Udp(udp)) => assert!(packet.datagram && udp.payload() == &*packet.octets),
                Some(TransportSlice::Tcp(tcp)) => assert!(!packet.datagram && tcp.payload() == &*packet.octets),
                other => panic!("{other:?}"),
            }
        };
        check(&packet("10.0.0.1:5", "10.0.0.2:6", true, b"x", 0), false);
        check(&packet("[::1]:5", "[::1]:6", false, b"x", 0), true);
        check(&packet("[::1]:5", "10.0.0.2:6", true, b"x", 0), true);
    }
}
