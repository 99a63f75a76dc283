//! What the program promises whoever runs it: arguments, exit codes, the ready line, signals, reload, the admin server.

use crate::ladder::Originating;
use crate::proxy::{self, Proxy};
use crate::secure;
use crate::ue::{Invite, SESSION};
use std::process::{Command, Output};

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cpm-pf")).args(arguments).output().expect("the program starts")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn wrong_arguments_end_with_2_and_help_and_version_with_0() {
    assert_eq!(program(&["run"]).status.code(), Some(2));
    assert_eq!(program(&["fly"]).status.code(), Some(2));
    assert_eq!(program(&["run", "--config", "/does/not/exist"]).status.code(), Some(2));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("one.toml");
    std::fs::write(&file, proxy::config("")).expect("the folder can be written");
    // Whom to take over from is not said.
    let alone = program(&["run", "--take-over", "--config", &file.display().to_string()]);
    assert_eq!((alone.status.code(), text(&alone.stderr).contains("node.handover")), (Some(2), true));
    let version = program(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(text(&version.stdout), format!("cpm-pf {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn check_tells_every_mistake_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("wrong.toml");
    std::fs::write(&file, "[sip]\nlisten = [\"udp://127.0.0.1:5060\"]\nt1 = 5\nwhat = 1\n").expect("the folder can be written");
    let name = file.display().to_string();
    let output = program(&["check", "--config", &name]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(told.contains(&format!("{name}:3:")) && told.contains(&format!("{name}:4:1:")), "{told}");
}

#[test]
fn check_prints_a_configuration_that_reads_back_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("one.toml");
    std::fs::write(&file, proxy::config("")).expect("the folder can be written");
    let first = program(&["check", "--config", &file.display().to_string()]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    std::fs::write(&file, &first.stdout).expect("the folder can be written");
    let second = program(&["check", "--config", &file.display().to_string()]);
    assert_eq!(text(&first.stdout), text(&second.stdout));
}

#[test]
fn an_address_that_is_taken_ends_the_start_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = taken.local_addr().expect("bound");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("one.toml");
    std::fs::write(&file, proxy::config(&format!("[sip]\nlisten = [\"tcp://{address}\"]"))).expect("the folder can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_cpm-pf"))
        .args(["run", "--config"])
        .arg(&file)
        .current_dir(folder.path())
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(&address.to_string()), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
}

/// Cores share an address among themselves, and with nobody else.
#[test]
fn an_address_of_another_proxy_ends_the_start_with_1_whatever_the_number_of_cores() {
    let cores = "[cores]\nsignaling = [0, 1]\nmedia = [0, 1]\n";
    let first = Proxy::start(cores);
    for listen in [
        format!("[sip]\nlisten = [\"udp://{}\"]", first.udp),
        format!("[sip]\nlisten = [\"tcp://{}\"]", first.tcp.expect("bound")),
        format!("[msrp]\nlisten = [\"tcp://{}\"]", first.msrp),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (code, told) = Proxy::fails(folder, &format!("{cores}---\n{listen}"));
        assert!(code == Some(1) && told.contains("Address already in use"), "{listen}: {code:?} {told}");
    }
}

#[test]
fn a_file_that_is_named_and_cannot_be_used_ends_the_start_with_2_and_check_warns_of_it() {
    let listen = "[sip]\nlisten = [\"tls://127.0.0.1:0\"]\n[sip.tls]\ncertificate = \"not-there.pem\"\n";
    for (key, more) in [("not-there.pem", listen), ("admin.token_file", "[admin]\ntoken_file = \"not-there\"\n")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("one.toml");
        std::fs::write(&file, proxy::config(more)).expect("the folder can be written");
        let checked = program(&["check", "--config", &file.display().to_string()]);
        let warned = text(&checked.stderr);
        let of_key = |line: &str| line.starts_with("warning: ") && line.contains(key);
        assert!(checked.status.code() == Some(0) && warned.lines().any(of_key), "{warned}");
        let quiet = program(&["check", "--quiet", "--config", &file.display().to_string()]);
        assert_eq!((quiet.status.code(), text(&quiet.stdout), text(&quiet.stderr)), (Some(0), String::new(), String::new()));
        let (code, told) = Proxy::fails(folder, more);
        assert!(code == Some(2) && told.contains(key), "{code:?} {told}");
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("one.toml");
    std::fs::write(&file, proxy::config("")).expect("the folder can be written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_cpm-pf"))
        .args(["run", "--config"])
        .arg(&file)
        .current_dir(folder.path())
        .env("RUST_LOG", "what=ever=this")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut log = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut first = String::new();
    std::io::BufRead::read_line(&mut log, &mut first).expect("a line");
    assert!(first.contains("RUST_LOG is not understood"), "{first}");
    drop(log);
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut ready).expect("a line");
    let admin = ready.split("admin=").nth(1).and_then(|address| address.trim().parse().ok()).expect("an address");
    assert_eq!(proxy::http(admin, "POST", "/reload", "").0, 202);
    assert_eq!(proxy::http(admin, "GET", "/healthz", "").0, 200);
    assert!(Command::new("kill").arg(child.id().to_string()).status().is_ok_and(|status| status.success()));
    assert_eq!(child.wait().expect("it is our child").code(), Some(0));
}

#[test]
fn the_ready_line_names_every_address_and_a_signal_ends_an_idle_proxy_with_0() {
    let mut proxy = Proxy::start("");
    let line = format!("ready sip=udp:{},tcp:{} msrp=tcp:{} admin={}\n", proxy.udp, proxy.tcp.unwrap(), proxy.msrp, proxy.admin);
    assert_eq!(proxy.ready, line);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn two_signals_end_it_as_well() {
    let mut proxy = Proxy::start("");
    proxy.signal("INT");
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn the_admin_server_says_what_it_is_asked() {
    let proxy = Proxy::start("");
    assert_eq!(proxy.get("/healthz").0, 200);
    assert_eq!(proxy.get("/readyz").0, 200);
    assert_eq!(proxy.get("/sessions"), (200, "[]\n".into()));
    assert!(proxy.get("/").1.contains("cpm-pf"));
    assert_eq!((proxy.get("/nothing").0, proxy.get("/drain").0, proxy.post("/metrics").0), (404, 405, 405));
    let (status, page) = proxy.get("/metrics");
    assert_eq!(status, 200);
    for name in [
        "cpm_pf_build_info",
        "cpm_pf_sip_requests_total",
        "cpm_pf_sip_responses_total",
        "cpm_pf_dialogs",
        "cpm_pf_invites_total",
        "cpm_pf_rejections_total",
        "cpm_pf_msrp_sessions",
        "cpm_pf_msrp_connections",
        "cpm_pf_msrp_chunks_total",
        "cpm_pf_msrp_bytes_total",
        "cpm_pf_msrp_relay_seconds",
        "cpm_pf_signaling_seconds",
        "cpm_pf_queue_depth",
        "cpm_pf_deferred_messages",
        "cpm_pf_core_busy_ratio",
    ] {
        assert!(page.contains(&format!("\n# TYPE {name} ")) || page.starts_with(&format!("# HELP {name} ")), "{name}\n{page}");
    }
    assert!(page.contains("cpm_pf_core_busy_ratio{core=\"0\",role=\"signaling\"}"), "{page}");
    assert!(page.contains("cpm_pf_core_busy_ratio{core=\"1\",role=\"media\"}"), "{page}");
}

#[test]
fn a_drain_by_the_admin_server_makes_it_unready_and_leaves_it_alive() {
    let mut proxy = Proxy::start("");
    assert_eq!(proxy.post("/drain").0, 202);
    proxy.until("it is not ready while it drains", |proxy| proxy.get("/readyz").0 == 503);
    assert_eq!(proxy.get("/healthz").0, 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_reload_takes_what_can_change_and_names_what_cannot() {
    let proxy = Proxy::start("");
    proxy.configure("[node]\nhost = \"other.example.net\"\n[policy]\nanonymity = \"reject\"\n");
    proxy.signal("HUP");
    proxy.until("the log tells of the reload", |proxy| proxy.log().contains("configuration reloaded"));
    proxy.until("the log names what cannot change", |proxy| {
        proxy.log().lines().any(|line| line.contains("cannot change") && line.contains("node.host"))
    });
}

#[test]
fn a_bad_file_is_not_reloaded_and_all_its_mistakes_are_told() {
    let mut proxy = Proxy::start("");
    std::fs::write(proxy.path("cpm-pf.toml"), "[sip]\nlisten = 1\nt1 = 2\n").expect("the folder can be written");
    let (status, told) = proxy.post("/reload");
    assert_eq!(status, 422);
    assert!(["cpm-pf.toml:2:", "cpm-pf.toml:3:"].iter().all(|place| told.contains(place)), "{told}");
    proxy.until("the log tells of both mistakes", |proxy| {
        let log = proxy.log();
        ["cpm-pf.toml:2:", "cpm-pf.toml:3:"].iter().all(|place| log.contains(place))
    });
    assert_eq!(proxy.get("/readyz").0, 200);
    proxy.configure("[node]\nhost = \"other.example.net\"\n");
    let (status, told) = proxy.post("/reload");
    assert!(status == 202 && told.contains("node.host"), "{status} {told}");
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_reload_without_a_certificate_leaves_the_listeners_the_old_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    secure::certificate(folder.path(), &secure::authority());
    let listen = "[sip]\nlisten = [\"udp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\n";
    let pf = Proxy::start_in(folder, &format!("{listen}[sip.tls]\nca = \"ca.pem\"\n"));
    pf.configure("");
    pf.signal("HUP");
    for key in ["sip.listen", "sip.tls"] {
        let named = |line: &str| line.contains("cannot change") && line.contains(&format!("key=\"{key}\""));
        pf.until(&format!("the log names {key}"), |pf| pf.log().lines().any(named));
    }
    pf.until("the rest is taken", |pf| pf.log().contains("configuration reloaded"));
    let mut stream = secure::connect(&pf, secure::client(pf.folder.path(), false));
    assert_eq!(secure::ask(&pf, &mut stream, "after").expect("it answers"), "SIP/2.0 200 OK");
}

#[test]
fn mistakes_are_json_too_where_the_log_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("one.toml");
    std::fs::write(&file, "[sip]\nt1 = 1\n").expect("the folder can be written");
    let output = program(&["run", "--log-format", "json", "--config", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {told}"));
    let messages: Vec<String> = told.lines().map(|text| line(text)["message"].to_string()).collect();
    assert!(messages.iter().any(|message| message.contains("one.toml:2:6: sip.t1 is 1")), "{told}");
}

/// A file that cannot be written for a while loses nothing.
#[test]
fn call_records_wait_for_a_disk_that_takes_them() {
    // In the place of the folder stands a file.
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("records"), "").expect("the folder can be written");
    let more = "[policy]\nauthorised_originators = []\n[admin]\ncdr = \"records/cdr.jsonl\"\n";
    let mut ladder = Originating::in_folder(folder, more);
    let refused = |ladder: &mut Originating| {
        let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
        ladder.refused(&invite, 403);
    };
    ladder.pf.until("the log tells of it at once", |pf| pf.log().contains("call records cannot be written"));
    refused(&mut ladder);
    refused(&mut ladder);
    std::fs::remove_file(ladder.pf.path("records")).expect("it is there");
    ladder.pf.until("both are there", |pf| {
        let text = std::fs::read_to_string(pf.path("records/cdr.jsonl")).unwrap_or_default();
        text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count() == 2
    });
    ladder.pf.until("the log tells of that", |pf| pf.log().contains("call records are written again"));
    assert_eq!(ladder.pf.metric("cpm_pf_cdr_dropped_total", &[]), 0.0);
}

#[test]
fn a_disk_that_stays_full_delays_no_call_and_no_end() {
    let mut ladder = Originating::new("[policy]\nauthorised_originators = []\n[admin]\ncdr = \"/dev/full\"\n");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    ladder.refused(&invite, 403);
    ladder.pf.until("the log tells of it", |pf| pf.log().contains("No space left on device"));
    ladder.pf.signal("TERM");
    assert_eq!(ladder.pf.wait().code(), Some(0));
    assert!(ladder.pf.log().contains("call records are lost"));
}

#[test]
fn the_log_can_be_json() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = taken.local_addr().expect("bound");
    let file = folder.path().join("one.toml");
    std::fs::write(&file, proxy::config(&format!("[admin]\nlisten = \"{address}\""))).expect("the folder can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_cpm-pf"))
        .args(["--log-format", "json", "run", "--config"])
        .arg(&file)
        .current_dir(folder.path())
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    let lines: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(
        lines.iter().any(|line| line["level"] == "ERROR" && line["error"].to_string().contains(&address.to_string())),
        "{told}"
    );
}
