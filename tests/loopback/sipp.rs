//! SIPp on both sides of the program: scenarios of `tests/loopback/sipp`, some calls each, over UDP and TCP. A scenario that does
//! not go as written fails with what SIPp saw.

use crate::peers::free;
use crate::proxy::{PATIENCE, Proxy};
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
    fn start(folder: &Path, scenario: &str, transport: &str, port: u16, calls: usize, more: &[&str]) -> Sipp {
        let (messages, errors) = (folder.join(format!("{scenario}.messages")), folder.join(format!("{scenario}.errors")));
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/loopback/sipp").join(format!("{scenario}.xml"));
        // `timeout` bounds the wait for it.
        let child = Command::new("timeout")
            .args(["-k", "1", &PATIENCE.as_secs().to_string(), "sipp"])
            .args(more)
            .arg("-sf")
            .arg(file)
            .args(["-i", "127.0.0.1", "-p", &port.to_string(), "-t", transport, "-m", &calls.to_string()])
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
    let table = if transport == "u1" { "/proc/net/udp" } else { "/proc/net/tcp" };
    let at = format!(" 0100007F:{port:04X} 00000000:0000 ");
    let listens = || {
        let sockets = std::fs::read_to_string(table).expect("Linux tells");
        sockets.lines().any(|line| line.contains(&at) && (transport == "u1" || line.contains("00000000:0000 0A")))
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

/// Plays a caller's and a called party's scenario against each other through the program.
#[track_caller]
fn play(caller: &str, called: &str, transport: &str, more: &str) -> Option<Proxy> {
    if !installed() {
        return None;
    }
    let [port, caller_port] = free();
    let over = if transport == "t1" { ";transport=tcp" } else { "" };
    let pf = Proxy::start(&format!(
        "{more}\n---\n[sip]\ncore = \"sip:127.0.0.1:{port}{over};lr\"\n[limits]\nsessions_per_originator = 1000\n"
    ));
    let mut uas = Sipp::start(pf.folder.path(), called, transport, port, CALLS, &[]);
    wait_for_listener(&mut uas, transport, port);
    let at = if transport == "t1" { pf.tcp.expect("TCP is bound") } else { pf.udp };
    let mut uac = Sipp::start(
        pf.folder.path(),
        caller,
        transport,
        caller_port,
        CALLS,
        &[&at.to_string(), "-r", "100", "-l", &CALLS.to_string()],
    );
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

fn both(caller: &str, called: &str, more: &str) {
    for transport in ["u1", "t1"] {
        play(caller, called, transport, more);
    }
}

#[test]
fn sessions_are_set_up_and_ended_by_the_caller() {
    both("session-caller", "session-called", "");
}

#[test]
fn sessions_are_ended_by_the_called_party() {
    both("hangup-caller", "hangup-called", "");
}

#[test]
fn large_messages_are_set_up_and_ended() {
    both("message-caller", "message-called", "");
}

#[test]
fn an_invite_is_cancelled() {
    both("cancel-caller", "cancel-called", "");
}

#[test]
fn a_refusal_comes_back() {
    both("refused-caller", "refused-called", "");
}

#[test]
fn a_session_is_changed_by_a_re_invite() {
    both("change-caller", "change-called", "");
}

#[test]
fn a_session_is_refreshed_by_update_and_not_below_the_minimum() {
    both("refresh-caller", "refresh-called", "");
}

#[test]
fn every_dialog_of_a_forked_invite_is_ended() {
    play("session-caller", "forked-called", "u1", "");
}

#[test]
fn a_focus_is_reached_by_the_route_it_recorded() {
    both("session-caller", "focus-called", "");
}

#[test]
fn sessions_go_through_in_proxy_mode() {
    for called in ["session-called", "focus-called"] {
        both("session-caller", called, "[policy]\nstay_in_media_path = false\n");
    }
    both("hangup-caller", "hangup-called", "[policy]\nstay_in_media_path = false\n");
    both("cancel-caller", "cancel-called", "[policy]\nstay_in_media_path = false\n");
    both("change-caller", "change-called", "[policy]\nstay_in_media_path = false\n");
}
