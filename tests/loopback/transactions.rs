//! RFC 3261 §8.2, §9, §16.3, §17 on the wire: what the program answers to requests in and out of their place.

use crate::ladder::Originating;
use crate::ue::{Invite, LARGE, Message, SESSION, Ue};

const BOB: &str = "sip:bob@example.org";

/// A request of any method from `ue`, out of a dialog, with further lines.
fn request(ue: &Ue, method: &str, uri: &str, call: &str, more: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\nVia: SIP/2.0/{} {};branch=z9hG4bK{call}{};rport\nMax-Forwards: 70\nFrom: <sip:alice@example.net>;tag=f\nTo: <{uri}>\nCall-ID: {call}\nCSeq: 1 {method}\n{more}Content-Length: 0\n\n",
        ue.transport(),
        ue.address,
        method.len()
    )
}

/// What the program answers to a request.
#[track_caller]
fn asked(ladder: &mut Originating, text: &str) -> Message {
    ladder.alice.send(ladder.pf.udp, text);
    let call = Message(text.replace('\n', "\r\n")).want("Call-ID").to_owned();
    ladder.alice.next("an answer", |message| message.status() >= 200 && message.header("Call-ID") == Some(&call)).0
}

#[test]
fn options_says_what_we_are() {
    let mut ladder = Originating::new("");
    let own = format!("sip:{}", ladder.pf.udp);
    let text = request(&ladder.alice, "OPTIONS", &own, "options", "");
    let ok = asked(&mut ladder, &text);
    assert_eq!(ok.status(), 200);
    for method in ["INVITE", "ACK", "CANCEL", "BYE", "UPDATE", "MESSAGE"] {
        assert!(ok.want("Allow").contains(method), "{ok:?}");
    }
    assert!(ok.want("Accept").contains("application/sdp") && ok.want("Supported").contains("timer"), "{ok:?}");
    assert!(ok.want("Server").starts_with("CPM-serv/OMA2.2"), "{ok:?}");
    assert!(ok.want("To").contains(";tag="));
}

#[test]
fn what_cannot_be_served_gets_its_own_status() {
    let mut ladder = Originating::new("");
    let own = format!("sip:{}", ladder.pf.udp);
    let alice =
        |ladder: &Originating, method: &str, uri: &str, call: &str, more: &str| request(&ladder.alice, method, uri, call, more);

    // A method of ours that the program itself does not serve, and one that nobody knows.
    let text = alice(&ladder, "PUBLISH", &own, "publish", "Event: presence\n");
    let answer = asked(&mut ladder, &text);
    assert_eq!(answer.status(), 405, "{answer:?}");
    assert!(answer.want("Allow").contains("OPTIONS"));
    let text = alice(&ladder, "FROB", &own, "frob", "");
    assert_eq!(asked(&mut ladder, &text).status(), 405);

    let text = alice(&ladder, "OPTIONS", &own, "version", "").replace(" SIP/2.0\nVia", " SIP/3.0\nVia");
    assert_eq!(asked(&mut ladder, &text).status(), 505);
    let text = Invite::new(&ladder.alice, BOB, LARGE).with("Max-Forwards", "0").text();
    assert_eq!(asked(&mut ladder, &text).status(), 483);
    for (name, value) in [("Require", "timer, frobnicate"), ("Proxy-Require", "frobnicate")] {
        for service in [LARGE, SESSION] {
            let text = Invite::new(&ladder.alice, BOB, service).add(name, value).text();
            let answer = asked(&mut ladder, &text);
            assert_eq!((answer.status(), answer.want("Unsupported")), (420, "frobnicate"), "{name}");
        }
    }
    let text = alice(&ladder, "MESSAGE", BOB, "proxied", "Proxy-Require: frobnicate\n");
    let answer = asked(&mut ladder, &text);
    assert_eq!((answer.status(), answer.want("Unsupported")), (420, "frobnicate"));
    let text = Invite::new(&ladder.alice, BOB, LARGE).without("Contact").text();
    assert_eq!(asked(&mut ladder, &text).status(), 400);
    ladder.core.nothing(ladder.pf.udp, "what was refused", |message| !message.method().is_empty());
    // Require is for the far end where we are a proxy.
    let text = alice(&ladder, "MESSAGE", BOB, "passes", "Require: frobnicate\n");
    ladder.alice.send(ladder.pf.udp, &text);
    assert_eq!(ladder.core.expect("MESSAGE").want("Require"), "frobnicate");
}

#[test]
fn requests_of_no_dialog_are_told_481_and_acks_nothing() {
    let mut ladder = Originating::new("");
    for (number, method) in ["BYE", "UPDATE", "INFO", "INVITE", "NOTIFY", "PRACK"].into_iter().enumerate() {
        let text = request(&ladder.alice, method, BOB, &format!("stray{number}"), "Contact: <sip:alice@127.0.0.1>\n");
        let text = text.replace(&format!("To: <{BOB}>"), &format!("To: <{BOB}>;tag=nobody"));
        assert_eq!(asked(&mut ladder, &text).status(), 481, "{method}");
    }
    let text = request(&ladder.alice, "CANCEL", BOB, "cancel", "");
    assert_eq!(asked(&mut ladder, &text).status(), 481);
    for tag in ["", ";tag=nobody"] {
        let text = request(&ladder.alice, "ACK", BOB, "ack", "").replace(&format!("To: <{BOB}>"), &format!("To: <{BOB}>{tag}"));
        ladder.alice.send(ladder.pf.udp, &text);
    }
    ladder.alice.nothing(ladder.pf.udp, "an answer to an ACK", |message| message.header("Call-ID") == Some("ack"));
    ladder.core.nothing(ladder.pf.udp, "a request of no dialog", |message| !message.method().is_empty());
}

#[test]
fn a_retransmission_is_answered_by_its_transaction() {
    let mut ladder = Originating::new("");
    ladder.alice.hears_retransmissions = true;
    ladder.core.hears_retransmissions = true;
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let (arrived, from) = ladder.passes(&invite);
    let provisional = |message: &Message| message.status() == 100;
    ladder.alice.next("100", provisional);
    for _ in 0..3 {
        ladder.alice.send(ladder.pf.udp, &invite.text());
        ladder.alice.next("100 again", provisional);
    }
    ladder.core.nothing(ladder.pf.udp, "a second INVITE", |message| message.method() == "INVITE");
    ladder.core.answer(&arrived, from, "180 Ringing", "", "");
    ladder.alice.next("180", |message| message.status() == 180);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    ladder.alice.next("180 again", |message| message.status() == 180);
    ladder.core.answer(&arrived, from, "486 Busy Here", "", "");
    let refusal = ladder.alice.expect_status(486);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    assert_eq!(ladder.alice.expect_status(486), refusal);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &refusal);
    // After the ACK it is absorbed in silence (§17.2.1).
    ladder.alice.nothing(ladder.pf.udp, "nothing", |_| false);
    let count = ladder.alice.kept().filter(|message| message.status() == 486).count();
    ladder.alice.send(ladder.pf.udp, &invite.text());
    ladder.alice.nothing(ladder.pf.udp, "nothing", |_| false);
    assert_eq!(ladder.alice.kept().filter(|message| message.status() == 486).count(), count);
    // The far side's refusal was acknowledged by us, once a copy.
    ladder.core.expect("ACK");
    ladder.core.answer(&arrived, from, "486 Busy Here", "", "");
    ladder.core.expect("ACK");
}

#[test]
fn a_2xx_is_sent_again_until_it_is_acknowledged_and_then_the_call_ends() {
    let mut ladder = Originating::new("[sip]\nt1 = \"20ms\"\n");
    ladder.alice.hears_retransmissions = true;
    let invite = Invite::new(&ladder.alice, BOB, LARGE);
    let (arrived, from) = ladder.passes(&invite);
    let sdp = crate::ue::answer_sdp("127.0.0.1:9".parse().expect("an address"), "bob", "active", "recvonly");
    let contact = format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", ladder.core.address);
    ladder.core.answer(&arrived, from, "200 OK", &contact, &sdp);
    let first = ladder.alice.expect_status(200);
    for _ in 0..3 {
        assert_eq!(ladder.alice.expect_status(200), first);
    }
    // 64*T1 without ACK: §13.3.1.4.
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    let (bye, from) = ladder.alice.expect_from("BYE");
    ladder.alice.answer(&bye, from, "200 OK", "", "");
    ladder
        .pf
        .until("nothing is left", |pf| pf.metric("cpm_pf_dialogs", &[]) == 0.0 && pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0);
}

#[test]
fn a_request_that_came_by_two_ways_is_served_once() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    ladder.passes(&invite);
    let other = invite.clone().with("Via", &format!("SIP/2.0/UDP {};branch=z9hG4bKotherway;rport", ladder.alice.address));
    ladder.alice.send(ladder.pf.udp, &other.text());
    let merged = ladder.alice.expect_status(482);
    assert!(merged.want("Via").contains("otherway"));
    ladder.alice.ack(ladder.pf.udp, &other.message(), &merged);
    ladder.core.nothing(ladder.pf.udp, "a second INVITE", |message| message.method() == "INVITE");
}

#[test]
fn a_request_that_comes_round_again_is_told_482() {
    let mut ladder = Originating::new("");
    let text = request(&ladder.alice, "MESSAGE", BOB, "round", "");
    ladder.alice.send(ladder.pf.udp, &text);
    let (arrived, _) = ladder.core.expect_from("MESSAGE");
    let via = format!("Via: SIP/2.0/UDP {};branch=z9hG4bKround;rport\r\n", ladder.core.address);
    let lines: Vec<&str> = arrived.0.split_inclusive("\r\n").filter(|line| !line.starts_with("Route:")).collect();
    let back = lines.concat().replacen("\r\n", &format!("\r\n{via}"), 1);
    ladder.core.send(ladder.pf.udp, &back);
    ladder.core.expect_status(482);
}

#[test]
fn a_cancel_finds_its_invite_while_there_is_no_final_answer() {
    let mut ladder = Originating::new("");
    let cancel = |invite: &Invite| {
        let text = invite.text();
        let head = text.split("\r\n\r\n").next().unwrap_or("");
        let kept = ["Via:", "From:", "To:", "Call-ID:", "Max-Forwards:"];
        let lines: String = head
            .split("\r\n")
            .filter(|line| kept.iter().any(|name| line.starts_with(name)))
            .map(|line| format!("{line}\r\n"))
            .collect();
        format!(
            "CANCEL {} SIP/2.0\r\n{lines}CSeq: 1 CANCEL\r\nReason: SIP;cause=200;text=\"Call completed elsewhere\"\r\nContent-Length: 0\r\n\r\n",
            invite.uri
        )
    };
    for service in [LARGE, SESSION] {
        let invite = Invite::new(&ladder.alice, BOB, service);
        let (arrived, from) = ladder.passes(&invite);
        // §9.1: our CANCEL waits for the far side's first response.
        ladder.alice.send(ladder.pf.udp, &cancel(&invite));
        let of = |method: &'static str, status: u16| {
            move |message: &Message| message.status() == status && message.want("CSeq").ends_with(method)
        };
        ladder.alice.next("200 for CANCEL", of("CANCEL", 200));
        let (over, _) = ladder.alice.next("487", of("INVITE", 487));
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &over);
        ladder.core.nothing(ladder.pf.udp, "a CANCEL before any response", |message| message.method() == "CANCEL");
        ladder.core.answer(&arrived, from, "180 Ringing", "", "");
        let (cancelled, from) = ladder.core.expect_from("CANCEL");
        assert_eq!(cancelled.want("Reason"), "SIP;cause=200;text=\"Call completed elsewhere\"");
        let branch = |message: &Message| message.want("Via").split("branch=").nth(1).map(str::to_owned);
        assert_eq!(branch(&cancelled), branch(&arrived));
        ladder.core.answer(&cancelled, from, "200 OK", "", "");
        ladder.core.answer(&arrived, from, "487 Request Terminated", "", "");
        ladder.core.expect("ACK");
    }
    // A 2xx that crosses the CANCEL is acknowledged and ended.
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let (arrived, from) = ladder.passes(&invite);
    ladder.core.answer(&arrived, from, "180 Ringing", "", "");
    ladder.alice.next("180", |message| message.status() == 180);
    ladder.alice.send(ladder.pf.udp, &cancel(&invite));
    let (cancelled, _) = ladder.core.expect_from("CANCEL");
    let sdp = crate::ue::answer_sdp("127.0.0.1:9".parse().expect("an address"), "bob", "active", "sendrecv");
    let contact = format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", ladder.core.address);
    ladder.core.answer(&arrived, from, "200 OK", &contact, &sdp);
    ladder.core.answer(&cancelled, from, "200 OK", "", "");
    ladder.core.expect("ACK");
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    ladder
        .pf
        .until("nothing is left", |pf| pf.metric("cpm_pf_dialogs", &[]) == 0.0 && pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0);
}

#[test]
fn what_a_stranger_asserts_neither_counts_nor_passes() {
    let mut ladder = Originating::new("[sip]\ntrusted = [\"10.0.0.0/8\"]\n");
    let asserted = "P-Asserted-Identity: <sip:alice@example.net>\nP-Served-User: <sip:alice@example.net>;sescase=orig\nP-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session\n";
    let text = request(&ladder.alice, "MESSAGE", BOB, "stranger", asserted);
    ladder.alice.send(ladder.pf.udp, &text);
    let (arrived, _) = ladder.core.expect_from("MESSAGE");
    for name in ["P-Asserted-Identity", "P-Served-User", "P-Asserted-Service"] {
        assert_eq!(arrived.header(name), None, "{name} came from a stranger");
    }
    for service in [LARGE, SESSION] {
        let invite = Invite::new(&ladder.alice, BOB, service);
        crate::ladder::warned(&ladder.refused(&invite, 403), "127 Service not authorised");
    }
    // P-Served-User would make it an originating request.
    let home = Invite::new(&ladder.alice, "sip:nobody@example.net", LARGE);
    ladder.alice.send(ladder.pf.udp, &home.text());
    let answer = ladder.alice.next("an answer", |message| message.status() >= 200).0;
    assert_ne!(answer.header("Warning").unwrap_or(""), "399 127.0.0.1 \"127 Service not authorised\"", "{answer:?}");
}
