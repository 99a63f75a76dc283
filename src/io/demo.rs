//! `cpm-pf demo`: the real proxy and two clients on loopback. One Large Message Mode message and one 1-1 session go through it; the
//! ladder is drawn as it happens, what arrived is compared with what was sent, and the exit code says whether it is the same.

mod ladder;
mod msrp;
mod sip;

use super::control::Process;
use super::threads;
use crate::base::transport::Transport;
use crate::config::value::{print_size, size};
use crate::config::{Config, Listen, Network, RegisteredClient, RegisteredUser};
use ladder::{Ladder, Side};
use msrp::{Msrp, hex};
use sha2::{Digest, Sha256};
use sip::{Client, sdp};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// `demo`'s options.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Octets of the large message, "64KiB" to "4GiB".
    #[arg(long, default_value = "100MiB", value_parser = octets)]
    size: u64,
    /// Messages that each client sends in the session.
    #[arg(long, default_value_t = 1000)]
    messages: usize,
}

fn octets(text: &str) -> Result<u64, String> {
    size(text).filter(|size| (1..=4 << 30).contains(size)).ok_or_else(|| "a size up to 4GiB: \"100MiB\"".into())
}

/// What went wrong, in words.
#[derive(Debug)]
pub struct Failure(String);

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Runs the demonstration; answers the exit code.
pub fn run(options: &Options) -> u8 {
    let folder = std::env::temp_dir().join(format!("cpm-pf-demo-{}", std::process::id()));
    let played = play(options, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    match played {
        Ok(()) => 0,
        Err((code, failure)) => {
            eprintln!("demo failed: {}", failure.0);
            code
        }
    }
}

fn play(options: &Options, folder: &Path) -> Result<(), (u8, Failure)> {
    let failed = |failure| (1, failure);
    let ladder = Arc::new(Ladder::begin());
    let mut alice = Client::new(Side::Alice, ladder.clone()).map_err(failed)?;
    let bob = Client::new(Side::Bob, ladder.clone()).map_err(failed)?;
    let (process, _events) = Process::new();
    let config = Arc::new(configuration(bob.address, folder, options.size));
    let running = threads::start(config, process, false).map_err(|error| (error.exit_code(), Failure(error.to_string())))?;
    let proxy = running.bound.sip[0].address;
    ladder.note(&format!("the proxy listens on udp:{proxy} and msrp:{}", running.bound.msrp[0].address));

    let played = large_message(&mut alice, bob, proxy, &ladder, options.size as usize)
        .and_then(|bob| session(&mut alice, bob, proxy, &ladder, options.messages));
    running.stop(Duration::from_secs(1));
    played.map(drop).map_err(failed)
}

/// The configuration of `run`, with what the demonstration needs: ports of the kernel's choice, and bob registered.
fn configuration(bob: SocketAddr, folder: &Path, octets: u64) -> Config {
    let mut config = Config::default();
    // One call at a time is no overload, however busy the machine is.
    config.limits.overload_queue_delay = Duration::from_secs(30);
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.node.host = "127.0.0.1".into();
    config.cores.signaling = vec![0];
    // A second CPU, where there is one.
    config.cores.media = vec![std::thread::available_parallelism().map_or(0, |cpus| usize::from(cpus.get() > 1))];
    config.sip.listen = vec![Listen { transport: Transport::Udp, address: loopback }];
    config.sip.trusted = vec![Network { address: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 8 }];
    config.sip.home_domains = vec!["example.net".into()];
    config.msrp.listen = vec![Listen { transport: Transport::Tcp, address: loopback }];
    config.msrp.max_message = config.msrp.max_message.max(octets);
    config.policy.authorised_originators = vec!["sip:*@example.net".into()];
    config.policy.record_history = false;
    config.registrations.users = vec![RegisteredUser {
        address: "sip:bob@example.net".into(),
        clients: vec![RegisteredClient {
            contact: format!("sip:bob@{bob};transport=udp"),
            instance: Some("<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>".into()),
            gruu: None,
            features: vec!["largemsg".into(), "session".into(), "msg".into()],
            user_agent: Some("CPM-client/OMA2.2".into()),
            primary: true,
        }],
    }];
    let file = |name: &str| format!("file:{}", folder.join(name).display());
    config.xdm.root = file("xdm");
    config.store.history = file("history");
    config.store.deferred = file("deferred");
    config.store.spool = folder.join("spool");
    config
}

/// Octets that do not repeat, cheaply: the demonstration measures the proxy.
struct Filler(u64);

impl Filler {
    fn fill(&mut self, octets: &mut [u8]) {
        for word in octets.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_ne_bytes()[..word.len()]);
        }
    }
}

/// Bob, doing his part in a thread of his own; gives himself back.
type Bob<T> = JoinHandle<Result<(Client, T), Failure>>;

fn join<T>(bob: Bob<T>) -> Result<(Client, T), Failure> {
    bob.join().map_err(|_| Failure("bob's thread failed".into()))?
}

/// CR 8.3.1.2: one Large Message Mode message from alice to bob.
fn large_message(
    alice: &mut Client,
    bob: Client,
    proxy: SocketAddr,
    ladder: &Arc<Ladder>,
    size: usize,
) -> Result<Client, Failure> {
    ladder.note(&format!("Large Message Mode: {} from alice to bob", print_size(size as u64)));
    let before = cpu_of("media-0");
    let theirs = ladder.clone();
    let bob: Bob<(String, usize, usize)> = std::thread::spawn(move || {
        let (invite, from) = bob.expect("INVITE")?;
        bob.answer(&invite, from, Some(&sdp("bob-large", "recvonly", "")))?;
        let mut msrp = Msrp::connect("bob-large", invite.attribute("path"))?;
        theirs.sent(Side::Bob, "MSRP SEND (opens)");
        let came = msrp.reader.messages(1)?;
        theirs.came(Side::Bob, &format!("MSRP SEND $ ({} chunks)", came.1));
        let (bye, from) = bob.expect("BYE")?;
        bob.answer(&bye, from, None)?;
        Ok((bob, came))
    });

    let offer = sdp("alice-large", "sendonly", &format!("a=file-selector:size:{size} type:application/octet-stream\r\n"));
    let ok = alice.invite(proxy, "largemsg", &offer)?;
    let Msrp { mut reader, mut writer } = Msrp::connect("alice-large", ok.attribute("path"))?;
    ladder.sent(Side::Alice, "MSRP SEND (opens)");
    let started = ladder.seconds();
    let (mut hash, mut filler) = (Sha256::new(), Filler(0x2545_f491_4f6c_dd1d));
    let answers = std::thread::spawn(move || {
        // The opening SEND is answered too.
        let chunks = size.div_ceil(256 * 1024).max(1);
        reader.answers(chunks + 1)
    });
    ladder.sent(Side::Alice, &format!("MSRP SEND + 1-*/{size}"));
    let (mut at, mut quarter) = (0, 1);
    let chunks = writer.send("large-message-1", size, |piece| {
        filler.fill(piece);
        hash.update(&*piece);
        at += piece.len();
        while quarter < 4 && at >= size / 4 * quarter {
            ladder.sent(Side::Alice, &format!("MSRP SEND + ({} %)", 25 * quarter));
            quarter += 1;
        }
    })?;
    ladder.sent(Side::Alice, &format!("MSRP SEND $ ({chunks} chunks)"));
    answers.join().map_err(|_| Failure("alice's thread failed".into()))??;
    ladder.came(Side::Alice, "MSRP 200 OK");
    let seconds = ladder.seconds() - started;
    alice.bye(proxy, &ok)?;
    let (bob, (received, chunks, octets)) = join(bob)?;

    let sent = hex(hash);
    let cpu = cpu_of("media-0").zip(before).map(|(after, before)| after.saturating_sub(before).as_secs_f64());
    let gigabytes = size as f64 / 1e9;
    ladder.note(&format!("{octets} octets in {chunks} chunks, {seconds:.3} s, {:.1} MB/s", size as f64 / 1e6 / seconds));
    if let Some(cpu) = cpu {
        ladder.note(&format!("media core: {cpu:.3} CPU s, {:.3} CPU s a GB", cpu / gigabytes));
    }
    same(ladder, "large message", &sent, &received)?;
    Ok(bob)
}

/// CR 8.3.2.1: one session, with messages both ways.
fn session(alice: &mut Client, bob: Client, proxy: SocketAddr, ladder: &Arc<Ladder>, messages: usize) -> Result<Client, Failure> {
    ladder.note(&format!("session: {messages} messages each way"));
    let theirs = ladder.clone();
    let (has_all, bob_has_all) = std::sync::mpsc::channel();
    let bob: Bob<(String, String)> = std::thread::spawn(move || {
        let (invite, from) = bob.expect("INVITE")?;
        bob.answer(&invite, from, Some(&sdp("bob-session", "sendrecv", "")))?;
        let msrp = Msrp::connect("bob-session", invite.attribute("path"))?;
        theirs.sent(Side::Bob, "MSRP SEND (opens)");
        let (hashes, _open) = chat(msrp, Side::Bob, &theirs, messages)?;
        let _ = has_all.send(());
        let (bye, from) = bob.expect("BYE")?;
        bob.answer(&bye, from, None)?;
        Ok((bob, hashes))
    });
    let ok = alice.invite(proxy, "session", &sdp("alice-session", "sendrecv", ""))?;
    let msrp = Msrp::connect("alice-session", ok.attribute("path"))?;
    ladder.sent(Side::Alice, "MSRP SEND (opens)");
    let started = ladder.seconds();
    // A connection that closes before the BYE would end the session by itself.
    let ((from_alice, to_alice), _open) = chat(msrp, Side::Alice, ladder, messages)?;
    // A BYE ends the media too: nobody hangs up on what is still on its way to the other.
    let _ = bob_has_all.recv();
    let seconds = ladder.seconds() - started;
    alice.bye(proxy, &ok)?;
    let (bob, (from_bob, to_bob)) = join(bob)?;
    ladder.note(&format!("{} messages in {seconds:.3} s, {:.0} a second", 2 * messages, 2.0 * messages as f64 / seconds));
    same(ladder, "alice to bob", &from_alice, &to_bob)?;
    same(ladder, "bob to alice", &from_bob, &to_alice)?;
    Ok(bob)
}

/// Sends messages and takes as many, at the same time. Gives back the hashes of what went and what came, and the connection.
fn chat(msrp: Msrp, side: Side, ladder: &Ladder, messages: usize) -> Result<((String, String), Msrp), Failure> {
    let Msrp { mut reader, mut writer } = msrp;
    let receiving = std::thread::spawn(move || reader.messages(messages).map(|came| (came, reader)));
    let mut hash = Sha256::new();
    ladder.sent(side, "MSRP SEND $");
    for number in 0..messages {
        let text = format!("{side:?} says number {number}, and nothing else than that.");
        hash.update(text.as_bytes());
        writer.send(&format!("{side:?}-{number}"), text.len(), |piece| piece.copy_from_slice(text.as_bytes()))?;
    }
    ladder.sent(side, &format!("MSRP SEND $ ({messages} messages)"));
    let ((came, ..), reader) = receiving.join().map_err(|_| Failure("a receiving thread failed".into()))??;
    ladder.came(side, &format!("MSRP SEND $ ({messages} messages)"));
    Ok(((hex(hash), came), Msrp { reader, writer }))
}

fn same(ladder: &Ladder, what: &str, sent: &str, received: &str) -> Result<(), Failure> {
    if sent == received {
        ladder.note(&format!("{what}: sha256 {sent} sent and received"));
        return Ok(());
    }
    Err(Failure(format!("{what}: sha256 {sent} was sent, {received} received")))
}

/// CPU time of a thread of ours, by its name, to the nanosecond (`/proc/self/task/*/schedstat`).
fn cpu_of(name: &str) -> Option<Duration> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let paths: Vec<PathBuf> = tasks.filter_map(|task| Some(task.ok()?.path())).collect();
    let task = paths.iter().find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))?;
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
