//! The simulator: a few thousand worlds, each from its seed. `SIM_SEED=7 cargo test --test sim` plays one of them again,
//! `SIM_SEEDS=100000 cargo test --profile sim --test sim` plays more.

mod agenda;
mod climate;
mod msrp;
mod ue;
mod world;

use world::{Canary, World};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_world_keeps_the_rules_and_comes_to_rest() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(300),
    };
    let (mut delivered, mut streams, mut failed) = (0, 0, Vec::new());
    for seed in seeds.clone() {
        let mut world = World::new(seed, Canary::None);
        world.play();
        delivered += world.delivered;
        streams += world.established;
        failed.append(&mut world.failures);
        if failed.len() > 10 {
            break;
        }
    }
    println!(
        "{} worlds from seed {}, {streams} MSRP connections, {delivered} messages delivered",
        seeds.end - seeds.start,
        seeds.start
    );
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(delivered > 0, "a simulator that delivers nothing proves nothing");
}

#[test]
fn the_checkers_bite_when_a_rule_is_broken_on_purpose() {
    for canary in [Canary::Octet, Canary::Bye] {
        let bitten = (0..40).any(|seed| {
            let mut world = World::new(seed, canary);
            world.play();
            !world.failures.is_empty()
        });
        assert!(bitten, "{canary:?} went unseen in 40 worlds");
    }
}
