//! Floor 3: the procedures of the Change Request, a file a section; pure functions of facts to a decision.

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
