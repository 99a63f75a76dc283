//! A TCP connection to the program's SIP port as a test writes on it: any octets, in any pieces.

use crate::proxy::PATIENCE;
use crate::ue::Message;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};

pub struct Stream {
    pub tcp: TcpStream,
    pub held: Vec<u8>,
}

impl Stream {
    pub fn connect(to: SocketAddr) -> Stream {
        let tcp = TcpStream::connect(to).expect("the program listens");
        tcp.set_nodelay(true).expect("a TCP socket has no delay");
        tcp.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
        Stream { tcp, held: Vec::new() }
    }

    pub fn local(&self) -> SocketAddr {
        self.tcp.local_addr().expect("it is connected")
    }

    /// Writes; a program that has closed already is no failure here.
    pub fn write(&mut self, octets: &[u8]) {
        let _ = self.tcp.write_all(octets);
    }

    /// The next message; none when the program closed.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            let empty = self.held.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
            self.held.drain(..empty);
            if let Some(message) = crate::ue::split(&mut self.held) {
                return Some(message);
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Octets of any kind, at least `count` of them unless the program closes first.
    pub fn octets(&mut self, count: usize) -> Vec<u8> {
        while self.held.len() < count && self.fill() {}
        std::mem::take(&mut self.held)
    }

    /// Reads until the program closes; whether it did within the time of our patience.
    pub fn closes(&mut self) -> bool {
        while self.fill() {}
        true
    }

    #[track_caller]
    pub fn status(&mut self) -> u16 {
        self.next().map_or(0, |message| message.status())
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16_384];
        match crate::reading::read(&mut self.tcp, &mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.held.extend_from_slice(&buffer[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => {
                panic!("nothing more comes and it stays open: {error}; held: {:?}", String::from_utf8_lossy(&self.held))
            }
        }
    }
}
