//! RFC 3264 §8, RFC 3311: offers and answers within a dialog, in either direction.
//!
//! A new offer on one leg is made into an offer for the other, and its answer back again. Our own side does not move: the
//! shard keeps its MSRP URIs (RFC 4975 §8.4: another path would mean another connection) and the role each of our ends took.

use super::answer::{Manner, answering};
use super::policy::{self, SessionMedia};
use super::{Line, MediaPlan, Unacceptable, by_lines, described, is_large_message, lower_max_size, rejected, relayed};
use crate::config::{Config, Interop};
use crate::msrp::leg::SessionKind;
use crate::sdp::description::{Description, MediaDescription};
use crate::sdp::message_media::{Direction, Setup};
use crate::sip::message::Message;
use std::rc::Rc;

/// Which of the two ends of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Origin,
    Target,
}

/// The offer for the leg at `toward`, from the one that came on the other leg.
///
/// # Errors
/// The offer cannot be taken: 488 for the re-INVITE or UPDATE that brought it; the session goes on as it was.
pub fn reoffer(config: &Config, kind: SessionKind, toward: Side, offer: &Message) -> Result<MediaPlan, Unacceptable> {
    let offered = allowed(config, kind, offer)?;
    let lines = lines_within(kind, &offered)?;
    let mut description = by_lines(offered);
    for (media, line) in description.media.iter_mut().zip(&lines) {
        match line {
            Line::Relayed => {
                relayed(media);
                if is_large_message(kind) {
                    media.set_direction(if toward == Side::Target { Direction::SendOnly } else { Direction::RecvOnly });
                }
                media.set_setup(Setup::ActPass);
                if config.msrp.interop != Interop::Always {
                    media.set_flag("msrp-cema");
                }
                lower_max_size(config, media);
            }
            Line::Untouched => {}
            Line::Rejected => rejected(media),
        }
    }
    Ok(MediaPlan { description, lines })
}

/// The answer for the leg at `toward`, whose offer is answered by `answer` on the other leg.
///
/// # Errors
/// The answer takes nothing, or one of the two cannot be read.
pub fn reanswer(
    config: &Config,
    kind: SessionKind,
    toward: Side,
    offer: &Message,
    answer: &Message,
) -> Result<MediaPlan, Unacceptable> {
    let offered = described(offer)?;
    let lines = lines_within(kind, &offered)?;
    answering(config, &within(kind, toward, &offered), &offered, lines, described(answer)?)
}

/// Our own answer for the leg at `toward`, where the other side is not asked: what is offered is taken, and content goes
/// the way that is left.
///
/// # Errors
/// The offer cannot be read, or has nothing that we could take.
pub fn own_reanswer(config: &Config, kind: SessionKind, toward: Side, offer: &Message) -> Result<MediaPlan, Unacceptable> {
    let offered = allowed(config, kind, offer)?;
    let mut lines = lines_within(kind, &offered)?;
    // Media that is not ours cannot be answered by us.
    lines.iter_mut().filter(|line| **line == Line::Untouched).for_each(|line| *line = Line::Rejected);
    let mut taken = offered.clone();
    for media in &mut Rc::make_mut(&mut taken).media {
        let direction = offered.direction_of(media).reversed();
        media.set_direction(direction);
    }
    answering(config, &within(kind, toward, &offered), &offered, lines, taken)
}

/// What is offered, where the operator allows its media (TSI-5): a change brings in nothing that an INVITE could not.
fn allowed(config: &Config, kind: SessionKind, offer: &Message) -> Result<Rc<Description>, Unacceptable> {
    let mut offered = described(offer)?;
    if !is_large_message(kind) {
        SessionMedia::of(config, &offered)?;
        policy::keep_allowed_formats(config, &mut offered);
    }
    Ok(offered)
}

fn within(kind: SessionKind, toward: Side, offered: &Description) -> Manner {
    Manner { kind, toward, setup: keeping_role(toward, offered) }
}

/// Towards the origin we are passive from the first answer on, towards a target active unless it wanted to be (RFC 4145
/// §4.1 has the answer follow the offer).
fn keeping_role(toward: Side, offered: &Description) -> Setup {
    let asked = offered.media.iter().find(|media| media.is_msrp() && media.port != 0).and_then(|media| offered.setup_of(media));
    match (toward, asked) {
        (_, Some(Setup::Passive | Setup::HoldConn)) => Setup::Active,
        (_, Some(Setup::Active)) | (Side::Origin, _) => Setup::Passive,
        (Side::Target, _) => Setup::Active,
    }
}

fn lines_within(kind: SessionKind, offered: &Description) -> Result<Vec<Line>, Unacceptable> {
    let of = |media: &MediaDescription| match media {
        media if media.port == 0 => Line::Rejected,
        media if media.is_msrp() && !media.path().is_empty() => Line::Relayed,
        media if is_large_message(kind) || media.media.eq_ignore_ascii_case("message") => Line::Rejected,
        _ => Line::Untouched,
    };
    let lines: Vec<Line> = offered.media.iter().map(of).collect();
    if lines.iter().all(|line| *line == Line::Rejected) { Err(Unacceptable::NoMsrp) } else { Ok(lines) }
}
