//! A real Message Storage Server beside the program: Dovecot, and Python's imaplib as the ordinary client that reads it.

use crate::peers::Server;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The password of every user. No other text of a test contains it, so that it can be looked for.
pub const PASSWORD: &str = "open-sesame";

/// A server that keeps its mail in a folder, over restarts.
pub struct Dovecot {
    folder: PathBuf,
    port: u16,
    tls: bool,
}

/// One object, as an IMAP client sees it.
#[derive(Debug)]
pub struct Object {
    pub mailbox: String,
    pub flags: String,
    /// Header fields, each line with its end.
    pub head: String,
    pub body: String,
}

impl Object {
    #[track_caller]
    pub fn has(&self, fields: &[(&str, &str)]) {
        for (name, value) in fields {
            let line = format!("{name}: {value}\r\n");
            assert!(self.head.contains(&line), "no {line:?} in {self:?}");
        }
    }
}

impl Dovecot {
    /// A place for it. With TLS the folder has `cert.pem` and `key.pem`. None, with a printed line, where the test cannot be: it needs
    /// root to serve a mail folder of another user, and Python to read it.
    pub fn place(folder: &Path, port: u16, tls: bool) -> Option<Dovecot> {
        let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        let python = Command::new("python3").arg("--version").output().is_ok_and(|run| run.status.success());
        if !root || !python {
            println!("skipped: Dovecot needs root to serve a mail folder of another user, and python3 to be read");
            return None;
        }
        use std::os::unix::fs::PermissionsExt;
        for (path, mode) in [(folder.to_owned(), 0o755), (folder.join("mail"), 0o777), (folder.join("heard"), 0o777)] {
            std::fs::create_dir_all(&path).expect("the folder can be made");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        Some(Dovecot { folder: folder.to_owned(), port, tls })
    }

    /// None, with a printed line, where it is not installed.
    pub fn start(&self) -> Option<Server> {
        let (at, port) = (self.folder.display(), self.port);
        let (secure, plain, tls) = match self.tls {
            true => (format!("ssl = required\nssl_cert = <{at}/cert.pem\nssl_key = <{at}/key.pem\n"), 0, port),
            false => ("ssl = no\n".to_owned(), port, 0),
        };
        let config = format!(
            "base_dir = {at}/run\nstate_dir = {at}/state\nprotocols = imap\nlisten = 127.0.0.1\n{secure}disable_plaintext_auth = no\nlog_path = {at}/dovecot.log\nauth_mechanisms = plain login\n\
             mail_location = maildir:{at}/mail/%u:LAYOUT=fs\nmail_uid = nobody\nmail_gid = nogroup\nfirst_valid_uid = 1\n\
             passdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\nuserdb {{\n  driver = static\n  args = uid=nobody gid=nogroup home={at}/mail/%u\n}}\n\
             service imap-login {{\n  inet_listener imap {{\n    address = 127.0.0.1\n    port = {plain}\n  }}\n  inet_listener imaps {{\n    port = {tls}\n    ssl = yes\n  }}\n}}\n\
             protocol imap {{\n  rawlog_dir = {at}/heard\n}}\n\
             namespace inbox {{\n  inbox = yes\n  separator = /\n}}\n"
        );
        let file = self.folder.join("dovecot.conf");
        std::fs::write(&file, config).expect("the folder can be written");
        Server::start("dovecot", &["-F", "-c", &file.display().to_string()], &self.folder.join("out"), port)
    }

    /// How many messages each APPEND brought, as the server wrote down what it was sent. One that was answered with TRYCREATE and came
    /// again counts twice.
    pub fn appends(&self) -> Vec<usize> {
        let mut appends = Vec::new();
        for file in std::fs::read_dir(self.folder.join("heard")).into_iter().flatten().flatten() {
            if file.path().extension().is_none_or(|extension| extension != "in") {
                continue;
            }
            let heard = std::fs::read(file.path()).unwrap_or_default();
            // Each message is announced on a line of its own: flags, date, length.
            for line in String::from_utf8_lossy(&heard).lines().filter(|line| line.contains(" +0000\" {") && line.ends_with('}'))
            {
                match appends.last_mut() {
                    Some(count) if !line.contains(" APPEND ") => *count += 1,
                    _ => appends.push(1),
                }
            }
        }
        appends
    }

    /// `store.history` for it.
    pub fn uri(&self) -> String {
        format!("imap{}://cpm:{PASSWORD}@127.0.0.1:{}", if self.tls { "s" } else { "" }, self.port)
    }

    /// All objects. A server that was just started may turn the first client away: then there are none yet.
    pub fn objects(&self) -> Vec<Object> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/loopback/imap_objects.py");
        let mut python = Command::new("python3");
        python.args([script, &self.port.to_string(), PASSWORD]);
        if self.tls {
            python.arg(self.folder.join("ca.pem"));
        }
        let run = python.output().expect("python3 is there");
        if !run.status.success() {
            println!("{}", String::from_utf8_lossy(&run.stderr));
        }
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let object = |line: &str| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            Object {
                mailbox: text(&value["mailbox"]),
                flags: text(&value["flags"]),
                head: text(&value["head"]),
                body: text(&value["body"]),
            }
        };
        String::from_utf8_lossy(&run.stdout).lines().map(object).collect()
    }

    /// The object with that body, once it is there.
    #[track_caller]
    pub fn wait_for(&self, pf: &crate::proxy::Proxy, body: &str) -> Object {
        let mut found = None;
        pf.until(&format!("the server has {body:?}"), |_| {
            found = self.objects().into_iter().find(|object| object.body == body);
            found.is_some()
        });
        found.expect("it was found")
    }
}
