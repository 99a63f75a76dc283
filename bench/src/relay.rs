//! MSRP load: bulk, closed loop and open loop over many sessions, from caller to called party, every message accounted for.

use crate::body::{self as noise, Noise};
use crate::cpu::{Clocks, Meter};
use crate::endpoint::Endpoint;
use crate::establish::{Establisher, Session};
use crate::frame::{self, Event};
use crate::report::{Latency, Outcome};
use crate::scenario::{Load, Scenario};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long the last messages may take after the load has ended.
const DRAIN: Duration = Duration::from_secs(30);

struct Flow {
    /// The caller, then the called parties.
    ends: Vec<Endpoint>,
    /// Messages that have not arrived everywhere, in order; the first is number `first`.
    outstanding: VecDeque<Pending>,
    first: u64,
    /// The message that is being sent: its number, octets, and octets sent.
    current: Option<(u64, usize, usize)>,
    /// What each called party has got: messages, and octets of the next one.
    got: Vec<(u64, usize)>,
    in_flight: usize,
    failed: Option<String>,
    slow: bool,
}

struct Pending {
    octets: usize,
    due: Instant,
    /// Called parties that wait for it.
    left: usize,
}

struct Run<'s> {
    scenario: &'s Scenario,
    noise: Noise,
    flows: Vec<Flow>,
    latency: Histogram<u64>,
    buffer: Vec<u8>,
    head: Vec<u8>,
    sent: u64,
    arrived: u64,
    octets: u64,
    corrupted: u64,
    refused: u64,
    draw: u64,
    /// When the slow readers last read.
    slow_since: Instant,
    /// The load is over: nothing new is sent.
    ending: bool,
}

/// Runs an MSRP scenario.
pub fn run(scenario: &Scenario, meter: Option<Meter>, quiet: bool) -> Result<Outcome, String> {
    let mut establisher = Establisher::new(scenario)?;
    let mut poll = Poll::new().map_err(|error| error.to_string())?;
    let mut byes = Vec::new();
    let mut run = Run::new(scenario);
    for index in 0..scenario.sessions {
        let session = establisher.session(index)?;
        byes.extend(session.bye.clone());
        run.add(session, &poll)?;
    }
    if !quiet {
        eprintln!("{}: {} sessions stand", scenario.name, scenario.sessions);
    }
    let outcome = run.load(&mut poll, meter, quiet);
    establisher.end(byes.into_iter());
    outcome
}

impl<'s> Run<'s> {
    fn new(scenario: &'s Scenario) -> Self {
        let longest = scenario.longest();
        Self {
            scenario,
            noise: Noise::new(longest),
            flows: Vec::with_capacity(scenario.sessions),
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are valid"),
            buffer: vec![0; 256 * 1024],
            head: Vec::with_capacity(512),
            sent: 0,
            arrived: 0,
            octets: 0,
            corrupted: 0,
            refused: 0,
            draw: 1,
            slow_since: Instant::now(),
            ending: false,
        }
    }

    fn add(&mut self, session: Session, poll: &Poll) -> Result<(), String> {
        let index = self.flows.len();
        let mut ends = vec![session.caller];
        ends.extend(session.called);
        for (side, end) in ends.iter_mut().enumerate() {
            poll.registry()
                .register(&mut end.stream, Token(index * self.sides() + side), Interest::READABLE | Interest::WRITABLE)
                .map_err(|error| error.to_string())?;
        }
        let slow = index < self.scenario.slow_readers;
        let got = vec![(0, 0); ends.len() - 1];
        self.flows.push(Flow {
            ends,
            outstanding: VecDeque::new(),
            first: 0,
            current: None,
            got,
            in_flight: 0,
            failed: None,
            slow,
        });
        Ok(())
    }

    /// Connections of a session.
    fn sides(&self) -> usize {
        1 + self.scenario.targets
    }

    /// Octets of the next message, drawn by weight where there are several sizes.
    fn size(&mut self) -> usize {
        let scenario = self.scenario;
        if scenario.message > 0 {
            return scenario.message;
        }
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 7;
        self.draw ^= self.draw << 17;
        let total: u64 = scenario.sizes.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut drawn = (self.draw >> 11) % total.max(1);
        for (octets, weight) in &scenario.sizes {
            match drawn.checked_sub(u64::from(*weight)) {
                Some(rest) => drawn = rest,
                None => return *octets,
            }
        }
        scenario.chunk
    }

    fn load(&mut self, poll: &mut Poll, meter: Option<Meter>, quiet: bool) -> Result<Outcome, String> {
        let mut events = Events::with_capacity(4096);
        let begin = Instant::now();
        let measured = begin + Duration::from_secs_f64(self.scenario.warmup);
        let end = measured + Duration::from_secs_f64(self.scenario.seconds);
        let mut marks: Option<(Instant, u64, u64, Clocks)> = None;
        let mut scheduled = 0u64;
        let mut shown = begin;
        if self.scenario.load != Load::Open {
            for index in 0..self.flows.len() {
                self.fill(index, Instant::now());
            }
        }
        loop {
            let now = Instant::now();
            if marks.is_none() && now >= measured {
                self.latency.reset();
                marks = Some((now, self.octets, self.arrived, Clocks::read(meter.as_ref())));
            }
            let done = marks.map_or(0, |(_, _, arrived, _)| self.arrived - arrived);
            let broken = marks.is_some() && self.flows.iter().all(|flow| flow.failed.is_some());
            if self.scenario.over(now, end, done) || broken {
                break;
            }
            if !quiet && now - shown >= Duration::from_secs(1) {
                shown = now;
                eprintln!(
                    "  {:5.1} s  {} messages, {:.1} MB, {} outstanding",
                    (now - begin).as_secs_f64(),
                    self.arrived,
                    self.octets as f64 / 1e6,
                    self.sent - self.arrived
                );
            }
            let mut timeout = Duration::from_millis(20);
            if self.scenario.load == Load::Open {
                timeout = self.on_schedule(begin, now, &mut scheduled);
            }
            self.turn(poll, &mut events, timeout)?;
        }
        let (from, octets, arrived, clocks) = marks.ok_or("the warm-up is longer than the run")?;
        let seconds = from.elapsed().as_secs_f64();
        let used = Clocks::read(meter.as_ref()).since(&clocks);
        let (octets, messages) = (self.octets - octets, self.arrived - arrived);
        let latency = Latency::of(&self.latency);
        self.drain(poll, &mut events)?;
        self.rest(poll, &mut events, quiet)?;

        let mut outcome = Outcome::new(self.scenario, "messages", messages, octets, seconds);
        outcome.latency = latency;
        outcome.lost = self.sent - self.arrived;
        outcome.corrupted = self.corrupted;
        outcome.refused = self.refused;
        outcome.failures = self.flows.iter().filter_map(|flow| flow.failed.clone()).take(5).collect();
        outcome.cpu(used);
        outcome.judge(self.scenario);
        Ok(outcome)
    }

    /// Sends what is due, and says how long nothing will be.
    fn on_schedule(&mut self, begin: Instant, now: Instant, scheduled: &mut u64) -> Duration {
        let rate = u128::from(self.scenario.rate.max(1));
        let at = |number: u64| begin + Duration::from_nanos((u128::from(number) * 1_000_000_000 / rate) as u64);
        while at(*scheduled) <= now {
            let due = at(*scheduled);
            let index = (*scheduled % self.flows.len() as u64) as usize;
            self.send(index, due);
            *scheduled += 1;
        }
        // Below two milliseconds the wait would be coarser than the schedule: look again at once.
        let left = at(*scheduled).saturating_duration_since(Instant::now());
        if left < Duration::from_millis(2) { Duration::ZERO } else { left - Duration::from_millis(1) }
    }

    /// One look at the sockets.
    fn turn(&mut self, poll: &mut Poll, events: &mut Events, timeout: Duration) -> Result<(), String> {
        match poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.to_string()),
            _ => {}
        }
        for event in events.iter() {
            let (index, side) = (event.token().0 / self.sides(), event.token().0 % self.sides());
            if event.is_writable()
                && let Err(error) = self.flows[index].ends[side].flush()
            {
                self.fail(index, error.to_string());
            }
            self.flows[index].ends[side].closing |= event.is_read_closed();
            if event.is_readable() && !(self.flows[index].slow && side > 0) {
                self.receive(index, side, usize::MAX);
            }
            if self.scenario.load == Load::Bulk && side == 0 {
                self.fill(index, Instant::now());
            }
        }
        self.read_slowly();
        Ok(())
    }

    /// Slow readers take what their rate allows since the last time; all there is once the load is over.
    fn read_slowly(&mut self) {
        let passed = self.slow_since.elapsed().min(Duration::from_millis(100));
        let allowed = (self.scenario.slow_octets as f64 * passed.as_secs_f64()) as usize;
        let allowed = if self.ending { usize::MAX } else { allowed };
        if allowed == 0 {
            return;
        }
        self.slow_since = Instant::now();
        for index in 0..self.scenario.slow_readers.min(self.flows.len()) {
            for side in 1..self.sides() {
                self.receive(index, side, allowed);
            }
        }
    }

    /// Bulk: up to the window, chunk by chunk. Closed: one message outstanding.
    fn fill(&mut self, index: usize, now: Instant) {
        loop {
            let flow = &self.flows[index];
            let room = match self.scenario.load {
                // A message that was begun is sent to its end.
                Load::Bulk => {
                    (!self.ending || flow.current.is_some())
                        && flow.in_flight < self.scenario.window
                        && flow.ends[0].pending() == 0
                }
                Load::Closed => !self.ending && flow.outstanding.is_empty(),
                _ => false,
            };
            if !room || flow.failed.is_some() {
                return;
            }
            if flow.current.is_none() {
                self.begin(index, now);
            }
            self.chunk(index);
            while self.scenario.load != Load::Bulk && self.flows[index].current.is_some() {
                self.chunk(index);
            }
        }
    }

    /// Sends a whole message.
    fn send(&mut self, index: usize, due: Instant) {
        if self.flows[index].failed.is_some() {
            return;
        }
        self.begin(index, due);
        while self.flows[index].current.is_some() {
            self.chunk(index);
        }
    }

    fn begin(&mut self, index: usize, due: Instant) {
        let octets = self.size();
        let left = self.scenario.targets;
        let flow = &mut self.flows[index];
        let number = flow.first + flow.outstanding.len() as u64;
        flow.outstanding.push_back(Pending { octets, due, left });
        flow.current = Some((number, octets, 0));
        self.sent += left as u64;
    }

    /// Sends the next chunk of the message that was begun.
    fn chunk(&mut self, index: usize) {
        let flow = &mut self.flows[index];
        let Some((number, total, at)) = flow.current else { return };
        let octets = (total - at).min(self.scenario.chunk_of(total));
        let last = at + octets == total;
        flow.current = (!last).then_some((number, total, at + octets));
        // Sixteen hex digits after seven dashes: the noise never has seven dashes in a row followed by them.
        let part = at / self.scenario.chunk_of(total);
        let tid = format!("{index:05x}{number:07x}{part:04x}");
        self.head.clear();
        let end = &flow.ends[0];
        let chunk = frame::Chunk { message_id: &format!("m{number:07x}"), start: at + 1, octets, total };
        frame::send_head(&mut self.head, &tid, &end.peer, &end.own, &chunk, &self.scenario.failure_report);
        let tail = format!("\r\n-------{tid}{}\r\n", if last { '$' } else { '+' });
        let body = self.noise.part(index, number, part, octets);
        flow.in_flight += octets;
        if let Err(error) = flow.ends[0].send(&[&self.head, body, tail.as_bytes()]) {
            self.fail(index, error.to_string());
        }
    }

    /// Reads one end and accounts for what it holds: messages at the called party, answers at either.
    fn receive(&mut self, index: usize, side: usize, limit: usize) {
        let Self { flows, noise, scenario, latency, buffer, head: replies, arrived, octets, corrupted, refused, .. } = self;
        let Flow { ends, outstanding, first, got, in_flight, failed, .. } = &mut flows[index];
        let end = &mut ends[side];
        let own = std::mem::take(&mut end.own);
        replies.clear();
        let result = end.receive(buffer, limit, |event| match event {
            Event::Body(body, at) if scenario.verify && side > 0 => {
                let number = got[side - 1].0;
                let pending = number.checked_sub(*first).and_then(|place| outstanding.get(place as usize));
                let same = pending.is_some_and(|pending| {
                    let place = noise::Place { session: index, message: number, chunk: scenario.chunk_of(pending.octets) };
                    at + body.len() <= pending.octets && noise.is(&place, at, body)
                });
                *corrupted += u64::from(!same);
            }
            Event::End(head, flag, in_chunk) if head.method == b"SEND" => {
                if side > 0 && head.has_body {
                    let (number, so_far) = &mut got[side - 1];
                    *so_far += in_chunk;
                    if side == 1 {
                        *in_flight = in_flight.saturating_sub(in_chunk);
                    }
                    if flag == b'$' {
                        let whole = std::mem::take(so_far);
                        let place = number.checked_sub(*first).map(|place| place as usize);
                        *number += 1;
                        let Some(pending) = place.and_then(|place| outstanding.get_mut(place)) else {
                            *corrupted += 1;
                            return;
                        };
                        *corrupted += u64::from(whole != pending.octets);
                        *arrived += 1;
                        *octets += pending.octets as u64;
                        pending.left = pending.left.saturating_sub(1);
                        let _ = latency.record(pending.due.elapsed().as_nanos() as u64);
                        while outstanding.front().is_some_and(|pending| pending.left == 0) {
                            outstanding.pop_front();
                            *first += 1;
                        }
                    }
                }
                if head.failure_report.is_empty() || head.failure_report == b"yes" {
                    frame::ok(replies, head, &own);
                }
            }
            Event::End(head, ..) if head.method.is_empty() && head.status != 200 => *refused += 1,
            _ => {}
        });
        end.own = own;
        if let Err(why) = result {
            failed.get_or_insert(why);
        }
        if end.closed {
            failed.get_or_insert(format!(
                "session {index}: the proxy closed the connection of the {}",
                ["caller", "called party"][side.min(1)]
            ));
        }
        if !replies.is_empty()
            && let Err(error) = end.send(&[replies])
        {
            failed.get_or_insert(error.to_string());
        }
        if side > 0 {
            self.fill(index, Instant::now());
        }
    }

    fn fail(&mut self, index: usize, why: String) {
        self.flows[index].failed.get_or_insert(why);
    }

    /// Sends nothing for as long as the scenario wants.
    fn rest(&mut self, poll: &mut Poll, events: &mut Events, quiet: bool) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs_f64(self.scenario.rest);
        if !quiet && self.scenario.rest > 0.0 {
            eprintln!("{}: {} sessions rest", self.scenario.name, self.flows.len());
        }
        while Instant::now() < until {
            self.turn(poll, events, Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn drain(&mut self, poll: &mut Poll, events: &mut Events) -> Result<(), String> {
        let until = Instant::now() + DRAIN;
        self.flows.iter_mut().for_each(|flow| flow.slow = false);
        self.ending = true;
        while self.arrived < self.sent
            && Instant::now() < until
            && self.flows.iter().any(|flow| flow.failed.is_none() && !flow.outstanding.is_empty())
        {
            self.turn(poll, events, Duration::from_millis(20))?;
        }
        Ok(())
    }
}
