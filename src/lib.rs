//! cpm-pf: the CPM Participating Function of OMA CPM (Large Message Mode, 1-1 and group sessions).
//!
//! Floors, top first; a module uses only what stands below it (`tests/architecture.rs` holds this):
//!
//! ```text
//! main  ->  io  ->  shard  ->  cpm  ->  { sip  sdp  msrp  mime  xdm  store  config }  ->  { base  limits }
//! ```

#[forbid(unsafe_code)]
pub mod base;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod cpm;
#[allow(clippy::disallowed_methods)]
pub mod io;
#[forbid(unsafe_code)]
pub mod limits;
#[forbid(unsafe_code)]
pub mod mime;
#[forbid(unsafe_code)]
pub mod msrp;
#[forbid(unsafe_code)]
pub mod sdp;
#[forbid(unsafe_code)]
pub mod shard;
#[forbid(unsafe_code)]
pub mod sip;
#[forbid(unsafe_code)]
pub mod store;
#[forbid(unsafe_code)]
pub mod xdm;
