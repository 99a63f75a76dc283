//! `counts STEP TIMES`: does one step of the media core so often. `perf/count` reads with callgrind what one more time costs.
//!
//! ```text
//! parse-head     the head of a 200-octet message into spans
//! rewrite-head   start line and paths of the next hop, laid over those that came
//! scan           64 KiB of base64 text searched for an end-line
//! relay-message  a 200-octet message from the receive to "it is with the kernel", Failure-Report no
//! relay-chunk    the same for 64 KiB
//! wake-up        an item through a lane to a core that sleeps, without the system call
//! ```

mod base;
mod config;
mod limits;
mod msrp;

mod io {
    pub mod bridge;
}

mod shard {
    pub mod exchange;
    pub mod media;
    pub mod media_outbox;
}

mod store {
    pub mod deferred;
    pub mod history;
    pub mod registrant;
}

use base::clock::{Duration, Instant};
use base::prng::Prng;
use config::Config;
use io::bridge::{lane, wake::Sleeping};
use msrp::end_line::EndLine;
use msrp::ident::Ident;
use msrp::leg::{Direction, Matching, Peer, SessionKind};
use shard::exchange::{Command, Leg, LegKind, MediaKey, Open};
use shard::media::Media;
use shard::media_outbox::{Buffer, Connection, MediaEffect, MediaOutbox};
use std::hint::black_box;
use std::net::SocketAddr;

const TID: &[u8; 16] = b"0000010000000abc";
const US: &str = "msrp://192.0.2.7:2855/00kjHg7sT4pQz1XcVbNm9LrE2wYaUdFo;tcp";
const ORIGIN: &str = "msrp://198.51.100.3:7654/iau39soe2843z;tcp";
const TARGET: &str = "msrp://203.0.113.9:8765/bsadn8f7h23fnl;tcp";

/// A message of one chunk.
fn message(body: usize) -> Vec<u8> {
    let tid = std::str::from_utf8(TID).expect("ASCII");
    let end = if body > 2048 { "*".to_owned() } else { body.to_string() };
    let mut text = format!(
        "MSRP {tid} SEND\r\nTo-Path: {US}\r\nFrom-Path: {ORIGIN}\r\nMessage-ID: m0000abc\r\nByte-Range: 1-{end}/{body}\r\n\
         Failure-Report: no\r\nContent-Type: text/plain\r\n\r\n"
    )
    .into_bytes();
    text.extend(base64(body));
    text.extend(format!("\r\n-------{tid}$\r\n").bytes());
    text
}

/// Text of 76 columns, as mail and pictures come.
fn base64(octets: usize) -> impl Iterator<Item = u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..octets).map(|at| match at % 78 {
        76 => b'\r',
        77 => b'\n',
        _ => ALPHABET[(at * 29 + at / 64) % 64],
    })
}

/// A media core with one session whose legs are both connected.
struct Relay {
    media: Media,
    out: MediaOutbox,
    now: Instant,
    from: Connection,
    to: Connection,
}

impl Relay {
    fn new() -> Self {
        let now = Instant::from_unix_s(1_800_000_000);
        let mut media = Media::new(0, &Config::default(), Prng::seeded(1));
        let mut out = MediaOutbox::default();
        let session = MediaKey(1 << 56 | 7);
        let leg = |leg, uri: &str| {
            let kind = LegKind::Msrp { uri: uri.into(), tls: false };
            Leg { leg, kind, direction: Direction::Both, matching: Matching::Strict }
        };
        let peer = |uri: &str, connect| {
            let path = vec![uri.into()];
            let matching = Matching::Strict;
            Box::new(Peer { path, connect, tls: false, fingerprint: None, max_size: None, matching })
        };
        let there: SocketAddr = "203.0.113.9:8765".parse().expect("an address");
        let origin = leg(0, US);
        for command in [
            Command::Open(Box::new(Open { session, kind: SessionKind::Session, max_message: 1 << 40, origin })),
            Command::Leg { session, leg: Box::new(leg(1, &US.replace("00kj", "00kk"))) },
            Command::Bind { session, leg: 0, peer: peer(ORIGIN, None) },
            Command::Bind { session, leg: 1, peer: peer(TARGET, Some(there)) },
        ] {
            media.command(now, command, &mut out);
        }
        let connects = |effect: &MediaEffect| match effect {
            MediaEffect::Connect { connection, .. } => Some(*connection),
            _ => None,
        };
        let to = out.effects.iter().find_map(connects).expect("the target is connected to");
        media.connected(now, to, &mut out);
        let from = media.accepted(now, "198.51.100.3:7654".parse().expect("an address"), false, &mut out).expect("room");
        let mut relay = Self { media, out, now, from, to };
        relay.sent();
        // The opening SEND of the active side stays unanswered: its time limit is far off.
        relay
    }

    /// Everything queued goes to the kernel.
    fn sent(&mut self) -> usize {
        let mut octets = 0;
        for effect in self.out.effects.drain(..) {
            if let MediaEffect::Send { connection, piece } = effect
                && connection == self.to
            {
                octets += piece.len() as usize;
            }
        }
        self.out.clear();
        self.now += Duration::from_micros(1);
        if octets > 0 {
            self.media.written(self.now, self.to, octets, &mut self.out);
        }
        octets
    }

    fn relay(&mut self, received: &mut [u8]) -> usize {
        self.media.receive(self.now, self.from, Buffer(0), received, 0, &mut self.out);
        self.sent()
    }
}

fn relay(times: usize, body: usize) {
    let message = message(body);
    let mut buffer = message.clone();
    let mut relay = Relay::new();
    for _ in 0..times {
        // Only the head is rewritten.
        buffer[..400].copy_from_slice(&message[..400]);
        let octets = relay.relay(black_box(&mut buffer));
        assert!(octets > body, "the message goes to the target");
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let step = arguments.next().unwrap_or_default();
    let times: usize = arguments.next().and_then(|times| times.parse().ok()).unwrap_or(1);
    match step.as_str() {
        "parse-head" => {
            let message = message(200);
            for _ in 0..times {
                let head = msrp::head::parse(black_box(&message)).expect("a lawful head");
                assert!(black_box(head).is_some());
            }
        }
        "rewrite-head" => {
            let mut message = message(200);
            let head = msrp::head::parse(&message).expect("a lawful head").expect("a whole one");
            let fields = usize::from(head.fields.start);
            let mut start = Vec::new();
            for _ in 0..times {
                start.clear();
                let to = black_box(TARGET.as_bytes());
                msrp::write::request_start(&mut start, &head.tid, b"SEND", to, US.as_bytes());
                message[fields - start.len()..fields].copy_from_slice(&start);
            }
            black_box(&message);
        }
        "scan" => {
            let end_line = EndLine::new(&Ident::new(TID).expect("a lawful id"));
            let body: Vec<u8> = base64(64 * 1024).collect();
            for _ in 0..times {
                black_box(end_line.find(black_box(&body)));
            }
        }
        "relay-message" => relay(times, 200),
        "relay-chunk" => relay(times, 64 * 1024),
        "wake-up" => {
            let (mut sender, mut receiver) = lane::lane::<u64>(1024);
            let sleeping = Sleeping::new();
            for item in 0..times as u64 {
                assert!(sleeping.may_wait(|| !receiver.is_empty()));
                assert!(sender.push(black_box(item)).is_ok());
                assert!(sleeping.must_wake());
                sleeping.awake();
                assert_eq!(receiver.pop(), Some(item));
            }
        }
        _ => {
            eprintln!("counts parse-head|rewrite-head|scan|relay-message|relay-chunk|wake-up TIMES");
            std::process::exit(2);
        }
    }
}
