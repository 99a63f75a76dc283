//! CR 8.5: objects of the conversation history (message, session info, group state).

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// An object to be put into a user's message store.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Object {
    /// Whose store: a normalised address.
    pub user: String,
    /// Folder path, outermost first.
    pub folder: Vec<String>,
    /// RFC 5322 header fields in order; Content-Type is among them.
    pub headers: Vec<(String, String)>,
    pub body: Body,
    /// "\\Seen" for what the user sent.
    pub seen: bool,
    pub date_s: u64,
}

/// The body of an [`Object`].
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Body {
    Inline(Vec<u8>),
    /// A spooled file of that many octets; removed when the object is stored.
    File {
        path: PathBuf,
        octets: u64,
    },
}

impl Object {
    /// The header as RFC 5322 writes it, with the blank line. No value can bring a line of its own.
    pub fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        let breaks = |octet: &u8| !matches!(octet, b'\r' | b'\n' | 0);
        for (name, value) in &self.headers {
            head.extend(name.bytes().filter(|octet| breaks(octet) && *octet != b':'));
            head.extend_from_slice(b": ");
            head.extend(value.bytes().filter(breaks));
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// First value of a header field, without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Body {
    /// Octets of the body.
    pub fn octets(&self) -> u64 {
        match self {
            Self::Inline(octets) => octets.len() as u64,
            Self::File { octets, .. } => *octets,
        }
    }
}

/// A folder or user name as one path segment of the embedded history: letters, digits and a few marks stand for
/// themselves, all else is percent-encoded, a leading dot too.
pub fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, octet) in name.bytes().enumerate() {
        match octet {
            b'.' if at == 0 => out.push_str("%2E"),
            b'.' | b'-' | b'_' | b'@' | b'+' | b':' | b'=' => out.push(char::from(octet)),
            octet if octet.is_ascii_alphanumeric() => out.push(char::from(octet)),
            octet => out.push_str(&format!("%{octet:02X}")),
        }
    }
    if out.is_empty() { "%".to_owned() } else { out }
}

/// Name of an object's file in the embedded history, as Maildir names messages: "1706781600.U17.S412.4f…:2,S".
pub fn file_name(object: &Object, uid: u32, size: u64, unique: u64) -> String {
    let seen = if object.seen { "S" } else { "" };
    format!("{}.U{uid}.S{size}.{unique:016x}:2,{seen}", object.date_s)
}

/// The UID in a name of [`file_name`].
pub fn uid_of(file_name: &str) -> Option<u32> {
    file_name.split('.').nth(1)?.strip_prefix('U')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Object {
        Object {
            user: "sip:bob@example.net".into(),
            folder: vec!["Default".into()],
            headers: vec![("From".into(), "a\r\nEvil: b".into()), ("Content-Type".into(), "Message/CPIM".into())],
            body: Body::Inline(b"x".to_vec()),
            seen: true,
            date_s: 1_706_781_600,
        }
    }

    #[test]
    fn a_value_cannot_bring_a_line_of_its_own() {
        assert_eq!(object().head(), b"From: aEvil: b\r\nContent-Type: Message/CPIM\r\n\r\n");
        assert_eq!(object().header("content-type"), Some("Message/CPIM"));
    }

    #[test]
    fn names_of_folders_and_files_are_safe_and_tell_the_uid() {
        assert_eq!(segment("tel:+15551230001"), "tel:+15551230001");
        assert_eq!(segment("../a b/\u{e9}"), "%2E.%2Fa%20b%2F%C3%A9");
        assert_eq!(segment(""), "%");
        let name = file_name(&object(), 17, 412, 0xab);
        assert_eq!(name, "1706781600.U17.S412.00000000000000ab:2,S");
        assert_eq!(uid_of(&name), Some(17));
        assert_eq!(uid_of("index"), None);
    }
}
