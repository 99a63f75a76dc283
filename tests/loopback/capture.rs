//! A call captured on demand, read by Wireshark's command line.

use crate::ladder::{Originating, relayed, relayed_by};
use crate::peers;
use crate::proxy::{Proxy, octets};
use crate::ue::{Invite, SESSION, Ue};
use cpm_bench::scenario::{Load, Scenario, Via};
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

/// Nothing but a body says this.
const BODY: &str = "Kq3-only-a-body-says-this";

/// What `tshark` reads of a capture, a line for each packet: fields between tabs. None, and a line about it: it is not installed.
fn tshark(file: &Path, options: &[&str], fields: &[&str]) -> Option<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    // Ports are the kernel's choice, and may be those of some other protocol: what the octets look like counts first.
    for transport in ["tcp", "udp"] {
        command.args(["-o", &format!("{transport}.try_heuristic_first:TRUE")]);
    }
    command.arg("-r").arg(file).args(options).args(["-T", "fields"]).env("HOME", file.parent().expect("a file has a folder"));
    for field in fields {
        command.args(["-e", field]);
    }
    let Ok(output) = command.output() else {
        println!("skipped: tshark is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stderr));
    Some(said.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn packets(pf: &Proxy) -> u64 {
    let list: Value = serde_json::from_str(&pf.get("/capture").1).expect("JSON");
    list[0]["packets"].as_u64().unwrap_or(0)
}

#[test]
fn tshark_reads_the_heads_of_one_call_and_no_body_is_there() {
    let ladder = Originating::new("");
    assert_eq!(ladder.pf.post("/capture?user=sip:alice@example.net&seconds=300").0, 201);
    let mut session = relayed_by(ladder, SESSION);
    for round in 0..3 {
        let body = format!("{BODY} {round}").repeat([1, 500, 5_000][round]);
        session.a.send(&format!("message{round}"), body.as_bytes());
        assert_eq!(session.b.message(), body.as_bytes());
        session.a.expect("200");
    }
    session.b.send("back0001", BODY.as_bytes());
    assert_eq!(session.a.message(), BODY.as_bytes());
    session.b.expect("200");
    // Another call is none of its business.
    // Each hop answers for itself, so the last answers may still be on their way.
    let before = 7 + 2 + 4 * 4;
    session.ladder.pf.until("all of the call is captured", |pf| packets(pf) >= before);
    let other = crate::ue::Invite::new(&session.ladder.alice, "sip:carol@example.org", SESSION);
    session.ladder.passes(&other);
    session.ladder.hang_up(&session.ok);
    // A count of packets would not do: a long chunk may have been cut in more pieces than are counted above.
    session.ladder.pf.until("both legs' ends are captured", |pf| {
        let captured = octets(pf.admin, "/capture/1");
        let sequence = |at: &usize| *at > 0 && captured[at - 1].is_ascii_digit();
        memchr::memmem::find_iter(&captured, b" BYE\r\n").filter(sequence).count() >= 4
    });

    let file = session.ladder.pf.path("call.pcapng");
    let captured = octets(session.ladder.pf.admin, "/capture/1");
    std::fs::write(&file, &captured).expect("the folder can be written");
    assert!(memchr::memmem::find(&captured, BODY.as_bytes()).is_none(), "a body was captured");
    assert!(memchr::memmem::find(&captured, b"m=message").is_none(), "SDP was captured");
    assert!(memchr::memmem::find(&captured, b"carol").is_none(), "another call was captured");

    let Some(read) = tshark(&file, &[], &["frame.protocols", "_ws.malformed", "sip.Method", "sip.Status-Code", "msrp.method"])
    else {
        return;
    };
    let malformed: Vec<_> = read.iter().filter(|line| !line[1].is_empty() || line[0].contains("malformed")).collect();
    assert!(malformed.is_empty(), "{malformed:#?}");
    let of = |kind: &str| read.iter().filter(|line| line[0].split(':').any(|name| name == kind)).count();
    assert_eq!(of("sip") + of("msrp"), read.len(), "{read:#?}");
    for (place, what, times) in [(2, "INVITE", 2), (2, "ACK", 2), (2, "BYE", 2), (3, "200", 2 * 2), (4, "SEND", 2 * 4 + 1)] {
        let found = read.iter().filter(|line| line[place] == what).count();
        assert!(found >= times, "{what} stands {found} times, not {times}:\n{read:#?}");
    }
}

#[test]
fn over_tcp_and_tls_the_packets_are_segments_that_follow_each_other() {
    let mut session = relayed(SESSION, "");
    let call_id = session.invite.get("Call-ID").expect("an INVITE has one").to_owned();
    // In the middle of the call: by its Call-ID.
    assert_eq!(session.ladder.pf.post(&format!("/capture?call_id={call_id}&octets=64KiB")).0, 201);
    session.ladder.pf.until("the media core knows", |pf| {
        session.a.send("again", BODY.as_bytes());
        session.b.message();
        session.a.expect("200");
        packets(pf) >= 4
    });
    session.a.send("last", BODY.repeat(3_000).as_bytes());
    session.b.message();
    session.a.expect("200");
    // The last message: two SENDs and the answers to both.
    session.ladder.pf.until("every SEND has its answer", |pf| packets(pf) >= 4 + 4);
    let file = session.ladder.pf.path("call.pcapng");
    std::fs::write(&file, octets(session.ladder.pf.admin, "/capture/1")).expect("the folder can be written");
    let strict = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
    let fields = ["_ws.malformed", "tcp.analysis.flags", "tcp.checksum.status", "msrp.cnt.flg", "frame.comment"];
    let Some(read) = tshark(&file, &strict, &fields) else { return };
    assert!(read.len() >= 8, "{read:?}");
    for line in &read {
        assert_eq!((line[0].as_str(), line[1].as_str()), ("", ""), "{read:#?}");
        assert_eq!((line[2].as_str(), line[3].as_str()), ("1", "$"), "the checksum is good, the message whole: {read:#?}");
    }
    assert!(
        read.iter().any(|line| line[4].contains(&format!("{} octets of body are left out", 3_000 * BODY.len()))),
        "{read:#?}"
    );
}

#[test]
fn captures_are_bounded_and_can_be_ended() {
    let pf = Proxy::start("");
    for wrong in ["/capture", "/capture?call_id=", "/capture?call_id=x&seconds=y", "/capture?user=x&octets=many"] {
        assert_eq!(pf.post(wrong).0, 400, "{wrong}");
    }
    for _ in 0..cpm_pf::limits::CAPTURES_MAX {
        assert_eq!(pf.post("/capture?call_id=x").0, 201);
    }
    assert_eq!(pf.post("/capture?call_id=x").0, 503);
    assert_eq!(crate::proxy::http(pf.admin, "DELETE", "/capture/1", "").0, 200);
    assert_eq!((pf.get("/capture/1").0, pf.post("/capture?call_id=x&seconds=0").0), (404, 201));
    // One that is over makes room.
    assert_eq!(pf.post("/capture?call_id=x").0, 201);
    assert_eq!(pf.get("/capture/9").0, 404, "the one that was over made room");
    assert_eq!(pf.get("/capture/10").0, 200);
}

#[test]
fn over_tcp_tshark_finds_messages_whose_bodies_are_cut_off() {
    let mut ladder = Originating::new("[policy]\nauthorised_originators = [\"sip:nobody@example.net\"]\n");
    ladder.alice = crate::ue::Ue::tcp("alice");
    assert_eq!(ladder.pf.post("/capture?user=sip:bob@example.org").0, 201);
    let invite = crate::ue::Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    let to = ladder.pf.tcp.expect("TCP is bound");
    for round in 1..=2 {
        ladder.alice.send(to, &invite.text());
        let refusal = ladder.alice.expect_status(403);
        ladder.alice.ack(to, &invite.message(), &refusal);
        // The same call again, behind what was cut off.
        ladder.pf.until("all is captured", |pf| packets(pf) >= 3 * round);
    }
    let file = ladder.pf.path("call.pcapng");
    std::fs::write(&file, octets(ladder.pf.admin, "/capture/1")).expect("the folder can be written");
    let fields = ["frame.protocols", "_ws.malformed", "tcp.analysis.flags", "sip.Method", "sip.Status-Code"];
    let Some(read) = tshark(&file, &[], &fields) else { return };
    assert!(read.iter().all(|line| line[0].starts_with("raw:ip:tcp:sip") && line[1].is_empty()), "{read:#?}");
    assert!(read.iter().all(|line| line[2].is_empty()), "no segment is missing: {read:#?}");
    for (place, what) in [(3, "INVITE"), (4, "403"), (3, "ACK")] {
        assert!(read.iter().any(|line| line[place] == what), "{what}: {read:#?}");
    }
}

/// Two cores of each kind, MSRP over TLS on both legs, and a refused call over SIP with TLS: as many captures as calls.
/// A run at ports that the run before it has just closed: a process that another test is starting has a copy of its sockets until
/// that has become the program it is to be.
fn run_once_more(scenario: &Scenario) -> Result<(), String> {
    for _ in 0..100_000 {
        match cpm_bench::relay::run(scenario, None, true) {
            Err(error) if error.contains("Address already in use") => std::thread::yield_now(),
            other => return other.map(drop),
        }
    }
    Err("somebody else has the ports".to_owned())
}

#[test]
fn with_several_cores_and_tls_on_the_legs_tshark_finds_nothing_malformed() {
    const CALLS: usize = 4;
    let folder = tempfile::tempdir().expect("a temporary folder");
    crate::secure::certificate(folder.path(), &crate::secure::authority());
    let certificates = folder.path().to_owned();
    let [caller, called, msrp] = peers::free();
    let at = |port: u16| format!("127.0.0.1:{port}");
    let pf = Proxy::start_in(
        folder,
        &format!(
            "[cores]\nsignaling = [0, 1]\nmedia = [0, 1]\n[sip]\nlisten = [\"udp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\ncore = \"sip:127.0.0.1:{called};lr\"\n\
             [sip.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\nca = \"ca.pem\"\n[msrp]\nlisten = [\"tls://127.0.0.1:0\"]\n"
        ),
    );
    let scenario = Scenario {
        load: Load::Closed,
        via: Via::Sip,
        proxy: pf.udp.to_string(),
        caller_sip: at(caller),
        called_sip: at(called),
        called_msrp: at(msrp),
        tls: true,
        certificates: certificates.clone(),
        sessions: 1,
        chunk: 3_000,
        seconds: 0.05,
        warmup: 0.0,
        ..Scenario::default()
    };
    for _ in 0..CALLS {
        assert_eq!(pf.post("/capture?user=sip:alice@example.net").0, 201);
        run_once_more(&scenario).unwrap_or_else(|error| panic!("{error}\n{}", pf.log()));
    }

    assert_eq!(pf.post("/capture?user=sip:mallory@example.com").0, 201);
    let mut stream = crate::secure::connect(&pf, crate::secure::client(&certificates, false));
    let invite = Invite::new(&Ue::udp("mallory"), "sip:mallory@example.com", SESSION);
    let refused = invite.with("P-Asserted-Identity", "<sip:mallory@example.com>").text().replace("SIP/2.0/UDP", "SIP/2.0/TLS");
    stream.write_all(refused.as_bytes()).expect("the program reads");
    let mut said = [0; 11];
    stream.read_exact(&mut said).expect("it answers");
    assert!(said.starts_with(b"SIP/2.0 "));

    for number in 1..=CALLS + 1 {
        let list = || serde_json::from_str::<Value>(&pf.get("/capture").1).expect("JSON");
        let least = if number <= CALLS { 4 + 2 * 4 } else { 2 };
        let enough = |list: &Value| {
            let captures = list.as_array().expect("a list");
            captures.iter().any(|one| one["capture"] == number && one["packets"].as_u64() >= Some(least))
        };
        pf.until("the call is captured", |_| enough(&list()));
        let file = pf.path(&format!("{number}.pcapng"));
        std::fs::write(&file, octets(pf.admin, &format!("/capture/{number}"))).expect("the folder can be written");
        let strict = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
        let Some(read) = tshark(&file, &strict, &["frame.protocols", "_ws.malformed", "tcp.checksum.status"]) else { return };
        for line in &read {
            assert!(line[1].is_empty() && line[2] != "0", "{line:?}");
            assert!(line[0].ends_with(":sip") || line[0].contains(":sip:") || line[0].contains(":msrp"), "{line:?}");
        }
        assert_eq!(read.iter().any(|line| line[0].contains(":msrp")), number <= CALLS, "{read:#?}");
        assert!(read.iter().any(|line| line[0].contains(":sip")), "{read:#?}");
    }
}
