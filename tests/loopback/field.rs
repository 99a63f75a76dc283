//! What endpoints in the field do that no standard says: read, answered, and passed on as one that does.

use crate::ladder::{Originating, Relayed, Terminating, relayed};
use crate::msrp::{Msrp, Waiting};
use crate::ue::{Invite, LARGE, SESSION, Ue, answer_sdp};

const BOB: &str = "sip:bob@example.net";

#[test]
fn an_offer_as_one_client_writes_it_is_read() {
    let mut ladder = Originating::new("");
    // Upper case, both directions, an active role to choose, within a multipart whose boundary should be quoted, and whose last line runs
    // into it.
    let mut invite = Invite::new(&ladder.alice, "sip:bob@example.org", LARGE)
        .sdp("m=message 9", "m=MESSAGE 9")
        .sdp("a=sendonly", "a=sendrecv")
        .with("Content-Type", "multipart/mixed;boundary=x:y=z");
    let list = "<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"/>";
    invite.body = format!(
        "--x:y=z\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n{list}\r\n--x:y=z\r\nContent-Type: application/sdp\r\n\r\n{}--x:y=z--",
        invite.body.trim_end()
    );
    let (arrived, _) = ladder.passes(&invite);
    assert!(arrived.body().contains(&format!("m=message {} TCP/MSRP *\r\n", ladder.pf.msrp.port())), "{arrived:?}");
    assert_eq!((arrived.attributes("sendonly").len(), arrived.attributes("sendrecv").len()), (1, 0));
    assert_eq!((arrived.attribute("setup"), arrived.attribute("file-selector")), ("actpass", "size:4092"));
    assert!(arrived.body().contains(list));
}

#[test]
fn a_path_with_another_port_than_its_line_is_served_where_it_says_cema() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", LARGE).sdp("m=message 9", "m=message 7777");
    let (arrived, _) = ladder.passes(&invite);
    assert_eq!(arrived.msrp_address(), ladder.pf.msrp);
    // RFC 6714 4.3: without, only an operator who serves such endpoints takes it.
    let without =
        Invite::new(&ladder.alice, "sip:bob@example.org", LARGE).sdp("m=message 9", "m=message 7777").sdp("a=msrp-cema\r\n", "");
    ladder.refused_beside(&without, 488);
    let mut ladder = Originating::new("[msrp]\ninterop = \"auto\"");
    let without =
        Invite::new(&ladder.alice, "sip:bob@example.org", LARGE).sdp("m=message 9", "m=message 7777").sdp("a=msrp-cema\r\n", "");
    ladder.passes(&without);
}

#[test]
fn a_client_that_shows_our_request_uri_as_its_contact_is_still_reached() {
    for (mut ladder, transport) in [(Terminating::new(&["primary = true"], ""), "udp"), (over_tcp(), "tcp")] {
        let invite = ladder.call(SESSION);
        let (arrived, from) = ladder.passes(&invite);
        let ok = ladder.alice.expect_status(200);
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
        let waiting = Waiting::new();
        let sdp = answer_sdp(waiting.address(), "client", "passive", "sendrecv");
        let extra = format!("Contact: <{}>\nContent-Type: application/sdp\n", arrived.uri());
        ladder.clients[0].answer(&arrived, from, "200 OK", &extra, &sdp);
        assert_eq!(ladder.clients[0].expect("ACK").uri(), arrived.uri(), "{transport}");
        let mut client = waiting.accept(&format!("msrp://{}/client;tcp", waiting.address()), arrived.attribute("path"));
        let mut alice = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
        alice.send("message1", b"hello");
        assert_eq!(client.message(), b"hello");
        let bye = ladder.alice.in_dialog("BYE", &ok, 1);
        ladder.alice.send(ladder.pf.udp, &bye);
        let (bye, from) = ladder.clients[0].expect_from("BYE");
        ladder.clients[0].answer(&bye, from, "200 OK", "", "");
    }
}

#[test]
fn a_client_that_connects_may_name_any_port_of_its_own() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let nowhere = "127.0.0.1:7777".parse().expect("an address");
    let sdp =
        answer_sdp(nowhere, "bob", "active", "sendrecv").replace("a=msrp-cema\r\n", "").replace("m=message 7777", "m=message 9");
    let (arrived, ok) = ladder.established(&invite, &contact, &sdp);
    let mut bob = Msrp::connect(arrived.msrp_address(), "msrp://127.0.0.1:7777/bob;tcp", arrived.attribute("path"));
    bob.open();
    bob.expect("200");
    let mut alice = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    alice.send("message1", b"hello");
    assert_eq!(bob.message(), b"hello");
    bob.send("message2", b"hello yourself");
    assert_eq!(alice.expect("200").kind(), "200");
    assert_eq!(alice.message(), b"hello yourself");
    ladder.core.nothing(ladder.pf.udp, "a new offer for a session that works", |message| message.method() == "INVITE");
}

/// Bob's client is registered over TCP.
fn over_tcp() -> Terminating {
    let (alice, isf, client) = (Ue::udp("alice"), Ue::udp("isf"), Ue::tcp("client"));
    let user = crate::proxy::registered(BOB, &[(client.address, "primary = true")]);
    let user = user.replace(&client.address.to_string(), &format!("{};transport=tcp", client.address));
    Terminating { alice, clients: vec![client], isf, pf: crate::proxy::Proxy::start(&user) }
}

#[test]
fn kits_send_a_megabyte_in_one_chunk_or_in_small_ones_under_ids_that_never_change() {
    let Relayed { mut a, mut b, ladder: _ladder, .. } = relayed(SESSION, "");
    let body: Vec<u8> = (0..1_000_000u32).map(|n| (n % 247) as u8).collect();
    let frame = |msrp: &Msrp, range: &str, body: &[u8], flag: char| {
        let head = format!(
            "MSRP empty SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: empty\r\nByte-Range: {range}\r\nContent-Type: text/plain\r\n\r\n",
            msrp.peer, msrp.own
        );
        [head.as_bytes(), body, format!("\r\n-------empty{flag}\r\n").as_bytes()].concat()
    };
    for _ in 0..3 {
        let mut writer = a.stream.try_clone().expect("a socket can be doubled");
        let whole = frame(&a, &format!("1-*/{}", body.len()), &body, '$');
        let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &whole));
        assert!(b.message() == body);
        writing.join().expect("no panic").expect("the proxy reads");
        assert_eq!(a.expect("200").tid(), "empty");
    }
    let short = &body[..9_000];
    for (number, part) in short.chunks(2_000).enumerate() {
        let (start, end) = (number * 2_000 + 1, number * 2_000 + part.len());
        let flag = if end == short.len() { '$' } else { '+' };
        let octets = frame(&a, &format!("{start}-{end}/{}", short.len()), part, flag);
        a.write(&octets);
        assert_eq!(a.expect("200").tid(), "empty");
    }
    assert_eq!(b.message(), short);
}
