//! The MSRP endpoint of a simulated UE (RFC 4975): sends its messages in chunks, answers what comes, puts messages together.

use cpm_pf::base::prng::Prng;
use memchr::memmem;
use std::collections::BTreeMap;

/// A message put together again.
pub struct Arrived {
    pub id: String,
    pub body: Vec<u8>,
}

#[derive(Default)]
pub struct Endpoint {
    held: Vec<u8>,
    /// Octets of `held` in which no end-line begins.
    searched: usize,
    partial: BTreeMap<String, Vec<u8>>,
    pub own: String,
    pub peer: String,
    /// Chunks sent and not yet answered.
    pub unanswered: u64,
    /// Answers other than 200, and frames that could not be read.
    pub refused: Vec<String>,
    sent: u64,
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
}

impl Endpoint {
    pub fn new(own: &str, peer: &str) -> Self {
        Self { own: own.to_owned(), peer: peer.to_owned(), ..Self::default() }
    }

    /// RFC 4975 §5.4: who opened the connection says whose it is, and sends a request without body where there is nothing
    /// to say.
    pub fn hello(&mut self, prng: &mut Prng) -> Vec<u8> {
        self.sent += 1;
        self.unanswered += 1;
        let tid = format!("t{:07x}{:06x}", prng.below(1 << 28), self.sent);
        let (to, from) = (&self.peer, &self.own);
        format!(
            "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: h{tid}\r\nByte-Range: 1-0/0\r\n-------{tid}$\r\n"
        )
        .into_bytes()
    }

    /// One message as one to four chunks.
    pub fn message(&mut self, id: &str, body: &[u8], prng: &mut Prng) -> Vec<u8> {
        let mut out = Vec::new();
        let chunks = 1 + prng.below(4) as usize;
        let step = body.len().div_ceil(chunks).max(1);
        let total = body.len();
        let mut at = 0;
        while at < total {
            let end = (at + step).min(total);
            self.sent += 1;
            let tid = format!("t{:07x}{:06x}", prng.below(1 << 28), self.sent);
            let flag = if end == total { '$' } else { '+' };
            let range_end = if end - at > 2048 { "*".into() } else { end.to_string() };
            out.extend_from_slice(
                format!(
                    "MSRP {tid} SEND\r\nTo-Path: {}\r\nFrom-Path: {}\r\nMessage-ID: {id}\r\nByte-Range: {}-{range_end}/{total}\r\nContent-Type: text/plain\r\n\r\n",
                    self.peer,
                    self.own,
                    at + 1
                )
                .as_bytes(),
            );
            out.extend_from_slice(&body[at..end]);
            out.extend_from_slice(format!("\r\n-------{tid}{flag}\r\n").as_bytes());
            self.unanswered += 1;
            at = end;
        }
        out
    }

    /// Octets came in: what to write back, and messages that are whole now.
    pub fn receive(&mut self, octets: &[u8]) -> (Vec<u8>, Vec<Arrived>) {
        self.held.extend_from_slice(octets);
        let (mut back, mut whole) = (Vec::new(), Vec::new());
        while let Some((head, body, flag, end)) = self.frame() {
            let first = head.split("\r\n").next().unwrap_or("").to_owned();
            let tid = first.split(' ').nth(1).unwrap_or("").to_owned();
            match first.split(' ').nth(2).unwrap_or("") {
                "SEND" => {
                    if field(&head, "Failure-Report") != "no" {
                        back.extend_from_slice(
                            format!(
                                "MSRP {tid} 200 OK\r\nTo-Path: {}\r\nFrom-Path: {}\r\n-------{tid}$\r\n",
                                field(&head, "From-Path").split(' ').next().unwrap_or(""),
                                self.own
                            )
                            .as_bytes(),
                        );
                    }
                    if let Some(body) = body {
                        self.chunk(&head, &body, flag, &mut whole);
                    }
                }
                "REPORT" => self.refused.push(format!("REPORT {}", field(&head, "Status"))),
                "200" => self.unanswered = self.unanswered.saturating_sub(1),
                _ => self.refused.push(first),
            }
            self.held.drain(..end);
        }
        (back, whole)
    }

    fn chunk(&mut self, head: &str, body: &[u8], flag: u8, whole: &mut Vec<Arrived>) {
        let id = field(head, "Message-ID").to_owned();
        let start: usize = field(head, "Byte-Range").split('-').next().and_then(|text| text.parse().ok()).unwrap_or(1);
        let message = self.partial.entry(id.clone()).or_default();
        if start != message.len() + 1 {
            return self.refused.push(format!("chunk of {id} at {start} after {} octets", message.len()));
        }
        message.extend_from_slice(body);
        match flag {
            b'$' => {
                let body = self.partial.remove(&id).unwrap_or_default();
                whole.push(Arrived { id, body });
            }
            b'#' => {
                self.partial.remove(&id);
            }
            _ => {}
        }
    }

    /// The first whole frame: head, body where it has one, flag, and where it ends.
    fn frame(&mut self) -> Option<(String, Option<Vec<u8>>, u8, usize)> {
        let held = &self.held;
        let line_end = memmem::find(held, b"\r\n")?;
        let tid = std::str::from_utf8(&held[..line_end]).ok()?.split(' ').nth(1)?.to_owned();
        let end_line = format!("\r\n-------{tid}");
        let Some(at) = memmem::find(&held[self.searched..], end_line.as_bytes()) else {
            // What was searched is not searched again, but for an end-line that has begun.
            self.searched = held.len().saturating_sub(end_line.len()).max(self.searched);
            return None;
        };
        let at = at + self.searched;
        let end = at + end_line.len();
        let flag = *held.get(end)?;
        if held.len() < end + 3 {
            return None;
        }
        let blank = memmem::find(&held[..at], b"\r\n\r\n");
        let head_end = blank.unwrap_or(at);
        let head = String::from_utf8_lossy(&held[..head_end]).into_owned();
        let body = blank.map(|blank| held[blank + 4..at.max(blank + 4)].to_vec());
        self.searched = 0;
        Some((head, body, flag, end + 3))
    }
}
