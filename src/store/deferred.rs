//! CR 8.3.1.6: a deferred message as it is kept.

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
    /// The sender wants a negative delivery notification (RFC 5438) when it expires.
    pub negative_delivery: bool,
    /// Deliveries begun so far.
    pub attempts: u32,
}

/// How it came and how it goes out again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DeferredService {
    LargeMessage,
    Pager,
}
