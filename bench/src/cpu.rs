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
