//! The call record (CDR): one line a finished session, and one a refusal.

use serde::Serialize;

/// One finished session or refused request. Times are seconds since the Unix epoch, durations milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cdr {
    /// "originating" or "terminating".
    pub case: &'static str,
    /// "large-message", "session", "pager", "proxy".
    pub service: &'static str,
    /// Call-ID of the leg the INVITE came in on, and of each leg made.
    pub call_id: String,
    pub target_call_ids: Vec<String>,
    pub originator: String,
    pub recipient: String,
    pub conversation_id: Option<String>,
    pub contribution_id: Option<String>,
    pub started_s: u64,
    pub duration_ms: u64,
    /// Final status of the INVITE.
    pub status: u16,
    /// Clause id of the refusal, or what ended the session: "bye-origin", "bye-target", "timer", "media", "drain" …
    pub cause: &'static str,
    pub chunks_forward: u64,
    pub chunks_backward: u64,
    pub octets_forward: u64,
    pub octets_backward: u64,
}
