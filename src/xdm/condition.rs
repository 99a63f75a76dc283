//! RFC 4745 §7 and the OMA extensions: the conditions of a rule.

use super::uri_list::UriList;
use crate::base::date::parse_rfc3339;
use crate::base::xml::{attribute, elements, name, own_text};
use roxmltree::Node;
use std::rc::Rc;

/// Name space of RFC 4745.
pub const COMMON_POLICY: &str = "urn:ietf:params:xml:ns:common-policy";

/// What the rules are asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Authenticated CPM Addresses of the originator, normalised: a SIP one, a TEL one, both or none.
    pub originator: &'a [String],
    /// The originator asked for privacy.
    pub anonymous: bool,
    /// Seconds since the Unix epoch.
    pub now_s: u64,
    pub medium: Medium<'a>,
    /// False: the user asks about the own messages, so conditions about the other side's identity hold (OLM-r7, OSI-r7).
    pub identity: bool,
    /// Lists named by `external-list`, by anchor; one that is missing matches nobody.
    pub external_lists: &'a [(String, Rc<UriList>)],
}

/// What a rule's `media-list` must say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium<'a> {
    /// The rule must have a `media-list` with this medium (TLM-6: "standalone-message").
    Listed(&'a str),
    /// A rule without `media-list` will do; one that has it must have the medium (TSI-4: "message-session").
    NotExcluded(&'a str),
    /// Media are not looked at.
    Any,
}

/// One condition; all of a rule's conditions must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// True where one of them is.
    Identity(Vec<Identity>),
    /// `ocp:other-identity`: whom no rule's identity names.
    OtherIdentity,
    /// `ocp:anonymous-request`.
    AnonymousRequest,
    /// `ocp:external-list`: anchors.
    ExternalList(Vec<String>),
    /// From and until, seconds since the Unix epoch.
    Validity(Vec<(u64, u64)>),
    Services(Selection),
    Media(Selection),
    /// A sphere (we do not know where the user is), or an element we do not know: false.
    Never,
}

/// A child of `identity`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// A normalised address.
    One(String),
    /// Any authenticated user: of a domain, and but for these.
    Many { domain: Option<String>, except: Vec<Except> },
}

/// Whom `many` leaves out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Except {
    /// A normalised address.
    Id(String),
    Domain(String),
}

/// A `service-list` or `media-list`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Enablers or media named.
    pub listed: Vec<String>,
    /// `all-services-except`, `all-media-except`: all but these.
    pub all_except: Option<Vec<String>>,
}

impl Selection {
    /// Whether the list has this one. Without regard to case: the schema writes "CPM", documents do not always.
    pub fn has(&self, wanted: &str) -> bool {
        let among = |list: &[String]| list.iter().any(|one| one.eq_ignore_ascii_case(wanted));
        among(&self.listed) || self.all_except.as_deref().is_some_and(|excepted| !among(excepted))
    }
}

impl Identity {
    fn matches(&self, originator: &[String]) -> bool {
        match self {
            Self::One(id) => originator.contains(id),
            Self::Many { domain, except } => {
                let inside = domain.as_ref().is_none_or(|domain| originator.iter().any(|address| in_domain(address, domain)));
                !originator.is_empty() && inside && !except.iter().any(|one| one.matches(originator))
            }
        }
    }
}

impl Except {
    fn matches(&self, originator: &[String]) -> bool {
        match self {
            Self::Id(id) => originator.contains(id),
            Self::Domain(domain) => originator.iter().any(|address| in_domain(address, domain)),
        }
    }
}

/// Whether a normalised address lies in a domain; a tel URI lies in none.
fn in_domain(address: &str, domain: &str) -> bool {
    let host = address.rsplit_once('@').map(|(_, host)| host).unwrap_or_default();
    let host = host.split([';', ':', '?']).next().unwrap_or_default();
    !host.is_empty() && host.eq_ignore_ascii_case(domain)
}

impl Condition {
    /// Reads a child of `conditions`. `normal` normalises an address as the originator's was.
    pub fn of(node: Node<'_, '_>, normal: &impl Fn(&str) -> String) -> Self {
        // The three of RFC 4745 count in its own name space (or in none); those of OMA by their local name, since no
        // public schema fixes the name space of the later ones.
        let common = node.tag_name().namespace().is_none_or(|namespace| namespace == COMMON_POLICY);
        match name(node) {
            "identity" if common => Self::Identity(elements(node).filter_map(|child| identity(child, normal)).collect()),
            "validity" if common => Self::Validity(validity(node)),
            "other-identity" => Self::OtherIdentity,
            "anonymous-request" => Self::AnonymousRequest,
            "external-list" => Self::ExternalList(anchors(node)),
            "service-list" => Self::Services(services(node)),
            "all-services-except" => Self::Services(Selection { listed: Vec::new(), all_except: Some(enablers(node)) }),
            "media-list" => Self::Media(media(node)),
            "all-media-except" => Self::Media(Selection { listed: Vec::new(), all_except: Some(names(node)) }),
            _ => Self::Never,
        }
    }

    /// Whether it names the originator: an identity or an external list that matches (OMA: "referenced in any rule").
    pub fn names(&self, question: &Question<'_>) -> bool {
        match self {
            Self::Identity(identities) => identities.iter().any(|identity| identity.matches(question.originator)),
            Self::ExternalList(anchors) => anchors.iter().any(|anchor| on_list(anchor, question)),
            _ => false,
        }
    }

    /// Whether it holds. `named`: some rule's identity names the originator.
    pub fn holds(&self, question: &Question<'_>, named: bool) -> bool {
        match self {
            Self::Identity(_) | Self::ExternalList(_) => !question.identity || self.names(question),
            Self::OtherIdentity => !question.identity || !named,
            Self::AnonymousRequest => question.anonymous,
            // RFC 4745 §7.4: from ≤ now < until of one pair.
            Self::Validity(pairs) => pairs.iter().any(|(from, until)| (*from..*until).contains(&question.now_s)),
            Self::Services(selection) => selection.has("CPM"),
            Self::Media(selection) => match question.medium {
                Medium::Listed(medium) | Medium::NotExcluded(medium) => selection.has(medium),
                Medium::Any => true,
            },
            Self::Never => false,
        }
    }
}

fn on_list(anchor: &str, question: &Question<'_>) -> bool {
    let list = question.external_lists.iter().find(|(known, _)| known == anchor);
    list.is_some_and(|(_, list)| list.contains_any(question.originator))
}

/// A child that is none of RFC 4745's is false (§7.1.1), and false changes nothing among alternatives.
fn identity(node: Node<'_, '_>, normal: &impl Fn(&str) -> String) -> Option<Identity> {
    let domain = |node| attribute(node, "domain").map(|domain| domain.trim().to_ascii_lowercase());
    let id = |node| attribute(node, "id").map(normal);
    match name(node) {
        "one" => id(node).map(Identity::One),
        "many" => {
            let excepts = elements(node).filter(|child| name(*child) == "except");
            let except = excepts.flat_map(|child| [id(child).map(Except::Id), domain(child).map(Except::Domain)]).flatten();
            Some(Identity::Many { domain: domain(node), except: except.collect() })
        }
        _ => None,
    }
}

fn validity(node: Node<'_, '_>) -> Vec<(u64, u64)> {
    let mut pairs = Vec::new();
    let mut from = None;
    for child in elements(node) {
        let moment = parse_rfc3339(&own_text(child));
        match name(child) {
            "from" => from = moment,
            "until" => pairs.extend(from.take().zip(moment)),
            _ => {}
        }
    }
    pairs
}

fn anchors(node: Node<'_, '_>) -> Vec<String> {
    let of = |child| attribute(child, "anc").or_else(|| attribute(child, "anchor"));
    elements(node).filter_map(of).map(|anchor| anchor.trim().to_owned()).collect()
}

fn services(node: Node<'_, '_>) -> Selection {
    let mut selection = Selection { listed: enablers(node), all_except: None };
    for child in elements(node) {
        match name(child) {
            "all-services-except" => selection.all_except = Some(enablers(child)),
            "all-services" => selection.all_except = Some(Vec::new()),
            _ => {}
        }
    }
    selection
}

fn enablers(node: Node<'_, '_>) -> Vec<String> {
    let services = elements(node).filter(|child| name(*child) == "service");
    services.filter_map(|service| attribute(service, "enabler")).map(|enabler| enabler.trim().to_owned()).collect()
}

fn media(node: Node<'_, '_>) -> Selection {
    let mut selection = Selection::default();
    for child in elements(node) {
        match name(child) {
            "all-media-except" => selection.all_except = Some(names(child)),
            "all-media" => selection.all_except = Some(Vec::new()),
            medium => selection.listed.push(medium.to_owned()),
        }
    }
    selection
}

fn names(node: Node<'_, '_>) -> Vec<String> {
    elements(node).map(|child| name(child).to_owned()).collect()
}
