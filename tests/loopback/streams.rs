//! RFC 3261 §18 on the wire: pieces and sequences of messages, slow and many senders, the way answers take, and what goes by which
//! transport.

use crate::proxy::Proxy;
use crate::stream::Stream;
use crate::torture::options;
use crate::ue::{Invite, LARGE, Message, SESSION, Ue, answer_sdp};
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

/// The next datagram, as a message.
#[track_caller]
fn datagram(socket: &UdpSocket) -> Message {
    socket.set_read_timeout(Some(crate::proxy::PATIENCE)).expect("a socket has a time limit");
    let mut buffer = vec![0; 65_536];
    let read = crate::reading::undisturbed(|| socket.recv(&mut buffer)).expect("an answer comes");
    Message(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

#[test]
fn requests_cut_anywhere_or_written_together_are_answered_in_order() {
    let pf = Proxy::start("");
    let to = pf.tcp.expect("TCP is bound");
    let mut stream = Stream::connect(to);
    for octet in options(to, "TCP", "slow").as_bytes() {
        stream.write(&[*octet]);
    }
    assert_eq!(stream.next().expect("an answer").want("Call-ID"), "slow");

    let many: String = (0..50).map(|number| options(to, "TCP", &format!("many{number}"))).collect();
    stream.write(many.as_bytes());
    for number in 0..50 {
        let answer = stream.next().expect("an answer");
        assert_eq!((answer.status(), answer.want("Call-ID")), (200, format!("many{number}").as_str()));
    }

    // A message and a half, then the other half and one more.
    let three: String = (0..3).map(|number| options(to, "TCP", &format!("three{number}"))).collect();
    let at = three.len() / 2;
    stream.write(&three.as_bytes()[..at]);
    assert_eq!(stream.next().expect("an answer").want("Call-ID"), "three0");
    stream.write(&three.as_bytes()[at..]);
    assert_eq!(stream.next().expect("an answer").want("Call-ID"), "three1");
    assert_eq!(stream.next().expect("an answer").want("Call-ID"), "three2");
}

#[test]
fn keep_alives_are_answered_on_streams_and_ignored_as_datagrams() {
    let pf = Proxy::start("");
    let to = pf.tcp.expect("TCP is bound");
    let mut stream = Stream::connect(to);
    stream.write(b"\r\n\r\n");
    assert_eq!(stream.octets(2), b"\r\n", "RFC 5626 4.4.1");
    stream.write(format!("\r\n{}", options(to, "TCP", "after")).as_bytes());
    assert_eq!(stream.status(), 200);

    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
    for octets in [&b"\r\n\r\n"[..], b"\r\n", b"", b"\0\0\0\0", b"jaK", &[0xff; 40]] {
        socket.send_to(octets, pf.udp).expect("loopback takes a datagram");
    }
    socket.send_to(options(pf.udp, "UDP", "after").as_bytes(), pf.udp).expect("loopback takes a datagram");
    let mut answer = datagram(&socket);
    while answer.0.trim().is_empty() {
        answer = datagram(&socket);
    }
    assert_eq!((answer.status(), answer.want("Call-ID")), (200, "after"));
}

#[test]
fn what_is_too_large_is_told_so() {
    let pf = Proxy::start("[sip]\nmax_message = \"4KiB\"\n");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
    let large = |transport, call: &str| {
        options(pf.udp, transport, call).replace("Max-Forwards", &format!("Subject: {}\r\nMax-Forwards", "x".repeat(6_000)))
    };
    socket.send_to(large("UDP", "large").as_bytes(), pf.udp).expect("loopback takes a datagram");
    assert_eq!(datagram(&socket).status(), 513);

    let to = pf.tcp.expect("TCP is bound");
    let mut announced = Stream::connect(to);
    announced.write(options(to, "TCP", "announced").replace("Content-Length: 0", "Content-Length: 99999999").as_bytes());
    let status = announced.status();
    assert!(matches!(status, 413 | 513), "{status}");

    // A head without an end: refused at the limit, not kept.
    let mut endless = Stream::connect(to);
    endless.write(format!("OPTIONS sip:x SIP/2.0\r\nSubject: {}", "x".repeat(300_000)).as_bytes());
    assert!(endless.closes());
    let mut lines = Stream::connect(to);
    lines.write(format!("OPTIONS sip:x SIP/2.0\r\n{}", "A: b\r\n".repeat(50_000)).as_bytes());
    assert!(lines.closes());

    let mut next = Stream::connect(to);
    next.write(options(to, "TCP", "next").as_bytes());
    assert_eq!(next.status(), 200);
}

#[test]
fn what_is_no_sip_ends_its_connection_and_nothing_else() {
    let pf = Proxy::start("");
    let to = pf.tcp.expect("TCP is bound");
    let mut good = Stream::connect(to);
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &[0; 5_000],
        b"MSRP a SEND\r\n\r\n",
    ] {
        let mut bad = Stream::connect(to);
        bad.write(garbage);
        assert!(bad.closes());
    }
    // Both Content-Length and the lack of one decide where a stream goes on: neither can be guessed.
    let mut without = Stream::connect(to);
    without.write(options(to, "TCP", "without").replace("Content-Length: 0\r\n", "").as_bytes());
    assert_eq!(without.status(), 400);
    good.write(options(to, "TCP", "good").as_bytes());
    assert_eq!(good.status(), 200);
    assert!(!pf.log().contains("panicked"));
}

#[test]
fn a_message_that_does_not_end_is_not_waited_for() {
    let pf = Proxy::start("[limits]\nopening_timeout = \"1s\"\n");
    let to = pf.tcp.expect("TCP is bound");
    let (mut idle, mut slow) = (Stream::connect(to), Stream::connect(to));
    let text = options(to, "TCP", "slow");
    idle.write(&text.as_bytes()[..40]);
    // An octet now and then does not help.
    slow.tcp.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket has a time limit");
    let mut buffer = [0; 100];
    let mut rest = text.as_bytes().chunks(1);
    for octet in rest.by_ref() {
        slow.write(octet);
        match std::io::Read::read(&mut slow.tcp, &mut buffer) {
            Ok(0) => break,
            Ok(_) => panic!("an answer to half a message"),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(_) => {}
        }
    }
    assert!(rest.next().is_some(), "the whole message could be written, an octet each 200 ms");
    assert!(idle.closes());
}

#[test]
fn strangers_get_so_many_connections_and_no_more() {
    let pf = Proxy::start("[sip]\ntrusted = [\"10.0.0.0/8\"]\n");
    let to = pf.tcp.expect("TCP is bound");
    let mut streams: Vec<Stream> = (0..cpm_pf::limits::SIP_CONNECTIONS_PER_PEER).map(|_| Stream::connect(to)).collect();
    // All of them are accepted before the next is: its end, not an answer, shows that it is one too many.
    streams[0].write(options(to, "TCP", "first").as_bytes());
    assert_eq!(streams[0].status(), 200);
    let mut beyond = Stream::connect(to);
    beyond.write(options(to, "TCP", "beyond").as_bytes());
    assert_eq!(beyond.status(), 0);
    let last = streams.last_mut().expect("there are some");
    last.write(options(to, "TCP", "last").as_bytes());
    assert_eq!(last.status(), 200);
    // One that goes makes room for another.
    streams.truncate(100);
    pf.until("a stranger is served again", |_| {
        let mut again = Stream::connect(to);
        again.write(options(to, "TCP", "again").as_bytes());
        again.status() == 200
    });
}

#[test]
fn an_answer_goes_where_via_says() {
    let pf = Proxy::start("");
    let (from, other) = (UdpSocket::bind("127.0.0.1:0").expect("a port"), UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let source = from.local_addr().expect("bound");
    let elsewhere = other.local_addr().expect("bound");
    let send = |via: &str, call: &str| {
        let text = options(pf.udp, "UDP", call).replace("127.0.0.1;branch", &format!("{via};branch"));
        from.send_to(text.as_bytes(), pf.udp).expect("loopback takes a datagram");
    };

    // RFC 3581: with rport, back where it came from, whatever the sent-by says.
    send("client.invalid:4000", "rport");
    let answer = datagram(&from);
    let via = answer.want("Via");
    assert!(via.contains(&format!("rport={}", source.port())) && via.contains("received=127.0.0.1"), "{via}");
    assert!(via.starts_with("SIP/2.0/UDP client.invalid:4000;"), "{via}");

    // RFC 3261 §18.2.2: without, to the sent-by's port at the source address.
    let text =
        options(pf.udp, "UDP", "plain").replace("127.0.0.1;branch", &format!("client.invalid:{};branch", elsewhere.port()));
    from.send_to(text.replace(";rport", "").as_bytes(), pf.udp).expect("loopback takes a datagram");
    let answer = datagram(&other);
    assert!(answer.want("Via").contains("received=127.0.0.1"), "{answer:?}");

    // Several hops: each Via comes back in its place.
    let text = options(pf.udp, "UDP", "hops").replace(
        "Max-Forwards",
        "Via: SIP/2.0/TCP a.invalid;branch=z9hG4bK1, SIP/2.0/UDP b.invalid;branch=z9hG4bK2\r\nMax-Forwards",
    );
    from.send_to(text.as_bytes(), pf.udp).expect("loopback takes a datagram");
    let answer = datagram(&from);
    let vias: Vec<&str> = answer.all("Via").flat_map(|line| line.split(',')).map(str::trim).collect();
    assert_eq!(vias[1..], ["SIP/2.0/TCP a.invalid;branch=z9hG4bK1", "SIP/2.0/UDP b.invalid;branch=z9hG4bK2"]);
}

/// A far side that takes UDP and TCP on one port.
fn both_transports() -> (Ue, TcpListener) {
    let ue = Ue::udp("core");
    let listener = ue.listen_beside();
    (ue, listener)
}

#[test]
fn a_request_too_large_for_a_datagram_goes_over_tcp() {
    let (mut core, listener) = both_transports();
    let mut alice = Ue::udp("alice");
    let pf = Proxy::start(&format!("[sip]\ncore = \"sip:{};lr\"\n", core.address));
    let invite = Invite::new(&alice, "sip:bob@example.org", LARGE).with("Subject", &"long ".repeat(100));
    alice.send(pf.udp, &invite.text());
    let (tcp, _) = listener.accept().expect("the program connects");
    let mut stream = Stream { tcp, held: Vec::new() };
    let arrived = stream.next().expect("the INVITE");
    assert!(arrived.method() == "INVITE" && arrived.want("Via").starts_with("SIP/2.0/TCP "), "{arrived:?}");
    assert!(arrived.want("Contact").contains("transport=tcp") || !arrived.want("Contact").contains("transport="), "{arrived:?}");
    let sdp = answer_sdp("127.0.0.1:9".parse().expect("an address"), "bob", "active", "recvonly");
    let contact = format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", core.address);
    stream.write(crate::ue::response(&arrived, "200 OK", "tcp", &contact, &sdp).as_bytes());
    let ok = alice.expect_status(200);
    alice.ack(pf.udp, &invite.message(), &ok);
    // The ACK is small: it may go by either.
    let bye = alice.in_dialog("BYE", &ok, 1);
    alice.send(pf.udp, &bye);
    alice.expect_status(200);
    core.expect("BYE");
    // Small requests go over UDP.
    let text = format!(
        "MESSAGE sip:bob@example.org SIP/2.0\nVia: SIP/2.0/UDP {};branch=z9hG4bKsmall;rport\nMax-Forwards: 70\nFrom: <sip:alice@example.net>;tag=1\nTo: <sip:bob@example.org>\nCall-ID: small\nCSeq: 1 MESSAGE\nContent-Length: 0\n\n",
        alice.address
    );
    alice.send(pf.udp, &text);
    let (small, from) = core.expect_from("MESSAGE");
    assert!(small.want("Via").starts_with("SIP/2.0/UDP "));
    core.answer(&small, from, "200 OK", "", "");
    alice.expect_status(200);
}

#[test]
fn calls_go_over_ipv6() {
    let (mut alice, mut core) = (Ue::udp_at("alice", "[::1]:0"), Ue::udp_at("core", "[::1]:0"));
    let pf = Proxy::start(&format!(
        "[node]\nhost = \"[::1]\"\n[sip]\nlisten = [\"udp://[::1]:0\", \"tcp://[::1]:0\"]\ntrusted = [\"::1/128\"]\ncore = \"sip:{};lr\"\n[msrp]\nlisten = [\"tcp://[::1]:0\"]\n",
        core.address
    ));
    let invite = Invite::new(&alice, "sip:bob@example.org", SESSION).sdp("IN IP4 127.0.0.1", "IN IP6 ::1");
    alice.send(pf.udp, &invite.text());
    let (arrived, from) = core.expect_from("INVITE");
    assert!(arrived.want("Via").contains("[::1]"), "{arrived:?}");
    assert!(arrived.body().contains("c=IN IP6 ::1\r\n"), "{arrived:?}");
    assert!(arrived.attribute("path").starts_with("msrp://[::1]:"), "{arrived:?}");
    let sdp = answer_sdp("[::1]:9".parse().expect("an address"), "bob", "active", "sendrecv").replace("IP4 127.0.0.1", "IP6 ::1");
    core.answer(&arrived, from, "200 OK", &format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", core.address), &sdp);
    let ok = alice.expect_status(200);
    assert!(ok.want("Contact").contains("[::1]"), "{ok:?}");
    alice.ack(pf.udp, &invite.message(), &ok);
    core.expect("ACK");
    let bye = alice.in_dialog("BYE", &ok, 1);
    alice.send(pf.udp, &bye);
    alice.expect_status(200);
    let (bye, from) = core.expect_from("BYE");
    core.answer(&bye, from, "200 OK", "", "");

    let to = pf.tcp.expect("TCP is bound");
    let mut stream = Stream::connect(to);
    stream.write(options(to, "TCP", "six").replace("TCP 127.0.0.1", "TCP [::1]").as_bytes());
    assert_eq!(stream.status(), 200);
}
