//! RFC 3261 table 4, RFC 6026: timers and their lengths, and what a machine asks its table to do.

use std::time::Duration;

/// The timers of RFC 3261 §17 and RFC 6026 by their letters, and three that have none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Timer {
    /// INVITE client: resend.
    A,
    /// INVITE client: no answer.
    B,
    /// INVITE client: rings too long (§16.6 step 11).
    C,
    /// INVITE client: how long resends of a failure are acknowledged.
    D,
    /// Non-INVITE client: resend.
    E,
    /// Non-INVITE client: no answer.
    F,
    /// INVITE server: resend the failure.
    G,
    /// INVITE server: no ACK.
    H,
    /// INVITE server: how long resends of the ACK are absorbed.
    I,
    /// Non-INVITE server: how long resends are answered.
    J,
    /// Non-INVITE client: how long resends of the final response are absorbed.
    K,
    /// INVITE server: how long resends are absorbed after a 2xx (RFC 6026).
    L,
    /// INVITE client: how long 2xx responses may come (RFC 6026).
    M,
    /// INVITE client: no final response after CANCEL (§9.1: 64*T1).
    Cancelled,
    /// Resend of a 2xx (§13.3.1.4).
    Success,
    /// No ACK for a 2xx (§13.3.1.4: 64*T1).
    GiveUp,
}

impl Timer {
    /// Whether nothing is sent and nobody told when it fires: only what was kept for resends goes.
    pub const fn only_forgets(self) -> bool {
        matches!(self, Timer::D | Timer::I | Timer::J | Timer::K | Timer::L | Timer::M)
    }
}

/// Lengths all timers follow from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// Round-trip estimate (`sip.t1`).
    pub t1: Duration,
    /// Longest time between resends.
    pub t2: Duration,
    /// Longest time a message stays in the network.
    pub t4: Duration,
    /// Timer C: more than three minutes.
    pub c: Duration,
}

impl Times {
    /// RFC 3261 §17.1.1.1 and §17.1.2.2: T2 4 s and T4 5 s, whatever T1 is, but never T2 below T1.
    pub const fn of(t1: Duration) -> Self {
        let t2 = Duration::from_secs(4);
        Self {
            t1,
            t2: if t1.as_nanos() > t2.as_nanos() { t1 } else { t2 },
            t4: Duration::from_secs(5),
            c: Duration::from_secs(181),
        }
    }

    /// 64*T1: the length of timers B, F, H, J, L, M.
    pub fn patience(&self) -> Duration {
        self.t1 * 64
    }

    /// The wait after `wait` for timers that double up to T2.
    pub fn double(&self, wait: Duration) -> Duration {
        (wait * 2).min(self.t2)
    }
}

/// What a step wants done, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send what the transaction is about: its request, or its last response.
    Send,
    /// Send the ACK of a failure (§17.1.1.3).
    Ack,
    /// Send a CANCEL (§9.1).
    Cancel,
    /// The message that made this step is the user's to see.
    ToUser,
    Arm(Timer, Duration),
    /// The user hears that no answer came (counts as 408, §8.1.3.1).
    TimedOut,
    /// The user hears that the message could not be sent (counts as 503, §8.1.3.1).
    Unreachable,
    /// The user hears that no ACK came.
    Unacknowledged,
}
