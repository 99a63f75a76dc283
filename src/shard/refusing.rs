//! RFC 3261 §8.2, CR 6.2: how requests are refused, and where a refusal is seen: its clause in a metric, a line in the call records.

use super::counts::{Direction, case_label, service_label};
use super::outbox::{Effect, Outbox, SendTag};
use super::record::Cdr;
use super::sessions::Arrived;
use super::signalling::{Signalling, service_of};
use crate::base::clock::Instant;
use crate::base::transport::Flow;
use crate::clause;
use crate::cpm::procedures::Procedure;
use crate::cpm::refusal::Refusal;
use crate::sip::header::name::Name;
use crate::sip::message::Incoming;
use crate::sip::method::Method;
use crate::sip::transaction::seam::ServerKey;
use crate::sip::validate::{self, Reject};
use crate::sip::{lenient, owner, status};

impl Signalling {
    /// OLM-8.a, OSI-4.m: a Request-URI that is neither SIP nor TEL is the Interworking Selection Function's to read, where
    /// there is one.
    pub(super) fn tolerated(&self, incoming: &Incoming, reject: Reject) -> Result<(), Reject> {
        match incoming {
            Incoming::Request(request) if reject.status() == Some(416) && self.config.sip.isf.is_some() => {
                match validate::max_forwards(request)? {
                    Some(0) => Err(Reject::Answer { status: 483, context: "header > max-forwards" }),
                    _ => Ok(()),
                }
            }
            _ => Err(reject),
        }
    }

    /// What cannot be served is answered from its octets, without a transaction (RFC 3261 §8.2.7).
    pub(super) fn reject(&mut self, now: Instant, flow: &Flow, message: &[u8], reject: Reject, out: &mut Outbox) {
        clause!("62-1");
        self.counts.malformed += 1;
        let mut octets = Vec::new();
        let answer = reject.status().and_then(|status| {
            lenient::refuse(message, flow, self.shard, status, &reject.reason(), &mut octets).map(|to| (status, to))
        });
        if let Some((status, to)) = answer {
            self.counts.rejection("RFC 3261 §8.2", status);
            self.counts.response(Method::Other, status, Direction::Out);
            out.send(to, SendTag(0), |buffer| buffer.extend_from_slice(&octets));
            let record = Cdr {
                call_id: owner::header(message, Name::CallId).unwrap_or("").to_string(),
                originator: flow.peer.to_string(),
                started_s: now.unix_s(),
                status,
                cause: reject.context(),
                ..Cdr::default()
            };
            out.effects.push(Effect::Record(Box::new(record)));
        } else {
            out.effects.push(Effect::Dropped { flow: *flow, octets: message.len(), cause: reject.context() });
        }
    }

    /// A line in the call records for a request that was refused.
    pub(super) fn record_refusal(
        &mut self,
        now: Instant,
        arrived: &Arrived,
        procedure: Procedure,
        status: u16,
        clause: &'static str,
        out: &mut Outbox,
    ) {
        if matches!(arrived.request.method(), Method::Invite | Method::Message) {
            let labels = (case_label(arrived.role), service_label(service_of(procedure)));
            let record = Cdr::refused(now, labels, &arrived.request, status, clause);
            out.effects.push(Effect::Record(Box::new(record)));
        }
    }

    /// Answers with a refusal: its status, Warning and header fields; counted by clause.
    pub(super) fn refuse(&mut self, now: Instant, server: ServerKey, refusal: &Refusal, out: &mut Outbox) {
        let Refusal { status, reason, clause, warning, headers } = refusal;
        self.counts.rejection(clause, *status);
        let reason = reason.as_deref().unwrap_or(status::reason(*status));
        let product = crate::cpm::release::product(&self.config);
        let agent = self.addresses.host();
        self.counts.response(self.transactions.served(server).map_or(Method::Other, |r| r.method()), *status, Direction::Out);
        let fill = |mut writer: crate::sip::write::Writer<'_>| {
            writer.field(Name::Server, &product);
            if let Some((code, text)) = warning {
                writer.format(Name::Warning, format_args!("{code} {agent} \"{text}\""));
            }
            for (name, value) in headers {
                writer.named(name, value);
            }
            writer.body(b"");
        };
        self.transactions.respond(now, server, *status, reason, fill, out);
    }

    /// A line of the log and of the call records for what no procedure refused, so that it finds its packet in a capture.
    fn note_refusal(&self, now: Instant, server: ServerKey, status: u16, cause: &'static str, out: &mut Outbox) {
        if let Some(request) = self.transactions.served(server) {
            out.effects.push(Effect::Record(Box::new(Cdr::refused(now, ("", ""), request, status, cause))));
        }
    }

    /// Answers with a status that no clause stands for.
    pub(super) fn refuse_status(&mut self, now: Instant, server: ServerKey, status: u16, out: &mut Outbox) {
        self.note_refusal(now, server, status, "RFC 3261", out);
        self.refuse(now, server, &Refusal::new(status, "RFC 3261"), out);
    }

    /// Answers a request that we have no room for: 503 with Retry-After.
    pub(super) fn shed(&mut self, now: Instant, server: ServerKey, cause: &'static str, out: &mut Outbox) {
        let wait = 1 + self.prng.below(5);
        self.refuse(now, server, &Refusal::new(503, cause).header("Retry-After", wait.to_string()), out);
    }
}
