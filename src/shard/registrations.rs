//! CR 6.6, 8.1.2: who is registered, with which clients.

use crate::config::{Config, RegistrationSource};
use crate::cpm::clients;
use crate::cpm::facts::Client;
use crate::cpm::identity::normalise;
use std::collections::BTreeMap;
use std::rc::Rc;

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

    /// Static registrations are those of the new configuration; learnt ones stay.
    pub fn reload(&mut self, config: &Config) {
        if config.registrations.source == RegistrationSource::RegEvent {
            return;
        }
        let of = |user: &crate::config::RegisteredUser| {
            (normalise(&user.address).into_boxed_str(), Rc::from(clients::of_static(user)))
        };
        self.users = config.registrations.users.iter().map(of).collect();
    }

    /// Active clients of a user, by normalised address.
    pub fn clients(&self, user: &str) -> Rc<[Client]> {
        self.users.get(user).cloned().unwrap_or_else(|| Rc::from([]))
    }
}
