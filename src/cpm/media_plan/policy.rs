//! TSI-5, and `policy.media`, `policy.media_formats`: which media an operator allows in sessions.

use super::{Unacceptable, described};
use crate::config::Config;
use crate::cpm::refusal::Refusal;
use crate::cpm::release::fits;
use crate::sdp::description::{Description, MediaDescription};
use crate::sip::message::Request;
use std::rc::Rc;

/// The media of an offer that the operator allows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionMedia {
    others: Vec<String>,
}

impl SessionMedia {
    /// Checks every m-line that is offered (port not 0).
    ///
    /// # Errors
    /// [`Unacceptable::MediaType`], [`Unacceptable::Format`]; [`Unacceptable::NoMsrp`] where nothing is offered.
    pub(super) fn of(config: &Config, offered: &Description) -> Result<Self, Unacceptable> {
        let mut media = Self::default();
        let mut any = false;
        for line in offered.media.iter().filter(|line| line.port != 0) {
            any = true;
            if !config.policy.media.iter().any(|allowed| allowed.eq_ignore_ascii_case(&line.media)) {
                return Err(Unacceptable::MediaType);
            }
            if !config.policy.media_formats.is_empty() && line.is_msrp() && formats(config, line).is_empty() {
                return Err(Unacceptable::Format);
            }
            if !line.media.eq_ignore_ascii_case("message") {
                media.others.push(line.media.to_ascii_lowercase());
            }
        }
        if any { Ok(media) } else { Err(Unacceptable::NoMsrp) }
    }

    /// Media types other than `message`, in lower case, one for each line: "audio".
    pub fn others(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(String::as_str)
    }
}

/// What a session offers, where the operator allows it.
///
/// # Errors
/// 488 where a media type or every format is not allowed, or no SDP is there; 400 where it cannot be read.
pub fn session_media(config: &Config, request: &Request, clause: &'static str) -> Result<SessionMedia, Refusal> {
    described(request).and_then(|offered| SessionMedia::of(config, &offered)).map_err(|why| why.refusal(clause))
}

/// Types of `a=accept-types` that the operator allows; "*" and no types at all mean all that are.
fn formats(config: &Config, line: &MediaDescription) -> Vec<String> {
    let allowed = &config.policy.media_formats;
    let offered = line.accept_types();
    if offered.is_empty() || offered.contains(&"*") {
        return if allowed.is_empty() { vec!["*".to_string()] } else { allowed.clone() };
    }
    let fitting = offered.iter().filter(|kind| allowed.is_empty() || allowed.iter().any(|pattern| fits(pattern, kind)));
    fitting.map(|kind| kind.to_string()).collect()
}

/// Takes out of every MSRP line the types that the operator does not allow.
pub(super) fn keep_allowed_formats(config: &Config, offered: &mut Rc<Description>) {
    if config.policy.media_formats.is_empty() {
        return;
    }
    for line in Rc::make_mut(offered).media.iter_mut().filter(|line| line.is_msrp()) {
        line.set("accept-types", formats(config, line).join(" "));
    }
}
