//! CR 8.1.1, RFC 6665: subscriptions after a start: whose third-party REGISTER came before is subscribed to again, some at a
//! time, so that requests to them find their clients. The S-CSCF does not register anybody anew because we were away.

use super::subscription;
use crate::base::clock::Instant;
use crate::config::RegistrationSource;
use crate::cpm::identity::normalise;
use crate::limits::{REGISTRANTS_EVERY, REGISTRANTS_PAGE};
use crate::shard::exchange::{Fetched, Query};
use crate::shard::outbox::Outbox;
use crate::shard::sessions::Arrived;
use crate::shard::signalling::{Due, Signalling, Waiting};
use crate::sip::message::Request;
use crate::store::registrant::Registrant;

/// What counts as the time of a registration where the REGISTER says none (RFC 3261 §10.2.1.1).
const EXPIRES_S: u32 = 3600;

impl Signalling {
    /// Asks for those that are still registered, from where it left off.
    pub(in crate::shard) fn resume(&mut self, out: &mut Outbox) {
        if self.config.registrations.source == RegistrationSource::RegEvent && !self.handed_on {
            let core = self.shard.wrapping_sub(self.bound.first_core);
            let query = Query::Registrants { core, after: self.subscriptions.resumed.clone() };
            self.ask(Waiting::Registrants, query, out);
        }
    }

    /// Subscribes to some; the rest follows after a while.
    pub(in crate::shard) fn registrants_heard(&mut self, now: Instant, answer: Fetched, out: &mut Outbox) {
        match answer {
            Fetched::Registrants(users) => {
                let last = users.last().map(|registrant| registrant.user.clone());
                self.subscriptions.resumed = last.or(self.subscriptions.resumed.take());
                let more = users.len() >= REGISTRANTS_PAGE;
                for Registrant { user, register, .. } in users {
                    // Who registered meanwhile is subscribed to, and has said something newer.
                    if !self.subscriptions.by_user.contains_key(&user)
                        && let Ok(register) = Request::parse(&register)
                    {
                        self.watch(now, &register, out);
                    }
                }
                if more {
                    self.timers.arm(now + REGISTRANTS_EVERY, Due::Resume);
                }
            }
            Fetched::Kept(Err(_)) => {
                self.timers.arm(now + 10 * REGISTRANTS_EVERY, Due::Resume);
            }
            _ => {}
        }
    }

    /// Keeps a user for the next start; then its REGISTER is answered.
    pub(super) fn keep_registrant(&mut self, now: Instant, arrived: Arrived, out: &mut Outbox) {
        let request = &arrived.request;
        let user = normalise(request.to().map_or("", |to| to.uri)).into();
        let until_s = now.unix_s() + u64::from(subscription::expires(request).unwrap_or(EXPIRES_S));
        let register = [request.head().as_bytes(), request.body()].concat().into();
        let query = Query::Register(Box::new(Registrant { user, until_s, register }));
        self.ask(Waiting::Registered(Box::new(arrived)), query, out);
    }

    /// A user is kept, or cannot be: then it is served until the next start all the same.
    pub(in crate::shard) fn registrant_kept(&mut self, now: Instant, arrived: &Arrived, out: &mut Outbox) {
        self.answer_register(now, arrived.server, subscription::expires(&arrived.request), out);
        self.watch(now, &arrived.request, out);
    }

    /// There is nothing to subscribe to after the next start.
    pub(super) fn forget_registrant(&mut self, user: Box<str>, out: &mut Outbox) {
        self.ask(Waiting::Nothing, Query::Deregister { user }, out);
    }
}
