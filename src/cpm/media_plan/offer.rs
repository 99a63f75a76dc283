//! CR 5.2.1.2: offers, from what was offered to us.

use super::policy::{self, SessionMedia};
use super::{Line, MediaPlan, Unacceptable, by_lines, described, is_large_message, lower_max_size, rejected, relayed};
use crate::base::transport::Transport;
use crate::config::{Config, Interop};
use crate::cpm::session_matching;
use crate::msrp::leg::SessionKind;
use crate::sdp::description::{Description, MediaDescription};
use crate::sdp::message_media::{Direction, Setup};
use crate::sip::message::{Message, Request};
use std::rc::Rc;

/// The offer for a target of a Large Message (OLM-7.i, TLM-6.c.x, TLM-7.k).
///
/// # Errors
/// The offer received cannot be taken.
pub fn large_message_offer(config: &Config, request: &Request) -> Result<MediaPlan, Unacceptable> {
    let offered = described(request)?;
    let lines = classified(config, SessionKind::LargeMessage, &offered)?;
    Ok(toward_target(config, SessionKind::LargeMessage, offered, lines))
}

/// The offer for a target of a session (OSI-4.l, TSI-8.d.viii).
///
/// # Errors
/// The offer received cannot be taken, or the operator's policy forbids its media.
pub fn session_offer(config: &Config, request: &Request) -> Result<MediaPlan, Unacceptable> {
    let mut offered = described(request)?;
    SessionMedia::of(config, &offered)?;
    policy::keep_allowed_formats(config, &mut offered);
    let lines = classified(config, SessionKind::Session, &offered)?;
    Ok(toward_target(config, SessionKind::Session, offered, lines))
}

/// The offer with those streams alone that an answer rejected (OSI-r1.b.ii). None: nothing was rejected.
///
/// # Errors
/// As [`session_offer`]; also where the answer cannot be read.
pub fn rejected_offer(config: &Config, request: &Request, answer: &Message) -> Result<Option<MediaPlan>, Unacceptable> {
    let answer = described(answer)?;
    let mut plan = session_offer(config, request)?;
    let refused = |index: usize| answer.media.get(index).is_none_or(|media| media.port == 0);
    let wanted: Vec<bool> =
        plan.lines.iter().enumerate().map(|(index, line)| *line != Line::Rejected && refused(index)).collect();
    let mut keep = wanted.iter();
    plan.lines.retain(|_| *keep.next().expect("one flag a line"));
    let mut keep = wanted.iter();
    plan.description.media.retain(|_| *keep.next().expect("one flag a line"));
    Ok((!plan.lines.is_empty()).then_some(plan))
}

/// The offer of a message that we hold ourselves (8.3.1.6): `octets` long, of one content type.
pub fn large_message_of(config: &Config, octets: u64, content_type: &str) -> MediaPlan {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut media = MediaDescription {
        media: "message".into(),
        protocol: "TCP/MSRP".into(),
        formats: vec!["*".into()],
        ..MediaDescription::default()
    };
    media.set_flag("sendonly");
    media.set("accept-types", essence.clone());
    if essence == "message/cpim" {
        media.set("accept-wrapped-types", "*");
    }
    media.set("file-selector", format!("size:{octets}"));
    media.set_setup(Setup::ActPass);
    media.set("path", "");
    if config.msrp.interop != Interop::Always {
        media.set_flag("msrp-cema");
    }
    let description = Description { name: "-".into(), media: vec![media], ..Description::default() };
    MediaPlan { description, lines: vec![Line::Relayed] }
}

/// What becomes of each m-line of an offer.
///
/// # Errors
/// No line is left that could be taken: why the first of them was not.
pub(super) fn classified(config: &Config, kind: SessionKind, offered: &Description) -> Result<Vec<Line>, Unacceptable> {
    let mut why = None;
    let mut found = false;
    let mut lines = Vec::with_capacity(offered.media.len());
    for media in &offered.media {
        let line = match acceptable(config, kind, offered, media) {
            // One message is one stream (RFC 5547 §8.2.1 has one file a line): a second is not taken.
            Ok(Line::Relayed) if is_large_message(kind) && found => Line::Rejected,
            Ok(line) => line,
            Err(reason) => {
                why = why.or(Some(reason));
                Line::Rejected
            }
        };
        found |= line == Line::Relayed;
        lines.push(line);
    }
    if lines.iter().all(|line| *line == Line::Rejected) {
        return Err(why.unwrap_or(Unacceptable::NoMsrp));
    }
    Ok(lines)
}

fn acceptable(config: &Config, kind: SessionKind, offered: &Description, media: &MediaDescription) -> Result<Line, Unacceptable> {
    if media.port == 0 {
        return Ok(Line::Rejected);
    }
    if !media.is_msrp() {
        let ours = is_large_message(kind) || media.media.eq_ignore_ascii_case("message");
        return Ok(if ours { Line::Rejected } else { Line::Untouched });
    }
    if media.path().is_empty() {
        return Err(Unacceptable::NoMsrp);
    }
    if media.is_msrp_over_tls() && !config.msrp.listen.iter().any(|listen| listen.transport == Transport::Tls) {
        return Err(Unacceptable::Tls);
    }
    // We answer recvonly: who does not send has nothing to offer (RFC 3264 §6.1).
    if is_large_message(kind) && !offered.direction_of(media).sends() {
        return Err(Unacceptable::Direction);
    }
    if matches!(offered.setup_of(media), Some(Setup::Passive | Setup::HoldConn)) {
        return Err(Unacceptable::Setup);
    }
    let needs = config.msrp.interop != Interop::Never;
    if !needs && !media.msrp_cema() && !session_matching::is_consistent(offered, media) {
        return Err(Unacceptable::Mismatch);
    }
    Ok(Line::Relayed)
}

/// An offer with our attributes where the lines are ours.
pub(super) fn toward_target(config: &Config, kind: SessionKind, offered: Rc<Description>, lines: Vec<Line>) -> MediaPlan {
    let mut description = by_lines(offered);
    for (media, line) in description.media.iter_mut().zip(&lines) {
        match line {
            Line::Relayed => offer_line(config, kind, media),
            Line::Untouched => {}
            Line::Rejected => rejected(media),
        }
    }
    MediaPlan { description, lines }
}

fn offer_line(config: &Config, kind: SessionKind, media: &mut MediaDescription) {
    relayed(media);
    // OLM-7.i.iii and its likes. The size of file-selector is the sender's: it knows what it will send.
    if is_large_message(kind) {
        media.set_direction(Direction::SendOnly);
    }
    media.set_setup(Setup::ActPass);
    // OLM-7.i.vi and its likes: what the far end can do is not known yet, so only "always" goes without.
    if config.msrp.interop != Interop::Always {
        media.set_flag("msrp-cema");
    }
    lower_max_size(config, media);
}
