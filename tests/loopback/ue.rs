//! A SIP user agent to script a ladder with: what it sends stands in the test, what it gets is checked there. It shares no code with
//! the proxy.

use crate::proxy::PATIENCE;
use crate::secure::Stream;
use crate::tape::Tape;
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A SIP message as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(pub String);

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Message {
    pub fn first_line(&self) -> &str {
        self.0.lines().next().unwrap_or("")
    }

    /// Method of a request; "" for a response.
    pub fn method(&self) -> &str {
        if self.0.starts_with("SIP/2.0 ") { "" } else { self.0.split(' ').next().unwrap_or("") }
    }

    pub fn uri(&self) -> &str {
        self.0.split(' ').nth(1).unwrap_or("")
    }

    pub fn status(&self) -> u16 {
        self.0.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let head = self.0.split("\r\n\r\n").next().unwrap_or("");
        head.split("\r\n").skip(1).filter_map(move |line| {
            line.split_once(':').filter(|(key, _)| key.trim_end().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next().unwrap_or("");
        head.split("\r\n").skip(1).find_map(|line| {
            line.split_once(':').filter(|(key, _)| key.trim_end().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
        })
    }

    /// The header, which must be there.
    #[track_caller]
    pub fn want(&self, name: &str) -> &str {
        self.header(name).unwrap_or_else(|| panic!("no {name} in\n{self:?}"))
    }

    pub fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// Values of an SDP attribute ("" for a flag), in order.
    pub fn attributes(&self, name: &str) -> Vec<&str> {
        let lines = self.body().lines().filter_map(|line| line.trim_end().strip_prefix("a="));
        lines.filter_map(|line| if line == name { Some("") } else { line.strip_prefix(name)?.strip_prefix(':') }).collect()
    }

    /// The value of an SDP attribute that must be there exactly once.
    #[track_caller]
    pub fn attribute(&self, name: &str) -> &str {
        let values = self.attributes(name);
        assert_eq!(values.len(), 1, "a={name} should stand once in\n{self:?}");
        values[0]
    }

    /// The URI of a header that holds a name-addr.
    #[track_caller]
    pub fn uri_in(&self, name: &str) -> &str {
        let value = self.want(name);
        value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(value, |(uri, _)| uri)
    }

    /// Host and port of the URI in `a=path`.
    #[track_caller]
    pub fn msrp_address(&self) -> SocketAddr {
        let path = self.attribute("path");
        path.split("//")
            .nth(1)
            .and_then(|rest| rest.split('/').next())
            .and_then(|authority| authority.parse().ok())
            .unwrap_or_else(|| panic!("{path}"))
    }
}

enum Wire {
    /// With the TCP port of the same number, at which nobody listens.
    Udp(UdpSocket, Socket),
    Tcp {
        listener: TcpListener,
        streams: Vec<(TcpStream, Vec<u8>)>,
    },
    /// One connection of its own making.
    Tls(Box<Stream>, Vec<u8>),
}

/// Messages a user agent remembers in order to know a retransmission.
const HEARD_MAX: usize = 64;

/// A SIP endpoint on a loopback port.
pub struct Ue {
    pub name: String,
    pub address: SocketAddr,
    wire: Wire,
    /// Came while something else was waited for.
    kept: VecDeque<(Message, SocketAddr)>,
    count: u32,
    /// Call-IDs of the INVITEs that [`Ue::expect_call`] gave.
    calls: BTreeSet<String>,
    /// What came lately. Octets that come again are a retransmission, which a user agent's transactions absorb (RFC 3261 17).
    heard: VecDeque<String>,
    /// Retransmissions are handed to the test like everything else.
    pub hears_retransmissions: bool,
    /// How long it waits for a message.
    pub patience: Duration,
    /// Where what it says and hears is noted.
    pub tape: Option<Tape>,
}

impl Ue {
    /// Over UDP.
    pub fn udp(name: &str) -> Ue {
        Self::udp_at(name, "127.0.0.1:0")
    }

    /// Over UDP at an address of the test's choice.
    pub fn udp_at(name: &str, at: &str) -> Ue {
        // A large request is tried over TCP first: there it has to be refused, and not taken by a listener of another test.
        let pair = (0..100).find_map(|_| {
            let udp = UdpSocket::bind(at).expect("a loopback port");
            let address = udp.local_addr().expect("bound");
            let tcp = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
            tcp.bind(&address.into()).is_ok().then_some((udp, tcp))
        });
        let (udp, tcp) = pair.expect("a port that is free for both");
        let address = udp.local_addr().expect("bound");
        Self::over(name, address, Wire::Udp(udp, tcp))
    }

    fn over(name: &str, address: SocketAddr, wire: Wire) -> Ue {
        Ue {
            name: name.into(),
            address,
            wire,
            kept: VecDeque::new(),
            count: 0,
            calls: BTreeSet::new(),
            heard: VecDeque::new(),
            hears_retransmissions: false,
            patience: PATIENCE,
            tape: None,
        }
    }

    /// Over TCP: listens, and connects where it sends first.
    pub fn tcp(name: &str) -> Ue {
        Self::tcp_at(name, "127.0.0.1:0")
    }

    /// Over TCP at an address of the test's choice, from which it connects, too.
    pub fn tcp_at(name: &str, at: &str) -> Ue {
        let listener = TcpListener::bind(at).expect("a loopback port");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = listener.local_addr().expect("bound");
        Self::over(name, address, Wire::Tcp { listener, streams: Vec::new() })
    }

    /// Over a TLS connection that is there already.
    pub fn tls(name: &str, stream: Stream) -> Ue {
        let address = stream.sock.local_addr().expect("connected");
        Self::over(name, address, Wire::Tls(Box::new(stream), Vec::new()))
    }

    /// Listens over TCP, at the port of the same number.
    pub fn listen_beside(&self) -> TcpListener {
        let Wire::Udp(_, tcp) = &self.wire else { panic!("{} speaks TCP already", self.name) };
        tcp.listen(16).and_then(|()| tcp.try_clone()).expect("the port is ours").into()
    }

    /// Connections that its peers have not closed.
    pub fn connections(&self) -> usize {
        let Wire::Tcp { streams, .. } = &self.wire else { return 0 };
        let open = |stream: &TcpStream| !matches!(stream.peek(&mut [0]), Ok(0));
        streams.iter().filter(|(stream, _)| open(stream)).count()
    }

    /// Whether its peer has ended its TLS connection, in good order.
    pub fn is_closed(&mut self) -> bool {
        let Wire::Tls(stream, held) = &mut self.wire else { return false };
        stream.sock.set_nonblocking(false).expect("a socket can be blocking");
        stream.read_to_end(held).is_ok()
    }

    pub fn transport(&self) -> &'static str {
        match self.wire {
            Wire::Udp(..) => "UDP",
            Wire::Tcp { .. } => "TCP",
            Wire::Tls(..) => "TLS",
        }
    }

    /// Sends text as it is (line ends `\n` become `\r\n`).
    pub fn send(&mut self, to: SocketAddr, text: &str) {
        let text = if text.contains("\r\n") { text.to_owned() } else { text.replace('\n', "\r\n") };
        self.send_octets(to, text.as_bytes());
    }

    pub fn send_octets(&mut self, to: SocketAddr, octets: &[u8]) {
        if let Some(tape) = &self.tape {
            tape.note(&self.name, &to.to_string(), &String::from_utf8_lossy(octets));
        }
        match &mut self.wire {
            Wire::Udp(socket, _) => {
                socket.send_to(octets, to).expect("loopback takes a datagram");
            }
            Wire::Tls(stream, _) => {
                stream.sock.set_nonblocking(false).expect("a socket can be blocking");
                stream.write_all(octets).and_then(|()| stream.flush()).expect("the connection is open");
            }
            Wire::Tcp { streams, .. } => {
                let at =
                    streams.iter().position(|(stream, _)| stream.peer_addr().is_ok_and(|peer| peer == to)).unwrap_or_else(|| {
                        let stream = connect_from(SocketAddr::new(self.address.ip(), 0), to);
                        stream.set_nonblocking(true).expect("a socket can be non-blocking");
                        streams.push((stream, Vec::new()));
                        streams.len() - 1
                    });
                let mut rest = octets;
                while !rest.is_empty() {
                    match streams[at].0.write(rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    }

    /// What has come and is no retransmission, if anything.
    pub fn poll(&mut self) -> Option<(Message, SocketAddr)> {
        let mut came = self.receive()?;
        while !self.hears_retransmissions && self.heard.contains(&came.0.0) {
            came = self.receive()?;
        }
        let (message, from) = came;
        if self.heard.len() == HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(message.0.clone());
        Some((message, from))
    }

    fn receive(&mut self) -> Option<(Message, SocketAddr)> {
        let mut buffer = vec![0; 65_536];
        match &mut self.wire {
            Wire::Udp(socket, _) => {
                socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket has a time limit");
                let (read, from) = socket.recv_from(&mut buffer).ok()?;
                Some((Message(String::from_utf8_lossy(&buffer[..read]).into_owned()), from))
            }
            Wire::Tls(stream, held) => {
                stream.sock.set_nonblocking(true).expect("a socket can be non-blocking");
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    held.extend_from_slice(&buffer[..read]);
                }
                let message = split(held);
                if message.is_none() {
                    std::thread::yield_now();
                }
                Some((message?, stream.sock.peer_addr().ok()?))
            }
            Wire::Tcp { listener, streams } => {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).expect("a socket can be non-blocking");
                    streams.push((stream, Vec::new()));
                }
                for (stream, held) in streams.iter_mut() {
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        held.extend_from_slice(&buffer[..read]);
                    }
                    if let Some(message) = split(held) {
                        let from = stream.peer_addr().unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
                        return Some((message, from));
                    }
                }
                std::thread::yield_now();
                None
            }
        }
    }

    /// The next message for which `wanted` holds; others are kept for later, in order.
    #[track_caller]
    pub fn next(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> (Message, SocketAddr) {
        if let Some(found) = self.find(wanted) {
            if let Some(tape) = &self.tape {
                tape.note(&found.1.to_string(), &self.name, &found.0.0);
            }
            return found;
        }
        let kept: Vec<&str> = self.kept.iter().map(|(message, _)| message.first_line()).collect();
        panic!("{} waited in vain for {what}; it got {kept:?}", self.name);
    }

    fn find(&mut self, wanted: impl Fn(&Message) -> bool) -> Option<(Message, SocketAddr)> {
        let until = Instant::now() + self.patience;
        if let Some(at) = self.kept.iter().position(|(message, _)| wanted(message)) {
            return self.kept.remove(at);
        }
        while Instant::now() < until {
            match self.poll() {
                Some(found) if wanted(&found.0) => return Some(found),
                Some(other) => self.kept.push_back(other),
                None => {}
            }
        }
        None
    }

    /// The next message for which `wanted` holds; None when `stop` is set before it comes.
    pub fn until(&mut self, stop: &AtomicBool, wanted: impl Fn(&Message) -> bool) -> Option<(Message, SocketAddr)> {
        if let Some(at) = self.kept.iter().position(|(message, _)| wanted(message)) {
            return self.kept.remove(at);
        }
        let until = Instant::now() + PATIENCE;
        while !stop.load(Ordering::Relaxed) && Instant::now() < until {
            match self.poll() {
                Some(found) if wanted(&found.0) => return Some(found),
                Some(other) => self.kept.push_back(other),
                None => {}
            }
        }
        None
    }

    /// The next request of that method.
    #[track_caller]
    pub fn expect(&mut self, method: &str) -> Message {
        self.expect_from(method).0
    }

    #[track_caller]
    pub fn expect_from(&mut self, method: &str) -> (Message, SocketAddr) {
        self.next(method, |message| message.method() == method)
    }

    /// The next INVITE of a call that was not seen here yet: one that nobody answers comes again.
    #[track_caller]
    pub fn expect_call(&mut self) -> (Message, SocketAddr) {
        let seen = std::mem::take(&mut self.calls);
        let is_new = |message: &Message| message.method() == "INVITE" && !seen.contains(message.want("Call-ID"));
        let found = self.next("INVITE", is_new);
        self.calls = seen;
        self.calls.insert(found.0.want("Call-ID").to_owned());
        found
    }

    /// The BYE of this call: that of an earlier one may come again.
    #[track_caller]
    pub fn expect_bye(&mut self, of: &Message) -> (Message, SocketAddr) {
        self.next("BYE", |message| message.method() == "BYE" && message.header("Call-ID") == of.header("Call-ID"))
    }

    /// The final answer to this request: one to another may come again.
    #[track_caller]
    pub fn final_answer(&mut self, request: &Message) -> Message {
        let (call, cseq) = (request.want("Call-ID"), request.want("CSeq"));
        let answers = |message: &Message| {
            message.status() >= 200 && message.header("Call-ID") == Some(call) && message.header("CSeq") == Some(cseq)
        };
        self.next(&format!("an answer to {}", request.method()), answers).0
    }

    /// The next response of that status; an unexpected final to the same method fails at once.
    #[track_caller]
    pub fn expect_status(&mut self, status: u16) -> Message {
        let (message, _) =
            self.next(&status.to_string(), |message| message.status() == status || (status >= 200 && message.status() >= 200));
        assert_eq!(message.status(), status, "{} got\n{message:?}", self.name);
        message
    }

    /// As [`Ue::expect_status`], of this INVITE: a final answer to an earlier one may come again.
    #[track_caller]
    pub fn expect_answer(&mut self, invite: &Invite, status: u16) -> Message {
        let is_final = |message: &Message| {
            message.status() >= 200 && invite.get("Call-ID").is_none_or(|call| message.header("Call-ID") == Some(call))
        };
        let (message, _) = self.next(&status.to_string(), is_final);
        assert_eq!(message.status(), status, "{} got\n{message:?}", self.name);
        message
    }

    /// Nothing for which `unwanted` holds has come by the time the proxy has answered an OPTIONS of ours: what it did before
    /// that is all there is. An INVITE that [`Ue::expect_call`] gave may come again.
    #[track_caller]
    pub fn nothing(&mut self, proxy: SocketAddr, what: &str, unwanted: impl Fn(&Message) -> bool) {
        self.count += 1;
        let call = format!("probe-{}-{}", self.address.port(), self.count);
        let probe = format!(
            "OPTIONS sip:{proxy} SIP/2.0\nVia: SIP/2.0/{} {};branch=z9hG4bK{call};rport\nMax-Forwards: 70\nFrom: <sip:probe@example.net>;tag=p\nTo: <sip:{proxy}>\nCall-ID: {call}\nCSeq: 1 OPTIONS\nContent-Length: 0\n\n",
            self.transport(),
            self.address
        );
        self.send(proxy, &probe);
        self.next("the answer to a probe", |message| message.header("Call-ID") == Some(&call) && message.status() >= 200);
        let again = |message: &Message| message.method() == "INVITE" && self.calls.contains(message.want("Call-ID"));
        if let Some((message, _)) = self.kept.iter().find(|(message, _)| unwanted(message) && !again(message)) {
            panic!("{} got {what}:\n{message:?}", self.name);
        }
    }

    /// Messages that came and were not waited for.
    pub fn kept(&self) -> impl Iterator<Item = &Message> {
        self.kept.iter().map(|(message, _)| message)
    }

    /// Answers a request: the lines that are copied, `extra` header lines, and a body (its Content-Type among `extra`).
    pub fn answer(&mut self, request: &Message, to: SocketAddr, line: &str, extra: &str, body: &str) {
        let text = response(request, line, &format!("t{}", self.address.port()), extra, body);
        self.send(to, &text);
    }

    /// ACK for a final response to `invite`.
    pub fn ack(&mut self, to: SocketAddr, invite: &Message, response: &Message) {
        let ack = if response.status() >= 300 {
            let via = invite.want("Via");
            let routes: String = invite.all("Route").fold(String::new(), |mut text, route| {
                let _ = write!(text, "Route: {route}\r\n");
                text
            });
            format!(
                "ACK {} SIP/2.0\r\nVia: {via}\r\nMax-Forwards: 70\r\n{routes}From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} ACK\r\nContent-Length: 0\r\n\r\n",
                invite.uri(),
                response.want("From"),
                response.want("To"),
                response.want("Call-ID"),
                response.want("CSeq").split(' ').next().unwrap_or("1")
            )
        } else {
            self.in_dialog("ACK", response, 0)
        };
        self.send(to, &ack);
    }

    /// A request in the dialog that our INVITE's 2xx made; `step` is added to the INVITE's CSeq.
    pub fn in_dialog(&mut self, method: &str, ok: &Message, step: u32) -> String {
        self.count += 1;
        let cseq: u32 = ok.want("CSeq").split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(1);
        let mut routes: Vec<&str> = ok.all("Record-Route").flat_map(|line| line.split(',')).map(str::trim).collect();
        routes.reverse();
        let mut text = format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bKd{}x{};rport\r\nMax-Forwards: 70\r\n",
            ok.uri_in("Contact"),
            self.transport(),
            self.address,
            self.address.port(),
            self.count
        );
        for route in routes {
            let _ = write!(text, "Route: {route}\r\n");
        }
        let _ = write!(
            text,
            "From: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {method}\r\nContent-Length: 0\r\n\r\n",
            ok.want("From"),
            ok.want("To"),
            ok.want("Call-ID"),
            cseq + step
        );
        text
    }

    /// A request of the called party in the dialog that `invite` began and our answer confirmed.
    pub fn in_dialog_back(&mut self, method: &str, invite: &Message, cseq: u32) -> String {
        self.count += 1;
        let mut text = format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/{} {};branch=z9hG4bKe{}x{};rport\r\nMax-Forwards: 70\r\n",
            invite.uri_in("Contact"),
            self.transport(),
            self.address,
            self.address.port(),
            self.count
        );
        for route in invite.all("Record-Route").flat_map(|line| line.split(',')).map(str::trim) {
            let _ = write!(text, "Route: {route}\r\n");
        }
        let _ = write!(
            text,
            "From: {};tag=t{}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
            invite.want("To"),
            self.address.port(),
            invite.want("From"),
            invite.want("Call-ID")
        );
        text
    }
}

/// A connection whose own end is at that address.
fn connect_from(own: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(own), Type::STREAM, None).expect("a socket");
    socket.bind(&own.into()).expect("a loopback address");
    socket.connect(&to.into()).expect("the peer listens");
    socket.into()
}

/// A response to `request`; `tag` goes to a To that has none.
pub fn response(request: &Message, line: &str, tag: &str, extra: &str, body: &str) -> String {
    let mut text = format!("SIP/2.0 {line}\r\n");
    for via in request.all("Via") {
        let _ = write!(text, "Via: {via}\r\n");
    }
    for route in request.all("Record-Route") {
        let _ = write!(text, "Record-Route: {route}\r\n");
    }
    let to = request.want("To");
    let tag = if to.contains(";tag=") || line.starts_with("100") { String::new() } else { format!(";tag={tag}") };
    let extra = extra.replace("\r\n", "\n").replace('\n', "\r\n");
    let _ = write!(
        text,
        "From: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n{extra}Content-Length: {}\r\n\r\n{body}",
        request.want("From"),
        request.want("Call-ID"),
        request.want("CSeq"),
        body.len()
    );
    text
}

/// Takes the first whole message off a stream's octets.
pub fn split(held: &mut Vec<u8>) -> Option<Message> {
    let end = held.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = Message(String::from_utf8_lossy(&held[..end]).into_owned());
    let length: usize = head.header("Content-Length").and_then(|text| text.parse().ok()).unwrap_or(0);
    if held.len() < end + length {
        return None;
    }
    let message = Message(String::from_utf8_lossy(&held[..end + length]).into_owned());
    held.drain(..end + length);
    Some(message)
}

/// An INVITE to be varied by the test: lines in order, replaced, added or removed by header name.
#[derive(Clone, Debug)]
pub struct Invite {
    pub uri: String,
    pub lines: Vec<(String, String)>,
    pub body: String,
}

/// Which CPM service an [`Invite`] asks for.
pub const LARGE: &str = "largemsg";
pub const SESSION: &str = "session";

impl Invite {
    /// From alice to `to` through the proxy, for a CPM service, with an MSRP offer.
    pub fn new(ue: &Ue, to: &str, service: &str) -> Invite {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = ue.address.port();
        let call = format!("call-{port}-{count}");
        let lines = [
            ("Via", format!("SIP/2.0/{} {};branch=z9hG4bK{call};rport", ue.transport(), ue.address)),
            ("Max-Forwards", "70".into()),
            ("From", format!("<sip:alice@example.net>;tag=f{count}")),
            ("To", format!("<{to}>")),
            ("Call-ID", call.clone()),
            ("CSeq", "1 INVITE".into()),
            (
                "Contact",
                format!(
                    "<sip:alice@{};transport={}>;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.{service}\"",
                    ue.address,
                    ue.transport().to_lowercase()
                ),
            ),
            ("Accept-Contact", format!("*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.{service}\"")),
            ("P-Preferred-Service", format!("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.{service}")),
            ("P-Asserted-Identity", "<sip:alice@example.net>".into()),
            ("P-Served-User", "<sip:alice@example.net>;sescase=orig".into()),
            ("Conversation-ID", format!("conversation-{count}")),
            ("Contribution-ID", format!("contribution-{count}")),
            ("Session-Expires", "1800;refresher=uac".into()),
            ("Supported", "timer".into()),
            ("User-Agent", "CPM-client/OMA2.2 test/1.0".into()),
            ("Content-Type", "application/sdp".into()),
        ];
        let direction = if service.starts_with(LARGE) { "a=sendonly\r\na=file-selector:size:4092\r\n" } else { "a=sendrecv\r\n" };
        let body = format!(
            "v=0\r\no=alice 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=message 9 TCP/MSRP *\r\na=accept-types:message/cpim text/plain\r\na=accept-wrapped-types:*\r\na=path:msrp://127.0.0.1:9/alice{port}x{count};tcp\r\na=setup:actpass\r\na=msrp-cema\r\n{direction}"
        );
        Invite { uri: to.to_owned(), lines: lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(), body }
    }

    /// The same as the terminating side gets it: served user `to`.
    pub fn terminating(self) -> Invite {
        let to = self.uri.clone();
        let service = self.get("P-Preferred-Service").unwrap_or_default().to_owned();
        self.without("P-Preferred-Service")
            .with("P-Asserted-Service", &service)
            .with("P-Served-User", &format!("<{to}>;sescase=term"))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Replaces a header, or adds it.
    pub fn with(mut self, name: &str, value: &str) -> Invite {
        match self.lines.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value.to_owned(),
            None => self.lines.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Adds a header line after those of the same name.
    pub fn add(mut self, name: &str, value: &str) -> Invite {
        self.lines.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Invite {
        self.lines.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Replaces text in the SDP.
    #[track_caller]
    pub fn sdp(mut self, old: &str, new: &str) -> Invite {
        assert!(self.body.contains(old), "no {old:?} in the offer");
        self.body = self.body.replace(old, new);
        self
    }

    pub fn text(&self) -> String {
        let mut text = format!("INVITE {} SIP/2.0\r\n", self.uri);
        for (name, value) in &self.lines {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "Content-Length: {}\r\n\r\n{}", self.body.len(), self.body);
        text
    }

    pub fn message(&self) -> Message {
        Message(self.text())
    }
}

/// SDP of an answerer at `msrp`, in the role `setup` (of the answerer).
pub fn answer_sdp(msrp: SocketAddr, id: &str, setup: &str, direction: &str) -> String {
    format!(
        "v=0\r\no=bob 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=message {port} TCP/MSRP *\r\na=accept-types:message/cpim text/plain\r\na=path:msrp://{msrp}/{id};tcp\r\na=setup:{setup}\r\na={direction}\r\na=msrp-cema\r\n",
        port = msrp.port()
    )
}
