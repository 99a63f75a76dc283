//! RFC 3261 §19.1.4, RFC 3966 §5, RFC 3323, RFC 3325, RFC 5502: who a request comes from, and which user it is served for.
//!
//! A CPM Address is compared in one normal form, "sip:user@host" or "tel:+number"; lists, rules, registrations and the
//! operator's patterns are all brought into it.

use super::facts::Role;
use crate::sip::dialog;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::header::privacy;
use crate::sip::message::{Message, Request};
use crate::sip::uri::Uri;

/// Values of P-Asserted-Identity that count: one SIP(S) and one TEL URI (RFC 3325 §9.1).
const ASSERTED_MAX: usize = 2;

/// The normal form of a CPM Address. Parameters, passwords, headers, default ports and visual separators are gone; host and
/// scheme are lower case; `sips` counts as `sip`; a SIP URI of a telephone subscriber (`user=phone`, RFC 3261 §19.1.6)
/// becomes its `tel` form. A URI of another scheme keeps all but the case of its scheme; what is no URI stays as it is.
pub fn normalise(address: &str) -> String {
    let address = address.trim_ascii();
    let Ok(uri) = Uri::parse(address) else { return address.to_string() };
    if uri.is_tel() {
        return number(uri.user, uri.params.value("phone-context"));
    }
    if !uri.is_sip() {
        return format!("{}{}", uri.scheme.to_ascii_lowercase(), &address[uri.scheme.len()..]);
    }
    let phone = uri.params.value("user").is_some_and(|value| value.eq_ignore_ascii_case("phone"));
    if phone && let Some(number) = global_number(uri.user) {
        return number;
    }
    sip_form(&uri)
}

/// The SIP form of an address whose normal form is a `tel` URI: what an operator's pattern for SIP addresses may mean.
pub fn sip_spelling(address: &str) -> Option<String> {
    let uri = Uri::parse(address.trim_ascii()).ok()?;
    uri.is_sip().then(|| sip_form(&uri))
}

fn sip_form(uri: &Uri<'_>) -> String {
    let default = if uri.is_sips() { 5061 } else { 5060 };
    let mut form = String::with_capacity(12 + uri.user.len() + uri.host.len());
    form.push_str("sip:");
    push_plain(uri.user, &mut form);
    if form.len() > "sip:".len() {
        form.push('@');
    }
    let host = form.len();
    form.push_str(uri.host);
    form[host..].make_ascii_lowercase();
    if let Some(port) = uri.port.filter(|port| *port != default) {
        form.push(':');
        form.push_str(itoa::Buffer::new().format(port));
    }
    form
}

/// A telephone-subscriber in the user part, where it is a global number.
fn global_number(user: &str) -> Option<String> {
    let user = plain(user);
    let digits = user.split(';').next().unwrap_or_default();
    digits.starts_with('+').then(|| number(digits, None))
}

/// RFC 3966 §5: numbers compare without visual separators; a local number compares with its context.
fn number(text: &str, context: Option<&str>) -> String {
    let separators = |c: &char| !matches!(c, '-' | '.' | '(' | ')');
    let digits: String = plain(text).chars().filter(separators).map(|c| c.to_ascii_lowercase()).collect();
    match context.filter(|_| !digits.starts_with('+')) {
        Some(context) => format!("tel:{digits};phone-context={}", context.to_ascii_lowercase()),
        None => format!("tel:{digits}"),
    }
}

/// RFC 3261 §19.1.4: an escape of a character that need not be escaped is the character; other escapes are upper case.
fn plain(user: &str) -> String {
    let mut out = String::with_capacity(user.len());
    push_plain(user, &mut out);
    out
}

fn push_plain(user: &str, out: &mut String) {
    let mut rest = user;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let hex = rest.get(at + 1..at + 3);
        let octet = hex.filter(|hex| hex.bytes().all(|o| o.is_ascii_hexdigit())).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let Some(octet) = octet else {
            out.push('%');
            rest = &rest[at + 1..];
            continue;
        };
        // RFC 3261 §25.1: unreserved and user-unreserved.
        if octet.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
}

/// The values of P-Asserted-Identity of a trusted hop, as written (RFC 3325 §5: from any other they are not believed).
pub fn asserted(trusted: bool, request: &Message) -> impl Iterator<Item = NameAddr<'_>> {
    let values = request.values(Name::PAssertedIdentity).take(ASSERTED_MAX).filter(move |_| trusted);
    values.filter_map(|value| NameAddr::parse(value).ok())
}

/// The authenticated originator's CPM Addresses, normalised. Empty: the request has no authenticated originator.
pub fn originators(trusted: bool, request: &Request) -> Vec<String> {
    asserted(trusted, request).map(|address| normalise(address.uri)).collect()
}

/// The first of [`originators`].
pub fn originator(trusted: bool, request: &Request) -> Option<String> {
    asserted(trusted, request).next().map(|address| normalise(address.uri))
}

/// The served user, normalised: P-Served-User of a trusted hop (RFC 5502), else the originator or the Request-URI.
pub fn served_user(role: Role, trusted: bool, request: &Request) -> String {
    let named = request.header(Name::PServedUser).filter(|_| trusted).and_then(|value| NameAddr::parse(value).ok());
    if let Some(named) = named {
        return normalise(named.uri);
    }
    if role == Role::Terminating {
        return normalise(request.uri());
    }
    // No asserted identity: nothing is done for such a user, but logs and limits want a name.
    originator(trusted, request).or_else(|| request.from().ok().map(|from| normalise(from.uri))).unwrap_or_default()
}

/// Whether anonymity is requested: Privacy "id", "user" or "header" (RFC 3323 §4.2, RFC 3325 §9.3), or the anonymous From
/// of RFC 3323 §4.1.1.3. "none" alone and "critical" alone ask for nothing.
pub fn is_anonymous(request: &Message) -> bool {
    let asks = |value: &str| ["id", "user", "header"].iter().any(|wanted| privacy::asks(value, wanted));
    let from = request.from().ok().and_then(|from| Uri::parse(from.uri).ok());
    request.lines(Name::Privacy).any(asks)
        || from.is_some_and(|uri| uri.is_sip() && uri.host.eq_ignore_ascii_case("anonymous.invalid"))
}

/// The value of From or To without its tag.
pub fn without_tag(request: &Message, name: Name) -> String {
    let value = request.header(name).unwrap_or_default();
    NameAddr::parse(value).map_or_else(|_| value.to_string(), |address| dialog::without_tag(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_normal_form() {
        for (written, normal) in [
            ("sip:Alice@EXAMPLE.net", "sip:Alice@example.net"),
            ("SIPS:alice@example.net:5061;transport=tls", "sip:alice@example.net"),
            ("sip:alice@example.net:5060", "sip:alice@example.net"),
            ("sip:alice@example.net:5070", "sip:alice@example.net:5070"),
            ("sip:alice:secret@example.net?Subject=x", "sip:alice@example.net"),
            ("sip:%61lice%40home@example.net", "sip:alice%40home@example.net"),
            ("sip:+1-555-123@example.net;user=phone", "tel:+1555123"),
            ("sip:+1-555-123;isub=1@example.net;User=Phone", "tel:+1555123"),
            ("sip:911@example.net;user=phone", "sip:911@example.net"),
            ("sip:example.net", "sip:example.net"),
            ("tel:+1-(555).123;ext=5", "tel:+1555123"),
            ("TEL:7042;phone-context=Example.com", "tel:7042;phone-context=example.com"),
            ("Mailto:Bob@ex.org", "mailto:Bob@ex.org"),
            ("bob", "bob"),
            ("sip:a%4", "sip:a%4"),
        ] {
            assert_eq!(normalise(written), normal, "{written}");
            assert_eq!(normalise(normal), normal, "{written}: the normal form is a fixed point");
        }
        assert_eq!(sip_spelling("sip:+1@example.net;user=phone").as_deref(), Some("sip:+1@example.net"));
        assert_eq!(sip_spelling("tel:+1"), None);
    }

    fn request(headers: &str) -> Request {
        let head = "From: \"A\" <sip:alice@example.net>;x=1;tag=7\r\nTo: <sip:bob@example.net>\r\n";
        Request::parse(format!("INVITE sip:bob@example.net SIP/2.0\r\n{head}{headers}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn identities_count_when_a_trusted_hop_asserts_them() {
        let both = request("P-Asserted-Identity: \"A\" <sip:alice@Example.net>, <tel:+1-555>\r\n");
        assert_eq!(originators(true, &both), ["sip:alice@example.net", "tel:+1555"]);
        assert!(originators(false, &both).is_empty());
        assert!(originators(true, &request("")).is_empty());
    }

    #[test]
    fn the_served_user_is_who_a_trusted_hop_names() {
        let named = request("P-Served-User: <sip:carol@example.net>;sescase=term\r\nP-Asserted-Identity: <tel:+1>\r\n");
        assert_eq!(served_user(Role::Terminating, true, &named), "sip:carol@example.net");
        assert_eq!(served_user(Role::Terminating, false, &named), "sip:bob@example.net");
        assert_eq!(served_user(Role::Originating, false, &named), "sip:alice@example.net");
        assert_eq!(served_user(Role::Originating, true, &request("P-Asserted-Identity: <tel:+1>\r\n")), "tel:+1");
    }

    #[test]
    fn anonymity_is_asked_for_by_privacy_or_by_from() {
        for (headers, anonymous) in [
            ("", false),
            ("Privacy: none\r\n", false),
            ("Privacy: critical\r\n", false),
            ("Privacy: session\r\n", false),
            ("Privacy: ID;critical\r\n", true),
            ("Privacy: header\r\n", true),
            ("Privacy: user\r\n", true),
        ] {
            assert_eq!(is_anonymous(&request(headers)), anonymous, "{headers}");
        }
        let hidden = "INVITE sip:b@c SIP/2.0\r\nFrom: \"Anonymous\" <sip:anonymous@ANONYMOUS.invalid>;tag=1\r\n\r\n";
        assert!(is_anonymous(&Request::parse(hidden.as_bytes()).unwrap()));
    }

    #[test]
    fn a_tag_is_taken_off_and_nothing_else() {
        assert_eq!(without_tag(&request(""), Name::From), "\"A\" <sip:alice@example.net>;x=1");
        assert_eq!(without_tag(&request(""), Name::To), "<sip:bob@example.net>");
    }
}
