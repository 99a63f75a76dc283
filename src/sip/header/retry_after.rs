//! RFC 3261 §20.33: Retry-After.

use super::session_expires::delta_seconds;
use crate::sip::message::Malformed;

/// Reads the seconds to wait; a comment and parameters are left out.
///
/// # Errors: [`Malformed`] where no number of seconds stands first.
pub fn parse(text: &str) -> Result<u32, Malformed> {
    let end = text.find('(').unwrap_or(text.len());
    let (delta_s, _) = delta_seconds(&text[..end]).ok_or(Malformed::new(0, "header > retry-after > delta-seconds"))?;
    Ok(delta_s)
}

#[cfg(test)]
mod tests {
    #[test]
    fn retry_after_is_a_number_of_seconds() {
        assert_eq!(super::parse("18000;duration=3600"), Ok(18000));
        assert_eq!(super::parse("120 (I'm in a meeting)"), Ok(120));
        assert!(super::parse("later").is_err());
    }
}
