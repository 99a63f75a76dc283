//! Dates as RFC 3339 and RFC 5322 write them, from and to seconds since the Unix epoch.

use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// "2024-02-01T10:00:00Z".
pub fn rfc3339(unix_s: u64) -> String {
    moment(unix_s).format(&Rfc3339).expect("a moment clamped to the year 9999 can be written")
}

/// "Thu, 01 Feb 2024 10:00:00 +0000".
pub fn rfc5322(unix_s: u64) -> String {
    moment(unix_s).format(&Rfc2822).expect("a moment clamped to the year 9999 can be written")
}

/// Seconds since the Unix epoch of an RFC 3339 date, with or without a time; without offset it is UTC. A moment before
/// the epoch is 0. None where it is no date.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let text = text.trim();
    let read = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    // xs:dateTime (RFC 4745 §7.3) may leave the offset away.
    let moment = read(text).or_else(|| read(&format!("{text}Z"))).or_else(|| read(&format!("{text}T00:00:00Z")))?;
    Some(u64::try_from(moment.unix_timestamp()).unwrap_or(0))
}

/// Seconds since the Unix epoch of an RFC 5322 date ("GMT" is read as SIP writes it). None where it is no date.
pub fn parse_rfc5322(text: &str) -> Option<u64> {
    let moment = OffsetDateTime::parse(text.trim(), &Rfc2822).ok()?;
    Some(u64::try_from(moment.unix_timestamp()).unwrap_or(0))
}

fn moment(unix_s: u64) -> OffsetDateTime {
    /// 9999-12-31T23:59:59Z.
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(unix_s).unwrap_or(LAST).min(LAST);
    OffsetDateTime::from_unix_timestamp(seconds).expect("within the years 1970 to 9999")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_and_read_back() {
        assert_eq!(rfc3339(1_706_781_600), "2024-02-01T10:00:00Z");
        assert_eq!(rfc5322(1_706_781_600), "Thu, 01 Feb 2024 10:00:00 +0000");
        assert_eq!(parse_rfc3339("2024-02-01T10:00:00Z"), Some(1_706_781_600));
        assert_eq!(parse_rfc3339("2024-02-01T12:00:00.5+02:00"), Some(1_706_781_600));
        assert_eq!(parse_rfc3339("2024-02-01T10:00:00"), Some(1_706_781_600));
        assert_eq!(parse_rfc3339("2024-02-01"), Some(1_706_745_600));
        assert_eq!(parse_rfc5322("Thu, 01 Feb 2024 10:00:00 GMT"), Some(1_706_781_600));
        assert_eq!(parse_rfc3339("soon"), None);
        rfc3339(u64::MAX);
    }
}
