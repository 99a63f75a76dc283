//! RFC 5363, RFC 5364, RFC 5366, CR 8.3.2.1 8.d.vii: recipient lists in a request's body.

use crate::mime::multipart::{self, Part};
use crate::sip::header::name::Name;
use crate::sip::message::Message;
use crate::xdm::recipients::{self, MEDIA_TYPE, RECIPIENT_LIST, RECIPIENT_LIST_HISTORY, Recipient};

/// The leaf parts of a body; none where it cannot be read.
pub fn parts(message: &Message) -> Vec<Part> {
    let Some(content_type) = message.header(Name::ContentType) else { return Vec::new() };
    multipart::parts_of(content_type, message.header(Name::ContentDisposition), message.body()).unwrap_or_default()
}

/// The recipient list of a request, part and all (OSI-4.d.5).
pub fn list_of(message: &Message) -> Option<Part> {
    multipart::of_disposition(&parts(message), RECIPIENT_LIST).cloned()
}

/// A recipient-list-history that the request brought, part and all (TLM-6.c.ii.7).
pub fn history_of(message: &Message) -> Option<Part> {
    multipart::of_disposition(&parts(message), "recipient-list-history").cloned()
}

/// What recipients may see of the request's list (TSI-8.d.vii): its history, or the history it brought. A list that is no
/// well-formed document tells nothing and is left out.
pub fn shown_of(message: &Message) -> Option<Part> {
    let parts = parts(message);
    if let Some(history) = multipart::of_disposition(&parts, "recipient-list-history") {
        return Some(history.clone());
    }
    let list = multipart::of_disposition(&parts, RECIPIENT_LIST)?;
    let history = recipients::history(&list.body).ok()?;
    Some(Part::new(MEDIA_TYPE, Some(RECIPIENT_LIST_HISTORY), history))
}

/// Recipients named by the request's list (OSI-r7.c), or by its history.
pub fn named_in(message: &Message) -> Vec<Recipient> {
    let parts = parts(message);
    let list = multipart::of_disposition(&parts, RECIPIENT_LIST);
    let list = list.or_else(|| multipart::of_disposition(&parts, "recipient-list-history"));
    list.and_then(|part| recipients::parse(&part.body).ok()).unwrap_or_default()
}
