//! An engine in memory for tests of the media core: buffers with loans, partial writes, files, and scripted peers.
//!
//! A piece is resolved only when it is written, as the kernel would, so a buffer that is changed after it was lent shows.

use super::Media;
use crate::base::clock::{Duration, Instant};
use crate::base::prng::Prng;
use crate::config::Config;
use crate::msrp::chunk::Continuation;
use crate::msrp::leg::{Direction, Matching, Peer, SessionKind};
use crate::msrp::parse::{Place, Reader, Step};
use crate::shard::exchange::{Command, Leg, LegKind, MediaKey, Open, Report};
use crate::shard::media_outbox::{Buffer, Connection, File, Gone, MediaEffect, MediaOutbox, Piece};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

/// Octets on their way to a peer.
enum Segment {
    Lent { buffer: u32, at: usize, end: usize },
    Own { octets: Vec<u8>, at: usize },
}

/// What the engine knows of a connection.
#[derive(Default)]
pub struct Wire {
    queue: VecDeque<Segment>,
    /// What the peer has got and not taken yet.
    got: Vec<u8>,
    pub paused: bool,
    pub finished: bool,
    pub aborted: bool,
    pub handed_to: Option<(u8, Vec<u8>)>,
    /// The peer does not read.
    pub stalled: bool,
    /// Octets of each single write, to see how many sends it took.
    pub writes: Vec<usize>,
}

/// A message as a peer reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    pub start: String,
    pub head: String,
    pub body: Vec<u8>,
    pub flag: Continuation,
}

impl Read {
    /// The value of a header field, empty where it is not there.
    pub fn field(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or("")
    }
}

/// A media core with its engine.
pub struct Harness {
    pub media: Media,
    pub now: Instant,
    pub out: MediaOutbox,
    pub wires: BTreeMap<Connection, Wire>,
    buffers: BTreeMap<u32, (Vec<u8>, usize)>,
    next_buffer: u32,
    pub connects: Vec<(Connection, std::net::SocketAddr, bool)>,
    pub reports: Vec<Report>,
    pub files: BTreeMap<File, (PathBuf, Vec<u8>)>,
    /// Files that were deleted, and closed.
    pub discarded: Vec<(PathBuf, bool)>,
    /// Writes, syncs and reads wait for [`Harness::disk`].
    pub slow_disk: bool,
    disk: VecDeque<MediaEffect>,
    /// What sources find on disk, by path, and how far each has been read.
    pub sources: BTreeMap<PathBuf, Vec<u8>>,
    read_at: BTreeMap<File, (PathBuf, usize)>,
}

pub const PEER: &str = "192.0.2.1:7777";
pub const KEY: MediaKey = MediaKey(1 << 56 | 7);

impl Harness {
    pub fn new(config: &Config) -> Self {
        Self {
            media: Media::new(0, config, Prng::seeded(1)),
            now: Instant::from_unix_s(1_800_000_000),
            out: MediaOutbox::default(),
            wires: BTreeMap::new(),
            buffers: BTreeMap::new(),
            next_buffer: 0,
            connects: Vec::new(),
            reports: Vec::new(),
            files: BTreeMap::new(),
            discarded: Vec::new(),
            slow_disk: false,
            disk: VecDeque::new(),
            sources: BTreeMap::new(),
            read_at: BTreeMap::new(),
        }
    }

    pub fn command(&mut self, command: Command) {
        self.media.command(self.now, command, &mut self.out);
        self.carry_out();
    }

    pub fn accept(&mut self) -> Connection {
        let peer = PEER.parse().expect("a lawful address");
        let connection = self.media.accepted(self.now, peer, false, &mut self.out).expect("there is room");
        self.wires.insert(connection, Wire::default());
        self.carry_out();
        connection
    }

    pub fn connected(&mut self, connection: Connection) {
        self.media.connected(self.now, connection, &mut self.out);
        self.carry_out();
    }

    /// The peer sends octets, which come in at once.
    pub fn send(&mut self, connection: Connection, octets: impl AsRef<[u8]>) {
        self.send_unflushed(connection, octets);
        self.carry_out();
    }

    /// As [`Harness::send`], but effects wait: several receives of one turn of the engine.
    pub fn send_unflushed(&mut self, connection: Connection, octets: impl AsRef<[u8]>) {
        let octets = octets.as_ref();
        let id = self.next_buffer;
        self.next_buffer += 1;
        let offset = (id % 7) as usize;
        let mut buffer = vec![0xEE; offset];
        buffer.extend_from_slice(octets);
        let from = self.out.effects.len();
        self.media.receive(self.now, connection, Buffer(id), &mut buffer[offset..], offset as u32, &mut self.out);
        let lent = |effect: &MediaEffect| match effect {
            MediaEffect::Send { piece: Piece::Lent { buffer, .. }, .. }
            | MediaEffect::Write { piece: Piece::Lent { buffer, .. }, .. } => buffer.0 == id,
            _ => false,
        };
        let loans = self.out.effects[from..].iter().filter(|effect| lent(effect)).count();
        if loans > 0 {
            self.buffers.insert(id, (buffer, loans));
        }
    }

    pub fn end(&mut self, connection: Connection) {
        self.media.ended(self.now, connection, &mut self.out);
        self.carry_out();
    }

    pub fn gone(&mut self, connection: Connection, why: Gone) {
        if let Some(wire) = self.wires.remove(&connection) {
            self.drop_queue(wire.queue);
        }
        self.media.gone(self.now, connection, why, &mut self.out);
        self.carry_out();
    }

    /// Time goes by; every timer on the way fires at its moment.
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.media.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.media.due(self.now, &mut self.out);
            self.carry_out();
        }
        self.now = until;
    }

    /// Lets a peer that did not read take so many octets.
    pub fn drain(&mut self, connection: Connection, octets: usize) {
        self.write(connection, octets);
        self.carry_out();
    }

    /// Octets queued for a peer.
    pub fn queued(&self, connection: Connection) -> usize {
        let length = |segment: &Segment| match segment {
            Segment::Lent { at, end, .. } => end - at,
            Segment::Own { octets, at } => octets.len() - at,
        };
        self.wires.get(&connection).map_or(0, |wire| wire.queue.iter().map(length).sum())
    }

    /// What the peer has got since it was last asked.
    pub fn take(&mut self, connection: Connection) -> Vec<u8> {
        self.wires.get_mut(&connection).map(|wire| std::mem::take(&mut wire.got)).unwrap_or_default()
    }

    pub fn text(&mut self, connection: Connection) -> String {
        String::from_utf8_lossy(&self.take(connection)).into_owned()
    }

    /// What the peer has got, read as MSRP; every octet must be part of a whole request or response.
    pub fn read(&mut self, connection: Connection) -> Vec<Read> {
        read_all(&self.take(connection))
    }

    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    pub fn files_by_path(&self) -> Vec<&[u8]> {
        self.files.values().map(|(_, octets)| octets.as_slice()).collect()
    }

    /// Buffers lent and not given back.
    pub fn loans(&self) -> usize {
        self.buffers.len()
    }

    fn carry_out(&mut self) {
        while !self.out.effects.is_empty() {
            let effects = std::mem::take(&mut self.out.effects);
            let own = std::mem::take(&mut self.out.octets);
            let mut dirty = Vec::new();
            for effect in effects {
                self.effect(effect, &own, &mut dirty);
            }
            for connection in dirty {
                if self.wires.get(&connection).is_some_and(|wire| !wire.stalled) {
                    self.write(connection, usize::MAX);
                }
            }
        }
        self.out.octets.clear();
    }

    fn effect(&mut self, effect: MediaEffect, own: &[u8], dirty: &mut Vec<Connection>) {
        match effect {
            MediaEffect::Send { connection, piece } => {
                let segment = match piece {
                    Piece::Lent { buffer, octets } => {
                        Segment::Lent { buffer: buffer.0, at: octets.start as usize, end: octets.end as usize }
                    }
                    Piece::Own(range) => Segment::Own { octets: own[range.start as usize..range.end as usize].to_vec(), at: 0 },
                };
                let wire = self.wires.get_mut(&connection).expect("the core knows which connections are open");
                assert!(!wire.finished && !wire.aborted, "nothing may be sent after the end");
                wire.queue.push_back(segment);
                if !dirty.contains(&connection) {
                    dirty.push(connection);
                }
            }
            MediaEffect::Connect { connection, to, tls } => {
                self.wires.insert(connection, Wire::default());
                self.connects.push((connection, to, tls.is_some()));
            }
            MediaEffect::Pause(connection) => self.wire(connection).paused = true,
            MediaEffect::Resume(connection) => self.wire(connection).paused = false,
            MediaEffect::Finish(connection) => self.wire(connection).finished = true,
            MediaEffect::Abort(connection) => {
                self.wire(connection).aborted = true;
                let queue = std::mem::take(&mut self.wire(connection).queue);
                self.drop_queue(queue);
            }
            MediaEffect::HandOver { connection, core, octets } => {
                let octets = own[octets.start as usize..octets.end as usize].to_vec();
                self.wire(connection).handed_to = Some((core, octets));
            }
            MediaEffect::Tell(report) => self.reports.push(report),
            MediaEffect::Write { file, at, piece } => {
                let octets = match piece {
                    Piece::Own(range) => own[range.start as usize..range.end as usize].to_vec(),
                    Piece::Lent { buffer, octets } => {
                        let copy = self.buffers[&buffer.0].0[octets.start as usize..octets.end as usize].to_vec();
                        self.give_back(buffer.0);
                        copy
                    }
                };
                let content = &mut self.files.get_mut(&file).expect("created before it is written").1;
                let (at, count) = (at as usize, octets.len());
                content.resize(content.len().max(at + count), 0);
                content[at..at + count].copy_from_slice(&octets);
                let done = MediaEffect::Write { file, at: 0, piece: Piece::Own(0..count as u32) };
                self.disk_effect(done);
            }
            MediaEffect::Create { file, path } => {
                self.files.insert(file, (path, Vec::new()));
            }
            MediaEffect::Discard { file, delete } => {
                self.read_at.remove(&file);
                if let Some((path, _)) = self.files.get(&file) {
                    self.discarded.push((path.clone(), delete));
                    if delete {
                        self.files.remove(&file);
                    }
                }
            }
            MediaEffect::Open { file, path } => {
                self.read_at.insert(file, (path, 0));
            }
            MediaEffect::Sync(_) | MediaEffect::Read { .. } => self.disk_effect(effect),
        }
    }

    fn wire(&mut self, connection: Connection) -> &mut Wire {
        self.wires.get_mut(&connection).expect("the core knows which connections are open")
    }

    fn disk_effect(&mut self, effect: MediaEffect) {
        self.disk.push_back(effect);
        if !self.slow_disk {
            self.disk_step();
        }
    }

    /// The disk does all it has been asked for.
    pub fn disk(&mut self) {
        while !self.disk.is_empty() {
            self.disk_step();
            self.carry_out();
        }
    }

    fn disk_step(&mut self) {
        match self.disk.pop_front() {
            Some(MediaEffect::Write { file, piece, .. }) => {
                self.media.wrote(self.now, file, u64::from(piece.len()), &mut self.out)
            }
            Some(MediaEffect::Sync(file)) => self.media.synced(self.now, file, &mut self.out),
            Some(MediaEffect::Read { file, octets }) => self.disk_read(file, octets),
            _ => {}
        }
    }

    fn disk_read(&mut self, file: File, octets: u32) {
        let Some((path, at)) = self.read_at.get_mut(&file) else { return };
        let Some(content) = self.sources.get(path) else { return self.media.file_failed(self.now, file, &mut self.out) };
        let end = (*at + octets as usize).min(content.len());
        let piece = content[*at..end].to_vec();
        *at = end;
        let id = self.next_buffer;
        self.next_buffer += 1;
        let from = self.out.effects.len();
        self.media.read(self.now, file, Buffer(id), &piece, 0, &mut self.out);
        let lent = |effect: &&MediaEffect| matches!(effect, MediaEffect::Send { piece: Piece::Lent { buffer, .. }, .. } if buffer.0 == id);
        let loans = self.out.effects[from..].iter().filter(lent).count();
        if loans > 0 {
            self.buffers.insert(id, (piece, loans));
        }
    }

    fn write(&mut self, connection: Connection, octets: usize) {
        let mut left = octets;
        let mut moved = 0;
        while left > 0 {
            let Some(wire) = self.wires.get_mut(&connection) else { break };
            let Some(segment) = wire.queue.front_mut() else { break };
            let returned = match segment {
                Segment::Lent { buffer, at, end } => {
                    let upto = (*end).min(at.saturating_add(left));
                    wire.got.extend_from_slice(&self.buffers[buffer].0[*at..upto]);
                    (left, moved) = (left - (upto - *at), moved + upto - *at);
                    *at = upto;
                    (at == end).then_some(Some(*buffer))
                }
                Segment::Own { octets, at } => {
                    let upto = octets.len().min(at.saturating_add(left));
                    wire.got.extend_from_slice(&octets[*at..upto]);
                    (left, moved) = (left - (upto - *at), moved + upto - *at);
                    *at = upto;
                    (*at == octets.len()).then_some(None)
                }
            };
            if let Some(buffer) = returned {
                wire.queue.pop_front();
                wire.writes.push(moved);
                if let Some(buffer) = buffer {
                    self.give_back(buffer);
                }
            }
        }
        if moved > 0 {
            self.media.written(self.now, connection, moved, &mut self.out);
        }
    }

    fn give_back(&mut self, buffer: u32) {
        let entry = self.buffers.get_mut(&buffer).expect("lent");
        entry.1 -= 1;
        if entry.1 == 0 {
            self.buffers.remove(&buffer);
        }
    }

    fn drop_queue(&mut self, queue: VecDeque<Segment>) {
        for segment in queue {
            if let Segment::Lent { buffer, .. } = segment {
                self.give_back(buffer);
            }
        }
    }
}

/// Reads a peer's octets as MSRP.
pub fn read_all(octets: &[u8]) -> Vec<Read> {
    let mut reader = Reader::default();
    let (mut reads, mut open, mut input) = (Vec::new(), None::<(String, String, Vec<u8>)>, octets);
    while !input.is_empty() {
        let taken = reader.next(input);
        let carry = (taken.place == Place::Carry).then(|| reader.take_carry());
        let ground = carry.as_deref().unwrap_or(input);
        let end = match taken.step {
            Step::Incomplete => None,
            Step::Lost(lost) => panic!("{lost:?} in {:?}", String::from_utf8_lossy(octets)),
            Step::Head { at, head, body, end } => {
                // An answer to a malformed request repeats its transaction id.
                let answer = head.is_response() && head.fault == Some(crate::msrp::head::Fault::TransactionId);
                assert!(answer || head.fault.is_none(), "{:?} in {:?}", head.fault, String::from_utf8_lossy(ground));
                let text = String::from_utf8_lossy(&ground[at..at + head.len]).into_owned();
                open = Some((text.lines().next().unwrap_or("").to_owned(), text, ground[body].to_vec()));
                end
            }
            Step::Body { body, end } => {
                open.as_mut().expect("a head came first").2.extend_from_slice(&ground[body]);
                end
            }
        };
        if let Some(end) = end {
            let (start, head, body) = open.take().expect("a head came first");
            reads.push(Read { start, head, body, flag: end.flag });
        }
        if let Some(carry) = carry {
            reader.put_carry(carry);
        }
        input = &input[taken.consumed..];
    }
    assert!(open.is_none() && reader.is_between(), "something is cut off in {:?}", String::from_utf8_lossy(octets));
    reads
}

/// Our and the peers' URIs of the sessions below.
pub fn own(leg: u8) -> String {
    format!("msrp://pf.example.net:2855/00ownsession{leg:02};tcp")
}

pub fn far(leg: u8) -> String {
    format!("msrp://10.0.0.{leg}:9000/farsession{leg:02};tcp")
}

pub fn msrp_leg(leg: u8, direction: Direction) -> Leg {
    Leg { leg, kind: LegKind::Msrp { uri: own(leg).into(), tls: false }, direction, matching: Matching::Strict }
}

pub fn passive_peer(leg: u8) -> Peer {
    Peer { path: vec![far(leg).into()], connect: None, tls: false, fingerprint: None, max_size: None, matching: Matching::Strict }
}

pub fn open(kind: SessionKind, direction: Direction) -> Command {
    Command::Open(Box::new(Open { session: KEY, kind, max_message: 100 << 20, origin: msrp_leg(0, direction) }))
}

/// A SEND from a leg's peer to us.
pub fn send(leg: u8, tid: &str, fields: &str, body: &[u8], flag: char) -> Vec<u8> {
    let mut octets = format!(
        "MSRP {tid} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\n{fields}Content-Type: text/plain\r\n\r\n",
        own(leg),
        far(leg)
    )
    .into_bytes();
    octets.extend_from_slice(body);
    octets.extend_from_slice(format!("\r\n-------{tid}{flag}\r\n").as_bytes());
    octets
}

/// The bodiless SEND with which a peer binds its connection.
pub fn bind(leg: u8) -> String {
    format!(
        "MSRP bind{leg:02} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: empty\r\nByte-Range: 1-0/0\r\n-------bind{leg:02}$\r\n",
        own(leg),
        far(leg)
    )
}

/// A peer's response to what we sent.
pub fn response(leg: u8, tid: &str, status: &str) -> String {
    format!("MSRP {tid} {status}\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------{tid}$\r\n", own(leg), far(leg))
}

/// A peer's REPORT.
pub fn report(leg: u8, tid: &str, fields: &str) -> String {
    format!("MSRP {tid} REPORT\r\nTo-Path: {}\r\nFrom-Path: {}\r\n{fields}-------{tid}$\r\n", own(leg), far(leg))
}

/// Messages put together from their chunks by Byte-Range, in order of their first chunk: id, octets, and how they ended.
pub fn assemble(reads: &[Read]) -> Vec<(String, Vec<u8>, Continuation)> {
    let mut messages: Vec<(String, Vec<u8>, Continuation)> = Vec::new();
    for read in reads.iter().filter(|read| read.start.ends_with(" SEND") && !read.field("Content-Type").is_empty()) {
        let id = read.field("Message-ID").to_owned();
        let start = read.field("Byte-Range").split('-').next().and_then(|start| start.parse().ok()).unwrap_or(1usize);
        let open = messages.iter().rposition(|(known, _, end)| *known == id && *end == Continuation::More);
        let at = open.unwrap_or_else(|| {
            messages.push((id, Vec::new(), Continuation::More));
            messages.len() - 1
        });
        let message = &mut messages[at];
        assert_eq!(message.1.len() + 1, start, "chunks follow each other: {}", read.head);
        message.1.extend_from_slice(&read.body);
        message.2 = read.flag;
    }
    messages
}
