//! The relay's octets are equal at any chunking: random sizes, random pools, several sessions, each run from a seed that is printed.
//! `MSRP_SEED=7` plays one again, `MSRP_SEEDS=5000` plays an hour's worth.

use super::rig::{Pair, Rig, Setup};
use super::stream::{Answers, Half, Reader, fill};
use cpm_pf::base::prng::Prng;
use cpm_pf::io::media::buffers::{Pool, Pools};
use std::ops::Range;
use std::sync::mpsc;
use std::thread;

/// Worlds of a plain test run: about a second.
const SEEDS: u64 = 6;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Chunk lengths of one message: mostly small, some around the sizes of buffers, now and then a large one.
fn chunking(prng: &mut Prng) -> Vec<usize> {
    let count = 1 + prng.below(40);
    let mut octets = 0;
    let lengths = (0..count).map(|_| match prng.below(8) {
        0..=2 => 1 + prng.below(300),
        3 => [255, 256, 2047, 2048, 2049, 4095, 4096, 4097][prng.below(8) as usize],
        4..=5 => 1 + prng.below(10_000),
        6 => 65_530 + prng.below(12),
        _ => 1 + prng.below(200_000),
    });
    lengths
        .map(|length| length as usize)
        .take_while(|length| (octets + length < 1 << 20).then(|| octets += length).is_some())
        .collect()
}

/// Sends a message in those chunks with answers between them, and answers until there are no more.
fn send(half: &mut Half, lengths: &[usize], answers: &mpsc::Receiver<Vec<u8>>) {
    use std::io::Write;
    let (total, mut at) = (lengths.iter().sum::<usize>() as u64, 0);
    for &length in lengths {
        let mut body = vec![0; length];
        fill(at, &mut body);
        let flag = if at + length as u64 == total { '$' } else { '+' };
        half.chunk("random", (at, total), &body, flag);
        at += length as u64;
        while let Ok(answer) = answers.try_recv() {
            half.stream.write_all(&answer).expect("the core reads");
        }
    }
    while let Ok(answer) = answers.recv() {
        half.stream.write_all(&answer).expect("the core reads");
    }
}

/// A message each way at the same time.
fn exchange(pair: &Pair, chunkings: [Vec<usize>; 2]) {
    let counts = chunkings.each_ref().map(|lengths| (lengths.iter().sum::<usize>() as u64, lengths.len() as u64));
    thread::scope(|scope| {
        for (side, (msrp, lengths)) in [&pair.origin, &pair.target].into_iter().zip(chunkings).enumerate() {
            let (answers, answered) = mpsc::channel();
            let (mut half, reader) = (Half::of(msrp), Reader::of(msrp, Answers::Sender(answers)));
            scope.spawn(move || send(&mut half, &lengths, &answered));
            scope.spawn(move || {
                let (chunks, octets) = (counts[side].1, counts[1 - side].0);
                let seen = reader.read_until(|seen| seen.messages == 1 && seen.good + seen.bad == chunks);
                assert_eq!((seen.octets, seen.messages, seen.good, seen.bad), (octets, 1, chunks, 0));
            });
        }
    });
}

fn world(seed: u64) {
    println!("MSRP_SEED={seed}");
    let mut prng = Prng::seeded(seed);
    let all = Setup::new().features;
    let features = all.without(["", "incremental", "min_wait", "credit", "incremental,min_wait,credit"][prng.below(5) as usize]);
    // Now and then so few octets that the kernel finds none (ENOBUFS) all the time.
    let mut pool = || Pool { count: 2 << prng.below(4), octets_each: 256 << prng.below(9) };
    let pools = Some(Pools { chat: pool(), bulk: pool() });
    let mut rig = Rig::start(Setup { features, pools, ..Setup::new() });
    let pairs: Vec<(Pair, [Vec<usize>; 2])> = (0..1 + prng.below(4))
        .map(|_| {
            let mut lengths = || Some(chunking(&mut prng)).filter(|lengths| !lengths.is_empty()).unwrap_or_else(|| vec![1]);
            let chunkings = [lengths(), lengths()];
            (rig.pair(0), chunkings)
        })
        .collect();
    thread::scope(|scope| {
        for (pair, chunkings) in pairs {
            scope.spawn(move || exchange(&pair, chunkings));
        }
    });
}

#[test]
fn octets_are_equal_at_random_chunkings_and_pools() {
    let seeds: Range<u64> = match number("MSRP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MSRP_SEEDS").unwrap_or(SEEDS),
    };
    seeds.for_each(world);
}
