//! SIPp on both sides of the program: scenarios of `tests/loopback/sipp`, some calls each, over UDP, TCP and TLS. A scenario that
//! does not go as written fails with what SIPp saw.
//!
//! Debian's SIPp is built without TLS: there it speaks TCP to a pump of this test's (`pump.rs`), which speaks TLS to the program, and
//! its scenarios say TLS, and the ports of the other side of the pump.

use crate::peers::free;
use crate::proxy::{PATIENCE, Proxy};
use crate::pump;
use crate::secure;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Calls of one scenario.
const CALLS: usize = 20;

/// One SIPp process at a port of its own.
struct Sipp {
    name: String,
    child: Child,
    messages: PathBuf,
    errors: PathBuf,
}

impl Sipp {
    /// `says` replaces words of the scenario.
    fn start(folder: &Path, scenario: &str, says: &[(&str, &str)], transport: &str, port: u16, more: &[&str]) -> Sipp {
        let (messages, errors) = (folder.join(format!("{scenario}.messages")), folder.join(format!("{scenario}.errors")));
        let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loopback/sipp").join(format!("{scenario}.xml"));
        let text = std::fs::read_to_string(written).expect("the scenario is there");
        let text = says.iter().fold(text, |text, (word, other)| text.replace(word, other));
        let file = folder.join(format!("{scenario}.xml"));
        std::fs::write(&file, text).expect("the folder can be written");
        // `timeout` bounds the wait for it.
        let child = Command::new("timeout")
            .args(["-k", "1", &PATIENCE.as_secs().to_string(), "sipp"])
            .args(more)
            .arg("-sf")
            .arg(file)
            .args(["-i", "127.0.0.1", "-p", &port.to_string(), "-t", transport, "-m", &CALLS.to_string()])
            .args(["-nostdin", "-recv_timeout", "15000", "-trace_msg", "-trace_err"])
            .arg("-message_file")
            .arg(&messages)
            .arg("-error_file")
            .arg(&errors)
            .current_dir(folder)
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sipp starts");
        Sipp { name: scenario.into(), child, messages, errors }
    }

    /// Waits for it to end; what went wrong, if something did.
    fn outcome(&mut self) -> Result<(), String> {
        let status = self.child.wait().expect("it is our child");
        if status.success() { Ok(()) } else { Err(format!("{}: {status}\n{}", self.name, self.trace())) }
    }

    /// Errors, and the end of the messages.
    fn trace(&self) -> String {
        let read = |path: &Path| std::fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        let (errors, messages) = (read(&self.errors), read(&self.messages));
        let start = messages.len().saturating_sub(12_000);
        let start = (start..messages.len()).find(|at| messages.is_char_boundary(*at)).unwrap_or(0);
        format!("errors:\n{}\nmessages:\n{}", &errors[..errors.len().min(4_000)], &messages[start..])
    }
}

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a scenario's party can be sent to. To try the port itself would take it from the party, or be a call.
fn wait_for_listener(party: &mut Sipp, transport: &str, port: u16) {
    let until = Instant::now() + PATIENCE;
    let table = if transport == UDP { "/proc/net/udp" } else { "/proc/net/tcp" };
    let at = format!(" 0100007F:{port:04X} 00000000:0000 ");
    let listens = || {
        let sockets = std::fs::read_to_string(table).expect("Linux tells");
        sockets.lines().any(|line| line.contains(&at) && (transport == UDP || line.contains("00000000:0000 0A")))
    };
    while !listens() {
        let over = Instant::now() > until || party.child.try_wait().expect("it is our child").is_some();
        assert!(!over, "{} does not listen: {}", party.name, party.trace());
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn installed() -> bool {
    let found = Command::new("sipp").arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: sipp is not installed");
    }
    found
}

/// How SIPp reaches the program, as its option says it; `TLS` is not one of them.
const UDP: &str = "u1";
const TCP: &str = "t1";
const TLS: &str = "tls";

/// Loopback loses nothing, and a party of a busy machine may take its time: nobody sends anything twice within that, since SIPp
/// takes some resends for calls gone wrong. The program's T1 is as long.
const PATIENT: (&str, &str) = ("retrans=\"500\"", "retrans=\"5000\"");

/// Plays a caller's and a called party's scenario against each other through the program.
#[track_caller]
fn play(caller: &str, called: &str, transport: &str, more: &str) -> Option<Proxy> {
    if !installed() {
        return None;
    }
    let [port, caller_port] = free();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut said = String::new();
    let (mut core_port, mut over) = (port, "");
    match transport {
        TCP => over = ";transport=tcp",
        TLS => {
            secure::certificate(folder.path(), &secure::authority());
            core_port = pump::served(folder.path(), port);
            over = ";transport=tls";
            said = "listen = [\"udp://127.0.0.1:0\", \"tcp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\n".into();
        }
        _ => {}
    }
    let tls = if transport == TLS { "[sip.tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\nca = \"ca.pem\"\n" } else { "" };
    let config = format!(
        "{more}\n---\n[sip]\nt1 = \"5s\"\n{said}core = \"sip:127.0.0.1:{core_port}{over};lr\"\n{tls}[limits]\nsessions_per_originator = 1000\n"
    );
    let pf = Proxy::start_in(folder, &config);
    let (at, own) = match transport {
        TCP => (pf.tcp.expect("TCP is bound"), caller_port),
        TLS => pump::towards(pf.folder.path(), pf.tls.expect("TLS is bound")),
        _ => (pf.udp, caller_port),
    };
    // Over TLS each has the port of the other side of its pump.
    let says = |port| [PATIENT, ("[transport]", "TLS"), ("[local_port]", port)];
    let (core_port, own) = (core_port.to_string(), own.to_string());
    let (says_uas, says_uac) = (says(&*core_port), says(&*own));
    let (wire, replaced) = if transport == TLS { (TCP, 3) } else { (transport, 1) };
    let mut uas = Sipp::start(pf.folder.path(), called, &says_uas[..replaced], wire, port, &[]);
    wait_for_listener(&mut uas, wire, port);
    let more = [&*at.to_string(), "-r", "100", "-l", &CALLS.to_string()];
    let mut uac = Sipp::start(pf.folder.path(), caller, &says_uac[..replaced], wire, caller_port, &more);
    let (ours, theirs) = (uac.outcome(), uas.outcome());
    assert!(
        ours.is_ok() && theirs.is_ok(),
        "over {transport}: {}\n{}",
        ours.err().unwrap_or_default(),
        theirs.err().unwrap_or_default()
    );
    pf.until("nothing is left", |pf| pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0 && pf.metric("cpm_pf_dialogs", &[]) == 0.0);
    Some(pf)
}

fn over_all(caller: &str, called: &str, more: &str) {
    for transport in [UDP, TCP, TLS] {
        play(caller, called, transport, more);
    }
}

#[test]
fn sessions_are_set_up_and_ended_by_the_caller() {
    over_all("session-caller", "session-called", "");
}

#[test]
fn sessions_are_ended_by_the_called_party() {
    over_all("hangup-caller", "hangup-called", "");
}

#[test]
fn large_messages_are_set_up_and_ended() {
    over_all("message-caller", "message-called", "");
}

#[test]
fn an_invite_is_cancelled() {
    over_all("cancel-caller", "cancel-called", "");
}

#[test]
fn a_refusal_comes_back() {
    over_all("refused-caller", "refused-called", "");
}

#[test]
fn a_session_is_changed_by_a_re_invite() {
    over_all("change-caller", "change-called", "");
}

#[test]
fn a_session_is_refreshed_by_update_and_not_below_the_minimum() {
    over_all("refresh-caller", "refresh-called", "");
}

/// The same at once: what these wait for is the program's timers. Intervals are of seconds, so that a test need not wait for a
/// minute.
fn over_all_at_once(pairs: &[(&str, &str)]) {
    std::thread::scope(|scope| {
        for (caller, called) in pairs {
            for transport in [UDP, TCP, TLS] {
                scope.spawn(move || play(caller, called, transport, "[policy]\nsession_floor = \"2s\"\nmin_se = \"2s\"\n"));
            }
        }
    });
}

#[test]
fn sessions_are_refreshed_by_us_towards_the_caller_and_the_called_party() {
    over_all_at_once(&[("kept-caller", "session-called"), ("patient-caller", "kept-called")]);
}

#[test]
fn sessions_that_nobody_refreshes_end_on_both_legs() {
    over_all_at_once(&[("expired-caller", "expired-called")]);
}

#[test]
fn every_dialog_of_a_forked_invite_is_ended() {
    over_all("hangup-caller", "forked-called", "");
}

#[test]
fn a_focus_is_reached_by_the_route_it_recorded() {
    over_all("session-caller", "focus-called", "");
}

#[test]
fn sessions_go_through_in_proxy_mode() {
    for called in ["session-called", "focus-called"] {
        over_all("session-caller", called, "[policy]\nstay_in_media_path = false\n");
    }
    over_all("hangup-caller", "hangup-called", "[policy]\nstay_in_media_path = false\n");
    over_all("cancel-caller", "cancel-called", "[policy]\nstay_in_media_path = false\n");
    over_all("change-caller", "change-called", "[policy]\nstay_in_media_path = false\n");
}
