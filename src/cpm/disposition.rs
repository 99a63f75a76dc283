//! RFC 5438 §7.2.1.2, CR 8.3.1.6: what the sender hears of a message that was kept for a recipient who never came.
//!
//! Only the recipient's client says "delivered"; an intermediary says "failed", once, and only where it was asked.

use super::decision::{NextHop, OutMessage, TargetKind};
use super::headers::field;
use super::{release, service};
use crate::config::Config;
use crate::mime::cpim::Head;
use crate::mime::imdn::{Notification, Status};
use crate::store::deferred::{Deferred, Notice};

/// What a negative delivery notification of this CPIM message would name; none where its sender did not ask for one.
/// `head` is the beginning of the message.
pub fn notice_of(head: &[u8]) -> Option<Notice> {
    let notification = Notification::of(&Head::parse(head).ok()?, Status::Failed)?;
    let Notification { about, sent, recipient, original_recipient, originator, status: _ } = notification;
    Some(Notice { about, sent, originator, recipient, original_recipient })
}

/// The MESSAGE that tells the sender that its message expired (or was refused) before it could be delivered; none where
/// it did not ask. `message_id` is the notification's own `imdn.Message-ID`; `now_s` seconds since the Unix epoch.
pub fn failed(config: &Config, deferred: &Deferred, message_id: &str, now_s: u64) -> Option<OutMessage> {
    let notice = deferred.negative_delivery.as_ref()?;
    let notification = Notification {
        about: notice.about.clone(),
        sent: notice.sent.clone(),
        recipient: notice.recipient.clone(),
        original_recipient: notice.original_recipient.clone(),
        originator: notice.originator.clone(),
        status: Status::Failed,
    };
    let kept = |name: &str| deferred.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).cloned();
    let asserted = kept("P-Asserted-Identity").map(|(_, value)| value);
    let sender = asserted.as_deref().and_then(first_uri).or_else(|| first_uri(&deferred.from))?;
    let system = service::whole("systemmsg");
    let mut headers = vec![
        field("Accept-Contact", service::accept_contact_of(&system)),
        field("P-Asserted-Service", system),
        field("P-Asserted-Identity", format!("<{}>", deferred.user)),
        field("User-Agent", release::product(config)),
    ];
    let ids = ["Conversation-ID", "Contribution-ID"].into_iter();
    headers.extend(ids.filter_map(|name| kept(name).map(|(_, value)| field(name, value))));
    Some(OutMessage {
        kind: TargetKind::Recipient,
        request_uri: sender,
        next_hop: NextHop::Core { fallback: None },
        from: deferred.to.clone(),
        to: deferred.from.clone(),
        headers,
        content_type: "message/cpim".to_string(),
        body: notification.write(message_id, now_s),
    })
}

/// The URI of the first of several addresses.
fn first_uri(value: &str) -> Option<String> {
    let first = crate::sip::header::list(value).next()?;
    crate::sip::header::name_addr::NameAddr::parse(first).ok().map(|address| address.uri.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::deferred::{DeferredId, DeferredService};

    const CPIM: &[u8] = b"From: <sip:alice@example.net>\r\nTo: <sip:bob@example.net>\r\nNS: imdn <urn:ietf:params:imdn>\r\n\
        imdn.Message-ID: m-1\r\nDateTime: 2024-02-01T10:00:00Z\r\nimdn.Disposition-Notification: negative-delivery\r\n\r\n\
        Content-Type: text/plain\r\n\r\nhello";

    fn expired(negative_delivery: Option<Notice>) -> Deferred {
        Deferred {
            id: DeferredId("d-1".to_string()),
            user: "sip:bob@example.net".to_string(),
            arrived_s: 1,
            expires_s: 2,
            service: DeferredService::LargeMessage,
            headers: vec![
                ("P-Asserted-Identity".to_string(), "\"A, B\" <sip:alice@example.net>, <tel:+15551230001>".to_string()),
                ("Conversation-ID".to_string(), "conv".to_string()),
            ],
            from: "<sip:alice@example.net>".to_string(),
            to: "<sip:bob@example.net>".to_string(),
            content_type: "message/cpim".to_string(),
            message_id: "x".to_string(),
            octets: 5,
            file: Default::default(),
            inline: None,
            parts: Vec::new(),
            negative_delivery,
            attempts: 0,
        }
    }

    #[test]
    fn a_sender_who_asked_hears_that_the_message_failed() {
        let message = failed(&Config::default(), &expired(notice_of(CPIM)), "n-1", 3).expect("it was asked for");
        assert_eq!(message.request_uri, "sip:alice@example.net");
        let body = String::from_utf8(message.body).expect("a document is text");
        assert!(body.contains("<message-id>m-1</message-id>"), "{body}");
        assert!(body.contains("<delivery-notification><status><failed/></status></delivery-notification>"), "{body}");
        assert!(message.headers.contains(&field("Conversation-ID", "conv")));
    }

    #[test]
    fn a_sender_who_did_not_ask_hears_nothing() {
        let silent = String::from_utf8_lossy(CPIM).replace("negative-delivery", "display");
        assert_eq!(notice_of(silent.as_bytes()), None);
        assert!(failed(&Config::default(), &expired(None), "n-1", 3).is_none());
    }
}
