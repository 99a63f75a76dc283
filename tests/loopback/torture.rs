//! RFC 4475 and RFC 5118: every message of theirs sent to the running program, over UDP and over TCP, and what came back beside
//! what they say should. The table is `docs/torture.txt`; `TORTURE_BLESS=1 cargo test --test loopback torture` writes it.

use crate::proxy::Proxy;
use crate::stream::Stream;
use crate::ue::{Message, Ue};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The head of the table.
const HEAD: &str =
    "RFC 4475 and RFC 5118: every message of theirs sent to the running program, over UDP and over TCP: the status that the RFCs
ask for, and what came back. 486 is what the far side answers to all that is passed on; 0 is no answer (a response, an ACK, or
a stream that waits for the rest). How each message is read: tests/vectors/torture/expected.txt.
Written by: TORTURE_BLESS=1 cargo test --test loopback torture

";

/// What the far side answers to all that reaches it: shows that a message was taken and passed on.
const REACHED: u16 = 486;

/// What is not passed on: status over UDP and over TCP; 0: no answer.
const ANSWERS: &[(&str, u16, u16)] = &[
    ("rfc4475/badaspec", 400, 400),
    ("rfc4475/baddn", 400, 400),
    ("rfc4475/badinv01", 400, 400),
    ("rfc4475/badvers", 505, 505),
    ("rfc4475/bcast", 0, 0),
    // §3.3.15: Proxy-Require with what no proxy supports.
    ("rfc4475/bext01", 420, 420),
    ("rfc4475/bigcode", 0, 0),
    // §3.1.2.2: over a stream the rest may still come.
    ("rfc4475/clerr", 400, 0),
    ("rfc4475/escruri", 400, 400),
    ("rfc4475/insuf", 400, 400),
    ("rfc4475/ltgtruri", 400, 400),
    // Without Content-Length, which a stream needs.
    ("rfc4475/inv2543", REACHED, 400),
    ("rfc4475/lwsruri", 400, 400),
    ("rfc4475/lwsstart", 400, 400),
    ("rfc4475/mcl01", 400, 400),
    ("rfc4475/mismatch01", 400, 400),
    ("rfc4475/mismatch02", 501, 501),
    ("rfc4475/multi01", 400, 400),
    ("rfc4475/ncl", 400, 400),
    ("rfc4475/noreason", 0, 0),
    ("rfc4475/novelsc", 416, 416),
    ("rfc4475/quotbal", 400, 400),
    ("rfc4475/regbadct", 400, 400),
    ("rfc4475/scalar02", 400, 400),
    ("rfc4475/scalarlg", 0, 0),
    ("rfc4475/trws", 400, 400),
    ("rfc4475/unkscm", 416, 416),
    ("rfc4475/unreason", 0, 0),
    ("rfc4475/zeromf", 483, 483),
    // Of a dialog that is not ours, and not by a route through us.
    ("rfc4475/wsinv", 481, 481),
    ("rfc5118/ipv6-bad", 400, 400),
    // The Content-Length of §4.6 goes beyond its body.
    ("rfc5118/ipv6-in-sdp", 400, 0),
    ("rfc5118/mult-ip-in-header", 481, 481),
    ("rfc5118/via-received-param-with-delim", 481, 481),
];

fn messages() -> Vec<(String, Vec<u8>)> {
    let mut messages = Vec::new();
    for rfc in ["rfc4475", "rfc5118"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/torture").join(rfc);
        for entry in std::fs::read_dir(folder).expect("the vectors are in the repository") {
            let path = entry.expect("the folder can be read").path();
            let name = format!("{rfc}/{}", path.file_stem().expect("it has a name").to_string_lossy());
            messages.push((name, std::fs::read(&path).expect("the vector can be read")));
        }
    }
    messages.sort();
    // Many share branch, sent-by and Call-ID: sent one after another they would be one transaction.
    for (number, (_, octets)) in messages.iter_mut().enumerate() {
        // The end of a datagram ends a head; a stream needs the empty line.
        if memchr::memmem::find(octets, b"\r\n\r\n").is_none() {
            octets.extend_from_slice(b"\r\n");
        }
        *octets = replace(octets, b"<sip:127.0.0.1:5080>", b"<sip:far-side;lr>");
        for (shared, apart) in [("z9hG4bKas3", "z9hG4bKas3x"), ("z9hG4bKkdjuw", "z9hG4bKkdjuwx"), ("hlau_4100", "hlau_")] {
            *octets = replace(octets, shared.as_bytes(), format!("{apart}{number}").as_bytes());
        }
    }
    messages
}

fn replace(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, old) {
        whole.extend_from_slice(&rest[..at]);
        whole.extend_from_slice(new);
        rest = &rest[at + old.len()..];
    }
    whole.extend_from_slice(rest);
    whole
}

/// A header by its long or compact name, folded lines joined.
fn header(message: &Message, long: &str, compact: &str) -> Vec<String> {
    let head = message.0.split("\r\n\r\n").next().unwrap_or("").replace("\r\n ", " ").replace("\r\n\t", " ");
    let named = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim().to_ascii_lowercase();
        (name == long || name == compact).then(|| value.trim().to_owned())
    };
    head.split("\r\n").skip(1).filter_map(named).collect()
}

/// The far side: refuses all that comes, until it is told to stop.
fn far_side() -> (SocketAddr, Arc<AtomicBool>, std::thread::JoinHandle<()>) {
    let mut core = Ue::udp("core");
    let (address, stop) = (core.address, Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            let Some((message, from)) = core.poll() else { continue };
            if matches!(message.method(), "" | "ACK") {
                continue;
            }
            let mut answer = format!("SIP/2.0 {REACHED} Reached\r\n");
            for (long, compact) in [("via", "v"), ("from", "f"), ("to", "t"), ("call-id", "i"), ("cseq", "cseq")] {
                for value in header(&message, long, compact) {
                    let tag = if long == "to" && !value.contains(";tag=") { ";tag=core" } else { "" };
                    answer += &format!("{long}: {value}{tag}\r\n");
                }
            }
            core.send(from, &format!("{answer}Content-Length: 0\r\n\r\n"));
        }
    });
    (address, stop, thread)
}

/// Where answers to the vectors arrive: their Via headers name other ports of the sender's address than the one it sent from.
struct Source {
    sockets: Vec<UdpSocket>,
}

impl Source {
    fn new() -> Self {
        // An address of the loopback network for this process alone, so that the default port is free on it.
        let pid = std::process::id();
        let address = Ipv4Addr::new(127, 64 + (pid >> 16 & 63) as u8, (pid >> 8) as u8, (pid as u8).clamp(1, 254));
        let sockets =
            [5050, 5060, 5061, 5070, 6050, 19823].map(|port| UdpSocket::bind((address, port)).expect("the address is ours"));
        for socket in &sockets {
            socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a socket has a time limit");
        }
        Self { sockets: sockets.into() }
    }

    fn send(&self, to: SocketAddr, octets: &[u8]) {
        self.sockets[1].send_to(octets, to).expect("loopback takes a datagram");
    }

    /// The next datagram for which `wanted` holds, if one comes within a few rounds over the sockets.
    fn next(&self, rounds: usize, wanted: impl Fn(&Message) -> bool) -> Option<Message> {
        let mut buffer = vec![0; 65_536];
        for _ in 0..rounds {
            for socket in &self.sockets {
                let Ok(read) = crate::reading::undisturbed(|| socket.recv(&mut buffer)) else { continue };
                let message = Message(String::from_utf8_lossy(&buffer[..read]).into_owned());
                if wanted(&message) {
                    return Some(message);
                }
            }
        }
        None
    }
}

fn over_udp(pf: &Proxy, source: &Source, octets: &[u8], expected: u16) -> u16 {
    let call = |message: &Message| header(message, "call-id", "i").into_iter().next();
    let sent = call(&Message(String::from_utf8_lossy(octets).replace('\0', "")));
    let ours = |message: &Message| message.status() >= 200 && call(message) == sent;
    source.send(pf.udp, octets);
    // With an answer to come we wait for it; without, an OPTIONS behind it shows that the program is done with it.
    if expected == 0 {
        source.send(pf.udp, options(pf.udp, "UDP", "behind").as_bytes());
        let behind = |message: &Message| message.header("Call-ID") == Some("behind");
        let came = source.next(2_000, |message| ours(message) || behind(message)).expect("an OPTIONS is answered");
        return if behind(&came) { 0 } else { came.status() };
    }
    let Some(answer) = source.next(500, ours) else { return 0 };
    acknowledge(pf, source, octets, &answer);
    answer.status()
}

/// The ACK that ends the resending of a refusal.
fn acknowledge(pf: &Proxy, source: &Source, octets: &[u8], answer: &Message) {
    let value = |long, compact| header(answer, long, compact).into_iter().next();
    let (Some(via), Some(from), Some(to), Some(call), Some(cseq)) =
        (value("via", "v"), value("from", "f"), value("to", "t"), value("call-id", "i"), value("cseq", "cseq"))
    else {
        return;
    };
    let Some(number) = cseq.strip_suffix("INVITE") else { return };
    let text = String::from_utf8_lossy(octets);
    let uri = text.split_whitespace().nth(1).unwrap_or("sip:x");
    let via = via.split(";received").next().unwrap_or("");
    let ack = format!(
        "ACK {uri} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {number} ACK\r\nContent-Length: 0\r\n\r\n"
    );
    source.send(pf.udp, ack.as_bytes());
}

fn over_tcp(pf: &Proxy, octets: &[u8], expected: u16) -> u16 {
    let to = pf.tcp.expect("TCP is bound");
    let mut stream = Stream::connect(to);
    stream.write(octets);
    if expected == 0 {
        // What could be answered has been when another connection's request has.
        let mut probe = Stream::connect(to);
        probe.write(options(to, "TCP", "behind").as_bytes());
        assert_eq!(probe.status(), 200);
        stream.tcp.set_nonblocking(true).expect("a socket can be non-blocking");
        let mut buffer = [0; 64];
        return match std::io::Read::read(&mut stream.tcp, &mut buffer) {
            Ok(read @ 1..) => Message(String::from_utf8_lossy(&buffer[..read]).into_owned()).status(),
            _ => 0,
        };
    }
    loop {
        match stream.next() {
            Some(message) if message.status() < 200 => {}
            Some(message) => return message.status(),
            None => return 0,
        }
    }
}

/// An OPTIONS for the program itself.
pub fn options(to: SocketAddr, transport: &str, call: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.0.1;branch=z9hG4bKo{count};rport\r\nMax-Forwards: 70\r\nFrom: <sip:probe@example.net>;tag=p\r\nTo: <sip:{to}>\r\nCall-ID: {call}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn every_torture_message_is_served_or_refused_on_the_wire() {
    let (core, stop, thread) = far_side();
    // One each, since a message sent over both would be one transaction.
    let configuration = format!("[sip]\ncore = \"sip:{core};lr\"\n");
    let (pf, other) = (Proxy::start(&configuration), Proxy::start(&configuration));
    let source = Source::new();
    let mut wrong = Vec::new();
    let mut table = String::from(HEAD);
    let _ = writeln!(table, "{:45} {:>12} {:>5} {:>12} {:>5}", "message", "UDP expected", "got", "TCP expected", "got");
    for (name, octets) in messages() {
        let octets = replace(&octets, b"far-side", core.to_string().as_bytes());
        let (udp, tcp) =
            ANSWERS.iter().find(|(known, _, _)| *known == name).map_or((REACHED, REACHED), |(_, udp, tcp)| (*udp, *tcp));
        let got = (over_udp(&pf, &source, &octets, udp), over_tcp(&other, &octets, tcp));
        let _ = writeln!(table, "{name:45} {udp:>12} {:>5} {tcp:>12} {:>5}", got.0, got.1);
        if got != (udp, tcp) {
            wrong.push(name);
        }
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("the far side ends");
    for pf in [&pf, &other] {
        assert_eq!(pf.get("/healthz").0, 200);
        assert!(!pf.log().contains("panicked"), "a message reached a bug");
    }
    assert!(wrong.is_empty(), "not as the RFCs say: {wrong:?}\n{table}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/torture.txt");
    if std::env::var_os("TORTURE_BLESS").is_some() {
        return std::fs::write(path, table).expect("docs can be written");
    }
    assert_eq!(std::fs::read_to_string(path).expect("the table is in the repository"), table);
}
