//! Octets and events of any kind: nothing panics, nothing is leaked, what goes out is MSRP.

use super::*;

/// A conversation of both sides, as single arrivals.
fn script() -> Vec<(usize, Vec<u8>)> {
    let long = send(0, "tid3", "Message-ID: mid3\r\nByte-Range: 1-*/9000\r\nSuccess-Report: yes\r\n", &[b'x'; 9000], '$');
    vec![
        (0, send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-4/4\r\n", b"body", '$')),
        (1, response(1, "tid1", "200 OK").into_bytes()),
        (
            0,
            send(
                0,
                "tid2",
                "Message-ID: mid2\r\nFailure-Report: partial\r\nSuccess-Report: yes\r\n",
                b"\r\n-------tid2?\r\n",
                '+',
            ),
        ),
        (1, response(1, "tid2", "413 Stop").into_bytes()),
        (0, long[..4000].to_vec()),
        (1, send(1, "bob1", "Message-ID: bob1\r\n", b"hello", '$')),
        (0, long[4000..].to_vec()),
        (1, report(1, "rep1", "Message-ID: mid3\r\nByte-Range: 1-9000/9000\r\nStatus: 000 200 OK\r\n").into_bytes()),
        (
            0,
            format!(
                "MSRP nick1 NICKNAME\r\nTo-Path: {}\r\nFrom-Path: {}\r\nUse-Nickname: a\r\n-------nick1$\r\n",
                own(0),
                far(0)
            )
            .into_bytes(),
        ),
        (1, response(1, "nick1", "200 OK").into_bytes()),
        (2, send(2, "tid9", "Message-ID: mid9\r\n", &[b'-'; 3000], '#')),
        (0, bind(0).into_bytes()),
    ]
}

fn mutate(octets: &mut Vec<u8>, prng: &mut Prng) {
    for _ in 0..prng.below(4) {
        if octets.is_empty() {
            return;
        }
        let at = prng.below(octets.len() as u64) as usize;
        match prng.below(6) {
            0 => octets[at] = prng.u64() as u8,
            1 => octets.truncate(at),
            2 => octets.insert(at, [b'\r', b'\n', b'-', b':', b' ', 0, 255][prng.below(7) as usize]),
            3 => {
                octets.remove(at);
            }
            4 => {
                let end = (at + prng.below(40) as usize).min(octets.len());
                let copy = octets[at..end].to_vec();
                octets.splice(at..at, copy);
            }
            _ => {
                let end = (at + prng.below(40) as usize).min(octets.len());
                octets.drain(at..end);
            }
        }
    }
}

#[test]
fn two_thousand_mutated_conversations_do_no_harm() {
    for seed in 0..2_000 {
        let mut prng = Prng::seeded(seed);
        let (mut harness, wires) = session(2, SessionKind::Session);
        for (from, mut octets) in script() {
            if prng.below(3) == 0 {
                mutate(&mut octets, &mut prng);
            }
            let wire = wires[from];
            let cut = prng.below(octets.len() as u64 + 1) as usize;
            if !harness.wires.contains_key(&wire) {
                continue;
            }
            for part in [&octets[..cut], &octets[cut..]] {
                harness.send(wire, part);
            }
            match prng.below(40) {
                0 => harness.end(wire),
                1 => harness.gone(wire, Gone::Broken),
                2 => harness.wait(Duration::from_secs(prng.below(40))),
                3 => harness.command(Command::Release { session: KEY, leg: prng.below(4) as u8 }),
                4 => harness.command(Command::Close { session: KEY, left: None, awaited: true }),
                5 => {
                    if let Some(wire) = harness.wires.get_mut(&wire) {
                        wire.stalled = !wire.stalled;
                    }
                }
                _ => {}
            }
        }
        for &wire in &wires {
            if harness.wires.contains_key(&wire) {
                harness.drain(wire, usize::MAX);
            }
        }
        harness.command(Command::Close { session: KEY, left: None, awaited: true });
        harness.wait(Duration::from_secs(31));
        let closed = harness.take_reports().into_iter().filter(|report| matches!(report, Report::Closed { .. })).count();
        assert!(closed >= 1, "seed {seed}");
        for &wire in &wires {
            if harness.wires.contains_key(&wire) {
                harness.drain(wire, usize::MAX);
                let octets = harness.take(wire);
                if !harness.wires[&wire].aborted {
                    read_all(&octets);
                }
                harness.gone(wire, Gone::Closed);
            }
        }
        assert!(harness.media.is_idle(), "seed {seed}");
        assert_eq!(harness.loans(), 0, "seed {seed}");
        assert!(
            harness.media.strangers.is_empty() && harness.media.files.is_empty() && harness.media.by_id.is_empty(),
            "seed {seed}"
        );
        assert_eq!(harness.media.next_due(), None, "seed {seed}");
    }
}

#[test]
fn arbitrary_octets_on_a_fresh_connection_do_no_harm() {
    for seed in 0..2_000 {
        let mut prng = Prng::seeded(seed);
        let mut harness = Harness::new(&Config::default());
        let wire = harness.accept();
        let octets: Vec<u8> = b"MSRP ".iter().copied().chain((0..prng.below(300)).map(|_| prng.u64() as u8)).collect();
        harness.send(wire, octets);
        harness.gone(wire, Gone::Broken);
        assert!(harness.media.is_idle());
    }
}
