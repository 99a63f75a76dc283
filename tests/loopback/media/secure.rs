//! RFC 4975 §14.2, §14.4, RFC 8122: MSRP over TLS, both ways round.

use super::rig::{Rig, Setup, peer};
use crate::many::raise_descriptors;
use crate::proxy::PATIENCE;
use crate::secure::{authority, certificate, client};
use cpm_pf::io::tls::{Tls, fingerprint};
use cpm_pf::limits::HANDSHAKES;
use cpm_pf::msrp::leg::Peer;
use cpm_pf::shard::exchange::{LegFailure, LegKind, MediaKey, Report};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

fn tls_of(folder: &Path) -> Tls {
    let file = |name: &str| folder.join(name);
    let config = cpm_pf::config::Tls {
        certificate: file("cert.pem"),
        key: file("key.pem"),
        ca: Some(file("ca.pem")),
        verify_client: false,
    };
    Tls::load(&config).unwrap_or_else(|error| panic!("{error}"))
}

fn own_fingerprint(folder: &Path) -> Box<str> {
    fingerprint(&CertificateDer::from_pem_file(folder.join("cert.pem")).expect("a certificate")).as_ref().into()
}

fn server(folder: &Path) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("both versions");
    let chain = vec![CertificateDer::from_pem_file(folder.join("cert.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("a key");
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).expect("they fit"))
}

/// A core with a session whose target is to be connected to over TLS at `waiting`.
struct Meeting {
    rig: Rig,
    waiting: TcpListener,
    /// Our URIs for the origin and the target, and theirs.
    ours: [String; 2],
    theirs: [String; 2],
}

fn meeting(folder: &Path, origin: Option<Box<str>>, target: Option<Box<str>>) -> Meeting {
    let mut rig = Rig::start(Setup { tls: Some(tls_of(folder)), ..Setup::new() });
    let waiting = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let to = waiting.local_addr().expect("bound");
    let ours = [0, 1].map(|leg| rig.uri(0, 1, leg));
    let theirs = ["msrps://127.0.0.1:9/origin;tcp".to_owned(), format!("msrps://{to}/target;tcp")];
    let (key, _) = rig.open(0, LegKind::Msrp { uri: ours[1].clone().into(), tls: true });
    rig.bind(0, key, 0, Peer { fingerprint: origin, ..peer(&theirs[0], None) });
    rig.bind(0, key, 1, Peer { tls: true, fingerprint: target, ..peer(&theirs[1], Some(to)) });
    Meeting { rig, waiting, ours, theirs }
}

/// Reads until `end` was seen.
fn read_to(stream: &mut impl Read, end: &str) -> std::io::Result<String> {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains(end) {
        match crate::reading::read(stream, &mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
    Ok(text)
}

/// A SEND; without octets it only binds its connection (RFC 4975 §5.4).
fn request(tid: &str, to: &str, from: &str, body: &str) -> String {
    let length = body.len();
    let content = if body.is_empty() { String::new() } else { format!("Content-Type: text/plain\r\n\r\n{body}\r\n") };
    format!(
        "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {tid}m\r\nByte-Range: 1-{length}/{length}\r\n{content}-------{tid}$\r\n"
    )
}

fn connect(meeting: &Meeting, folder: &Path, own: bool) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = TcpStream::connect(meeting.rig.tls_address.expect("TLS is bound")).expect("the core listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    StreamOwned::new(ClientConnection::new(client(folder, own), name).expect("a connection"), stream)
}

fn accept(meeting: &Meeting, config: Arc<ServerConfig>) -> StreamOwned<ServerConnection, TcpStream> {
    let (stream, _) = meeting.waiting.accept().expect("the core connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    StreamOwned::new(ServerConnection::new(config).expect("a connection"), stream)
}

#[test]
fn a_session_is_relayed_between_two_tls_peers_whose_certificates_match() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), &authority());
    let print = own_fingerprint(folder.path());
    let meeting = meeting(folder.path(), Some(print.clone()), Some(print));
    let mut target = accept(&meeting, server(folder.path()));
    let opening = read_to(&mut target, "$\r\n").expect("the core opens with a SEND");
    let tid = opening.split(' ').nth(1).expect("a tid");
    let [to, from] = [&meeting.ours[1], &meeting.theirs[1]];
    write!(target, "MSRP {tid} 200 OK\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n-------{tid}$\r\n").expect("the core reads");

    let mut origin = connect(&meeting, folder.path(), true);
    // Several records, and several turns of the socket.
    let long = "0123456789abcdef".repeat(40_000);
    thread::scope(|scope| {
        let sent = request("long1", &meeting.ours[0], &meeting.theirs[0], &long);
        scope.spawn(move || {
            origin.write_all(sent.as_bytes()).expect("the core reads");
            let answer = read_to(&mut origin, "$\r\n").expect("the core answers");
            assert!(answer.starts_with("MSRP long1 200"), "{answer}");
            origin.conn.send_close_notify();
            origin.flush().expect("the core reads");
        });
        let got = read_to(&mut target, "$\r\n").expect("the message comes");
        let body = got.split("\r\n\r\n").nth(1).and_then(|rest| rest.split("\r\n-------").next()).expect("a body");
        assert!(body == long, "{} of {} octets, as they were sent", body.len(), long.len());
        let tid = got.split(' ').nth(1).expect("a tid");
        write!(target, "MSRP {tid} 200 OK\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n-------{tid}$\r\n").expect("the core reads");
    });
}

#[test]
fn a_target_with_another_certificate_than_its_sdp_says_fails_its_leg() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    certificate(folder.path(), &authority());
    certificate(other.path(), &authority());
    let mut meeting = meeting(folder.path(), None, Some(own_fingerprint(other.path())));
    let mut target = accept(&meeting, server(folder.path()));
    assert!(read_to(&mut target, "$\r\n").is_err(), "nothing is sent to a stranger");
    let cause = meeting.rig.expect(0, |report| match report {
        Report::LegFailed { leg: 1, cause, .. } => Some(*cause),
        _ => None,
    });
    assert_eq!(cause, LegFailure::Tls);
}

/// What an origin reads after its first request, sent over TLS with that certificate or none.
fn answered(meeting: &Meeting, folder: &Path, own: bool) -> std::io::Result<String> {
    let mut origin = connect(meeting, folder, own);
    origin.write_all(request("hello1", &meeting.ours[0], &meeting.theirs[0], "").as_bytes())?;
    let answer = read_to(&mut origin, "$\r\n")?;
    if answer.starts_with("MSRP hello1 403") {
        assert!(read_to(&mut origin, "$\r\n").is_err(), "the connection is closed");
    }
    Ok(answer)
}

#[test]
fn an_origin_that_does_not_show_the_certificate_its_sdp_announced_is_refused() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    certificate(folder.path(), &authority());
    certificate(other.path(), &authority());
    let announced = own_fingerprint(other.path());
    for own in [true, false] {
        let meeting = meeting(folder.path(), Some(announced.clone()), None);
        let answer = answered(&meeting, folder.path(), own).expect("the core answers");
        assert!(answer.starts_with("MSRP hello1 403"), "a certificate of another, shown {own}: {answer}");
    }
}

#[test]
fn an_origin_that_announced_no_certificate_need_not_show_one() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), &authority());
    let meeting = meeting(folder.path(), None, None);
    let answer = answered(&meeting, folder.path(), false).expect("the core answers");
    assert!(answer.starts_with("MSRP hello1 200"), "{answer}");
}

#[test]
fn an_origin_that_came_before_its_certificate_was_announced_is_judged_then() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    certificate(folder.path(), &authority());
    certificate(other.path(), &authority());
    for (announced, stays) in [(own_fingerprint(folder.path()), true), (own_fingerprint(other.path()), false)] {
        let mut meeting = meeting(folder.path(), None, None);
        let mut origin = connect(&meeting, folder.path(), true);
        origin.write_all(request("early1", &meeting.ours[0], &meeting.theirs[0], "").as_bytes()).expect("it reads");
        assert!(read_to(&mut origin, "$\r\n").expect("the core answers").starts_with("MSRP early1 200"));
        meeting.rig.bind(0, MediaKey(1), 0, Peer { fingerprint: Some(announced), ..peer(&meeting.theirs[0], None) });
        match stays {
            false => assert!(read_to(&mut origin, "$\r\n").is_err(), "the connection is closed"),
            true => {
                origin.write_all(request("later1", &meeting.ours[0], &meeting.theirs[0], "").as_bytes()).expect("it reads");
                assert!(read_to(&mut origin, "$\r\n").expect("the core answers").starts_with("MSRP later1 200"));
            }
        }
    }
}

#[test]
fn a_target_whose_certificate_was_compared_is_not_judged_anew_by_the_same_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), &authority());
    let print = own_fingerprint(folder.path());
    let mut meeting = meeting(folder.path(), None, Some(print.clone()));
    let mut target = accept(&meeting, server(folder.path()));
    let opening = read_to(&mut target, "$\r\n").expect("the core opens with a SEND");
    let tid = opening.split(' ').nth(1).expect("a tid");
    let [to, from] = [&meeting.ours[1], &meeting.theirs[1]];
    write!(target, "MSRP {tid} 200 OK\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n-------{tid}$\r\n").expect("the core reads");
    meeting.rig.expect(0, |report| matches!(report, Report::Bound { leg: 1, .. }).then_some(()));
    // A refreshed answer says the same again (RFC 4028 §7.4).
    let same = Peer { tls: true, fingerprint: Some(print), ..peer(&meeting.theirs[1], target.sock.local_addr().ok()) };
    meeting.rig.bind(0, MediaKey(1), 1, same);
    let mut origin = connect(&meeting, folder.path(), false);
    origin.write_all(request("after1", &meeting.ours[0], &meeting.theirs[0], "hello").as_bytes()).expect("it reads");
    assert!(read_to(&mut target, "$\r\n").expect("the message comes").contains("hello"));
}

#[test]
fn handshakes_under_way_are_bounded() {
    raise_descriptors();
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), &authority());
    let meeting = meeting(folder.path(), None, None);
    let address = meeting.rig.tls_address.expect("TLS is bound");
    let mute: Vec<TcpStream> = (0..HANDSHAKES).map(|_| TcpStream::connect(address).expect("the core listens")).collect();
    let mut over = TcpStream::connect(address).expect("the kernel takes it");
    over.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    let read = crate::reading::read(&mut over, &mut [0; 64]);
    let closed = read.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |octets| octets == 0);
    assert!(closed, "one more than the bound is closed");
    drop(mute);
    // Those that left make room.
    let until = Instant::now() + PATIENCE;
    while answered(&meeting, folder.path(), false).is_err() {
        assert!(Instant::now() < until, "no handshake is taken any more");
    }
}

#[test]
fn a_second_handshake_resumes_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), &authority());
    let meeting = meeting(folder.path(), None, None);
    let config = client(folder.path(), false);
    let mut kinds = Vec::new();
    for tid in ["first1", "second"] {
        let stream = TcpStream::connect(meeting.rig.tls_address.expect("TLS is bound")).expect("the core listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let mut origin = StreamOwned::new(ClientConnection::new(config.clone(), name).expect("a connection"), stream);
        origin
            .write_all(request(tid, "msrps://127.0.0.1:9/nobody;tcp", &meeting.theirs[0], "hello").as_bytes())
            .expect("it reads");
        let answer = read_to(&mut origin, "$\r\n").expect("the core answers");
        assert!(answer.starts_with(&format!("MSRP {tid} 481")), "{answer}");
        kinds.push(origin.conn.handshake_kind());
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}

#[test]
fn a_resumed_session_still_knows_the_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    certificate(folder.path(), &authority());
    let meeting = meeting(folder.path(), Some(own_fingerprint(folder.path())), None);
    let config = client(folder.path(), true);
    let mut kinds = Vec::new();
    for (tid, to) in [("first1", &meeting.theirs[0]), ("second", &meeting.ours[0])] {
        let stream = TcpStream::connect(meeting.rig.tls_address.expect("TLS is bound")).expect("the core listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let mut origin = StreamOwned::new(ClientConnection::new(config.clone(), name).expect("a connection"), stream);
        origin.write_all(request(tid, to, &meeting.theirs[0], "").as_bytes()).expect("it reads");
        let answer = read_to(&mut origin, "$\r\n").expect("the core answers");
        let expected = if tid == "first1" { "481" } else { "200" };
        assert!(answer.starts_with(&format!("MSRP {tid} {expected}")), "{answer}");
        kinds.push(origin.conn.handshake_kind());
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}
