//! RFC 4028 §5: Min-SE.

use super::session_expires::delta_seconds;
use crate::sip::message::Malformed;

/// No session interval may be shorter (RFC 4028 §5); what is meant where no Min-SE stands.
pub const FLOOR_S: u32 = 90;

/// Reads the shortest session interval a hop accepts, in seconds; below [`FLOOR_S`] it counts as that.
///
/// # Errors: [`Malformed`] where no number of seconds stands first.
pub fn parse(text: &str) -> Result<u32, Malformed> {
    let (delta_s, _) = delta_seconds(text).ok_or(Malformed::new(0, "header > min-se > delta-seconds"))?;
    Ok(delta_s.max(FLOOR_S))
}

#[cfg(test)]
mod tests {
    #[test]
    fn min_se_is_never_below_ninety_seconds() {
        assert_eq!(super::parse("120;x=1"), Ok(120));
        assert_eq!(super::parse("5"), Ok(90));
        assert!(super::parse("soon").is_err());
    }
}
