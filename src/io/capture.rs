//! A capture of one call on demand: the heads of its SIP messages and of its MSRP requests and responses, for `tshark` and its like.
//!
//! ```text
//! POST /capture --Order::Capture--> signalling cores: heads of the call's legs ----+
//!                                       | the call's media sessions                +--> Capture --> GET /capture/1 (pcapng)
//!                                       +--MediaOrder::Capture--> media cores -----+
//! ```
//! What is written is bounded in octets and time. No body is kept at any time, and of credentials only that there were some: a
//! capture may be shown to whoever may see call records.

pub mod frames;
pub mod pcapng;
pub mod tap;

use crate::base::clock::{Duration, Instant};
use crate::shard::exchange::MediaKey;
use crate::sip::header::name::Name;
use crate::sip::owner;
use crossbeam::queue::SegQueue;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

/// What one packet is counted as beside its octets: headers and block of the file.
const PACKET_OCTETS: usize = 128;

/// Which call is captured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// The call that began, or will begin, with this Call-ID.
    Call(Box<str>),
    /// The next call whose INVITE names this address: Request-URI, From, To or P-Asserted-Identity.
    Next(Box<str>),
}

/// One message or chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    pub at: Instant,
    pub datagram: bool,
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// What is kept.
    pub octets: Box<[u8]>,
    /// Octets it had on the wire behind those, where they are shown as cut off (SIP).
    pub cut: usize,
    /// Octets of body that were left out without a trace (MSRP), told as a comment.
    pub left_out: u64,
}

/// One capture, shared by the cores that write it and the admin server that reads it.
#[derive(Debug)]
pub struct Capture {
    pub number: u64,
    pub wanted: Wanted,
    pub until: Instant,
    /// The call that [`Wanted::Next`] turned out to be.
    found: OnceLock<Box<str>>,
    octets_left: AtomicI64,
    packets: SegQueue<Packet>,
}

impl Capture {
    /// A capture that ends by itself, by time or by octets.
    pub fn new(number: u64, wanted: Wanted, until: Instant, octets: usize) -> Arc<Self> {
        let octets_left = AtomicI64::new(i64::try_from(octets).unwrap_or(i64::MAX));
        Arc::new(Self { number, wanted, until, found: OnceLock::new(), octets_left, packets: SegQueue::new() })
    }

    /// Whether nothing more comes into it.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.until || self.octets_left.load(Ordering::Relaxed) <= 0
    }

    /// Ends it at once; what it has stays.
    pub fn end(&self) {
        self.octets_left.store(0, Ordering::Relaxed);
    }

    /// The Call-ID of its call, as soon as there is one.
    pub fn call(&self) -> Option<&str> {
        match &self.wanted {
            Wanted::Call(call_id) => Some(call_id),
            Wanted::Next(_) => self.found.get().map(AsRef::as_ref),
        }
    }

    /// Takes an initial INVITE that came in, where it is the one that was waited for. Of several cores the first finds one.
    pub fn meet(&self, invite: &[u8]) {
        if let Wanted::Next(address) = &self.wanted
            && self.found.get().is_none()
            && names(invite, address)
            && let Some(call_id) = owner::header(invite, Name::CallId)
        {
            let _ = self.found.set(call_id.into());
        }
    }

    /// Adds a packet. The one that is too much ends the capture and is not in it.
    pub fn add(&self, packet: Packet) {
        let cost = i64::try_from(packet.octets.len() + PACKET_OCTETS).unwrap_or(i64::MAX);
        if self.octets_left.fetch_sub(cost, Ordering::Relaxed) >= cost {
            self.packets.push(packet);
        } else {
            self.end();
        }
    }

    /// The next packet, in the order in which the cores added them.
    pub fn take(&self) -> Option<Packet> {
        self.packets.pop()
    }
}

/// The captures one signalling core writes into.
#[derive(Debug, Default)]
pub struct Captures {
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    capture: Arc<Capture>,
    /// Media sessions whose cores were told.
    told: Vec<MediaKey>,
}

impl Captures {
    /// Whether none runs: the usual case, and all it costs.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// One more. `media` says which media sessions a call has that runs already; `tell` is called once for each session.
    pub fn begin(
        &mut self,
        capture: Arc<Capture>,
        media: impl Fn(&str) -> Vec<(u8, MediaKey)>,
        tell: impl FnMut(u8, MediaKey, Arc<Capture>),
    ) {
        let mut running = Running { capture, told: Vec::new() };
        running.tell(running.capture.call().map(media).unwrap_or_default(), tell);
        self.running.push(running);
    }

    /// A SIP message was received or is sent. `is_of` says whether it belongs to the call that began with a Call-ID, `media`
    /// which media sessions its session has, and `tell` is called once for each of them.
    pub fn message(
        &mut self,
        message: &Message<'_>,
        is_of: impl Fn(&str) -> bool,
        media: impl Fn() -> Vec<(u8, MediaKey)>,
        mut tell: impl FnMut(u8, MediaKey, Arc<Capture>),
    ) {
        self.running.retain(|running| !running.capture.is_over(message.at));
        for running in &mut self.running {
            if !message.sent {
                running.capture.meet(message.octets);
            }
            if running.capture.call().is_some_and(&is_of) {
                running.capture.add(message.packet());
                running.tell(media(), &mut tell);
            }
        }
    }
}

impl Running {
    fn tell(&mut self, media: Vec<(u8, MediaKey)>, mut tell: impl FnMut(u8, MediaKey, Arc<Capture>)) {
        for (core, key) in media {
            if !self.told.contains(&key) {
                self.told.push(key);
                tell(core, key, self.capture.clone());
            }
        }
    }
}

/// A SIP message on its way.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub at: Instant,
    pub sent: bool,
    pub datagram: bool,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub octets: &'a [u8],
}

impl Message<'_> {
    fn packet(&self) -> Packet {
        let (from, to) = if self.sent { (self.local, self.peer) } else { (self.peer, self.local) };
        let head = memchr::memmem::find(self.octets, b"\r\n\r\n").map_or(self.octets.len(), |blank| blank + 4);
        let octets = without_credentials(&self.octets[..head]);
        Packet { at: self.at, datagram: self.datagram, from, to, octets, cut: self.octets.len() - head, left_out: 0 }
    }
}

/// The head with every octet of its credentials replaced, so that lengths still say what they said.
fn without_credentials(head: &[u8]) -> Box<[u8]> {
    let mut head: Box<[u8]> = head.into();
    let (mut at, mut secret) = (0, false);
    while at < head.len() {
        let end = memchr::memchr(b'\n', &head[at..]).map_or(head.len(), |end| at + end + 1);
        let folded = matches!(head[at], b' ' | b'\t');
        let colon = if folded { Some(0) } else { memchr::memchr(b':', &head[at..end]) };
        if !folded {
            let name = head[at..at + colon.unwrap_or(0)].trim_ascii_end();
            secret = name.eq_ignore_ascii_case(b"Authorization") || name.eq_ignore_ascii_case(b"Proxy-Authorization");
        }
        if let Some(colon) = colon.filter(|_| secret) {
            head[at + colon + 1..end].iter_mut().filter(|octet| !octet.is_ascii_whitespace()).for_each(|octet| *octet = b'x');
        }
        at = end;
    }
    head
}

/// Whether an initial INVITE names an address.
fn names(invite: &[u8], address: &str) -> bool {
    let Some(line) = owner::start_line(invite) else { return false };
    let mut words = line.split_ascii_whitespace();
    if words.next() != Some("INVITE") {
        return false;
    }
    if owner::header(invite, Name::To).is_none_or(|to| to.contains(";tag=")) {
        return false;
    }
    let is = |value: &str| {
        let inner = value.rsplit_once('<').map_or(value, |(_, rest)| rest.split('>').next().unwrap_or(""));
        inner.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(address)
    };
    words.next().is_some_and(is)
        || owner::headers(invite)
            .filter(|(name, _)| matches!(name, Name::From | Name::To | Name::PAssertedIdentity))
            .any(|(_, value)| value.split(',').any(is))
}

/// How long a capture runs and how much it takes, as asked for or by default, and never more than the limits.
pub fn bounds(seconds: Option<u64>, octets: Option<u64>) -> (Duration, usize) {
    use crate::limits::{CAPTURE_OCTETS_MAX, CAPTURE_SECONDS_MAX};
    const SECONDS: u64 = 60;
    const OCTETS: u64 = 1024 * 1024;
    (
        Duration::from_secs(seconds.unwrap_or(SECONDS).min(CAPTURE_SECONDS_MAX)),
        octets.unwrap_or(OCTETS).min(CAPTURE_OCTETS_MAX as u64) as usize,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_unix_s(1_000);
    const INVITE: &[u8] = b"INVITE sip:bob@example.org SIP/2.0\r\nFrom: \"A\" <sip:alice@example.net>;tag=1\r\n\
        To: <sip:bob@example.org>\r\nCall-ID: c\r\nAuthorization: Digest username=\"alice\",\r\n response=\"secret\"\r\n\
        P-Asserted-Identity: <sip:a@example.net>, <tel:+4930123>\r\nContent-Length: 4\r\n\r\nbody";

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn message(octets: &[u8]) -> Message<'_> {
        Message { at: NOW, sent: false, datagram: true, local: at(5060), peer: at(1), octets }
    }

    #[test]
    fn no_body_and_no_credential_gets_into_a_packet() {
        let packet = message(INVITE).packet();
        let text = String::from_utf8_lossy(&packet.octets).into_owned();
        assert!(!text.contains("body") && !text.contains("secret") && !text.contains("Digest"), "{text}");
        assert!(text.contains("Authorization: xxxxxx") && text.contains("P-Asserted-Identity: <sip:a@"), "{text}");
        assert_eq!((packet.octets.len() + packet.cut, packet.cut), (INVITE.len(), 4));
    }

    #[test]
    fn an_invite_is_met_by_whom_it_names() {
        for address in ["sip:bob@example.org", "SIP:Alice@example.net", "sip:a@example.net", "tel:+4930123"] {
            assert!(names(INVITE, address), "{address}");
        }
        for address in ["", "sip:carol@example.org", "bob"] {
            assert!(!names(INVITE, address), "{address}");
        }
        assert!(!names(b"BYE sip:bob@example.org SIP/2.0\r\nTo: <sip:bob@example.org>\r\n\r\n", "sip:bob@example.org"));
    }

    #[test]
    fn a_capture_ends_by_octets_and_by_time_and_follows_one_call() {
        let capture = Capture::new(
            1,
            Wanted::Next("sip:bob@example.org".into()),
            NOW + Duration::from_secs(1),
            2 * (PACKET_OCTETS + INVITE.len()),
        );
        let mut captures = Captures::default();
        captures.begin(capture.clone(), |_| Vec::new(), |_, _, _| ());
        let mut told = Vec::new();
        for octets in [INVITE, INVITE, INVITE, INVITE] {
            captures.message(&message(octets), |call_id| call_id == "c", || vec![(0, MediaKey(7))], |_, key, _| told.push(key));
        }
        assert_eq!((told, capture.call()), (vec![MediaKey(7)], Some("c")));
        assert!(capture.is_over(NOW) && capture.is_over(NOW + Duration::from_secs(1)));
        assert_eq!(std::iter::from_fn(|| capture.take()).count(), 2, "there was room for two");
        captures.message(&message(INVITE), |_| true, Vec::new, |_, _, _| ());
        assert!(captures.is_empty());
    }
}
