//! The admin server: `GET /metrics /healthz /readyz /sessions /recent /ladder /capture /`, `POST /drain /reload /capture`; HTTP/1.1
//! in the services thread.
//!
//! With `admin.token_file` all but the probes and the page, which has no data of its own, wants the token.

mod capture;
pub mod token;

use super::cdr::Records;
use super::control::{Event, Mailbox, MediaOrder, Process, Reloaded};
use super::services::inbox::Inbox;
use super::signalling::lanes::Order;
use super::telemetry::{Exposition, Scrape, Usage, usage};
use crate::base::clock::Instant;
use crate::io::clock::Clock;
use crate::shard::ladder::StepView;
use crate::shard::record::Cdr;
use crate::shard::watching::SessionView;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Reading a file and certificates takes no longer; who asks for a reload is told after it that it goes on.
const RELOAD_MAX: Duration = Duration::from_secs(5);

/// A core that does not answer in this time is left out of a scrape; it shows as missing.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Connections served at one time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take, and how long a connection stays open on which none comes. A monitor asks more often, and
/// whoever holds all places gives them back.
const HEAD_MAX: Duration = Duration::from_secs(5);
/// How long a connection is served in all.
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// Sessions listed by `/sessions`, of each core.
const SESSIONS_MAX: usize = 10_000;
/// The page: one file, no other host, everything it shows is asked for afterwards.
const PAGE: &str = include_str!("admin/page.html");

/// What the server asks and tells.
pub struct Admin {
    pub process: Process,
    pub signalling: Vec<Arc<Mailbox<Order>>>,
    pub media: Vec<Arc<Mailbox<MediaOrder>>>,
    pub records: Records,
    pub services: Arc<Inbox>,
    pub clock: Clock,
    /// The file with the bearer token, where one is wanted.
    pub token: Option<PathBuf>,
}

struct State {
    admin: Admin,
    started: Instant,
    exposition: RefCell<Exposition>,
    captures: RefCell<capture::Kept>,
}

/// Serves until the runtime ends.
pub async fn serve(listener: std::net::TcpListener, admin: Admin) {
    let listener = match listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin server cannot listen"),
    };
    let started = admin.clock.now();
    let state = Rc::new(State { admin, started, exposition: RefCell::default(), captures: RefCell::default() });
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    let mut answering = state.admin.process.answering();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        // Another process may have the socket too, and be the one that answers.
        if answering.wait_for(|answering| *answering).await.is_err() {
            return;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = answering.wait_for(|answering| !answering) => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                let state = state.clone();
                tokio::task::spawn_local(async move {
                    let service = hyper::service::service_fn(move |request| answer(state.clone(), request));
                    let stream = hyper_util::rt::TokioIo::new(stream);
                    let mut server = hyper::server::conn::http1::Builder::new();
                    server.timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(HEAD_MAX);
                    // At most 64 of these lines in as many seconds as a head may take.
                    match tokio::time::timeout(CONNECTION_MAX, server.serve_connection(stream, service)).await {
                        Ok(Err(error)) if error.is_timeout() => {
                            tracing::info!(%peer, "no whole request came on an admin connection")
                        }
                        _ => {}
                    }
                    drop(place);
                });
            }
            // EMFILE and its like pass.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(state: Rc<State>, request: Request<Incoming>) -> Result<Answer, std::convert::Infallible> {
    let path = request.uri().path();
    if !matches!(path, "/" | "/healthz" | "/readyz")
        && let Some(refusal) = refusal(&state, &request)
    {
        return Ok(refusal);
    }
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let post = request.method() == Method::POST;
    let process = &state.admin.process;
    Ok(match path {
        "/metrics" if get => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics(&state).await),
        "/healthz" if get => plain(StatusCode::OK, "ok\n"),
        "/readyz" if get && process.is_draining() => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/readyz" if get => plain(StatusCode::OK, "ready\n"),
        "/sessions" if get => json(&sessions(&state).await),
        "/recent" if get => json(&recent(&state).await),
        "/ladder" if get => match ladder(&state, request.uri().query().unwrap_or("")).await {
            Some(steps) => json(&steps),
            None => {
                plain(StatusCode::NOT_FOUND, "no messages are kept of such a call; ?call_id= is the Call-ID of its first leg\n")
            }
        },
        "/" if get => page(),
        "/drain" if post => {
            process.tell(Event::Drain);
            plain(StatusCode::ACCEPTED, "draining\n")
        }
        "/reload" if post => reload(process).await,
        "/capture" if get => capture::list(&state),
        "/capture" if post => capture::begin(&state, request.uri().query().unwrap_or("")),
        #[cfg(debug_assertions)]
        "/clauses" if get => text(StatusCode::OK, "text/plain; charset=utf-8", clauses()),
        "/metrics" | "/healthz" | "/readyz" | "/sessions" | "/recent" | "/ladder" | "/" => not_allowed("GET, HEAD"),
        "/drain" | "/reload" => not_allowed("POST"),
        "/capture" => not_allowed("GET, HEAD, POST"),
        _ => match (path.strip_prefix("/capture/"), request.method()) {
            (Some(number), &Method::GET) => capture::read(&state, number),
            (Some(number), &Method::DELETE) => capture::end(&state, number),
            (Some(_), _) => not_allowed("GET, DELETE"),
            (None, _) => plain(StatusCode::NOT_FOUND, "no such page\n"),
        },
    })
}

/// The answer to who may not ask: a request without the token, or one that another site's page makes a browser send.
fn refusal(state: &State, request: &Request<Incoming>) -> Option<Answer> {
    if is_foreign(request.headers()) {
        return Some(plain(StatusCode::FORBIDDEN, "not for pages of other sites\n"));
    }
    let expected = match token::read(state.admin.token.as_ref()?) {
        Ok(expected) => expected,
        Err(error) => {
            tracing::error!(%error, "the admin server's token cannot be read");
            return Some(plain(StatusCode::INTERNAL_SERVER_ERROR, "the token cannot be read; the log says why\n"));
        }
    };
    if token::admits(&expected, request.headers()) {
        return None;
    }
    // RFC 6750 §3: the challenge has no error code where no token was brought.
    let mut answer = plain(StatusCode::UNAUTHORIZED, "a bearer token is wanted\n");
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cpm-pf\""));
    Some(answer)
}

/// RFC 6454 §7: a browser says whose page asks. Only ours may; what is no browser says nothing.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN).map(HeaderValue::as_bytes) else { return false };
    let host = headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let at = origin.windows(3).position(|three| three == b"://").map_or(0, |at| at + 3);
    &origin[at..] != host
}

fn page() -> Answer {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let mut answer = text(StatusCode::OK, "text/html; charset=utf-8", PAGE.to_owned());
    let name = HeaderName::from_static("content-security-policy");
    answer.headers_mut().insert(name, HeaderValue::from_static(POLICY));
    answer
}

fn json(what: &impl serde::Serialize) -> Answer {
    match serde_json::to_string(what) {
        Ok(body) => text(StatusCode::OK, "application/json", body + "\n"),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written\n"),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    answer
}

fn plain(status: StatusCode, body: &'static str) -> Answer {
    text(status, "text/plain; charset=utf-8", body.to_owned())
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// Asks every core at once; those that answer in time are in the result.
async fn ask<T, O>(mailboxes: &[Arc<Mailbox<O>>], order: impl Fn(oneshot::Sender<T>) -> O) -> Vec<T> {
    let asked: Vec<_> = mailboxes
        .iter()
        .map(|mailbox| {
            let (reply, answer) = oneshot::channel();
            mailbox.post(order(reply));
            answer
        })
        .collect();
    let mut answers = Vec::new();
    for answer in asked {
        if let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_MAX, answer).await {
            answers.push(answer);
        }
    }
    answers
}

async fn scrape(state: &State) -> Scrape {
    Scrape {
        signalling: ask(&state.admin.signalling, Order::Snapshot).await,
        media: ask(&state.admin.media, MediaOrder::Snapshot).await,
        services: Some(Usage { cpu: 0, ..usage(0, state.started, state.admin.clock.now()) }),
        deferred: state.admin.services.deferred_messages(),
        history: state.admin.services.history(),
        cdr_dropped: state.admin.records.dropped(),
    }
}

/// 202 where the configuration is taken, with the keys that keep their value; 422 with the mistakes where it is not.
async fn reload(process: &Process) -> Answer {
    const KIND: &str = "text/plain; charset=utf-8";
    let (reply, became) = oneshot::channel();
    process.tell(Event::Reload(Some(reply)));
    match tokio::time::timeout(RELOAD_MAX, became).await {
        Ok(Ok(Reloaded::Taken { kept })) => {
            let kept = kept.iter().map(|key| format!("{key} keeps its value until the next start\n"));
            text(StatusCode::ACCEPTED, KIND, std::iter::once("reloaded\n".to_string()).chain(kept).collect())
        }
        Ok(Ok(Reloaded::Refused { why })) => text(StatusCode::UNPROCESSABLE_ENTITY, KIND, format!("not reloaded\n{why}")),
        Ok(Err(_)) => plain(StatusCode::SERVICE_UNAVAILABLE, "not reloaded\nthe process ends\n"),
        Err(_) => plain(StatusCode::ACCEPTED, "reloading; the log says what changed\n"),
    }
}

async fn metrics(state: &State) -> String {
    let scrape = scrape(state).await;
    state.exposition.borrow_mut().write(&scrape)
}

async fn sessions(state: &State) -> Vec<SessionView> {
    ask(&state.admin.signalling, |reply| Order::Sessions(SESSIONS_MAX, reply)).await.into_iter().flatten().collect()
}

/// Records of the calls that ended last, the latest first.
async fn recent(state: &State) -> Vec<Cdr> {
    let mut recent: Vec<Cdr> = ask(&state.admin.signalling, Order::Recent).await.into_iter().flatten().collect();
    recent.sort_by_key(|record| std::cmp::Reverse(1000 * record.started_s + record.duration_ms));
    recent
}

/// The messages of one call; every core is asked, since its Call-ID is the peer's and names none.
async fn ladder(state: &State, query: &str) -> Option<Vec<StepView>> {
    let call_id = parameter(query, "call_id")?;
    let asked = ask(&state.admin.signalling, |reply| Order::Ladder(call_id.clone().into(), reply));
    asked.await.into_iter().flatten().next()
}

/// The value of a parameter of a query, percent-decoded (RFC 3986 §2.1; `+` stands for itself).
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(octet) = rest.next() {
        let hex = |octet: Option<u8>| octet.and_then(|octet| char::from(octet).to_digit(16));
        octets.push(match octet {
            b'%' => (hex(rest.next())? * 16 + hex(rest.next())?) as u8,
            octet => octet,
        });
    }
    String::from_utf8(octets).ok()
}

/// Ids of the clauses this process went through, a line each; in debug builds, for the tests that prove them over sockets.
#[cfg(debug_assertions)]
fn clauses() -> String {
    thread_local! {
        static SEEN: RefCell<std::collections::BTreeSet<&'static str>> = const { RefCell::new(std::collections::BTreeSet::new()) };
    }
    SEEN.with_borrow_mut(|seen| {
        seen.extend(crate::base::clause::take_news());
        seen.iter().fold(String::new(), |list, id| list + id + "\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_decoded() {
        assert_eq!(parameter("a=b&call_id=x%40y+%25", "call_id").as_deref(), Some("x@y+%"));
        for broken in ["", "call=x", "call_id", "call_id=%4", "call_id=%zz", "call_id=%ff"] {
            assert_eq!(parameter(broken, "call_id"), None, "{broken}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_foreign() {
        let of = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().expect("a header value"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().expect("a header value"));
            }
            is_foreign(&headers)
        };
        assert!(!of("127.0.0.1:9060", None) && !of("127.0.0.1:9060", Some("http://127.0.0.1:9060")));
        assert!(of("127.0.0.1:9060", Some("http://evil.example")) && of("127.0.0.1:9060", Some("null")));
    }
}
