//! RFC 3261 §16.6, RFC 7092 §3: which header fields of a received request are copied into the request that we make.
//!
//! Fields that belong to a hop, to a dialog or to a user agent do not pass a back-to-back user agent, and neither do those
//! that a procedure writes itself. All others pass in their order, octet for octet, whether we know them or not.

use super::facts::Facts;
use crate::sip::header::date;
use crate::sip::header::name::Name;
use crate::sip::message::Request;
use std::borrow::Cow;

/// A header field to be written: its name in the long form, and its value.
pub type Field = (Cow<'static, str>, Cow<'static, str>);

/// A field of a name of ours.
pub fn field(name: &'static str, value: impl Into<Cow<'static, str>>) -> Field {
    (Cow::Borrowed(name), value.into())
}

/// Fields as they lie in a store.
pub fn stored(fields: &[(String, String)]) -> Vec<Field> {
    fields.iter().map(|(name, value)| (name.clone().into(), value.clone().into())).collect()
}

/// Fields that never pass.
const LEFT: &[Name] = &[
    // The hop and the dialog (RFC 3261 §8.1.1, §12).
    Name::Via,
    Name::Route,
    Name::RecordRoute,
    Name::Path,
    Name::ServiceRoute,
    Name::MaxForwards,
    Name::From,
    Name::To,
    Name::CallId,
    Name::CSeq,
    Name::Contact,
    Name::RSeq,
    Name::RAck,
    Name::Timestamp,
    Name::Authorization,
    Name::ProxyAuthorization,
    Name::WwwAuthenticate,
    Name::ProxyAuthenticate,
    Name::AuthenticationInfo,
    Name::ProxyRequire,
    // The S-CSCF says anew whom it serves on the next hop (RFC 5502 §6).
    Name::PServedUser,
    Name::PPreferredIdentity,
    Name::PAssociatedUri,
    // What a user agent says of itself: ours stands there.
    Name::UserAgent,
    Name::Server,
    Name::Supported,
    Name::Require,
    Name::Unsupported,
    Name::Allow,
    Name::AllowEvents,
    Name::Accept,
    Name::AcceptEncoding,
    // The session timer is each leg's own (RFC 4028 §4).
    Name::SessionExpires,
    Name::MinSe,
    // The body is written anew.
    Name::ContentType,
    Name::ContentLength,
    Name::ContentDisposition,
    Name::ContentEncoding,
    Name::ContentLanguage,
    Name::ContentId,
    Name::MimeVersion,
    // Written by the procedures.
    Name::AcceptContact,
    Name::PAssertedService,
    Name::PPreferredService,
];

/// Fields that count within the trust domain alone (RFC 3325 §5, RFC 7315 §5).
const TRUSTED: &[Name] = &[
    Name::PAssertedIdentity,
    Name::PChargingVector,
    Name::PChargingFunctionAddresses,
    Name::PAccessNetworkInfo,
    Name::PVisitedNetworkId,
    Name::HistoryInfo,
];

/// The fields of the request that pass, in their order; names in the long form.
pub fn copied(facts: &Facts<'_>, request: &Request) -> Vec<Field> {
    let passes = |name: &Name| !LEFT.contains(name) && (facts.trusted || !TRUSTED.contains(name));
    let fields = request.fields().filter(|(name, _, _)| passes(name));
    // Room for those that the procedures add.
    let mut copied = Vec::with_capacity(16);
    copied.extend(fields.map(|(name, text, value)| {
        let name = if name == Name::Other { text.to_string().into() } else { Cow::Borrowed(name.as_str()) };
        (name, Cow::Owned(unfolded(value)))
    }));
    // RFC 5366 §4: a list server that is not required to read the list may leave it unread.
    if request.lists(Name::Require, LIST_TAG) {
        copied.push(field("Require", LIST_TAG));
    }
    copied
}

/// The same for a client of the recipient, or for the ISF: they are shown the list as history (RFC 5364), they do not serve
/// it, so nothing is required of them. A message that may expire goes with a Date to count from.
pub fn copied_to_client(facts: &Facts<'_>, request: &Request) -> Vec<Field> {
    let mut copied = copied(facts, request);
    copied.retain(|(name, _)| name != Name::Require.as_str());
    if request.has(Name::MessageExpires) && !request.has(Name::Date) {
        copied.push(field("Date", date::of(facts.now)));
    }
    copied
}

/// The option tag of RFC 5366.
pub const LIST_TAG: &str = "recipient-list-invite";

/// RFC 3261 §7.3.1: a folded value is the same on one line. Others stay octet for octet.
fn unfolded(value: &str) -> String {
    if !value.contains('\n') {
        return value.to_string();
    }
    value.lines().map(str::trim_ascii).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
