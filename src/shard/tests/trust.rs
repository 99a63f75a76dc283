//! RFC 3325 §5, §7: who a target says it is, in its responses, and to whom that is told.

use super::world::*;
use crate::sip::header::name::Name;

const OUTSIDE: &str = "192.0.2.9:5080";
const IDENTITY: &str = "P-Asserted-Identity: \"Bob\" <sip:bob@other.net>, <tel:+15550001>\r\n";

/// Alice is outside where `origin` is; the next hop is `core`. Her 200 to an INVITE that a 200 with these fields answered.
fn answered(origin: &str, core: &str, fields: &str) -> Sent {
    let mut config = config();
    config.sip.core = Some(format!("sip:{core};lr"));
    config.policy.session_answer = crate::config::SessionAnswer::Late;
    let mut world = World::new(config);
    let case = if origin == OUTSIDE { "term" } else { "orig" };
    let text = invite("sip:bob@example.net", case, SESSION, "", &offer("alices", "a=setup:active\r\n")).replace(ALICE, origin);
    world.receives(origin, &text);
    world.expect(origin, "SIP/2.0 100");
    let invite = world.expect(core, "INVITE");
    let fields = format!("Contact: <sip:bob@{BOB}>\r\nContent-Type: application/sdp\r\n{fields}");
    world.answers(&invite, "200 OK", &fields, &offer("bobs", "a=setup:passive\r\n"));
    world.expect(origin, "SIP/2.0 200")
}

#[test]
fn an_origin_within_the_trust_domain_is_told_who_answered() {
    let told = |ok: Sent| (ok.headers(Name::PAssertedIdentity), ok.header(Name::Privacy));
    let (identity, privacy) = told(answered(ALICE, CORE, &format!("{IDENTITY}Privacy: id\r\n")));
    assert_eq!(identity, ["\"Bob\" <sip:bob@other.net>, <tel:+15550001>"]);
    assert_eq!(privacy, "id");
    assert_eq!(told(answered(ALICE, CORE, "")).0, [""; 0]);
    // Neither what an untrusted peer asserts, nor to an untrusted one.
    assert_eq!(told(answered(ALICE, "192.0.2.70:5060", IDENTITY)).0, [""; 0]);
    assert_eq!(told(answered(OUTSIDE, CORE, IDENTITY)).0, [""; 0]);
}

#[test]
fn a_response_is_proxied_without_what_is_to_be_hidden() {
    let passed = |origin: &str, hop: &str, fields: &str| {
        let mut world = World::new(config());
        let text = invite("sip:bob@other.net", "orig", "*;audio", "", "").replace("INVITE", "MESSAGE");
        let text = text
            .replace(ALICE, origin)
            .replace("127.0.0.1:5060;lr>\r\n", &format!("127.0.0.1:5060;lr>\r\nRoute: <sip:{hop};lr>\r\n"));
        world.receives(origin, &text);
        let sent = world.expect(hop, "MESSAGE");
        world.answers(&sent, "200 OK", fields, "");
        world.expect(origin, "SIP/2.0 200").headers(Name::PAssertedIdentity).len()
    };
    let private = format!("{IDENTITY}Privacy: user;id\r\n");
    assert_eq!(passed(ALICE, BOB, &private), 1);
    assert_eq!(passed(OUTSIDE, BOB, &private), 0);
    assert_eq!(passed(OUTSIDE, BOB, IDENTITY), 1, "who does not ask to be hidden is shown");
    assert_eq!(passed(ALICE, "192.0.2.70:5060", IDENTITY), 0, "it is not believed");
}

#[test]
fn what_is_hidden_stays_hidden_within_a_dialog() {
    let mut config = config();
    config.sip.core = Some("sip:192.0.2.70:5060;lr".into());
    let mut world = World::new(config);
    let text = invite("sip:bob@other.net", "orig", SESSION, "", &offer("alices", "a=setup:active\r\n"));
    world.receives(ALICE, &text);
    world.expect(ALICE, "SIP/2.0 100");
    let invite = world.expect("192.0.2.70:5060", "INVITE");
    let fields = "Contact: <sip:bob@192.0.2.71:5060>\r\nContent-Type: application/sdp\r\n";
    world.answers(&invite, "200 OK", fields, &offer("bobs", "a=setup:passive\r\n"));
    let ok = world.expect(ALICE, "SIP/2.0 200");
    world.receives(ALICE, &in_dialog("ACK", 1, &ok, "", ""));
    world.expect("192.0.2.71:5060", "ACK");
    for (cseq, privacy, shown) in [(2, "id", 0), (3, "none", 1)] {
        world.receives(ALICE, &in_dialog("INFO", cseq, &ok, &format!("{IDENTITY}Privacy: {privacy}\r\n"), ""));
        let info = world.expect("192.0.2.71:5060", "INFO");
        assert_eq!(info.headers(Name::PAssertedIdentity).len(), shown, "{privacy}");
        world.answers(&info, "200 OK", IDENTITY, "");
        assert!(world.expect(ALICE, "SIP/2.0 200").headers(Name::PAssertedIdentity).is_empty());
    }
}
