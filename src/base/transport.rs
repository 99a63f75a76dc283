//! RFC 3261 §18, RFC 5626: what carries a message.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The transport protocol of a SIP or MSRP flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    /// Whether the transport resends by itself, so that the transaction need not (RFC 3261 §17).
    pub const fn reliable(self) -> bool {
        !matches!(self, Transport::Udp)
    }

    /// As in a Via sent-protocol.
    pub const fn as_via(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }
}

/// A transport 5-tuple on which a message came in, and on which an answer can go back (RFC 5626 §2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Flow {
    pub transport: Transport,
    /// The signalling core whose socket it is.
    pub core: u8,
    /// Index into `sip.listen` of the socket it came in on.
    pub listener: u8,
    /// For TCP and TLS: the connection's slot and generation as the core numbers them. For UDP: 0.
    pub connection: u64,
    pub peer: SocketAddr,
}

/// Where a request goes when no flow is given: transport and address, resolved (RFC 3263).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    pub transport: Transport,
    pub address: SocketAddr,
    /// Name to be verified in the peer's certificate (RFC 5922); none: the address.
    pub server_name: Option<std::rc::Rc<str>>,
}

/// Where a SIP message goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Back on the flow something came in on. Where the flow is gone and `fallback` stands, there (RFC 3261 §18.2.2).
    Flow { flow: Flow, fallback: Option<Box<Target>> },
    /// To an address: UDP, or a connection that is open or will be opened.
    Target(Target),
}

impl Destination {
    /// The transport protocol that will carry the message.
    pub const fn transport(&self) -> Transport {
        match self {
            Destination::Flow { flow, .. } => flow.transport,
            Destination::Target(target) => target.transport,
        }
    }
}
