//! Media cores alone: real sockets and rings, steered through the lanes that signalling cores use.

use crate::counting::{Counter, count_into};
use crate::msrp::Msrp;
use crate::proxy::PATIENCE;
use cpm_pf::base::span::Span;
use cpm_pf::base::transport::Transport;
use cpm_pf::config::{Config, Listen};
use cpm_pf::io::clock::Clock;
use cpm_pf::io::control::{Mailbox, MediaOrder};
use cpm_pf::io::handover::Around;
use cpm_pf::io::media::buffers::Pools;
use cpm_pf::io::media::engine::Engine;
use cpm_pf::io::media::lanes::Core;
use cpm_pf::io::media::listener;
use cpm_pf::io::probe::{Features, probe};
use cpm_pf::io::signalling::lanes::MediaLink;
use cpm_pf::io::tls::Tls;
use cpm_pf::io::wiring::Wiring;
use cpm_pf::msrp::leg::{Direction, Matching, Peer, SessionKind};
use cpm_pf::shard::exchange::{Command, Leg, LegKind, MediaKey, Open, Report};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// How the cores are to run.
#[derive(Clone)]
pub struct Setup {
    pub cores: usize,
    pub features: Features,
    pub pools: Option<Pools>,
    pub config: Config,
    pub tls: Option<Tls>,
    /// What the cores allocate counts there.
    pub counter: Option<&'static Counter>,
}

impl Setup {
    /// One core with everything this kernel has.
    pub fn new() -> Self {
        // On a thread of its own: a ring that is taken down interrupts what its thread waits for.
        let features = std::thread::spawn(probe).join().expect("the probe does not panic");
        let features = features.expect("the tests run on a kernel that the product accepts");
        Self { cores: 1, features, pools: None, config: Config::default(), tls: None, counter: None }
    }
}

/// Media cores on threads of their own.
pub struct Rig {
    links: Vec<MediaLink>,
    orders: Vec<Arc<Mailbox<MediaOrder>>>,
    threads: Vec<JoinHandle<()>>,
    pub address: SocketAddr,
    pub tls_address: Option<SocketAddr>,
    next: u64,
}

/// One session of two peers.
pub struct Pair {
    pub key: MediaKey,
    /// The origin connected to us; we connected to the target.
    pub origin: Msrp,
    pub target: Msrp,
}

impl Rig {
    pub fn start(setup: Setup) -> Self {
        let mut wiring = Wiring::new(1, setup.cores).expect("eventfds are to be had");
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let mut listen = vec![Listen { transport: Transport::Tcp, address: loopback }];
        if setup.tls.is_some() {
            listen.push(Listen { transport: Transport::Tls, address: loopback });
        }
        let mut config = setup.config.clone();
        config.msrp.listen.clone_from(&listen);
        config.cores.media = (0..setup.cores).collect();
        let config = Arc::new(config);
        let around = Around { own: Span::new(0, setup.cores), ..Around::default() };
        let all = listener::bind(&listen, setup.cores, "", &mut None).unwrap_or_else(|error| panic!("{error}"));
        let (address, tls_address) = (all[0][0].address, all[0].get(1).map(|listener| listener.address));
        let clock = Clock::start();
        let orders = wiring.media_orders.clone();
        let mut threads = Vec::new();
        for (number, listeners) in all.into_iter().enumerate() {
            let (config, lanes, setup) = (config.clone(), wiring.media_lanes(number, around.clone()), setup.clone());
            threads.push(std::thread::spawn(move || {
                if let Some(counter) = setup.counter {
                    count_into(counter);
                }
                let pools = setup.pools.unwrap_or(Pools::fitting(setup.features, config.msrp.zero_copy_send));
                let (features, tls) = (setup.features, setup.tls);
                let core =
                    Core { number: number as u8, first_signalling: 0, cpu: 0, config, features, clock, tls, listeners, lanes };
                let engine = Engine::with_pools(core, pools).expect("a ring and its buffers are to be had");
                engine.run().expect("the ring works to the end");
            }));
        }
        let links = wiring.media_links(0);
        Self { links, orders, threads, address, tls_address, next: 1 }
    }

    pub fn command(&mut self, core: usize, command: Command) {
        assert!(self.links[core].commands.push(command).is_ok(), "the lane holds all commands of a test");
        self.links[core].wake.ring();
    }

    /// The next report of a core.
    #[track_caller]
    pub fn report(&mut self, core: usize) -> Report {
        let start = Instant::now();
        loop {
            if let Some(report) = self.links[core].reports.pop() {
                return report;
            }
            assert!(start.elapsed() < PATIENCE, "no report came");
            std::thread::yield_now();
        }
    }

    /// The first report that fits; those before it are passed over.
    #[track_caller]
    pub fn expect<T>(&mut self, core: usize, fits: impl Fn(&Report) -> Option<T>) -> T {
        loop {
            if let Some(what) = fits(&self.report(core)) {
                return what;
            }
        }
    }

    /// What a core's engine has counted.
    pub fn engine_counts(&self, core: usize) -> BTreeMap<&'static str, u64> {
        let (ask, answer) = tokio::sync::oneshot::channel();
        assert!(self.orders[core].post(MediaOrder::Snapshot(ask)), "the mailbox has room");
        answer.blocking_recv().expect("the core answers").engine.into_iter().collect()
    }

    pub fn uri(&self, core: usize, number: u64, leg: u8) -> String {
        format!("msrp://{}/{core:02x}{number:08x}{leg:02x}abcdefghijklmnopqrst;tcp", self.address)
    }

    /// Opens a session whose origin will connect to us; the target's leg is there and not yet bound.
    pub fn open(&mut self, core: usize, target: LegKind) -> (MediaKey, u64) {
        let number = self.next;
        self.next += 1;
        let session = MediaKey(number);
        let leg = |leg, kind| Leg { leg, kind, direction: Direction::Both, matching: Matching::Strict };
        let origin = leg(0, LegKind::Msrp { uri: self.uri(core, number, 0).into(), tls: false });
        let open = Open { session, kind: SessionKind::Session, max_message: 1 << 40, origin };
        self.command(core, Command::Open(Box::new(open)));
        self.command(core, Command::Leg { session, leg: Box::new(leg(1, target)) });
        (session, number)
    }

    pub fn bind(&mut self, core: usize, session: MediaKey, leg: u8, peer: Peer) {
        self.command(core, Command::Bind { session, leg, peer: Box::new(peer) });
    }

    /// A session of two peers, both bound.
    pub fn pair(&mut self, core: usize) -> Pair {
        let (key, number) = {
            let uri = self.uri(core, self.next, 1);
            self.open(core, LegKind::Msrp { uri: uri.into(), tls: false })
        };
        let waiting = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let to = waiting.local_addr().expect("bound");
        let (origin_uri, target_uri) = (format!("msrp://127.0.0.1:9/o{number};tcp"), format!("msrp://{to}/t{number};tcp"));
        self.bind(core, key, 0, peer(&origin_uri, None));
        self.bind(core, key, 1, peer(&target_uri, Some(to)));
        let (stream, _) = waiting.accept().expect("the core connects");
        let mut target = Msrp::over(stream, &target_uri, &self.uri(core, number, 1));
        let opening = target.expect("SEND-EMPTY");
        target.answer(&opening, "200 OK");
        let mut origin = Msrp::connect(self.address, &origin_uri, &self.uri(core, number, 0));
        origin.open();
        origin.expect("200");
        Pair { key, origin, target }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for orders in &self.orders {
            orders.post(MediaOrder::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() && !std::thread::panicking() {
                panic!("a media core panicked");
            }
        }
    }
}

/// A peer over TCP.
pub fn peer(uri: &str, connect: Option<SocketAddr>) -> Peer {
    let path = vec![uri.into()];
    Peer { path, connect, tls: false, fingerprint: None, max_size: None, matching: Matching::Strict }
}
