//! HEP v3: a capture server beside the program gets every SIP message, in both ways.

use crate::ladder::relayed;
use crate::peers::{Server, free};
use crate::proxy::PATIENCE;
use crate::ue::SESSION;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;

/// The chunks of a packet by type: lengths are checked, nothing may be left over.
fn chunks(packet: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    let number = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    assert_eq!((&packet[..4], usize::from(number(4))), (&b"HEP3"[..], packet.len()));
    let mut chunks = BTreeMap::new();
    let mut at = 6;
    while at < packet.len() {
        assert_eq!(number(at), 0, "a generic chunk");
        let length = usize::from(number(at + 4));
        chunks.insert(number(at + 2), packet[at + 6..at + length].to_vec());
        at += length;
    }
    assert_eq!(at, packet.len());
    chunks
}

#[test]
fn a_capture_server_gets_a_copy_of_every_message() {
    let collector = UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
    collector.set_read_timeout(Some(PATIENCE)).expect("a socket has a time limit");
    let address = collector.local_addr().expect("bound");
    let session = relayed(SESSION, &format!("[sip.hep]\ncollector = \"udp://{address}\"\ncapture_id = 2001\n"));
    let (alice, core, pf) = (session.ladder.alice.address, session.ladder.core.address, session.ladder.pf.udp);
    let call_id = session.invite.get("Call-ID").expect("an INVITE has one");
    let mut heard = Vec::new();
    let mut buffer = vec![0; 65_536];
    while heard.len() < 7 {
        let read = crate::reading::undisturbed(|| collector.recv(&mut buffer))
            .unwrap_or_else(|error| panic!("{error}; so far {heard:#?}"));
        let chunks = chunks(&buffer[..read]);
        assert_eq!(chunks[&0x0001], [2], "IPv4");
        // An INVITE of more than 1300 octets, as ours may just be, is tried over TCP first, where the core is not.
        if chunks[&0x0002] == [6] {
            continue;
        }
        assert_eq!(chunks[&0x0002], [17], "UDP");
        assert_eq!(chunks[&0x000b], [1], "SIP");
        assert_eq!(chunks[&0x000c], 2001u32.to_be_bytes());
        assert_eq!(chunks[&0x0003], [127, 0, 0, 1]);
        assert_eq!(chunks[&0x0011], call_id.as_bytes(), "both legs are told by the Call-ID that began the call");
        let port = |kind: u16| u16::from_be_bytes([chunks[&kind][0], chunks[&kind][1]]);
        let text = String::from_utf8(chunks[&0x000f].clone()).expect("SIP is text");
        heard.push((
            port(0x0007),
            port(0x0008),
            text.split([' ', '\r']).take(2).collect::<Vec<_>>().join(" ").replace("SIP/2.0 ", ""),
        ));
    }
    let said = |from: std::net::SocketAddr, to: std::net::SocketAddr, start: &str| {
        heard.iter().any(|(source, target, text)| (*source, *target) == (from.port(), to.port()) && text.starts_with(start))
    };
    for (from, to, start) in [
        (alice, pf, "INVITE"),
        (pf, alice, "100"),
        (pf, core, "INVITE"),
        (core, pf, "200"),
        (pf, alice, "200"),
        (alice, pf, "ACK"),
        (pf, core, "ACK"),
    ] {
        assert!(said(from, to, start), "{start} from {from} to {to} is not among {heard:#?}");
    }
}

/// Kamailio as a capture server: it says what it heard in its log.
fn collector(folder: &Path, port: u16) -> Option<Server> {
    let at = folder.display();
    std::fs::create_dir_all(folder.join("db")).expect("the folder can be written");
    std::fs::write(folder.join("db/version"), "table_name(string) table_version(int)\nsip_capture:0\n").expect("a folder");
    let config = format!(
        r#"#!KAMAILIO
debug=1
log_stderror=yes
children=1
listen=udp:127.0.0.1:{port}
listen=tcp:127.0.0.1:{port}
loadmodule "sipcapture.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "db_text.so"
modparam("sipcapture", "db_url", "text://{at}/db")
modparam("sipcapture", "hep_capture_on", 1)
request_route {{ xlog("L_ERR", "heard $rm of $ci from $si:$sp\n"); drop; }}
onreply_route {{ xlog("L_ERR", "heard $rs of $ci from $si:$sp\n"); drop; }}
"#
    );
    let file = folder.join("kamailio.cfg");
    std::fs::write(&file, config).expect("the folder can be written");
    let file = file.display().to_string();
    let args = [
        "-f",
        &file,
        "-m",
        "64",
        "-M",
        "8",
        "-P",
        &format!("{at}/pid"),
        "-w",
        &at.to_string(),
        "-Y",
        &at.to_string(),
        "-DD",
        "-E",
    ];
    Server::start("kamailio", &args, &folder.join("log"), port)
}

#[test]
fn kamailio_reads_the_copies_as_they_were_on_the_wire() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [port] = free();
    let Some(_kamailio) = collector(folder.path(), port) else { return };
    let session = relayed(SESSION, &format!("[sip.hep]\ncollector = \"udp://127.0.0.1:{port}\"\n"));
    let (alice, core, pf) = (session.ladder.alice.address, session.ladder.core.address, session.ladder.pf.udp);
    let call_id = session.invite.get("Call-ID").expect("an INVITE has one");
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    for heard in [
        format!("heard INVITE of {call_id} from {alice}"),
        format!("heard 200 of {call_id} from {pf}"),
        format!("heard ACK of {call_id} from {alice}"),
    ] {
        session.ladder.pf.until(&heard, |_| log().contains(&heard));
    }
    session.ladder.pf.until("the other leg is heard too", |_| {
        log().lines().any(|line| line.contains("heard 200 of ") && line.contains(&core.to_string()))
    });
}
