//! CR 8.3.1.6: what a registration costs ("what waits for this user") with few and with very many messages of others in the embedded
//! index, in pages of the index that are read and in time.
//!
//! ```text
//! CPM_PF_FILL=10000000 cargo test --release --test filled_store -- --nocapture     a table up to that many
//! CPM_PF_FILL_AT=DIR                                                               fills DIR, or takes what an earlier run left there
//! ```

// The clock is what this measures with.
#![allow(clippy::disallowed_methods)]

use cpm_pf::io::services::deferred_index::{Done, Index, Op};
use cpm_pf::limits::DEFERRED_USER_MESSAGES_MAX;
use cpm_pf::store::deferred::{Deferred, DeferredId, DeferredService};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Messages of one user: about what the sizing page assumes for a user who was away for a day.
const OF_A_USER: u64 = 5;
const NOW_S: u64 = 1_700_000_000;
/// Users asked for at each size.
const ASKED: u64 = 500;
/// Messages put in one commit.
const BATCH: u64 = 20_000;
/// Pages of the index that the first look after a start may read: one path from the root of each table to a leaf, and the leaves with
/// the messages. A look over all messages reads thousands.
const PAGES_MAX: u64 = 40;

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
        octets: 60_000,
        file: PathBuf::new(),
        inline: None,
        parts: Vec::new(),
        negative_delivery: None,
        attempts: 0,
    }
}

/// The index in a folder, and how many messages of how many users it is to have in the end.
struct Filled {
    path: PathBuf,
    index: Index,
    users: u64,
}

impl Filled {
    fn open(folder: &Path, most: u64) -> Self {
        let path = folder.join("index.redb");
        let index = Index::open(&path).expect("an index");
        Self { path, index, users: (most / OF_A_USER).max(1) }
    }

    /// As after a start: nothing of it is in this process.
    fn again(self) -> Self {
        let Self { path, index, users } = self;
        drop(index);
        let index = Index::open(&path).expect("it was one");
        Self { path, index, users }
    }

    fn fill(&mut self, to: u64) {
        while self.index.messages() < to {
            let from = self.index.messages();
            let batch = from..to.min(from + BATCH);
            let puts: Vec<Op> = batch.map(|number| Op::Put(Box::new(message(number, self.users)))).collect();
            assert!(self.index.apply(&puts).iter().all(|done| matches!(done, Done::Kept(Ok(())))));
        }
    }

    /// What waits for a user, how long that took, and how often the file was read for it.
    fn look(&mut self, who: &str) -> (Vec<Deferred>, Duration, u64) {
        let (read, begun) = (reads(), Instant::now());
        let done = self.index.apply(&[Op::Waiting { user: who.into(), now_s: NOW_S }]);
        let (took, read) = (begun.elapsed(), reads().saturating_sub(read));
        let Some(Done::Messages(waiting)) = done.into_iter().next() else { panic!("a list is the answer") };
        (waiting, took, read)
    }

    /// Disk space that the file takes: it has holes.
    fn mib(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&self.path).map_or(0, |facts| facts.blocks() * 512) >> 20
    }
}

/// Reads that this thread has asked the kernel for; redb asks for one page at a time.
fn reads() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("syscr: ")?.parse().ok()).unwrap_or(0)
}

/// Reads that asking for their number takes.
fn own_reads() -> u64 {
    let before = reads();
    reads() - before
}

/// Memory of a process that is no page of a file.
fn anonymous_mib(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = |line: &str| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
    text.lines().find_map(kib).unwrap_or(0) >> 10
}

/// Median and the slowest of a hundred.
fn spread<T: Ord + Copy>(mut of: Vec<T>) -> (T, T) {
    of.sort_unstable();
    (of[of.len() / 2], of[of.len() * 99 / 100])
}

/// Takes the file out of the page cache, as long after its last use.
fn forget(path: &Path) {
    let of = format!("of={}", path.display());
    let done = Command::new("dd").args([&of, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]).status();
    assert!(done.is_ok_and(|done| done.success()), "dd is there");
}

/// Users all over the table.
fn asked(filled: &Filled, messages: u64) -> impl Iterator<Item = u64> + use<> {
    let users = filled.users.min(messages).max(1);
    (0..ASKED).map(move |number| (number * 7_919) % users)
}

/// One line of the table.
fn measure(mut filled: Filled, messages: u64) -> Filled {
    let users = filled.users;
    let (mut looks, mut none, mut claims, mut pages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for who in asked(&filled, messages) {
        let (waiting, took, read) = filled.look(&user(who));
        let theirs = (who..messages).step_by(usize::try_from(users).expect("a few")).count();
        assert_eq!(waiting.len(), theirs, "of {who} among {messages}");
        assert!(waiting.is_sorted_by_key(|message| message.arrived_s));
        looks.push(took);
        pages.push(read.saturating_sub(own_reads()));
        none.push(filled.look(&format!("sip:user{who}@elsewhere.example")).1);
        let Some(id) = waiting.first().map(|first| first.id.clone()) else { continue };
        let begun = Instant::now();
        let done = filled.index.apply(&[Op::Claim { id: id.clone(), now_s: NOW_S }]);
        claims.push(begun.elapsed());
        assert!(matches!(&done[..], [Done::Messages(claimed)] if claimed.len() == 1));
        filled.index.apply(&[Op::Return { id, until_s: 0 }]);
    }
    let puts = (0..20).map(|number| {
        let begun = Instant::now();
        let put = Deferred { user: "sip:new@example.net".to_owned(), ..message(u64::MAX / 2 + number, users) };
        let id = put.id.clone();
        filled.index.apply(&[Op::Put(Box::new(put))]);
        let took = begun.elapsed();
        filled.index.apply(&[Op::Remove { id }]);
        took
    });
    let (put, _) = spread(puts.collect());
    let ((look, look99), (none, _), (pages, pages99)) = (spread(looks), spread(none), spread(pages));
    let claim = if claims.is_empty() { Duration::ZERO } else { spread(claims).0 };
    let (disk, memory) = (filled.mib(), anonymous_mib("self"));
    let begun = Instant::now();
    let mut filled = filled.again();
    let opened = begun.elapsed();
    let (_, first, read) = filled.look(&user(1));
    let first_pages = read.saturating_sub(own_reads());
    println!(
        "| {messages} | {none:.1?} | {look:.1?} | {look99:.1?} | {pages} ({pages99}) | {first:.1?} | {first_pages} | {claim:.1?} | {put:.1?} | {opened:.1?} | {disk} MiB | {memory} MiB |"
    );
    assert!(first_pages <= PAGES_MAX, "the first look among {messages} read {first_pages} pages");
    filled
}

/// Looks where neither this process nor the kernel has a page of the index.
fn measure_cold(filled: Filled, messages: u64) {
    forget(&filled.path);
    let mut filled = filled.again();
    forget(&filled.path);
    let looks: Vec<_> = asked(&filled, messages).map(|who| filled.look(&user(who)).1).collect();
    let (look, look99) = spread(looks);
    println!("\nfrom the disk, {messages} messages: {look:.1?}, p99 {look99:.1?}");
}

#[test]
fn what_waits_for_a_user_is_found_without_touching_others() {
    let most: Option<u64> = std::env::var("CPM_PF_FILL").ok().and_then(|text| text.parse().ok());
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let folder = std::env::var_os("CPM_PF_FILL_AT").map_or(temporary.path().to_owned(), PathBuf::from);
    let mut filled = Filled::open(&folder, most.unwrap_or(2_000));
    println!(
        "| messages | nothing waits | five wait: median | p99 | pages read: median (p99) | the first look after a start | its pages | a claim | one put, durable | opening | index on disk | memory |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut size = 0;
    loop {
        if size >= filled.index.messages() {
            filled.fill(size);
            filled = measure(filled, size);
        }
        if size == most.unwrap_or(2_000) {
            break;
        }
        size = most.unwrap_or(2_000).min(if size == 0 { 1_000 } else { size * 10 });
    }
    if most.is_some() {
        measure_cold(filled, size);
    }
}

#[test]
fn a_neighbour_with_as_much_as_one_may_have_costs_a_user_nothing() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let mut filled = Filled::open(folder.path(), 1);
    // Before and after her in the table, and with names that begin as hers does.
    for neighbour in ["sip:bo@example.net", "sip:bob@example.ne", "sip:bob@example.net.x", "sip:bobby@example.net"] {
        let number = |count| message(count + filled.index.messages(), 1);
        let puts: Vec<Op> = (0..DEFERRED_USER_MESSAGES_MAX)
            .map(|count| Op::Put(Box::new(Deferred { user: neighbour.to_owned(), octets: 1, ..number(count) })))
            .collect();
        assert!(filled.index.apply(&puts).iter().all(|done| matches!(done, Done::Kept(Ok(())))));
    }
    let own = Deferred { user: "sip:bob@example.net".to_owned(), ..message(1 << 40, 1) };
    filled.index.apply(&[Op::Put(Box::new(own.clone()))]);
    let mut filled = filled.again();
    let (waiting, _, read) = filled.look("sip:bob@example.net");
    assert_eq!(waiting, [own]);
    let pages = read.saturating_sub(own_reads());
    assert!(pages <= PAGES_MAX, "{pages} pages were read");
    let (waiting, _, read) = filled.look("sip:bobb@example.net");
    let pages = read.saturating_sub(own_reads());
    assert!(waiting.is_empty() && pages <= PAGES_MAX, "{pages} pages were read");
}
