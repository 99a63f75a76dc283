//! The call record (CDR): one line a finished session, and one a refusal.

use crate::base::clock::Instant;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::message::Request;
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

impl Cdr {
    /// The record of an initial request that was refused before a session came of it.
    pub fn refused(
        now: Instant,
        labels: (&'static str, &'static str),
        request: &Request,
        status: u16,
        cause: &'static str,
    ) -> Self {
        let text = |name: Name| request.header(name).map(str::to_string);
        let address = |value: &str| NameAddr::parse(value).map_or(String::new(), |address| address.uri.to_string());
        let originator = request.values(Name::PAssertedIdentity).next().or_else(|| request.header(Name::From));
        Self {
            case: labels.0,
            service: labels.1,
            call_id: request.call_id().unwrap_or("").to_string(),
            originator: originator.map_or(String::new(), address),
            recipient: request.uri().to_string(),
            conversation_id: text(Name::ConversationId),
            contribution_id: text(Name::ContributionId),
            started_s: now.unix_s(),
            status,
            cause,
            ..Self::default()
        }
    }
}

/// Refused requests of one turn that differ in little: their records, packed, so that a flood of them costs no box each.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    /// Call-ID, originator and recipient of each, one behind the other.
    text: String,
    each: Vec<Refused>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    labels: (&'static str, &'static str),
    started_s: u64,
    status: u16,
    cause: &'static str,
    /// Where its three texts end.
    ends: [usize; 3],
}

impl Refusals {
    /// `labels`: case and service; `texts`: Call-ID, originator and recipient.
    pub fn add(
        &mut self,
        now: Instant,
        labels: (&'static str, &'static str),
        texts: [&str; 3],
        status: u16,
        cause: &'static str,
    ) {
        let ends = texts.map(|text| {
            self.text.push_str(text);
            self.text.len()
        });
        self.each.push(Refused { labels, started_s: now.unix_s(), status, cause, ends });
    }

    pub fn len(&self) -> usize {
        self.each.len()
    }

    pub fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The records, in the order in which they were added.
    pub fn records(&self) -> impl Iterator<Item = Cdr> + '_ {
        let mut start = 0;
        self.each.iter().map(move |refused| {
            let [call_id, originator, recipient] = refused.ends.map(|end| {
                let text = self.text[start..end].to_string();
                start = end;
                text
            });
            Cdr {
                case: refused.labels.0,
                service: refused.labels.1,
                call_id,
                originator,
                recipient,
                started_s: refused.started_s,
                status: refused.status,
                cause: refused.cause,
                ..Cdr::default()
            }
        })
    }
}
