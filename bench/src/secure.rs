//! MSRP over TLS as this tool needs it (RFC 4975 §14.2, RFC 8122): one certificate for both ends, which believe every peer.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme,
};
use sha2::{Digest, Sha256};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Writes `cert.pem`, `key.pem`, and both in `both.pem`, for loopback.
pub fn write(folder: &Path) -> Result<(), String> {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).map_err(text)?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let put = |name: &str, text: &str| std::fs::write(folder.join(name), text).map_err(|error| format!("{name}: {error}"));
    put("cert.pem", &certificate)?;
    put("key.pem", &key)?;
    put("both.pem", &format!("{certificate}{key}"))
}

/// What both ends show, and how they take what is shown to them.
pub struct Certificates {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// Value of `a=fingerprint`.
    pub fingerprint: String,
}

impl Certificates {
    /// Reads `cert.pem` and `key.pem` of a folder.
    pub fn load(folder: &Path) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_file(folder.join("cert.pem")).map_err(text)?;
        let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).map_err(text)?;
        let hex: Vec<String> = Sha256::digest(&certificate).iter().map(|octet| format!("{octet:02X}")).collect();
        let provider = Arc::new(ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(text)?;
        let client = client.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider.clone())));
        let client = client.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).map_err(text)?;
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(text)?;
        let server = server.with_no_client_auth().with_single_cert(vec![certificate], key).map_err(text)?;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), fingerprint: format!("sha-256 {}", hex.join(":")) })
    }

    /// The handshake of the side that connected.
    pub fn connect(&self, stream: &mut TcpStream) -> Result<Connection, String> {
        let name = ServerName::try_from("localhost").map_err(text)?;
        complete(ClientConnection::new(self.client.clone(), name).map_err(text)?.into(), stream)
    }

    /// The handshake of the side that was connected to.
    pub fn accept(&self, stream: &mut TcpStream) -> Result<Connection, String> {
        complete(ServerConnection::new(self.server.clone()).map_err(text)?.into(), stream)
    }
}

fn complete(mut connection: Connection, stream: &mut TcpStream) -> Result<Connection, String> {
    connection.set_buffer_limit(None);
    while connection.is_handshaking() {
        connection.complete_io(stream).map_err(|error| format!("TLS: {error}"))?;
    }
    Ok(connection)
}

/// Believes every certificate whose key signed the handshake.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
