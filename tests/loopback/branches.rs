//! The rarer branches of the procedures on the wire: a focus that calls in, the ISF's share, replaced sessions, own clients.

use crate::ladder::{Originating, Terminating, warned};
use crate::msrp::{Msrp, Waiting};
use crate::proves;
use crate::proxy::{Proxy, put, registered};
use crate::ue::{Invite, LARGE, SESSION, Ue, answer_sdp};

const BOB: &str = "sip:bob@example.net";
const LARGE_ICSI: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
const SESSION_ICSI: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session";
const FIRST: &str = "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000001>\"";

#[test]
fn a_focus_that_calls_keeps_its_contact_towards_clients_and_isf() {
    let mut ladder = Terminating::new(&[FIRST], "");
    for service in [LARGE, SESSION] {
        let focus = format!("<sip:conference@{}>;isfocus", ladder.alice.address);
        let invite = ladder.call(service).with("Contact", &focus);
        let (arrived, from) = ladder.passes(&invite);
        assert_eq!(arrived.want("Contact"), focus);
        assert!(arrived.want("Record-Route").contains(";lr"));
        let waiting = Waiting::new();
        let direction = if service == LARGE { "recvonly" } else { "sendrecv" };
        ladder.accept(0, &arrived, from, waiting.address(), direction);
        let ok = ladder.alice.expect_status(200);
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
        ladder.clients[0].expect("ACK");
        // The client's BYE is for the focus and comes by way of us.
        let bye = ladder.clients[0].in_dialog_back("BYE", &arrived, 1);
        assert!(bye.starts_with("BYE sip:conference@"));
        ladder.clients[0].send(from, &bye);
        ladder.clients[0].expect_status(200);
        let (bye, from) = ladder.alice.expect_from("BYE");
        assert_eq!(bye.want("Call-ID"), invite.get("Call-ID").unwrap());
        ladder.alice.answer(&bye, from, "200 OK", "", "");
    }
    proves!("TLM-7.g.1", "TLM-7.h.1", "TSI-8.d.v.1"; ladder.pf);
}

#[test]
fn a_client_that_is_a_focus_shows_its_contact_to_the_origin() {
    let mut ladder = Terminating::new(&[FIRST], "");
    let invite = ladder.call(LARGE);
    let (arrived, from) = ladder.passes(&invite);
    let waiting = Waiting::new();
    let focus = format!("<sip:focus@{}>;isfocus", ladder.clients[0].address);
    let sdp = answer_sdp(waiting.address(), "f", "passive", "recvonly");
    ladder.clients[0].answer(&arrived, from, "200 OK", &format!("Contact: {focus}\nContent-Type: application/sdp\n"), &sdp);
    let ok = ladder.alice.expect_status(200);
    assert_eq!(ok.want("Contact"), focus);
    assert!(ok.want("Record-Route").contains(";lr"));
    proves!("EMS-1.g.1"; ladder.pf);
}

#[test]
fn without_a_primary_device_the_isf_is_asked_too() {
    let mut ladder = Terminating::new(&[FIRST], "[policy]\nisf_without_primary_device = true");
    let invite = ladder.call(LARGE);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    ladder.clients[0].expect("INVITE");
    let arrived = ladder.isf.expect("INVITE");
    assert_eq!((arrived.uri(), arrived.attribute("setup")), (BOB, "actpass"));
    proves!("TLM-7.c.1", "TLM-7.c.2", "TLM-7.l.2"; ladder.pf);

    let mut ladder = Terminating::new(&[&format!("{FIRST}\nprimary = true")], "[policy]\nisf_without_primary_device = true");
    let invite = ladder.call(LARGE);
    ladder.passes(&invite);
    ladder.isf.nothing(ladder.pf.udp, "an INVITE though the primary device is on", |message| message.method() == "INVITE");
}

#[test]
fn the_isf_gets_the_services_as_printed_and_the_lists_it_supports() {
    let rules = r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
        <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list><oxe:media-list><oxe:standalone-message/></oxe:media-list></conditions>
        <actions><oxe:allow-interwork>true</oxe:allow-interwork></actions></rule></ruleset>"#;
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "xdm/org.openmobilealliance.access-rules/users/sip:bob@example.net/access-rules", rules);
    let mut ladder = Terminating::in_folder(folder, &[FIRST], "");
    let group = format!("{LARGE_ICSI}.group");
    let preferred = ladder
        .call(LARGE)
        .without("P-Asserted-Service")
        .with("P-Preferred-Service", &group)
        .with("Supported", "timer, recipient-list-invite");
    let focus = format!("<sip:focus@{}>;isfocus", ladder.alice.address);
    ladder.alice.send(ladder.pf.udp, &preferred.with("Contact", &focus).text());
    let arrived = ladder.isf.expect("INVITE");
    assert_eq!(arrived.want("P-Asserted-Service"), "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg.largemsg.group");
    assert!(arrived.want("Supported").contains("recipient-list-invite"));
    assert_eq!(arrived.want("Contact"), focus);
    for icsi in [LARGE_ICSI, group.as_str()] {
        let asserted = ladder.call(LARGE).with("P-Asserted-Service", icsi);
        ladder.alice.send(ladder.pf.udp, &asserted.text());
        assert_eq!(ladder.isf.expect("INVITE").all("P-Asserted-Service").collect::<Vec<_>>(), [icsi]);
    }
    let other = ladder.call(LARGE).with("P-Asserted-Service", "urn:urn-7:3gpp-service.ims.icsi.mmtel");
    ladder.refused(&other, 403);
    proves!(
        "TLM-6.c.ii.4", "TLM-6.c.iii.2", "TLM-6.c.vii.2", "TLM-6.c.vii.3", "TLM-6.c.vii.4", "TLM-6.c.vii.5", "TLM-6.c.viii.1"; ladder.pf
    );
}

#[test]
fn services_of_a_session_are_asserted_or_refused_with_122() {
    let mut ladder = Terminating::new(&[FIRST], "[policy]\nsession_answer = \"late\"");
    let group = format!("{SESSION_ICSI}.group");
    for icsi in [SESSION_ICSI, group.as_str()] {
        let invite = ladder.call(SESSION).without("P-Asserted-Service").with("P-Preferred-Service", icsi);
        let (arrived, _) = ladder.passes(&invite);
        assert_eq!(
            (arrived.all("P-Asserted-Service").collect::<Vec<_>>(), arrived.header("P-Preferred-Service")),
            (vec![icsi], None)
        );
    }
    let other = ladder.call(SESSION).with("P-Asserted-Service", "urn:urn-7:3gpp-service.ims.icsi.mmtel");
    warned(&ladder.refused(&other, 403), "122 Function not allowed");
    proves!("TSI-7.i", "TSI-7.ii", "TSI-7.iii.2", "TSI-7.iii.3"; ladder.pf);
}

#[test]
fn a_session_that_replaces_another_goes_to_the_clients_of_that_one() {
    let second = "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000002>\"";
    let mut ladder = Terminating::new(&[FIRST, second], "");
    // The session that is to be replaced: only the first client took it.
    let invite = ladder.call(SESSION).with("Contribution-ID", "old-session");
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    let (first, from) = ladder.clients[0].expect_from("INVITE");
    let waiting = Waiting::new();
    ladder.accept(0, &first, from, waiting.address(), "sendrecv");
    ladder.clients[0].expect("ACK");
    let (other, from) = ladder.clients[1].expect_from("INVITE");
    ladder.clients[1].answer(&other, from, "486 Busy Here", "", "");
    ladder.clients[1].expect("ACK");

    let replacing = ladder.call(SESSION).with("Session-Replaces", "old-session");
    ladder.alice.send(ladder.pf.udp, &replacing.text());
    let (arrived, from) = ladder.clients[0].expect_from("INVITE");
    assert_eq!(arrived.want("Session-Replaces"), "old-session");
    ladder.clients[1].nothing(ladder.pf.udp, "an INVITE for a session it is not in", |message| message.method() == "INVITE");
    ladder.alice.nothing(ladder.pf.udp, "an early 200", |message| {
        message.status() == 200 && message.header("Call-ID") == replacing.get("Call-ID")
    });
    let waiting = Waiting::new();
    ladder.accept(0, &arrived, from, waiting.address(), "sendrecv");
    let ok = ladder.alice.expect_status(200);
    assert_eq!(ok.header("Call-ID"), replacing.get("Call-ID"));
    proves!("TSI-8.b.i.1", "TSI-8.b.i.2"; ladder.pf);
}

#[test]
fn a_session_that_its_user_began_is_replaced_on_the_client_it_began_on() {
    let (mut alice, mut bob, mut tablet) = (Ue::udp("alice"), Ue::udp("bob"), Ue::udp("tablet"));
    let other = "instance = \"<urn:uuid:00000000-0000-1000-8000-00000000000b>\"";
    let pf = Proxy::start(&registered("sip:alice@example.net", &[(alice.address, FIRST), (tablet.address, other)]));
    // Her Contact has a parameter more than what she registered.
    let invite = Invite::new(&alice, &format!("sip:bob@{}", bob.address), SESSION).with("Contribution-ID", "one-to-one");
    alice.send(pf.udp, &invite.text());
    let (arrived, from) = bob.expect_from("INVITE");
    let waiting = Waiting::new();
    let extra = format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", bob.address);
    bob.answer(&arrived, from, "200 OK", &extra, &answer_sdp(waiting.address(), "bob", "passive", "sendrecv"));
    let ok = alice.expect_status(200);
    alice.ack(pf.udp, &invite.message(), &ok);
    bob.expect("ACK");

    let replacing = Invite::new(&bob, "sip:alice@example.net", SESSION).terminating().with("Session-Replaces", "one-to-one");
    bob.send(pf.udp, &replacing.text());
    assert_eq!(alice.expect("INVITE").want("Session-Replaces"), "one-to-one");
    tablet.nothing(pf.udp, "an INVITE for a session it is not in", |message| message.method() == "INVITE");
    proves!("TSI-8.b.i.1"; pf);
}

#[test]
fn streams_the_isf_rejected_are_offered_again_in_a_session_of_their_own() {
    let mut ladder = Originating::new("[policy]\nmedia = [\"message\", \"audio\"]");
    let invite = Invite::new(&ladder.alice, "mailto:bob@example.org", SESSION);
    let second = invite.body.split("m=message").nth(1).unwrap_or("").replace("x", "y");
    let mut invite = invite;
    invite.body = format!("{}m=message{second}", invite.body);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let (arrived, from) = ladder.isf.expect_from("INVITE");
    assert_eq!(arrived.body().matches("m=message").count(), 2);
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "isf", "passive", "sendrecv") + "m=message 0 TCP/MSRP *\r\n";
    let extra = format!("Contact: <sip:isf@{}>\nContent-Type: application/sdp\n", ladder.isf.address);
    ladder.isf.answer(&arrived, from, "200 OK", &extra, &sdp);
    let ok = ladder.alice.expect_status(200);
    assert_eq!(ok.body().matches("m=message").count(), 2);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    let again = ladder.isf.expect("INVITE");
    assert_ne!(again.want("Call-ID"), arrived.want("Call-ID"));
    assert_eq!((again.body().matches("m=message").count(), again.attribute("setup")), (1, "actpass"));
    assert_eq!(again.header("User-Agent"), None);
    assert_eq!(again.header("Contribution-ID"), invite.get("Contribution-ID"));
    ladder.core.nothing(ladder.pf.udp, "what was the ISF's", |message| message.method() == "INVITE");
    proves!("OSI-r1", "OSI-r1.0", "OSI-r1.a", "OSI-r1.b", "OSI-r1.b.i", "OSI-r1.b.ii.1", "OSI-r1.b.ii.2", "OSI-r1.b.iii"; ladder.pf);

    let mut ladder = Originating::new("[policy]\nretry_rejected_media = false");
    let mut invite = Invite::new(&ladder.alice, "mailto:bob@example.org", SESSION);
    invite.body = format!("{}m=message{second}", invite.body);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let (arrived, from) = ladder.isf.expect_from("INVITE");
    ladder.isf.answer(&arrived, from, "200 OK", &extra, &sdp);
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    ladder.isf.nothing(ladder.pf.udp, "a second INVITE", |message| message.method() == "INVITE");
}

#[test]
fn the_originators_other_clients_join_the_session() {
    let (mut alice, mut core, mut tablet) = (Ue::udp("alice"), Ue::udp("core"), Ue::udp("tablet"));
    let own = "instance = \"<urn:uuid:00000000-0000-1000-8000-00000000000a>\"";
    let other = "instance = \"<urn:uuid:00000000-0000-1000-8000-00000000000b>\"\ngruu = \"sip:alice@example.net;gr=tablet\"";
    let clients = registered("sip:alice@example.net", &[(alice.address, own), (tablet.address, other)]);
    // Without a core the copies go to the clients' contacts; the session itself to the address it names.
    let pf = Proxy::start(&format!("[policy]\ndeliver_to_own_clients = true\n{clients}"));
    let invite = Invite::new(&alice, &format!("sip:bob@{}", core.address), SESSION);
    let contact = format!("<sip:alice@{}>;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-00000000000a>\"", alice.address);
    let invite = invite.with("Contact", &contact).with("Subject", "s");
    alice.send(pf.udp, &invite.text());
    let (arrived, from) = core.expect_from("INVITE");
    let waiting = Waiting::new();
    let extra = |ue: &Ue| format!("Contact: <sip:x@{}>\nContent-Type: application/sdp\n", ue.address);
    core.answer(&arrived, from, "200 OK", &extra(&core), &answer_sdp(waiting.address(), "bob", "passive", "sendrecv"));
    let ok = alice.expect_status(200);
    alice.ack(pf.udp, &invite.message(), &ok);
    core.expect("ACK");

    let (copy, from) = tablet.expect_from("INVITE");
    assert_eq!(copy.uri(), "sip:alice@example.net;gr=tablet");
    for name in ["Subject", "Conversation-ID", "Contribution-ID"] {
        assert_eq!(copy.header(name), invite.get(name), "{name}");
    }
    let beside = Waiting::new();
    tablet.answer(&copy, from, "200 OK", &extra(&tablet), &answer_sdp(beside.address(), "tablet", "passive", "sendrecv"));
    tablet.expect("ACK");
    let mut bob = waiting.accept(&format!("msrp://{}/bob;tcp", waiting.address()), arrived.attribute("path"));
    let mut side = beside.accept(&format!("msrp://{}/tablet;tcp", beside.address()), copy.attribute("path"));
    let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    sender.send("msg1", b"to bob and to my tablet");
    assert_eq!(bob.message(), b"to bob and to my tablet");
    assert_eq!(side.message(), b"to bob and to my tablet");
    sender.expect("200");
    alice.nothing(pf.udp, "a copy of its own session", |message| message.method() == "INVITE");
    proves!("OSI-r8", "OSI-r8.a", "OSI-r8.b", "OSI-r8.b.i", "OSI-r8.b.ii", "OSI-r8.c", "OSI-r8.d.1", "OSI-r8.d.2"; pf);
}

#[test]
fn own_clients_of_another_version_get_no_copy() {
    let (mut alice, mut core, mut tablet) = (Ue::udp("alice"), Ue::udp("core"), Ue::udp("tablet"));
    let own = "instance = \"<urn:uuid:00000000-0000-1000-8000-00000000000a>\"\nuser_agent = \"CPM-client/OMA2.2\"";
    let other = "instance = \"<urn:uuid:00000000-0000-1000-8000-00000000000b>\"\nuser_agent = \"CPM-client/OMA1.0\"";
    let clients = registered("sip:alice@example.net", &[(alice.address, own), (tablet.address, other)]);
    let pf = Proxy::start(&format!("[policy]\ndeliver_to_own_clients = true\nuser_agents = [\"CPM-client/OMA2.*\"]\n{clients}"));
    let contact = format!("<sip:alice@{}>;+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-00000000000a>\"", alice.address);
    let invite = Invite::new(&alice, &format!("sip:bob@{}", core.address), SESSION).with("Contact", &contact);
    alice.send(pf.udp, &invite.text());
    let (arrived, from) = core.expect_from("INVITE");
    let waiting = Waiting::new();
    let extra = format!("Contact: <sip:x@{}>\nContent-Type: application/sdp\n", core.address);
    core.answer(&arrived, from, "200 OK", &extra, &answer_sdp(waiting.address(), "bob", "passive", "sendrecv"));
    let ok = alice.expect_status(200);
    alice.ack(pf.udp, &invite.message(), &ok);
    core.expect("ACK");
    for ue in [&mut tablet, &mut alice] {
        ue.nothing(pf.udp, "a copy that its version does not allow", |message| message.method() == "INVITE");
    }
    proves!("OSI-r8.a", "OSI-r8.a.i"; pf);
}

#[test]
fn legacy_session_matching_accepts_another_authority_where_it_is_configured() {
    let mut ladder = Terminating::new(&[FIRST], "[msrp]\ninterop = \"auto\"");
    let invite = ladder.call(LARGE).sdp("a=msrp-cema\r\n", "");
    let (arrived, from) = ladder.passes(&invite);
    let waiting = Waiting::new();
    ladder.accept(0, &arrived, from, waiting.address(), "recvonly");
    let ok = ladder.alice.expect_status(200);
    assert!(ok.attributes("msrp-cema").is_empty());
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    let mut receiver = waiting.accept(&format!("msrp://{}/client0;tcp", waiting.address()), arrived.attribute("path"));
    let elsewhere = ok.attribute("path").replace("127.0.0.1", "192.0.2.7");
    let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), &elsewhere);
    sender.send("msg1", b"by id alone");
    assert_eq!(receiver.message(), b"by id alone");
    proves!("EMS-1.e.v.1"; ladder.pf);

    // Where it is not, or where both know how to go without: another authority names no session of ours.
    for (more, without) in [("", true), ("[msrp]\ninterop = \"auto\"", false)] {
        let mut ladder = Terminating::new(&[FIRST], more);
        let mut invite = ladder.call(LARGE).sdp("m=message 9", "m=message 7654").sdp("127.0.0.1:9/", "127.0.0.1:7654/");
        if without {
            invite = invite.sdp("a=msrp-cema\r\n", "");
        }
        let (arrived, from) = ladder.passes(&invite);
        let waiting = Waiting::new();
        ladder.accept(0, &arrived, from, waiting.address(), "recvonly");
        let ok = ladder.alice.expect_status(200);
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
        let elsewhere = ok.attribute("path").replace("127.0.0.1", "192.0.2.7");
        let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), &elsewhere);
        sender.send("msg1", b"by id alone");
        sender.expect("481");
        let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
        sender.send("msg1", b"by the whole path");
        sender.expect("200");
        proves!("EMS-1.e.v.2"; ladder.pf);
    }
}

#[test]
fn each_clients_own_answer_says_how_its_to_path_is_compared() {
    let mut ladder = Terminating::new(&[FIRST, "instance = \"<urn:x:2>\""], "[msrp]\ninterop = \"auto\"");
    let invite = ladder.call(SESSION);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    let mut alice = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    alice.open();
    alice.expect("200");
    for (index, cema, answered) in [(0, "a=msrp-cema\r\n", "481"), (1, "", "200")] {
        let (arrived, from) = ladder.clients[index].expect_from("INVITE");
        let nowhere = "127.0.0.1:9".parse().expect("an address");
        let sdp = answer_sdp(nowhere, "client", "active", "sendrecv").replace("a=msrp-cema\r\n", cema);
        let extra = format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", ladder.clients[index].address);
        ladder.clients[index].answer(&arrived, from, "200 OK", &extra, &sdp);
        ladder.clients[index].expect("ACK");
        let elsewhere = arrived.attribute("path").replace("127.0.0.1", "192.0.2.7");
        let mut client = Msrp::connect(arrived.msrp_address(), "msrp://127.0.0.1:9/client;tcp", &elsewhere);
        client.send("msg1", b"hello");
        client.expect(answered);
    }
}
