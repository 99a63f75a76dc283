//! RFC 3325 §5, RFC 3261 §16.4, RFC 5502: what is found out about a request before a procedure sees it: whether its asserted
//! identities are believed, what is left of its route set, and for which side we act.

use super::addresses::Addresses;
use crate::base::transport::Flow;
use crate::clause;
use crate::config::Config;
use crate::cpm::facts::Role;
use crate::cpm::headers::{Field, field};
use crate::cpm::identity::normalise;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::ids;
use crate::sip::message::{Message, Request, Response};
use crate::sip::uri::Uri;
use crate::sip::write::Writer;
use std::rc::Rc;

/// Header fields that count only from a peer in `sip.trusted` (RFC 3325 §5, RFC 5502 §5, RFC 6050 §4.2, RFC 7315 §5).
const ASSERTED: [Name; 8] = [
    Name::PAssertedIdentity,
    Name::PAssertedService,
    Name::PServedUser,
    Name::PAssociatedUri,
    Name::PChargingVector,
    Name::PChargingFunctionAddresses,
    Name::PVisitedNetworkId,
    Name::HistoryInfo,
];

/// Whether the peer at the other end of a flow is in `sip.trusted`.
pub fn is_trusted(config: &Config, flow: &Flow) -> bool {
    config.sip.trusted.iter().any(|network| network.contains(flow.peer.ip()))
}

/// The request without what an untrusted peer has no right to assert; as it came where it asserts nothing.
pub fn believed(request: Request) -> Request {
    if !asserts(&request) {
        return request;
    }
    let mut octets = Vec::with_capacity(request.size() + 32);
    write_believed(&request, Writer::request(&mut octets, request.method_str(), request.uri()));
    Request::parse(&octets).unwrap_or(request)
}

/// The same for a response: RFC 3325 §5 speaks of both.
pub fn believed_response(response: Response) -> Response {
    if !asserts(&response) {
        return response;
    }
    let mut octets = Vec::with_capacity(response.size() + 32);
    write_believed(&response, Writer::response(&mut octets, response.status(), response.reason()));
    Response::parse(&octets).unwrap_or(response)
}

fn asserts(message: &Message) -> bool {
    message.fields().any(|(name, _, _)| ASSERTED.contains(&name))
}

fn write_believed(message: &Message, mut writer: Writer<'_>) {
    let kept = message.written().filter(|(name, _)| !ASSERTED.contains(name));
    kept.for_each(|(_, line)| {
        writer.line(line);
    });
    if message.has(Name::ContentLength) { writer.end(message.body()) } else { writer.body(message.body()) }
}

/// Who a target says it is, for an origin within the trust domain (RFC 3325 §5); whether others may know goes with it.
pub fn identity_of(response: &Response) -> Vec<Field> {
    let mut told = Vec::new();
    if response.has(Name::PAssertedIdentity) {
        for name in [Name::PAssertedIdentity, Name::Privacy] {
            told.extend(response.lines(name).map(|value| field(name.as_str(), value.to_string())));
        }
    }
    told
}

/// Whether the asserted identity is not to leave the trust domain (RFC 3325 §7).
pub fn withholds_identity(message: &Message) -> bool {
    message.lines(Name::Privacy).flat_map(|line| line.split(';')).any(|value| value.trim().eq_ignore_ascii_case("id"))
}

/// The top Route when it names us, and what follows it (RFC 3261 §16.4). The whole set where the top one is not ours. We stand in
/// it twice in a row where we recorded both transports of a dialog (RFC 5658 §5.1), or both ends of it are users of ours.
pub fn popped<'a>(addresses: &Addresses, request: &'a Message) -> (Option<NameAddr<'a>>, Rc<[Box<str>]>) {
    let mut values = request.values(Name::Route).peekable();
    let Some(first) = values.peek().copied() else { return (None, Rc::from([])) };
    clause!("62-2");
    let own = NameAddr::parse(first).ok().filter(|route| is_own(addresses, route.uri));
    while values.next_if(|value| NameAddr::parse(value).is_ok_and(|route| is_own(addresses, route.uri))).is_some() {}
    (own, values.map(Box::from).collect())
}

fn is_own(addresses: &Addresses, uri: &str) -> bool {
    Uri::parse(uri).is_ok_and(|uri| addresses.is_own(&uri))
}

/// RFC 3261 §16.4: a strict router before us put the Record-Route URI that was ours into the Request-URI, and the Request-URI
/// behind the Routes; that is undone. Every other request is as it came.
pub fn loosened(addresses: &Addresses, request: Request) -> Request {
    let recorded = |uri: &Uri<'_>| uri.params.has("lr") && ids::shard_of_user(uri.user).is_some() && addresses.is_own(uri);
    if !request.has(Name::Route) || !Uri::parse(request.uri()).is_ok_and(|uri| recorded(&uri)) {
        return request;
    }
    let routes: Vec<&str> = request.values(Name::Route).collect();
    let Some((Ok(target), routes)) = routes.split_last().map(|(last, routes)| (NameAddr::parse(last), routes)) else {
        return request;
    };
    let mut octets = Vec::with_capacity(request.size());
    let mut writer = Writer::request(&mut octets, request.method_str(), target.uri);
    // It came to us by that URI, as it would have by a Route.
    writer.parts(Name::Route, &["<", request.uri(), ">"]);
    for route in routes {
        writer.field(Name::Route, route);
    }
    for (name, field) in request.written() {
        if !matches!(name, Name::Route | Name::ContentLength) {
            writer.line(field);
        }
    }
    writer.body(request.body());
    Request::parse(&octets).unwrap_or(request)
}

/// The session case, as `docs/manual.md` has it: what P-Served-User says; without it the user part or the `orig` parameter of
/// the Route that named us; without that, terminating if the Request-URI is a home user, else originating.
pub fn session_case(config: &Config, trusted: bool, request: &Request, own_route: Option<NameAddr<'_>>) -> Role {
    if let Some(case) = request.header(Name::PServedUser).filter(|_| trusted).and_then(served_case) {
        return case;
    }
    if let Some(uri) = own_route.and_then(|route| Uri::parse(route.uri).ok()) {
        // RFC 3261 §19.1.4 compares user parts by case; operators write these two in one.
        if uri.user.eq_ignore_ascii_case("term") {
            return Role::Terminating;
        }
        if uri.user.eq_ignore_ascii_case("orig") || uri.params.has("orig") {
            return Role::Originating;
        }
    }
    if is_home(config, request.uri()) { Role::Terminating } else { Role::Originating }
}

fn served_case(value: &str) -> Option<Role> {
    let params = NameAddr::parse(value).ok()?.params;
    let case = params.value("sescase")?;
    let known = [("orig", Role::Originating), ("term", Role::Terminating)];
    known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(case)).map(|(_, role)| role)
}

fn is_home(config: &Config, uri: &str) -> bool {
    let Ok(parsed) = Uri::parse(uri) else { return false };
    if parsed.is_sip() {
        return config.sip.home_domains.iter().any(|domain| domain.eq_ignore_ascii_case(parsed.host));
    }
    // A telephone number has no domain: it is a home user where it is registered here.
    let wanted = normalise(uri);
    parsed.is_tel() && config.registrations.users.iter().any(|user| normalise(&user.address) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, fields: &str) -> Request {
        Request::parse(format!("INVITE {uri} SIP/2.0\r\n{fields}\r\nContent-Length: 2\r\n\r\nhi").as_bytes()).unwrap()
    }

    #[test]
    fn what_an_untrusted_peer_asserts_is_gone() {
        let kept = believed(request("sip:b@x", "P-Asserted-Identity: <sip:a@x>\r\nSubject: s\r\np-served-user: <sip:a@x>"));
        assert!(!kept.has(Name::PAssertedIdentity) && !kept.has(Name::PServedUser));
        assert_eq!((kept.header(Name::Subject), kept.body()), (Some("s"), &b"hi"[..]));
    }

    #[test]
    fn the_session_case_is_what_the_manual_says() {
        let mut config = Config::default();
        config.sip.home_domains = vec!["example.net".into()];
        let case = |trusted, uri, fields: &str, route: Option<&str>| {
            session_case(&config, trusted, &request(uri, fields), route.map(|route| NameAddr::parse(route).unwrap()))
        };
        let served = "P-Served-User: <sip:a@x>;sescase=orig;regstate=reg";
        assert_eq!(case(true, "sip:b@example.net", served, None), Role::Originating);
        assert_eq!(case(false, "sip:b@example.net", served, None), Role::Terminating);
        assert_eq!(case(true, "sip:b@example.net", "A: b", Some("<sip:orig@pf;lr>")), Role::Originating);
        assert_eq!(case(true, "sip:b@example.net", "A: b", Some("<sip:pf;lr;orig>")), Role::Originating);
        assert_eq!(case(true, "sip:b@other.net", "A: b", Some("<sip:term@pf;lr>")), Role::Terminating);
        assert_eq!(case(true, "sip:b@EXAMPLE.net", "A: b", Some("<sip:pf;lr>")), Role::Terminating);
        assert_eq!(case(true, "mailto:b@example.net", "A: b", None), Role::Originating);
    }
}
