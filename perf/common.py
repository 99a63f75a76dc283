"""What the commands of perf/ share: where things are, how each peer is started, and what a result file says about the machine."""
import atexit, datetime, fcntl, json, os, platform, resource, shutil, signal, subprocess, sys, tempfile, time

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")
BENCH = os.path.join(TARGET, "cpm-bench")
RESULTS = os.path.join(ROOT, "perf/results")
RUN = tempfile.mkdtemp(prefix="cpm-pf-perf-")
atexit.register(shutil.rmtree, RUN, ignore_errors=True)
os.environ["PATH"] += ":/usr/sbin:/sbin"
# 9,000 sessions are 18,000 sockets, of the load as of the relay.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

# So that the processes we started end with us.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

def aside():
    """In a new process: a scheduling group of its own that goes before the rest of the machine, where we may (sched(7), autogroups)."""
    os.setsid()
    try:
        with open("/proc/self/autogroup", "w") as file: file.write("-5")
    except OSError: pass

def config(name, changes=()):
    """A peer's configuration for this run; `changes` are pairs of texts."""
    text = open(os.path.join(ROOT, "perf/peers", name)).read().replace("RUN", RUN)
    for old, new in changes:
        assert old in text, f"{name} has no line {old}"
        text = text.replace(old, new)
    path = os.path.join(RUN, name)
    with open(path, "w") as file:
        file.write(text)
    return path

def ours(*changes, binary=os.path.join(TARGET, "cpm-pf")):
    return lambda: [binary, "run", "--config", config("cpm-pf.toml", changes)]

def tls():
    """A key and a certificate that both ends and both relays use."""
    if not os.path.exists(os.path.join(RUN, "both.pem")):
        subprocess.run([BENCH, "certificate", RUN], check=True)
    return RUN

OUR_TLS = ('listen = ["tcp://127.0.0.1:2855"]\ncongestion = "cubic"',
           'listen = ["tls://127.0.0.1:2855"]\ncongestion = "cubic"\n[msrp.tls]\ncertificate = "RUN/cert.pem"\nkey = "RUN/key.pem"\nca = "RUN/cert.pem"'.replace("RUN", RUN))

# name: (command, port it listens on, how the load gets through it)
PEERS = {
    "cpm-pf": (ours(), 5060, {"via": "sip"}),
    # The longest wait that the configuration allows: fewest wake-ups.
    "cpm-pf-200us": (ours(('congestion = "cubic"', 'congestion = "cubic"\nbatch_wait = "200us"')), 5060, {"via": "sip"}),
    # Towards a core over TCP; without the parameter a request goes over UDP (RFC 3263 §4.1).
    "cpm-pf-tcp": (ours(("5070;lr", "5070;transport=tcp;lr")), 5060, {"via": "sip"}),
    "cpm-pf-tls": (lambda: (tls(), ours(OUR_TLS)())[1], 5060, {"via": "sip", "tls": True}),
    "haproxy": (lambda: ["haproxy", "-db", "-f", config("haproxy.cfg")], 2860, {"via": "tcp", "relay": "127.0.0.1:2860"}),
    "haproxy-tls": (lambda: (tls(), ["haproxy", "-db", "-f", config("haproxy-tls.cfg")])[1], 2863, {"via": "tcp", "relay": "127.0.0.1:2863", "tls": True}),
    "nginx": (lambda: ["nginx", "-c", config("nginx.conf")], 2862, {"via": "tcp", "relay": "127.0.0.1:2862"}),
    "splice": (lambda: [os.path.join(TARGET, "splice-pump"), "127.0.0.1:2861", "127.0.0.1:28550"], 2861, {"via": "tcp", "relay": "127.0.0.1:2861"}),
    "peek": (lambda: [os.path.join(TARGET, "peek-pump"), "127.0.0.1:2866", "127.0.0.1:28550"], 2866, {"via": "tcp", "relay": "127.0.0.1:2866"}),
    "copy": (lambda: [os.path.join(TARGET, "copy-pump"), "127.0.0.1:2865", "127.0.0.1:28550"], 2865, {"via": "tcp", "relay": "127.0.0.1:2865"}),
    "kamailio": (lambda: ["kamailio", "-f", config("kamailio-msrp.cfg"), "-m", "1024", "-M", "64", "-DD", "-P", RUN + "/k.pid", "-w", RUN],
                 2864, {"via": "msrp", "relay": "127.0.0.1:2864"}),
    "kamailio-sip": (lambda: ["kamailio", "-f", config("kamailio-proxy.cfg"), "-m", "1024", "-M", "32", "-DD", "-P", RUN + "/ks.pid", "-w", RUN],
                     5066, {"proxy": "127.0.0.1:5066"}),
    # One thread sends and one receives, without a relay and without MSRP.
    "bound": (None, 0, {"load": "bound"}),
    # The load itself, caller to called party.
    "direct": (None, 0, {"via": "direct"}),
}
BLIND = "HAProxy, nginx, the pumps and the bound move octets blindly: they neither parse nor rewrite nor scan. They are a limit, not peers."

def listens(port):
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(file) and any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in open(file).readlines()[1:]):
            return True
    return False

class Peer:
    """A peer that runs on CPU 0 as long as the block lasts."""
    def __init__(self, name):
        self.name, (command, port, self.keys) = name, PEERS[name]
        self.process = None
        if not command:
            return
        self.log = open(os.path.join(RUN, name + ".log"), "a")
        # A run that has just ended may still hold the port.
        wait(lambda: not listens(port), f"port {port} is taken")
        self.process = subprocess.Popen(["taskset", "-c", "0"] + command(), stdout=self.log, stderr=self.log, text=True, preexec_fn=aside)
        wait(lambda: listens(port) and self.process.poll() is None, f"{name} does not listen; see {self.log.name}", lambda: self.process.poll() is None)
    def __enter__(self): return self
    def __exit__(self, *_):
        if self.process:
            for _ in range(2):
                if self.process.poll() is None:
                    self.process.send_signal(signal.SIGTERM)
                    time.sleep(0.05)
            try: self.process.wait(5)
            except subprocess.TimeoutExpired: self.process.kill(); self.process.wait()
            self.log.close()

def wait(what, why, going=lambda: True, seconds=15):
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until or not going():
            raise RuntimeError(why)
        time.sleep(0.02)

def measure(peer, keys, seconds, warmup=0.3):
    """One run of the load through a peer: its result, or RuntimeError."""
    with Peer(peer) as process:
        settings = {"name": peer, "seconds": seconds, "warmup": warmup, **keys, **process.keys}
        if settings.get("tls"):
            settings["certificates"] = RUN
        scenario = os.path.join(RUN, "scenario.toml")
        with open(scenario, "w") as file:
            file.write("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        command = [BENCH, "run", scenario, "--cpu", "1", "--quiet"] + (["--pid", str(process.process.pid)] if process.process else [])
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 10 + 120, preexec_fn=aside)
        except subprocess.TimeoutExpired:
            raise RuntimeError("the load did not end in time")
        if not done.stdout:
            raise RuntimeError(done.stderr.strip() or f"the load ended with {done.returncode}")
        outcome = json.loads(done.stdout)
        outcome["peer"] = peer
        outcome["rss_kib"] = resident(process.process.pid) if process.process and process.process.poll() is None else None
        return outcome

def tried(peer, keys, seconds):
    """The result of a run and no cause, or no result and the cause: whatever goes wrong is one run's trouble."""
    try:
        return measure(peer, keys, seconds), None
    except (RuntimeError, AssertionError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        return None, " ".join(str(error).split())[:200] or type(error).__name__

def resident(pid):
    """KiB at its greatest, of a process and its children."""
    try:
        children = [child for task in os.listdir(f"/proc/{pid}/task") for child in open(f"/proc/{pid}/task/{task}/children").read().split()]
        own = next((int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0
    return own + sum(map(resident, children))

CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"

class Machine:
    """Cubic for every socket while the block lasts (the default may be bbr, whose pacing hides the relay); one run at a time on a machine."""
    def __enter__(self):
        self.lock = open(os.path.join(tempfile.gettempdir(), "cpm-pf-perf.lock"), "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.default = open(CONGESTION).read().strip()
        self.set("cubic")
        self.congestion = open(CONGESTION).read().strip()
        return self
    def __exit__(self, *_): self.set(self.default)
    def set(self, value):
        try:
            with open(CONGESTION, "w") as file: file.write(value)
        except OSError as error:
            print(f"the congestion control of sockets that nobody pins stays as it is: {error}", file=sys.stderr)
    def text(self, command):
        tools = {"haproxy": "haproxy -v", "kamailio": "kamailio -v", "nginx": "nginx -v 2>&1", "rustc": "rustc --version", "commit": f"git -C {ROOT} rev-parse --short HEAD"}
        model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
        lines = [f"Machine: {os.cpu_count()} CPUs ({model}), kernel {platform.release()}; load average at the end {os.getloadavg()[0]:.1f}; {datetime.datetime.now():%Y-%m-%d %H:%M}.  ",
                 f"Congestion control of every socket: {self.congestion} (the machine's default is {self.default}).  "]
        for tool, ask in tools.items():
            said = subprocess.run(ask, shell=True, capture_output=True, text=True).stdout.strip().split("\n")[0]
            lines.append(f"{tool}: {said or 'not installed'}  ")
        return "\n".join(lines) + f"\nCommand: `{command}`\n"

def command_line():
    return "perf/" + os.path.basename(sys.argv[0]) + "".join(" " + word for word in sys.argv[1:])

def stamp():
    return datetime.date.today().isoformat()

def build(wanted=True):
    if not wanted:
        return
    subprocess.run(["cargo", "build", "--release", "--workspace", "--quiet"], cwd=ROOT, check=True)
