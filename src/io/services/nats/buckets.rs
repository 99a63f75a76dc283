//! NATS ADR-8, ADR-20: the connection to JetStream, the two buckets of the shared store, and questions that outlast an election.
//!
//! A server that leads a bucket may be lost, or step down when another comes back with a later term: until the next leader stands
//! (4 to 9 s by NATS's documented timeouts) questions get 503 or no answer. So what may be asked twice is asked again, soon and for a while.

use super::Wrong;
use crate::shard::exchange::StoreFailure;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::jetstream::stream::{self, Stream};
use async_nats::jetstream::{self, ErrorCode};
use std::time::Duration;
use tokio::time::Instant;

const BUCKET: &str = "cpm-deferred";
/// The bucket of bodies.
pub const BODIES: &str = "cpm-deferred-bodies";
/// How long one operation may take, tries and pauses in all: longer than an election.
pub const TIME_MAX: Duration = Duration::from_secs(10);
/// How long one try of it may take, and the pause before the next.
pub const TRY_TIME: Duration = Duration::from_secs(2);
pub const PAUSE: Duration = Duration::from_millis(250);
/// How often a server is asked whether it is still there: a split is noticed after three times that.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long one server may take to greet us: the next one is asked then.
const GREETING_TIME: Duration = Duration::from_secs(2);

/// The buckets, as one connection knows them.
pub struct Buckets {
    pub messages: Store,
    pub bodies: ObjectStore,
    pub bodies_stream: Stream,
}

impl Buckets {
    /// Connects, and makes the buckets where they are missing.
    ///
    /// # Errors
    /// Where no server answers, or there is no leader to make them.
    pub async fn open(servers: &[String]) -> Result<Self, Wrong> {
        let options = async_nats::ConnectOptions::new().name("cpm-pf").ping_interval(PING_INTERVAL);
        let client = options.connection_timeout(GREETING_TIME).connect(servers).await?;
        let context = jetstream::new(client);
        // Three copies where there are three servers; a server that stands alone can have but one. A cluster that is not whole
        // yet is asked again later: with one copy everything would be lost with its server.
        let wanted = if servers.len() >= 3 { 3 } else { 1 };
        let messages = match bucket(&context, wanted).await {
            Err(error) if stands_alone(error.as_ref()) => bucket(&context, 1).await?,
            other => other?,
        };
        let bodies = match object_bucket(&context, wanted).await {
            Err(error) if stands_alone(error.as_ref()) => object_bucket(&context, 1).await?,
            other => other?,
        };
        let bodies_stream = context.get_stream(format!("OBJ_{BODIES}")).await?;
        Ok(Self { messages, bodies, bodies_stream })
    }
}

async fn bucket(context: &jetstream::Context, num_replicas: usize) -> Result<Store, Wrong> {
    if let Ok(store) = context.get_key_value(BUCKET).await {
        return Ok(store);
    }
    // The stream of a key-value bucket, made as such: making the bucket asks for the account's limits first, in a form
    // that servers before 2.10 do not answer in.
    let config = stream::Config {
        name: format!("KV_{BUCKET}"),
        subjects: vec![format!("$KV.{BUCKET}.>")],
        max_messages_per_subject: 1,
        discard: stream::DiscardPolicy::New,
        allow_rollup: true,
        // Every look goes to the leader: what another copy has not heard of yet would count as gone.
        allow_direct: false,
        num_replicas,
        ..stream::Config::default()
    };
    context.create_stream(config).await?;
    Ok(context.get_key_value(BUCKET).await?)
}

async fn object_bucket(context: &jetstream::Context, num_replicas: usize) -> Result<ObjectStore, Wrong> {
    if let Ok(store) = context.get_object_store(BODIES).await {
        return Ok(store);
    }
    let config = object_store::Config { bucket: BODIES.to_owned(), num_replicas, ..object_store::Config::default() };
    Ok(context.create_object_store(config).await?)
}

/// Whether a server says that it is in no cluster, so that it can keep one copy only.
fn stands_alone(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        let said = cause.downcast_ref::<CreateStreamError>().map(CreateStreamError::kind);
        if let Some(CreateStreamErrorKind::JetStream(said)) = said {
            return said.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED;
        }
        error = cause.source();
    }
    false
}

/// Asks until there is an answer or the time is over; only for what may be asked twice.
///
/// # Errors
/// [`StoreFailure::Unavailable`], after [`TIME_MAX`].
pub async fn asked<T, E, F>(ask: impl Fn() -> F) -> Result<T, StoreFailure>
where
    E: Into<Wrong>,
    F: Future<Output = Result<T, E>>,
{
    let until = Instant::now() + TIME_MAX;
    loop {
        let wrong = match tokio::time::timeout(TRY_TIME, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.into(),
            Err(_) => no_answer(),
        };
        if Instant::now() + PAUSE >= until {
            return Err(unavailable(wrong));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is said of a question that nobody answered.
pub fn no_answer() -> Wrong {
    "no answer in time".into()
}

/// Says what went wrong in the log.
pub fn unavailable(error: Wrong) -> StoreFailure {
    tracing::error!(%error, "the shared store of deferred messages failed");
    StoreFailure::Unavailable
}
