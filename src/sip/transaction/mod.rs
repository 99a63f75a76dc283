//! RFC 3261 §17, RFC 6026: transactions. Four machines, each one enum and one `step`, and the table that plays them.

pub mod action;
pub mod client;
pub mod invite_client;
pub mod invite_server;
pub mod key;
#[cfg(test)]
mod printed;
pub mod seam;
pub mod server;
pub mod success;
pub mod table;
mod table_arrival;
mod table_client;
mod table_server;
#[cfg(test)]
mod table_test;
