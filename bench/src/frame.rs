//! MSRP as this tool needs it (RFC 4975 §7, §9): writing SENDs and responses, and reading frames as they arrive. Not the proxy's code, so
//! that each checks the other.

use memchr::memmem;

/// What the reader found.
pub enum Event<'a> {
    /// Body octets, with their offset in the message.
    Body(&'a [u8], usize),
    /// The end-line; its flag, and the octets of body before it.
    End(&'a Head, u8, usize),
}

/// A request or response head.
#[derive(Default, Debug)]
pub struct Head {
    pub tid: Vec<u8>,
    /// "SEND", "REPORT", … or empty for a response.
    pub method: Vec<u8>,
    pub status: u16,
    pub to_path: Vec<u8>,
    pub from_path: Vec<u8>,
    pub message_id: Vec<u8>,
    pub use_path: Vec<u8>,
    pub authenticate: Vec<u8>,
    /// First octet of this chunk in the message, from 1.
    pub start: u64,
    pub failure_report: Vec<u8>,
    pub has_body: bool,
}

impl Head {
    fn clear(&mut self) {
        let Self { tid, method, to_path, from_path, message_id, use_path, authenticate, failure_report, .. } = self;
        for field in [tid, method, to_path, from_path, message_id, use_path, authenticate, failure_report] {
            field.clear();
        }
        (self.status, self.start, self.has_body) = (0, 1, false);
    }
}

/// Reads frames of one connection at any split.
#[derive(Default)]
pub struct Reader {
    held: Vec<u8>,
    head: Head,
    /// Within the body of that head.
    within: bool,
    needle: Vec<u8>,
    body: usize,
}

impl Reader {
    /// Octets of a frame that is not whole, kept for the next read.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Moves what is kept to the front of a buffer, so that it and what is read behind it are one piece.
    pub fn restore(&mut self, buffer: &mut [u8]) {
        buffer[..self.held.len()].copy_from_slice(&self.held);
        self.held.clear();
    }

    /// Takes octets in and tells what they hold.
    ///
    /// # Errors
    /// The octets are not MSRP.
    pub fn receive(&mut self, octets: &[u8], mut tell: impl FnMut(Event<'_>)) -> Result<(), String> {
        let mut joined;
        let mut rest: &[u8] = if self.held.is_empty() {
            octets
        } else {
            joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(octets);
            &joined
        };
        loop {
            if !self.within {
                let Some(end) = head_end(rest) else {
                    if rest.len() > 16_384 {
                        return Err("a head of more than 16 KiB".into());
                    }
                    break;
                };
                parse_head(&mut self.head, &rest[..end])?;
                let head = &self.head;
                // Without a body the end-line follows the headers; its CRLF is theirs.
                let skip = if head.has_body { end } else { end.saturating_sub(2) };
                rest = &rest[skip..];
                self.needle.clear();
                self.needle.extend_from_slice(b"\r\n-------");
                self.needle.extend_from_slice(&head.tid);
                self.body = 0;
                self.within = true;
            }
            let head = &self.head;
            match memmem::find(rest, &self.needle) {
                Some(at) if rest.len() >= at + self.needle.len() + 3 => {
                    let flag = rest[at + self.needle.len()];
                    if at > 0 {
                        tell(Event::Body(&rest[..at], head.start as usize - 1 + self.body));
                    }
                    tell(Event::End(head, flag, self.body + at));
                    rest = &rest[at + self.needle.len() + 3..];
                    self.within = false;
                }
                found => {
                    let keep = found.unwrap_or_else(|| rest.len().saturating_sub(self.needle.len() + 2));
                    if keep > 0 {
                        tell(Event::Body(&rest[..keep], head.start as usize - 1 + self.body));
                        self.body += keep;
                    }
                    rest = &rest[keep..];
                    break;
                }
            }
        }
        self.held.extend_from_slice(rest);
        Ok(())
    }
}

/// Where the head ends: after the blank line, or (without a body) where the end-line begins.
fn head_end(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(next) = memchr::memchr(b'\n', &octets[at..]) {
        let line = &octets[at..at + next];
        if line == b"\r" {
            return Some(at + next + 1);
        }
        if line.starts_with(b"-------") && at > 0 {
            return Some(at);
        }
        at += next + 1;
    }
    None
}

/// Sets every field; those of the head before keep their memory.
fn parse_head(head: &mut Head, octets: &[u8]) -> Result<(), String> {
    head.clear();
    head.has_body = octets.ends_with(b"\r\n\r\n");
    let mut lines = octets.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().unwrap_or_default();
    let mut words = first.splitn(4, |octet| *octet == b' ');
    if words.next() != Some(b"MSRP") {
        return Err(format!("not MSRP: {}", String::from_utf8_lossy(&first[..first.len().min(60)])));
    }
    head.tid.extend_from_slice(words.next().unwrap_or_default());
    let word = words.next().unwrap_or_default();
    match std::str::from_utf8(word).ok().and_then(|word| word.parse().ok()).filter(|_| word.len() == 3) {
        Some(status) => head.status = status,
        None => head.method.extend_from_slice(word),
    }
    for line in lines {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let value = line[colon + 1..].trim_ascii();
        let field = match &line[..colon] {
            b"To-Path" => &mut head.to_path,
            b"From-Path" => &mut head.from_path,
            b"Message-ID" => &mut head.message_id,
            b"Use-Path" => &mut head.use_path,
            b"WWW-Authenticate" => &mut head.authenticate,
            b"Failure-Report" => &mut head.failure_report,
            b"Byte-Range" => {
                let number = value.split(|octet| *octet == b'-').next().unwrap_or_default();
                head.start = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1);
                continue;
            }
            _ => continue,
        };
        field.clear();
        field.extend_from_slice(value);
    }
    Ok(())
}

/// What one SEND carries.
pub struct Chunk<'a> {
    pub message_id: &'a str,
    /// Its first octet in the message, from 1.
    pub start: usize,
    pub octets: usize,
    /// Octets of the whole message.
    pub total: usize,
}

/// Writes the head of a SEND.
pub fn send_head(out: &mut Vec<u8>, tid: &str, to: &str, from: &str, chunk: &Chunk<'_>, failure_report: &str) {
    use std::io::Write as _;
    let Chunk { message_id, start, octets, total } = chunk;
    let end = if *octets > 2048 { "*".to_owned() } else { (start + octets - 1).to_string() };
    let _ = write!(
        out,
        "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: {message_id}\r\nByte-Range: {start}-{end}/{total}\r\n\
         Failure-Report: {failure_report}\r\nContent-Type: text/plain\r\n\r\n"
    );
}

/// A SEND without a body that wants no answer.
pub fn opening(own: &str, peer: &str, tid: &str) -> Vec<u8> {
    format!(
        "MSRP {tid} SEND\r\nTo-Path: {peer}\r\nFrom-Path: {own}\r\nMessage-ID: {tid}\r\nByte-Range: 1-0/0\r\n\
         Failure-Report: no\r\n-------{tid}$\r\n"
    )
    .into_bytes()
}

/// Writes a 200 for a request (RFC 4975 §7.2: the leftmost From-Path URI only).
pub fn ok(out: &mut Vec<u8>, head: &Head, own: &str) {
    out.extend_from_slice(b"MSRP ");
    out.extend_from_slice(&head.tid);
    out.extend_from_slice(b" 200 OK\r\nTo-Path: ");
    out.extend_from_slice(head.from_path.split(|octet| *octet == b' ').next().unwrap_or_default());
    out.extend_from_slice(b"\r\nFrom-Path: ");
    out.extend_from_slice(own.as_bytes());
    out.extend_from_slice(b"\r\n-------");
    out.extend_from_slice(&head.tid);
    out.extend_from_slice(b"$\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_the_same_at_every_split() {
        let mut wire = Vec::new();
        let chunk = Chunk { message_id: "m1", start: 1, octets: 30, total: 30 };
        send_head(&mut wire, "abcd1234", "msrp://b/1;tcp", "msrp://a/1;tcp", &chunk, "yes");
        wire.extend_from_slice(b"body with\r\n-------abcd12x$\r\nin\r\n-------abcd1234$\r\n");
        let head = Head { tid: b"t2345678".to_vec(), from_path: b"msrp://a/1;tcp".to_vec(), ..Head::default() };
        ok(&mut wire, &head, "msrp://b/1;tcp");
        for split in 0..wire.len() {
            let mut reader = Reader::default();
            let (mut body, mut ends) = (Vec::new(), 0);
            for part in [&wire[..split], &wire[split..]] {
                reader
                    .receive(part, |event| match event {
                        Event::Body(octets, _) => body.extend_from_slice(octets),
                        Event::End(..) => ends += 1,
                    })
                    .unwrap();
            }
            assert_eq!((ends, body.as_slice()), (2, &b"body with\r\n-------abcd12x$\r\nin"[..]), "split at {split}");
        }
    }
}
