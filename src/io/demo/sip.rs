//! A CPM client's SIP, as little as a demonstration needs: one UDP socket, one call at a time, text.

use super::Failure;
use super::ladder::{Ladder, Side};
use std::fmt::Write;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for one message; the proxy on loopback answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// A client.
pub struct Client {
    pub side: Side,
    pub address: SocketAddr,
    socket: UdpSocket,
    ladder: Arc<Ladder>,
    count: u32,
}

/// A message as text.
#[derive(Clone, Debug)]
pub struct Message(String);

impl Message {
    /// Values of a header, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let head = self.0.split("\r\n\r\n").next().unwrap_or("");
        let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(move |(field, _)| field.trim_end().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The first value of a header, or nothing.
    pub fn header<'a>(&'a self, name: &'a str) -> &'a str {
        self.all(name).next().unwrap_or("")
    }

    fn first_line(&self) -> &str {
        self.0.lines().next().unwrap_or("")
    }

    /// Status code of a response; 0: a request.
    pub fn status(&self) -> u16 {
        self.0.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
    }

    /// What stands on the ladder: the method, or status code and reason.
    fn name(&self) -> String {
        let line = self.first_line();
        line.strip_prefix("SIP/2.0 ").map_or_else(|| line.split(' ').next().unwrap_or("").to_owned(), str::to_owned)
    }

    /// The value of an SDP attribute, or nothing.
    pub fn attribute(&self, name: &str) -> &str {
        let attributes = self.0.lines().filter_map(|line| line.trim_end().strip_prefix("a="));
        attributes.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')).next().unwrap_or("")
    }

    fn contact(&self) -> &str {
        let value = self.header("Contact");
        value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(value, |(uri, _)| uri)
    }
}

impl Client {
    /// A client on a loopback port.
    pub fn new(side: Side, ladder: Arc<Ladder>) -> Result<Self, Failure> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { side, address: socket.local_addr()?, socket, ladder, count: 0 })
    }

    fn send(&self, to: SocketAddr, text: &str) -> Result<(), Failure> {
        self.ladder.sent(self.side, &Message(text.to_owned()).name());
        self.socket.send_to(text.as_bytes(), to)?;
        Ok(())
    }

    fn receive(&self) -> Result<(Message, SocketAddr), Failure> {
        let mut buffer = vec![0; 65_536];
        let (octets, from) = loop {
            match self.socket.recv_from(&mut buffer) {
                Ok(came) => break came,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure(format!("{:?} waited for SIP: {error}", self.side))),
            }
        };
        let message = Message(String::from_utf8_lossy(&buffer[..octets]).into_owned());
        self.ladder.came(self.side, &message.name());
        Ok((message, from))
    }

    /// The next request of that method.
    pub fn expect(&self, method: &str) -> Result<(Message, SocketAddr), Failure> {
        loop {
            let (message, from) = self.receive()?;
            if message.first_line().starts_with(method) {
                return Ok((message, from));
            }
        }
    }

    fn expect_final(&self) -> Result<Message, Failure> {
        loop {
            let (message, _) = self.receive()?;
            match message.status() {
                0..200 => {}
                200..300 => return Ok(message),
                _ => return Err(Failure(format!("refused: {}", message.first_line()))),
            }
        }
    }

    /// Invites bob to a CPM service with an SDP offer and acknowledges the answer. Gives back the 200.
    pub fn invite(&mut self, proxy: SocketAddr, service: &str, offer: &str) -> Result<Message, Failure> {
        let (address, call) = (self.address, format!("{service}-{}", self.address.port()));
        let icsi = format!("+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.{service}\"");
        self.count += 1;
        let text = format!(
            "INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{call};rport\r\nMax-Forwards: 70\r\n\
             Route: <sip:term@{proxy};lr>\r\nFrom: <sip:alice@example.net>;tag=alice{call}\r\nTo: <sip:bob@example.net>\r\n\
             Call-ID: {call}\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@{address}>;{icsi}\r\nAccept-Contact: *;{icsi}\r\n\
             P-Asserted-Identity: <sip:alice@example.net>\r\nP-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.{service}\r\n\
             Conversation-ID: conversation-{call}\r\nContribution-ID: contribution-{call}\r\nSession-Expires: 1800;refresher=uac\r\n\
             Supported: timer\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE, OPTIONS\r\nUser-Agent: CPM-client/OMA2.2\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{offer}",
            offer.len()
        );
        self.send(proxy, &text)?;
        let ok = self.expect_final()?;
        let ack = self.in_dialog("ACK", &ok, 1);
        self.send(proxy, &ack)?;
        Ok(ok)
    }

    /// Ends the call that `ok` confirmed.
    pub fn bye(&mut self, proxy: SocketAddr, ok: &Message) -> Result<(), Failure> {
        let bye = self.in_dialog("BYE", ok, 2);
        self.send(proxy, &bye)?;
        self.expect_final().map(drop)
    }

    fn in_dialog(&mut self, method: &str, ok: &Message, cseq: u32) -> String {
        self.count += 1;
        let mut routes: Vec<&str> = ok.all("Record-Route").flat_map(|line| line.split(',')).map(str::trim).collect();
        routes.reverse();
        let routes = routes.iter().fold(String::new(), |mut text, route| {
            let _ = write!(text, "Route: {route}\r\n");
            text
        });
        format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK{}x{};rport\r\nMax-Forwards: 70\r\n{routes}From: {}\r\nTo: {}\r\n\
             Call-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
            ok.contact(),
            self.address,
            self.address.port(),
            self.count,
            ok.header("From"),
            ok.header("To"),
            ok.header("Call-ID")
        )
    }

    /// Answers a request with 200; an INVITE gets an SDP answer and a Contact.
    pub fn answer(&self, request: &Message, to: SocketAddr, sdp: Option<&str>) -> Result<(), Failure> {
        let copy = |name: &str| {
            request.all(name).fold(String::new(), |mut text, value| {
                let _ = write!(text, "{name}: {value}\r\n");
                text
            })
        };
        let tag = if request.header("To").contains(";tag=") { String::new() } else { format!(";tag=bob{}", self.address.port()) };
        let mut text = format!(
            "SIP/2.0 200 OK\r\n{}{}From: {}\r\nTo: {}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n",
            copy("Via"),
            copy("Record-Route"),
            request.header("From"),
            request.header("To"),
            request.header("Call-ID"),
            request.header("CSeq")
        );
        if let Some(sdp) = sdp {
            let _ = write!(
                text,
                "Contact: <sip:bob@{}>\r\nUser-Agent: CPM-client/OMA2.2\r\nContent-Type: application/sdp\r\n",
                self.address
            );
            let _ = write!(text, "Content-Length: {}\r\n\r\n{sdp}", sdp.len());
        } else {
            text += "Content-Length: 0\r\n\r\n";
        }
        self.send(to, &text)
    }
}

/// SDP of a client that connects to the other side (`a=setup:active`, RFC 6135) and names itself `id`.
pub fn sdp(id: &str, direction: &str, more: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=message 9 TCP/MSRP *\r\na=accept-types:message/cpim text/plain application/octet-stream\r\n\
         a=accept-wrapped-types:*\r\na=path:msrp://127.0.0.1:9/{id};tcp\r\na=setup:active\r\na=msrp-cema\r\na={direction}\r\n{more}"
    )
}
