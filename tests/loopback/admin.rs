//! The admin server as an operator and a browser see it.

use crate::browser::Browser;
use crate::ladder::{Originating, Relayed, relayed};
use crate::msrp::Waiting;
use crate::proxy::{Proxy, http};
use crate::ue::{Invite, LARGE, SESSION, answer_sdp};
use serde_json::Value;
use std::path::Path;

fn json(pf: &Proxy, path: &str) -> Value {
    let (status, body) = pf.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}\n{body}"))
}

/// What the ladder says, an arrow a line: who stands left of `>` sent it to us.
fn arrows(steps: &Value) -> Vec<String> {
    let name = |step: &Value| step["peer"].as_str().unwrap_or("").split(' ').next().unwrap_or("").to_owned();
    let arrow = |step: &Value| {
        let way = if step["sent"] == Value::Bool(true) { "<" } else { ">" };
        format!("{} {way} {}", name(step), step["what"].as_str().unwrap_or(""))
    };
    steps.as_array().map(|steps| steps.iter().map(arrow).collect()).unwrap_or_default()
}

/// Alice hangs up; the core answers.
fn hang_up(session: &mut Relayed) {
    session.ladder.hang_up(&session.ok);
}

#[test]
fn a_sessions_ladder_shows_both_legs_and_stays_after_its_end() {
    let mut session = relayed(SESSION, "");
    let call_id = session.invite.get("Call-ID").expect("an INVITE has one").to_owned();
    let path = format!("/ladder?call_id={call_id}");
    let beginning = [
        "origin > INVITE",
        "origin < 100 Trying (INVITE)",
        "recipient < INVITE",
        "recipient > 200 OK (INVITE)",
        "origin < 200 OK (INVITE)",
    ];
    let said = arrows(&json(&session.ladder.pf, &path));
    let at = |arrow: &str| said.iter().position(|said| said == arrow).unwrap_or_else(|| panic!("no {arrow} in {said:#?}"));
    assert!(beginning.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{said:#?}");
    let listed = json(&session.ladder.pf, "/sessions");
    assert_eq!(listed[0]["call_id"], Value::String(call_id.clone()));

    hang_up(&mut session);
    session.ladder.pf.until("the call is among those that ended", |pf| {
        json(pf, "/recent")
            .as_array()
            .is_some_and(|list| list.iter().any(|record| record["call_id"] == Value::String(call_id.clone())))
    });
    let end = ["origin > BYE", "recipient < BYE", "origin < 200 OK (BYE)", "recipient > 200 OK (BYE)"];
    session.ladder.pf.until("the end stands in the ladder", |pf| {
        let said = arrows(&json(pf, &path));
        end.iter().all(|arrow| said.iter().any(|said| said == arrow))
    });
}

#[test]
fn a_refused_call_has_a_ladder_too() {
    let mut ladder = Originating::new("[policy]\nauthorised_originators = [\"sip:nobody@example.net\"]\n");
    let invite = Invite::new(&ladder.alice, "sip:bob@example.org", SESSION);
    ladder.refused(&invite, 403);
    let said = arrows(&json(&ladder.pf, &format!("/ladder?call_id={}", invite.get("Call-ID").unwrap_or(""))));
    assert_eq!(said.first().map(String::as_str), Some("origin > INVITE"));
    assert!(said.contains(&"origin < 403 Forbidden (INVITE)".to_owned()), "{said:#?}");
    assert_eq!(ladder.pf.get("/ladder?call_id=nobody").0, 404);
    assert_eq!(ladder.pf.get("/ladder").0, 404);
}

#[test]
fn with_a_token_file_only_the_token_opens_what_has_data() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("token"), "0123456789abcdef\n").expect("the folder can be written");
    let pf = Proxy::start_in(folder, "[admin]\ntoken_file = \"token\"\n");
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(pf.get(path).0, 200, "{path} is open");
    }
    for path in ["/metrics", "/sessions", "/recent", "/ladder?call_id=x", "/capture", "/capture/1", "/nothing"] {
        assert_eq!(pf.get(path).0, 401, "{path} wants the token");
    }
    assert_eq!((pf.post("/drain").0, pf.get("/readyz").0), (401, 200));
    let with = |token: &str| http(pf.admin, "GET", "/metrics", &format!("Authorization: Bearer {token}\r\n"));
    assert_eq!(with("0123456789abcdeF").0, 401);
    assert!(with("0123456789abcdef").1.contains("cpm_pf_build_info"));

    std::fs::write(pf.path("token"), "another-token-0123\n").expect("the folder can be written");
    assert_eq!((with("0123456789abcdef").0, with("another-token-0123").0), (401, 200), "a changed token counts at once");
}

#[test]
fn another_sites_page_cannot_drain() {
    let pf = Proxy::start("");
    assert_eq!(http(pf.admin, "POST", "/drain", "Origin: http://evil.example\r\n").0, 403);
    assert_eq!(pf.get("/readyz").0, 200);
    assert_eq!(http(pf.admin, "POST", "/drain", &format!("Origin: http://{}\r\n", pf.admin)).0, 202);
    pf.until("it drains", |pf| pf.get("/readyz").0 == 503);
}

#[test]
fn the_page_shows_a_session_and_its_ladder_in_a_browser() {
    let mut session = relayed(SESSION, "[policy]\nuser_agents = [\"CPM-client/*\"]\n");
    let call_id = session.invite.get("Call-ID").expect("an INVITE has one").to_owned();
    let Some(mut browser) = Browser::open(&format!("http://{}/", session.ladder.pf.admin), 1200, 900) else { return };
    let row = "document.querySelector('#sessions tr.call')";
    browser.until(&format!("{row}?.lastChild.textContent === '{call_id}'"));
    browser.until("document.getElementById('state').textContent === 'ready'");
    browser.value(&format!("{row}.click()"));
    browser.until("document.querySelectorAll('#ladder path').length >= 7");

    // More calls, one of which rings, and rounds of messages: what happens meanwhile comes without a reload.
    let waiting = Waiting::new();
    let contact = format!("<sip:bob@{}>", session.ladder.core.address);
    for user in ["dave", "erin"] {
        let invite = Invite::new(&session.ladder.alice, &format!("sip:{user}@example.org"), LARGE);
        session.ladder.established(&invite, &contact, &answer_sdp(waiting.address(), user, "passive", "recvonly"));
    }
    for round in 0..20 {
        session.a.send(&format!("round{round:04}"), &[b'x'; 40_000]);
        assert_eq!(session.b.message().len(), 40_000);
        session.a.expect("200");
    }
    let other = Invite::new(&session.ladder.alice, "sip:carol@example.org", SESSION).with("User-Agent", "Else/1.0");
    session.ladder.refused_beside(&other, 403);
    let ringing = Invite::new(&session.ladder.alice, "sip:frank@example.org", SESSION);
    let (arrived, from) = session.ladder.passes(&ringing);
    session.ladder.core.answer(&arrived, from, "180 Ringing", &format!("Contact: {contact}\n"), "");
    browser.until("[...document.querySelectorAll('#refusals td')].some(cell => cell.textContent === '403')");
    browser.until("document.querySelectorAll('#sessions tr.call').length === 4");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    browser.picture(&target.join("page.png"));
    browser.resize(390, 844);
    browser.until("document.documentElement.scrollWidth <= 390");
    browser.until("document.querySelector('#ladder svg').clientWidth <= 360");
    browser.picture(&target.join("page-phone.png"));
    browser.resize(1200, 900);

    hang_up(&mut session);
    browser.until("document.querySelectorAll('#sessions tr.call').length === 3");
    browser.until(&format!("document.querySelector('#recent tr.call.chosen')?.lastChild.textContent === '{call_id}'"));
    browser.until("[...document.querySelectorAll('#ladder text')].some(text => text.textContent === '200 OK (BYE)')");
}

#[test]
fn the_page_asks_for_the_token() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("token"), "0123456789abcdef\n").expect("the folder can be written");
    let pf = Proxy::start_in(folder, "[admin]\ntoken_file = \"token\"\n");
    let Some(mut browser) = Browser::open(&format!("http://{}/", pf.admin), 800, 600) else { return };
    browser.until("document.getElementById('wanted').hidden === false");
    browser
        .value("document.getElementById('token').value = '0123456789abcdef'; document.querySelector('#wanted button').click()");
    browser.until("document.querySelectorAll('.tile').length > 5 && document.getElementById('wanted').hidden");
}
