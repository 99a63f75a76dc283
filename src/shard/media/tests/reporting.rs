//! RFC 4975 §7.1.3, §7.1.4, §10: what the sender hears of what the target did.

use super::*;

fn sent(harness: &mut Harness, wires: &[Connection], fields: &str) {
    harness.send(wires[0], send(0, "tid1", &format!("Message-ID: mid1\r\nByte-Range: 1-4/4\r\n{fields}"), b"body", '$'));
    harness.read(wires[0]);
    harness.read(wires[1]);
}

#[test]
fn a_success_report_finds_its_way_back() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    sent(&mut harness, &wires, "Success-Report: yes\r\n");
    let told = "Message-ID: mid1\r\nByte-Range: 1-4/4\r\nStatus: 000 200 OK\r\nX-Kept: 1\r\n";
    harness.send(wires[1], report(1, "rep1", told));
    let text = harness.text(wires[0]);
    let tid = text.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(text, format!("MSRP {tid} REPORT\r\nTo-Path: {}\r\nFrom-Path: {}\r\n{told}-------{tid}$\r\n", far(0), own(0)));
    assert_eq!(harness.text(wires[1]), "", "a REPORT is never answered");
}

#[test]
fn a_report_with_a_body_is_passed_on_whole() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    sent(&mut harness, &wires, "Success-Report: yes\r\n");
    harness
        .send(wires[1], report(1, "rep1", "Message-ID: mid1\r\nStatus: 000 200 OK\r\nContent-Type: text/plain\r\n\r\nwhy\r\n"));
    let reads = harness.read(wires[0]);
    assert_eq!((reads[0].body.as_slice(), reads[0].field("Status")), (&b"why"[..], "000 200 OK"));
}

#[test]
fn reports_nobody_asked_for_or_of_unknown_messages_are_ignored() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    sent(&mut harness, &wires, "");
    harness.send(wires[1], report(1, "rep1", "Message-ID: mid1\r\nStatus: 000 200 OK\r\n"));
    harness.send(wires[1], report(1, "rep2", "Message-ID: other\r\nStatus: 000 200 OK\r\n"));
    harness.send(wires[0], report(0, "rep3", "Message-ID: mid1\r\nStatus: 000 200 OK\r\n"));
    assert_eq!((harness.text(wires[0]), harness.text(wires[1])), (String::new(), String::new()));
    assert_eq!(harness.media.counts().of(Cause::StrayReport), 3);
}

#[test]
fn a_refusal_by_the_target_becomes_a_failure_report() {
    for (field, told) in
        [("", true), ("Failure-Report: partial\r\n", true), ("Failure-Report: no\r\nSuccess-Report: yes\r\n", false)]
    {
        for (status, code) in [("403 Forbidden", 403), ("413 Stop", 413), ("415 What", 415), ("400 Bad", 400)] {
            let (mut harness, wires) = session(1, SessionKind::Session);
            sent(&mut harness, &wires, field);
            harness.send(wires[1], response(1, "tid1", status));
            let reads = harness.read(wires[0]);
            assert_eq!(reads.len(), usize::from(told), "{field} {status}");
            if told {
                assert!(reads[0].start.ends_with(" REPORT"));
                assert!(reads[0].field("Status").starts_with(&format!("000 {code} ")));
                assert_eq!((reads[0].field("Message-ID"), reads[0].field("Byte-Range")), ("mid1", "1-4/4"));
                assert_eq!((reads[0].field("To-Path"), reads[0].field("From-Path")), (far(0).as_str(), own(0).as_str()));
            }
        }
    }
}

#[test]
fn silence_for_thirty_seconds_is_408_for_those_who_want_to_know() {
    for (field, told) in [("", true), ("Failure-Report: partial\r\n", false), ("Failure-Report: no\r\n", false)] {
        let (mut harness, wires) = session(1, SessionKind::Session);
        sent(&mut harness, &wires, field);
        harness.wait(Duration::from_secs(29));
        assert_eq!(harness.read(wires[0]).len(), 0);
        harness.wait(Duration::from_secs(2));
        let reads = harness.read(wires[0]);
        assert_eq!(reads.len(), usize::from(told), "{field}");
        assert!(reads.iter().all(|read| read.field("Status") == "000 408 Request Timeout"));
        harness.send(wires[1], response(1, "tid1", "200 OK"));
        assert_eq!(harness.read(wires[0]).len(), 0, "too late");
    }
}

#[test]
fn the_timer_runs_from_the_last_octet_sent() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    harness.wires.get_mut(&wires[1]).unwrap().stalled = true;
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\n", b"body", '$'));
    harness.read(wires[0]);
    harness.wait(Duration::from_secs(20));
    harness.drain(wires[1], usize::MAX);
    harness.wait(Duration::from_secs(29));
    assert_eq!(harness.read(wires[0]).len(), 0);
    harness.wait(Duration::from_secs(2));
    assert_eq!(harness.read(wires[0]).len(), 1);
}

#[test]
fn four_eighty_one_from_the_target_ends_its_leg() {
    for status in ["481 Gone", "506 In use"] {
        let (mut harness, wires) = session(1, SessionKind::Session);
        sent(&mut harness, &wires, "");
        harness.send(wires[1], response(1, "tid1", status));
        assert!(harness.read(wires[0])[0].start.ends_with(" REPORT"));
        assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 1, cause: LegFailure::Unknown }]);
        assert!(harness.wires[&wires[1]].finished);
        harness.send(wires[0], send(0, "tid2", "Message-ID: mid2\r\n", b"x", '$'));
        assert_eq!(harness.read(wires[0])[0].start, "MSRP tid2 408 Request Timeout");
    }
}

#[test]
fn a_target_that_stops_a_message_under_way_gets_an_abort_and_no_more_of_it() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    let whole = send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/9000\r\n", &[b'x'; 9000], '+');
    harness.send(wires[0], &whole[..4000]);
    harness.send(wires[1], response(1, "tid1", "413 Stop"));
    harness.send(wires[0], &whole[4000..]);
    harness.send(wires[0], send(0, "tid2", "Message-ID: mid1\r\nByte-Range: 9001-*/9010\r\n", b"0123456789", '$'));
    let reads = harness.read(wires[1]);
    assert_eq!((reads.len(), reads[0].flag), (1, Continuation::Abort));
    let reads = harness.read(wires[0]);
    assert_eq!(reads[0].field("Status"), "000 413 Message Too Large");
    assert_eq!(reads[1].start, "MSRP tid1 413 Message Too Large");
    assert_eq!(reads[2].start, "MSRP tid2 413 Message Too Large");
    harness.send(wires[0], send(0, "tid3", "Message-ID: mid3\r\n", b"next", '$'));
    assert_eq!(harness.read(wires[1])[0].body, b"next", "the next message is welcome");
}

#[test]
fn a_target_lost_under_way_is_reported_and_the_rest_is_read_and_dropped() {
    let (mut harness, wires) = session(1, SessionKind::Session);
    sent(&mut harness, &wires, "");
    let whole = send(0, "tid2", "Message-ID: mid2\r\nByte-Range: 1-*/9000\r\n", &[b'x'; 9000], '$');
    harness.send(wires[0], &whole[..4000]);
    harness.gone(wires[1], Gone::Broken);
    let reads = harness.read(wires[0]);
    assert_eq!((reads[0].field("Message-ID"), reads[0].field("Status")), ("mid1", "000 408 Request Timeout"));
    harness.send(wires[0], &whole[4000..]);
    assert_eq!(harness.read(wires[0])[0].start, "MSRP tid2 408 Request Timeout");
    assert_eq!(harness.take_reports(), [Report::LegFailed { session: KEY, leg: 1, cause: LegFailure::Closed }]);
}

#[test]
fn a_large_message_is_told_delivered_when_every_chunk_is_acknowledged() {
    let (mut harness, wires) = session(1, SessionKind::LargeMessage);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nByte-Range: 1-*/8\r\n", b"abcd", '+'));
    harness.send(wires[0], send(0, "tid2", "Message-ID: mid1\r\nByte-Range: 5-8/8\r\n", b"efgh", '$'));
    harness.send(wires[1], response(1, "tid2", "200 OK"));
    assert_eq!(harness.take_reports(), []);
    harness.send(wires[1], response(1, "tid1", "200 OK"));
    assert_eq!(harness.take_reports(), [Report::Delivered { session: KEY, leg: 1, message_id: "mid1".into(), octets: 8 }]);

    let (mut harness, wires) = session(1, SessionKind::LargeMessage);
    harness.send(wires[0], send(0, "tid1", "Message-ID: mid1\r\nFailure-Report: no\r\n", b"abcd", '$'));
    assert_eq!(harness.take_reports(), [Report::Delivered { session: KEY, leg: 1, message_id: "mid1".into(), octets: 4 }]);
}
