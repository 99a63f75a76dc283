//! CR 8.2.1.2 (OLM) and 8.2.2.1 (OSI) on the wire: what leaves, what comes back, and what never does.

use crate::ladder::Originating;
use crate::msrp::Waiting;
use crate::proves;
use crate::ue::{Invite, LARGE, Message, SESSION, answer_sdp};

const BOB: &str = "sip:bob@example.org;user=phone";
const LARGE_ICSI: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
const SESSION_ICSI: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session";

fn interval(message: &Message) -> (u32, String) {
    let value = message.want("Session-Expires");
    let (delta, refresher) = value.split_once(";refresher=").unwrap_or_else(|| panic!("no refresher in {value}"));
    (delta.parse().unwrap_or(0), refresher.to_owned())
}

#[test]
fn the_invite_of_a_large_message_is_built_as_8_2_1_2_says() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, LARGE)
        .with("Subject", "lunch")
        .with("InReplyTo-Contribution-ID", "earlier")
        .add("Accept-Contact", "*;language=\"en\"")
        .with("Min-SE", "90");
    let (arrived, _) = ladder.passes(&invite);

    assert_eq!(arrived.uri(), BOB);
    assert_ne!(arrived.want("Call-ID"), invite.get("Call-ID").unwrap());
    assert_ne!(arrived.want("From").split(";tag=").nth(1), invite.get("From").unwrap().split(";tag=").nth(1));
    assert!(!arrived.want("To").contains("tag="));
    assert!(arrived.want("Via").contains("branch=z9hG4bK"));
    assert_eq!(arrived.want("Max-Forwards"), "69");
    assert!(arrived.want("CSeq").ends_with(" INVITE"));
    let accept: Vec<&str> = arrived.all("Accept-Contact").collect();
    assert_eq!(accept, [invite.get("Accept-Contact").unwrap(), "*;language=\"en\""]);
    assert_eq!(arrived.all("P-Asserted-Service").collect::<Vec<_>>(), [LARGE_ICSI]);
    assert_eq!(arrived.header("P-Preferred-Service"), None);
    assert_eq!(arrived.header("Min-SE"), None);
    let (delta, refresher) = interval(&arrived);
    assert!((90..1800).contains(&delta) && refresher == "uac", "{delta} {refresher}");
    assert!(arrived.want("Supported").contains("timer"));
    assert!(
        arrived.uri_in("Contact").contains("127.0.0.1") && !arrived.want("Contact").contains(&ladder.alice.address.to_string())
    );
    assert_eq!(arrived.all("Contact").count(), 1);
    assert_eq!(arrived.header("Record-Route"), None);
    for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID", "Subject", "P-Asserted-Identity"] {
        assert_eq!(arrived.header(name), invite.get(name), "{name}");
    }
    assert!(arrived.want("User-Agent").starts_with("CPM-serv/OMA2.2"));
    assert_eq!(arrived.header("P-Served-User"), None);
    assert_eq!(arrived.want("Content-Type"), "application/sdp");
    assert_eq!(arrived.want("Content-Length"), arrived.body().len().to_string());

    let path = arrived.attribute("path");
    assert!(path.starts_with(&format!("msrp://{}/", ladder.pf.msrp)) && path.ends_with(";tcp"), "{path}");
    assert!(arrived.body().contains(&format!("m=message {} TCP/MSRP *", ladder.pf.msrp.port())));
    assert_eq!(arrived.attributes("sendonly").len(), 1);
    assert!(arrived.attributes("sendrecv").is_empty() && arrived.attributes("recvonly").is_empty());
    assert_eq!(arrived.attribute("file-selector"), "size:4092");
    assert_eq!(arrived.attribute("setup"), "actpass");
    assert_eq!(arrived.attribute("msrp-cema"), "");
    assert!(!arrived.body().contains("alice"), "nothing of the caller's SDP address or session id");
    proves!(
        "OLM-0",
        "OLM-6",
        "OLM-7",
        "OLM-7.a",
        "OLM-7.b",
        "OLM-7.c.i",
        "OLM-7.e",
        "OLM-7.f",
        "OLM-7.g",
        "OLM-7.h",
        "OLM-7.x",
        "OLM-7.i",
        "OLM-7.i.i",
        "OLM-7.i.ii",
        "OLM-7.i.iii",
        "OLM-7.i.iv",
        "OLM-7.i.v",
        "OLM-7.i.vi.a",
        "OLM-8.b"; ladder.pf);
}

#[test]
fn services_are_asserted_and_never_preferred_beyond_us() {
    let mut ladder = Originating::new("");
    let group = format!("{LARGE_ICSI}.group");
    for (service, icsi, clean) in [(LARGE, LARGE_ICSI, true), (SESSION, SESSION_ICSI, true), (LARGE, group.as_str(), false)] {
        let invite = Invite::new(&ladder.alice, BOB, service).with("P-Preferred-Service", icsi);
        let (arrived, _) = ladder.passes(&invite);
        assert_eq!(
            (arrived.all("P-Asserted-Service").collect::<Vec<_>>(), arrived.header("P-Preferred-Service")),
            (vec![icsi], None),
            "{clean}"
        );
        let asserted = Invite::new(&ladder.alice, BOB, service).without("P-Preferred-Service").with("P-Asserted-Service", icsi);
        assert_eq!(ladder.passes(&asserted).0.all("P-Asserted-Service").collect::<Vec<_>>(), [icsi]);
        let neither = Invite::new(&ladder.alice, BOB, service).without("P-Preferred-Service");
        assert!(ladder.passes(&neither).0.want("P-Asserted-Service").starts_with(icsi.trim_end_matches(".group")));
        let other = Invite::new(&ladder.alice, BOB, service).with("P-Asserted-Service", "urn:urn-7:3gpp-service.ims.icsi.mmtel");
        assert_eq!(ladder.refused(&other, 403).header("Warning"), None);
    }
    let other = Invite::new(&ladder.alice, BOB, SESSION).with("P-Preferred-Service", "urn:urn-7:3gpp-service.ims.icsi.mmtel");
    assert_eq!(ladder.passes(&other).0.want("P-Asserted-Service"), SESSION_ICSI);
    proves!(
        "OLM-7.c.i",
        "OLM-7.c.ii",
        "OLM-7.c.iii.a",
        "OLM-7.c.iii.b",
        "OLM-7.c.iv",
        "OSI-4.a.ii",
        "OSI-4.a.iii.1",
        "OSI-4.a.iii.2",
        "OSI-4.c.ii",
        "OSI-4.c.iv",
        "OSI-4.c.iv.1",
        "OSI-4.c.v"; ladder.pf);

    let mut ladder = Originating::new("[policy]\npreferred_service = \"configured\"\nother_service = \"pass\"");
    let other = Invite::new(&ladder.alice, BOB, SESSION).with("P-Preferred-Service", "urn:urn-7:3gpp-service.ims.icsi.mmtel");
    assert_eq!(ladder.passes(&other).0.all("P-Asserted-Service").collect::<Vec<_>>(), [SESSION_ICSI]);
    let passed = Invite::new(&ladder.alice, BOB, LARGE).with("P-Asserted-Service", "urn:urn-7:3gpp-service.ims.icsi.mmtel");
    assert_eq!(ladder.passes(&passed).0.all("P-Asserted-Service").collect::<Vec<_>>(), ["urn:urn-7:3gpp-service.ims.icsi.mmtel"]);
    proves!("OSI-4.c.iv.2"; ladder.pf);
}

#[test]
fn a_raw_icsi_is_encoded_once() {
    let mut ladder = Originating::new("");
    let raw =
        Invite::new(&ladder.alice, BOB, LARGE).with("Accept-Contact", &format!("*;+g.3gpp.icsi-ref=\"{LARGE_ICSI}\";require"));
    let accept = ladder.passes(&raw).0.want("Accept-Contact").to_owned();
    assert_eq!(accept, "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\";require");
}

#[test]
fn the_answer_to_a_large_message_is_built_as_8_2_1_2_says() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, LARGE).with("Session-Expires", "600;refresher=uac");
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "bob1", "passive", "recvonly");
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let (_, ok) = ladder.established(&invite, &contact, &sdp);
    assert!(ok.want("Server").starts_with("CPM-serv/OMA2.2"));
    assert!(!ok.want("Contact").contains(&ladder.core.address.to_string()));
    assert_eq!(ok.header("Record-Route"), None);
    let (delta, refresher) = interval(&ok);
    assert!((90..=600).contains(&delta) && refresher == "uac", "{delta} {refresher}");
    assert!(ok.want("Require").contains("timer"));
    assert!(ok.attribute("path").starts_with(&format!("msrp://{}/", ladder.pf.msrp)));
    assert_eq!((ok.attributes("recvonly").len(), ok.attribute("setup"), ok.attributes("msrp-cema").len()), (1, "passive", 1));
    assert!(!ok.body().contains("bob1"));
    proves!(
        "OLM-r1",
        "OLM-r2.b",
        "OLM-r3",
        "OLM-r4",
        "OLM-r5",
        "OLM-r5.a",
        "OLM-r5.b",
        "OLM-r5.c",
        "OLM-r5.d",
        "OLM-r5.e.1",
        "OLM-r6.a",
        "OLM-r6.b"; ladder.pf);

    let plain = Invite::new(&ladder.alice, BOB, LARGE)
        .sdp("a=msrp-cema\r\n", "")
        .sdp("m=message 9", "m=message 7654")
        .sdp("127.0.0.1:9/", "127.0.0.1:7654/");
    let waiting = Waiting::new();
    let (_, ok) = ladder.established(&plain, &contact, &answer_sdp(waiting.address(), "bob2", "passive", "recvonly"));
    assert!(ok.attributes("msrp-cema").is_empty(), "no msrp-cema in an answer to an offer without");
    proves!("OLM-r5.e.2"; ladder.pf);
}

#[test]
fn a_failure_beyond_us_is_the_callers_failure() {
    let mut ladder = Originating::new("");
    for (theirs, ours) in [
        ("486 Busy Here", 486),
        ("404 Not Found", 404),
        ("603 Decline", 603),
        ("401 Unauthorized", 500),
        ("482 Loop Detected", 500),
    ] {
        let invite = Invite::new(&ladder.alice, BOB, LARGE);
        let (arrived, from) = ladder.passes(&invite);
        ladder.core.answer(&arrived, from, theirs, "", "");
        ladder.core.expect("ACK");
        let refusal = ladder.alice.next("a final", |message| message.status() >= 300).0;
        assert!(refusal.status() == ours || (ours == 500 && refusal.status() == 480), "{theirs} became {}", refusal.status());
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &refusal);
    }
    ladder.pf.until("nothing is left", |pf| pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0);
    proves!("OLM-r0"; ladder.pf);
}

#[test]
fn an_address_that_is_neither_sip_nor_tel_goes_to_the_isf() {
    let mut ladder = Originating::new("");
    for service in [LARGE, SESSION] {
        let invite = Invite::new(&ladder.alice, "mailto:bob@example.org", service);
        ladder.alice.send(ladder.pf.udp, &invite.text());
        let arrived = ladder.isf.expect("INVITE");
        assert_eq!(arrived.uri(), "mailto:bob@example.org");
        ladder.core.nothing(ladder.pf.udp, "what was the ISF's", |message| message.method() == "INVITE");
        let tel = Invite::new(&ladder.alice, "tel:+15551230002", service);
        assert_eq!(ladder.passes(&tel).0.uri(), "tel:+15551230002");
    }
    proves!("OLM-8.a", "OLM-8.b", "OSI-4.m.1", "OSI-4.m.2"; ladder.pf);
}

#[test]
fn the_invite_of_a_session_is_built_as_8_2_2_1_says() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, SESSION)
        .with("InReplyTo-Contribution-ID", "earlier")
        .with("Supported", "timer, recipient-list-invite");
    let (arrived, from) = ladder.passes(&invite);
    assert_eq!(arrived.uri(), BOB);
    assert_ne!(arrived.want("Call-ID"), invite.get("Call-ID").unwrap());
    assert_eq!(arrived.want("Contact"), invite.get("Contact").unwrap(), "OSI-4.h copies the Contact as it came");
    assert!(arrived.want("Record-Route").contains("127.0.0.1"), "we stay in the route set of a Contact that is not ours");
    assert_eq!(arrived.want("Accept-Contact"), invite.get("Accept-Contact").unwrap());
    for name in ["Conversation-ID", "Contribution-ID", "InReplyTo-Contribution-ID"] {
        assert_eq!(arrived.header(name), invite.get(name), "{name}");
    }
    assert!(arrived.want("User-Agent").starts_with("CPM-serv/OMA2.2"));
    let supported = arrived.want("Supported");
    assert!(supported.contains("timer") && supported.contains("recipient-list-invite"));
    let (delta, refresher) = interval(&arrived);
    assert!((90..=1800).contains(&delta) && refresher == "uac");
    assert_eq!((arrived.attribute("setup"), arrived.attributes("sendrecv").len()), ("actpass", 1));
    assert_eq!(arrived.attribute("accept-types"), "message/cpim text/plain");
    assert!(!arrived.body().contains("alice"));

    // OSI-r6: our ACK waits for the caller's.
    let waiting = Waiting::new();
    let extra = format!("Contact: <sip:bob@{}>\nServer: other/1.0\nContent-Type: application/sdp\n", ladder.core.address);
    ladder.core.answer(&arrived, from, "200 OK", &extra, &answer_sdp(waiting.address(), "bob1", "passive", "sendrecv"));
    let ok = ladder.alice.expect_status(200);
    ladder.core.nothing(ladder.pf.udp, "an ACK before the caller's", |message| message.method() == "ACK");
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    ladder.core.expect("ACK");
    assert!(ok.want("Server").starts_with("CPM-serv/OMA2.2"));
    assert_eq!(ok.attribute("setup"), "passive");
    assert!(!ok.want("Contact").contains(&ladder.core.address.to_string()) && !ok.body().contains("bob1"));
    proves!(
        "OSI-0",
        "OSI-4",
        "OSI-4.b",
        "OSI-4.d.1",
        "OSI-4.d.2",
        "OSI-4.d.3",
        "OSI-4.d.4",
        "OSI-4.e",
        "OSI-4.f",
        "OSI-4.g",
        "OSI-4.h.1",
        "OSI-4.h.2",
        "OSI-4.i.1",
        "OSI-4.i.2",
        "OSI-4.j",
        "OSI-4.k",
        "OSI-4.l",
        "OSI-r0",
        "OSI-r2",
        "OSI-r3",
        "OSI-r4.a",
        "OSI-r4.b",
        "OSI-r5.b",
        "OSI-r6.a",
        "OSI-r6.b",
        "OSI-r6.c"; ladder.pf);

    // The caller's BYE ends both legs.
    let bye = ladder.alice.in_dialog("BYE", &ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    ladder.alice.expect_status(200);
    let (bye, from) = ladder.core.expect_from("BYE");
    assert_eq!(bye.want("Call-ID"), arrived.want("Call-ID"));
    ladder.core.answer(&bye, from, "200 OK", "", "");
    let again = ladder.alice.in_dialog("BYE", &ok, 2);
    ladder.alice.send(ladder.pf.udp, &again);
    ladder.alice.expect_status(481);
}

#[test]
fn a_focus_keeps_its_contact_and_we_stay_on_the_path() {
    let mut ladder = Originating::new("");
    for service in [LARGE, SESSION] {
        let focus = format!("<sip:conference-7@{}>;isfocus;+g.oma.sip-im", ladder.core.address);
        let direction = if service == LARGE { "recvonly" } else { "sendrecv" };
        let waiting = Waiting::new();
        let invite = Invite::new(&ladder.alice, BOB, service);
        let (arrived, ok) = ladder.established(&invite, &focus, &answer_sdp(waiting.address(), "f1", "passive", direction));
        assert_eq!(ok.want("Contact"), focus);
        assert!(ok.all("Record-Route").next().is_some_and(|route| route.contains(&ladder.pf.udp.port().to_string())), "{ok:?}");
        // The BYE goes to the focus's URI, by way of us.
        let bye = ladder.alice.in_dialog("BYE", &ok, 1);
        assert!(bye.starts_with("BYE sip:conference-7@"));
        ladder.alice.send(ladder.pf.udp, &bye);
        ladder.alice.expect_status(200);
        let (bye, from) = ladder.core.expect_from("BYE");
        assert_eq!(bye.want("Call-ID"), arrived.want("Call-ID"));
        ladder.core.answer(&bye, from, "200 OK", "", "");

        // And a focus that calls.
        let contact = format!("<sip:conference-8@{}>;isfocus", ladder.alice.address);
        let (arrived, _) = ladder.passes(&Invite::new(&ladder.alice, BOB, service).with("Contact", &contact));
        assert_eq!(arrived.want("Contact"), contact);
        assert!(arrived.header("Record-Route").is_some());
        // Inside the angle brackets it is no focus.
        let contact = format!("<sip:x@{};isfocus>", ladder.alice.address);
        let (arrived, _) = ladder.passes(&Invite::new(&ladder.alice, BOB, LARGE).with("Contact", &contact));
        assert!(!arrived.want("Contact").contains("isfocus") && arrived.header("Record-Route").is_none());
    }
    proves!("OLM-7.d", "OLM-r2.a", "OSI-r5.a", "C17-1", "C17-2", "C17-3", "C17-4"; ladder.pf);
}

#[test]
fn a_recipient_list_goes_on_as_it_came() {
    let mut ladder = Originating::new("");
    let list = "<?xml version=\"1.0\"?>\r\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list><entry uri=\"sip:carol@example.net\"/></list></resource-lists>";
    let mut invite = Invite::new(&ladder.alice, BOB, SESSION)
        .with("Content-Type", "multipart/mixed;boundary=boundary1")
        .with("Supported", "timer, recipient-list-invite");
    invite.body = format!(
        "--boundary1\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--boundary1\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n{list}\r\n--boundary1--\r\n",
        invite.body
    );
    let (arrived, _) = ladder.passes(&invite);
    assert!(arrived.want("Content-Type").starts_with("multipart/mixed"));
    assert!(arrived.body().contains(list) && arrived.body().contains("Content-Disposition: recipient-list\r\n"));
    proves!("OSI-4.d.5"; ladder.pf);
}

#[test]
fn a_call_taken_back_ends_on_both_sides() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let (arrived, from) = ladder.passes(&invite);
    ladder.core.answer(&arrived, from, "180 Ringing", "", "");
    ladder.alice.next("180", |message| message.status() == 180);
    let cancel = invite
        .text()
        .split("Content-Type")
        .next()
        .unwrap_or("")
        .replace("INVITE sip:bob", "CANCEL sip:bob")
        .replace("1 INVITE", "1 CANCEL")
        + "Content-Length: 0\r\n\r\n";
    ladder.alice.send(ladder.pf.udp, &cancel);
    ladder.alice.next("200 to the CANCEL", |message| message.status() == 200 && message.want("CSeq").ends_with("CANCEL"));
    let terminated = ladder.alice.next("487", |message| message.status() == 487).0;
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &terminated);
    let (cancel, from) = ladder.core.expect_from("CANCEL");
    ladder.core.answer(&cancel, from, "200 OK", "", "");
    ladder.core.answer(&arrived, from, "487 Request Terminated", "", "");
    ladder.core.expect("ACK");
    ladder
        .pf
        .until("nothing is left", |pf| pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0 && pf.metric("cpm_pf_dialogs", &[]) == 0.0);
}

#[test]
fn outside_the_media_path_we_are_a_proxy() {
    let mut ladder = Originating::new("[policy]\nstay_in_media_path = false");
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let (arrived, from) = ladder.passes(&invite);
    for name in ["Call-ID", "From", "To", "CSeq", "Contact", "Session-Expires", "Accept-Contact"] {
        assert_eq!(arrived.header(name), invite.get(name), "{name}");
    }
    assert_eq!(arrived.body(), invite.body);
    assert_eq!((arrived.want("Max-Forwards"), arrived.all("Via").count()), ("69", 2));
    assert!(arrived.want("Record-Route").contains(";lr"));
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "bob1", "passive", "sendrecv");
    ladder.core.answer(
        &arrived,
        from,
        "200 OK",
        &format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", ladder.core.address),
        &sdp,
    );
    let ok = ladder.alice.expect_status(200);
    assert_eq!((ok.body(), ok.all("Via").count()), (sdp.as_str(), 1));
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    ladder.core.expect("ACK");
    let bye = ladder.alice.in_dialog("BYE", &ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    ladder.alice.expect_status(200);

    let invite = Invite::new(&ladder.alice, "mailto:bob@example.org", SESSION);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    ladder.isf.expect("INVITE");
    proves!("OSI-5.a", "OSI-5.b", "OSI-5.c.1", "OSI-5.c.2"; ladder.pf);
}
