//! The scripts find the faults they are named for, and find none where there is none.

use cpm_bench::faults::{Effort, run};
use cpm_bench::scenario::{Scenario, Via};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Carries octets one way; `spoil` sees each read, and says what goes on, or that the connection ends.
fn pump(mut from: TcpStream, mut to: TcpStream, mut spoil: impl FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static) {
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(read) = from.read(&mut buffer) {
            let Some(octets) = spoil(&buffer[..read]).filter(|_| read > 0) else { break };
            if to.write_all(&octets).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
    });
}

/// A relay that is blind and has the fault that `spoil` makes, of the octets towards the called party.
fn relay<S: FnMut(&[u8]) -> Option<Vec<u8>> + Send + 'static>(spoil: impl Fn() -> S + Send + 'static) -> Scenario {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    // Another one for the called party, which cpm-bench binds itself.
    let called = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a loopback port");
    let at = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let far = TcpStream::connect(called).expect("the called party listens");
            pump(far.try_clone().expect("a descriptor"), near.try_clone().expect("a descriptor"), |octets| Some(octets.to_vec()));
            pump(near, far, spoil());
        }
    });
    Scenario { via: Via::Tcp, relay: at.to_string(), called_msrp: called.to_string(), ..Scenario::default() }
}

fn effort() -> Effort {
    Effort { patience: Duration::from_millis(500), ..Effort::small() }
}

#[test]
fn a_sound_relay_is_found_sound() {
    let scenario = relay(|| |octets: &[u8]| Some(octets.to_vec()));
    for verdict in run(&scenario, "all", &Effort::small()).expect("sessions stand") {
        assert!(verdict.sound, "{verdict:?}");
    }
}

#[test]
fn a_relay_that_goes_silent_after_64_kib_stalls() {
    let scenario = relay(|| {
        let mut room = 65_536usize;
        move |octets: &[u8]| {
            let passed = octets.len().min(room);
            room -= passed;
            Some(octets[..passed].to_vec())
        }
    });
    let verdicts = run(&scenario, "stall", &effort()).expect("sessions stand");
    assert!(!verdicts[0].sound && verdicts[0].found.contains("of 512 messages"), "{verdicts:?}");
}

#[test]
fn a_relay_that_cannot_take_octets_that_are_no_text_is_found_out() {
    let scenario = relay(|| |octets: &[u8]| std::str::from_utf8(octets).ok().map(|text| text.as_bytes().to_vec()));
    assert!(!run(&scenario, "two-frames", &effort()).expect("sessions stand")[0].sound);
    assert!(run(&scenario, "big-chunk", &effort()).expect("sessions stand")[0].sound);
}

#[test]
fn a_relay_that_throws_away_what_does_not_fit_loses() {
    let scenario = relay(|| {
        let mut seen = 0usize;
        move |octets: &[u8]| {
            seen += octets.len();
            Some(if (3 << 20..4 << 20).contains(&seen) { Vec::new() } else { octets.to_vec() })
        }
    });
    let verdicts = run(&scenario, "slow-reader", &effort()).expect("sessions stand");
    assert!(!verdicts[0].sound, "{verdicts:?}");
}

#[test]
fn a_relay_with_a_frame_size_is_found_out() {
    let scenario = relay(|| {
        let mut since_end = 0usize;
        move |octets: &[u8]| {
            since_end = if octets.ends_with(b"$\r\n") { 0 } else { since_end + octets.len() };
            (since_end < 40_000).then(|| octets.to_vec())
        }
    });
    let verdicts = run(&scenario, "big-chunk", &effort()).expect("sessions stand");
    assert!(!verdicts[0].sound && verdicts[0].found.contains("chunks of 10000 octets pass"), "{verdicts:?}");
}
