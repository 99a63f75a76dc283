//! Floor 3: the procedures of the Change Request (CR), one file for each section; pure functions from facts to a decision.
//!
//! ```text
//! procedures                         the table of contents: which procedure answers a request
//! originating/  terminating/         the procedures: 8.2.1.1, 8.2.1.2, 8.2.2.1; 8.3.1.1, 8.3.1.2, 8.3.1.5, 8.3.2.1
//! facts  decision  refusal           what goes into a procedure, and what comes out
//! gates                              the steps that procedures begin with
//! identity  service  recipients      whose request it is, for which service, to whom
//! clients  preferences               who can take it (6.6), and what the user's rules say (8.4.1)
//! delivery  deferral  disposition    where nobody can (8.3.1.3, 8.3.6, 8.3.1.6), and what the sender is told
//! interworking  history              the ISF (6.5); the conversation history (8.5)
//! headers  contact  conversation  release  session_expires    header fields of what goes out
//! media_plan/  session_matching      SDP at intermediate nodes (5.2.1.2), MSRP session matching (5.2.1.4)
//! failure                            what the origin is told when every target failed
//! ```

pub mod clients;
pub mod contact;
pub mod conversation;
pub mod decision;
pub mod deferral;
pub mod delivery;
pub mod disposition;
pub mod facts;
pub mod failure;
pub mod gates;
pub mod headers;
pub mod history;
pub mod identity;
pub mod interworking;
pub mod media_plan;
pub mod originating;
pub mod preferences;
pub mod procedures;
pub mod recipients;
pub mod refusal;
pub mod release;
pub mod service;
pub mod session_expires;
pub mod session_matching;
pub mod terminating;
