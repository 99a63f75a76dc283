//! RFC 4566 §5: writing a session description, in the order of the grammar, each line ended by CRLF.

use super::description::{Attribute, Description, MediaDescription};
use std::fmt::{Display, Formatter, Result};

impl Display for Description {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        line(f, 'v', "0")?;
        line(f, 'o', &self.origin)?;
        line(f, 's', if self.name.is_empty() { "-" } else { &self.name })?;
        others(f, &self.others, |letter| matches!(letter, 'i' | 'u' | 'e' | 'p'))?;
        if let Some(connection) = &self.connection {
            line(f, 'c', connection)?;
        }
        others(f, &self.others, |letter| letter == 'b')?;
        // RFC 4566 §5.9: t= is mandatory; 0 0 is a session without bounds (RFC 3264 §5).
        if self.times.is_empty() {
            line(f, 't', "0 0")?;
        }
        for time in &self.times {
            line(f, 't', time)?;
        }
        others(f, &self.others, |letter| !matches!(letter, 'i' | 'u' | 'e' | 'p' | 'b' | 'c'))?;
        attributes(f, &self.attributes)?;
        self.media.iter().try_for_each(|media| media.fmt(f))
    }
}

impl Display for MediaDescription {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "m={} {}", self.media, self.port)?;
        if let Some(ports) = self.ports {
            write!(f, "/{ports}")?;
        }
        write!(f, " {}", self.protocol)?;
        for format in &self.formats {
            write!(f, " {format}")?;
        }
        f.write_str("\r\n")?;
        others(f, &self.others, |letter| letter == 'i')?;
        if let Some(connection) = &self.connection {
            line(f, 'c', connection)?;
        }
        others(f, &self.others, |letter| letter != 'i')?;
        attributes(f, &self.attributes)
    }
}

fn others(f: &mut Formatter<'_>, lines: &[(char, String)], wanted: impl Fn(char) -> bool) -> Result {
    lines.iter().filter(|(letter, _)| wanted(*letter)).try_for_each(|(letter, value)| line(f, *letter, value))
}

fn attributes(f: &mut Formatter<'_>, attributes: &[Attribute]) -> Result {
    for attribute in attributes {
        match &attribute.value {
            Some(value) => line(f, 'a', &format!("{}:{value}", attribute.name))?,
            None => line(f, 'a', &attribute.name)?,
        }
    }
    Ok(())
}

/// A value cannot bring a line of its own: CR, LF and NUL in it are left out.
fn line(f: &mut Formatter<'_>, letter: char, value: &str) -> Result {
    write!(f, "{letter}=")?;
    for piece in value.split(['\r', '\n', '\0']) {
        f.write_str(piece)?;
    }
    f.write_str("\r\n")
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
