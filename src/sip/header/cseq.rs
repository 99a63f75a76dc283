//! RFC 3261 §20.16: CSeq.

use crate::sip::message::{Malformed, decimal};
use crate::sip::method::Method;

/// Sequence number and method.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CSeq<'a> {
    /// Below 2^31 (RFC 3261 §8.1.1.5).
    pub number: u32,
    pub method: Method,
    /// The method as written.
    pub method_str: &'a str,
}

impl<'a> CSeq<'a> {
    /// # Errors: [`Malformed`] unless it is a number below 2^31, white space and a method.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let (number, method) = text.split_once(|c: char| c.is_ascii_whitespace()).ok_or(Malformed::new(0, "header > cseq"))?;
        let number = decimal(number.as_bytes()).filter(|n| *n < 1 << 31).ok_or(Malformed::new(0, "header > cseq > number"))?;
        let method = method.trim_ascii();
        Ok(Self { number: number as u32, method: Method::of(method), method_str: method })
    }
}
