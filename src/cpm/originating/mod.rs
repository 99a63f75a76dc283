//! CR 8.2: procedures at the originating side.

pub mod large_message;
pub mod pager;
pub mod session;
