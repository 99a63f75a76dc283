//! RFC 3501, 3502, 4315, 7888: an IMAP server on loopback for the tests of this folder. It has mailboxes, takes several messages in one
//! APPEND, and writes down what it is told.

use super::imap_server::Server;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// The first UID that it gives; they go on over all mailboxes.
pub(super) const FIRST_UID: u32 = 17;

/// How a server behaves.
#[derive(Clone, Copy)]
pub(super) struct Manners {
    /// Beside IMAP4rev1.
    pub capabilities: &'static str,
    /// The text of the NO to every APPEND; none: only those with a message that contains "bad" are refused.
    pub refuses: &'static str,
    /// Says nothing to an APPEND, ever.
    pub hangs: bool,
}

impl Manners {
    pub const fn with(capabilities: &'static str) -> Self {
        Self { capabilities, refuses: "", hangs: false }
    }
}

/// What a server was told.
#[derive(Default)]
pub(super) struct Heard {
    /// Without their tags.
    pub commands: Vec<String>,
    /// Made by CREATE.
    pub mailboxes: Vec<String>,
    /// The messages of each APPEND that was carried out.
    pub appends: Vec<Vec<String>>,
    /// The next APPEND is carried out, and its answer is the end of the connection.
    break_off: bool,
}

impl Heard {
    /// Commands that begin so.
    pub fn count(&self, begin: &str) -> usize {
        self.commands.iter().filter(|command| command.starts_with(begin)).count()
    }

    /// All messages, in the order in which they came.
    pub fn messages(&self) -> Vec<String> {
        self.appends.concat()
    }
}

/// A running server; it ends with the process.
pub(super) struct Double {
    port: u16,
    heard: Arc<Mutex<Heard>>,
}

impl Double {
    pub fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Heard>>::default());
        let shared = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = shared.clone();
                std::thread::spawn(move || Connection::new(stream, manners, heard).serve());
            }
        });
        Self { port, heard }
    }

    pub fn server(&self) -> Server {
        server_at(self.port)
    }

    /// Lets the connection of the next APPEND end before its answer.
    pub fn break_off(&self) {
        self.heard().break_off = true;
    }

    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap()
    }
}

/// A server that is not there, as long as the socket lives: its port is taken, and nobody listens.
pub(super) fn nobody() -> (socket2::Socket, Server) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, server_at(port))
}

/// A server at a port of this machine.
pub(super) fn server_at(port: u16) -> Server {
    Server::parse(&format!("imap://cpm:secret@127.0.0.1:{port}")).unwrap()
}

struct Connection {
    lines: BufReader<TcpStream>,
    out: TcpStream,
    manners: Manners,
    heard: Arc<Mutex<Heard>>,
}

impl Connection {
    fn new(stream: TcpStream, manners: Manners, heard: Arc<Mutex<Heard>>) -> Self {
        let out = stream.try_clone().unwrap();
        Self { lines: BufReader::new(stream), out, manners, heard }
    }

    /// Until the client goes, or says something that is no IMAP.
    fn serve(mut self) -> Option<()> {
        self.out.write_all(b"* OK ready\r\n").ok()?;
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let (tag, command) = line.trim_end().split_once(' ')?;
            self.heard.lock().unwrap().commands.push(command.to_owned());
            let name = command.split('"').nth(1).unwrap_or_default();
            let answer = match command.split(' ').next()?.to_ascii_uppercase().as_str() {
                "CAPABILITY" => format!("* CAPABILITY IMAP4rev1 {}\r\n{tag} OK done\r\n", self.manners.capabilities),
                "LIST" => format!("* LIST (\\Noselect) \".\" \"\"\r\n{tag} OK done\r\n"),
                "CREATE" => {
                    self.heard.lock().unwrap().mailboxes.push(name.to_owned());
                    format!("{tag} OK created\r\n")
                }
                "SELECT" | "EXAMINE" if !self.knows(name) => format!("{tag} NO no such mailbox\r\n"),
                "SELECT" | "EXAMINE" => format!("* 1 EXISTS\r\n{tag} OK selected\r\n"),
                "UID" if command.starts_with("UID SEARCH") => format!("* SEARCH{}\r\n{tag} OK done\r\n", self.search(name)),
                "UID" => format!("{}{tag} OK done\r\n", self.header(command)?),
                "APPEND" => format!("{tag} {}\r\n", self.append(name, command)?),
                _ => format!("{tag} OK done\r\n"),
            };
            self.out.write_all(answer.as_bytes()).ok()?;
        }
    }

    fn append(&mut self, mailbox: &str, command: &str) -> Option<String> {
        if self.manners.hangs {
            // Until the client goes.
            std::io::copy(&mut self.lines, &mut std::io::sink()).ok()?;
            return None;
        }
        let refusal = match (self.manners.refuses, self.knows(mailbox)) {
            ("", true) => None,
            ("", false) => Some("NO [TRYCREATE] no such mailbox".to_owned()),
            (text, _) => Some(format!("NO {text}")),
        };
        // What is sent without being asked for has to be read all the same.
        if refusal.is_some() && !command.ends_with("+}") {
            return refusal;
        }
        let messages = self.literals(command.to_owned())?;
        if refusal.is_some() {
            return refusal;
        }
        // A server takes all messages of an APPEND or none (RFC 3502).
        if messages.iter().any(|message| message.contains("bad")) {
            return Some("NO there is something wrong with one of them".to_owned());
        }
        let mut heard = self.heard.lock().unwrap();
        let first = FIRST_UID as usize + heard.messages().len();
        let uids = match messages.len() {
            0 | 1 => first.to_string(),
            several => format!("{first}:{}", first + several - 1),
        };
        heard.appends.push(messages);
        if std::mem::take(&mut heard.break_off) {
            return None;
        }
        drop(heard);
        let code =
            if self.manners.capabilities.contains("UIDPLUS") { format!("[APPENDUID 1699 {uids}] ") } else { String::new() };
        Some(format!("OK {code}done"))
    }

    fn knows(&self, mailbox: &str) -> bool {
        self.heard.lock().unwrap().mailboxes.iter().any(|known| known == mailbox)
    }

    /// UIDs of messages whose IMDN-Message-ID contains that text.
    fn search(&self, text: &str) -> String {
        let messages = self.heard.lock().unwrap().messages();
        let contains = |message: &String| {
            message.lines().any(|line| line.strip_prefix("IMDN-Message-ID: ").is_some_and(|value| value.contains(text)))
        };
        let uids = (FIRST_UID..).zip(messages).filter(|(_, message)| contains(message));
        uids.map(|(uid, _)| format!(" {uid}")).collect()
    }

    /// The header of the message that "UID FETCH 17 …" names.
    fn header(&self, command: &str) -> Option<String> {
        let uid: u32 = command.split(' ').nth(2)?.parse().ok()?;
        let messages = self.heard.lock().unwrap().messages();
        let message = messages.get((uid - FIRST_UID) as usize)?;
        let head = &message[..message.find("\r\n\r\n")? + 4];
        let (size, length) = (message.len(), head.len());
        Some(format!("* 1 FETCH (UID {uid} RFC822.SIZE {size} BODY[HEADER] {{{length}}}\r\n{head})\r\n"))
    }

    fn literals(&mut self, mut line: String) -> Option<Vec<String>> {
        let mut messages = Vec::new();
        while let Some((_, size)) = line.trim_end().strip_suffix('}').and_then(|line| line.rsplit_once('{')) {
            if !size.ends_with('+') {
                self.out.write_all(b"+ go on\r\n").ok()?;
            }
            let mut literal = vec![0; size.trim_end_matches('+').parse().ok()?];
            self.lines.read_exact(&mut literal).ok()?;
            messages.push(String::from_utf8(literal).ok()?);
            line.clear();
            self.lines.read_line(&mut line).ok()?;
        }
        Some(messages)
    }
}
