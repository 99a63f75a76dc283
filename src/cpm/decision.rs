//! What a procedure decided: data, carried out by `shard` alone.

use super::headers::Field;
use super::media_plan::MediaPlan;
use crate::mime::multipart::Part;
use crate::sip::header::session_expires::Refresher;

/// What becomes of an initial request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Back-to-back user agent: one or more legs are invited.
    Bridge(Box<Bridge>),
    /// Stateful record-routing proxy; the message is forwarded as it is.
    Proxy(Proxy),
    /// We are the endpoint (8.3.1.5 without a target leg): receive over MSRP, then store or defer.
    Receive(Box<Receive>),
    /// A MESSAGE goes on to these targets (Pager Mode).
    Message(Box<Messages>),
    /// A MESSAGE is kept by us: deferred or stored.
    KeepMessage { purpose: Purpose, answer: Box<Answer> },
}

/// A back-to-back session to be made.
#[derive(Clone, Debug)]
pub struct Bridge {
    pub service: Service,
    /// Invited in parallel.
    pub targets: Vec<Invite>,
    pub answer: AnswerTime,
    /// What a 200 that comes after the first one means.
    pub later: LaterSuccess,
    pub ack: AckTime,
    /// Delivery policies were tried for this request already (they run once).
    pub policies_done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Service {
    Pager,
    LargeMessage,
    Session,
    GroupSession,
}

#[derive(Clone, Debug)]
pub enum AnswerTime {
    /// The origin is answered on the first 200 of a target.
    OnFirst,
    /// The origin is answered at once with this (TSI-8.a), before any target is invited.
    Early(Box<Answer>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaterSuccess {
    /// It joins: all clients get the messages.
    Join,
    /// ACK, then BYE; pending ones are cancelled.
    Bye,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckTime {
    /// As soon as the 200 comes.
    AtOnce,
    /// When the origin's ACK comes (OSI-r6).
    WithOrigin,
}

/// Who is invited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetKind {
    /// The recipient, through the core.
    Recipient,
    /// A registered client of the served user: its index in the facts, instance and contact.
    Client {
        instance: Option<String>,
        contact: String,
    },
    /// Another client of the originator (OSI-r8). Its failure never touches the session.
    OwnClient {
        instance: Option<String>,
        contact: String,
    },
    Isf,
    /// The streams the ISF rejected (OSI-r1): a session of its own beside the first.
    IsfRetry,
    /// The address of an `allow-forward` rule.
    Forward,
}

impl TargetKind {
    /// Whether it is on the recipient's side: its answer is the origin's, and the session lives as long as one of these does.
    pub const fn is_recipients(&self) -> bool {
        !matches!(self, TargetKind::OwnClient { .. } | TargetKind::IsfRetry)
    }
}

/// Where the first hop is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NextHop {
    /// The rest of the received route set, else `sip.core`, else `fallback` (a client's contact URI), else RFC 3263 on
    /// the Request-URI.
    Core { fallback: Option<String> },
    /// `sip.isf`, as the only Route.
    Isf,
}

/// A Contact header to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contact {
    /// The value octet for octet; the shard adds our Record-Route (C17-3).
    Copied(String),
    /// Our own URI, with these header parameters (";+g.3gpp.icsi-ref=…" or ""), able to resolve back to `stands_for`.
    Own { params: String, stands_for: Option<String> },
}

/// `Session-Expires` to be written (RFC 4028 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionExpires {
    /// Seconds.
    pub delta_s: u32,
    pub refresher: Refresher,
}

impl SessionExpires {
    /// `refresher=uac`: whoever sends the request refreshes.
    pub const fn uac(delta_s: u32) -> Self {
        Self { delta_s, refresher: Refresher::Uac }
    }

    /// `refresher=uas`: whoever answers the request refreshes.
    pub const fn uas(delta_s: u32) -> Self {
        Self { delta_s, refresher: Refresher::Uas }
    }
}

/// An INVITE for one target, all but what belongs to the dialog and the hop: the shard adds Via, Max-Forwards, Route,
/// Record-Route, tags, Call-ID, CSeq, Contact and Content-Length.
#[derive(Clone, Debug)]
pub struct Invite {
    pub kind: TargetKind,
    pub request_uri: String,
    pub next_hop: NextHop,
    /// From and To values without tag.
    pub from: String,
    pub to: String,
    pub contact: Contact,
    pub session_expires: Option<SessionExpires>,
    /// All other header fields in order, Supported, User-Agent, Accept-Contact, P-Asserted-Service … among them;
    /// never Content-Type, which follows from the body.
    pub headers: Vec<Field>,
    /// The offer; the shard gives it our MSRP URIs.
    pub media: MediaPlan,
    /// Body parts beside the SDP (recipient-list, recipient-list-history).
    pub parts: Vec<Part>,
}

/// A 2xx for the origin; the shard adds what belongs to the transaction, the dialog and the hop.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 200 or 202.
    pub status: u16,
    /// None for a MESSAGE.
    pub contact: Option<Contact>,
    pub session_expires: Option<SessionExpires>,
    /// `Require: timer` stands (RFC 4028 §9, table 2).
    pub require_timer: bool,
    pub headers: Vec<Field>,
    pub media: Option<MediaPlan>,
}

/// We receive the message ourselves.
#[derive(Clone, Debug)]
pub struct Receive {
    pub purpose: Purpose,
    pub answer: Answer,
}

/// What becomes of a message that we receive as endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// 8.3.1.6.
    Defer,
    /// Message Storage Server; where that refuses, defer.
    Store,
}

/// Proxy mode: forwarded with Via, Record-Route and Max-Forwards; nothing else is touched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proxy {
    pub record_route: bool,
    pub next_hop: NextHop,
    /// Further or other values for the request: the Request-URI of each branch (empty: as received), and header edits
    /// that a clause demands (P-Asserted-Service for P-Preferred-Service).
    pub request_uris: Vec<String>,
    pub remove: Vec<&'static str>,
    pub add: Vec<Field>,
}

/// MESSAGE requests to be sent in parallel; the first 2xx is the answer.
#[derive(Clone, Debug)]
pub struct Messages {
    pub targets: Vec<OutMessage>,
}

/// One MESSAGE, all but dialog and hop.
#[derive(Clone, Debug)]
pub struct OutMessage {
    pub kind: TargetKind,
    pub request_uri: String,
    pub next_hop: NextHop,
    pub from: String,
    pub to: String,
    pub headers: Vec<Field>,
    pub content_type: String,
    pub body: Vec<u8>,
}

/// What follows once the origin was answered.
#[derive(Clone, Debug)]
pub enum FollowUp {
    /// CR 8.5: record the conversation into this user's store.
    RecordHistory { user: String, sent: bool },
    /// OSI-r1: a second session for the streams the ISF rejected.
    Retry(Box<Invite>),
    /// OSI-r8: other clients of the originator join the session.
    OwnClients(Vec<Invite>),
}
