//! CR 5.2.1.2: answers, from what a target answered, or our own where no target is asked.

use super::offer::classified;
use super::policy;
use super::within::Side;
use super::{Line, MediaPlan, Unacceptable, by_lines, described, is_large_message, lower_max_size, rejected, relayed};
use crate::config::Config;
use crate::msrp::leg::SessionKind;
use crate::sdp::description::{Description, MediaDescription};
use crate::sdp::message_media::{Direction, Setup};
use crate::sip::message::{Message, Request};
use std::rc::Rc;

/// The answer for the origin of a Large Message, from a target's 2xx (OLM-r5, EMS-1.e).
///
/// # Errors
/// The 2xx brings no SDP that takes the message.
pub fn large_message_answer(config: &Config, request: &Request, ok: &Message) -> Result<MediaPlan, Unacceptable> {
    from_target(config, SessionKind::LargeMessage, &*described(request)?, described(ok)?)
}

/// The answer for the origin where the target's 2xx takes none of the lines: each with port 0 (RFC 3264 §6). None where that is not
/// what it says.
pub fn large_message_refused_answer(request: &Request, ok: &Message) -> Option<MediaPlan> {
    let (offered, answered) = (described(request).ok()?, described(ok).ok()?);
    let refuses = answered.media.len() >= offered.media.len() && answered.media.iter().all(|media| media.port == 0);
    let description = Description {
        name: "-".into(),
        times: offered.times.clone(),
        media: offered.media.iter().map(refused).collect(),
        ..Description::default()
    };
    let lines = vec![Line::Rejected; description.media.len()];
    refuses.then_some(MediaPlan { description, lines })
}

/// The answer for the origin of a session, from a target's 2xx (OSI-r4).
///
/// # Errors
/// The 2xx brings no SDP that takes a stream.
pub fn session_answer(config: &Config, request: &Request, ok: &Message) -> Result<MediaPlan, Unacceptable> {
    from_target(config, SessionKind::Session, &*described(request)?, described(ok)?)
}

/// Our own answer to a Large Message that is for us: to be stored or deferred.
///
/// # Errors
/// The offer cannot be taken.
pub fn large_message_own_answer(config: &Config, request: &Request) -> Result<MediaPlan, Unacceptable> {
    ours(config, SessionKind::LargeMessage, described(request)?)
}

/// Our own answer to a session, before any client was asked (TSI-8.a).
///
/// # Errors
/// The offer cannot be taken, or the operator's policy forbids its media.
pub fn session_own_answer(config: &Config, request: &Request) -> Result<MediaPlan, Unacceptable> {
    let mut offered = described(request)?;
    policy::keep_allowed_formats(config, &mut offered);
    ours(config, SessionKind::Session, offered)
}

fn from_target(
    config: &Config,
    kind: SessionKind,
    offered: &Description,
    answered: Rc<Description>,
) -> Result<MediaPlan, Unacceptable> {
    let lines = classified(config, kind, offered)?;
    answering(config, &Manner::of_first(kind), offered, lines, answered)
}

/// How an answer is written where it is ours.
pub(super) struct Manner {
    pub kind: SessionKind,
    /// Whose offer is answered: a Large Message goes from the origin to the targets.
    pub toward: Side,
    pub setup: Setup,
}

impl Manner {
    /// The first answer of a session is for the origin, and passive (OLM-r5.d, EMS-1.e.iv, OSI-r4).
    const fn of_first(kind: SessionKind) -> Self {
        Self { kind, toward: Side::Origin, setup: Setup::Passive }
    }
}

/// An answer with the lines of `offered`, as `answered` took them on another leg.
pub(super) fn answering(
    config: &Config,
    manner: &Manner,
    offered: &Description,
    mut lines: Vec<Line>,
    answered: Rc<Description>,
) -> Result<MediaPlan, Unacceptable> {
    let mut answered = by_lines(answered);
    let mut answers = std::mem::take(&mut answered.media).into_iter();
    let mut media = Vec::with_capacity(lines.len());
    for (offer, line) in offered.media.iter().zip(&mut lines) {
        let taken = answers.next().filter(|taken| *line != Line::Rejected && taken.port != 0);
        // RFC 3264 §6: the answer has the offer's media and transport; another means the line is not taken.
        let taken = taken.filter(|taken| *line == Line::Untouched || (taken.is_msrp() && !taken.path().is_empty()));
        media.push(match taken {
            Some(taken) if *line == Line::Relayed => answer_line(config, manner, offer, taken),
            Some(taken) => taken,
            None => {
                *line = Line::Rejected;
                refused(offer)
            }
        });
    }
    if lines.iter().all(|line| *line == Line::Rejected) {
        return Err(Unacceptable::Rejected);
    }
    // RFC 3264 §6: the t= line of the answer equals that of the offer.
    let description = Description { media, times: offered.times.clone(), ..answered };
    Ok(MediaPlan { description, lines })
}

/// `taken` is how the line was answered elsewhere (or what we take ourselves).
fn answer_line(config: &Config, manner: &Manner, offer: &MediaDescription, mut taken: MediaDescription) -> MediaDescription {
    relayed(&mut taken);
    taken.protocol.clone_from(&offer.protocol);
    if is_large_message(manner.kind) {
        taken.set_direction(if manner.toward == Side::Origin { Direction::RecvOnly } else { Direction::SendOnly });
    }
    taken.set_setup(manner.setup);
    // RFC 6714 §4.3: only who saw it offered may answer it.
    if offer.msrp_cema() {
        taken.set_flag("msrp-cema");
    }
    lower_max_size(config, &mut taken);
    taken
}

fn refused(offer: &MediaDescription) -> MediaDescription {
    let mut line = offer.clone();
    rejected(&mut line);
    line
}

fn ours(config: &Config, kind: SessionKind, offered: Rc<Description>) -> Result<MediaPlan, Unacceptable> {
    let mut lines = classified(config, kind, &offered)?;
    // Media that is not ours cannot be answered by us.
    lines.iter_mut().filter(|line| **line == Line::Untouched).for_each(|line| *line = Line::Rejected);
    if lines.iter().all(|line| *line == Line::Rejected) {
        return Err(Unacceptable::Rejected);
    }
    let manner = Manner::of_first(kind);
    let taken = by_lines(offered.clone());
    let media = taken.media.iter().zip(&offered.media).zip(&lines).map(|((taken, offer), line)| match line {
        Line::Relayed => answer_line(config, &manner, offer, own_line(offer, taken)),
        Line::Untouched | Line::Rejected => refused(offer),
    });
    let media = media.collect();
    let attributes = taken.attributes.iter().filter(|a| a.is("group")).cloned().collect();
    let description = Description { name: "-".into(), times: offered.times.clone(), attributes, media, ..Description::default() };
    Ok(MediaPlan { description, lines })
}

/// Attributes of an offer that an answer of our own repeats: what it takes is what is offered. RFC 5547 §8.3.1: selectors
/// and file-transfer-id are repeated.
const REPEATED: [&str; 5] = ["accept-types", "accept-wrapped-types", "file-selector", "file-transfer-id", "mid"];

fn own_line(offer: &MediaDescription, with_direction: &MediaDescription) -> MediaDescription {
    let mut own = MediaDescription { others: Vec::new(), ..offer.clone() };
    own.attributes.retain(|a| REPEATED.iter().any(|name| a.is(name)));
    own.set_direction(with_direction.direction().unwrap_or_default().reversed());
    own
}
