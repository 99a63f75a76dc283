//! TLS for a peer that has none: octets of a TCP connection go on in a TLS connection, and the other way.

use crate::proxy::PATIENCE;
use crate::secure;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ConnectionCommon, ServerConnection, SideData, StreamOwned};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

/// How long one side is waited for before the other is looked at.
const TURN: Duration = Duration::from_millis(1);

/// Listens for TLS with the certificate of the folder, and goes on to a plain port. The port to reach it by.
pub fn served(folder: &Path, plain: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = listener.local_addr().expect("bound").port();
    let config = secure::server(folder);
    std::thread::spawn(move || {
        // The thread ends with the test's process.
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || {
                let plain = TcpStream::connect(("127.0.0.1", plain))?;
                let tls = ServerConnection::new(config).expect("a connection");
                pump(StreamOwned::new(tls, stream), plain)
            });
        }
    });
    port
}

/// Listens for plain TCP, and goes on to a TLS port whose certificate the folder's authority signed. Where to reach it, and the
/// port that the first connection to it goes on from: the address by which the program knows who is behind it.
pub fn towards(folder: &Path, tls: SocketAddr) -> (SocketAddr, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let at = listener.local_addr().expect("bound");
    let first = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    first.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a loopback port");
    let port = first.local_addr().ok().and_then(|address| address.as_socket()).expect("bound").port();
    let config = secure::client(folder, false);
    std::thread::spawn(move || {
        let mut first = Some(first);
        for plain in listener.incoming().flatten() {
            let (config, first) = (config.clone(), first.take());
            std::thread::spawn(move || {
                let stream = match first {
                    Some(socket) => socket.connect(&tls.into()).map(|()| TcpStream::from(socket)),
                    None => TcpStream::connect(tls),
                }?;
                let name = ServerName::try_from("127.0.0.1").expect("an address");
                let tls = ClientConnection::new(config, name).expect("a connection");
                pump(StreamOwned::new(tls, stream), plain)
            });
        }
    });
    (at, port)
}

fn pump<C, S>(mut tls: StreamOwned<C, TcpStream>, mut plain: TcpStream) -> std::io::Result<()>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>>,
    S: SideData,
{
    tls.sock.set_read_timeout(Some(PATIENCE))?;
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    tls.sock.set_read_timeout(Some(TURN))?;
    plain.set_read_timeout(Some(TURN))?;
    let mut buffer = [0; 16_384];
    loop {
        match crate::reading::read(&mut tls, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => plain.write_all(&buffer[..read])?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        match crate::reading::read(&mut plain, &mut buffer) {
            Ok(0) => {
                tls.conn.send_close_notify();
                return tls.flush();
            }
            Ok(read) => tls.write_all(&buffer[..read])?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
}
