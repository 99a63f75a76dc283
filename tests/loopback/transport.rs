//! SIP's transports: what is no SIP does no harm, and what is too large is answered.

use crate::proxy::{PATIENCE, Proxy};
use crate::ue::{Invite, LARGE, Ue};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    stream
}

/// All that comes until the proxy closes.
fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The next octets are a response of this status.
#[track_caller]
fn expect_status(stream: &mut TcpStream, status: u16) {
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("a response comes");
    assert_eq!(String::from_utf8_lossy(&start), format!("SIP/2.0 {status} "));
}

fn options(proxy: &Proxy, transport: &str, call: &str, more: &str) -> String {
    let own = proxy.udp;
    format!(
        "OPTIONS sip:{own} SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.0.1:9;branch=z9hG4bK{call};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.net>;tag=1\r\nTo: <sip:{own}>\r\nCall-ID: {call}\r\nCSeq: 1 OPTIONS\r\n{more}\r\n"
    )
}

#[test]
fn a_double_crlf_is_answered_with_a_single_one() {
    let proxy = Proxy::start("");
    let mut stream = connect(proxy.tcp.unwrap());
    stream.write_all(b"\r\n\r\n").unwrap();
    let mut pong = [0; 2];
    stream.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\r\n");
}

#[test]
fn another_protocol_is_shown_the_door() {
    let proxy = Proxy::start("");
    let mut stream = connect(proxy.tcp.unwrap());
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(rest(&mut stream), "");
    proxy.until("it is counted", |proxy| proxy.metric("cpm_pf_sip_transport_total", &["malformed"]) == 1.0);
}

#[test]
fn a_body_above_the_limit_is_refused_by_its_announcement() {
    let proxy = Proxy::start("[sip]\nmax_message = \"8KiB\"\n");
    let mut stream = connect(proxy.tcp.unwrap());
    stream.write_all(options(&proxy, "TCP", "large", "Content-Length: 100000\r\n").as_bytes()).unwrap();
    expect_status(&mut stream, 413);
}

#[test]
fn a_head_above_the_limit_ends_the_connection() {
    let proxy = Proxy::start("");
    let mut stream = connect(proxy.tcp.unwrap());
    let _ = stream.write_all(options(&proxy, "TCP", "wide", &format!("X: {}\r\n", "x".repeat(100_000))).as_bytes());
    let text = rest(&mut stream);
    assert!(text.is_empty() || text.starts_with("SIP/2.0 513 "), "{text}");
}

#[test]
fn a_datagram_above_the_limit_is_answered_513() {
    let proxy = Proxy::start("[sip]\nmax_message = \"4KiB\"\n");
    let mut alice = Ue::udp("alice");
    alice.send(proxy.udp, &options(&proxy, "UDP", "wide", &format!("X: {}\r\n", "x".repeat(20_000))));
    alice.expect_status(513);
}

#[test]
fn a_message_may_come_octet_by_octet_and_two_may_come_at_once() {
    let proxy = Proxy::start("");
    let mut stream = connect(proxy.tcp.unwrap());
    stream.set_nodelay(true).unwrap();
    for octet in options(&proxy, "TCP", "slow", "Content-Length: 0\r\n").bytes() {
        stream.write_all(&[octet]).unwrap();
    }
    let both = options(&proxy, "TCP", "two", "Content-Length: 0\r\n") + &options(&proxy, "TCP", "three", "Content-Length: 0\r\n");
    stream.write_all(both.as_bytes()).unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !["slow", "two", "three"].iter().all(|call| text.contains(&format!("Call-ID: {call}\r\n"))) {
        let read = crate::reading::read(&mut stream, &mut buffer).expect("all three are answered");
        assert!(read > 0, "closed after {text}");
        text += &String::from_utf8_lossy(&buffer[..read]);
    }
    assert_eq!(text.matches("SIP/2.0 200 ").count(), 3, "{text}");
}

#[test]
fn a_core_that_gathers_answers_a_single_request_too() {
    let proxy = Proxy::start("[sip]\nbatch_wait = \"5ms\"\n");
    let mut alice = Ue::udp("alice");
    alice.send(proxy.udp, &options(&proxy, "UDP", "alone", "Content-Length: 0\r\n"));
    assert_eq!(alice.expect_status(200).want("Call-ID"), "alone");
    let mut stream = connect(proxy.tcp.unwrap());
    stream.write_all(options(&proxy, "TCP", "stream", "Content-Length: 0\r\n").as_bytes()).unwrap();
    expect_status(&mut stream, 200);
}

#[test]
fn garbage_in_datagrams_does_no_harm() {
    let proxy = Proxy::start("");
    let mut alice = Ue::udp("alice");
    for garbage in [&b"\0"[..], b"\r\n\r\n", b"\xff\xfe\xfd", b"INVITE", b"SIP/2.0 200 OK\r\n\r\n", &[b'A'; 60_000]] {
        alice.send_octets(proxy.udp, garbage);
    }
    alice.send(proxy.udp, &options(&proxy, "UDP", "after", "Content-Length: 0\r\n"));
    assert_eq!(alice.expect_status(200).want("Call-ID"), "after");
}

#[test]
fn an_answer_goes_to_where_the_request_came_from() {
    let proxy = Proxy::start("");
    let mut alice = Ue::udp("alice");
    alice.send(proxy.udp, &options(&proxy, "UDP", "rport", "Content-Length: 0\r\n"));
    let ok = alice.expect_status(200);
    let via = ok.want("Via");
    assert!(via.contains(&format!("rport={}", alice.address.port())) && via.contains("received=127.0.0.1"), "{via}");
}

#[test]
fn ipv6_is_served_beside_ipv4() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("this machine has no IPv6 loopback: nothing is tested");
        return;
    }
    let proxy =
        Proxy::start("[sip]\nlisten = [\"udp://127.0.0.1:0\", \"udp://[::1]:0\", \"tcp://[::1]:0\"]\ntrusted = [\"::1/128\"]\n");
    let six = proxy.ready.split("udp:[::1]:").nth(1).and_then(|rest| rest.split([',', ' ']).next()).expect("a port");
    let socket = std::net::UdpSocket::bind("[::1]:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(options(&proxy, "UDP", "six", "Content-Length: 0\r\n").as_bytes(), format!("[::1]:{six}")).unwrap();
    let mut buffer = [0; 4096];
    let read = crate::reading::undisturbed(|| socket.recv(&mut buffer)).expect("an answer over IPv6");
    assert!(buffer[..read].starts_with(b"SIP/2.0 200"));
}

#[test]
fn several_cores_answer_as_one() {
    let proxy = Proxy::start("[cores]\nsignaling = [0, 1]\n");
    for number in 0..16 {
        // Each from a port of its own: the kernel deals them out to both cores.
        let mut alice = Ue::udp("alice");
        alice.send(proxy.udp, &options(&proxy, "UDP", &format!("core{number}"), "Content-Length: 0\r\n"));
        alice.expect_status(200);
        let mut stream = connect(proxy.tcp.unwrap());
        stream.write_all(options(&proxy, "TCP", &format!("tcp{number}"), "Content-Length: 0\r\n").as_bytes()).unwrap();
        expect_status(&mut stream, 200);
    }
}

#[test]
fn who_has_said_all_still_gets_the_answer() {
    let proxy = Proxy::start("");
    let mut stream = connect(proxy.tcp.unwrap());
    stream.write_all(options(&proxy, "TCP", "last", "Content-Length: 0\r\n").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(rest(&mut stream).starts_with("SIP/2.0 200 "));
}

#[test]
fn who_has_closed_gets_the_answer_where_it_listens() {
    let (mut alice, mut core) = (Ue::tcp("alice"), Ue::udp("core"));
    let proxy = Proxy::start(&format!("[sip]\ncore = \"sip:{};lr\"\n", core.address));
    let invite = Invite::new(&alice, "sip:carol@elsewhere.example", LARGE);
    let mut stream = connect(proxy.tcp.unwrap());
    stream.write_all(invite.text().as_bytes()).unwrap();
    let (passed, from) = core.expect_from("INVITE");
    let (theirs, ours) = (proxy.tcp.unwrap().port(), stream.local_addr().unwrap().port());
    drop(stream);
    // The kernel may tell the program's end of it later than what another socket sends next.
    let established = format!(" 0100007F:{theirs:04X} 0100007F:{ours:04X} 01 ");
    while std::fs::read_to_string("/proc/net/tcp").expect("Linux tells").contains(&established) {
        std::thread::yield_now();
    }
    core.answer(&passed, from, "486 Busy Here", "", "");
    let (answer, _) = alice.next("the answer", |message| message.status() >= 200);
    assert_eq!(answer.status(), 486);
}

#[test]
fn who_reads_nothing_is_closed() {
    let proxy = Proxy::start("");
    let mut stream = connect(proxy.tcp.unwrap());
    // Answers pile up in the kernel first, then in the queue, which has a bound.
    let mut number = 0;
    loop {
        let many = |text: String, at: u32| text + &options(&proxy, "TCP", &format!("deaf{at}"), "Content-Length: 0\r\n");
        let text = (number..number + 100).fold(String::new(), many);
        if stream.write_all(text.as_bytes()).is_err() {
            break;
        }
        number += 100;
    }
    proxy.until("it is counted", |proxy| {
        proxy.metric("cpm_pf_sip_transport_total", &["send-queue-overflow"])
            + proxy.metric("cpm_pf_sip_transport_total", &["broken"])
            >= 1.0
    });
    Ue::udp("alice").nothing(proxy.udp, "anything", |_| false);
}
