//! RFC 4566 §5: writing a session description, in the order of the grammar, each line ended by CRLF.

use super::description::{Attribute, Description, MediaDescription};
use super::text::Text;
use std::fmt::{Display, Formatter, Result};

impl Display for Description {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&self.written())
    }
}

impl Description {
    /// The whole description.
    pub fn written(&self) -> String {
        let mut text = String::with_capacity(512);
        self.write(&mut text);
        text
    }

    /// Appends the whole description.
    pub fn write(&self, out: &mut String) {
        self.write_head(&self.origin, self.connection.as_deref(), out);
        self.media.iter().for_each(|media| media.write(out));
    }

    /// Appends what stands above the m-lines, with another `o=` and `c=`.
    pub fn write_head(&self, origin: &str, connection: Option<&str>, out: &mut String) {
        line(out, 'v', "0");
        line(out, 'o', origin);
        line(out, 's', if self.name.is_empty() { "-" } else { &self.name });
        others(out, &self.others, |letter| matches!(letter, 'i' | 'u' | 'e' | 'p'));
        if let Some(connection) = connection {
            line(out, 'c', connection);
        }
        others(out, &self.others, |letter| letter == 'b');
        // RFC 4566 §5.9: t= is mandatory; 0 0 is a session without bounds (RFC 3264 §5).
        if self.times.is_empty() {
            line(out, 't', "0 0");
        }
        self.times.iter().for_each(|time| line(out, 't', time));
        others(out, &self.others, |letter| !matches!(letter, 'i' | 'u' | 'e' | 'p' | 'b' | 'c'));
        attributes(out, &self.attributes);
    }
}

impl Display for MediaDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

impl MediaDescription {
    /// Appends the m-line and what follows it.
    pub fn write(&self, out: &mut String) {
        out.push_str("m=");
        out.push_str(&self.media);
        out.push(' ');
        out.push_str(itoa::Buffer::new().format(self.port));
        if let Some(ports) = self.ports {
            out.push('/');
            out.push_str(itoa::Buffer::new().format(ports));
        }
        for word in std::iter::once(&self.protocol).chain(&self.formats) {
            out.push(' ');
            out.push_str(word);
        }
        out.push_str("\r\n");
        others(out, &self.others, |letter| letter == 'i');
        if let Some(connection) = &self.connection {
            line(out, 'c', connection);
        }
        others(out, &self.others, |letter| letter != 'i');
        attributes(out, &self.attributes);
    }
}

fn others(out: &mut String, lines: &[(char, Text)], wanted: impl Fn(char) -> bool) {
    lines.iter().filter(|(letter, _)| wanted(*letter)).for_each(|(letter, value)| line(out, *letter, value));
}

fn attributes(out: &mut String, attributes: &[Attribute]) {
    for attribute in attributes {
        out.push_str("a=");
        plain(out, &attribute.name);
        if let Some(value) = &attribute.value {
            out.push(':');
            plain(out, value);
        }
        out.push_str("\r\n");
    }
}

fn line(out: &mut String, letter: char, value: &str) {
    out.push(letter);
    out.push('=');
    plain(out, value);
    out.push_str("\r\n");
}

/// A value cannot bring a line of its own: CR, LF and NUL in it are left out.
fn plain(out: &mut String, value: &str) {
    match memchr::memchr3(b'\r', b'\n', 0, value.as_bytes()) {
        None => out.push_str(value),
        Some(_) => out.extend(value.chars().filter(|letter| !matches!(letter, '\r' | '\n' | '\0'))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_in_the_order_of_the_grammar() {
        let description = Description {
            origin: "- 1 1 IN IP4 192.0.2.1".into(),
            connection: Some("IN IP4 192.0.2.1".into()),
            others: vec![('k', "prompt".into()), ('b', "AS:64".into()), ('i', "info".into()), ('r', "1 2 3".into())],
            attributes: vec![Attribute::flag("recvonly")],
            media: vec![MediaDescription {
                media: "message".into(),
                port: 0,
                protocol: "TCP/MSRP".into(),
                formats: vec!["*".into()],
                connection: Some("IN IP4 192.0.2.2".into()),
                others: vec![('b', "AS:1".into()), ('i', "m".into())],
                ..Default::default()
            }],
            ..Default::default()
        };
        let letters: String = description.to_string().lines().filter_map(|l| l.chars().next()).collect();
        assert_eq!(letters, "vosicbtkramicb");
    }

    #[test]
    fn a_value_cannot_bring_a_line_of_its_own() {
        let description = Description { name: "x\r\na=evil".into(), origin: "- 1 1 IN IP4 a".into(), ..Default::default() };
        assert!(description.to_string().contains("s=xa=evil\r\n"));
    }
}
