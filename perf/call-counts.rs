//! What one call costs the shards, counted and not timed: allocations, octets allocated, messages, and octets that a standing
//! dialog keeps. Everything is played in one thread, without sockets; the kernel's part is `perf/compare`'s.
//!
//! ```sh
//! cargo run --release --example call-counts -- 10000 2000     # with 10,000 calls standing, 2,000 calls one after another
//! valgrind --tool=callgrind --toggle-collect='call_counts::served' target/release/examples/call-counts 0 2000    # instructions
//! ```
//! A call is INVITE, 100, 200, ACK, BYE, 200 on both legs, with its SDP rewritten and an MSRP session opened and closed.

use cpm_pf::base::clock::{Duration, Instant};
use cpm_pf::base::prng::Prng;
use cpm_pf::base::transport::{Destination, Flow, Transport};
use cpm_pf::config::{Config, Listen, Network};
use cpm_pf::shard::exchange::{Document, Fetched, Query, Report};
use cpm_pf::shard::media::Media;
use cpm_pf::shard::media_outbox::{MediaEffect, MediaOutbox};
use cpm_pf::shard::outbox::{Effect, Outbox};
use cpm_pf::shard::signalling::{Bound, Signalling};
use cpm_pf::sip::header::name::Name;
use cpm_pf::sip::message::{Incoming, Message};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// mimalloc as in the program, counted.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static OCTETS: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to mimalloc as it came; only numbers are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        OCTETS.fetch_add(layout.size() as u64, Relaxed);
        LIVE.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        OCTETS.fetch_add(size as u64, Relaxed);
        LIVE.fetch_add(size as u64, Relaxed);
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CALLER: &str = "127.0.0.1:5090";
const CALLED: &str = "127.0.0.1:5070";
const HOSTS: [(Transport, &str); 2] = [(Transport::Udp, "127.0.0.1:5060"), (Transport::Tcp, "127.0.0.1:5060")];

/// One signalling core, one media core, and what came out of them.
struct World {
    signalling: Signalling,
    media: Media,
    now: Instant,
    out: Outbox,
    media_out: MediaOutbox,
    questions: VecDeque<(cpm_pf::shard::exchange::Ticket, Query)>,
    reports: VecDeque<Report>,
    sent: Vec<String>,
    messages: u64,
}

fn config() -> Config {
    let mut config = Config::default();
    config.node.host = "127.0.0.1".into();
    config.sip.core = Some(format!("sip:{CALLED};lr"));
    config.sip.trusted = vec![Network { address: [127, 0, 0, 0].into(), prefix: 8 }];
    config.sip.home_domains = vec!["example.net".into()];
    config.policy.authorised_originators = vec!["sip:*@example.net".into(), "tel:+*".into()];
    config.limits.sessions_per_originator = 1_000_000;
    config
}

impl World {
    fn new() -> Self {
        let config = config();
        let listen =
            |(transport, address): (Transport, &str)| Listen { transport, address: address.parse().expect("an address") };
        let bound = Bound {
            sip: HOSTS.map(listen).into(),
            msrp: vec![listen((Transport::Tcp, "127.0.0.1:2855"))],
            fingerprint: None,
            media_cores: 1,
            ..Bound::default()
        };
        let media = Media::new(0, &config, Prng::seeded(1));
        Self {
            signalling: Signalling::new(0, Arc::new(config), bound, Prng::seeded(2)),
            media,
            now: Instant::from_unix_s(1_700_000_000),
            out: Outbox::default(),
            media_out: MediaOutbox::default(),
            questions: VecDeque::new(),
            reports: VecDeque::new(),
            sent: Vec::new(),
            messages: 0,
        }
    }

    /// A message comes in; answers what goes out.
    fn receive(&mut self, from: &str, text: &str) -> Vec<String> {
        let peer = from.parse().expect("an address");
        let flow = Flow { transport: Transport::Udp, core: 0, listener: 0, connection: 0, peer };
        served(|| self.signalling.receive(self.now, flow, text.as_bytes(), &mut self.out));
        self.messages += 1;
        self.carry_out();
        std::mem::take(&mut self.sent)
    }

    fn carry_out(&mut self) {
        loop {
            let effects = std::mem::take(&mut self.out.effects);
            for effect in effects {
                match effect {
                    // What fills the box is the shard's; what empties it, the engine's.
                    Effect::Send { octets, to: Destination::Flow { .. } | Destination::Target(_), .. } => {
                        self.messages += 1;
                        self.sent.push(String::from_utf8_lossy(&self.out.octets[octets]).into_owned());
                    }
                    Effect::Media { command, .. } => served(|| self.media.command(self.now, command, &mut self.media_out)),
                    Effect::Fetch { ticket, query } => self.questions.push_back((ticket, query)),
                    Effect::Record(record) => drop(black_box(record)),
                    Effect::Registered { user, .. } => panic!("there is one core: {user}"),
                    Effect::Dropped { cause, .. } => panic!("what the ends send can be read: {cause}"),
                }
            }
            self.out.clear();
            for effect in self.media_out.effects.drain(..) {
                if let MediaEffect::Tell(report) = effect {
                    self.reports.push_back(report);
                }
            }
            if let Some((ticket, query)) = self.questions.pop_front() {
                let answer = match query {
                    Query::Waiting { .. } => Fetched::Waiting(Vec::new()),
                    _ => Fetched::Document(Document::Absent),
                };
                self.signalling.fetched(self.now, ticket, answer, &mut self.out);
            } else if let Some(report) = self.reports.pop_front() {
                served(|| self.signalling.reported(self.now, report, &mut self.out));
            } else if self.out.effects.is_empty() {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        served(|| {
            if self.signalling.next_due().is_some_and(|due| due <= self.now) {
                self.signalling.due(self.now, &mut self.out);
            }
            if self.media.next_due().is_some_and(|due| due <= self.now) {
                self.media.due(self.now, &mut self.media_out);
            }
        });
        self.carry_out();
        self.sent.clear();
    }

    /// INVITE to ACK; the BYE that ends it.
    fn call(&mut self, number: usize) -> String {
        let sent = self.receive(CALLER, &invite(number));
        let at_target = sent.iter().find(|text| text.starts_with("INVITE")).expect("the INVITE goes on");
        let sent = self.receive(CALLED, &ok(at_target, &sdp("28550", "called")));
        let answer = sent.iter().find(|text| text.starts_with("SIP/2.0 200")).expect("the call is answered");
        let (ack, bye) = (in_dialog("ACK", 1, number, answer), in_dialog("BYE", 2, number, answer));
        self.receive(CALLER, &ack);
        bye
    }

    fn hang_up(&mut self, bye: &str) {
        for text in self.receive(CALLER, bye).iter().filter(|text| text.starts_with("BYE")) {
            self.receive(CALLED, &ok(text, ""));
        }
    }
}

/// What is counted of a program that also plays the peers.
#[inline(never)]
fn served<R>(work: impl FnOnce() -> R) -> R {
    let before = [ALLOCATIONS.load(Relaxed), OCTETS.load(Relaxed)];
    let done = work();
    COUNTED[0].fetch_add(ALLOCATIONS.load(Relaxed) - before[0], Relaxed);
    COUNTED[1].fetch_add(OCTETS.load(Relaxed) - before[1], Relaxed);
    done
}

static COUNTED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

fn sdp(port: &str, session: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=message {port} TCP/MSRP *\r\n\
         a=accept-types:message/cpim text/plain application/im-iscomposing+xml\r\na=accept-wrapped-types:*\r\n\
         a=path:msrp://127.0.0.1:{port}/{session};tcp\r\na=setup:active\r\na=sendrecv\r\na=msrp-cema\r\n"
    )
}

fn invite(number: usize) -> String {
    let body = sdp("9", "caller");
    format!(
        "INVITE sip:bob@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bK-{number}-i\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@example.net>;tag=f{number}\r\nTo: <sip:bob@example.net>\r\nCall-ID: {number}@bench\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:alice@{CALLER};transport=udp>\r\n\
         Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"\r\n\
         P-Preferred-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session\r\nP-Asserted-Identity: <sip:alice@example.net>\r\n\
         P-Served-User: <sip:alice@example.net>;sescase=orig\r\nConversation-ID: c{number}\r\nContribution-ID: d{number}\r\n\
         Session-Expires: 1800;refresher=uac\r\nSupported: timer\r\nUser-Agent: CPM-client/OMA2.2 cpm-bench\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn read(text: &str) -> Incoming {
    Incoming::parse(text.as_bytes()).expect("what goes out can be read")
}

fn contact(message: &Message) -> &str {
    let value = message.header(Name::Contact).unwrap_or("");
    value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(value, |(uri, _)| uri)
}

fn in_dialog(method: &str, cseq: u32, number: usize, ok: &str) -> String {
    let ok = read(ok);
    let ok = ok.message();
    let value = |name| ok.header(name).unwrap_or("");
    format!(
        "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bK-{number}-{method}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\n\
         Call-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
        contact(ok),
        value(Name::From),
        value(Name::To),
        value(Name::CallId)
    )
}

fn ok(request: &str, body: &str) -> String {
    let request = read(request);
    let mut text = "SIP/2.0 200 OK\r\n".to_string();
    for name in [Name::Via, Name::RecordRoute, Name::From, Name::To, Name::CallId, Name::CSeq] {
        for value in request.message().lines(name) {
            let tag = if name == Name::To && !value.contains(";tag=") { ";tag=called" } else { "" };
            let _ = write!(text, "{}: {value}{tag}\r\n", name.as_str());
        }
    }
    let about = if body.is_empty() { "" } else { "Supported: timer\r\nContent-Type: application/sdp\r\n" };
    let _ = write!(text, "Contact: <sip:bob@{CALLED};transport=udp>\r\n{about}Content-Length: {}\r\n\r\n{body}", body.len());
    text
}

/// Octets of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<usize>().ok());
    let (standing, calls) = (arguments.next().unwrap_or(10_000), arguments.next().unwrap_or(2000));
    let mut world = World::new();
    world.pass(Duration::from_millis(1));
    // The first calls fill caches and buffers; at 800 calls a second.
    let pace = Duration::from_micros(1250);
    for number in 0..100 {
        let bye = world.call(number);
        world.hang_up(&bye);
    }
    world.pass(Duration::from_secs(60));

    let (live, memory) = (LIVE.load(Relaxed), resident());
    let mut byes = Vec::with_capacity(standing);
    for number in 0..standing {
        byes.push(world.call(1000 + number));
        world.pass(pace);
    }
    let texts: usize = byes.iter().map(String::capacity).sum::<usize>() + byes.capacity() * size_of::<String>();
    let fresh = LIVE.load(Relaxed) - live - texts as u64;
    let each = |octets: u64| octets / standing.max(1) as u64;
    println!("octets a standing session of two dialogs, media session and transactions included: {}", each(fresh));
    println!("  memory of the process a session: {}", each((resident() - memory).saturating_sub(texts as u64)));

    COUNTED.iter().for_each(|counter| counter.store(0, Relaxed));
    world.messages = 0;
    let live = LIVE.load(Relaxed);
    for number in 0..calls {
        let bye = world.call(10_000_000 + number);
        world.pass(pace);
        world.hang_up(&bye);
    }
    let of_call = |count: u64| count as f64 / calls.max(1) as f64;
    let [allocations, octets] = [0, 1].map(|at| of_call(COUNTED[at].load(Relaxed)));
    println!(
        "a call, with {standing} sessions standing: {allocations:.1} allocations, {octets:.0} octets, {:.1} messages",
        of_call(world.messages)
    );

    println!("octets kept of a call that has just ended: {:.0}", of_call(LIVE.load(Relaxed) - live));

    for bye in byes.drain(..) {
        world.hang_up(&bye);
    }
    drop(byes);
    for _ in 0..60 {
        world.pass(Duration::from_secs(2));
    }
    println!("at rest: {}, media idle: {}", world.signalling.left(), world.media.is_idle());
}
