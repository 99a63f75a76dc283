//! One MSRP session under a script: what was sent, answered and received, message by message.

use crate::body::Noise;
use crate::endpoint::Endpoint;
use crate::frame::{self, Event};
use mio::{Events, Interest, Poll, Token};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a message is filled with, and its length.
#[derive(Clone, Copy)]
pub enum Body {
    Text(usize),
    /// No octet of it is ASCII.
    Binary(usize),
}

impl Body {
    fn octets(self, noise: &Noise, number: u64) -> Vec<u8> {
        match self {
            Body::Text(octets) => noise.body(0, number, octets).to_vec(),
            Body::Binary(octets) => noise.body(0, number, octets).iter().map(|octet| octet | 0x80).collect(),
        }
    }
}

/// A caller's and a called party's end.
pub struct Line {
    ends: [Endpoint; 2],
    poll: Poll,
    events: Events,
    noise: Noise,
    buffer: Vec<u8>,
    /// Message bodies that are on their way, and how many of their octets came.
    expected: BTreeMap<u64, (Body, usize)>,
    /// The called party takes so many octets a millisecond until then.
    slow: Option<(usize, Instant, Instant)>,
    pub sent: u64,
    pub acknowledged: u64,
    pub arrived: u64,
    changed: u64,
    refused: BTreeMap<u16, u64>,
    broken: Option<String>,
}

impl Line {
    pub fn new(mut ends: [Endpoint; 2]) -> Result<Self, String> {
        let poll = Poll::new().map_err(|error| error.to_string())?;
        for (side, end) in ends.iter_mut().enumerate() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut end.stream, Token(side), interest).map_err(|error| error.to_string())?;
        }
        Ok(Self {
            ends,
            poll,
            events: Events::with_capacity(16),
            noise: Noise::new(8 << 20),
            buffer: vec![0; 256 * 1024],
            expected: BTreeMap::new(),
            slow: None,
            sent: 0,
            acknowledged: 0,
            arrived: 0,
            changed: 0,
            refused: BTreeMap::new(),
            broken: None,
        })
    }

    /// The called party is slow for a while.
    pub fn slow(&mut self, octets_a_millisecond: usize, time: Duration) {
        let now = Instant::now();
        self.slow = Some((octets_a_millisecond, now + time, now));
    }

    /// Sends `messages`, as fast as the kernel takes them, and waits until all have arrived or nothing has moved for `patience`.
    pub fn offer(&mut self, messages: u64, body: Body, patience: Duration) {
        let mut moved = (Instant::now(), 0, 0);
        while self.broken.is_none() && (self.arrived < messages || self.acknowledged < messages) {
            while self.sent < messages && self.ends[0].pending() == 0 && self.broken.is_none() {
                let frame = self.frame(body);
                self.write(&frame);
            }
            self.turn();
            if (self.arrived, self.acknowledged) != (moved.1, moved.2) {
                moved = (Instant::now(), self.arrived, self.acknowledged);
            }
            if moved.0.elapsed() > patience {
                return;
            }
        }
        // The other end may still get what the relay had when it closed one.
        self.settle(messages, Duration::from_millis(300));
    }

    /// Writes frames at once, the last one cut `tail` octets before its end; the rest follows in a write of its own.
    pub fn together(&mut self, frames: u64, tail: usize, body: Body) {
        let mut octets = Vec::new();
        for _ in 0..frames {
            octets.extend(self.frame(body));
        }
        let (first, rest) = octets.split_at(octets.len() - tail);
        self.write(first);
        if tail > 0 {
            // So that the relay reads what is there before the rest comes.
            std::thread::sleep(Duration::from_millis(2));
            self.write(rest);
        }
    }

    /// Waits until so many messages have arrived and been answered, or nothing has moved for `patience`.
    pub fn settle(&mut self, messages: u64, patience: Duration) {
        let mut moved = (Instant::now(), 0, 0);
        while (self.arrived < messages || self.acknowledged < messages) && moved.0.elapsed() < patience {
            self.turn();
            if (self.arrived, self.acknowledged) != (moved.1, moved.2) {
                moved = (Instant::now(), self.arrived, self.acknowledged);
            }
            if self.ends.iter().all(|end| end.closed) {
                return;
            }
        }
    }

    /// All messages arrived unchanged and were answered 200, on connections that still stand.
    pub fn sound(&self, messages: u64) -> bool {
        (self.arrived, self.acknowledged, self.changed) == (messages, messages, 0)
            && self.refused.is_empty()
            && self.broken.is_none()
    }

    /// What else went wrong, as a clause.
    pub fn trouble(&self) -> String {
        let mut text = String::new();
        if self.changed > 0 {
            text += &format!("; {} changed", self.changed);
        }
        for (status, count) in &self.refused {
            text += &format!("; {count} answered {status}");
        }
        if let Some(broken) = &self.broken {
            text += &format!("; {broken}");
        }
        text
    }

    /// The next message as one chunk.
    fn frame(&mut self, body: Body) -> Vec<u8> {
        let number = self.sent;
        self.sent += 1;
        let octets = body.octets(&self.noise, number);
        let tid = format!("fault{number:08x}");
        let mut frame = Vec::with_capacity(octets.len() + 512);
        let chunk = frame::Chunk { message_id: &format!("m{number:07x}"), start: 1, octets: octets.len(), total: octets.len() };
        frame::send_head(&mut frame, &tid, &self.ends[0].peer, &self.ends[0].own, &chunk, "yes");
        frame.extend_from_slice(&octets);
        frame.extend_from_slice(format!("\r\n-------{tid}$\r\n").as_bytes());
        self.expected.insert(number, (body, 0));
        frame
    }

    fn write(&mut self, octets: &[u8]) {
        if let Err(error) = self.ends[0].send(&[octets]) {
            self.broken.get_or_insert(format!("the caller's connection: {error}"));
        }
    }

    fn turn(&mut self) {
        let _ = self.poll.poll(&mut self.events, Some(Duration::from_millis(1)));
        if let Err(error) = self.ends[0].flush() {
            self.broken.get_or_insert(format!("the caller's connection: {error}"));
        }
        let limit = match &mut self.slow {
            Some((octets, until, last)) if Instant::now() < *until => {
                // Time that passed unseen counts, so that a busy machine makes nobody slower than said.
                let passed = last.elapsed().as_millis() as usize;
                *last += Duration::from_millis(passed as u64);
                *octets * passed
            }
            _ => usize::MAX,
        };
        self.receive(1, limit);
        self.receive(0, usize::MAX);
        for (side, name) in ["caller", "called party"].iter().enumerate() {
            if self.ends[side].closed {
                self.broken.get_or_insert(format!("the relay closed the connection of the {name}"));
            }
        }
    }

    fn receive(&mut self, side: usize, limit: usize) {
        let Self { ends, buffer, noise, expected, acknowledged, arrived, changed, refused, broken, .. } = self;
        let end = &mut ends[side];
        if end.closed || limit == 0 {
            return;
        }
        let (own, mut answers, mut chunk) = (end.own.clone(), Vec::new(), std::mem::take(&mut end.chunk));
        let result = end.receive(buffer, limit, |event| match event {
            Event::Body(octets, _) => chunk.extend_from_slice(octets),
            Event::End(head, ..) if head.method == b"SEND" => {
                let octets = std::mem::take(&mut chunk);
                if side == 1 && head.has_body {
                    let number = std::str::from_utf8(&head.message_id).ok().and_then(|id| u64::from_str_radix(&id[1..], 16).ok());
                    match number.and_then(|number| Some((number, expected.get_mut(&number)?))) {
                        Some((number, (body, got))) => {
                            let whole = body.octets(noise, number);
                            let start = head.start as usize - 1;
                            *changed += u64::from(whole.get(start..start + octets.len()) != Some(&octets[..]));
                            *got += octets.len();
                            if *got >= whole.len() {
                                *arrived += 1;
                                expected.remove(&number);
                            }
                        }
                        None => *changed += 1,
                    }
                }
                if head.failure_report.is_empty() || head.failure_report == b"yes" {
                    frame::ok(&mut answers, head, &own);
                }
            }
            Event::End(head, ..) if head.method.is_empty() && side == 0 => match head.status {
                200 => *acknowledged += 1,
                status => *refused.entry(status).or_default() += 1,
            },
            _ => {}
        });
        end.chunk = chunk;
        if let Err(why) = result {
            broken.get_or_insert(format!("what came is broken: {why}"));
            end.closed = true;
        }
        if !answers.is_empty()
            && let Err(error) = end.send(&[&answers])
        {
            broken.get_or_insert(error.to_string());
        }
        let _ = end.flush();
    }
}
