//! MSRP load: bulk, closed loop and open loop over many sessions, from caller to called party, every message accounted for.

use crate::body::Noise;
use crate::cpu::{self, Meter};
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
const DRAIN: Duration = Duration::from_secs(10);

struct Flow {
    ends: [Endpoint; 2],
    /// Messages sent and not yet arrived: number, octets, time on the schedule.
    outstanding: VecDeque<(u64, usize, Instant)>,
    next: u64,
    in_flight: usize,
    failed: Option<String>,
    slow: bool,
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
        let longest = scenario.sizes().into_iter().max().unwrap_or(0);
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
            ending: false,
        }
    }

    fn add(&mut self, session: Session, poll: &Poll) -> Result<(), String> {
        let index = self.flows.len();
        let mut ends = [session.caller, session.called];
        for (side, end) in ends.iter_mut().enumerate() {
            poll.registry()
                .register(&mut end.stream, Token(index * 2 + side), Interest::READABLE | Interest::WRITABLE)
                .map_err(|error| error.to_string())?;
        }
        let slow = index < self.scenario.slow_readers;
        self.flows.push(Flow { ends, outstanding: VecDeque::new(), next: 0, in_flight: 0, failed: None, slow });
        Ok(())
    }

    fn size(&mut self) -> usize {
        if self.scenario.chunks.is_empty() {
            return self.scenario.chunk;
        }
        self.draw ^= self.draw << 13;
        self.draw ^= self.draw >> 7;
        self.draw ^= self.draw << 17;
        self.scenario.chunks[self.draw as usize % self.scenario.chunks.len()]
    }

    fn load(&mut self, poll: &mut Poll, meter: Option<Meter>, quiet: bool) -> Result<Outcome, String> {
        let mut events = Events::with_capacity(4096);
        let begin = Instant::now();
        let measured = begin + Duration::from_secs_f64(self.scenario.warmup);
        let end = measured + Duration::from_secs_f64(self.scenario.seconds);
        let mut marks: Option<(Instant, u64, u64, u64, u64)> = None;
        let mut scheduled = 0u64;
        let mut shown = begin;
        let read = |meter: &Option<Meter>| meter.as_ref().map_or(0, Meter::read);

        if self.scenario.load != Load::Open {
            for index in 0..self.flows.len() {
                self.fill(index, Instant::now());
            }
        }
        loop {
            let now = Instant::now();
            if marks.is_none() && now >= measured {
                self.latency.reset();
                marks = Some((now, self.octets, self.arrived, read(&meter), cpu::own()));
            }
            if now >= end {
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
        let (from, octets, arrived, cpu_before, own_before) = marks.ok_or("the warm-up is longer than the run")?;
        let seconds = from.elapsed().as_secs_f64();
        let (cpu_after, own_after) = (read(&meter), cpu::own());
        let (octets, messages) = (self.octets - octets, self.arrived - arrived);
        let latency = Latency::of(&self.latency);
        self.drain(poll, &mut events)?;

        let mut outcome = Outcome::new(self.scenario, "messages", messages, octets, seconds);
        outcome.latency = latency;
        outcome.lost = self.sent - self.arrived;
        outcome.corrupted = self.corrupted;
        outcome.refused = self.refused;
        outcome.failures = self.flows.iter().filter_map(|flow| flow.failed.clone()).take(5).collect();
        outcome.cpu(meter.is_some().then(|| (cpu_after - cpu_before) as f64 / 1e9), (own_after - own_before) as f64 / 1e9);
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
            let octets = self.size();
            self.send(index, octets, due);
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
            let (index, side) = (event.token().0 / 2, event.token().0 % 2);
            if event.is_writable()
                && let Err(error) = self.flows[index].ends[side].flush()
            {
                self.fail(index, error.to_string());
            }
            if event.is_readable() && !(self.flows[index].slow && side == 1) {
                self.receive(index, side, usize::MAX);
            }
            if self.scenario.load == Load::Bulk && side == 0 {
                self.fill(index, Instant::now());
            }
        }
        for index in 0..self.scenario.slow_readers.min(self.flows.len()) {
            self.receive(index, 1, self.scenario.slow_octets / 50 + 1);
        }
        Ok(())
    }

    /// Bulk: up to the window. Closed: one message outstanding.
    fn fill(&mut self, index: usize, now: Instant) {
        loop {
            let flow = &self.flows[index];
            let room = match self.scenario.load {
                _ if self.ending => false,
                Load::Bulk => flow.in_flight < self.scenario.window && flow.ends[0].pending() == 0,
                Load::Closed => flow.outstanding.is_empty(),
                _ => false,
            };
            if !room || flow.failed.is_some() {
                return;
            }
            let octets = self.size();
            self.send(index, octets, now);
        }
    }

    fn send(&mut self, index: usize, octets: usize, due: Instant) {
        let flow = &mut self.flows[index];
        if flow.failed.is_some() {
            return;
        }
        let number = flow.next;
        flow.next += 1;
        // Sixteen hex digits after seven dashes: the noise never has seven dashes in a row followed by them.
        let tid = format!("{index:06x}{number:010x}");
        self.head.clear();
        let end = &flow.ends[0];
        frame::send_head(
            &mut self.head,
            &tid,
            &end.peer,
            &end.own,
            &format!("m{number:07x}"),
            octets,
            &self.scenario.failure_report,
        );
        let tail = format!("\r\n-------{tid}$\r\n");
        let body = self.noise.body(index, number, octets);
        flow.outstanding.push_back((number, octets, due));
        flow.in_flight += octets;
        self.sent += 1;
        if let Err(error) = flow.ends[0].send(&[&self.head, body, tail.as_bytes()]) {
            self.fail(index, error.to_string());
        }
    }

    /// Reads one end and accounts for what it holds: messages at the called party, answers at either.
    fn receive(&mut self, index: usize, side: usize, limit: usize) {
        let Self { flows, noise, scenario, latency, buffer, head: replies, arrived, octets, corrupted, refused, .. } = self;
        let Flow { ends, outstanding, in_flight, failed, .. } = &mut flows[index];
        let end = &mut ends[side];
        let own = end.own.clone();
        replies.clear();
        let result = end.receive(buffer, limit, |event| match event {
            Event::Body(body, at) => {
                if scenario.verify
                    && side == 1
                    && let Some((number, size, _)) = outstanding.front()
                    && noise.body(index, *number, *size).get(at..at + body.len()) != Some(body)
                {
                    *corrupted += 1;
                }
            }
            Event::End(head, flag, got) if head.method == b"SEND" => {
                if side == 1 && head.has_body && flag == b'$' {
                    let Some((_, size, due)) = outstanding.pop_front() else { return };
                    *corrupted += u64::from(got != size && head.start == 1);
                    *arrived += 1;
                    *octets += size as u64;
                    *in_flight = in_flight.saturating_sub(size);
                    let _ = latency.record(due.elapsed().as_nanos() as u64);
                }
                if head.failure_report.is_empty() || head.failure_report == b"yes" {
                    frame::ok(replies, head, &own);
                }
            }
            Event::End(head, ..) if head.method.is_empty() && head.status != 200 => *refused += 1,
            _ => {}
        });
        if let Err(why) = result {
            failed.get_or_insert(why);
        }
        if end.closed {
            failed.get_or_insert(format!(
                "session {index}: the proxy closed the connection of the {}",
                ["caller", "called party"][side]
            ));
        }
        if !replies.is_empty()
            && let Err(error) = end.send(&[replies])
        {
            failed.get_or_insert(error.to_string());
        }
        if side == 1 {
            self.fill(index, Instant::now());
        }
    }

    fn fail(&mut self, index: usize, why: String) {
        self.flows[index].failed.get_or_insert(why);
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
