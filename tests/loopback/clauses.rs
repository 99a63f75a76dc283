//! Clauses that no other ladder comes past, and values that only an awkward peer would send.

use crate::ladder::{Originating, Terminating};
use crate::msrp::Waiting;
use crate::proves;
use crate::proxy::put;
use crate::ue::{Invite, LARGE, Message, SESSION, answer_sdp};

const FIRST: &str = "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000001>\"";

#[test]
fn an_ims_core_gets_its_route_and_its_headers_back_octet_for_octet() {
    let mut ladder = Originating::new("");
    let (own, core) = (ladder.pf.udp, ladder.core.address);
    let dialog = format!("<sip:odi_12%41@{core};lr;Session=%7e1>;x=\"a, b\"");
    let charging = "icid-value=\"a;b, c\";icid-generated-at=192.0.2.6;orig-ioi=\"Home.net\"";
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", LARGE)
        .without("P-Served-User")
        .with("Route", &format!("<sip:orig@{own};lr>, {dialog}"))
        .with("P-Charging-Vector", charging)
        .with("P-Access-Network-Info", "3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=\"2620\"");
    let (arrived, _) = ladder.passes(&invite);
    assert_eq!(arrived.all("Route").collect::<Vec<_>>(), [dialog.as_str()], "ours is gone, the rest is as it was");
    assert_eq!(arrived.all("P-Charging-Vector").collect::<Vec<_>>(), [charging]);
    for name in ["P-Access-Network-Info", "P-Asserted-Identity"] {
        assert_eq!(arrived.header(name), invite.get(name), "{name}");
    }
    assert_eq!((arrived.header("Record-Route"), arrived.want("Max-Forwards")), (None, "69"));
    proves!("62-2"; ladder.pf);
}

#[test]
fn what_rfc_3261_refuses_is_refused_before_any_step() {
    let mut ladder = Originating::new("[policy]\nauthorised_originators = [\"sip:nobody@*\"]");
    let refused = |ladder: &mut Originating, invite: &Invite, status: u16| {
        ladder.alice.send(ladder.pf.udp, &invite.text());
        let call = invite.get("Call-ID");
        let (answer, _) = ladder.alice.next("a final", |message| message.status() >= 200 && message.header("Call-ID") == call);
        assert_eq!(answer.status(), status, "{answer:?}");
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &answer);
    };
    let invite = |ladder: &Originating| Invite::new(&ladder.alice, "sip:bob@example.org", LARGE);
    let malformed = invite(&ladder).with("CSeq", "1 BYE");
    refused(&mut ladder, &malformed, 400);
    let worn_out = invite(&ladder).with("Max-Forwards", "0");
    refused(&mut ladder, &worn_out, 483);
    // OLM-0.a: with a To tag it is of a dialog, and there is none.
    let within = invite(&ladder).with("To", "<sip:bob@example.org>;tag=gone");
    refused(&mut ladder, &within, 481);
    let initial = invite(&ladder);
    refused(&mut ladder, &initial, 403);
    ladder.core.nothing(ladder.pf.udp, "what was refused", |message| message.method() == "INVITE");
    proves!("62-1", "OLM-0.a"; ladder.pf);
}

#[test]
fn an_operator_of_legacy_endpoints_offers_no_cema() {
    let always = "[msrp]\ninterop = \"always\"";
    let agrees = |offer: &Message, pf: &crate::proxy::Proxy| {
        assert!(offer.attributes("msrp-cema").is_empty(), "{offer:?}");
        assert_eq!(offer.msrp_address(), pf.msrp);
        assert!(offer.body().contains(&format!("c=IN IP4 {}\r\n", pf.msrp.ip())));
        assert!(offer.body().contains(&format!("m=message {} TCP/MSRP *\r\n", pf.msrp.port())));
    };
    let mut ladder = Originating::new(always);
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", LARGE);
    agrees(&ladder.passes(&invite).0, &ladder.pf);
    proves!("OLM-7.i.vi.b"; ladder.pf);
    let mut ladder = Terminating::new(&[FIRST], always);
    let invite = ladder.call(LARGE);
    agrees(&ladder.passes(&invite).0, &ladder.pf);
    proves!("TLM-7.k.vi.2"; ladder.pf);
}

#[test]
fn a_group_session_keeps_its_service_and_nothing_is_retried_where_the_isf_took_all() {
    let mut ladder = Originating::new("");
    let group = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session.group";
    let invite = Invite::new(&ladder.alice, "mailto:group@example.org", "session.group");
    assert_eq!(invite.get("P-Preferred-Service"), Some(group));
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let (arrived, from) = ladder.isf.expect_from("INVITE");
    assert_eq!(
        (arrived.all("P-Asserted-Service").collect::<Vec<_>>(), arrived.header("P-Preferred-Service")),
        (vec![group], None)
    );
    let waiting = Waiting::new();
    let extra = format!("Contact: <sip:isf@{}>\nContent-Type: application/sdp\n", ladder.isf.address);
    ladder.isf.answer(&arrived, from, "200 OK", &extra, &answer_sdp(waiting.address(), "isf", "passive", "sendrecv"));
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    ladder.isf.expect("ACK");
    ladder.isf.nothing(ladder.pf.udp, "an INVITE for streams that were taken", |message| message.method() == "INVITE");
    proves!("OSI-4.c.iii", "OSI-r1.c"; ladder.pf);
}

#[test]
fn a_history_of_recipients_goes_to_the_isf_and_a_list_does_not() {
    let rules = r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
        <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list><oxe:media-list><oxe:standalone-message/></oxe:media-list></conditions>
        <actions><oxe:allow-interwork>true</oxe:allow-interwork></actions></rule></ruleset>"#;
    let folder = tempfile::tempdir().expect("a temporary folder");
    put(folder.path(), "xdm/org.openmobilealliance.access-rules/users/sip:bob@example.net/access-rules", rules);
    let mut ladder = Terminating::in_folder(folder, &[FIRST], "");
    let list = "<?xml version=\"1.0\"?>\r\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list><entry uri=\"sip:carol@example.net\"/></list></resource-lists>";
    for (disposition, goes) in [("recipient-list-history; handling=optional", true), ("recipient-list", false)] {
        let mut invite = ladder.call(LARGE).with("Content-Type", "multipart/mixed;boundary=b1");
        invite.body = format!(
            "--b1\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--b1\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: {disposition}\r\n\r\n{list}\r\n--b1--\r\n",
            invite.body
        );
        ladder.alice.send(ladder.pf.udp, &invite.text());
        let (arrived, _) =
            ladder.isf.next("its INVITE", |message| message.header("Conversation-ID") == invite.get("Conversation-ID"));
        assert_eq!(arrived.body().contains(list), goes);
        assert_eq!(arrived.body().contains("Content-Disposition: recipient-list-history; handling=optional\r\n"), goes);
        assert_eq!(arrived.want("Content-Type").starts_with("multipart/mixed"), goes);
        assert_eq!(arrived.attribute("setup"), "actpass");
    }
    proves!("TLM-6.c.ii.7"; ladder.pf);
}

#[test]
fn a_session_whose_media_no_client_takes_is_told_480_and_never_200() {
    let mut ladder = Terminating::new(&[FIRST], "[policy]\nmedia = [\"message\", \"audio\"]\ndelivery = \"reject\"");
    let mut invite = ladder.call(SESSION);
    let plain = invite.clone();
    invite.body += "m=audio 4000 RTP/AVP 0\r\n";
    assert_eq!(ladder.refused(&invite, 480).header("Warning"), None);
    proves!("TSI-8.b.ii.2", "TSI-8.b.ii.3"; ladder.pf);
    // Without it the same client is invited.
    ladder.passes(
        &plain
            .with("Call-ID", "plain")
            .with("Via", &invite.get("Via").unwrap_or_default().replace("branch=", "branch=z9hG4bKplain")),
    );
}

#[test]
fn a_focus_that_rings_is_shown_as_one_that_answers_is() {
    let mut ladder = Originating::new("");
    let focus = format!("\"F\" <sip:conf;a=b@{}>  ;isfocus;text", ladder.core.address);
    for (supported, reliably) in [("timer", ""), ("timer, 100rel", "Require: 100rel\nRSeq: 7\n")] {
        let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION)
            .with("Supported", supported)
            .with("Record-Route", "<sip:192.0.2.1;lr>");
        let (arrived, from) = ladder.passes(&invite);
        ladder.core.answer(&arrived, from, "183 Session Progress", &format!("{reliably}Contact: {focus}\n"), "");
        let progress = ladder.alice.expect_status(183);
        assert_eq!(progress.all("Contact").collect::<Vec<_>>(), [focus.as_str()], "octet for octet");
        let routes: Vec<&str> = progress.all("Record-Route").collect();
        assert!(routes.len() == 2 && routes[0].contains(&ladder.pf.udp.to_string()) && routes[0].ends_with(";lr>"), "{routes:?}");
        assert_eq!(routes[1], "<sip:192.0.2.1;lr>");
        assert_eq!(progress.header("RSeq").is_some(), !reliably.is_empty());
        ladder.core.answer(&arrived, from, "486 Busy Here", "", "");
        ladder.core.expect("ACK");
        let refused = ladder.alice.expect_status(486);
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &refused);
    }
    // Who is none is not shown: its address is its own side's.
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    let (arrived, from) = ladder.passes(&invite);
    let contact = format!("Contact: <sip:bob@{}>\n", ladder.core.address);
    ladder.core.answer(&arrived, from, "180 Ringing", &contact, "");
    let ringing = ladder.alice.expect_status(180);
    assert!(!ringing.all("Contact").any(|contact| contact.contains(&ladder.core.address.to_string())));
    proves!("C17-1", "C17-2", "C17-3"; ladder.pf);
}

#[test]
fn a_focus_contact_passes_whatever_stands_in_it() {
    let mut ladder = Originating::new("");
    for contact in [
        "\"Conf, 7; room\" <sip:conf;x@focus.example.org:5070;transport=tcp?h=v> ; isfocus;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3Ax,y\";q=0.5",
        "<sip:c@focus.example.org>;IsFocus;+sip.instance=\"<urn:uuid:1>\"",
        "<tel:+15551230009>;+a=\"b>c\";isfocus",
        "sip:c@focus.example.org;isfocus",
    ] {
        for service in [LARGE, SESSION] {
            let invite = Invite::new(&ladder.alice, "sip:bob@example.org", service).with("Contact", contact);
            let (arrived, from) = ladder.passes(&invite);
            assert_eq!(arrived.all("Contact").collect::<Vec<_>>(), [contact], "octet for octet");
            assert!(arrived.want("Record-Route").ends_with(";lr>"));
            ladder.core.answer(&arrived, from, "486 Busy Here", "", "");
            ladder.core.expect("ACK");
            let refused = ladder.alice.expect_status(486);
            ladder.alice.ack(ladder.pf.udp, &invite.message(), &refused);
        }
    }
    // In the compact form too, and back from the far side.
    let waiting = Waiting::new();
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", LARGE);
    let (arrived, from) = ladder.passes(&invite);
    let focus = format!("\"F, o\" <sip:conf;a=b@{};transport=udp>  ;isfocus;audio", ladder.core.address);
    let extra = format!("m: {focus}\nContent-Type: application/sdp\n");
    ladder.core.answer(&arrived, from, "200 OK", &extra, &answer_sdp(waiting.address(), "f", "passive", "recvonly"));
    assert_eq!(ladder.alice.expect_status(200).want("Contact"), focus);
    proves!("C17-1", "C17-2", "C17-3"; ladder.pf);
}

#[test]
fn what_a_target_says_of_its_refusal_reaches_the_origin() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    let (arrived, from) = ladder.passes(&invite);
    let ids = ["Conversation-ID", "Contribution-ID"].map(|name| format!("{name}: {}\n", arrived.want(name)));
    let extra = format!(
        "{}{}Warning: 399 there \"133 Size exceeded\"\nRetry-After: 60\nServer: there/1\nSupported: timer\n",
        ids[0], ids[1]
    );
    ladder.core.answer(&arrived, from, "486 Gone Fishing", &extra, "");
    ladder.core.expect("ACK");
    let refused = ladder.alice.expect_status(486);
    assert!(refused.first_line().ends_with("486 Gone Fishing"));
    assert_eq!((refused.want("Warning"), refused.want("Retry-After")), ("399 there \"133 Size exceeded\"", "60"));
    for name in ["Conversation-ID", "Contribution-ID"] {
        assert_eq!(refused.header(name), invite.get(name), "{name}");
    }
    assert!(!refused.0.contains("there/1"), "what it says of itself is for us alone");
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &refused);
}

#[test]
fn a_message_that_is_answered_and_not_taken_is_answered_and_released() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", LARGE);
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let nowhere = "127.0.0.1:9".parse().expect("an address");
    let sdp = answer_sdp(nowhere, "bob", "passive", "recvonly").replace("m=message 9 ", "m=message 0 ");
    let (_, ok) = ladder.established(&invite, &contact, &sdp);
    assert!(ok.body().contains("m=message 0 TCP/MSRP *\r\n") && ok.attributes("path").is_empty(), "{ok:?}");
    for ue in [&mut ladder.core, &mut ladder.alice] {
        let (bye, from) = ue.expect_from("BYE");
        ue.answer(&bye, from, "200 OK", "", "");
    }
    ladder
        .pf
        .until("nothing is left", |pf| pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0 && pf.metric("cpm_pf_dialogs", &[]) == 0.0);
    proves!("OLM-r5.a"; ladder.pf);
}

#[test]
fn a_client_that_wants_a_longer_interval_gets_it_within_what_the_clause_allows() {
    let mut ladder = Terminating::new(
        &[FIRST],
        "[policy]\nsession_session_expires = \"10m\"\nsession_answer = \"late\"\ndelivery = \"reject\"",
    );
    for (min_se, again) in [("1200", Some("1200;refresher=uas")), ("1800", None)] {
        let invite = ladder.call(SESSION);
        let (arrived, from) = ladder.passes(&invite);
        assert_eq!((arrived.want("Session-Expires"), arrived.header("Min-SE")), ("600;refresher=uas", None));
        ladder.clients[0].answer(&arrived, from, "422 Session Interval Too Small", &format!("Min-SE: {min_se}\n"), "");
        ladder.clients[0].expect("ACK");
        let Some(longer) = again else {
            // TSI-8.d.vi: lower than 1800, whoever asks.
            let refused = ladder.alice.expect_status(480);
            ladder.alice.ack(ladder.pf.udp, &invite.message(), &refused);
            continue;
        };
        let (arrived_again, from) = ladder.clients[0].expect_from("INVITE");
        assert_eq!((arrived_again.want("Session-Expires"), arrived_again.want("Min-SE")), (longer, min_se));
        assert_eq!(arrived_again.want("Call-ID"), arrived.want("Call-ID"));
        assert_eq!(arrived_again.want("CSeq"), "2 INVITE");
        ladder.clients[0].answer(&arrived_again, from, "603 Decline", "", "");
        ladder.clients[0].expect("ACK");
        let refused = ladder.alice.expect_status(603);
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &refused);
    }
    proves!("TSI-8.d.vi.3", "TSI-8.d.vi.4"; ladder.pf);
}
