//! What was said in a call, for the operator's page: the SIP messages of all its legs, by method, status, peer and time.
//!
//! No text is kept: a step is eight octets, so a standing session of two legs pays half a kilobyte for 24 of them. The first
//! twelve (how the call began) stay; of what follows, the last twelve. A ladder begins with an initial INVITE, is held as long as
//! its session lives, and waits after that in a queue of bounded length from which the oldest falls out.
//!
//! Messages find their ladder by Call-ID and our own tag, not by Call-ID alone: where both sides of a call are served by this
//! node, the INVITE that we send as one session comes back as the beginning of another.

use super::record::Cdr;
use crate::base::clock::Instant;
use crate::base::hash::Numbered;
use crate::base::prng::Prng;
use crate::base::slab::{Key, Slab};
use crate::limits::{LADDER_PEERS_MAX, LADDER_STEPS_MAX, LADDERS_LOOSE_MAX, RECENT_MAX};
use crate::sip::dialog::DialogId;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::method::Method;
use crate::sip::owner;
use crate::sip::status;
use serde::Serialize;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

/// Steps that stay when there are more than are kept.
const FIRST_STEPS: usize = LADDER_STEPS_MAX / 2;

/// One message of a ladder, as `GET /ladder` lists it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StepView {
    /// Milliseconds since the call's first message.
    pub at_ms: u32,
    /// Name and address of the far end of its leg.
    pub peer: String,
    pub sent: bool,
    /// "INVITE", "200 OK (INVITE)".
    pub what: String,
    /// Messages before this one that are not kept.
    pub gap: u32,
}

/// All ladders of one core, and the records of the calls that ended last.
pub struct Ladders {
    /// Nobody could ask for what is kept without an admin server, so nothing is kept then.
    keeps: bool,
    /// A capture server is told which call a message belongs to.
    pub names: bool,
    seed: u64,
    table: Slab<Ladder>,
    /// Digest of Call-ID and our tag (empty: the origin's leg, before it has one) to ladder and peer.
    dialogs: Numbered<u64, (Key, u8)>,
    /// Ladders of calls that are no session yet, or none any more; the oldest first.
    loose: VecDeque<Key>,
    recent: VecDeque<Cdr>,
}

struct Ladder {
    began: Instant,
    /// Its first Call-ID; empty where nobody is told of it.
    call_id: Box<str>,
    /// A session lives whose ladder this is.
    held: bool,
    /// Keys in [`Ladders::dialogs`].
    keys: Vec<u64>,
    peers: Vec<Peer>,
    steps: Vec<Step>,
    /// Steps left out between the first ones and the last ones.
    gap: u32,
}

#[derive(Clone, Copy)]
struct Peer {
    name: &'static str,
    address: Option<SocketAddr>,
}

#[derive(Clone, Copy)]
struct Step {
    at_ms: u32,
    /// 0: a request.
    status: u16,
    method: Method,
    /// Twice the peer's index, and one if we sent it.
    way: u8,
}

/// What a step needs to know of a message.
struct Glance<'a> {
    status: u16,
    method: Method,
    call_id: &'a str,
    local_tag: &'a str,
    /// A request without To tag.
    initial: bool,
}

impl Ladders {
    /// For at most so many sessions at a time.
    pub fn new(keeps: bool, sessions: usize, prng: &mut Prng) -> Self {
        Self {
            keeps,
            names: false,
            seed: prng.u64(),
            table: Slab::with_capacity(sessions + LADDERS_LOOSE_MAX),
            dialogs: Numbered::default(),
            loose: VecDeque::new(),
            recent: VecDeque::new(),
        }
    }

    /// A message that came from or goes to `peer`.
    pub fn message(&mut self, now: Instant, sent: bool, peer: SocketAddr, octets: &[u8]) {
        if !self.keeps {
            return;
        }
        let Some(glance) = glance(octets, sent) else { return };
        let Some((key, at)) = self.find(&glance).or_else(|| self.begin(now, sent, &glance)) else { return };
        let Some(ladder) = self.table.get_mut(key) else { return };
        let at = match at {
            Some(at) => at,
            None if ladder.held => 0,
            None => ladder.peer_at(peer),
        };
        let Some(known) = ladder.peers.get_mut(usize::from(at)) else { return };
        known.address.get_or_insert(peer);
        let at_ms = u32::try_from(now.since(ladder.began).as_millis()).unwrap_or(u32::MAX);
        ladder.push(Step { at_ms, status: glance.status, method: glance.method, way: 2 * at + u8::from(sent) });
    }

    /// The call became a session; `origin` is the dialog of the leg its INVITE came in on.
    pub fn hold(&mut self, origin: &DialogId) {
        let Some((key, 0)) = self.dialogs.get(&self.digest(&origin.call_id, "")).copied() else { return };
        let Some(ladder) = self.table.get_mut(key) else { return };
        ladder.held = true;
        if let Some(at) = self.loose.iter().rposition(|loose| *loose == key) {
            self.loose.remove(at);
        }
        self.name(key, &origin.call_id, &origin.local_tag, 0);
    }

    /// The session has a further leg.
    pub fn join(&mut self, origin: &DialogId, call_id: &str, local_tag: &str, name: &'static str) {
        let Some((key, _)) = self.dialogs.get(&self.digest(&origin.call_id, &origin.local_tag)).copied() else { return };
        let Some(ladder) = self.table.get_mut(key).filter(|ladder| ladder.peers.len() < LADDER_PEERS_MAX) else { return };
        ladder.peers.push(Peer { name, address: None });
        let at = ladder.peers.len() as u8 - 1;
        self.name(key, call_id, local_tag, at);
    }

    /// The session is no more; its last answers may still be on their way.
    pub fn release(&mut self, origin: &DialogId) {
        let Some((key, _)) = self.dialogs.get(&self.digest(&origin.call_id, &origin.local_tag)).copied() else { return };
        if let Some(ladder) = self.table.get_mut(key).filter(|ladder| ladder.held) {
            ladder.held = false;
            self.let_go(key);
        }
    }

    /// A call record was written.
    pub fn recorded(&mut self, record: &Cdr) {
        if !self.keeps {
            return;
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(record.clone());
    }

    /// Records of the calls that ended last, the latest first.
    pub fn recent(&self) -> Vec<Cdr> {
        self.recent.iter().rev().cloned().collect()
    }

    /// Whether a message belongs to the call that began with this Call-ID.
    pub fn is_of(&self, octets: &[u8], sent: bool, call_id: &str) -> bool {
        let Some(glance) = glance(octets, sent) else { return false };
        let of = self.dialogs.get(&self.digest(call_id, "")).map(|(key, _)| *key);
        glance.call_id == call_id || of.is_some_and(|key| self.find(&glance).is_some_and(|(found, _)| found == key))
    }

    /// The Call-ID with which the call began that a message belongs to, where names are kept.
    pub fn beginning(&self, octets: &[u8], sent: bool) -> Option<&str> {
        let (key, _) = self.find(&glance(octets, sent)?)?;
        self.table.get(key).map(|ladder| &*ladder.call_id).filter(|call_id| !call_id.is_empty())
    }

    /// What was said in the call that began with this Call-ID.
    pub fn steps(&self, call_id: &str) -> Option<Vec<StepView>> {
        let (key, _) = self.dialogs.get(&self.digest(call_id, ""))?;
        let ladder = self.table.get(*key)?;
        Some(ladder.steps.iter().enumerate().map(|(at, step)| ladder.view(at, step)).collect())
    }

    fn find(&self, glance: &Glance<'_>) -> Option<(Key, Option<u8>)> {
        let ours = (!glance.local_tag.is_empty()).then(|| self.digest(glance.call_id, glance.local_tag));
        if let Some((key, at)) = ours.and_then(|digest| self.dialogs.get(&digest)) {
            return Some((*key, Some(*at)));
        }
        let (key, _) = self.dialogs.get(&self.digest(glance.call_id, ""))?;
        Some((*key, None))
    }

    fn begin(&mut self, now: Instant, sent: bool, glance: &Glance<'_>) -> Option<(Key, Option<u8>)> {
        if sent || !glance.initial || glance.method != Method::Invite {
            return None;
        }
        let call_id = if self.names { glance.call_id.into() } else { Box::default() };
        let ladder = Ladder {
            began: now,
            call_id,
            held: false,
            // What a call of two legs takes.
            keys: Vec::with_capacity(3),
            peers: Vec::with_capacity(2),
            steps: Vec::with_capacity(8),
            gap: 0,
        };
        let key = self.table.insert(ladder).ok()?;
        self.name(key, glance.call_id, "", 0);
        self.let_go(key);
        Some((key, None))
    }

    /// Puts a ladder into the queue that the oldest falls out of.
    fn let_go(&mut self, key: Key) {
        if self.loose.len() >= LADDERS_LOOSE_MAX
            && let Some(oldest) = self.loose.pop_front()
        {
            for digest in self.table.remove(oldest).map(|ladder| ladder.keys).unwrap_or_default() {
                if self.dialogs.get(&digest).is_some_and(|(key, _)| *key == oldest) {
                    self.dialogs.remove(&digest);
                }
            }
        }
        self.loose.push_back(key);
    }

    fn name(&mut self, key: Key, call_id: &str, local_tag: &str, at: u8) {
        let digest = self.digest(call_id, local_tag);
        let Some(ladder) = self.table.get_mut(key) else { return };
        if at == 0 && ladder.peers.is_empty() {
            ladder.peers.push(Peer { name: "origin", address: None });
        }
        ladder.keys.push(digest);
        self.dialogs.insert(digest, (key, at));
    }

    /// Seeded, so that no peer can choose Call-IDs that fall together.
    fn digest(&self, call_id: &str, local_tag: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, call_id, local_tag).hash(&mut hasher);
        hasher.finish()
    }
}

impl Ladder {
    fn push(&mut self, step: Step) {
        if self.steps.len() >= LADDER_STEPS_MAX {
            self.steps.remove(FIRST_STEPS);
            self.gap = self.gap.saturating_add(1);
        }
        self.steps.push(step);
    }

    /// A call without session (proxied, refused, not yet decided) has no legs of ours: its far ends are told by address.
    fn peer_at(&mut self, address: SocketAddr) -> u8 {
        if let Some(at) = self.peers.iter().position(|peer| peer.address.is_none_or(|known| known == address)) {
            return at as u8;
        }
        if self.peers.len() < LADDER_PEERS_MAX {
            self.peers.push(Peer { name: "next hop", address: Some(address) });
        }
        self.peers.len() as u8 - 1
    }

    fn view(&self, at: usize, step: &Step) -> StepView {
        let index = usize::from(step.way / 2);
        let peer = match self.peers.get(index) {
            Some(Peer { name, address: Some(address) }) => {
                let before = self.peers[..index].iter().filter(|peer| peer.name == *name).count();
                let same = self.peers.iter().filter(|peer| peer.name == *name).count();
                let number = if same > 1 { format!(" {}", before + 1) } else { String::new() };
                format!("{name}{number} {address}")
            }
            Some(Peer { name, .. }) => (*name).to_string(),
            None => String::new(),
        };
        let what = match step.status {
            0 => step.method.as_str().to_string(),
            code => format!("{code} {} ({})", status::reason(code), step.method.as_str()),
        };
        let gap = if at == FIRST_STEPS { self.gap } else { 0 };
        StepView { at_ms: step.at_ms, peer, sent: step.way % 2 == 1, what, gap }
    }
}

fn tag(value: &str) -> Option<&str> {
    NameAddr::parse(value).ok()?.tag()
}

/// Our own tag in a message, where it has one.
pub(super) fn local_tag(octets: &[u8], sent: bool) -> Option<&str> {
    glance(octets, sent).map(|glance| glance.local_tag).filter(|tag| !tag.is_empty())
}

/// Start line, Call-ID, CSeq and our own tag; nothing more of the message is looked at. None: it is not SIP.
fn glance(octets: &[u8], sent: bool) -> Option<Glance<'_>> {
    let line = owner::start_line(octets)?;
    let status = match line.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("SIP/")) {
        true => line.split(' ').nth(1)?.parse().ok()?,
        false => 0,
    };
    let (mut call_id, mut from, mut to, mut method) = (None, None, None, None);
    for (name, value) in owner::headers(octets) {
        match name {
            Name::CallId => call_id = call_id.or(Some(value)),
            Name::From => from = from.or(Some(value)),
            Name::To => to = to.or(Some(value)),
            Name::CSeq => method = method.or_else(|| value.split_ascii_whitespace().nth(1).map(Method::of)),
            _ => continue,
        }
        if call_id.is_some() && from.is_some() && to.is_some() && method.is_some() {
            break;
        }
    }
    // Of what we ask and of what answers us, From is ours; of what asks us and of what we answer, To is.
    let local_tag = if sent == (status == 0) { tag(from?) } else { tag(to?) };
    let initial = status == 0 && tag(to?).is_none();
    Some(Glance { status, method: method?, call_id: call_id?, local_tag: local_tag.unwrap_or(""), initial })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Duration;

    const NOW: Instant = Instant::from_unix_s(1_000);

    fn message(line: &str, call_id: &str, from: &str, to: &str, method: &str) -> Vec<u8> {
        format!(
            "{line}\r\nVia: SIP/2.0/UDP a\r\nf: <sip:a@x>{from}\r\nTo: <sip:b@x>{to}\r\ni: {call_id}\r\nCSeq: 1 {method}\r\n\r\n"
        )
        .into_bytes()
    }

    fn id(call_id: &str, local_tag: &str) -> DialogId {
        DialogId { call_id: call_id.into(), local_tag: local_tag.into(), remote_tag: "".into() }
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn ladders() -> Ladders {
        Ladders::new(true, 4, &mut Prng::seeded(1))
    }

    fn said(ladders: &Ladders, call_id: &str) -> Vec<String> {
        let arrow = |step: StepView| format!("{} {} {}", step.peer, if step.sent { "<" } else { ">" }, step.what);
        ladders.steps(call_id).unwrap_or_default().into_iter().map(arrow).collect()
    }

    #[test]
    fn both_legs_of_a_session_stand_in_one_ladder() {
        let mut ladders = ladders();
        ladders.message(NOW, false, at(1), &message("INVITE sip:b@x SIP/2.0", "c", ";tag=1", "", "INVITE"));
        ladders.hold(&id("c", "ours"));
        ladders.join(&id("c", "ours"), "d", "mine", "client");
        ladders.message(NOW, true, at(1), &message("SIP/2.0 100 Trying", "c", ";tag=1", "", "INVITE"));
        ladders.message(NOW, true, at(2), &message("INVITE sip:b@x SIP/2.0", "d", ";tag=mine", "", "INVITE"));
        ladders.message(NOW, false, at(2), &message("SIP/2.0 200 OK", "d", ";tag=mine", ";tag=2", "INVITE"));
        ladders.message(NOW, true, at(1), &message("SIP/2.0 200 OK", "c", ";tag=1", ";tag=ours", "INVITE"));
        ladders.release(&id("c", "ours"));
        let bye = message("BYE sip:b@x SIP/2.0", "d", ";tag=2", ";tag=mine", "BYE");
        ladders.message(NOW + Duration::from_millis(7), false, at(2), &bye);
        let expected = [
            "origin 127.0.0.1:1 > INVITE",
            "origin 127.0.0.1:1 < 100 Trying (INVITE)",
            "client 127.0.0.1:2 < INVITE",
            "client 127.0.0.1:2 > 200 OK (INVITE)",
            "origin 127.0.0.1:1 < 200 OK (INVITE)",
            "client 127.0.0.1:2 > BYE",
        ];
        assert_eq!(said(&ladders, "c"), expected);
        assert_eq!(ladders.steps("c").unwrap().last().unwrap().at_ms, 7);
    }

    #[test]
    fn an_invite_of_ours_that_comes_back_begins_a_ladder_of_its_own() {
        let mut ladders = ladders();
        ladders.message(NOW, false, at(1), &message("INVITE sip:b@x SIP/2.0", "c", ";tag=1", "", "INVITE"));
        ladders.hold(&id("c", "ours"));
        ladders.join(&id("c", "ours"), "d", "mine", "recipient");
        let invite = message("INVITE sip:b@x SIP/2.0", "d", ";tag=mine", "", "INVITE");
        ladders.message(NOW, true, at(9), &invite);
        ladders.message(NOW, false, at(9), &invite);
        ladders.hold(&id("d", "theirs"));
        let ok = message("SIP/2.0 200 OK", "d", ";tag=mine", ";tag=theirs", "INVITE");
        ladders.message(NOW, true, at(9), &ok);
        ladders.message(NOW, false, at(9), &ok);
        assert_eq!(said(&ladders, "d"), ["origin 127.0.0.1:9 > INVITE", "origin 127.0.0.1:9 < 200 OK (INVITE)"]);
        let expected =
            ["origin 127.0.0.1:1 > INVITE", "recipient 127.0.0.1:9 < INVITE", "recipient 127.0.0.1:9 > 200 OK (INVITE)"];
        assert_eq!(said(&ladders, "c"), expected);
    }

    #[test]
    fn a_proxied_call_tells_its_far_ends_by_address() {
        let mut ladders = ladders();
        let invite = message("INVITE sip:b@x SIP/2.0", "c", ";tag=1", "", "INVITE");
        ladders.message(NOW, false, at(1), &invite);
        ladders.message(NOW, true, at(2), &invite);
        ladders.message(NOW, false, at(2), &message("SIP/2.0 404 Not Found", "c", ";tag=1", ";tag=2", "INVITE"));
        let expected =
            ["origin 127.0.0.1:1 > INVITE", "next hop 127.0.0.1:2 < INVITE", "next hop 127.0.0.1:2 > 404 Not Found (INVITE)"];
        assert_eq!(said(&ladders, "c"), expected);
    }

    #[test]
    fn of_a_long_call_its_beginning_and_its_end_stay() {
        let mut ladders = ladders();
        ladders.message(NOW, false, at(1), &message("INVITE sip:b@x SIP/2.0", "c", ";tag=1", "", "INVITE"));
        for _ in 0..LADDER_STEPS_MAX {
            ladders.message(NOW, false, at(1), &message("INFO sip:b@x SIP/2.0", "c", ";tag=1", ";tag=x", "INFO"));
        }
        ladders.message(NOW, false, at(1), &message("BYE sip:b@x SIP/2.0", "c", ";tag=1", ";tag=x", "BYE"));
        let steps = ladders.steps("c").unwrap();
        assert_eq!(steps.len(), LADDER_STEPS_MAX);
        assert_eq!((steps[0].what.as_str(), steps[LADDER_STEPS_MAX - 1].what.as_str()), ("INVITE", "BYE"));
        assert_eq!(steps.iter().map(|step| step.gap).sum::<u32>(), 2);
    }

    #[test]
    fn what_is_kept_is_bounded_and_small() {
        assert_eq!(size_of::<Step>(), 8);
        let mut ladders = ladders();
        for call in 0..2 * LADDERS_LOOSE_MAX {
            let call_id = format!("c{call}");
            ladders.message(NOW, false, at(1), &message("INVITE sip:b@x SIP/2.0", &call_id, ";tag=1", "", "INVITE"));
            ladders.recorded(&Cdr::default());
        }
        assert_eq!((ladders.table.len(), ladders.dialogs.len()), (LADDERS_LOOSE_MAX, LADDERS_LOOSE_MAX));
        assert_eq!(ladders.recent().len(), RECENT_MAX);
        assert!(ladders.steps("c0").is_none());
    }

    #[test]
    fn what_is_no_sip_message_is_passed_over() {
        let mut ladders = ladders();
        for octets in
            [&b""[..], b"x", b"INVITE\r\n\r\n", b"SIP/2.0 abc\r\n\r\n", b"\r\n\r\n", b"SIP/2.0 \xff\r\nCall-ID: c\r\n\r\n"]
        {
            ladders.message(NOW, false, at(1), octets);
        }
        assert!(ladders.table.is_empty());
    }
}
