//! RFC 4745 with the OMA extensions: a user's rules (CR 8.4.1, OMA-XDM-Policy).

use super::condition::{Condition, Medium, Question};
use crate::base::xml::{self, Malformed, attribute, elements, is_uri, name, own_text};
use crate::limits::URI_LIST_REFERENCES_MAX;
use roxmltree::Node;

/// A parsed access-rules document.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AccessRules {
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rule {
    pub id: String,
    pub conditions: Vec<Condition>,
    pub actions: Actions,
}

/// What rules allow; false where none says so. TLM-6 looks at them in this order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Actions {
    pub reject_invite: bool,
    pub do_not_disturb: bool,
    pub interwork: bool,
    pub deliver_and_interwork: bool,
    pub store: bool,
    /// Address as written in the rule. `allow-forward` without an address that we find is none.
    pub forward: Option<String>,
    pub defer: bool,
    /// `allow-offline-storage`: record the conversation history.
    pub offline_storage: bool,
}

impl AccessRules {
    /// Reads an access-rules document. `normal` normalises an address as the originator's will be.
    ///
    /// # Errors
    /// [`Malformed`] where it is not well-formed, brings a DTD, or its root is no ruleset.
    pub fn parse(document: &[u8], normal: impl Fn(&str) -> String) -> Result<Self, Malformed> {
        let document = xml::parse(xml::text(document)?)?;
        let root = document.root_element();
        if name(root) != "ruleset" {
            return Err(Malformed::whole("ruleset"));
        }
        let rules = elements(root).filter(|child| name(*child) == "rule").map(|node| Rule::of(node, &normal)).collect();
        Ok(Self { rules })
    }

    /// What the matching rules allow: RFC 4745 §10.2 combines booleans by "or". Nothing where no rule matches; a rule
    /// that allows nothing is as none.
    pub fn matching(&self, question: &Question<'_>) -> Actions {
        let named = self.rules.iter().flat_map(|rule| &rule.conditions).any(|condition| condition.names(question));
        let matching = self.rules.iter().filter(|rule| rule.matches(question, named));
        matching.fold(Actions::default(), |all, rule| all.or(&rule.actions))
    }

    /// Anchors of `external-list` conditions, each once: lists to be fetched before the rules are asked.
    pub fn external_lists(&self) -> Vec<&str> {
        let mut anchors = Vec::new();
        for condition in self.rules.iter().flat_map(|rule| &rule.conditions) {
            let Condition::ExternalList(of_rule) = condition else { continue };
            for anchor in of_rule {
                if !anchors.contains(&anchor.as_str()) && anchors.len() < URI_LIST_REFERENCES_MAX {
                    anchors.push(anchor);
                }
            }
        }
        anchors
    }
}

impl Rule {
    fn of(node: Node<'_, '_>, normal: &impl Fn(&str) -> String) -> Self {
        let mut rule = Self { id: attribute(node, "id").unwrap_or_default().to_owned(), ..Self::default() };
        for child in elements(node) {
            match name(child) {
                "conditions" => rule.conditions.extend(elements(child).map(|condition| Condition::of(condition, normal))),
                // The schema writes <actions>, the CR <action>.
                "actions" | "action" => rule.actions = rule.actions.or(&Actions::of(child)),
                _ => {}
            }
        }
        rule
    }

    /// All conditions hold, and the CR's own demands: a `service-list` with the enabler CPM, and for TLM-6 a
    /// `media-list` with the medium.
    fn matches(&self, question: &Question<'_>, named: bool) -> bool {
        let has = |kind: fn(&Condition) -> bool| self.conditions.iter().any(kind);
        let service = has(|condition| matches!(condition, Condition::Services(_)));
        let medium = !matches!(question.medium, Medium::Listed(_)) || has(|condition| matches!(condition, Condition::Media(_)));
        service && medium && self.conditions.iter().all(|condition| condition.holds(question, named))
    }
}

impl Actions {
    /// Whether any is allowed.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    fn or(&self, other: &Self) -> Self {
        Self {
            reject_invite: self.reject_invite || other.reject_invite,
            do_not_disturb: self.do_not_disturb || other.do_not_disturb,
            interwork: self.interwork || other.interwork,
            deliver_and_interwork: self.deliver_and_interwork || other.deliver_and_interwork,
            store: self.store || other.store,
            forward: self.forward.clone().or_else(|| other.forward.clone()),
            defer: self.defer || other.defer,
            offline_storage: self.offline_storage || other.offline_storage,
        }
    }

    /// Reads `actions`: elements by their local name, whatever their name space.
    fn of(node: Node<'_, '_>) -> Self {
        let mut actions = Self::default();
        for child in elements(node) {
            let allowed = allowed(child);
            match name(child) {
                "allow-reject-invite" => actions.reject_invite |= allowed,
                "allow-do-not-disturb" => actions.do_not_disturb |= allowed,
                "allow-interwork" => actions.interwork |= allowed,
                "allow-deliver-and-interwork" => actions.deliver_and_interwork |= allowed,
                "allow-store" => actions.store |= allowed,
                "allow-forward" => actions.forward = actions.forward.or_else(|| forward(child)),
                "allow-defer" => actions.defer |= allowed,
                "allow-offline-storage" => actions.offline_storage |= allowed,
                _ => {}
            }
        }
        actions
    }
}

/// xs:boolean as text, or as the attribute `allow` that the public schema gives `allow-offline-storage`.
fn allowed(node: Node<'_, '_>) -> bool {
    let said = |text: &str| text.eq_ignore_ascii_case("true") || text == "1";
    said(&own_text(node)) || attribute(node, "allow").is_some_and(|value| said(value.trim()))
}

/// Address of an `allow-forward` that is allowed. No public text says where it stands, so every place seen is read: an
/// attribute, a child element, or the element's own text in place of "true".
fn forward(node: Node<'_, '_>) -> Option<String> {
    let text = own_text(node);
    if is_uri(&text) && attribute(node, "allow").is_none_or(|_| allowed(node)) {
        return Some(text);
    }
    if !allowed(node) {
        return None;
    }
    let attributes = ["uri", "target", "address"].into_iter().filter_map(|name| attribute(node, name)).map(str::to_owned);
    let children = node.descendants().skip(1).filter(Node::is_element);
    let children = children.flat_map(|child| {
        let uri = attribute(child, "uri").map(str::to_owned);
        [Some(own_text(child)), uri].into_iter().flatten()
    });
    attributes.chain(children).map(|text| text.trim().to_owned()).find(|text| is_uri(text))
}

#[cfg(test)]
mod tests {
    use super::super::uri_list::UriList;
    use super::*;
    use std::rc::Rc;

    const STANDALONE: Medium<'_> = Medium::Listed("standalone-message");
    const DOCUMENT: &[u8] = include_bytes!("../../tests/vectors/xdm/access-rules.xml");

    fn rules(document: &str) -> AccessRules {
        AccessRules::parse(document.as_bytes(), |uri| uri.to_ascii_lowercase()).unwrap()
    }

    /// One rule about standalone messages with these further conditions and actions.
    fn rule(conditions: &str, actions: &str) -> AccessRules {
        rules(&format!(
            "<ruleset xmlns='urn:ietf:params:xml:ns:common-policy' xmlns:ocp='urn:oma:xml:xdm:common-policy' \
             xmlns:oxe='urn:oma:xml:xdm:extensions' xmlns:x='urn:x'><rule id='r'><conditions>\
             <oxe:service-list><oxe:service enabler='CPM'/></oxe:service-list>{conditions}</conditions>{actions}</rule></ruleset>"
        ))
    }

    const MEDIA: &str = "<oxe:media-list><oxe:standalone-message/></oxe:media-list>";
    const DEFER: &str = "<actions><oxe:allow-defer>true</oxe:allow-defer></actions>";

    fn question<'a>(originator: &'a [String], medium: Medium<'a>) -> Question<'a> {
        Question { originator, anonymous: false, now_s: 1_704_200_000, medium, identity: true, external_lists: &[] }
    }

    fn who(address: &str) -> Vec<String> {
        vec![address.to_owned()]
    }

    #[test]
    fn the_example_document_answers_as_its_rules_say() {
        let rules = AccessRules::parse(DOCUMENT, |uri| uri.to_ascii_lowercase()).unwrap();
        assert_eq!(rules.rules.len(), 7);
        let of = |address: &str| rules.matching(&question(&who(address), STANDALONE));
        assert!(of("sip:spammer@example.org").reject_invite);
        assert!(of("tel:+15557770000").reject_invite);
        assert!(of("sip:anyone@corp.example.net").store);
        // The one who is left out is named by no rule, so "other-identity" is about him.
        assert!(!of("sip:boss@corp.example.net").store && of("sip:boss@corp.example.net").deliver_and_interwork);
        assert_eq!(of("sip:secretary@example.net").forward.as_deref(), Some("sip:bob-desk@example.net"));
        assert!(of("sip:stranger@example.com").deliver_and_interwork && !of("sip:stranger@example.com").interwork);
        assert!(!of("sip:stranger@example.com").defer);
        // The rule about the history names no media.
        assert!(!of("sip:stranger@example.com").offline_storage);
        let history = Question { identity: false, ..question(&[], Medium::Any) };
        assert!(rules.matching(&history).offline_storage);
        assert!(!of("sip:stranger@example.com").do_not_disturb, "the time of that rule is over");
        let anonymous = who("sip:stranger@example.com");
        let anonymous = Question { anonymous: true, now_s: 1_704_146_400, ..question(&anonymous, STANDALONE) };
        assert!(rules.matching(&anonymous).defer && rules.matching(&anonymous).do_not_disturb);
    }

    #[test]
    fn every_spelling_of_true_is_read_and_nothing_else() {
        for (action, expected) in [
            ("<actions><oxe:allow-defer>true</oxe:allow-defer></actions>", true),
            ("<actions><allow-defer> 1 </allow-defer></actions>", true),
            ("<action><x:allow-defer>true</x:allow-defer></action>", true),
            ("<actions><oxe:allow-defer oxe:allow='true'/></actions>", true),
            ("<actions><oxe:allow-defer allow='1'/></actions>", true),
            ("<actions><oxe:allow-defer/></actions>", false),
            ("<actions><oxe:allow-defer>false</oxe:allow-defer></actions>", false),
            ("<actions><oxe:allow-defer allow='false'/></actions>", false),
            ("<transformations><oxe:allow-defer>true</oxe:allow-defer></transformations>", false),
        ] {
            let actions = rule(MEDIA, action).matching(&question(&who("sip:a@b"), STANDALONE));
            assert_eq!(actions.defer, expected, "{action}");
        }
    }

    #[test]
    fn conditions_hold_or_do_not() {
        for (condition, expected) in [
            ("", true),
            ("<identity><one id='SIP:A@B'/></identity>", true),
            ("<identity><one id='sip:x@b'/></identity>", false),
            ("<identity><many/></identity>", true),
            ("<identity><many domain='B'/></identity>", true),
            ("<identity><many domain='c'/></identity>", false),
            ("<identity><many><except domain='b'/></many></identity>", false),
            ("<identity><many domain='b'><except id='sip:a@b'/></many></identity>", false),
            ("<identity><x:all/></identity>", false),
            ("<identity/>", false),
            ("<x:unknown/>", false),
            ("<x:identity><one id='sip:a@b'/></x:identity>", false),
            ("<sphere value='work'/>", false),
            ("<validity><from>2024-01-01T00:00:00Z</from><until>2024-01-02T00:00:00Z</until></validity>", true),
            ("<validity><from>2024-01-01T00:00:00Z</from><until>2024-01-01T00:30:00Z</until></validity>", false),
            ("<validity><from>2025-01-01T00:00:00Z</from><until>2026-01-01T00:00:00Z</until></validity>", false),
            ("<validity><from>soon</from><until>later</until></validity>", false),
            ("<ocp:anonymous-request/>", false),
            ("<ocp:other-identity/>", true),
            ("<ocp:external-list><ocp:entry anc='http://x/l'/></ocp:external-list>", false),
        ] {
            let question = Question { now_s: 1_704_070_000, ..question(&[], STANDALONE) };
            let originator = who("sip:a@b");
            let question = Question { originator: &originator, ..question };
            assert_eq!(rule(&format!("{MEDIA}{condition}"), DEFER).matching(&question).defer, expected, "{condition}");
        }
    }

    #[test]
    fn media_and_services_are_looked_at_as_the_clause_asks() {
        let none = "";
        let other = "<oxe:media-list><oxe:video/></oxe:media-list>";
        let except = "<oxe:media-list><oxe:all-media-except><oxe:video/></oxe:all-media-except></oxe:media-list>";
        for (media, listed, not_excluded) in
            [(none, false, true), (MEDIA, true, true), (other, false, false), (except, true, true)]
        {
            let rules = rule(media, DEFER);
            let originator = who("sip:a@b");
            assert_eq!(rules.matching(&question(&originator, STANDALONE)).defer, listed, "{media}");
            let lenient = question(&originator, Medium::NotExcluded("standalone-message"));
            assert_eq!(rules.matching(&lenient).defer, not_excluded, "{media}");
            assert!(rules.matching(&question(&originator, Medium::Any)).defer);
        }
        for (services, expected) in [
            ("", false),
            ("<service-list><service enabler='PoC'/></service-list>", false),
            ("<service-list><service enabler='PoC'/><service enabler='cpm'/></service-list>", true),
            ("<service-list><all-services-except><service enabler='PoC'/></all-services-except></service-list>", true),
            ("<service-list><all-services-except><service enabler='CPM'/></all-services-except></service-list>", false),
        ] {
            let rules = rules(&format!(
                "<ruleset><rule><conditions>{services}</conditions><actions><allow-defer>true</allow-defer></actions></rule></ruleset>"
            ));
            assert_eq!(rules.matching(&question(&who("sip:a@b"), Medium::Any)).defer, expected, "{services}");
        }
    }

    #[test]
    fn the_forward_address_is_found_wherever_it_stands() {
        for (action, expected) in [
            ("<allow-forward uri='sip:x@y'>true</allow-forward>", Some("sip:x@y")),
            ("<allow-forward allow='true' target='tel:+1'/>", Some("tel:+1")),
            ("<allow-forward>true<target>tel:+1</target></allow-forward>", Some("tel:+1")),
            ("<allow-forward allow='1'><to><entry uri='sip:x@y'/></to></allow-forward>", Some("sip:x@y")),
            ("<allow-forward> sip:x@y </allow-forward>", Some("sip:x@y")),
            ("<allow-forward>true</allow-forward>", None),
            ("<allow-forward uri='sip:x@y'>false</allow-forward>", None),
            ("<allow-forward allow='false'>sip:x@y</allow-forward>", None),
        ] {
            let actions = rule("", &format!("<actions>{action}</actions>")).matching(&question(&[], Medium::Any));
            assert_eq!(actions.forward.as_deref(), expected, "{action}");
        }
    }

    #[test]
    fn booleans_of_all_matching_rules_are_ored() {
        let service = "<conditions><service-list><service enabler='CPM'/></service-list></conditions>";
        let rules = rules(&format!(
            "<ruleset><rule>{service}<actions><allow-store>true</allow-store></actions></rule>\
             <rule>{service}<actions><allow-store>false</allow-store><allow-defer>true</allow-defer></actions></rule></ruleset>"
        ));
        let actions = rules.matching(&question(&[], Medium::Any));
        assert!(actions.store && actions.defer && actions.any());
    }

    #[test]
    fn external_lists_are_named_and_used() {
        let rules =
            rule("<ocp:external-list><ocp:entry anc='http://x/l'/><ocp:entry anc='http://x/l'/></ocp:external-list>", DEFER);
        assert_eq!(rules.external_lists(), ["http://x/l"]);
        let lists = [("http://x/l".to_owned(), Rc::new(UriList { entries: who("sip:a@b") }))];
        let (listed, other) = (who("sip:a@b"), who("sip:c@d"));
        let ask = |originator| Question { external_lists: &lists, ..question(originator, Medium::Any) };
        assert!(rules.matching(&ask(&listed)).defer);
        assert!(!rules.matching(&ask(&other)).defer);
    }

    #[test]
    fn what_is_no_ruleset_is_refused() {
        for document in ["", "<rules/>", "<ruleset>", "<!DOCTYPE a [<!ENTITY b 'c'>]><ruleset/>"] {
            assert!(AccessRules::parse(document.as_bytes(), str::to_owned).is_err(), "{document}");
        }
        assert_eq!(rules("<ruleset/>").matching(&question(&[], Medium::Any)), Actions::default());
    }
}
