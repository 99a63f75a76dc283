//! RFC 4566 §5 and §9: reading a session description; strict in what matters, forgiving in what endpoints get wrong.
//!
//! Forgiven: LF alone as line end, a missing last line end, blank lines, missing `s=` and `t=`, lines out of order,
//! type letters that RFC 4566 does not know (kept), octets that are not UTF-8 (replaced).

use super::description::{Attribute, Description, MediaDescription};
use super::text::Text;
use crate::limits::{SDP_LINES_MAX, SDP_MEDIA_MAX, SDP_OCTETS_MAX};
use std::rc::Rc;

/// Octets that are not SDP: where, and in which production.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Octet offset of the line in what was read.
    pub at: usize,
    /// The production that failed, "media > port".
    pub context: &'static str,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sdp > {} at octet {}", self.context, self.at)
    }
}

impl std::error::Error for Malformed {}

impl Description {
    /// Reads an SDP body.
    ///
    /// # Errors
    /// [`Malformed`] where the octets are not a session description, or are more than [`crate::limits`] allows.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        if body.len() > SDP_OCTETS_MAX {
            return Err(Malformed { at: SDP_OCTETS_MAX, context: "size" });
        }
        let mut reader = Reader::default();
        // Nearly all is UTF-8 as a whole; of what is not, the lines that are not are read with replacements.
        let whole: Option<Rc<str>> = std::str::from_utf8(body).ok().map(Rc::from);
        let (mut at, mut count) = (0, 0);
        while at <= body.len() {
            if count >= SDP_LINES_MAX {
                return Err(Malformed { at, context: "number of lines" });
            }
            let end = memchr::memchr(b'\n', &body[at..]).map_or(body.len(), |length| at + length);
            let line = body[at..end].strip_suffix(b"\r").unwrap_or(&body[at..end]);
            // A blank line ends nothing in SDP; several senders put one behind the last line.
            if !line.trim_ascii().is_empty() {
                let read = match &whole {
                    Some(whole) => reader.line(whole, &whole[at..at + line.len()]),
                    None => {
                        let line: Rc<str> = String::from_utf8_lossy(line).into();
                        reader.line(&line, &line)
                    }
                };
                read.map_err(|context| Malformed { at, context })?;
            }
            (at, count) = (end + 1, count + 1);
        }
        reader.finish().map_err(|context| Malformed { at: body.len(), context })
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    description: Description,
    version: bool,
    origin: bool,
}

impl Reader {
    /// One line, cut from `whole`.
    fn line(&mut self, whole: &Rc<str>, line: &str) -> Result<(), &'static str> {
        let (letter, value) = type_and_value(line)?;
        if !self.version {
            // RFC 4566 §5.1: the first line, and only version 0 exists.
            self.version = letter == 'v' && value.trim_ascii() == "0";
            return if self.version { Ok(()) } else { Err("proto-version") };
        }
        if letter == 'm' {
            if self.description.media.len() >= SDP_MEDIA_MAX {
                return Err("number of media descriptions");
            }
            self.description.media.push(media(whole, value)?);
            return Ok(());
        }
        match self.description.media.last_mut() {
            Some(media) => media_level(media, letter, whole, value),
            None => self.session_level(letter, whole, value),
        }
    }

    fn session_level(&mut self, letter: char, whole: &Rc<str>, value: &str) -> Result<(), &'static str> {
        let description = &mut self.description;
        let text = || Text::piece(whole, value);
        match letter {
            'v' => return Err("proto-version > twice"),
            'o' => {
                // username sess-id sess-version nettype addrtype unicast-address
                if value.split_ascii_whitespace().count() < 6 {
                    return Err("origin-field");
                }
                description.origin = text();
                self.origin = true;
            }
            's' => description.name = text(),
            'c' if description.connection.is_none() => description.connection = Some(text()),
            't' => description.times.push(text()),
            'a' => description.attributes.push(attribute(whole, value)?),
            other => description.others.push((other, text())),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Description, &'static str> {
        if !self.version {
            return Err("proto-version");
        }
        if !self.origin {
            return Err("origin-field");
        }
        // RFC 4566 §5.3: "-" is what a session without a name is called.
        if self.description.name.is_empty() {
            self.description.name = "-".into();
        }
        if self.description.times.is_empty() {
            self.description.times.push("0 0".into());
        }
        Ok(self.description)
    }
}

fn type_and_value(text: &str) -> Result<(char, &str), &'static str> {
    // RFC 4566 §9: byte-string is any octet but NUL, CR and LF.
    if memchr::memchr2(b'\r', 0, text.as_bytes()).is_some() {
        return Err("byte-string");
    }
    match text.as_bytes() {
        [letter @ b'a'..=b'z', b'=', ..] => Ok((char::from(*letter), &text[2..])),
        [_, b'=', ..] => Err("type"),
        _ => Err("type=value"),
    }
}

fn media_level(media: &mut MediaDescription, letter: char, whole: &Rc<str>, value: &str) -> Result<(), &'static str> {
    let text = || Text::piece(whole, value);
    match letter {
        'a' => media.attributes.push(attribute(whole, value)?),
        'c' if media.connection.is_none() => media.connection = Some(text()),
        other => media.others.push((other, text())),
    }
    Ok(())
}

fn attribute(whole: &Rc<str>, value: &str) -> Result<Attribute, &'static str> {
    let (name, value) = match memchr::memchr(b':', value.as_bytes()) {
        Some(at) => (&value[..at], Some(Text::piece(whole, &value[at + 1..]))),
        None => (value, None),
    };
    let name = name.trim_ascii();
    if name.is_empty() {
        return Err("attribute");
    }
    Ok(Attribute { name: Text::piece(whole, name), value })
}

/// `m=` (RFC 4566 §5.14): media SP port ["/" integer] SP proto 1*(SP fmt). An endpoint leaves the format of
/// `TCP/MSRP` away; it is read as none.
fn media(whole: &Rc<str>, value: &str) -> Result<MediaDescription, &'static str> {
    let mut words = value.split_ascii_whitespace();
    let media = words.next().ok_or("media")?;
    let port = words.next().ok_or("media > port")?;
    let protocol = words.next().ok_or("media > proto")?;
    let (port, ports) = match port.split_once('/') {
        Some((port, count)) => (port, Some(count.parse().map_err(|_| "media > number of ports")?)),
        None => (port, None),
    };
    Ok(MediaDescription {
        media: Text::piece(whole, media),
        port: port.parse().map_err(|_| "media > port")?,
        ports,
        protocol: Text::piece(whole, protocol),
        formats: words.map(|word| Text::piece(whole, word)).collect(),
        // An m-line of MSRP has six to ten.
        attributes: Vec::with_capacity(12),
        ..MediaDescription::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=alice 2890844526 2890844527 IN IP4 alice.example.com\r\ns=-\r\nc=IN IP4 192.0.2.7\r\n\
        t=0 0\r\na=tool:x\r\nm=message 7654 TCP/MSRP *\r\ni=a file\r\na=accept-types:message/cpim\r\n\
        a=path:msrp://192.0.2.7:7654/jshA7weztas;tcp\r\na=sendonly\r\n";

    #[test]
    fn an_offer_is_read_and_printed_back_as_it_came() {
        let read = Description::parse(OFFER.as_bytes()).unwrap();
        assert_eq!(read.origin, "alice 2890844526 2890844527 IN IP4 alice.example.com");
        assert_eq!(read.media[0].port, 7654);
        assert_eq!(read.media[0].formats, ["*"]);
        assert_eq!(read.media[0].others, [('i', Text::from("a file"))]);
        assert_eq!(read.to_string(), OFFER);
    }

    #[test]
    fn lf_alone_and_a_missing_last_line_end_are_forgiven() {
        let text = OFFER.replace("\r\n", "\n");
        assert_eq!(Description::parse(text.trim_end().as_bytes()), Description::parse(OFFER.as_bytes()));
        let blank = format!("{OFFER}\r\n\r\n");
        assert_eq!(Description::parse(blank.as_bytes()), Description::parse(OFFER.as_bytes()));
    }

    #[test]
    fn what_is_not_sdp_says_where() {
        let cases: [(&str, &str); 8] = [
            ("", "proto-version"),
            ("hello", "type=value"),
            ("v=1\r\n", "proto-version"),
            ("o=- 1 1 IN IP4 a\r\n", "proto-version"),
            ("v=0\r\ns=-\r\n", "origin-field"),
            ("v=0\r\no=- 1 1\r\n", "origin-field"),
            ("v=0\r\no=- 1 1 IN IP4 a\r\nm=message 70000 TCP/MSRP *\r\n", "media > port"),
            ("v=0\r\no=- 1 1 IN IP4 a\r\nm=message 9\r\n", "media > proto"),
        ];
        for (text, context) in cases {
            assert_eq!(Description::parse(text.as_bytes()).unwrap_err().context, context, "{text:?}");
        }
    }

    #[test]
    fn every_cut_and_every_changed_octet_is_read_without_a_panic() {
        for cut in 0..OFFER.len() {
            let _ = Description::parse(&OFFER.as_bytes()[..cut]);
            for octet in [0u8, b'=', b'\r', b'\n', 0xff] {
                let mut changed = OFFER.as_bytes().to_vec();
                changed[cut] = octet;
                if let Ok(read) = Description::parse(&changed) {
                    assert_eq!(Description::parse(read.to_string().as_bytes()).as_ref(), Ok(&read));
                }
            }
        }
    }

    #[test]
    fn bounds_hold() {
        let head = "v=0\r\no=- 1 1 IN IP4 a\r\n";
        let many = format!("{head}{}", "m=message 9 TCP/MSRP *\r\n".repeat(SDP_MEDIA_MAX + 1));
        assert_eq!(Description::parse(many.as_bytes()).unwrap_err().context, "number of media descriptions");
        let long = format!("{head}{}", "a=x\r\n".repeat(SDP_LINES_MAX));
        assert_eq!(Description::parse(long.as_bytes()).unwrap_err().context, "number of lines");
    }
}
