//! Sessions from their opening to their last word.

use super::*;
use crate::limits::MSRP_UNBOUND_PER_PEER;
use crate::msrp::leg::Peer;

fn active_peer(leg: u8) -> Peer {
    Peer { connect: Some(PEER.parse().unwrap()), ..passive_peer(leg) }
}

fn opened() -> (Harness, Connection) {
    let mut harness = Harness::new(&Config::default());
    harness.command(open(SessionKind::Session, Direction::Both));
    harness.command(Command::Bind { session: KEY, leg: 0, peer: Box::new(passive_peer(0)) });
    let origin = harness.accept();
    harness.send(origin, bind(0));
    assert_eq!(harness.read(origin).len(), 1, "the origin is answered before there is a target");
    harness.take_reports();
    (harness, origin)
}

#[test]
fn where_we_connect_we_begin_with_a_bodiless_send() {
    let (mut harness, origin) = opened();
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
    harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\n", b"early", '$'));
    assert!(harness.wires[&origin].paused, "nobody can take it yet");
    harness.send(origin, send(0, "tid2", "Message-ID: mid2\r\n", b"more", '$'));
    harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(active_peer(1)) });
    let (target, to, _) = harness.connects[0];
    assert_eq!(to, PEER.parse().unwrap());
    harness.connected(target);
    let reads = harness.read(target);
    assert_eq!(
        (reads[0].field("Byte-Range"), reads[0].field("Content-Type"), reads[0].field("To-Path")),
        ("1-0/0", "", far(1).as_str())
    );
    assert_eq!((reads[1].body.as_slice(), reads[2].body.as_slice()), (&b"early"[..], &b"more"[..]));
    assert_eq!(harness.read(origin).len(), 2);
    assert!(!harness.wires[&origin].paused);
    assert_eq!(harness.take_reports(), [Report::Bound { session: KEY, leg: 1 }]);
    let opening = reads[0].start.split(' ').nth(1).unwrap().to_owned();
    harness.send(target, response(1, &opening, "481 Who"));
    assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 1, cause: LegFailure::Unknown }]);
}

#[test]
fn an_end_does_not_wait_for_the_answer_to_the_bodiless_send() {
    let (mut harness, _) = opened();
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
    harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(active_peer(1)) });
    let target = harness.connects[0].0;
    harness.connected(target);
    assert_eq!(harness.read(target)[0].field("Byte-Range"), "1-0/0");
    harness.take_reports();
    harness.command(Command::Close { session: KEY, left: Some(0), awaited: true });
    harness.wait(Duration::from_millis(55));
    assert!(matches!(harness.take_reports()[..], [Report::Closed { .. }]), "nothing is lost with it");
}

#[test]
fn a_connection_that_does_not_come_about_fails_its_leg() {
    for (why, cause) in [(Gone::NotConnected, LegFailure::Connect), (Gone::Tls, LegFailure::Tls)] {
        let (mut harness, origin) = opened();
        harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
        harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(active_peer(1)) });
        harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\n", b"early", '$'));
        let target = harness.connects[0].0;
        harness.gone(target, why);
        assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 1, cause }]);
        assert_eq!(harness.read(origin)[0].start, "MSRP tid1 408 Request Timeout");
    }
    let (mut harness, _) = opened();
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
    harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(active_peer(1)) });
    harness.wait(Duration::from_secs(6));
    assert!(harness.wires[&harness.connects[0].0].aborted);
    assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 1, cause: LegFailure::Connect }]);
}

#[test]
fn the_uri_of_an_answer_takes_connections_from_its_opening_on() {
    crate::proves!("OLM-r6.b", "TSI-8.a.ii.3.b", {
        let mut harness = Harness::new(&Config::default());
        let early = harness.accept();
        harness.send(early, bind(0));
        assert_eq!(harness.read(early)[0].start, "MSRP bind00 481 Session Does Not Exist", "before the session is opened");
        harness.command(open(SessionKind::Session, Direction::Both));
        let origin = harness.accept();
        harness.send(origin, bind(0));
        assert_eq!(harness.read(origin)[0].start, "MSRP bind00 200 OK");
        assert_eq!(harness.take_reports(), [Report::Bound { session: KEY, leg: 0 }]);
    });
}

#[test]
fn a_target_that_speaks_before_its_answer_is_known_is_heard() {
    let (mut harness, origin) = opened();
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
    let target = harness.accept();
    harness.send(target, bind(1));
    harness.send(target, send(1, "tid1", "Message-ID: mid1\r\n", b"hello", '$'));
    assert_eq!(harness.read(target).len(), 2);
    assert_eq!(harness.read(origin)[0].body, b"hello");
    harness.send(origin, send(0, "tid2", "Message-ID: mid2\r\n", b"back", '$'));
    assert_eq!(harness.read(target).len(), 0, "where to is not known yet");
    harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(passive_peer(1)) });
    assert_eq!(harness.read(target)[0].body, b"back");
}

#[test]
fn one_connection_may_carry_several_sessions() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let second = MediaKey(9);
    let leg = |leg: u8, id: &str| crate::shard::exchange::Leg {
        kind: crate::shard::exchange::LegKind::Msrp { uri: own(leg).replace("own", id).into(), tls: false },
        ..msrp_leg(leg, Direction::Both)
    };
    let open =
        crate::shard::exchange::Open { session: second, kind: SessionKind::Session, max_message: 1000, origin: leg(0, "two") };
    harness.command(Command::Open(Box::new(open)));
    harness.command(Command::Leg { session: second, leg: Box::new(leg(1, "two")) });
    for (leg, &wire) in wires.iter().enumerate() {
        harness.command(Command::Bind { session: second, leg: leg as u8, peer: Box::new(passive_peer(leg as u8)) });
        harness.send(wire, bind(leg as u8).replace("own", "two"));
        harness.read(wire);
    }
    let two = String::from_utf8(send(0, "tid1", "Message-ID: mid1\r\n", b"second", '$')).unwrap().replace("own", "two");
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"first", '$'));
    harness.send(wires[0], two);
    let reads = harness.read(wires[1]);
    assert_eq!((reads[0].body.as_slice(), reads[1].body.as_slice()), (&b"first"[..], &b"second"[..]));
    assert_ne!(reads[0].field("From-Path"), reads[1].field("From-Path"));
    harness.send(wires[1], response(1, "tid1", "200 OK"));
    harness.command(Command::Close { session: KEY, left: None, awaited: true });
    assert!(!harness.wires[&wires[0]].finished, "the other session needs it");
}

#[test]
fn a_closed_session_says_its_totals_and_finishes_its_connections() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"12345", '$'));
    harness.send(wires[1], response(1, "tid1", "200 OK"));
    harness.send(wires[1], send(1, "tid2", "Message-ID: mid2\r\nFailure-Report: no\r\n", b"12", '$'));
    harness.command(Command::Close { session: KEY, left: None, awaited: true });
    let totals = crate::shard::exchange::Totals { chunks: [1, 1], octets: [5, 2], messages: [1, 1] };
    assert_eq!(harness.take_reports(), [Report::Closed { session: KEY, totals }]);
    assert!(wires.iter().all(|wire| harness.wires[wire].finished));
    for wire in wires {
        harness.gone(wire, Gone::Closed);
    }
    assert!(harness.media.is_idle());
    assert_eq!(harness.take_reports(), []);
    let stranger = harness.accept();
    harness.send(stranger, bind(0));
    assert_eq!(harness.read(stranger)[0].start, "MSRP bind00 481 Session Does Not Exist");
}

#[test]
fn a_chunk_under_way_finishes_before_the_session_closes() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let body = vec![b'x'; 9000];
    let whole = send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/9000\r\n", &body, '$');
    harness.send(wires[0], &whole[..4000]);
    harness.command(Command::Close { session: KEY, left: None, awaited: true });
    assert_eq!(harness.take_reports(), []);
    harness.send(wires[0], &whole[4000..]);
    assert_eq!(assemble(&harness.read(wires[1])), [("mid1".to_owned(), body, Continuation::Complete)]);
    harness.send(wires[0], send(0, "tid2", "Message-ID: mid2\r\n", b"late", '$'));
    assert_eq!(harness.read(wires[0])[1].start, "MSRP tid2 481 Session Does Not Exist");
    harness.send(wires[1], response(1, "tid1", "200 OK"));
    assert!(matches!(harness.take_reports()[..], [Report::Closed { .. }]));
}

#[test]
fn a_session_whose_peers_do_not_finish_closes_after_two_seconds() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let whole = send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/9000\r\n", &[b'x'; 9000], '$');
    harness.send(wires[0], &whole[..4000]);
    harness.command(Command::Close { session: KEY, left: None, awaited: true });
    harness.wait(Duration::from_millis(1900));
    assert_eq!(harness.take_reports(), []);
    harness.wait(Duration::from_millis(200));
    assert!(matches!(harness.take_reports()[..], [Report::Closed { .. }]));
    assert_eq!(harness.read(wires[1])[0].flag, Continuation::Abort);
    assert!(wires.iter().all(|wire| harness.wires[wire].finished));
}

#[test]
fn a_released_leg_leaves_the_others_alone() {
    let (mut harness, wires) = session(2, SessionKind::Session);
    harness.command(Command::Release { session: KEY, leg: 1 });
    assert!(harness.wires[&wires[1]].finished);
    assert_eq!(harness.take_reports(), []);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"x", '$'));
    assert_eq!(harness.read(wires[2]).len(), 1);
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
    harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(passive_peer(1)) });
    let again = harness.accept();
    harness.send(again, bind(1));
    assert_eq!(harness.take_reports(), [Report::Bound { session: KEY, leg: 1 }]);
}

#[test]
fn idleness_is_told_and_activity_puts_it_off() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.wait(Duration::from_secs(14 * 60));
    harness.send(wires[0], bind(0));
    harness.wait(Duration::from_secs(14 * 60));
    assert_eq!(harness.take_reports(), []);
    harness.wait(Duration::from_secs(61));
    assert_eq!(harness.take_reports(), [Report::Idle { session: KEY }]);
    harness.wait(Duration::from_secs(3600));
    assert_eq!(harness.take_reports(), [], "once");
}

#[test]
fn a_connection_that_names_no_session_is_closed_after_thirty_seconds() {
    let (mut harness, _) = session(1, SessionKind::Session);
    let silent = harness.accept();
    harness.send(silent, "MSRP half");
    harness.wait(Duration::from_secs(29));
    assert!(!harness.wires[&silent].finished);
    harness.wait(Duration::from_secs(2));
    assert!(harness.wires[&silent].finished);
    assert_eq!(harness.media.counts().of(Cause::Unbound), 1);
}

#[test]
fn one_address_may_have_so_many_unbound_connections_and_no_more() {
    let mut harness = Harness::new(&Config::default());
    let first = harness.accept();
    for _ in 1..MSRP_UNBOUND_PER_PEER {
        harness.accept();
    }
    let peer: std::net::SocketAddr = PEER.parse().unwrap();
    assert!(harness.media.accepted(harness.now, peer, false, &mut harness.out).is_none());
    let other = "192.0.2.99:1".parse().unwrap();
    assert!(harness.media.accepted(harness.now, other, false, &mut harness.out).is_some());
    harness.gone(first, Gone::Broken);
    assert!(harness.media.accepted(harness.now, peer, false, &mut harness.out).is_some());
}

#[test]
fn what_a_peer_sent_before_it_closed_reaches_a_target_that_comes_later() {
    let (mut harness, origin) = opened();
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
    harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\n", b"early", '$'));
    harness.end(origin);
    assert_eq!(harness.take_reports(), []);
    harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(passive_peer(1)) });
    let target = harness.accept();
    harness.send(target, bind(1));
    assert_eq!(harness.read(target)[1].body, b"early");
    assert_eq!(harness.read(origin)[0].start, "MSRP tid1 200 OK", "the other direction is still open");
    let told = harness.take_reports();
    assert_eq!(told[1], Report::LegFailed { session: KEY, leg: 0, cause: LegFailure::Closed });
}

#[test]
fn commands_for_nobody_are_counted_and_close_is_always_answered() {
    let mut harness = Harness::new(&Config::default());
    harness.command(Command::Release { session: KEY, leg: 0 });
    harness.command(Command::Bind { session: KEY, leg: 0, peer: Box::new(passive_peer(0)) });
    harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(1, Direction::Both)) });
    assert_eq!(harness.media.counts().of(Cause::BadCommand), 3);
    harness.command(Command::Close { session: KEY, left: None, awaited: true });
    assert!(matches!(harness.take_reports()[..], [Report::Closed { .. }]));
}

#[test]
fn an_idle_session_stays_at_two_kibibytes() {
    // Two connections, the session with two legs, and what they hold on the heap: our URI, the peer's, its From-Path, the
    // entry of the session id, together some 250 octets a leg; and the vectors of legs.
    let conn = size_of::<Conn>() + size_of::<LegId>();
    let leg = size_of::<session::Leg>() + 250 + size_of::<(Box<str>, LegId)>();
    let total = 2 * conn + size_of::<Session>() + 2 * leg + size_of::<(MediaKey, Key)>() + 2 * 48;
    assert!(
        total <= 2048,
        "{total}: {} a connection, {} a session, {} a leg",
        size_of::<Conn>(),
        size_of::<Session>(),
        size_of::<session::Leg>()
    );
}
