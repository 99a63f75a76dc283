//! 3GPP TS 24.229 §7.2A.8.2, RFC 6050: CPM feature tags (ICSIs), and the headers that carry them.
//!
//! ```text
//! Accept-Contact: *;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg"     colons coded
//! P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg                          not coded
//! ```

use crate::sip::header::feature::{ICSI_REF, features, params_of_any};
use crate::sip::header::name::Name;
use crate::sip::message::Message;
use crate::sip::uri;

/// What all CPM feature tags begin with.
const PREFIX: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.";
/// What all ICSIs begin with, and how it stands in a feature parameter.
const URN: &str = "urn:urn-7:";
const URN_CODED: &str = "urn%3Aurn-7%3A";

/// Pager Mode CPM Standalone Message.
pub const PAGER: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg";
/// Large Message Mode CPM Standalone Message.
pub const LARGE_MESSAGE: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg";
pub const LARGE_MESSAGE_GROUP: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg.group";
/// CPM 1-1 Session.
pub const SESSION: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session";
/// CPM Group Session.
pub const SESSION_GROUP: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session.group";
/// CPM File Transfer: handled as a session.
pub const FILE_TRANSFER: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.filetransfer";
pub const FILE_TRANSFER_GROUP: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.filetransfer.group";

/// The whole ICSI of a short name ("largemsg"); a whole one stays, decoded.
pub fn whole(short: &str) -> String {
    if short.contains(':') || short.contains('%') { decode(short) } else { format!("{PREFIX}{short}") }
}

/// Whether `icsi` is `parent` or a subclass of it ("…largemsg.group" IS-A "…largemsg"). URNs compare without regard to
/// case.
pub fn is_a(icsi: &str, parent: &str) -> bool {
    let Some(start) = icsi.get(..parent.len()) else { return false };
    start.eq_ignore_ascii_case(parent) && matches!(icsi.as_bytes().get(parent.len()), None | Some(b'.'))
}

/// Undoes the percent-encoding of a tag-value.
pub fn decode(value: &str) -> String {
    uri::decode(value).into_owned()
}

/// The first ICSI that Accept-Contact asks for, in order, which is `wanted`; it is given decoded. Negated ones (`!`) ask for
/// nothing.
fn accepted(message: &Message, mut wanted: impl FnMut(&str) -> bool) -> Option<String> {
    for value in message.values(Name::AcceptContact) {
        let Ok(params) = params_of_any(value) else { continue };
        for feature in features(params).filter(|feature| feature.tag.eq_ignore_ascii_case(ICSI_REF)) {
            if let Some(icsi) = feature.find(|icsi| !icsi.starts_with('!') && wanted(icsi)) {
                return Some(icsi);
            }
        }
    }
    None
}

/// Whether Accept-Contact asks for this service or a subclass of it: what triggers a procedure.
pub fn asks_for(message: &Message, icsi: &str) -> bool {
    accepted(message, |asked| is_a(asked, icsi)).is_some()
}

/// Accept-Contact lines for the next hop, in order: as they came, but colons of a raw ICSI are coded. What is coded already
/// stays as it is.
pub fn accept_contact(message: &Message) -> Vec<String> {
    message.lines(Name::AcceptContact).map(coded).collect()
}

fn coded(line: &str) -> String {
    let mut out = String::with_capacity(line.len() + 8);
    let mut rest = line;
    while let Some(at) = find_ignoring_case(rest, URN) {
        out.push_str(&rest[..at]);
        out.push_str(URN_CODED);
        rest = &rest[at + URN.len()..];
    }
    out.push_str(rest);
    out
}

fn find_ignoring_case(text: &str, wanted: &str) -> Option<usize> {
    text.as_bytes().windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Accept-Contact for a service that we ask for ourselves.
pub fn accept_contact_of(icsi: &str) -> String {
    format!("*;{ICSI_REF}=\"{}\"", icsi.replace(':', "%3A"))
}

/// What P-Asserted-Service and P-Preferred-Service say, against the values that a procedure knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named<'a> {
    /// P-Asserted-Service has this known value. It comes from the trust domain and wins over a preferred one (RFC 6050 §4).
    Asserted(&'a str),
    /// P-Asserted-Service has another value.
    OtherAsserted(&'a str),
    /// P-Preferred-Service has this known value.
    Preferred(&'a str),
    /// P-Preferred-Service has another value.
    OtherPreferred(&'a str),
    /// Neither header stands.
    Nothing,
}

/// Reads both headers against the known values, compared whole (never IS-A).
pub fn named_among<'a>(message: &'a Message, known: &[&str]) -> Named<'a> {
    let knows = |value: &str| known.iter().any(|known| known.eq_ignore_ascii_case(value));
    if let Some(asserted) = message.header(Name::PAssertedService) {
        return if knows(asserted) { Named::Asserted(asserted) } else { Named::OtherAsserted(asserted) };
    }
    match message.header(Name::PPreferredService) {
        Some(preferred) if knows(preferred) => Named::Preferred(preferred),
        Some(preferred) => Named::OtherPreferred(preferred),
        None => Named::Nothing,
    }
}

/// The service under which a session is set up: its own, or the file transfer's, which is set up as a session is.
pub fn of_session(message: &Message) -> &'static str {
    if asks_for(message, SESSION) { SESSION } else { FILE_TRANSFER }
}

/// Both headers against the values that OSI-4.a, OSI-4.c and TSI-7 list; for a file transfer, which they do not speak of,
/// against those of that service besides.
pub fn named_for_session(message: &Message) -> Named<'_> {
    match named_among(message, &[SESSION, SESSION_GROUP]) {
        Named::OtherAsserted(_) | Named::OtherPreferred(_) if of_session(message) == FILE_TRANSFER => {
            named_among(message, &[FILE_TRANSFER, FILE_TRANSFER_GROUP])
        }
        named => named,
    }
}

/// The service that a request names: asserted, else preferred.
fn named(message: &Message) -> Option<&str> {
    message.header(Name::PAssertedService).or_else(|| message.header(Name::PPreferredService))
}

/// The tag of Accept-Contact that names this service or a subclass of it, decoded.
pub fn from_accept_contact(message: &Message, icsi: &str) -> Option<String> {
    accepted(message, |asked| is_a(asked, icsi))
}

/// P-Asserted-Service for the next hop: the asserted one, else a preferred one of this service, else the tag of
/// Accept-Contact, else the service itself.
pub fn asserted_or(message: &Message, icsi: &str) -> String {
    if let Some(asserted) = message.header(Name::PAssertedService) {
        return asserted.to_string();
    }
    if let Some(preferred) = message.header(Name::PPreferredService).filter(|value| is_a(value, icsi)) {
        return preferred.to_string();
    }
    from_accept_contact(message, icsi).unwrap_or_else(|| icsi.to_string())
}

/// Whether a session is a group's: a ".group" tag is asked for.
pub fn is_group(message: &Message) -> bool {
    const GROUP: &str = ".group";
    let group = |icsi: &str| {
        let label = icsi.len().checked_sub(GROUP.len()).and_then(|at| icsi.get(at..));
        label.is_some_and(|label| label.eq_ignore_ascii_case(GROUP))
    };
    accepted(message, group).is_some() || named(message).is_some_and(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Request;

    fn request(headers: &str) -> Request {
        Request::parse(format!("INVITE sip:b@c SIP/2.0\r\n{headers}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn subclasses_are_told_by_whole_labels() {
        assert!(is_a(LARGE_MESSAGE_GROUP, LARGE_MESSAGE));
        assert!(is_a("URN:urn-7:3GPP-service.ims.icsi.oma.cpm.LargeMsg", LARGE_MESSAGE));
        assert!(!is_a("urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsgs", LARGE_MESSAGE));
        assert!(!is_a(LARGE_MESSAGE, LARGE_MESSAGE_GROUP));
        assert!(!is_a("é", LARGE_MESSAGE));
        assert_eq!(whole("session.group"), SESSION_GROUP);
        assert_eq!(whole("urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session"), SESSION);
    }

    #[test]
    fn tags_are_read_coded_raw_and_in_lists() {
        let coded = "urn%3aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg";
        let read = request(&format!(
            "Accept-Contact: *;+g.3gpp.icsi-ref=\"{coded},{SESSION}\";require\r\na: *;+g.3gpp.icsi-ref=\"!{PAGER}\"\r\n"
        ));
        let mut all = Vec::new();
        accepted(&read, |icsi| {
            all.push(icsi.to_string());
            false
        });
        assert_eq!(all, [LARGE_MESSAGE, SESSION]);
        assert_eq!(from_accept_contact(&read, SESSION).as_deref(), Some(SESSION));
        assert!(asks_for(&read, LARGE_MESSAGE) && !asks_for(&read, PAGER));
        assert!(accepted(&request("Accept-Contact: *;audio\r\n"), |_| true).is_none());
    }

    #[test]
    fn colons_are_coded_once() {
        let raw = request(&format!(
            "Accept-Contact: *;+g.3gpp.icsi-ref=\"{LARGE_MESSAGE},{SESSION}\";explicit\r\nAccept-Contact: *;video\r\n"
        ));
        let out = accept_contact(&raw);
        assert_eq!(
            out,
            [
                "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.largemsg,urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\";explicit",
                "*;video"
            ]
        );
        let again = request(&format!("Accept-Contact: {}\r\n", out[0]));
        assert_eq!(accept_contact(&again)[0], out[0]);
        // An instance is a URN too, and no ICSI.
        let instance = "*;+sip.instance=\"<urn:uuid:1>\"";
        assert_eq!(accept_contact(&request(&format!("Accept-Contact: {instance}\r\n"))), [instance]);
    }

    #[test]
    fn an_asserted_service_wins_over_a_preferred_one() {
        let both = request(&format!("P-Preferred-Service: {SESSION}\r\nP-Asserted-Service: {PAGER}\r\n"));
        assert_eq!(named_among(&both, &[SESSION]), Named::OtherAsserted(PAGER));
        assert_eq!(named_among(&both, &[PAGER]), Named::Asserted(PAGER));
        let group = request(&format!("P-Preferred-Service: {SESSION_GROUP}\r\n"));
        assert_eq!(named_among(&group, &[SESSION]), Named::OtherPreferred(SESSION_GROUP));
        assert_eq!(named_among(&group, &[SESSION, SESSION_GROUP]), Named::Preferred(SESSION_GROUP));
        assert_eq!(named_among(&request(""), &[SESSION]), Named::Nothing);
        assert_eq!(
            asserted_or(&request(&format!("Accept-Contact: {}\r\n", accept_contact_of(SESSION_GROUP))), SESSION),
            SESSION_GROUP
        );
    }
}
