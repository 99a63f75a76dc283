//! RFC 4825 §6.3: node selectors, as far as URI lists need them: steps by name, by attribute, by position.

use crate::base::xml::{attribute, elements, name};
use roxmltree::Node;

/// A path through a document: `resource-lists/list[@name="friends"]/entry[2]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Selector {
    steps: Vec<Step>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Step {
    /// Local name; "*" is any.
    name: String,
    /// Counted from 1.
    position: Option<usize>,
    attribute: Option<(String, String)>,
}

impl Selector {
    /// Reads what stands behind `/~~/`, percent-encoded as in a URI. None where it is no selector we know.
    pub fn parse(text: &str) -> Option<Self> {
        let text = percent_decoded(text)?;
        let steps: Option<Vec<_>> = split_unquoted(&text, '/').filter(|step| !step.is_empty()).map(Step::parse).collect();
        steps.filter(|steps| !steps.is_empty()).map(|steps| Self { steps })
    }

    /// The element it selects, if there is exactly the one path to it.
    pub fn select<'a, 'input>(&self, root: Node<'a, 'input>) -> Option<Node<'a, 'input>> {
        let (first, rest) = self.steps.split_first()?;
        let mut node = first.admits(root).then_some(root)?;
        for step in rest {
            node = step.among(node)?;
        }
        Some(node)
    }
}

impl Step {
    fn parse(text: &str) -> Option<Self> {
        let (name, mut predicates) = text.split_at(text.find('[').unwrap_or(text.len()));
        let name = name.rsplit_once(':').map_or(name, |(_prefix, local)| local);
        let mut step = Self { name: name.to_owned(), position: None, attribute: None };
        while let Some(inner) = predicates.strip_prefix('[') {
            let predicate = split_unquoted(inner, ']').next()?;
            predicates = inner.get(predicate.len() + 1..)?;
            match predicate.strip_prefix('@') {
                None => step.position = Some(predicate.trim().parse().ok()?),
                Some(test) => {
                    let (name, value) = test.split_once('=')?;
                    let value = value.trim().trim_matches(['"', '\'']);
                    step.attribute = Some((name.trim().to_owned(), value.to_owned()));
                }
            }
        }
        (!step.name.is_empty() && predicates.is_empty()).then_some(step)
    }

    fn admits(&self, node: Node<'_, '_>) -> bool {
        let named = self.name == "*" || self.name == name(node);
        named && self.attribute.as_ref().is_none_or(|(name, value)| attribute(node, name) == Some(value.as_str()))
    }

    fn among<'a, 'input>(&self, parent: Node<'a, 'input>) -> Option<Node<'a, 'input>> {
        let named = elements(parent).filter(|child| self.name == "*" || self.name == name(*child));
        match self.position {
            Some(position) => named.skip(position.checked_sub(1)?).take(1).find(|child| self.admits(*child)),
            None => named.into_iter().find(|child| self.admits(*child)),
        }
    }
}

fn split_unquoted(text: &str, at: char) -> impl Iterator<Item = &str> {
    let mut quote = None;
    text.split(move |c| {
        match quote {
            Some(open) if open == c => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
        quote.is_none() && c == at
    })
}

/// RFC 3986 §2.1. None where it is not UTF-8 behind the encoding; a lone "%" stands for itself.
pub fn percent_decoded(text: &str) -> Option<String> {
    let octets = text.as_bytes();
    let mut out = Vec::with_capacity(octets.len());
    let mut at = 0;
    while at < octets.len() {
        let hex = |i: usize| octets.get(at + i).and_then(|octet| char::from(*octet).to_digit(16));
        match (octets[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (octet, ..) => {
                out.push(octet);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_by_name_attribute_and_position_find_their_element() {
        let text =
            "<r:resource-lists xmlns:r='x'><r:list name='a/]'><r:entry uri='1'/><r:entry uri='2'/></r:list></r:resource-lists>";
        let document = roxmltree::Document::parse(text).unwrap();
        let uri = |selector: &str| {
            let found = Selector::parse(selector)?.select(document.root_element())?;
            attribute(found, "uri").or(Some(name(found))).map(str::to_owned)
        };
        assert_eq!(uri("resource-lists/list%5b@name=%22a/%5d%22%5d/entry%5B2%5D").as_deref(), Some("2"));
        assert_eq!(uri("rl:resource-lists/*/entry[@uri='1']").as_deref(), Some("1"));
        assert_eq!(uri("resource-lists/list[1]").as_deref(), Some("list"));
        assert_eq!(uri("resource-lists/list[0]"), None);
        assert_eq!(uri("resource-lists/list/entry[@uri=\"3\"]"), None);
        assert_eq!(uri("rls-services"), None);
    }

    #[test]
    fn what_is_no_selector_is_none() {
        for text in ["", "/", "list[", "list[@name]", "list[x]", "list]x[", "[1]", "a[1]b", "%ff"] {
            let _ = Selector::parse(text);
        }
        assert_eq!(Selector::parse("list[x]"), None);
        assert_eq!(percent_decoded("%41%4g%"), Some("A%4g%".to_owned()));
    }
}
