//! SIGHUP again and again under load: no call is refused, no session ends, no octet is lost. `CPM_PF_RELOADS=1000` for the long form.

use crate::ladder::Originating;
use crate::msrp::Waiting;
use crate::soak::{hang_up, session};
use crate::ue::SESSION;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[test]
fn reloads_under_load_fail_no_call() {
    let reloads: usize = std::env::var("CPM_PF_RELOADS").ok().and_then(|count| count.parse().ok()).unwrap_or(20);
    let mut ladder = Originating::new("");
    let waiting = Waiting::new();
    let (mut a, mut b, ok) = session(&mut ladder, &waiting, SESSION);
    let (admin, done, begun) = (ladder.pf.admin, AtomicBool::new(false), Instant::now());
    let log = ladder.pf.path("log");
    let (mut calls, mut messages) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for count in 1..=reloads {
                assert_eq!(crate::proxy::http(admin, "POST", "/reload", "").0, 202);
                let taken = || std::fs::read_to_string(&log).unwrap_or_default().matches("configuration reloaded").count();
                // One after the other, so that each is one of its own.
                while taken() < count {
                    assert!(begun.elapsed().as_secs() < 600, "{count} reloads in ten minutes");
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) || calls == 0 {
            a.send(&format!("standing{messages:04}"), &[b'x'; 5_000]);
            assert_eq!(b.message().len(), 5_000);
            a.expect("200");
            messages += 1;
            let (mut c, mut d, ok) = session(&mut ladder, &waiting, SESSION);
            c.send("short001", b"hello");
            assert_eq!(d.message(), b"hello");
            c.expect("200");
            hang_up(&mut ladder, &ok);
            calls += 1;
        }
    });
    hang_up(&mut ladder, &ok);
    println!("{reloads} reloads in {:?}: {calls} calls and {messages} messages of a standing one, none failed", begun.elapsed());
    assert_eq!(ladder.pf.metric("cpm_pf_rejections_total", &[]), 0.0);
}
