//! 8.2.1.2 (OLM) and 8.2.2.1 (OSI) on the wire.

use super::world::*;
use crate::base::clock::Duration;
use crate::sip::header::name::Name;

const ANSWER: &str =
    "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\nSession-Expires: 1700;refresher=uac\r\n";

fn bobs() -> String {
    offer("bobs", "a=sendrecv\r\na=setup:passive\r\n")
}

fn large() -> String {
    let sdp = offer("alices", "a=sendonly\r\na=file-selector:size:4092\r\na=setup:active\r\na=msrp-cema\r\n");
    let pps = "P-Preferred-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg\r\nSession-Expires: 1800\r\n";
    invite("sip:bob@other.net", "orig", LARGE, pps, &sdp)
}

fn session() -> String {
    invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\na=msrp-cema\r\n"))
}

#[test]
fn a_large_message_leaves_with_what_the_clauses_ask_for() {
    let mut world = World::new(config());
    world.receives(ALICE, &large());
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect(CORE, "INVITE sip:bob@other.net SIP/2.0");
    assert_eq!(invite.headers(Name::PAssertedService), ["urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg"]);
    assert!(invite.headers(Name::PPreferredService).is_empty() && invite.headers(Name::MinSe).is_empty());
    assert!(invite.header(Name::SessionExpires).ends_with(";refresher=uac"), "{}", invite.text);
    assert_eq!(invite.headers(Name::AcceptContact), [LARGE]);
    assert!(invite.headers(Name::RecordRoute).is_empty(), "{}", invite.text);
    for line in ["a=sendonly", "a=setup:actpass", "a=msrp-cema", "a=file-selector:size:4092", "m=message 2855 TCP/MSRP *"] {
        assert!(invite.sdp(line).is_some(), "{line}: {}", invite.text);
    }
    world.answers(&invite, "200 OK", ANSWER, &bobs());
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.expect(BOB, "ACK");
    for line in ["a=recvonly", "a=setup:passive", "a=msrp-cema"] {
        assert!(ok.sdp(line).is_some(), "{line}: {}", ok.text);
    }
    assert!(ok.header(Name::Server).starts_with("CPM-serv/OMA2.2"));
    assert!(ok.header(Name::Contact).contains("@127.0.0.1:5060"));
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    // The far side ends.
    world.receives(BOB, &from_target("BYE", 1, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    let bye = world.expect(ALICE, "BYE sip:alice@127.0.0.1:5080");
    world.answers(&bye, "200 OK", "", "");
    assert_eq!(world.records[0].cause, "bye-target");
    world.rests();
}

#[test]
fn a_sessions_ack_waits_for_the_origins() {
    let mut world = World::new(config());
    world.receives(ALICE, &session());
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect(CORE, "INVITE sip:bob@other.net");
    // OSI-4.h copies the Contact, so we stay in the route set.
    assert_eq!(invite.header(Name::Contact), format!("<sip:alice@{ALICE}>;+sip.instance=\"<urn:uuid:a>\""));
    assert_eq!(invite.headers(Name::RecordRoute).len(), 1);
    world.answers(&invite, "200 OK", ANSWER, &bobs());
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.expect_nothing();
    // A resend of the 2xx meanwhile is absorbed.
    world.answers(&invite, "200 OK", ANSWER, &bobs());
    world.expect_nothing();
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK sip:bob@127.0.0.1:5081");
    // And after that it is answered with the same ACK.
    world.answers(&invite, "200 OK", ANSWER, &bobs());
    world.expect(BOB, "ACK");

    // Bob's BYE is addressed to Alice's Contact and comes through our Record-Route.
    let bye = from_target("BYE", 1, &invite, "", "");
    assert!(bye.starts_with(&format!("BYE sip:alice@{ALICE}")) && bye.contains("Route: <sip:00."), "{bye}");
    world.receives(BOB, &bye);
    world.expect(BOB, "SIP/2.0 200");
    let bye = world.expect(ALICE, "BYE sip:alice@127.0.0.1:5080");
    world.answers(&bye, "200 OK", "", "");
    world.rests();
}

#[test]
fn without_the_origins_ack_both_sides_are_ended() {
    let mut world = World::new(config());
    let invite = world.relays(&session());
    world.answers(&invite, "200 OK", ANSWER, &bobs());
    world.passes(Duration::from_secs(33));
    let to_bob: Vec<_> =
        world.sent.iter().filter(|sent| sent.to.to_string() == BOB).map(|sent| sent.line()[..3].to_string()).collect();
    assert_eq!(to_bob[..2], ["ACK", "BYE"], "the ACK comes before the BYE");
    world.rests();
}

#[test]
fn an_ack_that_comes_when_media_is_long_closed_ends_the_session() {
    let mut world = World::new(config());
    let (invite, ok) = world.agrees(&session(), ANSWER, &bobs());
    // Bob is gone before Alice's ACK arrives, and media closes meanwhile (RFC 3261 §15: our BYE waits for the ACK).
    world.receives(BOB, &from_target("BYE", 1, &invite, "", ""));
    world.passes(Duration::from_secs(20));
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.rests();
    assert_eq!(world.records.len(), 1);
}

#[test]
fn a_focus_keeps_its_contact_and_we_stay_in_the_path() {
    let mut world = World::new(config());
    let invite = world.relays(&session());
    let focus = "Contact: <sip:focus-7@127.0.0.1:5081;x=Y>;isfocus;+a=\"B\"\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", focus, &bobs());
    let ok = world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(ok.header(Name::Contact), "<sip:focus-7@127.0.0.1:5081;x=Y>;isfocus;+a=\"B\"");
    assert!(ok.headers(Name::RecordRoute)[0].starts_with("<sip:00."), "{}", ok.text);
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK sip:focus-7@127.0.0.1:5081;x=Y");
    let bye = in_dialog("BYE", 2, &ok, "", "");
    assert!(bye.starts_with("BYE sip:focus-7@127.0.0.1:5081;x=Y"), "{bye}");
    world.receives(ALICE, &bye);
    world.expect(ALICE, "SIP/2.0 200");
    world.expect(BOB, "BYE sip:focus-7@127.0.0.1:5081;x=Y");
    world.rests();
}

#[test]
fn a_refusal_says_why() {
    let mut world = World::new(config());
    world.receives(
        ALICE,
        &large().replace("P-Asserted-Identity: <sip:alice@example.net>", "P-Asserted-Identity: <sip:eve@evil.org>"),
    );
    world.expect(ALICE, "SIP/2.0 100");
    let refused = world.expect(ALICE, "SIP/2.0 403 Forbidden");
    assert_eq!(refused.header(Name::Warning), "399 127.0.0.1 \"127 Service not authorised\"");
    assert!(refused.header(Name::To).contains(";tag=00."));
    assert!(world.commands.is_empty());
    world.rests();
}

#[test]
fn a_targets_failure_goes_to_the_origin() {
    let mut world = World::new(config());
    let invite = world.relays(&session());
    world.answers(&invite, "486 Too busy to chat", "Retry-After: 60\r\nWarning: 399 x \"busy\"\r\n", "");
    world.expect(CORE, "ACK");
    let busy = world.expect(ALICE, "SIP/2.0 486 Too busy to chat");
    assert_eq!((busy.header(Name::RetryAfter), busy.header(Name::Warning)), ("60".into(), "399 x \"busy\"".into()));
    world.rests();
}

#[test]
fn a_target_that_moved_tells_where() {
    for (status, told) in [("302 Moved Temporarily", true), ("404 Not Found", false)] {
        let mut world = World::new(config());
        let invite = world.relays(&session());
        world.answers(&invite, status, "Contact: <sip:bob@elsewhere.example>;expires=60\r\n", "");
        world.expect(CORE, "ACK");
        let moved = world.expect(ALICE, &format!("SIP/2.0 {status}"));
        assert_eq!(moved.headers(Name::Contact), ["<sip:bob@elsewhere.example>;expires=60"][..usize::from(told)], "{status}");
        world.rests();
    }
}

#[test]
fn a_target_that_wants_a_longer_interval_is_asked_again() {
    let mut world = World::new(config());
    let first = world.relays(&session());
    world.answers(&first, "422 Session Interval Too Small", "Min-SE: 1800\r\n", "");
    world.expect(CORE, "ACK");
    let again = world.expect(CORE, "INVITE");
    assert_eq!(again.header(Name::CallId), first.header(Name::CallId));
    assert_eq!((again.header(Name::CSeq), again.header(Name::MinSe)), ("2 INVITE".into(), "1800".into()));
    assert_eq!(again.header(Name::SessionExpires), "1800;refresher=uac");
    world.answers(&again, "200 OK", ANSWER, &bobs());
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let ack = world.expect(BOB, "ACK");
    assert_eq!(ack.header(Name::CSeq), "2 ACK");
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.rests();
}

#[test]
fn a_refresh_carries_the_longest_interval_that_its_dialog_asked_for() {
    let mut world = World::new(config());
    // Alice refreshes nothing herself, and proxies before us want 200 seconds at least.
    let timers = "Supported: timer\r\nSession-Expires: 900;refresher=uas\r\nMin-SE: 200\r\n";
    let (_, ok) = world.stands(&session().replace("Supported: timer\r\n", timers), ANSWER, &bobs());
    assert_eq!(ok.header(Name::SessionExpires), "900;refresher=uas");
    world.passes(Duration::from_secs(450));
    let refresh = world.expect("127.0.0.1:5080", "INVITE sip:alice@");
    assert_eq!((refresh.header(Name::SessionExpires), refresh.header(Name::MinSe)), ("900;refresher=uac".into(), "200".into()));
    world.answers(&refresh, "422 Session Interval Too Small", "Min-SE: 1000\r\n", "");
    world.expect("127.0.0.1:5080", "ACK");
    world.passes(Duration::from_millis(1));
    let longer = world.expect("127.0.0.1:5080", "INVITE sip:alice@");
    assert_eq!((longer.header(Name::SessionExpires), longer.header(Name::MinSe)), ("1000;refresher=uac".into(), "1000".into()));
    world.answers(&longer, "200 OK", "Contact: <sip:alice@127.0.0.1:5080>\r\nSession-Expires: 1000;refresher=uac\r\n", "");
    world.expect("127.0.0.1:5080", "ACK");
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.rests();
}

#[test]
fn proxies_on_the_way_to_a_target_may_ask_for_more_one_after_the_other() {
    let mut world = World::new(config());
    let mut invite = world.relays(&session());
    for (number, min_se) in [(2, 200), (3, 400)] {
        world.answers(&invite, "422 Session Interval Too Small", &format!("Min-SE: {min_se}\r\n"), "");
        world.expect(CORE, "ACK");
        invite = world.expect(CORE, "INVITE");
        assert_eq!((invite.header(Name::CSeq), invite.header(Name::MinSe)), (format!("{number} INVITE"), min_se.to_string()));
    }
    // It has what it asked for.
    world.answers(&invite, "422 Session Interval Too Small", "Min-SE: 400\r\n", "");
    world.expect(CORE, "ACK");
    world.expect(ALICE, "SIP/2.0 480");
    world.rests();
}

#[test]
fn a_session_is_refreshed_and_one_that_nobody_refreshes_ends() {
    let mut world = World::new(config());
    world.receives(
        ALICE,
        &session().replace("Supported: timer\r\n", "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n"),
    );
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect(CORE, "INVITE");
    world.answers(&invite, "200 OK", &ANSWER.replace("1700", "700"), &bobs());
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect(BOB, "ACK");
    world.passes(Duration::from_secs(350));
    let refresh = world.expect(BOB, "INVITE sip:bob@127.0.0.1:5081");
    assert_eq!(refresh.body(), invite.body());
    assert_eq!(refresh.header(Name::CSeq), "2 INVITE");
    world.answers(&refresh, "200 OK", &ANSWER.replace("1700", "4000"), &bobs());
    let ack = world.expect(BOB, "ACK");
    assert_eq!(ack.header(Name::CSeq), "2 ACK");
    world.expect_nothing();
    // Alice promised to refresh within 600 seconds and does not: both hear BYE 32 seconds before that.
    world.passes(Duration::from_secs(600 - 32 - 350 - 1));
    world.expect_nothing();
    world.passes(Duration::from_secs(1));
    world.expect(ALICE, "BYE");
    world.expect(BOB, "BYE");
    assert_eq!(world.records[0].cause, "timer");
    world.rests();
}

#[test]
fn a_refresh_ends_here_and_a_change_goes_to_the_other_side() {
    let mut world = World::new(config());
    let (invite, ok) = world.stands(&session(), ANSWER, &bobs());

    let with_sdp = "Contact: <sip:alice@127.0.0.1:5080>\r\nContent-Type: application/sdp\r\n";
    let same = offer("alices", "a=setup:active\r\na=msrp-cema\r\n");
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, with_sdp, &same));
    world.expect(ALICE, "SIP/2.0 100");
    let refreshed = world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(refreshed.body(), ok.body());
    world.receives(ALICE, &in_dialog("ACK", 2, &ok, "", ""));
    world.expect_nothing();

    let moved = offer("alices2", "a=setup:active\r\na=msrp-cema\r\n");
    world.receives(ALICE, &in_dialog("INVITE", 3, &ok, with_sdp, &moved));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE sip:bob@127.0.0.1:5081");
    assert_eq!(change.sdp("a=path"), invite.sdp("a=path"));
    // Meanwhile Bob's own re-INVITE meets ours.
    world.receives(BOB, &from_target("INVITE", 1, &invite, ANSWER, &bobs()));
    world.expect(BOB, "SIP/2.0 100");
    world.expect(BOB, "SIP/2.0 491");
    world.answers(&change, "200 OK", ANSWER, &bobs());
    world.expect(BOB, "ACK");
    let changed = world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(changed.sdp("a=path"), ok.sdp("a=path"));
    world.receives(ALICE, &in_dialog("ACK", 3, &ok, "", ""));
    world.receives(ALICE, &in_dialog("BYE", 4, &ok, "", ""));
    world.rests();
}

#[test]
fn a_change_whose_asker_hangs_up_is_still_answered() {
    let mut world = World::new(config());
    let (_, ok) = world.stands(&session(), ANSWER, &bobs());
    let with_sdp = "Contact: <sip:alice@127.0.0.1:5080>\r\nContent-Type: application/sdp\r\n";
    let moved = offer("alices2", "a=setup:active\r\na=msrp-cema\r\n");
    world.receives(ALICE, &in_dialog("INVITE", 2, &ok, with_sdp, &moved));
    world.expect(ALICE, "SIP/2.0 100");
    let change = world.expect(BOB, "INVITE");
    world.receives(ALICE, &in_dialog("BYE", 3, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    let bye = world.expect(BOB, "BYE");
    world.answers(&change, "200 OK", ANSWER, &bobs());
    world.expect(BOB, "ACK");
    world.expect(ALICE, "SIP/2.0 487");
    world.answers(&bye, "200 OK", "", "");
    world.expect_nothing();
    world.rests();
}

#[test]
fn other_requests_are_made_anew_on_the_other_leg() {
    let mut world = World::new(config());
    let (invite, ok) = world.stands(&session(), ANSWER, &bobs());
    let fields = "Contact: <sip:alice@127.0.0.1:5080>\r\nRefer-To: <sip:carol@example.net>\r\n";
    world.receives(ALICE, &in_dialog("REFER", 2, &ok, fields, ""));
    let refer = world.expect(BOB, "REFER sip:bob@127.0.0.1:5081");
    assert_eq!(refer.header(Name::ReferTo), "<sip:carol@example.net>");
    assert_eq!(refer.header(Name::Contact), invite.header(Name::Contact));
    world.answers(&refer, "202 Accepted", "X-Own: 1\r\n", "");
    let accepted = world.expect(ALICE, "SIP/2.0 202 Accepted");
    assert!(accepted.text.contains("X-Own: 1"));
    world.receives(BOB, &from_target("INFO", 1, &invite, "Content-Type: text/plain\r\n", "hello"));
    let info = world.expect(ALICE, "INFO sip:alice@127.0.0.1:5080");
    assert_eq!(info.body(), "hello");
    world.answers(&info, "200 OK", "", "");
    world.expect(BOB, "SIP/2.0 200");
    world.receives(BOB, &from_target("OPTIONS", 2, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("BYE", 3, &ok, "", ""));
    world.rests();
}

#[test]
fn a_silent_hop_counts_as_a_timeout() {
    let mut world = World::new(config());
    world.receives(ALICE, &session());
    world.passes(Duration::from_secs(40));
    assert!(world.sent.iter().any(|sent| sent.text.starts_with("SIP/2.0 408") || sent.text.starts_with("SIP/2.0 480")));
    world.rests();
}

#[test]
fn a_fork_of_the_first_answer_is_ended() {
    let mut world = World::new(config());
    let (invite, ok) = world.agrees(&large(), ANSWER, &bobs());
    world.expect(BOB, "ACK");
    let fork = answer(&invite.request(), "200 OK", &ANSWER.replace("5081", "5082"), &bobs()).replace("tag=peer", "tag=fork");
    world.receives(CORE, &fork);
    world.expect("127.0.0.1:5082", "ACK sip:bob@127.0.0.1:5082");
    let bye = world.expect("127.0.0.1:5082", "BYE sip:bob@127.0.0.1:5082");
    assert!(bye.header(Name::To).ends_with("tag=fork"));
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.rests();
}
