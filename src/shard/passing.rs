//! RFC 3261 §8.2.7, §21.5.4: new calls turned away in passing, while far more come than a core can serve.
//!
//! ```text
//! slow queue ─> 503 by the ordinary way, with its line in log and call records        the first of each second
//!            └> 503 from the octets of the INVITE: no parse, no 100, no transaction    the rest: a call record each, and the
//!                                                                                      log's next line counts them
//! ```
//! A call refused by the ordinary way costs some tenth of one that is served; at several times the load that saturates a core that
//! would be most of its time. Here a refusal is one look over the head. Its tag says so, and its ACK ends at the tag.

use super::counts::{Direction, Outcome, case_label, service_label};
use super::outbox::{Effect, Outbox, SendTag};
use super::record::Cdr;
use super::signalling::Signalling;
use crate::base::clock::Instant;
use crate::base::transport::Flow;
use crate::cpm::decision::Service;
use crate::cpm::facts::Role;
use crate::limits::SIP_FIELDS_MAX;
use crate::sip::header::list;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::header::via::{self, Via};
use crate::sip::method::Method;
use crate::sip::owner;
use crate::sip::write::Writer;
use memchr::memmem;

/// With what the To tag of such a refusal begins.
const TAG: &str = "turned-away-";
/// What it is counted as.
const CAUSE: &str = "limits.overload_queue_delay";

/// What of an INVITE goes back in its refusal.
#[derive(Default)]
struct Head<'m> {
    vias: Vec<&'m str>,
    from: &'m str,
    to: &'m str,
    call_id: &'m str,
    cseq: &'m str,
}

impl<'m> Head<'m> {
    /// None: something is missing or unusual; the ordinary way sees what that is.
    fn of(octets: &'m [u8]) -> Option<Self> {
        let mut head = Head::default();
        for (name, value) in owner::headers(octets).take(SIP_FIELDS_MAX) {
            let field = match name {
                Name::Via => {
                    head.vias.push(value);
                    continue;
                }
                Name::From => &mut head.from,
                Name::To => &mut head.to,
                Name::CallId => &mut head.call_id,
                Name::CSeq => &mut head.cseq,
                _ => continue,
            };
            if !field.is_empty() {
                return None;
            }
            *field = value;
        }
        let fields = [head.from, head.to, head.call_id, head.cseq];
        let whole = fields.iter().all(|value| !value.is_empty() && !value.contains(['\r', '\n', '\0']));
        let vias = !head.vias.is_empty() && head.vias.iter().all(|value| !value.contains(['\r', '\n', '\0']));
        (whole && vias && NameAddr::parse(head.to).ok()?.tag().is_none()).then_some(head)
    }

    /// The same for each resend of the same INVITE (§8.2.7).
    fn tag(&self, via: &Via<'_>) -> u64 {
        owner::hash(self.call_id)
            ^ owner::hash(via.branch().unwrap_or("")).rotate_left(17)
            ^ owner::hash(self.cseq).rotate_left(31)
    }

    fn refuse(&self, top: &str, via: &Via<'_>, flow: &Flow, retry_after_s: u64, buffer: &mut Vec<u8>) {
        let mut writer = Writer::response(buffer, 503, "Service Unavailable");
        for (at, line) in self.vias.iter().enumerate() {
            if at > 0 {
                writer.field(Name::Via, line);
                continue;
            }
            let rest = line.find(top).map_or("", |start| &line[start + top.len()..]);
            writer.with(Name::Via, |buffer| {
                via::write_received(top, flow.peer, buffer);
                buffer.extend_from_slice(rest.as_bytes());
            });
        }
        writer.field(Name::From, self.from);
        writer.format(Name::To, format_args!("{};tag={TAG}{:016x}", self.to, self.tag(via)));
        writer.field(Name::CallId, self.call_id).field(Name::CSeq, self.cseq);
        writer.format(Name::RetryAfter, format_args!("{retry_after_s}"));
        writer.body(b"");
    }
}

impl Signalling {
    /// Whether a message needs nothing more: a new call among too many, refused; the ACK of one.
    pub(super) fn turned_away(&mut self, now: Instant, flow: &Flow, octets: &[u8], out: &mut Outbox) -> bool {
        if octets.starts_with(b"ACK ") {
            let acknowledges = is_of_refusal(octets);
            if acknowledges {
                self.counts.request(Method::Ack, Direction::In);
            }
            return acknowledges;
        }
        if !octets.starts_with(b"INVITE ") || !self.overload.is_flooded(now, self.config.limits.overload_queue_delay) {
            return false;
        }
        let Some(head) = Head::of(octets) else { return false };
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
        let (role, service) = about(octets);
        let uri = |value: &str| NameAddr::parse(value).map_or(String::new(), |address| address.uri.to_string());
        let record = Cdr {
            case: case_label(role),
            service: service_label(service),
            call_id: head.call_id.to_string(),
            originator: uri(head.from),
            recipient: uri(head.to),
            started_s: now.unix_s(),
            status: 503,
            cause: CAUSE,
            ..Cdr::default()
        };
        out.effects.push(Effect::Counted(Box::new(record)));
        self.counts.request(Method::Invite, Direction::In);
        self.counts.invite(role, service, Outcome::Shed);
        self.counts.rejection(CAUSE, 503);
        self.counts.response(Method::Invite, 503, Direction::Out);
        true
    }
}

fn is_of_refusal(octets: &[u8]) -> bool {
    memmem::find(octets, TAG.as_bytes()).is_some()
        && owner::header(octets, Name::To).and_then(|to| NameAddr::parse(to).ok()?.tag()).is_some_and(|tag| tag.starts_with(TAG))
}

/// The metric's labels, from a look: whose session case P-Served-User or a Route says, and which feature tag stands.
fn about(octets: &[u8]) -> (Role, Option<Service>) {
    let has = |text: &str| memmem::find(octets, text.as_bytes()).is_some();
    let role = if has("sescase=orig") || has("sip:orig@") { Role::Originating } else { Role::Terminating };
    let service = if has("oma.cpm.largemsg") {
        Some(Service::LargeMessage)
    } else if has("oma.cpm.session") {
        Some(Service::Session)
    } else {
        None
    };
    (role, service)
}
