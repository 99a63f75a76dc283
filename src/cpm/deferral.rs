//! CR 8.3.1.6: a standalone message is kept, and goes out again when a client of its recipient registers.
//!
//! It goes out as 8.3.1.2 step 7 sends a fresh one (TLM-7.d to 7.l), from us as user agent: the original's asserted
//! identity, conversation and date, our own Contact, and an offer whose size is what we hold.

use super::clients::{self, Ask};
use super::decision::{Contact, Invite, OutMessage, SessionExpires, TargetKind};
use super::facts::Client;
use super::headers::{self, field};
use super::{conversation, disposition, identity, media_plan, recipients, release, service};
use crate::base::clock::Instant;
use crate::clause;
use crate::config::Config;
use crate::mime::multipart::Part;
use crate::sip::header::date;
use crate::sip::header::name::Name;
use crate::sip::message::Request;
use crate::store::deferred::{Deferred, DeferredId, DeferredService, KeptPart};
use std::path::PathBuf;

/// Header fields of the original that go out again as they came.
const KEPT: [Name; 14] = [
    Name::AcceptContact,
    Name::RejectContact,
    Name::RequestDisposition,
    Name::ConversationId,
    Name::ContributionId,
    Name::InReplyToContributionId,
    Name::Subject,
    Name::Priority,
    Name::Privacy,
    Name::PAssertedIdentity,
    Name::ReferredBy,
    Name::MessageExpires,
    Name::HistoryInfo,
    Name::ReplyTo,
];

/// The content of a message as it was received.
pub struct Content<'a> {
    pub content_type: &'a str,
    /// MSRP Message-ID; for a MESSAGE one of ours.
    pub message_id: &'a str,
    pub body: Body<'a>,
}

/// Where the octets are.
pub enum Body<'a> {
    /// Spooled by a media core; `head` is its beginning, from which is read what CPIM asks for.
    File { path: PathBuf, octets: u64, head: &'a [u8] },
    /// Of a MESSAGE.
    Inline(&'a [u8]),
}

/// What is kept of a request and its content. `user` is the served user (normalised), `arrived` the time of the request.
pub fn keep(
    config: &Config,
    arrived: Instant,
    id: DeferredId,
    user: &str,
    request: &Request,
    service: DeferredService,
    content: Content<'_>,
) -> Deferred {
    clause!("TLM-6.f.ii");
    let arrived_s = arrived.unix_s();
    let expires = conversation::deadline(request, arrived).map(Instant::unix_s);
    let parts = recipients::history_of(request).into_iter().map(kept_part).collect();
    let (file, octets, head, inline) = match content.body {
        Body::File { path, octets, head } => (path, octets, head, None),
        Body::Inline(octets) => (PathBuf::new(), octets.len() as u64, octets, Some(octets.into())),
    };
    Deferred {
        id,
        user: user.to_string(),
        arrived_s,
        expires_s: expires.unwrap_or(arrived_s.saturating_add(config.policy.deferred_expiry.as_secs())),
        service,
        headers: kept_fields(request, arrived, service),
        from: identity::without_tag(request, Name::From),
        to: identity::without_tag(request, Name::To),
        content_type: content.content_type.to_string(),
        message_id: content.message_id.to_string(),
        octets,
        file,
        inline,
        parts,
        negative_delivery: disposition::notice_of(head),
        attempts: 0,
    }
}

fn kept_fields(request: &Request, arrived: Instant, service: DeferredService) -> Vec<(String, String)> {
    let kept = |name: &Name| KEPT.contains(name) && *name != Name::AcceptContact;
    let mut headers: Vec<(String, String)> =
        service::accept_contact(request).into_iter().map(|value| ("Accept-Contact".to_string(), value)).collect();
    headers.extend(
        request.fields().filter(|(name, _, _)| kept(name)).map(|(name, _, value)| (name.as_str().to_string(), value.to_string())),
    );
    headers.push(("P-Asserted-Service".to_string(), service::asserted_or(request, icsi(service))));
    // The deadline counts from Date; without one every hop would begin to count anew.
    let date = request.header(Name::Date).map_or_else(|| date::of(arrived), str::to_string);
    headers.push(("Date".to_string(), date));
    headers
}

fn kept_part(part: Part) -> KeptPart {
    KeptPart { headers: part.headers, body: String::from_utf8_lossy(&part.body).into_owned() }
}

/// Clients that a kept message can go to now: indices into `clients`, the best first.
pub fn suitable(config: &Config, clients: &[Client], deferred: &Deferred) -> Vec<usize> {
    let values = |wanted: &'static str| {
        let named = deferred.headers.iter().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted));
        named.flat_map(|(_, value)| crate::sip::header::list(value)).collect()
    };
    let ask = Ask { uri: &deferred.user, accept: values("Accept-Contact"), reject: values("Reject-Contact") };
    clients::matching(config, clients, &ask, icsi(deferred.service)).clients
}

const fn icsi(service: DeferredService) -> &'static str {
    match service {
        DeferredService::LargeMessage => service::LARGE_MESSAGE,
        DeferredService::Pager => service::PAGER,
    }
}

/// The INVITE that offers a kept Large Message to a client.
pub fn invite(config: &Config, client: &Client, deferred: &Deferred) -> Invite {
    let address = clients::address(client);
    let mut headers = headers::stored(&deferred.headers);
    headers.extend(address.instance.map(|value| field("Accept-Contact", value)));
    headers.push(field("Supported", "timer"));
    headers.push(field("User-Agent", release::product(config)));
    Invite {
        kind: TargetKind::Client { instance: client.instance.clone(), contact: client.contact.clone() },
        request_uri: address.request_uri,
        next_hop: address.next_hop,
        from: deferred.from.clone(),
        to: deferred.to.clone(),
        contact: Contact::Own { params: String::new(), stands_for: None },
        session_expires: Some(SessionExpires::uas(super::session_expires::large_message(config))),
        headers,
        media: media_plan::large_message_of(config, deferred.octets, &deferred.content_type),
        parts: deferred.parts.iter().map(|part| Part { headers: part.headers.clone(), body: part.body.clone().into() }).collect(),
    }
}

/// The MESSAGE that brings a kept Pager Mode message to a client; `body` is what the store holds.
pub fn message(config: &Config, client: &Client, deferred: &Deferred, body: Vec<u8>) -> OutMessage {
    let address = clients::address(client);
    let mut headers = headers::stored(&deferred.headers);
    headers.extend(address.instance.map(|value| field("Accept-Contact", value)));
    headers.push(field("User-Agent", release::product(config)));
    OutMessage {
        kind: TargetKind::Client { instance: client.instance.clone(), contact: client.contact.clone() },
        request_uri: address.request_uri,
        next_hop: address.next_hop,
        from: deferred.from.clone(),
        to: deferred.to.clone(),
        headers,
        content_type: deferred.content_type.clone(),
        body,
    }
}
