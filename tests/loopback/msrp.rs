//! A small MSRP endpoint for the tests (RFC 4975), blocking, sharing no code with the proxy.

use crate::proxy::PATIENCE;
use crate::tape::Tape;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

/// One frame: head lines, body where it has one, flag.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub head: String,
    pub body: Option<Vec<u8>>,
    pub flag: char,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{} octets] {}", self.head, self.body.as_ref().map_or(0, Vec::len), self.flag)
    }
}

impl Frame {
    pub fn tid(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or("")
    }

    /// Method, or status code.
    pub fn kind(&self) -> &str {
        self.head.split(['\r', ' ']).nth(2).unwrap_or("")
    }

    /// As it came.
    pub fn text(&self) -> String {
        let body = self.body.as_ref().map_or(String::new(), |body| format!("\r\n\r\n{}", String::from_utf8_lossy(body)));
        format!("{}{body}\r\n-------{}{}\r\n", self.head, self.tid(), self.flag)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").skip(1).find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

pub struct Msrp {
    pub stream: TcpStream,
    held: Vec<u8>,
    /// How far `held` was searched for the end of its first frame.
    searched: usize,
    /// Our URI and the peer's.
    pub own: String,
    pub peer: String,
    count: u32,
    /// Where what it says and hears is noted, and under which name.
    pub tape: Option<(Tape, String)>,
}

/// Where an answerer waits to be connected to.
pub struct Waiting(pub TcpListener);

impl Waiting {
    pub fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").expect("a loopback port"))
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    /// The same, unless `stop` is set before somebody connects.
    pub fn accept_until(&self, stop: &AtomicBool, own: &str, peer: &str) -> Option<Msrp> {
        self.0.set_nonblocking(true).expect("a socket can be non-blocking");
        while !stop.load(Ordering::Relaxed) {
            if let Ok((stream, _)) = self.0.accept() {
                stream.set_nonblocking(false).expect("a socket can be blocking");
                return Some(Msrp::over(stream, own, peer));
            }
            std::thread::yield_now();
        }
        None
    }

    /// The next connection.
    #[track_caller]
    pub fn accept(&self, own: &str, peer: &str) -> Msrp {
        // On Linux the time limit of reads is that of accept(2), too.
        socket2::SockRef::from(&self.0).set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
        let (stream, _) = crate::reading::undisturbed(|| self.0.accept()).expect("somebody connects");
        Msrp::over(stream, own, peer)
    }
}

impl Msrp {
    pub fn connect(to: SocketAddr, own: &str, peer: &str) -> Msrp {
        Self::over(TcpStream::connect(to).expect("the proxy listens"), own, peer)
    }

    pub fn over(stream: TcpStream, own: &str, peer: &str) -> Msrp {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
        stream.set_nodelay(true).expect("a TCP socket has no delay");
        Msrp { stream, held: Vec::new(), searched: 0, own: own.into(), peer: peer.into(), count: 0, tape: None }
    }

    /// Waits so long for what comes next, instead of the usual patience.
    pub fn wait_up_to(&mut self, time: std::time::Duration) {
        self.stream.set_read_timeout(Some(time)).expect("a socket has a time limit");
    }

    pub fn write(&mut self, octets: &[u8]) {
        if let Some((tape, name)) = &self.tape {
            tape.note(name, "the proxy", &String::from_utf8_lossy(octets));
        }
        match self.stream.write_all(octets) {
            // The proxy may refuse and close before all is written: who reads next hears of it.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            written => written.expect("the proxy reads"),
        }
    }

    /// One chunk: `range` as in Byte-Range, `extra` header lines, flag. Returns its transaction id.
    pub fn chunk(&mut self, message: &str, range: &str, extra: &str, body: &[u8], flag: char) -> String {
        self.count += 1;
        let tid = format!("test{:04}{:08x}", self.count, std::process::id());
        let mut frame = format!("MSRP {tid} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {message}\r\nByte-Range: {range}\r\n{extra}Content-Type: text/plain\r\n\r\n", self.peer, self.own).into_bytes();
        frame.extend_from_slice(body);
        frame.extend_from_slice(format!("\r\n-------{tid}{flag}\r\n").as_bytes());
        self.write(&frame);
        tid
    }

    /// A whole message in one chunk.
    pub fn send(&mut self, message: &str, body: &[u8]) -> String {
        let range = format!("1-{}/{}", if body.len() > 2048 { "*".into() } else { body.len().to_string() }, body.len());
        self.chunk(message, &range, "", body, '$')
    }

    /// A whole message of that type in one chunk.
    pub fn send_as(&mut self, message: &str, content_type: &str, body: &[u8]) -> String {
        self.count += 1;
        let tid = format!("test{:04}{:08x}", self.count, std::process::id());
        let length = body.len();
        let mut frame = format!("MSRP {tid} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {message}\r\nByte-Range: 1-{length}/{length}\r\nContent-Type: {content_type}\r\n\r\n", self.peer, self.own).into_bytes();
        frame.extend_from_slice(body);
        frame.extend_from_slice(format!("\r\n-------{tid}$\r\n").as_bytes());
        self.write(&frame);
        tid
    }

    /// The bodiless SEND that an active endpoint opens with.
    pub fn open(&mut self) -> String {
        self.count += 1;
        let tid = format!("open{:04}{:08x}", self.count, std::process::id());
        self.write(
            format!(
                "MSRP {tid} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: empty\r\nByte-Range: 1-0/0\r\n-------{tid}$\r\n",
                self.peer, self.own
            )
            .as_bytes(),
        );
        tid
    }

    /// Answers a request.
    pub fn answer(&mut self, request: &Frame, line: &str) {
        let to = request.field("From-Path").unwrap_or("").split(' ').next().unwrap_or("").to_owned();
        let tid = request.tid().to_owned();
        self.write(format!("MSRP {tid} {line}\r\nTo-Path: {to}\r\nFrom-Path: {}\r\n-------{tid}$\r\n", self.own).as_bytes());
    }

    /// The next frame; None when the proxy closed.
    pub fn next(&mut self) -> Option<Frame> {
        let mut buffer = [0; 65_536];
        loop {
            if let Some(frame) = self.take() {
                if let Some((tape, name)) = &self.tape {
                    tape.note("the proxy", name, &frame.text());
                }
                return Some(frame);
            }
            match crate::reading::read(&mut self.stream, &mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.held.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => {
                    panic!("no frame: {error}; held: {:?}", String::from_utf8_lossy(&self.held[..self.held.len().min(400)]))
                }
            }
        }
    }

    /// The next frame of that method or status; bodiless SENDs are answered and passed over.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> Frame {
        loop {
            let frame = self.next().unwrap_or_else(|| panic!("the connection closed before {kind}"));
            if frame.kind() == "SEND" && frame.body.is_none() && kind != "SEND-EMPTY" {
                self.answer(&frame, "200 OK");
                continue;
            }
            assert!(frame.kind() == kind || (kind == "SEND-EMPTY" && frame.body.is_none()), "{kind} was wanted, came {frame:?}");
            return frame;
        }
    }

    /// A whole message and its Message-ID; None where the connection ends before it is whole.
    pub fn try_message(&mut self) -> Option<(String, Vec<u8>)> {
        let mut body = Vec::new();
        loop {
            let frame = self.next()?;
            if frame.kind() != "SEND" {
                continue;
            }
            body.extend_from_slice(frame.body.as_deref().unwrap_or_default());
            let to = frame.field("From-Path").unwrap_or("").to_owned();
            let answer =
                format!("MSRP {tid} 200 OK\r\nTo-Path: {to}\r\nFrom-Path: {}\r\n-------{tid}$\r\n", self.own, tid = frame.tid());
            self.stream.write_all(answer.as_bytes()).ok()?;
            if frame.flag == '$' && frame.body.is_some() {
                return Some((frame.field("Message-ID").unwrap_or("").to_owned(), body));
            }
        }
    }

    /// A whole message and its Message-ID.
    #[track_caller]
    pub fn message_as(&mut self) -> (String, Vec<u8>) {
        self.try_message().expect("the message comes whole")
    }

    /// A whole message, whatever its chunks; each is answered 200 unless its Failure-Report says no.
    #[track_caller]
    pub fn message(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let frame = self.expect("SEND");
            let start: usize = frame.field("Byte-Range").and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(1);
            assert_eq!(start, body.len() + 1, "a chunk at the wrong place: {frame:?}");
            body.extend_from_slice(frame.body.as_deref().unwrap_or_default());
            if !matches!(frame.field("Failure-Report"), Some("no" | "partial")) {
                self.answer(&frame, "200 OK");
            }
            match frame.flag {
                '$' => return body,
                '+' => {}
                flag => panic!("the message was ended with {flag}"),
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let first = memchr::memmem::find(&self.held, b"\r\n")?;
        let line = String::from_utf8_lossy(&self.held[..first]).into_owned();
        assert!(line.starts_with("MSRP "), "not MSRP: {line:?}");
        let end_line = format!("\r\n-------{}", line.split(' ').nth(1).unwrap_or(""));
        let Some(at) = memchr::memmem::find(&self.held[self.searched..], end_line.as_bytes()).map(|at| at + self.searched) else {
            self.searched = self.held.len().saturating_sub(end_line.len());
            return None;
        };
        let end = at + end_line.len();
        if self.held.len() < end + 3 {
            return None;
        }
        self.searched = 0;
        let blank = memchr::memmem::find(&self.held[..at + 4], b"\r\n\r\n").filter(|blank| *blank <= at);
        let head = String::from_utf8_lossy(&self.held[..blank.unwrap_or(at)]).into_owned();
        // The blank line's CRLF may be the end-line's too, when the body is empty.
        let body = blank.map(|blank| self.held[(blank + 4).min(at)..at].to_vec());
        let flag = char::from(self.held[end]);
        self.held.drain(..end + 3);
        Some(Frame { head, body, flag })
    }
}
