//! `cpm-pf tune`: compares this machine with what a configuration needs, and advises what to change. `check` and the log of `run`
//! repeat what must or should be changed.

pub mod host;

use crate::config::Config;
use crate::io::media::listener::BACKLOG;
use crate::io::signalling::sockets::UDP_BUFFER_OCTETS;
use crate::limits::{MEDIA_PIPES_MAX, SIP_CONNECTIONS_MAX};
use crate::sip::header::min_se::FLOOR_S;
use host::Host;
use std::fmt::Write;

/// How much it matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Weight {
    /// The proxy does not start, or cannot hold what the configuration promises.
    Must,
    /// It works and costs.
    Should,
    /// Worth knowing.
    Note,
}

/// One thing to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    pub weight: Weight,
    /// What is the case.
    pub what: String,
    /// What it does.
    pub why: &'static str,
    /// What to do.
    pub how: String,
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.how)
    }
}

/// Octets of a standing dialog with its share of everything, generously.
const DIALOG_OCTETS: u64 = 8 * 1024;
/// Files beside connections: listening sockets, rings, bells, stores.
const OTHER_FILES: u64 = 1024;
/// What the kernel books as locked memory for the ring of a core, and for that of the services.
const RING_OCTETS: u64 = 1024 * 1024;
/// The oldest kernel that `run` accepts, and those with features that it uses where they are.
const OLDEST: (u32, u32) = (6, 1);

/// What to change for a configuration, the most important first.
pub fn advise(host: &Host, config: &Config) -> Vec<Advice> {
    let mut list = Vec::new();
    kernel(host, &mut list);
    cores(host, config, &mut list);
    capacity(host, config, &mut list);
    network(host, config, &mut list);
    memory(host, &mut list);
    laboratory(config, &mut list);
    exposed(config, &mut list);
    list.sort_by_key(|advice| advice.weight);
    list
}

/// The whole page: the machine in a line, then everything that could be changed.
pub fn report(host: &Host, config: &Config) -> String {
    let mut page = String::new();
    let features = match &host.features {
        Ok(features) => [
            ("incremental buffers", features.incremental),
            ("minimum wait", features.min_wait),
            ("receive credit", features.credit),
        ]
        .iter()
        .map(|(name, there)| format!("{} {name}", if *there { "with" } else { "without" }))
        .collect::<Vec<_>>()
        .join(", "),
        Err(missing) => missing.clone(),
    };
    let _ = writeln!(
        page,
        "this machine: Linux {}, {} CPUs ({} to use), {} NUMA node(s), {} GiB of memory, io_uring {features}",
        host.release,
        host.online.len(),
        host.allowed.len(),
        host.nodes.len().max(1),
        host.memory >> 30
    );
    let list = advise(host, config);
    for Advice { weight, what, why, how } in &list {
        let weight = match weight {
            Weight::Must => "must",
            Weight::Should => "should",
            Weight::Note => "note",
        };
        let _ = writeln!(page, "\n{weight}: {what}\n  why: {why}\n  do:  {how}");
    }
    if list.is_empty() {
        let _ = writeln!(page, "nothing to change");
    }
    page
}

fn kernel(host: &Host, list: &mut Vec<Advice>) {
    if let Some(disabled) = host.number("kernel.io_uring_disabled").filter(|disabled| *disabled != 0) {
        list.push(Advice {
            weight: Weight::Must,
            what: format!("kernel.io_uring_disabled = {disabled}"),
            why: "io_uring is forbidden (2), or allowed only to CAP_SYS_ADMIN and the group of kernel.io_uring_group (1)",
            how: "sysctl -w kernel.io_uring_disabled=0".into(),
        });
    }
    let release = release(&host.release);
    if release.is_some_and(|release| release < OLDEST) {
        list.push(Advice {
            weight: Weight::Must,
            what: format!("Linux {}", host.release),
            why: "multishot receive and deferred task work are missing",
            how: "run Linux 6.1 (Debian 12) or newer".into(),
        });
    }
    match &host.features {
        Err(missing) => list.push(Advice {
            weight: Weight::Must,
            what: missing.clone(),
            why: "`run` ends with exit code 3",
            how: "run a newer kernel, or allow io_uring (a container's seccomp profile may forbid it)".into(),
        }),
        Ok(features) => {
            let newer = [
                (features.incremental, "incremental buffers", "6.12", "an idle session costs a whole receive buffer's share"),
                (
                    features.min_wait,
                    "minimum wait",
                    "6.12",
                    "work is not gathered under load: up to twice the CPU time a message",
                ),
                (features.credit, "receive credit", "6.17", "a slow reader's sender is stopped a little later"),
            ];
            for (_, name, since, why) in newer.into_iter().filter(|(there, ..)| !there) {
                let how = format!("Linux {since} has it");
                list.push(Advice { weight: Weight::Note, what: format!("io_uring without {name}"), why, how });
            }
        }
    }
}

/// What only a laboratory may set.
fn laboratory(config: &Config, list: &mut Vec<Advice>) {
    let floor = config.policy.session_floor.as_secs();
    if floor < u64::from(FLOOR_S) {
        list.push(Advice {
            weight: Weight::Should,
            what: format!("policy.session_floor = {floor}s"),
            why: "RFC 4028 section 5 knows no session interval below 90 seconds: refreshes cost more than the sessions they keep",
            how: "leave it out, unless this is a laboratory".into(),
        });
    }
}

/// What the configuration opens to others, or promises to nobody.
fn exposed(config: &Config, list: &mut Vec<Advice>) {
    let admin = &config.admin;
    if let Some(address) = admin.listen.filter(|address| !address.ip().is_loopback() && admin.token_file.is_none()) {
        list.push(Advice {
            weight: Weight::Should,
            what: format!("admin.listen = \"{address}\" without admin.token_file"),
            why: "whoever reaches that address can read who calls whom, capture calls and drain the node",
            how: "give it a token_file, or listen on 127.0.0.1".into(),
        });
    }
    let policy = &config.policy;
    for (key, expires) in [
        ("policy.large_message_session_expires", policy.large_message_session_expires),
        ("policy.session_session_expires", policy.session_session_expires),
    ] {
        if expires < policy.min_se {
            list.push(Advice {
                weight: Weight::Should,
                what: format!("{key} = {}s and policy.min_se = {}s", expires.as_secs(), policy.min_se.as_secs()),
                why: "we ask others for intervals that we refuse ourselves (422)",
                how: format!("raise {key}, or lower policy.min_se"),
            });
        }
    }
}

/// "6.12.3-amd64" as (6, 12).
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn cores(host: &Host, config: &Config, list: &mut Vec<Advice>) {
    let named = || config.cores.signaling.iter().chain(&config.cores.media).copied();
    for (key, cpus) in [("cores.signaling", &config.cores.signaling), ("cores.media", &config.cores.media)] {
        for cpu in cpus {
            let (what, how) = match (host.online.contains(cpu), host.allowed.contains(cpu)) {
                (true, true) => continue,
                (true, false) => ("may not be used by this process", "change cores, or the cpuset of the unit or container"),
                (false, _) => ("is not online", "name CPUs that are online"),
            };
            list.push(Advice {
                weight: Weight::Must,
                what: format!("{key}: CPU {cpu} {what}"),
                why: "its thread is not pinned and shares a CPU with others",
                how: how.into(),
            });
        }
    }
    let of_node = |cpu: usize| host.nodes.iter().position(|node| node.contains(&cpu));
    let mut nodes: Vec<usize> = named().filter_map(of_node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    if nodes.len() > 1 {
        list.push(Advice {
            weight: Weight::Should,
            what: format!("cores: CPUs on {} NUMA nodes", nodes.len()),
            why: "lanes between cores and the network card's memory cross the nodes' link",
            how: "name CPUs of the node that the network card is on, and run one proxy for each further node".into(),
        });
    }
    cards(host, &nodes, named().count(), list);
    let media = &config.cores.media;
    let shared = |cpu: &usize| host.siblings(*cpu).iter().any(|other| other != cpu && named().any(|named| named == *other));
    if media.iter().any(shared) {
        list.push(Advice {
            weight: Weight::Note,
            what: "cores: a media thread shares a physical core with another thread of ours".into(),
            why: "two hardware threads have one core's caches: together they do about a quarter more than one",
            how: "name one CPU of each physical core (lscpu -e)".into(),
        });
    }
    let busy = |cpu: &usize| named().any(|named| named == *cpu);
    if !host.allowed.is_empty() && host.allowed.iter().all(busy) {
        list.push(Advice {
            weight: Weight::Note,
            what: "cores: no CPU is left for the services thread, the log and the kernel's own work".into(),
            why: "XDM, stores and interrupts take turns with the pinned threads",
            how: "leave one CPU out of both lists, and steer the network card's interrupts to it".into(),
        });
    }
    if config.cores.sqpoll && host.allowed.len() < config.cores.signaling.len() + 2 * media.len() {
        list.push(Advice {
            weight: Weight::Should,
            what: "cores.sqpoll = true without a CPU to spare for each media core".into(),
            why: "the kernel's polling thread takes half of the media thread's CPU",
            how: "set sqpoll = false".into(),
        });
    }
}

/// Network cards, for threads on these NUMA nodes, of which there are so many.
fn cards(host: &Host, nodes: &[usize], threads: usize, list: &mut Vec<Advice>) {
    for card in host.cards() {
        let name = &card.name;
        if let ([node], Some(there)) = (nodes, card.node)
            && *node != there
        {
            list.push(Advice {
                weight: Weight::Should,
                what: format!("network card {name} is on NUMA node {there}, the cores are on node {node}"),
                why: "every packet crosses the nodes' link",
                how: format!("name CPUs of node {there} in cores, if {name} is the card that carries SIP and MSRP"),
            });
        }
        if (1..threads.min(host.allowed.len())).contains(&card.queues) && !card.steered {
            list.push(Advice {
                weight: Weight::Note,
                what: format!("network card {name} has {} receive queue(s) and no packet steering", card.queues),
                why: "so many CPUs do all of the kernel's receiving, while the others wait for them",
                how: format!(
                    "ethtool -L {name} combined {threads} where the card can, else steer by software: \
                     echo MASK > /sys/class/net/{name}/queues/rx-0/rps_cpus (docs/tuning.md)"
                ),
            });
        }
    }
}

fn capacity(host: &Host, config: &Config, list: &mut Vec<Advice>) {
    // A dialog of a session has one MSRP connection.
    let dialogs = config.limits.dialogs as u64;
    let sip = (SIP_CONNECTIONS_MAX * config.cores.signaling.len()).min(config.limits.dialogs) as u64;
    let pipes = (2 * MEDIA_PIPES_MAX * config.cores.media.len()) as u64;
    let files = dialogs + sip + pipes + OTHER_FILES;
    if host.files < files {
        list.push(Advice {
            weight: Weight::Must,
            what: format!("{} open files for limits.dialogs = {dialogs}, which needs {files}", host.files),
            why: "connections are refused when no descriptor is left",
            how: format!("LimitNOFILE={files} in the unit (ulimit -Hn {files} in a shell), or lower limits.dialogs"),
        });
    }
    if let Some(most) = host.number("fs.nr_open").filter(|most| *most < files) {
        list.push(Advice {
            weight: Weight::Must,
            what: format!("fs.nr_open = {most} for limits.dialogs = {dialogs}, which needs {files} open files"),
            why: "no process can have a higher limit of open files than this",
            how: format!("sysctl -w fs.nr_open={files}, then LimitNOFILE={files} in the unit"),
        });
    }
    let locked = (config.cores.signaling.len() + config.cores.media.len() + 1) as u64 * RING_OCTETS;
    if host.locked < locked {
        list.push(Advice {
            weight: Weight::Must,
            what: format!("{} KiB of locked memory, and the rings of these cores take up to {}", host.locked >> 10, locked >> 10),
            why: "a ring cannot be made: `run` ends with \"Cannot allocate memory\"",
            how: format!("LimitMEMLOCK={locked} or more in the unit (ulimit -l {} in a shell)", locked >> 10),
        });
    }
    let memory = dialogs * DIALOG_OCTETS;
    if host.memory > 0 && memory > host.memory / 2 {
        list.push(Advice {
            weight: Weight::Should,
            what: format!("{} MiB of memory for limits.dialogs = {dialogs}", host.memory >> 20),
            why: "dialogs and sockets could take more than half of it",
            how: format!("lower limits.dialogs, or have {} MiB", memory >> 19),
        });
    }
    if let Some(tracked) = host.number("net.netfilter.nf_conntrack_max").filter(|tracked| *tracked < 2 * dialogs) {
        list.push(Advice {
            weight: Weight::Should,
            what: format!("net.netfilter.nf_conntrack_max = {tracked}"),
            why: "the packet filter drops new connections when its table is full",
            how: format!(
                "sysctl -w net.netfilter.nf_conntrack_max={}, or do not track the ports of sip.listen and msrp.listen",
                2 * dialogs
            ),
        });
    }
}

fn network(host: &Host, config: &Config, list: &mut Vec<Advice>) {
    let backlog = BACKLOG.unsigned_abs().into();
    for (name, least, why) in [
        ("net.core.somaxconn", backlog, "connections that come at once wait in a shorter queue than we ask for, and overflow it"),
        ("net.ipv4.tcp_max_syn_backlog", backlog, "half-open connections are dropped when many clients come at once"),
        (
            "net.core.rmem_max",
            UDP_BUFFER_OCTETS as u64,
            "datagrams of a burst are dropped: the receive buffer of a SIP socket is smaller than we ask for",
        ),
        ("net.core.wmem_max", UDP_BUFFER_OCTETS as u64 / 4, "answers to a burst of datagrams wait for room"),
    ] {
        if let Some(value) = host.number(name).filter(|value| *value < least) {
            let how = format!("sysctl -w {name}={least}");
            list.push(Advice { weight: Weight::Should, what: format!("{name} = {value}"), why, how });
        }
    }
    congestion(host, &config.msrp.congestion, list);
    if host.number("net.ipv4.tcp_slow_start_after_idle") == Some(1) {
        list.push(Advice {
            weight: Weight::Note,
            what: "net.ipv4.tcp_slow_start_after_idle = 1".into(),
            why: "a session that was silent for a while sends its next large message slowly",
            how: "sysctl -w net.ipv4.tcp_slow_start_after_idle=0".into(),
        });
    }
    let ports = host.sysctl("net.ipv4.ip_local_port_range").and_then(|text| {
        let mut numbers = text.split_ascii_whitespace().filter_map(|number| number.parse::<u64>().ok());
        Some(numbers.next()?.abs_diff(numbers.next()?))
    });
    if let Some(ports) = ports.filter(|ports| *ports < config.limits.dialogs as u64 / 2) {
        list.push(Advice {
            weight: Weight::Note,
            what: format!("net.ipv4.ip_local_port_range has {ports} ports"),
            why: "as many MSRP connections can go out to one peer's address and port",
            how: "matters only where one address stands for all clients (an SBC): sysctl -w net.ipv4.ip_local_port_range='1024 65535'".into(),
        });
    }
}

fn congestion(host: &Host, wanted: &str, list: &mut Vec<Advice>) {
    let known = host.sysctl("net.ipv4.tcp_available_congestion_control").unwrap_or_default();
    let system = host.sysctl("net.ipv4.tcp_congestion_control").unwrap_or_default();
    if !wanted.is_empty() && !known.is_empty() && !known.split_ascii_whitespace().any(|name| name == wanted) {
        list.push(Advice {
            weight: Weight::Must,
            what: format!("msrp.congestion = \"{wanted}\" is not among those the kernel has ({known})"),
            why: "`run` cannot bind its MSRP sockets",
            how: format!("modprobe tcp_{wanted}, or name another one"),
        });
    } else if wanted.is_empty() && system.starts_with("bbr") {
        list.push(Advice {
            weight: Weight::Note,
            what: format!("net.ipv4.tcp_congestion_control = {system}"),
            why: "it paces what is sent: good over the air, but a transfer within a laboratory costs twice the CPU time",
            how: "set msrp.congestion = \"cubic\" where both legs are near".into(),
        });
    }
}

fn memory(host: &Host, list: &mut Vec<Advice>) {
    if host.huge_pages().as_deref() == Some("always") {
        list.push(Advice {
            weight: Weight::Note,
            what: "transparent huge pages = always".into(),
            why: "many small connections' memory is rounded up to 2 MiB pages, and making them stops a thread for a while",
            how: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled".into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A machine of files.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().expect("a temporary folder");
        let usual = [
            ("sys/devices/system/cpu/online", "0-3"),
            ("sys/devices/system/node/online", "0"),
            ("sys/devices/system/node/node0/cpulist", "0-3"),
            ("proc/sys/kernel/osrelease", "6.12.3"),
            ("proc/meminfo", "MemTotal:       32000000 kB"),
            ("proc/sys/kernel/io_uring_disabled", "0"),
            ("proc/sys/net/core/somaxconn", "4096"),
            ("proc/sys/net/core/rmem_max", "33554432"),
        ];
        for (file, text) in usual.iter().chain(files) {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder can be made");
            fs::write(path, text).expect("the folder can be written");
        }
        let host = Host::below(root.path());
        (root, host)
    }

    fn config() -> Config {
        let mut config = Config::default();
        (config.cores.signaling, config.cores.media) = (vec![0], vec![1]);
        config
    }

    fn said(files: &[(&str, &str)], config: &Config) -> Vec<String> {
        let (_root, host) = host(files);
        advise(&host, config).iter().map(|advice| format!("{:?} {}", advice.weight, advice.what)).collect()
    }

    #[test]
    fn what_is_open_to_everybody_and_what_we_refuse_ourselves_is_warned_of() {
        let mut config = config();
        config.admin.listen = "0.0.0.0:9060".parse().ok();
        config.policy.min_se = std::time::Duration::from_secs(1790);
        let shown = [
            "Should admin.listen = \"0.0.0.0:9060\" without admin.token_file",
            "Should policy.large_message_session_expires = 1740s and policy.min_se = 1790s",
        ];
        assert_eq!(said(&[], &config), shown);
        config.admin.token_file = Some("token".into());
        config.policy.min_se = std::time::Duration::from_secs(90);
        assert_eq!(said(&[], &config), [""; 0]);
    }

    #[test]
    fn intervals_of_a_laboratory_are_warned_of() {
        let mut config = config();
        config.policy.session_floor = std::time::Duration::from_secs(4);
        assert_eq!(said(&[], &config), ["Should policy.session_floor = 4s"]);
    }

    #[test]
    fn a_machine_that_fits_gets_no_advice() {
        assert!(said(&[], &config()).is_empty());
        let (_root, host) = host(&[]);
        assert!(report(&host, &config()).ends_with("nothing to change\n"));
    }

    #[test]
    fn what_is_forbidden_or_too_old_comes_first() {
        let files = [
            ("proc/sys/net/core/somaxconn", "128"),
            ("proc/sys/kernel/io_uring_disabled", "2"),
            ("proc/sys/kernel/osrelease", "5.15.0-91-generic"),
        ];
        let expected = ["Must kernel.io_uring_disabled = 2", "Must Linux 5.15.0-91-generic", "Should net.core.somaxconn = 128"];
        assert_eq!(said(&files, &config()), expected);
    }

    #[test]
    fn cpus_are_told_by_what_is_wrong_with_them() {
        let mut config = config();
        config.cores.media = vec![1, 2, 9];
        let nodes = [
            ("sys/devices/system/node/online", "0-1"),
            ("sys/devices/system/node/node0/cpulist", "0-1"),
            ("sys/devices/system/node/node1/cpulist", "2-3"),
        ];
        assert_eq!(said(&nodes, &config), ["Must cores.media: CPU 9 is not online", "Should cores: CPUs on 2 NUMA nodes"]);
        config.cores.media = vec![1, 2];
        let siblings = [("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,2")];
        assert_eq!(said(&siblings, &config), ["Note cores: a media thread shares a physical core with another thread of ours"]);
    }

    #[test]
    fn a_card_far_away_or_with_one_queue_is_told() {
        let files = [
            ("sys/devices/system/node/online", "0-1"),
            ("sys/devices/system/node/node0/cpulist", "0-1"),
            ("sys/devices/system/node/node1/cpulist", "2-3"),
            ("sys/class/net/eth0/device/numa_node", "1"),
            ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000"),
            ("sys/class/net/eth1/device/numa_node", "-1"),
            ("sys/class/net/eth1/queues/rx-0/rps_cpus", "00000000,00000003"),
            // No card: it has no device.
            ("sys/class/net/lo/queues/rx-0/rps_cpus", "0"),
        ];
        let expected = [
            "Should network card eth0 is on NUMA node 1, the cores are on node 0",
            "Note network card eth0 has 1 receive queue(s) and no packet steering",
        ];
        assert_eq!(said(&files, &config()), expected);
    }

    #[test]
    fn more_files_than_any_process_may_have_are_told() {
        let told = said(&[("proc/sys/fs/nr_open", "65536")], &config());
        assert!(told[0].starts_with("Must fs.nr_open = 65536 for limits.dialogs = 200000, which needs"), "{told:?}");
    }

    #[test]
    fn files_and_congestion_are_those_of_the_configuration() {
        let mut config = config();
        config.msrp.congestion = "cubic".into();
        let (_root, mut host) = host(&[("proc/sys/net/ipv4/tcp_available_congestion_control", "reno bbr")]);
        host.files = 1024;
        let list = advise(&host, &config);
        assert!(list[0].what.starts_with("1024 open files for limits.dialogs = 200000"), "{}", list[0]);
        assert!(list[1].what.starts_with("msrp.congestion = \"cubic\" is not among"), "{}", list[1]);
        host.locked = 2 << 20;
        let told = advise(&host, &config).iter().map(|advice| advice.what.clone()).collect::<Vec<_>>();
        assert!(told.contains(&"2048 KiB of locked memory, and the rings of these cores take up to 3072".into()), "{told:?}");
        host.locked = 3 << 20;
        config.limits.dialogs = 100;
        host.files = 4096;
        assert_eq!(advise(&host, &config).len(), 1);
    }
}
