//! CR 8.5 and 8.5.1 on the wire: what the rules of a user say is recorded, in files and in a real Message Storage Server.

use crate::dovecot::{Dovecot, PASSWORD};
use crate::ladder::Originating;
use crate::msrp::{Msrp, Waiting};
use crate::peers::free;
use crate::proves;
use crate::proxy::put;
use crate::secure::{authority, certificate};
use crate::ue::{Invite, LARGE, SESSION, answer_sdp};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ALICE: &str = "sip:alice@example.net";
const BOB: &str = "sip:bob@example.org";

/// A folder in which a user's rules say that conversations are recorded, or that they are not.
fn recorded(user: &str, allow: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = format!(
        r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
        <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list></conditions><actions><oxe:allow-offline-storage oxe:allow="{allow}"/></actions></rule></ruleset>"#
    );
    put(folder.path(), &format!("xdm/org.openmobilealliance.access-rules/users/{user}/access-rules"), &text);
    folder
}

/// All objects below a folder, as text, in the order of their names.
fn objects(folder: &Path) -> Vec<String> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { folders.push(entry.path()) } else { paths.push(entry.path()) }
        }
    }
    paths.retain(|path| !path.to_string_lossy().ends_with(".partial"));
    paths.sort();
    paths.iter().filter_map(|path| Some(String::from_utf8_lossy(&std::fs::read(path).ok()?).into_owned())).collect()
}

#[track_caller]
fn has(object: &str, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        let line = format!("{name}: {value}\r\n");
        assert!(object.contains(&line), "no {line:?} in\n{object}");
    }
}

fn ends_with<'a>(objects: &'a [String], body: &str) -> &'a str {
    objects.iter().find(|object| object.ends_with(body)).unwrap_or_else(|| panic!("no object with {body:?} in {objects:?}"))
}

/// A large message from alice through the proxy.
fn large(ladder: &mut Originating, body: &[u8]) -> Invite {
    let waiting = Waiting::new();
    let invite = Invite::new(&ladder.alice, BOB, LARGE).with("Subject", "lunch");
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let (arrived, ok) = ladder.established(&invite, &contact, &answer_sdp(waiting.address(), "bob", "passive", "recvonly"));
    let mut b = waiting.accept(&format!("msrp://{}/bob;tcp", waiting.address()), arrived.attribute("path"));
    let mut a = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    a.send("msg1", body);
    assert_eq!(b.message(), body);
    a.expect("200");
    ladder.hang_up(&ok);
    invite
}

/// A session in which each side says one thing.
fn chat(ladder: &mut Originating, vary: impl Fn(Invite) -> Invite, contact: &str) -> Invite {
    let waiting = Waiting::new();
    let invite = vary(Invite::new(&ladder.alice, BOB, SESSION));
    let (arrived, ok) = ladder.established(&invite, contact, &answer_sdp(waiting.address(), "bob", "passive", "sendrecv"));
    let mut b = waiting.accept(&format!("msrp://{}/bob;tcp", waiting.address()), arrived.attribute("path"));
    let opening = b.expect("SEND-EMPTY");
    b.answer(&opening, "200 OK");
    let mut a = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    a.send("ping", b"from alice");
    assert_eq!(b.message(), b"from alice");
    a.expect("200");
    b.send("pong", b"from bob");
    assert_eq!(a.message(), b"from bob");
    b.expect("200");
    ladder.hang_up(&ok);
    invite
}

#[test]
fn a_large_message_is_recorded_where_the_rule_says_so() {
    let mut ladder = Originating::in_folder(recorded(ALICE, true), "");
    let invite = large(&mut ladder, b"kept for alice");
    let history = ladder.pf.path("var/history");
    ladder.pf.until("it is recorded", |_| objects(&history).len() == 1);
    let object = objects(&history).remove(0);
    assert!(object.ends_with("\r\n\r\nkept for alice"), "{object}");
    has(
        &object,
        &[
            ("From", ALICE),
            ("To", BOB),
            ("Subject", "lunch"),
            ("Conversation-ID", invite.get("Conversation-ID").unwrap_or_default()),
            ("Contribution-ID", invite.get("Contribution-ID").unwrap_or_default()),
            // Of the standalone message alone, whether its sender named it or not.
            ("P-Asserted-Service", "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg"),
            ("Message-Direction", "sent"),
            ("Content-Type", "text/plain"),
        ],
    );
    assert!(history.join(ALICE).join("Default").join(invite.get("Conversation-ID").unwrap_or_default()).is_dir());
    proves!("OLM-r7.a", "OLM-r7.b"; ladder.pf);

    let mut ladder = Originating::in_folder(recorded(ALICE, false), "");
    large(&mut ladder, b"not kept");
    assert!(objects(&ladder.pf.path("var/history")).is_empty());
    proves!("OLM-r7.c"; ladder.pf);
}

#[test]
fn a_session_is_recorded_with_what_both_sides_said() {
    let mut ladder = Originating::in_folder(recorded(ALICE, true), "");
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let invite = chat(&mut ladder, |invite| invite, &contact);
    let history = ladder.pf.path("var/history");
    ladder.pf.until("all is recorded", |_| objects(&history).len() == 3);
    let objects = objects(&history);
    let (one, other) = (ends_with(&objects, "from alice"), ends_with(&objects, "from bob"));
    has(one, &[("From", ALICE), ("To", BOB), ("Message-Direction", "sent")]);
    has(other, &[("From", BOB), ("To", ALICE), ("Message-Direction", "received")]);
    let info = ends_with(&objects, "</session>\r\n");
    has(info, &[("Content-Type", "Application/X-CPM-Session"), ("Message-Direction", "sent")]);
    for text in ["<session-type>1-1</session-type>", "m=message", &format!("<invited-participants>{BOB}</invited-participants>")]
    {
        assert!(info.contains(text), "no {text:?} in {info}");
    }
    let ids = ["Conversation-ID", "Contribution-ID"].map(|name| invite.get(name).unwrap_or_default());
    assert!(history.join(ALICE).join("Default").join(ids[0]).join(ids[1]).is_dir());
    proves!("OSI-r7.a"; ladder.pf);
}

#[test]
fn an_operator_who_records_gets_sessions_of_groups_with_their_state() {
    // Alice's rule says no, the operator says yes.
    let mut ladder = Originating::in_folder(recorded(ALICE, false), "[policy]\nrecord_sessions = true");
    let list = "<?xml version=\"1.0\"?>\r\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list><entry uri=\"sip:carol@example.net\"/><entry uri=\"tel:+15551230002\"/></list></resource-lists>";
    let group = |invite: Invite| {
        let icsi = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session.group";
        let coded = format!("*;+g.3gpp.icsi-ref=\"{}\"", icsi.replace(':', "%3A"));
        let mut invite = invite.with("Accept-Contact", &coded).with("P-Preferred-Service", icsi);
        let path = invite.message().attribute("path").to_owned();
        invite.body = format!(
            "--b1\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--b1\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n{list}\r\n--b1--\r\n",
            invite.body
        );
        assert_eq!(invite.message().attribute("path"), path);
        invite.with("Content-Type", "multipart/mixed;boundary=b1").with("Require", "recipient-list-invite")
    };
    let focus = format!("<sip:conference-7@{}>;isfocus", ladder.core.address);
    chat(&mut ladder, group, &focus);
    let history = ladder.pf.path("var/history");
    ladder.pf.until("all is recorded", |_| objects(&history).len() == 4);
    let objects = objects(&history);
    let state = objects.iter().find(|object| object.contains("Application/group-state-object+xml")).expect("a group has a state");
    assert!(state.contains(&format!("lastfocussessionid=\"sip:conference-7@{}\"", ladder.core.address)), "{state}");
    assert!(state.contains("sip:carol@example.net") && state.contains("tel:+15551230002"), "{state}");
    let info = ends_with(&objects, "</session>\r\n");
    assert!(info.contains("<invited-participants>sip:carol@example.net;tel:+15551230002</invited-participants>"), "{info}");
    proves!("OSI-r7.b", "OSI-r7.c"; ladder.pf);
}

#[test]
fn a_large_message_is_recorded_for_its_recipient_too() {
    let mut ladder = crate::ladder::Terminating::in_folder(recorded("sip:bob@example.net", true), &["primary = true"], "");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.net", LARGE).terminating();
    let (arrived, from) = ladder.passes(&invite);
    let waiting = Waiting::new();
    ladder.accept(0, &arrived, from, waiting.address(), "recvonly");
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    let mut bob = waiting.accept(&format!("msrp://{}/client0;tcp", waiting.address()), arrived.attribute("path"));
    let mut alice = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    alice.send("msg1", b"kept for bob");
    assert_eq!(bob.message(), b"kept for bob");
    alice.expect("200");
    let history = ladder.pf.path("var/history");
    ladder.pf.until("it is recorded", |_| objects(&history).len() == 1);
    let object = objects(&history).remove(0);
    assert!(object.ends_with("\r\n\r\nkept for bob"), "{object}");
    has(&object, &[("From", ALICE), ("To", "sip:bob@example.net"), ("Message-Direction", "received")]);
    proves!("TLM-9.1"; ladder.pf);
}

#[test]
fn a_message_storage_server_gets_the_objects_also_those_of_a_time_when_it_was_away() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    let Some(dovecot) = Dovecot::place(place.path(), port, false) else { return };
    let Some(server) = dovecot.start() else { return };
    let store = format!("[store]\nhistory = \"{}\"", dovecot.uri());
    let mut ladder = Originating::in_folder(recorded(ALICE, true), &store);

    let invite = large(&mut ladder, b"in the store");
    let object = dovecot.wait_for(&ladder.pf, "in the store");
    let conversation = |invite: &Invite| format!("{ALICE}/Default/{}", invite.get("Conversation-ID").unwrap_or_default());
    assert_eq!(object.mailbox, conversation(&invite));
    assert!(object.flags.contains("\\Seen"), "{object:?}");
    object.has(&[("Message-Direction", "sent"), ("Subject", "lunch"), ("From", ALICE), ("To", BOB)]);

    // Away: the calls go as before, the objects wait on disk, and come when it is back; over a restart of ours too.
    server.kill();
    large(&mut ladder, b"while it was away");
    let wait_on_disk = |pf: &crate::proxy::Proxy, count: usize| {
        let queue = pf.path("var/spool/history");
        pf.until(&format!("{count} wait on disk"), |_| std::fs::read_dir(&queue).is_ok_and(|files| files.count() == 2 * count));
    };
    wait_on_disk(&ladder.pf, 1);
    large(&mut ladder, b"the second of them");
    wait_on_disk(&ladder.pf, 2);
    ladder.pf.until("the metric says so", |pf| pf.metric("cpm_pf_history_waiting", &["away"]) == 2.0);
    let mut ladder = ladder.again(&store);
    let _server = dovecot.start().expect("it was there");
    for body in ["while it was away", "the second of them"] {
        dovecot.wait_for(&ladder.pf, body);
    }
    wait_on_disk(&ladder.pf, 0);
    large(&mut ladder, b"as before");
    dovecot.wait_for(&ladder.pf, "as before");
}

#[test]
fn what_waits_for_one_mailbox_goes_into_a_real_server_with_one_append() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    let Some(dovecot) = Dovecot::place(place.path(), port, false) else { return };
    let mut ladder = Originating::in_folder(recorded(ALICE, true), &format!("[store]\nhistory = \"{}\"", dovecot.uri()));
    // The first that waits goes alone: it shows whether the server is there, and what it can do.
    large(&mut ladder, b"first");
    let waits = |pf: &crate::proxy::Proxy, count: f64| pf.metric("cpm_pf_history_waiting", &["away"]) == count;
    ladder.pf.until("it waits on disk", |pf| waits(pf, 1.0));
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    chat(&mut ladder, |invite| invite, &contact);
    // The session, and what both said in it.
    ladder.pf.until("all wait on disk", |pf| waits(pf, 4.0));
    let Some(_server) = dovecot.start() else { return };
    ladder.pf.until("nothing waits", |pf| waits(pf, 0.0));
    assert_eq!(dovecot.objects().len(), 4);
    ladder.pf.until("the server has written it down", |_| dovecot.appends().contains(&3));
    // The mailbox was not there, so that the three came once more.
    assert!(dovecot.appends().iter().all(|count| *count == 1 || *count == 3), "{:?}", dovecot.appends());
}

/// A Message Storage Server that lets everybody log in and says nothing to an APPEND. How many it was sent.
fn silent_server() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = listener.local_addr().expect("it is bound").port();
    let appends = Arc::new(AtomicUsize::new(0));
    let counted = appends.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let appends = counted.clone();
            std::thread::spawn(move || silent(stream, &appends));
        }
    });
    (port, appends)
}

fn silent(stream: TcpStream, appends: &AtomicUsize) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    out.write_all(b"* OK ready\r\n")?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let (tag, command) = line.split_once(' ').unwrap_or_default();
        let answer = match command.split(' ').next() {
            Some("LOGIN") => format!("{tag} OK in\r\n"),
            Some("CAPABILITY") => format!("* CAPABILITY IMAP4rev1 UIDPLUS\r\n{tag} OK done\r\n"),
            Some("LIST") => format!("* LIST (\\Noselect) \"/\" \"\"\r\n{tag} OK done\r\n"),
            Some("APPEND") => {
                appends.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            _ => format!("{tag} BAD what\r\n"),
        };
        out.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Everything here happens while not one object of the history has been taken: what waited for the history would wait for ever.
#[test]
fn a_message_storage_server_that_says_nothing_holds_up_no_chunk_and_no_call() {
    let (port, appends) = silent_server();
    let store = format!("[store]\nhistory = \"imap://cpm:x@127.0.0.1:{port}\"\n[policy]\nrecord_sessions = true");
    let mut relayed = crate::ladder::relayed_by(Originating::in_folder(recorded(ALICE, true), &store), SESSION);
    // The session's own object.
    relayed.ladder.pf.until("it was offered", |_| appends.load(Ordering::Relaxed) >= 1);
    for number in 0..20 {
        let (there, back) = (format!("there {number}"), format!("and back {number}"));
        relayed.a.send(&format!("there{number}"), there.as_bytes());
        assert_eq!(relayed.b.message(), there.as_bytes());
        relayed.a.expect("200");
        relayed.b.send(&format!("back{number}"), back.as_bytes());
        assert_eq!(relayed.a.message(), back.as_bytes());
        relayed.b.expect("200");
    }
    relayed.ladder.pf.until("all connections are busy with it", |_| appends.load(Ordering::Relaxed) >= 4);

    // Another call, which asks for a user's rules (that is where the answer to the history's questions would come from too).
    large(&mut relayed.ladder, b"as if nothing were");
    assert_eq!(relayed.ladder.pf.metric("cpm_pf_history_given_up_total", &[]), 0.0);
}

#[test]
fn a_group_session_leaves_its_state_and_all_that_was_said() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    let Some(dovecot) = Dovecot::place(place.path(), port, false) else { return };
    let Some(_server) = dovecot.start() else { return };
    let store = format!("[store]\nhistory = \"{}\"\n[policy]\nrecord_sessions = true\n", dovecot.uri());
    // No rule of alice's: the operator records.
    let mut ladder = Originating::new(&store);
    let list = "<?xml version=\"1.0\"?>\r\n<resource-lists xmlns=\"urn:ietf:params:xml:ns:resource-lists\"><list>\
        <entry uri=\"sip:carol@example.net\"><display-name>Carol &amp; Co</display-name></entry><entry uri=\"tel:+15551230009\"/></list></resource-lists>";
    let group = |invite: Invite| {
        let icsi = invite.get("P-Preferred-Service").unwrap_or_default().to_owned() + ".group";
        let accept = invite.get("Accept-Contact").unwrap_or_default().replace("cpm.session", "cpm.session.group");
        let mut invite = invite
            .with("P-Preferred-Service", &icsi)
            .with("Accept-Contact", &accept)
            .with("Content-Type", "multipart/mixed;boundary=b1")
            .with("Supported", "timer, recipient-list-invite");
        invite.body = format!(
            "--b1\r\nContent-Type: application/sdp\r\n\r\n{}\r\n--b1\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n{list}\r\n--b1--\r\n",
            invite.body
        );
        invite
    };
    let focus = format!("<sip:conference-7@{}>;isfocus", ladder.core.address);
    let invite = chat(&mut ladder, group, &focus);
    ladder.pf.until("all is recorded", |_| dovecot.objects().len() == 4);
    let objects = dovecot.objects();
    let ids = ["Conversation-ID", "Contribution-ID"].map(|name| invite.get(name).unwrap_or_default());
    for object in &objects {
        assert_eq!(object.mailbox, format!("{ALICE}/Default/{}/{}", ids[0], ids[1]));
        object.has(&[("Conversation-ID", ids[0]), ("Contribution-ID", ids[1])]);
    }
    let of = |content_type: &str| {
        let line = format!("Content-Type: {content_type}\r\n");
        objects.iter().find(|object| object.head.contains(&line)).unwrap_or_else(|| panic!("no {content_type} in {objects:?}"))
    };
    let state = of("Application/group-state-object+xml");
    let identity = format!("lastfocussessionid=\"sip:conference-7@{}\"", ladder.core.address);
    for text in [
        &*identity,
        "<participant name=\"Carol &amp; Co\" comm-addr=\"sip:carol@example.net\"/>",
        "comm-addr=\"tel:+15551230009\"",
    ] {
        assert!(state.body.contains(text), "no {text:?} in {state:?}");
    }
    let info = of("Application/X-CPM-Session");
    assert!(info.body.contains("<session-type>Group</session-type>") && info.body.contains("m=message"), "{info:?}");
    for (body, direction) in [("from alice", "sent"), ("from bob", "received")] {
        let said = objects.iter().find(|object| object.body == body).unwrap_or_else(|| panic!("no {body:?} in {objects:?}"));
        said.has(&[("Message-Direction", direction)]);
    }
    proves!("OSI-r7.b", "OSI-r7.c"; ladder.pf);
}

#[test]
fn a_message_storage_server_is_reached_over_tls_where_its_certificate_is_trusted() {
    let (place, elsewhere) = (tempfile::tempdir().expect("a temporary folder"), tempfile::tempdir().expect("a temporary folder"));
    let [port] = free();
    certificate(place.path(), &authority());
    certificate(elsewhere.path(), &authority());
    let Some(dovecot) = Dovecot::place(place.path(), port, true) else { return };
    let Some(_server) = dovecot.start() else { return };
    let store = format!("[store]\nhistory = \"{}\"", dovecot.uri());
    let trusting = |folder: &Path| [("SSL_CERT_FILE".to_owned(), folder.join("ca.pem").display().to_string())];

    // Another authority: nothing is said to it, the object waits.
    let mut ladder = Originating::in_world(recorded(ALICE, true), &store, &trusting(elsewhere.path()));
    large(&mut ladder, b"for whoever is trusted");
    ladder.pf.until("it waits", |pf| pf.metric("cpm_pf_history_waiting", &["away"]) == 1.0);
    ladder.pf.until("the log names the cause", |pf| pf.log().contains("certificate"));
    assert!(dovecot.objects().is_empty());

    let mut ladder = ladder.again_in(&store, &trusting(place.path()));
    dovecot.wait_for(&ladder.pf, "for whoever is trusted");
    large(&mut ladder, b"over TLS");
    dovecot.wait_for(&ladder.pf, "over TLS").has(&[("Message-Direction", "sent")]);

    // The password is nowhere to be read.
    assert!(!ladder.pf.log().contains(PASSWORD));
    let checked = check(&ladder.pf.path("cpm-pf.toml"));
    assert!(!checked.contains(PASSWORD) && checked.contains(&format!("imaps://cpm:***@127.0.0.1:{port}")), "{checked}");
}

/// What `check` says of a file.
fn check(file: &Path) -> String {
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_cpm-pf")).args(["check", "--config"]).arg(file).output();
    let run = run.expect("the program starts");
    String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr)
}

#[test]
fn a_password_in_the_configuration_is_told_to_nobody() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    let Some(dovecot) = Dovecot::place(place.path(), port, false) else { return };
    let Some(_server) = dovecot.start() else { return };
    // The server refuses the login, and says why.
    let wrong = "not-the-one";
    let uri = dovecot.uri().replace(PASSWORD, wrong);
    let mut ladder = Originating::in_folder(recorded(ALICE, true), &format!("[store]\nhistory = \"{uri}\""));
    large(&mut ladder, b"not yet");
    ladder.pf.until("it waits", |pf| pf.metric("cpm_pf_history_waiting", &["away"]) == 1.0);
    ladder.pf.until("the log tells of the login", |pf| pf.log().contains("login"));
    assert!(!ladder.pf.log().contains(wrong), "{}", ladder.pf.log());

    // Nor by a configuration that is wrong.
    for value in
        [format!("imap//cpm:{wrong}@host"), format!("imap://cpm:{wrong}@host\nport = 1"), format!("imap://cpm:{wrong}@:x")]
    {
        let file = place.path().join("wrong.toml");
        std::fs::write(&file, format!("[store]\nhistory = \"{value}\"\n")).expect("the folder can be written");
        let said = check(&file);
        assert!(!said.contains(wrong), "{said}");
        let (status, log) = crate::proxy::Proxy::fails(
            tempfile::tempdir().expect("a temporary folder"),
            "[store]\nhistory = \"imap://cpm:not-the-one@:x\"",
        );
        assert!(status.is_some_and(|status| status != 0) && !log.contains(wrong), "{status:?}: {log}");
    }
}

#[test]
fn a_copy_that_the_history_refuses_waits_on_disk_for_another_try() {
    // The user's folder cannot be: a file stands there.
    let folder = recorded(ALICE, true);
    put(folder.path(), &format!("var/history/{ALICE}"), "in the way");
    let mut ladder = Originating::in_folder(folder, "");
    large(&mut ladder, b"refused at first");
    ladder.pf.until("it waits", |pf| pf.metric("cpm_pf_history_waiting", &["refused"]) == 1.0);
    // Others do not wait for it, and nothing is left in the spool but the queue.
    let spooled = || {
        let spool = std::fs::read_dir(ladder.pf.path("var/spool")).into_iter().flatten().flatten();
        spool.filter(|entry| entry.path().is_file()).map(|entry| entry.file_name()).collect::<Vec<_>>()
    };
    assert!(spooled().iter().all(|name| name == "lock" || name == "node"), "{:?}", spooled());
    assert_eq!(ladder.pf.metric("cpm_pf_history_given_up_total", &[]), 0.0);

    // It outlives us, and is offered when its time has come: that is now, says its name.
    let folder = ladder.pf.kill();
    let queue = folder.path().join("var/spool/history");
    let record = std::fs::read_dir(&queue).into_iter().flatten().flatten().map(|entry| entry.path());
    let record = record.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "json")).expect("it is there");
    let name = record.file_name().and_then(|name| name.to_str()).expect("it is text").to_owned();
    let (_, rest) = name.split_once('-').expect("it begins with the time");
    std::fs::rename(&record, queue.join(format!("{:016x}-{rest}", 0))).expect("it can be renamed");
    std::fs::remove_file(folder.path().join(format!("var/history/{ALICE}"))).expect("it is there");
    let pf = crate::proxy::Proxy::start_in(folder, "");
    let history = pf.path("var/history");
    pf.until("it is recorded", |_| objects(&history).iter().any(|object| object.ends_with("refused at first")));
    pf.until("nothing waits", |pf| pf.metric("cpm_pf_history_waiting", &[]) == 0.0);
}
