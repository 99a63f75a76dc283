//! RFC 3261 §17.2.2: the server transaction of every method but INVITE and ACK.
//!
//! ```text
//!              | request
//!              v
//!            Trying --------- 200-699: J ------> Completed --J--> Terminated
//!              | 1xx                              ^ |  ^
//!              v                                  | |__| request: response again
//!    +---> Proceeding ------- 200-699: J ---------+
//!    |________| request, 1xx: response (again)
//! ```

use super::action::{Action, Timer, Times};
use Action::{Arm, Send, Unreachable};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Timer(Timer),
    /// The request again.
    Request,
    /// The user answers 1xx.
    Provisional,
    /// The user answers 200 to 699.
    Final,
    TransportError,
}

impl State {
    /// Timers that go on in this state; any other dies with the state it was armed in.
    pub fn keeps(self, timer: Timer) -> bool {
        self == State::Completed && timer == Timer::J
    }

    /// Whether the final response has been sent.
    pub fn answered(self) -> bool {
        matches!(self, State::Completed | State::Terminated)
    }
}

/// The request came in.
pub fn start(_times: &Times, _reliable: bool, _actions: &mut Vec<Action>) -> State {
    State::Trying
}

pub fn step(state: State, event: Event, times: &Times, reliable: bool, actions: &mut Vec<Action>) -> State {
    use State::{Completed, Proceeding, Terminated, Trying};
    match (state, event) {
        (Trying | Proceeding, Event::Provisional) | (Proceeding, Event::Request) => {
            actions.push(Send);
            Proceeding
        }
        (Trying | Proceeding, Event::Final) => {
            actions.push(Send);
            if reliable {
                // Timer J is 0 on a reliable transport.
                return Terminated;
            }
            actions.push(Arm(Timer::J, times.patience()));
            Completed
        }
        (Completed, Event::Request) => {
            actions.push(Send);
            Completed
        }
        (Completed, Event::Timer(Timer::J)) => Terminated,
        (Proceeding | Completed, Event::TransportError) => {
            actions.push(Unreachable);
            Terminated
        }
        (state, _) => state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::transaction::printed;

    #[test]
    fn every_state_and_event_is_as_printed() {
        let states = [State::Trying, State::Proceeding, State::Completed, State::Terminated];
        let events = [Event::Timer(Timer::J), Event::Request, Event::Provisional, Event::Final, Event::TransportError];
        printed::check("server", include_str!("../../../tests/vectors/transactions/server.txt"), start, &states, &events, step);
    }
}
