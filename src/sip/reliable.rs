//! RFC 3262: provisional responses that are sent until they are acknowledged.
//!
//! ```text
//! who answers (§3)     push -> [waiting] -> outstanding -- PRACK --> the next of waiting
//!                                             | T1, 2*T1, 4*T1 …: sent again
//!                                             | 64*T1: given up, the request is refused
//! who asked (§4)       the first RSeq begins; the next one is taken; any other is not
//! ```

use super::header::name::Name;
use super::header::rack;
use super::message::Response;
use crate::base::prng::Prng;
use crate::limits::RELIABLE_RESPONSES_MAX;
use std::collections::VecDeque;
use std::time::Duration;

/// The option tag.
pub const TAG: &str = "100rel";

/// The RSeq of a response that wants a PRACK (§4); none for any other, 100 among them.
pub fn sequence_of(response: &Response) -> Option<u32> {
    let asks = (101..200).contains(&response.status()) && response.lists(Name::Require, TAG);
    response.header(Name::RSeq).filter(|_| asks).and_then(rack::number_of)
}

/// The reliable responses to one request, one on the wire at a time.
#[derive(Debug)]
pub struct Reliable<T> {
    /// RSeq of the one on the wire, or of the one before the next.
    number: u32,
    waiting: VecDeque<T>,
    outstanding: Option<T>,
    resend_after: Duration,
    waited: Duration,
}

/// What follows when a response was not acknowledged in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overdue {
    /// It is sent once more, and this is the time to the next look.
    Resend(Duration),
    /// 64*T1 are over: the request is refused.
    GiveUp,
}

impl<T> Reliable<T> {
    pub fn new(prng: &mut Prng) -> Self {
        // "chosen uniformly" from the range, with room above so that it never wraps.
        let number = prng.below(u64::from(rack::NUMBER_MAX / 2)) as u32;
        let (waiting, outstanding) = (VecDeque::new(), None);
        Self { number, waiting, outstanding, resend_after: Duration::ZERO, waited: Duration::ZERO }
    }

    /// Takes a response to be sent when those before it are acknowledged.
    ///
    /// # Errors
    /// The response, where too many wait already.
    pub fn push(&mut self, response: T) -> Result<(), T> {
        if self.waiting.len() >= RELIABLE_RESPONSES_MAX {
            return Err(response);
        }
        self.waiting.push_back(response);
        Ok(())
    }

    /// Puts the next response on the wire, unless one is there: it is [`Reliable::outstanding`] now, to be looked at after `t1`.
    pub fn begin(&mut self, t1: Duration) -> bool {
        if self.outstanding.is_some() || self.waiting.is_empty() {
            return false;
        }
        self.outstanding = self.waiting.pop_front();
        self.number += 1;
        (self.resend_after, self.waited) = (t1, t1);
        true
    }

    /// The response on the wire, with its RSeq.
    pub fn outstanding(&self) -> Option<(u32, &T)> {
        self.outstanding.as_ref().map(|response| (self.number, response))
    }

    /// A PRACK names this RSeq. None: it is not on the wire (any more).
    pub fn acknowledged(&mut self, number: u32) -> Option<T> {
        if number == self.number { self.outstanding.take() } else { None }
    }

    /// Time is up for the response on the wire.
    pub fn overdue(&mut self, t1: Duration) -> Overdue {
        if self.waited >= t1 * 64 {
            return Overdue::GiveUp;
        }
        // The last wait ends with 64*T1.
        self.resend_after = (self.resend_after * 2).min(t1 * 64 - self.waited);
        self.waited += self.resend_after;
        Overdue::Resend(self.resend_after)
    }

    /// The final response goes out: no new one is begun, and what is on the wire can still be acknowledged (§3).
    pub fn finish(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.waiting)
    }
}

/// Whether a response is the next in its dialog, `last` being the RSeq taken before (§4).
pub fn is_next(last: Option<u32>, number: u32) -> bool {
    last.is_none_or(|last| number == last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: Duration = Duration::from_millis(500);

    #[test]
    fn one_response_is_on_the_wire_until_its_prack() {
        let mut reliable = Reliable::new(&mut Prng::seeded(1));
        assert!(!reliable.begin(T1) && reliable.outstanding().is_none());
        reliable.push("a").unwrap();
        reliable.push("b").unwrap();
        assert!(reliable.begin(T1) && !reliable.begin(T1));
        let (number, response) = reliable.outstanding().unwrap();
        assert!(number > 0 && *response == "a");
        assert_eq!(reliable.acknowledged(number + 1), None);
        assert_eq!(reliable.acknowledged(number), Some("a"));
        assert_eq!(reliable.acknowledged(number), None);
        assert!(reliable.begin(T1));
        assert_eq!(reliable.outstanding(), Some((number + 1, &"b")));
        reliable.push("c").unwrap();
        assert_eq!(reliable.finish(), ["c"]);
        assert_eq!(reliable.acknowledged(number + 1), Some("b"));
        assert!(!reliable.begin(T1));
    }

    #[test]
    fn a_response_is_sent_again_until_64_times_t1() {
        let mut reliable = Reliable::new(&mut Prng::seeded(1));
        reliable.push(()).unwrap();
        reliable.begin(T1);
        let mut waits = vec![T1];
        while let Overdue::Resend(wait) = reliable.overdue(T1) {
            waits.push(wait);
        }
        assert_eq!(waits.iter().sum::<Duration>(), T1 * 64);
        assert_eq!(waits.iter().map(|wait| wait.as_millis()).collect::<Vec<_>>(), [500, 1000, 2000, 4000, 8000, 16000, 500]);
    }

    #[test]
    fn no_more_wait_than_the_limit() {
        let mut reliable = Reliable::new(&mut Prng::seeded(1));
        assert!((0..RELIABLE_RESPONSES_MAX).all(|number| reliable.push(number).is_ok()));
        assert_eq!(reliable.push(99), Err(99));
    }

    #[test]
    fn what_wants_a_prack_says_so() {
        let of = |status: u16, fields: &str| {
            let text = format!("SIP/2.0 {status} X\r\nCSeq: 1 INVITE\r\n{fields}\r\n");
            sequence_of(&Response::parse(text.as_bytes()).unwrap())
        };
        assert_eq!(of(183, "Require: foo, 100REL\r\nRSeq: 7\r\n"), Some(7));
        assert_eq!(of(100, "Require: 100rel\r\nRSeq: 7\r\n"), None);
        assert_eq!(of(200, "Require: 100rel\r\nRSeq: 7\r\n"), None);
        assert_eq!(of(183, "RSeq: 7\r\n"), None);
        assert_eq!(of(183, "Require: 100rel\r\nRSeq: 0\r\n"), None);
        assert!(is_next(None, 9) && is_next(Some(9), 10) && !is_next(Some(9), 9) && !is_next(Some(9), 11));
    }
}
