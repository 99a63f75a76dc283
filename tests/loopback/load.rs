//! The scenarios of the load tool against the program, small: everything arrives as it was sent, whatever the kind of load.

use crate::peers;
use crate::proxy::{Proxy, registered};
use cpm_bench::mix::run;
use cpm_bench::report::{Outcome, page};
use cpm_bench::scenario::{Load, Scenario, Via};
use std::net::SocketAddr;

/// Where the load's ends are.
struct Ends {
    caller: String,
    called: SocketAddr,
    msrp: String,
}

fn ends() -> Ends {
    let [caller, called, msrp] = peers::free();
    let at = |port: u16| format!("127.0.0.1:{port}");
    Ends { caller: at(caller), called: SocketAddr::from(([127, 0, 0, 1], called)), msrp: at(msrp) }
}

fn start(ends: &Ends, more: &str) -> Proxy {
    let core = format!(
        "{more}\n---\n[sip]\ncore = \"sip:{};lr\"\n[limits]\nsessions_per_originator = 1000\noverload_queue_delay = \"30s\"\n",
        ends.called
    );
    Proxy::start_saying(tempfile::tempdir().expect("a temporary folder"), &core, "info")
}

/// What all scenarios here have in common; short, for it is not speed that is tested.
fn scenario(pf: &Proxy, ends: &Ends, load: Load) -> Scenario {
    Scenario {
        load,
        via: Via::Sip,
        proxy: pf.udp.to_string(),
        caller_sip: ends.caller.clone(),
        called_sip: ends.called.to_string(),
        called_msrp: ends.msrp.clone(),
        seconds: 0.3,
        warmup: 0.0,
        failure_report: "yes".into(),
        verify: true,
        ..Scenario::default()
    }
}

#[track_caller]
fn passes(scenario: &Scenario) -> Outcome {
    let outcome = run(scenario, None, true).unwrap_or_else(|error| panic!("{error}"));
    assert!(outcome.passed, "{} lost, {} changed, {:?}", outcome.lost, outcome.corrupted, outcome.failures);
    outcome
}

#[test]
fn messages_of_many_chunks_and_of_many_sizes_arrive() {
    let ends = ends();
    let pf = start(&ends, "");
    let base = scenario(&pf, &ends, Load::Bulk);
    passes(&Scenario { service: "largemsg".into(), message: 300_001, chunk: 10_000, sessions: 2, ..base.clone() });
    let sizes = vec![(1, 1), (40, 5), (3000, 2), (70_000, 1)];
    passes(&Scenario { load: Load::Closed, sizes: sizes.clone(), sessions: 5, ..base.clone() });
    passes(&Scenario { load: Load::Open, sizes, sessions: 5, rate: 200, ..base });
}

#[test]
fn sessions_that_come_and_go_lose_nothing() {
    let ends = ends();
    let pf = start(&ends, "");
    let outcome = passes(&Scenario { rate: 60, messages: 3, chunk: 200, ..scenario(&pf, &ends, Load::Churn) });
    assert!(outcome.refused == 0, "{:?}", outcome.failures);
    pf.until("every session has gone", |pf| pf.metric("cpm_pf_msrp_sessions", &[]) == 0.0);
}

#[test]
fn every_client_of_a_user_gets_every_octet() {
    let ends = ends();
    let keys: Vec<String> =
        (1..=3).map(|n| format!("instance = \"<urn:uuid:00000000-0000-1000-8000-00000000000{n}>\"")).collect();
    let clients: Vec<(SocketAddr, &str)> = keys.iter().map(|keys| (ends.called, keys.as_str())).collect();
    let pf = start(&ends, &registered("sip:bob@example.net", &clients));
    let base = scenario(&pf, &ends, Load::Bulk);
    let fan_out =
        Scenario { served: "term".into(), service: "largemsg".into(), targets: 3, message: 200_000, chunk: 20_000, ..base };
    passes(&fan_out);
}

#[test]
fn messages_for_an_absent_user_come_when_the_user_registers() {
    let ends = ends();
    let pf = start(&ends, &format!("[registrations]\nsource = \"reg-event\"\nregistrar = \"sip:{};lr\"\n", ends.called));
    let outcome = passes(&Scenario { messages: 4, message: 100_000, chunk: 30_000, ..scenario(&pf, &ends, Load::Deferred) });
    assert_eq!(outcome.count, 4);
}

#[test]
fn what_a_scenario_needs_of_the_proxy_is_said_where_it_is_missing() {
    let ends = ends();
    let pf = start(&ends, "[policy]\ndelivery = \"reject\"\n");
    let deferred = Scenario { messages: 1, message: 30_000, chunk: 30_000, ..scenario(&pf, &ends, Load::Deferred) };
    let base = scenario(&pf, &ends, Load::Bulk);
    let fan_out = Scenario { served: "term".into(), service: "largemsg".into(), targets: 3, message: 9000, ..base };
    for (scenario, what) in [(deferred, "users who are away"), (fan_out, "3 registered clients")] {
        let told = run(&scenario, None, true).err().unwrap_or_default();
        assert!(told.contains("480") && told.contains(what) && told.contains("What the proxy has to know"), "{told}");
    }
}

#[test]
fn a_slow_reader_is_one_that_loses_nothing_and_harms_nobody() {
    let ends = ends();
    let pf = start(&ends, "");
    let base = scenario(&pf, &ends, Load::Bulk);
    passes(&Scenario { sessions: 3, slow_readers: 1, slow_octets: 50_000, chunk: 10_000, window: 100_000, ..base });
}

#[test]
fn a_mix_passes_when_its_parts_do() {
    let (ends, other) = (ends(), self::ends());
    let pf = start(&ends, "");
    let chat = Scenario { chunk: 200, sessions: 3, rate: 50, name: "chat".into(), ..scenario(&pf, &ends, Load::Open) };
    let churn = Scenario { rate: 20, route: true, name: "churn".into(), ..scenario(&pf, &other, Load::Churn) };
    let outcome = passes(&Scenario { parts: vec![chat, churn], ..scenario(&pf, &ends, Load::Mix) });
    assert_eq!(outcome.parts.len(), 2);
    assert_eq!(outcome.count, outcome.parts.iter().map(|part| part.count).sum::<u64>());
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    page(&[outcome], file.path()).expect("written");
    let text = std::fs::read_to_string(file.path()).expect("read");
    assert!(text.contains("<td>chat<td>3") && text.contains("<svg"), "{text}");
}
