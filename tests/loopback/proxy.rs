//! The real program under test: started with a configuration of the test's, read from its `ready` line, ended by SIGTERM.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Longest time anything here may take; only a test that fails waits so long. A program that starts beside twenty others on two
/// cores was seen to need more than 20 s.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Proxy {
    child: Child,
    /// Processes that were taken over from, the newest last.
    former: Vec<Child>,
    pub ready: String,
    pub udp: SocketAddr,
    pub tcp: Option<SocketAddr>,
    pub tls: Option<SocketAddr>,
    pub msrp: SocketAddr,
    pub msrps: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub folder: tempfile::TempDir,
    log: PathBuf,
}

/// A configuration with all listeners on loopback ports that the kernel picks. `more` is TOML, or several pieces of it between
/// lines of `---`: a key given later replaces the one given before.
pub fn config(more: &str) -> String {
    let base = r#"
        [node]
        host = "127.0.0.1"
        drain_timeout = "5s"
        [cores]
        signaling = [0]
        media = [1]
        [sip]
        listen = ["udp://127.0.0.1:0", "tcp://127.0.0.1:0"]
        trusted = ["127.0.0.0/8"]
        home_domains = ["example.net"]
        [msrp]
        listen = ["tcp://127.0.0.1:0"]
        [policy]
        authorised_originators = ["sip:*@example.net", "tel:+*"]
        [xdm]
        root = "file:xdm"
        [store]
        history = "file:var/history"
        deferred = "file:var/deferred"
        spool = "var/spool"
        # A test must pass on a machine that is busy: overload is for the tests about it.
        [limits]
        overload_queue_delay = "30s"
        [admin]
        listen = "127.0.0.1:0"
        cdr = "var/cdr.jsonl"
    "#;
    let mut base: toml::Table = base.parse().expect("the base is TOML");
    for piece in more.split("---\n") {
        let piece: toml::Table = piece.parse().unwrap_or_else(|error| panic!("{error}\n{piece}"));
        merge(&mut base, piece);
    }
    toml::to_string(&base).expect("a table prints")
}

fn merge(base: &mut toml::Table, more: toml::Table) {
    for (key, value) in more {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(more)) => merge(inner, more),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// `[[registrations.user]]` for one user with clients: contact and further keys as TOML lines.
pub fn registered(address: &str, clients: &[(SocketAddr, &str)]) -> String {
    let mut text = format!("[[registrations.user]]\naddress = \"{address}\"\n");
    for (at, keys) in clients {
        let user = address.split(':').nth(1).and_then(|rest| rest.split('@').next()).unwrap_or("user");
        text += &format!(
            "[[registrations.user.client]]\ncontact = \"sip:{user}@{at}\"\nfeatures = [\"largemsg\", \"session\", \"msg\"]\n{keys}\n"
        );
    }
    text
}

impl Proxy {
    /// Starts the program and waits until it says it is ready.
    pub fn start(more: &str) -> Proxy {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), more)
    }

    /// The same in a folder that has files in it already (XDM documents, certificates, what an earlier run stored).
    pub fn start_in(folder: tempfile::TempDir, more: &str) -> Proxy {
        Self::start_with(folder, more, &[])
    }

    /// The same with a log that says this much.
    pub fn start_saying(folder: tempfile::TempDir, more: &str, level: &str) -> Proxy {
        Self::start_with(folder, more, &[("RUST_LOG".into(), level.into())])
    }

    /// The same with these environment variables.
    pub fn start_with(folder: tempfile::TempDir, more: &str, environment: &[(String, String)]) -> Proxy {
        let file = folder.path().join("cpm-pf.toml");
        std::fs::write(&file, config(more)).expect("the folder can be written");
        let log = folder.path().join("log");
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("the folder can be written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cpm-pf"));
        command
            .args(["run", "--config"])
            .arg(&file)
            .current_dir(folder.path())
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "debug".into()))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stderr(stderr);
        let (mut child, ready) = begin(command);
        if !ready.starts_with("ready") {
            let _ = child.kill();
            panic!("no ready line but {ready:?}; its log:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
        }
        let find = |scheme: &str| find(&ready, scheme);
        Proxy {
            udp: find("sip=udp:").expect("SIP over UDP is bound"),
            tcp: find("sip=tcp:"),
            tls: find("sip=tls:"),
            msrp: find("msrp=tcp:").or(find("msrp=tls:")).expect("MSRP is bound"),
            msrps: find("msrp=tls:"),
            admin: find("admin=").expect("the admin address is bound"),
            ready,
            child,
            former: Vec::new(),
            folder,
            log,
        }
    }

    /// Starts the program again so that it takes over from the one that runs, which is from then on the last of the former ones.
    pub fn succeed(&mut self) {
        let (child, ready) = self.try_to_succeed();
        assert!(ready.starts_with("ready"), "no ready line but {ready:?}; the log:\n{}", self.log());
        assert_eq!(ready, self.ready, "all addresses are taken over");
        self.former.push(std::mem::replace(&mut self.child, child));
    }

    /// A process that tries to take over, and what it says of being ready.
    pub fn try_to_succeed(&self) -> (Child, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cpm-pf"));
        let log = std::fs::OpenOptions::new().append(true).open(&self.log).expect("the folder can be written");
        command.args(["run", "--take-over", "--config"]).arg(self.path("cpm-pf.toml")).current_dir(self.folder.path());
        begin(command.env("RUST_LOG", "debug").stderr(log))
    }

    /// Waits until the process that was taken over from last has ended by itself.
    pub fn former_ends(&mut self) -> ExitStatus {
        let mut former = self.former.pop().expect("somebody took over");
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = former.try_wait().expect("it is our child") {
                return status;
            }
            if std::time::Instant::now() >= until {
                let _ = former.kill();
                panic!("the former process does not end; the log:\n{}", self.log());
            }
            std::thread::yield_now();
        }
    }

    /// Kills the process that took over last; the one before is the program again.
    pub fn successor_dies(&mut self) {
        let former = self.former.pop().expect("somebody took over");
        let mut dead = std::mem::replace(&mut self.child, former);
        dead.kill().expect("it is our child");
        dead.wait().expect("it is our child");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Path of a file in the program's working folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the configuration file; the program reads it on SIGHUP.
    pub fn configure(&self, more: &str) {
        std::fs::write(self.path("cpm-pf.toml"), config(more)).expect("the folder can be written");
    }

    /// Stops every thread of the program, until SIGCONT: the signal alone is taken up by one first and later by the others.
    pub fn stand_still(&self) {
        self.signal("STOP");
        let stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        self.until("every thread stands still", |pf| {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", pf.pid())).expect("it runs");
            tasks.flatten().all(stopped)
        });
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().expect("kill is there");
        assert!(done.success());
    }

    /// Waits for the program to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(std::time::Instant::now() < until, "the program does not end; its log:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// Ends the program and gives its folder back, for a next run to find what was stored.
    pub fn stop(mut self) -> tempfile::TempDir {
        self.signal("TERM");
        self.signal("TERM");
        self.wait();
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }

    /// Kills the program, as a loss of power would, and gives its folder back.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a temporary folder"))
    }

    /// Starts the program where it cannot: its exit code, and what it said.
    pub fn fails(folder: tempfile::TempDir, more: &str) -> (Option<i32>, String) {
        let file = folder.path().join("cpm-pf.toml");
        std::fs::write(&file, config(more)).expect("the folder can be written");
        let run =
            Command::new(env!("CARGO_BIN_EXE_cpm-pf")).args(["run", "--config"]).arg(&file).current_dir(folder.path()).output();
        let run = run.expect("the program starts");
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    }

    /// Status and body of `GET path` at the admin address.
    pub fn get(&self, path: &str) -> (u16, String) {
        http(self.admin, "GET", path, "")
    }

    pub fn post(&self, path: &str) -> (u16, String) {
        http(self.admin, "POST", path, "")
    }

    /// Sum of all series of a metric whose labels contain every given text.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics");
        let series = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        series
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Looks at `what` again and again until it holds.
    pub fn until(&self, why: &str, mut what: impl FnMut(&Proxy) -> bool) {
        let until = std::time::Instant::now() + PATIENCE;
        while !what(self) {
            assert!(std::time::Instant::now() < until, "not within {PATIENCE:?}: {why}; the log:\n{}", self.log());
            std::thread::yield_now();
        }
    }
}

/// Starts the program; its first line.
fn begin(mut command: impl std::borrow::BorrowMut<Command>) -> (Child, String) {
    let mut child = command.borrow_mut().stdout(Stdio::piped()).spawn().expect("the program starts");
    let stdout = child.stdout.take().expect("piped");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = tell.send(line);
    });
    (child, told.recv_timeout(PATIENCE).unwrap_or_default())
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for former in &mut self.former {
            let _ = former.kill();
            let _ = former.wait();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let at = log.len().saturating_sub(6_000);
            let at = (at..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("the end of the log:\n{}", &log[at..]);
        }
    }
}

/// The first address after `scheme` in the ready line: addresses stand comma-separated after "sip=", "msrp=", "admin=".
fn find(ready: &str, scheme: &str) -> Option<SocketAddr> {
    let (group, scheme) = scheme.split_once('=')?;
    let list = ready.split_whitespace().find_map(|word| word.strip_prefix(group)?.strip_prefix('='))?;
    list.split(',').find_map(|item| item.strip_prefix(scheme)?.parse().ok())
}

/// Status and body of an HTTP request with further header lines.
pub fn http(to: SocketAddr, method: &str, path: &str, more: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).expect("the admin address answers");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {to}\r\n{more}Connection: close\r\nContent-Length: 0\r\n\r\n")
        .expect("the request is sent");
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("the answer is read");
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { unchunk(body) } else { body.to_owned() })
}

/// The body of a 200 to `GET path`, octet for octet.
pub fn octets(to: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("the admin address answers");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n").expect("the request is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the answer is read");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    let blank = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends");
    answer.split_off(blank + 4)
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Writes a file below a folder, with the folders that lead to it.
pub fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder can be made");
    std::fs::write(path, text).expect("the file can be written");
}
