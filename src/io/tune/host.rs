//! What `cpm-pf tune` reads of the machine: files below /proc and /sys, this process's limits, and the io_uring features found by
//! trying. What cannot be read is left out, and nothing is advised about it.

use crate::io::probe::{self, Features};
use std::fs;
use std::path::{Path, PathBuf};

/// Of include/uapi/linux/capability.h.
const CAP_IPC_LOCK: u32 = 14;

/// The machine as it is.
#[derive(Debug)]
pub struct Host {
    /// Where /proc and /sys are looked for.
    root: PathBuf,
    /// CPUs that are online, and those this process may use.
    pub online: Vec<usize>,
    pub allowed: Vec<usize>,
    /// CPUs of each NUMA node.
    pub nodes: Vec<Vec<usize>>,
    /// Hard limit of open files of this process.
    pub files: u64,
    /// Octets of memory that this process may have locked, which is where the kernel books the rings of whoever has not CAP_IPC_LOCK.
    pub locked: u64,
    /// Kernel release, "6.1.0-18-amd64".
    pub release: String,
    /// Optional features of io_uring, or what of the required ones is missing.
    pub features: Result<Features, String>,
    /// Octets of memory.
    pub memory: u64,
}

/// A network card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Card {
    pub name: String,
    /// Receive queues, each with an interrupt of its own.
    pub queues: usize,
    /// Receive packet steering is on for one of them.
    pub steered: bool,
    /// The NUMA node that it is attached to, where there are several.
    pub node: Option<usize>,
}

impl Host {
    /// This machine.
    pub fn read() -> Self {
        let features = probe::find().map_err(|missing| missing.to_string());
        let mut host =
            Self { allowed: allowed(), files: limit(libc::RLIMIT_NOFILE).rlim_max, features, ..Self::below(Path::new("/")) };
        if !host.has_capability(CAP_IPC_LOCK) {
            host.locked = limit(libc::RLIMIT_MEMLOCK).rlim_cur;
        }
        // Where /sys is not to be seen (a chroot, a container), a CPU that may be used is one that is online.
        if host.online.is_empty() {
            host.online.clone_from(&host.allowed);
        }
        host
    }

    /// What the files below another root say, with no limits and every feature.
    pub fn below(root: &Path) -> Self {
        let mut host = Self {
            root: root.to_owned(),
            online: Vec::new(),
            allowed: Vec::new(),
            nodes: Vec::new(),
            files: u64::MAX,
            locked: u64::MAX,
            release: String::new(),
            features: Ok(Features { incremental: true, min_wait: true, credit: true, zero_copy: true }),
            memory: 0,
        };
        host.online = host.text("sys/devices/system/cpu/online").map(|text| cpus(&text)).unwrap_or_default();
        host.allowed.clone_from(&host.online);
        let nodes = host.text("sys/devices/system/node/online").map(|text| cpus(&text)).unwrap_or_default();
        let node = |node: &usize| host.text(&format!("sys/devices/system/node/node{node}/cpulist")).map(|text| cpus(&text));
        host.nodes = nodes.iter().filter_map(node).filter(|cpus| !cpus.is_empty()).collect();
        host.release = host.text("proc/sys/kernel/osrelease").unwrap_or_default();
        host.memory = host.text("proc/meminfo").map_or(0, |text| kibibytes(&text, "MemTotal:") * 1024);
        host
    }

    /// The value of a sysctl by its dotted name.
    pub fn sysctl(&self, name: &str) -> Option<String> {
        self.text(&format!("proc/sys/{}", name.replace('.', "/")))
    }

    /// The number that a sysctl begins with.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.sysctl(name)?.split_ascii_whitespace().next()?.parse().ok()
    }

    /// CPUs that share a physical core with this one, itself among them.
    pub fn siblings(&self, cpu: usize) -> Vec<usize> {
        let file = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        self.text(&file).map(|text| cpus(&text)).unwrap_or_default()
    }

    /// Network cards, not those that are made of software, by name.
    pub fn cards(&self) -> Vec<Card> {
        let entries = |path: &Path| {
            let mut names: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            names.sort();
            names
        };
        let net = self.root.join("sys/class/net");
        let card = |path: PathBuf| {
            path.join("device").exists().then(|| {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let queues: Vec<PathBuf> = entries(&path.join("queues"))
                    .into_iter()
                    .filter(|queue| queue.file_name().is_some_and(|name| name.to_string_lossy().starts_with("rx-")))
                    .collect();
                let mask = |queue: &PathBuf| fs::read_to_string(queue.join("rps_cpus")).unwrap_or_default();
                let steered = queues.iter().any(|queue| mask(queue).chars().any(|digit| matches!(digit, '1'..='9' | 'a'..='f')));
                let node = fs::read_to_string(path.join("device/numa_node")).ok().and_then(|text| text.trim().parse().ok());
                Card { name, queues: queues.len(), steered, node }
            })
        };
        entries(&net).into_iter().filter_map(card).collect()
    }

    /// The mode of transparent huge pages: the word in brackets.
    pub fn huge_pages(&self) -> Option<String> {
        let text = self.text("sys/kernel/mm/transparent_hugepage/enabled")?;
        text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(mode, _)| mode.to_owned())
    }

    fn has_capability(&self, number: u32) -> bool {
        let status = self.text("proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set >> number & 1 == 1)
    }

    fn text(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.root.join(file)).ok().map(|text| text.trim().to_owned())
    }
}

/// A list as the kernel writes it: "0-3,8,10-11".
fn cpus(text: &str) -> Vec<usize> {
    /// As many as Linux can have.
    const MAX: usize = 8192;
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse().ok()?..=to.trim().parse::<usize>().ok()?.min(MAX))
    };
    text.split(',').filter_map(range).flatten().collect()
}

fn kibibytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn allowed() -> Vec<usize> {
    // SAFETY: the set is plain data of its own size, which the call fills in; CPU_ISSET only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &set)).collect()
    }
}

/// A resource limit of this process; none where it cannot be read.
fn limit(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes only into the structure.
    match unsafe { libc::getrlimit(resource, &mut limit) } {
        0 => limit,
        _ => libc::rlimit { rlim_cur: u64::MAX, rlim_max: u64::MAX },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus_is_read_as_the_kernel_writes_it() {
        assert_eq!(cpus("0-2,5,7-8"), [0, 1, 2, 5, 7, 8]);
        assert_eq!((cpus(""), cpus("x,3-")), (vec![], vec![]));
    }

    #[test]
    fn this_machine_can_be_read() {
        let host = Host::read();
        assert!(!host.online.is_empty() && !host.allowed.is_empty() && !host.release.is_empty() && host.memory > 0);
        assert!(host.number("net.core.somaxconn").is_some());
    }
}
