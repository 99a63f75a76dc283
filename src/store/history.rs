//! CR 8.5: objects of the conversation history (message, session info, group state).

use std::path::PathBuf;

/// An object to be put into a user's message store.
#[derive(Clone, PartialEq, Debug)]
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
#[derive(Clone, PartialEq, Debug)]
pub enum Body {
    Inline(Vec<u8>),
    /// A spooled file of that many octets; removed when the object is stored.
    File {
        path: PathBuf,
        octets: u64,
    },
}
