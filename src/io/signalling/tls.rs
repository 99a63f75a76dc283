//! RFC 3261 §26.2, RFC 5922: TLS on a SIP connection; octets in, octets out, nothing else.

use rustls::{ClientConnection, Connection, Error, ServerConnection};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

/// The TLS state of a connection.
pub struct Session(Connection);

impl Session {
    /// Of a connection that was accepted.
    pub fn server(config: &Arc<rustls::ServerConfig>) -> Result<Self, Error> {
        let mut connection = ServerConnection::new(config.clone())?;
        connection.set_buffer_limit(None);
        Ok(Self(connection.into()))
    }

    /// Of a connection we make: the certificate must be good for `name`, or for the address where no name is given (RFC 5922 §7.2).
    pub fn client(config: &Arc<rustls::ClientConfig>, name: Option<&str>, address: SocketAddr) -> Result<Self, Error> {
        let name = match name.and_then(|name| rustls::pki_types::ServerName::try_from(name.to_owned()).ok()) {
            Some(name) => name,
            None => rustls::pki_types::ServerName::from(address.ip()),
        };
        let mut connection = ClientConnection::new(config.clone(), name)?;
        connection.set_buffer_limit(None);
        Ok(Self(connection.into()))
    }

    /// Whether what is sent still waits for the handshake.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Takes what came from the peer, and writes the text of it to `plain` and what is to go back to `queue`.
    pub fn receive(&mut self, mut octets: &[u8], plain: &mut Vec<u8>, queue: &mut Vec<u8>) -> Result<(), Error> {
        while !octets.is_empty() {
            // Reading from a slice fails only where rustls's own buffer is full of unprocessed records, which the next line empties.
            let taken = self.0.read_tls(&mut octets).map_err(|_| Error::General("record buffer full".into()))?;
            let state = self.0.process_new_packets();
            self.output(queue);
            if state?.plaintext_bytes_to_read() > 0 {
                self.read_plain(plain);
            }
            if taken == 0 {
                break;
            }
        }
        Ok(())
    }

    fn read_plain(&mut self, plain: &mut Vec<u8>) {
        let mut part = [0; 16 * 1024];
        // "Would block" is the end of what is there.
        while let Ok(octets) = self.0.reader().read(&mut part) {
            if octets == 0 {
                return;
            }
            plain.extend_from_slice(&part[..octets]);
        }
    }

    /// Ciphers a message into `queue`; before the handshake is over it is kept.
    pub fn send(&mut self, octets: &[u8], queue: &mut Vec<u8>) -> Result<(), Error> {
        self.0.writer().write_all(octets).map_err(|error| Error::General(error.to_string()))?;
        self.output(queue);
        Ok(())
    }

    /// RFC 8446 §6.1: says that nothing more comes from us.
    pub fn close(&mut self, queue: &mut Vec<u8>) {
        self.0.send_close_notify();
        self.output(queue);
    }

    /// Writes what TLS itself wants sent.
    pub fn output(&mut self, queue: &mut Vec<u8>) {
        while self.0.wants_write() {
            if self.0.write_tls(queue).is_err() {
                return;
            }
        }
    }
}
