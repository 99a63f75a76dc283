//! RFC 4566: a session description, as lines that print back as they came.

use super::text::Text;

/// A whole description. Values are without their "x=" and line end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// `o=`.
    pub origin: Text,
    /// `s=`.
    pub name: Text,
    /// `c=` at session level.
    pub connection: Option<Text>,
    /// Session-level lines other than v, o, s, c, t, a, in order: type letter and value.
    pub others: Vec<(char, Text)>,
    /// `t=` lines.
    pub times: Vec<Text>,
    pub attributes: Vec<Attribute>,
    pub media: Vec<MediaDescription>,
}

/// `a=name` or `a=name:value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    pub name: Text,
    pub value: Option<Text>,
}

/// One m-line with what follows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MediaDescription {
    /// "message", lower case as compared; kept as written.
    pub media: Text,
    pub port: u16,
    /// The "/count" after the port, where there is one.
    pub ports: Option<u32>,
    /// "TCP/MSRP".
    pub protocol: Text,
    pub formats: Vec<Text>,
    pub connection: Option<Text>,
    /// Lines other than c and a, in order.
    pub others: Vec<(char, Text)>,
    pub attributes: Vec<Attribute>,
}

/// `c=` (RFC 4566 §5.7) without the TTL and count that multicast adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection<'a> {
    /// "IP4" or "IP6".
    pub address_type: &'a str,
    /// A literal address, or a host name.
    pub address: &'a str,
}

impl<'a> Connection<'a> {
    /// Reads "IN IP4 192.0.2.1"; None where it is not of that form.
    pub fn of(value: &'a str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let (Some(_net), Some(address_type), Some(address)) = (words.next(), words.next(), words.next()) else {
            return None;
        };
        let address = address.split('/').next().unwrap_or(address);
        Some(Self { address_type, address })
    }

    /// The address where it is a literal.
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        self.address.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

impl Attribute {
    /// `a=name`.
    pub fn flag(name: &'static str) -> Self {
        Self { name: name.into(), value: None }
    }

    /// `a=name:value`.
    pub fn new(name: &'static str, value: impl Into<Text>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }

    /// RFC 4566 §5.13 compares names octet by octet; an upper-case letter is forgiven.
    pub fn is(&self, name: &str) -> bool {
        self.name.len() == name.len() && self.name.eq_ignore_ascii_case(name)
    }
}

impl Description {
    /// First attribute of that name at session level.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.is(name))
    }

    /// `c=` that holds for an m-line: its own, else the session's (RFC 4566 §5.7).
    pub fn connection_of<'a>(&'a self, media: &'a MediaDescription) -> Option<Connection<'a>> {
        Connection::of(media.connection.as_deref().or(self.connection.as_deref())?)
    }

    /// Value of an attribute that may stand at either level; the m-line's own wins.
    pub fn value_for<'a>(&'a self, media: &'a MediaDescription, name: &str) -> Option<&'a str> {
        match media.attribute(name) {
            Some(own) => own.value.as_deref(),
            None => self.attribute(name)?.value.as_deref(),
        }
        .map(str::trim_ascii)
    }
}

impl MediaDescription {
    /// First attribute of that name on this m-line.
    pub fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.is(name))
    }

    /// Whether the attribute is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// Value of the first attribute of that name, without space around it.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.attribute(name)?.value.as_deref().map(str::trim_ascii)
    }

    /// All attributes of that name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Attribute> {
        self.attributes.iter().filter(move |a| a.is(name))
    }

    /// Gives the attribute this value where its first occurrence stands (at the end where there is none); others go.
    pub fn set(&mut self, name: &'static str, value: impl Into<Text>) {
        self.put(Attribute::new(name, value));
    }

    /// Makes `a=name` stand exactly once.
    pub fn set_flag(&mut self, name: &'static str) {
        self.put(Attribute::flag(name));
    }

    /// Removes every attribute of that name.
    pub fn remove(&mut self, name: &str) {
        self.attributes.retain(|a| !a.is(name));
    }

    fn put(&mut self, attribute: Attribute) {
        let name = attribute.name.clone();
        let mut new = Some(attribute);
        self.attributes.retain_mut(|old| match new.take_if(|_| old.is(&name)) {
            Some(new) => {
                *old = new;
                true
            }
            None => !old.is(&name),
        });
        self.attributes.extend(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_keeps_the_place_and_leaves_one() {
        let attributes = vec![Attribute::new("path", "a"), Attribute::flag("sendonly"), Attribute::new("Path", "b")];
        let mut media = MediaDescription { attributes, ..Default::default() };
        media.set("path", "c");
        media.set_flag("msrp-cema");
        media.set_flag("msrp-cema");
        let names: Vec<_> = media.attributes.iter().map(|a| (a.name.as_str(), a.value.as_deref())).collect();
        assert_eq!(names, [("path", Some("c")), ("sendonly", None), ("msrp-cema", None)]);
        media.remove("PATH");
        assert!(!media.has("path"));
    }

    #[test]
    fn the_m_lines_own_connection_wins() {
        let mut description = Description { connection: Some("IN IP4 192.0.2.1/127".into()), ..Description::default() };
        description.media.push(MediaDescription::default());
        description.media.push(MediaDescription { connection: Some("IN IP6 2001:db8::1".into()), ..Default::default() });
        let of = |i: usize| description.connection_of(&description.media[i]).and_then(|c| c.ip()).map(|ip| ip.to_string());
        assert_eq!(of(0).as_deref(), Some("192.0.2.1"));
        assert_eq!(of(1).as_deref(), Some("2001:db8::1"));
        assert_eq!(Connection::of("IN IP4"), None);
    }
}
