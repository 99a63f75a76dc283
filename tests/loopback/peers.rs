//! Real servers beside the program, each in a folder of its own and on ports of its own; ended with the test.

use crate::proxy::PATIENCE;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

/// A server that runs in the foreground.
pub struct Server(Child);

impl Server {
    /// None, with a printed line, where it is not installed. Waits until it takes a connection.
    pub fn start(program: &str, args: &[&str], log: &Path, port: u16) -> Option<Server> {
        let out = std::fs::File::options().create(true).append(true).open(log).expect("the folder can be written");
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let program =
            path.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.is_file()).or_else(|| {
                println!("skipped: {program} is not installed");
                None
            })?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .process_group(0)
            .stdout(out.try_clone().expect("a file can be doubled"))
            .stderr(out)
            .spawn();
        let mut server = Server(child.expect("it is installed"));
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(at(port)).is_err() {
            let ended = server.0.try_wait().expect("it is our child");
            assert!(
                ended.is_none() && Instant::now() < until,
                "it does not start: {ended:?}\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::yield_now();
        }
        Some(server)
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().expect("kill is there");
        assert!(done.success());
    }

    /// Kills the server and all that it started.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It leads a process group of its own; its children are in it.
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Ports for servers that bind them later, free for UDP and TCP, none given twice. They lie below the range from which the
/// kernel picks, so that no socket of another test gets one meanwhile.
pub fn free<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    // Two runs side by side begin at places of their own.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    [(); N].map(|()| {
        loop {
            let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
            if UdpSocket::bind(at(port)).is_ok() && TcpListener::bind(at(port)).is_ok() {
                return port;
            }
        }
    })
}
