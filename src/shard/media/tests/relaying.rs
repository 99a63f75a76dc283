//! One origin, one target: rewriting, answers, chunks.

use super::*;

/// A session with its origin and targets connected and bound.
pub fn session(targets: u8, kind: SessionKind) -> (Harness, Vec<Connection>) {
    session_with(&Config::default(), targets, kind)
}

pub fn session_with(config: &Config, targets: u8, kind: SessionKind) -> (Harness, Vec<Connection>) {
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
