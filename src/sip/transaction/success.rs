//! RFC 3261 §13.3.1.4: the user agent server resends its 2xx until the ACK comes, whatever the transport.
//!
//! ```text
//!            | 2xx sent
//!            v
//!    +---> Waiting ---- ACK ------> Acknowledged
//!    |_______|   \_____ GiveUp ---> Abandoned (the dialog is to be ended)
//!   Success: resend
//! ```

use super::action::{Action, Timer, Times};
use Action::{Arm, Send, Unacknowledged};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Waiting { resend_after: Duration },
    Acknowledged,
    Abandoned,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Timer(Timer),
    Ack,
}

impl State {
    /// Timers that go on in this state; any other dies with the state it was armed in.
    pub fn keeps(self, timer: Timer) -> bool {
        matches!(self, State::Waiting { .. }) && matches!(timer, Timer::Success | Timer::GiveUp)
    }
}

/// The 2xx has been sent by the transaction.
pub fn start(times: &Times, _reliable: bool, actions: &mut Vec<Action>) -> State {
    actions.extend([Arm(Timer::Success, times.t1), Arm(Timer::GiveUp, times.patience())]);
    State::Waiting { resend_after: times.t1 }
}

pub fn step(state: State, event: Event, times: &Times, _reliable: bool, actions: &mut Vec<Action>) -> State {
    use State::{Abandoned, Acknowledged, Waiting};
    match (state, event) {
        (Waiting { resend_after }, Event::Timer(Timer::Success)) => {
            let resend_after = times.double(resend_after);
            actions.extend([Send, Arm(Timer::Success, resend_after)]);
            Waiting { resend_after }
        }
        (Waiting { .. }, Event::Timer(Timer::GiveUp)) => {
            actions.push(Unacknowledged);
            Abandoned
        }
        (Waiting { .. }, Event::Ack) => Acknowledged,
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
        let states =
            [State::Waiting { resend_after: t1 }, State::Waiting { resend_after: t1 * 8 }, State::Acknowledged, State::Abandoned];
        let events = [Event::Timer(Timer::Success), Event::Timer(Timer::GiveUp), Event::Ack];
        printed::check("success", include_str!("../../../tests/vectors/transactions/success.txt"), start, &states, &events, step);
    }
}
