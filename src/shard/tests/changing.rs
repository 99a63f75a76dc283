//! RFC 3261 §9, §12.2.2, §14, §15 within a session that stands: who may move what, and what crosses on the wire.

use super::world::*;
use crate::shard::exchange::{Command, MediaKey};
use crate::sip::header::name::Name;

const OF_ALICE: &str = "Contact: <sip:alice@127.0.0.1:5099>\r\nContent-Type: application/sdp\r\n";
const OF_BOB: &str = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";

fn bobs() -> String {
    offer("bobs", "a=setup:passive\r\na=msrp-cema\r\n")
}

fn moved() -> String {
    offer("alices2", "a=setup:active\r\na=msrp-cema\r\n")
}

fn session() -> String {
    invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\na=msrp-cema\r\n"))
}

/// A session that stands: the INVITE that Bob got, the 200 that Alice got.
fn standing() -> (World, Sent, Sent) {
    let mut world = World::new(config());
    let (invite, ok) = world.stands(&session(), OF_BOB, &bobs());
    (world, invite, ok)
}

#[test]
fn a_change_that_is_refused_leaves_the_remote_target() {
    let (mut world, _, ok) = standing();
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, OF_ALICE, &moved()));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    world.answers(&change, "488 Not Acceptable Here", "", "");
    world.expect(BOB, "ACK");
    world.expect(ALICE, "SIP/2.0 488");
    world.receives(ALICE, &in_dialog("ACK", 2, &ok, "", "").replace("z9hG4bKACK2", "z9hG4bKINVITE2"));
    world.core.stop(world.now, &mut world.out);
    world.collect();
    assert!(world.expect(ALICE, "BYE sip:alice@127.0.0.1:5080 SIP/2.0").header(Name::To).contains("alice"));
    world.rests();
}

#[test]
fn a_change_that_is_accepted_moves_the_remote_target() {
    let (mut world, _, ok) = standing();
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, OF_ALICE, &moved()));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    world.answers(&change, "200 OK", &OF_BOB.replace("5081", "5098"), &bobs());
    // The ACK goes to where the 2xx says.
    world.expect("127.0.0.1:5098", "ACK sip:bob@127.0.0.1:5098 SIP/2.0");
    let changed = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 2, &changed, "", ""));
    world.core.stop(world.now, &mut world.out);
    world.collect();
    world.expect("127.0.0.1:5099", "BYE sip:alice@127.0.0.1:5099 SIP/2.0");
    world.expect("127.0.0.1:5098", "BYE sip:bob@127.0.0.1:5098 SIP/2.0");
    world.rests();
}

#[test]
fn byes_that_cross_are_both_answered_200() {
    let (mut world, invite, ok) = standing();
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    let bye = world.expect(BOB, "BYE");
    // Not another dialog's, and nothing but a BYE.
    let foreign = from_target("BYE", 1, &invite, "", "").replace("tag=peer", "tag=other").replace("z9hG4bK", "z9hG4bKx");
    world.receives(BOB, &foreign);
    world.expect(BOB, "SIP/2.0 481");
    world.receives(BOB, &from_target("INFO", 1, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 481");
    world.receives(BOB, &from_target("BYE", 2, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    world.answers(&bye, "200 OK", "", "");
    // Nothing is under way any more.
    world.receives(BOB, &from_target("BYE", 3, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 481");
    world.expect_nothing();
    world.rests();
}

/// Alice's re-INVITE is with Bob, and she cancels it: the re-INVITE that Bob got.
fn cancelled(world: &mut World, ok: &Sent) -> Sent {
    let change = in_dialog("INVITE", 2, ok, OF_ALICE, &moved());
    world.receives(ALICE, &change);
    world.expect(ALICE, "SIP/2.0 100");
    let theirs = world.expect(BOB, "INVITE");
    world.answers(&theirs, "100 Trying", "", "");
    let cancel = in_dialog("CANCEL", 2, ok, "Reason: SIP;cause=200\r\n", "").replace("z9hG4bKCANCEL2", "z9hG4bKINVITE2");
    world.receives(ALICE, &cancel);
    assert!(world.expect(ALICE, "SIP/2.0 200").header(Name::CSeq).ends_with("CANCEL"));
    let passed = world.expect(BOB, "CANCEL");
    assert_eq!(passed.header(Name::Reason), "SIP;cause=200");
    assert_eq!(passed.header(Name::Via), theirs.header(Name::Via));
    world.answers(&passed, "200 OK", "", "");
    world.expect_nothing();
    theirs
}

#[test]
fn a_change_that_is_cancelled_is_cancelled_on_the_other_leg() {
    let (mut world, _, ok) = standing();
    let theirs = cancelled(&mut world, &ok);
    world.answers(&theirs, "487 Request Terminated", "", "");
    world.expect(BOB, "ACK");
    world.expect(ALICE, "SIP/2.0 487");
    world.receives(ALICE, &in_dialog("ACK", 2, &ok, "", "").replace("z9hG4bKACK2", "z9hG4bKINVITE2"));
    // The session goes on, and another change is served.
    world.receives(ALICE, &in_dialog("INVITE", 3, &ok, OF_ALICE, &moved()));
    world.expect(ALICE, "SIP/2.0 100");
    let again = world.expect(BOB, "INVITE");
    world.answers(&again, "200 OK", OF_BOB, &bobs());
    world.expect(BOB, "ACK");
    let changed = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 3, &changed, "", ""));
    world.receives(ALICE, &in_dialog("BYE", 4, &ok, "", ""));
    world.rests();
}

#[test]
fn an_answer_that_crosses_the_cancel_counts_on_both_legs() {
    let (mut world, _, ok) = standing();
    let theirs = cancelled(&mut world, &ok);
    world.answers(&theirs, "200 OK", OF_BOB, &bobs());
    world.expect(BOB, "ACK");
    let changed = world.expect(ALICE, "SIP/2.0 200");
    assert!(changed.header(Name::CSeq).ends_with("2 INVITE"));
    world.receives(ALICE, &in_dialog("ACK", 2, &changed, "", ""));
    world.receives(ALICE, &in_dialog("BYE", 3, &ok, "", ""));
    world.rests();
}

/// A second line of a session's offer or answer.
fn further(id: &str, port: u16, setup: &str) -> String {
    format!(
        "m=message {port} TCP/MSRP *\r\na=accept-types:text/plain\r\na=path:msrp://127.0.0.1:9/{id};tcp\r\na=setup:{setup}\r\na=msrp-cema\r\n"
    )
}

fn paths(sent: &Sent) -> Vec<String> {
    sent.body().lines().filter_map(|line| line.strip_prefix("a=path:")).map(str::to_string).collect()
}

fn opened(world: &World) -> usize {
    world.commands.iter().filter(|command| matches!(command, Command::Open(_))).count()
}

fn closed(world: &World) -> Vec<MediaKey> {
    let closed = |command: &Command| if let Command::Close { session, .. } = command { Some(*session) } else { None };
    world.commands.iter().filter_map(closed).collect()
}

#[test]
fn a_further_stream_is_asked_for_on_the_other_leg_and_taken_out_again() {
    let (mut world, invite, ok) = standing();
    let two = moved() + &further("alices3", 9, "active");
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, OF_ALICE, &two));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    let asked = paths(&change);
    assert_eq!((asked.len(), opened(&world)), (2, 2));
    assert_eq!(asked[..1], paths(&invite)[..]);
    world.answers(&change, "200 OK", OF_BOB, &(bobs() + &further("bobs2", 9, "passive")));
    world.expect(BOB, "ACK");
    let changed = world.expect(ALICE, "SIP/2.0 200");
    let answered = paths(&changed);
    assert_eq!((answered.len(), &answered[..1]), (2, &paths(&ok)[..]));
    assert!(answered[1] != answered[0] && !asked.contains(&answered[1]), "{answered:?}");
    let further_key = world.media_key();
    let bound = |command: &&Command| matches!(command, Command::Bind { session, .. } if *session == further_key);
    assert_eq!(world.commands.iter().filter(bound).count(), 2, "each side of the further stream has its peer");
    world.receives(ALICE, &in_dialog("ACK", 2, &changed, "", ""));
    // Bob takes the first stream out: the further one keeps its paths, and the session goes on.
    let one = offer("bobs", "a=setup:passive\r\n").replace("m=message 9", "m=message 0") + &further("bobs2", 9, "passive");
    world.receives(BOB, &from_target("UPDATE", 1, &invite, OF_BOB, &one));
    let passed = world.expect("127.0.0.1:5099", "INVITE");
    assert_eq!((passed.sdp("m=message 0").is_some(), paths(&passed)), (true, answered[1..].to_vec()));
    let one = moved().replace("m=message 9", "m=message 0") + &further("alices3", 9, "active");
    world.answers(&passed, "200 OK", OF_ALICE, &one);
    world.expect("127.0.0.1:5099", "ACK");
    let done = world.expect(BOB, "SIP/2.0 200");
    assert_eq!(paths(&done), asked[1..]);
    assert_eq!(closed(&world).len(), 1);
    assert!(!closed(&world).contains(&further_key));
    world.expect_nothing();
    world.receives(ALICE, &in_dialog("BYE", 3, &ok, "", ""));
    world.rests();
}

#[test]
fn a_further_stream_that_is_not_taken_leaves_nothing() {
    let (mut world, _, ok) = standing();
    let two = moved() + &further("alices3", 9, "active");
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, OF_ALICE, &two));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    world.answers(&change, "488 Not Acceptable Here", "", "");
    world.expect(BOB, "ACK");
    world.expect(ALICE, "SIP/2.0 488");
    assert_eq!(closed(&world), [world.media_key()]);
    world.receives(ALICE, &in_dialog("ACK", 2, &ok, "", "").replace("z9hG4bKACK2", "z9hG4bKINVITE2"));
    // Rejected by its line alone.
    world.receives(ALICE, &in_dialog("INVITE", 3, &ok, OF_ALICE, &two));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    world.answers(&change, "200 OK", OF_BOB, &(bobs() + &further("bobs2", 0, "passive")));
    world.expect(BOB, "ACK");
    let changed = world.expect(ALICE, "SIP/2.0 200");
    assert_eq!((paths(&changed), changed.sdp("m=message 0").is_some()), (paths(&ok), true));
    assert_eq!((opened(&world), closed(&world).len()), (3, 2));
    world.receives(ALICE, &in_dialog("ACK", 3, &changed, "", ""));
    // What the operator does not allow is refused whole, and asked of nobody.
    world.receives(ALICE, &in_dialog("INVITE", 4, &ok, OF_ALICE, &(moved() + "m=audio 9 RTP/AVP 0\r\n")));
    world.expect(ALICE, "SIP/2.0 100");
    assert!(world.expect(ALICE, "SIP/2.0 488").header(Name::Warning).starts_with("304"));
    world.expect_nothing();
    world.receives(ALICE, &in_dialog("BYE", 5, &ok, "", ""));
    world.rests();
}

#[test]
fn a_change_keeps_the_session_timer_of_the_other_leg() {
    let mut world = World::new(config());
    let (_, ok) = world.stands(&session(), &format!("{OF_BOB}Session-Expires: 900;refresher=uas\r\n"), &bobs());
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, OF_ALICE, &moved()));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    assert_eq!(change.header(Name::SessionExpires), "900;refresher=uas");
    // What he says of it is for us.
    world.answers(&change, "422 Session Interval Too Small", "Min-SE: 1000\r\n", "");
    world.expect(BOB, "ACK");
    world.expect(ALICE, "SIP/2.0 500");
    world.receives(ALICE, &in_dialog("ACK", 2, &ok, "", "").replace("z9hG4bKACK2", "z9hG4bKINVITE2"));
    // RFC 4028 §7.4: it is obeyed from here on.
    world.receives(ALICE, &in_dialog("INVITE", 3, &ok, OF_ALICE, &moved()));
    world.expect(ALICE, "SIP/2.0 100");
    let again = world.expect(BOB, "INVITE");
    assert_eq!((again.header(Name::SessionExpires), again.header(Name::MinSe)), ("1000;refresher=uas".into(), "1000".into()));
    world.answers(&again, "488 Not Acceptable Here", "", "");
    world.receives(ALICE, &in_dialog("BYE", 4, &ok, "", ""));
    world.rests();
}

/// Alice asks by a re-INVITE without offer, and answers what we have with this: her 200.
fn asks(world: &mut World, ok: &Sent, cseq: u32, answer: &str) -> Sent {
    world.receives(ALICE, &in_dialog("INVITE", cseq, ok, &format!("Contact: <sip:alice@{ALICE}>\r\n"), ""));
    world.expect(ALICE, "SIP/2.0 100");
    let offered = world.expect(ALICE, "SIP/2.0 200");
    assert!(offered.sdp("m=message 2855").is_some(), "{}", offered.text);
    world.receives(ALICE, &in_dialog("ACK", cseq, &offered, "Content-Type: application/sdp\r\n", answer));
    offered
}

/// What Alice's answer says when she takes less than before.
fn less() -> String {
    moved().replace("a=accept-types:message/cpim", "a=accept-types:text/plain")
}

#[test]
fn what_the_answer_in_an_ack_changes_goes_to_the_other_leg() {
    let (mut world, _, ok) = standing();
    let first = asks(&mut world, &ok, 2, &offer("alices", "a=setup:active\r\na=msrp-cema\r\n"));
    // As before, or moved on her side alone: that was all.
    assert_eq!(asks(&mut world, &ok, 3, &moved()).body(), first.body());
    world.expect_nothing();
    asks(&mut world, &ok, 4, &less());
    let change = world.expect(BOB, "INVITE");
    assert_eq!(change.sdp("a=accept-types"), Some("a=accept-types:text/plain"), "{}", change.text);
    assert_eq!(change.sdp("a=setup"), Some("a=setup:actpass"));
    world.answers(&change, "200 OK", OF_BOB, &bobs().replace("message/cpim", "text/plain"));
    world.expect(BOB, "ACK");
    world.expect_nothing();
    // She takes nothing any more.
    asks(&mut world, &ok, 5, &less().replace("m=message 9", "m=message 0"));
    world.expect(ALICE, "BYE");
    world.expect(BOB, "BYE");
    world.rests();
}

#[test]
fn nobody_changes_the_other_leg_while_an_answer_is_awaited() {
    let (mut world, invite, ok) = standing();
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, &format!("Contact: <sip:alice@{ALICE}>\r\n"), ""));
    world.expect(ALICE, "SIP/2.0 100");
    let offered = world.expect(ALICE, "SIP/2.0 200");
    let theirs = |cseq| from_target("INVITE", cseq, &invite, OF_BOB, &bobs().replace("bobs", "bobs2"));
    world.receives(BOB, &theirs(1));
    world.expect(BOB, "SIP/2.0 100");
    world.expect(BOB, "SIP/2.0 491");
    world.receives(ALICE, &in_dialog("ACK", 2, &offered, "Content-Type: application/sdp\r\n", &less()));
    // Ours meets one of Bob's that is on its way: it comes again (§14.1).
    let change = world.expect(BOB, "INVITE");
    world.answers(&change, "491 Request Pending", "", "");
    world.expect(BOB, "ACK");
    // 2.1 to 4 s, in steps that no resend of it fits into.
    for _ in 0..41 {
        world.passes(std::time::Duration::from_millis(100));
        world.sent.retain(|sent| sent.text.starts_with("INVITE"));
        if !world.sent.is_empty() {
            break;
        }
    }
    let again = world.expect(BOB, "INVITE");
    assert_eq!(again.sdp("a=accept-types"), change.sdp("a=accept-types"));
    world.answers(&again, "200 OK", OF_BOB, &bobs());
    world.expect(BOB, "ACK");
    // While one of ours is under way, the offerless has to wait too.
    world.receives(ALICE, &in_dialog("INVITE", 3, &ok, OF_ALICE, &moved()));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(BOB, "INVITE");
    world.receives(BOB, &from_target("INVITE", 2, &invite, &OF_BOB.replace("Content-Type: application/sdp\r\n", ""), ""));
    world.expect(BOB, "SIP/2.0 100");
    world.expect(BOB, "SIP/2.0 491");
    world.receives(ALICE, &in_dialog("BYE", 4, &ok, "", ""));
    world.rests();
}

#[test]
fn a_refused_change_is_forgotten_on_both_legs() {
    let (mut world, invite, ok) = standing();
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, OF_ALICE, &less()));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    world.answers(&change, "488 Not Acceptable Here", "", "");
    world.expect(BOB, "ACK");
    world.expect(ALICE, "SIP/2.0 488");
    // Bob refreshes with what he said: he hears what stood, and in a role, since it is an answer now.
    world.sent.clear();
    world.receives(BOB, &from_target("INVITE", 1, &invite, OF_BOB, &bobs()));
    world.expect(BOB, "SIP/2.0 100");
    let answer = world.expect(BOB, "SIP/2.0 200");
    assert_eq!((answer.sdp("a=accept-types"), answer.sdp("a=setup")), (invite.sdp("a=accept-types"), Some("a=setup:active")));
    let version = |sent: &Sent| sent.sdp("o=").and_then(|line| line.split(' ').nth(2)?.parse::<u32>().ok());
    assert!(version(&answer) > version(&change), "{}", answer.text);
    world.receives(BOB, &from_target("ACK", 1, &invite, "", ""));
    // The same once more is the same once more.
    world.receives(BOB, &from_target("INVITE", 2, &invite, OF_BOB, &bobs()));
    world.expect(BOB, "SIP/2.0 100");
    assert_eq!(world.expect(BOB, "SIP/2.0 200").body(), answer.body());
    world.receives(BOB, &from_target("ACK", 2, &invite, "", ""));
    world.receives(ALICE, &in_dialog("BYE", 3, &ok, "", ""));
    world.rests();
}

#[test]
fn what_a_change_requires_and_brings_has_to_be_understood() {
    let (mut world, _, ok) = standing();
    let foreign = "Contact: <sip:alice@127.0.0.1:5080>\r\nContent-Type: text/plain\r\n";
    let cases = [
        (format!("{OF_ALICE}Require: timer, foo\r\n"), 420, Name::Unsupported, "foo"),
        (foreign.to_string(), 415, Name::Accept, "application/sdp, multipart/mixed"),
        (format!("{OF_ALICE}Content-Encoding: gzip\r\n"), 415, Name::AcceptEncoding, "identity"),
    ];
    for (cseq, (fields, status, name, told)) in (2..).zip(cases) {
        world.receives(ALICE, &in_dialog("INVITE", cseq, &ok, &fields, &moved()));
        world.expect(ALICE, "SIP/2.0 100");
        assert_eq!(world.expect(ALICE, &format!("SIP/2.0 {status}")).header(name), told);
        world.expect_nothing();
    }
    // An INVITE as well.
    let mut world = World::new(config());
    world.receives(ALICE, &session().replace("Content-Type: application/sdp", "Content-Type: text/plain"));
    world.expect(ALICE, "SIP/2.0 100");
    assert_eq!(world.expect(ALICE, "SIP/2.0 415").header(Name::Accept), "application/sdp, multipart/mixed");
    world.rests();
}
