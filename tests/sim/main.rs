//! The simulator: a few thousand worlds, each from its seed. `SIM_SEED=7 cargo test --test sim` plays one of them again
//! (`SIM_TRACE=1` tells every datagram), `SIM_SEEDS=100000 cargo test --profile sim --test sim` plays more.

mod agenda;
mod climate;
mod kept;
mod msrp;
mod tally;
mod ue;
mod world;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use tally::Tally;
use world::{Canary, World};

/// Worlds of a plain test run, which is to take no longer than a minute without optimisation.
const SEEDS: u64 = 2_000;
/// Failures after which no further world is begun.
const FAILURES_MAX: usize = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays worlds until none is left; two threads do so at once, and a world belongs to one of them.
fn play(next: &AtomicU64, seeds: &Range<u64>) -> Tally {
    let mut tally = Tally::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end || tally.failed.len() > FAILURES_MAX {
            break;
        }
        let mut world = World::new(seed, Canary::None);
        world.play();
        tally.add(&mut world);
    }
    tally.clauses = tally::clauses_of_this_thread();
    tally
}

#[test]
fn every_world_keeps_the_rules_and_comes_to_rest() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(seeds.start);
    let tally = std::thread::scope(|scope| {
        let other = scope.spawn(|| play(&next, &seeds));
        play(&next, &seeds).and(other.join().expect("a world that panics says why itself"))
    });
    println!("{tally}");
    assert!(tally.failed.is_empty(), "{:#?}", tally.failed);
    assert!(tally.delivered > 0 || seeds.end - seeds.start < 10, "a simulator that delivers nothing proves nothing");
}

#[test]
fn the_checkers_bite_when_a_rule_is_broken_on_purpose() {
    for canary in [Canary::Octet, Canary::Bye, Canary::Message, Canary::Answer] {
        let bitten = (0..40).any(|seed| {
            let mut world = World::new(seed, canary);
            world.play();
            !world.failures.is_empty()
        });
        assert!(bitten, "{canary:?} went unseen in 40 worlds");
    }
}

/// Worlds with a flood of calls in a plain test run.
const FLOODED_SEEDS: u64 = 2;

#[test]
fn a_flood_of_calls_is_refused_in_part_and_nobody_who_is_served_notices() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").map_or(FLOODED_SEEDS, |seeds| seeds / 100),
    };
    let mut tally = Tally::default();
    for seed in seeds {
        let mut world = World::flooded(seed, Canary::None);
        world.play();
        tally.add(&mut world);
        if tally.failed.len() > FAILURES_MAX {
            break;
        }
    }
    println!("flooded: {} calls, {} answered", tally.calls, tally.answered);
    assert!(tally.failed.is_empty(), "{:#?}", tally.failed);
}

#[test]
fn a_core_that_does_not_know_how_slow_it_is_fails_the_checkers_of_floods() {
    let mut world = World::flooded(0, Canary::Blind);
    world.play();
    assert!(!world.failures.is_empty());
}

/// Worlds of kept messages in a plain test run.
const KEPT_SEEDS: u64 = 500;

#[test]
fn what_is_accepted_for_later_is_delivered_or_reported_whatever_fails() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(KEPT_SEEDS),
    };
    let (mut failed, mut sums) = (Vec::new(), [0; 4]);
    for seed in seeds {
        let mut world = kept::World::new(seed, kept::Canary::None);
        world.play();
        failed.append(&mut world.failures);
        for (sum, more) in sums.iter_mut().zip([world.accepted, world.delivered, world.told, world.kills]) {
            *sum += more;
        }
        if failed.len() > FAILURES_MAX {
            break;
        }
    }
    println!("kept: {} accepted, {} delivered, {} reported as failed, {} kills", sums[0], sums[1], sums[2], sums[3]);
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_checkers_of_kept_messages_bite() {
    for canary in [kept::Canary::Lying, kept::Canary::Forgetful] {
        let bitten = (0..40).any(|seed| {
            let mut world = kept::World::new(seed, canary);
            world.play();
            !world.failures.is_empty()
        });
        assert!(bitten, "{canary:?} went unseen in 40 worlds");
    }
}
