//! RFC 4975 §7.3.1: bodies that go on as they came, of which the engine may move the octets without copying them.

use super::Media;
use super::forward::Ground;
use crate::base::clock::Instant;
use crate::shard::media_outbox::{Buffer, Connection, MediaOutbox};

/// Steps that one call may take before it has used octets up: one for what was held back, one for what follows.
const STEPS_MAX: usize = 3;

impl Media {
    /// Where a connection stands in the body of a chunk that goes to one other connection and nowhere else: that connection, and
    /// the octets that the message's announced length leaves.
    pub fn passing(&self, connection: Connection) -> Option<(Connection, u64)> {
        let conn = self.net.get(connection).filter(|conn| conn.hears() && !conn.paused && conn.reader.is_in_body())?;
        let chunk = conn.chunk.as_deref().filter(|chunk| chunk.takers.is_power_of_two())?;
        let left = chunk.total?.saturating_add(1).checked_sub(chunk.next())?;
        let target = self.sessions.get(chunk.from.session)?.targets(chunk.from.session, chunk.takers).next()?;
        Some((target.connection, left))
    }

    /// As [`Media::receive`] while [`Media::passing`] names somebody, but no further than to the end of the body. Of what lies in
    /// `buffer`, which is left as it is, at most one piece goes out, and it begins where `octets` do. Returns how many octets were
    /// taken in.
    pub fn receive_body(
        &mut self,
        now: Instant,
        connection: Connection,
        buffer: Buffer,
        octets: &mut [u8],
        offset: u32,
        out: &mut MediaOutbox,
    ) -> usize {
        let mut at = 0;
        for _ in 0..STEPS_MAX {
            let goes_on = self.feed_one(now, connection, Ground::Lent { buffer, offset }, octets, &mut at, out);
            if !goes_on || at > 0 {
                break;
            }
        }
        self.throttle(connection, out);
        self.touch(connection);
        self.wake(now, out);
        at
    }
}
