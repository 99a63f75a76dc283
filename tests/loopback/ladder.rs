//! What most ladders begin with: a caller, a core or client on the far side, and the INVITE between them.

use crate::proxy::{Proxy, registered};
use crate::ue::{Invite, Message, Ue, answer_sdp};
use std::net::SocketAddr;

/// Fails unless the program went through every clause named while the block ran or before. Debug builds of the program tell
/// (`GET /clauses`); the ids stand first so that the traceability test finds them.
#[macro_export]
macro_rules! proves {
    ($($id:literal),+ ; $pf:expr) => {{
        let (_, seen) = $pf.get("/clauses");
        $( assert!(seen.lines().any(|line| line == $id), "the test claims to prove {} but the program did not go through it; it went through\n{seen}", $id); )+
    }};
}

/// Alice behind the proxy, the core beyond it.
pub struct Originating {
    pub alice: Ue,
    pub core: Ue,
    pub isf: Ue,
    pub pf: Proxy,
}

impl Originating {
    pub fn new(more: &str) -> Self {
        Self::in_folder(tempfile::tempdir().expect("a temporary folder"), more)
    }

    pub fn in_folder(folder: tempfile::TempDir, more: &str) -> Self {
        Self::in_world(folder, more, &[])
    }

    /// The same with environment variables for the program.
    pub fn in_world(folder: tempfile::TempDir, more: &str, environment: &[(String, String)]) -> Self {
        let (alice, core, isf) = (Ue::udp("alice"), Ue::udp("core"), Ue::udp("isf"));
        let pf = Proxy::start_with(folder, &Self::config(more, &core, &isf), environment);
        Self { alice, core, isf, pf }
    }

    /// With a program that somebody else starts, with this configuration.
    pub fn by(more: &str, start: impl FnOnce(&str) -> Proxy) -> Self {
        let (alice, core, isf) = (Ue::udp("alice"), Ue::udp("core"), Ue::udp("isf"));
        let pf = start(&Self::config(more, &core, &isf));
        Self { alice, core, isf, pf }
    }

    /// The same people with the program started anew.
    pub fn again(self, more: &str) -> Self {
        self.again_in(more, &[])
    }

    pub fn again_in(self, more: &str, environment: &[(String, String)]) -> Self {
        let Self { alice, core, isf, pf } = self;
        let pf = Proxy::start_with(pf.stop(), &Self::config(more, &core, &isf), environment);
        Self { alice, core, isf, pf }
    }

    fn config(more: &str, core: &Ue, isf: &Ue) -> String {
        format!("{more}\n---\n[sip]\ncore = \"sip:{};lr\"\nisf = \"sip:{};lr\"\n", core.address, isf.address)
    }

    /// Sends the INVITE; what the core gets of it.
    #[track_caller]
    pub fn passes(&mut self, invite: &Invite) -> (Message, SocketAddr) {
        self.alice.send(self.pf.udp, &invite.text());
        self.core.expect_call()
    }

    /// Sends the INVITE; the final answer of that status, with nothing sent on.
    #[track_caller]
    pub fn refused(&mut self, invite: &Invite, status: u16) -> Message {
        self.alice.send(self.pf.udp, &invite.text());
        let refusal = self.alice.expect_answer(invite, status);
        self.alice.ack(self.pf.udp, &invite.message(), &refusal);
        self.core.nothing(self.pf.udp, "a request that was refused", |message| message.method() == "INVITE");
        self.isf.nothing(self.pf.udp, "a request that was refused", |message| message.method() == "INVITE");
        // Media cores count on their own: those of the sessions that stand may come late.
        let standing = |pf: &Proxy| {
            let sessions: serde_json::Value = serde_json::from_str(&pf.get("/sessions").1).expect("JSON");
            sessions.as_array().map_or(0, Vec::len) as f64
        };
        self.pf.until("no MSRP session for a refused INVITE", |pf| pf.metric("cpm_pf_msrp_sessions", &[]) == standing(pf));
        refusal
    }

    /// As [`Originating::refused`], while other sessions stand.
    #[track_caller]
    pub fn refused_beside(&mut self, invite: &Invite, status: u16) -> Message {
        self.alice.send(self.pf.udp, &invite.text());
        let refusal = self.alice.expect_answer(invite, status);
        self.alice.ack(self.pf.udp, &invite.message(), &refusal);
        self.core.nothing(self.pf.udp, "a request that was refused", |message| message.method() == "INVITE");
        refusal
    }

    /// Both sides up: the INVITE the core got, and the 200 alice got.
    #[track_caller]
    pub fn established(&mut self, invite: &Invite, contact: &str, sdp: &str) -> (Message, Message) {
        let (arrived, from) = self.passes(invite);
        self.core.answer(
            &arrived,
            from,
            "200 OK",
            &format!("Contact: {contact}\nSupported: timer\nServer: other/1.0\nContent-Type: application/sdp\n"),
            sdp,
        );
        let ok = self.alice.expect_answer(invite, 200);
        self.alice.ack(self.pf.udp, &invite.message(), &ok);
        self.core.expect("ACK");
        (arrived, ok)
    }

    /// Alice ends the session that her `ok` began; the core hears it. Hers is the first request in the dialog.
    #[track_caller]
    pub fn hang_up(&mut self, ok: &Message) {
        let bye = self.alice.in_dialog("BYE", ok, 1);
        self.alice.send(self.pf.udp, &bye);
        self.alice.expect_status(200);
        let (bye, from) = self.core.expect_from("BYE");
        self.core.answer(&bye, from, "200 OK", "", "");
    }
}

/// Alice beyond the proxy, bob's clients registered behind it.
pub struct Terminating {
    pub alice: Ue,
    pub clients: Vec<Ue>,
    pub isf: Ue,
    pub pf: Proxy,
}

impl Terminating {
    /// `keys`: further keys of each registered client.
    pub fn new(keys: &[&str], more: &str) -> Self {
        Self::in_folder(tempfile::tempdir().expect("a temporary folder"), keys, more)
    }

    pub fn in_folder(folder: tempfile::TempDir, keys: &[&str], more: &str) -> Self {
        let (alice, isf) = (Ue::udp("alice"), Ue::udp("isf"));
        let clients: Vec<Ue> = (0..keys.len()).map(|n| Ue::udp(&format!("client {n}"))).collect();
        let list: Vec<(SocketAddr, &str)> = clients.iter().map(|ue| ue.address).zip(keys.iter().copied()).collect();
        let registered = registered("sip:bob@example.net", &list);
        let pf = Proxy::start_in(folder, &format!("{more}\n---\n[sip]\nisf = \"sip:{};lr\"\n{registered}", isf.address));
        Self { alice, clients, isf, pf }
    }

    /// Alice's INVITE for bob, as his core hands it to us.
    pub fn call(&self, service: &str) -> Invite {
        Invite::new(&self.alice, "sip:bob@example.net", service).terminating()
    }

    /// Sends the INVITE; what the first client gets of it.
    #[track_caller]
    pub fn passes(&mut self, invite: &Invite) -> (Message, SocketAddr) {
        self.alice.send(self.pf.udp, &invite.text());
        self.clients[0].expect_call()
    }

    /// Sends the INVITE; the final answer of that status, with nothing sent on.
    #[track_caller]
    pub fn refused(&mut self, invite: &Invite, status: u16) -> Message {
        self.alice.send(self.pf.udp, &invite.text());
        let refusal = self.alice.expect_answer(invite, status);
        self.alice.ack(self.pf.udp, &invite.message(), &refusal);
        self.quiet();
        refusal
    }

    /// Nobody on the far side got an INVITE.
    #[track_caller]
    pub fn quiet(&mut self) {
        for ue in self.clients.iter_mut().chain([&mut self.isf]) {
            ue.nothing(self.pf.udp, "a request that was refused", |message| message.method() == "INVITE");
        }
    }

    /// The client's 200.
    pub fn accept(&mut self, client: usize, arrived: &Message, from: SocketAddr, msrp: SocketAddr, direction: &str) {
        let sdp = answer_sdp(msrp, &format!("client{client}"), "passive", direction);
        let contact = format!(
            "Contact: <sip:bob@{}>\nSupported: timer\nServer: client/1.0\nContent-Type: application/sdp\n",
            self.clients[client].address
        );
        self.clients[client].answer(arrived, from, "200 OK", &contact, &sdp);
    }
}

/// The Warning header of a refusal, to the letter.
#[track_caller]
pub fn warned(refusal: &Message, text: &str) {
    assert_eq!(refusal.want("Warning"), format!("399 127.0.0.1 \"{text}\""));
}

/// A relayed session with both MSRP ends connected.
pub struct Relayed {
    pub ladder: Originating,
    pub a: crate::msrp::Msrp,
    pub b: crate::msrp::Msrp,
    pub ok: Message,
    pub invite: Invite,
    pub waiting: crate::msrp::Waiting,
}

/// A session (or large message) from alice to the core, the called side passive.
pub fn relayed(service: &str, more: &str) -> Relayed {
    relayed_by(Originating::new(more), service)
}

/// The same through a proxy that runs already.
pub fn relayed_by(mut ladder: Originating, service: &str) -> Relayed {
    let waiting = crate::msrp::Waiting::new();
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", service);
    let direction = if service == crate::ue::LARGE { "recvonly" } else { "sendrecv" };
    let contact = format!("<sip:bob@{}>", ladder.core.address);
    let (arrived, ok) = ladder.established(&invite, &contact, &answer_sdp(waiting.address(), "bob", "passive", direction));
    let mut b = waiting.accept(&format!("msrp://{}/bob;tcp", waiting.address()), arrived.attribute("path"));
    // RFC 4975 §5.4: whoever connects speaks first.
    let opening = b.expect("SEND-EMPTY");
    b.answer(&opening, "200 OK");
    let a = crate::msrp::Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    Relayed { ladder, a, b, ok, invite, waiting }
}
