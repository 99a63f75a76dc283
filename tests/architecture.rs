//! Arrows point down: which floor may use which, read from every `crate::…` and `super::…` in `src/`.
//!
//! ```text
//! main  ->  io  ->  shard  ->  cpm  ->  { sip  sdp  msrp  mime  xdm  store  config }  ->  { base  limits }
//! ```

use std::fs;
use std::path::{Path, PathBuf};

const GROUND: [&str; 2] = ["base", "limits"];
const PILLARS: [&str; 7] = ["sip", "sdp", "msrp", "mime", "xdm", "store", "config"];
const FLOORS: [&str; 4] = ["cpm", "shard", "io", "main"];

/// Words that belong under the roof alone; clippy.toml bans calls, this bans the types.
const KERNEL: [&str; 9] = [
    "Instant::now",
    "SystemTime",
    "std::thread",
    "Mutex",
    "RwLock",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "#[allow(unsafe_code)]",
];

/// Height of a top module: 0 the ground, 1 the pillars, then one floor each. None: no module of ours.
fn height(module: &str) -> Option<usize> {
    if GROUND.contains(&module) {
        return Some(0);
    }
    if PILLARS.contains(&module) {
        return Some(1);
    }
    FLOORS.iter().position(|floor| *floor == module).map(|at| at + 2)
}

/// Whether code of `user` may name `used`.
fn may_use(user: &str, used: &str) -> bool {
    let (Some(from), Some(to)) = (height(user), height(used)) else { return true };
    user == used || to < from || (from == 0 && to == 0)
}

/// The top module a file belongs to, and how deep its module lies ("src/cpm/terminating/session.rs": "cpm", 3).
fn module_of(place: &str) -> (String, usize) {
    let path = place.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let top = path.split('/').next().unwrap_or_default();
    (top.to_string(), path.split('/').count())
}

/// Top modules named by a line of code: after `crate::`, inside `crate::{…}`, and after as many `super::` as lead to the root.
fn named(line: &str, depth: usize) -> Vec<&str> {
    let word = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut names = Vec::new();
    for (at, needle) in line.match_indices("crate::") {
        let rest = &line[at + needle.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(top_level(group).map(|item| &item[..word(item)])),
            None => names.push(&rest[..word(rest)]),
        }
    }
    let ladder = "super::".repeat(depth);
    if let Some(at) = line.find(&ladder) {
        let rest = line[at..].trim_start_matches("super::");
        names.push(&rest[..word(rest)]);
    }
    names
}

/// Items of a `use` group, those of inner groups left out.
fn top_level(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let mut start = 0;
    let mut items = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(group[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.into_iter().filter(|item| !item.is_empty())
}

/// Every arrow of a file that points up or sideways, and every kernel word below the roof: "file:line: what".
fn violations(place: &str, text: &str) -> Vec<String> {
    let (user, depth) = module_of(place);
    let mut found = Vec::new();
    // A `use crate::{` group may run over several lines; it is joined to its first line.
    let mut pending: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let (number, whole) = match pending.take() {
            Some((number, mut head)) => {
                head.push_str(code);
                (number, head)
            }
            None => (at + 1, code.to_string()),
        };
        if whole.contains("crate::{") && whole.matches('{').count() > whole.matches('}').count() {
            pending = Some((number, whole));
            continue;
        }
        for used in named(&whole, depth) {
            if !may_use(&user, used) {
                found.push(format!("{place}:{number}: {user} uses {used}"));
            }
        }
        if user != "io" && user != "main" && user != "lib" {
            for word in KERNEL.iter().filter(|word| whole.contains(**word)) {
                found.push(format!("{place}:{number}: {word} below io"));
            }
        }
    }
    found
}

/// Modules of lib.rs other than `io` that do not forbid `unsafe`.
fn without_forbid(lib: &str) -> Vec<String> {
    let lines: Vec<&str> = lib.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) else { continue };
        let attributes = lines[..at].iter().rev().take_while(|above| above.starts_with("#["));
        if name != "io" && !attributes.into_iter().any(|above| *above == "#[forbid(unsafe_code)]") {
            found.push(format!("src/lib.rs:{}: {name} does not forbid unsafe code", at + 1));
        }
    }
    found
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

#[test]
fn arrows_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut found = Vec::new();
    for file in &files {
        let place = file.strip_prefix(root).unwrap_or(file).display().to_string();
        let text = fs::read_to_string(file).expect("a source file is UTF-8");
        found.extend(violations(&place, &text));
        if place == "src/lib.rs" {
            found.extend(without_forbid(&text));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_checker_bites() {
    let bad = "use crate::shard::outbox::Outbox;\nuse crate::{\n    base::clock::Instant,\n    io::services,\n};\n// crate::io\nlet now = std::time::Instant::now();\n";
    assert_eq!(
        violations("src/cpm/gates.rs", bad),
        ["src/cpm/gates.rs:1: cpm uses shard", "src/cpm/gates.rs:2: cpm uses io", "src/cpm/gates.rs:7: Instant::now below io"]
    );
    assert_eq!(violations("src/sip/uri.rs", "use crate::sdp::description;\n"), ["src/sip/uri.rs:1: sip uses sdp"]);
    assert_eq!(violations("src/base/slab.rs", "use crate::config::Config;\n"), ["src/base/slab.rs:1: base uses config"]);
    assert_eq!(violations("src/cpm/gates.rs", "use super::super::shard;\n"), ["src/cpm/gates.rs:1: cpm uses shard"]);
    assert_eq!(violations("src/shard/a.rs", "use crate::{cpm::{io, main}, base};\n"), Vec::<String>::new());
    assert_eq!(violations("src/io/engine.rs", "use crate::shard::outbox;\nstd::time::Instant::now();\n"), Vec::<String>::new());
    assert_eq!(
        without_forbid("#[forbid(unsafe_code)]\npub mod base;\npub mod cpm;\npub mod io;\n"),
        ["src/lib.rs:3: cpm does not forbid unsafe code"]
    );
}
