//! The admin server: `GET /metrics /healthz /readyz /sessions /`, `POST /drain /reload`; HTTP/1.1 in the services thread.

use super::cdr::Records;
use super::control::{Event, Mailbox, MediaOrder, Process};
use super::services::inbox::Inbox;
use super::signalling::lanes::Order;
use super::telemetry::{Exposition, Scrape, Usage, usage};
use crate::base::clock::Instant;
use crate::io::clock::Clock;
use crate::shard::signalling::SessionView;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A core that does not answer in this time is left out of a scrape; it shows as missing.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Connections served at one time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// Sessions listed by `/sessions`, of each core.
const SESSIONS_MAX: usize = 10_000;

/// What the server asks and tells.
pub struct Admin {
    pub process: Process,
    pub signalling: Vec<Arc<Mailbox<Order>>>,
    pub media: Vec<Arc<Mailbox<MediaOrder>>>,
    pub records: Records,
    pub services: Arc<Inbox>,
    pub clock: Clock,
}

struct State {
    admin: Admin,
    started: Instant,
    exposition: RefCell<Exposition>,
}

/// Serves until the runtime ends.
pub async fn serve(listener: std::net::TcpListener, admin: Admin) {
    let listener = match listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin server cannot listen"),
    };
    let started = admin.clock.now();
    let state = Rc::new(State { admin, started, exposition: RefCell::default() });
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                tokio::task::spawn_local(async move {
                    let service = hyper::service::service_fn(move |request| answer(state.clone(), request));
                    let stream = hyper_util::rt::TokioIo::new(stream);
                    let served = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
                    // A monitor that keeps its connection open and says nothing gives its place back.
                    let _ = tokio::time::timeout(Duration::from_secs(300), served).await;
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
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let post = request.method() == Method::POST;
    let process = &state.admin.process;
    Ok(match request.uri().path() {
        "/metrics" if get => text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics(&state).await),
        "/healthz" if get => plain(StatusCode::OK, "ok\n"),
        "/readyz" if get && process.is_draining() => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/readyz" if get => plain(StatusCode::OK, "ready\n"),
        "/sessions" if get => text(StatusCode::OK, "application/json", sessions(&state).await),
        "/" if get => text(StatusCode::OK, "text/html; charset=utf-8", page(&state).await),
        "/drain" if post => {
            process.tell(Event::Drain);
            plain(StatusCode::ACCEPTED, "draining\n")
        }
        "/reload" if post => {
            process.tell(Event::Reload);
            plain(StatusCode::ACCEPTED, "reloading; the log says what changed\n")
        }
        #[cfg(debug_assertions)]
        "/clauses" if get => text(StatusCode::OK, "text/plain; charset=utf-8", clauses()),
        "/metrics" | "/healthz" | "/readyz" | "/sessions" | "/" => not_allowed("GET, HEAD"),
        "/drain" | "/reload" => not_allowed("POST"),
        _ => plain(StatusCode::NOT_FOUND, "no such page\n"),
    })
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    answer
}

fn plain(status: StatusCode, body: &'static str) -> Answer {
    text(status, "text/plain; charset=utf-8", body.to_owned())
}

fn not_allowed(allow: &'static str) -> Answer {
    let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static(allow));
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
        cdr_dropped: state.admin.records.dropped(),
    }
}

async fn metrics(state: &State) -> String {
    let scrape = scrape(state).await;
    state.exposition.borrow_mut().write(&scrape)
}

async fn sessions(state: &State) -> String {
    let sessions: Vec<SessionView> =
        ask(&state.admin.signalling, |reply| Order::Sessions(SESSIONS_MAX, reply)).await.into_iter().flatten().collect();
    serde_json::to_string(&sessions).unwrap_or_else(|_| "[]".into()) + "\n"
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

async fn page(state: &State) -> String {
    let scrape = scrape(state).await;
    let dialogs: u64 = scrape.signalling.iter().map(|core| core.counts.dialogs).sum();
    let sessions: u64 = scrape.signalling.iter().map(|core| core.counts.sessions).sum();
    let octets: u64 = scrape.media.iter().flat_map(|core| core.counts.octets).sum();
    let rows: String = scrape
        .signalling
        .iter()
        .map(|core| ("signalling", core.usage))
        .chain(scrape.media.iter().map(|core| ("media", core.usage)))
        .map(|(role, usage)| {
            let (busy, alive) = (usage.busy.as_secs_f64(), usage.alive.as_secs_f64());
            format!("<tr><td>{role}<td>{}<td>{busy:.1} s of {alive:.0} s", usage.cpu)
        })
        .collect();
    let health = if state.admin.process.is_draining() { "draining" } else { "ready" };
    format!(
        "<!doctype html><meta charset=utf-8><title>cpm-pf</title><style>body{{font:16px sans-serif;margin:2em}}td{{padding-right:2em}}</style>\
         <h1>cpm-pf {}</h1><p>{health}; {sessions} sessions, {dialogs} dialogs, {octets} octets of messages relayed\
         <table><tr><th>thread<th>CPU<th>busy{rows}</table>\
         <p><a href=/metrics>metrics</a> <a href=/sessions>sessions</a> <a href=/readyz>readyz</a>\n",
        env!("CARGO_PKG_VERSION")
    )
}
