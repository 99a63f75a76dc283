//! Limits on the wire: 503 with Retry-After, 486 for one user's too many sessions, draining, records of refusals.

use super::world::*;
use crate::base::clock::Duration;
use crate::limits::SHED_LINES_MAX;
use crate::sip::header::name::Name;

fn session(number: u32) -> String {
    let text = invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\n"));
    text.replace("call-1", &format!("call-{number}")).replace("z9hG4bKinvite", &format!("z9hG4bKinvite{number}"))
}

#[test]
fn a_full_queue_turns_new_calls_away_and_an_empty_one_takes_them() {
    let mut world = World::new(config());
    world.core.queue_delay(world.now, Duration::from_millis(401));
    world.receives(ALICE, &session(1));
    world.expect(ALICE, "SIP/2.0 100");
    let shed = world.expect(ALICE, "SIP/2.0 503 Service Unavailable");
    assert!(shed.header(Name::RetryAfter).parse::<u32>().is_ok());
    assert_eq!((world.records.len(), world.records[0].status), (1, 503));
    world.core.queue_delay(world.now, Duration::from_millis(5));
    let invite = world.relays(&session(2));
    world.answers(&invite, "486 Busy Here", "", "");
    world.rests();
}

#[test]
fn a_user_with_too_many_sessions_is_busy() {
    let mut config = config();
    config.limits.sessions_per_originator = 1;
    let mut world = World::new(config);
    let invite = world.relays(&session(1));
    world.receives(ALICE, &session(2));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 486");
    world.answers(&invite, "404 Not Found", "", "");
    world.expect(CORE, "ACK");
    world.expect(ALICE, "SIP/2.0 404");
    let invite = world.relays(&session(3));
    world.answers(&invite, "404 Not Found", "", "");
    world.rests();
}

#[test]
fn draining_takes_no_new_call_and_lets_the_running_ones_go_on() {
    let mut world = World::new(config());
    let invite = world.relays(&session(1));
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", fields, &offer("bobs", "a=setup:passive\r\n"));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK");
    world.core.drain();
    world.receives(ALICE, &session(2));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 503");
    assert_eq!(world.core.sessions(10).len(), 1);
    world.core.stop(world.now, &mut world.out);
    world.collect();
    world.expect(ALICE, "BYE");
    world.expect(BOB, "BYE");
    world.rests();
}

#[test]
fn a_refusal_leaves_a_record_with_its_clause() {
    let mut world = World::new(config());
    world.receives(ALICE, &session(1).replace("sip:alice@example.net>\r\nAccept", "sip:eve@evil.org>\r\nAccept"));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 403");
    assert_eq!((world.records[0].status, world.records[0].cause, world.records[0].case), (403, "OSI-1.b", "originating"));
    assert_eq!(world.core.counts().rejections.get(&("OSI-1.b", 403)), Some(&1));
    world.rests();
}

#[test]
fn a_flood_is_turned_away_in_passing() {
    let mut world = World::new(config());
    world.relays(&session(0));
    world.core.queue_delay(world.now, Duration::from_millis(401));
    (1..=SHED_LINES_MAX).for_each(|number| world.receives(ALICE, &session(number)));
    assert_eq!(world.records.len(), SHED_LINES_MAX as usize, "each has its line");
    world.sent.clear();

    // The next has no 100 and no transaction; a resend gets the same answer, its ACK none.
    let further = session(SHED_LINES_MAX + 1);
    world.receives(ALICE, &further);
    let shed = world.expect(ALICE, "SIP/2.0 503 Service Unavailable");
    assert!(shed.header(Name::To).contains(";tag=turned-away_"), "{}", shed.text);
    assert!(shed.header(Name::RetryAfter).parse::<u32>().is_ok());
    world.receives(ALICE, &further);
    assert_eq!(world.expect(ALICE, "SIP/2.0 503").header(Name::To), shed.header(Name::To));
    let head = further.split("\r\n\r\n").next().unwrap_or_default().replace("INVITE", "ACK");
    let to = further.lines().find(|line| line.starts_with("To:")).expect("it has one");
    world.receives(ALICE, &(head.replace(to, &format!("To: {}", shed.header(Name::To))) + "\r\n\r\n"));
    world.expect_nothing();
    assert_eq!(world.records.len(), SHED_LINES_MAX as usize + 2);
    let record = world.records.last().expect("it was just refused");
    assert_eq!((record.status, record.cause, record.case), (503, "limits.overload_queue_delay", "originating"));
    assert_eq!((record.originator.as_str(), record.service), ("sip:alice@example.net", "session"));

    // What is being served is none of the flood, nor is what belongs to a dialog.
    world.receives(ALICE, &session(0));
    world.expect(ALICE, "SIP/2.0 100");
    world.receives(ALICE, &further.replace("z9hG4bK", "z9hG4bKd").replace(to, &format!("{to};tag=of-a-dialog")));
    world.expect(ALICE, "SIP/2.0 100");
    assert!(world.sent.iter().all(|sent| !sent.line().contains("503")));

    // The next second has lines again.
    world.passes(Duration::from_secs(1));
    world.sent.clear();
    let lines = world.records.len();
    world.core.queue_delay(world.now, Duration::from_millis(401));
    world.receives(ALICE, &session(SHED_LINES_MAX + 2));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 503");
    assert_eq!(world.records.len(), lines + 1);
}
