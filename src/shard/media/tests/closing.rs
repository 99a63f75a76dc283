//! What was accepted before the end is delivered, or its sender is told: the media side of BYE.

use super::*;

const CLOSED: Duration = Duration::from_millis(55);

fn is_closed(harness: &mut Harness) -> bool {
    matches!(harness.take_reports()[..], [Report::Closed { .. }])
}

#[test]
fn what_waits_for_a_slow_reader_is_delivered_before_the_session_closes() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.wires.get_mut(&wires[1]).unwrap().stalled = true;
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nFailure-Report: no\r\n", b"the last words", '$'));
    harness.command(Command::Close { session: KEY, left: Some(0), awaited: true });
    harness.wait(Duration::from_millis(1900));
    assert_eq!(harness.take_reports(), [], "it waits for its reader");
    harness.drain(wires[1], usize::MAX);
    assert!(is_closed(&mut harness));
    assert_eq!(harness.read(wires[1])[0].body, b"the last words");
}

#[test]
fn a_reader_that_goes_on_has_thirty_seconds_and_one_that_stands_still_has_two() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.wires.get_mut(&wires[1]).unwrap().stalled = true;
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nFailure-Report: no\r\n", &[b'x'; 100_000], '$'));
    harness.command(Command::Close { session: KEY, left: Some(0), awaited: true });
    for _ in 0..15 {
        harness.wait(Duration::from_millis(1500));
        harness.drain(wires[1], 1000);
        assert_eq!(harness.take_reports(), []);
    }
    harness.wait(Duration::from_millis(1900));
    assert_eq!(harness.take_reports(), []);
    harness.wait(Duration::from_millis(200));
    assert!(is_closed(&mut harness));
}

#[test]
fn a_reader_that_goes_on_for_ever_does_not_hold_the_session() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.wires.get_mut(&wires[1]).unwrap().stalled = true;
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nFailure-Report: no\r\n", &[b'x'; 100_000], '$'));
    harness.command(Command::Close { session: KEY, left: Some(0), awaited: true });
    for _ in 0..31 {
        harness.wait(Duration::from_secs(1));
        harness.drain(wires[1], 1);
    }
    assert!(is_closed(&mut harness));
}

#[test]
fn what_the_peer_that_left_had_sent_is_taken_and_what_others_begin_is_not() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.command(Command::Close { session: KEY, left: Some(0), awaited: true });
    assert_eq!(harness.take_reports(), []);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"sent before BYE", '$'));
    harness.send(wires[1], send(1, "tid2", "Message-ID: mid2\r\n", b"too late", '$'));
    let target = harness.read(wires[1]);
    assert_eq!(target[0].body, b"sent before BYE");
    assert_eq!(target[1].start, "MSRP tid2 481 Session Does Not Exist");
    harness.wait(CLOSED);
    assert_eq!(harness.take_reports(), [], "its answer is awaited");
    harness.send(wires[1], response(1, "tid1", "200 OK"));
    assert!(is_closed(&mut harness));
}

#[test]
fn a_peer_that_left_may_not_go_on_for_ever() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.command(Command::Close { session: KEY, left: Some(0), awaited: true });
    for n in 0..300 {
        harness.send(wires[0], send(0, "tid1", &format!("Message-ID: mid{n}\r\nFailure-Report: no\r\n"), b"x", '$'));
        harness.wait(Duration::from_millis(10));
    }
    assert!(is_closed(&mut harness));
    assert!((198..=201).contains(&harness.read(wires[1]).len()));
}

#[test]
fn a_message_answered_and_not_acknowledged_by_its_target_is_reported_before_the_connection_ends() {
    for left in [Some(0), Some(1), None] {
        let (mut harness, wires) = session(1, SessionKind::Session);
        harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"12345", '$'));
        assert_eq!(harness.read(wires[0])[0].start, "MSRP tid1 200 OK");
        harness.command(Command::Close { session: KEY, left, awaited: true });
        harness.wait(Duration::from_millis(2100));
        let told = harness.read(wires[0]);
        assert!(told[0].start.ends_with(" REPORT") && told[0].field("Status").starts_with("000 408"), "{told:?}");
        assert_eq!((told[0].field("Message-ID"), told[0].field("Byte-Range")), ("mid1", "1-5/*"));
        assert!(harness.wires[&wires[0]].finished && is_closed(&mut harness));
    }
}

#[test]
fn what_is_held_for_a_target_about_to_connect_reaches_it() {
    let mut harness = Harness::new(&Config::default());
    harness.command(open(SessionKind::Session, Direction::Both));
    harness.command(Command::Bind { session: KEY, leg: 0, peer: Box::new(passive_peer(0)) });
    let origin = harness.accept();
    harness.send(origin, bind(0));
    harness.read(origin);
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
    harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(passive_peer(1)) });
    harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\nFailure-Report: no\r\n", b"early", '$'));
    harness.take_reports();
    harness.command(Command::Close { session: KEY, left: Some(0), awaited: true });
    harness.wait(Duration::from_secs(1));
    assert_eq!(harness.take_reports(), []);
    let target = harness.accept();
    harness.send(target, bind(1));
    assert_eq!(harness.read(target)[1].body, b"early");
}

#[test]
fn a_connection_that_comes_just_after_bye_is_heard() {
    let mut harness = Harness::new(&Config::default());
    harness.command(open(SessionKind::Session, Direction::Both));
    harness.command(Command::Bind { session: KEY, leg: 0, peer: Box::new(passive_peer(0)) });
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
    harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(passive_peer(1)) });
    let target = harness.accept();
    harness.send(target, bind(1));
    harness.take_reports();
    harness.command(Command::Close { session: KEY, left: Some(0), awaited: true });
    harness.wait(Duration::from_millis(490));
    let origin = harness.accept();
    harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\nFailure-Report: no\r\n", b"in a hurry", '$'));
    assert_eq!(harness.read(target)[1].body, b"in a hurry");
    harness.take_reports();
    harness.wait(Duration::from_millis(490));
    assert_eq!(harness.take_reports(), [], "a sender that wants no answers may have sent more");
    harness.wait(CLOSED);
    assert!(is_closed(&mut harness));
}
