//! What waits to be sent on one connection: pieces of lent buffers, of this turn's outbox, and octets of its own.
//!
//! A turn gathers pieces; at its end one `sendmsg` takes as many as the socket accepts, straight from where they lie. What
//! is left is kept: outbox octets are copied (the outbox is emptied), lent pieces go on pointing into their buffer until
//! somebody needs that buffer more ([`Queue::copy_out`]).

use super::buffers::Buffers;
use super::zero_copy::Lending;
use crate::shard::media_outbox::Buffer;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

/// Pieces of one system call: more would seldom be accepted at once.
pub const PIECES_MAX: usize = 64;

enum Piece {
    Lent {
        buffer: Buffer,
        octets: Range<u32>,
    },
    /// In the outbox of the turn that queued it.
    Turn(Range<u32>),
    Own {
        octets: Box<[u8]>,
        sent: usize,
    },
}

/// Pieces in the order in which they go out.
#[derive(Default)]
pub struct Queue {
    pieces: VecDeque<Piece>,
    octets: usize,
    /// Pieces that point into lent buffers.
    lent: usize,
    /// Pieces that point into this turn's outbox.
    turn: usize,
}

impl Queue {
    /// Octets that wait.
    pub const fn octets(&self) -> usize {
        self.octets
    }
    pub const fn is_empty(&self) -> bool {
        self.octets == 0
    }
    /// Whether buffers of the kernel are held.
    pub const fn holds_buffers(&self) -> bool {
        self.lent > 0
    }

    /// Queues octets of a buffer, which is held until they are sent.
    pub fn push_lent(&mut self, buffer: Buffer, octets: Range<u32>, buffers: &mut Buffers) {
        assert!(buffers.holds(buffer, &octets), "a piece lies in what was received, and its buffer is held");
        self.octets += octets.len();
        if let Some(Piece::Lent { buffer: last, octets: before }) = self.pieces.back_mut()
            && *last == buffer
            && before.end == octets.start
        {
            before.end = octets.end;
        } else if !octets.is_empty() {
            buffers.hold(buffer);
            self.lent += 1;
            self.pieces.push_back(Piece::Lent { buffer, octets });
        }
    }

    /// Queues octets of this turn's outbox.
    pub fn push_turn(&mut self, octets: Range<u32>) {
        self.octets += octets.len();
        match self.pieces.back_mut() {
            Some(Piece::Turn(before)) if before.end == octets.start => before.end = octets.end,
            _ if octets.is_empty() => {}
            _ => {
                self.turn += 1;
                self.pieces.push_back(Piece::Turn(octets));
            }
        }
    }

    /// Queues octets that nobody else keeps.
    pub fn push_own(&mut self, octets: Box<[u8]>) {
        self.octets += octets.len();
        if !octets.is_empty() {
            self.pieces.push_back(Piece::Own { octets, sent: 0 });
        }
    }

    /// The first pieces, at most `octets_max` octets of them, as `sendmsg` wants them: how many pieces, how many octets.
    pub fn gather<'a>(
        &'a self,
        buffers: &'a Buffers,
        turn: &'a [u8],
        octets_max: usize,
        pieces: &mut [IoSlice<'a>; PIECES_MAX],
    ) -> (usize, usize) {
        let (mut count, mut left) = (0, octets_max);
        for (piece, place) in self.pieces.iter().zip(pieces) {
            let octets = match piece {
                Piece::Lent { buffer, octets } => buffers.lent_octets(*buffer, octets.clone()),
                Piece::Turn(octets) => &turn[octets.start as usize..octets.end as usize],
                Piece::Own { octets, sent } => &octets[*sent..],
            };
            let octets = &octets[..octets.len().min(left)];
            left -= octets.len();
            *place = IoSlice::new(octets);
            count += 1;
            if left == 0 {
                break;
            }
        }
        (count, octets_max - left)
    }

    /// The first pieces, for a send that goes on after the turn: lent ones are held for `send`, others copied into it, up to a
    /// piece that is too long for that.
    pub fn lend(&self, buffers: &mut Buffers, turn: &[u8], octets_max: usize, send: &mut Lending) {
        let mut left = octets_max;
        for piece in self.pieces.iter().take(PIECES_MAX) {
            let own = match piece {
                Piece::Lent { buffer, octets } => {
                    let octets = octets.start..octets.end.min(octets.start.saturating_add(left as u32));
                    left -= octets.len();
                    send.lent(*buffer, octets, buffers);
                    &[][..]
                }
                Piece::Turn(octets) => &turn[octets.start as usize..octets.end as usize],
                Piece::Own { octets, sent } => &octets[*sent..],
            };
            let own = &own[..own.len().min(left)];
            if left == 0 && own.is_empty() || !send.own(own) {
                return;
            }
            left -= own.len();
        }
    }

    /// So many octets are sent: lets go of the pieces they lay in.
    pub fn sent(&mut self, mut octets: usize, buffers: &mut Buffers) {
        self.octets -= octets;
        while octets > 0 {
            let front = self.pieces.front_mut().expect("what was sent was queued");
            let length = match front {
                Piece::Lent { octets, .. } | Piece::Turn(octets) => octets.len(),
                Piece::Own { octets, sent } => octets.len() - *sent,
            };
            if octets < length {
                match front {
                    Piece::Lent { octets: range, .. } | Piece::Turn(range) => range.start += octets as u32,
                    Piece::Own { sent, .. } => *sent += octets,
                }
                return;
            }
            octets -= length;
            match self.pieces.pop_front() {
                Some(Piece::Lent { buffer, .. }) => {
                    self.lent -= 1;
                    buffers.release(buffer);
                }
                Some(Piece::Turn(_)) => self.turn -= 1,
                _ => {}
            }
        }
    }

    /// The turn is over and its outbox will be emptied: keeps a copy of what lies there.
    pub fn keep(&mut self, turn: &[u8]) {
        // This turn's pieces are at the back.
        for piece in self.pieces.iter_mut().rev() {
            if self.turn == 0 {
                return;
            }
            if let Piece::Turn(octets) = piece {
                let octets = turn[octets.start as usize..octets.end as usize].into();
                *piece = Piece::Own { octets, sent: 0 };
                self.turn -= 1;
            }
        }
    }

    /// Copies everything that still lies elsewhere, so that the buffers go back. Returns how many octets were copied.
    pub fn copy_out(&mut self, turn: &[u8], buffers: &mut Buffers) -> usize {
        if self.lent == 0 {
            return 0;
        }
        let mut own = Vec::with_capacity(self.octets);
        for piece in self.pieces.drain(..) {
            match piece {
                Piece::Lent { buffer, octets } => {
                    own.extend_from_slice(buffers.lent_octets(buffer, octets));
                    buffers.release(buffer);
                }
                Piece::Turn(octets) => own.extend_from_slice(&turn[octets.start as usize..octets.end as usize]),
                Piece::Own { octets, sent } => own.extend_from_slice(&octets[sent..]),
            }
        }
        (self.lent, self.turn) = (0, 0);
        let copied = own.len();
        self.pieces.push_back(Piece::Own { octets: own.into(), sent: 0 });
        copied
    }

    /// Forgets everything.
    pub fn clear(&mut self, buffers: &mut Buffers) {
        for piece in self.pieces.drain(..) {
            if let Piece::Lent { buffer, .. } = piece {
                buffers.release(buffer);
            }
        }
        (self.octets, self.lent, self.turn) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::media::buffers::{CHAT, Pool, Pools};
    use crate::io::probe::Features;
    use crate::io::ring::Ring;

    fn buffers() -> (Ring, Buffers) {
        let ring = Ring::new(8, 32, false).expect("the tests run where the product runs");
        let pool = Pool { count: 2, octets_each: 4096 };
        let buffers = Buffers::new(&ring, Pools { chat: pool, bulk: pool }, Features::default()).expect("a ring takes buffers");
        (ring, buffers)
    }

    fn content(queue: &Queue, buffers: &Buffers, turn: &[u8]) -> Vec<u8> {
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let (count, octets) = queue.gather(buffers, turn, usize::MAX, &mut pieces);
        let content = pieces[..count].iter().flat_map(|piece| piece.to_vec()).collect::<Vec<u8>>();
        assert_eq!(content.len(), octets);
        content
    }

    #[test]
    fn pieces_go_out_in_order_and_neighbours_become_one() {
        let (_ring, mut buffers) = buffers();
        let body = buffers.heap(b"one two three".to_vec());
        let mut queue = Queue::default();
        queue.push_turn(0..4);
        queue.push_lent(body, 0..4, &mut buffers);
        queue.push_lent(body, 4..8, &mut buffers);
        queue.push_turn(4..5);
        queue.push_turn(5..6);
        buffers.release(body);
        assert_eq!((queue.pieces.len(), queue.octets()), (3, 14));
        assert_eq!(content(&queue, &buffers, b"headEN"), b"headone two EN");
        queue.sent(5, &mut buffers);
        assert_eq!(content(&queue, &buffers, b"headEN"), b"ne two EN");
        queue.keep(b"headEN");
        assert_eq!((content(&queue, &buffers, b""), queue.holds_buffers()), (b"ne two EN".to_vec(), true));
        queue.sent(9, &mut buffers);
        assert!(queue.is_empty() && !queue.holds_buffers() && buffers.at_rest());
    }

    #[test]
    fn copying_out_gives_the_buffers_back_and_changes_no_octet() {
        let (_ring, mut buffers) = buffers();
        let (buffer, _) = buffers.filled(CHAT, 0, 10, false);
        buffers.octets(buffer, 0, 10).copy_from_slice(b"0123456789");
        let mut queue = Queue::default();
        queue.push_turn(0..1);
        queue.push_lent(buffer, 2..7, &mut buffers);
        buffers.release(buffer);
        queue.sent(2, &mut buffers);
        assert_eq!((queue.copy_out(b"<", &mut buffers), buffers.available(CHAT)), (4, 2));
        assert_eq!(content(&queue, &buffers, b""), b"3456");
        queue.clear(&mut buffers);
        assert!(queue.is_empty() && buffers.at_rest());
    }
}
