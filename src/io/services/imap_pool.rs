//! OMA Message Storage 6.3.1: a few connections to the Message Storage Server, kept while it keeps them.

use super::imap::{Connection, Failure, Server};
use crate::limits::IMAP_CONNECTIONS_MAX;
use crate::store::history::Object;
use std::cell::RefCell;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long one object may take, once connected: a body of 100 MiB at less than 1 MiB a second.
const STORE_TIME: Duration = Duration::from_secs(120);

/// The server and the connections to it.
pub struct Pool {
    server: Server,
    idle: RefCell<Vec<Connection>>,
    places: Semaphore,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.server.fmt(f)
    }
}

impl Pool {
    /// Without a connection: the first object makes one.
    pub fn new(server: Server) -> Self {
        Self { server, idle: RefCell::default(), places: Semaphore::new(IMAP_CONNECTIONS_MAX) }
    }

    /// Stores an object and gives its UID, where the server tells it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn send(&self, object: &Object) -> Result<Option<u32>, Failure> {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let idle = self.idle.borrow_mut().pop();
        if let Some(connection) = idle {
            // The server may have closed it meanwhile: then a new one says what is so.
            match self.send_over(connection, object).await {
                Err(Failure::Away(_)) => {}
                other => return other,
            }
        }
        let connection = self.server.connect().await?;
        self.send_over(connection, object).await
    }

    async fn send_over(&self, mut connection: Connection, object: &Object) -> Result<Option<u32>, Failure> {
        let stored = tokio::time::timeout(STORE_TIME, connection.store(object)).await;
        let stored = stored.unwrap_or_else(|_| Err(Failure::Away("no answer in time".to_owned())));
        if !matches!(stored, Err(Failure::Away(_) | Failure::Body(_))) {
            self.idle.borrow_mut().push(connection);
        }
        stored
    }
}
