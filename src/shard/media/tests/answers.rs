//! RFC 4975 §7.2, §10: who is answered what.

use super::*;

fn starts(reads: &[Read]) -> Vec<&str> {
    reads.iter().map(|read| read.start.as_str()).collect()
}

#[test]
fn failure_report_decides_about_answers() {
    // RFC 4975 §7.2: yes or absent hears everything, partial errors only, no nothing.
    for (field, good, bad) in [
        ("", Some("MSRP tid1 200 OK"), Some("MSRP tid2 413 Message Too Large")),
        ("Failure-Report: yes\r\n", Some("MSRP tid1 200 OK"), Some("MSRP tid2 413 Message Too Large")),
        ("Failure-Report: partial\r\n", None, Some("MSRP tid2 413 Message Too Large")),
        ("Failure-Report: no\r\n", None, None),
    ] {
        let (mut harness, wires) = session(1, SessionKind::Session);
        harness.send(wires[0], send(0, "tid1", &format!("Message-ID: mid1\r\n{field}"), b"x", '$'));
        assert_eq!(starts(&harness.read(wires[0])).first().copied(), good, "{field}");
        harness.send(wires[0], send(0, "tid2", &format!("Message-ID: mid2\r\nByte-Range: 1-*/999999999\r\n{field}"), b"x", '$'));
        assert_eq!(starts(&harness.read(wires[0])).first().copied(), bad, "{field}");
        assert_eq!(harness.read(wires[1]).len(), 1, "what is too large goes nowhere");
    }
}

#[test]
fn responses_go_to_the_previous_hop_alone() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let octets = String::from_utf8(send(0, "tid1", "Message-ID: mid1\r\n", b"x", '$')).unwrap();
    harness.send(wires[0], octets.replace("From-Path: ", "From-Path: msrp://relay.example:1/r;tcp "));
    let reads = harness.read(wires[0]);
    assert_eq!(reads[0].field("To-Path"), "msrp://relay.example:1/r;tcp");
    assert_eq!(reads[0].field("From-Path"), own(0));
    assert_eq!(harness.read(wires[1])[0].field("From-Path"), own(1), "our URI alone goes on");
}

#[test]
fn an_unknown_session_is_told_481_and_closed() {
    let (mut harness, _) = session(1, SessionKind::Session);
    for (field, answered) in [("", true), ("Failure-Report: no\r\n", false)] {
        let stranger = harness.accept();
        let octets = String::from_utf8(send(0, "tid1", &format!("Message-ID: mid1\r\n{field}"), b"x", '$')).unwrap();
        harness.send(stranger, octets.replace("ownsession00", "nosuchsession"));
        let reads = harness.read(stranger);
        assert_eq!(starts(&reads), if answered { vec!["MSRP tid1 481 Session Does Not Exist"] } else { vec![] });
        assert!(harness.wires[&stranger].finished);
        harness.gone(stranger, Gone::Closed);
    }
    assert_eq!(harness.media.counts().of(Cause::UnknownSession), 2);
}

#[test]
fn a_second_connection_for_a_bound_leg_is_told_506() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let second = harness.accept();
    harness.send(second, bind(0));
    assert_eq!(starts(&harness.read(second)), ["MSRP bind00 506 Session Already In Use"]);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"x", '$'));
    assert_eq!(harness.read(wires[1]).len(), 1, "the first connection goes on");
}

#[test]
fn strict_matching_compares_the_whole_uri_and_legacy_matching_the_session_id() {
    use crate::msrp::leg::Matching;
    crate::proves!("EMS-1.e.v.1", "EMS-1.e.v.2", {
        for (matching, code) in [(Matching::Strict, "481 Session Does Not Exist"), (Matching::SessionId, "200 OK")] {
            let mut harness = Harness::new(&Config::default());
            let mut origin = msrp_leg(0, Direction::Both);
            origin.matching = matching;
            let open = crate::shard::exchange::Open { session: KEY, kind: SessionKind::Session, max_message: 1000, origin };
            harness.command(Command::Open(Box::new(open)));
            let connection = harness.accept();
            harness.send(connection, bind(0).replace("pf.example.net:2855", "10.9.8.7:1"));
            let reads = harness.read(connection);
            assert_eq!(reads[0].start, format!("MSRP bind00 {code}"));
            let from = if matching == Matching::SessionId { own(0) } else { own(0).replace("pf.example.net:2855", "10.9.8.7:1") };
            assert_eq!(reads[0].field("From-Path"), from);
        }
    });
}

#[test]
fn another_cores_session_is_handed_over_with_all_that_came() {
    let mut config = Config::default();
    config.cores.media = vec![0, 1];
    let mut harness = Harness::new(&config);
    let connection = harness.accept();
    let octets = bind(0).replace("/00own", "/01own") + "MSRP more";
    harness.send(connection, &octets[..20]);
    harness.send(connection, &octets[20..]);
    assert_eq!(harness.wires[&connection].handed_to, Some((1, octets.into_bytes())));
    harness.gone(connection, Gone::Closed);
    let connection = harness.accept();
    harness.send(connection, bind(0).replace("/00own", "/02own"));
    assert_eq!(starts(&harness.read(connection)), ["MSRP bind00 481 Session Does Not Exist"], "there is no third core");
}

#[test]
fn content_against_the_direction_is_forbidden_but_for_delivery_reports() {
    let (mut harness, wires) = session(1, SessionKind::LargeMessage);
    harness.send(wires[1], send(1, "tid1", "Message-ID: mid1\r\n", b"x", '$'));
    assert_eq!(starts(&harness.read(wires[1])), ["MSRP tid1 403 Forbidden"]);
    assert_eq!(harness.text(wires[0]), "");
    let imdn = String::from_utf8(send(1, "tid2", "Message-ID: mid2\r\n", b"<imdn/>", '$')).unwrap();
    harness.send(wires[1], imdn.replace("text/plain", "message/imdn+xml"));
    assert_eq!(starts(&harness.read(wires[1])), ["MSRP tid2 200 OK"]);
    assert_eq!(harness.read(wires[0])[0].body, b"<imdn/>");
    let cpim = String::from_utf8(send(
        1,
        "tid3",
        "Message-ID: mid3\r\n",
        b"From: a\r\n\r\nContent-type: message/IMDN+xml\r\n\r\n<imdn/>",
        '$',
    ))
    .unwrap();
    harness.send(wires[1], cpim.replace("text/plain", "message/cpim"));
    assert_eq!(starts(&harness.read(wires[1])), ["MSRP tid3 200 OK"]);
}

#[test]
fn auth_is_not_implemented_and_unknown_methods_pass_in_sessions_alone() {
    let nick = |leg: u8| {
        format!(
            "MSRP nick1 NICKNAME\r\nTo-Path: {}\r\nFrom-Path: msrp://r:1/r;tcp {}\r\nUse-Nickname: \"al\"\r\n-------nick1$\r\n",
            own(leg),
            far(leg)
        )
    };
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.send(wires[0], nick(0).replace("NICKNAME", "AUTH"));
    let reads = harness.read(wires[0]);
    assert_eq!(starts(&reads), ["MSRP nick1 501 Not Implemented"]);
    assert_eq!(reads[0].field("To-Path"), format!("msrp://r:1/r;tcp {}", far(0)), "the whole path back");
    harness.send(wires[0], nick(0));
    let passed = harness.read(wires[1]);
    assert_eq!((passed[0].start.as_str(), passed[0].field("Use-Nickname")), ("MSRP nick1 NICKNAME", "\"al\""));
    assert_eq!((passed[0].field("To-Path"), passed[0].field("From-Path")), (far(1).as_str(), own(1).as_str()));
    harness.send(wires[1], response(1, "nick1", "425 Nickname usage failed"));
    let back = harness.read(wires[0]);
    assert_eq!(back[0].start, "MSRP nick1 425 Nickname usage failed");
    assert_eq!(back[0].field("To-Path"), format!("msrp://r:1/r;tcp {}", far(0)));

    let (mut harness, wires) = session(1, SessionKind::LargeMessage);
    harness.send(wires[0], nick(0));
    assert_eq!(starts(&harness.read(wires[0])), ["MSRP nick1 501 Not Implemented"]);
}

#[test]
fn a_method_passed_on_and_not_answered_ends_in_408() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.send(
        wires[0],
        format!(
            "MSRP nick1 NICKNAME\r\nTo-Path: {}\r\nFrom-Path: {}\r\nUse-Nickname: \"al\"\r\n-------nick1$\r\n",
            own(0),
            far(0)
        ),
    );
    harness.wait(Duration::from_secs(31));
    assert_eq!(starts(&harness.read(wires[0])), ["MSRP nick1 408 Request Timeout"]);
}

#[test]
fn a_malformed_head_is_told_400_and_the_stream_goes_on() {
    for fields in [
        "Byte-Range: 0-1/1\r\nMessage-ID: mid1\r\n",
        "Message-ID: a\r\n",
        "Message-ID: mid1\r\nFailure-Report: maybe\r\n",
        "",
        "no header\r\nMessage-ID: mid1\r\n",
    ] {
        let (mut harness, wires) = session(1, SessionKind::Session);
        let mut octets = send(0, "tid1", fields, &[b'x'; 9000], '$');
        octets.extend(send(0, "tid2", "Message-ID: mid2\r\n", b"good", '$'));
        harness.send(wires[0], &octets[..4000]);
        harness.send(wires[0], &octets[4000..]);
        assert_eq!(starts(&harness.read(wires[0])), ["MSRP tid1 400 Bad Request", "MSRP tid2 200 OK"], "{fields}");
        assert_eq!(assemble(&harness.read(wires[1])).len(), 1);
    }
    let (mut harness, wires) = session(1, SessionKind::Session);
    let octets =
        String::from_utf8(send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 5-*/4\r\nFailure-Report: no\r\n", b"x", '$')).unwrap();
    harness.send(wires[0], &octets);
    assert_eq!(harness.text(wires[0]), "");
    harness.send(
        wires[0],
        octets.replace("Content-Type: text/plain\r\n", "").replace("Failure-Report: no\r\n", "").replace("5-*/4", "1-*/4"),
    );
    assert_eq!(starts(&harness.read(wires[0])), ["MSRP tid1 400 Bad Request"], "a body without Content-Type");
}

#[test]
fn lost_framing_ends_the_connection_and_its_leg() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.send(wires[0], "GET / HTTP/1.1\r\n\r\n");
    assert!(harness.wires[&wires[0]].aborted);
    assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 0, cause: LegFailure::Malformed }]);
}

#[test]
fn a_message_that_grows_too_large_is_stopped_on_both_sides() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let mut first = send(0, "tid1", "Message-ID: mid1\r\n", &[b'x'; 5000], '$');
    first.truncate(5000);
    harness.send(wires[0], &first);
    for _ in 0..1100 {
        harness.send(wires[0], vec![b'x'; 100_000]);
    }
    assert_eq!(starts(&harness.read(wires[0])), ["MSRP tid1 413 Message Too Large"]);
    let reads = harness.read(wires[1]);
    assert_eq!(reads.last().unwrap().flag, Continuation::Abort);
    harness.send(wires[0], "\r\n-------tid1+\r\n");
    harness.send(wires[0], send(0, "tid2", "Message-ID: mid1\r\nByte-Range: 6-*/*\r\n", b"y", '$'));
    assert_eq!(starts(&harness.read(wires[0])), ["MSRP tid2 413 Message Too Large"]);
    assert_eq!(harness.text(wires[1]), "");
    assert_eq!((harness.media.counts().of(Cause::TooLarge), harness.media.counts().of(Cause::Stopped)), (1, 1));
}

#[test]
fn more_than_the_targets_max_size_is_told_413_at_once() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let peer = crate::msrp::leg::Peer { max_size: Some(10), ..passive_peer(1) };
    harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(peer) });
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-11/11\r\n", b"12345678901", '$'));
    assert_eq!(starts(&harness.read(wires[0])), ["MSRP tid1 413 Message Too Large"]);
    harness.send(wires[0], send(0, "tid2", "Message-ID: mid2\r\nByte-Range: 1-10/10\r\n", b"1234567890", '$'));
    assert_eq!(harness.read(wires[1]).len(), 1);
}
