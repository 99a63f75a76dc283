//! The committed configuration of Kamailio as the SIP/IP core (`configs/kamailio/kamailio.cfg`, `docs/interconnect-kamailio.md`), played:
//! clients register with it over TCP, and a call goes caller, core, program (originating), core, program (terminating), core, client.

use crate::msrp::{Msrp, Waiting};
use crate::peers::{self, Server};
use crate::proxy::{PATIENCE, Proxy};
use crate::registrar::with_schema;
use crate::ue::{Invite, LARGE, Message, SESSION, Ue, answer_sdp};
use std::net::SocketAddr;
use std::time::Instant;

const ALICE: &str = "sip:alice@example.net";
const BOB: &str = "sip:bob@example.net";

struct Core {
    address: SocketAddr,
    pf: Proxy,
    _server: Server,
    _folder: tempfile::TempDir,
}

impl Core {
    /// None, with a printed line, where Kamailio is not installed.
    fn start() -> Option<Core> {
        let [port, own] = peers::free();
        let address = peers::at(port);
        let folder = with_schema("core.db")?;
        // Whom the core believes it knows by the address: the program is at 127.0.0.1, clients are at others of loopback's.
        let pf = Proxy::start(&format!(
            "[sip]\nlisten = [\"udp://127.0.0.1:{own}\", \"tcp://127.0.0.1:{own}\"]\ntrusted = [\"127.0.0.1/32\"]\ncore = \"sip:{address};lr\"\n[registrations]\nsource = \"reg-event\"\nregistrar = \"sip:{address};lr\"\n[policy]\ndelivery = \"reject\"\n[limits]\nsessions_per_originator = 1000\n"
        ));
        let run = folder.path().to_str().expect("a folder in UTF-8");
        let mut text = include_str!("../../configs/kamailio/kamailio.cfg").to_owned();
        for (key, stands, wanted) in [
            ("CORE_PORT", "5070", port.to_string()),
            ("PF_PORT", "5060", pf.udp.port().to_string()),
            ("DATABASE", "sqlite:///var/lib/kamailio/core.db", format!("sqlite:///{run}/core.db")),
        ] {
            let line = format!("#!substdef \"!{key}!{stands}!g\"");
            assert!(text.contains(&line), "{line} is to be replaced");
            text = text.replace(&line, &format!("#!substdef \"!{key}!{wanted}!g\""));
        }
        let file = folder.path().join("kamailio.cfg");
        std::fs::write(&file, text).expect("the folder can be written");
        let (file, pid) = (file.to_str().expect("UTF-8"), format!("{run}/pid"));
        let args = ["-f", file, "-m", "64", "-M", "8", "-DD", "-P", &pid, "-w", run];
        let server = Server::start("kamailio", &args, &folder.path().join("log"), port)?;
        Some(Core { address, pf, _server: server, _folder: folder })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self._folder.path().join("log")).unwrap_or_default()
    }

    fn register(&self, device: &mut Ue, user: &str, instance: &str, cseq: u32, expires: u32) {
        let address = device.address;
        device.send(self.address, &format!(
            "REGISTER sip:example.net SIP/2.0\nVia: SIP/2.0/TCP {address};branch=z9hG4bKr{}x{cseq};rport\nMax-Forwards: 70\nFrom: <{user}>;tag=r{cseq}\nTo: <{user}>\nCall-ID: register-{address}\nCSeq: {cseq} REGISTER\n\
             Contact: <sip:one@{address};transport=tcp>;+sip.instance=\"<urn:uuid:{instance}>\";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session,urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"\n\
             Supported: gruu, path\nUser-Agent: CPM-client/OMA2.2 device/1\nExpires: {expires}\nContent-Length: 0\n\n",
            address.port()
        ));
        device.next("200 for REGISTER", |message| message.status() == 200 && message.want("CSeq").ends_with("REGISTER"));
    }

    /// As the client sends it: through the core, with no word of who is served.
    fn invite(&self, alice: &Ue, service: &str) -> Invite {
        let invite = Invite::new(alice, BOB, service).without("P-Served-User").without("P-Asserted-Identity");
        invite.with("Route", &format!("<sip:{};lr;transport=tcp>", self.address))
    }

    /// Calls Bob until that device of his is invited: the program learns from Kamailio in its own time.
    fn call(&self, alice: &mut Ue, bob: &mut Ue, service: &str) -> Call {
        let until = Instant::now() + PATIENCE;
        loop {
            let invite = self.invite(alice, service);
            alice.send(self.address, &invite.text());
            let (mut arrived, mut answer) = (None, None);
            while arrived.is_none() && answer.as_ref().is_none_or(|answer: &Message| answer.status() == 200) {
                assert!(Instant::now() < until, "bob is not invited\n{}\n{}", self.log(), self.pf.log());
                arrived = bob.poll().filter(|(message, _)| message.method() == "INVITE");
                let of_call = |message: &Message| message.status() >= 200 && message.header("Call-ID") == invite.get("Call-ID");
                answer = answer.or(alice.poll().map(|(message, _)| message).filter(of_call));
            }
            if let Some((arrived, from)) = arrived {
                return Call { invite, arrived, from, ok: answer };
            }
            let refusal = answer.expect("the loop ended with one of the two");
            assert_eq!(refusal.status(), 480, "{refusal:?}\n{}", self.log());
            alice.ack(self.address, &invite.message(), &refusal);
        }
    }
}

/// A call that has come to Bob: with the answer that Alice may have already (`policy.session_answer = "early"`).
struct Call {
    invite: Invite,
    arrived: Message,
    from: SocketAddr,
    ok: Option<Message>,
}

/// Bob accepts and gets `body` from Alice. His INVITE, whence it came, and Alice's 200.
fn carries(core: &Core, alice: &mut Ue, bob: &mut Ue, service: &str, body: &[u8]) -> (Message, SocketAddr, Message) {
    let Call { invite, arrived, from, ok } = core.call(alice, bob, service);
    let direction = if service == LARGE { "recvonly" } else { "sendrecv" };
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "bob1", "passive", direction);
    let contact = format!("Contact: <sip:one@{};transport=tcp>\nSupported: timer\nContent-Type: application/sdp\n", bob.address);
    bob.answer(&arrived, from, "200 OK", &contact, &sdp);
    let ok = ok.unwrap_or_else(|| alice.expect_status(200));
    alice.ack(core.address, &invite.message(), &ok);
    bob.expect("ACK");
    let own = format!("msrp://{}/bob1;tcp", waiting.address());
    let mut b = waiting.accept(&own, arrived.attribute("path"));
    let mut a = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    a.send("there", body);
    assert!(b.message() == body, "octets out are octets in");
    a.expect("200");
    if service == SESSION {
        b.send("back", b"hello yourself");
        assert_eq!(a.message(), b"hello yourself");
    }
    (arrived, from, ok)
}

#[test]
fn calls_go_through_kamailio_and_both_sides_of_the_program() {
    let Some(core) = Core::start() else { return };
    let (mut alice, mut bob) = (Ue::tcp_at("alice", "127.0.0.2:0"), Ue::tcp_at("bob", "127.0.0.3:0"));
    core.register(&mut alice, ALICE, "00000000-0000-4000-8000-00000000000a", 1, 600);
    core.register(&mut bob, BOB, "00000000-0000-4000-8000-00000000000b", 1, 600);

    let body: Vec<u8> = (0..300_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let (arrived, _, ok) = carries(&core, &mut alice, &mut bob, LARGE, &body);
    assert_eq!(arrived.uri(), format!("sip:one@{};transport=tcp", bob.address));
    assert_eq!(arrived.want("P-Asserted-Identity"), format!("<{ALICE}>"));
    assert_eq!(arrived.want("P-Asserted-Service"), "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg");
    assert_eq!(arrived.header("P-Served-User"), None);
    // The caller hangs up.
    let bye = alice.in_dialog("BYE", &ok, 1);
    alice.send(core.address, &bye);
    alice.expect_status(200);
    let (bye, from) = bob.expect_from("BYE");
    bob.answer(&bye, from, "200 OK", "", "");

    let (arrived, from, _) = carries(&core, &mut alice, &mut bob, SESSION, b"hello");
    // The called party hangs up.
    let bye = bob.in_dialog_back("BYE", &arrived, 1);
    bob.send(from, &bye);
    bob.expect_status(200);
    let (bye, from) = alice.expect_from("BYE");
    alice.answer(&bye, from, "200 OK", "", "");

    core.pf.until("all is over", |pf| pf.metric("cpm_pf_dialogs", &[]) == 0.0 && pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0);
    for case in ["orig", "term"] {
        let calls = core.pf.metric("cpm_pf_invites_total", &[&format!("case=\"{case}"), "outcome=\"answered\""]);
        assert_eq!(calls, 2.0, "{case}: {}", core.pf.get("/metrics").1);
    }
}

#[test]
fn kamailio_believes_no_client_about_who_it_is() {
    let Some(core) = Core::start() else { return };
    let (mut alice, mut bob) = (Ue::tcp_at("alice", "127.0.0.2:0"), Ue::tcp_at("bob", "127.0.0.3:0"));
    core.register(&mut alice, ALICE, "00000000-0000-4000-8000-00000000000a", 1, 600);
    core.register(&mut bob, BOB, "00000000-0000-4000-8000-00000000000b", 1, 600);
    let Call { arrived, from, .. } = core.call(&mut alice, &mut bob, LARGE);
    bob.answer(&arrived, from, "486 Busy Here", "", "");
    alice.expect_status(480);

    // What Alice asserts is not what Bob reads, and the Route that cpm-pf would bring back leads her past nothing.
    let forged = core.invite(&alice, LARGE);
    let past = format!("<sip:term-done@{};lr>", core.address);
    let forged = forged.with("P-Asserted-Identity", "<sip:boss@example.net>").with("Route", &past);
    alice.send(core.address, &forged.text());
    let (arrived, from) = bob.expect_from("INVITE");
    assert_eq!(arrived.all("P-Asserted-Identity").collect::<Vec<_>>(), [format!("<{ALICE}>")]);
    assert_eq!(arrived.want("P-Asserted-Service"), "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg");
    bob.answer(&arrived, from, "486 Busy Here", "", "");
    alice.expect_status(480);

    // Who has not registered from where he calls is nobody.
    let mut mallory = Ue::tcp_at("mallory", "127.0.0.4:0");
    let stolen = core.invite(&mallory, LARGE);
    mallory.send(core.address, &stolen.text());
    mallory.expect_status(403);
}

#[test]
fn callers_hear_that_the_program_drains_or_is_gone() {
    let Some(mut core) = Core::start() else { return };
    let mut alice = Ue::tcp_at("alice", "127.0.0.2:0");
    core.register(&mut alice, ALICE, "00000000-0000-4000-8000-00000000000a", 1, 600);
    assert_eq!(core.pf.post("/drain").0, 202);
    let call = core.invite(&alice, LARGE);
    alice.send(core.address, &call.text());
    let refusal = alice.expect_status(503);
    refusal.want("Retry-After");
    alice.ack(core.address, &call.message(), &refusal);

    core.pf.signal("KILL");
    core.pf.wait();
    let call = core.invite(&alice, LARGE);
    alice.send(core.address, &call.text());
    alice.expect_status(504);
}
