//! Session churn: sessions begin on a fixed schedule, carry a few messages and end. INVITE, 200, ACK, MSRP both ways, BYE, 200.

use crate::body::Noise;
use crate::cpu::{Clocks, Meter};
use crate::endpoint::Endpoint;
use crate::frame::{self, Event};
use crate::report::{Latency, Outcome};
use crate::scenario::Scenario;
use crate::sip::{self, Invitation, Message, Party};
use hdrhistogram::Histogram;
use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// RFC 3261 T1: when a request over UDP is sent again, doubling.
const T1: Duration = Duration::from_millis(500);
/// How long a session may take in all.
const PATIENCE: Duration = Duration::from_secs(30);
const CALLER_SIP: Token = Token(0);
const CALLED_SIP: Token = Token(1);
const LISTENER: Token = Token(2);

/// One session on its way.
struct Life {
    due: Instant,
    /// The request that waits for its answer, when it is sent again, and the time after that.
    request: String,
    again: Instant,
    wait: Duration,
    bye: Option<String>,
    caller: Option<usize>,
    arrived: usize,
    answered: usize,
}

/// One MSRP connection: the session it belongs to once that is known.
struct Conn {
    end: Endpoint,
    life: Option<u64>,
    caller: bool,
}

struct Churn<'s> {
    scenario: &'s Scenario,
    parties: [Party; 2],
    sip: [UdpSocket; 2],
    listener: TcpListener,
    poll: Poll,
    lives: BTreeMap<u64, Life>,
    conns: HashMap<usize, Conn>,
    next_token: usize,
    noise: Noise,
    latency: Histogram<u64>,
    failures: BTreeMap<String, u64>,
    run: String,
    port: u16,
    buffer: Vec<u8>,
    begun: u64,
    done: u64,
    octets: u64,
    corrupted: u64,
}

/// Runs a churn scenario.
pub fn run(scenario: &Scenario, meter: Option<Meter>, quiet: bool) -> Result<Outcome, String> {
    let mut churn = Churn::new(scenario)?;
    let (begin, mut events) = (Instant::now(), Events::with_capacity(1024));
    let measured = begin + Duration::from_secs_f64(scenario.warmup);
    let end = measured + Duration::from_secs_f64(scenario.seconds);
    let rate = u128::from(scenario.rate.max(1));
    let at = |number: u64| begin + Duration::from_nanos((u128::from(number) * 1_000_000_000 / rate) as u64);
    let (mut marks, mut shown) = (None, begin);
    loop {
        let now = Instant::now();
        if marks.is_none() && now >= measured {
            churn.latency.reset();
            marks = Some((now, churn.done, churn.octets, Clocks::read(meter.as_ref())));
        }
        if scenario.over(now, end, marks.map_or(0, |(_, done, ..)| churn.done - done)) {
            break;
        }
        while at(churn.begun) <= now {
            churn.begin(at(churn.begun));
        }
        if !quiet && now - shown >= Duration::from_secs(1) {
            shown = now;
            eprintln!("  {:5.1} s  {} sessions done, {} under way", (now - begin).as_secs_f64(), churn.done, churn.lives.len());
        }
        churn.turn(&mut events, Duration::from_millis(1))?;
    }
    let (from, done, octets, clocks) = marks.ok_or("the warm-up is longer than the run")?;
    let (seconds, used) = (from.elapsed().as_secs_f64(), Clocks::read(meter.as_ref()).since(&clocks));
    let mut outcome = Outcome::new(scenario, "sessions", churn.done - done, churn.octets - octets, seconds);
    outcome.latency = Latency::of(&churn.latency);
    outcome.cpu(used);
    let until = Instant::now() + PATIENCE;
    while !churn.lives.is_empty() && Instant::now() < until {
        churn.turn(&mut events, Duration::from_millis(5))?;
    }
    outcome.refused = churn.failures.values().sum();
    outcome.lost = churn.begun - churn.done - outcome.refused.min(churn.begun - churn.done);
    outcome.corrupted = churn.corrupted;
    outcome.failures = churn.failures.iter().map(|(line, count)| format!("{count} times {line}")).collect();
    outcome.judge(scenario);
    Ok(outcome)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl<'s> Churn<'s> {
    fn new(scenario: &'s Scenario) -> Result<Self, String> {
        let party = |address: &str| Party { address: address.into(), transport: "UDP".into() };
        let poll = Poll::new().map_err(text)?;
        let bind = |address: &str, token| -> Result<UdpSocket, String> {
            let address = address.parse().map_err(|error| format!("{address}: {error}"))?;
            let mut socket = UdpSocket::bind(address).map_err(|error| format!("{address}: {error}"))?;
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
            poll.registry().register(&mut socket, token, Interest::READABLE).map_err(text)?;
            Ok(socket)
        };
        let sip = [bind(&scenario.caller_sip, CALLER_SIP)?, bind(&scenario.called_sip, CALLED_SIP)?];
        let address = scenario.called_msrp.parse().map_err(|error| format!("{}: {error}", scenario.called_msrp))?;
        let mut listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(text)?;
        Ok(Self {
            scenario,
            parties: [party(&scenario.caller_sip), party(&scenario.called_sip)],
            sip,
            listener,
            poll,
            lives: BTreeMap::new(),
            conns: HashMap::new(),
            next_token: 3,
            noise: Noise::new(scenario.longest()),
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid"),
            failures: BTreeMap::new(),
            run: sip::run_name(),
            port: address.port(),
            buffer: vec![0; 256 * 1024],
            begun: 0,
            done: 0,
            octets: 0,
            corrupted: 0,
        })
    }

    fn call(&self, number: u64) -> String {
        format!("{}x{number}", self.run)
    }

    fn begin(&mut self, due: Instant) {
        let number = self.begun;
        self.begun += 1;
        let call = self.call(number);
        let invitation = Invitation::of(self.scenario);
        let offer =
            sip::sdp("127.0.0.1", 9, &format!("msrp://127.0.0.1:9/a{call};tcp"), "active", invitation.directions()[0], None);
        let request = sip::invite(&self.parties[0], &self.scenario.proxy, &call, &invitation, &offer);
        self.request(&request);
        let again = Instant::now() + T1;
        let life = Life { due, request, again, wait: T1, bye: None, caller: None, arrived: 0, answered: 0 };
        self.lives.insert(number, life);
    }

    fn request(&self, request: &str) {
        if let Ok(to) = self.scenario.proxy.parse() {
            let _ = self.sip[0].send_to(request.as_bytes(), to);
        }
    }

    fn turn(&mut self, events: &mut Events, timeout: Duration) -> Result<(), String> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(text(error)),
            _ => {}
        }
        for event in events.iter() {
            match event.token() {
                CALLER_SIP => self.responses(),
                CALLED_SIP => self.requests(),
                LISTENER => {
                    while let Ok((stream, _)) = self.listener.accept() {
                        self.conn(stream, String::new(), String::new(), None);
                    }
                }
                Token(token) => self.octets_of(token, event.is_read_closed()),
            }
        }
        let now = Instant::now();
        let mut late = Vec::new();
        for (number, life) in &mut self.lives {
            if now - life.due > PATIENCE {
                late.push(*number);
            } else if life.again <= now {
                life.wait = (life.wait * 2).min(Duration::from_secs(4));
                life.again = now + life.wait;
                if let Ok(to) = self.scenario.proxy.parse() {
                    let _ = self.sip[0].send_to(life.request.as_bytes(), to);
                }
            }
        }
        for number in late {
            self.fail(number, "a session that took too long".into());
        }
        Ok(())
    }

    /// The called side: answers INVITE and BYE.
    fn requests(&mut self) {
        while let Ok((read, from)) = self.sip[1].recv_from(&mut self.buffer) {
            let request = String::from_utf8_lossy(&self.buffer[..read]).into_owned();
            let request = Message(&request);
            let direction = Invitation::of(self.scenario).directions()[1];
            let body = match request.first_line().split(' ').next() {
                Some("INVITE") => {
                    let call = request.header("Conversation-ID", "").get(1..).unwrap_or_default();
                    let host = self.scenario.called_msrp.split(':').next().unwrap_or_default();
                    let path = format!("msrp://{host}:{}/b{call};tcp", self.port);
                    sip::sdp(host, self.port, &path, "passive", direction, None)
                }
                Some("BYE") => String::new(),
                _ => continue,
            };
            let _ = self.sip[1].send_to(sip::ok(&request, &self.parties[1], &body).as_bytes(), from);
        }
    }

    /// The caller's side: final answers.
    fn responses(&mut self) {
        while let Ok((read, _)) = self.sip[0].recv_from(&mut self.buffer) {
            let response = String::from_utf8_lossy(&self.buffer[..read]).into_owned();
            let response = Message(&response);
            let id = response.header("Call-ID", "i");
            let Some(number) = id.split('@').next().and_then(|id| id.rsplit('x').next()).and_then(|id| id.parse().ok()) else {
                continue;
            };
            let Some(life) = self.lives.get_mut(&number) else { continue };
            let invite = response.header("CSeq", "").ends_with("INVITE");
            match response.status() {
                100..200 => life.again = Instant::now() + PATIENCE,
                200 if invite && life.bye.is_none() => self.answered(number, &response),
                200 if !invite => self.end(number),
                300.. => self.fail(number, format!("{} to {}", response.first_line(), response.header("CSeq", ""))),
                _ => {}
            }
        }
    }

    fn answered(&mut self, number: u64, response: &Message<'_>) {
        let call = self.call(number);
        self.request(&sip::in_dialog(&self.parties[0], "ACK", 1, &call, response));
        let bye = sip::in_dialog(&self.parties[0], "BYE", 2, &call, response);
        let peer = response.attribute("path").unwrap_or_default().to_owned();
        let to = peer.split_once("://").and_then(|(_, rest)| rest.split('/').next()).and_then(|to| to.parse().ok());
        let stream = to.and_then(|to| TcpStream::connect(to).ok());
        let token = stream.and_then(|stream| self.conn(stream, format!("msrp://127.0.0.1:9/a{call};tcp"), peer, Some(number)));
        let Some(life) = self.lives.get_mut(&number) else { return };
        (life.bye, life.caller, life.again) = (Some(bye), token, Instant::now() + PATIENCE);
        if token.is_none() {
            return self.fail(number, "no MSRP connection".into());
        }
        for message in 0..self.scenario.messages {
            self.send(number, message);
        }
    }

    fn conn(&mut self, stream: TcpStream, own: String, peer: String, life: Option<u64>) -> Option<usize> {
        let token = self.next_token;
        self.next_token += 1;
        let mut end = Endpoint::over(stream, own, peer, &self.scenario.congestion).ok()?;
        self.poll.registry().register(&mut end.stream, Token(token), Interest::READABLE | Interest::WRITABLE).ok()?;
        self.conns.insert(token, Conn { end, caller: life.is_some(), life });
        Some(token)
    }

    fn send(&mut self, number: u64, message: usize) {
        let octets = self.scenario.chunk;
        let body = self.noise.body(number as usize, message as u64, octets);
        let Some(conn) = self.lives.get(&number).and_then(|life| life.caller).and_then(|token| self.conns.get_mut(&token)) else {
            return;
        };
        let tid = format!("c{number:010x}{message:05x}");
        let mut head = Vec::with_capacity(400);
        let chunk = frame::Chunk { message_id: &format!("m{message:07x}"), start: 1, octets, total: octets };
        frame::send_head(&mut head, &tid, &conn.end.peer, &conn.end.own, &chunk, "yes");
        let tail = format!("\r\n-------{tid}$\r\n");
        if let Err(error) = conn.end.send(&[&head, body, tail.as_bytes()]) {
            self.fail(number, error.to_string());
        }
    }

    /// Reads a connection: messages at the called party, answers at the caller.
    fn octets_of(&mut self, token: usize, closing: bool) {
        let Some(mut conn) = self.conns.remove(&token) else { return };
        conn.end.closing |= closing;
        let _ = conn.end.flush();
        let (mut replies, mut own) = (Vec::new(), conn.end.own.clone());
        let Self { lives, noise, scenario, octets, corrupted, buffer, latency, .. } = self;
        let (mut chunk, mut life, caller) = (std::mem::take(&mut conn.end.chunk), conn.life, conn.caller);
        let result = conn.end.receive(buffer, usize::MAX, |event| match event {
            Event::Body(body, _) => chunk.extend_from_slice(body),
            Event::End(head, flag, _) if head.method == b"SEND" => {
                if life.is_none() {
                    own = String::from_utf8_lossy(&head.to_path).into_owned();
                    life = own.rsplit('x').next().and_then(|id| id.split(';').next()).and_then(|id| id.parse().ok());
                }
                let body = std::mem::take(&mut chunk);
                if let Some(session) = life.and_then(|number| lives.get_mut(&number)).filter(|_| head.has_body && flag == b'$') {
                    let number = life.unwrap_or_default();
                    let same = body == noise.body(number as usize, session.arrived as u64, scenario.chunk);
                    *corrupted += u64::from(!same);
                    *octets += body.len() as u64;
                    session.arrived += 1;
                    if session.arrived == scenario.messages {
                        let _ = latency.record(session.due.elapsed().as_nanos() as u64);
                    }
                }
                frame::ok(&mut replies, head, &own);
            }
            Event::End(head, ..) if caller && head.status == 200 => {
                if let Some(session) = life.and_then(|number| lives.get_mut(&number)) {
                    session.answered += 1;
                }
            }
            _ => {}
        });
        (conn.end.chunk, conn.life, conn.end.own) = (chunk, life, own);
        let broken = result.is_err() || (!replies.is_empty() && conn.end.send(&[&replies]).is_err());
        let closed = conn.end.closed;
        if !closed && !broken {
            self.conns.insert(token, conn);
        }
        let Some(number) = life else { return };
        if broken || closed && self.lives.get(&number).is_some_and(|life| life.arrived < self.scenario.messages) {
            return self.fail(number, "an MSRP connection that broke".into());
        }
        self.over(number);
    }

    /// Ends the session when everything has come and was answered.
    fn over(&mut self, number: u64) {
        let Some(life) = self.lives.get_mut(&number) else { return };
        if life.arrived < self.scenario.messages || life.answered < self.scenario.messages {
            return;
        }
        let Some(bye) = life.bye.take_if(|bye| *bye != life.request) else { return };
        (life.request, life.again, life.wait) = (bye.clone(), Instant::now() + T1, T1);
        life.bye = Some(bye.clone());
        self.request(&bye);
    }

    fn end(&mut self, number: u64) {
        if let Some(life) = self.lives.remove(&number) {
            self.done += 1;
            life.caller.map(|token| self.conns.remove(&token));
        }
    }

    fn fail(&mut self, number: u64, why: String) {
        if let Some(life) = self.lives.remove(&number) {
            *self.failures.entry(why).or_default() += 1;
            life.caller.map(|token| self.conns.remove(&token));
        }
    }
}
