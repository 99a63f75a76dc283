//! XDM documents: OMA access rules (RFC 4745 common policy) and URI lists (RFC 4826).

pub mod access_rules;
pub mod cache;
pub mod condition;
pub mod recipients;
pub mod selector;
pub mod uri_list;
