//! RFC 3261 §17.2.1, RFC 6026 §8.5: the INVITE server transaction.
//!
//! ```text
//!                 | INVITE, 100 sent
//!                 v
//!    +-----> Proceeding -------- 2xx ------> Accepted --L--> Terminated
//!    |__________| |                            | ^
//!  INVITE: last   | 300-699: G, H              |_| ACK: to user; INVITE: absorbed
//!  1xx again      v
//!    +-----> Completed --------- H: no ACK ----------------> Terminated
//!    |__________| |
//!  INVITE, G:     | ACK
//!  failure again  v
//!             Confirmed -------- I ------------------------> Terminated
//! ```
//! RFC 6026 §7.1: a transport error ends none of these states; the user is told.

use super::action::{Action, Timer, Times};
use Action::{Arm, Send, ToUser, Unacknowledged, Unreachable};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Proceeding,
    Completed { resend_after: Duration },
    Confirmed,
    Accepted,
    Terminated,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Timer(Timer),
    /// The INVITE again.
    Request,
    Ack,
    /// The user answers 1xx.
    Provisional,
    /// The user answers 2xx.
    Success,
    /// The user answers 300 to 699.
    Failure,
    TransportError,
}

impl State {
    /// Timers that go on in this state; any other dies with the state it was armed in.
    pub fn keeps(self, timer: Timer) -> bool {
        match self {
            State::Proceeding | State::Terminated => false,
            State::Completed { .. } => matches!(timer, Timer::G | Timer::H),
            State::Confirmed => timer == Timer::I,
            // The two of the success machine live beside Timer L.
            State::Accepted => matches!(timer, Timer::L | Timer::Success | Timer::GiveUp),
        }
    }

    /// Whether the final response has been sent.
    pub fn answered(self) -> bool {
        self != State::Proceeding
    }
}

/// The INVITE came in. The table sends 100 at once, as the user's first provisional response.
pub fn start(_times: &Times, _reliable: bool, _actions: &mut Vec<Action>) -> State {
    State::Proceeding
}

pub fn step(state: State, event: Event, times: &Times, reliable: bool, actions: &mut Vec<Action>) -> State {
    use State::{Accepted, Completed, Confirmed, Proceeding, Terminated};
    match (state, event) {
        (Proceeding, Event::Request | Event::Provisional) => {
            actions.push(Send);
            Proceeding
        }
        (Proceeding, Event::Success) => {
            actions.extend([Send, Arm(Timer::L, times.patience())]);
            Accepted
        }
        (Proceeding, Event::Failure) => {
            actions.push(Send);
            if !reliable {
                actions.push(Arm(Timer::G, times.t1));
            }
            actions.push(Arm(Timer::H, times.patience()));
            Completed { resend_after: times.t1 }
        }
        (Completed { .. }, Event::Request) => {
            actions.push(Send);
            state
        }
        (Completed { resend_after }, Event::Timer(Timer::G)) => {
            let resend_after = times.double(resend_after);
            actions.extend([Send, Arm(Timer::G, resend_after)]);
            Completed { resend_after }
        }
        (Completed { .. }, Event::Timer(Timer::H)) => {
            actions.push(Unacknowledged);
            Terminated
        }
        (Completed { .. }, Event::Ack) => {
            if reliable {
                // Timer I is 0 on a reliable transport.
                return Terminated;
            }
            actions.push(Arm(Timer::I, times.t4));
            Confirmed
        }
        (Confirmed, Event::Timer(Timer::I)) => Terminated,
        // RFC 6026 §7.1: 2xx of the user (resends, or further forks behind a proxy) pass; so do ACKs; INVITEs are absorbed.
        (Accepted, Event::Success) => {
            actions.push(Send);
            Accepted
        }
        (Accepted, Event::Ack) => {
            actions.push(ToUser);
            Accepted
        }
        (Accepted, Event::Timer(Timer::L)) => Terminated,
        (Proceeding | Completed { .. } | Accepted, Event::TransportError) => {
            actions.push(Unreachable);
            state
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
        let t1 = Duration::from_millis(500);
        let states = [
            State::Proceeding,
            State::Completed { resend_after: t1 },
            State::Completed { resend_after: t1 * 8 },
            State::Confirmed,
            State::Accepted,
            State::Terminated,
        ];
        let timers = [Timer::G, Timer::H, Timer::I, Timer::L].map(Event::Timer);
        let others = [Event::Request, Event::Ack, Event::Provisional, Event::Success, Event::Failure, Event::TransportError];
        let events: Vec<Event> = timers.into_iter().chain(others).collect();
        printed::check(
            "invite_server",
            include_str!("../../../tests/vectors/transactions/invite_server.txt"),
            start,
            &states,
            &events,
            step,
        );
    }
}
