//! The climate of a world, drawn whole from its seed, so that runs differ in kind and not only in detail.

use cpm_pf::base::clock::Duration;
use cpm_pf::base::prng::Prng;

/// How links, peers and services behave in one world. Chances are in thousandths.
#[derive(Clone, Debug)]
pub struct Climate {
    /// Datagrams lost, doubled.
    pub lost: u64,
    pub doubled: u64,
    /// Shortest delay of a link, and what chance adds to it: with the second above the first, messages overtake each other.
    pub delay: Duration,
    pub jitter: Duration,
    /// Longest piece of a stream that arrives at once, octets.
    pub piece: u64,
    /// A stream breaks at a piece.
    pub broken: u64,
    /// Delay of the lanes between cores and of the services.
    pub lane: Duration,
    /// What the called party does: rings and answers, refuses, never answers, dies after ringing.
    pub refuses: u64,
    pub silent: u64,
    /// The caller cancels while it rings.
    pub cancels: u64,
    /// The called party hangs up first; nobody hangs up (the world's end does).
    pub called_hangs_up: u64,
    /// Sessions at once.
    pub sessions: u64,
    /// Messages each way in a session, and octets of the longest.
    pub messages: u64,
    pub octets: u64,
    /// The answerer takes the passive role.
    pub passive: u64,
    /// Calls come to a registered client (terminating) rather than from one.
    pub terminating: u64,
    /// Nobody hangs up before the world's end, so that all that was sent can arrive.
    pub patient: bool,
    /// Clients that the served user has registered.
    pub clients: usize,
    /// `policy.session_answer = "early"`; `policy.session_clients = "all"`.
    pub early: bool,
    pub all: bool,
    /// A peer names a Contact that nobody can resolve.
    pub unresolved: u64,
    /// A standing session is changed by re-INVITE or UPDATE, by either side, and so at once now and then.
    pub changes: u64,
    /// The called party falls silent for ever once the session stands.
    pub dies: u64,
    /// A called party reads slowly.
    pub slow: u64,
    /// Hours instead of minutes: session timers run out.
    pub long: bool,
    /// Callers take reliable provisional responses (RFC 3262).
    pub reliable: u64,
    /// `msrp.high_water`.
    pub high_water: usize,
}

impl Climate {
    /// A quarter of all worlds is calm, so that the plain case is seen at every size.
    pub fn draw(prng: &mut Prng) -> Self {
        let calm = prng.below(4) == 0;
        let piece = [1, 7, 100, 1460, 65_536][prng.below(5) as usize];
        let mut rarely = |most: u64| if calm || prng.below(2) == 0 { 0 } else { prng.below(most) };
        let (lost, doubled, broken) = (rarely(250), rarely(200), rarely(15));
        let (refuses, silent, cancels) = (rarely(300), rarely(150), rarely(300));
        let (changes, dies, slow) = (rarely(700), rarely(200), rarely(300));
        let delay = 50 + prng.below(20_000);
        Self {
            lost,
            doubled,
            broken,
            refuses,
            silent,
            cancels,
            delay: Duration::from_micros(delay),
            jitter: Duration::from_micros(prng.below(if calm { 10 } else { 300_000 })),
            piece,
            // A media core takes its commands before it hears a connection that was made after them, so a lane is never
            // longer than the way of a response to the peer and of its connection back.
            lane: Duration::from_micros(prng.below(5_000).min(2 * delay)),
            called_hangs_up: prng.below(1000),
            sessions: 1 + prng.below(6),
            messages: prng.below(6),
            // A stream that is torn into single octets carries short messages, or the world would be all happenings.
            octets: [1, 40, 300, 3_000, 40_000][prng.below(5) as usize].min(piece * 100),
            passive: prng.below(1001),
            terminating: [0, 500, 1000][prng.below(3) as usize],
            patient: prng.below(3) == 0,
            clients: 1 + prng.below(3) as usize,
            early: prng.below(2) == 0,
            all: prng.below(2) == 0,
            unresolved: [0, 0, 500][prng.below(3) as usize],
            changes,
            dies,
            slow,
            long: prng.below(12) == 0,
            high_water: [4_096, 65_536, 1 << 20][prng.below(3) as usize],
            reliable: [0, 500, 1000][prng.below(3) as usize],
        }
    }

    /// The same where nobody and nothing fails, everybody takes calls and stays, and some change them: what fails there, the core made
    /// fail.
    pub fn calmed(self) -> Self {
        Self {
            lost: 0,
            doubled: 0,
            broken: 0,
            refuses: 0,
            silent: 0,
            cancels: 0,
            dies: 0,
            slow: 0,
            unresolved: 0,
            reliable: 0,
            changes: 150,
            jitter: self.jitter.min(Duration::from_millis(10)),
            piece: self.piece.max(1_460),
            messages: self.messages.min(2),
            octets: self.octets.min(300),
            patient: true,
            clients: 1,
            long: false,
            ..self
        }
    }

    /// Whether what a peer is promised must come true: nothing is lost, nothing breaks, nobody dies.
    pub fn is_calm(&self) -> bool {
        (self.lost, self.broken, self.dies, self.slow) == (0, 0, 0, 0)
    }
}
