//! Every stream, cut anywhere, comes out the same; bodies leave as they came.

use super::*;
use proptest::prelude::*;

fn stream() -> Vec<u8> {
    let mut stream = bind(0).into_bytes();
    stream.extend(send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-9/9\r\n", b"\r\n-------", '$'));
    stream.extend(send(
        0,
        "tid2",
        "Message-ID: mid2\r\nByte-Range: 1-*/9999\r\n",
        b"\0\r\n-------tid2!\r\n\r\n-------tid\r",
        '+',
    ));
    stream.extend(send(0, "tid3", "Message-ID: mid2\r\nByte-Range: 31-*/9999\r\n", b"", '#'));
    stream.extend(send(0, "tid4", "Message-ID: mid4\r\n", b"-------tid4$\n", '$'));
    stream.extend(send(0, "tid5", "Message-ID: mid5\r\nByte-Range: 1-*/*\r\nFailure-Report: no\r\n", b"\r\n\r\n", '$'));
    stream
}

#[test]
fn a_stream_cut_at_every_place_relays_the_same_octets() {
    let relay = |cuts: &[usize]| {
        let (mut harness, wires) = session(1, SessionKind::Session);
        let stream = stream();
        let mut at = 0;
        for &cut in cuts.iter().chain([&stream.len()]) {
            harness.send(wires[0], &stream[at..cut]);
            at = cut;
        }
        assert_eq!(harness.loans(), 0);
        let answers: Vec<String> = harness.read(wires[0]).into_iter().map(|read| read.start).collect();
        (assemble(&harness.read(wires[1])), answers)
    };
    let whole = relay(&[]);
    assert_eq!(whole.0.len(), 4);
    assert_eq!(whole.1.len(), 5);
    for cut in 0..stream().len() {
        assert_eq!(relay(&[cut]), whole, "cut at {cut}");
    }
    let octets: Vec<usize> = (0..stream().len()).collect();
    assert_eq!(relay(&octets), whole);
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(b"\r\n-------".to_vec()),
        Just(b"\r\n-------tid1".to_vec()),
        Just(b"\r\n-------tid2$".to_vec()),
        Just(b"\r\n-------tid1x\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"$\r\n".to_vec()),
        Just(vec![b'-'; 20]),
        Just(vec![0; 100]),
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(any::<u8>(), 0..6000),
    ]
}

/// Whether the body does not contain the end-line, which its sender must see to (RFC 4975 §7.1).
fn is_lawful(body: &[u8], tid: &str) -> bool {
    let mut whole = [body, b"\r\n-------", tid.as_bytes(), b"$\r\n"].concat();
    let end = crate::msrp::end_line::EndLine::new(&Ident::new(tid.as_bytes()).unwrap());
    let found = matches!(end.find(&whole), crate::msrp::end_line::Found::End { at, .. } if at == body.len());
    whole.truncate(7 + tid.len());
    found && !whole.starts_with(format!("-------{tid}").as_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn octets_out_equal_octets_in_at_every_target(
        pieces in prop::collection::vec(piece(), 0..20), cuts in prop::collection::vec(0usize..20_000, 0..40),
        chunk in 1usize..5000, targets in 1u8..4, talks in prop::collection::vec(any::<bool>(), 40), explicit in any::<bool>(),
    ) {
        let body = pieces.concat();
        prop_assume!(is_lawful(&body, "tid1") && is_lawful(&body, "tid2"));
        let (mut harness, wires) = session(targets, SessionKind::Session);
        let mut stream = Vec::new();
        let parts: Vec<&[u8]> = if body.is_empty() { vec![&body[..]] } else { body.chunks(chunk).collect() };
        let mut start = 1;
        for (number, part) in parts.iter().enumerate() {
            prop_assume!(is_lawful(part, "tid1") && is_lawful(part, "tid2"));
            let end = if explicit { (start + part.len()).saturating_sub(1).to_string() } else { "*".to_owned() };
            let range = if body.is_empty() { "1-0/0".to_owned() } else { format!("{start}-{end}/{}", body.len()) };
            let flag = if number + 1 == parts.len() { '$' } else { '+' };
            stream.extend(send(0, ["tid1", "tid2"][number % 2], &format!("Message-ID: mid1\r\nByte-Range: {range}\r\n"), part, flag));
            start += part.len();
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.sort_unstable();
        cuts.push(stream.len());
        let (mut at, mut said) = (0, 0);
        for (cut, talk) in cuts.into_iter().zip(talks.into_iter().cycle()) {
            harness.send(wires[0], &stream[at..cut]);
            at = cut;
            if talk {
                said += 1;
                harness.send(wires[1], send(1, &format!("bob{said}"), &format!("Message-ID: bob{said}\r\n"), b"hello", '$'));
            }
        }
        prop_assert_eq!(harness.loans(), 0);
        for target in &wires[1..] {
            prop_assert_eq!(assemble(&harness.read(*target)), vec![("mid1".to_owned(), body.clone(), Continuation::Complete)]);
        }
        harness.wait(super::super::answers::HOLD);
        let answers = harness.read(wires[0]);
        prop_assert_eq!(answers.iter().filter(|read| read.start.starts_with("MSRP tid") && read.start.ends_with(" 200 OK")).count(), parts.len());
        prop_assert_eq!(assemble(&answers).len(), said);
    }
}

#[test]
fn arrivals_of_one_octet_to_eight_mebibytes_relay_the_same_body() {
    let pattern = b"\r\n-------tid1\r\n-------tid1%\r\r\n-------tid\0";
    for (arrival, octets) in [
        (1, 20_000),
        (2, 20_000),
        (7, 20_000),
        (43, 50_000),
        (4096, 200_000),
        (65_536, 3 << 20),
        (1 << 20, 8 << 20),
        (8 << 20, 16 << 20),
    ] {
        let (mut harness, wires) = session(1, SessionKind::Session);
        let body: Vec<u8> = pattern.iter().copied().cycle().take(octets).collect();
        let stream = send(0, "tid1", &format!("Message-ID: mid1\r\nByte-Range: 1-*/{octets}\r\n"), &body, '$');
        for part in stream.chunks(arrival) {
            harness.send(wires[0], part);
        }
        assert!(
            assemble(&harness.read(wires[1])) == [("mid1".to_owned(), body, Continuation::Complete)],
            "arrivals of {arrival}"
        );
        assert_eq!(harness.read(wires[0]).len(), 1);
        assert_eq!(harness.loans(), 0);
    }
}
