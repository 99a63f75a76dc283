//! The Change Request's table of contents as a match: which procedure answers a request, and its four entry points.
//!
//! The shard calls them in this order: [`Procedure::of`], [`Procedure::needs`] (then it fetches), [`Procedure::decide`],
//! for every 2xx of a target [`Procedure::on_success`], when every target failed [`Procedure::on_exhausted`], and after
//! the origin was answered [`Procedure::after_answer`].

use super::decision::{Answer, Bridge, Decision, FollowUp};
use super::facts::{Facts, Needs, Role};
use super::refusal::Refusal;
use crate::config::Config;
use crate::sip::message::{Request, Response};

/// A procedure of the Change Request, or the plain proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Procedure {
    OriginatingLargeMessage,
    OriginatingSession,
    TerminatingLargeMessage,
    TerminatingSession,
    OriginatingPager,
    TerminatingPager,
    /// Not CPM's: proxied untouched.
    Proxy,
}

impl Procedure {
    /// Which procedure answers an initial request (OLM-0, OSI-0, TLM-0, TSI-0).
    pub fn of(role: Role, request: &Request) -> Procedure {
        let _ = (role, request);
        todo!()
    }

    /// What must be fetched before [`Procedure::decide`].
    pub fn needs(self, config: &Config, trusted: bool, request: &Request) -> Needs {
        let _ = (self, config, trusted, request);
        todo!()
    }

    /// Runs the procedure.
    ///
    /// # Errors
    /// The final response that the first failing step prescribes.
    pub fn decide(self, facts: &Facts<'_>, request: &Request) -> Result<Decision, Refusal> {
        let _ = (self, facts, request);
        todo!()
    }

    /// A target answered 2xx: the origin's answer (for the first), or what we keep of it.
    ///
    /// # Errors
    /// The 2xx cannot be used (no SDP, media refused …): the target is ended, and this is what it counts as.
    pub fn on_success(
        self,
        facts: &Facts<'_>,
        request: &Request,
        bridge: &Bridge,
        target: usize,
        ok: &Response,
    ) -> Result<Answer, Refusal> {
        let _ = (self, facts, request, bridge, target, ok);
        todo!()
    }

    /// Every target failed; `failures` has the target's index and its final status (408 for silence, 503 for a dead hop).
    ///
    /// # Errors
    /// The final response for the origin. Where the origin was answered early, its BYE carries the status as Reason.
    pub fn on_exhausted(
        self,
        facts: &Facts<'_>,
        request: &Request,
        bridge: &Bridge,
        failures: &[(usize, u16)],
    ) -> Result<Decision, Refusal> {
        let _ = (self, facts, request, bridge, failures);
        todo!()
    }

    /// The origin was answered 2xx; `first` is the target whose 2xx it was, with that response.
    pub fn after_answer(
        self,
        facts: &Facts<'_>,
        request: &Request,
        bridge: &Bridge,
        first: Option<(usize, &Response)>,
    ) -> Vec<FollowUp> {
        let _ = (self, facts, request, bridge, first);
        todo!()
    }
}
