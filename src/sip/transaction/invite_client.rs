//! RFC 3261 §17.1.1, RFC 6026 §8.4, §9.1, §16.6 step 11: the INVITE client transaction.
//!
//! ```text
//!                    | INVITE sent, A, B
//!     A: resend      v
//!        +------> Calling ---- B, transport error ------------------> Terminated
//!        |___________| | \___________ 2xx ______________
//!                      | 1xx: C                         \
//!        C: CANCEL     v                                 v
//!        +------> Proceeding ---------- 2xx --------> Accepted --M--> Terminated
//!        |___________| | \                             |  ^
//!                      |  \__ Cancelled: 408            |__| 2xx: to user
//!       300-699: ACK   v
//!        +------> Completed --D, transport error--> Terminated
//!        |___________| 300-699: ACK
//! ```

use super::action::{Action, Timer, Times};
use Action::{Ack, Arm, Cancel, Send, TimedOut, ToUser, Unreachable};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// `cancelled`: a CANCEL waits for the first provisional response (§9.1).
    Calling {
        resend_after: Duration,
        cancelled: bool,
    },
    /// `cancelled`: a CANCEL was sent.
    Proceeding {
        cancelled: bool,
    },
    Completed,
    Accepted,
    Terminated,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Timer(Timer),
    /// 100
    Trying,
    /// 101 to 199
    Provisional,
    /// 2xx
    Success,
    /// 300 to 699
    Failure,
    TransportError,
    /// The user wants the INVITE cancelled.
    Cancel,
}

impl State {
    /// Timers that go on in this state; any other dies with the state it was armed in.
    pub fn keeps(self, timer: Timer) -> bool {
        match self {
            State::Calling { .. } => matches!(timer, Timer::A | Timer::B),
            State::Proceeding { cancelled: false } => timer == Timer::C,
            State::Proceeding { cancelled: true } => timer == Timer::Cancelled,
            State::Completed => timer == Timer::D,
            State::Accepted => timer == Timer::M,
            State::Terminated => false,
        }
    }
}

/// The INVITE goes out.
pub fn start(times: &Times, reliable: bool, actions: &mut Vec<Action>) -> State {
    actions.push(Send);
    if !reliable {
        actions.push(Arm(Timer::A, times.t1));
    }
    actions.push(Arm(Timer::B, times.patience()));
    State::Calling { resend_after: times.t1, cancelled: false }
}

pub fn step(state: State, event: Event, times: &Times, reliable: bool, actions: &mut Vec<Action>) -> State {
    use State::{Accepted, Calling, Completed, Proceeding, Terminated};
    match (state, event) {
        (Calling { resend_after, cancelled }, Event::Timer(Timer::A)) => {
            // §17.1.1.2: Timer A doubles without the cap of T2.
            actions.extend([Send, Arm(Timer::A, resend_after * 2)]);
            Calling { resend_after: resend_after * 2, cancelled }
        }
        (Calling { .. }, Event::Timer(Timer::B)) => {
            actions.push(TimedOut);
            Terminated
        }
        (Calling { .. }, Event::TransportError) => {
            actions.push(Unreachable);
            Terminated
        }
        // §9.1: no CANCEL before a provisional response.
        (Calling { resend_after, .. }, Event::Cancel) => Calling { resend_after, cancelled: true },
        (Calling { cancelled: false, .. }, Event::Trying | Event::Provisional) => {
            actions.extend([ToUser, Arm(Timer::C, times.c)]);
            Proceeding { cancelled: false }
        }
        (Calling { cancelled: true, .. }, Event::Trying | Event::Provisional) => {
            actions.extend([ToUser, Cancel, Arm(Timer::Cancelled, times.patience())]);
            Proceeding { cancelled: true }
        }
        (Proceeding { cancelled: false }, Event::Cancel | Event::Timer(Timer::C)) => {
            actions.extend([Cancel, Arm(Timer::Cancelled, times.patience())]);
            Proceeding { cancelled: true }
        }
        (Proceeding { cancelled: true }, Event::Timer(Timer::Cancelled)) => {
            actions.push(TimedOut);
            Terminated
        }
        // §16.7 step 2: 101 to 199 reset Timer C, 100 does not.
        (Proceeding { cancelled: false }, Event::Provisional) => {
            actions.extend([ToUser, Arm(Timer::C, times.c)]);
            state
        }
        (Proceeding { .. }, Event::Trying | Event::Provisional) => {
            actions.push(ToUser);
            state
        }
        (Calling { .. } | Proceeding { .. }, Event::Success) => {
            actions.extend([ToUser, Arm(Timer::M, times.patience())]);
            Accepted
        }
        (Calling { .. } | Proceeding { .. }, Event::Failure) => {
            actions.extend([Ack, ToUser]);
            if reliable {
                // Timer D is 0 on a reliable transport.
                return Terminated;
            }
            // §17.1.1.2: at least 32 s, the time a server resends (its Timer H).
            actions.push(Arm(Timer::D, times.patience().max(Duration::from_secs(32))));
            Completed
        }
        (Completed, Event::Failure) => {
            actions.push(Ack);
            Completed
        }
        // The user has its final response; that the ACK could not be sent is nothing it could act on.
        (Completed, Event::Timer(Timer::D) | Event::TransportError) => Terminated,
        (Accepted, Event::Success) => {
            actions.push(ToUser);
            Accepted
        }
        (Accepted, Event::Timer(Timer::M)) => Terminated,
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
            State::Calling { resend_after: t1, cancelled: false },
            State::Calling { resend_after: t1 * 16, cancelled: true },
            State::Proceeding { cancelled: false },
            State::Proceeding { cancelled: true },
            State::Completed,
            State::Accepted,
            State::Terminated,
        ];
        let timers = [Timer::A, Timer::B, Timer::C, Timer::D, Timer::M, Timer::Cancelled].map(Event::Timer);
        let others = [Event::Trying, Event::Provisional, Event::Success, Event::Failure, Event::TransportError, Event::Cancel];
        let events: Vec<Event> = timers.into_iter().chain(others).collect();
        printed::check(
            "invite_client",
            include_str!("../../../tests/vectors/transactions/invite_client.txt"),
            start,
            &states,
            &events,
            step,
        );
    }
}
