//! RFC 3261 §20.17: Date, an RFC 1123 date in GMT.

use crate::base::clock::Instant;
use crate::sip::message::Malformed;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const RFC_1123: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// Reads a date: seconds since the Unix epoch.
///
/// # Errors: [`Malformed`] where it is not an RFC 1123 date; no zone but GMT is allowed.
pub fn parse(text: &str) -> Result<i64, Malformed> {
    const DATE: Malformed = Malformed::new(0, "header > date");
    let date = PrimitiveDateTime::parse(text.trim_ascii(), RFC_1123).map_err(|_| DATE)?;
    Ok(date.assume_utc().unix_timestamp())
}

/// The date of a moment.
pub fn of(now: Instant) -> String {
    let seconds = i64::try_from(now.unix_s()).unwrap_or(0);
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    date.format(RFC_1123).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_read_and_print() {
        let text = "Sat, 13 Nov 2010 23:29:00 GMT";
        assert_eq!(parse(text), Ok(1_289_690_940));
        assert_eq!(of(Instant::from_unix_s(1_289_690_940)), text);
        for text in ["", "Fri, 01 Jan 2010 16:00:00 EST", "Sat, 13 Nov 2010", "13 Nov 2010 23:29:00 GMT"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
