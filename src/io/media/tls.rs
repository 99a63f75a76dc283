//! RFC 4975 §14.2, RFC 8122: TLS on an MSRP connection, octets in and octets out; the sockets are the engine's.
//!
//! Ciphertext comes in from the kernel's buffers, plaintext goes on in a heap buffer, so that the media shard sees what it sees
//! of TCP. Sealing copies once more: that is what encryption is.

use crate::io::tls::Tls;
use crate::msrp::fingerprint;
use crate::shard::media_outbox::TlsPeer;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};
use std::io::{IoSlice, Read, Write};
use std::net::SocketAddr;

/// One TLS session; handed over with its connection.
pub struct Session {
    connection: Connection,
    /// What the peer's certificate must hash to (RFC 8122 §5), until it was compared.
    fingerprint: Option<Box<str>>,
    established: bool,
}

/// Why a session is of no use.
#[derive(Debug)]
pub enum Failure {
    Protocol(rustls::Error),
    /// RFC 8122 §6.2: the certificate is not the one that the SDP announced.
    Fingerprint,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Protocol(error) => write!(f, "{error}"),
            Failure::Fingerprint => write!(f, "the certificate does not match a=fingerprint"),
        }
    }
}

/// What came of some ciphertext.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Opened {
    /// The handshake was completed by it.
    pub established: bool,
    /// The peer said close_notify.
    pub ended: bool,
}

impl Session {
    /// The side that was connected to.
    ///
    /// # Errors
    /// An unusable configuration.
    pub fn accept(tls: &Tls) -> Result<Self, Failure> {
        let connection = ServerConnection::new(tls.server_by_fingerprint.clone()).map_err(Failure::Protocol)?;
        Ok(Self::new(connection.into(), None))
    }

    /// The side that connects. With a fingerprint its certificate is compared with that; without one it must come from the
    /// configured authorities and be made out for the address.
    ///
    /// # Errors
    /// An unusable configuration.
    pub fn connect(tls: &Tls, peer: &TlsPeer, to: SocketAddr) -> Result<Self, Failure> {
        let config = if peer.fingerprint.is_some() { &tls.client_by_fingerprint } else { &tls.client };
        let name = ServerName::IpAddress(to.ip().into());
        let connection = ClientConnection::new(config.clone(), name).map_err(Failure::Protocol)?;
        Ok(Self::new(connection.into(), peer.fingerprint.clone()))
    }

    fn new(mut connection: Connection, fingerprint: Option<Box<str>>) -> Self {
        // What is sealed is taken out at once; the engine bounds it.
        connection.set_buffer_limit(None);
        Self { connection, fingerprint, established: false }
    }

    /// Decrypts: appends plaintext to `plain`, and what has to be answered to `sealed`.
    ///
    /// # Errors
    /// The session is over; `sealed` holds an alert to be sent.
    pub fn open(&mut self, mut ciphertext: &[u8], plain: &mut Vec<u8>, sealed: &mut Vec<u8>) -> Result<Opened, Failure> {
        let mut opened = Opened::default();
        while !ciphertext.is_empty() {
            let before = ciphertext.len();
            // It refuses a handshake message larger than any is.
            let read = self.connection.read_tls(&mut ciphertext);
            read.map_err(|error| Failure::Protocol(rustls::Error::General(error.to_string())))?;
            let state = self.connection.process_new_packets();
            let state = state.map_err(|error| {
                self.take(sealed);
                Failure::Protocol(error)
            })?;
            opened.ended |= state.peer_has_closed();
            // Reading up to the amount that is there neither blocks nor fails.
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            let read = self.connection.reader().read(&mut plain[start..]).unwrap_or(0);
            plain.truncate(start + read);
            if ciphertext.len() == before {
                break;
            }
        }
        self.take(sealed);
        if !self.established && !self.connection.is_handshaking() {
            self.compare_fingerprint()?;
            self.established = true;
            opened.established = true;
        }
        Ok(opened)
    }

    /// Encrypts pieces that follow each other; appends the records to `sealed`.
    pub fn seal(&mut self, pieces: &[IoSlice<'_>], sealed: &mut Vec<u8>) -> usize {
        let taken = self.connection.writer().write_vectored(pieces).unwrap_or(0);
        self.take(sealed);
        taken
    }

    /// Says that nothing more will come (RFC 8446 §6.1).
    pub fn close(&mut self, sealed: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.take(sealed);
    }

    /// What the session has to say by itself: the start of a handshake.
    pub fn take(&mut self, sealed: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(sealed).expect("writing to a vector cannot fail");
        }
    }

    fn compare_fingerprint(&mut self) -> Result<(), Failure> {
        let Some(expected) = self.fingerprint.take() else { return Ok(()) };
        let shown = self.certificate().is_some_and(|certificate| fingerprint::is_of(&expected, certificate));
        if shown { Ok(()) } else { Err(Failure::Fingerprint) }
    }

    /// The peer's certificate in its DER form, where it showed one.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates()?.first().map(AsRef::as_ref)
    }
}
