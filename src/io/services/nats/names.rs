//! NATS ADR-8: what the keys of the shared store of deferred messages say, so that questions are answered by names alone.
//!
//! ```text
//! u.USER.ARRIVED.EXPIRES.ID     what waits for a user: one user's names, nobody else's
//! x.DAY.MINUTE.ID               what is over in a minute since the Unix epoch; its value is the name above
//! m.ID                          the message
//! ```

use crate::store::deferred::Deferred;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use std::collections::VecDeque;

const MINUTE_S: u64 = 60;
const DAY_S: u64 = 24 * 3600;
/// Days before the start that are looked through for what was over while no node was there.
const DAYS_BEFORE: u64 = 60;
/// A minute is looked through until so long after its end: other clocks, and changes that the servers carry out late.
const LATE_S: u64 = 120;

/// A name `u.USER.ARRIVED.EXPIRES.ID`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    pub user: String,
    pub arrived_s: u64,
    pub expires_s: u64,
    pub id: String,
}

impl Name {
    /// The name of a message.
    pub fn of(message: &Deferred) -> Self {
        let (arrived_s, expires_s) = (message.arrived_s, message.expires_s);
        Self { user: token(&message.user), arrived_s, expires_s, id: message.id.0.clone() }
    }

    /// Twenty digits hold any u64, so names sort as their numbers do.
    pub fn key(&self) -> String {
        format!("u.{}.{:020}.{:020}.{}", self.user, self.arrived_s, self.expires_s, self.id)
    }

    /// The key under which it is found when its time is over.
    pub fn expiry(&self) -> String {
        format!("x.{}.{}.{}", self.expires_s / DAY_S, self.expires_s / MINUTE_S, self.id)
    }

    /// Reads a key; None: it is none of a name.
    pub fn parse(key: &str) -> Option<Self> {
        let mut pieces = key.strip_prefix("u.")?.split('.');
        let user = pieces.next()?.to_owned();
        let (arrived_s, expires_s) = (pieces.next()?.parse().ok()?, pieces.next()?.parse().ok()?);
        Some(Self { user, arrived_s, expires_s, id: pieces.next()?.to_owned() })
    }
}

/// A user's address as one token of a subject: base64 for URLs, which has no dot.
pub fn token(user: &str) -> String {
    URL_SAFE.encode(user)
}

/// Stretches of time whose messages are over and have to be looked for, each a minute or a whole day.
#[derive(Debug, Default)]
pub struct Over {
    stretches: VecDeque<Stretch>,
    /// Minutes before this one are in.
    next: Option<u64>,
}

/// A part of the time that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stretch {
    Day(u64),
    Minute(u64),
}

impl Stretch {
    /// What its keys are found by.
    pub fn pattern(self) -> String {
        match self {
            Self::Day(day) => format!("x.{day}.>"),
            Self::Minute(minute) => format!("x.{}.{minute}.>", minute * MINUTE_S / DAY_S),
        }
    }

    const fn end_s(self) -> u64 {
        match self {
            Self::Day(day) => (day + 1) * DAY_S,
            Self::Minute(minute) => (minute + 1) * MINUTE_S,
        }
    }
}

impl Over {
    /// What is to be looked through now, at most `max` of it, in turns.
    pub fn due(&mut self, now_s: u64, max: usize) -> Vec<Stretch> {
        let today = now_s / DAY_S;
        let first = self.next.unwrap_or_else(|| {
            self.stretches.extend((today.saturating_sub(DAYS_BEFORE)..today).rev().map(Stretch::Day));
            today * DAY_S / MINUTE_S
        });
        // The latest come first: after a start what is over now does not wait for what was over before.
        let next = now_s / MINUTE_S + 1;
        for minute in first..next {
            self.stretches.push_front(Stretch::Minute(minute));
        }
        self.next = Some(next.max(first));
        let count = max.min(self.stretches.len());
        self.stretches.drain(..count).collect()
    }

    /// A stretch was looked through. It comes again where something was left, or where its end is near.
    pub fn looked(&mut self, stretch: Stretch, left: bool, now_s: u64) {
        if now_s < stretch.end_s() + LATE_S {
            self.stretches.push_front(stretch);
        } else if left {
            self.stretches.push_back(stretch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_who_when_and_which() {
        let name = Name { user: token("sip:bob@example.net"), arrived_s: 5, expires_s: u64::MAX, id: "a-B_1".to_owned() };
        assert_eq!(Name::parse(&name.key()), Some(name));
        assert!(Name::parse("m.x").is_none() && Name::parse("u.a.b").is_none());
    }

    #[test]
    fn what_is_over_is_looked_for_by_minutes_and_before_the_start_by_days() {
        let now = 100 * DAY_S + 90;
        let name = Name { user: "u".into(), arrived_s: 1, expires_s: now, id: "i".into() };
        let mut over = Over::default();
        let first = over.due(now, 1000);
        assert_eq!(first.len() as u64, DAYS_BEFORE + 2);
        assert_eq!((first[0].pattern(), first[61].pattern()), ("x.100.144001.>".to_owned(), "x.40.>".to_owned()));
        assert_eq!(name.expiry(), "x.100.144001.i");
        for stretch in first {
            over.looked(stretch, stretch == Stretch::Day(90), now);
        }
        // The days are done, but for the one with something left; minutes are seen again for a while.
        let [earlier, this] = [144_000, 144_001].map(Stretch::Minute);
        assert_eq!(over.due(now, 1000), [Stretch::Day(99), earlier, this, Stretch::Day(90)]);
        over.looked(this, false, now + LATE_S + 60);
        assert_eq!(over.due(now + LATE_S + 60, 2), [144_004, 144_003].map(Stretch::Minute));
        assert_eq!(over.due(now + LATE_S + 60, 9), [Stretch::Minute(144_002)]);
    }
}
