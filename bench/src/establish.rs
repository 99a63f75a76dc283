//! Getting MSRP sessions through the thing under test: not at all, blindly, by SIP, or by AUTH with an RFC 4976 relay.

use crate::endpoint::{Endpoint, tune};
use crate::frame::{self, Event, Head, Reader};
use crate::scenario::{Scenario, Via};
use crate::secure::Certificates;
use crate::sip::{self, Message, Party};
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long one session may take to be set up.
const PATIENCE: Duration = Duration::from_secs(30);

/// BYEs that wait for their answers at a time, and how long nothing may move at the end.
const BYES: usize = 32;
const LAST_BYES: Duration = Duration::from_millis(300);

/// A session's two ends, and what ends it.
pub struct Session {
    pub caller: Endpoint,
    /// One for each called party.
    pub called: Vec<Endpoint>,
    /// The BYE, where SIP made the session.
    pub bye: Option<String>,
}

/// A connection, and the TLS session on it.
type Secured = (TcpStream, Option<rustls::Connection>);

/// Called parties by their Call-ID: our MSRP URI, and the proxy's.
type Parties = BTreeMap<String, (String, String)>;

/// A call by SIP that is being set up.
struct Call<'a> {
    id: String,
    caller: Party,
    called: Party,
    /// The caller's own MSRP URI.
    own: String,
    scheme: &'static str,
    /// Where the called parties take MSRP.
    host: String,
    port: u16,
    fingerprint: Option<&'a str>,
}

impl Call<'_> {
    /// What a called party answers; none: it says nothing.
    fn answer(&self, request: &Message<'_>, direction: &str, parties: &mut Parties) -> Option<String> {
        let invites = request.first_line().starts_with("INVITE ");
        if !invites || request.header("Conversation-ID", "") != format!("c{}", self.id) {
            return request.first_line().starts_with("BYE ").then(|| sip::ok(request, &self.called, ""));
        }
        let number = parties.len();
        let (own, peer) = parties.entry(request.header("Call-ID", "i").to_owned()).or_default();
        if own.is_empty() {
            *own = format!("{}://{}:{}/b{}n{number};tcp", self.scheme, self.host, self.port, self.id);
            *peer = request.attribute("path").unwrap_or("").to_owned();
        }
        let sdp = sip::sdp(&self.host, self.port, own, "passive", direction, self.fingerprint);
        Some(sip::ok(request, &self.called, &sdp))
    }
}

/// Sets sessions up, one after another.
pub struct Establisher<'s> {
    scenario: &'s Scenario,
    listener: Option<TcpListener>,
    caller_sip: Option<UdpSocket>,
    called_sip: Option<UdpSocket>,
    certificates: Option<Certificates>,
    run: String,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub fn listen(address: &str, congestion: &str) -> Result<TcpListener, String> {
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).map_err(text)?;
    socket.set_reuse_address(true).map_err(text)?;
    if !congestion.is_empty() {
        socket.set_tcp_congestion(congestion.as_bytes()).map_err(text)?;
    }
    socket.bind(&address.into()).map_err(|error| format!("{address}: {error}"))?;
    socket.listen(1024).map_err(text)?;
    Ok(socket.into())
}

impl<'s> Establisher<'s> {
    pub fn new(scenario: &'s Scenario) -> Result<Self, String> {
        let listener = match scenario.via {
            Via::Msrp => None,
            _ if scenario.addresses > 1 => {
                let port = scenario.called_msrp.rsplit(':').next().unwrap_or_default();
                Some(listen(&format!("0.0.0.0:{port}"), &scenario.congestion)?)
            }
            _ => Some(listen(&scenario.called_msrp, &scenario.congestion)?),
        };
        let socket = |address: &str| -> Result<UdpSocket, String> {
            let socket = UdpSocket::bind(address).map_err(|error| format!("{address}: {error}"))?;
            socket.set_read_timeout(Some(Duration::from_millis(200))).map_err(text)?;
            Ok(socket)
        };
        let (caller_sip, called_sip) = match scenario.via {
            Via::Sip => (Some(socket(&scenario.caller_sip)?), Some(socket(&scenario.called_sip)?)),
            _ => (None, None),
        };
        let certificates = scenario.tls.then(|| Certificates::load(&scenario.certificates)).transpose()?;
        Ok(Self { scenario, listener, caller_sip, called_sip, certificates, run: sip::run_name() })
    }

    /// Session number `index`, ready to carry messages from caller to called party.
    pub fn session(&mut self, index: usize) -> Result<Session, String> {
        match self.scenario.via {
            Via::Direct => self.blind(index, &self.scenario.called_msrp),
            Via::Tcp => self.blind(index, &self.scenario.relay),
            Via::Sip => self.by_sip(index),
            Via::Msrp => self.by_auth(index),
        }
    }

    /// The loopback address of a session, where they are spread.
    fn place(&self, index: usize) -> Option<Ipv4Addr> {
        let addresses = usize::from(self.scenario.addresses);
        (addresses > 1).then(|| Ipv4Addr::new(127, 0, 0, (index % addresses) as u8 + 1))
    }

    fn blind(&self, index: usize, to: &str) -> Result<Session, String> {
        let caller = connect(to, self.place(index), &self.scenario.congestion)?;
        let (caller, caller_tls) = self.secured(caller, true)?;
        let (called, _) = self.listener.as_ref().expect("made for this via").accept().map_err(text)?;
        let (called, called_tls) = self.secured(called, false)?;
        // As long as what a proxy's own URIs are, so that all relays carry the same octets.
        let (a, b) = (format!("msrp://127.0.0.1:9/a{index:0>33};tcp"), format!("msrp://127.0.0.1:28550/b{index:0>33};tcp"));
        self.ends((caller, caller_tls), (called, called_tls), a.clone(), b.clone(), b, a, None)
    }

    /// TLS on a connection, where the scenario wants it.
    fn secured(&self, mut stream: TcpStream, connected: bool) -> Result<Secured, String> {
        let Some(certificates) = &self.certificates else { return Ok((stream, None)) };
        stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
        let made = if connected { certificates.connect(&mut stream) } else { certificates.accept(&mut stream) };
        Ok((stream, Some(made?)))
    }

    #[allow(clippy::too_many_arguments)]
    fn ends(
        &self,
        caller: Secured,
        called: Secured,
        a: String,
        to_a: String,
        b: String,
        to_b: String,
        bye: Option<String>,
    ) -> Result<Session, String> {
        let congestion = &self.scenario.congestion;
        Ok(Session {
            caller: Endpoint::new(caller.0, caller.1, a, to_a, congestion).map_err(text)?,
            called: vec![Endpoint::new(called.0, called.1, b, to_b, congestion).map_err(text)?],
            bye,
        })
    }

    /// INVITE, 200 and ACK through the proxy; then both sides' MSRP connections.
    fn by_sip(&self, index: usize) -> Result<Session, String> {
        let call = self.call(index);
        let (answer, parties) = self.invited(&call)?;
        let answer = Message(&answer);
        if answer.status() != 200 {
            let wanted = if self.scenario.targets > 1 { self.wanted() } else { String::new() };
            return Err(format!("call {}: {}{wanted}", call.id, answer.first_line()));
        }
        let ack = sip::in_dialog(&call.caller, "ACK", 1, &call.id, &answer);
        self.sockets().0.send_to(ack.as_bytes(), &self.scenario.proxy).map_err(text)?;
        self.connected(index, &call, &answer, &parties)
    }

    fn call(&self, index: usize) -> Call<'_> {
        let scenario = self.scenario;
        let id = format!("{}x{index}", self.run);
        let scheme = if scenario.tls { "msrps" } else { "msrp" };
        let (host, port) = scenario.called_msrp.rsplit_once(':').unwrap_or((&scenario.called_msrp, ""));
        Call {
            own: format!("{scheme}://127.0.0.1:9/a{id};tcp"),
            id,
            scheme,
            caller: Party { address: scenario.caller_sip.clone(), transport: "UDP".into() },
            called: Party { address: scenario.called_sip.clone(), transport: "UDP".into() },
            host: self.place(index).map_or_else(|| host.to_owned(), |place| place.to_string()),
            port: port.parse().unwrap_or(28550),
            fingerprint: self.certificates.as_ref().map(|certificates| certificates.fingerprint.as_str()),
        }
    }

    fn sockets(&self) -> (&UdpSocket, &UdpSocket) {
        let made = "made for this via";
        (self.caller_sip.as_ref().expect(made), self.called_sip.as_ref().expect(made))
    }

    /// Sends the INVITE, and answers those that come to the called parties: the caller's final answer, and who was called.
    fn invited(&self, call: &Call<'_>) -> Result<(String, Parties), String> {
        let (caller, called) = self.sockets();
        let invitation = sip::Invitation::of(self.scenario);
        let [offer, direction] = invitation.directions();
        let offer = sip::sdp("127.0.0.1", 9, &call.own, "active", offer, call.fingerprint);
        let invite = sip::invite(&call.caller, &self.scenario.proxy, &call.id, &invitation, &offer);
        let mut parties = Parties::new();
        let mut buffer = vec![0; 65_536];
        let began = Instant::now();
        caller.send_to(invite.as_bytes(), &self.scenario.proxy).map_err(text)?;
        called.set_nonblocking(true).map_err(text)?;
        caller.set_nonblocking(true).map_err(text)?;
        let mut answer: Option<String> = None;
        while answer.is_none() || parties.len() < self.scenario.targets {
            if began.elapsed() > PATIENCE {
                return Err(self.missing(call, answer.is_some(), parties.len()));
            }
            // Who is refused waits for nobody.
            if let Some(answer) = answer.take_if(|answer| Message(answer).status() >= 300) {
                return Ok((answer, parties));
            }
            readable([caller, called], Duration::from_millis(20));
            while let Ok((read, from)) = called.recv_from(&mut buffer) {
                let request = String::from_utf8_lossy(&buffer[..read]);
                if let Some(answer) = call.answer(&Message(&request), direction, &mut parties) {
                    called.send_to(answer.as_bytes(), from).map_err(text)?;
                }
            }
            let Ok((read, _)) = caller.recv_from(&mut buffer) else { continue };
            let response = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let ours = Message(&response).header("Call-ID", "i") == format!("{}@bench", call.id);
            if ours && Message(&response).status() >= 200 {
                answer = Some(response);
            }
        }
        Ok((answer.unwrap_or_default(), parties))
    }

    /// Why a call does not stand: no answer, or an answer though not every called party was invited.
    fn missing(&self, call: &Call<'_>, answered: bool, invited: usize) -> String {
        let (id, proxy) = (&call.id, &self.scenario.proxy);
        if !answered {
            return format!("call {id}: no final answer from {proxy} in {PATIENCE:?}; {invited} INVITEs came");
        }
        format!("call {id}: {proxy} answered and invited {invited} of {}{}", self.scenario.targets, self.wanted())
    }

    fn wanted(&self) -> String {
        format!(
            "; the proxy has to know {} registered clients of sip:bob@example.net, with the contact sip:bob@{} each \
             (bench/README.md, \"What the proxy has to know\")",
            self.scenario.targets, self.scenario.called_sip
        )
    }

    /// The caller connects and speaks; the called parties take their connections.
    fn connected(&self, index: usize, call: &Call<'_>, answer: &Message<'_>, parties: &Parties) -> Result<Session, String> {
        let peer = answer.attribute("path").ok_or("no a=path in the answer")?;
        let authority = peer.split_once("://").and_then(|(_, rest)| rest.split('/').next()).ok_or("a=path is no MSRP URI")?;
        let congestion = &self.scenario.congestion;
        let end =
            |stream, tls, own: &str, peer: &str| Endpoint::new(stream, tls, own.into(), peer.into(), congestion).map_err(text);
        let (stream, tls) = self.secured(connect(authority, self.place(index), congestion)?, true)?;
        let mut session = Session {
            caller: end(stream, tls, &call.own, peer)?,
            called: Vec::new(),
            bye: Some(sip::in_dialog(&call.caller, "BYE", 2, &call.id, answer)),
        };
        // Who connects speaks at once (RFC 4975 §5.4): a proxy may believe nobody that stays silent.
        let opening = frame::opening(&call.own, peer, &format!("o{index:07x}"));
        session.caller.send(&[&opening]).map_err(text)?;
        // Whose connection it is does not matter: the messages are the same, and nothing is sent on it but answers.
        for (own, peer) in parties.values() {
            let (stream, _) = self.listener.as_ref().expect("made for this via").accept().map_err(text)?;
            let (stream, tls) = self.secured(stream, false)?;
            session.called.push(end(stream, tls, own, peer)?);
        }
        Ok(session)
    }

    fn by_auth(&self, index: usize) -> Result<Session, String> {
        let relay = &self.scenario.relay;
        let own_a = format!("msrp://127.0.0.1:9/a{index};tcp");
        let own_b = format!("msrp://127.0.0.1:7/b{index};tcp");
        let mut called = connect(relay, self.place(index), &self.scenario.congestion)?;
        let path = self.authenticate(&mut called, &own_b)?;
        let caller = connect(relay, self.place(index), &self.scenario.congestion)?;
        self.ends((caller, None), (called, None), own_a, format!("{path} {own_b}"), own_b.clone(), path.clone(), None)
    }

    /// RFC 4976 §5.1: AUTH, 401, AUTH with digest, 200 with Use-Path.
    fn authenticate(&self, stream: &mut TcpStream, own: &str) -> Result<String, String> {
        let relay = format!("msrp://{};tcp", self.scenario.relay);
        let auth = |extra: &str, tid: &str| {
            format!("MSRP {tid} AUTH\r\nTo-Path: {relay}\r\nFrom-Path: {own}\r\n{extra}-------{tid}$\r\n")
        };
        stream.write_all(auth("", "auth0001").as_bytes()).map_err(text)?;
        let challenge = response(stream)?;
        let challenge = String::from_utf8_lossy(&challenge.authenticate).into_owned();
        let part = |name: &str| {
            challenge.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("").to_owned()
        };
        let (realm, nonce) = (part("realm"), part("nonce"));
        let hash = |input: String| Md5::digest(input.as_bytes()).iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        let one = hash(format!("{}:{realm}:{}", self.scenario.user, self.scenario.password));
        let two = hash(format!("AUTH:{relay}"));
        let digest = hash(format!("{one}:{nonce}:00000001:benchbench:auth:{two}"));
        let credentials = format!(
            "Authorization: Digest username=\"{}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{relay}\", qop=auth, nc=00000001, \
             cnonce=\"benchbench\", response=\"{digest}\"\r\n",
            self.scenario.user
        );
        stream.write_all(auth(&credentials, "auth0002").as_bytes()).map_err(text)?;
        let head = response(stream)?;
        if head.status != 200 {
            return Err(format!("AUTH was answered {}", head.status));
        }
        Ok(String::from_utf8_lossy(&head.use_path).into_owned())
    }

    /// Ends sessions by SIP, some at a time, and answers the BYEs of the other side, until all is answered or nothing moves.
    pub fn end(&self, byes: impl Iterator<Item = String>) {
        let (Some(caller), Some(called)) = (&self.caller_sip, &self.called_sip) else { return };
        let party = Party { address: self.scenario.called_sip.clone(), transport: "UDP".into() };
        let nonblocking = caller.set_nonblocking(true).and_then(|()| called.set_nonblocking(true));
        let (mut byes, mut buffer) = (byes.peekable(), vec![0; 65_536]);
        let (mut waiting, mut moved) = (0usize, Instant::now());
        while nonblocking.is_ok() && moved.elapsed() < LAST_BYES {
            while waiting < BYES
                && let Some(bye) = byes.next()
            {
                let _ = caller.send_to(bye.as_bytes(), &self.scenario.proxy);
                (waiting, moved) = (waiting + 1, Instant::now());
            }
            let mut idle = true;
            while let Ok((read, _)) = caller.recv_from(&mut buffer) {
                let last = Message(&String::from_utf8_lossy(&buffer[..read])).status() >= 200;
                waiting = waiting.saturating_sub(usize::from(last));
                (idle, moved) = (false, Instant::now());
            }
            while let Ok((read, from)) = called.recv_from(&mut buffer) {
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                if request.starts_with("BYE ") {
                    let _ = called.send_to(sip::ok(&Message(&request), &party, "").as_bytes(), from);
                }
                (idle, moved) = (false, Instant::now());
            }
            if byes.peek().is_some() && moved.elapsed() > LAST_BYES / 2 {
                // Answers were lost: go on with the next.
                waiting = 0;
            }
            if idle {
                readable([caller, called], Duration::from_millis(20));
            }
        }
    }
}

/// Waits until one of two sockets has something, or so long.
fn readable(sockets: [&UdpSocket; 2], patience: Duration) {
    let mut polls = sockets.map(|socket| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    // SAFETY: the kernel reads and writes the two entries of this stack frame during the call; both descriptors are open.
    unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, patience.as_millis() as libc::c_int) };
}

pub fn connect(address: &str, from: Option<Ipv4Addr>, congestion: &str) -> Result<TcpStream, String> {
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None).map_err(text)?;
    tune(&socket2::SockRef::from(&socket), congestion).map_err(text)?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::from((from, 0)).into()).map_err(text)?;
    }
    socket.connect(&address.into()).map_err(|error| format!("{address}: {error}"))?;
    Ok(socket.into())
}

/// Waits for one response on a socket that still blocks.
fn response(stream: &mut TcpStream) -> Result<Head, String> {
    stream.set_read_timeout(Some(PATIENCE)).map_err(text)?;
    let mut reader = Reader::default();
    let mut buffer = [0; 8192];
    loop {
        let read = stream.read(&mut buffer).map_err(text)?;
        if read == 0 {
            return Err("the relay closed the connection during AUTH".into());
        }
        let mut found = None;
        reader.receive(&buffer[..read], |event| {
            if let Event::End(head, ..) = event {
                found = Some(Head {
                    status: head.status,
                    authenticate: head.authenticate.clone(),
                    use_path: head.use_path.clone(),
                    ..Head::default()
                });
            }
        })?;
        if let Some(head) = found {
            return Ok(head);
        }
    }
}
