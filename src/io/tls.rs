//! RFC 5246, RFC 8446, RFC 5922: certificates and keys from PEM files, and what rustls makes of them.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where Debian keeps the authorities that a system trusts; used where the configuration names none.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A file of `[sip.tls]` or `[msrp.tls]` that cannot be used.
#[derive(Debug)]
pub struct Unusable {
    pub file: PathBuf,
    pub why: String,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.why)
    }
}

/// What a listening side and a connecting side need; shared by all cores, replaced as a whole on reload.
#[derive(Clone, Debug)]
pub struct Tls {
    pub server: Arc<ServerConfig>,
    /// As `server`, for MSRP: peers are asked for a certificate, to be compared with the fingerprint of their SDP (RFC 8122
    /// §6.2). With `verify_client` it must come from the authorities too.
    pub server_by_fingerprint: Arc<ServerConfig>,
    /// Peers are verified against the authorities.
    pub client: Arc<ClientConfig>,
    /// Peers are not verified here: their certificate is compared with the fingerprint of their SDP (RFC 8122 §6.2).
    pub client_by_fingerprint: Arc<ClientConfig>,
    /// RFC 8122 §5: `a=fingerprint` of our certificate, "sha-256 AB:CD:…".
    pub fingerprint: Arc<str>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that cannot be read or does not fit the others.
    pub fn load(config: &crate::config::Tls) -> Result<Self, Unusable> {
        let chain = certificates(&config.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&config.key)
            .map_err(|error| Unusable { file: config.key.clone(), why: format!("no private key: {error}") })?;
        let roots = Arc::new(roots(config.ca.as_deref())?);
        let provider = Arc::new(ring::default_provider());
        let fingerprint = fingerprint(&chain[0]);
        let misfit = |error: rustls::Error| Unusable { file: config.certificate.clone(), why: error.to_string() };

        let server =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(misfit)?;
        let asking = server.clone();
        let server = if config.verify_client {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
                .build()
                .map_err(|error| Unusable { file: config.ca.clone().unwrap_or_default(), why: error.to_string() })?;
            server.with_client_cert_verifier(verifier)
        } else {
            server.with_no_client_auth()
        };
        let server = server.with_single_cert(chain.clone(), key.clone_key()).map_err(misfit)?;
        let asking = if config.verify_client {
            server.clone()
        } else {
            let verifier = Arc::new(AnyCertificate(provider.clone()));
            asking.with_client_cert_verifier(verifier).with_single_cert(chain.clone(), key.clone_key()).map_err(misfit)?
        };

        let client =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(misfit)?;
        let by_fingerprint = client.clone();
        let client =
            client.with_root_certificates(roots).with_client_auth_cert(chain.clone(), key.clone_key()).map_err(misfit)?;
        let by_fingerprint = by_fingerprint
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_client_auth_cert(chain, key)
            .map_err(misfit)?;
        Ok(Self {
            server: Arc::new(server),
            server_by_fingerprint: Arc::new(asking),
            client: Arc::new(client),
            client_by_fingerprint: Arc::new(by_fingerprint),
            fingerprint,
        })
    }
}

/// RFC 8122 §5: the SHA-256 of a certificate in its DER form, as it stands in `a=fingerprint`.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Arc<str> {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(certificate);
    let hex: Vec<String> = hash.iter().map(|octet| format!("{octet:02X}")).collect();
    format!("sha-256 {}", hex.join(":")).into()
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let unusable = |why: String| Unusable { file: file.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(format!("no certificates: {error}")))?;
    if chain.is_empty() { Err(unusable("holds no certificate".into())) } else { Ok(chain) }
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| Unusable { file: file.to_owned(), why: error.to_string() })?;
            }
        }
        // Without them no peer is believed; that is said when the first one is met.
        None => drop(roots.add_parsable_certificates(certificates(Path::new(SYSTEM_AUTHORITIES)).unwrap_or_default())),
    }
    Ok(roots)
}

/// Takes every certificate whose key signed the handshake; whose it is, the fingerprint says.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
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
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
