//! RFC 3261 §8.1.2, §16.6 step 6, RFC 3263: the next hop of a request, and which of its addresses are worth trying.
//!
//! A host that is an address needs nobody; a name is asked of the services once and remembered for a while. An address
//! that refused is not tried again for a while where another one is left.

use super::exchange::{Query, Resolved};
use crate::base::clock::{Duration, Instant};
use crate::base::transport::{Target, Transport};
use crate::limits::{DEAD_TARGETS_MAX, RESOLVED_NAMES_MAX};
use crate::sip::header::via;
use crate::sip::uri::Uri;
use std::collections::BTreeMap;
use std::rc::Rc;

/// How long what a name resolved to is used again. The resolver of the services honours the records' own TTL.
const RESOLVED_FOR: Duration = Duration::from_secs(30);
/// Timer B: how long a request to a server that rests could take as well.
const REST_MAX: Duration = Duration::from_secs(32);
/// RFC 3263 §4.3 leaves open how long a failed address is left alone; Timer B's length keeps one call from paying for it.
const DEAD_FOR: Duration = Duration::from_secs(32);

/// Where a request goes.
#[derive(Debug)]
pub enum Place {
    /// Try these in order.
    At(Vec<Target>),
    /// Ask, and come back with [`Locator::learn`].
    Ask(Query),
    /// No address can be had of this URI.
    Nowhere,
}

/// Names and addresses of next hops as one core knows them.
#[derive(Default)]
pub struct Locator {
    names: BTreeMap<Name, (Instant, Rc<[Resolved]>)>,
    dead: BTreeMap<(Transport, std::net::SocketAddr), Instant>,
    /// Servers that asked to be left alone, and until when.
    resting: BTreeMap<std::net::SocketAddr, Instant>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Name {
    host: Box<str>,
    port: Option<u16>,
    transport: Option<Transport>,
    sips: bool,
}

impl Locator {
    /// The addresses of the next hop named by a SIP URI (RFC 3263 §4).
    pub fn place(&mut self, now: Instant, uri: &str) -> Place {
        let Ok(uri) = Uri::parse(uri) else { return Place::Nowhere };
        if !uri.is_sip() {
            return Place::Nowhere;
        }
        // RFC 3263 §4: maddr takes the host's place.
        let host = uri.params.value("maddr").unwrap_or(uri.host);
        let transport = match uri.params.value("transport").map(transport_of) {
            Some(None) => return Place::Nowhere,
            Some(Some(Transport::Tcp)) if uri.is_sips() => Some(Transport::Tls),
            Some(transport) => transport,
            None => None,
        };
        if let Some(ip) = via::address(host) {
            let transport = transport.unwrap_or(if uri.is_sips() { Transport::Tls } else { Transport::Udp });
            let port = uri.port.unwrap_or(default_port(transport));
            return Place::At(vec![Target { transport, address: std::net::SocketAddr::new(ip, port), server_name: None }]);
        }
        let name = Name { host: host.to_ascii_lowercase().into(), port: uri.port, transport, sips: uri.is_sips() };
        match self.names.get(&name) {
            Some((until, resolved)) if *until > now => self.targets(now, &name.host, &Rc::clone(resolved)),
            _ => Place::Ask(Query::Resolve { host: name.host, port: name.port, transport, sips: name.sips }),
        }
    }

    /// What a name resolved to, from the answer to [`Place::Ask`].
    pub fn learn(&mut self, now: Instant, query: &Query, resolved: &[Resolved]) -> Place {
        let Query::Resolve { host, port, transport, sips } = query else { return Place::Nowhere };
        if !resolved.is_empty() {
            self.names.retain(|_, (until, _)| *until > now);
            if self.names.len() < RESOLVED_NAMES_MAX {
                let name = Name { host: host.clone(), port: *port, transport: *transport, sips: *sips };
                self.names.insert(name, (now + RESOLVED_FOR, resolved.into()));
            }
        }
        self.targets(now, host, resolved)
    }

    fn targets(&mut self, now: Instant, host: &str, resolved: &[Resolved]) -> Place {
        if resolved.is_empty() {
            return Place::Nowhere;
        }
        let name: Rc<str> = host.into();
        let target = |place: &Resolved| Target {
            transport: place.transport,
            address: place.address,
            // RFC 5922 §4: the certificate is to carry the name that was asked for.
            server_name: (place.transport == Transport::Tls).then(|| Rc::clone(&name)),
        };
        // Dead ones go last, not away: all may be dead.
        let (dead, living): (Vec<_>, Vec<_>) = resolved.iter().map(target).partition(|target| self.is_dead(now, target));
        Place::At(living.into_iter().chain(dead).collect())
    }

    /// A target refused a connection, fell silent or said 503: others go first for a while.
    pub fn died(&mut self, now: Instant, target: &Target, rest: Option<Duration>) {
        if self.dead.len() >= DEAD_TARGETS_MAX {
            self.dead.retain(|_, until| *until > now);
        }
        if self.dead.len() < DEAD_TARGETS_MAX {
            self.dead.insert((target.transport, target.address), now + rest.unwrap_or(DEAD_FOR));
        }
    }

    /// A server asked to be left alone (RFC 3261 §21.5.4). Where it is the only way we do so for a while at most: a proxy may
    /// have passed on what one user's device said.
    pub fn rest(&mut self, now: Instant, target: &Target, wait: Duration) {
        self.died(now, target, Some(wait));
        self.resting.retain(|_, until| *until > now);
        if self.resting.len() < DEAD_TARGETS_MAX {
            self.resting.insert(target.address, now + wait.min(REST_MAX));
        }
    }

    /// How much longer a server is left alone, where it is.
    pub fn rests(&self, now: Instant, target: &Target) -> Option<Duration> {
        self.resting.get(&target.address).filter(|until| **until > now).map(|until| until.since(now))
    }

    /// A target answered.
    pub fn lives(&mut self, target: &Target) {
        if !self.dead.is_empty() {
            self.dead.remove(&(target.transport, target.address));
        }
    }

    pub fn is_dead(&self, now: Instant, target: &Target) -> bool {
        self.dead.get(&(target.transport, target.address)).is_some_and(|until| *until > now)
    }
}

fn transport_of(text: &str) -> Option<Transport> {
    [Transport::Udp, Transport::Tcp, Transport::Tls].into_iter().find(|known| known.as_via().eq_ignore_ascii_case(text))
}

/// RFC 3261 §19.1.2.
pub const fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Tls => 5061,
        Transport::Udp | Transport::Tcp => 5060,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: Place) -> Vec<String> {
        match place {
            Place::At(targets) => targets.iter().map(|t| format!("{}:{}", t.transport.as_via(), t.address)).collect(),
            Place::Ask(query) => vec![format!("{query:?}")],
            Place::Nowhere => vec![],
        }
    }

    #[test]
    fn an_address_needs_nobody() {
        let mut locator = Locator::default();
        let mut of = |uri| at(locator.place(Instant::default(), uri));
        assert_eq!(of("sip:127.0.0.1:5070;lr"), ["UDP:127.0.0.1:5070"]);
        assert_eq!(of("sip:bob@[::1];transport=TCP"), ["TCP:[::1]:5060"]);
        assert_eq!(of("sips:bob@192.0.2.1;transport=tcp"), ["TLS:192.0.2.1:5061"]);
        assert_eq!(of("sip:bob@example.net;maddr=192.0.2.7"), ["UDP:192.0.2.7:5060"]);
        assert_eq!(of("tel:+1"), [""; 0]);
        assert_eq!(of("sip:bob@192.0.2.1;transport=sctp"), [""; 0]);
    }

    #[test]
    fn a_name_is_asked_once_and_a_dead_address_goes_last() {
        let mut locator = Locator::default();
        let now = Instant::from_unix_s(100);
        let Place::Ask(query) = locator.place(now, "sip:Core.Example.net") else { panic!("a name is asked") };
        let resolved = ["192.0.2.1:5060", "192.0.2.2:5060"]
            .map(|address| Resolved { transport: Transport::Udp, address: address.parse().unwrap() });
        assert_eq!(at(locator.learn(now, &query, &resolved)), ["UDP:192.0.2.1:5060", "UDP:192.0.2.2:5060"]);
        let first = Target { transport: Transport::Udp, address: resolved[0].address, server_name: None };
        locator.died(now, &first, None);
        assert_eq!(at(locator.place(now, "sip:core.example.net")), ["UDP:192.0.2.2:5060", "UDP:192.0.2.1:5060"]);
        locator.lives(&first);
        assert_eq!(at(locator.place(now, "sip:core.example.net")), ["UDP:192.0.2.1:5060", "UDP:192.0.2.2:5060"]);
        assert!(matches!(locator.place(now + RESOLVED_FOR, "sip:core.example.net"), Place::Ask(_)));
        assert!(matches!(locator.learn(now, &query, &[]), Place::Nowhere));
    }

    #[test]
    fn a_server_that_asks_for_rest_gets_it_whatever_the_transport() {
        let mut locator = Locator::default();
        let now = Instant::from_unix_s(100);
        let target = |transport| Target { transport, address: "192.0.2.1:5060".parse().unwrap(), server_name: None };
        locator.rest(now, &target(Transport::Tcp), Duration::from_secs(3600));
        let soon = now + Duration::from_secs(31);
        assert_eq!(locator.rests(soon, &target(Transport::Udp)), Some(Duration::from_secs(1)));
        assert!(locator.is_dead(soon, &target(Transport::Tcp)));
        assert_eq!(locator.rests(now + REST_MAX, &target(Transport::Udp)), None, "the only way is tried again");
    }
}
