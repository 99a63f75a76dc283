//! A CPM client's MSRP (RFC 4975), as little as a demonstration needs: it connects, sends messages in chunks, and takes what comes.

use super::Failure;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Longest wait for octets.
const PATIENCE: Duration = Duration::from_secs(30);
/// Octets of a chunk of a large message.
const CHUNK_OCTETS: usize = 256 * 1024;

/// A connection to the proxy: what is read and what is written are used by two threads.
pub struct Msrp {
    pub reader: Reader,
    pub writer: Writer,
}

/// What both halves write to. Answers never wait for a message of ours that the proxy does not take at the moment: whoever has the
/// stream writes them when it can, so that two clients that both send cannot wait for each other.
struct Outgoing {
    stream: Mutex<TcpStream>,
    answers: Mutex<Vec<u8>>,
}

impl Outgoing {
    fn write(&self, frame: &[u8]) -> Result<(), Failure> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).write_all(frame)?;
        self.write_answers()
    }

    fn answer(&self, frame: &[u8]) -> Result<(), Failure> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(frame);
        self.write_answers()
    }

    fn write_answers(&self) -> Result<(), Failure> {
        // A stream that is taken is given back by somebody who looks here next.
        while let Ok(mut stream) = self.stream.try_lock() {
            let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
            if answers.is_empty() {
                break;
            }
            stream.write_all(&answers)?;
        }
        Ok(())
    }
}

/// The sending half.
pub struct Writer {
    out: Arc<Outgoing>,
    to: String,
    from: String,
    count: u64,
}

/// The receiving half.
pub struct Reader {
    stream: TcpStream,
    out: Arc<Outgoing>,
    own: String,
    held: Vec<u8>,
    at: usize,
}

/// One frame that came in.
pub enum Frame {
    /// Of a message: where its body lies in the reader, whether it ends the message, and the answer it wants.
    Chunk { body: Vec<u8>, last: bool },
    /// A final answer to a chunk of ours.
    Answer(u16),
    /// A bodiless SEND or a report.
    Other,
}

impl Msrp {
    /// Connects as `id` to the URI that stood in the peer's `a=path`, and says so with a bodiless SEND (RFC 4975 §5.4).
    pub fn connect(id: &str, path: &str) -> Result<Self, Failure> {
        let authority = path.split("//").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or("");
        let address: SocketAddr = authority.parse().map_err(|_| Failure(format!("no address in a=path:{path}")))?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let own = format!("msrp://127.0.0.1:9/{id};tcp");
        let out = Arc::new(Outgoing { stream: Mutex::new(stream.try_clone()?), answers: Mutex::default() });
        let reader = Reader { stream, out: out.clone(), own: own.clone(), held: Vec::new(), at: 0 };
        let mut writer = Writer { out, to: path.to_owned(), from: own, count: 0 };
        writer.open()?;
        Ok(Self { reader, writer })
    }
}

impl Writer {
    fn transaction(&mut self) -> String {
        self.count += 1;
        format!("d{:015x}", self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 4)
    }

    fn open(&mut self) -> Result<(), Failure> {
        let tid = self.transaction();
        let (to, from) = (&self.to, &self.from);
        let frame = format!(
            "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {tid}\r\nByte-Range: 1-0/0\r\n-------{tid}$\r\n"
        );
        self.out.write(frame.as_bytes())
    }

    /// Sends a message of `octets`, made by `fill` chunk by chunk. Gives back how many chunks it took.
    pub fn send(&mut self, message: &str, octets: usize, mut fill: impl FnMut(&mut [u8])) -> Result<usize, Failure> {
        let mut body = vec![0; octets.min(CHUNK_OCTETS)];
        let (mut at, mut chunks) = (0, 0);
        let mut frame = Vec::with_capacity(body.len() + 512);
        while at < octets || chunks == 0 {
            let piece = &mut body[..CHUNK_OCTETS.min(octets - at)];
            fill(piece);
            let tid = self.transaction();
            frame.clear();
            let (to, from, end) = (&self.to, &self.from, at + piece.len());
            write!(
                frame,
                "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {message}\r\nByte-Range: {}-{end}/{octets}\r\n\
                 Content-Type: application/octet-stream\r\n\r\n",
                at + 1
            )?;
            frame.extend_from_slice(piece);
            write!(frame, "\r\n-------{tid}{}\r\n", if end == octets { '$' } else { '+' })?;
            self.out.write(&frame)?;
            at = end;
            chunks += 1;
        }
        Ok(chunks)
    }
}

impl Reader {
    /// The next frame; a chunk is answered with 200.
    pub fn next(&mut self) -> Result<Frame, Failure> {
        let head_end = loop {
            match memchr::memmem::find(&self.held[self.at..], b"\r\n") {
                Some(found) => break self.at + found,
                None => self.more()?,
            }
        };
        let line = String::from_utf8_lossy(&self.held[self.at..head_end]).into_owned();
        let mut words = line.split(' ').skip(1);
        let (tid, kind) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
        let mut end_line = b"\r\n-------".to_vec();
        end_line.extend_from_slice(tid.as_bytes());
        let mut searched = head_end - self.at;
        let end = loop {
            if let Some(found) = memchr::memmem::find(&self.held[self.at + searched..], &end_line)
                && self.held.len() >= self.at + searched + found + end_line.len() + 3
            {
                break self.at + searched + found;
            }
            // What was searched is not searched again, but for what may be the beginning of an end-line.
            searched = (self.held.len() - self.at).saturating_sub(end_line.len() + 3).max(searched);
            self.more()?;
        };
        let whole = end + end_line.len() + 3;
        let flag = self.held[end + end_line.len()];
        let frame = match kind.parse::<u16>() {
            Ok(status) => Frame::Answer(status),
            Err(_) if kind == "SEND" => self.chunk(&tid, end, flag)?,
            Err(_) => Frame::Other,
        };
        self.at = whole;
        Ok(frame)
    }

    fn chunk(&mut self, tid: &str, end: usize, flag: u8) -> Result<Frame, Failure> {
        let frame = &self.held[self.at..end];
        let blank = memchr::memmem::find(frame, b"\r\n\r\n");
        let head = String::from_utf8_lossy(&frame[..blank.unwrap_or(frame.len())]).into_owned();
        let field = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name)).unwrap_or("").to_owned();
        let body = blank.map(|blank| frame[blank + 4..].to_vec());
        let to = field("From-Path: ");
        let first = to.split(' ').next().unwrap_or("");
        let answer = format!("MSRP {tid} 200 OK\r\nTo-Path: {first}\r\nFrom-Path: {}\r\n-------{tid}$\r\n", self.own);
        self.out.answer(answer.as_bytes())?;
        Ok(body.map_or(Frame::Other, |body| Frame::Chunk { body, last: flag == b'$' }))
    }

    fn more(&mut self) -> Result<(), Failure> {
        if self.at > 0 {
            self.held.drain(..self.at);
            self.at = 0;
        }
        let length = self.held.len();
        self.held.resize(length + CHUNK_OCTETS, 0);
        let read = self.stream.read(&mut self.held[length..]);
        self.held.truncate(length + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Failure("the proxy closed an MSRP connection".into())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(Failure(format!("waiting for MSRP: {error}"))),
        }
    }

    /// Takes messages until `count` are whole. Gives back the hash of their bodies in order, and chunks and octets.
    pub fn messages(&mut self, count: usize) -> Result<(String, usize, usize), Failure> {
        let (mut hash, mut whole, mut chunks, mut octets) = (Sha256::new(), 0, 0, 0);
        while whole < count {
            match self.next()? {
                Frame::Chunk { body, last } => {
                    hash.update(&body);
                    whole += usize::from(last);
                    chunks += 1;
                    octets += body.len();
                }
                Frame::Answer(status) if status != 200 => return Err(Failure(format!("a chunk was answered {status}"))),
                Frame::Answer(_) | Frame::Other => {}
            }
        }
        Ok((hex(hash), chunks, octets))
    }

    /// Waits for so many 200.
    pub fn answers(&mut self, count: usize) -> Result<(), Failure> {
        let mut got = 0;
        while got < count {
            match self.next()? {
                Frame::Answer(200) => got += 1,
                Frame::Answer(status) => return Err(Failure(format!("a chunk was answered {status}"))),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A hash as text.
pub fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect()
}
