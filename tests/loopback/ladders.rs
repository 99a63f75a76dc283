//! One good case of each section of the Change Request, as real sockets saw it: `docs/ladders/`. A test for each says that the program
//! still does what stands there; `LADDERS_BLESS=1 cargo test --test loopback ladders` writes down what it does now.

use crate::ladder::{Originating, Terminating};
use crate::msrp::{Msrp, Waiting};
use crate::proxy::put;
use crate::tape::Tape;
use crate::ue::{Invite, LARGE, Message, SESSION, Ue, answer_sdp};
use std::net::SocketAddr;
use std::path::Path;

const BOB: &str = "sip:bob@example.net";
const PHONE: &str = "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000001>\"\nprimary = true";
const TABLET: &str = "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000002>\"\ngruu = \"sip:bob@example.net;gr=urn:uuid:00000000-0000-1000-8000-000000000002\"";

/// Compares with the ladder that is written down, or writes it down.
#[track_caller]
fn compare(file: &str, title: &str, tape: &Tape, names: &[(String, &str, &str)]) {
    let text = format!(
        "{title}\n\nMessages as real peers sent and read them, 100 Trying and retransmissions left out; ports, ids and lengths\nare named. Written by: LADDERS_BLESS=1 cargo test --test loopback ladders\n\n{}",
        tape.print(names)
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ladders").join(file);
    if std::env::var_os("LADDERS_BLESS").is_some() {
        return std::fs::write(&path, text).expect("docs/ladders can be written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/ladders has the ladder");
    let differs = written.lines().zip(text.lines()).position(|(one, other)| one != other);
    let line = differs.unwrap_or(written.lines().count().min(text.lines().count()));
    let now: Vec<&str> = text.lines().skip(line.saturating_sub(3)).take(12).collect();
    assert!(written == text, "{file} says something else in line {}; now it is:\n{}", line + 1, now.join("\n"));
}

fn named(address: SocketAddr, name: &'static str, printed: &'static str) -> (String, &'static str, &'static str) {
    (address.to_string(), name, printed)
}

fn originating(more: &str, tape: &Tape) -> Originating {
    let mut ladder = Originating::new(more);
    ladder.alice.tape = Some(tape.clone());
    ladder.core.tape = Some(tape.clone());
    ladder.isf.tape = Some(tape.clone());
    ladder
}

/// Bob answers through the core, a message goes from alice to bob, alice hangs up.
fn one_message(ladder: &mut Originating, tape: &Tape, invite: &Invite, direction: &str, contact: &str) -> SocketAddr {
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "bob1", "passive", direction);
    let (arrived, ok) = ladder.established(invite, contact, &sdp);
    let _ends = talk(tape, invite, &ok, &arrived, &waiting, "bob1");
    ladder.hang_up(&ok);
    waiting.address()
}

/// The two MSRP ends, and a message from alice to bob.
fn talk(tape: &Tape, invite: &Invite, ok: &Message, arrived: &Message, waiting: &Waiting, id: &str) -> (Msrp, Msrp) {
    let mut bob = waiting.accept(&format!("msrp://{}/{id};tcp", waiting.address()), arrived.attribute("path"));
    bob.tape = Some((tape.clone(), "bob".into()));
    let opening = bob.expect("SEND-EMPTY");
    // Endpoints compare these octet by octet with what the SDP said.
    assert_eq!(opening.field("From-Path"), Some(arrived.attribute("path")));
    bob.answer(&opening, "200 OK");
    let mut alice = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    alice.tape = Some((tape.clone(), "alice".into()));
    alice.send("message1", b"hello bob");
    alice.expect("200");
    assert_eq!(bob.message(), b"hello bob");
    (alice, bob)
}

fn names_of(ladder: &Originating, bob: SocketAddr) -> Vec<(String, &'static str, &'static str)> {
    vec![
        named(ladder.alice.address, "alice", "127.0.0.1:5061"),
        named(ladder.core.address, "core", "127.0.0.1:5070"),
        named(ladder.isf.address, "isf", "127.0.0.1:5090"),
        named(ladder.pf.udp, "the proxy", "127.0.0.1:5060"),
        named(ladder.pf.msrp, "the proxy", "127.0.0.1:2855"),
        named(bob, "bob", "127.0.0.1:2856"),
    ]
}

#[test]
fn a_large_message_leaves_by_8_2_1_2() {
    let tape = Tape::default();
    let mut ladder = originating("", &tape);
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", LARGE).with("Subject", "lunch");
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let bob = one_message(&mut ladder, &tape, &invite, "recvonly", &contact);
    compare(
        "8.2.1.2-large-message.txt",
        "CR 8.2.1.2: alice sends a large message; it leaves through the core",
        &tape,
        &names_of(&ladder, bob),
    );
}

#[test]
fn a_session_leaves_by_8_2_2_1() {
    let tape = Tape::default();
    let mut ladder = originating("", &tape);
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let bob = one_message(&mut ladder, &tape, &invite, "sendrecv", &contact);
    compare(
        "8.2.2.1-session.txt",
        "CR 8.2.2.1 step 4: alice invites bob to a session; we stay in the media path",
        &tape,
        &names_of(&ladder, bob),
    );
}

#[test]
fn a_session_is_proxied_by_8_2_2_1_step_5() {
    let tape = Tape::default();
    let mut ladder = originating("[policy]\nstay_in_media_path = false", &tape);
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    let bob = Waiting::new();
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let (_, ok) = ladder.established(&invite, &contact, &answer_sdp(bob.address(), "bob1", "passive", "sendrecv"));
    let bye = ladder.alice.in_dialog("BYE", &ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    ladder.alice.expect_status(200);
    compare(
        "8.2.2.1-proxy.txt",
        "CR 8.2.2.1 step 5: alice invites bob to a session; we are a proxy that record-routes",
        &tape,
        &names_of(&ladder, bob.address()),
    );
}

#[test]
fn a_focus_keeps_its_contact_by_c_1_7() {
    let tape = Tape::default();
    let mut ladder = originating("", &tape);
    let invite = Invite::new(&ladder.alice, "sip:group@example.org", &format!("{SESSION}.group"));
    let contact = format!("<sip:conference-7@{}>;isfocus", ladder.core.address);
    let bob = one_message(&mut ladder, &tape, &invite, "sendrecv", &contact);
    compare(
        "C.1.7-focus.txt",
        "CR C.1.7: the session's other side is a focus; its Contact passes, and our Record-Route keeps us on the path",
        &tape,
        &names_of(&ladder, bob),
    );
}

fn terminating(folder: tempfile::TempDir, keys: &[&str], more: &str, tape: &Tape) -> Terminating {
    let mut ladder = Terminating::in_folder(folder, keys, more);
    ladder.alice.tape = Some(tape.clone());
    for (ue, name) in ladder.clients.iter_mut().zip(["phone", "tablet"]) {
        ue.name = name.into();
        ue.tape = Some(tape.clone());
    }
    ladder
}

fn names_beyond(ladder: &Terminating, msrp: &[SocketAddr]) -> Vec<(String, &'static str, &'static str)> {
    let mut names = vec![
        named(ladder.alice.address, "alice", "127.0.0.1:5061"),
        named(ladder.pf.udp, "the proxy", "127.0.0.1:5060"),
        named(ladder.pf.msrp, "the proxy", "127.0.0.1:2855"),
    ];
    let places = [("phone", "127.0.0.1:5062"), ("tablet", "127.0.0.1:5063")];
    names.extend(ladder.clients.iter().zip(places).map(|(ue, (name, printed))| named(ue.address, name, printed)));
    names.extend(
        msrp.iter()
            .zip([("phone", "127.0.0.1:2856"), ("tablet", "127.0.0.1:2857")])
            .map(|(at, (name, printed))| named(*at, name, printed)),
    );
    names
}

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_large_message_arrives_by_8_3_1_2_and_8_3_1_5() {
    let tape = Tape::default();
    let mut ladder = terminating(empty(), &[PHONE, TABLET], "", &tape);
    let invite = ladder.call(LARGE);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let (first, from_first) = ladder.clients[0].expect_from("INVITE");
    let (second, from_second) = ladder.clients[1].expect_from("INVITE");
    let (one, two) = (Waiting::new(), Waiting::new());
    ladder.accept(0, &first, from_first, one.address(), "recvonly");
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    ladder.clients[0].expect("ACK");
    ladder.accept(1, &second, from_second, two.address(), "recvonly");
    ladder.clients[1].expect("ACK");
    let mut ends = Vec::new();
    for (number, (waiting, arrived, name)) in [(&one, &first, "phone"), (&two, &second, "tablet")].into_iter().enumerate() {
        let mut end = waiting.accept(&format!("msrp://{}/client{number};tcp", waiting.address()), arrived.attribute("path"));
        end.tape = Some((tape.clone(), name.into()));
        let opening = end.expect("SEND-EMPTY");
        end.answer(&opening, "200 OK");
        ends.push(end);
    }
    let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    sender.tape = Some((tape.clone(), "alice".into()));
    sender.send("message1", b"hello bob");
    sender.expect("200");
    for end in &mut ends {
        assert_eq!(end.message(), b"hello bob");
    }
    hang_up(&mut ladder, &ok);
    compare(
        "8.3.1.2-large-message.txt",
        "CR 8.3.1.2 step 7 and 8.3.1.5: a large message for bob, who has a phone and a tablet; the first 200 answers",
        &tape,
        &names_beyond(&ladder, &[one.address(), two.address()]),
    );
}

/// Alice says BYE, and every client hears it.
fn hang_up(ladder: &mut Terminating, ok: &Message) {
    let bye = ladder.alice.in_dialog("BYE", ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    ladder.alice.next("200 to BYE", |message| message.status() == 200 && message.want("CSeq").ends_with("BYE"));
    for client in &mut ladder.clients {
        let (bye, from) = client.expect_from("BYE");
        client.answer(&bye, from, "200 OK", "", "");
    }
}

#[test]
fn a_message_for_one_who_is_not_to_be_disturbed_is_kept_by_8_3_1_5() {
    let tape = Tape::default();
    let folder = empty();
    let rules = r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
        <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list><oxe:media-list><oxe:standalone-message/></oxe:media-list></conditions>
        <actions><oxe:allow-do-not-disturb>true</oxe:allow-do-not-disturb></actions></rule></ruleset>"#;
    put(folder.path(), &format!("xdm/org.openmobilealliance.access-rules/users/{BOB}/access-rules"), rules);
    let mut ladder = terminating(folder, &[PHONE], "", &tape);
    let invite = ladder.call(LARGE).without("Session-Expires");
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let accepted = ladder.alice.expect_status(202);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &accepted);
    let mut sender = Msrp::connect(accepted.msrp_address(), invite.message().attribute("path"), accepted.attribute("path"));
    sender.tape = Some((tape.clone(), "alice".into()));
    sender.send("message1", b"for later");
    sender.expect("200");
    let bye = ladder.alice.in_dialog("BYE", &accepted, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    ladder.alice.expect_status(200);
    compare(
        "8.3.1.5-do-not-disturb.txt",
        "CR 8.3.1.2 step 6.b and 8.3.1.5: bob is not to be disturbed; we receive the message and keep it",
        &tape,
        &names_beyond(&ladder, &[]),
    );
}

#[test]
fn a_session_arrives_by_8_3_2_1() {
    let tape = Tape::default();
    let mut ladder = terminating(empty(), &[PHONE, TABLET], "", &tape);
    let invite = ladder.call(SESSION);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    let (arrived, from) = ladder.clients[0].expect_from("INVITE");
    let waiting = Waiting::new();
    ladder.accept(0, &arrived, from, waiting.address(), "sendrecv");
    ladder.clients[0].expect("ACK");
    let (other, from) = ladder.clients[1].expect_from("INVITE");
    ladder.clients[1].answer(&other, from, "486 Busy Here", "", "");
    ladder.clients[1].expect("ACK");
    let (mut alice, mut bob) = talk(&tape, &invite, &ok, &arrived, &waiting, "client0");
    bob.send("message2", b"hello alice");
    bob.expect("200");
    assert_eq!(alice.message(), b"hello alice");
    let tablet: Ue = ladder.clients.remove(1);
    hang_up(&mut ladder, &ok);
    ladder.clients.push(tablet);
    compare(
        "8.3.2.1-session.txt",
        "CR 8.3.2.1: a session for bob, whose phone takes it and whose tablet is busy; the 200 of step 8.a comes first",
        &tape,
        &names_beyond(&ladder, &[waiting.address()]),
    );
}
