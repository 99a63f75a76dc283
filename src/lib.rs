//! cpm-pf: the CPM Participating Function of OMA CPM, for Large Message Mode and for 1-1 and group chat sessions.
//!
//! The modules are floors; a module uses only what stands below it (`tests/architecture.rs` holds this):
//!
//! ```text
//! main  ->  io  ->  shard  ->  cpm  ->  { sip  sdp  msrp  mime  xdm  store  config }  ->  { base  limits }
//! ```
//!
//! The two flows below are the program. Each line names the file where a step happens, in the order in which a message
//! meets them. A *leg* is one side of a session: the origin is the leg that the INVITE came in on, targets are those we
//! invite.
//!
//! # Life of an INVITE
//!
//! ```text
//! io/signalling/engine.rs        the ring completes a recvmsg; a TCP stream is cut into messages (sip/frame.rs). The octets
//!                                tell which core owns the message (owner.rs); what is another core's goes there over a lane
//! shard/signalling.rs            receive: parsed, validated (sip/validate.rs), matched to its transaction
//!                                (sip/transaction/table.rs, which answers 100)
//!   within a dialog              sessions/within.rs: BYE, re-INVITE, UPDATE … on the leg that the To tag names
//!   outside of one               initial.rs: who is served (arrival.rs), by which procedure (cpm/procedures.rs)
//! shard/prefetch.rs              what the procedure needs: preferences, lists, registrations; from caches, or from the
//!                                services thread, which answers under a ticket
//! cpm/originating/, terminating/ decide: one section of the Change Request (CR), straight through; a refusal is a response
//! shard/sessions/bridge.rs       act: a media session is opened (Command to the media core), the targets are invited
//! shard/outbound.rs              a request finds its next hop (locate.rs, RFC 3263); its transaction sends and resends it
//! shard/sessions/provisional.rs  a target rings: 1xx for the origin, reliable where both sides ask for that (RFC 3262)
//! shard/sessions/targets.rs      a target's 2xx: the procedure makes the origin's answer of it, and the media core learns
//!                                the target's MSRP path
//! shard/sessions/answer.rs       200 for the origin, resent until its ACK; the target gets its ACK at once, or after the
//!                                origin's (OSI-r6)
//! shard/sessions/end.rs          BYE from either side: media is drained, every leg ended, the call record written
//! ```
//!
//! # Life of a chunk
//!
//! ```text
//! io/media/receiving.rs          a multishot receive has filled part of a provided buffer, which is lent from now on
//! shard/media.rs                 receive: msrp/parse.rs tells heads, bodies and end-lines apart; it holds back no more than
//!                                what may be the beginning of an end-line
//!   the first of a connection    its To-Path binds the connection to a leg; where another core has the session, that core
//!                                gets the connection with all that came on it
//! shard/media/forward.rs         To-Path and From-Path are rewritten, within the buffer where the lengths agree; each target
//!                                gets a piece of the buffer
//! shard/media/respond.rs         200 to the sender when the end-line has come; a target's own answer ends its transaction,
//!                                and a failure becomes a REPORT (reports.rs)
//! io/media/sending.rs            at the end of the turn each connection sends its pieces with one sendmsg; what the socket
//!                                does not take waits in the ring
//! io/media/buffers.rs            when nobody uses a buffer any more it goes back to the kernel
//! io/media/passing.rs            long bodies that go on as they came are looked at in their socket, and stay in the kernel
//! ```
//! When `msrp.high_water` octets wait for a slow reader, its sender is not read any more until half of them are gone.
//!
//! # Modules from the top floor down
//!
//! * [`io`]: the kernel: threads, rings, sockets, files, and the services (XDM, stores, DNS, admin server)
//! * [`shard`]: the whole state of one signalling core or one media core
//! * [`cpm`]: the procedures, one file for each section of the CR
//! * [`sip`] RFC 3261 and its extensions, [`sdp`] RFC 4566, [`msrp`] RFC 4975, [`mime`] multipart, CPIM and IMDN
//! * [`xdm`]: users' rules and lists; [`store`]: what is kept, and in which form; [`config`]: the configuration file
//! * [`base`]: what knows no protocol; [`limits`]: every capacity that is not configuration

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
