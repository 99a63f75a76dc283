//! Alice's side: what the originating procedures are given in the tests, and how their decisions are looked into.

use crate::bob::{Letter, NOW_S, PHONE, TABLET, client};
use cpm_pf::base::clock::Instant;
use cpm_pf::config::Config;
use cpm_pf::cpm::decision::{Answer, Bridge, Decision, FollowUp, Invite, Proxy};
use cpm_pf::cpm::facts::{Client, Facts, Role};
use cpm_pf::cpm::procedures::Procedure;
use cpm_pf::cpm::refusal::Refusal;
use cpm_pf::sip::message::Response;
use cpm_pf::xdm::access_rules::AccessRules;
use std::rc::Rc;

/// What the procedures know of Alice.
pub struct Alice {
    pub config: Config,
    pub clients: Vec<Client>,
    pub rules: Option<Rc<AccessRules>>,
    pub trusted: bool,
}

/// A client of Alice's, as Bob's are made.
pub fn device(instance: &str, features: &[&str]) -> Client {
    Client { aor: "sip:alice@example.net".to_string(), ..client(instance, None, features) }
}

impl Alice {
    /// Allowed to send; with a phone and a tablet beside the device that sends.
    pub fn new() -> Self {
        let mut config = Config::default();
        config.node.host = "pf1.example.net".to_string();
        config.sip.core = Some("sip:127.0.0.1:5070;lr".to_string());
        config.sip.isf = Some("sip:127.0.0.1:5090;lr".to_string());
        config.policy.authorised_originators = vec!["sip:*@example.net".to_string(), "tel:+*".to_string()];
        let all = ["msg", "largemsg", "session"];
        Alice { config, clients: vec![device(PHONE, &all), device(TABLET, &all)], rules: None, trusted: true }
    }

    pub fn configured(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// With a rule that wants a history, for this enabler.
    pub fn recorded(mut self, enabler: &str, allow: &str) -> Self {
        let text = format!(
            "<ruleset xmlns=\"urn:ietf:params:xml:ns:common-policy\" xmlns:oxe=\"urn:oma:xml:xdm:extensions\"><rule id=\"r\">\
             <conditions><oxe:service-list><oxe:service enabler=\"{enabler}\"/></oxe:service-list></conditions>\
             <actions><oxe:allow-offline-storage>{allow}</oxe:allow-offline-storage></actions></rule></ruleset>"
        );
        let rules = AccessRules::parse(text.as_bytes(), cpm_pf::cpm::identity::normalise).expect("the tests write rules");
        self.rules = Some(Rc::new(rules));
        self
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts {
            config: &self.config,
            now: Instant::from_unix_s(NOW_S),
            trusted: self.trusted,
            role: Role::Originating,
            rules: self.rules.clone(),
            blacklist: None,
            external_lists: &[],
            clients: &self.clients,
            replaced: &[],
        }
    }

    pub fn sends(&self, letter: &Letter) -> Result<Decision, Refusal> {
        let request = letter.request();
        Procedure::of(Role::Originating, &request).decide(&self.facts(), &request)
    }

    pub fn bridge(&self, letter: &Letter) -> Bridge {
        match self.sends(letter) {
            Ok(Decision::Bridge(bridge)) => *bridge,
            other => panic!("a bridge was expected: {other:?}"),
        }
    }

    /// The one INVITE that goes to the recipient.
    pub fn invite(&self, letter: &Letter) -> Invite {
        let mut bridge = self.bridge(letter);
        assert_eq!(bridge.targets.len(), 1, "one INVITE for one INVITE");
        bridge.targets.remove(0)
    }

    pub fn proxy(&self, letter: &Letter) -> Proxy {
        match self.sends(letter) {
            Ok(Decision::Proxy(proxy)) => proxy,
            other => panic!("a proxy was expected: {other:?}"),
        }
    }

    pub fn refusal(&self, letter: &Letter) -> Refusal {
        self.sends(letter).expect_err("a refusal was expected")
    }

    pub fn status(&self, letter: &Letter) -> u16 {
        self.sends(letter).map_or_else(|refusal| refusal.status, |_| 200)
    }

    /// What the recipient's 2xx becomes.
    pub fn success(&self, letter: &Letter, ok: &Response) -> Result<Answer, Refusal> {
        let (request, bridge) = (letter.request(), self.bridge(letter));
        Procedure::of(Role::Originating, &request).on_success(&self.facts(), &request, &bridge, 0, ok)
    }

    pub fn answer(&self, letter: &Letter, ok: &Response) -> Answer {
        self.success(letter, ok).expect("the 2xx is of use")
    }

    /// What the origin is told when these were the final responses.
    pub fn exhausted(&self, letter: &Letter, statuses: &[u16]) -> Refusal {
        let (request, bridge) = (letter.request(), self.bridge(letter));
        let failures: Vec<(usize, u16)> = statuses.iter().copied().enumerate().collect();
        let procedure = Procedure::of(Role::Originating, &request);
        procedure.on_exhausted(&self.facts(), &request, &bridge, &failures).expect_err("nobody is left to ask")
    }

    /// What follows the origin's 200.
    pub fn follows(&self, letter: &Letter, ok: &Response) -> Vec<FollowUp> {
        let (request, bridge) = (letter.request(), self.bridge(letter));
        Procedure::of(Role::Originating, &request).after_answer(&self.facts(), &request, &bridge, Some((0, ok)))
    }

    pub fn is_recorded(&self, letter: &Letter, ok: &Response) -> bool {
        let wanted = FollowUp::RecordHistory { user: "sip:alice@example.net".to_string(), sent: true };
        self.follows(letter, ok).iter().any(|follow| format!("{follow:?}") == format!("{wanted:?}"))
    }
}
