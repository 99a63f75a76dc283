//! CR 8.4.1, 6.6: what a procedure needs to know, fetched before it runs: rules and lists from XDM, registrations,
//! the session that is being replaced.
//!
//! ```text
//! gather -> all at hand ------------------------------> Facts, decide
//!        -> documents asked for -> a document came ---> again
//!                               \- time limit --------> Facts without it: no call is refused because XDM is down
//! ```

use super::exchange::{Document, Fetched, Query};
use super::outbox::Outbox;
use super::sessions::{Arrived, LegKind};
use super::signalling::{Due, Signalling, Waiting};
use crate::base::clock::{Duration, Instant};
use crate::base::slab::{Key, Slab};
use crate::base::timers::Handle;
use crate::config::Config;
use crate::cpm::decision::TargetKind;
use crate::cpm::facts::{Client, Facts, Needs, Role};
use crate::cpm::identity::normalise;
use crate::cpm::procedures::Procedure;
use crate::limits::{PENDING_DECISIONS_MAX, XDM_CACHE_ENTRIES_MAX};
use crate::sip::uri::Uri;
use crate::xdm::access_rules::AccessRules;
use crate::xdm::cache::{Answer, Cache, Look};
use crate::xdm::uri_list::{Place, Reference, Resolving, UriList};
use std::collections::BTreeMap;
use std::rc::Rc;

/// How long a request waits for documents; RFC 3261 §17.2.1 has said 100 long before.
const GATHER_MAX: Duration = Duration::from_secs(1);
/// Application unique id of access rules.
const ACCESS_RULES: &str = "org.openmobilealliance.access-rules";

/// Names a document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DocumentKey {
    Rules { xui: Box<str> },
    Lists { xui: Box<str>, document: Box<str> },
    External { uri: Box<str> },
}

/// A document as it is kept.
#[derive(Clone, Debug)]
pub enum Kept {
    Rules(Rc<AccessRules>),
    Octets(Rc<[u8]>),
}

/// What was found out for one request; [`Facts`] is a view of it.
#[derive(Clone, Debug)]
pub struct Gathered {
    pub trusted: bool,
    pub role: Role,
    pub rules: Option<Rc<AccessRules>>,
    pub blacklist: Option<Rc<UriList>>,
    pub external_lists: Vec<(String, Rc<UriList>)>,
    pub clients: Rc<[Client]>,
    pub replaced: Vec<usize>,
}

impl Gathered {
    pub fn facts<'a>(&'a self, config: &'a Config, now: Instant) -> Facts<'a> {
        Facts {
            config,
            now,
            trusted: self.trusted,
            role: self.role,
            rules: self.rules.clone(),
            blacklist: self.blacklist.clone(),
            external_lists: &self.external_lists,
            clients: &self.clients,
            replaced: &self.replaced,
        }
    }
}

/// A request whose facts are on their way.
pub struct Pending {
    pub arrived: Arrived,
    pub procedure: Procedure,
    needs: Needs,
    /// Documents that came for this request, and those asked for that did not yet.
    came: Vec<(DocumentKey, Option<Kept>)>,
    asked: Vec<DocumentKey>,
    limit: Option<Handle>,
}

type ListMemo = BTreeMap<(DocumentKey, Box<str>), (Rc<[u8]>, Rc<UriList>)>;

/// Documents of one core, and requests that wait for some.
pub struct Prefetch {
    cache: Cache<DocumentKey, Kept, Key>,
    /// Lists that one document holds whole, so that it is not read anew for every call.
    lists: ListMemo,
    pub pending: Slab<Pending>,
}

impl Prefetch {
    pub fn new(fresh_for: Duration) -> Self {
        Self { cache: Cache::new(fresh_for), lists: BTreeMap::new(), pending: Slab::with_capacity(PENDING_DECISIONS_MAX) }
    }

    pub fn reload(&mut self, fresh_for: Duration) {
        self.cache.clear(fresh_for);
        self.lists.clear();
    }
}

impl Signalling {
    /// Fetches what the procedure needs, then decides; at once where all is at hand.
    pub(super) fn gather(&mut self, now: Instant, arrived: Arrived, procedure: Procedure, out: &mut Outbox) {
        let needs = procedure.needs(&self.config, arrived.trusted, &arrived.request);
        let mut pending = Pending { arrived, procedure, needs, came: Vec::new(), asked: Vec::new(), limit: None };
        // The common case needs no entry: nothing to fetch, or all of it fresh in the cache.
        let server = pending.arrived.server;
        if pending.needs.preferences.is_none() && pending.needs.blacklist.is_none() {
            let gathered = self.collect(now, &mut pending, None, out).expect("without documents nothing is waited for");
            return self.decide(now, pending.arrived, procedure, gathered, out);
        }
        let Ok(key) = self.prefetch.pending.insert(pending) else {
            return self.shed(now, server, "overload > pending decisions", out);
        };
        self.transactions.set_cookie(server, super::signalling::Cookie::Pending.of(key));
        self.proceed(now, key, out);
    }

    /// Looks again whether all is at hand.
    fn proceed(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(mut pending) = self.prefetch.pending.get_mut(key).map(Pending::take) else { return };
        match self.collect(now, &mut pending, Some(key), out) {
            Some(gathered) => {
                self.prefetch.pending.remove(key);
                if let Some(limit) = pending.limit.take() {
                    self.timers.cancel(limit);
                }
                self.decide(now, pending.arrived, pending.procedure, gathered, out);
            }
            None => {
                if pending.limit.is_none() {
                    pending.limit = Some(self.timers.arm(now + GATHER_MAX, Due::Gather(key)));
                }
                if let Some(place) = self.prefetch.pending.get_mut(key) {
                    *place = pending;
                }
            }
        }
    }

    /// The time limit has come: go on with what is there.
    pub(super) fn gather_limit(&mut self, now: Instant, key: Key, out: &mut Outbox) {
        let Some(pending) = self.prefetch.pending.get_mut(key) else { return };
        pending.limit = None;
        let missing = std::mem::take(&mut pending.asked);
        pending.came.extend(missing.into_iter().map(|document| (document, None)));
        self.proceed(now, key, out);
    }

    /// The origin cancelled while facts were on their way.
    pub(super) fn forget_pending(&mut self, key: Key) -> Option<Pending> {
        let pending = self.prefetch.pending.remove(key)?;
        if let Some(limit) = pending.limit {
            self.timers.cancel(limit);
        }
        Some(pending)
    }

    /// A document came for everybody who waits for it.
    pub(super) fn document(&mut self, now: Instant, key: DocumentKey, answer: Fetched, out: &mut Outbox) {
        let answer = match answer {
            Fetched::Document(document) => kept(&key, document),
            _ => Answer::Failed,
        };
        let (value, waiting) = self.prefetch.cache.fetched(now, &key, answer);
        for who in waiting {
            let Some(pending) = self.prefetch.pending.get_mut(who) else { continue };
            pending.asked.retain(|asked| *asked != key);
            pending.came.push((key.clone(), value.clone()));
            self.proceed(now, who, out);
        }
    }

    /// Some: everything is at hand. `who` is the entry that documents on their way will find.
    fn collect(&mut self, now: Instant, pending: &mut Pending, who: Option<Key>, out: &mut Outbox) -> Option<Gathered> {
        let mut complete = true;
        let rules = match pending.needs.preferences.clone() {
            Some(user) => match self.want(now, pending, who, DocumentKey::Rules { xui: user.into() }, out) {
                Wanted::Here(Some(Kept::Rules(rules))) => Some(rules),
                Wanted::Here(_) => None,
                Wanted::Later => {
                    complete = false;
                    None
                }
            },
            None => None,
        };
        let blacklist = match pending.needs.blacklist.clone() {
            Some((user, list)) => self.list(now, pending, who, &user, &list, &mut complete, out),
            None => None,
        };
        let mut external_lists = Vec::new();
        let anchors: Vec<String> =
            rules.as_ref().map_or(Vec::new(), |rules| rules.external_lists().into_iter().map(str::to_string).collect());
        for anchor in anchors {
            let mut resolving = Resolving::external(&anchor);
            complete &= self.resolve(now, pending, who, &mut resolving, out);
            external_lists.push((anchor, Rc::new(resolving.finish())));
        }
        if !complete {
            return None;
        }
        let clients = match &pending.needs.clients_of {
            Some(user) => self.registrations.clients(user),
            None => Rc::from([]),
        };
        let replaced = self.replaced(pending, &clients);
        let Arrived { trusted, role, .. } = pending.arrived;
        Some(Gathered { trusted, role, rules, blacklist, external_lists, clients, replaced })
    }

    fn list(
        &mut self,
        now: Instant,
        pending: &mut Pending,
        who: Option<Key>,
        user: &str,
        list: &str,
        complete: &mut bool,
        out: &mut Outbox,
    ) -> Option<Rc<UriList>> {
        let key = DocumentKey::Lists { xui: user.into(), document: "index".into() };
        let octets = match self.want(now, pending, who, key.clone(), out) {
            Wanted::Here(Some(Kept::Octets(octets))) => octets,
            Wanted::Here(_) => return None,
            Wanted::Later => {
                *complete = false;
                return None;
            }
        };
        let memo = (key, Box::from(list));
        if let Some((of, known)) = self.prefetch.lists.get(&memo)
            && Rc::ptr_eq(of, &octets)
        {
            return Some(Rc::clone(known));
        }
        let mut resolving = Resolving::named(&octets, list, normalise).ok()??;
        let asked = pending.came.len() + pending.asked.len();
        if !self.resolve(now, pending, who, &mut resolving, out) {
            *complete = false;
            return None;
        }
        let alone = pending.came.len() + pending.asked.len() == asked;
        let resolved = Rc::new(resolving.finish());
        if alone && self.prefetch.lists.len() < XDM_CACHE_ENTRIES_MAX {
            self.prefetch.lists.insert(memo, (octets, Rc::clone(&resolved)));
        }
        Some(resolved)
    }

    /// Follows references as far as documents are at hand; false: one is on its way.
    fn resolve(
        &mut self,
        now: Instant,
        pending: &mut Pending,
        who: Option<Key>,
        resolving: &mut Resolving,
        out: &mut Outbox,
    ) -> bool {
        let mut complete = true;
        while let Some(reference) = resolving.wanted() {
            match self.want(now, pending, who, key_of(&reference), out) {
                Wanted::Here(Some(Kept::Octets(octets))) => resolving.supply(&reference, Some(&octets), normalise),
                Wanted::Here(_) => resolving.supply(&reference, None, normalise),
                Wanted::Later => complete = false,
            }
        }
        complete
    }

    fn want(&mut self, now: Instant, pending: &mut Pending, who: Option<Key>, key: DocumentKey, out: &mut Outbox) -> Wanted {
        if let Some((_, value)) = pending.came.iter().find(|(came, _)| *came == key) {
            return Wanted::Here(value.clone());
        }
        if pending.asked.contains(&key) {
            return Wanted::Later;
        }
        let Some(who) = who else { return Wanted::Here(None) };
        let etag = match self.prefetch.cache.look(now, &key, who) {
            Look::Known(value) => {
                pending.came.push((key, value.clone()));
                return Wanted::Here(value);
            }
            Look::Waiting => {
                pending.asked.push(key);
                return Wanted::Later;
            }
            Look::Fetch { etag } => etag,
        };
        pending.asked.push(key.clone());
        let query = query(&key, etag);
        self.ask(Waiting::Document(key), query, out);
        Wanted::Later
    }

    /// TSI-8.b: clients of the served user that are in the session which is being replaced.
    fn replaced(&self, pending: &Pending, clients: &[Client]) -> Vec<usize> {
        let (Some(user), Some(contribution)) = (&pending.needs.clients_of, &pending.needs.replaces) else { return Vec::new() };
        let key = (Box::from(user.as_str()), Box::from(contribution.as_str()));
        let Some(session) = self.sessions.contributions.get(&key).and_then(|key| self.sessions.table.get(*key)) else {
            return Vec::new();
        };
        let connected = |client: &Client| {
            session.legs.iter().filter(|leg| leg.state.is_answered()).any(|leg| match &leg.kind {
                LegKind::Target(TargetKind::Client { contact, .. } | TargetKind::OwnClient { contact, .. }) => {
                    *contact == client.contact
                }
                // The user began the session from this client.
                LegKind::Origin => session.role == Role::Originating && same_place(leg.dialog.remote_target(), &client.contact),
                _ => false,
            })
        };
        (0..clients.len()).filter(|index| connected(&clients[*index])).collect()
    }
}

/// Whether two Contact URIs lead to one place: parameters differ between a registration and a call.
fn same_place(one: &str, other: &str) -> bool {
    match (Uri::parse(one), Uri::parse(other)) {
        (Ok(one), Ok(other)) => one.host.eq_ignore_ascii_case(other.host) && one.port == other.port,
        _ => one == other,
    }
}

enum Wanted {
    Here(Option<Kept>),
    Later,
}

impl Pending {
    /// Takes the entry's content out while it is worked on; what stands in its place is put back or removed.
    fn take(&mut self) -> Self {
        Self {
            arrived: self.arrived.clone(),
            procedure: self.procedure,
            needs: std::mem::take(&mut self.needs),
            came: std::mem::take(&mut self.came),
            asked: std::mem::take(&mut self.asked),
            limit: self.limit.take(),
        }
    }
}

fn kept(key: &DocumentKey, document: Document) -> Answer<Kept> {
    match document {
        Document::Found { body, etag } => {
            let octets = body.len();
            let value = match key {
                DocumentKey::Rules { .. } => AccessRules::parse(&body, normalise).ok().map(|rules| Kept::Rules(Rc::new(rules))),
                DocumentKey::Lists { .. } | DocumentKey::External { .. } => Some(Kept::Octets(body.into())),
            };
            value.map_or(Answer::Failed, |value| Answer::Found { value, etag, octets })
        }
        Document::NotModified => Answer::NotModified,
        Document::Absent => Answer::Absent,
        Document::Failed => Answer::Failed,
    }
}

fn key_of(reference: &Reference) -> DocumentKey {
    match &reference.place {
        Place::External { uri } => DocumentKey::External { uri: uri.as_str().into() },
        Place::Document { xui, document } => DocumentKey::Lists { xui: xui.as_str().into(), document: document.as_str().into() },
    }
}

fn query(key: &DocumentKey, etag: Option<Box<str>>) -> Query {
    match key {
        DocumentKey::Rules { xui } => {
            Query::Document { auid: ACCESS_RULES, xui: xui.clone(), document: "access-rules".into(), etag }
        }
        DocumentKey::Lists { xui, document } => {
            Query::Document { auid: crate::xdm::uri_list::AUID, xui: xui.clone(), document: document.clone(), etag }
        }
        DocumentKey::External { uri } => Query::External { uri: uri.clone() },
    }
}
