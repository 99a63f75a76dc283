//! What the clients of the demonstration see, drawn as it happens.

use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

/// Columns between two of the three lines.
const WIDTH: usize = 34;

/// Who stands at an outer line of the ladder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Alice,
    Bob,
}

/// A ladder of alice, the proxy and bob on standard output.
pub struct Ladder {
    started: Instant,
    out: Mutex<std::io::Stdout>,
}

impl Ladder {
    /// Draws the head.
    pub fn begin() -> Self {
        let ladder = Self { started: Instant::now(), out: Mutex::new(std::io::stdout()) };
        ladder.print(&format!("{:>13}{:^width$}{:>5}", "alice", "cpm-pf", "bob", width = 2 * WIDTH - 6));
        ladder
    }

    /// Seconds since the ladder began.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// A line of text across the ladder.
    pub fn note(&self, text: &str) {
        self.print(&format!("\n{:10.6}  == {text}", self.seconds()));
    }

    /// A message that left a client.
    pub fn sent(&self, side: Side, what: &str) {
        self.arrow(side, what, side == Side::Alice);
    }

    /// A message that came to a client.
    pub fn came(&self, side: Side, what: &str) {
        self.arrow(side, what, side == Side::Bob);
    }

    fn arrow(&self, side: Side, what: &str, right: bool) {
        let what: String = what.chars().take(WIDTH - 5).collect();
        let dashes = "-".repeat(WIDTH - 4 - what.chars().count());
        let arrow = if right { format!("- {what} {dashes}>") } else { format!("<{dashes} {what} -") };
        let (left, right) = match side {
            Side::Alice => (arrow, String::new()),
            Side::Bob => (" ".repeat(WIDTH), arrow),
        };
        self.print(&format!("{:10.6} |{left}|{right:WIDTH$}|", self.seconds()));
    }

    fn print(&self, line: &str) {
        // A closed standard output is no reason to fail, and a poisoned lock none to be silent.
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = writeln!(out, "{}", line.trim_end());
    }
}
