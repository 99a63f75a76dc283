//! Faults that MSRP relays in the field have, each as a script against a running relay.
//!
//! | fault | what goes wrong elsewhere |
//! |---|---|
//! | slow-reader | messages that were answered 200 are thrown away when the receiver is slow |
//! | stall | nothing moves any more once more than 64 KiB are in flight |
//! | two-frames | the second frame of one read breaks the stream, or octets that are no text do |
//! | big-chunk | a chunk above the relay's frame size is refused or cut |

use crate::establish::{Establisher, Session};
use crate::line::{Body, Line};
use crate::scenario::Scenario;
use serde::Serialize;
use std::time::Duration;

/// Names of the scripts, in the order of the table.
pub const NAMES: [&str; 4] = ["slow-reader", "stall", "two-frames", "big-chunk"];

/// How much is sent.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Octets sent to the reader that takes `chunk` octets a millisecond for `slow`.
    pub slow_reader: usize,
    pub slow: Duration,
    /// Octets in flight at once for the stall.
    pub in_flight: usize,
    /// Sizes of single chunks, rising.
    pub chunks: Vec<usize>,
    /// How long nothing may move before a relay counts as stalled.
    pub patience: Duration,
}

impl Default for Effort {
    /// What showed the faults in every relay that has them.
    fn default() -> Self {
        Self {
            slow_reader: 64 << 20,
            slow: Duration::from_secs(3),
            in_flight: 4 << 20,
            chunks: vec![8 << 10, 10_000, 16 << 10, 64 << 10, 1 << 20, 8 << 20],
            patience: Duration::from_secs(5),
        }
    }
}

impl Effort {
    /// Enough to show that a relay has none of them, in about a second.
    pub fn small() -> Self {
        Self {
            slow_reader: 12 << 20,
            slow: Duration::from_millis(300),
            in_flight: 1 << 20,
            chunks: vec![10_000, 64 << 10, 2 << 20],
            patience: Duration::from_secs(20),
        }
    }
}

/// What one script found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verdict {
    pub fault: &'static str,
    pub sound: bool,
    /// What was counted.
    pub found: String,
}

/// Runs one script, or all, against the relay that the scenario names.
///
/// # Errors
/// No session could be set up at all, or there is no such script.
pub fn run(scenario: &Scenario, which: &str, effort: &Effort) -> Result<Vec<Verdict>, String> {
    if which != "all" && !NAMES.contains(&which) {
        return Err(format!("{which}: one of {NAMES:?} or all is wanted"));
    }
    let scenario = Scenario { failure_report: "yes".into(), ..scenario.clone() };
    let mut scripts = Scripts { establisher: Establisher::new(&scenario)?, made: 0, byes: Vec::new() };
    let mut verdicts = Vec::new();
    for name in NAMES.into_iter().filter(|name| which == "all" || which == *name) {
        verdicts.push(match name {
            "slow-reader" => scripts.slow_reader(effort)?,
            "stall" => scripts.stall(effort)?,
            "two-frames" => scripts.two_frames(effort)?,
            _ => scripts.big_chunk(effort)?,
        });
    }
    scripts.establisher.end(std::mem::take(&mut scripts.byes).into_iter());
    Ok(verdicts)
}

struct Scripts<'s> {
    establisher: Establisher<'s>,
    made: usize,
    byes: Vec<String>,
}

impl Scripts<'_> {
    /// A session of its own for each script: one that broke must not spoil the next.
    fn line(&mut self) -> Result<Line, String> {
        let Session { caller, called, bye } = self.establisher.session(self.made)?;
        self.made += 1;
        self.byes.extend(bye);
        let called = called.into_iter().next().ok_or("a session without a called party")?;
        Line::new([caller, called])
    }

    /// As much as TCP takes goes to a reader that takes one chunk a millisecond; later it reads as fast as it can.
    fn slow_reader(&mut self, effort: &Effort) -> Result<Verdict, String> {
        const CHUNK: usize = 8_000;
        let mut line = self.line()?;
        let messages = (effort.slow_reader / CHUNK) as u64;
        line.slow(CHUNK, effort.slow);
        line.offer(messages, Body::Text(CHUNK), effort.patience);
        let lost = line.acknowledged.saturating_sub(line.arrived);
        let found = format!(
            "{} of {messages} messages of {CHUNK} octets sent, {} answered 200, {} arrived: {lost} lost behind a 200{}",
            line.sent,
            line.acknowledged,
            line.arrived,
            line.trouble()
        );
        Ok(Verdict { fault: "slow-reader", sound: line.sound(messages), found })
    }

    /// Far more than one queue is in flight at once; the reader is as fast as the relay.
    fn stall(&mut self, effort: &Effort) -> Result<Verdict, String> {
        const CHUNK: usize = 2_048;
        let mut line = self.line()?;
        let messages = (effort.in_flight / CHUNK) as u64;
        line.offer(messages, Body::Text(CHUNK), effort.patience);
        let found = format!("{} of {messages} messages of {CHUNK} octets arrived, sent at once{}", line.arrived, line.trouble());
        Ok(Verdict { fault: "stall", sound: line.sound(messages), found })
    }

    /// Several frames in one write, ends in the middle of frames, and octets of every value.
    fn two_frames(&mut self, effort: &Effort) -> Result<Verdict, String> {
        let mut line = self.line()?;
        let mut expected = 0;
        for (frames, tail, octets) in [(2, 0, 40), (3, 0, 200), (5, 0, 40), (2, 30, 200), (2, 300, 200), (40, 0, 200)] {
            for body in [Body::Text(octets), Body::Binary(octets)] {
                expected += frames;
                line.together(frames, tail, body);
                line.settle(expected, effort.patience);
            }
        }
        let found = format!("{} of {expected} messages arrived, several a write{}", line.arrived, line.trouble());
        Ok(Verdict { fault: "two-frames", sound: line.sound(expected), found })
    }

    /// Single chunks of rising size, each on a connection of its own.
    fn big_chunk(&mut self, effort: &Effort) -> Result<Verdict, String> {
        let mut largest = 0;
        for &octets in &effort.chunks {
            let mut line = self.line()?;
            line.offer(1, Body::Text(octets), effort.patience);
            if !line.sound(1) {
                let found = format!("chunks of {largest} octets pass, one of {octets} does not{}", line.trouble());
                return Ok(Verdict { fault: "big-chunk", sound: false, found });
            }
            largest = octets;
        }
        Ok(Verdict { fault: "big-chunk", sound: true, found: format!("chunks of up to {largest} octets pass whole") })
    }
}
