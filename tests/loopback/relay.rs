//! RFC 4975 through the program: what a peer sees on its MSRP connection.

use crate::ladder::relayed;
use crate::msrp::Msrp;
use crate::proves;
use crate::ue::{LARGE, SESSION};
use std::io::Write;

/// Bodies that look like ends, and lengths around every boundary.
fn bodies() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [1, 2, 100, 2047, 2048, 2049, 16_384, 65_535, 65_536, 65_537, 1 << 20]
        .iter()
        .map(|n| (0..*n as u32).map(|i| (i % 251) as u8).collect())
        .collect();
    bodies.push(b"\r\n-------".repeat(3_000));
    bodies.push(b"\r\n-------x$\r\n".repeat(1_000));
    bodies.push(vec![0; 5_000]);
    bodies.push(b"\r\n".repeat(40_000));
    bodies.push(vec![b'-'; 100_000]);
    bodies
}

#[test]
fn octets_out_are_octets_in_both_ways() {
    let mut session = relayed(SESSION, "");
    for (number, body) in bodies().into_iter().enumerate() {
        session.a.send(&format!("up{number:04}"), &body);
        assert!(session.b.message() == body, "body {number} upwards");
        session.a.expect("200");
        session.b.send(&format!("dn{number:04}"), &body);
        assert!(session.a.message() == body, "body {number} downwards");
        session.b.expect("200");
    }
}

#[test]
fn an_eight_mebibyte_chunk_goes_through_and_twenty_mebibytes_each_way() {
    let mut session = relayed(SESSION, "");
    let body: Vec<u8> = (0..8u32 << 20).map(|i| (i * 31 % 253) as u8).collect();
    let writer = {
        let (mut a, body) = (session.a.stream.try_clone().expect("a socket can be shared"), body.clone());
        let head = format!(
            "MSRP bigchunk SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: big1\r\nByte-Range: 1-*/{}\r\nContent-Type: text/plain\r\n\r\n",
            session.a.peer,
            session.a.own,
            body.len()
        );
        std::thread::spawn(move || {
            a.write_all(head.as_bytes())
                .and_then(|()| a.write_all(&body))
                .and_then(|()| a.write_all(b"\r\n-------bigchunk$\r\n"))
                .expect("the proxy reads");
        })
    };
    assert!(session.b.message() == body);
    writer.join().expect("the writer is done");
    session.a.expect("200");
    for round in 0..20 {
        let body: Vec<u8> = (0..1u32 << 20).map(|i| (i * 7 + round) as u8).collect();
        session.a.send("twenty-up", &body);
        assert!(session.b.message() == body);
        session.b.send("twenty-dn", &body);
        session.a.expect("200");
        assert!(session.a.message() == body);
        session.b.expect("200");
    }
}

#[test]
fn a_message_written_an_octet_at_a_time_arrives() {
    let mut session = relayed(SESSION, "");
    let frame = format!(
        "MSRP octets01 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: slow\r\nByte-Range: 1-9/9\r\nContent-Type: text/plain\r\n\r\na\r\n-----b!\r\n-------octets01$\r\n",
        session.a.peer, session.a.own
    )
    .replace("1-9/9", "1-10/10");
    for octet in frame.as_bytes() {
        session.a.write(&[*octet]);
    }
    assert_eq!(session.b.message(), b"a\r\n-----b!");
    session.a.expect("200");
}

#[test]
fn failure_report_decides_what_is_answered() {
    let mut session = relayed(SESSION, "");
    session.a.chunk("msg-no", "1-2/2", "Failure-Report: no\r\n", b"no", '$');
    session.a.chunk("msg-pa", "1-2/2", "Failure-Report: partial\r\n", b"pa", '$');
    let yes = session.a.chunk("msg-ye", "1-2/2", "Failure-Report: yes\r\n", b"ye", '$');
    assert_eq!((session.b.message(), session.b.message(), session.b.message()), (b"no".to_vec(), b"pa".to_vec(), b"ye".to_vec()));
    // The first answer that comes is for the third: the others have none.
    assert_eq!(session.a.expect("200").tid(), yes);
}

#[test]
fn an_error_beyond_us_becomes_a_report() {
    let mut session = relayed(SESSION, "");
    session.a.send("msg1", b"unwanted");
    session.a.expect("200");
    let frame = session.b.expect("SEND");
    session.b.answer(&frame, "415 Unsupported media type");
    let report = session.a.expect("REPORT");
    assert_eq!((report.field("Message-ID"), report.field("Byte-Range")), (Some("msg1"), Some("1-8/8")));
    assert!(report.field("Status").is_some_and(|status| status.starts_with("000 415")), "{report:?}");
    assert_eq!(report.field("To-Path"), Some(session.a.own.as_str()));
    assert_eq!(report.field("From-Path"), Some(session.a.peer.as_str()));
}

#[test]
fn a_success_report_finds_its_way_back() {
    let mut session = relayed(SESSION, "");
    session.a.chunk("msg1", "1-5/5", "Success-Report: yes\r\n", b"hello", '$');
    session.a.expect("200");
    let frame = session.b.expect("SEND");
    assert_eq!(frame.field("Success-Report"), Some("yes"));
    session.b.answer(&frame, "200 OK");
    let report = format!(
        "MSRP report01 REPORT\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: msg1\r\nByte-Range: 1-5/5\r\nStatus: 000 200 OK\r\n-------report01$\r\n",
        session.b.peer, session.b.own
    );
    session.b.write(report.as_bytes());
    let report = session.a.expect("REPORT");
    assert_eq!((report.field("Status"), report.field("Byte-Range")), (Some("000 200 OK"), Some("1-5/5")));
    assert_eq!(report.field("From-Path"), Some(session.a.peer.as_str()));
}

#[test]
fn chunks_of_a_message_and_its_end_are_told_apart() {
    let mut session = relayed(SESSION, "");
    session.a.chunk("msg1", "1-5/10", "", b"hello", '+');
    session.a.chunk("msg1", "6-10/10", "", b"world", '$');
    assert_eq!(session.b.message(), b"helloworld");
    session.a.expect("200");
    session.a.expect("200");
    session.a.chunk("msg2", "1-5/10", "", b"never", '#');
    let frame = session.b.expect("SEND");
    assert_eq!(frame.flag, '#');
}

#[test]
fn a_path_nobody_provisioned_is_told_481_and_a_second_connection_506() {
    let mut session = relayed(SESSION, "");
    let wrong = format!("msrp://{}/00nobodynobodynobodynobodynobody;tcp", session.ladder.pf.msrp);
    let mut stranger = Msrp::connect(session.ladder.pf.msrp, "msrp://127.0.0.1:9/x;tcp", &wrong);
    stranger.send("msg1", b"?");
    stranger.expect("481");

    session.a.send("msg1", b"first");
    session.a.expect("200");
    assert_eq!(session.b.message(), b"first");
    let mut second = Msrp::connect(session.ladder.pf.msrp, &session.a.own, &session.a.peer);
    second.send("msg2", b"second");
    second.expect("506");
    session.a.send("msg3", b"third");
    assert_eq!(session.b.message(), b"third");
}

#[test]
fn to_path_is_compared_as_the_configuration_says() {
    let session = relayed(SESSION, "");
    let other_host = session.a.peer.replace("127.0.0.1", "10.9.8.7");
    let mut wrong = Msrp::connect(session.ladder.pf.msrp, &session.a.own, &other_host);
    wrong.send("msg1", b"x");
    wrong.expect("481");
}

#[test]
fn auth_is_refused_and_garbage_closes_the_connection() {
    let mut session = relayed(LARGE, "");
    let auth =
        format!("MSRP auth0001 AUTH\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------auth0001$\r\n", session.a.peer, session.a.own);
    session.a.write(auth.as_bytes());
    session.a.expect("501");
    let mut garbage = Msrp::connect(session.ladder.pf.msrp, "msrp://127.0.0.1:9/x;tcp", "msrp://127.0.0.1:9/y;tcp");
    garbage.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(garbage.next(), None, "what is not MSRP is closed");
    let mut endless = Msrp::connect(session.ladder.pf.msrp, "msrp://127.0.0.1:9/x;tcp", "msrp://127.0.0.1:9/y;tcp");
    let _ = endless.stream.write_all(&[b"MSRP abcd SEND\r\nTo-Path: ".to_vec(), vec![b'x'; 100_000]].concat());
    while endless.next().is_some() {}
}

#[test]
fn content_against_the_direction_is_told_403() {
    let mut session = relayed(LARGE, "");
    session.a.send("msg1", b"the message");
    assert_eq!(session.b.message(), b"the message");
    session.a.expect("200");
    session.b.send("back1", b"not allowed");
    session.b.expect("403");
}

#[test]
fn a_message_above_the_limit_is_told_413() {
    let mut session = relayed(SESSION, "[msrp]\nmax_message = \"64KiB\"");
    session.a.chunk("msg1", "1-*/1000000", "", &[b'x'; 1_000], '+');
    session.a.expect("413");
    session.a.send("msg2", b"small");
    while session.b.expect("SEND").field("Message-ID") != Some("msg2") {}
}

#[test]
fn a_reader_that_stops_pauses_its_sender_and_nobody_else() {
    let mut session = relayed(SESSION, "");
    let body = vec![b'x'; 1 << 20];
    // Sixty-four mebibytes towards a reader that does not read: the writer is held by TCP, not by our memory.
    session.a.stream.set_nonblocking(true).expect("a socket can be non-blocking");
    let head = format!(
        "MSRP stall001 SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: stall\r\nByte-Range: 1-*/67108864\r\nContent-Type: text/plain\r\n\r\n",
        session.a.peer, session.a.own
    );
    session.a.stream.write_all(head.as_bytes()).expect("the head fits");
    let mut written = 0;
    let mut refused = 0;
    while written < 64 << 20 && refused < 200 {
        match session.a.stream.write(&body[..body.len().min((64 << 20) - written)]) {
            Ok(count) => (written, refused) = (written + count, 0),
            Err(_) => {
                refused += 1;
                std::thread::yield_now();
                // Another session, or a scrape, shows that the proxy lives.
                assert_eq!(session.ladder.pf.get("/healthz").0, 200);
            }
        }
    }
    assert!(written < 64 << 20, "the proxy took 64 MiB for a reader that reads nothing");
    let status = std::fs::read_to_string(format!("/proc/{}/status", session.ladder.pf.pid())).expect("it runs");
    let resident: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok())
        .expect("a line VmRSS");
    assert!(resident < 200 << 10, "{resident} KiB resident");
    // The reader wakes up: all of it arrives.
    session.a.stream.set_nonblocking(false).expect("a socket can block");
    let mut a = session.a.stream.try_clone().expect("a socket can be shared");
    let writer = std::thread::spawn(move || {
        while written < 64 << 20 {
            let count = body.len().min((64 << 20) - written);
            a.write_all(&body[..count]).expect("the proxy reads again");
            written += count;
        }
        a.write_all(b"\r\n-------stall001$\r\n").expect("the proxy reads again");
    });
    assert_eq!(session.b.message().len(), 64 << 20);
    writer.join().expect("the writer is done");
    session.a.expect("200");
}

#[test]
fn the_listener_answers_as_soon_as_the_200_is_out() {
    let session = relayed(LARGE, "");
    proves!("OLM-r6.b"; session.ladder.pf);
}

#[test]
fn what_was_sent_before_bye_arrives_before_the_other_side_hears_it() {
    let mut session = relayed(SESSION, "");
    let body = vec![b'x'; 1_000];
    for n in 0..200 {
        session.a.chunk(&format!("last{n:03}"), "1-1000/1000", "Failure-Report: no\r\n", &body, '$');
    }
    let (alice, pf) = (&mut session.ladder.alice, &session.ladder.pf);
    let bye = alice.in_dialog("BYE", &session.ok, 1);
    alice.send(pf.udp, &bye);
    alice.next("an answer to BYE", |message| message.status() == 200 && message.want("CSeq").ends_with("BYE"));
    for n in 0..200 {
        assert_eq!(session.b.message().len(), 1_000, "message {n}");
    }
    session.ladder.core.expect("BYE");
}

#[test]
fn what_was_answered_and_not_taken_before_bye_is_reported() {
    let mut session = relayed(SESSION, "");
    session.a.send("msg1", b"nobody takes this");
    session.a.expect("200");
    let (alice, pf) = (&mut session.ladder.alice, &session.ladder.pf);
    let bye = alice.in_dialog("BYE", &session.ok, 1);
    alice.send(pf.udp, &bye);
    alice.next("an answer to BYE", |message| message.status() == 200 && message.want("CSeq").ends_with("BYE"));
    session.ladder.core.expect("BYE");
    let report = session.a.expect("REPORT");
    assert!(report.field("Status").is_some_and(|status| status.starts_with("000 408")), "{report:?}");
    assert!(session.a.next().is_none(), "the connection ends after it");
}
