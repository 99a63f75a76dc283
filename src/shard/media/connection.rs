//! RFC 4975 §5.4, §7.1: one connection: what it carries, what it waits for, and whose chunk is being written on it.

use super::answers::Answers;
use crate::base::clock::Instant;
use crate::base::slab::Key;
use crate::base::timers::Handle;
use crate::msrp::chunk::{ByteRange, FailureReport};
use crate::msrp::ident::Ident;
use crate::msrp::parse::Reader;
use crate::shard::media_outbox::{Connection, MediaEffect, MediaOutbox, Piece};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// A leg of a session, by the session's key and the leg's place in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct LegId {
    pub session: Key,
    pub place: u8,
}

impl LegId {
    pub const fn bit(self) -> u32 {
        1 << self.place
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Connecting,
    Open,
    /// The peer has closed its side; ours still carries reports and responses.
    Ended,
    /// `Finish`, `Abort` or `HandOver` was asked for: nothing of it is of interest any more.
    Leaving,
}

/// A chunk that is coming in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub from: LegId,
    pub tid: Ident,
    pub message_id: Ident,
    /// Place in its message of its first octet.
    pub start: u64,
    /// Octets of body so far.
    pub octets: u64,
    pub total: Option<u64>,
    pub failure_report: FailureReport,
    /// Legs it goes to, by place.
    pub takers: u32,
    /// What its sender is told instead of 200.
    pub refused: Option<u16>,
    /// The sender has had its response (a refusal before the end).
    pub answered: bool,
}

impl Chunk {
    /// The place in the message of the next octet.
    pub const fn next(&self) -> u64 {
        self.start.saturating_add(self.octets)
    }
}

/// The chunk that is being written on a connection: begun and not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Who sends it, and to which leg.
    pub from: LegId,
    pub to: LegId,
    pub tid: Ident,
    pub message_id: Ident,
    pub start: u64,
    pub octets: u64,
    pub total: Option<u64>,
    pub failure_report: FailureReport,
    /// The peer said 200 before the end.
    pub acknowledged: bool,
}

impl Line {
    /// A chunk's own beginning on a connection, before its first octet.
    pub const fn begun(chunk: &Chunk, to: LegId, tid: Ident) -> Self {
        Self {
            from: chunk.from,
            to,
            tid,
            message_id: chunk.message_id,
            start: chunk.start,
            octets: 0,
            total: chunk.total,
            failure_report: chunk.failure_report,
            acknowledged: false,
        }
    }

    /// Its transaction, which begins with its end-line.
    pub const fn transaction(&self, now: Instant) -> Transaction {
        Transaction {
            tid: self.tid,
            about: About::Content,
            from: self.from,
            to: self.to,
            message_id: self.message_id,
            start: self.start,
            octets: self.octets,
            total: self.total,
            failure_report: if self.acknowledged { FailureReport::No } else { self.failure_report },
            until: 0,
            at: now,
        }
    }
}

/// What a transaction of ours is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum About {
    /// A chunk relayed.
    Content,
    /// The bodiless SEND with which the active side begins (RFC 4975 §5.4).
    Opening,
    /// A request with an unknown method, passed on; with the transaction id its sender gave it.
    Foreign { tid: Ident },
}

/// A request sent that may be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transaction {
    pub tid: Ident,
    pub about: About,
    pub from: LegId,
    pub to: LegId,
    pub message_id: Ident,
    pub start: u64,
    pub octets: u64,
    pub total: Option<u64>,
    pub failure_report: FailureReport,
    /// It is all with the kernel when so many octets of the connection are.
    pub until: u64,
    /// When its last octet came to us; then, when that went to the kernel.
    pub at: Instant,
}

impl Transaction {
    /// The octets it carried, for a failure report (RFC 4975 §7.1.4).
    pub fn range(&self) -> ByteRange {
        carried(self.start, self.octets, self.total)
    }
}

/// The range of octets that were carried; a total they went beyond was none.
pub(super) fn carried(start: u64, octets: u64, total: Option<u64>) -> ByteRange {
    let end = start.saturating_add(octets).saturating_sub(1);
    ByteRange { start, end: Some(end), total: total.filter(|&total| end <= total && start <= total.max(1)) }
}

/// Boxes that are kept for the next of their kind.
const SPARE_MAX: usize = 64;

/// The boxes of what is over serve what begins next: a steady relay allocates nothing.
pub(super) struct Spare<T>(
    // What is kept is the box itself.
    #[allow(clippy::vec_box)] Vec<Box<T>>,
);

impl<T> Spare<T> {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// A box with this in it.
    pub fn filled(&mut self, value: T) -> Box<T> {
        match self.0.pop() {
            Some(mut spare) => {
                *spare = value;
                spare
            }
            None => Box::new(value),
        }
    }

    /// Takes a box that is no longer needed.
    pub fn keep(&mut self, spare: Box<T>) {
        if self.0.len() < SPARE_MAX {
            self.0.push(spare);
        }
    }
}

/// One connection. An idle one takes some 350 octets.
pub(super) struct Conn {
    pub me: Connection,
    pub peer: SocketAddr,
    pub tls: bool,
    /// What a TLS peer showed, in DER form; none: it showed nothing.
    pub certificate: Option<Box<[u8]>>,
    /// It came from outside and has not named a session: counted against its address.
    pub stranger: bool,
    pub phase: Phase,
    pub reader: Reader,
    /// Sessions bound to it; a peer may share one connection among several (RFC 4975 §5.4).
    pub legs: Vec<LegId>,
    /// The leg of the last request.
    pub last: Option<LegId>,
    pub opened_at: Instant,
    /// Octets queued and octets gone to the kernel since the connection began.
    pub queued: u64,
    pub written: u64,
    pub progress_at: Instant,
    pub paused: bool,
    /// Somebody waits until this connection has room.
    pub pressing: bool,
    /// What came while nobody could take it; `holding` while such a thing stands at its front.
    pub held: Vec<u8>,
    pub holding: bool,
    /// The peer closed its side while something was held.
    pub fin: bool,
    pub chunk: Option<Box<Chunk>>,
    /// The header fields of `chunk` without Byte-Range, to begin it anew after an interruption.
    pub fields: Vec<u8>,
    pub line: Option<Box<Line>>,
    pub transactions: VecDeque<Transaction>,
    /// The last so many transactions are not all with the kernel yet.
    pub unsent: usize,
    /// Transactions whose sender waits for a response.
    pub awaited: usize,
    /// When its last SEND was answered, and what waits to be answered.
    pub answered_at: Instant,
    pub answers: Option<Box<Answers>>,
    last_effect: usize,
    pub timer: Option<(Instant, Handle)>,
}

impl Conn {
    pub fn new(me: Connection, peer: SocketAddr, tls: bool, accepted: bool, now: Instant) -> Self {
        Self {
            me,
            peer,
            tls,
            certificate: None,
            stranger: accepted,
            phase: if accepted { Phase::Open } else { Phase::Connecting },
            reader: Reader::default(),
            legs: Vec::new(),
            last: None,
            opened_at: now,
            queued: 0,
            written: 0,
            progress_at: now,
            paused: false,
            pressing: false,
            held: Vec::new(),
            holding: false,
            fin: false,
            chunk: None,
            fields: Vec::new(),
            line: None,
            transactions: VecDeque::new(),
            unsent: 0,
            awaited: 0,
            answered_at: Instant::default(),
            answers: None,
            last_effect: usize::MAX,
            timer: None,
        }
    }

    /// Binds a leg. Nearly every connection has one for ever, so room is made one by one.
    pub fn add_leg(&mut self, id: LegId) {
        self.legs.reserve_exact(1);
        self.legs.push(id);
    }

    /// Octets that wait to go to the kernel.
    pub const fn backlog(&self) -> u64 {
        self.queued - self.written
    }

    /// Whether something can still be sent.
    pub fn takes(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Ended)
    }

    /// Whether what comes in is still of interest.
    pub fn hears(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Queues a piece. Neighbours in one buffer leave as one piece.
    pub fn send(&mut self, now: Instant, piece: Piece, out: &mut MediaOutbox) {
        let octets = piece.len();
        if octets == 0 || !self.takes() {
            return;
        }
        if self.backlog() == 0 {
            self.progress_at = now;
        }
        self.queued += u64::from(octets);
        // The index may be of an outbox that was emptied since; then no effect there is of this connection but by a later
        // call of this function, which would have set the index anew.
        if let Some(MediaEffect::Send { connection, piece: last }) = out.effects.get_mut(self.last_effect)
            && *connection == self.me
            && last.join(&piece)
        {
            return;
        }
        self.last_effect = out.effects.len();
        out.effects.push(MediaEffect::Send { connection: self.me, piece });
    }

    /// Whether a transaction of this id is under way (RFC 4975 §7.1: ids must not collide).
    pub fn uses(&self, tid: &Ident) -> bool {
        let on_line = self.line.as_ref().is_some_and(|line| line.tid == *tid);
        on_line || self.transactions.iter().any(|transaction| transaction.tid == *tid)
    }

    /// Takes up a transaction whose last octet has just been queued.
    pub fn transact(&mut self, transaction: Transaction) {
        self.unsent += 1;
        self.awaited += usize::from(transaction.failure_report == FailureReport::Yes);
        self.transactions.push_back(transaction);
    }

    /// Ends the transaction at this place of the queue.
    pub fn settle(&mut self, at: usize) -> Transaction {
        if at >= self.transactions.len() - self.unsent {
            self.unsent -= 1;
        }
        let transaction = self.transactions.remove(at).expect("the caller found it there");
        self.awaited -= usize::from(transaction.failure_report == FailureReport::Yes);
        // A crowd leaves much room behind, and the opening SEND is often the last for long.
        let rest = transaction.about == About::Opening || self.transactions.capacity() > 64;
        if rest && self.transactions.is_empty() {
            self.transactions = VecDeque::new();
        }
        transaction
    }

    /// The oldest transaction that is all with the kernel since this call; those nobody answers leave at once.
    pub fn sent(&mut self, now: Instant) -> Option<(Transaction, Instant)> {
        if self.unsent == 0 {
            return None;
        }
        let at = self.transactions.len() - self.unsent;
        let transaction = self.transactions[at];
        if transaction.until > self.written {
            return None;
        }
        if transaction.failure_report == FailureReport::No {
            self.settle(at);
        } else {
            self.unsent -= 1;
            self.transactions[at].at = now;
        }
        Some((transaction, transaction.at))
    }

    /// When the oldest transaction that is with the kernel was sent.
    pub fn oldest_sent(&self) -> Option<Instant> {
        (self.transactions.len() > self.unsent).then(|| self.transactions[0].at)
    }
}
