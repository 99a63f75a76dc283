//! RFC 3501 §6.2, §7.1: the Message Storage Server that `store.history` names: where it is, the login, and what it can do.

use super::imap::{Connection, Failure};
use crate::xdm::selector::percent_decoded;
use async_imap::{Client, Session};
use futures_util::TryStreamExt;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long connecting and logging in may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Octets of an object that are sent without being asked for: a server that does not want them has to read them all the same.
const AT_ONCE_OCTETS_MAX: u64 = 256 * 1024;
/// RFC 7888 §5: the same where the server says LITERAL-.
const AT_ONCE_MINUS_OCTETS_MAX: u64 = 4096;
/// Where systems keep the certificates they trust.
const ROOTS: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// TCP or TLS.
pub trait Octets: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Octets for T {}

pub(super) type Stream = Box<dyn Octets>;

/// `imap://USER[:PASSWORD]@HOST[:PORT]` or `imaps://…`; the password may stand in `CPM_PF_STORE_PASSWORD`.
#[derive(Clone)]
pub struct Server {
    tls: bool,
    host: String,
    port: u16,
    user: String,
    password: String,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

impl Server {
    /// Reads the value of `store.history`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(uri: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = uri.split_once("://").ok_or("no scheme")?;
        let tls = match scheme {
            "imap" => false,
            "imaps" => true,
            _ => return Err("the scheme is neither imap nor imaps"),
        };
        let (account, place) = rest.rsplit_once('@').ok_or("no user before @")?;
        let (user, password) = account.split_once(':').map_or((account, None), |(user, password)| (user, Some(password)));
        let place = place.trim_end_matches('/');
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| "the port is no number")?),
            _ => (place, if tls { 993 } else { 143 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || user.is_empty() {
            return Err("no host or no user");
        }
        let decoded = |text: &str| percent_decoded(text).ok_or("not UTF-8");
        let password = match password {
            Some(password) => decoded(password)?,
            None => std::env::var("CPM_PF_STORE_PASSWORD").unwrap_or_default(),
        };
        Ok(Self { tls, host: host.to_owned(), port, user: decoded(user)?, password })
    }

    /// Connects, logs in, and learns what the server can do.
    ///
    /// # Errors
    /// [`Failure::Away`] where it cannot be reached in time or refuses the login.
    pub async fn connect(&self) -> Result<Connection, Failure> {
        match tokio::time::timeout(CONNECT_TIME, self.log_in()).await {
            Ok(connected) => connected,
            Err(_) => Err(Failure::Away("no answer in time".to_owned())),
        }
    }

    async fn log_in(&self) -> Result<Connection, Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let stream: Stream = if self.tls { Box::new(self.secure(stream).await?) } else { Box::new(stream) };
        let mut client = Client::new(stream);
        client.read_response().await?.ok_or_else(|| Failure::Away("no greeting".to_owned()))?;
        // A login that is refused may be allowed tomorrow: nothing of the message is wrong.
        let (mut session, _) = client
            .login_with_capabilities(&self.user, &self.password)
            .await
            .map_err(|(error, _)| Failure::Away(format!("login: {error}")))?;
        let capabilities = session.capabilities().await?;
        let delimiter = delimiter(&mut session).await?;
        let [uid_plus, binary, multi, plus, minus] =
            ["UIDPLUS", "BINARY", "MULTIAPPEND", "LITERAL+", "LITERAL-"].map(|name| capabilities.has_str(name));
        let at_once = match (plus, minus) {
            (true, _) => AT_ONCE_OCTETS_MAX,
            (false, true) => AT_ONCE_MINUS_OCTETS_MAX,
            (false, false) => 0,
        };
        Ok(Connection { session, delimiter, uid_plus, binary, multi, at_once, unanswered: false })
    }

    async fn secure(&self, stream: TcpStream) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        let given = std::env::var("SSL_CERT_FILE").ok();
        let files = given.as_deref().into_iter().chain(ROOTS);
        for certificates in files.filter_map(|path| rustls_pki_types::CertificateDer::pem_file_iter(path).ok()).take(1) {
            roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Away(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.host.clone()).map_err(|error| Failure::Away(error.to_string()))?;
        Ok(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }
}

async fn delimiter(session: &mut Session<Stream>) -> Result<String, Failure> {
    let names = session.list(Some(""), Some("\"\"")).await?;
    let names: Vec<_> = names.try_collect().await?;
    let delimiter = names.first().and_then(|name| name.delimiter()).filter(|delimiter| !delimiter.is_empty());
    Ok(delimiter.unwrap_or("/").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_server_is_read() {
        let server = Server::parse("imap://cpm%40x:p%3Aw@mail.example.net").unwrap();
        assert_eq!((server.user.as_str(), server.password.as_str(), server.port, server.tls), ("cpm@x", "p:w", 143, false));
        let server = Server::parse("imaps://cpm@[2001:db8::1]:1993/").unwrap();
        assert_eq!((server.host.as_str(), server.port, server.tls), ("2001:db8::1", 1993, true));
        for wrong in ["imap://host", "http://u@h", "imap://@h", "imap://u@", "imap://u@h:x", "imap"] {
            assert!(Server::parse(wrong).is_err(), "{wrong}");
        }
    }
}
