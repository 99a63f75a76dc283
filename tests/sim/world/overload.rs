//! RFC 3261 §21.5.4: a world in which messages cost the core time, and for most of a second more calls come than it can serve. Some are
//! refused; whoever is served, or talks already, notices nothing; nothing is left of any of them.

use super::{CALLER, Canary, Happening, World};
use crate::climate::Climate;
use crate::ue::Stage;
use cpm_pf::base::clock::{Duration, Instant};
use cpm_pf::base::prng::Prng;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Calls that come in the flood, whose numbers begin so, and how long it lasts.
const FLOOD: u64 = 200;
const FLOOD_NUMBERS: u64 = 1_000;
const FLOOD_TIME: Duration = Duration::from_millis(700);
/// Calls well after it.
const LATE: u64 = 5;
const LATE_NUMBERS: u64 = 10_000;
/// No message may wait so long while the flood lasts: whoever sent it would send it again (T1).
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Messages of a call that the core takes until it stands, and a few for what happens in others meanwhile.
const MESSAGES_A_CALL: u64 = 6;

/// The queue before a core, and what serving it takes.
pub struct Desk {
    /// What a message takes; a refusal, and what only has to be dropped, takes a fifth.
    work: Duration,
    queue: VecDeque<(Instant, SocketAddr, String)>,
    busy: bool,
    longest: Duration,
    pub refused: u64,
}

impl World {
    /// A world with such a flood. All else in it is calm.
    pub fn flooded(seed: u64, canary: Canary) -> Self {
        let mut prng = Prng::seeded(seed);
        let work = Duration::from_micros(2_000 + prng.below(2_000));
        let climate = Climate::draw(&mut prng).calmed();
        let mut world = World::made(seed, canary, climate, prng);
        world.desk = Some(Desk { work, queue: VecDeque::new(), busy: false, longest: Duration::ZERO, refused: 0 });
        for number in 0..FLOOD {
            let at = world.now + Duration::from_secs(20) + FLOOD_TIME * number as u32 / FLOOD as u32;
            world.agenda.add(at, Happening::Begin { number: FLOOD_NUMBERS + number });
        }
        for number in 0..LATE {
            let at = world.now + Duration::from_secs(60 + number);
            world.agenda.add(at, Happening::Begin { number: LATE_NUMBERS + number });
        }
        world
    }

    /// A datagram for the core waits its turn.
    pub(super) fn queue_up(&mut self, from: SocketAddr, text: String) {
        let now = self.now;
        let Some(desk) = &mut self.desk else { return };
        desk.queue.push_back((now, from, text));
        if !std::mem::replace(&mut desk.busy, true) {
            self.agenda.add(now, Happening::Serve);
        }
    }

    /// The core takes what waits longest, and is told for how long it has.
    pub(super) fn serve(&mut self) {
        let (now, healed) = (self.now, self.healed);
        let Some(desk) = &mut self.desk else { return };
        let Some((arrived, from, text)) = desk.queue.pop_front() else {
            desk.busy = false;
            return;
        };
        let waited = now.since(arrived);
        // When the world ends, all hang up at once.
        if !healed {
            desk.longest = desk.longest.max(waited);
        }
        let (refused, work) = (desk.refused, desk.work);
        if self.canary != Canary::Blind {
            self.signalling.queue_delay(now, waited);
        }
        self.signalling_gets(from, &text);
        let cheap = self.desk.as_ref().is_some_and(|desk| desk.refused > refused) || text.starts_with("ACK ");
        self.agenda.add(now + if cheap { work / 5 } else { work }, Happening::Serve);
    }

    /// The core sends a message: refusals are counted, and only new calls may be refused.
    pub(super) fn count_refusal(&mut self, text: &str) {
        let Some(desk) = self.desk.as_mut().filter(|_| text.starts_with("SIP/2.0 503")) else { return };
        desk.refused += 1;
        if crate::ue::header(text, "CSeq") != "1 INVITE" {
            self.fail(format!("in a dialog, {} was refused", crate::ue::header(text, "CSeq")));
        }
    }

    /// Before anybody hangs up.
    pub(super) fn check_flood(&mut self) {
        let Some(desk) = &self.desk else { return };
        let mut found = Vec::new();
        if desk.longest > WAIT_MAX {
            found.push(format!("a message waited for {:?}", desk.longest));
        }
        let fit = FLOOD_TIME.as_micros() as u64 / (MESSAGES_A_CALL * desk.work.as_micros() as u64);
        let (mut taken, mut refused) = (0, 0);
        for (number, call) in self.ues[CALLER].calls.iter().filter(|(_, call)| call.caller) {
            match call.finals[..] {
                [200] if call.stage == Stage::Up => taken += u64::from((FLOOD_NUMBERS..LATE_NUMBERS).contains(number)),
                [503] if (FLOOD_NUMBERS..LATE_NUMBERS).contains(number) => refused += 1,
                _ => found.push(format!("call {number} is {:?} with the final answers {:?}", call.stage, call.finals)),
            }
        }
        if taken < fit / 2 || refused == 0 {
            found.push(format!("{taken} calls of the flood were taken, {refused} refused; {fit} could have been taken"));
        }
        for what in found {
            self.fail(what);
        }
    }
}
