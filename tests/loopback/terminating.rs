//! CR 8.3.1.2 (TLM), 8.3.1.5 (EMS) and 8.3.2.1 (TSI) on the wire.

use crate::ladder::{Terminating, warned};
use crate::msrp::{Msrp, Waiting};
use crate::proves;
use crate::proxy::put;
use crate::ue::{Invite, LARGE, Message, SESSION, answer_sdp};

const BOB: &str = "sip:bob@example.net";
const LARGE_ICSI: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
const SESSION_ICSI: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session";
const FIRST: &str = "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000001>\"\nprimary = true";
const WITH_GRUU: &str = "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000002>\"\ngruu = \"sip:bob@example.net;gr=urn:uuid:00000000-0000-1000-8000-000000000002\"";

/// A folder with Bob's rules: what `actions` holds, for standalone messages of CPM.
fn rules(actions: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    rules_in(&folder, "CPM", "<oxe:media-list><oxe:standalone-message/></oxe:media-list>", actions);
    folder
}

fn rules_in(folder: &tempfile::TempDir, enabler: &str, media: &str, actions: &str) {
    let text = format!(
        r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
        <conditions><oxe:service-list><oxe:service enabler="{enabler}"/></oxe:service-list>{media}</conditions><actions>{actions}</actions></rule></ruleset>"#
    );
    put(folder.path(), "xdm/org.openmobilealliance.access-rules/users/sip:bob@example.net/access-rules", &text);
}

fn blacklist(who: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = format!(
        r#"<?xml version="1.0"?><resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list name="oma_blockedcontacts"><list name="inner"><entry uri="{who}"/></list></list></resource-lists>"#
    );
    put(folder.path(), "xdm/resource-lists/users/sip:bob@example.net/index", &text);
    folder
}

fn interval(message: &Message) -> (u32, String) {
    let value = message.want("Session-Expires");
    let (delta, refresher) = value.split_once(";refresher=").unwrap_or_else(|| panic!("no refresher in {value}"));
    (delta.parse().unwrap_or(0), refresher.to_owned())
}

#[test]
fn each_suitable_client_gets_an_invite_of_its_own() {
    let mut ladder = Terminating::new(
        &[FIRST, WITH_GRUU, "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000003>\"\nuser_agent = \"x\""],
        "",
    );
    // The third client has no tag for large messages.
    ladder.pf.configure(&{
        let list: Vec<_> =
            ladder.clients.iter().map(|ue| ue.address).zip([FIRST, WITH_GRUU, "instance = \"<urn:x:3>\""]).collect();
        crate::proxy::registered(BOB, &list)
            .rsplit_once("features = [\"largemsg\", \"session\", \"msg\"]")
            .map(|(head, tail)| format!("{head}features = [\"msg\"]{tail}"))
            .unwrap_or_default()
    });
    ladder.pf.signal("HUP");
    ladder.pf.until("the reload is told", |pf| pf.log().contains("reload"));

    let invite = ladder.call(LARGE).with("Subject", "lunch").with("InReplyTo-Contribution-ID", "earlier");
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let (first, from_first) = ladder.clients[0].expect_from("INVITE");
    let (second, from_second) = ladder.clients[1].expect_from("INVITE");
    ladder.clients[2].nothing(ladder.pf.udp, "an INVITE it is not suited for", |message| message.method() == "INVITE");

    assert_eq!(first.uri(), BOB, "no GRUU: the address of record");
    let instance = "*;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000000000001>\"";
    assert!(
        first
            .all("Accept-Contact")
            .any(|value| value.starts_with(instance) && value.contains("require") && value.contains("explicit")),
        "{first:?}"
    );
    assert_eq!(second.uri(), "sip:bob@example.net;gr=urn:uuid:00000000-0000-1000-8000-000000000002");
    assert_ne!(first.attribute("path"), second.attribute("path"), "a session id for each leg");
    for arrived in [&first, &second] {
        let (delta, refresher) = interval(arrived);
        assert!((90..1800).contains(&delta) && refresher == "uas", "{delta} {refresher}");
        assert_eq!(arrived.header("Min-SE"), None);
        assert!(arrived.all("Accept-Contact").any(|value| Some(value) == invite.get("Accept-Contact")));
        assert!(
            !arrived.want("Contact").contains(&ladder.alice.address.to_string()) && !arrived.want("Contact").contains("isfocus")
        );
        assert!(arrived.want("User-Agent").starts_with("CPM-serv/OMA2.2") && arrived.want("Supported").contains("timer"));
        assert_eq!(arrived.all("P-Asserted-Service").collect::<Vec<_>>(), [LARGE_ICSI]);
        assert_eq!(
            (arrived.attribute("file-selector"), arrived.attribute("setup"), arrived.attribute("msrp-cema")),
            ("size:4092", "actpass", "")
        );
        assert_eq!(arrived.attributes("sendonly").len(), 1);
        assert!(arrived.body().contains(&format!("m=message {} TCP/MSRP *", ladder.pf.msrp.port())));
        for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID", "Subject"] {
            assert_eq!(arrived.header(name), invite.get(name), "{name}");
        }
    }
    proves!(
        "TLM-0", "TLM-4", "TLM-5.a", "TLM-5.c", "TLM-6.0", "TLM-7.0", "TLM-7.a", "TLM-7.b.1", "TLM-7.d", "TLM-7.e", "TLM-7.f", "TLM-7.g.2", "TLM-7.h.2", "TLM-7.i.1",
        "TLM-7.i.2", "TLM-7.j", "TLM-7.k.0", "TLM-7.k.i", "TLM-7.k.ii", "TLM-7.k.iii", "TLM-7.k.iv", "TLM-7.k.v", "TLM-7.k.vi.1", "TLM-7.l.1"; ladder.pf
    );

    // The first 200 makes the origin's, the second joins: both get every octet.
    let (one, two) = (Waiting::new(), Waiting::new());
    ladder.accept(0, &first, from_first, one.address(), "recvonly");
    let ok = ladder.alice.expect_status(200);
    ladder.accept(1, &second, from_second, two.address(), "recvonly");
    ladder.clients[0].expect("ACK");
    ladder.clients[1].expect("ACK");
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID"] {
        assert_eq!(ok.header(name), invite.get(name), "{name}");
    }
    let (delta, refresher) = interval(&ok);
    assert!((90..=1800).contains(&delta) && refresher == "uac" && ok.want("Require").contains("timer"));
    assert!(ok.want("Supported").contains("timer") && ok.want("Server").starts_with("CPM-serv/OMA2.2"));
    assert_eq!((ok.attributes("recvonly").len(), ok.attribute("setup")), (1, "passive"));
    assert!(!ok.want("Contact").contains(&ladder.clients[0].address.to_string()) && !ok.body().contains("client0"));

    let mut a = one.accept(&format!("msrp://{}/client0;tcp", one.address()), first.attribute("path"));
    let mut b = two.accept(&format!("msrp://{}/client1;tcp", two.address()), second.attribute("path"));
    let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    let body: Vec<u8> = (0..100_000u32).map(|n| (n % 253) as u8).collect();
    sender.send("msg1", &body);
    assert!(a.message() == body && b.message() == body);
    sender.expect("200");
    ladder
        .alice
        .nothing(ladder.pf.udp, "a second 200", |message| message.status() == 200 && message.want("CSeq").ends_with("INVITE"));
    proves!(
        "TLM-8", "TLM-8.b", "EMS-1", "EMS-1.a.1", "EMS-1.a.2", "EMS-1.a.3", "EMS-1.b", "EMS-1.c", "EMS-1.e", "EMS-1.e.i", "EMS-1.e.ii", "EMS-1.e.iii", "EMS-1.e.iv",
        "EMS-1.f", "EMS-1.g.2", "EMS-2"; ladder.pf
    );
}

#[test]
fn a_sender_on_the_blacklist_is_told_122() {
    for (service, who) in [(LARGE, "sip:alice@example.net"), (SESSION, "sip:Alice@EXAMPLE.net")] {
        let who = who.replace("Alice", "alice");
        let mut ladder = Terminating::in_folder(blacklist(&who), &[FIRST], "");
        let invite = ladder.call(service);
        warned(&ladder.refused(&invite, 403), "122 Function not allowed");
        if service == LARGE {
            proves!("TLM-5.a", "TLM-5.b", "TLM-5.d"; ladder.pf);
        } else {
            proves!("TSI-3.a", "TSI-3.b"; ladder.pf);
        }
    }
    let mut ladder = Terminating::in_folder(blacklist("sip:somebody@else.org"), &[FIRST], "");
    for service in [LARGE, SESSION] {
        let invite = ladder.call(service);
        ladder.passes(&invite);
    }
    proves!("TLM-5.c", "TSI-3.c"; ladder.pf);
    let mut ladder = Terminating::in_folder(blacklist("sip:alice@example.net"), &[FIRST], "[policy]\nblacklist = false");
    let invite = ladder.call(LARGE);
    ladder.passes(&invite);
}

#[test]
fn a_rule_to_reject_is_told_122_and_beats_every_other() {
    let both = "<oxe:allow-reject-invite>true</oxe:allow-reject-invite><oxe:allow-defer>true</oxe:allow-defer><oxe:allow-interwork>true</oxe:allow-interwork>";
    let mut ladder = Terminating::in_folder(rules(both), &[FIRST], "");
    let invite = ladder.call(LARGE);
    warned(&ladder.refused(&invite, 403), "122 Function not allowed");
    proves!("TLM-6.a.1", "TLM-6.0.4"; ladder.pf);
    // The rule is for standalone messages; a session asks for do-not-disturb alone.
    let invite = ladder.call(SESSION);
    ladder.passes(&invite);

    let mut ladder = Terminating::in_folder(rules("<oxe:allow-reject-invite>false</oxe:allow-reject-invite>"), &[FIRST], "");
    let invite = ladder.call(LARGE);
    ladder.passes(&invite);
    proves!("TLM-6.a.2", "TLM-6.0.3"; ladder.pf);
    for (enabler, media) in [
        ("PoC", "<oxe:media-list><oxe:standalone-message/></oxe:media-list>"),
        ("CPM", "<oxe:media-list><oxe:video/></oxe:media-list>"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        rules_in(&folder, enabler, media, "<oxe:allow-reject-invite>true</oxe:allow-reject-invite>");
        let mut ladder = Terminating::in_folder(folder, &[FIRST], "");
        let invite = ladder.call(LARGE);
        ladder.passes(&invite);
        proves!("TLM-6.0.1", "TLM-6.0.2"; ladder.pf);
    }
}

#[test]
fn do_not_disturb_defers_a_message_and_refuses_a_session() {
    let mut ladder = Terminating::in_folder(rules("<oxe:allow-do-not-disturb>true</oxe:allow-do-not-disturb>"), &[FIRST], "");
    let invite = ladder.call(LARGE);
    deferred(&mut ladder, &invite, 202);
    proves!("TLM-6.b.1", "TLM-6.b.2"; ladder.pf);

    let folder = tempfile::tempdir().expect("a temporary folder");
    rules_in(&folder, "CPM", "", "<oxe:allow-do-not-disturb>true</oxe:allow-do-not-disturb>");
    let mut ladder = Terminating::in_folder(folder, &[FIRST], "");
    let invite = ladder.call(SESSION);
    assert_eq!(ladder.refused(&invite, 480).header("Warning"), None);
    proves!("TSI-4.a", "TSI-4.b"; ladder.pf);
}

/// The message is taken by the proxy itself, and nobody on the far side hears of it.
#[track_caller]
fn deferred(ladder: &mut Terminating, invite: &Invite, status: u16) {
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let ok = ladder.alice.expect_status(status);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    assert_eq!((ok.attributes("recvonly").len(), ok.attribute("setup")), (1, "passive"));
    assert!(ok.header("Contact").is_some() && ok.want("Server").starts_with("CPM-serv/"));
    let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    sender.send("msg1", b"for later");
    sender.expect("200");
    ladder.quiet();
    let bye = ladder.alice.in_dialog("BYE", &ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    ladder.alice.expect_status(200);
    ladder.pf.until("the message waits", |pf| pf.metric("cpm_pf_deferred_messages", &[]) == 1.0);
}

#[test]
fn a_user_without_a_client_gets_the_message_later() {
    let mut ladder = Terminating::new(&[], "");
    let invite = ladder.call(LARGE);
    deferred(&mut ladder, &invite, 200);
    proves!("TLM-7.b.2"; ladder.pf);

    // He registers: the message comes.
    let mut bob = crate::ue::Ue::udp("bob");
    ladder.pf.configure(&crate::proxy::registered(BOB, &[(bob.address, FIRST)]));
    ladder.pf.signal("HUP");
    let (arrived, from) = bob.expect_from("INVITE");
    assert_eq!(arrived.header("Contribution-ID"), invite.get("Contribution-ID"));
    assert_eq!(arrived.uri_in("P-Asserted-Identity"), "sip:alice@example.net");
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "late", "passive", "recvonly");
    bob.answer(&arrived, from, "200 OK", &format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", bob.address), &sdp);
    let mut receiver = waiting.accept(&format!("msrp://{}/late;tcp", waiting.address()), arrived.attribute("path"));
    assert_eq!(receiver.message(), b"for later");
    ladder.pf.until("nothing waits any more", |pf| pf.metric("cpm_pf_deferred_messages", &[]) == 0.0);
    let (bye, from) = bob.expect_from("BYE");
    bob.answer(&bye, from, "200 OK", "", "");
}

#[test]
fn a_rule_to_defer_or_to_store_makes_us_the_endpoint() {
    let mut ladder = Terminating::in_folder(rules("<oxe:allow-defer>true</oxe:allow-defer>"), &[FIRST], "");
    let invite = ladder.call(LARGE).without("Session-Expires");
    deferred(&mut ladder, &invite, 200);
    proves!("TLM-6.f.0", "TLM-6.f.i", "TLM-6.f.ii", "EMS-1.d.1", "EMS-1.d.2"; ladder.pf);

    let mut ladder = Terminating::in_folder(rules("<oxe:allow-store>true</oxe:allow-store>"), &[FIRST], "");
    let invite = ladder.call(LARGE);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    sender.send("msg1", b"to be stored for bob");
    sender.expect("200");
    ladder.quiet();
    let history = ladder.pf.path("var/history");
    assert!(holds(&history, b"to be stored for bob"), "the store has the message once it was answered");
    proves!("TLM-6.d.0", "TLM-6.d.i", "TLM-6.d.ii.1"; ladder.pf);
}

/// Whether a file below the folder holds the octets.
pub fn holds(folder: &std::path::Path, octets: &[u8]) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            holds(&path, octets)
        } else {
            std::fs::read(&path).is_ok_and(|text| memchr::memmem::find(&text, octets).is_some())
        }
    })
}

#[test]
fn a_rule_to_interwork_sends_it_to_the_isf() {
    for (action, clients_too) in [("allow-interwork", false), ("allow-deliver-and-interwork", true)] {
        let mut ladder = Terminating::in_folder(rules(&format!("<oxe:{action}>true</oxe:{action}>")), &[FIRST], "");
        let invite = ladder
            .call(LARGE)
            .without("P-Asserted-Service")
            .with("P-Preferred-Service", LARGE_ICSI)
            .with("Subject", "s")
            .with("InReplyTo-Contribution-ID", "e");
        ladder.alice.send(ladder.pf.udp, &invite.text());
        let (arrived, from) = ladder.isf.expect_from("INVITE");
        assert_ne!(arrived.want("Call-ID"), invite.get("Call-ID").unwrap());
        for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID", "Subject"] {
            assert_eq!(arrived.header(name), invite.get(name), "{name}");
        }
        assert!(arrived.all("Accept-Contact").any(|value| Some(value) == invite.get("Accept-Contact")));
        assert_eq!(arrived.want("P-Asserted-Service"), "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg.largemsg");
        assert_eq!((arrived.header("P-Preferred-Service"), arrived.header("Min-SE")), (None, None));
        let (delta, refresher) = interval(&arrived);
        assert!((90..1800).contains(&delta) && refresher == "uac");
        assert!(arrived.want("Supported").contains("timer") && !arrived.want("Supported").contains("recipient-list-invite"));
        assert!(!arrived.want("Contact").contains(&ladder.alice.address.to_string()));
        assert!(arrived.want("User-Agent").starts_with("CPM-serv/OMA2.2"));
        assert_eq!(
            (arrived.attribute("setup"), arrived.attributes("sendonly").len(), arrived.attribute("file-selector")),
            ("actpass", 1, "size:4092")
        );
        if clients_too {
            ladder.clients[0].expect("INVITE");
        } else {
            ladder.clients[0].nothing(ladder.pf.udp, "what goes to the ISF alone", |message| message.method() == "INVITE");
            proves!("TLM-6.c.z1"; ladder.pf);
        }
        let waiting = Waiting::new();
        let extra = format!("Contact: <sip:isf@{}>\nContent-Type: application/sdp\n", ladder.isf.address);
        ladder.isf.answer(&arrived, from, "200 OK", &extra, &answer_sdp(waiting.address(), "isf", "passive", "recvonly"));
        ladder.alice.expect_status(200);
        proves!(
            "TLM-6.c.0", "TLM-6.c.i", "TLM-6.c.ii.1", "TLM-6.c.ii.2", "TLM-6.c.ii.3", "TLM-6.c.ii.5", "TLM-6.c.ii.6", "TLM-6.c.iii.1", "TLM-6.c.iv", "TLM-6.c.v",
            "TLM-6.c.vi", "TLM-6.c.vii.1", "TLM-6.c.viii.2", "TLM-6.c.ix", "TLM-6.c.x.0", "TLM-6.c.x.1", "TLM-6.c.x.2", "TLM-6.c.x.3", "TLM-6.c.x.4", "TLM-6.c.x.5",
            "TLM-6.c.xi", "TLM-6.c.z2"; ladder.pf
        );
    }
    let mut ladder = Terminating::in_folder(
        rules("<oxe:allow-interwork>true</oxe:allow-interwork>"),
        &[FIRST],
        "[policy]\nisf_service = \"largemsg\"",
    );
    let invite = ladder.call(LARGE).without("P-Asserted-Service").with("P-Preferred-Service", LARGE_ICSI);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    assert_eq!(ladder.isf.expect("INVITE").want("P-Asserted-Service"), LARGE_ICSI);
}

#[test]
fn a_rule_to_forward_changes_the_recipient() {
    let carol = crate::ue::Ue::udp("carol");
    let target = format!("sip:carol@{}", carol.address);
    let mut ladder =
        Terminating::in_folder(rules(&format!("<oxe:allow-forward uri=\"{target}\">true</oxe:allow-forward>")), &[FIRST], "");
    let mut carol = carol;
    let invite = ladder.call(LARGE);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    assert_eq!(carol.expect("INVITE").uri(), target);
    ladder.quiet();
    proves!("TLM-6.e.1", "TLM-6.e.2"; ladder.pf);
}

#[test]
fn when_every_client_refuses_the_refusal_is_passed_on_and_when_none_answers_it_is_kept() {
    let mut ladder = Terminating::new(&[FIRST, WITH_GRUU], "");
    let invite = ladder.call(LARGE);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    for client in &mut ladder.clients {
        let (arrived, from) = client.expect_from("INVITE");
        client.answer(&arrived, from, "603 Decline", "", "");
        client.expect("ACK");
    }
    ladder.alice.expect_status(603);

    let invite = ladder.call(LARGE);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    for client in &mut ladder.clients {
        let (arrived, from) = client.expect_from("INVITE");
        client.answer(&arrived, from, "480 Temporarily Unavailable", "", "");
        client.expect("ACK");
    }
    ladder.alice.expect_status(200);
    proves!("TLM-10"; ladder.pf);
}

#[test]
fn a_session_is_answered_at_once_and_offered_to_each_client() {
    let mut ladder = Terminating::new(&[FIRST, WITH_GRUU], "");
    let invite = ladder.call(SESSION).with("Subject", "s").with("InReplyTo-Contribution-ID", "e");
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID"] {
        assert_eq!(ok.header(name), invite.get(name), "{name}");
    }
    assert!(ok.want("Server").starts_with("CPM-serv/OMA2.2"));
    assert_eq!(ok.attribute("setup"), "passive");
    let token = ok.uri_in("Contact").to_owned();
    assert!(!token.contains(&ladder.alice.address.to_string()));

    let (first, from_first) = ladder.clients[0].expect_from("INVITE");
    let (second, from_second) = ladder.clients[1].expect_from("INVITE");
    assert_eq!((first.uri(), second.uri()), (BOB, "sip:bob@example.net;gr=urn:uuid:00000000-0000-1000-8000-000000000002"));
    assert!(
        first
            .all("Accept-Contact")
            .any(|value| value == "*;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000000000001>\";require;explicit"
                || value == "*;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000000000001>\";explicit;require"),
        "{first:?}"
    );
    assert!(!second.all("Accept-Contact").any(|value| value.contains("sip.instance")));
    for arrived in [&first, &second] {
        let (delta, refresher) = interval(arrived);
        assert!((90..1800).contains(&delta) && refresher == "uas", "{delta} {refresher}");
        assert!(arrived.want("Supported").contains("timer") && arrived.want("Supported").contains("recipient-list-invite"));
        assert_eq!((arrived.header("Min-SE"), arrived.header("P-Preferred-Service")), (None, None));
        assert_eq!(arrived.want("P-Asserted-Service"), SESSION_ICSI);
        assert!(arrived.want("User-Agent").starts_with("CPM-serv/OMA2.2"));
        assert!(!arrived.want("Contact").contains(&ladder.alice.address.to_string()));
        assert_eq!((arrived.attribute("setup"), arrived.attributes("sendrecv").len()), ("actpass", 1));
        for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID", "Subject", "P-Asserted-Identity"] {
            assert_eq!(arrived.header(name), invite.get(name), "{name}");
        }
    }
    proves!(
        "TSI-0", "TSI-5.c", "TSI-6.a", "TSI-6.c", "TSI-7.iii.1", "TSI-8", "TSI-8.a", "TSI-8.a.i.1", "TSI-8.a.i.2", "TSI-8.a.i.3", "TSI-8.a.ii.1", "TSI-8.a.ii.2",
        "TSI-8.a.ii.3.a", "TSI-8.a.ii.3.b", "TSI-8.a.x", "TSI-8.b", "TSI-8.b.ii.1", "TSI-8.b.ii.4", "TSI-8.c", "TSI-8.d", "TSI-8.d.i.1", "TSI-8.d.i.2", "TSI-8.d.ii",
        "TSI-8.d.iii", "TSI-8.d.iv.1", "TSI-8.d.iv.2", "TSI-8.d.iv.3", "TSI-8.d.v.2", "TSI-8.d.vi.0", "TSI-8.d.vi.1", "TSI-8.d.vi.2", "TSI-8.d.vi.3", "TSI-8.d.vi.4",
        "TSI-8.d.vi.5", "TSI-8.d.viii.1", "TSI-8.d.viii.2", "TSI-8.d.viii.3", "TSI-8.e"; ladder.pf
    );

    let (one, two) = (Waiting::new(), Waiting::new());
    ladder.accept(0, &first, from_first, one.address(), "sendrecv");
    ladder.accept(1, &second, from_second, two.address(), "sendrecv");
    ladder.clients[0].expect("ACK");
    ladder.clients[1].expect("ACK");
    let mut a = one.accept(&format!("msrp://{}/client0;tcp", one.address()), first.attribute("path"));
    let mut b = two.accept(&format!("msrp://{}/client1;tcp", two.address()), second.attribute("path"));
    let mut alice = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    alice.send("msg1", b"hello both");
    assert_eq!((a.message(), b.message()), (b"hello both".to_vec(), b"hello both".to_vec()));
    alice.expect("200");
    a.send("msg2", b"hello alice");
    assert_eq!(alice.message(), b"hello alice");
    a.expect("200");
}

#[test]
fn a_session_with_a_late_answer_waits_for_the_client() {
    let mut ladder = Terminating::new(&[FIRST], "[policy]\nsession_answer = \"late\"");
    let invite = ladder.call(SESSION);
    let (arrived, from) = ladder.passes(&invite);
    ladder.alice.nothing(ladder.pf.udp, "a 200 before the client's", |message| {
        message.status() == 200 && message.want("CSeq").ends_with("INVITE")
    });
    let waiting = Waiting::new();
    ladder.accept(0, &arrived, from, waiting.address(), "sendrecv");
    let ok = ladder.alice.expect_status(200);
    assert_eq!(ok.attribute("setup"), "passive");
}

#[test]
fn a_session_nobody_can_take_is_told_480() {
    let mut ladder = Terminating::new(&[], "[policy]\ndelivery = \"reject\"");
    let invite = ladder.call(SESSION);
    ladder.refused(&invite, 480);
    proves!("TSI-6.b"; ladder.pf);
}

#[test]
fn when_all_clients_refuse_an_answered_session_the_origin_gets_a_bye_with_the_reason() {
    let mut ladder = Terminating::new(&[FIRST], "[policy]\ndelivery = \"reject\"");
    let invite = ladder.call(SESSION);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    let (arrived, from) = ladder.clients[0].expect_from("INVITE");
    ladder.clients[0].answer(&arrived, from, "486 Busy Here", "", "");
    ladder.clients[0].expect("ACK");
    let (bye, from) = ladder.alice.expect_from("BYE");
    assert!(bye.want("Reason").starts_with("SIP") && bye.want("Reason").contains("cause=480"), "{bye:?}");
    ladder.alice.answer(&bye, from, "200 OK", "", "");
    proves!("TSI-9"; ladder.pf);
}

#[test]
fn a_recipient_list_becomes_history_without_its_blind_copies() {
    let mut ladder = Terminating::new(&[FIRST], "");
    let list = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\" xmlns:cp=\"urn:ietf:params:xml:ns:copycontrol\"><list>\
        <entry uri=\"sip:bob@example.net\" cp:copyControl=\"to\"/><entry uri=\"sip:carol@example.net\" cp:copyControl=\"cc\"/>\
        <entry uri=\"sip:secret@example.net\" cp:copyControl=\"bcc\"/><entry uri=\"sip:shy@example.net\" cp:copyControl=\"to\" cp:anonymize=\"true\"/></list></resource-lists>";
    let mut invite = ladder.call(SESSION).with("Content-Type", "multipart/mixed;boundary=b1");
    invite.body = format!(
        "--b1\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--b1\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n{list}\r\n--b1--\r\n",
        invite.body
    );
    let (arrived, _) = ladder.passes(&invite);
    let body = arrived.body();
    assert!(
        body.contains("Content-Disposition: recipient-list-history; handling=optional")
            || body.contains("Content-Disposition: recipient-list-history;handling=optional"),
        "{body}"
    );
    assert!(!body.contains("Content-Disposition: recipient-list\r\n"));
    assert!(body.contains("sip:bob@example.net") && body.contains("sip:carol@example.net"));
    assert!(!body.contains("secret") && !body.contains("shy@") && body.contains("anonymous@anonymous.invalid"));
    proves!("TSI-8.d.vii.1", "TSI-8.d.vii.2", "TSI-8.d.vii.3"; ladder.pf);
}

#[test]
fn a_token_contact_resolves_back_to_the_original() {
    let mut ladder = Terminating::new(&[FIRST], "");
    let invite = ladder.call(SESSION);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    // TSI-8.a.ii.2: the 200's Contact stands for what came in the INVITE's.
    let request = format!(
        "OPTIONS {} SIP/2.0\nVia: SIP/2.0/UDP {};branch=z9hG4bKtoken;rport\nMax-Forwards: 70\nFrom: <sip:bob@example.net>;tag=1\nTo: <sip:alice@example.net>\nCall-ID: token\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n",
        ok.uri_in("Contact"),
        ladder.clients[0].address
    );
    let pf = ladder.pf.udp;
    ladder.clients[0].send(pf, &request);
    let (arrived, _) = ladder.alice.expect_from("OPTIONS");
    assert_eq!(
        arrived.uri(),
        invite.get("Contact").and_then(|contact| contact.split_once('<')?.1.split_once('>')).map_or("", |(uri, _)| uri)
    );
}
