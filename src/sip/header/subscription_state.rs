//! RFC 6665 §8.2.3: Subscription-State.

use super::params::Params;
use crate::sip::message::{Malformed, is_token};

/// What a NOTIFY says about its subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriptionState<'a> {
    /// "active", "pending", "terminated"; an unknown one counts as active (RFC 6665 §4.1.3).
    pub state: &'a str,
    /// Why it was terminated: "deactivated", "timeout", "rejected" …
    pub reason: Option<&'a str>,
    /// Seconds it has left.
    pub expires_s: Option<u32>,
    pub retry_after_s: Option<u32>,
}

impl<'a> SubscriptionState<'a> {
    /// # Errors: [`Malformed`] where no token stands first.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let end = text.find(';').unwrap_or(text.len());
        let state = text[..end].trim_ascii();
        if state.is_empty() || !state.bytes().all(is_token) {
            return Err(Malformed::new(0, "header > subscription-state"));
        }
        let params = Params(&text[end..]);
        let seconds = |name| params.value(name).and_then(|value| value.parse().ok());
        Ok(Self { state, reason: params.value("reason"), expires_s: seconds("expires"), retry_after_s: seconds("retry-after") })
    }

    pub fn is_terminated(&self) -> bool {
        self.state.eq_ignore_ascii_case("terminated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_tells_its_state() {
        let state = SubscriptionState::parse("terminated;reason=deactivated; retry-after=30").unwrap();
        assert_eq!((state.is_terminated(), state.reason, state.retry_after_s), (true, Some("deactivated"), Some(30)));
        assert_eq!(SubscriptionState::parse("active;expires=600").unwrap().expires_s, Some(600));
        assert!(SubscriptionState::parse("").is_err());
    }
}
