//! Which signalling core a message belongs to: the one its ids name, else the one its served user hashes to, so that a user's
//! registrations, preferences and waiting messages live on one core.

use crate::io::handover::{Around, Before, Side};
use crate::sip::header::name::Name;
use crate::sip::method::Method;
use crate::sip::owner::{self, Owner};
use crate::sip::transaction::key;
use std::collections::{HashMap, VecDeque};

/// Initial INVITEs remembered for their CANCEL, which has not their P-Served-User: what may come in while one is pending.
const REMEMBERED_MAX: usize = 16 * 1024;

/// Who is to have a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// A core of this process.
    Core(u8),
    /// The process on that side.
    Process(Side),
}

/// Finds owners; one a core that frames.
#[derive(Default)]
pub struct Owners {
    by_branch: HashMap<u64, u8>,
    order: VecDeque<u64>,
}

impl Owners {
    /// Where a framed message belongs that landed on core `here` of this process. `knows` tells whether a request is of a
    /// transaction of that core.
    pub fn of(
        &mut self,
        octets: &[u8],
        here: u8,
        around: &Around,
        from: Option<Side>,
        knows: impl FnOnce(&[u8]) -> bool,
    ) -> Whose {
        let own = around.own;
        if own.count <= 1 && around.is_alone() {
            return Whose::Core(here);
        }
        let newer = around.after.is_some() && from != Some(Side::After);
        match owner::of(octets) {
            Owner::Core(core) if own.contains(core) => Whose::Core(core),
            Owner::Core(core) if around.before.as_ref().is_some_and(|before| before.span.contains(core)) => {
                Whose::Process(Side::Before)
            }
            Owner::Core(_) if newer => Whose::Process(Side::After),
            // To be answered (or dropped) where it landed.
            Owner::Core(_) | Owner::Nobody => Whose::Core(here),
            Owner::Initial(_)
                if from != Some(Side::Before) && around.before.as_ref().is_some_and(|before| before.has(octets)) =>
            {
                Whose::Process(Side::Before)
            }
            Owner::Initial(Method::Cancel | Method::Ack) => match branch(octets).and_then(|branch| self.by_branch.get(&branch)) {
                Some(core) => Whose::Core(*core),
                None if newer && !knows(octets) => Whose::Process(Side::After),
                None => Whose::Core(here),
            },
            Owner::Initial(_) if newer => Whose::Process(Side::After),
            Owner::Initial(method) => {
                let place = served_user(octets, method).map(|user| owner::core_of(user, own.count as u8));
                let core = place.map_or(here, |place| own.at(place));
                if let Some(branch) = branch(octets).filter(|_| method == Method::Invite && own.count > 1) {
                    self.remember(branch, core);
                }
                Whose::Core(core)
            }
        }
    }

    fn remember(&mut self, branch: u64, core: u8) {
        if self.by_branch.insert(branch, core).is_none() {
            self.order.push_back(branch);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_branch.remove(&oldest);
        }
    }
}

impl Before {
    /// Whether a request is of a transaction that was there when we took over.
    fn has(&self, octets: &[u8]) -> bool {
        key::number(octets).is_some_and(|number| self.served.contains(&number))
    }
}

/// The top Via as a whole: a CANCEL has that of its INVITE (RFC 3261 §9.1).
fn branch(octets: &[u8]) -> Option<u64> {
    owner::header(octets, Name::Via).map(owner::hash)
}

/// Whom a request is served for, as far as the first look tells (the session case of `docs/manual.md`): all that matters is that
/// the same user comes to the same core.
fn served_user(octets: &[u8], method: Method) -> Option<&str> {
    let user = |name| owner::header(octets, name).and_then(owner::user_in);
    if method == Method::Register {
        return user(Name::To);
    }
    if let Some(served) = user(Name::PServedUser) {
        return Some(served);
    }
    let route = owner::header(octets, Name::Route).unwrap_or("");
    let first = route.split(',').next().unwrap_or("");
    let originating = owner::user_in(first) == Some("orig") || first.contains(";orig");
    if originating { user(Name::PAssertedIdentity).or_else(|| user(Name::From)) } else { request_uri_user(octets) }
}

fn request_uri_user(octets: &[u8]) -> Option<&str> {
    let line = octets.split(|octet| *octet == b'\n').next()?;
    let uri = std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?;
    owner::user_in(uri)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::span::Span;

    fn invite(head: &str) -> String {
        format!(
            "INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n{head}From: <sip:alice@example.net>;tag=1\r\n\r\n"
        )
    }

    #[test]
    fn a_users_requests_meet_on_one_core_and_a_cancel_follows_its_invite() {
        let mut owners = Owners::default();
        for first in [0, 250] {
            let own = Span::new(first, 7);
            let around = Around { own, ..Around::default() };
            let whose = |owners: &mut Owners, text: &str| owners.of(text.as_bytes(), first, &around, None, |_| false);
            let of = |owners: &mut Owners, head: &str| whose(owners, &invite(head));
            let alice = of(&mut owners, "Route: <sip:orig@pf;lr>\r\n");
            assert_eq!(of(&mut owners, "P-Served-User: <sip:ALICE@example.net>;sescase=orig\r\n"), alice);
            let cancel = invite("").replace("INVITE", "CANCEL");
            assert_eq!(whose(&mut owners, &cancel), alice);
            assert!(matches!(alice, Whose::Core(core) if own.contains(core)));
            let register = "REGISTER sip:example.net SIP/2.0\r\nTo: <sip:alice@example.net>\r\n\r\n";
            assert_eq!(whose(&mut owners, register), alice);
        }
    }

    #[test]
    fn what_names_no_core_of_ours_stays_where_it_landed() {
        let around = Around { own: Span::new(0, 4), ..Around::default() };
        let of = |octets: &[u8], here| Owners::default().of(octets, here, &around, None, |_| false);
        assert_eq!(of(b"garbage", 3), Whose::Core(3));
        assert_eq!(of(b"BYE sip:09.aaaaaaaaaaaaaaaaaaaaaa@h SIP/2.0\r\n\r\n", 1), Whose::Core(1));
    }
}
