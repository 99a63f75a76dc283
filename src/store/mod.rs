//! What is kept and in which shape; keeping it is `io::services`'.

pub mod deferred;
pub mod history;
pub mod object;
pub mod registrant;
