//! CR 8.3.1.6: how long the index of deferred messages takes to say what waits for a user, with few and with very many messages of
//! others in it. `CPM_PF_FILL=1000000 cargo test --release --test filled_store -- --nocapture` prints a table up to that many.

// The clock is what this measures with.
#![allow(clippy::disallowed_methods)]

use cpm_pf::io::services::deferred_index::{Done, Index, Op};
use cpm_pf::store::deferred::{Deferred, DeferredId, DeferredService};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Messages of one user: about what the sizing page assumes for a user who was away for a day.
const OF_A_USER: u64 = 5;
const NOW_S: u64 = 1_700_000_000;
/// Users asked for at each size.
const ASKED: u64 = 500;
/// Messages put in one commit.
const BATCH: u64 = 5_000;

fn user(number: u64) -> String {
    format!("sip:user{number}@example.net")
}

fn message(number: u64, users: u64) -> Deferred {
    Deferred {
        // Arrivals of all users are mixed, as they are in life.
        id: DeferredId(format!("{number:016x}0123456789abcdefghijkl")),
        user: user(number % users),
        arrived_s: NOW_S + number / 100,
        expires_s: NOW_S + 1_000_000_000,
        service: DeferredService::LargeMessage,
        headers: vec![
            (
                "Accept-Contact".to_owned(),
                "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"".to_owned(),
            ),
            ("Conversation-ID".to_owned(), "f81d4fae-7dec-11d0-a765-00a0c91e6bf6".to_owned()),
            ("Contribution-ID".to_owned(), "abcdef-1234-5678-90ab-cdef01234567".to_owned()),
            ("P-Asserted-Identity".to_owned(), "<sip:alice@example.net>".to_owned()),
            ("Date".to_owned(), "Tue, 14 Nov 2023 22:13:20 GMT".to_owned()),
        ],
        from: "<sip:alice@example.net>".to_owned(),
        to: format!("<{}>", user(number % users)),
        content_type: "message/cpim".to_owned(),
        message_id: "m1".to_owned(),
        octets: 300_000,
        file: PathBuf::new(),
        inline: None,
        parts: Vec::new(),
        negative_delivery: None,
        attempts: 0,
    }
}

/// Median and the slowest of a hundred.
fn spread(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[test]
fn what_waits_for_a_user_is_found_without_touching_others() {
    let most = std::env::var("CPM_PF_FILL").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let path = folder.path().join("index.redb");
    let mut index = Index::open(&path).expect("an index");
    let users = most / OF_A_USER;
    let (mut filled, mut size) = (0, most.min(1_000));
    println!("| messages | what waits: median | p99 | a claim: median | p99 | one put, durable: median | index on disk |");
    println!("|---|---|---|---|---|---|---|");
    loop {
        while filled < size {
            let end = size.min(filled + BATCH);
            let puts: Vec<Op> = (filled..end).map(|number| Op::Put(Box::new(message(number, users)))).collect();
            assert!(index.apply(&puts).iter().all(|done| matches!(done, Done::Kept(Ok(())))));
            filled = end;
        }
        let (mut looks, mut claims) = (Vec::new(), Vec::new());
        for asked in 0..ASKED {
            // Users all over the table.
            let who = (asked * 7_919) % users.min(filled);
            let begun = Instant::now();
            let done = index.apply(&[Op::Waiting { user: user(who).into(), now_s: NOW_S }]);
            looks.push(begun.elapsed());
            let Some(Done::Messages(waiting)) = done.into_iter().next() else { panic!("a list is the answer") };
            let theirs = (who..filled).step_by(usize::try_from(users).expect("a few")).count();
            assert_eq!(waiting.len(), theirs, "of {who} among {filled}");
            assert!(waiting.is_sorted_by_key(|message| message.arrived_s));
            let id = waiting[0].id.clone();
            let begun = Instant::now();
            let done = index.apply(&[Op::Claim { id: id.clone(), now_s: NOW_S }]);
            claims.push(begun.elapsed());
            assert!(matches!(&done[..], [Done::Messages(claimed)] if claimed.len() == 1));
            index.apply(&[Op::Return { id, until_s: 0 }]);
        }
        let puts = (0..20).map(|number| {
            let begun = Instant::now();
            let put = Deferred { user: "sip:new@example.net".to_owned(), ..message(most + filled + number, users) };
            let id = put.id.clone();
            index.apply(&[Op::Put(Box::new(put))]);
            let took = begun.elapsed();
            index.apply(&[Op::Remove { id }]);
            took
        });
        let ((look, look99), (claim, claim99), (put, _)) = (spread(looks), spread(claims), spread(puts.collect()));
        let disk = std::fs::metadata(&path).map_or(0, |facts| facts.len()) / (1 << 20);
        println!("| {filled} | {look:.1?} | {look99:.1?} | {claim:.1?} | {claim99:.1?} | {put:.1?} | {disk} MiB |");
        if size == most {
            break;
        }
        size = most.min(size * 10);
    }
}
