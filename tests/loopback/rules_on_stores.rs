//! CR 8.3.1.2 step 6, 8.5.1 end to end on the stores of a carrier: what users' rules say becomes of a standalone message, with
//! JetStream for what waits and a Message Storage Server for what is stored and recorded.

use crate::deferral::{taken, waiting};
use crate::dovecot::Dovecot;
use crate::msrp::{Msrp, Waiting};
use crate::peers::free;
use crate::proves;
use crate::proxy::{Proxy, put, registered};
use crate::shared_store::{ELECTION, nats};
use crate::ue::{Invite, LARGE, Message, Ue, answer_sdp};
use std::net::SocketAddr;
use std::time::Instant;

const KEYS: &str = "";
/// Users whose rules have one action each, with the action.
const USERS: [(&str, &str); 6] = [
    ("quiet", "<oxe:allow-do-not-disturb>true</oxe:allow-do-not-disturb>"),
    ("later", "<oxe:allow-defer>true</oxe:allow-defer>"),
    ("stored", "<oxe:allow-store>true</oxe:allow-store>"),
    ("abroad", "<oxe:allow-interwork>true</oxe:allow-interwork>"),
    ("both", "<oxe:allow-deliver-and-interwork>true</oxe:allow-deliver-and-interwork>"),
    ("away", "<oxe:allow-forward uri=\"sip:desk@example.org\">true</oxe:allow-forward>"),
];

/// Everybody of this network, and the program with its stores.
struct Network {
    alice: Ue,
    /// The one client of all users.
    client: Ue,
    core: Ue,
    isf: Ue,
    pf: Proxy,
    config: String,
}

fn address(user: &str) -> String {
    format!("sip:{user}@example.net")
}

fn network(history: &str, deferred: u16) -> Network {
    let (alice, client, core, isf) = (Ue::udp("alice"), Ue::udp("client"), Ue::udp("core"), Ue::udp("isf"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut config = format!(
        "[sip]\nisf = \"sip:{};lr\"\n[store]\nhistory = \"{history}\"\ndeferred = \"nats://127.0.0.1:{deferred}\"\n",
        isf.address
    );
    for (user, action) in USERS {
        let rules = format!(
            r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
            <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list><oxe:media-list><oxe:standalone-message/></oxe:media-list></conditions>
            <actions>{action}<oxe:allow-offline-storage>true</oxe:allow-offline-storage></actions></rule></ruleset>"#
        );
        put(folder.path(), &format!("xdm/org.openmobilealliance.access-rules/users/{}/access-rules", address(user)), &rules);
        config += &registered(&address(user), &[(client.address, KEYS)]);
    }
    let pf = Proxy::start_in(folder, &config);
    Network { alice, client, core, isf, pf, config }
}

impl Network {
    /// Alice's INVITE to a user.
    fn invite(&mut self, user: &str, vary: impl Fn(Invite) -> Invite) -> Invite {
        let invite = vary(Invite::new(&self.alice, &address(user), LARGE).terminating());
        self.alice.send(self.pf.udp, &invite.text());
        invite
    }

    /// The answer, acknowledged, and alice's end of the MSRP session.
    fn connected(&mut self, invite: &Invite, status: u16) -> (Message, Msrp) {
        let ok = self.alice.expect_answer(invite, status);
        self.alice.ack(self.pf.udp, &invite.message(), &ok);
        let sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
        (ok, sender)
    }

    fn bye(&mut self, ok: &Message) {
        let bye = Message(self.alice.in_dialog("BYE", ok, 1));
        self.alice.send(self.pf.udp, &bye.0);
        let answer = self.alice.final_answer(&bye);
        assert_eq!(answer.status(), 200, "{answer:?}");
    }

    /// The program is the endpoint: nobody else hears of the message before it was answered.
    fn kept(&mut self, user: &str, status: u16, body: &[u8]) {
        let until = Instant::now() + ELECTION;
        let ok = loop {
            let invite = self.invite(user, |invite| invite);
            let (ok, mut sender) = self.connected(&invite, status);
            sender.wait_up_to(ELECTION);
            sender.send("msg1", body);
            match sender.next() {
                Some(answer) if answer.kind() == "200" => break ok,
                // The stores are not open yet.
                answer => assert!(Instant::now() < until, "{answer:?}; the log:\n{}", self.pf.log()),
            }
            let bye = Message(self.alice.in_dialog("BYE", &ok, 1));
            self.alice.send(self.pf.udp, &bye.0);
            self.alice.final_answer(&bye);
        };
        for ue in [&mut self.client, &mut self.core, &mut self.isf] {
            ue.nothing(self.pf.udp, "what we keep", |message| message.method() == "INVITE");
        }
        self.bye(&ok);
    }
}

/// Takes a message as its target.
#[track_caller]
fn takes(ue: &mut Ue, arrived: &Message, from: SocketAddr) -> Waiting {
    let waiting = Waiting::new();
    let contact = format!("Contact: <sip:x@{}>\nContent-Type: application/sdp\n", ue.address);
    ue.answer(arrived, from, "200 OK", &contact, &answer_sdp(waiting.address(), "t", "passive", "recvonly"));
    waiting
}

/// The target's end of the MSRP session.
fn accepts(waiting: &Waiting, arrived: &Message) -> Msrp {
    waiting.accept(&format!("msrp://{}/t;tcp", waiting.address()), arrived.attribute("path"))
}

#[test]
fn every_action_of_a_rule_is_carried_out_on_jetstream_and_dovecot() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let [nats_port, imap_port] = free();
    let Some(_nats) = nats(place.path(), nats_port, &[]) else { return };
    let Some(dovecot) = Dovecot::place(&place.path().join("dovecot"), imap_port, false) else { return };
    let Some(_dovecot) = dovecot.start() else { return };
    // Where a folder above cannot be passed the mail processes find nothing.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut net = network(&dovecot.uri(), nats_port);

    // Stored: in the Message Storage Server when the last chunk was answered, and in no other place.
    net.kept("stored", 200, b"to be stored");
    let object = dovecot.objects().into_iter().find(|object| object.body == "to be stored").expect("it was answered");
    object.has(&[("Message-Direction", "received"), ("From", "sip:alice@example.net"), ("To", "sip:stored@example.net")]);
    assert!(object.mailbox.starts_with("sip:stored@example.net/Default/"), "{object:?}");
    waiting(&net.pf, 0);
    proves!("TLM-6.d.ii.1", "TLM-6.d.ii.2"; net.pf);

    // Deferred, by either rule, though the client is there.
    net.kept("quiet", 202, b"do not disturb");
    net.kept("later", 200, b"not now");
    waiting(&net.pf, 2);

    // Interworked, and recorded.
    let invite = net.invite("abroad", |invite| invite);
    let (arrived, from) = net.isf.expect_call();
    let target = takes(&mut net.isf, &arrived, from);
    let (ok, mut sender) = net.connected(&invite, 200);
    sender.send("msg1", b"by another network");
    let mut receiver = accepts(&target, &arrived);
    assert_eq!(receiver.message(), b"by another network");
    sender.expect("200");
    dovecot.wait_for(&net.pf, "by another network").has(&[("Message-Direction", "received"), ("To", "sip:abroad@example.net")]);
    proves!("TLM-9.1"; net.pf);
    net.bye(&ok);
    let (bye, from) = net.isf.expect_bye(&arrived);
    net.isf.answer(&bye, from, "200 OK", "", "");

    // Delivered and interworked: the client takes it, the ISF does not.
    let invite = net.invite("both", |invite| invite);
    let (refused, isf) = net.isf.expect_call();
    net.isf.answer(&refused, isf, "480 Temporarily Unavailable", "", "");
    net.isf.expect("ACK");
    let (arrived, from) = net.client.expect_call();
    let target = takes(&mut net.client, &arrived, from);
    let (ok, mut sender) = net.connected(&invite, 200);
    sender.send("msg1", b"both ways");
    let mut receiver = accepts(&target, &arrived);
    assert_eq!(receiver.message(), b"both ways");
    sender.expect("200");
    dovecot.wait_for(&net.pf, "both ways");
    net.bye(&ok);
    let (bye, from) = net.client.expect_bye(&arrived);
    net.client.answer(&bye, from, "200 OK", "", "");

    // Forwarded: to the address of the rule, by the core, and to nobody here.
    let route = format!("<sip:{};lr>, <sip:{};lr>", net.pf.udp, net.core.address);
    net.invite("away", |invite| invite.with("Route", &route));
    let (arrived, from) = net.core.expect_call();
    assert_eq!(arrived.uri(), "sip:desk@example.org");
    net.core.answer(&arrived, from, "603 Decline", "", "");
    net.core.expect("ACK");
    net.alice.expect_status(603);

    // What waits in JetStream goes out when the users' client registers, and with another node's help too.
    let other = Proxy::start(&net.config);
    let mut bodies = [taken(&mut net.client).2, taken(&mut net.client).2];
    bodies.sort();
    assert_eq!(bodies, [&b"do not disturb"[..], b"not now"]);
    waiting(&net.pf, 0);
    waiting(&other, 0);
}
