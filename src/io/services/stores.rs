//! `[store]`: which store keeps deferred messages, and which the history: on this node's disk, or on servers that all
//! nodes share.

use super::deferred::Embedded;
use super::history::Folders;
use super::history_queue::Queue;
use super::imap_pool::Pool;
use super::imap_server::Server;
use super::message_store::{History, MessageStore};
use super::nats::Shared;
use super::spool::Spool;
use crate::base::prng::Prng;
use crate::config::Store;
use crate::shard::exchange::StoreFailure;
use crate::store::deferred::{Deferred, DeferredId};
use std::io;
use std::path::Path;
use std::time::Duration;

/// `store.deferred`.
#[derive(Debug)]
pub enum DeferredMessages {
    Embedded(Embedded),
    Shared(Box<Shared>),
}

impl DeferredMessages {
    /// Opens what `store.deferred` names.
    ///
    /// # Errors
    /// With key and value in the text, where a directory cannot be opened.
    pub fn open(store: &Store, directory: &Spool, prng: &mut Prng) -> io::Result<Self> {
        if store.deferred.starts_with("file:") {
            return opened("store.deferred", &store.deferred, Embedded::open).map(Self::Embedded);
        }
        let node = directory.node(prng).map_err(|error| spool(store, &error))?;
        let open = Shared::open(&store.deferred, &store.spool, node);
        open.map(|shared| Self::Shared(Box::new(shared))).map_err(|error| spool(store, &error))
    }

    /// How often expired messages are looked for: here it reads the first of a sorted table, there it asks the servers.
    pub fn sweep_every(&self) -> Duration {
        match self {
            Self::Embedded(_) => Duration::from_secs(1),
            Self::Shared(_) => Duration::from_secs(10),
        }
    }

    /// Messages kept, as far as known without asking.
    pub fn messages(&self) -> u64 {
        match self {
            Self::Embedded(store) => store.messages(),
            Self::Shared(store) => store.messages(),
        }
    }

    /// Keeps a message.
    ///
    /// # Errors
    /// [`StoreFailure`].
    pub async fn defer(&self, message: Deferred) -> Result<(), StoreFailure> {
        match self {
            Self::Embedded(store) => store.defer(message).await,
            Self::Shared(store) => store.defer(message).await,
        }
    }

    /// Messages that wait for a user.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`] where the store is away.
    pub async fn waiting(&self, user: Box<str>, now_s: u64) -> Result<Vec<Deferred>, StoreFailure> {
        match self {
            Self::Embedded(store) => store.waiting(user, now_s).await,
            Self::Shared(store) => store.waiting(&user, now_s).await,
        }
    }

    /// Takes a message for delivery.
    pub async fn claim(&self, id: DeferredId, now_s: u64) -> Option<Box<Deferred>> {
        match self {
            Self::Embedded(store) => store.claim(id, now_s).await,
            Self::Shared(store) => store.claim(&id, now_s).await.unwrap_or_default(),
        }
    }

    /// Takes a message as claimed that another process is delivering.
    pub async fn adopt(&self, id: DeferredId, now_s: u64) {
        match self {
            Self::Embedded(store) => store.adopt(id, now_s).await,
            Self::Shared(store) => store.adopt(id, now_s),
        }
    }

    /// Deletes a message.
    ///
    /// # Errors
    /// [`StoreFailure`].
    pub async fn remove(&self, id: DeferredId) -> Result<(), StoreFailure> {
        match self {
            Self::Embedded(store) => store.remove(id).await,
            Self::Shared(store) => store.remove(&id).await,
        }
    }

    /// Gives a claim back.
    ///
    /// # Errors
    /// [`StoreFailure`].
    pub async fn give_back(&self, id: DeferredId, until_s: u64) -> Result<(), StoreFailure> {
        match self {
            Self::Embedded(store) => store.give_back(id, until_s).await,
            Self::Shared(store) => store.give_back(&id, until_s).await,
        }
    }

    /// Removes some of what a crash left on this node's disk. False: nothing is left of it.
    pub async fn tidy(&self) -> bool {
        match self {
            Self::Embedded(store) => store.tidy().await,
            Self::Shared(_) => false,
        }
    }

    /// Renews what is being delivered; gives the claims that cannot be. What is on this node's disk nobody else can take.
    pub async fn renew(&self, now_s: u64) -> Vec<DeferredId> {
        match self {
            Self::Embedded(_) => Vec::new(),
            Self::Shared(store) => store.renew(now_s).await,
        }
    }

    /// Deletes what is expired, and gives it.
    pub async fn sweep(&self, now_s: u64) -> Vec<Deferred> {
        match self {
            Self::Embedded(store) => store.sweep(now_s).await,
            Self::Shared(store) => store.sweep(now_s).await.unwrap_or_default(),
        }
    }
}

/// Opens what `store.history` names, with the queue of what waits for it.
///
/// # Errors
/// With key and value in the text, where a directory cannot be opened or an address is none.
///
/// The chance is for names: of what waits, and of files.
pub fn history(store: &Store, [waiting, names]: [Prng; 2]) -> io::Result<MessageStore> {
    let queue = Queue::open(&store.spool, waiting).map_err(|error| spool(store, &error))?;
    let history = if store.history.starts_with("file:") {
        History::Embedded(Box::new(opened("store.history", &store.history, |root| Folders::open(root, names))?))
    } else {
        // The password may stand in the value: it is not repeated.
        let server = Server::parse(&store.history).map_err(|error| io::Error::other(format!("store.history: {error}")))?;
        History::Server(Box::new(Pool::new(server)))
    };
    Ok(MessageStore::new(history, queue))
}

/// Opens what lies below the directory of a `file:` value; what goes wrong says which key and which directory.
fn opened<T>(key: &str, value: &str, open: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let root = Path::new(value.strip_prefix("file:").unwrap_or(value));
    open(root).map_err(|error| io::Error::new(error.kind(), format!("{key} = \"{value}\": {error}")))
}

fn spool(store: &Store, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("store.spool = \"{}\": {error}", store.spool.display()))
}
