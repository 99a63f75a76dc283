//! CR 8.3.1.2 step 6 on the wire: every action alone, false, and beside every other; the first that is true in the order a to f is
//! the one that is taken.

use crate::ladder::warned;
use crate::msrp::Msrp;
use crate::proves;
use crate::proxy::{Proxy, put, registered};
use crate::ue::{Invite, LARGE, Message, Ue};

/// In the order of step 6; c has two.
const ACTIONS: [&str; 7] = ["reject-invite", "do-not-disturb", "interwork", "deliver-and-interwork", "store", "forward", "defer"];

/// What a peer sees of a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// 6.a
    Refused,
    /// 6.b and 6.f: the message is ours to keep, answered with this status.
    Deferred(u16),
    /// 6.c
    Interworked { clients_too: bool },
    /// 6.d
    Stored,
    /// 6.e
    Forwarded,
    /// Step 7.
    Delivered,
}

fn outcome(of: &[usize]) -> Outcome {
    let is_true = |action: &str| of.iter().any(|index| ACTIONS[*index] == action);
    match () {
        () if is_true("reject-invite") => Outcome::Refused,
        () if is_true("do-not-disturb") => Outcome::Deferred(202),
        () if is_true("interwork") || is_true("deliver-and-interwork") => {
            Outcome::Interworked { clients_too: is_true("deliver-and-interwork") }
        }
        () if is_true("store") => Outcome::Stored,
        () if is_true("forward") => Outcome::Forwarded,
        () if is_true("defer") => Outcome::Deferred(200),
        () => Outcome::Delivered,
    }
}

struct World {
    alice: Ue,
    client: Ue,
    isf: Ue,
    carol: Ue,
    pf: Proxy,
}

/// A served user for each case: what its rule says, and what is to come of it.
struct Case {
    user: String,
    rule: String,
    outcome: Outcome,
}

/// Every action alone, every action false, and every pair.
fn cases(carol: &str) -> Vec<Case> {
    let element = |index: usize, value: bool| {
        let address = if ACTIONS[index] == "forward" { format!(" uri=\"sip:carol@{carol}\"") } else { String::new() };
        format!("<oxe:allow-{name}{address}>{value}</oxe:allow-{name}>", name = ACTIONS[index])
    };
    let mut rules: Vec<(String, Outcome)> = Vec::new();
    for one in 0..ACTIONS.len() {
        rules.push((element(one, true), outcome(&[one])));
        rules.push((element(one, false), outcome(&[])));
        for other in one + 1..ACTIONS.len() {
            // Which of the two stands first in the document says nothing.
            rules.push((element(other, true) + &element(one, true), outcome(&[one, other])));
        }
    }
    let named = |(number, (rule, outcome))| Case { user: format!("sip:b{number}@example.net"), rule, outcome };
    rules.into_iter().enumerate().map(named).collect()
}

impl World {
    fn new(cases: impl Fn(&str) -> Vec<Case>) -> (Self, Vec<Case>) {
        let (alice, client, isf, carol) = (Ue::udp("alice"), Ue::udp("client"), Ue::udp("isf"), Ue::udp("carol"));
        let cases = cases(&carol.address.to_string());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut users = String::new();
        for Case { user, rule, .. } in &cases {
            let text = format!(
                r#"<?xml version="1.0"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" xmlns:oxe="urn:oma:xml:xdm:extensions"><rule id="r">
                <conditions><oxe:service-list><oxe:service enabler="CPM"/></oxe:service-list><oxe:media-list><oxe:standalone-message/></oxe:media-list></conditions>
                <actions>{rule}</actions></rule></ruleset>"#
            );
            put(folder.path(), &format!("xdm/org.openmobilealliance.access-rules/users/{user}/access-rules"), &text);
            users += &registered(user, &[(client.address, "primary = true")]);
        }
        let more = format!("[policy]\ndelivery = \"reject\"\n[sip]\nisf = \"sip:{};lr\"\n{users}", isf.address);
        let pf = Proxy::start_in(folder, &more);
        (Self { alice, client, isf, carol, pf }, cases)
    }

    /// The final answer to this INVITE, acknowledged.
    #[track_caller]
    fn answer(&mut self, invite: &Invite) -> Message {
        let call = invite.get("Call-ID");
        let (answer, _) = self.alice.next("a final answer", |message| {
            message.status() >= 200 && message.header("Call-ID") == call && message.want("CSeq").ends_with("INVITE")
        });
        self.alice.ack(self.pf.udp, &invite.message(), &answer);
        answer
    }

    /// We are the endpoint: the message goes to us.
    #[track_caller]
    fn taken(&mut self, invite: &Invite, status: u16, body: &str) {
        let ok = self.answer(invite);
        assert_eq!(ok.status(), status, "{ok:?}");
        assert_eq!((ok.attributes("recvonly").len(), ok.attribute("setup")), (1, "passive"));
        let mut sender = Msrp::connect(ok.msrp_address(), invite.message().attribute("path"), ok.attribute("path"));
        sender.send("msg1", body.as_bytes());
        sender.expect("200");
        let bye = self.alice.in_dialog("BYE", &ok, 1);
        self.alice.send(self.pf.udp, &bye);
        let call = invite.get("Call-ID");
        self.alice.next("200 to BYE", |message| {
            message.status() == 200 && message.header("Call-ID") == call && message.want("CSeq").ends_with("BYE")
        });
    }

    /// Plays one case; who was to get nothing got nothing.
    #[track_caller]
    fn play(&mut self, case: &Case, number: usize) {
        let invite = Invite::new(&self.alice, &case.user, LARGE).terminating();
        let conversation = invite.get("Conversation-ID").map(str::to_owned);
        let of_this =
            |message: &Message| message.method() == "INVITE" && message.header("Conversation-ID") == conversation.as_deref();
        let body = format!("the body of case {number}");
        let deferred = self.pf.metric("cpm_pf_deferred_messages", &[]);
        self.alice.send(self.pf.udp, &invite.text());
        // Who is invited, refuses: then nothing is left of the case.
        let declined = |ue: &mut Ue| {
            let (arrived, from) = ue.next("its INVITE", of_this);
            ue.answer(&arrived, from, "603 Decline", "", "");
            arrived
        };
        let invited = match case.outcome {
            Outcome::Interworked { clients_too } => {
                declined(&mut self.isf);
                [clients_too.then(|| declined(&mut self.client)).is_some(), true, false]
            }
            Outcome::Forwarded => {
                assert_eq!(declined(&mut self.carol).uri(), format!("sip:carol@{}", self.carol.address));
                [false, false, true]
            }
            Outcome::Delivered => {
                assert_eq!(declined(&mut self.client).uri(), case.user);
                [true, false, false]
            }
            Outcome::Refused | Outcome::Deferred(_) | Outcome::Stored => [false; 3],
        };
        match case.outcome {
            Outcome::Refused => {
                let refusal = self.answer(&invite);
                assert_eq!(refusal.status(), 403);
                warned(&refusal, "122 Function not allowed");
            }
            Outcome::Deferred(status) => {
                self.taken(&invite, status, &body);
                self.pf.until("the message waits", |pf| pf.metric("cpm_pf_deferred_messages", &[]) == deferred + 1.0);
            }
            Outcome::Stored => {
                self.taken(&invite, 200, &body);
                let history = self.pf.path("var/history");
                assert!(crate::terminating::holds(&history, body.as_bytes()), "answered means stored");
                assert_eq!(self.pf.metric("cpm_pf_deferred_messages", &[]), deferred);
            }
            Outcome::Interworked { .. } | Outcome::Forwarded | Outcome::Delivered => {
                assert_eq!(self.answer(&invite).status(), 603);
            }
        }
        for (ue, invited) in [&mut self.client, &mut self.isf, &mut self.carol].into_iter().zip(invited) {
            if !invited {
                ue.nothing(self.pf.udp, "an INVITE of a rule that does not ask for it", of_this);
            }
        }
    }
}

#[test]
fn every_action_alone_and_in_pairs_is_carried_out_as_step_6_orders_them() {
    let (mut world, cases) = World::new(cases);
    assert_eq!(cases.len(), 7 + 7 + 21);
    for (number, case) in cases.iter().enumerate() {
        println!("case {number}: {:?} by {}", case.outcome, case.rule);
        world.play(case, number);
    }
    proves!(
        "TLM-6.0.3", "TLM-6.a.1", "TLM-6.a.2", "TLM-6.b.1", "TLM-6.b.2", "TLM-6.b.3", "TLM-6.c.0", "TLM-6.c.z1", "TLM-6.d.0", "TLM-6.d.i", "TLM-6.d.ii.1",
        "TLM-6.d.ii.2", "TLM-6.d.iii", "TLM-6.e.1", "TLM-6.e.2", "TLM-6.e.3", "TLM-6.f.0", "TLM-6.f.i", "TLM-6.f.ii", "TLM-6.f.iii", "TLM-7.0"; world.pf
    );
}
