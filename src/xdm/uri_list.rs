//! RFC 4826: a URI list with its references resolved.

/// Members of a list.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct UriList {
    /// URIs as written.
    pub entries: Vec<String>,
}
