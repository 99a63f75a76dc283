//! RFC 5438 §7.2, §11: disposition notifications that we send as an intermediary.

use super::cpim::{Head, IMDN, uri_of};
use super::fields::{self, Malformed};
use crate::base::date::rfc3339;
use crate::base::xml;

/// Media type of the document inside the CPIM message.
pub const MEDIA_TYPE: &str = "message/imdn+xml";

/// What became of the message (RFC 5438 §11.1). Only one notification of each kind may be sent (§8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Delivery notification: it was not, and will not be, delivered.
    Failed,
    /// Processing notification: it waits for its recipient.
    Stored,
    /// Processing notification: it was handed on.
    Processed,
}

impl Status {
    const fn element(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stored => "stored",
            Self::Processed => "processed",
        }
    }

    const fn notification(self) -> &'static str {
        match self {
            Self::Failed => "delivery-notification",
            Self::Stored | Self::Processed => "processing-notification",
        }
    }

    /// Token of `imdn.Disposition-Notification` that asks for it.
    pub const fn asked_by(self) -> &'static str {
        match self {
            Self::Failed => "negative-delivery",
            Self::Stored | Self::Processed => "processing",
        }
    }
}

/// A notification about a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    /// `imdn.Message-ID` of the message it is about.
    pub about: String,
    /// `DateTime` of that message as written; none: it had none, `now` stands in (the element is mandatory).
    pub sent: Option<String>,
    /// URI of the message's To: who the notification comes from.
    pub recipient: String,
    /// `imdn.Original-To` (RFC 5438 §6.4) where an intermediary changed the To, else the recipient.
    pub original_recipient: String,
    /// URI of the message's From: who gets it.
    pub originator: String,
    pub status: Status,
}

impl Notification {
    /// A notification about the message with this head. None where the message did not ask for it, or named no
    /// Message-ID or originator to answer to (RFC 5438 §6.3).
    pub fn of(head: &Head, status: Status) -> Option<Self> {
        if !head.wants(status.asked_by()) {
            return None;
        }
        Some(Self {
            about: head.message_id()?.to_owned(),
            sent: head.field("DateTime").map(str::to_owned),
            recipient: head.to_uri()?.to_owned(),
            original_recipient: head.field_in(IMDN, "Original-To").map(uri_of).or(head.to_uri())?.to_owned(),
            originator: head.from_uri()?.to_owned(),
            status,
        })
    }

    /// The message/cpim body. `message_id` is the notification's own; `now_s` seconds since the Unix epoch.
    pub fn write(&self, message_id: &str, now_s: u64) -> Vec<u8> {
        let document = self.document(now_s);
        let field = |name: &str, value: String| (name.to_owned(), value);
        let mut out = Vec::with_capacity(document.len() + 512);
        let message = [
            field("From", format!("<{}>", self.recipient)),
            field("To", format!("<{}>", self.originator)),
            field("NS", format!("imdn <{IMDN}>")),
            field("imdn.Message-ID", message_id.to_owned()),
            field("DateTime", rfc3339(now_s)),
        ];
        let content = [
            field("Content-Type", MEDIA_TYPE.to_owned()),
            field("Content-Disposition", "notification".to_owned()),
            field("Content-Length", document.len().to_string()),
        ];
        fields::write(&message, &mut out);
        out.extend_from_slice(b"\r\n");
        fields::write(&content, &mut out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(document.as_bytes());
        out
    }

    fn document(&self, now_s: u64) -> String {
        let now = rfc3339(now_s);
        let (about, recipient) = (escaped(&self.about), escaped(&self.recipient));
        let original = escaped(&self.original_recipient);
        let sent = escaped(self.sent.as_deref().unwrap_or(&now));
        let (kind, status) = (self.status.notification(), self.status.element());
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<imdn xmlns=\"urn:ietf:params:xml:ns:imdn\">\r\n\
             <message-id>{about}</message-id>\r\n<datetime>{sent}</datetime>\r\n\
             <recipient-uri>{recipient}</recipient-uri>\r\n\
             <original-recipient-uri>{original}</original-recipient-uri>\r\n\
             <{kind}><status><{status}/></status></{kind}>\r\n</imdn>\r\n"
        )
    }
}

/// What a notification says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// `imdn.Message-ID` of the message it is about.
    pub about: String,
    /// "delivery-notification", "processing-notification" or "display-notification".
    pub kind: String,
    /// "delivered", "failed", "displayed" …
    pub status: String,
}

impl Document {
    /// Reads a `message/imdn+xml` document.
    ///
    /// # Errors
    /// [`Malformed`] where it is not well-formed, brings a DTD, or lacks a mandatory element.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let fail = |context| Malformed { at: 0, context };
        let document = xml::parse(text).map_err(|_| fail("imdn > xml"))?;
        let root = document.root_element();
        let named = |name: &'static str| root.children().find(move |node| node.tag_name().name() == name);
        let about = named("message-id").and_then(|node| node.text()).ok_or(fail("imdn > message-id"))?;
        let kind = root.children().find(|node| node.tag_name().name().ends_with("-notification"));
        let kind = kind.ok_or(fail("imdn > disposition"))?;
        let status = kind.descendants().find(|node| node.tag_name().name() == "status");
        let status = status.and_then(|node| node.first_element_child()).ok_or(fail("imdn > status"))?;
        Ok(Self {
            about: about.trim().to_owned(),
            kind: kind.tag_name().name().to_owned(),
            status: status.tag_name().name().to_owned(),
        })
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // XML 1.0 §2.2 has no other control characters.
            c if c.is_control() && !matches!(c, '\t' | '\r' | '\n') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKS: &[u8] =
        b"From: Alice <im:alice@example.com>\r\nTo: <im:bob&co@example.com>\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
        imdn.Message-ID: 34jk324j\r\nDateTime: 2006-04-04T12:16:49-05:00\r\n\
        imdn.Disposition-Notification: positive-delivery, negative-delivery\r\n\r\nContent-type: text/plain\r\n\r\nHello";

    #[test]
    fn a_failed_delivery_is_told_to_the_originator() {
        let head = Head::parse(ASKS).unwrap();
        let written = Notification::of(&head, Status::Failed).unwrap().write("own-1", 1_144_171_009);
        let answer = Head::parse(&written).unwrap();
        assert_eq!(answer.from_uri(), Some("im:bob&co@example.com"));
        assert_eq!(answer.to_uri(), Some("im:alice@example.com"));
        assert_eq!(answer.message_id(), Some("own-1"));
        assert_eq!(answer.content_type(), Some(MEDIA_TYPE));
        let text = std::str::from_utf8(&written[answer.content_at..]).unwrap();
        assert!(text.contains("<datetime>2006-04-04T12:16:49-05:00</datetime>"));
        let read = Document::parse(text).unwrap();
        assert_eq!(
            (read.about.as_str(), read.kind.as_str(), read.status.as_str()),
            ("34jk324j", "delivery-notification", "failed")
        );
    }

    #[test]
    fn who_did_not_ask_is_told_nothing() {
        let head = Head::parse(ASKS).unwrap();
        assert_eq!(Notification::of(&head, Status::Stored), None);
    }

    #[test]
    fn a_document_with_a_dtd_is_refused() {
        let bomb = "<!DOCTYPE imdn [<!ENTITY a \"aaaa\">]><imdn><message-id>&a;</message-id></imdn>";
        assert_eq!(Document::parse(bomb).unwrap_err().context, "imdn > xml");
        assert_eq!(Document::parse("<imdn/>").unwrap_err().context, "imdn > message-id");
    }
}
