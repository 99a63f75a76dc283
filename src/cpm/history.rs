//! CR 8.5 and 8.5.1: what of a request and its messages goes into the user's history (`store/object.rs` shapes it).

use super::service::{self, LARGE_MESSAGE, PAGER};
use super::{identity, recipients};
use crate::base::clock::Instant;
use crate::base::date;
use crate::clause;
use crate::mime::cpim::Head;
use crate::sip::header::name::Name;
use crate::sip::header::name_addr::NameAddr;
use crate::sip::message::{Request, Response};
use crate::sip::method::Method;
use crate::store::history::{Body, Object};
use crate::store::object::{Conversation, Direction};

/// A message that went through.
pub struct Message<'a> {
    /// MSRP Message-ID; it stands in where the content names no `imdn.Message-ID`.
    pub message_id: &'a str,
    pub content_type: &'a str,
    /// The beginning of the content, where CPIM says from whom, to whom, and under which id.
    pub head: &'a [u8],
    pub body: Body,
}

/// What all objects of a request share. `user` is whose store it is, `sent` that the user sent it, `began` when the
/// request came, `stand_in` a unique name for a conversation whose request names none.
pub fn conversation(request: &Request, user: &str, sent: bool, began: Instant, stand_in: &str) -> Conversation {
    let text = |name: Name| request.header(name).map(unfolded);
    Conversation {
        user: user.to_string(),
        from: from(request, sent),
        to: address(request.header(Name::To)).unwrap_or_else(|| request.uri().to_string()),
        date_s: request.header(Name::Date).and_then(date::parse_rfc5322).unwrap_or(began.unix_s()),
        subject: text(Name::Subject),
        conversation_id: text(Name::ConversationId).unwrap_or_else(|| stand_in.to_string()),
        contribution_id: text(Name::ContributionId).unwrap_or_else(|| stand_in.to_string()),
        in_reply_to: text(Name::InReplyToContributionId),
        accept_contact: request.lines(Name::AcceptContact).map(unfolded).collect(),
        service: service::asserted_or(request, if request.method() == Method::Message { PAGER } else { LARGE_MESSAGE }),
        direction: if sent { Direction::Sent } else { Direction::Received },
    }
}

/// 8.5.1: a standalone message.
pub fn standalone(conversation: &Conversation, message: Message<'_>) -> Object {
    let head = Head::parse(message.head).ok();
    let id = head.as_ref().and_then(Head::message_id).unwrap_or(message.message_id);
    conversation.message(id, message.content_type, message.body)
}

/// 8.5: a message of a session; in a group its CPIM head says who wrote it. `by_origin`: it came from the side that the
/// INVITE came from.
pub fn of_session(conversation: &Conversation, by_origin: bool, message: Message<'_>) -> Object {
    let answered = (!by_origin).then(|| conversation.answered());
    let conversation = answered.as_ref().unwrap_or(conversation);
    let head = Head::parse(message.head).ok();
    let id = head.as_ref().and_then(Head::message_id).unwrap_or(message.message_id);
    let (from, to) = (head.as_ref().and_then(Head::from_uri), head.as_ref().and_then(Head::to_uri));
    conversation.chat_message(from, to, id, message.content_type, message.body)
}

/// OSI-r7: the session info object, and for a group session its state object too. `answer` is the 2xx that established
/// the session, whose Contact is the session's identity where a focus answered; `ids` are two of our own.
pub fn invitation(
    conversation: &Conversation,
    request: &Request,
    group: bool,
    answer: Option<&Response>,
    ids: [&str; 2],
) -> Vec<Object> {
    let named = recipients::named_in(request);
    let invited: Vec<String> = match named.as_slice() {
        [] => vec![conversation.to.clone()],
        named => named.iter().map(|recipient| recipient.uri.clone()).collect(),
    };
    let parts = recipients::parts(request);
    let sdp = crate::mime::multipart::sdp(&parts).map(|part| String::from_utf8_lossy(&part.body).into_owned());
    let mut objects = vec![conversation.session_info(ids[0], group, &sdp.unwrap_or_default(), &invited)];
    if group {
        clause!("OSI-r7.c");
        let focus = |message: &crate::sip::message::Message| address(super::contact::focus(message));
        let identity = answer.and_then(|ok| focus(ok)).or_else(|| focus(request));
        let identity = identity.unwrap_or_else(|| request.uri().to_string());
        let participants: Vec<_> = named.into_iter().map(|recipient| (recipient.display_name, recipient.uri)).collect();
        objects.push(conversation.group_state(ids[1], &identity, &participants));
    }
    objects
}

/// Referred-By, else the asserted identity; withheld from the recipient: "anonymous".
fn from(request: &Request, sent: bool) -> String {
    if !sent && identity::is_anonymous(request) {
        return "anonymous".to_string();
    }
    let referred = address(request.header(Name::ReferredBy));
    let asserted = || address(request.values(Name::PAssertedIdentity).next());
    referred.or_else(asserted).or_else(|| address(request.header(Name::From))).unwrap_or_default()
}

fn address(value: Option<&str>) -> Option<String> {
    NameAddr::parse(value?).ok().map(|address| address.uri.to_string())
}

/// RFC 3261 §7.3.1: a folded value on one line.
fn unfolded(value: &str) -> String {
    value.split(['\r', '\n']).map(str::trim).filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(" ")
}
