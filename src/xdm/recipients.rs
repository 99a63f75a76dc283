//! RFC 5363, RFC 5364, RFC 5366: recipient lists, and what their recipients may see of them.

use crate::base::xml::{self, Malformed, attribute, name};
use crate::limits::URI_LIST_ENTRIES_MAX;
use roxmltree::Node;
use std::ops::Range;

/// Media type of the document.
pub const MEDIA_TYPE: &str = "application/resource-lists+xml";
/// Content-Disposition of a list to be served (RFC 5363 §4).
pub const RECIPIENT_LIST: &str = "recipient-list";
/// Content-Disposition of a list for its recipients (RFC 5364 §7), as we write it.
pub const RECIPIENT_LIST_HISTORY: &str = "recipient-list-history; handling=optional";

/// Stands for who is not to be named (RFC 5364 §6).
const ANONYMOUS: &str = "sip:anonymous@anonymous.invalid";

/// `copyControl` (RFC 5364 §4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CopyControl {
    To,
    Cc,
    Bcc,
}

impl CopyControl {
    const fn as_str(self) -> &'static str {
        match self {
            Self::To => "to",
            Self::Cc => "cc",
            Self::Bcc => "bcc",
        }
    }
}

/// One recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient {
    /// As written.
    pub uri: String,
    pub display_name: Option<String>,
    pub copy: CopyControl,
    pub anonymize: bool,
}

/// Reads a recipient list, lists within it included.
///
/// # Errors
/// [`Malformed`] where the document is not well-formed, no resource-lists document, or too long.
pub fn parse(document: &[u8]) -> Result<Vec<Recipient>, Malformed> {
    let document = open(xml::text(document)?)?;
    Ok(entries(&document).filter_map(|node| recipient(node)).collect())
}

/// The recipient-list-history of a recipient list (RFC 5364 §6): `bcc` entries are gone, those to be anonymised are one
/// anonymous entry with a count for each `copyControl`, all else stands octet for octet.
///
/// # Errors
/// As [`parse`].
pub fn history(document: &[u8]) -> Result<Vec<u8>, Malformed> {
    let text = xml::text(document)?;
    let document = open(text)?;
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    for copy in [CopyControl::To, CopyControl::Cc, CopyControl::Bcc] {
        let of_copy = |node: &Node<'_, '_>| recipient(*node).is_some_and(|one| one.copy == copy);
        let named: Vec<_> = entries(&document).filter(of_copy).collect();
        let hidden = |node: &&Node<'_, '_>| copy == CopyControl::Bcc || recipient(**node).is_some_and(|one| one.anonymize);
        let count = named.iter().filter(hidden).count();
        for (at, node) in named.iter().filter(hidden).enumerate() {
            if at == 0 && copy != CopyControl::Bcc {
                edits.push((node.range(), anonymous(*node, copy, count)));
            } else {
                edits.push((with_line(text, node.range()), String::new()));
            }
        }
    }
    Ok(edited(text, edits).into_bytes())
}

fn open(text: &str) -> Result<roxmltree::Document<'_>, Malformed> {
    let document = xml::parse(text)?;
    if name(document.root_element()) != "resource-lists" {
        return Err(Malformed::whole("resource-lists"));
    }
    if entries(&document).nth(URI_LIST_ENTRIES_MAX).is_some() {
        return Err(Malformed::whole("resource-lists > number of entries"));
    }
    Ok(document)
}

fn entries<'a, 'input>(document: &'a roxmltree::Document<'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    document.descendants().filter(|node| node.is_element() && name(*node) == "entry")
}

fn recipient(node: Node<'_, '_>) -> Option<Recipient> {
    // The attributes count under any name space: RFC 5364 writes "copycontrol", one client "copyControl".
    let copy = match attribute(node, "copyControl").map(|value| value.trim().to_ascii_lowercase()).as_deref() {
        Some("cc") => CopyControl::Cc,
        Some("bcc") => CopyControl::Bcc,
        // RFC 5364 §4 would have bcc where the attribute is missing, and empty the lists of clients that know no
        // copyControl; they mean "to".
        _ => CopyControl::To,
    };
    let display_name = node.children().find(|child| child.is_element() && name(*child) == "display-name");
    Some(Recipient {
        uri: attribute(node, "uri")?.trim().to_owned(),
        display_name: display_name.map(xml::own_text).filter(|text| !text.is_empty()),
        copy,
        anonymize: matches!(attribute(node, "anonymize").map(str::trim), Some("true" | "1")),
    })
}

/// The anonymous entry, its attributes under the prefix that `anonymize` had.
fn anonymous(node: Node<'_, '_>, copy: CopyControl, count: usize) -> String {
    let namespace =
        node.attributes().find(|attribute| attribute.name() == "anonymize").and_then(|attribute| attribute.namespace());
    let prefix = namespace.and_then(|namespace| node.lookup_prefix(namespace)).map(|prefix| format!("{prefix}:"));
    let prefix = prefix.unwrap_or_default();
    let element =
        node.tag_name().namespace().and_then(|namespace| node.lookup_prefix(namespace)).filter(|prefix| !prefix.is_empty());
    let element = element.map(|prefix| format!("{prefix}:")).unwrap_or_default();
    let copy = copy.as_str();
    format!("<{element}entry uri=\"{ANONYMOUS}\" {prefix}copyControl=\"{copy}\" {prefix}count=\"{count}\"/>")
}

/// The range with the white space before it, so that no empty line is left behind.
fn with_line(text: &str, range: Range<usize>) -> Range<usize> {
    text[..range.start].trim_end().len()..range.end
}

fn edited(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, replacement) in edits {
        // An entry within an entry is gone with the outer one.
        if range.start < at {
            continue;
        }
        out.push_str(&text[at..range.start]);
        out.push_str(&replacement);
        at = range.end;
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5364 §6, figure 3.
    const LIST: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"
          xmlns:cp="urn:ietf:params:xml:ns:copycontrol">
  <list>
    <entry uri="sip:bill@example.com" cp:copyControl="to" />
    <entry uri="sip:randy@example.net" cp:copyControl="to"
                                       cp:anonymize="true"/>
    <entry uri="sip:eddy@example.com" cp:copyControl="to"
                                      cp:anonymize="true"/>
    <entry uri="sip:joe@example.org" cp:copyControl="cc" />
    <entry uri="sip:carol@example.net" cp:copyControl="cc"
                                       cp:anonymize="true"/>
    <entry uri="sip:ted@example.net" cp:copyControl="bcc" />
    <entry uri="sip:andy@example.com" cp:copyControl="bcc" />
  </list>
</resource-lists>
"#;

    #[test]
    fn the_history_of_the_rfcs_list_is_the_rfcs_history() {
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"
          xmlns:cp="urn:ietf:params:xml:ns:copycontrol">
  <list>
    <entry uri="sip:bill@example.com" cp:copyControl="to" />
    <entry uri="sip:anonymous@anonymous.invalid" cp:copyControl="to" cp:count="2"/>
    <entry uri="sip:joe@example.org" cp:copyControl="cc" />
    <entry uri="sip:anonymous@anonymous.invalid" cp:copyControl="cc" cp:count="1"/>
  </list>
</resource-lists>
"#;
        assert_eq!(String::from_utf8(history(LIST.as_bytes()).unwrap()).unwrap(), expected);
    }

    #[test]
    fn both_spellings_of_the_name_space_and_none_are_read() {
        let list = LIST.replace("ns:copycontrol", "ns:copyControl");
        assert_eq!(parse(list.as_bytes()).unwrap(), parse(LIST.as_bytes()).unwrap());
        let bare = "<r:resource-lists xmlns:r='urn:ietf:params:xml:ns:resource-lists'><r:list>\
            <r:entry uri='sip:a@x'><r:display-name>A</r:display-name></r:entry><r:entry uri='sip:b@x' copyControl='BCC'/>\
            <r:entry uri='sip:c@x' anonymize='1'/></r:list></r:resource-lists>";
        let read = parse(bare.as_bytes()).unwrap();
        assert_eq!(read[0].copy, CopyControl::To);
        assert_eq!(read[0].display_name.as_deref(), Some("A"));
        assert_eq!(read[1].copy, CopyControl::Bcc);
        let kept = String::from_utf8(history(bare.as_bytes()).unwrap()).unwrap();
        assert!(!kept.contains("sip:b@x") && !kept.contains("sip:c@x") && kept.contains("sip:a@x"));
        assert!(kept.contains("<r:entry uri=\"sip:anonymous@anonymous.invalid\" copyControl=\"to\" count=\"1\"/>"));
        assert!(parse(kept.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for document in ["", "<list/>", "<resource-lists>", "<!DOCTYPE x [<!ENTITY a 'b'>]><resource-lists/>"] {
            assert!(history(document.as_bytes()).is_err(), "{document}");
        }
    }
}
