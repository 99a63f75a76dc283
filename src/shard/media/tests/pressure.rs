//! Slow readers: what is queued is bounded, senders are paused and go on, the dead are given up.

use super::*;

#[test]
fn a_slow_target_pauses_the_origin_and_lets_it_go_on_below_half() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.wires.get_mut(&wires[1]).unwrap().stalled = true;
    let body = vec![b'x'; 10_000];
    let mut sent = 0;
    while !harness.wires[&wires[0]].paused {
        harness.send(wires[0], send(0, &format!("tid{sent}"), &format!("Message-ID: mid{sent}\r\n"), &body, '$'));
        sent += 1;
        assert!(sent < 100, "never paused");
    }
    let queued = harness.queued(wires[1]);
    assert!(queued > 256 * 1024 && queued < 256 * 1024 + 11_000, "{queued}");
    harness.drain(wires[1], queued - 130 * 1024);
    assert!(harness.wires[&wires[0]].paused, "not before half");
    harness.drain(wires[1], 4 * 1024);
    assert!(!harness.wires[&wires[0]].paused);
    harness.drain(wires[1], usize::MAX);
    assert_eq!(harness.loans(), 0);
    assert_eq!(assemble(&harness.read(wires[1])).len(), sent);
}

#[test]
fn the_slowest_of_several_targets_sets_the_pace() {
    let (mut harness, wires) = session(2, SessionKind::Session);
    harness.wires.get_mut(&wires[2]).unwrap().stalled = true;
    let mut whole = send(0, "tid1", "Message-ID: mid1\r\n", &vec![b'x'; 400_000], '$');
    let rest = whole.split_off(300_000);
    harness.send(wires[0], whole);
    assert!(harness.wires[&wires[0]].paused);
    harness.send(wires[0], rest);
    harness.drain(wires[2], usize::MAX);
    assert!(!harness.wires[&wires[0]].paused);
    assert_eq!(
        harness.read(wires[1]),
        harness
            .read(wires[2])
            .into_iter()
            .map(|read| Read { head: read.head.replace("0.2:9", "0.1:9").replace("session02", "session01"), ..read })
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_target_that_takes_nothing_for_thirty_seconds_is_given_up() {
    let (mut harness, wires) = session(2, SessionKind::Session);
    harness.wires.get_mut(&wires[2]).unwrap().stalled = true;
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", &vec![b'x'; 300_000], '$'));
    harness.read(wires[0]);
    assert!(harness.wires[&wires[0]].paused);
    harness.send(wires[1], response(1, "tid1", "200 OK"));
    harness.wait(Duration::from_secs(31));
    assert!(harness.wires[&wires[2]].aborted);
    assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 2, cause: LegFailure::Stalled }]);
    assert!(!harness.wires[&wires[0]].paused, "the others go on");
    harness.send(wires[0], send(0, "tid2", "Message-ID: mid2\r\n", b"x", '$'));
    assert_eq!(assemble(&harness.read(wires[1])).len(), 2);
    assert_eq!(harness.read(wires[0]).len(), 1, "one target has the message, so nothing failed");
}

#[test]
fn an_origin_that_does_not_read_its_answers_is_paused() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.wires.get_mut(&wires[0]).unwrap().stalled = true;
    let mut sent = 0;
    while !harness.wires[&wires[0]].paused {
        harness.send(wires[0], bind(0));
        sent += 1;
        assert!(sent < 10_000, "never paused");
    }
    harness.drain(wires[0], usize::MAX);
    assert!(!harness.wires[&wires[0]].paused);
}

#[test]
fn a_target_that_never_answers_pauses_the_origin_at_so_many_chunks() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let mut sent = 0;
    while !harness.wires[&wires[0]].paused {
        harness.send(wires[0], send(0, &format!("tid{sent}"), &format!("Message-ID: mid{sent}\r\n"), b"x", '$'));
        sent += 1;
        assert!(sent < 5_000, "never paused");
    }
    assert_eq!(sent, crate::limits::MSRP_OUTSTANDING_MAX + 1);
    for number in 0..sent {
        harness.send(wires[1], response(1, &format!("tid{number}"), "200 OK"));
    }
    assert!(!harness.wires[&wires[0]].paused);
}

#[test]
fn silent_messages_need_no_answers_and_leave_nothing_behind() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    for field in ["no", "partial"] {
        for number in 0..5_000 {
            harness.send(
                wires[0],
                send(0, &format!("tid{number}"), &format!("Message-ID: mid{number}\r\nFailure-Report: {field}\r\n"), b"x", '$'),
            );
        }
    }
    assert!(!harness.wires[&wires[0]].paused);
    let conn = harness.media.net.get(wires[1]).unwrap();
    assert!(conn.transactions.len() <= 2 * crate::limits::MSRP_OUTSTANDING_MAX);
    harness.wait(Duration::from_secs(31));
    assert_eq!(harness.media.net.get(wires[1]).unwrap().transactions.len(), 0);
}

#[test]
fn what_is_held_for_a_target_to_come_is_bounded() {
    let mut harness = Harness::new(&Config::default());
    harness.command(open(SessionKind::Session, Direction::Both));
    let origin = harness.accept();
    harness.send(origin, bind(0));
    harness.take_reports();
    let mut sent = 0;
    while !harness.wires[&origin].aborted {
        harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\n", &vec![b'x'; 100_000], '$'));
        assert!(harness.wires[&origin].paused);
        sent += 1;
        assert!(sent < 100, "never given up");
    }
    assert_eq!(harness.media.counts().of(Cause::HeldTooMuch), 1);
    assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 0, cause: LegFailure::Malformed }]);
}

#[test]
fn much_that_was_held_leaves_the_origin_paused_until_there_is_room() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(2, Direction::Both)) });
    harness.command(Command::Bind { session: KEY, leg: 2, peer: Box::new(passive_peer(2)) });
    harness.wires.get_mut(&wires[1]).unwrap().stalled = true;
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", &vec![b'x'; 500_000], '$'));
    assert!(harness.wires[&wires[0]].paused);
    harness.command(Command::Release { session: KEY, leg: 2 });
    assert_eq!(harness.read(wires[0]).len(), 1, "it has gone on");
    assert!(harness.wires[&wires[0]].paused, "the target has too much queued");
    harness.drain(wires[1], usize::MAX);
    assert!(!harness.wires[&wires[0]].paused);
}
