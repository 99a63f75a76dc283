//! The table as its user and its peers see it.

use super::seam::{Arrival, Event, Outgoing, Role, ServerKey};
use super::table::Transactions;
use crate::base::clock::{Duration, Instant};
use crate::base::prng::Prng;
use crate::base::transport::{Destination, Flow, Target, Transport};
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::sip::status::reason;
use std::rc::Rc;

type Sent = Vec<(Destination, u64, Vec<u8>)>;

const T1: Duration = Duration::from_millis(500);

struct World {
    table: Transactions,
    now: Instant,
    sent: Sent,
    events: Vec<Event>,
}

impl World {
    fn new() -> Self {
        let table = Transactions::new(3, T1, 100, Prng::seeded(1));
        Self { table, now: Instant::from_unix_s(1000), sent: Vec::new(), events: Vec::new() }
    }

    fn receives(&mut self, transport: Transport, text: &str) -> Arrival {
        let request = Rc::new(Request::parse(text.as_bytes()).unwrap());
        self.table.receive_request(self.now, &flow(transport), &request, &mut self.sent)
    }

    fn serves(&mut self, transport: Transport, text: &str) -> ServerKey {
        match self.receives(transport, text) {
            Arrival::New(key) => key,
            other => panic!("not new: {other:?}"),
        }
    }

    fn refuses(&mut self, key: ServerKey, status: u16) -> bool {
        self.table.refuse(self.now, key, status, &mut self.sent)
    }

    fn sends(&mut self, transport: Transport, method: Method, role: Role) -> super::seam::ClientKey {
        let to = Destination::Target(Target { transport, address: "192.0.2.9:5060".parse().unwrap(), server_name: None });
        let outgoing = Outgoing { to, method, role, cookie: 77 };
        let write = |branch: &crate::sip::ids::Branch, octets: &mut Vec<u8>| {
            octets.extend_from_slice(
                format!(
                    "{0} sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP me;branch={1}\r\nRoute: <sip:r;lr>\r\nFrom: <sip:a@x>;tag=1\r\n\
                    To: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 7 {0}\r\nContent-Length: 0\r\n\r\n",
                    method.as_str(),
                    branch.as_str()
                )
                .as_bytes(),
            );
        };
        self.table.request(self.now, outgoing, write, &mut self.sent).expect("there is room")
    }

    /// The peer answers the request that was sent last with that method.
    fn hears(&mut self, method: &str, status: u16, tag: &str) -> bool {
        let request = self.sent.iter().rev().find(|(_, _, octets)| octets.starts_with(method.as_bytes())).expect("it was sent");
        let request = Request::parse(&request.2).unwrap();
        let via = request.lines(crate::sip::header::name::Name::Via).next().unwrap();
        let text = format!(
            "SIP/2.0 {status} {}\r\nVia: {via}\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>;tag={tag}\r\nCall-ID: c\r\nCSeq: 7 {method}\r\n\r\n",
            reason(status)
        );
        let response = Response::parse(text.as_bytes()).unwrap();
        self.table.receive_response(self.now, &response, &mut self.sent).is_some()
    }

    /// Lets time pass, timer by timer.
    fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.table.next_due().filter(|next| *next <= end) {
            self.now = next;
            self.table.due(next, &mut self.sent, &mut self.events);
        }
        self.now = end;
    }

    /// First words of what was sent since the last call.
    fn sent(&mut self) -> String {
        let first = |octets: &[u8]| {
            let text = String::from_utf8_lossy(octets).into_owned();
            let line = text.lines().next().unwrap_or_default();
            line.trim_start_matches("SIP/2.0 ").split(' ').next().unwrap_or_default().to_string()
        };
        let words: Vec<String> = self.sent.drain(..).map(|(_, _, octets)| first(&octets)).collect();
        words.join(" ")
    }
}

fn flow(transport: Transport) -> Flow {
    Flow { transport, core: 0, listener: 0, connection: 0, peer: "192.0.2.1:4000".parse().unwrap() }
}

fn request(method: &str, branch: &str, to: &str) -> String {
    format!(
        "{method} sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch={branch}\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>{to}\r\n\
        Call-ID: c\r\nCSeq: 7 {method}\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn an_invite_is_refused_and_its_failure_resent_until_the_ack() {
    let mut world = World::new();
    let key = world.serves(Transport::Udp, &request("INVITE", "z9hG4bK1", ""));
    assert_eq!(world.sent(), "100");
    assert_eq!(world.receives(Transport::Udp, &request("INVITE", "z9hG4bK1", "")), Arrival::Absorbed);
    assert_eq!(world.sent(), "100");
    assert!(world.table.served(key).is_some());
    let tag = format!(";tag={}", world.table.local_tag(key).unwrap());
    assert!(world.refuses(key, 486));
    assert!(!world.refuses(key, 480));
    world.passes(T1 * 4);
    assert_eq!(world.sent(), "486 486 486");
    assert_eq!(world.receives(Transport::Udp, &request("ACK", "z9hG4bK1", &tag)), Arrival::Absorbed);
    world.passes(T1 * 100);
    assert_eq!((world.sent(), world.events.len(), world.table.len()), (String::new(), 0, 0));
    assert!(world.table.servers.is_empty() && world.table.merges.is_empty() && world.table.timers.is_empty());
}

#[test]
fn a_failure_without_ack_is_told() {
    let mut world = World::new();
    let key = world.serves(Transport::Tcp, &request("INVITE", "z9hG4bK1", ""));
    world.table.set_cookie(key, 5);
    world.refuses(key, 486);
    world.passes(T1 * 64);
    assert_eq!(world.sent(), "100 486");
    assert_eq!(world.events, [Event::Unacknowledged { server: key, cookie: 5, success: false }]);
    assert!(world.table.is_empty());
}

#[test]
fn a_success_is_resent_until_its_ack_and_resends_of_the_invite_are_absorbed() {
    let mut world = World::new();
    let key = world.serves(Transport::Tcp, &request("INVITE", "z9hG4bK1", ""));
    world.refuses(key, 200);
    world.passes(T1 * 3);
    assert_eq!(world.sent(), "100 200 200 200");
    assert_eq!(world.receives(Transport::Tcp, &request("ACK", "z9hG4bKother", ";tag=x")), Arrival::Ack);
    world.table.acknowledged(key);
    assert_eq!(world.receives(Transport::Tcp, &request("INVITE", "z9hG4bK1", "")), Arrival::Absorbed);
    world.passes(T1 * 64);
    assert_eq!((world.sent(), world.events.len(), world.table.len()), (String::new(), 0, 0));
}

#[test]
fn a_success_that_nobody_acknowledges_is_told_once() {
    let mut world = World::new();
    let key = world.serves(Transport::Udp, &request("INVITE", "z9hG4bK1", ""));
    world.refuses(key, 200);
    world.passes(T1 * 200);
    // 100, then the 2xx at 0, 0.5, 1.5, 3.5, 7.5 and every 4 s up to 31.5.
    assert_eq!(world.sent(), format!("100{}", " 200".repeat(11)));
    assert_eq!(world.events, [Event::Unacknowledged { server: key, cookie: 0, success: true }]);
    assert!(world.table.is_empty() && world.table.timers.is_empty());
}

#[test]
fn a_proxy_forwards_any_number_of_successes() {
    let mut world = World::new();
    let key = world.serves(Transport::Udp, &request("INVITE", "z9hG4bK1", ""));
    let now = world.now;
    for _ in 0..3 {
        assert!(world.table.forward(now, key, 200, |octets| octets.extend_from_slice(b"SIP/2.0 200 OK"), &mut world.sent));
    }
    assert!(!world.table.forward(now, key, 486, |_| (), &mut world.sent));
    world.passes(T1 * 64);
    assert_eq!((world.sent(), world.table.len()), ("100 200 200 200".to_string(), 0));
}

#[test]
fn a_cancel_is_answered_and_told_until_the_final_response() {
    let mut world = World::new();
    assert_eq!(world.receives(Transport::Udp, &request("CANCEL", "z9hG4bK0", "")), Arrival::Absorbed);
    assert_eq!(world.sent(), "481");
    let invite = world.serves(Transport::Udp, &request("INVITE", "z9hG4bK1", ""));
    world.table.set_cookie(invite, 9);
    assert_eq!(world.receives(Transport::Udp, &request("CANCEL", "z9hG4bK1", "")), Arrival::Cancel { invite, cookie: 9 });
    assert_eq!(world.receives(Transport::Udp, &request("CANCEL", "z9hG4bK1", "")), Arrival::Absorbed);
    assert_eq!(world.sent(), "100 200 200");
    world.refuses(invite, 487);
    assert_eq!(world.receives(Transport::Udp, &request("CANCEL", "z9hG4bK1", "")), Arrival::Absorbed);
    assert_eq!(world.sent(), "487 200");
    world.passes(T1 * 64);
    assert!(world.table.is_empty());
}

#[test]
fn the_same_request_by_another_way_is_merged_but_a_spiral_is_not() {
    let mut world = World::new();
    world.serves(Transport::Udp, &request("INVITE", "z9hG4bK1", ""));
    assert!(matches!(world.receives(Transport::Udp, &request("INVITE", "z9hG4bK2", "")), Arrival::Merged(_)));
    let own = crate::sip::ids::Branch::new(3, crate::base::slab::Key::from_u64(1), &mut Prng::seeded(4));
    let spiral = request("INVITE", "z9hG4bK3", "")
        .replace("\r\nFrom", &format!("\r\nVia: SIP/2.0/UDP me;branch={}\r\nFrom", own.as_str()));
    assert!(matches!(world.receives(Transport::Udp, &spiral), Arrival::New(_)));
}

#[test]
fn a_full_table_answers_503() {
    let mut world = World::new();
    for turn in 0..100 {
        world.receives(Transport::Udp, &request("MESSAGE", &format!("z9hG4bK{turn}"), ";tag=x"));
    }
    assert_eq!(world.receives(Transport::Udp, &request("MESSAGE", "z9hG4bKlast", ";tag=x")), Arrival::Absorbed);
    assert_eq!(world.sent(), "503");
}

#[test]
fn rfc_2543_requests_match_and_their_ack_needs_our_tag() {
    let mut world = World::new();
    let key = world.serves(Transport::Udp, &request("INVITE", "1", ""));
    let tag = format!(";tag={}", world.table.local_tag(key).unwrap());
    world.refuses(key, 404);
    assert_eq!(world.receives(Transport::Udp, &request("ACK", "1", ";tag=other")), Arrival::Ack);
    assert_eq!(world.receives(Transport::Udp, &request("ACK", "1", &tag)), Arrival::Absorbed);
}

#[test]
fn an_invite_is_resent_acknowledged_on_failure_and_rests() {
    let mut world = World::new();
    world.sends(Transport::Udp, Method::Invite, Role::UserAgent);
    world.passes(T1 * 3);
    assert_eq!(world.sent.len(), 3);
    assert!(world.hears("INVITE", 100, "t"));
    world.passes(T1 * 100);
    assert!(world.hears("INVITE", 486, "t"));
    assert!(!world.hears("INVITE", 486, "t"));
    let ack = String::from_utf8(world.sent.last().unwrap().2.clone()).unwrap();
    assert!(ack.starts_with("ACK sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP me;branch=z9hG4bK03"), "{ack}");
    assert!(ack.contains("Route: <sip:r;lr>\r\n") && ack.contains("To: <sip:b@x>;tag=t\r\n") && ack.contains("CSeq: 7 ACK\r\n"));
    assert_eq!(world.sent(), "INVITE INVITE INVITE ACK ACK");
    world.passes(Duration::from_secs(32));
    assert!(world.table.is_empty() && world.events.is_empty());
}

#[test]
fn silence_and_a_dead_hop_are_told() {
    let mut world = World::new();
    let client = world.sends(Transport::Udp, Method::Invite, Role::UserAgent);
    world.passes(T1 * 64);
    assert_eq!(world.events.drain(..).collect::<Vec<_>>(), [Event::TimedOut { client, cookie: 77 }]);
    assert_eq!(world.sent.len(), 7);
    let client = world.sends(Transport::Tcp, Method::Bye, Role::UserAgent);
    let tag = world.sent.last().unwrap().1;
    let now = world.now;
    world.table.failed(now, tag, &mut world.sent, &mut world.events);
    world.table.failed(now, tag, &mut world.sent, &mut world.events);
    assert_eq!(world.events, [Event::Unreachable { client, cookie: 77 }]);
    assert!(world.table.is_empty() && world.table.timers.is_empty());
}

#[test]
fn a_success_is_heard_once_for_a_tag_and_its_resends_get_the_same_ack() {
    let mut world = World::new();
    let client = world.sends(Transport::Udp, Method::Invite, Role::UserAgent);
    assert!(world.hears("INVITE", 200, "t"));
    assert!(!world.hears("INVITE", 200, "t"));
    assert_eq!(world.sent.len(), 1);
    let to = world.sent[0].0.clone();
    let write = |branch: &crate::sip::ids::Branch, octets: &mut Vec<u8>| {
        octets.extend_from_slice(format!("ACK {}", branch.as_str()).as_bytes())
    };
    world.table.acknowledge(client, "t", &to, write, &mut world.sent);
    assert!(!world.hears("INVITE", 200, "t"));
    assert!(world.hears("INVITE", 200, "fork"));
    assert_eq!(world.sent[1].2, world.sent[2].2);
    assert_eq!(world.sent(), "INVITE ACK ACK");
    world.passes(T1 * 64);
    assert!(world.table.is_empty());
}

#[test]
fn a_cancel_waits_for_a_provisional_response() {
    let mut world = World::new();
    let client = world.sends(Transport::Tcp, Method::Invite, Role::UserAgent);
    let now = world.now;
    world.table.cancel(now, client, Some("SIP;cause=200"), &mut world.sent);
    assert_eq!(world.sent.len(), 1);
    assert!(world.hears("INVITE", 180, "t"));
    let cancel = Request::parse(&world.sent.last().unwrap().2).unwrap();
    assert_eq!((cancel.method(), cancel.cseq().unwrap().number), (Method::Cancel, 7));
    assert_eq!(cancel.header(crate::sip::header::name::Name::Reason), Some("SIP;cause=200"));
    assert!(!world.hears("CANCEL", 200, "t"));
    assert!(world.hears("INVITE", 487, "t"));
    assert_eq!(world.sent(), "INVITE CANCEL ACK");
    assert!(world.table.is_empty() && world.table.timers.is_empty());
}

#[test]
fn a_peer_that_rings_for_ever_is_cancelled_and_given_up() {
    let mut world = World::new();
    let client = world.sends(Transport::Udp, Method::Invite, Role::Proxy);
    assert!(world.hears("INVITE", 180, "t"));
    world.passes(Duration::from_secs(181));
    assert_eq!(world.sent(), "INVITE CANCEL");
    world.passes(T1 * 64);
    assert_eq!(world.events, [Event::TimedOut { client, cookie: 77 }]);
    assert!(world.table.is_empty() && world.table.timers.is_empty());
}

#[test]
fn a_response_to_nothing_of_ours_is_dropped() {
    let mut world = World::new();
    world.sends(Transport::Udp, Method::Options, Role::UserAgent);
    let text = String::from_utf8(world.sent[0].2.clone()).unwrap();
    let branch = text.split("branch=").nth(1).unwrap().split('\r').next().unwrap();
    for (branch, method) in [("z9hG4bKx", "OPTIONS"), (branch, "BYE"), (&branch.replace(&branch[25..], "0000000"), "OPTIONS")] {
        let text =
            format!("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP me;branch={branch}\r\nTo: <sip:b@x>;tag=t\r\nCSeq: 7 {method}\r\n\r\n");
        let response = Response::parse(text.as_bytes()).unwrap();
        assert_eq!(world.table.receive_response(world.now, &response, &mut world.sent), None);
    }
    assert!(world.hears("OPTIONS", 200, "t"));
}
