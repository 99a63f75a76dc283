//! What waits to be sent on one connection: pieces of lent buffers, of this turn's outbox, and octets of its own.
//!
//! A turn gathers pieces; at its end one `sendmsg` takes as many as the socket accepts, straight from where they lie. What
//! is left is kept: outbox octets are copied (the outbox is emptied), lent pieces go on pointing into their buffer until
//! somebody needs that buffer more ([`Queue::copy_out`]).

use super::buffers::Buffers;
use super::pipe::Pipe;
use super::zero_copy::Lending;
use crate::shard::media_outbox::Buffer;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::RawFd;

/// Pieces of one system call: more would seldom be accepted at once.
pub const PIECES_MAX: usize = 64;

/// Octets that go out one after another.
pub enum Piece {
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
    /// In a pipe.
    Piped {
        pipe: Pipe,
        octets: usize,
    },
}

/// Pieces in the order in which they go out.
#[derive(Default)]
pub struct Queue {
    pieces: VecDeque<Piece>,
    octets: usize,
    /// Pieces that point into lent buffers.
    lent: u32,
    /// Pieces that point into this turn's outbox.
    turn: u32,
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
            buffers.rooms.furnish(&mut self.pieces);
            self.pieces.push_back(Piece::Lent { buffer, octets });
        }
    }

    /// Queues octets of this turn's outbox.
    pub fn push_turn(&mut self, octets: Range<u32>, buffers: &mut Buffers) {
        self.octets += octets.len();
        match self.pieces.back_mut() {
            Some(Piece::Turn(before)) if before.end == octets.start => before.end = octets.end,
            _ if octets.is_empty() => {}
            _ => {
                self.turn += 1;
                buffers.rooms.furnish(&mut self.pieces);
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

    /// Queues up to so many octets of a socket or a pipe, which go through a pipe, or a second one where the first is full. Returns how many
    /// there was room for.
    pub fn take_from(&mut self, from: RawFd, octets: usize, turn: &[u8], buffers: &mut Buffers) -> usize {
        let mut taken = 0;
        if let Some(Piece::Piped { pipe, octets: before }) = self.pieces.back_mut() {
            taken = pipe.take(from, octets).unwrap_or(0);
            *before += taken;
        }
        if taken < octets
            && let Some(pipe) = buffers.pipes.lend()
        {
            let joined = self.join_front(&pipe, turn);
            let more = pipe.take(from, octets - taken).unwrap_or(0);
            taken += more;
            match joined + more {
                0 => buffers.pipes.back(pipe),
                octets => {
                    buffers.rooms.furnish(&mut self.pieces);
                    self.pieces.push_back(Piece::Piped { pipe, octets });
                }
            }
        }
        self.octets += taken;
        taken
    }

    /// Moves the piece in front of a fresh pipe, if it is a short one of this turn, into that. Returns how many octets it had.
    fn join_front(&mut self, pipe: &Pipe, turn: &[u8]) -> usize {
        match self.pieces.back() {
            Some(Piece::Turn(octets)) if pipe.put(&turn[octets.start as usize..octets.end as usize]) => {
                let octets = octets.len();
                self.pieces.pop_back();
                self.turn -= 1;
                octets
            }
            _ => 0,
        }
    }

    /// Queues octets behind a pipe's, in it; false: there is none, or it has no room.
    pub fn put(&mut self, octets: &[u8]) -> bool {
        match self.pieces.back_mut() {
            Some(Piece::Piped { pipe, octets: before }) if pipe.put(octets) => {
                *before += octets.len();
                self.octets += octets.len();
                true
            }
            _ => false,
        }
    }

    /// The pipe that is to be sent from next, its octets, and whether something stands behind them.
    pub fn pipe_in_front(&self) -> Option<(&Pipe, usize, bool)> {
        match self.pieces.front() {
            Some(Piece::Piped { pipe, octets }) => Some((pipe, *octets, self.pieces.len() > 1)),
            _ => None,
        }
    }

    /// Whether a pipe follows behind the first so many pieces.
    pub fn pipe_follows(&self, pieces: usize) -> bool {
        matches!(self.pieces.get(pieces), Some(Piece::Piped { .. }))
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
                Piece::Piped { .. } => break,
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
                Piece::Piped { .. } => return,
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
                Piece::Piped { octets, .. } => *octets,
            };
            if octets < length {
                match front {
                    Piece::Lent { octets: range, .. } | Piece::Turn(range) => range.start += octets as u32,
                    Piece::Own { sent, .. } => *sent += octets,
                    Piece::Piped { octets: left, .. } => *left -= octets,
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
                Some(Piece::Piped { pipe, .. }) => buffers.pipes.back(pipe),
                Some(Piece::Own { .. }) | None => {}
            }
        }
        buffers.rooms.clear_out(&mut self.pieces);
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
        let piped = |piece: &Piece| if let Piece::Piped { octets, .. } = piece { *octets } else { 0 };
        let room = self.octets - self.pieces.iter().map(piped).sum::<usize>();
        let (mut own, mut copied) = (Vec::with_capacity(room), 0);
        for _ in 0..self.pieces.len() {
            let piece = self.pieces.pop_front().expect("only as many are taken as there were");
            match piece {
                Piece::Piped { .. } => {
                    copied += self.keep_own(&mut own);
                    self.pieces.push_back(piece);
                }
                Piece::Lent { buffer, octets } => {
                    own.extend_from_slice(buffers.lent_octets(buffer, octets));
                    buffers.release(buffer);
                }
                Piece::Turn(octets) => own.extend_from_slice(&turn[octets.start as usize..octets.end as usize]),
                Piece::Own { octets, sent } => own.extend_from_slice(&octets[sent..]),
            }
        }
        (self.lent, self.turn) = (0, 0);
        copied + self.keep_own(&mut own)
    }

    /// Puts copied octets behind all pieces; says how many.
    fn keep_own(&mut self, own: &mut Vec<u8>) -> usize {
        let copied = own.len();
        if copied > 0 {
            self.pieces.push_back(Piece::Own { octets: std::mem::take(own).into(), sent: 0 });
        }
        copied
    }

    /// Forgets everything.
    pub fn clear(&mut self, buffers: &mut Buffers) {
        for piece in self.pieces.drain(..) {
            match piece {
                Piece::Lent { buffer, .. } => buffers.release(buffer),
                Piece::Piped { pipe, .. } => buffers.pipes.drop_full(pipe),
                Piece::Turn(_) | Piece::Own { .. } => {}
            }
        }
        (self.octets, self.lent, self.turn) = (0, 0, 0);
        buffers.rooms.clear_out(&mut self.pieces);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::media::buffers::{CHAT, Pool, Pools};
    use crate::io::media::pipe;
    use crate::io::probe::Features;
    use crate::io::ring::Ring;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

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

    fn content_upto_a_pipe(queue: &Queue, buffers: &Buffers, turn: &[u8]) -> Vec<u8> {
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let (count, _) = queue.gather(buffers, turn, usize::MAX, &mut pieces);
        pieces[..count].iter().flat_map(|piece| piece.to_vec()).collect()
    }

    #[test]
    fn pieces_go_out_in_order_and_neighbours_become_one() {
        let (_ring, mut buffers) = buffers();
        let body = buffers.heap(b"one two three".to_vec());
        let mut queue = Queue::default();
        queue.push_turn(0..4, &mut buffers);
        queue.push_lent(body, 0..4, &mut buffers);
        queue.push_lent(body, 4..8, &mut buffers);
        queue.push_turn(4..5, &mut buffers);
        queue.push_turn(5..6, &mut buffers);
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
        queue.push_turn(0..1, &mut buffers);
        queue.push_lent(buffer, 2..7, &mut buffers);
        buffers.release(buffer);
        queue.sent(2, &mut buffers);
        assert_eq!((queue.copy_out(b"<", &mut buffers), buffers.available(CHAT)), (4, 2));
        assert_eq!(content(&queue, &buffers, b""), b"3456");
        queue.clear(&mut buffers);
        assert!(queue.is_empty() && buffers.at_rest());
    }

    /// Two sockets that are connected to each other.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let near = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        (near, listener.accept().expect("a connection waits").0)
    }

    /// A queue with four octets of a lent buffer; with four of the turn, six that came from a socket and three of our own, in a pipe;
    /// with four of a lent buffer; and that socket.
    fn with_a_pipe(buffers: &mut Buffers) -> (Queue, TcpStream) {
        let (mut near, far) = connected();
        near.write_all(b"passed on").expect("it is connected");
        let mut peeked = [0; 9];
        while pipe::peek(far.as_raw_fd(), &mut peeked).expect("it is connected") < 9 {}
        let mut queue = Queue::default();
        let start = buffers.heap(b"the ".to_vec());
        queue.push_lent(start, 0..4, buffers);
        buffers.release(start);
        assert!(!queue.put(b"no pipe"));
        queue.push_turn(0..4, buffers);
        assert_eq!(
            queue.take_from(far.as_raw_fd(), 2, b"head", buffers) + queue.take_from(far.as_raw_fd(), 4, b"head", buffers),
            6
        );
        assert!(queue.put(b" on") && !queue.put(&[0; libc::PIPE_BUF + 1]));
        let body = buffers.heap(b" end".to_vec());
        queue.push_lent(body, 0..4, buffers);
        buffers.release(body);
        assert_eq!((queue.pieces.len(), queue.octets(), buffers.pipes.are_home()), (3, 21, false));
        pipe::forget(far.as_raw_fd(), 2).expect("two octets are dropped");
        let mut last = [0; 1];
        (&far).read_exact(&mut last).expect("one is left");
        assert_eq!(&last, b"n");
        (queue, near)
    }

    #[test]
    fn what_is_in_a_pipe_goes_out_in_its_turn() {
        let (_ring, mut buffers) = buffers();
        let (mut queue, _near) = with_a_pipe(&mut buffers);
        assert_eq!(content_upto_a_pipe(&queue, &buffers, b"head"), b"the ");
        assert!(queue.pipe_follows(1) && queue.pipe_in_front().is_none());
        queue.sent(4, &mut buffers);
        // The turn is over: what it had of that is in the pipe.
        queue.keep(b"");
        let (near, mut far) = connected();
        let mut sent = 0;
        while let Some((pipe, octets, more)) = queue.pipe_in_front() {
            assert!(more);
            let given = pipe.give(near.as_raw_fd(), octets.min(4), more).expect("the socket is empty");
            queue.sent(given, &mut buffers);
            sent += given;
        }
        assert!(sent == 13 && buffers.pipes.are_home());
        assert_eq!(content(&queue, &buffers, b""), b" end");
        drop(near);
        let mut came = Vec::new();
        far.read_to_end(&mut came).expect("they arrive");
        assert_eq!(came, b"headpassed on");
    }

    #[test]
    fn copying_out_leaves_what_is_in_a_pipe_where_it_stands() {
        let (_ring, mut buffers) = buffers();
        let (mut queue, _near) = with_a_pipe(&mut buffers);
        assert_eq!(queue.copy_out(b"head", &mut buffers), 8);
        assert_eq!((queue.pieces.len(), queue.octets(), queue.holds_buffers()), (3, 21, false));
        assert_eq!(content_upto_a_pipe(&queue, &buffers, b""), b"the ");
        queue.clear(&mut buffers);
        assert!(queue.is_empty() && buffers.at_rest() && buffers.pipes.are_home());
    }

    #[test]
    fn a_socket_that_is_full_takes_what_it_can_and_nobody_waits() {
        let (_ring, mut buffers) = buffers();
        let (near, far) = connected();
        let (from, mut to) = (connected(), vec![0; 64 * 1024]);
        near.set_nonblocking(true).expect("a socket can");
        while (&near).write(&to).is_ok() {}
        near.set_nonblocking(false).expect("a socket can");
        (&from.0).write_all(&to).expect("it is connected");
        while pipe::peek(from.1.as_raw_fd(), &mut to).expect("it is connected") < to.len() {}
        let mut queue = Queue::default();
        let taken = queue.take_from(from.1.as_raw_fd(), to.len(), b"", &mut buffers);
        assert!(taken > 0);
        while let Some((pipe, octets, more)) = queue.pipe_in_front() {
            match pipe.give(near.as_raw_fd(), octets, more) {
                Ok(sent) => queue.sent(sent, &mut buffers),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        drop(far);
    }
}
