//! Which connections are asked to acknowledge less often.
//!
//! A socket that is only received from acknowledges each small message at once, and that acknowledgement costs a quarter of what
//! relaying the message does. Where message follows message it may as well acknowledge every second one (RFC 1122 §4.2.3.2),
//! as it does by itself on connections that answer. Measured with 100 sessions: 0.75 of the CPU time.
//!
//! The kernel keeps to it until 40 ms pass without a second message, then acknowledges and goes back to its old way. A peer
//! that waits for the acknowledgement before it sends more (Nagle's algorithm) would lose those 40 ms each time it is tried, so
//! a connection on which a pause follows is tried half as often from then on.

use crate::base::clock::{Duration, Instant};
use std::os::fd::RawFd;

/// Receives after which a connection is looked at.
const LOOK: u8 = 32;
/// Octets of an average receive below which messages are small.
const SMALL: u32 = 4096;
/// Receives that follow each other within this time do so before the kernel loses patience (40 ms).
const PAUSE: Duration = Duration::from_millis(30);
/// The most looks that a connection is left alone.
const ALONE_MAX: u8 = 128;

/// What was seen of one connection since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acks {
    last: Instant,
    octets: u32,
    receives: u8,
    paused: bool,
    /// It was asked at the last look.
    asked: bool,
    /// Looks that it is still left alone, and how many after the next pause.
    alone: u8,
    next_alone: u8,
}

impl Acks {
    /// Something was received. True: ask now.
    pub fn received(&mut self, now: Instant, octets: u32) -> bool {
        self.paused |= now.since(self.last) > PAUSE;
        self.last = now;
        self.octets = self.octets.saturating_add(octets);
        self.receives += 1;
        self.receives >= LOOK && self.look()
    }

    fn look(&mut self) -> bool {
        if self.asked && self.paused {
            self.next_alone = self.next_alone.saturating_mul(2).clamp(1, ALONE_MAX);
            self.alone = self.next_alone;
        }
        let small = self.octets / u32::from(LOOK) < SMALL;
        self.asked = small && !self.paused && self.alone == 0;
        self.alone = self.alone.saturating_sub(1);
        (self.octets, self.receives, self.paused) = (0, 0, false);
        self.asked
    }
}

/// Asks the kernel to acknowledge every second segment. A hint: failure changes nothing.
pub fn ask(socket: RawFd) {
    let quick: libc::c_int = 0;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is read within the call.
    unsafe { libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_QUICKACK, std::ptr::from_ref(&quick).cast(), length) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it is asked in so many receives at this distance, with a pause of 40 ms behind each time it was.
    fn asked(receives: u32, octets: u32, apart: Duration, nagle: bool) -> u32 {
        let (mut acks, mut now, mut asked) = (Acks::default(), Instant::from_unix_s(1), 0);
        for _ in 0..receives {
            now += apart;
            if acks.received(now, octets) {
                asked += 1;
                now += if nagle { Duration::from_millis(40) } else { Duration::ZERO };
            }
        }
        asked
    }

    #[test]
    fn only_small_messages_that_follow_each_other_are_acknowledged_later() {
        let ms = Duration::from_millis;
        // The first receive follows a pause, so the first look is in vain.
        assert_eq!(asked(3200, 500, ms(10), false), 99);
        assert_eq!(asked(3200, 500, ms(40), false), 0);
        assert_eq!(asked(3200, 16_000, ms(1), false), 0);
    }

    #[test]
    fn a_peer_that_waits_for_acknowledgements_is_tried_ever_more_seldom() {
        let apart = Duration::from_millis(1);
        assert!(asked(32_000, 500, apart, true) <= 15);
    }
}
