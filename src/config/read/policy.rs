//! `[policy]`: what the operator decides where the Change Request leaves it to them.

use super::super::section::Section;
use super::super::*;
use super::{DAY, SECOND};

pub(super) fn policy(section: Section<'_, '_>, policy: &mut Policy) {
    section.strings("authorised_originators", &mut policy.authorised_originators);
    section.strings("user_agents", &mut policy.user_agents);
    section.word("anonymity", &mut policy.anonymity, &[("allow", Anonymity::Allow), ("reject", Anonymity::Reject)]);
    section.word("other_service", &mut policy.other_service, &[("reject", OtherService::Reject), ("pass", OtherService::Pass)]);
    let preferred = [("accept-contact", PreferredService::AcceptContact), ("configured", PreferredService::Configured)];
    section.word("preferred_service", &mut policy.preferred_service, &preferred);
    if let Some(urn) =
        section.checked("default_service", "an ICSI, \"urn:urn-7:3gpp-service.ims.icsi.…\"", |text| text.starts_with("urn:"))
    {
        policy.default_service = urn;
    }
    section.boolean("stay_in_media_path", &mut policy.stay_in_media_path);
    // OLM-7.f: lower than 1800; OSI-4.k: 1800 or lower; RFC 4028 §5: at least 90, but in a laboratory.
    section.duration("session_floor", &mut policy.session_floor, 2 * SECOND, 90 * SECOND);
    let floor = policy.session_floor;
    section.duration("large_message_session_expires", &mut policy.large_message_session_expires, floor, 1799 * SECOND);
    section.duration("session_session_expires", &mut policy.session_session_expires, floor, 1800 * SECOND);
    section.duration("min_se", &mut policy.min_se, floor, 1799 * SECOND);
    section.strings("media", &mut policy.media);
    section.strings("media_formats", &mut policy.media_formats);
    section.boolean("retry_rejected_media", &mut policy.retry_rejected_media);
    section.boolean("deliver_to_own_clients", &mut policy.deliver_to_own_clients);
    section.boolean("isf_without_primary_device", &mut policy.isf_without_primary_device);
    let delivery = [("defer", Delivery::Defer), ("interwork", Delivery::Interwork), ("reject", Delivery::Reject)];
    section.word("delivery", &mut policy.delivery, &delivery);
    section.duration("deferred_expiry", &mut policy.deferred_expiry, SECOND, 365 * DAY);
    section.word(
        "expired_message",
        &mut policy.expired_message,
        &[("reject", ExpiredMessage::Reject), ("deliver", ExpiredMessage::Deliver)],
    );
    section.word("session_answer", &mut policy.session_answer, &[("early", SessionAnswer::Early), ("late", SessionAnswer::Late)]);
    section.word(
        "session_clients",
        &mut policy.session_clients,
        &[("all", SessionClients::All), ("first", SessionClients::First)],
    );
    let isf = [("as-written", IsfService::AsWritten), ("largemsg", IsfService::LargeMessage)];
    section.word("isf_service", &mut policy.isf_service, &isf);
    section.boolean("blacklist", &mut policy.blacklist);
    section.boolean("record_history", &mut policy.record_history);
    section.boolean("record_sessions", &mut policy.record_sessions);
    section.finish();
}
