//! RFC 4028: session timers, in both roles; each dialog has its own.
//!
//! What is negotiated is in the first half (§7.2, §7.3, §9), what then runs in the second:
//!
//! ```text
//!            Agreed(we refresh)            Refresh: send one
//!     Off ------------------------> Ours ---------------------> Asking ---- 408, 481, silence: BYE ---> Over
//!      |  \                          ^ ^_____ other failure _____|  |
//!      |   \ Agreed(peer refreshes)  |________ 2xx: Agreed _________|
//!      |    \----------------------> Theirs                                        any: Expiry: BYE ---> Over
//! ```
//! A 2xx of either side to a refresh of either side is `Agreed` again, with what it says (§7.2, §9).

use super::header::min_se;
use super::header::name::Name;
use super::header::session_expires::{Refresher, SessionExpires};
use super::message::{Malformed, Message, Response};
use std::time::Duration;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// `Supported: timer` stands.
    pub supported: bool,
    pub expires: Option<SessionExpires>,
    /// The shortest interval the hops before us accept.
    pub min_se_s: u32,
}

/// What a 2xx is to say (§9, table 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    pub delta_s: u32,
    pub refresher: Refresher,
    /// `Require: timer` stands.
    pub require: bool,
}

impl Answer {
    /// The Session-Expires to be written.
    pub const fn session_expires(&self) -> SessionExpires {
        SessionExpires { delta_s: self.delta_s, refresher: Some(self.refresher) }
    }
}

/// What a retry after 422 is to say (§7.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retry {
    pub delta_s: u32,
    pub min_se_s: u32,
}

impl Offer {
    /// Reads what a request asks for; `floor_s` is the Min-SE of a request without one.
    ///
    /// # Errors
    /// [`Malformed`] where Session-Expires or Min-SE cannot be read: 400.
    pub fn of(request: &Message, floor_s: u32) -> Result<Self, Malformed> {
        Ok(Self {
            supported: request.lists(Name::Supported, "timer") || request.lists(Name::Require, "timer"),
            expires: request.header(Name::SessionExpires).map(SessionExpires::parse).transpose()?,
            min_se_s: request.header(Name::MinSe).map_or(Ok(floor_s), |value| min_se::parse(value, floor_s))?,
        })
    }

    /// §9: whether 422 is the answer, with `min_s` as its Min-SE. Only who supports timers can make use of it.
    pub fn too_small(&self, min_s: u32) -> bool {
        self.supported && self.expires.is_some_and(|asked| asked.delta_s < min_s)
    }

    /// §9: what the 2xx says. `wish_s` is the interval we should like, `mine` whom we choose where the choice is ours.
    /// Where nobody asked, we ask for `wish_s` ourselves, unless `wish_s` is none.
    pub fn answer(&self, wish_s: Option<u32>, mine: Refresher) -> Option<Answer> {
        let delta_s = match (self.expires, wish_s) {
            // Reduced at will, never below Min-SE and never increased.
            (Some(asked), Some(wish_s)) => asked.delta_s.min(wish_s.max(self.min_se_s)),
            (Some(asked), None) => asked.delta_s,
            (None, Some(wish_s)) => wish_s.max(self.min_se_s),
            (None, None) => return None,
        };
        let asked = self.expires.and_then(|asked| asked.refresher);
        // Table 2: who does not support timers cannot refresh; else its choice stands; else it is ours.
        let refresher = if self.supported { asked.unwrap_or(mine) } else { Refresher::Uas };
        Some(Answer { delta_s, refresher, require: self.supported })
    }
}

/// §7.2: what a 2xx to our request means: interval and whether we refresh. Where it says nothing although we asked, the
/// peer knows no timers: we refresh on our own, with the interval we asked for (§7.2 allows it, and keeps us from a
/// session that nobody ends). A 2xx without refresher follows what we asked for. Nothing below `floor_s` is agreed to.
///
/// # Errors
/// [`Malformed`] where Session-Expires cannot be read.
pub fn agreed(asked: Option<SessionExpires>, response: &Response, floor_s: u32) -> Result<Option<(u32, bool)>, Malformed> {
    let said = response.header(Name::SessionExpires).map(SessionExpires::parse).transpose()?;
    Ok(match (said, asked) {
        (Some(said), _) => {
            let refresher = said.refresher.or(asked.and_then(|asked| asked.refresher)).unwrap_or(Refresher::Uac);
            Some((said.delta_s.max(floor_s), refresher == Refresher::Uac))
        }
        (None, Some(asked)) => Some((asked.delta_s, true)),
        (None, None) => None,
    })
}

/// §7.3, §7.4: how to try again after 422: at least its Min-SE, and the largest Min-SE heard so far. None: the 422 says
/// nothing we did not obey already, so trying again is in vain.
pub fn retry(asked_s: u32, heard_s: Option<u32>, response: &Response, floor_s: u32) -> Option<Retry> {
    let min_se_s = min_se::parse(response.header(Name::MinSe)?, floor_s).ok()?.max(heard_s.unwrap_or(0));
    (min_se_s > asked_s).then_some(Retry { delta_s: min_se_s, min_se_s })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// No timer was agreed on.
    Off,
    /// We refresh at half time.
    Ours { interval_s: u32 },
    /// Our refresh is under way.
    Asking { interval_s: u32 },
    /// The peer refreshes.
    Theirs { interval_s: u32 },
    /// The session has been ended.
    Over,
}

impl State {
    /// What a request of ours that is no refresh says, so that it does not end the timer: as it was agreed (§7.4). None
    /// where there is none.
    pub const fn kept(self) -> Option<SessionExpires> {
        match self {
            State::Ours { interval_s } | State::Asking { interval_s } => {
                Some(SessionExpires { delta_s: interval_s, refresher: Some(Refresher::Uac) })
            }
            State::Theirs { interval_s } => Some(SessionExpires { delta_s: interval_s, refresher: Some(Refresher::Uas) }),
            State::Off | State::Over => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Timer {
    Refresh,
    Expiry,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A 2xx was sent or came that agrees on this interval.
    Agreed {
        interval_s: u32,
        ours: bool,
    },
    /// A 2xx without Session-Expires: no expiry, no refreshes (§9).
    Unbound,
    Timer(Timer),
    /// Our refresh was answered 408 or 481, or not at all (§10).
    Lost,
    /// Our refresh failed otherwise; it may be tried again after this time (491, Retry-After, 422).
    Failed {
        retry_after: Duration,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Arms the timer, in place of an earlier one of its name.
    Arm(Timer, Duration),
    /// Send a refresh.
    Refresh,
    /// End the session (Reason: the session timer).
    Bye,
}

impl State {
    /// Timers that go on in this state; any other dies with the state it was armed in.
    pub fn keeps(self, timer: Timer) -> bool {
        match self {
            State::Off | State::Over => false,
            State::Ours { .. } => true,
            State::Asking { .. } | State::Theirs { .. } => timer == Timer::Expiry,
        }
    }
}

/// §7.2, §9: refresh at half of the interval.
fn refresh_after(interval_s: u32) -> Duration {
    Duration::from_secs(u64::from(interval_s)) / 2
}

/// §10: BYE slightly before the expiry, by 32 s or a third of the interval, whichever is less.
fn expiry_after(interval_s: u32) -> Duration {
    let interval = Duration::from_secs(u64::from(interval_s));
    interval - (interval / 3).min(Duration::from_secs(32))
}

pub fn step(state: State, event: Event, actions: &mut Vec<Action>) -> State {
    use State::{Asking, Off, Ours, Over, Theirs};
    match (state, event) {
        (Over, _) => Over,
        (_, Event::Agreed { interval_s, ours: true }) => {
            actions.extend([
                Action::Arm(Timer::Refresh, refresh_after(interval_s)),
                Action::Arm(Timer::Expiry, expiry_after(interval_s)),
            ]);
            Ours { interval_s }
        }
        (_, Event::Agreed { interval_s, ours: false }) => {
            actions.push(Action::Arm(Timer::Expiry, expiry_after(interval_s)));
            Theirs { interval_s }
        }
        (_, Event::Unbound) => Off,
        (Ours { interval_s }, Event::Timer(Timer::Refresh)) => {
            actions.push(Action::Refresh);
            Asking { interval_s }
        }
        (Ours { .. } | Asking { .. } | Theirs { .. }, Event::Timer(Timer::Expiry)) | (Asking { .. }, Event::Lost) => {
            actions.push(Action::Bye);
            Over
        }
        // §10: only a 2xx extends the session; its expiry goes on.
        (Asking { interval_s }, Event::Failed { retry_after }) => {
            actions.push(Action::Arm(Timer::Refresh, retry_after));
            Ours { interval_s }
        }
        (state, _) => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::header::min_se::FLOOR_S;
    use std::fmt::Write as _;

    fn table() -> String {
        let states = [
            State::Off,
            State::Ours { interval_s: 1800 },
            State::Asking { interval_s: 1800 },
            State::Theirs { interval_s: 90 },
            State::Over,
        ];
        let events = [
            Event::Agreed { interval_s: 1800, ours: true },
            Event::Agreed { interval_s: 90, ours: false },
            Event::Unbound,
            Event::Timer(Timer::Refresh),
            Event::Timer(Timer::Expiry),
            Event::Lost,
            Event::Failed { retry_after: Duration::from_millis(2500) },
        ];
        let mut table = String::from("# RFC 4028 \u{a7}7.2, \u{a7}9, \u{a7}10: what runs\n");
        for state in states {
            for event in events {
                let mut actions = Vec::new();
                let next = step(state, event, &mut actions);
                if next != state || !actions.is_empty() {
                    let _ = writeln!(table, "{state:?} + {event:?} -> {next:?} {actions:?}");
                }
            }
        }
        table.push_str("# \u{a7}9 table 2: what a 2xx says; we should like 1800, choosing uas\n");
        for supported in [false, true] {
            for expires in ["none", "90", "3600", "3600;refresher=uac", "3600;refresher=uas"] {
                for min_se_s in [90, 2000] {
                    let offer = Offer { supported, expires: SessionExpires::parse(expires).ok(), min_se_s };
                    let answer = offer.answer(Some(1800), Refresher::Uas).expect("we wish for one");
                    let too_small = offer.too_small(120);
                    let _ = writeln!(
                        table,
                        "supported {supported}, asked {expires}, Min-SE {min_se_s} -> {} require {}{}",
                        answer.session_expires(),
                        answer.require,
                        if too_small { ", or 422 with Min-SE 120" } else { "" },
                    );
                }
            }
        }
        table
    }

    #[test]
    fn every_state_and_event_is_as_printed() {
        let table = table();
        if std::env::var_os("PRINT_TABLES").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/session_timer/table.txt"), &table)
                .expect("it can be written");
            return;
        }
        assert_eq!(include_str!("../../tests/vectors/session_timer/table.txt"), table);
    }

    fn response(fields: &str) -> Response {
        Response::parse(format!("SIP/2.0 200 OK\r\n{fields}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn a_caller_follows_what_the_2xx_says() {
        let asked = Some(SessionExpires { delta_s: 1790, refresher: Some(Refresher::Uas) });
        assert_eq!(agreed(asked, &response("x: 1200;refresher=uas\r\n"), FLOOR_S), Ok(Some((1200, false))));
        assert_eq!(agreed(asked, &response("x: 1200;refresher=uac\r\n"), FLOOR_S), Ok(Some((1200, true))));
        assert_eq!(agreed(asked, &response("x: 1200\r\n"), FLOOR_S), Ok(Some((1200, false))));
        assert_eq!(agreed(asked, &response(""), FLOOR_S), Ok(Some((1790, true))));
        assert_eq!(agreed(None, &response(""), FLOOR_S), Ok(None));
        assert!(agreed(asked, &response("x: soon\r\n"), FLOOR_S).is_err());
    }

    #[test]
    fn a_422_is_obeyed_once() {
        let again = |asked_s, heard_s, text: &str| retry(asked_s, heard_s, &response(text), FLOOR_S);
        assert_eq!(again(1790, None, "Min-SE: 3600\r\n"), Some(Retry { delta_s: 3600, min_se_s: 3600 }));
        assert_eq!(again(100, Some(500), "Min-SE: 200\r\n"), Some(Retry { delta_s: 500, min_se_s: 500 }));
        assert_eq!(again(3600, Some(3600), "Min-SE: 3600\r\n"), None);
        assert_eq!(again(1790, None, ""), None);
    }
}
