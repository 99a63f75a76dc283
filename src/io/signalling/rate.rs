//! RFC 3261 §26.1.5: an address that is not in `sip.trusted` may send so many requests a second; those beyond get 503 before a
//! transaction is made for them.

use crate::base::clock::{Duration, Instant};
use crate::limits::SIP_RATED_PEERS_MAX;
use std::collections::HashMap;
use std::net::IpAddr;

const WINDOW: Duration = Duration::from_secs(1);

/// Counts the requests of each address in the second that runs.
#[derive(Default)]
pub struct Rate {
    since: Option<Instant>,
    counts: HashMap<IpAddr, u32>,
    /// Of all addresses that found no place of their own.
    others: u32,
    /// Requests refused since the start.
    pub refused: u64,
}

impl Rate {
    /// Whether one more request of this address is within `most` in this second.
    pub fn admits(&mut self, now: Instant, peer: IpAddr, most: u32) -> bool {
        if self.since.is_none_or(|since| now.since(since) >= WINDOW) {
            self.since = Some(now);
            self.counts.clear();
            self.others = 0;
        }
        let room = self.counts.len() < SIP_RATED_PEERS_MAX;
        let count = match self.counts.get_mut(&peer) {
            Some(count) => count,
            None if room => self.counts.entry(peer).or_insert(0),
            None => &mut self.others,
        };
        let admitted = *count < most;
        *count += u32::from(admitted);
        self.refused += u64::from(!admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn each_address_has_so_many_a_second() {
        let mut rate = Rate::default();
        let start = Instant::from_unix_s(1);
        let admitted = |rate: &mut Rate, now, peer| (0..100).filter(|_| rate.admits(now, address(peer), 30)).count();
        assert_eq!(admitted(&mut rate, start, 1), 30);
        assert_eq!(admitted(&mut rate, start + WINDOW / 2, 1), 0);
        assert_eq!(admitted(&mut rate, start + WINDOW / 2, 2), 30, "another has its own");
        assert_eq!(admitted(&mut rate, start + WINDOW, 1), 30, "a second later there is room again");
        assert_eq!(rate.refused, 70 + 100 + 70 + 70);
    }

    #[test]
    fn more_addresses_than_can_be_counted_share_what_one_has() {
        let mut rate = Rate::default();
        let now = Instant::from_unix_s(1);
        let many = SIP_RATED_PEERS_MAX as u32 + 100;
        assert_eq!((0..many).filter(|peer| rate.admits(now, address(*peer), 7)).count(), SIP_RATED_PEERS_MAX + 7);
        assert_eq!(rate.counts.len(), SIP_RATED_PEERS_MAX);
    }
}
