//! RFC 3262 §7.1, §7.2: RSeq and RAck.

use super::cseq::CSeq;
use crate::sip::message::{Malformed, decimal};
use crate::sip::method::Method;

/// Numbers lie between 1 and 2^31 - 1 (§3).
pub const NUMBER_MAX: u32 = (1 << 31) - 1;

/// What a PRACK acknowledges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RAck {
    /// The RSeq of the response.
    pub response: u32,
    /// The CSeq of the response.
    pub number: u32,
    pub method: Method,
}

impl RAck {
    /// # Errors: [`Malformed`] unless it is two numbers and a method.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let bad = Malformed::new(0, "header > rack");
        let (response, cseq) = text.trim_ascii().split_once(|c: char| c.is_ascii_whitespace()).ok_or(bad)?;
        let CSeq { number, method, .. } = CSeq::parse(cseq.trim_ascii_start()).map_err(|_| bad)?;
        Ok(Self { response: number_of(response).ok_or(bad)?, number, method })
    }
}

/// Reads an RSeq; none where it is no number of the range.
pub fn number_of(text: &str) -> Option<u32> {
    decimal(text.trim_ascii().as_bytes()).and_then(|number| u32::try_from(number).ok()).filter(|n| (1..=NUMBER_MAX).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rack_names_a_response_and_its_request() {
        let read = RAck::parse("776656 1\tINVITE ").unwrap();
        assert_eq!(read, RAck { response: 776_656, number: 1, method: Method::Invite });
        for bad in ["", "1", "1 INVITE", "0 1 INVITE", "2147483648 1 INVITE", "x 1 INVITE", "1 x INVITE"] {
            assert!(RAck::parse(bad).is_err(), "{bad}");
        }
    }
}
