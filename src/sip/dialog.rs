//! RFC 3261 §12: dialogs, as caller and as callee.
//!
//! ```text
//! Dialog::calling ----- 1xx or 2xx with a tag ---> answered      caller; forks: one clone for each To tag
//! Dialog::called(INVITE, our tag)                                callee
//!        next_seq, request, ack                                  what we send in it
//!        receive, accepted, refreshed                            what the peer sends: order, remote target
//! ```

use super::header::list;
use super::header::name::Name;
use super::header::name_addr::NameAddr;
use super::message::{Malformed, Message, Request, Response};
use super::method::Method;
use super::uri::Uri;
use super::write::Writer;
use crate::limits::SIP_ROUTES_MAX;

/// What a dialog is known by (§12).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DialogId {
    pub call_id: Box<str>,
    pub local_tag: Box<str>,
    /// Empty for a peer of RFC 2543 (§12.1.1), and as long as nobody answered.
    pub remote_tag: Box<str>,
}

/// One dialog as this side knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dialog {
    id: DialogId,
    /// From or To value of our side and of the peer's, without tag.
    local: Box<str>,
    remote: Box<str>,
    local_seq: u32,
    remote_seq: Option<u32>,
    /// In the order in which they stand in Route.
    route_set: Vec<Box<str>>,
    remote_target: Box<str>,
    /// We sent the request that made it: we own the Call-ID (§14.1).
    caller: bool,
}

/// A request in a dialog that is not to be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutOfDialog {
    /// It is older than one before it: 500 (§12.2.2).
    OutOfOrder,
    /// Call-ID or tags are those of another dialog: 481.
    Unknown,
    /// A header of the dialog cannot be read: 400.
    Malformed(Malformed),
}

impl OutOfDialog {
    pub const fn status(self) -> u16 {
        match self {
            OutOfDialog::OutOfOrder => 500,
            OutOfDialog::Unknown => 481,
            OutOfDialog::Malformed(_) => 400,
        }
    }
}

impl Dialog {
    /// The dialog that a request of ours is to make. `from` and `to` are values without tag; `routes` is the route set it
    /// starts out with, as Route values.
    pub fn calling(call_id: &str, from: &str, from_tag: &str, to: &str, request_uri: &str, routes: &[&str]) -> Self {
        Self {
            id: DialogId { call_id: call_id.into(), local_tag: from_tag.into(), remote_tag: Box::default() },
            local: from.into(),
            remote: to.into(),
            local_seq: 0,
            remote_seq: None,
            route_set: routes.iter().map(|route| Box::from(*route)).collect(),
            remote_target: request_uri.into(),
            caller: true,
        }
    }

    /// §12.1.2: the dialog that a response with a To tag makes of the one we called for. For a later 2xx it is called
    /// again: the route set is computed anew (§13.2.2.4).
    ///
    /// # Errors
    /// [`Malformed`] where To or Contact cannot be read, or the 2xx has no Contact.
    pub fn answered(&self, response: &Response) -> Result<Dialog, Malformed> {
        let mut dialog = self.clone();
        dialog.answer(response)?;
        Ok(dialog)
    }

    /// The same of the one we called for itself.
    ///
    /// # Errors
    /// As [`Dialog::answered`]; nothing has changed then.
    pub fn answer(&mut self, response: &Response) -> Result<(), Malformed> {
        response.to()?;
        let tag = response.to_tag().unwrap_or("");
        let target = contact(response)?;
        if target.is_none() && response.status() >= 200 {
            return Err(Malformed::new(0, "header > contact"));
        }
        self.id.remote_tag = tag.into();
        self.route_set = record_route(response).rev().take(SIP_ROUTES_MAX).map(Box::from).collect();
        if let Some(target) = target {
            self.remote_target = target.into();
        }
        Ok(())
    }

    /// §12.1.1: the dialog that this request makes when it is answered with `local_tag` in To.
    ///
    /// # Errors
    /// [`Malformed`] where From, To, Call-ID, CSeq or Contact cannot be read: 400.
    pub fn called(request: &Request, local_tag: &str) -> Result<Dialog, Malformed> {
        let from = request.from()?;
        let target = contact(request)?.ok_or(Malformed::new(0, "header > contact"))?;
        Ok(Self {
            id: DialogId {
                call_id: request.call_id()?.into(),
                local_tag: local_tag.into(),
                remote_tag: request.from_tag().unwrap_or("").into(),
            },
            local: without_tag(&request.to()?).into_boxed_str(),
            remote: without_tag(&from).into_boxed_str(),
            local_seq: 0,
            remote_seq: Some(request.cseq()?.number),
            route_set: record_route(request).take(SIP_ROUTES_MAX).map(Box::from).collect(),
            remote_target: target.into(),
            caller: false,
        })
    }

    pub fn id(&self) -> &DialogId {
        &self.id
    }

    /// Whether we sent the request that made it.
    pub fn is_caller(&self) -> bool {
        self.caller
    }

    /// The peer's Contact URI.
    pub fn remote_target(&self) -> &str {
        &self.remote_target
    }

    /// From or To value of the peer, without tag.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// From or To value of our side, without tag.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// Route values in order.
    pub fn route_set(&self) -> impl Iterator<Item = &str> {
        self.route_set.iter().map(|route| &**route)
    }

    /// The CSeq number of our last request.
    pub fn local_seq(&self) -> u32 {
        self.local_seq
    }

    /// Takes our own entry out of the head of the route set: we recorded the route of the INVITE that we sent ourselves, as a
    /// proxy in front of us would have, and need not go through us.
    pub fn drop_own_route(&mut self, is_own: impl Fn(&Uri<'_>) -> bool) {
        let first = self.route_set.first().and_then(|route| Uri::parse(uri_of(route)).ok());
        if first.is_some_and(|uri| is_own(&uri)) {
            self.route_set.remove(0);
        }
    }

    /// The number for our next request; an ACK and a CANCEL keep that of their INVITE.
    pub fn next_seq(&mut self) -> u32 {
        self.local_seq += 1;
        self.local_seq
    }

    /// The URI to which requests in the dialog are sent (§12.2.1.1): that of the first Route, else the remote target.
    pub fn next_hop(&self) -> &str {
        self.route_set.first().map_or(&self.remote_target, |route| uri_of(route))
    }

    /// §12.2.1.1: begins a request in the dialog, or the one that makes it: request line, `via`, Route, Max-Forwards, From,
    /// To, Call-ID, CSeq. The caller adds its fields and ends with [`Writer::body`].
    pub fn request<'b>(&self, method: Method, seq: u32, via: &str, max_forwards: u8, octets: &'b mut Vec<u8>) -> Writer<'b> {
        let strict = self.route_set.first().filter(|route| !is_loose(route));
        let mut writer =
            Writer::request(octets, method.as_str(), strict.map_or(&self.remote_target, |route| bare(uri_of(route))));
        writer.field(Name::Via, via);
        for route in &self.route_set[usize::from(strict.is_some())..] {
            writer.field(Name::Route, route);
        }
        if strict.is_some() {
            // A strict router takes the Request-URI for itself: the target travels as the last Route.
            writer.format(Name::Route, format_args!("<{}>", self.remote_target));
        }
        writer.field(Name::MaxForwards, itoa::Buffer::new().format(max_forwards));
        self.address(Name::From, &self.local, &self.id.local_tag, &mut writer);
        self.address(Name::To, &self.remote, &self.id.remote_tag, &mut writer);
        writer.field(Name::CallId, &self.id.call_id);
        writer.parts(Name::CSeq, &[itoa::Buffer::new().format(seq), " ", method.as_str()]);
        writer
    }

    fn address(&self, name: Name, value: &str, tag: &str, writer: &mut Writer<'_>) {
        match tag {
            "" => writer.field(name, value),
            tag => writer.parts(name, &[value, ";tag=", tag]),
        };
    }

    /// §12.2.2: a request came that may be of this dialog. Where it is, its number is kept. The remote target of a target
    /// refresh counts once it is [`Dialog::accepted`].
    ///
    /// # Errors
    /// [`OutOfDialog`]: what to answer instead (nothing to an ACK).
    pub fn receive(&mut self, request: &Request) -> Result<(), OutOfDialog> {
        request.to().and(request.from()).map_err(OutOfDialog::Malformed)?;
        let same = request.call_id().is_ok_and(|call_id| *call_id == *self.id.call_id)
            && request.to_tag().unwrap_or("") == &*self.id.local_tag
            && request.from_tag().unwrap_or("") == &*self.id.remote_tag;
        if !same {
            return Err(OutOfDialog::Unknown);
        }
        // §12.2.2: ACK and CANCEL carry the number of their INVITE.
        if matches!(request.method(), Method::Ack | Method::Cancel) {
            return Ok(());
        }
        let seq = request.cseq().map_err(OutOfDialog::Malformed)?.number;
        if self.remote_seq.is_some_and(|last| seq < last) {
            return Err(OutOfDialog::OutOfOrder);
        }
        self.remote_seq = Some(seq);
        if refreshes_target(request.method()) {
            contact(request).map_err(OutOfDialog::Malformed)?;
        }
        Ok(())
    }

    /// Whether a request comes from somebody whom our INVITE reached, in the early dialog of the tag that it gives itself (§12.1.2):
    /// whoever has our tag and Call-ID was called.
    pub fn is_called_by(&self, request: &Request) -> bool {
        self.id.remote_tag.is_empty()
            && request.call_id().is_ok_and(|call_id| *call_id == *self.id.call_id)
            && request.to_tag() == Some(&*self.id.local_tag)
            && request.from_tag().is_some()
    }

    /// RFC 6141 §4.3 (which settles what §12.2.2 and §14.2 leave open): our 2xx to a request of the peer goes out; the Contact of
    /// a target refresh is the remote target from here on. One that is refused leaves it as it was.
    pub fn accepted(&mut self, request: &Request) {
        if refreshes_target(request.method()) {
            let _ = self.retarget(request);
        }
    }

    /// §12.2.1.2: a 2xx for our target refresh request came.
    ///
    /// # Errors
    /// [`Malformed`] where its Contact cannot be read; the target stays.
    pub fn refreshed(&mut self, response: &Response) -> Result<(), Malformed> {
        self.retarget(response)
    }

    fn retarget(&mut self, message: &Message) -> Result<(), Malformed> {
        if let Some(target) = contact(message)?.filter(|target| *target != &*self.remote_target) {
            self.remote_target = target.into();
        }
        Ok(())
    }
}

/// Requests that move the remote target: INVITE (§12.2), UPDATE (RFC 3311 §5.1), SUBSCRIBE and NOTIFY (RFC 6665 §4.1.2.2,
/// §4.2.2), REFER (RFC 3515 §2.2).
const fn refreshes_target(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Subscribe | Method::Notify | Method::Refer)
}

/// The URI of the first Contact value.
fn contact(message: &Message) -> Result<Option<&str>, Malformed> {
    let Some(value) = message.values(Name::Contact).next() else { return Ok(None) };
    let uri = NameAddr::parse(value)?.uri;
    Uri::parse(uri).map(|_| Some(uri))
}

fn record_route(message: &Message) -> impl DoubleEndedIterator<Item = &str> {
    message.lines(Name::RecordRoute).flat_map(list).collect::<Vec<_>>().into_iter()
}

/// A From or To value without its tag.
pub fn without_tag(address: &NameAddr<'_>) -> String {
    let end = address.text.len() - address.params.0.len();
    let mut value = address.text[..end].trim_ascii_end().to_string();
    for (name, content) in address.params.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("tag")) {
        value.push(';');
        value.push_str(name);
        if let Some(content) = content {
            value.push('=');
            value.push_str(content);
        }
    }
    value
}

/// The URI of a Route or Record-Route value; the value itself where it cannot be read.
pub fn uri_of(route: &str) -> &str {
    NameAddr::parse(route).map_or(route, |route| route.uri)
}

fn is_loose(route: &str) -> bool {
    Uri::parse(uri_of(route)).is_ok_and(|uri| uri.params.has("lr"))
}

/// §19.1.1: a Request-URI has no headers.
fn bare(uri: &str) -> &str {
    Uri::parse(uri).ok().and_then(|read| read.headers).map_or(uri, |headers| &uri[..uri.len() - headers.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_belongs_to_its_dialog_alone() {
        let without = |value| without_tag(&NameAddr::parse(value).expect("an address"));
        assert_eq!(without("\"A;tag=1\" <sip:a@x;tag=2>;tag=3;x=y"), "\"A;tag=1\" <sip:a@x;tag=2>;x=y");
        assert_eq!(without("sip:a@x;tag=3"), "sip:a@x");
        assert_eq!(without("<sip:a@x>"), "<sip:a@x>");
    }

    fn invite(extra: &str) -> Request {
        let text = format!(
            "INVITE sip:bob@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nRecord-Route: <sip:p2;lr>, <sip:p1;lr>\r\nFrom: \"A\" <sip:alice@x> ; tag=at\r\n\
            To: <sip:bob@x>\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\nContact: <sip:alice@pc>;x=y\r\n{extra}\r\n"
        );
        Request::parse(text.as_bytes()).unwrap()
    }

    fn response(status: u16, routes: &str) -> Response {
        let text = format!(
            "SIP/2.0 {status} X\r\n{routes}From: <sip:me@x>;tag=m\r\nTo: <sip:bob@x>;tag=bt\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <sip:bob@phone>\r\n\r\n"
        );
        Response::parse(text.as_bytes()).unwrap()
    }

    fn written(dialog: &Dialog, method: Method, seq: u32) -> String {
        let mut octets = Vec::new();
        dialog.request(method, seq, "V", 70, &mut octets).body(b"");
        String::from_utf8(octets).unwrap()
    }

    #[test]
    fn a_callee_sends_by_the_record_routes_in_their_order() {
        let mut dialog = Dialog::called(&invite(""), "lt").unwrap();
        assert_eq!(dialog.next_seq(), 1);
        assert_eq!(dialog.next_hop(), "sip:p2;lr");
        assert_eq!(
            written(&dialog, Method::Bye, 1),
            "BYE sip:alice@pc SIP/2.0\r\nVia: V\r\nRoute: <sip:p2;lr>\r\nRoute: <sip:p1;lr>\r\nMax-Forwards: 70\r\nFrom: <sip:bob@x>;tag=lt\r\n\
            To: \"A\" <sip:alice@x>;tag=at\r\nCall-ID: c\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_caller_sends_by_the_record_routes_in_reverse() {
        let calling = Dialog::calling("c", "<sip:me@x>", "m", "<sip:bob@x>", "sip:bob@x", &["<sip:core;lr>"]);
        let first = written(&calling, Method::Invite, 1);
        assert!(first.starts_with("INVITE sip:bob@x SIP/2.0\r\nVia: V\r\nRoute: <sip:core;lr>\r\n"), "{first}");
        assert!(first.contains("From: <sip:me@x>;tag=m\r\nTo: <sip:bob@x>\r\n"), "{first}");
        let dialog = calling.answered(&response(200, "Record-Route: <sip:p2;lr>\r\nRecord-Route: <sip:p1;lr>\r\n")).unwrap();
        assert_eq!(dialog.route_set().collect::<Vec<_>>(), ["<sip:p1;lr>", "<sip:p2;lr>"]);
        assert!(written(&dialog, Method::Ack, 1).starts_with("ACK sip:bob@phone SIP/2.0\r\nVia: V\r\nRoute: <sip:p1;lr>\r\n"));
        assert_eq!(&*dialog.id().remote_tag, "bt");
        assert!(calling.answered(&response(200, "")).unwrap().route_set().next().is_none());
    }

    #[test]
    fn a_strict_router_gets_the_request_uri() {
        let calling = Dialog::calling("c", "<sip:me@x>", "m", "<sip:bob@x>", "sip:bob@x", &[]);
        let dialog = calling.answered(&response(200, "Record-Route: <sip:p2;lr>, <sip:strict;x?h=1>\r\n")).unwrap();
        let bye = written(&dialog, Method::Bye, 2);
        assert!(
            bye.starts_with("BYE sip:strict;x SIP/2.0\r\nVia: V\r\nRoute: <sip:p2;lr>\r\nRoute: <sip:bob@phone>\r\n"),
            "{bye}"
        );
        assert_eq!(dialog.next_hop(), "sip:strict;x?h=1");
    }

    #[test]
    fn requests_are_taken_in_order_and_move_the_target() {
        let mut dialog = Dialog::called(&invite(""), "lt").unwrap();
        let request = |method: &str, seq: u32, to: &str| {
            let text = format!(
                "{method} sip:bob@x SIP/2.0\r\nFrom: <sip:alice@x>;tag=at\r\nTo: <sip:bob@x>;tag={to}\r\nCall-ID: c\r\nCSeq: {seq} {method}\r\n\
                Contact: <sip:alice@new{seq}>\r\n\r\n"
            );
            Request::parse(text.as_bytes()).unwrap()
        };
        assert_eq!(dialog.receive(&request("INVITE", 6, "lt")), Err(OutOfDialog::OutOfOrder));
        assert_eq!(dialog.receive(&request("INVITE", 9, "other")), Err(OutOfDialog::Unknown));
        assert_eq!(dialog.receive(&request("ACK", 7, "lt")), Ok(()));
        assert_eq!(dialog.receive(&request("INFO", 8, "lt")), Ok(()));
        assert_eq!(dialog.remote_target(), "sip:alice@pc");
        assert_eq!(dialog.receive(&request("UPDATE", 9, "lt")), Ok(()));
        assert_eq!(dialog.remote_target(), "sip:alice@pc");
        dialog.accepted(&request("UPDATE", 9, "lt"));
        assert_eq!(dialog.remote_target(), "sip:alice@new9");
        dialog.accepted(&request("INFO", 9, "lt"));
        assert_eq!(dialog.receive(&request("BYE", 8, "lt")), Err(OutOfDialog::OutOfOrder));
        dialog.refreshed(&response(200, "")).unwrap();
        assert_eq!(dialog.remote_target(), "sip:bob@phone");
    }

    #[test]
    fn a_dialog_needs_a_contact() {
        let bare = invite("");
        let bare = Request::parse(bare.head().replace("Contact: <sip:alice@pc>;x=y\r\n", "").as_bytes()).unwrap();
        assert_eq!(Dialog::called(&bare, "t").unwrap_err().context, "header > contact");
    }
}
