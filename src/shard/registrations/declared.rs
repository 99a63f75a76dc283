//! 3GPP TS 24.229 §5.4.1.7A: what a third-party REGISTER carries of the user's own: the REGISTER that came to the registrar,
//! and its 200, as `message/sip`. Registrars whose reginfo documents name contacts by their URIs alone (Kamailio 5.6) tell a
//! client's feature tags nowhere else.

use super::reginfo::is_primary;
use crate::cpm::facts::Client;
use crate::cpm::service;
use crate::limits::REGINFO_CONTACTS_MAX;
use crate::mime::multipart;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::message::{Incoming, Request};
use crate::sip::method::Method;
use crate::sip::uri::Uri;

/// Contact parameters that say nothing of what a client can do (RFC 3261 §20.10, RFC 5626 §11, RFC 5627 §9).
const NO_FEATURES: [&str; 7] = ["q", "expires", "reg-id", "pub-gruu", "temp-gruu", "+sip.instance", "temp-gruu-cookie"];

/// What one user's clients declared when they registered, one entry a contact URI.
#[derive(Default, Debug)]
pub struct Declared(Vec<Client>);

impl Declared {
    /// Takes in what a third-party REGISTER carries. True: there was something.
    pub fn learn(&mut self, register: &Request) -> bool {
        let content_type = register.header(Name::ContentType).unwrap_or("");
        let parts = multipart::parts_of(content_type, None, register.body()).unwrap_or_default();
        let mut learnt = false;
        for part in parts.iter().filter(|part| part.is("message/sip")) {
            match Incoming::parse(&part.body) {
                Ok(Incoming::Request(request)) if request.method() == Method::Register => {
                    let user_agent = request.header(Name::UserAgent);
                    request.values(Name::Contact).for_each(|value| learnt |= self.contact(value, user_agent));
                }
                Ok(Incoming::Response(response)) => {
                    response.values(Name::Contact).for_each(|value| learnt |= self.contact(value, None));
                }
                _ => {}
            }
        }
        learnt
    }

    /// What is new replaces what was known; what is not said leaves it.
    fn contact(&mut self, value: &str, user_agent: Option<&str>) -> bool {
        let Ok(contact) = NameAddr::parse(value) else { return false };
        let at = match self.0.iter().position(|known| is_same(&known.contact, contact.uri)) {
            Some(at) => at,
            None if self.0.len() >= REGINFO_CONTACTS_MAX => return false,
            None => {
                self.0.push(Client { contact: contact.uri.to_string(), ..Client::default() });
                self.0.len() - 1
            }
        };
        let client = &mut self.0[at];
        let features: Vec<(String, Vec<String>)> = contact
            .params
            .iter()
            .filter(|(name, _)| !NO_FEATURES.iter().any(|known| known.eq_ignore_ascii_case(name)))
            .map(|(name, value)| (name.to_string(), values(value.unwrap_or(""))))
            .collect();
        if !features.is_empty() {
            client.features = features;
        }
        let param = |name| contact.params.value(name).map(|value| value.trim_matches('"').to_string());
        client.instance = param("+sip.instance").or(client.instance.take());
        client.gruu = param("pub-gruu").or(client.gruu.take());
        client.user_agent = user_agent.map(str::to_string).or(client.user_agent.take());
        true
    }

    /// Completes a client of which a document says the URI and little else.
    pub fn complete(&self, client: &mut Client) {
        let Some(known) = self.0.iter().find(|known| is_same(&known.contact, &client.contact)) else { return };
        if client.features.is_empty() {
            client.features.clone_from(&known.features);
        }
        if client.instance.is_none() {
            client.instance.clone_from(&known.instance);
            client.primary = is_primary(client);
        }
        client.gruu = client.gruu.take().or(known.gruu.clone());
        client.user_agent = client.user_agent.take().or(known.user_agent.clone());
    }
}

fn is_same(one: &str, other: &str) -> bool {
    match (Uri::parse(one), Uri::parse(other)) {
        (Ok(one), Ok(other)) => one.same_as(&other),
        _ => one == other,
    }
}

/// Values of a feature tag: in quotes, percent-encoded, several in a list.
fn values(value: &str) -> Vec<String> {
    let value = value.trim_matches('"');
    value.split(',').map(str::trim).filter(|value| !value.is_empty()).map(service::decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5082;branch=z9hG4bK1\r\nFrom: <sip:bob@example.net>;tag=1\r\n\
        To: <sip:bob@example.net>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\nUser-Agent: CPM-client/OMA2.2\r\nContact: <sip:bob@127.0.0.1:5082>;q=0.5;audio;\
        +sip.instance=\"<urn:gsma:imei:9>\";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session,urn%3Aa\"\r\nContent-Length: 0\r\n\r\n";

    fn third_party(content_type: &str, body: &str) -> Request {
        let text = format!(
            "REGISTER sip:pf SIP/2.0\r\nTo: <sip:bob@example.net>\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Request::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_a_client_declared_completes_a_bare_contact() {
        let mut declared = Declared::default();
        assert!(declared.learn(&third_party("message/sip", OWN)));
        let ok = "SIP/2.0 200 OK\r\nContact: <sip:bob@127.0.0.1:5082>;expires=600;pub-gruu=\"sip:bob@example.net;gr=x\"\r\n\r\n";
        assert!(declared.learn(&third_party(
            "multipart/mixed;boundary=b",
            &format!("--b\r\nContent-Type: message/sip\r\n\r\n{ok}\r\n--b--\r\n")
        )));
        let mut client = Client { contact: "sip:bob@127.0.0.1:5082".into(), ..Client::default() };
        declared.complete(&mut client);
        assert_eq!((client.instance.as_deref(), client.primary), (Some("<urn:gsma:imei:9>"), true));
        assert_eq!(
            (client.gruu.as_deref(), client.user_agent.as_deref()),
            (Some("sip:bob@example.net;gr=x"), Some("CPM-client/OMA2.2"))
        );
        assert_eq!(client.features[0], ("audio".to_string(), Vec::new()));
        assert_eq!(client.features[1].1, ["urn:urn-7:3gpp-service.ims.icsi.oma.cpm.session", "urn:a"]);
        let mut said = Client { features: vec![("video".into(), Vec::new())], ..client.clone() };
        declared.complete(&mut said);
        assert_eq!(said.features.len(), 1, "what the document says stands");
    }

    #[test]
    fn what_is_no_register_declares_nothing() {
        let mut declared = Declared::default();
        assert!(!declared.learn(&third_party("message/sip", "rubbish")));
        assert!(!declared.learn(&third_party("application/3gpp-ims+xml", OWN)));
        assert!(!declared.learn(&third_party("message/sip", &OWN.replace("REGISTER", "INVITE"))));
    }
}
