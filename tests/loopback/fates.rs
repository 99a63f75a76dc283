//! TLM-8, TLM-10, TSI-9 and RFC 4975 on the wire: what becomes of a message when clients are silent, slow, or die amid a chunk. Who stays
//! gets every octet, and the origin hears one truth.

use crate::ladder::Terminating;
use crate::msrp::{Msrp, Waiting};
use crate::proves;
use crate::ue::{Invite, LARGE, Message, SESSION};
use std::net::SocketAddr;

const CLIENTS: [&str; 3] = [
    "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000001>\"",
    "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000002>\"",
    "instance = \"<urn:uuid:00000000-0000-1000-8000-000000000003>\"",
];

fn octets(count: u32) -> Vec<u8> {
    (0..count).map(|n| (n % 251) as u8).collect()
}

/// A Large Message session that all clients accepted: alice's end, and theirs.
struct Standing {
    ladder: Terminating,
    ok: Message,
    sender: Msrp,
    receivers: Vec<Msrp>,
}

fn standing(clients: usize) -> Standing {
    let mut ladder = Terminating::new(&CLIENTS[..clients], "");
    let invite = ladder.call(LARGE);
    ladder.alice.send(ladder.pf.udp, &invite.text());
    let invited: Vec<(Message, SocketAddr)> = ladder.clients.iter_mut().map(|client| client.expect_from("INVITE")).collect();
    let waiting: Vec<Waiting> = invited.iter().map(|_| Waiting::new()).collect();
    for (index, (arrived, from)) in invited.iter().enumerate() {
        ladder.accept(index, arrived, *from, waiting[index].address(), "recvonly");
        ladder.clients[index].expect("ACK");
    }
    let ok = ladder.alice.expect_status(200);
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    let end = |(index, (arrived, _)): (usize, &(Message, SocketAddr))| {
        let mut end =
            waiting[index].accept(&format!("msrp://{}/client{index};tcp", waiting[index].address()), arrived.attribute("path"));
        let opening = end.expect("SEND-EMPTY");
        end.answer(&opening, "200 OK");
        end
    };
    let receivers = invited.iter().enumerate().map(end).collect();
    let sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
    Standing { ladder, ok, sender, receivers }
}

impl Standing {
    /// Begins a chunk that is to hold the whole of `body`; its transaction id and what is still to be written.
    fn begin(&mut self, body: &[u8]) -> (String, Vec<u8>) {
        let length = body.len();
        let (to, from) = (&self.sender.peer, &self.sender.own);
        let head = format!(
            "MSRP amidchunk SEND\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: amid1\r\nByte-Range: 1-*/{length}\r\nSuccess-Report: yes\r\nContent-Type: text/plain\r\n\r\n"
        );
        let frame = [head.as_bytes(), body, b"\r\n-------amidchunk$\r\n"].concat();
        // No more than what fits between the ends while nobody reads.
        let (first, rest) = frame.split_at(100_000);
        self.sender.write(first);
        ("amidchunk".to_owned(), rest.to_vec())
    }

    /// The client reads some of what comes, and is gone.
    fn dies(&mut self, client: usize) {
        let mut receiver = self.receivers.remove(client);
        let mut buffer = [0; 4096];
        let read = crate::reading::read(&mut receiver.stream, &mut buffer).expect("something comes");
        assert!(read > 0, "it dies amid a chunk");
    }

    /// The client says that it has the message.
    fn reports(receiver: &mut Msrp, octets: usize) {
        let (to, from) = (receiver.peer.clone(), receiver.own.clone());
        receiver.write(
            format!(
                "MSRP done{octets} REPORT\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\nMessage-ID: amid1\r\nByte-Range: 1-{octets}/{octets}\r\nStatus: 000 200 OK\r\n-------done{octets}$\r\n"
            )
            .as_bytes(),
        );
    }

    fn ends(mut self) {
        let bye = self.ladder.alice.in_dialog("BYE", &self.ok, 1);
        self.ladder.alice.send(self.ladder.pf.udp, &bye);
        self.ladder.alice.next("200 to BYE", |message| message.status() == 200 && message.want("CSeq").ends_with("BYE"));
        self.ladder.alice.nothing(self.ladder.pf.udp, "a second end of its session", |message| message.method() == "BYE");
    }
}

#[test]
fn of_three_clients_one_slow_and_one_gone_the_others_get_every_octet() {
    let mut standing = standing(3);
    let body = octets(1_500_000);
    let (tid, rest) = standing.begin(&body);
    standing.dies(2);
    let slow = standing.receivers.remove(1);
    // It reads a little at a time, and answers when it has all.
    let wanted = body.clone();
    let slow = std::thread::spawn(move || {
        let mut slow = slow;
        let mut held = Vec::new();
        let mut buffer = [0; 1024];
        let end = b"-------amidchunk$\r\n";
        while !held.ends_with(end) {
            match crate::reading::read(&mut slow.stream, &mut buffer) {
                Ok(read @ 1..) => held.extend_from_slice(&buffer[..read]),
                other => panic!("the slow client lost its connection: {other:?}"),
            }
            std::thread::yield_now();
        }
        assert!(memchr::memmem::find(&held, &wanted).is_some(), "the slow client has every octet, in one piece");
        let (to, from) = (slow.peer.clone(), slow.own.clone());
        slow.write(format!("MSRP amidchunk 200 OK\r\nTo-Path: {to}\r\nFrom-Path: {from}\r\n-------amidchunk$\r\n").as_bytes());
        Standing::reports(&mut slow, wanted.len());
        slow
    });
    let mut writer = standing.sender.stream.try_clone().expect("a socket can be doubled");
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &rest));
    assert!(standing.receivers[0].message() == body, "the quick client has every octet");
    Standing::reports(&mut standing.receivers[0], body.len());
    writing.join().expect("no panic").expect("the sender could write all");
    let _slow = slow.join().expect("the slow client is content");

    // One answer for the chunk and one report for the message, however many clients there were.
    assert_eq!(standing.sender.expect("200").tid(), tid);
    let report = standing.sender.expect("REPORT");
    assert_eq!((report.field("Message-ID"), report.field("Status")), (Some("amid1"), Some("000 200 OK")));
    standing.sender.send("last1", b"one more");
    standing.sender.expect("200");
    assert_eq!(standing.receivers[0].message(), b"one more");
    // The one that is gone has its dialog ended, the session goes on.
    let (bye, from) = standing.ladder.clients[2].expect_from("BYE");
    standing.ladder.clients[2].answer(&bye, from, "200 OK", "", "");
    standing
        .ladder
        .alice
        .nothing(standing.ladder.pf.udp, "the end of a session that goes on", |message| message.method() == "BYE");
    proves!("TLM-8", "TLM-8.b"; standing.ladder.pf);
    standing.ends();
}

#[test]
fn when_every_client_dies_amid_a_chunk_the_origin_is_told() {
    let mut standing = standing(2);
    let body = octets(400_000);
    let (tid, rest) = standing.begin(&body);
    standing.dies(1);
    standing.dies(0);
    for client in &mut standing.ladder.clients {
        let (bye, from) = client.expect_from("BYE");
        client.answer(&bye, from, "200 OK", "", "");
    }
    let (bye, from) = standing.ladder.alice.expect_from("BYE");
    standing.ladder.alice.answer(&bye, from, "200 OK", "", "");
    // What is written after that finds nobody; and nothing said that the message arrived.
    let _ = std::io::Write::write_all(&mut standing.sender.stream, &rest);
    let mut succeeded = false;
    while let Some(frame) = standing.sender.next() {
        succeeded |= frame.kind() == "200" && frame.tid() == tid;
        succeeded &= frame.kind() != "REPORT" || frame.field("Status").is_some_and(|status| status.starts_with("000 200"));
    }
    assert!(!succeeded, "the chunk was answered 200 and no report took it back");
    standing
        .ladder
        .pf
        .until("nothing is left", |pf| pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0 && pf.metric("cpm_pf_dialogs", &[]) == 0.0);
}

#[test]
fn when_every_client_is_silent_a_message_is_kept_and_a_session_ended() {
    // Timer B is 64 times that.
    let mut ladder = Terminating::new(&CLIENTS[..2], "[sip]\nt1 = \"50ms\"");
    let message = ladder.call(LARGE);
    ladder.alice.send(ladder.pf.udp, &message.text());
    let chat = ladder.call(SESSION);
    ladder.alice.send(ladder.pf.udp, &chat.text());
    let answer = |ladder: &mut Terminating, invite: &Invite| {
        let call = invite.get("Call-ID");
        let (ok, _) = ladder.alice.next("200", |message| message.status() == 200 && message.header("Call-ID") == call);
        ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
        ok
    };
    answer(&mut ladder, &chat);
    let ok = answer(&mut ladder, &message);
    for client in &mut ladder.clients {
        for service in [LARGE, SESSION] {
            client.next("its INVITE", |message| {
                message.method() == "INVITE" && message.want("P-Asserted-Service").ends_with(service)
            });
        }
    }
    let mut sender = Msrp::connect(ok.msrp_address(), message.message().attribute("path"), ok.attribute("path"));
    sender.send("msg1", b"for whoever comes back");
    sender.expect("200");
    ladder.pf.until("the message waits", |pf| pf.metric("cpm_pf_deferred_messages", &[]) == 1.0);
    let (bye, from) =
        ladder.alice.next("BYE", |message| message.method() == "BYE" && message.header("Call-ID") == chat.get("Call-ID"));
    assert!(bye.want("Reason").contains("cause=480"), "{bye:?}");
    ladder.alice.answer(&bye, from, "200 OK", "", "");
    proves!("TLM-10", "TSI-9"; ladder.pf);
}
