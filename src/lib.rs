//! cpm-pf: the CPM Participating Function of OMA CPM (Large Message Mode, 1-1 and group sessions).
//!
//! Floors, top first; a module uses only what stands below it (`tests/architecture.rs` holds this):
//!
//! ```text
//! main  ->  io  ->  shard  ->  cpm  ->  { sip  sdp  msrp  mime  xdm  store  config }  ->  { base  limits }
//! ```
//!
//! # Life of an INVITE
//!
//! ```text
//! io/signalling/engine.rs     the ring completes a recvmsg; a stream is cut into messages (sip/frame.rs); the octets tell
//!                             whose they are (owner.rs), and another core's go there by a lane
//! shard/signalling.rs         receive: read and judged (sip/validate.rs), matched (sip/transaction/table.rs), 100 is out
//!   within a dialog           sessions/within.rs: BYE, re-INVITE, UPDATE … on the leg whose tag it names
//!   initial                   initial.rs: for whom (arrival.rs), which procedure (cpm/procedures.rs), what it needs
//! shard/prefetch.rs           preferences, lists, registrations: from caches, or asked of the services under a ticket
//! cpm/originating, terminating   decide: the section of the Change Request, once, straight through; a refusal is its answer
//! shard/sessions/bridge.rs    act: a media session is opened (Command to the media core), then the target legs' INVITEs leave
//! shard/outbound.rs           a next hop is found (locate.rs, RFC 3263), a client transaction sends and resends
//! shard/sessions/provisional.rs  a target rings: 1xx for the origin, reliable where both sides ask (RFC 3262)
//! shard/sessions/targets.rs   a target's 2xx: the procedure makes the origin's answer, the media core learns the peer's path
//! shard/sessions/answer.rs    200 to the origin, resent until ACK; the target's ACK at once or with the origin's (OSI-r6)
//! shard/sessions/end.rs       BYE from anywhere: media is drained, every leg ends; the totals become the call record
//! ```
//!
//! # Life of a chunk
//!
//! ```text
//! io/media/receiving.rs       a multishot receive put octets into a provided buffer; that buffer is lent from now on
//! shard/media.rs              receive: msrp/parse.rs cuts heads, body spans and end-lines, holding back only a possible end
//!   first of a connection     its To-Path binds it to a leg; another core's session: handed over with what it sent
//! shard/media/forward.rs      To-Path and From-Path rewritten, in the buffer where lengths agree; a piece for each target
//! shard/media/respond.rs      200 back when the end-line has come; the target's own answer ends its transaction or makes a
//!                             REPORT (reports.rs)
//! io/media/sending.rs         after the batch of completions each connection gets one sendmsg of its pieces: lent octets
//!                             where they lie, heads from a buffer of their own; what does not go waits in the ring
//! io/media/buffers.rs         the last loan of a buffer ends: it goes back to the kernel
//! ```
//! A reader that is slow fills its queue to `msrp.high_water`; then its sender is not read until half of that is gone.
//!
//! # Modules in floor order
//!
//! [`io`] the kernel: threads, rings, sockets, files, the services · [`shard`] one core's whole state · [`cpm`] the procedures,
//! a file a section · [`sip`] RFC 3261 and company · [`sdp`] RFC 4566 · [`msrp`] RFC 4975 · [`mime`] multipart, CPIM, IMDN ·
//! [`xdm`] users' rules and lists · [`store`] what is kept · [`config`] the file · [`base`] what knows no protocol ·
//! [`limits`] every capacity

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
