//! RFC 4975 §7.3.1: content that goes on to one other connection as it came, of which the engine may move the octets without
//! copying them.

use super::Media;
use super::forward::Ground;
use crate::base::clock::Instant;
use crate::shard::media_outbox::{Buffer, Connection, MediaOutbox};

impl Media {
    /// The one connection that what this connection brings goes to, if nobody else takes it and it is written nowhere: that of the
    /// chunk that is coming in, or of its leg.
    pub fn passes_to(&self, connection: Connection) -> Option<Connection> {
        let conn = self.net.get(connection).filter(|conn| conn.hears() && !conn.paused)?;
        match conn.chunk.as_deref() {
            Some(chunk) if chunk.takers.is_power_of_two() => {
                let session = self.sessions.get(chunk.from.session)?;
                session.targets(chunk.from.session, chunk.takers).next().map(|target| target.connection)
            }
            Some(_) => None,
            None => conn.last.and_then(|leg| self.sessions.get(leg.session)?.only_outlet(leg.place)),
        }
    }

    /// As [`Media::receive`], of octets that also lie elsewhere, from where what goes on may be taken: they stay as they are.
    /// Pieces of `buffer` for one connection lie in it one behind the other.
    pub fn look(
        &mut self,
        now: Instant,
        connection: Connection,
        buffer: Buffer,
        octets: &mut [u8],
        offset: u32,
        out: &mut MediaOutbox,
    ) {
        self.came_in(now, connection, Ground::Lent { buffer, offset, fixed: true }, octets, out);
    }
}
