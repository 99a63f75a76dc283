//! CR 8.5 and 8.5.1: what goes into a user's history.

use crate::bob::*;
use cpm_pf::base::clock::Instant;
use cpm_pf::cpm::history::{self, Message};
use cpm_pf::proves;
use cpm_pf::store::history::{Body, Object};
use cpm_pf::store::object::Conversation;

const LIST: &str = "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>\
    <entry uri=\"tel:+15551230002\"><display-name>Bob</display-name></entry></list></resource-lists>";

fn conversation(letter: &Letter, sent: bool) -> Conversation {
    history::conversation(&letter.request(), ALICE, sent, Instant::from_unix_s(NOW_S), "stand-in")
}

fn text(object: &Object) -> String {
    let Body::Inline(octets) = &object.body else { panic!("a small object is inline") };
    String::from_utf8(octets.clone()).expect("XML")
}

fn message<'a>(head: &'a str) -> Message<'a> {
    Message { message_id: "msrp-1", content_type: "message/cpim", head: head.as_bytes(), body: Body::Inline(Vec::new()) }
}

#[test]
fn a_group_session_leaves_its_invitation_and_its_state() {
    let group = Letter::session().with_list("recipient-list", LIST).with("Subject", "two\r\n lines");
    let conversation = conversation(&group, true);
    let answer = ok("<sip:focus-7@conf.example.net>;isfocus", CHAT_ANSWER, &[]);
    let objects =
        proves!("OSI-r7.c", { history::invitation(&conversation, &group.request(), true, Some(&answer), ["i-1", "i-2"]) });
    assert_eq!(objects.len(), 2);
    let folder = ["Default", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "abcdef-1234-5678-90ab-cdef01234567"];
    assert!(objects.iter().all(|object| object.folder == folder && object.seen));
    assert_eq!(objects[0].header("Content-Type"), Some("Application/X-CPM-Session"));
    assert_eq!(objects[0].header("Message-Direction"), Some("sent"));
    assert_eq!(objects[0].header("From"), Some("sip:alice@example.net"));
    assert_eq!(objects[0].header("Subject"), Some("two lines"));
    assert!(text(&objects[0]).contains("m=message") && text(&objects[0]).contains("tel:+15551230002"));
    assert_eq!(objects[1].header("Content-Type"), Some("Application/group-state-object+xml"));
    let state = text(&objects[1]);
    for part in ["lastfocussessionid=\"sip:focus-7@conf.example.net\"", "comm-addr=\"tel:+15551230002\"", "name=\"Bob\""] {
        assert!(state.contains(part), "{part} in {state}");
    }
}

#[test]
fn a_1_1_session_leaves_no_group_state() {
    let letter = Letter::session();
    let objects = history::invitation(&conversation(&letter, false), &letter.request(), false, None, ["i-1", "i-2"]);
    assert_eq!(objects.len(), 1);
    assert_eq!((objects[0].header("Message-Direction"), objects[0].seen), (Some("received"), false));
}

#[test]
fn a_message_is_named_by_its_cpim_head() {
    let conversation = conversation(&Letter::large().with("InReplyTo-Contribution-ID", "reply-1"), false);
    let head = "From: <sip:carol@example.net>\r\nTo: <sip:bob@example.net>\r\nimdn.Message-ID: m-1\r\n\r\n\r\n";
    let object = history::standalone(&conversation, message(head));
    assert_eq!(object.header("IMDN-Message-ID"), Some("m-1"));
    assert_eq!(object.folder.len(), 2, "a standalone message lies in the conversation's folder");
    assert_eq!(object.header("P-Asserted-Service"), Some(icsi("largemsg").as_str()));
    assert_eq!(object.header("InReplyTo-Contribution-ID"), Some("reply-1"));
    assert_eq!(history::standalone(&conversation, message("")).header("IMDN-Message-ID"), Some("msrp-1"));

    let chat = history::of_session(&conversation, true, message(head));
    assert_eq!((chat.header("From"), chat.folder.len()), (Some("sip:carol@example.net"), 3));
    assert_eq!(chat.header("P-Asserted-Service"), None);
}

#[test]
fn an_originator_who_hides_is_anonymous_in_the_recipient_s_history() {
    let hidden = Letter::large().with("Privacy", "id").without("Conversation-ID");
    assert_eq!(conversation(&hidden, false).from, "anonymous");
    assert_eq!(conversation(&hidden, true).from, "sip:alice@example.net", "but not in the own");
    assert_eq!(conversation(&hidden, false).conversation_id, "stand-in");
}
