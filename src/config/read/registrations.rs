//! `[registrations]`: who is registered, or where that is asked.

use super::super::section::Section;
use super::super::*;
use super::text::{SIP_URI, sip_uri};

pub(super) fn registrations(section: Section<'_, '_>, registrations: &mut Registrations) {
    let sources = [("static", RegistrationSource::Static), ("reg-event", RegistrationSource::RegEvent)];
    section.word("source", &mut registrations.source, &sources);
    registrations.registrar = section.checked("registrar", SIP_URI, sip_uri);
    registrations.users = section.sections("user").into_iter().filter_map(registered_user).collect();
    section.finish();
}

fn registered_user(section: Section<'_, '_>) -> Option<RegisteredUser> {
    let accepted = "a SIP or TEL address, \"sip:bob@example.net\"";
    let tel =
        |text: &str| text.strip_prefix("tel:").is_some_and(|number| !number.is_empty() && !number.contains([' ', '<', '>', '"']));
    let address = section.checked("address", accepted, |text| sip_uri(text) || tel(text));
    if section.get("address").is_none() {
        section.missing("address", accepted);
    }
    let clients = section.sections("client").into_iter().filter_map(registered_client).collect();
    section.finish();
    Some(RegisteredUser { address: address?, clients })
}

fn registered_client(section: Section<'_, '_>) -> Option<RegisteredClient> {
    let contact = section.checked("contact", SIP_URI, sip_uri);
    if section.get("contact").is_none() {
        section.missing("contact", SIP_URI);
    }
    let instance = section.checked("instance", "\"<urn:…>\"", |text| text.starts_with("<urn:") && text.ends_with('>'));
    let gruu = section.checked("gruu", SIP_URI, sip_uri);
    let known = |text: &str| {
        ["largemsg", "session", "msg", "filetransfer"].contains(&text) || text.starts_with("urn:") || text.contains('.')
    };
    let accepted = "\"largemsg\", \"session\", \"msg\", or a whole ICSI \"urn:urn-7:3gpp-service.ims.icsi.…\"";
    let features = section.list("features", accepted, |value| value.as_str().filter(|text| known(text)).map(str::to_owned));
    let user_agent = section.checked("user_agent", "a string", |_| true);
    let mut primary = false;
    section.boolean("primary", &mut primary);
    section.finish();
    let features = features.unwrap_or_default().into_iter().map(|(feature, _)| feature).collect();
    Some(RegisteredClient { contact: contact?, instance, gruu, features, user_agent, primary })
}
