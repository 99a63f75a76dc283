//! What the media core takes of memory: an idle session, and a steady relay, which allocates and copies nothing.

use super::rig::{Pair, Rig, Setup, peer};
use crate::counting::{Counter, count_into};
use cpm_pf::base::clock::{Duration, Instant};
use cpm_pf::base::prng::Prng;
use cpm_pf::config::Config;
use cpm_pf::io::media::engine::CONNECTION_OCTETS;
use cpm_pf::msrp::leg::{Direction, Matching, SessionKind};
use cpm_pf::shard::exchange::{Command, Leg, LegKind, MediaKey, Open};
use cpm_pf::shard::media::Media;
use cpm_pf::shard::media_outbox::{Buffer, Connection, MediaEffect, MediaOutbox, Piece};

/// A media core's state without its engine: what it sends is taken at once.
struct Core {
    media: Media,
    out: MediaOutbox,
    now: Instant,
}

/// One session in it, both legs connected.
struct Session {
    from: Connection,
    to: Connection,
    own: String,
    origin: String,
}

impl Core {
    fn new() -> Self {
        let media = Media::new(0, &Config::default(), Prng::seeded(1));
        Self { media, out: MediaOutbox::default(), now: Instant::from_unix_s(1_800_000_000) }
    }

    fn command(&mut self, command: Command) {
        self.media.command(self.now, command, &mut self.out);
    }

    /// A session as signalling opens it; each side has said what it says first, and was answered.
    fn session(&mut self, number: u64) -> Session {
        let uri = |leg| format!("msrp://192.0.2.7:2855/00{number:08x}{leg:02}Hg7sT4pQz1XcVbNm9L;tcp");
        let leg = |leg| {
            let kind = LegKind::Msrp { uri: uri(leg).into(), tls: false };
            Leg { leg, kind, direction: Direction::Both, matching: Matching::Strict }
        };
        let session = MediaKey(number);
        let (origin, target) =
            (format!("msrp://198.51.100.3:7654/o{number:07x};tcp"), format!("msrp://203.0.113.9:8765/t{number:07x};tcp"));
        let open = Open { session, kind: SessionKind::Session, max_message: 1 << 40, origin: leg(0) };
        self.command(Command::Open(Box::new(open)));
        self.command(Command::Leg { session, leg: Box::new(leg(1)) });
        self.command(Command::Bind { session, leg: 0, peer: Box::new(peer(&origin, None)) });
        let there = "203.0.113.9:8765".parse().expect("an address");
        self.command(Command::Bind { session, leg: 1, peer: Box::new(peer(&target, Some(there))) });
        let connect = |effect: &MediaEffect| match effect {
            MediaEffect::Connect { connection, .. } => Some(*connection),
            _ => None,
        };
        let to = self.out.effects.iter().find_map(connect).expect("the target is connected to");
        self.out.clear();
        self.media.connected(self.now, to, &mut self.out);
        let opening = String::from_utf8(self.out.octets.clone()).expect("ASCII");
        let tid = opening.split(' ').nth(1).expect("MSRP tid SEND").to_owned();
        self.sent(to);
        let answer = format!("MSRP {tid} 200 OK\r\nTo-Path: {}\r\nFrom-Path: {target}\r\n-------{tid}$\r\n", uri(1));
        self.receive(to, answer.as_bytes());
        let from = self.media.accepted(self.now, "198.51.100.3:7654".parse().expect("an address"), false, &mut self.out);
        let session = Session { from: from.expect("there is room"), to, own: uri(0), origin };
        let open = session.head("open", "1-0/0", "") + "-------open0000$\r\n";
        self.receive(session.from, open.as_bytes());
        self.sent(session.from);
        session
    }

    fn receive(&mut self, connection: Connection, octets: &[u8]) {
        let mut received = octets.to_vec();
        self.media.receive(self.now, connection, Buffer(0), &mut received, 0, &mut self.out);
    }

    /// What was queued for a connection is with the kernel: how many octets, and how many of them were lent.
    fn sent(&mut self, connection: Connection) -> (usize, usize) {
        let (mut octets, mut lent) = (0, 0);
        for effect in self.out.effects.drain(..) {
            if let MediaEffect::Send { connection: to, piece } = effect
                && to == connection
            {
                octets += piece.len() as usize;
                lent += if matches!(piece, Piece::Lent { .. }) { piece.len() as usize } else { 0 };
            }
        }
        self.out.clear();
        self.now += Duration::from_micros(10);
        self.media.written(self.now, connection, octets, &mut self.out);
        (octets, lent)
    }
}

impl Session {
    /// A SEND up to its Content-Type; its transaction id is `kind` and four zeroes.
    fn head(&self, kind: &str, range: &str, fields: &str) -> String {
        format!(
            "MSRP {kind}0000 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {kind}\r\nByte-Range: {range}\r\n{fields}",
            self.own, self.origin
        )
    }

    fn message(&self, kind: &str, body: usize) -> Vec<u8> {
        let range = if body > 2048 { format!("1-*/{body}") } else { format!("1-{body}/{body}") };
        let mut text = self.head(kind, &range, "Failure-Report: no\r\nContent-Type: text/plain\r\n\r\n").into_bytes();
        text.extend((0..body).map(|at| b'a' + (at % 26) as u8));
        text.extend(format!("\r\n-------{kind}0000$\r\n").bytes());
        text
    }
}

#[test]
fn an_idle_session_weighs_at_most_two_kibibytes() {
    static COUNTER: Counter = Counter::new();
    const SESSIONS: u64 = 1_000;
    let mut core = Core::new();
    // Tables and scratch room that do not grow with the sessions.
    core.session(0);
    count_into(&COUNTER);
    for number in 1..=SESSIONS {
        core.session(number);
    }
    let each = COUNTER.live() as usize / SESSIONS as usize;
    println!("{each} octets of state, and {CONNECTION_OCTETS} in the engine's tables for each of its two connections");
    assert!(each <= 2048, "{each} octets");
    const { assert!(CONNECTION_OCTETS <= 264) };
}

#[test]
fn a_steady_relay_allocates_nothing_and_lends_every_body() {
    static COUNTER: Counter = Counter::new();
    let mut core = Core::new();
    let session = core.session(1);
    let (small, large) = (session.message("small", 200), session.message("large", 64 * 1024));
    // A long chunk arrives in three receives, the second cut in the end-line.
    let cuts = [0, 20_000, large.len() - 9, large.len()];
    let (mut small_in, mut large_in) = (small.clone(), large.clone());
    let mut made = 0;
    for round in 0..300 {
        if round == 100 {
            count_into(&COUNTER);
            made = COUNTER.made();
        }
        small_in.copy_from_slice(&small);
        core.media.receive(core.now, session.from, Buffer(0), &mut small_in, 0, &mut core.out);
        let (octets, lent) = core.sent(session.to);
        assert!(lent >= 200 && octets > lent / 2, "{lent} of {octets} octets were lent");
        large_in.copy_from_slice(&large);
        let mut whole = 0;
        for cut in cuts.windows(2) {
            core.media.receive(core.now, session.from, Buffer(0), &mut large_in[cut[0]..cut[1]], 0, &mut core.out);
            whole += core.sent(session.to).1;
        }
        assert!(whole >= 64 * 1024, "only {whole} octets of 64 KiB were lent");
    }
    assert_eq!(COUNTER.made() - made, 0);
}

#[test]
fn an_engine_that_relays_copies_no_body_and_allocates_nothing() {
    static COUNTER: Counter = Counter::new();
    let mut rig = Rig::start(Setup { counter: Some(&COUNTER), ..Setup::new() });
    let mut pair = rig.pair(0);
    relay(&mut pair, "before");
    let (before, made) = (rig.engine_counts(0), COUNTER.made());
    relay(&mut pair, "after");
    let (made, after) = (COUNTER.made() - made, rig.engine_counts(0));
    let grown = |count: &str| after[count] - before[count];
    let octets = (CHUNKS * CHUNK) as u64;
    assert!(grown("received-bytes") > octets && grown("sent-bytes") > octets);
    assert_eq!(grown("copied-bytes"), 0, "no reader was slow");
    // Heads, end-lines and answers, and the last octets of a chunk where they came by themselves.
    assert!(grown("joined-bytes") <= (CHUNKS * 4096) as u64, "{} octets were joined", grown("joined-bytes"));
    // Where TCP cuts differs from run to run, so a list may still grow for the first time. Nothing is allocated for a chunk.
    assert!(made <= (CHUNKS / 10) as u64, "{made} allocations for {CHUNKS} chunks");
}

const CHUNKS: usize = 200;
const CHUNK: usize = 64 * 1024;

/// A message in chunks, each sent when the one before has been answered, so that nobody is ever slow.
fn relay(pair: &mut Pair, message: &str) {
    let (body, total) = (vec![b'x'; CHUNK], CHUNKS * CHUNK);
    for at in 0..CHUNKS {
        let flag = if at + 1 == CHUNKS { '$' } else { '+' };
        pair.origin.chunk(message, &format!("{}-*/{total}", at * CHUNK + 1), "", &body, flag);
        let chunk = pair.target.expect("SEND");
        assert_eq!(chunk.body.as_ref().map(Vec::len), Some(CHUNK));
        pair.target.answer(&chunk, "200 OK");
        pair.origin.expect("200");
    }
}
