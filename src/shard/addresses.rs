//! Our own addresses as they stand in messages: Via sent-by, Contact, Record-Route, MSRP URIs; and knowing them again.

use super::signalling::Bound;
use crate::base::prng::Prng;
use crate::base::transport::Transport;
use crate::config::{Config, Listen};
use crate::sip::dialog::uri_of;
use crate::sip::header::name::Name;
use crate::sip::header::via;
use crate::sip::ids::push_hex;
use crate::sip::message::Request;
use crate::sip::uri::Uri;
use std::net::IpAddr;
use std::rc::Rc;

/// Octets of chance in an MSRP session id: 22 characters of six bits are 132 bits.
const MSRP_CHANCE: usize = 22;

/// Where we listen, and under which name.
#[derive(Debug)]
pub struct Addresses {
    /// `node.host`, an IPv6 address in brackets.
    host: String,
    sip: Vec<Listen>,
    /// Where we take MSRP, plain and with TLS.
    msrp: [Option<MsrpAddress>; 2],
    fingerprint: Option<Rc<str>>,
}

/// Our side of an MSRP session towards one leg.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MsrpAddress {
    pub host: Rc<str>,
    pub port: u16,
    pub tls: bool,
    /// Number of the first media core.
    first_core: u8,
}

/// How a peer is to reach us by a URI of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    pub transport: Transport,
    /// By a SIPS URI, as the request does it (RFC 3261 §8.1.1.8, §12.1.1, §16.6 step 4).
    pub secure: bool,
}

impl From<Transport> for Reach {
    fn from(transport: Transport) -> Self {
        Self { transport, secure: false }
    }
}

impl Reach {
    /// For a request to this target with this first Route: by whom it is answered, and who is on the way.
    pub fn towards(transport: Transport, target: &str, route: Option<&str>) -> Self {
        Self { transport, secure: is_sips(target) || route.is_some_and(is_sips) }
    }

    /// For the answer to a request that came by this transport.
    pub fn back(transport: Transport, request: &Request) -> Self {
        let from = request.values(Name::RecordRoute).next().or_else(|| request.values(Name::Contact).next());
        Self { transport, secure: is_sips(request.uri()) || from.is_some_and(is_sips) }
    }
}

/// Of a URI, or of a value that has one.
fn is_sips(value: &str) -> bool {
    uri_of(value).get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:"))
}

impl Addresses {
    pub fn new(config: &Config, bound: &Bound) -> Self {
        Self {
            host: bracketed(&config.node.host),
            sip: bound.sip.clone(),
            msrp: [false, true].map(|tls| MsrpAddress::of(config.msrp.host.as_deref(), bound, tls)),
            fingerprint: bound.fingerprint.as_deref().map(Rc::from),
        }
    }

    /// Warning warn-agent.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `a=fingerprint` of our MSRP certificate.
    pub fn fingerprint(&self) -> Option<&Rc<str>> {
        self.fingerprint.as_ref()
    }

    /// Whether we can send and receive over this transport.
    pub fn has(&self, transport: Transport) -> bool {
        self.sip.iter().any(|listen| listen.transport == transport)
    }

    /// The port we listen on for this transport, by preference in the address family of `peer`.
    fn port(&self, transport: Transport, peer: Option<IpAddr>) -> Option<u16> {
        let mut of = self.sip.iter().filter(|listen| listen.transport == transport);
        let same = |listen: &&Listen| peer.is_none_or(|peer| peer.is_ipv6() == listen.address.is_ipv6());
        of.clone().find(same).or_else(|| of.next()).map(|listen| listen.address.port())
    }

    /// Where several UDP listeners have the family of `peer`, the one to send from, by its place in `sip.listen`: whose address has
    /// most in common with the peer's. None where there is no choice.
    pub fn udp_towards(&self, peer: IpAddr) -> Option<u8> {
        let mut best: Option<(u32, usize)> = None;
        let mut count = 0;
        for (place, listen) in self.sip.iter().enumerate().filter(|(_, listen)| listen.transport == Transport::Udp) {
            let Some(common) = common_bits(listen.address.ip(), peer) else { continue };
            count += 1;
            if best.is_none_or(|(most, _)| common > most) {
                best = Some((common, place));
            }
        }
        best.filter(|_| count > 1).and_then(|(_, place)| u8::try_from(place).ok())
    }

    /// Appends "host:port" for a Via over `transport` (RFC 3261 §18.1.1), sent from that listener where one is given.
    pub fn push_sent_by(&self, transport: Transport, peer: Option<IpAddr>, listener: Option<u8>, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.host.as_bytes());
        let own = listener.and_then(|place| self.sip.get(usize::from(place))).map(|listen| listen.address.port());
        if let Some(port) = own.or_else(|| self.port(transport, peer)) {
            buffer.push(b':');
            buffer.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
    }

    /// `sip:user@host:port;transport=…`, reachable as `reach` has it; for Contact and, with `;lr`, Record-Route.
    pub fn uri(&self, user: &str, reach: impl Into<Reach>) -> String {
        let Reach { transport, secure } = reach.into();
        // Where we have no TLS there is no SIPS.
        let secure = secure && self.has(Transport::Tls);
        let transport = match transport {
            _ if secure => Transport::Tls,
            known if self.has(known) => known,
            other => self.sip.first().map_or(other, |first| first.transport),
        };
        let mut uri = String::with_capacity(32 + user.len() + self.host.len());
        for part in [if secure { "sips:" } else { "sip:" }, user, "@", &self.host] {
            uri.push_str(part);
        }
        if let Some(port) = self.port(transport, None) {
            uri.push(':');
            uri.push_str(itoa::Buffer::new().format(port));
        }
        // RFC 3261 §19.1.2: UDP is what no parameter means for an address, and TLS what it means for SIPS.
        match transport {
            _ if secure => {}
            Transport::Udp => {}
            Transport::Tcp => uri.push_str(";transport=tcp"),
            Transport::Tls => uri.push_str(";transport=tls"),
        }
        uri
    }

    /// Whether a SIP URI names us: our host, or an address we listen on, with a port of ours.
    pub fn is_own(&self, uri: &Uri<'_>) -> bool {
        if !uri.is_sip() {
            return false;
        }
        let port = uri.port.unwrap_or(if uri.is_sips() { 5061 } else { 5060 });
        if uri.host.eq_ignore_ascii_case(&self.host) {
            // A name without a port may stand for any port of ours (SRV).
            return (uri.port.is_none() && via::address(uri.host).is_none())
                || self.sip.iter().any(|own| own.address.port() == port);
        }
        let Some(ip) = via::address(uri.host) else { return false };
        let here = |own: &Listen| own.address.port() == port && own.address.ip().to_canonical() == ip.to_canonical();
        self.sip.iter().any(here)
    }

    /// Where we take MSRP, with TLS or without; none where the configuration has no such address.
    pub fn msrp(&self, tls: bool) -> Option<&MsrpAddress> {
        self.msrp[usize::from(tls)].as_ref()
    }
}

impl MsrpAddress {
    fn of(host: Option<&str>, bound: &Bound, tls: bool) -> Option<Self> {
        let transport = if tls { Transport::Tls } else { Transport::Tcp };
        let listen = bound.msrp.iter().find(|listen| listen.transport == transport)?;
        let host = host.map_or_else(|| bracketed(&listen.address.ip().to_string()), bracketed);
        Some(Self { host: host.into(), port: listen.address.port(), tls, first_core: bound.first_media })
    }

    /// A fresh MSRP URI of ours; its session id begins with the number of the media core that owns the session;
    /// `media_core` is its place among those of this process.
    pub fn uri(&self, media_core: u8, prng: &mut Prng) -> String {
        let media_core = self.first_core.wrapping_add(media_core);
        let scheme = if self.tls { "msrps" } else { "msrp" };
        let mut uri = String::with_capacity(48 + self.host.len());
        for part in [scheme, "://", &self.host, ":", itoa::Buffer::new().format(self.port), "/"] {
            uri.push_str(part);
        }
        push_hex(u64::from(media_core), 2, &mut uri);
        // RFC 4975 §14.1: at least 80 random bits; ours are 132.
        prng.push_token(MSRP_CHANCE, &mut uri);
        uri.push_str(";tcp");
        uri
    }
}

/// Leading bits that two addresses of one family have in common.
fn common_bits(one: IpAddr, other: IpAddr) -> Option<u32> {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => Some((one.to_bits() ^ other.to_bits()).leading_zeros()),
        (IpAddr::V6(one), IpAddr::V6(other)) => Some((one.to_bits() ^ other.to_bits()).leading_zeros()),
        _ => None,
    }
}

fn bracketed(host: &str) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let listen = |transport, address: &str| Listen { transport, address: address.parse().unwrap() };
        let mut config = Config::default();
        config.node.host = "pf1.example.net".into();
        let bound = Bound {
            sip: vec![listen(Transport::Udp, "127.0.0.1:5060"), listen(Transport::Tcp, "127.0.0.1:5062")],
            msrp: vec![listen(Transport::Tcp, "127.0.0.1:2855")],
            ..Bound::default()
        };
        Addresses::new(&config, &bound)
    }

    #[test]
    fn what_names_us_is_known_again() {
        let addresses = addresses();
        let own = |uri| addresses.is_own(&Uri::parse(uri).unwrap());
        for uri in ["sip:pf1.example.net", "sip:orig@PF1.example.net:5062;lr", "sip:127.0.0.1", "sip:x@127.0.0.1:5062"] {
            assert!(own(uri), "{uri}");
        }
        for uri in ["sip:pf1.example.net:5070", "sip:127.0.0.1:5070", "sip:192.0.2.1", "tel:+1", "sips:127.0.0.1"] {
            assert!(!own(uri), "{uri}");
        }
    }

    #[test]
    fn sips_is_answered_with_sips() {
        let towards = |target, route| Reach::towards(Transport::Tls, target, route).secure;
        assert!(towards("sips:b@x", None) && towards("sip:b@x", Some("<sips:p;lr>")) && !towards("sip:b@x", Some("<sip:p;lr>")));
        let back = |uri: &str, fields: &str| {
            let octets = format!("INVITE {uri} SIP/2.0\r\n{fields}\r\n");
            Reach::back(Transport::Tls, &Request::parse(octets.as_bytes()).unwrap()).secure
        };
        assert!(back("sips:b@x", "") && back("sip:b@x", "m: <sips:a@x>\r\n"));
        assert!(!back("sip:b@x", "m: <sips:a@x>\r\nRecord-Route: <sip:p;lr>\r\n"), "what stands on top counts");
        let listen = Listen { transport: Transport::Tls, address: "127.0.0.1:5061".parse().unwrap() };
        let mut config = Config::default();
        config.node.host = "pf1.example.net".into();
        let addresses = Addresses::new(&config, &Bound { sip: vec![listen], ..Bound::default() });
        assert_eq!(addresses.uri("u", Reach { transport: Transport::Tls, secure: true }), "sips:u@pf1.example.net:5061");
        assert_eq!(addresses.uri("u", Transport::Tls), "sip:u@pf1.example.net:5061;transport=tls");
        assert!(addresses.is_own(&Uri::parse("sips:u@pf1.example.net:5061").unwrap()));
    }

    #[test]
    fn of_several_listeners_the_nearest_sends() {
        let listen = |address: &str| Listen { transport: Transport::Udp, address: address.parse().unwrap() };
        let sip = ["10.0.0.1:5060", "192.168.7.1:5060", "[::1]:5060", "192.168.7.1:5062"].map(listen).to_vec();
        let addresses = Addresses::new(&Config::default(), &Bound { sip, ..Bound::default() });
        let towards = |peer: &str| addresses.udp_towards(peer.parse().unwrap());
        assert_eq!(towards("10.9.9.9"), Some(0));
        assert_eq!(towards("192.168.7.200"), Some(1));
        assert_eq!(towards("::2"), None, "there is one");
    }

    #[test]
    fn our_uris_say_how_we_are_reached() {
        let addresses = addresses();
        assert_eq!(addresses.uri("u", Transport::Udp), "sip:u@pf1.example.net:5060");
        assert_eq!(addresses.uri("u", Transport::Tcp), "sip:u@pf1.example.net:5062;transport=tcp");
        let secure = Reach::towards(Transport::Udp, "SIPS:b@x", None);
        assert_eq!(addresses.uri("u", secure), "sip:u@pf1.example.net:5060", "we have no TLS");
        let uri = addresses.msrp(false).unwrap().uri(3, &mut Prng::seeded(1));
        assert!(uri.starts_with("msrp://127.0.0.1:2855/03") && uri.ends_with(";tcp"), "{uri}");
        assert_eq!(uri.len(), "msrp://127.0.0.1:2855/03;tcp".len() + 22);
        assert_eq!(addresses.msrp(true), None);
    }
}
