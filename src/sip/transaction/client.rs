//! RFC 3261 §17.1.2: the client transaction of every method but INVITE and ACK.
//!
//! ```text
//!                   | request sent, E, F
//!     E: resend     v
//!        +------> Trying ------ F, transport error ------> Terminated
//!        |__________| | \______ 200-699 __________
//!                     | 1xx                       v
//!     E: resend       v                       Completed --K--> Terminated
//!        +------> Proceeding -- 200-699 --------> ^
//!        |__________|  \______ F, transport error -------> Terminated
//! ```

use super::action::{Action, Timer, Times};
use Action::{Arm, Send, TimedOut, ToUser, Unreachable};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Trying { resend_after: Duration },
    Proceeding,
    Completed,
    Terminated,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Timer(Timer),
    /// 1xx
    Provisional,
    /// 200 to 699
    Final,
    TransportError,
}

impl State {
    /// Timers that go on in this state; any other dies with the state it was armed in.
    pub fn keeps(self, timer: Timer) -> bool {
        match self {
            State::Trying { .. } | State::Proceeding => matches!(timer, Timer::E | Timer::F),
            State::Completed => timer == Timer::K,
            State::Terminated => false,
        }
    }
}

/// The request goes out.
pub fn start(times: &Times, reliable: bool, actions: &mut Vec<Action>) -> State {
    actions.push(Send);
    if !reliable {
        actions.push(Arm(Timer::E, times.t1));
    }
    actions.push(Arm(Timer::F, times.patience()));
    State::Trying { resend_after: times.t1 }
}

pub fn step(state: State, event: Event, times: &Times, reliable: bool, actions: &mut Vec<Action>) -> State {
    use State::{Completed, Proceeding, Terminated, Trying};
    match (state, event) {
        (Trying { resend_after }, Event::Timer(Timer::E)) => {
            let resend_after = times.double(resend_after);
            actions.extend([Send, Arm(Timer::E, resend_after)]);
            Trying { resend_after }
        }
        // §17.1.2.2: in Proceeding the request is still resent, every T2.
        (Proceeding, Event::Timer(Timer::E)) => {
            actions.extend([Send, Arm(Timer::E, times.t2)]);
            Proceeding
        }
        (Trying { .. } | Proceeding, Event::Timer(Timer::F)) => {
            actions.push(TimedOut);
            Terminated
        }
        (Trying { .. } | Proceeding, Event::TransportError) => {
            actions.push(Unreachable);
            Terminated
        }
        (Trying { .. } | Proceeding, Event::Provisional) => {
            actions.push(ToUser);
            Proceeding
        }
        (Trying { .. } | Proceeding, Event::Final) => {
            actions.push(ToUser);
            if reliable {
                // Timer K is 0 on a reliable transport.
                return Terminated;
            }
            actions.push(Arm(Timer::K, times.t4));
            Completed
        }
        (Completed, Event::Timer(Timer::K)) => Terminated,
        (state, _) => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::transaction::printed;

    #[test]
    fn every_state_and_event_is_as_printed() {
        let t1 = Duration::from_millis(500);
        let states = [
            State::Trying { resend_after: t1 },
            State::Trying { resend_after: t1 * 8 },
            State::Proceeding,
            State::Completed,
            State::Terminated,
        ];
        let timers = [Timer::E, Timer::F, Timer::K].map(Event::Timer);
        let events: Vec<Event> = timers.into_iter().chain([Event::Provisional, Event::Final, Event::TransportError]).collect();
        printed::check("client", include_str!("../../../tests/vectors/transactions/client.txt"), start, &states, &events, step);
    }
}
