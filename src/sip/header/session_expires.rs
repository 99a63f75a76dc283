//! RFC 4028 §4: Session-Expires.

use super::params::Params;
use crate::sip::message::{Malformed, decimal};

/// Who sends the refreshes of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refresher {
    Uac,
    Uas,
}

impl Refresher {
    pub const fn as_str(self) -> &'static str {
        match self {
            Refresher::Uac => "uac",
            Refresher::Uas => "uas",
        }
    }
}

/// A session interval and who refreshes, where that is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionExpires {
    pub delta_s: u32,
    pub refresher: Option<Refresher>,
}

impl SessionExpires {
    /// # Errors: [`Malformed`] where no number of seconds stands first. An unknown refresher counts as none.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let (delta_s, params) = delta_seconds(text).ok_or(Malformed::new(0, "header > session-expires > delta-seconds"))?;
        let refresher = match params.value("refresher") {
            Some(value) if value.eq_ignore_ascii_case("uac") => Some(Refresher::Uac),
            Some(value) if value.eq_ignore_ascii_case("uas") => Some(Refresher::Uas),
            _ => None,
        };
        Ok(Self { delta_s, refresher })
    }
}

impl SessionExpires {
    /// The same, but not shorter than a Min-SE of so many seconds.
    pub const fn at_least(self, min_se_s: u32) -> Self {
        if self.delta_s < min_se_s { Self { delta_s: min_se_s, ..self } } else { self }
    }
}

impl std::fmt::Display for SessionExpires {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.delta_s)?;
        self.refresher.map_or(Ok(()), |refresher| write!(f, ";refresher={}", refresher.as_str()))
    }
}

/// RFC 3261 §25.1: delta-seconds with parameters. A number above 2^32 - 1 counts as that (§20.19).
pub(crate) fn delta_seconds(text: &str) -> Option<(u32, Params<'_>)> {
    let text = text.trim_ascii();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let rest = text[end..].trim_ascii_start();
    if end == 0 || !(rest.is_empty() || rest.starts_with(';')) {
        return None;
    }
    let number = decimal(&text.as_bytes()[..end]).unwrap_or(u64::MAX);
    Some((u32::try_from(number).unwrap_or(u32::MAX), Params(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_expires_reads_and_prints() {
        let read = |text| SessionExpires::parse(text).ok().map(|value| value.to_string());
        assert_eq!(read("1790;refresher=uac").as_deref(), Some("1790;refresher=uac"));
        assert_eq!(read(" 1800 ; x=y ;Refresher=UAS").as_deref(), Some("1800;refresher=uas"));
        assert_eq!(read("1800;refresher=proxy").as_deref(), Some("1800"));
        assert_eq!(read("99999999999999999999").as_deref(), Some("4294967295"));
        for text in ["", "x", "-1", "18 00", ";refresher=uac"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
