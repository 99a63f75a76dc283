//! What must hold in every world: promises kept while it is calm, ends that follow each other, and rest at the end.

use super::{CALLER, World};
use crate::ue::{Call, Stage, Ue};
use cpm_pf::base::clock::{Duration, Instant};

/// What a side that ended may be behind the other: where nothing is lost the way, the lanes and a media core that drains;
/// else a BYE waits for the ACK of a 2xx for 64*T1 and is sent again for 64*T1.
const QUICK: Duration = Duration::from_secs(10);
const LOSSY: Duration = Duration::from_secs(70);
/// The others hear BYE when they have what was accepted for them, which a slow reader may draw out so long.
const DRAIN: Duration = cpm_pf::limits::MSRP_CLOSE_MAX;

impl World {
    /// The called sides of a call that took it, with their UE.
    fn takers(&self, number: u64) -> impl Iterator<Item = (usize, &Call)> {
        let called = move |(at, ue): (usize, &'_ Ue)| -> Option<usize> {
            ue.calls.get(&(number + 1_000_000)).filter(|call| call.finals.contains(&200)).map(|_| at)
        };
        self.ues.iter().enumerate().filter_map(called).map(move |at| (at, &self.ues[at].calls[&(number + 1_000_000)]))
    }

    fn callers(&self) -> impl Iterator<Item = &Call> {
        self.ues[CALLER].calls.values().filter(|call| call.caller)
    }

    /// In a calm world where nobody hangs up, what was sent has arrived, once, its sender knows, and nobody was hung up on.
    pub(super) fn check_promises(&mut self) {
        let mut found = Vec::new();
        for caller in self.callers().filter(|call| call.finals.contains(&200)) {
            self.check_standing(caller, &mut found);
            if caller.stage == Stage::Up {
                self.check_arrived(caller.number, &mut found);
            }
        }
        for what in found {
            self.fail(what);
        }
    }

    /// Only where the first client takes the call from the others is anybody hung up on.
    fn check_standing(&self, caller: &Call, found: &mut Vec<String>) {
        let alone = self.climate.clients == 1 || self.climate.all;
        let taken = self.takers(caller.number).next().is_some();
        let hung_up_on = self.takers(caller.number).any(|(_, call)| call.why_over == "bye");
        if (caller.why_over == "bye" && taken) || (caller.stage == Stage::Up && alone && hung_up_on) {
            found.push(format!("call {} was ended, though everybody wanted it", caller.number));
        }
    }

    fn check_arrived(&self, number: u64, found: &mut Vec<String>) {
        let takers: Vec<(usize, &Call)> = self.takers(number).filter(|(_, call)| call.stage == Stage::Up).collect();
        if takers.is_empty() {
            return;
        }
        for (id, _) in self.sent.iter().filter(|(_, (call, _))| *call == number) {
            let got = |ue: usize| self.arrived.contains_key(&(id.clone(), ue));
            // A client that joins late does not hear what was said before.
            let arrived = if id.starts_with("up") { takers.iter().any(|(ue, _)| got(*ue)) } else { got(CALLER) };
            if !arrived {
                found.push(format!("message {id} did not arrive"));
            }
        }
        for (ue, number) in std::iter::once((CALLER, number)).chain(takers.iter().map(|(ue, call)| (*ue, call.number))) {
            let stream = self.streams.iter().find(|stream| stream.ue == ue && stream.call == Some(number));
            let endpoint = stream.and_then(|stream| stream.endpoint.as_ref());
            match endpoint {
                // A connection that the proxy made shows whose it is with its first request.
                None if self.climate.messages == 0 || self.climate.clients > 1 => {}
                None => found.push(format!("call {number} of UE {ue} has no connection")),
                Some(endpoint) if endpoint.unanswered > 0 => {
                    found.push(format!("{} chunks of call {number} of UE {ue} are unanswered", endpoint.unanswered));
                }
                Some(_) => {}
            }
        }
    }

    /// Once one side of a call has ended, so have the others before long.
    fn check_ends(&self) -> Vec<String> {
        let bound = DRAIN + if self.lossless { QUICK } else { LOSSY };
        let since = |at: Instant| at.since(Instant::from_unix_s(1_700_000_000));
        let mut found = Vec::new();
        for caller in self.callers().filter(|call| call.why_over != "gave up") {
            let Some(ended) = caller.ended else { continue };
            let takers: Vec<&Call> = self.takers(caller.number).map(|(_, call)| call).collect();
            if takers.is_empty() || takers.iter().any(|call| call.why_over == "died") {
                continue;
            }
            let called = self.ues.iter().filter_map(|ue| ue.calls.get(&(caller.number + 1_000_000)));
            // A client that still rings may yet take the call.
            let last_ringing = called.filter_map(|call| call.ended).max().unwrap_or(ended);
            let last = takers.iter().filter_map(|call| call.ended).max().unwrap_or(ended);
            if last > ended + bound || (caller.finals.contains(&200) && ended > last_ringing + bound) {
                found.push(format!(
                    "call {} ended for its caller at {:?} ({}), for the called at {:?} ({})",
                    caller.number,
                    since(ended),
                    caller.why_over,
                    since(last),
                    takers[0].why_over
                ));
            }
        }
        found
    }

    pub fn calls(&self) -> u64 {
        self.callers().count() as u64
    }

    pub fn answered(&self) -> u64 {
        self.callers().filter(|call| call.finals.contains(&200)).count() as u64
    }

    pub fn sent_messages(&self) -> u64 {
        self.sent.len() as u64
    }

    /// Liveness: one final answer a call, both legs over, nothing left in a table.
    pub(super) fn check_rest(&mut self) {
        let mut found = self.check_ends();
        for ue in &self.ues {
            for call in ue.calls.values() {
                if call.stage != Stage::Over {
                    found.push(format!(
                        "call {} of the {} is still {:?}",
                        call.number % 1_000_000,
                        if call.caller { "caller" } else { "called party" },
                        call.stage
                    ));
                }
                if call.caller && call.finals.len() > 1 {
                    found.push(format!("call {} had the final answers {:?}", call.number, call.finals));
                }
                if call.caller && call.finals.is_empty() && self.climate.lost == 0 && call.why_over == "gave up" {
                    found.push(format!("call {} had no final answer", call.number));
                }
            }
        }
        if !self.signalling.is_idle() {
            found.push(format!("the signalling core is not at rest: {}", self.signalling.left()));
        }
        if !self.media.is_idle() {
            found.push("the media core is not at rest".into());
        }
        for what in found {
            self.fail(what);
        }
    }
}
