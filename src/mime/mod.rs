//! MIME bodies: multipart, CPIM, IMDN.

pub mod multipart;
