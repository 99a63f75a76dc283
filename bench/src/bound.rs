//! The bound without a relay: one thread sends, another receives, nobody parses. Their CPU time together is what any relay pays
//! that receives each octet once and sends it once.

use crate::cpu::{self, Clocks, Used};
use crate::endpoint::tune;
use crate::report::{Latency, Outcome};
use crate::scenario::Scenario;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Octets arrived, and whether the run is over.
#[derive(Default)]
struct Shared {
    octets: AtomicU64,
    over: AtomicBool,
    cpu: [AtomicU64; 2],
}

/// Moves chunks over `sessions` connections, sender on CPU 0, receiver on CPU 1.
pub fn run(scenario: &Scenario) -> Result<Outcome, String> {
    let text = |error: std::io::Error| error.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let to = listener.local_addr().map_err(text)?;
    let mut ends = (Vec::new(), Vec::new());
    for _ in 0..scenario.sessions {
        let near = std::net::TcpStream::connect(to).map_err(text)?;
        let (far, _) = listener.accept().map_err(text)?;
        for socket in [&near, &far] {
            tune(&socket2::SockRef::from(socket), &scenario.congestion).map_err(text)?;
            socket.set_nonblocking(true).map_err(text)?;
        }
        ends.0.push(TcpStream::from_std(near));
        ends.1.push(TcpStream::from_std(far));
    }
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| work(0, ends.0, &shared, |stream, chunk| stream.write(chunk), scenario.chunk));
        let receiver = scope.spawn(|| work(1, ends.1, &shared, |stream, chunk| stream.read(chunk), 256 * 1024));
        std::thread::sleep(Duration::from_secs_f64(scenario.warmup));
        let read = || (shared.octets.load(Ordering::Relaxed), shared.cpu.each_ref().map(|cpu| cpu.load(Ordering::Relaxed)));
        let (begin, before, clocks) = (Instant::now(), read(), Clocks::read(None));
        std::thread::sleep(Duration::from_secs_f64(scenario.seconds));
        let (after, seconds, used) = (read(), begin.elapsed().as_secs_f64(), Clocks::read(None).since(&clocks));
        shared.over.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| "the sender panicked")??;
        receiver.join().map_err(|_| "the receiver panicked")??;
        let octets = after.0 - before.0;
        let both: u64 = (0..2).map(|side| after.1[side] - before.1[side]).sum();
        let mut outcome = Outcome::new(scenario, "messages", octets / scenario.chunk as u64, octets, seconds);
        outcome.latency = Latency::default();
        // Both threads are what is measured, and nothing else of this tool runs.
        outcome.cpu(Used { under_test: Some(both as f64 / 1e9), own: 0.0, ..used });
        outcome.judge(scenario);
        Ok(outcome)
    })
}

/// Reads or writes on every connection that is ready until the run is over; notes this thread's CPU time as it goes.
fn work(
    side: usize,
    mut streams: Vec<TcpStream>,
    shared: &Shared,
    mut step: impl FnMut(&mut TcpStream, &mut [u8]) -> std::io::Result<usize>,
    size: usize,
) -> Result<(), String> {
    cpu::pin(side);
    let mut poll = Poll::new().map_err(|error| error.to_string())?;
    for (number, stream) in streams.iter_mut().enumerate() {
        let interest = if side == 0 { Interest::WRITABLE } else { Interest::READABLE };
        poll.registry().register(stream, Token(number), interest).map_err(|error| error.to_string())?;
    }
    let (mut buffer, mut events) = (vec![b'x'; size], Events::with_capacity(1024));
    while !shared.over.load(Ordering::Relaxed) {
        let _ = poll.poll(&mut events, Some(Duration::from_millis(20)));
        for event in &events {
            let stream = &mut streams[event.token().0];
            loop {
                match step(stream, &mut buffer) {
                    Ok(octets) if side == 1 => {
                        shared.octets.fetch_add(octets as u64, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return if shared.over.load(Ordering::Relaxed) { Ok(()) } else { Err(error.to_string()) },
                }
                if shared.over.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
        }
        shared.cpu[side].store(cpu::thread(), Ordering::Relaxed);
    }
    Ok(())
}
