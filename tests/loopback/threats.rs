//! What `docs/threats.md` promises and no other test shows.

use crate::ladder::{Originating, Terminating, relayed, relayed_by};
use crate::proxy::{PATIENCE, Proxy, http, put};
use crate::ue::{Invite, LARGE, SESSION, Ue};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// A value that nobody else writes.
const SECRET: &str = "Zq7-never-to-be-read-9f";

#[test]
fn secrets_and_bodies_are_in_no_log_and_no_record() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("token"), format!("{SECRET}token\n")).expect("the folder can be written");
    let (alice, core, isf) = (Ue::udp("alice"), Ue::udp("core"), Ue::udp("isf"));
    let more = format!(
        "[sip]\ncore = \"sip:{};lr\"\n[store]\nhistory = \"imap://cpm:{SECRET}@127.0.0.1:1\"\n[admin]\ntoken_file = \"token\"\n",
        core.address
    );
    let pf = Proxy::start_saying(folder, &more, "trace");
    let bearer = format!("Authorization: Bearer {SECRET}token\r\n");
    assert_eq!(http(pf.admin, "GET", "/metrics", &bearer).0, 200);
    assert_eq!(http(pf.admin, "GET", "/metrics", &format!("Authorization: Bearer wrong-{SECRET}\r\n")).0, 401);

    let mut session = relayed_by(Originating { alice, core, isf, pf }, SESSION);
    session.a.send("marked01", format!("{SECRET} {}", "x".repeat(10_000)).as_bytes());
    session.b.message();
    session.a.expect("200");
    session.a.send("marked02", SECRET.as_bytes());
    session.b.message();
    session.a.expect("200");
    let page = format!(
        "MESSAGE sip:bob@example.org SIP/2.0\nVia: SIP/2.0/UDP {0};branch=z9hG4bKsecret;rport\nMax-Forwards: 70\n\
         From: <sip:alice@example.net>;tag=s\nTo: <sip:bob@example.org>\nCall-ID: secret\nCSeq: 1 MESSAGE\n\
         P-Asserted-Identity: <sip:alice@example.net>\nProxy-Authorization: Digest response=\"{SECRET}\"\n\
         Content-Type: text/plain\nContent-Length: {1}\n\n{SECRET}",
        session.ladder.alice.address,
        SECRET.len()
    );
    session.ladder.alice.send(session.ladder.pf.udp, &page);
    session.ladder.alice.next("a final answer or the MESSAGE's way on", |message| message.status() >= 100);

    let folder = session.ladder.pf.stop();
    for file in ["log", "var/cdr.jsonl"] {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap_or_default();
        let line = text.lines().find(|line| line.contains(SECRET));
        assert_eq!(line, None, "{file}");
    }
    let said = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert!(said.contains("stopp"), "the log was written to its end:\n{said}");
}

#[test]
fn session_ids_are_random_and_good_for_one_connection() {
    let mut session = relayed(SESSION, "[limits]\nsessions_per_originator = 100\n");
    let mut ids = BTreeSet::new();
    for _ in 0..50 {
        let invite = Invite::new(&session.ladder.alice, "sip:bob@example.org", SESSION);
        let (arrived, _) = session.ladder.passes(&invite);
        let id = arrived.attribute("path").rsplit('/').next().unwrap_or("").trim_end_matches(";tcp").to_owned();
        assert!(ids.insert(id));
    }
    // Behind the two digits that name the media core: 128 bits, as characters that carry six bits at most.
    assert!(ids.iter().all(|id| id.len() >= 2 + 22), "{ids:?}");
    for place in 2..24 {
        let seen: BTreeSet<char> = ids.iter().filter_map(|id| id.chars().nth(place)).collect();
        assert!(seen.len() >= 8, "place {place} says little in {ids:?}");
    }
    session.a.send("first", b"x");
    assert_eq!(session.b.message(), b"x");
    session.a.expect("200");
    // One that stole the id comes too late.
    let mut thief = crate::msrp::Msrp::connect(session.ok.msrp_address(), &session.a.own, &session.a.peer);
    thief.send("stolen", b"x");
    thief.expect("506");
    session.a.send("mine", b"x");
    assert_eq!(session.b.message(), b"x");
}

/// How the proxy ends a connection that says too little: whatever it answers, and the end, within our patience.
fn ends(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(2 * PATIENCE)).expect("a socket has a time limit");
    stream.read_to_end(&mut Vec::new()).is_ok() || stream.write_all(b"x").is_err()
}

#[test]
fn whoever_sends_little_by_little_holds_no_port() {
    let pf = Proxy::start("[limits]\nopening_timeout = \"500ms\"\n");
    let open = |to, beginning: &str| {
        let mut stream = TcpStream::connect(to).expect("the port listens");
        stream.write_all(beginning.as_bytes()).expect("a new connection takes octets");
        stream
    };
    // As many as the admin server serves at one time.
    let idle: Vec<TcpStream> = (0..64).map(|_| open(pf.admin, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ")).collect();
    let begun = Instant::now();
    assert_eq!(pf.get("/healthz").0, 200);
    assert!(begun.elapsed() < PATIENCE);
    assert!(idle.into_iter().all(ends));

    let sip = open(pf.tcp.expect("TCP is bound"), "INVITE sip:bob@example.net SIP/2.0\r\nVia: ");
    assert!(ends(sip));
    assert!(pf.metric("cpm_pf_sip_transport_total", &["half"]) >= 1.0, "{}", pf.get("/metrics").1);
}

#[test]
fn a_flood_of_header_fields_costs_its_sender_and_nobody_else() {
    let pf = Proxy::start("");
    let mut alice = Ue::udp("alice");
    for fields in [cpm_pf::limits::SIP_FIELDS_MAX + 1, 4_000] {
        let invite = Invite::new(&alice, "sip:bob@example.org", SESSION);
        let text = invite.text().replace("CSeq:", &format!("{}CSeq:", "a:\r\n".repeat(fields)));
        alice.send(pf.udp, &text);
        let (answer, _) = alice.next("a refusal", |message| message.status() >= 400);
        assert!([400, 413, 513].contains(&answer.status()), "{answer:?}");
    }
    // A value of many parts, and one long token.
    let invite = Invite::new(&alice, "sip:bob@example.org", SESSION);
    for value in [vec!["<sip:a@x>"; 3_000].join(","), "x".repeat(30_000)] {
        alice.send(pf.udp, &invite.clone().with("P-Asserted-Identity", &value).text());
    }
    let mut stream = TcpStream::connect(pf.tcp.expect("TCP is bound")).expect("the port listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    let mut flood = b"INVITE sip:bob@example.net SIP/2.0\r\n".to_vec();
    flood.resize(1 << 20, b'a');
    let _ = stream.write_all(&flood);
    let _ = stream.read_to_end(&mut Vec::new());
    alice.nothing(pf.udp, "nothing in particular", |_| false);
}

#[test]
fn documents_that_grow_when_read_are_not_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut bomb = String::from("<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\">");
    for (next, last) in ('b'..='j').zip('a'..) {
        bomb += &format!("<!ENTITY {next} \"{}\">", format!("&{last};").repeat(10));
    }
    bomb += "]><ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\"><rule id=\"r\">&j;</rule></ruleset>";
    put(folder.path(), "xdm/org.openmobilealliance.access-rules/users/sip:bob@example.net/access-rules", &bomb);
    let deep = format!("<resource-lists>{}", "<list>".repeat(200_000));
    put(folder.path(), "xdm/resource-lists/users/sip:bob@example.net/index", &deep);
    let mut ladder = Terminating::in_folder(folder, &["primary = true"], "");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.net", LARGE).terminating();
    let begun = Instant::now();
    ladder.passes(&invite);
    assert!(begun.elapsed() < PATIENCE);
    // The process did not grow by what the bomb would have become (10^10 octets).
    let status = std::fs::read_to_string(format!("/proc/{}/status", ladder.pf.pid())).expect("Linux tells");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    assert!(peak.is_some_and(|kibibytes| kibibytes < 1 << 20), "{peak:?} KiB");
}

#[test]
fn what_a_peer_writes_makes_no_line_of_its_own_in_log_or_record() {
    let mut ladder = Originating::new("[policy]\nauthorised_originators = [\"sip:nobody@example.net\"]\n");
    let forged = "x\u{1b}[31m\u{7}2026-01-01T00:00:00Z ERROR forged";
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION).with("Conversation-ID", forged);
    ladder
        .alice
        .send(ladder.pf.udp, &invite.with("P-Asserted-Identity", &format!("\"{forged}\" <sip:alice@example.net>")).text());
    ladder.alice.next("a final answer", |message| message.status() >= 300);
    ladder.pf.until("the log has said it", |pf| pf.log().contains("403") || pf.log().contains("400"));
    let log = ladder.pf.log();
    assert!(!log.contains('\u{1b}') && !log.contains('\u{7}'), "a terminal would obey");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01")));
    for line in std::fs::read_to_string(ladder.pf.path("var/cdr.jsonl")).unwrap_or_default().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}
