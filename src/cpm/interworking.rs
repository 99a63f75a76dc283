//! CR 6.5: communicating with the Interworking Selection Function (ISF).

use super::decision::NextHop;
use super::refusal::Refusal;
use crate::config::Config;
use crate::sip::uri::Uri;

/// Whether an address is one that the SIP/IP core routes: a SIP, SIPS or TEL URI.
pub fn is_for_core(address: &str) -> bool {
    Uri::parse(address).is_ok_and(|uri| uri.is_sip() || uri.is_tel())
}

/// The core, by the rest of the received route set.
pub const fn core() -> NextHop {
    NextHop::Core { fallback: None }
}

/// The ISF, addressed directly.
///
/// # Errors
/// 416 where none is configured: then nobody here can do anything with such an address (RFC 3261 §8.2.2.1).
pub fn isf(config: &Config, clause: &'static str) -> Result<NextHop, Refusal> {
    if config.sip.isf.is_some() { Ok(NextHop::Isf) } else { Err(Refusal::new(416, clause)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sip_and_tel_are_the_cores() {
        for address in ["sip:a@b", "SIPS:a@b", "tel:+1"] {
            assert!(is_for_core(address), "{address}");
        }
        for address in ["mailto:a@b", "im:a@b", "mms:1", "urn:service:sos"] {
            assert!(!is_for_core(address), "{address}");
        }
        assert_eq!(isf(&Config::default(), "OLM-8.a").unwrap_err().status, 416);
    }
}
