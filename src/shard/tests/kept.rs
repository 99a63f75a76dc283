//! 8.3.1.3, 8.3.1.6, 8.5 on the wire: messages that are kept, and go out again.

use super::world::*;
use crate::base::clock::Duration;
use crate::shard::exchange::{Command, Document, Fetched, LegKind, Query, Report, StoreFailure, Stored};
use crate::sip::header::name::Name;
use crate::store::deferred::{Deferred, DeferredId, DeferredService};
use std::path::PathBuf;
use std::sync::Arc;

fn message_for(user: &str) -> String {
    let sdp = offer("alices", "a=sendonly\r\na=file-selector:size:5\r\na=setup:active\r\n");
    invite(&format!("sip:{user}@example.net"), "term", LARGE, "", &sdp)
}

fn stored(world: &World) -> Report {
    Report::Stored(Box::new(Stored {
        session: world.media_key(),
        leg: sink_leg(world),
        file: PathBuf::from("var/spool/1"),
        octets: 5,
        message_id: "m1".into(),
        content_type: "message/cpim".into(),
        head: Box::default(),
        success_report: false,
        from: 0,
    }))
}

fn sink_leg(world: &World) -> u8 {
    let sink = |command: &Command| match command {
        Command::Leg { leg, .. } if matches!(leg.kind, LegKind::Sink { .. }) => Some(leg.leg),
        _ => None,
    };
    world.commands.iter().rev().find_map(sink).expect("a sink was opened")
}

fn acknowledged(world: &World) -> Option<u16> {
    world.commands.iter().find_map(|command| match command {
        Command::Acknowledge { status, .. } => Some(*status),
        _ => None,
    })
}

#[test]
fn a_message_for_nobody_there_is_kept_before_its_last_chunk_is_answered() {
    let mut world = World::new(config());
    world.receives(ALICE, &message_for("carol"));
    world.expect(ALICE, "SIP/2.0 100");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    assert!(ok.sdp("a=recvonly").is_some() && ok.sdp("a=setup:passive").is_some(), "{}", ok.text);
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let report = stored(&world);
    world.reports(report);
    let (ticket, query) = world.questions.pop_front().expect("it is deferred");
    let Query::Defer(deferred) = query else { panic!("{query:?}") };
    assert_eq!((deferred.user.as_str(), deferred.octets, &*deferred.message_id), ("sip:carol@example.net", 5, "m1"));
    assert_eq!(acknowledged(&world), None);
    world.fetched(ticket, Fetched::Kept(Ok(())));
    assert_eq!(acknowledged(&world), Some(200));
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    world.rests();
}

#[test]
fn a_full_store_is_told_to_the_sender() {
    let mut world = World::new(config());
    world.receives(ALICE, &message_for("carol"));
    world.expect(ALICE, "SIP/2.0 100");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let report = stored(&world);
    world.reports(report);
    let (ticket, _) = world.questions.pop_front().expect("it is deferred");
    world.fetched(ticket, Fetched::Kept(Err(StoreFailure::Quota)));
    assert_eq!(acknowledged(&world), Some(413));
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.rests();
}

#[test]
fn a_client_that_cannot_be_reached_leaves_the_message_with_us() {
    let mut world = World::new(config());
    let invite = world.relays(&message_for("bob"));
    world.answers(&invite, "480 Temporarily Unavailable", "", "");
    world.expect(CORE, "ACK");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let report = stored(&world);
    world.reports(report);
    let (ticket, _) = world.questions.pop_front().expect("it is deferred");
    world.fetched(ticket, Fetched::Kept(Ok(())));
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.expect(ALICE, "SIP/2.0 200");
    // It is tried again after a minute.
    world.passes(Duration::from_secs(61));
    let (ticket, query) = world.questions.pop_front().expect("what waits is asked for");
    assert!(matches!(query, Query::Waiting { .. }));
    // A question that found no room is asked again.
    world.fetched(ticket, query.unanswered());
    world.passes(Duration::from_secs(300));
    let (ticket, query) = world.questions.pop_front().expect("what waits is asked for again");
    assert!(matches!(query, Query::Waiting { .. }));
    world.fetched(ticket, Fetched::Waiting(Vec::new()));
    world.rests();
}

fn deferred(service: DeferredService) -> Deferred {
    Deferred {
        id: DeferredId("d1".into()),
        user: "sip:bob@example.net".into(),
        arrived_s: 1_700_000_000,
        expires_s: 1_800_000_000,
        service,
        headers: vec![
            ("Accept-Contact".into(), if service == DeferredService::Pager { PAGER } else { LARGE }.into()),
            ("Conversation-ID".into(), "conv-1".into()),
        ],
        from: "<sip:alice@example.net>".into(),
        to: "<sip:bob@example.net>".into(),
        content_type: "message/cpim".into(),
        message_id: "m1".into(),
        octets: 5,
        file: PathBuf::from("var/deferred/d1"),
        inline: (service == DeferredService::Pager).then(|| b"hello".to_vec().into()),
        parts: Vec::new(),
        negative_delivery: None,
        attempts: 0,
    }
}

/// Bob's client appears by a new configuration; what waits is asked for and claimed.
fn bob_registers(service: DeferredService) -> World {
    let mut without = config();
    without.registrations.users.clear();
    let mut world = World::new(without);
    world.passes(Duration::from_secs(1));
    world.core.reload(world.now, Arc::new(config()), &mut world.out);
    world.passes(Duration::ZERO);
    world.collect();
    let (ticket, query) = world.questions.pop_front().expect("what waits is asked for");
    assert!(matches!(&query, Query::Waiting { user } if &**user == "sip:bob@example.net"), "{query:?}");
    world.fetched(ticket, Fetched::Waiting(vec![deferred(service)]));
    let (ticket, query) = world.questions.pop_front().expect("it is claimed");
    assert!(matches!(query, Query::Claim { .. }));
    world.fetched(ticket, Fetched::Claimed(Some(Box::new(deferred(service)))));
    world
}

#[test]
fn a_deferred_message_goes_out_when_its_user_registers_and_is_removed_when_delivered() {
    let mut world = bob_registers(DeferredService::LargeMessage);
    let invite = world.expect(CORE, "INVITE sip:bob@example.net;gr=");
    assert_eq!(invite.header(Name::ConversationId), "conv-1");
    assert!(invite.sdp("a=sendonly").is_some() && invite.sdp("a=file-selector:size:5").is_some(), "{}", invite.text);
    assert!(matches!(&world.commands[0], Command::Open(open) if matches!(open.origin.kind, LegKind::Source(_))));
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", fields, &offer("bobs", "a=recvonly\r\na=setup:passive\r\n"));
    world.expect(BOB, "ACK");
    let session = world.media_key();
    world.reports(Report::Delivered { session, leg: 1, message_id: "m1".into(), octets: 5 });
    world.expect(BOB, "BYE");
    let (ticket, query) = world.questions.pop_front().expect("it is removed");
    assert!(matches!(query, Query::Remove { .. }));
    world.fetched(ticket, Fetched::Kept(Ok(())));
    world.rests();
}

#[test]
fn a_delivery_that_fails_gives_the_claim_back() {
    let mut world = bob_registers(DeferredService::LargeMessage);
    let invite = world.expect(CORE, "INVITE");
    world.answers(&invite, "486 Busy Here", "", "");
    world.expect(CORE, "ACK");
    let (_, query) = world.questions.pop_front().expect("the claim is given back");
    assert!(matches!(query, Query::Return { retry_after_s: 0, .. }), "{query:?}");
    world.passes(Duration::from_secs(60));
    let (ticket, query) = world.questions.pop_front().expect("what waits is asked for again");
    assert!(matches!(query, Query::Waiting { .. }));
    world.fetched(ticket, Fetched::Waiting(Vec::new()));
    world.rests();
}

#[test]
fn a_deferred_page_is_a_message() {
    let mut world = bob_registers(DeferredService::Pager);
    let message = world.expect(CORE, "MESSAGE sip:bob@example.net;gr=");
    assert_eq!(message.body(), "hello");
    world.answers(&message, "200 OK", "", "");
    let (_, query) = world.questions.pop_front().expect("it is removed");
    assert!(matches!(query, Query::Remove { .. }));
    world.rests();
}

const PAGER: &str = "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg\"";

fn page(user: &str) -> String {
    invite(&format!("sip:{user}@example.net"), "term", PAGER, "", "hello")
        .replace("INVITE", "MESSAGE")
        .replace("application/sdp", "message/cpim")
}

#[test]
fn a_page_goes_to_every_client_and_the_first_2xx_is_the_answer() {
    let mut world = World::new(with_two_clients(config()));
    world.receives(ALICE, &page("bob"));
    let first = world.expect(CORE, "MESSAGE sip:bob@example.net;gr=");
    let second = world.expect(CORE, "MESSAGE sip:bob@example.net;gr=");
    assert_eq!((first.body(), first.header(Name::MaxForwards)), ("hello", "69".to_string()));
    world.answers(&second, "486 Busy Here", "", "");
    world.expect_nothing();
    world.answers(&first, "200 OK", "", "");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    assert_eq!(ok.header(Name::ConversationId), "conv-1");
    world.rests();
}

#[test]
fn a_page_for_nobody_there_is_accepted_when_it_is_kept() {
    let mut world = World::new(config());
    world.receives(ALICE, &page("carol"));
    world.expect_nothing();
    let (ticket, query) = world.questions.pop_front().expect("it is deferred");
    assert!(matches!(&query, Query::Defer(deferred) if deferred.inline.as_deref() == Some(b"hello")), "{query:?}");
    world.fetched(ticket, Fetched::Kept(Ok(())));
    world.expect(ALICE, "SIP/2.0 202");
    world.rests();
}

#[test]
fn a_rule_for_offline_storage_records_beside_the_message() {
    let rules = br#"<ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
        <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list></conditions>
        <actions><oxe:allow-offline-storage oxe:allow="true"/></actions></rule></ruleset>"#;
    let mut world = World::new(config());
    world.documents_absent = false;
    world.receives(ALICE, &message_for("bob"));
    world.expect(ALICE, "SIP/2.0 100");
    for _ in 0..2 {
        let (ticket, query) = world.questions.pop_front().expect("documents are fetched");
        let answer = match query {
            Query::Document { auid: "resource-lists", .. } => Document::Absent,
            _ => Document::Found { body: rules.to_vec().into(), etag: None },
        };
        world.fetched(ticket, Fetched::Document(answer));
    }
    let invite = world.expect(CORE, "INVITE");
    let fields = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", fields, &offer("bobs", "a=recvonly\r\na=setup:passive\r\n"));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.expect(BOB, "ACK");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    let report = stored(&world);
    world.reports(report);
    let (_, query) = world.questions.pop_front().expect("it is recorded");
    assert!(matches!(&query, Query::Copy(object) if object.user == "sip:bob@example.net"), "{query:?}");
    // The recorder does not keep the session alive.
    world.receives(BOB, &from_target("BYE", 1, &invite, "", ""));
    world.expect(BOB, "SIP/2.0 200");
    world.expect(ALICE, "BYE");
    world.rests();
}

#[test]
fn a_rule_to_store_puts_the_message_into_the_store_and_defers_where_that_refuses() {
    let rules = br#"<ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
        <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list>
        <oxe:media-list><oxe:standalone-message/></oxe:media-list></conditions>
        <actions><oxe:allow-store>true</oxe:allow-store></actions></rule></ruleset>"#;
    let mut world = World::new(config());
    world.documents_absent = false;
    world.receives(ALICE, &message_for("bob"));
    for _ in 0..2 {
        let (ticket, query) = world.questions.pop_front().expect("documents are fetched");
        let answer = match query {
            Query::Document { auid: "resource-lists", .. } => Document::Absent,
            _ => Document::Found { body: rules.to_vec().into(), etag: None },
        };
        world.fetched(ticket, Fetched::Document(answer));
    }
    world.expect(ALICE, "SIP/2.0 100");
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.expect_nothing();
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    crate::proves!("TLM-6.d.ii.1", "TLM-6.d.ii.2", {
        let report = stored(&world);
        world.reports(report);
        let (ticket, query) = world.questions.pop_front().expect("it is stored");
        assert!(matches!(&query, Query::Record(object) if object.user == "sip:bob@example.net"), "{query:?}");
        world.fetched(ticket, Fetched::Recorded(Err(StoreFailure::Unavailable)));
        let (ticket, query) = world.questions.pop_front().expect("the store refused: it is deferred");
        assert!(matches!(query, Query::Defer(_)));
        assert_eq!(acknowledged(&world), None);
        world.fetched(ticket, Fetched::Kept(Ok(())));
        assert_eq!(acknowledged(&world), Some(200));
    });
    world.receives(ALICE, &in_dialog("BYE", 2, &ok, "", ""));
    world.rests();
}

#[test]
fn xdm_that_is_away_refuses_no_call() {
    let mut world = World::new(config());
    world.documents_absent = false;
    world.receives(ALICE, &message_for("bob"));
    world.expect(ALICE, "SIP/2.0 100");
    world.expect_nothing();
    world.passes(Duration::from_millis(1100));
    world.expect(CORE, "INVITE");
}
