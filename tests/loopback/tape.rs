//! What peers of the program say and hear, noted as it happens, and printed without what differs from run to run: ports, ids, lengths.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

/// Notes of several peers, in the order in which the test sent and read.
#[derive(Clone, Default)]
pub struct Tape(Arc<Mutex<Vec<(String, String, String)>>>);

impl Tape {
    /// `from` and `to` are names, or addresses that [`Tape::print`] names.
    pub fn note(&self, from: &str, to: &str, text: &str) {
        self.0.lock().expect("no test panics with the tape in hand").push((from.into(), to.into(), text.into()));
    }

    /// All steps. `names`: an address (`127.0.0.1:40001`), the name of who is there, and the address to be printed for it.
    pub fn print(&self, names: &[(String, &str, &str)]) -> String {
        let mut text = String::new();
        for (from, to, message) in self.0.lock().expect("no test panics with the tape in hand").iter() {
            let named = |who: &str| {
                names.iter().find(|(address, ..)| address == who).map_or(who.to_owned(), |(_, name, _)| (*name).to_owned())
            };
            let _ = write!(text, "{} --> {}\n\n", named(from), named(to));
            for line in message.trim_end().lines() {
                let _ = writeln!(text, "{}", format!("    {line}").trim_end());
            }
            text.push('\n');
        }
        steady(text, names)
    }
}

/// What differs from run to run gets a name of its own, the same wherever it stands.
fn steady(mut text: String, names: &[(String, &str, &str)]) -> String {
    for (address, _, printed) in names {
        let (port, printed_port) = (after(address, ':'), after(printed, ':'));
        text = text.replace(&format!("m=message {port} "), &format!("m=message {printed_port} "));
        text = text.replace(address, printed);
    }
    text = text.replace(env!("CARGO_PKG_VERSION"), "x.y.z");
    for before in ["Content-Length: ", "rport="] {
        text = renamed(&text, before, &[";", "\n"], |_| "n".into());
    }
    for (kind, places) in [
        ("branch", &["branch="][..]),
        ("tag", &[";tag="]),
        ("call", &["Call-ID: "]),
        ("conversation", &["Conversation-ID: "]),
        ("contribution", &["Contribution-ID: "]),
        ("session", &["o=- "]),
        ("path", &[":2855/", ":2856/", ":2857/", ":9/"]),
        ("tid", &["    MSRP ", "-------"]),
        ("message", &["Message-ID: "]),
        ("token", &["sip:"]),
    ] {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        for before in places {
            text = renamed(&text, before, &[";", " ", ",", ">", "\n", "$", "@"], |value| {
                // Of addresses only ours are random.
                if kind == "token" && value.len() < 16 {
                    return value.to_owned();
                }
                let next = known.len() + 1;
                known.entry(value.to_owned()).or_insert_with(|| format!("{kind}-{next}")).clone()
            });
        }
    }
    text
}

fn after(text: &str, mark: char) -> &str {
    text.rsplit(mark).next().unwrap_or(text)
}

/// Every value that follows `before`, up to one of `ends`, as `name` has it.
fn renamed(text: &str, before: &str, ends: &[&str], mut name: impl FnMut(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        let (head, tail) = rest.split_at(at + before.len());
        let end = ends.iter().filter_map(|end| tail.find(end)).min().unwrap_or(tail.len());
        out.push_str(head);
        out.push_str(&name(&tail[..end]));
        rest = &tail[end..];
    }
    out + rest
}

#[test]
fn what_differs_from_run_to_run_is_named() {
    let print = |port: &str, tag: &str| {
        let tape = Tape::default();
        tape.note(
            "alice",
            &format!("127.0.0.1:{port}"),
            &format!("BYE sip:x@127.0.0.1:{port} SIP/2.0\r\nFrom: <sip:a@b>;tag={tag}\r\nTo: <sip:c@d>;tag=other\r\n\r\n"),
        );
        tape.note(&format!("127.0.0.1:{port}"), "alice", &format!("SIP/2.0 200 OK\r\nFrom: <sip:a@b>;tag={tag}\r\n\r\n"));
        tape.print(&[(format!("127.0.0.1:{port}"), "proxy", "pf:5060")])
    };
    assert_eq!(print("40001", "u1"), print("5", "zzz"));
    assert_eq!(
        print("40001", "u1"),
        "alice --> proxy\n\n    BYE sip:x@pf:5060 SIP/2.0\n    From: <sip:a@b>;tag=tag-1\n    To: <sip:c@d>;tag=tag-2\n\n\
         proxy --> alice\n\n    SIP/2.0 200 OK\n    From: <sip:a@b>;tag=tag-1\n\n"
    );
}
