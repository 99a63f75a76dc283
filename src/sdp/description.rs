//! RFC 4566: a session description, as lines that print back as they came.

/// A whole description. Values are without their "x=" and line end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// `o=`.
    pub origin: String,
    /// `s=`.
    pub name: String,
    /// `c=` at session level.
    pub connection: Option<String>,
    /// Session-level lines other than v, o, s, c, t, a, in order: type letter and value.
    pub others: Vec<(char, String)>,
    /// `t=` lines.
    pub times: Vec<String>,
    pub attributes: Vec<Attribute>,
    pub media: Vec<MediaDescription>,
}

/// `a=name` or `a=name:value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    pub name: String,
    pub value: Option<String>,
}

/// One m-line with what follows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MediaDescription {
    /// "message", lower case as compared; kept as written.
    pub media: String,
    pub port: u16,
    /// The "/count" after the port, where there is one.
    pub ports: Option<u32>,
    /// "TCP/MSRP".
    pub protocol: String,
    pub formats: Vec<String>,
    pub connection: Option<String>,
    /// Lines other than c and a, in order.
    pub others: Vec<(char, String)>,
    pub attributes: Vec<Attribute>,
}
