//! The threads of the process: one for each signalling core and each media core, pinned; one for the services. `run` and `demo`
//! start the same ones here.
//!
//! ```text
//! main ---orders---> signalling cores <===lanes===> media cores
//!                        ^      \
//!                     fetched    questions
//!                        |        v
//!                        services thread (documents, stores, admin server, call records)
//! ```

mod neighbours;

use self::neighbours::Neighbours;
use super::admin::{self, Admin};
use super::cdr::Records;
use super::clock::Clock;
use super::control::{Event, Mailbox, MediaOrder, Process};
use super::handover::link::Doors;
use super::handover::take::{self, Taken};
use super::handover::wire::Role;
use super::media;
use super::media::listener::{self, Listener};
use super::probe::{Features, probe};
use super::services::engine::Services;
use super::services::inbox::{Answers, Asker, Inbox, LetGone};
use super::signalling::engine::{Engine, Setup};
use super::signalling::lanes::{Links, Order};
use super::signalling::sockets::{self, BindError};
use super::tls::{Tls, Unusable};
use super::watchdog;
use super::wiring::{AnswerLane, Wiring};
use crate::base::clock::Duration;
use crate::base::prng::Prng;
use crate::base::transport::Transport;
use crate::config::{Config, Listen};
use crate::shard::exchange::{Fetched, Ticket};
use crate::shard::signalling::{Bound, Signalling};
use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Why the proxy could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The kernel lacks something required: what, and the first release that has it.
    Kernel(String),
    /// An address cannot be had.
    Bind(BindError),
    /// A certificate or key cannot be used.
    Tls(Unusable),
    /// The token of the admin server cannot be used.
    Token(String),
    /// A store or a thread.
    Other(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Kernel(what) | StartError::Token(what) | StartError::Other(what) => f.write_str(what),
            StartError::Bind(error) => error.fmt(f),
            StartError::Tls(error) => error.fmt(f),
        }
    }
}

impl StartError {
    /// The exit code that the README promises.
    pub const fn exit_code(&self) -> u8 {
        match self {
            StartError::Kernel(_) => 3,
            StartError::Tls(_) | StartError::Token(_) => 2,
            StartError::Bind(_) | StartError::Other(_) => 1,
        }
    }
}

/// The proxy, started.
pub struct Running {
    pub bound: Bound,
    pub admin: Option<SocketAddr>,
    pub signalling: Vec<Arc<Mailbox<Order>>>,
    pub media: Vec<Arc<Mailbox<MediaOrder>>>,
    services: Arc<Inbox>,
    records: Records,
    config: Arc<Config>,
    neighbours: Neighbours,
    threads: Threads,
    services_thread: Option<JoinHandle<()>>,
}

/// What is common to the starting of all threads.
struct Threads {
    process: Process,
    clock: Clock,
    signalling: Vec<JoinHandle<()>>,
    media: Vec<JoinHandle<()>>,
    /// Each thread says here that it is ready, or why it is not.
    ready: mpsc::Sender<Result<(), String>>,
    wait: mpsc::Receiver<Result<(), String>>,
    started: usize,
    features: Features,
}

/// Binds, opens and starts everything; answers when the first request can be taken. With `take_over` that is from the process at
/// `node.handover`, if there is one.
///
/// # Errors
/// The first thing that cannot be had. Threads that were started end with the process.
pub fn start(config: Arc<Config>, process: Process, take_over: bool) -> Result<Running, StartError> {
    let features = probe().map_err(|missing| StartError::Kernel(missing.to_string()))?;
    raise_file_limit();
    let clock = Clock::start();
    let tls = certificates(&config)?;
    let cores = (config.cores.signaling.len(), config.cores.media.len());
    // From here on the old process reads no more: what can be found wrong was looked for before.
    let mut taken = if take_over { take::ask(&config).map_err(StartError::Other)? } else { None };
    let (sip, sockets) = sockets::bind(&config.sip.listen, cores.0, &mut taken).map_err(StartError::Bind)?;
    let listeners =
        listener::bind(&config.msrp.listen, cores.1, &config.msrp.congestion, &mut taken).map_err(StartError::Bind)?;
    let admin = admin_listener(&config.admin, &mut taken)?;
    let own = neighbours::spans(cores, taken.as_ref());
    let bound = Bound {
        sip,
        msrp: bound_msrp(&config, &listeners),
        fingerprint: tls.1.as_ref().map(|tls| tls.fingerprint.to_string().into()),
        media_cores: cores.1 as u8,
        first_core: own.0.first,
        first_media: own.1.first,
    };
    let other = |what: &str, error: io::Error| StartError::Other(format!("{what}: {error}"));
    let shared = neighbours::share(&config, &bound, &sockets, &listeners, admin.as_ref());
    let shared = shared.map_err(|error| other("no descriptor is left", error))?;
    let (services, before) = match taken {
        None => (Services::open(config.clone(), clock), None),
        Some(Taken { stream, spool, given, .. }) => {
            let stores = LetGone { claimed: given.claimed.clone(), unsaid: given.unsaid.clone(), spool };
            (Services::take_over(config.clone(), clock, stores), Some((stream, given)))
        }
    };
    let services = services.map_err(|error| other("cannot open the stores", error))?;

    let mut wiring = Wiring::new(cores.0, cores.1).map_err(|error| other("cannot make the lanes", error))?;
    let (ready, wait) = mpsc::channel();
    let threads =
        Threads { process: process.clone(), clock, signalling: Vec::new(), media: Vec::new(), ready, wait, started: 0, features };
    let inbox = Inbox::new();
    let doors = Doors {
        own,
        signalling: wiring.doors.clone(),
        media: wiring.media_doors.clone(),
        services: inbox.clone(),
        process: process.clone(),
        clock,
        sip: bound.sip.clone(),
    };
    let neighbours =
        Neighbours::new(doors, shared, before).map_err(|error| other("cannot be linked to the old process", error))?;
    let mut running = Running {
        bound,
        admin: admin.as_ref().and_then(|listener| listener.local_addr().ok()),
        signalling: wiring.signalling_orders.clone(),
        media: wiring.media_orders.clone(),
        services: inbox,
        records: Records::default(),
        config: config.clone(),
        neighbours,
        threads,
        services_thread: None,
    };
    let carrier = wiring.answers();
    running.start_services(services, carrier, admin)?;
    for (core, listeners) in listeners.into_iter().enumerate() {
        running.start_media(core, listeners, &mut wiring, tls.1.clone())?;
    }
    for (core, sockets) in sockets.into_iter().enumerate() {
        running.start_signalling(core, sockets, &mut wiring, tls.0.clone())?;
    }
    running.threads.all_ready()?;
    running.neighbours.tell_ready().map_err(StartError::Other)?;
    Ok(running)
}

/// Certificates of SIP and of MSRP, which are SIP's where it has none of its own.
fn certificates(config: &Config) -> Result<(Option<Tls>, Option<Tls>), StartError> {
    let load = |tls: &Option<crate::config::Tls>| tls.as_ref().map(Tls::load).transpose().map_err(StartError::Tls);
    let sip = load(&config.sip.tls)?;
    let msrp = if config.msrp.tls.is_some() { load(&config.msrp.tls)? } else { sip.clone() };
    Ok((sip, msrp))
}

/// What is wrong with files that the configuration names, certificates and the token: `run` would not start with them.
pub fn unusable_files(config: &Config) -> Vec<String> {
    let load = |key: &str, tls: &Option<crate::config::Tls>| {
        tls.as_ref().and_then(|tls| Tls::load(tls).err()).map(|error| format!("{key}: {error}"))
    };
    let token = config.admin.token_file.as_ref().and_then(|file| admin::token::read(file).err());
    let token = token.map(|error| format!("admin.token_file: {error}"));
    load("sip.tls", &config.sip.tls).into_iter().chain(load("msrp.tls", &config.msrp.tls)).chain(token).collect()
}

/// The MSRP addresses with the ports that stand for 0; every core has the same.
fn bound_msrp(config: &Config, listeners: &[Vec<Listener>]) -> Vec<Listen> {
    let first = listeners.first().map_or(&[][..], Vec::as_slice);
    let bound = |(listen, listener): (&Listen, &Listener)| Listen { address: listener.address, ..*listen };
    config.msrp.listen.iter().zip(first).map(bound).collect()
}

fn admin_listener(config: &crate::config::Admin, taken: &mut Option<Taken>) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = config.listen else { return Ok(None) };
    if let Some(file) = &config.token_file {
        admin::token::read(file).map_err(|error| StartError::Token(format!("admin.token_file: {error}")))?;
    }
    let listen = Listen { transport: Transport::Tcp, address };
    if let Some((_, socket)) = taken.as_mut().and_then(|taken| taken.sockets(Role::Admin, listen).pop()) {
        return Ok(Some(socket.into()));
    }
    let bound = sockets::patiently(|| TcpListener::bind(address));
    bound.map(Some).map_err(|error| StartError::Other(format!("cannot listen on http://{address} (admin.listen): {error}")))
}

/// Takes answers of the services to the cores that asked.
struct Carrier(RefCell<Vec<AnswerLane>>);

impl Answers for Carrier {
    fn answer(&self, core: u8, ticket: Ticket, answer: Fetched) {
        let mut lanes = self.0.borrow_mut();
        let Some((lane, wake)) = lanes.get_mut(usize::from(core)) else { return };
        if lane.push((ticket, answer)).is_err() {
            // The lane has room for all that may be asked; only what comes unasked can find it full.
            tracing::warn!(core, "an answer of the services found its lane full");
        }
        wake.ring();
    }
}

impl Running {
    fn start_services(
        &mut self,
        services: Services,
        lanes: Vec<AnswerLane>,
        listener: Option<TcpListener>,
    ) -> Result<(), StartError> {
        let (inbox, records, file) = (self.services.clone(), self.records.clone(), self.config.admin.cdr.clone());
        let admin = Admin {
            process: self.threads.process.clone(),
            signalling: self.signalling.clone(),
            media: self.media.clone(),
            records: records.clone(),
            services: inbox.clone(),
            clock: self.threads.clock,
            token: self.config.admin.token_file.clone(),
        };
        // What waits is counted before anybody can ask.
        inbox.count_deferred(services.deferred_messages());
        let beside_process = self.threads.process.clone();
        let cores = watchdog::Cores { signalling: self.signalling.clone(), media: self.media.clone() };
        self.services_thread = Some(self.threads.spawn("services".into(), None, move |ready| {
            let _ = ready.send(Ok(()));
            let beside = async move {
                if let Some(patience) = watchdog::patience() {
                    tokio::task::spawn_local(watchdog::watch(cores, beside_process, patience));
                }
                if let Some(listener) = listener {
                    tokio::task::spawn_local(admin::serve(listener, admin));
                }
                records.write(file).await;
            };
            services.run(inbox, Carrier(RefCell::new(lanes)), beside)
        })?);
        Ok(())
    }

    fn start_signalling(
        &mut self,
        core: usize,
        sockets: Vec<sockets::Bound>,
        wiring: &mut Wiring,
        tls: Option<Tls>,
    ) -> Result<(), StartError> {
        let links = Links {
            wake: wiring.signalling_wakes[core].clone(),
            orders: self.signalling[core].clone(),
            process: self.threads.process.clone(),
            records: self.records.clone(),
            services: Asker::new(self.services.clone()),
            fetched: wiring.fetched[core].receiver(),
            media: wiring.media_links(core),
            media_orders: self.media.clone(),
            cores: std::mem::take(&mut wiring.links[core]),
            index: core as u8,
            around: self.neighbours.around_signalling(),
            door: wiring.doors[core].clone(),
            dropped: 0,
        };
        let cpu = self.config.cores.signaling[core];
        let number = self.bound.first_core.wrapping_add(core as u8);
        let learnt = self.neighbours.learnt();
        let (config, bound, clock) = (self.config.clone(), self.bound.clone(), self.threads.clock);
        let min_wait = self.threads.features.min_wait;
        let prng = prng()?;
        let thread = self.threads.spawn(format!("signaling-{core}"), Some(cpu), move |ready| {
            let shard = Signalling::new(number, config.clone(), bound, prng);
            let setup = Setup { core: number, cpu, sockets, config, tls, clock, min_wait, links, learnt };
            let engine = Engine::new(setup, shard)?;
            let _ = ready.send(Ok(()));
            engine.run()
        })?;
        self.threads.signalling.push(thread);
        Ok(())
    }

    fn start_media(
        &mut self,
        core: usize,
        listeners: Vec<Listener>,
        wiring: &mut Wiring,
        tls: Option<Tls>,
    ) -> Result<(), StartError> {
        let cpu = self.config.cores.media[core];
        let (config, features, clock) = (self.config.clone(), self.threads.features, self.threads.clock);
        let lanes = wiring.media_lanes(core, self.neighbours.around_media());
        let (number, first_signalling) = (self.bound.first_media.wrapping_add(core as u8), self.bound.first_core);
        let thread = self.threads.spawn(format!("media-{core}"), Some(cpu), move |ready| {
            let core = media::lanes::Core { number, first_signalling, cpu, config, features, clock, tls, listeners, lanes };
            let engine = media::engine::Engine::new(core)?;
            let _ = ready.send(Ok(()));
            engine.run()
        })?;
        self.threads.media.push(thread);
        Ok(())
    }

    /// The configuration that counts.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Gives every thread a new configuration and the certificates it names.
    ///
    /// # Errors
    /// When a certificate cannot be used; nothing has changed then.
    pub fn reload(&mut self, config: Config) -> Result<(), StartError> {
        let (sip, msrp) = certificates(&config)?;
        self.config = Arc::new(config);
        for mailbox in &self.signalling {
            let fingerprint = msrp.as_ref().map(|tls| tls.fingerprint.clone());
            mailbox.post(Order::Reload { config: self.config.clone(), tls: sip.clone(), fingerprint });
        }
        for mailbox in &self.media {
            mailbox.post(MediaOrder::Reload(self.config.clone(), msrp.clone()));
        }
        self.services.reload(self.config.clone());
        Ok(())
    }

    /// No new dialogs from here on.
    pub fn drain(&self) {
        for mailbox in &self.signalling {
            mailbox.post(Order::Drain);
        }
    }

    /// Ends every session and every thread, in an order in which each can still tell the next what it has to say. The signalling
    /// cores say BYE and wait at most `linger` for it to have an end.
    pub fn stop(mut self, linger: Duration) {
        for mailbox in &self.signalling {
            mailbox.post(Order::Stop { linger });
        }
        join(&mut self.threads.signalling);
        for mailbox in &self.media {
            mailbox.post(MediaOrder::Stop);
        }
        join(&mut self.threads.media);
        self.neighbours.settle();
        self.records.stop();
        self.services.close();
        join(&mut self.services_thread.take().into_iter().collect());
    }
}

/// Waits for threads to end; what one had to say it has told the main thread.
fn join(threads: &mut Vec<JoinHandle<()>>) {
    for thread in threads.drain(..) {
        let _ = thread.join();
    }
}

impl Threads {
    /// Starts a thread that tells how it ended, whatever happens in it.
    fn spawn(
        &mut self,
        name: String,
        cpu: Option<usize>,
        body: impl FnOnce(&mpsc::Sender<Result<(), String>>) -> io::Result<()> + Send + 'static,
    ) -> Result<JoinHandle<()>, StartError> {
        let (process, ready, thread) = (self.process.clone(), self.ready.clone(), name.clone());
        self.started += 1;
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                if let Some(cpu) = cpu {
                    pin(cpu);
                }
                let ended = catch_unwind(AssertUnwindSafe(|| body(&ready)));
                if let Ok(Err(error)) = &ended {
                    let _ = ready.send(Err(format!("{thread}: {error}")));
                    tracing::error!(thread, %error, "a thread ended");
                }
                process.tell(Event::Ended { thread, failed: !matches!(ended, Ok(Ok(()))) });
            })
            .map_err(|error| StartError::Other(format!("cannot start a thread: {error}")))
    }

    fn all_ready(&self) -> Result<(), StartError> {
        for _ in 0..self.started {
            match self.wait.recv_timeout(Duration::from_secs(30)) {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return Err(StartError::Other(why)),
                Err(_) => return Err(StartError::Other("a thread does not come up".into())),
            }
        }
        Ok(())
    }
}

fn prng() -> Result<Prng, StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StartError::Other(format!("no entropy: {error}")))?;
    Ok(Prng::from_entropy(seed))
}

/// Pins the calling thread to a CPU. One that is not ours to use is said and done without: the thread works on any.
fn pin(cpu: usize) {
    // SAFETY: the set is plain data of its own size; the call reads it and changes only where this thread runs.
    let pinned = cpu < libc::CPU_SETSIZE as usize
        && unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set) == 0
        };
    if !pinned {
        tracing::warn!(cpu, "cannot pin a thread to this CPU; it runs on any");
    }
}

/// Every connection is a file: as many as the system lets us have.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write the one local structure.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
