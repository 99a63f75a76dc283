//! RFC 4975 §7.1, §7.2: what we write: responses, reports, heads and end-lines.

use crate::msrp::chunk::{ByteRange, Continuation};
use crate::msrp::ident::Ident;
use crate::msrp::status;

/// A response. `to` is the previous hop's URI (for SEND) or the whole path (other methods), `from` our URI on that leg.
pub fn response(out: &mut Vec<u8>, tid: &Ident, code: u16, to: &[u8], from: &[u8]) {
    out.extend_from_slice(b"MSRP ");
    out.extend_from_slice(tid.as_bytes());
    out.push(b' ');
    number(out, u64::from(code));
    out.push(b' ');
    out.extend_from_slice(status::phrase(code).as_bytes());
    paths(out, to, from);
    bare_end_line(out, tid, Continuation::Complete);
}

/// Start line, To-Path and From-Path of a request; the CRLF of From-Path stands at the end.
pub fn request_start(out: &mut Vec<u8>, tid: &Ident, method: &[u8], to: &[u8], from: &[u8]) {
    out.extend_from_slice(b"MSRP ");
    out.extend_from_slice(tid.as_bytes());
    out.push(b' ');
    out.extend_from_slice(method);
    paths(out, to, from);
}

fn paths(out: &mut Vec<u8>, to: &[u8], from: &[u8]) {
    out.extend_from_slice(b"\r\nTo-Path: ");
    out.extend_from_slice(to);
    out.extend_from_slice(b"\r\nFrom-Path: ");
    out.extend_from_slice(from);
    out.extend_from_slice(b"\r\n");
}

/// `Message-ID: …`
pub fn message_id(out: &mut Vec<u8>, id: &[u8]) {
    out.extend_from_slice(b"Message-ID: ");
    out.extend_from_slice(id);
    out.extend_from_slice(b"\r\n");
}

/// `Byte-Range: start-end/total`, `*` for what is not known.
pub fn byte_range(out: &mut Vec<u8>, range: ByteRange) {
    out.extend_from_slice(b"Byte-Range: ");
    number(out, range.start);
    out.push(b'-');
    number_or_star(out, range.end);
    out.push(b'/');
    number_or_star(out, range.total);
    out.extend_from_slice(b"\r\n");
}

/// The end-line behind a body: CRLF first.
pub fn end_line(out: &mut Vec<u8>, tid: &Ident, flag: Continuation) {
    out.extend_from_slice(b"\r\n");
    bare_end_line(out, tid, flag);
}

/// The end-line of a request without body.
pub fn bare_end_line(out: &mut Vec<u8>, tid: &Ident, flag: Continuation) {
    out.extend_from_slice(b"-------");
    out.extend_from_slice(tid.as_bytes());
    out.extend_from_slice(&[flag.flag(), b'\r', b'\n']);
}

fn number_or_star(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        Some(value) => number(out, value),
        None => out.push(b'*'),
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_written_as_in_section_7_2() {
        let mut out = Vec::new();
        response(&mut out, &Ident::new(b"d93kswow").unwrap(), 200, b"msrp://a:9/x;tcp", b"msrp://p:1/y;tcp");
        assert_eq!(
            out,
            b"MSRP d93kswow 200 OK\r\nTo-Path: msrp://a:9/x;tcp\r\nFrom-Path: msrp://p:1/y;tcp\r\n-------d93kswow$\r\n"
        );
    }

    #[test]
    fn byte_ranges_print_as_they_read() {
        for text in ["1-25/25", "1-*/8", "5-8/*", "1-*/*", "1-0/0", "18446744073709551614-*/18446744073709551615"] {
            let mut out = Vec::new();
            byte_range(&mut out, ByteRange::parse(text.as_bytes()).unwrap());
            assert_eq!(out, format!("Byte-Range: {text}\r\n").into_bytes());
        }
    }
}
