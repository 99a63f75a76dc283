//! Listening sockets: on every address of `msrp.listen` one a core, all on one port (SO_REUSEPORT), so that the kernel deals
//! connections out to the cores.

use crate::base::transport::Transport;
use crate::config::Listen;
use crate::io::handover::take::Taken;
use crate::io::handover::wire::Role;
use crate::io::signalling::sockets::{BindError, nobody_has, taken_over};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// A listening socket of one core.
#[derive(Debug)]
pub struct Listener {
    pub socket: Socket,
    pub tls: bool,
    /// As bound: with the port that stands for 0.
    pub address: SocketAddr,
}

/// Binds every address once for each of `cores` cores. Where the configuration says port 0, the first core's socket picks
/// one and the others take the same. The outer list is by core, the inner by `msrp.listen`.
///
/// # Errors
/// The address that cannot be bound; also where the kernel does not know the congestion control (ENOENT).
pub fn bind(
    listen: &[Listen],
    cores: usize,
    congestion: &str,
    taken: &mut Option<Taken>,
) -> Result<Vec<Vec<Listener>>, BindError> {
    let mut all: Vec<Vec<Listener>> = (0..cores).map(|_| Vec::with_capacity(listen.len())).collect();
    for one in listen {
        let (mut address, tls) = (one.address, one.transport == Transport::Tls);
        if let Some((address, dealt)) = taken_over(taken, Role::Msrp, *one, cores)? {
            for (core, given) in all.iter_mut().zip(dealt) {
                core.extend(given.into_iter().map(|socket| Listener { socket: socket.into(), tls, address }));
            }
            continue;
        }
        nobody_has(*one)?;
        for core in &mut all {
            let (socket, bound) = bind_one(address, congestion).map_err(|error| BindError { listen: *one, error })?;
            address = bound;
            core.push(Listener { socket, tls, address });
        }
    }
    Ok(all)
}

fn bind_one(address: SocketAddr, congestion: &str) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted connections inherit both.
    prepare(&socket, congestion)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    let bound = socket.local_addr()?.as_socket().expect("an internet socket has an internet address");
    Ok((socket, bound))
}

/// What every MSRP socket is set to: no waiting for fuller segments, since what a turn sends is gathered already; and the
/// operator's congestion control, where there is one.
pub(super) fn prepare(socket: &Socket, congestion: &str) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if !congestion.is_empty() {
        let unknown = |error: io::Error| io::Error::new(error.kind(), format!("msrp.congestion = \"{congestion}\": {error}"));
        socket.set_tcp_congestion(congestion.as_bytes()).map_err(unknown)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cores_listen_on_the_port_that_the_first_one_got() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let all = bind(&[Listen { transport: Transport::Tcp, address }], 3, "", &mut None).expect("loopback has a free port");
        let ports: Vec<u16> = all.iter().map(|core| core[0].address.port()).collect();
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_congestion_control_that_is_not_there_is_an_error() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let bound = bind(&[Listen { transport: Transport::Tcp, address }], 1, "pigeon", &mut None);
        assert!(bound.is_err_and(|error| error.to_string().contains("msrp.congestion = \"pigeon\"")));
    }
}
