//! RFC 3261 §9, §15 and RFC 3262 on the wire: what crosses within a dialog, and what is acknowledged before there is one.

use crate::ladder::Originating;
use crate::proxy::Proxy;
use crate::ue::{Invite, Message, SESSION, Ue, answer_sdp};
use std::io::Write as _;
use std::time::{Duration, Instant};

const BOB: &str = "sip:bob@example.org";

/// Bob will connect, and does not: there is no connection to fail meanwhile.
fn sdp(id: &str) -> String {
    answer_sdp("127.0.0.1:9".parse().expect("an address"), id, "active", "sendrecv")
}

fn of(method: &'static str, status: u16) -> impl Fn(&Message) -> bool {
    move |message| message.status() == status && message.want("CSeq").ends_with(method)
}

fn contact(ladder: &Originating) -> String {
    format!("Contact: <sip:bob@{}>\n", ladder.core.address)
}

#[test]
fn reliable_responses_are_acknowledged_end_to_end() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, SESSION).add("Supported", "100rel");
    let (arrived, from) = ladder.passes(&invite);
    assert!(arrived.all("Supported").any(|value| value.contains("100rel")), "{arrived:?}");
    let reliable = contact(&ladder) + "Require: 100rel\nRSeq: 4711\n";
    ladder.core.answer(&arrived, from, "183 Session Progress", &reliable, "");
    let progress = ladder.alice.next("183", |message| message.status() == 183).0;
    assert_eq!(progress.want("Require"), "100rel");
    let rack = format!("RAck: {} {}\r\nContent-Length", progress.want("RSeq"), progress.want("CSeq"));
    let prack = ladder.alice.in_dialog("PRACK", &progress, 1).replace("Content-Length", &rack);
    ladder.alice.send(ladder.pf.udp, &prack);
    let (prack, from) = ladder.core.expect_from("PRACK");
    assert_eq!(prack.want("RAck"), format!("4711 {}", arrived.want("CSeq")));
    ladder.core.answer(&prack, from, "200 OK", "", "");
    ladder.alice.next("200 to PRACK", of("PRACK", 200));
    let fields = contact(&ladder) + "Content-Type: application/sdp\n";
    ladder.core.answer(&arrived, from, "200 OK", &fields, &sdp("bob1"));
    let ok = ladder.alice.next("200 to INVITE", of("INVITE", 200)).0;
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    ladder.core.expect("ACK");
    let bye = ladder.alice.in_dialog("BYE", &ok, 2);
    ladder.alice.send(ladder.pf.udp, &bye);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    ladder.alice.next("200 to BYE", of("BYE", 200));
}

/// A session that stands, and alice's re-INVITE with another SDP that bob has: what he got, and what she sent.
fn changing(ladder: &mut Originating) -> (Message, std::net::SocketAddr, String, Message) {
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let bob = format!("<sip:bob@{}>", ladder.core.address);
    let (_, ok) = ladder.established(&invite, &bob, &sdp("bob1"));
    let body = invite.body.replace("alice", "other");
    assert_ne!(body, invite.body);
    let fields = format!(
        "Contact: <sip:alice@{}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        ladder.alice.address,
        body.len()
    );
    let change = ladder.alice.in_dialog("INVITE", &ok, 1).replace("Content-Length: 0\r\n\r\n", &fields);
    ladder.alice.send(ladder.pf.udp, &change);
    let (arrived, from) = ladder.core.expect_from("INVITE");
    ladder.core.answer(&arrived, from, "100 Trying", "", "");
    let head = change.split("Contact:").next().unwrap_or_default();
    let cancel = head.replace("INVITE", "CANCEL") + "Content-Length: 0\r\n\r\n";
    ladder.alice.send(ladder.pf.udp, &cancel);
    ladder.alice.next("200 to CANCEL", of("CANCEL", 200));
    let (cancel, from) = ladder.core.expect_from("CANCEL");
    assert_eq!(cancel.want("CSeq"), arrived.want("CSeq").replace("INVITE", "CANCEL"));
    ladder.core.answer(&cancel, from, "200 OK", "", "");
    (arrived, from, change, ok)
}

#[test]
fn a_change_that_is_taken_back_is_taken_back_on_the_other_side() {
    let mut ladder = Originating::new("");
    let (arrived, from, change, ok) = changing(&mut ladder);
    ladder.core.answer(&arrived, from, "487 Request Terminated", "", "");
    ladder.core.expect("ACK");
    let refusal = ladder.alice.next("487", of("INVITE", 487)).0;
    ladder.alice.ack(ladder.pf.udp, &Message(change), &refusal);
    // The session goes on.
    let info = ladder.alice.in_dialog("INFO", &ok, 2);
    ladder.alice.send(ladder.pf.udp, &info);
    let (info, from) = ladder.core.expect_from("INFO");
    ladder.core.answer(&info, from, "200 OK", "", "");
    ladder.alice.next("200 to INFO", of("INFO", 200));
}

#[test]
fn an_answer_that_crosses_the_cancel_of_a_change_counts() {
    let mut ladder = Originating::new("");
    let (arrived, from, _, _) = changing(&mut ladder);
    let fields = contact(&ladder) + "Content-Type: application/sdp\n";
    ladder.core.answer(&arrived, from, "200 OK", &fields, &sdp("bob1"));
    ladder.core.expect("ACK");
    ladder.alice.next("200 to the change", of("INVITE", 200));
}

/// A request in a dialog, with a body.
fn with_sdp(request: &str, sender: &Ue, body: &str) -> String {
    let fields = format!(
        "Contact: <sip:me@{}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        sender.address,
        body.len()
    );
    request.replace("Content-Length: 0\r\n\r\n", &fields)
}

/// A further MSRP line of an SDP.
fn further(id: &str, setup: &str) -> String {
    format!(
        "m=message 9 TCP/MSRP *\r\na=accept-types:text/plain\r\na=path:msrp://127.0.0.1:9/{id};tcp\r\na=setup:{setup}\r\na=msrp-cema\r\n"
    )
}

#[test]
fn a_change_brings_a_stream_and_another_takes_one_out() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let bob = format!("<sip:bob@{}>", ladder.core.address);
    let (arrived, ok) = ladder.established(&invite, &bob, &sdp("bob1"));
    let streams = |pf: &Proxy, wanted: f64| pf.until("the streams", |pf| pf.metric("cpm_pf_msrp_sessions", &[]) == wanted);
    streams(&ladder.pf, 1.0);
    // Alice brings one.
    let two = invite.body.clone() + &further("alice2", "actpass");
    let change = with_sdp(&ladder.alice.in_dialog("INVITE", &ok, 1), &ladder.alice, &two);
    ladder.alice.send(ladder.pf.udp, &change);
    let (changing, from) = ladder.core.expect_from("INVITE");
    let asked = changing.attributes("path");
    assert_eq!((asked.len(), asked[0]), (2, arrived.attribute("path")), "the first is as it was, the further one ours");
    let fields = contact(&ladder) + "Content-Type: application/sdp\n";
    ladder.core.answer(&changing, from, "200 OK", &fields, &(sdp("bob1") + &further("bob2", "active")));
    ladder.core.expect("ACK");
    let changed = ladder.alice.next("200 to the change", of("INVITE", 200)).0;
    let answered = changed.attributes("path");
    assert_eq!((answered.len(), answered[0]), (2, ok.attribute("path")));
    ladder.alice.ack(ladder.pf.udp, &Message(change), &changed);
    streams(&ladder.pf, 2.0);
    // Bob takes the first one out.
    let one = sdp("bob1").replace("m=message 9 ", "m=message 0 ") + &further("bob2", "active");
    let change = with_sdp(&ladder.core.in_dialog_back("INVITE", &arrived, 1), &ladder.core, &one);
    ladder.core.send(ladder.pf.udp, &change);
    let (passed, from) = ladder.alice.expect_from("INVITE");
    assert!(passed.body().contains("m=message 0 ") && passed.attributes("path") == answered[1..], "{passed:?}");
    let fields = format!("Contact: <sip:alice@{}>\nContent-Type: application/sdp\n", ladder.alice.address);
    let one = invite.body.replace("m=message 9 ", "m=message 0 ") + &further("alice2", "active");
    ladder.alice.answer(&passed, from, "200 OK", &fields, &one);
    ladder.alice.expect("ACK");
    let done = ladder.core.next("200 to the change", of("INVITE", 200)).0;
    assert!(done.body().contains("m=message 0 ") && done.attributes("path") == asked[1..], "{done:?}");
    ladder.core.ack(ladder.pf.udp, &Message(change), &done);
    streams(&ladder.pf, 1.0);
    let bye = ladder.alice.in_dialog("BYE", &ok, 2);
    ladder.alice.send(ladder.pf.udp, &bye);
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
    ladder.alice.next("200 to BYE", of("BYE", 200));
    streams(&ladder.pf, 0.0);
}

#[test]
fn who_takes_no_stream_is_hung_up_on_and_the_caller_refused() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let (arrived, from) = ladder.passes(&invite);
    let fields = contact(&ladder) + "Content-Type: application/sdp\n";
    ladder.core.answer(&arrived, from, "200 OK", &fields, &sdp("bob1").replace("m=message 9 ", "m=message 0 "));
    // His dialog stands since his 200: it is acknowledged, then ended.
    let ack = ladder.core.expect("ACK");
    let (bye, from) = ladder.core.expect_from("BYE");
    assert_eq!((bye.want("Call-ID"), bye.want("To")), (ack.want("Call-ID"), ack.want("To")));
    ladder.core.answer(&bye, from, "200 OK", "", "");
    let refusal = ladder.alice.next("488", of("INVITE", 488)).0;
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &refusal);
    ladder
        .pf
        .until("nothing is left", |pf| pf.metric("cpm_pf_dialogs", &[]) == 0.0 && pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0);
}

#[test]
fn byes_that_cross_are_both_answered() {
    let mut ladder = Originating::new("");
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    let bob = format!("<sip:bob@{}>", ladder.core.address);
    let (arrived, ok) = ladder.established(&invite, &bob, &sdp("bob1"));
    let bye = ladder.alice.in_dialog("BYE", &ok, 1);
    ladder.alice.send(ladder.pf.udp, &bye);
    let (theirs, from) = ladder.core.expect_from("BYE");
    let crossing = ladder.core.in_dialog_back("BYE", &arrived, 1);
    ladder.core.send(ladder.pf.udp, &crossing);
    ladder.core.next("200 to the BYE that crosses", of("BYE", 200));
    ladder.core.answer(&theirs, from, "200 OK", "", "");
    ladder.alice.next("200 to BYE", of("BYE", 200));
}

#[test]
fn what_cannot_be_answered_leaves_a_line_that_finds_it_in_a_capture() {
    let pf = Proxy::start_saying(tempfile::tempdir().expect("a temporary folder"), "", "info");
    let line = |peer: std::net::SocketAddr, transport: &'static str| {
        move |pf: &Proxy| {
            let wanted = [format!("peer={peer} "), format!("transport=\"{transport}\""), "cause=\"".to_owned()];
            let dropped = |line: &&str| line.contains("dropped without an answer");
            pf.log().lines().filter(dropped).any(|line| wanted.iter().all(|piece| line.contains(piece)))
        }
    };
    let mut stream = std::net::TcpStream::connect(pf.tcp.expect("TCP is bound")).expect("it listens");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it takes it");
    pf.until("a line for the stream", line(stream.local_addr().expect("it is connected"), "TCP"));
    let mut stranger = Ue::udp("stranger");
    stranger.send(pf.udp, "nothing like SIP\n\n");
    pf.until("a line for the datagram", line(stranger.address, "UDP"));
}

#[test]
fn a_dialog_stays_with_the_listener_on_which_it_began() {
    let mut ladder = Originating::new("[sip]\nlisten = [\"udp://127.0.0.1:0\", \"udp://127.0.0.1:0\"]");
    let second = ladder.pf.ready.split("udp:").nth(2).and_then(|rest| rest.split([',', ' ']).next());
    let second: std::net::SocketAddr = second.and_then(|at| at.trim().parse().ok()).expect("the line names both");
    assert_ne!(second, ladder.pf.udp);
    let invite = Invite::new(&ladder.alice, BOB, SESSION);
    ladder.alice.send(second, &invite.text());
    let (arrived, from) = ladder.core.expect_from("INVITE");
    let fields = contact(&ladder) + "Content-Type: application/sdp\n";
    ladder.core.answer(&arrived, from, "200 OK", &fields, &sdp("bob1"));
    let ok = ladder.alice.next("200 to INVITE", of("INVITE", 200)).0;
    ladder.alice.ack(second, &invite.message(), &ok);
    ladder.core.expect("ACK");
    let bye = ladder.core.in_dialog_back("BYE", &arrived, 1);
    ladder.core.send(from, &bye);
    ladder.core.next("200 to BYE", of("BYE", 200));
    let (bye, from) = ladder.alice.expect_from("BYE");
    assert_eq!(from, second);
    assert!(bye.want("Via").contains(&format!(":{};", second.port())), "{bye:?}");
    ladder.alice.answer(&bye, from, "200 OK", "", "");
}

/// Calls with session timers of few seconds; `asked` and `answered` are what the two ends say of it.
fn with_timers(asked: &str, answered: &str) -> (Originating, Message, Instant) {
    let mut ladder = Originating::new("[policy]\nsession_floor = \"2s\"\nmin_se = \"2s\"\nsession_session_expires = \"1800s\"\n");
    let begun = Instant::now();
    let invite = Invite::new(&ladder.alice, BOB, SESSION).with("Session-Expires", asked).with("Supported", "timer");
    let (arrived, from) = ladder.passes(&invite);
    let fields = contact(&ladder) + &format!("Session-Expires: {answered}\nRequire: timer\nContent-Type: application/sdp\n");
    ladder.core.answer(&arrived, from, "200 OK", &fields, &sdp("bob1"));
    let ok = ladder.alice.next("200 to INVITE", of("INVITE", 200)).0;
    ladder.alice.ack(ladder.pf.udp, &invite.message(), &ok);
    ladder.core.expect("ACK");
    (ladder, ok, begun)
}

/// §10: two thirds of the interval after it was agreed on; BYE says why.
fn ends(mut ladder: Originating, begun: Instant) {
    for end in [&mut ladder.alice, &mut ladder.core] {
        let (bye, from) = end.expect_from("BYE");
        assert!(begun.elapsed() >= Duration::from_secs(2), "{bye:?}");
        end.answer(&bye, from, "200 OK", "", "");
    }
    ladder.pf.until("nothing is left", |pf| pf.metric("cpm_pf_dialogs", &[]) == 0.0);
}

#[test]
fn a_session_that_its_caller_does_not_refresh_ends_on_both_legs() {
    let (ladder, ok, begun) = with_timers("3;refresher=uac", "90;refresher=uas");
    assert_eq!(ok.want("Session-Expires"), "3;refresher=uac");
    ends(ladder, begun);
}

#[test]
fn a_session_that_its_called_party_does_not_refresh_ends_on_both_legs() {
    // The caller's interval is never below its Min-SE, which is the floor where it says none: both legs are short.
    let (ladder, ok, begun) = with_timers("90;refresher=uac", "3;refresher=uas");
    assert_eq!(ok.want("Session-Expires"), "3;refresher=uac");
    ends(ladder, begun);
}

#[test]
fn a_refresh_that_gets_no_answer_or_481_ends_both_legs() {
    let (mut ladder, _, _) = with_timers("2;refresher=uas", "90;refresher=uas");
    let (refresh, from) = ladder.alice.expect_from("INVITE");
    assert_eq!(refresh.want("Session-Expires"), "2;refresher=uac");
    ladder.alice.answer(&refresh, from, "481 Call Does Not Exist", "", "");
    let (bye, from) = ladder.core.expect_from("BYE");
    ladder.core.answer(&bye, from, "200 OK", "", "");
}
