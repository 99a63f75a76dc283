//! RFC 3263: where a SIP request goes: NAPTR for the transport, SRV for the port, A and AAAA for the address.
//!
//! ```text
//! literal address ───────────────────────────────────────────> address
//! port given ──────────────────────────────────────── A/AAAA ─> addresses
//! transport given ───────────────── SRV ──(none)───── A/AAAA ─> addresses
//! neither ───────── NAPTR ──(none)─ SRV of each ──(none)── A/AAAA
//! ```

use crate::base::prng::Prng;
use crate::base::transport::Transport;
use crate::limits::RESOLVED_MAX;
use crate::shard::exchange::Resolved;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::proto::rr::rdata::{NAPTR, SRV};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver, net::runtime::TokioRuntimeProvider};
use std::cell::{OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long the whole of it may take; Timer B runs meanwhile.
const TIME_MAX: Duration = Duration::from_secs(4);
/// How long a name server may take before it is asked again.
const SERVER_TIME: Duration = Duration::from_secs(1);

/// The system's resolver, with its cache; made when it is first needed.
pub struct Resolve {
    resolver: OnceCell<Option<TokioResolver>>,
    prng: RefCell<Prng>,
}

impl std::fmt::Debug for Resolve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolve").finish_non_exhaustive()
    }
}

/// A host and what the URI said beside it.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub host: &'a str,
    pub port: Option<u16>,
    /// `transport=` of the URI.
    pub transport: Option<Transport>,
    /// The URI is a SIPS URI, or `transport=tls`: only TLS will do.
    pub sips: bool,
}

impl Resolve {
    /// `prng` draws among SRV records of one priority by weight.
    pub fn new(prng: Prng) -> Self {
        Self { resolver: OnceCell::new(), prng: RefCell::new(prng) }
    }

    /// Where to send, in the order in which to try; empty where there is nothing.
    pub async fn resolve(&self, target: Target<'_>) -> Vec<Resolved> {
        if let Some(address) = literal(target.host) {
            let transport = target.default_transport();
            let port = target.port.unwrap_or(default_port(transport));
            return vec![Resolved { transport, address: SocketAddr::new(address, port) }];
        }
        let Some(resolver) = self.resolver.get_or_init(system) else { return Vec::new() };
        let found = tokio::time::timeout(TIME_MAX, self.look_up(resolver, target)).await;
        let mut found = found.unwrap_or_else(|_| {
            tracing::warn!(host = target.host, "name servers did not answer in time");
            Vec::new()
        });
        found.truncate(RESOLVED_MAX);
        found
    }

    async fn look_up(&self, resolver: &TokioResolver, target: Target<'_>) -> Vec<Resolved> {
        let transport = target.default_transport();
        // RFC 3263 §4.2: a port leaves nothing for SRV to say. A name of the hosts file has no other records.
        if let Some(port) = target.port {
            return addresses(resolver, target.host, transport, port).await;
        }
        if in_hosts_file(target.host) {
            return addresses(resolver, target.host, transport, default_port(transport)).await;
        }
        let mut found = Vec::new();
        for (transport, name) in services(resolver, target).await {
            for server in self.servers(resolver, &name).await {
                let host = server.target.to_utf8();
                found.extend(addresses(resolver, host.trim_end_matches('.'), transport, server.port).await);
                if found.len() >= RESOLVED_MAX {
                    return found;
                }
            }
        }
        if found.is_empty() {
            found = addresses(resolver, target.host, transport, default_port(transport)).await;
        }
        found
    }

    async fn servers(&self, resolver: &TokioResolver, name: &str) -> Vec<SRV> {
        let Ok(name) = Name::from_utf8(name) else { return Vec::new() };
        let Ok(lookup) = resolver.lookup(fully_qualified(name), RecordType::SRV).await else { return Vec::new() };
        let servers = lookup.answers().iter().filter_map(|record| match &record.data {
            // RFC 2782: a target of "." says that the service is decidedly not there.
            RData::SRV(server) if !server.target.is_root() => Some(server.clone()),
            _ => None,
        });
        in_turn(servers.take(RESOLVED_MAX).collect(), &mut self.prng.borrow_mut())
    }
}

impl Target<'_> {
    /// RFC 3263 §4.1 where nothing else says it: UDP, or TLS for SIPS.
    fn default_transport(&self) -> Transport {
        match (self.transport, self.sips) {
            (_, true) => Transport::Tls,
            (Some(transport), false) => transport,
            (None, false) => Transport::Udp,
        }
    }
}

/// Transports in the order of preference, each with the name of its SRV records.
async fn services(resolver: &TokioResolver, target: Target<'_>) -> Vec<(Transport, String)> {
    let wanted = |transport: Transport| {
        (!target.sips || transport == Transport::Tls) && target.transport.is_none_or(|given| target.sips || given == transport)
    };
    let known = [Transport::Udp, Transport::Tcp, Transport::Tls].into_iter().filter(|transport| wanted(*transport));
    let by_name =
        known.map(|transport| (transport, format!("{}.{}.", prefix(transport), target.host.trim_end_matches('.')))).collect();
    if target.transport.is_some() {
        return by_name;
    }
    let Ok(name) = Name::from_utf8(target.host) else { return Vec::new() };
    let Ok(lookup) = resolver.lookup(fully_qualified(name), RecordType::NAPTR).await else { return by_name };
    let pointers = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::NAPTR(pointer) => Some(pointer),
        _ => None,
    });
    let mut pointers: Vec<&NAPTR> = pointers.take(RESOLVED_MAX).collect();
    pointers.sort_by_key(|pointer| (pointer.order, pointer.preference));
    let pointed: Vec<_> = pointers.into_iter().filter_map(pointed).filter(|(transport, _)| wanted(*transport)).collect();
    if pointed.is_empty() { by_name } else { pointed }
}

/// RFC 3263 §4.1: services SIP+D2U, SIP+D2T and SIPS+D2T, with flag "s".
fn pointed(pointer: &NAPTR) -> Option<(Transport, String)> {
    if !pointer.flags.eq_ignore_ascii_case(b"s") {
        return None;
    }
    let transport = match pointer.services.to_ascii_uppercase().as_slice() {
        b"SIP+D2U" => Transport::Udp,
        b"SIP+D2T" => Transport::Tcp,
        b"SIPS+D2T" => Transport::Tls,
        _ => return None,
    };
    Some((transport, pointer.replacement.to_utf8()))
}

/// RFC 2782: by priority, and among equals drawn one after the other with odds by weight.
fn in_turn(mut servers: Vec<SRV>, prng: &mut Prng) -> Vec<SRV> {
    // Those of weight 0 come first, so that a draw of 0 can hit them.
    servers.sort_by_key(|server| (server.priority, server.weight));
    let mut ordered = Vec::with_capacity(servers.len());
    while let Some(first) = servers.first() {
        let equals = servers.iter().take_while(|server| server.priority == first.priority).count();
        let total: u64 = servers[..equals].iter().map(|server| u64::from(server.weight)).sum();
        let mut draw = prng.below(total + 1);
        let at = servers[..equals].iter().position(|server| {
            let weight = u64::from(server.weight);
            let hit = draw <= weight;
            draw = draw.saturating_sub(weight);
            hit
        });
        ordered.push(servers.remove(at.unwrap_or(0)));
    }
    ordered
}

async fn addresses(resolver: &TokioResolver, host: &str, transport: Transport, port: u16) -> Vec<Resolved> {
    if let Some(address) = literal(host) {
        return vec![Resolved { transport, address: SocketAddr::new(address, port) }];
    }
    let name = format!("{}.", host.trim_end_matches('.'));
    let Ok(lookup) = resolver.lookup_ip(name).await else { return Vec::new() };
    let mut addresses: Vec<IpAddr> = lookup.iter().take(RESOLVED_MAX).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.into_iter().map(|address| Resolved { transport, address: SocketAddr::new(address, port) }).collect()
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

const fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Udp | Transport::Tcp => 5060,
        Transport::Tls => 5061,
    }
}

const fn prefix(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
    }
}

fn fully_qualified(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

fn in_hosts_file(host: &str) -> bool {
    let Ok(hosts) = std::fs::read_to_string("/etc/hosts") else { return false };
    let lines = hosts.lines().filter_map(|line| line.split('#').next());
    lines.flat_map(|line| line.split_ascii_whitespace().skip(1)).any(|name| name.eq_ignore_ascii_case(host))
}

fn system() -> Option<TokioResolver> {
    match TokioResolver::builder_tokio() {
        Ok(builder) => build(builder),
        Err(error) => {
            tracing::error!(%error, "no resolver: /etc/resolv.conf cannot be read");
            None
        }
    }
}

fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Option<TokioResolver> {
    let options = builder.options_mut();
    options.timeout = SERVER_TIME;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build().inspect_err(|error| tracing::error!(%error, "no resolver")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::A;
    use std::net::UdpSocket;

    fn name(text: &str) -> Name {
        Name::from_utf8(text).unwrap()
    }

    fn naptr(order: u16, service: &str, replacement: &str) -> RData {
        RData::NAPTR(NAPTR::new(order, 10, (*b"s").into(), service.as_bytes().into(), Box::default(), name(replacement)))
    }

    fn srv(priority: u16, port: u16, target: &str) -> RData {
        RData::SRV(SRV::new(priority, 0, port, name(target)))
    }

    fn a(last: u8) -> RData {
        RData::A(A::new(192, 0, 2, last))
    }

    /// A resolver whose one name server, on loopback, knows these records.
    fn knowing(zone: Vec<(&'static str, RData)>) -> Resolve {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut octets = [0; 2048];
            while let Ok((length, peer)) = socket.recv_from(&mut octets) {
                let mut message = Message::from_vec(&octets[..length]).unwrap();
                let query = message.queries[0].clone();
                message.metadata.message_type = MessageType::Response;
                let is_name = |known: &&(&str, RData)| name(known.0) == *query.name();
                let known: Vec<_> = zone.iter().filter(is_name).collect();
                let asked = known.iter().filter(|known| known.1.record_type() == query.query_type());
                let records: Vec<_> = asked.map(|known| Record::from_rdata(query.name().clone(), 60, known.1.clone())).collect();
                message.metadata.response_code = if known.is_empty() { ResponseCode::NXDomain } else { ResponseCode::NoError };
                message.insert_answers(records);
                socket.send_to(&message.to_vec().unwrap(), peer).unwrap();
            }
        });
        let mut udp = ConnectionConfig::udp();
        udp.port = server.port();
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![NameServerConfig::new(server.ip(), true, vec![udp])]);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolve = Resolve::new(Prng::seeded(1));
        assert!(resolve.resolver.set(build(builder)).is_ok());
        resolve
    }

    fn resolved(zone: Vec<(&'static str, RData)>, target: Target<'_>) -> Vec<String> {
        tokio_uring::start(async {
            let found = knowing(zone).resolve(target).await;
            found.iter().map(|one| format!("{} {}", one.transport.as_via(), one.address)).collect()
        })
    }

    const NAMED: Target<'_> = Target { host: "example.test", port: None, transport: None, sips: false };

    #[test]
    fn naptr_orders_the_transports_and_srv_the_servers() {
        let zone = vec![
            ("example.test.", naptr(50, "SIP+D2T", "_sip._tcp.example.test.")),
            ("example.test.", naptr(90, "SIP+D2U", "_sip._udp.example.test.")),
            ("example.test.", naptr(10, "SIP+D2S", "_sip._sctp.example.test.")),
            ("_sip._tcp.example.test.", srv(2, 5062, "b.example.test.")),
            ("_sip._tcp.example.test.", srv(1, 5061, "a.example.test.")),
            ("_sip._udp.example.test.", srv(1, 5060, "a.example.test.")),
            ("a.example.test.", a(1)),
            ("b.example.test.", a(2)),
        ];
        assert_eq!(resolved(zone, NAMED), ["TCP 192.0.2.1:5061", "TCP 192.0.2.2:5062", "UDP 192.0.2.1:5060"]);
    }

    #[test]
    fn without_naptr_srv_is_asked_and_without_srv_the_address() {
        let zone = vec![("_sip._udp.example.test.", srv(1, 5080, "a.example.test.")), ("a.example.test.", a(1))];
        assert_eq!(resolved(zone, NAMED), ["UDP 192.0.2.1:5080"]);
        assert_eq!(resolved(vec![("example.test.", a(3))], NAMED), ["UDP 192.0.2.3:5060"]);
        let tcp = Target { transport: Some(Transport::Tcp), ..NAMED };
        assert_eq!(resolved(vec![("example.test.", a(3))], tcp), ["TCP 192.0.2.3:5060"]);
        assert!(resolved(vec![], NAMED).is_empty());
    }

    #[test]
    fn sips_takes_tls_alone_and_a_port_skips_srv() {
        let zone = vec![
            ("example.test.", naptr(1, "SIP+D2U", "_sip._udp.example.test.")),
            ("example.test.", naptr(2, "SIPS+D2T", "_sips._tcp.example.test.")),
            ("_sip._udp.example.test.", srv(1, 5060, "a.example.test.")),
            ("_sips._tcp.example.test.", srv(1, 5071, "a.example.test.")),
            ("a.example.test.", a(1)),
            ("example.test.", a(9)),
        ];
        assert_eq!(resolved(zone.clone(), Target { sips: true, ..NAMED }), ["TLS 192.0.2.1:5071"]);
        assert_eq!(resolved(zone, Target { port: Some(5070), ..NAMED }), ["UDP 192.0.2.9:5070"]);
    }

    #[test]
    fn literal_addresses_need_no_names() {
        tokio_uring::start(async {
            let resolve = Resolve::new(Prng::seeded(1));
            let of = async |host, port, transport, sips| {
                let found = resolve.resolve(Target { host, port, transport, sips }).await;
                format!("{} {}", found[0].transport.as_via(), found[0].address)
            };
            assert_eq!(of("192.0.2.1", None, None, false).await, "UDP 192.0.2.1:5060");
            assert_eq!(of("[2001:db8::1]", Some(5070), Some(Transport::Tcp), false).await, "TCP [2001:db8::1]:5070");
            assert_eq!(of("192.0.2.1", None, None, true).await, "TLS 192.0.2.1:5061");
        });
    }

    #[test]
    fn equals_are_drawn_by_weight() {
        let server = |weight, port| SRV::new(1, weight, port, name("a."));
        let mut prng = Prng::seeded(3);
        let mut firsts = 0;
        for _ in 0..1000 {
            let ordered = in_turn(vec![server(10, 1), server(90, 2), SRV::new(0, 0, 3, name("a."))], &mut prng);
            assert_eq!(ordered[0].port, 3);
            firsts += u32::from(ordered[1].port == 2);
        }
        assert!((850..950).contains(&firsts), "{firsts}");
    }
}
