//! Two hundred INVITEs drawn from a seed, through the program and back: whatever it writes, our own strict parser reads it, and nothing
//! in it is of the other leg.

use crate::ladder::{Originating, Terminating};
use crate::ue::{Invite, LARGE, Message, SESSION, Ue, answer_sdp};
use cpm_pf::base::prng::Prng;
use cpm_pf::mime::multipart;
use cpm_pf::sdp::description::Description;
use cpm_pf::sip::validate;
use std::net::SocketAddr;

/// Header fields that may stand or not, some of them hostile.
const FIELDS: [(&str, &str); 26] = [
    ("Subject", "lunch"),
    ("s", "folded\r\n value"),
    ("X-Unknown", "a, \"b, c\" ;d"),
    ("Privacy", "id;critical"),
    ("Min-SE", "90"),
    ("Message-Expires", "86400"),
    ("Date", "Thu, 01 Feb 2024 09:59:00 GMT"),
    ("Referred-By", "<sip:carol@example.net>"),
    ("History-Info", "<sip:bob@example.net>;index=1"),
    ("P-Charging-Vector", "icid-value=1"),
    ("P-Preferred-Identity", "<sip:mallory@oleg.invalid>"),
    ("Proxy-Authorization", "Digest username=\"oleg\""),
    ("Authorization", "Digest username=\"oleg\""),
    ("Record-Route", "<sip:oleg1.invalid;lr>, <sip:oleg2.invalid;lr>"),
    ("Require", "timer"),
    ("Server", "oleg/1"),
    ("RSeq", "1"),
    ("Content-Language", "en"),
    ("InReplyTo-Contribution-ID", "r"),
    ("Accept-Contact", "*;video"),
    ("Reject-Contact", "*;actor=\"msg-taker\""),
    ("Request-Disposition", "fork"),
    ("Priority", "urgent"),
    ("Timestamp", "54"),
    ("Allow-Events", "oleg"),
    ("P-Access-Network-Info", "3GPP-UTRAN-TDD; utran-cell-id-3gpp=1"),
];

/// Fields that belong to one leg, or that never leave us.
const OF_A_LEG: [&str; 12] = [
    "P-Preferred-Service",
    "P-Preferred-Identity",
    "P-Served-User",
    "Proxy-Authorization",
    "Authorization",
    "RSeq",
    "RAck",
    "Timestamp",
    "Allow-Events",
    "WWW-Authenticate",
    "Path",
    "Service-Route",
];

fn one_of<'a>(prng: &mut Prng, of: &[&'a str]) -> &'a str {
    of[prng.below(of.len() as u64) as usize]
}

fn drawn(prng: &mut Prng, alice: &Ue, to: &str) -> Invite {
    let service = one_of(prng, &[LARGE, SESSION, "session.group"]);
    let mut invite = Invite::new(alice, to, service);
    let contact = match prng.below(4) {
        0 => format!("<sip:conf@{}>;isfocus", alice.address),
        1 => format!("\"oleg, a\" <sip:alice@{}>;+sip.instance=\"<urn:uuid:1>\"", alice.address),
        _ => invite.get("Contact").unwrap_or_default().to_owned(),
    };
    invite = invite.with("Contact", &contact);
    for (name, value) in FIELDS {
        if prng.below(3) == 0 {
            invite = invite.add(name, value);
        }
    }
    if prng.below(4) == 0 {
        let list = "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list><entry uri=\"sip:c@x\"/></list></resource-lists>";
        invite.body = format!(
            "--b1\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--b1\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n{list}\r\n--b1--\r\n",
            invite.body
        );
        invite = invite.with("Content-Type", "multipart/mixed;boundary=b1");
    }
    if prng.below(4) == 0 {
        invite.body = invite.body.replace("a=setup:actpass", "a=setup:active\r\na=crypto:oleg\r\na=candidate:oleg");
    }
    invite
}

/// Our own parser reads it, its SDP is ours, and none of `secrets` stands in it.
#[track_caller]
fn check(message: &Message, secrets: &[&str], msrp: SocketAddr) {
    if let Err(reject) = validate::read(message.0.as_bytes()) {
        // An address that is the ISF's alone.
        assert!(reject.status() == Some(416) && message.uri().starts_with("mailto:"), "{reject:?}\n{message:?}");
    }
    for name in OF_A_LEG {
        assert_eq!(message.header(name), None, "{message:?}");
    }
    for secret in secrets {
        assert!(!message.0.contains(secret), "{secret} is of the other leg:\n{message:?}");
    }
    for once in ["From", "To", "Call-ID", "CSeq", "Content-Length"] {
        assert_eq!(message.all(once).count(), 1, "{once} in\n{message:?}");
    }
    if message.want("CSeq").ends_with("INVITE") && message.status() < 300 {
        assert_eq!(message.all("Contact").count(), 1);
        assert_eq!((message.all("Session-Expires").count(), message.all("Supported").count()), (1, 1));
        let parts =
            multipart::parts_of(message.want("Content-Type"), None, message.body().as_bytes()).expect("a body of ours is read");
        let sdp = Description::parse(&multipart::sdp(&parts).expect("an SDP").body).expect("an SDP of ours is read");
        assert_eq!(sdp.media.len(), 1);
        assert_eq!(message.msrp_address(), msrp);
        assert!(message.attributes("candidate").is_empty() && message.attributes("crypto").is_empty());
    }
}

/// What of the INVITE is the origin's alone.
fn of_origin(invite: &Invite) -> Vec<String> {
    let message = invite.message();
    let branch =
        message.want("Via").split("branch=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default().to_owned();
    let tag = message.want("From").split(";tag=").nth(1).map(|tag| format!(";tag={tag}\r")).unwrap_or_default();
    let path = message.attribute("path").rsplit('/').next().unwrap_or_default().to_owned();
    vec![
        branch,
        tag,
        message.want("Call-ID").to_owned() + "\r",
        path,
        "oleg.invalid".into(),
        "oleg1".into(),
        "CPM-client/".into(),
    ]
}

/// The far side takes the INVITE or not; what alice hears has nothing of that side.
fn answered(prng: &mut Prng, alice: &mut Ue, far: &mut Ue, pf: &crate::proxy::Proxy, invite: &Invite) {
    let conversation = invite.get("Conversation-ID");
    let (arrived, from) =
        far.next("its INVITE", |message| message.method() == "INVITE" && message.header("Conversation-ID") == conversation);
    let secrets = of_origin(invite);
    check(&arrived, &secrets.iter().map(String::as_str).collect::<Vec<_>>(), pf.msrp);
    assert_eq!(
        (arrived.all("P-Asserted-Service").count(), arrived.all("User-Agent").count(), arrived.all("Via").count()),
        (1, 1, 1)
    );
    let takes = prng.below(2) == 0;
    let who = if prng.below(3) == 0 { ("conf", ";isfocus") } else { ("tleg", "") };
    let contact = format!("<sip:{}@{}>{}", who.0, far.address, who.1);
    let extra = format!(
        "Contact: {contact}\nServer: tleg/1\nSupported: timer, 100rel\nAllow-Events: tleg\nRSeq: 7\nWWW-Authenticate: Digest realm=\"tleg\"\nTimestamp: 54\nContent-Type: application/sdp\n"
    );
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    let direction = if arrived.attributes("sendonly").is_empty() { "sendrecv" } else { "recvonly" };
    let sdp = answer_sdp(nowhere, "tleg", "active", direction);
    match takes {
        true => far.answer(&arrived, from, "200 OK", &extra, &sdp),
        false => far.answer(&arrived, from, "603 Decline", "Server: tleg/1\nWWW-Authenticate: Digest realm=\"tleg\"\n", ""),
    }
    let call = invite.get("Call-ID");
    let (heard, _) = alice.next("a final", |message| {
        message.status() >= 200 && message.header("Call-ID") == call && message.want("CSeq").ends_with("INVITE")
    });
    let branch = arrived.want("Via").split("branch=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default();
    check(&heard, &["tleg", branch, arrived.want("Call-ID")], pf.msrp);
    alice.ack(pf.udp, &invite.message(), &heard);
    if heard.status() == 200 {
        let (ack, _) =
            far.next("the ACK", |message| message.method() == "ACK" && message.header("Call-ID") == arrived.header("Call-ID"));
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        check(&ack, &secrets, pf.msrp);
        let bye = alice.in_dialog("BYE", &heard, 1);
        alice.send(pf.udp, &bye);
        if takes {
            let (bye, from) =
                far.next("BYE", |message| message.method() == "BYE" && message.header("Call-ID") == arrived.header("Call-ID"));
            check(&bye, &secrets, pf.msrp);
            far.answer(&bye, from, "200 OK", "", "");
        }
        let (gone, _) =
            alice.next("200 to BYE", |message| message.header("Call-ID") == call && message.want("CSeq").ends_with("BYE"));
        check(&gone, &["tleg", branch], pf.msrp);
    }
}

#[test]
fn two_hundred_invites_and_what_follows_carry_nothing_of_the_other_leg() {
    let mut prng = Prng::seeded(11);
    let policy = "[policy]\nexpired_message = \"deliver\"\nsession_answer = \"late\"\ndelivery = \"reject\"\n[limits]\nsessions_per_originator = 1000";
    let mut ladder = Originating::new(policy);
    for _ in 0..120 {
        let to = one_of(&mut prng, &["sip:bob@example.org", "tel:+15551230002", "mailto:bob@ex.org", "sip:bob@example.org;gr=x"]);
        let invite = drawn(&mut prng, &ladder.alice, to);
        ladder.alice.send(ladder.pf.udp, &invite.text());
        let far = if to.starts_with("mailto:") { &mut ladder.isf } else { &mut ladder.core };
        answered(&mut prng, &mut ladder.alice, far, &ladder.pf, &invite);
    }
    let mut ladder = Terminating::new(&["instance = \"<urn:uuid:00000000-0000-1000-8000-000000000001>\""], policy);
    for _ in 0..80 {
        let invite = drawn(&mut prng, &ladder.alice, "sip:bob@example.net").terminating();
        ladder.alice.send(ladder.pf.udp, &invite.text());
        answered(&mut prng, &mut ladder.alice, &mut ladder.clients[0], &ladder.pf, &invite);
    }
}
