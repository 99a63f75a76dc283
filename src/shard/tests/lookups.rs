//! CR 8.4.1: what looking up a user's preferences costs a call once they are in the cache: nothing that the engine would have to do.
//!
//! All that a core does leaves it as an effect or a timer; a system call is made for nothing else. So a call whose documents are in
//! the cache must have the effects and the timers of a call that looks nothing up.

use super::world::*;
use crate::base::clock::Duration;
use crate::shard::exchange::{Document, Fetched, Query};

const ANSWER: &str = "Contact: <sip:bob@127.0.0.1:5081>\r\nContent-Type: application/sdp\r\n";
const RULES: &str = r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
    <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list></conditions><actions><oxe:allow-offline-storage oxe:allow="false"/></actions></rule></ruleset>"#;
const LISTS: &str = r#"<?xml version="1.0"?><resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list name="oma_blockedcontacts"><entry uri="sip:mallory@example.net"/></list></resource-lists>"#;

/// What a core did in one step.
#[derive(PartialEq, Debug)]
struct Step {
    /// By receiver, and first line.
    sent: Vec<String>,
    /// To the media core.
    commands: usize,
    questions: usize,
    /// When it wants to be woken next.
    due: Option<Duration>,
}

type Done = Vec<Step>;

/// The documents of each user are there.
fn world(look_up: bool) -> World {
    let mut config = config();
    config.policy.record_history = look_up;
    config.policy.blacklist = look_up;
    let mut world = World::new(config);
    world.documents_absent = false;
    world
}

/// Notes what was done since the last step.
fn note(world: &mut World, done: &mut Done) {
    let words = |sent: Sent| {
        let line = sent.line().to_owned();
        let word = if line.starts_with("SIP/2.0") { line } else { line.split(' ').next().unwrap_or_default().to_owned() };
        format!("{} {word}", sent.to)
    };
    let sent = world.sent.drain(..).map(words).collect();
    let due = world.core.next_due().map(|due| due.since(world.now));
    let commands = std::mem::take(&mut world.commands).len();
    done.push(Step { sent, commands, questions: world.questions.len(), due });
}

/// Answers what was asked for documents; how many were.
fn answer_questions(world: &mut World) -> usize {
    let mut asked = 0;
    while let Some((ticket, query)) = world.questions.pop_front() {
        let Query::Document { auid, .. } = query else { panic!("{query:?}") };
        let body = if auid == "resource-lists" { LISTS } else { RULES };
        world.fetched(ticket, Fetched::Document(Document::Found { body: body.as_bytes().into(), etag: None }));
        asked += 1;
    }
    asked
}

/// A session of Alice's, from her INVITE to its end, and the documents that were asked for.
fn originating_call(world: &mut World, number: u32) -> (Done, usize) {
    let (mut done, sdp) = (Done::new(), offer("alices", "a=setup:active\r\na=msrp-cema\r\n"));
    let invite = invite("sip:bob@other.net", "orig", SESSION, "", &sdp);
    let invite = invite.replace("call-1", &format!("call-{number}")).replace("z9hG4bKinvite", &format!("z9hG4bK{number}"));
    world.receives(ALICE, &invite);
    let asked = answer_questions(world);
    let left = world.sent.iter().find(|sent| sent.line().starts_with("INVITE")).expect("it is relayed").clone();
    note(world, &mut done);
    world.answers(&left, "180 Ringing", "", "");
    note(world, &mut done);
    world.answers(&left, "200 OK", ANSWER, &offer("bobs", "a=setup:passive\r\n"));
    let ok = world.sent.iter().find(|sent| sent.line().starts_with("SIP/2.0 200")).expect("it is answered").clone();
    note(world, &mut done);
    // Each call's requests are transactions of their own.
    let request = |method, cseq| in_dialog(method, cseq, &ok, "", "").replace("z9hG4bK", &format!("z9hG4bK{number}"));
    world.receives(ALICE, &request("ACK", 1));
    note(world, &mut done);
    world.receives(ALICE, &request("BYE", 2));
    let bye = world.sent.iter().find(|sent| sent.line().starts_with("BYE")).expect("it is ended").clone();
    note(world, &mut done);
    world.answers(&bye, "200 OK", "", "");
    note(world, &mut done);
    (done, asked)
}

#[test]
fn a_lookup_in_the_cache_changes_nothing_of_what_a_call_makes_the_engine_do() {
    let (mut without, mut with) = (world(false), world(true));
    let (plain, asked) = originating_call(&mut without, 1);
    assert_eq!(asked, 0);
    let (_, asked) = originating_call(&mut with, 1);
    assert_eq!(asked, 1, "the first call asks");
    assert_eq!(plain.iter().map(|step| step.questions).sum::<usize>(), 0);
    for number in 2..5 {
        let (plain, _) = originating_call(&mut without, number);
        let (cached, asked) = originating_call(&mut with, number);
        assert_eq!(asked, 0, "the others do not");
        assert_eq!(cached, plain);
    }
}

#[test]
fn a_call_that_needs_two_documents_finds_both_in_the_cache() {
    let mut world = world(true);
    let invite = |number: u32| {
        let sdp = offer("alices", "a=setup:active\r\na=msrp-cema\r\n");
        let invite = invite("sip:nobody@example.net", "term", SESSION, "", &sdp);
        invite.replace("call-1", &format!("call-{number}")).replace("z9hG4bKinvite", &format!("z9hG4bK{number}"))
    };
    world.receives(ALICE, &invite(1));
    assert_eq!(answer_questions(&mut world), 2);
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 480");
    world.receives(ALICE, &invite(2));
    assert!(world.questions.is_empty(), "{:?}", world.questions);
    world.expect(ALICE, "SIP/2.0 100");
    world.expect(ALICE, "SIP/2.0 480");
}
