//! What a procedure knows when it runs: everything was fetched before.

use crate::base::clock::Instant;
use crate::config::Config;
use crate::xdm::access_rules::AccessRules;
use crate::xdm::uri_list::UriList;
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// The session case: for which side of a request the Participating Function acts (RFC 5502 §4, `sescase`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Role {
    Originating,
    Terminating,
}

/// What must be fetched before a procedure can run. Users are normalised addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// Access rules of this user (8.4.1).
    pub preferences: Option<String>,
    /// Blacklist of this user, by list name.
    pub blacklist: Option<(String, String)>,
    /// Registered clients of this user (6.6).
    pub clients_of: Option<String>,
    /// Contribution-ID of the session that is being replaced (TSI-8.b).
    pub replaces: Option<String>,
}

/// Facts of one request.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub config: &'a Config,
    pub now: Instant,
    /// The previous hop is in `sip.trusted`: its asserted identities count.
    pub trusted: bool,
    pub role: Role,
    /// Rules of the served user; none: no document, or XDM away (a call is never refused because XDM is down).
    pub rules: Option<Rc<AccessRules>>,
    /// The list asked for, with its references resolved.
    pub blacklist: Option<Rc<UriList>>,
    /// Further lists named by `external-list` conditions of the rules, by anchor.
    pub external_lists: &'a [(String, Rc<UriList>)],
    /// Registered clients of the served user, active ones only.
    pub clients: &'a [Client],
    /// Clients of the served user that are connected in the session being replaced: indices into `clients`.
    pub replaced: &'a [usize],
}

/// A registered CPM Client (CR 6.6): one active contact of the served user.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Client {
    /// Address of record under which it registered.
    pub aor: String,
    /// Contact URI.
    pub contact: String,
    /// `+sip.instance` with its angle brackets, "<urn:uuid:…>".
    pub instance: Option<String>,
    /// Public GRUU.
    pub gruu: Option<String>,
    /// Feature tags it declared: name ("+g.3gpp.icsi-ref") and values, decoded, without quotes.
    pub features: Vec<(String, Vec<String>)>,
    pub user_agent: Option<String>,
    pub primary: bool,
    /// q of the contact in thousandths.
    pub q: u16,
}
