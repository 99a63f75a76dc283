//! RFC 4975 §7.2: which 200s wait for others, and for how long.

use super::super::answers::HOLD;
use super::*;
use crate::limits::MSRP_ANSWERS_HELD_MAX;

const GAP: Duration = Duration::from_micros(500);

fn message(number: u32) -> Vec<u8> {
    send(0, &format!("tid{number:05}"), &format!("Message-ID: mid{number:05}\r\n"), b"x", '$')
}

/// Sends a message and answers it at the target.
fn relay(harness: &mut Harness, wires: &[Connection], number: u32) {
    harness.send(wires[0], message(number));
    harness.send(wires[1], response(1, &format!("tid{number:05}"), "200 OK"));
}

/// Transaction ids of what a peer was answered.
fn answered(harness: &mut Harness, wire: Connection) -> Vec<u32> {
    let reads = harness.read(wire);
    reads.iter().filter_map(|read| read.start.strip_prefix("MSRP tid")?.strip_suffix(" 200 OK")?.parse().ok()).collect()
}

/// Sends so many messages, `window` of them before they are answered and those in it `gap` apart; how many answers were late, and
/// the sends that all of them took.
fn converse(window: u32, messages: u32, gap: Duration) -> (u32, usize) {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.wires.get_mut(&wires[0]).unwrap().writes.clear();
    let (mut sent, mut answers, mut late) = (0, 0, 0);
    while answers < messages {
        let before = harness.now;
        while sent < answers + window {
            relay(&mut harness, &wires, sent);
            sent += 1;
            harness.wait(gap);
        }
        if answered(&mut harness, wires[0]).iter().inspect(|number| assert!(**number < sent)).map(|_| answers += 1).count() == 0 {
            late += 1;
            harness.wait(HOLD);
            let came = answered(&mut harness, wires[0]).len() as u32;
            assert!(came > 0, "nothing waits longer than that");
            answers += came;
        }
        assert!(harness.now > before);
    }
    (late, harness.wires[&wires[0]].writes.len())
}

#[test]
fn a_sender_that_waits_for_its_answers_is_hardly_ever_kept_waiting() {
    for window in [1, 2, 3, 7, 20] {
        let (late, _) = converse(window, 3000, Duration::from_micros(100));
        assert!(late <= 16, "{late} times with {window} under way");
    }
}

#[test]
fn a_sender_that_does_not_wait_is_answered_several_times_at_once() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let (mut answers, mut sent_at) = (Vec::new(), Vec::new());
    harness.wires.get_mut(&wires[0]).unwrap().writes.clear();
    for number in 0..2000 {
        sent_at.push(harness.now);
        relay(&mut harness, &wires, number);
        harness.wait(GAP);
        for answer in answered(&mut harness, wires[0]) {
            assert!(harness.now.since(sent_at[answer as usize]) <= HOLD + GAP, "{answer}");
            answers.push(answer);
        }
    }
    harness.wait(HOLD);
    answers.extend(answered(&mut harness, wires[0]));
    assert_eq!(answers, (0..2000).collect::<Vec<u32>>(), "each once, in order");
    let sends = harness.wires[&wires[0]].writes.len();
    assert!(sends <= 2000 / usize::from(MSRP_ANSWERS_HELD_MAX) + 100, "{sends} sends");
    assert_eq!(harness.read(wires[1]).len(), 2000, "the messages themselves never wait");
}

#[test]
fn people_are_answered_at_once() {
    assert_eq!(converse(1, 500, Duration::from_millis(5)), (0, 500));
}

#[test]
fn what_is_said_on_the_connection_takes_waiting_answers_along() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let mut number = 0;
    let mut hold = |harness: &mut Harness| {
        for _ in 0..200 {
            harness.send(wires[0], message(number));
            number += 1;
            if answered(harness, wires[0]).is_empty() {
                return number - 1;
            }
            harness.wait(GAP);
        }
        panic!("none of 200 answers waits");
    };
    let first = hold(&mut harness);
    harness.send(wires[1], send(1, "back1", "Message-ID: back1\r\n", b"y", '$'));
    let reads = harness.read(wires[0]);
    assert_eq!(reads[0].start, format!("MSRP tid{first:05} 200 OK"));
    assert_eq!((reads[1].body.as_slice(), reads.len()), (&b"y"[..], 2));
    // So does the end of the session.
    let second = hold(&mut harness);
    harness.command(Command::Close { session: KEY, left: Some(1), awaited: true });
    harness.wait(Duration::from_millis(3));
    let third = answered(&mut harness, wires[0]);
    harness.wait(Duration::from_secs(3));
    let all = [third, answered(&mut harness, wires[0])].concat();
    assert_eq!(all, [second]);
    assert!(harness.wires[&wires[0]].finished);
}
