//! MIME bodies: multipart, CPIM, IMDN.

pub mod content_type;
pub mod cpim;
pub mod fields;
pub mod imdn;
pub mod multipart;
