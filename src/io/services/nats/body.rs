//! The body of a deferred message in a JetStream object bucket (NATS ADR-20), read chunk by chunk.
//!
//! async-nats reads an object through a consumer that lives in one of the servers: with that server lost the read waits for
//! ever, and where it is lost before the consumer stands the library panics. Here each chunk is a request of its own, which
//! any server with a copy answers, and which may be asked again.

use super::Wrong;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::object_store::ObjectInfo;
use async_nats::jetstream::stream::Stream;
use std::time::Duration;

/// How long one server may take to answer for a chunk (128 KiB as they are written).
const CHUNK_TIME: Duration = Duration::from_secs(2);
/// How often a chunk is asked for, from any copy and from the leader in turns; and the pause after a round in vain, in which
/// a new leader can be elected.
const ROUNDS_MAX: usize = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// The chunks of one object, in their order.
pub struct Chunks<'s> {
    stream: &'s Stream,
    subject: String,
    /// Sequence from which the next chunk is looked for.
    next: u64,
    left: usize,
}

impl<'s> Chunks<'s> {
    /// The chunks of the object that the bucket's information names.
    pub fn of(stream: &'s Stream, bucket: &str, info: &ObjectInfo) -> Self {
        Self { stream, subject: format!("$O.{bucket}.C.{}", info.nuid), next: 1, left: info.chunks }
    }

    /// The next chunk; None after the last.
    ///
    /// # Errors
    /// Where no server gives it in any round.
    pub async fn next(&mut self) -> Result<Option<StreamMessage>, Wrong> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut wrong: Wrong = "nobody was asked".into();
        for round in 0..ROUNDS_MAX {
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.ask().await {
                Ok(chunk) => {
                    self.next = chunk.sequence + 1;
                    self.left -= 1;
                    return Ok(Some(chunk));
                }
                Err(error) => wrong = error,
            }
        }
        Err(wrong)
    }

    /// Asks any server with a copy; one may lag behind the rest, so that what it lacks the leader has.
    async fn ask(&self) -> Result<StreamMessage, Wrong> {
        let any = self.stream.direct_get_next_for_subject(self.subject.as_str(), Some(self.next));
        if let Ok(Ok(chunk)) = tokio::time::timeout(CHUNK_TIME, any).await {
            return Ok(chunk);
        }
        let leader = self.stream.get_first_raw_message_by_subject(&self.subject, self.next);
        Ok(tokio::time::timeout(CHUNK_TIME, leader).await??)
    }
}
