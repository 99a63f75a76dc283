//! SDP (RFC 4566) and offer/answer (RFC 3264).

pub mod description;
pub mod file_selector;
pub mod message_media;
pub mod parse;
pub mod text;
pub mod write;
