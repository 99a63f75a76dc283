//! User equipment of the simulated world: a SIP user agent over UDP that resends by RFC 3261 §17, with an MSRP endpoint. It is written
//! for the tests alone and shares no code with the proxy.

mod change;

use crate::climate::Climate;
use cpm_pf::base::clock::{Duration, Instant};
use cpm_pf::base::prng::Prng;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// 64 * T1.
const GIVE_UP: Duration = Duration::from_secs(32);

/// What a UE wants done.
pub enum Act {
    Send {
        to: SocketAddr,
        text: String,
    },
    /// Open an MSRP connection for a call to this authority.
    Connect {
        call: u64,
        to: SocketAddr,
    },
    /// Close the MSRP connection of a call.
    Close {
        call: u64,
    },
}

/// How far a call has come, as this UE sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Inviting,
    Ringing,
    Cancelled,
    /// 2xx sent, ACK awaited (called), or 2xx seen (caller).
    Up,
    /// BYE sent, its answer awaited.
    Leaving,
    Over,
}

/// A request or 2xx that is sent again until it is answered.
struct Resend {
    text: String,
    next: Instant,
    wait: Duration,
    until: Instant,
    /// INVITEs double without bound, others up to T2; a provisional stops an INVITE.
    invite: bool,
}

impl Resend {
    fn of(now: Instant, text: String, invite: bool) -> Self {
        Self { text, next: now + T1, wait: T1, until: now + GIVE_UP, invite }
    }

    fn due(&self) -> Instant {
        self.next.min(self.until)
    }

    /// A provisional stops the resends, not the patience.
    fn trying(&mut self, now: Instant) {
        self.until = now + Duration::from_secs(300);
        self.next = self.until;
    }

    /// What is to be sent again now.
    fn again(&mut self, now: Instant) -> Option<String> {
        (now >= self.next).then(|| {
            self.wait = if self.invite { self.wait * 2 } else { (self.wait * 2).min(T2) };
            self.next = now + self.wait;
            self.text.clone()
        })
    }
}

pub struct Call {
    pub number: u64,
    pub stage: Stage,
    pub caller: bool,
    /// Final statuses of the INVITE, one for each that differs from the last.
    pub finals: Vec<u16>,
    resend: Option<Resend>,
    /// Our 2xx, or the ACK we answer each 2xx with.
    reply: String,
    peer: SocketAddr,
    /// Dialog: target, route set, From and To as we write them, Call-ID.
    target: String,
    routes: Vec<String>,
    local: String,
    remote: String,
    call_id: String,
    cseq: u32,
    invite: String,
    /// When this side does its next thing of its own: answer, cancel, hang up.
    deed: Option<(Instant, Deed)>,
    pub path: String,
    pub peer_path: String,
    passive: bool,
    pub why_over: &'static str,
    /// When this side hung up, was told to, or saw the call refused.
    pub ended: Option<Instant>,
    /// The Contact we name.
    contact: String,
    /// When this side changes the session next; its re-INVITE or UPDATE under way.
    change: Option<Instant>,
    changing: Option<Resend>,
    /// Our PRACK under way, and the RSeq it acknowledges.
    prack: Option<Resend>,
    heard: u32,
    /// Our 2xx to the peer's re-INVITE, until its ACK; the last answer to a change, by the CSeq of the request.
    taken: Option<Resend>,
    theirs: Option<(u32, String)>,
    version: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Ring,
    Answer,
    Refuse,
    Cancel,
    HangUp,
    Die,
}

pub struct Ue {
    pub address: SocketAddr,
    msrp: SocketAddr,
    proxy: SocketAddr,
    pub calls: BTreeMap<u64, Call>,
    climate: Climate,
    prng: Prng,
    /// Final status by top Via branch and CSeq of each request of ours.
    finals: BTreeMap<(String, String), u16>,
    /// What the peer must not have done.
    pub faults: Vec<String>,
}

/// A header's value by its long name; the proxy writes no compact ones.
pub fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let head = text.split("\r\n\r\n").next().unwrap_or("");
    head.split("\r\n")
        .skip(1)
        .find_map(|line| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)))
        .map_or("", |(_, value)| value.trim())
}

fn all<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let head = text.split("\r\n\r\n").next().unwrap_or("");
    head.split("\r\n").skip(1).filter_map(move |line| {
        line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    })
}

fn number_of_cseq(text: &str) -> u32 {
    header(text, "CSeq").split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn uri(value: &str) -> &str {
    value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or(value, |(uri, _)| uri)
}

fn path_of(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("a=path:")).map_or("", str::trim)
}

/// The number in "call7.…" of a Conversation-ID.
fn number_of(text: &str) -> Option<u64> {
    header(text, "Conversation-ID").strip_prefix("call")?.parse().ok()
}

pub fn authority(path: &str) -> Option<SocketAddr> {
    path.strip_prefix("msrp://")?.split('/').next()?.parse().ok()
}

impl Ue {
    pub fn new(address: SocketAddr, proxy: SocketAddr, climate: Climate, prng: Prng) -> Self {
        let msrp = SocketAddr::new(address.ip(), 7000);
        Self { address, msrp, proxy, calls: BTreeMap::new(), climate, prng, finals: BTreeMap::new(), faults: Vec::new() }
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        self.prng.below(1000) < thousandths
    }

    /// A Contact, and now and then one whose host nobody knows.
    fn contact(&mut self, user: &str) -> String {
        let host = if self.chance(self.climate.unresolved) { "unknown.example".into() } else { self.address.to_string() };
        format!("<sip:{user}@{host}>")
    }

    fn sdp(&self, path: &str, setup: &str, large: bool) -> String {
        let ip = self.address.ip();
        let kind = if large { "a=sendonly\r\na=file-selector:size:400\r\n" } else { "a=sendrecv\r\n" };
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=message {} TCP/MSRP *\r\na=accept-types:*\r\na=path:{path}\r\na=setup:{setup}\r\n{kind}a=msrp-cema\r\n",
            self.msrp.port()
        )
    }

    /// Begins call `number` to `to`.
    pub fn call(&mut self, now: Instant, number: u64, to: &str, case: &str, large: bool, acts: &mut Vec<Act>) {
        let from = "alice@example.net";
        let path = format!("msrp://{}/a{number}x{:x};tcp", self.msrp, self.prng.u64());
        let body = self.sdp(&path, "actpass", large);
        let feature = if large { "largemsg" } else { "session" };
        let supported = if self.chance(self.climate.reliable) { "timer, 100rel" } else { "timer" };
        let contact = self.contact("alice");
        let call_id = format!("c{number}-{:x}@{}", self.prng.u64(), self.address.ip());
        let local = format!("<sip:{from}>;tag=f{:x}", self.prng.u64());
        let invite = format!(
            "INVITE sip:{to} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bKi{number}\r\nMax-Forwards: 70\r\nRoute: <sip:{case}@{proxy};lr>\r\n\
             From: {local}\r\nTo: <sip:{to}>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\nContact: {contact}\r\n\
             Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.{feature}\"\r\n\
             P-Asserted-Identity: <sip:{from}>\r\nConversation-ID: call{number}\r\nContribution-ID: k{number}\r\nSupported: {supported}\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len(),
            address = self.address,
            proxy = self.proxy
        );
        let deed = self.chance(self.climate.cancels).then(|| (now + Duration::from_millis(self.prng.below(8_000)), Deed::Cancel));
        let call = Call {
            number,
            stage: Stage::Inviting,
            caller: true,
            finals: Vec::new(),
            resend: Some(Resend { text: invite.clone(), next: now + T1, wait: T1, until: now + GIVE_UP, invite: true }),
            reply: String::new(),
            peer: self.proxy,
            target: String::new(),
            routes: Vec::new(),
            local,
            remote: String::new(),
            call_id,
            cseq: 1,
            invite: invite.clone(),
            deed,
            path,
            peer_path: String::new(),
            passive: false,
            why_over: "",
            ended: None,
            contact,
            change: None,
            changing: None,
            prack: None,
            heard: 0,
            taken: None,
            theirs: None,
            version: 1,
        };
        self.calls.insert(number, call);
        acts.push(Act::Send { to: self.proxy, text: invite });
    }

    /// When [`Ue::due`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        let times = |call: &Call| {
            let resends = [&call.resend, &call.changing, &call.taken, &call.prack].map(|resend| resend.as_ref().map(Resend::due));
            [resends[0], resends[1], resends[2], resends[3], call.deed.map(|(at, _)| at), call.change]
        };
        self.calls.values().flat_map(times).flatten().min()
    }

    /// A datagram arrived.
    pub fn receive(&mut self, now: Instant, from: SocketAddr, text: &str, acts: &mut Vec<Act>) {
        if text.starts_with("SIP/2.0 ") {
            self.response(now, text, acts);
        } else {
            self.request(now, from, text, acts);
        }
    }

    fn find(&self, text: &str) -> Option<u64> {
        let id = header(text, "Call-ID");
        self.calls.values().find(|call| call.call_id == id).map(|call| call.number)
    }

    fn response(&mut self, now: Instant, text: &str, acts: &mut Vec<Act>) {
        let Some(number) = self.find(text) else { return };
        let status: u16 = text[8..11].parse().unwrap_or(0);
        let cseq = header(text, "CSeq");
        if status >= 200 {
            let branch = header(text, "Via").split("branch=").nth(1).unwrap_or("").split([';', ',']).next().unwrap_or("");
            let first = *self.finals.entry((branch.to_owned(), cseq.to_owned())).or_insert(status);
            if first != status {
                self.faults.push(format!("{cseq} of call {number} had the final answers {first} and {status}"));
            }
        }
        if number_of_cseq(text) > 1 && (cseq.ends_with("INVITE") || cseq.ends_with("UPDATE")) {
            return self.change_answered(now, number, status, text, acts);
        }
        let call = self.calls.get_mut(&number).expect("found by its Call-ID");
        match (cseq.rsplit(' ').next().unwrap_or(""), status) {
            ("INVITE", 100..200) if call.caller => {
                if matches!(call.stage, Stage::Inviting) {
                    call.stage = Stage::Ringing;
                }
                if let Some(resend) = call.resend.as_mut().filter(|resend| resend.invite) {
                    resend.trying(now);
                }
                self.acknowledge_reliably(now, number, text, acts);
            }
            ("PRACK", 200..) => {
                call.prack.take_if(|prack| number_of_cseq(&prack.text) == number_of_cseq(text));
            }
            ("INVITE", 200..300) if call.caller => self.established(now, number, status, text, acts),
            ("INVITE", 300..) if call.caller => {
                if call.finals.last() != Some(&status) {
                    call.finals.push(status);
                }
                let to = header(text, "To");
                let ack = format!(
                    "ACK {} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKi{number}\r\nMax-Forwards: 70\r\nRoute: <sip:orig@{};lr>\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
                    call.invite.split(' ').nth(1).unwrap_or(""),
                    self.address,
                    self.proxy,
                    call.local,
                    call.call_id
                );
                acts.push(Act::Send { to: self.proxy, text: ack });
                call.resend = None;
                call.deed = None;
                call.stage = Stage::Over;
                call.why_over = "refused";
            }
            ("BYE", 200..) if call.stage == Stage::Leaving => {
                call.resend = None;
                call.stage = Stage::Over;
                acts.push(Act::Close { call: number });
            }
            _ => {}
        }
    }

    /// RFC 3262 §4: a provisional response that wants a PRACK gets one, once.
    fn acknowledge_reliably(&mut self, now: Instant, number: u64, text: &str, acts: &mut Vec<Act>) {
        let call = self.calls.get_mut(&number).expect("found by its Call-ID");
        let sequence: u32 = header(text, "RSeq").parse().unwrap_or(0);
        if sequence == 0 || call.heard >= sequence || !matches!(call.stage, Stage::Inviting | Stage::Ringing) {
            return;
        }
        if call.heard > 0 && sequence != call.heard + 1 {
            self.faults.push(format!("call {number} heard RSeq {sequence} after {}", call.heard));
        }
        call.heard = sequence;
        call.cseq += 1;
        call.target = uri(header(text, "Contact")).to_owned();
        call.routes = all(text, "Record-Route").map(str::to_owned).collect();
        call.routes.reverse();
        call.remote = header(text, "To").to_owned();
        let prack = in_dialog(call, "PRACK", call.cseq, self.address)
            .replace("Content-Length", &format!("RAck: {sequence} 1 INVITE\r\nContent-Length"));
        call.prack = Some(Resend::of(now, prack.clone(), false));
        acts.push(Act::Send { to: self.proxy, text: prack });
    }

    fn established(&mut self, now: Instant, number: u64, status: u16, text: &str, acts: &mut Vec<Act>) {
        let call = self.calls.get_mut(&number).expect("found by its Call-ID");
        if call.finals.last() != Some(&status) {
            call.finals.push(status);
        }
        if call.reply.is_empty() {
            call.target = uri(header(text, "Contact")).to_owned();
            call.routes = all(text, "Record-Route").map(str::to_owned).collect();
            call.routes.reverse();
            call.remote = header(text, "To").to_owned();
            call.reply = in_dialog(call, "ACK", 1, self.address);
            call.resend = None;
            call.peer_path = path_of(text).to_owned();
            let hang_up = call.stage == Stage::Cancelled;
            call.stage = Stage::Up;
            if let Some(to) = authority(&call.peer_path).filter(|_| !hang_up) {
                acts.push(Act::Connect { call: number, to });
            }
            let wait = Duration::from_millis(if hang_up { 0 } else { 500 + self.prng.below(30_000) });
            let leave = hang_up || (!self.climate.patient && self.prng.below(1000) >= self.climate.called_hangs_up);
            let change = self.when_to_change(now);
            let call = self.calls.get_mut(&number).expect("still there");
            call.change = change;
            call.deed = leave.then_some((now + wait, Deed::HangUp));
        }
        let call = &self.calls[&number];
        acts.push(Act::Send { to: self.proxy, text: call.reply.clone() });
    }

    fn request(&mut self, now: Instant, from: SocketAddr, text: &str, acts: &mut Vec<Act>) {
        let method = text.split(' ').next().unwrap_or("");
        let found = self.find(text);
        if found.is_some_and(|number| self.calls[&number].why_over == "died") {
            return;
        }
        match (method, found) {
            ("INVITE" | "UPDATE", Some(number)) if header(text, "To").contains(";tag=") => {
                self.change_asked(now, from, number, text, acts);
            }
            ("INVITE", None) if !header(text, "To").contains(";tag=") => self.invited(now, from, text, acts),
            ("INVITE", Some(number)) => {
                // A resend of the INVITE: the last answer again.
                let call = &self.calls[&number];
                if !call.reply.is_empty() {
                    acts.push(Act::Send { to: from, text: call.reply.clone() });
                }
            }
            ("ACK", Some(number)) => {
                let call = self.calls.get_mut(&number).expect("found by its Call-ID");
                // Who called has numbers of its own: an ACK that comes to it is of a change, whatever its number.
                if call.caller || number_of_cseq(text) != number_of_cseq(&call.invite) {
                    call.taken = None;
                    return;
                }
                if call.resend.as_ref().is_some_and(|resend| !resend.text.starts_with("BYE")) {
                    call.resend = None;
                }
            }
            ("PRACK", Some(number)) => {
                acts.push(Act::Send { to: from, text: answer(text, "200 OK", "", "") });
                let call = self.calls.get_mut(&number).expect("found by its Call-ID");
                call.resend.take_if(|resend| resend.text.starts_with("SIP/2.0 1"));
            }
            ("CANCEL", Some(number)) => {
                acts.push(Act::Send { to: from, text: answer(text, "200 OK", "", "") });
                let call = self.calls.get_mut(&number).expect("found by its Call-ID");
                if matches!(call.stage, Stage::Inviting | Stage::Ringing) {
                    let refusal = answer(&call.invite, "487 Request Terminated", &format!("t{number}"), "");
                    call.stage = Stage::Over;
                    call.why_over = "cancelled";
                    call.deed = None;
                    call.reply = refusal.clone();
                    call.resend =
                        Some(Resend { text: refusal.clone(), next: now + T1, wait: T1, until: now + GIVE_UP, invite: false });
                    acts.push(Act::Send { to: from, text: refusal });
                }
            }
            ("BYE", Some(number)) => {
                acts.push(Act::Send { to: from, text: answer(text, "200 OK", "", "") });
                let call = self.calls.get_mut(&number).expect("found by its Call-ID");
                if call.stage != Stage::Leaving {
                    call.why_over = "bye";
                }
                call.stage = Stage::Over;
                call.resend = None;
                call.deed = None;
                acts.push(Act::Close { call: number });
            }
            ("ACK", None) => {}
            (_, _) => acts.push(Act::Send { to: from, text: answer(text, "481 Call/Transaction Does Not Exist", "x", "") }),
        }
    }

    fn invited(&mut self, now: Instant, from: SocketAddr, text: &str, acts: &mut Vec<Act>) {
        let Some(number) = number_of(text) else {
            return acts.push(Act::Send { to: from, text: answer(text, "404 Not Found", "x", "") });
        };
        // Where both ends of a call are this UE, the called side is a call of its own.
        let number = number + 1_000_000;
        let deed = match self.prng.below(1000) {
            dice if dice < self.climate.silent => None,
            dice if dice < self.climate.silent + self.climate.refuses => Some(Deed::Refuse),
            _ => Some(if self.prng.below(2) == 0 { Deed::Ring } else { Deed::Answer }),
        };
        // A party that stays silent rings out in the end, should the CANCEL that takes the call back never be sent (RFC 3261
        // §9.1: not before a provisional response, and that may be lost).
        let wait = Duration::from_millis(if deed.is_none() { 400_000 } else { self.prng.below(3_000) });
        let deed = deed.or(Some(Deed::Refuse));
        let call = Call {
            number,
            stage: Stage::Inviting,
            caller: false,
            finals: Vec::new(),
            resend: None,
            reply: String::new(),
            peer: from,
            target: uri(header(text, "Contact")).to_owned(),
            routes: all(text, "Record-Route").map(str::to_owned).collect(),
            local: format!("{};tag=t{number}", header(text, "To")),
            remote: header(text, "From").to_owned(),
            call_id: header(text, "Call-ID").to_owned(),
            cseq: 1,
            invite: text.to_owned(),
            deed: deed.map(|deed| (now + wait, deed)),
            path: format!("msrp://{}/b{number}x{:x};tcp", self.msrp, self.prng.u64()),
            peer_path: path_of(text).to_owned(),
            passive: self.prng.below(1000) < self.climate.passive,
            why_over: "",
            ended: None,
            contact: self.contact(&format!("b{number}")),
            change: None,
            changing: None,
            prack: None,
            heard: 0,
            taken: None,
            theirs: None,
            version: 1,
        };
        self.calls.insert(number, call);
        acts.push(Act::Send { to: from, text: answer(text, "100 Trying", "", "") });
    }

    /// Resends and does what is due.
    pub fn due(&mut self, now: Instant, acts: &mut Vec<Act>) {
        for number in self.calls.keys().copied().collect::<Vec<_>>() {
            self.resend(now, number, acts);
            self.change_due(now, number, acts);
            let call = self.calls.get_mut(&number).expect("listed");
            if let Some((_, deed)) = call.deed.take_if(|(at, _)| *at <= now) {
                self.act(now, number, deed, acts);
            }
        }
    }

    fn resend(&mut self, now: Instant, number: u64, acts: &mut Vec<Act>) {
        let call = self.calls.get_mut(&number).expect("listed");
        call.prack.take_if(|prack| now >= prack.until || call.stage == Stage::Over);
        if let Some(text) = call.prack.as_mut().and_then(|prack| prack.again(now)) {
            acts.push(Act::Send { to: call.peer, text });
        }
        let Some(resend) = &mut call.resend else { return };
        if now >= resend.until && resend.text.starts_with("SIP/2.0 1") {
            // RFC 3262 §3: nobody acknowledged it.
            call.resend = None;
            call.stage = Stage::Inviting;
            call.deed = Some((now, Deed::Refuse));
        } else if now >= resend.until {
            let bye = resend.text.starts_with("BYE");
            let accepted = resend.text.starts_with("SIP/2.0 2");
            call.resend = None;
            if accepted {
                // RFC 3261 §13.3.1.4: no ACK in 64*T1: the session is ended by BYE.
                return self.leave(now, number, acts);
            }
            call.stage = Stage::Over;
            call.why_over = if bye { "bye unanswered" } else { "gave up" };
            acts.push(Act::Close { call: number });
        } else if let Some(text) = resend.again(now) {
            acts.push(Act::Send { to: call.peer, text });
        }
    }

    fn act(&mut self, now: Instant, number: u64, deed: Deed, acts: &mut Vec<Act>) {
        let call = self.calls.get_mut(&number).expect("listed");
        match deed {
            Deed::Ring if call.stage == Stage::Inviting => {
                call.stage = Stage::Ringing;
                call.deed = Some((now + Duration::from_millis(self.prng.below(10_000)), Deed::Answer));
                let mut lines = format!("Contact: {}\r\n", call.contact);
                let reliable = all(&call.invite, "Supported").any(|value| value.contains("100rel"));
                if reliable {
                    lines += &format!("Require: 100rel\r\nRSeq: {}\r\n", 1 + self.prng.below(1000));
                }
                let text = answer(&call.invite, "180 Ringing", &format!("t{number}"), &lines);
                call.resend = reliable.then(|| Resend::of(now, text.clone(), false));
                acts.push(Act::Send { to: call.peer, text });
            }
            Deed::Answer if matches!(call.stage, Stage::Inviting | Stage::Ringing) => self.accept(now, number, acts),
            Deed::Refuse if call.stage == Stage::Inviting => {
                let line = ["486 Busy Here", "603 Decline", "480 Temporarily Unavailable", "500 Server Internal Error"]
                    [self.prng.below(4) as usize];
                let text = answer(&call.invite, line, &format!("t{number}"), "");
                call.stage = Stage::Over;
                call.why_over = "refused";
                call.reply = text.clone();
                call.resend = Some(Resend { text: text.clone(), next: now + T1, wait: T1, until: now + GIVE_UP, invite: false });
                acts.push(Act::Send { to: call.peer, text });
            }
            Deed::Cancel if call.stage == Stage::Ringing => {
                call.stage = Stage::Cancelled;
                let text = call
                    .invite
                    .split("\r\n\r\n")
                    .next()
                    .unwrap_or("")
                    .replacen("INVITE ", "CANCEL ", 1)
                    .replace("CSeq: 1 INVITE", "CSeq: 1 CANCEL");
                let text: String = text
                    .split("\r\n")
                    .filter(|line| !line.starts_with("Content-") && !line.starts_with("Contact"))
                    .fold(String::new(), |mut text, line| {
                        let _ = write!(text, "{line}\r\n");
                        text
                    });
                acts.push(Act::Send { to: call.peer, text: text + "Content-Length: 0\r\n\r\n" });
            }
            Deed::HangUp if call.stage == Stage::Up => self.leave(now, number, acts),
            Deed::Die if call.stage == Stage::Up => {
                call.stage = Stage::Over;
                call.why_over = "died";
                (call.resend, call.change, call.changing, call.taken) = (None, None, None, None);
            }
            _ => {}
        }
    }

    fn accept(&mut self, now: Instant, number: u64, acts: &mut Vec<Act>) {
        let call = &self.calls[&number];
        let setup = if call.passive { "passive" } else { "active" };
        let large = call.invite.contains("a=sendonly");
        let body = self.sdp(&call.path, setup, false).replace("a=sendrecv", if large { "a=recvonly" } else { "a=sendrecv" });
        let extra = format!("Contact: {}\r\nAllow: INVITE, ACK, BYE, UPDATE\r\nContent-Type: application/sdp\r\n", call.contact);
        let text = answer(&call.invite, "200 OK", &format!("t{number}"), &extra)
            .replace("Content-Length: 0\r\n\r\n", &format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        let to = authority(&call.peer_path).filter(|_| !call.passive);
        let wait = now + Duration::from_millis(500 + self.prng.below(30_000));
        let hang_up = match self.prng.below(1000) {
            dice if dice < self.climate.dies => Some((wait, Deed::Die)),
            _ if self.climate.patient => None,
            _ => (self.prng.below(1000) < self.climate.called_hangs_up).then_some((wait, Deed::HangUp)),
        };
        let change = self.when_to_change(now);
        let call = self.calls.get_mut(&number).expect("just seen");
        call.stage = Stage::Up;
        call.finals.push(200);
        call.reply = text.clone();
        call.deed = hang_up;
        call.change = change;
        call.resend = Some(Resend { text: text.clone(), next: now + T1, wait: T1, until: now + GIVE_UP, invite: false });
        acts.push(Act::Send { to: call.peer, text });
        if let Some(to) = to {
            acts.push(Act::Connect { call: number, to });
        }
    }

    /// Sends BYE.
    pub fn leave(&mut self, now: Instant, number: u64, acts: &mut Vec<Act>) {
        let Some(call) = self.calls.get_mut(&number).filter(|call| call.stage == Stage::Up) else { return };
        call.cseq += 1;
        let text = in_dialog(call, "BYE", call.cseq, self.address);
        call.stage = Stage::Leaving;
        call.why_over = "left";
        (call.change, call.changing, call.taken) = (None, None, None);
        call.resend = Some(Resend { text: text.clone(), next: now + T1, wait: T1, until: now + GIVE_UP, invite: false });
        acts.push(Act::Send { to: call.peer, text });
    }
}

/// A message without body, with Contact, further lines and a body.
fn with_body(text: String, contact: &str, lines: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    text.replace(
        "Content-Length: 0\r\n\r\n",
        &format!("Contact: {contact}\r\nSupported: timer\r\n{lines}{kind}Content-Length: {}\r\n\r\n{body}", body.len()),
    )
}

fn in_dialog(call: &Call, method: &str, cseq: u32, address: SocketAddr) -> String {
    let mut text = format!(
        "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK{}{}{cseq}\r\n",
        call.target,
        &method[..1],
        call.number
    );
    for route in &call.routes {
        let _ = write!(text, "Route: {route}\r\n");
    }
    let _ = write!(
        text,
        "Max-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
        call.local, call.remote, call.call_id
    );
    text
}

/// A response to `request`, with the lines it copies, our tag where To has none, and `extra` header lines.
fn answer(request: &str, line: &str, tag: &str, extra: &str) -> String {
    let mut text = format!("SIP/2.0 {line}\r\n");
    for via in all(request, "Via") {
        let _ = write!(text, "Via: {via}\r\n");
    }
    if line.starts_with('2') || line.starts_with("18") {
        for route in all(request, "Record-Route") {
            let _ = write!(text, "Record-Route: {route}\r\n");
        }
    }
    let to = header(request, "To");
    let tag = if to.contains(";tag=") || tag.is_empty() { String::new() } else { format!(";tag={tag}") };
    let _ = write!(
        text,
        "From: {}\r\nTo: {to}{tag}\r\nCall-ID: {}\r\nCSeq: {}\r\n{extra}Content-Length: 0\r\n\r\n",
        header(request, "From"),
        header(request, "Call-ID"),
        header(request, "CSeq")
    );
    text
}
