//! RFC 4975 §9: the heads in one direction of a tapped connection. Bodies are counted and let go.
//!
//! A tap begins anywhere in a stream, so it first looks for a head that names a session it knows by our own session id (128 random
//! bits): no body can feign one by chance, and nothing before that head is kept.

use crate::msrp::head::{self, Head};
use crate::msrp::parse::{Place, Reader, Step};

/// Beginnings of a head that are tried in one stretch of octets.
const TRIES_MAX: usize = 64;

/// What one head was like, with the end-line put where its body was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub octets: Vec<u8>,
    pub left_out: u64,
}

/// One direction of a connection; `T` is what a captured session's heads go to.
#[derive(Debug)]
pub struct Tap<T> {
    /// None: no head was found yet.
    reader: Option<Reader>,
    tid: Vec<u8>,
    /// The head whose body is being read.
    open: Option<(T, Seen)>,
}

impl<T> Default for Tap<T> {
    fn default() -> Self {
        Self { reader: None, tid: Vec::new(), open: None }
    }
}

impl<T> Tap<T> {
    /// Whether it has found a head, and so follows the stream.
    pub fn follows(&self) -> bool {
        self.reader.is_some()
    }

    /// Reads octets that follow those of the call before. `of`: what captures the session that a head names, if anything does; only
    /// such heads are seen.
    pub fn feed(&mut self, mut octets: &[u8], of: impl Fn(&Head, &[u8]) -> Option<T>, mut seen: impl FnMut(T, Seen)) {
        if self.reader.is_none() {
            let Some(at) = beginning(octets, &of) else { return };
            octets = &octets[at..];
            self.reader = Some(Reader::default());
        }
        loop {
            let Some(reader) = &mut self.reader else { return };
            let taken = reader.next(octets);
            let carry = if taken.place == Place::Carry { reader.take_carry() } else { Vec::new() };
            let place = if taken.place == Place::Carry { &carry[..] } else { octets };
            let end = match taken.step {
                Step::Incomplete if taken.consumed >= octets.len() => return,
                Step::Incomplete => None,
                Step::Lost(_) => {
                    (self.reader, self.open) = (None, None);
                    return;
                }
                Step::Head { at, head, body, end } => {
                    let read = &place[at..];
                    self.tid = head.tid.as_bytes().to_vec();
                    let heard = || Seen { octets: read[..head.len].to_vec(), left_out: body.len() as u64 };
                    self.open = of(&head, read).map(|to| (to, heard()));
                    if !head.has_body {
                        self.open.take().into_iter().for_each(|(to, heard)| seen(to, heard));
                        None
                    } else {
                        end
                    }
                }
                Step::Body { body, end } => {
                    if let Some((_, open)) = &mut self.open {
                        open.left_out += body.len() as u64;
                    }
                    end
                }
            };
            if let Some(end) = end
                && let Some((to, mut whole)) = self.open.take()
            {
                // The blank line went with the body: the end-line follows the fields.
                whole.octets.truncate(whole.octets.len() - 2);
                whole.octets.extend_from_slice(b"-------");
                whole.octets.extend_from_slice(&self.tid);
                whole.octets.push(end.flag.flag());
                whole.octets.extend_from_slice(b"\r\n");
                seen(to, whole);
            }
            if taken.place == Place::Carry
                && let Some(reader) = &mut self.reader
            {
                reader.put_carry(carry);
            }
            octets = &octets[taken.consumed..];
        }
    }
}

/// Where the first head begins that names a session of ours.
fn beginning<T>(octets: &[u8], of: impl Fn(&Head, &[u8]) -> Option<T>) -> Option<usize> {
    let starts = memchr::memmem::find_iter(octets, b"MSRP ").filter(|at| *at == 0 || octets[at - 1] == b'\n');
    let mut starts = starts.take(TRIES_MAX);
    starts.find(|at| head::parse(&octets[*at..]).ok().flatten().is_some_and(|head| of(&head, &octets[*at..]).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "msrp://pf:1/secret;tcp";

    fn frame(tid: &str, to: &str, body: &str) -> String {
        format!(
            "MSRP {tid} SEND\r\nTo-Path: {to}\r\nFrom-Path: msrp://a:1/a;tcp\r\nMessage-ID: m\r\nByte-Range: 1-*/*\r\n\
             Content-Type: text/plain\r\n\r\n{body}\r\n-------{tid}$\r\n"
        )
    }

    fn response(tid: &str) -> String {
        format!("MSRP {tid} 200 OK\r\nTo-Path: {OURS}\r\nFrom-Path: msrp://a:1/a;tcp\r\n-------{tid}$\r\n")
    }

    fn seen(tap: &mut Tap<()>, octets: &[u8]) -> Vec<(String, u64)> {
        let mut heads = Vec::new();
        let ours = |head: &Head, octets: &[u8]| (head.to_path.of(octets) == OURS.as_bytes()).then_some(());
        tap.feed(octets, ours, |(), seen| heads.push((String::from_utf8(seen.octets).expect("heads are text"), seen.left_out)));
        heads
    }

    #[test]
    fn heads_are_seen_without_bodies_at_every_cut() {
        let long = "secret body MSRP x SEND\r\n".repeat(200);
        let stream = frame("tid10001", OURS, &long) + &response("tid10002") + &frame("tid10003", OURS, "y");
        for cut in (0..stream.len()).step_by(7) {
            let mut tap = Tap::default();
            // The first head must be whole where a tap begins.
            let cut = cut.max(200);
            let mut heads = seen(&mut tap, &stream.as_bytes()[..cut]);
            for piece in stream.as_bytes()[cut..].chunks(1 + cut % 50) {
                heads.extend(seen(&mut tap, piece));
            }
            assert_eq!(
                heads.iter().map(|(_, left_out)| *left_out).collect::<Vec<_>>(),
                [long.len() as u64, 0, 1],
                "cut at {cut}"
            );
            assert!(heads.iter().all(|(head, _)| !head.contains("body")));
            assert!(heads[0].0.ends_with("Content-Type: text/plain\r\n-------tid10001$\r\n"), "{}", heads[0].0);
            assert_eq!(heads[1].0, response("tid10002"));
        }
    }

    #[test]
    fn what_names_no_session_of_the_capture_is_not_seen_and_a_tap_may_begin_within_a_body() {
        let mut tap = Tap::default();
        let others = frame("tid10001", "msrp://pf:1/other;tcp", "x");
        assert_eq!(seen(&mut tap, others.as_bytes()), []);
        let within = format!("half a body MSRP tid SEND\r\n\r\n-------tid10002$\r\n{}{others}", frame("tid10003", OURS, "y"));
        let heads = seen(&mut tap, within.as_bytes());
        assert_eq!(heads.len(), 1);
        assert!(heads[0].0.starts_with("MSRP tid10003"));
        assert_eq!(seen(&mut tap, response("tid10004").as_bytes()).len(), 1);
    }
}
