//! Deferred delivery: large messages for a user who is not registered are accepted and kept; then the user registers, and each
//! comes. This tool is the caller, the S-CSCF with its reg-event notifier (RFC 3680), and the client.

use crate::body::Noise;
use crate::cpu::{Clocks, Meter};
use crate::endpoint::Endpoint;
use crate::establish::connect;
use crate::frame::{self, Event};
use crate::report::{Latency, Outcome};
use crate::scenario::Scenario;
use crate::sip::{self, Invitation, Message, Party};
use hdrhistogram::Histogram;
use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything is looked at whatever wakes us.
const WAKES: Token = Token(0);

struct Deferred<'s> {
    scenario: &'s Scenario,
    poll: Poll,
    events: Events,
    proxy: SocketAddr,
    parties: [Party; 2],
    /// Ours: the caller's, and that of core and client.
    sip: [UdpSocket; 2],
    listener: TcpListener,
    noise: Noise,
    run: String,
    registered: bool,
    /// The dialog of the subscription, as the proxy sees it: its SUBSCRIBE.
    subscribe: Option<(String, SocketAddr)>,
    notified: u32,
    delivery: Option<Endpoint>,
    got: u64,
    corrupted: u64,
}

/// Accepts `messages` messages, registers, and takes them.
pub fn run(scenario: &Scenario, meter: Option<Meter>, quiet: bool) -> Result<Outcome, String> {
    let mut run = Deferred::new(scenario)?;
    let (begin, clocks) = (Instant::now(), Clocks::read(meter.as_ref()));
    for number in 0..scenario.messages as u64 {
        run.hand_in(number)?;
    }
    let kept = begin.elapsed();
    if !quiet {
        eprintln!("{}: {} messages kept in {kept:?}", scenario.name, scenario.messages);
    }
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid");
    let registered = Instant::now();
    run.register()?;
    let mut moved = registered;
    while run.got < scenario.messages as u64 && moved.elapsed() < PATIENCE {
        let before = run.got;
        run.serve()?;
        if run.got > before {
            moved = Instant::now();
            let _ = latency.record(registered.elapsed().as_nanos() as u64);
        }
    }
    if run.subscribe.is_none() {
        return Err(format!(
            "{} did not subscribe to the registrations of sip:bob@example.net after the REGISTER; it has to learn them from the reg \
             event package at sip:{} (bench/README.md, \"What the proxy has to know\")",
            scenario.proxy, scenario.called_sip
        ));
    }
    // The BYE of the last delivery wants an answer.
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        run.serve()?;
    }
    let octets = run.got * scenario.message.max(scenario.chunk) as u64;
    let mut outcome = Outcome::new(scenario, "messages", run.got, octets, begin.elapsed().as_secs_f64());
    outcome.latency = Latency::of(&latency);
    outcome.lost = scenario.messages as u64 - run.got.min(scenario.messages as u64);
    outcome.corrupted = run.corrupted;
    outcome.cpu(Clocks::read(meter.as_ref()).since(&clocks));
    outcome.judge(scenario);
    Ok(outcome)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl<'s> Deferred<'s> {
    fn new(scenario: &'s Scenario) -> Result<Self, String> {
        let party = |address: &str| Party { address: address.into(), transport: "UDP".into() };
        let poll = Poll::new().map_err(text)?;
        let bind = |address: &str| -> Result<UdpSocket, String> {
            let at = address.parse().map_err(|error| format!("{address}: {error}"))?;
            let mut socket = UdpSocket::bind(at).map_err(|error| format!("{address}: {error}"))?;
            poll.registry().register(&mut socket, WAKES, Interest::READABLE).map_err(text)?;
            Ok(socket)
        };
        let sip = [bind(&scenario.caller_sip)?, bind(&scenario.called_sip)?];
        let at = scenario.called_msrp.parse().map_err(|error| format!("{}: {error}", scenario.called_msrp))?;
        let mut listener = TcpListener::bind(at).map_err(|error| format!("{at}: {error}"))?;
        poll.registry().register(&mut listener, WAKES, Interest::READABLE).map_err(text)?;
        let proxy = scenario.proxy.parse().map_err(|error| format!("{}: {error}", scenario.proxy))?;
        Ok(Self {
            scenario,
            poll,
            events: Events::with_capacity(64),
            proxy,
            parties: [party(&scenario.caller_sip), party(&scenario.called_sip)],
            sip,
            listener,
            noise: Noise::new(scenario.longest()),
            run: sip::run_name(),
            registered: false,
            subscribe: None,
            notified: 0,
            delivery: None,
            got: 0,
            corrupted: 0,
        })
    }

    /// Waits for a response to the caller while the core goes on.
    fn response(&mut self, call: &str, method: &str) -> Result<String, String> {
        let (until, mut buffer) = (Instant::now() + PATIENCE, vec![0; 65_536]);
        while Instant::now() < until {
            let Ok((read, _)) = self.sip[0].recv_from(&mut buffer) else {
                self.serve()?;
                continue;
            };
            let response = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let message = Message(&response);
            let fits = message.header("Call-ID", "i") == format!("{call}@bench") && message.header("CSeq", "").ends_with(method);
            if fits && message.status() >= 200 {
                return match message.status() {
                    200 => Ok(response),
                    _ => Err(format!("{method} of {call}: {}", message.first_line())),
                };
            }
        }
        Err(format!("{method} of {call}: no answer in {PATIENCE:?}"))
    }

    /// One message for later.
    fn hand_in(&mut self, number: u64) -> Result<(), String> {
        let call = format!("{}x{number}", self.run);
        let own = format!("msrp://127.0.0.1:9/a{call};tcp");
        let offer = sip::sdp("127.0.0.1", 9, &own, "active", "sendonly", None);
        let invitation = Invitation { large: true, terminating: true, route: None };
        let proxy = &self.scenario.proxy;
        let invite = sip::invite(&self.parties[0], proxy, &call, &invitation, &offer);
        self.sip[0].send_to(invite.as_bytes(), self.proxy).map_err(text)?;
        let answer = self.response(&call, "INVITE").map_err(|error| {
            format!(
                "{error}; the proxy has to keep messages for users who are away (bench/README.md, \"What the proxy has to know\")"
            )
        })?;
        let answer = Message(&answer);
        let in_dialog = |method: &str, cseq| sip::in_dialog(&self.parties[0], method, cseq, &call, &answer);
        let (ack, bye) = (in_dialog("ACK", 1), in_dialog("BYE", 2));
        self.sip[0].send_to(ack.as_bytes(), self.proxy).map_err(text)?;
        let path = answer.attribute("path").ok_or("no a=path in the answer")?;
        let authority = path.split_once("://").and_then(|(_, rest)| rest.split('/').next()).ok_or("a=path is no MSRP URI")?;
        let stream = connect(authority, None, &self.scenario.congestion)?;
        let mut end = Endpoint::new(stream, None, own, path.into(), &self.scenario.congestion).map_err(text)?;
        self.watch(&mut end)?;
        let mut wanted = self.chunks(number, &mut end)?;
        let (mut buffer, until) = (vec![0; 65_536], Instant::now() + PATIENCE);
        let mut bad = None;
        while wanted > 0 {
            if end.closed || bad.is_some() || Instant::now() > until {
                return Err(format!("message {number} was not kept: {bad:?}"));
            }
            end.flush().map_err(text)?;
            end.receive(&mut buffer, usize::MAX, |event| {
                if let Event::End(head, ..) = event {
                    match head.status {
                        200 => wanted -= 1,
                        status => bad = Some(status),
                    }
                }
            })?;
            self.wait()?;
        }
        self.sip[0].send_to(bye.as_bytes(), self.proxy).map_err(text)?;
        self.response(&call, "BYE").map(drop)
    }

    /// Writes a message; how many chunks it has.
    fn chunks(&self, number: u64, end: &mut Endpoint) -> Result<usize, String> {
        let total = self.scenario.message.max(self.scenario.chunk);
        let chunk = self.scenario.chunk.min(total);
        let count = total.div_ceil(chunk);
        for part in 0..count {
            let octets = chunk.min(total - part * chunk);
            let tid = format!("d{number:07x}{part:08x}");
            let mut head = Vec::new();
            let shape = frame::Chunk { message_id: &format!("m{number:07x}"), start: part * chunk + 1, octets, total };
            frame::send_head(&mut head, &tid, &end.peer, &end.own, &shape, "yes");
            let tail = format!("\r\n-------{tid}{}\r\n", if part + 1 == count { '$' } else { '+' });
            end.send(&[&head, self.noise.part(0, number, part, octets), tail.as_bytes()]).map_err(text)?;
        }
        Ok(count)
    }

    /// The S-CSCF tells that the user has registered (TS 24.229 §5.4.1.7), and its notifier says with what.
    fn register(&mut self) -> Result<(), String> {
        self.registered = true;
        let (proxy, own) = (&self.scenario.proxy, &self.parties[1].address);
        let register = format!(
            "REGISTER sip:{proxy} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKthird;rport\r\nMax-Forwards: 70\r\nFrom: <sip:scscf.example.net>;tag=s\r\n\
             To: <sip:bob@example.net>\r\nCall-ID: third{}\r\nCSeq: 1 REGISTER\r\nContact: <sip:{own}>\r\nExpires: 600000\r\nContent-Length: 0\r\n\r\n",
            std::process::id()
        );
        self.sip[1].send_to(register.as_bytes(), self.proxy).map_err(text)?;
        if self.subscribe.is_some() {
            self.notify()?;
        }
        Ok(())
    }

    fn watch(&self, end: &mut Endpoint) -> Result<(), String> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut end.stream, WAKES, interest).map_err(text)
    }

    /// Waits until anything has happened, a millisecond at most.
    fn wait(&mut self) -> Result<(), String> {
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(1))) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(text(error)),
            _ => Ok(()),
        }
    }

    /// What the core and the client do when something comes.
    fn serve(&mut self) -> Result<(), String> {
        self.wait()?;
        let mut buffer = vec![0; 65_536];
        while let Ok((read, from)) = self.sip[1].recv_from(&mut buffer) {
            let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
            self.request(&Message(&request), from)?;
        }
        if let Ok((stream, _)) = self.listener.accept() {
            let mut end = Endpoint::over(stream, self.own_path(), String::new(), &self.scenario.congestion).map_err(text)?;
            self.watch(&mut end)?;
            self.delivery = Some(end);
        }
        let Some(mut end) = self.delivery.take() else { return Ok(()) };
        let (mut replies, own, mut body) = (Vec::new(), end.own.clone(), std::mem::take(&mut end.chunk));
        let mut whole = Vec::new();
        end.receive(&mut buffer, usize::MAX, |event| match event {
            Event::Body(octets, _) => body.extend_from_slice(octets),
            Event::End(head, flag, _) if head.method == b"SEND" => {
                if head.has_body && flag == b'$' {
                    whole.push((head.message_id.clone(), std::mem::take(&mut body)));
                }
                frame::ok(&mut replies, head, &own);
            }
            _ => {}
        })?;
        end.chunk = body;
        if !replies.is_empty() {
            end.send(&[&replies]).map_err(text)?;
        }
        if !end.closed {
            self.delivery = Some(end);
        }
        for (id, octets) in whole {
            self.check(&id, &octets);
        }
        Ok(())
    }

    fn own_path(&self) -> String {
        format!("msrp://{}/late;tcp", self.scenario.called_msrp)
    }

    fn check(&mut self, id: &[u8], octets: &[u8]) {
        let number = std::str::from_utf8(id).ok().and_then(|id| u64::from_str_radix(id.get(1..)?, 16).ok());
        let total = self.scenario.message.max(self.scenario.chunk);
        let chunk = self.scenario.chunk.min(total);
        let same = number.is_some_and(|number| {
            octets.len() == total
                && octets.chunks(chunk).enumerate().all(|(part, octets)| self.noise.part(0, number, part, octets.len()) == octets)
        });
        self.corrupted += u64::from(!same);
        self.got += 1;
    }

    fn request(&mut self, request: &Message<'_>, from: SocketAddr) -> Result<(), String> {
        let body = match request.first_line().split(' ').next() {
            Some("INVITE") => {
                let (host, port) = self.scenario.called_msrp.split_once(':').ok_or("called_msrp has no port")?;
                sip::sdp(host, port.parse().map_err(text)?, &self.own_path(), "passive", "recvonly", None)
            }
            Some("BYE") => String::new(),
            Some("SUBSCRIBE") => {
                let answer = sip::ok(request, &self.parties[1], "");
                let extra = format!("Contact: <sip:{}>\r\nExpires: 600000\r\nContent-Length: 0", self.parties[1].address);
                let answer = answer.replacen("Content-Length: 0", &extra, 1);
                self.sip[1].send_to(answer.as_bytes(), from).map_err(text)?;
                self.subscribe = Some((request.0.to_owned(), from));
                return self.notify();
            }
            _ => return Ok(()),
        };
        self.sip[1].send_to(sip::ok(request, &self.parties[1], &body).as_bytes(), from).map_err(text)?;
        Ok(())
    }

    /// The state of the registration, whole (RFC 3680 §5).
    fn notify(&mut self) -> Result<(), String> {
        let Some((subscribe, to)) = &self.subscribe else { return Ok(()) };
        let (subscribe, own) = (Message(subscribe), &self.parties[1].address);
        const FEATURES: &str =
            "<unknown-param name=\"+g.3gpp.icsi-ref\">\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"</unknown-param>";
        let state = if self.registered { "active" } else { "terminated" };
        let contact = if self.registered {
            format!(
                "<contact id=\"c1\" state=\"active\" event=\"registered\" expires=\"600000\"><uri>sip:bob@{own}</uri>{FEATURES}</contact>"
            )
        } else {
            String::new()
        };
        let body = format!(
            "<?xml version=\"1.0\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" version=\"{}\" state=\"full\"><registration aor=\"sip:bob@example.net\" id=\"a7\" state=\"{state}\">{contact}</registration></reginfo>",
            self.notified
        );
        self.notified += 1;
        let id = subscribe.header("Call-ID", "i").split('@').next().unwrap_or_default();
        let notify = format!(
            "NOTIFY {} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKnotify{};rport\r\nMax-Forwards: 70\r\nFrom: {};tag=t{id}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} NOTIFY\r\nContact: <sip:{own}>\r\nEvent: reg\r\n\
             Subscription-State: active;expires=600000\r\nContent-Type: application/reginfo+xml\r\nContent-Length: {}\r\n\r\n{body}",
            subscribe.contact(),
            self.notified,
            subscribe.header("To", "t"),
            subscribe.header("From", "f"),
            subscribe.header("Call-ID", "i"),
            self.notified,
            body.len()
        );
        self.sip[1].send_to(notify.as_bytes(), *to).map_err(text)?;
        Ok(())
    }
}
