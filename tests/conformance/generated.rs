//! Two hundred INVITEs drawn from a seed: what comes out is never of the wrong leg, and our own parser reads it.

use crate::alice::Alice;
use crate::bob::{Bob, CHAT_SDP, LARGE_SDP, Letter, accepts, icsi, written};
use cpm_pf::base::prng::Prng;
use cpm_pf::cpm::decision::{Decision, Invite};
use cpm_pf::sdp::description::Description;
use cpm_pf::sip::header::name::Name;
use cpm_pf::sip::message::Request;
use cpm_pf::sip::write::Writer;

/// Fields of an INVITE that the dialog, the hop or the shard writes, or that never leaves a trust domain of ours.
const NOT_CARRIED: [&str; 20] = [
    "Via",
    "Route",
    "Record-Route",
    "Max-Forwards",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Content-Type",
    "Content-Length",
    "Content-Disposition",
    "Session-Expires",
    "Min-SE",
    "P-Preferred-Service",
    "P-Served-User",
    "Proxy-Authorization",
    "Authorization",
    "Server",
    "RSeq",
];

/// Fields that may stand or not, some of them hostile.
const FIELDS: [(&str, &str); 30] = [
    ("Subject", "lunch"),
    ("s", "folded\r\n value"),
    ("X-Unknown", "a, \"b, c\" ;d"),
    ("Privacy", "id;critical"),
    ("Session-Expires", "1800;refresher=uac"),
    ("x", "3600"),
    ("Min-SE", "90"),
    ("Message-Expires", "86400"),
    ("Date", "Thu, 01 Feb 2024 09:59:00 GMT"),
    ("Referred-By", "<sip:carol@example.net>"),
    ("History-Info", "<sip:bob@example.net>;index=1"),
    ("P-Charging-Vector", "icid-value=1"),
    ("P-Served-User", "<sip:alice@example.net>;sescase=orig"),
    ("P-Preferred-Identity", "<sip:mallory@example.org>"),
    ("Proxy-Authorization", "Digest username=\"a\""),
    ("Authorization", "Digest username=\"a\""),
    ("Record-Route", "<sip:p1;lr>, <sip:p2;lr>"),
    ("Proxy-Require", "sec-agree"),
    ("Require", "timer"),
    ("Server", "not ours"),
    ("RSeq", "1"),
    ("Content-Disposition", "session"),
    ("Content-Language", "en"),
    ("InReplyTo-Contribution-ID", "r"),
    ("Accept-Contact", "*;video"),
    ("Reject-Contact", "*;actor=\"msg-taker\""),
    ("Request-Disposition", "fork"),
    ("Priority", "urgent"),
    ("Timestamp", "54"),
    ("P-Access-Network-Info", "3GPP-UTRAN-TDD; utran-cell-id-3gpp=1"),
];

fn drawn(prng: &mut Prng) -> Letter {
    let one_of = |prng: &mut Prng, of: &[&str]| of[prng.below(of.len() as u64) as usize].to_string();
    let large = prng.below(2) == 0;
    let short = if large { ["largemsg", "largemsg.group"] } else { ["session", "session.group"] };
    let short = one_of(prng, &short);
    let base = if large { Letter::large().sdp(LARGE_SDP) } else { Letter::session().sdp(CHAT_SDP) };
    let mut letter = base.set("Accept-Contact", &accepts(&short)).without("P-Asserted-Service");
    let service = one_of(prng, &["P-Asserted-Service", "P-Preferred-Service", "X-None"]);
    letter = letter.with(&service, &icsi(&short));
    let contacts = [
        "<sip:alice@192.0.2.1>;audio",
        "<sip:conf@focus.example.net>;isfocus",
        "sip:alice@192.0.2.1",
        "\"a,b\" <sip:alice@192.0.2.1>",
    ];
    letter = letter.set("Contact", &one_of(prng, &contacts));
    letter =
        letter.uri(&one_of(prng, &["sip:bob@example.net", "tel:+15551230002", "mailto:bob@ex.org", "sip:bob@example.net;gr=x"]));
    for (name, value) in FIELDS {
        if prng.below(3) == 0 {
            letter = letter.with(name, value);
        }
    }
    if prng.below(4) == 0 {
        letter = letter.with_list("recipient-list", "<resource-lists><list><entry uri=\"sip:c@x\"/></list></resource-lists>");
    }
    letter
}

/// The INVITE as it would go out, but for what the shard adds.
fn printed(invite: &Invite) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut writer = Writer::request(&mut octets, "INVITE", &invite.request_uri);
    writer.field(Name::From, &format!("{};tag=1", invite.from)).field(Name::To, &invite.to);
    for (name, value) in &invite.headers {
        writer.named(name, value);
    }
    writer.body(written(&invite.media).as_bytes());
    octets
}

fn check(invite: &Invite, seen: &str) {
    for (name, value) in &invite.headers {
        assert!(!NOT_CARRIED.iter().any(|gone| gone.eq_ignore_ascii_case(name)), "{name} is of the other leg: {seen}");
        assert!(!value.contains(['\r', '\n']), "{name} breaks the line: {seen}");
    }
    let read = Request::parse(&printed(invite)).expect("our own parser reads what we write");
    assert_eq!(read.fields().count(), invite.headers.len() + 3, "no value brought a field of its own: {seen}");
    assert_eq!(read.lines(Name::PAssertedService).count(), 1, "{seen}");
    assert_eq!(read.lines(Name::UserAgent).count(), 1, "{seen}");
    assert_eq!(read.lines(Name::Supported).count(), 1, "{seen}");
    assert!(read.lines(Name::AcceptContact).count() >= 1, "{seen}");
    assert!(read.to().expect("a To").tag().is_none(), "{seen}");
    let sdp = Description::parse(read.body()).expect("our own parser reads what we write");
    assert_eq!(sdp.media.len(), invite.media.lines.len());
    assert!(!String::from_utf8_lossy(read.body()).contains("192.0.2.1"), "Alice's address is not told: {seen}");
}

#[test]
fn no_invite_carries_what_belongs_to_the_other_leg() {
    let mut prng = Prng::seeded(7);
    let (alice, bob) = (Alice::new(), Bob::new());
    let mut invites = 0;
    for _ in 0..200 {
        let letter = drawn(&mut prng);
        let seen = {
            let request = letter.request();
            request.head().to_owned() + &String::from_utf8_lossy(request.body())
        };
        for decision in [alice.sends(&letter), bob.gets(&letter)] {
            if let Ok(Decision::Bridge(bridge)) = decision {
                invites += bridge.targets.len();
                bridge.targets.iter().for_each(|invite| check(invite, &seen));
            }
        }
    }
    assert!(invites > 200, "most of them go out: {invites}");
}
