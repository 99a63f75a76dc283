//! SIP load: calls on a fixed schedule, INVITE 200 ACK, hold, BYE 200, both parties in this one thread.

use crate::cpu::{Clocks, Meter};
use crate::report::{Latency, Outcome};
use crate::scenario::Scenario;
use crate::sip::{self, Invitation, Message, Party};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// RFC 3261 T1: when a request over UDP is sent again, doubling.
const T1: Duration = Duration::from_millis(500);
/// How long an unanswered call counts as outstanding.
const PATIENCE: Duration = Duration::from_secs(10);

/// A socket of either transport that carries whole messages.
enum Wire {
    Udp(UdpSocket),
    Tcp { listener: Option<TcpListener>, streams: Vec<(TcpStream, Vec<u8>)> },
}

impl Wire {
    fn bind(transport: &str, address: &str, connect: Option<&str>) -> Result<Self, String> {
        let text = |error: std::io::Error| format!("{address}: {error}");
        if transport == "udp" {
            let socket = UdpSocket::bind(address).map_err(text)?;
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
            socket.set_nonblocking(true).map_err(text)?;
            return Ok(Wire::Udp(socket));
        }
        if let Some(peer) = connect {
            let stream = TcpStream::connect(peer).map_err(|error| format!("{peer}: {error}"))?;
            stream.set_nodelay(true).map_err(text)?;
            stream.set_nonblocking(true).map_err(text)?;
            return Ok(Wire::Tcp { listener: None, streams: vec![(stream, Vec::new())] });
        }
        let listener = TcpListener::bind(address).map_err(text)?;
        listener.set_nonblocking(true).map_err(text)?;
        Ok(Wire::Tcp { listener: Some(listener), streams: Vec::new() })
    }

    fn send(&mut self, message: &str, to: &str) {
        match self {
            Wire::Udp(socket) => {
                let _ = socket.send_to(message.as_bytes(), to);
            }
            Wire::Tcp { streams, .. } => {
                let Some((stream, _)) = streams.last_mut() else { return };
                let mut rest = message.as_bytes();
                while !rest.is_empty() {
                    match stream.write(rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                        Err(_) => return,
                    }
                }
            }
        }
    }

    /// Every message that waits.
    fn receive(&mut self, buffer: &mut [u8], mut tell: impl FnMut(&str, &str)) {
        match self {
            Wire::Udp(socket) => {
                for _ in 0..256 {
                    let Ok((read, from)) = socket.recv_from(buffer) else { return };
                    if let Ok(text) = std::str::from_utf8(&buffer[..read]) {
                        tell(text, &from.to_string());
                    }
                }
            }
            Wire::Tcp { listener, streams } => {
                while let Some(Ok((stream, _))) = listener.as_ref().map(TcpListener::accept) {
                    let _ = stream.set_nonblocking(true);
                    let _ = stream.set_nodelay(true);
                    streams.push((stream, Vec::new()));
                }
                for (stream, held) in streams.iter_mut() {
                    while let Ok(read) = stream.read(buffer) {
                        if read == 0 {
                            break;
                        }
                        held.extend_from_slice(&buffer[..read]);
                    }
                    sip::split_stream(held, |text| tell(text, ""));
                }
            }
        }
    }
}

struct Call {
    due: Instant,
    resend: Instant,
    wait: Duration,
    last: String,
    /// INVITE answered.
    answered: bool,
}

struct Load<'s> {
    scenario: &'s Scenario,
    caller: Party,
    called: Party,
    up: Wire,
    down: Wire,
    calls: HashMap<u64, Call>,
    /// Calls whose BYE is due, in order.
    byes: VecDeque<(Instant, u64, String)>,
    standing: Vec<(u64, String)>,
    /// Failed finals by status line.
    failures: BTreeMap<String, u64>,
    latency: Histogram<u64>,
    /// From an INFO or BYE to its answer.
    in_dialog: Histogram<u64>,
    /// By how much an INVITE was sent late.
    lag: Histogram<u64>,
    /// 503 with Retry-After.
    told_when: u64,
    /// INVITEs that had no answer at all within T1.
    unanswered: u64,
    /// The INFOs sent within standing dialogs.
    talked: u64,
    done: u64,
    started: u64,
    resent: u64,
    body: String,
    answer: String,
    run: String,
}

/// Runs a calls-only scenario.
pub fn run(scenario: &Scenario, meter: Option<Meter>, quiet: bool) -> Result<Outcome, String> {
    let upper = scenario.transport.to_ascii_uppercase();
    let mut load = Load {
        scenario,
        caller: Party { address: scenario.caller_sip.clone(), transport: upper.clone() },
        called: Party { address: scenario.called_sip.clone(), transport: upper },
        down: Wire::bind(&scenario.transport, &scenario.called_sip, None)?,
        up: Wire::bind(&scenario.transport, &scenario.caller_sip, Some(&scenario.proxy))?,
        calls: HashMap::new(),
        byes: VecDeque::new(),
        standing: Vec::new(),
        failures: BTreeMap::new(),
        latency: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid"),
        in_dialog: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid"),
        lag: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid"),
        told_when: 0,
        unanswered: 0,
        talked: 0,
        done: 0,
        started: 0,
        resent: 0,
        body: sip::sdp("127.0.0.1", 9, "msrp://127.0.0.1:9/caller;tcp", "active", "sendrecv", None),
        answer: sip::sdp("127.0.0.1", 28550, "msrp://127.0.0.1:28550/called;tcp", "active", "sendrecv", None),
        run: sip::run_name(),
    };
    load.stand(quiet)?;
    load.offer(meter, quiet)
}

impl Load<'_> {
    /// Makes the dialogs that stand during the load.
    fn stand(&mut self, quiet: bool) -> Result<(), String> {
        let mut buffer = vec![0; 65_536];
        let until = Instant::now() + Duration::from_secs(120);
        while self.standing.len() < self.scenario.standing {
            if Instant::now() > until {
                return Err(format!(
                    "only {} of {} dialogs stand: {:?}",
                    self.standing.len(),
                    self.scenario.standing,
                    self.failures
                ));
            }
            // Who is refused, by a proxy that shares its CPU and was away for a moment, is followed by another.
            while self.calls.len() < 50 && self.standing.len() + self.calls.len() < self.scenario.standing {
                self.call(Instant::now());
            }
            self.turn(&mut buffer, true);
        }
        self.latency.reset();
        self.failures.clear();
        (self.done, self.told_when) = (0, 0);
        if !quiet && self.scenario.standing > 0 {
            eprintln!("{}: {} dialogs stand", self.scenario.name, self.standing.len());
        }
        Ok(())
    }

    fn offer(&mut self, meter: Option<Meter>, quiet: bool) -> Result<Outcome, String> {
        let mut buffer = vec![0; 65_536];
        let begin = Instant::now();
        let measured = begin + Duration::from_secs_f64(self.scenario.warmup);
        let end = measured + Duration::from_secs_f64(self.scenario.seconds);
        let step = |number: u64| {
            begin + Duration::from_nanos((u128::from(number) * 1_000_000_000 / u128::from(self.scenario.rate.max(1))) as u64)
        };
        let mut marks = None;
        let (mut scheduled, before, mut shown) = (0, self.started, begin);
        loop {
            let now = Instant::now();
            if marks.is_none() && now >= measured {
                self.latency.reset();
                self.in_dialog.reset();
                self.lag.reset();
                (self.told_when, self.unanswered) = (0, 0);
                marks = Some((now, self.done, Clocks::read(meter.as_ref())));
            }
            if self.scenario.over(now, end, marks.map_or(0, |(_, done, _)| self.done - done)) {
                break;
            }
            while step(scheduled) <= now {
                let due = step(scheduled);
                let _ = self.lag.record(now.saturating_duration_since(due).as_nanos() as u64);
                self.call(due);
                scheduled += 1;
            }
            while self.scenario.talk > 0
                && !self.standing.is_empty()
                && begin + Duration::from_secs_f64(self.talked as f64 / self.scenario.talk as f64) <= now
            {
                self.talk();
            }
            if !quiet && now - shown >= Duration::from_secs(1) {
                shown = now;
                eprintln!(
                    "  {:5.1} s  {} calls done, {} outstanding, {} resent",
                    (now - begin).as_secs_f64(),
                    self.done,
                    self.calls.len(),
                    self.resent
                );
            }
            if !self.turn(&mut buffer, false) {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        let (from, done, clocks) = marks.ok_or("the warm-up is longer than the run")?;
        let seconds = from.elapsed().as_secs_f64();
        let (used, count) = (Clocks::read(meter.as_ref()).since(&clocks), self.done - done);
        let (latency, in_dialog, lag) = (Latency::of(&self.latency), Latency::of(&self.in_dialog), Latency::of(&self.lag));
        let (told_when, unanswered) = (self.told_when, self.unanswered);
        self.finish(&mut buffer);
        let mut outcome = Outcome::new(self.scenario, "calls", count, 0, seconds);
        (outcome.latency, outcome.in_dialog, outcome.lag) = (latency, in_dialog, lag);
        (outcome.told_when, outcome.unanswered) = (told_when, unanswered);
        outcome.lost =
            self.started - before - self.done - self.failures.values().sum::<u64>().min(self.started - before - self.done);
        outcome.refused = self.failures.values().sum();
        outcome.failures = self.failures.iter().map(|(line, count)| format!("{count} times {line}")).collect();
        outcome.cpu(used);
        outcome.judge(self.scenario);
        Ok(outcome)
    }

    /// Waits for what is outstanding, then ends the standing dialogs.
    fn finish(&mut self, buffer: &mut [u8]) {
        let until = Instant::now() + PATIENCE;
        while (!self.calls.is_empty() || !self.byes.is_empty()) && Instant::now() < until {
            self.turn(buffer, false);
        }
        let done = self.done;
        for (number, bye) in std::mem::take(&mut self.standing) {
            self.byes.push_back((Instant::now(), number, bye));
        }
        let until = Instant::now() + PATIENCE;
        while (!self.calls.is_empty() || !self.byes.is_empty()) && Instant::now() < until {
            self.turn(buffer, false);
        }
        self.done = done;
    }

    fn call(&mut self, due: Instant) {
        let number = self.started;
        self.started += 1;
        let invite = sip::invite(
            &self.caller,
            &self.scenario.proxy,
            &format!("{}x{number}", self.run),
            &Invitation::of(self.scenario),
            &self.body,
        );
        self.up.send(&invite, &self.scenario.proxy);
        self.calls.insert(number, Call { due, resend: Instant::now() + T1, wait: T1, last: invite, answered: false });
    }

    /// An INFO within the next of the standing dialogs.
    fn talk(&mut self) {
        let standing = self.standing.len() as u64;
        let (round, at) = (self.talked / standing, self.talked % standing);
        let (number, bye) = &self.standing[at as usize];
        // As its BYE, which comes last of all, but for method, number and branch.
        let (number, seq) = (*number, round + 2);
        let info = bye.replacen("BYE", "INFO", 1).replacen("CSeq: 1000000 BYE", &format!("CSeq: {seq} INFO"), 1);
        let info = info.replacen(&format!("x{number}-B1000000"), &format!("x{number}-I{seq}"), 1);
        self.talked += 1;
        self.up.send(&info, &self.scenario.proxy);
        let now = Instant::now();
        self.calls.insert(number, Call { due: now, resend: now + T1, wait: T1, last: info, answered: true });
    }

    /// Looks at both sides, resends what is due, sends BYEs; whether anything was there.
    fn turn(&mut self, buffer: &mut [u8], standing: bool) -> bool {
        let mut busy = false;
        let mut answers = Vec::new();
        self.down.receive(buffer, |text, from| {
            busy = true;
            let request = Message(text);
            match request.first_line().split(' ').next() {
                Some("INVITE") => answers.push((sip::ok(&request, &self.called, &self.answer), from.to_owned())),
                Some("BYE" | "INFO") => answers.push((sip::ok(&request, &self.called, ""), from.to_owned())),
                _ => {}
            }
        });
        for (answer, to) in answers {
            self.down.send(&answer, &to);
        }
        let mut responses = Vec::new();
        self.up.receive(buffer, |text, _| responses.push(text.to_owned()));
        for response in &responses {
            busy = true;
            self.response(&Message(response), standing);
        }
        let now = Instant::now();
        while self.byes.front().is_some_and(|(due, ..)| *due <= now) {
            let (_, number, bye) = self.byes.pop_front().expect("just looked");
            self.up.send(&bye, &self.scenario.proxy);
            self.calls.insert(number, Call { due: now, resend: now + T1, wait: T1, last: bye, answered: true });
        }
        self.resend(now);
        busy
    }

    fn response(&mut self, response: &Message<'_>, standing: bool) {
        let call_id = response.header("Call-ID", "i");
        let Some(number) = call_id.split('@').next().and_then(|id| id.rsplit('x').next()).and_then(|n| n.parse::<u64>().ok())
        else {
            return;
        };
        let Some(call) = self.calls.get_mut(&number) else { return };
        let invite = response.header("CSeq", "").ends_with("INVITE");
        match (response.status(), invite, call.answered) {
            (100..200, ..) => call.resend = Instant::now() + PATIENCE,
            (200, true, false) => {
                let _ = self.latency.record(call.due.elapsed().as_nanos() as u64);
                let name = format!("{}x{number}", self.run);
                let ack = sip::in_dialog(&self.caller, "ACK", 1, &name, response);
                // A dialog that stands has other requests before its BYE.
                let last = if standing { 1_000_000 } else { 2 };
                let bye = sip::in_dialog(&self.caller, "BYE", last, &name, response);
                self.up.send(&ack, &self.scenario.proxy);
                self.calls.remove(&number);
                match standing {
                    true => self.standing.push((number, bye)),
                    false => self.byes.push_back((Instant::now() + Duration::from_millis(self.scenario.hold_ms), number, bye)),
                }
            }
            (200, false, true) => {
                let _ = self.in_dialog.record(call.due.elapsed().as_nanos() as u64);
                self.calls.remove(&number);
                self.done += u64::from(response.header("CSeq", "").ends_with("BYE"));
            }
            (300.., ..) => {
                *self.failures.entry(format!("{} to {}", response.first_line(), response.header("CSeq", ""))).or_default() += 1;
                self.told_when += u64::from(response.status() == 503 && !response.header("Retry-After", "").is_empty());
                if invite {
                    let mut ack = sip::in_dialog(&self.caller, "ACK", 1, &format!("{}x{number}", self.run), response);
                    ack =
                        ack.replacen("-A1", "-i", 1).replacen("ACK  SIP", &format!("ACK sip:bob@{} SIP", self.scenario.proxy), 1);
                    self.up.send(&ack, &self.scenario.proxy);
                }
                self.calls.remove(&number);
            }
            _ => {}
        }
    }

    fn resend(&mut self, now: Instant) {
        if self.scenario.transport != "udp" {
            return;
        }
        let Self { calls, up, scenario, resent, unanswered, .. } = self;
        for call in calls.values_mut().filter(|call| call.resend <= now && now - call.due < PATIENCE) {
            *unanswered += u64::from(!call.answered && call.wait == T1);
            call.wait = (call.wait * 2).min(Duration::from_secs(4));
            call.resend = now + call.wait;
            *resent += 1;
            up.send(&call.last, &scenario.proxy);
        }
    }
}
