//! CR 6.6, and 8.3.1.1 step 8: which registered CPM Clients are suitable for a request, and how each is addressed.
//!
//! ```text
//! registered -> declares the ICSI (IS-A) -> RFC 3841 (Reject-Contact, Accept-Contact) -> version -> not the sender
//!            -> one of each instance -> ordered by q, then by score (RFC 3841 §7.2.4)
//! ```
//!
//! RFC 3841 alone would keep a client that never declared the ICSI; the first filter takes it out, as 6.6 calls a client
//! suitable only when it can take the service.

use super::decision::NextHop;
use super::facts::{Client, Facts, Role};
use super::{identity, release, service};
use crate::config::{Config, RegisteredUser};
use crate::limits::CLIENT_LEGS_MAX;
use crate::sip::header::feature::ICSI_REF;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::header::params::Params;
use crate::sip::message::Request;
use crate::sip::uri::Uri;

/// The feature tag that names a device (RFC 5626 §4.1).
pub const INSTANCE: &str = "+sip.instance";

/// Clients that are to receive a request: indices into `facts.clients`, the best first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    pub clients: Vec<usize>,
    /// One of the suitable clients is on the user's primary device.
    pub primary: bool,
}

impl Selection {
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

/// Clients of the served user suitable for this request of the service whose ICSI is `icsi` (or a subclass of it).
pub fn suitable(facts: &Facts<'_>, request: &Request, icsi: &str) -> Selection {
    let sender = Sender::of(facts.role, request);
    // OSI-r8 asks for the originator's clients: whom the request is for says nothing about them.
    let served = identity::served_user(facts.role, facts.trusted, request);
    let ask = Ask {
        uri: if facts.role == Role::Originating { &served } else { request.uri() },
        accept: request.values(Name::AcceptContact).collect(),
        reject: request.values(Name::RejectContact).collect(),
    };
    let mut selection = matching(facts.config, facts.clients, &ask, icsi);
    selection.clients.retain(|index| !sender.is(&facts.clients[*index]));
    selection.primary = selection.clients.iter().any(|index| facts.clients[*index].primary);
    selection
}

/// What a request asks of the clients it may go to.
pub struct Ask<'a> {
    /// The Request-URI.
    pub uri: &'a str,
    /// Values of Accept-Contact and Reject-Contact.
    pub accept: Vec<&'a str>,
    pub reject: Vec<&'a str>,
}

/// Clients that meet it, the best first (RFC 3841 §7.2.4: by q, then by the caller's preference).
pub fn matching(config: &Config, clients: &[Client], ask: &Ask<'_>, icsi: &str) -> Selection {
    let wanted = Wanted::of(ask, icsi);
    let addressed = identity::normalise(ask.uri);
    let mut ranked: Vec<(usize, u32)> = Vec::new();
    for (index, client) in clients.iter().enumerate() {
        if supports_version(config, client) == Some(false) {
            continue;
        }
        let Some(score) = wanted.score(client) else { continue };
        match ranked.iter_mut().find(|(other, _)| same_device(&clients[*other], client)) {
            // An implicit registration set lists one device under several identities: the one addressed, else the first.
            Some(entry) if identity::normalise(&client.aor) == addressed => *entry = (index, score),
            Some(_) => {}
            None => ranked.push((index, score)),
        }
    }
    // RFC 5627 §5.1: a request to a public GRUU is for that device alone.
    if Uri::parse(ask.uri).is_ok_and(|uri| uri.is_sip() && uri.params.has("gr")) {
        ranked.retain(|(index, _)| clients[*index].gruu.as_deref().is_some_and(|gruu| same_uri(gruu, ask.uri)));
    }
    ranked.sort_by_key(|(index, score)| std::cmp::Reverse((clients[*index].q, *score)));
    ranked.truncate(CLIENT_LEGS_MAX);
    let primary = ranked.iter().any(|(index, _)| clients[*index].primary);
    Selection { clients: ranked.into_iter().map(|(index, _)| index).collect(), primary }
}

/// Whether a client's release is one that `policy.user_agents` asks for; `None` where nothing is asked or the client's
/// User-Agent is unknown.
pub fn supports_version(config: &Config, client: &Client) -> Option<bool> {
    let user_agent = client.user_agent.as_deref()?;
    (!config.policy.user_agents.is_empty()).then(|| release::supported(&config.policy.user_agents, user_agent))
}

/// How a client is addressed (TLM-7.i, TSI-8.d.i): Request-URI, first hop, and the instance that Accept-Contact must name.
pub struct Address {
    pub request_uri: String,
    pub next_hop: NextHop,
    /// `*;+sip.instance="<…>";require;explicit`, where the client has no public GRUU.
    pub instance: Option<String>,
}

/// Public GRUU, or the registered address with the instance in an Accept-Contact of its own (TSI-8.d.ii).
pub fn address(client: &Client) -> Address {
    let next_hop = NextHop::Core { fallback: Some(client.contact.clone()) };
    match &client.gruu {
        Some(gruu) => Address { request_uri: gruu.clone(), next_hop, instance: None },
        None => {
            let instance = client.instance.as_ref().map(|instance| format!("*;{INSTANCE}=\"{instance}\";require;explicit"));
            Address { request_uri: client.aor.clone(), next_hop, instance }
        }
    }
}

/// The registered clients of a user of `[registrations]` with `source = "static"`.
pub fn of_static(user: &RegisteredUser) -> Vec<Client> {
    let client = |client: &crate::config::RegisteredClient| Client {
        aor: user.address.clone(),
        contact: client.contact.clone(),
        instance: client.instance.clone(),
        gruu: client.gruu.clone(),
        features: vec![(ICSI_REF.to_string(), client.features.iter().map(|tag| service::whole(tag)).collect())],
        user_agent: client.user_agent.clone(),
        primary: client.primary,
        q: 1000,
    };
    user.clients.iter().map(client).collect()
}

/// What tells the sender's own device among the clients.
struct Sender<'a> {
    instance: Option<&'a str>,
    gruus: Vec<&'a str>,
    /// Where the device itself can be reached; known where the request comes from it and not through another function.
    address: Option<(&'a str, Option<u16>)>,
}

impl<'a> Sender<'a> {
    fn of(role: Role, request: &'a Request) -> Self {
        let contact = request.values(Name::Contact).next().and_then(|value| NameAddr::parse(value).ok());
        let instance = contact.and_then(|contact| contact.params.value(INSTANCE)).map(unquote);
        let asserted = request.values(Name::PAssertedIdentity).filter_map(|value| NameAddr::parse(value).ok());
        let uris = contact.into_iter().chain(asserted).map(|address| address.uri);
        let gruus = uris.filter(|uri| Uri::parse(uri).is_ok_and(|uri| uri.params.has("gr"))).collect();
        let own = contact.filter(|_| role == Role::Originating).and_then(|contact| Uri::parse(contact.uri).ok());
        Sender { instance, gruus, address: own.map(|uri| (uri.host, uri.port)) }
    }

    fn is(&self, client: &Client) -> bool {
        if let (Some(one), Some(other)) = (self.instance, client.instance.as_deref()) {
            return one == other;
        }
        // Without an instance on either side the address tells; a device that sends is at the address it registered.
        let registered = Uri::parse(&client.contact).ok().map(|uri| (uri.host, uri.port));
        self.address.is_some() && self.address == registered
            || client.gruu.as_deref().is_some_and(|gruu| self.gruus.iter().any(|uri| same_uri(uri, gruu)))
    }
}

/// Two registrations of one device: the same instance, or without instances the same contact.
fn same_device(one: &Client, other: &Client) -> bool {
    match (&one.instance, &other.instance) {
        (Some(one), Some(other)) => one == other,
        (None, None) => one.contact == other.contact,
        _ => false,
    }
}

/// Equal but for the case of scheme and host (RFC 5627 §3.2: the `gr` value is opaque).
fn same_uri(one: &str, other: &str) -> bool {
    let (Ok(one), Ok(other)) = (Uri::parse(one), Uri::parse(other)) else { return one == other };
    one.scheme.eq_ignore_ascii_case(other.scheme)
        && one.user == other.user
        && one.host.eq_ignore_ascii_case(other.host)
        && one.port == other.port
        && one.params.find("gr") == other.params.find("gr")
}

/// What a request asks of a client.
struct Wanted<'a> {
    /// The ICSI of the request: one of Accept-Contact that IS-A the service's, decoded.
    icsi: String,
    accept: Vec<Predicate<'a>>,
    reject: Vec<Predicate<'a>>,
}

/// One value of Accept-Contact or Reject-Contact: a conjunction of terms.
struct Predicate<'a> {
    terms: Vec<Term<'a>>,
    require: bool,
    explicit: bool,
}

/// A feature tag and the values it may have; none for a flag.
struct Term<'a> {
    tag: &'a str,
    values: Vec<String>,
}

impl<'a> Wanted<'a> {
    fn of(ask: &Ask<'a>, service_icsi: &str) -> Self {
        let accept: Vec<Predicate<'a>> = ask.accept.iter().map(|value| Predicate::parse(value)).collect();
        let named = accept.iter().flat_map(|predicate| &predicate.terms).filter(|term| term.tag.eq_ignore_ascii_case(ICSI_REF));
        let icsi = named.flat_map(|term| &term.values).find(|value| service::is_a(value, service_icsi)).cloned();
        let icsi = icsi.unwrap_or_else(|| service_icsi.to_string());
        Wanted { icsi, reject: ask.reject.iter().map(|value| Predicate::parse(value)).collect(), accept }
    }

    /// RFC 3841 §7.2.4: the caller preference Qa in thousandths, or `None` for a client that is out.
    fn score(&self, client: &Client) -> Option<u32> {
        let declared = declared(client, ICSI_REF).unwrap_or_default();
        if !declared.iter().any(|own| service::is_a(&self.icsi, own)) {
            return None;
        }
        if self.reject.iter().any(|predicate| predicate.rejects(client)) {
            return None;
        }
        let mut scores = Vec::new();
        for predicate in &self.accept {
            if predicate.terms.iter().any(|term| term.matches(client) == Some(false)) {
                // A mismatch drops the client with `require`, and else the predicate alone.
                if predicate.require {
                    return None;
                }
                continue;
            }
            let named = predicate.terms.iter().filter(|term| term.matches(client).is_some()).count();
            let score = if predicate.terms.is_empty() { 1000 } else { 1000 * named / predicate.terms.len() };
            match (score < 1000, predicate.explicit, predicate.require) {
                (true, true, true) => return None,
                (true, true, false) => scores.push(0),
                _ => scores.push(score as u32),
            }
        }
        Some(if scores.is_empty() { 0 } else { scores.iter().sum::<u32>() / scores.len() as u32 })
    }
}

impl<'a> Predicate<'a> {
    fn parse(value: &'a str) -> Self {
        let params = Params(value.find(';').map_or("", |at| &value[at..]));
        let mut predicate = Predicate { terms: Vec::new(), require: false, explicit: false };
        for (name, value) in params.iter() {
            if name.eq_ignore_ascii_case("require") {
                predicate.require = true;
            } else if name.eq_ignore_ascii_case("explicit") {
                predicate.explicit = true;
            } else {
                predicate.terms.push(Term { tag: name, values: value.map(values).unwrap_or_default() });
            }
        }
        predicate
    }

    /// Reject-Contact takes out only clients that declare every tag it names, and match.
    fn rejects(&self, client: &Client) -> bool {
        !self.terms.is_empty() && self.terms.iter().all(|term| term.matches(client) == Some(true))
    }
}

impl Term<'_> {
    /// Whether the client's values meet the wanted ones; `None` where it does not declare the tag.
    fn matches(&self, client: &Client) -> Option<bool> {
        let declared = declared(client, self.tag)?;
        if self.values.is_empty() {
            return Some(declared.is_empty() || declared.iter().any(|value| value.eq_ignore_ascii_case("TRUE")));
        }
        let icsi = self.tag.eq_ignore_ascii_case(ICSI_REF);
        let meets =
            |wanted: &str| declared.iter().any(|own| if icsi { service::is_a(wanted, own) } else { same_value(wanted, own) });
        Some(self.values.iter().any(|wanted| match wanted.strip_prefix('!') {
            Some(unwanted) => declared.iter().any(|own| !same_value(unwanted, own)),
            None => meets(wanted) || (declared.is_empty() && wanted.eq_ignore_ascii_case("TRUE")),
        }))
    }
}

/// Values of a tag as the client declared them; the instance counts as declared where it is known.
fn declared<'c>(client: &'c Client, tag: &str) -> Option<Vec<&'c str>> {
    let mut values = client.features.iter().filter(|(name, _)| name.eq_ignore_ascii_case(tag));
    if let Some((_, first)) = values.next() {
        let rest = values.flat_map(|(_, values)| values);
        return Some(first.iter().chain(rest).map(String::as_str).collect());
    }
    let instance = client.instance.as_deref().filter(|_| tag.eq_ignore_ascii_case(INSTANCE));
    instance.map(|instance| vec![instance])
}

/// RFC 3840 §9: a string value "<…>" by its case, a numeric by its number, a token without regard to case.
fn same_value(wanted: &str, own: &str) -> bool {
    if wanted.starts_with('<') {
        return wanted == own;
    }
    match (Numeric::parse(wanted), Numeric::parse(own)) {
        (Some(wanted), Some(own)) => wanted.0 <= own.1 && own.0 <= wanted.1,
        _ => wanted.eq_ignore_ascii_case(own),
    }
}

/// RFC 3840 §9: "#=4", "#>=4", "#<=4", "#1:9" as a closed range.
struct Numeric(f64, f64);

impl Numeric {
    fn parse(text: &str) -> Option<Numeric> {
        let text = text.strip_prefix('#')?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        if let Some(rest) = text.strip_prefix(">=") {
            return Some(Numeric(number(rest)?, f64::INFINITY));
        }
        if let Some(rest) = text.strip_prefix("<=") {
            return Some(Numeric(f64::NEG_INFINITY, number(rest)?));
        }
        let (low, high) = match text.strip_prefix('=') {
            Some(rest) => (rest, rest),
            None => text.split_once(':')?,
        };
        Some(Numeric(number(low)?, number(high)?))
    }
}

/// The values of a feature parameter, without quotes, percent-decoded where they are tokens.
fn values(text: &str) -> Vec<String> {
    let inner = unquote(text);
    if inner.starts_with('<') {
        return vec![inner.to_string()];
    }
    inner.split(',').map(|value| service::decode(value.trim())).collect()
}

fn unquote(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}
