//! One origin, one target: rewriting, answers, chunks.

use super::*;

/// A session with its origin and targets connected and bound.
pub fn session(targets: u8, kind: SessionKind) -> (Harness, Vec<Connection>) {
    session_with(&Config::default(), targets, kind)
}

fn session_with(config: &Config, targets: u8, kind: SessionKind) -> (Harness, Vec<Connection>) {
    let mut harness = Harness::new(config);
    let (origin, target) = match kind {
        SessionKind::LargeMessage => (Direction::FromPeer, Direction::ToPeer),
        SessionKind::Session => (Direction::Both, Direction::Both),
    };
    harness.command(open(kind, origin));
    for leg in 1..=targets {
        harness.command(Command::Leg { session: KEY, leg: Box::new(msrp_leg(leg, target)) });
    }
    let mut connections = Vec::new();
    for leg in 0..=targets {
        harness.command(Command::Bind { session: KEY, leg, peer: Box::new(passive_peer(leg)) });
        let connection = harness.accept();
        harness.send(connection, bind(leg));
        assert_eq!(
            harness.text(connection),
            format!("MSRP bind{leg:02} 200 OK\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------bind{leg:02}$\r\n", far(leg), own(leg))
        );
        connections.push(connection);
    }
    assert_eq!(harness.take_reports().len(), usize::from(targets) + 1);
    (harness, connections)
}

#[test]
fn a_message_is_relayed_octet_for_octet_and_answered_at_once() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let fields = "Message-ID: 12339sdqwer\r\nByte-Range: 1-16/16\r\nX-More: kept\r\n";
    harness.send(wires[0], send(0, "d93kswow", fields, b"Hi, I'm Alice!\r\n", '$'));
    let expected = format!(
        "MSRP d93kswow SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\n{fields}Content-Type: text/plain\r\n\r\nHi, I'm Alice!\r\n\r\n-------d93kswow$\r\n",
        far(1),
        own(1)
    );
    assert_eq!(harness.text(wires[1]), expected);
    assert_eq!(
        harness.text(wires[0]),
        format!("MSRP d93kswow 200 OK\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------d93kswow$\r\n", far(0), own(0))
    );
    harness.send(wires[1], response(1, "d93kswow", "200 OK"));
    assert_eq!(harness.text(wires[0]), "");
    assert_eq!(harness.loans(), 0);
    assert_eq!(harness.media.counts().chunks, [1, 0]);
    assert_eq!(harness.media.counts().octets, [16, 0]);
}

#[test]
fn messages_that_came_together_leave_as_one_piece_where_heads_have_equal_length() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let mut octets = Vec::new();
    for number in 0..5 {
        octets.extend(send(
            0,
            &format!("tid{number}"),
            &format!("Message-ID: mid{number}\r\nByte-Range: 1-4/4\r\n"),
            b"body",
            '$',
        ));
    }
    harness.send(wires[0], &octets);
    let swapped = String::from_utf8(octets).unwrap().replace(&own(0), "TO").replace(&far(0), &own(1)).replace("TO", &far(1));
    assert_eq!(harness.text(wires[1]), swapped);
    assert_eq!(harness.wires[&wires[1]].writes.len(), 2, "the binding response, and one send for five messages");
    assert_eq!(harness.read(wires[0]).len(), 5);
}

#[test]
fn a_shorter_head_is_written_in_place_and_a_longer_one_before_it() {
    for path in ["msrp://b:1/x;tcp", "msrp://a-very-long-host-name-of-a-peer.example.net:12345/a-very-long-session-id-too;tcp"] {
        let (mut harness, wires) = session(1, SessionKind::Session);
        let peer = crate::msrp::leg::Peer { path: vec!["msrp://relay:1/r;tcp".into(), path.into()], ..passive_peer(1) };
        harness.command(Command::Bind { session: KEY, leg: 1, peer: Box::new(peer) });
        assert!(harness.wires[&wires[1]].finished, "another path is another place");
        harness.gone(wires[1], Gone::Closed);
        let target = harness.accept();
        harness.send(target, bind(1));
        harness.take(target);
        harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"body", '$'));
        let expected = format!(
            "MSRP tid1 SEND\r\nTo-Path: msrp://relay:1/r;tcp {path}\r\nFrom-Path: {}\r\nMessage-ID: mid1\r\nContent-Type: text/plain\r\n\r\nbody\r\n-------tid1$\r\n",
            own(1)
        );
        assert_eq!(harness.text(target), expected);
    }
}

#[test]
fn both_ways_at_once_carry_their_own_messages() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.send(wires[0], send(0, "same", "Message-ID: same\r\n", b"to bob", '$'));
    harness.send(wires[1], send(1, "same", "Message-ID: same\r\n", b"to alice", '$'));
    let (alice, bob) = (harness.read(wires[0]), harness.read(wires[1]));
    assert_eq!(bob[0].body, b"to bob");
    assert_eq!(bob[1].start, "MSRP same 200 OK");
    assert_eq!(alice[0].start, "MSRP same 200 OK");
    assert_eq!(alice[1].body, b"to alice");
}

#[test]
fn a_long_chunk_goes_on_as_it_comes_and_is_interruptible() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let body: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
    let whole = send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-100000/100000\r\n", &body, '$');
    harness.send(wires[0], &whole[..1000]);
    let first = harness.take(wires[1]);
    assert!(String::from_utf8_lossy(&first).contains("Byte-Range: 1-*/100000\r\n"), "{}", String::from_utf8_lossy(&first));
    assert!(first.len() > 800, "what is there goes out at once");
    harness.send(wires[0], &whole[1000..]);
    let mut all = first;
    all.extend(harness.take(wires[1]));
    assert_eq!(assemble(&read_all(&all)), [("mid1".to_owned(), body, Continuation::Complete)]);
}

#[test]
fn a_long_chunk_with_an_explicit_end_becomes_interruptible_and_a_short_one_stays() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-2049/2049\r\n", &[b'x'; 2049], '$'));
    harness.send(wires[0], send(0, "tid2", "Message-ID: mid2\r\nByte-Range: 1-2048/2048\r\n", &[b'x'; 2048], '$'));
    let reads = harness.read(wires[1]);
    assert_eq!((reads[0].field("Byte-Range"), reads[1].field("Byte-Range")), ("1-*/2049", "1-2048/2048"));
    assert_eq!((reads[0].body.len(), reads[1].body.len()), (2049, 2048));
}

#[test]
fn a_transaction_id_in_use_on_the_target_is_replaced() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    for number in 0..2 {
        harness.send(wires[0], send(0, "empty", &format!("Message-ID: mid{number}\r\n"), b"x", '$'));
    }
    let reads = harness.read(wires[1]);
    assert_eq!(reads[0].start, "MSRP empty SEND");
    assert_ne!(reads[1].start, "MSRP empty SEND");
    assert_eq!(reads[1].body, b"x");
    assert_eq!(harness.read(wires[0]).iter().filter(|read| read.start == "MSRP empty 200 OK").count(), 2);
}

#[test]
fn an_empty_body_is_content_and_a_bodiless_send_is_not() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"", '$'));
    assert_eq!(harness.read(wires[1])[0].body, b"");
    harness.send(wires[0], bind(0));
    assert_eq!(harness.read(wires[0])[1].start, "MSRP bind00 200 OK");
    assert_eq!(harness.text(wires[1]), "");
}

#[test]
fn chunks_keep_their_ranges_and_flags() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.send(wires[0], send(0, "dkei38sd", "Message-ID: 4564dpWd\r\nByte-Range: 1-*/8\r\n", b"abcd", '+'));
    harness.send(wires[0], send(0, "dkei38ia", "Message-ID: 4564dpWd\r\nByte-Range: 5-8/8\r\n", b"EFGH", '$'));
    let reads = harness.read(wires[1]);
    assert_eq!((reads[0].field("Byte-Range"), reads[0].flag), ("1-*/8", Continuation::More));
    assert_eq!((reads[1].field("Byte-Range"), reads[1].flag), ("5-8/8", Continuation::Complete));
    assert_eq!(harness.read(wires[0]).len(), 2);
}

#[test]
fn an_aborted_message_is_aborted_downstream() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/8000\r\n", b"abcd", '#'));
    assert_eq!(harness.read(wires[1])[0].flag, Continuation::Abort);
    assert_eq!(harness.read(wires[0])[0].start, "MSRP tid1 200 OK");
}

#[test]
fn a_response_interrupts_a_long_chunk_towards_the_same_peer() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let body = vec![b'y'; 10_000];
    let whole = send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/10000\r\nX-Kept: yes\r\n", &body, '$');
    harness.send(wires[0], &whole[..5000]);
    harness.send(wires[1], send(1, "bob1", "Message-ID: bob1\r\n", b"hello", '$'));
    let mut reads = harness.read(wires[1]);
    assert_eq!((reads[0].start.as_str(), reads[0].flag), ("MSRP tid1 SEND", Continuation::More));
    assert_eq!(reads[1].start, "MSRP bob1 200 OK");
    let sent = reads[0].body.len();
    harness.send(wires[0], &whole[5000..]);
    let rest = harness.read(wires[1]);
    assert_eq!(rest[0].field("Byte-Range"), format!("{}-*/10000", sent + 1));
    assert_eq!(
        (rest[0].field("X-Kept"), rest[0].field("Content-Type"), rest[0].flag),
        ("yes", "text/plain", Continuation::Complete)
    );
    assert!(rest[0].start != "MSRP tid1 SEND");
    reads.extend(rest);
    assert_eq!(assemble(&reads), [("mid1".to_owned(), body, Continuation::Complete)]);
    assert_eq!(
        harness.read(wires[0]).iter().map(|read| read.start.as_str()).collect::<Vec<_>>().last(),
        Some(&"MSRP tid1 200 OK")
    );
}

#[test]
fn an_interruption_behind_the_last_octet_ends_the_message() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let body = vec![b'y'; 5000];
    let whole = send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/5000\r\n", &body, '$');
    let end = whole.len() - b"\r\n-------tid1$\r\n".len();
    harness.send(wires[0], &whole[..end]);
    harness.send(wires[1], send(1, "bob1", "Message-ID: bob1\r\n", b"hello", '$'));
    harness.send(wires[0], &whole[end..]);
    let reads = harness.read(wires[1]);
    assert_eq!(assemble(&reads), [("mid1".to_owned(), body, Continuation::Complete)]);
    assert_eq!(reads.iter().filter(|read| read.start.ends_with("SEND")).count(), 1);
}

#[test]
fn an_interrupted_message_of_unknown_length_still_ends() {
    for flag in ['$', '#', '+'] {
        let (mut harness, wires) = session(1, SessionKind::Session);
        let body = vec![b'y'; 5000];
        let whole = send(0, "tid1", "Message-ID: mid1\r\n", &body, flag);
        let end = whole.len() - b"\r\n-------tid1$\r\n".len();
        harness.send(wires[0], &whole[..end]);
        harness.send(wires[1], send(1, "bob1", "Message-ID: bob1\r\n", b"hello", '$'));
        harness.send(wires[0], &whole[end..]);
        let reads = harness.read(wires[1]);
        assert_eq!(assemble(&reads), [("mid1".to_owned(), body, Continuation::of(flag as u8).unwrap())]);
        assert_eq!(reads[0].field("Byte-Range"), "1-*/*");
    }
}

#[test]
fn a_sender_lost_in_the_middle_of_a_chunk_aborts_it_at_the_target() {
    // RFC 4975 §7.1: `#`; whether the octets went on as they came, or the chunk was so short that it was kept whole.
    for (range, octets) in [("1-*/9000", 3000), ("1-*/900", 300), ("1-900/900", 300)] {
        for fin in [false, true] {
            let (mut harness, wires) = session(1, SessionKind::Session);
            let whole = send(0, "tid1", &format!("Message-ID: mid1\r\nByte-Range: {range}\r\n"), &vec![b'z'; octets * 3], '$');
            let cut = whole.len() - octets * 2;
            harness.send(wires[0], &whole[..cut]);
            if fin {
                harness.end(wires[0]);
            } else {
                harness.gone(wires[0], Gone::Broken);
            }
            let reads = harness.read(wires[1]);
            assert_eq!(reads.last().map(|read| read.flag), Some(Continuation::Abort), "{range}");
            assert!(assemble(&reads)[0].1.len() >= octets - 30, "{range}");
            assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 0, cause: LegFailure::Closed }]);
        }
    }
}
