//! CR 8.3: the terminating side, a file a section.

pub mod large_message;
pub mod pager;
pub mod receive_session;
pub mod session;
