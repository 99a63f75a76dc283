//! RFC 4028 §5: Min-SE.

use super::name::Name;
use super::session_expires::delta_seconds;
use crate::sip::message::{Malformed, Message};
use crate::sip::write::Writer;

/// No session interval may be shorter (RFC 4028 §5); what is meant where no Min-SE stands. A laboratory may go below it
/// (`policy.session_floor`), which is why functions are told the floor that holds.
pub const FLOOR_S: u32 = 90;

/// Reads the shortest session interval a hop accepts, in seconds; below `floor_s` it counts as that.
///
/// # Errors: [`Malformed`] where no number of seconds stands first.
pub fn parse(text: &str, floor_s: u32) -> Result<u32, Malformed> {
    let (delta_s, _) = delta_seconds(text).ok_or(Malformed::new(0, "header > min-se > delta-seconds"))?;
    Ok(delta_s.max(floor_s))
}

/// Writes it where there is one to write: 0 is none.
pub fn write(min_se_s: u32, writer: &mut Writer<'_>) {
    if min_se_s > 0 {
        writer.format(Name::MinSe, format_args!("{min_se_s}"));
    }
}

/// The Min-SE that a message has, in seconds; 0: none that can be read.
pub fn heard(message: &Message) -> u32 {
    message.header(Name::MinSe).and_then(|value| parse(value, 0).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{FLOOR_S, parse};

    #[test]
    fn min_se_is_never_below_the_floor() {
        assert_eq!(parse("120;x=1", FLOOR_S), Ok(120));
        assert_eq!(parse("5", FLOOR_S), Ok(90));
        assert_eq!(parse("5", 4), Ok(5));
        assert!(parse("soon", FLOOR_S).is_err());
    }
}
