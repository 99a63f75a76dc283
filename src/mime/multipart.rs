//! RFC 2046 §5.1: multipart bodies, as SIP carries them (RFC 5621).
//!
//! Forgiven: LF alone, a boundary without quotes that should have them, a last line that runs straight into the
//! closing boundary, a closing boundary that is missing. Octets of a part are never changed.

use super::content_type::ContentType;
use super::fields::{self, Malformed};
use crate::limits::{MIME_DEPTH_MAX, MIME_PARTS_MAX};
use memchr::memmem;
use std::borrow::Cow;

/// One part: its header fields in order, and its octets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Part {
    /// A part with a Content-Type and, where given, a Content-Disposition.
    pub fn new(content_type: &str, disposition: Option<&str>, body: Vec<u8>) -> Self {
        let mut headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        headers.extend(disposition.map(|value| ("Content-Disposition".to_owned(), value.to_owned())));
        Self { headers, body }
    }

    /// First header field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        fields::find(&self.headers, name)
    }

    /// Content-Type; text/plain where there is none (RFC 2046 §5.1).
    pub fn content_type(&self) -> ContentType {
        ContentType::parse(self.header("Content-Type").unwrap_or("text/plain"))
    }

    /// Disposition without its parameters, lower case: "recipient-list-history".
    pub fn disposition(&self) -> Option<String> {
        self.header("Content-Disposition").map(|value| ContentType::parse(value).essence)
    }

    /// Whether it is of this media type ("application/sdp") without regard to parameters.
    pub fn is(&self, media_type: &str) -> bool {
        self.content_type().essence.eq_ignore_ascii_case(media_type)
    }
}

/// Reads a whole body into its leaf parts, in order: a body that is not multipart is one part; multiparts within
/// multiparts are opened. `disposition` is the message's own Content-Disposition.
///
/// # Errors
/// [`Malformed`] for a multipart without boundary or parts, or more than [`crate::limits`] allows.
pub fn parts_of(content_type: &str, disposition: Option<&str>, body: &[u8]) -> Result<Vec<Part>, Malformed> {
    let mut leaves = Vec::new();
    open(Part::new(content_type, disposition, body.to_vec()), 0, &mut leaves)?;
    Ok(leaves)
}

/// The SDP among leaf parts: `application/sdp`, unless its disposition is neither absent nor "session".
pub fn sdp(parts: &[Part]) -> Option<&Part> {
    parts.iter().find(|part| part.is("application/sdp") && part.disposition().is_none_or(|d| d == "session"))
}

/// Whether a body is an SDP as a whole.
pub fn is_sdp(content_type: &str, disposition: Option<&str>) -> bool {
    let is = |value: &str, wanted: &str| value.split(';').next().unwrap_or("").trim_ascii().eq_ignore_ascii_case(wanted);
    is(content_type, "application/sdp") && disposition.is_none_or(|disposition| is(disposition, "session"))
}

/// The SDP of a whole body; nearly always that is the body itself.
///
/// # Errors
/// As [`parts_of`].
pub fn sdp_in<'b>(content_type: &str, disposition: Option<&str>, body: &'b [u8]) -> Result<Option<Cow<'b, [u8]>>, Malformed> {
    if is_sdp(content_type, disposition) {
        return Ok(Some(Cow::Borrowed(body)));
    }
    let parts = parts_of(content_type, disposition, body)?;
    Ok(sdp(&parts).map(|part| Cow::Owned(part.body.clone())))
}

/// The part of that disposition: "recipient-list" or "recipient-list-history".
pub fn of_disposition<'a>(parts: &'a [Part], disposition: &str) -> Option<&'a Part> {
    parts.iter().find(|part| part.disposition().as_deref() == Some(disposition))
}

fn open(part: Part, depth: usize, leaves: &mut Vec<Part>) -> Result<(), Malformed> {
    if leaves.len() >= MIME_PARTS_MAX {
        return Err(Malformed { at: 0, context: "multipart > number of parts" });
    }
    let content_type = part.content_type();
    if !content_type.is_multipart() {
        leaves.push(part);
        return Ok(());
    }
    if depth >= MIME_DEPTH_MAX {
        return Err(Malformed { at: 0, context: "multipart > depth" });
    }
    let boundary = content_type.parameter("boundary").unwrap_or_default();
    for inner in parse(boundary, &part.body)? {
        open(inner, depth + 1, leaves)?;
    }
    Ok(())
}

/// Splits a multipart body at its boundary.
///
/// # Errors
/// [`Malformed`] where the boundary is empty or longer than 70 characters, or does not occur.
pub fn parse(boundary: &str, body: &[u8]) -> Result<Vec<Part>, Malformed> {
    if boundary.is_empty() || boundary.len() > 70 {
        return Err(Malformed { at: 0, context: "multipart > boundary" });
    }
    let delimiters = delimiters(format!("--{boundary}").as_bytes(), body)?;
    let mut parts = Vec::new();
    for (at, delimiter) in delimiters.iter().enumerate() {
        if delimiter.closing {
            break;
        }
        if parts.len() == MIME_PARTS_MAX {
            return Err(Malformed { at: delimiter.start, context: "multipart > number of parts" });
        }
        let end = delimiters.get(at + 1).map_or(body.len(), |next| next.start);
        let octets = body.get(delimiter.end..end).unwrap_or_default();
        let (headers, body_at) = fields::parse(octets).map_err(|inner| Malformed { at: delimiter.end + inner.at, ..inner })?;
        parts.push(Part { headers, body: octets[body_at..].to_vec() });
    }
    if parts.is_empty() { Err(Malformed { at: 0, context: "multipart > no parts" }) } else { Ok(parts) }
}

/// A delimiter line: `start` is the line end before it, which belongs to it, `end` the first octet behind it.
#[derive(Clone, Copy)]
struct Delimiter {
    start: usize,
    end: usize,
    closing: bool,
}

fn delimiters(dashed: &[u8], body: &[u8]) -> Result<Vec<Delimiter>, Malformed> {
    let mut found: Vec<Delimiter> = Vec::new();
    let mut run_in: Option<Delimiter> = None;
    for at in memmem::find_iter(body, dashed) {
        let Some(delimiter) = delimiter(at, at + dashed.len(), body) else { continue };
        if found.last().is_some_and(|last| last.end > at) {
            continue;
        }
        let begins_line = at == 0 || body[at - 1] == b'\n';
        if begins_line {
            found.push(delimiter);
            if delimiter.closing {
                return Ok(found);
            }
            if found.len() > MIME_PARTS_MAX + 1 {
                return Err(Malformed { at, context: "multipart > number of parts" });
            }
        } else if delimiter.closing {
            run_in = Some(delimiter);
        }
    }
    // One client's SDP has no line end before the closing boundary: a=sendonly--boundary--. It counts only where no
    // closing boundary stands on a line of its own.
    found.extend(run_in.filter(|closing| found.last().is_some_and(|last| last.end <= closing.start)));
    Ok(found)
}

/// RFC 2046 §5.1.1: dash-boundary, perhaps "--", white space, line end. None where the boundary goes on (a longer one).
fn delimiter(start: usize, after: usize, body: &[u8]) -> Option<Delimiter> {
    let closing = body[after..].starts_with(b"--");
    let after = if closing { after + 2 } else { after };
    let padding = body[after..].iter().take_while(|octet| matches!(octet, b' ' | b'\t' | b'\r')).count();
    let end = match body.get(after + padding) {
        None => after + padding,
        Some(b'\n') => after + padding + 1,
        Some(_) if closing => after,
        Some(_) => return None,
    };
    let start = match &body[..start] {
        [.., b'\r', b'\n'] => start - 2,
        [.., b'\n'] => start - 1,
        _ => start,
    };
    Some(Delimiter { start, end, closing })
}

/// A boundary that occurs in no part. `random` makes it differ from message to message.
pub fn boundary(parts: &[Part], random: u64) -> String {
    // Each part can rule out only as many boundaries as it has octets, so the counter comes to an end.
    (random..=u64::MAX)
        .chain(0..random)
        .map(|number| format!("cpm-pf-{number:016x}"))
        .find(|candidate| {
            let finder = memmem::Finder::new(candidate);
            parts.iter().all(|part| finder.find(&part.body).is_none())
        })
        .expect("the parts are shorter than the number of boundaries")
}

/// Writes the parts as a multipart body.
pub fn write(parts: &[Part], boundary: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.body.len() + 256).sum());
    for part in parts {
        out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        fields::write(&part.headers, &mut out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&part.body);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    out
}

/// Content-Type of what [`write`] writes.
pub fn content_type(boundary: &str) -> String {
    format!("multipart/mixed;boundary=\"{boundary}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"preamble\r\n--b1\r\nContent-Type: application/sdp\r\n\r\nv=0\r\no=x\r\n\r\n--b1 \r\n\
        Content-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list; handling=required\r\n\r\n\
        <resource-lists/>\r\n--b1--\r\nepilogue";

    #[test]
    fn sdp_and_recipient_list_are_found() {
        let parts = parts_of("multipart/mixed;boundary=b1", None, BODY).unwrap();
        assert_eq!(parts.len(), 2);
        // The line end before the boundary belongs to the boundary.
        assert_eq!(sdp(&parts).unwrap().body, b"v=0\r\no=x\r\n");
        assert_eq!(of_disposition(&parts, "recipient-list").unwrap().body, b"<resource-lists/>");
        assert_eq!(of_disposition(&parts, "recipient-list-history"), None);
    }

    #[test]
    fn a_last_line_that_runs_into_the_closing_boundary_is_forgiven() {
        let parts = parse("b", b"--b\nContent-Type: application/sdp\n\nv=0\r\na=sendonly--b--").unwrap();
        assert_eq!(parts[0].body, b"v=0\r\na=sendonly");
        let parts = parse("b", b"--b\n\nline--b--\nmore\n--b--").unwrap();
        assert_eq!(parts[0].body, b"line--b--\nmore");
    }

    #[test]
    fn a_missing_closing_boundary_is_forgiven_and_a_longer_one_is_another() {
        let parts = parse("b", b"--b\r\n\r\none\r\n--bb\r\ntwo\r\n--b\r\n\r\nthree").unwrap();
        assert_eq!(parts[0].body, b"one\r\n--bb\r\ntwo");
        assert_eq!(parts[1].body, b"three");
        assert_eq!(parts[0].content_type().essence, "text/plain");
    }

    #[test]
    fn nesting_is_opened_and_bounded() {
        let mut body = b"--b0\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b0--".to_vec();
        for depth in 1..=MIME_DEPTH_MAX {
            let nested = Part::new(&format!("multipart/mixed;boundary=b{}", depth - 1), None, body);
            body = write(&[nested], &format!("b{depth}"));
            let read = parts_of(&format!("multipart/mixed;boundary=b{depth}"), None, &body);
            match depth < MIME_DEPTH_MAX {
                true => assert!(sdp(&read.unwrap()).is_some()),
                false => assert_eq!(read.unwrap_err().context, "multipart > depth"),
            }
        }
        let many = b"--b\r\n\r\n".repeat(MIME_PARTS_MAX + 2);
        assert!(parse("b", &many).is_err());
    }

    #[test]
    fn what_is_written_reads_back_octet_for_octet() {
        let parts = vec![
            Part::new("application/sdp", None, b"v=0\r\n".to_vec()),
            Part::new("application/octet-stream", Some("x"), b"\r\n--cpm-pf-0000000000000007\r\n\0\xff".to_vec()),
        ];
        let boundary = boundary(&parts, 7);
        assert_eq!(boundary, "cpm-pf-0000000000000008");
        assert_eq!(parts_of(&content_type(&boundary), None, &write(&parts, &boundary)).unwrap(), parts);
    }

    #[test]
    fn every_cut_and_every_changed_octet_is_read_without_a_panic() {
        for cut in 0..BODY.len() {
            let _ = parts_of("multipart/mixed;boundary=b1", None, &BODY[..cut]);
            for octet in [0u8, b'-', b'\n', b'\r', b':'] {
                let mut changed = BODY.to_vec();
                changed[cut] = octet;
                let _ = parts_of("multipart/mixed;boundary=b1", None, &changed);
            }
        }
    }

    #[test]
    fn a_body_that_is_not_multipart_is_one_part() {
        let parts = parts_of("application/sdp", None, b"v=0").unwrap();
        assert_eq!(sdp(&parts).unwrap().body, b"v=0");
        assert!(parts_of("multipart/mixed", None, b"--b\r\n\r\nx").is_err());
    }
}
