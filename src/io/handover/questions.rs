//! Questions to the stores as they go from the process that ends to the one that has the stores, and their answers.

use crate::shard::exchange::{Fetched, Query, StoreFailure};
use crate::store::deferred::{Deferred, DeferredId};
use crate::store::history::Object;
use crate::store::registrant::Registrant;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A message with its file, which its stored form leaves out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WithFile {
    message: Box<Deferred>,
    file: PathBuf,
}

impl From<Box<Deferred>> for WithFile {
    fn from(message: Box<Deferred>) -> Self {
        Self { file: message.file.clone(), message }
    }
}

impl From<WithFile> for Box<Deferred> {
    fn from(with: WithFile) -> Self {
        Box::new(Deferred { file: with.file, ..*with.message })
    }
}

/// What becomes of a deferred message, and the store has not heard yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Unsaid {
    /// Nobody may have it again.
    Delivered,
    /// Its claim is given back; it rests until then, seconds since the Unix epoch.
    GivenBack { until_s: u64 },
}

/// A [`Query`] to a store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum StoreQuery {
    Defer(WithFile),
    Waiting { user: Box<str> },
    Claim { id: DeferredId },
    Remove { id: DeferredId },
    Return { id: DeferredId, retry_after_s: u32 },
    Record(Box<Object>),
    Copy(Box<Object>),
    Register(Box<Registrant>),
    Deregister { user: Box<str> },
    Registrants { core: u8, after: Option<Box<str>> },
}

impl TryFrom<Query> for StoreQuery {
    type Error = Query;

    /// # Errors
    /// The query, where it is not for a store.
    fn try_from(query: Query) -> Result<Self, Query> {
        Ok(match query {
            Query::Defer(message) => StoreQuery::Defer(message.into()),
            Query::Waiting { user } => StoreQuery::Waiting { user },
            Query::Claim { id } => StoreQuery::Claim { id },
            Query::Remove { id } => StoreQuery::Remove { id },
            Query::Return { id, retry_after_s } => StoreQuery::Return { id, retry_after_s },
            Query::Record(object) => StoreQuery::Record(object),
            Query::Copy(object) => StoreQuery::Copy(object),
            Query::Register(registrant) => StoreQuery::Register(registrant),
            Query::Deregister { user } => StoreQuery::Deregister { user },
            Query::Registrants { core, after } => StoreQuery::Registrants { core, after },
            Query::Document { .. } | Query::External { .. } | Query::Resolve { .. } => return Err(query),
        })
    }
}

/// A [`Fetched`] of a store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum StoreAnswer {
    Kept(Result<(), StoreFailure>),
    Waiting(Vec<WithFile>),
    Claimed(Option<WithFile>),
    Recorded(Result<Option<u32>, StoreFailure>),
    Registrants(Vec<Registrant>),
}

impl StoreQuery {
    /// The answer to a question that could not be asked.
    pub const fn unanswered(&self) -> StoreAnswer {
        match self {
            StoreQuery::Claim { .. } => StoreAnswer::Claimed(None),
            StoreQuery::Record(_) | StoreQuery::Copy(_) => StoreAnswer::Recorded(Err(StoreFailure::Unavailable)),
            _ => StoreAnswer::Kept(Err(StoreFailure::Unavailable)),
        }
    }
}

impl From<StoreAnswer> for Fetched {
    fn from(answer: StoreAnswer) -> Self {
        match answer {
            StoreAnswer::Kept(kept) => Fetched::Kept(kept),
            StoreAnswer::Waiting(messages) => {
                Fetched::Waiting(messages.into_iter().map(|message| *Box::<Deferred>::from(message)).collect())
            }
            StoreAnswer::Claimed(message) => Fetched::Claimed(message.map(Into::into)),
            StoreAnswer::Registrants(users) => Fetched::Registrants(users),
            StoreAnswer::Recorded(recorded) => Fetched::Recorded(recorded),
        }
    }
}
