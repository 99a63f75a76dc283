//! One signalling core against scripted peers: messages as text in, messages as text out, on virtual time.

mod beside;
mod changing;
mod core_rules;
mod early;
mod kept;
mod large_message;
mod letters;
mod limits;
mod lookups;
mod next_hops;
mod originating;
mod proxying;
mod registering;
mod reliable;
mod terminating_session;
mod trust;
mod world;
