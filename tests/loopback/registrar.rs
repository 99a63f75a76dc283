//! CR 8.1.1, 8.1.2, RFC 3680 on the wire: clients learnt from a registrar, Kamailio's and scripted ones that send documents as
//! operators' cores do.

use crate::peers::{self, Server};
use crate::proxy::{PATIENCE, Proxy};
use crate::ue::{Invite, LARGE, Message, Ue};
use std::process::{Command, Stdio};
use std::time::Instant;

const BOB: &str = "sip:bob@example.net";
const BOTH: &str = "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session,urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg";

fn learning(registrar: std::net::SocketAddr) -> Proxy {
    Proxy::start(&learning_config(registrar))
}

fn learning_config(registrar: std::net::SocketAddr) -> String {
    format!(
        "[registrations]\nsource = \"reg-event\"\nregistrar = \"sip:{registrar};lr\"\n[policy]\ndelivery = \"reject\"\n[limits]\nsessions_per_originator = 1000\n"
    )
}

/// Calls Bob; which of the devices were invited, and the URIs they were invited by. They all refuse.
fn invited(pf: &Proxy, alice: &mut Ue, devices: &mut [Ue]) -> Vec<Option<Message>> {
    let invite = Invite::new(alice, BOB, LARGE).terminating();
    alice.send(pf.udp, &invite.text());
    let call = invite.get("Call-ID").unwrap_or_default().to_owned();
    let mut arrived: Vec<Option<Message>> = devices.iter().map(|_| None).collect();
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "no final answer to a call of bob");
        for (device, arrived) in devices.iter_mut().zip(&mut arrived) {
            device.nothing(pf.udp, "nothing", |_| false);
            if device.kept().any(|message| message.method() == "INVITE") {
                let (message, from) = device.expect_from("INVITE");
                device.answer(&message, from, "486 Busy Here", "", "");
                device.expect("ACK");
                *arrived = Some(message);
            }
        }
        alice.nothing(pf.udp, "nothing", |_| false);
        let of_call = |message: &Message| message.status() >= 200 && message.header("Call-ID") == Some(&call);
        if alice.kept().any(of_call) {
            let refusal = alice.next("a refusal", of_call).0;
            assert!(matches!(refusal.status(), 480 | 486), "{refusal:?}");
            alice.ack(pf.udp, &invite.message(), &refusal);
            return arrived;
        }
    }
}

/// Calls Bob until exactly these devices are invited.
#[track_caller]
fn until_invited(pf: &Proxy, alice: &mut Ue, devices: &mut [Ue], wanted: &[bool]) -> Vec<Option<Message>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let arrived = invited(pf, alice, devices);
        if arrived.iter().map(Option::is_some).eq(wanted.iter().copied()) {
            return arrived;
        }
        let got: Vec<bool> = arrived.iter().map(Option::is_some).collect();
        assert!(Instant::now() < until, "{wanted:?} should be invited, {got:?} are; log:\n{}", pf.log());
    }
}

/// Whether Kamailio is there with the modules that tell who is registered; a printed line where not.
pub fn installed() -> bool {
    let found = ["/usr/sbin/kamailio", "/usr/bin/sqlite3", "/usr/lib/x86_64-linux-gnu/kamailio/modules/pua_reginfo.so"];
    let there = found.iter().all(|path| std::path::Path::new(path).exists());
    if !there {
        println!("skipped: kamailio with its presence modules is not installed");
    }
    there
}

/// A folder with a database of that name with Kamailio's tables of presence; none where it is not installed.
pub fn with_schema(name: &str) -> Option<tempfile::TempDir> {
    let folder = installed().then(|| tempfile::tempdir().expect("a temporary folder"))?;
    for table in ["standard", "presence"] {
        let script = std::fs::read(format!("/usr/share/kamailio/db_sqlite/{table}-create.sql")).expect("kamailio's schema");
        let mut child = Command::new("sqlite3")
            .arg(folder.path().join(name))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sqlite3 starts");
        std::io::Write::write_all(&mut child.stdin.take().expect("piped"), &script).expect("sqlite3 reads");
        assert!(child.wait().expect("sqlite3 ends").success());
    }
    Some(folder)
}

struct Kamailio {
    port: u16,
    _server: Server,
    _folder: tempfile::TempDir,
}

impl Kamailio {
    fn start(port: u16, pf: &Proxy) -> Kamailio {
        let folder = with_schema("registrar.db").expect("it is installed");
        let run = folder.path().to_str().expect("a folder in UTF-8");
        let text = include_str!("kamailio/registrar.cfg")
            .replace("PORT", &port.to_string())
            .replace("RUN", run)
            .replace("sip:PF", &format!("sip:{}", pf.udp));
        let file = folder.path().join("registrar.cfg");
        std::fs::write(&file, text).expect("the folder can be written");
        let (file, pid) = (file.to_str().expect("UTF-8"), format!("{run}/pid"));
        let args = ["-f", file, "-m", "64", "-M", "8", "-DD", "-P", &pid, "-w", run];
        let server = Server::start("kamailio", &args, &folder.path().join("log"), port).expect("it is installed");
        Kamailio { port, _server: server, _folder: folder }
    }

    fn address(&self) -> std::net::SocketAddr {
        peers::at(self.port)
    }
}

fn register(device: &mut Ue, registrar: std::net::SocketAddr, instance: &str, cseq: u32, expires: u32) {
    let address = device.address;
    let text = format!(
        "REGISTER sip:example.net SIP/2.0\nVia: SIP/2.0/UDP {address};branch=z9hG4bKr{}x{cseq};rport\nMax-Forwards: 70\nFrom: <{BOB}>;tag=r{cseq}\nTo: <{BOB}>\nCall-ID: register-{address}\nCSeq: {cseq} REGISTER\n\
         Contact: <sip:bob@{address}>;+sip.instance=\"<urn:gsma:imei:{instance}>\";+g.3gpp.icsi-ref=\"{BOTH}\"\nSupported: gruu, path\nUser-Agent: CPM-client/OMA2.2 device/1\nExpires: {expires}\nContent-Length: 0\n\n",
        address.port()
    );
    device.send(registrar, &text);
    device.next("200 for REGISTER", |message| message.status() == 200 && message.want("CSeq").ends_with("REGISTER"));
}

#[test]
fn devices_registered_at_kamailio_are_invited_until_they_leave() {
    if !installed() {
        return;
    }
    let [port] = peers::free();
    let pf = learning(peers::at(port));
    let kamailio = Kamailio::start(port, &pf);
    let mut alice = Ue::udp("alice");
    let mut devices = [Ue::udp("first"), Ue::udp("second")];
    assert!(invited(&pf, &mut alice, &mut devices).iter().all(Option::is_none), "nobody is registered");
    register(&mut devices[0], kamailio.address(), "90420156-025763-0", 1, 600);
    // One after the other: Kamailio 5.6 loses a change that comes while it takes up the subscription.
    until_invited(&pf, &mut alice, &mut devices, &[true, false]);
    register(&mut devices[1], kamailio.address(), "90420156-025763-1", 1, 600);
    let arrived = until_invited(&pf, &mut alice, &mut devices, &[true, true]);
    for (number, arrived) in arrived.iter().flatten().enumerate() {
        // Its documents have no GRUU: the address of record, and the device by its instance.
        assert_eq!(arrived.uri(), BOB);
        let instance = format!("+sip.instance=\"<urn:gsma:imei:90420156-025763-{number}>\"");
        assert!(arrived.all("Accept-Contact").any(|value| value.contains(&instance)), "{arrived:?}");
    }
    register(&mut devices[0], kamailio.address(), "90420156-025763-0", 2, 0);
    until_invited(&pf, &mut alice, &mut devices, &[false, true]);
    register(&mut devices[1], kamailio.address(), "90420156-025763-1", 2, 0);
    until_invited(&pf, &mut alice, &mut devices, &[false, false]);
    // And back.
    register(&mut devices[0], kamailio.address(), "90420156-025763-0", 3, 600);
    until_invited(&pf, &mut alice, &mut devices, &[true, false]);
}

/// A scripted registrar with one subscription of the program's.
struct Scripted {
    registrar: Ue,
    pf: Proxy,
    alice: Ue,
    devices: Vec<Ue>,
    subscribe: Message,
    cseq: u32,
}

impl Scripted {
    fn new(devices: usize) -> Scripted {
        let mut registrar = Ue::udp("registrar");
        let pf = learning(registrar.address);
        let text = format!(
            "REGISTER sip:{} SIP/2.0\nVia: SIP/2.0/UDP {};branch=z9hG4bKthird;rport\nMax-Forwards: 70\nFrom: <sip:scscf.example.net>;tag=s\nTo: <{BOB}>\nCall-ID: third-party\nCSeq: 1 REGISTER\nContact: <sip:{}>\nExpires: 600000\nContent-Length: 0\n\n",
            pf.udp, registrar.address, registrar.address
        );
        registrar.send(pf.udp, &text);
        assert_eq!(registrar.expect_status(200).want("Expires"), "600000");
        let subscribe = Self::subscribed(&mut registrar);
        let devices = (0..devices).map(|number| Ue::udp(&format!("device {number}"))).collect();
        Scripted { registrar, pf, alice: Ue::udp("alice"), devices, subscribe, cseq: 0 }
    }

    /// Takes the SUBSCRIBE.
    fn subscribed(registrar: &mut Ue) -> Message {
        let (subscribe, from) = registrar.expect_from("SUBSCRIBE");
        assert_eq!((subscribe.uri(), subscribe.want("Event"), subscribe.want("Accept")), (BOB, "reg", "application/reginfo+xml"));
        let contact = format!("Contact: <sip:{}>\nExpires: 600000\n", registrar.address);
        registrar.answer(&subscribe, from, "200 OK", &contact, "");
        subscribe
    }

    /// The program is killed, and started again on what it left behind; it subscribes anew by itself.
    fn killed(self) -> Scripted {
        let Scripted { mut registrar, pf, alice, devices, .. } = self;
        let pf = Proxy::start_in(pf.kill(), &learning_config(registrar.address));
        let subscribe = Self::subscribed(&mut registrar);
        Scripted { registrar, pf, alice, devices, subscribe, cseq: 0 }
    }

    /// Sends a NOTIFY; the status of its answer. `FIRST`, `SECOND` in the document stand for the devices' contacts.
    fn notify(&mut self, state: &str, document: &str) -> u16 {
        self.cseq += 1;
        let mut body = document.to_owned();
        for (name, device) in ["FIRST", "SECOND", "THIRD"].iter().zip(&self.devices) {
            body = body.replace(name, &format!("sip:bob@{}", device.address));
        }
        let text = format!(
            "NOTIFY {} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKnotify{};rport\r\nMax-Forwards: 70\r\nFrom: {};tag=t{}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} NOTIFY\r\nContact: <sip:{}>\r\nEvent: reg\r\nSubscription-State: {state}\r\nContent-Type: application/reginfo+xml\r\nContent-Length: {}\r\n\r\n{body}",
            self.subscribe.uri_in("Contact"),
            self.registrar.address,
            self.cseq,
            self.subscribe.want("To"),
            self.registrar.address.port(),
            self.subscribe.want("From"),
            self.subscribe.want("Call-ID"),
            self.cseq,
            self.registrar.address,
            body.len()
        );
        self.registrar.send_octets(self.pf.udp, text.as_bytes());
        let cseq = format!("{} NOTIFY", self.cseq);
        self.registrar
            .next("an answer to NOTIFY", |message| message.status() >= 200 && message.header("CSeq") == Some(&cseq))
            .0
            .status()
    }

    #[track_caller]
    fn invites(&mut self, wanted: &[bool]) -> Vec<Option<Message>> {
        let arrived = invited(&self.pf, &mut self.alice, &mut self.devices);
        assert_eq!(arrived.iter().map(Option::is_some).collect::<Vec<_>>(), wanted);
        arrived
    }
}

/// A document with one registration of Bob's.
fn document(version: u32, state: &str, contacts: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" version=\"{version}\" state=\"{state}\">\n\
         <registration aor=\"{BOB}\" id=\"a7\" state=\"active\">{contacts}</registration></reginfo>"
    )
}

fn contact(id: &str, uri: &str, state: &str, params: &str) -> String {
    format!("<contact id=\"{id}\" state=\"{state}\" event=\"registered\" expires=\"600\"><uri>{uri}</uri>{params}</contact>\n")
}

#[test]
fn feature_tags_are_read_however_they_are_written() {
    for value in [
        format!("\"{BOTH}\""),
        BOTH.to_owned(),
        "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg".to_owned(),
        "\"urn%3aurn-7%3a3gpp-service.ims.icsi.oma.cpm.session, urn%3aurn-7%3a3gpp-service.ims.icsi.oma.cpm.largemsg\""
            .to_owned(),
        "&quot;urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg&quot;".to_owned(),
        format!("\n      \"{BOTH}\"\n    "),
        "<![CDATA[\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"]]>".to_owned(),
    ] {
        let mut script = Scripted::new(2);
        let tag = format!(
            "<unknown-param name=\"+sip.instance\">\"&lt;urn:uuid:1&gt;\"</unknown-param><unknown-param name=\"+g.3gpp.smsip\"/><unknown-param name=\"audio\"></unknown-param><unknown-param name=\"+g.3gpp.icsi-ref\">{value}</unknown-param>"
        );
        let other = "<unknown-param name=\"+g.3gpp.icsi-ref\">\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\"</unknown-param>";
        let contacts = contact("c1", "FIRST", "active", &tag) + &contact("c2", "SECOND", "active", other);
        assert_eq!(script.notify("active;expires=600000", &document(0, "full", &contacts)), 200);
        script.invites(&[true, false]);
    }
}

const CAN: &str =
    "<unknown-param name=\"+g.3gpp.icsi-ref\">\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg\"</unknown-param>";

#[test]
fn a_device_under_several_addresses_is_invited_once_and_by_its_gruu() {
    let mut script = Scripted::new(1);
    let of = |number: u32| {
        contact(
            &format!("c{number}"),
            "FIRST",
            "active",
            &format!(
                "{CAN}<unknown-param name=\"+sip.instance\">\"&lt;urn:uuid:1&gt;\"</unknown-param><gr:pub-gruu uri=\"sip:bob@example.net;gr=one\"/>"
            ),
        )
    };
    let whole = document(0, "full", &of(1)).replace(
        "</reginfo>",
        &format!("<registration aor=\"tel:+15551230002\" id=\"a8\" state=\"active\">{}</registration></reginfo>", of(2)),
    );
    assert_eq!(script.notify("active", &whole), 200);
    let arrived = script.invites(&[true]);
    assert_eq!(arrived[0].as_ref().map(Message::uri), Some("sip:bob@example.net;gr=one"));
    // The call by telephone number reaches the same device.
    let invite = Invite::new(&script.alice, "tel:+15551230002", LARGE).terminating();
    script.alice.send(script.pf.udp, &invite.text());
    let (arrived, from) = script.devices[0].expect_from("INVITE");
    script.devices[0].answer(&arrived, from, "486 Busy Here", "", "");
    script.alice.expect_status(480);
}

#[test]
fn a_subscription_that_ends_with_a_document_leaves_what_it_says() {
    let mut script = Scripted::new(2);
    let two = contact("c1", "FIRST", "active", CAN) + &contact("c2", "SECOND", "active", CAN);
    assert_eq!(script.notify("active", &document(0, "full", &two)), 200);
    script.invites(&[true, true]);
    let gone = contact("c1", "FIRST", "terminated", CAN) + &contact("c2", "SECOND", "active", CAN);
    assert_eq!(script.notify("terminated;reason=noresource", &document(1, "full", &gone)), 200);
    script.invites(&[false, true]);
    // It is over: nothing more of it is taken.
    assert_eq!(script.notify("active", &document(2, "full", &two)), 481);
    script.invites(&[false, true]);
}

#[test]
fn documents_in_part_change_what_they_name() {
    let mut script = Scripted::new(3);
    let two = contact("c1", "FIRST", "active", CAN) + &contact("c2", "SECOND", "active", CAN);
    assert_eq!(script.notify("active", &document(10, "full", &two)), 200);
    script.invites(&[true, true, false]);
    assert_eq!(script.notify("active", &document(11, "partial", &contact("c3", "THIRD", "active", CAN))), 200);
    script.invites(&[true, true, true]);
    assert_eq!(script.notify("active", &document(12, "partial", &contact("c2", "SECOND", "terminated", ""))), 200);
    script.invites(&[true, false, true]);
    // Old, and so ignored.
    assert_eq!(script.notify("active", &document(9, "full", &two)), 200);
    script.invites(&[true, false, true]);
    // With a gap: taken, and the whole asked for.
    assert_eq!(script.notify("active", &document(20, "partial", &contact("c1", "FIRST", "terminated", ""))), 200);
    script.invites(&[false, false, true]);
    let refresh = script.registrar.expect("SUBSCRIBE");
    assert_eq!(refresh.want("Call-ID"), script.subscribe.want("Call-ID"));
    let over = document(21, "partial", "").replace("id=\"a7\" state=\"active\"", "id=\"a7\" state=\"terminated\"");
    assert_eq!(script.notify("active", &over), 200);
    script.invites(&[false, false, false]);
}

#[test]
fn odd_documents_are_read_and_broken_ones_refused() {
    let mut script = Scripted::new(1);
    let whole = document(0, "full", &contact("c1", "FIRST", "active", CAN));
    // Prefixes, a comment, elements of others.
    let odd = whole
        .replace("<reginfo xmlns=", "<!-- from the core --><r:reginfo xmlns:x=\"urn:x\" xmlns:r=")
        .replace("</reginfo>", "</r:reginfo>")
        .replace("<registration", "<r:registration")
        .replace("</registration", "</r:registration")
        .replace("<contact", "<x:extra>y</x:extra><r:contact")
        .replace("</contact", "</r:contact")
        .replace("<uri>", "<r:uri>\n  ")
        .replace("</uri>", "\n</r:uri>")
        .replace("<unknown-param", "<r:unknown-param")
        .replace("</unknown-param", "</r:unknown-param");
    assert_eq!(script.notify("active;expires=600", &odd), 200);
    script.invites(&[true]);
    let broken = [
        "<reginfo".to_owned(),
        "not xml".to_owned(),
        whole.replace("version=\"0\"", "version=\"none\""),
        whole
            .replace(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
                "<!DOCTYPE r [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>",
            )
            .replace(BOB, "&b;"),
        "<a>".repeat(10_000),
    ];
    for document in broken {
        assert_eq!(script.notify("active", &document), 400, "{}", &document[..document.len().min(100)]);
    }
    script.invites(&[true]);
    assert_eq!(script.pf.get("/healthz").0, 200);
}

#[test]
fn who_was_registered_is_found_again_after_a_kill() {
    let mut scripted = Scripted::new(1);
    let active = contact("1", "FIRST", "active", &format!("<unknown-param name=\"+g.3gpp.icsi-ref\">\"{BOTH}\"</unknown-param>"));
    let full = document(0, "full", &active);
    assert_eq!(scripted.notify("active;expires=600000", &full), 200);
    scripted.invites(&[true]);
    let first = scripted.subscribe.want("Call-ID").to_owned();
    let mut scripted = scripted.killed();
    assert_ne!(scripted.subscribe.want("Call-ID"), first, "the dialog of before is gone");
    scripted.invites(&[false]);
    assert_eq!(scripted.notify("active;expires=600000", &full), 200);
    scripted.invites(&[true]);
    // The subscription is over since nobody is registered: the next start does not ask again.
    let nobody = document(1, "full", &contact("1", "FIRST", "terminated", ""));
    assert_eq!(scripted.notify("terminated;reason=noresource", &nobody), 200);
    scripted.invites(&[false]);
    let Scripted { mut registrar, pf, mut alice, mut devices, .. } = scripted;
    let pf = Proxy::start_in(pf.stop(), &learning_config(registrar.address));
    assert!(invited(&pf, &mut alice, &mut devices).iter().all(Option::is_none));
    registrar.nothing(pf.udp, "a SUBSCRIBE", |message| message.method() == "SUBSCRIBE");
}
