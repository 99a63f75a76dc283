//! `POST /capture?call_id=…` or `?user=…`, `GET /capture`, `GET /capture/1` (pcapng), `DELETE /capture/1`.

use super::{Answer, State, json, parameter, plain, text};
use crate::base::clock::Instant;
use crate::config::value::size;
use crate::io::capture::{Capture, Packet, Wanted, bounds, frames};
use crate::io::signalling::lanes::Order;
use crate::limits::CAPTURES_MAX;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CONTENT_DISPOSITION, HeaderValue, LOCATION};
use serde::Serialize;
use std::sync::Arc;

/// Captures that run and those that can still be read, the oldest first.
#[derive(Default)]
pub struct Kept {
    captures: Vec<Held>,
    count: u64,
}

struct Held {
    capture: Arc<Capture>,
    packets: Vec<Packet>,
}

/// A capture as `GET /capture` lists it.
#[derive(Serialize)]
struct View<'a> {
    capture: u64,
    call_id: Option<&'a str>,
    packets: usize,
    running: bool,
}

impl Held {
    /// Takes over what the cores have added; by time, since each core adds its own.
    fn gather(&mut self) {
        let before = self.packets.len();
        self.packets.extend(std::iter::from_fn(|| self.capture.take()));
        if self.packets.len() > before {
            self.packets.sort_by_key(|packet| packet.at);
        }
    }

    fn view(&self, now: Instant) -> View<'_> {
        let Self { capture, packets } = self;
        View { capture: capture.number, call_id: capture.call(), packets: packets.len(), running: !capture.is_over(now) }
    }
}

/// Begins a capture.
pub fn begin(state: &State, query: &str) -> Answer {
    let wanted = match (parameter(query, "call_id"), parameter(query, "user")) {
        (Some(call_id), None) if !call_id.is_empty() => Wanted::Call(call_id.into()),
        (None, Some(user)) if !user.is_empty() => Wanted::Next(user.into()),
        _ => return plain(StatusCode::BAD_REQUEST, "?call_id= (of the call's first leg) or ?user= (its next call) is wanted\n"),
    };
    let seconds = parameter(query, "seconds").map(|seconds| seconds.parse());
    let octets = parameter(query, "octets").map(|octets| size(&octets).ok_or(()));
    let (Ok(seconds), Ok(octets)) = (seconds.transpose(), octets.transpose()) else {
        return plain(StatusCode::BAD_REQUEST, "seconds=60 is a number, octets=\"1MiB\" a size\n");
    };
    let (time, octets) = bounds(seconds, octets);
    let (mut kept, now) = (state.captures.borrow_mut(), state.admin.clock.now());
    if kept.captures.len() >= CAPTURES_MAX {
        let Some(over) = kept.captures.iter().position(|held| held.capture.is_over(now)) else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "as many captures run as may; DELETE one\n");
        };
        kept.captures.remove(over);
    }
    kept.count += 1;
    let capture = Capture::new(kept.count, wanted, now + time, octets);
    let held = Held { capture: capture.clone(), packets: Vec::new() };
    let mut answer = json(&held.view(now));
    kept.captures.push(held);
    for core in &state.admin.signalling {
        core.post(Order::Capture(capture.clone()));
    }
    *answer.status_mut() = StatusCode::CREATED;
    if let Ok(location) = HeaderValue::from_str(&format!("/capture/{}", kept.count)) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

/// The captures there are.
pub fn list(state: &State) -> Answer {
    let (mut kept, now) = (state.captures.borrow_mut(), state.admin.clock.now());
    kept.captures.iter_mut().for_each(Held::gather);
    json(&kept.captures.iter().map(|held| held.view(now)).collect::<Vec<_>>())
}

/// What a capture has so far.
pub fn read(state: &State, number: &str) -> Answer {
    let mut kept = state.captures.borrow_mut();
    let Some(held) = kept.captures.iter_mut().find(|held| held.capture.number.to_string() == number) else { return nothing() };
    held.gather();
    let file = frames::file(concat!("cpm-pf ", env!("CARGO_PKG_VERSION")), held.packets.iter());
    let mut answer = text(StatusCode::OK, "application/vnd.tcpdump.pcap", String::new());
    *answer.body_mut() = Full::new(Bytes::from(file));
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"cpm-pf-{number}.pcapng\"")) {
        answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    answer
}

/// Ends a capture and lets go of it.
pub fn end(state: &State, number: &str) -> Answer {
    let mut kept = state.captures.borrow_mut();
    let Some(at) = kept.captures.iter().position(|held| held.capture.number.to_string() == number) else { return nothing() };
    kept.captures.remove(at).capture.end();
    plain(StatusCode::OK, "ended\n")
}

fn nothing() -> Answer {
    plain(StatusCode::NOT_FOUND, "no such capture; GET /capture lists them\n")
}
