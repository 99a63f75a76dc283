//! RFC 3261 §25.1 lets letters of any alphabet stand in many values, and whoever means harm puts them anywhere: wherever a text is cut,
//! half of one may be left. Each message here is received with one at each place, and the core goes on.

use super::world::*;
use crate::base::clock::Duration;

/// A letter of two octets, one of four, and none that a text may have.
const LETTERS: [&str; 3] = ["é", "𐍈", "\u{1}"];
const CONTACT: &str = "Contact: <sip:bob@127.0.0.1:5081>;expires=60\r\nContent-Type: application/sdp\r\n\
    Session-Expires: 1700;refresher=uac\r\nServer: CPM-client/OMA2.2\r\nP-Asserted-Identity: \"Bob\" <sip:bob@example.net>\r\n";
/// Fields that requests have beside those of every message.
const FIELDS: &str = "P-Preferred-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session\r\nSession-Expires: 1800;refresher=uac\r\n\
    Min-SE: 90\r\nSupported: timer, 100rel\r\nReason: SIP;cause=200;text=\"done\"\r\nPrivacy: id;header\r\nRetry-After: 5 (soon)\r\n\
    Conversation-ID: f81d4fae\r\nContribution-ID: abcdef\r\nUser-Agent: CPM-client/OMA2.2 other (a comment)\r\nDate: Sat, 13 Nov 2010 23:29:00 GMT\r\n\
    P-Served-User: <sip:alice@example.net>;sescase=orig;regstate=reg\r\nExpires: 100\r\n";

/// The text with a letter in the place of one octet, or before it: for each of its octets.
fn changed(text: &str) -> impl Iterator<Item = String> {
    text.char_indices().enumerate().map(move |(number, (at, octet))| {
        let letter = LETTERS[number % LETTERS.len()];
        let after = if number % 2 == 0 { at } else { at + octet.len_utf8() };
        format!("{}{letter}{}", &text[..at], &text[after..])
    })
}

/// A message reaches a core in the state that `before` brings it to.
fn everywhere(text: &str, before: impl Fn() -> World, from: &str) {
    for changed in changed(text) {
        let mut world = before();
        world.receives(from, &changed);
        world.passes(Duration::from_secs(1));
    }
}

fn offered() -> String {
    offer("alices", "a=setup:active\r\na=file-selector:name:\"a b\" type:image/jpeg size:4092\r\n")
}

#[test]
fn in_an_invite_for_a_user_of_ours() {
    let invite = invite("sip:bob@example.net", "term", LARGE, FIELDS, &offered());
    everywhere(&invite, || World::new(config()), ALICE);
}

#[test]
fn in_an_invite_of_a_user_of_ours() {
    let invite = invite("tel:+1234;phone-context=example.net", "orig", SESSION, FIELDS, &offered());
    everywhere(&invite, || World::new(config()), ALICE);
}

#[test]
fn in_an_invite_with_several_bodies() {
    let parts = format!(
        "--part\r\nContent-Type: application/sdp\r\nContent-Disposition: session\r\n\r\n{}\r\n--part\r\n\
         Content-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list;handling=optional\r\n\r\n\
         <resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list><entry uri=\"sip:bob@example.net\"/></list></resource-lists>\r\n--part--\r\n",
        offered()
    );
    let invite = invite("sip:bob@example.net", "term", SESSION, FIELDS, &parts).replace(
        "Content-Type: application/sdp\r\nContent-Length",
        "Content-Type: multipart/mixed;boundary=\"part\"\r\nContent-Length",
    );
    everywhere(&invite, || World::new(config()), ALICE);
}

#[test]
fn in_the_answer_of_a_target() {
    let begun = || {
        let mut world = World::new(config());
        let invite = world.relays(&invite("sip:bob@example.net", "term", LARGE, "", &offered()));
        (world, invite)
    };
    let (_, invite) = begun();
    let answer = answer(&invite.request(), "200 OK", CONTACT, &offer("bobs", "a=setup:passive\r\n"));
    everywhere(&answer, || begun().0, CORE);
}

#[test]
fn in_a_request_within_a_dialog() {
    let standing = || {
        let mut world = World::new(config());
        let (_, ok) = world.stands(&invite("sip:bob@example.net", "term", LARGE, "", &offered()), CONTACT, &offer("bobs", ""));
        (world, ok)
    };
    let (_, ok) = standing();
    for method in ["INVITE", "UPDATE", "INFO", "REFER", "BYE"] {
        let fields = format!(
            "{FIELDS}Refer-To: <sip:carol@example.net?Replaces=a%40b>\r\nContact: <sip:alice@{ALICE}>\r\nContent-Type: application/sdp\r\n"
        );
        everywhere(&in_dialog(method, 2, &ok, &fields, &offered()), || standing().0, ALICE);
    }
}
