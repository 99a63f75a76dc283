//! CPU time of a process, read from the kernel: nanoseconds on a CPU of every thread, of it and its children.

use std::fs;

/// Reads the CPU time of one process tree.
pub struct Meter {
    pid: u32,
    thread: Option<String>,
}

impl Meter {
    pub fn new(pid: u32, thread: Option<String>) -> Self {
        Self { pid, thread }
    }

    /// Nanoseconds so far.
    pub fn read(&self) -> u64 {
        self.tree(self.pid, 0)
    }

    fn tree(&self, pid: u32, depth: u32) -> u64 {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let path = task.path();
            if let Some(name) = &self.thread {
                let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
                if comm.trim_end() != name {
                    continue;
                }
            }
            let schedstat = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            sum += schedstat.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            if depth < 3 {
                let children = fs::read_to_string(path.join("children")).unwrap_or_default();
                sum += children
                    .split_whitespace()
                    .filter_map(|child| child.parse().ok())
                    .map(|child| self.tree(child, depth + 1))
                    .sum::<u64>();
            }
        }
        sum
    }
}

/// Every clock that a result is made of, at one moment, in nanoseconds.
#[derive(Clone, Copy)]
pub struct Clocks {
    under_test: Option<u64>,
    own: u64,
    busy: u64,
    stolen: u64,
}

/// CPU seconds between two moments.
pub struct Used {
    /// Of the process under test, where it is read.
    pub under_test: Option<f64>,
    pub own: f64,
    /// Of everybody else on the machine.
    pub foreign: f64,
    /// Kept from the machine by its hypervisor.
    pub stolen: f64,
}

impl Clocks {
    pub fn read(meter: Option<&Meter>) -> Self {
        let (busy, stolen) = machine();
        Self { under_test: meter.map(Meter::read), own: own(), busy, stolen }
    }

    /// What was used since then.
    pub fn since(&self, before: &Self) -> Used {
        let seconds = |now: u64, then: u64| now.saturating_sub(then) as f64 / 1e9;
        let under_test = self.under_test.zip(before.under_test).map(|(now, then)| seconds(now, then));
        let own = seconds(self.own, before.own);
        let foreign = (seconds(self.busy, before.busy) - own - under_test.unwrap_or(0.0)).max(0.0);
        Used { under_test, own, foreign, stolen: seconds(self.stolen, before.stolen) }
    }
}

/// Nanoseconds that all CPUs were busy, and that were stolen from them (proc_stat(5), in hundredths of a second).
fn machine() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let sum = |places: &[usize]| places.iter().filter_map(|place| ticks.get(*place)).sum::<u64>() * 10_000_000;
    (sum(&[0, 1, 2, 5, 6]), sum(&[7]))
}

/// Nanoseconds this process has used.
pub fn own() -> u64 {
    Meter::new(std::process::id(), None).read()
}

/// Nanoseconds the calling thread has used.
pub fn thread() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes a structure of this stack frame during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Runs the calling thread on one CPU from now on.
pub fn pin(cpu: usize) {
    // SAFETY: `set` is a plain bit set on this stack frame, all zero is a valid one, and the kernel only reads it during the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}
