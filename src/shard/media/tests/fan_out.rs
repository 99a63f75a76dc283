//! One origin, several targets: everybody gets every octet, the origin hears one truth.

use super::*;

fn send_one(harness: &mut Harness, wires: &[Connection], fields: &str) {
    harness.send(wires[0], send(0, "tid1", &format!("Message-ID: mid1\r\nByte-Range: 1-4/4\r\n{fields}"), b"body", '$'));
    harness.read(wires[0]);
}

#[test]
fn every_target_gets_the_message_with_its_own_head_and_the_origin_one_answer() {
    let (mut harness, wires) = session(3, SessionKind::Session);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-4/4\r\n", b"body", '$'));
    for leg in 1..=3u8 {
        let reads = harness.read(wires[usize::from(leg)]);
        assert_eq!((reads.len(), reads[0].body.as_slice()), (1, &b"body"[..]));
        assert_eq!((reads[0].field("To-Path"), reads[0].field("From-Path")), (far(leg).as_str(), own(leg).as_str()));
    }
    assert_eq!(harness.read(wires[0]).len(), 1);
    assert_eq!(harness.loans(), 0);
}

#[test]
fn targets_speak_to_the_origin_and_not_to_each_other() {
    let (mut harness, wires) = session(2, SessionKind::Session);
    harness.send(wires[1], send(1, "tid1", "Message-ID: mid1\r\n", b"one", '$'));
    harness.send(wires[2], send(2, "tid1", "Message-ID: mid1\r\n", b"two", '$'));
    let reads = harness.read(wires[0]);
    assert_eq!(reads.iter().map(|read| read.body.as_slice()).collect::<Vec<_>>(), [b"one", b"two"]);
    assert_eq!((harness.read(wires[1]).len(), harness.read(wires[2]).len()), (1, 1), "their answers alone");
}

#[test]
fn two_long_messages_to_the_origin_share_its_line() {
    let (mut harness, wires) = session(2, SessionKind::Session);
    let (one, two) = (vec![b'1'; 20_000], vec![b'2'; 20_000]);
    let streams = [
        send(1, "tid1", "Message-ID: one1\r\nByte-Range: 1-*/20000\r\n", &one, '$'),
        send(2, "tid1", "Message-ID: two2\r\nByte-Range: 1-*/20000\r\n", &two, '$'),
    ];
    for at in (0..streams[0].len()).step_by(3000) {
        for leg in 0..2 {
            harness.send(wires[leg + 1], &streams[leg][at..(at + 3000).min(streams[leg].len())]);
        }
    }
    let mut reads = harness.read(wires[0]);
    reads.sort_by_key(|read| read.field("Message-ID").to_owned());
    let complete = Continuation::Complete;
    assert_eq!(assemble(&reads), [("one1".to_owned(), one, complete), ("two2".to_owned(), two, complete)]);
}

#[test]
fn success_is_reported_once() {
    let (mut harness, wires) = session(2, SessionKind::Session);
    send_one(&mut harness, &wires, "Success-Report: yes\r\n");
    for leg in 1..=2u8 {
        harness.send(
            wires[usize::from(leg)],
            report(leg, "rep1", "Message-ID: mid1\r\nByte-Range: 1-4/4\r\nStatus: 000 200 OK\r\n"),
        );
    }
    assert_eq!(harness.read(wires[0]).len(), 1);
}

#[test]
fn failure_is_reported_when_all_have_failed() {
    let (mut harness, wires) = session(3, SessionKind::Session);
    send_one(&mut harness, &wires, "");
    harness.send(wires[1], response(1, "tid1", "403 No"));
    harness.send(wires[2], report(2, "rep1", "Message-ID: mid1\r\nByte-Range: 1-4/4\r\nStatus: 000 415 What\r\n"));
    assert_eq!(harness.read(wires[0]).len(), 0);
    harness.wait(Duration::from_secs(31));
    let reads = harness.read(wires[0]);
    assert_eq!((reads.len(), reads[0].field("Status")), (1, "000 408 Request Timeout"));
}

#[test]
fn one_success_among_failures_is_no_failure() {
    let (mut harness, wires) = session(2, SessionKind::Session);
    send_one(&mut harness, &wires, "");
    harness.send(wires[1], response(1, "tid1", "200 OK"));
    harness.send(wires[2], response(2, "tid1", "413 Stop"));
    harness.gone(wires[2], Gone::Broken);
    harness.wait(Duration::from_secs(60));
    assert_eq!(harness.read(wires[0]).len(), 0);
}

#[test]
fn a_target_that_stops_leaves_the_message_to_the_others() {
    let (mut harness, wires) = session(2, SessionKind::Session);
    let body = vec![b'x'; 9000];
    let whole = send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/9000\r\n", &body, '$');
    harness.send(wires[0], &whole[..4000]);
    harness.send(wires[1], response(1, "tid1", "413 Stop"));
    harness.send(wires[0], &whole[4000..]);
    assert_eq!(harness.read(wires[1])[0].flag, Continuation::Abort);
    assert_eq!(assemble(&harness.read(wires[2])), [("mid1".to_owned(), body, Continuation::Complete)]);
    assert_eq!(harness.read(wires[0])[0].start, "MSRP tid1 200 OK");
}

#[test]
fn a_target_that_dies_leaves_the_message_to_the_others() {
    let (mut harness, wires) = session(2, SessionKind::Session);
    let body = vec![b'x'; 9000];
    let whole = send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/9000\r\n", &body, '$');
    harness.send(wires[0], &whole[..4000]);
    harness.gone(wires[1], Gone::Broken);
    harness.send(wires[0], &whole[4000..]);
    assert_eq!(assemble(&harness.read(wires[2])), [("mid1".to_owned(), body, Continuation::Complete)]);
    assert_eq!(harness.read(wires[0])[0].start, "MSRP tid1 200 OK");
    harness.send(wires[2], response(2, "tid1", "200 OK"));
    harness.wait(Duration::from_secs(60));
    assert_eq!(harness.read(wires[0]).len(), 0);
}

#[test]
fn a_target_that_joins_late_hears_the_next_message() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let whole = send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/9000\r\n", &[b'x'; 9000], '+');
    harness.send(wires[0], &whole[..4000]);
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(2, Direction::Both)) });
    harness.command(Command::Bind { session: KEY, leg: 2, peer: Box::new(passive_peer(2)) });
    let late = harness.accept();
    harness.send(late, bind(2));
    harness.read(late);
    harness.send(wires[0], &whole[4000..]);
    harness.send(wires[0], send(0, "tid2", "Message-ID: mid1\r\nByte-Range: 9001-9002/9002\r\n", b"xx", '$'));
    assert_eq!(harness.text(late), "");
    harness.send(wires[0], send(0, "tid3", "Message-ID: mid3\r\n", b"next", '$'));
    assert_eq!(harness.read(late)[0].body, b"next");
}

#[test]
fn content_waits_while_a_target_is_about_to_connect_but_not_for_one_that_rings() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(2, Direction::Both)) });
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"first", '$'));
    assert_eq!(harness.read(wires[1])[0].body, b"first", "leg 2 has not answered yet");
    harness.command(Command::Bind { session: KEY, leg: 2, peer: Box::new(passive_peer(2)) });
    harness.send(wires[0], send(0, "tid2", "Message-ID: mid2\r\n", b"second", '$'));
    assert!(harness.wires[&wires[0]].paused);
    assert_eq!(harness.read(wires[1]).len(), 0);
    let late = harness.accept();
    harness.send(late, bind(2));
    assert_eq!(
        (harness.read(wires[1])[0].body.as_slice(), harness.read(late)[1].body.as_slice()),
        (&b"second"[..], &b"second"[..])
    );
    assert!(!harness.wires[&wires[0]].paused);
}

#[test]
fn a_target_that_never_connects_fails_and_the_others_go_on() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(2, Direction::Both)) });
    harness.command(Command::Bind { session: KEY, leg: 2, peer: Box::new(passive_peer(2)) });
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"first", '$'));
    harness.wait(Duration::from_secs(31));
    assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 2, cause: LegFailure::Connect }]);
    assert_eq!(harness.read(wires[1])[0].body, b"first");
}
