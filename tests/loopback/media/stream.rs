//! Long messages over one connection: a sender with chunks of any size, and a reader that checks every octet as it comes.

use crate::msrp::Msrp;
use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc;

/// The octets of the test message from `at` on: no period that a mistake could hide behind, and line ends and dashes
/// now and then, as an end-line has them.
pub fn fill(at: u64, octets: &mut [u8]) {
    for (octet, at) in octets.iter_mut().zip(at..) {
        let mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ at;
        *octet = match mixed & 0x3f {
            0..=7 => b'-',
            8 => b'\r',
            9 => b'\n',
            _ => (mixed >> 8) as u8,
        };
    }
}

/// A socket that is written by one thread and read by another.
pub struct Half {
    pub stream: TcpStream,
    own: String,
    peer: String,
}

impl Half {
    pub fn of(msrp: &Msrp) -> Self {
        let stream = msrp.stream.try_clone().expect("a socket has two handles");
        Self { stream, own: msrp.own.clone(), peer: msrp.peer.clone() }
    }

    /// Sends one message in chunks, with answers of the other half between them, and such answers until there are no more.
    /// (One thread writes, or an answer would stand inside a chunk; and the reader never waits, or two peers that write to
    /// each other would wait for ever.)
    pub fn send_among(&mut self, message: &str, total: u64, chunk: usize, answers: &mpsc::Receiver<Vec<u8>>) {
        let (mut body, mut at) = (vec![0; chunk], 0);
        while at < total {
            let length = chunk.min(usize::try_from(total - at).expect("a test's size"));
            let flag = if at + length as u64 == total { '$' } else { '+' };
            fill(at, &mut body[..length]);
            self.chunk(message, (at, total), &body[..length], flag);
            at += length as u64;
            while let Ok(answer) = answers.try_recv() {
                self.stream.write_all(&answer).expect("the core reads");
            }
        }
        while let Ok(answer) = answers.recv() {
            self.stream.write_all(&answer).expect("the core reads");
        }
    }

    /// Sends one message in chunks.
    pub fn send(&mut self, message: &str, total: u64, chunk: usize) {
        let (mut body, mut at) = (vec![0; chunk], 0);
        while at < total {
            let length = chunk.min(usize::try_from(total - at).expect("a test's size"));
            let flag = if at + length as u64 == total { '$' } else { '+' };
            fill(at, &mut body[..length]);
            self.chunk(message, (at, total), &body[..length], flag);
            at += length as u64;
        }
    }

    pub fn chunk(&mut self, message: &str, (at, total): (u64, u64), body: &[u8], flag: char) {
        let tid = format!("{message}x{at:x}");
        let end = if body.len() > 2048 { "*".into() } else { (at + body.len() as u64).to_string() };
        let mut frame = format!(
            "MSRP {tid} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {message}\r\nByte-Range: {}-{end}/{total}\r\nContent-Type: application/octet-stream\r\n\r\n",
            self.peer,
            self.own,
            at + 1
        )
        .into_bytes();
        frame.extend_from_slice(body);
        frame.extend_from_slice(format!("\r\n-------{tid}{flag}\r\n").as_bytes());
        self.stream.write_all(&frame).expect("the core reads");
    }
}

/// What a reader saw.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    pub octets: u64,
    pub messages: u64,
    pub chunks: u64,
    /// Responses with 200, and with anything else.
    pub good: u64,
    pub bad: u64,
}

/// Reads frames, compares bodies with [`fill`], and answers requests.
pub struct Reader {
    stream: TcpStream,
    own: String,
    held: Vec<u8>,
    pub seen: Seen,
    expected: Vec<u8>,
    answers: Answers,
}

/// What becomes of requests.
pub enum Answers {
    None,
    /// Written by the reader itself.
    Own,
    /// Written by the half that sends.
    Sender(mpsc::Sender<Vec<u8>>),
}

impl Reader {
    pub fn of(msrp: &Msrp, answers: Answers) -> Self {
        let stream = msrp.stream.try_clone().expect("a socket has two handles");
        Self { stream, own: msrp.own.clone(), held: Vec::new(), seen: Seen::default(), expected: Vec::new(), answers }
    }

    /// Reads until `enough`, or to the end of the stream.
    pub fn read_until(mut self, enough: impl Fn(&Seen) -> bool) -> Seen {
        let mut buffer = vec![0; 256 * 1024];
        while !enough(&self.seen) {
            let read = crate::reading::read(&mut self.stream, &mut buffer)
                .unwrap_or_else(|error| panic!("{error}; seen: {:?}", self.seen));
            if read == 0 {
                break;
            }
            self.held.extend_from_slice(&buffer[..read]);
            let mut at = 0;
            while let Some(length) = self.frame(at) {
                at += length;
            }
            self.held.drain(..at);
        }
        self.seen
    }

    /// Takes one whole frame; its length.
    fn frame(&mut self, at: usize) -> Option<usize> {
        let held = &self.held[at..];
        let find = |needle: &[u8], from: usize| memchr::memmem::find(&held[from..], needle).map(|found| from + found);
        let first = find(b"\r\n", 0)?;
        let line = std::str::from_utf8(&held[..first]).expect("a start line is text").to_owned();
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("MSRP"), "not MSRP: {line:?}");
        let (tid, kind) = (words.next().expect("a tid").to_owned(), words.next().expect("a method or status").to_owned());
        let end_line = format!("\r\n-------{tid}");
        if kind != "SEND" {
            let end = find(end_line.as_bytes(), first)?;
            if held.len() < end + end_line.len() + 3 {
                return None;
            }
            *(if kind == "200" { &mut self.seen.good } else { &mut self.seen.bad }) += 1;
            return Some(end + end_line.len() + 3);
        }
        let blank = find(b"\r\n\r\n", first)?;
        let head = std::str::from_utf8(&held[..blank]).expect("a head is text").to_owned();
        let field = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let range = field("Byte-Range").expect("every SEND here has one");
        let start: u64 = range.split('-').next().and_then(|start| start.parse().ok()).expect("a number");
        let known: Option<u64> = range.split(['-', '/']).nth(1).and_then(|end| end.parse().ok());
        // An announced end spares the search; it may lie when the chunk was interrupted, so look there first only.
        let body = blank + 4;
        let guess = known.map(|end| body + usize::try_from(end + 1 - start).expect("a test's size"));
        let guessed = guess.filter(|guess| held.get(*guess..*guess + end_line.len()) == Some(end_line.as_bytes()));
        let end = match guessed {
            Some(end) => end,
            None => find(end_line.as_bytes(), body.max(held.len().min(body)))?,
        };
        let flag = *held.get(end + end_line.len())?;
        if held.len() < end + end_line.len() + 3 {
            return None;
        }
        let octets = &held[body..end];
        self.expected.resize(octets.len(), 0);
        fill(start - 1, &mut self.expected);
        assert!(octets == self.expected, "{head} brought octets that were not sent");
        let from = field("From-Path").and_then(|path| path.split(' ').next()).expect("a From-Path").to_owned();
        self.seen.octets += octets.len() as u64;
        self.seen.chunks += 1;
        self.seen.messages += u64::from(flag == b'$');
        assert_ne!(flag, b'#', "{head} was aborted");
        let answer =
            || format!("MSRP {tid} 200 OK\r\nTo-Path: {from}\r\nFrom-Path: {}\r\n-------{tid}$\r\n", self.own).into_bytes();
        match &self.answers {
            Answers::None => {}
            Answers::Own => self.stream.write_all(&answer()).expect("the core reads"),
            Answers::Sender(sender) => sender.send(answer()).expect("the sender waits for answers"),
        }
        Some(end + end_line.len() + 3)
    }
}
