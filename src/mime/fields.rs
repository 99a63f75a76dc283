//! RFC 5322 §2.2 as RFC 2045 and RFC 3862 use it: header fields, and the blank line behind them.

use crate::limits::{MIME_FIELDS_MAX, MIME_HEAD_OCTETS_MAX};

/// Octets that are not what the MIME type says: where, and in which production.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Octet offset in what was read.
    pub at: usize,
    /// The production that failed, "multipart > boundary".
    pub context: &'static str,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at octet {}", self.context, self.at)
    }
}

impl std::error::Error for Malformed {}

/// Header fields in order: name and value, a folded value on one line.
pub type Fields = Vec<(String, String)>;

/// Reads header fields up to and with the blank line; gives them and the offset of what follows. A head without a
/// blank line is the whole of the octets. Octets that are not UTF-8 are replaced.
///
/// # Errors
/// [`Malformed`] for a line without a colon, or more than [`crate::limits`] allows.
pub fn parse(octets: &[u8]) -> Result<(Fields, usize), Malformed> {
    let mut fields: Fields = Vec::new();
    let mut at = 0;
    while at < octets.len() {
        let end = memchr::memchr(b'\n', &octets[at..]).map_or(octets.len(), |found| at + found + 1);
        let line = line_of(&octets[at..end]);
        if line.is_empty() {
            return Ok((fields, end));
        }
        if end > MIME_HEAD_OCTETS_MAX {
            return Err(Malformed { at, context: "header > size" });
        }
        let text = String::from_utf8_lossy(line);
        let full = fields.len() == MIME_FIELDS_MAX;
        match fields.last_mut() {
            // RFC 5322 §2.2.3: a line that begins with white space goes on with the field before it.
            Some((_, value)) if line[0] == b' ' || line[0] == b'\t' => {
                let more = read(&text);
                value.push_str(if value.is_empty() || more.is_empty() { "" } else { " " });
                value.push_str(&more);
            }
            _ if full => return Err(Malformed { at, context: "header > number of fields" }),
            _ => fields.push(field(&text).ok_or(Malformed { at, context: "header > field-name" })?),
        }
        at = end;
    }
    Ok((fields, octets.len()))
}

/// First value of that name, without regard to case.
pub fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Writes the fields without the blank line. A value cannot bring a line of its own.
pub fn write(fields: &[(String, String)], out: &mut Vec<u8>) {
    for (name, value) in fields {
        let clean = |text: &str, out: &mut Vec<u8>| out.extend(text.bytes().filter(|octet| !matches!(octet, b'\r' | b'\n')));
        clean(name, out);
        out.extend_from_slice(b": ");
        clean(value, out);
        out.extend_from_slice(b"\r\n");
    }
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim_end();
    let token = !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_graphic());
    token.then(|| (name.to_owned(), read(value)))
}

/// A value as it will be written: without a CR amid it. Else whoever reads what we write could see another Content-Type than we did.
fn read(value: &str) -> String {
    value.replace('\r', "").trim().to_owned()
}

/// The line without its end, CRLF or LF.
fn line_of(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_lines_are_one_field_and_lf_alone_ends_a_line() {
        let (fields, body_at) = parse(b"Subject: one\r\n two\nContent-Type :text/plain\r\n\r\nbody").unwrap();
        assert_eq!(find(&fields, "subject"), Some("one two"));
        assert_eq!(find(&fields, "content-type"), Some("text/plain"));
        assert_eq!(body_at, 47);
    }

    #[test]
    fn a_value_is_read_as_it_is_written() {
        let (fields, _) = parse(b"Content-Type: multi\rpart/mixed;\r\n bound\rary=x\r\nSubject:\r\n one\r\n \r\n\r\n").unwrap();
        assert_eq!(find(&fields, "content-type"), Some("multipart/mixed; boundary=x"));
        assert_eq!(find(&fields, "subject"), Some("one"));
        let mut written = Vec::new();
        write(&fields, &mut written);
        assert_eq!(parse(&written).unwrap().0, fields);
    }

    #[test]
    fn what_is_no_field_says_where() {
        assert_eq!(parse(b"A: b\r\nnot a field\r\n").unwrap_err(), Malformed { at: 6, context: "header > field-name" });
        assert_eq!(parse(b" folded onto nothing\r\n").unwrap_err().context, "header > field-name");
        let many = "A: b\r\n".repeat(MIME_FIELDS_MAX + 1);
        assert_eq!(parse(many.as_bytes()).unwrap_err().context, "header > number of fields");
        let long = format!("A: {}\r\n", "b".repeat(MIME_HEAD_OCTETS_MAX));
        assert_eq!(parse(long.as_bytes()).unwrap_err().context, "header > size");
    }
}
