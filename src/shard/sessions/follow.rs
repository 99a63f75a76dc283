//! OSI-r1, OSI-r7, OSI-r8, OLM-r7, TLM-9: what follows once the origin has its answer.

use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::clause;
use crate::cpm::decision::{FollowUp, Invite};
use crate::limits::TARGET_LEGS_MAX;
use crate::shard::outbox::Outbox;
use crate::shard::signalling::Signalling;
use crate::sip::message::Response;

impl Signalling {
    /// Asks the procedure what follows, and does it. `first` is the target whose 2xx the answer came from.
    pub(super) fn follow_up(&mut self, now: Instant, key: Key, first: Option<(usize, &Response)>, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get(key) else { return };
        let Some(call) = session.call.as_ref() else { return };
        let facts = call.gathered.facts(&self.config, now);
        let follows = session.procedure.after_answer(&facts, &call.arrived.request, &call.bridge, first);
        for follow in follows {
            match follow {
                FollowUp::RecordHistory { user, sent } => self.record(now, key, user, sent, first.map(|(_, ok)| ok), out),
                FollowUp::Retry(invite) => {
                    clause!("OSI-r1.b.iii");
                    self.invite_beside(now, key, *invite, out);
                }
                FollowUp::OwnClients(invites) => {
                    for invite in invites {
                        clause!("OSI-r8.c");
                        self.invite_beside(now, key, invite, out);
                    }
                }
            }
        }
    }

    /// Invites one more target, on whom the session does not depend.
    fn invite_beside(&mut self, now: Instant, key: Key, invite: Invite, out: &mut Outbox) {
        let Some(session) = self.sessions.table.get_mut(key) else { return };
        if session.legs.len() > TARGET_LEGS_MAX {
            return;
        }
        let leg = session.legs.len();
        if let Some(call) = session.call.as_mut() {
            // Its place among the targets is that of its leg, so that its answers find what it was asked.
            while call.first_leg + call.bridge.targets.len() < leg {
                call.bridge.targets.push(invite.clone());
            }
            call.bridge.targets.push(invite.clone());
            call.pending += 1;
        }
        self.invite_target(now, key, &invite, out);
    }
}
