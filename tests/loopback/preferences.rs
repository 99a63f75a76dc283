//! CR 8.4.1, RFC 4825: rules and lists on real servers. What is changed there counts after `xdm.cache`; what is cached costs no
//! fetch; a server that is away refuses no call.

use crate::ladder::{Terminating, warned};
use crate::peers::{Server, at, free};
use crate::proxy::{PATIENCE, put};
use crate::ue::{Invite, LARGE, Message, SESSION};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const RULES: &str = "xcap/org.openmobilealliance.access-rules/users/sip:bob@example.net/access-rules";
const LISTS: &str = "xcap/resource-lists/users/sip:bob@example.net/index";

fn rules(actions: &str) -> String {
    format!(
        r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
        <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list><oxe:media-list><oxe:standalone-message/></oxe:media-list></conditions><actions>{actions}</actions></rule></ruleset>"#
    )
}

fn list(uri: &str) -> String {
    format!(
        r#"<?xml version="1.0"?><resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"><list name="oma_blockedcontacts"><entry uri="{uri}"/></list></resource-lists>"#
    )
}

/// A web server with the documents below a folder, its log of requests beside them.
fn nginx(folder: &Path, port: u16) -> Option<Server> {
    let at = folder.display();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\n  access_log {at}/access.log;\n  client_body_temp_path {at}/t1;\n  proxy_temp_path {at}/t2;\n  fastcgi_temp_path {at}/t3;\n  uwsgi_temp_path {at}/t4;\n  scgi_temp_path {at}/t5;\n  server {{\n    listen 127.0.0.1:{port};\n    root {at};\n    etag on;\n  }}\n}}\n"
    );
    std::fs::write(folder.join("nginx.conf"), config).expect("the folder can be written");
    let file = folder.join("nginx.conf").display().to_string();
    Server::start("nginx", &["-c", &file, "-p", &at.to_string()], &folder.join("out"), port)
}

/// Requests for documents, by status.
fn fetches(folder: &Path, status: &str) -> usize {
    let log = std::fs::read_to_string(folder.join("access.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains("GET /xcap/") && line.contains(&format!("\" {status}"))).count()
}

fn xdm(port: u16, cache: &str) -> String {
    format!("{NOBODY}[xdm]\nroot = \"http://127.0.0.1:{port}/xcap\"\ncache = \"{cache}\"\n")
}

/// Nobody is registered and nothing is deferred: a call that the rules let pass is told 480 at once.
const NOBODY: &str = "[policy]\ndelivery = \"reject\"\n[limits]\noverload_queue_delay = \"10s\"\n";

/// Calls; the final answer.
fn called(ladder: &mut Terminating, service: &str) -> Message {
    let invite = ladder.call(service);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let own = invite.get("Call-ID").map(str::to_owned);
    let (answer, _) =
        ladder.alice.next("an answer", |message| message.header("Call-ID") == own.as_deref() && message.status() >= 200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &answer);
    answer
}

#[track_caller]
fn passes(ladder: &mut Terminating, service: &str) {
    assert_eq!(called(ladder, service).status(), 480);
}

/// Calls again and again until `what` holds.
#[track_caller]
fn calls_until(ladder: &mut Terminating, service: &str, why: &str, what: impl Fn(&Message, &Terminating) -> bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = called(ladder, service);
        if what(&answer, ladder) {
            return;
        }
        assert!(Instant::now() < until, "never: {why}");
    }
}

#[track_caller]
fn until_refused(ladder: &mut Terminating, service: &str) {
    calls_until(ladder, service, "the change counts", |answer, _| answer.status() == 403);
    warned(&called(ladder, service), "122 Function not allowed");
}

#[test]
fn a_rule_changed_at_the_server_counts_after_the_cache_and_its_death_refuses_no_call() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    put(place.path(), RULES, &rules("<oxe:allow-reject-invite>false</oxe:allow-reject-invite>"));
    put(place.path(), LISTS, &list("sip:somebody@else.org"));
    let Some(server) = nginx(place.path(), port) else { return };

    // Twenty calls at once and one after them: one fetch for each of the two documents.
    let mut ladder = Terminating::new(&[], &xdm(port, "60s"));
    let invites: Vec<Invite> = (0..20).map(|_| ladder.call(LARGE)).collect();
    for invite in &invites {
        ladder.alice.send(ladder.pf.udp, &invite.text());
    }
    for invite in &invites {
        let own = invite.get("Call-ID").map(str::to_owned);
        let (answer, _) =
            ladder.alice.next("an answer", |message| message.header("Call-ID") == own.as_deref() && message.status() >= 200);
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &answer);
    }
    passes(&mut ladder, LARGE);
    assert_eq!((fetches(place.path(), "200"), fetches(place.path(), "304")), (2, 0), "a hit asks nobody");
    drop(ladder);

    // Unchanged: 304. Changed: the rule counts, and the list.
    let mut ladder = Terminating::new(&[], &xdm(port, "1s"));
    calls_until(&mut ladder, LARGE, "an unchanged document is told apart by its ETag", |_, _| fetches(place.path(), "304") > 0);
    passes(&mut ladder, LARGE);
    put(place.path(), RULES, &rules("<oxe:allow-reject-invite>true</oxe:allow-reject-invite>"));
    until_refused(&mut ladder, LARGE);
    put(place.path(), LISTS, &list("sip:alice@example.net"));
    until_refused(&mut ladder, SESSION);
    drop(ladder);

    // Away before anything was fetched: no rule, and the call goes on.
    server.kill();
    let mut ladder = Terminating::new(&[], &xdm(port, "1s"));
    passes(&mut ladder, LARGE);
}

#[test]
fn a_document_outlives_its_server() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    put(place.path(), RULES, &rules("<oxe:allow-reject-invite>true</oxe:allow-reject-invite>"));
    let Some(server) = nginx(place.path(), port) else { return };
    let mut ladder = Terminating::new(&[], &xdm(port, "1s"));
    warned(&called(&mut ladder, LARGE), "122 Function not allowed");
    server.kill();
    calls_until(&mut ladder, LARGE, "the server is missed", |_, ladder| ladder.pf.log().contains("XCAP request failed"));
    warned(&called(&mut ladder, LARGE), "122 Function not allowed");
}

/// Kamailio as an XCAP server (`xcap_server`), its documents in SQLite.
fn kamailio(folder: &Path, port: u16) -> Option<Server> {
    let modules = PathBuf::from("/usr/lib/x86_64-linux-gnu/kamailio/modules");
    let scripts = Path::new("/usr/share/kamailio/db_sqlite");
    if !modules.join("xcap_server.so").is_file() || !scripts.is_dir() {
        println!("skipped: Kamailio's xcap_server with SQLite is not installed");
        return None;
    }
    let database = folder.join("xcap.db");
    for table in ["standard", "presence"] {
        let script = std::fs::File::open(scripts.join(format!("{table}-create.sql"))).ok()?;
        let made = Command::new("sqlite3").arg(&database).stdin(script).output();
        if made.is_err() {
            println!("skipped: sqlite3 is not installed");
            return None;
        }
    }
    let at = folder.display();
    let config = format!(
        r#"#!KAMAILIO
debug=0
log_stderror=yes
auto_aliases=no
children=1
tcp_children=1
tcp_accept_no_cl=yes
http_reply_parse=yes
listen=tcp:127.0.0.1:{port}
mpath="{modules}/"
loadmodule "db_sqlite.so"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "xhttp.so"
loadmodule "xcap_server.so"
modparam("xhttp", "url_match", "^/xcap-root/")
modparam("xcap_server", "db_url", "sqlite:///{at}/xcap.db")
modparam("xcap_server", "xcap_root", "/xcap-root/")
request_route {{ sl_send_reply("404", "Not here"); }}
event_route[xhttp:request] {{
    $xcapuri(u=>data) = $hu;
    switch ($rm) {{
        case "PUT": xcaps_put("$xcapuri(u=>xuid)", "$hu", "$rb"); exit;
        case "GET": xcaps_get("$xcapuri(u=>xuid)", "$hu"); exit;
    }}
    xhttp_reply("405", "Method Not Allowed", "text/plain", "$hu");
}}
"#,
        modules = modules.display()
    );
    std::fs::write(folder.join("kamailio.cfg"), config).expect("the folder can be written");
    let file = folder.join("kamailio.cfg").display().to_string();
    let args =
        ["-f", &file, "-m", "64", "-M", "8", "-P", &format!("{at}/pid"), "-w", &at.to_string(), "-Y", &at.to_string(), "-DD"];
    Server::start("kamailio", &args, &folder.join("log"), port)
}

/// PUT of a whole document (RFC 4825 §8.2.1).
fn store(port: u16, path: &str, document: &str) -> u16 {
    let mut stream = TcpStream::connect(at(port)).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    let length = document.len();
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/resource-lists+xml\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{document}")
        .expect("the server reads");
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    while !said.contains("\r\n") {
        match crate::reading::read(&mut stream, &mut buffer) {
            Ok(read @ 1..) => said += &String::from_utf8_lossy(&buffer[..read]),
            _ => break,
        }
    }
    said.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

#[test]
fn a_list_in_kamailio_is_consulted_and_a_change_of_it_counts() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    let Some(_server) = kamailio(place.path(), port) else { return };
    let path = "/xcap-root/resource-lists/users/sip:bob@example.net/index";
    let stored = store(port, path, &list("sip:somebody@else.org"));
    assert!((200..300).contains(&stored), "{stored}: {}", std::fs::read_to_string(place.path().join("log")).unwrap_or_default());
    let mut ladder =
        Terminating::new(&[], &format!("{NOBODY}[xdm]\nroot = \"http://127.0.0.1:{port}/xcap-root\"\ncache = \"1s\"\n"));
    passes(&mut ladder, LARGE);
    let stored = store(port, path, &list("sip:alice@example.net"));
    assert!((200..300).contains(&stored), "{stored}");
    until_refused(&mut ladder, LARGE);
}
