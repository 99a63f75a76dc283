//! RFC 3261 §7: writing messages. What is not touched is copied as it came.

use super::header::name::Name;
use std::io::Write as _;

/// A message being written into a caller's buffer: start line first, then fields in order, then the body once.
pub struct Writer<'b>(&'b mut Vec<u8>);

impl<'b> Writer<'b> {
    /// Begins a request.
    pub fn request(buffer: &'b mut Vec<u8>, method: &str, uri: &str) -> Self {
        buffer.extend_from_slice(method.as_bytes());
        buffer.push(b' ');
        buffer.extend_from_slice(uri.as_bytes());
        buffer.extend_from_slice(b" SIP/2.0\r\n");
        Self(buffer)
    }

    /// Begins a response; `status` is 100 to 699.
    pub fn response(buffer: &'b mut Vec<u8>, status: u16, reason: &str) -> Self {
        for part in ["SIP/2.0 ", itoa::Buffer::new().format(status), " ", reason, "\r\n"] {
            buffer.extend_from_slice(part.as_bytes());
        }
        Self(buffer)
    }

    /// A field with a name we know.
    pub fn field(&mut self, name: Name, value: &str) -> &mut Self {
        self.named(name.as_str(), value)
    }

    /// A field with its name as text.
    pub fn named(&mut self, name: &str, value: &str) -> &mut Self {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(value.as_bytes());
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// A field as it came: name, colon and value.
    pub fn line(&mut self, field: &str) -> &mut Self {
        self.0.extend_from_slice(field.as_bytes());
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// A field whose value is these parts, one behind the other.
    pub fn parts(&mut self, name: Name, value: &[&str]) -> &mut Self {
        self.with(name, |buffer| value.iter().for_each(|part| buffer.extend_from_slice(part.as_bytes())))
    }

    /// A field whose value is formatted in place.
    pub fn format(&mut self, name: Name, value: std::fmt::Arguments<'_>) -> &mut Self {
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        let _ = self.0.write_fmt(value);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// A field whose value is written in place.
    pub fn with(&mut self, name: Name, value: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.0.extend_from_slice(name.as_str().as_bytes());
        self.0.extend_from_slice(b": ");
        value(self.0);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// Ends a head that has its Content-Length, and writes the body.
    pub fn end(self, body: &[u8]) {
        self.0.extend_from_slice(b"\r\n");
        self.0.extend_from_slice(body);
    }

    /// Ends the head with Content-Length and writes the body; `body` may be empty. Content-Type is the caller's field.
    pub fn body(self, body: &[u8]) {
        for part in ["Content-Length: ", itoa::Buffer::new().format(body.len()), "\r\n\r\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
        self.0.extend_from_slice(body);
    }
}
