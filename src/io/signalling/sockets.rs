//! RFC 3261 §18.2.1: the sockets that listen for SIP: for every address of `sip.listen`, one for each signalling core.

use crate::base::transport::Transport;
use crate::config::Listen;
use crate::io::handover::take::{self, Taken};
use crate::io::handover::wire::Role;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Octets the kernel may hold for a UDP socket: a second of 4,000 datagrams of 2 KiB with the kernel's own overhead. Less where
/// `net.core.rmem_max` says so and we may not go above it.
pub const UDP_BUFFER_OCTETS: usize = 16 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// A bound socket of one core; `listener` is its index in `sip.listen`.
#[derive(Debug)]
pub struct Bound {
    pub listener: u8,
    pub transport: Transport,
    pub address: SocketAddr,
    pub socket: Socket,
}

/// Why a listening address could not be had.
#[derive(Debug)]
pub struct BindError {
    pub listen: Listen,
    pub error: io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Listen { transport, address } = self.listen;
        write!(f, "cannot listen on {}://{address}: {}", transport.as_via().to_ascii_lowercase(), self.error)?;
        match self.error.kind() {
            io::ErrorKind::PermissionDenied if address.port() < 1024 => {
                write!(f, "; ports below 1024 need CAP_NET_BIND_SERVICE (AmbientCapabilities= in the unit)")
            }
            io::ErrorKind::AddrInUse => write!(f, "; `ss -lnp` shows who has it"),
            _ => Ok(()),
        }
    }
}

/// Binds every address once for each core; port 0 is resolved by the first and shared by the others. An address that was taken
/// over is not bound again. Answers the addresses as bound, and each core's sockets.
///
/// # Errors
/// The first address that cannot be had.
pub fn bind(listens: &[Listen], cores: usize, taken: &mut Option<Taken>) -> Result<(Vec<Listen>, Vec<Vec<Bound>>), BindError> {
    let mut bound = Vec::with_capacity(listens.len());
    let mut sockets: Vec<Vec<Bound>> = (0..cores).map(|_| Vec::new()).collect();
    for (listener, listen) in listens.iter().enumerate() {
        let mut here = *listen;
        if let Some((address, dealt)) = taken_over(taken, Role::Sip, *listen, cores)? {
            here.address = address;
            for (core, given) in sockets.iter_mut().zip(dealt) {
                let bound = |socket: OwnedFd| Bound {
                    listener: listener as u8,
                    transport: here.transport,
                    address,
                    socket: socket.into(),
                };
                core.extend(given.into_iter().map(bound));
            }
            bound.push(here);
            continue;
        }
        if cores > 1 {
            nobody_has(here)?;
        }
        for core in &mut sockets {
            let socket = patiently(|| open(here, cores > 1)).map_err(|error| BindError { listen: here, error })?;
            if let Some(address) = socket.local_addr().ok().and_then(|address| address.as_socket()) {
                here.address = address;
            }
            core.push(Bound { listener: listener as u8, transport: here.transport, address: here.address, socket });
        }
        bound.push(here);
    }
    Ok((bound, sockets))
}

/// How long an address may be in use before that is an error: the sockets of a process that died go a moment after itself.
const IN_USE_MAX: Duration = Duration::from_secs(1);
/// Between two tries.
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// Tries again for a while where an address is in use.
///
/// # Errors
/// The last one.
pub fn patiently<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut waited = Duration::ZERO;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && waited < IN_USE_MAX => {
                std::thread::sleep(IN_USE_PAUSE);
                waited += IN_USE_PAUSE;
            }
            done => return done,
        }
    }
}

/// Several cores share an address by SO_REUSEPORT, and so could another process of the same user, without a word: half of what
/// comes would be its. Whether somebody has the address is asked with a socket that does not share.
///
/// # Errors
/// Somebody has it.
pub fn nobody_has(listen: Listen) -> Result<(), BindError> {
    if listen.address.port() == 0 {
        return Ok(());
    }
    let ask = || {
        let kind = if listen.transport == Transport::Udp { Type::DGRAM } else { Type::STREAM };
        let socket = Socket::new(Domain::for_address(listen.address), kind, None)?;
        if listen.address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if listen.transport != Transport::Udp {
            // What is left of connections that ended is nobody.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&SockAddr::from(listen.address))
    };
    patiently(ask).map_err(|error| BindError { listen, error })
}

/// Where an address is bound, and its sockets by core.
type Dealt = (SocketAddr, Vec<Vec<OwnedFd>>);

/// What was taken over of a listening address, by core; where it is bound.
///
/// # Errors
/// When no descriptor is left.
pub fn taken_over(taken: &mut Option<Taken>, role: Role, listen: Listen, cores: usize) -> Result<Option<Dealt>, BindError> {
    let sockets = taken.as_mut().map(|taken| taken.sockets(role, listen)).unwrap_or_default();
    let Some(address) = sockets.first().map(|(bound, _)| bound.address) else { return Ok(None) };
    let dealt = take::deal(sockets.into_iter().map(|(_, socket)| socket).collect(), cores);
    dealt.map(|dealt| Some((address, dealt))).map_err(|error| BindError { listen, error })
}

fn open(listen: Listen, shared: bool) -> io::Result<Socket> {
    let domain = Domain::for_address(listen.address);
    let udp = listen.transport == Transport::Udp;
    let socket = if udp {
        Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?
    } else {
        Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?
    };
    if domain == Domain::IPV6 {
        // "[::]" is the IPv6 addresses alone, so that "0.0.0.0" can stand beside it in the list.
        socket.set_only_v6(true)?;
    }
    // One process may hold several sockets at an address; without need of it another process must not join us.
    if shared {
        socket.set_reuse_port(true)?;
    }
    if udp {
        receive_buffer(&socket);
        timestamps(&socket);
        errors(&socket, listen.address);
    } else {
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
    }
    socket.bind(&SockAddr::from(listen.address))?;
    if !udp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// A new TCP socket towards `peer`, bound to the address `from` where that is a particular one.
///
/// # Errors
/// When the kernel has no socket for us.
pub fn outgoing(peer: SocketAddr, from: Option<SocketAddr>) -> io::Result<Socket> {
    let domain = Domain::for_address(peer);
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    tune(&socket);
    if let Some(from) = from.filter(|from| !from.ip().is_unspecified()) {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
        socket.bind(&SockAddr::from(SocketAddr::new(from.ip(), 0)))?;
    }
    Ok(socket)
}

/// What every SIP connection is given: no delay of small messages, and a dead peer noticed within two minutes.
pub fn tune(socket: &Socket) {
    let _ = socket.set_tcp_nodelay(true);
    let keepalive =
        socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

fn receive_buffer(socket: &Socket) {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, UDP_BUFFER_OCTETS as i32);
    if socket.recv_buffer_size().unwrap_or(0) < UDP_BUFFER_OCTETS {
        let _ = socket.set_recv_buffer_size(UDP_BUFFER_OCTETS);
    }
    let _ = socket.set_send_buffer_size(UDP_BUFFER_OCTETS / 4);
}

/// Asks the kernel to note when a datagram arrived: the time it then waited for us is what overload control goes by.
fn timestamps(socket: &Socket) {
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
}

/// Asks the kernel to keep what the network says about datagrams that could not be delivered.
fn errors(socket: &Socket, address: SocketAddr) {
    let (level, name) = if address.is_ipv4() { (libc::SOL_IP, libc::IP_RECVERR) } else { (libc::SOL_IPV6, libc::IPV6_RECVERR) };
    set_option(socket, level, name, 1);
}

/// Datagrams that the kernel dropped at a socket since it was made: its buffer was full, or its filter said so. It starts anew
/// after 2^32.
pub fn dropped(socket: &Socket) -> u32 {
    use std::os::fd::AsRawFd;
    const DROPS: usize = 8;
    let mut numbers = [0u32; DROPS + 1];
    let mut octets = std::mem::size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the kernel writes at most so many octets into a local array of that size (`SO_MEMINFO`, the last is SK_MEMINFO_DROPS);
    // where it writes fewer, or fails, the rest stays 0.
    unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, numbers.as_mut_ptr().cast(), &raw mut octets);
    }
    numbers[DROPS]
}

fn set_option(socket: &Socket, level: i32, name: i32, value: i32) {
    use std::os::fd::AsRawFd;
    // SAFETY: the option value is a local `int` of the length given; failure leaves the socket as it was.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            std::mem::size_of::<i32>() as libc::socklen_t,
        );
    }
}
