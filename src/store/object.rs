//! CR 8.5, OMA CPM Message Storage: the objects of a conversation history and their header fields.
//!
//! ```text
//! Default / CONVERSATION-ID                     message objects of standalone messages
//! Default / CONVERSATION-ID / CONTRIBUTION-ID   one session info object, group state objects, chat messages
//! ```

use super::history::{Body, Object};
use crate::base::date::{rfc3339, rfc5322};

/// Folder under which the store keeps conversations.
const DEFAULT: &str = "Default";

/// `Message-Direction`, from the store owner's point of view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Sent,
    Received,
}

impl Direction {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// What all objects of a conversation share: taken from the request that began it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conversation {
    /// Whose history: a normalised address.
    pub user: String,
    /// Referred-By, else P-Asserted-Identity; "anonymous" where it is withheld.
    pub from: String,
    pub to: String,
    /// SIP Date, else when recording began; seconds since the Unix epoch.
    pub date_s: u64,
    pub subject: Option<String>,
    /// Where the request had none, something unique that stands in as the folder's name.
    pub conversation_id: String,
    pub contribution_id: String,
    pub in_reply_to: Option<String>,
    /// Values of Accept-Contact, in order.
    pub accept_contact: Vec<String>,
    /// ICSI of P-Asserted-Service, in standalone messages.
    pub service: String,
    pub direction: Direction,
}

impl Conversation {
    /// The same as the other side speaks in it.
    pub fn answered(&self) -> Self {
        let direction = match self.direction {
            Direction::Sent => Direction::Received,
            Direction::Received => Direction::Sent,
        };
        Self { from: self.to.clone(), to: self.from.clone(), direction, ..self.clone() }
    }

    fn session_folder(&self) -> Vec<String> {
        vec![DEFAULT.to_owned(), self.conversation_id.clone(), self.contribution_id.clone()]
    }

    /// A standalone message: one object with all that the INVITE or MESSAGE said. `message_id` is its
    /// `imdn.Message-ID`, or generated.
    pub fn message(&self, message_id: &str, content_type: &str, body: Body) -> Object {
        let mut headers = self.common();
        headers.push(("P-Asserted-Service".to_owned(), self.service.clone()));
        optional(&mut headers, "InReplyTo-Contribution-ID", self.in_reply_to.as_deref());
        headers.extend(self.accept_contact.iter().map(|value| ("Accept-Contact".to_owned(), value.clone())));
        let folder = vec![DEFAULT.to_owned(), self.conversation_id.clone()];
        self.object(folder, headers, message_id, content_type, body)
    }

    /// A message of a session: From and To may be those of its CPIM head (group chat).
    pub fn chat_message(&self, from: Option<&str>, to: Option<&str>, message_id: &str, content_type: &str, body: Body) -> Object {
        let said = Self {
            from: from.unwrap_or(&self.from).to_owned(),
            to: to.unwrap_or(&self.to).to_owned(),
            subject: None,
            ..self.clone()
        };
        said.object(self.session_folder(), said.common(), message_id, content_type, body)
    }

    /// The session info object (OSI-r7): data of the SIP INVITE.
    pub fn session_info(&self, message_id: &str, group: bool, sdp: &str, invited: &[String]) -> Object {
        let mut headers = self.common();
        optional(&mut headers, "InReplyTo-Contribution-ID", self.in_reply_to.as_deref());
        headers.extend(self.accept_contact.iter().map(|value| ("Accept-Contact".to_owned(), value.clone())));
        let kind = if group { "Group" } else { "1-1" };
        let (sdp, invited) = (escaped(sdp), escaped(&invited.join(";")));
        let body = format!(
            "<session>\r\n  <session-type>{kind}</session-type>\r\n  <sdp>{sdp}</sdp>\r\n  \
             <invited-participants>{invited}</invited-participants>\r\n</session>\r\n"
        );
        self.object(self.session_folder(), headers, message_id, "Application/X-CPM-Session", Body::Inline(body.into_bytes()))
    }

    /// The group state object (OSI-r7): the CPM Group Session Identity and who was invited, by name and address.
    pub fn group_state(&self, message_id: &str, session_identity: &str, participants: &[(Option<String>, String)]) -> Object {
        let (timestamp, identity) = (rfc3339(self.date_s), escaped(session_identity));
        let mut body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n\
             <groupstate timestamp=\"{timestamp}\" lastfocussessionid=\"{identity}\" group-type=\"Closed\">\r\n"
        );
        for (name, address) in participants {
            let (name, address) = (escaped(name.as_deref().unwrap_or_default()), escaped(address));
            body.push_str(&format!("  <participant name=\"{name}\" comm-addr=\"{address}\"/>\r\n"));
        }
        body.push_str("</groupstate>\r\n");
        let content_type = "Application/group-state-object+xml";
        self.object(self.session_folder(), self.common(), message_id, content_type, Body::Inline(body.into_bytes()))
    }

    fn common(&self) -> Vec<(String, String)> {
        let mut headers = vec![
            ("From".to_owned(), self.from.clone()),
            ("To".to_owned(), self.to.clone()),
            ("Date".to_owned(), rfc5322(self.date_s)),
        ];
        optional(&mut headers, "Subject", self.subject.as_deref());
        headers.push(("Conversation-ID".to_owned(), self.conversation_id.clone()));
        headers.push(("Contribution-ID".to_owned(), self.contribution_id.clone()));
        headers
    }

    fn object(
        &self,
        folder: Vec<String>,
        mut headers: Vec<(String, String)>,
        id: &str,
        content_type: &str,
        body: Body,
    ) -> Object {
        headers.push(("IMDN-Message-ID".to_owned(), id.to_owned()));
        headers.push(("Message-Direction".to_owned(), self.direction.as_str().to_owned()));
        headers.push(("Content-Type".to_owned(), content_type.to_owned()));
        let seen = self.direction == Direction::Sent;
        Object { user: self.user.clone(), folder, headers, body, seen, date_s: self.date_s }
    }
}

fn optional(headers: &mut Vec<(String, String)>, name: &str, value: Option<&str>) {
    headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && !matches!(c, '\t' | '\r' | '\n') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(direction: Direction) -> Conversation {
        Conversation {
            user: "tel:+15551230001".into(),
            from: "tel:+15551230001".into(),
            to: "sip:focus-7@conf.example.net".into(),
            date_s: 1_706_781_600,
            subject: Some("lunch".into()),
            conversation_id: "f81d4fae-7dec-11d0-a765-00a0c91e6bf6".into(),
            contribution_id: "abcdef-1234-5678-90ab-cdef01234567".into(),
            in_reply_to: None,
            accept_contact: vec!["*;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"".into()],
            service: "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.largemsg".into(),
            direction,
        }
    }

    fn text(object: &Object) -> &str {
        let Body::Inline(octets) = &object.body else { panic!("inline") };
        std::str::from_utf8(octets).unwrap()
    }

    #[test]
    fn a_session_info_object_holds_the_invites_data() {
        let invited = ["tel:+15551230002".to_owned(), "tel:+15551230003".to_owned()];
        let object = conversation(Direction::Sent).session_info("7b1a", true, "v=0\r\ns=<&>\r\n", &invited);
        assert_eq!(object.folder.len(), 3);
        assert_eq!(object.folder[2], "abcdef-1234-5678-90ab-cdef01234567");
        assert_eq!(object.header("Content-Type"), Some("Application/X-CPM-Session"));
        assert_eq!(object.header("Message-Direction"), Some("sent"));
        assert_eq!(object.header("Date"), Some("Thu, 01 Feb 2024 10:00:00 +0000"));
        assert_eq!(object.header("P-Asserted-Service"), None);
        assert!(object.seen);
        let document = crate::base::xml::parse(text(&object)).unwrap();
        let of = |name: &str| document.descendants().find(|node| node.has_tag_name(name)).and_then(|node| node.text());
        assert_eq!(of("session-type"), Some("Group"));
        assert_eq!(of("sdp"), Some("v=0\ns=<&>\n"));
        assert_eq!(of("invited-participants"), Some("tel:+15551230002;tel:+15551230003"));
    }

    #[test]
    fn a_group_state_object_names_the_focus_and_who_was_invited() {
        let participants = [(Some("bob \"b\"".to_owned()), "tel:+16135551210".to_owned()), (None, "sip:a&b@x".to_owned())];
        let object = conversation(Direction::Sent).group_state("id", "sip:da9274453@company.com", &participants);
        let document = crate::base::xml::parse(text(&object)).unwrap();
        let root = document.root_element();
        assert_eq!(root.attribute("lastfocussessionid"), Some("sip:da9274453@company.com"));
        assert_eq!(root.attribute("timestamp"), Some("2024-02-01T10:00:00Z"));
        let addresses: Vec<_> = root.descendants().filter_map(|node| node.attribute("comm-addr")).collect();
        assert_eq!(addresses, ["tel:+16135551210", "sip:a&b@x"]);
    }

    #[test]
    fn a_standalone_message_carries_its_service_and_a_chat_message_does_not() {
        let body = || Body::Inline(b"x".to_vec());
        let received = conversation(Direction::Received);
        let message = received.message("m1", "Message/CPIM", body());
        assert_eq!(message.folder, ["Default", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]);
        assert!(message.header("P-Asserted-Service").is_some() && message.header("Accept-Contact").is_some());
        assert!(!message.seen);
        let chat = received.chat_message(Some("sip:carol@x"), None, "m2", "Message/CPIM", body());
        assert!(chat.header("P-Asserted-Service").is_none() && chat.header("Accept-Contact").is_none());
        assert_eq!(chat.header("From"), Some("sip:carol@x"));
        assert_eq!(chat.header("IMDN-Message-ID"), Some("m2"));
    }
}
