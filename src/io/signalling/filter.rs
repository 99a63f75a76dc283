//! RFC 3261 §21.5.4: a filter in the kernel, at a UDP socket, that drops a share of new INVITEs before anybody takes them: classic BPF
//! (socket(7), `SO_ATTACH_FILTER`), which has no loops, so that all of it is written out.
//!
//! ```text
//! "ACK …" with [`UNACKNOWLEDGED`] in it: of a refusal that waits for none ─> dropped
//! not "INVITE sip…" or "INVITE tel…", or short ───────────────────────────> passes
//! hash of its first octets, its branch among them, is beyond the share ───> passes
//! eight letters in a row as the users of our own URIs have (`sip::ids`) ──> passes: in a dialog of ours
//! all else ───────────────────────────────────────────────────────────────> dropped
//! ```
//! What is dropped comes again, octet for octet the same (§17.1.1.2), and has the same hash: it is dropped until the share falls. So
//! the share holds for calls, not for datagrams: whose call passes has its answer at once, and no resend of another's is in its way.
//!
//! A re-INVITE passes whatever the share: it has our Contact as its Request-URI, or our Record-Route in a Route (§12.2.1.1), as long as
//! that stands within the first kilobyte. An ACK that is not recognized passes, and ends at its tag (`shard::passing`).

use crate::sip::ids::{LETTERS, LETTERS_HIGH_BITS, LETTERS_MASK, UNACKNOWLEDGED};
use socket2::SockFilter;

/// Where a filter of a UDP socket finds the datagram: behind the UDP header.
const PAYLOAD: u32 = 8;
/// What of a datagram is hashed: with the Request-URI and sent-by of a usual length it has the branch in it. Shorter ones pass.
const HASHED: std::ops::Range<u32> = 12..268;
/// Where the users of our URIs, and our tags, are looked for.
const SEARCHED: std::ops::Range<u32> = 8..1_032;
/// Octets that have to be letters of ours, and how far it is to where they are looked for next.
const RUN: u32 = 8;
const STRIDE: u32 = LETTERS as u32 - RUN + 1;
/// Places looked at between two looks at where the datagram ends.
const PLACES: usize = 2;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_LENGTH: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_LEN) as u16;
const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_IMM) as u16;
const KEEP: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;
const XOR_KEPT: u16 = (libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X) as u16;
const MULTIPLY: u16 = (libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K) as u16;
const SHIFT: u16 = (libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const GO_ON: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Octets of a datagram that are kept.
const ALL: u32 = u32::MAX;
const NONE: u32 = 0;
const PASS: SockFilter = SockFilter::new(RETURN, 0, 0, ALL);
const DROP: SockFilter = SockFilter::new(RETURN, 0, 0, NONE);

const fn step(code: u16, k: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, k)
}

const fn word(text: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*text)
}

/// The filter that drops `share` of 256 new calls, and ACKs that nobody waits for; `salt` decides which calls.
pub fn dropping(share: u8, salt: u32) -> Vec<SockFilter> {
    let invite = new_call(share, salt);
    let mut program = vec![
        step(LOAD_LENGTH, 0),
        SockFilter::new(IF_LEAST, 1, 0, PAYLOAD + HASHED.end),
        PASS,
        step(LOAD, PAYLOAD),
        // A jump that asks goes no farther than 255 steps.
        SockFilter::new(IF_EQUAL, 0, 1, word(b"ACK ")),
        step(GO_ON, 2 + invite.len() as u32),
        SockFilter::new(IF_EQUAL, 1, 0, word(b"INVI")),
        PASS,
    ];
    program.extend(invite);
    program.extend(acknowledgement());
    program
}

/// An INVITE.
fn new_call(share: u8, salt: u32) -> Vec<SockFilter> {
    let mut program = vec![
        step(LOAD, PAYLOAD + 4),
        SockFilter::new(IF_EQUAL, 2, 0, word(b"TE s")),
        SockFilter::new(IF_EQUAL, 1, 0, word(b"TE t")),
        PASS,
        step(LOAD_NUMBER, salt),
    ];
    for at in HASHED.step_by(4) {
        // FNV-1a, by words.
        program.extend([step(KEEP, 0), step(LOAD, PAYLOAD + at), step(XOR_KEPT, 0), step(MULTIPLY, 0x0100_0193)]);
    }
    // The highest bits depend on all others.
    program.extend([step(SHIFT, 24), SockFilter::new(IF_LEAST, 0, 1, u32::from(share)), PASS]);
    let letters = u32::from_be_bytes([LETTERS_HIGH_BITS; 4]);
    let mask = u32::from_be_bytes([LETTERS_MASK; 4]);
    let ours = |at: u32| {
        vec![
            step(LOAD, PAYLOAD + at),
            step(AND, mask),
            SockFilter::new(IF_EQUAL, 0, 4, letters),
            step(LOAD, PAYLOAD + at + 4),
            step(AND, mask),
            SockFilter::new(IF_EQUAL, 0, 1, letters),
            PASS,
        ]
    };
    search(&mut program, NONE, ours);
    program
}

/// An ACK.
fn acknowledgement() -> Vec<SockFilter> {
    let [sign, ..] = *UNACKNOWLEDGED.as_bytes() else { return vec![PASS] };
    let signs = u32::from_be_bytes([sign; 4]);
    let unwanted = |at: u32| {
        vec![
            step(LOAD, PAYLOAD + at),
            SockFilter::new(IF_EQUAL, 0, 3, signs),
            step(LOAD, PAYLOAD + at + 4),
            SockFilter::new(IF_EQUAL, 0, 1, signs),
            DROP,
        ]
    };
    let mut program = Vec::new();
    search(&mut program, ALL, unwanted);
    program
}

/// `look` at every place where a run of [`LETTERS`] signs must have [`RUN`] of them; `kept`: of a datagram without one.
fn search(program: &mut Vec<SockFilter>, kept: u32, look: impl Fn(u32) -> Vec<SockFilter>) {
    let places: Vec<u32> = SEARCHED.step_by(STRIDE as usize).collect();
    for places in places.chunks(PLACES) {
        let last = places.last().map_or(0, |last| last + RUN);
        program.extend([step(LOAD_LENGTH, 0), SockFilter::new(IF_LEAST, 1, 0, PAYLOAD + last), step(RETURN, kept)]);
        places.iter().for_each(|at| program.extend(look(*at)));
    }
    program.push(step(RETURN, kept));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::io::signalling::sockets;
    use crate::sip::ids;
    use std::net::UdpSocket;

    fn invite(number: usize, route: &str) -> String {
        format!(
            "INVITE sip:bob@ims.mnc001.mcc262.3gppnetwork.org SIP/2.0\r\nVia: SIP/2.0/UDP scscf.ims.mnc001.mcc262.3gppnetwork.org:5060;\
             branch=z9hG4bK-b1r0x{number}-i\r\nMax-Forwards: 70\r\n{route}From: <sip:alice@example.net>;tag=f{number}\r\n\
             To: <sip:bob@example.net>\r\nCall-ID: {number}@there\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// Which of these arrive at a socket with the filter.
    fn arrive(share: u8, datagrams: &[String]) -> Vec<bool> {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_nonblocking(true).unwrap();
        let socket: socket2::Socket = receiver.try_clone().unwrap().into();
        socket.attach_filter(&dropping(share, 7)).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 4096];
        let mut dropped = 0;
        let arrives = |datagram: &String| {
            sender.send(datagram.as_bytes()).unwrap();
            // Under load the kernel may take it a moment later.
            loop {
                if let Ok(read) = receiver.recv(&mut buffer) {
                    assert_eq!(buffer[..read], *datagram.as_bytes());
                    return true;
                }
                let now = sockets::dropped(&socket);
                if std::mem::replace(&mut dropped, now) != now {
                    return false;
                }
                std::thread::yield_now();
            }
        };
        datagrams.iter().map(arrives).collect()
    }

    #[test]
    fn a_share_of_new_calls_is_dropped_and_a_resend_fares_as_the_first() {
        let calls: Vec<String> = (0..512).map(|number| invite(number, "")).collect();
        let first = arrive(128, &calls);
        let dropped = first.iter().filter(|arrived| !**arrived).count();
        assert!((192..=320).contains(&dropped), "{dropped} of 512 at a share of a half");
        assert_eq!(arrive(128, &calls), first);
        let fewer = arrive(64, &calls);
        assert!(fewer.iter().zip(&first).all(|(fewer, first)| *fewer || !*first), "a smaller share drops none that passed");
        assert!(arrive(0, &calls[..16]).into_iter().all(|arrived| arrived));
    }

    #[test]
    fn what_is_no_new_call_passes_whatever_the_share() {
        let mut prng = Prng::seeded(3);
        let mut passing = vec![
            invite(1, "").replace("INVITE sip", "BYE sip"),
            invite(1, "").replace("INVITE sip", "INVITE urn"),
            "INVITE sip:short SIP/2.0\r\n\r\n".to_owned(),
            "INVI".to_owned(),
            "I".to_owned(),
            String::new(),
        ];
        for core in 0..64 {
            let user = ids::user(core, &mut prng);
            let padding = "x".repeat(usize::from(core));
            passing.push(invite(1, "").replace("sip:bob@ims", &format!("sip:{padding}{user}@ims")));
            passing.push(invite(1, &format!("P-Other: {padding}\r\nRoute: <sip:{user}@we;lr>\r\n")));
            let far = padding.repeat(8);
            passing.push(invite(1, &format!("P-Other: {far}\r\nRoute: <sip:o@p;lr>, <sip:{user}@we;lr>\r\n")));
        }
        for (at, arrived) in arrive(255, &passing).into_iter().enumerate() {
            assert!(arrived, "{}", passing[at]);
        }
        assert!(arrive(255, &[invite(2, "Route: <sip:ABCDEFGX@we;lr>\r\n")]) == [false]);
    }

    #[test]
    fn of_acks_only_those_are_dropped_that_nobody_waits_for() {
        let ack = |tag: &str, padding: usize| {
            let (ack, padding) = (invite(1, "").replace("INVITE", "ACK"), "x".repeat(padding));
            ack.replace("To: <sip:bob@example.net>", &format!("To: <sip:{padding}@example.net>;tag={tag}"))
        };
        let mut prng = Prng::seeded(5);
        for padding in 0..64 {
            let unwanted = ack(&format!("turned-away{UNACKNOWLEDGED}0123456789abcdef"), padding);
            let wanted = [ids::tag(3, &mut prng), "_-".repeat(20)].map(|tag| ack(&tag, padding));
            for share in [1, 255] {
                assert_eq!(arrive(share, std::slice::from_ref(&unwanted)), [false], "{unwanted}");
            }
            assert_eq!(arrive(255, &wanted), [true, true], "{wanted:?}");
        }
        // Of another method, or short.
        let other = ack(UNACKNOWLEDGED, 9).replace("ACK sip", "BYE sip");
        assert_eq!(arrive(255, &[other, "ACK sip:short SIP/2.0\r\n\r\n".to_owned()]), [true, true]);
    }

    #[test]
    fn it_is_no_longer_than_the_kernel_takes() {
        assert!(dropping(1, 1).len() <= 4096);
    }
}
