//! RFC 3261 §8.1.1: the header fields that every message has, To, From, CSeq, Call-ID and Via. Each is read once, however many
//! steps of its way ask for it.

use super::header::cseq::CSeq;
use super::header::name::Name;
use super::header::name_addr::NameAddr;
use super::header::params::Params;
use super::header::via::Via;
use super::message::{Malformed, Message};
use super::method::Method;
use std::cell::OnceCell;

/// What was read of them, as places in the head of the message.
#[derive(Clone, Debug, Default)]
pub(super) struct Mandatory {
    via: OnceCell<Result<TopVia, Malformed>>,
    from: OnceCell<Result<Address, Malformed>>,
    to: OnceCell<Result<Address, Malformed>>,
    cseq: OnceCell<Result<Sequence, Malformed>>,
}

/// Octets of the head.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: u32,
    end: u32,
}

impl Span {
    /// Where `part` stands in `head`; an empty text that was not cut from it stands at its beginning.
    fn of(head: &str, part: &str) -> Self {
        let at = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
        if at > head.len() { Self { at: 0, end: 0 } } else { Self { at: at as u32, end: (at + part.len()) as u32 } }
    }

    fn in_head(self, head: &str) -> &str {
        head.get(self.at as usize..self.end as usize).unwrap_or("")
    }
}

#[derive(Clone, Copy, Debug)]
struct TopVia {
    transport: Span,
    host: Span,
    port: Option<u16>,
    params: Span,
}

#[derive(Clone, Copy, Debug)]
struct Address {
    text: Span,
    display: Span,
    uri: Span,
    params: Span,
    tag: Option<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Sequence {
    number: u32,
    method: Method,
    method_str: Span,
}

impl Message {
    /// # Errors: [`Malformed`] where the header is missing or cannot be read.
    pub fn top_via(&self) -> Result<Via<'_>, Malformed> {
        let head = self.head();
        let span = |part| Span::of(head, part);
        let read = self.mandatory.via.get_or_init(|| {
            let value = self.values(Name::Via).next().ok_or(Malformed::new(0, "header > via"))?;
            let Via { transport, host, port, params } = Via::parse(value)?;
            Ok(TopVia { transport: span(transport), host: span(host), port, params: span(params.0) })
        });
        read.map(|TopVia { transport, host, port, params }| Via {
            transport: transport.in_head(head),
            host: host.in_head(head),
            port,
            params: Params(params.in_head(head)),
        })
    }

    /// # Errors: [`Malformed`] where the header is missing or cannot be read.
    pub fn from(&self) -> Result<NameAddr<'_>, Malformed> {
        self.read_from().map(|address| address.in_head(self.head()))
    }

    /// # Errors: [`Malformed`] where the header is missing or cannot be read.
    pub fn to(&self) -> Result<NameAddr<'_>, Malformed> {
        self.read_to().map(|address| address.in_head(self.head()))
    }

    /// The tag of From; none where it has none or cannot be read.
    pub fn from_tag(&self) -> Option<&str> {
        self.read_from().ok()?.tag.map(|tag| tag.in_head(self.head()))
    }

    /// The tag of To; none where it has none or cannot be read.
    pub fn to_tag(&self) -> Option<&str> {
        self.read_to().ok()?.tag.map(|tag| tag.in_head(self.head()))
    }

    /// # Errors: [`Malformed`] where the header is missing or empty.
    pub fn call_id(&self) -> Result<&str, Malformed> {
        self.header(Name::CallId).filter(|value| !value.is_empty()).ok_or(Malformed::new(0, "header > call-id"))
    }

    /// # Errors: [`Malformed`] where the header is missing or cannot be read.
    pub fn cseq(&self) -> Result<CSeq<'_>, Malformed> {
        let head = self.head();
        let read = self.mandatory.cseq.get_or_init(|| {
            let value = self.header(Name::CSeq).ok_or(Malformed::new(0, "header > cseq"))?;
            let CSeq { number, method, method_str } = CSeq::parse(value)?;
            Ok(Sequence { number, method, method_str: Span::of(head, method_str) })
        });
        read.map(|Sequence { number, method, method_str }| CSeq { number, method, method_str: method_str.in_head(head) })
    }

    fn read_from(&self) -> Result<Address, Malformed> {
        *self.mandatory.from.get_or_init(|| self.address(Name::From, "header > from"))
    }

    fn read_to(&self) -> Result<Address, Malformed> {
        *self.mandatory.to.get_or_init(|| self.address(Name::To, "header > to"))
    }

    fn address(&self, name: Name, context: &'static str) -> Result<Address, Malformed> {
        let address = NameAddr::parse(self.header(name).ok_or(Malformed::new(0, context))?)?;
        let span = |part| Span::of(self.head(), part);
        Ok(Address {
            text: span(address.text),
            display: span(address.display),
            uri: span(address.uri),
            params: span(address.params.0),
            tag: address.tag().map(span),
        })
    }
}

impl Address {
    fn in_head(self, head: &str) -> NameAddr<'_> {
        NameAddr {
            text: self.text.in_head(head),
            display: self.display.in_head(head),
            uri: self.uri.in_head(head),
            params: Params(self.params.in_head(head)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Request;

    #[test]
    fn what_was_read_once_reads_the_same_again() {
        let text = "INVITE sip:b@x SIP/2.0\r\nv: SIP/2.0/UDP a:5070;branch=z9hG4bK1;rport, SIP/2.0/TCP b\r\n\
            f: \"A, B\" <sip:a@x> ; x=y;tag=1\r\nTo: sip:b@x;tag=2\r\nCSeq: 7  INVITE\r\ni: c\r\n\r\n";
        let request = Request::parse(text.as_bytes()).unwrap();
        for _ in 0..2 {
            assert_eq!(request.from(), NameAddr::parse("\"A, B\" <sip:a@x> ; x=y;tag=1"));
            assert_eq!(request.to(), NameAddr::parse("sip:b@x;tag=2"));
            assert_eq!((request.from_tag(), request.to_tag()), (Some("1"), Some("2")));
            assert_eq!(request.top_via(), Via::parse("SIP/2.0/UDP a:5070;branch=z9hG4bK1;rport"));
            assert_eq!(request.cseq(), CSeq::parse("7  INVITE"));
        }
        let nothing = Request::parse(b"INVITE sip:b@x SIP/2.0\r\nFrom: x\r\n\r\n").unwrap();
        assert_eq!((nothing.from_tag(), nothing.to_tag()), (None, None));
        assert_eq!(nothing.from().unwrap_err().context, "header > addr-spec");
        assert_eq!(nothing.to().unwrap_err().context, "header > to");
    }
}
