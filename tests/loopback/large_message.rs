//! A Large Message Mode message through the program, originating and terminating.

use crate::msrp::{Msrp, Waiting};
use crate::proxy::{Proxy, registered};
use crate::ue::{Invite, LARGE, Ue, answer_sdp};

/// Alice's message goes out to the core; the called side is passive or active.
fn originating(setup: &str) {
    let (mut alice, mut core) = (Ue::udp("alice"), Ue::udp("core"));
    let pf = Proxy::start(&format!("[sip]\ncore = \"sip:{};lr\"", core.address));
    let invite = Invite::new(&alice, "sip:bob@example.org", LARGE);
    alice.send(pf.udp, &invite.text());

    let (arrived, from) = core.expect_from("INVITE");
    assert_eq!(arrived.uri(), "sip:bob@example.org");
    assert_eq!((arrived.attribute("setup"), arrived.attributes("sendonly").len()), ("actpass", 1));
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "bob1", setup, "recvonly");
    core.answer(&arrived, from, "200 OK", &format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", core.address), &sdp);
    core.expect("ACK");

    let ok = alice.expect_status(200);
    assert_eq!((ok.attribute("setup"), ok.attributes("recvonly").len()), ("passive", 1));
    alice.ack(pf.udp, &invite.message(), &ok);

    let own = format!("msrp://{}/bob1;tcp", waiting.address());
    let mut bob = match setup {
        "passive" => waiting.accept(&own, arrived.attribute("path")),
        _ => {
            let mut bob = Msrp::connect(arrived.msrp_address(), &own, arrived.attribute("path"));
            bob.open();
            bob
        }
    };
    let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    let body: Vec<u8> = (0..300_000u32).map(|n| (n * 7 % 251) as u8).collect();
    sender.send("msg1", &body);
    if setup != "passive" {
        bob.expect("200");
    }
    assert!(bob.message() == body, "octets out are octets in");
    sender.expect("200");

    let bye = alice.in_dialog("BYE", &ok, 1);
    alice.send(pf.udp, &bye);
    alice.expect_status(200);
    let (bye, from) = core.expect_from("BYE");
    core.answer(&bye, from, "200 OK", "", "");
    pf.until("no session is left", |pf| pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0 && pf.metric("cpm_pf_dialogs", &[]) == 0.0);
}

#[test]
fn an_originating_message_reaches_a_passive_called_party() {
    originating("passive");
}

#[test]
fn an_originating_message_reaches_an_active_called_party() {
    originating("active");
}

#[test]
fn a_terminating_message_reaches_the_registered_client() {
    let (mut alice, mut bob) = (Ue::udp("alice"), Ue::udp("bob"));
    let pf = Proxy::start(&registered("sip:bob@example.net", &[(bob.address, "")]));
    let invite = Invite::new(&alice, "sip:bob@example.net", LARGE).terminating();
    alice.send(pf.udp, &invite.text());

    let (arrived, from) = bob.expect_from("INVITE");
    let waiting = Waiting::new();
    let sdp = answer_sdp(waiting.address(), "bob1", "passive", "recvonly");
    bob.answer(&arrived, from, "200 OK", &format!("Contact: <sip:bob@{}>\nContent-Type: application/sdp\n", bob.address), &sdp);
    bob.expect("ACK");
    let ok = alice.expect_status(200);
    alice.ack(pf.udp, &invite.message(), &ok);

    let mut receiver = waiting.accept(&format!("msrp://{}/bob1;tcp", waiting.address()), arrived.attribute("path"));
    let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    sender.send("msg1", b"hello\r\n-------not the end$\r\n");
    assert_eq!(receiver.message(), b"hello\r\n-------not the end$\r\n");
    sender.expect("200");

    let bye = bob.in_dialog_back("BYE", &arrived, 1);
    bob.send(from, &bye);
    bob.expect_status(200);
    let (bye, from) = alice.expect_from("BYE");
    alice.answer(&bye, from, "200 OK", "", "");
}
