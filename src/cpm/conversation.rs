//! CPM Appendix C: Conversation-ID, Contribution-ID, InReplyTo-Contribution-ID, Message-Expires.
//!
//! The ids are opaque and compared octet by octet. A request without them is served all the same: none is invented.

use super::headers::{Field, field};
use crate::base::clock::{Duration, Instant};
use crate::sip::header::date;
use crate::sip::header::name::Name;
use crate::sip::message::{Message, decimal};

/// The header fields that name a conversation (C.1.1 to C.1.3).
pub const IDS: [Name; 3] = [Name::ConversationId, Name::ContributionId, Name::InReplyToContributionId];

/// Those of them that stand in the request, octet for octet: for the responses that repeat them.
pub fn copied(request: &Message) -> Vec<Field> {
    let present = |name: Name| request.header(name).map(|value| field(name.as_str(), value.to_string()));
    IDS.into_iter().filter_map(present).collect()
}

/// When a message is over (C.1.5): Date and Message-Expires seconds, or `arrived` and those seconds where there is no
/// readable Date. None: it never is. A Message-Expires that is no number counts as none.
pub fn deadline(request: &Message, arrived: Instant) -> Option<Instant> {
    let delta = delta_s(request)?;
    let from = request.header(Name::Date).and_then(|value| date::parse(value).ok());
    // A Date before 1970 is as good as none that could count.
    let from_s = from.map_or(arrived.unix_s(), |seconds| u64::try_from(seconds).unwrap_or(0));
    // Bounded so that the sum stays within what an Instant holds (nanoseconds in 64 bits: the year 2554).
    Some(Instant::from_unix_s(from_s.min(LATEST_S)) + Duration::from_secs(delta.min(LATEST_S)))
}

/// 1 January 2200: beyond it a Date or an expiry is as good as "never".
const LATEST_S: u64 = 7_258_118_400;

/// The seconds of Message-Expires.
pub fn delta_s(request: &Message) -> Option<u64> {
    decimal(request.header(Name::MessageExpires)?.trim_ascii().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::message::Request;

    fn request(headers: &str) -> Request {
        Request::parse(format!("INVITE sip:b@c SIP/2.0\r\n{headers}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn ids_are_copied_as_they_came() {
        let read = request("conversation-id:  f8 1d\r\nInReplyTo-Contribution-ID: X\r\n");
        assert_eq!(copied(&read), [field("Conversation-ID", "f8 1d"), field("InReplyTo-Contribution-ID", "X")]);
        assert!(copied(&request("")).is_empty());
    }

    #[test]
    fn a_deadline_counts_from_date_and_without_it_from_arrival() {
        let arrived = Instant::from_unix_s(1_706_781_700);
        let at = |headers: &str| deadline(&request(headers), arrived).map(Instant::unix_s);
        assert_eq!(at("Message-Expires: 60\r\nDate: Thu, 01 Feb 2024 10:00:00 GMT\r\n"), Some(1_706_781_660));
        assert_eq!(at("Message-Expires: 60\r\n"), Some(1_706_781_760));
        assert_eq!(at("Message-Expires: 60\r\nDate: soon\r\n"), Some(1_706_781_760));
        assert_eq!(at("Message-Expires: soon\r\n"), None);
        assert_eq!(at(""), None);
        assert!(at("Message-Expires: 9999999999999999999\r\nDate: Sat, 01 Jan 9999 00:00:00 GMT\r\n").is_some());
    }
}
