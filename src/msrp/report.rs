//! RFC 4975 §7.1.2: REPORT requests that we write ourselves.

use crate::msrp::chunk::{ByteRange, Continuation};
use crate::msrp::ident::Ident;
use crate::msrp::{status, write};

/// What a report says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reported {
    pub message_id: Ident,
    /// Octets it speaks of; a failure report must name them (§7.1.4).
    pub range: Option<ByteRange>,
    pub code: u16,
}

/// Writes a REPORT; `to` is the whole path to the message's sender.
pub fn report(out: &mut Vec<u8>, tid: &Ident, to: &[u8], from: &[u8], reported: &Reported) {
    write::request_start(out, tid, b"REPORT", to, from);
    write::message_id(out, reported.message_id.as_bytes());
    if let Some(range) = reported.range {
        write::byte_range(out, range);
    }
    out.extend_from_slice(b"Status: 000 ");
    let code = reported.code.clamp(100, 999);
    out.extend([100, 10, 1].map(|unit| b'0' + (code / unit % 10) as u8));
    out.push(b' ');
    out.extend_from_slice(status::phrase(code).as_bytes());
    out.extend_from_slice(b"\r\n");
    write::bare_end_line(out, tid, Continuation::Complete);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_written_as_in_section_11_6() {
        let mut out = Vec::new();
        let id = |text: &str| Ident::new(text.as_bytes()).unwrap();
        let reported = Reported { message_id: id("12339sdqwer"), range: ByteRange::parse(b"1-106/106"), code: 200 };
        report(&mut out, &id("dkei38sd"), b"msrp://a:7/i;tcp", b"msrp://b:8/9;tcp", &reported);
        let expected = "MSRP dkei38sd REPORT\r\nTo-Path: msrp://a:7/i;tcp\r\nFrom-Path: msrp://b:8/9;tcp\r\n\
            Message-ID: 12339sdqwer\r\nByte-Range: 1-106/106\r\nStatus: 000 200 OK\r\n-------dkei38sd$\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
