//! RFC 3261 §8.2.7, §21.5.4: new calls turned away in passing, while far more come than a core can serve.
//!
//! ```text
//! slow queue ─> 503 by the ordinary way, with its line in log and call records        the first of each second
//!            └> 503 from the octets of the INVITE: no parse, no 100, no transaction    the rest: a call record each, and the
//!                                                                                      log's next line counts them
//! ```
//! A call refused by the ordinary way costs some tenth of one that is served; at several times the load that saturates a core that
//! would be most of its time. Here a refusal is one look over the head. Its tag says so, and its ACK ends at the tag: as no response is
//! sent again, none is waited for.
//!
//! A refusal with Retry-After makes a peer go elsewhere. Where even refusals would take too much, a part of new calls is dropped
//! (`dropping.rs`).

use super::counts::{Direction, Outcome, case_label, service_label};
use super::outbox::{Outbox, SendTag};
use super::signalling::Signalling;
use crate::base::clock::Instant;
use crate::base::transport::Flow;
use crate::cpm::decision::Service;
use crate::cpm::facts::Role;
use crate::limits::SIP_FIELDS_MAX;
use crate::sip::header::list;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::header::via::Via;
use crate::sip::ids::UNACKNOWLEDGED;
use crate::sip::method::Method;
use crate::sip::owner;
use crate::sip::write::Writer;
use memchr::memmem::Finder;

/// With what the To tag of such a refusal begins, before [`UNACKNOWLEDGED`].
const TAG: &str = "turned-away";
/// What it is counted as.
const CAUSE: &str = "limits.overload_queue_delay";
/// Via fields of an INVITE that is turned away so: more hops than any core has before us.
const VIAS_MAX: usize = 8;

/// What is looked for in octets, prepared once.
pub struct Looks {
    tag: Finder<'static>,
    originating: [Finder<'static>; 2],
    large_message: Finder<'static>,
    session: Finder<'static>,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            tag: Finder::new(UNACKNOWLEDGED),
            originating: [Finder::new("sescase=orig"), Finder::new("sip:orig@")],
            large_message: Finder::new("oma.cpm.largemsg"),
            session: Finder::new("oma.cpm.session"),
        }
    }
}

/// What of an INVITE goes back in its refusal, and what its record says.
struct Head<'m> {
    vias: [&'m str; VIAS_MAX],
    hops: usize,
    from: &'m str,
    to: &'m str,
    call_id: &'m str,
    cseq: &'m str,
    originator: &'m str,
    recipient: &'m str,
    /// The metric's labels, from a look: whose session case P-Served-User or a Route says, and which feature tag stands.
    role: Role,
    service: Option<Service>,
}

impl<'m> Head<'m> {
    /// None: something is missing or unusual; the ordinary way sees what that is.
    fn of(octets: &'m [u8], looks: &Looks) -> Option<Self> {
        let has = |finder: &Finder<'_>, value: &str| finder.find(value.as_bytes()).is_some();
        let (mut vias, mut hops) = ([""; VIAS_MAX], 0);
        let (mut from, mut to, mut call_id, mut cseq) = ("", "", "", "");
        let (mut role, mut large_message, mut session) = (Role::Terminating, false, false);
        // Via, From, To, Call-ID, CSeq; Route, P-…, Accept-Contact.
        let wanted = |letter| matches!(letter, b'v' | b'f' | b't' | b'i' | b'c' | b'r' | b'p' | b'a');
        for (name, value) in owner::headers_of(octets, wanted).take(SIP_FIELDS_MAX) {
            let field = match name {
                Name::Via => {
                    *vias.get_mut(hops)? = one_line(value)?;
                    hops += 1;
                    continue;
                }
                Name::From => &mut from,
                Name::To => &mut to,
                Name::CallId => &mut call_id,
                Name::CSeq => &mut cseq,
                Name::Route | Name::PServedUser => {
                    if looks.originating.iter().any(|finder| has(finder, value)) {
                        role = Role::Originating;
                    }
                    continue;
                }
                Name::AcceptContact | Name::PPreferredService | Name::PAssertedService => {
                    large_message |= has(&looks.large_message, value);
                    session |= has(&looks.session, value);
                    continue;
                }
                _ => continue,
            };
            if !field.is_empty() {
                return None;
            }
            *field = one_line(value)?;
        }
        if hops == 0 || [from, to, call_id, cseq].contains(&"") {
            return None;
        }
        let (originator, recipient) = (NameAddr::parse(from).ok()?, NameAddr::parse(to).ok()?);
        if recipient.tag().is_some() {
            return None;
        }
        let service = if large_message { Some(Service::LargeMessage) } else { session.then_some(Service::Session) };
        let (originator, recipient) = (originator.uri, recipient.uri);
        Some(Head { vias, hops, from, to, call_id, cseq, originator, recipient, role, service })
    }

    /// The same for each resend of the same INVITE (§8.2.7).
    fn tag(&self, via: &Via<'_>) -> u64 {
        owner::hash(self.call_id)
            ^ owner::hash(via.branch().unwrap_or("")).rotate_left(17)
            ^ owner::hash(self.cseq).rotate_left(31)
    }

    /// `via` was read from `top`, the first value of the first Via field.
    fn refuse(&self, top: &str, via: &Via<'_>, flow: &Flow, retry_after_s: u64, buffer: &mut Vec<u8>) {
        let mut writer = Writer::response(buffer, 503, "Service Unavailable");
        let [first, others @ ..] = &self.vias[..self.hops] else { return };
        writer.with(Name::Via, |buffer| {
            via.write_received(top, flow.peer, buffer);
            let behind = top.as_ptr().addr() - first.as_ptr().addr() + top.len();
            buffer.extend_from_slice(&first.as_bytes()[behind..]);
        });
        for line in others {
            writer.field(Name::Via, line);
        }
        writer.field(Name::From, self.from);
        writer.with(Name::To, |buffer| {
            buffer.extend_from_slice(self.to.as_bytes());
            buffer.extend_from_slice(b";tag=");
            buffer.extend_from_slice(TAG.as_bytes());
            buffer.extend_from_slice(UNACKNOWLEDGED.as_bytes());
            buffer.extend_from_slice(&hex(self.tag(via)));
        });
        writer.field(Name::CallId, self.call_id).field(Name::CSeq, self.cseq);
        writer.field(Name::RetryAfter, itoa::Buffer::new().format(retry_after_s));
        writer.body(b"");
    }
}

/// A value that ends no line.
fn one_line(value: &str) -> Option<&str> {
    memchr::memchr3(b'\r', b'\n', b'\0', value.as_bytes()).is_none().then_some(value)
}

fn hex(number: u64) -> [u8; 16] {
    std::array::from_fn(|at| b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 15])
}

impl Signalling {
    /// Whether a message needs nothing more: a new call among too many, refused; the ACK of one.
    pub(super) fn turned_away(&mut self, now: Instant, flow: &Flow, octets: &[u8], out: &mut Outbox) -> bool {
        if octets.starts_with(b"ACK ") {
            let acknowledges = self.overload.looks.is_of_refusal(octets);
            if acknowledges {
                self.counts.request(Method::Ack, Direction::In);
            }
            return acknowledges;
        }
        if !octets.starts_with(b"INVITE ") || !self.overload.is_flooded(now, self.config.limits.overload_queue_delay) {
            return false;
        }
        let Some(head) = Head::of(octets, &self.overload.looks) else { return false };
        let Some(top) = list(head.vias[0]).next() else { return false };
        let Ok(via) = Via::parse(top) else { return false };
        // A resend of an INVITE that is being served is none of a new call.
        if self.transactions.serves_invite(&via) != Some(false) {
            return false;
        }
        let retry_after_s = 1 + self.prng.below(5);
        let to = via.response_destination(flow);
        out.send(to, SendTag(0), |buffer| head.refuse(top, &via, flow, retry_after_s, buffer));
        self.overload.turned_away += 1;
        self.overload.calls.came += 1;
        self.overload.calls.refused += 1;
        let labels = (case_label(head.role), service_label(head.service));
        out.refusals.add(now, labels, [head.call_id, head.originator, head.recipient], 503, CAUSE);
        self.counts.request(Method::Invite, Direction::In);
        self.counts.invite(head.role, head.service, Outcome::Shed);
        self.counts.rejection(CAUSE, 503);
        self.counts.response(Method::Invite, 503, Direction::Out);
        true
    }
}

impl Looks {
    /// Whether an ACK is of a refusal of ours.
    fn is_of_refusal(&self, octets: &[u8]) -> bool {
        let Some((_, to)) = owner::headers_of(octets, |letter| letter == b't').find(|(name, _)| *name == Name::To) else {
            return false;
        };
        self.tag.find(to.as_bytes()).is_some()
            && NameAddr::parse(to)
                .ok()
                .and_then(|to| to.tag())
                .and_then(|tag| tag.strip_prefix(TAG))
                .is_some_and(|rest| rest.starts_with(UNACKNOWLEDGED))
    }
}
