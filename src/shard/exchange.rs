//! The language between the engines: what a signalling shard says to a media shard and hears back, and what it asks
//! of the services.
//!
//! ```text
//! signalling --Command--> media          one bounded lane each way; a full lane refuses the INVITE that needed it (503)
//! signalling <--Report--- media
//! signalling --Query----> services       answered once, under the ticket it was asked with
//! signalling <--Fetched-- services
//! ```

use crate::base::transport::Transport;
use crate::msrp::leg::{Direction, Matching, Peer, SessionKind};
use crate::store::deferred::{Deferred, DeferredId};
use crate::store::history::Object;
use crate::store::registrant::Registrant;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// A relayed MSRP session (one `m=message` line). The signalling shard that opened it is in the top eight bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MediaKey(pub u64);

impl MediaKey {
    /// The signalling shard to which reports about this session go.
    pub const fn shard(self) -> u8 {
        (self.0 >> 56) as u8
    }
}

/// A leg within its session: 0 is the origin, the leg the INVITE came in on; targets follow.
pub type LegIndex = u8;

/// From a signalling shard to the media shard that owns the session.
#[derive(Debug)]
pub enum Command {
    /// A new session with its origin leg. From here on a connection may name its session id.
    Open(Box<Open>),
    /// A further leg: a target, a sink or a source. Its id is good from here on.
    Leg { session: MediaKey, leg: Box<Leg> },
    /// The peer's side of a leg became known (offer for the origin, answer for a target); may come twice, the later
    /// replaces the earlier (re-INVITE). Where `peer.connect` is set the media shard connects now.
    Bind { session: MediaKey, leg: LegIndex, peer: Box<Peer> },
    /// A leg is out of the session: its INVITE failed, or it said BYE. Others go on.
    Release { session: MediaKey, leg: LegIndex },
    /// A sink's message is durable and indexed (`status` 200), or could not be kept (413, 500 …): answer its last chunk.
    Acknowledge { session: MediaKey, leg: LegIndex, message_id: Box<str>, status: u16 },
    /// The SIP session ends. What was accepted goes out first, at most two seconds after its last progress, and what the
    /// leg whose peer said BYE (`left`) sent before that is still accepted; then connections close and
    /// [`Report::Closed`] is the last word about the session. With `awaited` the other legs' BYE waits for that word.
    Close { session: MediaKey, left: Option<LegIndex>, awaited: bool },
}

/// Opens a session.
#[derive(Debug)]
pub struct Open {
    pub session: MediaKey,
    pub kind: SessionKind,
    /// Octets of one message above which the sender gets 413 (`msrp.max_message`, or less by `a=max-size`).
    pub max_message: u64,
    pub origin: Leg,
}

/// Our side of a leg.
#[derive(Debug)]
pub struct Leg {
    pub leg: LegIndex,
    pub kind: LegKind,
    /// Whether content may come from this leg's peer, and go to it (RFC 4975 §8.9).
    pub direction: Direction,
    pub matching: Matching,
}

/// What stands at the far end of a leg.
#[derive(Debug)]
pub enum LegKind {
    /// An MSRP peer. `uri` is ours, octet for octet as it stands in our `a=path`
    /// ("msrp://host:port/session-id;tcp"); the session id begins with the two hex digits of the media core.
    Msrp { uri: Box<str>, tls: bool },
    /// We are the endpoint: each message goes to a file of its own in `directory` and is reported when it is on disk
    /// ([`Report::Stored`]). With `hold` the last chunk is answered only after [`Command::Acknowledge`]. What is not among
    /// `accept_types`, as in our `a=accept-types`, is refused with 415; empty: nothing is.
    Sink { directory: PathBuf, hold: bool, accept_types: Box<str> },
    /// We are the sender: the file is sent as one message to all other legs once one of them is bound.
    Source(Box<Source>),
}

/// A stored message to be sent.
#[derive(Clone, Debug)]
pub struct Source {
    pub file: PathBuf,
    /// Octets of the body.
    pub octets: u64,
    pub content_type: Box<str>,
    pub message_id: Box<str>,
}

/// From a media shard to the signalling shard that opened the session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// A connection carries the leg now.
    Bound { session: MediaKey, leg: LegIndex },
    /// The leg cannot go on; the signalling shard ends its dialog.
    LegFailed { session: MediaKey, leg: LegIndex, cause: LegFailure },
    /// A whole message has gone to this leg and every chunk of it was acknowledged (or needed no acknowledgement). Told in
    /// Large Message sessions and for every source's message; the messages of a chat are not told one by one.
    Delivered { session: MediaKey, leg: LegIndex, message_id: Box<str>, octets: u64 },
    /// A source's message was refused by this leg with `status`, or not answered in time (408).
    Undelivered { session: MediaKey, leg: LegIndex, message_id: Box<str>, status: u16 },
    /// A sink holds a whole message on disk (fdatasync done).
    Stored(Box<Stored>),
    /// No chunk for `msrp.idle_timeout`.
    Idle { session: MediaKey },
    /// The session is gone; its totals for the CDR.
    Closed { session: MediaKey, totals: Totals },
}

impl Report {
    /// The session it is about.
    pub const fn session(&self) -> MediaKey {
        match self {
            Report::Bound { session, .. }
            | Report::LegFailed { session, .. }
            | Report::Delivered { session, .. }
            | Report::Undelivered { session, .. }
            | Report::Idle { session }
            | Report::Closed { session, .. } => *session,
            Report::Stored(stored) => stored.session,
        }
    }
}

/// Why a leg failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LegFailure {
    /// No connection within `msrp.connect_timeout`, or refused.
    Connect,
    /// TLS handshake or fingerprint.
    Tls,
    /// Reset or closed by the peer while the session was alive.
    Closed,
    /// The peer answered 481 or 506: it does not know the session.
    Unknown,
    /// The peer broke the framing.
    Malformed,
    /// The peer did not take data for `msrp.transaction_timeout`.
    Stalled,
    /// A sink or source could not write or read its file.
    Disk,
}

/// A message kept by a sink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    pub session: MediaKey,
    pub leg: LegIndex,
    pub file: PathBuf,
    pub octets: u64,
    pub message_id: Box<str>,
    pub content_type: Box<str>,
    /// The beginning of the body, at most [`crate::limits::STORED_HEAD_OCTETS_MAX`]: what CPIM says is read from it.
    pub head: Box<[u8]>,
    /// The sender asked for a success REPORT.
    pub success_report: bool,
    /// Leg the message came from.
    pub from: LegIndex,
}

/// What a session moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Chunks from the origin towards the targets, and the other way.
    pub chunks: [u64; 2],
    /// Octets of message bodies, likewise.
    pub octets: [u64; 2],
    /// Messages completed, likewise.
    pub messages: [u64; 2],
}

/// Names a question so that its answer finds the transaction that waits; an old ticket finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

impl Ticket {
    /// Of what the services say unasked ([`Fetched::Expired`], [`Fetched::Lapsed`]). No question is asked under it.
    pub const UNASKED: Ticket = Ticket(u64::MAX);
}

/// What a signalling shard asks of the services thread. Each gets exactly one [`Fetched`].
#[derive(Clone, Debug)]
pub enum Query {
    /// An XCAP document (RFC 4825), `AUID/users/XUI/DOCUMENT`; with the ETag of the copy at hand.
    Document { auid: &'static str, xui: Box<str>, document: Box<str>, etag: Option<Box<str>> },
    /// A list named by an absolute URI (`external/@anchor`).
    External { uri: Box<str> },
    /// RFC 3263: where requests for this host go.
    Resolve { host: Box<str>, port: Option<u16>, transport: Option<Transport>, sips: bool },
    /// Keep a deferred message: index it durably; its body file is moved from the spool into the store.
    Defer(Box<Deferred>),
    /// Messages that wait for a user, oldest first, at most `limits::WAITING_MAX`.
    Waiting { user: Box<str> },
    /// Take a message for delivery: exactly one node gets it until it is delivered, returned, or the lease runs out.
    Claim { id: DeferredId },
    /// The message was delivered or its time is over: delete it.
    Remove { id: DeferredId },
    /// Delivery failed for now: give the claim back, not to be tried before this many seconds have gone.
    Return { id: DeferredId, retry_after_s: u32 },
    /// CR 8.5: put an object into the user's history. Answered when it is stored or queued durably for a store that is away;
    /// where the store refuses, its body stays where it is.
    Record(Box<Object>),
    /// The same for a copy that nobody would keep otherwise: what the store refuses it is offered again, for some days.
    Copy(Box<Object>),
    /// Keep a registered user for the next start, in place of what was known of it.
    Register(Box<Registrant>),
    /// Forget one.
    Deregister { user: Box<str> },
    /// Users of a core that registered before and still are, in the order of their addresses from after this one on; at most
    /// [`crate::limits::REGISTRANTS_PAGE`], fewer where there are no more.
    Registrants { core: u8, after: Option<Box<str>> },
}

impl Query {
    /// The answer to a question that could not be asked, or not be worked on.
    pub const fn unanswered(&self) -> Fetched {
        match self {
            Query::Document { .. } | Query::External { .. } => Fetched::Document(Document::Failed),
            Query::Resolve { .. } => Fetched::Resolved(Vec::new()),
            Query::Claim { .. } => Fetched::Claimed(None),
            Query::Record(_) | Query::Copy(_) => Fetched::Recorded(Err(StoreFailure::Unavailable)),
            Query::Defer(_)
            | Query::Waiting { .. }
            | Query::Remove { .. }
            | Query::Return { .. }
            | Query::Register(_)
            | Query::Deregister { .. }
            | Query::Registrants { .. } => Fetched::Kept(Err(StoreFailure::Unavailable)),
        }
    }
}

/// An answer of the services thread.
#[derive(Clone, Debug)]
pub enum Fetched {
    Document(Document),
    /// In the order in which they are to be tried; empty: the name does not exist or did not resolve.
    Resolved(Vec<Resolved>),
    /// For `Defer`, `Remove`, `Return`, `Register`, `Deregister`: done, or why not.
    Kept(Result<(), StoreFailure>),
    Waiting(Vec<Deferred>),
    /// The message, when the claim is ours; with the path of its body file, fetched to this node where needed.
    Claimed(Option<Box<Deferred>>),
    /// For `Record` and `Copy`: the UID in the Message Storage Server, where it gave one.
    Recorded(Result<Option<u32>, StoreFailure>),
    Registrants(Vec<Registrant>),
    /// Unasked: the time of a deferred message is over, and its sender wants to hear of it. It is nobody's any more, and stays in
    /// the store until `Remove` says that the sender was told, or `Return` that it is to be told later.
    Expired(Box<Deferred>),
    /// Unasked, to the core that claimed the message: the claim is over soon and could not be renewed. Its delivery must end, since
    /// another node may begin with one.
    Lapsed(DeferredId),
}

/// One address of RFC 3263.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resolved {
    pub transport: Transport,
    pub address: SocketAddr,
}

/// What became of a document request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Document {
    Found {
        body: Box<[u8]>,
        etag: Option<Box<str>>,
    },
    /// The copy at hand is still good.
    NotModified,
    /// 404: the user has no such document.
    Absent,
    /// Server away, time limit, 401, 5xx.
    Failed,
}

/// Why a store refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StoreFailure {
    /// The user's quota or the store's (413 on the MSRP side).
    Quota,
    /// Disk full, store away, I/O error.
    Unavailable,
    /// No such message.
    Unknown,
}
