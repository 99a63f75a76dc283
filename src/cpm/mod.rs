//! Floor 3: the procedures of the Change Request, a file a section; pure functions of facts to a decision.

pub mod decision;
pub mod facts;
pub mod media_plan;
pub mod procedures;
pub mod refusal;
