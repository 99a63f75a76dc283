//! draft-ietf-opsawg-pcapng (PCAP Next Generation): a capture file of three kinds of blocks.
//!
//! ```text
//! type:32 length:32 | body, padded to 32 bits | options | length:32      every number in the writer's own byte order
//! Section Header (§4.1)   Interface Description (§4.2)   Enhanced Packet (§4.3), one each
//! ```
//! Written here and not by a crate: these three are all that is needed, and the crates there are bring more parsers with them than
//! this has lines.

/// LINKTYPE_RAW: a packet begins with its IPv4 or IPv6 header.
const LINK_TYPE_RAW: u16 = 101;
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Options (§3.5, §4.2).
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const APPLICATION: u16 = 4;
const TIME_RESOLUTION: u16 = 9;
/// Timestamps count nanoseconds.
const NANOSECONDS: u8 = 9;

/// A file that begins with its section and its one interface.
pub fn begin(application: &str) -> Vec<u8> {
    let mut file = Vec::new();
    block(&mut file, SECTION_HEADER, |body| {
        body.extend_from_slice(&BYTE_ORDER.to_le_bytes());
        // Version 1.0; the section's length is not said.
        body.extend_from_slice(&[1, 0, 0, 0]);
        body.extend_from_slice(&[0xff; 8]);
        option(body, APPLICATION, application.as_bytes());
        option(body, END_OF_OPTIONS, &[]);
    });
    block(&mut file, INTERFACE_DESCRIPTION, |body| {
        body.extend_from_slice(&u32::from(LINK_TYPE_RAW).to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        option(body, TIME_RESOLUTION, &[NANOSECONDS]);
        option(body, END_OF_OPTIONS, &[]);
    });
    file
}

/// A packet of which `original` octets were on the wire. `nanos`: since 1970.
pub fn packet(file: &mut Vec<u8>, nanos: u64, octets: &[u8], original: usize, comment: Option<&str>) {
    let length = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX).to_le_bytes();
    block(file, ENHANCED_PACKET, |body| {
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&((nanos >> 32) as u32).to_le_bytes());
        body.extend_from_slice(&(nanos as u32).to_le_bytes());
        body.extend_from_slice(&length(octets.len()));
        body.extend_from_slice(&length(original.max(octets.len())));
        padded(body, octets);
        if let Some(comment) = comment {
            option(body, COMMENT, comment.as_bytes());
            option(body, END_OF_OPTIONS, &[]);
        }
    });
}

fn block(file: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = file.len();
    file.extend_from_slice(&kind.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    fill(file);
    let length = u32::try_from(file.len() + 4 - start).expect("a packet and its options are below 4 GiB").to_le_bytes();
    file[start + 4..start + 8].copy_from_slice(&length);
    file.extend_from_slice(&length);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn padded(body: &mut Vec<u8>, octets: &[u8]) {
    body.extend_from_slice(octets);
    body.resize(body.len() + octets.len().next_multiple_of(4) - octets.len(), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks of a file, their two lengths checked.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let number = |octets: &[u8]| u32::from_le_bytes(octets.try_into().expect("four octets"));
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = number(&file[4..8]) as usize;
            assert_eq!((length % 4, number(&file[length - 4..length]) as usize), (0, length));
            blocks.push((number(&file[..4]), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn blocks_are_written_as_the_draft_draws_them() {
        let mut file = begin("x");
        packet(&mut file, 0x1_0000_0002, b"abcde", 9, Some("no body"));
        packet(&mut file, 3, b"abcd", 4, None);
        let blocks = blocks(&file);
        assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [0x0a0d_0d0a, 1, 6, 6]);
        assert_eq!(blocks[0].1, b"\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x04\0\x01\0x\0\0\0\0\0\0\0");
        assert_eq!(blocks[1].1, b"\x65\0\0\0\0\0\0\0\x09\0\x01\0\x09\0\0\0\0\0\0\0");
        assert_eq!(blocks[2].1, b"\0\0\0\0\x01\0\0\0\x02\0\0\0\x05\0\0\0\x09\0\0\0abcde\0\0\0\x01\0\x07\0no body\0\0\0\0\0");
        assert_eq!(blocks[3].1, b"\0\0\0\0\0\0\0\0\x03\0\0\0\x04\0\0\0\x04\0\0\0abcd");
    }
}
