//! RFC 3261 §14.1, §14.2, RFC 3264 §4: a re-INVITE without offer. What stands is our offer, in the 2xx; the answer is in the ACK.
//!
//! ```text
//! peer              here               other leg
//!  |-- INVITE ------->|                    |   from here to the ACK nobody else changes the other leg: 491
//!  |<-- 200, offer ---|                    |
//!  |-- ACK, answer -->|                    |   as before: that was all
//!                     |-- INVITE, offer -->|   what the answer changes for the other side
//!                     |<-- 200, answer ----|   491: once more after a while (§14.1)
//! ```
//! The re-INVITE itself is not passed on: it asks what we have to offer, and most often it only refreshes the session (RFC 4028
//! §7.4), which ends at this hop.

use super::State;
use super::change::side_of;
use super::peers;
use super::streams::media_kind;
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::base::timers::Handle;
use crate::cpm::media_plan::{self, Unacceptable};
use crate::cpm::session_matching::Ours;
use crate::limits::CHANGES_MAX;
use crate::shard::exchange::LegIndex;
use crate::shard::outbound::Within;
use crate::shard::outbox::Outbox;
use crate::shard::signalling::{Due, Signalling};
use crate::sip::glare;
use crate::sip::header::min_se;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::transaction::seam::ServerKey;
use std::rc::Rc;

/// An answer that is to be passed on.
#[derive(Clone, Debug)]
pub struct Passing {
    from: LegIndex,
    to: LegIndex,
    ack: Rc<Request>,
    /// Our SDP on the other leg until then.
    before: Box<str>,
    /// Offers to the other leg for it.
    tries: u8,
    timer: Option<Handle>,
}

impl Passing {
    /// Whether that leg has to do with it.
    pub const fn is_of(&self, leg: LegIndex) -> bool {
        self.from == leg || self.to == leg
    }

    /// The timer that waits for its next try.
    pub const fn timer(&mut self) -> Option<Handle> {
        self.timer.take()
    }
}

impl Signalling {
    /// Keeps the other leg as it is until the answer to our offer is here. False: somebody changes it right now.
    pub(super) fn hold_other(&mut self, key: Key, leg: LegIndex) -> bool {
        let Some(other) = self.alone_opposite(key, leg) else { return true };
        let session = self.sessions.table.get_mut(key).expect("its leg was just found");
        let pending = &mut session.legs[usize::from(other)].pending;
        if !pending.may_send() {
            return false;
        }
        pending.ours = true;
        session.legs[usize::from(leg)].holds = Some(other);
        true
    }

    /// The ACK of our 2xx to a re-INVITE; where that was without offer, ours was in the 2xx and the answer is here.
    pub(super) fn change_acknowledged(
        &mut self,
        now: Instant,
        key: Key,
        leg: LegIndex,
        server: ServerKey,
        ack: &Rc<Request>,
        out: &mut Outbox,
    ) {
        self.transactions.acknowledged(server);
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let other = session.legs[usize::from(leg)].holds.take();
        if let Some(other) = other {
            session.legs[usize::from(other)].pending.ours = false;
        }
        if peers::sdp_of(ack).is_none_or(|sdp| peers::digest(&sdp) == session.legs[usize::from(leg)].remote_sdp) {
            return;
        }
        session.bind(leg, ack, out);
        if let Some(to) = other.filter(|_| session.state == State::Standing) {
            let passing = Passing { from: leg, to, ack: Rc::clone(ack), before: Box::default(), tries: 0, timer: None };
            self.pass_answer(now, key, passing, out);
        }
    }

    /// Offers the other leg what the answer says, where that is anything new to it.
    fn pass_answer(&mut self, now: Instant, key: Key, mut passing: Passing, out: &mut Outbox) {
        let to = passing.to;
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        if session.state != State::Standing || !session.legs[usize::from(to)].state.is_answered() {
            return;
        }
        if !session.legs[usize::from(to)].pending.may_send() {
            return self.pass_later(now, key, passing);
        }
        let plan = match media_plan::reoffer(&self.config, media_kind(session.service), side_of(to), &passing.ack) {
            Ok(plan) => plan,
            // It took nothing of what stood.
            Err(Unacceptable::NoMsrp) => return self.end(now, key, "media refused", None, None, out),
            Err(_) => return,
        };
        let (sdp, _) = self.local_sdp(key, to, &plan);
        let session = self.sessions.table.get_mut(key).expect("it was just read");
        if passing.tries == 0 && says(&sdp).eq(says(&session.legs[usize::from(to)].local_sdp)) {
            return;
        }
        if passing.tries == 0 {
            passing.before = session.legs[usize::from(to)].local_sdp.clone();
        }
        passing.tries += 1;
        let sdp = self.next_sdp(key, to, &plan);
        self.offer_change(now, key, to, Method::Invite, &sdp, Within::Passed(Box::new(passing)), out);
    }

    /// §14.1: the other side changes the session as well; after a while, and not for ever.
    fn pass_later(&mut self, now: Instant, key: Key, mut passing: Passing) {
        if usize::from(passing.tries) >= CHANGES_MAX {
            return;
        }
        passing.tries += 1;
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let wait = glare::wait(session.legs[usize::from(passing.to)].dialog.is_caller(), &mut self.prng);
        passing.timer = Some(self.timers.arm(now + wait, Due::Passing(key)));
        if let Some(timer) = session.passing.replace(Box::new(passing)).and_then(|mut old| old.timer()) {
            self.timers.cancel(timer);
        }
    }

    /// The wait is over.
    pub(in crate::shard) fn passing_due(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let passing = self.sessions.table.get_mut(key).and_then(|session| session.passing.take());
        if let Some(mut passing) = passing {
            passing.timer = None;
            self.pass_answer(now, key, *passing, out);
        }
    }

    /// What the other leg says to that. Where it refuses, each side keeps what it agreed to: the streams that both have go on.
    pub(super) fn passed_heard(
        &mut self,
        now: Instant,
        key: Key,
        passing: &Passing,
        status: u16,
        response: Option<&Response>,
        out: &mut Outbox,
    ) {
        let to = passing.to;
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let kind = media_kind(session.service);
        let at = &mut session.legs[usize::from(to)];
        at.pending.ours = false;
        match (status, response) {
            (200..300, Some(response)) => {
                let asked = at.timer.state.kept();
                let _ = at.dialog.refreshed(response);
                session.bind_as(to, Ours::ActPass, response, out);
                if asked.is_some() {
                    self.agreed(now, key, to, asked, response, out);
                }
                match media_plan::reanswer(&self.config, kind, side_of(passing.from), &passing.ack, response) {
                    Ok(plan) => self.settle_streams(key, None, &plan, out),
                    Err(_) => self.end(now, key, "media refused", None, None, out),
                }
            }
            (408 | 481, _) | (_, None) => self.end(now, key, "no-dialog", None, None, out),
            (422, Some(small)) => {
                at.min_se = at.min_se.max(min_se::heard(small));
                self.pass_later(now, key, passing.clone());
            }
            (491, _) => self.pass_later(now, key, passing.clone()),
            _ => self.refused_offer(key, to, &passing.before),
        }
    }
}

/// What an SDP says of the session: not who wrote it, which version it is, or in which role our end is, which is each leg's own.
fn says(sdp: &str) -> impl Iterator<Item = &str> {
    let own = ["o=", "a=setup:", "a=msrp-cema", "a=connection:"];
    sdp.lines().filter(move |line| !own.iter().any(|begins| line.starts_with(begins)))
}
