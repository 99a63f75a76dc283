//! Floor 4: one core's whole state. Octets and time go in as arguments, effects come out into an outbox.
//!
//! ```text
//! signalling.rs                      a signalling core: SIP. The other files add the methods of their subject to it
//!   arrival  initial  prefetch       a request outside of a dialog: who is served, by which procedure, with which facts
//!   sessions/                        back-to-back sessions, from the INVITE to the last BYE
//!   messages  proxy  deferral        a MESSAGE; what is only forwarded; kept messages on their way out
//!   registrations/                   who is registered, learnt from the configuration or from the registrar
//!   writing  locate  outbound        our own requests: written, located (RFC 3263), sent and answered
//!   overload  passing  refusing      what is turned away, and how
//!   addresses                        our own addresses in messages
//!   counts  record  ladder  watching what operators are shown
//! media.rs  media/                   a media core: MSRP
//! exchange                           what cores and services say to each other
//! outbox  media_outbox               effects of a signalling core, and of a media core
//! ```

// Time, session, leg and outbox have their fixed seats in every call; what is particular stands between them.
#![allow(clippy::too_many_arguments)]

pub mod addresses;
pub mod arrival;
pub mod counts;
pub mod deferral;
pub mod dropping;
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
