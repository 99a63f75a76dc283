//! RFC 3261 §17: what a transaction table takes, gives back and tells. The transaction user is above it, the sender below.

use crate::base::slab::Key;
use crate::base::transport::Destination;
use crate::sip::method::Method;

/// Names a server transaction; an old key finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ServerKey(pub(super) Key);

/// Names a client transaction; an old key finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClientKey(pub(super) Key);

impl ServerKey {
    /// The key as a number, to travel in a ticket or a timer.
    pub const fn as_u64(self) -> u64 {
        self.0.as_u64()
    }
    /// The key that [`ServerKey::as_u64`] gave.
    pub const fn from_u64(number: u64) -> Self {
        Self(Key::from_u64(number))
    }
}

impl ClientKey {
    /// The key as a number, to travel in a ticket or a timer.
    pub const fn as_u64(self) -> u64 {
        self.0.as_u64()
    }
    /// The key that [`ClientKey::as_u64`] gave.
    pub const fn from_u64(number: u64) -> Self {
        Self(Key::from_u64(number))
    }
}

/// Where messages go to be sent; the shard's outbox is one.
pub trait Sink {
    /// Queues one message. `tag` comes back with [`super::table::Transactions::failed`] when it could not be sent;
    /// 0: nobody wants to hear of it.
    fn send(&mut self, to: &Destination, tag: u64, octets: &[u8]);
}

/// A sink for tests: what was sent, in order.
impl Sink for Vec<(Destination, u64, Vec<u8>)> {
    fn send(&mut self, to: &Destination, tag: u64, octets: &[u8]) {
        self.push((to.clone(), tag, octets.to_vec()));
    }
}

/// What a request that came in is to the transaction layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Dealt with: a resend, the ACK of a failure, a CANCEL that found nothing (481) or came too late (200), a request
    /// for which the table is full (503).
    Absorbed,
    /// A new transaction; to be answered by the user. For an INVITE, 100 has been sent.
    New(ServerKey),
    /// New as well, but the same request is already being served by another way (§8.2.2.2): a user agent answers 482.
    /// A request that went through us before is a spiral and is never called merged (§16.3 step 4).
    Merged(ServerKey),
    /// An ACK that ends no failure: of a 2xx, or a stray. There is never an answer to it.
    Ack,
    /// The INVITE `invite` is cancelled: 200 for the CANCEL has been sent; the user answers 487 to the INVITE.
    Cancel { invite: ServerKey, cookie: u64 },
}

/// A response that its transaction passes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    pub client: ClientKey,
    /// What the user gave with the request.
    pub cookie: u64,
    /// The method of the request that is answered.
    pub method: Method,
}

/// What a transaction tells its user besides messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// No final response came: counts as 408 (§8.1.3.1). The transaction is gone.
    TimedOut { client: ClientKey, cookie: u64 },
    /// The request could not be sent: counts as 503 (§8.1.3.1). The transaction is gone.
    Unreachable { client: ClientKey, cookie: u64 },
    /// No ACK came for the final response of an INVITE. After a 2xx (`success`) the dialog is to be ended with BYE
    /// (§13.3.1.4).
    Unacknowledged { server: ServerKey, cookie: u64, success: bool },
    /// A response could not be sent. The transaction lives on (RFC 6026 §7.1), or is gone where it was no INVITE.
    Undelivered { server: ServerKey, cookie: u64 },
}

/// Who stands behind a client transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A user agent: a 2xx is heard once for each To tag, and its resends are answered with the ACK that the user gave.
    UserAgent,
    /// A proxy: every 2xx is heard, resends too, and goes upstream.
    Proxy,
}

/// A request to be sent in a transaction of its own.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub to: Destination,
    pub method: Method,
    pub role: Role,
    /// Comes back with everything that is heard of this request.
    pub cookie: u64,
}
