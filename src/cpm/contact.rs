//! CR C.1.7 (C17), RFC 4579 §4: Contact in INVITEs and responses.
//!
//! A focus's Contact is the conference URI: it is copied octet for octet, and as the peer's remote target is then not us, the
//! shard puts us into the route set (C17-3). Any other Contact is replaced by our own URI, and then no Record-Route of ours
//! is needed (C17-4).

use super::decision::Contact;
use crate::clause;
use crate::sip::header::feature::{Feature, features};
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::header::quoted::unquote;
use crate::sip::message::Message;

/// The Contact value of a focus (C17-1): `isfocus` stands as header parameter, outside the angle brackets.
pub fn focus(message: &Message) -> Option<&str> {
    clause!("C17-1");
    let value = received(message)?;
    let isfocus = NameAddr::parse(value).ok()?.params.find("isfocus")?;
    // RFC 3840 §9: a boolean feature may be spelled out.
    let denied = isfocus.is_some_and(|value| unquote(value).trim().eq_ignore_ascii_case("false"));
    (!denied).then_some(value)
}

/// The received Contact where it is a focus's, else our own without a way back.
pub fn of(message: &Message) -> Contact {
    match focus(message) {
        Some(value) => transparent(value),
        None => own(message),
    }
}

/// The received Contact whatever it says (OSI-4.h copies it unconditionally); without one, our own.
pub fn copied(message: &Message) -> Contact {
    received(message).map_or_else(|| own(message), transparent)
}

fn transparent(value: &str) -> Contact {
    clause!("C17-2", "C17-3");
    Contact::Copied(value.to_string())
}

/// Our own URI, with what the peer said of its features.
pub fn own(message: &Message) -> Contact {
    clause!("C17-4");
    Contact::Own { params: kept_features(message), stands_for: None }
}

/// Our own URI, which leads back to the received one as long as the session lives (OSI-r5, TSI-8.a.ii.2).
pub fn resolving(message: &Message) -> Contact {
    clause!("C17-4");
    let address = received(message).and_then(|value| NameAddr::parse(value).ok());
    Contact::Own { params: kept_features(message), stands_for: address.map(|address| address.uri.to_string()) }
}

/// RFC 3261 §8.1.1.8: one Contact in an INVITE and its 2xx. Of several only the first counts.
fn received(message: &Message) -> Option<&str> {
    message.values(Name::Contact).next()
}

/// Feature parameters describe what the far end can do, which holds through us. Not kept: what names or registers the
/// device (`+sip.instance`, `reg-id`, `ob`, `expires`, `q`, `gr`), and `isfocus`, which we are not.
fn kept_features(message: &Message) -> String {
    let Some(address) = received(message).and_then(|value| NameAddr::parse(value).ok()) else { return String::new() };
    let device = |feature: &Feature<'_>| ["+sip.instance", "isfocus"].iter().any(|tag| feature.tag.eq_ignore_ascii_case(tag));
    let written = |feature: Feature<'_>| match feature.value {
        Some(value) => format!(";{}={value}", feature.tag),
        None => format!(";{}", feature.tag),
    };
    features(address.params).filter(|feature| !device(feature)).map(written).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Request;

    fn invite(contact: &str) -> Request {
        Request::parse(format!("INVITE sip:b@c SIP/2.0\r\n{contact}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn a_focus_is_told_by_the_header_parameter_alone() {
        for (contact, expected) in [
            ("Contact: <sip:conf@x>;isfocus\r\n", true),
            ("m: \"C\" <sip:conf@x;gr>;ISFOCUS;audio\r\n", true),
            ("Contact: sip:conf@x;isfocus\r\n", true),
            ("Contact: <sip:conf@x>;isfocus=\"TRUE\"\r\n", true),
            ("Contact: <sip:conf@x>;isfocus=\"FALSE\"\r\n", false),
            ("Contact: <sip:conf@x;isfocus>\r\n", false),
            ("Contact: <sip:conf@x>;notisfocus\r\n", false),
            ("", false),
        ] {
            assert_eq!(focus(&invite(contact)).is_some(), expected, "{contact}");
        }
    }

    #[test]
    fn our_own_contact_tells_features_and_not_the_device() {
        let received = invite(
            "Contact: <sip:a@192.0.2.1;ob>;+sip.instance=\"<urn:uuid:1>\";reg-id=1;expires=60;q=0.5;+g.oma.sip-im;+g.3gpp.icsi-ref=\"urn%3Ax\";audio\r\n",
        );
        let params = ";+g.oma.sip-im;+g.3gpp.icsi-ref=\"urn%3Ax\";audio".to_string();
        assert_eq!(own(&received), Contact::Own { params: params.clone(), stands_for: None });
        assert_eq!(resolving(&received), Contact::Own { params, stands_for: Some("sip:a@192.0.2.1;ob".to_string()) });
        assert_eq!(own(&invite("")), Contact::Own { params: String::new(), stands_for: None });
    }
}
