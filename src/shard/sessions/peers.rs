//! The SDP that a peer sent: found in its message, compared with the one before; and the media core is told who is at the far end.

use super::Session;
use super::streams::push;
use crate::base::hash::Spread;
use crate::cpm::media_plan::described;
use crate::cpm::session_matching::{self, Ours};
use crate::mime::multipart;
use crate::shard::exchange::{Command, LegIndex};
use crate::shard::outbox::Outbox;
use crate::sip::header::name::Name;
use crate::sip::message::Message;
use std::borrow::Cow;
use std::hash::Hasher;

/// The SDP of a message: its body, or the part of a multipart one. None where there is none.
pub fn sdp_of(message: &Message) -> Option<Cow<'_, str>> {
    let body = message.body();
    if body.is_empty() {
        return None;
    }
    let content_type = message.header(Name::ContentType)?;
    match multipart::sdp_in(content_type, message.header(Name::ContentDisposition), body).ok()?? {
        Cow::Borrowed(sdp) => std::str::from_utf8(sdp).ok().map(Cow::Borrowed),
        Cow::Owned(sdp) => String::from_utf8(sdp).ok().map(Cow::Owned),
    }
}

/// Two SDPs of one digest are the same: a session refresh, not a change (RFC 4028 §7.4).
pub fn digest(sdp: &str) -> u64 {
    let mut spread = Spread::default();
    spread.write(sdp.as_bytes());
    spread.finish()
}

impl Session {
    /// Tells the media core who is at the far end of a leg, on each stream, by the SDP that came from there; a line that the peer rejected is released.
    /// False: no stream has a far end.
    pub(super) fn bind(&mut self, leg: LegIndex, message: &Message, out: &mut Outbox) -> bool {
        // Towards the origin we answered passive; to a target we offered actpass.
        self.bind_as(leg, if leg == 0 { Ours::Passive } else { Ours::ActPass }, message, out)
    }

    /// The same where the offer went the other way than at first.
    pub(super) fn bind_as(&mut self, leg: LegIndex, ours: Ours, message: &Message, out: &mut Outbox) -> bool {
        let Some(sdp) = sdp_of(message) else { return false };
        let Ok(description) = described(message) else { return false };
        self.legs[usize::from(leg)].remote_sdp = digest(&sdp);
        let mut bound = false;
        let mut rejected = Vec::new();
        for (index, stream) in self.streams.iter().enumerate().filter(|(_, stream)| stream.is_open()) {
            let Some(line) = self.legs[usize::from(leg)].line_of(index, stream) else { continue };
            let command = match session_matching::peer(self.interop, &description, line, ours) {
                Some(peer) => {
                    bound = true;
                    Command::Bind { session: stream.key, leg, peer: Box::new(peer) }
                }
                None if leg == 0 => continue,
                None => {
                    rejected.push(index);
                    Command::Release { session: stream.key, leg }
                }
            };
            push(out, stream, command);
        }
        for index in rejected {
            self.streams[index].rejected = true;
        }
        bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Request;

    #[test]
    fn an_sdp_is_found_whatever_letters_its_type_has() {
        let found = |content_type: &str, body: &str| {
            let text = format!("INVITE sip:b@x SIP/2.0\r\nContent-Type: {content_type}\r\n\r\n{body}");
            sdp_of(&Request::parse(text.as_bytes()).unwrap()).map(Cow::into_owned)
        };
        assert_eq!(found("Application/SDP;x=y", "v=0\r\n").as_deref(), Some("v=0\r\n"));
        let parts = "--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n";
        // The fifteenth octet is the first half of a letter.
        assert_eq!(found("multipart/abcdé;boundary=b", parts).as_deref(), Some("v=0"));
        assert_eq!(found("application/sdé", "v=0\r\n"), None);
    }
}
