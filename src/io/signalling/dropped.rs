//! RFC 3261 §18.3, §8.2.7: octets that are no message and could not be answered leave a line in the log: when they came, from whom,
//! how many there were. With that their packet is found in a capture. The lines of a second are bounded.

use crate::base::clock::{Duration, Instant};
use crate::base::transport::Flow;
use std::net::SocketAddr;

/// Lines of one core in [`WINDOW`].
const LINES_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Writes the lines of one core.
#[derive(Default)]
pub struct Dropped {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Dropped {
    /// Notes octets that were dropped, and why.
    pub fn note(&mut self, now: Instant, flow: &Flow, octets: usize, cause: &'static str) {
        if let Some(left_out) = self.admit(now) {
            let (peer, transport) = (flow.peer, flow.transport.as_via());
            tracing::info!(%peer, transport, octets, cause, left_out, "dropped without an answer");
        }
    }

    /// Notes a connection or a request that was not taken, and the limit that it met.
    pub fn refused(&mut self, now: Instant, peer: SocketAddr, limit: &'static str) {
        if let Some(left_out) = self.admit(now) {
            tracing::info!(%peer, limit, left_out, "refused by a limit");
        }
    }

    /// Whether there is a line for one more: how many had none since the line before.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.since(since) >= WINDOW) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_writes_few_lines_and_says_how_many_it_did_not() {
        let mut dropped = Dropped::default();
        let start = Instant::from_unix_s(1);
        let lines = (0..1000).filter(|_| dropped.admit(start).is_some()).count();
        assert_eq!(lines, 10);
        assert_eq!(dropped.admit(start + WINDOW), Some(990));
        assert_eq!(dropped.admit(start + WINDOW), Some(0));
    }
}
