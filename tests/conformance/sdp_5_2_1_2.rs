//! CR 5.2.1.2: SDP at intermediate nodes, as it is written on each leg.

use crate::alice::Alice;
use crate::bob::{CHAT_ANSWER, CHAT_SDP, LARGE_SDP, Letter, count, ok};
use cpm_pf::base::transport::Transport;
use cpm_pf::config::{Config, Listen};
use cpm_pf::cpm::media_plan::{self, Line, MediaPlan, OwnLine, OwnOrigin, Side, Unacceptable};
use cpm_pf::msrp::leg::SessionKind;
use cpm_pf::sdp::description::Description;

const ORIGIN: OwnOrigin = OwnOrigin { session_id: 7, version: 3 };

fn own(host: &str, fingerprint: Option<&str>) -> OwnLine {
    let (scheme, authority) = (if fingerprint.is_some() { "msrps" } else { "msrp" }, format!("{host}:2855"));
    OwnLine {
        host: host.into(),
        port: 2855,
        uri: format!("{scheme}://{authority}/01own;tcp").into(),
        fingerprint: fingerprint.map(Into::into),
    }
}

fn written(plan: &MediaPlan) -> String {
    let count = plan.relayed().count();
    plan.write(ORIGIN, &vec![own("127.0.0.1", None); count])
}

fn offered(config: &Config, sdp: &str) -> Result<MediaPlan, Unacceptable> {
    media_plan::session_offer(config, &Letter::session().sdp(sdp).request())
}

/// A configuration in which sessions may have a voice.
fn with_audio() -> Config {
    let mut config = Alice::new().config;
    config.policy.media.push("audio".to_string());
    config
}

#[test]
fn the_session_part_is_ours() {
    let sdp = written(&offered(&with_audio(), CHAT_SDP).expect("an offer"));
    assert!(sdp.starts_with("v=0\r\no=- 7 3 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm="), "{sdp}");
    assert!(Description::parse(sdp.as_bytes()).is_ok());
}

#[test]
fn unknown_attributes_stay_in_their_order_and_those_of_the_hop_go() {
    let sdp = CHAT_SDP.replace(
        "a=setup:actpass\r\n",
        "a=x-one:1\r\na=setup:actpass\r\na=candidate:1 1 TCP 1 192.0.2.1 9 typ host\r\na=ice-ufrag:x\r\na=crypto:1 AES inline:k\r\n\
         a=connection:new\r\na=max-size:209715200\r\na=x-two\r\nb=AS:64\r\n",
    );
    let out = written(&offered(&with_audio(), &sdp).expect("an offer"));
    for gone in ["candidate", "ice-ufrag", "crypto", "connection", "192.0.2.1", "alices"] {
        assert!(!out.contains(gone), "{gone}: {out}");
    }
    let at = |line: &str| out.find(line).unwrap_or_else(|| panic!("{line} stays: {out}"));
    assert!(at("a=x-one:1") < at("a=x-two") && at("a=sendrecv") < at("a=x-one:1"));
    assert_eq!((count(&out, "b=AS:64"), count(&out, "a=max-size:104857600")), (1, 1));
    let small = CHAT_SDP.replace("a=setup", "a=max-size:1000\r\na=setup");
    assert_eq!(count(&written(&offered(&with_audio(), &small).expect("an offer")), "a=max-size:1000"), 1);
}

#[test]
fn media_that_is_not_ours_keeps_its_lines_and_its_connection() {
    let audio =
        "m=audio 4000/2 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=candidate:1 1 UDP 1 192.0.2.1 4000 typ host\r\na=sendonly\r\n";
    let sdp = format!("{}a=ice-pwd:secret\r\n", "v=0\r\no=a 1 1 IN IP4 192.0.2.1\r\ns=talk\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n")
        + audio
        + &CHAT_SDP[CHAT_SDP.find("m=").expect("an m-line")..];
    let plan = offered(&with_audio(), &sdp).expect("an offer");
    assert_eq!(plan.lines, [Line::Untouched, Line::Relayed]);
    let out = written(&plan);
    assert!(out.contains("s=talk\r\nc=IN IP4 127.0.0.1\r\n"), "{out}");
    assert!(out.contains("m=audio 4000/2 RTP/AVP 0 8\r\nc=IN IP4 192.0.2.1\r\na=rtpmap:0 PCMU/8000\r\n"), "{out}");
    assert_eq!((count(&out, "a=candidate:1 1 UDP 1 192.0.2.1 4000 typ host"), count(&out, "a=ice-pwd:secret")), (1, 1));
    assert_eq!((count(&out, "a=sendonly"), count(&out, "a=sendrecv")), (1, 1));

    let answer = format!("{}m=audio 5000 RTP/AVP 0\r\n", &CHAT_ANSWER[..CHAT_ANSWER.find("m=").expect("an m-line")])
        + &CHAT_ANSWER[CHAT_ANSWER.find("m=").expect("an m-line")..];
    let request = Letter::session().sdp(&sdp).request();
    let back = written(&media_plan::session_answer(&with_audio(), &request, &ok("<sip:b@x>", &answer, &[])).expect("an answer"));
    assert!(back.contains("m=audio 5000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\n"), "{back}");
    // Before a client was asked nobody can answer it.
    let early = media_plan::session_own_answer(&with_audio(), &request).expect("our own answer");
    assert_eq!(early.lines, [Line::Rejected, Line::Relayed]);
}

#[test]
fn what_holds_for_all_lines_is_written_to_each() {
    let common = CHAT_SDP
        .replace("t=0 0\r\n", "t=0 0\r\na=setup:active\r\na=recvonly\r\na=x-session:1\r\n")
        .replace("a=sendrecv\r\n", "")
        .replace("a=setup:actpass\r\n", "");
    let out = written(&offered(&with_audio(), &common).expect("an offer"));
    let (head, line) = out.split_once("m=").expect("an m-line");
    assert!(head.contains("a=x-session:1") && !head.contains("setup") && !head.contains("recvonly"), "{out}");
    assert!(line.contains("a=recvonly") && line.contains("a=setup:actpass") && !line.contains("a=setup:active"), "{out}");
}

#[test]
fn rejected_lines_keep_their_place_alone() {
    let sdp = format!(
        "{CHAT_SDP}m=message 0 TCP/MSRP *\r\na=path:msrp://192.0.2.1:1/z;tcp\r\nm=message 9 TCP/XMPP *\r\na=mid:3\r\na=x:y\r\n"
    );
    let plan = offered(&with_audio(), &sdp).expect("an offer");
    assert_eq!(plan.lines, [Line::Relayed, Line::Rejected, Line::Rejected]);
    let out = written(&plan);
    assert!(out.ends_with("m=message 0 TCP/MSRP *\r\nm=message 0 TCP/XMPP *\r\na=mid:3\r\n"), "{out}");
    // A line for which we have no address is rejected too; the peer's never stands in its stead.
    assert_eq!(plan.write(ORIGIN, &[]).matches("192.0.2.1").count(), 0);
}

#[test]
fn several_lines_are_relayed_each_with_its_own_address() {
    let sdp = format!("{CHAT_SDP}m=message 7656 TCP/MSRP *\r\na=path:msrp://192.0.2.1:7656/y;tcp\r\n");
    let plan = offered(&with_audio(), &sdp).expect("an offer");
    let second = OwnLine { uri: "msrp://[2001:db8::1]:2855/02own;tcp".into(), ..own("2001:db8::1", None) };
    let out = plan.write(ORIGIN, &[own("127.0.0.1", None), second]);
    assert_eq!(count(&out, "a=path:msrp://127.0.0.1:2855/01own;tcp"), 1);
    assert!(out.contains("m=message 2855 TCP/MSRP *\r\nc=IN IP6 2001:db8::1\r\n"), "{out}");
    assert_eq!(count(&out, "a=path:msrp://[2001:db8::1]:2855/02own;tcp"), 1);
}

#[test]
fn tls_lines_show_our_certificate() {
    let sdp = CHAT_SDP
        .replace("TCP/MSRP", "TCP/TLS/MSRP")
        .replace("msrp://", "msrps://")
        .replace("a=msrp-cema", "a=fingerprint:sha-256 AA:AA\r\na=msrp-cema");
    let mut config = with_audio();
    assert_eq!(offered(&config, &sdp).expect_err("no such listener"), Unacceptable::Tls);
    config.msrp.listen.push(Listen { transport: Transport::Tls, address: "127.0.0.1:2856".parse().expect("an address") });
    let plan = offered(&config, &sdp).expect("an offer");
    let out = plan.write(ORIGIN, &[own("127.0.0.1", Some("sha-256 BB:BB"))]);
    assert_eq!(count(&out, "m=message 2855 TCP/TLS/MSRP *"), 1);
    assert_eq!((out.matches("fingerprint").count(), count(&out, "a=fingerprint:sha-256 BB:BB")), (1, 1));
    // RFC 3264 §6: the answer has the offer's transport, whatever the target took.
    let request = Letter::session().sdp(&sdp).request();
    let answer = media_plan::session_answer(&config, &request, &ok("<sip:b@x>", CHAT_ANSWER, &[])).expect("an answer");
    assert!(answer.description.media[0].is_msrp_over_tls());
}

#[test]
fn the_operator_says_which_media_and_formats_may_pass() {
    let mut config = with_audio();
    let why = |config: &Config, sdp: &str| offered(config, sdp).map(|plan| plan.lines).expect_err("refused");
    assert_eq!(why(&config, &format!("{CHAT_SDP}m=video 4000 RTP/AVP 96\r\n")), Unacceptable::MediaType);
    assert!(offered(&config, &format!("{CHAT_SDP}m=video 0 RTP/AVP 96\r\n")).is_ok(), "what is not offered cannot offend");
    assert_eq!(why(&config, &CHAT_SDP.replace("m=message 7654", "m=message 0")), Unacceptable::NoMsrp);
    let refusal = Unacceptable::MediaType.refusal("TSI-5.b");
    assert_eq!((refusal.status, refusal.warning), (488, Some((304, "Media type not available"))));

    config.policy.media_formats = vec!["message/*".to_string()];
    let out = written(&offered(&config, CHAT_SDP).expect("an offer"));
    assert_eq!(count(&out, "a=accept-types:message/cpim"), 1);
    let any = CHAT_SDP.replace("message/cpim application/im-iscomposing+xml", "*");
    assert_eq!(count(&written(&offered(&config, &any).expect("an offer")), "a=accept-types:message/*"), 1);
    config.policy.media_formats = vec!["text/plain".to_string()];
    assert_eq!(why(&config, CHAT_SDP), Unacceptable::Format);
}

#[test]
fn what_endpoints_write_is_read() {
    // Upper-case media, sendrecv with actpass, and an SDP whose last line has no end within a multipart body.
    let vendor = LARGE_SDP.replace("m=message", "m=MESSAGE").replace("sendonly", "sendrecv");
    let letter = Letter::large().sdp(vendor.trim_end()).with_list("recipient-list", "<resource-lists/>");
    let plan = media_plan::large_message_offer(&Alice::new().config, &letter.request()).expect("an offer");
    let out = written(&plan);
    assert_eq!((count(&out, "m=message 2855 TCP/MSRP *"), count(&out, "a=sendonly")), (1, 1));
    assert_eq!(media_plan::beside_sdp(&letter.request()).len(), 1);
}

#[test]
fn a_line_that_names_no_types_takes_any() {
    let bare = CHAT_SDP.replace("a=accept-types:message/cpim application/im-iscomposing+xml\r\n", "");
    let mut config = with_audio();
    assert_eq!(count(&written(&offered(&config, &bare).expect("an offer")), "a=accept-types:*"), 1);
    config.policy.media_formats = vec!["message/cpim".to_string()];
    assert_eq!(count(&written(&offered(&config, &bare).expect("an offer")), "a=accept-types:message/cpim"), 1);
}

#[test]
fn a_message_of_our_own_is_offered_with_its_size() {
    let config = Alice::new().config;
    let out = written(&media_plan::large_message_of(&config, 4711, "Message/CPIM; charset=x"));
    for line in ["a=sendonly", "a=accept-types:message/cpim", "a=file-selector:size:4711", "a=setup:actpass", "a=msrp-cema"] {
        assert_eq!(count(&out, line), 1, "{out}");
    }
    assert_eq!(count(&out, "a=path:msrp://127.0.0.1:2855/01own;tcp"), 1);
}

#[test]
fn our_own_answer_takes_what_is_offered() {
    let config = Alice::new().config;
    let out = written(&media_plan::large_message_own_answer(&config, &Letter::large().request()).expect("an answer"));
    for line in ["a=recvonly", "a=setup:passive", "a=msrp-cema", "a=file-selector:size:4092", "a=accept-types:message/cpim"] {
        assert_eq!(count(&out, line), 1, "{out}");
    }
    let chat = written(&media_plan::session_own_answer(&config, &Letter::session().request()).expect("an answer"));
    assert_eq!((count(&chat, "a=sendrecv"), count(&chat, "a=setup:passive")), (1, 1));
    let one_way = Letter::session().sdp(&CHAT_SDP.replace("sendrecv", "sendonly"));
    let chat = written(&media_plan::session_own_answer(&config, &one_way.request()).expect("an answer"));
    assert_eq!(count(&chat, "a=recvonly"), 1);
}

#[test]
fn a_new_offer_within_the_dialog_crosses_either_way() {
    let config = Alice::new().config;
    let within = |toward, sdp: &str| {
        let plan = media_plan::reoffer(&config, SessionKind::Session, toward, &Letter::session().sdp(sdp).request());
        plan.map(|plan| written(&plan))
    };
    // Bob holds; the answer says what Alice's end makes of it, and nobody's connection changes hands.
    let held = CHAT_ANSWER.replace("sendrecv", "sendonly");
    let out = within(Side::Origin, &held).expect("an offer");
    assert_eq!((count(&out, "a=sendonly"), count(&out, "a=setup:actpass")), (1, 1));
    assert!(!out.contains("192.0.2.2"), "{out}");

    let offer = Letter::session().sdp(&held.replace("active", "actpass")).request();
    let answer = ok("<sip:a@x>", &CHAT_SDP.replace("sendrecv", "recvonly").replace("actpass", "passive"), &[]);
    let back = media_plan::reanswer(&config, SessionKind::Session, Side::Target, &offer, &answer).expect("an answer");
    let back = written(&back);
    assert_eq!((count(&back, "a=recvonly"), count(&back, "a=setup:active")), (1, 1), "{back}");
    let toward_origin = media_plan::reanswer(&config, SessionKind::Session, Side::Origin, &Letter::session().request(), &answer);
    assert_eq!(count(&written(&toward_origin.expect("an answer")), "a=setup:passive"), 1);

    // With several legs on the other side we answer ourselves.
    let ours = media_plan::own_reanswer(&config, SessionKind::Session, Side::Origin, &Letter::session().sdp(&held).request());
    let ours = written(&ours.expect("an answer"));
    assert_eq!((count(&ours, "a=recvonly"), count(&ours, "a=setup:passive")), (1, 1), "{ours}");

    assert_eq!(
        within(Side::Target, "v=0\r\no=- 1 1 IN IP4 x\r\ns=-\r\nt=0 0\r\nm=message 0 TCP/MSRP *\r\n").err(),
        Some(Unacceptable::NoMsrp)
    );
}

#[test]
fn the_directions_of_a_large_message_hold_in_new_offers_too() {
    let config = Alice::new().config;
    let large = |toward| {
        let plan = media_plan::reoffer(&config, SessionKind::LargeMessage, toward, &Letter::large().request());
        written(&plan.expect("an offer"))
    };
    assert_eq!(count(&large(Side::Target), "a=sendonly"), 1);
    assert_eq!(count(&large(Side::Origin), "a=recvonly"), 1);
    let answer = ok("<sip:a@x>", &LARGE_SDP.replace("actpass", "passive"), &[]);
    let back = media_plan::reanswer(&config, SessionKind::LargeMessage, Side::Target, &Letter::large().request(), &answer);
    let back = written(&back.expect("an answer"));
    assert_eq!((count(&back, "a=sendonly"), back.matches("a=recvonly").count()), (1, 0));
}
