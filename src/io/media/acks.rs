//! Which connections are asked to acknowledge later.
//!
//! A socket that is only received from acknowledges each small message at once, and that acknowledgement costs a quarter of what
//! relaying the message does. It may as well wait for the next one (RFC 1122 §4.2.3.2), as it does by itself on connections that
//! answer. Measured with 100 sessions: 0.75 of the CPU time.
//!
//! The kernel keeps to it until 40 ms pass without a second message; then it acknowledges, and goes back to its old way. So it is
//! asked again behind each message that follows a pause; but not where the pause was as long as people make it. Then no second message
//! is to be expected, and the kernel acknowledges at once by itself while the segment comes in, before anybody receives it.
//!
//! A peer that holds back what it has until all before it is acknowledged (Nagle's algorithm) would lose those 40 ms each time. So
//! one that writes a small message in pieces is left alone; and two signs give others away, when just so much time has passed: the
//! rest of a message, and messages that come together. They are left alone twice as long each time.

use crate::base::clock::{Duration, Instant};
use std::ops::RangeInclusive;
use std::os::fd::RawFd;

/// Octets of a receive up to which it is of small messages.
const SMALL: u32 = 4096;
/// After such a pause the kernel may have lost patience (40 ms).
const PAUSE: Duration = Duration::from_millis(30);
/// After such a pause a kernel takes the sender for one that starts anew (its shortest time until a retransmission).
const REST: Duration = Duration::from_millis(200);
/// What was held back until then comes in so long after the receive before it.
const HELD_BACK: RangeInclusive<Duration> = Duration::from_millis(38)..=Duration::from_millis(60);
/// Receives after which the kernel is asked again without a pause: segments that came out of order made it forget.
const ASKED_FOR: u16 = 32;
/// The fewest and the most receives that a connection is left alone.
const ALONE: RangeInclusive<u16> = 32..=4096;

/// What a receive brought.
#[derive(Clone, Copy, Debug)]
pub struct Brought {
    pub octets: u32,
    /// Heads of messages in it.
    pub heads: u64,
    /// It ended where a message ends.
    pub whole: bool,
}

/// What was seen of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acks {
    last: Instant,
    /// Receives for which the kernel still keeps to what it was asked, or until it is asked again.
    asked: u16,
    alone: u16,
    next_alone: u16,
    /// The last receive ended inside a message.
    inside: bool,
    /// It was asked behind the last receive, whose acknowledgement had left by then: it still waits for one to hold back.
    fresh: bool,
}

impl Acks {
    /// Something was received. True: ask now.
    pub fn received(&mut self, now: Instant, brought: Brought) -> bool {
        let pause = now.since(self.last);
        let held_back = HELD_BACK.contains(&pause) && (self.inside || brought.heads > 1);
        (self.last, self.inside) = (now, !brought.whole);
        if held_back && self.asked > 0 {
            self.next_alone = self.next_alone.saturating_mul(2).clamp(*ALONE.start(), *ALONE.end());
            (self.alone, self.asked) = (self.next_alone, 0);
        }
        if self.inside && brought.octets <= SMALL {
            (self.alone, self.asked) = (self.alone.max(*ALONE.start()), 0);
        }
        if self.alone > 0 {
            self.alone -= 1;
            return false;
        }
        let kept = pause <= PAUSE || self.fresh;
        self.asked = if kept { self.asked.saturating_sub(1) } else { 0 };
        let ask = self.asked == 0 && pause < REST && brought.whole && brought.octets <= SMALL;
        self.fresh = ask;
        if ask {
            self.asked = ASKED_FOR;
        }
        ask
    }
}

/// Asks the kernel to let an acknowledgement wait for a second segment. A hint: failure changes nothing.
pub fn ask(socket: RawFd) {
    let quick: libc::c_int = 0;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is read within the call.
    unsafe { libc::setsockopt(socket, libc::IPPROTO_TCP, libc::TCP_QUICKACK, std::ptr::from_ref(&quick).cast(), length) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Brought = Brought { octets: 500, heads: 1, whole: true };

    /// How often it is asked in so many receives at this distance.
    fn asked(receives: u32, brought: Brought, apart: Duration) -> u32 {
        let (mut acks, mut now, mut asked) = (Acks::default(), Instant::from_unix_s(1), 0);
        for _ in 0..receives {
            now += apart;
            asked += u32::from(acks.received(now, brought));
        }
        asked
    }

    #[test]
    fn small_messages_are_acknowledged_later_and_after_a_pause_it_is_asked_again() {
        let ms = Duration::from_millis;
        assert_eq!(asked(3201, MESSAGE, ms(10)), 100);
        assert_eq!(asked(100, MESSAGE, ms(40)), 50, "what was asked for stands until an acknowledgement was held back");
        assert_eq!(asked(100, MESSAGE, ms(1000)), 0);
        assert_eq!(asked(3200, Brought { octets: 16_000, ..MESSAGE }, ms(1)), 0);
    }

    #[test]
    fn a_peer_that_waits_for_acknowledgements_is_tried_ever_more_seldom() {
        // Each message in two pieces, the second held back until the first is acknowledged: at once, or after 40 ms.
        let pieces = [Brought { heads: 0, whole: false, ..MESSAGE }, MESSAGE];
        // The same where the pieces are not small, and messages held back meanwhile that come together.
        let large = [Brought { octets: 4380, ..pieces[0] }, MESSAGE];
        let together = [MESSAGE, Brought { heads: 4, ..MESSAGE }];
        for pattern in [pieces, large, together] {
            let (mut acks, mut now, mut late) = (Acks::default(), Instant::from_unix_s(1), 0);
            for turn in 0..20_000 {
                now += Duration::from_millis(if turn % 2 == 0 {
                    100
                } else if acks.asked > 0 {
                    40
                } else {
                    1
                });
                late += u32::from(turn % 2 == 1 && acks.asked > 0);
                acks.received(now, pattern[turn % 2]);
            }
            assert!(late <= 15, "{late} of 10,000 messages came late");
        }
    }

    #[test]
    fn a_peer_that_just_happens_to_send_every_40_ms_waits_for_nothing() {
        let (mut acks, mut now) = (Acks::default(), Instant::from_unix_s(1));
        for message in 0..100 {
            now += Duration::from_millis(40);
            assert_eq!(acks.received(now, MESSAGE), message % 2 == 1);
        }
    }
}
