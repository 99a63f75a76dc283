//! RFC 4745 with the OMA extensions: a user's rules.

/// A parsed access-rules document.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AccessRules {
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rule {
    pub id: String,
}
