//! RFC 3261 §9, §15.1.2, §16.10: the origin cancels or hangs up before it is answered, or we cancel targets.

use super::{LegState, State};
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::cpm::refusal::Refusal;
use crate::shard::counts::Outcome;
use crate::shard::exchange::LegIndex;
use crate::shard::outbox::Outbox;
use crate::shard::signalling::Signalling;
use crate::sip::header::reason;
use crate::sip::message::Request;

impl Signalling {
    /// The origin cancelled before it had a final response: 487 for its INVITE, CANCEL for every target.
    pub(in crate::shard) fn cancel_session(&mut self, now: Instant, key: Key, cancel: &Request, out: &mut Outbox) {
        self.given_up(now, key, "cancel", &Refusal::new(487, "RFC 3261 §9.2"), reason::all(cancel).as_deref(), out);
    }

    /// The origin hung up in the early dialog: its BYE has its answer, its INVITE gets 487 (§15.1.2).
    pub(super) fn hung_up_early(&mut self, now: Instant, key: Key, bye: &Request, out: &mut Outbox) {
        self.given_up(now, key, "bye-origin", &Refusal::new(487, "RFC 3261 §15.1.2"), reason::all(bye).as_deref(), out);
    }

    fn given_up(
        &mut self,
        now: Instant,
        key: Key,
        cause: &'static str,
        refusal: &Refusal,
        reason: Option<&str>,
        out: &mut Outbox,
    ) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        let LegState::Waiting(server) = session.legs[0].state else { return };
        session.record.status = refusal.status;
        let (role, service) = (session.role, session.service);
        self.counts.invite(role, Some(service), Outcome::Cancelled);
        self.leg_over(key, 0, out);
        self.refuse(now, server, refusal, out);
        self.end(now, key, cause, reason, None, out);
    }

    /// Cancels every target that has not answered; another one has taken the call.
    pub(super) fn cancel_targets(&mut self, now: Instant, key: Key, reason: Option<&str>, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get(key) else { return };
        if session.state == State::Ending {
            return;
        }
        for leg in 1..session.legs.len() as LegIndex {
            let state = self.sessions.table.get(key).map(|session| session.legs[usize::from(leg)].state);
            if let Some(LegState::Calling(outbound)) = state {
                self.cancel_outbound(now, outbound, reason, out);
            }
        }
    }
}
