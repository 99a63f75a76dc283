//! Bodies of the fuzz targets: each takes any octets and panics where a promise is broken. `cargo test` runs them on the
//! vectors and on seeded mutations of them; `tests/fuzz` may hand them to libFuzzer.

use super::frame::{Frame, Framer};
use super::header::name::Name;
use super::header::name_addr::NameAddr;
use super::header::via::Via;
use super::header::{date, event, feature, list, product, reason, retry_after, session_expires, subscription_state, warning};
use super::message::{Incoming, Message};
use super::transaction::seam::{Arrival, ServerKey, Sink};
use super::transaction::table::Transactions;
use super::uri::Uri;
use super::write::Writer;
use super::{lenient, owner, validate};
use crate::base::clock::{Duration, Instant};
use crate::base::prng::Prng;
use crate::base::transport::{Destination, Flow, Transport};
use std::rc::Rc;

const MESSAGE_OCTETS_MAX: usize = 4096;

fn flow(transport: Transport) -> Flow {
    let peer = std::net::SocketAddr::from(([192, 0, 2, 1], 4000));
    Flow { transport, core: 0, listener: 0, connection: 0, peer }
}

/// Reading never panics, and what was read is written back field by field as it came.
pub fn sip_message(octets: &[u8]) {
    let _ = owner::of(octets);
    let mut answer = Vec::new();
    let _ = lenient::refuse(octets, &flow(Transport::Udp), 0, 400, "Bad Request", &mut answer);
    let Ok(incoming) = Incoming::parse(octets) else {
        let _ = validate::read(octets);
        return;
    };
    let message = incoming.message();
    let came = super::message::past_empty_lines(octets);
    let body = came.strip_prefix(message.head().as_bytes()).expect("the head is a prefix of what came");
    assert!(body.starts_with(message.body()), "the body follows it");
    let _ = validate::validate(&incoming);
    typed(message);

    let mut copy = Vec::new();
    let mut writer = match &incoming {
        Incoming::Request(request) => Writer::request(&mut copy, request.method_str(), request.uri()),
        Incoming::Response(response) => Writer::response(&mut copy, response.status(), response.reason()),
    };
    for (_, name, value) in message.fields().filter(|(name, _, _)| *name != Name::ContentLength) {
        writer.named(name, value);
    }
    writer.body(message.body());
    let copy = Incoming::parse(&copy).expect("what was read and written can be read");
    let fields = |message: &Message| {
        let kept = message.fields().filter(|(name, _, _)| *name != Name::ContentLength);
        kept.map(|(_, name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>()
    };
    assert_eq!(fields(message), fields(copy.message()));
    assert_eq!(message.body(), copy.message().body());
}

/// Asks for every header that has a type.
fn typed(message: &Message) {
    for (_, _, value) in message.fields() {
        for value in list(value) {
            let _ = Via::parse(value);
            let _ = NameAddr::parse(value).map(|address| (Uri::parse(address.uri), feature::features(address.params).count()));
            let _ = feature::ContactPreference::parse(value).map(|preference| preference.names_service("urn:x"));
            let _ = reason::Reason::parse(value).map(|reason| reason.to_string());
            let _ = warning::Warning::parse(value).map(|warning| warning.to_string());
        }
        let _ = session_expires::SessionExpires::parse(value);
        let _ = retry_after::parse(value);
        let _ = event::Event::parse(value);
        let _ = subscription_state::SubscriptionState::parse(value);
        let _ = date::parse(value);
        let _ = product::products(value).count();
    }
}

/// A stream reads the same whole and cut into pieces; the first octets choose the pieces.
pub fn sip_stream(octets: &[u8]) {
    let (cuts, stream) = octets.split_at(octets.len().min(4));
    let whole = read(stream, &[stream.len().max(1)]);
    let pieces: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) + 1).collect();
    assert_eq!(read(stream, &pieces), whole);
    assert_eq!(read(stream, &[1]), whole);
}

/// What a stream reads as, in pieces of these lengths (used in turn).
fn read(stream: &[u8], pieces: &[usize]) -> Vec<(String, Vec<u8>)> {
    let mut framer = Framer::new(MESSAGE_OCTETS_MAX);
    let (mut found, mut rest, mut turn) = (Vec::new(), stream, 0);
    while !rest.is_empty() {
        let piece = pieces.get(turn % pieces.len().max(1)).map_or(1, |piece| *piece).min(rest.len());
        framer.feed(&rest[..piece]);
        (rest, turn) = (&rest[piece..], turn + 1);
        loop {
            match framer.next() {
                Ok(None) => break,
                Ok(Some(Frame::Ping)) => found.push(("ping".to_string(), Vec::new())),
                Ok(Some(Frame::Message(octets))) => found.push(("message".to_string(), octets.to_vec())),
                // How much of a broken head came with it depends on the pieces; that it is broken does not.
                Err(broken) => found.push((broken.fault.as_str().to_string(), Vec::new())),
            }
        }
        framer.settle();
        assert!(framer.pending() <= 2 * MESSAGE_OCTETS_MAX + piece, "a stream holds no more than its limit");
    }
    found
}

/// Counts final responses on their way out.
#[derive(Default)]
struct Finals {
    count: usize,
}

impl Sink for Finals {
    fn send(&mut self, _to: &Destination, _tag: u64, octets: &[u8]) {
        if octets.starts_with(b"SIP/2.0 ") && octets.get(8).is_some_and(|class| *class > b'1') {
            self.count += 1;
        }
    }
}

/// Any order of requests, answers and time: a transaction is finally answered once, and the table ends up empty.
pub fn transactions(octets: &[u8]) {
    let mut table = Transactions::new(1, Duration::from_millis(500), 16, Prng::seeded(1));
    let mut now = Instant::from_unix_s(1);
    let (mut open, mut events): (Vec<ServerKey>, Vec<_>) = (Vec::new(), Vec::new());
    for pair in octets.chunks_exact(2).take(500) {
        let (what, which) = (pair[0] % 8, usize::from(pair[1]));
        match what {
            0..=3 => {
                let method = ["INVITE", "ACK", "CANCEL", "BYE"][usize::from(what)];
                let transport = if which.is_multiple_of(2) { Transport::Udp } else { Transport::Tcp };
                let mut out = Finals::default();
                let arrival = table.receive_request(now, &flow(transport), &Rc::new(request(method, which % 5)), &mut out);
                if let Arrival::New(key) | Arrival::Merged(key) = arrival {
                    open.push(key);
                }
            }
            4 | 5 if !open.is_empty() => {
                let key = open[which % open.len()];
                let status = [100, 180, 200, 486, 487, 500, 200, 183][which % 8];
                let mut out = Finals::default();
                let sent = table.refuse(now, key, status, &mut out);
                assert_eq!(out.count, usize::from(sent && status >= 200), "one final response for each answer taken");
                assert!(!(sent && status >= 200 && table.refuse(now, key, 500, &mut out)), "no second final response");
            }
            6 if !open.is_empty() => table.acknowledged(open[which % open.len()]),
            _ => {
                now += Duration::from_millis(which as u64 * 100);
                table.due(now, &mut Finals::default(), &mut events);
            }
        }
    }
    for key in open {
        table.refuse(now, key, 500, &mut Finals::default());
    }
    // Timers armed by the last answers, and those that they arm in turn.
    while let Some(next) = table.next_due() {
        now = next;
        table.due(now, &mut Finals::default(), &mut events);
    }
    assert!(table.is_empty(), "at rest no transaction is left");
}

fn request(method: &str, branch: usize) -> super::message::Request {
    let text = format!(
        "{method} sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK{branch}\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c{branch}\r\n\
        CSeq: 1 {method}\r\n\r\n"
    );
    super::message::Request::parse(text.as_bytes()).expect("it is written well")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors() -> Vec<Vec<u8>> {
        crate::sip::torture::messages().into_iter().map(|(_, octets)| octets).collect()
    }

    /// A vector with some octets changed, cut out, doubled, or joined with another.
    fn mutate(vectors: &[Vec<u8>], prng: &mut Prng) -> Vec<u8> {
        let mut octets = vectors[prng.below(vectors.len() as u64) as usize].clone();
        for _ in 0..=prng.below(6) {
            let at = prng.below(octets.len() as u64 + 1) as usize;
            match prng.below(5) {
                0 if at < octets.len() => octets[at] = prng.u64() as u8,
                1 => octets.truncate(at.max(1)),
                2 => octets.insert(at, b"\r\n:;,<>\"\\ \t@=%\0"[prng.below(15) as usize]),
                3 => {
                    let end = (at + prng.below(20) as usize).min(octets.len());
                    let part = octets[at..end].to_vec();
                    octets.splice(at..at, part);
                }
                _ => {
                    let other = &vectors[prng.below(vectors.len() as u64) as usize];
                    let from = prng.below(other.len() as u64) as usize;
                    octets.splice(at.., other[from..].iter().copied());
                }
            }
            if octets.is_empty() {
                octets.push(b'\n');
            }
        }
        octets
    }

    #[test]
    fn vectors_and_two_thousand_mutations_break_no_promise() {
        let vectors = vectors();
        let mut prng = Prng::seeded(3261);
        for octets in &vectors {
            sip_message(octets);
            sip_stream(octets);
        }
        for _ in 0..2000 {
            let octets = mutate(&vectors, &mut prng);
            sip_message(&octets);
            sip_stream(&octets);
        }
    }

    #[test]
    fn two_thousand_orders_of_events_leave_no_transaction() {
        let mut prng = Prng::seeded(6026);
        for _ in 0..2000 {
            let octets: Vec<u8> = (0..prng.below(200)).map(|_| prng.u64() as u8).collect();
            transactions(&octets);
        }
    }

    #[test]
    fn every_cut_of_every_vector_reads_the_same() {
        for octets in vectors() {
            let whole = read(&octets, &[octets.len()]);
            for cut in 1..octets.len() {
                assert_eq!(read(&octets, &[cut, octets.len()]), whole);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_octets_are_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
            sip_message(&octets);
            sip_stream(&octets);
        }

        #[test]
        fn any_header_values_are_read_without_panic(value in "[ -~\t\u{e9}]{0,80}") {
            let text = format!("INVITE sip:b@x SIP/2.0\r\nVia: {value}\r\nFrom: {value}\r\nTo: {value}\r\nContact: {value}\r\nReason: {value}\r\n\r\n");
            sip_message(text.as_bytes());
        }

        #[test]
        fn any_uri_reads_or_not_without_panic(text in "(sip|sips|tel|x):[ -~]{0,60}") {
            if let Ok(uri) = Uri::parse(&text) {
                prop_assert_eq!(uri.text, text.as_str());
                let _ = super::super::uri::decode(uri.user);
            }
        }
    }
}
