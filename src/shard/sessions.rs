//! Live back-to-back sessions: the leg an INVITE came in on, the legs we made, and what binds them.
//!
//! ```text
//! origin --INVITE--> [ origin leg 0 | streams | target legs 1.. ] --INVITE--> targets
//! ```
//!
//! A leg is a dialog of its own (CR: "act as a B2BUA"); a stream is one relayed `m=message` line with one MSRP session
//! at a media core, in which every leg has the same index as here. What only the making of a session needs (request,
//! facts, decision) hangs in [`Call`] and is dropped when it stands: a standing session costs about two kilobytes.

pub mod answer;
pub mod bridge;
pub mod cancel;
pub mod change;
pub mod end;
pub mod follow;
pub mod keep;
pub mod late_offer;
pub mod local_sdp;
pub mod peers;
pub mod provisional;
pub mod record;
pub mod refresh;
pub mod streams;
pub mod targets;
pub mod within;

use self::keep::Keeping;
use self::late_offer::Passing;
use self::provisional::Early;
use super::deferral::Delivering;
use super::exchange::{LegIndex, MediaKey};
use super::prefetch::Gathered;
use super::record::Cdr;
use crate::base::clock::Instant;
use crate::base::hash::{Drawn, Numbered};
use crate::base::slab::{Key, Slab};
use crate::base::timers::Handle;
use crate::base::transport::Flow;
use crate::config::Interop;
use crate::cpm::decision::{AckTime, Bridge, LaterSuccess, Service, TargetKind};
use crate::cpm::facts::Role;
use crate::cpm::procedures::Procedure;
use crate::sip::dialog::Dialog;
use crate::sip::glare::Pending;
use crate::sip::message::{Request, Response};
use crate::sip::session_timer;
use crate::sip::transaction::seam::{ClientKey, ServerKey};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A request that came in, with what the shard found out about it before the procedure runs.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub at: Instant,
    pub server: ServerKey,
    pub flow: Flow,
    pub request: Rc<Request>,
    pub trusted: bool,
    pub role: Role,
    /// The rest of the received route set, our own entry popped.
    pub routes: Rc<[Box<str>]>,
}

/// All sessions of one core.
pub struct Sessions {
    pub table: Slab<Session>,
    /// Local tag of every dialog to its session and leg.
    pub tags: Drawn<(Key, LegIndex)>,
    /// Local tag of every dialog in which our BYE is under way to a digest of the rest of its name.
    pub parting: Drawn<u64>,
    /// Media session to session and stream.
    pub media: Numbered<MediaKey, (Key, usize)>,
    /// Sessions by originator, for the limit on them.
    pub originators: BTreeMap<Box<str>, usize>,
    /// Sessions by served user and Contribution-ID, for Session-Replaces (TSI-8.b).
    pub contributions: BTreeMap<(Box<str>, Box<str>), Key>,
    /// Counts up; the lower part of media keys.
    pub media_keys: u64,
    /// Sessions each media core has.
    pub media_load: Vec<u32>,
}

/// One back-to-back session.
pub struct Session {
    pub role: Role,
    pub procedure: Procedure,
    pub service: Service,
    pub state: State,
    pub later: LaterSuccess,
    pub ack: AckTime,
    /// `msrp.interop` when the session was made.
    pub interop: Interop,
    /// Leg 0 is the origin.
    pub legs: Vec<Leg>,
    pub streams: Vec<Stream>,
    pub call: Option<Box<Call>>,
    /// What is kept of the messages that come: in the session of an endpoint or a recorder of ours.
    pub keeping: Option<Box<Keeping>>,
    /// The deferred message that this session delivers.
    pub delivering: Option<Box<Delivering>>,
    /// The call record as it grows.
    pub record: Box<Cdr>,
    pub started: Instant,
    /// The originator's key in [`Sessions::originators`], the served user's in [`Sessions::contributions`].
    pub originator: Option<Box<str>>,
    pub replaceable: Option<(Box<str>, Box<str>)>,
    /// Value of a Reason header for BYEs that are still to be sent.
    pub reason: Option<Box<str>>,
    /// Ends a session whose media core never says [`super::exchange::Report::Closed`].
    pub guard: Option<Handle>,
    /// It is ending, and BYE waits until what was accepted on the media plane is delivered.
    pub draining: bool,
    /// Reliable provisional responses, where there were any (RFC 3262).
    pub early: Option<Box<Early>>,
    /// An answer that is to be passed on to the other leg, later.
    pub passing: Option<Box<Passing>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The origin waits for a final response.
    Inviting,
    /// The origin has its 2xx.
    Standing,
    /// BYE, CANCEL or a refusal went out; what is left is to hear the end of it.
    Ending,
}

/// What the making of a session needs.
pub struct Call {
    pub arrived: Arrived,
    pub gathered: Gathered,
    pub bridge: Bridge,
    /// Index of the target in `bridge.targets` and its final status.
    pub failures: Vec<(usize, u16)>,
    /// The failure whose status the origin will most likely get, for its reason phrase and Warning.
    pub best: Option<Response>,
    /// Leg of the first target of `bridge`.
    pub first_leg: usize,
    /// Targets of `bridge` without final response.
    pub pending: usize,
    /// Delivery policies ran (8.3.1.3, 8.3.6).
    pub exhausted: bool,
}

/// One relayed m-line.
pub struct Stream {
    pub key: MediaKey,
    pub core: u8,
    /// Index of the m-line in the origin's offer.
    pub line: usize,
    /// Some leg's connection is there, so something may be under way.
    pub bound: bool,
    pub closed: bool,
    /// The first target rejected the line (OSI-r1).
    pub rejected: bool,
    /// A change of the session took the line out, or never got it in: the session goes on without it.
    pub removed: bool,
    /// The change that brings the line is under way: the transaction of who asked for it.
    pub asked: Option<ServerKey>,
}

/// One side of a session.
pub struct Leg {
    pub kind: LegKind,
    pub state: LegState,
    pub dialog: Dialog,
    /// Our Contact value in this dialog, without the name.
    pub contact: Box<str>,
    /// What the user part of our Contact stands for.
    pub token: Option<Key>,
    /// Our Record-Route value, where the Contact is a copied one (C17-3).
    pub record_route: Option<Box<str>>,
    /// Our MSRP URI on each stream.
    pub uris: Vec<Box<str>>,
    /// Streams of this leg, each with its m-line, where they are not all in the order of the origin's offer.
    pub lines: Option<Box<[(usize, usize)]>>,
    /// Our `o=` line: session id and version.
    pub sdp_session: u64,
    pub sdp_version: u32,
    /// The SDP we sent last, for refreshes; and a digest of the peer's last.
    pub local_sdp: Box<str>,
    pub remote_sdp: u64,
    /// Where the peer's INVITE or 2xx came from: the way to it when its URI cannot be resolved.
    pub source: Option<Flow>,
    /// It is the way to it in any case: the connection of a peer without routes.
    pub back: bool,
    pub timer: Refresh,
    /// RFC 4028 §7.4: the largest Min-SE that the peer sent in this dialog, in requests or 422s, in seconds; 0: none.
    pub min_se: u32,
    /// Its connection failed before its INVITE was answered: a 2xx that still comes is acknowledged and ended.
    pub lost: bool,
    /// The peer takes UPDATE (Allow).
    pub updates: bool,
    /// INVITE and UPDATE transactions open in this dialog (RFC 3261 §14).
    pub pending: Pending,
    /// Our re-INVITE or UPDATE that passes on a change of the other leg, among the requests on their way; an old key when it is
    /// over.
    pub changing: Key,
    /// CSeq of the INVITE whose 2xx is to be acknowledged.
    pub invite_seq: u32,
    /// A re-INVITE of the peer: its transaction, until the ACK of our 2xx.
    pub reinvited: Option<ServerKey>,
    /// The leg that nobody changes until the ACK brings the answer to our offer.
    pub holds: Option<LegIndex>,
}

/// RFC 4028: how one leg's session is kept.
#[derive(Clone, Copy, Debug)]
pub struct Refresh {
    pub state: session_timer::State,
    /// Armed timers, each with its handle.
    pub armed: [Option<(session_timer::Timer, Handle)>; 2],
}

impl Default for Refresh {
    fn default() -> Self {
        Self { state: session_timer::State::Off, armed: [None; 2] }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LegKind {
    Origin,
    Target(TargetKind),
    /// We are the endpoint (8.3.1.5 without a target): what comes is deferred or stored.
    Endpoint,
    /// A copy of what goes by, for the history (8.5).
    Recorder,
    /// We are the sender of a deferred message.
    Source,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LegState {
    /// Origin: the INVITE has no final response yet.
    Waiting(ServerKey),
    /// Origin: the 2xx went out, its ACK has not come.
    Answered(ServerKey),
    /// Target: the INVITE is out, under this key of the requests on their way.
    Calling(Key),
    /// Target: 2xx came; its ACK waits for the origin's (OSI-r6).
    Unacknowledged(ClientKey),
    /// A dialog that stands.
    Confirmed,
    /// A leg without a dialog: sink or source.
    Media,
    /// BYE went out or came, or it failed.
    Ended,
}

impl LegState {
    pub const fn is_over(self) -> bool {
        matches!(self, LegState::Ended)
    }
    /// The peer has our 2xx or we have its.
    pub const fn is_answered(self) -> bool {
        matches!(self, LegState::Answered(_) | LegState::Unacknowledged(_) | LegState::Confirmed)
    }
}

impl Sessions {
    pub fn new(capacity: usize, media_cores: u8) -> Self {
        Self {
            table: Slab::with_capacity(capacity),
            tags: Drawn::default(),
            parting: Drawn::default(),
            media: Numbered::default(),
            originators: BTreeMap::new(),
            contributions: BTreeMap::new(),
            media_keys: 0,
            media_load: vec![0; usize::from(media_cores.max(1))],
        }
    }

    /// The session and leg whose dialog a request with this local tag is in.
    pub fn of_tag(&self, tag: &str) -> Option<(Key, LegIndex)> {
        self.tags.get(tag).copied()
    }

    /// Where the peer of a leg speaks from.
    pub fn speaks_from(&mut self, session: Key, leg: LegIndex, flow: Flow) {
        if let Some(leg) = self.table.get_mut(session).and_then(|session| session.legs.get_mut(usize::from(leg))) {
            leg.source = Some(flow);
        }
    }

    /// A fresh media session at the core that has fewest.
    pub fn open_stream(&mut self, shard: u8, session: Key, index: usize, line: usize) -> Stream {
        let core = (0..self.media_load.len()).min_by_key(|core| self.media_load[*core]).unwrap_or(0);
        self.media_load[core] += 1;
        self.media_keys += 1;
        let key = MediaKey((u64::from(shard) << 56) | (self.media_keys & 0x00ff_ffff_ffff_ffff));
        self.media.insert(key, (session, index));
        let (core, asked) = (core as u8, None);
        Stream { key, core, line, bound: false, closed: false, rejected: false, removed: false, asked }
    }
}

impl Session {
    /// A session that has no leg and no stream yet. `interop` is `msrp.interop`, `record` the beginning of its call record.
    pub fn new(now: Instant, role: Role, procedure: Procedure, service: Service, interop: Interop, record: Cdr) -> Self {
        Self {
            role,
            procedure,
            service,
            state: State::Inviting,
            later: LaterSuccess::Join,
            ack: AckTime::AtOnce,
            interop,
            legs: Vec::with_capacity(2),
            streams: Vec::with_capacity(1),
            call: None,
            keeping: None,
            delivering: None,
            record: Box::new(record),
            started: now,
            originator: None,
            replaceable: None,
            reason: None,
            guard: None,
            draining: false,
            early: None,
            passing: None,
        }
    }

    pub fn origin(&self) -> &Leg {
        &self.legs[0]
    }

    /// Targets of the recipient's side that are answered: what keeps the session alive.
    pub fn living_targets(&self) -> usize {
        let counts = |leg: &&Leg| {
            let target = matches!(&leg.kind, LegKind::Target(kind) if !matches!(kind, TargetKind::OwnClient { .. }));
            let endpoint = leg.kind == LegKind::Endpoint && leg.state == LegState::Media;
            (target && (leg.state.is_answered() || matches!(leg.state, LegState::Calling(_)))) || endpoint
        };
        self.legs.iter().skip(1).filter(counts).count()
    }
}

impl Leg {
    pub fn new(kind: LegKind, state: LegState, dialog: Dialog) -> Self {
        Self {
            kind,
            state,
            dialog,
            contact: Box::default(),
            token: None,
            record_route: None,
            uris: Vec::new(),
            lines: None,
            sdp_session: 0,
            sdp_version: 1,
            local_sdp: Box::default(),
            remote_sdp: 0,
            source: None,
            back: false,
            lost: false,
            timer: Refresh::default(),
            min_se: 0,
            updates: false,
            pending: Pending::default(),
            changing: Key::from_u64(0),
            invite_seq: 0,
            reinvited: None,
            holds: None,
        }
    }

    /// Whether it is a target of the recipient's side.
    pub fn is_recipients(&self) -> bool {
        matches!(&self.kind, LegKind::Target(kind) if kind.is_recipients())
    }

    /// Whether it is a target on which the session does not depend (OSI-r1, OSI-r8).
    pub fn is_beside(&self) -> bool {
        matches!(&self.kind, LegKind::Target(kind) if !kind.is_recipients())
    }

    /// The m-line on this leg of the session's stream with that index; none where the leg has no part in it.
    pub fn line_of(&self, index: usize, stream: &Stream) -> Option<usize> {
        let Some(lines) = &self.lines else { return Some(stream.line) };
        lines.iter().find(|(own, _)| *own == index).map(|(_, line)| *line)
    }
}

#[cfg(test)]
mod size {
    use super::*;

    #[test]
    fn a_standing_dialog_is_small() {
        // Beside these lie the texts of the dialogs (addresses, tags, routes: some 300 octets a leg), the SDP we sent (some
        // 400) and the call record's strings.
        let session = size_of::<Session>() + 2 * size_of::<Leg>() + size_of::<Stream>() + size_of::<Cdr>();
        assert!(session < 2048, "{session} octets");
    }
}
