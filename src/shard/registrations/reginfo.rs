//! RFC 3680 §5, RFC 5628: reginfo documents, and the table they keep.
//!
//! | version    | state    | what happens                                                         |
//! |------------|----------|----------------------------------------------------------------------|
//! | first one  | any      | it begins the table                                                  |
//! | 0 after 0  | full     | it is the table: Kamailio 5.6 numbers all of its documents 0         |
//! | not newer  | any      | nothing                                                              |
//! | newer      | full     | it is the table                                                      |
//! | next       | partial  | its registrations take the place of those with their ids             |
//! | later      | partial  | the same, and the subscription is refreshed to get a full document   |

use crate::base::xml::{Malformed, attribute, elements, name, own_text, parse, text};
use crate::cpm::facts::Client;
use crate::cpm::service;
use crate::limits::REGINFO_CONTACTS_MAX;
use std::collections::BTreeMap;

/// Media type of the documents.
pub const MEDIA_TYPE: &str = "application/reginfo+xml";

/// A whole document.
#[derive(Clone, PartialEq, Debug)]
pub struct RegInfo {
    pub version: u32,
    pub full: bool,
    /// By id: address of record, and active contacts by id with those that are gone (none).
    registrations: Vec<(String, Registration)>,
}

#[derive(Clone, PartialEq, Debug, Default)]
struct Registration {
    aor: String,
    active: bool,
    contacts: Vec<(String, Option<Client>)>,
}

/// The registrations of one subscription.
#[derive(Default, Debug)]
pub struct Table {
    version: Option<u32>,
    /// Registration id to address of record and active contacts by id.
    registrations: BTreeMap<String, (String, BTreeMap<String, Client>)>,
}

/// What a document did to the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    Changed,
    /// A document between was lost: refresh, to get all of it.
    ChangedWithGap,
    Old,
}

impl RegInfo {
    /// # Errors
    /// [`Malformed`] where it is not well-formed, its root is no reginfo, or it has no version.
    pub fn parse(document: &[u8]) -> Result<Self, Malformed> {
        let document = parse(text(document)?)?;
        let root = document.root_element();
        if name(root) != "reginfo" {
            return Err(Malformed::whole("reginfo"));
        }
        let version =
            attribute(root, "version").and_then(|text| text.trim().parse().ok()).ok_or(Malformed::whole("reginfo > version"))?;
        let full = attribute(root, "state").is_some_and(|state| state.trim() == "full");
        let mut left = REGINFO_CONTACTS_MAX;
        let mut registrations = Vec::new();
        for node in elements(root).filter(|node| name(*node) == "registration") {
            let aor = attribute(node, "aor").unwrap_or_default().trim().to_string();
            let id = attribute(node, "id").unwrap_or(&aor).to_string();
            let active = attribute(node, "state").is_none_or(|state| state.trim() != "terminated");
            let mut contacts = Vec::new();
            for contact in elements(node).filter(|node| name(*node) == "contact").take(left) {
                left -= 1;
                let gone = attribute(contact, "state").is_some_and(|state| state.trim() == "terminated");
                let client = if gone { None } else { client(contact, &aor) };
                let id = attribute(contact, "id").map_or_else(|| own_uri(contact), str::to_string);
                contacts.push((id, client));
            }
            registrations.push((id, Registration { aor, active, contacts }));
        }
        Ok(Self { version, full, registrations })
    }
}

fn own_uri(contact: roxmltree::Node<'_, '_>) -> String {
    elements(contact).find(|node| name(*node) == "uri").map(own_text).unwrap_or_default()
}

/// RFC 3680 §5.3.2: a contact as a client. Field values may stand in quotes, colons percent-encoded, several in a list.
fn client(contact: roxmltree::Node<'_, '_>, aor: &str) -> Option<Client> {
    let uri = own_uri(contact);
    if uri.is_empty() {
        return None;
    }
    let q = attribute(contact, "q").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0);
    let mut client = Client { aor: aor.to_string(), contact: uri, q: (q.clamp(0.0, 1.0) * 1000.0) as u16, ..Client::default() };
    for node in elements(contact) {
        match name(node) {
            "unknown-param" => {
                let Some(param) = attribute(node, "name") else { continue };
                let value = own_text(node);
                let value = value.trim().trim_matches('"');
                if param.eq_ignore_ascii_case("+sip.instance") {
                    client.instance = Some(value.to_string());
                } else {
                    let values = value.split(',').map(str::trim).filter(|value| !value.is_empty()).map(service::decode).collect();
                    client.features.push((param.to_string(), values));
                }
            }
            "pub-gruu" => client.gruu = attribute(node, "uri").map(str::to_string),
            _ => {}
        }
    }
    client.primary = is_primary(&client);
    // Kamailio 5.6 has it as an attribute.
    client.user_agent = attribute(contact, "user_agent").filter(|text| !text.is_empty()).map(str::to_string);
    Some(client)
}

/// Whether a client is on the primary device. RFC 7255: an instance id made of an IMEI is a handset's, and the handset has the
/// subscriber's SIM.
pub fn is_primary(client: &Client) -> bool {
    client.instance.as_deref().is_some_and(|instance| instance.to_ascii_lowercase().starts_with("<urn:gsma:imei:"))
}

impl Table {
    /// Takes a document in.
    pub fn apply(&mut self, document: RegInfo) -> Applied {
        let RegInfo { version, full, registrations } = document;
        let uncounted = full && version == 0 && self.version == Some(0);
        if self.version.is_some_and(|last| version <= last) && !uncounted {
            return Applied::Old;
        }
        let gap = !full && self.version.is_some_and(|last| version > last + 1);
        self.version = Some(version);
        if full {
            self.registrations.clear();
        }
        for (id, registration) in registrations {
            if !registration.active {
                self.registrations.remove(&id);
                continue;
            }
            let row = self.registrations.entry(id).or_default();
            row.0 = registration.aor;
            for (id, client) in registration.contacts {
                match client {
                    Some(client) => row.1.insert(id, client),
                    None => row.1.remove(&id),
                };
            }
        }
        if gap { Applied::ChangedWithGap } else { Applied::Changed }
    }

    /// Whether a document has come.
    pub fn is_begun(&self) -> bool {
        self.version.is_some()
    }

    /// Addresses of record, and all active contacts: an implicit registration set has the same under each of its addresses.
    pub fn clients(&self) -> (Vec<&str>, Vec<Client>) {
        let addresses = self.registrations.values().map(|(aor, _)| aor.as_str()).collect();
        let clients = self.registrations.values().flat_map(|(_, contacts)| contacts.values().cloned()).collect();
        (addresses, clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(version: u32, state: &str, body: &str) -> RegInfo {
        let text = format!(
            "<?xml version=\"1.0\"?><reginfo xmlns=\"urn:ietf:params:xml:ns:reginfo\" xmlns:gr=\"urn:ietf:params:xml:ns:gruuinfo\" \
             version=\"{version}\" state=\"{state}\">{body}</reginfo>"
        );
        RegInfo::parse(text.as_bytes()).unwrap()
    }

    const BOB: &str = r#"<registration aor="sip:bob@example.net" id="r1" state="active"><contact id="c1" state="active"
        event="registered" q="0.5"><uri>sip:bob@127.0.0.1:5082</uri>
        <unknown-param name="+sip.instance">"&lt;urn:gsma:imei:90420156-025763-0&gt;"</unknown-param>
        <unknown-param name="+g.3gpp.icsi-ref">"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session, urn%3aa"</unknown-param>
        <unknown-param name="audio"/><gr:pub-gruu uri="sip:bob@example.net;gr=x"/></contact></registration>"#;

    #[test]
    fn a_contact_is_read_as_a_client() {
        let mut table = Table::default();
        assert_eq!(table.apply(document(0, "full", BOB)), Applied::Changed);
        let (addresses, clients) = table.clients();
        assert_eq!(addresses, ["sip:bob@example.net"]);
        let bob = &clients[0];
        assert_eq!((bob.contact.as_str(), bob.q, bob.primary), ("sip:bob@127.0.0.1:5082", 500, true));
        assert_eq!(bob.instance.as_deref(), Some("<urn:gsma:imei:90420156-025763-0>"));
        assert_eq!(bob.gruu.as_deref(), Some("sip:bob@example.net;gr=x"));
        assert_eq!(bob.features[0].1, ["urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session", "urn:a"]);
        assert_eq!(bob.features[1], ("audio".to_string(), Vec::new()));
    }

    #[test]
    fn versions_order_documents_and_a_gap_is_seen() {
        let mut table = Table::default();
        table.apply(document(5, "full", BOB));
        assert_eq!(table.apply(document(5, "full", "")), Applied::Old);
        let gone = r#"<registration aor="sip:bob@example.net" id="r1" state="active"><contact id="c1" state="terminated"
            event="expired"><uri>sip:bob@127.0.0.1:5082</uri></contact></registration>"#;
        assert_eq!(table.apply(document(6, "partial", gone)), Applied::Changed);
        assert!(table.clients().1.is_empty());
        assert_eq!(table.apply(document(9, "partial", BOB)), Applied::ChangedWithGap);
        assert_eq!(table.clients().1.len(), 1);
        let mut uncounted = Table::default();
        uncounted.apply(document(0, "full", ""));
        assert_eq!(uncounted.apply(document(0, "full", BOB)), Applied::Changed);
        assert_eq!(uncounted.apply(document(0, "partial", "")), Applied::Old);
        let over = r#"<registration aor="sip:bob@example.net" id="r1" state="terminated"/>"#;
        assert_eq!(table.apply(document(10, "partial", over)), Applied::Changed);
        assert!(table.clients().0.is_empty());
        assert!(RegInfo::parse(b"<other/>").is_err() && RegInfo::parse(b"<reginfo/>").is_err());
    }
}
