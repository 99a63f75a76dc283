//! RFC 4826: URI lists, their references followed from document to document.
//!
//! A list names entries, lists within it, entries of other documents (`entry-ref`) and lists elsewhere (`external`).
//! [`Resolving`] collects what is at hand and says what must be fetched next:
//!
//! ```text
//! Resolving::named(index, "oma_blockedcontacts")  ->  wanted()  ->  fetch  ->  supply()  ->  wanted() …  ->  finish()
//! ```

use super::selector::{Selector, percent_decoded};
use crate::base::xml::{self, Malformed, attribute, name};
use crate::limits::{URI_LIST_DEPTH_MAX, URI_LIST_ENTRIES_MAX, URI_LIST_REFERENCES_MAX};
use roxmltree::Node;
use std::collections::BTreeSet;

/// Application unique id of URI lists (RFC 4826 §3.4.1).
pub const AUID: &str = "resource-lists";

/// Members of a list.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct UriList {
    /// Normalised addresses, sorted, each once.
    pub entries: Vec<String>,
}

impl UriList {
    /// Whether one of these normalised addresses is a member.
    pub fn contains_any(&self, addresses: &[String]) -> bool {
        addresses.iter().any(|address| self.entries.binary_search(address).is_ok())
    }
}

/// Where a referenced list or entry lies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// An absolute HTTP URI, with its node selector.
    External { uri: String },
    /// A document of our own XCAP root, `resource-lists/users/XUI/DOCUMENT`, both decoded.
    Document { xui: String, document: String },
}

/// A reference that is to be fetched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reference {
    pub place: Place,
    selector: Option<Selector>,
    depth: usize,
}

/// A list whose references are being followed.
#[derive(Clone, Debug, Default)]
pub struct Resolving {
    entries: BTreeSet<String>,
    wanted: Vec<Reference>,
    seen: BTreeSet<(Place, Option<Selector>)>,
    incomplete: bool,
}

impl Resolving {
    /// Begins with the list of that name in a resource-lists document. None: it has no such list. `normal` normalises
    /// an address as those it will be compared with.
    ///
    /// # Errors
    /// [`Malformed`] where the document is not well-formed or no resource-lists document.
    pub fn named(document: &[u8], list: &str, normal: impl Fn(&str) -> String) -> Result<Option<Self>, Malformed> {
        let document = xml::parse(xml::text(document)?)?;
        let root = document.root_element();
        if name(root) != "resource-lists" {
            return Err(Malformed::whole("resource-lists"));
        }
        let named = |node: &Node<'_, '_>| node.is_element() && name(*node) == "list" && attribute(*node, "name") == Some(list);
        Ok(root.descendants().find(named).map(|node| {
            let mut resolving = Self::default();
            resolving.take(node, 0, &normal);
            resolving
        }))
    }

    /// Begins with a list elsewhere: an `external-list` anchor of access rules.
    pub fn external(anchor: &str) -> Self {
        let mut resolving = Self::default();
        resolving.refer(external(anchor), 0);
        resolving
    }

    /// The next reference to fetch; each is given once. None: nothing more to fetch.
    pub fn wanted(&mut self) -> Option<Reference> {
        self.wanted.pop()
    }

    /// Takes the document a reference led to; none where it could not be fetched.
    pub fn supply(&mut self, reference: &Reference, document: Option<&[u8]>, normal: impl Fn(&str) -> String) {
        let text = document.and_then(|octets| xml::text(octets).ok());
        let Some(parsed) = text.and_then(|text| xml::parse(text).ok()) else {
            self.incomplete = true;
            return;
        };
        let root = parsed.root_element();
        // An XCAP server gives the element alone; from a file comes the whole document.
        let node = match &reference.selector {
            Some(selector) if name(root) == "resource-lists" => selector.select(root),
            _ => Some(root),
        };
        match node {
            Some(node) => self.take(node, reference.depth, &normal),
            None => self.incomplete = true,
        }
    }

    /// Whether a reference failed, or a bound was met.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The members found.
    pub fn finish(self) -> UriList {
        UriList { entries: self.entries.into_iter().collect() }
    }

    fn take(&mut self, node: Node<'_, '_>, depth: usize, normal: &impl Fn(&str) -> String) {
        for node in node.descendants().filter(Node::is_element) {
            match name(node) {
                "entry" => self.entry(attribute(node, "uri"), normal),
                "entry-ref" => self.refer(attribute(node, "ref").and_then(entry_ref), depth),
                "external" => self.refer(attribute(node, "anchor").and_then(external), depth),
                _ => {}
            }
        }
    }

    fn entry(&mut self, uri: Option<&str>, normal: &impl Fn(&str) -> String) {
        match uri {
            Some(uri) if self.entries.len() < URI_LIST_ENTRIES_MAX => {
                self.entries.insert(normal(uri.trim()));
            }
            Some(_) => self.incomplete = true,
            None => {}
        }
    }

    fn refer(&mut self, found: Option<(Place, Option<Selector>)>, depth: usize) {
        let Some((place, selector)) = found else {
            self.incomplete = true;
            return;
        };
        if depth >= URI_LIST_DEPTH_MAX || self.seen.len() >= URI_LIST_REFERENCES_MAX {
            self.incomplete = true;
        } else if self.seen.insert((place.clone(), selector.clone())) {
            self.wanted.push(Reference { place, selector, depth: depth + 1 });
        }
    }
}

/// `external@anchor`: an absolute HTTP URI.
fn external(anchor: &str) -> Option<(Place, Option<Selector>)> {
    // Some documents break the URI over lines, as the RFC's print does.
    let uri: String = anchor.split_ascii_whitespace().collect();
    let scheme = uri.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    if !matches!(scheme.as_deref(), Some("http" | "https")) {
        return None;
    }
    let selector = match uri.split_once("/~~/") {
        Some((_, selector)) => Some(Selector::parse(selector)?),
        None => None,
    };
    Some((Place::External { uri }, selector))
}

/// `entry-ref@ref`: a path relative to the XCAP root, to an entry of a resource-lists document.
fn entry_ref(path: &str) -> Option<(Place, Option<Selector>)> {
    let path: String = path.split_ascii_whitespace().collect();
    let (document, selector) = path.split_once("/~~/")?;
    let mut pieces = document.strip_prefix(AUID)?.strip_prefix("/users/")?.splitn(2, '/');
    let (xui, document) = (percent_decoded(pieces.next()?)?, percent_decoded(pieces.next()?)?);
    // Nothing of a peer's document may climb out of the root.
    let plain = |segment: &str| !segment.is_empty() && segment != "." && segment != ".." && !segment.contains(['/', '\0']);
    if !plain(&xui) || !plain(&document) {
        return None;
    }
    Some((Place::Document { xui, document }, Some(Selector::parse(selector)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists">
  <list name="oma_blockedcontacts">
    <entry uri="sip:spammer@example.org"><display-name>S</display-name></entry>
    <entry uri="TEL:+15557770000"/>
    <list name="inner"><entry uri="sip:inner@example.org"/></list>
    <entry-ref ref="resource-lists/users/sip:bill@example.com/index/~~/
      resource-lists/list%5b@name=%22list1%22%5d/entry%5b@uri=%22sip:petri@example.com%22%5d"/>
    <external anchor="http://xdms.example.net/resource-lists/users/sip:bob@example.net/index/~~/resource-lists/list%5b@name=%22rcs_blockedcontacts%22%5d"/>
  </list>
  <list name="other"><entry uri="sip:friend@example.org"/></list>
</resource-lists>"#;

    fn lower(uri: &str) -> String {
        uri.to_ascii_lowercase()
    }

    fn resolved(index: &str, list: &str, fetch: impl Fn(&Place) -> Option<String>) -> (UriList, bool, usize) {
        let mut resolving = Resolving::named(index.as_bytes(), list, lower).unwrap().unwrap();
        let mut fetched = 0;
        while let Some(reference) = resolving.wanted() {
            fetched += 1;
            resolving.supply(&reference, fetch(&reference.place).as_deref().map(str::as_bytes), lower);
        }
        let incomplete = resolving.is_incomplete();
        (resolving.finish(), incomplete, fetched)
    }

    #[test]
    fn nested_lists_and_references_are_followed() {
        let (list, incomplete, fetched) = resolved(INDEX, "oma_blockedcontacts", |place| {
            Some(match place {
                Place::Document { xui, document } => {
                    assert_eq!((xui.as_str(), document.as_str()), ("sip:bill@example.com", "index"));
                    "<resource-lists><list name='list1'><entry uri='sip:x@x'/><entry uri='sip:petri@example.com'/></list></resource-lists>".to_owned()
                }
                Place::External { .. } => "<list name='rcs_blockedcontacts'><entry uri='sip:far@example.org'/></list>".to_owned(),
            })
        });
        assert_eq!(
            list.entries,
            [
                "sip:far@example.org",
                "sip:inner@example.org",
                "sip:petri@example.com",
                "sip:spammer@example.org",
                "tel:+15557770000"
            ]
        );
        assert!(!incomplete);
        assert_eq!(fetched, 2);
        assert!(list.contains_any(&["sip:me@x".to_owned(), "tel:+15557770000".to_owned()]));
        assert!(!list.contains_any(&["sip:friend@example.org".to_owned()]));
    }

    #[test]
    fn what_cannot_be_fetched_leaves_the_rest_standing() {
        let (list, incomplete, _) = resolved(INDEX, "oma_blockedcontacts", |_| None);
        assert_eq!(list.entries.len(), 3);
        assert!(incomplete);
        assert!(Resolving::named(INDEX.as_bytes(), "nobody", lower).unwrap().is_none());
        assert!(Resolving::named(b"<ruleset/>", "nobody", lower).is_err());
    }

    #[test]
    fn lists_that_name_each_other_come_to_an_end() {
        let next = |n: usize| {
            format!("<list><entry uri='sip:{n}@x'/><external anchor='http://h/{n}'/><external anchor='http://h/0'/></list>")
        };
        let index = "<resource-lists><list name='a'><external anchor='http://h/0'/></list></resource-lists>";
        let (list, incomplete, fetched) = resolved(index, "a", |place| {
            let Place::External { uri } = place else { return None };
            let n: usize = uri.rsplit('/').next()?.parse().ok()?;
            Some(next(n + 1))
        });
        assert_eq!((list.entries.len(), fetched), (URI_LIST_DEPTH_MAX, URI_LIST_DEPTH_MAX));
        assert!(incomplete);
    }

    #[test]
    fn a_reference_cannot_leave_the_root() {
        for path in [
            "resource-lists/users/%2e%2e/index/~~/a",
            "resource-lists/users/a/..%2f..%2fpasswd/~~/a",
            "/etc/passwd",
            "x/users/a/b/~~/c",
        ] {
            assert_eq!(entry_ref(path), None, "{path}");
        }
        for anchor in ["file:///etc/passwd", "ftp://x/y", "resource-lists"] {
            assert_eq!(external(anchor), None, "{anchor}");
        }
    }

    #[test]
    fn a_list_is_bounded() {
        let many: String = (0..URI_LIST_ENTRIES_MAX + 1).map(|n| format!("<entry uri='sip:{n}@x'/>")).collect();
        let (list, incomplete, _) =
            resolved(&format!("<resource-lists><list name='a'>{many}</list></resource-lists>"), "a", |_| None);
        assert_eq!(list.entries.len(), URI_LIST_ENTRIES_MAX);
        assert!(incomplete);
    }
}
