//! CR 8.5 and 8.5.1 on the wire: what the rules of a user say is recorded, in files and in a real Message Storage Server.

use crate::ladder::Originating;
use crate::msrp::{Msrp, Waiting};
use crate::peers::{Server, at, free};
use crate::proves;
use crate::proxy::put;
use crate::ue::{Invite, LARGE, SESSION, answer_sdp};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

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
    let bye = ladder.alice.in_dialog("BYE", &ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    ladder.alice.expect_status(200);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
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
    let bye = ladder.alice.in_dialog("BYE", &ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    ladder.alice.expect_status(200);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
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
    assert!(info.contains("<session-type>1-1</session-type>") && info.contains("m=message"), "{info}");
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

/// Starts Dovecot with a mail folder of its own; any user, password "secret".
fn dovecot(folder: &Path, port: u16) -> Option<Server> {
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &Path| {
        std::fs::create_dir_all(path).expect("the folder can be made");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    };
    open(folder);
    open(&folder.join("mail"));
    let at = folder.display();
    let config = format!(
        "base_dir = {at}/run\nstate_dir = {at}/state\nprotocols = imap\nlisten = 127.0.0.1\nssl = no\ndisable_plaintext_auth = no\nlog_path = {at}/dovecot.log\nauth_mechanisms = plain login\n\
         mail_location = maildir:{at}/mail/%u:LAYOUT=fs\nmail_uid = nobody\nmail_gid = nogroup\nfirst_valid_uid = 1\n\
         passdb {{\n  driver = static\n  args = password=secret\n}}\nuserdb {{\n  driver = static\n  args = uid=nobody gid=nogroup home={at}/mail/%u\n}}\n\
         service imap-login {{\n  inet_listener imap {{\n    address = 127.0.0.1\n    port = {port}\n  }}\n  inet_listener imaps {{\n    port = 0\n  }}\n}}\n\
         namespace inbox {{\n  inbox = yes\n  separator = /\n}}\n"
    );
    std::fs::write(folder.join("dovecot.conf"), config).expect("the folder can be written");
    let file = folder.join("dovecot.conf").display().to_string();
    Server::start("dovecot", &["-F", "-c", &file], &folder.join("out"), port)
}

/// What the server answers to these commands after a login (RFC 3501).
fn imap(port: u16, commands: &[&str]) -> String {
    let mut stream = TcpStream::connect(at(port)).expect("the server listens");
    stream.set_read_timeout(Some(crate::proxy::PATIENCE)).expect("a socket has a time limit");
    let mut said = String::new();
    let (mut buffer, mut number) = ([0; 65_536], 0);
    for command in ["LOGIN cpm secret"].iter().chain(commands) {
        number += 1;
        write!(stream, "a{number} {command}\r\n").expect("the server reads");
        let end = format!("a{number} ");
        while !said.lines().any(|line| line.starts_with(&end)) {
            let read = stream.read(&mut buffer).expect("the server answers");
            assert!(read > 0, "the server closed after {command}: {said}");
            said += &String::from_utf8_lossy(&buffer[..read]);
        }
    }
    said
}

#[test]
fn a_message_storage_server_gets_the_objects_also_those_of_a_time_when_it_was_away() {
    let place = tempfile::tempdir().expect("a temporary folder");
    if nobody() {
        println!("skipped: Dovecot needs root to serve a mail folder of another user");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let [port] = free();
    let folder = place.path().join("dovecot");
    let Some(server) = dovecot(&folder, port) else { return };
    let store = format!("[store]\nhistory = \"imap://cpm:secret@127.0.0.1:{port}\"");
    let mut ladder = Originating::in_folder(recorded(ALICE, true), &store);
    let mailbox = |invite: &Invite| format!("{ALICE}/Default/{}", invite.get("Conversation-ID").unwrap_or_default());
    let fetch = |invite: &Invite| imap(port, &[&format!("EXAMINE \"{}\"", mailbox(invite)), "FETCH 1:* (UID FLAGS BODY.PEEK[])"]);
    let listed = |invite: &Invite, text: &str| {
        let listing = imap(port, &["LIST \"\" \"*\""]);
        listing.contains(&mailbox(invite)) && fetch(invite).contains(text)
    };

    let invite = large(&mut ladder, b"in the store");
    ladder.pf.until("the server has it", |_| listed(&invite, "in the store"));
    let said = fetch(&invite);
    assert!(
        said.contains("Message-Direction: sent\r\n") && said.contains("\\Seen") && said.contains("Subject: lunch\r\n"),
        "{said}"
    );
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let talk = chat(&mut ladder, |invite| invite, &contact);
    let session = format!("{}/{}", mailbox(&talk), talk.get("Contribution-ID").unwrap_or_default());
    ladder.pf.until("the server has the session", |_| {
        let listing = imap(port, &["LIST \"\" \"*\""]);
        listing.contains(&session) && {
            let said = imap(port, &[&format!("EXAMINE \"{session}\""), "FETCH 1:* (BODY.PEEK[])"]);
            ["from alice", "from bob", "Application/X-CPM-Session"].iter().all(|text| said.contains(text))
        }
    });

    // Away: the calls go as before, the objects wait on disk, and come when it is back; over a restart of ours too.
    server.kill();
    let first = large(&mut ladder, b"while it was away");
    let queue = ladder.pf.path("var/spool/history");
    ladder.pf.until("it waits on disk", |_| std::fs::read_dir(&queue).is_ok_and(|files| files.count() == 2));
    let second = large(&mut ladder, b"the second of them");
    ladder.pf.until("both wait on disk", |_| std::fs::read_dir(&queue).is_ok_and(|files| files.count() == 4));
    let mut ladder = ladder.again(&store);
    let _server = dovecot(&folder, port).expect("it was there");
    ladder.pf.until("the server has both", |_| listed(&first, "while it was away") && listed(&second, "the second of them"));
    ladder.pf.until("nothing waits any more", |_| std::fs::read_dir(queue_of(&ladder.pf)).is_ok_and(|files| files.count() == 0));
    let third = large(&mut ladder, b"as before");
    ladder.pf.until("the server has it", |_| listed(&third, "as before"));
}

fn queue_of(pf: &crate::proxy::Proxy) -> PathBuf {
    pf.path("var/spool/history")
}

/// Whether we are somebody other than root.
fn nobody() -> bool {
    std::process::Command::new("id").arg("-u").output().map_or(true, |id| id.stdout != b"0\n")
}
