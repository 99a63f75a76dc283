//! CR 8.1.1: a user whose third-party REGISTER came, as kept from one start to the next.

use serde::{Deserialize, Serialize};

/// A registered user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registrant {
    /// Normalised address.
    pub user: Box<str>,
    /// When the registration is over, in seconds since the Unix epoch.
    pub until_s: u64,
    /// The REGISTER as it came: it names the registrar, and what the user's clients declared.
    pub register: Box<[u8]>,
}
