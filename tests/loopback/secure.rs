//! SIP over TLS: certificates, mutual authentication, reload.

use crate::ladder::Originating;
use crate::proxy::{PATIENCE, Proxy};
use crate::reading;
use crate::ue::{self, Invite, Message, SESSION};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority() -> Authority {
    let mut params = CertificateParams::default();
    // OpenSSL takes a certificate for self-signed whose issuer has the name of its subject.
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// Writes `cert.pem`, `key.pem` and `ca.pem` into a folder: a certificate for loopback that the authority signed.
pub fn certificate(folder: &Path, authority: &Authority) {
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names).and_then(|params| params.signed_by(&key, authority)).expect("a certificate");
    let put = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("the folder can be written");
    put("cert.pem", certificate.pem());
    put("key.pem", key.serialize_pem());
    put("ca.pem", authority.pem());
}

pub fn client(folder: &Path, own: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("both versions");
    let builder = builder.with_root_certificates(roots);
    Arc::new(if own {
        let chain = vec![CertificateDer::from_pem_file(folder.join("cert.pem")).expect("a certificate")];
        builder
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("a key"))
            .expect("they fit")
    } else {
        builder.with_no_client_auth()
    })
}

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

pub fn connect(proxy: &Proxy, config: Arc<ClientConfig>) -> Stream {
    let stream = TcpStream::connect(proxy.tls.expect("TLS is bound")).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    StreamOwned::new(ClientConnection::new(config, name).expect("a connection"), stream)
}

/// Asks, and gives back the first line of the answer.
pub fn ask(proxy: &Proxy, stream: &mut Stream, call: &str) -> std::io::Result<String> {
    let own = proxy.udp;
    write!(
        stream,
        "OPTIONS sip:{own} SIP/2.0\r\nVia: SIP/2.0/TLS 127.0.0.1:9;branch=z9hG4bK{call}\r\nMax-Forwards: 70\r\nFrom: <sip:a@example.net>;tag=1\r\nTo: <sip:{own}>\r\nCall-ID: {call}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !text.windows(4).any(|window| window == b"\r\n\r\n") {
        match reading::read(stream, &mut buffer)? {
            0 => break,
            read => text.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&text).lines().next().unwrap_or("").to_owned())
}

fn start(verify: bool, authority: &Authority) -> Proxy {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificate(folder.path(), authority);
    Proxy::start_in(folder, &configuration(verify))
}

fn configuration(verify: bool) -> String {
    format!(
        "[sip]\nlisten = [\"udp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\n[sip.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\nca = \"ca.pem\"\nverify_client = {verify}\n"
    )
}

#[test]
fn sip_is_served_over_tls() {
    let proxy = start(false, &authority());
    let mut stream = connect(&proxy, client(proxy.folder.path(), false));
    assert_eq!(ask(&proxy, &mut stream, "one").unwrap(), "SIP/2.0 200 OK");
    assert_eq!(ask(&proxy, &mut stream, "two").unwrap(), "SIP/2.0 200 OK");
}

#[test]
fn a_client_that_must_show_a_certificate_and_has_none_is_not_served() {
    let proxy = start(true, &authority());
    assert!(ask(&proxy, &mut connect(&proxy, client(proxy.folder.path(), false)), "none").map_or(true, |line| line.is_empty()));
    assert_eq!(ask(&proxy, &mut connect(&proxy, client(proxy.folder.path(), true)), "own").unwrap(), "SIP/2.0 200 OK");
}

#[test]
fn a_reload_brings_a_new_certificate_and_keeps_old_connections() {
    let authority = authority();
    let proxy = start(false, &authority);
    let config = client(proxy.folder.path(), false);
    let mut old = connect(&proxy, config.clone());
    assert_eq!(ask(&proxy, &mut old, "before").unwrap(), "SIP/2.0 200 OK");
    let before = old.conn.peer_certificates().expect("a certificate")[0].clone().into_owned();
    certificate(proxy.folder.path(), &authority);
    proxy.signal("HUP");
    proxy.until("a new connection gets the new certificate", |proxy| {
        let mut new = connect(proxy, config.clone());
        assert_eq!(ask(proxy, &mut new, "after").unwrap(), "SIP/2.0 200 OK");
        new.conn.peer_certificates().expect("a certificate")[0] != before
    });
    assert_eq!(ask(&proxy, &mut old, "still").unwrap(), "SIP/2.0 200 OK");
}

/// RFC 8122 §5: the certificate that a peer will be shown is the one whose fingerprint it was offered.
#[test]
fn a_reload_brings_the_fingerprint_of_the_new_certificate() {
    let authority = authority();
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificate(folder.path(), &authority);
    let listen = "[msrp]\nlisten = [\"tcp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\n[msrp.tls]\nca = \"ca.pem\"\n";
    let mut ladder = Originating::in_folder(folder, listen);
    let own = |pf: &Proxy| {
        let certificate = CertificateDer::from_pem_file(pf.path("cert.pem")).expect("a certificate");
        cpm_pf::io::tls::fingerprint(&certificate).to_string()
    };
    let offered = |ladder: &mut Originating| {
        let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
        let invite = invite.sdp("TCP/MSRP", "TCP/TLS/MSRP").sdp("msrp://", "msrps://");
        ladder.passes(&invite).0.attribute("fingerprint").to_owned()
    };
    assert_eq!(offered(&mut ladder), own(&ladder.pf));
    certificate(ladder.pf.folder.path(), &authority);
    ladder.pf.signal("HUP");
    ladder.pf.until("the log tells of the reload", |pf| pf.log().contains("configuration reloaded"));
    // The core that is asked first may have begun its turn before.
    assert!((0..2).any(|_| offered(&mut ladder) == own(&ladder.pf)), "the old certificate is still offered");
}

#[test]
fn octets_that_are_no_tls_close_the_connection() {
    let proxy = start(false, &authority());
    let mut stream = TcpStream::connect(proxy.tls.unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"OPTIONS sip:x SIP/2.0\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"SIP"));
}

pub fn server(folder: &Path) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(folder.join("cert.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("both versions");
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).expect("they fit"))
}

/// A core that is reached over TLS: takes one connection, and answers the first INVITE on it.
fn core(folder: &Path, listener: TcpListener) -> std::thread::JoinHandle<std::io::Result<String>> {
    let config = server(folder);
    std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(ServerConnection::new(config).expect("a connection"), stream);
        let mut text = String::new();
        let mut buffer = [0; 8192];
        while !text.contains("\r\n\r\n") {
            match reading::read(&mut stream, &mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => text += &String::from_utf8_lossy(&buffer[..read]),
            }
        }
        let busy = ue::response(&Message(text.clone()), "486 Busy Here", "core", "", "");
        stream.write_all(busy.as_bytes())?;
        // Until the ACK.
        let _ = reading::read(&mut stream, &mut buffer);
        Ok(text)
    })
}

fn invite_over_tls(theirs: &Authority, ours: &Authority) -> (Message, std::io::Result<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificate(folder.path(), theirs);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = listener.local_addr().expect("bound");
    let core = core(folder.path(), listener);

    let own = tempfile::tempdir().expect("a temporary folder");
    certificate(own.path(), ours);
    let more = configuration(false).replace("[sip.tls]", &format!("core = \"sip:{address};transport=tls;lr\"\n[sip.tls]"));
    let proxy = Proxy::start_in(own, &more);
    let mut alice = ue::Ue::udp("alice");
    alice.send(proxy.udp, &ue::Invite::new(&alice, "sip:carol@elsewhere.example", ue::LARGE).text());
    let (answer, _) = alice.next("a final answer", |message| message.status() >= 200);
    (answer, core.join().expect("the core does not panic"))
}

#[test]
fn a_core_with_a_good_certificate_is_reached_over_tls() {
    let authority = authority();
    let (answer, invite) = invite_over_tls(&authority, &authority);
    assert_eq!(answer.status(), 486);
    let invite = Message(invite.expect("the core got an INVITE"));
    assert!(invite.want("Via").starts_with("SIP/2.0/TLS "), "{invite:?}");
}

#[test]
fn a_core_with_a_strangers_certificate_gets_nothing() {
    let (answer, invite) = invite_over_tls(&authority(), &authority());
    assert!(answer.status() >= 400 && answer.status() != 486, "{answer:?}");
    assert!(invite.is_err());
}
