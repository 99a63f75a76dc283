//! What a run of worlds came to: counts, failures, and the clauses that no seed reached.

use crate::world::World;
use std::collections::BTreeSet;
use std::fmt;

#[derive(Default)]
pub struct Tally {
    pub worlds: u64,
    pub calm: u64,
    pub calls: u64,
    pub answered: u64,
    pub streams: u64,
    pub sent: u64,
    pub delivered: u64,
    /// Datagrams lost and doubled, streams broken.
    pub faults: [u64; 3],
    pub failed: Vec<String>,
    pub clauses: BTreeSet<&'static str>,
}

impl Tally {
    pub fn add(&mut self, world: &mut World) {
        self.worlds += 1;
        self.calm += u64::from(world.climate.is_calm());
        self.calls += world.calls();
        self.answered += world.answered();
        self.streams += world.established;
        self.sent += world.sent_messages();
        self.delivered += world.delivered;
        self.faults.iter_mut().zip(world.faults).for_each(|(sum, more)| *sum += more);
        self.failed.append(&mut world.failures);
    }

    pub fn and(mut self, mut other: Tally) -> Self {
        self.worlds += other.worlds;
        self.calm += other.calm;
        self.calls += other.calls;
        self.answered += other.answered;
        self.streams += other.streams;
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.faults.iter_mut().zip(other.faults).for_each(|(sum, more)| *sum += more);
        self.failed.append(&mut other.failed);
        self.clauses.append(&mut other.clauses);
        self
    }
}

/// Clauses that worlds of this thread went through; none where assertions are off.
pub fn clauses_of_this_thread() -> BTreeSet<&'static str> {
    #[cfg(debug_assertions)]
    return cpm_pf::base::clause::take_hits();
    #[cfg(not(debug_assertions))]
    BTreeSet::new()
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} worlds ({} calm), {} calls ({} answered), {} MSRP connections, {} messages sent, {} delivered",
            self.worlds, self.calm, self.calls, self.answered, self.streams, self.sent, self.delivered
        )?;
        let [lost, doubled, broken] = self.faults;
        writeln!(f, "faults: {lost} datagrams lost, {doubled} doubled, {broken} streams broken")?;
        let built = include_str!("../clauses.tsv").lines().skip(1).filter_map(|line| {
            let mut fields = line.split('\t');
            let id = fields.next()?;
            (fields.nth(1) == Some("built")).then_some(id)
        });
        let unreached: Vec<&str> = built.filter(|id| !self.clauses.contains(id)).collect();
        write!(f, "{} clauses no seed reached: {}", unreached.len(), unreached.join(" "))
    }
}
