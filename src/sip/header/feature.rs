//! RFC 3840 §9, RFC 3841 §9: feature parameters, as Contact, Accept-Contact and Reject-Contact carry them.
//!
//! ```text
//! Contact: <sip:a@b>;+g.3gpp.icsi-ref="urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session,urn%3A…";+sip.instance="<urn:uuid:…>"
//! Accept-Contact: *;+g.3gpp.icsi-ref="urn%3A…";require;explicit
//! ```

use super::params::Params;
use super::quoted::unquote;
use crate::sip::message::Malformed;
use crate::sip::uri::decode;
use std::borrow::Cow;

/// The feature tag of IMS communication services (3GPP TS 24.229 §7.9.2).
pub const ICSI_REF: &str = "+g.3gpp.icsi-ref";
/// Base feature tags, which stand without a plus (RFC 3840 §9).
const BASE_TAGS: [&str; 18] = [
    "audio",
    "automata",
    "class",
    "duplex",
    "data",
    "control",
    "mobility",
    "description",
    "events",
    "priority",
    "methods",
    "schemes",
    "application",
    "video",
    "language",
    "type",
    "isfocus",
    "actor",
];

/// One feature parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Feature<'a> {
    /// With its plus, as written: "+g.3gpp.icsi-ref", "isfocus".
    pub tag: &'a str,
    /// As written, quotes kept; none: a boolean feature that is there.
    pub value: Option<&'a str>,
}

impl<'a> Feature<'a> {
    /// The values of its list: unquoted, percent-encoding undone, string values without angle brackets. A boolean feature
    /// has none.
    pub fn values(self) -> impl Iterator<Item = Cow<'a, str>> {
        let text = unquote(self.value.unwrap_or(""));
        let parts: Vec<String> = list(&text).map(|part| decode(bracketless(part)).into_owned()).collect();
        parts.into_iter().map(Cow::Owned)
    }

    /// The first value of its list, read so, that is `wanted`.
    pub fn find(self, mut wanted: impl FnMut(&str) -> bool) -> Option<String> {
        let text = unquote(self.value.unwrap_or(""));
        list(&text).map(|part| decode(bracketless(part))).find(|value| wanted(value)).map(Cow::into_owned)
    }

    /// Whether the list has this value, without regard to case (RFC 3840 §9; URNs compare so too, RFC 8141 §3).
    pub fn has(self, value: &str) -> bool {
        let text = unquote(self.value.unwrap_or(""));
        list(&text).any(|part| decode(bracketless(part)).eq_ignore_ascii_case(value))
    }
}

/// Feature parameters of a Contact, Accept-Contact or Reject-Contact value, in order; any other parameter is left out.
pub fn features(params: Params<'_>) -> impl Iterator<Item = Feature<'_>> {
    params.iter().filter(|(name, _)| is_feature(name)).map(|(tag, value)| Feature { tag, value })
}

/// The first feature parameter of that tag.
pub fn find<'a>(params: Params<'a>, tag: &str) -> Option<Feature<'a>> {
    features(params).find(|feature| feature.tag.eq_ignore_ascii_case(tag))
}

fn is_feature(name: &str) -> bool {
    name.starts_with('+') || BASE_TAGS.iter().any(|tag| tag.eq_ignore_ascii_case(name))
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = super::unquoted(rest, b',').unwrap_or(rest.len());
            let part = rest[..end].trim_ascii();
            rest = rest.get(end + 1..).unwrap_or("");
            if !part.is_empty() {
                return Some(part);
            }
        }
        None
    })
}

fn bracketless(part: &str) -> &str {
    part.strip_prefix('<').and_then(|inner| inner.strip_suffix('>')).unwrap_or(part)
}

/// The parameters of one value of Accept-Contact or Reject-Contact; a list is split before.
///
/// # Errors: [`Malformed`] unless it begins with `*` (RFC 3841 §9.2).
pub fn params_of_any(text: &str) -> Result<Params<'_>, Malformed> {
    let rest = text.trim_ascii().strip_prefix('*').map(str::trim_ascii_start);
    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(';'));
    rest.map(Params).ok_or(Malformed::new(0, "header > accept-contact > '*'"))
}

/// One value of Accept-Contact or Reject-Contact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContactPreference<'a> {
    pub params: Params<'a>,
    /// Contacts that do not match are not to be tried at all (RFC 3841 §7.2.4).
    pub require: bool,
    /// A contact matches only if it declared every feature named (RFC 3841 §7.2.4).
    pub explicit: bool,
}

impl<'a> ContactPreference<'a> {
    /// Reads one value; a list is split before.
    ///
    /// # Errors: [`Malformed`] unless it begins with `*` (RFC 3841 §9.2).
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let params = params_of_any(text)?;
        Ok(Self { params, require: params.has("require"), explicit: params.has("explicit") })
    }

    /// Features named, in order.
    pub fn features(self) -> impl Iterator<Item = Feature<'a>> {
        features(self.params)
    }

    /// Whether it names this service in `+g.3gpp.icsi-ref`.
    pub fn names_service(self, urn: &str) -> bool {
        self.features().any(|feature| feature.tag.eq_ignore_ascii_case(ICSI_REF) && feature.has(urn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::header::name_addr::NameAddr;

    const SESSION: &str = "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session";

    #[test]
    fn accept_contact_names_services() {
        let text = "*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg,urn%3aurn-7%3a3gpp-service.ims.icsi.oma.cpm.session\";require;explicit";
        let read = ContactPreference::parse(text).unwrap();
        assert!(read.require && read.explicit && read.names_service(SESSION));
        assert!(!read.names_service("urn:urn-7:3gpp-service.ims.icsi.oma.cpm"));
        assert_eq!(read.features().count(), 1);
        assert_eq!(read.features().next().unwrap().values().count(), 2);
        assert!(ContactPreference::parse("* ; audio").is_ok());
        assert!(ContactPreference::parse("sip:a@b;audio").is_err());
        assert!(ContactPreference::parse("*audio").is_err());
    }

    #[test]
    fn a_contact_declares_features() {
        let contact = NameAddr::parse("<sip:a@b>;expires=60;isfocus;+sip.instance=\"<urn:uuid:1>\";q=0.5").unwrap();
        let tags: Vec<&str> = features(contact.params).map(|feature| feature.tag).collect();
        assert_eq!(tags, ["isfocus", "+sip.instance"]);
        assert!(find(contact.params, "+SIP.instance").unwrap().has("urn:uuid:1"));
        assert_eq!(find(contact.params, "isfocus").unwrap().values().count(), 0);
    }
}
