//! The steps that every procedure begins with, each with the answer it prescribes, its "otherwise", and their order.

use crate::ladder::{Originating, Terminating, warned};
use crate::proves;
use crate::ue::{Invite, LARGE, SESSION};

const BOB: &str = "sip:bob@example.org";

#[test]
fn an_originator_who_may_not_send_is_told_127() {
    let mut ladder = Originating::new("");
    for service in [LARGE, SESSION] {
        for stranger in [
            Invite::new(&ladder.alice, BOB, service).with("P-Asserted-Identity", "<sip:mallory@elsewhere.org>"),
            Invite::new(&ladder.alice, BOB, service).without("P-Asserted-Identity"),
        ] {
            let refusal = ladder.refused(&stranger, 403);
            warned(&refusal, "127 Service not authorised");
            assert!(refusal.want("To").contains(";tag="), "a final response has a tag");
        }
        // Allowed, by SIP or by TEL address.
        let invite = Invite::new(&ladder.alice, BOB, service);
        let (arrived, from) = ladder.passes(&invite);
        ladder.core.answer(&arrived, from, "486 Busy Here", "", "");
        ladder.alice.expect_status(486);
        let by_tel = Invite::new(&ladder.alice, BOB, service).with("P-Asserted-Identity", "<tel:+15551230001>");
        ladder.passes(&by_tel);
    }
    proves!("OLM-1.a", "OLM-1.b", "OLM-1.c", "OSI-1.a", "OSI-1.b", "OSI-1.c"; ladder.pf);
}

#[test]
fn an_identity_from_an_untrusted_hop_does_not_count() {
    let mut ladder = Originating::new("[sip]\ntrusted = [\"10.0.0.0/8\"]");
    // The rest of the configuration is merged over `trusted` only where it names the key.
    let refusal = ladder.refused(&Invite::new(&ladder.alice, BOB, LARGE), 403);
    warned(&refusal, "127 Service not authorised");
}

#[test]
fn a_version_that_is_not_supported_is_told_132() {
    let versions = "[policy]\nuser_agents = [\"CPM-client/OMA2.2\", \"CPM-serv/OMA2.*\"]";
    let mut ladder = Originating::new(versions);
    for service in [LARGE, SESSION] {
        for invite in [
            Invite::new(&ladder.alice, BOB, service).with("User-Agent", "CPM-client/OMA1.0 x/1"),
            Invite::new(&ladder.alice, BOB, service).without("User-Agent"),
            Invite::new(&ladder.alice, BOB, service).with("User-Agent", "phone/3.1"),
        ] {
            warned(&ladder.refused(&invite, 403), "132 Version not supported");
        }
        ladder.passes(&Invite::new(&ladder.alice, BOB, service).with("User-Agent", "phone/3.1 cpm-CLIENT/oma2.2"));
    }
    proves!("OLM-2.a", "OLM-2.b", "OLM-2.c", "OSI-2.a", "OSI-2.b", "OSI-2.c"; ladder.pf);

    let mut ladder = Terminating::new(&[""], versions);
    for service in [LARGE, SESSION] {
        let invite = Invite::new(&ladder.alice, "sip:bob@example.net", service).terminating();
        warned(&ladder.refused(&invite.clone().with("User-Agent", "CPM-client/OMA1.0"), 403), "132 Version not supported");
        let other = Invite::new(&ladder.alice, "sip:bob@example.net", service).terminating();
        ladder.passes(&other.with("User-Agent", "CPM-serv/OMA2.1 other-pf/1.0"));
    }
    proves!("TLM-1.a", "TLM-1.b", "TLM-1.c", "TSI-1.a", "TSI-1.b", "TSI-1.c"; ladder.pf);
}

#[test]
fn a_request_for_anonymity_is_told_119_where_it_is_not_allowed() {
    let strict = "[policy]\nanonymity = \"reject\"";
    let mut ladder = Originating::new(strict);
    for service in [LARGE, SESSION] {
        for privacy in ["id", "user;critical", "header"] {
            let invite = Invite::new(&ladder.alice, BOB, service).with("Privacy", privacy);
            warned(&ladder.refused(&invite, 403), "119 Anonymity not allowed");
        }
        let nobody =
            Invite::new(&ladder.alice, BOB, service).with("From", "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=x");
        warned(&ladder.refused(&nobody, 403), "119 Anonymity not allowed");
        ladder.passes(&Invite::new(&ladder.alice, BOB, service).with("Privacy", "none"));
    }
    proves!("OLM-3.a", "OLM-3.b", "OSI-3.a", "OSI-3.b"; ladder.pf);

    let mut ladder = Terminating::new(&[""], strict);
    for service in [LARGE, SESSION] {
        let invite = Invite::new(&ladder.alice, "sip:bob@example.net", service).terminating();
        warned(&ladder.refused(&invite.clone().with("Privacy", "id"), 403), "119 Anonymity not allowed");
        ladder.passes(&Invite::new(&ladder.alice, "sip:bob@example.net", service).terminating().with("Privacy", "none"));
    }
    proves!("TLM-2.a", "TLM-2.b", "TSI-2.a", "TSI-2.b"; ladder.pf);
}

#[test]
fn the_first_step_that_fails_gives_the_answer() {
    let mut ladder = Originating::new("[policy]\nanonymity = \"reject\"\nuser_agents = [\"CPM-client/OMA2.2\"]");
    for service in [LARGE, SESSION] {
        let all_wrong = Invite::new(&ladder.alice, BOB, service)
            .with("P-Asserted-Identity", "<sip:mallory@elsewhere.org>")
            .with("Privacy", "id")
            .with("User-Agent", "x/1")
            .with("Session-Expires", "30");
        warned(&ladder.refused(&all_wrong, 403), "127 Service not authorised");
        let version_and_privacy = Invite::new(&ladder.alice, BOB, service).with("Privacy", "id").with("User-Agent", "x/1");
        warned(&ladder.refused(&version_and_privacy, 403), "132 Version not supported");
    }
}

/// One way to be refused: how an INVITE gets there, and the answer with its Warning text.
type Violation = (&'static str, fn(Invite) -> Invite, u16, Option<&'static str>);

const STRANGER: Violation = (
    "a stranger",
    |invite| invite.with("P-Asserted-Identity", "<sip:mallory@elsewhere.org>"),
    403,
    Some("127 Service not authorised"),
);
const OLD: Violation =
    ("an old client", |invite| invite.with("User-Agent", "CPM-client/OMA1.0"), 403, Some("132 Version not supported"));
const HIDDEN: Violation = ("somebody hidden", |invite| invite.with("Privacy", "id"), 403, Some("119 Anonymity not allowed"));
const LATE: Violation = (
    "a message of yesterday",
    |invite| invite.with("Message-Expires", "60").with("Date", "Sat, 13 Nov 2010 23:29:00 GMT"),
    480,
    None,
);
const HASTY: Violation = ("a short interval", |invite| invite.with("Session-Expires", "30"), 422, None);
const OTHER: Violation =
    ("another service", |invite| invite.with("P-Asserted-Service", "urn:urn-7:3gpp-service.ims.icsi.mmtel"), 403, None);
const OTHER_TERMINATING: Violation = (OTHER.0, OTHER.1, 403, Some("122 Function not allowed"));
const BARE: Violation = ("no offer", |invite| Invite { body: String::new(), ..invite.without("Content-Type") }, 488, None);
const LISTED: Violation = (
    "somebody on the list",
    |invite| {
        let others = invite.get("P-Asserted-Identity").unwrap_or_default().to_owned();
        invite.with("P-Asserted-Identity", &format!("{others}, <tel:+15557770000>"))
    },
    403,
    Some("122 Function not allowed"),
);
const UNWELCOME: Violation = (
    "one who may not disturb",
    |invite| {
        let others = invite.get("P-Asserted-Identity").unwrap_or_default().replace("alice", "carol");
        invite.with("P-Asserted-Identity", &others)
    },
    480,
    None,
);
const LOUD: Violation =
    ("audio", |invite| Invite { body: format!("{}m=audio 4000 RTP/AVP 0\r\n", invite.body), ..invite }, 488, Some("media"));

/// Every pair of violations, the one of the later step made first; the earlier step gives the answer.
fn pairs(violations: &[Violation], invite: impl Fn() -> Invite, mut refused: impl FnMut(&Invite, u16) -> crate::ue::Message) {
    for (at, (first, one, status, text)) in violations.iter().enumerate() {
        for (second, other, ..) in &violations[at..] {
            let both = if first == second { one(invite()) } else { one(other(invite())) };
            println!("{first} and {second}");
            let refusal = refused(&both, *status);
            match text {
                Some("media") => assert_eq!(refusal.want("Warning"), "304 127.0.0.1 \"Media type not available\""),
                Some(text) => warned(&refusal, text),
                None => assert_eq!(refusal.header("Warning"), None, "{refusal:?}"),
            }
        }
    }
}

#[test]
fn of_two_violations_the_first_step_gives_the_answer_in_every_section() {
    let strict = "[policy]\nanonymity = \"reject\"\nuser_agents = [\"CPM-client/OMA2.2\"]";
    let mut ladder = Originating::new(strict);
    for (service, order) in
        [(LARGE, &[STRANGER, OLD, HIDDEN, LATE, HASTY, OTHER, BARE][..]), (SESSION, &[STRANGER, OLD, HIDDEN, OTHER, HASTY, BARE])]
    {
        let alice = crate::ue::Ue::udp("the name in an INVITE");
        pairs(
            order,
            || Invite::new(&alice, BOB, service),
            |invite, status| {
                let invite = via(invite, &ladder.alice);
                ladder.refused(&invite, status)
            },
        );
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = r#"<?xml version="1.0"?><resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list name="oma_blockedcontacts"><entry uri="tel:+15557770000"/></list></resource-lists>"#;
    let rules = r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r"><conditions><identity><one id="sip:carol@example.net"/></identity>
        <oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list></conditions><actions><oxe:allow-do-not-disturb>true</oxe:allow-do-not-disturb></actions></rule></ruleset>"#;
    crate::proxy::put(folder.path(), "xdm/resource-lists/users/sip:bob@example.net/index", list);
    crate::proxy::put(folder.path(), "xdm/org.openmobilealliance.access-rules/users/sip:bob@example.net/access-rules", rules);
    let mut ladder = Terminating::in_folder(folder, &[""], strict);
    for (service, order) in [
        (LARGE, &[OLD, HIDDEN, HASTY, LISTED, BARE][..]),
        (SESSION, &[OLD, HIDDEN, LISTED, UNWELCOME, LOUD, OTHER_TERMINATING, HASTY]),
    ] {
        let alice = crate::ue::Ue::udp("the name in an INVITE");
        pairs(
            order,
            || Invite::new(&alice, "sip:bob@example.net", service).terminating(),
            |invite, status| {
                let invite = via(invite, &ladder.alice);
                ladder.refused(&invite, status)
            },
        );
    }
}

/// The INVITE as this peer sends it.
fn via(invite: &Invite, from: &crate::ue::Ue) -> Invite {
    let via = invite.get("Via").unwrap_or_default();
    let branch = via.split(';').nth(1).unwrap_or_default();
    invite.clone().with("Via", &format!("SIP/2.0/UDP {};{branch};rport", from.address))
}

#[test]
fn a_session_interval_too_small_is_told_422() {
    let mut ladder = Originating::new("");
    let refusal = ladder.refused(&Invite::new(&ladder.alice, BOB, LARGE).with("Session-Expires", "60"), 422);
    assert!(refusal.want("Min-SE").parse::<u32>().is_ok_and(|seconds| seconds >= 90));
    // Without `Supported: timer` a proxy put the header in: no 422.
    ladder.passes(&Invite::new(&ladder.alice, BOB, LARGE).with("Session-Expires", "60").without("Supported"));
    ladder.passes(&Invite::new(&ladder.alice, BOB, LARGE).without("Session-Expires"));
    proves!("OLM-5.a", "OLM-5.b", "OLM-5.c"; ladder.pf);

    let mut ladder = Terminating::new(&[""], "");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.net", LARGE).terminating();
    let refusal = ladder.refused(&invite.with("Session-Expires", "60"), 422);
    assert!(refusal.want("Min-SE").parse::<u32>().is_ok_and(|seconds| seconds >= 90));
    let invite = Invite::new(&ladder.alice, "sip:bob@example.net", LARGE).terminating();
    ladder.passes(&invite.without("Session-Expires"));
    proves!("TLM-3.a", "TLM-3.b"; ladder.pf);
}

#[test]
fn a_message_whose_time_is_over_is_told_480() {
    let mut ladder = Originating::new("");
    let late = |ladder: &Originating| {
        Invite::new(&ladder.alice, BOB, LARGE).with("Message-Expires", "60").with("Date", "Sat, 13 Nov 2010 23:29:00 GMT")
    };
    let invite = late(&ladder);
    ladder.refused(&invite, 480);
    let valid = Invite::new(&ladder.alice, BOB, LARGE).with("Message-Expires", "3600");
    let (arrived, _) = ladder.passes(&valid);
    assert_eq!(arrived.want("Message-Expires"), "3600");
    assert!(arrived.want("Date").ends_with("GMT"), "the clock does not start again at the next hop");
    proves!("OLM-4.a", "OLM-4.b", "OLM-4.c", "OLM-7.x2"; ladder.pf);

    let mut ladder = Originating::new("[policy]\nexpired_message = \"deliver\"");
    let invite = late(&ladder);
    ladder.passes(&invite);
}

#[test]
fn an_offer_that_cannot_be_served_is_told_488() {
    let mut ladder = Originating::new("");
    let alice = |ladder: &Originating| Invite::new(&ladder.alice, BOB, LARGE);
    let mut none = alice(&ladder).without("Content-Type");
    none.body.clear();
    ladder.refused(&none, 488);
    let invite = alice(&ladder).sdp("a=sendonly", "a=recvonly");
    ladder.refused(&invite, 488);
    let invite = alice(&ladder).sdp("a=setup:actpass", "a=setup:passive");
    ladder.refused(&invite, 488);
    let invite = alice(&ladder).sdp("m=message 9 TCP/MSRP *", "m=audio 4000 RTP/AVP 0");
    ladder.refused(&invite, 488);
    proves!("OLM-7.i.iii.x"; ladder.pf);

    let mut ladder = Terminating::new(&[""], "");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.net", SESSION).terminating();
    let invite = invite.sdp("m=message 9 TCP/MSRP *", "m=audio 4000 RTP/AVP 0\r\nm=message 9 TCP/MSRP *");
    ladder.refused(&invite, 488);
    proves!("TSI-5.a", "TSI-5.b"; ladder.pf);
}
