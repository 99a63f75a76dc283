//! What one peer may have: connections, handshakes, requests a second, time. Each limit is set small, met, seen in a metric and in the
//! log, and gives room again.

use crate::proxy::{PATIENCE, Proxy};
use crate::reading;
use crate::secure::{authority, certificate, client};
use crate::torture::options;
use crate::ue::Message;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// All listeners of SIP and MSRP, with a certificate; nobody is trusted but at an address where nobody is.
fn secure(limits: &str) -> Proxy {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificate(folder.path(), &authority());
    let listen = "[sip]\nlisten = [\"udp://127.0.0.1:0\", \"tcp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\ntrusted = [\"127.0.0.9/32\"]\n\
         [sip.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\nca = \"ca.pem\"\n[msrp]\nlisten = [\"tcp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\n";
    Proxy::start_in(folder, &format!("{listen}[limits]\n{limits}\n"))
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the port listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    stream
}

/// Whether the program ends the connection, whatever it says before.
fn ends(stream: &mut TcpStream) -> bool {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Writes an octet now and then until the program ends the connection; the octets never make anything whole.
fn trickles(mut stream: TcpStream, beginning: &[u8], more: u8) -> bool {
    stream.set_nodelay(true).expect("a TCP socket has no delay");
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket has a time limit");
    let until = Instant::now() + PATIENCE;
    let mut octets = beginning.iter().copied().chain(std::iter::repeat(more));
    while Instant::now() < until {
        let over = stream.write_all(&[octets.next().unwrap_or(more)]).is_err();
        match reading::read(&mut stream, &mut [0; 100]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && !over => {}
            Ok(1..) if !over => {}
            _ => return true,
        }
    }
    false
}

/// What a TLS client says first.
fn hello(pf: &Proxy) -> Vec<u8> {
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let mut client = ClientConnection::new(client(pf.folder.path(), false), name).expect("a connection");
    let mut octets = Vec::new();
    client.write_tls(&mut octets).expect("a Vec takes it");
    octets
}

/// Whether a client that says a whole hello gets an answer.
fn greeted(to: SocketAddr, hello: &[u8]) -> bool {
    let mut stream = connect(to);
    stream.write_all(hello).is_ok() && reading::read(&mut stream, &mut [0; 100]).is_ok_and(|read| read > 0)
}

fn of_engine(pf: &Proxy, count: &str) -> f64 {
    pf.metric("cpm_pf_msrp_engine_total", &[&format!("\"{count}\"")])
}

fn of_transport(pf: &Proxy, cause: &str) -> f64 {
    pf.metric("cpm_pf_sip_transport_total", &[&format!("\"{cause}\"")])
}

#[test]
fn a_handshake_that_stops_halfway_is_ended() {
    let pf = secure("opening_timeout = \"300ms\"");
    let (sip, msrp) = (pf.tls.expect("TLS is bound"), pf.msrps.expect("TLS is bound"));
    let hello = hello(&pf);
    for to in [sip, msrp] {
        let mut half = connect(to);
        half.write_all(&hello[..hello.len() / 2]).expect("a new connection takes octets");
        assert!(ends(&mut half), "{to}");
        // One that says an octet of it now and then gains nothing.
        assert!(trickles(connect(to), &hello[..5], 0), "{to}");
    }
    pf.until("both are counted", |pf| of_transport(pf, "tls") >= 2.0 && of_engine(pf, "failed-handshakes") >= 2.0);
    assert!(greeted(sip, &hello) && greeted(msrp, &hello));
}

#[test]
fn handshakes_beyond_the_limit_are_refused_and_told() {
    let pf = secure("handshakes = 4\nopening_timeout = \"60s\"");
    let hello = hello(&pf);
    for to in [pf.tls.expect("TLS is bound"), pf.msrps.expect("TLS is bound")] {
        let half: Vec<TcpStream> = (0..4)
            .map(|_| {
                let mut stream = connect(to);
                stream.write_all(&hello[..hello.len() / 2]).expect("a new connection takes octets");
                stream
            })
            .collect();
        // The kernel hands them over in the order in which they came.
        assert!(ends(&mut connect(to)), "{to}");
        drop(half);
        pf.until("those that left make room", |_| greeted(to, &hello));
    }
    assert!(of_transport(&pf, "handshake-refused") >= 1.0, "{}", pf.get("/metrics").1);
    assert!(of_engine(&pf, "refused-handshakes") >= 1.0, "{}", pf.get("/metrics").1);
    pf.until("the log has told of both", |pf| pf.log().matches("limits.handshakes").count() >= 2);
}

#[test]
fn a_sip_message_that_comes_octet_by_octet_is_not_waited_for() {
    let pf = secure("opening_timeout = \"300ms\"");
    let to = pf.tcp.expect("TCP is bound");
    assert!(trickles(connect(to), b"INVITE sip:bob@example.net SIP/2.0\r\nVia: ", b'x'));
    assert!(of_transport(&pf, "half-message") >= 1.0, "{}", pf.get("/metrics").1);
}

#[test]
fn an_msrp_connection_that_names_no_session_in_time_is_ended() {
    let pf = secure("unbound_timeout = \"300ms\"");
    assert!(ends(&mut connect(pf.msrp)), "one that says nothing");
    assert!(trickles(connect(pf.msrp), b"MSRP tid00001 SEND\r\nTo-Path: msrp://", b'x'), "one that says an octet now and then");
    pf.until("both are counted", |pf| pf.metric("cpm_pf_msrp_refusals_total", &["\"msrp-unbound\""]) >= 2.0);
}

#[test]
fn an_msrp_head_that_does_not_end_is_not_kept() {
    let pf = secure("");
    let mut stream = connect(pf.msrp);
    let mut head = b"MSRP tid00001 SEND\r\nTo-Path: msrp://".to_vec();
    head.resize(2 * cpm_pf::limits::MSRP_HEAD_OCTETS_MAX, b'x');
    // The program may close amid it.
    let _ = stream.write_all(&head);
    assert!(ends(&mut stream));
    pf.until("it is counted", |pf| pf.metric("cpm_pf_msrp_refusals_total", &["\"msrp-framing-lost\""]) == 1.0);
}

#[test]
fn one_address_has_so_many_unbound_msrp_connections() {
    let pf = secure("unbound_msrp_per_peer = 3");
    let mut mute: Vec<TcpStream> = (0..3).map(|_| connect(pf.msrp)).collect();
    assert!(ends(&mut connect(pf.msrp)));
    assert_eq!(pf.metric("cpm_pf_msrp_refusals_total", &["\"msrp-too-many-connections\""]), 1.0);
    pf.until("the log has told", |pf| pf.log().contains("limits.unbound_msrp_per_peer"));
    mute.pop();
    pf.until("one that left makes room", |pf| {
        let mut again = connect(pf.msrp);
        let frame = "MSRP tid00001 SEND\r\nTo-Path: msrp://127.0.0.1:9/nobody;tcp\r\nFrom-Path: msrp://127.0.0.1:9/me;tcp\r\n\
                     Message-ID: m\r\nByte-Range: 1-0/0\r\n-------tid00001$\r\n";
        let _ = again.write_all(frame.as_bytes());
        let mut said = [0; 17];
        again.read_exact(&mut said).is_ok() && said == *b"MSRP tid00001 481"
    });
}

#[test]
fn one_address_has_so_many_sip_connections() {
    let pf = secure("connections_per_peer = 2");
    let to = pf.tcp.expect("TCP is bound");
    let held = [connect(to), connect(to)];
    assert!(ends(&mut connect(to)));
    assert_eq!(of_transport(&pf, "refused-by-limit"), 1.0);
    pf.until("the log has told", |pf| pf.log().contains("limits.connections_per_peer"));
    drop(held);
    pf.until("those that left make room", |_| {
        let mut again = crate::stream::Stream::connect(to);
        again.write(options(to, "TCP", "again").as_bytes());
        again.status() == 200
    });
}

#[test]
fn one_address_has_so_many_requests_a_second() {
    const SENT: usize = 30;
    let pf = secure("requests_per_second_per_peer = 1");
    let answered = |from: &str| {
        let socket = UdpSocket::bind(from).expect("a loopback port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
        for number in 0..SENT {
            let text = options(pf.udp, "UDP", &format!("{from}-{number}"));
            socket.send_to(text.as_bytes(), pf.udp).expect("loopback takes a datagram");
        }
        let mut buffer = [0; 4_096];
        let status = |_| {
            let read = reading::undisturbed(|| socket.recv(&mut buffer)).expect("an answer to each");
            Message(String::from_utf8_lossy(&buffer[..read]).into_owned()).status()
        };
        (0..SENT).map(status).collect::<Vec<_>>()
    };
    let stranger = answered("127.0.0.2:0");
    let refused = stranger.iter().filter(|status| **status == 503).count();
    assert!(refused > 0 && stranger.contains(&200), "{stranger:?}");
    assert_eq!(refused + stranger.iter().filter(|status| **status == 200).count(), SENT, "{stranger:?}");
    assert_eq!(of_transport(&pf, "too-many-requests"), refused as f64);
    pf.until("the log has told", |pf| pf.log().contains("limits.requests_per_second_per_peer"));
    // Whom we trust sends what it likes.
    assert_eq!(answered("127.0.0.9:0"), [200; SENT]);

    // On a connection the same, and it goes on afterwards.
    let to = pf.tcp.expect("TCP is bound");
    let mut stream = crate::stream::Stream::connect(to);
    let many: String = (0..SENT).map(|number| options(to, "TCP", &format!("stream-{number}"))).collect();
    stream.write(many.as_bytes());
    let statuses: Vec<u16> = (0..SENT).map(|_| stream.status()).collect();
    assert!(statuses.contains(&503) && statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    pf.until("a second later it is served", |_| {
        stream.write(options(to, "TCP", "later").as_bytes());
        stream.status() == 200
    });
}
