//! What a completion is about: `op:8 | generation:24 | slot:32`, 64 bits of meaning and never a pointer, so that a completion of
//! a connection that is gone is known by its old generation and dropped.

/// The operations of a signalling ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Multishot recvmsg on a UDP socket; the slot is its place in the list.
    Datagram,
    /// Multishot accept; the slot is the listening socket's place in the list.
    Accept,
    /// Multishot receive on a connection.
    Receive,
    /// A connection can be written to: it is established, or its full send buffer has room again.
    Writable,
    /// Somebody woke us.
    Wake,
    /// A UDP socket has room for datagrams again.
    Room,
    /// The end of a cancellation: says nothing that the cancelled operation's does not say.
    Cancel,
}

const OPS: [Op; 7] = [Op::Datagram, Op::Accept, Op::Receive, Op::Writable, Op::Wake, Op::Room, Op::Cancel];
const GENERATION: u32 = 0x00ff_ffff;

/// The name of an operation on `slot`.
pub const fn name(op: Op, slot: u32, generation: u32) -> u64 {
    ((op as u64) << 56) | (((generation & GENERATION) as u64) << 32) | slot as u64
}

/// What [`name`] was made of.
pub fn read(name: u64) -> Option<(Op, u32, u32)> {
    let op = OPS.get((name >> 56) as usize)?;
    Some((*op, name as u32, (name >> 32) as u32 & GENERATION))
}

/// Whether a generation read from a name is that of a table's key.
pub const fn same(read: u32, generation: u32) -> bool {
    read == generation & GENERATION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_to_what_it_was_made_of() {
        for op in OPS {
            let (read_op, slot, generation) = read(name(op, 0xdead_beef, 0x1234_5678)).unwrap();
            assert_eq!((read_op, slot), (op, 0xdead_beef));
            assert!(same(generation, 0x1234_5678) && !same(generation, 0x1234_5679));
        }
        assert_eq!(read(0xff << 56), None);
    }
}
