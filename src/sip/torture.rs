//! RFC 4475, RFC 5118: every message of theirs, and what becomes of it here.
//!
//! `tests/vectors/torture/expected.txt` has a line a message: a verdict (`400 …`, `drop …`) or what was read. It is
//! printed by the test (`PRINT_TABLES=1`) and was read beside the RFCs before it was committed.
//! RFC 5118 §4.6 prints a Content-Length beyond its body; `ipv6-in-sdp-whole` is the same message with the right one.

use super::header::name::Name;
use super::header::via::Via;
use super::message::{Incoming, Message};
use super::validate::{self, Reject};
use std::fmt::Write as _;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/torture"))
}

/// Name ("rfc4475/wsinv") and octets of every message, in order.
pub(super) fn messages() -> Vec<(String, Vec<u8>)> {
    let mut messages = Vec::new();
    for rfc in ["rfc4475", "rfc5118"] {
        for entry in std::fs::read_dir(folder().join(rfc)).expect("the vectors are in the repository") {
            let path = entry.expect("the folder can be read").path();
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            messages.push((format!("{rfc}/{name}"), std::fs::read(&path).expect("the vector can be read")));
        }
    }
    messages.sort();
    messages
}

/// What becomes of a datagram with these octets.
fn verdict(octets: &[u8]) -> String {
    match validate::read(octets) {
        Ok(incoming) => reading(&incoming),
        Err(Reject::Answer { status, context }) => format!("{status} {context}"),
        Err(Reject::Drop { context }) => format!("drop {context}"),
    }
}

fn reading(incoming: &Incoming) -> String {
    let mut text = match incoming {
        Incoming::Request(request) => format!("{} {}", request.method_str(), request.uri()),
        Incoming::Response(response) => format!("{} [{}]", response.status(), response.reason()),
    };
    let message = incoming.message();
    let cseq = message.cseq().expect("it was validated");
    let _ = write!(text, " | {} {} | {}", cseq.number, cseq.method_str, message.call_id().unwrap_or("?"));
    for (name, address) in [("from", message.from()), ("to", message.to())] {
        let address = address.expect("it was validated");
        let _ = write!(text, " | {name} [{}] {} tag {}", address.display, address.uri, address.tag().unwrap_or("-"));
    }
    vias(message, &mut text);
    for contact in message.values(Name::Contact) {
        let contact = super::header::name_addr::NameAddr::parse(contact).expect("it was validated");
        let _ = write!(
            text,
            " | contact {} {}",
            contact.uri,
            contact.params.iter().map(|(name, _)| name).collect::<Vec<_>>().join(",")
        );
    }
    let _ = write!(text, " | body {}", message.body().len());
    text.escape_default().to_string()
}

fn vias(message: &Message, text: &mut String) {
    let count = message.values(Name::Via).count();
    let _ = write!(text, " | {count} via");
    for value in message.values(Name::Via).take(2) {
        let via = Via::parse(value).expect("it was validated");
        let port = via.port.map_or(String::new(), |port| format!(":{port}"));
        let _ = write!(text, " {}/{}{port}/{}", via.transport, via.host, via.branch().unwrap_or("-"));
        if let Some(received) = validate::received(&via) {
            let _ = write!(text, "/received {received}");
        }
    }
}

#[test]
fn every_torture_message_is_taken_or_refused_as_its_rfc_says() {
    let expected = std::fs::read_to_string(folder().join("expected.txt")).expect("the table is in the repository");
    let got: Vec<String> = messages().iter().map(|(name, octets)| format!("{name}: {}", verdict(octets))).collect();
    if std::env::var_os("PRINT_TABLES").is_some() {
        std::fs::write(folder().join("expected.txt"), got.join("\n") + "\n").expect("the table can be written");
        return;
    }
    for (want, got) in expected.lines().zip(&got) {
        println!("{} {got}", if want == got { "as expected" } else { "UNEXPECTED " });
    }
    assert_eq!(expected.lines().collect::<Vec<_>>(), got);
    assert_eq!(got.len(), 62);
}

#[test]
fn every_refusal_can_be_sent() {
    use crate::base::transport::{Flow, Transport};
    let flow = Flow { transport: Transport::Udp, core: 0, listener: 0, connection: 0, peer: "192.0.2.1:4000".parse().unwrap() };
    for (name, octets) in messages() {
        let Err(reject) = validate::read(&octets) else { continue };
        let mut answer = Vec::new();
        let sent =
            reject.status().and_then(|status| super::lenient::refuse(&octets, &flow, 0, status, &reject.reason(), &mut answer));
        assert_eq!(sent.is_some(), reject.status().is_some(), "{name}");
        assert!(
            answer.is_empty() || super::message::Response::parse(&answer).is_ok(),
            "{name}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
}
