//! XML 1.0 as peers may send it: no DTD, bounded in octets, nodes and depth.

use crate::limits::{XML_DEPTH_MAX, XML_NODES_MAX, XML_OCTETS_MAX};
use quick_xml::events::Event;
use roxmltree::{Document, Node, ParsingOptions};

/// Octets that are not the document they should be: where, and in which production.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Line and column, from 1; 0 where the document as a whole is meant.
    pub line: u32,
    pub column: u32,
    pub context: &'static str,
}

impl Malformed {
    /// About the document as a whole.
    pub const fn whole(context: &'static str) -> Self {
        Self { line: 0, column: 0, context }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at line {} column {}", self.context, self.line, self.column)
    }
}

impl std::error::Error for Malformed {}

/// The text of a document, without a byte order mark.
///
/// # Errors
/// [`Malformed`] where it is longer than we read, or not UTF-8 (RFC 4826 §3.1 and RFC 4745 §13 know no other).
pub fn text(octets: &[u8]) -> Result<&str, Malformed> {
    if octets.len() > XML_OCTETS_MAX {
        return Err(Malformed::whole("xml > size"));
    }
    let text = std::str::from_utf8(octets).map_err(|_| Malformed::whole("xml > encoding"))?;
    Ok(text.trim_start_matches('\u{feff}').trim_start())
}

/// Parses it. A DTD is refused, so no entity can grow; the depth is measured first, since the parser recurses.
///
/// # Errors
/// [`Malformed`] where it is not well-formed, has too many nodes, or is too deep.
pub fn parse(text: &str) -> Result<Document<'_>, Malformed> {
    measure(text)?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: XML_NODES_MAX };
    Document::parse_with_options(text, options).map_err(|error| {
        let at = error.pos();
        Malformed { line: at.row, column: at.col, context: "xml" }
    })
}

/// Walks over the tags without building anything.
fn measure(text: &str) -> Result<(), Malformed> {
    let mut reader = quick_xml::Reader::from_str(text);
    let mut depth = 0usize;
    loop {
        match reader.read_event().map_err(|_| Malformed::whole("xml"))? {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::DocType(_) => return Err(Malformed::whole("xml > DTD")),
            Event::Eof => return Ok(()),
            _ => {}
        }
        if depth > XML_DEPTH_MAX {
            return Err(Malformed::whole("xml > depth"));
        }
    }
}

/// Value of the attribute with that local name, whatever its prefix.
pub fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.attributes().find(|attribute| attribute.name() == name).map(|attribute| attribute.value())
}

/// Child elements.
pub fn elements<'a, 'input: 'a>(node: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(Node::is_element)
}

/// Local name of an element.
pub fn name<'a>(node: Node<'a, '_>) -> &'a str {
    node.tag_name().name()
}

/// Its own text, without the text of child elements and the space around it.
pub fn own_text(node: Node<'_, '_>) -> String {
    let pieces: String = node.children().filter(Node::is_text).filter_map(|text| text.text()).collect();
    pieces.trim().to_owned()
}

/// Whether the text begins with a scheme and a colon (RFC 3986 §3.1).
pub fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut letters = scheme.chars();
    let starts = letters.next().is_some_and(|c| c.is_ascii_alphabetic());
    starts && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) && !rest.is_empty()
}

/// Text as an attribute value between double quotes.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dtd_and_a_document_too_large_are_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
        assert_eq!(parse(bomb).unwrap_err().context, "xml > DTD");
        assert_eq!(text(&vec![b' '; XML_OCTETS_MAX + 1]).unwrap_err().context, "xml > size");
        assert_eq!(text(b"\xff\xfe<\0").unwrap_err().context, "xml > encoding");
        assert!(parse(&format!("<a>{}</a>", "<b/>".repeat(XML_NODES_MAX as usize))).is_err());
    }

    #[test]
    fn depth_does_not_overflow_the_stack() {
        let deep = |count: usize| format!("{}{}", "<a>".repeat(count), "</a>".repeat(count));
        assert_eq!(parse(&deep(90_000)).unwrap_err().context, "xml > depth");
        assert!(parse(&deep(XML_DEPTH_MAX)).is_ok());
    }

    #[test]
    fn a_mark_before_the_document_is_forgiven() {
        assert_eq!(text("\u{feff}\n<a/>".as_bytes()).unwrap(), "<a/>");
    }
}
