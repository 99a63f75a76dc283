//! RFC 4028, and what the CR's sections ask of Session-Expires on each leg.
//!
//! | leg                                       | refresher | seconds        | clause                      |
//! |-------------------------------------------|-----------|----------------|-----------------------------|
//! | Large Message to the recipient, to an ISF | uac       | 90 to 1799     | OLM-7.e, 7.f; TLM-6.c.iv, v |
//! | session to the recipient                  | uac       | 90 to 1800     | OSI-4.j, 4.k                |
//! | Large Message to a client                 | uas       | 90 to 1799     | TLM-7.d, 7.e                |
//! | session to a client                       | uas       | 90 to 1799     | TSI-8.d.vi                  |
//! | back to the origin                        | table 2   | never increased| OLM-r4, EMS-1.c, 1.d        |

use super::decision::{Service, SessionExpires};
use super::facts::Role;
use crate::config::Config;
use crate::sip::header::name::Name;
use crate::sip::header::session_expires::{self as header, Refresher};
use crate::sip::message::{Request, Response};
use crate::sip::session_timer::{Answer, Offer};
use std::time::Duration;

/// "Lower than 1800" (OLM-7.f, TLM-6.c.v, TLM-7.e, EMS-1.d, TSI-8.d.vi).
pub const BELOW_1800_S: u32 = 1799;
/// "1800 or lower" (OSI-4.k).
pub const UP_TO_1800_S: u32 = 1800;

/// The interval for Large Message legs, in seconds (`policy.large_message_session_expires`).
pub fn large_message(config: &Config) -> u32 {
    limited(config, config.policy.large_message_session_expires, BELOW_1800_S)
}

/// The interval for a session towards its recipient, in seconds (`policy.session_session_expires`).
pub fn originating_session(config: &Config) -> u32 {
    limited(config, config.policy.session_session_expires, UP_TO_1800_S)
}

/// The interval for a session towards a client of its recipient, in seconds.
pub fn terminating_session(config: &Config) -> u32 {
    limited(config, config.policy.session_session_expires, BELOW_1800_S)
}

/// The longest interval that a leg towards a target may have, in seconds, also where its 422 asks for more.
pub fn limit_s(service: Service, role: Role) -> u32 {
    match (service, role) {
        (Service::Session | Service::GroupSession, Role::Originating) => UP_TO_1800_S,
        _ => BELOW_1800_S,
    }
}

/// The shortest interval that we accept, in seconds (`policy.min_se`; RFC 4028 §5: never below 90, but in a laboratory).
pub fn min_s(config: &Config) -> u32 {
    seconds(config.policy.min_se).max(floor_s(config))
}

/// No interval is below it: the 90 seconds of RFC 4028 §5 unless `policy.session_floor` says otherwise.
pub fn floor_s(config: &Config) -> u32 {
    seconds(config.policy.session_floor)
}

fn limited(config: &Config, wanted: Duration, most_s: u32) -> u32 {
    seconds(wanted).clamp(floor_s(config), most_s)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// What our 2xx says, and whether it requires timers, where no target has a say: the interval that was asked for, copied;
/// ours where none was.
pub fn answered(config: &Config, request: &Request) -> (SessionExpires, bool) {
    let ours_s = terminating_session(config);
    let wish_s = (!request.has(Name::SessionExpires)).then_some(ours_s);
    of_answer(Offer::of(request, floor_s(config)).ok().and_then(|offer| offer.answer(wish_s, Refresher::Uas)), ours_s)
}

/// What our 2xx says on the strength of a target's 2xx (OLM-r4): the shortest of what the origin asked for, what the target
/// agreed to and `ours_s`, but not below the origin's Min-SE; the refresher as table 2 of RFC 4028 §9 has it.
pub fn agreed(config: &Config, request: &Request, ok: &Response, ours_s: u32) -> (SessionExpires, bool) {
    let said = ok.header(Name::SessionExpires).and_then(|value| header::SessionExpires::parse(value).ok());
    let wish_s = said.map_or(ours_s, |said| said.delta_s.min(ours_s)).max(floor_s(config));
    of_answer(Offer::of(request, floor_s(config)).ok().and_then(|offer| offer.answer(Some(wish_s), Refresher::Uas)), wish_s)
}

fn of_answer(answer: Option<Answer>, ours_s: u32) -> (SessionExpires, bool) {
    match answer {
        Some(answer) => (SessionExpires { delta_s: answer.delta_s, refresher: answer.refresher }, answer.require),
        None => (SessionExpires::uas(ours_s), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &str) -> Request {
        Request::parse(format!("INVITE sip:b@c SIP/2.0\r\n{headers}\r\n").as_bytes()).unwrap()
    }

    fn ok(headers: &str) -> Response {
        Response::parse(format!("SIP/2.0 200 OK\r\n{headers}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn the_crs_limits_hold_whatever_is_configured() {
        let mut config = Config::default();
        assert_eq!((large_message(&config), originating_session(&config), terminating_session(&config)), (1740, 1800, 1799));
        config.policy.large_message_session_expires = Duration::from_secs(7200);
        config.policy.session_session_expires = Duration::from_secs(10);
        assert_eq!((large_message(&config), originating_session(&config)), (1799, 90));
        config.policy.min_se = Duration::from_secs(5);
        assert_eq!(min_s(&config), 90);
        config.policy.session_floor = Duration::from_secs(4);
        assert_eq!((min_s(&config), originating_session(&config)), (5, 10));
        assert_eq!(limit_s(Service::GroupSession, Role::Originating), 1800);
        assert_eq!(limit_s(Service::Session, Role::Terminating), 1799);
        assert_eq!(limit_s(Service::LargeMessage, Role::Originating), 1799);
    }

    #[test]
    fn an_answer_never_lengthens_what_was_asked_for() {
        let said = |headers, ok_headers: &str| {
            let (expires, require) = agreed(&Config::default(), &request(headers), &ok(ok_headers), 1740);
            (expires.delta_s, expires.refresher, require)
        };
        assert_eq!(said("Supported: timer\r\nSession-Expires: 600\r\n", ""), (600, Refresher::Uas, true));
        assert_eq!(
            said("k: timer\r\nx: 1800;refresher=uac\r\n", "Session-Expires: 900;refresher=uas\r\n"),
            (900, Refresher::Uac, true)
        );
        assert_eq!(said("k: timer\r\nx: 1800;refresher=uac\r\nMin-SE: 1200\r\n", "x: 900\r\n"), (1200, Refresher::Uac, true));
        assert_eq!(said("x: 1800;refresher=uac\r\n", "x: 900\r\n"), (900, Refresher::Uas, false));
        assert_eq!(said("", "x: 900\r\n"), (900, Refresher::Uas, false));
        assert_eq!(said("", ""), (1740, Refresher::Uas, false));
    }

    #[test]
    fn an_interval_is_copied_where_no_target_has_a_say() {
        let config = Config::default();
        let (copied, require) = answered(&config, &request("Supported: timer\r\nSession-Expires: 7200;refresher=uac\r\n"));
        assert_eq!((copied.delta_s, copied.refresher, require), (7200, Refresher::Uac, true));
        let (ours, _) = answered(&config, &request(""));
        assert_eq!((ours.delta_s, ours.refresher), (1799, Refresher::Uas));
    }
}
