//! Sinks and sources: messages to disk and from disk.

use super::*;
use crate::shard::exchange::{Leg, LegKind, Source};

fn sink_leg(leg: u8, hold: bool, accept_types: &str) -> Leg {
    Leg {
        kind: LegKind::Sink { directory: "/spool".into(), hold, accept_types: accept_types.into() },
        ..msrp_leg(leg, Direction::ToPeer)
    }
}

/// A session whose only target is a sink that takes anything.
fn with_sink(hold: bool) -> (Harness, Connection) {
    with_sink_of(hold, "")
}

fn with_sink_of(hold: bool, accept_types: &str) -> (Harness, Connection) {
    let mut harness = Harness::new(&Config::default());
    harness.command(open(SessionKind::LargeMessage, Direction::FromPeer));
    harness.command(Command::Bind { session: KEY, leg: 0, peer: Box::new(passive_peer(0)) });
    harness.command(Command::Leg { session: KEY, leg: Box::new(sink_leg(1, hold, accept_types)) });
    let origin = harness.accept();
    harness.send(origin, bind(0));
    harness.read(origin);
    harness.take_reports();
    (harness, origin)
}

fn stored(harness: &mut Harness) -> crate::shard::exchange::Stored {
    match &harness.take_reports()[..] {
        [Report::Stored(stored)] => (**stored).clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_goes_to_a_file_and_is_told_when_it_is_durable() {
    let (mut harness, origin) = with_sink(false);
    harness.slow_disk = true;
    let body: Vec<u8> = (0..10_000u32).map(|number| number as u8).collect();
    let whole = send(0, "tid1", "Message-ID: mid1\r\nSuccess-Report: yes\r\n", &body, '$');
    harness.send(origin, &whole[..5000]);
    harness.send(origin, &whole[5000..]);
    assert_eq!(harness.read(origin)[0].start, "MSRP tid1 200 OK");
    assert_eq!(harness.take_reports(), []);
    harness.disk();
    let told = stored(&mut harness);
    assert_eq!(
        (told.octets, &*told.message_id, &*told.content_type, told.success_report, told.from),
        (10_000, "mid1", "text/plain", true, 0)
    );
    assert_eq!(told.head[..], body[..crate::limits::STORED_HEAD_OCTETS_MAX], "its beginning goes with the report");
    assert_eq!(harness.files_by_path(), [body.as_slice()]);
    assert!(told.file.starts_with("/spool"));
    let reads = harness.read(origin);
    assert_eq!((reads[0].field("Status"), reads[0].field("Byte-Range")), ("000 200 OK", "1-10000/10000"));
    assert_eq!(harness.discarded, [(told.file, false)]);
    assert_eq!(harness.loans(), 0);
}

#[test]
fn with_hold_the_last_chunk_is_answered_after_the_store_has_it() {
    for (status, answer, delete) in [(200, "MSRP tid2 200 OK", false), (413, "MSRP tid2 413 Message Too Large", true)] {
        let (mut harness, origin) = with_sink(true);
        harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-4/8\r\nSuccess-Report: yes\r\n", b"abcd", '+'));
        harness.send(origin, send(0, "tid2", "Message-ID: mid1\r\nByte-Range: 5-8/8\r\nSuccess-Report: yes\r\n", b"efgh", '$'));
        assert_eq!(harness.read(origin).iter().map(|read| read.start.as_str()).collect::<Vec<_>>(), ["MSRP tid1 200 OK"]);
        let told = stored(&mut harness);
        harness.command(Command::Acknowledge { session: KEY, leg: 1, message_id: told.message_id, status });
        let reads = harness.read(origin);
        assert_eq!(reads[0].start, answer);
        assert_eq!(reads.len(), if status == 200 { 2 } else { 1 }, "a success report where it succeeded");
        assert_eq!(harness.discarded, [(told.file, delete)]);
    }
}

#[test]
fn chunks_out_of_order_come_to_their_places() {
    let (mut harness, origin) = with_sink(false);
    for (tid, range, body, flag) in
        [("tid1", "9-12/12", b"ijkl", '$'), ("tid2", "1-4/12", b"abcd", '+'), ("tid3", "5-8/12", b"efgh", '+')]
    {
        assert_eq!(harness.take_reports(), []);
        harness.send(origin, send(0, tid, &format!("Message-ID: mid1\r\nByte-Range: {range}\r\n"), body, flag));
    }
    assert_eq!(stored(&mut harness).octets, 12);
    assert_eq!(harness.files_by_path(), [&b"abcdefghijkl"[..]]);
}

#[test]
fn an_empty_message_and_an_aborted_one() {
    let (mut harness, origin) = with_sink(false);
    harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\n", b"", '$'));
    assert_eq!(stored(&mut harness).octets, 0);
    harness.send(origin, send(0, "tid2", "Message-ID: mid2\r\nByte-Range: 1-*/9\r\n", b"abc", '#'));
    assert_eq!(harness.take_reports(), []);
    assert!(harness.discarded.last().unwrap().1, "deleted");
    let mut cut = send(0, "tid3", "Message-ID: mid3\r\nByte-Range: 1-*/9000\r\n", &[b'x'; 9000], '$');
    cut.truncate(5000);
    harness.send(origin, cut);
    harness.gone(origin, Gone::Broken);
    assert_eq!(harness.discarded.len(), 3);
    assert!(harness.discarded.last().unwrap().1, "deleted");
}

#[test]
fn a_sink_accepts_what_it_said_it_accepts() {
    let (mut harness, origin) = with_sink_of(false, "message/cpim");
    harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\n", b"x", '$'));
    assert_eq!(harness.read(origin)[0].start, "MSRP tid1 415 Unsupported Media Type");
    let cpim =
        String::from_utf8(send(0, "tid2", "Message-ID: mid2\r\n", b"x", '$')).unwrap().replace("text/plain", "message/CPIM;x=y");
    harness.send(origin, cpim);
    assert_eq!(harness.read(origin)[0].start, "MSRP tid2 200 OK");
}

#[test]
fn a_disk_that_fails_is_told_to_both_sides() {
    let (mut harness, origin) = with_sink(false);
    harness.slow_disk = true;
    harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\n", b"x", '$'));
    harness.read(origin);
    let file = *harness.files.keys().next().unwrap();
    harness.media.file_failed(harness.now, file, &mut harness.out);
    harness.wait(Duration::ZERO);
    harness.command(Command::Release { session: KEY, leg: 99 });
    assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 1, cause: LegFailure::Disk }]);
    assert_eq!(harness.read(origin)[0].field("Status"), "000 413 Message Too Large");
    assert!(harness.discarded.last().unwrap().1);
}

#[test]
fn a_slow_disk_pauses_the_sender() {
    let (mut harness, origin) = with_sink(false);
    harness.slow_disk = true;
    let mut stream = send(0, "tid1", "Message-ID: mid1\r\n", &vec![b'x'; 400_000], '$');
    let rest = stream.split_off(300_000);
    harness.send(origin, stream);
    assert!(harness.wires[&origin].paused);
    harness.disk();
    assert!(!harness.wires[&origin].paused);
    harness.send(origin, rest);
    harness.disk();
    assert_eq!(stored(&mut harness).octets, 400_000);
}

#[test]
fn a_sink_beside_a_target_records_both_ways_and_decides_nothing() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.command(Command::Leg { session: KEY, leg: Box::new(sink_leg(2, false, "")) });
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nSuccess-Report: yes\r\n", b"there", '$'));
    assert_eq!(stored(&mut harness).from, 0);
    assert_eq!(harness.read(wires[0]).len(), 1, "no success report from a sink beside a recipient");
    assert_eq!(harness.read(wires[1])[0].body, b"there");
    harness.send(wires[1], send(1, "tid2", "Message-ID: mid2\r\n", b"back", '$'));
    assert_eq!(stored(&mut harness).from, 1);
    assert_eq!(harness.files_by_path(), [&b"there"[..], &b"back"[..]]);
    harness.send(wires[1], response(1, "tid1", "403 No"));
    let reads = harness.read(wires[0]);
    assert_eq!(reads.last().unwrap().field("Status"), "000 403 Forbidden", "the target failed, so the message failed");
}

#[test]
fn a_session_closes_after_its_message_has_reached_the_disk() {
    let (mut harness, origin) = with_sink(false);
    harness.slow_disk = true;
    harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\n", b"x", '$'));
    harness.command(Command::Close { session: KEY, left: None, awaited: true });
    harness.wait(Duration::from_secs(3));
    assert_eq!(harness.take_reports(), []);
    harness.disk();
    let told = harness.take_reports();
    assert!(matches!(told[..], [Report::Stored(_), Report::Closed { .. }]), "{told:?}");
}

fn with_source(octets: usize, targets: u8) -> (Harness, Vec<Connection>, Vec<u8>) {
    let body: Vec<u8> = (0..octets).map(|number| (number * 7) as u8).collect();
    let mut harness = Harness::new(&Config::default());
    harness.sources.insert("/store/m".into(), body.clone());
    let source = Source {
        file: "/store/m".into(),
        octets: octets as u64,
        content_type: "message/cpim".into(),
        message_id: "stored1".into(),
    };
    let origin = Leg { kind: LegKind::Source(Box::new(source)), ..msrp_leg(0, Direction::FromPeer) };
    let open = crate::shard::exchange::Open { session: KEY, kind: SessionKind::LargeMessage, max_message: 1 << 30, origin };
    harness.command(Command::Open(Box::new(open)));
    for leg in 1..=targets {
        harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(leg, Direction::ToPeer)) });
        harness.command(Command::Bind { session: KEY, leg, peer: Box::new(passive_peer(leg)) });
    }
    let wires: Vec<Connection> = (1..=targets)
        .map(|leg| {
            let wire = harness.accept();
            harness.send(wire, bind(leg));
            wire
        })
        .collect();
    harness.reports.retain(|report| !matches!(report, Report::Bound { .. }));
    (harness, wires, body)
}

#[test]
fn a_stored_message_goes_out_as_one_message_to_every_target() {
    for octets in [0, 1, 2048, 65_536, 65_537, 200_000] {
        let (mut harness, wires, body) = with_source(octets, 2);
        for (leg, wire) in (1u8..).zip(wires) {
            let reads = harness.read(wire);
            assert_eq!(assemble(&reads), [("stored1".to_owned(), body.clone(), Continuation::Complete)], "{octets}");
            assert_eq!((reads.len(), reads[1].field("Content-Type")), (2, "message/cpim"), "one chunk");
            let tid = reads[1].start.split(' ').nth(1).unwrap().to_owned();
            harness.send(wire, response(leg, &tid, "200 OK"));
            assert_eq!(
                harness.take_reports(),
                [Report::Delivered { session: KEY, leg, message_id: "stored1".into(), octets: octets as u64 }]
            );
        }
        assert_eq!(harness.loans(), 0);
    }
}

#[test]
fn a_source_reads_no_faster_than_its_target() {
    let (mut harness, wires, body) = with_source(0, 1);
    drop(body);
    harness.read(wires[0]);
    let body = vec![b'z'; 2_000_000];
    harness.sources.insert("/store/n".into(), body.clone());
    harness.wires.get_mut(&wires[0]).unwrap().stalled = true;
    let source = Source { file: "/store/n".into(), octets: 2_000_000, content_type: "a/b".into(), message_id: "stored2".into() };
    let leg = Leg { kind: LegKind::Source(Box::new(source)), ..msrp_leg(5, Direction::FromPeer) };
    harness.command(Command::Leg { session: KEY, leg: Box::new(leg) });
    let queued = harness.queued(wires[0]);
    assert!(queued > 256 * 1024 && queued < 256 * 1024 + 70_000, "{queued}");
    while harness.queued(wires[0]) > 0 {
        harness.drain(wires[0], 50_000);
        assert!(harness.queued(wires[0]) < 256 * 1024 + 70_000);
    }
    assert_eq!(assemble(&harness.read(wires[0])), [("stored2".to_owned(), body, Continuation::Complete)]);
}

#[test]
fn a_refused_or_unanswered_stored_message_is_told() {
    let (mut harness, wires, _) = with_source(10, 2);
    let tid = harness.read(wires[0])[1].start.split(' ').nth(1).unwrap().to_owned();
    harness.send(wires[0], response(1, &tid, "415 What"));
    assert_eq!(harness.take_reports(), [Report::Undelivered { session: KEY, leg: 1, message_id: "stored1".into(), status: 415 }]);
    harness.wait(Duration::from_secs(31));
    assert_eq!(harness.take_reports(), [Report::Undelivered { session: KEY, leg: 2, message_id: "stored1".into(), status: 408 }]);
}

#[test]
fn a_source_whose_file_is_short_or_gone_aborts() {
    let (mut harness, wires, _) = with_source(100_000, 1);
    harness.read(wires[0]);
    for (path, octets) in [("/store/m", 200_000), ("/store/none", 10)] {
        let source = Source { file: path.into(), octets, content_type: "a/b".into(), message_id: "stored3".into() };
        let leg = Leg { kind: LegKind::Source(Box::new(source)), ..msrp_leg(9, Direction::FromPeer) };
        harness.take_reports();
        harness.command(Command::Leg { session: KEY, leg: Box::new(leg) });
        assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 9, cause: LegFailure::Disk }]);
        let reads = harness.read(wires[0]);
        assert!(reads.is_empty() || reads[0].flag == Continuation::Abort);
        assert_eq!(reads.is_empty(), path == "/store/none");
    }
}

#[test]
fn no_file_is_remembered_after_its_message() {
    let (mut harness, origin) = with_sink(false);
    harness.send(origin, send(0, "tid1", "Message-ID: mid1\r\n", b"x", '$'));
    harness.send(origin, send(0, "tid2", "Message-ID: mid2\r\nByte-Range: 1-*/9\r\n", b"abc", '#'));
    assert!(harness.media.files.is_empty());
    harness.send(origin, send(0, "tid3", "Message-ID: mid3\r\nByte-Range: 1-*/9\r\n", b"abc", '+'));
    assert_eq!(harness.media.files.len(), 1);
    harness.command(Command::Release { session: KEY, leg: 1 });
    assert!(harness.media.files.is_empty());
}
