//! RFC 2046 §5.1: multipart bodies.

/// One part: its header fields in order, and its octets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}
