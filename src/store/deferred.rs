//! CR 8.3.1.6: a deferred message as it is kept.

use crate::limits::NOTICE_TIME;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Names a deferred message in all nodes: 128 random bits as text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DeferredId(pub String);

/// A message that waits for its recipient. The body is a file of `octets` octets, kept octet for octet.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Deferred {
    pub id: DeferredId,
    /// The served user (normalised address) whose client will get it.
    pub user: String,
    pub arrived_s: u64,
    /// Seconds since the Unix epoch after which it is deleted.
    pub expires_s: u64,
    pub service: DeferredService,
    /// Header fields of the original request that are sent again, in order: name and value.
    pub headers: Vec<(String, String)>,
    /// From and To of the original, without tags.
    pub from: String,
    pub to: String,
    /// Content-Type of the message body.
    pub content_type: String,
    pub message_id: String,
    pub octets: u64,
    /// Where the body lies on this node; not part of what other nodes read.
    #[serde(default)]
    pub file: PathBuf,
    /// The body of a MESSAGE, which no media core spooled: given with `Defer` in place of `file`, and given back with
    /// `Claim`.
    #[serde(skip)]
    pub inline: Option<Box<[u8]>>,
    /// Body parts that go out beside the SDP (recipient-list-history).
    #[serde(default)]
    pub parts: Vec<KeptPart>,
    /// The sender wants to hear when it expires undelivered (RFC 5438 "negative-delivery"): what to say, and to whom.
    pub negative_delivery: Option<Notice>,
    /// Deliveries begun so far.
    pub attempts: u32,
}

/// A MIME part kept as it came: header fields and text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeptPart {
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// What a negative delivery notification has to name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notice {
    /// `imdn.Message-ID` of the message.
    pub about: String,
    /// `DateTime` of the message as written.
    pub sent: Option<String>,
    /// URIs of its From and To.
    pub originator: String,
    pub recipient: String,
    /// `imdn.Original-To`, else the same as `recipient`.
    pub original_recipient: String,
}

/// How it came and how it goes out again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DeferredService {
    LargeMessage,
    Pager,
}

impl DeferredId {
    /// Whether it may name a file: 1 to 64 characters of `[0-9A-Za-z_-]`.
    pub fn is_plain(&self) -> bool {
        let plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        (1..=64).contains(&self.0.len()) && self.0.bytes().all(plain)
    }
}

impl Deferred {
    /// Whether its time is over.
    pub fn is_expired(&self, now_s: u64) -> bool {
        self.expires_s <= now_s
    }

    /// Whether its sender has to hear that its time is over before it is deleted. There is an end to trying: a sender that
    /// nobody reaches for a day is not told.
    pub fn is_to_be_told(&self, now_s: u64) -> bool {
        self.negative_delivery.is_some() && now_s < self.expires_s.saturating_add(NOTICE_TIME.as_secs())
    }

    /// Seconds that are left to it: Message-Expires when it goes out again.
    pub fn remaining_s(&self, now_s: u64) -> u64 {
        self.expires_s.saturating_sub(now_s)
    }
}
