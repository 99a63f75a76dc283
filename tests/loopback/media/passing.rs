//! io/media/passing: long bodies that go from socket to socket inside the kernel, beside everything that must not.

use super::rig::{Rig, Setup};
use super::stream::{Answers, Half, Reader, Seen, fill};
use super::{MIB, exchange, frame};
use cpm_pf::base::prng::Prng;
use cpm_pf::shard::exchange::Command;
use std::io::Write;
use std::net::Shutdown;
use std::thread;

/// Goes on until the engine has passed octets on that way: a connection that a busy machine keeps waiting is not one of bulk.
fn until_passed(rig: &mut Rig, round: impl FnMut(&mut Rig)) {
    until_passed_beyond(rig, 0, round);
}

/// As [`until_passed`], more than so many before.
fn until_passed_beyond(rig: &mut Rig, before: u64, mut round: impl FnMut(&mut Rig)) {
    for _ in 0..50 {
        round(rig);
        if rig.engine_counts(0)["passed-bytes"] > before + MIB {
            return;
        }
    }
    panic!("nothing was passed on: {:?}", rig.engine_counts(0));
}

#[test]
fn long_chunks_each_way_arrive_whole_without_coming_out_of_the_kernel() {
    let mut rig = Rig::start(Setup::new());
    for chunk in [40_000, 64 * 1024, 1 << 20, 3 << 20] {
        let pair = rig.pair(0);
        let before = rig.engine_counts(0)["passed-bytes"];
        until_passed_beyond(&mut rig, before, |_| exchange(&pair, 3 * MIB, chunk));
    }
}

/// Sends one message whose announced length is far beyond each of its chunks, which have all sizes.
fn send_in_any_sizes(half: &mut Half, message: &str, total: u64, prng: &mut Prng) -> u64 {
    let sizes = [1, 40, 300, 2_049, 5_000, 20_000, 70_000, 300_000, 1 << 20];
    let (mut at, mut chunks) = (0, 0);
    while at < total {
        let size: u64 = sizes[prng.below(sizes.len() as u64) as usize];
        let mut body = vec![0; size.min(total - at) as usize];
        fill(at, &mut body);
        let flag = if at + body.len() as u64 == total { '$' } else { '+' };
        half.chunk(message, (at, total), &body, flag);
        (at, chunks) = (at + body.len() as u64, chunks + 1);
    }
    chunks
}

#[test]
fn chunks_that_end_long_before_the_announced_octets_are_told_apart() {
    let mut rig = Rig::start(Setup::new());
    let pair = rig.pair(0);
    let mut prng = Prng::seeded(11);
    let mut number = 0;
    until_passed(&mut rig, |_| {
        number += 1;
        let reader = Reader::of(&pair.target, Answers::None);
        let (mut half, total) = (Half::of(&pair.origin), 12 * MIB);
        thread::scope(|scope| {
            let seen = scope.spawn(move || reader.read_until(|seen| seen.messages == 1));
            send_in_any_sizes(&mut half, &format!("message{number}"), total, &mut prng);
            let Seen { octets, messages, bad, .. } = seen.join().expect("the reader reads");
            assert_eq!((octets, messages, bad), (total, 1, 0));
        });
    });
}

/// The engine's count of something, once it has grown beyond `than`.
fn grown(rig: &Rig, count: &str, than: u64) {
    while rig.engine_counts(0)[count] <= than {
        thread::yield_now();
    }
}

#[test]
fn a_reader_that_starts_late_gets_all_that_waited_in_the_pipe() {
    let mut rig = Rig::start(Setup::new());
    let pair = rig.pair(0);
    let mut number = 0;
    until_passed(&mut rig, |rig| {
        number += 1;
        let before = rig.engine_counts(0)["short-sends"];
        let reader = Reader::of(&pair.target, Answers::None);
        let mut half = Half::of(&pair.origin);
        thread::scope(|scope| {
            scope.spawn(move || half.send(&format!("late{number}"), 9 * MIB, 3 << 20));
            grown(rig, "short-sends", before);
            let seen = reader.read_until(|seen| seen.messages == 1);
            assert_eq!((seen.octets, seen.bad), (9 * MIB, 0));
        });
    });
}

#[test]
fn whoever_goes_in_the_middle_of_a_long_body_takes_nobody_along() {
    let mut rig = Rig::start(Setup::new());
    let other = rig.pair(0);
    let mut round = 0;
    until_passed(&mut rig, |rig| {
        round += 1;
        let pair = rig.pair(0);
        let before = rig.engine_counts(0)["short-sends"];
        let mut head = frame(&pair, 0, 64 * MIB, &[]);
        head.truncate(head.len() - "\r\n-------long0+\r\n".len());
        let mut stream = pair.origin.stream.try_clone().expect("a socket has two handles");
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut body = vec![0; 1 << 20];
                fill(0, &mut body);
                // It ends early where the core closes the connection.
                let _ = stream.write_all(&head);
                let _ = (0..40).try_for_each(|_| stream.write_all(&body));
            });
            grown(rig, "short-sends", before);
            // What it has not read is answered by a reset.
            drop(pair.target);
            if round % 2 == 0 {
                pair.origin.stream.shutdown(Shutdown::Both).expect("it is connected");
            }
            rig.command(0, Command::Close { session: pair.key, left: None, awaited: false });
        });
    });
    exchange(&other, MIB, 64 * 1024);
}
