//! CR 6.6, 8.1.2: who is registered, with which clients.

pub mod declared;
pub mod reginfo;
pub mod resumption;
pub mod subscription;

use self::subscription::Subscription;
use crate::base::slab::{Key, Slab};
use crate::config::{Config, RegistrationSource};
use crate::cpm::clients;
use crate::cpm::facts::Client;
use crate::cpm::identity::normalise;
use crate::limits::SUBSCRIPTIONS_MAX;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Our reg-event subscriptions, by user and by the tag we gave them.
pub struct Subscriptions {
    pub table: Slab<Subscription>,
    pub by_user: BTreeMap<Box<str>, Key>,
    pub by_tag: BTreeMap<Box<str>, Key>,
    /// The user up to whom those were subscribed to who registered before the start.
    pub resumed: Option<Box<str>>,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self { table: Slab::with_capacity(SUBSCRIPTIONS_MAX), by_user: BTreeMap::new(), by_tag: BTreeMap::new(), resumed: None }
    }
}

/// Registered users by normalised address.
#[derive(Default)]
pub struct Registrations {
    users: BTreeMap<Box<str>, Rc<[Client]>>,
}

impl Registrations {
    /// The users of `[registrations]`; with `source = "reg-event"` none yet.
    pub fn new(config: &Config) -> Self {
        let mut registrations = Self::default();
        registrations.reload(config);
        registrations
    }

    /// Static registrations are those of the new configuration; learnt ones stay. The users who have other clients now.
    pub fn reload(&mut self, config: &Config) -> Vec<Box<str>> {
        if config.registrations.source == RegistrationSource::RegEvent {
            return Vec::new();
        }
        let mut users: BTreeMap<Box<str>, Rc<[Client]>> = BTreeMap::new();
        for user in &config.registrations.users {
            users.insert(normalise(&user.address).into(), clients::of_static(user).into());
        }
        let changed = users.iter().filter(|(user, clients)| self.users.get(*user) != Some(*clients));
        let changed = changed.map(|(user, _)| user.clone()).collect();
        self.users = users;
        changed
    }

    /// What was learnt of a user. True: there is a client that was not there before.
    pub fn set(&mut self, user: &str, clients: Vec<Client>) -> bool {
        if clients.is_empty() {
            self.users.remove(user);
            return false;
        }
        let known = self.users.get(user);
        let fresh = clients.iter().any(|client| known.is_none_or(|known| !known.contains(client)));
        self.users.insert(user.into(), clients.into());
        fresh
    }

    /// Users with clients, in the order of their addresses.
    pub fn users(&self) -> Vec<Box<str>> {
        self.users.iter().filter(|(_, clients)| !clients.is_empty()).map(|(user, _)| user.clone()).collect()
    }

    /// Active clients of a user, by normalised address.
    pub fn clients(&self, user: &str) -> Rc<[Client]> {
        self.users.get(user).cloned().unwrap_or_else(|| Rc::from([]))
    }
}
