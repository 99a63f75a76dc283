//! Whatever octets come, each reader of ours keeps its promises: it does not panic, reads the same however its input is cut, and reads
//! what it has written. Every target runs on its vectors and on two thousand seeded mutations of them; `CPM_PF_FUZZ=600 cargo test
//! --test fuzz -- --nocapture` goes on with each for ten minutes, from a seed that it prints (`CPM_PF_FUZZ_SEED` plays one again).
//! `docs/fuzzing.md` has what was run and what it found.

#![allow(clippy::disallowed_methods)] // The long form ends by the clock.

use cpm_pf::base::prng::Prng;
use cpm_pf::mime::{content_type::ContentType, cpim, imdn, multipart};
use cpm_pf::msrp::parse::{Place, Reader, Step};
use cpm_pf::sdp::description::Description;
use cpm_pf::shard::registrations::reginfo::RegInfo;
use cpm_pf::xdm::{access_rules::AccessRules, uri_list::Resolving};
use cpm_pf::{config, msrp, sip};
use std::path::Path;
use std::time::{Duration, Instant};

const MUTATIONS: u64 = 2_000;
/// What separates things in one or other of the syntaxes.
const MARKS: &[u8] = b"\r\n:;,<>\"\\ \t@=%/-[]&'#\0\xff";

/// Every file below a folder of the repository.
fn files(folder: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> =
            std::fs::read_dir(folder).expect("the folder is there").flatten().map(|entry| entry.path()).collect();
        entries.sort();
        for path in entries {
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(std::fs::read(path).expect("the file can be read")),
            }
        }
    }
    found
}

/// A vector with some octets changed, cut out, doubled, or joined with another.
fn mutated(vectors: &[Vec<u8>], prng: &mut Prng) -> Vec<u8> {
    let mut octets = vectors[prng.below(vectors.len() as u64) as usize].clone();
    for _ in 0..=prng.below(6) {
        let at = prng.below(octets.len() as u64 + 1) as usize;
        let end = (at + prng.below(40) as usize).min(octets.len());
        match prng.below(7) {
            0 if at < octets.len() => octets[at] = prng.u64() as u8,
            1 => octets.truncate(at),
            2 => octets.insert(at, MARKS[prng.below(MARKS.len() as u64) as usize]),
            3 => {
                let part = octets[at..end].to_vec();
                octets.splice(at..at, part);
            }
            4 => {
                octets.drain(at..end);
            }
            5 => {
                let digits = prng.u64().to_string();
                octets.splice(at..end, digits.into_bytes());
            }
            _ => {
                let other = &vectors[prng.below(vectors.len() as u64) as usize];
                let from = prng.below(other.len() as u64 + 1) as usize;
                octets.splice(at.., other[from..].iter().copied());
            }
        }
    }
    octets
}

/// The vectors, and mutations of them: so many, or for so long as was asked for.
fn fuzz(target: &str, vectors: &[Vec<u8>], body: impl Fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("CPM_PF_FUZZ").map(Duration::from_secs);
    let seed = number("CPM_PF_FUZZ_SEED").unwrap_or_else(|| seconds.map_or(4975, |_| u64::from(std::process::id())));
    vectors.iter().for_each(|vector| body(vector));
    let (begun, mut prng, mut count) = (Instant::now(), Prng::seeded(seed), 0);
    println!("{target}: seed {seed}");
    while seconds.map_or(count < MUTATIONS, |seconds| begun.elapsed() < seconds) {
        body(&mutated(vectors, &mut prng));
        count += 1;
    }
    println!("{target}: {count} mutations in {:.0?} broke nothing", begun.elapsed());
}

macro_rules! targets {
    ($($name:ident: $vectors:expr, $body:expr;)+) => {$(
        #[test]
        fn $name() {
            fuzz(stringify!($name), &$vectors, $body);
        }
    )+};
}

targets! {
    sip_message: files("tests/vectors/torture"), sip::fuzz::sip_message;
    sip_stream: files("tests/vectors/torture"), sip::fuzz::sip_stream;
    sip_transactions: [(0..=255).collect(), vec![0; 64]], sip::fuzz::transactions;
    msrp_stream: files("tests/vectors/msrp"), msrp_reads;
    sdp: [OFFER.to_vec()], sdp_reads;
    multipart_body: [MULTIPART.to_vec()], multipart_reads;
    cpim_and_imdn: [CPIM.to_vec(), IMDN.to_vec()], cpim_reads;
    xml_documents: xml(), xml_reads;
    configuration: [include_bytes!("../configs/cpm-pf.toml").to_vec(), include_bytes!("../configs/loopback.toml").to_vec()], configuration_reads;
}

const OFFER: &[u8] = b"v=0\r\no=alice 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nb=AS:64\r\nt=0 0\r\na=group:x\r\nm=message 2855 TCP/TLS/MSRP *\r\ni=x\r\nc=IN IP4 192.0.2.1\r\na=accept-types:message/cpim text/plain\r\na=path:msrps://192.0.2.1:2855/abc;tcp\r\na=setup:actpass\r\na=msrp-cema\r\na=sendonly\r\na=file-selector:name:\"a b%22\" type:image/png size:4092 hash:sha-1:72:24:5F\r\nm=audio 0 RTP/AVP 0 8\r\na=inactive\r\n";
const MULTIPART: &[u8] = b"preamble\r\n--b1\r\nContent-Type: application/sdp\r\nContent-Disposition: session\r\n\r\nv=0\r\n\r\n--b1\r\nContent-Type: multipart/mixed;boundary=\"b2\"\r\n\r\n--b2\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n<x/>\r\n--b2--\r\n--b1\r\n\r\nplain\r\n--b1--\r\nepilogue";
const CPIM: &[u8] = b"From: \"A\" <sip:a@example.net>\r\nTo: <sip:b@example.net>\r\nDateTime: 2026-11-25T12:00:00Z\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: 34jk324j\r\nimdn.Disposition-Notification: positive-delivery, display\r\n\r\nContent-type: text/plain; charset=utf-8\r\n\r\nhello";
const IMDN: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><imdn xmlns=\"urn:ietf:params:xml:ns:imdn\"><message-id>34jk324j</message-id><datetime>2026-11-25T12:00:00Z</datetime><recipient-uri>sip:b@example.net</recipient-uri><delivery-notification><status><delivered/></status></delivery-notification></imdn>";
const REGINFO: &[u8] = b"<?xml version=\"1.0\"?><reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"0\" state=\"full\"><registration aor=\"sip:b@example.net\" id=\"a7\" state=\"active\"><contact id=\"c1\" state=\"active\" event=\"registered\" expires=\"600\" q=\"0.5\"><uri>sip:b@192.0.2.2</uri><unknown-param name=\"+sip.instance\">\"&lt;urn:uuid:1&gt;\"</unknown-param><unknown-param name=\"+g.3gpp.icsi-ref\">\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"</unknown-param><gr:pub-gruu uri=\"sip:b@example.net;gr=1\"/></contact></registration></reginfo>";

fn xml() -> Vec<Vec<u8>> {
    let mut documents = files("tests/vectors/xdm");
    documents.extend(files("configs/xdm"));
    documents.push(REGINFO.to_vec());
    documents
}

/// What a stream of MSRP reads as: heads, bodies, end flags.
#[derive(PartialEq, Eq, Debug)]
enum Read {
    Head(String),
    Body(Vec<u8>),
    End(String),
    Lost(String),
}

fn read_msrp(stream: &[u8], pieces: &[usize]) -> Vec<Read> {
    let (mut reader, mut found, mut rest, mut turn) = (Reader::default(), Vec::new(), stream, 0);
    let body = |octets: &[u8], found: &mut Vec<Read>| match found.last_mut() {
        _ if octets.is_empty() => {}
        Some(Read::Body(before)) => before.extend_from_slice(octets),
        _ => found.push(Read::Body(octets.to_vec())),
    };
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(pieces[turn % pieces.len()].clamp(1, rest.len()));
        (rest, turn) = (later, turn + 1);
        let mut piece = piece;
        while !piece.is_empty() {
            let taken = reader.next(piece);
            assert!(taken.consumed <= piece.len());
            let carry = if taken.place == Place::Carry { reader.take_carry() } else { Vec::new() };
            let octets = if taken.place == Place::Carry { &carry[..] } else { piece };
            let end = match taken.step {
                Step::Incomplete => None,
                Step::Lost(lost) => {
                    found.push(Read::Lost(format!("{lost:?}")));
                    return found;
                }
                Step::Head { head, body: range, end, .. } => {
                    found.push(Read::Head(format!("{head:?}")));
                    body(&octets[range], &mut found);
                    end
                }
                Step::Body { body: range, end } => {
                    body(&octets[range], &mut found);
                    end
                }
            };
            if let Some(end) = end {
                found.push(Read::End(format!("{:?}", end.flag)));
            }
            if taken.place == Place::Carry {
                reader.put_carry(carry);
            }
            piece = &piece[taken.consumed..];
        }
        assert!(reader.carried().len() <= 64 * 1024, "what is kept is bounded");
    }
    found
}

/// A stream reads the same whole and in pieces; the last octets choose the pieces. That it is no MSRP may be seen earlier or later.
fn msrp_reads(octets: &[u8]) {
    let read_msrp = |stream: &[u8], pieces: &[usize]| {
        let mut read = read_msrp(stream, pieces);
        read.pop_if(|last| matches!(last, Read::Lost(_)));
        read
    };
    let whole = read_msrp(octets, &[octets.len().max(1)]);
    let pieces: Vec<usize> = octets.iter().rev().take(4).map(|cut| usize::from(*cut) + 1).chain([7]).collect();
    assert_eq!(read_msrp(octets, &pieces), whole);
    assert_eq!(read_msrp(octets, &[1]), whole);
    for line in octets.split(|octet| *octet == b'\n') {
        for uri in msrp::uri::path(line) {
            let _ = msrp::uri::Uri::parse(uri);
        }
    }
}

/// What was printed is read and printed the same; only a second connection of one part, which RFC 4566 does not have, goes.
fn sdp_reads(octets: &[u8]) {
    if let Ok(read) = Description::parse(octets) {
        let printed = read.to_string();
        let again = Description::parse(printed.as_bytes()).expect("what was printed can be read");
        assert_eq!(again.to_string(), printed);
        assert_eq!(again.media.len(), read.media.len());
        assert_eq!(again.attributes, read.attributes);
    }
}

/// Parts that were read and written are the same parts.
fn multipart_reads(octets: &[u8]) {
    let Ok(parts) = multipart::parts_of("multipart/mixed;boundary=b1", None, octets) else { return };
    let boundary = multipart::boundary(&parts, 7);
    let written = multipart::write(&parts, &boundary);
    let again = multipart::parts_of(&multipart::content_type(&boundary), None, &written).expect("what was written can be read");
    assert_eq!(again, parts);
}

fn cpim_reads(octets: &[u8]) {
    if let Ok(head) = cpim::Head::parse(octets) {
        let _ = (
            head.message_id(),
            head.from_uri(),
            head.to_uri(),
            head.wants("display"),
            head.content_type().map(ContentType::parse),
        );
        for status in [imdn::Status::Failed, imdn::Status::Stored, imdn::Status::Processed] {
            if let Some(notification) = imdn::Notification::of(&head, status) {
                let written = notification.write("made", 1_764_072_000);
                assert!(cpim::Head::parse(&written).is_ok(), "{}", String::from_utf8_lossy(&written));
            }
        }
    }
    let _ = imdn::Document::parse(&String::from_utf8_lossy(octets));
}

fn xml_reads(octets: &[u8]) {
    if let Ok(rules) = AccessRules::parse(octets, str::to_owned) {
        let _ = rules.external_lists();
    }
    if let Ok(Some(mut resolving)) = Resolving::named(octets, "oma_blockedcontacts", str::to_owned) {
        // Every list it refers to is this same document.
        while let Some(reference) = resolving.wanted() {
            resolving.supply(&reference, Some(octets), str::to_owned);
        }
        let _ = resolving.finish();
    }
    let _ = RegInfo::parse(octets);
}

/// The effective configuration of an effective configuration is itself.
fn configuration_reads(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    match config::read::parse("file", &text) {
        Ok(config) => {
            let printed = config.render();
            let again = config::read::parse("file", &printed).unwrap_or_else(|mistakes| panic!("{mistakes:?} in\n{printed}"));
            assert_eq!(again.render(), printed);
        }
        Err(mistakes) => assert!(mistakes.iter().all(|mistake| mistake.line >= 1 && mistake.column >= 1)),
    }
}
