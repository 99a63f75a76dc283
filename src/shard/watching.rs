//! What operators are shown of a core's sessions: the list, a call's ladder, and which messages and media belong to a call.

use super::exchange::MediaKey;
use super::ladder::StepView;
use super::record::Cdr;
use super::sessions::Session;
use super::signalling::Signalling;
use serde::Serialize;

/// One line of `GET /sessions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SessionView {
    pub case: &'static str,
    pub service: &'static str,
    pub state: &'static str,
    pub originator: String,
    pub recipient: String,
    pub call_id: String,
    pub conversation_id: Option<String>,
    pub contribution_id: Option<String>,
    pub targets: Vec<String>,
    pub started_s: u64,
}

impl Signalling {
    /// Sessions alive, at most `limit` of them.
    pub fn sessions(&self, limit: usize) -> Vec<SessionView> {
        self.sessions.table.iter().take(limit).map(|(_, session)| session.view()).collect()
    }

    /// What was said in the call that began with this Call-ID.
    pub fn ladder(&self, call_id: &str) -> Option<Vec<StepView>> {
        self.ladders.steps(call_id)
    }

    /// Whether a message that was received or sent belongs to the call that began with this Call-ID, on whichever leg.
    pub fn is_of_call(&self, message: &[u8], sent: bool, call_id: &str) -> bool {
        self.ladders.is_of(message, sent, call_id)
    }

    /// The Call-ID with which the call began that a message belongs to; known where `sip.hep` stands.
    pub fn beginning(&self, message: &[u8], sent: bool) -> Option<&str> {
        self.ladders.beginning(message, sent)
    }

    /// Media cores and sessions of the session whose dialog a message belongs to.
    pub fn media_of_message(&self, message: &[u8], sent: bool) -> Vec<(u8, MediaKey)> {
        let tag = super::ladder::local_tag(message, sent);
        let session = tag.and_then(|tag| self.sessions.tags.get(tag)).and_then(|(key, _)| self.sessions.table.get(*key));
        session.map(media_of).unwrap_or_default()
    }

    /// Media cores and sessions of the call that began with this Call-ID. Looks through all of them.
    pub fn media_of_call(&self, call_id: &str) -> Vec<(u8, MediaKey)> {
        let all = self.sessions.table.iter().map(|(_, session)| session);
        all.filter(|session| &*session.origin().dialog.id().call_id == call_id).flat_map(media_of).collect()
    }

    /// Records of the calls that ended last, the latest first.
    pub fn recent(&self) -> Vec<Cdr> {
        self.ladders.recent()
    }
}

fn media_of(session: &Session) -> Vec<(u8, MediaKey)> {
    session.streams.iter().map(|stream| (stream.core, stream.key)).collect()
}
