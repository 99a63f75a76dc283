//! Which signalling core a message belongs to: the one its ids name, else the one its served user hashes to, so that a user's
//! registrations, preferences and waiting messages live on one core.

use crate::sip::header::name::Name;
use crate::sip::method::Method;
use crate::sip::owner::{self, Owner};
use std::collections::{HashMap, VecDeque};

/// Initial INVITEs remembered for their CANCEL, which has not their P-Served-User: what may come in while one is pending.
const REMEMBERED_MAX: usize = 16 * 1024;

/// Finds owners; one a core that frames.
#[derive(Default)]
pub struct Owners {
    by_branch: HashMap<u64, u8>,
    order: VecDeque<u64>,
}

impl Owners {
    /// The owner of a framed message that landed on core `here`.
    pub fn of(&mut self, octets: &[u8], here: u8, cores: u8) -> u8 {
        if cores <= 1 {
            return here;
        }
        match owner::of(octets) {
            Owner::Core(core) if core < cores => core,
            // To be answered (or dropped) where it landed.
            Owner::Core(_) | Owner::Nobody => here,
            Owner::Initial(Method::Cancel | Method::Ack) => {
                branch(octets).and_then(|branch| self.by_branch.get(&branch).copied()).unwrap_or(here)
            }
            Owner::Initial(method) => {
                let core = served_user(octets, method).map_or(here, |user| owner::core_of(user, cores));
                if let Some(branch) = branch(octets).filter(|_| method == Method::Invite) {
                    self.remember(branch, core);
                }
                core
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

/// The top Via as a whole: a CANCEL has that of its INVITE (RFC 3261 §9.1).
fn branch(octets: &[u8]) -> Option<u64> {
    owner::header(octets, Name::Via).map(owner::hash)
}

/// Whom a request is served for, as far as the first look tells (operator's contract, "session case"): all that matters is that
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

    fn invite(head: &str) -> String {
        format!(
            "INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n{head}From: <sip:alice@example.net>;tag=1\r\n\r\n"
        )
    }

    #[test]
    fn a_users_requests_meet_on_one_core_and_a_cancel_follows_its_invite() {
        let mut owners = Owners::default();
        for cores in [2, 3, 7] {
            let of = |owners: &mut Owners, head: &str| owners.of(invite(head).as_bytes(), 0, cores);
            let alice = of(&mut owners, "Route: <sip:orig@pf;lr>\r\n");
            assert_eq!(of(&mut owners, "P-Served-User: <sip:ALICE@example.net>;sescase=orig\r\n"), alice);
            let cancel = invite("").replace("INVITE", "CANCEL");
            assert_eq!(owners.of(cancel.as_bytes(), 0, cores), alice);
            let register = "REGISTER sip:example.net SIP/2.0\r\nTo: <sip:alice@example.net>\r\n\r\n";
            assert_eq!(owners.of(register.as_bytes(), 0, cores), alice);
        }
    }

    #[test]
    fn what_names_no_core_of_ours_stays_where_it_landed() {
        assert_eq!(Owners::default().of(b"garbage", 3, 4), 3);
        assert_eq!(Owners::default().of(b"BYE sip:09.aaaaaaaaaaaaaaaaaaaaaa@h SIP/2.0\r\n\r\n", 1, 4), 1);
    }
}
