//! Floor 4: one core's whole state. Octets and time go in as arguments, effects come out into an outbox.

// Time, session, leg and outbox have their fixed seats in every call; what is particular stands between them.
#![allow(clippy::too_many_arguments)]

pub mod addresses;
pub mod arrival;
pub mod counts;
pub mod deferral;
pub mod exchange;
pub mod initial;
pub mod ladder;
pub mod locate;
pub mod media;
pub mod media_outbox;
pub mod messages;
pub mod outbound;
pub mod outbox;
pub mod overload;
pub mod passing;
pub mod prefetch;
pub mod proxy;
pub mod record;
pub mod refusing;
pub mod registrations;
pub mod sessions;
pub mod signalling;
pub mod watching;
pub mod writing;

#[cfg(test)]
mod tests;
